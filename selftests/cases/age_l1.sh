# L1's memory management and what L2 accesses (selftests/kvm/kpop_age_test.c), on legacy paging and on KPOP: DAMON, and which
# pages go to swap, by MGLRU and by the older lists.
. /kpop/lib.sh

in_l1() {
	local lru
	swap_on 200M
	/kpop/kvm/kpop_age_test damon || fail "DAMON"
	for lru in 0 7; do
		echo $lru >/sys/kernel/mm/lru_gen/enabled
		[ $(($(cat /sys/kernel/mm/lru_gen/enabled))) = $lru ] || fail "lru_gen"
		echo "# $([ $lru = 0 ] && echo the older lists || echo MGLRU)"
		/kpop/kvm/kpop_age_test || fail "reclaim"
	done
}

[ "$1" = in_l1 ] && { in_l1; exit 0; }
# One vCPU: with two on one CPU of L0 each page of L2 that is made old costs an IPI to who waits for his turn.
MEM=768 SMP=1 l1_start || fail "no L1"
age() { T=300 l1 "sh /kpop/cases/age_l1.sh in_l1"; }
on_both age
l1_stop || fail "L1 did not power off"
