// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP in L0: address spaces, their roots, and the bindings of L1's
 * vcpu_holders to them.
 *
 * A space lives as long as L1's root: from the first LOAD of its token to the
 * UNLOAD of the root, or until something voids it (a write to the token, the
 * end of SVM / VMX operation, a detach).  Bindings come and go meanwhile.
 */
#include "mmu.h"
#include "kpop.h"
#include "tdp_mmu.h"
#include "kpop_trace.h"

/* Caller holds kv->lock. */
static struct kpop_space *kpop_lookup_space(struct kpop_vm *kv, gpa_t token)
{
	lockdep_assert_held(&kv->lock);
	return xa_load(&kv->tokens, gpa_to_gfn(token));
}

/**
 * kpop_get_space - find the address space of a root token
 * @kv: the L1 VM
 * @token: GPA of L1's root page
 *
 * Return: the space with a reference, or NULL.
 */
struct kpop_space *kpop_get_space(struct kpop_vm *kv, gpa_t token)
{
	struct kpop_space *space;

	mutex_lock(&kv->lock);
	space = kpop_lookup_space(kv, token);
	if (space)
		refcount_inc(&space->count);
	mutex_unlock(&kv->lock);
	return space;
}

/*
 * Take a root out of use.  Whoever finds it valid owns the TDP MMU's reference
 * to it from then on.  Caller holds mmu_lock for write.
 */
static bool kpop_invalidate_root(struct kvm *kvm, struct kvm_mmu_page *root)
{
	lockdep_assert_held_write(&kvm->mmu_lock);

	if (!root || root->role.invalid)
		return false;

	root->role.invalid = true;
	/* Wait until no vCPU is in the guest with it. */
	kvm_make_all_cpus_request(kvm, KVM_REQ_MMU_FREE_OBSOLETE_ROOTS);
	return true;
}

/**
 * kpop_get_root - get the root of a space, valid or not
 * @space: the space
 *
 * Context: mmu_lock held for read.
 * Return: the root with a reference, or NULL.
 */
struct kvm_mmu_page *kpop_get_root(struct kpop_space *space)
{
	struct kvm *kvm = space->kv->kvm;
	struct kvm_mmu_page *root;

	spin_lock(&kvm->arch.tdp_mmu_pages_lock);
	root = space->root;
	/* The space has a reference: getting another one cannot fail. */
	if (root && !kvm_tdp_mmu_get_root(root))
		root = NULL;
	spin_unlock(&kvm->arch.tdp_mmu_pages_lock);
	return root;
}

/**
 * kpop_valid_root - the root of a space, if it is in use
 * @space: the space; the caller holds a reference
 *
 * Without a reference and without a lock that vCPUs share: a root becomes
 * invalid under mmu_lock for write, and only an invalid one leaves its space.
 *
 * Context: mmu_lock held for read, and as long as the root is used.
 * Return: the root, or NULL.
 */
struct kvm_mmu_page *kpop_valid_root(struct kpop_space *space)
{
	struct kvm_mmu_page *root;

	lockdep_assert_held_read(&space->kv->kvm->mmu_lock);

	/* An invalid one may be put meanwhile; it is freed after RCU readers. */
	rcu_read_lock();
	root = READ_ONCE(space->root);
	if (root && root->role.invalid)
		root = NULL;
	rcu_read_unlock();
	return root;
}

/* The list of roots may be walked under mmu_lock alone. */
static void kpop_put_root(struct kvm *kvm, struct kvm_mmu_page *root)
{
	read_lock(&kvm->mmu_lock);
	kvm_tdp_mmu_put_root(kvm, root);
	read_unlock(&kvm->mmu_lock);
}

/* Zap a root out of use and put the reference that came with that. */
static void kpop_zap_root(struct kvm *kvm, struct kvm_mmu_page *root, bool owned)
{
	read_lock(&kvm->mmu_lock);
	kvm_tdp_mmu_zap_kpop_root(kvm, root);
	if (owned)
		kvm_tdp_mmu_put_root(kvm, root);
	read_unlock(&kvm->mmu_lock);
}

/**
 * kpop_zap_space_root - drop all page tables of a space, keep what is known
 * @space: the space; the caller holds a reference or kv->lock
 *
 * Context: may sleep.
 */
void kpop_zap_space_root(struct kpop_space *space)
{
	struct kvm *kvm = space->kv->kvm;
	struct kvm_mmu_page *root;
	bool owned;

	write_lock(&kvm->mmu_lock);
	root = space->root;
	owned = kpop_invalidate_root(kvm, root);
	write_unlock(&kvm->mmu_lock);

	/* The space's own reference keeps the root for the notifiers. */
	if (owned)
		kpop_zap_root(kvm, root, true);
}

static void kpop_free_space(struct kpop_space *space)
{
	struct kvm *kvm = space->kv->kvm;

	/* An empty root that a vCPU caught in guest mode was given. */
	if (space->root) {
		kpop_zap_space_root(space);
		kpop_put_root(kvm, space->root);
	}
	kpop_uncharge(space->kv, KPOP_SPACE_BYTES);
	kfree(space);
}

void kpop_put_space(struct kpop_space *space)
{
	if (refcount_dec_and_test(&space->count))
		kpop_free_space(space);
}

static void kpop_free_guest_mmu(struct kpop_vm *kv, struct kpop_guest_mmu *gmmu)
{
	kpop_put_space(gmmu->space);
	kpop_uncharge(kv, sizeof(*gmmu));
	kfree(gmmu);
}

/**
 * kpop_put_guest_mmu - put a reference to a binding
 * @kv: the L1 VM
 * @gmmu: the binding; freed with the last reference
 *
 * Context: may sleep; kv->lock may be held (the space outlives this as it is
 * in the list, or the caller has a reference).
 */
void kpop_put_guest_mmu(struct kpop_vm *kv, struct kpop_guest_mmu *gmmu)
{
	if (refcount_dec_and_test(&gmmu->count))
		kpop_free_guest_mmu(kv, gmmu);
}

/**
 * kpop_find_guest_mmu - find the binding of a vcpu_holder to a token
 * @kv: the L1 VM; the caller holds kv->lock
 * @holder: GPA of vmcb12 / vmcs12
 * @token: GPA of L1's root page
 *
 * A holder may be bound to several tokens: an L2 switches between them by
 * VMFUNC, and L1 when a vCPU of L2 enters or leaves SMM.
 *
 * Return: the binding without a reference, or NULL.
 */
struct kpop_guest_mmu *kpop_find_guest_mmu(struct kpop_vm *kv, gpa_t holder,
					   gpa_t token)
{
	struct kpop_guest_mmu *gmmu;

	lockdep_assert_held(&kv->lock);
	hash_for_each_possible(kv->bindings, gmmu, hnode, gpa_to_gfn(holder))
		if (gmmu->vcpu_holder == holder && gmmu->space->token == token)
			return gmmu;
	return NULL;
}

static void kpop_unhash_guest_mmu(struct kpop_vm *kv, struct kpop_guest_mmu *gmmu)
{
	lockdep_assert_held(&kv->lock);
	hash_del(&gmmu->hnode);
	gmmu->space->nr_bindings--;
	kv->nr_bindings--;
	kv->bind_gen++;
	kpop_put_guest_mmu(kv, gmmu);
}

/**
 * kpop_alloc_guest_mmu - bind a vcpu_holder to an address space
 * @kv: the L1 VM; the caller holds kv->lock
 * @holder: GPA of vmcb12 / vmcs12
 * @space: a listed space; what else the holder is bound to stays
 *
 * Return: the binding (the hash has the reference), or ERR_PTR(-E2BIG),
 * ERR_PTR(-ENOMEM).
 */
struct kpop_guest_mmu *kpop_alloc_guest_mmu(struct kpop_vm *kv, gpa_t holder,
					    struct kpop_space *space)
{
	struct kpop_guest_mmu *gmmu;

	/* A token stands for one listed space. */
	gmmu = kpop_find_guest_mmu(kv, holder, space->token);
	if (gmmu)
		return gmmu;

	if (kv->nr_bindings >= KPOP_MAX_BINDINGS ||
	    kpop_charge(kv, sizeof(*gmmu)))
		return ERR_PTR(-E2BIG);

	gmmu = kzalloc(sizeof(*gmmu), GFP_KERNEL_ACCOUNT);
	if (!gmmu) {
		kpop_uncharge(kv, sizeof(*gmmu));
		return ERR_PTR(-ENOMEM);
	}

	gmmu->vcpu_holder = holder;
	gmmu->kvm_id = space->kvm_id;
	gmmu->as_id = space->as_id;
	gmmu->root_hpa = INVALID_PAGE;
	gmmu->space = space;
	refcount_inc(&space->count);
	refcount_set(&gmmu->count, 1);
	hash_add(kv->bindings, &gmmu->hnode, gpa_to_gfn(holder));
	space->nr_bindings++;
	kv->nr_bindings++;
	kv->bind_gen++;
	return gmmu;
}

static void kpop_list_space(struct kpop_space *space);

static struct kpop_space *kpop_alloc_space(struct kpop_vm *kv, gpa_t token,
					   u32 kvm_id, u32 as_id)
{
	struct kpop_space *space;
	int r;

	if (kv->nr_spaces >= KPOP_MAX_SPACES || kpop_charge(kv, KPOP_SPACE_BYTES))
		return ERR_PTR(-E2BIG);

	space = kzalloc(sizeof(*space), GFP_KERNEL_ACCOUNT);
	if (!space) {
		r = -ENOMEM;
		goto err;
	}
	refcount_set(&space->count, 1);
	space->kv = kv;
	space->token = token;
	space->kvm_id = kvm_id;
	space->as_id = as_id;
	space->runs = RB_ROOT;

	r = xa_insert(&kv->tokens, gpa_to_gfn(token), space, GFP_KERNEL_ACCOUNT);
	if (r)
		goto err;

	kpop_list_space(space);
	return space;
err:
	kfree(space);
	kpop_uncharge(kv, KPOP_SPACE_BYTES);
	return ERR_PTR(r);
}

/*
 * L1 must not write to its token page: from here on L0 sees it.  The token is
 * in kv->tokens, so no new writable mapping of it comes into being.
 */
static int kpop_protect_token(struct kpop_vm *kv, gpa_t token)
{
	struct kvm *kvm = kv->kvm;
	struct kvm_memory_slot *slot = kpop_l1_slot(kvm, gpa_to_gfn(token));
	void *page;
	int r;

	if (!slot)
		return -EFAULT;

	write_lock(&kvm->mmu_lock);
	if (kvm_mmu_slot_gfn_write_protect(kvm, slot, gpa_to_gfn(token),
					   PG_LEVEL_4K))
		kvm_flush_remote_tlbs(kvm);
	write_unlock(&kvm->mmu_lock);

	page = (void *)__get_free_page(GFP_KERNEL_ACCOUNT);
	if (!page)
		return -ENOMEM;
	r = kvm_read_guest(kvm, token, page, PAGE_SIZE) ? -EFAULT : 0;
	if (!r && memchr_inv(page, 0, PAGE_SIZE))
		r = -EBUSY;
	free_page((unsigned long)page);
	return r;
}

/* Find or make; returns with a reference, *made tells which. */
static struct kpop_space *kpop_make_space(struct kpop_vm *kv,
					  const struct kpop_load_kern *k, bool *made)
{
	const struct kpop_load_ctx *ctx = &k->ctx;
	struct kpop_space *space;

	mutex_lock(&kv->lock);
	*made = false;
	space = kpop_lookup_space(kv, ctx->token);
	if (kv->closed || kv->dropping || kv->closes != k->closes) {
		space = ERR_PTR(-EAGAIN);
	} else if (!space) {
		space = kpop_alloc_space(kv, ctx->token, ctx->kvm_id, ctx->as_id);
		*made = !IS_ERR(space);
	} else if (!kpop_space_is(space, ctx->kvm_id, ctx->as_id)) {
		space = ERR_PTR(-EBUSY);
	}
	if (!IS_ERR(space))
		refcount_inc(&space->count);
	mutex_unlock(&kv->lock);
	return space;
}

/**
 * kpop_bind - what LOAD does: bind a holder to the space of a token
 * @kv: the L1 VM
 * @k: the LOAD in progress, its arguments checked; L1's root page is all zero
 *
 * Context: vCPU thread with kvm->srcu held; no other lock.
 * Return: 0, -EBUSY, -EAGAIN, -EFAULT, -E2BIG or -ENOMEM; then nothing changed.
 */
int kpop_bind(struct kpop_vm *kv, const struct kpop_load_kern *k)
{
	struct kpop_guest_mmu *gmmu;
	struct kpop_space *space;
	bool made;
	int r = 0;

	space = kpop_make_space(kv, k, &made);
	if (IS_ERR(space))
		return PTR_ERR(space);

	if (made)
		r = kpop_protect_token(kv, k->ctx.token);

	if (!r) {
		mutex_lock(&kv->lock);
		gmmu = space->listed ?
		       kpop_alloc_guest_mmu(kv, k->ctx.vcpu_holder, space) :
		       ERR_PTR(-EAGAIN);
		r = PTR_ERR_OR_ZERO(gmmu);
		mutex_unlock(&kv->lock);
	}
	if (r && made)
		kpop_drop_space(space);
	kpop_put_space(space);
	return r;
}

/**
 * kpop_unbind - drop what a holder is bound to; no mapping goes
 * @kv: the L1 VM
 * @holder: GPA of vmcb12 / vmcs12
 * @token: the binding to this token, or 0: all of them
 *
 * Return: 0, or -ENOENT if there was none.
 */
int kpop_unbind(struct kpop_vm *kv, gpa_t holder, gpa_t token)
{
	struct kpop_guest_mmu *gmmu;
	struct hlist_node *next;
	int r = -ENOENT;

	mutex_lock(&kv->lock);
	hash_for_each_possible_safe(kv->bindings, gmmu, next, hnode,
				    gpa_to_gfn(holder)) {
		if (gmmu->vcpu_holder != holder ||
		    (token && gmmu->space->token != token))
			continue;
		kpop_unhash_guest_mmu(kv, gmmu);
		r = 0;
	}
	mutex_unlock(&kv->lock);
	return r;
}

/* How many spaces of the same L2 VM and as_id there are besides this one. */
static void kpop_count_siblings(struct kpop_space *space, int change)
{
	struct kpop_space *other;

	lockdep_assert_held(&space->kv->lock);
	list_for_each_entry(other, &space->kv->spaces, link) {
		if (other == space || !kpop_siblings(space, other))
			continue;
		WRITE_ONCE(other->siblings, other->siblings + change);
		WRITE_ONCE(space->siblings, space->siblings + change);
	}
}

static void kpop_list_space(struct kpop_space *space)
{
	struct kpop_vm *kv = space->kv;

	space->listed = true;
	list_add_tail(&space->link, &kv->spaces);
	kpop_count_siblings(space, 1);
	kv->nr_spaces++;
	kv->kvm->stat.kpop_spaces = kv->nr_spaces;
}

static void kpop_unlist_space(struct kpop_space *space)
{
	struct kpop_vm *kv = space->kv;
	struct kpop_guest_mmu *gmmu;
	struct hlist_node *next;
	int i;

	lockdep_assert_held(&kv->lock);
	kpop_count_siblings(space, -1);
	space->listed = false;
	xa_erase(&kv->tokens, gpa_to_gfn(space->token));
	list_del(&space->link);
	kv->nr_spaces--;
	kv->kvm->stat.kpop_spaces = kv->nr_spaces;
	hash_for_each_safe(kv->bindings, i, next, gmmu, hnode)
		if (gmmu->space == space)
			kpop_unhash_guest_mmu(kv, gmmu);
}

/**
 * kpop_drop_space - end an address space: invalidate, kick, zap, forget
 * @space: the space; the caller holds a reference
 *
 * On return no vCPU can use a mapping of it.  A vCPU that is in guest mode on
 * it gets an empty root that only reflects faults.  Safe to call twice.
 *
 * Context: may sleep; no lock held.
 */
void kpop_drop_space(struct kpop_space *space)
{
	struct kvm *kvm = space->kv->kvm;
	struct kvm_mmu_page *root;
	bool owned;

	mutex_lock(&space->kv->lock);
	if (!space->listed) {
		mutex_unlock(&space->kv->lock);
		return;
	}

	/*
	 * Out of use first, off the lists then: who finds it gone may take its
	 * mappings for gone.
	 */
	write_lock(&kvm->mmu_lock);
	WRITE_ONCE(space->dead, true);
	root = space->root;
	if (root && !kvm_tdp_mmu_get_root(root))
		root = NULL;
	owned = kpop_invalidate_root(kvm, root);
	write_unlock(&kvm->mmu_lock);

	kpop_unlist_space(space);
	mutex_unlock(&space->kv->lock);

	/*
	 * The translations, by which notifiers find the root, go after the
	 * last SPTE, also where somebody else invalidated the root.  Nothing
	 * is added to a dead space meanwhile.
	 */
	if (root) {
		kpop_zap_root(kvm, root, owned);
		kpop_put_root(kvm, root);
	}
	kpop_trans_drop_all(space);

	trace_kvm_kpop_drop(space->kv->id, space->token, space->kvm_id,
			    space->as_id);
	kpop_put_space(space);
}

/* Caller holds mmu_lock for read, which it may lose for a while. */
static struct kvm_mmu_page *kpop_replace_root(struct kvm_vcpu *vcpu,
					      struct kpop_space *space,
					      struct kvm_mmu_page *old)
{
	struct kvm *kvm = vcpu->kvm;
	struct kvm_mmu_page *root;

	/*
	 * Notifiers reach one root of a space: what an invalid one still maps
	 * goes before another one takes its place.
	 */
	if (old)
		kvm_tdp_mmu_zap_kpop_root(kvm, old);

	root = kvm_tdp_mmu_new_kpop_root(vcpu, vcpu->arch.kpop_mmu.root_role);
	/* The space's reference, besides the TDP MMU's and the vCPU's. */
	refcount_inc(&root->tdp_mmu_root_count);

	spin_lock(&kvm->arch.tdp_mmu_pages_lock);
	if (space->root == old) {
		kvm_tdp_mmu_publish_kpop_root(kvm, root);
		/* Pairs with kpop_valid_root(). */
		smp_store_release(&space->root, root);
		spin_unlock(&kvm->arch.tdp_mmu_pages_lock);
		if (old)
			kvm_tdp_mmu_put_root(kvm, old);
		return root;
	}
	spin_unlock(&kvm->arch.tdp_mmu_pages_lock);

	kvm_tdp_mmu_discard_kpop_root(root);
	return NULL;
}

/**
 * kpop_space_root - the root of a space, made if there is none in use
 * @vcpu: the vCPU whose memory caches (topped up) give the page
 * @space: the space
 *
 * Context: mmu_lock held for read; it may be dropped and taken again.
 * Return: a valid root with a reference, or NULL if it must be tried again.
 */
struct kvm_mmu_page *kpop_space_root(struct kvm_vcpu *vcpu,
				     struct kpop_space *space)
{
	struct kvm *kvm = vcpu->kvm;
	struct kvm_mmu_page *root;

	lockdep_assert_held_read(&kvm->mmu_lock);

	root = kpop_get_root(space);
	if (root && !root->role.invalid)
		return root;

	if (root) {
		struct kvm_mmu_page *new = kpop_replace_root(vcpu, space, root);

		kvm_tdp_mmu_put_root(kvm, root);
		return new;
	}
	return kpop_replace_root(vcpu, space, NULL);
}

/**
 * kpop_reload_guest_mmu - load the root of the space that a vCPU's L2 runs on
 * @vcpu: a vCPU in guest mode on KPOP, its memory caches topped up
 *
 * The vCPU keeps a reference until kpop_mmu is unloaded or the root obsolete.
 *
 * Return: 0.
 */
int kpop_reload_guest_mmu(struct kvm_vcpu *vcpu)
{
	struct kvm_mmu *mmu = &vcpu->arch.kpop_mmu;
	struct kpop_space *space = vcpu->arch.kpop_space;
	struct kvm_mmu_page *root;

	do {
		read_lock(&vcpu->kvm->mmu_lock);
		root = kpop_space_root(vcpu, space);
		read_unlock(&vcpu->kvm->mmu_lock);
		if (!root && kvm_mmu_topup_direct(vcpu))
			return -ENOMEM;
	} while (!root);

	mmu->root.hpa = __pa(root->spt);
	mmu->root.pgd = 0;
	trace_kvm_kpop_reload(space->kv->id, space->token, mmu->root.hpa);
	return 0;
}

/* Under RCU: tells that there is a token, not what it stands for. */
bool __kpop_has_token(struct kvm *kvm, gfn_t l1_gfn, u64 npages)
{
	unsigned long index = l1_gfn;

	return xa_find(&kvm->arch.kpop->tokens, &index, l1_gfn + npages - 1,
		       XA_PRESENT);
}

/* An emulated write of L1 to its token page: the space is void. */
void __kpop_track_write(struct kvm *kvm, gpa_t gpa, int bytes)
{
	struct kpop_vm *kv = kpop_vm(kvm);
	struct kpop_space *space;

	if (!__kpop_has_token(kvm, gpa_to_gfn(gpa), 1))
		return;

	space = kpop_get_space(kv, gpa & PAGE_MASK);
	if (space) {
		kpop_drop_space(space);
		kpop_put_space(space);
	}
}
