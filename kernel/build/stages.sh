#!/bin/bash
# stages.sh FLAVOUR...: everything that a boot needs, in order, each stage with its time. Only what changed is built.
. "$(dirname "$0")/common.sh"

flavours=${*:-plain}
b=$REPO/kernel/build
n=0
total=$((8 + $(wc -w <<<"$flavours") * 2))
case " $flavours " in *" debug "*) total=$((total + 1)) ;; esac
case " $flavours " in *" plain "*) ;; *) total=$((total + 1)) ;; esac
stage() { # WHAT COMMAND...
	local t=$SECONDS
	n=$((n + 1))
	echo "[$n/$total] $1 ..."
	shift
	"$@" || die "stopped in stage $n of $total"
	[ $((SECONDS - t)) -lt 5 ] || echo "[$n/$total] done in $((SECONDS - t)) s"
}

kpopctl() {
	local dir src
	dir=$(cache_dir) src=$(linux_dir)
	mkdir -p "$REPO/build/kpopctl"
	make -s -C "$REPO/tools/kpopctl" -j"$JOBS" O="$REPO/build/kpopctl" LIBBPF="$dir/libbpf" UAPI="$src/arch/x86/include/uapi" \
		BPF_UAPI="$src/tools/include/uapi/linux"
}

kvm_tests() {
	local dir
	dir=$(cache_dir)
	mkdir -p "$REPO/build/kvm"
	make -s -C "$REPO/selftests/kvm" -j"$JOBS" KSRC="$(linux_dir)" KOBJ="$(build_dir plain)" O="$REPO/build/kvm" \
		LIBBPF="$dir/libbpf" >"$REPO/build/kvm.log" 2>&1 || { tail -30 "$REPO/build/kvm.log" >&2; return 1; }
}

# KVM's own selftests; the headers are those that kvm_tests has installed.
upstream_tests() {
	mkdir -p "$REPO/build/upstream"
	make -s -C "$REPO/selftests/upstream" -j"$JOBS" KSRC="$(linux_dir)" UAPI="$REPO/build/kvm/usr" O="$REPO/build/upstream" \
		>"$REPO/build/upstream.log" 2>&1 || { tail -30 "$REPO/build/upstream.log" >&2; return 1; }
}

# For an L1 with the debug kernel. In the plain one such tracking would cost two bytes a page, which no L2 on KPOP has to pay.
test_module() {
	local obj=$REPO/build/module
	mkdir -p "$obj"
	cp -u "$REPO"/selftests/module/* "$obj/"
	make -s -C "$(build_dir debug)" M="$obj" modules >"$REPO/build/module.log" 2>&1 || { tail -30 "$REPO/build/module.log" >&2; return 1; }
}

guest_programs() {
	local dir
	dir=$(cache_dir)
	make -s -C "$REPO/selftests/guest" O="$REPO/build/guest" &&
	gcc -O2 -Wall -static -I"$dir/libbpf/include" -idirafter "$(linux_dir)/tools/include/uapi" \
		-o "$REPO/build/guest/load_refused" "$REPO/selftests/bpf/load_refused.c" "$dir/libbpf/lib64/libbpf.a" -lelf -lz -lzstd
}

stage "packages" "$b/packages.sh"
# TREE=asis builds what stands in linux/, for those who edit there (export.sh brings it back).
if [ "${TREE:-}" = asis ]; then
	stage "kernel tree: as it is" true
else
	stage "kernel tree: base, patches, overlay" "$b/prepare.sh"
fi
# L1 and L2 run the plain kernel whatever L0 runs, so it is always built.
case " $flavours " in *" plain "*) ;; *) stage "plain kernel" "$b/build.sh" plain ;; esac
for f in $flavours; do
	stage "$f kernel (the first time: 15 to 30 minutes)" "$b/build.sh" "$f"
done
stage "KVM without KPOP" "$b/nokpop.sh"
stage "libbpf and bpftool" "$b/tools.sh"
stage "BPF policies" "$b/bpf.sh"
stage "kpopctl" kpopctl
stage "KVM selftests and guest programs" eval "kvm_tests && guest_programs"
case " $flavours " in *" debug "*) stage "the module of a test" test_module ;; esac
stage "the kernel's own KVM selftests" upstream_tests
for f in $flavours; do
	stage "root image ($f)" "$REPO/selftests/rig/image.sh" "$f"
done
