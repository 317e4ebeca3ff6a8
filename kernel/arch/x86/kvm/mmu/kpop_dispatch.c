// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP policies: calls of hooks, and what their answers mean.
 *
 * A policy is not trusted to be right.  Every answer is checked against
 * kpop_answers[], and what a hook says against what its kfuncs did.
 */
#include <linux/bpf.h>
#include <linux/timekeeping.h>

#include "kpop_policy.h"
#include "kpop_trace.h"

/**
 * struct kpop_answers - what a hook may return
 * @values: these
 * @nr: how many of them
 * @core_errors: also an error that one of its kfuncs got from the core
 * @any_errno: also any negative errno
 * @text: the same in words
 */
struct kpop_answers {
	int values[3];
	int nr;
	bool core_errors;
	bool any_errno;
	const char *text;
};

static const struct kpop_answers kpop_answers[KPOP_NR_HOOKS] = {
	[KPOP_HOOK_INIT] = { { 0 }, 1, false, true, "0 or an errno" },
	[KPOP_HOOK_EXIT] = { { 0 }, 1, false, false, "0" },
	[KPOP_HOOK_LOAD] = { { 0, -EPERM, -EAGAIN }, 3, true, false,
			     "0, -EPERM, -EAGAIN or its kfunc's error" },
	[KPOP_HOOK_UNLOAD] = { { 0 }, 1, false, false, "0" },
	[KPOP_HOOK_MAP] = { { 0, -EPERM, -EAGAIN }, 3, true, false,
			    "0, -EPERM, -EAGAIN or its kfunc's error" },
	[KPOP_HOOK_UNMAP] = { { 0 }, 1, false, false, "0" },
	[KPOP_HOOK_ZAP] = { { 0 }, 1, false, false, "0" },
	[KPOP_HOOK_FAULT] = { { KPOP_FAULT_REFLECT, KPOP_FAULT_RETRY }, 2,
			      false, false, "REFLECT or RETRY" },
};

static void kpop_call_begin(struct kpop_call *c)
{
	struct kpop_hook_cpu *hc;
	bool watched;

	c->target = c->policy->target;
	c->task = current;
	c->in_kfunc = false;
	c->used = 0;
	c->metered = 0;
	c->errors = 0;
	c->start_ns = ktime_get_ns();
	c->start_jiffies = jiffies;
	c->cpu_base = kpop_cpu_time(current);
	c->cpu = raw_smp_processor_id();

	hc = per_cpu_ptr(c->target->cpu, c->cpu);
	/* The watchdog is a softirq; interrupts off is the cheaper of the two. */
	spin_lock_irq(&hc->lock);
	list_add(&c->node, &hc->calls);
	hc->stat[c->hook].calls++;
	watched = READ_ONCE(c->target->watched);
	spin_unlock_irq(&hc->lock);

	if (!watched)
		kpop_watch_later(c->target);
}

static bool kpop_answer_ok(struct kpop_call *c, int ret)
{
	const struct kpop_answers *a = &kpop_answers[c->hook];
	int i;

	for (i = 0; i < a->nr; i++)
		if (ret == a->values[i])
			return true;
	if (ret >= 0 || ret < -MAX_ERRNO)
		return false;
	return a->any_errno || (a->core_errors && kpop_had_error(c, ret));
}

/* Returns false when what the hook said must not count. */
static bool kpop_call_end(struct kpop_call *c, int ret)
{
	struct kpop_hook_cpu *hc = per_cpu_ptr(c->target->cpu, c->cpu);
	struct kvm_kpop_hook_stat *stat = &hc->stat[c->hook];
	bool ok = kpop_answer_ok(c, ret);
	u64 ns = ktime_get_ns() - c->start_ns;

	spin_lock_irq(&hc->lock);
	list_del(&c->node);
	stat->time_ns += ns;
	stat->max_ns = max(stat->max_ns, ns);
	if (ret < 0 || !ok)
		stat->errors++;
	spin_unlock_irq(&hc->lock);

	trace_kvm_kpop_hook(c->target->vm_id, c->hook, ret, ns);

	if (!ok)
		kpop_eject(c->policy, KPOP_EJECT_VALUE, c->hook, ret,
			   "%s() returned %d, not %s", kpop_hook_names[c->hook],
			   ret, kpop_answers[c->hook].text);
	else if (ns >= KPOP_BUDGET_NS)
		kpop_call_overdrawn(c);
	return !READ_ONCE(c->policy->dead);
}

/*
 * What L1 gets to a load or map.  @done pages are recorded: they count
 * whatever the hook says, L1 comes again for the rest and hears it then.
 */
static int kpop_judge(struct kpop_call *c, int ret, u64 done, u64 token,
		      u64 gfn)
{
	if (!kpop_call_end(c, ret))
		return done ? 0 : -EAGAIN;

	if (done) {
		kpop_no_error(c);
		kpop_answered(c, token, gfn, done);
		return 0;
	}
	if (!ret || (ret == -EAGAIN && !kpop_had_error(c, -EAGAIN))) {
		kpop_error(c, ret);
		kpop_delayed(c, token, gfn, ret);
		return -EAGAIN;
	}
	if (ret == -EPERM) {
		kpop_no_error(c);
		kpop_answered(c, token, gfn, 1);
	}
	return ret;
}

static int kpop_judge_fault(struct kpop_call *c, int ret,
			    const struct kpop_fault_ctx *ctx)
{
	if (!kpop_call_end(c, ret))
		return KPOP_FAULT_REFLECT;

	if (ret == KPOP_FAULT_RETRY)
		kpop_delayed(c, ctx->token, ctx->l2_gfn, ret);
	else
		kpop_answered(c, ctx->token, ctx->l2_gfn, 1);
	return ret;
}

/* Hooks that return nothing answer 0. */
static int kpop_run_hook(struct kpop_call *c, void *ctx)
{
	const struct kpop_ops *ops = c->policy->ops;

	switch (c->hook) {
	case KPOP_HOOK_LOAD:
		return ops->load(ctx);
	case KPOP_HOOK_MAP:
		return ops->map(ctx);
	case KPOP_HOOK_FAULT:
		return ops->fault(ctx);
	case KPOP_HOOK_INIT:
		return ops->init(ctx);
	case KPOP_HOOK_UNLOAD:
		ops->unload(ctx);
		return 0;
	case KPOP_HOOK_UNMAP:
		ops->unmap(ctx);
		return 0;
	case KPOP_HOOK_ZAP:
		ops->zap(ctx);
		return 0;
	default:
		ops->exit(ctx);
		return 0;
	}
}

static bool kpop_has_hook(const struct kpop_ops *ops, u32 hook)
{
	switch (hook) {
	case KPOP_HOOK_UNLOAD:
		return ops->unload;
	case KPOP_HOOK_UNMAP:
		return ops->unmap;
	case KPOP_HOOK_ZAP:
		return ops->zap;
	case KPOP_HOOK_FAULT:
		return ops->fault;
	default:
		return true;
	}
}

/* The one place where a hook is called for a vCPU, and its answer checked. */
static int kpop_run_call(struct kpop_call *c, struct kvm_vcpu *vcpu, void *ctx)
{
	struct kpop_load_kern *load;
	struct kpop_map_kern *map;
	int ret;

	kpop_call_begin(c);
	kvm_vcpu_srcu_read_unlock(vcpu);
	ret = kpop_run_hook(c, ctx);
	kvm_vcpu_srcu_read_lock(vcpu);

	switch (c->hook) {
	case KPOP_HOOK_LOAD:
		load = container_of(ctx, struct kpop_load_kern, ctx);
		return kpop_judge(c, ret, load->done, load->ctx.token,
				  KPOP_NO_GFN);
	case KPOP_HOOK_MAP:
		map = container_of(ctx, struct kpop_map_kern, ctx);
		return kpop_judge(c, ret, map->done, map->ctx.token,
				  map->ctx.l2_gfn);
	case KPOP_HOOK_FAULT:
		return kpop_judge_fault(c, ret, ctx);
	default:
		kpop_call_end(c, ret);
		return 0;
	}
}

/* 0 or what the hook is taken to have said; without a policy an error. */
static int kpop_call(struct kpop_vm *kv, struct kpop_call *c, void *ctx)
{
	struct kpop_target *t = kv->target;
	int idx, r;

	if (!t)
		return -KVM_ENOSYS;

	idx = srcu_read_lock(&t->srcu);
	c->policy = srcu_dereference(t->policy, &t->srcu);
	r = kpop_policy_status(kv);
	if (!r && (!c->policy || READ_ONCE(c->policy->dead)))
		r = -EAGAIN;
	if (!r && kpop_has_hook(c->policy->ops, c->hook))
		r = kpop_run_call(c, kvm_get_running_vcpu(), ctx);
	srcu_read_unlock(&t->srcu, idx);
	return r;
}

/**
 * kpop_call_load - ask the policy about a LOAD
 * @kv: the VM
 * @k: the LOAD; the hook sees its ctx
 *
 * Context: thread of a loaded vCPU, by which it holds kvm->srcu; no lock held.
 * May sleep.  kvm->srcu is let go while the hook runs, or a memslot update
 * would wait for it: what a memslot lookup gave before is void afterwards.
 * Return: 0 if the holder is bound, -KVM_ENOSYS, -EPERM, -EAGAIN, or an error
 * of kpop_do_load() that the hook passed on.
 */
int kpop_call_load(struct kpop_vm *kv, struct kpop_load_kern *k)
{
	struct kpop_call c = { .hook = KPOP_HOOK_LOAD };
	int r;

	k->call = &c;
	r = kpop_call(kv, &c, &k->ctx);
	k->call = NULL;
	return r;
}

/**
 * kpop_call_map - ask the policy about one run of a MAP
 * @kv: the VM
 * @k: the run; the hook sees its ctx
 *
 * Context: as kpop_call_load().
 * Return: 0 if k->done pages are recorded, -KVM_ENOSYS, -EPERM, -EAGAIN, or an
 * error of kpop_do_map() that the hook passed on.
 */
int kpop_call_map(struct kpop_vm *kv, struct kpop_map_kern *k)
{
	struct kpop_call c = { .hook = KPOP_HOOK_MAP };
	int r;

	k->call = &c;
	r = kpop_call(kv, &c, &k->ctx);
	k->call = NULL;
	return r;
}

/**
 * kpop_call_fault - ask the policy about an L2 fault that L0 cannot solve
 * @kv: the VM
 * @ctx: the fault
 *
 * Context: as kpop_call_load().
 * Return: 0: reflect it to L1, also when no policy serves; 1: let L2 fault
 * again.
 */
int kpop_call_fault(struct kpop_vm *kv, struct kpop_fault_ctx *ctx)
{
	struct kpop_call c = { .hook = KPOP_HOOK_FAULT };

	/* Without the hook a fault is L1's; a policy just swapped in may miss one. */
	if (!kv->target || !READ_ONCE(kv->target->has_fault))
		return KPOP_FAULT_REFLECT;

	return max_t(int, kpop_call(kv, &c, ctx), KPOP_FAULT_REFLECT);
}

/**
 * kpop_call_unload - tell the policy that a binding or a space is gone
 * @kv: the VM
 * @ctx: which
 *
 * Context: as kpop_call_load().
 */
void kpop_call_unload(struct kpop_vm *kv, struct kpop_unload_ctx *ctx)
{
	struct kpop_call c = { .hook = KPOP_HOOK_UNLOAD };

	kpop_call(kv, &c, ctx);
}

/**
 * kpop_call_unmap - tell the policy that a range was unmapped
 * @kv: the VM
 * @ctx: the range
 * @zap: L1 zapped it
 *
 * Context: as kpop_call_load().
 */
void kpop_call_unmap(struct kpop_vm *kv, struct kpop_unmap_ctx *ctx, bool zap)
{
	struct kpop_call c = { .hook = zap ? KPOP_HOOK_ZAP : KPOP_HOOK_UNMAP };

	kpop_call(kv, &c, ctx);
}

/**
 * kpop_call_init - run the init hook of a policy that is not published yet
 * @p: the policy; the caller owns it
 *
 * Context: the start work; may sleep.
 * Return: 0 or a negative errno.
 */
int kpop_call_init(struct kpop_policy *p)
{
	struct kpop_init_ctx ctx = {
		.vm_id = p->target->vm_id,
		.swap = p->swap_in,
	};
	struct kpop_call c = { .policy = p, .hook = KPOP_HOOK_INIT };
	int r;

	if (!p->ops->init)
		return 0;

	kpop_call_begin(&c);
	r = kpop_run_hook(&c, &ctx);
	kpop_call_end(&c, r);
	return r > 0 ? -EINVAL : r;
}

/**
 * kpop_call_exit - run the exit hook of a policy that is not published any more
 * @p: the policy; the caller owns it
 *
 * Context: the retire work, after the last reader; may sleep.
 */
void kpop_call_exit(struct kpop_policy *p)
{
	struct kpop_init_ctx ctx = {
		.vm_id = p->target->vm_id,
		.swap = p->swap_out,
	};
	struct kpop_call c = { .policy = p, .hook = KPOP_HOOK_EXIT };

	if (!p->ops->exit)
		return;

	kpop_call_begin(&c);
	kpop_call_end(&c, kpop_run_hook(&c, &ctx));
}

/**
 * kpop_policy_status - does a policy serve this VM?
 * @kv: the VM
 *
 * Return: 0; -KVM_ENOSYS without one, also while its init runs, or -ENOLINK if
 * the VM is kpop-only; -EAGAIN while it goes and mappings may still be there.
 * A hypercall may answer with it.
 */
int kpop_policy_status(struct kpop_vm *kv)
{
	struct kpop_target *t = kv->target;

	/* Pairs with the release in kpop_target.c: mappings go first. */
	switch (t ? smp_load_acquire(&t->state) : KPOP_STATE_NONE) {
	case KPOP_STATE_ATTACHED:
		return 0;
	case KPOP_STATE_DETACHING:
		return -EAGAIN;
	default:
		return kpop_only(kv) ? -ENOLINK : -KVM_ENOSYS;
	}
}

/* Shorter: may new work be begun?  False as soon as a policy is ejected. */
bool kpop_policy_ready(struct kpop_vm *kv)
{
	return !kpop_policy_status(kv);
}
