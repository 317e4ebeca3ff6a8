#!/bin/bash
# bpf.sh: vmlinux.h with KPOP's types, then every bpf/*.bpf.c and the programs that must be refused, into build/.
#
# The types are the plain kernel's; the objects are relocatable (CO-RE) and serve the debug kernel as well.
. "$(dirname "$0")/common.sh"

obj=$(build_dir plain)
dir=$(cache_dir)
out=$REPO/build/bpf
clang=${CLANG:-clang-19}
mkdir -p "$out/refused"
kvm=$obj/arch/x86/kvm/kvm.ko
[ -s "$kvm" ] || die "no $kvm: build the plain kernel first"
h=$out/vmlinux.h
if [ ! -s "$h" ] || [ "$kvm" -nt "$h" ]; then
	"$dir/bpftool/bpftool" -B "$obj/vmlinux" btf dump file "$kvm" format c >"$h.new"
	cmp -s "$h.new" "$h" || cp "$h.new" "$h"
	touch "$h"
	rm -f "$h.new"
fi
grep -q 'struct kpop_ops {' "$h" || die "kvm.ko of $obj has no struct kpop_ops: is KVM_KPOP on?"

compile() { # SOURCE OBJECT
	local newest
	newest=$(ls -t "$1" "$REPO"/bpf/*.h "$h" | head -1)
	[ -s "$2" ] && [ "$2" -nt "$newest" ] && return
	"$clang" -target bpf -mcpu=v4 -g -O2 -Wall -Werror -D__TARGET_ARCH_x86 -I"$out" -I"$REPO/bpf" -I"$dir/libbpf/include" \
		-c "$1" -o "$2.new"
	mv "$2.new" "$2"
}
shopt -s nullglob
srcs=("$REPO"/bpf/*.bpf.c)
[ ${#srcs[@]} -gt 0 ] || die "no BPF policies in bpf/"
for f in "${srcs[@]}"; do compile "$f" "$out/$(basename "$f" .c).o"; done
for f in "$REPO"/selftests/bpf/*.bpf.c; do compile "$f" "$out/refused/$(basename "$f" .c).o"; done
