# migrate_l2.sh kpop|legacy: an L1 user live-migrates a busy L2 to a second QEMU on the same L1: what L2 writes meanwhile is found by
# the dirty log, which on KPOP L0 keeps for L1, or L2's memory is wrong afterwards.
. /kpop/lib.sh
MIB=48

in_l1() {
	MEM=256 l2_start || fail "no L2"
	want_side l2
	l2 "setsid sh -c 'memtest $MIB 1 25 >/tmp/out 2>&1; echo status \$? >>/tmp/out' </dev/null >/dev/null 2>&1 &"
	NAME=l2b MEM=256 BOOT_SECONDS=0 l2_start -incoming unix:$RUN/migrate.sock || fail "no second QEMU"
	sleep 5
	mon l2 "migrate_set_parameter max-bandwidth 1G"
	mon l2 "migrate_set_parameter downtime-limit 4000"
	mon l2 "migrate -d unix:$RUN/migrate.sock"
	local i=0 state=
	while [ $i -lt 120 ]; do
		mon l2 "info migrate" >$RUN/migrate.info || fail "the first QEMU is gone: $(cat $RUN/l2.qemu)"
		state=$(sed -n 's/^Migration status: //p' $RUN/migrate.info)
		case $state in completed) break ;; failed | cancelled) fail "migration: $(cat $RUN/migrate.info)" ;; esac
		sleep 1
		i=$((i + 1))
	done
	[ "$state" = completed ] || fail "no end of it: $(cat $RUN/migrate.info)"
	l2_kill
	grep -E '^(Migration status|total time|downtime|normal|dirty sync count)' $RUN/migrate.info
	[ "$(sed -n 's/^dirty sync count: //p' $RUN/migrate.info)" -ge 2 ] || fail "there was nothing to find in the log"
	want_side l2b
	export NAME=l2b
	i=0
	while ! l2 "grep -q status /tmp/out"; do
		sleep 1
		i=$((i + 1))
		[ $i -lt 300 ] || fail "L2's memory test does not end"
	done
	l2 "cat /tmp/out" >$RUN/out
	cat $RUN/out
	grep -q "^status 0" $RUN/out || fail "L2's memory is wrong after the migration"
	grep -q "checksum $WANT" $RUN/out || fail "another checksum than $WANT"
	l2_stop || fail "the migrated L2 did not power off"
}

[ "$1" = in_l1 ] && { SIDE=$2 WANT=$3; in_l1; exit 0; }
case_in_l1 800 migrate_l2.sh $1 $(memtest $MIB 1 | sed -n 's/.*checksum //p')
echo "ok - L2 was migrated while it wrote, and its memory is right"
