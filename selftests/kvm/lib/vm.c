// SPDX-License-Identifier: GPL-2.0
/* The VMM of the tests: an L1 VM with room for L2s, its vCPU threads, checks. */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "kpop_test.h"
#include "svm_util.h"
#include "vmx.h"

int kst_failed;
static int kst_checks;
static const char *kst_name;

/* ---- checks ---- */

static void kst_timeout(int sig)
{
	static const char msg[] = "not ok - the test's own timeout\n";

	if (write(1, msg, sizeof(msg) - 1) < 0)
		_exit(3);
	_exit(2);
}

void kst_begin(const char *name, unsigned int timeout_s)
{
	const char *t = getenv("KPOP_TEST_TIMEOUT");

	kst_name = name;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (t)
		timeout_s = atoi(t);
	signal(SIGALRM, kst_timeout);
	alarm(timeout_s);
	printf("# %s\n", name);
}

void kst_check(bool ok, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	printf("%s - %s\n", ok ? "ok" : "not ok", text);
	__atomic_fetch_add(&kst_checks, 1, __ATOMIC_RELAXED);
	if (!ok)
		__atomic_fetch_add(&kst_failed, 1, __ATOMIC_RELAXED);
}

int kst_end(void)
{
	/* A test that checked nothing has not passed. */
	if (!kst_checks)
		kst_check(false, "%s: no check was made", kst_name);
	printf("# %s: %d checks, %d failed\n", kst_name, kst_checks, kst_failed);
	return kst_failed ? 1 : 0;
}

void kst_skip(const char *fmt, ...)
{
	va_list ap;

	printf("skip - ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	exit(KSFT_SKIP);
}

/* 1: KVM emulates an instruction behind KVM_FEP.  Returns what it was. */
char kst_force_emulation(char val)
{
	const char *param = "/sys/module/kvm/parameters/force_emulation_prefix";
	int fd = open(param, O_RDWR);
	char old;

	if (fd < 0 || read(fd, &old, 1) != 1 || pwrite(fd, &val, 1, 0) != 1)
		kst_skip("%s cannot be set", param);
	close(fd);
	return old;
}

/* key=value on the command line. */
u64 kst_param(int argc, char **argv, const char *key, u64 def)
{
	size_t n = strlen(key);
	int i;

	for (i = 1; i < argc; i++)
		if (!strncmp(argv[i], key, n) && argv[i][n] == '=')
			return strtoull(argv[i] + n + 1, NULL, 0);
	return def;
}

void kst_relax(void)
{
	struct timespec ts = { .tv_nsec = 1000000 };

	nanosleep(&ts, NULL);
}

u64 kst_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

/* ---- the VM ---- */

static void tvm_require(void)
{
	bool amd = kvm_cpu_has(X86_FEATURE_SVM);

	if (!amd && !kvm_cpu_has(X86_FEATURE_VMX))
		kst_skip("KVM offers no nested virtualization (kvm_amd nested=1)");
	if (amd ? !kvm_cpu_has(X86_FEATURE_NPT) : !kvm_cpu_has_ept())
		kst_skip("KVM offers no nested paging (kvm_amd npt=1)");
}

/* The range is at the same address in L1's virtual space, in 2M pages. */
static void tvm_add_slot(struct kvm_vm *vm, u32 slot, u64 gpa, u64 npages,
			 enum vm_mem_backing_src_type src)
{
	vm_userspace_mem_region_add(vm, src, gpa, slot, npages, 0);
	virt_map_level(vm, gpa, gpa, npages * KST_PAGE, PG_LEVEL_2M);
}

/*
 * As the library's __vm_create(), with a slot 0 that holds this binary: a
 * static one with libbpf in it is larger than the library reckons with.
 */
static struct kvm_vm *tvm_create_vm(void)
{
	struct kvm_vm *vm = ____vm_create(VM_SHAPE_DEFAULT);
	int i;

	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, 0, 0, SLOT0_PAGES, 0);
	for (i = 0; i < NR_MEM_REGIONS; i++)
		vm->memslots[i] = 0;
	kvm_vm_elf_load(vm, program_invocation_name);
	ucall_init(vm, SLOT0_PAGES * KST_PAGE);
	guest_rng = new_guest_random_state(guest_random_seed);
	sync_global_to_guest(vm, guest_rng);
	kvm_arch_vm_post_create(vm);
	return vm;
}

static void tvm_add_l2(struct tvm *t, int i)
{
	u64 gva = vm_vaddr_alloc_page(t->vm);
	struct l2 *l2 = addr_gva2hva(t->vm, gva);
	vm_vaddr_t arch;

	memset(l2, 0, sizeof(*l2));
	if (host_cpu_is_intel)
		l2->holder = vcpu_alloc_vmx(t->vm, &arch)->vmcs_gpa;
	else
		l2->holder = vcpu_alloc_svm(t->vm, &arch)->vmcb_gpa;
	l2->arch = (void *)arch;
	l2->asid = i + 1;
	/* As at a function's entry: 8 below a multiple of 16. */
	l2->stack = vm_vaddr_alloc_pages(t->vm, 4) + 4 * KST_PAGE - 8;
	t->sh->l2[i] = (void *)gva;
}

struct tvm *tvm_create(const struct tvm_opts *o)
{
	struct tvm *t = calloc(1, sizeof(*t));
	u64 pages;
	int i;

	TEST_ASSERT(t, "out of memory");
	tvm_require();
	t->o = *o;
	if (!t->o.pool_pages)
		t->o.pool_pages = 1024;
	if (!t->o.tokens)
		t->o.tokens = 512;
	if (!t->o.nr_vcpus)
		t->o.nr_vcpus = t->o.guest[1] ? 2 : 1;

	t->vm = tvm_create_vm();
	if (o->ring_bytes)
		vm_enable_dirty_ring(t->vm, o->ring_bytes);
	pages = align_up(t->o.tokens + PRIV_TABLES, 512);
	tvm_add_slot(t->vm, PRIV_SLOT, PRIV_GPA, pages, VM_MEM_SRC_ANONYMOUS);
	tvm_add_slot(t->vm, POOL_SLOT, POOL_GPA, t->o.pool_pages, t->o.pool_src);
	virt_map_level(t->vm, L2_GPA, L2_GPA, L2_WINDOW, PG_LEVEL_2M);
	t->next_table = PRIV_GPA + (pages - PRIV_TABLES) * KST_PAGE;

	t->sh_gva = vm_vaddr_alloc_pages(t->vm, DIV_ROUND_UP(sizeof(*t->sh), KST_PAGE));
	t->sh = addr_gva2hva(t->vm, t->sh_gva);
	memset(t->sh, 0, sizeof(*t->sh));
	for (i = 0; i < t->o.nr_l2; i++)
		tvm_add_l2(t, i);
	for (i = 0; i < t->o.nr_vcpus; i++) {
		t->vcpus[i] = vm_vcpu_add(t->vm, i, t->o.guest[i]);
		vcpu_args_set(t->vcpus[i], 2, (u64)i, t->sh_gva);
	}
	return t;
}

void tvm_free(struct tvm *t)
{
	kvm_vm_free(t->vm);
	free(t);
}

/* Through the memslot's first mapping: what the host sees at L1's address. */
volatile u64 *tvm_pool(struct tvm *t, u64 page)
{
	return addr_gpa2hva(t->vm, POOL_GPA + page * KST_PAGE);
}

void *tvm_gpa(struct tvm *t, u64 gpa)
{
	return addr_gpa2hva(t->vm, gpa);
}

/* The host's view of an L2's page. */
struct l2 *tvm_l2(struct tvm *t, int i)
{
	return addr_gva2hva(t->vm, (vm_vaddr_t)t->sh->l2[i]);
}

/* ---- vCPU threads ---- */

static void tvm_print(struct ucall *uc)
{
	printf("%s", uc->buffer);
	if (!strncmp(uc->buffer, "not ok", 6))
		__atomic_fetch_add(&kst_failed, 1, __ATOMIC_RELAXED);
	if (uc->buffer[0] != '#')
		__atomic_fetch_add(&kst_checks, 1, __ATOMIC_RELAXED);
}

static void tvm_bad_exit(struct tvm *t, int cpu)
{
	struct kvm_run *run = t->vcpus[cpu]->run;

	printf("not ok - vCPU %d left with %s", cpu, exit_reason_str(run->exit_reason));
	if (run->exit_reason == KVM_EXIT_MMIO)
		printf(", %s 0x%llx", run->mmio.is_write ? "write" : "read",
		       run->mmio.phys_addr);
	else if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
		printf(", suberror %u", run->internal.suberror);
	printf("\n");
	vcpu_dump(stdout, t->vcpus[cpu], 2);
	exit(1);
}

static int run_vcpu(struct tvm *t, int cpu)
{
	int r, err;

	if (!t->o.nomem)
		return __vcpu_run(t->vcpus[cpu]);
	nomem_self(true);
	r = __vcpu_run(t->vcpus[cpu]);
	err = errno;
	nomem_self(false);
	errno = err;
	return r;
}

/* Run a vCPU until its guest code is done. */
void tvm_cpu_loop(struct tvm *t, int cpu)
{
	struct ucall uc;

	for (;;) {
		int r = run_vcpu(t, cpu);

		if (t->dying)
			return;
		if (r && errno == EINTR)
			continue;
		if (r && errno == EFAULT && t->o.efault_ok) {
			t->efaults++;
			continue;
		}
		if (r && t->o.failed && t->o.failed(t, cpu, errno))
			continue;
		TEST_ASSERT(!r, KVM_IOCTL_ERROR(KVM_RUN, r));
		/* Until the test has emptied it. */
		if (t->vcpus[cpu]->run->exit_reason == KVM_EXIT_DIRTY_RING_FULL) {
			kst_relax();
			continue;
		}
		if (t->o.mmio && t->vcpus[cpu]->run->exit_reason == KVM_EXIT_MMIO) {
			t->o.mmio(t, t->vcpus[cpu]->run);
			continue;
		}
		switch (get_ucall(t->vcpus[cpu], &uc)) {
		case UCALL_SYNC:
			t->o.sync(t, cpu, uc.args);
			break;
		case UCALL_PRINTF:
			tvm_print(&uc);
			break;
		case UCALL_DONE:
			return;
		case UCALL_ABORT:
			printf("not ok - guest assertion, vCPU %d: %s\n", cpu, uc.buffer);
			REPORT_GUEST_ASSERT(uc);
			return;
		default:
			if (!t->o.left || !t->o.left(t, cpu))
				tvm_bad_exit(t, cpu);
			if (t->dying)
				return;
		}
	}
}

struct tvm_thread {
	struct tvm *t;
	int cpu;
};

/*
 * Each vCPU on a CPU of its own from the start: the scheduler may take long to
 * part two threads, and what is tested is what happens while both run.
 */
static void tvm_pin(int cpu)
{
	int n = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu % n, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

static void *tvm_thread(void *arg)
{
	struct tvm_thread a = *(struct tvm_thread *)arg;

	free(arg);
	tvm_pin(a.cpu);
	tvm_cpu_loop(a.t, a.cpu);
	return NULL;
}

void tvm_start(struct tvm *t)
{
	int i;

	for (i = 0; i < MAX_CPUS; i++) {
		struct tvm_thread *a;

		if (!t->o.guest[i])
			continue;
		a = malloc(sizeof(*a));
		*a = (struct tvm_thread){ t, i };
		TEST_ASSERT(!pthread_create(&t->thread[i], NULL, tvm_thread, a),
			    "no thread for vCPU %d", i);
	}
}

void tvm_join(struct tvm *t)
{
	int i;

	for (i = 0; i < MAX_CPUS; i++)
		if (t->o.guest[i])
			pthread_join(t->thread[i], NULL);
}

void tvm_run(struct tvm *t)
{
	tvm_start(t);
	tvm_join(t);
}

static void on_pause(int sig) { }

/* Take all vCPUs out of the guest, wherever they are: L1 or an L2.  Their threads end. */
void tvm_pause(struct tvm *t)
{
	struct sigaction sa = { .sa_handler = on_pause };
	int i;

	sigaction(SIGUSR1, &sa, NULL);
	t->dying = true;
	for (i = 0; i < MAX_CPUS; i++) {
		if (!t->o.guest[i])
			continue;
		t->vcpus[i]->run->immediate_exit = 1;
		pthread_kill(t->thread[i], SIGUSR1);
	}
	tvm_join(t);
	t->dying = false;
}

/* After tvm_pause(): L1 goes on. */
void tvm_resume(struct tvm *t)
{
	int i;

	for (i = 0; i < MAX_CPUS; i++)
		if (t->o.guest[i])
			t->vcpus[i]->run->immediate_exit = 0;
	tvm_start(t);
}

/* ---- statistics ---- */

u64 vcpu_stat(struct kvm_vcpu *vcpu, const char *name)
{
	int fd = vcpu_get_stats_fd(vcpu);
	struct kvm_stats_header header;
	struct kvm_stats_desc *descs, *d;
	u64 data = 0;
	int i;

	read_stats_header(fd, &header);
	descs = read_stats_descriptors(fd, &header);
	for (i = 0; i < header.num_desc; i++) {
		d = get_stats_descriptor(descs, i, &header);
		if (!strcmp(d->name, name))
			read_stat_data(fd, &header, d, &data, 1);
	}
	free(descs);
	close(fd);
	return data;
}
