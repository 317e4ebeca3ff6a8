// SPDX-License-Identifier: GPL-2.0
/*
 * L0 emulates an instruction of L2 and is about to store (contract 5): an UNMAP of
 * the page does not return before that store is done, however long the host's
 * memory management keeps L0 waiting; a signal interrupts it, it comes again.
 * lib/held.c has how.
 */
#include <signal.h>

#include "kpop_test.h"

#define TOKEN		token_of(0)
#define KVM_ID		25

enum { PH_READY, PH_UNMAP, PH_UNMAPPING, PH_UNMAPPED, PH_STORED };

static void l1_unmaps(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];
	u64 r;

	l1_virt_on(l2);
	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	held_map(TOKEN);
	G_CHECK(l2_reads(l2, l2_gva(HELD_MEM), 0x600d), "L2 has the memory");
	sh->phase[PH_READY] = 1;
	G_CHECK(spin_until(sh->phase[PH_UNMAP]), "the store is under way");
	sh->phase[PH_UNMAPPING] = 1;
	r = kpop_unmap(KVM_ID, l2_gfn(HELD_MEM), 1);
	sh->phase[PH_UNMAPPED] = 1;
	G_EXPECT(r, 1, "UNMAP");
	G_EXPECT(*pool_ptr(HELD_MEM), HELD_VALUE, "the store came before it returned");
	G_CHECK(spin_until(sh->phase[PH_STORED]), "L2's instruction is done");
	G_EXPECT(l2_call(l2, l2_read, l2_gva(HELD_MEM), 0), L2_EXIT_FAULT, "the page is gone");
	GUEST_DONE();
}

static void l1_moves(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[1];

	l1_virt_on(l2);
	GUEST_ASSERT(spin_until(sh->phase[PH_READY]));
	GUEST_ASSERT(!kpop_load(TOKEN, l2->holder, KVM_ID, 0));
	l2_setup(l2, TOKEN);
	G_EXPECT(held_move(l2), L2_EXIT_CALL, "L2 moved it");
	sh->phase[PH_STORED] = 1;
	GUEST_DONE();
}

/* ---- host ---- */

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
		.mmio = held_on_mmio,
	};
	struct sigaction sa = { .sa_handler = on_signal };
	struct kvm_kpop_info info;
	struct policy p;
	struct tvm *t;

	kst_begin("kpop_inflight_test", 180);
	sigaction(SIGUSR1, &sa, NULL);
	t = tvm_create(&o);
	kpop_info(t, &info);
	*tvm_pool(t, HELD_MEM) = 0x600d;
	policy_serve(&p, "kpop_base", t);
	tvm_start(t);
	kst_check(held_wait(t), "L0's store for L2 waits for a page");
	t->sh->phase[PH_UNMAP] = 1;
	kst_check(kst_wait(t->sh->phase[PH_UNMAPPING], 60000), "L1 takes that page away");
	usleep(300000);
	kst_check(!t->sh->phase[PH_UNMAPPED], "UNMAP does not return while the store waits");
	pthread_kill(t->thread[0], SIGUSR1);
	kst_check(kst_wait(signals, 30000), "a signal gets its vCPU out");
	usleep(100000);
	kst_check(!t->sh->phase[PH_UNMAPPED] && !t->sh->phase[PH_STORED],
		  "which comes again, and waits");
	held_let_go(t);
	kst_check(kst_wait(t->sh->phase[PH_UNMAPPED], 60000), "the page is there: UNMAP returns");
	tvm_join(t);
	held_end();
	policy_stop(&p, t);
	tvm_free(t);
	return kst_end();
}
