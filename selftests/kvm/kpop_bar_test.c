// SPDX-License-Identifier: GPL-2.0
/*
 * Unlike the others this one runs in L1, as an ordinary VMM: its guest is an L2
 * that gets a device of L0, a PCI BAR mapped from sysfs, as a memslot.  L1's
 * KVM maps it as any other memory.  The L1 gfns behind it have no memslot in
 * L0, so each access of L2 is emulated there and reaches L0's device model.
 *
 *   kpop_bar_test /sys/bus/pci/devices/.../resource0
 *
 * The device is QEMU's "edu": 0x00 is an identification, what is written to
 * 0x04 reads inverted, 0x08 is a factorial.
 */
#include <fcntl.h>
#include <sys/mman.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#define BAR_SLOT	10
#define BAR_GPA		0xc0000000ULL
#define BAR_SIZE	(1UL << 20)

#define EDU_ID		0x00
#define EDU_INVERT	0x04
#define EDU_FACTORIAL	0x08
#define EDU_STATUS	0x20
#define EDU_COMPUTING	0x01

static u32 l2_read(u32 reg)
{
	return *(volatile u32 *)(BAR_GPA + reg);
}

static void l2_write(u32 reg, u32 val)
{
	*(volatile u32 *)(BAR_GPA + reg) = val;
}

static void l2_code(void)
{
	u32 i;

	GUEST_SYNC(l2_read(EDU_ID));
	for (i = 0; i < 32; i++) {
		l2_write(EDU_INVERT, 1u << i);
		GUEST_ASSERT_EQ(l2_read(EDU_INVERT), ~(1u << i));
	}
	/* The instruction of another kind: read, change, write. */
	l2_write(EDU_INVERT, 0x0f0f0f0f);
	asm volatile("xorl %0, (%1)" : : "r"(0xffffffff), "r"(BAR_GPA + EDU_INVERT) : "memory");
	GUEST_ASSERT_EQ(l2_read(EDU_INVERT), ~0x0f0f0f0f);

	l2_write(EDU_FACTORIAL, 5);
	while (l2_read(EDU_STATUS) & EDU_COMPUTING)
		;
	GUEST_SYNC(l2_read(EDU_FACTORIAL));
	GUEST_DONE();
}

static u64 run(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	vcpu_run(vcpu);
	switch (get_ucall(vcpu, &uc)) {
	case UCALL_SYNC:
		return uc.args[1];
	case UCALL_DONE:
		return 0;
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(uc);
	default:
		TEST_FAIL("exit %u of L2", vcpu->run->exit_reason);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	volatile u32 *bar;
	u64 val;
	int fd;

	if (argc != 2) {
		fprintf(stderr, "usage: kpop_bar_test /sys/bus/pci/devices/.../resource0\n");
		return 2;
	}
	fd = open(argv[1], O_RDWR | O_SYNC);
	TEST_ASSERT(fd >= 0, "open %s", argv[1]);
	bar = mmap(NULL, BAR_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	TEST_ASSERT(bar != MAP_FAILED, "mmap of %s", argv[1]);

	vm = vm_create_with_one_vcpu(&vcpu, l2_code);
	vm_set_user_memory_region(vm, BAR_SLOT, 0, BAR_GPA, BAR_SIZE, (void *)bar);
	virt_map(vm, BAR_GPA, BAR_GPA, BAR_SIZE / vm->page_size);

	val = run(vcpu);
	TEST_ASSERT_EQ(val, bar[EDU_ID / 4]);
	TEST_ASSERT((val & 0xff) == 0xed, "L2 reads 0x%lx, that is no edu", val);
	printf("ok - L2 and L1 read the same identification, 0x%lx\n", val);

	TEST_ASSERT_EQ(run(vcpu), 120);
	TEST_ASSERT_EQ(bar[EDU_INVERT / 4], ~0x0f0f0f0fu);
	printf("ok - L2's writes reached the device: 32 bits inverted, and a factorial\n");
	TEST_ASSERT_EQ(run(vcpu), 0);
	kvm_vm_free(vm);
	return 0;
}
