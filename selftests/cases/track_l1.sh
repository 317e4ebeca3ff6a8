# A module in L1, which has the debug kernel, write-tracks a page of an L2: on legacy paging, then on KPOP.
. /kpop/lib.sh
MEM=1024 SMP=1 l1_start || fail "no L1"
l1 "insmod /kpop/module/kpop_track_mod.ko" || fail "the test module does not load in L1"
track() { l1 "/kpop/kvm/kpop_write_track_test"; }
on_both track
l1_stop || fail "L1 did not power off"
