// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP in L0: what L0 does to the memory that it gave to L1.
 *
 * L0's own walks know L1 gfns; the reverse map leads from them to the L2 gfns
 * at which they are mapped.  Only SPTEs go here: the translation is L1's word
 * and stays, so that the next touch of L2 is solved in L0.
 */
#include "mmu.h"
#include "kpop.h"
#include "tdp_mmu.h"

/* How much of L1 is walked between two looks at need_resched(). */
#define KPOP_WALK_PAGES	16

typedef bool (*kpop_rmap_fn)(struct kvm *kvm, struct kvm_mmu_page *root,
			     gfn_t l2, gfn_t l2_end);

/* Call @fn for what maps L1 gfns [start, last].  mmu_lock held for write. */
static bool kpop_walk_rmap(struct kpop_vm *kv, gfn_t start, gfn_t last,
			   kpop_rmap_fn fn)
{
	struct kpop_run *run;
	bool ret = false;

	lockdep_assert_held_write(&kv->kvm->mmu_lock);

	for (run = kpop_rmap_first(kv, start, last); run;
	     run = kpop_rmap_next(run, start, last)) {
		gfn_t from = max(start, run->l1);
		gfn_t to = min(last, kpop_run_l1_last(run)) + 1;

		/* Also an invalid root is zapped: it may be in use still. */
		if (run->space->root)
			ret |= fn(kv->kvm, run->space->root,
				  run->l2 + (from - run->l1),
				  run->l2 + (to - run->l1));
	}
	return ret;
}

/*
 * Zap what maps L1 gfns [start, end).  With @may_yield mmu_lock may be dropped
 * between two steps, TLBs flushed before.
 */
static bool kpop_zap_l1(struct kpop_vm *kv, gfn_t start, gfn_t end,
			bool may_yield, bool flush)
{
	struct kvm *kvm = kv->kvm;
	struct kpop_run *run;

	if (!may_yield)
		return kpop_walk_rmap(kv, start, end - 1,
				      kvm_tdp_mmu_zap_kpop_leafs) | flush;

	while (start < end && (run = kpop_rmap_first(kv, start, end - 1))) {
		gfn_t last;

		start = max(start, run->l1);
		last = min(end, start + KPOP_WALK_PAGES) - 1;
		flush |= kpop_walk_rmap(kv, start, last,
					kvm_tdp_mmu_zap_kpop_leafs);
		start = last + 1;

		if (need_resched() || rwlock_needbreak(&kvm->mmu_lock)) {
			if (flush)
				kvm_flush_remote_tlbs(kvm);
			flush = false;
			cond_resched_rwlock_write(&kvm->mmu_lock);
		}
	}
	return flush;
}

/* Translations are of as_id 0, L1's view outside SMM. */
static bool kpop_knows_slot(struct kvm *kvm, const struct kvm_memory_slot *slot)
{
	return kpop_vm(kvm) && slot->as_id == 0;
}

/* From kvm_unmap_gfn_range(): mmu_lock held for write. */
bool kpop_unmap_gfn_range(struct kvm *kvm, struct kvm_gfn_range *range, bool flush)
{
	if (!kpop_knows_slot(kvm, range->slot))
		return flush;
	return kpop_zap_l1(kpop_vm(kvm), range->start, range->end,
			   range->may_block, flush);
}

/* From kvm_zap_gfn_range(): mmu_lock held for write, may yield. */
bool kpop_zap_gfn_range(struct kvm *kvm, gfn_t start, gfn_t end, bool flush)
{
	struct kpop_vm *kv = kpop_vm(kvm);

	return kv ? kpop_zap_l1(kv, start, end, true, flush) : flush;
}

static bool kpop_age(struct kvm *kvm, struct kvm_mmu_page *root,
		     gfn_t l2, gfn_t l2_end)
{
	return kvm_tdp_mmu_age_kpop(kvm, root, l2, l2_end, false);
}

static bool kpop_test_age(struct kvm *kvm, struct kvm_mmu_page *root,
			  gfn_t l2, gfn_t l2_end)
{
	return kvm_tdp_mmu_age_kpop(kvm, root, l2, l2_end, true);
}

/* From kvm_age_gfn() and kvm_test_age_gfn(): mmu_lock held for write. */
bool kpop_age_gfn_range(struct kvm *kvm, struct kvm_gfn_range *range, bool test_only)
{
	if (!kpop_knows_slot(kvm, range->slot))
		return false;
	return kpop_walk_rmap(kpop_vm(kvm), range->start, range->end - 1,
			      test_only ? kpop_test_age : kpop_age);
}

/*
 * Zap [first, last], L1 gfns, and flush before mmu_lock is dropped, whatever the
 * caller does.  Who write-protects for a log flushes only afterwards: his SPTEs
 * stay, so that a notifier in between finds them and flushes.  Of one that is
 * gone it would find nothing, and the page would be freed under L2's TLBs.
 */
static bool kpop_zap_now(struct kpop_vm *kv, gfn_t first, gfn_t last)
{
	if (!kpop_walk_rmap(kv, first, last, kvm_tdp_mmu_zap_kpop_leafs))
		return false;

	kvm_flush_remote_tlbs(kv->kvm);
	return true;
}

/* An L1 gfn becomes write-protected: L2's next write is looked at again. */
bool kpop_write_protect_gfn(struct kvm *kvm, gfn_t gfn)
{
	struct kpop_vm *kv = kpop_vm(kvm);

	return kv && kpop_zap_now(kv, gfn, gfn);
}

/*
 * L0 starts to log writes to a slot of L1: huge and writable SPTEs go, those
 * that come are 4K and tell the log (make_spte()).
 */
void kpop_log_slot(struct kvm *kvm, const struct kvm_memory_slot *slot)
{
	if (!kpop_knows_slot(kvm, slot))
		return;

	write_lock(&kvm->mmu_lock);
	if (kpop_zap_l1(kpop_vm(kvm), slot->base_gfn,
			slot->base_gfn + slot->npages, true, false))
		kvm_flush_remote_tlbs(kvm);
	write_unlock(&kvm->mmu_lock);
}

/*
 * The pages of @mask, from L1 gfn @gfn on, were read from the log: their next
 * write must be seen again.  mmu_lock held for write.
 */
void kpop_log_pt_masked(struct kvm *kvm, const struct kvm_memory_slot *slot,
			gfn_t gfn, unsigned long mask)
{
	struct kpop_vm *kv = kpop_vm(kvm);

	if (!kpop_knows_slot(kvm, slot) || !mask)
		return;

	/* Neighbours that go too just come back: few bits mean few pages. */
	kpop_zap_now(kv, gfn + __ffs(mask), gfn + __fls(mask));
}
