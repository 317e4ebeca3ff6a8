# kcsan.sh: at the end of a boot whose tests KCSAN watched: it was on and did watch. What it saw is on the console, where a
# report fails the test unless rig/allowed.list has it.
. /kpop/lib.sh
f=/sys/kernel/debug/kcsan
[ -r $f ] || fail "no KCSAN in this kernel"
cat $f
counter() { sed -n "s/^ *$1: *//p" $f; }
[ "$(sed -n "s/^enabled: *//p" $f)" = 1 ] || fail "KCSAN is off"
[ "$(counter setup_watchpoints)" -gt 1000 ] || fail "KCSAN watched next to nothing"
echo "ok - KCSAN set $(counter setup_watchpoints) watchpoints"
