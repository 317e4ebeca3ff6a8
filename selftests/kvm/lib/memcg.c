// SPDX-License-Identifier: GPL-2.0
/* A memory cgroup of a test: limits, and what the kernel says of it. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kpop_test.h"

#define CGROUPS "/sys/fs/cgroup/"

static int memcg_open(const char *group, const char *file, int flags)
{
	char path[160];

	snprintf(path, sizeof(path), CGROUPS "%s/%s", group, file);
	return open(path, flags | O_CLOEXEC);
}

void memcg_make(const char *group)
{
	char path[160];
	int fd;

	snprintf(path, sizeof(path), CGROUPS "%s", group);
	mkdir(path, 0755);
	fd = memcg_open(group, "memory.max", O_RDONLY);
	TEST_ASSERT(fd >= 0, "no memory controller in %s", path);
	close(fd);
}

/* False if anything of it is left. */
bool memcg_remove(const char *group)
{
	char path[160];

	snprintf(path, sizeof(path), CGROUPS "%s", group);
	return !rmdir(path);
}

bool memcg_write(const char *group, const char *file, const char *what)
{
	int fd = memcg_open(group, file, O_WRONLY);
	bool ok = fd >= 0 && write(fd, what, strlen(what)) == strlen(what);

	if (fd >= 0)
		close(fd);
	return ok;
}

/* In bytes; 0: no limit. */
void memcg_limit(const char *group, u64 bytes)
{
	char what[32] = "max";

	if (bytes)
		snprintf(what, sizeof(what), "%" PRIu64, bytes);
	TEST_ASSERT(memcg_write(group, "memory.max", what), "memory.max of %s", group);
}

/* The caller and what it forks from now on. */
void memcg_enter(const char *group)
{
	TEST_ASSERT(memcg_write(group, "cgroup.procs", "0"), "cgroup.procs of %s", group);
}

/* A number of a file: behind @key, or the first one. */
u64 memcg_read(const char *group, const char *file, const char *key)
{
	char text[4096], *line;
	int fd = memcg_open(group, file, O_RDONLY);
	ssize_t len;

	TEST_ASSERT(fd >= 0, "no %s in %s", file, group);
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	TEST_ASSERT(len >= 0, "%s of %s: %s", file, group, strerror(errno));
	text[len] = 0;
	for (line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, key, strlen(key)))
			return strtoull(line + strlen(key), NULL, 10);
	}
	return 0;
}

/* memory.peak from now on, as this descriptor sees it. */
int memcg_peak_begin(const char *group)
{
	int fd = memcg_open(group, "memory.peak", O_RDWR);

	TEST_ASSERT(fd >= 0 && write(fd, "reset", 5) == 5, "memory.peak of %s", group);
	return fd;
}

u64 memcg_peak(int fd)
{
	char text[32] = "";

	TEST_ASSERT(pread(fd, text, sizeof(text) - 1, 0) > 0, "memory.peak");
	return strtoull(text, NULL, 10);
}
