// SPDX-License-Identifier: GPL-2.0
/* What /proc says about the process behind a VM. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kpopctl.h"

static ssize_t read_proc(pid_t pid, const char *leaf, char *buf, size_t size)
{
	char path[64];
	ssize_t len, got = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, leaf);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	while ((size_t)got < size - 1 && (len = read(fd, buf + got, size - 1 - got)) > 0)
		got += len;
	close(fd);
	buf[got] = 0;
	return got;
}

/*
 * The name in QEMU's "-name X" or "-name [guest=]X,...": X ends at a comma,
 * two commas are one.
 */
static void qemu_name(const char *value, char *name, size_t size)
{
	size_t n = 0;

	if (!strncmp(value, "guest=", 6))
		value += 6;
	for (; *value && n < size - 1; value++) {
		if (*value == ',' && *++value != ',')
			break;
		name[n++] = *value;
	}
	name[n] = 0;
}

/* QEMU's -name, or false: then @name is the program's. */
bool process_name(pid_t pid, char *name, size_t size)
{
	static char cmdline[128 * 1024];
	ssize_t len = read_proc(pid, "cmdline", cmdline, sizeof(cmdline));
	const char *arg = cmdline, *end = cmdline + (len > 0 ? len : 0);

	for (; arg < end; arg += strlen(arg) + 1) {
		const char *value = arg + strlen(arg) + 1;

		if ((!strcmp(arg, "-name") || !strcmp(arg, "--name")) && value < end) {
			qemu_name(value, name, size);
			return true;
		}
	}
	len = read_proc(pid, "comm", name, size);
	name[len > 0 ? strcspn(name, "\n") : 0] = 0;
	return false;
}

/* Dead, and its parent has not asked yet: the number is still taken. */
bool process_is_dead(pid_t pid)
{
	char stat[512], *state;

	if (read_proc(pid, "stat", stat, sizeof(stat)) <= 0)
		return false;
	state = strrchr(stat, ')');
	return state && state[1] == ' ' && (state[2] == 'Z' || state[2] == 'X');
}
