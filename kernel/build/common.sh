# shellcheck shell=bash
# Sourced by the build and rig scripts: where everything is.
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE_TOP=${KPOP_CACHE:-$HOME/.cache/kpop}
JOBS=${JOBS:-$(nproc)}

die() { echo "kpop: $*" >&2; exit 1; }
note() { echo "kpop: $*" >&2; }

# kernel/BASE holds "key value" lines.
base_field() { awk -v k="$1" '$1 == k { print $2 }' "$REPO/kernel/BASE"; }

# The version whose tree is in use: what prepare.sh recorded, else what is tested.
base_version() {
	if [ -s "$CACHE_TOP/current" ]; then
		cat "$CACHE_TOP/current"
	else
		base_field upstream
	fi
}

cache_dir() { echo "$CACHE_TOP/$(base_version)"; }
linux_dir() { echo "$(cache_dir)/linux"; }

# The fragments of a flavour, in the order in which they are merged.
flavour_fragments() {
	case "$1" in
	plain | debug | kcsan) echo "$REPO/kernel/configs/base.config $REPO/kernel/configs/$1.config" ;;
	*) die "unknown kernel flavour '$1': plain, debug or kcsan" ;;
	esac
}

# One build directory for each set of options, so that a changed fragment never meets old objects.
# Comments do not count.
build_dir() {
	local h
	# shellcheck disable=SC2046
	h=$(cat $(flavour_fragments "$1") | grep -E '^(CONFIG_|# CONFIG_.* is not set)' | sha256sum | cut -c1-8)
	echo "$(cache_dir)/build-$1-$h"
}
