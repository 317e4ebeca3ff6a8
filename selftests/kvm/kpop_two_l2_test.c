// SPDX-License-Identifier: GPL-2.0
/*
 * One L1 vCPU alternates L2s of every kind: two on KPOP with the same L2 gfns,
 * one in the other as_id, one on a legacy table, one without nested paging.
 * Each sees its own memory only (4a.3, 4a.4).
 *
 *   rounds=N   of the alternation
 */
#include "kpop_test.h"

#define ID_ONE	1
#define ID_TWO	2

enum { L2_ONE, L2_TWO, L2_SMM, L2_TWIN, L2_LEGACY, L2_NO_NPT, NR_L2 };
enum { P_ROUNDS };

/* Pages of the pool that stand behind L2_GPA. */
static const u64 page_of[NR_L2] = { 100, 101, 102, 100, 0, 0 };

static u64 value_of(int who)
{
	return 0xd00d000000000000ULL + page_of[who];
}

/* Without nested paging L2 has L1's physical memory: it looks at the pool. */
static u64 gva_of(int who)
{
	return who == L2_NO_NPT ? POOL_GPA : l2_gva(0);
}

static void setup(struct l1_shared *sh)
{
	static const struct { int who; u64 token, kvm_id, as_id; } spaces[] = {
		{ L2_ONE, 0, ID_ONE, 0 },
		{ L2_TWO, 1, ID_TWO, 0 },
		{ L2_SMM, 2, ID_ONE, 1 },
		{ L2_TWIN, 3, ID_ONE, 0 },	/* L2_ONE under another root */
	};
	int i;

	for (i = 0; i < NR_L2; i++)
		*pool_ptr(page_of[i]) = value_of(i);
	for (i = 0; i < ARRAY_SIZE(spaces); i++) {
		l2_on_kpop(sh->l2[spaces[i].who], token_of(spaces[i].token),
			   spaces[i].kvm_id, spaces[i].as_id);
		kpop_map(token_of(spaces[i].token), KPOP_MAP_RWX, l2_gfn(0),
			 pool_gfn(page_of[spaces[i].who]), 1);
	}
	l2_setup(sh->l2[L2_LEGACY], sh->legacy_root);
	l2_setup(sh->l2[L2_NO_NPT], 0);
}

static void alternate(struct l1_shared *sh, u64 rounds)
{
	u64 wrong[NR_L2] = {}, i, who;

	for (i = 0; i < rounds; i++) {
		for (who = 0; who < NR_L2; who++) {
			struct l2 *l2 = sh->l2[who];

			wrong[who] += l2_call(l2, l2_read, gva_of(who), 0) != L2_EXIT_CALL ||
				      l2->ret != value_of(who);
		}
		/* In pairs too: each directly after each. */
		for (who = 0; who < NR_L2 * NR_L2; who++) {
			struct l2 *l2 = sh->l2[i & 1 ? who / NR_L2 : who % NR_L2];
			u64 me = i & 1 ? who / NR_L2 : who % NR_L2;

			wrong[me] += l2_call(l2, l2_read, gva_of(me), 0) != L2_EXIT_CALL ||
				     l2->ret != value_of(me);
		}
	}
	G_EXPECT(wrong[L2_ONE], 0, "wrong reads, first KPOP L2");
	G_EXPECT(wrong[L2_TWO], 0, "wrong reads, second KPOP L2");
	G_EXPECT(wrong[L2_SMM], 0, "wrong reads, as_id 1 of the first");
	G_EXPECT(wrong[L2_TWIN], 0, "wrong reads, second root of the first");
	G_EXPECT(wrong[L2_LEGACY], 0, "wrong reads, L2 on a legacy table");
	G_EXPECT(wrong[L2_NO_NPT], 0, "wrong reads, L2 without nested paging");
}

static bool gone(struct l1_shared *sh, int who)
{
	return l2_faults_at(sh->l2[who], l2_read, l2_gva(0), 0, KPOP_MAP_R, false);
}

static bool there(struct l1_shared *sh, int who)
{
	return l2_reads(sh->l2[who], gva_of(who), value_of(who));
}

static void test_as_ids(struct l1_shared *sh)
{
	struct l2 *twin = sh->l2[L2_TWIN];

	/*
	 * A MAP over an existing mapping reaches every root of that L2 VM and
	 * as_id.  L0 may drop what another root had, but not leave it there.
	 */
	*pool_ptr(110) = 0x110;
	kpop_map(token_of(0), KPOP_MAP_RWX, l2_gfn(0), pool_gfn(110), 1);
	G_CHECK(l2_reads(sh->l2[L2_ONE], l2_gva(0), 0x110), "remap under one root");
	if (l2_call(twin, l2_read, l2_gva(0), 0) == L2_EXIT_FAULT)
		kpop_map(token_of(3), KPOP_MAP_RWX, l2_gfn(0), pool_gfn(110), 1);
	else
		G_EXPECT(twin->ret, 0x110, "what the other root reads");
	G_CHECK(l2_reads(twin, l2_gva(0), 0x110), "the other root has the new page");
	G_CHECK(there(sh, L2_SMM), "and not in the other as_id");
	G_CHECK(there(sh, L2_TWO), "and not by the other L2 VM");
	kpop_map(token_of(0), KPOP_MAP_RWX, l2_gfn(0), pool_gfn(page_of[L2_ONE]), 1);
	kpop_map(token_of(3), KPOP_MAP_RWX, l2_gfn(0), pool_gfn(page_of[L2_TWIN]), 1);

	G_EXPECT(kpop_unmap_flags(0, 1, ID_ONE, l2_gfn(0), 1), 1, "UNMAP in as_id 1");
	G_CHECK(gone(sh, L2_SMM), "takes it from as_id 1");
	G_CHECK(there(sh, L2_ONE) && there(sh, L2_TWIN), "and leaves as_id 0");
	kpop_map(token_of(2), KPOP_MAP_RWX, l2_gfn(0), pool_gfn(page_of[L2_SMM]), 1);

	G_EXPECT(kpop_unmap_flags(0, 0, ID_ONE, l2_gfn(0), 1), 1, "UNMAP in as_id 0");
	G_CHECK(gone(sh, L2_ONE) && gone(sh, L2_TWIN), "takes it under both roots");
	G_CHECK(there(sh, L2_SMM), "and leaves as_id 1");
	kpop_map(token_of(0), KPOP_MAP_RWX, l2_gfn(0), pool_gfn(page_of[L2_ONE]), 1);

	G_EXPECT(kpop_unmap_flags(KPOP_UNMAP_ALL_AS, 0, ID_ONE, l2_gfn(0), 1), 1,
		 "UNMAP in all");
	G_CHECK(gone(sh, L2_ONE) && gone(sh, L2_SMM), "takes it from both as_ids");
	G_CHECK(there(sh, L2_TWO), "and leaves the other L2 VM");
}

/* A vCPU's binding may go without its space, and move to another one. */
static void test_bindings(struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[L2_TWO];

	G_EXPECT(kpop_unload_holder(token_of(1), l2->holder, ID_TWO, 0), 0,
		 "UNLOAD of a holder");
	G_EXPECT(l2_call(l2, l2_read, l2_gva(0), 0), L2_EXIT_FAULT,
		 "its L2 sees the empty page that the token is");
	G_EXPECT(kpop_load(token_of(1), l2->holder, ID_TWO, 0), 0, "LOAD of it again");
	G_CHECK(there(sh, L2_TWO), "finds the space as it was");
	G_EXPECT(kpop_load(token_of(2), l2->holder, ID_ONE, 1), 0,
		 "LOAD of another space for the same holder");
	G_CHECK(there(sh, L2_TWO), "leaves it bound to the first one");
	l2_set_root(l2, token_of(2));
	G_EXPECT(l2_call(l2, l2_read, l2_gva(1), 0), L2_EXIT_FAULT,
		 "under the other token it does not see what the first one has");
	G_EXPECT(kpop_unload_holder(token_of(2), l2->holder, ID_ONE, 1), 0,
		 "UNLOAD of that binding");
	G_EXPECT(kpop_unload_holder(token_of(2), l2->holder, ID_ONE, 1), -ENOENT,
		 "and once more");
	l2_set_root(l2, token_of(1));
	G_CHECK(there(sh, L2_TWO), "leaves the first one");
	kpop_load(token_of(2), l2->holder, ID_ONE, 1);
	G_EXPECT(kpop_unload_holder(0, l2->holder, ID_TWO, 0), 0, "UNLOAD of all");
	G_EXPECT(l2_call(l2, l2_read, l2_gva(0), 0), L2_EXIT_FAULT,
		 "takes the first one too");
	kpop_load(token_of(1), l2->holder, ID_TWO, 0);
	G_CHECK(there(sh, L2_TWO), "and is again after a LOAD");
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	l1_virt_on(sh->l2[0]);
	setup(sh);
	alternate(sh, sh->param[P_ROUNDS]);
	test_as_ids(sh);
	test_bindings(sh);
	G_EXPECT(kpop_unload_root(token_of(0), ID_ONE, 0), 0, "UNLOAD of the first root");
	G_CHECK(there(sh, L2_TWO), "leaves the other L2 VM");
	GUEST_DONE();
}

int main(int argc, char **argv)
{
	struct tvm_opts o = {
		.guest = { l1_main },
		.nr_l2 = NR_L2,
	};
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;

	kst_begin("kpop_two_l2_test", 300);
	t = tvm_create(&o);
	kpop_info(t, &info);
	t->sh->param[P_ROUNDS] = kst_param(argc, argv, "rounds", 50);
	t->sh->legacy_root = table_legacy(t, 4);
	policy_serve(&p, "kpop_base", t);
	tvm_run(t);
	kpop_info(t, &info);
	kst_check(info.nr_spaces == 3, "three spaces are left (%u)", info.nr_spaces);
	policy_stop(&p, t);
	kst_check(kpop_none_left(t, &info), "none after the policy is gone (%llu bytes)",
		  info.bytes);
	tvm_free(t);
	return kst_end();
}
