#!/bin/bash
# demo.sh: make run. Boots L0 with selftests/cases/demo.sh, prints what it said, and the table from its report.
. "$(dirname "$0")/../../kernel/build/common.sh"
rig=$REPO/selftests/rig
dir=$REPO/build/run
. "$rig/tcg.sh"
tcg_settings l2
rm -rf "$dir"
mkdir -p "$dir"
echo "SLOW ${SLOW:-1}
TEST demo 900 sh /kpop/cases/demo.sh" >"$dir/job"
echo demo >"$dir/expected"
echo "[1/1] L0 -> L1 -> L2, a few minutes; consoles in $dir/l0.log, l1.log, l2.log ..."
start=$SECONDS
"$rig/boot.sh" plain "$dir" "$dir/job" $((1200 * ${SLOW:-1})) || true
"$rig/unpack.py" "$dir/data" "$dir" || true
failed=0
"$rig/judge.sh" "$dir" || failed=1
cat "$dir/tests/demo.log" 2>/dev/null || true
echo
"$rig/report.py" "$dir/report.json" || failed=1
awk -F'\t' '{ print $1 ": " $2 " (" $3 " s)" ($2 == "PASS" ? "" : ": " $4) }' "$dir/results"
echo "took $((SECONDS - start)) s; report: $dir/report.json"
exit $failed
