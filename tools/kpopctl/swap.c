// SPDX-License-Identifier: GPL-2.0
/*
 * swap: replace the map of the pinned link, by whatever process.  The link's
 * map as it was when we began is the expected one, so of two swaps at a time
 * one wins and the other is told.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "kpopctl.h"

static int no_policy(const struct vm *vm)
{
	unsigned long long id = vm->info.vm_id;

	fail(KIND_DEFUNCT, "cannot swap the policy of VM %llu: %s", id,
	     vm->info.last_ejection.count ? "it was ejected" : "none is attached");
	return advise(KIND_DEFUNCT, "run kpopctl attach --vm-id %llu; status tells of ejections", id);
}

static int was_swapped(const struct vm *vm, int link_fd, uint32_t expected)
{
	unsigned long long id = vm->info.vm_id;
	struct link_state now = {};

	link_read(link_fd, &now);
	fail(KIND_CONFLICT, "cannot swap the policy of VM %llu: expected map %u, found map %u, somebody was faster",
	     id, expected, now.map_id);
	return advise(KIND_CONFLICT, "look with kpopctl status --vm-id %llu, then swap again", id);
}

/* The pinned link, or the one that KVM names if its owner did not pin it. */
static int open_link(const struct vm *vm, struct link_state *link)
{
	unsigned long long id = vm->info.vm_id;
	int err = pin_open_link(vm->info.vm_id, link);

	if (!err && vm->info.link_id && link->link_id != vm->info.link_id) {
		close(link->fd);
		err = -ENOENT;
	}
	if (err == -ENOENT && vm->info.link_id) {
		int fd = bpf_link_get_fd_by_id(vm->info.link_id);

		err = fd < 0 ? -errno : link_read(fd, link);
		if (err && fd >= 0)
			close(fd);
	}
	if (!err)
		return 0;
	if (err == -ENOENT)
		return no_policy(vm);
	if (err == -EPERM || err == -EACCES)
		return advise(fail(KIND_RIGHTS, "cannot open the link of VM %llu: %s", id,
				   strerror(-err)), "run as root");
	return advise(fail(KIND_INTERNAL, "cannot open the link of VM %llu: %s", id,
			   strerror(-err)), "run kpopctl detach --vm-id %llu", id);
}

static int update_failed(struct policy *p, const struct vm *vm, const struct link_state *link,
			 int err)
{
	unsigned long long id = vm->info.vm_id;
	struct link_state now = {};

	switch (err) {
	case ENOLINK:
		fail(KIND_DEFUNCT, "cannot swap the policy of VM %llu: the link is defunct", id);
		return advise(KIND_DEFUNCT, "run kpopctl detach --vm-id %llu, then attach", id);
	case EPERM:
	case EINVAL:
		/* Either may also be KVM's own refusal: look at what is so. */
		if (!link_read(link->fd, &now) && now.map_id == link->map_id)
			return policy_refused(p, err);
		return was_swapped(vm, link->fd, link->map_id);
	case EBUSY:
		fail(KIND_CONFLICT, "cannot swap the policy of VM %llu: another swap is under way", id);
		return advise(KIND_CONFLICT, "swap again when it is done");
	default:
		return policy_refused(p, err);
	}
}

/*
 * Only an update fills a struct_ops map, and libbpf makes it together with
 * the link; with vm_fd = -1 the link is refused and the map stays, filled.
 */
static int fill_map(struct policy *p)
{
	struct bpf_link *link = bpf_map__attach_struct_ops(p->map);

	if (!link)
		return errno == EBADF ? 0 : policy_refused(p, errno);
	bpf_link__destroy(link);
	return fail(KIND_INTERNAL, "cannot swap in %s: KVM made a link without a VM", p->path);
}

/*
 * The new policy's init failed: KVM goes on with the old one, but the link
 * names the new map already.  An update to what runs brings them together.
 */
static void restore_link(struct policy *p, const struct vm *vm, int link_fd)
{
	LIBBPF_OPTS(bpf_link_update_opts, opts, .flags = BPF_F_REPLACE,
		    .old_map_fd = bpf_map__fd(p->map));
	int running = bpf_map_get_fd_by_id(vm->info.map_id);

	if (running < 0)
		return;
	bpf_link_update(link_fd, running, &opts);
	close(running);
}

static int swap_link(const struct args *args, struct policy *p, struct vm *vm,
		     const struct link_state *link)
{
	LIBBPF_OPTS(bpf_link_update_opts, opts, .flags = BPF_F_REPLACE);
	char path[PATH_MAX];
	int kind, old_fd, err;

	/*
	 * After a swap whose init failed, the link holds the new map and the
	 * VM runs the old one; either is what a caller may have seen.
	 */
	if (args->expect_map && args->expect_map != link->map_id &&
	    args->expect_map != vm->info.map_id)
		return was_swapped(vm, link->fd, args->expect_map);

	pin_dir(path, sizeof(path), vm->info.vm_id);
	kind = policy_load(p, -1, path);
	if (!kind)
		kind = fill_map(p);
	if (kind)
		return kind;

	old_fd = bpf_map_get_fd_by_id(link->map_id);
	if (old_fd < 0)
		return errno == ENOENT ? was_swapped(vm, link->fd, link->map_id) :
			fail(KIND_INTERNAL, "cannot open map %u: %m", link->map_id);

	/* The record of ejections from just before, for policy_wait(). */
	kind = vm_refresh(vm);
	if (!kind) {
		opts.old_map_fd = old_fd;
		err = bpf_link_update(link->fd, bpf_map__fd(p->map), &opts);
		if (err)
			kind = update_failed(p, vm, link, -err);
		else
			kind = policy_wait(p, vm, link->fd, args->timeout);
	}
	if (kind == KIND_REFUSED && vm->info.state == KPOP_STATE_ATTACHED) {
		restore_link(p, vm, link->fd);
		advise(kind, "mend the policy; %s (map %u) goes on", vm->info.policy,
		       vm->info.map_id);
	}
	close(old_fd);
	return kind;
}

int cmd_swap(const struct args *args, struct json_object *out)
{
	struct link_state link;
	char old_name[KPOP_NAME_LEN];
	struct policy p;
	struct vm vm;
	int kind;

	kind = policy_open(&p, args->word);
	if (kind)
		return kind;
	kind = policy_set_knobs(&p, args);
	if (!kind)
		kind = vm_find(args, false, &vm);
	if (kind)
		goto close;
	kind = open_link(&vm, &link);
	if (kind)
		goto close_vm;

	snprintf(old_name, sizeof(old_name), "%s", vm.info.policy);
	if (!link.map_id || vm.info.state != KPOP_STATE_ATTACHED)
		kind = no_policy(&vm);
	else
		kind = swap_link(args, &p, &vm, &link);
	if (!kind) {
		put_vm(out, &vm);
		put_str(out, "policy", p.name);
		put_u64(out, "map_id", p.map_id);
		put_u64(out, "link_id", link.link_id);
		put_str(out, "old_policy", old_name);
		put_u64(out, "old_map_id", link.map_id);
	}
	close(link.fd);
close_vm:
	close(vm.vm_fd);
close:
	policy_close(&p);
	return kind;
}

void show_swap(struct json_object *out)
{
	printf("swapped %s (map %s) for %s (map %s) on VM %s (%s, pid %s)\n",
	       get_str(out, "old_policy"), get_str(out, "old_map_id"), get_str(out, "policy"),
	       get_str(out, "map_id"), get_str(out, "vm_id"), get_str(out, "name"),
	       get_str(out, "pid"));
}
