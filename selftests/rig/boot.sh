#!/bin/bash
# boot.sh FLAVOUR OUTDIR JOB SECONDS: boot L0 with a job (selftests/guest/l0run.sh) and wait for its DONE. FLAVOUR is plain,
# debug, or l1debug: plain in L0, the debug kernel in L1.
#
# In OUTDIR afterwards: verdict, data, l0.log, l1.log, l2.log, qemu.log, status (one word, see watch.sh).
# Environment: ACCEL=tcg|kvm, L0_MEM, L0_SMP, L0_CPU, L0_ACCEL (whole -accel value), L0_QEMU, L0_CMDLINE, STUCK (seconds without a
# sign of life on any port or console until the run is given up), TERMINAL=1 (L0's console on the terminal).
. "$(dirname "$0")/../../kernel/build/common.sh"
. "$REPO/selftests/rig/watch.sh"

flavour=$1 out=$2 job=$3 limit=$4
accel=${L0_ACCEL:-}
case "${ACCEL:-tcg}" in
# TCG does not intercept XSETBV: with XSAVE an L1 sets XCR0 behind its KVM, which its kernel warns about.
tcg) accel=${accel:-tcg,thread=multi} cpu=${L0_CPU:-max,-xsave} ;;
kvm)
	accel=kvm cpu=${L0_CPU:-host}
	[ -w /dev/kvm ] || die "ACCEL=kvm: /dev/kvm is not there or not writable"
	grep -qs '^[Y1]' /sys/module/kvm_{amd,intel}/parameters/nested || die "ACCEL=kvm: this host's KVM has nesting off"
	;;
*) die "ACCEL is tcg or kvm, not '$ACCEL'" ;;
esac
kernel=$REPO/build/image/${flavour/#l1debug/plain}.bzImage
image=$REPO/build/image/${flavour/#l1debug/debug}.img
[ -s "$image" ] || die "no image $image: make build"

mkdir -p "$out"
cd "$out"
rm -f monitor.sock verdict data l?.log status where.log
: >verdict; : >data; : >l0.log; : >l1.log; : >l2.log
ports=()
for p in verdict data log1 log2; do
	f=$p
	case $p in log?) f=l${p#log}.log ;; esac
	ports+=(-chardev "file,id=$p,path=$f" -device "virtserialport,chardev=$p,name=kpop.$p")
done
serial=(-chardev "file,id=con,path=l0.log" -serial chardev:con)
[ "${TERMINAL:-0}" = 0 ] || serial=(-chardev "stdio,id=con,signal=off,logfile=l0.log" -serial chardev:con)

cmdline="console=ttyS0 root=/dev/vda ro init=/kpop/init kpop.level=0 panic=-1"
# In 6.12 KASAN takes an interrupt in the moment when identify_cpu() has forgotten LA57 for a wild access.
[ "$flavour" != debug ] || cmdline+=" no5lvl"
[ "$flavour" != l1debug ] || cmdline+=" kpop.l1kernel=bzImage-debug"
cmdline+=" unknown_nmi_panic rcupdate.rcu_cpu_stall_timeout=60 loglevel=5 tsc=reliable no_timer_check"
qemu=(${L0_QEMU:-qemu-system-x86_64} -name kpop-l0 -machine q35,sata=off,smbus=off,i8042=off,vmport=off -accel "$accel" -cpu "$cpu" -smp "${L0_SMP:-2}" -m "${L0_MEM:-5G}"
	-monitor unix:monitor.sock,server=on,wait=off -nodefaults -no-user-config -no-reboot -display none -kernel "$kernel" -append "$cmdline ${L0_CMDLINE:-}"
	-drive "file=$image,format=raw,readonly=on,if=none,id=root" -device virtio-blk-pci,drive=root
	-fw_cfg "name=opt/kpop/job,file=$job" -device virtio-serial-pci,max_ports=16 "${ports[@]}" "${serial[@]}" ${L0_EXTRA:-})

if [ "${TERMINAL:-0}" != 0 ]; then
	"${qemu[@]}" && exit 0
	exit 1
fi

"${qemu[@]}" </dev/null >qemu.log 2>&1 &
pid=$!
# Nothing that this script started may outlive it.
trap 'kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM

watch_l0 $pid "$limit" "${STUCK:-300}" verdict data l?.log
end_l0 "L0 run"
