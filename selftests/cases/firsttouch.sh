# First touch of fresh memory in L2 by 4K pages, on legacy paging and on KPOP, side by side: exits, page faults in L1,
# TSC cycles (where the emulator counts instructions: instructions), paging metadata of both levels.
# L1's memory is resident in L0, so that what is counted is L2's doing.
. /kpop/lib.sh
MIB=${TOUCH_MIB:-64}
L1_MIB=1536 L2_MIB=512
small && { MIB=32 L1_MIB=512 L2_MIB=128; }
PAGES=$((MIB * 256))
export CMDLINE=transparent_hugepage=never
NAMES="exits nested_run mmu_cache_miss kpop_faults_direct kpop_faults_reflected kpop_maps"

# What both levels keep to page L2, in bytes: L0's kernel memory for L1 (tables, KPOP's objects, reverse maps, caches) beyond
# what it was before L2 started, and L1's tables for L2. Nothing else of L0's grows with an L2.
l1_tables() { l1 "awk '\$1 == \"sec_pagetables\" { print \$2 }' $CGROUP/l2/memory.stat"; }

MEM=$L1_MIB l1_start -mem-prealloc || fail "no L1"
l1 "memtest $((L1_MIB * 3 / 4)) 1" >/dev/null || fail "L1's memory"

snap() { # PREFIX
	for n in $NAMES; do eval "$1_$n=$(kvm_stat $(l1_pid) $n)"; done
}

touch_one() { # KIND
	local kind=$1 out n on before meta tables used
	before=$(vm_kernel_bytes l1)
	T=300 l1 "MEM=$L2_MIB CMDLINE=$CMDLINE BOOT_SECONDS=240 l2_start" || fail "no L2 on $kind"
	on=$(l1 "kvm_stat \$(vm_pid l2) kpop_guest_active")
	case $kind-$on in kpop-1 | legacy-0) ;; *) fail "kpop_guest_active is $on on $kind" ;; esac
	snap a
	out=$(T=300 l1 "T=300 l2 'firsttouch $MIB 1 1000'") || fail "$kind: $out"
	snap b
	for n in $NAMES; do eval "d_$n=\$((b_$n - a_$n))"; done
	cycles=$(echo "$out" | sed -n 's/.*cycles \([0-9]*\).*/\1/p')
	[ "$d_nested_run" -gt 0 ] || fail "L0 entered no L2"
	tables=$(l1_tables)
	# On KPOP L1 has none, but for a root that it does not count.
	[ -n "$tables" ] && { [ $kind = kpop ] || [ "$tables" -gt 0 ]; } || fail "L1's tables for L2 on $kind: '$tables' bytes"
	meta=$(($(vm_kernel_bytes l1) - before))
	# The pages of L2 that are in use, by what its QEMU has.
	used=$(($(l1 "sed -n 's/^RssAnon:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/\$(vm_pid l2)/status") / 4))
	[ "$used" -gt $PAGES ] || fail "L2's QEMU has $used pages, $PAGES were touched"
	eval "${kind}_exits=$d_exits ${kind}_shadow=$b_mmu_cache_miss"
	echo "$kind: per page $((d_exits * 100 / PAGES))/100 exits, $((cycles / PAGES)) cycles, $(((meta + tables) / used)) bytes of metadata ($meta in L0, $tables in L1, $used pages); $d_mmu_cache_miss shadow pages, $d_kpop_faults_direct faults solved in L0, $d_kpop_faults_reflected in L1"
	echo " \"$kind\": {\"pages\": $PAGES, \"cycles\": $cycles, \"exits\": $d_exits, \"nested_runs\": $d_nested_run, \"shadow_pages\": $d_mmu_cache_miss, \"metadata_l0\": $meta, \"metadata_l1\": $tables, \"used_pages\": $used, \"faults_direct\": $d_kpop_faults_direct, \"faults_reflected\": $d_kpop_faults_reflected, \"maps\": $d_kpop_maps}," >>$RUN/json
	l1 l2_stop || fail "L2 did not power off"
}

rm -f $RUN/json
attach
touch_one kpop
[ $kpop_shadow = 0 ] || fail "$kpop_shadow shadow pages in L0 for an L2 on KPOP"
detach
touch_one legacy
[ $legacy_shadow -gt 0 ] || fail "legacy paging without a shadow page: what was measured?"
vendor=amd
grep -q GenuineIntel /proc/cpuinfo && vendor=intel
{ echo "{ \"vendor\": \"$vendor\","; sed '$s/,$//' $RUN/json; echo "}"; } >$KPOP_OUT/firsttouch.json
# On VMX a plain MAP takes the place of the second fault, one for one; a few exits are timers'.
[ $((kpop_exits * 100)) -le $((legacy_exits * 105)) ] || fail "KPOP has more exits than legacy paging"
l1_stop || fail "L1 did not power off"
