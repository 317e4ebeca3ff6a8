/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KPOP_TEST_H
#define KPOP_TEST_H

/*
 * What the KPOP tests share.  A test process is the VMM (L0 user space), its
 * guest code is an L1 hypervisor, which runs more of that code as L2.
 *
 *   vm.c      the VM, its vCPU threads, checks, statistics  (host side)
 *   ctl.c     KVM_KPOP on /dev/kvm                          (host side)
 *   policy.c  BPF policies through libbpf                   (host side)
 *   raw.c     one hypercall in any processor mode           (host side)
 *   table.c   a legacy nested page table                    (host side)
 *   memcg.c   a memory cgroup                               (host side)
 *   nomem.c   allocations of L0 that fail                   (host side)
 *   process.c other processes and their descriptors         (host side)
 *   uffd.c    a page that has to be waited for              (host side)
 *   held.c    a store of L0 for L2 that waits for one       (both)
 *   l1.c      hypercalls, running an L2                     (L1)
 *   svm.c, vmx.c, enter.S   one nested entry                (L1)
 *
 * L1 physical memory, every range also mapped at the same virtual address:
 *
 *   0          slot 0: code, data, stacks; L2 sees it at the same L2 gfns
 *   PRIV_GPA   slot 2: root tokens and page tables, never offered to L2
 *   POOL_GPA   slot 1: pages which a test offers to L2
 *
 * L2_GPA is where L2 looks for what it is offered, mapped at the same L2
 * virtual address.  L1 has no memory there.
 */

#include <linux/kvm_para.h>
#include <pthread.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"

#include <asm/kvm_kpop.h>

#ifndef KVM_HC_KPOP_QUERY
#define KVM_HC_KPOP_QUERY		13
#define KVM_HC_KPOP_MMU_LOAD_UNLOAD	14
#define KVM_HC_KPOP_MMU_MAP		15
#define KVM_HC_KPOP_MMU_UNMAP		16
#define KVM_HC_KPOP_MMU_TRACK		17
#endif

#define KST_PAGE	4096ULL
#define SLOT0_PAGES	4096ULL
#define PRIV_GPA	0x08000000ULL
#define POOL_GPA	0x10000000ULL
#define L2_GPA		0x80000000ULL
#define L2_WINDOW	0x20000000ULL
#define PRIV_SLOT	2
#define POOL_SLOT	1
#define PRIV_TABLES	512	/* pages at the end of slot 2 are for tables */

#define MAX_L2		8
#define MAX_CPUS	2

static inline u64 token_of(unsigned int i) { return PRIV_GPA + i * KST_PAGE; }
static inline u64 pool_gfn(u64 i) { return POOL_GPA / KST_PAGE + i; }
static inline volatile u64 *pool_ptr(u64 i) { return (void *)(POOL_GPA + i * KST_PAGE); }
static inline u64 l2_gfn(u64 i) { return L2_GPA / KST_PAGE + i; }
static inline u64 l2_gva(u64 i) { return L2_GPA + i * KST_PAGE; }

/* ---- guest side ---- */

enum l2_exit_reason {
	L2_EXIT_CALL,		/* the function returned, or L2 made a hypercall */
	L2_EXIT_FAULT,		/* NPF / EPT violation given to L1 */
	L2_EXIT_SHUTDOWN,
	L2_EXIT_OTHER,
	L2_EXIT_REFUSED,	/* the entry failed: VMEXIT_INVALID, VMfail with error 7 */
};

/* Offsets are known to enter.S. */
struct l2_regs {
	u64 rax, rbx, rcx, rdx, rsi, rdi, rbp;
	u64 r8, r9, r10, r11, r12, r13, r14, r15;
};

struct l2_exit {
	u64 reason;
	u64 gpa;		/* of a fault */
	u64 access;		/* KPOP_MAP_R, _W or _X: what L2 tried */
	u64 present;		/* there is a translation, its rights deny */
	u64 raw;		/* the vendor's exit code */
	u64 info;		/* the vendor's error code or qualification */
};

typedef u64 (*l2_fn)(u64 a, u64 b);

/* One virtual CPU of an L2; a page of L1 memory that L2 also sees. */
struct l2 {
	struct l2_regs regs;
	struct l2_exit exit;
	void *arch;		/* svm_test_data or vmx_pages */
	u64 holder;		/* GPA of vmcb12 / vmcs12 */
	u64 root;		/* root token, root of a legacy table, or 0 */
	u64 stack;
	u64 asid;
	u64 faults;		/* given to L1 since l2_setup() */
	u64 ready;
	u64 launched;
	u64 flush;		/* next entry flushes L2's TLB: root changed */
	u64 no_call_exit;	/* SVM: do not intercept VMMCALL */
	u64 eptp_flags;		/* VMX: instead of write-back, four levels */
	l2_fn fn;
	u64 a, b, ret;
};

/* What host and guest agree on at run time; pages of slot 0. */
struct l1_shared {
	struct l2 *l2[MAX_L2];
	u64 legacy_root;	/* of the table that table.c built */
	u64 param[16];		/* host to guest, before the start */
	volatile u64 stop;
	volatile u64 phase[16];
	volatile u64 val[32];
};

u64 kpop_query(u64 op);
long kpop_load(u64 token, u64 holder, u64 kvm_id, u64 as_id);
long kpop_unload_holder(u64 token, u64 holder, u64 kvm_id, u64 as_id);
long kpop_unload_root(u64 token, u64 kvm_id, u64 as_id);
long kpop_map_once(u64 token, u64 flags, u64 l2, u64 l1, u64 npages);
long kpop_map(u64 token, u64 flags, u64 l2, u64 l1, u64 npages);
long kpop_unmap_flags(u64 flags, u64 as_id, u64 kvm_id, u64 l2, u64 npages);
long kpop_unmap(u64 kvm_id, u64 l2, u64 npages);
long kpop_map_self(u64 token);

void l1_virt_on(struct l2 *l2);
void l1_virt_off(void);
void l2_setup(struct l2 *l2, u64 root);
void l2_set_root(struct l2 *l2, u64 root);
u64 l2_call(struct l2 *l2, l2_fn fn, u64 a, u64 b);
u64 l2_resume(struct l2 *l2);
u64 l2_on_kpop(struct l2 *l2, u64 token, u64 kvm_id, u64 as_id);

u64 l2_read(u64 gva, u64 unused);
u64 l2_write(u64 gva, u64 val);
u64 l2_exec(u64 gva, u64 unused);
u64 l2_count(u64 gva, u64 stop);
bool l2_reads(struct l2 *l2, u64 gva, u64 want);
bool l2_faults_at(struct l2 *l2, l2_fn fn, u64 gva, u64 b, u64 access, bool present);

/* Spin until @cond; false after a time that no working system needs. */
#define SPIN_SECONDS	60
#define spin_until(cond)						\
({									\
	u64 __end = rdtsc() + guest_tsc_khz * 1000 * SPIN_SECONDS;	\
	bool __ok;							\
									\
	while (!(__ok = (cond)) && rdtsc() < __end)			\
		asm volatile("pause" ::: "memory");			\
	__ok;								\
})

/* One line each; "not ok" makes the test fail, but not stop. */
#define G_CHECK(cond, fmt, ...)						\
	GUEST_PRINTF("%s - " fmt "\n", (cond) ? "ok" : "not ok", ##__VA_ARGS__)

#define G_EXPECT(expr, want, what)					\
do {									\
	long __got = (long)(expr), __want = (long)(want);		\
	if (__got == __want)						\
		GUEST_PRINTF("ok - %s: %ld\n", what, __got);		\
	else								\
		GUEST_PRINTF("not ok - %s: got %ld, want %ld\n", what,	\
			     __got, __want);				\
} while (0)

/* vendor: svm.c, vmx.c */
void svm_on(struct l2 *l2);
void svm_off(void);
void svm_setup(struct l2 *l2, void *rip);
void svm_enter(struct l2 *l2);
void svm_reset(struct l2 *l2, void *rip);
void vmx_on(struct l2 *l2);
void vmx_off(void);
void vmx_setup(struct l2 *l2, void *rip);
void vmx_enter(struct l2 *l2);
void vmx_reset(struct l2 *l2, void *rip);
void kpop_svm_vmrun(u64 vmcb_gpa, struct l2_regs *regs);
int kpop_vmx_run(u64 launched, struct l2_regs *regs);

/* ---- host side ---- */

struct tvm;
typedef void (*tvm_sync_fn)(struct tvm *t, int cpu, u64 *args);
typedef void (*tvm_guest_fn)(u64 cpu, struct l1_shared *sh);

struct tvm_opts {
	tvm_guest_fn guest[MAX_CPUS];	/* NULL: no such vCPU thread */
	int nr_vcpus;			/* at least as many as guests */
	int nr_l2;
	u64 pool_pages;			/* default 1024 */
	u64 tokens;			/* default 512 */
	enum vm_mem_backing_src_type pool_src;
	u64 ring_bytes;			/* of a vCPU's dirty ring; 0: none */
	tvm_sync_fn sync;
	void (*mmio)(struct tvm *t, struct kvm_run *run);	/* NULL: no MMIO may be */
	/* Any other exit but a ucall; false: it is a bad one.  @dying ends the thread. */
	bool (*left)(struct tvm *t, int cpu);
	bool nomem;			/* as nomem_begin() says, in vCPU threads */
	bool efault_ok;			/* KVM_RUN may say EFAULT: run again */
	/* KVM_RUN has failed; true: run again.  NULL: it may not. */
	bool (*failed)(struct tvm *t, int cpu, int err);
};

struct tvm {
	struct tvm_opts o;
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[MAX_CPUS];
	pthread_t thread[MAX_CPUS];
	struct l1_shared *sh;		/* host address */
	u64 sh_gva;
	u64 next_table;			/* table.c */
	volatile bool dying;
	volatile u64 efaults;
	void *priv;
};

extern int kst_failed;

void kst_begin(const char *name, unsigned int timeout_s);
int kst_end(void);
void kst_check(bool ok, const char *fmt, ...) __printf(2, 3);
void kst_skip(const char *fmt, ...) __printf(1, 2) __attribute__((noreturn));
char kst_force_emulation(char val);
u64 kst_param(int argc, char **argv, const char *key, u64 def);
void kst_relax(void);
u64 kst_now_ms(void);

/* Poll for a state that comes by itself; false after @ms. */
#define kst_wait(cond, ms)						\
({									\
	u64 __end = kst_now_ms() + (ms);				\
	bool __ok;							\
	while (!(__ok = (cond)) && kst_now_ms() < __end)		\
		kst_relax();						\
	__ok || (cond);							\
})

struct tvm *tvm_create(const struct tvm_opts *o);
void tvm_start(struct tvm *t);
void tvm_join(struct tvm *t);
void tvm_run(struct tvm *t);
void tvm_pause(struct tvm *t);
void tvm_resume(struct tvm *t);
void tvm_free(struct tvm *t);
void tvm_cpu_loop(struct tvm *t, int cpu);
volatile u64 *tvm_pool(struct tvm *t, u64 page);
struct l2 *tvm_l2(struct tvm *t, int i);
void *tvm_gpa(struct tvm *t, u64 gpa);
u64 vcpu_stat(struct kvm_vcpu *vcpu, const char *name);

/* ctl.c */
int kpop_ctl(int vm_fd, u32 op, u64 arg, void *data, u32 *len);
void kpop_info_fd(int vm_fd, struct kvm_kpop_info *info);
void kpop_info(struct tvm *t, struct kvm_kpop_info *info);
bool kpop_none_left_fd(int vm_fd, int nr_vcpus, struct kvm_kpop_info *info);
bool kpop_none_left(struct tvm *t, struct kvm_kpop_info *info);
int kpop_spaces(struct tvm *t, struct kvm_kpop_space_info *to, int max);
bool kpop_wait_state(int vm_fd, u32 state);
void kpop_set_cap(struct tvm *t, u64 bytes);
void kpop_set_only(int vm_fd, u64 only);
bool kpop_check_tables(struct tvm *t);

/* memcg.c: @group is below the root of the hierarchy */
void memcg_make(const char *group);
bool memcg_remove(const char *group);
bool memcg_write(const char *group, const char *file, const char *what);
void memcg_limit(const char *group, u64 bytes);
void memcg_enter(const char *group);
u64 memcg_read(const char *group, const char *file, const char *key);
int memcg_peak_begin(const char *group);
u64 memcg_peak(int fd);

/* nomem.c */
void nomem_begin(u64 percent);
void nomem_self(bool on);
u64 nomem_end(void);

/* process.c */
void *kst_shared(size_t size);
pid_t kst_fork(void);
void kst_exit(void) __attribute__((noreturn));
int kst_reap(pid_t pid, u64 ms);
int kst_take_fd(pid_t pid, int fd);
void kst_send_fd(int sock, int fd);
int kst_recv_fd(int sock);

/* uffd.c */
int uffd_catch(volatile u64 *page);
bool uffd_caught(int uffd, volatile u64 *page);
void uffd_let_go(int uffd, volatile u64 *page);

/* held.c */
#define HELD_DEV	8			/* L2's page of the device */
#define HELD_MEM	9			/* and that of the store, and the pool's */
#define HELD_VALUE	0x1122334455667788ULL	/* what is stored */
void held_map(u64 token);
u64 held_move(struct l2 *l2);
void held_on_mmio(struct tvm *t, struct kvm_run *run);
bool held_wait(struct tvm *t);
void held_let_go(struct tvm *t);
void held_end(void);

/* table.c */
u64 table_new(struct tvm *t);
void table_map(struct tvm *t, u64 root, u64 l2_gpa, u64 l1_gpa, int level);
u64 table_entry(struct tvm *t, u64 root, u64 l2_gpa, int level);
u64 table_leaf(struct tvm *t, u64 root, u64 l2_gpa);
u64 table_legacy(struct tvm *t, u64 npages);

/* raw.c */
enum raw_mode { RAW_LONG, RAW_CPL3, RAW_COMPAT, RAW_PROT32, RAW_SMM };
void raw_init(struct tvm *t, int cpu);
long raw_hypercall(struct tvm *t, int cpu, enum raw_mode mode, u64 nr,
		   u64 a0, u64 a1, u64 a2, u64 a3);

/* policy.c */
struct bpf_object;
struct bpf_map;
struct bpf_link;

struct policy {
	struct bpf_object *obj;
	struct bpf_map *map;
	struct bpf_link *link;
};

void policy_require(const char *name);
u32 policy_map_id(struct policy *p);
int policy_load(struct policy *p, const char *name, int vm_fd);
int policy_attach(struct policy *p);
void policy_serve_fd(struct policy *p, const char *name, int vm_fd);
void policy_serve(struct policy *p, const char *name, struct tvm *t);
void policy_close_link(struct policy *p);
int policy_detach(struct policy *p);
void policy_free(struct policy *p);
void policy_stop(struct policy *p, struct tvm *t);
int policy_fill(struct policy *p);
int policy_swap(u32 link_id, u32 old_map_id, struct policy *p);
int policy_map_fd(struct policy *p, const char *map);
int policy_set_knob(struct policy *p, const char *map, u32 key, const void *val, size_t len);

#endif /* KPOP_TEST_H */
