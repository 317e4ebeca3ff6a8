# BPF programs that KPOP must refuse, each with the reason that the verifier or the kernel gives.
. /kpop/lib.sh
refused() { # OBJECT REASON
	out=$(load_refused /kpop/bpf/refused/$1.bpf.o "$2" 2>&1) || fail "$1: $out"
	echo "ok - $1: $out"
}
refused bad_wrong_hook
refused bad_tcp_cc
refused bad_timer
refused bad_no_map
refused bad_write_ctx
# The other way round: the tool must tell an object that is fine from one that is refused.
for p in kpop_base kpop_lazy kpop_chaos; do
	load_refused /kpop/bpf/$p.bpf.o >/dev/null 2>&1
	[ $? = 1 ] || fail "$p is not accepted"
	echo "ok - $p is accepted"
done
