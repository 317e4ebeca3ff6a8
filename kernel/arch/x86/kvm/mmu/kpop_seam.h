/* SPDX-License-Identifier: GPL-2.0 */
#ifndef __KVM_X86_MMU_KPOP_SEAM_H
#define __KVM_X86_MMU_KPOP_SEAM_H

/*
 * The calls by which the rest of KVM x86 reaches KPOP's L0 side.  With
 * CONFIG_KVM_KPOP=n all of them are stubs, so that no caller has an #ifdef.
 */

#include <linux/kvm_host.h>
#include <uapi/linux/kvm_para.h>
#include <asm/kvm_kpop.h>

static inline bool kpop_mmu(const struct kvm_mmu *mmu)
{
	return IS_ENABLED(CONFIG_KVM_KPOP) && mmu->root_role.kpop;
}

static inline bool kpop_is_hypercall(unsigned long nr)
{
	return IS_ENABLED(CONFIG_KVM_KPOP) &&
	       nr >= KVM_HC_KPOP_QUERY && nr <= KVM_HC_KPOP_MMU_TRACK;
}

#ifdef CONFIG_KVM_KPOP
void kpop_module_init(void);
void kpop_module_exit(void);
void kpop_init_vm(struct kvm *kvm);
void kpop_pre_destroy_vm(struct kvm *kvm);
void kpop_uninit_vm(struct kvm *kvm);
void kpop_reset(struct kvm *kvm);

void kpop_init_vcpu(struct kvm_vcpu *vcpu);
void kpop_unload_vcpu(struct kvm_vcpu *vcpu);
void kpop_free_obsolete(struct kvm_vcpu *vcpu);
void kpop_destroy_vcpu(struct kvm_vcpu *vcpu);
void kpop_vcpu_virt(struct kvm_vcpu *vcpu, bool on);
void kpop_walk_end(struct kvm_vcpu *vcpu);

int kpop_emulate_hypercall(struct kvm_vcpu *vcpu, unsigned long nr);
long kpop_dev_ioctl(unsigned long arg);

bool kpop_refuses(struct kvm_vcpu *vcpu, bool may_serve, gpa_t vcpu_holder, u64 token);
bool kpop_nested_enter(struct kvm_vcpu *vcpu, bool may_serve, gpa_t vcpu_holder,
		       u64 token);
int kpop_reload_guest_mmu(struct kvm_vcpu *vcpu);
int kpop_page_fault(struct kvm_vcpu *vcpu, gpa_t l2_gpa, u64 error_code,
		    void *insn, int insn_len);

bool kpop_unmap_gfn_range(struct kvm *kvm, struct kvm_gfn_range *range, bool flush);
bool kpop_age_gfn_range(struct kvm *kvm, struct kvm_gfn_range *range, bool test_only);
bool kpop_zap_gfn_range(struct kvm *kvm, gfn_t start, gfn_t end, bool flush);
bool kpop_write_protect_gfn(struct kvm *kvm, gfn_t gfn);
void kpop_log_slot(struct kvm *kvm, const struct kvm_memory_slot *slot);
void kpop_log_pt_masked(struct kvm *kvm, const struct kvm_memory_slot *slot,
			gfn_t gfn, unsigned long mask);

void kpop_account_pt(struct kvm *kvm, int nr);
bool __kpop_has_token(struct kvm *kvm, gfn_t l1_gfn, u64 npages);
void __kpop_track_write(struct kvm *kvm, gpa_t gpa, int bytes);

/* Is one of these L1 gfns a root token?  Tokens are write-tracked. */
static inline bool kpop_has_token(struct kvm *kvm, gfn_t l1_gfn, u64 npages)
{
	return kvm->arch.kpop && __kpop_has_token(kvm, l1_gfn, npages);
}

static inline void kpop_track_write(struct kvm *kvm, gpa_t gpa, int bytes)
{
	if (kvm->arch.kpop)
		__kpop_track_write(kvm, gpa, bytes);
}

/* L0's own use of an L2 translation ends; see kpop_wait_walks(). */
static inline void kpop_walk_done(struct kvm_vcpu *vcpu)
{
	if (unlikely(vcpu->arch.kpop_walk_epoch))
		kpop_walk_end(vcpu);
}

/* Around KVM_RUN, also one that only completes what user space did. */
static inline void kpop_run_begin(struct kvm_vcpu *vcpu)
{
	vcpu->arch.kpop_in_run = true;
}

static inline void kpop_run_end(struct kvm_vcpu *vcpu)
{
	kpop_walk_done(vcpu);
	vcpu->arch.kpop_in_run = false;
}
#else
static inline void kpop_module_init(void) { }
static inline void kpop_module_exit(void) { }
static inline void kpop_init_vm(struct kvm *kvm) { }
static inline void kpop_pre_destroy_vm(struct kvm *kvm) { }
static inline void kpop_uninit_vm(struct kvm *kvm) { }
static inline void kpop_reset(struct kvm *kvm) { }
static inline void kpop_init_vcpu(struct kvm_vcpu *vcpu) { }
static inline void kpop_unload_vcpu(struct kvm_vcpu *vcpu) { }
static inline void kpop_free_obsolete(struct kvm_vcpu *vcpu) { }
static inline void kpop_destroy_vcpu(struct kvm_vcpu *vcpu) { }
static inline void kpop_vcpu_virt(struct kvm_vcpu *vcpu, bool on) { }
static inline void kpop_walk_done(struct kvm_vcpu *vcpu) { }
static inline void kpop_run_begin(struct kvm_vcpu *vcpu) { }
static inline void kpop_run_end(struct kvm_vcpu *vcpu) { }

static inline int kpop_emulate_hypercall(struct kvm_vcpu *vcpu, unsigned long nr)
{
	return -EIO;
}

static inline long kpop_dev_ioctl(unsigned long arg) { return -EINVAL; }

static inline bool kpop_refuses(struct kvm_vcpu *vcpu, bool may_serve,
				gpa_t vcpu_holder, u64 token)
{
	return false;
}

static inline bool kpop_nested_enter(struct kvm_vcpu *vcpu, bool may_serve,
				     gpa_t vcpu_holder, u64 token)
{
	return false;
}

static inline int kpop_reload_guest_mmu(struct kvm_vcpu *vcpu) { return -EIO; }

static inline int kpop_page_fault(struct kvm_vcpu *vcpu, gpa_t l2_gpa,
				  u64 error_code, void *insn, int insn_len)
{
	return -EIO;
}

static inline bool kpop_unmap_gfn_range(struct kvm *kvm,
					struct kvm_gfn_range *range, bool flush)
{
	return flush;
}

static inline bool kpop_age_gfn_range(struct kvm *kvm, struct kvm_gfn_range *range,
				      bool test_only)
{
	return false;
}

static inline bool kpop_zap_gfn_range(struct kvm *kvm, gfn_t start, gfn_t end,
				      bool flush)
{
	return flush;
}

static inline bool kpop_write_protect_gfn(struct kvm *kvm, gfn_t gfn) { return false; }

static inline void kpop_log_slot(struct kvm *kvm,
				 const struct kvm_memory_slot *slot) { }

static inline void kpop_log_pt_masked(struct kvm *kvm,
				      const struct kvm_memory_slot *slot,
				      gfn_t gfn, unsigned long mask) { }
static inline void kpop_account_pt(struct kvm *kvm, int nr) { }

static inline bool kpop_has_token(struct kvm *kvm, gfn_t l1_gfn, u64 npages)
{
	return false;
}

static inline void kpop_track_write(struct kvm *kvm, gpa_t gpa, int bytes) { }
#endif

#endif /* __KVM_X86_MMU_KPOP_SEAM_H */
