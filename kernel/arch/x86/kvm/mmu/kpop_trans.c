// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP in L0: translations L2 gfn -> L1 gfn, and the reverse map.
 *
 * What is stored are runs.  A run hangs in two trees, so that none of the
 * paths that take something away has to allocate; splitting a run takes one
 * spare, which the caller brings along.  A translation covers every SPTE of
 * its space at any time: it is there before the SPTE, and goes after it.
 */
#include "mmu.h"
#include "kpop.h"
#include "tdp_mmu.h"

static struct kmem_cache *kpop_run_cache;

INTERVAL_TREE_DEFINE(struct kpop_run, rmap_rb, gfn_t, l1_subtree_last,
		     kpop_run_l1, kpop_run_l1_last, static, kpop_rmap_tree)

int kpop_trans_init(void)
{
	kpop_run_cache = KMEM_CACHE(kpop_run, SLAB_ACCOUNT);
	return kpop_run_cache ? 0 : -ENOMEM;
}

void kpop_trans_exit(void)
{
	kmem_cache_destroy(kpop_run_cache);
}

static void kpop_free_run(struct kpop_vm *kv, struct kpop_run *run)
{
	kmem_cache_free(kpop_run_cache, run);
	kpop_uncharge(kv, sizeof(*run));
}

/**
 * kpop_spare_fill - bring along what one insert or punch may need
 * @kv: the VM that is charged
 * @spare: zeroed before its first use
 * @gfp: of the allocations
 *
 * Context: may sleep.
 * Return: 0, -E2BIG (the cap) or -ENOMEM.
 */
int kpop_spare_fill(struct kpop_vm *kv, struct kpop_spare *spare, gfp_t gfp)
{
	int r;

	while (spare->nr < KPOP_SPARE_RUNS) {
		struct kpop_run *run;

		r = kpop_charge(kv, sizeof(*run));
		if (r)
			return r;
		run = kmem_cache_alloc(kpop_run_cache, gfp);
		if (!run) {
			kpop_uncharge(kv, sizeof(*run));
			return -ENOMEM;
		}
		spare->run[spare->nr++] = run;
	}
	return 0;
}

void kpop_spare_drop(struct kpop_vm *kv, struct kpop_spare *spare)
{
	while (spare->nr)
		kpop_free_run(kv, spare->run[--spare->nr]);
}

/* Who looks at the trees. */
static void kpop_assert_trees(struct kpop_vm *kv)
{
	lockdep_assert(lockdep_is_held(&kv->tree_lock) ||
		       lockdep_is_held_type(&kv->kvm->mmu_lock, 0));
}

/* First run of a space that ends behind @l2. */
static struct kpop_run *kpop_run_from(struct kpop_space *space, gfn_t l2)
{
	struct rb_node *node = space->runs.rb_node;
	struct kpop_run *found = NULL;

	kpop_assert_trees(space->kv);

	while (node) {
		struct kpop_run *run = rb_entry(node, struct kpop_run, l2_rb);

		if (kpop_run_l2_end(run) > l2) {
			found = run;
			node = node->rb_left;
		} else {
			node = node->rb_right;
		}
	}
	return found;
}

static struct kpop_run *kpop_run_next(struct kpop_run *run)
{
	return rb_entry_safe(rb_next(&run->l2_rb), struct kpop_run, l2_rb);
}

/**
 * kpop_trans_first - the first run that overlaps [l2, l2_end)
 * @space: the space; the caller holds kv->tree_lock, or mmu_lock for write
 * @l2: first L2 gfn
 * @l2_end: L2 gfn behind the last
 */
struct kpop_run *kpop_trans_first(struct kpop_space *space, gfn_t l2, gfn_t l2_end)
{
	struct kpop_run *run = kpop_run_from(space, l2);

	return run && run->l2 < l2_end ? run : NULL;
}

static void kpop_run_value(struct kpop_space *space, const struct kpop_run *run,
			   struct kpop_trans *t)
{
	*t = (struct kpop_trans) {
		.l2 = run->l2,
		.l1 = run->l1,
		.npages = run->npages,
		.rights = run->rights,
		.taken = space->taken,
	};
}

/**
 * kpop_trans_lookup - translate one L2 gfn
 * @space: the space
 * @l2: the L2 gfn
 * @t: the run it is in, by value
 *
 * The result holds as long as the caller holds mmu_lock, for read or write;
 * else it is a hint, that holds under mmu_lock if @taken is still the space's.
 *
 * Return: true if there is a translation.
 */
bool kpop_trans_lookup(struct kpop_space *space, gfn_t l2, struct kpop_trans *t)
{
	struct kpop_run *run;

	read_lock(&space->kv->tree_lock);
	run = kpop_trans_first(space, l2, l2 + 1);
	if (run)
		kpop_run_value(space, run, t);
	read_unlock(&space->kv->tree_lock);
	return run;
}

/**
 * kpop_trans_conflicts - would this translation take something away?
 * @space: the space; the caller holds kv->tree_lock, and mmu_lock if what it
 *	learns is to last
 * @t: the translation to be inserted
 *
 * Return: true if an L2 gfn of it leads to another L1 gfn now, or loses a
 * right: then SPTEs must go first, under mmu_lock held for write.
 */
bool kpop_trans_conflicts(struct kpop_space *space, const struct kpop_trans *t)
{
	gfn_t end = t->l2 + t->npages;
	struct kpop_run *run;

	lockdep_assert_held(&space->kv->tree_lock);

	for (run = kpop_trans_first(space, t->l2, end); run && run->l2 < end;
	     run = kpop_run_next(run))
		if (run->l1 - run->l2 != t->l1 - t->l2 ||
		    run->rights & ~t->rights)
			return true;
	return false;
}

static void kpop_run_link(struct kpop_space *space, struct kpop_run *run)
{
	struct rb_node **link = &space->runs.rb_node, *parent = NULL;

	while (*link) {
		parent = *link;
		if (run->l2 < rb_entry(parent, struct kpop_run, l2_rb)->l2)
			link = &parent->rb_left;
		else
			link = &parent->rb_right;
	}
	rb_link_node(&run->l2_rb, parent, link);
	rb_insert_color(&run->l2_rb, &space->runs);
	kpop_rmap_tree_insert(run, &space->kv->rmap);
	space->nr_runs++;
	space->nr_pages += run->npages;
	space->kv->kvm->stat.kpop_pages += run->npages;
}

static void kpop_run_unlink(struct kpop_space *space, struct kpop_run *run)
{
	rb_erase(&run->l2_rb, &space->runs);
	kpop_rmap_tree_remove(run, &space->kv->rmap);
	space->nr_runs--;
	space->nr_pages -= run->npages;
	space->kv->kvm->stat.kpop_pages -= run->npages;
}

/* Cut a run to [from, to) of its L2 gfns; it is linked again. */
static void kpop_run_trim(struct kpop_space *space, struct kpop_run *run,
			  gfn_t from, gfn_t to)
{
	kpop_run_unlink(space, run);
	run->l1 += from - run->l2;
	run->l2 = from;
	run->npages = to - from;
	kpop_run_link(space, run);
}

/* Add pages at the end of a run: where it hangs in the trees stays the same. */
static void kpop_run_grow(struct kpop_space *space, struct kpop_run *run, u64 npages)
{
	run->npages += npages;
	kpop_rmap_tree_augment.propagate(&run->rmap_rb, NULL);
	space->nr_pages += npages;
	space->kv->kvm->stat.kpop_pages += npages;
}

/* Caller holds tree_lock for write. */
static void __kpop_trans_punch(struct kpop_space *space, gfn_t l2, gfn_t l2_end,
			       struct kpop_spare *spare)
{
	struct kpop_run *run, *next;

	for (run = kpop_trans_first(space, l2, l2_end); run && run->l2 < l2_end;
	     run = next) {
		gfn_t end = kpop_run_l2_end(run);

		next = kpop_run_next(run);
		if (run->l2 < l2 && end > l2_end) {
			struct kpop_run *tail = spare->run[--spare->nr];

			*tail = *run;
			tail->l1 += l2_end - run->l2;
			tail->l2 = l2_end;
			tail->npages = end - l2_end;
			kpop_run_trim(space, run, run->l2, l2);
			kpop_run_link(space, tail);
			return;
		}
		if (run->l2 < l2) {
			kpop_run_trim(space, run, run->l2, l2);
		} else if (end > l2_end) {
			kpop_run_trim(space, run, l2_end, end);
		} else {
			kpop_run_unlink(space, run);
			kpop_free_run(space->kv, run);
		}
	}
}

/**
 * kpop_trans_punch - forget the translations of [l2, l2_end)
 * @space: the space
 * @l2: first L2 gfn
 * @l2_end: L2 gfn behind the last
 * @spare: filled; one may be used
 *
 * Context: mmu_lock held for write, the SPTEs of the range are zapped.
 */
void kpop_trans_punch(struct kpop_space *space, gfn_t l2, gfn_t l2_end,
		      struct kpop_spare *spare)
{
	lockdep_assert_held_write(&space->kv->kvm->mmu_lock);

	write_lock(&space->kv->tree_lock);
	space->taken++;
	__kpop_trans_punch(space, l2, l2_end, spare);
	write_unlock(&space->kv->tree_lock);
}

static bool kpop_run_joins(const struct kpop_run *a, const struct kpop_run *b)
{
	return kpop_run_l2_end(a) == b->l2 && a->l1 + a->npages == b->l1 &&
	       a->rights == b->rights &&
	       (u64)a->npages + b->npages <= KPOP_MAP_MAX_PAGES;
}

/* Join with both neighbours, so that what L1 maps page by page stays short. */
static void kpop_run_merge(struct kpop_space *space, struct kpop_run *run)
{
	struct kpop_run *prev = rb_entry_safe(rb_prev(&run->l2_rb),
					      struct kpop_run, l2_rb);
	struct kpop_run *next = kpop_run_next(run);
	u32 npages;

	if (next && kpop_run_joins(run, next)) {
		npages = next->npages;
		kpop_run_unlink(space, next);
		kpop_free_run(space->kv, next);
		kpop_run_trim(space, run, run->l2, kpop_run_l2_end(run) + npages);
	}
	if (prev && kpop_run_joins(prev, run)) {
		npages = run->npages;
		kpop_run_unlink(space, run);
		kpop_free_run(space->kv, run);
		kpop_run_trim(space, prev, prev->l2, kpop_run_l2_end(prev) + npages);
	}
}

/**
 * kpop_trans_known - is just this translation there?
 * @space: the space; the caller holds kv->tree_lock
 * @t: what it is; if so, the whole run
 *
 * What is there must not fail for want of memory.
 */
bool kpop_trans_known(struct kpop_space *space, struct kpop_trans *t)
{
	struct kpop_run *run = kpop_trans_first(space, t->l2, t->l2 + 1);

	lockdep_assert_held(&space->kv->tree_lock);

	if (!run || run->l1 - run->l2 != t->l1 - t->l2 || run->rights != t->rights ||
	    kpop_run_l2_end(run) < t->l2 + t->npages)
		return false;

	kpop_run_value(space, run, t);
	return true;
}

/**
 * kpop_trans_extend - add a translation to the run that ends where it begins
 * @space: a live space
 * @t: what it is; on success the whole run
 *
 * What L1 maps page by page mostly goes on where it stopped: that takes no
 * memory.
 *
 * Context: as kpop_trans_insert().
 * Return: false if there is no such run, or something is there already.
 */
bool kpop_trans_extend(struct kpop_space *space, struct kpop_trans *t)
{
	struct kpop_run *next = kpop_run_from(space, t->l2);
	struct kpop_run *prev;
	struct rb_node *node;

	lockdep_assert_held_write(&space->kv->tree_lock);

	if (next && next->l2 < t->l2 + t->npages)
		return false;

	node = next ? rb_prev(&next->l2_rb) : rb_last(&space->runs);
	prev = rb_entry_safe(node, struct kpop_run, l2_rb);
	if (!prev || kpop_run_l2_end(prev) != t->l2 ||
	    prev->l1 + prev->npages != t->l1 || prev->rights != t->rights ||
	    prev->npages + t->npages > KPOP_MAP_MAX_PAGES)
		return false;

	kpop_run_grow(space, prev, t->npages);
	kpop_run_value(space, prev, t);
	return true;
}

/**
 * kpop_trans_insert - add a translation
 * @space: a live space
 * @t: what it is; not known, must not conflict, see kpop_trans_conflicts()
 * @spare: filled; up to two are used
 *
 * Context: mmu_lock held, kv->tree_lock held for write.
 */
void kpop_trans_insert(struct kpop_space *space, const struct kpop_trans *t,
		       struct kpop_spare *spare)
{
	struct kpop_vm *kv = space->kv;
	struct kpop_run *run;

	lockdep_assert_held(&kv->kvm->mmu_lock);
	lockdep_assert_held_write(&kv->tree_lock);

	/* What is there has the same target and fewer rights: no SPTE is wrong. */
	__kpop_trans_punch(space, t->l2, t->l2 + t->npages, spare);

	run = spare->run[--spare->nr];
	run->l2 = t->l2;
	run->l1 = t->l1;
	run->npages = t->npages;
	run->rights = t->rights;
	run->seq = ++kv->run_seq;
	run->space = space;
	kpop_run_link(space, run);
	kpop_run_merge(space, run);
}

/* How many runs one hold of the locks frees. */
#define KPOP_DROP_BATCH	256

/**
 * kpop_trans_drop_all - forget all translations of a dead space
 * @space: dead, and its SPTEs are zapped
 *
 * Context: may sleep.
 */
void kpop_trans_drop_all(struct kpop_space *space)
{
	struct kpop_vm *kv = space->kv;
	struct rb_node *node;
	int n;

	do {
		write_lock(&kv->kvm->mmu_lock);
		write_lock(&kv->tree_lock);
		for (n = 0; n < KPOP_DROP_BATCH; n++) {
			struct kpop_run *run;

			node = rb_first(&space->runs);
			if (!node)
				break;
			run = rb_entry(node, struct kpop_run, l2_rb);
			kpop_run_unlink(space, run);
			kpop_free_run(kv, run);
		}
		write_unlock(&kv->tree_lock);
		write_unlock(&kv->kvm->mmu_lock);
		cond_resched();
	} while (node);
}

#ifdef CONFIG_KVM_PROVE_MMU
/* Take the first run out of the reverse map, or put it back: see kpop_plant(). */
int kpop_trans_toggle_rmap(struct kpop_space *space)
{
	struct rb_node *node = rb_first(&space->runs);
	struct kpop_run *run;

	if (!node)
		return -ENOENT;

	run = rb_entry(node, struct kpop_run, l2_rb);
	if (RB_EMPTY_NODE(&run->rmap_rb)) {
		kpop_rmap_tree_insert(run, &space->kv->rmap);
	} else {
		kpop_rmap_tree_remove(run, &space->kv->rmap);
		RB_CLEAR_NODE(&run->rmap_rb);
	}
	return 0;
}
#endif

/**
 * kpop_rmap_first - the first run of any space that overlaps L1 gfns
 * @kv: the L1 VM
 * @l1: first L1 gfn
 * @l1_last: last L1 gfn
 *
 * Context: mmu_lock held for write, or kv->tree_lock held.
 */
struct kpop_run *kpop_rmap_first(struct kpop_vm *kv, gfn_t l1, gfn_t l1_last)
{
	kpop_assert_trees(kv);

	return kpop_rmap_tree_iter_first(&kv->rmap, l1, l1_last);
}

struct kpop_run *kpop_rmap_next(struct kpop_run *run, gfn_t l1, gfn_t l1_last)
{
	return kpop_rmap_tree_iter_next(run, l1, l1_last);
}
