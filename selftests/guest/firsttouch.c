// SPDX-License-Identifier: GPL-2.0
/*
 * firsttouch MIB [REPEAT [HOLD]] - write once to each 4K page of fresh memory without huge pages; print TSC cycles per page.
 *
 * With REPEAT the same pages are given back with MADV_DONTNEED and touched again, one line each time: what remains then is
 * the cost of a fault in this very kernel alone. With HOLD it keeps the memory for that many seconds, in the background,
 * so that a second run gets other pages.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <x86intrin.h>

int main(int argc, char **argv)
{
	unsigned long mib = argc > 1 ? strtoul(argv[1], NULL, 0) : 0;
	unsigned long repeat = argc > 2 ? strtoul(argv[2], NULL, 0) : 1;
	unsigned long hold = argc > 3 ? strtoul(argv[3], NULL, 0) : 0;
	unsigned long pages = mib << 8, i, r;
	unsigned long long t0, t1;
	volatile char *area;

	if (!mib) {
		fprintf(stderr, "usage: firsttouch MIB [REPEAT [HOLD]]\n");
		return 2;
	}
	area = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (area == MAP_FAILED) {
		perror("firsttouch: mmap");
		return 2;
	}
	madvise((void *)area, mib << 20, MADV_NOHUGEPAGE);
	for (r = 0; r < repeat; r++) {
		if (r)
			madvise((void *)area, mib << 20, MADV_DONTNEED);
		t0 = __rdtsc();
		for (i = 0; i < pages; i++)
			area[i << 12] = 1;
		t1 = __rdtsc();
		printf("firsttouch pages %lu cycles %llu per_page %llu\n", pages, t1 - t0, (t1 - t0) / pages);
	}
	if (hold) {
		fflush(stdout);
		/* The child's copy-on-write mapping keeps the pages. */
		if (fork() == 0) {
			freopen("/dev/null", "w", stdout);
			freopen("/dev/null", "w", stderr);
			setsid();
			sleep(hold);
		}
	}
	return 0;
}
