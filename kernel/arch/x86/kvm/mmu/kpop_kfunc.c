// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP policies: the kfuncs, what a hook may call.
 *
 * A kfunc gets from the context that the hook was called with to the call in
 * progress by container_of().  That is sound because
 *
 *  - the argument is trusted (KF_TRUSTED_ARGS), and the only trusted pointer
 *    of its type that BPF can come by is a hook's argument: kernel memory has
 *    no pointer to one, and a kptr to it cannot be made;
 *  - kpop_kfunc_filter() refuses any program that is not in the hook whose
 *    context is part of that call;
 *  - a program in a hook runs nowhere else: no tail calls (kpop_policy.c), and
 *    a timer or workqueue callback of it has no trusted context to pass.
 *    Callbacks that run at once and global subprograms are the hook.
 *
 * A kfunc never calls a hook, and waits for no user memory.
 */
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/module.h>

#include "kpop_policy.h"

/* kvm.ko's BTF, and which members of struct kpop_ops the hooks are. */
static const struct btf *kpop_btf;
static u32 kpop_load_member;
static u32 kpop_map_member;

BTF_ID_LIST_SINGLE(kpop_ops_btf_id, struct, kpop_ops)

/*
 * May the running hook still do something?  A policy that is ejected,
 * detached or over its budget may not.
 */
static int kpop_kfunc_enter(struct kpop_call *c)
{
	if (!c || READ_ONCE(c->policy->dead) || kpop_call_overdrawn(c))
		return -EAGAIN;

	c->cpu_mark = kpop_cpu_time(current);
	/* Pairs with kpop_call_used(). */
	smp_store_release(&c->in_kfunc, true);
	return 0;
}

/* What the core used is not the hook's. */
static int kpop_kfunc_leave(struct kpop_call *c, int r)
{
	u64 now = kpop_cpu_time(current);

	WRITE_ONCE(c->cpu_base, c->cpu_base + (now - c->cpu_mark));
	/* Pairs with kpop_call_used(). */
	smp_store_release(&c->in_kfunc, false);

	/* L1 knows nothing of signals of its VMM. */
	if (r == -EINTR)
		r = -EAGAIN;
	if (r < 0)
		kpop_note_error(c, r);
	return r;
}

__bpf_kfunc_start_defs();

/**
 * bpf_kpop_load - create or find the address space, and bind the holder
 * @ctx: the hook's context
 *
 * Calling it again in the same hook call does nothing.
 *
 * Context: from load() only; may sleep.
 * Return: 0;
 * -EAGAIN: try again, or this policy is on its way out;
 * -EBUSY: the token is bound to another kvm_id or as_id, or not all zero;
 * -EFAULT: the token is no memory of L1;
 * -E2BIG: the VM's cap is reached; -ENOMEM.
 * The hook may return any of these, L1 gets it.
 */
__bpf_kfunc int bpf_kpop_load(struct kpop_load_ctx *ctx)
{
	struct kpop_load_kern *k = container_of(ctx, struct kpop_load_kern, ctx);
	struct kvm *kvm = k->vcpu->kvm;
	int r, idx;

	if (k->done)
		return 0;

	r = kpop_kfunc_enter(k->call);
	if (r)
		return r;

	idx = srcu_read_lock(&kvm->srcu);
	r = kpop_do_load(k);
	srcu_read_unlock(&kvm->srcu, idx);
	return kpop_kfunc_leave(k->call, r);
}

/**
 * bpf_kpop_map - record a part of the offered run, and install it
 * @ctx: the hook's context
 * @offset: the first 4K page, counted from the start of the offer
 * @npages: how many 4K pages, at least 1, not beyond the offer
 * @rights: KPOP_MAP_R, and of _W and _X at most what the offer has
 * @how: KPOP_HOW_LAZY: record the translation; KPOP_HOW_EAGER: also install
 *	what of it is resident, without waiting
 *
 * Replaces what was known about those L2 gfns.  L1 resumes behind the last
 * page recorded, so pages left out before it are offered again only when L2
 * touches them.
 *
 * Context: from map() only, any number of times; may sleep, never waits for
 * user memory.
 * Return: 0;
 * -EINVAL: an argument is out of range (no valid answer of the hook);
 * -EAGAIN: try again, or this policy is on its way out;
 * -ENOENT: the space is gone;
 * -E2BIG: the VM's cap is reached; -ENOMEM.
 * The hook may return any but -EINVAL, L1 gets it.
 */
__bpf_kfunc int bpf_kpop_map(struct kpop_map_ctx *ctx, u64 offset, u64 npages,
			     u32 rights, u32 how)
{
	struct kpop_map_kern *k = container_of(ctx, struct kpop_map_kern, ctx);
	struct kvm *kvm = k->vcpu->kvm;
	int r, idx;

	if (!npages || offset >= ctx->npages || npages > ctx->npages - offset ||
	    !(rights & KPOP_MAP_R) || (rights & ~ctx->rights) ||
	    how > KPOP_HOW_EAGER)
		return -EINVAL;

	r = kpop_kfunc_enter(k->call);
	if (r)
		return r;

	idx = srcu_read_lock(&kvm->srcu);
	r = kpop_do_map(k, offset, npages, rights, how);
	srcu_read_unlock(&kvm->srcu, idx);

	return kpop_kfunc_leave(k->call, r);
}

/**
 * bpf_kpop_window - tell L1 how many pages to offer next time
 * @ctx: the hook's context
 * @pages: 4K pages, at most 65535; 0 is no hint, as without this call
 *
 * A hint: L1 may offer fewer or more.  The last call counts.
 *
 * Context: from map() only; does not sleep.
 * Return: 0 or -EINVAL.
 */
__bpf_kfunc int bpf_kpop_window(struct kpop_map_ctx *ctx, u32 pages)
{
	struct kpop_map_kern *k = container_of(ctx, struct kpop_map_kern, ctx);

	if (pages > U16_MAX)
		return -EINVAL;
	k->window = pages;
	return 0;
}

__bpf_kfunc_end_defs();

BTF_KFUNCS_START(kpop_kfunc_ids)
BTF_ID_FLAGS(func, bpf_kpop_load, KF_TRUSTED_ARGS | KF_SLEEPABLE)
BTF_ID_FLAGS(func, bpf_kpop_map, KF_TRUSTED_ARGS | KF_SLEEPABLE)
BTF_ID_FLAGS(func, bpf_kpop_window, KF_TRUSTED_ARGS)
BTF_KFUNCS_END(kpop_kfunc_ids)

BTF_ID_LIST(kpop_kfunc_list)
BTF_ID(func, bpf_kpop_load)
BTF_ID(func, bpf_kpop_map)
BTF_ID(func, bpf_kpop_window)

/*
 * The member of kpop_ops that a program is in, or -1.  An attach BTF that is
 * ours makes attach_btf_id an id of ours; extension programs have the BTF of
 * what they extend, and another type.
 */
static int kpop_prog_member(const struct bpf_prog *prog)
{
	if (prog->type != BPF_PROG_TYPE_STRUCT_OPS || !kpop_btf ||
	    prog->aux->attach_btf != kpop_btf ||
	    prog->aux->attach_btf_id != kpop_ops_btf_id[0])
		return -1;
	return prog->expected_attach_type;
}

/* With KVM built in, this is asked about every kfunc there is. */
static int kpop_kfunc_filter(const struct bpf_prog *prog, u32 kfunc_id)
{
	u32 member;

	if (kfunc_id == kpop_kfunc_list[0])
		member = kpop_load_member;
	else if (kfunc_id == kpop_kfunc_list[1] ||
		 kfunc_id == kpop_kfunc_list[2])
		member = kpop_map_member;
	else
		return 0;

	return kpop_prog_member(prog) == member ? 0 : -EACCES;
}

static const struct btf_kfunc_id_set kpop_kfunc_set = {
	.owner	= THIS_MODULE,
	.set	= &kpop_kfunc_ids,
	.filter	= kpop_kfunc_filter,
};

/**
 * kpop_kfunc_set_btf - learn where struct kpop_ops is described
 * @btf: BTF of kvm.ko, or of vmlinux with KVM built in
 *
 * Until this is called the filter refuses every program.
 *
 * Return: 0, or -EINVAL if that BTF does not fit.
 */
int kpop_kfunc_set_btf(const struct btf *btf)
{
	const struct btf_type *t = btf_type_by_id(btf, kpop_ops_btf_id[0]);
	const struct btf_member *member;
	u32 i, found = 0;

	if (!t || !btf_type_is_struct(t))
		return -EINVAL;

	for_each_member(i, t, member) {
		switch (__btf_member_bit_offset(t, member) / 8) {
		case offsetof(struct kpop_ops, load):
			kpop_load_member = i;
			found++;
			break;
		case offsetof(struct kpop_ops, map):
			kpop_map_member = i;
			found++;
			break;
		}
	}
	if (found != 2)
		return -EINVAL;

	kpop_btf = btf;
	return 0;
}

/**
 * kpop_kfunc_init - register the kfuncs
 *
 * Return: 0 or a negative errno.
 */
int kpop_kfunc_init(void)
{
	return register_btf_kfunc_id_set(BPF_PROG_TYPE_STRUCT_OPS,
					 &kpop_kfunc_set);
}
