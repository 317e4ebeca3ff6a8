// SPDX-License-Identifier: GPL-2.0
/*
 * A page of L1's memory goes bad in L0 (contract 6): what L2 has of it goes at once,
 * and when L2 touches it the VMM gets the signal that it knows from a VM without
 * KPOP, SIGBUS with BUS_MCEERR_AR and its own address of the page.  All other pages
 * go on; so does L2 when the VMM has put another page there.
 */
#include <signal.h>

#include "kpop_test.h"

#define TOKEN		token_of(0)
#define KVM_ID		27
#define BAD		0		/* the pool's page that goes bad */
#define PULSE		1		/* L2 writes here after each access to it */
#define GOOD		8		/* that of the other vCPU */
#define PAGES_2M	512ULL
#define BAD_2M		(PAGES_2M + 100)
#define OFFERED		4		/* goes bad before L1 offers it */
#define SIGNALS		3		/* from that one on the VMM replaces the page */

enum { PH_READY0, PH_READY1 };
enum { P_LEGACY };
enum { STAGE_2M, STAGE_BAD_2M, STAGE_SEEN_2M, STAGE_BAD_OFFERED, STAGE_SEEN_OFFERED };

/* ---- two vCPUs: one meets the page, the other does not ---- */

static u64 l2_pulse(u64 gva, u64 stop)
{
	u64 n = 0;

	while (!READ_ONCE(*(u64 *)stop)) {
		asm volatile("lock incq (%0)" : : "r"(gva) : "memory");
		WRITE_ONCE(*(u64 *)(gva + KST_PAGE), ++n);
	}
	return n;
}

static void run_on(struct l2 *l2, struct l1_shared *sh, u64 token, u64 page, u64 npages)
{
	l1_virt_on(l2);
	if (sh->param[P_LEGACY]) {
		l2_setup(l2, sh->legacy_root);
	} else {
		l2_on_kpop(l2, token, KVM_ID, 0);
		GUEST_ASSERT(kpop_map(token, KPOP_MAP_RWX, l2_gfn(page), pool_gfn(page),
				      npages) == npages);
	}
}

static void l1_meets(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];

	run_on(l2, sh, TOKEN, BAD, 2);
	sh->phase[PH_READY0] = 1;
	G_EXPECT(l2_call(l2, l2_pulse, l2_gva(BAD), (u64)&sh->stop), L2_EXIT_CALL,
		 "L2 comes to its end over a page that was bad");
	G_EXPECT(l2->faults, 0, "faults that reached L1");
	G_CHECK(*pool_ptr(BAD) && *pool_ptr(BAD) < l2->ret, "%lu of %lu additions are in the new page",
		*pool_ptr(BAD), l2->ret);
	GUEST_DONE();
}

static void l1_beside(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[1];

	run_on(l2, sh, token_of(1), GOOD, 1);
	sh->phase[PH_READY1] = 1;
	G_EXPECT(l2_call(l2, l2_count, l2_gva(GOOD), (u64)&sh->stop), L2_EXIT_CALL,
		 "the other vCPU's L2, too");
	G_EXPECT(*pool_ptr(GOOD), l2->ret, "which lost nothing");
	GUEST_DONE();
}

/* ---- one vCPU: in 2M, and offered when it is bad already ---- */

static void l1_2m(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];
	u64 i, bad = 0;

	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	for (i = 0; i < PAGES_2M; i++)
		*pool_ptr(PAGES_2M + i) = i + 1;
	GUEST_SYNC1(STAGE_2M);
	GUEST_ASSERT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(PAGES_2M), pool_gfn(PAGES_2M),
			      PAGES_2M) == PAGES_2M);
	G_CHECK(l2_reads(l2, l2_gva(BAD_2M), BAD_2M - PAGES_2M + 1), "L2 reads in 2M");
	GUEST_SYNC1(STAGE_BAD_2M);
	for (i = 0; i < PAGES_2M; i++)
		if (PAGES_2M + i != BAD_2M)
			bad += l2_call(l2, l2_read, l2_gva(PAGES_2M + i), 0) != L2_EXIT_CALL ||
			       l2->ret != i + 1;
	G_EXPECT(bad, 0, "of the 511 other pages, those that L2 cannot read");
	G_CHECK(l2_reads(l2, l2_gva(BAD_2M), 0), "L2 reads the VMM's new page");
	GUEST_SYNC1(STAGE_SEEN_2M);

	*pool_ptr(OFFERED) = 1;
	GUEST_SYNC1(STAGE_BAD_OFFERED);
	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(OFFERED), pool_gfn(OFFERED), 1), 1,
		 "MAP of a page that is bad");
	G_CHECK(l2_reads(l2, l2_gva(OFFERED), 0), "L2 reads the VMM's new page");
	GUEST_SYNC1(STAGE_SEEN_OFFERED);
	G_EXPECT(l2->faults, 0, "faults that reached L1");
	GUEST_DONE();
}

/* ---- host ---- */

/* By whom it was met: madvise() tells its caller, KVM_RUN the vCPU's thread. */
enum { BY_MADVISE, BY_KVM, NR_WHO };

static struct {
	volatile u64 n;
	volatile int code;
	void *volatile addr;
} met[NR_WHO];

static volatile bool in_madvise;
static volatile bool replace;		/* the page, from the signal handler on */
static __thread bool poisons;

static void new_page(void *p)
{
	p = (void *)((u64)p & -KST_PAGE);
	if (mmap(p, KST_PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS,
		 -1, 0) != p)
		_exit(1);
}

static void on_sigbus(int sig, siginfo_t *si, void *unused)
{
	int who = poisons && in_madvise ? BY_MADVISE : BY_KVM;

	met[who].code = si->si_code;
	met[who].addr = si->si_addr;
	met[who].n++;
	if (replace && who == BY_KVM && met[who].n >= SIGNALS)
		new_page(si->si_addr);
}

static void poison(volatile u64 *p)
{
	int r;

	memset(met, 0, sizeof(met));
	poisons = in_madvise = true;
	r = madvise((void *)p, KST_PAGE, MADV_HWPOISON);
	in_madvise = false;
	TEST_ASSERT(!r, "MADV_HWPOISON: %s", strerror(errno));
	kst_check(met[BY_MADVISE].code == BUS_MCEERR_AR && met[BY_MADVISE].addr == p,
		  "the page at %p is bad (signal code %d)", p, met[BY_MADVISE].code);
}

static void check_met(volatile u64 *p, const char *what)
{
	kst_check(kst_wait(met[BY_KVM].n >= SIGNALS, 30000) &&
		  met[BY_KVM].code == BUS_MCEERR_AR && met[BY_KVM].addr == p,
		  "%s: %" PRIu64 " signals, code %d, address %p", what, met[BY_KVM].n,
		  met[BY_KVM].code, met[BY_KVM].addr);
}

/* On a kernel that has the checker of L0's tables. */
static void check_tables(struct tvm *t)
{
	struct kvm_kpop_check c = {};
	u32 len = sizeof(c);

	if (kpop_ctl(t->vm->fd, KVM_KPOP_OP_CHECK, 0, &c, &len))
		return;
	kst_check(!c.wrong, "L0's tables: %llu wrong in %llu leafs", c.wrong, c.leafs);
}

static bool moves(volatile u64 *p)
{
	u64 v = *p;

	return kst_wait(*p != v, 30000);
}

static void test_running(bool legacy)
{
	struct tvm_opts o = { .guest = { l1_meets, l1_beside }, .nr_l2 = 2 };
	const char *name = legacy ? "legacy" : "KPOP";
	struct tvm *t = tvm_create(&o);
	volatile u64 *bad = tvm_pool(t, BAD), *pulse = tvm_pool(t, PULSE);
	volatile u64 *good = tvm_pool(t, GOOD);
	struct policy p;
	u64 seen;

	if (legacy)
		t->sh->legacy_root = table_legacy(t, GOOD + 1);
	else
		policy_serve(&p, "kpop_base", t);
	t->sh->param[P_LEGACY] = legacy;
	tvm_start(t);
	kst_check(kst_wait(t->sh->phase[PH_READY0] && t->sh->phase[PH_READY1], 60000) &&
		  moves(pulse) && moves(good), "two vCPUs run an L2 on %s", name);

	replace = false;
	poison(bad);
	/* One access may have been under way. */
	seen = *pulse;
	usleep(300000);
	kst_check(*pulse - seen <= 1, "L2 has nothing of it any more: %" PRIu64 " accesses after that",
		  *pulse - seen);
	check_met(bad, "L2 touches it");
	kst_check(moves(good), "the other vCPU goes on");
	if (!legacy)
		check_tables(t);
	new_page((void *)bad);
	kst_check(moves(pulse) && moves(bad), "L2 goes on with a new page");
	t->sh->stop = 1;
	tvm_join(t);
	if (!legacy)
		policy_stop(&p, t);
	tvm_free(t);
}

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	static u64 huge;

	switch (args[0]) {
	case STAGE_2M:
		huge = vm_get_stat(t->vm, "pages_2m");
		break;
	case STAGE_BAD_2M:
		if (vm_get_stat(t->vm, "pages_2m") == huge)
			printf("# L0 gave this VM no huge page\n");
		replace = true;
		poison(tvm_pool(t, BAD_2M));
		check_tables(t);
		break;
	case STAGE_SEEN_2M:
		check_met(tvm_pool(t, BAD_2M), "L2 touches a bad page that was one in 2M");
		break;
	case STAGE_BAD_OFFERED:
		poison(tvm_pool(t, OFFERED));
		break;
	case STAGE_SEEN_OFFERED:
		check_met(tvm_pool(t, OFFERED), "L2 touches a page that was bad when L1 offered it");
		break;
	}
}

static void test_2m(void)
{
	struct tvm_opts o = {
		.guest = { l1_2m },
		.nr_l2 = 1,
		.pool_pages = 4 * PAGES_2M,
		.pool_src = VM_MEM_SRC_ANONYMOUS_THP,
		.sync = on_sync,
	};
	struct tvm *t = tvm_create(&o);
	struct policy p;

	policy_serve(&p, "kpop_base", t);
	tvm_run(t);
	policy_stop(&p, t);
	tvm_free(t);
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
	struct tvm_opts o = { .nr_vcpus = 1 };
	struct kvm_kpop_info info;
	struct tvm *t;

	kst_begin("kpop_poison_test", 400);
	t = tvm_create(&o);
	kpop_info(t, &info);
	tvm_free(t);
	sigaction(SIGBUS, &sa, NULL);
	test_running(true);
	test_running(false);
	test_2m();
	return kst_end();
}
