# make run, inside L0: L2 on KPOP under a policy, a live swap, a live detach, and the same L2 without KPOP.
# Every step that must happen is checked; what was measured goes to $KPOP_OUT/report.json.
. /kpop/lib.sh
MIB=${DEMO_MIB:-128}
STRESS_SECONDS=${DEMO_STRESS:-20}
POLICY=/kpop/bpf/kpop_base.bpf.o
NEXT_POLICY=/kpop/bpf/kpop_lazy.bpf.o
REPORT=$KPOP_OUT/report.json
STEPS=
FAILED=0

step() { # NAME STATUS DETAIL
	local ok=true
	[ "$2" = 0 ] || { ok=false; FAILED=1; }
	echo "$([ $ok = true ] && echo ok || echo "NOT OK") - $1: $3"
	STEPS="$STEPS${STEPS:+,}
    {\"step\": \"$1\", \"ok\": $ok, \"detail\": \"$(echo "$3" | tr '"\\\t\n' "''  " | cut -c1-300)\"}"
}
must() { step "$@"; [ "$2" = 0 ] || finish; }
is() { test "$@"; echo $?; }

finish() {
	[ -n "$KPOP_JSON" ] || KPOP_JSON=null
	[ -n "$LEGACY_JSON" ] || LEGACY_JSON=null
	cat >$REPORT <<-EOF
	{
	  "ok": $([ $FAILED = 0 ] && echo true || echo false),
	  "kernel": "$(uname -r)", "vendor": "$(grep -q AMD /proc/cpuinfo && echo amd || echo intel)",
	  "accel": "${KPOP_ACCEL:-tcg}", "mib": $MIB,
	  "steps": [$STEPS
	  ],
	  "kpop": $KPOP_JSON,
	  "legacy": $LEGACY_JSON
	}
	EOF
	vm_kill_all
	exit $FAILED
}

now_ms() { local t=$(cut -d' ' -f1 /proc/uptime); echo "${t%.*}${t#*.}0"; }
pagetables() { awk '/SecPageTables/ { print $2 * 1024 }' /proc/meminfo; }
l1_pagetables() { l1 "awk '/SecPageTables/ { print \$2 * 1024 }' /proc/meminfo"; }
l1_stat() { l1 "kvm_stat \$(vm_pid l2) $1"; }
s() { kvm_stat $(l1_pid) $1; }

# Counters of L0 (about L1's VM) and of L1 (about L2's) now, as shell variables with a prefix.
snap() {
	local n
	for n in exits mmu_cache_miss nested_run kpop_faults_direct kpop_faults_reflected kpop_maps; do eval "$1_$n=$(s $n)"; done
	eval "$1_ms=$(now_ms) $1_pt=$(pagetables) $1_l1pt=$(l1_pagetables)"
}

# One measured life of L2: boot and memory test, with the counters before and after. Leaves L2 running.
# Sets SUM (the checksum) and JSON.
measure() {
	local kind=$1 pf active maps bytes out meta l1meta
	snap a
	T=300 l1 "BOOT_SECONDS=290 l2_start" || { SUM=; return 1; }
	out=$(T=260 l1 "T=240 l2 'memtest $MIB 3'")
	echo "$out"
	SUM=$(echo "$out" | sed -n 's/.*checksum //p')
	snap b
	pf=$(l1_stat pf_taken) active=$(l1_stat kpop_guest_active) maps=$(l1_stat kpop_guest_maps)
	bytes=$(s kpop_bytes)
	# What both levels keep to page L2: L0's tables beyond what L1 had before, KPOP's own objects, L1's tables.
	meta=$((b_pt - a_pt + bytes)) l1meta=$((b_l1pt - a_l1pt))
	SHADOW=$((b_mmu_cache_miss - a_mmu_cache_miss))
	ACTIVE=$active
	JSON="{\"l0_exits\": $((b_exits - a_exits)), \"l1_faults\": $pf, \"l0_shadow_pages\": $SHADOW,
	    \"nested_runs\": $((b_nested_run - a_nested_run)),
	    \"faults_direct\": $((b_kpop_faults_direct - a_kpop_faults_direct)),
	    \"faults_reflected\": $((b_kpop_faults_reflected - a_kpop_faults_reflected)),
	    \"maps\": $((b_kpop_maps - a_kpop_maps)), \"on_kpop\": $([ "$active" = 0 ] && echo false || echo true),
	    \"metadata_bytes\": $((meta + l1meta)), \"metadata_l0\": $meta, \"metadata_l1\": $l1meta,
	    \"seconds\": $(((b_ms - a_ms) / 1000)).$(printf %03d $(((b_ms - a_ms) % 1000))), \"checksum\": \"$SUM\"}"
}

MEM=${DEMO_L1_MEM:-1536}
l1_start
must "L1 boots" $? "$(uname -r), $MEM MiB"
# L1's own memory is touched first, so that what is counted below is L2's doing.
l1 "memtest 900 1" >/dev/null
must "L1's memory is resident" $? "900 MiB"

WANT=$(memtest $MIB 3 | sed -n 's/.*checksum //p')
out=$(kpopctl attach $POLICY --name l1 2>&1)
must "attach kpop_base to L1" $? "$out"
kpopctl list

measure kpop
must "L2 boots on KPOP" $(is -n "$SUM") "checksum $SUM"
KPOP_JSON=$JSON
must "L2's pages come by KPOP" $(is "$ACTIVE" != 0) "kpop_guest_active $ACTIVE in L1"
must "memory test on KPOP" $(is "$SUM" = "$WANT") "$MIB MiB in L2 $SUM, in L0 $WANT"
must "no shadow pages in L0" $(is "$SHADOW" = 0) "mmu_cache_miss grew by $SHADOW"
kpopctl status --name l1

# The swap, under load.
T=$((STRESS_SECONDS + 300)) l1 "T=$((STRESS_SECONDS + 240)) l2 'cd /tmp; stress-ng --vm 2 --vm-bytes ${MIB}M --vm-method all \
	--verify --timeout $STRESS_SECONDS --temp-path /tmp --metrics-brief; echo stress status \$?'" >$RUN/stress 2>&1 &
stress=$!
sleep $((STRESS_SECONDS / 3))
before=$(s kpop_faults_direct)
out=$(kpopctl swap $NEXT_POLICY --name l1 2>&1)
must "swap to kpop_lazy under stress-ng" $? "$out"
# Show it as bpftool sees it.
echo "--- bpftool struct_ops list"
out=$(bpftool struct_ops list 2>&1)
st=$?
echo "$out"
must "bpftool struct_ops list" $((st | $(echo "$out" | grep -q kpop; echo $?))) "$(echo "$out" | grep kpop | head -1)"
echo "--- bpftool struct_ops dump"
bpftool struct_ops dump 2>&1 | head -30
echo "--- bpftool link"
out=$(bpftool link show 2>&1)
st=$?
echo "$out"
must "bpftool link" $((st | $(echo "$out" | grep -q struct_ops; echo $?))) "$(echo "$out" | grep struct_ops | head -1)"
bpftool prog show | grep -A2 struct_ops | head -20
wait $stress
cat $RUN/stress
must "stress-ng --vm --verify over the swap" $(grep -q 'stress status 0' $RUN/stress; echo $?) "$(grep -E 'status|passed|failed' $RUN/stress | tail -1)"
out=$(kpopctl -j status --name l1)
echo "$out" | grep -q '"policy": *"kpop_lazy"'
must "the new policy is at work" $? "faults served in L0: $before before, $(s kpop_faults_direct) after"
[ "$(l1_stat kpop_guest_fallbacks)" = 0 ]
must "the swap made no fallback" $? "kpop_guest_fallbacks $(l1_stat kpop_guest_fallbacks)"

# The detach, with L2 at work.
T=300 l1 "T=300 l2 'memtest $MIB 3 15'" >$RUN/memtest 2>&1 &
mt=$!
sleep 5
out=$(kpopctl detach --name l1 2>&1)
must "detach with L2 running" $? "$out"
wait $mt
must "L2 goes on over the detach" $? "$(cat $RUN/memtest)"
SUM=$(sed -n 's/.*checksum //p' $RUN/memtest)
must "its memory is right" $(is "$SUM" = "$WANT") "checksum $SUM"
out=$(T=200 l1 "T=200 l2 'memtest $MIB 3'")
must "and so is what it writes now" $(is "${out##* }" = "$WANT") "$out"
must "L1 moved it to its own table" $(is "$(l1_stat kpop_guest_active)" = 0) "kpop_guest_fallbacks $(l1_stat kpop_guest_fallbacks)"
l1 l2_stop
must "L2 powers off" $? ""

measure legacy
must "L2 again, without KPOP" $(is "$SUM" = "$WANT") "checksum $SUM"
LEGACY_JSON=$JSON
must "that one was not on KPOP" $(is "$ACTIVE" = 0) "kpop_guest_active $ACTIVE"
l1 l2_stop
step "L2 powers off again" $? ""
l1_stop
step "L1 powers off" $? ""
finish
