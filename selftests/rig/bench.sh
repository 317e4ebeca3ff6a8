#!/bin/bash
# bench.sh: make bench. One boot of L0 for each case, counted: with -icount the TSC of all levels counts instructions, two
# ticks each, whatever else this machine does. BENCH_JOBS boots at a time.
#
# Environment: CASES="kind-where ..." for some, RETRIES (2): how often a case that hangs is started again; each hang is
# reported and counted in the report.
. "$(dirname "$0")/../../kernel/build/common.sh"
rig=$REPO/selftests/rig
top=$REPO/build/bench
cases=${CASES:-nokvm-fresh single-fresh legacy-fresh kpop-fresh single-l0 legacy-l0 kpop-l0 legacy-both kpop-both}
retries=${RETRIES:-2}
rm -rf "$top"
mkdir -p "$top"

export L0_ACCEL=tcg,thread=single L0_CPU=max,-erms,-xsave L0_SMP=1 L0_MEM=3G STUCK=${STUCK:-300}
export L0_CMDLINE="transparent_hugepage=never"
export L0_EXTRA="-icount shift=1,sleep=off"

one() { # KIND-WHERE
	local case=$1 dir=$top/$1 try start
	for try in $(seq $((retries + 1))); do
		start=$SECONDS
		rm -rf "$dir"
		mkdir -p "$dir"
		echo "TEST $case 1000000 sh /kpop/cases/bench.sh ${case%-*} ${case#*-}" >"$dir/job"
		echo "$case" >"$dir/expected"
		"$rig/boot.sh" plain "$dir" "$dir/job" "${BENCH_LIMIT:-2400}" >"$dir/boot.out" 2>&1 || true
		case $(cat "$dir/status") in
		stuck | hung | timeout)
			echo "  HANG: $case, try $try, after $((SECONDS - start)) s: $(cat "$dir/boot.out")"
			echo "$case" >>"$top/hangs"
			mkdir -p "$REPO/build/runs"
			cp -r "$dir" "$REPO/build/runs/$(date +%Y%m%d-%H%M%S)-bench-$case"
			;;
		*) break ;;
		esac
	done
	"$rig/unpack.py" "$dir/data" "$dir" || true
	"$rig/judge.sh" "$dir" || true
	awk -F'\t' -v s=$((SECONDS - start)) '{ print "  " $2 " " $1 " (" s " s): " $4 }' "$dir/results"
	! grep -q FAIL "$dir/results" || touch "$top/failed"
}

echo "counted boots, $(wc -w <<<"$cases"), some minutes each; consoles in $top/CASE/l[012].log ..."
for c in $cases; do
	while [ "$(jobs -rp | wc -l)" -ge "${BENCH_JOBS:-2}" ]; do wait -n || true; done
	one "$c" &
done
wait
"$rig/bench.py" "$top" >"$top/table" || touch "$top/failed"
cat "$top/table"
[ ! -e "$top/failed" ] || die "some cases failed; see above and $top"
