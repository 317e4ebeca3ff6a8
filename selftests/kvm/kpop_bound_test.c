// SPDX-License-Identifier: GPL-2.0
/*
 * What one L1 can make L0 use is bounded (contract 7): bytes by the VM's cap,
 * spaces and bindings by number, aliases of one L1 page by recycling (4a.10).
 * All of it is charged to the memcg of the VM, which has a memory.max here.
 */
#include "kpop_test.h"

#define TOKEN		token_of(0)
#define KVM_ID		12
#define CAP		(1ULL << 20)
#define FAR_GFN		(64ULL << 18)	/* where no page table is yet */
#define SCATTERED	20000
#define NR_TOKENS	5000		/* more than L0 takes */
#define MAX_SPACES	4096
#define MAX_BINDINGS	16384
#define MAX_ALIASES	1000
#define POOL_PAGES	32768ULL
#define MEMCG		"kpop_bound"
#define MEMCG_MAX	(400ULL << 20)	/* the pool, and room for the default of nothing else */
#define SLACK		(2ULL << 20)	/* slabs that are not full, and what is not KPOP's */

enum { STAGE_CAP, STAGE_NO_CAP, STAGE_BYTES, STAGE_ALIASES, STAGE_SPACES, STAGE_EMPTY };

/* Page tables count too, but L0 can take them back: all of these succeed. */
static void test_page_tables(void)
{
	u64 i, failed = 0;

	for (i = 0; i < 256; i++) {
		failed += kpop_map(TOKEN, KPOP_MAP_RWX, FAR_GFN + (i << 9), pool_gfn(i), 1) != 1;
		GUEST_SYNC1(STAGE_BYTES);
	}
	G_EXPECT(failed, 0, "of 256 MAPs, each with a page table of its own, those that failed");
}

/* No two neighbours: each is a run of its own. */
static void test_scattered(void)
{
	long r = 0, first = 0;
	u64 i;

	for (i = 0; i < SCATTERED; i++) {
		r = kpop_map_once(TOKEN, KPOP_MAP_RWX | KPOP_MAP_LAZY, l2_gfn(2 * i),
				  pool_gfn(i), 1);
		if (r < 0 && !first)
			first = r;
		if (!(i & 0x3ff))
			GUEST_SYNC1(STAGE_BYTES);
	}
	GUEST_SYNC1(STAGE_BYTES);
	G_EXPECT(first, -E2BIG, "lazy MAPs, until the cap is reached");
}

static void test_cap(struct l2 *l2)
{
	long r;

	GUEST_SYNC1(STAGE_CAP);
	*pool_ptr(0) = 0xca9;
	kpop_load(TOKEN, l2->holder, KVM_ID, 0);
	test_page_tables();
	test_scattered();
	G_EXPECT(kpop_unmap(KVM_ID, l2_gfn(0), 64), 64, "UNMAP at the cap");
	GUEST_SYNC1(STAGE_BYTES);
	G_EXPECT(kpop_unload_root(TOKEN, KVM_ID, 0), 0, "UNLOAD at the cap");
	GUEST_SYNC1(STAGE_EMPTY);
	G_EXPECT(kpop_load(TOKEN, l2->holder, KVM_ID, 0), 0, "LOAD after it");
	r = kpop_map_once(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1);
	G_EXPECT(r < 0 ? r : KPOP_MAP_DONE(r), 1, "MAP after it");
	kpop_unload_root(TOKEN, KVM_ID, 0);
	GUEST_SYNC1(STAGE_NO_CAP);
}

static void test_aliases(struct l2 *l2)
{
	u64 i, failed = 0, served = 0;

	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	*pool_ptr(5) = 0xa11a5;
	for (i = 0; i < MAX_ALIASES + 500; i++)
		failed += kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(i), pool_gfn(5), 1) != 1;
	G_EXPECT(failed, 0, "MAPs of one L1 page that failed");
	GUEST_SYNC1(STAGE_ALIASES);
	for (i = 0; i < MAX_ALIASES + 500; i++)
		served += l2_call(l2, l2_read, l2_gva(i), 0) == L2_EXIT_CALL &&
			  l2->ret == 0xa11a5;
	G_CHECK(served <= MAX_ALIASES && served >= MAX_ALIASES / 2,
		"%lu of %d aliases are served", served, MAX_ALIASES + 500);
	G_CHECK(l2_reads(l2, l2_gva(MAX_ALIASES + 499), 0xa11a5), "the newest one is");
	/* The oldest went: L1 is asked again, and may offer it again. */
	G_CHECK(l2_faults_at(l2, l2_read, l2_gva(0), 0, KPOP_MAP_R, false), "the oldest is not");
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(5), 1);
	G_CHECK(l2_reads(l2, l2_gva(0), 0xa11a5), "until L1 offers it again");
	kpop_unload_root(TOKEN, KVM_ID, 0);
	GUEST_SYNC1(STAGE_EMPTY);
}

static void test_spaces(struct l2 *l2)
{
	u64 i, n = 0;
	long r = 0;

	for (i = 0; i < NR_TOKENS; i++) {
		r = kpop_load(token_of(i), l2->holder, i + 1, 0);
		if (r)
			break;
		n++;
	}
	G_EXPECT(r, -E2BIG, "the LOAD that is one too many");
	G_EXPECT(n, MAX_SPACES, "spaces before it");
	GUEST_SYNC1(STAGE_SPACES);
	G_EXPECT(kpop_load(token_of(0), l2->holder, 1, 0), 0, "LOAD of one that is there");
	for (i = 0, r = 0; i < n; i++)
		r |= kpop_unload_root(token_of(i), i + 1, 0);
	G_EXPECT(r, 0, "UNLOAD of all");
	GUEST_SYNC1(STAGE_EMPTY);
}

/* Any page of L1 may be a holder. */
static void test_bindings(void)
{
	u64 i, n = 0;
	long r = 0;

	for (i = 0; i < MAX_BINDINGS + 100; i++) {
		r = kpop_load(TOKEN, POOL_GPA + i * KST_PAGE, KVM_ID, 0);
		if (r)
			break;
		n++;
	}
	G_EXPECT(r, -E2BIG, "the binding that is one too many");
	G_EXPECT(n, MAX_BINDINGS, "bindings before it");
	G_EXPECT(kpop_unload_root(TOKEN, KVM_ID, 0), 0, "UNLOAD of the root");
	GUEST_SYNC1(STAGE_EMPTY);
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];

	l1_virt_on(l2);
	test_cap(l2);
	test_aliases(l2);
	test_spaces(l2);
	test_bindings();
	GUEST_DONE();
}

static u64 most_bytes, memcg_before;

/*
 * What KPOP says that it uses is paid by the memcg, and nothing beside it.  A
 * space counts with its root, which is made when L2 first needs it.
 */
static void memcg_pays(const struct kvm_kpop_info *info, const char *when)
{
	s64 grown;
	bool ok;

	/* The figure may be two seconds old. */
	ok = kst_wait((grown = memcg_read(MEMCG, "memory.stat", "kernel ") - memcg_before,
		       grown >= (s64)min(info->bytes, CAP) / 4 &&
		       grown <= (s64)(info->bytes + SLACK)), 5000);
	kst_check(ok, "%s: the memcg pays %" PRId64 " bytes more, KPOP has %llu", when, grown,
		  info->bytes);
}

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	struct kvm_kpop_info info;

	kpop_info(t, &info);
	switch (args[0]) {
	case STAGE_CAP:
		memcg_before = memcg_read(MEMCG, "memory.stat", "kernel ");
		kpop_set_cap(t, CAP);
		kpop_info(t, &info);
		kst_check(info.cap == CAP, "the cap is %llu", info.cap);
		break;
	case STAGE_NO_CAP:
		kst_check(most_bytes > CAP / 4 && most_bytes <= CAP,
			  "at most %" PRIu64 " bytes were in use", most_bytes);
		kpop_set_cap(t, 0);
		kpop_info(t, &info);
		kst_check(info.cap > CAP, "the default cap is %llu", info.cap);
		break;
	case STAGE_BYTES:
		most_bytes = max(most_bytes, (u64)info.bytes);
		break;
	case STAGE_ALIASES:
		memcg_pays(&info, "with aliases");
		kst_check(info.pages <= SLOT0_PAGES + MAX_ALIASES,
			  "%llu pages are known: aliases are bounded", info.pages - SLOT0_PAGES);
		break;
	case STAGE_SPACES:
		kst_check(info.nr_spaces == MAX_SPACES && info.bytes <= info.cap,
			  "%u spaces, %llu bytes", info.nr_spaces, info.bytes);
		memcg_pays(&info, "with them");
		break;
	case STAGE_EMPTY:
		kst_check(kpop_none_left(t, &info), "all is given back (%llu bytes)",
			  info.bytes);
		break;
	}
}

int main(int argc, char **argv)
{
	struct tvm_opts o = {
		.guest = { l1_main },
		.nr_l2 = 1,
		.tokens = NR_TOKENS,
		.pool_pages = POOL_PAGES,
		.sync = on_sync,
	};
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;

	kst_begin("kpop_bound_test", 400);
	memcg_make(MEMCG);
	memcg_limit(MEMCG, MEMCG_MAX);
	memcg_enter(MEMCG);
	t = tvm_create(&o);
	kpop_info(t, &info);
	policy_serve(&p, "kpop_base", t);
	tvm_run(t);
	kst_check(!memcg_read(MEMCG, "memory.events", "oom "),
		  "no OOM in a memcg of %llu bytes, of which %" PRIu64 " were used at most",
		  MEMCG_MAX, memcg_read(MEMCG, "memory.peak", ""));
	policy_stop(&p, t);
	tvm_free(t);
	return kst_end();
}
