// SPDX-License-Identifier: GPL-2.0
/*
 * Fallback in every order (contract 4): policies come, are swapped and go in each
 * way there is, while two vCPUs run L2s that fault, count, fall back and come
 * again.  L1s are killed with L2 running and with a hypercall in a hook.  In the
 * end nothing is left: no memory of KPOP, no reference on kvm.ko, no leak.
 *
 *   rounds=N   of attach, swap and end
 *   kills=N    of an L1
 *   leaks=1    needs kmemleak, which is looked at wherever it is on
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <signal.h>
#include <sys/wait.h>

#include "kpop_test.h"

#define ID_FAULTS	23
#define ID_COUNTS	24
#define PAGES		32
#define PIN		"/sys/fs/bpf/kpop_rounds_link"

enum { PH_READY };
enum { V_SERVED, V_COUNTED, V_WRONG, V_ODD, V_LEGACY };

/* ---- L1 ---- */

/* As l2_count(), @n times. */
static u64 l2_count_n(u64 gva, u64 n)
{
	u64 i;

	for (i = 0; i < n; i++)
		asm volatile("lock incq (%0)" : : "r"(gva) : "memory");
	return n;
}

/* On KPOP, if a policy serves long enough for that. */
static bool try_kpop(struct l2 *l2, u64 token, u64 kvm_id)
{
	if (kpop_query(KPOP_QUERY_VERSION) != KPOP_ABI_VERSION ||
	    kpop_load(token, l2->holder, kvm_id, 0) ||
	    kpop_map(token, KPOP_MAP_RWX | KPOP_MAP_LAZY, 0, 0, SLOT0_PAGES) != SLOT0_PAGES)
		return false;
	l2_set_root(l2, token);
	return true;
}

static void to_legacy(struct l2 *l2, struct l1_shared *sh, u64 token, u64 kvm_id)
{
	kpop_unload_root(token, kvm_id, 0);
	l2_set_root(l2, sh->legacy_root);
}

/* A read gives the right value or, with no policy any more, a fault. */
static void faults_once(struct l2 *l2, struct l1_shared *sh, u64 token, u64 n)
{
	u64 i, r;

	for (i = 0; i < PAGES; i++) {
		u64 want = n * PAGES + i;

		*pool_ptr(i) = want;
		if (kpop_map(token, KPOP_MAP_RWX | (i & 1 ? KPOP_MAP_LAZY : 0), l2_gfn(i),
			     pool_gfn(i), 1) != 1)
			break;
		r = l2_call(l2, l2_read, l2_gva(i), 0);
		if (r == L2_EXIT_CALL && l2->ret != want)
			sh->val[V_WRONG]++;
		else if (r != L2_EXIT_CALL && r != L2_EXIT_FAULT)
			sh->val[V_ODD]++;
	}
	kpop_unmap(ID_FAULTS, l2_gfn(0), PAGES);
	if (i == PAGES)
		sh->val[V_SERVED]++;
}

static void l1_faults(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];
	u64 n, token;

	l1_virt_on(l2);
	l2_setup(l2, sh->legacy_root);
	for (n = 1; !sh->stop; n++) {
		token = token_of(n % 64);
		if (try_kpop(l2, token, ID_FAULTS))
			faults_once(l2, sh, token, n);
		to_legacy(l2, sh, token, ID_FAULTS);
		*pool_ptr(PAGES) = n;
		if (l2_call(l2, l2_read, l2_gva(PAGES), 0) != L2_EXIT_CALL || l2->ret != n)
			sh->val[V_WRONG]++;
		sh->val[V_LEGACY]++;
	}
	GUEST_DONE();
}

static u64 count_on(struct l2 *l2, struct l1_shared *sh, u64 token, bool *kpop)
{
	u64 r = l2_call(l2, l2_count_n, l2_gva(PAGES + 1), 3000), gfn;

	while (r == L2_EXIT_FAULT) {
		gfn = l2->exit.gpa / KST_PAGE;
		if (kpop_map(token, KPOP_MAP_RWX, gfn, gfn < SLOT0_PAGES ? gfn :
			     pool_gfn(gfn - l2_gfn(0)), 1) != 1) {
			to_legacy(l2, sh, token, ID_COUNTS);
			*kpop = false;
		}
		r = l2_resume(l2);
	}
	if (r != L2_EXIT_CALL)
		sh->val[V_ODD]++;
	return l2->ret;
}

/* Not one addition is lost or made twice, wherever L2 runs. */
static void l1_counts(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[1];
	bool kpop = false;
	u64 n, total = 0;

	l1_virt_on(l2);
	l2_setup(l2, sh->legacy_root);
	for (n = 0; !sh->stop; n++) {
		if (!kpop)
			kpop = try_kpop(l2, token_of(100 + n % 64), ID_COUNTS);
		if (!kpop)
			to_legacy(l2, sh, token_of(100 + n % 64), ID_COUNTS);
		total += count_on(l2, sh, l2->root, &kpop);
		sh->val[V_COUNTED] = total;
	}
	G_CHECK(total && *pool_ptr(PAGES + 1) == total, "L2 added %lu times, memory says %lu",
		total, *pool_ptr(PAGES + 1));
	GUEST_DONE();
}

/* ---- the ways in which a policy goes ---- */

static bool unlinked(struct policy *p)
{
	/* The pin alone keeps the link, then nothing does. */
	if (bpf_link__pin(p->link, PIN))
		return false;
	policy_free(p);
	return !unlink(PIN);
}

static bool ejected(struct policy *p)
{
	u64 value = 5, hook = KPOP_HOOK_MAP + 1;

	return !policy_set_knob(p, "kpop_chaos_knobs", 7, &value, sizeof(value)) &&
	       !policy_set_knob(p, "kpop_chaos_knobs", 6, &hook, sizeof(hook));
}

/* A controller of its own, which never comes to close anything. */
static pid_t controller(struct tvm *t, int ready[2])
{
	struct policy p;
	pid_t pid;
	char c = 0;

	TEST_ASSERT(!pipe(ready), "pipe");
	fflush(stdout);
	pid = fork();
	TEST_ASSERT(pid >= 0, "fork");
	if (pid)
		return pid;
	if (policy_load(&p, "kpop_base", t->vm->fd) || policy_attach(&p) ||
	    !kpop_wait_state(t->vm->fd, KPOP_STATE_ATTACHED) || write(ready[1], &c, 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

static bool used(struct tvm *t)
{
	u64 served = t->sh->val[V_SERVED], counted = t->sh->val[V_COUNTED];

	return kst_wait(t->sh->val[V_SERVED] > served &&
			t->sh->val[V_COUNTED] > counted, 60000);
}

static bool swap_under(struct tvm *t, struct policy *p, const char *name)
{
	struct kvm_kpop_info info;
	struct policy next;

	if (policy_load(&next, name, -1) || policy_fill(&next) != -EBADF)
		return false;
	kpop_info(t, &info);
	if (policy_swap(info.link_id, info.map_id, &next))
		return false;
	/* The link stays, with the new one's map. */
	next.link = p->link;
	p->link = NULL;
	policy_free(p);
	*p = next;
	return kst_wait((kpop_info(t, &info), info.map_id == policy_map_id(p)), 30000);
}

enum { BY_CLOSE, BY_DETACH, BY_UNPIN, BY_EJECTION, BY_KILL, NR_WAYS };

static const char *const way_names[] = {
	"link closed", "link detached", "link unpinned", "ejected", "controller killed",
};

static bool one_round(struct tvm *t, u64 n)
{
	int way = n % NR_WAYS, ready[2], status;
	struct policy p = {};
	pid_t pid = 0;
	bool ok;
	char c;

	if (way == BY_KILL) {
		pid = controller(t, ready);
		close(ready[1]);
		ok = read(ready[0], &c, 1) == 1;
		close(ready[0]);
	} else {
		policy_serve(&p, way == BY_EJECTION ? "kpop_chaos" : "kpop_base", t);
		ok = true;
	}
	ok = ok && used(t);
	if (ok && way != BY_KILL && way != BY_EJECTION)
		ok = swap_under(t, &p, n & 1 ? "kpop_base" : "kpop_lazy") && used(t);

	switch (way) {
	case BY_DETACH:
		ok = !policy_detach(&p) && ok;
		break;
	case BY_UNPIN:
		ok = unlinked(&p) && ok;
		break;
	case BY_EJECTION:
		ok = ejected(&p) && ok;
		break;
	case BY_KILL:
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		break;
	default:
		policy_close_link(&p);
	}
	ok = kpop_wait_state(t->vm->fd, KPOP_STATE_NONE) && ok;
	if (p.obj)
		policy_free(&p);
	if (!ok)
		kst_check(false, "round %" PRIu64 ", %s", n, way_names[way]);
	return ok;
}

static void test_rounds(u64 rounds)
{
	struct tvm_opts o = { .guest = { l1_faults, l1_counts }, .nr_l2 = 2 };
	struct tvm *t = tvm_create(&o);
	struct kvm_kpop_info info;
	u64 n, legacy, began = kst_now_ms();

	kpop_info(t, &info);
	t->sh->legacy_root = table_legacy(t, PAGES + 2);
	tvm_start(t);
	kst_check(kst_wait(t->sh->val[V_LEGACY] && t->sh->val[V_COUNTED], 60000),
		  "two L2s run on L1's own table");
	for (n = 0; n < rounds && one_round(t, n); n++)
		;
	kst_check(n == rounds, "%" PRIu64 " rounds in %" PRIu64 " ms", n,
		  kst_now_ms() - began);
	legacy = t->sh->val[V_LEGACY];
	kst_check(kst_wait(t->sh->val[V_LEGACY] > legacy, 60000), "L2s run without a policy");
	kst_check(kpop_none_left(t, &info), "KPOP has nothing of them (%llu bytes)", info.bytes);
	kst_check(info.attaches == rounds && info.detaches == rounds,
		  "%llu attaches, %llu swaps, %llu detaches, %u ejections", info.attaches,
		  info.swaps, info.detaches, info.last_ejection.count);
	t->sh->stop = 1;
	tvm_join(t);
	kst_check(t->sh->val[V_SERVED] && !t->sh->val[V_WRONG] && !t->sh->val[V_ODD],
		  "%" PRIu64 " times served by KPOP, %" PRIu64 " wrong reads, %" PRIu64 " odd exits",
		  t->sh->val[V_SERVED], t->sh->val[V_WRONG], t->sh->val[V_ODD]);
	tvm_free(t);
}

/* ---- L1 dies ---- */

struct common {
	volatile u64 ready;
};

/* Its policy spins in map() from then on: the hypercalls are in a hook. */
static void doomed(struct common *c, bool in_hook)
{
	struct tvm_opts o = { .guest = { l1_faults, l1_counts }, .nr_l2 = 2 };
	struct tvm *t = tvm_create(&o);
	struct policy p;
	u64 spin = 3, hook = KPOP_HOOK_MAP + 1;

	t->sh->legacy_root = table_legacy(t, PAGES + 2);
	policy_serve(&p, "kpop_chaos", t);
	tvm_start(t);
	if (!used(t))
		_exit(1);
	if (in_hook && (policy_set_knob(&p, "kpop_chaos_knobs", 9, &spin, sizeof(spin)) ||
			policy_set_knob(&p, "kpop_chaos_knobs", 8, &hook, sizeof(hook))))
		_exit(2);
	c->ready = 1;
	for (;;)
		pause();
}

static bool one_kill(struct common *c, u64 n)
{
	int status = 0;
	bool ready;
	pid_t pid;

	c->ready = 0;
	fflush(stdout);
	pid = fork();
	TEST_ASSERT(pid >= 0, "fork");
	if (!pid)
		doomed(c, n & 1);
	ready = kst_wait(c->ready || waitpid(pid, &status, WNOHANG) == pid, 120000) &&
		c->ready;
	usleep(n * 7000 % 30000);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return ready && WIFSIGNALED(status);
}

static long kvm_refs(void)
{
	FILE *f = fopen("/sys/module/kvm/refcnt", "r");
	long n = -1;

	if (!f)
		return -1;
	if (fscanf(f, "%ld", &n) != 1)
		n = -1;
	fclose(f);
	return n;
}

static void check_refs(long refs)
{
	bool ok = kst_wait(kvm_refs() == refs, 20000);

	kst_check(ok, "kvm.ko has as many references as at the start: %ld of %ld", kvm_refs(),
		  refs);
}

static void test_kills(u64 kills)
{
	struct common *c = mmap(NULL, KST_PAGE, PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	u64 n;

	TEST_ASSERT(c != MAP_FAILED, "mmap");
	for (n = 0; n < kills && one_kill(c, n); n++)
		;
	kst_check(n == kills, "%" PRIu64 " L1s were killed with L2 running, half in a hook", n);
	munmap(c, KST_PAGE);
}

/* ---- leaks ---- */

#define KMEMLEAK "/sys/kernel/debug/kmemleak"

static bool kmemleak(const char *cmd)
{
	int fd = open(KMEMLEAK, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, cmd, strlen(cmd)) == strlen(cmd);

	close(fd);
	return ok;
}

/* What is only young looks like a leak: two scans, the second after 6 s. */
static void test_leaks(bool must)
{
	char line[256];
	FILE *f;
	int n = 0;

	if (!kmemleak("scan")) {
		kst_check(!must, "kmemleak is %s", must ? "off" : "not asked for");
		return;
	}
	sleep(6);
	kmemleak("scan");
	f = fopen(KMEMLEAK, "r");
	while (f && fgets(line, sizeof(line), f)) {
		n += !strncmp(line, "unreferenced", 12);
		printf("# %s", line);
	}
	if (f)
		fclose(f);
	kst_check(f && !n, "kmemleak finds %d objects", n);
}

int main(int argc, char **argv)
{
	u64 rounds = kst_param(argc, argv, "rounds", 50);
	long refs;

	kst_begin("kpop_rounds_test", 3600);
	/* What a test before this one had is given back by works, after grace periods. */
	do {
		refs = kvm_refs();
	} while (kst_wait(kvm_refs() < refs, 3000));
	/* Its thread would look at all of memory meanwhile. */
	kmemleak("scan=off");
	kmemleak("clear");
	test_kills(kst_param(argc, argv, "kills", 4));
	check_refs(refs);
	test_rounds(rounds);
	check_refs(refs);
	test_leaks(kst_param(argc, argv, "leaks", 0));
	return kst_end();
}
