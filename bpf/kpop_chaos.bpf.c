// SPDX-License-Identifier: GPL-2.0
/*
 * kpop_chaos: a policy that goes wrong on request.
 *
 * What it does: as kpop_base, until a knob is turned in the array
 * "kpop_chaos_knobs" (u64, indexed by enum chaos_knob), at any time:
 *
 *	bpftool map update name kpop_chaos_knobs key KNOB 0 0 0 value ...
 *
 * What it demonstrates: the safety net.  Each knob names the ejection that it
 * leads to; `kpopctl status` shows the record, and the VM goes on without KPOP.
 *
 * When it is bad: always.
 */
#include "vmlinux.h"
#include "kpop.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/*
 * A hook is given as 1 + its enum kpop_hook; 0 is none.
 *
 * The first four say what map() and load() do; the first one set decides.
 */
enum chaos_knob {
	CHAOS_DENY,		/* map: -EPERM; a decision, never ejected */
	CHAOS_DELAY,		/* map: -EAGAIN; PROGRESS or ERRORS */
	CHAOS_NO_MAP,		/* map: 0 without bpf_kpop_map(); PROGRESS */
	CHAOS_BAD_RANGE,	/* map: a page too many; VALUE */
	CHAOS_NO_LOAD,		/* load: 0 without bpf_kpop_load(); PROGRESS */
	CHAOS_RETRY,		/* fault: RETRY for ever; PROGRESS */
	CHAOS_VALUE_HOOK,	/* this hook (init, load, map, fault) ... */
	CHAOS_VALUE,		/* ... returns this s32; VALUE, for init INIT */
	CHAOS_SPIN_HOOK,	/* this hook, any, ... */
	CHAOS_SPIN,		/* ... spins 2^20 times as often; STALL */
	CHAOS_INIT,		/* init: minus this; INIT */
	CHAOS_RIGHTS,		/* map: these, whatever L1 offers; VALUE if more, or not R */
	CHAOS_NR_KNOBS,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CHAOS_NR_KNOBS);
	__type(key, __u32);
	__type(value, __u64);
} kpop_chaos_knobs SEC(".maps");

/* CHAOS_INIT before there is a map to write to. */
const volatile __s32 chaos_init = 0;

enum chaos_counter {
	CHAOS_CALLS,
	CHAOS_SPINS,
	CHAOS_HITS,		/* a knob decided */
	CHAOS_NR_COUNTERS,
};

KPOP_COUNTERS(chaos_counters, chaos_counter, CHAOS_NR_COUNTERS)

static __noinline __u64 knob(enum chaos_knob which)
{
	__u32 key = which;
	__u64 *value = bpf_map_lookup_elem(&kpop_chaos_knobs, &key);
	__u64 v = value ? *value : 0;

	if (v)
		count(CHAOS_HITS, 1);
	return v;
}

static int spin_inner(__u32 i, void *unused)
{
	return 0;
}

static int spin_outer(__u32 i, void *unused)
{
	bpf_loop(1 << 20, spin_inner, NULL, 0);
	return 0;
}

/* Every hook begins here: true if it is to return *ret. */
static __always_inline bool chaos(enum kpop_hook hook, int *ret)
{
	count(CHAOS_CALLS, 1);

	if (knob(CHAOS_SPIN_HOOK) == hook + 1) {
		count(CHAOS_SPINS, 1);
		bpf_loop((__u32)knob(CHAOS_SPIN), spin_outer, NULL, 0);
	}
	if (knob(CHAOS_VALUE_HOOK) == hook + 1) {
		*ret = (__s32)knob(CHAOS_VALUE);
		return true;
	}
	return false;
}

SEC("struct_ops.s/init")
int BPF_PROG(chaos_do_init, struct kpop_init_ctx *kctx)
{
	int ret;

	if (chaos(KPOP_HOOK_INIT, &ret))
		return ret;
	return -(chaos_init ?: (__s32)knob(CHAOS_INIT));
}

SEC("struct_ops.s/exit")
void BPF_PROG(chaos_exit, struct kpop_init_ctx *kctx)
{
	int ret;

	chaos(KPOP_HOOK_EXIT, &ret);
}

SEC("struct_ops.s/load")
int BPF_PROG(chaos_load, struct kpop_load_ctx *kctx)
{
	int ret;

	if (chaos(KPOP_HOOK_LOAD, &ret))
		return ret;
	if (knob(CHAOS_NO_LOAD))
		return 0;
	return bpf_kpop_load(kctx);
}

SEC("struct_ops.s/unload")
void BPF_PROG(chaos_unload, struct kpop_unload_ctx *kctx)
{
	int ret;

	chaos(KPOP_HOOK_UNLOAD, &ret);
}

SEC("struct_ops.s/map")
int BPF_PROG(chaos_map, struct kpop_map_ctx *kctx)
{
	__u32 rights;
	int ret;

	if (chaos(KPOP_HOOK_MAP, &ret))
		return ret;
	if (knob(CHAOS_DENY))
		return -EPERM;
	if (knob(CHAOS_DELAY))
		return -EAGAIN;
	if (knob(CHAOS_NO_MAP))
		return 0;
	if (knob(CHAOS_BAD_RANGE))
		return bpf_kpop_map(kctx, 0, kctx->npages + 1, kctx->rights,
				    KPOP_HOW_LAZY);
	rights = knob(CHAOS_RIGHTS);
	if (rights)
		return bpf_kpop_map(kctx, 0, kctx->npages, rights, KPOP_HOW_LAZY);
	return kpop_map_all(kctx, kctx->lazy ? KPOP_HOW_LAZY : KPOP_HOW_EAGER);
}

SEC("struct_ops.s/unmap")
void BPF_PROG(chaos_unmap, struct kpop_unmap_ctx *kctx)
{
	int ret;

	chaos(KPOP_HOOK_UNMAP, &ret);
}

SEC("struct_ops.s/zap")
void BPF_PROG(chaos_zap, struct kpop_unmap_ctx *kctx)
{
	int ret;

	chaos(KPOP_HOOK_ZAP, &ret);
}

SEC("struct_ops.s/fault")
int BPF_PROG(chaos_fault, struct kpop_fault_ctx *kctx)
{
	int ret;

	if (chaos(KPOP_HOOK_FAULT, &ret))
		return ret;
	return knob(CHAOS_RETRY) ? KPOP_FAULT_RETRY : KPOP_FAULT_REFLECT;
}

SEC(".struct_ops.link")
struct kpop_ops kpop_chaos = {
	.vm_fd	= -1,
	.load	= (void *)chaos_load,
	.unload	= (void *)chaos_unload,
	.map	= (void *)chaos_map,
	.unmap	= (void *)chaos_unmap,
	.zap	= (void *)chaos_zap,
	.fault	= (void *)chaos_fault,
	.init	= (void *)chaos_do_init,
	.exit	= (void *)chaos_exit,
	.name	= "kpop_chaos",
};
