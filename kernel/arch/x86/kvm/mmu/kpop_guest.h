/* SPDX-License-Identifier: GPL-2.0 */
#ifndef __KVM_X86_MMU_KPOP_GUEST_H
#define __KVM_X86_MMU_KPOP_GUEST_H

/*
 * The calls by which the rest of KVM x86 reaches KPOP's L1 side: this KVM is
 * itself a guest and L0 keeps its guests' page tables.  With CONFIG_KVM_KPOP=n
 * all of them are stubs, so that no caller has an #ifdef.  See kpop_guest.c.
 */

#include <linux/kvm_host.h>
#include <asm/kvm_kpop.h>

struct kvm_page_fault;

/*
 * States of an L2 VM on KPOP:
 *
 *   (no kpop_guest)      never on KPOP: L0 did not offer it at VM creation
 *   ON --> FALLBACK      cmpxchg, any lock: L0 refused; no LOAD or MAP follows
 *   FALLBACK --> OFF     slots_lock, mmu_lock for write: every token is
 *                        unloaded; roots allocated from now on are real ones
 */
enum kpop_guest_state {
	KPOP_GUEST_ON,
	KPOP_GUEST_FALLBACK,
	KPOP_GUEST_OFF,
};

/**
 * struct kpop_guest_vm - an L2 VM whose page tables L0 keeps
 * @kvm: the VM; it outlives this
 * @state: enum kpop_guest_state
 * @kvm_id: this VM's number in hypercalls, unique in this L1
 * @gfn_limit: L0 takes L2 gfns below this one
 * @epoch: bumped when bindings of holders may be void; a vCPU whose binding
 *	is of another epoch sends LOAD again
 * @fallback: moves the VM to its own page tables, outside kvm->srcu
 * @young: struct kpop_guest_young by chunk and as_id; mmu_lock held for write
 * @page: for answers in that; NULL: L0 tracks nothing for L1
 * @ring: the page in which L0 tells what L2 wrote, or NULL; kpop_guest_ring.c
 * @taken: a page for what was taken from there; ring_lock
 * @ring_lock: one takes from @ring at a time; taken under mmu_lock or without
 * @ring_lost: L0 tells no longer
 * @nx_next: where recovery of NX huge pages goes on, by as_id; mmu_lock held for
 *	write
 */
struct kpop_guest_vm {
	struct kvm *kvm;
	int state;
	u32 kvm_id;
	u64 gfn_limit;
	atomic64_t epoch;
	struct work_struct fallback;
	struct xarray young;
	unsigned long *page;
	u64 *ring;
	u64 *taken;
	spinlock_t ring_lock;	/* takers of @ring */
	bool ring_lost;
	gfn_t nx_next[KPOP_NR_AS_IDS];
};

/**
 * struct kpop_guest_slot - a memslot of a VM on KPOP
 * @offered: one bit for each 4K, 2M, 1G page offered to L0; mmu_lock
 * @nx_split: one bit for each 2M page that is offered in 4K only as it is
 *	executed; set under mmu_lock for read, cleared under it for write
 * @logged: L0 logs what L2 writes; slots_lock to change
 */
struct kpop_guest_slot {
	unsigned long *offered[KVM_NR_PAGE_SIZES];
	unsigned long *nx_split;
	bool logged;
};

#ifdef CONFIG_KVM_KPOP
/*
 * True while every direct root of @kvm is a token and no SPTE exists below
 * one.  Becomes false only under mmu_lock held for write.
 */
static inline bool kpop_guest_on(struct kvm *kvm)
{
	struct kpop_guest_vm *kg = kvm->arch.kpop_guest;

	return unlikely(kg) && READ_ONCE(kg->state) != KPOP_GUEST_OFF;
}

bool kpop_guest_available(void);
void kpop_guest_module_init(void);
void kpop_guest_init_vm(struct kvm *kvm);
void kpop_guest_pre_destroy_vm(struct kvm *kvm);
void kpop_guest_uninit_vm(struct kvm *kvm);
int kpop_guest_alloc_slot(struct kvm *kvm, struct kvm_memory_slot *slot);
void kpop_guest_free_slot(struct kvm *kvm, struct kvm_memory_slot *slot);

void kpop_guest_init_root(struct kvm *kvm, struct kvm_mmu_page *root);
bool kpop_guest_zap_root(struct kvm *kvm, struct kvm_mmu_page *root, bool shared);
int __kpop_guest_load(struct kvm_vcpu *vcpu);
void kpop_guest_unload_nested(struct kvm_vcpu *vcpu);
void kpop_guest_destroy_vcpu(struct kvm_vcpu *vcpu);
bool kpop_guest_service(struct kvm_vcpu *vcpu);
void kpop_guest_refused(struct kvm_vcpu *vcpu);
int kpop_guest_refresh_root(struct kvm_vcpu *vcpu);

bool kpop_guest_root_is_token(struct kvm_vcpu *vcpu);
bool kpop_guest_mmio_fault(struct kvm_vcpu *vcpu, struct kvm_page_fault *fault);
int kpop_guest_map(struct kvm_vcpu *vcpu, struct kvm_page_fault *fault);

bool kpop_guest_unmap_gfn_range(struct kvm *kvm, struct kvm_gfn_range *range,
				bool flush);
bool kpop_guest_zap_leafs(struct kvm *kvm, gfn_t start, gfn_t end, bool flush);
void kpop_guest_zap_all(struct kvm *kvm);
bool kpop_guest_age_gfn_range(struct kvm *kvm, struct kvm_gfn_range *range,
			      bool test_only);
void kpop_guest_wrprot_slot(struct kvm *kvm, const struct kvm_memory_slot *slot,
			    int min_level);
void kpop_guest_wrprot_pt_masked(struct kvm *kvm,
				 const struct kvm_memory_slot *slot,
				 gfn_t gfn, unsigned long mask);
void kpop_guest_write_protect_gfn(struct kvm *kvm,
				  const struct kvm_memory_slot *slot, gfn_t gfn,
				  int min_level);
void kpop_guest_zap_collapsible(struct kvm *kvm,
				const struct kvm_memory_slot *slot);

void kpop_guest_split_range(struct kvm *kvm, const struct kvm_memory_slot *slot,
			    gfn_t start, gfn_t end, int target_level);
void __kpop_guest_recover_nx(struct kvm *kvm, unsigned int ratio);

void kpop_guest_log_init(struct kvm *kvm, const struct kvm_memory_slot *slot);
void kpop_guest_sync_dirty_log(struct kvm *kvm, struct kvm_memory_slot *slot);

void __kpop_guest_run_end(struct kvm_vcpu *vcpu);

/* Between the kpop_guest*.c files. */
bool kpop_guest_logs(struct kvm *kvm, const struct kvm_memory_slot *slot);
long __kpop_guest_track(struct kvm *kvm, u64 op, int as_id, gfn_t gfn, u64 npages,
			u64 to);
void kpop_guest_ring_init(struct kvm *kvm);
void kpop_guest_ring_uninit(struct kvm *kvm);
void kpop_guest_ring_limit(struct kvm_vcpu *vcpu);
void kpop_guest_ring_make_room(struct kvm_vcpu *vcpu);
bool kpop_guest_log_start(struct kvm *kvm, const struct kvm_memory_slot *slot);
void kpop_guest_log_stop(struct kvm *kvm, const struct kvm_memory_slot *slot);
void kpop_guest_dirty_slot(const struct kvm_memory_slot *slot);
void kpop_guest_dirty_offered(const struct kvm_memory_slot *slot, int level,
			      unsigned long from, unsigned long to);
void kpop_guest_log_lost(struct kvm *kvm, const struct kvm_memory_slot *slot);
bool kpop_guest_age_range(struct kvm *kvm, const struct kvm_memory_slot *slot,
			  gfn_t start, gfn_t end, bool test_only);
void kpop_guest_track_init(struct kpop_guest_vm *kg);
void kpop_guest_track_uninit(struct kpop_guest_vm *kg);

static inline u64 kpop_guest_as_id(int as_id)
{
	return (u64)as_id << KPOP_AS_ID_SHIFT;
}

struct kvm_mmu_page *kpop_guest_token(struct kvm_vcpu *vcpu);
bool kpop_guest_bound(struct kvm_vcpu *vcpu, struct kvm_mmu_page *root);
int kpop_guest_bind(struct kvm_vcpu *vcpu, struct kvm_mmu_page *root);
void kpop_guest_unserved(struct kvm_vcpu *vcpu);
void kpop_guest_fail(struct kvm *kvm, long why);
bool kpop_guest_only(void);

/* L0 has no memory, or this L1's cap is reached: that may pass. */
static inline bool kpop_guest_no_memory(long err)
{
	return err == -ENOMEM || err == -E2BIG;
}

unsigned long *kpop_guest_offered(const struct kvm_memory_slot *slot, int level);
bool kpop_guest_any(const struct kvm_memory_slot *slot, gfn_t start, gfn_t end,
		    int level);
/* Which bits of word @w of a bitmap are in [from, to]. */
static inline unsigned long kpop_guest_word_mask(unsigned long w, unsigned long from,
						 unsigned long to)
{
	unsigned long mask = ~0UL;

	if (w == BIT_WORD(from))
		mask &= BITMAP_FIRST_WORD_MASK(from);
	if (w == BIT_WORD(to))
		mask &= BITMAP_LAST_WORD_MASK(to + 1);
	return mask;
}

/* The other way round as gfn_to_index(). */
static inline gfn_t kpop_guest_index_to_gfn(const struct kvm_memory_slot *slot,
					    unsigned long idx, int level)
{
	return ((slot->base_gfn >> KVM_HPAGE_GFN_SHIFT(level)) + idx) <<
	       KVM_HPAGE_GFN_SHIFT(level);
}

void kpop_guest_unmap_now(struct kvm *kvm, const struct kvm_memory_slot *slot,
			  gfn_t start, gfn_t end, int min_level);
void kpop_guest_split_above(struct kvm *kvm, const struct kvm_memory_slot *slot,
			    gfn_t gfn, int level);
int kpop_guest_alloc_nx(struct kvm_memory_slot *slot);
void kpop_guest_free_nx(struct kvm *kvm, const struct kvm_memory_slot *slot);
void kpop_guest_track_nx(struct kvm *kvm, const struct kvm_memory_slot *slot, gfn_t gfn);

/* Bind the current VMCB / VMCS to its token, if there is one; may take mmu_lock. */
static inline int kpop_guest_load(struct kvm_vcpu *vcpu)
{
	return kpop_guest_on(vcpu->kvm) ? __kpop_guest_load(vcpu) : 0;
}

/*
 * KVM_RUN ends: what L2 wrote is in the dirty ring, if one is used, and who was
 * refused sends LOAD next time.
 */
static inline void kpop_guest_run_end(struct kvm_vcpu *vcpu)
{
	if (likely(!vcpu->kvm->arch.kpop_guest))
		return;

	if (vcpu->run->exit_reason == KVM_EXIT_FAIL_ENTRY && kpop_guest_on(vcpu->kvm))
		kpop_guest_refused(vcpu);
	__kpop_guest_run_end(vcpu);
}

static inline void kpop_guest_recover_nx(struct kvm *kvm, unsigned int ratio)
{
	if (kpop_guest_on(kvm))
		__kpop_guest_recover_nx(kvm, ratio);
}
#else
static inline bool kpop_guest_on(struct kvm *kvm) { return false; }
static inline bool kpop_guest_available(void) { return false; }
static inline void kpop_guest_module_init(void) { }
static inline void kpop_guest_init_vm(struct kvm *kvm) { }
static inline void kpop_guest_pre_destroy_vm(struct kvm *kvm) { }
static inline void kpop_guest_uninit_vm(struct kvm *kvm) { }
static inline int kpop_guest_alloc_slot(struct kvm *kvm,
					struct kvm_memory_slot *slot)
{
	return 0;
}

static inline void kpop_guest_free_slot(struct kvm *kvm,
					struct kvm_memory_slot *slot) { }
static inline void kpop_guest_init_root(struct kvm *kvm,
					struct kvm_mmu_page *root) { }
static inline bool kpop_guest_zap_root(struct kvm *kvm,
				       struct kvm_mmu_page *root, bool shared)
{
	return false;
}

static inline void kpop_guest_unload_nested(struct kvm_vcpu *vcpu) { }
static inline void kpop_guest_destroy_vcpu(struct kvm_vcpu *vcpu) { }
static inline bool kpop_guest_service(struct kvm_vcpu *vcpu) { return true; }
static inline void kpop_guest_run_end(struct kvm_vcpu *vcpu) { }
static inline int kpop_guest_refresh_root(struct kvm_vcpu *vcpu) { return 0; }
static inline bool kpop_guest_root_is_token(struct kvm_vcpu *vcpu)
{
	return false;
}

static inline bool kpop_guest_mmio_fault(struct kvm_vcpu *vcpu,
					 struct kvm_page_fault *fault)
{
	return false;
}

static inline int kpop_guest_map(struct kvm_vcpu *vcpu,
				 struct kvm_page_fault *fault)
{
	return -EIO;
}

static inline bool kpop_guest_unmap_gfn_range(struct kvm *kvm,
					      struct kvm_gfn_range *range,
					      bool flush)
{
	return flush;
}

static inline bool kpop_guest_zap_leafs(struct kvm *kvm, gfn_t start, gfn_t end,
					bool flush)
{
	return flush;
}

static inline void kpop_guest_zap_all(struct kvm *kvm) { }
static inline bool kpop_guest_age_gfn_range(struct kvm *kvm,
					    struct kvm_gfn_range *range,
					    bool test_only)
{
	return false;
}

static inline void kpop_guest_wrprot_slot(struct kvm *kvm,
					  const struct kvm_memory_slot *slot,
					  int min_level) { }
static inline void kpop_guest_wrprot_pt_masked(struct kvm *kvm,
					       const struct kvm_memory_slot *slot,
					       gfn_t gfn, unsigned long mask) { }
static inline void kpop_guest_write_protect_gfn(struct kvm *kvm,
						const struct kvm_memory_slot *slot,
						gfn_t gfn, int min_level) { }
static inline void kpop_guest_zap_collapsible(struct kvm *kvm,
					      const struct kvm_memory_slot *slot) { }
static inline void kpop_guest_split_range(struct kvm *kvm,
					  const struct kvm_memory_slot *slot,
					  gfn_t start, gfn_t end,
					  int target_level) { }
static inline void kpop_guest_recover_nx(struct kvm *kvm, unsigned int ratio) { }
static inline int kpop_guest_load(struct kvm_vcpu *vcpu) { return 0; }
static inline void kpop_guest_log_init(struct kvm *kvm,
				       const struct kvm_memory_slot *slot) { }
static inline void kpop_guest_sync_dirty_log(struct kvm *kvm,
					     struct kvm_memory_slot *slot) { }
#endif

#endif /* __KVM_X86_MMU_KPOP_GUEST_H */
