// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP in L0: what belongs to a VM, its bounds, and everything that ends it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/moduleparam.h>
#include <linux/sched/signal.h>

#include "mmu.h"
#include "kpop.h"
#include "kpop_guest.h"
#include "tdp_mmu.h"

#define CREATE_TRACE_POINTS
#include "kpop_trace.h"

static bool __read_mostly kpop_host = true;
module_param(kpop_host, bool, 0444);
MODULE_PARM_DESC(kpop_host, "offer KPOP to VMs that run KVM themselves");

static bool __ro_after_init kpop_ready;

static atomic64_t kpop_next_vm_id = ATOMIC64_INIT(0);

/* Without memory or BTF KVM works as ever, and offers no KPOP. */
void kpop_module_init(void)
{
	int r;

	r = kpop_trans_init();
	if (r)
		goto err;

	r = kpop_policy_module_init();
	if (r) {
		kpop_trans_exit();
		goto err;
	}

	kpop_ready = true;
	return;
err:
	pr_warn("KPOP is not offered to VMs: error %d\n", r);
}

void kpop_module_exit(void)
{
	if (!kpop_ready)
		return;

	kpop_policy_module_exit();
	kpop_trans_exit();
}

static bool kpop_on_hyperv(void)
{
#if IS_ENABLED(CONFIG_HYPERV)
	return kvm_x86_ops.flush_remote_tlbs_range;
#else
	return false;
#endif
}

/*
 * Hyper-V's range flush takes the VM's own gfns, and an L1 that is on KPOP has
 * no page table of its own to nest another one in.
 */
static bool kpop_offered(struct kvm *kvm)
{
	return kpop_ready && kpop_host && tdp_mmu_enabled &&
	       kvm->arch.vm_type == KVM_X86_DEFAULT_VM &&
	       !kpop_on_hyperv() &&
	       !kpop_guest_available();
}

/* On failure the VM works as ever, L0 just offers no KPOP to it. */
void kpop_init_vm(struct kvm *kvm)
{
	struct kpop_vm *kv;

	if (!kpop_offered(kvm))
		return;

	kv = kzalloc(sizeof(*kv), GFP_KERNEL_ACCOUNT);
	if (!kv)
		return;

	kv->kvm = kvm;
	kv->id = atomic64_inc_return(&kpop_next_vm_id);
	kv->gfn_limit = min_t(u64, kvm_mmu_max_gfn() + 1,
			      BIT_ULL(9 * kvm_mmu_get_max_tdp_level()));
	kv->cap = KPOP_DEFAULT_CAP;
	kv->closed = true;
	atomic_set(&kv->walk_epoch, 1);
	mutex_init(&kv->lock);
	hash_init(kv->bindings);
	xa_init_flags(&kv->tokens, XA_FLAGS_ACCOUNT);
	INIT_LIST_HEAD(&kv->spaces);
	INIT_LIST_HEAD(&kv->logs);
	INIT_LIST_HEAD(&kv->buffers);
	rwlock_init(&kv->tree_lock);
	kv->rmap = RB_ROOT_CACHED;

	if (kpop_target_init(kv)) {
		kfree(kv);
		return;
	}
	kvm->arch.kpop = kv;
}

/* The VM dies: from now on no policy reaches it.  No vCPU runs. */
void kpop_pre_destroy_vm(struct kvm *kvm)
{
	struct kpop_vm *kv = kpop_vm(kvm);

	if (kv)
		kpop_target_fini(kv);
}

/* After the last vCPU, before the TDP MMU looks for forgotten roots. */
void kpop_uninit_vm(struct kvm *kvm)
{
	struct kpop_vm *kv = kpop_vm(kvm);

	if (!kv)
		return;

	kpop_target_fini(kv);
	kpop_close(kv);
	kpop_free_only(kv);
	xa_destroy(&kv->tokens);
	kvm->arch.kpop = NULL;
	kfree(kv);
}

/* All of the VM's KPOP memory in bytes. */
u64 kpop_bytes(struct kpop_vm *kv)
{
	u64 pts = max(atomic_read(&kv->nr_pts), 0);

	return atomic64_read(&kv->bytes) +
	       pts * (PAGE_SIZE + sizeof(struct kvm_mmu_page));
}

/**
 * kpop_charge - account memory that one L1 makes L0 use
 * @kv: the VM
 * @bytes: how much
 *
 * Translations, spaces and bindings may take half of the cap, so that what is
 * known can always be mapped: page tables take the rest, see kpop_make_room().
 *
 * Return: 0, or -E2BIG.
 */
int kpop_charge(struct kpop_vm *kv, u64 bytes)
{
	if (atomic64_add_return(bytes, &kv->bytes) > READ_ONCE(kv->cap) / 2) {
		kpop_uncharge(kv, bytes);
		return -E2BIG;
	}
	WRITE_ONCE(kv->kvm->stat.kpop_bytes, kpop_bytes(kv));
	return 0;
}

void kpop_uncharge(struct kpop_vm *kv, u64 bytes)
{
	atomic64_sub(bytes, &kv->bytes);
	WRITE_ONCE(kv->kvm->stat.kpop_bytes, kpop_bytes(kv));
}

/* A page table below a KPOP root comes or goes; any mmu_lock mode. */
void kpop_account_pt(struct kvm *kvm, int nr)
{
	struct kpop_vm *kv = kpop_vm(kvm);

	if (!kv)
		return;
	atomic_add(nr, &kv->nr_pts);
	WRITE_ONCE(kvm->stat.kpop_bytes, kpop_bytes(kv));
}

/**
 * kpop_make_room - keep page tables below the cap
 * @kv: the VM
 *
 * L0 may drop any mapping at any time: at the cap all page tables of the VM's
 * spaces go, and are built again from the translations where L2 still looks.
 *
 * Context: vCPU thread, kvm->srcu held, no lock held.
 */
void kpop_make_room(struct kpop_vm *kv)
{
	struct kpop_space *space;

	int vcpus = atomic_read(&kv->kvm->online_vcpus);

	/* A walk adds at most one table a level, for each vCPU at a time. */
	if (atomic_read(&kv->nr_pts) <= KPOP_PT_FLOOR * vcpus ||
	    kpop_bytes(kv) + (u64)KPOP_PT_SLACK * vcpus <= READ_ONCE(kv->cap))
		return;

	mutex_lock(&kv->lock);
	list_for_each_entry(space, &kv->spaces, link)
		kpop_zap_space_root(space);
	mutex_unlock(&kv->lock);
	kpop_count(kv->kvm, kpop_recycled);
}

static struct kpop_space *kpop_first_space(struct kpop_vm *kv)
{
	struct kpop_space *space;

	mutex_lock(&kv->lock);
	space = list_first_entry_or_null(&kv->spaces, struct kpop_space, link);
	if (space)
		refcount_inc(&space->count);
	mutex_unlock(&kv->lock);
	return space;
}

/**
 * kpop_drop_all - drop every space, binding and log of a VM
 * @kv: the VM
 *
 * On return no vCPU of its L2s can use a KPOP mapping.
 *
 * Context: may sleep; no lock held.
 */
void kpop_drop_all(struct kpop_vm *kv)
{
	struct kpop_space *space;

	/* No new space sees a log that goes: L1 relies on a MAP's check of it. */
	mutex_lock(&kv->lock);
	kv->dropping++;
	mutex_unlock(&kv->lock);

	while ((space = kpop_first_space(kv))) {
		kpop_drop_space(space);
		kpop_put_space(space);
		cond_resched();
	}
	kpop_log_drop_all(kv);

	mutex_lock(&kv->lock);
	kv->dropping--;
	mutex_unlock(&kv->lock);
}

/**
 * kpop_close - drop everything and refuse LOADs until kpop_open()
 * @kv: the VM
 *
 * Hypercalls in flight find their space dead, or LOAD refused: the way out
 * takes no lock that a hook could hold.
 */
void kpop_close(struct kpop_vm *kv)
{
	mutex_lock(&kv->lock);
	kv->closed = true;
	WRITE_ONCE(kv->closes, kv->closes + 1);
	mutex_unlock(&kv->lock);

	kpop_drop_all(kv);
	/* Called by a work, or when no vCPU is left: no signal ends this. */
	kpop_wait_walks(kv);
}

void kpop_open(struct kpop_vm *kv)
{
	mutex_lock(&kv->lock);
	kv->closed = false;
	mutex_unlock(&kv->lock);
}

/* All of L1's KPOP state is void; L1 loads again. */
void kpop_reset(struct kvm *kvm)
{
	struct kpop_vm *kv = kpop_vm(kvm);

	if (kv)
		kpop_drop_all(kv);
}
EXPORT_SYMBOL_GPL(kpop_reset);

/**
 * kpop_vcpu_virt - a vCPU of L1 enters or leaves SVM / VMX operation
 * @vcpu: the vCPU
 * @on: enters
 *
 * When the last one leaves, what L1 loaded is stale: another kernel may use
 * the same pages for something else.
 *
 * Context: the vCPU is loaded; may sleep.
 */
void kpop_vcpu_virt(struct kvm_vcpu *vcpu, bool on)
{
	struct kpop_vm *kv = kpop_vm(vcpu->kvm);

	if (!kv || vcpu->arch.kpop_in_virt == on)
		return;

	vcpu->arch.kpop_in_virt = on;
	if (on)
		atomic_inc(&kv->virt_vcpus);
	else if (atomic_dec_and_test(&kv->virt_vcpus))
		kpop_drop_all(kv);
}
EXPORT_SYMBOL_GPL(kpop_vcpu_virt);

/* The vCPU thread no longer uses what a walk for L2 found. */
void kpop_walk_end(struct kvm_vcpu *vcpu)
{
	/* Pairs with kpop_wait_walks(): accesses come before this. */
	smp_store_release(&vcpu->arch.kpop_walk_epoch, 0);
}

/**
 * kpop_wait_walks - wait for L0's own use of translations that are gone
 * @kv: the VM
 *
 * An L0 that emulates an L2 access translated it before it accesses memory.
 * Everything that began before this call is waited for; what begins later
 * finds the trees as they are now.
 *
 * Context: may sleep; no lock held; the caller is in no walk itself.
 * Return: 0, or -EINTR when a signal is pending.
 */
int kpop_wait_walks(struct kpop_vm *kv)
{
	int epoch = atomic_inc_return(&kv->walk_epoch);
	struct kvm_vcpu *vcpu;
	unsigned long i;

	/* Pairs with the barrier in kpop_walk_begin(). */
	smp_mb();
	kvm_for_each_vcpu(i, vcpu, kv->kvm) {
		int e;

		/* Pairs with kpop_walk_end(). */
		while ((e = smp_load_acquire(&vcpu->arch.kpop_walk_epoch)) &&
		       e - epoch < 0) {
			if (signal_pending(current))
				return -EINTR;
			schedule_timeout_uninterruptible(1);
		}
	}
	return 0;
}

/**
 * kpop_fill_info - what the core knows for KVM_KPOP_OP_INFO
 * @kv: the VM
 * @info: zeroed
 */
void kpop_fill_info(struct kpop_vm *kv, struct kvm_kpop_info *info)
{
	struct kpop_space *space;

	info->vm_id = kv->id;
	info->kpop_only = kpop_only(kv);
	info->cap = READ_ONCE(kv->cap);
	info->bytes = kpop_bytes(kv);
	info->faults_direct = kv->kvm->stat.kpop_faults_direct;
	info->faults_reflected = kv->kvm->stat.kpop_faults_reflected;

	mutex_lock(&kv->lock);
	info->nr_spaces = kv->nr_spaces;
	info->nr_bindings = kv->nr_bindings;
	list_for_each_entry(space, &kv->spaces, link)
		info->pages += READ_ONCE(space->nr_pages);
	mutex_unlock(&kv->lock);
}

/**
 * kpop_fill_spaces - list address spaces
 * @kv: the VM
 * @to: room for @max entries
 * @max: how many fit
 *
 * Return: how many there are.
 */
u32 kpop_fill_spaces(struct kpop_vm *kv, struct kvm_kpop_space_info *to, u32 max)
{
	struct kpop_space *space;
	u32 nr = 0;

	mutex_lock(&kv->lock);
	list_for_each_entry(space, &kv->spaces, link) {
		if (nr < max)
			to[nr] = (struct kvm_kpop_space_info) {
				.token = space->token,
				.kvm_id = space->kvm_id,
				.as_id = space->as_id,
				.pages = READ_ONCE(space->nr_pages),
				.runs = READ_ONCE(space->nr_runs),
				.bytes = READ_ONCE(space->nr_runs) *
					 sizeof(struct kpop_run),
				.bindings = space->nr_bindings,
			};
		nr++;
	}
	mutex_unlock(&kv->lock);
	return nr;
}
