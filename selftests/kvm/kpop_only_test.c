// SPDX-License-Identifier: GPL-2.0
/*
 * kpop-only: L0 runs an L2 of this VM on KPOP or not at all.  A legacy table, an
 * unknown token and no nested paging are refused at the entry; without a policy
 * L2 waits, and goes on with the next one; switched off, all is as before.
 */
#include "kpop_test.h"
#include "svm_util.h"
#include "vmx.h"

#define KVM_ID	21
#define TOKEN	token_of(0)

enum { L2_KPOP, L2_LEGACY, L2_PLAIN, NR_L2 };
enum { STAGE_ON, STAGE_SERVE, STAGE_OFF };
enum { PH_COUNTS, PH_REFUSED, PH_SERVED, PH_DONE };

/* Without nested paging L2 has L1's physical memory. */
static u64 gva_of(int who)
{
	return who == L2_PLAIN ? POOL_GPA : l2_gva(0);
}

static u64 try(struct l1_shared *sh, int who)
{
	return l2_call(sh->l2[who], l2_read, gva_of(who), 0);
}

/* Neither leaves anything of L2 running, however often L1 asks. */
static void check_refused(struct l1_shared *sh, const char *when)
{
	u64 i, wrong = 0;

	for (i = 0; i < 200; i++)
		wrong += try(sh, i & 1 ? L2_LEGACY : L2_PLAIN) != L2_EXIT_REFUSED;
	GUEST_PRINTF("# %s\n", when);
	G_EXPECT(wrong, 0, "of 200 entries with a legacy table or none, those not refused");
}

/* What L1 wanted to inject is L1's still, so that it can come again. */
static void check_event_kept(struct l2 *l2)
{
	static const u32 event = 0x80000030;	/* external interrupt 0x30 */
	struct vmcb_control_area *c;

	if (host_cpu_is_intel) {
		l2_call(l2, l2_read, l2_gva(0), 0);
		vmwrite(VM_ENTRY_INTR_INFO_FIELD, event);
		G_EXPECT(l2_resume(l2), L2_EXIT_REFUSED, "an entry that injects");
		G_EXPECT(vmreadz(VM_ENTRY_INTR_INFO_FIELD), event, "the event is L1's still");
		vmwrite(VM_ENTRY_INTR_INFO_FIELD, 0);
		return;
	}
	c = &((struct svm_test_data *)l2->arch)->vmcb->control;
	c->exit_int_info = 0;
	c->event_inj = event;
	G_EXPECT(l2_resume(l2), L2_EXIT_REFUSED, "an entry that injects");
	G_EXPECT(c->exit_int_info, event, "the event is handed back");
	c->event_inj = 0;
}

static void test_no_policy(struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[L2_KPOP];

	check_refused(sh, "kpop-only, no policy");
	check_event_kept(sh->l2[L2_LEGACY]);
	G_EXPECT(kpop_query(KPOP_QUERY_VERSION), KPOP_ABI_VERSION, "QUERY is answered");
	G_CHECK(kpop_query(KPOP_QUERY_FEATURES) & KPOP_FEATURE_ONLY, "and says kpop-only");
	G_EXPECT(kpop_load(TOKEN, l2->holder, KVM_ID, 0), -ENOLINK, "LOAD");
	G_EXPECT(kpop_map_once(TOKEN, KPOP_MAP_RWX, 0, 0, 1), -ENOLINK, "MAP");
	G_EXPECT(kpop_unmap(KVM_ID, 0, 1), -ENOLINK, "UNMAP");
	G_EXPECT(kpop_unload_root(TOKEN, KVM_ID, 0), -ENOLINK, "UNLOAD");
	l2_setup(l2, TOKEN);
	G_EXPECT(try(sh, L2_KPOP), L2_EXIT_REFUSED, "a token that L0 does not know");
}

static void test_policy(struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[L2_KPOP];

	G_EXPECT(try(sh, L2_KPOP), L2_EXIT_REFUSED, "a policy, but no LOAD");
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1);
	G_CHECK(l2_reads(l2, l2_gva(0), 0x600d), "L2 runs on KPOP");
	check_refused(sh, "kpop-only, a policy");
	G_CHECK(l2_reads(l2, l2_gva(0), 0x600d), "and beside those that are refused");
	l2_set_root(l2, token_of(1));
	G_EXPECT(try(sh, L2_KPOP), L2_EXIT_REFUSED, "under another token it is refused");
	l2_set_root(l2, TOKEN);
	G_EXPECT(kpop_unload_holder(TOKEN, l2->holder, KVM_ID, 0), 0, "UNLOAD of the holder");
	G_EXPECT(try(sh, L2_KPOP), L2_EXIT_REFUSED, "then it is refused");
	G_EXPECT(kpop_load(TOKEN, l2->holder, KVM_ID, 0), 0, "LOAD");
	G_CHECK(l2_reads(l2, l2_gva(0), 0x600d), "runs again");
}

static void wait_for_policy(struct l2 *l2, struct l1_shared *sh)
{
	long r;

	sh->phase[PH_REFUSED] = 1;
	spin_until((r = kpop_load(TOKEN, l2->holder, KVM_ID, 0)) != -ENOLINK);
	G_EXPECT(r, 0, "LOAD once there is a policy");
	sh->phase[PH_SERVED] = 1;
}

/* -ENOLINK or -EAGAIN: come again, the entry says what is to be done. */
static void serve_fault(struct l2 *l2)
{
	u64 gfn = l2->exit.gpa / KST_PAGE;
	long r = kpop_map_once(TOKEN, KPOP_MAP_RWX, gfn,
			       gfn < SLOT0_PAGES ? gfn : pool_gfn(gfn - l2_gfn(0)), 1);

	__GUEST_ASSERT(r > 0 || r == -EAGAIN || r == -ENOLINK, "MAP of L2 gfn 0x%lx: %ld",
		       gfn, r);
}

/* The policy goes and another one comes, while L2 counts. */
static void test_policy_lost(struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[L2_KPOP];
	u64 r;

	*pool_ptr(0) = 0;
	sh->phase[PH_COUNTS] = 1;
	r = l2_call(l2, l2_count, l2_gva(0), (u64)&sh->stop);
	/* What L1's KVM does: keep what L2 has, come again. */
	while (r == L2_EXIT_FAULT || r == L2_EXIT_REFUSED) {
		if (r == L2_EXIT_FAULT)
			serve_fault(l2);
		else
			wait_for_policy(l2, sh);
		r = l2_resume(l2);
	}
	G_EXPECT(r, L2_EXIT_CALL, "L2 came to its end");
	G_EXPECT(sh->phase[PH_SERVED], 1, "over a time without a policy");
	G_CHECK(l2->ret && *pool_ptr(0) == l2->ret, "it counted to %lu, memory says %lu",
		l2->ret, *pool_ptr(0));
}

/* Switched on while a legacy L2 runs, which makes no exit of its own, or is restored. */
static void test_switched_on(struct l1_shared *sh, u64 phase)
{
	struct l2 *l2 = sh->l2[L2_LEGACY];
	u64 r;

	*pool_ptr(0) = 0;
	sh->stop = 0;
	sh->phase[PH_COUNTS] = phase;
	r = l2_call(l2, l2_count, l2_gva(0), (u64)&sh->stop);
	G_EXPECT(r, L2_EXIT_FAULT, "the legacy L2 is stopped by a fault");
	G_EXPECT(l2_resume(l2), L2_EXIT_REFUSED, "and does not get in again");
	sh->phase[PH_REFUSED] = phase;
	G_CHECK(spin_until((r = l2_resume(l2)) != L2_EXIT_REFUSED),
		"until kpop-only is off");
	G_EXPECT(r, L2_EXIT_CALL, "then it goes on to its end");
	G_CHECK(l2->ret && *pool_ptr(0) == l2->ret, "it counted to %lu, memory says %lu",
		l2->ret, *pool_ptr(0));
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	int who;

	*pool_ptr(0) = 0x600d;
	l1_virt_on(sh->l2[0]);
	l2_setup(sh->l2[L2_LEGACY], sh->legacy_root);
	l2_setup(sh->l2[L2_PLAIN], 0);
	for (who = L2_LEGACY; who < NR_L2; who++)
		G_CHECK(l2_reads(sh->l2[who], gva_of(who), 0x600d), "before: L2 %d runs", who);
	GUEST_SYNC1(STAGE_ON);
	test_no_policy(sh);
	GUEST_SYNC1(STAGE_SERVE);
	test_policy(sh);
	test_policy_lost(sh);
	*pool_ptr(0) = 0x600d;
	GUEST_SYNC1(STAGE_OFF);
	for (who = L2_LEGACY; who < NR_L2; who++)
		G_CHECK(l2_reads(sh->l2[who], gva_of(who), 0x600d), "off: L2 %d runs", who);
	G_CHECK(!(kpop_query(KPOP_QUERY_FEATURES) & KPOP_FEATURE_ONLY), "QUERY says so");
	test_switched_on(sh, 2);
	test_switched_on(sh, 3);
	GUEST_DONE();
}

/* ---- host ---- */

static struct policy policy;
static u64 misses;

static bool is_only(int vm_fd)
{
	struct kvm_kpop_info info = {};
	u32 len = sizeof(info);

	TEST_ASSERT(!kpop_ctl(vm_fd, KVM_KPOP_OP_INFO, 0, &info, &len), "info");
	return info.kpop_only;
}

/* L0 has made no shadow page since kpop-only is on. */
static void check_no_shadow(struct tvm *t, const char *when)
{
	u64 now = vm_get_stat(t->vm, "mmu_cache_miss");

	kst_check(now == misses, "%s: %" PRIu64 " shadow pages more", when, now - misses);
}

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	switch (args[0]) {
	case STAGE_ON:
		misses = vm_get_stat(t->vm, "mmu_cache_miss");
		kst_check(misses > 0, "legacy took %" PRIu64 " shadow pages", misses);
		kpop_set_only(t->vm->fd, 1);
		kst_check(vm_get_stat(t->vm, "mmu_shadow_zapped") >= misses,
			  "all of them are freed (%" PRIu64 ")",
			  vm_get_stat(t->vm, "mmu_shadow_zapped"));
		break;
	case STAGE_SERVE:
		check_no_shadow(t, "no policy");
		policy_serve(&policy, "kpop_base", t);
		kst_check(is_only(t->vm->fd), "kpop-only outlives the attach");
		break;
	case STAGE_OFF:
		check_no_shadow(t, "in all that time");
		kpop_set_only(t->vm->fd, 0);
		break;
	}
}

static bool counts(struct tvm *t, u64 phase)
{
	volatile u64 *p = tvm_pool(t, 0);
	u64 v;

	if (!kst_wait(t->sh->phase[PH_COUNTS] == phase, 120000))
		return false;
	v = *p;
	return kst_wait(*p != v, 60000);
}

static void policy_comes_and_goes(struct tvm *t)
{
	kst_check(counts(t, 1), "L2 counts on KPOP");
	policy_stop(&policy, t);
	kst_check(is_only(t->vm->fd), "kpop-only outlives the detach");
	kst_check(kst_wait(t->sh->phase[PH_REFUSED] == 1, 60000), "L2 does not run");
	policy_serve(&policy, "kpop_lazy", t);
	kst_check(kst_wait(t->sh->phase[PH_SERVED] == 1, 60000), "another policy comes");
	kst_check(counts(t, 1), "L2 counts on");
	t->sh->stop = 1;
}

static void switch_off(struct tvm *t, u64 phase)
{
	kpop_set_only(t->vm->fd, 0);
	kst_check(counts(t, phase), "it counts on when kpop-only is off");
	t->sh->stop = 1;
}

/* An L2 in the middle of a legacy table, that user space puts back into a VM that is kpop-only. */
static void restore_under_legacy(struct tvm *t)
{
	struct kvm_x86_state *state;
	volatile u64 *p = tvm_pool(t, 0);
	u64 v;

	/* It counts in L2, and leaves that only for L0's interrupts. */
	kst_check(counts(t, 3), "L2 counts on a legacy table");
	tvm_pause(t);
	state = vcpu_save_state(t->vcpus[0]);
	kst_check(state->nested.flags & KVM_STATE_NESTED_GUEST_MODE, "its vCPU is saved in L2");
	kpop_set_only(t->vm->fd, 1);
	misses = vm_get_stat(t->vm, "mmu_cache_miss");
	/* The MSRs are what they were, and Bochs's VMX refuses some of its own. */
	vcpu_sregs_set(t->vcpus[0], &state->sregs);
	vcpu_regs_set(t->vcpus[0], &state->regs);
	vcpu_nested_state_set(t->vcpus[0], &state->nested);
	kvm_x86_state_cleanup(state);
	v = *p;
	tvm_resume(t);
	kst_check(kst_wait(t->sh->phase[PH_REFUSED] == 3, 60000), "restored, it is stopped");
	kst_check(*p == v, "before it counts: %" PRIu64 ", %" PRIu64, v, *p);
	check_no_shadow(t, "restored");
	switch_off(t, 3);
}

static void switch_on_under_legacy(struct tvm *t)
{
	volatile u64 *p = tvm_pool(t, 0);
	u64 v;

	kst_check(counts(t, 2), "L2 counts on a legacy table");
	kpop_set_only(t->vm->fd, 1);
	v = *p;
	usleep(20000);
	kst_check(*p == v, "it stands when the switch is turned: %" PRIu64 ", %" PRIu64, v, *p);
	kst_check(kst_wait(t->sh->phase[PH_REFUSED] == 2, 60000), "L1 hears of it");
	switch_off(t, 2);
}

static void test_settable(void)
{
	struct kvm_vm *vm = vm_create_barebones();
	int r;

	kst_check(!is_only(vm->fd), "off in a new VM");
	kpop_set_only(vm->fd, 1);
	kst_check(is_only(vm->fd), "may be switched on before there is a vCPU");
	r = kpop_ctl(vm->fd, KVM_KPOP_OP_SET_ONLY, 2, NULL, NULL);
	kst_check(r && errno == EINVAL, "2 is refused: %s", strerror(errno));
	kst_check(is_only(vm->fd), "and changes nothing");
	kvm_vm_free(vm);
}

int main(int argc, char **argv)
{
	struct tvm_opts o = { .guest = { l1_main }, .nr_l2 = NR_L2, .sync = on_sync };
	struct kvm_kpop_info info;
	struct tvm *t;

	kst_begin("kpop_only_test", 400);
	t = tvm_create(&o);
	kpop_info(t, &info);
	test_settable();
	t->sh->legacy_root = table_legacy(t, 4);
	tvm_start(t);
	policy_comes_and_goes(t);
	switch_on_under_legacy(t);
	restore_under_legacy(t);
	tvm_join(t);
	kst_check(vm_get_stat(t->vm, "kpop_refused") >= 400, "%" PRIu64 " entries were refused",
		  vm_get_stat(t->vm, "kpop_refused"));
	policy_stop(&policy, t);
	tvm_free(t);
	return kst_end();
}
