#!/bin/bash
# shell.sh FLAVOUR: L0's shell on this terminal, with an L1 running beneath.
. "$(dirname "$0")/../../kernel/build/common.sh"
[ -t 0 ] || die "make shell needs a terminal"
dir=$REPO/build/shell
mkdir -p "$dir"
echo SHELL >"$dir/job"
old=$(stty -g)
trap 'stty "$old"' EXIT
stty raw -echo
. "$REPO/selftests/rig/tcg.sh"
tcg_settings l2
TERMINAL=1 "$REPO/selftests/rig/boot.sh" "$1" "$dir" "$dir/job" 0
