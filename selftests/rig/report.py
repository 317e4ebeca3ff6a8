#!/usr/bin/env python3
"""report.py REPORT: print make run's two columns; fail if anything that must be there is not."""
import json
import sys

ROWS = [
    ("L0 exits", "l0_exits"),
    ("L2 faults handled by L1", "l1_faults"),
    ("L2 faults served in L0", "faults_direct"),
    ("shadow pages made in L0", "l0_shadow_pages"),
    ("paging metadata, bytes", "metadata_bytes"),
    ("  of it in L0", "metadata_l0"),
    ("  of it in L1", "metadata_l1"),
    ("seconds, boot and memory test", "seconds"),
]
try:
    with open(sys.argv[1]) as f:
        report = json.load(f)
except (OSError, ValueError) as e:
    sys.exit(f"no report: {e}")
kpop, legacy = report.get("kpop"), report.get("legacy")
if not kpop or not legacy:
    sys.exit("the report is not complete: it stopped before both kinds of L2 had run")
print(f"{'one L2: boot and ' + str(report['mib']) + ' MiB memory test':36}{'KPOP':>14}{'legacy':>14}")
for label, key in ROWS:
    print(f"{label:36}{kpop[key]:>14}{legacy[key]:>14}")
missing = [s["step"] for s in report["steps"] if not s["ok"]]
if missing or not report["ok"] or not kpop["on_kpop"] or legacy["on_kpop"] or kpop["l0_shadow_pages"]:
    sys.exit("not everything happened: " + ", ".join(missing or ["see the report"]))
