// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP in L0: what an L2 VM writes, told to L1 one by one in a page of L1's, as
 * a CPU with PML does.  For an L1 whose VMM uses the dirty ring.
 *
 * The logs of kpop_track.c tell L1 when it asks, and it may ask late.  A log
 * with a buffer has few pages that were written and not taken yet: each is an
 * entry, there before the SPTE lets L2 write, or L0 writes on L2's behalf.  A
 * write that would be one too many goes to L1, which takes them first.
 *
 * Entries are kept here and are the truth; the page has a copy of them.  By it
 * L1 sees without an exit that there are none, and when L0 has lost them (detach,
 * migration of L1) they are there all the same.
 *
 * A bit in the log says that there is an entry.  LOG_TAKE clears bits, takes W
 * away, waits for L0's own writes, and then gives the entries away: what comes
 * in meanwhile is behind them.
 */
#include "mmu.h"
#include "kpop.h"
#include "tdp_mmu.h"

/**
 * struct kpop_buffer - where what an L2 VM writes is told
 * @link: in kpop_vm.buffers, kpop_vm.lock
 * @count: that list, each log that uses it, who looks at it
 * @gpa: the page of L1
 * @lock: all below; taken before kpop_vm.lock and mmu_lock.  No walk ends as
 *	long as it waits for this, so nobody waits for walks with it
 * @taking: a LOG_TAKE is under way, entries stay where they are
 * @dead: the page is L1's again
 * @nr: entries
 * @max: more of them than this there must not be
 */
struct kpop_buffer {
	struct list_head link;
	refcount_t count;
	u32 kvm_id;
	gpa_t gpa;
	struct mutex lock;			/* all below */
	bool taking;
	bool dead;
	u32 nr;
	u32 max;
	u64 entries[KPOP_LOG_MAX_ENTRIES];
};

void kpop_buffer_put(struct kpop_vm *kv, struct kpop_buffer *buf)
{
	if (!buf || !refcount_dec_and_test(&buf->count))
		return;
	kpop_uncharge(kv, sizeof(*buf));
	kfree(buf);
}

/* With a reference, or NULL; kv->lock is held. */
struct kpop_buffer *kpop_buffer_get(struct kpop_vm *kv, u32 kvm_id)
{
	struct kpop_buffer *buf;

	lockdep_assert_held(&kv->lock);

	list_for_each_entry(buf, &kv->buffers, link) {
		if (buf->kvm_id == kvm_id) {
			refcount_inc(&buf->count);
			return buf;
		}
	}
	return NULL;
}

static struct kpop_buffer *kpop_buffer_alloc(struct kpop_vm *kv, u32 kvm_id, u32 max,
					     gpa_t gpa)
{
	struct kpop_buffer *buf;

	if (kpop_charge(kv, sizeof(*buf)))
		return ERR_PTR(-E2BIG);
	buf = kzalloc(sizeof(*buf), GFP_KERNEL_ACCOUNT);
	if (!buf) {
		kpop_uncharge(kv, sizeof(*buf));
		return ERR_PTR(-ENOMEM);
	}
	refcount_set(&buf->count, 1);
	mutex_init(&buf->lock);
	buf->kvm_id = kvm_id;
	buf->gpa = gpa;
	buf->max = max;
	return buf;
}

/**
 * kpop_buffer_set - give an L2 VM a buffer
 * @kv: the L1 VM
 * @kvm_id: L1's number of the L2 VM
 * @max: entries, at most KPOP_LOG_MAX_ENTRIES
 * @gpa: the page, in L1's memory
 *
 * Context: vCPU thread, kvm->srcu held, may sleep.
 * Return: 0; -EBUSY: it has one; -EAGAIN: the policy goes; -E2BIG, -ENOMEM,
 * -EFAULT.
 */
int kpop_buffer_set(struct kpop_vm *kv, u32 kvm_id, u32 max, gpa_t gpa)
{
	struct kpop_buffer *buf, *old;
	int r = 0;

	if (kvm_clear_guest(kv->kvm, gpa, PAGE_SIZE))
		return -EFAULT;
	buf = kpop_buffer_alloc(kv, kvm_id, max, gpa);
	if (IS_ERR(buf))
		return PTR_ERR(buf);

	mutex_lock(&kv->lock);
	old = kpop_buffer_get(kv, kvm_id);
	if (kv->closed || kv->dropping)
		r = -EAGAIN;
	else if (old)
		r = -EBUSY;
	else if (kv->nr_buffers >= KPOP_MAX_LOGS)
		r = -E2BIG;
	if (!r) {
		list_add(&buf->link, &kv->buffers);
		kv->nr_buffers++;
	}
	mutex_unlock(&kv->lock);

	kpop_buffer_put(kv, old);
	if (r)
		kpop_buffer_put(kv, buf);
	return r;
}

/* No log uses it any more, and from here on nothing is written to its page. */
static void kpop_buffer_kill(struct kpop_vm *kv, struct kpop_buffer *buf)
{
	mutex_lock(&buf->lock);
	buf->dead = true;
	mutex_unlock(&buf->lock);
	kpop_buffer_put(kv, buf);
}

/**
 * kpop_buffer_clear - take the buffer of an L2 VM back
 * @kv: the L1 VM
 * @kvm_id: L1's number of the L2 VM
 *
 * With the logs that use it.
 *
 * Context: may sleep; no lock held.
 * Return: 0 or -ENOENT.
 */
int kpop_buffer_clear(struct kpop_vm *kv, u32 kvm_id)
{
	struct kpop_buffer *buf;

	mutex_lock(&kv->lock);
	buf = kpop_buffer_get(kv, kvm_id);
	if (buf) {
		kpop_log_drop_buffered(kv, buf);
		list_del(&buf->link);
		kv->nr_buffers--;
		kpop_buffer_put(kv, buf);
	}
	mutex_unlock(&kv->lock);
	if (!buf)
		return -ENOENT;
	kpop_buffer_kill(kv, buf);
	return 0;
}

/**
 * kpop_buffer_drop_all - take all buffers back
 * @kv: the L1 VM
 *
 * Context: may sleep; no lock held.
 */
void kpop_buffer_drop_all(struct kpop_vm *kv)
{
	struct kpop_buffer *buf;
	u32 kvm_id = 0;

	do {
		mutex_lock(&kv->lock);
		buf = list_first_entry_or_null(&kv->buffers, struct kpop_buffer, link);
		if (buf)
			kvm_id = buf->kvm_id;
		mutex_unlock(&kv->lock);
		if (buf)
			kpop_buffer_clear(kv, kvm_id);
	} while (buf);
}

/* Has a write to @l2 to be told, and where?  With a reference. */
static struct kpop_buffer *kpop_buffer_wanted(struct kpop_space *space, gfn_t l2)
{
	struct kpop_vm *kv = space->kv;
	struct kpop_buffer *buf = NULL;
	struct kpop_log *log;

	read_lock(&kv->kvm->mmu_lock);
	log = kpop_log_find(kv, space->kvm_id, space->as_id, l2);
	if (log && log->buffer && !test_bit(l2 - log->l2, log->bits)) {
		buf = log->buffer;
		refcount_inc(&buf->count);
	}
	read_unlock(&kv->kvm->mmu_lock);
	return buf;
}

static void kpop_buffer_mark(struct kpop_space *space, gfn_t l2,
			     const struct kpop_buffer *buf)
{
	struct kpop_vm *kv = space->kv;
	struct kpop_log *log;

	read_lock(&kv->kvm->mmu_lock);
	log = kpop_log_find(kv, space->kvm_id, space->as_id, l2);
	if (log && log->buffer == buf)
		set_bit(l2 - log->l2, log->bits);
	read_unlock(&kv->kvm->mmu_lock);
}

/* buf->lock is held. */
static int kpop_buffer_add(struct kpop_space *space, gfn_t l2, struct kpop_buffer *buf)
{
	struct kpop_buffer *again = kpop_buffer_wanted(space, l2);
	u64 entry = l2 | (u64)space->as_id << KPOP_LOG_AS_ID_SHIFT | KPOP_LOG_ENTRY;

	kpop_buffer_put(space->kv, again);
	/* Told by another vCPU meanwhile, or logged no more. */
	if (again != buf)
		return 0;
	if (buf->nr >= buf->max)
		return -ENOSPC;
	if (kvm_write_guest(space->kv->kvm, buf->gpa + buf->nr * sizeof(entry), &entry,
			    sizeof(entry)))
		return -EFAULT;
	buf->entries[buf->nr++] = entry;
	kpop_buffer_mark(space, l2, buf);
	return 0;
}

/**
 * kpop_buffer_tell - L2 is about to write to a page
 * @space: the space
 * @l2: the L2 gfn
 *
 * Before the page may be mapped writable, or L0 writes to it, if its log has a
 * buffer.  A LOG_TAKE may come right behind: the caller looks at the log again
 * under mmu_lock, or is in a walk.
 *
 * Context: vCPU thread, kvm->srcu held, may sleep.
 * Return: 0 also if there is nothing to tell; -ENOSPC, -EFAULT: L1 must see this
 * write.
 */
int kpop_buffer_tell(struct kpop_space *space, gfn_t l2)
{
	struct kpop_vm *kv = space->kv;
	struct kpop_buffer *buf;
	int r;

	if (list_empty_careful(&kv->logs))
		return 0;
	buf = kpop_buffer_wanted(space, l2);
	if (!buf)
		return 0;

	mutex_lock(&buf->lock);
	r = kpop_buffer_add(space, l2, buf);
	mutex_unlock(&buf->lock);
	kpop_buffer_put(kv, buf);
	return r;
}

/* How many entries one hold of mmu_lock takes. */
#define KPOP_BUFFER_BATCH	64

/* The next write to what the first @n entries name has to be told again. */
static void kpop_buffer_protect(struct kpop_vm *kv, struct kpop_buffer *buf, u32 n)
{
	struct kpop_log *log;
	u32 i, as_id;
	gfn_t l2;

	mutex_lock(&kv->lock);
	for (i = 0; i < n; i++) {
		if (!(i % KPOP_BUFFER_BATCH)) {
			if (i)
				write_unlock(&kv->kvm->mmu_lock);
			cond_resched();
			write_lock(&kv->kvm->mmu_lock);
		}
		l2 = buf->entries[i] & KPOP_LOG_GFN_MASK;
		as_id = (buf->entries[i] & ~KPOP_LOG_ENTRY) >> KPOP_LOG_AS_ID_SHIFT;
		log = kpop_log_find(kv, buf->kvm_id, as_id, l2);
		if (!log || log->buffer != buf)
			continue;
		clear_bit(l2 - log->l2, log->bits);
		kpop_protect_mask(kv, log, l2, 1);
	}
	write_unlock(&kv->kvm->mmu_lock);
	kvm_flush_remote_tlbs(kv->kvm);
	mutex_unlock(&kv->lock);
}

/* Give the first @n entries away; buf->lock is held.  Return: @n or -EFAULT. */
static long kpop_buffer_give(struct kpop_vm *kv, struct kpop_buffer *buf, u32 n,
			     gpa_t to)
{
	const u32 size = sizeof(buf->entries[0]);
	u32 left = buf->nr - n;

	if (kvm_write_guest(kv->kvm, to, buf->entries, n * size))
		return -EFAULT;

	memmove(buf->entries, buf->entries + n, left * size);
	buf->nr = left;
	/* If L1's page cannot be written it shows too much: no harm. */
	if (!kvm_write_guest(kv->kvm, buf->gpa, buf->entries, left * size))
		kvm_clear_guest(kv->kvm, buf->gpa + left * size, n * size);
	return n;
}

/**
 * kpop_buffer_take - what did an L2 VM write since the last time?
 * @kv: the L1 VM
 * @kvm_id: L1's number of the L2 VM
 * @to: L1 GPA of a page for the entries
 *
 * On return all that was written before is there, in the buffer, or was taken
 * before; a write from now on will be in the buffer.
 *
 * Context: vCPU thread, kvm->srcu held, may sleep.
 * Return: how many entries; -ENOENT: no buffer; -EAGAIN: another vCPU does that;
 * -EFAULT, -EINTR: nothing is gone.
 */
long kpop_buffer_take(struct kpop_vm *kv, u32 kvm_id, gpa_t to)
{
	struct kpop_buffer *buf;
	long r = -EAGAIN;
	u32 n;

	mutex_lock(&kv->lock);
	buf = kpop_buffer_get(kv, kvm_id);
	mutex_unlock(&kv->lock);
	if (!buf)
		return -ENOENT;

	mutex_lock(&buf->lock);
	if (buf->taking)
		goto out;
	buf->taking = true;
	n = buf->nr;
	mutex_unlock(&buf->lock);

	r = 0;
	if (n) {
		kpop_buffer_protect(kv, buf, n);
		r = kpop_wait_walks(kv);
	}

	mutex_lock(&buf->lock);
	if (n && !r && buf->dead)
		r = -ENOENT;
	if (n && !r)
		r = kpop_buffer_give(kv, buf, n, to);
	buf->taking = false;
out:
	mutex_unlock(&buf->lock);
	kpop_buffer_put(kv, buf);
	return r;
}
