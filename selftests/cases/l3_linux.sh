# l3_linux.sh kpop|legacy: an unmodified Linux in L3, and its memory test. Each exit of L3 is dozens of L0: a tick of its 100 a second takes
# longer than until the next one, so L2's KVM gives it no periodic timer faster than 10 a second.
. /kpop/lib.sh
MIB=16
SECONDS_L3=3000

in_l1() {
	local out
	MEM=384 SMP=1 l2_start || fail "no L2"
	want_side l2
	T=60 l2 "kvm_load min_timer_period_us=100000 && echo 1 >/proc/sys/vm/overcommit_memory" || fail "L2 has no KVM"
	T=$SECONDS_L3 l2 "MEM=96 SMP=1 BOOT_SECONDS=$SECONDS_L3 vm_start l3" || fail "no L3: $(l2 'tail /dev/virtio-ports/kpop.log3')"
	out=$(T=600 l2 "T=600 vm_run l3 'hostname; uptime; memtest $MIB 1'") || fail "L3: $out"
	echo "$out"
	echo "$out" | grep -q "checksum $WANT" || fail "L3's memory is wrong, not $WANT"
	want_side l2
	echo "ok - a Linux in L3, its memory is right; L1 entered L2's guest $(kvm_stat $(vm_pid l2) nested_run) times"
	l2_kill
}

[ "$1" = in_l1 ] && { SIDE=$2 WANT=$3; in_l1; exit 0; }
MEM=1536 l1_start || fail "no L1"
[ $1 = legacy ] || attach
T=4000 l1 "sh /kpop/cases/l3_linux.sh in_l1 $1 $(memtest $MIB 1 | sed -n 's/.*checksum //p')" || exit 1
l1_stop || fail "L1 did not power off"
