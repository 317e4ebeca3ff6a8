// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP policies: what stands between a link and a VM.
 *
 * Attach, swap and detach are asked for under a mutex that all struct_ops of
 * the host share.  So they only note what is wanted and queue work; they never
 * wait for a hook, a reader or a zap:
 *
 *   start   runs the new policy's init hook and publishes it
 *   drop    takes every mapping of the VM down, only then the policy
 *   retire  waits for the last hook call, runs the exit hook, frees
 *
 * start and retire run hooks, so they may take for ever, and have a workqueue
 * of their own: drop, the way out, never waits for them.
 *
 * A swap whose init fails leaves the old policy running.  The core's link has
 * the new map by then: its info names a map that serves nobody, while
 * KVM_KPOP_OP_INFO names the one that does, whose programs live by our own
 * reference.  The ejection record says what happened; another update, also
 * back to the old map, brings the two together again.
 */
#include <linux/bpf.h>
#include <linux/hashtable.h>

#include "kpop_policy.h"

static DEFINE_HASHTABLE(kpop_maps, 6);		/* kpop_policy.node, by ops */
static DEFINE_SPINLOCK(kpop_maps_lock);

static struct workqueue_struct *kpop_drop_wq;
static struct workqueue_struct *kpop_hook_wq;

static void kpop_set_state(struct kpop_target *t, u32 state)
{
	/* Pairs with kpop_policy_status(). */
	smp_store_release(&t->state, state);
}

static struct kpop_policy *kpop_policy_locked(struct kpop_target *t)
{
	return rcu_dereference_protected(t->policy, lockdep_is_held(&t->lock));
}

/**
 * kpop_target_put - drop a reference
 * @t: the target
 *
 * Context: any; what sleeps is left to a work.
 */
void kpop_target_put(struct kpop_target *t)
{
	if (refcount_dec_and_test(&t->count))
		queue_work(kpop_drop_wq, &t->free);
}

static void kpop_target_free_work(struct work_struct *work)
{
	struct kpop_target *t = container_of(work, struct kpop_target, free);

	timer_shutdown_sync(&t->watchdog);
	cleanup_srcu_struct(&t->srcu);
	free_percpu(t->cpu);
	kfree(t);
}

/* One map serves one VM at a time, until its exit hook has run there. */
static int kpop_register_map(struct kpop_policy *p)
{
	struct kpop_policy *other;
	int r = 0;

	spin_lock(&kpop_maps_lock);
	hash_for_each_possible(kpop_maps, other, node, (unsigned long)p->ops)
		if (other->ops == p->ops)
			r = -EBUSY;
	if (!r)
		hash_add(kpop_maps, &p->node, (unsigned long)p->ops);
	spin_unlock(&kpop_maps_lock);
	return r;
}

static void kpop_policy_free(struct kpop_policy *p)
{
	spin_lock(&kpop_maps_lock);
	hash_del(&p->node);
	spin_unlock(&kpop_maps_lock);

	bpf_struct_ops_put(p->ops);
	kpop_target_put(p->target);
	kfree(p);
}

static void kpop_retire_work(struct work_struct *work)
{
	struct kpop_policy *p = container_of(work, struct kpop_policy, retire);

	synchronize_srcu_expedited(&p->target->srcu);
	if (p->started)
		kpop_call_exit(p);
	kpop_policy_free(p);
}

static void kpop_retire(struct kpop_policy *p)
{
	queue_work(kpop_hook_wq, &p->retire);
}

/* Is @p still what the VM is to have next?  The VM's own locks decide. */
static bool kpop_publish(struct kpop_target *t, struct kpop_policy *p)
{
	struct kpop_policy *old = NULL;
	bool wanted;

	mutex_lock(&t->vm_lock);
	if (t->kv)
		kpop_open(t->kv);

	spin_lock_bh(&t->lock);
	wanted = t->next == p;
	if (wanted) {
		old = kpop_policy_locked(t);
		if (old) {
			old->swap_out = true;
			t->swaps++;
		} else {
			t->attaches++;
		}
		t->next = NULL;
		t->nr_delays = 0;
		rcu_assign_pointer(t->policy, p);
		WRITE_ONCE(t->has_fault, p->ops->fault);
		kpop_set_state(t, KPOP_STATE_ATTACHED);
	}
	spin_unlock_bh(&t->lock);

	if (t->kv && !rcu_access_pointer(t->policy))
		kpop_close(t->kv);
	mutex_unlock(&t->vm_lock);

	if (old)
		kpop_retire(old);
	return wanted;
}

static bool kpop_wanted(struct kpop_target *t, struct kpop_policy *p)
{
	bool wanted;

	spin_lock_bh(&t->lock);
	wanted = t->next == p;
	p->swap_in = t->state == KPOP_STATE_ATTACHED;
	spin_unlock_bh(&t->lock);
	return wanted;
}

static void kpop_start_work(struct work_struct *work)
{
	struct kpop_policy *p = container_of(work, struct kpop_policy, start);
	struct kpop_target *t = p->target;
	int r;

	/* Once it is published, @p may go at any time, and with it @t. */
	kpop_target_get(t);

	if (!kpop_wanted(t, p)) {
		kpop_retire(p);
		goto out;
	}

	r = kpop_call_init(p);
	if (r)
		kpop_eject(p, KPOP_EJECT_INIT, KPOP_HOOK_INIT, r,
			   "init() returned %d", r);
	else
		p->started = true;

	if (r || !kpop_publish(t, p))
		kpop_retire(p);
out:
	kpop_target_put(t);
}

/* The VM falls back: all mappings first, the policy last. */
static void kpop_drop_work(struct work_struct *work)
{
	struct kpop_target *t = container_of(work, struct kpop_target, drop);
	struct kpop_policy *p = NULL;

	mutex_lock(&t->vm_lock);
	if (t->kv) {
		kpop_close(t->kv);

		spin_lock_bh(&t->lock);
		p = kpop_policy_locked(t);
		RCU_INIT_POINTER(t->policy, NULL);
		t->detaches++;
		kpop_set_state(t, KPOP_STATE_NONE);
		spin_unlock_bh(&t->lock);
	}
	mutex_unlock(&t->vm_lock);

	if (p)
		kpop_retire(p);
	kpop_target_put(t);
}

/**
 * kpop_detach_locked - begin to detach the policy of a VM
 * @t: the VM's target; ATTACHED
 *
 * Context: t->lock held; may be softirq.
 */
void kpop_detach_locked(struct kpop_target *t)
{
	lockdep_assert_held(&t->lock);

	WRITE_ONCE(kpop_policy_locked(t)->dead, true);
	t->next = NULL;
	t->link = NULL;
	kpop_set_state(t, KPOP_STATE_DETACHING);

	kpop_target_get(t);
	if (!queue_work(kpop_drop_wq, &t->drop))
		kpop_target_put(t);
}

static struct kpop_policy *kpop_policy_alloc(struct kpop_target *t,
					     struct kpop_ops *ops)
{
	struct kpop_policy *p;
	int r;

	p = kzalloc(sizeof(*p), GFP_KERNEL_ACCOUNT);
	if (!p)
		return ERR_PTR(-ENOMEM);

	p->target = t;
	p->ops = ops;
	p->map_id = bpf_struct_ops_id(ops);
	INIT_WORK(&p->start, kpop_start_work);
	INIT_WORK(&p->retire, kpop_retire_work);

	r = kpop_register_map(p);
	if (r) {
		kfree(p);
		return ERR_PTR(r);
	}

	/* The caller of reg() or update() has the map: it cannot be at 0. */
	if (!bpf_struct_ops_get(ops)) {
		spin_lock(&kpop_maps_lock);
		hash_del(&p->node);
		spin_unlock(&kpop_maps_lock);
		kfree(p);
		return ERR_PTR(-ENOENT);
	}
	kpop_target_get(t);
	return p;
}

/**
 * kpop_target_attach - attach the first policy of a VM
 * @t: the VM's target; the caller keeps the VM
 * @ops: the policy; the caller keeps its map
 * @link: who may swap and detach it; kpop_target_detach() comes before it goes
 *
 * Return: 0, -EBUSY when the VM has a policy or the map a VM, -ENOMEM.  The
 * policy serves only once its init hook has succeeded.
 */
int kpop_target_attach(struct kpop_target *t, struct kpop_ops *ops,
		       struct bpf_link *link)
{
	struct kpop_policy *p;
	int r = 0;

	p = kpop_policy_alloc(t, ops);
	if (IS_ERR(p))
		return PTR_ERR(p);

	spin_lock_bh(&t->lock);
	if (t->state != KPOP_STATE_NONE || t->next) {
		r = -EBUSY;
	} else {
		t->next = p;
		t->link = link;
	}
	spin_unlock_bh(&t->lock);

	if (r)
		kpop_policy_free(p);
	else
		queue_work(kpop_hook_wq, &p->start);
	return r;
}

/*
 * May @link swap @ops in?  1: nothing is to be done, it serves already or will;
 * then what was to follow it is called off.
 */
static int kpop_may_swap_locked(struct kpop_target *t, struct kpop_ops *ops,
				struct bpf_link *link)
{
	struct kpop_policy *p = kpop_policy_locked(t);

	if (t->link != link)
		return -ENOLINK;
	if (t->next && t->next->ops == ops)
		return 1;
	if (p && p->ops == ops) {
		t->next = NULL;
		return 1;
	}
	return 0;
}

/**
 * kpop_target_swap - have another policy follow without a gap
 * @t: the VM's target
 * @ops: the new policy; the caller keeps its map
 * @link: the link that attached the old one
 *
 * Return: 0, -ENOLINK when @link has no say (VM gone, policy ejected or
 * detached), -EBUSY when @ops is attached or still on its way out, -ENOMEM.
 */
int kpop_target_swap(struct kpop_target *t, struct kpop_ops *ops,
		     struct bpf_link *link)
{
	struct kpop_policy *p;
	int r;

	spin_lock_bh(&t->lock);
	r = kpop_may_swap_locked(t, ops, link);
	spin_unlock_bh(&t->lock);
	if (r)
		return min(r, 0);

	p = kpop_policy_alloc(t, ops);
	if (IS_ERR(p))
		return PTR_ERR(p);

	spin_lock_bh(&t->lock);
	r = kpop_may_swap_locked(t, ops, link);
	if (!r)
		t->next = p;
	spin_unlock_bh(&t->lock);
	if (r) {
		kpop_policy_free(p);
		return min(r, 0);
	}

	/* If another one was to be next, its start sees that and retires. */
	queue_work(kpop_hook_wq, &p->start);
	return 0;
}

/**
 * kpop_target_detach - a link goes, and with it its policy
 * @t: the VM's target
 * @link: the link; that of an earlier policy changes nothing
 */
void kpop_target_detach(struct kpop_target *t, struct bpf_link *link)
{
	spin_lock_bh(&t->lock);
	if (t->link == link) {
		t->link = NULL;
		t->next = NULL;
		if (t->state == KPOP_STATE_ATTACHED)
			kpop_detach_locked(t);
	}
	spin_unlock_bh(&t->lock);
}

/**
 * kpop_target_init - give a new VM its target
 * @kv: the VM
 *
 * Context: VM creation.
 * Return: 0 or -ENOMEM.
 */
int kpop_target_init(struct kpop_vm *kv)
{
	struct kpop_target *t;
	int cpu;

	t = kzalloc(sizeof(*t), GFP_KERNEL_ACCOUNT);
	if (!t)
		return -ENOMEM;
	t->cpu = alloc_percpu_gfp(struct kpop_hook_cpu, GFP_KERNEL_ACCOUNT);
	if (!t->cpu || init_srcu_struct(&t->srcu)) {
		free_percpu(t->cpu);
		kfree(t);
		return -ENOMEM;
	}

	for_each_possible_cpu(cpu) {
		spin_lock_init(&per_cpu_ptr(t->cpu, cpu)->lock);
		INIT_LIST_HEAD(&per_cpu_ptr(t->cpu, cpu)->calls);
	}
	refcount_set(&t->count, 1);
	t->vm_id = kv->id;
	t->kv = kv;
	mutex_init(&t->vm_lock);
	spin_lock_init(&t->lock);
	timer_setup(&t->watchdog, kpop_watch, 0);
	INIT_WORK(&t->drop, kpop_drop_work);
	INIT_WORK(&t->free, kpop_target_free_work);
	kv->target = t;
	return 0;
}

/**
 * kpop_target_fini - the VM dies: part it from its link and policy
 * @kv: the VM; calling it again does nothing
 *
 * Waits for a drop in progress, never for a hook: exit() may run later, it
 * only gets the VM's number.  The link, if any, is defunct from now on.
 *
 * Context: VM destruction; no vCPU runs, so no hook does; may sleep.
 */
void kpop_target_fini(struct kpop_vm *kv)
{
	struct kpop_target *t = kv->target;
	struct kpop_policy *p;

	if (!t)
		return;
	kv->target = NULL;

	mutex_lock(&t->vm_lock);
	spin_lock_bh(&t->lock);
	p = kpop_policy_locked(t);
	RCU_INIT_POINTER(t->policy, NULL);
	t->next = NULL;
	t->link = NULL;
	t->kv = NULL;
	kpop_set_state(t, KPOP_STATE_NONE);
	spin_unlock_bh(&t->lock);
	mutex_unlock(&t->vm_lock);

	if (p)
		kpop_retire(p);
	kpop_target_put(t);
}

static void kpop_fill_hooks(struct kpop_target *t, struct kvm_kpop_info *info)
{
	struct kvm_kpop_hook_stat *from, *to;
	struct kpop_hook_cpu *hc;
	int cpu, i;

	for_each_possible_cpu(cpu) {
		hc = per_cpu_ptr(t->cpu, cpu);
		spin_lock_bh(&hc->lock);
		for (i = 0; i < KPOP_NR_HOOKS; i++) {
			from = &hc->stat[i];
			to = &info->hooks[i];
			to->calls += from->calls;
			to->errors += from->errors;
			to->time_ns += from->time_ns;
			to->max_ns = max(to->max_ns, from->max_ns);
		}
		spin_unlock_bh(&hc->lock);
	}
}

/**
 * kpop_policy_fill_info - what policies know for KVM_KPOP_OP_INFO
 * @kv: the VM
 * @info: zeroed
 *
 * A policy whose init has not succeeded yet is named with state NONE.
 *
 * Context: the caller keeps the VM; may sleep.
 */
void kpop_policy_fill_info(struct kpop_vm *kv, struct kvm_kpop_info *info)
{
	struct kpop_target *t = kv->target;
	struct kpop_policy *p;

	if (!t)
		return;

	spin_lock_bh(&t->lock);
	p = kpop_policy_locked(t) ?: t->next;
	if (p) {
		info->map_id = p->map_id;
		strscpy(info->policy, p->ops->name);
	}
	if (t->link)
		info->link_id = READ_ONCE(t->link->id);
	info->state = t->state;
	info->attaches = t->attaches;
	info->swaps = t->swaps;
	info->detaches = t->detaches;
	info->last_ejection = t->last;
	spin_unlock_bh(&t->lock);

	kpop_fill_hooks(t, info);
}

/**
 * kpop_target_module_init - make the workqueues
 *
 * Return: 0 or -ENOMEM.
 */
int kpop_target_module_init(void)
{
	kpop_drop_wq = alloc_workqueue("kpop_drop", WQ_UNBOUND, WQ_MAX_ACTIVE);
	kpop_hook_wq = alloc_workqueue("kpop_hook", WQ_UNBOUND, WQ_MAX_ACTIVE);
	if (kpop_drop_wq && kpop_hook_wq)
		return 0;

	kpop_target_module_exit();
	return -ENOMEM;
}

/**
 * kpop_target_module_exit - wait for what is still under way
 *
 * No VM and no link is left: a VM and a loaded policy map pin the module.  A
 * drop queues a retire, and that the free of a target, hence the order.
 */
void kpop_target_module_exit(void)
{
	if (kpop_drop_wq)
		flush_workqueue(kpop_drop_wq);
	if (kpop_hook_wq)
		destroy_workqueue(kpop_hook_wq);
	if (kpop_drop_wq)
		destroy_workqueue(kpop_drop_wq);
}
