// SPDX-License-Identifier: GPL-2.0
/* The L1 hypervisor of the tests: hypercalls, and running an L2. */
#include "kpop_test.h"

/* Bounds how often L1 asks again; reaching it is a failure of L0. */
#define EAGAIN_BOUND	100000

u64 kpop_query(u64 op)
{
	return kvm_hypercall(KVM_HC_KPOP_QUERY, op, 0, 0, 0);
}

static long load_unload(u64 op, u64 as_id, u64 holder, u64 token, u64 kvm_id)
{
	long r;
	int i;

	for (i = 0; i < EAGAIN_BOUND; i++) {
		r = kvm_hypercall(KVM_HC_KPOP_MMU_LOAD_UNLOAD,
				  op | as_id << KPOP_AS_ID_SHIFT, holder, token, kvm_id);
		if (r != -EAGAIN)
			break;
	}
	return r;
}

long kpop_load(u64 token, u64 holder, u64 kvm_id, u64 as_id)
{
	return load_unload(KPOP_OP_LOAD, as_id, holder, token, kvm_id);
}

long kpop_unload_holder(u64 token, u64 holder, u64 kvm_id, u64 as_id)
{
	return load_unload(KPOP_OP_UNLOAD_HOLDER, as_id, holder, token, kvm_id);
}

long kpop_unload_root(u64 token, u64 kvm_id, u64 as_id)
{
	return load_unload(KPOP_OP_UNLOAD_ROOT, as_id, 0, token, kvm_id);
}

long kpop_map_once(u64 token, u64 flags, u64 l2, u64 l1, u64 npages)
{
	return kvm_hypercall(KVM_HC_KPOP_MMU_MAP, token | flags, l2, l1, npages);
}

/* All of the run; returns the pages mapped, or the error that stopped it. */
long kpop_map(u64 token, u64 flags, u64 l2, u64 l1, u64 npages)
{
	u64 done = 0;
	int again = 0;
	long r;

	while (done < npages) {
		r = kpop_map_once(token, flags, l2 + done, l1 + done, npages - done);
		if (r == -EAGAIN || (r >= 0 && !KPOP_MAP_DONE(r))) {
			if (++again == EAGAIN_BOUND)
				return -EAGAIN;
			continue;
		}
		if (r < 0)
			return r;
		done += KPOP_MAP_DONE(r);
	}
	return done;
}

long kpop_unmap_flags(u64 flags, u64 as_id, u64 kvm_id, u64 l2, u64 npages)
{
	u64 done = 0;
	int again = 0;
	long r;

	while (done < npages) {
		r = kvm_hypercall(KVM_HC_KPOP_MMU_UNMAP,
				  flags | as_id << KPOP_AS_ID_SHIFT, kvm_id,
				  l2 + done, npages - done);
		if (r == -EAGAIN || !r) {
			if (++again == EAGAIN_BOUND)
				return -EAGAIN;
			continue;
		}
		if (r < 0)
			return r;
		done += r;
	}
	return done;
}

long kpop_unmap(u64 kvm_id, u64 l2, u64 npages)
{
	return kpop_unmap_flags(0, 0, kvm_id, l2, npages);
}

/* L2 runs L1's code on L1's page tables: slot 0 at the same addresses. */
long kpop_map_self(u64 token)
{
	return kpop_map(token, KPOP_MAP_RWX, 0, 0, SLOT0_PAGES);
}

void l1_virt_on(struct l2 *l2)
{
	if (host_cpu_is_intel)
		vmx_on(l2);
	else
		svm_on(l2);
}

void l1_virt_off(void)
{
	if (host_cpu_is_intel)
		vmx_off();
	else
		svm_off();
}

static void l2_leave(void)
{
	/* RAX and RCX say nothing that L0 could take for a hypercall of its own. */
	if (host_cpu_is_intel)
		asm volatile("vmcall" : : "a"(0xdeadbeef), "c"(0xbeefdead) : "memory");
	else
		asm volatile("vmmcall" : : "a"(0xdeadbeef), "c"(0xbeefdead) : "memory");
}

/* What each L2 runs, on its own stack. */
static void l2_entry(struct l2 *l2)
{
	l2->ret = l2->fn(l2->a, l2->b);
	for (;;)
		l2_leave();
}

void l2_setup(struct l2 *l2, u64 root)
{
	l2->root = root;
	l2->faults = 0;
	if (host_cpu_is_intel)
		vmx_setup(l2, l2_entry);
	else
		svm_setup(l2, l2_entry);
	l2->ready = 1;
}

/* As L1's KVM does when it leaves KPOP: another root from the next entry on. */
void l2_set_root(struct l2 *l2, u64 root)
{
	l2->root = root;
	l2->flush = 1;
}

/* Go on where L2 left; after a fault the access is made again. */
u64 l2_resume(struct l2 *l2)
{
	if (host_cpu_is_intel)
		vmx_enter(l2);
	else
		svm_enter(l2);
	if (l2->exit.reason == L2_EXIT_FAULT)
		l2->faults++;
	return l2->exit.reason;
}

/* Run fn(a, b) in L2 from a fresh start until L2 leaves, for what reason ever. */
u64 l2_call(struct l2 *l2, l2_fn fn, u64 a, u64 b)
{
	l2->fn = fn;
	l2->a = a;
	l2->b = b;
	l2->ret = 0;
	l2->regs.rdi = (u64)l2;
	if (host_cpu_is_intel)
		vmx_reset(l2, l2_entry);
	else
		svm_reset(l2, l2_entry);
	return l2_resume(l2);
}

/* LOAD, offer slot 0, make L2 ready to run on it.  Ends the test on failure. */
u64 l2_on_kpop(struct l2 *l2, u64 token, u64 kvm_id, u64 as_id)
{
	long r;

	r = kpop_load(token, l2->holder, kvm_id, as_id);
	__GUEST_ASSERT(!r, "LOAD of token 0x%lx: %ld", token, r);
	r = kpop_map_self(token);
	__GUEST_ASSERT(r == SLOT0_PAGES, "MAP of slot 0: %ld", r);
	if (!l2->ready)
		l2_setup(l2, token);
	l2_set_root(l2, token);
	return token;
}

/* ---- what L2 is asked to do ---- */

u64 l2_read(u64 gva, u64 unused)
{
	return READ_ONCE(*(u64 *)gva);
}

u64 l2_write(u64 gva, u64 val)
{
	WRITE_ONCE(*(u64 *)gva, val);
	return val;
}

u64 l2_exec(u64 gva, u64 unused)
{
	((void (*)(void))gva)();
	return 1;
}

/*
 * Add one to *@gva until *@stop, without an exit of its own.  The locked add
 * never writes back a value older than what the VMM stored in between.
 */
u64 l2_count(u64 gva, u64 stop)
{
	u64 n = 0;

	while (!READ_ONCE(*(u64 *)stop)) {
		asm volatile("lock incq (%0)" : : "r"(gva) : "memory");
		n++;
	}
	return n;
}

/* ---- checks ---- */

bool l2_reads(struct l2 *l2, u64 gva, u64 want)
{
	u64 r = l2_call(l2, l2_read, gva, 0);

	if (r == L2_EXIT_CALL && l2->ret == want)
		return true;
	GUEST_PRINTF("# L2 read of 0x%lx: exit %lu (0x%lx, info 0x%lx, gpa 0x%lx), value 0x%lx, want 0x%lx\n",
		     gva, r, l2->exit.raw, l2->exit.info, l2->exit.gpa, l2->ret, want);
	return false;
}

bool l2_faults_at(struct l2 *l2, l2_fn fn, u64 gva, u64 b, u64 access, bool present)
{
	u64 r = l2_call(l2, fn, gva, b);

	if (r == L2_EXIT_FAULT && (l2->exit.gpa & ~0xfffULL) == (gva & ~0xfffULL) &&
	    l2->exit.access == access && l2->exit.present == present)
		return true;
	GUEST_PRINTF("# L2 at 0x%lx: exit %lu (0x%lx, info 0x%lx, gpa 0x%lx), want a fault with access %lu present %d\n",
		     gva, r, l2->exit.raw, l2->exit.info, l2->exit.gpa, access, present);
	return false;
}
