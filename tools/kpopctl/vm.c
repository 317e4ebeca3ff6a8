// SPDX-License-Identifier: GPL-2.0
/*
 * Finding VMs: a VM is a descriptor "anon_inode:kvm-vm" of some process.  We
 * take a copy of it with pidfd_getfd() and ask KVM for the VM's id; a process
 * may hold one VM several times, and several VMs.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kpopctl.h"

static int pidfd_open(pid_t pid)
{
	return syscall(SYS_pidfd_open, pid, 0);
}

static int pidfd_getfd(int pidfd, int fd)
{
	return syscall(SYS_pidfd_getfd, pidfd, fd, 0);
}

void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 10 * 1000 * 1000 }, NULL);
}

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

static bool is_vm_link(int dirfd, const char *leaf)
{
	char target[64];
	ssize_t len = readlinkat(dirfd, leaf, target, sizeof(target) - 1);

	if (len < 0)
		return false;
	target[len] = 0;
	return !strcmp(target, "anon_inode:kvm-vm");
}

static bool is_vm_fd(int fd)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return is_vm_link(AT_FDCWD, path);
}

/* Add the VM behind @vm_fd, which it takes over, unless it is there already. */
static int add_vm(struct vm_set *set, pid_t pid, int fd, int vm_fd)
{
	struct kvm_kpop_info info;
	struct vm *vms, *vm;
	int err = kpop_info(vm_fd, &info);
	bool no_kpop = err == -EOPNOTSUPP;

	if (no_kpop)
		err = 0;
	/* Without KPOP there is no id; such a process is shown once. */
	for (size_t i = 0; !err && i < set->nr; i++)
		if (set->vms[i].info.vm_id == info.vm_id &&
		    (!no_kpop || set->vms[i].pid == pid))
			err = -EEXIST;
	if (!err) {
		vms = reallocarray(set->vms, set->nr + 1, sizeof(*vms));
		if (vms)
			set->vms = vms;
		else
			err = -ENOMEM;
	}
	if (err) {
		close(vm_fd);
		return err == -EEXIST ? 0 : err;
	}

	vm = &set->vms[set->nr++];
	*vm = (struct vm){ .pid = pid, .fd = fd, .vm_fd = vm_fd, .no_kpop = no_kpop,
		.info = info };
	process_name(pid, vm->name, sizeof(vm->name));
	return 0;
}

/*
 * Add the VMs of one process, or the one behind its descriptor @only_fd.
 * Returns 0 or -errno; a descriptor that vanished meanwhile is no error.
 */
static int add_process(struct vm_set *set, pid_t pid, int only_fd)
{
	struct dirent *entry;
	char path[40];
	int pidfd, err = 0;
	DIR *dir;

	/* First the pidfd: after it the number cannot change its owner. */
	pidfd = pidfd_open(pid);
	if (pidfd < 0)
		return -errno;
	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	if (!dir) {
		err = -errno;
		close(pidfd);
		return err;
	}

	while (!err && (errno = 0, entry = readdir(dir))) {
		int fd = atoi(entry->d_name), vm_fd;

		if (!isdigit((unsigned char)entry->d_name[0]) ||
		    (only_fd >= 0 && fd != only_fd) || !is_vm_link(dirfd(dir), entry->d_name))
			continue;
		err = kpop_open();
		if (err)
			break;
		vm_fd = pidfd_getfd(pidfd, fd);
		if (vm_fd < 0)
			err = errno == EBADF ? 0 : -errno;
		else if (!is_vm_fd(vm_fd))
			close(vm_fd);
		else
			err = add_vm(set, pid, fd, vm_fd);
	}
	if (!entry && errno)
		err = -errno;
	closedir(dir);
	close(pidfd);
	return err;
}

void vm_set_free(struct vm_set *set)
{
	for (size_t i = 0; i < set->nr; i++)
		close(set->vms[i].vm_fd);
	free(set->vms);
	*set = (struct vm_set){};
}

/* Add the VMs of all processes, or of those that QEMU calls @name. */
static int add_all(struct vm_set *set, const char *name, int only_fd, unsigned int *nr_named)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	int err;

	if (!dir)
		return advise(fail(KIND_INTERNAL, "cannot look for VMs: /proc: %m"),
			      "mount proc on /proc");
	while ((entry = readdir(dir))) {
		char found[sizeof(((struct vm *)0)->name)];
		pid_t pid = atoi(entry->d_name);

		if (pid <= 0 || pid == getpid())
			continue;
		if (name) {
			if (!process_name(pid, found, sizeof(found)) || strcmp(found, name))
				continue;
			++*nr_named;
		}
		err = add_process(set, pid, only_fd);
		if (err > 0) {
			closedir(dir);
			return err;
		}
		if (err == -EACCES || err == -EPERM)
			set->hidden++;
	}
	closedir(dir);
	return 0;
}

int vm_find_all(struct vm_set *set)
{
	int kind = kpop_open();

	return kind ? kind : add_all(set, NULL, -1, NULL);
}

static int find_by_pid(struct vm_set *set, const struct args *args)
{
	int err = add_process(set, args->pid, args->fd);
	char comm[64];

	if (err > 0)
		return err;
	if (!set->nr && process_is_dead(args->pid))
		return advise(fail(KIND_DEFUNCT, "cannot use the VM of process %d: the process is dead",
				   args->pid), "run kpopctl detach --defunct to clean up");
	if (err == -ESRCH || err == -ENOENT || err == -EINVAL)
		return advise(fail(KIND_NO_VM, "cannot find the VM of process %d: no such process",
				   args->pid), "kpopctl list shows every VM");
	if (err == -EACCES || err == -EPERM)
		return advise(fail(KIND_RIGHTS, "cannot look into process %d: %s", args->pid,
				   strerror(-err)), "run as root");
	if (err)
		return advise(fail(KIND_INTERNAL, "cannot take the VM of process %d: %s",
				   args->pid, strerror(-err)), "see dmesg on the host");
	if (set->nr)
		return 0;

	/* Without KPOP the reason is not that this process runs no VM. */
	err = kpop_open();
	if (err)
		return err;
	process_name(args->pid, comm, sizeof(comm));
	if (args->fd >= 0)
		fail(KIND_NO_VM, "cannot find a VM behind descriptor %d of process %d (%s)",
		     args->fd, args->pid, comm);
	else
		fail(KIND_NO_VM, "cannot find a VM of process %d (%s): it has none", args->pid,
		     comm);
	return advise(KIND_NO_VM, "kpopctl list shows every VM");
}

static int find_by_name(struct vm_set *set, const struct args *args)
{
	unsigned int nr_named = 0;
	int kind = add_all(set, args->name, args->fd, &nr_named);

	if (kind || set->nr)
		return kind;
	if (set->hidden)
		return advise(fail(KIND_RIGHTS, "cannot look into the process of VM '%s'",
				   args->name), "run as root");
	if (nr_named) {
		kind = kpop_open();
		if (kind)
			return kind;
	}
	fail(KIND_NO_VM, "cannot find VM '%s': %s", args->name, nr_named ?
	     "the process of that name has none" : "no process runs with that -name");
	return advise(KIND_NO_VM, "kpopctl list shows every VM");
}

static int find_by_id(struct vm_set *set, const struct args *args, bool dead_too,
		      struct vm *dead)
{
	int kind = vm_find_all(set);

	if (kind)
		return kind;
	for (size_t i = 0; i < set->nr; i++) {
		struct vm keep = set->vms[i];

		if (keep.no_kpop || keep.info.vm_id != args->vm_id)
			continue;
		set->vms[i] = set->vms[--set->nr];
		vm_set_free(set);
		set->vms = malloc(sizeof(keep));
		if (!set->vms)
			return fail(KIND_INTERNAL, "cannot find VM %llu: out of memory",
				    (unsigned long long)args->vm_id);
		set->vms[0] = keep;
		set->nr = 1;
		return 0;
	}
	if (set->hidden) {
		fail(KIND_RIGHTS, "cannot find VM %llu in the processes that I may look into, %u are hidden",
		     (unsigned long long)args->vm_id, set->hidden);
		return advise(KIND_RIGHTS, "run as root");
	}
	vm_set_free(set);
	if (!pin_exists(args->vm_id, ""))
		return advise(fail(KIND_NO_VM, "cannot find VM %llu: no such VM",
				   (unsigned long long)args->vm_id),
			      "kpopctl list shows every VM");
	if (!dead_too)
		return advise(fail(KIND_DEFUNCT, "cannot use VM %llu: it is dead, its policy is still pinned",
				   (unsigned long long)args->vm_id),
			      "run kpopctl detach --vm-id %llu",
			      (unsigned long long)args->vm_id);
	*dead = (struct vm){ .fd = -1, .vm_fd = -1, .info.vm_id = args->vm_id };
	return 0;
}

/*
 * Find the one VM that @args mean.  With @dead_too a dead VM whose pins are
 * left is found too; its vm_fd is -1.
 */
int vm_find(const struct args *args, bool dead_too, struct vm *vm)
{
	struct vm_set set = {};
	int kind;

	if (!!args->pid + !!args->name + args->by_id != 1) {
		fail(KIND_USAGE, "cannot tell which VM is meant");
		return advise(KIND_USAGE, "give one of --pid, --name, --vm-id");
	}

	if (args->pid)
		kind = find_by_pid(&set, args);
	else if (args->name)
		kind = find_by_name(&set, args);
	else
		kind = find_by_id(&set, args, dead_too, vm);

	if (!kind && set.nr > 1) {
		char ids[160] = "";

		for (size_t i = 0, n = 0; i < set.nr && n < sizeof(ids) - 40; i++)
			n += snprintf(ids + n, sizeof(ids) - n, "%s%llu (pid %d fd %d)", i ? ", " : "",
				      (unsigned long long)set.vms[i].info.vm_id, set.vms[i].pid,
				      set.vms[i].fd);
		kind = fail(KIND_AMBIGUOUS, "cannot choose one of %zu VMs: %s", set.nr, ids);
		advise(kind, "give --vm-id, or --pid with --fd");
	}
	if (!kind && set.nr && set.vms[0].no_kpop) {
		kind = fail(KIND_NO_KPOP, "cannot use the VM of process %d (%s): KVM has no KPOP for it",
			    set.vms[0].pid, set.vms[0].name);
		advise(kind, "load kvm with kpop_host=Y and tdp_mmu=Y, and give the VM the default type");
	}
	if (!kind && set.nr) {
		*vm = set.vms[0];
		set.nr = 0;
	}
	vm_set_free(&set);
	return kind;
}

/* Has it a policy, or is one being attached: its init still runs then. */
bool vm_is_taken(const struct vm *vm)
{
	return vm->info.state == KPOP_STATE_ATTACHED || vm->info.link_id;
}

int vm_refresh(struct vm *vm)
{
	int err = kpop_info(vm->vm_fd, &vm->info);

	if (!err)
		return 0;
	return advise(fail(KIND_INTERNAL, "cannot read the state of VM %llu: %s",
			   (unsigned long long)vm->info.vm_id, strerror(-err)),
		      "see dmesg on the host");
}

void put_vm(struct json_object *o, const struct vm *vm)
{
	put_u64(o, "vm_id", vm->info.vm_id);
	if (vm->vm_fd < 0)
		return;
	put_u64(o, "pid", vm->pid);
	put_u64(o, "fd", vm->fd);
	put_str(o, "name", vm->name);
}
