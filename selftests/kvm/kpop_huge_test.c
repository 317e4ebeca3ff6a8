// SPDX-License-Identifier: GPL-2.0
/*
 * One run that is congruent over 1G, on a 1G page of the host: one leaf; and
 * what an UNMAP of one page in it leaves.
 */
#include "kpop_test.h"

#define TOKEN		token_of(0)
#define KVM_ID		17
#define HUGE_SLOT	12
#define HUGE_GPA	0x140000000ULL
#define HUGE_GFN	(HUGE_GPA / KST_PAGE)
#define PAGES_1G	(1ULL << 18)
#define NR_1G		"/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"

enum { V_1G, V_DIRECT };

/* Pages that hold their own number, within the window that L2 can address. */
static const u64 marked[] = { 0, 1, 511, 512, 77777, 131071 };
#define VICTIM	512

static bool reads_all(struct l2 *l2, u64 but)
{
	u64 i;

	for (i = 0; i < ARRAY_SIZE(marked); i++)
		if (marked[i] != but && !l2_reads(l2, l2_gva(marked[i]), 0x1e0 + marked[i]))
			return false;
	return true;
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];

	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), HUGE_GFN, PAGES_1G), PAGES_1G,
		 "MAP of 1G in one run");
	G_CHECK(reads_all(l2, -1), "L2 reads its data");
	GUEST_SYNC1(0);
	G_CHECK(sh->val[V_1G] >= 1, "1G leafs: %lu", sh->val[V_1G]);
	G_EXPECT(l2->faults, 0, "faults that reached L1");
	G_EXPECT(kpop_unmap(KVM_ID, l2_gfn(VICTIM), 1), 1, "UNMAP of one page in it");
	G_CHECK(l2_faults_at(l2, l2_read, l2_gva(VICTIM), 0, KPOP_MAP_R, false),
		"takes that page");
	G_CHECK(reads_all(l2, VICTIM), "and leaves the others");
	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(VICTIM), HUGE_GFN + VICTIM, 1), 1,
		 "MAP of it");
	G_CHECK(reads_all(l2, -1), "L2 reads all of its data");
	G_EXPECT(kpop_unmap(KVM_ID, l2_gfn(0), PAGES_1G), PAGES_1G, "UNMAP of 1G");
	G_CHECK(l2_faults_at(l2, l2_read, l2_gva(77777), 0, KPOP_MAP_R, false), "takes it all");
	GUEST_DONE();
}

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	t->sh->val[V_1G] = vm_get_stat(t->vm, "pages_1g");
}

/* The host may have one, or find a free gigabyte. */
static bool have_1g(void)
{
	int fd = open(NR_1G, O_RDWR), n = 0;
	char text[16] = {};

	if (fd < 0)
		return false;
	if (read(fd, text, sizeof(text) - 1) > 0)
		n = atoi(text);
	if (!n && write(fd, "1", 1) == 1 && lseek(fd, 0, SEEK_SET) == 0 &&
	    read(fd, text, sizeof(text) - 1) > 0)
		n = atoi(text);
	close(fd);
	return n;
}

int main(int argc, char **argv)
{
	struct tvm_opts o = { .guest = { l1_main }, .nr_l2 = 1, .sync = on_sync };
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;
	u64 i, *data;

	kst_begin("kpop_huge_test", 200);
	if (!have_1g())
		kst_skip("the host has no 1G page to give (%s)", NR_1G);
	t = tvm_create(&o);
	kpop_info(t, &info);
	vm_userspace_mem_region_add(t->vm, VM_MEM_SRC_ANONYMOUS_HUGETLB_1GB, HUGE_GPA, HUGE_SLOT,
				    PAGES_1G, 0);
	for (i = 0; i < ARRAY_SIZE(marked); i++) {
		data = addr_gpa2hva(t->vm, HUGE_GPA + marked[i] * KST_PAGE);
		*data = 0x1e0 + marked[i];
	}
	policy_serve(&p, "kpop_base", t);
	tvm_run(t);
	policy_stop(&p, t);
	tvm_free(t);
	/* Others need the memory. */
	i = open(NR_1G, O_WRONLY);
	kst_check(write(i, "0", 1) == 1, "the 1G page is given back");
	return kst_end();
}
