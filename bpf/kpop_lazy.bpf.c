// SPDX-License-Identifier: GPL-2.0
/*
 * kpop_lazy: record everything, install nothing.
 *
 * What it does: every offer of L1 is taken lazily, also an eager one.  The
 * page is mapped when L2 touches it, by L0 alone: L1 sees no second fault.
 * Each answer asks L1 for larger offers next time.
 *
 * What it demonstrates: a policy that delays, and the hint to L1.  Attach it
 * after kpop_base and watch faults_direct in `kpopctl status` rise.
 *
 * When it is bad: L2 faults once more for each page (or huge page) that it
 * touches, also for the one whose fault made L1 offer it.  It is good where
 * L1 offers much that L2 never touches.
 */
#include "vmlinux.h"
#include "kpop.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* Pages that L1 is asked to offer next time; at most 65535, 0: no hint. */
const volatile __u32 lazy_window = 64;

enum lazy_counter {
	LAZY_LOAD,
	LAZY_MAP,
	LAZY_MAP_PAGES,
	LAZY_MAP_FAILED,
	LAZY_WAS_EAGER,		/* offers that L1 wanted installed */
	LAZY_UNMAP_PAGES,	/* of UNMAP and zap */
	LAZY_FAULT,		/* that no translation solved */
	LAZY_NR_COUNTERS,
};

KPOP_COUNTERS(lazy_counters, lazy_counter, LAZY_NR_COUNTERS)

SEC("struct_ops.s/load")
int BPF_PROG(lazy_load, struct kpop_load_ctx *kctx)
{
	count(LAZY_LOAD, 1);
	return bpf_kpop_load(kctx);
}

SEC("struct_ops.s/map")
int BPF_PROG(lazy_map, struct kpop_map_ctx *kctx)
{
	int r = kpop_map_all(kctx, KPOP_HOW_LAZY);

	count(LAZY_MAP, 1);
	if (!kctx->lazy)
		count(LAZY_WAS_EAGER, 1);
	if (r) {
		count(LAZY_MAP_FAILED, 1);
		return r;
	}

	count(LAZY_MAP_PAGES, kctx->npages);
	bpf_kpop_window(kctx, lazy_window);
	return 0;
}

SEC("struct_ops.s/unmap")
void BPF_PROG(lazy_unmap, struct kpop_unmap_ctx *kctx)
{
	count(LAZY_UNMAP_PAGES, kctx->npages);
}

SEC("struct_ops.s/zap")
void BPF_PROG(lazy_zap, struct kpop_unmap_ctx *kctx)
{
	count(LAZY_UNMAP_PAGES, kctx->npages);
}

SEC("struct_ops.s/fault")
int BPF_PROG(lazy_fault, struct kpop_fault_ctx *kctx)
{
	count(LAZY_FAULT, 1);
	return KPOP_FAULT_REFLECT;
}

SEC(".struct_ops.link")
struct kpop_ops kpop_lazy = {
	.vm_fd	= -1,
	.load	= (void *)lazy_load,
	.map	= (void *)lazy_map,
	.unmap	= (void *)lazy_unmap,
	.zap	= (void *)lazy_zap,
	.fault	= (void *)lazy_fault,
	.name	= "kpop_lazy",
};
