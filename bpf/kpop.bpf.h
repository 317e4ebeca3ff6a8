/* SPDX-License-Identifier: GPL-2.0 */
#ifndef __KPOP_BPF_H
#define __KPOP_BPF_H

/*
 * What a KPOP policy needs beside vmlinux.h: the kfuncs, and constants that
 * are macros in the kernel.  Types and enums (struct kpop_ops, the contexts,
 * enum kpop_fault_ret, kpop_map_how, kpop_hook) are in vmlinux.h when it was
 * made from kvm.ko: bpftool -B vmlinux btf dump file kvm.ko format c
 *
 * The manual of the hooks is the comment on struct kpop_ops in
 * arch/x86/kvm/mmu/kpop_ops.h, that of the kfuncs in kpop_kfunc.c.
 */
#ifndef __bpf__
#error "for BPF programs only; user space wants asm/kvm_kpop.h"
#endif
#ifndef __VMLINUX_H__
#error "include vmlinux.h first"
#endif

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/*
 * Hooks are written with BPF_PROG(), whose own argument is called ctx; so what
 * KPOP hands in is kctx.
 */

/* Rights, in kctx->rights and kctx->access. */
#define KPOP_MAP_R	1U
#define KPOP_MAP_W	2U
#define KPOP_MAP_X	4U

/* What load() and map() may return beside 0; negate. */
#define EPERM		1
#define EAGAIN		11

/* load() only. */
extern int bpf_kpop_load(struct kpop_load_ctx *ctx) __ksym;

/* map() only. */
extern int bpf_kpop_map(struct kpop_map_ctx *ctx, __u64 offset, __u64 npages,
			__u32 rights, __u32 how) __ksym;
extern int bpf_kpop_window(struct kpop_map_ctx *ctx, __u32 pages) __ksym;

/* All that L1 offers, as L1 wants it. */
static __always_inline int kpop_map_all(struct kpop_map_ctx *ctx, __u32 how)
{
	return bpf_kpop_map(ctx, 0, ctx->npages, ctx->rights, how);
}

/*
 * Counters: a per-CPU array of u64, indexed by an enum of the policy's own.
 * The function is not inlined, so that the enum is in the object's BTF, where
 * tools find the names.
 */
#define KPOP_COUNTERS(map_name, enum_name, nr)				\
struct {								\
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);			\
	__uint(max_entries, nr);					\
	__type(key, __u32);						\
	__type(value, __u64);						\
} map_name SEC(".maps");						\
									\
static __noinline int count(enum enum_name which, __u64 by)		\
{									\
	__u32 key = which;						\
	__u64 *value = bpf_map_lookup_elem(&map_name, &key);		\
									\
	if (value)							\
		*value += by;						\
	return 0;							\
}

#endif /* __KPOP_BPF_H */
