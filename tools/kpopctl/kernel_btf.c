// SPDX-License-Identifier: GPL-2.0
/*
 * The programs of an attached policy.  A lookup in a struct_ops map gives the
 * kernel's value with program ids in place of the function pointers; where
 * each hook is in it only the BTF of the kernel, or of kvm.ko, can tell.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "kpopctl.h"

struct kernel_btf {
	struct btf *vmlinux;
	struct btf *module;	/* NULL: the type is vmlinux's own */
};

static void close_btf(struct kernel_btf *kb)
{
	btf__free(kb->module);
	btf__free(kb->vmlinux);
}

/* Open the BTF object @id; it is vmlinux's when KVM is built in. */
static int open_btf(struct kernel_btf *kb, __u32 id)
{
	struct bpf_btf_info info = {};
	__u32 len = sizeof(info);
	char name[64] = "";
	int fd, err;

	*kb = (struct kernel_btf){};
	fd = bpf_btf_get_fd_by_id(id);
	if (fd < 0)
		return -errno;
	info.name = (uintptr_t)name;
	info.name_len = sizeof(name);
	err = bpf_btf_get_info_by_fd(fd, &info, &len);
	close(fd);
	if (err)
		return err;

	kb->vmlinux = btf__load_vmlinux_btf();
	if (!kb->vmlinux)
		return -errno;
	if (!strcmp(name, "vmlinux"))
		return 0;
	kb->module = btf__load_from_kernel_by_id_split(id, kb->vmlinux);
	if (!kb->module) {
		err = -errno;
		close_btf(kb);
		return err;
	}
	return 0;
}

static void put_program(struct json_object *array, const char *hook, __u32 id)
{
	struct json_object *o = append_object(array);
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);
	int fd = bpf_prog_get_fd_by_id(id);

	put_str(o, "hook", hook);
	put_u64(o, "id", id);
	if (fd < 0)
		return;
	if (!bpf_prog_get_info_by_fd(fd, &info, &len))
		put_str(o, "name", info.name);
	close(fd);
}

/* The struct inside the map's value type is its last member, "data". */
static void put_hooks(struct json_object *array, const struct btf *btf, __u32 value_type,
		      const char *value, size_t size)
{
	const struct btf_type *t = btf__type_by_id(btf, value_type);
	const struct btf_member *m;
	__u32 base;

	if (!t || !btf_is_struct(t) || !btf_vlen(t))
		return;
	base = btf_member_bit_offset(t, btf_vlen(t) - 1) / 8;
	t = btf__type_by_id(btf, btf_members(t)[btf_vlen(t) - 1].type);
	if (!t || !btf_is_struct(t))
		return;

	m = btf_members(t);
	for (int i = 0; i < btf_vlen(t); i++) {
		const struct btf_type *type = btf__type_by_id(btf, m[i].type);
		__u32 at = base + btf_member_bit_offset(t, i) / 8;
		unsigned long id;

		if (!type || !btf_is_ptr(type) || at + sizeof(id) > size)
			continue;
		memcpy(&id, value + at, sizeof(id));
		if (id)
			put_program(array, btf__name_by_offset(btf, m[i].name_off), id);
	}
}

/* Append the programs of struct_ops map @map_id to @array: 0 or -errno. */
int put_programs(struct json_object *array, uint32_t map_id)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info), zero = 0;
	struct kernel_btf kb;
	char *value = NULL;
	int fd, err;

	fd = bpf_map_get_fd_by_id(map_id);
	if (fd < 0)
		return -errno;
	err = bpf_map_get_info_by_fd(fd, &info, &len);
	if (err)
		goto out;
	value = calloc(1, info.value_size);
	err = value ? bpf_map_lookup_elem(fd, &zero, value) : -ENOMEM;
	if (err)
		goto out;
	err = open_btf(&kb, info.btf_vmlinux_id);
	if (err)
		goto out;
	put_hooks(array, kb.module ? kb.module : kb.vmlinux, info.btf_vmlinux_value_type_id,
		  value, info.value_size);
	close_btf(&kb);
out:
	free(value);
	close(fd);
	return err;
}
