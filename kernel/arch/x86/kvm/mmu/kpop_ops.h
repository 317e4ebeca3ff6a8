/* SPDX-License-Identifier: GPL-2.0 */
#ifndef __KVM_X86_MMU_KPOP_OPS_H
#define __KVM_X86_MMU_KPOP_OPS_H

/*
 * What a policy sees: the struct_ops type, the contexts of its hooks and the
 * constants it returns.  Everything here ends up in kvm.ko's BTF; members of
 * a context are read-only to BPF and say nothing about kernel addresses.
 */

#include <linux/types.h>

/**
 * struct kpop_load_ctx - L1 loads an address space
 * @kvm_id: L1's number of the L2 VM
 * @as_id: 0, or 1 for the L2's SMM
 * @token: L1 GPA of the root page
 * @vcpu_holder: L1 GPA of vmcb12 / vmcs12
 * @known: the space exists already, this binds one more holder to it
 */
struct kpop_load_ctx {
	u32 kvm_id;
	u32 as_id;
	u64 token;
	u64 vcpu_holder;
	u32 known;
};

/**
 * struct kpop_unload_ctx - L1 dropped a binding or a whole address space
 * @kvm_id: L1's number of the L2 VM; of a whole space what LOAD said, of a binding
 *	what L1 says now
 * @as_id: 0, or 1 for the L2's SMM; the same is true of it
 * @token: L1 GPA of the root page
 * @vcpu_holder: the binding that is gone, or 0 with the whole space
 */
struct kpop_unload_ctx {
	u32 kvm_id;
	u32 as_id;
	u64 token;
	u64 vcpu_holder;
};

/**
 * struct kpop_map_ctx - L1 offers one run of pages to L2
 * @kvm_id: L1's number of the L2 VM
 * @as_id: 0, or 1 for the L2's SMM
 * @token: L1 GPA of the root page
 * @l2_gfn: first L2 gfn
 * @l1_gfn: first L1 gfn
 * @npages: 4K pages, at least 1
 * @rights: KPOP_MAP_R, _W, _X as L1 grants them
 * @lazy: L1 asks to install only when L2 touches it
 * @written: L2 waits to write to it
 */
struct kpop_map_ctx {
	u32 kvm_id;
	u32 as_id;
	u64 token;
	u64 l2_gfn;
	u64 l1_gfn;
	u64 npages;
	u32 rights;
	u32 lazy;
	u32 written;
};

/**
 * struct kpop_unmap_ctx - the core took a range of L2 gfns away
 * @kvm_id: L1's number of the L2 VM
 * @as_id: 0, or 1 for the L2's SMM
 * @all_as: in every as_id, not only in @as_id
 * @l2_gfn: first L2 gfn
 * @npages: 4K pages
 */
struct kpop_unmap_ctx {
	u32 kvm_id;
	u32 as_id;
	u32 all_as;
	u64 l2_gfn;
	u64 npages;
};

/**
 * struct kpop_fault_ctx - L2 touched what it may not, or L0 does not know
 * @kvm_id: L1's number of the L2 VM
 * @as_id: 0, or 1 for the L2's SMM
 * @token: L1 GPA of the root page
 * @l2_gfn: where
 * @access: KPOP_MAP_R, _W, _X: what L2 tried
 * @rights: what the translation grants, 0 when there is none
 */
struct kpop_fault_ctx {
	u32 kvm_id;
	u32 as_id;
	u64 token;
	u64 l2_gfn;
	u32 access;
	u32 rights;
};

/**
 * struct kpop_init_ctx - a policy starts or stops to serve a VM
 * @vm_id: the VM's id, never reused
 * @swap: it follows, or is followed by, another policy without a gap
 */
struct kpop_init_ctx {
	u64 vm_id;
	u32 swap;
};

/* What ->fault() returns. */
enum kpop_fault_ret {
	KPOP_FAULT_REFLECT = 0,		/* give it to L1 */
	KPOP_FAULT_RETRY = 1,		/* delay: let L2 fault again */
};

/* flags of bpf_kpop_map() */
enum kpop_map_how {
	KPOP_HOW_LAZY = 0,		/* record the translation only */
	KPOP_HOW_EAGER = 1,		/* and install what is resident */
};

/**
 * struct kpop_ops - a KPOP policy: what L0 does for the L2s of one L1 VM
 *
 * A policy may narrow, advance or delay what is mapped; it can never keep
 * something mapped.  All hooks run outside mmu_lock, may sleep, and are called
 * in the vCPU thread of the L1 vCPU concerned unless said otherwise.
 *
 * @vm_fd: the VM's file descriptor in the table of the process that creates
 *	the link; -1 for a policy that is only swapped in.  Read once.
 * @name: 1 to 15 characters of [A-Za-z0-9_.-]; must be given.
 * @load: L1 loads a space or binds one more holder.  Calls bpf_kpop_load().
 *	Returns 0, or -EPERM / -EAGAIN or an error of its kfunc, which L1 gets.
 *	Required.
 * @unload: told after a binding or a space is gone.
 * @map: L1 offers a run.  Calls bpf_kpop_map(), once or more.
 *	Returns 0, -EPERM (denied; L1 gives the fault to its VMM), -EAGAIN (L1
 *	asks again) or an error of its kfunc.  Once a page is recorded, what
 *	it returns only has to be valid: L1 resumes behind that page and asks
 *	for the rest.  Required.
 * @unmap: told after the core unmapped a range for L1.
 * @zap: the same for a zap.
 * @fault: L2 faulted where there is no translation, or one that denies it.
 *	Returns enum kpop_fault_ret; absent means KPOP_FAULT_REFLECT.
 * @init: before the first hook call of this policy for a VM; called in the
 *	attacher's work, not in a vCPU thread.  Returns 0 or a negative errno,
 *	which ends the attach (or leaves the old policy running).
 * @exit: after its last hook call for that VM, if its init succeeded.  The VM
 *	may be gone by then.
 *
 * Any other value than those ejects the policy.  So does a call that takes
 * more than 100 ms of CPU time (or 10 s by the clock) outside of kfuncs; a
 * load or map that returns 0 or its own -EAGAIN having recorded nothing, or a
 * fault that returns KPOP_FAULT_RETRY, 8 times for one L2 gfn with nothing
 * changed in between; and more than 64 such loads and maps in a row.
 */
struct kpop_ops {
	s32 vm_fd;
	int (*load)(struct kpop_load_ctx *ctx);
	void (*unload)(struct kpop_unload_ctx *ctx);
	int (*map)(struct kpop_map_ctx *ctx);
	void (*unmap)(struct kpop_unmap_ctx *ctx);
	void (*zap)(struct kpop_unmap_ctx *ctx);
	int (*fault)(struct kpop_fault_ctx *ctx);
	int (*init)(struct kpop_init_ctx *ctx);
	void (*exit)(struct kpop_init_ctx *ctx);
	char name[16];
};

#endif /* __KVM_X86_MMU_KPOP_OPS_H */
