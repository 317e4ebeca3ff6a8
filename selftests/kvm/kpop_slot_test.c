// SPDX-License-Identifier: GPL-2.0
/*
 * This one runs in L1, as an ordinary VMM, and does with memslots what no test of
 * the kernel's does, whatever pages L2.  A slot whose writes are logged moves:
 * what L2 wrote at the old place, and was not asked for yet, is in the log of the
 * new one.  A read-only slot: L2 reads what is there now, its writes are MMIO.  A
 * slot goes while L2 reads it, of shared memory and of private (guest_memfd): L2
 * reads it no more.
 */
#include <pthread.h>
#include <linux/bitmap.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "lib/kpop_test.h"

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

/* ---- deleted ---- */

#define DELETES		20
#define WAIT_MS		60000UL		/* an L2 that goes on would hang its test */

static u64 reads;

static void l2_reads_on(void)
{
	for (;;) {
		*(volatile u64 *)FROM;
		WRITE_ONCE(reads, reads + 1);
	}
}

struct reader {
	struct kvm_vcpu *vcpu;
	volatile bool out;
};

static void *run_reader(void *arg)
{
	struct reader *r = arg;

	_vcpu_run(r->vcpu);
	r->out = true;
	return NULL;
}

static void test_delete(unsigned long type, u32 flags, u32 reason)
{
	struct vm_shape shape = { .mode = VM_MODE_DEFAULT, .type = type };
	const char *kind = flags ? "private" : "shared";
	struct reader r = {};
	struct kvm_regs regs;
	volatile u64 *count;
	pthread_t thread;
	struct kvm_vm *vm;
	u64 was;
	int i;

	vm = vm_create_shape_with_one_vcpu(shape, &r.vcpu, l2_reads_on);
	virt_map(vm, FROM, FROM, PAGES);
	count = addr_gva2hva(vm, (vm_vaddr_t)&reads);
	/*
	 * No interrupt is for L2.  But Bochs takes none at all from a VMX guest that
	 * was entered with IF clear and does not exit by itself.
	 */
	vcpu_regs_get(r.vcpu, &regs);
	regs.rflags |= BIT(9);
	vcpu_regs_set(r.vcpu, &regs);
	for (i = 0; i < DELETES; i++) {
		vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, FROM, SLOT, PAGES, flags);
		if (flags)
			vm_mem_set_private(vm, FROM, PAGES * 4096);
		r.out = false;
		was = *count;
		pthread_create(&thread, NULL, run_reader, &r);
		TEST_ASSERT(kst_wait(*count > was + 1000 || r.out, WAIT_MS), "%s, round %d: L2 does not read", kind, i);
		TEST_ASSERT(!r.out, "%s, round %d: exit %u of L2", kind, i, r.vcpu->run->exit_reason);
		vm_mem_region_delete(vm, SLOT);
		was = *count;
		TEST_ASSERT(kst_wait(r.out, WAIT_MS), "%s, round %d: L2 has read what is gone %lu times",
			    kind, i, *count - was);
		pthread_join(thread, NULL);
		TEST_ASSERT_EQ(r.vcpu->run->exit_reason, reason);
		TEST_ASSERT_EQ(flags ? r.vcpu->run->memory_fault.gpa : r.vcpu->run->mmio.phys_addr,
			       FROM);
	}
	printf("ok - a memslot (%s memory) deleted %d times while L2 read it\n", kind, i);
	kvm_vm_free(vm);
}

int main(int argc, char **argv)
{
	test_move();
	test_read_only();
	test_delete(KVM_X86_DEFAULT_VM, 0, KVM_EXIT_MMIO);
	if (kvm_check_cap(KVM_CAP_VM_TYPES) & BIT(KVM_X86_SW_PROTECTED_VM))
		test_delete(KVM_X86_SW_PROTECTED_VM, KVM_MEM_GUEST_MEMFD, KVM_EXIT_MEMORY_FAULT);
	else
		printf("# KVM has no VMs of the software-protected type\n");
	return 0;
}
