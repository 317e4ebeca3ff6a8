// SPDX-License-Identifier: GPL-2.0
/* What kpopctl says: the one failure, notices, and JSON helpers. */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kpopctl.h"

bool debug;

static struct {
	enum kind kind;
	char message[1024];
	char next[512];
} failure = { KIND_INTERNAL, "internal error without a message", "" };

static const struct {
	const char *name;
	const char *help;
} kinds[NR_KINDS] = {
	[KIND_OK]	 = { "ok", "done" },
	[KIND_INTERNAL]	 = { "internal", "something failed that should not" },
	[KIND_USAGE]	 = { "usage", "the command line or a file name is wrong" },
	[KIND_NO_VM]	 = { "no-vm", "no such VM" },
	[KIND_DEFUNCT]	 = { "defunct", "the VM is dead, or its link no longer holds a policy" },
	[KIND_REFUSED]	 = { "refused", "not a policy, or refused by libbpf, the verifier or KVM" },
	[KIND_RIGHTS]	 = { "rights", "not permitted" },
	[KIND_NO_KPOP]	 = { "no-kpop", "this kernel, or KVM for this VM, has no KPOP" },
	[KIND_CONFLICT]	 = { "conflict", "busy, or somebody else was faster" },
	[KIND_AMBIGUOUS] = { "ambiguous", "more than one VM fits" },
};

const char *kind_name(enum kind kind)
{
	return kinds[kind].name;
}

const char *kind_help(enum kind kind)
{
	return kinds[kind].help;
}

/* A message is one line, whatever the kernel or a command line put into it. */
static void one_line(char *text)
{
	char *to = text;

	for (char *c = text; *c; c++) {
		if (isspace((unsigned char)*c)) {
			if (to > text && to[-1] != ' ')
				*to++ = ' ';
		} else {
			*to++ = iscntrl((unsigned char)*c) ? '?' : *c;
		}
	}
	while (to > text && to[-1] == ' ')
		to--;
	*to = 0;
}

/* Keep a failure, in place of an older one; returns its kind. */
int fail(enum kind kind, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(failure.message, sizeof(failure.message), fmt, ap);
	va_end(ap);
	one_line(failure.message);
	failure.kind = kind;
	failure.next[0] = 0;
	return kind;
}

/* Say what to do about the failure just kept. */
int advise(int kind, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(failure.next, sizeof(failure.next), fmt, ap);
	va_end(ap);
	one_line(failure.next);
	return kind;
}

void print_failure(bool json)
{
	struct json_object *top, *error;

	if (!failure.next[0])
		advise(failure.kind, "run it again with --debug, and see dmesg on the host");
	if (!json) {
		fprintf(stderr, "kpopctl: %s; %s\n", failure.message, failure.next);
		return;
	}
	top = json_object_new_object();
	error = put_object(top, "error");
	put_str(error, "kind", kind_name(failure.kind));
	put_u64(error, "status", failure.kind);
	put_str(error, "message", failure.message);
	put_str(error, "next", failure.next);
	puts(json_object_to_json_string_ext(top, JSON_C_TO_STRING_PRETTY |
					    JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(top);
}

void notice(const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	one_line(text);
	fprintf(stderr, "kpopctl: %s\n", text);
}

void put_u64(struct json_object *o, const char *key, uint64_t v)
{
	json_object_object_add(o, key, json_object_new_uint64(v));
}

void put_bool(struct json_object *o, const char *key, bool v)
{
	json_object_object_add(o, key, json_object_new_boolean(v));
}

/*
 * Names come from the kernel, from command lines and from BPF objects: what
 * is not printable ASCII could make the JSON invalid or upset a terminal.
 */
void put_str(struct json_object *o, const char *key, const char *v)
{
	char text[1024];
	size_t i;

	if (!v) {
		json_object_object_add(o, key, NULL);
		return;
	}
	for (i = 0; v[i] && i < sizeof(text) - 1; i++)
		text[i] = v[i] >= 0x20 && v[i] < 0x7f ? v[i] : '?';
	text[i] = 0;
	json_object_object_add(o, key, json_object_new_string(text));
}

struct json_object *put_object(struct json_object *o, const char *key)
{
	struct json_object *child = json_object_new_object();

	json_object_object_add(o, key, child);
	return child;
}

struct json_object *put_array(struct json_object *o, const char *key)
{
	struct json_object *child = json_object_new_array();

	json_object_object_add(o, key, child);
	return child;
}

struct json_object *append_object(struct json_object *array)
{
	struct json_object *child = json_object_new_object();

	json_object_array_add(array, child);
	return child;
}

struct json_object *get(struct json_object *o, const char *key)
{
	struct json_object *v = NULL;

	json_object_object_get_ex(o, key, &v);
	return v;
}

uint64_t get_u64(struct json_object *o, const char *key)
{
	return json_object_get_uint64(get(o, key));
}

bool get_bool(struct json_object *o, const char *key)
{
	return json_object_get_boolean(get(o, key));
}

const char *get_str(struct json_object *o, const char *key)
{
	const char *v = json_object_get_string(get(o, key));

	return v ? v : "";
}
