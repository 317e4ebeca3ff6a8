// SPDX-License-Identifier: GPL-2.0
/*
 * What only an Intel L1 can do with a root token: A/D bits in EPTP, VPID, VMFUNC
 * that switches EPTP into, out of and between tokens, in a kpop-only VM too, INVEPT,
 * and an EPTP that VMX refuses with a token as without one.
 */
#include <asm/vmx.h>

#include "kpop_test.h"
#include "vmx.h"

#define KVM_ID		15
#define EPTP_WB		0x1eULL		/* write-back, a walk of four levels */
#define EPTP_AD		(1ULL << 6)
#define EPTP_BAD_WALK	0x0eULL		/* a walk of two levels: refused */

/* SDM vol. 3, appendix B: fields that the library does not name. */
#define VM_FUNCTION_CONTROL	0x2018
#define EPTP_LIST_ADDRESS	0x2024

#define INVEPT_SINGLE	1
#define INVEPT_GLOBAL	2

/* The EPTP list of VMFUNC: L2 names them by these numbers. */
enum { EPTP_ONE, EPTP_TWO, EPTP_LEGACY, EPTP_UNKNOWN, NR_EPTPS };
enum { STAGE_ONLY, STAGE_NO_SHADOW };

/* Pages of the pool that stand at L2_GPA in each. */
static const u64 page_of[NR_EPTPS] = { 10, 40, 0, 0 };

static u64 value_of(int who)
{
	return 0xeb70000000000000ULL + who;
}

/* Token 2 is loaded by nobody. */
static u64 root_of(struct l1_shared *sh, int who)
{
	return who == EPTP_LEGACY ? sh->legacy_root :
	       token_of(who == EPTP_UNKNOWN ? 2 : who);
}

static long invept(u64 type, u64 eptp)
{
	struct { u64 eptp, zero; } desc = { eptp, 0 };
	u8 failed;

	asm volatile("invept %1, %2; setna %0" : "=qm"(failed) : "m"(desc), "r"(type)
		     : "cc", "memory");
	return failed;
}

static void set_eptp_flags(struct l2 *l2, u64 flags)
{
	l2->eptp_flags = flags;
}

static void test_ad(struct l2 *l2)
{
	set_eptp_flags(l2, EPTP_WB);
	G_CHECK(l2_reads(l2, l2_gva(0), value_of(EPTP_ONE)), "EPTP without A/D: L2 reads");
	G_EXPECT(l2_call(l2, l2_write, l2_gva(1), 1), L2_EXIT_CALL, "and writes");
	set_eptp_flags(l2, EPTP_WB | EPTP_AD);
	G_CHECK(l2_reads(l2, l2_gva(0), value_of(EPTP_ONE)), "EPTP with A/D: L2 reads");
	G_EXPECT(l2_call(l2, l2_write, l2_gva(1), 2), L2_EXIT_CALL, "and writes");
	G_EXPECT(*pool_ptr(page_of[EPTP_ONE] + 1), 2, "what L1 finds there");
	set_eptp_flags(l2, EPTP_WB);
}

/* The qualification: what was tried in bits 0-2, the translation's rights in 3-5. */
static void test_violation(struct l2 *l2)
{
	kpop_map(token_of(0), KPOP_MAP_R, l2_gfn(4), pool_gfn(20), 1);
	G_CHECK(l2_faults_at(l2, l2_write, l2_gva(4), 0, KPOP_MAP_W, true),
		"a write to a page of rights R: EPT violation");
	G_EXPECT(l2->exit.info & 0x3f, 0x2 | KPOP_MAP_R << 3, "its qualification");
	G_CHECK(l2_faults_at(l2, l2_exec, l2_gva(4), 0, KPOP_MAP_X, true),
		"a fetch from it");
	G_EXPECT(l2->exit.info & 0x3f, 0x4 | KPOP_MAP_R << 3, "its qualification");
	G_CHECK(l2_faults_at(l2, l2_read, l2_gva(5), 0, KPOP_MAP_R, false),
		"a read of no page");
	G_EXPECT(l2->exit.info & 0x3f, 0x1, "its qualification");
	/* GVA valid, and it is the access itself that faulted, not the walk. */
	G_EXPECT(l2->exit.info & 0x180, 0x180, "bits 7 and 8");
	G_EXPECT(l2->exit.raw, EXIT_REASON_EPT_VIOLATION, "its reason");
}

static void test_vpid(struct l2 *l2)
{
	u64 sec = vmreadz(SECONDARY_VM_EXEC_CONTROL);

	if (!(rdmsr(MSR_IA32_VMX_PROCBASED_CTLS2) >> 32 & SECONDARY_EXEC_ENABLE_VPID)) {
		GUEST_PRINTF("skip - no VPID here\n");
		return;
	}
	vmwrite(VIRTUAL_PROCESSOR_ID, 7);
	vmwrite(SECONDARY_VM_EXEC_CONTROL, sec | SECONDARY_EXEC_ENABLE_VPID);
	G_CHECK(l2_reads(l2, l2_gva(0), value_of(EPTP_ONE)), "with a VPID L2 reads");
	*pool_ptr(21) = 0x21;
	kpop_map(token_of(0), KPOP_MAP_RWX, l2_gfn(0), pool_gfn(21), 1);
	G_CHECK(l2_reads(l2, l2_gva(0), 0x21), "and a remap needs no INVVPID");
	kpop_map(token_of(0), KPOP_MAP_RWX, l2_gfn(0), pool_gfn(page_of[EPTP_ONE]), 1);
	G_CHECK(l2_reads(l2, l2_gva(0), value_of(EPTP_ONE)), "nor does the way back");
	vmwrite(SECONDARY_VM_EXEC_CONTROL, sec);
	vmwrite(VIRTUAL_PROCESSOR_ID, 0);
}

static void test_invept(struct l2 *l2)
{
	u64 faults = l2->faults;

	G_EXPECT(invept(INVEPT_SINGLE, token_of(0) | EPTP_WB), 0, "INVEPT of a token");
	G_CHECK(l2_reads(l2, l2_gva(0), value_of(EPTP_ONE)), "L2 reads as before");
	G_EXPECT(invept(INVEPT_GLOBAL, 0), 0, "INVEPT of all");
	G_CHECK(l2_reads(l2, l2_gva(0), value_of(EPTP_ONE)), "L2 reads as before");
	G_EXPECT(l2->faults, faults, "faults that reached L1 since");
}

static void test_refused(struct l2 *l2)
{
	u64 r;

	vmwrite(EPT_POINTER, token_of(0) | EPTP_BAD_WALK);
	r = kpop_vmx_run(l2->launched, &l2->regs);
	G_CHECK(r && vmreadz(VM_INSTRUCTION_ERROR) == 7,
		"a token in a bad EPTP: VM entry fails with error 7");
	vmwrite(EPT_POINTER, token_of(0) | EPTP_WB);
	G_CHECK(l2_reads(l2, l2_gva(0), value_of(EPTP_ONE)), "L2 runs on");
}

/* In L2: switch to EPTP @which and read there. */
static u64 l2_switch_read(u64 which, u64 gva)
{
	asm volatile(".byte 0x0f, 0x01, 0xd4" : : "a"(0), "c"(which) : "memory");
	return READ_ONCE(*(u64 *)gva);
}

/* Both ways in one stay in L2. */
static u64 l2_switch_twice(u64 from, u64 to)
{
	u64 first = l2_switch_read(to, l2_gva(0));

	return first == value_of(to) ? l2_switch_read(from, l2_gva(0)) : first;
}

static void switch_to(struct l1_shared *sh, struct l2 *l2, int from, int to, const char *what)
{
	u64 r;

	l2_set_root(l2, root_of(sh, from));
	r = l2_call(l2, l2_switch_read, to, l2_gva(0));
	if (r != L2_EXIT_CALL || l2->ret != value_of(to))
		GUEST_PRINTF("# exit 0x%lx, info 0x%lx, gpa 0x%lx, value 0x%lx\n",
			     l2->exit.raw, l2->exit.info, l2->exit.gpa, l2->ret);
	G_CHECK(r == L2_EXIT_CALL && l2->ret == value_of(to), "VMFUNC %s", what);
}

static void test_vmfunc(struct l1_shared *sh, struct l2 *l2)
{
	u64 faults = l2->faults;
	int i;

	switch_to(sh, l2, EPTP_ONE, EPTP_TWO, "between tokens");
	switch_to(sh, l2, EPTP_TWO, EPTP_ONE, "and back");
	switch_to(sh, l2, EPTP_ONE, EPTP_LEGACY, "out of a token");
	switch_to(sh, l2, EPTP_LEGACY, EPTP_ONE, "into a token");
	switch_to(sh, l2, EPTP_LEGACY, EPTP_TWO, "into the other one");
	for (i = 0; i < 100; i++) {
		l2_set_root(l2, root_of(sh, EPTP_ONE));
		if (l2_call(l2, l2_switch_twice, EPTP_ONE, i % 2 ? EPTP_TWO : EPTP_LEGACY) !=
		    L2_EXIT_CALL || l2->ret != value_of(EPTP_ONE))
			break;
	}
	G_EXPECT(i, 100, "there and back within one stay in L2, rounds");
	G_EXPECT(l2->faults, faults, "faults that reached L1 since");
	l2_set_root(l2, root_of(sh, EPTP_ONE));
	G_EXPECT(l2_call(l2, l2_switch_read, EPTP_UNKNOWN, l2_gva(0)), L2_EXIT_FAULT,
		 "VMFUNC to a token that L0 does not know: L1 gets the fault");
	l2_set_root(l2, root_of(sh, EPTP_ONE));
	G_CHECK(l2_reads(l2, l2_gva(0), value_of(EPTP_ONE)), "L2 runs on");
}

/* kpop-only: VMFUNC cannot be refused, but behind it L2 has nothing, and L1 no way back in. */
static void test_vmfunc_only(struct l1_shared *sh, struct l2 *l2)
{
	static const int out[] = { EPTP_LEGACY, EPTP_UNKNOWN };
	int i;

	GUEST_SYNC1(STAGE_ONLY);
	switch_to(sh, l2, EPTP_ONE, EPTP_TWO, "between tokens, kpop-only");
	for (i = 0; i < ARRAY_SIZE(out); i++) {
		l2_set_root(l2, root_of(sh, EPTP_ONE));
		G_EXPECT(l2_call(l2, l2_switch_read, out[i], l2_gva(0)), L2_EXIT_FAULT,
			 out[i] == EPTP_LEGACY ? "VMFUNC out of a token: L1 gets a fault" :
			 "to a token that L0 does not know: L1 gets a fault");
		G_EXPECT(l2->ret, 0, "L2 has read");
		l2_set_root(l2, root_of(sh, out[i]));
		G_EXPECT(l2_resume(l2), L2_EXIT_REFUSED, "an entry with that EPTP");
		l2_set_root(l2, root_of(sh, EPTP_ONE));
		G_EXPECT(l2_resume(l2), L2_EXIT_CALL, "and with the token");
		G_EXPECT(l2->ret, value_of(EPTP_ONE), "L2 goes on and has read");
	}
	GUEST_SYNC1(STAGE_NO_SHADOW);
}

static void test_vmfuncs(struct l1_shared *sh, struct l2 *l2)
{
	volatile u64 *list = pool_ptr(30);
	u64 sec = vmreadz(SECONDARY_VM_EXEC_CONTROL);
	int i;

	if (!(rdmsr(MSR_IA32_VMX_PROCBASED_CTLS2) >> 32 & SECONDARY_EXEC_ENABLE_VMFUNC)) {
		GUEST_PRINTF("skip - no VMFUNC here\n");
		return;
	}
	for (i = 0; i < NR_EPTPS; i++)
		list[i] = root_of(sh, i) | EPTP_WB;
	vmwrite(EPTP_LIST_ADDRESS, POOL_GPA + 30 * KST_PAGE);
	vmwrite(VM_FUNCTION_CONTROL, 1);
	vmwrite(SECONDARY_VM_EXEC_CONTROL, sec | SECONDARY_EXEC_ENABLE_VMFUNC);
	test_vmfunc(sh, l2);
	test_vmfunc_only(sh, l2);
	vmwrite(SECONDARY_VM_EXEC_CONTROL, sec);
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];
	int i;

	l1_virt_on(l2);
	for (i = 0; i < 2; i++) {
		*pool_ptr(page_of[i]) = value_of(i);
		l2_on_kpop(l2, token_of(i), KVM_ID + i, 0);
		kpop_map(token_of(i), KPOP_MAP_RWX, l2_gfn(0), pool_gfn(page_of[i]), 4);
	}
	/* The legacy table has the pool's first pages at L2_GPA. */
	*pool_ptr(page_of[EPTP_LEGACY]) = value_of(EPTP_LEGACY);
	l2_set_root(l2, token_of(0));
	G_CHECK(l2_reads(l2, l2_gva(0), value_of(EPTP_ONE)), "L2 reads on its token");
	test_ad(l2);
	test_violation(l2);
	test_vpid(l2);
	test_invept(l2);
	test_refused(l2);
	test_vmfuncs(sh, l2);
	GUEST_DONE();
}

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	static u64 misses;

	switch (args[0]) {
	case STAGE_ONLY:
		kpop_set_only(t->vm->fd, 1);
		misses = vm_get_stat(t->vm, "mmu_cache_miss");
		break;
	case STAGE_NO_SHADOW:
		kst_check(vm_get_stat(t->vm, "mmu_cache_miss") == misses, "no shadow page in all that");
		break;
	}
}

int main(int argc, char **argv)
{
	struct tvm_opts o = { .guest = { l1_main }, .nr_l2 = 1, .sync = on_sync };
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;

	kst_begin("kpop_vmx_test", 120);
	if (!kvm_cpu_has(X86_FEATURE_VMX))
		kst_skip("no VMX here: this is about EPTP");
	t = tvm_create(&o);
	kpop_info(t, &info);
	t->sh->legacy_root = table_legacy(t, 4);
	policy_serve(&p, "kpop_base", t);
	tvm_run(t);
	policy_stop(&p, t);
	tvm_free(t);
	return kst_end();
}
