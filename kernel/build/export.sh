#!/bin/bash
# export.sh: write what was edited in the cached tree back into kernel/: new files whose path names kpop to the overlay,
# changed files to the patch that kernel/patches/series.map assigns them to.
#
# series.map: "NNNN-subject.patch: file file ..." one line a patch. A changelog already in the patch stays.
# A file may stand in one patch only: a patch is one seam.
. "$(dirname "$0")/common.sh"

src=$(linux_dir)
pristine=$(cache_dir)/pristine
patches=$REPO/kernel/patches
map=$patches/series.map
state=$(cache_dir)/prepared.sha256
[ -d "$src" ] || die "no tree at $src: run make kernel-tree"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The tree is a copy with times kept, so size and time tell quickly which files to compare. Paths with a blank are a few
# board files that are nobody's business.
list_tree() {
	(cd "$1" && find . -type f ! -path '* *' ! -name '*.orig' ! -name '*.rej' ! -name '*~' ! -name '.*.sw?' \
		-printf '%P %s:%T@\n' | LC_ALL=C sort -k1,1)
}
export LC_ALL=C
list_tree "$pristine" >"$work/old"
list_tree "$src" >"$work/new"
join -v 2 -o 2.1 "$work/old" "$work/new" >"$work/added"
join "$work/old" "$work/new" | awk '$2 != $3 { print $1 }' >"$work/touched"
: >"$work/changed"
while read -r f; do
	cmp -s "$pristine/$f" "$src/$f" || echo "$f" >>"$work/changed"
done <"$work/touched"

# Overlay. A file that the tree has as the last preparation wrote it, while kernel/ has another, was edited in kernel/:
# that edit is the newer one.
while read -r f; do
	if [ -s "$state" ] && [ -e "$REPO/kernel/$f" ] && ! cmp -s "$src/$f" "$REPO/kernel/$f" &&
		grep -qxF "$(sha256sum <"$src/$f" | cut -d' ' -f1) $f" "$state"; then
		note "kernel/$f was edited since make kernel-tree: not overwritten"
		continue
	fi
	case "$f" in
	arch/x86/kvm/*kpop* | arch/x86/include/*kpop* | include/*kpop* | Documentation/*kpop* | tools/*kpop*)
		mkdir -p "$REPO/kernel/$(dirname "$f")"
		cmp -s "$src/$f" "$REPO/kernel/$f" || { cp "$src/$f" "$REPO/kernel/$f"; echo "overlay  $f"; } ;;
	*) note "new file outside the overlay's paths, not exported: $f" ;;
	esac
done <"$work/added"
# A file deleted in the tree leaves the overlay too, but only if a preparation had put it there.
if [ -s "$state" ]; then
	while read -r _ f; do
		[ -e "$src/$f" ] || [ ! -e "$REPO/kernel/$f" ] || { rm "$REPO/kernel/$f"; echo "removed  $f"; }
	done <"$state"
fi

write_patch() { # name file...
	local name=$1 out=$work/$1 f
	shift
	: >"$out"
	if [ -s "$patches/$name" ]; then
		awk '/^---( |$)/ || /^diff / { exit } { print }' "$patches/$name" >"$out"
	else
		printf 'Subject: %s\n\n' "$(basename "$name" .patch | sed 's/^[0-9]*-//; s/-/ /g')" >"$out"
	fi
	local head
	head=$(wc -l <"$out")
	for f in "$@"; do
		[ -e "$src/$f" ] || die "$map: $name names $f, which the tree has not"
		(cd "$work" && ln -sfn "$pristine" a && ln -sfn "$src" b && diff -up "a/$f" "b/$f" |
			sed -E '1,2s/\t.*//' >>"$out") || true
	done
	if [ "$(wc -l <"$out")" = "$head" ]; then
		note "$name: no difference in its files; left out"
		rm -f "$patches/$name"
		return
	fi
	cmp -s "$out" "$patches/$name" || { cp "$out" "$patches/$name"; echo "patch    $name"; }
}

mkdir -p "$patches"
: >"$work/mapped"
if [ -s "$map" ]; then
	dup=$(sed -E 's/#.*//; s/^[^:]*://' "$map" | tr -s ' \t' '\n' | grep . | sort | uniq -d)
	[ -z "$dup" ] || die "$map: in more than one patch: $dup"
	while IFS=: read -r name files; do
		case "$name" in '' | '#'*) continue ;; esac
		# shellcheck disable=SC2086
		printf '%s\n' $files >>"$work/mapped"
		# shellcheck disable=SC2086
		write_patch "$name" $files
	done <"$map"
fi
sort "$work/mapped" >"$work/mapped.sorted"
sort "$work/changed" | comm -23 - "$work/mapped.sorted" >"$work/unsorted"
if [ -s "$work/unsorted" ]; then
	note "changed but in no line of $map:"
	sed 's/^/  /' "$work/unsorted" >&2
	# shellcheck disable=SC2046
	write_patch 9999-unsorted.patch $(cat "$work/unsorted")
else
	rm -f "$patches/9999-unsorted.patch"
fi

# What is exported is no longer a loose edit: prepare.sh may rebuild it.
{ cat "$work/added" "$work/changed"; } | sort -u | (cd "$src" && xargs -r -d '\n' sha256sum) |
	sed 's/  / /' >"$state"
