# A device of L0's that L1 passes to L2: on legacy paging, then on KPOP.
. /kpop/lib.sh
MEM=512 SMP=1 l1_start -device edu || fail "no L1"
bar='$(for d in /sys/bus/pci/devices/*; do [ "$(cat $d/vendor):$(cat $d/device)" = 0x1234:0x11e8 ] && echo 1 >$d/enable && echo $d/resource0; done)'
touch_bar() { # KIND
	echo "--- $1"
	out=$(l1 "/kpop/kvm/kpop_bar_test $bar" 2>&1) || { echo "$out"; fail "on $1"; }
	echo "$out"
}
touch_bar legacy
[ "$(kvm_stat $(l1_pid) kpop_maps)" = 0 ] || fail "that was not legacy paging"
shadow=$(kvm_stat $(l1_pid) mmu_cache_miss)
attach
touch_bar KPOP
[ "$(kvm_stat $(l1_pid) kpop_maps)" -gt 0 ] || fail "that was not KPOP"
[ "$(kvm_stat $(l1_pid) mmu_cache_miss)" = "$shadow" ] || fail "L0 made shadow pages for an L2 on KPOP"
l1_stop || fail "L1 did not power off"
