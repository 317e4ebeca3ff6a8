# tcg.sh: what QEMU's TCG, as the machine of an AMD L0, needs; sourced. Nothing of it applies to ACCEL=kvm or to Bochs.
#
# tcg_settings GROUP: set L0_SMP, L0_ACCEL and L0_CMDLINE for boot.sh, unless the caller has; GROUP as in tests.list.
#
# Where each CPU of L0 has a thread of its own, TCG (7.2 and 10.0) now and then, after some 10^6 #VMEXITs, comes back to L0
# with the CPU's flag for nested paging (HF2_NPT in hflags2) still set, although do_vmexit() has cleared it. L0's first access
# of memory is then an NPF of a guest that is not there, and L0's own RIP and CR3 are saved as the guest's: the vCPU of L1 ends
# with a SHUTDOWN, or L0 crashes. With one CPU, or with one thread that runs them in turn, that was never seen. So raw tests
# have CPUs that take turns, of up to 100 ms; L0_ACCEL=tcg,thread=multi runs them in parallel.
#
# VMRUN also changes the CPU's set of pending requests without the lock under which QEMU's other threads add to it, so that an
# interrupt may stay in L0's local APIC until the next one comes. If it was the one-shot timer, none comes: L0's clock stands
# still, and an L1 that spins is never preempted. A periodic timer comes again.
#
# L0 measures its TSC, which is this machine's, by an emulated timer. On a busy machine it has found a ninth of the rate: its
# clock then runs nine times as fast, and time limits are over early. It is told.
#
# In turns is wrong where L1 takes interrupts: helper_vmrun() leaves an injected vector as the pending exception, and a CPU
# that is asked to stop before the guest's next exit, as it is at each turn, delivers it once more: with the wrong GS in L1.
# So a Linux L1 has one CPU of L0.
tcg_settings() {
	[ "${ACCEL:-tcg}" = tcg ] || return 0
	export L0_CMDLINE="nohz=off highres=off tsc_early_khz=$("$REPO/build/guest/tsckhz") ${L0_CMDLINE:-}"
	case $1 in
	l1* | l2 | boots | migrate | upstream*) export L0_SMP=${L0_SMP:-1} ;;
	race) ;; # KCSAN holds an access up to see whether another CPU makes it, too
	*) export L0_ACCEL=${L0_ACCEL:-tcg,thread=single} ;;
	esac
}
