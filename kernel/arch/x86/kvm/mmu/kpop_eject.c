// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP policies: what a policy is ejected for, beside a wrong answer.
 *
 * The budget of CPU time is checked at kfunc entry, at return, and by a
 * watchdog, which ejects while the hook still runs: the VM goes on without
 * waiting for it.  CPU time is the scheduler's, brought up to date at each
 * tick: a measure for a budget of many ticks, at the price of a load.  If L0
 * is itself a VM, time that its host takes away looks like CPU time of
 * whoever was running: see kpop_meter().
 *
 * Errors and delays are counted until something changes.
 */
#include <linux/bpf.h>
#include <linux/sched.h>
#include <linux/timekeeping.h>

#include "kpop_policy.h"
#include "kpop_trace.h"

const char * const kpop_hook_names[KPOP_NR_HOOKS] = {
	[KPOP_HOOK_INIT]	= "init",
	[KPOP_HOOK_EXIT]	= "exit",
	[KPOP_HOOK_LOAD]	= "load",
	[KPOP_HOOK_UNLOAD]	= "unload",
	[KPOP_HOOK_MAP]		= "map",
	[KPOP_HOOK_UNMAP]	= "unmap",
	[KPOP_HOOK_ZAP]		= "zap",
	[KPOP_HOOK_FAULT]	= "fault",
};

/**
 * kpop_eject - end a policy that is not right
 * @p: the policy; the caller keeps it
 * @kind: enum kpop_eject_kind
 * @hook: the hook concerned
 * @value: what it returned, or how much it took
 * @fmt: the reason in words
 *
 * The first call for a policy claims it: the record is kept with the VM, and
 * if the policy serves, its detach begins.  The link is defunct from then on.
 * The program itself cannot be stopped, but its kfuncs do nothing any more.
 *
 * Context: any but hardirq.
 */
void kpop_eject(struct kpop_policy *p, u32 kind, u32 hook, s64 value,
		const char *fmt, ...)
{
	struct kpop_target *t = p->target;
	struct kvm_kpop_ejection *e = &t->last;
	va_list args;

	spin_lock_bh(&t->lock);
	if (p->dead) {
		spin_unlock_bh(&t->lock);
		return;
	}
	WRITE_ONCE(p->dead, true);

	e->kind = kind;
	e->hook = hook;
	e->value = value;
	e->time_ns = ktime_get_real_ns();
	e->map_id = p->map_id;
	e->count++;
	strscpy_pad(e->policy, p->ops->name);
	memset(e->text, 0, sizeof(e->text));
	va_start(args, fmt);
	vscnprintf(e->text, sizeof(e->text), fmt, args);
	va_end(args);

	if (t->kv)
		kpop_count(t->kv->kvm, kpop_ejections);
	if (rcu_access_pointer(t->policy) == p) {
		kpop_detach_locked(t);
	} else if (t->next == p) {
		t->next = NULL;
		if (!rcu_access_pointer(t->policy))
			t->link = NULL;
	}
	spin_unlock_bh(&t->lock);

	trace_kvm_kpop_eject(t->vm_id, kind, hook, value);
}

/* How much CPU time @c took so far, its kfuncs not counted; from any CPU. */
static u64 kpop_call_used(struct kpop_call *c)
{
	u64 now, base;

	/* Pairs with kpop_kfunc_leave(). */
	if (smp_load_acquire(&c->in_kfunc))
		now = READ_ONCE(c->cpu_mark);
	else
		now = kpop_cpu_time(c->task);
	base = READ_ONCE(c->cpu_base);
	return now > base ? now - base : 0;
}

/*
 * Between two looks a hook that runs uses about what the watchdog's interval
 * is; more is time in which this CPU did not run.  Caller holds the lock of
 * the list that @c is on.
 */
static u64 kpop_meter(struct kpop_call *c, u64 used)
{
	if (used > c->used) {
		c->metered += min_t(u64, used - c->used, KPOP_LOOK_NS);
		c->used = used;
	}
	return c->metered;
}

/**
 * kpop_call_overdrawn - eject if a hook call is over the budget by itself
 * @c: a call of the current task
 *
 * Return: true if it is.
 */
bool kpop_call_overdrawn(struct kpop_call *c)
{
	struct kpop_hook_cpu *hc;
	u64 used;

	/* A coarse clock says no in most cases. */
	if (jiffies - c->start_jiffies < KPOP_BUDGET_NS / TICK_NSEC)
		return false;

	hc = per_cpu_ptr(c->target->cpu, c->cpu);
	spin_lock_bh(&hc->lock);
	used = kpop_meter(c, kpop_call_used(c));
	spin_unlock_bh(&hc->lock);
	if (used < KPOP_BUDGET_NS)
		return false;

	kpop_eject(c->policy, KPOP_EJECT_STALL, c->hook, used,
		   "%s() used %llu ms of CPU time, %llu are allowed",
		   kpop_hook_names[c->hook], used / NSEC_PER_MSEC,
		   (u64)KPOP_BUDGET_NS / NSEC_PER_MSEC);
	return true;
}

/* @sum: what the long calls of this VM have used so far. */
static void kpop_watch_call(struct kpop_call *c, u64 now, u64 *sum)
{
	u64 used = kpop_call_used(c);

	if (READ_ONCE(c->policy->dead))
		return;

	/* The scheduler's figure may be brought up to date during the call. */
	used = min(used, now > c->start_ns ? now - c->start_ns : 0);
	used = kpop_meter(c, used);

	if (used > KPOP_LONG_CALL_NS) {
		*sum += used;
		if (*sum > KPOP_BUDGET_NS) {
			kpop_eject(c->policy, KPOP_EJECT_STALL, c->hook, *sum,
				   "%s() still runs, hooks used %llu ms of CPU time",
				   kpop_hook_names[c->hook],
				   *sum / NSEC_PER_MSEC);
			*sum = 0;
		}
	}
	if (!READ_ONCE(c->in_kfunc) && now > c->start_ns &&
	    now - c->start_ns > KPOP_STUCK_NS)
		kpop_eject(c->policy, KPOP_EJECT_STALL, c->hook,
			   now - c->start_ns, "%s() waits for %llu ms",
			   kpop_hook_names[c->hook],
			   (now - c->start_ns) / NSEC_PER_MSEC);
}

/* Arm the watchdog; any context. */
void kpop_watch_later(struct kpop_target *t)
{
	WRITE_ONCE(t->watched, true);
	mod_timer(&t->watchdog, jiffies + KPOP_WATCH_JIFFIES);
}

/**
 * kpop_watch - the watchdog of a VM's hooks
 * @timer: its kpop_target.watchdog
 *
 * A call that begins while this runs either is seen on its list, or saw
 * @watched false under the list's lock and arms the timer.
 *
 * Context: softirq.
 */
void kpop_watch(struct timer_list *timer)
{
	struct kpop_target *t = from_timer(t, timer, watchdog);
	u64 now = ktime_get_ns(), sum = 0;
	struct kpop_hook_cpu *hc;
	struct kpop_call *c;
	bool busy = false;
	int cpu;

	WRITE_ONCE(t->watched, false);
	for_each_possible_cpu(cpu) {
		hc = per_cpu_ptr(t->cpu, cpu);
		spin_lock(&hc->lock);
		list_for_each_entry(c, &hc->calls, node) {
			kpop_watch_call(c, now, &sum);
			busy = true;
		}
		spin_unlock(&hc->lock);
	}
	if (busy)
		kpop_watch_later(t);
}

/**
 * kpop_no_error - an answer that L1 can use came out
 * @c: of this call; the errors before were not in a row
 */
void kpop_no_error(struct kpop_call *c)
{
	if (atomic_read(&c->policy->errors))
		atomic_set(&c->policy->errors, 0);
}

/**
 * kpop_error - a call was of no use to L1
 * @c: the call
 * @ret: what it returned
 */
void kpop_error(struct kpop_call *c, int ret)
{
	if (atomic_inc_return(&c->policy->errors) > KPOP_MAX_ERRORS)
		kpop_eject(c->policy, KPOP_EJECT_ERRORS, c->hook, ret,
			   "more than %d errors in a row, last %s() with %d",
			   KPOP_MAX_ERRORS, kpop_hook_names[c->hook], ret);
}

/**
 * kpop_answered - something changed for [gfn, gfn + npages) of a space
 * @c: by this call
 * @token: the space
 * @gfn: L2 gfn, or KPOP_NO_GFN for the space itself
 * @npages: how many
 */
void kpop_answered(struct kpop_call *c, u64 token, u64 gfn, u64 npages)
{
	struct kpop_target *t = c->target;
	struct kpop_delay *d;
	u32 i = 0;

	if (!READ_ONCE(t->nr_delays))
		return;

	spin_lock_bh(&t->lock);
	while (i < t->nr_delays) {
		d = &t->delays[i];
		if (d->token == token && d->gfn - gfn < npages)
			*d = t->delays[--t->nr_delays];
		else
			i++;
	}
	spin_unlock_bh(&t->lock);
}

/* The entry of an L2 gfn, else a new one, else that with the fewest delays. */
static struct kpop_delay *kpop_find_delay(struct kpop_target *t, u64 token,
					  u64 gfn)
{
	struct kpop_delay *d, *fewest = t->delays;
	u32 i;

	for (i = 0; i < t->nr_delays; i++) {
		d = &t->delays[i];
		if (d->token == token && d->gfn == gfn)
			return d;
		if (d->count < fewest->count)
			fewest = d;
	}
	d = t->nr_delays < KPOP_NR_DELAYS ? &t->delays[t->nr_delays++] : fewest;
	*d = (struct kpop_delay) { .token = token, .gfn = gfn };
	return d;
}

/**
 * kpop_delayed - L1 or L2 will come again; not for ever
 * @c: by this call
 * @token: the space
 * @gfn: L2 gfn, or KPOP_NO_GFN for the space itself
 * @ret: what the hook returned
 */
void kpop_delayed(struct kpop_call *c, u64 token, u64 gfn, int ret)
{
	struct kpop_target *t = c->target;
	u32 count;

	spin_lock_bh(&t->lock);
	count = ++kpop_find_delay(t, token, gfn)->count;
	spin_unlock_bh(&t->lock);

	if (count >= KPOP_MAX_DELAYS)
		kpop_eject(c->policy, KPOP_EJECT_PROGRESS, c->hook, ret,
			   "%s() returned %d and did nothing, %u times for L2 gfn 0x%llx",
			   kpop_hook_names[c->hook], ret, count, gfn);
}
