// SPDX-License-Identifier: GPL-2.0
/*
 * L0 emulates an instruction of L2 and is about to store (contract 5): an UNMAP of
 * the page does not return before that store is done, however long the host's
 * memory management keeps L0 waiting; a signal interrupts it, it comes again.
 *
 * L2 moves eight bytes from a device to memory.  The device's read goes to the VMM,
 * which then takes the page away, behind a userfaultfd: there the store waits.
 */
#include <signal.h>

#include "kpop_test.h"

#define TOKEN		token_of(0)
#define KVM_ID		25
#define DEV		8		/* L2's page of the device */
#define MEM		9		/* and that of the store, and the pool's */
#define NOWHERE		0x7f0000000ULL	/* no memslot there */
#define VALUE		0x1122334455667788ULL

enum { PH_READY, PH_UNMAP, PH_UNMAPPING, PH_UNMAPPED, PH_STORED };

static u64 l2_move(u64 from, u64 to)
{
	asm volatile("movsq" : "+S"(from), "+D"(to) : : "memory");
	return 1;
}

static void l1_unmaps(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];
	u64 r;

	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(MEM), pool_gfn(MEM), 1), 1, "memory");
	G_EXPECT(kpop_map(TOKEN, KPOP_MAP_R | KPOP_MAP_W | KPOP_MAP_DEVICE, l2_gfn(DEV),
			  NOWHERE / KST_PAGE, 1), 1, "a device");
	G_CHECK(l2_reads(l2, l2_gva(MEM), 0x600d), "L2 has the memory");
	sh->phase[PH_READY] = 1;
	G_CHECK(spin_until(sh->phase[PH_UNMAP]), "the store is under way");
	sh->phase[PH_UNMAPPING] = 1;
	r = kpop_unmap(KVM_ID, l2_gfn(MEM), 1);
	sh->phase[PH_UNMAPPED] = 1;
	G_EXPECT(r, 1, "UNMAP");
	G_EXPECT(*pool_ptr(MEM), VALUE, "the store came before it returned");
	G_CHECK(spin_until(sh->phase[PH_STORED]), "L2's instruction is done");
	G_EXPECT(l2_call(l2, l2_read, l2_gva(MEM), 0), L2_EXIT_FAULT, "the page is gone");
	GUEST_DONE();
}

static void l1_moves(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[1];

	l1_virt_on(l2);
	GUEST_ASSERT(spin_until(sh->phase[PH_READY]));
	GUEST_ASSERT(!kpop_load(TOKEN, l2->holder, KVM_ID, 0));
	l2_setup(l2, TOKEN);
	G_EXPECT(l2_call(l2, l2_move, l2_gva(DEV), l2_gva(MEM)), L2_EXIT_CALL, "L2 moved it");
	sh->phase[PH_STORED] = 1;
	GUEST_DONE();
}

/* ---- host ---- */

static int uffd;
static volatile int reads;

static void on_mmio(struct tvm *t, struct kvm_run *run)
{
	u64 val = VALUE;

	if (run->mmio.is_write || run->mmio.phys_addr >> 12 != NOWHERE >> 12) {
		kst_check(false, "MMIO at 0x%llx", run->mmio.phys_addr);
		return;
	}
	memcpy(run->mmio.data, &val, run->mmio.len);
	if (!reads++)
		uffd = uffd_catch(tvm_pool(t, MEM));
}

static volatile int signals;

/* In the vCPU's thread, which is out of KVM_RUN then. */
static void on_signal(int sig)
{
	signals++;
}

int main(int argc, char **argv)
{
	struct tvm_opts o = {
		.guest = { l1_unmaps, l1_moves },
		.nr_l2 = 2,
		.mmio = on_mmio,
	};
	struct sigaction sa = { .sa_handler = on_signal };
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;

	kst_begin("kpop_inflight_test", 180);
	sigaction(SIGUSR1, &sa, NULL);
	t = tvm_create(&o);
	kpop_info(t, &info);
	*tvm_pool(t, MEM) = 0x600d;
	policy_serve(&p, "kpop_base", t);
	tvm_start(t);
	kst_check(kst_wait(reads && uffd_caught(uffd, tvm_pool(t, MEM)), 60000), "L0's store for L2 waits for a page");
	t->sh->phase[PH_UNMAP] = 1;
	kst_check(kst_wait(t->sh->phase[PH_UNMAPPING], 60000), "L1 takes that page away");
	usleep(300000);
	kst_check(!t->sh->phase[PH_UNMAPPED], "UNMAP does not return while the store waits");
	pthread_kill(t->thread[0], SIGUSR1);
	kst_check(kst_wait(signals, 30000), "a signal gets its vCPU out");
	usleep(100000);
	kst_check(!t->sh->phase[PH_UNMAPPED] && !t->sh->phase[PH_STORED],
		  "which comes again, and waits");
	uffd_let_go(uffd, tvm_pool(t, MEM));
	kst_check(kst_wait(t->sh->phase[PH_UNMAPPED], 60000), "the page is there: UNMAP returns");
	tvm_join(t);
	kst_check(reads == 1, "the device was read once (%d)", reads);
	close(uffd);
	policy_stop(&p, t);
	tvm_free(t);
	return kst_end();
}
