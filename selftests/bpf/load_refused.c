// SPDX-License-Identifier: GPL-2.0
/*
 * load_refused OBJ [REASON]: is this BPF object refused?
 *
 * Loads and attaches OBJ's struct_ops, with vm_fd -1 as it is in the object.
 * Prints why it was refused; with REASON that text has to be part of it.
 *
 * Exit: 0 refused, 1 accepted, 2 cannot tell (no such file, no KPOP in this
 * kernel, refused for another reason): neither is a pass.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

enum { REFUSED, ACCEPTED, CANNOT_TELL };

static char said[1 << 20];
static size_t said_len;

static int keep_said(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	int n;

	if (level != LIBBPF_WARN)
		return 0;
	n = vsnprintf(said + said_len, sizeof(said) - said_len, fmt, ap);
	if (n > 0)
		said_len += (size_t)n < sizeof(said) - said_len ?
			    (size_t)n : sizeof(said) - said_len - 1;
	return 0;
}

/* The verifier's last word before its statistics, else libbpf's first line. */
static void print_reason(const char *obj, const char *when, int err)
{
	const char *end = strstr(said, "\nprocessed "), *from = said;

	if (!end)
		end = said + strcspn(said, "\n");
	else
		for (from = end; from > said && from[-1] != '\n'; from--)
			;
	printf("%s: refused at %s (%s)", obj, when, strerror(err));
	if (end > from)
		printf(": %.*s", (int)(end - from), from);
	printf("\n");
}

static int refused(const char *obj, const char *when, int err,
		   const char *reason)
{
	print_reason(obj, when, err);
	if (strstr(said, "not found in kernel or module BTFs") ||
	    strstr(said, "is not found in kernel BTF")) {
		fprintf(stderr, "%s: this kernel has no KPOP (load kvm.ko)\n",
			obj);
		return CANNOT_TELL;
	}
	if (reason && !strstr(said, reason) && !strstr(strerror(err), reason)) {
		fprintf(stderr, "%s: expected the reason \"%s\", got:\n%s\n",
			obj, reason, said);
		return CANNOT_TELL;
	}
	return REFUSED;
}

static struct bpf_map *find_ops(struct bpf_object *obj)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, obj)
		if (bpf_map__type(map) == BPF_MAP_TYPE_STRUCT_OPS)
			return map;
	return NULL;
}

/*
 * A policy with vm_fd -1 that passes every other check is told EBADF when the
 * link is made: that one was accepted.
 */
static int try_attach(const char *path, struct bpf_object *obj,
		      const char *reason)
{
	struct bpf_map *map = find_ops(obj);
	struct bpf_link *link;

	if (!map) {
		fprintf(stderr, "%s: it has no struct_ops\n", path);
		return CANNOT_TELL;
	}

	link = bpf_map__attach_struct_ops(map);
	if (!link && errno != EBADF)
		return refused(path, "attach", errno, reason);
	bpf_link__destroy(link);
	printf("%s: accepted\n", path);
	return ACCEPTED;
}

int main(int argc, char **argv)
{
	const char *path = argv[1], *reason = argc > 2 ? argv[2] : NULL;
	struct bpf_object *obj;
	int err, ret;

	if (argc < 2 || argc > 3) {
		fprintf(stderr, "usage: load_refused OBJ [REASON]\n");
		return CANNOT_TELL;
	}

	libbpf_set_print(keep_said);
	obj = bpf_object__open_file(path, NULL);
	if (!obj) {
		fprintf(stderr, "%s: cannot open: %s\n%s", path,
			strerror(errno), said);
		return CANNOT_TELL;
	}

	err = bpf_object__load(obj);
	if (err == -EPERM && !strstr(said, "BEGIN PROG LOAD LOG")) {
		fprintf(stderr, "%s: may not load BPF: run as root\n", path);
		ret = CANNOT_TELL;
	} else if (err) {
		ret = refused(path, "load", -err, reason);
	} else {
		ret = try_attach(path, obj, reason);
	}
	bpf_object__close(obj);
	return ret;
}
