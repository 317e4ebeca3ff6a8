# What an L1 VMM does with memslots and no test of the kernel's does (selftests/kvm/kpop_slot_test.c), on legacy paging and on KPOP.
. /kpop/lib.sh
MEM=768 l1_start || fail "no L1"
slots() { l1 /kpop/kvm/kpop_slot_test; }
on_both slots
l1_stop || fail "L1 did not power off"
