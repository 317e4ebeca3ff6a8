# kpop-only with a Linux L1, its VMM one that calls KVM_RUN again when an entry is refused: without a policy nothing
# runs, on KPOP or not; with one L2 runs; when that goes L2 waits, and it goes on with the next one, its memory right, and
# right in a copy that its dirty log makes; so it does while the cap has no room. At the end, without kpop-only, the same cap.
. /kpop/lib.sh
MEM=1024 SMP=2 l1_start || fail "no L1"
p=$(l1_pid)
try() { T=$((120 + ${1#seconds=})) l1 "/kpop/kvm/kpop_retry_test $*"; }

out=$(kpopctl set --name l1 --kpop-only on 2>&1) || fail "$out"
out=$(try seconds=2 never=1) || fail "no policy: $out"
echo "$out" | grep -q 'on KPOP: 1' || fail "an L2 that is created without a policy does not wait for one: $out"
echo "ok - no policy: $(echo "$out" | grep reason)"

# An L2 on KPOP whose policy goes: try's arguments; in the background, its pid in $l2.
lose_policy() {
	local maps=$(kvm_stat $p kpop_maps) i=0
	attach
	try "$@" >$RUN/retry 2>&1 &
	l2=$!
	until [ $(kvm_stat $p kpop_maps) -gt $((maps + 500)) ]; do
		usleep 200000
		i=$((i + 1))
		[ $i -lt 300 ] || fail "L2 does not run on KPOP: $(cat $RUN/retry)"
	done
	detach
}

# Once for itself, once with L1's VMM making a copy of L2's memory by the dirty log, once by dirty rings.
for log in 0 1 2; do
	lose_policy seconds=12 log=$log
	usleep 1500000
	[ "$(kvm_stat $p kpop_spaces)" = 0 ] || fail "L0 has spaces without a policy"
	attach l1 kpop_lazy
	wait $l2 || fail "log=$log: L2 over a time without a policy: $(cat $RUN/retry)"
	grep -q 'on KPOP: 1' $RUN/retry || fail "log=$log: L2 is not on KPOP: $(cat $RUN/retry)"
	grep '^ok' $RUN/retry
	detach
done

# A cap that no LOAD fits in, and one that leaves nothing for a MAP: L2 waits, and goes on when there is room.
for cap in 4096 18000; do
	out=$(kpopctl set --name l1 --cap $cap 2>&1) || fail "$out"
	attach
	try seconds=12 >$RUN/retry 2>&1 &
	l2=$!
	# Until both vCPUs wait, the second time for a MAP.
	i=0
	until grep -q '# vCPU 0 waits' $RUN/retry && grep -q '# vCPU 1 waits' $RUN/retry &&
		{ [ $cap = 4096 ] || grep -q 'waits for memory' $RUN/retry; }; do
		sleep 1
		i=$((i + 1))
		[ $i -lt 100 ] || fail "cap $cap: L2 does not wait: $(cat $RUN/retry)"
	done
	sleep 2
	out=$(kpopctl set --name l1 --cap 0 2>&1) || fail "$out"
	wait $l2 || fail "cap $cap, kpop-only on: L2: $(cat $RUN/retry)"
	grep -q 'on KPOP: 1' $RUN/retry || fail "cap $cap: L2 is not on KPOP: $(cat $RUN/retry)"
	[ $cap = 4096 ] || grep -q 'ENOMEM: [1-9]' $RUN/retry || fail "cap $cap: no MAP was refused: $(cat $RUN/retry)"
	echo "ok - cap $cap, kpop-only on: $(grep -e reason -e ENOMEM $RUN/retry | tr '\n' ' ')"
	detach
done

# An L1 that uses its own page tables, whatever L0 offers.
attach
refused=$(kvm_stat $p kpop_refused)
l1 "kvm_reload kpop_guest=0" || fail "kvm_reload in L1"
refused=$(kvm_stat $p kpop_refused)
out=$(try seconds=2 never=1) || fail "legacy paging: $out"
echo "$out" | grep -q 'on KPOP: 0' || fail "this one was to be on legacy paging: $out"
[ $(kvm_stat $p kpop_refused) -gt $refused ] || fail "L0 refused nothing"
echo "ok - legacy paging, kpop-only on: $(echo "$out" | grep reason)"
[ "$(kvm_stat $p mmu_cache_miss)" = 0 ] || fail "L0 made $(kvm_stat $p mmu_cache_miss) shadow pages"
out=$(kpopctl set --name l1 --kpop-only off 2>&1) || fail "$out"
out=$(try seconds=2 waits=0) || fail "legacy paging, kpop-only off: $out"
[ "$(kvm_stat $p mmu_cache_miss)" != 0 ] || fail "that was no legacy paging"
echo "ok - legacy paging, kpop-only off: runs"

# Without kpop-only the same L2 falls back when its policy goes; the copy is right.
l1 kvm_reload || fail "kvm_reload in L1"
detach
for log in 1 2; do
	lose_policy seconds=6 waits=0 fallbacks=1 log=$log
	wait $l2 || fail "log=$log, kpop-only off: L2 over the loss of its policy: $(cat $RUN/retry)"
	grep '^ok' $RUN/retry
done
attach

# A cap that not even a LOAD fits in: L1 falls back, and L2 does not notice.
out=$(kpopctl set --name l1 --cap 4096 2>&1) || fail "$out"
out=$(try seconds=2 waits=0 fallbacks=1) || fail "a cap of 4096 bytes: $out"
echo "$out" | grep -q 'on KPOP: 0' || fail "on KPOP with a cap of 4096 bytes: $out"
echo "ok - a cap of 4096 bytes: $(echo "$out" | grep fallbacks)"
l1_stop || fail "L1 did not power off"
