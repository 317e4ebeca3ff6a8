# A module in L1, which has the debug kernel, write-tracks a page of an L2: on legacy paging, then on KPOP.
. /kpop/lib.sh
MEM=1024 SMP=1 l1_start || fail "no L1"
l1 "insmod /kpop/module/kpop_track_mod.ko" || fail "the test module does not load in L1"
track() { # KIND
	echo "--- $1"
	out=$(l1 "/kpop/kvm/kpop_write_track_test" 2>&1) || { echo "$out"; fail "on $1"; }
	echo "$out"
}
track legacy
[ "$(kvm_stat $(l1_pid) kpop_maps)" = 0 ] || fail "that was not legacy paging"
shadow=$(kvm_stat $(l1_pid) mmu_cache_miss)
attach
track KPOP
[ "$(kvm_stat $(l1_pid) kpop_maps)" -gt 0 ] || fail "that was not KPOP"
[ "$(kvm_stat $(l1_pid) mmu_cache_miss)" = "$shadow" ] || fail "L0 made shadow pages for an L2 on KPOP"
l1_stop || fail "L1 did not power off"
