// SPDX-License-Identifier: GPL-2.0
/*
 * A user without any right but to open /dev/kvm: his own VMs, nobody else's, and no
 * policy.  A descriptor that he is given, by SCM_RIGHTS, is the right to look at that
 * VM and to set its cap and kpop-only; with that of a policy's map, filled by somebody
 * who may load BPF, he may attach it to a VM of which he has the descriptor.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "kpop_test.h"

#define NOBODY		65534
#define SOMEBODY	1000
#define CAP		(5ULL << 20)
#define MAP_VM_FD	100	/* what a filled map looks for */
#define BPF_SYSCTL	"/proc/sys/kernel/unprivileged_bpf_disabled"

/* Not in glibc. */
static int cap_set(u64 caps)
{
	struct __user_cap_header_struct hdr = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = caps, .permitted = caps },
		{ .effective = caps >> 32, .permitted = caps >> 32 },
	};

	return syscall(__NR_capset, &hdr, data);
}

static u64 cap_get(void)
{
	struct __user_cap_header_struct hdr = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {};

	TEST_ASSERT(!syscall(__NR_capget, &hdr, data), "capget");
	return data[0].permitted | (u64)data[1].permitted << 32;
}

/* With these capabilities and no others; dumpable, as a program that he has started. */
static void become(uid_t uid, u64 caps)
{
	TEST_ASSERT(!prctl(PR_SET_KEEPCAPS, 1) && !setgroups(0, NULL) &&
		    !setresgid(uid, uid, uid) && !setresuid(uid, uid, uid) && !cap_set(caps) &&
		    !prctl(PR_SET_DUMPABLE, 1), "uid %u: %s", uid, strerror(errno));
	TEST_ASSERT(getuid() == uid && cap_get() == caps, "uid %u, capabilities 0x%" PRIx64,
		    getuid(), cap_get());
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static int new_vm(void)
{
	int kvm = open(KVM_DEV_PATH, O_RDWR | O_CLOEXEC), vm;

	TEST_ASSERT(kvm >= 0, KVM_DEV_PATH ": %s", strerror(errno));
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	TEST_ASSERT(vm >= 0, "KVM_CREATE_VM: %s", strerror(errno));
	close(kvm);
	return vm;
}

static int info_of(int vm_fd, struct kvm_kpop_info *info)
{
	u32 len = sizeof(*info);

	memset(info, 0, sizeof(*info));
	return kpop_ctl(vm_fd, KVM_KPOP_OP_INFO, 0, info, &len) ? -errno : 0;
}

static void check_controls(int vm_fd, const char *whose)
{
	struct kvm_kpop_space_info spaces[4];
	u32 len = sizeof(spaces);
	struct kvm_kpop_info info;
	int r;

	r = info_of(vm_fd, &info);
	kst_check(!r && info.vm_id, "%s: INFO, id %llu", whose, info.vm_id);
	kst_check(!kpop_ctl(vm_fd, KVM_KPOP_OP_SPACES, 0, spaces, &len), "%s: SPACES", whose);
	kst_check(!kpop_ctl(vm_fd, KVM_KPOP_OP_SET_CAP, CAP, NULL, NULL) &&
		  !kpop_ctl(vm_fd, KVM_KPOP_OP_SET_ONLY, 1, NULL, NULL) &&
		  !info_of(vm_fd, &info) && info.cap == CAP && info.kpop_only,
		  "%s: SET_CAP and SET_ONLY", whose);
}

/* ---- BPF ---- */

static int bpf_sys(int cmd, union bpf_attr *attr)
{
	return syscall(__NR_bpf, cmd, attr, sizeof(*attr)) < 0 ? -errno : 0;
}

static int make_ops_map(void)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_STRUCT_OPS,
		.key_size = 4, .value_size = 64, .max_entries = 1,
		.btf_vmlinux_value_type_id = 1,
	};

	return bpf_sys(BPF_MAP_CREATE, &attr);
}

/* "return 0": what is asked here comes before anybody looks at that. */
static int load_prog(void)
{
	struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_STRUCT_OPS,
		.insns = (u64)insns, .insn_cnt = ARRAY_SIZE(insns), .license = (u64)"GPL",
	};

	return bpf_sys(BPF_PROG_LOAD, &attr);
}

static int link_map(int map_fd)
{
	union bpf_attr attr = {
		.link_create = { .map_fd = map_fd, .attach_type = BPF_STRUCT_OPS },
	};
	int fd = syscall(__NR_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));

	return fd < 0 ? -errno : fd;
}

static void try_caps(u64 caps, int map, int prog, const char *what)
{
	pid_t pid = kst_fork();
	int r;

	if (!pid) {
		become(NOBODY, caps);
		r = make_ops_map();
		kst_check((r == -EPERM) == (map == -EPERM), "%s: a struct_ops map: %d", what, r);
		r = load_prog();
		kst_check((r == -EPERM) == (prog == -EPERM), "%s: a struct_ops program: %d", what, r);
		kst_exit();
	}
	kst_check(!kst_reap(pid, 60000), "%s: that is what it takes", what);
}

/* ---- what the user does ---- */

struct given {
	int sock;			/* by which he is given descriptors */
	pid_t vmm;			/* of another user, without any right either */
	u64 vm_id;			/* and its VM, ... */
	int vm_fd;			/* ... its descriptor there ... */
	u32 link_id, map_id;		/* ... and its policy */
};

static void check_own(void)
{
	int vm = new_vm(), r;
	struct policy p;

	check_controls(vm, "his own VM");
	r = policy_load(&p, "kpop_base", vm);
	kst_check(r < 0, "he loads no policy: %d", r);
	close(vm);
}

/* Whatever number he tries is looked up in his own table. */
static void check_numbers(void)
{
	struct kvm_kpop_info info;
	u64 found = 0;
	int fd;

	for (fd = 0; fd < 1024; fd++)
		found += !info_of(fd, &info);
	kst_check(!found, "%" PRIu64 " of 1024 numbers are a VM for him", found);
}

static void check_others(const struct given *g)
{
	char path[64];
	int r;

	r = kst_take_fd(g->vmm, g->vm_fd);
	kst_check(r == -EPERM, "another user's VM: pidfd_getfd() %d", r);
	r = ptrace(PTRACE_SEIZE, g->vmm, 0, 0) ? -errno : 0;
	kst_check(r == -EPERM, "another user's VMM: ptrace() %d", r);
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", g->vmm, g->vm_fd);
	r = open(path, O_RDWR) < 0 ? -errno : 0;
	kst_check(r == -EACCES, "another user's VM by /proc: %d", r);
	r = bpf_link_get_fd_by_id(g->link_id);
	kst_check(r == -EPERM, "the link of its policy: %d", r);
	r = bpf_map_get_fd_by_id(g->map_id);
	kst_check(r == -EPERM, "the map of its policy: %d", r);
	r = open("/sys/kernel/debug/kvm", O_RDONLY) < 0 ? -errno : 0;
	kst_check(r == -EACCES, "debugfs: %d", r);
}

/* KVM's own rule: that VM's ioctls are its process's. */
static void check_foreign_ioctls(int vm)
{
	struct kvm_userspace_memory_region region = {};
	int r;

	r = ioctl(vm, KVM_CREATE_VCPU, 7) < 0 ? -errno : 0;
	kst_check(r == -EIO, "the VM that he was given: KVM_CREATE_VCPU %d", r);
	r = ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? -errno : 0;
	kst_check(r == -EIO, "the VM that he was given: KVM_SET_USER_MEMORY_REGION %d", r);
	r = mmap(NULL, KST_PAGE, PROT_READ, MAP_SHARED, vm, 0) == MAP_FAILED ? -errno : 0;
	kst_check(r == -ENODEV, "the VM that he was given: mmap() %d", r);
}

static void check_given_vm(const struct given *g)
{
	/* A number that no other descriptor gets when it is closed. */
	int from = kst_recv_fd(g->sock), vm = fcntl(from, F_DUPFD, 500), r;
	struct kvm_kpop_info info;
	struct policy p;

	close(from);
	r = info_of(vm, &info);
	kst_check(!r && info.vm_id == g->vm_id, "he is given a VM: %llu", info.vm_id);
	check_controls(vm, "the VM that he was given");
	check_foreign_ioctls(vm);
	r = policy_load(&p, "kpop_base", vm);
	kst_check(r < 0, "he loads no policy for it: %d", r);
	close(vm);
	kst_check(info_of(vm, &info) == -EBADF, "without the descriptor there is nothing");
}

/* The rights of whoever filled a map do not come with it, but the policy does. */
static void check_given_map(const struct given *g)
{
	int map = kst_recv_fd(g->sock), vm, r;
	struct kvm_kpop_info info;

	r = link_map(map);
	kst_check(r == -EBADF, "he is given a policy: its VM's number is nothing with him: %d", r);
	TEST_ASSERT(dup2(g->sock, MAP_VM_FD) == MAP_VM_FD, "dup2");
	r = link_map(map);
	kst_check(r == -EINVAL, "or not a VM: %d", r);
	vm = new_vm();
	TEST_ASSERT(dup2(vm, MAP_VM_FD) == MAP_VM_FD, "dup2");
	r = link_map(map);
	kst_check(r >= 0 && kpop_wait_state(vm, KPOP_STATE_ATTACHED),
		  "it serves a VM of his own: %d", r < 0 ? r : 0);
	close(r);
	kst_check(kpop_wait_state(vm, KPOP_STATE_NONE) && !info_of(vm, &info),
		  "until he closes the link");
	close(map);
}

static void user(const struct given *g)
{
	int fd;

	/* The descriptor by which he is given more, and the output. */
	for (fd = 3; fd < 1024; fd++)
		if (fd != g->sock)
			close(fd);
	become(NOBODY, 0);
	check_numbers();
	check_own();
	check_others(g);
	check_given_vm(g);
	check_given_map(g);
	kst_exit();
}

/* ---- the test, as root ---- */

/* Another user's VM, with a policy that root has attached to it. */
static pid_t other_vmm(int *fd)
{
	volatile int *to = kst_shared(KST_PAGE);
	pid_t pid;

	*to = -1;
	pid = kst_fork();
	if (!pid) {
		become(SOMEBODY, 0);
		*to = new_vm();
		for (;;)
			pause();
	}
	TEST_ASSERT(kst_wait(*to >= 0, 60000), "the other user has no VM");
	*fd = *to;
	return pid;
}

/* What a policy's author does who gives it away: filled, it names no VM of this process. */
static void fill_map(struct policy *p)
{
	int r = policy_load(p, "kpop_base", MAP_VM_FD);

	TEST_ASSERT(!r, "policy: %s", strerror(-r));
	r = policy_fill(p);
	TEST_ASSERT(r == -EBADF, "fill: %d", r);
}

static char set_sysctl(char val)
{
	int fd = open(BPF_SYSCTL, O_RDWR | O_CLOEXEC);
	char old = 0;

	if (fd >= 0 && (read(fd, &old, 1) != 1 || pwrite(fd, &val, 1, 0) != 1))
		old = 0;
	close(fd);
	return old;
}

static void test_user(void)
{
	struct kvm_kpop_info info;
	struct given g;
	struct policy attached, filled;
	int pair[2], vm, r;
	pid_t pid;

	g.vmm = other_vmm(&g.vm_fd);
	vm = kst_take_fd(g.vmm, g.vm_fd);
	TEST_ASSERT(vm >= 0, "pidfd_getfd as root: %s", strerror(-vm));
	r = policy_load(&attached, "kpop_base", vm) ?: policy_attach(&attached);
	TEST_ASSERT(!r && kpop_wait_state(vm, KPOP_STATE_ATTACHED), "attach as root: %d", r);
	TEST_ASSERT(!info_of(vm, &info), "INFO");
	kst_check(info.state == KPOP_STATE_ATTACHED && !info.kpop_only && info.cap != CAP,
		  "a VM of uid %u has a policy, from root", SOMEBODY);
	g.vm_id = info.vm_id;
	g.link_id = info.link_id;
	g.map_id = info.map_id;
	fill_map(&filled);

	TEST_ASSERT(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
	g.sock = pair[1];
	pid = kst_fork();
	if (!pid)
		user(&g);
	kst_send_fd(pair[0], vm);
	kst_send_fd(pair[0], bpf_map__fd(filled.map));
	r = kst_reap(pid, 120000);
	kst_check(!r, "uid %u did all that (0x%x)", NOBODY, r);
	TEST_ASSERT(!info_of(vm, &info), "INFO");
	kst_check(info.cap == CAP && info.kpop_only, "what he set is the VM's");
	kst_check(info.state == KPOP_STATE_ATTACHED && info.map_id == g.map_id &&
		  info.detaches == 0, "and its policy is what it was");
	policy_free(&filled);
	policy_free(&attached);
	kill(g.vmm, SIGKILL);
	kst_reap(g.vmm, 10000);
	close(vm);
	close(pair[0]);
	close(pair[1]);
}

int main(int argc, char **argv)
{
	u64 bpf = 1ULL << CAP_BPF, perfmon = 1ULL << CAP_PERFMON;
	struct kvm_kpop_info info;
	struct stat st;
	char old;
	int vm;

	kst_begin("kpop_user_test", 400);
	if (geteuid())
		kst_skip("needs root, to be somebody else");
	vm = new_vm();
	if (info_of(vm, &info))
		kst_skip("this kernel's KVM has no KPOP");
	close(vm);
	policy_require("kpop_base");
	/* He may open it, and BPF is as open as it can be: what is refused is refused to him. */
	TEST_ASSERT(!stat(KVM_DEV_PATH, &st) && !chmod(KVM_DEV_PATH, 0666), KVM_DEV_PATH);
	old = set_sysctl('0');
	test_user();
	try_caps(0, -EPERM, -EPERM, "no capability");
	try_caps(bpf, 0, -EPERM, "CAP_BPF");
	try_caps(perfmon, -EPERM, -EPERM, "CAP_PERFMON");
	try_caps(bpf | perfmon, 0, 0, "CAP_BPF and CAP_PERFMON");
	if (old)
		set_sysctl(old);
	chmod(KVM_DEV_PATH, st.st_mode & 07777);
	return kst_end();
}
