#!/bin/bash
# coverage.sh TAR: which lines of L0's side of KPOP ran on a debug kernel, from the counters that a test sent (gcov.tar; see
# selftests/cases/fuzz.sh). One line a file, and their sum; a file that never ran counts with all of its lines.
. "$(dirname "$0")/../../kernel/build/common.sh"

tar=$(realpath "$1")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cp "$(build_dir debug)"/arch/x86/kvm/mmu/kpop_*.gcno .
tar xf "$tar"
for f in kpop_*.gcno; do
	# The headers that a file includes have lines of their own here, which are not of interest.
	gcov -n "${f%.gcno}" 2>/dev/null | awk -v want="/${f%.gcno}.c'" '
		/^File/ { mine = substr($0, length($0) - length(want) + 1) == want }
		mine && /^Lines executed/ { sub("Lines executed:", ""); print want, $1 + 0, $3; mine = 0 }' | tr -d "/'"
done | awk '{ n = int($2 * $3 / 100 + 0.5); ran += n; all += $3; printf "  %-20s %4d of %4d lines, %5.1f%%\n", $1, n, $3, $2 }
	END { if (!all) exit 1; printf "  %-20s %4d of %4d lines, %5.1f%%\n", "all", ran, all, 100 * ran / all }'
