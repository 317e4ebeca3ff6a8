#!/bin/bash
# build.sh FLAVOUR: kernel image and modules, incremental, into the cache.
. "$(dirname "$0")/common.sh"

flavour=${1:?usage: build.sh plain|debug|kcsan}
src=$(linux_dir)
obj=$(build_dir "$flavour")
mkdir -p "$obj"
# Two makes in one object directory destroy it, and an image made meanwhile mixes two kernels.
exec 9>"$obj/.kpop-lock"
flock 9
"$REPO/kernel/build/kconfig.sh" "$flavour"

export CCACHE_DIR=${CCACHE_DIR:-$CACHE_TOP/ccache}
export CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-6G}
# Without these two the banner changes with every build, and so does every image.
export KBUILD_BUILD_TIMESTAMP='2026-01-01' KBUILD_BUILD_USER=kpop KBUILD_BUILD_HOST=kpop
cc=gcc
command -v ccache >/dev/null && cc="ccache gcc"

instrument=()
case $flavour in
debug) # Counts which lines of L0's side run (selftests/rig/coverage.sh).
	for f in "$REPO"/kernel/arch/x86/kvm/mmu/kpop_*.c; do
		f=$(basename "$f" .c)
		[[ $f == kpop_guest* ]] || instrument+=("GCOV_PROFILE_mmu/$f.o=y")
	done
	;;
kcsan) # Watches KPOP's accesses, and those of what it shares data with.
	instrument=(KCSAN_SANITIZE=n KCSAN_SANITIZE_x86.o=y KCSAN_SANITIZE_svm/{svm,nested}.o=y KCSAN_SANITIZE_vmx/{vmx,nested}.o=y
		KCSAN_SANITIZE_../../../virt/kvm/kvm_main.o=y)
	for f in "$src"/arch/x86/kvm/mmu/*.c; do
		instrument+=("KCSAN_SANITIZE_mmu/$(basename "$f" .c).o=y")
	done
	;;
esac

log=$obj/build.log
if ! make -C "$src" O="$obj" CC="$cc" "${instrument[@]}" -j"$JOBS" bzImage modules >"$log" 2>&1; then
	grep -E -B2 -A6 '(error|Error|undefined)' "$log" | tail -60 >&2
	die "the $flavour kernel did not build; log: $log"
fi
grep -E 'warning:' "$log" >&2 || true
