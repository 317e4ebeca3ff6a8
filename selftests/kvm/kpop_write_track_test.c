// SPDX-License-Identifier: GPL-2.0
/*
 * This one runs in L1, as an ordinary VMM.  A module of L1's kernel
 * (selftests/module) write-tracks a page of the L2 that runs, as a driver of a
 * mediated device does: each write of L2 to it is told, with address, size and
 * data; reads, and writes to other pages, are not disturbed; when tracking ends
 * writes are direct again.
 *
 *   kpop_write_track_test
 */
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "lib/pf_taken.h"
#include "../module/kpop_track_mod.h"

#define SLOT		10
#define PAGES		1024
#define GPA		0x40000000ULL		/* on 2M, so that it may be huge */
#define TRACKED		517
#define LOOPS		2000

static u64 *l2_ptr(u64 page)
{
	return (u64 *)(GPA + page * 4096);
}

/* What is asked of L2: read LOOPS times, write LOOPS times. */
static void l2_loop(u64 page, bool write)
{
	volatile u64 *p = l2_ptr(page) + 8;
	u64 i, start = *p;

	for (i = 1; i <= LOOPS; i++) {
		if (write)
			*p = start + i;
		GUEST_ASSERT_EQ(*p, write ? start + i : start);
	}
}

static void l2_code(void)
{
	u64 i, old = 0x5000 + TRACKED, *p = l2_ptr(TRACKED);

	for (i = 0; i < PAGES; i++)
		l2_ptr(i)[0] = 0x5000 + i;
	GUEST_SYNC(1);

	/* Tracked from here on. */
	l2_loop(TRACKED, false);
	GUEST_SYNC(2);
	asm volatile("movq %1, %0" : "=m"(p[1]) : "r"(0x1122334455667788ULL));
	GUEST_SYNC(3);
	asm volatile("movl %1, %0" : "=m"(*(u32 *)&p[2]) : "r"(0xaabbccddU));
	GUEST_SYNC(4);
	asm volatile("movb %1, %0" : "=m"(*((u8 *)&p[3] + 3)) : "q"((u8)0x5a));
	GUEST_SYNC(5);
	asm volatile("lock cmpxchgq %2, %0" : "+m"(p[0]), "+a"(old) : "r"(0xabcdULL));
	GUEST_SYNC(6);
	asm volatile("addq $5, %0" : "+m"(p[0]));
	GUEST_SYNC(7);
	l2_loop(TRACKED - 1, true);
	GUEST_SYNC(8);

	/* No longer. */
	l2_loop(TRACKED, true);
	for (i = 0; i < PAGES; i++)
		GUEST_ASSERT_EQ(l2_ptr(i)[0], i == TRACKED ? 0xabcd + 5 : 0x5000 + i);
	GUEST_DONE();
}

static void run_to(struct kvm_vcpu *vcpu, u64 step)
{
	struct ucall uc;
	u64 got;

	vcpu_run(vcpu);
	switch (get_ucall(vcpu, &uc)) {
	case UCALL_SYNC:
		got = uc.args[1];
		break;
	case UCALL_DONE:
		got = 0;
		break;
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(uc);
	default:
		TEST_FAIL("exit %u of L2", vcpu->run->exit_reason);
	}
	TEST_ASSERT_EQ(got, step);
}

static struct kpop_track_seen seen_by(int dev)
{
	struct kpop_track_seen seen;

	TEST_ASSERT(!ioctl(dev, KPOP_TRACK_SEEN, &seen), "KPOP_TRACK_SEEN");
	return seen;
}

static void expect_write(int dev, u64 writes, u64 offset, u32 bytes, u64 data)
{
	struct kpop_track_seen seen = seen_by(dev);
	u64 got = 0;

	memcpy(&got, seen.data, bytes);
	TEST_ASSERT(seen.writes == writes && seen.gpa == GPA + TRACKED * 4096 + offset &&
		    seen.bytes == bytes && got == data,
		    "write %llu: 0x%llx, %u bytes, 0x%lx; expected %lu: +0x%lx, %u, 0x%lx",
		    seen.writes, seen.gpa, seen.bytes, got, writes, offset, bytes, data);
}

int main(void)
{
	struct kpop_track_page page = { .gfn = GPA / 4096 + TRACKED };
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	u64 before, *hva;
	int dev;

	dev = open(KPOP_TRACK_DEV, O_RDWR);
	TEST_ASSERT(dev >= 0, "open %s", KPOP_TRACK_DEV);

	vm = vm_create_with_one_vcpu(&vcpu, l2_code);
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS_THP, GPA, SLOT, PAGES, 0);
	virt_map(vm, GPA, GPA, PAGES);
	hva = addr_gpa2hva(vm, GPA + TRACKED * 4096);
	run_to(vcpu, 1);
	TEST_ASSERT_EQ(hva[0], 0x5000 + TRACKED);

	page.vm_fd = dev;
	TEST_ASSERT(ioctl(dev, KPOP_TRACK_ADD, &page) && errno == EINVAL, "a file that is no VM");
	page.vm_fd = vm->fd;
	TEST_ASSERT(!ioctl(dev, KPOP_TRACK_ADD, &page), "KPOP_TRACK_ADD, errno %d", errno);
	before = kst_pf_taken(vm);
	run_to(vcpu, 2);
	TEST_ASSERT(kst_pf_taken(vm) - before <= 2 && !seen_by(dev).writes,
		    "%d reads made %lu faults", LOOPS, kst_pf_taken(vm) - before);
	printf("ok - %d reads of a tracked page: %lu faults, nothing told\n", LOOPS,
	       kst_pf_taken(vm) - before);

	run_to(vcpu, 3);
	expect_write(dev, 1, 8, 8, 0x1122334455667788ULL);
	run_to(vcpu, 4);
	expect_write(dev, 2, 16, 4, 0xaabbccdd);
	run_to(vcpu, 5);
	expect_write(dev, 3, 27, 1, 0x5a);
	run_to(vcpu, 6);
	expect_write(dev, 4, 0, 8, 0xabcd);
	run_to(vcpu, 7);
	expect_write(dev, 5, 0, 8, 0xabcd + 5);
	TEST_ASSERT(hva[0] == 0xabcd + 5 && hva[1] == 0x1122334455667788ULL &&
		    hva[2] == 0xaabbccdd && hva[3] == 0x5a000000, "L2's memory is wrong");
	printf("ok - 5 writes of 1 to 8 bytes, one locked: address, size and data are told\n");

	before = kst_pf_taken(vm);
	run_to(vcpu, 8);
	TEST_ASSERT(kst_pf_taken(vm) - before <= 2, "%d writes to the next page: %lu faults", LOOPS,
		    kst_pf_taken(vm) - before);
	TEST_ASSERT_EQ(seen_by(dev).writes, 5);
	printf("ok - %d writes to the page before it: %lu faults, nothing told\n", LOOPS,
	       kst_pf_taken(vm) - before);

	TEST_ASSERT(!ioctl(dev, KPOP_TRACK_REMOVE), "KPOP_TRACK_REMOVE");
	before = kst_pf_taken(vm);
	run_to(vcpu, 0);
	TEST_ASSERT(kst_pf_taken(vm) - before <= 2, "%d writes, not tracked: %lu faults", LOOPS,
		    kst_pf_taken(vm) - before);
	TEST_ASSERT_EQ(seen_by(dev).writes, 5);
	TEST_ASSERT_EQ(hva[8], LOOPS);
	printf("ok - %d writes after that: %lu faults, nothing told, the data is right\n", LOOPS,
	       kst_pf_taken(vm) - before);
	/* The VM may go first: the module holds it. */
	TEST_ASSERT(!ioctl(dev, KPOP_TRACK_ADD, &page), "KPOP_TRACK_ADD again");
	kvm_vm_free(vm);
	close(dev);
	return 0;
}
