/* SPDX-License-Identifier: GPL-2.0 */
#if !defined(_TRACE_KVM_KPOP_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_KVM_KPOP_H

#include <linux/tracepoint.h>

#undef TRACE_SYSTEM
#define TRACE_SYSTEM kvmkpop

TRACE_EVENT(kvm_kpop_hypercall,
	TP_PROTO(u64 nr, u64 a0, u64 a1, u64 a2, u64 a3, s64 ret),
	TP_ARGS(nr, a0, a1, a2, a3, ret),

	TP_STRUCT__entry(
		__field(u64, nr)
		__field(u64, a0)
		__field(u64, a1)
		__field(u64, a2)
		__field(u64, a3)
		__field(s64, ret)
	),

	TP_fast_assign(
		__entry->nr = nr;
		__entry->a0 = a0;
		__entry->a1 = a1;
		__entry->a2 = a2;
		__entry->a3 = a3;
		__entry->ret = ret;
	),

	TP_printk("nr %llu a0 %llx a1 %llx a2 %llx a3 %llx ret %lld",
		  __entry->nr, __entry->a0, __entry->a1, __entry->a2,
		  __entry->a3, __entry->ret)
);

TRACE_EVENT(kvm_kpop_load,
	TP_PROTO(u64 vm_id, u64 token, u64 holder, u32 kvm_id, u32 as_id),
	TP_ARGS(vm_id, token, holder, kvm_id, as_id),

	TP_STRUCT__entry(
		__field(u64, vm_id)
		__field(u64, token)
		__field(u64, holder)
		__field(u32, kvm_id)
		__field(u32, as_id)
	),

	TP_fast_assign(
		__entry->vm_id = vm_id;
		__entry->token = token;
		__entry->holder = holder;
		__entry->kvm_id = kvm_id;
		__entry->as_id = as_id;
	),

	TP_printk("vm %llu token %llx holder %llx kvm_id %u as_id %u",
		  __entry->vm_id, __entry->token, __entry->holder,
		  __entry->kvm_id, __entry->as_id)
);

TRACE_EVENT(kvm_kpop_drop,
	TP_PROTO(u64 vm_id, u64 token, u32 kvm_id, u32 as_id),
	TP_ARGS(vm_id, token, kvm_id, as_id),

	TP_STRUCT__entry(
		__field(u64, vm_id)
		__field(u64, token)
		__field(u32, kvm_id)
		__field(u32, as_id)
	),

	TP_fast_assign(
		__entry->vm_id = vm_id;
		__entry->token = token;
		__entry->kvm_id = kvm_id;
		__entry->as_id = as_id;
	),

	TP_printk("vm %llu token %llx kvm_id %u as_id %u", __entry->vm_id,
		  __entry->token, __entry->kvm_id, __entry->as_id)
);

TRACE_EVENT(kvm_kpop_reload,
	TP_PROTO(u64 vm_id, u64 token, u64 root_hpa),
	TP_ARGS(vm_id, token, root_hpa),

	TP_STRUCT__entry(
		__field(u64, vm_id)
		__field(u64, token)
		__field(u64, root_hpa)
	),

	TP_fast_assign(
		__entry->vm_id = vm_id;
		__entry->token = token;
		__entry->root_hpa = root_hpa;
	),

	TP_printk("vm %llu token %llx root %llx", __entry->vm_id,
		  __entry->token, __entry->root_hpa)
);

TRACE_EVENT(kvm_kpop_map,
	TP_PROTO(u64 vm_id, u64 token, u64 l2_gfn, u64 l1_gfn, u64 npages,
		 u32 rights, u32 how),
	TP_ARGS(vm_id, token, l2_gfn, l1_gfn, npages, rights, how),

	TP_STRUCT__entry(
		__field(u64, vm_id)
		__field(u64, token)
		__field(u64, l2_gfn)
		__field(u64, l1_gfn)
		__field(u64, npages)
		__field(u32, rights)
		__field(u32, how)
	),

	TP_fast_assign(
		__entry->vm_id = vm_id;
		__entry->token = token;
		__entry->l2_gfn = l2_gfn;
		__entry->l1_gfn = l1_gfn;
		__entry->npages = npages;
		__entry->rights = rights;
		__entry->how = how;
	),

	TP_printk("vm %llu token %llx l2 %llx l1 %llx npages %llu rights %x %s",
		  __entry->vm_id, __entry->token, __entry->l2_gfn,
		  __entry->l1_gfn, __entry->npages, __entry->rights,
		  __entry->how ? "eager" : "lazy")
);

TRACE_EVENT(kvm_kpop_unmap,
	TP_PROTO(u64 vm_id, u32 kvm_id, u64 l2_gfn, u64 npages),
	TP_ARGS(vm_id, kvm_id, l2_gfn, npages),

	TP_STRUCT__entry(
		__field(u64, vm_id)
		__field(u32, kvm_id)
		__field(u64, l2_gfn)
		__field(u64, npages)
	),

	TP_fast_assign(
		__entry->vm_id = vm_id;
		__entry->kvm_id = kvm_id;
		__entry->l2_gfn = l2_gfn;
		__entry->npages = npages;
	),

	TP_printk("vm %llu kvm_id %u l2 %llx npages %llu", __entry->vm_id,
		  __entry->kvm_id, __entry->l2_gfn, __entry->npages)
);

/* ret is RET_PF_* or an errno, -1 when L1 gets the fault */
TRACE_EVENT(kvm_kpop_fault,
	TP_PROTO(u64 vm_id, u64 l2_gpa, u32 access, u32 rights, int ret),
	TP_ARGS(vm_id, l2_gpa, access, rights, ret),

	TP_STRUCT__entry(
		__field(u64, vm_id)
		__field(u64, l2_gpa)
		__field(u32, access)
		__field(u32, rights)
		__field(int, ret)
	),

	TP_fast_assign(
		__entry->vm_id = vm_id;
		__entry->l2_gpa = l2_gpa;
		__entry->access = access;
		__entry->rights = rights;
		__entry->ret = ret;
	),

	TP_printk("vm %llu l2_gpa %llx access %x rights %x ret %d",
		  __entry->vm_id, __entry->l2_gpa, __entry->access,
		  __entry->rights, __entry->ret)
);

TRACE_EVENT(kvm_kpop_hook,
	TP_PROTO(u64 vm_id, u32 hook, s64 ret, u64 ns),
	TP_ARGS(vm_id, hook, ret, ns),

	TP_STRUCT__entry(
		__field(u64, vm_id)
		__field(u32, hook)
		__field(s64, ret)
		__field(u64, ns)
	),

	TP_fast_assign(
		__entry->vm_id = vm_id;
		__entry->hook = hook;
		__entry->ret = ret;
		__entry->ns = ns;
	),

	TP_printk("vm %llu hook %u ret %lld ns %llu", __entry->vm_id,
		  __entry->hook, __entry->ret, __entry->ns)
);

TRACE_EVENT(kvm_kpop_eject,
	TP_PROTO(u64 vm_id, u32 kind, u32 hook, s64 value),
	TP_ARGS(vm_id, kind, hook, value),

	TP_STRUCT__entry(
		__field(u64, vm_id)
		__field(u32, kind)
		__field(u32, hook)
		__field(s64, value)
	),

	TP_fast_assign(
		__entry->vm_id = vm_id;
		__entry->kind = kind;
		__entry->hook = hook;
		__entry->value = value;
	),

	TP_printk("vm %llu kind %u hook %u value %lld", __entry->vm_id,
		  __entry->kind, __entry->hook, __entry->value)
);

#endif /* _TRACE_KVM_KPOP_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH mmu
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE kpop_trace

/* This part must be outside protection */
#include <trace/define_trace.h>
