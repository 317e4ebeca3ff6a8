// SPDX-License-Identifier: GPL-2.0
/*
 * A second process swaps the policy while L2 runs and faults: base, lazy, base,
 * and so on.  No access of L2 fails, none goes to L1 that was L0's to serve; a
 * swap that expects another map than the one in place is refused.
 *
 *   rounds=N   swaps
 */
#include <sys/wait.h>

#include "kpop_test.h"

#define TOKEN	token_of(0)
#define KVM_ID	13
#define PAGES	64

enum { PH_READY };
enum { V_ROUNDS, V_FAILED, V_WRONG, V_ENOSYS };

/*
 * Offer the pages anew, half of them lazily, have L2 touch them all, take them
 * away.  An answer that a swap is under way (-EAGAIN) is asked again.
 */
static void one_round(struct l2 *l2, struct l1_shared *sh, u64 n)
{
	u64 i;
	long r;

	for (i = 0; i < PAGES; i += 16) {
		r = kpop_map(TOKEN, KPOP_MAP_RWX | (i & 16 ? KPOP_MAP_LAZY : 0), l2_gfn(i),
			     pool_gfn(i), 16);
		if (r != 16)
			sh->val[V_FAILED]++;
		if (r == -KVM_ENOSYS)
			sh->val[V_ENOSYS]++;
	}
	for (i = 0; i < PAGES; i++) {
		*pool_ptr(i) = n * PAGES + i;
		if (l2_call(l2, l2_read, l2_gva(i), 0) != L2_EXIT_CALL ||
		    l2->ret != n * PAGES + i)
			sh->val[V_WRONG]++;
	}
	if (kpop_unmap(KVM_ID, l2_gfn(0), PAGES) != PAGES)
		sh->val[V_FAILED]++;
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];
	u64 n;

	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	for (n = 1; !sh->stop; n++) {
		one_round(l2, sh, n);
		sh->val[V_ROUNDS] = n;
		sh->phase[PH_READY] = 1;
	}
	G_EXPECT(sh->val[V_WRONG], 0, "accesses of L2 that failed");
	G_EXPECT(sh->val[V_ENOSYS], 0, "hypercalls that met no policy");
	G_EXPECT(sh->val[V_FAILED], 0, "hypercalls that failed");
	G_EXPECT(l2->faults, 0, "faults that reached L1");
	GUEST_DONE();
}

/* Between the two processes: guest memory is private to the first one. */
struct common {
	volatile u64 go;
	volatile u64 rounds;		/* of L1, as its VMM sees them */
};

/* The second process: knows the VM by its fd, link and maps by their ids. */
static int swapper(struct tvm *t, struct common *c, u64 rounds)
{
	static const char *const names[] = { "kpop_lazy", "kpop_base" };
	struct kvm_kpop_info info;
	struct policy next;
	u64 i, seen;
	int r;

	if (!kst_wait(c->go, 120000))
		return 10;
	for (i = 0; i < rounds; i++) {
		r = policy_load(&next, names[i & 1], -1);
		if (r)
			return 11;
		if (policy_fill(&next) != -EBADF)
			return 12;
		kpop_info(t, &info);
		/* Another map than the one in place is expected: refused. */
		if (policy_swap(info.link_id, policy_map_id(&next), &next) != -EPERM)
			return 13;
		r = policy_swap(info.link_id, info.map_id, &next);
		if (r) {
			fprintf(stderr, "# swap %" PRIu64 ": %s\n", i, strerror(-r));
			return 14;
		}
		if (!kst_wait((kpop_info(t, &info), info.map_id == policy_map_id(&next)),
			      20000))
			return 15;
		seen = c->rounds;
		if (!kst_wait(c->rounds > seen + 1, 60000))
			return 16;
		/* From here on the link alone keeps the new policy. */
		policy_free(&next);
	}
	return 0;
}

/* Before any thread exists: a forked child of a threaded process can do little. */
static pid_t start_swapper(struct tvm *t, struct common *c, u64 rounds)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	TEST_ASSERT(pid >= 0, "fork");
	if (!pid)
		_exit(swapper(t, c, rounds));
	return pid;
}

int main(int argc, char **argv)
{
	struct tvm_opts o = { .guest = { l1_main }, .nr_l2 = 1 };
	u64 rounds = kst_param(argc, argv, "rounds", 20);
	struct kvm_kpop_info info;
	struct policy p;
	struct common *c;
	struct tvm *t;
	int status = 0;
	pid_t pid;

	kst_begin("kpop_swap_test", 400);
	policy_require("kpop_lazy");
	c = mmap(NULL, KST_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(c != MAP_FAILED, "mmap");
	t = tvm_create(&o);
	kpop_info(t, &info);
	pid = start_swapper(t, c, rounds);
	policy_serve(&p, "kpop_base", t);
	tvm_start(t);
	kst_check(kst_wait(t->sh->phase[PH_READY], 60000), "L2 runs on kpop_base");
	c->go = 1;
	while (waitpid(pid, &status, WNOHANG) == 0) {
		c->rounds = t->sh->val[V_ROUNDS];
		kst_relax();
	}
	kst_check(WIFEXITED(status) && !WEXITSTATUS(status),
		  "%" PRIu64 " swaps by a second process (status 0x%x)", rounds, status);
	kpop_info(t, &info);
	kst_check(info.swaps == rounds, "%llu swaps are counted", info.swaps);
	kst_check(info.state == KPOP_STATE_ATTACHED && !info.last_ejection.count,
		  "a policy serves, none was ejected (%s)", info.policy);
	t->sh->stop = 1;
	tvm_join(t);
	policy_stop(&p, t);
	tvm_free(t);
	return kst_end();
}
