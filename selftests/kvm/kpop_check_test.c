// SPDX-License-Identifier: GPL-2.0
/*
 * The checker of L0's tables finds what is wrong: a leaf that leads to another
 * host page, and a translation that notifiers would not find, each planted in a
 * table that it had nothing to say against.  Kernels with CONFIG_KVM_PROVE_MMU
 * only.
 */
#include "kpop_test.h"

#define TOKEN	token_of(0)
#define KVM_ID	18
#define PAGES	16

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];
	u64 i;

	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	/* Every second page of the pool: a run each. */
	for (i = 0; i < PAGES; i++) {
		G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(i), pool_gfn(2 * i), 1), 1, "MAP");
		*pool_ptr(2 * i) = i;
		G_CHECK(l2_reads(l2, l2_gva(i), i), "L2 reads page %lu", i);
	}
	GUEST_SYNC1(0);
	/* What was planted is gone again. */
	for (i = 0; i < PAGES; i++)
		G_CHECK(l2_reads(l2, l2_gva(i), i), "L2 still reads page %lu", i);
	GUEST_DONE();
}

static void check(struct tvm *t, struct kvm_kpop_check *c)
{
	u32 len = sizeof(*c);
	int r;

	memset(c, 0, sizeof(*c));
	r = kpop_ctl(t->vm->fd, KVM_KPOP_OP_CHECK, 0, c, &len);
	if (r && errno == EOPNOTSUPP)
		kst_skip("this kernel has no checker (CONFIG_KVM_PROVE_MMU)");
	TEST_ASSERT(!r, KVM_IOCTL_ERROR(KVM_KPOP, r));
}

static void plant(struct tvm *t, u32 what)
{
	int r = kpop_ctl(t->vm->fd, KVM_KPOP_OP_PLANT, what, NULL, NULL);

	TEST_ASSERT(!r, KVM_IOCTL_ERROR(KVM_KPOP, r));
}

static void finds(struct tvm *t, u32 what, u32 kind, const char *name)
{
	struct kvm_kpop_check c;

	plant(t, what);
	check(t, &c);
	kst_check(c.wrong && c.what == kind, "%s: %llu wrong, the first of kind %u (want %u), L2 gfn 0x%llx",
		  name, c.wrong, c.what, kind, c.l2_gfn);
	plant(t, what);
	check(t, &c);
	kst_check(!c.wrong, "%s, mended: %llu wrong", name, c.wrong);
}

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	struct kvm_kpop_check c;

	check(t, &c);
	kst_check(!c.wrong && c.leafs >= PAGES && c.runs >= PAGES,
		  "%llu leafs and %llu runs, %llu wrong", c.leafs, c.runs, c.wrong);
	finds(t, KPOP_PLANT_LEAF, KPOP_WRONG_PFN, "a leaf to another host page");
	finds(t, KPOP_PLANT_RMAP, KPOP_WRONG_RMAP, "a run that is not in the reverse map");
}

int main(int argc, char **argv)
{
	struct tvm_opts o = { .guest = { l1_main }, .nr_l2 = 1, .sync = on_sync };
	struct policy p;
	struct tvm *t;

	kst_begin("kpop_check_test", 60);
	t = tvm_create(&o);
	policy_serve(&p, "kpop_base", t);
	tvm_run(t);
	policy_stop(&p, t);
	tvm_free(t);
	return kst_end();
}
