// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP on L1: faults of an L2, answered by offering a page to L0.  See
 * kpop_guest.c for the whole picture.
 */
#include <linux/kvm_para.h>

#include "mmu.h"
#include "mmu_internal.h"
#include "mmutrace.h"
#include "kpop_guest.h"
#include "spte.h"
#include "x86.h"

/* How often an access may be granted too little before it is an error. */
#define KPOP_GUEST_TRIES	8
/* After so many faults in a row on one page, doubt the binding. */
#define KPOP_GUEST_REBIND	4
/* Steps in which one fault's MAP may be served. */
#define KPOP_GUEST_MAP_STEPS	1024

/* One run of a MAP, and what became of it. */
struct kpop_guest_offer {
	gfn_t l2;
	gfn_t l1;
	u64 npages;
	u64 rights;
	bool wrprot;			/* L1 must see writes */
	u64 done;
	u32 granted;
};

/*
 * A TDP fault that hit no memslot is MMIO.  An SPTE would only repeat what the
 * lookup has just said.
 */
bool kpop_guest_mmio_fault(struct kvm_vcpu *vcpu, struct kvm_page_fault *fault)
{
	if (fault->slot || fault->is_private || !kpop_guest_token(vcpu))
		return false;

	vcpu_cache_mmio_info(vcpu, 0, fault->gfn, ACC_ALL & shadow_mmio_access_mask);
	return true;
}

/*
 * As disallowed_hugepage_adjust(): a non-executable huge page must not replace
 * a small one that may be executable.
 */
static void kpop_guest_nx_adjust(struct kvm_page_fault *fault)
{
	gfn_t first, mask;

	while (fault->nx_huge_page_workaround_enabled &&
	       fault->goal_level > PG_LEVEL_4K) {
		first = gfn_round_for_level(fault->gfn, fault->goal_level);
		if (!kpop_guest_any(fault->slot, first,
				    first + KVM_PAGES_PER_HPAGE(fault->goal_level),
				    PG_LEVEL_4K))
			return;

		mask = KVM_PAGES_PER_HPAGE(fault->goal_level) -
		       KVM_PAGES_PER_HPAGE(fault->goal_level - 1);
		fault->pfn |= fault->gfn & mask;
		fault->goal_level--;
	}
}

/* What make_spte() decides. */
static void kpop_guest_make_offer(struct kvm_vcpu *vcpu, struct kvm_page_fault *fault,
				  struct kpop_guest_offer *o)
{
	const struct kvm_memory_slot *slot = fault->slot;
	bool logged = kvm_slot_dirty_track_enabled(slot);
	bool by_l0 = logged && kpop_guest_logs(vcpu->kvm, slot);
	int level = fault->goal_level;

	*o = (struct kpop_guest_offer) {
		.l2 = gfn_round_for_level(fault->gfn, level),
		.l1 = fault->pfn,
		.npages = KVM_PAGES_PER_HPAGE(level),
		.rights = KPOP_MAP_R,
	};

	if (level == PG_LEVEL_4K || !fault->nx_huge_page_workaround_enabled)
		o->rights |= KPOP_MAP_X;

	if (!fault->map_writable || (logged && !by_l0 && !fault->write))
		return;

	if (mmu_try_to_unsync_pages(vcpu->kvm, slot, o->l2, true, fault->prefetch)) {
		o->wrprot = true;
		return;
	}

	o->rights |= KPOP_MAP_W;
	/* L0's log has it, or is told of it; or L1's own. */
	if (by_l0)
		o->rights |= (fault->write ? KPOP_MAP_WRITTEN : 0) |
			     (vcpu->kvm->dirty_ring_size ? KPOP_MAP_LOGGED : 0);
	else if (logged)
		mark_page_dirty_in_slot(vcpu->kvm, slot, fault->gfn);
}

static void kpop_guest_set_offered(struct kvm *kvm, struct kvm_page_fault *fault,
				   struct kpop_guest_offer *o)
{
	int level = fault->goal_level;
	unsigned long idx = gfn_to_index(o->l2, fault->slot->base_gfn, level);
	unsigned long *map = kpop_guest_offered(fault->slot, level);

	if (!test_bit(idx, map) && !test_and_set_bit(idx, map))
		kvm_update_page_stats(kvm, level, 1);

	kpop_guest_split_above(kvm, fault->slot, fault->gfn, level);
}

/* L0 lost the token: have every vCPU LOAD again, this one now. */
static int kpop_guest_rebind(struct kvm_vcpu *vcpu, struct kvm_mmu_page *root)
{
	struct kpop_guest_binding *b = &vcpu->arch.kpop_guest.bound[is_guest_mode(vcpu)];
	struct kvm *kvm = vcpu->kvm;

	if (atomic64_cmpxchg(&kvm->arch.kpop_guest->epoch, b->epoch, b->epoch + 1) == b->epoch)
		kvm_make_all_cpus_request(kvm, KVM_REQ_KPOP_GUEST);
	return kpop_guest_bind(vcpu, root);
}

static long kpop_guest_send_map(struct kvm_vcpu *vcpu, struct kvm_mmu_page *root,
				struct kpop_guest_offer *o)
{
	u64 token = __pa(root->spt);
	bool lost = false;
	long ret;
	int i;

	for (i = 0; o->done < o->npages && i < KPOP_GUEST_MAP_STEPS; i++) {
		ret = kvm_hypercall4(KVM_HC_KPOP_MMU_MAP, token | o->rights,
				     o->l2 + o->done, o->l1 + o->done,
				     o->npages - o->done);
		atomic64_inc(&vcpu->kvm->stat.kpop_guest_maps);
		trace_kvm_kpop_guest_map(token | o->rights, o->l2 + o->done,
					 o->l1 + o->done, o->npages - o->done, ret);
		if (ret == -ENOENT && !lost) {
			lost = true;
			ret = kpop_guest_rebind(vcpu, root);
			if (!ret)
				continue;
		}
		/* No memory to L0: a device of L0 that is given to L2. */
		if (ret == -EFAULT && !(o->rights & KPOP_MAP_DEVICE)) {
			o->rights |= KPOP_MAP_DEVICE;
			continue;
		}
		/* L0 tells of no writes any more: L1 has to see them. */
		if (ret == -ENODATA) {
			WRITE_ONCE(vcpu->kvm->arch.kpop_guest->ring_lost, true);
			return -EAGAIN;
		}
		if (ret < 0)
			return ret;
		if (!KPOP_MAP_DONE(ret))
			return -EAGAIN;

		o->done += min_t(u64, KPOP_MAP_DONE(ret), o->npages - o->done);
		o->granted = KPOP_MAP_RIGHTS(ret);
	}

	return o->done < o->npages ? -EAGAIN : 0;
}

/* MAP, between two settings of the bit: see "Locks" in kpop_guest.c. */
static long kpop_guest_offer(struct kvm_vcpu *vcpu, struct kvm_page_fault *fault,
			     struct kvm_mmu_page *root, struct kpop_guest_offer *o)
{
	long ret;

	kpop_guest_set_offered(vcpu->kvm, fault, o);

	ret = kpop_guest_bound(vcpu, root) ? 0 : kpop_guest_bind(vcpu, root);
	if (!ret)
		ret = kpop_guest_send_map(vcpu, root, o);

	kpop_guest_set_offered(vcpu->kvm, fault, o);

	/*
	 * Also if it failed: L0 may have mapped some of it.  Who gave the pfn
	 * marks it accessed when it lets go of it.
	 */
	if (o->rights & KPOP_MAP_W)
		kvm_set_pfn_dirty(fault->pfn);
	return ret;
}

/* How often in a row, before this time, this vCPU took the same fault. */
static unsigned int kpop_guest_count_fault(struct kvm_vcpu *vcpu,
					   struct kvm_page_fault *fault)
{
	struct kpop_guest_vcpu *kv = &vcpu->arch.kpop_guest;
	u64 access = fault->error_code & (PFERR_WRITE_MASK | PFERR_FETCH_MASK);

	if (kv->gfn != fault->gfn || kv->access != access || fault->prefetch) {
		kv->gfn = fault->gfn;
		kv->access = access;
		kv->tries = 0;
	} else {
		kv->tries++;
	}

	return kv->tries;
}

static int kpop_guest_map_result(struct kvm_vcpu *vcpu, struct kvm_page_fault *fault,
				 const struct kpop_guest_offer *o, long ret)
{
	u32 need = fault->write ? KPOP_MAP_W : fault->exec ? KPOP_MAP_X : KPOP_MAP_R;

	if (o->done > fault->gfn - o->l2) {
		if (o->wrprot && fault->write)
			return RET_PF_WRITE_PROTECTED;
		if (!(need & ~o->granted))
			return RET_PF_FIXED;
		if (vcpu->arch.kpop_guest.tries < KPOP_GUEST_TRIES)
			return RET_PF_RETRY;
		ret = -EPERM;
	}

	switch (ret) {
	case -EAGAIN:
		return RET_PF_RETRY;
	case -ENOLINK:
		kpop_guest_unserved(vcpu);
		return RET_PF_RETRY;
	case -EPERM:
		kvm_mmu_prepare_memory_fault_exit(vcpu, fault);
		return -EFAULT;
	default:
		/* There is no way back to KPOP: who has no other one waits. */
		if (kpop_guest_no_memory(ret) && kpop_guest_only())
			return -ENOMEM;
		kpop_guest_fail(vcpu->kvm, ret);
		return RET_PF_RETRY;
	}
}

/*
 * kvm_tdp_mmu_map() of a token.  mmu_lock is held for read, the root is valid
 * and the notifier sequence was checked.
 */
int kpop_guest_map(struct kvm_vcpu *vcpu, struct kvm_page_fault *fault)
{
	struct kvm_mmu_page *root = kpop_guest_token(vcpu);
	struct kvm *kvm = vcpu->kvm;
	struct kpop_guest_vm *kg = kvm->arch.kpop_guest;
	struct kpop_guest_offer o;
	unsigned int tries;

	lockdep_assert_held_read(&kvm->mmu_lock);

	if (!fault->slot)
		return RET_PF_EMULATE;

	if (READ_ONCE(kg->state) != KPOP_GUEST_ON)
		return RET_PF_RETRY;

	kvm_mmu_hugepage_adjust(vcpu, fault);
	kpop_guest_nx_adjust(fault);
	trace_kvm_mmu_spte_requested(fault);

	/* L0 knows nothing of memory types that only an EPT of L1 can give. */
	if (fault->gfn >= kg->gfn_limit ||
	    (shadow_memtype_mask && kvm_arch_has_noncoherent_dma(kvm))) {
		kpop_guest_fail(kvm, -ERANGE);
		return RET_PF_RETRY;
	}

	tries = kpop_guest_count_fault(vcpu, fault);
	if (tries && !(tries % KPOP_GUEST_REBIND))
		vcpu->arch.kpop_guest.bound[is_guest_mode(vcpu)].token = INVALID_PAGE;

	if (fault->huge_page_disallowed && fault->req_level >= PG_LEVEL_2M)
		kpop_guest_track_nx(kvm, fault->slot, fault->gfn);

	if (fault->write)
		kpop_guest_ring_make_room(vcpu);

	kpop_guest_make_offer(vcpu, fault, &o);
	return kpop_guest_map_result(vcpu, fault, &o,
				     kpop_guest_offer(vcpu, fault, root, &o));
}
