# An L0 whose KVM was built with CONFIG_KVM_KPOP=n: the steps of kpop_legacy come out the same, an L1 hears ENOSYS, and
# kpopctl says what is missing. upstream_nokpop is the large one of this kind.
. /kpop/lib.sh
kvm_reload nokpop || fail "KVM without KPOP"
[ ! -e /sys/module/kvm/parameters/kpop_host ] || fail "this kvm.ko has KPOP"
/kpop/kvm/kpop_legacy_test >$RUN/nokpop.out 2>&1
status=$?
cat $RUN/nokpop.out
out=$(kpopctl list 2>&1)
ctl=$?
kvm_reload || fail "KVM with KPOP again"
[ $status = 0 ] || fail "kpop_legacy_test ends with $status"
grep -q 'QUERY without a policy' $RUN/nokpop.out || fail "kpop_legacy_test asked nothing"
[ $ctl != 0 ] && echo "$out" | grep -q 'has no KPOP' || fail "kpopctl list on such a kernel: status $ctl, $out"
echo "ok - $out"
kpopctl list || fail "kpopctl on KVM with KPOP again"
