# bench.sh KIND WHERE, inside a counted L0 (see selftests/rig/bench.sh): first touch of 96 MiB, and what it cost.
#   KIND   nokvm, single, legacy or kpop
#   WHERE  fresh; l0: L1's memory is resident in L0; both: and L2's in L1
# The first touch is counted in cycles, with nothing else going on; a second one, of other pages, with the exits traced.
. /kpop/lib.sh
KIND=$1 WHERE=$2
MIB=${BENCH_MIB:-96}
PAGES=$((MIB * 256))
POLICY=${BENCH_POLICY:-/kpop/bpf/kpop_base.bpf.o}
TR=/sys/kernel/tracing/events/kvm
export SMP=1 CMDLINE="transparent_hugepage=never $BENCH_CMDLINE" T=100000 BOOT_SECONDS=100000
OUT=$KPOP_OUT/bench-$KIND-$WHERE.json

# A sign of life for the watchdog outside: a stopped L0 and a slow one look alike otherwise.
(while :; do echo BEAT >/dev/virtio-ports/kpop.verdict; sleep 5; done) &
beat=$!
trap 'kill $beat' EXIT

case $WHERE in l0 | both) L1_ARGS=-mem-prealloc ;; esac
case $WHERE in both) L2_ARGS=-mem-prealloc ;; esac
case $KIND in
nokvm) in_guest() { sh -c "$1"; } ;;
single) in_guest() { l1 "$1"; } ;;
*) in_guest() { l1 "T=100000 l2 '$1'"; } ;;
esac
stat() { [ $KIND = nokvm ] && echo 0 || kvm_stat $(l1_pid) $1; }

if [ $KIND != nokvm ]; then
	MEM=1024 l1_start $L1_ARGS || fail "no L1"
fi
if [ $KIND = kpop ]; then
	kpopctl attach $POLICY --name l1 || fail "no policy"
fi
case $KIND in
legacy | kpop)
	l1 "MEM=384 SMP=1 CMDLINE='$CMDLINE' BOOT_SECONDS=100000 l2_start $L2_ARGS" || fail "no L2"
	on=$(l1 "kvm_stat \$(vm_pid l2) kpop_guest_active")
	case $KIND-$on in kpop-0 | legacy-[1-9]*) fail "kpop_guest_active is $on" ;; esac
	;;
esac

NAMES="exits kpop_faults_direct kpop_faults_reflected kpop_maps mmu_cache_miss pf_taken nested_run tlb_flush"

for n in $NAMES; do eval "a_$n=$(stat $n)"; done
first=$(in_guest "firsttouch $MIB 1 100000") || fail "touch: $first"
for n in $NAMES; do eval "b_$n=$(stat $n)"; done
cycles=$(echo "$first" | sed -n 's/.*cycles \([0-9]*\).*/\1/p')

if [ $KIND != nokvm ]; then
	echo 'hist:keys=exit_reason' >$TR/kvm_exit/trigger
	in_guest "firsttouch $MIB" || fail "second touch"
	cat $TR/kvm_exit/hist >$RUN/hist
	echo '!hist:keys=exit_reason' >$TR/kvm_exit/trigger
fi
{
	echo "{\"kind\": \"$KIND\", \"where\": \"$WHERE\", \"pages\": $PAGES, \"cycles\": $cycles, \"policy\": \"$POLICY\","
	echo " \"counters\": {"
	sep=
	for n in $NAMES; do
		eval "echo \"$sep \\\"$n\\\": \$((b_$n - a_$n))\""
		sep=,
	done
	echo " }, \"reasons\": {"
	[ ! -e $RUN/hist ] || sed -n 's/^{ exit_reason: *\([0-9]*\) } hitcount: *\([0-9]*\)/"\1": \2/p' $RUN/hist | sed '$!s/$/,/'
	echo "}}"
} >$OUT
echo "$KIND $WHERE: $((cycles / PAGES)) cycles a page, $((b_exits - a_exits)) exits for $PAGES pages"
# Powering three levels off is not what is measured.
vm_kill_all
