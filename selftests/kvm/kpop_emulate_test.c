// SPDX-License-Identifier: GPL-2.0
/*
 * L0 emulates instructions of an L2 on KPOP: it walks L2's page tables and
 * translates each L2 gfn by what L1 has offered.  Forced by a prefix
 * (kvm.force_emulation_prefix), so that it is not left to devices: reads,
 * writes, both; a page that L1 made read-only, or did not offer, or that holds
 * L2's page table, is a fault in L1 with the right error code; an access over
 * the end of a page; and what UMIP forbids user mode.  Without the prefix: string
 * I/O to a port of L0's VMM, moves from and to its device; what UMIP forbids where
 * KVM emulates UMIP (on VMX, if L0's CPU has none).
 */
#include <asm/vmx.h>

#include "kpop_test.h"
#include "svm_util.h"
#include "vmx.h"

#define TOKEN		token_of(0)
#define KVM_ID		21

/* Of an NPF that L0 found when it emulated: the final address, a user access. */
#define NPF_FINAL	(1ULL << 32)
#define NPF_USER	(1ULL << 2)
#define NPF_PRESENT	(1ULL << 0)
#define NPF_WRITE	(1ULL << 1)

#define GP_VECTOR_BIT	(1U << 13)
#define DPL_SHIFT	5		/* in the attributes of a segment, both vendors */

#define STUB		20	/* pages of the window */
#define DATA		21
#define DEVICE		22

#define DEV_GPA		0x900000000ULL	/* no memslot of L0's */
#define PORT_OUT	0x98
#define PORT_IN		0x9a

/* L1 GPA of the page table for the window; UMIP is not the CPU's, but KVM's. */
enum { P_TABLE, P_UMIP };
/* How many instructions were emulated; what L0's VMM was told. */
enum { V_FORCED, V_OUT_BYTES, V_IN_BYTES, V_DEV_WRITTEN, V_OUT };

/* Page n of L2's window is page MIXED(n) of the pool. */
#define MIXED(n)	((n) ^ 5)

static struct l1_shared *shared;

static u64 fep_read(u64 gva, u64 unused)
{
	u64 val;

	asm volatile(KVM_FEP "movq (%1), %0" : "=r"(val) : "r"(gva) : "memory");
	return val;
}

static u64 fep_write(u64 gva, u64 val)
{
	asm volatile(KVM_FEP "movq %0, (%1)" : : "r"(val), "r"(gva) : "memory");
	return val;
}

static u64 fep_add(u64 gva, u64 val)
{
	asm volatile(KVM_FEP "addq %0, (%1)" : : "r"(val), "r"(gva) : "memory");
	return val;
}

/* Returns what was there. */
static u64 fep_cmpxchg(u64 gva, u64 val)
{
	u64 old = val - 1;

	asm volatile(KVM_FEP "lock cmpxchgq %1, (%2)" : "+a"(old) : "r"(val), "r"(gva) : "memory");
	return old;
}

static void map_page(u64 page, u64 flags)
{
	kpop_map(TOKEN, flags, l2_gfn(page), pool_gfn(MIXED(page)), 1);
}

static bool done(struct l2 *l2, l2_fn fn, u64 gva, u64 val)
{
	u64 r = l2_call(l2, fn, gva, val);

	shared->val[V_FORCED]++;
	if (r == L2_EXIT_CALL)
		return true;
	GUEST_PRINTF("# exit %lu (0x%lx, info 0x%lx, gpa 0x%lx)\n", r, l2->exit.raw,
		     l2->exit.info, l2->exit.gpa);
	return false;
}

static void test_access(struct l2 *l2)
{
	volatile u64 *p = pool_ptr(MIXED(3));
	bool ok;
	u64 i;

	for (i = 0; i < 16; i++) {
		map_page(i, KPOP_MAP_RWX);
		*pool_ptr(MIXED(i)) = 0x1000 + i;
	}
	ok = done(l2, fep_read, l2_gva(3), 0);
	G_CHECK(ok && l2->ret == 0x1003, "a read: 0x%lx", l2->ret);
	ok = done(l2, fep_write, l2_gva(3), 0x2003);
	G_CHECK(ok && *p == 0x2003, "a write: 0x%lx", *p);
	ok = done(l2, fep_add, l2_gva(3), 4);
	G_CHECK(ok && *p == 0x2007, "an add: 0x%lx", *p);
	ok = done(l2, fep_cmpxchg, l2_gva(3), 0x2008);
	G_CHECK(ok && l2->ret == 0x2007 && *p == 0x2008, "a locked cmpxchg: 0x%lx", *p);
	for (i = 0; i < 16; i++)
		if (i != 3 && *pool_ptr(MIXED(i)) != 0x1000 + i)
			break;
	G_EXPECT(i, 16, "pages that are as they should be");
	G_EXPECT(l2->faults, 0, "faults that reached L1");
}

/* What L1 is told: an error code, or a qualification, whose other bits are of another exit. */
static bool info_is(struct l2 *l2, u64 access, u64 rights)
{
	if (host_cpu_is_intel)
		return (l2->exit.info & 0x3f) == (access | rights << 3);
	return l2->exit.info == (NPF_FINAL | NPF_USER | (access == KPOP_MAP_W ? NPF_WRITE : 0) |
				 (rights ? NPF_PRESENT : 0));
}

/* It faults in L1 with these bits; L1 lets it, and it is done. */
static void expect_fault(struct l2 *l2, l2_fn fn, u64 gva, u64 b, u64 gpa, u64 access, u64 rights,
			 const char *what)
{
	u64 r = l2_call(l2, fn, gva, b);

	shared->val[V_FORCED]++;
	/* KVM translates pages: it reports where the page begins. */
	G_CHECK(r == L2_EXIT_FAULT && (l2->exit.gpa & ~0xfffULL) == gpa && info_is(l2, access, rights),
		"%s: exit %lu, gpa 0x%lx, code 0x%lx", what, r, l2->exit.gpa, l2->exit.info);
}

static void test_faults(struct l2 *l2)
{
	volatile u64 *p = pool_ptr(MIXED(2));
	bool ok;

	map_page(2, KPOP_MAP_R);
	*p = 0x77;
	G_CHECK(done(l2, fep_read, l2_gva(2), 0) && l2->ret == 0x77, "a read of a read-only page");
	expect_fault(l2, fep_write, l2_gva(2) + 16, 0x78, l2_gva(2),
		     KPOP_MAP_W, KPOP_MAP_R, "a write to it");
	G_CHECK(!p[2] && *p == 0x77, "nothing was written");
	expect_fault(l2, fep_write, l2_gva(2) + 16, 0x78, l2_gva(2),
		     KPOP_MAP_W, KPOP_MAP_R, "again");
	map_page(2, KPOP_MAP_RWX);
	G_CHECK(l2_resume(l2) == L2_EXIT_CALL && p[2] == 0x78, "L1 grants W: it is done");

	kpop_unmap(KVM_ID, l2_gfn(2), 1);
	expect_fault(l2, fep_read, l2_gva(2) + 8, 0, l2_gva(2), KPOP_MAP_R, 0,
		     "a read of a page not offered");
	p[1] = 0x99;
	map_page(2, KPOP_MAP_RWX);
	ok = l2_resume(l2) == L2_EXIT_CALL;
	G_CHECK(ok && l2->ret == 0x99, "L1 offers it: 0x%lx", l2->ret);
}

static void test_crossing(struct l2 *l2)
{
	volatile u32 *one = (void *)pool_ptr(MIXED(6)), *two = (void *)pool_ptr(MIXED(7));
	u64 gva = l2_gva(7) - 4;
	bool ok;

	one[1023] = 0x11223344;
	two[0] = 0x55667788;
	ok = done(l2, fep_read, gva, 0);
	G_CHECK(ok && l2->ret == 0x5566778811223344ULL,
		"a read over the end of a page: 0x%lx", l2->ret);
	ok = done(l2, fep_write, gva, 0xa1a2a3a4b1b2b3b4ULL);
	G_CHECK(ok && one[1023] == 0xb1b2b3b4 && two[0] == 0xa1a2a3a4, "a write there: 0x%x 0x%x", one[1023], two[0]);
	kpop_unmap(KVM_ID, l2_gfn(7), 1);
	expect_fault(l2, fep_read, gva, 0, l2_gva(7), KPOP_MAP_R, 0, "its second page not offered");
	map_page(7, KPOP_MAP_RWX);
	ok = l2_resume(l2) == L2_EXIT_CALL;
	G_CHECK(ok && l2->ret == 0xa1a2a3a4b1b2b3b4ULL, "L1 offers it: 0x%lx", l2->ret);
}

/* L2's own page table is read by L0, through KPOP too. */
static void test_table(struct l2 *l2, struct l1_shared *sh)
{
	u64 table = sh->param[P_TABLE], gfn = table / KST_PAGE, r;

	G_CHECK(done(l2, fep_read, l2_gva(4), 0) && l2->ret == 0x1004, "a read, its table offered");
	kpop_unmap(KVM_ID, gfn, 1);
	r = l2_call(l2, fep_read, l2_gva(4), 0);
	sh->val[V_FORCED]++;
	G_CHECK(r == L2_EXIT_FAULT && (l2->exit.gpa & ~0xfffULL) == table && !l2->exit.present,
		"its table not offered: exit %lu, gpa 0x%lx, code 0x%lx", r, l2->exit.gpa,
		l2->exit.info);
	kpop_map(TOKEN, KPOP_MAP_RWX, gfn, gfn, 1);
	r = l2_resume(l2);
	G_CHECK(r == L2_EXIT_CALL && l2->ret == 0x1004, "L1 offers it: 0x%lx", l2->ret);
}

/* ---- what L0 emulates without a prefix ---- */

static u64 l2_outs(u64 gva, u64 bytes)
{
	asm volatile("rep outsb" : "+S"(gva), "+c"(bytes) : "d"(PORT_OUT) : "memory");
	return gva;
}

static u64 l2_ins(u64 gva, u64 bytes)
{
	asm volatile("rep insb" : "+D"(gva), "+c"(bytes) : "d"(PORT_IN) : "memory");
	return gva;
}

static u64 l2_movs(u64 to, u64 from)
{
	asm volatile("movsq" : "+D"(to), "+S"(from) : : "memory");
	return to;
}

/* L1 gets the fault, lets L2, and then it is done. */
static bool done_after(struct l2 *l2, u64 page, u64 flags)
{
	map_page(page, flags);
	return l2_resume(l2) == L2_EXIT_CALL;
}

static bool told(struct l1_shared *sh, u64 bytes, const char *text)
{
	bool ok = sh->val[V_OUT_BYTES] == bytes && !memcmp((char *)&sh->val[V_OUT], text, bytes);

	sh->val[V_OUT_BYTES] = 0;
	return ok;
}

static void test_outs(struct l2 *l2, struct l1_shared *sh)
{
	char *one = (char *)pool_ptr(MIXED(8)), *two = (char *)pool_ptr(MIXED(9));
	u64 gva = l2_gva(9) - 4, r;

	memcpy(one + KST_PAGE - 4, "over", 4);
	memcpy(two, "end!", 4);
	r = l2_call(l2, l2_outs, gva, 8);
	G_CHECK(r == L2_EXIT_CALL && told(sh, 8, "overend!"),
		"a string to a port, over the end of a page");
	kpop_unmap(KVM_ID, l2_gfn(9), 1);
	r = l2_call(l2, l2_outs, gva, 8);
	G_CHECK(r == L2_EXIT_FAULT && (l2->exit.gpa & ~0xfffULL) == l2_gva(9) &&
		info_is(l2, KPOP_MAP_R, 0), "its second page not offered: exit %lu, gpa 0x%lx, code 0x%lx",
		r, l2->exit.gpa, l2->exit.info);
	G_CHECK(sh->val[V_OUT_BYTES] == 4, "the first half is out: %lu bytes", sh->val[V_OUT_BYTES]);
	G_CHECK(done_after(l2, 9, KPOP_MAP_RWX) && told(sh, 8, "overend!"), "L1 offers it: all is out");
}

static void test_ins(struct l2 *l2, struct l1_shared *sh)
{
	u8 *p = (u8 *)pool_ptr(MIXED(10));
	u64 r, i, in;

	memset(p, 0, KST_PAGE);
	G_EXPECT(l2_call(l2, l2_ins, l2_gva(10) + 8, 8), L2_EXIT_CALL, "a string from a port");
	for (i = 1; i < 8; i++)
		if (p[8 + i] != (u8)(p[8] + i))
			break;
	G_CHECK(i == 8 && p[8] && !p[7] && !p[16], "is where it belongs");
	map_page(10, KPOP_MAP_R);
	r = l2_call(l2, l2_ins, l2_gva(10) + 32, 8);
	G_CHECK(r == L2_EXIT_FAULT && (l2->exit.gpa & ~0xfffULL) == l2_gva(10) &&
		info_is(l2, KPOP_MAP_W, KPOP_MAP_R), "to a read-only page: exit %lu, gpa 0x%lx, code 0x%lx",
		r, l2->exit.gpa, l2->exit.info);
	G_CHECK(!p[32], "nothing was written");
	in = sh->val[V_IN_BYTES];
	r = done_after(l2, 10, KPOP_MAP_RWX);
	G_CHECK(r && p[32] && p[39] == (u8)(p[32] + 7) && !p[40],
		"L1 grants W: it is there, by %lu more bytes of the port", sh->val[V_IN_BYTES] - in);
}

/* Of a device of L0's that L1 gives to L2, to and from its memory. */
static void test_device(struct l2 *l2, struct l1_shared *sh)
{
	volatile u64 *p = pool_ptr(MIXED(11));
	u64 r;

	kpop_map(TOKEN, KPOP_MAP_RWX | KPOP_MAP_DEVICE, l2_gfn(DEVICE), DEV_GPA / KST_PAGE, 1);
	r = l2_call(l2, l2_movs, l2_gva(11), l2_gva(DEVICE) + 0x18);
	G_CHECK(r == L2_EXIT_CALL && *p == DEV_GPA + 0x18, "a move from a device: 0x%lx", *p);
	p[1] = 0xde71ce;
	r = l2_call(l2, l2_movs, l2_gva(DEVICE), l2_gva(11) + 8);
	G_CHECK(r == L2_EXIT_CALL && sh->val[V_DEV_WRITTEN] == 0xde71ce, "a move to it: 0x%lx",
		sh->val[V_DEV_WRITTEN]);
	map_page(11, KPOP_MAP_R);
	r = l2_call(l2, l2_movs, l2_gva(11), l2_gva(DEVICE) + 0x20);
	G_CHECK(r == L2_EXIT_FAULT && info_is(l2, KPOP_MAP_W, KPOP_MAP_R) && *p == DEV_GPA + 0x18,
		"from it to a read-only page: exit %lu, code 0x%lx", r, l2->exit.info);
	/* Not that of the device, for which L0 emulates: L1 would look there for ever. */
	G_EXPECT(l2->exit.gpa & ~0xfffULL, l2_gva(11), "which page");
	r = done_after(l2, 11, KPOP_MAP_RWX);
	G_CHECK(r && *p == DEV_GPA + 0x20, "L1 grants W: 0x%lx", *p);
	kpop_unmap(KVM_ID, l2_gfn(DEVICE), 1);
}

/* ---- UMIP ---- */

static const struct {
	const char *name;
	u8 code[3];
	u8 bytes;
} umip[] = {
	{ "SGDT", { 0x0f, 0x01, 0x07 }, 10 },
	{ "SIDT", { 0x0f, 0x01, 0x0f }, 10 },
	{ "SLDT", { 0x0f, 0x00, 0x07 }, 2 },
	{ "STR", { 0x0f, 0x00, 0x0f }, 2 },
	{ "SMSW", { 0x0f, 0x01, 0x27 }, 2 },
};

#define UMIP_SMSW	4

/* [ud2; "kvm"]; the instruction with (%rdi); vmmcall or vmcall */
static void make_stub(int i, bool forced)
{
	static const u8 prefix[5] = { 0x0f, 0x0b, 'k', 'v', 'm' };
	const u8 call[3] = { 0x0f, 0x01, host_cpu_is_intel ? 0xc1 : 0xd9 };
	u8 *to = (u8 *)pool_ptr(MIXED(STUB));

	if (forced) {
		memcpy(to, prefix, sizeof(prefix));
		to += sizeof(prefix);
	}
	memcpy(to, umip[i].code, sizeof(umip[i].code));
	memcpy(to + sizeof(umip[i].code), call, sizeof(call));
}

static void svm_run_at(struct l2 *l2, int cpl, u64 cr4)
{
	struct vmcb *vmcb = ((struct svm_test_data *)l2->arch)->vmcb;
	struct vmcb_save_area old = vmcb->save;

	vmcb->save.cpl = cpl;
	vmcb->save.ss.attrib |= cpl << DPL_SHIFT;
	vmcb->save.cs.attrib |= cpl << DPL_SHIFT;
	vmcb->save.cr4 |= cr4;
	l2_resume(l2);
	vmcb->save = old;
}

static void vmx_run_at(struct l2 *l2, int cpl, u64 cr4)
{
	static const u32 fields[] = { GUEST_CS_SELECTOR, GUEST_SS_SELECTOR, GUEST_CS_AR_BYTES,
				      GUEST_SS_AR_BYTES, GUEST_CR4 };
	const u64 more[] = { cpl, cpl, cpl << DPL_SHIFT, cpl << DPL_SHIFT, cr4 };
	u64 old[ARRAY_SIZE(fields)];
	int i;

	for (i = 0; i < ARRAY_SIZE(fields); i++) {
		old[i] = vmreadz(fields[i]);
		vmwrite(fields[i], old[i] | more[i]);
	}
	l2_resume(l2);
	for (i = 0; i < ARRAY_SIZE(fields); i++)
		vmwrite(fields[i], old[i]);
}

/* Returns the exit; what was stored is in @to. */
static u64 run_stub(struct l2 *l2, int i, bool forced, int cpl, u64 cr4, u64 *to)
{
	u64 *data = (u64 *)pool_ptr(MIXED(DATA));

	data[0] = data[1] = 0xeeeeeeeeeeeeeeeeULL;
	make_stub(i, forced);
	l2->regs.rdi = l2_gva(DATA);
	if (host_cpu_is_intel) {
		vmx_reset(l2, (void *)l2_gva(STUB));
		vmx_run_at(l2, cpl, cr4);
	} else {
		svm_reset(l2, (void *)l2_gva(STUB));
		svm_run_at(l2, cpl, cr4);
	}
	shared->val[V_FORCED] += forced || (shared->param[P_UMIP] && cr4 && i != UMIP_SMSW);
	to[0] = data[0];
	to[1] = data[1];
	return l2->exit.reason;
}

/* L1 takes L2's #GP. */
static void take_gp(struct l2 *l2, bool take)
{
	if (host_cpu_is_intel)
		vmwrite(EXCEPTION_BITMAP, take ? GP_VECTOR_BIT : 0);
	else
		((struct svm_test_data *)l2->arch)->vmcb->control.intercept_exceptions =
			take ? GP_VECTOR_BIT : 0;
}

static bool was_gp(struct l2 *l2)
{
	if (host_cpu_is_intel)
		return l2->exit.raw == EXIT_REASON_EXCEPTION_NMI &&
		       (vmreadz(VM_EXIT_INTR_INFO) & 0xff) == GP_VECTOR;
	return l2->exit.raw == SVM_EXIT_EXCP_BASE + GP_VECTOR;
}

static void test_umip_of(struct l2 *l2, int i, bool forced, const u64 *native)
{
	const char *name = umip[i].name, *how = forced ? "emulated" : "as it is";
	u64 got[2], r;

	r = run_stub(l2, i, forced, 0, X86_CR4_UMIP, got);
	G_CHECK(r == L2_EXIT_CALL && got[0] == native[0] && got[1] == native[1] &&
		!memcmp((u8 *)got + umip[i].bytes, "\xee\xee", 2),
		"%s at CPL 0 under UMIP, %s: 0x%lx 0x%lx", name, how, got[0], got[1]);
	r = run_stub(l2, i, forced, 3, 0, got);
	G_CHECK(r == L2_EXIT_CALL && got[0] == native[0], "%s at CPL 3 without UMIP, %s: exit 0x%lx",
		name, how, l2->exit.raw);
	/* VMX has no exit for it: where UMIP is KVM's, SMSW is allowed. */
	if (i == UMIP_SMSW && !forced && shared->param[P_UMIP])
		return;
	run_stub(l2, i, forced, 3, X86_CR4_UMIP, got);
	G_CHECK(was_gp(l2) && got[0] == 0xeeeeeeeeeeeeeeeeULL, "%s at CPL 3 under UMIP, %s: exit 0x%lx",
		name, how, l2->exit.raw);
}

static void test_umip(struct l2 *l2)
{
	u64 native[2];
	int i;

	if (!this_cpu_has(X86_FEATURE_UMIP)) {
		GUEST_PRINTF("# no UMIP in this CPU, and KVM does not emulate it on SVM\n");
		return;
	}
	take_gp(l2, true);
	map_page(STUB, KPOP_MAP_RWX);
	map_page(DATA, KPOP_MAP_RWX);
	for (i = 0; i < ARRAY_SIZE(umip); i++) {
		run_stub(l2, i, false, 0, 0, native);
		test_umip_of(l2, i, false, native);
		if (i == UMIP_SMSW && host_cpu_is_intel)
			GUEST_PRINTF("skip - SMSW, emulated: on VMX KVM has no emulation of it for an L2\n");
		else
			test_umip_of(l2, i, true, native);
	}
	take_gp(l2, false);
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];

	shared = sh;
	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	test_access(l2);
	test_faults(l2);
	test_crossing(l2);
	test_table(l2, sh);
	test_outs(l2, sh);
	test_ins(l2, sh);
	test_device(l2, sh);
	test_umip(l2);
	GUEST_DONE();
}

/* Ports: what is written is kept, what is read counts. */
static bool on_port(struct tvm *t, int cpu)
{
	struct kvm_run *run = t->vcpus[cpu]->run;
	u8 *data = (u8 *)run + run->io.data_offset, *out = (u8 *)&t->sh->val[V_OUT];
	u32 i, bytes = run->io.count * run->io.size;

	if (run->exit_reason != KVM_EXIT_IO)
		return false;
	for (i = 0; i < bytes; i++) {
		if (run->io.port == PORT_IN)
			data[i] = 0x40 + t->sh->val[V_IN_BYTES]++;
		else if (run->io.port == PORT_OUT && t->sh->val[V_OUT_BYTES] < 64)
			out[t->sh->val[V_OUT_BYTES]++] = data[i];
		else
			return false;
	}
	return true;
}

/* A device that says where it was read. */
static void on_mmio(struct tvm *t, struct kvm_run *run)
{
	u64 at = run->mmio.phys_addr;

	if (run->mmio.is_write)
		memcpy((void *)&t->sh->val[V_DEV_WRITTEN], run->mmio.data, run->mmio.len);
	else
		memcpy(run->mmio.data, &at, sizeof(at));
}

static bool cpu_has_umip(void)
{
	char line[4096];
	FILE *f = fopen("/proc/cpuinfo", "r");
	bool has = false;

	TEST_ASSERT(f, "/proc/cpuinfo");
	while (!has && fgets(line, sizeof(line), f))
		has = !strncmp(line, "flags", 5) && strstr(line, " umip");
	fclose(f);
	return has;
}

/* Of L2's page table, which is L1's, for the window: it has 2M pages. */
static u64 *window_entry(struct tvm *t, int level)
{
	return __vm_get_page_table_entry(t->vm, L2_GPA, &level);
}

int main(int argc, char **argv)
{
	struct tvm_opts o = {
		.guest = { l1_main },
		.nr_l2 = 1,
		.pool_pages = 512,
		.mmio = on_mmio,
		.left = on_port,
	};
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;
	u64 emulated;
	int level;
	char old;

	kst_begin("kpop_emulate_test", 400);
	old = kst_force_emulation('1');
	t = tvm_create(&o);
	t->sh->param[P_TABLE] = addr_hva2gpa(t->vm, window_entry(t, PG_LEVEL_2M)) &
				~(KST_PAGE - 1);
	for (level = PG_LEVEL_2M; level <= PG_LEVEL_512G; level++)
		*window_entry(t, level) |= PTE_USER_MASK;
	t->sh->param[P_UMIP] = !cpu_has_umip();
	printf("# UMIP is %s\n", t->sh->param[P_UMIP] ? "KVM's, if there is one" : "the CPU's");
	kpop_info(t, &info);
	policy_serve(&p, "kpop_base", t);
	tvm_run(t);
	emulated = vcpu_stat(t->vcpus[0], "insn_emulation");
	kst_check(t->sh->val[V_FORCED] && emulated >= t->sh->val[V_FORCED],
		  "%lu instructions had the prefix, L0 emulated %lu", t->sh->val[V_FORCED], emulated);
	policy_stop(&p, t);
	kst_check(kpop_none_left(t, &info), "nothing left (%llu bytes)", info.bytes);
	kst_force_emulation(old);
	tvm_free(t);
	return kst_end();
}
