// SPDX-License-Identifier: GPL-2.0
/*
 * When UNMAP, a remap or a protect returns, no vCPU of L2 can use the old
 * translation (contract 5).
 *
 * vCPU 1 stays in L2 and counts in page P without exits; vCPU 0 takes P away
 * from under it.  A vCPU that enters a nested guest starts with an empty TLB,
 * so only a vCPU that does not leave L2 can show a missing flush, and only in
 * the rounds in which no host tick threw it out: hence many rounds.
 *
 *   rounds=N   for each of the four ways
 *   bad=1      known to be bad: a legacy table, which L1 changes without a flush;
 *              it must fail, or the test is blind on this machine
 */
#include "kpop_test.h"

#define TOKEN	token_of(0)
#define KVM_ID	9
#define P_L2	l2_gfn(0)

enum { PH_READY, PH_DONE, PH_HOLD };
enum { P_ROUNDS, P_BAD_ENTRY };

/* Long enough for another vCPU to count on, if it still could. */
static void dwell(void)
{
	int i;

	for (i = 0; i < 300; i++)
		asm volatile("" ::: "memory");
}

/* Page @i of the pool must not change any more.  L2 never stops counting. */
static bool still(u64 i)
{
	u64 v = *pool_ptr(i);

	dwell();
	return *pool_ptr(i) == v;
}

static bool moves(u64 i)
{
	u64 v = *pool_ptr(i);

	return spin_until(*pool_ptr(i) != v);
}

enum way { REMAP_EAGER, REMAP_LAZY, UNMAP, PROTECT, NR_WAYS };

static const char *way_name(enum way w)
{
	return w == REMAP_EAGER ? "eager remap" : w == REMAP_LAZY ? "lazy remap" :
	       w == UNMAP ? "UNMAP" : "MAP without W";
}

/* P leads to page @from, L2 counts there.  Take it away, as @w says. */
static long take_away(enum way w, u64 from, u64 to)
{
	switch (w) {
	case REMAP_EAGER:
		return kpop_map(TOKEN, KPOP_MAP_RWX, P_L2, pool_gfn(to), 1);
	case REMAP_LAZY:
		return kpop_map(TOKEN, KPOP_MAP_RWX | KPOP_MAP_LAZY, P_L2, pool_gfn(to), 1);
	case UNMAP:
		return kpop_unmap(KVM_ID, P_L2, 1);
	default:
		return kpop_map(TOKEN, KPOP_MAP_R, P_L2, pool_gfn(from), 1);
	}
}

/*
 * PH_HOLD keeps vCPU 1 from asking again and again while P is away, which
 * would only slow the rounds down.
 */
static void rounds(struct l1_shared *sh, enum way w)
{
	u64 stale = 0, stuck = 0, failed = 0, i;

	for (i = 0; i < sh->param[P_ROUNDS] && !stuck && !stale; i++) {
		u64 from = i & 1, to = !from;

		/* vCPU 1 has P in its TLB: it writes there now. */
		stuck += !moves(from);
		sh->phase[PH_HOLD] = w == UNMAP || w == PROTECT;
		failed += take_away(w, from, to) != 1;
		stale += !still(from);
		if (w == UNMAP || w == PROTECT) {
			failed += kpop_map(TOKEN, KPOP_MAP_RWX, P_L2, pool_gfn(to), 1) != 1;
			sh->phase[PH_HOLD] = 0;
		}
	}
	G_EXPECT(failed, 0, "calls that failed");
	G_EXPECT(stuck, 0, "rounds in which L2 stood still");
	G_CHECK(!stale, "%s: the old page is still after it, %lu of %lu rounds",
		way_name(w), i - stale, sh->param[P_ROUNDS]);
	/* An even count leaves P at page 0 for the next way; so does this. */
	kpop_map(TOKEN, KPOP_MAP_RWX, P_L2, pool_gfn(0), 1);
}

/* One instruction less than it takes: the entry changes, nobody flushes. */
static void bad_rounds(struct l1_shared *sh)
{
	volatile u64 *entry = (void *)sh->param[P_BAD_ENTRY];
	u64 stale = 0, i;

	for (i = 0; i < sh->param[P_ROUNDS]; i++) {
		u64 from = i & 1;

		if (!moves(from))
			break;
		*entry ^= pool_gfn(0) * KST_PAGE ^ pool_gfn(1) * KST_PAGE;
		if (still(from))
			continue;
		stale++;
		/* No exit tells vCPU 1 either: wait for one of the host's own. */
		if (!spin_until(still(from)))
			break;
	}
	G_CHECK(!stale, "no flush: L2 wrote to the old page in %lu of %lu rounds", stale, i);
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	enum way w;

	l1_virt_on(sh->l2[0]);
	if (sh->param[P_BAD_ENTRY]) {
		sh->phase[PH_READY] = 1;
		bad_rounds(sh);
		sh->stop = 1;
		GUEST_DONE();
	}
	l2_on_kpop(sh->l2[0], TOKEN, KVM_ID, 0);
	kpop_map(TOKEN, KPOP_MAP_RWX, P_L2, pool_gfn(0), 1);
	sh->phase[PH_READY] = 1;
	for (w = 0; w < NR_WAYS; w++)
		rounds(sh, w);
	sh->stop = 1;
	G_CHECK(spin_until(sh->phase[PH_DONE]), "vCPU 1 leaves L2 when told");
	GUEST_DONE();
}

static void l1_counter(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[1];
	u64 r;

	GUEST_ASSERT(spin_until(sh->phase[PH_READY]));
	l1_virt_on(l2);
	if (sh->param[P_BAD_ENTRY]) {
		l2_setup(l2, sh->legacy_root);
	} else {
		GUEST_ASSERT(!kpop_load(TOKEN, l2->holder, KVM_ID, 0));
		l2_setup(l2, TOKEN);
	}
	r = l2_call(l2, l2_count, l2_gva(0), (u64)&sh->stop);
	while (r == L2_EXIT_FAULT) {
		__GUEST_ASSERT((l2->exit.gpa & ~0xfffULL) == L2_GPA,
			       "a fault at 0x%lx, which nobody took away", l2->exit.gpa);
		spin_until(!sh->phase[PH_HOLD]);
		r = l2_resume(l2);
	}
	GUEST_ASSERT_EQ(r, L2_EXIT_CALL);
	sh->phase[PH_DONE] = 1;
	GUEST_DONE();
}

int main(int argc, char **argv)
{
	struct tvm_opts o = {
		.guest = { l1_main, l1_counter },
		.nr_l2 = 2,
	};
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;

	kst_begin("kpop_flush_test", 600);
	t = tvm_create(&o);
	t->sh->param[P_ROUNDS] = kst_param(argc, argv, "rounds", 10000);
	if (kst_param(argc, argv, "bad", 0)) {
		t->sh->legacy_root = table_legacy(t, 1);
		t->sh->param[P_BAD_ENTRY] = table_leaf(t, t->sh->legacy_root, L2_GPA);
		tvm_run(t);
		tvm_free(t);
		return kst_end();
	}
	kpop_info(t, &info);
	policy_serve(&p, "kpop_base", t);
	tvm_run(t);
	policy_stop(&p, t);
	tvm_free(t);
	return kst_end();
}
