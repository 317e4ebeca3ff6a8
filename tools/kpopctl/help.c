// SPDX-License-Identifier: GPL-2.0
/* help and version; all text comes from the tables that also parse. */
#include <stdio.h>

#include <bpf/libbpf.h>

#include "kpopctl.h"

int cmd_help(const struct args *args, struct json_object *out)
{
	struct json_object *array;

	if (args->word) {
		if (!find_command(args->word))
			return advise(fail(KIND_USAGE, "cannot show help of '%s': no such command",
					   args->word), "see kpopctl help");
		put_str(out, "command", args->word);
	}

	array = put_array(out, "commands");
	for (const struct command *cmd = commands; cmd->name; cmd++) {
		struct json_object *o;

		if (args->word && cmd != find_command(args->word))
			continue;
		o = append_object(array);
		put_str(o, "name", cmd->name);
		put_str(o, "argument", cmd->word);
		put_bool(o, "selects_vm", cmd->options & TAKES_VM);
		put_str(o, "help", cmd->help);
		json_object_object_add(o, "options", json_options(cmd->options));
	}

	array = put_array(out, "exit_status");
	for (int kind = 0; kind < NR_KINDS; kind++) {
		struct json_object *o = append_object(array);

		put_u64(o, "status", kind);
		put_str(o, "kind", kind_name(kind));
		put_str(o, "help", kind_help(kind));
	}
	return 0;
}

void show_help(struct json_object *out)
{
	const struct command *cmd = NULL;

	if (get(out, "command"))
		cmd = find_command(get_str(out, "command"));
	if (cmd) {
		printf("Usage: ");
		print_usage(cmd);
		printf("%s\n\nOptions:\n", cmd->help);
		print_options(cmd->options);
		return;
	}

	printf("Usage: kpopctl [-j] [-d] COMMAND [OPTIONS]\n"
	       "Attach, swap and detach KPOP policies of running VMs.\n\nCommands:\n");
	for (cmd = commands; cmd->name; cmd++) {
		char left[32];

		snprintf(left, sizeof(left), "%s%s%s", cmd->name, cmd->word ? " " : "",
			 cmd->word ? cmd->word : "");
		printf("  %-16s %s\n", left, cmd->help);
	}
	printf("\nWhich VM (attach, swap, detach, status, set):\n");
	print_options(TAKES_VM);
	printf("\nEverywhere:\n");
	print_options(TAKES_COMMON);
	printf("\nExit status:\n");
	for (int kind = 0; kind < NR_KINDS; kind++)
		printf("  %d  %-10s %s\n", kind, kind_name(kind), kind_help(kind));
}

int cmd_version(const struct args *args, struct json_object *out)
{
	put_str(out, "kpopctl", KPOPCTL_VERSION);
	put_str(out, "libbpf", libbpf_version_string());
	put_u64(out, "abi", KPOP_ABI_VERSION);
	return 0;
}

void show_version(struct json_object *out)
{
	printf("kpopctl %s, libbpf %s, KPOP ABI %u\n", get_str(out, "kpopctl"),
	       get_str(out, "libbpf"), (unsigned int)get_u64(out, "abi"));
}
