# watch.sh: the end of an L0, for boot.sh and bochs.sh; sourced, used in the directory of the boot's output.
#
# watch_l0 PID LIMIT STUCK FILE...: wait until PID has ended, LIMIT seconds are over, or no FILE has changed for STUCK seconds.
# Verdicts go to the function $ON_VERDICT as they come; "status" has one word afterwards:
#   done, died (QEMU ended by itself), timeout,
#   stuck    no sign of life for STUCK seconds, but L0's kernel answers an NMI
#   hung     and L0's kernel does not: the emulated machine itself has stopped
watch_l0() {
	local pid=$1 limit=$2 stuck=$3 start=$SECONDS life=$SECONDS seen= now status=
	shift 3
	shown=0
	while [ -z "$status" ]; do
		if ! kill -0 "$pid" 2>/dev/null; then
			status=died
			grep -q '^DONE' verdict && status=done
			break
		fi
		now=$(stat -c %s:%Y "$@" | tr '\n' ' ')
		[ "$now" = "$seen" ] || { seen=$now; life=$SECONDS; }
		show_verdicts
		[ $((SECONDS - start)) -lt "$limit" ] || status=timeout
		[ $((SECONDS - life)) -lt "$stuck" ] || status=stuck
		sleep 0.5
	done
	show_verdicts
	case $status in
	stuck | timeout) where_l0 >where.log 2>&1 && [ $status = stuck ] && status=hung ;;
	esac
	echo "$status" >status
}

# What an L0 that is given up is at, before it is killed: its CPUs and interrupts twice, then an NMI, which makes its kernel
# panic with the call trace of what it runs (unknown_nmi_panic; boot.sh). Status 0: there was a monitor (Bochs has none) and
# the kernel did not answer.
where_l0() {
	local ask="timeout 20 $REPO/build/guest/vagent ask monitor.sock" size i
	[ -S monitor.sock ] || return 1
	for i in 1 2; do
		echo "state $i:"
		$ask "info registers -a" | grep -E '^CPU#|^R|^CR|^EFER' || true
		$ask "info lapic" | grep -E 'LVTT|ISR|IRR|Timer' || true
		sleep 3
	done
	size=$(stat -c %s l0.log)
	$ask nmi || true
	for ((i = 0; i < 20; i++)); do
		[ "$(stat -c %s l0.log)" = "$size" ] || { sleep 5; return 1; }
		sleep 1
	done
}

show_verdicts() {
	local lines
	[ -n "${ON_VERDICT:-}" ] || return 0
	mapfile -t lines < <(tr -d '\r' <verdict)
	while [ "$shown" -lt ${#lines[@]} ]; do
		"$ON_VERDICT" "${lines[$shown]}"
		shown=$((shown + 1))
	done
}

# end_l0 WHAT: exit 0 if it came to its end; else say which level stopped, the deepest one that had begun to talk, and where to read on.
end_l0() {
	local deepest=0 n test status
	status=$(cat status)
	[ "$status" != done ] || exit 0
	for n in 1 2; do [ ! -s l$n.log ] || grep -qv '^kpop-mark' l$n.log && deepest=$n; done
	test=$(sed -n 's/^START //p' verdict | tail -1)
	note "$1: $status after $SECONDS s; during test: ${test:-none}; deepest level that ran: L$deepest, log: $PWD/l$deepest.log"
	exit 1
}
