// SPDX-License-Identifier: GPL-2.0
/*
 * A nested page table as L1 has it without KPOP.  NPT and EPT entries differ
 * here only in the leaf's memory type: 7 is present, writable, user there, and
 * read, write, execute here.
 */
#include "kpop_test.h"

#define ENTRY_ALL	7ULL
#define ENTRY_LARGE	(1ULL << 7)
#define EPT_WB		(6ULL << 3)
#define ENTRY_ADDR	0x000ffffffffff000ULL

u64 table_new(struct tvm *t)
{
	u64 gpa = t->next_table;

	t->next_table += KST_PAGE;
	memset(tvm_gpa(t, gpa), 0, KST_PAGE);
	return gpa;
}

/* Map one page of @level; replaces a leaf that is there. */
void table_map(struct tvm *t, u64 root, u64 l2_gpa, u64 l1_gpa, int level)
{
	u64 table = root, *entry;
	int l;

	for (l = PG_LEVEL_512G; ; l--) {
		entry = (u64 *)tvm_gpa(t, table) + ((l2_gpa >> PG_LEVEL_SHIFT(l)) & 511);
		if (l == level)
			break;
		if (!*entry)
			*entry = table_new(t) | ENTRY_ALL;
		table = *entry & ENTRY_ADDR;
	}
	*entry = l1_gpa | ENTRY_ALL | (host_cpu_is_intel ? EPT_WB : 0) |
		 (level > PG_LEVEL_4K ? ENTRY_LARGE : 0);
}

/* GPA of the entry of @level that leads to @l2_gpa. */
u64 table_entry(struct tvm *t, u64 root, u64 l2_gpa, int level)
{
	u64 table = root;
	int l;

	for (l = PG_LEVEL_512G; l > level; l--)
		table = ((u64 *)tvm_gpa(t, table))[(l2_gpa >> PG_LEVEL_SHIFT(l)) & 511] &
			ENTRY_ADDR;
	return table + (l2_gpa >> PG_LEVEL_SHIFT(level) & 511) * sizeof(u64);
}

/* GPA of the 4K entry that maps @l2_gpa. */
u64 table_leaf(struct tvm *t, u64 root, u64 l2_gpa)
{
	return table_entry(t, root, l2_gpa, PG_LEVEL_4K);
}

/* Slot 0 as it is, and the first @npages of the pool at L2_GPA. */
u64 table_legacy(struct tvm *t, u64 npages)
{
	u64 root = table_new(t), i;

	for (i = 0; i < SLOT0_PAGES; i++)
		table_map(t, root, i * KST_PAGE, i * KST_PAGE, PG_LEVEL_4K);
	for (i = 0; i < npages; i++)
		table_map(t, root, l2_gva(i), POOL_GPA + i * KST_PAGE, PG_LEVEL_4K);
	return root;
}
