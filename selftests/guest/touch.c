// SPDX-License-Identifier: GPL-2.0
/*
 * touch MIB [REPEAT] - write once to each 4K page of fresh memory without huge pages; print TSC cycles per page.
 *
 * With REPEAT the same pages are given back with MADV_DONTNEED and touched again, one line each time: what remains then is
 * the cost of a fault in this very kernel alone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <x86intrin.h>

int main(int argc, char **argv)
{
	unsigned long mib = argc > 1 ? strtoul(argv[1], NULL, 0) : 0;
	unsigned long repeat = argc > 2 ? strtoul(argv[2], NULL, 0) : 1;
	unsigned long pages = mib << 8, i, r;
	unsigned long long t0, t1;
	volatile char *area;

	if (!mib) {
		fprintf(stderr, "usage: touch MIB [REPEAT]\n");
		return 2;
	}
	area = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (area == MAP_FAILED) {
		perror("touch: mmap");
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
		printf("touch pages %lu cycles %llu per_page %llu\n", pages, t1 - t0, (t1 - t0) / pages);
	}
	return 0;
}
