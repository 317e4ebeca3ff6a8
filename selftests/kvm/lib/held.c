// SPDX-License-Identifier: GPL-2.0
/*
 * A store of L0 on L2's behalf that the host holds up.  L2 moves eight bytes from a
 * device, whose read goes to the VMM, to a page, which the VMM then takes away behind
 * a userfaultfd: there L0's store waits.
 */
#include "kpop_test.h"

#define NOWHERE		0x7f0000000ULL	/* L1's address of the device: no memslot */

/* In L1: both pages for L2. */
void held_map(u64 token)
{
	G_EXPECT(kpop_map(token, KPOP_MAP_RWX, l2_gfn(HELD_MEM), pool_gfn(HELD_MEM), 1), 1, "memory");
	G_EXPECT(kpop_map(token, KPOP_MAP_R | KPOP_MAP_W | KPOP_MAP_DEVICE, l2_gfn(HELD_DEV),
			  NOWHERE / KST_PAGE, 1), 1, "a device");
}

/* In L2. */
static u64 l2_move(u64 from, u64 to)
{
	asm volatile("movsq" : "+S"(from), "+D"(to) : : "memory");
	return 1;
}

/* In L1: L2's exit is known when the store is done. */
u64 held_move(struct l2 *l2)
{
	return l2_call(l2, l2_move, l2_gva(HELD_DEV), l2_gva(HELD_MEM));
}

/* ---- the VMM ---- */

static int uffd;
static volatile int reads;

void held_on_mmio(struct tvm *t, struct kvm_run *run)
{
	u64 val = HELD_VALUE;

	if (run->mmio.is_write || run->mmio.phys_addr >> 12 != NOWHERE >> 12) {
		kst_check(false, "MMIO at 0x%llx", run->mmio.phys_addr);
		return;
	}
	memcpy(run->mmio.data, &val, run->mmio.len);
	if (!reads)
		uffd = uffd_catch(tvm_pool(t, HELD_MEM));
	reads++;
}

bool held_wait(struct tvm *t)
{
	return kst_wait(reads && uffd_caught(uffd, tvm_pool(t, HELD_MEM)), 60000);
}

void held_let_go(struct tvm *t)
{
	uffd_let_go(uffd, tvm_pool(t, HELD_MEM));
}

/* The next one may begin. */
void held_end(void)
{
	kst_check(reads == 1, "the device was read once (%d)", reads);
	close(uffd);
	reads = 0;
}
