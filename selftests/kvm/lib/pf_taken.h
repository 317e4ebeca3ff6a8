/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KPOP_PF_TAKEN_H
#define KPOP_PF_TAKEN_H

#include <fcntl.h>
#include <unistd.h>

#include "test_util.h"
#include "kvm_util.h"

/* Page faults of L2 that L1 had to see: for tests that run in L1, without the library of raw tests. */
static inline u64 kst_pf_taken(struct kvm_vm *vm)
{
	char path[96], val[32] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/%d-%d/pf_taken", getpid(), vm->fd);
	fd = open(path, O_RDONLY);
	TEST_ASSERT(fd >= 0 && read(fd, val, sizeof(val) - 1) > 0, "read of %s", path);
	close(fd);
	return strtoull(val, NULL, 0);
}

#endif /* KPOP_PF_TAKEN_H */
