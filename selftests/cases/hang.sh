. /kpop/lib.sh
i=0
for d in /sys/kernel/tracing/events/kvmkpop /sys/kernel/tracing/events/kvm_kpop; do [ -e $d ] && echo 1 >$d/enable; done
echo 1 >/sys/kernel/tracing/events/kvm/kvm_exit/enable
echo 1 >/sys/kernel/tracing/events/kvm/kvm_nested_vmexit_inject/enable
while [ $i -lt ${2:-20} ]; do
	i=$((i + 1))
	: >/sys/kernel/tracing/trace
	/kpop/kvm/$1 >/run/out 2>&1 &
	p=$!
	j=0
	while [ -e /proc/$p/stat ] && [ $j -lt ${3:-60} ]; do sleep 1; j=$((j + 1)); done
	if [ -e /proc/$p/stat ]; then
		echo "HANG in run $i"
		cat /run/out
		for k in 1 2; do
		for t in /proc/[0-9]*/task/*; do
			case $(cat $t/comm) in kpop_*|vcpu*) echo "== $t $(cat $t/comm) $(cut -d' ' -f3,14,15 $t/stat)"; cat $t/stack;; esac
		done
		for f in /sys/kernel/debug/kvm/*-*/kpop_* /sys/kernel/debug/kvm/*-*/exits /sys/kernel/debug/kvm/*-*/nested_run; do echo "${f##*/} $(cat $f)"; done | tr '\n' ';'
		echo
		sleep 2
		done
		echo 0 >/sys/kernel/tracing/tracing_on
		tail -60 /sys/kernel/tracing/trace
		exit 1
	fi
	wait $p || { echo "run $i failed"; cat /run/out; tail -60 /sys/kernel/tracing/trace; exit 1; }
	echo "run $i: $j s"
done
