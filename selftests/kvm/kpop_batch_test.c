// SPDX-License-Identifier: GPL-2.0
/*
 * Batches of runs.  First, L1 changes one while L0 reads it.  One vCPU sends MAPs
 * of a batch, the other one goes on writing to its runs, field by field: of two valid values
 * one, or one of those that are never valid.  Whatever mixture L0 met, what it
 * accepted is made of valid values: L2 finds pages of the run's own four or
 * nothing, no page behind a run, no right to execute; no gfn led to what is not
 * L1's memory; L0's checker is content (a kernel with CONFIG_KVM_PROVE_MMU).
 *
 *   rounds=N   batches sent, and looked at from L2
 *   seed=N
 *   bad=1      among the valid values is a page too many, or with bad=2 X: must fail
 */
#include <linux/bitops.h>

#include "kpop_test.h"

#define TOKEN		token_of(0)
#define KVM_ID		24
#define RUNS		64
#define PAGES		(RUNS * 4)
#define BATCH		PAGES		/* the batch's page in the pool */
#define MARK		0xba7c000000000000ULL
#define NO_MEMORY	0x600000ULL	/* an L1 gfn below the limit, without a memslot */

enum { P_ROUNDS, P_SEED, P_BAD };
enum { V_FLIPS, V_READY, V_LIMIT };

static u32 pick(struct guest_random_state *s, u32 n)
{
	return guest_random_u32(s) % n;
}

#define PICK(s, of)	((of)[pick(s, ARRAY_SIZE(of))])

static struct kpop_map_run *run_of(u64 i)
{
	return (struct kpop_map_run *)pool_ptr(BATCH) + i;
}

/* ---- the vCPU that changes them ---- */

/*
 * Run i is one or two pages from 4i or 4i + 1 on, to pages of the pool from 4i or
 * 4i + 2 on, never with X: so page 4i + 3 of the window is never offered.
 */
static void flip(struct guest_random_state *s, struct l1_shared *sh, u64 i, bool valid)
{
	const u64 limit = sh->val[V_LIMIT], bad = sh->param[P_BAD];
	const u64 bad_l2[] = { limit + l2_gfn(4 * i), limit, ~0ULL, 1ULL << 52 };
	const u64 bad_l1[] = { NO_MEMORY, limit, limit + pool_gfn(4 * i), ~0ULL };
	const u32 bad_npages[] = { 0, KPOP_MAP_MAX_PAGES + 1, ~0U };
	const u32 bad_flags[] = { 0, KPOP_MAP_W | KPOP_MAP_X, KPOP_MAP_RWX | KPOP_MAP_BATCH,
				  KPOP_MAP_RWX | 1U << 8, ~0U };
	const u32 rights = KPOP_MAP_R | (bad == 2 ? KPOP_MAP_X : 0);
	volatile struct kpop_map_run *run = run_of(i);

	switch (pick(s, 4)) {
	case 0:
		run->l2_gfn = valid ? l2_gfn(4 * i + pick(s, 2)) : PICK(s, bad_l2);
		break;
	case 1:
		run->l1_gfn = valid ? pool_gfn(4 * i + 2 * pick(s, 2)) : PICK(s, bad_l1);
		break;
	case 2:
		run->npages = valid ? 1 + pick(s, bad == 1 ? 3 : 2) : PICK(s, bad_npages);
		break;
	case 3:
		run->flags = valid ? rights | pick(s, 2) * KPOP_MAP_W | pick(s, 2) * KPOP_MAP_LAZY :
				     PICK(s, bad_flags);
		break;
	}
}

static void l1_flips(u64 cpu, struct l1_shared *sh)
{
	struct guest_random_state s = new_guest_random_state(sh->param[P_SEED]);

	GUEST_ASSERT(spin_until(sh->val[V_READY]));
	/* Few are invalid at a time, or L0 would come to no run that it may use. */
	while (!sh->stop) {
		flip(&s, sh, pick(&s, RUNS), pick(&s, 16));
		sh->val[V_FLIPS]++;
	}
	GUEST_DONE();
}

/* ---- the vCPU that sends them, and its L2 ---- */

/* The first page from @page on that is not as it may be; L2 leaves where there is none. */
static u64 l2_look(u64 page, u64 unused)
{
	u64 val;

	for (; page < PAGES; page++) {
		if (page % 4 == 3)
			continue;
		val = READ_ONCE(*(u64 *)l2_gva(page));
		if (val < (MARK | (page & ~3ULL)) || val > (MARK | page | 3))
			break;
	}
	return page;
}

struct counts {
	u64 calls, during, runs, refused, there, wrong;
};

/* All runs once; L0 stops at one that it does not take, L1 goes on behind it. */
static void send(struct l1_shared *sh, struct counts *n)
{
	u64 first = 0, flips;
	long r;

	while (first < RUNS) {
		flips = sh->val[V_FLIPS];
		r = kvm_hypercall(KVM_HC_KPOP_MMU_MAP, TOKEN | KPOP_MAP_BATCH,
				  POOL_GPA + BATCH * KST_PAGE, RUNS, first);
		n->calls++;
		n->during += sh->val[V_FLIPS] != flips;
		if (r == -EINVAL || r == -EFAULT) {
			n->refused++;
			first++;
		} else if (r > 0 && KPOP_MAP_DONE(r) > first && KPOP_MAP_DONE(r) <= RUNS &&
			   KPOP_MAP_RIGHTS(r) & KPOP_MAP_R &&
			   (!(KPOP_MAP_RIGHTS(r) & KPOP_MAP_X) || sh->param[P_BAD])) {
			n->runs += KPOP_MAP_DONE(r) - first;
			first = KPOP_MAP_DONE(r);
		} else if (r != -EAGAIN) {
			GUEST_PRINTF("not ok - the answer 0x%lx from run %lu on\n", r, first);
			n->wrong++;
			return;
		}
	}
}

/* Each page that L2 has is of its run. */
static void look(struct l2 *l2, struct counts *n)
{
	u64 page = 0, r;

	while ((r = l2_call(l2, l2_look, page, 0)) == L2_EXIT_FAULT) {
		u64 at = (l2->exit.gpa - L2_GPA) / KST_PAGE;

		GUEST_ASSERT(at >= page && at < PAGES);
		n->there += at - page - (at / 4 - page / 4);
		page = at + 1;
	}
	if (r != L2_EXIT_CALL || l2->ret < PAGES) {
		GUEST_PRINTF("not ok - L2's page %lu: exit 0x%lx, not one of its run\n", l2->ret,
			     l2->exit.raw);
		n->wrong++;
	}
	n->there += PAGES - page - (PAGES / 4 - page / 4);
}

static void look_closer(struct l2 *l2, struct guest_random_state *s, struct counts *n)
{
	u64 i = pick(s, RUNS);

	n->wrong += !l2_faults_at(l2, l2_read, l2_gva(4 * i + 3), 0, KPOP_MAP_R, false);
	/* To execute what is mapped without X faults, as what is not mapped does. */
	if (l2_call(l2, l2_exec, l2_gva(4 * i + 1), 0) != L2_EXIT_FAULT ||
	    l2->exit.access != KPOP_MAP_X) {
		GUEST_PRINTF("not ok - L2 executes page %lu: exit 0x%lx\n", 4 * i + 1,
			     l2->exit.raw);
		n->wrong++;
	}
}

static void l1_sends(u64 cpu, struct l1_shared *sh)
{
	struct guest_random_state s = new_guest_random_state(sh->param[P_SEED] + 1);
	struct l2 *l2 = sh->l2[0];
	struct counts n = {};
	u64 i;

	for (i = 0; i < PAGES; i++)
		*pool_ptr(i) = MARK | i;
	for (i = 0; i < RUNS; i++)
		*run_of(i) = (struct kpop_map_run){ l2_gfn(4 * i), pool_gfn(4 * i), 1, KPOP_MAP_R };
	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	sh->val[V_LIMIT] = kpop_query(KPOP_QUERY_GFN_LIMIT);
	sh->val[V_READY] = 1;
	for (i = 0; i < sh->param[P_ROUNDS] && !n.wrong; i++) {
		if (!pick(&s, 4))
			kpop_unmap(KVM_ID, l2_gfn(0), PAGES);
		send(sh, &n);
		look(l2, &n);
		look_closer(l2, &s, &n);
	}
	sh->stop = 1;
	G_CHECK(!n.wrong, "%lu rounds, %lu pages seen by L2: each is of its run, none has X", i,
		n.there);
	G_CHECK(n.during && n.refused && n.there,
		"%lu MAPs, %lu of them while the batch changed: %lu runs taken, %lu refused",
		n.calls, n.during, n.runs, n.refused);
	GUEST_DONE();
}

/* ---- a batch and the VMM's dirty ring ---- */

#define RING_ENTRIES	256
#define RING_RUNS	KPOP_MAP_MAX_RUNS	/* page i of the window is page i of the pool */
#define RING_BATCH	RING_RUNS		/* the batch's page in the pool */
#define RING_FILL	(RING_BATCH + 1)	/* L1 itself writes these ... */
#define RING_NFILL	180			/* ... so many; the ring is full at 192 */
#define RING_ROUNDS	8

static u64 l2_write_all(u64 round, u64 unused)
{
	u64 i;

	for (i = 0; i < RING_RUNS; i++)
		WRITE_ONCE(*(u64 *)l2_gva(i), round << 32 | i);
	return 0;
}

static void send_written(u64 round)
{
	struct kpop_map_run *runs = (void *)pool_ptr(RING_BATCH);
	u64 i, first = 0;
	long r;

	for (i = 0; i < RING_RUNS; i++)
		runs[i] = (struct kpop_map_run){ l2_gfn(i), pool_gfn(i), 1,
			KPOP_MAP_R | KPOP_MAP_W | KPOP_MAP_WRITTEN };
	for (i = 0; i < RING_NFILL; i++)
		*pool_ptr(RING_FILL + i) = round;
	while (first < RING_RUNS) {
		r = kvm_hypercall(KVM_HC_KPOP_MMU_MAP, TOKEN | KPOP_MAP_BATCH,
				  POOL_GPA + RING_BATCH * KST_PAGE, RING_RUNS, first);
		__GUEST_ASSERT(r > 0 || r == -EAGAIN, "a batch of written pages: %ld", r);
		if (r > 0)
			first = KPOP_MAP_DONE(r);
	}
}

static void l1_fills_ring(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];
	u64 round;

	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	for (round = 1; round <= RING_ROUNDS; round++) {
		GUEST_SYNC(round);
		send_written(round);
		__GUEST_ASSERT(l2_call(l2, l2_write_all, round, 0) == L2_EXIT_CALL,
			       "L2 left with 0x%lx at 0x%lx", l2->exit.raw, l2->exit.gpa);
		kpop_unmap(KVM_ID, l2_gfn(0), RING_RUNS);
	}
	GUEST_SYNC(round);
	GUEST_DONE();
}

static u32 ring_take(struct tvm *t, u32 next, unsigned long *seen)
{
	struct kvm_dirty_gfn *ring = vcpu_map_dirty_ring(t->vcpus[0]), *e;

	for (;; next++) {
		e = &ring[next % RING_ENTRIES];
		if (__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY)
			break;
		if (e->slot == POOL_SLOT && e->offset < RING_RUNS)
			__set_bit(e->offset, seen);
		__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
	kvm_vm_reset_dirty_ring(t->vm);
	return next;
}

static u64 ring_missing(struct tvm *t, const unsigned long *seen, u64 round)
{
	u64 i, n = 0;

	for (i = 0; i < RING_RUNS; i++)
		n += *tvm_pool(t, i) != (round << 32 | i) || !test_bit(i, seen);
	return n;
}

static void test_ring(void)
{
	struct tvm_opts o = { .guest = { l1_fills_ring }, .nr_l2 = 1,
			      .ring_bytes = RING_ENTRIES * sizeof(struct kvm_dirty_gfn) };
	unsigned long seen[RING_RUNS / 64] = {};
	u64 missing = 0, full = 0, round = 0;
	struct policy p;
	struct ucall uc;
	struct tvm *t;
	u32 next = 0;

	t = tvm_create(&o);
	policy_serve(&p, "kpop_base", t);
	vm_mem_region_set_flags(t->vm, POOL_SLOT, KVM_MEM_LOG_DIRTY_PAGES);
	for (;;) {
		vcpu_run(t->vcpus[0]);
		next = ring_take(t, next, seen);
		if (t->vcpus[0]->run->exit_reason == KVM_EXIT_DIRTY_RING_FULL) {
			full++;
			continue;
		}
		if (get_ucall(t->vcpus[0], &uc) != UCALL_SYNC)
			break;
		if (round)
			missing += ring_missing(t, seen, round);
		round = uc.args[1];
		memset(seen, 0, sizeof(seen));
	}
	if (uc.cmd == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	kst_check(round == RING_ROUNDS + 1 && !missing && full, "a ring of %d entries, %" PRIu64
		  " times full: %" PRIu64 " pages that L2 wrote are not in it", RING_ENTRIES, full,
		  missing);
	policy_stop(&p, t);
	tvm_free(t);
}

/* ---- the host, for the first ---- */

static void test_changed(int argc, char **argv)
{
	struct tvm_opts o = { .guest = { l1_sends, l1_flips }, .nr_l2 = 1 };
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;
	u64 checks = 0;

	t = tvm_create(&o);
	kpop_info(t, &info);
	t->sh->param[P_ROUNDS] = kst_param(argc, argv, "rounds", 150);
	t->sh->param[P_SEED] = kst_param(argc, argv, "seed", 1);
	t->sh->param[P_BAD] = kst_param(argc, argv, "bad", 0);
	policy_serve(&p, "kpop_base", t);
	tvm_start(t);
	/* Not oftener: a check holds mmu_lock. */
	while (!kst_wait(t->sh->stop, 1000) && kpop_check_tables(t))
		checks++;
	tvm_join(t);
	if (kpop_check_tables(t))
		kst_check(true, "L0's checker looked %" PRIu64 " times", checks + 1);
	policy_stop(&p, t);
	kst_check(kpop_none_left(t, &info), "nothing left (%llu bytes)", info.bytes);
	tvm_free(t);
}

int main(int argc, char **argv)
{
	kst_begin("kpop_batch_test", 600);
	test_changed(argc, argv);
	test_ring();
	return kst_end();
}
