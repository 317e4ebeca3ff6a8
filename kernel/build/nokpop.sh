#!/bin/bash
# nokpop.sh: KVM's modules with CONFIG_KVM_KPOP=n for the plain kernel, in build/nokpop. The kernel proper does not know the
# option, so its objects are taken over, and what depends on the option is built anew.
. "$(dirname "$0")/common.sh"

src=$(linux_dir)
plain=$(build_dir plain)
obj=$plain-nokpop
out=$REPO/build/nokpop
exec 9>"$plain/.kpop-lock"
flock 9

# Anew for each plain kernel: its symbols are what these modules are linked against.
want=$(sha256sum <"$plain/vmlinux")
if [ "$(cat "$obj/.kpop-of" 2>/dev/null)" != "$want" ]; then
	rm -rf "$obj"
	cp -a "$plain" "$obj"
	sed -i 's/^CONFIG_KVM_KPOP=y$/# CONFIG_KVM_KPOP is not set/' "$obj/.config"
	make -s -C "$src" O="$obj" olddefconfig
	! grep -q '^CONFIG_KVM_KPOP=' "$obj/.config" || die "CONFIG_KVM_KPOP does not go off"
	echo "$want" >"$obj/.kpop-of"
fi
export CCACHE_DIR=${CCACHE_DIR:-$CACHE_TOP/ccache}
export KBUILD_BUILD_TIMESTAMP='2026-01-01' KBUILD_BUILD_USER=kpop KBUILD_BUILD_HOST=kpop
make -C "$src" O="$obj" CC="ccache gcc" -j"$JOBS" virt/lib/irqbypass.ko arch/x86/kvm/kvm.ko arch/x86/kvm/kvm-amd.ko arch/x86/kvm/kvm-intel.ko \
	>"$obj/build.log" 2>&1 || { tail -30 "$obj/build.log" >&2; die "KVM without KPOP did not build; log: $obj/build.log"; }
mkdir -p "$out"
for m in kvm kvm-amd kvm-intel; do
	objcopy --strip-debug --remove-section .BTF "$obj/arch/x86/kvm/$m.ko" "$out/$m.ko"
done
