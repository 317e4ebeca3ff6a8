// SPDX-License-Identifier: GPL-2.0
/*
 * kpop_base: KPOP's plain behaviour.
 *
 * What it does: whatever L1 asks for.  An eager offer is recorded and what is
 * resident is installed, a lazy one is recorded.  There is no fault hook: what
 * L0 cannot solve goes to L1, and no time is spent on asking.
 *
 * What it demonstrates: the two required hooks with one kfunc each, and the
 * others as places to count; for fault see kpop_lazy.  Start your own policy
 * from this file.
 *
 * When it is bad: it never looks ahead.  Where L2 touches memory in order, a
 * policy that asks L1 for larger offers saves most of the exits.
 */
#include "vmlinux.h"
#include "kpop.bpf.h"

char LICENSE[] SEC("license") = "GPL";

enum base_counter {
	BASE_INIT,
	BASE_EXIT,
	BASE_LOAD,
	BASE_UNLOAD,
	BASE_MAP_PAGES,
	BASE_MAP_FAILED,
	BASE_UNMAP,
	BASE_ZAP,
	BASE_NR_COUNTERS,
};

KPOP_COUNTERS(base_counters, base_counter, BASE_NR_COUNTERS)

SEC("struct_ops.s/init")
int BPF_PROG(base_init, struct kpop_init_ctx *kctx)
{
	count(BASE_INIT, 1);
	return 0;
}

SEC("struct_ops.s/exit")
void BPF_PROG(base_exit, struct kpop_init_ctx *kctx)
{
	count(BASE_EXIT, 1);
}

SEC("struct_ops.s/load")
int BPF_PROG(base_load, struct kpop_load_ctx *kctx)
{
	count(BASE_LOAD, 1);
	return bpf_kpop_load(kctx);
}

SEC("struct_ops.s/unload")
void BPF_PROG(base_unload, struct kpop_unload_ctx *kctx)
{
	count(BASE_UNLOAD, 1);
}

SEC("struct_ops.s/map")
int BPF_PROG(base_map, struct kpop_map_ctx *kctx)
{
	int r = kpop_map_all(kctx, kctx->lazy ? KPOP_HOW_LAZY : KPOP_HOW_EAGER);

	/* How often, and for how long, is counted by KPOP itself. */
	if (r)
		count(BASE_MAP_FAILED, 1);
	else
		count(BASE_MAP_PAGES, kctx->npages);
	return r;
}

SEC("struct_ops.s/unmap")
void BPF_PROG(base_unmap, struct kpop_unmap_ctx *kctx)
{
	count(BASE_UNMAP, 1);
}

SEC("struct_ops.s/zap")
void BPF_PROG(base_zap, struct kpop_unmap_ctx *kctx)
{
	count(BASE_ZAP, 1);
}

SEC(".struct_ops.link")
struct kpop_ops kpop_base = {
	.vm_fd	= -1,
	.load	= (void *)base_load,
	.unload	= (void *)base_unload,
	.map	= (void *)base_map,
	.unmap	= (void *)base_unmap,
	.zap	= (void *)base_zap,
	.init	= (void *)base_init,
	.exit	= (void *)base_exit,
	.name	= "kpop_base",
};
