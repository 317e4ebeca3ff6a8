// SPDX-License-Identifier: GPL-2.0
/*
 * Fallback (contract 4): the policy goes while L2 runs; L2 goes on, on a table
 * of L1's own, and on KPOP again after a new policy came.  And the orders of
 * death of VM and link (4b).
 *
 *   rounds=N   of each order of death
 */
#include "kpop_test.h"

#define TOKEN(n)	token_of(n)
#define KVM_ID		6

enum { STAGE_ATTACH, STAGE_NEXT };
enum { PH_RUNNING, PH_LEGACY, PH_NEXT };
enum { V_LEGACY_ENTRIES };
enum { P_TURNS };

static void check_enosys(struct l2 *l2, u64 token)
{
	G_EXPECT(kpop_query(KPOP_QUERY_VERSION), -KVM_ENOSYS, "QUERY after the detach");
	G_EXPECT(kpop_load(token, l2->holder, KVM_ID, 0), -KVM_ENOSYS, "LOAD");
	G_EXPECT(kpop_map_once(token, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1),
		 -KVM_ENOSYS, "MAP");
	G_EXPECT(kpop_unmap(KVM_ID, l2_gfn(0), 1), -KVM_ENOSYS, "UNMAP");
	G_EXPECT(kpop_unload_root(token, KVM_ID, 0), -KVM_ENOSYS, "UNLOAD");
}

/*
 * What L1's KVM does with a fault: MAP; if there is no KPOP any more, its own
 * table from now on.  The access that faulted is made again in either case.
 */
static void serve_fault(struct l2 *l2, struct l1_shared *sh, u64 token)
{
	u64 gfn = l2->exit.gpa / KST_PAGE;
	u64 to = gfn < SLOT0_PAGES ? gfn : pool_gfn(gfn - l2_gfn(0));
	long r = kpop_map_once(token, KPOP_MAP_RWX, gfn, to, 1);

	if (r != -KVM_ENOSYS && r != -ENOENT)
		return;
	kpop_unload_root(token, KVM_ID, 0);
	l2_set_root(l2, sh->legacy_root);
	sh->phase[PH_LEGACY]++;
}

static void one_turn(struct l2 *l2, struct l1_shared *sh, u64 turn)
{
	u64 token = TOKEN(turn), r;

	l2_on_kpop(l2, token, KVM_ID, 0);
	kpop_map(token, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1);
	sh->stop = 0;
	sh->phase[PH_RUNNING] = turn + 1;
	r = l2_call(l2, l2_count, l2_gva(0), (u64)&sh->stop);
	while (r == L2_EXIT_FAULT) {
		serve_fault(l2, sh, token);
		r = l2_resume(l2);
	}
	G_EXPECT(r, L2_EXIT_CALL, "L2 came to its end");
	G_CHECK(l2->ret > 0, "it counted to %lu", l2->ret);
	G_EXPECT(sh->phase[PH_LEGACY], turn + 1, "it moved to L1's own table");
	check_enosys(l2, token);
	G_EXPECT(l2_call(l2, l2_read, l2_gva(0), 0), L2_EXIT_CALL, "L2 runs there");
	l2_set_root(l2, token);
	G_EXPECT(l2_call(l2, l2_read, l2_gva(0), 0), L2_EXIT_FAULT,
		 "and on the token as on any empty table");
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];
	u64 turn;

	l1_virt_on(l2);
	for (turn = 0; turn < sh->param[P_TURNS]; turn++) {
		GUEST_SYNC1(STAGE_ATTACH);
		one_turn(l2, sh, turn);
	}
	GUEST_DONE();
}

static struct policy policy;

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	policy_serve(&policy, "kpop_base", t);
}

static bool counts(struct tvm *t)
{
	volatile u64 *p = tvm_pool(t, 0);
	u64 v = *p;

	return kst_wait(*p != v, 30000);
}

/* By turns: close of the link, and `bpftool link detach`. */
static void detach_under_l2(struct tvm *t, u64 turn)
{
	struct kvm_kpop_info info;
	int r;

	kst_check(kst_wait(t->sh->phase[PH_RUNNING] == turn + 1, 60000) && counts(t),
		  "L2 counts on KPOP, turn %" PRIu64, turn);
	if (turn & 1) {
		r = policy_detach(&policy);
		kst_check(!r, "detach of the link: %d", r);
	} else {
		policy_close_link(&policy);
	}
	kst_check(kpop_wait_state(t->vm->fd, KPOP_STATE_NONE), "the VM has no policy");
	kst_check(kpop_none_left(t, &info), "and no KPOP memory (%llu bytes)", info.bytes);
	kst_check(kst_wait(t->sh->phase[PH_LEGACY] == turn + 1, 30000) && counts(t),
		  "L2 counts on, on L1's own table");
	policy_free(&policy);
	t->sh->stop = 1;
}

static void test_detach(u64 turns)
{
	struct tvm_opts o = { .guest = { l1_main }, .nr_l2 = 1, .sync = on_sync };
	struct tvm *t = tvm_create(&o);
	struct kvm_kpop_info info;
	u64 turn;

	t->sh->param[P_TURNS] = turns;
	t->sh->legacy_root = table_legacy(t, 4);
	tvm_start(t);
	for (turn = 0; turn < turns; turn++)
		detach_under_l2(t, turn);
	tvm_join(t);
	kpop_info(t, &info);
	kst_check(info.attaches == turns && info.detaches == turns,
		  "%llu attaches and %llu detaches are counted", info.attaches, info.detaches);
	kst_check(info.faults_reflected > 0, "L2's faults went to L1");
	tvm_free(t);
}

/* ---- orders of death ---- */

struct death {
	struct kvm_vm *vm;
	struct policy policy;
	pthread_barrier_t barrier;
};

static void birth(struct death *d)
{
	int r;

	d->vm = vm_create_barebones();
	r = policy_load(&d->policy, "kpop_base", d->vm->fd);
	TEST_ASSERT(!r, "load: %d", r);
	r = policy_attach(&d->policy);
	TEST_ASSERT(!r, "attach: %d", r);
}

static void *kill_vm(void *arg)
{
	struct death *d = arg;

	pthread_barrier_wait(&d->barrier);
	kvm_vm_free(d->vm);
	return NULL;
}

static void vm_first(void)
{
	struct kvm_kpop_info info;
	struct policy next;
	struct death d;
	u32 len = sizeof(info);
	int r;

	birth(&d);
	TEST_ASSERT(kpop_wait_state(d.vm->fd, KPOP_STATE_ATTACHED), "not attached");
	TEST_ASSERT(!kpop_ctl(d.vm->fd, KVM_KPOP_OP_INFO, 0, &info, &len), "info");
	kvm_vm_free(d.vm);
	r = policy_load(&next, "kpop_base", -1);
	TEST_ASSERT(!r, "load: %d", r);
	r = policy_fill(&next);
	kst_check(r == -EBADF, "vm_fd -1 does not attach: %d", r);
	r = policy_swap(info.link_id, info.map_id, &next);
	kst_check(r == -ENOLINK, "a link whose VM died takes no update: %d", r);
	policy_free(&next);
	policy_free(&d.policy);
}

static void link_first(bool wait)
{
	struct death d;

	birth(&d);
	/* Or at once: then the attach's own work is still under way. */
	if (wait)
		TEST_ASSERT(kpop_wait_state(d.vm->fd, KPOP_STATE_ATTACHED), "not attached");
	policy_close_link(&d.policy);
	if (wait)
		TEST_ASSERT(kpop_wait_state(d.vm->fd, KPOP_STATE_NONE), "not detached");
	kvm_vm_free(d.vm);
	policy_free(&d.policy);
}

static void both_at_once(void)
{
	pthread_t thread;
	struct death d;

	birth(&d);
	TEST_ASSERT(!pthread_barrier_init(&d.barrier, NULL, 2), "barrier");
	TEST_ASSERT(!pthread_create(&thread, NULL, kill_vm, &d), "thread");
	pthread_barrier_wait(&d.barrier);
	policy_close_link(&d.policy);
	pthread_join(thread, NULL);
	pthread_barrier_destroy(&d.barrier);
	policy_free(&d.policy);
}

static void test_deaths(u64 rounds)
{
	u64 i;

	for (i = 0; i < rounds; i++)
		vm_first();
	kst_check(true, "VM first, then the link: %" PRIu64 " times", rounds);
	for (i = 0; i < rounds; i++)
		link_first(i & 1);
	kst_check(true, "link first, then the VM: %" PRIu64 " times", rounds);
	for (i = 0; i < rounds; i++)
		both_at_once();
	kst_check(true, "both at once: %" PRIu64 " times", rounds);
}

/* One policy a VM, one VM a policy. */
static void test_busy(void)
{
	struct policy second;
	struct death d;
	struct bpf_link *link;
	int r;

	birth(&d);
	r = policy_load(&second, "kpop_base", d.vm->fd);
	TEST_ASSERT(!r, "load: %d", r);
	r = policy_attach(&second);
	kst_check(r == -EBUSY, "a second policy for one VM: %d", r);
	link = d.policy.link;
	r = policy_attach(&d.policy);
	kst_check(r < 0, "a policy's second attach: %d", r);
	d.policy.link = link;
	policy_free(&second);
	policy_free(&d.policy);
	kvm_vm_free(d.vm);
}

int main(int argc, char **argv)
{
	struct tvm_opts o = { .guest = { l1_main }, .nr_l2 = 1 };
	struct kvm_kpop_info info;
	struct tvm *t;

	kst_begin("kpop_detach_test", 400);
	t = tvm_create(&o);
	kpop_info(t, &info);
	tvm_free(t);
	test_detach(4);
	test_deaths(kst_param(argc, argv, "rounds", 10));
	test_busy();
	return kst_end();
}
