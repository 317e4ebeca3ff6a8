#!/bin/bash
# judge.sh DIR: the verdict on one boot. Reads DIR/expected (test names, one a line), DIR/status, DIR/verdict and the
# consoles DIR/l[012].log; writes DIR/results, a line a test: name, PASS|FAIL|SKIP, seconds, reason (tabs between).
#
# A test without a verdict fails. A console line of bad.list that allowed.list does not know fails the test that was
# running then, or a test "boot" that exists for this if none was. Exit status 1 if anything failed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
BAD=${BAD_LIST:-$here/bad.list}
ALLOWED=${ALLOWED_LIST:-$here/allowed.list}
status=$(cat "$dir/status" 2>/dev/null || echo "no status")

# name, level and line of everything bad on the consoles
for level in 0 1 2; do
	[ -e "$dir/l$level.log" ] || continue
	tr -d '\000\r' <"$dir/l$level.log" |
	awk -v level=$level -v bad="$BAD" -v allowed="$ALLOWED" '
	BEGIN {
		while ((getline line < bad) > 0) if (line !~ /^#/ && line != "") b[nb++] = line
		while ((getline line < allowed) > 0) if (line !~ /^#/ && line != "") {
			split(line, part, "\t")
			if (part[2] == "") { print "boot\t" level "\tallowed.list: no reason for " part[1]; continue }
			a[na++] = part[1]
		}
		if (!nb) print "boot\t" level "\tno bad.list"
		test = "boot"
	}
	match($0, /kpop-mark: start [^ ]+/) { test = substr($0, RSTART + 17, RLENGTH - 17); next }
	/kpop-mark: end / { next }
	/Command line:|Kernel command line:/ { next }
	{
		for (i = 0; i < nb; i++) if ($0 ~ b[i]) break
		if (i == nb) next
		for (i = 0; i < na; i++) if ($0 ~ a[i]) next
		print test "\t" level "\t" $0
	}'
done >"$dir/bad"

awk -F'\t' -v status="$status" -v dir="$dir" '
	FILENAME ~ /bad$/ { nbad[$1]++; if (!($1 in bad)) bad[$1] = "L" $2 " console: " $3; next }
	FILENAME ~ /verdict$/ {
		n = split($0, w, " ")
		if (w[1] == "START") { started[w[2]] = 1; next }
		if (w[1] != "TEST") next
		why = ""
		for (i = 5; i <= n; i++) why = why (i > 5 ? " " : "") w[i]
		count[w[2]]++
		verdict[w[2]] = w[3]; secs[w[2]] = w[4]; reason[w[2]] = why
		next
	}
	{ expected[++ne] = $1; want[$1] = 1 }
	function out(name, v, s, r) { print name "\t" v "\t" s + 0 "\t" r; if (v == "FAIL") failed = 1 }
	END {
		if (!ne) out("boot", "FAIL", 0, "no tests were asked for")
		for (i = 1; i <= ne; i++) {
			t = expected[i]
			if (!(t in verdict))
				out(t, "FAIL", 0, (t in started ? "began but gave no verdict" : "never began") "; boot: " status (t in bad ? "; " bad[t] : ""))
			else if (count[t] > 1)
				out(t, "FAIL", secs[t], "more than one verdict")
			else if (verdict[t] !~ /^(PASS|FAIL|SKIP)$/)
				out(t, "FAIL", secs[t], "unknown verdict " verdict[t])
			else if (t in bad)
				out(t, "FAIL", secs[t], nbad[t] " bad lines, first: " bad[t] (verdict[t] == "FAIL" ? "; and: " reason[t] : ""))
			else if (verdict[t] == "SKIP" && reason[t] == "")
				out(t, "FAIL", secs[t], "skipped without a reason")
			else
				out(t, verdict[t], secs[t], reason[t])
		}
		for (t in verdict) if (!(t in want)) out(t, "FAIL", secs[t], "nobody asked for this test")
		for (t in bad) if (!(t in want)) out("boot", "FAIL", 0, nbad[t] " bad lines outside any test, first: " bad[t])
		if (status != "done") out("shutdown", "FAIL", 0, "boot ended as: " status)
		exit failed
	}' "$dir/bad" "$dir/verdict" "$dir/expected" >"$dir/results"
