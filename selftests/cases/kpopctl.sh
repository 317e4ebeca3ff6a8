# kpopctl and its refusals: the exit status by kind, one line on stderr, valid JSON with -j.
. /kpop/lib.sh
expect() { # STATUS KIND COMMAND...
	local want=$1 kind=$2 st
	shift 2
	"$@" >$RUN/o 2>$RUN/e
	st=$?
	[ $st = $want ] || fail "$*: exit status $st, not $want: $(cat $RUN/e)"
	[ "$(wc -l <$RUN/e)" = 1 ] || fail "$*: not one line: $(cat $RUN/e)"
	shift
	kpopctl -j "$@" >$RUN/o 2>/dev/null
	grep -q '"error"' $RUN/o || fail "kpopctl -j $*: no error object: $(cat $RUN/o)"
	grep -q "\"kind\": *\"$kind\"" $RUN/o || fail "kpopctl -j $*: not of kind $kind: $(cat $RUN/o)"
	echo "ok - $*: $kind: $(cat $RUN/e)"
}
kpopctl list || fail list
expect 3 no-vm kpopctl status --name nobody
expect 3 no-vm kpopctl attach --vm-id 4711 /kpop/bpf/kpop_base.bpf.o
expect 2 usage kpopctl attach --name l1
sleeper
expect 5 refused kpopctl attach --name sleeper /kpop/bpf/refused/bad_wrong_hook.bpf.o
expect 5 refused kpopctl attach --name sleeper /boot/bzImage
out=$(kpopctl attach --name sleeper /kpop/bpf/kpop_base.bpf.o 2>&1) || fail "$out"
echo "ok - $out"
only() { # on|off true|false WHEN
	kpopctl status --name sleeper | grep -q "; kpop-only $1\$" || fail "status does not say kpop-only $1, $3"
	kpopctl -j status --name sleeper | grep -q "\"kpop_only\": *$2" || fail "status -j does not say kpop_only $2, $3"
}
only off false "at first"
out=$(kpopctl set --name sleeper --kpop-only on 2>&1) || fail "$out"
only on true "when it was set"
expect 8 conflict kpopctl attach --name sleeper /kpop/bpf/kpop_base.bpf.o
expect 8 conflict kpopctl swap --name sleeper --expect-map 1 /kpop/bpf/kpop_lazy.bpf.o
kpopctl status --name sleeper | grep -q 'policy kpop_base' || fail "a refused swap did not leave the old policy running"
out=$(kpopctl swap --name sleeper /kpop/bpf/kpop_lazy.bpf.o 2>&1) || fail "$out"
echo "ok - $out"
bpftool struct_ops list | grep -q kpop_lazy || fail "bpftool struct_ops list does not show it"
bpftool -j struct_ops dump >$RUN/dump || fail "bpftool struct_ops dump"
grep -q kpop_lazy $RUN/dump || fail "bpftool struct_ops dump does not show it"
id=$(bpftool link show | sed -n 's/^\([0-9]*\): struct_ops.*/\1/p' | head -1)
# Another way out: the link goes, and the controller sees it.
bpftool link detach id $id || fail "bpftool link detach"
i=0
until kpopctl status --name sleeper | grep -q ' none'; do
	usleep 100000
	i=$((i + 1))
	[ $i -lt $((100 * SLOW)) ] || fail "still attached after bpftool link detach: $(kpopctl status --name sleeper)"
done
echo "ok - bpftool link detach is a way out"
out=$(kpopctl attach --name sleeper /kpop/bpf/kpop_base.bpf.o 2>&1) || fail "$out"
only on true "after a swap, a detach and an attach"
out=$(kpopctl set --name sleeper --kpop-only off 2>&1) || fail "$out"
only off false "when it was taken back"
echo "ok - kpop-only is set, shown, and stays over policies"
kill -9 $q
wait $q 2>/dev/null
expect 3 no-vm kpopctl status --name sleeper
kpopctl list
kpopctl detach --defunct || fail "detach --defunct"
[ -z "$(ls /sys/fs/bpf/kpop 2>/dev/null)" ] || fail "something stays pinned: $(ls -R /sys/fs/bpf/kpop)"
echo "ok - what the dead VM left is cleaned"
