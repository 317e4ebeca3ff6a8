// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP in L0: is what the tables say what both sides allowed?
 *
 * Walks every table of a VM and proves that
 *
 *  - each leaf lies within one translation, at its L1 gfns, with no right that
 *    the translation does not give, and in 4K if L1 logs it and then with W
 *    only if the log has it;
 *  - it maps the host page that L1's memslot has there now, writable only if
 *    the slot and page tracking let L1 write;
 *  - each translation is in both trees, the runs of a space do not overlap, and
 *    the sums are right.
 *
 * With CONFIG_KVM_PROVE_MMU only, for tests; the VM stands still meanwhile.
 */
#include "mmu.h"
#include "kpop.h"
#include "page_track.h"
#include "spte.h"
#include "tdp_iter.h"
#include "tdp_mmu.h"

/* One thing that is wrong is enough for a test to fail; say which. */
static void kpop_wrong(struct kvm_kpop_check *c, u32 what, gfn_t l2, gfn_t l1, u64 spte)
{
	if (!c->wrong++)
		*c = (struct kvm_kpop_check) {
			.wrong = 1, .what = what, .l2_gfn = l2, .l1_gfn = l1,
			.spte = spte, .leafs = c->leafs, .runs = c->runs,
		};
}

/* The host page that L0 would map now, or an error pfn if there is none at once. */
static kvm_pfn_t kpop_check_pfn(struct kvm_memory_slot *slot, gfn_t l1, bool write)
{
	bool writable;
	kvm_pfn_t pfn;

	pfn = __gfn_to_pfn_memslot(slot, l1, true, false, NULL, write, &writable, NULL);
	if (!is_error_noslot_pfn(pfn))
		kvm_release_pfn_clean(pfn);
	return pfn;
}

static void kpop_check_page(struct kpop_space *space, struct tdp_iter *iter,
			    gfn_t l1, kvm_pfn_t pfn, struct kvm_kpop_check *c)
{
	struct kvm *kvm = space->kv->kvm;
	struct kvm_memory_slot *slot = kpop_l1_slot(kvm, l1);
	bool writable = is_writable_pte(iter->old_spte);
	kvm_pfn_t want;

	if (!slot) {
		kpop_wrong(c, KPOP_WRONG_SLOT, iter->gfn, l1, iter->old_spte);
		return;
	}
	if (writable && (slot->flags & KVM_MEM_READONLY ||
			 kvm_gfn_is_write_tracked(kvm, slot, l1)))
		kpop_wrong(c, KPOP_WRONG_WRITE, iter->gfn, l1, iter->old_spte);

	/* What is just being taken away by the host is the notifier's. */
	if (mmu_invalidate_retry_gfn(kvm, kvm->mmu_invalidate_seq, l1))
		return;
	want = kpop_check_pfn(slot, l1, writable);
	if (!is_error_noslot_pfn(want) && want != pfn)
		kpop_wrong(c, KPOP_WRONG_PFN, iter->gfn, l1, iter->old_spte);
}

static bool kpop_check_rights(u64 spte, u32 rights)
{
	return !(is_writable_pte(spte) && !(rights & KPOP_MAP_W)) &&
	       !(is_executable_pte(spte) && !(rights & KPOP_MAP_X));
}

static void kpop_check_leaf(struct kpop_space *space, struct tdp_iter *iter,
			    struct kvm_kpop_check *c)
{
	u64 i, pages = KVM_PAGES_PER_HPAGE(iter->level), spte = iter->old_spte;
	enum kpop_log_state log;
	struct kpop_trans t;
	gfn_t l1;

	c->leafs++;
	if (!kpop_trans_lookup(space, iter->gfn, &t) ||
	    iter->gfn + pages > t.l2 + t.npages) {
		kpop_wrong(c, KPOP_WRONG_TRANS, iter->gfn, 0, spte);
		return;
	}
	l1 = t.l1 + (iter->gfn - t.l2);
	if (!kpop_check_rights(spte, t.rights))
		kpop_wrong(c, KPOP_WRONG_RIGHTS, iter->gfn, l1, spte);

	log = kpop_log_access(space, iter->gfn, false);
	if (is_writable_pte(spte) &&
	    (log == KPOP_LOG_CLEAN ||
	     (pages > 1 && kpop_log_overlaps(space, iter->gfn, pages))))
		kpop_wrong(c, KPOP_WRONG_LOG, iter->gfn, l1, spte);

	for (i = 0; i < pages; i++)
		kpop_check_page(space, iter, l1 + i, spte_to_pfn(spte) + i, c);
}

static bool kpop_in_rmap(struct kpop_vm *kv, const struct kpop_run *run)
{
	gfn_t last = kpop_run_l1_last(run);
	struct kpop_run *r;

	for (r = kpop_rmap_first(kv, run->l1, last); r;
	     r = kpop_rmap_next(r, run->l1, last))
		if (r == run)
			return true;
	return false;
}

static void kpop_check_runs(struct kpop_space *space, struct kvm_kpop_check *c)
{
	u64 runs = 0, pages = 0;
	struct rb_node *node;
	gfn_t next = 0;

	for (node = rb_first(&space->runs); node; node = rb_next(node)) {
		struct kpop_run *run = rb_entry(node, struct kpop_run, l2_rb);

		runs++;
		pages += run->npages;
		if (run->l2 < next || !run->npages || run->space != space)
			kpop_wrong(c, KPOP_WRONG_RUN, run->l2, run->l1, 0);
		if (!kpop_in_rmap(space->kv, run))
			kpop_wrong(c, KPOP_WRONG_RMAP, run->l2, run->l1, 0);
		next = kpop_run_l2_end(run);
	}
	c->runs += runs;
	if (runs != space->nr_runs || pages != space->nr_pages)
		kpop_wrong(c, KPOP_WRONG_SUM, 0, 0, 0);
}

static void kpop_check_space(struct kpop_space *space, struct kvm_kpop_check *c)
{
	struct tdp_iter iter;

	kpop_check_runs(space, c);
	if (!space->root || space->root->role.invalid)
		return;

	rcu_read_lock();
	for_each_tdp_pte(iter, space->root, 0, 1ULL << (9 * space->root->role.level)) {
		if (!is_shadow_present_pte(iter.old_spte) ||
		    !is_last_spte(iter.old_spte, iter.level))
			continue;
		kpop_check_leaf(space, &iter, c);
		if (c->leafs >= KPOP_CHECK_MAX_LEAFS)
			break;
	}
	rcu_read_unlock();
}

/**
 * kpop_check - prove what the tables of a VM say
 * @kv: the VM
 * @c: zeroed; c->wrong counts what is wrong, the rest describes the first
 *
 * Context: may sleep; no lock held.
 */
void kpop_check(struct kpop_vm *kv, struct kvm_kpop_check *c)
{
	struct kvm *kvm = kv->kvm;
	struct kpop_space *space;
	struct rb_node *node;
	u64 in_rmap = 0;
	int idx;

	idx = srcu_read_lock(&kvm->srcu);
	mutex_lock(&kv->lock);
	write_lock(&kvm->mmu_lock);
	list_for_each_entry(space, &kv->spaces, link)
		kpop_check_space(space, c);
	/* A space that is being dropped is off the list before its runs go. */
	for (node = rb_first_cached(&kv->rmap); node; node = rb_next(node))
		in_rmap += rb_entry(node, struct kpop_run, rmap_rb)->space->listed;
	/* Each forward run is in the map: as many of them, and no more. */
	if (!c->wrong && in_rmap != c->runs)
		kpop_wrong(c, KPOP_WRONG_RMAP, 0, 0, in_rmap);
	write_unlock(&kvm->mmu_lock);
	mutex_unlock(&kv->lock);
	srcu_read_unlock(&kvm->srcu, idx);
}

/**
 * kpop_plant - break a table on purpose, so that kpop_check() can be tested
 * @kv: the VM
 * @what: KPOP_PLANT_LEAF: the first leaf found gets the host page behind its
 *	own; KPOP_PLANT_RMAP: the first run found is not in the reverse map
 *
 * The caller takes it back by the same call: both are their own inverse.
 *
 * Return: 0, or -ENOENT if there is nothing to break.
 */
int kpop_plant(struct kpop_vm *kv, u32 what)
{
	struct kvm *kvm = kv->kvm;
	struct kpop_space *space;
	int r = -ENOENT;

	mutex_lock(&kv->lock);
	write_lock(&kvm->mmu_lock);
	space = list_first_entry_or_null(&kv->spaces, struct kpop_space, link);
	if (space && what == KPOP_PLANT_RMAP)
		r = kpop_trans_toggle_rmap(space);
	else if (space && space->root)
		r = kvm_tdp_mmu_plant_kpop(kvm, space->root);
	kvm_flush_remote_tlbs(kvm);
	write_unlock(&kvm->mmu_lock);
	mutex_unlock(&kv->lock);
	return r;
}
