// SPDX-License-Identifier: GPL-2.0
/*
 * One hypercall in any processor mode.  The VMM sets the vCPU's registers so
 * that it executes five bytes which mean the same in 64-bit and 32-bit code,
 * and takes RAX at the port write that follows.
 */
#include "kpop_test.h"

#define RAW_PORT	0x99
#define SMM_SLOT0	(1U << 16)	/* slot 0 of address space 1 */

static u64 raw_stub;

static void raw_allow_user(struct tvm *t, u64 gva)
{
	int level;

	for (level = PG_LEVEL_4K; level <= PG_LEVEL_512G; level++) {
		int l = level;

		*__vm_get_page_table_entry(t->vm, gva, &l) |= PTE_USER_MASK;
	}
}

void raw_init(struct tvm *t, int cpu)
{
	u8 *code;

	raw_stub = vm_vaddr_alloc_page(t->vm);
	code = addr_gva2hva(t->vm, raw_stub);
	memcpy(code, host_cpu_is_intel ? "\x0f\x01\xc1" : "\x0f\x01\xd9", 3);
	code[3] = 0xe6;
	code[4] = RAW_PORT;
	raw_allow_user(t, raw_stub);
}

static void raw_set_smm(struct tvm *t, int cpu, bool on)
{
	struct kvm_vcpu_events ev;

	vcpu_events_get(t->vcpus[cpu], &ev);
	ev.flags = KVM_VCPUEVENT_VALID_SMM;
	ev.smi.smm = on;
	vcpu_events_set(t->vcpus[cpu], &ev);
}

static void raw_smm_slot(struct tvm *t)
{
	static struct kvm_vm *done;

	if (done == t->vm)
		return;
	vm_set_user_memory_region(t->vm, SMM_SLOT0, 0, 0, SLOT0_PAGES * KST_PAGE,
				  tvm_gpa(t, 0));
	done = t->vm;
}

static void raw_set_mode(struct kvm_sregs *s, struct kvm_regs *r, enum raw_mode mode)
{
	switch (mode) {
	case RAW_CPL3:
		s->cs.dpl = s->ss.dpl = 3;
		s->cs.selector |= 3;
		s->ss.selector |= 3;
		r->rflags |= 3 << 12;		/* IOPL, for the port write */
		break;
	case RAW_COMPAT:
		s->cs.l = 0;
		s->cs.db = 1;
		break;
	case RAW_PROT32:
		/* Without paging: the stub is below 4G, at its physical address. */
		s->cs.l = 0;
		s->cs.db = 1;
		s->cr0 &= ~X86_CR0_PG;
		s->efer &= ~(EFER_LME | EFER_LMA);
		break;
	default:
		break;
	}
}

long raw_hypercall(struct tvm *t, int cpu, enum raw_mode mode, u64 nr,
		   u64 a0, u64 a1, u64 a2, u64 a3)
{
	struct kvm_vcpu *vcpu = t->vcpus[cpu];
	struct kvm_sregs sregs, sregs0;
	struct kvm_regs regs, regs0;
	int r;

	vcpu_sregs_get(vcpu, &sregs0);
	vcpu_regs_get(vcpu, &regs0);
	sregs = sregs0;
	regs = regs0;
	regs.rax = nr;
	regs.rbx = a0;
	regs.rcx = a1;
	regs.rdx = a2;
	regs.rsi = a3;
	regs.rip = mode == RAW_PROT32 ? addr_gva2gpa(t->vm, raw_stub) : raw_stub;
	raw_set_mode(&sregs, &regs, mode);
	if (mode == RAW_SMM) {
		raw_smm_slot(t);
		raw_set_smm(t, cpu, true);
	}
	vcpu_sregs_set(vcpu, &sregs);
	vcpu_regs_set(vcpu, &regs);
	r = __vcpu_run(vcpu);
	TEST_ASSERT(!r, KVM_IOCTL_ERROR(KVM_RUN, r));
	TEST_ASSERT(vcpu->run->exit_reason == KVM_EXIT_IO && vcpu->run->io.port == RAW_PORT,
		    "the stub left with %s in mode %d",
		    exit_reason_str(vcpu->run->exit_reason), mode);
	vcpu_run_complete_io(vcpu);
	vcpu_regs_get(vcpu, &regs);
	if (mode == RAW_SMM)
		raw_set_smm(t, cpu, false);
	vcpu_sregs_set(vcpu, &sregs0);
	vcpu_regs_set(vcpu, &regs0);
	/* In 32-bit code only EAX is the answer. */
	return mode == RAW_COMPAT || mode == RAW_PROT32 ? (s32)regs.rax : (long)regs.rax;
}
