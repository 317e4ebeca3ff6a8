# upstream.sh ci|full|metal|nokpop [NAME...]: the kernel's own KVM selftests (selftests/upstream) run in L1, so that their
# guests are L2s: all of them on legacy paging, then with a policy attached. A test fails here if it does not do on legacy what
# the list says, or does worse on KPOP, or was not on KPOP.
#   nokpop   those of full, on legacy paging only, in an L0 whose KVM was built with CONFIG_KVM_KPOP=n: what the list says of
#            legacy is what such a KVM does
. /kpop/lib.sh
tier=$1
shift
sides="legacy kpop"
if [ $tier = nokpop ]; then
	tier=full sides=legacy
	kvm_reload nokpop || fail "KVM without KPOP"
fi
list=/kpop/upstream/tests.list
vendor=amd
grep -q GenuineIntel /proc/cpuinfo && vendor=intel
names=$(awk -v tier="$tier" -v vendor=$vendor -v only="$*" '
	BEGIN { n = split(only, w, " "); for (i = 1; i <= n; i++) want[w[i]] = 1 }
	/^#/ || !NF || ($2 != "both" && $2 != vendor) { next }
	n ? $1 in want : $3 == tier || (tier == "full" && $3 == "ci") { print $1 }' $list)
[ -n "$names" ] || fail "no test of tier $tier in the list"
field() { awk -v n="$1" -v f="$2" '$1 == n { print $f }' $list; }

# L1's memory holds their largest guest (on a small machine those of the vmx_* tests); the two sides share one L1, unless a
# test takes it down.
l1_up() { # SIDE
	vm_alive l1 && return
	MEM=$(small && echo 768 || echo 3072) l1_start || fail "no L1"
	[ "$1" = legacy ] || attach
}

run_one() { # SIDE NAME: a line "NAME RESULT SECONDS SKIPS FALLBACKS MAPS RUNS REASON" into $RUN/up.SIDE
	local side=$1 name=$2 log=$RUN/up.log p maps runs line
	l1_up $side
	p=$(l1_pid) maps=$(kvm_stat $(l1_pid) kpop_maps) runs=$(kvm_stat $(l1_pid) nested_run)
	T=$(($(field $name 4) + 20)) l1 "sh /kpop/upstream/run.sh $name" >$log 2>&1
	line=$(sed -n 's/^RESULT //p' $log | tail -1)
	maps=$(($(kvm_stat $p kpop_maps) - maps)) runs=$(($(kvm_stat $p nested_run) - runs))
	if [ -z "$line" ]; then
		# T of l1 is over, or L1 is: hung, reset or powered off.
		line="hang $(field $name 4) 0 0"
		if ! vm_alive l1; then
			line="$line L1 ended; QEMU said: $(tail -2 $RUN/l1.qemu | tr '\n' ' ')"
		elif ! T=20 l1 true; then
			line="$line L1 does not answer"
			l1_kill
		else
			line="$line L1 goes on"
		fi
	fi
	send_file $log $name.$side.log
	set -- $line
	echo "$name $1 $2 $3 $4 $maps $runs $(shift 4; echo "$*")" >>$RUN/up.$side
	log_mark "upstream $side $name: $1 in $2 s"
}

rm -f $RUN/up.*
for side in $sides; do
	l1_up $side
	[ $side = legacy ] || attach
	for name in $names; do run_one $side $name; done
done
if [ "$sides" = legacy ]; then
	l1_stop || fail "L1 did not power off"
	kvm_reload || fail "KVM with KPOP again"
	awk -v list=$list '
		FILENAME == list { if (!/^#/ && NF) must[$1] = $5; next }
		{ bad = must[$1] != "?" && must[$1] != $2; n++; nbad += bad; s += $3
		  printf "%-22s %-8s %6d  %s\n", $1, $2, $3, bad ? "FAIL the list says " must[$1] : "ok" }
		END { printf "%d tests, %d s; %d wrong\n", n, s, nbad; exit !n || nbad > 0 }' $list $RUN/up.legacy >$KPOP_OUT/upstream-nokpop.txt
	status=$?
	cat $KPOP_OUT/upstream-nokpop.txt
	[ $status = 0 ] || fail "KVM without KPOP: $(sed -n 's/ .* FAIL .*//p' $KPOP_OUT/upstream-nokpop.txt | tr '\n' ' ')"
	exit 0
fi
detach

# Both sides beside each other, and what is wrong with a pair.
awk -v list=$list '
	function rank(r) { return r == "pass" ? 3 : r == "skip" ? 2 : 1 }
	function bad(s) { why = why (why == "" ? "" : "; ") s }
	function reason(from,	i, s) { for (i = from; i <= NF; i++) s = s " " $i; return s }
	FILENAME == list { if (!/^#/ && NF) { must[$1] = $5; kind[$1] = $6 } next }
	FILENAME ~ /legacy$/ { l[$1] = $2; ls[$1] = $3; lskip[$1] = $4; lmaps[$1] = $6; lruns[$1] = $7; lwhy[$1] = reason(8); next }
	{
		n++
		why = ""
		if (!($1 in l)) { l[$1] = "none"; ls[$1] = 0 }
		if (must[$1] != "?" && l[$1] != must[$1]) bad("legacy: the list says " must[$1] ", not " l[$1] ":" lwhy[$1])
		if (rank($2) < rank(l[$1])) bad("worse on KPOP:" reason(8))
		else if ($2 == "pass" && l[$1] == "pass" && $4 > lskip[$1]) bad("skips more on KPOP: " $4 " instead of " lskip[$1])
		if (lmaps[$1]) bad("legacy had MAPs")
		if ($5) bad($5 " VMs left KPOP")
		if (kind[$1] == "none" && $6) bad("has MAPs, against the list")
		if (kind[$1] == "maps" && $2 == "pass" && !$6) bad("was not on KPOP: no MAP")
		if (n == 1) printf "%-22s %-8s %6s   %-8s %6s %8s\n", "test", "legacy", "s", "KPOP", "s", "MAPs"
		printf "%-22s %-8s %6d   %-8s %6d %8d  %s\n", $1, l[$1], ls[$1], $2, $3, $6, why == "" ? "ok" : "FAIL " why
		lt += ls[$1]; kt += $3; nbad += why != ""
	}
	END {
		printf "%d tests, %d s on legacy, %d s on KPOP; %d wrong\n", n, lt, kt, nbad
		exit !n || nbad > 0
	}' $list $RUN/up.legacy $RUN/up.kpop >$KPOP_OUT/upstream.txt
status=$?
cat $KPOP_OUT/upstream.txt
l1_stop || fail "L1 did not power off"
[ $status = 0 ] || fail "$(grep -c ' FAIL ' $KPOP_OUT/upstream.txt) of $(echo $names | wc -w) tests: $(sed -n 's/ .* FAIL .*//p' $KPOP_OUT/upstream.txt | tr '\n' ' ')"
