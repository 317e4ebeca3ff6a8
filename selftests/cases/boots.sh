# boots.sh kpop|legacy COUNT: an L1 boots an L2 COUNT times, one after the other, and says how long each took. What makes an L2
# hang now and then shows here, and whether it does on legacy paging, too.
. /kpop/lib.sh

now() { cut -d. -f1 /proc/uptime; }

in_l1() {
	local i=1 t failed=0
	while [ $i -le $COUNT ]; do
		t=$(now)
		if MEM=256 l2_start; then
			echo "ok - boot $i: $(($(now) - t)) s"
			l2_stop || fail "L2 did not power off"
		else
			echo "not ok - boot $i"
			failed=$((failed + 1))
		fi
		i=$((i + 1))
	done
	[ $failed = 0 ] || fail "$failed of $COUNT boots"
}

[ "$1" = in_l1 ] && { COUNT=$3; in_l1; exit 0; }
case_in_l1 $((300 * $2)) boots.sh $1 $2
