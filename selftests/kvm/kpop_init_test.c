// SPDX-License-Identifier: GPL-2.0
/*
 * A policy whose init does not end (4b): it is ejected before it has served, and holds
 * a worker, its CPU, and its own map.  Nobody else: who attaches it, the VM itself,
 * which takes another policy or dies, and all other VMs go on meanwhile.
 *
 * It does end here, after some seconds: the program cannot be stopped.  On a kernel
 * that is not preempted the CPU is gone meanwhile, and what needs a grace period of it
 * waits, with KPOP or without: a change of memslots, the end of a VM.  Such a kernel
 * rightly complains if that lasts, so it is told to be patient.
 *
 *   ms=N   how long it takes
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <sys/utsname.h>

#include "kpop_test.h"

#define KVM_ID	30

/* As in bpf/kpop_chaos.bpf.c. */
enum { CHAOS_SPIN_HOOK = 8, CHAOS_SPIN = 9 };
#define CHAOS_SPINS	1

enum { STAGE_ATTACH, STAGE_SWAP, STAGE_DETACH };

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];

	l1_virt_on(l2);
	GUEST_SYNC1(STAGE_ATTACH);
	l2_on_kpop(l2, token_of(0), KVM_ID, 0);
	*pool_ptr(0) = 0x1417;
	kpop_map(token_of(0), KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 2);
	G_CHECK(l2_reads(l2, l2_gva(0), 0x1417), "an L2 of another VM runs");
	GUEST_SYNC1(STAGE_SWAP);
	G_EXPECT(kpop_map(token_of(0), KPOP_MAP_RWX, l2_gfn(4), pool_gfn(0), 1), 1,
		 "MAP after a swap");
	G_CHECK(l2_reads(l2, l2_gva(4), 0x1417), "it runs on");
	GUEST_SYNC1(STAGE_DETACH);
	G_EXPECT(kpop_query(KPOP_QUERY_VERSION), -KVM_ENOSYS, "QUERY after a detach");
	GUEST_DONE();
}

/* ---- host ---- */

/* Loaded before: to load one is nothing that KPOP has to do with. */
static struct policy base, lazy;

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	struct kvm_kpop_info info;
	int r;

	switch (args[0]) {
	case STAGE_ATTACH:
		r = policy_attach(&base);
		kst_check(!r && kpop_wait_state(t->vm->fd, KPOP_STATE_ATTACHED),
			  "another VM takes a policy: %d", r);
		break;
	case STAGE_SWAP:
		kpop_info_fd(t->vm->fd, &info);
		r = policy_swap(info.link_id, info.map_id, &lazy);
		kst_check(!r && kst_wait((kpop_info_fd(t->vm->fd, &info), info.swaps == 1), 30000),
			  "another one after it: %d", r);
		break;
	case STAGE_DETACH:
		policy_close_link(&base);
		kst_check(kpop_wait_state(t->vm->fd, KPOP_STATE_NONE), "and none");
		break;
	}
}

static struct policy chaos;

static void set_knob(u64 knob, u64 value)
{
	int r = policy_set_knob(&chaos, "kpop_chaos_knobs", knob, &value, sizeof(value));

	TEST_ASSERT(!r, "knob %" PRIu64 ": %s", knob, strerror(-r));
}

static u64 spins(void)
{
	u64 val[256] = {}, sum = 0;
	u32 key = CHAOS_SPINS;
	int i, n = libbpf_num_possible_cpus();

	TEST_ASSERT(n > 0 && n <= ARRAY_SIZE(val), "%d CPUs", n);
	TEST_ASSERT(!bpf_map_lookup_elem(policy_map_fd(&chaos, "chaos_counters"), &key, val),
		    "chaos_counters");
	for (i = 0; i < n; i++)
		sum += val[i];
	return sum;
}

static u64 init_ns(int vm_fd)
{
	struct kvm_kpop_info info;

	kpop_info_fd(vm_fd, &info);
	return info.hooks[KPOP_HOOK_INIT].max_ns;
}

/* How many rounds of the knob make that many ms. */
static u64 calibrate(u64 ms)
{
	struct kvm_vm *vm = vm_create_barebones();
	u64 n = 2, ns;
	int r;

	r = policy_load(&chaos, "kpop_chaos", vm->fd);
	TEST_ASSERT(!r, "kpop_chaos: %d", r);
	set_knob(CHAOS_SPIN, n);
	set_knob(CHAOS_SPIN_HOOK, KPOP_HOOK_INIT + 1);
	r = policy_attach(&chaos);
	TEST_ASSERT(!r, "attach: %d", r);
	TEST_ASSERT(kst_wait((ns = init_ns(vm->fd)), 60000), "init does not end");
	policy_free(&chaos);
	kvm_vm_free(vm);
	return ms * 1000000 * n / ns + 1;
}

/* Attach a policy whose init takes @n rounds; it runs when this returns. */
static void begin(struct kvm_vm *vm, u64 n)
{
	u64 began;
	int r;

	r = policy_load(&chaos, "kpop_chaos", vm->fd);
	TEST_ASSERT(!r, "kpop_chaos: %d", r);
	set_knob(CHAOS_SPIN, n);
	set_knob(CHAOS_SPIN_HOOK, KPOP_HOOK_INIT + 1);
	began = kst_now_ms();
	r = policy_attach(&chaos);
	kst_check(!r && kst_now_ms() - began < 2000, "attach does not wait for init: %d, %" PRIu64 " ms",
		  r, kst_now_ms() - began);
	TEST_ASSERT(kst_wait(spins() == 1, 30000), "init does not run");
}

static void check_runs(struct kvm_vm *vm, u64 ms, const char *when)
{
	u64 ns = init_ns(vm->fd);

	kst_check(ns < ms * 1000000 / 4, "%s init() still runs", when);
}

#define WATCHDOG "/proc/sys/kernel/watchdog_thresh"

static void be_patient(const char *seconds)
{
	int fd = open(WATCHDOG, O_WRONLY | O_CLOEXEC);

	TEST_ASSERT(fd >= 0 && write(fd, seconds, strlen(seconds)) > 0, WATCHDOG ": %s",
		    strerror(errno));
	close(fd);
}

static bool preempted(void)
{
	struct utsname uts;

	return !uname(&uts) && strstr(uts.version, "PREEMPT");
}

static void test_goes_on(u64 n, u64 ms)
{
	struct tvm_opts o = { .guest = { l1_main }, .nr_l2 = 1, .sync = on_sync };
	struct kvm_vm *vm = vm_create_barebones(), *third;
	struct kvm_kpop_ejection *e;
	struct tvm *t = tvm_create(&o);
	struct kvm_kpop_info info;
	struct policy own;
	bool ok;
	int r;

	e = &info.last_ejection;
	r = policy_load(&base, "kpop_base", t->vm->fd) ?: policy_load(&lazy, "kpop_lazy", -1) ?:
	    policy_load(&own, "kpop_base", vm->fd);
	TEST_ASSERT(!r && policy_fill(&lazy) == -EBADF, "policies: %d", r);
	begin(vm, n);
	kst_wait((kpop_info_fd(vm->fd, &info), e->count), 10000);
	kst_check(e->count == 1 && e->kind == KPOP_EJECT_STALL && e->hook == KPOP_HOOK_INIT,
		  "ejected: %s", e->text);
	kst_check(info.state == KPOP_STATE_NONE && !info.link_id && !info.attaches,
		  "it never served, its link is defunct");
	r = policy_attach(&own);
	kst_check(!r && kpop_wait_state(vm->fd, KPOP_STATE_ATTACHED),
		  "the VM takes another policy: %d", r);
	/* Not in a thread on a CPU of its own: that one may be gone. */
	tvm_cpu_loop(t, 0);
	third = vm_create_barebones();
	check_runs(vm, ms, "all that while");
	kvm_vm_free(third);
	if (preempted())
		check_runs(vm, ms, "when another VM has died");

	ok = kst_wait(init_ns(vm->fd) > ms * 1000000 / 4, 10 * ms);
	kst_check(ok, "it ended after %" PRIu64 " ms", init_ns(vm->fd) / 1000000);
	kpop_info_fd(vm->fd, &info);
	kst_check(info.state == KPOP_STATE_ATTACHED && info.attaches == 1 && e->count == 1,
		  "which changes nothing any more");
	policy_free(&chaos);
	policy_free(&own);
	kst_check(kpop_wait_state(vm->fd, KPOP_STATE_NONE), "the VM is left without a policy");
	policy_free(&base);
	policy_free(&lazy);
	tvm_free(t);
	kvm_vm_free(vm);
}

static void *kill_vm(void *vm)
{
	kvm_vm_free(vm);
	return NULL;
}

/* The VM dies; the map is its own until init is over. */
static void test_dies(u64 n, u64 ms)
{
	struct kvm_vm *vm = vm_create_barebones(), *next = vm_create_barebones();
	struct bpf_link *link;
	int fd = vm->fd, r;
	pthread_t thread;

	begin(vm, n);
	TEST_ASSERT(!pthread_create(&thread, NULL, kill_vm, vm), "thread");
	/* Another VM is now where the map looks for one. */
	TEST_ASSERT(kst_wait(fcntl(fd, F_GETFD) < 0, 10000), "the VM is not closed");
	TEST_ASSERT(dup2(next->fd, fd) == fd, "dup2");
	set_knob(CHAOS_SPIN_HOOK, 0);
	link = chaos.link;
	r = policy_attach(&chaos);
	kst_check(r == -EBUSY, "its VM is closed, and init() still runs: %d", r);
	pthread_join(thread, NULL);
	kst_wait(!(r = policy_attach(&chaos)), 10 * ms);
	kst_check(!r && kpop_wait_state(next->fd, KPOP_STATE_ATTACHED),
		  "then the map serves another VM: %d", r);
	bpf_link__destroy(link);
	policy_free(&chaos);
	kst_check(kpop_wait_state(next->fd, KPOP_STATE_NONE), "and is detached from it");
	close(fd);
	kvm_vm_free(next);
}

int main(int argc, char **argv)
{
	struct tvm_opts o = { .nr_vcpus = 1 };
	struct kvm_kpop_info info;
	struct tvm *t;
	u64 ms, n;

	kst_begin("kpop_init_test", 400);
	t = tvm_create(&o);
	kpop_info(t, &info);
	tvm_free(t);
	ms = kst_param(argc, argv, "ms", 4000);
	n = calibrate(ms);
	be_patient("30");
	printf("# %" PRIu64 " rounds for %" PRIu64 " ms\n", n, ms);
	test_goes_on(n, ms);
	test_dies(n / 2, ms / 2);
	be_patient("10");
	return kst_end();
}
