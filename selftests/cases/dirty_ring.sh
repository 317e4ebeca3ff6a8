# dirty_ring.sh [detach]: an L1 VMM that uses the dirty ring: what L2 writes is in the ring, and on KPOP without a fault for each
# page. With "detach" KVM's own test then, while L0 takes the policy away: what L0 had noted is not lost. (It may be told twice,
# the first time before L2 writes, which that test now and then takes for an error: "Set page N value 0 incorrect".)
. /kpop/lib.sh
MEM=768 l1_start || fail "no L1"
ring() { # KIND ARGS
	local kind=$1
	shift
	echo "--- $kind $*"
	out=$(l1 "/kpop/kvm/kpop_ring_test $*" 2>&1) || { echo "$out"; fail "on $kind"; }
	echo "$out"
}
ring legacy
ring legacy early=1
[ "$(kvm_stat $(l1_pid) kpop_maps)" = 0 ] || fail "that was not legacy paging"
attach
# 2048 pages: a fault in L1 for each eighth of the ring.
ring KPOP entries=1024 faults=64
ring KPOP entries=256 faults=128
ring KPOP early=1
[ "$(kvm_stat $(l1_pid) kpop_maps)" -gt 0 ] || fail "that was not KPOP"
[ "$1" = detach ] || { l1_stop || fail "L1 did not power off"; exit 0; }

T=150 l1 "/kpop/upstream/dirty_log_test_64m -M dirty-ring -i 12 -I 200 -c 4096" >$RUN/test 2>&1 &
test=$!
i=0
while [ "$(kvm_stat $(l1_pid) kpop_spaces)" = 0 ]; do
	usleep 100000
	i=$((i + 1))
	[ $i -lt 300 ] || fail "KVM's test is not on KPOP: $(cat $RUN/test)"
done
sleep 3
detach
wait $test || fail "KVM's test did not survive the detach: $(cat $RUN/test)"
grep 'Total bits checked' $RUN/test || fail "KVM's test: $(cat $RUN/test)"
l1 "dmesg | grep 'moving VM .* to its own page tables'" || fail "the detach did not hit the test's VM"
echo "ok - the policy went while L2 wrote, KVM's test of the ring passed"
l1_stop || fail "L1 did not power off"
