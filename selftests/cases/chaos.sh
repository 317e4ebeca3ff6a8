# Each way in which kpop_chaos goes wrong, as the controller sees it: the policy is out, L1 goes on without it, and
# `kpopctl status` tells kind, hook, value and reason, as text and as JSON, also when the next policy is attached.
. /kpop/lib.sh
CHAOS=/kpop/bpf/kpop_chaos.bpf.o
KPOP_TEST_TIMEOUT=$((200 * SLOW)) /kpop/kvm/kpop_chaos_test turns=100 >$RUN/chaos 2>&1 &
l1=$!

waited() { # SECONDS COMMAND...
	local i=$(($1 * SLOW * 10))
	shift
	until "$@"; do
		[ -d /proc/$l1 ] || fail "L1 is gone: $(tail -3 $RUN/chaos)"
		i=$((i - 1))
		[ $i -gt 0 ] || fail "waited too long for: $*; $(kpopctl status --pid $l1 | grep ejected); L1: $(tail -2 $RUN/chaos)"
		usleep 100000
	done
}
said() { grep -q "^ok - $*" $RUN/chaos; }
found() { kpopctl status --pid $l1 >/dev/null 2>&1; }
no_policy() { kpopctl -j status --pid $l1 | grep -q '"state": *"none"'; }

# A number of the policy's array, 64 bits of it; maps of policies that are gone may still be listed.
knob() { # INDEX NUMBER
	local id i=0 bytes= n=$2
	id=$(bpftool map show | sed -n 's/^\([0-9]*\): array  *name kpop_chaos_knob .*/\1/p' | sort -n | tail -1)
	[ -n "$id" ] || fail "no map of knobs: $(bpftool map show)"
	while [ $i -lt 8 ]; do bytes="$bytes $((n & 255))"; n=$((n >> 8)); i=$((i + 1)); done
	bpftool map update id $id key $1 0 0 0 value $bytes || fail "bpftool map update id $id key $1: value$bytes"
}

waited 20 found
turn=0
ejected() { # KIND HOOK VALUE TEXT-REGEX WHAT KNOB NUMBER [KNOB NUMBER]
	local kind=$1 hook=$2 value=$3 text=$4 what=$5 line json want
	shift 5
	out=$(kpopctl attach $CHAOS --pid $l1 2>&1) || fail "$out"
	waited 20 said "turn $turn: L2 runs on KPOP"
	# The record of the one before is still there.
	[ $turn = 0 ] || kpopctl status --pid $l1 | grep -q "^ejected  $turn times" || fail "$what: the old record is lost"
	while [ $# -gt 0 ]; do knob $1 $2; shift 2; done
	waited 20 no_policy
	waited 20 said "turn $turn: L2 runs on L1's own table"
	turn=$((turn + 1))
	line=$(kpopctl status --pid $l1 | grep '^ejected')
	echo "$line" | grep -Eq "^ejected  $turn times, last kpop_chaos \(map [0-9]+\) at [^ ]*: $kind, hook $hook returned $value: $text" ||
		fail "$what: status says: $line"
	json=$(kpopctl -j status --pid $l1 | tr -d '\n' | sed 's/.*"last_ejection": *{\([^}]*\)}.*/\1/')
	for want in "\"kind\": *\"$kind\"" "\"hook\": *\"$hook\"" "\"value\": *$value" "\"text\": *\"$text" "\"count\": *$turn,"; do
		echo "$json" | grep -Eq "$want" || fail "$what: -j has no $want: $json"
	done
	echo "ok - $what: $line"
}

# The numbers are enum chaos_knob's in bpf/kpop_chaos.bpf.c; a hook is 1 + its enum kpop_hook.
ejected value map 5 'map\(\) returned 5' "a wrong value" 7 5 6 5
ejected value load -5 'load\(\) returned -5' "an errno that may not be" 7 $((0xfffffffb)) 6 3
ejected value map -22 'map\(\) returned -22' "a right that L1 does not offer" 11 9
ejected errors map 0 'more than 64 errors in a row' "success without a mapping, page after page" 2 1
ejected progress load 0 'load\(\) returned 0 and did nothing' "success without a load" 4 1
ejected progress fault 1 'fault\(\) returned 1 and did nothing' "a fault that is delayed for ever" 5 1
ejected stall map '[0-9]+' 'map\(\) (still runs|used)' "a nested bpf_loop past the budget" 9 100 8 5
kill $l1
wait $l1 2>/dev/null
if grep '^not ok' $RUN/chaos; then fail "L1 is not content"; fi

# Init that fails is an attach that fails.
KPOP_TEST_TIMEOUT=$((100 * SLOW)) /kpop/kvm/kpop_chaos_test turns=1 >$RUN/chaos 2>&1 &
l1=$!
waited 20 found
kpopctl attach $CHAOS --pid $l1 --knob chaos_init=19 >$RUN/o 2>&1 && fail "attach of a policy whose init fails: $(cat $RUN/o)"
line=$(kpopctl status --pid $l1 | grep '^ejected')
echo "$line" | grep -q 'init, hook init returned -19' || fail "status says: $line"
echo "ok - init fails: $(cat $RUN/o)"
kill $l1
wait $l1 2>/dev/null
kpopctl detach --defunct >/dev/null || fail "detach --defunct"
[ -z "$(ls /sys/fs/bpf/kpop 2>/dev/null)" ] || fail "something stays pinned"
