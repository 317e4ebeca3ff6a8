#!/bin/bash
# fetch.sh: have the base kernel unpacked in the cache, and record its version there.
. "$(dirname "$0")/common.sh"

package=$(base_field package)
series=$(base_field series)
tested=$(base_field debian)
mkdir -p "$CACHE_TOP"

# With a tree of the tested version in the cache there is nothing to ask apt for.
up=$(base_field upstream)
if [ -d "$CACHE_TOP/$up/pristine" ]; then
	echo "$up" >"$CACHE_TOP/current"
	exit 0
fi

installed=$(dpkg-query -W -f '${Version}' "$package" 2>/dev/null || true)
if [ "$installed" != "$tested" ]; then
	avail=$(apt-cache madison "$package" 2>/dev/null | awk -F'|' '{ gsub(/ /, "", $2); print $2 }')
	if grep -qxF "$tested" <<<"$avail"; then
		pick=$tested
	else
		pick=$(head -1 <<<"$avail")
	fi
	pick=${pick:-$installed}
	[ -n "$pick" ] || die "neither apt nor dpkg knows $package: add Debian 12's security repository and run apt-get update"
	case "$pick" in
	"$series".*) ;;
	*) die "apt offers $package $pick, but KPOP is made for Linux $series.y (last tested: $tested)" ;;
	esac
	[ "$pick" = "$tested" ] || note "NOTICE: $package $tested is not to be had; using $pick, which nobody tested"
	if [ "$pick" != "$installed" ]; then
		[ "$(id -u)" = 0 ] || die "run as root: apt-get install -y --allow-downgrades $package=$pick"
		DEBIAN_FRONTEND=noninteractive apt-get install -y -q --allow-downgrades --no-install-recommends \
			"$package=$pick" </dev/null >&2
	fi
	installed=$pick
fi

tarball=/usr/src/$package.tar.xz
[ -s "$tarball" ] || die "$package $installed is installed but $tarball is missing: reinstall the package"
if [ "$installed" = "$tested" ]; then
	got=$(sha256sum "$tarball" | cut -d' ' -f1)
	[ "$got" = "$(base_field sha256)" ] || die "$tarball is not the file that kernel/BASE names (sha256 $got): reinstall $package"
fi

work=$(mktemp -d "$CACHE_TOP/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
tar -C "$work" -xf "$tarball" --strip-components=1
up=$(make -s -C "$work" kernelversion)
case "$up" in
"$series".*) ;;
*) die "$tarball holds Linux $up, but KPOP is made for $series.y" ;;
esac
mkdir -p "$CACHE_TOP/$up"
[ -d "$CACHE_TOP/$up/pristine" ] || { chmod 755 "$work"; mv "$work" "$CACHE_TOP/$up/pristine"; }
echo "$up" >"$CACHE_TOP/current"
