// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP in L0: install, remap, unmap.
 *
 * struct kvm_page_fault is told both sides of a page: gfn, slot, pfn and
 * mmu_seq are L1's, kpop_l2_gfn and kpop_root say where in which table.
 */
#include <linux/sched/signal.h>

#include "mmu.h"
#include "kpop.h"
#include "tdp_mmu.h"
#include "kpop_trace.h"

/**
 * kpop_l1_slot - the memslot that an L1 gfn of a translation is in
 * @kvm: the L1 VM
 * @l1: L1 gfn
 *
 * Context: kvm->srcu held.
 * Return: a user memslot of as_id 0, or NULL; KVM's own slots (the APIC access
 * page and the like) are nothing that L1 may give away.
 */
struct kvm_memory_slot *kpop_l1_slot(struct kvm *kvm, gfn_t l1)
{
	struct kvm_memory_slot *slot = gfn_to_memslot(kvm, l1);

	return slot && slot->id < KVM_USER_MEM_SLOTS ? slot : NULL;
}

/* The largest page that both sides and one run allow around an L2 gfn. */
static u8 kpop_max_level(const struct kpop_trans *t, gfn_t l2)
{
	u8 level;

	for (level = KVM_MAX_HUGEPAGE_LEVEL; level > PG_LEVEL_4K; level--) {
		gfn_t pages = KVM_PAGES_PER_HPAGE(level);
		gfn_t base = l2 & -pages;

		if (!((t->l1 ^ t->l2) & (pages - 1)) && base >= t->l2 &&
		    base + pages <= t->l2 + t->npages)
			break;
	}
	return level;
}

static unsigned int kpop_acc(u32 rights)
{
	return ACC_USER_MASK | (rights & KPOP_MAP_W ? ACC_WRITE_MASK : 0) |
	       (rights & KPOP_MAP_X ? ACC_EXEC_MASK : 0);
}

/*
 * Get the host page; with @wait it is waited for.  See __kvm_faultin_pfn().  The
 * slot is looked up here unless the caller has done so.
 */
static int kpop_faultin(struct kvm *kvm, struct kvm_page_fault *fault, bool wait)
{
	struct kvm_memory_slot *slot = fault->slot ?: kpop_l1_slot(kvm, fault->gfn);

	/* Nothing of L1's memory, e.g. a device of L0: L0 emulates. */
	if (!slot)
		return RET_PF_EMULATE;
	if (slot->flags & KVM_MEMSLOT_INVALID)
		return RET_PF_RETRY;

	fault->slot = slot;
	/* Without mmu_lock, as in kvm_faultin_pfn(). */
	fault->mmu_seq = READ_ONCE(kvm->mmu_invalidate_seq);
	/* Read the sequence before the page, as kvm_faultin_pfn(). */
	smp_rmb();
	if (mmu_invalidate_retry_gfn_unsafe(kvm, fault->mmu_seq, fault->gfn))
		return RET_PF_RETRY;

	fault->pfn = __gfn_to_pfn_memslot(slot, fault->gfn, !wait, wait, NULL,
					  fault->write, &fault->map_writable,
					  &fault->hva);
	if (!is_error_noslot_pfn(fault->pfn))
		return RET_PF_CONTINUE;
	if (!wait)
		return RET_PF_RETRY;
	if (fault->pfn == KVM_PFN_ERR_RO_FAULT)
		return RET_PF_EMULATE;
	if (fault->pfn == KVM_PFN_ERR_SIGPENDING)
		return -EINTR;
	if (fault->pfn == KVM_PFN_ERR_HWPOISON)
		return -EHWPOISON;
	return -EFAULT;
}

/*
 * L1 logs what L2 writes: a page that is not in the log is not writable, and a
 * huge page has none that is logged.
 */
static void kpop_log_fault(struct kpop_space *space, struct kvm_page_fault *fault)
{
	u64 pages;

	switch (kpop_log_access(space, fault->kpop_l2_gfn, fault->kpop_write)) {
	case KPOP_LOG_NONE:
		for (; fault->max_level > PG_LEVEL_4K; fault->max_level--) {
			pages = KVM_PAGES_PER_HPAGE(fault->max_level);
			if (!kpop_log_overlaps(space, fault->kpop_l2_gfn & -pages, pages))
				break;
		}
		return;
	case KPOP_LOG_CLEAN:
		fault->kpop_access &= ~ACC_WRITE_MASK;
		break;
	case KPOP_LOG_DIRTY:
		break;
	}
	fault->max_level = PG_LEVEL_4K;
}

/*
 * The second half of an install: everything is looked at once more, and done,
 * in one section of mmu_lock.
 */
static int kpop_install_locked(struct kvm_vcpu *vcpu, struct kpop_space *space,
			       struct kvm_page_fault *fault,
			       const struct kpop_trans *t)
{
	struct kvm_mmu_page *root, *made = NULL;
	struct kpop_trans now;
	int r = RET_PF_RETRY;

	root = kpop_valid_root(space);
	if (!root) {
		made = kpop_space_root(vcpu, space);
		if (!made)
			return RET_PF_RETRY;
		root = made;
	}

	if (space->dead || root->role.invalid ||
	    mmu_invalidate_retry_gfn(vcpu->kvm, fault->mmu_seq, fault->gfn))
		goto out;

	if (t->taken != space->taken) {
		if (!kpop_trans_lookup(space, fault->kpop_l2_gfn, &now) ||
		    now.l1 + (fault->kpop_l2_gfn - now.l2) != fault->gfn)
			goto out;
		t = &now;
	}

	fault->kpop_root = root;
	fault->kpop_access = kpop_acc(t->rights);
	if ((fault->write && !(t->rights & KPOP_MAP_W)) ||
	    (fault->exec && !(t->rights & KPOP_MAP_X)))
		goto out;

	fault->max_level = kpop_max_level(t, fault->kpop_l2_gfn);
	kpop_log_fault(space, fault);
	r = kvm_tdp_mmu_map(vcpu, fault);
out:
	if (made)
		kvm_tdp_mmu_put_root(vcpu->kvm, made);
	return r;
}

/**
 * kpop_install - make one translated page present in a space's table
 * @vcpu: the vCPU that runs this
 * @space: the space; the caller holds a reference
 * @fault: gfn is the L1 gfn, kpop_l2_gfn the L2 gfn; kpop, kpop_write (L2 does
 *	write), write and exec are set, slot may be, the rest is filled in here
 * @t: the translation that gave the L1 gfn, as looked up
 * @wait: may wait for the host page; without, a page that is not resident is
 *	left alone
 *
 * Context: vCPU thread, kvm->srcu held, no lock.
 * Return: RET_PF_*, or -EINTR, -EFAULT, -EHWPOISON, -ENOMEM.
 */
int kpop_install(struct kvm_vcpu *vcpu, struct kpop_space *space,
		 struct kvm_page_fault *fault, const struct kpop_trans *t,
		 bool wait)
{
	struct kvm *kvm = vcpu->kvm;
	kvm_pfn_t pfn;
	int r;

	if (kvm_mmu_topup_direct(vcpu))
		return -ENOMEM;
	kpop_make_room(space->kv);

	r = kpop_faultin(kvm, fault, wait);
	if (r != RET_PF_CONTINUE)
		return r;

	pfn = fault->pfn;
	/* make_spte() sees to pages of L1 that L0 write-tracks. */
	read_lock(&kvm->mmu_lock);
	r = kpop_install_locked(vcpu, space, fault, t);
	read_unlock(&kvm->mmu_lock);
	kvm_release_pfn_clean(pfn);
	return r;
}

/*
 * Make present what of a new translation is resident; @run is what it is a
 * part of.  Nothing here is an error: what is not installed now is when L2
 * touches it.
 */
static void kpop_install_range(struct kvm_vcpu *vcpu, struct kpop_space *space,
			       const struct kpop_trans *t,
			       const struct kpop_trans *run, bool written)
{
	bool prefetch = t->npages > 1;
	gfn_t i = 0;

	while (i < t->npages) {
		struct kvm_memory_slot *slot = kpop_l1_slot(vcpu->kvm, t->l1 + i);

		/* Each would go to the dirty ring now; L2's faults come one by one. */
		if (slot && kvm_slot_dirty_track_enabled(slot) &&
		    t->rights & KPOP_MAP_W)
			return;
		/*
		 * As would, where L1's buffer is in a logged slot, what tells L1: a
		 * batch of single pages comes here many times before KVM_RUN looks
		 * at the ring.
		 */
		if (written && vcpu->kvm->dirty_ring_size)
			return;

		struct kvm_page_fault fault = {
			.addr = gfn_to_gpa(t->l2 + i),
			.prefetch = prefetch && kpop_max_level(t, t->l2 + i) == PG_LEVEL_4K,
			.write = t->rights & KPOP_MAP_W,
			.is_tdp = true,
			.nx_huge_page_workaround_enabled =
				is_nx_huge_page_enabled(vcpu->kvm),
			.exec = false,
			.req_level = PG_LEVEL_4K,
			.goal_level = PG_LEVEL_4K,
			.gfn = t->l1 + i,
			.slot = slot,
			.pfn = KVM_PFN_ERR_FAULT,
			.hva = KVM_HVA_ERR_BAD,
			.kpop = true,
			.kpop_write = written,
			.kpop_l2_gfn = t->l2 + i,
		};
		gfn_t pages = 1;
		int r;

		/* If it cannot be told it is no write: L2 faults. */
		if (written)
			kpop_buffer_tell(space, t->l2 + i);
		r = kpop_install(vcpu, space, &fault, run, false);
		if (r < 0)
			return;
		if (r == RET_PF_FIXED || r == RET_PF_SPURIOUS)
			pages = KVM_PAGES_PER_HPAGE(fault.goal_level) -
				((t->l2 + i) & (KVM_PAGES_PER_HPAGE(fault.goal_level) - 1));
		i += pages;

		if (signal_pending(current))
			return;
		cond_resched();
	}
}

/* Zap, flush, forget [l2, l2_end) of a space; mmu_lock held for write. */
static void kpop_take_away(struct kpop_space *space, gfn_t l2, gfn_t l2_end,
			   struct kpop_spare *spare)
{
	struct kvm *kvm = space->kv->kvm;

	if (space->root &&
	    kvm_tdp_mmu_zap_kpop_leafs(kvm, space->root, l2, l2_end))
		kvm_flush_remote_tlbs(kvm);
	kpop_trans_punch(space, l2, l2_end, spare);
}

/* How many pages of a range one hold of mmu_lock takes away. */
#define KPOP_UNMAP_STEP	BIT_ULL(12)

/*
 * An L1 gfn that too many L2 gfns lead to would make each notifier walk long:
 * an old one goes, from its end on if it is long.  mmu_lock held for write.
 * Returns how many pages.
 */
static gfn_t kpop_recycle(struct kpop_vm *kv, const struct kpop_trans *t,
			  struct kpop_spare *spare)
{
	gfn_t last = t->l1 + t->npages - 1, from, end;
	struct kpop_run *run, *oldest = NULL;
	int n = 0;

	for (run = kpop_rmap_first(kv, t->l1, last); run && n < KPOP_MAX_ALIASES;
	     run = kpop_rmap_next(run, t->l1, last), n++)
		if (!oldest || run->seq < oldest->seq)
			oldest = run;
	if (!oldest)
		return 0;

	end = kpop_run_l2_end(oldest);
	from = max(oldest->l2, end - min(end, KPOP_UNMAP_STEP));
	kpop_take_away(oldest->space, from, end, spare);
	kpop_count(kv->kvm, kpop_recycled);
	return end - from;
}

/*
 * Too many runs that lead to any page of a range, which is more than to one page
 * where it is long.  Caller holds mmu_lock, and tree_lock unless for write.
 */
static bool kpop_crowded(struct kpop_vm *kv, const struct kpop_trans *t)
{
	gfn_t last = t->l1 + t->npages - 1;
	struct kpop_run *run;
	int n = 0;

	lockdep_assert_held(&kv->kvm->mmu_lock);

	for (run = kpop_rmap_first(kv, t->l1, last); run;
	     run = kpop_rmap_next(run, t->l1, last))
		if (++n >= KPOP_MAX_ALIASES)
			return true;
	return false;
}

/*
 * The usual case: nothing is taken away, mmu_lock for read is enough.  Without
 * spare runs only what needs none is done.  @run becomes what @t is a part of,
 * where that costs nothing.
 */
static int kpop_add(struct kpop_space *space, const struct kpop_trans *t,
		    struct kpop_trans *run, struct kpop_spare *spare)
{
	struct kpop_vm *kv = space->kv;
	int r = 0;

	read_lock(&kv->kvm->mmu_lock);
	write_lock(&kv->tree_lock);
	if (space->dead)
		r = -ENOENT;
	else if (kpop_trans_known(space, run))
		r = 0;
	else if (kpop_crowded(kv, t))
		r = -EBUSY;
	else if (kpop_trans_extend(space, run))
		r = 0;
	else if (!spare->nr)
		r = -ENOSPC;
	else if (kpop_trans_conflicts(space, t))
		r = -EBUSY;
	else
		kpop_trans_insert(space, t, spare);
	write_unlock(&kv->tree_lock);
	read_unlock(&kv->kvm->mmu_lock);
	return r;
}

/*
 * Nothing to split a run with: it goes from its end on, one step at a time.
 * Returns where to go on.
 */
static gfn_t kpop_unmap_tail(struct kpop_run *run, gfn_t l2,
			     struct kpop_spare *spare)
{
	gfn_t end = kpop_run_l2_end(run);
	gfn_t from = max3(l2, run->l2, end - min(end, KPOP_UNMAP_STEP));

	kpop_take_away(run->space, from, end, spare);
	return l2;
}

/*
 * Take [l2, end) of one space away, by what is mapped.  Caller holds kv->lock.
 * Return: 0, or -EINTR: begin again, what is gone is passed quickly.
 */
static int kpop_unmap_space(struct kpop_space *space, gfn_t l2, gfn_t end,
			    struct kpop_spare *spare)
{
	struct kvm *kvm = space->kv->kvm;
	struct kpop_run *run;

	lockdep_assert_held(&space->kv->lock);

	while (l2 < end) {
		gfn_t to = end;

		/* Neither cap nor memcg may stand in the way of what frees memory. */
		kpop_spare_fill(space->kv, spare,
				GFP_KERNEL_ACCOUNT | __GFP_NORETRY | __GFP_NOWARN);

		write_lock(&kvm->mmu_lock);
		run = kpop_trans_first(space, l2, end);
		if (run) {
			l2 = max(l2, run->l2);
			to = min(end, l2 + KPOP_UNMAP_STEP);
			run = kpop_trans_first(space, to - 1, to);
			if (run && run->l2 < l2 && kpop_run_l2_end(run) > to && !spare->nr)
				to = kpop_unmap_tail(run, l2, spare);
			else
				kpop_take_away(space, l2, to, spare);
		}
		write_unlock(&kvm->mmu_lock);

		l2 = to;
		if (signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

/* How many runs one hold of mmu_lock recycles. */
#define KPOP_RECYCLE_BATCH	64

/* mmu_lock held for write.  Return: 0, -ENOENT, or -EBUSY: some more of it. */
static int kpop_insert(struct kpop_space *space, const struct kpop_trans *t,
		       struct kpop_spare *spare)
{
	struct kpop_vm *kv = space->kv;
	gfn_t gone = 0;
	int n;

	lockdep_assert_held_write(&kv->kvm->mmu_lock);

	if (space->dead)
		return -ENOENT;

	/* What came since it was unmapped. */
	kpop_take_away(space, t->l2, t->l2 + t->npages, spare);

	for (n = 0; kpop_crowded(kv, t); n++) {
		if (n == KPOP_RECYCLE_BATCH || gone >= KPOP_UNMAP_STEP)
			return -EBUSY;
		gone += kpop_recycle(kv, t, spare);
	}

	write_lock(&kv->tree_lock);
	kpop_trans_insert(space, t, spare);
	write_unlock(&kv->tree_lock);
	return 0;
}

/*
 * Replace what is there, in every space of that L2 VM and as_id: L2 sees the
 * old page, a fault that L0 or L1 solves, or the new page.  Other spaces only
 * lose what they have, L1 maps it there when that space is used.
 */
static int kpop_replace(struct kpop_space *space, const struct kpop_trans *t,
			struct kpop_spare *spare)
{
	struct kpop_vm *kv = space->kv;
	struct kpop_space *other;
	bool small = t->npages <= KPOP_UNMAP_STEP;
	int r = 0;

	mutex_lock(&kv->lock);
	list_for_each_entry(other, &kv->spaces, link) {
		/* A small one goes in the section that puts the new one. */
		if ((other == space && small) || !kpop_siblings(other, space))
			continue;
		r = kpop_unmap_space(other, t->l2, t->l2 + t->npages, spare);
		if (r)
			goto out;
	}

	do {
		r = kpop_spare_fill(kv, spare, GFP_KERNEL_ACCOUNT);
		if (r)
			break;
		write_lock(&kv->kvm->mmu_lock);
		r = kpop_insert(space, t, spare);
		write_unlock(&kv->kvm->mmu_lock);
		if (r == -EBUSY && signal_pending(current))
			r = -EINTR;
		cond_resched();
	} while (r == -EBUSY);
out:
	mutex_unlock(&kv->lock);
	atomic_inc(&space->replaced);
	return r;
}

/* Does a space that must show the same show something else? */
static bool kpop_siblings_differ(struct kpop_space *space,
				 const struct kpop_trans *t)
{
	struct kpop_vm *kv = space->kv;
	struct kpop_space *other;
	bool differ = false;

	if (!READ_ONCE(space->siblings))
		return false;

	mutex_lock(&kv->lock);
	list_for_each_entry(other, &kv->spaces, link) {
		if (other == space || !kpop_siblings(other, space))
			continue;
		/* mmu_lock is for those that take a translation away. */
		read_lock(&kv->tree_lock);
		differ |= kpop_trans_conflicts(other, t);
		read_unlock(&kv->tree_lock);
	}
	mutex_unlock(&kv->lock);
	return differ;
}

/*
 * What a remap of this space replaced may be in use by a walk still.  Whose
 * remap it was does not matter: none returns before a wait that began after it
 * has ended.  A count that is written late costs one wait more.
 */
static int kpop_wait_replaced(struct kpop_space *space)
{
	int n = atomic_read(&space->replaced), r;

	if (READ_ONCE(space->waited) == n)
		return 0;

	r = kpop_wait_walks(space->kv);
	if (!r)
		WRITE_ONCE(space->waited, n);
	return r;
}

/**
 * kpop_do_map - record a part of the offered run, and install it
 * @k: the MAP in progress
 * @offset: first page of it, counted from the start of the offer
 * @npages: how many, no more than are left of it
 * @rights: a subset of the offer's, with KPOP_MAP_R
 * @how: enum kpop_map_how
 *
 * Context: vCPU thread in the map hook, kvm->srcu held, may sleep; the kfunc has
 * checked the arguments.
 * Return: 0, -ENOENT (the space died), -E2BIG, -ENOMEM, -EINTR.
 */
int kpop_do_map(struct kpop_map_kern *k, u64 offset, u64 npages, u32 rights,
		u32 how)
{
	struct kpop_vm *kv = k->space->kv;
	struct kpop_spare spare = {};
	struct kpop_trans t, run;
	int r;

	/* A hook may call this for each page of a long offer. */
	if (signal_pending(current))
		return -EINTR;
	cond_resched();

	t = (struct kpop_trans) {
		.l2 = k->ctx.l2_gfn + offset,
		.l1 = k->ctx.l1_gfn + offset,
		.npages = npages,
		.rights = rights,
		.taken = KPOP_TAKEN_UNKNOWN,
	};
	run = t;

	r = -EBUSY;
	if (!kpop_siblings_differ(k->space, &t)) {
		r = kpop_add(k->space, &t, &run, &spare);
		if (r == -ENOSPC)
			r = kpop_spare_fill(kv, &spare, GFP_KERNEL_ACCOUNT) ?:
			    kpop_add(k->space, &t, &run, &spare);
	}
	if (r == -EBUSY)
		r = kpop_replace(k->space, &t, &spare);
	kpop_spare_drop(kv, &spare);
	if (!r)
		r = kpop_wait_replaced(k->space);
	if (r)
		return r;

	if (how == KPOP_HOW_EAGER)
		kpop_install_range(k->vcpu, k->space, &t, &run, k->ctx.written);

	k->done = max(k->done, offset + npages);
	k->rights = rights;
	kpop_count(kv->kvm, kpop_maps);
	trace_kvm_kpop_map(kv->id, k->space->token, t.l2, t.l1, npages, rights,
			   how);
	return 0;
}

/**
 * kpop_do_load - create or find the space, and bind the holder
 * @k: the LOAD in progress
 *
 * Context: vCPU thread in the load hook, kvm->srcu held, may sleep.
 * Return: 0, or as kpop_bind().
 */
int kpop_do_load(struct kpop_load_kern *k)
{
	struct kpop_vm *kv = kpop_vm(k->vcpu->kvm);
	int r;

	r = kpop_bind(kv, k);
	if (!r) {
		k->done = true;
		kpop_count(kv->kvm, kpop_loads);
		trace_kvm_kpop_load(kv->id, k->ctx.token, k->ctx.vcpu_holder,
				    k->ctx.kvm_id, k->ctx.as_id);
	}
	return r;
}

/**
 * kpop_unmap_range - take a range away in the spaces of an L2 VM
 * @kv: the L1 VM
 * @kvm_id: L1's number of the L2 VM
 * @as_id: which of its as_ids
 * @all_as: all of them
 * @l2: first L2 gfn
 * @npages: how many
 *
 * On return no vCPU can use a translation of these pages, and neither does L0
 * on an L2's behalf.
 *
 * Context: vCPU thread, kvm->srcu held, may sleep.
 * Return: 0, or -EINTR: a signal is pending, begin again.
 */
int kpop_unmap_range(struct kpop_vm *kv, u32 kvm_id, u32 as_id, bool all_as,
		     gfn_t l2, u64 npages)
{
	struct kpop_spare spare = {};
	struct kpop_space *space;
	int r = 0;

	mutex_lock(&kv->lock);
	list_for_each_entry(space, &kv->spaces, link) {
		if (space->kvm_id != kvm_id || (!all_as && space->as_id != as_id))
			continue;
		r = kpop_unmap_space(space, l2, l2 + npages, &spare);
		if (r)
			break;
	}
	mutex_unlock(&kv->lock);
	kpop_spare_drop(kv, &spare);

	kpop_count(kv->kvm, kpop_unmaps);
	trace_kvm_kpop_unmap(kv->id, kvm_id, l2, npages);
	return r ?: kpop_wait_walks(kv);
}
