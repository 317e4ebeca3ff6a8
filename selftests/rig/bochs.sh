#!/bin/bash
# bochs.sh FLAVOUR OUTDIR JOB SECONDS: as boot.sh, on Bochs, which emulates VMX with EPT: the Intel rig.
#
# L0's console is com1, verdicts are com2. There is no third way out that is fast: what else boot.sh has as ports (data,
# consoles of L1 and L2) L0 collects and writes to a disk as a tar, every few seconds and at the end (selftests/guest/init).
# In OUTDIR afterwards: as boot.sh; bochs.log instead of qemu.log.
. "$(dirname "$0")/../../kernel/build/common.sh"
. "$REPO/selftests/rig/watch.sh"

flavour=$1 out=$2 job=$3 limit=$4
kernel=$REPO/build/image/$flavour.bzImage
image=$REPO/build/image/$flavour.img
[ -s "$image" ] || die "no image $image: make build"
mkdir -p "$out"
cd "$out"
rm -rf cd bochsrc verdict data l?.log status ./*.disk* collected
: >verdict; : >data; : >l0.log; : >l1.log; : >l2.log

# What Bochs 2.7 says by CPUID of XSAVE and of its cores contradicts itself, and Linux warns of that: hence noxsave and
# clearcpuid=ht below. Without umip KVM emulates it, for L2s too (kpop_emulate).

# Bochs wants whole cylinders.
cylinder=$((16 * 63 * 512))
whole() { truncate -s $((($(stat -c %s "$1") + cylinder - 1) / cylinder * cylinder)) "$1"; }
cp --reflink=auto "$image" root.disk
whole root.disk
cp "$job" job.disk
whole job.disk
truncate -s $((cylinder * 65)) out.disk

mkdir -p cd/isolinux
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 cd/isolinux/
cp "$kernel" cd/isolinux/bzImage
cat >cd/isolinux/isolinux.cfg <<CFG
default kpop
prompt 0
label kpop
 kernel bzImage
 append console=ttyS0 root=/dev/sda ro init=/kpop/init kpop.level=0 kpop.out=/dev/ttyS1,/dev/sdc kpop.job=/dev/sdb panic=-1 quiet loglevel=5 tsc=reliable noxsave clearcpuid=ht,umip rcupdate.rcu_cpu_stall_timeout=60 ${L0_CMDLINE:-}
CFG
xorriso -as mkisofs -quiet -o boot.iso -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 \
	-boot-info-table cd >xorriso.log 2>&1 || die "xorriso: $(tail -1 xorriso.log)"

cat >bochsrc <<CFG
display_library: term
cpu: model=corei7_icelake_u, count=1, ips=${BOCHS_IPS:-50000000}, ignore_bad_msrs=1
memory: guest=2048, host=2048
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
boot: cdrom
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata0-master: type=disk, path=root.disk, mode=flat
ata0-slave: type=disk, path=job.disk, mode=flat
ata1-master: type=disk, path=out.disk, mode=flat
ata1-slave: type=cdrom, path=boot.iso, status=inserted
com1: enabled=1, mode=file, dev=l0.log
com2: enabled=1, mode=file, dev=verdict
clock: sync=none, time0=$(date +%s)
error: action=ignore
log: bochs.log
CFG
if [ -n "${BOCHS_RC:-}" ]; then cp "$BOCHS_RC" debugger; else echo c >debugger; fi

# A process group of its own: script, sh and bochs end together.
TERM=vt100 setsid script -qec "stty rows 25 cols 80; bochs -q -f bochsrc -rc debugger" /dev/null </dev/null >screen 2>&1 &
pid=$!
trap 'kill -9 -- -$pid 2>/dev/null; pkill -9 -s $pid 2>/dev/null; wait $pid 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM

collect() {
	rm -rf collected
	mkdir -p collected
	tar -xf out.disk -C collected 2>/dev/null || true
	for f in data l1.log l2.log; do [ ! -e collected/$f ] || cp collected/$f $f; done
}

# Bochs ends when the machine powers off; its exit status says nothing.
watch_l0 $pid "$limit" "${STUCK:-300}" verdict l0.log out.disk
sed -i 's/\r$//' verdict
collect
rm -f ./*.disk* boot.iso
rm -rf cd
end_l0 "L0 run (Bochs)"
