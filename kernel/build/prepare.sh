#!/bin/bash
# prepare.sh: bring the cached tree linux/ to "pristine + patches + overlay", touching only files that change, so that the
# next kernel build stays incremental. Stops at the first patch that does not apply, with the tree as it was.
#
# FORCE=1 overwrites edits in linux/ that were not exported (see export.sh).
. "$(dirname "$0")/common.sh"

"$REPO/kernel/build/fetch.sh"
dir=$(cache_dir)
src=$dir/linux
pristine=$dir/pristine
state=$dir/prepared.sha256
patches=$REPO/kernel/patches
work=$(mktemp -d "$dir/prepare.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Real copies, no hard links: an editor that writes in place must not reach pristine.
if [ ! -d "$src" ]; then
	rm -rf "$dir/linux.new"
	cp -a --reflink=auto "$pristine" "$dir/linux.new"
	mv "$dir/linux.new" "$src"
	: >"$state"
fi

overlay_files() {
	(cd "$REPO/kernel" && find . -mindepth 2 -type f ! -name '*~' ! -name '*.orig' ! -name '.*.sw?' -printf '%P\n' |
		grep -Ev '^(patches|configs|build)/' | LC_ALL=C sort)
}

mkdir "$work/tree"
shopt -s nullglob
series=("$patches"/[0-9][0-9][0-9][0-9]-*.patch)
for p in "${series[@]}"; do
	sed -nE 's#^\+\+\+ b/([^\t ]+).*#\1#p' "$p"
done | sort -u | while read -r f; do
	[ -e "$pristine/$f" ] || continue
	mkdir -p "$work/tree/$(dirname "$f")"
	cp "$pristine/$f" "$work/tree/$f"
done
for p in "${series[@]}"; do
	if ! (cd "$work/tree" && patch -p1 --fuzz=0 --no-backup-if-mismatch -s <"$p") >"$work/log" 2>&1; then
		cat "$work/log" >&2
		die "patch $(basename "$p") does not apply to $(base_version) (the tested base is $(base_field debian)): fix it in kernel/patches, nothing was changed"
	fi
done
overlay_files | while read -r f; do
	[ ! -e "$pristine/$f" ] || die "kernel/$f exists in the base kernel: changes to existing files belong in kernel/patches"
	mkdir -p "$work/tree/$(dirname "$f")"
	cp "$REPO/kernel/$f" "$work/tree/$f"
done
(cd "$work/tree" && find . -type f -printf '%P\n' | LC_ALL=C sort | xargs -r sha256sum | sed 's/  / /') >"$work/state"

# What is in linux/ now must be the last preparation's, or pristine, or what is about to be written.
loose=()
{ awk '{ print $2 }' "$state" "$work/state" 2>/dev/null; } | LC_ALL=C sort -u >"$work/paths"
while read -r f; do
	[ -e "$src/$f" ] || continue
	have=$(sha256sum <"$src/$f" | cut -d' ' -f1)
	grep -qxF "$have $f" "$state" "$work/state" 2>/dev/null && continue
	cmp -s "$src/$f" "$pristine/$f" && continue
	loose+=("$f")
done <"$work/paths"
if [ ${#loose[@]} -gt 0 ] && [ "${FORCE:-0}" != 1 ]; then
	printf '  %s\n' "${loose[@]}" >&2
	die "these files in $src were edited and not exported: run kernel/build/export.sh, or throw the edits away with FORCE=1"
fi

# Restore what an earlier preparation changed and this one does not.
while read -r _ f; do
	[ -e "$work/tree/$f" ] && continue
	if [ -e "$pristine/$f" ]; then
		cmp -s "$pristine/$f" "$src/$f" || { mkdir -p "$work/back/$(dirname "$f")"; cp "$pristine/$f" "$work/back/$f"; }
	else
		rm -f "$src/$f"
	fi
done <"$state"
[ ! -d "$work/back" ] || rsync -rc "$work/back/" "$src/"
rsync -rc "$work/tree/" "$src/"
cp "$work/state" "$state"
