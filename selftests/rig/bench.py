#!/usr/bin/env python3
"""bench.py DIR: collect DIR/*/bench-*.json into DIR/report.json and print the tables."""
import glob
import json
import os
import sys

KINDS = ["nokvm", "single", "legacy", "kpop"]
WHERE = [("fresh", "all fresh"), ("l0", "L1's memory resident in L0"), ("both", "resident in L0, L2's in L1")]
# SVM's exit codes; the rest is printed as a number.
REASONS = {"96": "interrupt", "97": "nmi", "99": "init", "100": "vintr", "114": "cpuid", "116": "iret",
           "119": "invlpg", "120": "hlt", "123": "io", "124": "msr", "128": "vmrun", "129": "vmmcall", "130": "vmload",
           "131": "vmsave", "132": "stgi", "133": "clgi", "1024": "npf", "78": "pf", "16": "write cr0"}

top = sys.argv[1]
cases = {}
for name in sorted(glob.glob(os.path.join(top, "*", "bench-*.json"))):
    with open(name) as f:
        case = json.load(f)
    case["instructions_per_page"] = case["cycles"] / 2 / case["pages"]
    case["exits_per_page"] = case["counters"]["exits"] / case["pages"]
    case["reasons_per_page"] = {REASONS.get(k, k): v / case["pages"] for k, v in case["reasons"].items()}
    cases[case["kind"], case["where"]] = case
hangs = []
if os.path.exists(os.path.join(top, "hangs")):
    with open(os.path.join(top, "hangs")) as f:
        hangs = f.read().split()


def get(kind, where):
    # Without KVM there is no level below to be resident in: one figure for all rows.
    return cases.get((kind, "fresh" if kind == "nokvm" else where))


def table(title, key, form):
    print(f"\n{title:36}" + "".join(f"{k:>12}" for k in KINDS) + f"{'kpop/legacy':>13}")
    for where, label in WHERE:
        row = [get(k, where) for k in KINDS]
        if not any(row[1:]):
            continue
        text = "".join(f"{form.format(c[key]) if c else '':>12}" for c in row)
        ratio = f"{row[3][key] / row[2][key]:.3f}" if row[2] and row[3] and row[2][key] else ""
        print(f"{label:36}{text}{ratio:>13}")


table("instructions per page", "instructions_per_page", "{:.0f}")
table("L0 exits per page", "exits_per_page", "{:.2f}")
print("\nL0 exits per page by reason (traced run)")
for (kind, where), case in sorted(cases.items()):
    top_reasons = sorted(case["reasons_per_page"].items(), key=lambda kv: -kv[1])
    text = ", ".join(f"{k} {v:.2f}" for k, v in top_reasons if v >= 0.005)
    if text:
        print(f"  {kind + ' ' + where:16} {text}")
report = {"unit": "instructions (2 TSC cycles each)", "hangs": hangs,
          "cases": [cases[k] for k in sorted(cases)]}
with open(os.path.join(top, "report.json"), "w") as f:
    json.dump(report, f, indent=1)
if hangs:
    print(f"\nhangs of the counted emulator, started again: {len(hangs)} ({', '.join(hangs)})")
if not cases:
    sys.exit("no case gave a figure")
