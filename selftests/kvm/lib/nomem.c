// SPDX-License-Identifier: GPL-2.0
/* Allocations of L0's kernel that fail (CONFIG_FAILSLAB, the debug kernel). */
#include <fcntl.h>
#include <unistd.h>

#include "kpop_test.h"

#define FAILSLAB "/sys/kernel/debug/failslab/"
#define TIMES 1000000000LL

static bool nomem_set(const char *path, const char *what)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, what, strlen(what)) == strlen(what);

	if (fd >= 0)
		close(fd);
	return ok;
}

/* From here on @percent of the slab allocations fail of those threads that want it. */
void nomem_begin(u64 percent)
{
	char what[32];
	bool ok;

	if (access(FAILSLAB "times", W_OK))
		kst_skip("no CONFIG_FAILSLAB in L0's kernel");
	snprintf(what, sizeof(what), "%" PRIu64, percent);
	ok = nomem_set(FAILSLAB "probability", what);
	snprintf(what, sizeof(what), "%lld", TIMES);
	ok = nomem_set(FAILSLAB "times", what) && ok;
	ok = nomem_set(FAILSLAB "verbose", "0") && ok;
	ok = nomem_set(FAILSLAB "task-filter", "Y") && ok;
	/* Also of those that may sleep, which are nearly all. */
	ok = nomem_set(FAILSLAB "ignore-gfp-wait", "N") && ok;
	TEST_ASSERT(ok, "failslab does not take its settings");
}

/*
 * The calling thread wants it from here on, or no more.  Only while it runs its
 * vCPU: KVM_GET_REGS, by which a test reads what L1 prints, allocates as well.
 */
void nomem_self(bool on)
{
	static __thread int fd = -1;

	if (fd < 0)
		fd = open("/proc/thread-self/make-it-fail", O_WRONLY | O_CLOEXEC);
	TEST_ASSERT(fd >= 0 && pwrite(fd, on ? "1" : "0", 1, 0) == 1, "make-it-fail");
}

/* How many have failed. */
u64 nomem_end(void)
{
	char line[32] = {};
	int fd = open(FAILSLAB "times", O_RDONLY | O_CLOEXEC);

	TEST_ASSERT(fd >= 0 && read(fd, line, sizeof(line) - 1) > 0, "failslab's times");
	close(fd);
	nomem_set(FAILSLAB "probability", "0");
	return TIMES - atoll(line);
}
