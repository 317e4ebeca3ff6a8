// SPDX-License-Identifier: GPL-2.0
/*
 * An L1 whose VMM is in a memcg (contract 7).  One that maps one page at ever new L2
 * gfns, and creates spaces for ever, costs no more than the VM's own memory and the
 * cap.  At memory.max KPOP says ENOMEM, to L1 and where L2 has to have a page
 * table to the VMM, harms nobody else, can be detached, and goes on when there is
 * memory again.  If the OOM killer may take the VMM, nothing is left of it.
 *
 *   aliases=N  of one page, each with a page table of its own
 *   spaces=N   created
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "kpop_test.h"

#define GROUP		"kpop_memcg"
#define OTHER		"kpop_memcg_other"
#define TOKEN		token_of(0)
#define KVM_ID		26
#define POOL		1024
#define CAP		(4ULL << 20)
#define FAR_GFN		(64ULL << 18)	/* where no page table is yet */
#define SCATTER_GFN	(32ULL << 18)
#define FAR_PAGES	200		/* 2M apart in the window of L2 */
#define SCATTERED	100000		/* more than ROOM takes */
#define ROOM		(256ULL << 10)	/* above what is in use, at the limit */
#define RUN		16		/* a run of the pool, the middle of which is unmapped */
#define RUN_PAGES	64
#define ASK		3		/* how often what failed is asked for again */
#define WINDOW		512		/* spaces that there are at a time */
/*
 * What may be in use beside the cap: what was dropped at the cap and waits for a grace
 * period, and what a memcg has taken for each CPU in advance.
 */
#define SLACK		CAP
#define LEFT		(1LL << 20)

enum { STAGE_NONE, STAGE_READY, STAGE_FULL, STAGE_RAISED, STAGE_DETACH, STAGE_END };
enum { P_ALIASES, P_SPACES };
enum { V_MAPS, V_MAP, V_LOAD, V_UNMAP };

/* ---- L1 ---- */

/* Pages 2M apart: a page table each. */
static u64 l2_sum(u64 gva, u64 n)
{
	u64 i, sum = 0;

	for (i = 0; i < n; i++)
		sum += READ_ONCE(*(u64 *)(gva + (i << PG_LEVEL_SHIFT(PG_LEVEL_2M))));
	return sum;
}

static void l1_begin(struct l2 *l2)
{
	u64 i;

	l1_virt_on(l2);
	for (i = 0; i < POOL; i++)
		*pool_ptr(i) = i;
	for (i = 0; i < WINDOW; i++)
		READ_ONCE(*(u64 *)token_of(i));
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	G_CHECK(l2_call(l2, l2_read, (u64)&l2->asid, 0) == L2_EXIT_CALL, "L2 runs");
}

/* No two neighbours, lazily: runs, and nothing else. */
static long scatter(u64 i)
{
	return kpop_map_once(TOKEN, KPOP_MAP_RWX | KPOP_MAP_LAZY, SCATTER_GFN + 2 * i,
			     pool_gfn(i % POOL), 1);
}

/* From the @n'th on.  What others free late may be there after an ENOMEM: until it is not. */
static long fill(u64 *n)
{
	u64 refused = 0;
	long r = 0;

	while (*n < SCATTERED && refused < ASK) {
		r = scatter(*n);
		refused = r == -ENOMEM ? refused + 1 : 0;
		if (r >= 0)
			++*n;
		else if (r != -ENOMEM)
			break;
	}
	return r;
}

static void test_full(struct l2 *l2, struct l1_shared *sh)
{
	u64 i, n = 0, sum = 0, tries = 0;
	long r;

	for (i = 0; i < FAR_PAGES; i++) {
		kpop_map(TOKEN, KPOP_MAP_RWX | KPOP_MAP_LAZY, l2_gfn(i << 9), pool_gfn(i), 1);
		sum += i;
	}
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(RUN), pool_gfn(RUN), RUN_PAGES);
	GUEST_SYNC1(STAGE_READY);
	/* Nothing is said before there is memory again: what says it takes some. */
	do {
		kpop_unload_root(token_of(1), KVM_ID, 0);
		sh->val[V_MAP] = fill(&n);
		sh->val[V_LOAD] = kpop_load(token_of(1), l2->holder, KVM_ID, 0);
	} while (!sh->val[V_LOAD] && ++tries < 10);
	sh->val[V_MAPS] = n;
	GUEST_SYNC1(STAGE_FULL);
	/* There is no memory to split a run: more of it may go, never less. */
	sh->val[V_UNMAP] = kpop_unmap(KVM_ID, l2_gfn(RUN + 30), 4);
	r = l2_call(l2, l2_sum, l2_gva(0), FAR_PAGES);
	GUEST_SYNC1(STAGE_RAISED);

	G_CHECK(sh->val[V_MAPS] > 100, "%lu MAPs until there was no memory", sh->val[V_MAPS]);
	G_EXPECT(sh->val[V_MAP], -ENOMEM, "the MAP then, and again");
	G_EXPECT(sh->val[V_LOAD], -ENOMEM, "LOAD of a second space");
	G_EXPECT(sh->val[V_UNMAP], 4, "UNMAP");
	G_CHECK(r == L2_EXIT_CALL && l2->ret == sum, "L2's loop over %d page tables: exit %ld, %lu of %lu",
		FAR_PAGES, r, l2->ret, sum);
	r = scatter(n);
	G_EXPECT(r < 0 ? r : KPOP_MAP_DONE(r), 1, "MAP with memory again");
	G_EXPECT(kpop_load(token_of(1), l2->holder, KVM_ID, 0), 0, "LOAD with memory again");
	for (i = RUN + 30; i < RUN + 34; i++)
		G_CHECK(l2_faults_at(l2, l2_read, l2_gva(i), 0, KPOP_MAP_R, false),
			"page %lu of what was unmapped is gone", i - RUN);
	G_CHECK(l2_reads(l2, l2_gva(RUN + 29), RUN + 29), "the one before is there");
}

static void l1_full(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];
	u64 n;

	l1_begin(l2);
	test_full(l2, sh);
	n = sh->val[V_MAPS] + 1;
	kpop_unload_root(token_of(1), KVM_ID, 0);
	GUEST_SYNC1(STAGE_READY);
	sh->val[V_MAP] = fill(&n);
	GUEST_SYNC1(STAGE_DETACH);
	G_EXPECT(sh->val[V_MAP], -ENOMEM, "MAP at the limit once more");
	G_EXPECT(kpop_query(KPOP_QUERY_VERSION), -KVM_ENOSYS, "QUERY after the detach");
	GUEST_DONE();
}

static void l1_killed(u64 cpu, struct l1_shared *sh)
{
	u64 n = 0;

	l1_begin(sh->l2[0]);
	GUEST_SYNC1(STAGE_READY);
	fill(&n);
	G_CHECK(false, "%lu MAPs, and still there", n);
	GUEST_DONE();
}

static void attack_aliases(u64 n)
{
	u64 i, failed = 0;

	for (i = 0; i < n; i++)
		failed += kpop_map(TOKEN, KPOP_MAP_RWX, FAR_GFN + (i << 9), pool_gfn(5), 1) != 1;
	G_EXPECT(failed, 0, "MAPs of one page at ever new L2 gfns that failed");
	kpop_unmap(KVM_ID, FAR_GFN, n << 9);
}

/* Each with a root and page tables; the oldest of WINDOW goes. */
static void attack_spaces(struct l2 *l2, u64 n)
{
	u64 i, token, refused = 0, wrong = 0;
	long r;

	for (i = 1; i <= n; i++) {
		token = token_of(1 + i % WINDOW);
		if (i > WINDOW)
			kpop_unload_root(token, i - WINDOW, 0);
		r = kpop_load(token, l2->holder, i, 0);
		if (!r)
			r = kpop_map(token, KPOP_MAP_RWX, FAR_GFN + i, pool_gfn(6), 1) - 1;
		refused += r == -E2BIG;
		wrong += r && r != -E2BIG;
	}
	G_CHECK(!wrong && refused < n, "%lu spaces created, %lu refused by the cap, %lu wrong answers",
		n, refused, wrong);
	for (i = 0; i < WINDOW; i++)
		kpop_unload_root(token_of(1 + i), KVM_ID, 0);
	/* Without an end: to the cap. */
	for (i = 1, r = 0; !r; i++)
		r = kpop_load(token_of(i), l2->holder, i, 0);
	G_EXPECT(r, -E2BIG, "LOAD of ever new tokens, in the end");
	while (--i)
		kpop_unload_root(token_of(i), i, 0);
}

static void l1_attacks(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];

	l1_begin(l2);
	GUEST_SYNC1(STAGE_READY);
	attack_aliases(sh->param[P_ALIASES]);
	attack_spaces(l2, sh->param[P_SPACES]);
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(7), 1);
	G_CHECK(l2_reads(l2, l2_gva(0), 7), "L2 goes on after all that");
	kpop_unload_root(TOKEN, KVM_ID, 0);
	GUEST_SYNC1(STAGE_END);
	GUEST_DONE();
}

/* ---- the VMM, in the memcg ---- */

/* What it and the test say to each other: neither takes memory. */
static struct common {
	volatile u64 stage, go;
	volatile int vm_fd;
	volatile bool serves;
	volatile u64 failed;
	volatile bool raised;
} *c;

static u64 stage;

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	c->stage = ++stage << 8 | args[0];
	while (c->go != stage)
		kst_relax();
}

/* ENOMEM from KVM_RUN is no end: the VMM tries again, and again when it was given memory. */
static bool on_failed(struct tvm *t, int cpu, int err)
{
	if (err != ENOMEM)
		return false;
	if (++c->failed >= ASK)
		while (!c->raised)
			kst_relax();
	return true;
}

static bool set_score(const char *score)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, score, strlen(score)) == strlen(score);

	close(fd);
	return ok;
}

static void vmm(tvm_guest_fn guest, const char *score, const u64 *param)
{
	struct tvm_opts o = {
		.guest = { guest },
		.nr_l2 = 1,
		.pool_pages = POOL,
		.tokens = 2048,
		.sync = on_sync,
		.failed = on_failed,
	};
	struct tvm *t;

	TEST_ASSERT(set_score(score), "oom_score_adj");
	memcg_enter(GROUP);
	/* Nothing of the VMM's own is to be had at the limit, not even a page of its code. */
	TEST_ASSERT(!mlockall(MCL_CURRENT | MCL_FUTURE), "mlockall");
	t = tvm_create(&o);
	memcpy(t->sh->param, param, 2 * sizeof(*param));
	c->vm_fd = t->vm->fd;
	while (!c->serves)
		kst_relax();
	tvm_run(t);
	tvm_free(t);
	kst_exit();
}

/* ---- the test, outside ---- */

struct subject {
	pid_t pid;
	int vm_fd;
	u64 stage;
	struct policy policy;
};

/* Until the VMM is in its next stage, which is the one meant. */
static void reach(struct subject *s, u64 which)
{
	u64 want = ++s->stage << 8 | which;
	int status;

	if (kst_wait(c->stage == want || waitpid(s->pid, &status, WNOHANG) == s->pid, 600000) &&
	    c->stage == want)
		return;
	TEST_FAIL("the VMM is in stage 0x%" PRIx64 ", not 0x%" PRIx64, c->stage, want);
}

static void proceed(struct subject *s)
{
	c->go = s->stage;
}

/* Up to where its L2 has run once. */
static void begin(struct subject *s, tvm_guest_fn guest, const char *score, const u64 *param)
{
	memset(c, 0, sizeof(*c));
	c->vm_fd = -1;
	memset(s, 0, sizeof(*s));
	memcg_limit(GROUP, 0);
	s->pid = kst_fork();
	if (!s->pid)
		vmm(guest, score, param);
	TEST_ASSERT(kst_wait(c->vm_fd >= 0, 60000), "no VM");
	s->vm_fd = kst_take_fd(s->pid, c->vm_fd);
	TEST_ASSERT(s->vm_fd >= 0, "the VM's descriptor: %s", strerror(-s->vm_fd));
	policy_serve_fd(&s->policy, "kpop_base", s->vm_fd);
	c->serves = true;
	reach(s, STAGE_READY);
}

static u64 current_bytes(void)
{
	return memcg_read(GROUP, "memory.current", "");
}

static u64 event(const char *group, const char *name)
{
	return memcg_read(group, "memory.events", name);
}

static void finish(struct subject *s)
{
	int status = kst_reap(s->pid, 60000);

	kst_check(WIFEXITED(status) && !WEXITSTATUS(status), "the VMM ended well (0x%x)", status);
	if (s->policy.obj)
		policy_free(&s->policy);
	close(s->vm_fd);
}

static void test_attacks(const u64 *param)
{
	struct kvm_kpop_info info;
	u64 own, max, peak, refused;
	struct subject s;
	bool ok;
	int fd;

	begin(&s, l1_attacks, "-1000", param);
	TEST_ASSERT(!kpop_ctl(s.vm_fd, KVM_KPOP_OP_SET_CAP, CAP, NULL, NULL), "SET_CAP");
	own = current_bytes();
	max = own + CAP + SLACK;
	refused = event(GROUP, "max ");
	memcg_limit(GROUP, max);
	fd = memcg_peak_begin(GROUP);
	proceed(&s);
	reach(&s, STAGE_END);
	peak = memcg_peak(fd);
	close(fd);
	kst_check(peak > own + CAP / 4, "the attack takes memory: %" PRIu64 " bytes at most beside %" PRIu64,
		  peak - own, own);
	kst_check(peak <= max && event(GROUP, "max ") == refused,
		  "not more than the cap of %llu and %llu", CAP, SLACK);
	ok = kpop_none_left_fd(s.vm_fd, 1, &info);
	kst_check(ok, "all is given back (%llu bytes)", info.bytes);
	ok = kst_wait(current_bytes() <= own + LEFT, 10000);
	kst_check(ok, "to the memcg, too: %" PRId64 " bytes more than before",
		  current_bytes() - own);
	proceed(&s);
	finish(&s);
}

static void test_full_outside(const u64 *param)
{
	u64 kills = event(GROUP, "oom_kill "), ooms = event(GROUP, "oom "), bytes;
	struct kvm_kpop_info info;
	struct subject s;
	bool ok;

	begin(&s, l1_full, "-1000", param);
	memcg_limit(GROUP, current_bytes() + ROOM);
	proceed(&s);
	reach(&s, STAGE_FULL);
	kst_check(event(GROUP, "oom ") > ooms, "the memcg is at its limit: %" PRIu64 " times no memory",
		  event(GROUP, "oom ") - ooms);
	kpop_info_fd(s.vm_fd, &info);
	kst_check(info.nr_spaces == 1 && info.nr_bindings == 1,
		  "the LOAD that failed left nothing: %u spaces, %u bindings", info.nr_spaces,
		  info.nr_bindings);
	kst_check(info.state == KPOP_STATE_ATTACHED && !info.last_ejection.count,
		  "that is no fault of the policy");
	proceed(&s);
	kst_check(kst_wait(c->failed >= ASK, 60000), "KVM_RUN says ENOMEM for L2's page tables");
	memcg_limit(GROUP, 0);
	c->raised = true;
	reach(&s, STAGE_RAISED);
	proceed(&s);

	/* A detach frees; it must not need memory for that. */
	reach(&s, STAGE_READY);
	memcg_limit(GROUP, current_bytes() + ROOM);
	proceed(&s);
	reach(&s, STAGE_DETACH);
	memcg_limit(GROUP, bytes = current_bytes());
	policy_free(&s.policy);
	ok = kpop_wait_state(s.vm_fd, KPOP_STATE_NONE) && kpop_none_left_fd(s.vm_fd, 1, &info);
	kst_check(ok, "detached at the limit, nothing is left (%llu bytes)", info.bytes);
	ok = kst_wait(current_bytes() < bytes, 10000);
	kst_check(ok, "and %" PRId64 " bytes are free again", bytes - current_bytes());
	memcg_limit(GROUP, 0);
	proceed(&s);
	finish(&s);
	kst_check(event(GROUP, "oom_kill ") == kills, "nothing was killed");
}

/* Whoever is easier to kill, in a memcg of his own. */
static pid_t bystander(void)
{
	size_t size = 32 << 20;
	pid_t pid = kst_fork();
	char *p;

	if (pid)
		return pid;
	memcg_enter(OTHER);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || !set_score("1000"))
		_exit(1);
	memset(p, 1, size);
	for (;;)
		pause();
}

static void test_killed(const u64 *param)
{
	u64 kills = event(GROUP, "oom_kill ");
	pid_t other = bystander();
	struct kvm_kpop_info info;
	struct subject s;
	int status;
	bool ok;

	TEST_ASSERT(kst_wait(memcg_read(OTHER, "memory.current", "") > 32 << 20, 60000), "bystander");
	begin(&s, l1_killed, "0", param);
	memcg_limit(GROUP, current_bytes() + ROOM);
	proceed(&s);
	status = kst_reap(s.pid, 120000);
	kst_check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
		  event(GROUP, "oom_kill ") == kills + 1,
		  "the OOM killer took the VMM (0x%x), %" PRIu64 " killed", status,
		  event(GROUP, "oom_kill ") - kills);
	kst_check(!kill(other, 0) && !waitpid(other, &status, WNOHANG) && !event(OTHER, "oom_kill "),
		  "and nobody else");
	/* This descriptor keeps the VM; its translations go with it. */
	kpop_info_fd(s.vm_fd, &info);
	printf("# %llu bytes of KPOP in the VM of the dead VMM\n", info.bytes);
	policy_free(&s.policy);
	ok = kpop_none_left_fd(s.vm_fd, 1, &info);
	kst_check(ok, "its policy is detached, nothing is left (%llu bytes)", info.bytes);
	close(s.vm_fd);
	kill(other, SIGKILL);
	kst_reap(other, 10000);
}

int main(int argc, char **argv)
{
	u64 param[2] = {
		[P_ALIASES] = kst_param(argc, argv, "aliases", 10000),
		[P_SPACES] = kst_param(argc, argv, "spaces", 3000),
	};
	bool ok;

	kst_begin("kpop_memcg_test", 6000);
	policy_require("kpop_base");
	c = kst_shared(sizeof(*c));
	memcg_make(GROUP);
	memcg_make(OTHER);
	memcg_write(GROUP, "memory.swap.max", "0");
	test_attacks(param);
	test_full_outside(param);
	test_killed(param);
	ok = kst_wait(current_bytes() <= LEFT, 10000);
	kst_check(ok, "%" PRIu64 " bytes are left in the memcg", current_bytes());
	kst_check(memcg_remove(GROUP) && memcg_remove(OTHER), "nothing lives there");
	return kst_end();
}
