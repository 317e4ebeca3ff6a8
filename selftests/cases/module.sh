# An attached policy pins kvm.ko, also when its VM is dead; when all is gone the module can be removed.
. /kpop/lib.sh
refs() { cat /sys/module/kvm/refcnt; }
vendor=amd
[ -d /sys/module/kvm_intel ] && vendor=intel
# No reference but those of modules on top; what policies hold goes after grace periods.
idle() {
	local i=0
	until [ "$(refs)" = "$(ls /sys/module/kvm/holders | wc -l)" ]; do
		usleep 100000
		i=$((i + 1))
		[ $i -lt $((100 * SLOW)) ] || fail "kvm.ko has $(refs) references, $(ls /sys/module/kvm/holders | wc -l) modules on top, $1"
	done
}
idle "left by an earlier test"
sleeper
out=$(kpopctl attach --name sleeper /kpop/bpf/kpop_base.bpf.o 2>&1) || fail "$out"
modprobe -r kvm_$vendor 2>/dev/null && fail "kvm_$vendor went under a VM"
kill -9 $q
wait $q 2>/dev/null
i=0
# busybox takes the modules below away as well, and says so if it can not.
while [ -d /sys/module/kvm_$vendor ]; do
	modprobe -r kvm_$vendor 2>/dev/null
	usleep 100000
	i=$((i + 1))
	[ $i -lt $((100 * SLOW)) ] || fail "kvm_$vendor does not go after its VM"
done
[ -d /sys/module/kvm ] || fail "kvm.ko went under a policy"
modprobe -r kvm 2>/dev/null && fail "kvm.ko went under a policy"
echo "ok - the policy of a dead VM pins kvm.ko: $(refs) references"
kvm_load || fail "kvm_load"
kpopctl detach --defunct >/dev/null || fail "detach --defunct"
idle "after the last policy"
kvm_unload || fail "kvm.ko does not go: $(grep kvm /proc/modules)"
[ -d /sys/module/kvm ] && fail "kvm.ko is there still"
kvm_load || fail "kvm_load"
echo "ok - when it is gone kvm.ko can be removed and loaded again"
