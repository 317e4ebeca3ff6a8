// SPDX-License-Identifier: GPL-2.0
/*
 * What L2 wrote and accessed, read in bulk by L1: exact to the page, with no
 * exit to L1, and a log outlives whatever happens to mappings; when it is lost,
 * L1 is told.
 */
#include "kpop_test.h"

#define TOKEN		token_of(0)
#define KVM_ID		16
#define PAGES		64
#define HUGE_AT		512
#define DEV_GPA		0x900000000ULL		/* no memslot of L0's */
#define DEV_VALUE	0x0dd5ULL
#define RET_INSN	0xc3
#define NX_PARAM	"/sys/module/kvm/parameters/nx_huge_pages"

enum { V_DEV_GPA, V_DEV_WRITES };

/* The answer: a page of the pool, whose address L1 knows. */
#define BITS_PAGE	1400
#define bits		pool_ptr(BITS_PAGE)

static long track(u64 op, u64 as_id, u64 kvm_id, u64 l2, u64 npages, u64 to)
{
	return kvm_hypercall(KVM_HC_KPOP_MMU_TRACK, op | as_id << KPOP_AS_ID_SHIFT,
			     kvm_id | npages << 32, l2, to);
}

static long read_bits(u64 op, u64 page, u64 npages)
{
	memset((void *)bits, 0xff, KST_PAGE);
	return track(op, 0, KVM_ID, l2_gfn(page), npages, POOL_GPA + BITS_PAGE * KST_PAGE);
}

static long log_op(u64 op, u64 page, u64 npages)
{
	return track(op, 0, KVM_ID, l2_gfn(page), npages, 0);
}

/* The answer is exactly the pages of @want, of 64 from @page on. */
static void expect_bits(u64 op, u64 page, u64 want, const char *what)
{
	long r = read_bits(op, page, 64);

	G_CHECK(r == __builtin_popcountll(want) && bits[0] == want && bits[1] == ~0ULL,
		"%s: 0x%lx, answer %ld", what, bits[0], r);
}

static void l2_writes(struct l2 *l2, u64 page)
{
	u64 r = l2_call(l2, l2_write, l2_gva(page), page);

	if (r != L2_EXIT_CALL)
		GUEST_PRINTF("not ok - L2's write to page %lu: exit 0x%lx\n", page, l2->exit.raw);
}

static void l2_touches(struct l2 *l2, u64 page)
{
	u64 r = l2_call(l2, l2_read, l2_gva(page), 0);

	if (r != L2_EXIT_CALL)
		GUEST_PRINTF("not ok - L2's read of page %lu: exit 0x%lx\n", page, l2->exit.raw);
}

static void map_all(void)
{
	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), PAGES), PAGES,
		 "MAP of pages, eagerly");
}

static void test_log(struct l2 *l2)
{
	u64 i, faults = l2->faults;

	for (i = 0; i < PAGES; i++)
		l2_writes(l2, i);
	G_EXPECT(log_op(KPOP_TRACK_LOG_START, 0, PAGES), 0, "LOG_START");
	G_EXPECT(log_op(KPOP_TRACK_LOG_START, 0, PAGES), 0, "LOG_START of the same again");
	expect_bits(KPOP_TRACK_LOG_READ, 0, 0, "nothing written since");
	l2_writes(l2, 3);
	l2_writes(l2, 17);
	l2_touches(l2, 20);
	expect_bits(KPOP_TRACK_LOG_READ, 0, 1ULL << 3 | 1ULL << 17, "two writes and a read");
	l2_writes(l2, 3);
	expect_bits(KPOP_TRACK_LOG_READ, 0, 1ULL << 3, "one of them written again");
	expect_bits(KPOP_TRACK_LOG_READ, 0, 0, "nothing since");
	l2_writes(l2, 63);
	G_EXPECT(l2->faults, faults, "faults that reached L1 since");

	kpop_unmap(KVM_ID, l2_gfn(0), PAGES);
	expect_bits(KPOP_TRACK_LOG_READ, 0, 1ULL << 63, "the write before an UNMAP");
	map_all();
	expect_bits(KPOP_TRACK_LOG_READ, 0, 0, "a MAP is no write");
	kpop_map(TOKEN, KPOP_MAP_RWX | KPOP_MAP_WRITTEN, l2_gfn(5), pool_gfn(5), 1);
	expect_bits(KPOP_TRACK_LOG_READ, 0, 1ULL << 5, "but one for a write is");
	l2_writes(l2, 6);
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(6), pool_gfn(7), 1);
	l2_writes(l2, 7);
	expect_bits(KPOP_TRACK_LOG_READ, 0, 3ULL << 6, "a write before a remap, one after");
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(6), pool_gfn(6), 1);

	l2_writes(l2, 9);
	G_EXPECT(kpop_unload_root(TOKEN, KVM_ID, 0), 0, "UNLOAD of the root");
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	map_all();
	expect_bits(KPOP_TRACK_LOG_READ, 0, 1ULL << 9, "the write before it");
	l2_writes(l2, 10);
	expect_bits(KPOP_TRACK_LOG_READ, 0, 1ULL << 10, "a write under the new root");
	G_EXPECT(log_op(KPOP_TRACK_LOG_STOP, 0, PAGES), 0, "LOG_STOP");
	G_EXPECT(read_bits(KPOP_TRACK_LOG_READ, 0, 64), -ENOENT, "LOG_READ without a log");
	l2_writes(l2, 3);
}

static void test_huge(struct l2 *l2)
{
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(HUGE_AT), pool_gfn(HUGE_AT), 512);
	l2_writes(l2, HUGE_AT);
	G_EXPECT(log_op(KPOP_TRACK_LOG_START, HUGE_AT, 512), 0, "LOG_START over 2M");
	l2_writes(l2, HUGE_AT + 64 + 8);
	G_EXPECT(read_bits(KPOP_TRACK_LOG_READ, HUGE_AT, 512), 1, "pages written of 2M");
	G_CHECK(bits[1] == 1 << 8 && !bits[0] && !bits[7], "the one that was");
	l2_writes(l2, HUGE_AT + 64 + 9);
	expect_bits(KPOP_TRACK_LOG_READ, HUGE_AT + 64, 1 << 9, "a part of the log");
	G_EXPECT(log_op(KPOP_TRACK_LOG_STOP, HUGE_AT, 512), 0, "LOG_STOP");
}

/* A page that is not logged shares its 2M with some that are. */
static void test_part(struct l2 *l2)
{
	u64 at = HUGE_AT + 256;

	kpop_unmap(KVM_ID, l2_gfn(HUGE_AT), 512);
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(HUGE_AT), pool_gfn(HUGE_AT), 512);
	G_EXPECT(log_op(KPOP_TRACK_LOG_START, at, 256), 0, "LOG_START of half of 2M");
	l2_writes(l2, HUGE_AT);
	l2_writes(l2, at + 44);
	expect_bits(KPOP_TRACK_LOG_READ, at, 1ULL << 44, "a write in it, after one beside it");
	G_EXPECT(log_op(KPOP_TRACK_LOG_STOP, at, 256), 0, "LOG_STOP");
}

/* The log makes 4K of 2M; with NX huge pages KVM gives those X, its own at least. */
static void test_no_exec(struct l2 *l2)
{
	u64 page = HUGE_AT + 3;

	*pool_ptr(page) = RET_INSN;
	kpop_map(TOKEN, KPOP_MAP_R | KPOP_MAP_W, l2_gfn(HUGE_AT), pool_gfn(HUGE_AT), 512);
	l2_writes(l2, HUGE_AT + 1);
	log_op(KPOP_TRACK_LOG_START, HUGE_AT, 512);
	l2_writes(l2, HUGE_AT + 2);
	G_CHECK(l2_faults_at(l2, l2_exec, l2_gva(page), 0, KPOP_MAP_X, true),
		"no X where none was offered, after a split with NX huge pages on");
	log_op(KPOP_TRACK_LOG_STOP, HUGE_AT, 512);
}

static void test_lost(struct l2 *l2)
{
	log_op(KPOP_TRACK_LOG_START, 0, PAGES);
	G_EXPECT(kpop_query(KPOP_QUERY_RESET), 0, "RESET");
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	map_all();
	l2_writes(l2, 1);
	G_EXPECT(read_bits(KPOP_TRACK_LOG_READ, 0, 64), -ENOENT, "LOG_READ of a lost log");
}

static void test_age(struct l2 *l2)
{
	u64 faults = l2->faults;

	kpop_unmap(KVM_ID, l2_gfn(0), PAGES);
	kpop_map(TOKEN, KPOP_MAP_RWX | KPOP_MAP_LAZY, l2_gfn(0), pool_gfn(0), PAGES);
	expect_bits(KPOP_TRACK_AGE, 0, 0, "AGE: no page is touched yet");
	l2_touches(l2, 5);
	l2_writes(l2, 9);
	expect_bits(KPOP_TRACK_TEST_AGE, 0, 1 << 5 | 1 << 9, "TEST_AGE after two accesses");
	expect_bits(KPOP_TRACK_AGE, 0, 1 << 5 | 1 << 9, "AGE");
	expect_bits(KPOP_TRACK_AGE, 0, 0, "AGE again");
	l2_touches(l2, 9);
	expect_bits(KPOP_TRACK_AGE, 0, 1 << 9, "AGE after one more access");
	G_EXPECT(l2->faults, faults, "faults that reached L1 since");
}

static void test_refused(void)
{
	static const struct {
		long want;
		u64 op, as_id, kvm_id, l2, npages, to;
		const char *what;
	} bad[] = {
		{ -EINVAL, 7, 0, KVM_ID, 0, 64, 0, "unknown operation" },
		{ -EINVAL, KPOP_TRACK_AGE, 2, KVM_ID, 0, 64, 0x1000, "as_id 2" },
		{ -EINVAL, KPOP_TRACK_AGE, 0, 0, 0, 64, 0x1000, "kvm_id 0" },
		{ -EINVAL, KPOP_TRACK_AGE, 0, KVM_ID, 0, 0, 0x1000, "no pages" },
		{ -EINVAL, KPOP_TRACK_AGE, 0, KVM_ID, 0, 32769, 0x1000, "too many pages" },
		{ -EINVAL, KPOP_TRACK_AGE, 0, KVM_ID, 0, 64, 0x1004, "unaligned answer" },
		{ -EINVAL, KPOP_TRACK_AGE, 0, KVM_ID, 0, 128, 0x1ff8, "answer in two pages" },
		{ -EINVAL, KPOP_TRACK_AGE, 0, KVM_ID, ~0ULL, 64, 0x1000, "range overflows" },
		{ -EINVAL, KPOP_TRACK_AGE, 0, KVM_ID, 0, 64, ~0xfffULL, "answer beyond all gfns" },
		{ -EFAULT, KPOP_TRACK_AGE, 0, KVM_ID, 0, 64, DEV_GPA, "answer is no memory" },
		{ -EINVAL, KPOP_TRACK_LOG_START, 0, KVM_ID, 0, 64, 0x1000, "LOG_START with answer" },
		{ -EINVAL, KPOP_TRACK_LOG_STOP, 0, KVM_ID, 0, 64, 0x1000, "LOG_STOP with answer" },
		{ -ENOENT, KPOP_TRACK_LOG_STOP, 0, KVM_ID, 0, 64, 0, "LOG_STOP of no log" },
		{ -EINVAL, KPOP_TRACK_LOG_START, 0, KVM_ID, 0, 0xffffffff, 0, "a log beyond all gfns" },
	};
	u64 i;

	for (i = 0; i < ARRAY_SIZE(bad); i++)
		G_EXPECT(track(bad[i].op, bad[i].as_id, bad[i].kvm_id, bad[i].l2,
			       bad[i].npages, bad[i].to), bad[i].want, bad[i].what);

	log_op(KPOP_TRACK_LOG_START, 0, 128);
	G_EXPECT(log_op(KPOP_TRACK_LOG_START, 127, 1), -EBUSY, "a log over another one");
	G_EXPECT(log_op(KPOP_TRACK_LOG_STOP, 0, 64), -ENOENT, "LOG_STOP of a part");
	G_EXPECT(read_bits(KPOP_TRACK_LOG_READ, 1, 64), -EINVAL, "LOG_READ from page 1 on");
	G_EXPECT(read_bits(KPOP_TRACK_LOG_READ, 0, 63), -EINVAL, "LOG_READ of 63 pages");
	G_EXPECT(read_bits(KPOP_TRACK_LOG_READ, 0, 192), -EINVAL, "LOG_READ beyond the end");
	log_op(KPOP_TRACK_LOG_STOP, 0, 128);
	for (i = 0; i < 200 && !log_op(KPOP_TRACK_LOG_START, i, 1); i++)
		;
	G_EXPECT(i, 128, "logs at a time");
	while (i--)
		log_op(KPOP_TRACK_LOG_STOP, i, 1);
	G_EXPECT(kpop_map_once(TOKEN, KPOP_MAP_R | KPOP_MAP_WRITTEN, l2_gfn(0), pool_gfn(0), 1),
		 -EINVAL, "MAP for a write without W");
}

/* A device of L0 that L1 gives to L2: L0's VMM is asked, at L1's address. */
static void test_device(struct l2 *l2, struct l1_shared *sh)
{
	u64 faults = l2->faults, gfn = DEV_GPA / KST_PAGE;

	G_EXPECT(kpop_map_once(TOKEN, KPOP_MAP_RWX, l2_gfn(100), gfn, 2), -EFAULT,
		 "MAP of what is no memory");
	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX | KPOP_MAP_DEVICE, l2_gfn(100), gfn, 2), 2,
		 "the same as a device");
	G_EXPECT(l2_call(l2, l2_read, l2_gva(101) + 0x10, 0), L2_EXIT_CALL, "L2 reads there");
	G_EXPECT(l2->ret, DEV_VALUE, "what it gets");
	G_EXPECT(sh->val[V_DEV_GPA], DEV_GPA + 0x1010, "where L0's VMM was asked");
	l2_call(l2, l2_write, l2_gva(100), 1);
	G_EXPECT(sh->val[V_DEV_WRITES], 1, "writes that reached L0's VMM");
	G_EXPECT(l2->faults, faults, "faults that reached L1 since");
	kpop_unmap(KVM_ID, l2_gfn(100), 2);
	G_CHECK(l2_faults_at(l2, l2_read, l2_gva(101), 0, KPOP_MAP_R, false),
		"after an UNMAP it is gone");
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];

	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	map_all();
	test_refused();
	map_all();
	test_log(l2);
	test_huge(l2);
	test_part(l2);
	test_age(l2);
	test_device(l2, sh);
	test_lost(l2);
	GUEST_DONE();
}

static void l1_nx_huge(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];

	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	test_no_exec(l2);
	GUEST_DONE();
}

static void on_mmio(struct tvm *t, struct kvm_run *run)
{
	u64 value = DEV_VALUE;

	t->sh->val[V_DEV_GPA] = run->mmio.phys_addr;
	if (run->mmio.is_write)
		t->sh->val[V_DEV_WRITES]++;
	else
		memcpy(run->mmio.data, &value, sizeof(value));
}

static void set_nx_huge(const char *val)
{
	int fd = open(NX_PARAM, O_WRONLY | O_CLOEXEC);

	kst_check(fd >= 0 && write(fd, val, strlen(val)) == strlen(val),
		  "nx_huge_pages is %s", val);
	close(fd);
}

static void run_l1(tvm_guest_fn l1)
{
	struct tvm_opts o = {
		.guest = { l1 },
		.nr_l2 = 1,
		.pool_pages = 1536,
		.pool_src = VM_MEM_SRC_ANONYMOUS_THP,
		.mmio = on_mmio,
	};
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;

	t = tvm_create(&o);
	kpop_info(t, &info);
	policy_serve(&p, "kpop_base", t);
	tvm_run(t);
	policy_stop(&p, t);
	kst_check(kpop_none_left(t, &info), "nothing left (%llu bytes)", info.bytes);
	tvm_free(t);
}

int main(int argc, char **argv)
{
	kst_begin("kpop_track_test", 120);
	run_l1(l1_main);
	set_nx_huge("force");
	run_l1(l1_nx_huge);
	set_nx_huge("auto");
	return kst_end();
}
