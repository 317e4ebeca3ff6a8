// SPDX-License-Identifier: GPL-2.0
/*
 * memtest MIB [PASSES [SECONDS [still]]] - fill memory with a pseudo-random pattern, read it back, print a checksum.
 *
 * Every pass writes another pattern, to every word, and verifies all of them after the whole area is written, in another
 * order of pages. The checksum depends on MIB and PASSES alone, so two machines can be compared. With SECONDS it goes on
 * for at least that long, or until SIGTERM; the checksum is then that of the first PASSES. With "still" what comes after
 * PASSES writes nothing: it verifies the last pattern again.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / sizeof(uint64_t))

static volatile sig_atomic_t stop;

static void on_term(int sig)
{
	stop = sig;
}

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static void fill(uint64_t *page, uint64_t seed)
{
	for (unsigned int i = 0; i < WORDS; i++)
		page[i] = seed = seed * 6364136223846793005ull + 1442695040888963407ull;
}

static int verify(const uint64_t *page, uint64_t seed, uint64_t *sum)
{
	for (unsigned int i = 0; i < WORDS; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		if (page[i] != seed) {
			fprintf(stderr, "memtest: %p: found %016llx, wrote %016llx\n", (void *)&page[i],
				(unsigned long long)page[i], (unsigned long long)seed);
			return 1;
		}
		*sum += page[i];
	}
	return 0;
}

int main(int argc, char **argv)
{
	unsigned long mib = argc > 1 ? strtoul(argv[1], NULL, 0) : 0;
	unsigned long passes = argc > 2 ? strtoul(argv[2], NULL, 0) : 3;
	unsigned long seconds = argc > 3 ? strtoul(argv[3], NULL, 0) : 0;
	bool still = argc > 4 && !strcmp(argv[4], "still");
	unsigned long pages = mib << 8, p, i, pattern;
	time_t end = time(NULL) + seconds;
	uint64_t sum = 0, extra = 0;
	uint64_t *area;

	if (!mib || !passes) {
		fprintf(stderr, "usage: memtest MIB [PASSES [SECONDS [still]]]\n");
		return 2;
	}
	area = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED) {
		perror("memtest: mmap");
		return 2;
	}
	signal(SIGTERM, on_term);
	for (p = 0; p < passes || (!stop && time(NULL) < end); p++) {
		pattern = still && p >= passes ? passes - 1 : p;
		for (i = 0; i < pages && pattern == p; i++)
			fill(area + i * WORDS, mix(p << 40 | i));
		for (i = pages; i-- > 0;)
			if (verify(area + i * WORDS, mix(pattern << 40 | i), p < passes ? &sum : &extra))
				return 1;
		if (pattern != p)
			usleep(100000);
	}
	printf("memtest %lu MiB %lu passes checksum %016llx\n", mib, passes, (unsigned long long)sum);
	return 0;
}
