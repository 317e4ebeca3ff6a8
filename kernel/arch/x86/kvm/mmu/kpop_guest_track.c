// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP on L1: what L2 wrote and accessed, as L0 knows it.  See kpop_guest.c for
 * the whole picture, KVM_HC_KPOP_MMU_TRACK for the calls.
 *
 * Dirty log.  While L0 logs a slot, L1 sees no write of L2: W is offered as if
 * nothing was logged, and L0's log is merged into the slot's bitmap before user
 * space gets it.  If L0 can not, L1 offers W for a write only and marks the page
 * itself.  If L0 has lost the log, each page ever offered is taken for dirty.  If
 * the dirty ring is used the log is another one: kpop_guest_ring.c.
 *
 * Accesses.  Linux ages page by page; one call fetches KPOP_TRACK_MAX_PAGES at
 * a time into a cache.  What is in there is current enough for the first
 * question about a page within a jiffy; the second one is asked of L0 again.
 */
#include <linux/bitmap.h>
#include <linux/jiffies.h>
#include <linux/kvm_para.h>

#include "mmu.h"
#include "mmu_internal.h"
#include "kpop_guest.h"

#define KPOP_CHUNK_PAGES	((gfn_t)KPOP_TRACK_MAX_PAGES)

/**
 * struct kpop_guest_young - accesses to KPOP_CHUNK_PAGES L2 gfns
 * @young: accessed since it was last asked whether they were
 * @asked: asked for since the last fetch
 * @stamp: jiffies of that
 * @first: the first L2 gfn of that, which was of one slot
 * @fetched: there was one
 *
 * Protected by mmu_lock held for write.
 */
struct kpop_guest_young {
	unsigned long young[BITS_TO_LONGS(KPOP_CHUNK_PAGES)];
	unsigned long asked[BITS_TO_LONGS(KPOP_CHUNK_PAGES)];
	unsigned long stamp;
	gfn_t first;
	bool fetched;
};

/* Return: as the hypercall. */
long __kpop_guest_track(struct kvm *kvm, u64 op, int as_id, gfn_t gfn, u64 npages,
			u64 to)
{
	struct kpop_guest_vm *kg = kvm->arch.kpop_guest;

	kvm->stat.kpop_guest_tracks++;
	return kvm_hypercall4(KVM_HC_KPOP_MMU_TRACK, op | kpop_guest_as_id(as_id),
			      kg->kvm_id | npages << 32, gfn, to);
}

/* @to: bits within a page, or NULL. */
static long kpop_guest_track(struct kvm *kvm, u64 op, int as_id, gfn_t gfn,
			     u64 npages, void *to)
{
	return __kpop_guest_track(kvm, op, as_id, gfn, npages, to ? __pa(to) : 0);
}

/* Does L0 note each write of L2 to a slot, so that L1 need not see it? */
bool kpop_guest_logs(struct kvm *kvm, const struct kvm_memory_slot *slot)
{
	if (!slot->arch.kpop || !READ_ONCE(slot->arch.kpop->logged))
		return false;

	/* With a bitmap it was logged before there was a ring: L0's log fills that. */
	return !kvm->dirty_ring_size ||
	       (!slot->dirty_bitmap && !READ_ONCE(kvm->arch.kpop_guest->ring_lost));
}

/* Return: does L0 log the slot? */
static bool kpop_guest_ask_log(struct kvm *kvm, const struct kvm_memory_slot *slot)
{
	struct kpop_guest_vm *kg = kvm->arch.kpop_guest;
	bool ring = kvm->dirty_ring_size;

	return kg->page && (ring ? !!kg->ring : !!slot->dirty_bitmap) &&
	       !__kpop_guest_track(kvm, KPOP_TRACK_LOG_START, slot->as_id,
				   slot->base_gfn, slot->npages,
				   ring ? KPOP_LOG_BUFFERED : 0);
}

/**
 * kpop_guest_log_start - have L0 log what L2 writes to a slot
 * @kvm: the VM
 * @slot: a slot that is dirty-logged
 *
 * Context: slots_lock held; mmu_lock may be held for read.
 * Return: false if L0 does not: L1 must see each first write itself.
 */
bool kpop_guest_log_start(struct kvm *kvm, const struct kvm_memory_slot *slot)
{
	bool logged;

	lockdep_assert_held(&kvm->slots_lock);

	if (!slot->arch.kpop)
		return false;

	logged = kpop_guest_ask_log(kvm, slot);
	WRITE_ONCE(slot->arch.kpop->logged, logged);
	return kpop_guest_logs(kvm, slot);
}

/* Logging begins with all pages taken for dirty; slots_lock is held. */
void kpop_guest_log_init(struct kvm *kvm, const struct kvm_memory_slot *slot)
{
	if (kpop_guest_on(kvm))
		kpop_guest_log_start(kvm, slot);
}

/* The slot is no longer logged, or goes; slots_lock is held or nobody is left. */
void kpop_guest_log_stop(struct kvm *kvm, const struct kvm_memory_slot *slot)
{
	struct kpop_guest_slot *ks = slot->arch.kpop;

	if (!ks || !ks->logged)
		return;

	WRITE_ONCE(ks->logged, false);
	if (kpop_guest_on(kvm))
		kpop_guest_track(kvm, KPOP_TRACK_LOG_STOP, slot->as_id,
				 slot->base_gfn, slot->npages, NULL);
}

/**
 * kpop_guest_dirty_offered - take what L2 may have written for dirty
 * @slot: a slot with a dirty bitmap
 * @level: pages offered at this level ...
 * @from: ... from this index on ...
 * @to: ... to this one
 *
 * What L1 takes away is dirty at once: L0's log has it too, but may get lost.
 */
void kpop_guest_dirty_offered(const struct kvm_memory_slot *slot, int level,
			      unsigned long from, unsigned long to)
{
	unsigned long *map = kpop_guest_offered(slot, level), i = from;
	int shift = KVM_HPAGE_GFN_SHIFT(level);
	gfn_t base = slot->base_gfn >> shift, gfn, end;

	for_each_set_bit_from(i, map, to + 1) {
		gfn = max((base + i) << shift, slot->base_gfn);
		end = min((base + i + 1) << shift, slot->base_gfn + slot->npages);
		for (; gfn < end; gfn++)
			set_bit_le(gfn - slot->base_gfn, slot->dirty_bitmap);
	}
}

/*
 * From large to small: who splits an offer meanwhile sets the small bits first, so
 * that a page whose large bit is no more seen here has a small one (kpop_guest_split.c).
 */
void kpop_guest_dirty_slot(const struct kvm_memory_slot *slot)
{
	int level;

	for (level = KVM_MAX_HUGEPAGE_LEVEL; level >= PG_LEVEL_4K; level--)
		kpop_guest_dirty_offered(slot, level, 0,
					 gfn_to_index(slot->base_gfn + slot->npages - 1,
						      slot->base_gfn, level));
}

/**
 * kpop_guest_log_lost - L0's log of a slot is of no use any more
 * @kvm: the VM, which is off KPOP: no bit of @slot changes
 * @slot: the slot
 *
 * Context: slots_lock held.
 */
void kpop_guest_log_lost(struct kvm *kvm, const struct kvm_memory_slot *slot)
{
	struct kpop_guest_slot *ks = slot->arch.kpop;

	if (!ks || !ks->logged)
		return;
	/* L0 may have it still, and charge this VM for it. */
	kpop_guest_track(kvm, KPOP_TRACK_LOG_STOP, slot->as_id, slot->base_gfn,
			 slot->npages, NULL);
	WRITE_ONCE(ks->logged, false);
	if (slot->dirty_bitmap)
		kpop_guest_dirty_slot(slot);
}

/* L0 logs @slot no longer: L1 does, and what L2 may have written is dirty. */
static void kpop_guest_log_takeover(struct kvm *kvm, const struct kvm_memory_slot *slot)
{
	/*
	 * Nobody is between looking at ->logged and his MAP, and who takes a page
	 * away marks it until here.
	 */
	write_lock(&kvm->mmu_lock);
	kpop_guest_dirty_slot(slot);
	WRITE_ONCE(slot->arch.kpop->logged, false);
	write_unlock(&kvm->mmu_lock);

	read_lock(&kvm->mmu_lock);
	kpop_guest_wrprot_slot(kvm, slot, PG_LEVEL_4K);
	read_unlock(&kvm->mmu_lock);
}

static long kpop_guest_log_read(struct kvm *kvm, struct kvm_memory_slot *slot,
				unsigned long *bits)
{
	unsigned long i, w, *to;
	u64 npages;
	long ret;

	for (i = 0; i < slot->npages; i += KPOP_TRACK_MAX_PAGES) {
		npages = min_t(u64, slot->npages - i, KPOP_TRACK_MAX_PAGES);
		ret = kpop_guest_track(kvm, KPOP_TRACK_LOG_READ, slot->as_id,
				       slot->base_gfn + i, npages, bits);
		if (ret < 0)
			return ret;
		if (!ret)
			continue;

		to = slot->dirty_bitmap + BIT_WORD(i);
		for (w = 0; w < BITS_TO_LONGS(npages); w++)
			if (bits[w])
				atomic_long_or(bits[w], (atomic_long_t *)&to[w]);
		cond_resched();
	}
	return 0;
}

/**
 * kpop_guest_sync_dirty_log - have L2's writes in a slot's dirty bitmap
 * @kvm: the VM
 * @slot: the slot
 *
 * The pages are protected again: the next write is in the next log.
 *
 * Context: slots_lock held.
 */
void kpop_guest_sync_dirty_log(struct kvm *kvm, struct kvm_memory_slot *slot)
{
	struct kpop_guest_slot *ks = slot->arch.kpop;
	unsigned long *bits;

	lockdep_assert_held(&kvm->slots_lock);

	if (!kpop_guest_on(kvm) || !ks || !ks->logged || !slot->dirty_bitmap)
		return;

	bits = (unsigned long *)__get_free_page(GFP_KERNEL_ACCOUNT);
	if (bits && !kpop_guest_log_read(kvm, slot, bits))
		goto out;

	/* First what sees all from here on, then what was before. */
	if (kpop_guest_ask_log(kvm, slot))
		kpop_guest_dirty_slot(slot);
	else
		kpop_guest_log_takeover(kvm, slot);
out:
	free_page((unsigned long)bits);
}

static struct kpop_guest_young *kpop_guest_chunk(struct kvm *kvm, int as_id, gfn_t gfn)
{
	struct xarray *xa = &kvm->arch.kpop_guest->young;
	unsigned long index = gfn / KPOP_CHUNK_PAGES * KPOP_NR_AS_IDS + as_id;
	struct kpop_guest_young *y = xa_load(xa, index);

	if (y)
		return y;
	y = kzalloc(sizeof(*y), GFP_NOWAIT | __GFP_ACCOUNT | __GFP_NOWARN);
	if (!y)
		return NULL;
	if (xa_err(xa_store(xa, index, y, GFP_NOWAIT | __GFP_NOWARN))) {
		kfree(y);
		return NULL;
	}
	return y;
}

static bool kpop_bits_any(const unsigned long *bits, unsigned long from, unsigned long n)
{
	return find_next_bit(bits, from + n, from) < from + n;
}

/* The slot's part of a chunk. */
static void kpop_guest_fetch(struct kvm *kvm, const struct kvm_memory_slot *slot,
			     struct kpop_guest_young *y, gfn_t base)
{
	gfn_t start = max(base, slot->base_gfn);
	gfn_t end = min(base + KPOP_CHUNK_PAGES, slot->base_gfn + slot->npages);
	unsigned long *bits = kvm->arch.kpop_guest->page, i;

	if (kpop_guest_track(kvm, KPOP_TRACK_AGE, slot->as_id, start, end - start,
			     bits) > 0)
		for_each_set_bit(i, bits, end - start)
			__set_bit(start - base + i, y->young);

	bitmap_clear(y->asked, start - base, end - start);
	y->stamp = jiffies;
	y->first = start;
	y->fetched = true;
}

/* [start, end) is within one chunk and one slot. */
static bool kpop_guest_age_chunk(struct kvm *kvm, const struct kvm_memory_slot *slot,
				 gfn_t start, gfn_t end, bool test_only)
{
	struct kpop_guest_young *y = kpop_guest_chunk(kvm, slot->as_id, start);
	gfn_t base = ALIGN_DOWN(start, KPOP_CHUNK_PAGES);
	unsigned long from = start - base, n = end - start;
	bool young;

	if (!y)
		return kpop_guest_track(kvm, test_only ? KPOP_TRACK_TEST_AGE :
					KPOP_TRACK_AGE, slot->as_id, start, n,
					kvm->arch.kpop_guest->page) > 0;

	if (!y->fetched || y->first != max(base, slot->base_gfn) ||
	    time_after(jiffies, y->stamp) || kpop_bits_any(y->asked, from, n))
		kpop_guest_fetch(kvm, slot, y, base);

	young = kpop_bits_any(y->young, from, n);
	bitmap_set(y->asked, from, n);
	if (!test_only)
		bitmap_clear(y->young, from, n);
	return young;
}

/**
 * kpop_guest_age_range - did L2 access a range since this was last asked?
 * @kvm: the VM
 * @slot: the slot
 * @start: first L2 gfn
 * @end: L2 gfn behind the last
 * @test_only: do not begin a new interval
 *
 * Context: mmu_lock held for write.
 */
bool kpop_guest_age_range(struct kvm *kvm, const struct kvm_memory_slot *slot,
			  gfn_t start, gfn_t end, bool test_only)
{
	bool young = false;
	gfn_t next;

	lockdep_assert_held_write(&kvm->mmu_lock);

	for (; start < end; start = next) {
		next = min(end, ALIGN_DOWN(start, KPOP_CHUNK_PAGES) + KPOP_CHUNK_PAGES);
		young |= kpop_guest_age_chunk(kvm, slot, start, next, test_only);
	}
	return young;
}

/* What this file needs of a VM; without @page neither log nor ages are L0's. */
void kpop_guest_track_init(struct kpop_guest_vm *kg)
{
	long features = kvm_hypercall4(KVM_HC_KPOP_QUERY, KPOP_QUERY_FEATURES, 0, 0, 0);

	xa_init(&kg->young);
	spin_lock_init(&kg->ring_lock);
	if (features > 0 && features & KPOP_FEATURE_TRACK)
		kg->page = (unsigned long *)__get_free_page(GFP_KERNEL_ACCOUNT);
}

void kpop_guest_track_uninit(struct kpop_guest_vm *kg)
{
	struct kpop_guest_young *y;
	unsigned long i;

	xa_for_each(&kg->young, i, y)
		kfree(y);
	xa_destroy(&kg->young);
	free_page((unsigned long)kg->page);
}
