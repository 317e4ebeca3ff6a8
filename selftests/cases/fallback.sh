# A running L2 gets another policy, and moves to L1's own page tables when that one goes; it never notices: data before,
# during and after.
. /kpop/lib.sh
MIB=96 FIRST=8 SECOND=12
# A second of the Intel rig takes most of a minute.
small && MIB=16 FIRST=1 SECOND=2
want=$(memtest $MIB 1 | sed -n 's/.*checksum //p')
l1_start || fail "no L1"
p=$(l1_pid)
attach
T=250 l1 "BOOT_SECONDS=240 l2_start" || fail "no L2"
l1_stat() { l1 "kvm_stat \$(vm_pid l2) $1"; }
[ "$(l1_stat kpop_guest_active)" = 1 ] || fail "L2 is not on KPOP"
[ "$(kvm_stat $p mmu_cache_miss)" = 0 ] || fail "L0 shadows pages of an L2 on KPOP"
echo "ok - L2 is on KPOP, no shadow page in L0, $(kvm_stat $p kpop_maps) MAPs"

before=$(kvm_stat $p kpop_maps)
T=200 l1 "T=200 l2 'memtest $MIB 1 $FIRST'" >$RUN/during 2>&1 &
during=$!
usleep $((FIRST * 400000))
out=$(kpopctl swap /kpop/bpf/kpop_lazy.bpf.o --name l1 2>&1) || fail "$out"
wait $during || fail "L2 did not survive the swap: $(cat $RUN/during)"
grep -q "checksum $want" $RUN/during || fail "wrong data over the swap: $(cat $RUN/during)"
kpopctl status --name l1 | grep -q kpop_lazy || fail "kpop_lazy is not at work"
[ "$(l1_stat kpop_guest_fallbacks)" = 0 ] || fail "the swap made a fallback"
echo "ok - L2 verified its memory while the policy was swapped, $(($(kvm_stat $p kpop_maps) - before)) MAPs meanwhile"

T=200 l1 "T=200 l2 'memtest $MIB 1 $SECOND'" >$RUN/during 2>&1 &
during=$!
usleep $((SECOND * 350000))
detach
wait $during || fail "L2 did not survive the detach: $(cat $RUN/during)"
grep -q "checksum $want" $RUN/during || fail "wrong data over the detach: $(cat $RUN/during)"
echo "ok - L2 verified its memory while the policy went"
out=$(T=120 l1 "T=120 l2 'memtest $MIB 1'") || fail "L2 after the detach: $out"
[ "${out##* }" = "$want" ] || fail "wrong data after the detach: $out"
[ "$(l1_stat kpop_guest_fallbacks)" = 1 ] || fail "L1 did not fall back once but $(l1_stat kpop_guest_fallbacks) times"
[ "$(l1_stat kpop_guest_active)" = 0 ] || fail "L1 thinks that it is on KPOP still"
[ "$(kvm_stat $p kpop_spaces)" = 0 ] || fail "L0 still has spaces"
echo "ok - L1 fell back once, L0 has no space left"

if small; then
	l1_stop || fail "L1 did not power off"
	exit 0
fi

# Attached again, the running L2 stays where it is, the next one is on KPOP.
attach
out=$(T=120 l1 "T=120 l2 'memtest 16 1'") || fail "L2 after the re-attach: $out"
[ "$(l1_stat kpop_guest_active)" = 0 ] || fail "a running L2 moved back"
l1 l2_stop || fail "L2 did not power off"
T=250 l1 "BOOT_SECONDS=240 l2_start" || fail "no second L2"
[ "$(l1_stat kpop_guest_active)" = 1 ] || fail "the second L2 is not on KPOP"
echo "ok - the L2 that starts after the re-attach is on KPOP"
l1 l2_stop || fail "L2 did not power off"
l1_stop || fail "L1 did not power off"
