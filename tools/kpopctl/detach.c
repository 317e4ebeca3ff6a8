// SPDX-License-Identifier: GPL-2.0
/*
 * detach: detach the link, remove the VM's pins, wait until KVM has taken the
 * mappings down.  It may be run again, and on a VM that died or whose policy
 * was ejected: then it only cleans up.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "kpopctl.h"

static int detach_failed(const struct vm *vm, int err)
{
	unsigned long long id = vm->info.vm_id;

	if (err == -EPERM || err == -EACCES)
		return advise(fail(KIND_RIGHTS, "cannot detach the policy of VM %llu: %s", id,
				   strerror(-err)), "run as root");
	return advise(fail(KIND_INTERNAL, "cannot detach the policy of VM %llu: %s", id,
			   strerror(-err)), "see dmesg on the host");
}

/* Detach the pinned link, and one that somebody attached without our pin. */
static int detach_links(const struct vm *vm, bool *detached)
{
	struct link_state link;
	int err = pin_open_link(vm->info.vm_id, &link);

	*detached = false;
	if (err && err != -ENOENT)
		return err;
	if (!err) {
		*detached = link.map_id;
		err = bpf_link_detach(link.fd);
		close(link.fd);
		if (err)
			return err;
	}
	if (vm->info.link_id && vm->info.link_id != link.link_id) {
		int fd = bpf_link_get_fd_by_id(vm->info.link_id);

		if (fd < 0)
			return errno == ENOENT ? 0 : -errno;
		err = bpf_link_detach(fd);
		close(fd);
		*detached |= !err;
		return err;
	}
	return 0;
}

static int wait_until_gone(struct vm *vm, unsigned int timeout)
{
	uint64_t end = now_ms() + timeout * 1000ULL;
	int kind;

	for (;;) {
		kind = vm_refresh(vm);
		if (kind || (vm->info.state == KPOP_STATE_NONE && !vm->info.link_id))
			return kind;
		if (now_ms() > end)
			break;
		nap();
	}
	kind = fail(KIND_CONFLICT, "cannot see the end of the detach of VM %llu: state %s after %u s",
		    (unsigned long long)vm->info.vm_id, state_name(vm->info.state), timeout);
	return advise(kind, "look again with kpopctl status --vm-id %llu",
		      (unsigned long long)vm->info.vm_id);
}

static int detach_vm(const struct args *args, struct vm *vm, struct json_object *out)
{
	bool detached = false;
	int kind, err, lock = -1;

	kind = pin_lock(vm->info.vm_id, args->timeout, &lock);
	if (kind)
		goto unlock;
	if (vm->vm_fd >= 0)
		kind = vm_refresh(vm);
	if (kind)
		goto unlock;

	put_vm(out, vm);
	put_bool(out, "alive", vm->vm_fd >= 0);
	put_str(out, "policy", vm->info.policy);

	err = detach_links(vm, &detached);
	if (err) {
		kind = detach_failed(vm, err);
		goto unlock;
	}
	put_bool(out, "detached", detached);
	put_u64(out, "removed_pins", pin_remove(vm->info.vm_id));
	if (vm->vm_fd >= 0)
		kind = wait_until_gone(vm, args->timeout);
unlock:
	if (lock >= 0)
		close(lock);
	return kind;
}

static int detach_defunct(const struct args *args, struct json_object *out)
{
	struct json_object *array = put_array(out, "vms");
	struct vm_set set = {};
	uint64_t *pins;
	size_t nr = pin_list(&pins);	/* first, see cmd_list() */
	int kind = vm_find_all(&set);

	if (!kind && set.hidden) {
		kind = fail(KIND_RIGHTS, "cannot tell which VMs are dead: %u processes are hidden",
			    set.hidden);
		advise(kind, "run as root");
	}
	for (size_t i = 0; !kind && i < nr; i++) {
		struct vm dead = { .fd = -1, .vm_fd = -1, .info.vm_id = pins[i] };
		bool alive = false;

		for (size_t j = 0; j < set.nr; j++)
			alive |= !set.vms[j].no_kpop && set.vms[j].info.vm_id == pins[i];
		if (!alive)
			kind = detach_vm(args, &dead, append_object(array));
	}
	vm_set_free(&set);
	free(pins);
	return kind;
}

int cmd_detach(const struct args *args, struct json_object *out)
{
	struct vm vm;
	int kind;

	if (args->defunct) {
		if (args->pid || args->name || args->by_id)
			return advise(fail(KIND_USAGE, "cannot detach one VM and all defunct ones at once"),
				      "give either a VM or --defunct");
		return detach_defunct(args, out);
	}

	kind = vm_find(args, true, &vm);
	if (kind)
		return kind;
	kind = detach_vm(args, &vm, append_object(put_array(out, "vms")));
	if (vm.vm_fd >= 0)
		close(vm.vm_fd);
	return kind;
}

void show_detach(struct json_object *out)
{
	struct json_object *array = get(out, "vms");

	if (!json_object_array_length(array))
		printf("nothing to clean up\n");
	for (size_t i = 0; i < json_object_array_length(array); i++) {
		struct json_object *o = json_object_array_get_idx(array, i);
		const char *id = get_str(o, "vm_id"), *policy = get_str(o, "policy");

		if (!get_bool(o, "alive"))
			printf("cleaned up after dead VM %s: %s pins removed\n", id,
			       get_str(o, "removed_pins"));
		else if (get_bool(o, "detached") && *policy)
			printf("detached %s from VM %s (%s, pid %s)\n", policy, id,
			       get_str(o, "name"), get_str(o, "pid"));
		else
			printf("no policy on VM %s (%s, pid %s), %s pins removed\n", id,
			       get_str(o, "name"), get_str(o, "pid"), get_str(o, "removed_pins"));
	}
}
