// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kpopctl.h"

static int set_one(const struct vm *vm, unsigned int op, const char *what, uint64_t arg)
{
	unsigned long long id = vm->info.vm_id;
	int kind, err = kpop_set(vm->vm_fd, op, arg);

	if (!err)
		return 0;
	if (err == -EPERM || err == -EACCES)
		return advise(fail(KIND_RIGHTS, "cannot set %s of VM %llu: %s", what, id,
				   strerror(-err)), "run as root");
	kind = fail(KIND_REFUSED, "cannot set %s of VM %llu to %llu: KVM says %s", what, id,
		    (unsigned long long)arg, strerror(-err));
	return advise(kind, "see the values in use with kpopctl status --vm-id %llu", id);
}

int cmd_set(const struct args *args, struct json_object *out)
{
	struct vm vm;
	int kind;

	if (!args->has_cap && args->only < 0)
		return advise(fail(KIND_USAGE, "cannot set: nothing to set is given"),
			      "give --cap or --kpop-only");
	kind = vm_find(args, false, &vm);
	if (kind)
		return kind;

	if (args->has_cap)
		kind = set_one(&vm, KVM_KPOP_OP_SET_CAP, "the cap", args->cap);
	if (!kind && args->only >= 0)
		kind = set_one(&vm, KVM_KPOP_OP_SET_ONLY, "kpop-only", args->only);
	if (!kind)
		kind = vm_refresh(&vm);
	if (!kind) {
		put_vm(out, &vm);
		put_u64(out, "cap", vm.info.cap);
		put_bool(out, "kpop_only", vm.info.kpop_only);
	}
	close(vm.vm_fd);
	return kind;
}

void show_set(struct json_object *out)
{
	printf("VM %s (%s, pid %s): cap %s bytes, kpop-only %s\n", get_str(out, "vm_id"),
	       get_str(out, "name"), get_str(out, "pid"), get_str(out, "cap"),
	       get_bool(out, "kpop_only") ? "on" : "off");
}
