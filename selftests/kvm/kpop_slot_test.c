// SPDX-License-Identifier: GPL-2.0
/*
 * This one runs in L1, as an ordinary VMM, and does with memslots what no test of
 * the kernel's does, whatever pages L2.  A slot whose writes are logged moves:
 * what L2 wrote at the old place, and was not asked for yet, is in the log of the
 * new one.  A read-only slot: L2 reads what is there now, its writes are MMIO.
 */
#include <linux/bitmap.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#define SLOT	10
#define PAGES	1024UL
#define FROM	0x40000000ULL		/* on 2M, so that it may be huge */
#define TO	0x60000000ULL
#define ROUNDS	4

/* What L2 is told to write: every so many pages from there on. */
static u64 gpa = FROM, stride = 1, value;

static void l2_code(void)
{
	u64 i;

	for (;;) {
		for (i = 0; i < PAGES; i += READ_ONCE(stride))
			*(volatile u64 *)(READ_ONCE(gpa) + i * 4096) = READ_ONCE(value) + i;
		GUEST_SYNC(1);
	}
}

static void l2_writes(struct kvm_vcpu *vcpu, u64 at, u64 every)
{
	gpa = at;
	stride = every;
	value += 0x10000;
	sync_global_to_guest(vcpu->vm, gpa);
	sync_global_to_guest(vcpu->vm, stride);
	sync_global_to_guest(vcpu->vm, value);
	vcpu_run(vcpu);
	TEST_ASSERT(get_ucall(vcpu, NULL) == UCALL_SYNC, "exit %u of L2", vcpu->run->exit_reason);
}

/* More may be in the log than was written, less may not. */
static void check_log(struct kvm_vm *vm, u64 at, u64 every, const char *when)
{
	unsigned long bits[BITS_TO_LONGS(PAGES)];
	u64 i, *mem = addr_gpa2hva(vm, at);

	kvm_vm_get_dirty_log(vm, SLOT, bits);
	for (i = 0; i < PAGES; i += every) {
		TEST_ASSERT(test_bit(i, bits), "%s: page %lu is not in the log", when, i);
		TEST_ASSERT(mem[i * 512] == value + i, "%s: page %lu: wrong data", when, i);
	}
	printf("# %s: %lu of %lu pages written, all in the log\n", when, (PAGES + every - 1) / every,
	       PAGES);
}

static void test_move(void)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	u64 at, to;
	int i;

	vm = vm_create_with_one_vcpu(&vcpu, l2_code);
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS_THP, FROM, SLOT, PAGES, 0);
	virt_map(vm, FROM, FROM, PAGES);
	virt_map(vm, TO, TO, PAGES);

	l2_writes(vcpu, FROM, 1);
	vm_mem_region_set_flags(vm, SLOT, KVM_MEM_LOG_DIRTY_PAGES);
	for (i = 0; i < ROUNDS; i++) {
		at = i & 1 ? TO : FROM;
		to = i & 1 ? FROM : TO;
		l2_writes(vcpu, at, 1);
		check_log(vm, at, 1, "where it was");
		l2_writes(vcpu, at, 3 + i);
		vm_mem_region_move(vm, SLOT, to);
		check_log(vm, to, 3 + i, "moved");
		l2_writes(vcpu, to, 7);
		check_log(vm, to, 7, "where it is");
	}
	printf("ok - a logged memslot moved %d times, its log had all that was written\n", ROUNDS);
	kvm_vm_free(vm);
}

/* ---- read-only ---- */

#define RO_STRIDE	31

static u64 mark;

static void l2_reads_only(void)
{
	u64 i;

	for (;;) {
		for (i = 0; i < PAGES; i += RO_STRIDE) {
			volatile u64 *p = (void *)(FROM + i * 4096);

			GUEST_ASSERT_EQ(*p, READ_ONCE(mark) + i);
			*p = ~i;
			GUEST_ASSERT_EQ(*p, READ_ONCE(mark) + i);
		}
		GUEST_SYNC(1);
	}
}

/* Returns how many writes came out; each is for its page, in turn. */
static u64 read_only_round(struct kvm_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct ucall uc;
	u64 n = 0;

	for (vcpu_run(vcpu); run->exit_reason == KVM_EXIT_MMIO; vcpu_run(vcpu), n++)
		TEST_ASSERT(run->mmio.is_write && run->mmio.len == 8 &&
			    run->mmio.phys_addr == FROM + n * RO_STRIDE * 4096 &&
			    *(u64 *)run->mmio.data == ~(n * RO_STRIDE),
			    "write %lu: 0x%lx at 0x%llx", n, *(u64 *)run->mmio.data,
			    run->mmio.phys_addr);
	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT_EQ(uc.cmd, UCALL_SYNC);
	return n;
}

static void test_read_only(void)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	u64 i, n, *mem;

	vm = vm_create_with_one_vcpu(&vcpu, l2_reads_only);
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS_THP, FROM, SLOT, PAGES,
				    KVM_MEM_READONLY);
	virt_map(vm, FROM, FROM, PAGES);
	mem = addr_gpa2hva(vm, FROM);
	for (mark = 1ULL << 32; mark <= 4ULL << 32; mark += 1ULL << 32) {
		for (i = 0; i < PAGES; i++)
			mem[i * 512] = mark + i;
		sync_global_to_guest(vm, mark);
		n = read_only_round(vcpu);
		TEST_ASSERT_EQ(n, (PAGES + RO_STRIDE - 1) / RO_STRIDE);
		for (i = 0; i < PAGES; i++)
			TEST_ASSERT(mem[i * 512] == mark + i, "L2 wrote page %lu", i);
	}
	printf("ok - a read-only memslot: L2 reads it, its writes are MMIO\n");
	kvm_vm_free(vm);
}

int main(int argc, char **argv)
{
	test_move();
	test_read_only();
	return 0;
}
