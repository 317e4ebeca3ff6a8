// SPDX-License-Identifier: GPL-2.0
/*
 * This one runs in L1, as an ordinary VMM that uses the dirty ring.  What L2
 * writes is in the ring when KVM_RUN has returned, exactly that, whatever pages
 * it; how many faults of L2 that took in L1 is what differs.
 *
 *   entries=N   of the ring (1024)
 *   pages=N     of L2's memory (2048)
 *   faults=N    as many at most for a write of every page, or fail
 *   early=1     half of the memory is logged before the VM has a ring, and has a bitmap therefore; its
 *               writes go to the ring all the same
 */
#include <fcntl.h>
#include <unistd.h>
#include <linux/bitmap.h>
#include <linux/bitops.h>
#include <linux/atomic.h>
#include <asm/barrier.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "lib/pf_taken.h"

#define SLOT		10
#define EARLY_SLOT	11
#define MAX_PAGES	2048UL
#define GPA		0x40000000ULL		/* on 2M, so that it may be huge */

/* What L2 is told to write: every so many pages. */
static u64 pages = MAX_PAGES, stride = 1, value;
static bool quiet;

static void l2_code(void)
{
	u64 i;

	for (;;) {
		for (i = 0; i < READ_ONCE(pages) && !READ_ONCE(quiet); i += READ_ONCE(stride))
			*(volatile u64 *)(GPA + i * 4096) = READ_ONCE(value) + i;
		GUEST_SYNC(1);
	}
}

static unsigned long seen[BITS_TO_LONGS(MAX_PAGES)];
/* SLOT has the first @ringed pages, EARLY_SLOT the others. */
static u64 entries = 1024, next, full, ringed;
static u64 early;

static void collect(struct kvm_vcpu *vcpu)
{
	struct kvm_dirty_gfn *ring = vcpu_map_dirty_ring(vcpu), *cur;
	u64 n = 0, page;

	for (;; n++) {
		cur = &ring[next % entries];
		if (smp_load_acquire(&cur->flags) != KVM_DIRTY_GFN_F_DIRTY)
			break;
		page = cur->offset + (cur->slot == EARLY_SLOT ? ringed : 0);
		TEST_ASSERT((cur->slot == SLOT && page < ringed) ||
			    (cur->slot == EARLY_SLOT && page < pages), "entry %u, 0x%llx",
			    cur->slot, cur->offset);
		__set_bit(page, seen);
		smp_store_release(&cur->flags, KVM_DIRTY_GFN_F_RESET);
		next++;
	}
	TEST_ASSERT_EQ(kvm_vm_reset_dirty_ring(vcpu->vm), n);
}

/* L2 writes every @every pages (0: none).  Returns the faults that took. */
static u64 round_of(struct kvm_vcpu *vcpu, u64 every, bool logged)
{
	u64 i, n = 0, before = kst_pf_taken(vcpu->vm);

	stride = every;
	quiet = !every;
	value += 0x10000;
	sync_global_to_guest(vcpu->vm, stride);
	sync_global_to_guest(vcpu->vm, quiet);
	sync_global_to_guest(vcpu->vm, value);
	bitmap_zero(seen, MAX_PAGES);
	for (vcpu_run(vcpu); vcpu->run->exit_reason == KVM_EXIT_DIRTY_RING_FULL; vcpu_run(vcpu)) {
		full++;
		collect(vcpu);
	}
	TEST_ASSERT(get_ucall(vcpu, NULL) == UCALL_SYNC, "exit %u of L2", vcpu->run->exit_reason);
	collect(vcpu);
	for (i = 0; i < pages; i++) {
		u64 *mem = addr_gpa2hva(vcpu->vm, GPA + i * 4096);
		bool written = every && !(i % every);

		TEST_ASSERT(test_bit(i, seen) == (logged && written), "page %lu: %s in the ring", i,
			    written ? "not" : "wrongly");
		TEST_ASSERT(!written || *mem == value + i, "page %lu: wrong data", i);
		n += written;
	}
	printf("# %lu pages written, %slogged: %lu faults in L1\n", n, logged ? "" : "not ",
	       kst_pf_taken(vcpu->vm) - before);
	return kst_pf_taken(vcpu->vm) - before;
}

static void set_log(struct kvm_vm *vm, bool on)
{
	vm_mem_region_set_flags(vm, SLOT, on ? KVM_MEM_LOG_DIRTY_PAGES : 0);
}

int main(int argc, char **argv)
{
	u64 most = ~0ULL, got;
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	int i;

	for (i = 1; i < argc; i++)
		if (sscanf(argv[i], "entries=%lu", &entries) != 1 &&
		    sscanf(argv[i], "pages=%lu", &pages) != 1 &&
		    sscanf(argv[i], "faults=%lu", &most) != 1 &&
		    sscanf(argv[i], "early=%lu", &early) != 1)
			return 2;
	TEST_ASSERT(pages && pages <= MAX_PAGES, "1 to %lu pages", MAX_PAGES);

	vm = vm_create(1);
	ringed = early ? pages / 2 : pages;
	if (early)
		vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS_THP, GPA + ringed * 4096,
					    EARLY_SLOT, pages - ringed, KVM_MEM_LOG_DIRTY_PAGES);
	vm_enable_dirty_ring(vm, entries * sizeof(struct kvm_dirty_gfn));
	vcpu = vm_vcpu_add(vm, 0, l2_code);
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS_THP, GPA, SLOT, ringed, 0);
	virt_map(vm, GPA, GPA, pages);
	sync_global_to_guest(vm, pages);

	if (!early)
		round_of(vcpu, 1, false);
	set_log(vm, true);
	got = round_of(vcpu, 1, true);
	TEST_ASSERT(full || pages < entries, "the ring was never full");
	got = max(got, round_of(vcpu, 1, true));
	TEST_ASSERT(got <= most, "%lu faults, not %lu at most", got, most);
	round_of(vcpu, 3, true);
	round_of(vcpu, 0, true);
	if (!early) {
		set_log(vm, false);
		round_of(vcpu, 1, false);
		set_log(vm, true);
	}
	round_of(vcpu, 64, true);
	printf("ok - what L2 wrote is in the ring, no more and no less; %lu times full, %lu faults at most\n",
	       full, got);
	kvm_vm_free(vm);
	return 0;
}
