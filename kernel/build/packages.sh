#!/bin/bash
# packages.sh: install what packages.list names and is missing; without root say what to type.
. "$(dirname "$0")/common.sh"

mapfile -t want < <(sed -E 's/#.*//; s/[[:space:]].*//; /^$/d' "$REPO/kernel/build/packages.list")
missing=$(comm -23 <(printf '%s\n' "${want[@]}" | sort) \
	<(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${want[@]}" 2>/dev/null | sed -n 's/ installed$//p' | sort))
[ -n "$missing" ] || exit 0
# shellcheck disable=SC2086
set -- $missing
if [ "$(id -u)" != 0 ]; then
	die "these Debian packages are missing: $*
run as root: apt-get update && apt-get install -y --no-install-recommends $*"
fi
note "installing $*"
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -q && apt-get install -y -q --no-install-recommends "$@"; } </dev/null >"$log" 2>&1; then
	tail -20 "$log" >&2
	die "apt-get failed; log: $log"
fi
rm -f "$log"
