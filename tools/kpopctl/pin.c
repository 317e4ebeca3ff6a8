// SPDX-License-Identifier: GPL-2.0
/*
 * Pins: a directory for each VM below /sys/fs/bpf/kpop, named by the VM's id,
 * with the policy's link and the maps that it shares with its successor.  Ids
 * are not reused while the host is up, and bpffs does not outlive it either,
 * so a directory never belongs to another VM than the one that it names.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "kpopctl.h"

#define BPFFS		"/sys/fs/bpf"
#define PIN_ROOT	BPFFS "/kpop"

void pin_dir(char *buf, size_t size, uint64_t vm_id)
{
	snprintf(buf, size, PIN_ROOT "/%llu", (unsigned long long)vm_id);
}

void pin_path(char *buf, size_t size, uint64_t vm_id, const char *leaf)
{
	snprintf(buf, size, PIN_ROOT "/%llu/%s", (unsigned long long)vm_id, leaf);
}

static int pin_failed(const char *what, const char *path)
{
	if (errno == EACCES || errno == EPERM)
		return advise(fail(KIND_RIGHTS, "cannot %s %s: %m", what, path), "run as root");
	return advise(fail(KIND_INTERNAL, "cannot %s %s: %m", what, path),
		      "check that the kernel has CONFIG_BPF_SYSCALL and sysfs on /sys");
}

static bool is_bpffs(void)
{
	struct statfs fs;

	return !statfs(BPFFS, &fs) && fs.f_type == BPF_FS_MAGIC;
}

static int make_dir(const char *path)
{
	return mkdir(path, 0700) && errno != EEXIST ? pin_failed("make the directory", path) : 0;
}

/*
 * Lock a VM's directory, so that an attach and a detach do not undo each
 * other's pins.  Returns with *@lock -1 if there is no directory to lock.
 */
int pin_lock(uint64_t vm_id, unsigned int timeout, int *lock)
{
	uint64_t end = now_ms() + timeout * 1000ULL;
	struct stat by_fd, by_name;
	char path[PATH_MAX];

	pin_dir(path, sizeof(path), vm_id);
	for (;;) {
		*lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (*lock < 0)
			return errno == ENOENT ? 0 : pin_failed("open", path);

		while (flock(*lock, LOCK_EX | LOCK_NB)) {
			if (errno != EWOULDBLOCK)
				return pin_failed("lock", path);
			if (now_ms() > end)
				return advise(fail(KIND_CONFLICT,
						   "cannot lock %s: another kpopctl works on VM %llu",
						   path, (unsigned long long)vm_id),
					      "wait for it, or try a longer --timeout");
			nap();
		}
		/* The one before us may have removed what we locked. */
		if (!fstat(*lock, &by_fd) && !stat(path, &by_name) &&
		    by_fd.st_ino == by_name.st_ino)
			return 0;
		close(*lock);
	}
}

/* Mount bpffs if need be, make and lock the VM's directory. */
int pin_prepare(uint64_t vm_id, unsigned int timeout, int *lock)
{
	char path[PATH_MAX];
	int kind;

	*lock = -1;
	if (!is_bpffs() && mount("bpf", BPFFS, "bpf", 0, "mode=0700"))
		return pin_failed("mount bpffs on", BPFFS);
	kind = make_dir(PIN_ROOT);
	pin_dir(path, sizeof(path), vm_id);
	while (!kind && *lock < 0) {
		kind = make_dir(path);
		if (!kind)
			kind = pin_lock(vm_id, timeout, lock);
	}
	return kind;
}

/* Is @leaf pinned for this VM; with "", is there a directory at all. */
bool pin_exists(uint64_t vm_id, const char *leaf)
{
	char path[PATH_MAX];

	pin_path(path, sizeof(path), vm_id, leaf);
	return !access(path, F_OK);
}

bool pin_empty(uint64_t vm_id)
{
	char path[PATH_MAX];
	struct dirent *entry;
	bool empty = true;
	DIR *dir;

	pin_dir(path, sizeof(path), vm_id);
	dir = opendir(path);
	while (dir && empty && (entry = readdir(dir)))
		empty = entry->d_name[0] == '.';
	if (dir)
		closedir(dir);
	return empty;
}

int link_read(int fd, struct link_state *link)
{
	struct bpf_link_info info = {};
	__u32 len = sizeof(info);
	int err = bpf_link_get_info_by_fd(fd, &info, &len);

	if (err)
		return err;
	if (info.type != BPF_LINK_TYPE_STRUCT_OPS)
		return -EINVAL;
	link->fd = fd;
	link->link_id = info.id;
	link->map_id = info.struct_ops.map_id;
	return 0;
}

/* Open the VM's pinned link: 0, -ENOENT if there is none, or -errno. */
int pin_open_link(uint64_t vm_id, struct link_state *link)
{
	char path[PATH_MAX];
	int fd, err;

	*link = (struct link_state){ .fd = -1 };
	pin_path(path, sizeof(path), vm_id, PIN_LINK);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return -errno;
	err = link_read(fd, link);
	if (err)
		close(fd);
	return err;
}

void pin_remove_link(uint64_t vm_id)
{
	char path[PATH_MAX];

	pin_path(path, sizeof(path), vm_id, PIN_LINK);
	unlink(path);
}

/* Remove everything pinned for a VM; returns how many pins there were. */
unsigned int pin_remove(uint64_t vm_id)
{
	char path[PATH_MAX];
	struct dirent *entry;
	unsigned int nr = 0;
	DIR *dir;

	pin_dir(path, sizeof(path), vm_id);
	dir = opendir(path);
	if (!dir)
		return 0;
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.' && !unlinkat(dirfd(dir), entry->d_name, 0))
			nr++;
	closedir(dir);
	rmdir(path);
	return nr;
}

/* The ids of all VMs that have something pinned; the caller frees *@ids. */
size_t pin_list(uint64_t **ids)
{
	DIR *dir = opendir(PIN_ROOT);
	struct dirent *entry;
	size_t nr = 0;

	*ids = NULL;
	if (!dir)
		return 0;
	while ((entry = readdir(dir))) {
		uint64_t *more;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		more = reallocarray(*ids, nr + 1, sizeof(**ids));
		if (!more)
			break;
		*ids = more;
		(*ids)[nr++] = strtoull(entry->d_name, NULL, 10);
	}
	closedir(dir);
	return nr;
}
