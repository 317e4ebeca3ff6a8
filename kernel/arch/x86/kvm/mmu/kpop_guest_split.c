// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP on L1: huge pages that were offered and are small ones now.  See
 * kpop_guest.c for the whole picture.
 *
 * L0 splits its mappings as it needs to.  What is done here keeps L1's record
 * of its offers, and the statistics that user space reads, at what the TDP MMU
 * would have: a huge page whose bit is replaced by those of small pages comes
 * back as a huge one only when they are taken away.
 */
#include <linux/bitmap.h>

#include "mmu.h"
#include "mmu_internal.h"
#include "kpop_guest.h"

/* 2M pages of a slot, whole or in part. */
static unsigned long kpop_guest_nr_2m(const struct kvm_memory_slot *slot)
{
	return gfn_to_index(slot->base_gfn + slot->npages - 1, slot->base_gfn,
			    PG_LEVEL_2M) + 1;
}

/* Set [from, to] of @map, return how many were not. */
static unsigned long kpop_bits_set(unsigned long *map, unsigned long from,
				   unsigned long to)
{
	unsigned long w, mask, n = 0;

	for (w = BIT_WORD(from); w <= BIT_WORD(to); w++) {
		mask = kpop_guest_word_mask(w, from, to);
		n += hweight_long(~atomic_long_fetch_or(mask, (atomic_long_t *)&map[w]) &
				  mask);
	}

	return n;
}

/*
 * The page of @level at @gfn, if it was offered, becomes pages of the next
 * level.  Their bits are there before its own goes: who looks for bits goes
 * from large to small, see kpop_guest_forget().
 */
static void kpop_guest_split_one(struct kvm *kvm, const struct kvm_memory_slot *slot,
				 gfn_t gfn, int level)
{
	unsigned long idx = gfn_to_index(gfn, slot->base_gfn, level), from, to, n;
	unsigned long *map = kpop_guest_offered(slot, level);
	gfn_t first = gfn_round_for_level(gfn, level);

	if (!map || !test_bit(idx, map))
		return;

	from = gfn_to_index(first, slot->base_gfn, level - 1);
	to = gfn_to_index(first + KVM_PAGES_PER_HPAGE(level) - 1, slot->base_gfn,
			  level - 1);
	n = kpop_bits_set(kpop_guest_offered(slot, level - 1), from, to);
	kvm_update_page_stats(kvm, level - 1, n);

	if (!test_and_clear_bit(idx, map))
		return;
	kvm_update_page_stats(kvm, level, -1);
	/*
	 * It may be the bit of a MAP that came after somebody had taken all of
	 * this away: without the small ones nobody would know of that.
	 */
	n = kpop_bits_set(kpop_guest_offered(slot, level - 1), from, to);
	kvm_update_page_stats(kvm, level - 1, n);
}

/**
 * kpop_guest_split_above - a page is offered where a larger one was
 * @kvm: the VM
 * @slot: the slot
 * @gfn: the L2 gfn
 * @level: of the new offer
 *
 * Context: mmu_lock held for read.
 */
void kpop_guest_split_above(struct kvm *kvm, const struct kvm_memory_slot *slot,
			    gfn_t gfn, int level)
{
	int above;

	/*
	 * The count follows the bit: a page that is missed for that counts as
	 * huge until it is taken away, which finds both its bit and the small.
	 */
	for (above = KVM_MAX_HUGEPAGE_LEVEL; above > level; above--)
		if (atomic64_read(&kvm->stat.pages[above - 1]))
			kpop_guest_split_one(kvm, slot, gfn, above);
}

/**
 * kpop_guest_split_range - huge pages of a range become small ones
 * @kvm: the VM
 * @slot: the slot, which is or will be dirty-logged
 * @start: first L2 gfn
 * @end: L2 gfn behind the last
 * @target_level: what they become
 *
 * Context: slots_lock and mmu_lock held.
 */
void kpop_guest_split_range(struct kvm *kvm, const struct kvm_memory_slot *slot,
			    gfn_t start, gfn_t end, int target_level)
{
	unsigned long *map, i, to;
	int level;

	for (level = KVM_MAX_HUGEPAGE_LEVEL; level > target_level; level--) {
		map = kpop_guest_offered(slot, level);
		if (!map)
			return;
		i = gfn_to_index(start, slot->base_gfn, level);
		to = gfn_to_index(end - 1, slot->base_gfn, level);
		for_each_set_bit_from(i, map, to + 1)
			kpop_guest_split_one(kvm, slot,
					     kpop_guest_index_to_gfn(slot, i, level),
					     level);
	}
}

/**
 * kpop_guest_alloc_nx - room for what kpop_guest_track_nx() notes
 * @slot: the slot
 *
 * Return: 0 or -ENOMEM.
 */
int kpop_guest_alloc_nx(struct kvm_memory_slot *slot)
{
	slot->arch.kpop->nx_split = __vcalloc(BITS_TO_LONGS(kpop_guest_nr_2m(slot)),
					      sizeof(long), GFP_KERNEL_ACCOUNT);
	return slot->arch.kpop->nx_split ? 0 : -ENOMEM;
}

/* The statistic is shared with pages of the shadow MMU. */
static void kpop_guest_count_nx(struct kvm *kvm, long n)
{
	spin_lock(&kvm->arch.tdp_mmu_pages_lock);
	kvm->stat.nx_lpage_splits += n;
	spin_unlock(&kvm->arch.tdp_mmu_pages_lock);
}

/**
 * kpop_guest_free_nx - the slot goes, or the VM leaves KPOP
 * @kvm: the VM
 * @slot: the slot
 */
void kpop_guest_free_nx(struct kvm *kvm, const struct kvm_memory_slot *slot)
{
	unsigned long *map = slot->arch.kpop->nx_split;

	if (map)
		kpop_guest_count_nx(kvm, -(long)bitmap_weight(map, kpop_guest_nr_2m(slot)));
	vfree(map);
}

/**
 * kpop_guest_track_nx - a 2M page was offered in 4K only for iTLB multihit
 * @kvm: the VM
 * @slot: the slot
 * @gfn: the L2 gfn that was executed
 *
 * Context: mmu_lock held for read.
 */
void kpop_guest_track_nx(struct kvm *kvm, const struct kvm_memory_slot *slot, gfn_t gfn)
{
	unsigned long idx = gfn_to_index(gfn, slot->base_gfn, PG_LEVEL_2M);

	if (!test_and_set_bit(idx, slot->arch.kpop->nx_split))
		kpop_guest_count_nx(kvm, 1);
}

static unsigned long kpop_guest_recover_slot(struct kvm *kvm,
					     const struct kvm_memory_slot *slot,
					     gfn_t start, gfn_t end, unsigned long todo)
{
	unsigned long *map = slot->arch.kpop ? slot->arch.kpop->nx_split : NULL;
	unsigned long i = gfn_to_index(start, slot->base_gfn, PG_LEVEL_2M);
	unsigned long to = gfn_to_index(end - 1, slot->base_gfn, PG_LEVEL_2M);
	gfn_t gfn;

	if (!map)
		return todo;

	for_each_set_bit_from(i, map, to + 1) {
		if (!todo--)
			return 0;

		clear_bit(i, map);
		kpop_guest_count_nx(kvm, -1);
		gfn = kpop_guest_index_to_gfn(slot, i, PG_LEVEL_2M);
		kvm->arch.kpop_guest->nx_next[slot->as_id] =
			gfn + KVM_PAGES_PER_HPAGE(PG_LEVEL_2M);
		/* It would come back in 4K; it goes when logging ends. */
		if (!kvm_slot_dirty_track_enabled(slot))
			kpop_guest_unmap_now(kvm, slot, gfn,
					     gfn + KVM_PAGES_PER_HPAGE(PG_LEVEL_2M),
					     PG_LEVEL_4K);
		if (need_resched() || rwlock_needbreak(&kvm->mmu_lock))
			cond_resched_rwlock_write(&kvm->mmu_lock);
		if (!kpop_guest_on(kvm))
			return 0;
	}

	return todo;
}

static unsigned long kpop_guest_recover_range(struct kvm *kvm, int as_id, gfn_t start,
					      gfn_t end, unsigned long todo)
{
	struct kvm_memslots *slots = __kvm_memslots(kvm, as_id);
	const struct kvm_memory_slot *slot;
	struct kvm_memslot_iter iter;

	if (start >= end)
		return todo;

	kvm_for_each_memslot_in_gfn_range(&iter, slots, start, end) {
		slot = iter.slot;
		todo = kpop_guest_recover_slot(kvm, slot, max(start, slot->base_gfn),
					       min(end, slot->base_gfn + slot->npages),
					       todo);
		if (!todo || !kpop_guest_on(kvm))
			return 0;
	}

	return todo;
}

/**
 * __kpop_guest_recover_nx - let 2M pages be huge again that are executed no more
 * @kvm: the VM
 * @ratio: one in so many of them
 *
 * Each round goes on where the last one ended.
 *
 * Context: the recovery thread, in kvm->srcu; mmu_lock held for write, may be
 * dropped meanwhile.
 */
void __kpop_guest_recover_nx(struct kvm *kvm, unsigned int ratio)
{
	unsigned long todo = ratio ? DIV_ROUND_UP(kvm->stat.nx_lpage_splits, ratio) : 0;
	gfn_t from;
	int i;

	lockdep_assert_held_write(&kvm->mmu_lock);

	for (i = 0; todo && i < kvm_arch_nr_memslot_as_ids(kvm); i++) {
		from = kvm->arch.kpop_guest->nx_next[i];
		todo = kpop_guest_recover_range(kvm, i, from,
						kvm->arch.kpop_guest->gfn_limit, todo);
		if (todo)
			todo = kpop_guest_recover_range(kvm, i, 0, from, todo);
	}
}
