// SPDX-License-Identifier: GPL-2.0
/*
 * kpopctl - attach, swap and detach KPOP policies of running VMs.
 *
 * A command fills one JSON object.  With -j that object is printed, without
 * it the command's show() prints the same object for people, so that both
 * say the same.  A failure is one line on stderr, or an object with "error"
 * on stdout, and the exit status is its kind.
 */
#include <stdio.h>
#include <string.h>

#include "kpopctl.h"

const struct command commands[] = {
	{ "list", NULL, TAKES_COMMON,
	  "show every VM of the host, and what dead ones left pinned",
	  cmd_list, show_list },
	{ "attach", "OBJ", TAKES_COMMON | TAKES_VM | TAKES_TIMEOUT | TAKES_KNOB,
	  "load the policy in OBJ and attach it to a VM that has none",
	  cmd_attach, show_attach },
	{ "swap", "OBJ", TAKES_COMMON | TAKES_VM | TAKES_TIMEOUT | TAKES_KNOB | TAKES_EXPECT,
	  "replace the policy of a VM by the one in OBJ, without a gap",
	  cmd_swap, show_swap },
	{ "detach", NULL, TAKES_COMMON | TAKES_VM | TAKES_TIMEOUT | TAKES_DEFUNCT,
	  "take the policy off a VM, remove its pins, and wait until it is gone",
	  cmd_detach, show_detach },
	{ "status", NULL, TAKES_COMMON | TAKES_VM,
	  "show everything about one VM: policy, programs, hooks, spaces, last ejection",
	  cmd_status, show_status },
	{ "set", NULL, TAKES_COMMON | TAKES_VM | TAKES_SET,
	  "set a VM's cap on KPOP memory, or kpop-only",
	  cmd_set, show_set },
	{ "help", "[COMMAND]", TAKES_COMMON,
	  "show the commands, or one command's options",
	  cmd_help, show_help },
	{ "version", NULL, TAKES_COMMON,
	  "show the versions of kpopctl, libbpf and the ABI",
	  cmd_version, show_version },
	{ 0 }
};

const struct command *find_command(const char *name)
{
	for (const struct command *cmd = commands; cmd->name; cmd++)
		if (!strcmp(cmd->name, name))
			return cmd;
	return NULL;
}

static int take_word(const struct command *cmd, int argc, char **argv,
		     struct args *args)
{
	int kind;

	if (argc > (cmd->word ? 1 : 0)) {
		kind = fail(KIND_USAGE, "cannot run %s: '%s' is one argument too many",
			    cmd->name, argv[cmd->word ? 1 : 0]);
		return advise(kind, "see kpopctl help %s", cmd->name);
	}
	if (argc) {
		args->word = argv[0];
	} else if (cmd->word && cmd->word[0] != '[') {
		kind = fail(KIND_USAGE, "cannot run %s: %s is missing", cmd->name,
			    cmd->word);
		return advise(kind, "see kpopctl help %s", cmd->name);
	}
	return 0;
}

static int run(int argc, char **argv, struct args *args, struct json_object *out,
	       const struct command **cmdp)
{
	const struct command *cmd;
	int kind, first;

	kind = parse_options(argc, argv, TAKES_COMMON, true, args, &first);
	if (kind)
		return kind;
	argc -= first;
	argv += first;

	if (!argc) {
		if (!args->help)
			return advise(fail(KIND_USAGE, "cannot run: no command given"),
				      "see kpopctl help");
		*cmdp = find_command("help");
		return cmd_help(args, out);
	}

	cmd = find_command(argv[0]);
	if (!cmd)
		return advise(fail(KIND_USAGE, "cannot run '%s': no such command", argv[0]),
			      "see kpopctl help");

	kind = parse_options(argc, argv, cmd->options, false, args, &first);
	if (kind)
		return kind;
	if (args->help) {
		args->word = cmd->name;
		*cmdp = find_command("help");
		return cmd_help(args, out);
	}
	kind = take_word(cmd, argc - first, argv + first, args);
	if (kind)
		return kind;

	debug = args->debug;
	*cmdp = cmd;
	return cmd->run(args, out);
}

int main(int argc, char **argv)
{
	struct args args = { .fd = -1, .timeout = 30, .only = -1 };
	struct json_object *out = json_object_new_object();
	const struct command *cmd = NULL;
	int kind;

	/* Also a mistake before or in front of -j is answered in JSON. */
	args.json = wants_json(argc, argv);

	kind = run(argc, argv, &args, out, &cmd);
	if (kind)
		print_failure(args.json);
	else if (args.json)
		puts(json_object_to_json_string_ext(out, JSON_C_TO_STRING_PRETTY |
						    JSON_C_TO_STRING_NOSLASHESCAPE));
	else
		cmd->show(out);

	json_object_put(out);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "kpopctl: cannot write the answer to stdout: %m; free space there\n");
		return kind ? kind : KIND_INTERNAL;
	}
	return kind;
}
