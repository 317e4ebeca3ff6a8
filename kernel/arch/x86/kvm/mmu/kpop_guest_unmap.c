// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP on L1: which pages were offered to L0, and taking them away.  See
 * kpop_guest.c for the whole picture.
 */
#include <linux/bitmap.h>
#include <linux/kvm_para.h>

#include "mmu.h"
#include "mmu_internal.h"
#include "mmutrace.h"
#include "kpop_guest.h"

/* An UNMAP's piece; mmu_lock may be yielded between two of them. */
#define KPOP_GUEST_CHUNK	KVM_PAGES_PER_HPAGE(PG_LEVEL_1G)

/* L2 gfns of one memslot that are taken away. */
struct kpop_guest_range {
	const struct kvm_memory_slot *slot;
	gfn_t start;
	gfn_t end;
	u64 flags;			/* KPOP_UNMAP_* */
	int min_level;			/* leave what was offered below it */
	bool can_yield;
	bool shared;			/* mmu_lock is held for read */
	bool flush;			/* TLBs to flush before yielding */
};

/*
 * Bits of offered pages, one array for each page size as in lpage_info.
 */
int kpop_guest_alloc_slot(struct kvm *kvm, struct kvm_memory_slot *slot)
{
	struct kpop_guest_slot *ks;
	int i;

	if (!kpop_guest_on(kvm))
		return 0;

	kpop_guest_ring_init(kvm);
	ks = kzalloc(sizeof(*ks), GFP_KERNEL_ACCOUNT);
	if (!ks)
		return -ENOMEM;
	slot->arch.kpop = ks;

	if (kpop_guest_alloc_nx(slot)) {
		kpop_guest_free_slot(kvm, slot);
		return -ENOMEM;
	}

	for (i = 0; i < KVM_NR_PAGE_SIZES; i++) {
		unsigned long n = kvm_mmu_slot_lpages(slot, i + 1);

		ks->offered[i] = __vcalloc(BITS_TO_LONGS(n), sizeof(long),
					   GFP_KERNEL_ACCOUNT);
		if (!ks->offered[i]) {
			kpop_guest_free_slot(kvm, slot);
			return -ENOMEM;
		}
	}

	/* A slot that is made logged gets no other call. */
	if (kvm_slot_dirty_track_enabled(slot))
		kpop_guest_log_start(kvm, slot);
	return 0;
}

/* Clear [from, to] of @map, return how many were set and the outermost two. */
static unsigned long kpop_bits_clear(unsigned long *map, unsigned long from,
				     unsigned long to, unsigned long *lo,
				     unsigned long *hi)
{
	unsigned long w, mask, old, n = 0;

	for (w = BIT_WORD(from); w <= BIT_WORD(to); w++) {
		mask = kpop_guest_word_mask(w, from, to);
		if (!(READ_ONCE(map[w]) & mask))
			continue;

		old = atomic_long_fetch_andnot(mask, (atomic_long_t *)&map[w]) & mask;
		if (!old)
			continue;

		if (!n)
			*lo = w * BITS_PER_LONG + __ffs(old);
		*hi = w * BITS_PER_LONG + __fls(old);
		n += hweight_long(old);
	}

	return n;
}

unsigned long *kpop_guest_offered(const struct kvm_memory_slot *slot, int level)
{
	return slot->arch.kpop ? slot->arch.kpop->offered[level - 1] : NULL;
}

/* Was any page of @level offered in [start, end)? */
bool kpop_guest_any(const struct kvm_memory_slot *slot, gfn_t start, gfn_t end,
		    int level)
{
	unsigned long *map = kpop_guest_offered(slot, level);
	unsigned long from = gfn_to_index(start, slot->base_gfn, level);
	unsigned long to = gfn_to_index(end - 1, slot->base_gfn, level);

	return map && find_next_bit(map, to + 1, from) <= to;
}

/*
 * Forget what was offered in [start, end) at @min_level and above.  Returns
 * true if there was something; *first and *end are the gfns to take away,
 * which is more than asked for if a huge page sticks out.  From large to small:
 * a page that is being split has the bits of the small ones first.
 */
static bool kpop_guest_forget(struct kvm *kvm, const struct kvm_memory_slot *slot,
			      int min_level, gfn_t *start, gfn_t *end)
{
	gfn_t s = *start, e = *end;
	bool any = false;
	int level;

	for (level = KVM_MAX_HUGEPAGE_LEVEL; level >= min_level; level--) {
		unsigned long *map = kpop_guest_offered(slot, level);
		int shift = KVM_HPAGE_GFN_SHIFT(level);
		gfn_t base = slot->base_gfn >> shift;
		unsigned long from = gfn_to_index(s, slot->base_gfn, level);
		unsigned long to = gfn_to_index(e - 1, slot->base_gfn, level);
		unsigned long lo, hi, n;

		if (!map)
			continue;

		if (slot->arch.kpop->logged && slot->dirty_bitmap)
			kpop_guest_dirty_offered(slot, level, from, to);
		n = kpop_bits_clear(map, from, to, &lo, &hi);
		if (!n)
			continue;

		kvm_update_page_stats(kvm, level, -(int)n);
		*start = any ? min(*start, (base + lo) << shift) : (base + lo) << shift;
		*end = any ? max(*end, (base + hi + 1) << shift) : (base + hi + 1) << shift;
		any = true;
	}

	return any;
}

void kpop_guest_free_slot(struct kvm *kvm, struct kvm_memory_slot *slot)
{
	gfn_t start = slot->base_gfn, end = start + slot->npages;
	struct kpop_guest_slot *ks = slot->arch.kpop;
	int i;

	if (!ks)
		return;

	/* The slot moves, and its bitmap with it: what only L0's log knows goes there. */
	if (ks->logged && slot->dirty_bitmap)
		kpop_guest_dirty_slot(slot);
	kpop_guest_log_stop(kvm, slot);
	kpop_guest_forget(kvm, slot, PG_LEVEL_4K, &start, &end);

	kpop_guest_free_nx(kvm, slot);
	/*
	 * A slot whose creation fails may be in its guest_memfd, and a hole be
	 * punched there, which holds nothing but mmu_lock.
	 */
	write_lock(&kvm->mmu_lock);
	slot->arch.kpop = NULL;
	write_unlock(&kvm->mmu_lock);

	for (i = 0; i < KVM_NR_PAGE_SIZES; i++)
		vfree(ks->offered[i]);
	kfree(ks);
}

/*
 * Any answer but progress means "not mapped".  Needs no lock, but who relies
 * on it must keep MAP away.
 */
static void kpop_guest_send_unmap(struct kvm *kvm, u64 flags, gfn_t gfn, u64 npages)
{
	struct kpop_guest_vm *kg = kvm->arch.kpop_guest;
	long done;

	while (npages) {
		done = kvm_hypercall4(KVM_HC_KPOP_MMU_UNMAP, flags, kg->kvm_id,
				      gfn, npages);
		atomic64_inc(&kvm->stat.kpop_guest_unmaps);
		trace_kvm_kpop_guest_unmap(kg->kvm_id, gfn, npages, flags, done);
		if (done < 0)
			return;
		if (!done)
			cpu_relax();

		done = min_t(u64, done, npages);
		gfn += done;
		npages -= done;
	}
}

static void kpop_guest_yield(struct kvm *kvm, struct kpop_guest_range *r)
{
	if (!r->can_yield || !(need_resched() || rwlock_needbreak(&kvm->mmu_lock)))
		return;

	if (r->flush)
		kvm_flush_remote_tlbs(kvm);
	r->flush = false;

	if (r->shared)
		cond_resched_rwlock_read(&kvm->mmu_lock);
	else
		cond_resched_rwlock_write(&kvm->mmu_lock);
}

/*
 * Take away what was offered in a range.  Returns true if there was something.
 * A piece's bits are cleared and the piece unmapped before mmu_lock can be
 * yielded, so that who comes in between may trust the bits.
 */
static bool kpop_guest_unmap_range(struct kvm *kvm, struct kpop_guest_range *r)
{
	gfn_t gfn = r->start, next, first, end;
	bool any = false;

	/* A fallback may come in between: it leaves nothing to do. */
	while (gfn < r->end && kpop_guest_on(kvm)) {
		next = min(r->end, ALIGN_DOWN(gfn, KPOP_GUEST_CHUNK) + KPOP_GUEST_CHUNK);
		first = gfn;
		end = next;
		if (kpop_guest_forget(kvm, r->slot, r->min_level, &first, &end)) {
			kpop_guest_send_unmap(kvm, r->flags, first, end - first);
			any = true;
		}

		gfn = next;
		if (gfn < r->end)
			kpop_guest_yield(kvm, r);
	}

	return any;
}

/* mmu_unmap_gfn_range; mmu_lock is held for write. */
bool kpop_guest_unmap_gfn_range(struct kvm *kvm, struct kvm_gfn_range *range,
				bool flush)
{
	struct kpop_guest_range r = {
		.slot = range->slot,
		.start = range->start,
		.end = range->end,
		.flags = kpop_guest_as_id(range->slot->as_id),
		.min_level = PG_LEVEL_4K,
		.can_yield = range->may_block,
		.flush = flush,
	};

	lockdep_assert_held_write(&kvm->mmu_lock);

	kpop_guest_unmap_range(kvm, &r);
	return r.flush;
}

/* mmu_zap_gfn_range: in every address space.  mmu_lock is held for write. */
bool kpop_guest_zap_leafs(struct kvm *kvm, gfn_t start, gfn_t end, bool flush)
{
	struct kpop_guest_range r = {
		.flags = KPOP_UNMAP_ALL_AS | KPOP_UNMAP_ZAP,
		.min_level = PG_LEVEL_4K,
		.can_yield = true,
		.flush = flush,
	};
	struct kvm_memslot_iter iter;
	int i;

	lockdep_assert_held_write(&kvm->mmu_lock);

	for (i = 0; i < kvm_arch_nr_memslot_as_ids(kvm); i++) {
		kvm_for_each_memslot_in_gfn_range(&iter, __kvm_memslots(kvm, i),
						  start, end) {
			r.slot = iter.slot;
			r.start = max(start, r.slot->base_gfn);
			r.end = min(end, r.slot->base_gfn + r.slot->npages);
			kpop_guest_unmap_range(kvm, &r);
		}
	}

	return r.flush;
}

static void kpop_guest_forget_all(struct kvm *kvm)
{
	struct kvm_memory_slot *slot;
	gfn_t start, end;
	int i, bkt;

	for (i = 0; i < kvm_arch_nr_memslot_as_ids(kvm); i++) {
		kvm_for_each_memslot(slot, bkt, __kvm_memslots(kvm, i)) {
			start = slot->base_gfn;
			end = start + slot->npages;
			kpop_guest_forget(kvm, slot, PG_LEVEL_4K, &start, &end);
		}
	}
}

/* mmu_zap_all: the VM dies or its VMM is gone.  mmu_lock is held for write. */
void kpop_guest_zap_all(struct kvm *kvm)
{
	lockdep_assert_held_write(&kvm->mmu_lock);

	kpop_guest_forget_all(kvm);
	kpop_guest_send_unmap(kvm, KPOP_UNMAP_ALL_AS | KPOP_UNMAP_ZAP, 0,
			      kvm->arch.kpop_guest->gfn_limit);
}

/*
 * L0 has the accessed bits.  If it does not tell them, a page offered counts
 * as young once: it is taken away, and is offered again if L2 still uses it.
 * mmu_lock is held for write.
 */
bool kpop_guest_age_gfn_range(struct kvm *kvm, struct kvm_gfn_range *range,
			      bool test_only)
{
	struct kpop_guest_range r = {
		.slot = range->slot,
		.start = range->start,
		.end = range->end,
		.flags = kpop_guest_as_id(range->slot->as_id),
		.min_level = PG_LEVEL_4K,
	};
	bool offered = false;
	int level;

	lockdep_assert_held_write(&kvm->mmu_lock);

	for (level = PG_LEVEL_4K; level <= KVM_MAX_HUGEPAGE_LEVEL; level++)
		offered |= kpop_guest_any(r.slot, r.start, r.end, level);

	if (!offered)
		return false;
	if (kvm->arch.kpop_guest->page)
		return kpop_guest_age_range(kvm, r.slot, r.start, r.end, test_only);
	return test_only || kpop_guest_unmap_range(kvm, &r);
}

/*
 * No write to @slot goes unnoticed from here on.  mmu_lock is held for read;
 * who maps at the same time has seen the slot's new flags, as slots_lock is
 * held and kvm->srcu was waited for.
 */
void kpop_guest_wrprot_slot(struct kvm *kvm, const struct kvm_memory_slot *slot,
			    int min_level)
{
	struct kpop_guest_range r = {
		.slot = slot,
		.start = slot->base_gfn,
		.end = slot->base_gfn + slot->npages,
		.flags = kpop_guest_as_id(slot->as_id),
		.min_level = min_level,
		.can_yield = true,
		.shared = true,
	};

	lockdep_assert_held(&kvm->slots_lock);
	lockdep_assert_held_read(&kvm->mmu_lock);

	if (kvm_slot_dirty_track_enabled(slot)) {
		if (kpop_guest_log_start(kvm, slot))
			return;
		/* L0 may have a log all the same, and let L2 write in 4K. */
		r.min_level = PG_LEVEL_4K;
	}
	kpop_guest_unmap_range(kvm, &r);
}

/* Take [start, end) away at once; mmu_lock as for wrprot, or held for write. */
void kpop_guest_unmap_now(struct kvm *kvm, const struct kvm_memory_slot *slot,
			  gfn_t start, gfn_t end, int min_level)
{
	struct kpop_guest_range r = {
		.slot = slot,
		.start = start,
		.end = end,
		.flags = kpop_guest_as_id(slot->as_id),
		.min_level = min_level,
	};

	kpop_guest_unmap_range(kvm, &r);
}

/* The same for the pages of @mask; mmu_lock is held for write. */
void kpop_guest_wrprot_pt_masked(struct kvm *kvm,
				 const struct kvm_memory_slot *slot,
				 gfn_t gfn, unsigned long mask)
{
	unsigned int from, to;

	lockdep_assert_held_write(&kvm->mmu_lock);

	/* L0 protected them when its log was read or taken. */
	if (kpop_guest_logs(kvm, slot))
		return;

	for_each_set_bitrange(from, to, &mask, BITS_PER_LONG)
		kpop_guest_unmap_now(kvm, slot, gfn + from, gfn + to, PG_LEVEL_4K);
}

/* Page tracking and shadowing; the page comes back read-only. */
void kpop_guest_write_protect_gfn(struct kvm *kvm,
				  const struct kvm_memory_slot *slot, gfn_t gfn,
				  int min_level)
{
	lockdep_assert_held_write(&kvm->mmu_lock);

	kpop_guest_unmap_now(kvm, slot, gfn, gfn + 1, min_level);
}

/* Take 4K pages away that can come back as huge ones; mmu_lock as for wrprot. */
void kpop_guest_zap_collapsible(struct kvm *kvm,
				const struct kvm_memory_slot *slot)
{
	const gfn_t n = KVM_PAGES_PER_HPAGE(PG_LEVEL_2M);
	gfn_t gfn, end = slot->base_gfn + slot->npages;

	lockdep_assert_held(&kvm->slots_lock);
	lockdep_assert_held_read(&kvm->mmu_lock);

	kpop_guest_log_stop(kvm, slot);

	for (gfn = ALIGN(slot->base_gfn, n); gfn + n <= end; gfn += n) {
		if (need_resched() || rwlock_needbreak(&kvm->mmu_lock))
			cond_resched_rwlock_read(&kvm->mmu_lock);

		if (!kpop_guest_any(slot, gfn, gfn + n, PG_LEVEL_4K) ||
		    kvm_mmu_max_mapping_level(kvm, slot, gfn, PG_LEVEL_NUM) == PG_LEVEL_4K)
			continue;

		kpop_guest_unmap_now(kvm, slot, gfn, gfn + n, PG_LEVEL_4K);
	}
}
