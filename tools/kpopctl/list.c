// SPDX-License-Identifier: GPL-2.0
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kpopctl.h"

static void put_row(struct json_object *array, const struct vm *vm)
{
	struct json_object *o = append_object(array);
	const struct kvm_kpop_info *info = &vm->info;

	put_vm(o, vm);
	put_str(o, "state", vm->no_kpop ? "no-kpop" : state_name(info->state));
	put_str(o, "policy", info->policy);
	put_u64(o, "map_id", info->map_id);
	put_u64(o, "link_id", info->link_id);
	put_u64(o, "spaces", info->nr_spaces);
	put_u64(o, "bytes", info->bytes);
	put_u64(o, "pages", info->pages);
}

static bool is_alive(const struct vm_set *set, uint64_t vm_id)
{
	for (size_t i = 0; i < set->nr; i++)
		if (!set->vms[i].no_kpop && set->vms[i].info.vm_id == vm_id)
			return true;
	return false;
}

/* Pins of VMs that were not found: dead, if no process was hidden from us. */
static void put_defunct(struct json_object *array, const struct vm_set *set, uint64_t vm_id)
{
	struct json_object *o = append_object(array);
	struct link_state link;
	char path[64];

	put_u64(o, "vm_id", vm_id);
	pin_dir(path, sizeof(path), vm_id);
	put_str(o, "pin", path);
	put_str(o, "vm", set->hidden ? "not seen" : "dead");
	if (pin_open_link(vm_id, &link))
		return;
	put_u64(o, "link_id", link.link_id);
	put_u64(o, "map_id", link.map_id);
	close(link.fd);
}

int cmd_list(const struct args *args, struct json_object *out)
{
	struct json_object *array;
	struct vm_set set = {};
	uint64_t *pins;
	size_t nr_pins;
	int kind;

	/* Pins first: what is pinned before and not found after is dead. */
	nr_pins = pin_list(&pins);
	kind = vm_find_all(&set);
	if (kind)
		goto out;

	array = put_array(out, "vms");
	for (size_t i = 0; i < set.nr; i++)
		put_row(array, &set.vms[i]);
	array = put_array(out, "defunct");
	for (size_t i = 0; i < nr_pins; i++)
		if (!is_alive(&set, pins[i]))
			put_defunct(array, &set, pins[i]);
	put_u64(out, "hidden_processes", set.hidden);
	if (set.hidden)
		notice("cannot look into %u processes: not permitted; run as root to see their VMs",
		       set.hidden);
out:
	vm_set_free(&set);
	free(pins);
	return kind;
}

void show_list(struct json_object *out)
{
	struct json_object *array = get(out, "vms");

	printf("%-6s %-8s %-20s %-10s %-16s %-6s %-6s %-12s %s\n", "VM", "PID", "NAME", "STATE",
	       "POLICY", "MAP", "LINK", "BYTES", "PAGES");
	for (size_t i = 0; i < json_object_array_length(array); i++) {
		struct json_object *o = json_object_array_get_idx(array, i);
		const char *policy = get_str(o, "policy");

		printf("%-6s %-8s %-20s %-10s %-16s %-6s %-6s %-12s %s\n", get_str(o, "vm_id"),
		       get_str(o, "pid"), get_str(o, "name"), get_str(o, "state"),
		       *policy ? policy : "-", get_str(o, "map_id"), get_str(o, "link_id"),
		       get_str(o, "bytes"), get_str(o, "pages"));
	}

	array = get(out, "defunct");
	for (size_t i = 0; i < json_object_array_length(array); i++) {
		struct json_object *o = json_object_array_get_idx(array, i);

		printf("%-6s %-8s %-20s %-10s %-16s %-6s %-6s pinned at %s\n", get_str(o, "vm_id"),
		       "-", "-", get_str(o, "vm"), "-", get_str(o, "map_id"),
		       get_str(o, "link_id"), get_str(o, "pin"));
	}
}
