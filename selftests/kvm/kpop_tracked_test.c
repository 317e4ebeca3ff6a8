// SPDX-License-Identifier: GPL-2.0
/*
 * Pages of L1 that L0 write-tracks, offered to an L2 on KPOP with W: that L2's
 * writes must not pass L0 by.
 *
 * One is in the nested table of a second L2, on legacy paging, whose shadow is
 * L0's: it shows what the first L2 wrote there, whether the page was mapped
 * before it came to be in use as a table or after, in 4K or in 2M.  The other one
 * is a root token: a write ends its address space, also its own.
 *
 *   untracked=1   the VMM makes the writes, behind L0's back: must fail
 */
#include <asm/vmx.h>

#include "kpop_test.h"
#include "vmx.h"

#define TOKEN		token_of(0)
#define KVM_ID		25
#define OTHER_ID	26
#define ROUNDS		10
#define HUGE_AT		512		/* the pool's second 2M, offered as a whole */
#define NR_TABLES	3		/* of the legacy L2, one after the other */
#define NR_PAGES	4		/* of the pool: what that L2 may find */
#define VALUE(i)	(0x7ac4000ULL + (i))

enum { L2_WRITER, L2_LEGACY, L2_OTHER, NR_L2 };
enum { P_UNTRACKED, P_ROOT /* NR_TABLES of them */ };
/* What the writer has at which page of the window. */
enum { W_LEAF = 16, W_DIR, W_TOKEN };

enum { STAGE_WRITE, STAGE_HUGE };
enum { V_PAGES_2M, V_ENTRIES };

/* GPAs of the entries in a table that lead to the window's first page. */
struct entries {
	u64 leaf, dir, other_leaf_table;
};

static struct entries *entries_of(struct l1_shared *sh, int i)
{
	return (struct entries *)&sh->val[V_ENTRIES] + i;
}

/* ---- L1 ---- */

static u64 l2_add(u64 gva, u64 val)
{
	asm volatile("lock addq %0, (%1)" : : "r"(val), "r"(gva) : "memory");
	return val;
}

static void offer(u64 page, u64 l1_gpa, u64 npages)
{
	long r = kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(page), l1_gpa / KST_PAGE, npages);

	__GUEST_ASSERT(r == npages, "MAP: %ld", r);
}

/* The writer's L2 puts @val at @l1_gpa, which is in page @page of its window. */
static void writes(struct l1_shared *sh, u64 page, u64 l1_gpa, u64 val)
{
	struct l2 *l2 = sh->l2[L2_WRITER];

	if (sh->param[P_UNTRACKED]) {
		GUEST_SYNC3(STAGE_WRITE, l1_gpa, val);
		return;
	}
	if (l2_call(l2, l2_write, l2_gva(page) + l1_gpa % KST_PAGE, val) != L2_EXIT_CALL)
		GUEST_PRINTF("not ok - the write: exit 0x%lx, gpa 0x%lx\n", l2->exit.raw,
			     l2->exit.gpa);
	if (*(volatile u64 *)l1_gpa != val)
		GUEST_PRINTF("not ok - L1 finds 0x%lx\n", *(volatile u64 *)l1_gpa);
}

/* What L1 has to do when its tables change. */
static void flush(struct l2 *l2)
{
	struct { u64 eptp, zero; } desc = {};

	l2->flush = 1;
	if (host_cpu_is_intel)
		asm volatile("invept %0, %1" : : "m"(desc), "r"(2UL) : "cc", "memory");
}

static bool legacy_reads(struct l1_shared *sh, u64 i)
{
	flush(sh->l2[L2_LEGACY]);
	return l2_reads(sh->l2[L2_LEGACY], l2_gva(0), VALUE(i));
}

/*
 * The writer's L2 changes an entry, that of the first page or that of its table,
 * back and forth, and the legacy L2 sees each change.
 */
static void changes(struct l1_shared *sh, u64 page, u64 entry, u64 one, u64 one_is, u64 other_is,
		    u64 other, const char *what)
{
	u64 i, seen = 0;

	for (i = 0; i < ROUNDS; i++) {
		writes(sh, page, entry, i & 1 ? one : other);
		seen += legacy_reads(sh, i & 1 ? one_is : other_is);
	}
	G_EXPECT(seen, ROUNDS, what);
}

static void change_leaf(struct l1_shared *sh, u64 page, const struct entries *e, const char *what)
{
	u64 leaf = *(u64 *)e->leaf;

	changes(sh, page, e->leaf, leaf, 0, 1, leaf + KST_PAGE, what);
}

static void change_dir(struct l1_shared *sh, u64 page, const struct entries *e, const char *what)
{
	u64 dir = *(u64 *)e->dir;

	changes(sh, page, e->dir, dir, 0, 2, (dir & 0xfff) | e->other_leaf_table, what);
}

static void use_table(struct l1_shared *sh, int i)
{
	l2_set_root(sh->l2[L2_LEGACY], sh->param[P_ROOT + i]);
	G_CHECK(legacy_reads(sh, 0), "the legacy L2 reads by table %d", i);
}

static void test_tables(struct l1_shared *sh)
{
	const struct entries *e = entries_of(sh, 0);

	use_table(sh, 0);
	offer(W_LEAF, e->leaf & ~0xfffULL, 1);
	offer(W_DIR, e->dir & ~0xfffULL, 1);
	change_leaf(sh, W_LEAF, e, "a table in use, then offered: changes of a leaf seen");
	change_dir(sh, W_DIR, e, "changes of a directory's entry seen");

	e = entries_of(sh, 1);
	offer(W_LEAF, e->leaf & ~0xfffULL, 1);
	offer(W_DIR, e->dir & ~0xfffULL, 1);
	writes(sh, W_LEAF, e->leaf, *(u64 *)e->leaf);
	writes(sh, W_DIR, e->dir, *(u64 *)e->dir);
	use_table(sh, 1);
	change_leaf(sh, W_LEAF, e, "offered and written, then in use: changes of a leaf seen");
	change_dir(sh, W_DIR, e, "changes of a directory's entry seen");
}

/* Page of the window at which an L1 GPA of the pool's second 2M is. */
static u64 huge_page(u64 gpa)
{
	return (gpa - POOL_GPA) / KST_PAGE;
}

static void test_huge_tables(struct l1_shared *sh)
{
	const struct entries *e = entries_of(sh, 2);

	offer(HUGE_AT, POOL_GPA + HUGE_AT * KST_PAGE, 512);
	writes(sh, huge_page(e->leaf), e->leaf, *(u64 *)e->leaf);
	GUEST_SYNC1(STAGE_HUGE);
	if (!sh->val[V_PAGES_2M])
		GUEST_PRINTF("# L0 has no huge page here: it is 4K again\n");
	use_table(sh, 2);
	change_leaf(sh, huge_page(e->leaf), e, "in the middle of 2M: changes of a leaf seen");
	change_dir(sh, huge_page(e->dir), e, "changes of a directory's entry seen");
}

/* ---- tokens ---- */

static bool lives(u64 token)
{
	long r = kpop_map_once(token, KPOP_MAP_R, l2_gfn(0), pool_gfn(0), 1);

	return r > 0;
}

/* @gpa is page @page of the writer's window; it becomes a token, and is written to. */
static void token_dies(struct l1_shared *sh, u64 page, u64 gpa, l2_fn fn, u64 val, u64 want,
		       const char *what)
{
	struct l2 *l2 = sh->l2[L2_WRITER];
	u64 faults = l2->faults, r;

	G_EXPECT(kpop_load(gpa, sh->l2[L2_OTHER]->holder, OTHER_ID, 0), 0, "LOAD of the page");
	r = l2_call(l2, l2_read, l2_gva(page), 0);
	G_CHECK(r == L2_EXIT_CALL && !l2->ret && lives(gpa), "L2 reads it, the space lives");
	r = l2_call(l2, fn, l2_gva(page) + 64, val);
	G_CHECK(r == L2_EXIT_CALL && *(volatile u64 *)(gpa + 64) == want, "%s: exit %lu, 0x%lx",
		what, r, *(volatile u64 *)(gpa + 64));
	G_EXPECT(kpop_map_once(gpa, KPOP_MAP_R, l2_gfn(0), pool_gfn(0), 1), -ENOENT,
		 "MAP in that space");
	G_EXPECT(l2->faults, faults, "faults that reached L1 since");
	memset((void *)gpa, 0, KST_PAGE);
}

/* The next byte is the first of the token. */
static void beside_token(struct l1_shared *sh, u64 page, u64 gpa)
{
	struct l2 *l2 = sh->l2[L2_WRITER];

	G_EXPECT(kpop_load(gpa, sh->l2[L2_OTHER]->holder, OTHER_ID, 0), 0, "LOAD of the page");
	G_EXPECT(l2_call(l2, l2_write, l2_gva(page) - 8, 1), L2_EXIT_CALL, "a write before it");
	G_EXPECT(l2_call(l2, l2_write, l2_gva(page + 1), 1), L2_EXIT_CALL, "and behind it");
	G_CHECK(lives(gpa), "its space lives");
	G_EXPECT(l2_call(l2, l2_write, l2_gva(page) - 4, ~0ULL), L2_EXIT_CALL,
		 "a write over its edge");
	G_CHECK(!lives(gpa) && *(u32 *)gpa == ~0U, "its space is gone, what was written is there");
	memset((void *)gpa, 0, KST_PAGE);
}

static void test_tokens(struct l1_shared *sh)
{
	u64 before = POOL_GPA + 8 * KST_PAGE, after = POOL_GPA + 9 * KST_PAGE;
	u64 huge = HUGE_AT + 300, gpa = POOL_GPA + huge * KST_PAGE;
	struct l2 *l2 = sh->l2[L2_WRITER];

	G_EXPECT(kpop_load(after, sh->l2[L2_OTHER]->holder, OTHER_ID, 0), 0, "LOAD");
	offer(W_TOKEN, after, 1);
	token_dies(sh, W_TOKEN, after, l2_write, 5, 5, "a token, then offered: a write");
	offer(W_TOKEN, before, 1);
	G_EXPECT(l2_call(l2, l2_write, l2_gva(W_TOKEN), 0), L2_EXIT_CALL, "L2 writes to a page");
	token_dies(sh, W_TOKEN, before, l2_write, 6, 6, "a page, then a token: a write");
	token_dies(sh, W_TOKEN, before, l2_add, 7, 7, "again: a locked add");

	offer(HUGE_AT, POOL_GPA + HUGE_AT * KST_PAGE, 512);
	memset((void *)gpa, 0, KST_PAGE);
	G_EXPECT(l2_call(l2, l2_write, l2_gva(huge), 0), L2_EXIT_CALL,
		 "L2 writes in the middle of 2M");
	beside_token(sh, huge, gpa);
	token_dies(sh, huge, gpa, l2_write, 8, 8, "a token in the middle of 2M: a write");
}

/* Its own: L2 has nothing to stand on behind the write. */
static void test_own_token(struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[L2_WRITER];

	offer(W_TOKEN, TOKEN, 1);
	G_EXPECT(l2_call(l2, l2_write, l2_gva(W_TOKEN) + 64, 9), L2_EXIT_FAULT,
		 "L2 writes to the token that it runs on: L1 gets a fault");
	G_EXPECT(kpop_map_once(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1), -ENOENT, "its MAP");
	G_EXPECT(*(volatile u64 *)(TOKEN + 64), 9, "what was written");
	memset((void *)TOKEN, 0, KST_PAGE);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	G_EXPECT(l2_resume(l2), L2_EXIT_CALL, "L1 starts anew: L2 goes on");
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	u64 i;

	for (i = 0; i < NR_PAGES; i++)
		*pool_ptr(i) = VALUE(i);
	l1_virt_on(sh->l2[0]);
	l2_on_kpop(sh->l2[L2_WRITER], TOKEN, KVM_ID, 0);
	l2_setup(sh->l2[L2_LEGACY], sh->param[P_ROOT]);
	test_tables(sh);
	test_huge_tables(sh);
	if (!sh->param[P_UNTRACKED]) {
		test_tokens(sh);
		test_own_token(sh);
	}
	GUEST_DONE();
}

/* ---- the VMM ---- */

/* @i: in the pool's second 2M for the last one. */
static void build_table(struct tvm *t, int i)
{
	struct entries *e = entries_of(t->sh, i);
	u64 root, other;

	if (i == NR_TABLES - 1)
		t->next_table = POOL_GPA + HUGE_AT * KST_PAGE;
	root = table_legacy(t, NR_PAGES);
	e->leaf = table_entry(t, root, L2_GPA, PG_LEVEL_4K);
	e->dir = table_entry(t, root, L2_GPA, PG_LEVEL_2M);
	/* A table whose first page is another one. */
	other = table_new(t);
	memcpy(tvm_gpa(t, other), tvm_gpa(t, e->leaf & ~0xfffULL), KST_PAGE);
	*(u64 *)tvm_gpa(t, other) += 2 * KST_PAGE;
	e->other_leaf_table = other;
	t->sh->param[P_ROOT + i] = root;
}

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	switch (args[0]) {
	case STAGE_WRITE:
		*(volatile u64 *)tvm_gpa(t, args[1]) = args[2];
		break;
	case STAGE_HUGE:
		t->sh->val[V_PAGES_2M] = vm_get_stat(t->vm, "pages_2m");
		break;
	}
}

int main(int argc, char **argv)
{
	struct tvm_opts o = {
		.guest = { l1_main },
		.nr_l2 = NR_L2,
		.pool_src = VM_MEM_SRC_ANONYMOUS_THP,
		.sync = on_sync,
	};
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;
	int i;

	kst_begin("kpop_tracked_test", 400);
	t = tvm_create(&o);
	kpop_info(t, &info);
	t->sh->param[P_UNTRACKED] = kst_param(argc, argv, "untracked", 0);
	for (i = 0; i < NR_TABLES; i++)
		build_table(t, i);
	policy_serve(&p, "kpop_base", t);
	tvm_run(t);
	kpop_check_tables(t);
	policy_stop(&p, t);
	kst_check(kpop_none_left(t, &info), "nothing left (%llu bytes)", info.bytes);
	tvm_free(t);
	return kst_end();
}
