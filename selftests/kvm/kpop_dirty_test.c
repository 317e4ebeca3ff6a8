// SPDX-License-Identifier: GPL-2.0
/*
 * L0's dirty log of L1 covers what L2 writes (4.6): each page that L2 wrote, in
 * 4K, and none that it did not touch (a read may be logged as a write where it
 * faults, as for any guest: KVM maps what it can writable); also of huge mappings, after an UNMAP, and for pages that
 * L1 offers while the log is on; and L2's page table, where L0 sets the accessed
 * and dirty bits of an instruction that it emulates.  L1 hears nothing of it.  On
 * Intel this is with PML in L0, which does not log for an L2.
 */
#include "kpop_test.h"

#define TOKEN		token_of(0)
#define KVM_ID		14
#define SMALL		64		/* pages mapped one by one */
#define TABLE_AT	100		/* a copy of the page table of L2's window */
#define HUGE_AT		512		/* ... and 2M from here */
#define POOL_PAGES	1536

/* Of an entry of a page table. */
#define PTE_AD		(PTE_ACCESSED_MASK | PTE_DIRTY_MASK)

enum { STAGE_LOG_ON, STAGE_LOG_OFF, STAGE_CHECK };
/* L1 GPA of that page table */
enum { P_TABLE };

/* What L2 has written, and what it has read, since the last look. */
static u64 expected[POOL_PAGES / 64];
static u64 allowed[POOL_PAGES / 64];

static void write_page(struct l2 *l2, u64 page, u64 val)
{
	u64 r = l2_call(l2, l2_write, l2_gva(page), val);

	if (r != L2_EXIT_CALL)
		GUEST_PRINTF("not ok - L2's write to page %lu: exit %lu (0x%lx)\n", page, r,
			     l2->exit.raw);
	expected[page / 64] |= 1ULL << (page % 64);
}

/* The host compares its log with what is expected, and prints the result. */
static void check(const char *what)
{
	GUEST_SYNC4(STAGE_CHECK, (u64)what, (u64)expected, (u64)allowed);
	memset(expected, 0, sizeof(expected));
	memset(allowed, 0, sizeof(allowed));
}

static void test_small(struct l2 *l2)
{
	u64 i;

	for (i = 0; i < SMALL; i++)
		write_page(l2, i, i);
	GUEST_SYNC1(STAGE_LOG_ON);
	memset(expected, 0, sizeof(expected));
	check("nothing, the log has just begun");
	write_page(l2, 3, 1);
	write_page(l2, 17, 1);
	write_page(l2, SMALL - 1, 1);
	check("pages that were writable before");
	write_page(l2, 3, 2);
	write_page(l2, 18, 2);
	check("one of them once more");
	G_CHECK(l2_reads(l2, l2_gva(5), 5), "L2 reads a page");
	allowed[0] |= 1ULL << 5;
	check("no page but the one that was read");
	write_page(l2, 7, 3);
	G_EXPECT(kpop_unmap(KVM_ID, l2_gfn(7), 1), 1, "UNMAP of a page just written");
	check("the page that was unmapped");
	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(SMALL), pool_gfn(SMALL), 8), 8,
		 "MAP while the log is on");
	check("nothing, an offer is no write");
	write_page(l2, SMALL + 5, 4);
	check("a page offered while the log is on");
	GUEST_SYNC1(STAGE_LOG_OFF);
	write_page(l2, 3, 5);
	memset(expected, 0, sizeof(expected));
}

static void test_huge(struct l2 *l2)
{
	write_page(l2, HUGE_AT + 1, 1);
	GUEST_SYNC1(STAGE_LOG_ON);
	memset(expected, 0, sizeof(expected));
	write_page(l2, HUGE_AT + 88, 2);
	write_page(l2, HUGE_AT + 511, 2);
	check("4K pages of a 2M mapping");
	write_page(l2, HUGE_AT + 89, 3);
	check("its neighbour");
	GUEST_SYNC1(STAGE_LOG_OFF);
}

static u64 fep_write(u64 gva, u64 val)
{
	asm volatile(KVM_FEP "movq %0, (%1)" : : "r"(val), "r"(gva) : "memory");
	return val;
}

/*
 * L2's page table is at another L1 gfn than L2's.  The bits of its entry are
 * clear, and are set by L0: the CPU itself does not go there.
 */
static void test_table(struct l2 *l2, u64 table)
{
	volatile u64 *entry = pool_ptr(TABLE_AT) + (L2_GPA >> 21) % 512;

	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX, table, pool_gfn(TABLE_AT), 1), 1,
		 "MAP of a copy of L2's page table in its place");
	/* Before the log, as a read that faults may be logged. */
	G_CHECK((*entry & PTE_PRESENT_MASK) && !(*entry & PTE_AD), "its entry, before: 0x%lx", *entry);
	GUEST_SYNC1(STAGE_LOG_ON);
	memset(expected, 0, sizeof(expected));
	G_EXPECT(l2_call(l2, fep_write, l2_gva(9), 0xadad), L2_EXIT_CALL, "a write that L0 emulates");
	G_EXPECT(*pool_ptr(9), 0xadad, "what is written");
	G_EXPECT(*entry & PTE_AD, PTE_AD, "the bits that L0 has set");
	expected[0] |= 1ULL << 9;
	expected[TABLE_AT / 64] |= 1ULL << (TABLE_AT % 64);
	check("the page, and the page table");
	GUEST_SYNC1(STAGE_LOG_OFF);
	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX, table, table, 1), 1, "MAP of the old one");
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];

	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), SMALL);
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(HUGE_AT), pool_gfn(HUGE_AT), 512);
	test_small(l2);
	test_huge(l2);
	test_table(l2, sh->param[P_TABLE] / KST_PAGE);
	G_EXPECT(l2->faults, 0, "faults that reached L1");
	GUEST_DONE();
}

static void check_log(struct tvm *t, const char *what, const u64 *want, const u64 *may)
{
	u64 got[POOL_PAGES / 64] = {}, page;
	int missing = 0, extra = 0;

	kvm_vm_get_dirty_log(t->vm, POOL_SLOT, got);
	for (page = 0; page < POOL_PAGES; page++) {
		bool w = want[page / 64] >> (page % 64) & 1;
		bool g = got[page / 64] >> (page % 64) & 1;

		missing += w && !g;
		extra += g && !w && !(may[page / 64] >> (page % 64) & 1);
	}
	kst_check(!missing && !extra, "the log has: %s (%d missing, %d too many)", what,
		  missing, extra);
}

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	switch (args[0]) {
	case STAGE_LOG_ON:
		vm_mem_region_set_flags(t->vm, POOL_SLOT, KVM_MEM_LOG_DIRTY_PAGES);
		break;
	case STAGE_LOG_OFF:
		vm_mem_region_set_flags(t->vm, POOL_SLOT, 0);
		break;
	case STAGE_CHECK:
		check_log(t, addr_gva2hva(t->vm, args[1]), addr_gva2hva(t->vm, args[2]),
			  addr_gva2hva(t->vm, args[3]));
		break;
	}
}

/* L2 uses L1's page table; the window has 2M pages in it. */
static void copy_table(struct tvm *t)
{
	int level = PG_LEVEL_2M;
	u64 *entry = __vm_get_page_table_entry(t->vm, L2_GPA, &level), *copy, i;

	t->sh->param[P_TABLE] = addr_hva2gpa(t->vm, entry) & ~(KST_PAGE - 1);
	copy = (u64 *)tvm_pool(t, TABLE_AT);
	memcpy(copy, tvm_gpa(t, t->sh->param[P_TABLE]), KST_PAGE);
	for (i = 0; i < 512; i++)
		copy[i] &= ~PTE_AD;
}

int main(int argc, char **argv)
{
	struct tvm_opts o = {
		.guest = { l1_main },
		.nr_l2 = 1,
		.pool_pages = POOL_PAGES,
		.pool_src = VM_MEM_SRC_ANONYMOUS_THP,
		.sync = on_sync,
	};
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;
	char old;

	kst_begin("kpop_dirty_test", 120);
	old = kst_force_emulation('1');
	t = tvm_create(&o);
	copy_table(t);
	kpop_info(t, &info);
	policy_serve(&p, "kpop_base", t);
	tvm_run(t);
	policy_stop(&p, t);
	kst_force_emulation(old);
	tvm_free(t);
	return kst_end();
}
