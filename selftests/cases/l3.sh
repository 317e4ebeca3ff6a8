# An L2 on KPOP that is itself a hypervisor: its guest, L3, has legacy paging on top.
. /kpop/lib.sh
MIB=16
want=$(memtest $MIB 1 | sed -n 's/.*checksum //p')
MEM=1792 l1_start || fail "no L1"
[ "$1" = legacy ] || out=$(kpopctl attach /kpop/bpf/kpop_base.bpf.o --name l1 2>&1) || fail "$out"
T=250 l1 "MEM=1024 BOOT_SECONDS=240 l2_start" || fail "no L2"
[ "$1" = legacy ] || [ "$(l1 "kvm_stat \$(vm_pid l2) kpop_guest_active")" = 1 ] || fail "L2 is not on KPOP"
l1 "l2 'kvm_load && ls /dev/kvm'" || fail "no KVM in L2"
[ "$(l1 "l2 'cat /sys/module/kvm/parameters/kpop_guest'")" = Y ] || fail "L2's KVM does not ask for KPOP"
T=500 l1 "T=490 l2 'MEM=128 SMP=1 BOOT_SECONDS=480 vm_start l3'" || fail "no L3"
out=$(T=300 l1 "T=290 l2 'T=280 vm_run l3 memtest $MIB 1'") || fail "L3: $out"
[ "${out##* }" = "$want" ] || fail "wrong data in L3: $out"
# An L1 that is on KPOP offers none: L3 has legacy paging.
n=$(l1 "l2 'kvm_stat \$(vm_pid l3) kpop_guest_active'")
[ "$n" = 0 ] || fail "L3 says that it is on KPOP: $n"
echo "ok - L3 runs on an L2 on KPOP, its memory is right; L2's KVM entered it $(l1 "l2 'kvm_stat \$(vm_pid l3) exits'") times"
out=$(T=120 l1 "T=110 l2 'memtest $MIB 1'") || fail "L2 beside L3: $out"
[ "${out##* }" = "$want" ] || fail "wrong data in L2: $out"
[ "$(l1 "kvm_stat \$(vm_pid l2) kpop_guest_fallbacks")" = 0 ] || fail "L1 fell back"
T=60 l1 "T=50 l2 'vm_stop l3'" || fail "L3 did not power off"
l1 l2_stop || fail "L2 did not power off"
l1_stop || fail "L1 did not power off"
