# upstream_debug.sh NAME...: KVM selftests (selftests/upstream) in L1 on KPOP, where L0 or L1 has the debug kernel: what is asked
# here is whether its log stays clean, which the rig sees to.
. /kpop/lib.sh
MEM=3072 l1_start || fail "no L1"
debug='zcat /proc/config.gz | grep -q ^CONFIG_PROVE_LOCKING=y'
eval "$debug" || l1 "$debug" || fail "neither L0 nor L1 has the debug kernel"
attach
for name in "$@"; do
	maps=$(kvm_stat $(l1_pid) kpop_maps)
	T=600 l1 "sh /kpop/upstream/run.sh $name" >$RUN/up.log 2>&1
	send_file $RUN/up.log $name.log
	line=$(sed -n 's/^RESULT //p' $RUN/up.log | tail -1)
	maps=$(($(kvm_stat $(l1_pid) kpop_maps) - maps))
	set -- ${line:-hang 0 0 0}
	[ $1 = pass ] && [ $4 = 0 ] && [ $maps -gt 0 ] || fail "$name: $line, $maps MAPs"
	echo "ok - $name: $2 s, $maps MAPs"
	log_mark "upstream_debug $name: $2 s"
done
[ "$(kvm_stat $(l1_pid) mmu_cache_miss)" = 0 ] || fail "L0 made shadow pages"
l1_stop || fail "L1 did not power off"
