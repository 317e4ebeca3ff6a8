/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KPOP_TRACK_MOD_H
#define KPOP_TRACK_MOD_H

/* What kpop_track_mod.c and kpop_write_track_test.c say to each other by /dev/kpop_track. */

#include <linux/ioctl.h>
#include <linux/types.h>

#define KPOP_TRACK_DEV	"/dev/kpop_track"

struct kpop_track_page {
	__s32 vm_fd;
	__u32 reserved;
	__u64 gfn;
};

/* The last write to that page, and how many there were. */
struct kpop_track_seen {
	__u64 writes;
	__u64 gpa;
	__u32 bytes;
	__u32 reserved;
	__u8 data[8];
};

#define KPOP_TRACK_ADD		_IOW('k', 1, struct kpop_track_page)
#define KPOP_TRACK_REMOVE	_IO('k', 2)
#define KPOP_TRACK_SEEN		_IOR('k', 3, struct kpop_track_seen)

#endif /* KPOP_TRACK_MOD_H */
