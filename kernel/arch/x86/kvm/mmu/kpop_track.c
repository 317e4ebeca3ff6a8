// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP in L0: what L2 has accessed and written, kept for L1 and read in bulk.
 *
 * Accessed bits are those of the SPTEs; with an SPTE they may get lost.
 *
 * Dirty state may not.  A range that L1 logs has a bitmap, by L2 gfn of one L2
 * VM and as_id, which outlives spaces, roots and mappings.  A bit is set
 * before the SPTE lets L2 write, and before L0 writes on L2's behalf; what has
 * no bit is mapped without W, in 4K.  Reading clears bits and takes W away
 * again.  So nothing that takes an SPTE away has to care.
 *
 * If L0 loses a log (detach, migration of L1, RESET) L1 learns it by -ENOENT
 * and takes all that it offered writable for dirty.
 */
#include "mmu.h"
#include "kpop.h"
#include "tdp_mmu.h"
#include "kpop_trace.h"

static u64 kpop_log_bytes(u64 npages)
{
	return sizeof(struct kpop_log) + BITS_TO_LONGS(npages) * sizeof(long);
}

/* The log that an L2 gfn is in, or NULL; mmu_lock or kv->lock is held. */
struct kpop_log *kpop_log_find(struct kpop_vm *kv, u32 kvm_id, u32 as_id, gfn_t l2)
{
	struct kpop_log *log;

	lockdep_assert(lockdep_is_held(&kv->lock) ||
		       lockdep_is_held(&kv->kvm->mmu_lock));

	list_for_each_entry(log, &kv->logs, link)
		if (log->kvm_id == kvm_id && log->as_id == as_id &&
		    l2 >= log->l2 && l2 - log->l2 < log->npages)
			return log;
	return NULL;
}

/**
 * kpop_log_overlaps - is any page of a range logged?
 * @space: the space
 * @l2: first L2 gfn
 * @npages: how many
 *
 * Context: mmu_lock held.
 */
bool kpop_log_overlaps(struct kpop_space *space, gfn_t l2, u64 npages)
{
	struct kpop_log *log;

	lockdep_assert_held(&space->kv->kvm->mmu_lock);

	list_for_each_entry(log, &space->kv->logs, link)
		if (log->kvm_id == space->kvm_id && log->as_id == space->as_id &&
		    l2 < log->l2 + log->npages && log->l2 < l2 + npages)
			return true;
	return false;
}

/**
 * kpop_log_access - an L2 gfn is about to be mapped, or written by L0
 * @space: the space
 * @l2: the L2 gfn
 * @write: for a write of L2
 *
 * Context: mmu_lock held, until the SPTE is set.
 * Return: KPOP_LOG_NONE: L1 does not log it; KPOP_LOG_DIRTY: the log has it,
 * it may be writable in 4K; KPOP_LOG_CLEAN: it may not.
 */
enum kpop_log_state kpop_log_access(struct kpop_space *space, gfn_t l2, bool write)
{
	struct kpop_log *log;

	lockdep_assert_held(&space->kv->kvm->mmu_lock);

	log = kpop_log_find(space->kv, space->kvm_id, space->as_id, l2);
	if (!log)
		return KPOP_LOG_NONE;
	/* With a buffer it was told before, or it is not written now. */
	if (write && !log->buffer)
		set_bit(l2 - log->l2, log->bits);
	return test_bit(l2 - log->l2, log->bits) ? KPOP_LOG_DIRTY : KPOP_LOG_CLEAN;
}

/**
 * kpop_log_walk - L0 translated a write of L2 for itself
 * @space: the space
 * @l2: the L2 gfn
 *
 * Context: no mmu_lock; the caller is in a walk, which who starts or reads a
 * log waits for.
 * Return: 0, or an error: L1 must see this write.
 */
int kpop_log_walk(struct kpop_space *space, gfn_t l2)
{
	struct kpop_vm *kv = space->kv;

	if (list_empty_careful(&kv->logs))
		return 0;

	read_lock(&kv->kvm->mmu_lock);
	kpop_log_access(space, l2, true);
	read_unlock(&kv->kvm->mmu_lock);
	return kpop_buffer_tell(space, l2);
}

/**
 * kpop_log_has_buffer - is all of a range in a log with a buffer?
 * @space: the space
 * @l2: first L2 gfn
 * @npages: how many
 */
bool kpop_log_has_buffer(struct kpop_space *space, gfn_t l2, u64 npages)
{
	struct kpop_vm *kv = space->kv;
	struct kpop_log *log;
	bool has;

	read_lock(&kv->kvm->mmu_lock);
	log = kpop_log_find(kv, space->kvm_id, space->as_id, l2);
	has = log && log->buffer && npages <= log->npages - (l2 - log->l2);
	read_unlock(&kv->kvm->mmu_lock);
	return has;
}

static void kpop_log_free(struct kpop_vm *kv, struct kpop_log *log)
{
	kpop_uncharge(kv, kpop_log_bytes(log->npages));
	kpop_buffer_put(kv, log->buffer);
	kvfree(log);
}

/* Take a log out of use.  Caller holds kv->lock. */
static void kpop_log_drop(struct kpop_vm *kv, struct kpop_log *log)
{
	lockdep_assert_held(&kv->lock);

	write_lock(&kv->kvm->mmu_lock);
	list_del(&log->link);
	write_unlock(&kv->kvm->mmu_lock);
	kv->nr_logs--;
	kpop_log_free(kv, log);
}

/**
 * kpop_log_drop_all - L1's logs are void, and their buffers
 * @kv: the VM
 *
 * Context: may sleep; no lock held.
 */
void kpop_log_drop_all(struct kpop_vm *kv)
{
	struct kpop_log *log, *next;

	mutex_lock(&kv->lock);
	list_for_each_entry_safe(log, next, &kv->logs, link)
		kpop_log_drop(kv, log);
	mutex_unlock(&kv->lock);
	kpop_buffer_drop_all(kv);
}

/* The logs that use a buffer end with it; kv->lock is held. */
void kpop_log_drop_buffered(struct kpop_vm *kv, const struct kpop_buffer *buf)
{
	struct kpop_log *log, *next;

	list_for_each_entry_safe(log, next, &kv->logs, link)
		if (log->buffer == buf)
			kpop_log_drop(kv, log);
}

/*
 * What is mapped writable in a range must fault for the next write.  Also an
 * invalid root may be in use still.  Caller holds kv->lock, by which the space
 * stays.
 */
static void kpop_protect_range(struct kpop_space *space, gfn_t l2, gfn_t l2_end)
{
	struct kvm *kvm = space->kv->kvm;
	struct kvm_mmu_page *root;

	lockdep_assert_held(&space->kv->lock);

	read_lock(&kvm->mmu_lock);
	root = kpop_get_root(space);
	if (root) {
		kvm_tdp_mmu_wrprot_kpop(kvm, root, l2, l2_end);
		kvm_tdp_mmu_put_root(kvm, root);
	}
	read_unlock(&kvm->mmu_lock);
}

static struct kpop_log *kpop_log_alloc(struct kpop_vm *kv, u32 kvm_id, u32 as_id,
				       gfn_t l2, u64 npages)
{
	u64 bytes = kpop_log_bytes(npages);
	struct kpop_log *log;

	if (kpop_charge(kv, bytes))
		return ERR_PTR(-E2BIG);
	/* L1 decides how many and how large: it must not fill the host's log. */
	log = kvzalloc(bytes, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!log) {
		kpop_uncharge(kv, bytes);
		return ERR_PTR(-ENOMEM);
	}
	log->kvm_id = kvm_id;
	log->as_id = as_id;
	log->l2 = l2;
	log->npages = npages;
	return log;
}

/* The log that was started with this range, or NULL; kv->lock is held. */
static struct kpop_log *kpop_log_of_range(struct kpop_vm *kv, u32 kvm_id, u32 as_id,
					  gfn_t l2, u64 npages)
{
	struct kpop_log *log = kpop_log_find(kv, kvm_id, as_id, l2);

	return log && log->l2 == l2 && log->npages == npages ? log : NULL;
}

/* Caller holds kv->lock.  Return: 0, -EALREADY, -EBUSY or -E2BIG. */
static int kpop_log_may_add(struct kpop_vm *kv, const struct kpop_log *new)
{
	struct kpop_log *log;

	lockdep_assert_held(&kv->lock);

	list_for_each_entry(log, &kv->logs, link) {
		if (log->kvm_id != new->kvm_id || log->as_id != new->as_id)
			continue;
		if (log->l2 == new->l2 && log->npages == new->npages)
			return log->buffer == new->buffer ? -EALREADY : -EBUSY;
		if (log->l2 < new->l2 + new->npages &&
		    new->l2 < log->l2 + log->npages)
			return -EBUSY;
	}
	return kv->nr_logs < KPOP_MAX_LOGS ? 0 : -E2BIG;
}

/**
 * kpop_log_start - log what an L2 writes to a range
 * @kv: the L1 VM
 * @kvm_id: L1's number of the L2 VM
 * @as_id: which of its as_ids
 * @l2: first L2 gfn
 * @npages: how many
 * @buffered: into the L2 VM's buffer
 *
 * On return no write of L2 to the range goes unnoticed.
 *
 * Context: vCPU thread, kvm->srcu held, may sleep.
 * Return: 0, also if that very range is logged already; -EBUSY (it overlaps
 * another one of that L2 VM and as_id), -ENOENT (it has no buffer), -EAGAIN (the
 * policy goes), -E2BIG, -ENOMEM; -EINTR: a signal is pending, call again.
 */
int kpop_log_start(struct kpop_vm *kv, u32 kvm_id, u32 as_id, gfn_t l2, u64 npages,
		   bool buffered)
{
	struct kpop_space *space;
	struct kpop_log *log;
	bool there;
	int r;

	/*
	 * What is there already must not fail for want of memory.  A buffer that
	 * a log has is the L2 VM's.
	 */
	mutex_lock(&kv->lock);
	log = kpop_log_of_range(kv, kvm_id, as_id, l2, npages);
	there = log && !!log->buffer == buffered;
	mutex_unlock(&kv->lock);
	if (there)
		return kpop_wait_walks(kv);

	log = kpop_log_alloc(kv, kvm_id, as_id, l2, npages);
	if (IS_ERR(log))
		return PTR_ERR(log);

	mutex_lock(&kv->lock);
	if (buffered)
		log->buffer = kpop_buffer_get(kv, kvm_id);
	if (kv->closed || kv->dropping)
		r = -EAGAIN;
	else if (buffered && !log->buffer)
		r = -ENOENT;
	else
		r = kpop_log_may_add(kv, log);
	if (r) {
		mutex_unlock(&kv->lock);
		kpop_log_free(kv, log);
		return r == -EALREADY ? kpop_wait_walks(kv) : r;
	}

	/* Seen by all that map from here on; what is mapped is next. */
	write_lock(&kv->kvm->mmu_lock);
	list_add(&log->link, &kv->logs);
	write_unlock(&kv->kvm->mmu_lock);
	kv->nr_logs++;

	list_for_each_entry(space, &kv->spaces, link)
		if (kpop_space_is(space, kvm_id, as_id))
			kpop_protect_range(space, l2, l2 + npages);
	kvm_flush_remote_tlbs(kv->kvm);
	mutex_unlock(&kv->lock);

	return kpop_wait_walks(kv);
}

/**
 * kpop_log_stop - stop to log a range
 * @kv: the L1 VM
 * @kvm_id: L1's number of the L2 VM
 * @as_id: which of its as_ids
 * @l2: as it was started
 * @npages: as it was started
 *
 * Return: 0 or -ENOENT.
 */
int kpop_log_stop(struct kpop_vm *kv, u32 kvm_id, u32 as_id, gfn_t l2, u64 npages)
{
	struct kpop_log *log;

	mutex_lock(&kv->lock);
	log = kpop_log_of_range(kv, kvm_id, as_id, l2, npages);
	if (log)
		kpop_log_drop(kv, log);
	mutex_unlock(&kv->lock);
	return log ? 0 : -ENOENT;
}

/* Take W from the pages of @mask, from @l2 on, in all spaces; mmu_lock for write. */
void kpop_protect_mask(struct kpop_vm *kv, const struct kpop_log *log, gfn_t l2,
		       unsigned long mask)
{
	struct kpop_space *space;

	lockdep_assert_held(&kv->lock);
	lockdep_assert_held_write(&kv->kvm->mmu_lock);

	list_for_each_entry(space, &kv->spaces, link)
		if (space->root && kpop_space_is(space, log->kvm_id, log->as_id))
			kvm_tdp_mmu_protect_kpop(kv->kvm, space->root, l2, mask);
}

/* How many words one hold of mmu_lock reads. */
#define KPOP_LOG_BATCH	64

/* Move bits from the log to @to, and protect their pages.  kv->lock is held. */
static u64 kpop_log_take(struct kpop_vm *kv, struct kpop_log *log, gfn_t l2,
			 u64 npages, unsigned long *to)
{
	u64 first = BIT_WORD(l2 - log->l2), words = BITS_TO_LONGS(npages);
	u64 i, found = 0;

	for (i = 0; i < words; i++) {
		unsigned long *word = &log->bits[first + i];

		if (!(i % KPOP_LOG_BATCH)) {
			if (i)
				write_unlock(&kv->kvm->mmu_lock);
			cond_resched();
			write_lock(&kv->kvm->mmu_lock);
		}
		if (!READ_ONCE(*word))
			continue;
		to[i] = xchg(word, 0);
		found += hweight_long(to[i]);
		kpop_protect_mask(kv, log, l2 + i * BITS_PER_LONG, to[i]);
	}
	write_unlock(&kv->kvm->mmu_lock);
	return found;
}

/* A read that did not come to its end: the bits stay for the next one. */
static void kpop_log_put_back(struct kpop_vm *kv, u32 kvm_id, u32 as_id, gfn_t l2,
			      u64 npages, const unsigned long *from)
{
	struct kpop_log *log;
	u64 i;

	mutex_lock(&kv->lock);
	log = kpop_log_find(kv, kvm_id, as_id, l2);
	if (log && npages <= log->npages - (l2 - log->l2))
		for_each_set_bit(i, from, npages)
			set_bit(l2 - log->l2 + i, log->bits);
	mutex_unlock(&kv->lock);
}

/**
 * kpop_log_read - which pages did an L2 write since the last time?
 * @kv: the L1 VM
 * @kvm_id: L1's number of the L2 VM
 * @as_id: which of its as_ids
 * @l2: first L2 gfn, a multiple of 64 from the log's start
 * @npages: how many, at most KPOP_TRACK_MAX_PAGES
 * @to: zeroed, a bit for each page
 *
 * On return all that was written before is in @to or will be the next time,
 * and a write from now on will be the next time.
 *
 * Context: vCPU thread, kvm->srcu held, may sleep.
 * Return: how many pages, -ENOENT (no such log without buffer), -EINVAL, or -EINTR: a signal
 * is pending, nothing was read.
 */
long kpop_log_read(struct kpop_vm *kv, u32 kvm_id, u32 as_id, gfn_t l2, u64 npages,
		   unsigned long *to)
{
	struct kpop_log *log;
	long found;

	mutex_lock(&kv->lock);
	log = kpop_log_find(kv, kvm_id, as_id, l2);
	if (!log || log->buffer) {
		found = -ENOENT;
	} else if ((l2 - log->l2) % BITS_PER_LONG ||
		   npages > log->npages - (l2 - log->l2) ||
		   (npages % BITS_PER_LONG && l2 + npages != log->l2 + log->npages)) {
		found = -EINVAL;
	} else {
		found = kpop_log_take(kv, log, l2, npages, to);
		if (found)
			kvm_flush_remote_tlbs(kv->kvm);
	}
	mutex_unlock(&kv->lock);

	if (found > 0 && kpop_wait_walks(kv)) {
		kpop_log_put_back(kv, kvm_id, as_id, l2, npages, to);
		return -EINTR;
	}
	return found;
}

/* How many pages one hold of mmu_lock looks at. */
#define KPOP_AGE_STEP	512

/**
 * kpop_age_range - which pages did an L2 access since the last time?
 * @kv: the L1 VM
 * @kvm_id: L1's number of the L2 VM
 * @as_id: which of its as_ids
 * @l2: first L2 gfn
 * @npages: how many, at most KPOP_TRACK_MAX_PAGES
 * @to: zeroed, a bit for each page
 * @test_only: do not begin a new interval
 *
 * TLBs are not flushed: as everywhere, an access may be missed that hits one.
 *
 * Context: vCPU thread, kvm->srcu held, may sleep.
 * Return: how many pages.
 */
long kpop_age_range(struct kpop_vm *kv, u32 kvm_id, u32 as_id, gfn_t l2, u64 npages,
		    unsigned long *to, bool test_only)
{
	struct kvm *kvm = kv->kvm;
	struct kpop_space *space;
	gfn_t gfn, end;

	mutex_lock(&kv->lock);
	/* All spaces go: this must not hold up who drops them. */
	for (gfn = l2; gfn < l2 + npages && !kv->closed; gfn = end) {
		end = min(l2 + npages, gfn + KPOP_AGE_STEP);
		write_lock(&kvm->mmu_lock);
		list_for_each_entry(space, &kv->spaces, link)
			if (space->root && kpop_space_is(space, kvm_id, as_id))
				kvm_tdp_mmu_harvest_kpop(kvm, space->root, gfn, end,
							 l2, npages, to, test_only);
		write_unlock(&kvm->mmu_lock);
		cond_resched();
	}
	mutex_unlock(&kv->lock);
	return bitmap_weight(to, npages);
}
