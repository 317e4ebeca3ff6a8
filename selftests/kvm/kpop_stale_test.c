// SPDX-License-Identifier: GPL-2.0
/*
 * Stale tokens (4a.5): all KPOP state goes with the last vCPU that leaves
 * SVM or VMX operation, by whatever way; a space goes with a write to its token
 * page; what comes after it inherits nothing.
 */
#include "kpop_test.h"
#include "apic.h"

#define KVM_ID	11

enum { STAGE_EXPECT, STAGE_EFER };
enum { PH_CPU1_ON, PH_CPU1_OFF, PH_CPU1_LOAD, PH_INIT };

/* The host looks at what L0 says. */
#define EXPECT_SPACES(n, what) GUEST_SYNC3(STAGE_EXPECT, n, (u64)(what))

static void load_and_map(struct l2 *l2, u64 token)
{
	l2_on_kpop(l2, token, KVM_ID, 0);
	GUEST_ASSERT(kpop_map(token, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1) == 1);
	GUEST_ASSERT(l2_call(l2, l2_read, l2_gva(0), 0) == L2_EXIT_CALL);
}

static bool empty(struct l2 *l2)
{
	return l2_call(l2, l2_read, l2_gva(0), 0) == L2_EXIT_FAULT;
}

static void test_leave(struct l2 *l2)
{
	load_and_map(l2, token_of(0));
	EXPECT_SPACES(1, "LOAD");
	l1_virt_off();
	EXPECT_SPACES(0, "the only vCPU left SVM/VMX operation");
	l1_virt_on(l2);
	G_CHECK(empty(l2), "L2 on the old token has nothing");
	G_EXPECT(kpop_map_once(token_of(0), KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1), -ENOENT,
		 "MAP to the old token");
	load_and_map(l2, token_of(0));
	EXPECT_SPACES(1, "LOAD again");
	G_EXPECT(kpop_query(KPOP_QUERY_RESET), 0, "RESET");
	EXPECT_SPACES(0, "RESET");
	G_CHECK(empty(l2), "L2 has nothing after it");
}

static void test_token_write(struct l2 *l2)
{
	volatile u64 *page = (void *)token_of(1);

	load_and_map(l2, token_of(1));
	EXPECT_SPACES(1, "LOAD");
	page[17] = 0x1234;
	EXPECT_SPACES(0, "L1 wrote to the token page");
	G_EXPECT(page[17], 0x1234, "the write is there");
	G_EXPECT(kpop_map_once(token_of(1), KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1), -ENOENT,
		 "MAP to that token");
	G_CHECK(empty(l2), "L2 on it has nothing");
	G_EXPECT(kpop_load(token_of(1), l2->holder, KVM_ID, 0), -EBUSY,
		 "LOAD of a page that is not zero");
	page[17] = 0;
	load_and_map(l2, token_of(1));
	G_CHECK(l2_call(l2, l2_read, l2_gva(0), 0) == L2_EXIT_CALL, "zero again, LOAD works");
	G_EXPECT(page[17], 0, "reading the token page is harmless");
	EXPECT_SPACES(1, "a read of the token page");
	kpop_unload_root(token_of(1), KVM_ID, 0);
	EXPECT_SPACES(0, "UNLOAD");
	/* The page is L1's to use again. */
	page[3] = 1;
	G_EXPECT(page[3], 1, "after UNLOAD the page is an ordinary one");
	page[3] = 0;
}

static void test_reuse(struct l2 *l2)
{
	load_and_map(l2, token_of(2));
	*pool_ptr(0) = 0x5ec;
	kpop_unload_root(token_of(2), KVM_ID, 0);
	l2_on_kpop(l2, token_of(3), KVM_ID, 0);
	G_CHECK(l2_faults_at(l2, l2_read, l2_gva(0), 0, KPOP_MAP_R, false),
		"a kvm_id used again inherits nothing");
	kpop_unload_root(token_of(3), KVM_ID, 0);
	l2_on_kpop(l2, token_of(2), KVM_ID + 1, 0);
	G_CHECK(l2_faults_at(l2, l2_read, l2_gva(0), 0, KPOP_MAP_R, false),
		"nor does a token used again");
	G_EXPECT(kpop_unmap(KVM_ID, l2_gfn(0), 1), 1, "UNMAP of the old kvm_id is harmless");
	kpop_unload_root(token_of(2), KVM_ID + 1, 0);
	EXPECT_SPACES(0, "UNLOAD");
}

static void test_two_vcpus(struct l2 *l2, struct l1_shared *sh)
{
	sh->phase[PH_CPU1_ON] = 1;
	GUEST_ASSERT(spin_until(sh->phase[PH_CPU1_ON] == 2));
	load_and_map(l2, token_of(4));
	l1_virt_off();
	EXPECT_SPACES(1, "one of two vCPUs left");
	sh->phase[PH_CPU1_OFF] = 1;
	GUEST_ASSERT(spin_until(sh->phase[PH_CPU1_OFF] == 2));
	EXPECT_SPACES(0, "the last one left");
}

/* An INIT resets vCPU 1, the only one in SVM/VMX operation. */
static void test_init(struct l1_shared *sh)
{
	if (host_cpu_is_intel) {
		GUEST_PRINTF("skip - INIT: blocked in VMX operation\n");
		return;
	}
	sh->phase[PH_CPU1_LOAD] = 1;
	GUEST_ASSERT(spin_until(sh->phase[PH_CPU1_LOAD] == 2));
	EXPECT_SPACES(1, "LOAD by vCPU 1");
	x2apic_enable();
	x2apic_write_reg(APIC_ICR, 1ULL << 32 | APIC_DM_INIT | APIC_INT_ASSERT);
	EXPECT_SPACES(0, "INIT of vCPU 1");
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];

	l1_virt_on(l2);
	test_leave(l2);
	test_token_write(l2);
	test_reuse(l2);
	load_and_map(l2, token_of(5));
	if (!host_cpu_is_intel) {
		GUEST_SYNC1(STAGE_EFER);
		EXPECT_SPACES(0, "the VMM cleared EFER.SVME, as at a reset");
		l1_virt_on(l2);
		load_and_map(l2, token_of(5));
	}
	kpop_unload_root(token_of(5), KVM_ID, 0);
	test_two_vcpus(l2, sh);
	test_init(sh);
	GUEST_DONE();
}

static void l1_second(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[1];

	GUEST_ASSERT(spin_until(sh->phase[PH_CPU1_ON] == 1));
	l1_virt_on(l2);
	sh->phase[PH_CPU1_ON] = 2;
	GUEST_ASSERT(spin_until(sh->phase[PH_CPU1_OFF] == 1));
	l1_virt_off();
	sh->phase[PH_CPU1_OFF] = 2;
	if (host_cpu_is_intel)
		GUEST_DONE();
	GUEST_ASSERT(spin_until(sh->phase[PH_CPU1_LOAD] == 1));
	l1_virt_on(l2);
	x2apic_enable();
	load_and_map(l2, token_of(6));
	sh->phase[PH_CPU1_LOAD] = 2;
	for (;;)
		asm volatile("pause");
}

static void clear_svme(struct tvm *t, int cpu)
{
	struct kvm_sregs sregs;

	vcpu_sregs_get(t->vcpus[cpu], &sregs);
	sregs.efer &= ~EFER_SVME;
	vcpu_sregs_set(t->vcpus[cpu], &sregs);
}

static u32 nr_spaces(struct tvm *t, struct kvm_kpop_info *info)
{
	kpop_info(t, info);
	return info->nr_spaces;
}

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	struct kvm_kpop_info info;
	const char *what;

	if (args[0] == STAGE_EFER) {
		clear_svme(t, cpu);
		return;
	}
	what = addr_gva2hva(t->vm, args[2]);
	/* An INIT is taken by another thread; all else is done when it returns. */
	kst_check(kst_wait(nr_spaces(t, &info) == args[1], strstr(what, "INIT") ? 20000 : 0),
		  "%s: %u spaces", what, info.nr_spaces);
	if (!args[1])
		kst_check(kpop_none_left(t, &info),
			  "%s: nothing is left (%llu bytes)", what, info.bytes);
}

int main(int argc, char **argv)
{
	struct tvm_opts o = {
		.guest = { l1_main, l1_second },
		.nr_l2 = 2,
		.sync = on_sync,
	};
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;

	kst_begin("kpop_stale_test", 240);
	t = tvm_create(&o);
	kpop_info(t, &info);
	policy_serve(&p, "kpop_base", t);
	tvm_start(t);
	pthread_join(t->thread[0], NULL);
	/* vCPU 1 waits for a SIPI for ever: its thread ends with the process. */
	return kst_end();
}
