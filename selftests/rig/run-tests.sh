#!/bin/bash
# run-tests.sh ci|full|fuzz FLAVOUR...: run what selftests/tests.list has, one boot of L0 for each vendor, flavour and group:
# AMD on QEMU (boot.sh), Intel on Bochs (bochs.sh); with ACCEL=kvm on this host's own vendor. First those that keep several
# of this host's CPUs busy, then those that keep one, JOBS (2) of them at a time, each line with its group before it.
#
# Environment: T=name[,name] (any tier), VENDOR=amd|intel (both), SLOW (factor on all time limits; 4 more on all but
# the plain kernel), ACCEL=kvm. Consoles and output are in build/test/VENDOR-FLAVOUR-GROUP; failed boots are kept in build/runs.
. "$(dirname "$0")/../../kernel/build/common.sh"
rig=$REPO/selftests/rig
. "$rig/tcg.sh"
list=${TEST_LIST:-$REPO/selftests/tests.list}
tier=$1
shift
top=${TEST_OUT:-$REPO/build/test}
results=$top/results
rm -rf "$top"
mkdir -p "$top"
: >"$results"

if [ "${ACCEL:-tcg}" = kvm ]; then
	here=amd
	grep -q GenuineIntel /proc/cpuinfo && here=intel
	[ "${VENDOR:-$here}" = "$here" ] || die "ACCEL=kvm: this host is $here"
	vendors=$here
else
	vendors=${VENDOR:-amd intel}
fi
case "$vendors" in amd | intel | "amd intel") ;; *) die "VENDOR is amd or intel" ;; esac

# An Intel L0 with the debug kernel takes too long on Bochs for anything but a test that is named, or test-full.
skip_boot() { # VENDOR FLAVOUR
	[ "$1" = intel ] && [ "$2" != plain ] && [ "$tier" = ci ] && [ -z "${T:-}" ] && [ "${ACCEL:-tcg}" = tcg ]
}

# Does a boot keep one CPU of this host busy? Bochs has a single thread.
one_cpu() { # VENDOR GROUP
	[ "${ACCEL:-tcg}" = tcg ] || return
	[ "$1" = intel ] || (tcg_settings "$2" && [[ ${L0_SMP:-} == 1 || ${L0_ACCEL:-} == *thread=single* ]])
}

# name group seconds command, of this flavour
select_tests() { # VENDOR FLAVOUR
	awk -v flavour="$2" -v tier="$tier" -v vendor="$1" -v names="${T:-}" '
		BEGIN { n = split(names, w, ","); for (i = 1; i <= n; i++) want[w[i]] = 1 }
		/^#/ || NF == 0 { next }
		NF < 7 { print "bad line in tests.list: " $0 >"/dev/stderr"; exit 1 }
		names != "" && !($1 in want) { next }
		names == "" && !($5 == tier || (tier == "full" && $5 == "ci")) { next }
		$3 != "both" && $3 != vendor { next }
		(","$4",") !~ (","flavour",") { next }
		{ out = $1 " " $2 " " $6; for (i = 7; i <= NF; i++) out = out " " $i; print out }' "$list"
}

on_verdict() {
	# shellcheck disable=SC2086
	set -- $1
	case $1 in
	BOOT) echo "  L0 is up: $2 ${*:4}" ;;
	START | DONE) ;;
	TEST) name=$2 verdict=$3 secs=$4; shift 4; echo "  $verdict $name ($secs s)$([ "$verdict" = PASS ] || echo ": $*")" ;;
	esac
}
export -f on_verdict
export ON_VERDICT=on_verdict

# The last words of what failed and of each level: where nothing but this output is left, they are all there is.
show_ends() { # DIR
	local name f
	for name in $(awk -F'\t' '$2 == "FAIL" { print $1 }' "$1/results"); do
		f=$1/tests/$name.log
		[ ! -s "$f" ] || sed "s/^/$name: /" <(grep -v '^ok - ' "$f" | tail -n 12 | cut -c1-200)
	done
	for f in "$1"/l?.log; do
		sed "s/^/$(basename "$f"): /" <(grep -v kpop-mark "$f" | tail -n 3 | cut -c1-200)
	done
	[ ! -s "$1/where.log" ] || sed "s/^/where: /" "$1/where.log" | cut -c1-100 | head -n 40
}

run_group() { # VENDOR FLAVOUR GROUP (tests on stdin)
	local vendor=$1 flavour=$2 group=$3 dir=$top/$1-$2-$3 limit=120 slow=${SLOW:-1} name secs cmd boot=boot.sh
	[ "$flavour" = plain ] || slow=$((slow * 4))
	[ "$vendor-${ACCEL:-tcg}" != intel-tcg ] || boot=bochs.sh
	local began=$SECONDS
	mkdir -p "$dir"
	echo "SLOW $slow" >"$dir/job"
	: >"$dir/expected"
	while read -r name _ secs cmd; do
		# make fuzz TIME=... SEED=...
		[[ $cmd != *@TIME@* ]] || secs=$((${TIME:-60} + 120))
		cmd=${cmd//@TIME@/${TIME:-60}} cmd=${cmd//@SEED@/${SEED:-1}}
		echo "TEST $name $secs $cmd" >>"$dir/job"
		echo "$name" >>"$dir/expected"
		limit=$((limit + secs + 30))
	done
	echo "$vendor, $flavour kernel, group $group: $(wc -l <"$dir/expected") tests"
	boot_group
	[ "$(cat "$dir/status" 2>/dev/null)" != hung ] || ! again || boot_group
	echo "$vendor, $flavour, $group: $((SECONDS - began)) s in all"
	touch "$dir/before"
	sed "s/^/$vendor-$flavour\t/" "$dir/before" "$dir/results" >>"$results"
}

# With run_group's variables: boot L0, judge, keep what failed.
boot_group() {
	local kept
	(
		[ "$boot" != boot.sh ] || tcg_settings "$group"
		# kmemleak is too slow for what does not look at it, and looks at all of memory. A KCSAN kernel has it, too.
		[ "$group" != leak ] || export L0_CMDLINE="kmemleak=on kcsan.early_enable=0 ${L0_CMDLINE:-}" L0_MEM=${L0_MEM:-2G}
		[ "$boot" = boot.sh ] || export STUCK=$((600 * slow))
		"$rig/$boot" "$flavour" "$dir" "$dir/job" $((limit * slow))
	) || true
	"$rig/unpack.py" "$dir/data" "$dir" || true
	if [ -s "$dir/gcov.tar" ]; then
		echo "lines of L0's side that ran:"
		"$rig/coverage.sh" "$dir/gcov.tar" | tee "$dir/coverage"
	fi
	# KVM's own tests, legacy paging and KPOP beside each other
	cat "$dir"/upstream*.txt 2>/dev/null || true
	"$rig/judge.sh" "$dir" && return
	# Kept whatever comes next: a failure that does not repeat is one all the same.
	kept=$REPO/build/runs/$(date +%Y%m%d-%H%M%S)-$vendor-$flavour-$group
	mkdir -p "$REPO/build/runs"
	cp -r "$dir" "$kept"
	echo "  kept: $kept"
	show_ends "$dir" >>"$top/ends"
}

# The emulated machine stopped (watch.sh: hung), which says nothing of the tests. It is counted, and what has no verdict is
# asked for once more, in one more boot; verdicts that are there, and what is bad on the consoles, stand. Status 1: all have one.
again() {
	echo "$vendor-$flavour/$group: the emulated machine hung during $(sed -n 's/^START //p' "$dir/verdict" | tail -1); once more" |
		tee -a "$top/hung"
	awk -F'\t' '$4 ~ /^(began but gave no verdict|never began); boot: hung$/ { print $1 }' "$dir/results" >"$dir/expected"
	awk -F'\t' 'FILENAME == ARGV[1] { rest[$1]; next } !($1 in rest) && $1 != "shutdown"' "$dir/expected" "$dir/results" >"$dir/before"
	awk 'FILENAME == ARGV[1] { rest[$1]; next } $1 != "TEST" || $2 in rest' "$dir/expected" "$dir/job" >"$dir/job.again"
	mv "$dir/job.again" "$dir/job"
	rm -f "$dir"/upstream*.txt "$dir/gcov.tar"
	: >"$dir/results"
	[ -s "$dir/expected" ]
}

# The rig's own test needs no boot, and nothing else is worth running if it fails.
if [ -z "${T:-}" ]; then
	"$rig/selftest.sh" "$top" || true
	sed 's/^/rig\t/' "$top/selftest/results" >>"$results" || echo "rig	selftest	FAIL	0	no results" >>"$results"
fi
# With the debug kernel there it is also L1's, under a plain L0.
boots=("$@")
[[ " $* " != *" debug "* ]] || boots+=(l1debug)
narrow=()
for vendor in $vendors; do
	for flavour in "${boots[@]}"; do
		! skip_boot "$vendor" "$flavour" || continue
		tests=$(select_tests "$vendor" "$flavour") || die "$list is broken"
		[ -n "$tests" ] || continue
		for group in $(awk '!seen[$2]++ { print $2 }' <<<"$tests"); do
			echo "$tests" | awk -v g="$group" '$2 == g' >"$top/$vendor-$flavour-$group.tests"
			if one_cpu "$vendor" "$group"; then
				narrow+=("$vendor $flavour $group")
			else
				run_group "$vendor" "$flavour" "$group" <"$top/$vendor-$flavour-$group.tests"
			fi
		done
	done
done
# Each in a process group of its own: what interrupts this script ends them, as it ends a boot in the foreground.
set -m
trap 'for boot in $(jobs -p); do kill -- -"$boot" 2>/dev/null || true; done' EXIT
trap 'exit 130' INT TERM
for boot in "${narrow[@]}"; do
	while [ "$(jobs -pr | wc -l)" -ge "${JOBS:-2}" ]; do wait -n || true; done
	# shellcheck disable=SC2086
	run_group $boot <"$top/${boot// /-}.tests" 2>&1 | sed -u "s/^/[$boot] /" &
done
wait
# A boot in the background that ended before its judge leaves nothing to count.
for boot in "${narrow[@]}"; do
	[ -s "$top/${boot// /-}/results" ] || echo "${boot// /-}	boot	FAIL	0	no results" >>"$results"
done

echo
[ ! -s "$top/ends" ] || cat "$top/ends"
[ ! -s "$top/hung" ] || sed 's/^/HUNG:    /' "$top/hung"
awk -F'\t' '$3 == "SKIP" { print "skipped: " $1 "/" $2 ": " $5 } $3 == "FAIL" { print "FAILED:  " $1 "/" $2 ": " $5 }' "$results"
awk -F'\t' '{ n[$3]++; if ($1 != "rig") booted++ } END {
	if (!booted) { print "no test was run: nothing in the list matches"; n["FAIL"]++ }
	printf "%d passed, %d failed, %d skipped\n", n["PASS"], n["FAIL"], n["SKIP"]
	exit n["FAIL"] > 0 }' "$results"
