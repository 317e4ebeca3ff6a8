// SPDX-License-Identifier: GPL-2.0
/* The AMD side of an L1: vmcb12 and its exits. */
#include "kpop_test.h"
#include "svm_util.h"

#define NPF_PRESENT	(1ULL << 0)
#define NPF_WRITE	(1ULL << 1)
#define NPF_FETCH	(1ULL << 4)

static struct svm_test_data *svm_of(struct l2 *l2)
{
	return l2->arch;
}

void svm_on(struct l2 *l2)
{
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
	wrmsr(MSR_VM_HSAVE_PA, svm_of(l2)->save_area_gpa);
}

void svm_off(void)
{
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_SVME);
}

void svm_reset(struct l2 *l2, void *rip)
{
	struct vmcb *vmcb = svm_of(l2)->vmcb;

	vmcb->save.rip = (u64)rip;
	vmcb->save.rsp = l2->stack;
	vmcb->save.rflags = 2;
	vmcb->control.event_inj = 0;
}

void svm_setup(struct l2 *l2, void *rip)
{
	generic_svm_setup(svm_of(l2), rip, (void *)l2->stack);
	svm_reset(l2, rip);
}

static void svm_read_exit(struct l2 *l2, struct vmcb_control_area *c)
{
	struct l2_exit *e = &l2->exit;

	e->raw = c->exit_code;
	e->info = c->exit_info_1;
	e->gpa = c->exit_info_2;
	switch (c->exit_code) {
	case SVM_EXIT_VMMCALL:
		e->reason = L2_EXIT_CALL;
		break;
	case SVM_EXIT_NPF:
		e->reason = L2_EXIT_FAULT;
		e->present = !!(e->info & NPF_PRESENT);
		e->access = e->info & NPF_FETCH ? KPOP_MAP_X :
			    e->info & NPF_WRITE ? KPOP_MAP_W : KPOP_MAP_R;
		break;
	case SVM_EXIT_SHUTDOWN:
		e->reason = L2_EXIT_SHUTDOWN;
		break;
	case (u32)SVM_EXIT_ERR:
		e->reason = L2_EXIT_REFUSED;
		break;
	default:
		e->reason = L2_EXIT_OTHER;
	}
}

void svm_enter(struct l2 *l2)
{
	struct svm_test_data *svm = svm_of(l2);
	struct vmcb_control_area *c = &svm->vmcb->control;

	c->asid = l2->asid;
	c->tlb_ctl = l2->flush ? TLB_CONTROL_FLUSH_ALL_ASID : TLB_CONTROL_DO_NOTHING;
	l2->flush = 0;
	c->nested_ctl = l2->root ? SVM_NESTED_CTL_NP_ENABLE : 0;
	c->nested_cr3 = l2->root;
	c->clean = 0;
	if (l2->no_call_exit)
		c->intercept &= ~(1ULL << INTERCEPT_VMMCALL);
	else
		c->intercept |= 1ULL << INTERCEPT_VMMCALL;
	kpop_svm_vmrun(svm->vmcb_gpa, &l2->regs);
	svm_read_exit(l2, c);
}
