// SPDX-License-Identifier: GPL-2.0
/*
 * MAP over an existing mapping replaces it: L2 sees the old page or the new
 * one, a fault in between is solved in L0 and never reaches L1 (4a.2).
 *
 *   rounds=N   remaps under a reader on a second vCPU
 */
#include "kpop_test.h"

#define TOKEN		token_of(0)
#define KVM_ID		3
#define PAGES_2M	512
#define VAL_A		0xaaaaaaaaaaaaaaaaULL
#define VAL_B		0xbbbbbbbbbbbbbbbbULL

enum { PH_READY, PH_DONE };
enum { V_LAST, V_READS, V_BAD, V_FAULTS };
enum { P_ROUNDS, P_LAZY };

static void test_one_vcpu(struct l2 *l2)
{
	u64 i;

	for (i = 0; i < 6; i++)
		*pool_ptr(i) = 0x100 + i;
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 3);
	for (i = 0; i < 3; i++)
		G_CHECK(l2_reads(l2, l2_gva(i), 0x100 + i), "page %lu before the remap", i);
	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(1), pool_gfn(4), 1), 1,
		 "MAP of the middle page to another L1 page");
	G_CHECK(l2_reads(l2, l2_gva(0), 0x100), "the page before is as it was");
	G_CHECK(l2_reads(l2, l2_gva(1), 0x104), "the middle page is the new one");
	G_CHECK(l2_reads(l2, l2_gva(2), 0x102), "the page behind is as it was");
	l2_call(l2, l2_write, l2_gva(1), 0x200);
	G_CHECK(*pool_ptr(1) == 0x101 && *pool_ptr(4) == 0x200, "writes go to the new page");
	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(1), pool_gfn(4), 1), 1,
		 "MAP of the same again");
	G_CHECK(l2_reads(l2, l2_gva(1), 0x200), "changes nothing");
	G_EXPECT(l2->faults, 0, "faults that reached L1");
}

/* The pool is backed by huge pages if L0 has any; right in any case. */
static void test_inside_2m(struct l2 *l2)
{
	u64 i, bad = 0;

	for (i = 0; i < 2 * PAGES_2M; i++)
		*pool_ptr(PAGES_2M + i) = 0x1000 + i;
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(PAGES_2M), pool_gfn(PAGES_2M), PAGES_2M);
	G_CHECK(l2_reads(l2, l2_gva(PAGES_2M + 5), 0x1005), "page 5 of 2M");
	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(PAGES_2M + 5),
			  pool_gfn(2 * PAGES_2M + 9), 1), 1,
		 "MAP of page 5 to an L1 page of another 2M");
	for (i = 0; i < PAGES_2M; i++) {
		l2_call(l2, l2_read, l2_gva(PAGES_2M + i), 0);
		bad += l2->ret != 0x1000 + (i == 5 ? PAGES_2M + 9 : i);
	}
	G_EXPECT(bad, 0, "wrong values among the 512 pages");
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(PAGES_2M), pool_gfn(2 * PAGES_2M), PAGES_2M);
	for (bad = 0, i = 0; i < PAGES_2M; i++) {
		l2_call(l2, l2_read, l2_gva(PAGES_2M + i), 0);
		bad += l2->ret != 0x1000 + PAGES_2M + i;
	}
	G_EXPECT(bad, 0, "wrong values after a remap of all 2M");
	G_EXPECT(l2->faults, 0, "faults that reached L1");
}

/* In L2: read until told to stop; keep the last value, count the impossible. */
static u64 l2_watch(u64 gva, u64 arg)
{
	struct l1_shared *sh = (void *)arg;
	u64 n = 0;

	while (!sh->stop) {
		u64 v = READ_ONCE(*(u64 *)gva);

		if (v != VAL_A && v != VAL_B)
			sh->val[V_BAD]++;
		sh->val[V_LAST] = v;
		n++;
	}
	return n;
}

static void remap_rounds(struct l1_shared *sh)
{
	u64 i, flags = KPOP_MAP_RWX | (sh->param[P_LAZY] ? KPOP_MAP_LAZY : 0);
	u64 late = 0, failed = 0;

	for (i = 0; i < sh->param[P_ROUNDS]; i++) {
		u64 want = i & 1 ? VAL_B : VAL_A;

		failed += kpop_map(TOKEN, flags, l2_gfn(0), pool_gfn(i & 1), 1) != 1;
		late += !spin_until(sh->val[V_LAST] == want);
		if (late)
			break;
	}
	G_EXPECT(failed, 0, "MAPs that failed");
	G_EXPECT(late, 0, "remaps that the other vCPU did not see");
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];

	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	test_one_vcpu(l2);
	test_inside_2m(l2);

	*pool_ptr(0) = VAL_A;
	*pool_ptr(1) = VAL_B;
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(1), 1);
	sh->phase[PH_READY] = 1;
	G_CHECK(spin_until(sh->val[V_LAST] == VAL_B), "the second vCPU reads");
	remap_rounds(sh);
	sh->param[P_LAZY] = 1;
	remap_rounds(sh);
	sh->stop = 1;
	G_CHECK(spin_until(sh->phase[PH_DONE]), "the second vCPU stops");
	G_EXPECT(sh->val[V_BAD], 0, "values that it never may see");
	G_EXPECT(sh->val[V_FAULTS], 0, "its faults that reached L1");
	G_CHECK(sh->val[V_READS] > sh->param[P_ROUNDS], "it read %lu times", sh->val[V_READS]);
	GUEST_DONE();
}

static void l1_reader(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[1];
	u64 r;

	l1_virt_on(l2);
	GUEST_ASSERT(spin_until(sh->phase[PH_READY]));
	GUEST_ASSERT(!kpop_load(TOKEN, l2->holder, KVM_ID, 0));
	l2_setup(l2, TOKEN);
	r = l2_call(l2, l2_watch, l2_gva(0), (u64)sh);
	while (r == L2_EXIT_FAULT && !sh->stop)
		r = l2_resume(l2);
	sh->val[V_FAULTS] = l2->faults;
	sh->val[V_READS] = l2->ret;
	sh->phase[PH_DONE] = 1;
	GUEST_DONE();
}

int main(int argc, char **argv)
{
	struct tvm_opts o = {
		.guest = { l1_main, l1_reader },
		.nr_l2 = 2,
		.pool_pages = 3 * PAGES_2M,
		.pool_src = thp_configured() ? VM_MEM_SRC_ANONYMOUS_THP : VM_MEM_SRC_ANONYMOUS,
	};
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;

	kst_begin("kpop_remap_test", 300);
	t = tvm_create(&o);
	kpop_info(t, &info);
	t->sh->param[P_ROUNDS] = kst_param(argc, argv, "rounds", 3000);
	policy_serve(&p, "kpop_base", t);
	tvm_run(t);
	policy_stop(&p, t);
	tvm_free(t);
	return kst_end();
}
