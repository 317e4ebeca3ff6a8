// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kpopctl.h"

static void put_hook_stats(struct json_object *array, const struct kvm_kpop_info *info)
{
	for (int i = 0; i < KPOP_NR_HOOKS; i++) {
		const struct kvm_kpop_hook_stat *s = &info->hooks[i];
		struct json_object *o = append_object(array);

		put_str(o, "hook", hook_name(i));
		put_u64(o, "calls", s->calls);
		put_u64(o, "errors", s->errors);
		put_u64(o, "time_ns", s->time_ns);
		put_u64(o, "avg_ns", s->calls ? s->time_ns / s->calls : 0);
		put_u64(o, "max_ns", s->max_ns);
	}
}

static int put_spaces(struct json_object *array, const struct vm *vm)
{
	struct kvm_kpop_space_info *spaces;
	size_t nr;
	int err = kpop_spaces(vm->vm_fd, &spaces, &nr);

	if (err)
		return fail(KIND_INTERNAL, "cannot read the spaces of VM %llu: %s",
			    (unsigned long long)vm->info.vm_id, strerror(-err));
	for (size_t i = 0; i < nr; i++) {
		struct json_object *o = append_object(array);

		put_u64(o, "token", spaces[i].token);
		put_u64(o, "kvm_id", spaces[i].kvm_id);
		put_u64(o, "as_id", spaces[i].as_id);
		put_u64(o, "pages", spaces[i].pages);
		put_u64(o, "runs", spaces[i].runs);
		put_u64(o, "bytes", spaces[i].bytes);
		put_u64(o, "bindings", spaces[i].bindings);
	}
	free(spaces);
	return 0;
}

/* Programs are shown as far as we may ask for them; the rest does not fail. */
static void put_policy(struct json_object *out, const struct kvm_kpop_info *info)
{
	struct json_object *programs;
	int err;

	put_str(out, "policy", info->policy);
	put_u64(out, "map_id", info->map_id);
	put_u64(out, "link_id", info->link_id);
	programs = put_array(out, "programs");
	if (!info->map_id)
		return;
	err = put_programs(programs, info->map_id);
	if (err && err != -ENOENT)
		notice("cannot read the programs of map %u: %s; run as root", info->map_id,
		       strerror(-err));
}

int cmd_status(const struct args *args, struct json_object *out)
{
	const struct kvm_kpop_info *info;
	struct link_state link;
	struct vm vm;
	int kind;

	kind = vm_find(args, false, &vm);
	if (kind)
		return kind;
	info = &vm.info;

	put_vm(out, &vm);
	put_str(out, "state", state_name(info->state));
	put_policy(out, info);
	put_bool(out, "pinned", !pin_open_link(info->vm_id, &link));
	if (link.fd >= 0) {
		put_bool(out, "pin_defunct", link.link_id != info->link_id);
		close(link.fd);
	}
	put_bool(out, "kpop_only", info->kpop_only);
	put_u64(out, "cap", info->cap);
	put_u64(out, "bytes", info->bytes);
	put_u64(out, "pages", info->pages);
	put_u64(out, "nr_spaces", info->nr_spaces);
	put_u64(out, "nr_bindings", info->nr_bindings);
	put_u64(out, "attaches", info->attaches);
	put_u64(out, "swaps", info->swaps);
	put_u64(out, "detaches", info->detaches);
	put_u64(out, "faults_direct", info->faults_direct);
	put_u64(out, "faults_reflected", info->faults_reflected);
	put_hook_stats(put_array(out, "hooks"), info);
	kind = put_spaces(put_array(out, "spaces"), &vm);
	if (info->last_ejection.count)
		put_ejection(put_object(out, "last_ejection"), &info->last_ejection);
	else
		json_object_object_add(out, "last_ejection", NULL);
	close(vm.vm_fd);
	return kind;
}

static void show_hooks(struct json_object *out)
{
	struct json_object *hooks = get(out, "hooks"), *programs = get(out, "programs");

	printf("\n%-8s %-8s %-16s %12s %10s %10s %10s\n", "HOOK", "PROG", "NAME", "CALLS",
	       "ERRORS", "AVG ns", "MAX ns");
	for (size_t i = 0; i < json_object_array_length(hooks); i++) {
		struct json_object *h = json_object_array_get_idx(hooks, i);
		const char *id = "-", *name = "-";

		for (size_t j = 0; j < json_object_array_length(programs); j++) {
			struct json_object *p = json_object_array_get_idx(programs, j);

			if (!strcmp(get_str(p, "hook"), get_str(h, "hook"))) {
				id = get_str(p, "id");
				name = get_str(p, "name");
			}
		}
		printf("%-8s %-8s %-16s %12s %10s %10s %10s\n", get_str(h, "hook"), id, name,
		       get_str(h, "calls"), get_str(h, "errors"), get_str(h, "avg_ns"),
		       get_str(h, "max_ns"));
	}
}

static void show_spaces(struct json_object *out)
{
	struct json_object *spaces = get(out, "spaces");

	if (!json_object_array_length(spaces))
		return;
	printf("\n%-18s %-8s %-5s %12s %10s %12s %8s\n", "SPACE", "KVM_ID", "AS_ID", "PAGES",
	       "RUNS", "BYTES", "BINDINGS");
	for (size_t i = 0; i < json_object_array_length(spaces); i++) {
		struct json_object *s = json_object_array_get_idx(spaces, i);

		printf("%#-18llx %-8s %-5s %12s %10s %12s %8s\n",
		       (unsigned long long)get_u64(s, "token"), get_str(s, "kvm_id"),
		       get_str(s, "as_id"), get_str(s, "pages"), get_str(s, "runs"),
		       get_str(s, "bytes"), get_str(s, "bindings"));
	}
}

void show_status(struct json_object *out)
{
	struct json_object *e = get(out, "last_ejection");

	printf("VM %s (%s, pid %s fd %s): %s", get_str(out, "vm_id"), get_str(out, "name"),
	       get_str(out, "pid"), get_str(out, "fd"), get_str(out, "state"));
	if (get_u64(out, "map_id"))
		printf(", policy %s, map %s, link %s", get_str(out, "policy"),
		       get_str(out, "map_id"), get_str(out, "link_id"));
	printf("%s%s\n", get_bool(out, "pinned") ? "" : ", not pinned",
	       get_bool(out, "pin_defunct") ? ", pinned link is defunct" : "");
	printf("memory   %s bytes of %s for %s pages in %s spaces, %s bindings\n",
	       get_str(out, "bytes"), get_str(out, "cap"), get_str(out, "pages"),
	       get_str(out, "nr_spaces"), get_str(out, "nr_bindings"));
	printf("faults   %s served in L0, %s given to L1; kpop-only %s\n",
	       get_str(out, "faults_direct"), get_str(out, "faults_reflected"),
	       get_bool(out, "kpop_only") ? "on" : "off");
	printf("history  %s attaches, %s swaps, %s detaches\n", get_str(out, "attaches"),
	       get_str(out, "swaps"), get_str(out, "detaches"));
	if (e)
		printf("ejected  %s times, last %s (map %s) at %s: %s, hook %s returned %s: %s\n",
		       get_str(e, "count"), get_str(e, "policy"), get_str(e, "map_id"),
		       get_str(e, "time"), get_str(e, "kind"), get_str(e, "hook"),
		       get_str(e, "value"), get_str(e, "text"));
	else
		printf("ejected  never\n");
	show_hooks(out);
	show_spaces(out);
}
