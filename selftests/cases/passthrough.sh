# A device of L0's that L1 passes to L2: on legacy paging, then on KPOP.
. /kpop/lib.sh
MEM=512 SMP=1 l1_start -device edu || fail "no L1"
bar='$(for d in /sys/bus/pci/devices/*; do [ "$(cat $d/vendor):$(cat $d/device)" = 0x1234:0x11e8 ] && echo 1 >$d/enable && echo $d/resource0; done)'
touch_bar() { l1 "/kpop/kvm/kpop_bar_test $bar"; }
on_both touch_bar
l1_stop || fail "L1 did not power off"
