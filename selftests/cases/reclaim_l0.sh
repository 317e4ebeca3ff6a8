# L0 does to its memory what a host does, under an L1 whose L2 on KPOP writes and verifies its memory all the time: splits
# and collapses huge pages, swaps, merges, moves, balloons, changes memslots. L2 never notices, L1 hears nothing of it, and no
# mapping is left of a page that L0 has taken back. (mprotect, mremap and MADV_DONTNEED by the VMM itself: kpop_notifier;
# memslots that hold what L2 has mapped: kpop_memslot.)
#
#   reclaim_l0.sh [STAGE...]   all, or some of: split squeeze swap_all merge collapse compact balloon memslots
#
# L1 has one CPU: on one CPU of L0 two of them wait for each other's locks more than they work.
. /kpop/lib.sh
BUSY=24 STILL=24
MEM=640
KSM=/sys/kernel/mm/ksm KHUGE=/sys/kernel/mm/transparent_hugepage/khugepaged

want() { memtest $1 1 | sed -n 's/.*checksum //p'; }
vmstat() { sed -n "s/^$1 //p" /proc/vmstat; }
qemu_huge() { sed -n 's/^AnonHugePages: *\([0-9]*\).*/\1/p' /proc/$p/smaps_rollup; }
# Leafs of all tables that L0 has for L1: L1's own and KPOP's, in 4K.
leaf_pages() { echo $(($(kvm_stat $p pages_4k) + 512 * $(kvm_stat $p pages_2m) + 262144 * $(kvm_stat $p pages_1g))); }

# Where QEMU has L1's memory: a mapping of that size.
ram() {
	local range
	while read -r range _; do
		[ $((0x${range#*-} - 0x${range%-*})) != $((MEM << 20)) ] || echo $range
	done </proc/$p/maps
}

# How much of it is there.
ram_pages() { awk -v range=$(ram) '$1 == range { on = 1 } on && $1 == "Rss:" { print $2 / 4; exit }' /proc/$p/smaps; }

# Which host page each of its pages is.
host_pages() {
	local range=$(ram)
	dd if=/proc/$p/pagemap bs=64k iflag=skip_bytes,count_bytes skip=$((0x${range%-*} / 512)) count=$((MEM << 11)) 2>/dev/null |
		od -An -v -tx8 -w8 | awk '{ print /^ *[89a-f]/ ? substr($1, 4) : "-" }'
}

cleanup() {
	echo 2 >$KSM/run
	echo 0 >$KSM/run
	echo max >$CGROUP/l1/memory.high
	l1_kill
	swapoff /dev/zram0 && echo 1 >/sys/block/zram0/reset
} 2>/dev/null

# L2 runs what it ran and answers, and neither L2 nor L1 had to do with what L0 did.
l2_is_well() { # WHAT
	local out direct maps
	out=$(T=200 l1 "T=200 l2 'pidof memtest | wc -w; memtest 8 1'; kvm_stat \$(vm_pid l2) kpop_guest_fallbacks") || fail "$1: L2 does not answer: $out"
	[ "$(echo "$out" | head -1)" = ${NR:-2} ] || fail "$1: a memory test of L2 has ended: $(l1 "l2 'cat /tmp/busy /tmp/still'")"
	echo "$out" | grep -q "checksum $WANT_SMALL" || fail "$1: wrong data in L2: $out"
	[ "$(echo "$out" | tail -1)" = 0 ] || fail "$1: L1 fell back"
	direct=$(kvm_stat $p kpop_faults_direct) maps=$(kvm_stat $p kpop_maps)
	echo "ok - $1; L0 solved $((direct - DIRECT)) faults of L2, L1 sent $((maps - MAPS)) MAPs"
	DIRECT=$direct MAPS=$maps
}

split() {
	local before=$(vmstat thp_split_page) huge=$(qemu_huge)
	[ $huge -gt 0 ] && [ $(kvm_stat $p pages_2m) -gt 0 ] || fail "L0 gives L1 no huge page: nothing to split"
	echo 1 >/sys/kernel/debug/split_huge_pages
	[ $(qemu_huge) -lt $huge ] || fail "no huge page of L1 was split"
	l2_is_well "$(($(vmstat thp_split_page) - before)) huge pages were split, L1 had $huge KiB of them"
}

# L1's own vCPUs reclaim, as they fault.
squeeze() {
	local out=$(vmstat pswpout) in=$(vmstat pswpin)
	echo $(($(cat $CGROUP/l1/memory.current) * 6 / 10)) >$CGROUP/l1/memory.high
	sleep 8
	echo max >$CGROUP/l1/memory.high
	out=$(($(vmstat pswpout) - out)) in=$(($(vmstat pswpin) - in))
	[ $out -gt 1000 ] && [ $in -gt 0 ] || fail "swapped $out pages out, $in in"
	l2_is_well "under a limit $out pages were swapped out, $in in"
}

# With L1 standing still, all of its memory goes: a mapping that is left would be of a page that is not L1's any more.
swap_all() {
	local i=0 before left were leafs
	# Time goes on meanwhile, and L1's KVM does not tell L2 that it stood still.
	l1 "l2 'echo 0 >/proc/sys/kernel/soft_watchdog'" || fail "L2's soft watchdog"
	mon l1 stop
	before=$(ram_pages) were=$(leaf_pages)
	while [ $i -lt 40 ] && [ $(ram_pages) -gt $((before / 20)) ]; do
		echo 128M >$CGROUP/l1/memory.reclaim 2>/dev/null
		i=$((i + 1))
	done
	left=$(ram_pages) leafs=$(leaf_pages)
	[ $left -lt $((before / 4)) ] || fail "$left of $before pages did not go to swap"
	# L1 maps some of ROMs besides.
	[ $leafs -le $((2 * left + 256)) ] || fail "$leafs pages are mapped for L1 and L2, $left are there"
	mon l1 cont
	l1 "l2 'echo 1 >/proc/sys/kernel/soft_watchdog'" || fail "L2's soft watchdog"
	l2_is_well "of $before pages all but $left went to swap, of $were mapped ones $leafs were left"
}

# Two that hold the same are merged; one of them goes, and what it had is written to.
merge() {
	local i=0 n=0
	l1 "l2 'setsid sh -c \"echo \\\$\\\$ >/tmp/twin; exec memtest $STILL 1 100000 still\" </dev/null >/dev/null 2>&1 &'"
	echo 5000 >$KSM/pages_to_scan
	echo 20 >$KSM/sleep_millisecs
	echo 1 >$KSM/run
	while [ $i -lt 200 ] && [ $n -lt $((STILL * 256)) ]; do
		sleep 1
		n=$(cat /proc/$p/ksm_merging_pages)
		i=$((i + 1))
	done
	[ $n -gt 0 ] || fail "KSM merged nothing of L1's"
	NR=3 l2_is_well "KSM had merged $n pages of L1"
	T=200 l1 "T=200 l2 'kill \$(cat /tmp/twin); memtest 40 1 3'" >$RUN/after 2>&1 ||
		fail "L2 under KSM: $(cat $RUN/after)"
	echo 2 >$KSM/run
	echo 0 >$KSM/run
	l2_is_well "L2 wrote to pages that were merged, then all were taken apart"
}

collapse() {
	local huge=$(qemu_huge) i=0 now
	echo 100 >$KHUGE/scan_sleep_millisecs
	echo 16384 >$KHUGE/pages_to_scan
	while [ $i -lt 20 ]; do
		sleep 1
		now=$(qemu_huge)
		[ $now -le $((huge + 16384)) ] || break
		i=$((i + 1))
	done
	echo 10000 >$KHUGE/scan_sleep_millisecs
	[ $now -gt $huge ] || fail "khugepaged collapsed nothing of L1's"
	l2_is_well "khugepaged took L1 from $huge to $now KiB in huge pages"
}

compact() {
	local moved
	host_pages >$RUN/before
	echo 1 >/proc/sys/vm/compact_memory
	host_pages >$RUN/after
	moved=$(paste $RUN/before $RUN/after | awk '$1 != "-" && $2 != "-" && $1 != $2 { n++ } END { print n + 0 }')
	[ $moved -gt 0 ] || fail "compaction moved nothing of L1's"
	l2_is_well "compaction moved $moved pages of L1"
}

# L1 gives memory back that it has used, and gets it again.
balloon() {
	local before now i=0
	T=200 l1 "memtest 128 1" >/dev/null || fail "L1 has no memory"
	before=$(ram_pages)
	mon l1 "balloon 440"
	while [ $i -lt 60 ] && ! mon l1 "info balloon" | grep -q 'actual=440$'; do
		sleep 1
		i=$((i + 1))
	done
	now=$(ram_pages)
	[ $now -lt $((before - 10000)) ] || fail "the balloon gave nothing back: $before pages before, $now after; $(mon l1 'info balloon')"
	mon l1 "balloon $MEM"
	[ "$(T=200 l1 'memtest 128 1' | sed -n 's/.*checksum //p')" = $WANT_L1 ] || fail "wrong data in L1"
	l2_is_well "the balloon gave $((before - now)) pages back, and L1 has them again"
}

# A BAR with memory behind it comes and goes: each time all roots are void.
memslots() {
	T=200 l1 'for d in /sys/bus/pci/devices/*; do [ "$(cat $d/vendor):$(cat $d/device)" = 0x1af4:0x1110 ] && break; done
		for i in $(seq 40); do
			for c in 2 0; do printf "\\00$c\\000" | dd of=$d/config bs=1 seek=4 conv=notrunc 2>/dev/null; done
		done' || fail "no ivshmem in L1"
	l2_is_well "40 times a memslot came and went"
}

swap_on 1G
trap cleanup EXIT
WANT_SMALL=$(want 8) WANT_BUSY=$(want $BUSY) WANT_STILL=$(want $STILL) WANT_L1=$(want 128)
export MEM SMP=1
l1_start -device virtio-balloon-pci -object memory-backend-ram,id=shm,size=1M,share=on -device ivshmem-plain,memdev=shm || fail "no L1"
p=$(l1_pid)
attach
T=250 l1 "MEM=192 BOOT_SECONDS=240 l2_start" || fail "no L2"
l1 "l2 'setsid sh -c \"memtest $STILL 1 100000 still >/tmp/still 2>&1; echo status \\\$? >>/tmp/still\" </dev/null >/dev/null 2>&1 &
	setsid sh -c \"memtest $BUSY 1 100000 >/tmp/busy 2>&1; echo status \\\$? >>/tmp/busy\" </dev/null >/dev/null 2>&1 &
	while [ \$(pidof memtest | wc -w) -lt 2 ]; do usleep 100000; done'" || fail "no memory test in L2"
DIRECT=0 MAPS=0
l2_is_well "L2 on KPOP writes and verifies"
for stage in ${@:-split squeeze swap_all merge collapse compact balloon memslots}; do
	log_mark $stage
	$stage
done

out=$(T=200 l1 "T=200 l2 'killall memtest; while ! grep -q status /tmp/busy || ! grep -q status /tmp/still; do usleep 200000; done; cat /tmp/busy /tmp/still'") ||
	fail "L2's memory tests do not end: $out"
[ "$(echo "$out" | grep -c '^status 0')" = 2 ] || fail "L2's memory is wrong: $out"
echo "$out" | grep -q "checksum $WANT_BUSY" && echo "$out" | grep -q "checksum $WANT_STILL" || fail "other checksums than $WANT_BUSY, $WANT_STILL: $out"
[ "$(kvm_stat $p mmu_cache_miss)" = 0 ] || fail "L0 made shadow pages"
l1 l2_stop || fail "L2 did not power off"
l1_stop || fail "L1 did not power off"
echo "ok - L2's memory was right all the way"
