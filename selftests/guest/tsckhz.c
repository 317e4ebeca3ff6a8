// SPDX-License-Identifier: GPL-2.0
/*
 * tsckhz - the rate of this machine's TSC in kHz, also on a busy one: a reading that was held up is left out.
 */
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

struct stamp {
	double ns;
	unsigned long long tsc, width;
};

/* The clock, and the TSC before and after it, as close together as may be. */
static struct stamp now(void)
{
	struct stamp best = { .width = -1 };
	unsigned long long before, after;
	struct timespec ts;
	int i;

	for (i = 0; i < 1000; i++) {
		before = __rdtsc();
		clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
		after = __rdtsc();
		if (after - before < best.width)
			best = (struct stamp){ ts.tv_sec * 1e9 + ts.tv_nsec, before + (after - before) / 2,
					       after - before };
	}
	return best;
}

int main(void)
{
	struct stamp a = now(), b;

	usleep(100000);
	b = now();
	printf("%.0f\n", (b.tsc - a.tsc) / (b.ns - a.ns) * 1e6);
	return 0;
}
