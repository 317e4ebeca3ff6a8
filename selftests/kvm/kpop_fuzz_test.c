// SPDX-License-Identifier: GPL-2.0
/*
 * A hostile L1 on two vCPUs: valid sequences of hypercalls, mutated, with L2
 * running in between, while the host takes memory away, changes memslots, logs
 * dirty pages, moves the cap, and attaches, swaps and detaches policies.
 *
 * Three things must hold throughout: an answer is one that the ABI documents;
 * whatever L2 can read is a page of L1's pool (each has its mark) or has just
 * been taken away by the host; and L0's own checker finds nothing wrong (a
 * kernel with CONFIG_KVM_PROVE_MMU).
 *
 *   seed=N      the sequence of each vCPU and of the host; printed
 *   seconds=N   how long
 *   nomem=N     so many percent of the vCPU threads' allocations fail (debug kernel)
 */
#include <sys/mman.h>

#include "kpop_test.h"

#define NR_TOKENS	6
#define NR_IDS		3
#define WINDOW		2048		/* L2 gfns that are played with */
#define POOL_PAGES	2048
#define MARK		0x6b706f7000000000ULL
#define MARK_MASK	0xffffffff00000000ULL
/*
 * Two pages for each vCPU that no MAP offers.  Were they one, the log's entries that
 * the other vCPU's LOG_TAKE clears could make a run that L0 is about to read another.
 */
#define RUNS_PAGE	(POOL_PAGES - 2)	/* runs */
#define TRACK_PAGE	(POOL_PAGES - 4)	/* bitmaps, the log's entries */

enum { V_CALLS, V_ENTRIES = 2, V_READS = 4, V_FAULTS = 6, V_BAD = 8 };
enum { P_SEED };

/* ---- L1 ---- */

static u64 next(u64 *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s * 0x2545f4914f6cdd1dULL;
}

static u64 pick(u64 *s, u64 n)
{
	return (next(s) >> 20) % n;
}

static bool one_in(u64 *s, u64 n)
{
	return !pick(s, n);
}

/* One of these, or a number that is no error. */
static bool documented(long r)
{
	return r >= 0 || r == -KVM_ENOSYS || r == -EPERM || r == -ENOENT ||
	       r == -EINVAL || r == -EFAULT || r == -EBUSY || r == -EAGAIN ||
	       r == -E2BIG || r == -ENOMEM || r == -ENODATA || r == -ENOSPC;
}

struct call {
	u64 nr, a[4];
};

static u64 some_gfn(u64 *s)
{
	return l2_gfn(pick(s, WINDOW));
}

static u64 some_flags(u64 *s)
{
	u64 flags = KPOP_MAP_R | (next(s) & (KPOP_MAP_W | KPOP_MAP_X | KPOP_MAP_LAZY));

	if (flags & KPOP_MAP_W && one_in(s, 4))
		flags |= next(s) & (KPOP_MAP_WRITTEN | KPOP_MAP_LOGGED);
	return flags;
}

static u64 some_npages(u64 *s)
{
	return one_in(s, 4) ? 512 : 1 + pick(s, one_in(s, 3) ? 600 : 8);
}

static void make_map(struct call *c, u64 *s)
{
	u64 l2 = some_gfn(s), n = some_npages(s), page;

	/* Often congruent, so that huge pages come into being. */
	page = one_in(s, 2) ? (l2 - l2_gfn(0)) % (POOL_PAGES - 8) : pick(s, POOL_PAGES - 8);
	n = min(n, POOL_PAGES - 8 - page);
	*c = (struct call){ KVM_HC_KPOP_MMU_MAP,
		{ token_of(pick(s, NR_TOKENS)) | some_flags(s), l2, pool_gfn(page), n } };
}

static void make_batch(struct call *c, u64 *s, u64 cpu)
{
	volatile struct kpop_map_run *runs = (void *)pool_ptr(RUNS_PAGE + cpu);
	u64 n = 1 + pick(s, KPOP_MAP_MAX_RUNS), i;

	for (i = 0; i < n; i++) {
		struct call m;

		make_map(&m, s);
		runs[i].l2_gfn = m.a[1];
		runs[i].l1_gfn = m.a[2];
		runs[i].npages = one_in(s, 40) ? next(s) : m.a[3];
		runs[i].flags = one_in(s, 40) ? next(s) : m.a[0] & 0xf;
	}
	*c = (struct call){ KVM_HC_KPOP_MMU_MAP,
		{ token_of(pick(s, NR_TOKENS)) | KPOP_MAP_BATCH,
		  POOL_GPA + (RUNS_PAGE + cpu) * KST_PAGE, n, 0 } };
}

static void make_track(struct call *c, u64 *s, u64 cpu)
{
	u64 op = pick(s, 7), page = pick(s, WINDOW / 64) * 64;
	u64 id = 1 + pick(s, NR_IDS), mem = POOL_GPA + (TRACK_PAGE + cpu) * KST_PAGE;

	if (op == KPOP_TRACK_LOG_BUFFER)
		*c = (struct call){ KVM_HC_KPOP_MMU_TRACK, { op, id | pick(s, 64) << 32, 0, mem } };
	else if (op == KPOP_TRACK_LOG_TAKE)
		*c = (struct call){ KVM_HC_KPOP_MMU_TRACK, { op, id, 0, mem } };
	else if (op == KPOP_TRACK_LOG_START || op == KPOP_TRACK_LOG_STOP)
		*c = (struct call){ KVM_HC_KPOP_MMU_TRACK,
			{ op, id | (64ULL << pick(s, 4)) << 32, l2_gfn(page),
			  op == KPOP_TRACK_LOG_START ? pick(s, 2) : 0 } };
	else
		*c = (struct call){ KVM_HC_KPOP_MMU_TRACK,
			{ op, id | (64ULL << pick(s, 4)) << 32, l2_gfn(page), mem } };
}

/* Do the @n1 pages from @p1, or as many as there are numbers, meet the @n2 from @p2? */
static bool meets(u64 p1, u64 n1, u64 p2, u64 n2)
{
	u64 end = n1 > ~0ULL - p1 ? ~0ULL : p1 + n1;

	return p1 < p2 + n2 && p2 < end;
}

/* L1's memory whose content is not the game's: of these pages none has a mark. */
static bool meets_own(u64 l1_gfn, u64 npages)
{
	return meets(l1_gfn, npages, 0, SLOT0_PAGES) ||
	       meets(l1_gfn, npages, pool_gfn(TRACK_PAGE), POOL_PAGES - TRACK_PAGE);
}

/*
 * What an L1 may do, but not one that is to go on: have L0 write over its code,
 * or give L2 that code, or put other pages where L2's own is.  (Root tokens are
 * zeroes, which L2 may read.)
 */
static bool own_goal(const struct call *c, u64 cpu)
{
	u64 page, op;

	switch (c->nr) {
	case KVM_HC_KPOP_MMU_TRACK:
		op = c->a[0] & 0xff;
		if (op == KPOP_TRACK_LOG_START || op == KPOP_TRACK_LOG_STOP)
			return false;
		page = c->a[3] / KST_PAGE;
		return page != pool_gfn(TRACK_PAGE + cpu) && page < pool_gfn(POOL_PAGES);
	case KVM_HC_KPOP_MMU_MAP:
		if (c->a[0] & KPOP_MAP_BATCH) {
			page = c->a[1] / KST_PAGE;
			return page != pool_gfn(RUNS_PAGE + cpu) && page < pool_gfn(POOL_PAGES);
		}
		if (c->a[3] > KPOP_MAP_MAX_PAGES)
			return false;
		return meets(c->a[1], c->a[3], 0, SLOT0_PAGES) || meets_own(c->a[2], c->a[3]);
	}
	return false;
}

/* A bit, or a whole argument. */
static void mutate(struct call *c, u64 *s, u64 cpu)
{
	struct call was = *c;

	if (one_in(s, 6))
		c->a[pick(s, 4)] ^= 1ULL << pick(s, 64);
	if (one_in(s, 24))
		c->a[pick(s, 4)] = next(s);
	if (own_goal(c, cpu))
		*c = was;
}

static void make_call(struct call *c, u64 *s, struct l1_shared *sh, u64 cpu)
{
	u64 id = 1 + pick(s, NR_IDS), t = pick(s, NR_TOKENS);
	u64 holder = sh->l2[pick(s, 2)]->holder;

	switch (pick(s, 16)) {
	case 0 ... 2:
		/* A token mostly keeps its kvm_id and as_id. */
		*c = (struct call){ KVM_HC_KPOP_MMU_LOAD_UNLOAD,
			{ KPOP_OP_LOAD | (t / NR_IDS) << KPOP_AS_ID_SHIFT, holder, token_of(t),
			  one_in(s, 8) ? id : 1 + t % NR_IDS } };
		break;
	case 3:
		*c = (struct call){ KVM_HC_KPOP_MMU_LOAD_UNLOAD,
			{ KPOP_OP_UNLOAD_HOLDER, holder, one_in(s, 2) ? token_of(t) : 0, id } };
		break;
	case 4:
		*c = (struct call){ KVM_HC_KPOP_MMU_LOAD_UNLOAD,
			{ KPOP_OP_UNLOAD_ROOT, 0, token_of(t), id } };
		break;
	case 5 ... 9:
		make_map(c, s);
		break;
	case 10:
		make_batch(c, s, cpu);
		break;
	case 11 ... 13:
		*c = (struct call){ KVM_HC_KPOP_MMU_UNMAP,
			{ one_in(s, 4) ? KPOP_UNMAP_ALL_AS : pick(s, 2) << KPOP_AS_ID_SHIFT, id,
			  some_gfn(s), one_in(s, 20) ? 1ULL << 30 : some_npages(s) } };
		break;
	case 14:
		make_track(c, s, cpu);
		break;
	default:
		*c = (struct call){ KVM_HC_KPOP_QUERY, { one_in(s, 50) ? 4 : pick(s, 4) } };
	}
	mutate(c, s, cpu);
}

/* L2 looks at a page, or writes behind its mark; a fault is an answer too. */
static void run_l2(struct l2 *l2, u64 *s, struct l1_shared *sh, u64 cpu)
{
	u64 page = pick(s, WINDOW), gva = l2_gva(page), t = pick(s, NR_TOKENS), r;
	bool write = one_in(s, 2);

	/* Mostly L2's code is there, and the page that it looks at. */
	if (!one_in(s, 4)) {
		kvm_hypercall(KVM_HC_KPOP_MMU_LOAD_UNLOAD,
			      KPOP_OP_LOAD | (t / NR_IDS) << KPOP_AS_ID_SHIFT,
			      l2->holder, token_of(t), 1 + t % NR_IDS);
		kvm_hypercall(KVM_HC_KPOP_MMU_MAP, token_of(t) | KPOP_MAP_RWX, 0, 0,
			      SLOT0_PAGES);
		kvm_hypercall(KVM_HC_KPOP_MMU_MAP, token_of(t) | KPOP_MAP_RWX, l2_gfn(page),
			      pool_gfn(pick(s, POOL_PAGES - 8)), 1);
	}
	l2_set_root(l2, token_of(t));
	r = write ? l2_call(l2, l2_write, gva + 8, cpu) : l2_call(l2, l2_read, gva, 0);
	sh->val[V_ENTRIES + cpu]++;
	if (r == L2_EXIT_FAULT) {
		sh->val[V_FAULTS + cpu]++;
	} else if (r != L2_EXIT_CALL) {
		GUEST_PRINTF("not ok - L2's %s 0x%lx, token 0x%lx: exit %lu (0x%lx, info 0x%lx, gpa 0x%lx)\n",
			     write ? "write to" : "read of", gva, token_of(t), r, l2->exit.raw,
			     l2->exit.info, l2->exit.gpa);
		sh->val[V_BAD + cpu]++;
	} else if (!write) {
		sh->val[V_READS + cpu]++;
		if (l2->ret && (l2->ret & MARK_MASK) != MARK) {
			GUEST_PRINTF("not ok - L2 read 0x%lx at 0x%lx, token 0x%lx\n", l2->ret,
				     gva, token_of(t));
			sh->val[V_BAD + cpu]++;
		}
	}
}

/* Writes to a token are part of the game; the page is zeroed again. */
static void scribble(u64 *s)
{
	volatile u64 *token = (void *)token_of(pick(s, NR_TOKENS));

	token[pick(s, 512)] = 1;
	memset((void *)token, 0, KST_PAGE);
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	u64 s = (sh->param[P_SEED] + cpu) * 0x9e3779b97f4a7c15ULL | 1;
	struct l2 *l2 = sh->l2[cpu];
	struct call c;

	l1_virt_on(l2);
	l2_setup(l2, token_of(0));
	while (!sh->stop && !sh->val[V_BAD + cpu]) {
		long r;

		make_call(&c, &s, sh, cpu);
		r = kvm_hypercall(c.nr, c.a[0], c.a[1], c.a[2], c.a[3]);
		sh->val[V_CALLS + cpu]++;
		if (!documented(r)) {
			GUEST_PRINTF("not ok - answer %ld to %lu(0x%lx, 0x%lx, 0x%lx, 0x%lx)\n",
				     r, c.nr, c.a[0], c.a[1], c.a[2], c.a[3]);
			sh->val[V_BAD + cpu]++;
		}
		if (one_in(&s, 300))
			scribble(&s);
		if (one_in(&s, 3))
			run_l2(l2, &s, sh, cpu);
	}
	GUEST_DONE();
}

/* ---- the host ---- */

struct chaos {
	struct tvm *t;
	struct policy p;		/* holds the link, whatever was swapped in */
	bool attached, chaos;
	u64 s, turns, checks, attaches, swaps, detaches, ejected;
};

static void mark_pool(struct tvm *t)
{
	u64 i;

	for (i = 0; i < POOL_PAGES; i++)
		*tvm_pool(t, i) = MARK | i;
}

/* Pages come back as zeroes, and get their mark again some time. */
static void take_pages(struct chaos *c)
{
	u64 page = pick(&c->s, TRACK_PAGE - 1), n = 1 + pick(&c->s, 64), i;

	n = min(n, TRACK_PAGE - page);
	madvise((void *)tvm_pool(c->t, page), n * KST_PAGE, MADV_DONTNEED);
	for (i = 0; i < n; i += 2)
		*tvm_pool(c->t, page + i) = MARK | (page + i);
}

static void log_pages(struct chaos *c)
{
	u64 bits[POOL_PAGES / 64] = {};

	vm_mem_region_set_flags(c->t->vm, POOL_SLOT, KVM_MEM_LOG_DIRTY_PAGES);
	kvm_vm_get_dirty_log(c->t->vm, POOL_SLOT, bits);
	vm_mem_region_set_flags(c->t->vm, POOL_SLOT, 0);
}

/* L1's memory is away for a moment: both vCPUs may see MMIO. */
static void other_slot(struct chaos *c)
{
	vm_userspace_mem_region_add(c->t->vm, VM_MEM_SRC_ANONYMOUS, 0x600000000ULL, 9, 16, 0);
	vm_mem_region_delete(c->t->vm, 9);
}

/* kpop_chaos behaves until a knob is turned. */
static const char *some_policy(struct chaos *c)
{
	static const char *const names[] = { "kpop_base", "kpop_lazy", "kpop_chaos" };

	return names[pick(&c->s, 3)];
}

/* Knobs of kpop_chaos that make map() and fault() go wrong; 0 to deny is no error. */
static void misbehave(struct chaos *c)
{
	u64 one = 1;

	policy_set_knob(&c->p, "kpop_chaos_knobs", pick(&c->s, 6), &one, sizeof(one));
}

static void attach(struct chaos *c)
{
	const char *name = some_policy(c);
	int r = policy_load(&c->p, name, c->t->vm->fd);

	TEST_ASSERT(!r, "policy does not load: %s", strerror(-r));
	while ((r = policy_attach(&c->p)) == -EBUSY)
		kst_relax();
	TEST_ASSERT(!r, "policy does not attach: %s", strerror(-r));
	kpop_wait_state(c->t->vm->fd, KPOP_STATE_ATTACHED);
	c->attached = true;
	c->chaos = !strcmp(name, "kpop_chaos");
	c->attaches++;
}

/* A swap that meets the one before is told so. */
static void swap(struct chaos *c)
{
	struct kvm_kpop_info info;
	struct policy next;
	int r;

	TEST_ASSERT(!policy_load(&next, some_policy(c), -1) && policy_fill(&next) == -EBADF,
		    "policy does not load for a swap");
	kpop_info(c->t, &info);
	r = policy_swap(info.link_id, info.map_id, &next);
	TEST_ASSERT(!r || r == -EBUSY || r == -EAGAIN || r == -EPERM || r == -ENOENT ||
		    r == -ENOLINK, "swap: %s", strerror(-r));
	c->swaps += !r;
	policy_free(&next);
}

static void detach(struct chaos *c)
{
	policy_free(&c->p);
	TEST_ASSERT(kpop_wait_state(c->t->vm->fd, KPOP_STATE_NONE), "no detach in 30 s");
	c->attached = false;
	c->detaches++;
}

/*
 * To load a policy takes longer than a hundred other turns.  Most of the time
 * one has to serve, or all that L1 sees is ENOSYS.
 */
static void turn(struct chaos *c)
{
	u64 what = pick(&c->s, 256);
	struct kvm_kpop_info info;

	kpop_info(c->t, &info);
	if (!c->attached) {
		if (one_in(&c->s, 4))
			attach(c);
	} else if (!what || info.state == KPOP_STATE_NONE) {
		c->ejected += info.state == KPOP_STATE_NONE;
		detach(c);
	} else if (what < 3) {
		swap(c);
	} else if (what < 16 && c->chaos) {
		misbehave(c);
	}

	switch (what % 16) {
	case 0 ... 7:
		take_pages(c);
		break;
	case 8 ... 9:
		log_pages(c);
		break;
	case 10:
		other_slot(c);
		break;
	case 11:
		kpop_set_cap(c->t, one_in(&c->s, 2) ? 1 << 20 : 0);
		break;
	case 12:
		c->checks += kpop_check_tables(c->t);
		break;
	}
	c->turns++;
}

static volatile u64 nomem_runs;

/* Where L0 has no memory for a page table, its VMM is told. */
static bool on_failure(struct tvm *t, int cpu, int err)
{
	if (!t->o.nomem || err != ENOMEM)
		return false;
	__atomic_fetch_add(&nomem_runs, 1, __ATOMIC_RELAXED);
	return true;
}

int main(int argc, char **argv)
{
	struct tvm_opts o = {
		.guest = { l1_main, l1_main },
		.nr_l2 = 2,
		.pool_pages = POOL_PAGES,
		.pool_src = VM_MEM_SRC_ANONYMOUS_THP,
		.efault_ok = true,
		.failed = on_failure,
	};
	u64 seed = kst_param(argc, argv, "seed", 1), seconds, nomem, end, i;
	struct kvm_kpop_info info;
	struct chaos c = {};
	struct l1_shared *sh;

	seconds = kst_param(argc, argv, "seconds", 20);
	kst_begin("kpop_fuzz_test", seconds * 3 + 200);
	nomem = kst_param(argc, argv, "nomem", 0);
	o.nomem = nomem;
	printf("# seed=%" PRIu64 " seconds=%" PRIu64 " nomem=%" PRIu64 "\n", seed, seconds, nomem);
	c.t = tvm_create(&o);
	kpop_info(c.t, &info);
	policy_require("kpop_lazy");
	policy_require("kpop_chaos");
	sh = c.t->sh;
	sh->param[P_SEED] = seed;
	c.s = seed * 0x9e3779b97f4a7c15ULL + 12345;
	mark_pool(c.t);
	attach(&c);
	if (nomem)
		nomem_begin(nomem);
	tvm_start(c.t);
	end = kst_now_ms() + seconds * 1000;
	while (kst_now_ms() < end && !sh->val[V_BAD] && !sh->val[V_BAD + 1]) {
		turn(&c);
		usleep(2000);
	}
	c.checks += kpop_check_tables(c.t);
	sh->stop = 1;
	tvm_join(c.t);
	if (nomem) {
		i = nomem_end();
		kst_check(i, "%" PRIu64 " allocations of vCPU threads failed, KVM_RUN said so %"
			  PRIu64 " times", i, nomem_runs);
	}
	for (i = 0; i < 2; i++)
		kst_check(!sh->val[V_BAD + i], "vCPU %" PRIu64 ": %" PRIu64 " hypercalls, %" PRIu64
			  " entries of L2, %" PRIu64 " reads, %" PRIu64 " faults; nothing wrong",
			  i, sh->val[V_CALLS + i], sh->val[V_ENTRIES + i],
			  sh->val[V_READS + i], sh->val[V_FAULTS + i]);
	kst_check(sh->val[V_READS] + sh->val[V_READS + 1], "L2 did read");
	kst_check(c.attaches > 0, "host: %" PRIu64 " turns, %" PRIu64
		  " attaches, %" PRIu64 " swaps, %" PRIu64 " ejections, %" PRIu64 " detaches, %"
		  PRIu64 " checks", c.turns, c.attaches, c.swaps, c.ejected, c.detaches, c.checks);
	if (c.attached)
		detach(&c);
	kpop_set_cap(c.t, 0);
	kst_check(kpop_none_left(c.t, &info), "nothing left (%llu bytes)", info.bytes);
	tvm_free(c.t);
	return kst_end();
}
