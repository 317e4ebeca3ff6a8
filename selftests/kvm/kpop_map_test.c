// SPDX-License-Identifier: GPL-2.0
/*
 * MAP and UNMAP as one L2 sees them: data, lazy and eager, page sizes, rights,
 * and what L1 is told about the accesses that they deny.
 */
#include "kpop_test.h"

#define TOKEN		token_of(0)
#define KVM_ID		7
#define PAGES_2M	512
#define STAGE_INFO	1
#define STAGE_STATS	2
#define RET_INSN	0xc3

/* val[] as the host fills it on STAGE_* */
enum { V_DIRECT, V_REFLECTED, V_PAGES, V_2M, V_4K, V_1G };

static void sync_info(struct l1_shared *sh)
{
	GUEST_SYNC1(STAGE_INFO);
}

static void test_data(struct l2 *l2)
{
	u64 i;

	for (i = 0; i < 4; i++)
		*pool_ptr(i) = 0x1000 + i;
	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 4), 4,
		 "MAP of 4 pages in one run");
	for (i = 0; i < 4; i++)
		G_CHECK(l2_reads(l2, l2_gva(i), 0x1000 + i), "L2 reads page %lu", i);
	l2_call(l2, l2_write, l2_gva(2), 0xabcd);
	G_CHECK(*pool_ptr(2) == 0xabcd, "L1 sees what L2 wrote");
	G_EXPECT(l2->faults, 0, "faults that reached L1");
}

/* An eager MAP of resident pages leaves nothing to fault, a lazy one all. */
static void test_lazy(struct l2 *l2, struct l1_shared *sh)
{
	u64 before, i;

	for (i = 16; i < 32; i++)
		*pool_ptr(i) = i;
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(16), pool_gfn(16), 8);
	sync_info(sh);
	before = sh->val[V_DIRECT];
	for (i = 16; i < 24; i++)
		l2_call(l2, l2_read, l2_gva(i), 0);
	sync_info(sh);
	G_EXPECT(sh->val[V_DIRECT] - before, 0, "faults in L0 after an eager MAP of 8 pages");

	kpop_map(TOKEN, KPOP_MAP_RWX | KPOP_MAP_LAZY, l2_gfn(24), pool_gfn(24), 8);
	sync_info(sh);
	before = sh->val[V_DIRECT];
	for (i = 24; i < 32; i++)
		G_CHECK(l2_reads(l2, l2_gva(i), i), "L2 reads lazy page %lu", i);
	sync_info(sh);
	G_EXPECT(sh->val[V_DIRECT] - before, 8, "faults in L0 after a lazy MAP of 8 pages");
	G_EXPECT(l2->faults, 0, "faults that reached L1");
}

/* Eager never waits: what is not resident in L0 becomes lazy (4a.9). */
static void test_absent(struct l2 *l2, struct l1_shared *sh)
{
	u64 page = 3 * PAGES_2M + 100, before, i;

	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(page), pool_gfn(page), 8), 8,
		 "eager MAP of 8 pages that L0 has not");
	sync_info(sh);
	before = sh->val[V_DIRECT];
	for (i = page; i < page + 8; i++)
		G_CHECK(l2_reads(l2, l2_gva(i), 0), "L2 reads absent page %lu", i);
	sync_info(sh);
	G_EXPECT(sh->val[V_DIRECT] - before, 8, "faults in L0 then");
	G_EXPECT(l2->faults, 0, "faults that reached L1");
}

static void test_rights(struct l2 *l2)
{
	long r;

	*pool_ptr(40) = 0x40;
	*(volatile u8 *)(pool_ptr(40) + 1) = RET_INSN;
	r = kpop_map_once(TOKEN, KPOP_MAP_R, l2_gfn(40), pool_gfn(40), 1);
	G_EXPECT(KPOP_MAP_DONE(r), 1, "read-only MAP");
	G_EXPECT(KPOP_MAP_RIGHTS(r), KPOP_MAP_R, "rights granted");
	G_CHECK(l2_reads(l2, l2_gva(40), 0x40), "L2 reads a read-only page");
	G_CHECK(l2_faults_at(l2, l2_write, l2_gva(40), 1, KPOP_MAP_W, true),
		"its write reaches L1 as a write to a present page");
	G_EXPECT(*pool_ptr(40), 0x40, "and changed nothing");
	G_CHECK(l2_faults_at(l2, l2_exec, l2_gva(40) + 8, 0, KPOP_MAP_X, true),
		"its fetch reaches L1 as a fetch from a present page");

	kpop_map(TOKEN, KPOP_MAP_R | KPOP_MAP_X, l2_gfn(40), pool_gfn(40), 1);
	G_EXPECT(l2_call(l2, l2_exec, l2_gva(40) + 8, 0), L2_EXIT_CALL,
		 "after MAP with X the fetch works");
	G_CHECK(l2_faults_at(l2, l2_write, l2_gva(40), 1, KPOP_MAP_W, true),
		"the write still does not");

	kpop_map(TOKEN, KPOP_MAP_R | KPOP_MAP_W, l2_gfn(40), pool_gfn(40), 1);
	G_EXPECT(l2_call(l2, l2_write, l2_gva(40), 0x41), L2_EXIT_CALL,
		 "after MAP with W the write works");
	G_EXPECT(*pool_ptr(40), 0x41, "and is seen");

	kpop_map(TOKEN, KPOP_MAP_R, l2_gfn(40), pool_gfn(40), 1);
	G_CHECK(l2_faults_at(l2, l2_write, l2_gva(40), 1, KPOP_MAP_W, true),
		"a MAP without W takes it away again");
}

static void test_unmap(struct l2 *l2)
{
	long r;

	G_CHECK(l2_faults_at(l2, l2_read, l2_gva(50), 0, KPOP_MAP_R, false),
		"a read of what was never offered reaches L1");
	G_CHECK(l2_faults_at(l2, l2_write, l2_gva(51), 0, KPOP_MAP_W, false),
		"so does a write");
	G_CHECK(l2_faults_at(l2, l2_exec, l2_gva(52), 0, KPOP_MAP_X, false),
		"and a fetch");
	G_CHECK(l2_faults_at(l2, l2_read, l2_gva(50) + 0x123, 0, KPOP_MAP_R, false) &&
		(l2->exit.gpa & 0xfff) == 0x123, "the address is exact");

	/* The access that faulted is made again after L1 offered the page. */
	*pool_ptr(50) = 0x50;
	l2_call(l2, l2_read, l2_gva(50), 0);
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(50), pool_gfn(50), 1);
	G_CHECK(l2_resume(l2) == L2_EXIT_CALL && l2->ret == 0x50,
		"L2 goes on after a MAP in answer to its fault");

	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(60), pool_gfn(60), 3);
	l2_call(l2, l2_write, l2_gva(60), 1);
	l2_call(l2, l2_write, l2_gva(61), 2);
	l2_call(l2, l2_write, l2_gva(62), 3);
	r = kpop_unmap(KVM_ID, l2_gfn(61), 1);
	G_EXPECT(r, 1, "UNMAP of the middle one of three pages");
	G_CHECK(l2_reads(l2, l2_gva(60), 1), "the one before is still there");
	G_CHECK(l2_faults_at(l2, l2_read, l2_gva(61), 0, KPOP_MAP_R, false),
		"the middle one is gone");
	G_CHECK(l2_reads(l2, l2_gva(62), 3), "the one behind is still there");
	G_EXPECT(kpop_unmap_flags(KPOP_UNMAP_ZAP, 0, KVM_ID, l2_gfn(60), 3), 3, "a zap");
	G_CHECK(l2_faults_at(l2, l2_read, l2_gva(60), 0, KPOP_MAP_R, false),
		"nothing is left behind it");
	/* Everything of an L2 VM: by what is mapped, not by 2^n steps. */
	G_EXPECT(kpop_unmap_flags(KPOP_UNMAP_ALL_AS | KPOP_UNMAP_ZAP, 0, KVM_ID,
				  l2_gfn(0), 1ULL << 24), 1ULL << 24, "UNMAP of 64 GiB");
	G_CHECK(l2_faults_at(l2, l2_read, l2_gva(50), 0, KPOP_MAP_R, false),
		"nothing of the window is left");
}

/* Pages in one run as single pages, from array and page of L1. */
static void test_batch(struct l2 *l2)
{
	struct kpop_map_run *runs = (void *)pool_ptr(70);
	long r;
	u64 i;

	for (i = 0; i < 8; i++) {
		*pool_ptr(80 + i) = 0x800 + i;
		runs[i] = (struct kpop_map_run){
			.l2_gfn = l2_gfn(90 + 2 * i),
			.l1_gfn = pool_gfn(80 + i),
			.npages = 1,
			.flags = KPOP_MAP_R | (i & 1 ? KPOP_MAP_LAZY : 0),
		};
	}
	r = kvm_hypercall(KVM_HC_KPOP_MMU_MAP, TOKEN | KPOP_MAP_BATCH, (u64)runs, 8, 0);
	G_EXPECT(r < 0 ? r : KPOP_MAP_DONE(r), 8, "MAP of a batch of 8 runs");
	for (i = 0; i < 8; i++)
		G_CHECK(l2_reads(l2, l2_gva(90 + 2 * i), 0x800 + i), "L2 reads run %lu", i);
	G_CHECK(l2_faults_at(l2, l2_read, l2_gva(91), 0, KPOP_MAP_R, false),
		"the gap between two runs is not mapped");
}

/* Both gfns on 2M and one run: a 2M leaf.  Off by one page: 4K, same data. */
static void test_huge(struct l2 *l2, struct l1_shared *sh)
{
	u64 before, i, bad = 0;

	for (i = PAGES_2M; i < 3 * PAGES_2M; i++)
		*pool_ptr(i) = i;
	GUEST_SYNC1(STAGE_STATS);
	before = sh->val[V_2M];
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(PAGES_2M), pool_gfn(PAGES_2M), PAGES_2M);
	for (i = 0; i < PAGES_2M; i++) {
		l2_call(l2, l2_read, l2_gva(PAGES_2M + i), 0);
		bad += l2->ret != PAGES_2M + i;
	}
	G_EXPECT(bad, 0, "wrong values in 2M of congruent pages");
	GUEST_SYNC1(STAGE_STATS);
	if (sh->param[0])
		G_EXPECT(sh->val[V_2M] - before, 1, "2M leafs that L0 added for them");
	else
		GUEST_PRINTF("skip - 2M leafs: L0 gave this VM no huge page\n");

	before = sh->val[V_2M];
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(4 * PAGES_2M), pool_gfn(2 * PAGES_2M + 1),
		 PAGES_2M - 1);
	for (bad = 0, i = 0; i < PAGES_2M - 1; i++) {
		l2_call(l2, l2_read, l2_gva(4 * PAGES_2M + i), 0);
		bad += l2->ret != 2 * PAGES_2M + 1 + i;
	}
	G_EXPECT(bad, 0, "wrong values in pages that are not congruent");
	GUEST_SYNC1(STAGE_STATS);
	G_EXPECT(sh->val[V_2M] - before, 0, "2M leafs that L0 added for those");
	G_EXPECT(l2->faults, 0, "faults that reached L1");

	/* One page out of the 2M leaf. */
	kpop_unmap(KVM_ID, l2_gfn(PAGES_2M + 7), 1);
	G_CHECK(l2_reads(l2, l2_gva(PAGES_2M + 6), PAGES_2M + 6) &&
		l2_reads(l2, l2_gva(PAGES_2M + 8), PAGES_2M + 8),
		"UNMAP of one page in a 2M leaf leaves its neighbours");
	G_CHECK(l2_faults_at(l2, l2_read, l2_gva(PAGES_2M + 7), 0, KPOP_MAP_R, false),
		"and takes that page");
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];

	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	test_data(l2);
	test_lazy(l2, sh);
	test_absent(l2, sh);
	test_huge(l2, sh);
	test_rights(l2);
	test_unmap(l2);
	test_batch(l2);
	G_EXPECT(kpop_unload_root(TOKEN, KVM_ID, 0), 0, "UNLOAD of the root");
	G_EXPECT(l2_call(l2, l2_read, l2_gva(90), 0), L2_EXIT_FAULT,
		 "L2 on the dead token has nothing, not even its code");
	GUEST_DONE();
}

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	struct kvm_kpop_info info;

	kpop_info(t, &info);
	t->sh->val[V_DIRECT] = info.faults_direct;
	t->sh->val[V_REFLECTED] = info.faults_reflected;
	t->sh->val[V_PAGES] = info.pages;
	t->sh->val[V_2M] = vm_get_stat(t->vm, "pages_2m");
	t->sh->val[V_4K] = vm_get_stat(t->vm, "pages_4k");
	t->sh->val[V_1G] = vm_get_stat(t->vm, "pages_1g");
}

/* hugetlb if there are pages or we can get some, else THP and hope. */
static bool have_hugetlb(int pages)
{
	char text[16];
	int fd = open("/proc/sys/vm/nr_hugepages", O_RDWR), n, got = 0;

	if (fd < 0)
		return false;
	n = snprintf(text, sizeof(text), "%d", pages);
	if (write(fd, text, n) == n && lseek(fd, 0, SEEK_SET) == 0) {
		n = read(fd, text, sizeof(text) - 1);
		text[n > 0 ? n : 0] = 0;
		got = atoi(text);
	}
	close(fd);
	return got >= pages;
}

int main(int argc, char **argv)
{
	bool huge = have_hugetlb(4);
	struct tvm_opts o = {
		.guest = { l1_main },
		.nr_l2 = 1,
		.pool_pages = 4 * PAGES_2M,
		.pool_src = huge ? VM_MEM_SRC_ANONYMOUS_HUGETLB : VM_MEM_SRC_ANONYMOUS_THP,
		.sync = on_sync,
	};
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;

	kst_begin("kpop_map_test", 300);
	t = tvm_create(&o);
	t->sh->param[0] = huge;
	kpop_info(t, &info);
	policy_serve(&p, "kpop_base", t);
	tvm_run(t);
	kpop_info(t, &info);
	kst_check(info.nr_spaces == 0, "no space is left (%u)", info.nr_spaces);
	kst_check(info.faults_reflected > 0, "L0 counts the faults that it gave to L1");
	policy_stop(&p, t);
	tvm_free(t);
	return kst_end();
}
