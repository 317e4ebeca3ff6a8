#!/bin/bash
# tools.sh: libbpf and bpftool of the prepared tree, into the cache.
. "$(dirname "$0")/common.sh"

src=$(linux_dir)
dir=$(cache_dir)
exec 9>"$dir/.tools-lock"
flock 9
log=$dir/tools.log
mkdir -p "$dir/libbpf-obj" "$dir/bpftool"
build() {
	make -C "$src/tools/lib/bpf" -j"$JOBS" OUTPUT="$dir/libbpf-obj/" DESTDIR= prefix="$dir/libbpf" libdir="$dir/libbpf/lib64" \
		install install_headers &&
	make -C "$src/tools/bpf/bpftool" -j"$JOBS" OUTPUT="$dir/bpftool/" feature-llvm=0 feature-libbfd=0 \
		feature-clang-bpf-co-re=0
}
# A switch of base version leaves objects that make does not know to be stale.
if ! build >"$log" 2>&1; then
	tail -30 "$log" >&2
	die "libbpf or bpftool did not build; log: $log"
fi
