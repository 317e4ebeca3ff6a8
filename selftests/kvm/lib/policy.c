// SPDX-License-Identifier: GPL-2.0
/* BPF policies for the test's own VM, with libbpf and nothing else. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "kpop_test.h"

static int policy_log(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	if (level == LIBBPF_WARN && getenv("KPOP_TEST_VERBOSE"))
		return vfprintf(stderr, fmt, ap);
	return 0;
}

static struct bpf_map *policy_find_map(struct bpf_object *obj)
{
	struct bpf_map *map = bpf_object__find_map_by_name(obj, "kpop_ops");

	if (map)
		return map;
	bpf_object__for_each_map(map, obj)
		if (bpf_map__type(map) == BPF_MAP_TYPE_STRUCT_OPS)
			return map;
	return NULL;
}

static void policy_path(char *path, size_t size, const char *name)
{
	const char *dir = getenv("KPOP_BPF_DIR") ?: "/kpop/bpf";

	snprintf(path, size, "%s/%s.bpf.o", dir, name);
}

void policy_require(const char *name)
{
	char path[256];

	policy_path(path, sizeof(path), name);
	if (access(path, R_OK))
		kst_skip("no policy %s (set KPOP_BPF_DIR)", path);
}

/* Load $KPOP_BPF_DIR/NAME.bpf.o for @vm_fd (-1: only to be swapped in). */
int policy_load(struct policy *p, const char *name, int vm_fd)
{
	char path[256];
	size_t size;
	s32 *ops;
	int r;

	memset(p, 0, sizeof(*p));
	libbpf_set_print(policy_log);
	policy_require(name);
	policy_path(path, sizeof(path), name);
	p->obj = bpf_object__open_file(path, NULL);
	if (!p->obj)
		return -errno;
	p->map = policy_find_map(p->obj);
	TEST_ASSERT(p->map, "%s has no struct_ops map", path);
	/* The first member of struct kpop_ops, in libbpf's copy of the initial value. */
	ops = bpf_map__initial_value(p->map, &size);
	TEST_ASSERT(ops && size >= sizeof(*ops), "%s: no initial value", path);
	*ops = vm_fd;
	r = bpf_object__load(p->obj);
	if (r) {
		bpf_object__close(p->obj);
		p->obj = NULL;
	}
	return r;
}

int policy_attach(struct policy *p)
{
	p->link = bpf_map__attach_struct_ops(p->map);
	return p->link ? 0 : -errno;
}

/* Load, attach, wait until hypercalls are answered. */
void policy_serve_fd(struct policy *p, const char *name, int vm_fd)
{
	int r = policy_load(p, name, vm_fd);

	TEST_ASSERT(!r, "policy %s does not load: %s", name, strerror(-r));
	r = policy_attach(p);
	TEST_ASSERT(!r, "policy %s does not attach: %s", name, strerror(-r));
	TEST_ASSERT(kpop_wait_state(vm_fd, KPOP_STATE_ATTACHED),
		    "policy %s is not ATTACHED after 30 s", name);
}

void policy_serve(struct policy *p, const char *name, struct tvm *t)
{
	policy_serve_fd(p, name, t->vm->fd);
}

/* The link dies with its last descriptor. */
void policy_close_link(struct policy *p)
{
	if (p->link)
		bpf_link__destroy(p->link);
	p->link = NULL;
}

/* What `bpftool link detach` does: the link stays, defunct. */
int policy_detach(struct policy *p)
{
	return bpf_link_detach(bpf_link__fd(p->link)) ? -errno : 0;
}

void policy_free(struct policy *p)
{
	policy_close_link(p);
	bpf_object__close(p->obj);
	memset(p, 0, sizeof(*p));
}

void policy_stop(struct policy *p, struct tvm *t)
{
	policy_free(p);
	TEST_ASSERT(kpop_wait_state(t->vm->fd, KPOP_STATE_NONE),
		    "the VM still has a policy 30 s after its link was closed");
}

/*
 * Fill the map of a policy that was loaded with vm_fd -1: the attach answers
 * EBADF, but leaves the map ready for bpf_link_update().
 */
int policy_fill(struct policy *p)
{
	int r = policy_attach(p);

	policy_close_link(p);
	return r;
}

/* Compare and swap, by ids alone: as a process that did not attach would. */
int policy_swap(u32 link_id, u32 old_map_id, struct policy *p)
{
	LIBBPF_OPTS(bpf_link_update_opts, opts);
	int link = bpf_link_get_fd_by_id(link_id);
	int old = bpf_map_get_fd_by_id(old_map_id);
	int r;

	if (link < 0 || old < 0)
		return link < 0 ? link : old;
	opts.flags = BPF_F_REPLACE;
	opts.old_map_fd = old;
	r = bpf_link_update(link, bpf_map__fd(p->map), &opts) ? -errno : 0;
	close(old);
	close(link);
	return r;
}

u32 policy_map_id(struct policy *p)
{
	struct bpf_map_info info = {};
	u32 len = sizeof(info);

	if (bpf_map_get_info_by_fd(bpf_map__fd(p->map), &info, &len))
		return 0;
	return info.id;
}

int policy_map_fd(struct policy *p, const char *name)
{
	return bpf_object__find_map_fd_by_name(p->obj, name);
}

int policy_set_knob(struct policy *p, const char *name, u32 key, const void *val, size_t len)
{
	struct bpf_map *map = bpf_object__find_map_by_name(p->obj, name);

	if (!map)
		return -ENOENT;
	return bpf_map__update_elem(map, &key, sizeof(key), val, len, BPF_ANY);
}
