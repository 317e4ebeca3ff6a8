// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP on L1: what L2 wrote, for a VMM that uses the dirty ring.  See
 * kpop_guest.c for the whole picture, kpop_buffer.c for L0's side.
 *
 * L0 is to this what a CPU with PML is to KVM.  It tells of a page in kg->ring
 * before L2 can write to it; entries go from there to the ring of the vCPU that
 * comes first, when its KVM_RUN ends or when the page is full.  So after KVM_RUN
 * of all vCPUs has ended all that L2 wrote is in one ring or another; which one
 * does not tell who wrote.
 *
 * Nothing is left for which a ring has no room: a vCPU enters L2 only while it
 * has room for twice what kg->ring holds, behind the entries that KVM reserves
 * for itself.  The limit of the ring is lowered for that.
 *
 * A page that was taken is protected in L0 then, not when the ring is reset.  It
 * may be in a ring twice; it is never in none.
 *
 * Should L0 lose its log, it has also lost the address spaces.  What was told is
 * in kg->ring, and a MAP of a page that must be logged and is not is refused:
 * from then on L1 sees each first write itself.
 */
#include <linux/kvm_dirty_ring.h>
#include <linux/kvm_para.h>

#include "mmu.h"
#include "mmu_internal.h"
#include "kpop_guest.h"

/* Entries that L0 may tell before they are taken; a ring has 256 or more. */
static u32 kpop_guest_ring_max(struct kvm *kvm)
{
	return min_t(u32, kvm->dirty_ring_size / sizeof(struct kvm_dirty_gfn) / 8,
		     KPOP_LOG_MAX_ENTRIES);
}

static u64 *kpop_guest_ring(struct kvm *kvm)
{
	/* Pairs with kpop_guest_ring_init(). */
	return smp_load_acquire(&kvm->arch.kpop_guest->ring);
}

/* A memslot is made: from now on there may be something to log. */
void kpop_guest_ring_init(struct kvm *kvm)
{
	struct kpop_guest_vm *kg = kvm->arch.kpop_guest;
	u64 *ring, *taken;

	lockdep_assert_held(&kvm->slots_lock);

	if (!kvm->dirty_ring_size || kg->ring || !kg->page)
		return;

	ring = (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	taken = (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	/* An L0 that knows no buffers says EINVAL. */
	if (!ring || !taken ||
	    __kpop_guest_track(kvm, KPOP_TRACK_LOG_BUFFER, 0, 0,
			       kpop_guest_ring_max(kvm), __pa(ring))) {
		free_page((unsigned long)ring);
		free_page((unsigned long)taken);
		return;
	}
	kg->taken = taken;
	/* Who sees it sees the other one; pairs with kpop_guest_ring(). */
	smp_store_release(&kg->ring, ring);
}

/* No vCPU is left, every log has ended. */
void kpop_guest_ring_uninit(struct kvm *kvm)
{
	struct kpop_guest_vm *kg = kvm->arch.kpop_guest;

	if (!kg->ring)
		return;
	/* Without a buffer L0 does not write to the page; else it says ENOENT. */
	__kpop_guest_track(kvm, KPOP_TRACK_LOG_BUFFER, 0, 0, 0, 0);
	free_page((unsigned long)kg->ring);
	free_page((unsigned long)kg->taken);
	kg->ring = NULL;
}

/* Before the vCPU enters L2 on a token for the first time. */
void kpop_guest_ring_limit(struct kvm_vcpu *vcpu)
{
	struct kvm_dirty_ring *ring = &vcpu->dirty_ring;

	if (ring->size)
		ring->soft_limit = ring->size - kvm_dirty_ring_get_rsvd_entries() -
				   2 * kpop_guest_ring_max(vcpu->kvm);
}

/* Into kg->taken.  Return: how many. */
static u32 kpop_guest_ring_take(struct kvm *kvm)
{
	struct kpop_guest_vm *kg = kvm->arch.kpop_guest;
	long r = -ENOENT;
	u32 i, n = 0;

	lockdep_assert_held(&kg->ring_lock);

	if (!kg->ring_lost && !READ_ONCE(kg->ring[0]))
		return 0;

	if (!kg->ring_lost && kpop_guest_on(kvm))
		r = __kpop_guest_track(kvm, KPOP_TRACK_LOG_TAKE, 0, 0, 0,
				       __pa(kg->taken));
	if (r >= 0)
		return min_t(long, r, KPOP_LOG_MAX_ENTRIES);
	/* Its log is there, but of no use.  A VM that waits for a policy goes on. */
	if (r != -ENOENT && r != -KVM_ENOSYS && r != -ENOLINK)
		kpop_guest_fail(kvm, r);

	WRITE_ONCE(kg->ring_lost, true);
	for (i = 0; i < KPOP_LOG_MAX_ENTRIES; i++) {
		kg->taken[n] = xchg(&kg->ring[i], 0);
		n += !!kg->taken[n];
	}
	return n;
}

static void kpop_guest_ring_push(struct kvm *kvm, u64 entry)
{
	int as_id = (entry & ~KPOP_LOG_ENTRY) >> KPOP_LOG_AS_ID_SHIFT;
	gfn_t gfn = entry & KPOP_LOG_GFN_MASK;

	/* A slot that is gone, or not logged any more, is left out there. */
	mark_page_dirty_in_slot(kvm, __gfn_to_memslot(__kvm_memslots(kvm, as_id), gfn),
				gfn);
}

/*
 * From L0 to this vCPU's ring.  Also if there is nothing: what another vCPU has
 * taken is in its ring when this returns.
 */
static void kpop_guest_ring_flush(struct kvm_vcpu *vcpu)
{
	struct kpop_guest_vm *kg = vcpu->kvm->arch.kpop_guest;
	struct kvm_dirty_ring *ring = &vcpu->dirty_ring;
	u32 i, n = 0;

	spin_lock(&kg->ring_lock);
	/* If there is no room this vCPU has not been in L2 since it was so. */
	if (ring->size - (ring->dirty_index - READ_ONCE(ring->reset_index)) >=
	    kvm_dirty_ring_get_rsvd_entries() + kpop_guest_ring_max(vcpu->kvm))
		n = kpop_guest_ring_take(vcpu->kvm);
	for (i = 0; i < n; i++)
		kpop_guest_ring_push(vcpu->kvm, kg->taken[i]);
	spin_unlock(&kg->ring_lock);
}

/**
 * kpop_guest_ring_make_room - L2 was not let write: is it for want of room?
 * @vcpu: the vCPU
 *
 * Context: in KVM_RUN or a loop of faults like it; mmu_lock held for read.
 */
void kpop_guest_ring_make_room(struct kvm_vcpu *vcpu)
{
	u64 *ring = kpop_guest_ring(vcpu->kvm);

	if (ring && READ_ONCE(ring[kpop_guest_ring_max(vcpu->kvm) - 1]))
		kpop_guest_ring_flush(vcpu);
}

/**
 * __kpop_guest_run_end - KVM_RUN ends
 * @vcpu: the vCPU, loaded
 *
 * Context: kvm->srcu held, no lock.
 */
void __kpop_guest_run_end(struct kvm_vcpu *vcpu)
{
	if (kpop_guest_ring(vcpu->kvm))
		kpop_guest_ring_flush(vcpu);
}
