#!/bin/bash
# kconfig.sh FLAVOUR: merge the fragments over tinyconfig into the build directory; a request that did not take is fatal.
. "$(dirname "$0")/common.sh"

flavour=${1:?usage: kconfig.sh plain|debug|kcsan}
src=$(linux_dir)
obj=$(build_dir "$flavour")
stamp=$obj/.kpop-config
mkdir -p "$obj"

# shellcheck disable=SC2046
want=$(cat $(flavour_fragments "$flavour") "$src/arch/x86/kvm/Kconfig" | sha256sum)
[ -s "$obj/.config" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && exit 0

merged=$obj/fragments.config
# shellcheck disable=SC2046
cat $(flavour_fragments "$flavour") >"$merged"
# A tree without our option (developing on the bare base) builds without it.
if ! grep -q '^config KVM_KPOP$' "$src/arch/x86/kvm/Kconfig"; then
	note "this tree has no KVM_KPOP: building the bare base"
	sed -i '/^CONFIG_KVM_KPOP=/d' "$merged"
fi

make -s -C "$src" O="$obj" tinyconfig
cp "$obj/.config" "$obj/tiny.config"
(cd "$obj" && "$src/scripts/kconfig/merge_config.sh" -m -O "$obj" tiny.config "$merged" >merge.log)
make -s -C "$src" O="$obj" olddefconfig

# Later lines win in a merge, so only the last word on each option is compared.
missing=$(sed -nE 's/^# (CONFIG_[A-Z0-9_]+) is not set$/\1 n/p; s/^(CONFIG_[A-Z0-9_]+)=(.*)$/\1 \2/p' "$merged" |
	awk '{ k = $1; $1 = ""; want[k] = substr($0, 2) } END { for (k in want) print k, want[k] }' |
	while read -r key val; do
		have=$(sed -n "s/^$key=//p" "$obj/.config")
		[ "${have:-n}" = "$val" ] || echo "  $key: wanted $val, got ${have:-n}"
	done)
[ -z "$missing" ] || die "options of the $flavour kernel that did not take (fix kernel/configs):
$missing"
echo "$want" >"$stamp"
