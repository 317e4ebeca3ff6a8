#!/bin/bash
# selftest.sh DIR: can the judge be fooled? Fabricated boots, each with the verdict that it must get. Boots nothing.
# Writes DIR/selftest/results like judge.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$1/selftest
rm -rf "$top"
mkdir -p "$top"
failed=0

# check NAME "expected results" with the boot made up by make_NAME in the current directory.
check() {
	local name=$1 want=$2 dir=$top/$1 got
	mkdir -p "$dir"
	(cd "$dir" && printf 'one\ntwo\n' >expected && echo done >status && : >l0.log && : >l1.log && : >l2.log &&
		printf 'BOOT x 3\nSTART one\nTEST one PASS 1 fine\nSTART two\nTEST two PASS 2 fine\nDONE\n' >verdict && "make_$name")
	"$here/judge.sh" "$dir" && status=0 || status=1
	got=$(cut -f1,2 "$dir/results" | tr '\t\n' '= ')
	case " $want " in *FAIL*) [ $status = 1 ] || got="$got (but exit status 0)" ;; *) [ $status = 0 ] || got="$got (but exit status 1)" ;; esac
	if [ "$got" = "$want " ]; then
		printf 'judge_%s\tPASS\t0\t\n' "$name" >>"$top/results"
	else
		printf 'judge_%s\tFAIL\t0\twanted %s, got %s\n' "$name" "$want" "$got" >>"$top/results"
		failed=1
	fi
}

marks() { printf '[    1.0] kpop-mark: start one\n%s\n[    2.0] kpop-mark: end one\n[    2.1] kpop-mark: start two\n%s\n' "$1" "$2"; }

make_good() { :; }
make_alive() { sed -i 's/^START/ALIVE\n&/' verdict; }
make_known_bad() { sed -i 's/TEST one PASS/TEST one FAIL/' verdict; }
make_skip() { sed -i 's/TEST one PASS 1 fine/TEST one SKIP 1 no vmx here/' verdict; }
make_skip_without_reason() { sed -i 's/TEST one PASS 1 fine/TEST one SKIP 1/' verdict; }
make_no_verdict() { sed -i '/TEST two/d; /DONE/d' verdict; echo timeout >status; }
make_never_began() { sed -i '/ two/d; /DONE/d' verdict; echo died >status; }
make_twice() { echo 'TEST one PASS 1 fine' >>verdict; }
make_unknown_word() { sed -i 's/TEST one PASS/TEST one OK/' verdict; }
make_stranger() { echo 'TEST three PASS 1' >>verdict; }
make_empty_list() { : >expected; : >verdict; }
make_warn_l0() { marks '[    1.5] WARNING: CPU: 0 PID: 1 at kernel/x.c:1' '' >l0.log; }
make_kasan_l1() { marks '' '[    2.5] BUG: KASAN: slab-use-after-free in y' >l1.log; }
make_hung_l2() { marks '' '[  300.5] INFO: task qemu:7 blocked for more than 120 seconds.' >l2.log; }
make_stall() { marks '[    9.9] rcu: INFO: rcu_sched self-detected stall on CPU' '' >l0.log; }
make_lockdep() { marks '' '[    2.5] WARNING: possible circular locking dependency detected' >l0.log; }
make_before_tests() { { echo '[    0.5] WARNING: CPU: 0 PID: 0 at arch/x86/x.c:1'; marks '' ''; } >l0.log; }
make_after_end() { marks '' '[    2.5] fine
[    3.0] kpop-mark: end two
[    3.1] BUG: Bad page state in process x' >l0.log; }
make_not_done() { echo died >status; }
make_allowed() { marks '[    1.5] WARNING: KPOP_SELFTEST' '' >l0.log; }

check good "one=PASS two=PASS"
check alive "one=PASS two=PASS"
check known_bad "one=FAIL two=PASS"
check skip "one=SKIP two=PASS"
check skip_without_reason "one=FAIL two=PASS"
check no_verdict "one=PASS two=FAIL shutdown=FAIL"
check never_began "one=PASS two=FAIL shutdown=FAIL"
check twice "one=FAIL two=PASS"
check unknown_word "one=FAIL two=PASS"
check stranger "one=PASS two=PASS three=FAIL"
check empty_list "boot=FAIL"
check warn_l0 "one=FAIL two=PASS"
check kasan_l1 "one=PASS two=FAIL"
check hung_l2 "one=PASS two=FAIL"
check stall "one=FAIL two=PASS"
check lockdep "one=PASS two=FAIL"
check before_tests "one=PASS two=PASS boot=FAIL"
check after_end "one=PASS two=FAIL"
check not_done "one=PASS two=PASS shutdown=FAIL"
printf 'KPOP_SELFTEST\tthe rig tests itself\n' >"$top/allow.list"
export ALLOWED_LIST=$top/allow.list
check allowed "one=PASS two=PASS"
printf 'KPOP_SELFTEST\n' >"$top/allow.list"
check allowed "one=FAIL two=PASS boot=FAIL"
sed -i '$s/judge_allowed/judge_allowed_without_reason/' "$top/results"
unset ALLOWED_LIST

awk -F'\t' '$2 == "FAIL" { print "  FAIL " $1 ": " $4 }' "$top/results"
echo "  the rig's own test: $(grep -c PASS "$top/results") of $(wc -l <"$top/results") passed"
exit $failed
