// SPDX-License-Identifier: GPL-2.0
/*
 * A detach takes the VM's mappings away, then waits for L0's own accesses on L2's
 * behalf (contract 5).  One of them may wait for the host (lib/held.c).  Until the
 * page comes, or the VMM dies, that VM is DETACHING; it has no mapping, and nobody
 * else waits for it.
 */
#include <signal.h>
#include <sys/wait.h>

#include "kpop_test.h"

#define TOKEN		token_of(0)
#define KVM_ID		29
#define OTHERS		2		/* VMs that come and go meanwhile */

enum { PH_READY, PH_DETACH, PH_ASKED };
enum { V_QUERY, V_MAP, V_LOAD, V_L2 };

static void l1_moves(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];
	u64 r;

	l1_virt_on(l2);
	GUEST_ASSERT(spin_until(sh->phase[PH_READY]));
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	held_map(TOKEN);
	r = held_move(l2);
	/* The store is done, L2's next instruction is not there any more. */
	G_EXPECT(r, L2_EXIT_FAULT, "L2 has no mapping left");
	G_EXPECT(*pool_ptr(HELD_MEM), HELD_VALUE, "its store came first");
	G_CHECK(spin_until(kpop_query(KPOP_QUERY_VERSION) == -KVM_ENOSYS), "and then the policy went");
	l2_set_root(l2, sh->legacy_root);
	G_EXPECT(l2_resume(l2), L2_EXIT_CALL, "L2 goes on on L1's own table");
	GUEST_DONE();
}

/* The VM's other vCPU, with an L2 of its own. */
static void l1_asks(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[1];
	u64 token = token_of(1);

	l1_virt_on(l2);
	l2_on_kpop(l2, token, KVM_ID + 1, 0);
	G_EXPECT(l2_call(l2, l2_read, (u64)&l2->asid, 0), L2_EXIT_CALL, "the other L2 runs");
	sh->phase[PH_READY] = 1;
	GUEST_ASSERT(spin_until(sh->phase[PH_DETACH]));
	sh->val[V_QUERY] = kpop_query(KPOP_QUERY_VERSION);
	sh->val[V_MAP] = kpop_map_once(token, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1);
	sh->val[V_LOAD] = kvm_hypercall(KVM_HC_KPOP_MMU_LOAD_UNLOAD, KPOP_OP_LOAD, l2->holder,
					token, KVM_ID + 1);
	sh->val[V_L2] = l2_call(l2, l2_read, (u64)&l2->asid, 0);
	sh->phase[PH_ASKED] = 1;
	GUEST_DONE();
}

/* ---- the VMM ---- */

static struct tvm *make_vm(void)
{
	struct tvm_opts o = { .guest = { l1_moves, l1_asks }, .nr_l2 = 2, .mmio = held_on_mmio };
	struct tvm *t = tvm_create(&o);

	t->sh->legacy_root = table_legacy(t, HELD_MEM + 1);
	return t;
}

/* ---- who detaches ---- */

static void check_waits(int vm_fd, const char *when)
{
	struct kvm_kpop_info info;

	kpop_info_fd(vm_fd, &info);
	kst_check(info.state == KPOP_STATE_DETACHING && !info.nr_spaces && !info.nr_bindings &&
		  !info.pages && !info.detaches,
		  "%s: state %u, %u spaces, %u bindings, %llu pages", when, info.state,
		  info.nr_spaces, info.nr_bindings, info.pages);
}

/* Each with a swap, so that works of both kinds run. */
static void others_come_and_go(void)
{
	struct kvm_kpop_info info;
	struct policy p, next;
	struct kvm_vm *vm;
	u64 began = kst_now_ms();
	int i, r;

	for (i = 0; i < OTHERS; i++) {
		vm = vm_create_barebones();
		policy_serve_fd(&p, "kpop_base", vm->fd);
		kpop_info_fd(vm->fd, &info);
		r = policy_load(&next, "kpop_lazy", -1);
		TEST_ASSERT(!r && policy_fill(&next) == -EBADF, "kpop_lazy: %d", r);
		r = policy_swap(info.link_id, info.map_id, &next);
		if (r || !kst_wait((kpop_info_fd(vm->fd, &info), info.swaps == 1), 30000))
			break;
		policy_free(&p);
		policy_free(&next);
		if (!kpop_wait_state(vm->fd, KPOP_STATE_NONE))
			break;
		kvm_vm_free(vm);
	}
	kst_check(i == OTHERS, "%d other VMs were attached, swapped and detached in %" PRIu64 " ms", i,
		  kst_now_ms() - began);
}

static void detach(struct policy *p, int vm_fd)
{
	struct kvm_kpop_info info;
	u64 began = kst_now_ms();

	policy_close_link(p);
	kst_check(kst_now_ms() - began < 5000, "who closes the link does not wait (%" PRIu64 " ms)",
		  kst_now_ms() - began);
	/* Two spaces are not gone in no time. */
	kst_wait((kpop_info_fd(vm_fd, &info), !info.nr_spaces), 30000);
	check_waits(vm_fd, "the detach waits");
	usleep(500000);
	check_waits(vm_fd, "half a second later");
}

static void check_gone(int vm_fd)
{
	struct kvm_kpop_info info;

	kst_check(kpop_wait_state(vm_fd, KPOP_STATE_NONE), "the detach comes to its end");
	kst_wait((kpop_info_fd(vm_fd, &info), info.bytes <= 2 * 8192), 10000);
	kst_check(info.bytes <= 2 * 8192 && info.detaches == 1, "%llu bytes are left, %llu detaches",
		  info.bytes, info.detaches);
}

static void test_page_comes(void)
{
	struct tvm *t = make_vm();
	struct policy p, second;
	volatile u64 *val = t->sh->val;
	int r;

	policy_serve(&p, "kpop_base", t);
	r = policy_load(&second, "kpop_base", t->vm->fd);
	TEST_ASSERT(!r, "load: %d", r);
	tvm_start(t);
	kst_check(held_wait(t), "L0's store for L2 waits for a page");
	detach(&p, t->vm->fd);

	t->sh->phase[PH_DETACH] = 1;
	kst_check(kst_wait(t->sh->phase[PH_ASKED], 60000), "the VM's other vCPU does not wait");
	kst_check((long)val[V_MAP] == -EAGAIN && (long)val[V_LOAD] == -EAGAIN &&
		  val[V_QUERY] == KPOP_ABI_VERSION, "it hears EAGAIN: MAP %ld, LOAD %ld; QUERY %ld",
		  (long)val[V_MAP], (long)val[V_LOAD], (long)val[V_QUERY]);
	kst_check(val[V_L2] == L2_EXIT_FAULT, "its L2 has no mapping (exit %" PRIu64 ")", val[V_L2]);
	r = policy_attach(&second);
	kst_check(r == -EBUSY, "no policy is taken meanwhile: %d", r);
	others_come_and_go();
	check_waits(t->vm->fd, "after all that");

	held_let_go(t);
	check_gone(t->vm->fd);
	tvm_join(t);
	held_end();
	r = policy_attach(&second);
	kst_check(!r && kpop_wait_state(t->vm->fd, KPOP_STATE_ATTACHED),
		  "the VM takes a policy again: %d", r);
	policy_free(&p);
	policy_stop(&second, t);
	tvm_free(t);
}

static struct common {
	volatile int vm_fd;
	volatile u64 attached;
	volatile u64 caught;
} *c;

static void doomed(void)
{
	struct tvm *t = make_vm();

	c->vm_fd = t->vm->fd;
	TEST_ASSERT(kst_wait(c->attached, 60000), "not attached");
	tvm_start(t);
	c->caught = held_wait(t);
	for (;;)
		pause();
}

/* What is detached is the controller's: it has a descriptor of the VM. */
static void test_vmm_dies(void)
{
	struct policy p;
	int vm, status;
	pid_t pid;

	c = kst_shared(sizeof(*c));
	c->vm_fd = -1;
	pid = kst_fork();
	if (!pid)
		doomed();
	TEST_ASSERT(kst_wait(c->vm_fd >= 0, 60000), "no VM");
	vm = kst_take_fd(pid, c->vm_fd);
	TEST_ASSERT(vm >= 0, "the VM's descriptor: %s", strerror(-vm));
	policy_serve_fd(&p, "kpop_base", vm);
	c->attached = 1;
	kst_check(kst_wait(c->caught, 60000), "in another VMM L0's store for L2 waits for a page");
	detach(&p, vm);
	kill(pid, SIGKILL);
	status = kst_reap(pid, 30000);
	kst_check(WIFSIGNALED(status), "that VMM is killed (0x%x)", status);
	check_gone(vm);
	policy_free(&p);
	close(vm);
}

int main(int argc, char **argv)
{
	struct tvm_opts o = { .nr_vcpus = 1 };
	struct kvm_kpop_info info;
	struct tvm *t;

	kst_begin("kpop_waiting_test", 400);
	t = tvm_create(&o);
	kpop_info(t, &info);
	tvm_free(t);
	test_page_comes();
	test_vmm_dies();
	return kst_end();
}
