# An L1 whose L2s run on KPOP goes into another kernel by kexec, without a word to L0: into one whose KVM has no KPOP and
# asks L0 nothing, where L2s run on legacy paging with KPOP's leftovers gone, and back into one that has it.
. /kpop/lib.sh
MIB=16
want=$(memtest $MIB 1 | sed -n 's/.*checksum //p')
MEM=1536 l1_start || fail "no L1"
p=$(l1_pid)
attach
l1_stat() { l1 "kvm_stat \$(vm_pid l2) $1"; }

l2_up() { # KPOP
	T=250 l1 "MEM=256 SMP=1 BOOT_SECONDS=240 l2_start" || fail "no L2"
	[ "$(l1 "cat /sys/kernel/debug/kvm/\$(vm_pid l2)-*/kpop_guest_active 2>/dev/null || echo 0")" = $1 ] || fail "L2 is $([ $1 = 1 ] && echo not) on KPOP"
	out=$(T=120 l1 "T=120 l2 'memtest $MIB 1'") || fail "L2: $out"
	[ "${out##* }" = $want ] || fail "wrong data in L2: $out"
}

# L2 writes its memory when the kernel goes. The agent of the old kernel may still take a command.
into() { # MARK KVM OPTIONS
	local i=0
	l1 "l2 'setsid memtest $MIB 1 1000 </dev/null >/dev/null 2>&1 &'" || fail "no memory test in L2"
	l1 "(usleep 300000; kexec /boot/bzImage \"\$(sed 's/ kpop\\.kvm=[^ ]*//g; s/ kpop\\.mark=[^ ]*//g' /proc/cmdline) kpop.mark=$1${2:+ kpop.kvm=$2}\") >/dev/console 2>&1 </dev/null &"
	while ! T=10 l1 "grep -q kpop.mark=$1 /proc/cmdline" 2>/dev/null; do
		vm_alive l1 || fail "L1 ended: $(cat $RUN/l1.qemu)"
		i=$((i + 1))
		[ $i -lt 60 ] || fail "L1 did not come back with another kernel"
		usleep 500000
	done
}

none_left() {
	[ "$(kvm_stat $p kpop_spaces)" = 0 ] || fail "L0 keeps $(kvm_stat $p kpop_spaces) spaces of the kernel that is gone"
	[ "$(kvm_stat $p kpop_bytes)" = 0 ] || fail "L0 keeps $(kvm_stat $p kpop_bytes) bytes of the kernel that is gone"
}

l2_up 1
[ "$(kvm_stat $p kpop_spaces)" -ge 1 ] || fail "no space in L0"
[ "$(kvm_stat $p mmu_cache_miss)" = 0 ] || fail "L0 made shadow pages"
echo "ok - L2 on KPOP, $(kvm_stat $p kpop_maps) MAPs"

into other nokpop
none_left
l1 '[ ! -e /sys/module/kvm/parameters/kpop_guest ]' || fail "this kvm.ko has KPOP"
maps=$(kvm_stat $p kpop_maps) shadow=$(kvm_stat $p mmu_cache_miss)
l2_up 0
[ "$(kvm_stat $p kpop_maps)" = $maps ] || fail "MAPs of a kernel without KPOP"
[ "$(kvm_stat $p mmu_cache_miss)" -gt $shadow ] || fail "L2 is on no table at all"
echo "ok - a kernel without KPOP: nothing of the old one is left, L2 runs on legacy paging ($(($(kvm_stat $p mmu_cache_miss) - shadow)) shadow pages)"

into again
shadow=$(kvm_stat $p mmu_cache_miss)
l2_up 1
[ "$(kvm_stat $p kpop_maps)" -gt $maps ] || fail "no MAP"
[ "$(kvm_stat $p mmu_cache_miss)" = $shadow ] || fail "L0 made shadow pages"
echo "ok - back in a kernel with KPOP: L2 is on KPOP, $(($(kvm_stat $p kpop_maps) - maps)) MAPs"
l1 l2_stop || fail "L2 did not power off"
l1_stop || fail "L1 did not power off"
