# An unmodified Linux in L3, below an L2 on KPOP, and its memory test. Each exit of L3 is dozens of L0: a tick of its 100 a second takes
# longer than until the next one, so L2's KVM gives it no periodic timer faster than 10 a second.
. /kpop/lib.sh
MIB=16
WANT=$2

in_l1() {
	local out
	MEM=384 SMP=1 l2_start || fail "no L2"
	[ "$(kvm_stat $(vm_pid l2) kpop_guest_active)" = 1 ] || fail "L2 is not on KPOP"
	T=60 l2 "kvm_load min_timer_period_us=100000 && echo 1 >/proc/sys/vm/overcommit_memory" || fail "L2 has no KVM"
	T=$SECONDS_L3 l2 "MEM=96 SMP=1 BOOT_SECONDS=$SECONDS_L3 vm_start l3" || fail "no L3: $(l2 'tail /dev/virtio-ports/kpop.log3')"
	out=$(T=600 l2 "T=600 vm_run l3 'hostname; uptime; memtest $MIB 1'") || fail "L3: $out"
	echo "$out"
	echo "$out" | grep -q "checksum $WANT" || fail "L3's memory is wrong, not $WANT"
	[ "$(kvm_stat $(vm_pid l2) kpop_guest_fallbacks)" = 0 ] || fail "L1 fell back"
	echo "ok - a Linux in L3, its memory is right; L1 entered L2's guest $(kvm_stat $(vm_pid l2) nested_run) times"
	l2_kill
}

SECONDS_L3=3000
[ "$1" = in_l1 ] && { in_l1; exit 0; }
MEM=1536 l1_start || fail "no L1"
attach
T=4000 l1 "sh /kpop/cases/l3_linux.sh in_l1 $(memtest $MIB 1 | sed -n 's/.*checksum //p')" || exit 1
l1_stop || fail "L1 did not power off"
