# l3.sh kpop|legacy: an L2 that runs guests of its own: tests in a Linux L2, whose guests are L3s. On KPOP L2's KVM is L1's guest as
# any other, so L3 has legacy nested paging on top of KPOP: L0 and L1 shadow tables for L3, and none for L2.
. /kpop/lib.sh

# The first one checks each page that its guest wrote. Small, as an L3 is slow here.
TESTS="kvm/kpop_ring_test pages=64 entries=256
upstream/kvm_page_table_test -b 256K -v 1"

in_l1() {
	MEM=384 SMP=1 l2_start || fail "no L2"
	want_side l2
	local before runs test t0 status
	before=$(kvm_stat $(vm_pid l2) nested_run)
	T=60 l2 "kvm_load && echo 1 >/proc/sys/vm/overcommit_memory" || fail "L2 has no KVM"
	echo "$TESTS" | while read -r test; do
		t0=$(cut -d. -f1 /proc/uptime)
		T=300 l2 "/kpop/$test" </dev/null >$RUN/out 2>&1
		status=$?
		echo "# $test: status $status, $(($(cut -d. -f1 /proc/uptime) - t0)) s"
		[ $status = 0 ] || { cat $RUN/out; exit 1; }
	done || fail "an L3 of the L2 on $SIDE"
	runs=$(($(kvm_stat $(vm_pid l2) nested_run) - before))
	[ $runs -gt 0 ] || fail "L2 ran no guest"
	want_side l2
	echo "ok - guests of L2 did what they had to, L1 entered them $runs times"
	l2_stop || fail "L2 did not power off"
}

[ "$1" = in_l1 ] && { SIDE=$2; in_l1; exit 0; }
MEM=1536 l1_start || fail "no L1"
[ $1 = legacy ] || attach
T=800 l1 "sh /kpop/cases/l3.sh in_l1 $1" || exit 1
l1_stop || fail "L1 did not power off"
