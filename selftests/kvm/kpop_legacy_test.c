// SPDX-License-Identifier: GPL-2.0
/*
 * Nothing about a VM changes without a policy (contract 1): an L2 on a legacy
 * table works, by the same steps as the other tests, and hypercalls say ENOSYS.
 * With a policy attached, or on a kernel without KPOP, the legacy L2 is the same.
 */
#include "kpop_test.h"

enum { STAGE_ATTACH };
enum { PH_READY, PH_DONE };
enum { V_ATTACHED };

static void test_legacy(struct l2 *l2, u64 root)
{
	u64 i;

	l2_set_root(l2, root);
	for (i = 0; i < 4; i++) {
		*pool_ptr(i) = 0x900 + i;
		G_CHECK(l2_reads(l2, l2_gva(i), 0x900 + i), "L2 reads page %lu", i);
	}
	l2_call(l2, l2_write, l2_gva(1), 0x77);
	G_EXPECT(*pool_ptr(1), 0x77, "L1 sees what L2 wrote");
	G_CHECK(l2_faults_at(l2, l2_read, l2_gva(9), 0, KPOP_MAP_R, false),
		"a read of nothing reaches L1");
	G_CHECK(l2_faults_at(l2, l2_write, l2_gva(9) + 0x10, 0, KPOP_MAP_W, false),
		"a write to nothing reaches L1");
	G_CHECK(l2_faults_at(l2, l2_exec, l2_gva(9), 0, KPOP_MAP_X, false),
		"a fetch of nothing reaches L1");
	l2_set_root(l2, token_of(0));
	G_EXPECT(l2_call(l2, l2_read, l2_gva(0), 0), L2_EXIT_FAULT,
		 "a root page of zeroes is an empty table");
	l2_set_root(l2, root);
	G_EXPECT(l2_call(l2, l2_read, l2_gva(0), 0), L2_EXIT_CALL, "and back");
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];

	l1_virt_on(l2);
	G_EXPECT(kpop_query(KPOP_QUERY_VERSION), -KVM_ENOSYS, "QUERY without a policy");
	l2_setup(l2, sh->legacy_root);
	test_legacy(l2, sh->legacy_root);
	GUEST_SYNC1(STAGE_ATTACH);
	if (sh->val[V_ATTACHED])
		test_legacy(l2, sh->legacy_root);
	sh->phase[PH_READY] = 1;
	G_CHECK(spin_until(*pool_ptr(2) > 0x10000), "vCPU 1 counts from L2");
	sh->stop = 1;
	G_CHECK(spin_until(sh->phase[PH_DONE]), "and stops");
	GUEST_DONE();
}

static void l1_second(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[1];

	GUEST_ASSERT(spin_until(sh->phase[PH_READY]));
	l1_virt_on(l2);
	l2_setup(l2, sh->legacy_root);
	GUEST_ASSERT_EQ(l2_call(l2, l2_count, l2_gva(2), (u64)&sh->stop), L2_EXIT_CALL);
	sh->phase[PH_DONE] = 1;
	GUEST_DONE();
}

static struct policy policy;

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	if (kpop_ctl(t->vm->fd, KVM_KPOP_OP_INFO, 0, NULL, NULL)) {
		printf("skip - the same with a policy: this kernel has no KPOP\n");
		return;
	}
	policy_serve(&policy, "kpop_base", t);
	t->sh->val[V_ATTACHED] = 1;
}

int main(int argc, char **argv)
{
	struct tvm_opts o = {
		.guest = { l1_main, l1_second },
		.nr_l2 = 2,
		.sync = on_sync,
	};
	struct kvm_kpop_info info;
	struct tvm *t;

	kst_begin("kpop_legacy_test", 180);
	t = tvm_create(&o);
	t->sh->legacy_root = table_legacy(t, 4);
	tvm_run(t);
	if (t->sh->val[V_ATTACHED]) {
		kpop_info(t, &info);
		kst_check(!info.nr_spaces && !info.faults_direct && !info.faults_reflected,
			  "the policy had nothing to do");
		policy_stop(&policy, t);
	}
	tvm_free(t);
	return kst_end();
}
