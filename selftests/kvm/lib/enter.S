/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One nested entry.  The selftest library's run_guest() keeps L2's registers
 * in a global, so that two L1 vCPUs cannot use it at the same time.
 */
	.text

#define R_RAX	0x00
#define R_RBX	0x08
#define R_RCX	0x10
#define R_RDX	0x18
#define R_RSI	0x20
#define R_RDI	0x28
#define R_RBP	0x30
#define R_R8	0x38
#define R_R9	0x40
#define R_R10	0x48
#define R_R11	0x50
#define R_R12	0x58
#define R_R13	0x60
#define R_R14	0x68
#define R_R15	0x70

.macro SAVE_HOST
	push	%rbp
	push	%rbx
	push	%r12
	push	%r13
	push	%r14
	push	%r15
.endm

.macro RESTORE_HOST
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
.endm

/* All but RAX, from (%rsi). */
.macro LOAD_GUEST
	mov	R_RBX(%rsi), %rbx
	mov	R_RCX(%rsi), %rcx
	mov	R_RDX(%rsi), %rdx
	mov	R_RDI(%rsi), %rdi
	mov	R_RBP(%rsi), %rbp
	mov	R_R8(%rsi), %r8
	mov	R_R9(%rsi), %r9
	mov	R_R10(%rsi), %r10
	mov	R_R11(%rsi), %r11
	mov	R_R12(%rsi), %r12
	mov	R_R13(%rsi), %r13
	mov	R_R14(%rsi), %r14
	mov	R_R15(%rsi), %r15
	mov	R_RSI(%rsi), %rsi
.endm

/* All but RAX, to (%rax). */
.macro SAVE_GUEST
	mov	%rbx, R_RBX(%rax)
	mov	%rcx, R_RCX(%rax)
	mov	%rdx, R_RDX(%rax)
	mov	%rsi, R_RSI(%rax)
	mov	%rdi, R_RDI(%rax)
	mov	%rbp, R_RBP(%rax)
	mov	%r8, R_R8(%rax)
	mov	%r9, R_R9(%rax)
	mov	%r10, R_R10(%rax)
	mov	%r11, R_R11(%rax)
	mov	%r12, R_R12(%rax)
	mov	%r13, R_R13(%rax)
	mov	%r14, R_R14(%rax)
	mov	%r15, R_R15(%rax)
.endm

/* void kpop_svm_vmrun(u64 vmcb_gpa, struct l2_regs *regs); RAX is in vmcb12 */
	.globl	kpop_svm_vmrun
	.type	kpop_svm_vmrun, @function
kpop_svm_vmrun:
	SAVE_HOST
	push	%rdi
	push	%rsi
	mov	%rdi, %rax
	LOAD_GUEST
	vmload	%rax
	vmrun	%rax
	vmsave	%rax
	mov	(%rsp), %rax
	SAVE_GUEST
	pop	%rsi
	pop	%rdi
	/* VMRUN left GIF clear; an L1 with GIF clear takes no INIT. */
	stgi
	RESTORE_HOST
	ret
	.size	kpop_svm_vmrun, . - kpop_svm_vmrun

#define VMCS_HOST_RSP	0x6c14
#define VMCS_HOST_RIP	0x6c16

/* int kpop_vmx_run(u64 launched, struct l2_regs *regs); 0: L2 ran and left */
	.globl	kpop_vmx_run
	.type	kpop_vmx_run, @function
kpop_vmx_run:
	SAVE_HOST
	push	%rsi
	mov	$VMCS_HOST_RSP, %eax
	vmwrite	%rsp, %rax
	lea	1f(%rip), %rcx
	mov	$VMCS_HOST_RIP, %eax
	vmwrite	%rcx, %rax
	test	%rdi, %rdi
	mov	R_RAX(%rsi), %rax
	LOAD_GUEST
	jnz	2f
	vmlaunch
	jmp	3f
2:	vmresume
3:	pop	%rsi
	mov	$1, %eax
	jmp	4f
1:	push	%rax
	mov	8(%rsp), %rax
	SAVE_GUEST
	pop	%rcx
	mov	%rcx, R_RAX(%rax)
	pop	%rsi
	xor	%eax, %eax
4:	RESTORE_HOST
	ret
	.size	kpop_vmx_run, . - kpop_vmx_run

	.section .note.GNU-stack, "", @progbits
