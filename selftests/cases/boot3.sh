# boot3.sh kpop|legacy: three levels come up, run a command and go down again.
. /kpop/lib.sh
l1_start || fail "no L1"
[ $1 = legacy ] || attach
l1 'grep -c ^processor /proc/cpuinfo; uname -r; ls /sys/module | grep kvm' || fail "no command in L1"
T=300 l1 l2_start || fail "no L2"
small && mib=24 || mib=64
out=$(T=300 l1 "T=280 l2 'hostname; memtest $mib 2'") || fail "L2: $out"
echo "$out"
echo "$out" | grep -q '^l2$' || fail "that was not L2"
l1 "SIDE=$1; want_side l2" || exit 1
l1 "l2 'exit 7'"
[ $? = 7 ] || fail "exit status does not come through"
l1 l2_stop || fail "L2 did not power off"
l1_stop || fail "L1 did not power off"
