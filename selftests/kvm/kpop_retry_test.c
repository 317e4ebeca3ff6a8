// SPDX-License-Identifier: GPL-2.0
/*
 * A VMM in L1 that calls KVM_RUN again when it says KVM_EXIT_FAIL_ENTRY, or ENOMEM,
 * for cases/only.sh, which takes the policy away meanwhile, or has a cap too small.  Its guest, an L2 with two
 * vCPUs, writes and checks memory all that time.
 *
 *   seconds=N    how long
 *   never=1      no entry may succeed: the guest never runs
 *   waits=0      none may be refused
 *   fallbacks=N  so often L1 moves it to its own page tables
 *   log=N        1: its dirty log makes a copy of its memory, as a migration does; 2: its dirty rings do
 */
#include "kpop_test.h"

#define PAGES_EACH	1024
#define NR_PAGES	(MAX_CPUS * PAGES_EACH)
#define RING_ENTRIES	1024

enum { V_ROUNDS, V_WRONG = MAX_CPUS };

static volatile u64 refused[MAX_CPUS], no_memory, reason;
static bool never;

static void guest_main(u64 cpu, struct l1_shared *sh)
{
	u64 i, n, first = cpu * PAGES_EACH;

	for (n = 1; !sh->stop; n++) {
		for (i = first; i < first + PAGES_EACH; i++)
			*pool_ptr(i) = n * i;
		for (i = first; i < first + PAGES_EACH; i++)
			sh->val[V_WRONG + cpu] += *pool_ptr(i) != n * i;
		sh->val[V_ROUNDS + cpu] = n;
	}
	GUEST_DONE();
}

struct run {
	struct tvm *t;
	int cpu;
};

/* ---- a copy, by the log ---- */

enum { LOG_NONE, LOG_BITMAP, LOG_RING };

static u64 log_kind, copied;
static u8 *copy;
static u32 ring_next[MAX_CPUS];

static void copy_page(struct tvm *t, u64 page)
{
	memcpy(copy + page * KST_PAGE, (void *)tvm_pool(t, page), KST_PAGE);
	__atomic_add_fetch(&copied, 1, __ATOMIC_RELAXED);
}

static void copy_by_bitmap(struct tvm *t)
{
	unsigned long bits[NR_PAGES / 64 + 1];
	u64 i;

	kvm_vm_get_dirty_log(t->vm, POOL_SLOT, bits);
	for (i = 0; i < NR_PAGES; i++)
		if (bits[i / 64] >> (i % 64) & 1)
			copy_page(t, i);
}

/* By that vCPU's thread, or when it has ended. */
static void copy_by_ring(struct tvm *t, int cpu)
{
	struct kvm_dirty_gfn *ring = vcpu_map_dirty_ring(t->vcpus[cpu]), *e;
	u32 n = ring_next[cpu], i;

	for (i = n; ; i++) {
		e = &ring[i % RING_ENTRIES];
		if (__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY)
			break;
		__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
	ring_next[cpu] = i;
	/* First protected again, then read. */
	kvm_vm_reset_dirty_ring(t->vm);
	for (; n != i; n++)
		copy_page(t, ring[n % RING_ENTRIES].offset);
}

static void copy_begin(struct tvm *t)
{
	copy = calloc(NR_PAGES, KST_PAGE);
	TEST_ASSERT(copy, "out of memory");
	vm_mem_region_set_flags(t->vm, POOL_SLOT, KVM_MEM_LOG_DIRTY_PAGES);
}

/* L2 has stopped. */
static void copy_end(struct tvm *t)
{
	u64 i, wrong = 0;

	if (log_kind == LOG_BITMAP)
		copy_by_bitmap(t);
	for (i = 0; i < MAX_CPUS && log_kind == LOG_RING; i++)
		copy_by_ring(t, i);
	for (i = 0; i < NR_PAGES; i++)
		wrong += !!memcmp(copy + i * KST_PAGE, (void *)tvm_pool(t, i), KST_PAGE);
	kst_check(!wrong && copied > NR_PAGES, "%" PRIu64 " pages of the copy differ, %" PRIu64
		  " were copied", wrong, copied);
	free(copy);
}

static void *run(void *arg)
{
	struct run *r = arg;
	struct kvm_vcpu *vcpu = r->t->vcpus[r->cpu];
	struct ucall uc;
	bool said = false;

	for (;;) {
		int err = __vcpu_run(vcpu);

		TEST_ASSERT(!err || errno == ENOMEM, KVM_IOCTL_ERROR(KVM_RUN, err));
		if (!err && vcpu->run->exit_reason == KVM_EXIT_DIRTY_RING_FULL) {
			copy_by_ring(r->t, r->cpu);
			continue;
		}
		if (!err && vcpu->run->exit_reason != KVM_EXIT_FAIL_ENTRY)
			break;
		if (err)
			__atomic_add_fetch(&no_memory, 1, __ATOMIC_RELAXED);
		else
			reason = vcpu->run->fail_entry.hardware_entry_failure_reason;
		if (err && !said)
			printf("# vCPU %d waits for memory\n", r->cpu);
		else if (!err && !refused[r->cpu])
			printf("# vCPU %d waits for a policy or LOAD\n", r->cpu);
		said |= !!err;
		refused[r->cpu]++;
		if (never && r->t->sh->stop)
			return NULL;
		usleep(10000);
	}
	if (get_ucall(vcpu, &uc) != UCALL_DONE)
		kst_check(false, "vCPU %d left with %s", r->cpu,
			  exit_reason_str(vcpu->run->exit_reason));
	return NULL;
}

int main(int argc, char **argv)
{
	struct tvm_opts o = { .guest = { guest_main, guest_main },
			      .pool_pages = NR_PAGES };
	u64 seconds = kst_param(argc, argv, "seconds", 10), fallbacks, end;
	bool waits = kst_param(argc, argv, "waits", 1);
	struct run r[MAX_CPUS];
	struct tvm *t;
	int i;

	kst_begin("kpop_retry_test", 600 + seconds);
	never = kst_param(argc, argv, "never", 0);
	log_kind = kst_param(argc, argv, "log", LOG_NONE);
	if (log_kind == LOG_RING)
		o.ring_bytes = RING_ENTRIES * sizeof(struct kvm_dirty_gfn);
	t = tvm_create(&o);
	if (log_kind)
		copy_begin(t);
	for (i = 0; i < MAX_CPUS; i++) {
		r[i] = (struct run){ t, i };
		TEST_ASSERT(!pthread_create(&t->thread[i], NULL, run, &r[i]), "thread");
	}
	for (end = kst_now_ms() + seconds * 1000; kst_now_ms() < end; usleep(100000))
		if (log_kind == LOG_BITMAP)
			copy_by_bitmap(t);
	/* However long the host takes for its part. */
	fallbacks = kst_param(argc, argv, "fallbacks", 0);
	if (!never)
		kst_check(kst_wait(t->sh->val[V_ROUNDS] && t->sh->val[V_ROUNDS + 1] &&
				   (!waits || (refused[0] && refused[1])) &&
				   vm_get_stat(t->vm, "kpop_guest_fallbacks") >= fallbacks, 120000),
			  "both vCPUs run");
	t->sh->stop = 1;
	tvm_join(t);
	if (log_kind)
		copy_end(t);
	for (i = 0; i < MAX_CPUS; i++) {
		kst_check(waits == !!refused[i], "vCPU %d: %" PRIu64 " entries refused", i, refused[i]);
		kst_check(never == !t->sh->val[V_ROUNDS + i] && !t->sh->val[V_WRONG + i],
			  "vCPU %d: %" PRIu64 " rounds, %" PRIu64 " wrong values", i,
			  t->sh->val[V_ROUNDS + i], t->sh->val[V_WRONG + i]);
	}
	i = vm_get_stat(t->vm, "kpop_guest_fallbacks");
	kst_check(i == fallbacks, "%d fallbacks (the last reason: %" PRId64 ")", i, (s64)reason);
	printf("# ENOMEM: %" PRIu64 "\n", no_memory);
	printf("# on KPOP: %" PRIu64 "\n", vm_get_stat(t->vm, "kpop_guest_active"));
	tvm_free(t);
	return kst_end();
}
