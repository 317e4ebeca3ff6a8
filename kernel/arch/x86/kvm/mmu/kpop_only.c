// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP in L0: kpop-only, a VM whose L2s run on KPOP or not at all.
 *
 * With it L0's shadow MMU is out of this L1's reach, and what a policy denies
 * L1 cannot give its L2 in another way.  A nested entry is refused before it
 * begins (kpop_refuses()) as one with a bad nCR3 or EPTP is, unless LOAD bound
 * its holder to its token.
 *
 * Not every way into guest mode can fail: RSM, a VMFUNC of L2, a state that
 * user space restores, an entry that was let in a moment before the policy went
 * or the switch was turned.  There the vCPU runs on the space "nowhere", which
 * is dead: its root stays empty, each access of L2 is a fault that L1 gets, and
 * L1's next entry is refused.
 */
#include "mmu.h"
#include "x86.h"
#include "kpop.h"

/* It belongs to no token and no list; a root is made when a vCPU runs on it. */
static int kpop_make_nowhere(struct kpop_vm *kv)
{
	struct kpop_space *space;

	if (kv->nowhere)
		return 0;

	space = kzalloc(sizeof(*space), GFP_KERNEL_ACCOUNT);
	if (!space)
		return -ENOMEM;

	refcount_set(&space->count, 1);
	space->kv = kv;
	space->token = INVALID_GPA;
	space->runs = RB_ROOT;
	space->dead = true;
	/* One a VM, and not L1's doing: counted, but never refused by the cap. */
	atomic64_add(KPOP_SPACE_BYTES, &kv->bytes);
	kv->nowhere = space;
	return 0;
}

/* The VM goes: no vCPU is left. */
void kpop_free_only(struct kpop_vm *kv)
{
	if (kv->nowhere)
		kpop_put_space(kv->nowhere);
	kv->nowhere = NULL;
}

/**
 * kpop_set_only - turn kpop-only on or off
 * @kv: the VM
 * @only: on
 *
 * It is the VM's, whatever policies come and go.  On: when this returns, the
 * VM has no shadow root, and no vCPU runs on one or will.  An L2 without nested
 * paging, which needs none, runs until its next exit to L1.
 *
 * Context: may sleep; no lock held.
 * Return: 0 or -ENOMEM.
 */
int kpop_set_only(struct kpop_vm *kv, bool only)
{
	struct kvm *kvm = kv->kvm;
	int r = 0;

	mutex_lock(&kvm->slots_lock);
	if (only == kv->only)
		goto out;

	if (only)
		r = kpop_make_nowhere(kv);
	if (r)
		goto out;

	/* Pairs with kpop_only(). */
	smp_store_release(&kv->only, only);
	/*
	 * All roots, KPOP's too: they come back.  Each vCPU leaves the guest
	 * and sees kpop_evict() before it enters again.
	 */
	if (only)
		kvm_mmu_zap_all_fast(kvm);
out:
	mutex_unlock(&kvm->slots_lock);
	return r;
}

/**
 * kpop_refuses - must a nested entry fail?
 * @vcpu: the vCPU, not in guest mode yet
 * @may_serve: L1 is a 64-bit one and uses nested paging
 * @vcpu_holder: GPA of vmcb12 / vmcs12
 * @token: nCR3, or the address bits of EPTP
 *
 * If it need not, the vCPU has the space that L1 loaded; kpop_nested_enter()
 * comes next.
 *
 * Context: vCPU loaded, may sleep.
 * Return: true if the VM is kpop-only and this L2 is not on KPOP.
 */
bool kpop_refuses(struct kvm_vcpu *vcpu, bool may_serve, gpa_t vcpu_holder, u64 token)
{
	struct kpop_vm *kv = kpop_vm(vcpu->kvm);

	if (!kv || !kpop_only(kv) ||
	    (may_serve && kpop_pick_space(vcpu, vcpu_holder, token)))
		return false;

	kpop_count(vcpu->kvm, kpop_refused);
	return true;
}
EXPORT_SYMBOL_GPL(kpop_refuses);

/**
 * kpop_enter_nowhere - have a vCPU's L2 fault at each access
 * @vcpu: a vCPU of a kpop-only VM, in guest mode, not on kpop_mmu
 */
void kpop_enter_nowhere(struct kvm_vcpu *vcpu)
{
	struct kpop_space *space = kpop_vm(vcpu->kvm)->nowhere;

	kpop_leave_space(vcpu);
	refcount_inc(&space->count);
	vcpu->arch.kpop_space = space;
	/* No entry of L1's has this holder. */
	vcpu->arch.kpop_holder = INVALID_GPA;
}

/**
 * kpop_evict - take a vCPU off the shadow MMU when its VM became kpop-only
 * @vcpu: the vCPU, between two runs of the guest; its roots are let go
 *
 * How L1 gets a fault is the vendor's, and the same as on guest_mmu.
 */
void kpop_evict(struct kvm_vcpu *vcpu)
{
	struct kvm_mmu *from = &vcpu->arch.guest_mmu, *to = &vcpu->arch.kpop_mmu;
	struct kpop_vm *kv = kpop_vm(vcpu->kvm);

	if (!kv || !kpop_only(kv) || !is_guest_mode(vcpu) || vcpu->arch.mmu != from)
		return;

	kpop_enter_nowhere(vcpu);
	to->get_guest_pgd = from->get_guest_pgd;
	to->get_pdptr = from->get_pdptr;
	to->inject_page_fault = from->inject_page_fault;
	kvm_mmu_init_kpop_context(vcpu, to);
	vcpu->arch.mmu = to;
}
