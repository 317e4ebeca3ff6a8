// SPDX-License-Identifier: GPL-2.0
/*
 * L0 owns its memory (contract 6): the VMM takes the memory behind an L1 page
 * away while a vCPU counts in it from L2.  When the system call returns, L2
 * counts in the new page and the old one stands still.
 *
 *   rounds=N   of each way
 *   legacy=1   L2 on a legacy table and no policy: what the test itself is worth
 */
#include "kpop_test.h"

#define TOKEN	token_of(0)
#define KVM_ID	4
#define FAR	64		/* the pool page whose memory is swapped in */
#define MARK	(1ULL << 40)

enum { PH_READY };
enum { P_LEGACY, P_FAULTS_OK };

static bool legacy;

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];
	u64 r;

	l1_virt_on(l2);
	if (sh->param[P_LEGACY]) {
		l2_setup(l2, sh->legacy_root);
	} else {
		l2_on_kpop(l2, TOKEN, KVM_ID, 0);
		GUEST_ASSERT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1) == 1);
	}
	sh->phase[PH_READY] = 1;
	r = l2_call(l2, l2_count, l2_gva(0), (u64)&sh->stop);
	/*
	 * L1 asks again, as its KVM does when the access is its right: only
	 * while the VMM holds the page back may L0 fail to serve it.
	 */
	while (r == L2_EXIT_FAULT) {
		kpop_map_once(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1);
		r = l2_resume(l2);
	}
	GUEST_ASSERT_EQ(r, L2_EXIT_CALL);
	G_CHECK(l2->ret > 0, "L2 counted to %lu", l2->ret);
	if (!sh->param[P_FAULTS_OK])
		G_EXPECT(l2->faults, 0, "faults that reached L1");
	GUEST_DONE();
}

static bool moves(volatile u64 *p)
{
	u64 v = *p;

	return kst_wait(*p != v, 20000);
}

/*
 * After the new memory is marked, L2's locked add goes on from the mark.  If L2
 * still had the old page, the mark would stay as it is.
 */
static bool counts_on(volatile u64 *p, u64 round)
{
	u64 mark = (round + 1) * MARK;

	__atomic_store_n(p, mark, __ATOMIC_SEQ_CST);
	return kst_wait(*p > mark, 20000);
}

static void zap_rounds(struct tvm *t, u64 rounds)
{
	volatile u64 *p = tvm_pool(t, 0);
	u64 i, lost = 0;

	kst_check(moves(p), "L2 counts in anonymous memory");
	for (i = 0; i < rounds && !lost; i++) {
		TEST_ASSERT(!madvise((void *)p, KST_PAGE, MADV_DONTNEED), "madvise");
		/* The old count is at least the mark of the round before. */
		if (i && *p >= i * MARK)
			lost++;
		else
			lost += !counts_on(p, i);
	}
	kst_check(!lost, "MADV_DONTNEED: L2 counts in the new page, %" PRIu64 " rounds", i);
}

static void start(struct tvm *t, struct policy *p)
{
	t->sh->param[P_LEGACY] = legacy;
	if (legacy)
		t->sh->legacy_root = table_legacy(t, 1);
	else
		policy_serve(p, "kpop_base", t);
	tvm_start(t);
}

static void finish(struct tvm *t, struct policy *p)
{
	t->sh->stop = 1;
	tvm_join(t);
	if (!legacy)
		policy_stop(p, t);
	tvm_free(t);
}

static void madvise_run(u64 rounds)
{
	struct tvm_opts o = { .guest = { l1_main }, .nr_l2 = 1 };
	struct tvm *t = tvm_create(&o);
	struct policy p;

	start(t, &p);
	zap_rounds(t, rounds);
	finish(t, &p);
}

/* ---- shared memory: the old page stays in view through a second mapping ---- */

struct shared_pool {
	struct userspace_mem_region *region;
	volatile u64 *at;		/* what L1's page 0 is made of */
	volatile u64 *near, *far;	/* the two pages of the file */
};

static void put(struct shared_pool *s, u64 page)
{
	void *p = mmap((void *)s->at, KST_PAGE, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_FIXED, s->region->fd, page * KST_PAGE);

	TEST_ASSERT(p == s->at, "mmap over a page");
}

/*
 * The old page is looked at when the system call returned, and again when L2
 * is seen to write to the new one: if L2 ran at all in between with the
 * mapping that it had, the old page has changed.
 */
static void mmap_rounds(struct shared_pool *s, u64 rounds)
{
	u64 i, stale = 0, lost = 0;

	kst_check(moves(s->near), "L2 counts in shared memory");
	for (i = 0; i < rounds && !lost; i++) {
		volatile u64 *old = i & 1 ? s->far : s->near;
		u64 seen;

		put(s, i & 1 ? 0 : FAR);
		seen = *old;
		lost += !moves(i & 1 ? s->near : s->far);
		stale += *old != seen;
	}
	kst_check(!stale, "mmap over it: %" PRIu64 " of %" PRIu64 " rounds with a write to the old page",
		  stale, i);
	kst_check(!lost, "mmap over it: L2 counts in the new page");
	put(s, 0);
	kst_check(moves(s->near), "and in the first one again");
}

static void mremap_rounds(struct shared_pool *s, u64 rounds)
{
	void *away = mmap(NULL, KST_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	u64 i, stale = 0, lost = 0;

	for (i = 0; i < rounds && !lost; i++) {
		volatile u64 *old = i & 1 ? s->far : s->near;
		u64 seen;

		TEST_ASSERT(mremap((void *)s->at, KST_PAGE, KST_PAGE,
				   MREMAP_MAYMOVE | MREMAP_FIXED, away) == away, "mremap");
		seen = *old;
		put(s, i & 1 ? 0 : FAR);
		lost += !moves(i & 1 ? s->near : s->far);
		stale += *old != seen;
	}
	kst_check(!stale, "mremap: %" PRIu64 " of %" PRIu64 " rounds with a write to the page moved away",
		  stale, i);
	kst_check(!lost, "mremap: L2 counts in the page put in its place");
	munmap(away, KST_PAGE);
	put(s, 0);
}

/* How often vCPU 0 was refused: by KVM_RUN, or as a fault that L1 got. */
static u64 refusals(struct tvm *t)
{
	return t->efaults + READ_ONCE(tvm_l2(t, 0)->faults);
}

static void mprotect_rounds(struct tvm *t, struct shared_pool *s, u64 rounds)
{
	u64 i, stale = 0, lost = 0;

	for (i = 0; i < rounds && !lost; i++) {
		u64 seen, refused;

		lost += !moves(s->near);
		refused = refusals(t);
		TEST_ASSERT(!mprotect((void *)s->at, KST_PAGE,
				      i & 1 ? PROT_READ : PROT_NONE), "mprotect");
		seen = *s->near;
		lost += !kst_wait(refusals(t) != refused || *s->near != seen, 20000);
		stale += *s->near != seen;
		TEST_ASSERT(!mprotect((void *)s->at, KST_PAGE, PROT_READ | PROT_WRITE),
			    "mprotect");
	}
	kst_check(!stale, "mprotect: %" PRIu64 " of %" PRIu64 " rounds with a write to a protected page",
		  stale, i);
	kst_check(!lost && moves(s->near), "mprotect: L2 goes on after it");
}

static void shared_run(u64 rounds)
{
	struct tvm_opts o = {
		.guest = { l1_main }, .nr_l2 = 1, .pool_src = VM_MEM_SRC_SHMEM,
		.efault_ok = true,
	};
	struct tvm *t = tvm_create(&o);
	struct shared_pool s = { .region = memslot2region(t->vm, POOL_SLOT) };
	struct policy p;

	t->sh->param[P_FAULTS_OK] = 1;
	s.at = tvm_pool(t, 0);
	s.near = addr_gpa2alias(t->vm, POOL_GPA);
	s.far = addr_gpa2alias(t->vm, POOL_GPA + FAR * KST_PAGE);
	start(t, &p);
	mmap_rounds(&s, rounds);
	mremap_rounds(&s, rounds);
	mprotect_rounds(t, &s, rounds / 4);
	printf("# KVM_RUN said EFAULT %" PRIu64 " times while pages were protected\n",
	       t->efaults);
	finish(t, &p);
}

int main(int argc, char **argv)
{
	u64 rounds = kst_param(argc, argv, "rounds", 1000);
	struct tvm_opts o = { .guest = { l1_main }, .nr_l2 = 1 };
	struct kvm_kpop_info info;
	struct tvm *t;

	kst_begin("kpop_notifier_test", 600);
	legacy = kst_param(argc, argv, "legacy", 0);
	if (!legacy) {
		t = tvm_create(&o);
		kpop_info(t, &info);
		tvm_free(t);
	}
	madvise_run(rounds);
	shared_run(rounds);
	return kst_end();
}
