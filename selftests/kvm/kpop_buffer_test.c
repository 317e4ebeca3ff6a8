// SPDX-License-Identifier: GPL-2.0
/*
 * What L2 writes, told to L1 in a page of its own (LOG_BUFFER, LOG_TAKE): one
 * entry a page, there before L2 writes; no exit to L1 until it is full, and then
 * one; what L0 has lost L1 still has.  At last L1 copies L2's memory by what it
 * takes, while L2 writes on another vCPU: the copy is right in the end.
 *
 *   rounds=N   entries to take in that, at least
 */
#include "kpop_test.h"

#define TOKEN		token_of(0)
#define KVM_ID		22
#define PAGES		64
#define MAX		8
#define RACE_PAGES	48
#define RACE_MAX	16

#define LOGGED_RWX	(KPOP_MAP_RWX | KPOP_MAP_LOGGED)

/* Pages of the pool that L2 does not see. */
#define BUFFER_PAGE	900
#define TAKEN_PAGE	901
#define COPY_PAGE	902
#define STOP_PAGE	100	/* this one L2 sees */

#define buffer		pool_ptr(BUFFER_PAGE)
#define taken		pool_ptr(TAKEN_PAGE)
#define copy		pool_ptr(COPY_PAGE)
#define gpa_of(page)	(POOL_GPA + (page) * KST_PAGE)

enum { P_ROUNDS };
enum { PH_READY, PH_DONE };
enum { V_FULL };

static long track(u64 op, u64 as_id, u64 kvm_id, u64 l2, u64 n, u64 to)
{
	return kvm_hypercall(KVM_HC_KPOP_MMU_TRACK, op | as_id << KPOP_AS_ID_SHIFT,
			     kvm_id | n << 32, l2, to);
}

static long set_buffer(u64 max)
{
	return track(KPOP_TRACK_LOG_BUFFER, 0, KVM_ID, 0, max, max ? gpa_of(BUFFER_PAGE) : 0);
}

static long start(u64 page, u64 npages)
{
	return track(KPOP_TRACK_LOG_START, 0, KVM_ID, l2_gfn(page), npages, KPOP_LOG_BUFFERED);
}

static long stop(u64 page, u64 npages)
{
	return track(KPOP_TRACK_LOG_STOP, 0, KVM_ID, l2_gfn(page), npages, 0);
}

static long take(void)
{
	memset((void *)taken, 0xff, KST_PAGE);
	return track(KPOP_TRACK_LOG_TAKE, 0, KVM_ID, 0, 0, gpa_of(TAKEN_PAGE));
}

static u64 entry(u64 page)
{
	return l2_gfn(page) | KPOP_LOG_ENTRY;
}

/* L2 writes; @told: with how many entries in the buffer then. */
static void writes(struct l2 *l2, l2_fn fn, u64 page, u64 told)
{
	u64 n, r = l2_call(l2, fn, l2_gva(page), page);

	for (n = 0; n < 512 && buffer[n]; n++)
		;
	if (r != L2_EXIT_CALL || *pool_ptr(page) != page || n != told ||
	    (n && buffer[n - 1] != entry(page)))
		GUEST_PRINTF("not ok - write to page %lu: exit %lu, %lu entries, not %lu\n",
			     page, r, n, told);
}

static u64 fep_write(u64 gva, u64 val)
{
	asm volatile(KVM_FEP "movq %0, (%1)" : : "r"(val), "r"(gva) : "memory");
	return val;
}

static void begin(struct l2 *l2, u64 max)
{
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), PAGES), PAGES,
		 "MAP of pages, eagerly");
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(STOP_PAGE), pool_gfn(STOP_PAGE), 1);
	G_EXPECT(set_buffer(max), 0, "LOG_BUFFER");
	G_EXPECT(start(0, PAGES), 0, "LOG_START into it");
}

static void test_refused(void)
{
	const u64 to = gpa_of(TAKEN_PAGE);

	G_EXPECT(start(0, PAGES), -ENOENT, "LOG_START without a buffer");
	G_EXPECT(track(KPOP_TRACK_LOG_TAKE, 0, KVM_ID, 0, 0, to), -ENOENT, "LOG_TAKE without one");
	G_EXPECT(set_buffer(0), -ENOENT, "no buffer any more, without one");
	G_EXPECT(set_buffer(KPOP_LOG_MAX_ENTRIES + 1), -EINVAL, "too many entries");
	G_EXPECT(track(KPOP_TRACK_LOG_BUFFER, 0, KVM_ID, 0, 0, to), -EINVAL, "no entries");
	G_EXPECT(track(KPOP_TRACK_LOG_BUFFER, 0, KVM_ID, 0, 8, to + 8), -EINVAL, "no page");
	G_EXPECT(track(KPOP_TRACK_LOG_BUFFER, 0, KVM_ID, 1, 8, to), -EINVAL, "a gfn");
	G_EXPECT(track(KPOP_TRACK_LOG_BUFFER, 1, KVM_ID, 0, 8, to), -EINVAL, "an as_id");
	G_EXPECT(track(KPOP_TRACK_LOG_BUFFER, 0, 0, 0, 8, to), -EINVAL, "kvm_id 0");
	G_EXPECT(track(KPOP_TRACK_LOG_BUFFER, 0, KVM_ID, 0, 8, ~0xfffULL), -EINVAL,
		 "beyond all gfns");
	G_EXPECT(track(KPOP_TRACK_LOG_BUFFER, 0, KVM_ID, 0, 8, L2_GPA), -EFAULT, "no memory");
	G_EXPECT(set_buffer(MAX), 0, "LOG_BUFFER");
	G_EXPECT(set_buffer(MAX), -EBUSY, "a second one");
	G_EXPECT(track(KPOP_TRACK_LOG_TAKE, 0, KVM_ID, 0, 1, to), -EINVAL, "LOG_TAKE of one");
	G_EXPECT(track(KPOP_TRACK_LOG_TAKE, 0, KVM_ID, 0, 0, L2_GPA), -EFAULT, "to no memory");
	G_EXPECT(track(KPOP_TRACK_LOG_START, 0, KVM_ID, l2_gfn(0), 64, 2), -EINVAL,
		 "an unknown kind of log");
	G_EXPECT(kpop_map_once(TOKEN, KPOP_MAP_RWX | KPOP_MAP_LOGGED, l2_gfn(0), pool_gfn(0), 1),
		 -ENODATA, "MAP of what must be logged and is not");
	G_EXPECT(start(0, 8), 0, "a log of 8 pages");
	G_EXPECT(kpop_map_once(TOKEN, KPOP_MAP_RWX | KPOP_MAP_LOGGED, l2_gfn(7), pool_gfn(7), 2),
		 -ENODATA, "MAP over its end");
	G_EXPECT(kpop_map_once(TOKEN, KPOP_MAP_R | KPOP_MAP_LOGGED, l2_gfn(0), pool_gfn(0), 1),
		 -EINVAL, "without W");
	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX | KPOP_MAP_LOGGED, l2_gfn(6), pool_gfn(6), 2), 2,
		 "MAP of what is logged");
	G_EXPECT(track(KPOP_TRACK_LOG_START, 0, KVM_ID, l2_gfn(0), 8, 0), -EBUSY,
		 "the same range without buffer");
	G_EXPECT(track(KPOP_TRACK_LOG_READ, 0, KVM_ID, l2_gfn(0), 8, to), -ENOENT, "LOG_READ");
	G_EXPECT(set_buffer(0), 0, "no buffer any more");
	G_EXPECT(stop(0, 8), -ENOENT, "its log is gone as well");
}

static void test_told(struct l2 *l2)
{
	u64 faults, i;

	begin(l2, MAX);
	faults = l2->faults;
	writes(l2, l2_write, 3, 1);
	writes(l2, l2_write, 17, 2);
	l2_call(l2, l2_read, l2_gva(20), 0);
	l2_call(l2, l2_write, l2_gva(3), 3);
	G_CHECK(buffer[0] == entry(3) && buffer[1] == entry(17) && !buffer[2],
		"two pages written, one twice, one read: two entries");
	G_EXPECT(take(), 2, "LOG_TAKE");
	G_CHECK(taken[0] == entry(3) && taken[1] == entry(17) && !~taken[2] && !buffer[0],
		"they moved");
	G_EXPECT(take(), 0, "LOG_TAKE again");
	writes(l2, l2_write, 17, 1);
	writes(l2, fep_write, 5, 2);
	writes(l2, fep_write, 5, 2);
	kpop_unmap(KVM_ID, l2_gfn(0), PAGES);
	kpop_map(TOKEN, LOGGED_RWX, l2_gfn(0), pool_gfn(0), PAGES);
	writes(l2, l2_write, 6, 3);
	kpop_map(TOKEN, LOGGED_RWX | KPOP_MAP_WRITTEN, l2_gfn(7), pool_gfn(7), 1);
	G_CHECK(buffer[3] == entry(7), "a MAP for a write tells it");
	G_EXPECT(l2->faults, faults, "faults that reached L1 since");

	for (i = 8; i < 12; i++)
		writes(l2, l2_write, i, i - 3);
	G_EXPECT(l2->faults, faults, "faults when the buffer is full");
	G_CHECK(l2_faults_at(l2, l2_write, l2_gva(12), 12, KPOP_MAP_W, true),
		"one write more faults in L1");
	G_CHECK(l2_faults_at(l2, fep_write, l2_gva(13), 13, KPOP_MAP_W, true),
		"also if L0 emulates it");
	kpop_map(TOKEN, LOGGED_RWX | KPOP_MAP_WRITTEN, l2_gfn(12), pool_gfn(12), 1);
	G_CHECK(l2_resume(l2) == L2_EXIT_FAULT && !buffer[MAX], "a MAP makes no room");
	G_EXPECT(take(), MAX, "LOG_TAKE");
	G_CHECK(l2_call(l2, l2_write, l2_gva(12), 12) == L2_EXIT_CALL && buffer[0] == entry(12) &&
		!buffer[1], "then there is room");
}

static void test_lost(struct l2 *l2)
{
	writes(l2, l2_write, 30, 2);
	G_EXPECT(kpop_query(KPOP_QUERY_RESET), 0, "RESET");
	G_EXPECT(take(), -ENOENT, "LOG_TAKE");
	G_CHECK(buffer[0] == entry(12) && buffer[1] == entry(30) && !buffer[2],
		"L1 has what was told");
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	G_EXPECT(kpop_map_once(TOKEN, KPOP_MAP_RWX | KPOP_MAP_LOGGED, l2_gfn(0), pool_gfn(0), 1),
		 -ENODATA, "MAP of what must be logged");
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1);
	l2_call(l2, l2_write, l2_gva(0), 0);
	G_CHECK(!buffer[2], "nothing more is told");
}

/* Each page again and again, in an order that changes, without an exit of its own. */
static u64 l2_scribble(u64 gva, u64 until)
{
	u64 n = 0;

	while (!READ_ONCE(*(u64 *)until)) {
		n++;
		WRITE_ONCE(*(u64 *)(gva + n * 7 % RACE_PAGES * KST_PAGE), n);
	}
	return n;
}

static void copy_taken(long n)
{
	long i;

	for (i = 0; i < n; i++) {
		u64 page = (taken[i] & KPOP_LOG_GFN_MASK) - l2_gfn(0);

		if (taken[i] >> 62 != 2 || page >= RACE_PAGES)
			GUEST_PRINTF("not ok - entry 0x%lx\n", taken[i]);
		else
			copy[page] = *pool_ptr(page);
	}
}

static void test_race(struct l2 *l2, struct l1_shared *sh)
{
	u64 end = rdtsc() + guest_tsc_khz * 1000 * SPIN_SECONDS;
	u64 i, sum = 0, wrong = 0;
	long n = 0;

	begin(l2, RACE_MAX);
	for (i = 0; i < RACE_PAGES; i++)
		copy[i] = *pool_ptr(i);
	*pool_ptr(STOP_PAGE) = 0;
	sh->phase[PH_READY] = 1;
	while (sum < sh->param[P_ROUNDS] && n >= 0 && rdtsc() < end) {
		n = take();
		copy_taken(n);
		sum += n;
	}
	*pool_ptr(STOP_PAGE) = 1;
	/* The other vCPU may stand before a full buffer. */
	while (!sh->phase[PH_DONE] && n >= 0) {
		n = take();
		copy_taken(n);
	}
	n = take();
	copy_taken(n);
	for (i = 0; i < RACE_PAGES; i++)
		wrong += copy[i] != *pool_ptr(i);
	G_EXPECT(wrong, 0, "pages of the copy that differ");
	G_CHECK(n >= 0 && sum >= sh->param[P_ROUNDS],
		"%lu entries were taken, L2 stood %lu times", sum, sh->val[V_FULL]);
	G_EXPECT(set_buffer(0), 0, "no buffer any more");
	G_CHECK(!buffer[0] && l2_call(l2, l2_write, l2_gva(1), 1) == L2_EXIT_CALL && !buffer[0],
		"L2 writes and nothing is told");
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];

	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	test_refused();
	test_told(l2);
	test_lost(l2);
	if (sh->param[P_ROUNDS])
		test_race(l2, sh);
	GUEST_DONE();
}

static void l1_other(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[1];
	u64 r;

	l1_virt_on(l2);
	if (!spin_until(sh->phase[PH_READY]))
		GUEST_DONE();
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	r = l2_call(l2, l2_scribble, l2_gva(0), l2_gva(STOP_PAGE));
	/* Full: vCPU 0 will make room. */
	while (r == L2_EXIT_FAULT) {
		sh->val[V_FULL]++;
		r = l2_resume(l2);
	}
	G_EXPECT(r, L2_EXIT_CALL, "how L2 left");
	sh->phase[PH_DONE] = 1;
	GUEST_DONE();
}

int main(int argc, char **argv)
{
	struct tvm_opts o = {
		.guest = { l1_main, l1_other },
		.nr_l2 = 2,
	};
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;
	u64 rounds;
	char old;

	kst_begin("kpop_buffer_test", 120);
	rounds = kst_param(argc, argv, "rounds", 2000);
	if (!rounds)
		o.guest[1] = NULL;
	old = kst_force_emulation('1');
	t = tvm_create(&o);
	t->sh->param[P_ROUNDS] = rounds;
	kpop_info(t, &info);
	policy_serve(&p, "kpop_base", t);
	tvm_run(t);
	policy_stop(&p, t);
	kst_check(kpop_none_left(t, &info), "nothing left (%llu bytes)", info.bytes);
	kst_force_emulation(old);
	tvm_free(t);
	return kst_end();
}
