/* SPDX-License-Identifier: GPL-2.0 */
#ifndef __KVM_X86_MMU_KPOP_H
#define __KVM_X86_MMU_KPOP_H

/*
 * KPOP in L0: the objects, their locks, and what the kpop_*.c files give to
 * each other.  The rest of KVM includes kpop_seam.h, nothing else.
 *
 *   kpop_vm.c         per-VM state, bounds, everything that ends it
 *   kpop_space.c      address spaces, their roots, bindings (kpop_guest_mmu)
 *   kpop_trans.c      translations and the reverse map
 *   kpop_map.c        install, remap, unmap
 *   kpop_fault.c      an L2 vCPU: its mmu, its faults, L2 gpa -> L1 gpa
 *   kpop_notify.c     what L0 does to its own memory: notifiers, dirty log
 *   kpop_track.c      what L2 accessed and wrote, kept for L1
 *   kpop_only.c       a VM whose L2s run on KPOP or not at all
 *   kpop_buffer.c     what L2 wrote, told to L1 one by one
 *   kpop_hypercall.c  the hypercalls: every argument is checked here
 *   kpop_policy.c     struct_ops plumbing
 *   kpop_target.c     attach, swap, detach, lifetimes
 *   kpop_dispatch.c   calls of hooks, checks of what they return
 *   kpop_eject.c      ejection: budget, watchdog, errors, progress
 *   kpop_kfunc.c      what a hook may call
 *   kpop_check.c      proof of the tables, for tests
 *   kpop_ioctl.c      the controller's door on /dev/kvm
 *   kpop_guest.c      the other side: KVM as an L1 on KPOP
 *
 * Lock order: kvm->srcu, kpop_buffer.lock, kpop_vm.lock, mmu_lock,
 * kpop_vm.tree_lock.
 */

#include <linux/kvm_host.h>
#include <linux/interval_tree_generic.h>
#include <linux/rbtree.h>
#include <asm/kvm_kpop.h>

#include "kpop_ops.h"
#include "kpop_seam.h"
#include "mmu_internal.h"

struct kpop_policy;
struct kpop_target;
struct kpop_call;
struct kpop_load_kern;

#define KPOP_HASH_BITS		6

/* Bounds of one VM; all memory below is also charged to a memcg. */
#define KPOP_MAX_SPACES		4096
#define KPOP_MAX_BINDINGS	16384
#define KPOP_DEFAULT_CAP	BIT_ULL(30)
/* What one vCPU may add in page tables between two looks at the cap. */
#define KPOP_PT_SLACK		(PT64_ROOT_MAX_LEVEL * PAGE_SIZE)
/*
 * Page tables for each vCPU that no cap takes away: an instruction of L2, with
 * L2's own tables, may need a dozen pages far from each other at a time.
 */
#define KPOP_PT_FLOOR		64

/* Ranges that L1 logs at a time; each fault looks through them. */
#define KPOP_MAX_LOGS		128

/*
 * As RMAP_RECYCLE_THRESHOLD: how many runs may lead to one L1 gfn.  A new one that
 * is long is counted with all that lead to any page of it.
 */
#define KPOP_MAX_ALIASES	1000

/**
 * struct kpop_vm - KPOP's state of one L1 VM
 *
 * Allocated with the VM, freed after its last vCPU, space and policy.
 */
struct kpop_vm {
	struct kvm *kvm;
	u64 id;
	/*
	 * L1 and L2 gfns are below this: no more than a root can index, or the
	 * iterator would alias.
	 */
	u64 gfn_limit;

	/* Spaces and bindings; a mutex, never held across a hook. */
	struct mutex lock;
	DECLARE_HASHTABLE(bindings, KPOP_HASH_BITS);	/* kpop_guest_mmu.hnode */
	/*
	 * Spaces by the L1 gfn of their token.  Changed under lock, looked at
	 * under RCU by page tracking, which must not look at the space.
	 */
	struct xarray tokens;
	struct list_head spaces;
	unsigned int nr_spaces;
	unsigned int nr_bindings;
	u64 bind_gen;				/* changes with bindings */
	struct list_head logs;			/* changed under mmu_lock too */
	unsigned int nr_logs;
	struct list_head buffers;		/* with nr_buffers, lock */
	unsigned int nr_buffers;
	unsigned int dropping;			/* no LOAD: all of it goes */
	bool closed;				/* no LOAD: going, or no policy */
	unsigned int closes;			/* how often it was */
	atomic_t virt_vcpus;			/* vCPUs with SVM or VMX on */

	/*
	 * kpop-only, changed under kvm->slots_lock.  @nowhere is there before
	 * @only is set for the first time, and until the VM goes.
	 */
	bool only;
	struct kpop_space *nowhere;

	/*
	 * The trees of translations.  Readers and adders hold mmu_lock for
	 * read and this for read or write; what takes a translation away
	 * holds mmu_lock and this for write.
	 */
	rwlock_t tree_lock;
	struct rb_root_cached rmap;			/* kpop_run.rmap_rb */
	u64 run_seq;

	/* Bytes of translations, spaces and bindings; page tables; the cap. */
	atomic64_t bytes;
	atomic_t nr_pts;
	u64 cap;

	/*
	 * An L2 access by L0 (emulation, page walk) that began before a
	 * translation went is waited for; see kpop_wait_walks().
	 */
	atomic_t walk_epoch;

	/* kpop_policy.c, kpop_dispatch.c */
	struct kpop_target *target;
};

/**
 * struct kpop_space - one L2 VM's memory as one L1 root sees it
 *
 * @root: a TDP root, replaced when L0's memslots change; protected by
 *	mmu_lock, NULL until an L2 vCPU runs on it or a page is installed.
 * @dead: dropped; set under mmu_lock for write and never cleared.  No
 *	translation is added to a dead space.
 */
struct kpop_space {
	refcount_t count;
	struct list_head link;			/* kpop_vm.spaces */
	struct kpop_vm *kv;
	gpa_t token;
	u32 kvm_id;
	u32 as_id;
	bool dead;
	bool listed;				/* in tokens and spaces */
	struct kvm_mmu_page *root;
	struct rb_root runs;			/* kpop_run.l2_rb, tree_lock */
	u64 nr_runs;				/* tree_lock */
	u64 nr_pages;				/* tree_lock */
	u64 taken;				/* mmu_lock and tree_lock for write */
	unsigned int nr_bindings;		/* kpop_vm.lock */
	unsigned int siblings;			/* kpop_vm.lock to change */
	atomic_t replaced;			/* remaps that took something away ... */
	int waited;				/* ... and those that walks were waited for */
};

static inline bool kpop_space_is(const struct kpop_space *space, u32 kvm_id,
				 u32 as_id)
{
	return space->kvm_id == kvm_id && space->as_id == as_id;
}

/* Spaces of one L2 VM and as_id show the same: a remap is one in all. */
static inline bool kpop_siblings(const struct kpop_space *a,
				 const struct kpop_space *b)
{
	return kpop_space_is(a, b->kvm_id, b->as_id);
}

/**
 * struct kpop_guest_mmu - binding of one L1 vcpu_holder to a space
 * @vcpu_holder: L1 GPA of vmcb12 / vmcs12
 * @count: the hash's reference; what a vCPU runs on is the space
 */
struct kpop_guest_mmu {
	struct hlist_node hnode;
	gpa_t vcpu_holder;
	u32 kvm_id;
	u32 as_id;
	hpa_t root_hpa;				/* none: the root is the space's */
	refcount_t count;
	struct kpop_space *space;		/* a reference */
};

/**
 * struct kpop_run - [l2, l2 + n) of a space is [l1, l1 + n) of L1
 *
 * In two trees: the space's, by L2 gfn (runs of one space never overlap), and
 * the VM's, an interval tree by L1 gfn (there they may).
 */
struct kpop_run {
	struct rb_node l2_rb;
	struct rb_node rmap_rb;
	gfn_t l2;
	gfn_t l1;
	gfn_t l1_subtree_last;
	u32 npages;
	u32 rights;
	u64 seq;
	struct kpop_space *space;
};

static inline gfn_t kpop_run_l2_end(const struct kpop_run *run)
{
	return run->l2 + run->npages;
}

static inline gfn_t kpop_run_l1(const struct kpop_run *run)
{
	return run->l1;
}

static inline gfn_t kpop_run_l1_last(const struct kpop_run *run)
{
	return run->l1 + run->npages - 1;
}

#define KPOP_TAKEN_UNKNOWN	U64_MAX

/**
 * struct kpop_trans - a translation by value: what a lookup returns
 * @rights: 0 if there is none
 * @taken: the space's at the time of the lookup.  As long as that is the same,
 *	no page was taken away from the space and this still holds.
 */
struct kpop_trans {
	gfn_t l2;
	gfn_t l1;
	u64 npages;
	u32 rights;
	u64 taken;
};

/* kpop_vm.c */
static inline struct kpop_vm *kpop_vm(struct kvm *kvm)
{
	return kvm->arch.kpop;
}

int kpop_charge(struct kpop_vm *kv, u64 bytes);
void kpop_uncharge(struct kpop_vm *kv, u64 bytes);

/*
 * One more in a statistic of the VM.  As with KVM's own, two vCPUs at once may count
 * one: that is what data_race() says.
 */
#define kpop_count(kvm, what) data_race((kvm)->stat.what++)

u64 kpop_bytes(struct kpop_vm *kv);
void kpop_make_room(struct kpop_vm *kv);
void kpop_drop_all(struct kpop_vm *kv);
void kpop_close(struct kpop_vm *kv);
void kpop_open(struct kpop_vm *kv);
int kpop_wait_walks(struct kpop_vm *kv);
void kpop_fill_info(struct kpop_vm *kv, struct kvm_kpop_info *info);
u32 kpop_fill_spaces(struct kpop_vm *kv, struct kvm_kpop_space_info *to, u32 max);

/* kpop_space.c */
/* A space and its root page. */
#define KPOP_SPACE_BYTES (sizeof(struct kpop_space) + PAGE_SIZE + \
			  sizeof(struct kvm_mmu_page))

struct kpop_guest_mmu *kpop_alloc_guest_mmu(struct kpop_vm *kv, gpa_t holder,
					    struct kpop_space *space);
void kpop_put_guest_mmu(struct kpop_vm *kv, struct kpop_guest_mmu *gmmu);
struct kpop_guest_mmu *kpop_find_guest_mmu(struct kpop_vm *kv, gpa_t holder,
					   gpa_t token);
struct kpop_space *kpop_get_space(struct kpop_vm *kv, gpa_t token);
void kpop_put_space(struct kpop_space *space);
struct kvm_mmu_page *kpop_get_root(struct kpop_space *space);
void kpop_drop_space(struct kpop_space *space);
void kpop_zap_space_root(struct kpop_space *space);
int kpop_bind(struct kpop_vm *kv, const struct kpop_load_kern *k);
int kpop_unbind(struct kpop_vm *kv, gpa_t holder, gpa_t token);
struct kvm_mmu_page *kpop_valid_root(struct kpop_space *space);
struct kvm_mmu_page *kpop_space_root(struct kvm_vcpu *vcpu,
				     struct kpop_space *space);

/* kpop_fault.c */
bool kpop_pick_space(struct kvm_vcpu *vcpu, gpa_t holder, u64 token);
void kpop_leave_space(struct kvm_vcpu *vcpu);

/* kpop_only.c */
int kpop_set_only(struct kpop_vm *kv, bool only);
void kpop_free_only(struct kpop_vm *kv);
void kpop_enter_nowhere(struct kvm_vcpu *vcpu);
void kpop_evict(struct kvm_vcpu *vcpu);

/* Does L0 refuse this VM's L2s any paging but KPOP? */
static inline bool kpop_only(struct kpop_vm *kv)
{
	/* Pairs with kpop_set_only(): @nowhere is there. */
	return smp_load_acquire(&kv->only);
}

/* kpop_trans.c */
#define KPOP_SPARE_RUNS		3

struct kpop_spare {
	struct kpop_run *run[KPOP_SPARE_RUNS];
	int nr;
};

int kpop_trans_init(void);
void kpop_trans_exit(void);
int kpop_spare_fill(struct kpop_vm *kv, struct kpop_spare *spare, gfp_t gfp);
void kpop_spare_drop(struct kpop_vm *kv, struct kpop_spare *spare);
bool kpop_trans_lookup(struct kpop_space *space, gfn_t l2, struct kpop_trans *t);
struct kpop_run *kpop_trans_first(struct kpop_space *space, gfn_t l2, gfn_t l2_end);
bool kpop_trans_conflicts(struct kpop_space *space, const struct kpop_trans *t);
bool kpop_trans_known(struct kpop_space *space, struct kpop_trans *t);
bool kpop_trans_extend(struct kpop_space *space, struct kpop_trans *t);
void kpop_trans_insert(struct kpop_space *space, const struct kpop_trans *t,
		       struct kpop_spare *spare);
void kpop_trans_punch(struct kpop_space *space, gfn_t l2, gfn_t l2_end,
		      struct kpop_spare *spare);
void kpop_trans_drop_all(struct kpop_space *space);
int kpop_trans_toggle_rmap(struct kpop_space *space);
struct kpop_run *kpop_rmap_first(struct kpop_vm *kv, gfn_t l1, gfn_t l1_last);
struct kpop_run *kpop_rmap_next(struct kpop_run *run, gfn_t l1, gfn_t l1_last);

/**
 * struct kpop_log - a range of L2 gfns that L1 logs
 * @buffer: where each page written is told, or NULL; then a bit is set only if
 *	it was, see kpop_buffer.c.  A reference
 *
 * In kpop_vm.logs: changed under kv->lock and mmu_lock held for write, so
 * either is enough to look.
 */
struct kpop_log {
	struct list_head link;
	struct kpop_buffer *buffer;
	u32 kvm_id;
	u32 as_id;
	gfn_t l2;
	u64 npages;
	unsigned long bits[];
};

/* kpop_track.c */
enum kpop_log_state {
	KPOP_LOG_NONE,
	KPOP_LOG_CLEAN,
	KPOP_LOG_DIRTY,
};

enum kpop_log_state kpop_log_access(struct kpop_space *space, gfn_t l2, bool write);
bool kpop_log_overlaps(struct kpop_space *space, gfn_t l2, u64 npages);
int kpop_log_walk(struct kpop_space *space, gfn_t l2);
void kpop_log_drop_buffered(struct kpop_vm *kv, const struct kpop_buffer *buf);
bool kpop_log_has_buffer(struct kpop_space *space, gfn_t l2, u64 npages);
struct kpop_log *kpop_log_find(struct kpop_vm *kv, u32 kvm_id, u32 as_id, gfn_t l2);
void kpop_protect_mask(struct kpop_vm *kv, const struct kpop_log *log, gfn_t l2,
		       unsigned long mask);
void kpop_log_drop_all(struct kpop_vm *kv);
int kpop_log_start(struct kpop_vm *kv, u32 kvm_id, u32 as_id, gfn_t l2, u64 npages,
		   bool buffered);
int kpop_log_stop(struct kpop_vm *kv, u32 kvm_id, u32 as_id, gfn_t l2, u64 npages);
long kpop_log_read(struct kpop_vm *kv, u32 kvm_id, u32 as_id, gfn_t l2, u64 npages,
		   unsigned long *to);
long kpop_age_range(struct kpop_vm *kv, u32 kvm_id, u32 as_id, gfn_t l2, u64 npages,
		    unsigned long *to, bool test_only);

/* kpop_buffer.c */
struct kpop_buffer *kpop_buffer_get(struct kpop_vm *kv, u32 kvm_id);
void kpop_buffer_put(struct kpop_vm *kv, struct kpop_buffer *buf);
int kpop_buffer_set(struct kpop_vm *kv, u32 kvm_id, u32 max, gpa_t gpa);
int kpop_buffer_clear(struct kpop_vm *kv, u32 kvm_id);
void kpop_buffer_drop_all(struct kpop_vm *kv);
int kpop_buffer_tell(struct kpop_space *space, gfn_t l2);
long kpop_buffer_take(struct kpop_vm *kv, u32 kvm_id, gpa_t to);

/* kpop_check.c */
#define KPOP_CHECK_MAX_LEAFS	BIT_ULL(20)

#ifdef CONFIG_KVM_PROVE_MMU
void kpop_check(struct kpop_vm *kv, struct kvm_kpop_check *c);
int kpop_plant(struct kpop_vm *kv, u32 what);
#endif

/* kpop_map.c: what the kfuncs wrap */

/**
 * struct kpop_load_kern - a LOAD in progress; the hook sees @ctx
 *
 * @closes: kpop_vm.closes before the policy was looked up: what it allows when
 *	another one has taken its place counts no more
 */
struct kpop_load_kern {
	struct kpop_load_ctx ctx;
	struct kvm_vcpu *vcpu;
	struct kpop_call *call;			/* set by kpop_dispatch.c */
	unsigned int closes;
	bool done;
};

/**
 * struct kpop_map_kern - a MAP of one run in progress; the hook sees @ctx
 *
 * @done: pages that bpf_kpop_map() recorded
 * @rights: rights granted to the last of them
 * @window: hint to L1
 */
struct kpop_map_kern {
	struct kpop_map_ctx ctx;
	struct kvm_vcpu *vcpu;
	struct kpop_call *call;			/* set by kpop_dispatch.c */
	struct kpop_space *space;
	u64 done;
	u32 rights;
	u32 window;
};

int kpop_do_load(struct kpop_load_kern *k);
int kpop_do_map(struct kpop_map_kern *k, u64 offset, u64 npages, u32 rights,
		u32 how);
int kpop_install(struct kvm_vcpu *vcpu, struct kpop_space *space,
		 struct kvm_page_fault *fault, const struct kpop_trans *t,
		 bool wait);
struct kvm_memory_slot *kpop_l1_slot(struct kvm *kvm, gfn_t l1);
int kpop_unmap_range(struct kpop_vm *kv, u32 kvm_id, u32 as_id, bool all_as,
		     gfn_t l2, u64 npages);

/* kpop_dispatch.c: negative returns are what the hypercall answers */
bool kpop_policy_ready(struct kpop_vm *kv);
int kpop_policy_status(struct kpop_vm *kv);
int kpop_call_load(struct kpop_vm *kv, struct kpop_load_kern *k);
void kpop_call_unload(struct kpop_vm *kv, struct kpop_unload_ctx *ctx);
int kpop_call_map(struct kpop_vm *kv, struct kpop_map_kern *k);
void kpop_call_unmap(struct kpop_vm *kv, struct kpop_unmap_ctx *ctx, bool zap);
/* 0: reflect to L1, 1: let L2 fault again */
int kpop_call_fault(struct kpop_vm *kv, struct kpop_fault_ctx *ctx);

/* kpop_policy.c */
int kpop_policy_module_init(void);
void kpop_policy_module_exit(void);
int kpop_target_init(struct kpop_vm *kv);
void kpop_target_fini(struct kpop_vm *kv);
void kpop_policy_fill_info(struct kpop_vm *kv, struct kvm_kpop_info *info);

#endif /* __KVM_X86_MMU_KPOP_H */
