// SPDX-License-Identifier: GPL-2.0
/*
 * Options are data: parsing, help and the JSON that test-help.sh compares
 * with the man page are all made from the table below.  It is getopt and not
 * argp because argp prints errors itself, in two lines and never as JSON.
 */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kpopctl.h"

enum {
	OPT_VM_ID = 256,
	OPT_FD,
	OPT_TIMEOUT,
	OPT_EXPECT,
	OPT_CAP,
	OPT_ONLY,
	OPT_DEFUNCT,
	OPT_KNOB,
};

static const struct option_row {
	int key;		/* the short option too, when below 256 */
	const char *name;
	const char *value;
	unsigned int takes;
	const char *help;
} rows[] = {
	{ 'p', "pid", "PID", TAKES_VM, "the VM of process PID" },
	{ 'n', "name", "NAME", TAKES_VM, "the VM that QEMU runs with -name NAME" },
	{ OPT_VM_ID, "vm-id", "ID", TAKES_VM, "the VM with this id, as list shows it" },
	{ OPT_FD, "fd", "FD", TAKES_VM, "of several VMs of a process, the one behind its descriptor FD" },
	{ OPT_EXPECT, "expect-map", "ID", TAKES_EXPECT, "swap only if the policy attached is map ID" },
	{ OPT_KNOB, "knob", "NAME=NUMBER", TAKES_KNOB, "set a const volatile integer of the policy; may be given again" },
	{ OPT_TIMEOUT, "timeout", "SECONDS", TAKES_TIMEOUT, "how long to wait for the kernel to finish (30)" },
	{ OPT_CAP, "cap", "BYTES", TAKES_SET, "cap on KPOP memory, with K, M or G; 0 is the default" },
	{ OPT_ONLY, "kpop-only", "on|off", TAKES_SET, "on: no legacy nested paging for this VM" },
	{ OPT_DEFUNCT, "defunct", NULL, TAKES_DEFUNCT, "instead of one VM: clean up after all VMs that died" },
	{ 'j', "json", NULL, TAKES_COMMON, "print JSON on stdout, also for errors" },
	{ 'd', "debug", NULL, TAKES_COMMON, "show what libbpf and the verifier say" },
	{ 'h', "help", NULL, TAKES_COMMON, "show help" },
};

#define NR_ROWS (sizeof(rows) / sizeof(rows[0]))

static bool parse_u64(const char *text, uint64_t max, bool suffix, uint64_t *v)
{
	unsigned int shift = 0;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	*v = strtoull(text, &end, 0);
	if (errno)
		return false;
	if (suffix && *end) {
		static const char units[] = "KMG";
		const char *unit = strchr(units, toupper((unsigned char)*end));

		if (!unit || end[1])
			return false;
		shift = 10 * (unit - units + 1);
		end++;
	}
	if (*end || *v > max >> shift)
		return false;
	*v <<= shift;
	return true;
}

static bool set_option(int key, const char *value, struct args *args)
{
	uint64_t v = 0;

	switch (key) {
	case 'j':
		args->json = true;
		return true;
	case 'd':
		args->debug = true;
		return true;
	case 'h':
		args->help = true;
		return true;
	case 'n':
		args->name = value;
		return value[0];
	case 'p':
		if (!parse_u64(value, INT32_MAX, false, &v) || !v)
			return false;
		args->pid = v;
		return true;
	case OPT_VM_ID:
		args->by_id = true;
		return parse_u64(value, UINT64_MAX, false, &args->vm_id);
	case OPT_FD:
		if (!parse_u64(value, INT32_MAX, false, &v))
			return false;
		args->fd = v;
		return true;
	case OPT_EXPECT:
		if (!parse_u64(value, UINT32_MAX, false, &v) || !v)
			return false;
		args->expect_map = v;
		return true;
	case OPT_TIMEOUT:
		if (!parse_u64(value, 24 * 3600, false, &v) || !v)
			return false;
		args->timeout = v;
		return true;
	case OPT_CAP:
		args->has_cap = true;
		return parse_u64(value, INT64_MAX, true, &args->cap);
	case OPT_ONLY:
		args->only = !strcmp(value, "on") ? 1 : !strcmp(value, "off") ? 0 : -1;
		return args->only >= 0;
	case OPT_KNOB:
		if (args->nr_knobs == MAX_KNOBS)
			return false;
		args->knobs[args->nr_knobs++] = value;
		return true;
	case OPT_DEFUNCT:
		args->defunct = true;
		return true;
	}
	return false;
}

static const struct option_row *find_row(int key)
{
	for (size_t i = 0; i < NR_ROWS; i++)
		if (rows[i].key == key)
			return &rows[i];
	return NULL;
}

/*
 * argv[0] is the program or the command.  With @stop_early everything from
 * the first word on is left for the command's own options.
 */
int parse_options(int argc, char **argv, unsigned int takes, bool stop_early,
		  struct args *args, int *first_word)
{
	struct option longs[NR_ROWS + 1] = {};
	char shorts[2 * NR_ROWS + 3];
	const char *see = stop_early ? "" : argv[0];
	size_t nl = 0, ns = 0;
	int key, at;

	if (stop_early)
		shorts[ns++] = '+';
	shorts[ns++] = ':';
	for (size_t i = 0; i < NR_ROWS; i++) {
		if (!(rows[i].takes & takes))
			continue;
		longs[nl].name = rows[i].name;
		longs[nl].has_arg = rows[i].value ? required_argument : no_argument;
		longs[nl++].val = rows[i].key;
		if (rows[i].key < 256) {
			shorts[ns++] = rows[i].key;
			if (rows[i].value)
				shorts[ns++] = ':';
		}
	}
	shorts[ns] = 0;

	opterr = 0;
	optind = 0;	/* glibc: start over, this runs twice */
	while (at = optind ? optind : 1,
	       (key = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		if (key == '?' || key == ':') {
			const char *what = optind > at ? argv[optind - 1] : argv[at];

			fail(KIND_USAGE, key == '?' ? "cannot parse option '%s': not known here" :
			     "cannot parse option '%s': its value is missing", what);
			return advise(KIND_USAGE, "see kpopctl help%s%s", *see ? " " : "", see);
		}
		if (!set_option(key, optarg, args)) {
			const struct option_row *row = find_row(key);

			fail(KIND_USAGE, "cannot parse --%s '%s': not a valid %s", row->name,
			     optarg, row->value);
			return advise(KIND_USAGE, "see kpopctl help%s%s", *see ? " " : "", see);
		}
	}
	*first_word = optind;
	return 0;
}

/* -j counts wherever it stands, also behind something that does not parse. */
bool wants_json(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
		const char *arg = argv[i];

		if (!strcmp(arg, "--json"))
			return true;
		if (arg[0] == '-' && arg[1] != '-' && strchr(arg, 'j') &&
		    strspn(arg + 1, "jdh") == strlen(arg + 1))
			return true;
	}
	return false;
}

void print_options(unsigned int takes)
{
	for (size_t i = 0; i < NR_ROWS; i++) {
		char left[40];

		if (!(rows[i].takes & takes))
			continue;
		snprintf(left, sizeof(left), "%c%c%s--%s%s%s",
			 rows[i].key < 256 ? '-' : ' ', rows[i].key < 256 ? rows[i].key : ' ',
			 rows[i].key < 256 ? ", " : "  ", rows[i].name,
			 rows[i].value ? " " : "", rows[i].value ? rows[i].value : "");
		printf("  %-24s %s\n", left, rows[i].help);
	}
}

void print_usage(const struct command *cmd)
{
	printf("kpopctl [-j] [-d] %s%s%s%s\n", cmd->name, cmd->word ? " " : "",
	       cmd->word ? cmd->word : "",
	       cmd->options & TAKES_VM ? " { --pid PID | --name NAME | --vm-id ID } [OPTIONS]" : "");
}

struct json_object *json_options(unsigned int takes)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; i < NR_ROWS; i++) {
		struct json_object *o;

		if (!(rows[i].takes & takes))
			continue;
		o = append_object(array);
		put_str(o, "name", rows[i].name);
		if (rows[i].key < 256) {
			char c[2] = { rows[i].key };

			put_str(o, "short", c);
		}
		put_str(o, "value", rows[i].value);
		put_str(o, "help", rows[i].help);
	}
	return array;
}
