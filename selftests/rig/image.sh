#!/bin/bash
# image.sh FLAVOUR: the root disk of all three levels, build/image/FLAVOUR.img. L0 runs the FLAVOUR kernel; L1 and L2
# the plain one, whose image is in there as well (boot.sh l1debug: L0 and L2 that, L1 the debug kernel). Nothing is mounted, so it needs no rights.
. "$(dirname "$0")/../../kernel/build/common.sh"

flavour=${1:?usage: image.sh plain|debug|kcsan}
out=$REPO/build/image
root=$out/root-$flavour
img=$out/$flavour.img
plain=$(build_dir plain)
obj=$(build_dir "$flavour")
src=$(linux_dir)
mkdir -p "$out"
rm -rf "$root"
mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,usr/share/qemu,etc,proc,sys,dev,tmp,run,mnt,boot,kpop,lib,lib64}
# FHS merges /lib into /usr/lib; ldd's paths are used as they come, so nothing is linked here.

# A program and the libraries that ldd names.
add_dynamic() {
	local prog lib
	prog=$(command -v "$1") || die "$1 is missing on this machine"
	cp -L "$prog" "$root/usr/bin/"
	for lib in $(ldd "$prog" 2>/dev/null | grep -oE '/[^ ]+'); do
		[ -e "$root$lib" ] || { mkdir -p "$root$(dirname "$lib")"; cp -L "$lib" "$root$lib"; }
	done
}
add_dynamic qemu-system-x86_64
add_dynamic stress-ng

# Firmware that a direct kernel boot on q35 and pc needs.
for f in bios-256k.bin bios.bin kvmvapic.bin linuxboot_dma.bin linuxboot.bin multiboot.bin vgabios-stdvga.bin; do
	for d in /usr/share/qemu /usr/share/seabios; do
		[ ! -e "$d/$f" ] || { cp -L "$d/$f" "$root/usr/share/qemu/"; break; }
	done
done

cp /bin/busybox "$root/bin/"
for a in $(/bin/busybox --list); do
	[ -e "$root/bin/$a" ] || ln -s busybox "$root/bin/$a"
done

install_kernel() { # FLAVOUR NAME
	local b
	b=$(build_dir "$1")
	[ -s "$b/arch/x86/boot/bzImage" ] || die "the $1 kernel is not built: make build"
	exec 9>"$b/.kpop-lock"
	flock 9
	cp "$b/arch/x86/boot/bzImage" "$root/boot/$2"
	[ "$1" != "$flavour" ] || cp "$b/arch/x86/boot/bzImage" "$out/$flavour.bzImage"
	make -s -C "$b" INSTALL_MOD_PATH="$root" INSTALL_MOD_STRIP=1 modules_install >/dev/null
	exec 9>&-
}
install_kernel plain bzImage
[ "$flavour" = plain ] || install_kernel "$flavour" "bzImage-$flavour"
rm -f "$root"/lib/modules/*/{build,source}

cp "$REPO"/selftests/guest/{init,lib.sh,l0run.sh} "$root/kpop/"
chmod +x "$root/kpop/init"
cp "$REPO"/build/guest/* "$root/kpop/"
mkdir -p "$root/kpop/cases" "$root/kpop/bpf" "$root/kpop/kvm"
cp -r "$REPO"/selftests/cases/. "$root/kpop/cases/"
shopt -s nullglob
for f in "$REPO"/build/bpf/*.bpf.o; do cp "$f" "$root/kpop/bpf/"; done
for f in "$REPO"/build/kvm/kpop_*_test; do [ -f "$f" ] && [ -x "$f" ] && cp "$f" "$root/kpop/kvm/"; done
if [ "$flavour" = debug ]; then
	mkdir -p "$root/kpop/module"
	cp "$REPO"/build/module/*.ko "$root/kpop/module/"
fi
mkdir -p "$root/kpop/bpf/refused"
for f in "$REPO"/build/bpf/refused/*.bpf.o; do cp "$f" "$root/kpop/bpf/refused/"; done
cp -r "$REPO/build/upstream/bin" "$root/kpop/upstream"
cp -r "$REPO/build/nokpop" "$root/kpop/nokpop"
cp "$REPO"/selftests/upstream/{tests.list,run.sh} "$root/kpop/upstream/"
cp "$REPO/build/kpopctl/kpopctl" "$root/usr/sbin/"
add_dynamic "$(cache_dir)/bpftool/bpftool"
strip -g "$root"/kpop/kvm/* "$root"/usr/sbin/kpopctl "$root"/usr/bin/bpftool
echo 'root:x:0:0:root:/tmp:/bin/sh' >"$root/etc/passwd"
echo 'nobody:x:65534:65534:nobody:/tmp:/bin/sh' >>"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"

rm -f "$img.new"
size=$(($(du -sm "$root" | cut -f1) * 5 / 4 + 16))
mke2fs -qq -t ext4 -O ^has_journal,^metadata_csum -m 0 -N $(($(find "$root" | wc -l) * 5 / 4 + 256)) \
	-E root_owner=0:0,nodiscard -d "$root" "$img.new" "${size}M" >/dev/null
mv "$img.new" "$img"
rm -rf "$root"
