// SPDX-License-Identifier: GPL-2.0
/*
 * Knobs: the "const volatile" integers of a policy.  They are in its .rodata,
 * which is frozen at load, so they are set between open and load.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "kpopctl.h"

static struct bpf_map *find_rodata(const struct policy *p)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, p->obj) {
		const char *name = bpf_map__name(map);
		size_t len = strlen(name);

		if (len >= 7 && !strcmp(name + len - 7, ".rodata"))
			return map;
	}
	return NULL;
}

static int knob_failed(const struct policy *p, const char *knob, const char *why)
{
	return advise(fail(KIND_USAGE, "cannot set knob '%s' of %s: %s", knob, p->path, why),
		      "give a const volatile integer of that policy, as NAME=NUMBER");
}

static const struct btf_var_secinfo *find_variable(const struct btf *btf, const char *name)
{
	const struct btf_var_secinfo *vsi;
	const struct btf_type *t;
	int sec, nr;

	sec = btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC);
	if (sec < 0)
		return NULL;
	t = btf__type_by_id(btf, sec);
	vsi = btf_var_secinfos(t);
	for (nr = btf_vlen(t); nr; nr--, vsi++) {
		const struct btf_type *var = btf__type_by_id(btf, vsi->type);

		if (!strcmp(btf__name_by_offset(btf, var->name_off), name))
			return vsi;
	}
	return NULL;
}

static bool parse_number(const char *text, unsigned int size, bool is_signed, int64_t *v)
{
	unsigned int bits = 8 * size;
	char *end;

	errno = 0;
	*v = *text == '-' ? strtoll(text, &end, 0) : (int64_t)strtoull(text, &end, 0);
	if (errno || end == text || *end)
		return false;
	if (*text == '-')
		return is_signed && (bits == 64 || *v >= -(1LL << (bits - 1)));
	if (bits == 64)
		return !is_signed || *v >= 0;
	return !((uint64_t)*v >> (bits - is_signed));
}

static int set_knob(const struct policy *p, const char *knob)
{
	const struct btf *btf = bpf_object__btf(p->obj);
	const char *value = strchr(knob, '=');
	struct bpf_map *rodata = find_rodata(p);
	const struct btf_var_secinfo *vsi;
	const struct btf_type *type;
	size_t size = 0;
	char name[64], *data;
	int64_t v;
	int id;

	if (!value || value == knob || (size_t)(value - knob) >= sizeof(name))
		return knob_failed(p, knob, "it is not NAME=NUMBER");
	snprintf(name, sizeof(name), "%.*s", (int)(value - knob), knob);

	vsi = rodata ? find_variable(btf, name) : NULL;
	data = rodata ? bpf_map__initial_value(rodata, &size) : NULL;
	if (!vsi || !data || vsi->offset + vsi->size > size)
		return knob_failed(p, knob, "the policy has no such knob");

	id = btf__resolve_type(btf, vsi->type);
	type = id < 0 ? NULL : btf__type_by_id(btf, id);
	if (!type || !btf_is_int(type) || vsi->size > sizeof(v))
		return knob_failed(p, knob, "it is not an integer");
	if (!parse_number(value + 1, vsi->size, btf_int_encoding(type) & BTF_INT_SIGNED, &v))
		return knob_failed(p, knob, "the number is not one that fits");

	/* BPF objects for this machine: little endian, as it is. */
	memcpy(data + vsi->offset, &v, vsi->size);
	return 0;
}

int policy_set_knobs(const struct policy *p, const struct args *args)
{
	int kind = 0;

	for (unsigned int i = 0; !kind && i < args->nr_knobs; i++)
		kind = set_knob(p, args->knobs[i]);
	return kind;
}
