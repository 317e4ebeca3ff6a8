// SPDX-License-Identifier: GPL-2.0
/* The Intel side of an L1: vmcs12 and its exits. */
#include <asm/vmx.h>

#include "kpop_test.h"
#include "vmx.h"

/* Write-back, a walk of four levels: what every EPT has. */
#define EPTP_WB_4LEVEL	0x1e
/* VM-instruction error of an entry with an invalid control field. */
#define VMX_BAD_CONTROL	7

static struct vmx_pages *vmx_of(struct l2 *l2)
{
	return l2->arch;
}

void vmx_on(struct l2 *l2)
{
	GUEST_ASSERT(prepare_for_vmx_operation(vmx_of(l2)));
}

/* What is not cleared before VMXOFF is lost (SDM vol. 3, 25.11). */
void vmx_off(void)
{
	u64 current;

	if (!vmptrst(&current) && current != ~0ULL)
		GUEST_ASSERT(!vmclear(current));
	vmxoff();
}

void vmx_reset(struct l2 *l2, void *rip)
{
	GUEST_ASSERT(!vmptrld(vmx_of(l2)->vmcs_gpa));
	vmwrite(GUEST_RIP, (u64)rip);
	vmwrite(GUEST_RSP, l2->stack);
	/*
	 * With IF: L1 has no interrupts for L2, but Bochs 2.7 lets none of L0's
	 * through that came while L0 had IF clear and L2 has too.
	 */
	vmwrite(GUEST_RFLAGS, 0x202);
	vmwrite(VM_ENTRY_INTR_INFO_FIELD, 0);
}

void vmx_setup(struct l2 *l2, void *rip)
{
	struct vmx_pages *vmx = vmx_of(l2);

	vmx->eptp_gpa = l2->root;
	GUEST_ASSERT(load_vmcs(vmx));
	prepare_vmcs(vmx, rip, (void *)l2->stack);
	l2->launched = 0;
}

static void vmx_read_exit(struct l2 *l2)
{
	struct l2_exit *e = &l2->exit;

	e->raw = vmreadz(VM_EXIT_REASON);
	e->info = vmreadz(EXIT_QUALIFICATION);
	e->gpa = vmreadz(GUEST_PHYSICAL_ADDRESS);
	switch (e->raw & 0xffff) {
	case EXIT_REASON_VMCALL:
		e->reason = L2_EXIT_CALL;
		break;
	case EXIT_REASON_EPT_VIOLATION:
		e->reason = L2_EXIT_FAULT;
		e->present = !!(e->info & 0x38);
		e->access = e->info & 4 ? KPOP_MAP_X :
			    e->info & 2 ? KPOP_MAP_W : KPOP_MAP_R;
		break;
	case EXIT_REASON_TRIPLE_FAULT:
		e->reason = L2_EXIT_SHUTDOWN;
		break;
	default:
		e->reason = L2_EXIT_OTHER;
	}
}

void vmx_enter(struct l2 *l2)
{
	int failed;

	GUEST_ASSERT(!vmptrld(vmx_of(l2)->vmcs_gpa));
	if (l2->root)
		vmwrite(EPT_POINTER, l2->root | (l2->eptp_flags ?: EPTP_WB_4LEVEL));
	l2->flush = 0;
	failed = kpop_vmx_run(l2->launched, &l2->regs);
	/* VMRESUME, but the VMCS was cleared since: see vmx_off(). */
	if (failed && l2->launched && vmreadz(VM_INSTRUCTION_ERROR) == 5)
		failed = kpop_vmx_run(0, &l2->regs);
	if (failed && vmreadz(VM_INSTRUCTION_ERROR) == VMX_BAD_CONTROL) {
		l2->exit.reason = L2_EXIT_REFUSED;
		return;
	}
	__GUEST_ASSERT(!failed, "VM entry failed, error %lu", vmreadz(VM_INSTRUCTION_ERROR));
	l2->launched = 1;
	vmx_read_exit(l2);
}
