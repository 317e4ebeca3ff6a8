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
 *   rounds=N   of UNMAP and of the eager remap; a quarter of the other two ways
 *   bad=1      known to be bad: a legacy table, which L1 changes without a flush;
 *              it must fail, or the test is blind on this machine
 */
#include "kpop_test.h"

#define TOKEN	token_of(0)
#define KVM_ID	9
#define P_L2	l2_gfn(0)

enum { PH_READY, PH_DONE, PH_HOLD };
enum { P_ROUNDS, P_BAD_ENTRY };

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
 * The old page is looked at when the call returned, and again when L2 is seen
 * to write to the new one: if vCPU 1 ran at all in between with what it had in
 * its TLB, the old page has changed.  PH_HOLD keeps vCPU 1 from asking again
 * and again while P is away, which would only slow the rounds down.
 */
static void rounds(struct l1_shared *sh, enum way w)
{
	u64 n = sh->param[P_ROUNDS] / (w == UNMAP || w == REMAP_EAGER ? 1 : 4);
	u64 stale = 0, stuck = 0, failed = 0, i;

	for (i = 0; i < n && !stuck; i++) {
		u64 from = i & 1, to = !from, seen;

		/* The other end of the round before: vCPU 1 has P in its TLB. */
		stuck += !moves(from);
		sh->phase[PH_HOLD] = w == UNMAP || w == PROTECT;
		failed += take_away(w, from, to) != 1;
		seen = *pool_ptr(from);
		if (w == UNMAP || w == PROTECT) {
			failed += kpop_map(TOKEN, KPOP_MAP_RWX, P_L2, pool_gfn(to), 1) != 1;
			sh->phase[PH_HOLD] = 0;
		}
		stuck += !moves(to);
		stale += *pool_ptr(from) != seen;
	}
	G_EXPECT(failed, 0, "calls that failed");
	G_EXPECT(stuck, 0, "rounds in which L2 stood still");
	G_CHECK(!stale, "%s: %lu of %lu rounds in which L2 wrote to the old page after it",
		way_name(w), stale, i);
	/* Each way begins at page 0. */
	kpop_map(TOKEN, KPOP_MAP_RWX, P_L2, pool_gfn(0), 1);
}

/* One flush less than it takes: L1 changes the entry and that is all. */
static void bad_round(struct l1_shared *sh)
{
	volatile u64 *entry = (void *)sh->param[P_BAD_ENTRY];
	u64 seen;

	G_CHECK(moves(0), "L2 counts in the first page");
	*entry ^= pool_gfn(0) * KST_PAGE ^ pool_gfn(1) * KST_PAGE;
	seen = *pool_ptr(0);
	/* Either may come first, the stale write or the good one. */
	spin_until(*pool_ptr(0) != seen || *pool_ptr(1));
	G_CHECK(*pool_ptr(0) == seen, "no flush: L2 wrote to the old page %lu times",
		*pool_ptr(0) - seen);
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	enum way w;

	l1_virt_on(sh->l2[0]);
	if (sh->param[P_BAD_ENTRY]) {
		sh->phase[PH_READY] = 1;
		bad_round(sh);
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
