# What L0 does with its job. The job comes by fw_cfg (or on a disk, kpop.job), one line each:
#   TEST name seconds command...     a test; exit status 0 pass, 4 skip (last line of output is the reason), else fail
#   SHELL                            a shell on the console, with an L1 running
# Verdicts go to the port kpop.verdict, output and files to kpop.data as "FILE name bytes" and the bytes.
. /kpop/lib.sh

VERDICT=/dev/virtio-ports/kpop.verdict
DATA=/dev/virtio-ports/kpop.data
job=/sys/firmware/qemu_fw_cfg/by_name/opt/kpop/job/raw
[ -e $job ] || job=$KPOP_JOB
# A disk is padded with zeros.
tr -d '\000' <$job >$RUN/job || { echo "kpop: no job"; exit 1; }
[ -e $VERDICT ] || VERDICT=/dev/console
[ -e $DATA ] || DATA=/dev/null
export DATA

# One process at a time has a virtio port open; the other one finds it busy.
verdict() {
	local i=0
	while ! echo "$*" 2>/dev/null >$VERDICT; do
		usleep 1000
		i=$((i + 1))
		[ $i -lt 10000 ] || break
	done
}

run_test() { # NAME SECONDS CMD...
	local name=$1 limit=$(($2 * SLOW)) out=$RUN/test.out t0 status verdict reason
	shift 2
	verdict "START $name"
	log_mark "start $name"
	export KPOP_OUT=$RUN/out
	rm -rf $KPOP_OUT
	mkdir -p $KPOP_OUT
	t0=$(cut -d. -f1 /proc/uptime)
	setsid timeout -k 5 $limit "$@" </dev/null >$out 2>&1
	status=$?
	[ -s $out ] || echo "(no output)" >$out
	reason=$(tail -1 $out | tr -d '\000-\010\013-\037' | cut -c1-200)
	case $status in
	0) verdict=PASS ;;
	4) verdict=SKIP ;;
	124 | 137 | 143) verdict=FAIL reason="status $status, time limit $limit s; last line: $reason" ;;
	*) verdict=FAIL reason="status $status; $reason" ;;
	esac
	# What a failed test leaves behind must not meet the next one.
	[ $verdict = FAIL ] && vm_kill_all
	log_mark "end $name"
	send_file $out tests/$name.log
	for f in $KPOP_OUT/*; do
		[ -f $f ] && send_file $f ${f##*/}
	done
	verdict "TEST $name $verdict $(($(cut -d. -f1 /proc/uptime) - t0)) $reason"
}

log_start 1
log_start 2
# What nesting has to stand on here: "npt=Y nested=1" or "ept=Y nested=Y".
paging() {
	local p
	for p in /sys/module/kvm_amd/parameters/npt /sys/module/kvm_intel/parameters/ept /sys/module/kvm_*/parameters/nested; do
		[ ! -e $p ] || echo -n "${p##*/}=$(cat $p) "
	done
}
# A sign of life of L0 itself, whatever a test is silent about.
[ $VERDICT = /dev/console ] || while sleep 20; do verdict ALIVE; done &
verdict "BOOT $(uname -r) $(cut -d. -f1 /proc/uptime) $(paging)"
while read -r word rest; do
	case $word in
	SLOW) SLOW=$rest; export KPOP_SLOW=$rest ;;
	TEST) run_test $rest 3<&- ;;
	SHELL)
		l1_start && echo "L1 runs: l1 CMD runs a command in it; l1 'l2_start && l2 CMD' goes one deeper."
		ENV=/kpop/lib.sh setsid -c sh -i </dev/console >/dev/console 2>&1
		;;
	esac
done <$RUN/job
vm_kill_all
verdict DONE
