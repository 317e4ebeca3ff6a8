# reclaim_l1.sh kpop|legacy: L1's own memory management under a running L2 that verifies its memory: swap out and in, KSM, THP split
# and collapse.
. /kpop/lib.sh
MIB=64 SMALL=24
# Where each fault takes the better part of a tick.
[ -z "$KPOP_FEW_TICKS" ] || MIB=24 SMALL=8

vmstat() { sed -n "s/^$1 //p" /proc/vmstat; }

in_l1() {
	swap_on 400M
	MEM=256 l2_start || fail "no L2"
	want_side l2
	local huge
	huge=$(sed -n 's/^AnonHugePages: *\([0-9]*\).*/\1/p' /proc/$(vm_pid l2)/smaps_rollup)
	[ "$huge" -gt 0 ] || fail "L1 gives L2 no huge page: nothing to split"

	# Swap, which splits huge pages, while L2 writes and verifies.
	T=300 l2 "memtest $MIB 1 20" >$RUN/busy 2>&1 &
	local busy=$! i=0 out in split
	out=$(vmstat pswpout) in=$(vmstat pswpin) split=$(($(vmstat thp_split_page) + $(vmstat thp_swpout)))
	while [ $i -lt 8 ]; do
		echo $((MIB * 3 / 4))M >$CGROUP/l2/memory.reclaim 2>/dev/null
		sleep 2
		i=$((i + 1))
	done
	wait $busy || fail "L2 under swap: $(cat $RUN/busy)"
	grep -q "checksum $WANT" $RUN/busy || fail "wrong data under swap: $(cat $RUN/busy)"
	out=$(($(vmstat pswpout) - out)) in=$(($(vmstat pswpin) - in)) split=$(($(vmstat thp_split_page) + $(vmstat thp_swpout) - split))
	[ $out -gt 0 ] && [ $in -gt 0 ] && [ $split -gt 0 ] || fail "swapped $out pages out, $in in, of $split huge pages"
	echo "ok - L2's memory is right, $out of its pages went to swap, $in came back, $split huge pages were split or swapped whole"

	# KSM: two that hold the same; then they write.
	echo 4000 >/sys/kernel/mm/ksm/pages_to_scan
	echo 10 >/sys/kernel/mm/ksm/sleep_millisecs
	echo 1 >/sys/kernel/mm/ksm/run
	T=400 l2 "memtest $SMALL 1 100000 still" >$RUN/one 2>&1 &
	local one=$!
	T=400 l2 "memtest $SMALL 1 100000 still" >$RUN/two 2>&1 &
	local two=$! most=0 n
	i=0
	while [ $i -lt 200 ] && [ $most = 0 ]; do
		sleep 1
		most=$(cat /sys/kernel/mm/ksm/pages_sharing)
		i=$((i + 1))
	done
	# For a while they are read so.
	sleep 5
	most=$(cat /sys/kernel/mm/ksm/pages_sharing)
	l2 "killall memtest" || fail "L2 has no memtest"
	wait $one && wait $two || fail "L2 under KSM: $(cat $RUN/one $RUN/two)"
	[ "$(cut -d' ' -f6- $RUN/one)" = "$(cut -d' ' -f6- $RUN/two)" ] || fail "they differ: $(cat $RUN/one $RUN/two)"
	[ $most -gt 0 ] || fail "KSM merged nothing"
	echo 2 >/sys/kernel/mm/ksm/run
	echo "ok - L2's memory is right, KSM had merged $most pages"

	# khugepaged puts together what swap has split.
	local collapsed
	collapsed=$(vmstat thp_collapse_alloc)
	echo 100 >/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs
	echo 16384 >/sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan
	T=300 l2 "memtest $MIB 1 10" >$RUN/busy 2>&1 || fail "L2 under khugepaged: $(cat $RUN/busy)"
	grep -q "checksum $WANT" $RUN/busy || fail "wrong data under khugepaged: $(cat $RUN/busy)"
	collapsed=$(($(vmstat thp_collapse_alloc) - collapsed))
	[ $collapsed -gt 0 ] || fail "khugepaged collapsed nothing"
	echo "ok - L2's memory is right, khugepaged made $collapsed huge pages"
	want_side l2
	l2_stop || fail "L2 did not power off"
}

[ "$1" = in_l1 ] && { SIDE=$2 WANT=$3; in_l1; exit 0; }
case_in_l1 800 reclaim_l1.sh $1 $(memtest $MIB 1 | sed -n 's/.*checksum //p')
