// SPDX-License-Identifier: GPL-2.0
/*
 * A policy is an object file with one struct_ops of type kpop_ops.  What
 * libbpf says while it works on it is kept, so that a failure can name the
 * line that decided; --debug passes all of it on.
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "kpopctl.h"

#define OPS_TYPE	"kpop_ops"

static char *said;
static size_t said_len, said_room;

static int keep_said(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	char *text;
	int len = vasprintf(&text, fmt, ap);

	if (len < 0)
		return 0;
	if (debug)
		fputs(text, stderr);
	if (level == LIBBPF_WARN) {
		if (said_len + len + 1 > said_room) {
			size_t room = 2 * (said_len + len + 1);
			char *more = realloc(said, room);

			if (!more)
				goto out;
			said = more;
			said_room = room;
		}
		memcpy(said + said_len, text, len + 1);
		said_len += len;
	}
out:
	free(text);
	return 0;
}

/* Copy the last line before @end that matters, without the trailing sums. */
static bool last_line(const char *start, const char *end, char *line, size_t size)
{
	static const char *const sums[] = {
		"processed ", "verification time ", "stack depth ",
	};

	while (end > start) {
		const char *from = end - 1;
		bool sum = from == end;

		while (from > start && from[-1] != '\n')
			from--;
		for (size_t i = 0; i < sizeof(sums) / sizeof(sums[0]); i++)
			sum |= !strncmp(from, sums[i], strlen(sums[i]));
		if (!sum && end - from > 1) {
			snprintf(line, size, "%.*s", (int)(end - from), from);
			return true;
		}
		end = from;
	}
	return false;
}

/* What decided: the verifier's last word, else the first warning. */
static bool decisive_line(char *line, size_t size)
{
	static const char begin[] = "-- BEGIN PROG LOAD LOG --\n";
	const char *start = said ? strstr(said, begin) : NULL;
	const char *end = start ? strstr(start, "-- END PROG LOAD LOG --") : NULL;

	if (end && last_line(start + strlen(begin), end, line, size))
		return true;
	snprintf(line, size, "%s", "");
	if (said) {
		start = strncmp(said, "libbpf: ", 8) ? said : said + 8;
		snprintf(line, size, "%.*s", (int)strcspn(start, "\n"), start);
	}
	return false;
}

/* CO-RE flavours: kpop_ops___v1 is kpop_ops to libbpf too. */
static bool is_ops_type(const char *name)
{
	size_t len = strlen(OPS_TYPE);

	return !strncmp(name, OPS_TYPE, len) && (!name[len] || !strncmp(name + len, "___", 3));
}

static const struct btf_type *ops_type(const struct policy *p)
{
	return btf__type_by_id(bpf_object__btf(p->obj), bpf_map__btf_value_type_id(p->map));
}

/* Where member @name of the policy's initial value is, or NULL. */
static void *ops_member(const struct policy *p, const char *name, size_t min_size)
{
	const struct btf *btf = bpf_object__btf(p->obj);
	const struct btf_type *t = ops_type(p);
	const struct btf_member *m = btf_members(t);
	char *value;
	size_t size;

	value = bpf_map__initial_value(p->map, &size);
	for (int i = 0; value && i < btf_vlen(t); i++) {
		size_t at = btf_member_bit_offset(t, i) / 8;

		if (!strcmp(btf__name_by_offset(btf, m[i].name_off), name) &&
		    at + min_size <= size)
			return value + at;
	}
	return NULL;
}

static int not_a_policy(const struct policy *p, const char *why)
{
	return advise(fail(KIND_REFUSED, "cannot use %s as a policy: %s", p->path, why),
		      "give an object with one struct kpop_ops in SEC(\".struct_ops.link\")");
}

static int find_ops(struct policy *p)
{
	const struct btf *btf = bpf_object__btf(p->obj);
	struct bpf_map *map;
	unsigned int nr = 0;
	const char *name;

	bpf_object__for_each_map(map, p->obj) {
		const struct btf_type *t;

		if (bpf_map__type(map) != BPF_MAP_TYPE_STRUCT_OPS)
			continue;
		t = btf__type_by_id(btf, bpf_map__btf_value_type_id(map));
		if (!t || !is_ops_type(btf__name_by_offset(btf, t->name_off)))
			continue;
		p->map = map;
		nr++;
	}
	if (nr != 1)
		return not_a_policy(p, nr ? "it has more than one struct kpop_ops" :
				    "it has no struct kpop_ops");
	if (!(bpf_map__map_flags(p->map) & BPF_F_LINK))
		return not_a_policy(p, "its struct kpop_ops is in .struct_ops, without a link");
	if (!ops_member(p, "vm_fd", sizeof(int)))
		return not_a_policy(p, "its struct kpop_ops has no vm_fd");

	name = ops_member(p, "name", KPOP_NAME_LEN);
	if (name)
		snprintf(p->name, sizeof(p->name), "%.*s", KPOP_NAME_LEN - 1, name);
	return 0;
}

int policy_open(struct policy *p, const char *path)
{
	char line[256];
	int err, kind;

	*p = (struct policy){ .path = path };
	libbpf_set_print(keep_said);

	if (access(path, R_OK)) {
		if (errno == EACCES || errno == EPERM)
			return advise(fail(KIND_RIGHTS, "cannot read %s: %m", path),
				      "run as a user who may read it");
		return advise(fail(KIND_USAGE, "cannot read %s: %m", path),
			      "give the path of a compiled policy (.bpf.o)");
	}

	p->obj = bpf_object__open_file(path, NULL);
	if (!p->obj) {
		err = errno;
		decisive_line(line, sizeof(line));
		return not_a_policy(p, line[0] ? line : strerror(err));
	}
	kind = find_ops(p);
	if (kind)
		policy_close(p);
	return kind;
}

void policy_close(struct policy *p)
{
	bpf_object__close(p->obj);
	p->obj = NULL;
	p->map = NULL;
}

/* Maps pinned by name go to the VM's directory: there a successor finds them. */
static int set_pins(struct policy *p, const char *pin_root)
{
	struct bpf_map *map;
	char path[PATH_MAX];

	bpf_object__for_each_map(map, p->obj) {
		if (!bpf_map__pin_path(map))
			continue;
		if (!strcmp(bpf_map__name(map), PIN_LINK))
			return not_a_policy(p, "it pins a map named '" PIN_LINK "', which is the link's name");
		snprintf(path, sizeof(path), "%s/%s", pin_root, bpf_map__name(map));
		if (bpf_map__set_pin_path(map, path))
			return fail(KIND_INTERNAL, "cannot set the pin of map %s: %m",
				    bpf_map__name(map));
	}
	return 0;
}

static int load_failed(struct policy *p, int err)
{
	char line[400];
	bool verifier = decisive_line(line, sizeof(line));
	int kind;

	if (verifier) {
		kind = fail(KIND_REFUSED, "cannot load %s: the verifier says: %s", p->path, line);
		return advise(kind, "see its whole log with --debug");
	}
	if (err == EPERM || err == EACCES)
		return advise(fail(KIND_RIGHTS, "cannot load %s: %s", p->path, strerror(err)),
			      "run as root (CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN)");
	if (strstr(line, OPS_TYPE " is not found in kernel BTF") ||
	    strstr(line, "kernel BTF is missing"))
		return advise(fail(KIND_NO_KPOP, "cannot load %s: the kernel's BTF has no %s",
				   p->path, OPS_TYPE),
			      "boot a kernel with CONFIG_KVM_KPOP and CONFIG_DEBUG_INFO_BTF_MODULES");
	kind = fail(KIND_REFUSED, "cannot load %s: %s%s%s", p->path, line, line[0] ? ": " : "",
		    strerror(err));
	return advise(kind, strstr(line, "pinned map") ?
		      "detach and attach if the state in that map may go" :
		      "see more with --debug");
}

/*
 * Load a policy.  @vm_fd goes into the struct_ops before it is loaded, the
 * kernel reads it when a link is made; -1 for a policy that is swapped in.
 */
int policy_load(struct policy *p, int vm_fd, const char *pin_root)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);
	int kind, err;

	kind = set_pins(p, pin_root);
	if (kind)
		return kind;
	*(int *)ops_member(p, "vm_fd", sizeof(int)) = vm_fd;

	err = bpf_object__load(p->obj);
	if (err)
		return load_failed(p, -err);
	err = bpf_map_get_info_by_fd(bpf_map__fd(p->map), &info, &len);
	if (err)
		return fail(KIND_INTERNAL, "cannot read the map of %s: %s", p->path,
			    strerror(-err));
	p->map_id = info.id;
	return 0;
}

static bool good_name(const char *name)
{
	size_t len = strnlen(name, KPOP_NAME_LEN);

	if (!len || len == KPOP_NAME_LEN)
		return false;
	while (len--)
		if (!isalnum((unsigned char)name[len]) && !strchr("_.-", name[len]))
			return false;
	return true;
}

/*
 * KVM refused the policy as a whole, with no more than an errno.  Look for
 * the usual reasons, so that the message need not be a guess.
 */
int policy_refused(struct policy *p, int err)
{
	static const char *const required[] = { "load", "map" };
	const char *why = strerror(err), *name;
	char text[80];

	if (err == EPERM || err == EACCES)
		return advise(fail(KIND_RIGHTS, "cannot attach %s: %s", p->path, why),
			      "run as root");
	for (size_t i = 0; err == EINVAL && i < 2; i++) {
		void **hook = ops_member(p, required[i], sizeof(void *));

		if (!hook || !*hook) {
			snprintf(text, sizeof(text), "the required hook '%s' is missing", required[i]);
			why = text;
		}
	}
	name = ops_member(p, "name", KPOP_NAME_LEN);
	if (err == EINVAL && (!name || !good_name(name)))
		why = "its name is not 1 to 15 of A-Z a-z 0-9 _ . -";
	return advise(fail(KIND_REFUSED, "cannot attach %s: KVM refuses the policy: %s", p->path,
			   why), "compare it with kpop_base.bpf.c");
}

/* Somebody else may detach or swap while we wait; the link tells. */
static int overtaken(const struct policy *p, const struct vm *vm, int link_fd)
{
	unsigned long long id = vm->info.vm_id;
	struct link_state link;

	if (link_read(link_fd, &link) || link.map_id == p->map_id)
		return 0;
	if (link.map_id)
		fail(KIND_CONFLICT, "cannot see policy %s at work on VM %llu: somebody swapped map %u in for it",
		     p->name, id, link.map_id);
	else
		fail(KIND_CONFLICT, "cannot see policy %s at work on VM %llu: somebody detached it",
		     p->name, id);
	return advise(KIND_CONFLICT, "look with kpopctl status --vm-id %llu", id);
}

/*
 * Wait until KVM says that the policy serves the VM, or why it does not.
 * @vm->info is from before the attach or swap.
 */
int policy_wait(const struct policy *p, struct vm *vm, int link_fd, unsigned int timeout)
{
	uint64_t end = now_ms() + timeout * 1000ULL;
	__u32 ejected = vm->info.last_ejection.count;
	unsigned long long id = vm->info.vm_id;
	int kind;

	for (;;) {
		const struct kvm_kpop_ejection *e = &vm->info.last_ejection;

		kind = vm_refresh(vm);
		if (kind)
			return kind;
		if (e->count != ejected && e->map_id == p->map_id) {
			kind = fail(KIND_REFUSED, "cannot run policy %s on VM %llu: ejected: %s hook %s returned %lld: %s",
				    p->name, id, eject_name(e->kind), hook_name(e->hook),
				    (long long)e->value, e->text);
			return advise(kind, "see kpopctl status --vm-id %llu", id);
		}
		if (vm->info.state == KPOP_STATE_ATTACHED && vm->info.map_id == p->map_id)
			return 0;
		kind = overtaken(p, vm, link_fd);
		if (kind)
			return kind;
		if (now_ms() > end)
			break;
		nap();
	}
	kind = fail(KIND_CONFLICT, "cannot see policy %s at work on VM %llu: state %s, map %u after %u s",
		    p->name, id, state_name(vm->info.state), vm->info.map_id, timeout);
	return advise(kind, "look again with kpopctl status --vm-id %llu", id);
}
