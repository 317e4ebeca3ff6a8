# life_l2.sh kpop|legacy [short]: what happens in the life of an L2 under QEMU in L1: a reset by the monitor, a reboot from inside, a
# vCPU plugged in, a balloon inflated and deflated. L2's memory is verified after each. "short" is the reset and the vCPU.
. /kpop/lib.sh

want_memory() { # WHAT [TASKSET ARGS]
	local what=$1 out
	shift
	out=$(T=200 l2 "$* memtest $MIB 1") || fail "$what: $out"
	[ "${out##* }" = "$WANT" ] || fail "$what: $out, not $WANT"
	want_side l2
	echo "ok - $what, and L2's memory is right"
}

boot_id() { T=20 l2 "cat /proc/sys/kernel/random/boot_id" 2>/dev/null; }

# Until another boot of L2 answers.
want_boot() { # OLD WHAT
	local i=0 new=
	while [ -z "$new" ] || [ "$new" = "$1" ]; do
		i=$((i + 1))
		[ $i -lt $((60 * SLOW)) ] || fail "$2: no new L2 came up"
		vm_alive l2 || fail "$2: QEMU ended: $(cat $RUN/l2.qemu)"
		sleep 1
		new=$(boot_id)
	done
}

rss() { sed -n 's/^Rss: *\([0-9]*\) kB/\1/p' /proc/$(vm_pid l2)/smaps_rollup; }

balloon_until() { # MIB OPERATOR KIB
	local i=0
	mon l2 "balloon $1" >/dev/null
	while ! [ $(rss) $2 $3 ]; do
		i=$((i + 1))
		[ $i -lt $((90 * SLOW)) ] || fail "balloon $1: L2's QEMU has $(rss) KiB of L1, not $2 $3"
		sleep 1
	done
}

l2_end() {
	want_side l2
	l2_stop || fail "L2 did not power off"
}

in_l1() {
	local id full
	REBOOT=1 MEM=192 SMP=1,sockets=2,maxcpus=2 l2_start -device virtio-balloon-pci || fail "no L2"
	want_memory "L2 on $SIDE"

	id=$(boot_id)
	mon l2 system_reset >/dev/null
	want_boot "$id" "reset"
	want_memory "reset by QEMU"
	if [ -z "$SHORT" ]; then
		id=$(boot_id)
		l2 "(usleep 100000; reboot -f) >/dev/null 2>&1 </dev/null &"
		want_boot "$id" "reboot"
		want_memory "reboot from inside"
	fi

	mon l2 "device_add host-x86_64-cpu,id=cpu1,socket-id=1,core-id=0,thread-id=0" >$RUN/plug
	l2 'i=0; c=/sys/devices/system/cpu/cpu1
		while [ ! -e $c/online ]; do sleep 1; i=$((i + 1)); [ $i -lt 30 ] || exit 1; done
		[ $(cat $c/online) = 1 ] || echo 1 >$c/online' || fail "no second CPU in L2: $(cat $RUN/plug)"
	[ "$(l2 'grep -c ^processor /proc/cpuinfo')" = 2 ] || fail "L2 does not run on two CPUs"
	want_memory "a vCPU plugged in, tested there" taskset 2
	want_memory "tested on the first one" taskset 1
	[ -z "$SHORT" ] || { l2_end; return; }

	l2 'echo 0 >/sys/devices/system/cpu/cpu1/online && echo 1 >/sys/devices/system/cpu/cpu1/online' || fail "the vCPU does not go and come"
	want_memory "the vCPU taken down and up again" taskset 2

	full=$(rss)
	balloon_until 96 -lt $((full - 49152))
	echo "# balloon: L2's QEMU had $full KiB of L1, now $(rss)"
	balloon_until 192 -gt 0
	want_memory "balloon inflated and deflated"
	[ $(rss) -gt $((full - 32768)) ] || fail "deflated, L2's QEMU has $(rss) KiB of L1; $full before"
	l2_end
}

[ "$1" = in_l1 ] && SIDE=$2 WANT=$3 SHORT=$4 || SIDE=$1 SHORT=$2
[ -z "$SHORT" ] && MIB=48 || MIB=16
[ "$1" = in_l1 ] && { in_l1; exit 0; }
case_in_l1 800 life_l2.sh $SIDE $(memtest $MIB 1 | sed -n 's/.*checksum //p') $SHORT
