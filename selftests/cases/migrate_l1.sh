# L0 live-migrates an L1, whose L2 on KPOP writes and verifies its memory all the time, from QEMU to QEMU, and through a
# file. L0's dirty log of L1 finds what L2 writes, or L2's memory is wrong afterwards. Nothing of KPOP moves along: where a
# policy is attached L1 loads and maps anew, where none is L1 falls back, and L2 never notices.
#
#   migrate_l1.sh STEP...   one L1 goes through all of them; a step is WAY:SIDE
#     WAY    live, ring (live, found by dirty rings), file (saved, QEMU ends, restored)
#     SIDE   kpop: a policy is attached at the destination; none
. /kpop/lib.sh
BUSY=32 STILL=24
MEM=640
N=0

want() { memtest $1 1 | sed -n 's/.*checksum //p'; }
l2_stat() { l1 "kvm_stat \$(vm_pid l2) $1"; }

accel_of() { # WAY
	[ $1 = ring ] && echo kvm,dirty-ring-size=4096 || echo kvm
}

wait_migrated() { # NAME
	local i=0 state=
	while [ $i -lt $((120 * SLOW)) ]; do
		mon $1 "info migrate" >$RUN/migrate.info || fail "the first QEMU is gone: $(cat $RUN/$1.qemu)"
		state=$(sed -n 's/^Migration status: //p' $RUN/migrate.info)
		case $state in
		completed) return ;;
		failed | cancelled) fail "migration: $(cat $RUN/migrate.info)" ;;
		esac
		sleep 1
		i=$((i + 1))
	done
	fail "the migration does not end: $(cat $RUN/migrate.info)"
}

# The destination listens, with its policy, before anything is sent.
start_destination() { # NAME WAY SIDE URI
	NAME=$1 ACCEL=$(accel_of $2) BOOT_SECONDS=0 l1_start -incoming defer || fail "no second QEMU: $(cat $RUN/$1.qemu)"
	# Its monitor answers when the VM is there.
	mon $1 "info status" | grep -q inmigrate || fail "the second QEMU does not wait: $(cat $RUN/$1.qemu)"
	[ $3 = none ] || attach $1
	mon $1 "migrate_incoming \"$4\""
}

move_live() { # FROM TO WAY SIDE
	local sock=$RUN/$2.migrate
	start_destination $2 $3 $4 unix:$sock
	mon $1 "migrate_set_parameter max-bandwidth 1G"
	mon $1 "migrate_set_parameter downtime-limit 3000"
	mon $1 "migrate -d unix:$sock"
	wait_migrated $1
	vm_kill $1
	grep -E '^(total time|downtime|normal|dirty sync count)' $RUN/migrate.info | tr '\n' ';'
	echo
	[ "$(sed -n 's/^dirty sync count: //p' $RUN/migrate.info)" -ge 2 ] || fail "there was nothing to find in the log"
}

move_by_file() { # FROM TO WAY SIDE
	local file=$RUN/$2.state
	mon $1 "migrate_set_parameter max-bandwidth 1G"
	mon $1 stop
	mon $1 "migrate -d \"exec:cat >$file\""
	wait_migrated $1
	vm_kill $1
	echo "$(stat -c %s $file) bytes in the file"
	start_destination $2 $3 $4 "exec:cat $file"
	local i=0
	while ! mon $2 "info status" | grep -q 'VM status: paused$'; do
		sleep 1
		i=$((i + 1))
		[ $i -lt 120 ] || fail "not restored: $(mon $2 'info status') $(cat $RUN/$2.qemu)"
	done
	mon $2 cont
	rm $file
}

# L2 still runs what it ran, and can be given new memory.
l2_is_well() {
	local out
	out=$(T=120 l1 "T=120 l2 'pidof memtest | wc -w; memtest 8 1'") || fail "L2 does not answer: $out"
	[ "$(echo "$out" | head -1)" = 2 ] || fail "a memory test of L2 has ended: $(l1 "l2 'cat /tmp/busy /tmp/still'")"
	[ "${out##* }" = $WANT_SMALL ] || fail "wrong data in L2: $out"
}

step() { # WAY SIDE
	N=$((N + 1))
	local from=$NAME to=l1$N p before after shadow
	before=$(l2_stat kpop_guest_active)
	case $1 in
	live | ring) move_live $from $to $1 $2 ;;
	file) move_by_file $from $to $1 $2 ;;
	*) fail "a step is live, ring or file, not $1" ;;
	esac
	NAME=$to
	p=$(vm_pid $to)
	l2_is_well
	after=$(l2_stat kpop_guest_active)
	shadow=$(kvm_stat $p mmu_cache_miss)
	if [ $before$2 = 1kpop ]; then
		[ $after = 1 ] || fail "L2 fell back, with a policy at the destination"
		[ "$(kvm_stat $p kpop_spaces)" -ge 1 ] && [ "$(kvm_stat $p kpop_maps)" -gt 0 ] || fail "L2 is not on KPOP here"
		# The unknown tokens, each an empty root, until L1 has loaded them.
		[ $shadow -le 4 ] || fail "L0 made $shadow shadow pages"
	else
		[ $after = 0 ] || fail "L1 thinks that L2 is on KPOP"
		[ "$(l2_stat kpop_guest_fallbacks)" = 1 ] || fail "L1 fell back $(l2_stat kpop_guest_fallbacks) times"
		[ "$(kvm_stat $p kpop_spaces)" = 0 ] || fail "a space for an L2 on legacy paging"
		[ $shadow -gt 4 ] || fail "L2 is on no table at all"
	fi
	echo "ok - $1, $([ $before = 1 ] && echo KPOP || echo legacy) to $([ $after = 1 ] && echo KPOP || echo legacy): L2 is well, $(kvm_stat $p kpop_maps) MAPs, $shadow shadow pages here"
}

WANT_SMALL=$(want 8) WANT_BUSY=$(want $BUSY) WANT_STILL=$(want $STILL)
export NAME=l1 MEM
ACCEL=$(accel_of ${1%:*}) l1_start || fail "no L1"
attach l1
T=250 l1 "MEM=192 BOOT_SECONDS=240 l2_start" || fail "no L2"
[ "$(l2_stat kpop_guest_active)" = 1 ] || fail "L2 is not on KPOP"
l1 "l2 'setsid sh -c \"memtest $BUSY 1 100000 >/tmp/busy 2>&1; echo status \\\$? >>/tmp/busy\" </dev/null >/dev/null 2>&1 &
	setsid sh -c \"memtest $STILL 1 100000 still >/tmp/still 2>&1; echo status \\\$? >>/tmp/still\" </dev/null >/dev/null 2>&1 &
	while [ \$(pidof memtest | wc -w) -lt 2 ]; do usleep 100000; done'" || fail "no memory test in L2"
l2_is_well
for s in "$@"; do
	step ${s%:*} ${s#*:}
done

out=$(T=200 l1 "T=200 l2 'killall memtest; while ! grep -q status /tmp/busy || ! grep -q status /tmp/still; do usleep 200000; done; cat /tmp/busy /tmp/still'") ||
	fail "L2's memory tests do not end: $out"
echo "$out"
[ "$(echo "$out" | grep -c '^status 0')" = 2 ] || fail "L2's memory is wrong"
echo "$out" | grep -q "checksum $WANT_BUSY" && echo "$out" | grep -q "checksum $WANT_STILL" || fail "other checksums than $WANT_BUSY, $WANT_STILL"
echo "ok - L2 wrote and verified all the way, and its memory is right"
l1 l2_stop || fail "L2 did not power off"
l1_stop || fail "L1 did not power off"
