// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP in L0: the hypercalls.  Every argument is checked here, before a hook
 * hears of it; see uapi/asm/kvm_kpop.h for what they mean.
 */
#include <linux/sched/signal.h>

#include "mmu.h"
#include "smm.h"
#include "x86.h"
#include "kpop.h"
#include "kvm_cache_regs.h"
#include "kpop_policy.h"
#include "kpop_trace.h"

struct kpop_args {
	u64 a0, a1, a2, a3;
};

/* Is [gfn, gfn + npages) in L1's user memslots, without a hole? */
static bool kpop_l1_range_ok(struct kvm *kvm, gfn_t gfn, u64 npages)
{
	gfn_t end = gfn + npages;

	while (gfn < end) {
		struct kvm_memory_slot *slot = kpop_l1_slot(kvm, gfn);

		if (!slot || slot->flags & KVM_MEMSLOT_INVALID)
			return false;
		gfn = slot->base_gfn + slot->npages;
	}
	return true;
}

static bool kpop_gfns_ok(struct kvm *kvm, gfn_t gfn, u64 npages)
{
	u64 limit = kpop_vm(kvm)->gfn_limit;

	return npages && gfn < limit && npages <= limit - gfn;
}

/* A page-aligned GPA that is in L1's memory. */
static int kpop_check_page(struct kvm *kvm, gpa_t gpa)
{
	if (!PAGE_ALIGNED(gpa) || !kpop_gfns_ok(kvm, gpa_to_gfn(gpa), 1))
		return -EINVAL;
	return kpop_l1_range_ok(kvm, gpa_to_gfn(gpa), 1) ? 0 : -EFAULT;
}

static long kpop_hc_query(struct kvm_vcpu *vcpu, struct kpop_args *a)
{
	if (a->a1 || a->a2 || a->a3)
		return -EINVAL;

	switch (a->a0) {
	case KPOP_QUERY_VERSION:
		return KPOP_ABI_VERSION;
	case KPOP_QUERY_FEATURES:
		return KPOP_FEATURE_BATCH | KPOP_FEATURE_LAZY |
		       KPOP_FEATURE_HUGE | KPOP_FEATURE_TRACK |
		       KPOP_FEATURE_DEVICE | KPOP_FEATURE_BUFFER |
		       (kpop_only(kpop_vm(vcpu->kvm)) ? KPOP_FEATURE_ONLY : 0);
	case KPOP_QUERY_GFN_LIMIT:
		return kpop_vm(vcpu->kvm)->gfn_limit;
	case KPOP_QUERY_MAX_RUNS:
		return KPOP_MAP_MAX_RUNS;
	case KPOP_QUERY_RESET:
		kpop_reset(vcpu->kvm);
		return kpop_wait_walks(kpop_vm(vcpu->kvm));
	default:
		return -EINVAL;
	}
}

static long kpop_hc_load(struct kvm_vcpu *vcpu, gpa_t holder, gpa_t token,
			 u32 kvm_id, u32 as_id)
{
	struct kpop_vm *kv = kpop_vm(vcpu->kvm);
	struct kpop_load_kern k = {
		.ctx = {
			.kvm_id = kvm_id,
			.as_id = as_id,
			.token = token,
			.vcpu_holder = holder,
		},
		.vcpu = vcpu,
		.closes = READ_ONCE(kv->closes),
	};
	struct kpop_space *space;
	int r;

	if (!kvm_id)
		return -EINVAL;
	r = kpop_check_page(vcpu->kvm, holder) ?: kpop_check_page(vcpu->kvm, token);
	if (r)
		return r;
	if (holder == token)
		return -EINVAL;

	space = kpop_get_space(kv, token);
	if (space) {
		k.ctx.known = true;
		kpop_put_space(space);
	}
	return kpop_call_load(kv, &k);
}

static long kpop_hc_unload(struct kpop_vm *kv, u64 op, gpa_t holder, gpa_t token,
			   u32 kvm_id, u32 as_id)
{
	struct kpop_unload_ctx ctx = {
		.kvm_id = kvm_id,
		.as_id = as_id,
		.token = token,
		.vcpu_holder = holder,
	};
	struct kpop_space *space;
	int r;

	if (!PAGE_ALIGNED(holder) || !PAGE_ALIGNED(token))
		return -EINVAL;

	if (op == KPOP_OP_UNLOAD_HOLDER) {
		r = kpop_unbind(kv, holder, token);
		if (r)
			return r;
	} else {
		if (holder)
			return -EINVAL;
		space = kpop_get_space(kv, token);
		/* Also if this is the same call again, after a signal. */
		if (!space)
			return kpop_wait_walks(kv) ?: -ENOENT;
		/* Whatever L1 says now: the policy knows it by what LOAD said. */
		ctx.kvm_id = space->kvm_id;
		ctx.as_id = space->as_id;
		kpop_drop_space(space);
		kpop_put_space(space);
	}
	kpop_call_unload(kv, &ctx);
	return op == KPOP_OP_UNLOAD_ROOT ? kpop_wait_walks(kv) : 0;
}

static long kpop_hc_load_unload(struct kvm_vcpu *vcpu, struct kpop_args *a)
{
	u64 op = a->a0 & 0xff, as_id = a->a0 >> KPOP_AS_ID_SHIFT;

	if (op > KPOP_OP_UNLOAD_ROOT || as_id >= KPOP_NR_AS_IDS || a->a3 >> 32)
		return -EINVAL;

	if (op == KPOP_OP_LOAD)
		return kpop_hc_load(vcpu, a->a1, a->a2, a->a3, as_id);
	return kpop_hc_unload(kpop_vm(vcpu->kvm), op, a->a1, a->a2, a->a3, as_id);
}

/* One run: 0 and *done pages, or an error if none. */
static int kpop_map_run(struct kvm_vcpu *vcpu, struct kpop_space *space,
			const struct kpop_map_run *run, u64 *done, u32 *rights,
			u32 *window)
{
	struct kpop_map_kern k = {
		.ctx = {
			.kvm_id = space->kvm_id,
			.as_id = space->as_id,
			.token = space->token,
			.l2_gfn = run->l2_gfn,
			.l1_gfn = run->l1_gfn,
			.npages = run->npages,
			.rights = run->flags & KPOP_MAP_RWX,
			.lazy = !!(run->flags & KPOP_MAP_LAZY),
			.written = !!(run->flags & KPOP_MAP_WRITTEN),
		},
		.vcpu = vcpu,
		.space = space,
	};
	int r;

	if (run->flags & ~(KPOP_MAP_FLAGS & ~KPOP_MAP_BATCH) ||
	    (run->flags & (KPOP_MAP_WRITTEN | KPOP_MAP_LOGGED) &&
	     !(run->flags & KPOP_MAP_W)) ||
	    !(run->flags & KPOP_MAP_R) || run->npages > KPOP_MAP_MAX_PAGES ||
	    !kpop_gfns_ok(vcpu->kvm, run->l2_gfn, run->npages) ||
	    !kpop_gfns_ok(vcpu->kvm, run->l1_gfn, run->npages))
		return -EINVAL;
	if (!(run->flags & KPOP_MAP_DEVICE) &&
	    !kpop_l1_range_ok(vcpu->kvm, run->l1_gfn, run->npages))
		return -EFAULT;

	if (run->flags & KPOP_MAP_LOGGED &&
	    !kpop_log_has_buffer(space, run->l2_gfn, run->npages))
		return -ENODATA;

	r = kpop_call_map(space->kv, &k);
	*done = k.done;
	*rights = k.rights;
	*window = k.window;
	return r;
}

static long kpop_map_batch(struct kvm_vcpu *vcpu, struct kpop_space *space,
			   struct kpop_args *a)
{
	u64 i, done = 0, nr = a->a2;
	u32 rights = 0, window = 0;
	int r = 0;

	if (!nr || nr > KPOP_MAP_MAX_RUNS || a->a3 >= nr ||
	    !IS_ALIGNED(a->a1, sizeof(u64)) ||
	    offset_in_page(a->a1) + nr * sizeof(struct kpop_map_run) > PAGE_SIZE ||
	    !kpop_gfns_ok(vcpu->kvm, gpa_to_gfn(a->a1), 1))
		return -EINVAL;

	for (i = a->a3; i < nr; i++) {
		struct kpop_map_run run;

		/* One by one: L1 may change what is not yet done. */
		if (kvm_read_guest(vcpu->kvm, a->a1 + i * sizeof(run), &run,
				   sizeof(run))) {
			r = -EFAULT;
			break;
		}
		do {
			done = 0;
			r = kpop_map_run(vcpu, space, &run, &done, &rights, &window);
			run.l2_gfn += done;
			run.l1_gfn += done;
			run.npages -= done;
			cond_resched();
			/* What is not done of a run has no answer: no other signal. */
		} while (!r && run.npages && done && !fatal_signal_pending(current));
		if (r || run.npages) {
			r = r ?: -EAGAIN;
			break;
		}
		if (signal_pending(current)) {
			i++;
			break;
		}
		cond_resched();
	}
	if (i == a->a3)
		return r;
	return KPOP_MAP_RET(i, rights, window);
}

/* Mostly it is the space that this vCPU's L2 runs on, which the vCPU holds. */
static struct kpop_space *kpop_get_map_space(struct kvm_vcpu *vcpu, gpa_t token)
{
	struct kpop_space *space = vcpu->arch.kpop_space;

	if (!space || space->token != token || READ_ONCE(space->dead))
		return kpop_get_space(kpop_vm(vcpu->kvm), token);

	refcount_inc(&space->count);
	return space;
}

static long kpop_hc_map(struct kvm_vcpu *vcpu, struct kpop_args *a)
{
	u64 flags = a->a0 & ~PAGE_MASK, done = 0;
	struct kpop_vm *kv = kpop_vm(vcpu->kvm);
	struct kpop_space *space;
	u32 rights = 0, window = 0;
	long r;

	if (flags & ~KPOP_MAP_FLAGS ||
	    (flags & KPOP_MAP_BATCH && flags != KPOP_MAP_BATCH))
		return -EINVAL;

	space = kpop_get_map_space(vcpu, a->a0 & PAGE_MASK);
	if (!space)
		return kpop_policy_ready(kv) ? -ENOENT : -EAGAIN;

	if (flags & KPOP_MAP_BATCH) {
		r = kpop_map_batch(vcpu, space, a);
	} else if (a->a3 > KPOP_MAP_MAX_PAGES) {
		r = -EINVAL;
	} else {
		struct kpop_map_run run = {
			.l2_gfn = a->a1,
			.l1_gfn = a->a2,
			.npages = a->a3,
			.flags = flags,
		};

		r = kpop_map_run(vcpu, space, &run, &done, &rights, &window);
		if (!r)
			r = KPOP_MAP_RET(done, rights, window);
	}
	kpop_put_space(space);
	return r;
}

static long kpop_hc_unmap(struct kvm_vcpu *vcpu, struct kpop_args *a)
{
	u64 flags = a->a0 & 0xff, as_id = a->a0 >> KPOP_AS_ID_SHIFT;
	struct kpop_vm *kv = kpop_vm(vcpu->kvm);
	struct kpop_unmap_ctx ctx = {
		.kvm_id = a->a1,
		.as_id = as_id,
		.all_as = !!(flags & KPOP_UNMAP_ALL_AS),
		.l2_gfn = a->a2,
		.npages = a->a3,
	};
	int r;

	if (flags & ~KPOP_UNMAP_FLAGS || as_id >= KPOP_NR_AS_IDS ||
	    (as_id && flags & KPOP_UNMAP_ALL_AS) ||
	    !a->a1 || a->a1 >> 32 || !kpop_gfns_ok(vcpu->kvm, a->a2, a->a3))
		return -EINVAL;

	r = kpop_unmap_range(kv, a->a1, as_id, ctx.all_as, a->a2, a->a3);
	if (r)
		return r;

	kpop_call_unmap(kv, &ctx, flags & KPOP_UNMAP_ZAP);
	return a->a3;
}

/* AGE, TEST_AGE and LOG_READ: the answer is a bitmap in L1's memory. */
static long kpop_track_read(struct kvm_vcpu *vcpu, u64 op, u32 as_id, u32 kvm_id,
			    gfn_t l2, u64 npages, gpa_t to)
{
	struct kpop_vm *kv = kpop_vm(vcpu->kvm);
	size_t len = BITS_TO_LONGS(npages) * sizeof(long);
	unsigned long *bits;
	long r;

	if (npages > KPOP_TRACK_MAX_PAGES || !IS_ALIGNED(to, sizeof(long)) ||
	    offset_in_page(to) + len > PAGE_SIZE || !kpop_gfns_ok(vcpu->kvm, gpa_to_gfn(to), 1))
		return -EINVAL;
	/* What is read is gone from the log: be sure that it can be told. */
	if (!kpop_l1_range_ok(vcpu->kvm, gpa_to_gfn(to), 1) ||
	    kvm_clear_guest(vcpu->kvm, to, len))
		return -EFAULT;

	bits = kzalloc(len, GFP_KERNEL_ACCOUNT);
	if (!bits)
		return -ENOMEM;
	if (op == KPOP_TRACK_LOG_READ)
		r = kpop_log_read(kv, kvm_id, as_id, l2, npages, bits);
	else
		r = kpop_age_range(kv, kvm_id, as_id, l2, npages, bits,
				   op == KPOP_TRACK_TEST_AGE);
	if (r > 0 && kvm_write_guest(vcpu->kvm, to, bits, len))
		r = -EFAULT;
	kfree(bits);
	return r;
}

/* LOG_BUFFER and LOG_TAKE: @gpa is a page of L1, or 0 with no entries. */
static long kpop_track_buffer(struct kvm_vcpu *vcpu, u64 op, u32 kvm_id, u64 entries,
			      gpa_t gpa)
{
	struct kpop_vm *kv = kpop_vm(vcpu->kvm);
	int r;

	if (op == KPOP_TRACK_LOG_BUFFER && !entries && !gpa)
		return kpop_buffer_clear(kv, kvm_id);
	if (op == KPOP_TRACK_LOG_TAKE ? entries != 0 :
	    !entries || entries > KPOP_LOG_MAX_ENTRIES)
		return -EINVAL;
	r = kpop_check_page(vcpu->kvm, gpa);
	if (r)
		return r;
	return op == KPOP_TRACK_LOG_TAKE ? kpop_buffer_take(kv, kvm_id, gpa) :
	       kpop_buffer_set(kv, kvm_id, entries, gpa);
}

static long kpop_hc_track(struct kvm_vcpu *vcpu, struct kpop_args *a)
{
	u64 op = a->a0 & 0xff, as_id = a->a0 >> KPOP_AS_ID_SHIFT;
	u64 npages = a->a1 >> 32;
	struct kpop_vm *kv = kpop_vm(vcpu->kvm);
	u32 kvm_id = a->a1;

	if (as_id >= KPOP_NR_AS_IDS || !kvm_id)
		return -EINVAL;
	if (op == KPOP_TRACK_LOG_BUFFER || op == KPOP_TRACK_LOG_TAKE)
		return as_id || a->a2 ? -EINVAL :
		       kpop_track_buffer(vcpu, op, kvm_id, npages, a->a3);
	if (!kpop_gfns_ok(vcpu->kvm, a->a2, npages))
		return -EINVAL;

	switch (op) {
	case KPOP_TRACK_LOG_START:
		if (a->a3 & ~KPOP_LOG_BUFFERED)
			return -EINVAL;
		return kpop_log_start(kv, kvm_id, as_id, a->a2, npages,
				      a->a3 & KPOP_LOG_BUFFERED);
	case KPOP_TRACK_LOG_STOP:
		return a->a3 ? -EINVAL : kpop_log_stop(kv, kvm_id, as_id, a->a2, npages);
	case KPOP_TRACK_LOG_READ:
	case KPOP_TRACK_AGE:
	case KPOP_TRACK_TEST_AGE:
		return kpop_track_read(vcpu, op, as_id, kvm_id, a->a2, npages,
				       a->a3);
	default:
		return -EINVAL;
	}
}

static long kpop_hypercall(struct kvm_vcpu *vcpu, unsigned long nr,
			   struct kpop_args *a, bool is_64_bit)
{
	struct kpop_vm *kv = kpop_vm(vcpu->kvm);
	long r;

	if (kvm_x86_call(get_cpl)(vcpu))
		return -KVM_EPERM;
	r = kv ? kpop_policy_status(kv) : -KVM_ENOSYS;
	if (r == -KVM_ENOSYS)
		return r;
	if (!is_64_bit || is_smm(vcpu) || is_guest_mode(vcpu))
		return -KVM_EPERM;
	/* What a kpop-only L1 asks is answered: its next L2 waits for a policy. */
	if (r == -ENOLINK && nr != KVM_HC_KPOP_QUERY)
		return r;

	kvm_mmu_init_kpop_context(vcpu, &vcpu->arch.kpop_mmu);

	switch (nr) {
	case KVM_HC_KPOP_QUERY:
		return kpop_hc_query(vcpu, a);
	case KVM_HC_KPOP_MMU_LOAD_UNLOAD:
		return kpop_hc_load_unload(vcpu, a);
	case KVM_HC_KPOP_MMU_MAP:
		return kpop_hc_map(vcpu, a);
	case KVM_HC_KPOP_MMU_TRACK:
		return kpop_hc_track(vcpu, a);
	default:
		return kpop_hc_unmap(vcpu, a);
	}
}

/**
 * kpop_emulate_hypercall - answer one of KPOP's hypercalls
 * @vcpu: the vCPU
 * @nr: its number, see kpop_is_hypercall()
 *
 * A signal lets the vCPU thread go to user space; the guest then executes the
 * instruction again, which all of them are made for.
 *
 * Context: kvm->srcu held, may sleep.
 * Return: as an exit handler.
 */
int kpop_emulate_hypercall(struct kvm_vcpu *vcpu, unsigned long nr)
{
	struct kpop_args a = {
		.a0 = kvm_rbx_read(vcpu),
		.a1 = kvm_rcx_read(vcpu),
		.a2 = kvm_rdx_read(vcpu),
		.a3 = kvm_rsi_read(vcpu),
	};
	bool is_64_bit = is_64_bit_hypercall(vcpu);
	long ret = kpop_hypercall(vcpu, nr, &a, is_64_bit);

	trace_kvm_kpop_hypercall(nr, a.a0, a.a1, a.a2, a.a3, ret);
	kpop_free_obsolete(vcpu);

	if (ret == -EINTR) {
		kvm_handle_signal_exit(vcpu);
		return -EINTR;
	}

	++vcpu->stat.hypercalls;
	if (!is_64_bit)
		ret = (u32)ret;
	kvm_rax_write(vcpu, ret);
	return kvm_skip_emulated_instruction(vcpu);
}
