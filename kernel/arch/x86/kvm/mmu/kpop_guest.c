// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP on L1: this KVM is itself a guest, and L0 keeps the page tables of its
 * guests.  See asm/kvm_kpop.h for the hypercalls and kpop.h for L0's side.
 *
 * Tokens.  A VM on KPOP has TDP MMU roots as any other, one for each role, but
 * no SPTE is ever installed below one.  A root is an all-zero page whose
 * address, the token, goes to nCR3 / EPTP; L0 finds the address space by it.
 * If L0 does not know it, the hardware or L0's shadow MMU sees an empty table,
 * L1 gets ordinary faults, and its MAP tells it what is wrong.
 *
 * Bindings.  LOAD binds a holder (VMCB / VMCS) to a token.  A vCPU has two
 * holders, its own and, for a nested guest without nested paging, vmcb02 /
 * vmcs02.  Unloading the MMU, as CR0 and CR4 changes do, keeps the binding:
 * LOAD is sent again only if holder, token or epoch differ.
 *
 * Offers.  Every page offered has a bit in its memslot, at the level at which
 * it was offered, set before the MAP and never cleared because a MAP failed.
 * A range with no bit set costs no UNMAP.  A range that covers part of a huge
 * page takes all of it away, as the TDP MMU does.  A huge page's bit is replaced
 * by those of small pages where the TDP MMU would split it (kpop_guest_split.c):
 * who clears bits goes from large to small.  Bits may be stale after all
 * roots were invalidated (the spaces go as a whole): that costs one UNMAP.
 *
 * Rights.  W is offered when the page may be written now: if the slot is dirty
 * logged, and L0 does not do that for L1 (kpop_guest_track.c), only for a write,
 * which is then logged.  Hence all that takes W or D away in the TDP MMU is an
 * UNMAP here, or a call to L0's log.  L1's struct page is dirtied when W is
 * offered, so no dirty state is lost with L0's tables.
 *
 * MMIO.  No SPTE stands for it: a fault with no memslot is answered by that
 * alone, which the memslot lookup of every fault has found out already.
 *
 * TLBs.  UNMAP and UNLOAD return when no vCPU can use the old translation:
 * nothing here asks for a flush.
 *
 * Locks.  MAP and LOAD are sent under mmu_lock held for read, with the root
 * valid and the state ON.  What must not be followed by one of them (UNLOAD of
 * a root, UNMAP for a notifier) comes after mmu_lock was held for write.  Bits
 * are set under mmu_lock for read and cleared under it for write; clearing
 * under read is allowed to holders of slots_lock, as kpop_guest_offer() sets
 * the bit again after its MAP, and to who splits a huge page.
 *
 * kpop-only.  If L0 has no policy and runs no L2 on page tables of L1's
 * (-ENOLINK), the VM stays as it is: KVM_RUN ends with KVM_EXIT_FAIL_ENTRY, and
 * each further KVM_RUN sends LOAD again first.  So does one after L0 refused an
 * entry.  Once a policy is attached L2 goes on; its pages are offered again as
 * it touches them.
 *
 * Fallback.  If L0 refuses, the state goes to FALLBACK; no LOAD or MAP is sent
 * from then on and faults are retried.  A work, for which vCPUs wait with
 * kvm->srcu dropped, unloads all tokens, goes to OFF and invalidates all
 * roots.  New ones are real and fill by ordinary faults.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_para.h>
#include <linux/mem_encrypt.h>
#include <asm/kvm_kpop.h>
#include <asm/kvm_para.h>

#include "mmu.h"
#include "mmu_internal.h"
#include "mmutrace.h"
#include "kpop_guest.h"
#include "spte.h"

static bool __read_mostly kpop_guest = true;
module_param(kpop_guest, bool, 0444);
MODULE_PARM_DESC(kpop_guest, "Let L0 keep the page tables of guests if it offers to");

/* How often LOAD may say EAGAIN before the VM falls back. */
#define KPOP_GUEST_LOAD_TRIES	1000

/* Numbers of L2 VMs; cyclic, so that one is not used again soon. */
static DEFINE_XARRAY_ALLOC1(kpop_guest_ids);
static u32 kpop_guest_next_id;

static long kpop_guest_query(unsigned long op)
{
	return kvm_hypercall4(KVM_HC_KPOP_QUERY, op, 0, 0, 0);
}

/* True if L0 offers KPOP to this L1 now; such an L1 offers none to its guests. */
bool kpop_guest_available(void)
{
	return kpop_guest && kvm_para_available() &&
	       kpop_guest_query(KPOP_QUERY_VERSION) == KPOP_ABI_VERSION;
}

/* Is this L1 kpop-only, so that falling back would help nobody? */
bool kpop_guest_only(void)
{
	long features = kpop_guest_query(KPOP_QUERY_FEATURES);

	return features > 0 && features & KPOP_FEATURE_ONLY;
}

/* What L0 knows of an earlier kvm.ko is void. */
void kpop_guest_module_init(void)
{
	if (kvm_para_available())
		kpop_guest_query(KPOP_QUERY_RESET);
}

/* The token that @vcpu runs on, or NULL; the vCPU's reference keeps it. */
struct kvm_mmu_page *kpop_guest_token(struct kvm_vcpu *vcpu)
{
	hpa_t root_hpa = vcpu->arch.mmu->root.hpa;
	struct kvm_mmu_page *root;

	if (!vcpu->kvm->arch.kpop_guest || !VALID_PAGE(root_hpa))
		return NULL;

	root = root_to_sp(root_hpa);
	return root && root->kpop_token ? root : NULL;
}

bool kpop_guest_root_is_token(struct kvm_vcpu *vcpu)
{
	return kpop_guest_token(vcpu);
}

/* A new root, not published yet; mmu_lock is held for read. */
void kpop_guest_init_root(struct kvm *kvm, struct kvm_mmu_page *root)
{
	if (!kpop_guest_on(kvm))
		return;

	/* Not SHADOW_NONPRESENT_VALUE: L0 takes none but an empty page. */
	memset(root->spt, 0, PAGE_SIZE);
	root->kpop_token = true;
}

static void kpop_guest_unload_root(struct kvm *kvm, struct kvm_mmu_page *root)
{
	struct kpop_guest_vm *kg = kvm->arch.kpop_guest;

	kvm_hypercall4(KVM_HC_KPOP_MMU_LOAD_UNLOAD,
		       KPOP_OP_UNLOAD_ROOT | kpop_guest_as_id(kvm_mmu_page_as_id(root)),
		       0, __pa(root->spt), kg->kvm_id);
	/* Bindings went too, and the page may become a token again. */
	atomic64_inc(&kg->epoch);
}

/*
 * What zapping is for other roots.  Returns true if @root is a token.  The
 * caller holds a reference on @root and mmu_lock, which is dropped if held for
 * read: L0 may take long, and notifiers reach L0 without the root.
 */
bool kpop_guest_zap_root(struct kvm *kvm, struct kvm_mmu_page *root, bool shared)
	__must_hold(&kvm->mmu_lock)
{
	if (!root->kpop_token)
		return false;

	/* A fallback has unloaded it. */
	if (!kpop_guest_on(kvm))
		return true;

	if (shared) {
		read_unlock(&kvm->mmu_lock);
		kpop_guest_unload_root(kvm, root);
		read_lock(&kvm->mmu_lock);
	} else {
		kpop_guest_unload_root(kvm, root);
	}

	return true;
}

/*
 * L0 does not keep this VM's tables any longer.  Context: any.
 */
void kpop_guest_fail(struct kvm *kvm, long why)
{
	struct kpop_guest_vm *kg = kvm->arch.kpop_guest;

	if (cmpxchg(&kg->state, KPOP_GUEST_ON, KPOP_GUEST_FALLBACK) != KPOP_GUEST_ON)
		return;

	kvm->stat.kpop_guest_fallbacks++;
	trace_kvm_kpop_guest_fallback(kg->kvm_id, why);
	pr_info_ratelimited("moving VM %u to its own page tables: KPOP answered %ld\n",
			    kg->kvm_id, why);
	/* The work before the request: who serves the request waits for it. */
	queue_work(system_unbound_wq, &kg->fallback);
	kvm_make_all_cpus_request(kvm, KVM_REQ_KPOP_GUEST);
}

static void kpop_guest_do_fallback(struct work_struct *work)
{
	struct kpop_guest_vm *kg = container_of(work, struct kpop_guest_vm, fallback);
	struct kvm *kvm = kg->kvm;
	struct kvm_memory_slot *slot;
	struct kvm_mmu_page *root;
	int i, bkt;

	mutex_lock(&kvm->slots_lock);

	/*
	 * After this section no LOAD or MAP is sent, no bit is looked at, L0
	 * maps nothing, and a root that is allocated is a real one.
	 */
	write_lock(&kvm->mmu_lock);
	list_for_each_entry(root, &kvm->arch.tdp_mmu_roots, link) {
		if (root->kpop_token)
			kpop_guest_unload_root(kvm, root);
	}
	WRITE_ONCE(kg->state, KPOP_GUEST_OFF);
	write_unlock(&kvm->mmu_lock);

	kvm->stat.kpop_guest_active = 0;
	for (i = 0; i < kvm_arch_nr_memslot_as_ids(kvm); i++) {
		kvm_for_each_memslot(slot, bkt, __kvm_memslots(kvm, i)) {
			kpop_guest_log_lost(kvm, slot);
			kpop_guest_free_slot(kvm, slot);
		}
	}

	kvm_mmu_zap_all_fast(kvm);
	mutex_unlock(&kvm->slots_lock);
}

bool kpop_guest_bound(struct kvm_vcpu *vcpu, struct kvm_mmu_page *root)
{
	struct kpop_guest_binding *b = &vcpu->arch.kpop_guest.bound[is_guest_mode(vcpu)];

	return b->token == __pa(root->spt) &&
	       b->epoch == atomic64_read(&vcpu->kvm->arch.kpop_guest->epoch) &&
	       b->holder == kvm_x86_call(kpop_vcpu_holder)(vcpu);
}

/*
 * LOAD: bind the current holder to @root.  mmu_lock is held for read, which
 * keeps the root from being invalidated and then unloaded.
 *
 * Returns 0, -EAGAIN if the caller should try again, which includes L0's
 * refusal, as that has started a fallback, or -ENOLINK if the VM has to wait, for
 * a policy or for memory.
 */
int kpop_guest_bind(struct kvm_vcpu *vcpu, struct kvm_mmu_page *root)
{
	struct kpop_guest_binding *b = &vcpu->arch.kpop_guest.bound[is_guest_mode(vcpu)];
	struct kpop_guest_vm *kg = vcpu->kvm->arch.kpop_guest;
	long ret;

	lockdep_assert_held_read(&vcpu->kvm->mmu_lock);

	/* Before the LOAD: a binding that is void at once must look so. */
	b->epoch = atomic64_read(&kg->epoch);
	b->holder = kvm_x86_call(kpop_vcpu_holder)(vcpu);
	b->token = __pa(root->spt);

	ret = kvm_hypercall4(KVM_HC_KPOP_MMU_LOAD_UNLOAD,
			     KPOP_OP_LOAD | kpop_guest_as_id(kvm_mmu_page_as_id(root)),
			     b->holder, b->token, kg->kvm_id);
	if (!ret) {
		kpop_guest_ring_limit(vcpu);
		return 0;
	}

	b->token = INVALID_PAGE;
	/* Do not enter the guest unbound; see kpop_guest_service(). */
	kvm_make_request(KVM_REQ_KPOP_GUEST, vcpu);
	if (ret == -ENOLINK || (kpop_guest_no_memory(ret) && kpop_guest_only()))
		return -ENOLINK;
	if (ret != -EAGAIN)
		kpop_guest_fail(vcpu->kvm, ret);
	return -EAGAIN;
}

/*
 * L0 has no policy and the VM is kpop-only: L0 has forgotten all of it.  Each
 * vCPU sends LOAD before it enters again.  Context: mmu_lock may be held.
 */
void kpop_guest_unserved(struct kvm_vcpu *vcpu)
{
	struct kpop_guest_binding *b = &vcpu->arch.kpop_guest.bound[is_guest_mode(vcpu)];
	struct kpop_guest_vm *kg = vcpu->kvm->arch.kpop_guest;

	b->token = INVALID_PAGE;
	/* Who finds it out first tells the others. */
	if (atomic64_cmpxchg(&kg->epoch, b->epoch, b->epoch + 1) == b->epoch)
		kvm_make_all_cpus_request(vcpu->kvm, KVM_REQ_KPOP_GUEST);
	else
		kvm_make_request(KVM_REQ_KPOP_GUEST, vcpu);
}

/* KVM_RUN ends with an entry that failed: was it L0 that refused a token? */
void kpop_guest_refused(struct kvm_vcpu *vcpu)
{
	vcpu->arch.kpop_guest.bound[is_guest_mode(vcpu)].token = INVALID_PAGE;
	kvm_make_request(KVM_REQ_KPOP_GUEST, vcpu);
}

/*
 * mmu_load: bind before the vCPU runs on a token that is new to its holder.
 * Returns 0, or an error with KVM_REQ_KPOP_GUEST to come here again.
 */
int __kpop_guest_load(struct kvm_vcpu *vcpu)
{
	struct kvm_mmu_page *root = kpop_guest_token(vcpu);
	struct kvm *kvm = vcpu->kvm;
	int ret = 0;

	if (!root || kpop_guest_bound(vcpu, root))
		return 0;

	read_lock(&kvm->mmu_lock);
	if (READ_ONCE(kvm->arch.kpop_guest->state) == KPOP_GUEST_ON &&
	    !root->role.invalid)
		ret = kpop_guest_bind(vcpu, root);
	read_unlock(&kvm->mmu_lock);

	if (ret != -EAGAIN) {
		vcpu->arch.kpop_guest.load_tries = 0;
	} else if (++vcpu->arch.kpop_guest.load_tries >= KPOP_GUEST_LOAD_TRIES) {
		vcpu->arch.kpop_guest.load_tries = 0;
		/* A policy of a kpop-only VM that goes may take long for that. */
		if (kpop_guest_only())
			return -ENOLINK;
		kpop_guest_fail(kvm, ret);
	}
	return ret;
}

/*
 * KVM_REQ_KPOP_GUEST, in the vCPU's run loop: inside kvm->srcu, no lock held.
 * Returns false if the vCPU can not enter the guest and leaves KVM_RUN, with the
 * request made again.
 */
bool kpop_guest_service(struct kvm_vcpu *vcpu)
{
	struct kpop_guest_vm *kg = vcpu->kvm->arch.kpop_guest;

	if (!kg)
		return true;

	/* The work takes slots_lock, whose holders wait for kvm->srcu. */
	if (READ_ONCE(kg->state) == KPOP_GUEST_FALLBACK) {
		kvm_vcpu_srcu_read_unlock(vcpu);
		flush_work(&kg->fallback);
		kvm_vcpu_srcu_read_lock(vcpu);
	}

	if (kpop_guest_load(vcpu) != -ENOLINK)
		return true;

	/* As if L0 had refused the entry, which it would have. */
	vcpu->run->exit_reason = KVM_EXIT_FAIL_ENTRY;
	vcpu->run->fail_entry.hardware_entry_failure_reason = -ENOLINK;
	vcpu->run->fail_entry.cpu = vcpu->arch.last_vmentry_cpu;
	return false;
}

/*
 * For a loop of faults outside of KVM_RUN, where nobody serves requests: get
 * off a root that a fallback has invalidated, and do not wait for a policy.
 */
int kpop_guest_refresh_root(struct kvm_vcpu *vcpu)
{
	int r;

	if (!vcpu->kvm->arch.kpop_guest)
		return 0;

	/*
	 * The work needs slots_lock, whose holder may wait for our kvm->srcu: let go
	 * of that, as for a signal, and come again.
	 */
	if (READ_ONCE(vcpu->kvm->arch.kpop_guest->state) == KPOP_GUEST_FALLBACK)
		return -EINTR;

	if (kvm_check_request(KVM_REQ_MMU_FREE_OBSOLETE_ROOTS, vcpu))
		kvm_mmu_free_obsolete_roots(vcpu);

	r = kvm_mmu_reload(vcpu);
	if (r)
		return r;
	return kpop_guest_load(vcpu) == -ENOLINK ? -EAGAIN : 0;
}

static void kpop_guest_unload_holder(struct kvm_vcpu *vcpu, bool nested)
{
	struct kpop_guest_binding *b = &vcpu->arch.kpop_guest.bound[nested];

	if (b->holder && kpop_guest_on(vcpu->kvm))
		kvm_hypercall4(KVM_HC_KPOP_MMU_LOAD_UNLOAD, KPOP_OP_UNLOAD_HOLDER,
			       b->holder, 0, vcpu->kvm->arch.kpop_guest->kvm_id);
	b->holder = 0;
	b->token = INVALID_PAGE;
}

/* Before vmcb02 / vmcs02 is freed. */
void kpop_guest_unload_nested(struct kvm_vcpu *vcpu)
{
	kpop_guest_unload_holder(vcpu, true);
}
EXPORT_SYMBOL_GPL(kpop_guest_unload_nested);

/* Before vmcb01 / vmcs01 is freed. */
void kpop_guest_destroy_vcpu(struct kvm_vcpu *vcpu)
{
	kpop_guest_unload_holder(vcpu, true);
	kpop_guest_unload_holder(vcpu, false);
}

/*
 * To L0 private memory of a guest_memfd is L1's as any other, and a conversion an
 * UNMAP.  What SEV encrypts L0 can neither read nor map for it.
 */
static bool kpop_guest_takes_type(unsigned long type)
{
	return type == KVM_X86_DEFAULT_VM || type == KVM_X86_SW_PROTECTED_VM;
}

/*
 * A VM that is created while L0 offers KPOP uses it; no memslot, vCPU or root
 * exists yet.  What goes wrong here means: not on KPOP.
 */
void kpop_guest_init_vm(struct kvm *kvm)
{
	struct kpop_guest_vm *kg;
	long limit;

	/* A token with an encryption bit in it is not the page's address. */
	if (!tdp_mmu_enabled || !kpop_guest_takes_type(kvm->arch.vm_type) ||
	    sme_get_me_mask() || !kpop_guest_available())
		return;

	limit = kpop_guest_query(KPOP_QUERY_GFN_LIMIT);
	if (limit <= 0)
		return;

	kg = kzalloc(sizeof(*kg), GFP_KERNEL_ACCOUNT);
	if (!kg)
		return;

	if (xa_alloc_cyclic(&kpop_guest_ids, &kg->kvm_id, kg, XA_LIMIT(1, U32_MAX),
			    &kpop_guest_next_id, GFP_KERNEL_ACCOUNT) < 0) {
		kfree(kg);
		return;
	}

	kg->kvm = kvm;
	kg->gfn_limit = limit;
	kg->state = KPOP_GUEST_ON;
	kpop_guest_track_init(kg);
	INIT_WORK(&kg->fallback, kpop_guest_do_fallback);
	kvm->stat.kpop_guest_active = 1;
	kvm->arch.kpop_guest = kg;
}

/* No vCPU runs any more; the work walks vCPUs, which are freed after this. */
void kpop_guest_pre_destroy_vm(struct kvm *kvm)
{
	struct kvm_memory_slot *slot;
	int i, bkt;

	if (!kvm->arch.kpop_guest)
		return;

	cancel_work_sync(&kvm->arch.kpop_guest->fallback);
	/* The slots go later, when there is no number to name their logs by. */
	for (i = 0; i < kvm_arch_nr_memslot_as_ids(kvm); i++)
		kvm_for_each_memslot(slot, bkt, __kvm_memslots(kvm, i))
			kpop_guest_log_stop(kvm, slot);
	kpop_guest_ring_uninit(kvm);
}

/* Every root is gone. */
void kpop_guest_uninit_vm(struct kvm *kvm)
{
	struct kpop_guest_vm *kg = kvm->arch.kpop_guest;

	if (!kg)
		return;

	xa_erase(&kpop_guest_ids, kg->kvm_id);
	kpop_guest_track_uninit(kg);
	kvm->arch.kpop_guest = NULL;
	kfree(kg);
}
