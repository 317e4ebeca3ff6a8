// SPDX-License-Identifier: GPL-2.0
/*
 * attach: load with the VM's descriptor in vm_fd, make the link, pin it, and
 * wait until the policy's init has run.  Without the pin the policy would
 * leave together with this process.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "kpopctl.h"

static int taken(const struct vm *vm)
{
	unsigned long long id = vm->info.vm_id;

	fail(KIND_CONFLICT, "cannot attach a policy to VM %llu: %s (map %u) is %s", id,
	     vm->info.policy, vm->info.map_id,
	     vm->info.state == KPOP_STATE_ATTACHED ? "attached" : "being attached");
	return advise(KIND_CONFLICT, "replace it with kpopctl swap --vm-id %llu", id);
}

/* A detach may still be taking mappings down; an attach behind it waits. */
static int wait_for_free(struct vm *vm, unsigned int timeout)
{
	uint64_t end = now_ms() + timeout * 1000ULL;
	int kind = vm_refresh(vm);

	while (!kind && vm->info.state == KPOP_STATE_DETACHING) {
		if (now_ms() > end) {
			fail(KIND_CONFLICT, "cannot attach a policy to VM %llu: the last one is still being detached",
			     (unsigned long long)vm->info.vm_id);
			return advise(KIND_CONFLICT, "try again, or with a longer --timeout");
		}
		nap();
		kind = vm_refresh(vm);
	}
	if (!kind && vm_is_taken(vm))
		kind = taken(vm);
	return kind;
}

/*
 * The link of a policy that was ejected stays pinned and serves nobody; the
 * maps next to it stay too, the new policy may want their state.
 */
static int drop_stale_link(const struct vm *vm, bool *dropped)
{
	struct link_state link;
	int err = pin_open_link(vm->info.vm_id, &link);

	*dropped = false;
	if (err == -ENOENT)
		return 0;
	if (err == -EPERM || err == -EACCES)
		return advise(fail(KIND_RIGHTS, "cannot open the pinned link of VM %llu: %s",
				   (unsigned long long)vm->info.vm_id, strerror(-err)),
			      "run as root");
	if (!err) {
		bpf_link_detach(link.fd);
		close(link.fd);
	}
	pin_remove_link(vm->info.vm_id);
	*dropped = true;
	return 0;
}

static int attach_failed(struct policy *p, struct vm *vm, int err)
{
	unsigned long long id = vm->info.vm_id;

	switch (err) {
	case EBUSY:
		if (!vm_refresh(vm) && vm_is_taken(vm))
			return taken(vm);
		fail(KIND_CONFLICT, "cannot attach %s to VM %llu: the VM is busy with another policy",
		     p->path, id);
		return advise(KIND_CONFLICT, "look with kpopctl status --vm-id %llu", id);
	case EBADF:
	case ENOLINK:
		fail(KIND_DEFUNCT, "cannot attach %s to VM %llu: the VM is being destroyed",
		     p->path, id);
		return advise(KIND_DEFUNCT, "kpopctl list shows every VM");
	case EOPNOTSUPP:
		fail(KIND_REFUSED, "cannot attach %s to VM %llu: KVM has no KPOP for this VM",
		     p->path, id);
		return advise(KIND_REFUSED, "load kvm with kpop_host=Y and tdp_mmu=Y, and give the VM the default type");
	default:
		return policy_refused(p, err);
	}
}

static int attach_locked(const struct args *args, struct policy *p, struct vm *vm,
			 struct link_state *link_state, bool *replaced)
{
	char path[PATH_MAX];
	struct bpf_link *link;
	int kind, err;

	kind = wait_for_free(vm, args->timeout);
	if (!kind)
		kind = drop_stale_link(vm, replaced);
	if (kind)
		return kind;

	pin_dir(path, sizeof(path), vm->info.vm_id);
	kind = policy_load(p, vm->vm_fd, path);
	if (kind)
		return kind;

	link = bpf_map__attach_struct_ops(p->map);
	if (!link)
		return attach_failed(p, vm, errno);
	pin_path(path, sizeof(path), vm->info.vm_id, PIN_LINK);
	err = bpf_link__pin(link, path);
	if (!err)
		err = link_read(bpf_link__fd(link), link_state);
	if (err) {
		/* Closing the last descriptor takes the policy off again. */
		bpf_link__destroy(link);
		pin_remove_link(vm->info.vm_id);
		return advise(fail(KIND_INTERNAL, "cannot pin the link at %s: %s", path,
				   strerror(-err)), "look at that directory");
	}

	kind = policy_wait(p, vm, bpf_link__fd(link), args->timeout);
	if (kind == KIND_REFUSED) {
		bpf_link_detach(bpf_link__fd(link));
		pin_remove_link(vm->info.vm_id);
		advise(kind, "mend the policy, it is detached again");
	}
	bpf_link__destroy(link);
	return kind;
}

int cmd_attach(const struct args *args, struct json_object *out)
{
	struct link_state link = {};
	struct policy p;
	struct vm vm;
	char path[64];
	bool replaced = false, fresh;
	int kind, lock = -1;

	kind = policy_open(&p, args->word);
	if (kind)
		return kind;
	kind = policy_set_knobs(&p, args);
	if (!kind)
		kind = vm_find(args, false, &vm);
	if (kind)
		goto close;
	/* Early, so that a VM that is taken costs no load. */
	if (vm_is_taken(&vm)) {
		kind = taken(&vm);
		goto close_vm;
	}

	kind = pin_prepare(vm.info.vm_id, args->timeout, &lock);
	if (!kind) {
		fresh = pin_empty(vm.info.vm_id);
		kind = attach_locked(args, &p, &vm, &link, &replaced);
		/* What we began goes; the maps of an earlier policy stay. */
		if (kind && fresh && !pin_exists(vm.info.vm_id, PIN_LINK))
			pin_remove(vm.info.vm_id);
	}
	if (!kind) {
		put_vm(out, &vm);
		put_str(out, "policy", p.name);
		put_u64(out, "map_id", p.map_id);
		put_u64(out, "link_id", link.link_id);
		pin_path(path, sizeof(path), vm.info.vm_id, PIN_LINK);
		put_str(out, "pin", path);
		put_bool(out, "replaced_defunct_link", replaced);
	}
	if (lock >= 0)
		close(lock);
close_vm:
	close(vm.vm_fd);
close:
	policy_close(&p);
	return kind;
}

void show_attach(struct json_object *out)
{
	printf("attached %s (map %s, link %s) to VM %s (%s, pid %s)\n", get_str(out, "policy"),
	       get_str(out, "map_id"), get_str(out, "link_id"), get_str(out, "vm_id"),
	       get_str(out, "name"), get_str(out, "pid"));
}
