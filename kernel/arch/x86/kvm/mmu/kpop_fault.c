// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP in L0: a vCPU that runs an L2 on KPOP: its mmu, its faults, and L0's
 * own look at L2's memory.
 */
#include <asm/vmx.h>

#include "mmu.h"
#include "x86.h"
#include "kpop.h"
#include "tdp_mmu.h"
#include "kpop_trace.h"

/*
 * From here on kpop_wait_walks() waits for this vCPU, until it enters the
 * guest, starts its run loop anew or returns to user space.  Only a vCPU that
 * runs is sure to do one of them.
 */
static void kpop_walk_begin(struct kvm_vcpu *vcpu)
{
	if (vcpu->arch.kpop_walk_epoch || !vcpu->arch.kpop_in_run)
		return;

	/* 0 is no walk; -1 is before it, so that it is waited for in vain at worst. */
	WRITE_ONCE(vcpu->arch.kpop_walk_epoch,
		   atomic_read(&kpop_vm(vcpu->kvm)->walk_epoch) ?: -1);
	/* Pairs with the barrier in kpop_wait_walks(). */
	smp_mb();
}

/* PFERR_* of an access as KPOP_MAP_*. */
static u32 kpop_access(u64 error_code)
{
	if (error_code & PFERR_FETCH_MASK)
		return KPOP_MAP_X;
	return error_code & PFERR_WRITE_MASK ? KPOP_MAP_W : KPOP_MAP_R;
}

/*
 * The fault as L1 would see it from a page table of its own: with the rights
 * of the translation, not of what L0 has made present of it.
 */
static void kpop_fill_exception(struct x86_exception *e, gpa_t l2_gpa,
				u64 error_code, u32 rights)
{
	u32 access = kpop_access(error_code);

	*e = (struct x86_exception) {
		.vector = PF_VECTOR,
		.error_code_valid = true,
		.error_code = PFERR_USER_MASK | (rights ? PFERR_PRESENT_MASK : 0) |
			      (error_code & (PFERR_WRITE_MASK | PFERR_FETCH_MASK)),
		.nested_page_fault = true,
		.address = l2_gpa,
		/* EPT: R, W, X of the access, and shifted by 3 of the entry. */
		.exit_qualification = access | rights << 3 | EPT_VIOLATION_GVA_IS_VALID |
				      (error_code & PFERR_GUEST_PAGE_MASK ? 0 :
				       EPT_VIOLATION_GVA_TRANSLATED),
	};
}

/*
 * A translation as L1 left it.  A remap, which holds mmu_lock for write, has a
 * moment without one: a miss counts only under mmu_lock.
 */
static bool kpop_translate(struct kpop_space *space, gfn_t l2, struct kpop_trans *t)
{
	struct kvm *kvm = space->kv->kvm;
	bool found;

	if (READ_ONCE(space->dead))
		return false;
	if (kpop_trans_lookup(space, l2, t))
		return true;

	read_lock(&kvm->mmu_lock);
	found = kpop_trans_lookup(space, l2, t);
	read_unlock(&kvm->mmu_lock);
	return found;
}

/**
 * kpop_gva_to_gpa - translate an L2 gpa for L0's own access
 * @vcpu: a vCPU in guest mode on KPOP
 * @mmu: its kpop_mmu
 * @l2_gpa: the address
 * @access: PFERR_* of the access
 * @exception: filled in if it is denied
 *
 * Takes the place of the gva_to_gpa() that walks L1's NPT or EPT.  The result
 * may be used until the vCPU next enters the guest, see kpop_wait_walks().
 *
 * Return: the L1 gpa, or INVALID_GPA.
 */
static gpa_t kpop_gva_to_gpa(struct kvm_vcpu *vcpu, struct kvm_mmu *mmu,
			     gpa_t l2_gpa, u64 access,
			     struct x86_exception *exception)
{
	struct kpop_space *space = vcpu->arch.kpop_space;
	struct kpop_trans t = {};

	kpop_walk_begin(vcpu);

	if (kpop_translate(space, gpa_to_gfn(l2_gpa), &t) &&
	    kpop_access(access) & t.rights) {
		if (!(access & PFERR_WRITE_MASK) ||
		    !kpop_log_walk(space, gpa_to_gfn(l2_gpa)))
			return gfn_to_gpa(t.l1 + (gpa_to_gfn(l2_gpa) - t.l2)) |
			       offset_in_page(l2_gpa);
		t.rights &= ~KPOP_MAP_W;
	}

	if (exception)
		kpop_fill_exception(exception, l2_gpa, access, t.rights);
	return INVALID_GPA;
}

void kpop_init_vcpu(struct kvm_vcpu *vcpu)
{
	struct kvm_mmu *mmu = &vcpu->arch.kpop_mmu;
	int i;

	mmu->root.hpa = INVALID_PAGE;
	mmu->root.pgd = 0;
	for (i = 0; i < KVM_MMU_NUM_PREV_ROOTS; i++)
		mmu->prev_roots[i] = KVM_MMU_ROOT_INFO_INVALID;
	mmu->gva_to_gpa = kpop_gva_to_gpa;
}

/* As for the other MMUs: the root goes, the context stays. */
void kpop_unload_vcpu(struct kvm_vcpu *vcpu)
{
	kvm_mmu_free_roots(vcpu->kvm, &vcpu->arch.kpop_mmu, KVM_MMU_ROOTS_ALL);
}
EXPORT_SYMBOL_GPL(kpop_unload_vcpu);

void kpop_leave_space(struct kvm_vcpu *vcpu)
{
	kpop_unload_vcpu(vcpu);
	if (vcpu->arch.kpop_space)
		kpop_put_space(vcpu->arch.kpop_space);
	vcpu->arch.kpop_space = NULL;
}

void kpop_destroy_vcpu(struct kvm_vcpu *vcpu)
{
	kpop_leave_space(vcpu);
}

/**
 * kpop_free_obsolete - let go of an invalid root and of a dead space
 * @vcpu: the vCPU
 *
 * In guest mode on KPOP the space is kept: it gives the empty root.
 */
void kpop_free_obsolete(struct kvm_vcpu *vcpu)
{
	struct kvm_mmu *mmu = &vcpu->arch.kpop_mmu;
	struct kpop_space *space;

	kpop_evict(vcpu);
	space = vcpu->arch.kpop_space;
	if (space && READ_ONCE(space->dead) && vcpu->arch.mmu != mmu)
		kpop_leave_space(vcpu);
	else if (VALID_PAGE(mmu->root.hpa) &&
		 root_to_sp(mmu->root.hpa)->role.invalid)
		kpop_unload_vcpu(vcpu);
}

/* The space that a holder is bound to with this token, with a reference. */
static struct kpop_space *kpop_bound_space(struct kpop_vm *kv, gpa_t holder,
					   u64 token, u64 *gen)
{
	struct kpop_guest_mmu *gmmu;
	struct kpop_space *space = NULL;

	mutex_lock(&kv->lock);
	*gen = kv->bind_gen;
	gmmu = kpop_find_guest_mmu(kv, holder, token);
	if (gmmu) {
		space = gmmu->space;
		refcount_inc(&space->count);
	}
	mutex_unlock(&kv->lock);
	return space;
}

/**
 * kpop_pick_space - take the space that L1 loaded for a nested entry
 * @vcpu: the vCPU; it does not run on kpop_mmu
 * @holder: GPA of vmcb12 / vmcs12
 * @token: what L1 put into nCR3, or the address bits of EPTP
 *
 * Return: true if vcpu->arch.kpop_space is the one, false if there is none.
 */
bool kpop_pick_space(struct kvm_vcpu *vcpu, gpa_t holder, u64 token)
{
	struct kpop_vm *kv = kpop_vm(vcpu->kvm);
	struct kpop_space *space = vcpu->arch.kpop_space;
	u64 gen;

	if (!READ_ONCE(kv->nr_bindings) && !space)
		return false;

	if (space && vcpu->arch.kpop_holder == holder && space->token == token &&
	    vcpu->arch.kpop_bind_gen == READ_ONCE(kv->bind_gen))
		return true;

	space = kpop_bound_space(kv, holder, token, &gen);
	if (!space || space != vcpu->arch.kpop_space)
		kpop_leave_space(vcpu);
	else
		kpop_put_space(space);
	if (!space)
		return false;

	vcpu->arch.kpop_space = space;
	vcpu->arch.kpop_holder = holder;
	vcpu->arch.kpop_bind_gen = gen;
	return true;
}

/**
 * kpop_nested_enter - does KPOP serve the L2 that L1 enters now?
 * @vcpu: the vCPU, in guest mode since a moment ago
 * @may_serve: KPOP serves such an L1: a 64-bit one
 * @vcpu_holder: GPA of vmcb12 / vmcs12
 * @token: what L1 put into nCR3, or the address bits of EPTP
 *
 * Only with the whole token and the very holder that LOAD bound.  If so,
 * vcpu->arch.mmu is kpop_mmu and walk_mmu is left to the vendor.  A kpop-only
 * VM never gets another answer: see kpop_only.c.
 *
 * Context: vCPU loaded, may sleep.
 * Return: false to use legacy nested paging.
 */
bool kpop_nested_enter(struct kvm_vcpu *vcpu, bool may_serve, gpa_t vcpu_holder,
		       u64 token)
{
	struct kpop_vm *kv = kpop_vm(vcpu->kvm);

	if (!kv)
		return false;

	if (!may_serve || !kpop_pick_space(vcpu, vcpu_holder, token)) {
		if (!kpop_only(kv))
			return false;
		kpop_enter_nowhere(vcpu);
	}

	kvm_mmu_init_kpop_context(vcpu, &vcpu->arch.kpop_mmu);
	vcpu->arch.mmu = &vcpu->arch.kpop_mmu;
	/* A root that is there already is loaded, else kvm_mmu_load() does. */
	if (VALID_PAGE(vcpu->arch.mmu->root.hpa))
		kvm_make_request(KVM_REQ_LOAD_MMU_PGD, vcpu);
	return true;
}
EXPORT_SYMBOL_GPL(kpop_nested_enter);

/* L1 gets the fault. */
static int kpop_give_fault(struct kvm_vcpu *vcpu, struct kpop_space *space,
			   gpa_t l2_gpa, u64 error_code, u32 rights)
{
	struct x86_exception e;

	kpop_count(vcpu->kvm, kpop_faults_reflected);
	trace_kvm_kpop_fault(space->kv->id, l2_gpa, kpop_access(error_code), rights, -1);
	kpop_fill_exception(&e, l2_gpa, error_code, rights);
	vcpu->arch.mmu->inject_page_fault(vcpu, &e, true);
	return 1;
}

/* L0 has no answer: the policy may delay, else L1 gets the fault. */
static int kpop_reflect(struct kvm_vcpu *vcpu, struct kpop_space *space,
			gpa_t l2_gpa, u64 error_code, u32 rights)
{
	struct kpop_fault_ctx ctx = {
		.kvm_id = space->kvm_id,
		.as_id = space->as_id,
		.token = space->token,
		.l2_gfn = gpa_to_gfn(l2_gpa),
		.access = kpop_access(error_code),
		.rights = rights,
	};

	/* A hook may take its time: nothing that a walk found is used now. */
	kpop_walk_done(vcpu);
	if (!READ_ONCE(space->dead) && kpop_call_fault(space->kv, &ctx))
		return 1;

	return kpop_give_fault(vcpu, space, l2_gpa, error_code, rights);
}

static int kpop_fault_result(struct kvm_vcpu *vcpu, gpa_t l2_gpa, int r,
			     void *insn, int insn_len)
{
	switch (r) {
	case RET_PF_FIXED:
		vcpu->stat.pf_fixed++;
		kpop_count(vcpu->kvm, kpop_faults_direct);
		return 1;
	case RET_PF_SPURIOUS:
		vcpu->stat.pf_spurious++;
		return 1;
	case RET_PF_EMULATE:
	case RET_PF_WRITE_PROTECTED:
		/*
		 * A device of L0, or a page of L1 that L0 write-tracks.  The
		 * emulator finds L1's gpa by kpop_gva_to_gpa().
		 */
		vcpu->stat.pf_emulate++;
		return x86_emulate_instruction(vcpu, l2_gpa, EMULTYPE_PF, insn,
					       insn_len);
	case -EINTR:
		kvm_handle_signal_exit(vcpu);
		return -EINTR;
	default:
		return r < 0 ? r : 1;
	}
}

static int kpop_fault_in(struct kvm_vcpu *vcpu, struct kpop_space *space,
			 gpa_t l2_gpa, u64 error_code,
			 const struct kpop_trans *t)
{
	struct kvm_page_fault fault = {
		.addr = l2_gpa,
		.error_code = error_code,
		.exec = error_code & PFERR_FETCH_MASK,
		.write = error_code & PFERR_WRITE_MASK,
		.present = error_code & PFERR_PRESENT_MASK,
		.is_tdp = true,
		.nx_huge_page_workaround_enabled =
			is_nx_huge_page_enabled(vcpu->kvm),
		.req_level = PG_LEVEL_4K,
		.goal_level = PG_LEVEL_4K,
		.gfn = t->l1 + (gpa_to_gfn(l2_gpa) - t->l2),
		.pfn = KVM_PFN_ERR_FAULT,
		.hva = KVM_HVA_ERR_BAD,
		.kpop = true,
		.kpop_write = error_code & PFERR_WRITE_MASK,
		.kpop_l2_gfn = gpa_to_gfn(l2_gpa),
	};
	int r = kpop_install(vcpu, space, &fault, t, true);

	if (r == -EHWPOISON) {
		kvm_mmu_send_hwpoison(fault.slot, fault.gfn);
		r = RET_PF_RETRY;
	}
	return r;
}

/**
 * kpop_page_fault - an NPT or EPT fault of an L2 on KPOP
 * @vcpu: the vCPU
 * @l2_gpa: the address
 * @error_code: PFERR_*
 * @insn: instruction bytes, if hardware gave them
 * @insn_len: how many
 *
 * A page that L1 has granted is mapped here and L1 hears nothing of it.
 *
 * Context: kvm->srcu held, may sleep.
 * Return: 1 to go on in the guest, 0 to exit to user space, or an errno.
 */
int kpop_page_fault(struct kvm_vcpu *vcpu, gpa_t l2_gpa, u64 error_code,
		    void *insn, int insn_len)
{
	struct kpop_space *space = vcpu->arch.kpop_space;
	gfn_t l2 = gpa_to_gfn(l2_gpa);
	u32 access = kpop_access(error_code);
	struct kpop_trans t = {};
	int r;

	vcpu->stat.pf_taken++;

	if (!kpop_translate(space, l2, &t) || !(access & t.rights))
		return kpop_reflect(vcpu, space, l2_gpa, error_code, t.rights);

	/* L1's buffer is full; that is no business of the policy. */
	if (access == KPOP_MAP_W && kpop_buffer_tell(space, l2))
		return kpop_give_fault(vcpu, space, l2_gpa, error_code,
				       t.rights & ~KPOP_MAP_W);

	r = kpop_fault_in(vcpu, space, l2_gpa, error_code, &t);
	trace_kvm_kpop_fault(space->kv->id, l2_gpa, access, t.rights, r);
	return kpop_fault_result(vcpu, l2_gpa, r, insn, insn_len);
}
