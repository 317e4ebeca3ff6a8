// SPDX-License-Identifier: GPL-2.0
/* The controller's door: ioctl KVM_KPOP on /dev/kvm. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "kpopctl.h"

static int kvm_fd = -1;

/*
 * Open /dev/kvm and see that it knows KVM_KPOP.  A null pointer is the probe:
 * with KPOP it is -EFAULT, without it the number is unknown, which no other
 * bad argument could tell apart.
 */
int kpop_open(void)
{
	int kind;

	if (kvm_fd >= 0)
		return 0;

	kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm_fd < 0) {
		if (errno == EACCES || errno == EPERM)
			return advise(fail(KIND_RIGHTS, "cannot open /dev/kvm: %m"),
				      "run as root");
		kind = fail(KIND_NO_KPOP, "cannot open /dev/kvm: %m, so this kernel runs no VM");
		return advise(kind, "load kvm_amd or kvm_intel of a kernel with KPOP");
	}
	if (!ioctl(kvm_fd, KVM_KPOP, NULL) || errno == EFAULT)
		return 0;

	kind = errno;
	close(kvm_fd);
	kvm_fd = -1;
	if (kind == EPERM || kind == EACCES)
		return advise(fail(KIND_RIGHTS, "cannot ask KVM about KPOP: %s", strerror(kind)),
			      "run as root");
	kind = fail(KIND_NO_KPOP, "cannot ask KVM about KPOP: %s, so this kernel has no KPOP",
		    strerror(kind));
	return advise(kind, "boot a kernel with CONFIG_KVM_KPOP");
}

static int kpop_ioctl(struct kvm_kpop_cmd *cmd)
{
	int ret;

	cmd->size = sizeof(*cmd);
	do {
		ret = ioctl(kvm_fd, KVM_KPOP, cmd);
	} while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : 0;
}

int kpop_info(int vm_fd, struct kvm_kpop_info *info)
{
	struct kvm_kpop_cmd cmd = {
		.op = KVM_KPOP_OP_INFO,
		.vm_fd = vm_fd,
		.data = (uintptr_t)info,
		.data_len = sizeof(*info),
	};
	int err;

	memset(info, 0, sizeof(*info));
	err = kpop_ioctl(&cmd);
	info->policy[KPOP_NAME_LEN - 1] = 0;
	info->last_ejection.policy[KPOP_NAME_LEN - 1] = 0;
	info->last_ejection.text[KPOP_REASON_LEN - 1] = 0;
	return err;
}

int kpop_spaces(int vm_fd, struct kvm_kpop_space_info **spaces, size_t *nr)
{
	size_t room = 64;

	/* Spaces come and go: ask again until all of them fit. */
	for (;;) {
		struct kvm_kpop_cmd cmd = { .op = KVM_KPOP_OP_SPACES, .vm_fd = vm_fd };
		int err;

		*spaces = calloc(room, sizeof(**spaces));
		if (!*spaces)
			return -ENOMEM;
		cmd.data = (uintptr_t)*spaces;
		cmd.data_len = room * sizeof(**spaces);
		err = kpop_ioctl(&cmd);
		*nr = cmd.data_len / sizeof(**spaces);
		if (!err && *nr <= room)
			return 0;
		free(*spaces);
		*spaces = NULL;
		if (err)
			return err;
		room = *nr + 64;
	}
}

int kpop_set(int vm_fd, unsigned int op, uint64_t arg)
{
	struct kvm_kpop_cmd cmd = { .op = op, .vm_fd = vm_fd, .arg = arg };

	return kpop_ioctl(&cmd);
}

static const char *pick(const char *const *names, size_t nr, unsigned int i)
{
	static char number[16];

	if (i < nr && names[i])
		return names[i];
	snprintf(number, sizeof(number), "#%u", i);
	return number;
}

#define PICK(names, i) pick(names, sizeof(names) / sizeof((names)[0]), i)

const char *state_name(unsigned int state)
{
	static const char *const names[] = {
		[KPOP_STATE_NONE] = "none",
		[KPOP_STATE_ATTACHED] = "attached",
		[KPOP_STATE_DETACHING] = "detaching",
	};

	return PICK(names, state);
}

const char *hook_name(unsigned int hook)
{
	static const char *const names[] = {
		[KPOP_HOOK_INIT] = "init",
		[KPOP_HOOK_EXIT] = "exit",
		[KPOP_HOOK_LOAD] = "load",
		[KPOP_HOOK_UNLOAD] = "unload",
		[KPOP_HOOK_MAP] = "map",
		[KPOP_HOOK_UNMAP] = "unmap",
		[KPOP_HOOK_ZAP] = "zap",
		[KPOP_HOOK_FAULT] = "fault",
	};

	return PICK(names, hook);
}

const char *eject_name(unsigned int kind)
{
	static const char *const names[] = {
		[KPOP_EJECT_NONE] = "none",
		[KPOP_EJECT_VALUE] = "value",
		[KPOP_EJECT_ERRORS] = "errors",
		[KPOP_EJECT_STALL] = "stall",
		[KPOP_EJECT_PROGRESS] = "progress",
		[KPOP_EJECT_INIT] = "init",
	};

	return PICK(names, kind);
}

void put_ejection(struct json_object *o, const struct kvm_kpop_ejection *e)
{
	time_t seconds = e->time_ns / 1000000000;
	char text[40];
	struct tm tm;

	put_u64(o, "count", e->count);
	put_str(o, "kind", eject_name(e->kind));
	put_str(o, "hook", hook_name(e->hook));
	json_object_object_add(o, "value", json_object_new_int64(e->value));
	put_str(o, "text", e->text);
	put_str(o, "policy", e->policy);
	put_u64(o, "map_id", e->map_id);
	put_u64(o, "time_ns", e->time_ns);
	gmtime_r(&seconds, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	put_str(o, "time", text);
}
