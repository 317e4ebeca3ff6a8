// SPDX-License-Identifier: GPL-2.0
/*
 * This one runs in L1, as an ordinary VMM: L1's memory management sees what L2
 * accesses, and what it does not, whatever pages L2.  L2 reads one half of its
 * memory over and over ("hot"); the other half it touched once ("cold").
 *
 *   DAMON on this process: the hot half is accessed, the cold one is not; then
 *   L2 goes to the other half, and DAMON follows.  In 4K pages, and in 2M.
 *   Reclaim: of what L1 takes from this process's memcg the cold half goes to
 *   swap, and hardly a page of the hot one.  In L1 there is swap, and its
 *   administrator chose between MGLRU and the older lists: cases/age_l1.sh.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>
#include <linux/compiler.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "lib/kpop_test.h"

#define SLOT	10
#define HALF	1024UL			/* pages */
#define GAP	512UL			/* so that DAMON never takes both for one region */
#define PAGES	(2 * HALF + GAP)
#define GPA	0x40000000ULL		/* on 2M, so that it may be huge */
#define BYTES	(HALF * 4096)
#define OTHER	(BYTES + GAP * 4096)	/* from one half to the other */

/* Which half L2 reads, 0 or 1, and how often it has. */
static u64 half, laps, stop;

static void l2_code(void)
{
	u64 i;

	for (i = 0; i < PAGES; i++)
		*(volatile u64 *)(GPA + i * 4096) = i;
	GUEST_SYNC(1);
	while (!READ_ONCE(stop)) {
		for (i = 0; i < HALF; i++)
			*(volatile u64 *)(GPA + READ_ONCE(half) * OTHER + i * 4096);
		WRITE_ONCE(laps, laps + 1);
	}
	GUEST_DONE();
}

struct l2_vm {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	pthread_t thread;
	void *mem;
};

static void *l2_thread(void *vcpu)
{
	vcpu_run(vcpu);
	TEST_ASSERT_EQ(get_ucall(vcpu, NULL), UCALL_DONE);
	return NULL;
}

static void l2_start(struct l2_vm *l2, enum vm_mem_backing_src_type src)
{
	half = 0;
	laps = 0;
	stop = 0;
	l2->vm = vm_create_with_one_vcpu(&l2->vcpu, l2_code);
	vm_userspace_mem_region_add(l2->vm, src, GPA, SLOT, PAGES, 0);
	virt_map(l2->vm, GPA, GPA, PAGES);
	l2->mem = addr_gpa2hva(l2->vm, GPA);
	vcpu_run(l2->vcpu);
	TEST_ASSERT_EQ(get_ucall(l2->vcpu, NULL), UCALL_SYNC);
	pthread_create(&l2->thread, NULL, l2_thread, l2->vcpu);
}

/* Until L2 has read all of its half once more. */
static void l2_lap(struct l2_vm *l2)
{
	volatile u64 *count = addr_gva2hva(l2->vm, (vm_vaddr_t)&laps);
	u64 end = *count + 2;

	TEST_ASSERT(kst_wait(*count >= end, 30000), "L2 does not go on");
}

static void l2_end(struct l2_vm *l2)
{
	stop = 1;
	sync_global_to_guest(l2->vm, stop);
	pthread_join(l2->thread, NULL);
	kvm_vm_free(l2->vm);
}

/* ---- DAMON ---- */

#define DAMON		"/sys/kernel/mm/damon/admin/kdamonds/"
#define SAMPLE_US	50000UL
#define AGGR_US		(20 * SAMPLE_US)

static void damon_write(const char *file, const char *fmt, ...)
{
	char path[200], text[40];
	va_list ap;
	int fd, len;

	va_start(ap, fmt);
	len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(path, sizeof(path), DAMON "%s", file);
	fd = open(path, O_WRONLY);
	TEST_ASSERT(fd >= 0 && write(fd, text, len) == len, "'%s' to %s: %s", text, path,
		    strerror(errno));
	close(fd);
}

static u64 damon_read(const char *region, const char *file)
{
	char path[200], text[40] = "";
	int fd;

	snprintf(path, sizeof(path), DAMON "0/contexts/0/schemes/0/tried_regions/%s/%s", region,
		 file);
	fd = open(path, O_RDONLY);
	TEST_ASSERT(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0, "read of %s", path);
	close(fd);
	return strtoull(text, NULL, 10);
}

static void damon_begin(void *mem)
{
	u64 from = (u64)mem;

	damon_write("nr_kdamonds", "1");
	damon_write("0/contexts/nr_contexts", "1");
	/* This process, at fixed addresses. */
	damon_write("0/contexts/0/operations", "fvaddr");
	damon_write("0/contexts/0/monitoring_attrs/intervals/sample_us", "%lu", SAMPLE_US);
	damon_write("0/contexts/0/monitoring_attrs/intervals/aggr_us", "%lu", AGGR_US);
	damon_write("0/contexts/0/monitoring_attrs/intervals/update_us", "%lu", 60 * AGGR_US);
	damon_write("0/contexts/0/monitoring_attrs/nr_regions/min", "10");
	damon_write("0/contexts/0/monitoring_attrs/nr_regions/max", "40");
	damon_write("0/contexts/0/targets/nr_targets", "1");
	damon_write("0/contexts/0/targets/0/pid_target", "%d", getpid());
	damon_write("0/contexts/0/targets/0/regions/nr_regions", "2");
	damon_write("0/contexts/0/targets/0/regions/0/start", "%lu", from);
	damon_write("0/contexts/0/targets/0/regions/0/end", "%lu", from + BYTES);
	damon_write("0/contexts/0/targets/0/regions/1/start", "%lu", from + OTHER);
	damon_write("0/contexts/0/targets/0/regions/1/end", "%lu", from + OTHER + BYTES);
	damon_write("0/contexts/0/schemes/nr_schemes", "1");
	damon_write("0/contexts/0/schemes/0/action", "stat");
	damon_write("0/contexts/0/schemes/0/access_pattern/sz/max", "%lu", ~0UL >> 1);
	damon_write("0/contexts/0/schemes/0/access_pattern/nr_accesses/max", "1000");
	damon_write("0/contexts/0/schemes/0/access_pattern/age/max", "100000");
	damon_write("0/state", "on");
}

static void damon_end(void)
{
	damon_write("0/state", "off");
	damon_write("nr_kdamonds", "0");
}

/* Bytes of each half that DAMON saw accesses to in its last interval; returns all that it watches. */
static u64 damon_look(void *mem, u64 *accessed)
{
	char path[200];
	struct dirent *d;
	u64 all = 0;
	DIR *dir;

	memset(accessed, 0, 2 * sizeof(*accessed));
	damon_write("0/state", "update_schemes_tried_regions");
	snprintf(path, sizeof(path), DAMON "0/contexts/0/schemes/0/tried_regions");
	dir = opendir(path);
	TEST_ASSERT(dir, "no %s", path);
	while ((d = readdir(dir))) {
		u64 start, size;

		if (d->d_name[0] < '0' || d->d_name[0] > '9')
			continue;
		start = damon_read(d->d_name, "start");
		size = damon_read(d->d_name, "end") - start;
		all += size;
		if (damon_read(d->d_name, "nr_accesses"))
			accessed[start >= (u64)mem + OTHER] += size;
	}
	closedir(dir);
	return all;
}

#define LOOKS	30

static void test_damon(enum vm_mem_backing_src_type src, const char *pages)
{
	u64 accessed[2], all, i;
	struct l2_vm l2;

	l2_start(&l2, src);
	damon_begin(l2.mem);
	for (; half < 2; half++) {
		sync_global_to_guest(l2.vm, half);
		/* The interval in which L2 goes over to the other half has accesses to both. */
		for (i = 0; i < LOOKS; i++) {
			usleep(AGGR_US);
			all = damon_look(l2.mem, accessed);
			if (all == 2 * BYTES && accessed[half] >= BYTES - BYTES / 8 &&
			    accessed[!half] <= BYTES / 8)
				break;
		}
		printf("# %s: L2 reads half %lu: after %lu intervals DAMON has accesses to %lu KiB, in the other half to %lu\n",
		       pages, half, i + 1, accessed[half] >> 10, accessed[!half] >> 10);
		TEST_ASSERT(i < LOOKS, "%s: of %lu KiB watched", pages, all >> 10);
	}
	damon_end();
	l2_end(&l2);
	printf("ok - DAMON sees which pages (%s) L2 accesses\n", pages);
}

/* ---- reclaim ---- */

#define GROUP	"kpop_age"
#define STEPS	400

static u64 swapped(void *mem)
{
	u64 i, n = 0, entry[HALF];
	int fd = open("/proc/self/pagemap", O_RDONLY);

	TEST_ASSERT(pread(fd, entry, sizeof(entry), (u64)mem / 4096 * 8) == sizeof(entry),
		    "pagemap");
	close(fd);
	for (i = 0; i < HALF; i++)
		n += entry[i] >> 62 & 1;
	return n;
}

static void test_reclaim(void)
{
	u64 before, faults, cold = 0;
	struct l2_vm l2;
	int i;

	memcg_make(GROUP);
	memcg_enter(GROUP);
	l2_start(&l2, VM_MEM_SRC_ANONYMOUS);
	before = memcg_read(GROUP, "memory.stat", "pgmajfault ");
	for (i = 0; i < STEPS && cold < HALF - HALF / 8; i++) {
		/* It may find less: then there is a next time. */
		memcg_write(GROUP, "memory.reclaim", "64K swappiness=200");
		l2_lap(&l2);
		cold = swapped(l2.mem + OTHER);
	}
	faults = memcg_read(GROUP, "memory.stat", "pgmajfault ") - before;
	printf("# after %d times 64 KiB of reclaim %lu of the %lu cold pages are in swap, %lu hot ones came back from there\n",
	       i, cold, HALF, faults);
	TEST_ASSERT(cold >= HALF - HALF / 8, "the cold pages stay");
	TEST_ASSERT(faults <= HALF / 4, "hot pages go");
	l2_end(&l2);
	printf("ok - reclaim takes what L2 does not access\n");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "damon")) {
		test_damon(VM_MEM_SRC_ANONYMOUS, "4K");
		test_damon(VM_MEM_SRC_ANONYMOUS_THP, "2M");
	} else {
		test_reclaim();
	}
	return 0;
}
