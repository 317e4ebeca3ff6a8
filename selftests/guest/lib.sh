# Shell library of L0 and L1: start the VMs of the next level and run commands in them. Sourced by busybox sh.
#
#   vm_start [NAME=n] ... ; in L0: l1_start, l1 CMD, l1_stop, l1_pid; in L1: l2_start, l2 CMD, l2_stop, l2_pid.
#
# Variables that a caller may set before l1_start or l2_start:
#   NAME     which VM (default l1, l2); several may run at once
#   MEM SMP  MiB and vCPUs (1536 and 2 for L1, 512 and 2 for L2; on a small machine 512, 128, and 1; 1 where L0 has the debug kernel)
#   KVMOPT   options for kvm.ko in an L1, "opt=val opt=val"
#   CMDLINE  more kernel command line
#   MACHINE  QEMU's -machine (PLAIN_MACHINE)
#   CPU      QEMU's -cpu (host, without paravirtual EOI: see vm_start)
#   ACCEL    kvm
#   BOOT_SECONDS  until the agent must answer; 0: it is not waited for
#   REBOOT=1 a reset is a reset; otherwise QEMU ends
# QEMU's monitor: mon NAME COMMAND.
# and for l1, l2: T=seconds until the command is killed (status 124).

RUN=/run/kpop
CGROUP=/sys/fs/cgroup
LEVEL=${KPOP_LEVEL:-0}
NEXT=$((LEVEL + 1))
SLOW=${KPOP_SLOW:-1}
# A debug kernel in L0 takes longer for an exit of L2 than it is from one tick of L1 and L2 to the next: they get nothing done but
# ticks. From a periodic timer KVM gives them no more than 10 a second.
[ $LEVEL != 0 ] || case $(uname -r) in *-debug) KPOP_FEW_TICKS=1 ;; esac
AGENT_PORTS=6
PLAIN_MACHINE=q35,sata=off,smbus=off,i8042=off,vmport=off

say() { echo "$*" >&2; }
skip() { echo "$*"; exit 4; }
fail() { echo "FAIL: $*"; exit 1; }

# Bochs has 2 GiB and one CPU for L0.
small() { [ $(sed -n 's/^MemTotal: *\([0-9]*\) .*/\1/p' /proc/meminfo) -lt $([ $LEVEL = 0 ] && echo 2200000 || echo 700000) ]; }

# A file out of L0, at once: a test's own ($KPOP_OUT) leave when it ends.
send_file() { # FILE NAME
	local n=$(stat -c %s $1)
	{ echo "FILE $2 $n"; cat $1; } >>$DATA
}

# kvm_load [nokpop] [OPT=VAL...]: an option that kvm.ko does not know is an error. nokpop: modules that were built with
# CONFIG_KVM_KPOP=n.
kvm_load() {
	local opts= vopts= o vendor=amd load=modprobe dir= ext=
	grep -q GenuineIntel /proc/cpuinfo && vendor=intel
	for o in "$@"; do
		case $o in
		nokpop) load=insmod dir=/kpop/nokpop/ ext=.ko ;;
		nested=* | npt=* | ept=* | avic=*) vopts="$vopts $o" ;;
		*) opts="$opts $o" ;;
		esac
	done
	[ $load = modprobe ] || modprobe irqbypass
	# L0 measures its TSC once more a second after boot, on TCG with a deviation. Beyond 250 ppm from what kvm.ko found when it
	# was loaded, 6.12 leaves a new vCPU without a TSC ratio: L0 takes its TSC for 0, and L1's timers come when L1's age has doubled.
	$load ${dir}kvm$ext tsc_tolerance_ppm=20000 $opts || { say "kvm.ko did not load with '$opts'"; return 1; }
	$load ${dir}kvm-$vendor$ext $vopts || { say "kvm-$vendor did not load"; return 1; }
}

# What a policy holds goes some grace periods after its detach.
kvm_unload() {
	local i=0
	while :; do
		modprobe -r kvm_amd 2>/dev/null
		modprobe -r kvm_intel 2>/dev/null
		modprobe -r kvm 2>/dev/null && return
		i=$((i + 1))
		[ $i -lt 50 ] || { say "kvm.ko does not go: $(grep ^kvm /proc/modules)"; return 1; }
		usleep 200000
	done
}

kvm_reload() { kvm_unload && kvm_load "$@"; }

# One process collects the consoles of the next level and sends them out, marked with the VM's name by the kernel's own
# hostname; each level has one port for each level above it.
log_start() {
	[ -S $RUN/log$1.sock ] && return
	vagent log $RUN/log$1.sock /dev/virtio-ports/kpop.log$1 </dev/null >/dev/null 2>&1 &
	local i=0
	while [ ! -S $RUN/log$1.sock ] && [ $i -lt 50 ]; do usleep 20000; i=$((i + 1)); done
}

# A line into the log of every level, so that what follows can be attributed.
log_mark() {
	echo "kpop-mark: $*" >/dev/kmsg
	local n
	for n in 1 2; do
		[ -S $RUN/log$n.sock ] && vagent say $RUN/log$n.sock "kpop-mark: $*"
	done
}

# Bytes of kernel memory that a VM costs this level, without the VMM's own page tables.
vm_kernel_bytes() {
	awk '$1 == "kernel" { k = $2 } $1 == "pagetables" { p = $2 } END { printf "%d\n", k - p }' $CGROUP/$1/memory.stat
}

vm_pid() { cat $RUN/$1.pid 2>/dev/null; }
vm_alive() { local p=$(vm_pid $1); [ -n "$p" ] && [ -d /proc/$p ] && ! grep -q '^State:.*Z' /proc/$p/status 2>/dev/null; }

# vm_start NAME [QEMU ARGS]: returns when the agent answers.
vm_start() {
	local name=$1 i ports= logs cmdline mem smp kernel=bzImage cpu=host,kvm-pv-eoi=off
	shift
	vm_alive $name && { say "$name runs already"; return 1; }
	case $NEXT in
	1) mem=${MEM:-1536} smp=${SMP:-2} kernel=${KPOP_L1_KERNEL:-bzImage} ;;
	*) mem=${MEM:-512} smp=${SMP:-2} ;;
	esac
	if small; then
		[ $NEXT = 1 ] && mem=${MEM:-512} || mem=${MEM:-128}
		smp=${SMP:-1}
	fi
	log_start $NEXT
	rm -f $RUN/$name.agent.*
	i=0
	while [ $i -lt $AGENT_PORTS ]; do
		ports="$ports -chardev socket,id=a$i,path=$RUN/$name.agent.$i,server=on,wait=off"
		ports="$ports -device virtserialport,chardev=a$i,name=kpop.agent.$i"
		i=$((i + 1))
	done
	logs="-chardev socket,id=con,path=$RUN/log$NEXT.sock -serial chardev:con"
	if [ $NEXT = 1 ]; then
		log_start 2
		logs="$logs -chardev socket,id=log2,path=$RUN/log2.sock -device virtserialport,chardev=log2,name=kpop.log2"
	fi
	cmdline="console=ttyS0 root=/dev/vda ro init=/kpop/init kpop.level=$NEXT kpop.name=$name"
	cmdline="$cmdline panic=-1 hung_task_panic=0 rcupdate.rcu_cpu_stall_timeout=${STALL:-60} tsc=reliable no_timer_check loglevel=5"
	[ $kernel = bzImage ] || cmdline="$cmdline no5lvl"	# see boot.sh
	if [ -n "$KPOP_FEW_TICKS" ]; then
		echo 100000 >/sys/module/kvm/parameters/min_timer_period_us
		cmdline="$cmdline nohz=off highres=off" cpu=$cpu,-tsc-deadline smp=${SMP:-1}
	fi
	[ -n "$KVMOPT" ] && cmdline="$cmdline kpop.kvm=$(echo $KVMOPT | tr ' ' ,)"
	# QEMU 7.2's TCG keeps the vector that a VMRUN injected as a pending exception until the guest's next exit, and may
	# deliver it once more, interrupts off or not. An EOI that exits, the first thing that a handler does, leaves no room.
	# A memcg of its own: what its kernel memory is, and may be, is seen there.
	mkdir -p $CGROUP/$name
	sh -c 'echo $$ >$0/cgroup.procs; exec "$@"' $CGROUP/$name qemu-system-x86_64 -name $name -machine ${MACHINE:-$PLAIN_MACHINE} -accel ${ACCEL:-kvm} -cpu ${CPU:-$cpu} -smp $smp -m $mem \
		-nodefaults -no-user-config $([ "$REBOOT" = 1 ] || echo -no-reboot) -display none -monitor unix:$RUN/$name.mon,server=on,wait=off -L /usr/share/qemu \
		-kernel /boot/$kernel -append "$cmdline $CMDLINE" \
		-drive file=$KPOP_ROOT,format=raw,readonly=on,if=none,id=root,file.locking=off -device virtio-blk-pci,drive=root \
		-device virtio-serial-pci,max_ports=16 $ports $logs "$@" </dev/null >$RUN/$name.qemu 2>&1 &
	echo $! >$RUN/$name.pid
	i=0
	while [ ! -S $RUN/$name.agent.0 ]; do
		vm_alive $name || break
		usleep 50000
		i=$((i + 1))
		[ $i -lt 400 ] || break
	done
	[ "$BOOT_SECONDS" = 0 ] || vm_ready $name
}

# What a VM that does not answer is at, twice: the time here, CPU time of QEMU's threads (1/100 s), KVM's counters that
# are not 0, its vCPUs, its interrupts. What does not change between the two has stopped.
vm_where() {
	local t f i=0 pid=$(vm_pid $1)
	[ -d /proc/$pid/task ] || return
	while [ $i -lt 2 ]; do
		[ $i = 0 ] || sleep 2
		echo "where $1 is: uptime $(cat /proc/uptime)"
		for t in /proc/$pid/task/*; do
			awk '{ printf "%s user %s system %s; ", $2, $14, $15 }' $t/stat
		done
		for f in exits irq_exits halt_exits irq_injections nested_run pf_taken pf_spurious kpop_faults_direct \
			kpop_faults_reflected kpop_maps kpop_guest_maps kpop_guest_fallbacks; do
			echo -n "$f $(kvm_stat $pid $f) "
		done
		echo
		mon $1 "info registers -a" | grep -E '^CPU#|^RIP|^CR0'
		mon $1 "info lapic 0" | grep -E 'LVTT|ISR|IRR|Timer'
		i=$((i + 1))
	done
}

# Wait until the agent answers.
vm_ready() {
	local name=$1
	if ! vagent run -t $((${BOOT_SECONDS:-240} * SLOW)) $RUN/$name.agent true; then
		say "L$NEXT ($name) did not come up: its console is l$NEXT.log; QEMU said: $(tail -5 $RUN/$name.qemu)"
		vm_where $name >&2
		vm_kill $name
		return 1
	fi
}

mon() { vagent ask $RUN/$1.mon "$2"; }

vm_run() { # NAME CMD...
	local name=$1 status=0
	shift
	vagent run -t $((${T:-120} * SLOW)) $RUN/$name.agent "export KPOP_SLOW=$SLOW KPOP_FEW_TICKS=$KPOP_FEW_TICKS; [ -e /kpop/lib.sh ] && . /kpop/lib.sh; $*" || status=$?
	[ $status != 124 ] || vm_where $name >&2
	return $status
}

vm_kill() {
	local p=$(vm_pid $1)
	[ -n "$p" ] || return 0
	kill -9 $p 2>/dev/null
	vm_gone $1
}

vm_gone() {
	local i=0
	while vm_alive $1; do
		usleep 50000
		i=$((i + 1))
		[ $i -lt 600 ] || { say "QEMU of $1 does not end"; return 1; }
	done
	rm -f $RUN/$1.pid $RUN/$1.agent.* $RUN/$1.sig
}

# Power off from inside; what does not end within 20 seconds is killed, and that is a failure.
vm_stop() {
	local i=0 max=$((200 * SLOW))
	vm_alive $1 || { vm_gone $1; return 0; }
	T=10 vm_run $1 "(usleep 100000; poweroff -f) >/dev/null 2>&1 </dev/null &" 2>/dev/null
	while vm_alive $1; do
		usleep 100000
		i=$((i + 1))
		[ $i -lt $max ] || { say "$1 did not power off"; vm_kill $1; return 1; }
	done
	vm_gone $1
}

# Swap of this level, on zram; once.
swap_on() { # SIZE
	grep -q zram /proc/swaps && return
	modprobe zram && echo $1 >/sys/block/zram0/disksize && mkswap /dev/zram0 >/dev/null && swapon /dev/zram0 || fail "no swap"
}

# Reuse a running VM that was started the same way, else start it anew.
vm_need() {
	local name=$1 sig
	sig="$* mem=$MEM smp=$SMP kvm=$KVMOPT cmdline=$CMDLINE cpu=$CPU"
	if vm_alive $name && [ "$(cat $RUN/$name.sig 2>/dev/null)" = "$sig" ] && T=20 vm_run $name true; then
		return 0
	fi
	vm_kill $name
	vm_start "$@" && echo "$sig" >$RUN/$name.sig
}

vm_kill_all() {
	local f
	for f in $RUN/*.pid; do
		[ -e $f ] || continue
		f=${f##*/}
		vm_kill ${f%.pid}
	done
}

l1_start() { vm_start ${NAME:-l1} "$@"; }
l1_need() { vm_need ${NAME:-l1} "$@"; }
l1() { vm_run ${NAME:-l1} "$@"; }
l1_stop() { vm_stop ${NAME:-l1}; }
l1_kill() { vm_kill ${NAME:-l1}; }
l1_pid() { vm_pid ${NAME:-l1}; }
l2_start() { vm_start ${NAME:-l2} "$@"; }
l2_need() { vm_need ${NAME:-l2} "$@"; }
l2() { vm_run ${NAME:-l2} "$@"; }
l2_stop() { vm_stop ${NAME:-l2}; }
l2_kill() { vm_kill ${NAME:-l2}; }
l2_pid() { vm_pid ${NAME:-l2}; }

# kvm_stat PID NAME: the sum of a counter over a VM's directory in debugfs, in this level.
kvm_stat() {
	local d sum=0 v
	for d in /sys/kernel/debug/kvm/$1-*; do
		[ -e $d/$2 ] || continue
		v=$(cat $d/$2)
		sum=$((sum + v))
	done
	echo $sum
}

# In L0: give a VM (l1) a policy (kpop_base); take it away.
attach() {
	local out
	out=$(kpopctl attach /kpop/bpf/${2:-kpop_base}.bpf.o --name ${1:-l1} 2>&1) || fail "$out"
}

detach() {
	local out
	out=$(kpopctl detach --name ${1:-l1} 2>&1) || fail "$out"
}

# In L0: a VM that only exists (QEMU does not start its vCPUs), named sleeper; its pid is $q.
sleeper() {
	local i=0
	qemu-system-x86_64 -name sleeper -S -machine pc -accel kvm -m 64 -nodefaults -display none -L /usr/share/qemu </dev/null >$RUN/q 2>&1 &
	q=$!
	until kpopctl list | grep -q sleeper; do
		usleep 100000
		i=$((i + 1))
		[ $i -lt $((100 * SLOW)) ] || fail "kpopctl does not find the VM: $(cat $RUN/q)"
	done
}

# on_both FUNCTION: call it with "legacy", attach a policy to L1, call it with "KPOP"; each must be true, and say why if not.
on_both() {
	local shadow
	echo "--- legacy"
	$1 legacy || fail "on legacy"
	[ "$(kvm_stat $(l1_pid) kpop_maps)" = 0 ] || fail "that was not legacy paging"
	shadow=$(kvm_stat $(l1_pid) mmu_cache_miss)
	attach
	echo "--- KPOP"
	$1 KPOP || fail "on KPOP"
	[ "$(kvm_stat $(l1_pid) kpop_maps)" -gt 0 ] || fail "that was not KPOP"
	[ "$(kvm_stat $(l1_pid) mmu_cache_miss)" = "$shadow" ] || fail "L0 made shadow pages for an L2 on KPOP"
}

# case_in_l1 SECONDS CASE kpop|legacy ARGS...: the part of a case that is its function in_l1, in an L1 with a policy, where L0 must
# shadow nothing (L2 has no guests: their tables it would), or in one without. CASE has, behind that function:
# [ "$1" = in_l1 ] && { SIDE=$2 ...; in_l1; exit 0; }
case_in_l1() {
	local secs=$1 case=$2 side=$3
	shift 3
	MEM=1536 l1_start || fail "no L1"
	case $side in
	kpop) attach ;;
	legacy) ;;
	*) fail "kpop or legacy, not '$side'" ;;
	esac
	T=$secs l1 "sh /kpop/cases/$case in_l1 $side $*" || exit 1
	[ $side = legacy ] || [ "$(kvm_stat $(l1_pid) mmu_cache_miss)" = 0 ] || fail "L0 made shadow pages"
	[ $side = kpop ] || [ "$(kvm_stat $(l1_pid) kpop_maps)" = 0 ] || fail "that was not legacy paging"
	l1_stop || fail "L1 did not power off"
}

# In L1: the VM is paged as SIDE, kpop or legacy, says, and has always been.
want_side() { # NAME
	[ "$(kvm_stat $(vm_pid $1) kpop_guest_active)" = $([ $SIDE = kpop ] && echo 1 || echo 0) ] || fail "$1 is not on $SIDE"
	[ "$(kvm_stat $(vm_pid $1) kpop_guest_fallbacks)" = 0 ] || fail "L1 fell back"
}
