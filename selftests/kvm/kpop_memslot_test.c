// SPDX-License-Identifier: GPL-2.0
/*
 * A space outlives its L0 root (4a.6): the VMM deletes, moves and creates
 * memslots under a mapped L2.  Translations stay, what they lead to follows the
 * memslots, nothing stale is left.
 *
 *   rounds=N   memslot changes under a reader
 */
#include "kpop_test.h"

#define TOKEN		token_of(0)
#define KVM_ID		8
#define OTHER_SLOT	10
#define OTHER_GPA	0x600000000ULL
#define MOVED_GPA	0x700000000ULL
#define SWAP_SLOT	11
#define SWAP_GPA	0x50000000ULL		/* the slot that comes and goes */
#define SWAP_GFN	(SWAP_GPA / KST_PAGE)
#define SWAP_PAGES	16
#define VAL_ONE		0x1111ULL
#define VAL_TWO		0x2222ULL
#define VAL_MMIO	0xdeb1ceULL		/* what the VMM answers where no memory is */

enum {
	STAGE_ADD_OTHER, STAGE_DEL_OTHER, STAGE_DEL, STAGE_ADD, STAGE_ADD_TWO, STAGE_MOVE,
	STAGE_READONLY, STAGE_INFO,
};
enum { PH_READY, PH_DONE };
enum { V_PAGES, V_SPACES, V_BAD, V_MMIO_GPA, V_MMIO_WRITES };

static bool reads(struct l2 *l2, u64 page, u64 want)
{
	return l2_reads(l2, l2_gva(page), want);
}

/*
 * No memory behind what L1 granted: L0's VMM is asked, at L1's address, as L1
 * itself would be; or L1 gets the fault.  Never what was there before.
 */
static bool denied(struct l2 *l2, struct l1_shared *sh, u64 page, u64 l1_gpa)
{
	u64 r;

	sh->val[V_MMIO_GPA] = 0;
	r = l2_call(l2, l2_read, l2_gva(page), 0);
	if (r == L2_EXIT_FAULT)
		return (l2->exit.gpa & ~0xfffULL) == l2_gva(page);
	if (r == L2_EXIT_CALL && l2->ret == VAL_MMIO && sh->val[V_MMIO_GPA] == l1_gpa)
		return true;
	GUEST_PRINTF("# L2 read: exit %lu (0x%lx), value 0x%lx, the VMM was asked for 0x%lx\n",
		     r, l2->exit.raw, l2->ret, sh->val[V_MMIO_GPA]);
	return false;
}

static void test_unrelated(struct l2 *l2, struct l1_shared *sh)
{
	u64 pages;

	GUEST_SYNC1(STAGE_INFO);
	pages = sh->val[V_PAGES];
	GUEST_SYNC1(STAGE_ADD_OTHER);
	G_CHECK(reads(l2, 0, VAL_ONE), "after an unrelated memslot came");
	GUEST_SYNC1(STAGE_DEL_OTHER);
	G_CHECK(reads(l2, 0, VAL_ONE), "after it went");
	GUEST_SYNC1(STAGE_INFO);
	G_EXPECT(sh->val[V_PAGES], pages, "translations that are known");
	G_EXPECT(sh->val[V_SPACES], 1, "spaces");
	G_EXPECT(l2->faults, 0, "faults that reached L1");
}

static void test_gone(struct l2 *l2, struct l1_shared *sh)
{
	long r;

	GUEST_SYNC1(STAGE_DEL);
	G_CHECK(denied(l2, sh, 0, SWAP_GPA), "the memslot went: L2 does not get its old data");
	G_CHECK(l2_reads(l2, (u64)&l2->asid, l2->asid), "L2 itself runs on");
	r = kpop_map_once(TOKEN, KPOP_MAP_RWX, l2_gfn(0), SWAP_GFN, 1);
	G_EXPECT(r, -EFAULT, "MAP of an L1 gfn without memslot");
	r = kpop_map_once(TOKEN, KPOP_MAP_RWX, l2_gfn(9), SWAP_GFN, 1);
	G_EXPECT(r, -EFAULT, "the same at a new L2 gfn");
	GUEST_SYNC1(STAGE_ADD);
	G_CHECK(reads(l2, 0, VAL_ONE) && reads(l2, 3, VAL_ONE + 3),
		"with the memslot back L2 reads its data: translations stay");
	G_EXPECT(l2->faults, 0, "faults that reached L1");
}

/* Same L1 gfns, other memory: whatever L2 reads must be of now. */
static void test_other_memory(struct l2 *l2)
{
	GUEST_SYNC1(STAGE_DEL);
	GUEST_SYNC1(STAGE_ADD_TWO);
	G_CHECK(reads(l2, 0, VAL_TWO) && reads(l2, 3, VAL_TWO + 3),
		"other memory in the memslot: L2 reads that");
	GUEST_SYNC1(STAGE_DEL);
	GUEST_SYNC1(STAGE_ADD);
	G_CHECK(reads(l2, 0, VAL_ONE), "and the first memory again");
}

static void test_move(struct l2 *l2, struct l1_shared *sh)
{
	GUEST_SYNC1(STAGE_MOVE);
	G_CHECK(denied(l2, sh, 0, SWAP_GPA),
		"the memslot moved away: L2 has nothing at the old L1 gfn");
	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), MOVED_GPA / KST_PAGE, 4), 4,
		 "MAP of its new L1 gfns");
	G_CHECK(reads(l2, 0, VAL_ONE) && reads(l2, 3, VAL_ONE + 3), "L2 reads its data there");
	GUEST_SYNC1(STAGE_DEL);
	G_CHECK(denied(l2, sh, 0, MOVED_GPA), "gone from there too");
	GUEST_SYNC1(STAGE_ADD);
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), SWAP_GFN, 4);
	G_CHECK(reads(l2, 0, VAL_ONE), "back where it was");
}

static void test_readonly(struct l2 *l2, struct l1_shared *sh)
{
	GUEST_SYNC1(STAGE_DEL);
	GUEST_SYNC1(STAGE_READONLY);
	G_CHECK(reads(l2, 0, VAL_ONE), "a read-only memslot can be read");
	sh->val[V_MMIO_WRITES] = 0;
	G_CHECK(l2_call(l2, l2_write, l2_gva(0), 0xbad) == L2_EXIT_FAULT ||
		(sh->val[V_MMIO_WRITES] && sh->val[V_MMIO_GPA] == SWAP_GPA),
		"L2's write to it goes to the VMM, or to L1");
	G_CHECK(reads(l2, 0, VAL_ONE), "it changed nothing");
}

static u64 l2_watch(u64 arg, u64 unused)
{
	struct l1_shared *sh = (void *)arg;
	u64 n = 0;

	for (; !sh->stop; n++)
		if (READ_ONCE(*(u64 *)l2_gva(100)) != VAL_ONE)
			sh->val[V_BAD]++;
	return n;
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];

	l1_virt_on(l2);
	GUEST_SYNC1(STAGE_ADD);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	GUEST_ASSERT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), SWAP_GFN, 4) == 4);
	G_CHECK(reads(l2, 0, VAL_ONE), "L2 reads its data");
	test_unrelated(l2, sh);
	test_gone(l2, sh);
	test_other_memory(l2);
	test_move(l2, sh);
	test_readonly(l2, sh);

	/* From here on the host changes memslots while L2 reads. */
	*pool_ptr(100) = VAL_ONE;
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(100), pool_gfn(100), 1);
	l2->faults = 0;
	sh->phase[PH_READY] = 1;
	GUEST_ASSERT(l2_call(l2, l2_watch, (u64)sh, 0) == L2_EXIT_CALL);
	G_EXPECT(sh->val[V_BAD], 0, "wrong values under a stream of memslot changes");
	G_EXPECT(l2->faults, 0, "faults that reached L1");
	G_CHECK(l2->ret > 0, "L2 read %lu times", l2->ret);
	GUEST_DONE();
}

/* ---- host ---- */

static u64 *memory[2];

static u64 *new_memory(u64 first)
{
	u64 *p = mmap(NULL, SWAP_PAGES * KST_PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	u64 i;

	TEST_ASSERT(p != MAP_FAILED, "mmap");
	for (i = 0; i < SWAP_PAGES; i++)
		p[i * KST_PAGE / sizeof(*p)] = first + i;
	return p;
}

static void slot(struct tvm *t, u32 nr, u32 flags, u64 gpa, void *mem)
{
	vm_set_user_memory_region(t->vm, nr, flags, gpa, mem ? SWAP_PAGES * KST_PAGE : 0,
				  mem);
}

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	struct kvm_kpop_info info;

	switch (args[0]) {
	case STAGE_ADD_OTHER:
		slot(t, OTHER_SLOT, 0, OTHER_GPA, memory[1]);
		break;
	case STAGE_DEL_OTHER:
		slot(t, OTHER_SLOT, 0, OTHER_GPA, NULL);
		break;
	case STAGE_DEL:
		slot(t, SWAP_SLOT, 0, SWAP_GPA, NULL);
		break;
	case STAGE_ADD:
		slot(t, SWAP_SLOT, 0, SWAP_GPA, memory[0]);
		break;
	case STAGE_ADD_TWO:
		slot(t, SWAP_SLOT, 0, SWAP_GPA, memory[1]);
		break;
	case STAGE_MOVE:
		slot(t, SWAP_SLOT, 0, MOVED_GPA, memory[0]);
		break;
	case STAGE_READONLY:
		slot(t, SWAP_SLOT, KVM_MEM_READONLY, SWAP_GPA, memory[0]);
		break;
	case STAGE_INFO:
		kpop_info(t, &info);
		t->sh->val[V_PAGES] = info.pages;
		t->sh->val[V_SPACES] = info.nr_spaces;
		break;
	}
}

static void on_mmio(struct tvm *t, struct kvm_run *run)
{
	u64 val = VAL_MMIO;

	t->sh->val[V_MMIO_GPA] = run->mmio.phys_addr;
	if (run->mmio.is_write)
		t->sh->val[V_MMIO_WRITES]++;
	else
		memcpy(run->mmio.data, &val, run->mmio.len);
}

int main(int argc, char **argv)
{
	struct tvm_opts o = {
		.guest = { l1_main }, .nr_l2 = 1, .sync = on_sync, .mmio = on_mmio,
	};
	u64 rounds = kst_param(argc, argv, "rounds", 100), i;
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;

	kst_begin("kpop_memslot_test", 300);
	memory[0] = new_memory(VAL_ONE);
	memory[1] = new_memory(VAL_TWO);
	t = tvm_create(&o);
	kpop_info(t, &info);
	policy_serve(&p, "kpop_base", t);
	tvm_start(t);
	kst_wait(t->sh->phase[PH_READY], 120000);
	for (i = 0; i < rounds; i++) {
		slot(t, OTHER_SLOT, 0, OTHER_GPA, memory[1]);
		slot(t, OTHER_SLOT, 0, OTHER_GPA, NULL);
	}
	t->sh->stop = 1;
	tvm_join(t);
	policy_stop(&p, t);
	tvm_free(t);
	return kst_end();
}
