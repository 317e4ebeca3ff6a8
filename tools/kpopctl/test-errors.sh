#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Every kind of failure that needs no VM: its exit status, that it is one
# line, and that -j answers with valid JSON of that kind.
#
# usage: test-errors.sh [KPOPCTL]

ctl=${1:-kpopctl}
here=$(dirname "$0")
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
bad=0
run=0
skipped=0

chmod 755 "$tmp"
cp "$ctl" "$tmp/kpopctl" || exit 1
ctl=$tmp/kpopctl

failed()
{
	echo "FAILED: $1"
	bad=1
}

# expect NAME STATUS KIND TEXT COMMAND...
expect()
{
	name=$1 status=$2 kind=$3 text=$4
	shift 4
	run=$((run + 1))
	echo "check: $name"

	"$@" >"$tmp/out" 2>"$tmp/err"
	got=$?
	[ $got -eq "$status" ] || failed "$name: exit status $got, not $status: $(cat "$tmp/err")"
	[ "$(wc -l <"$tmp/err")" -eq 1 ] || failed "$name: not one line: $(cat "$tmp/err")"
	[ -s "$tmp/out" ] && failed "$name: something on stdout"
	grep -q -- "^kpopctl: cannot .*$text.*; " "$tmp/err" ||
		failed "$name: no '$text' or no next step: $(cat "$tmp/err")"

	"$@" -j >"$tmp/out" 2>"$tmp/err"
	got=$?
	[ $got -eq "$status" ] || failed "$name -j: exit status $got, not $status"
	[ -s "$tmp/err" ] && failed "$name -j: something on stderr"
	jq -e ".error.kind == \"$kind\" and .error.status == $status and
	       (.error.message | length > 0) and (.error.next | length > 0)" \
		<"$tmp/out" >/dev/null || failed "$name -j: $(cat "$tmp/out")"
}

# Compile stdin to a BPF object.
bpf()
{
	${CLANG:-clang} -O2 -g -target bpf -c -x c - -o "$tmp/$1"
}

bpf map.bpf.o <<END || exit 1
struct { int (*type)[2]; int (*max_entries)[1]; int *key; int *value; } m
	__attribute__((section(".maps")));
char _license[] __attribute__((section("license"))) = "GPL";
END

bpf other.bpf.o <<END || exit 1
struct tcp_congestion_ops { char name[16]; };
struct tcp_congestion_ops o __attribute__((section(".struct_ops.link"))) = { .name = "x" };
char _license[] __attribute__((section("license"))) = "GPL";
END

ops='struct kpop_ops { int vm_fd; int (*load)(void *); int (*map)(void *); char name[16]; };'

bpf nolink.bpf.o <<END || exit 1
$ops
struct kpop_ops p __attribute__((section(".struct_ops"))) = { .name = "nolink" };
char _license[] __attribute__((section("license"))) = "GPL";
END

bpf two.bpf.o <<END || exit 1
$ops
struct kpop_ops p __attribute__((section(".struct_ops.link"))) = { .name = "one" };
struct kpop_ops q __attribute__((section(".struct_ops.link"))) = { .name = "two" };
char _license[] __attribute__((section("license"))) = "GPL";
END

bpf policy.bpf.o <<END || exit 1
$ops
const volatile unsigned char fast = 1;
struct kpop_ops p __attribute__((section(".struct_ops.link"))) = { .name = "policy" };
char _license[] __attribute__((section("license"))) = "GPL";
END
echo "no BPF object" >"$tmp/text.o"
chmod 644 "$tmp"/*.o

expect "no command" 2 usage "no command given" "$ctl"
expect "unknown command" 2 usage "no such command" "$ctl" atach
expect "unknown option" 2 usage "'--foo'" "$ctl" list --foo
expect "unknown short option" 2 usage "'-x'" "$ctl" list -x
expect "option of another command" 2 usage "'--cap'" "$ctl" list --cap
expect "option without value" 2 usage "value is missing" "$ctl" status --pid
expect "bad number" 2 usage "not a valid PID" "$ctl" status --pid 12x
expect "bad choice" 2 usage "not a valid on|off" "$ctl" set --pid 1 --kpop-only maybe
expect "cap out of range" 2 usage "not a valid BYTES" "$ctl" set --pid 1 --cap 9999999999G
expect "no object named" 2 usage "OBJ is missing" "$ctl" attach
expect "one argument too many" 2 usage "too many" "$ctl" status x
expect "no VM named" 2 usage "which VM" "$ctl" status
expect "VM named twice" 2 usage "which VM" "$ctl" status --pid 1 --vm-id 1
expect "nothing to set" 2 usage "nothing to set" "$ctl" set --pid 1
expect "detach one and all" 2 usage "at once" "$ctl" detach --defunct --pid 1
expect "help of no command" 2 usage "no such command" "$ctl" help atach
expect "no such object" 2 usage "No such file" "$ctl" attach "$tmp/none.o" --pid 1

expect "knob without number" 2 usage "not NAME=NUMBER" "$ctl" attach "$tmp/policy.bpf.o" --pid 1 --knob fast
expect "no such knob" 2 usage "no such knob" "$ctl" attach "$tmp/policy.bpf.o" --pid 1 --knob slow=1
expect "knob too large" 2 usage "fits" "$ctl" swap "$tmp/policy.bpf.o" --pid 1 --knob fast=256
expect "knob not unsigned" 2 usage "fits" "$ctl" swap "$tmp/policy.bpf.o" --pid 1 --knob fast=-1

expect "no BPF object" 5 refused "as a policy" "$ctl" attach "$tmp/text.o" --pid 1
expect "object without struct_ops" 5 refused "no struct kpop_ops" "$ctl" attach "$tmp/map.bpf.o" --pid 1
expect "struct_ops of another kind" 5 refused "no struct kpop_ops" "$ctl" swap "$tmp/other.bpf.o" --pid 1
expect "policy without link" 5 refused "without a link" "$ctl" attach "$tmp/nolink.bpf.o" --pid 1
expect "two policies" 5 refused "more than one" "$ctl" attach "$tmp/two.bpf.o" --pid 1

# A process that is gone, and its number not taken again so soon.
sh -c : & gone=$!
wait $gone
expect "no such process, attach" 3 no-vm "no such process" "$ctl" attach "$tmp/policy.bpf.o" --pid $gone
expect "no such process, status" 3 no-vm "no such process" "$ctl" status --pid $gone
expect "no such process, detach" 3 no-vm "no such process" "$ctl" detach --pid $gone
expect "no such name" 3 no-vm "no process runs with that -name" "$ctl" status --name "kpop test $$"

# The child is dead and nobody has asked how it died.
sh -c 'sleep 0.1 & exec sleep 60' & parent=$!
sleep 0.5
zombie=$(ps -o pid= --ppid $parent | tr -d ' ')
expect "dead process" 4 defunct "is dead" "$ctl" status --pid "${zombie:-1}"
kill $parent

if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
	nobody="setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all"
	chmod 600 "$tmp/map.bpf.o"
	expect "no rights, status" 6 rights "look into process" $nobody "$ctl" status --pid 1
	expect "no rights, attach" 6 rights "look into process" $nobody "$ctl" attach "$tmp/policy.bpf.o" --pid 1
	expect "no rights, object" 6 rights "Permission denied" $nobody "$ctl" attach "$tmp/map.bpf.o" --pid 1
else
	echo "SKIPPED: no rights: needs root and setpriv"
	skipped=$((skipped + 1))
fi

if [ ! -e /dev/kvm ]; then
	expect "no /dev/kvm, list" 7 no-kpop "/dev/kvm" "$ctl" list
	expect "no /dev/kvm, status" 7 no-kpop "/dev/kvm" "$ctl" status --pid $$
	expect "no /dev/kvm, attach" 7 no-kpop "/dev/kvm" "$ctl" attach "$tmp/policy.bpf.o" --vm-id 1
	expect "no /dev/kvm, detach" 7 no-kpop "/dev/kvm" "$ctl" detach --defunct
else
	expect "process without a VM" 3 no-vm "it has none" "$ctl" status --pid $$
	echo "SKIPPED: no /dev/kvm: it is there"
	skipped=$((skipped + 1))
fi

echo "$run checks, $skipped groups skipped, $([ $bad -eq 0 ] && echo passed || echo FAILED)"
exit $bad
