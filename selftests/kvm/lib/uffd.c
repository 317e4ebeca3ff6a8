// SPDX-License-Identifier: GPL-2.0
/* A page behind a userfaultfd: who touches it waits, L0 too, until it is let go. */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "kpop_test.h"

/* What the page held is gone. */
int uffd_catch(volatile u64 *page)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { .start = (u64)page, .len = KST_PAGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	TEST_ASSERT(uffd >= 0, "userfaultfd: %s", strerror(errno));
	TEST_ASSERT(!ioctl(uffd, UFFDIO_API, &api), "UFFDIO_API");
	TEST_ASSERT(!madvise((void *)reg.range.start, KST_PAGE, MADV_DONTNEED), "madvise");
	TEST_ASSERT(!ioctl(uffd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
	return uffd;
}

/* Somebody waits for it; said once. */
bool uffd_caught(int uffd, volatile u64 *page)
{
	struct uffd_msg msg;

	return read(uffd, &msg, sizeof(msg)) == sizeof(msg) &&
	       msg.event == UFFD_EVENT_PAGEFAULT &&
	       msg.arg.pagefault.address >> 12 == (u64)page >> 12;
}

/* With a page of zeroes. */
void uffd_let_go(int uffd, volatile u64 *page)
{
	struct uffdio_zeropage zero = {
		.range = { .start = (u64)page, .len = KST_PAGE },
	};

	TEST_ASSERT(!ioctl(uffd, UFFDIO_ZEROPAGE, &zero), "UFFDIO_ZEROPAGE: %s",
		    strerror(errno));
}
