// SPDX-License-Identifier: GPL-2.0
/*
 * kpop-only, and an SMI that comes while L2 runs.  RSM takes the vCPU back into
 * L2 without a VMRUN or VMRESUME that could be refused: to what L1's SMI handler
 * made of vmcb12 and of SMRAM meanwhile, or after the policy went or the switch
 * was turned.  Then L2 gets no page, each access is L1's fault, and the next
 * entry is refused; an L2 without nested paging has no way back at all.
 *
 * With SVM, RSM may also end it, by the EFER that the handler left in SMRAM: then
 * what L1 has loaded is void.
 *
 * The handler writes to a port and executes RSM.  What it does to L1's memory
 * the VMM does, at that port.
 *
 *   only=0   the VM is not kpop-only: must fail
 */
#include "kpop_test.h"
#include "svm_util.h"

#define KVM_ID		23
#define TOKEN		token_of(0)
#define VALUE		0x5311ULL

#define PORT_L2		0x98
#define PORT_SMM	0x9a

/* SMRAM is memory of SMM alone: slot 1 of address space 1. */
#define SMRAM_GPA	0x30000000ULL
#define SMRAM_SLOT	(1U << 16 | 1)
#define SMRAM_PAGES	16
#define SMI_ENTRY	0x8000
#define SMRAM_EFER	0xfed0		/* by KVM's 64-bit layout, as is ... */
#define SMRAM_VMCB	0xfee0		/* ... the GPA of vmcb12 */

enum { L2_KPOP, L2_OTHER, L2_LEGACY, L2_PLAIN, NR_L2 };
/* What happens in SMM; TO_* by L1's handler, SVM only: a vmcs12 is L0's until VMCLEAR. */
enum smi_what { NOTHING, POLICY_GOES, SWITCHED_ON, TO_LEGACY, TO_UNKNOWN, TO_OTHER, TO_PLAIN, NO_SVM };
enum { STAGE_SERVE, STAGE_NO_SHADOW, STAGE_OFF, STAGE_SPACES };
enum { P_PLAIN };
enum { V_WHAT, V_SMIS };

/* ---- L1 ---- */

/* An SMI between two reads; L1 sees no exit. */
static u64 l2_smi(u64 gva, u64 unused)
{
	u64 first = READ_ONCE(*(u64 *)gva);

	asm volatile("outb %%al, %0" : : "i"(PORT_L2), "a"(0) : "memory");
	return first + READ_ONCE(*(u64 *)gva);
}

static u64 run_to_smi(struct l1_shared *sh, struct l2 *l2, enum smi_what what)
{
	u64 smis = sh->val[V_SMIS], r;

	sh->val[V_WHAT] = what;
	r = l2_call(l2, l2_smi, l2->root ? l2_gva(0) : POOL_GPA, 0);
	G_EXPECT(sh->val[V_SMIS], smis + 1, "SMIs in L2");
	return r;
}

/* RSM ended in L2, but with nothing to run on. */
static void check_out(struct l2 *l2, u64 r, const char *what)
{
	GUEST_PRINTF("# %s\n", what);
	G_EXPECT(r, L2_EXIT_FAULT, "RSM, and the first access of L2 is L1's fault");
	G_EXPECT(l2->ret, 0, "L2 did not go on");
	G_EXPECT(l2_resume(l2), L2_EXIT_REFUSED, "the next entry");
	GUEST_SYNC1(STAGE_NO_SHADOW);
}

static void check_in(struct l2 *l2, u64 r)
{
	G_CHECK(r == L2_EXIT_CALL && l2->ret == 2 * VALUE,
		"L2 goes on where it was: exit %lu, 0x%lx", r, l2->ret);
}

static void test_policy_goes(struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[L2_KPOP];

	check_out(l2, run_to_smi(sh, l2, POLICY_GOES), "the policy goes in SMM");
	GUEST_SYNC1(STAGE_SERVE);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1);
	check_in(l2, l2_resume(l2));
}

/* nCR3 of vmcb12 is another one when RSM reads it. */
static void test_other_root(struct l1_shared *sh, enum smi_what what, u64 root, const char *name)
{
	struct l2 *l2 = sh->l2[L2_KPOP];
	u64 r = run_to_smi(sh, l2, what);

	l2_set_root(l2, root);
	check_out(l2, r, name);
	l2_set_root(l2, TOKEN);
	check_in(l2, l2_resume(l2));
}

/* SMRAM names a vmcb12 that has the token, too, but was not bound to it. */
static void test_other_holder(struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[L2_KPOP], *other = sh->l2[L2_OTHER];
	struct vmcb_control_area *c = &((struct svm_test_data *)other->arch)->vmcb->control;

	l2_setup(other, TOKEN);
	G_EXPECT(l2_call(other, l2_read, l2_gva(0), 0), L2_EXIT_REFUSED, "a holder without LOAD");
	run_to_smi(sh, l2, TO_OTHER);
	GUEST_PRINTF("# SMRAM names another vmcb12\n");
	G_EXPECT(c->exit_code, SVM_EXIT_NPF, "RSM, and what that vmcb12 says");
	G_EXPECT(l2->ret, 0, "L2 did not go on");
	GUEST_SYNC1(STAGE_NO_SHADOW);
	/* Its own vmcb12 is as the SMI left it. */
	check_in(l2, l2_resume(l2));
}

static void test_switched_on(struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[L2_LEGACY];

	GUEST_SYNC1(STAGE_OFF);
	l2_setup(l2, sh->legacy_root);
	check_in(l2, run_to_smi(sh, l2, NOTHING));
	check_out(l2, run_to_smi(sh, l2, SWITCHED_ON), "kpop-only is switched on in SMM");
	GUEST_SYNC1(STAGE_OFF);
	check_in(l2, l2_resume(l2));
}

#define EXPECT_SPACES(n, what) GUEST_SYNC3(STAGE_SPACES, n, (u64)(what))

/* An SMI in L1.  In SMM there is no SVM anyway: nobody sees SVME change. */
static void test_no_svm(struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[L2_KPOP];

	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	EXPECT_SPACES(1, "LOAD");
	sh->val[V_WHAT] = NOTHING;
	asm volatile("outb %%al, %0" : : "i"(PORT_L2), "a"(0) : "memory");
	EXPECT_SPACES(1, "an SMI in L1");
	sh->val[V_WHAT] = NO_SVM;
	asm volatile("outb %%al, %0" : : "i"(PORT_L2), "a"(0) : "memory");
	G_CHECK(!(rdmsr(MSR_EFER) & EFER_SVME), "RSM ended SVM");
	EXPECT_SPACES(0, "and with it what L1 had loaded");
	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	EXPECT_SPACES(1, "SVM again, and LOAD");
	l1_virt_off();
	EXPECT_SPACES(0, "the only vCPU left SVM");
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[L2_KPOP];

	*pool_ptr(0) = VALUE;
	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1);
	check_in(l2, run_to_smi(sh, l2, NOTHING));
	GUEST_SYNC1(STAGE_NO_SHADOW);
	test_policy_goes(sh);
	if (!host_cpu_is_intel) {
		test_other_root(sh, TO_LEGACY, sh->legacy_root,
				"the handler puts a legacy table into nCR3");
		test_other_root(sh, TO_UNKNOWN, token_of(1), "a token that was not loaded");
		test_other_holder(sh);
	}
	test_switched_on(sh);
	if (!host_cpu_is_intel)
		test_no_svm(sh);
	GUEST_DONE();
}

/* No way back: RSM shuts L1 down. */
static void l1_no_way(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[sh->param[P_PLAIN] ? L2_PLAIN : L2_KPOP];

	*pool_ptr(0) = VALUE;
	l1_virt_on(l2);
	if (sh->param[P_PLAIN]) {
		l2_setup(l2, 0);
		check_in(l2, run_to_smi(sh, l2, NOTHING));
		run_to_smi(sh, l2, SWITCHED_ON);
	} else {
		l2_on_kpop(l2, TOKEN, KVM_ID, 0);
		kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1);
		run_to_smi(sh, l2, TO_PLAIN);
	}
	G_CHECK(false, "L1 goes on");
	GUEST_DONE();
}

/* ---- the VMM ---- */

static struct policy policy;
static u64 misses;
static bool shut_down;
static u64 only;

static struct vmcb *vmcb_of(struct tvm *t, int who)
{
	return tvm_gpa(t, tvm_l2(t, who)->holder);
}

static void in_smm(struct tvm *t)
{
	t->sh->val[V_SMIS]++;
	switch (t->sh->val[V_WHAT]) {
	case POLICY_GOES:
		policy_stop(&policy, t);
		break;
	case SWITCHED_ON:
		kpop_set_only(t->vm->fd, only);
		break;
	case TO_LEGACY:
		vmcb_of(t, L2_KPOP)->control.nested_cr3 = t->sh->legacy_root;
		break;
	case TO_UNKNOWN:
		vmcb_of(t, L2_KPOP)->control.nested_cr3 = token_of(1);
		break;
	case TO_OTHER:
		*(u64 *)(memslot2region(t->vm, SMRAM_SLOT)->host_mem + SMRAM_VMCB) =
			tvm_l2(t, L2_OTHER)->holder;
		break;
	case NO_SVM:
		*(u64 *)(memslot2region(t->vm, SMRAM_SLOT)->host_mem + SMRAM_EFER) &= ~EFER_SVME;
		break;
	case TO_PLAIN:
		vmcb_of(t, L2_KPOP)->control.nested_ctl = 0;
		break;
	}
	misses = vm_get_stat(t->vm, "mmu_cache_miss");
}

static bool on_exit_of(struct tvm *t, int cpu)
{
	struct kvm_run *run = t->vcpus[cpu]->run;

	if (run->exit_reason == KVM_EXIT_SHUTDOWN) {
		shut_down = t->dying = true;
		return true;
	}
	if (run->exit_reason != KVM_EXIT_IO)
		return false;
	if (run->io.port == PORT_L2)
		vcpu_ioctl(t->vcpus[cpu], KVM_SMI, NULL);
	else if (run->io.port == PORT_SMM)
		in_smm(t);
	else
		return false;
	return true;
}

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	struct kvm_kpop_info info;
	u64 now;

	switch (args[0]) {
	case STAGE_SERVE:
		policy_serve(&policy, "kpop_base", t);
		break;
	case STAGE_NO_SHADOW:
		now = vm_get_stat(t->vm, "mmu_cache_miss");
		kst_check(now == misses, "since SMM: %" PRIu64 " shadow pages", now - misses);
		break;
	case STAGE_OFF:
		kpop_set_only(t->vm->fd, 0);
		break;
	case STAGE_SPACES:
		kpop_info(t, &info);
		kst_check(info.nr_spaces == args[1], "%s: %u spaces",
			  (char *)addr_gva2hva(t->vm, args[2]), info.nr_spaces);
		break;
	}
}

static struct tvm *make(tvm_guest_fn guest)
{
	static const u8 handler[] = { 0xe6, PORT_SMM, 0x0f, 0xaa };	/* out; rsm */
	struct tvm_opts o = {
		.guest = { guest },
		.nr_l2 = NR_L2,
		.sync = on_sync,
		.left = on_exit_of,
	};
	struct tvm *t = tvm_create(&o);
	struct kvm_kpop_info info;

	kpop_info(t, &info);
	vm_userspace_mem_region_add(t->vm, VM_MEM_SRC_ANONYMOUS, SMRAM_GPA, SMRAM_SLOT,
				    SMRAM_PAGES, 0);
	memcpy((u8 *)memslot2region(t->vm, SMRAM_SLOT)->host_mem + SMI_ENTRY, handler,
	       sizeof(handler));
	vcpu_set_msr(t->vcpus[0], MSR_IA32_SMBASE, SMRAM_GPA);
	t->sh->legacy_root = table_legacy(t, 4);
	return t;
}

static void test_no_way(bool plain)
{
	struct tvm *t = make(l1_no_way);

	t->sh->param[P_PLAIN] = plain;
	if (!plain) {
		policy_serve(&policy, "kpop_base", t);
		kpop_set_only(t->vm->fd, only);
	}
	shut_down = false;
	tvm_run(t);
	kst_check(shut_down, "RSM to an L2 without nested paging, %s: L1 is shut down",
		  plain ? "kpop-only since SMM" : "as the handler made it");
	kst_check(vm_get_stat(t->vm, "kpop_refused") == 1, "that is counted");
	if (!plain)
		policy_stop(&policy, t);
	tvm_free(t);
}

int main(int argc, char **argv)
{
	struct tvm *t;

	kst_begin("kpop_rsm_test", 400);
	only = kst_param(argc, argv, "only", 1);
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_X86_SMM));
	t = make(l1_main);
	policy_serve(&policy, "kpop_base", t);
	kpop_set_only(t->vm->fd, only);
	tvm_run(t);
	policy_stop(&policy, t);
	tvm_free(t);
	if (!host_cpu_is_intel)
		test_no_way(false);
	test_no_way(true);
	return kst_end();
}
