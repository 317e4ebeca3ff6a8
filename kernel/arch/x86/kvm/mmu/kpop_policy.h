/* SPDX-License-Identifier: GPL-2.0 */
#ifndef __KVM_X86_MMU_KPOP_POLICY_H
#define __KVM_X86_MMU_KPOP_POLICY_H

/*
 * What kpop_policy.c, kpop_target.c, kpop_dispatch.c, kpop_eject.c and
 * kpop_kfunc.c share; the rest of KPOP includes kpop.h.
 *
 * What a swap or a detach replaces, and who protects it:
 *
 *   pointer                reader                     released after
 *   kpop_target.policy     hooks: kpop_target.srcu    synchronize_srcu()
 *   kpop_policy.ops        the same; init and exit    exit hook; then the
 *                          own their policy           reference on the map
 *   kpop_target.kv         works: kpop_target.vm_lock kpop_target_fini()
 *                          eject: kpop_target.lock
 *   kpop_target.link       reg, update, unreg, info:  unreg, which comes
 *                          kpop_target.lock           before the core frees it
 *
 * Lock order: kpop_target.vm_lock, kpop_vm.lock; kpop_hook_cpu.lock,
 * kpop_target.lock.  The locks of the hash tables are leafs.
 */

#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

#include "kpop.h"

struct bpf_link;
struct btf;

/* CPU time that the hooks of one VM may use at once. */
#define KPOP_BUDGET_NS		(100 * NSEC_PER_MSEC)
/* A call adds to what its VM uses at once when it is beyond this. */
#define KPOP_LONG_CALL_NS	(KPOP_BUDGET_NS / 8)
/* A hook must not sleep either: the longest call by the clock. */
#define KPOP_STUCK_NS		(10 * NSEC_PER_SEC)
/* How often the watchdog looks while a hook runs. */
#define KPOP_WATCH_JIFFIES	max(HZ / 100, 1)
/* What may pass between two looks at a call that does run. */
#define KPOP_LOOK_NS		(2 * KPOP_WATCH_JIFFIES * TICK_NSEC)
/* Own errors in a row. */
#define KPOP_MAX_ERRORS		64
/* Delays of one L2 gfn with nothing changed. */
#define KPOP_MAX_DELAYS		8
#define KPOP_NR_DELAYS		32
/* In the place of an L2 gfn: a load is about none. */
#define KPOP_NO_GFN		(~0ULL)

/**
 * struct kpop_policy - one policy's stay with one VM
 * @node: in kpop_maps
 * @target: the VM's; a reference
 * @ops: the kernel's struct of the struct_ops map, with a reference on it of
 *	our own: the link's goes while hooks may still run
 * @map_id: id of that map
 * @dead: ejected or detached: its kfuncs do nothing, what it returns does not
 *	count.  Set under kpop_target.lock, never cleared.
 * @started: its init hook has run, so its exit hook must
 * @swap_in: it follows another policy without a gap
 * @swap_out: it was followed by another one without a gap
 * @errors: own errors in a row
 * @start: work: runs init and publishes
 * @retire: work: waits for readers, runs exit and frees
 *
 * Owned by @start until it is published, by kpop_target.policy then, and by
 * @retire after that.
 */
struct kpop_policy {
	struct hlist_node node;
	struct kpop_target *target;
	struct kpop_ops *ops;
	u32 map_id;
	bool dead;
	bool started;
	bool swap_in;
	bool swap_out;
	atomic_t errors;
	struct work_struct start;
	struct work_struct retire;
};

/**
 * struct kpop_call - a hook call in progress, on the caller's stack
 * @node: in kpop_hook_cpu.calls
 * @target: the VM's
 * @policy: whose hook it is
 * @task: who runs it
 * @hook: enum kpop_hook
 * @cpu: whose kpop_hook_cpu.calls it is on
 * @start_ns: CLOCK_MONOTONIC
 * @cpu_base: CPU time of @task that is not the hook's
 * @cpu_mark: CPU time of @task when it entered the kfunc it is in
 * @in_kfunc: in a kfunc: the core's time, not the hook's
 * @used: the hook's CPU time at the last look, under kpop_hook_cpu.lock
 * @metered: what of it counts, see kpop_meter(); under kpop_hook_cpu.lock
 * @errors: the errors that its kfuncs got from the core, a bit each
 */
struct kpop_call {
	struct list_head node;
	struct kpop_target *target;
	struct kpop_policy *policy;
	struct task_struct *task;
	u32 hook;
	int cpu;
	u64 start_ns;
	unsigned long start_jiffies;
	u64 cpu_base;
	u64 cpu_mark;
	u64 used;
	u64 metered;
	bool in_kfunc;
	u64 errors;
};

/* The core's errors are of errno-base.h, below 64. */
static inline void kpop_note_error(struct kpop_call *c, int err)
{
	c->errors |= BIT_ULL(-err & 63);
}

static inline bool kpop_had_error(const struct kpop_call *c, int err)
{
	return err < 0 && err > -64 && c->errors & BIT_ULL(-err);
}

/* Hook calls that began on one CPU: in progress, and counted. */
struct kpop_hook_cpu {
	spinlock_t lock;			/* taken in softirqs */
	struct list_head calls;
	struct kvm_kpop_hook_stat stat[KPOP_NR_HOOKS];
};

/* An L2 gfn that got delays instead of answers. */
struct kpop_delay {
	u64 token;
	u64 gfn;
	u32 count;
};

/**
 * struct kpop_target - what stands between a link and a VM
 *
 * Referenced by the VM, by each link that was ever attached to it, by each of
 * its policies and by queued work; so VM and link may die in any order.
 *
 * States of a policy's stay; all changes are made under @lock:
 *
 *             reg                  init ok                unreg, eject
 *   NONE -----------> NONE, @next ---------> ATTACHED -------------> DETACHING
 *    ^ ^                 | init fails, unreg   | ^ update: @next, init, swap |
 *    | +-----------------+                     +-+                           |
 *    +---------------------------- all spaces dropped -----------------------+
 *
 * @count: references
 * @vm_id: kpop_vm.id
 * @vm_lock: while held the VM stays; never held across a hook
 * @srcu: read by hook calls of vCPUs
 * @lock: of all below it; taken in softirqs
 * @kv: NULL from kpop_target_fini() on; changed under @vm_lock and @lock
 * @policy: whom the hooks belong to
 * @next: its init hook is about to run or runs; to be @policy
 * @link: the link that may update and detach; any other one is defunct
 * @state: enum kpop_state
 * @attaches: policies that came after none
 * @swaps: policies that followed another one
 * @detaches: how often the VM was left without one
 * @last: the last ejection
 * @delays: L2 gfns that wait for an answer
 * @nr_delays: how many of them
 * @cpu: hook calls
 * @watchdog: runs kpop_watch() while a hook does
 * @watched: the watchdog is armed
 * @drop: work: takes mappings and policy away
 * @free: work: frees this
 */
struct kpop_target {
	refcount_t count;
	u64 vm_id;
	struct mutex vm_lock;			/* the VM's life */
	struct srcu_struct srcu;

	spinlock_t lock;			/* taken in softirqs */
	struct kpop_vm *kv;
	struct kpop_policy __rcu *policy;
	bool has_fault;				/* a hint: it has that hook */
	struct kpop_policy *next;
	struct bpf_link *link;
	u32 state;
	u64 attaches;
	u64 swaps;
	u64 detaches;
	struct kvm_kpop_ejection last;
	struct kpop_delay delays[KPOP_NR_DELAYS];
	u32 nr_delays;

	struct kpop_hook_cpu __percpu *cpu;
	struct timer_list watchdog;
	bool watched;
	struct work_struct drop;
	struct work_struct free;
};

/* kpop_target.c */
static inline void kpop_target_get(struct kpop_target *t)
{
	refcount_inc(&t->count);
}

void kpop_target_put(struct kpop_target *t);
int kpop_target_attach(struct kpop_target *t, struct kpop_ops *ops,
		       struct bpf_link *link);
int kpop_target_swap(struct kpop_target *t, struct kpop_ops *ops,
		     struct bpf_link *link);
void kpop_target_detach(struct kpop_target *t, struct bpf_link *link);
void kpop_detach_locked(struct kpop_target *t);
int kpop_target_module_init(void);
void kpop_target_module_exit(void);

/* kpop_dispatch.c */
int kpop_call_init(struct kpop_policy *p);
void kpop_call_exit(struct kpop_policy *p);

/* kpop_eject.c */
extern const char * const kpop_hook_names[KPOP_NR_HOOKS];

static inline u64 kpop_cpu_time(struct task_struct *task)
{
	return READ_ONCE(task->se.sum_exec_runtime);
}

__printf(5, 6)
void kpop_eject(struct kpop_policy *p, u32 kind, u32 hook, s64 value,
		const char *fmt, ...);
bool kpop_call_overdrawn(struct kpop_call *c);
void kpop_watch_later(struct kpop_target *t);
void kpop_watch(struct timer_list *timer);
void kpop_no_error(struct kpop_call *c);
void kpop_error(struct kpop_call *c, int ret);
void kpop_answered(struct kpop_call *c, u64 token, u64 gfn, u64 npages);
void kpop_delayed(struct kpop_call *c, u64 token, u64 gfn, int ret);

/* kpop_kfunc.c */
int bpf_kpop_load(struct kpop_load_ctx *ctx);
int bpf_kpop_map(struct kpop_map_ctx *ctx, u64 offset, u64 npages, u32 rights,
		 u32 how);
int bpf_kpop_window(struct kpop_map_ctx *ctx, u32 pages);
int kpop_kfunc_set_btf(const struct btf *btf);
int kpop_kfunc_init(void);

#endif /* __KVM_X86_MMU_KPOP_POLICY_H */
