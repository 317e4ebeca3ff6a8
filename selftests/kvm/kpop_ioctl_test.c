// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_KPOP on /dev/kvm under fire: sizes, flags, operations, descriptors and pointers
 * at random, most of them nearly right.  Alone each call is held against a model of
 * what is documented: the errno, the bytes written, and that bad input changes no VM.
 * Then from several threads, with VMs that die meanwhile, an L1 at work, and command
 * blocks that change while they are read: documented errors, and all VMs are as they
 * were set in the end.
 *
 *   seed=N     the same calls again
 *   calls=N    against the model
 *   deaths=N   of VMs, under the threads
 */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "kpop_test.h"

#define KVM_ID		28
#define SPACES		3
#define DEFAULT_CAP	(1ULL << 30)
#define MIN_SIZE	offsetofend(struct kvm_kpop_cmd, data_len)
#define offsetofend(type, member) (offsetof(type, member) + sizeof(((type *)0)->member))
#define NR_MORTAL	4		/* VMs that die under the calls */
#define FUZZERS		2
#define BUF_SIZE	(64UL << 10)
#define FILL		0xa5
#define KERNEL_ADDR	0xffff888000100000ULL
#define NON_CANONICAL	0x8000000000001000ULL

static u64 seed;

static u64 rnd(u64 *state)
{
	u64 z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

static u64 pick(u64 *state, u64 n)
{
	return rnd(state) % n;
}

/* ---- L1 ---- */

enum { STAGE_LOADED, STAGE_AGAIN, STAGE_QUIET };
enum { V_ROUNDS, V_WRONG };

static void l1_round(struct l2 *l2, struct l1_shared *sh, u64 token)
{
	long r = kpop_load(token, l2->holder, KVM_ID, 0);

	if (r != -E2BIG && r != 0)
		sh->val[V_WRONG]++;
	if (r)
		return;
	r = kpop_map(token, KPOP_MAP_RWX | KPOP_MAP_LAZY, 0, 0, SLOT0_PAGES);
	if (r != SLOT0_PAGES && r != -E2BIG)
		sh->val[V_WRONG]++;
	l2_set_root(l2, token);
	r = l2_call(l2, l2_read, (u64)&l2->asid, 0);
	if (r != L2_EXIT_CALL && r != L2_EXIT_FAULT && r != L2_EXIT_REFUSED)
		sh->val[V_WRONG]++;
	kpop_unload_root(token, KVM_ID, 0);
	sh->val[V_ROUNDS]++;
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];
	u64 i;

	l1_virt_on(l2);
	for (i = 0; i < SPACES; i++)
		l2_on_kpop(l2, token_of(i), KVM_ID + i, 0);
	GUEST_SYNC1(STAGE_LOADED);
	for (i = 0; !sh->stop; i++)
		l1_round(l2, sh, token_of(10 + i % 64));
	GUEST_SYNC1(STAGE_QUIET);
	l2_on_kpop(l2, token_of(5), KVM_ID, 0);
	G_EXPECT(l2_call(l2, l2_read, (u64)&l2->asid, 0), L2_EXIT_CALL, "L2 runs after all that");
	G_EXPECT(sh->val[V_WRONG], 0, "answers to L1 that are not documented");
	GUEST_DONE();
}

/* ---- descriptors ---- */

enum {
	FD_OWN,			/* with address spaces */
	FD_PLAIN,		/* nothing but a VM */
	FD_OTHERS,		/* of a process that lives, by SCM_RIGHTS */
	FD_ORPHAN,		/* of one that is gone */
	NR_VMS,
	FD_TYPE = NR_VMS,	/* a VM without KPOP */
	FD_KVM, FD_VCPU, FD_STATS, FD_NULL, FD_SOCKET, FD_EVENT, FD_DIR,
	FD_PATH, FD_CLOSED, FD_MINUS_1, FD_INT_MIN, FD_INT_MAX,
	NR_FDS
};

static struct { int fd, err; } fds[NR_FDS] = {
	[FD_TYPE] = { .err = EOPNOTSUPP },
	[FD_KVM] = { .err = EINVAL }, [FD_VCPU] = { .err = EINVAL },
	[FD_STATS] = { .err = EINVAL }, [FD_NULL] = { .err = EINVAL },
	[FD_SOCKET] = { .err = EINVAL }, [FD_EVENT] = { .err = EINVAL },
	[FD_DIR] = { .err = EINVAL },
	[FD_PATH] = { .err = EBADF }, [FD_CLOSED] = { .err = EBADF },
	[FD_MINUS_1] = { .err = EBADF }, [FD_INT_MIN] = { .err = EBADF },
	[FD_INT_MAX] = { .err = EBADF },
};

static int kvm_fd;
static pid_t other_pid;

static int new_vm(unsigned long type)
{
	return ioctl(kvm_fd, KVM_CREATE_VM, type);
}

/* A VM of another process, which then lives on, or does not. */
static int foreign_vm(bool lives, pid_t *pid)
{
	int pair[2], fd;

	TEST_ASSERT(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
	*pid = kst_fork();
	if (!*pid) {
		/* Its own /dev/kvm, too. */
		kvm_fd = open(KVM_DEV_PATH, O_RDWR | O_CLOEXEC);
		kst_send_fd(pair[1], new_vm(0));
		while (lives)
			pause();
		_exit(0);
	}
	fd = kst_recv_fd(pair[0]);
	close(pair[0]);
	close(pair[1]);
	if (!lives)
		kst_reap(*pid, 10000);
	return fd;
}

static void open_fds(struct tvm *t)
{
	pid_t pid;
	int i;

	fds[FD_OWN].fd = t->vm->fd;
	fds[FD_PLAIN].fd = new_vm(0);
	fds[FD_OTHERS].fd = foreign_vm(true, &other_pid);
	fds[FD_ORPHAN].fd = foreign_vm(false, &pid);
	fds[FD_TYPE].fd = new_vm(KVM_X86_SW_PROTECTED_VM);
	fds[FD_KVM].fd = kvm_fd;
	fds[FD_VCPU].fd = t->vcpus[0]->fd;
	fds[FD_STATS].fd = vm_get_stats_fd(t->vm);
	fds[FD_NULL].fd = open("/dev/null", O_RDWR);
	fds[FD_SOCKET].fd = socket(AF_UNIX, SOCK_STREAM, 0);
	fds[FD_EVENT].fd = eventfd(0, 0);
	fds[FD_DIR].fd = open("/", O_RDONLY | O_DIRECTORY);
	fds[FD_PATH].fd = open(KVM_DEV_PATH, O_PATH);
	for (i = 0; i < FD_CLOSED; i++)
		TEST_ASSERT(fds[i].fd >= 0, "descriptor %d: %s", i, strerror(errno));
	/* Far from where a new one comes to be. */
	fds[FD_CLOSED].fd = 900;
	fds[FD_MINUS_1].fd = -1;
	fds[FD_INT_MIN].fd = INT_MIN;
	fds[FD_INT_MAX].fd = INT_MAX;
}

/* ---- where things are ---- */

/*
 * Pages of memory with nothing behind them, seen once more read-only: what is asked
 * for, and what is answered.
 */
struct area {
	u8 *rw, *ro;
	size_t size;
};

static struct area new_area(size_t size)
{
	struct area a = { .size = size };
	int fd = memfd_create("kpop", 0);
	u8 *p = mmap(NULL, size + KST_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	TEST_ASSERT(fd >= 0 && !ftruncate(fd, size) && p != MAP_FAILED, "memfd");
	a.rw = mmap(p, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	a.ro = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	TEST_ASSERT(a.rw == p && a.ro != MAP_FAILED, "mmap");
	close(fd);
	return a;
}

/* ---- a call ---- */

struct shot {
	u8 bytes[2 * KST_PAGE];		/* the command and what follows it */
	struct kvm_kpop_cmd cmd;	/* as the kernel should take it */
	u32 which;			/* fds[] */
	u64 at;				/* its address */
	u64 avail;			/* bytes that are there */
	bool ro;
	u64 data_avail;
	u8 *data_rw;			/* NULL: nothing that can be written to */
};

static const u64 bad_addrs[] = { 0, 8, KERNEL_ADDR, NON_CANONICAL, ~0ULL };

static u32 pick_size(u64 *s)
{
	switch (pick(s, 10)) {
	case 0:
		return pick(s, MIN_SIZE);
	case 1:
		return MIN_SIZE + pick(s, sizeof(struct kvm_kpop_cmd) + 1 - MIN_SIZE);
	case 2:
		return sizeof(struct kvm_kpop_cmd) + pick(s, 200);
	case 3:
		return KST_PAGE - 2 + pick(s, 5);
	case 4:
		return pick(s, 2) ? rnd(s) : sizeof(struct kvm_kpop_cmd) << pick(s, 27);
	default:
		return sizeof(struct kvm_kpop_cmd);
	}
}

/* No plant that works: that is there to break a table. */
static void pick_op(u64 *s, struct kvm_kpop_cmd *cmd)
{
	static const u32 ops[] = {
		KVM_KPOP_OP_INFO, KVM_KPOP_OP_SPACES, KVM_KPOP_OP_SET_CAP, KVM_KPOP_OP_SET_ONLY,
		KVM_KPOP_OP_CHECK, KVM_KPOP_OP_PLANT,
	};
	u64 n = pick(s, 16);

	cmd->op = n < 12 ? ops[n % 4] : n < 14 ? ops[n - 8] : n < 15 ? 6 + pick(s, 8) : rnd(s) | 8;
	switch (cmd->op) {
	case KVM_KPOP_OP_SET_CAP:
		cmd->arg = pick(s, 3) ? rnd(s) >> pick(s, 64) : 0;
		break;
	case KVM_KPOP_OP_SET_ONLY:
		cmd->arg = pick(s, 4) ? pick(s, 2) : rnd(s);
		break;
	case KVM_KPOP_OP_PLANT:
		cmd->arg = KPOP_PLANT_RMAP + 1 + pick(s, 1000);
		break;
	default:
		cmd->arg = pick(s, 4) ? 0 : rnd(s) >> pick(s, 64);
	}
}

static void pick_data(u64 *s, struct shot *shot, struct kvm_kpop_cmd *cmd, struct area *a)
{
	u64 n = pick(s, 8);

	switch (pick(s, 5)) {
	case 0:
		cmd->data_len = 0;
		break;
	case 1:
		cmd->data_len = pick(s, 1024);
		break;
	case 2:
		cmd->data_len = rnd(s);
		break;
	default:
		cmd->data_len = pick(s, BUF_SIZE);
	}
	shot->data_rw = NULL;
	shot->data_avail = 0;
	if (n < 5) {
		/* In the middle; or in two of five cases with its end missing. */
		u64 at = n < 3 ? pick(s, KST_PAGE) : a->size - pick(s, 1200);

		cmd->data = (u64)a->rw + at;
		shot->data_rw = a->rw + at;
		shot->data_avail = a->size - at;
	} else if (n == 5) {
		cmd->data = (u64)a->ro + pick(s, KST_PAGE);
	} else {
		cmd->data = bad_addrs[pick(s, ARRAY_SIZE(bad_addrs))];
	}
}

static void place(u64 *s, struct shot *shot, struct area *a)
{
	u64 n = pick(s, 12), at = pick(s, 2 * KST_PAGE);

	shot->ro = false;
	shot->avail = a->size - at;
	shot->at = (u64)a->rw + at;
	if (n == 0) {
		shot->at = bad_addrs[pick(s, ARRAY_SIZE(bad_addrs))];
		shot->avail = 0;
	} else if (n == 1) {
		shot->avail = pick(s, pick(s, 2) ? sizeof(shot->cmd) + 8 : 2 * KST_PAGE);
		shot->at = (u64)a->rw + a->size - shot->avail;
	} else if (n == 2) {
		shot->at = (u64)a->ro + at;
		shot->ro = true;
	}
}

static void aim(u64 *s, struct shot *shot, struct area *cmds, struct area *data)
{
	struct kvm_kpop_cmd cmd = { .size = pick_size(s) };
	u64 tail;

	/* Mostly VMs; what else there is mostly comes early in a check. */
	shot->which = pick(s, 3) ? pick(s, NR_VMS) : pick(s, NR_FDS);
	cmd.vm_fd = fds[shot->which].fd;
	pick_op(s, &cmd);
	pick_data(s, shot, &cmd, data);
	if (!pick(s, 10))
		cmd.flags = rnd(s) >> pick(s, 32) ?: 1;
	if (!pick(s, 10))
		cmd.reserved = rnd(s) >> pick(s, 32) ?: 1;
	place(s, shot, cmds);
	memset(shot->bytes, 0, sizeof(shot->bytes));
	memcpy(shot->bytes, &cmd, sizeof(cmd));
	tail = cmd.size > sizeof(cmd) ? min_t(u64, cmd.size, sizeof(shot->bytes)) : 0;
	if (tail && !pick(s, 2))
		shot->bytes[sizeof(cmd) + pick(s, tail - sizeof(cmd))] = rnd(s) ?: 1;
	/* Behind a short one anything may stand. */
	if (cmd.size < sizeof(cmd))
		memset(shot->bytes + min_t(u32, MIN_SIZE, cmd.size), FILL,
		       sizeof(cmd) - min_t(u32, MIN_SIZE, cmd.size));
	memcpy(shot->bytes, &cmd, min_t(u32, cmd.size, sizeof(cmd)) ?: 4);
	memset(&shot->cmd, 0, sizeof(shot->cmd));
	memcpy(&shot->cmd, &cmd, min_t(u32, cmd.size, sizeof(cmd)));
}

/* ---- what a VM is ---- */

struct state {
	struct kvm_kpop_info info;
	struct kvm_kpop_space_info spaces[SPACES + 1];
	u32 spaces_len;
};

static int call(int vm_fd, u32 op, u64 arg, void *data, u32 *len)
{
	struct kvm_kpop_cmd cmd = {
		.size = sizeof(cmd), .op = op, .vm_fd = vm_fd, .arg = arg,
		.data = (u64)data, .data_len = len ? *len : 0,
	};
	int r = ioctl(kvm_fd, KVM_KPOP, &cmd);

	if (len)
		*len = cmd.data_len;
	return r;
}

static void look(int i, struct state *s)
{
	u32 len = sizeof(s->info);

	memset(s, 0, sizeof(*s));
	TEST_ASSERT(!call(fds[i].fd, KVM_KPOP_OP_INFO, 0, &s->info, &len) &&
		    len == sizeof(s->info), "INFO of VM %d", i);
	s->spaces_len = sizeof(s->spaces);
	TEST_ASSERT(!call(fds[i].fd, KVM_KPOP_OP_SPACES, 0, s->spaces, &s->spaces_len),
		    "SPACES of VM %d", i);
}

/* ---- the model ---- */

/* Of an INFO or SPACES with this room: what is written, and the length told. */
static u32 answer_of(const struct shot *shot, const struct state *s, u32 *full)
{
	u32 entry = sizeof(s->spaces[0]), room = shot->cmd.data_len;

	switch (shot->cmd.op) {
	case KVM_KPOP_OP_INFO:
		*full = sizeof(s->info);
		return min(room, *full);
	case KVM_KPOP_OP_SPACES:
		*full = s->spaces_len;
		return min(room / entry * entry, *full);
	case KVM_KPOP_OP_CHECK:
		*full = sizeof(struct kvm_kpop_check);
		return min(room, *full);
	default:
		*full = room;
		return 0;
	}
}

static bool have_checker;

static int model_op(const struct shot *shot)
{
	const struct kvm_kpop_cmd *cmd = &shot->cmd;

	switch (cmd->op) {
	case KVM_KPOP_OP_INFO:
	case KVM_KPOP_OP_SPACES:
		return cmd->arg ? EINVAL : 0;
	case KVM_KPOP_OP_SET_CAP:
		return 0;
	case KVM_KPOP_OP_SET_ONLY:
		return cmd->arg > 1 ? EINVAL : 0;
	case KVM_KPOP_OP_CHECK:
	case KVM_KPOP_OP_PLANT:
		if (!have_checker)
			return EOPNOTSUPP;
		if (cmd->arg)
			return EINVAL;
		/* Host pages are looked up in the VMM: only that may ask. */
		return shot->which == FD_OTHERS || shot->which == FD_ORPHAN ? EIO : 0;
	default:
		return EINVAL;
	}
}

static int model(const struct shot *shot, const struct state *states)
{
	u32 size, copy, full, i;
	int err;

	memcpy(&size, shot->bytes, sizeof(size));
	copy = min_t(u32, size, sizeof(shot->cmd));
	if (shot->avail < sizeof(size))
		return EFAULT;
	if (size < MIN_SIZE || size > KST_PAGE)
		return EINVAL;
	for (i = sizeof(shot->cmd); i < size; i++) {
		if (i >= shot->avail)
			return EFAULT;
		if (shot->bytes[i])
			return E2BIG;
	}
	if (shot->avail < copy)
		return EFAULT;
	if (shot->cmd.flags || shot->cmd.reserved)
		return EINVAL;
	if (shot->ro)
		return EFAULT;
	if (fds[shot->which].err)
		return fds[shot->which].err;
	err = model_op(shot);
	if (err)
		return err;
	if (answer_of(shot, &states[shot->which], &full) > shot->data_avail)
		return EFAULT;
	return 0;
}

/* ---- one thread, every call checked ---- */

static void tell(const struct shot *shot, u64 n, const char *what, int want, int got)
{
	kst_check(false, "seed=%" PRIu64 " call %" PRIu64 ": %s, want %d, got %d", seed, n, what,
		  want, got);
	printf("# size %u op %u fd %d (%u) flags 0x%x arg 0x%llx data 0x%llx+0x%" PRIx64
	       " len %u reserved 0x%x at 0x%" PRIx64 "+0x%" PRIx64 "%s\n", *(u32 *)shot->bytes,
	       shot->cmd.op, shot->cmd.vm_fd, shot->which, shot->cmd.flags, shot->cmd.arg,
	       shot->cmd.data, shot->data_avail, shot->cmd.data_len, shot->cmd.reserved, shot->at,
	       shot->avail, shot->ro ? " read-only" : "");
}

/* What was written: the answer, and not a byte more. */
static bool data_ok(const struct shot *shot, const struct state *s, struct area *data)
{
	u32 full, len = answer_of(shot, s, &full), i;
	const u8 *from = shot->cmd.op == KVM_KPOP_OP_INFO ? (u8 *)&s->info : (u8 *)s->spaces;

	if (len && shot->cmd.op != KVM_KPOP_OP_CHECK && memcmp(shot->data_rw, from, len))
		return false;
	for (i = len; i < min_t(u64, len + 64, shot->data_avail); i++)
		if (shot->data_rw[i] != FILL)
			return false;
	return true;
}

static bool fire(const struct shot *shot, u64 n, struct state *states, struct area *cmds,
		 struct area *data)
{
	u8 *cmd_rw = shot->avail ? cmds->rw + cmds->size - shot->avail : NULL;
	u64 shown = min_t(u64, shot->avail, sizeof(shot->bytes));
	u32 full = 0, told, len;
	int want = model(shot, states), err, i;
	struct state now;
	bool ok = true;

	memset(data->rw, FILL, data->size);
	if (cmd_rw)
		memcpy(cmd_rw, shot->bytes, shown);
	err = ioctl(kvm_fd, KVM_KPOP, shot->at) ? errno : 0;
	if (err != want) {
		tell(shot, n, "errno", want, err);
		return false;
	}
	/* The answer may be in the command only where its length is. */
	len = answer_of(shot, &states[min_t(u32, shot->which, NR_VMS - 1)], &full);
	if (!err) {
		memcpy(&told, cmd_rw + offsetof(struct kvm_kpop_cmd, data_len), sizeof(told));
		memcpy(cmd_rw + offsetof(struct kvm_kpop_cmd, data_len), &shot->cmd.data_len,
		       sizeof(told));
		if (told != full) {
			tell(shot, n, "length told", full, told);
			ok = false;
		}
		if (shot->data_rw && !data_ok(shot, &states[shot->which], data)) {
			tell(shot, n, "answer", len, 0);
			ok = false;
		}
	}
	if (cmd_rw && memcmp(cmd_rw, shot->bytes, shown)) {
		tell(shot, n, "the command changed", 0, 1);
		ok = false;
	}
	if (!err && shot->cmd.op == KVM_KPOP_OP_SET_CAP)
		states[shot->which].info.cap = shot->cmd.arg ?: DEFAULT_CAP;
	if (!err && shot->cmd.op == KVM_KPOP_OP_SET_ONLY)
		states[shot->which].info.kpop_only = shot->cmd.arg;
	for (i = 0; i < NR_VMS; i++) {
		look(i, &now);
		if (memcmp(&now, &states[i], sizeof(now))) {
			tell(shot, n, "a VM is not what it should be", i, now.info.kpop_only);
			states[i] = now;
			ok = false;
		}
	}
	return ok;
}

static void test_model(u64 calls)
{
	struct area cmds = new_area(4 * KST_PAGE), data = new_area(BUF_SIZE);
	static struct state states[NR_VMS];
	u64 s = seed, n, bad = 0, errs[4] = {};
	static struct shot shot;
	int i;

	for (i = 0; i < NR_VMS; i++) {
		/* What the switch takes once is in the bytes from then on. */
		TEST_ASSERT(!call(fds[i].fd, KVM_KPOP_OP_SET_ONLY, 1, NULL, NULL) &&
			    !call(fds[i].fd, KVM_KPOP_OP_SET_ONLY, 0, NULL, NULL), "SET_ONLY");
		look(i, &states[i]);
	}
	kst_check(states[FD_OWN].info.nr_spaces == SPACES &&
		  states[FD_OWN].spaces_len == SPACES * sizeof(states[0].spaces[0]),
		  "a VM with %u spaces", states[FD_OWN].info.nr_spaces);
	for (n = 0; n < calls && bad < 5; n++) {
		int want;

		aim(&s, &shot, &cmds, &data);
		want = model(&shot, states);
		errs[!want ? 0 : want == EFAULT ? 1 : want == EINVAL ? 2 : 3]++;
		bad += !fire(&shot, n, states, &cmds, &data);
	}
	kst_check(!bad, "%" PRIu64 " calls as documented: %" PRIu64 " succeed, %" PRIu64
		  " EFAULT, %" PRIu64 " EINVAL, %" PRIu64 " others", n, errs[0], errs[1], errs[2],
		  errs[3]);
	kst_check(errs[0] > n / 20 && errs[1] > n / 50 && errs[2] > n / 20 && errs[3] > n / 50,
		  "none of them is rare");
	for (i = 0; i < NR_VMS; i++) {
		call(fds[i].fd, KVM_KPOP_OP_SET_ONLY, 0, NULL, NULL);
		call(fds[i].fd, KVM_KPOP_OP_SET_CAP, 0, NULL, NULL);
	}
}

/* ---- threads ---- */

static volatile bool over;
static volatile u64 total, undocumented, deaths;
static int mortal[NR_MORTAL];
static struct area shared;

static bool documented(int err)
{
	return !err || err == E2BIG || err == EINVAL || err == EBADF || err == EOPNOTSUPP ||
	       err == EFAULT || err == ENOMEM || (have_checker && err == EIO);
}

static void *fuzzer(void *arg)
{
	struct area cmds = new_area(4 * KST_PAGE), data = new_area(BUF_SIZE);
	u64 s = seed + 1 + (u64)arg, n;
	struct shot *shot = malloc(sizeof(*shot));
	int err;

	for (n = 0; !over; n++) {
		aim(&s, shot, &cmds, &data);
		if (!pick(&s, 2)) {
			int fd = mortal[pick(&s, NR_MORTAL)];

			memcpy(shot->bytes + offsetof(struct kvm_kpop_cmd, vm_fd), &fd, sizeof(fd));
		}
		if (shot->avail)
			memcpy(cmds.rw + cmds.size - shot->avail, shot->bytes,
			       min_t(u64, shot->avail, sizeof(shot->bytes)));
		/* Or one that another thread writes to at this moment. */
		if (!pick(&s, 4)) {
			shot->at = (u64)shared.rw;
			memcpy(shared.rw, shot->bytes, sizeof(shot->cmd));
		}
		err = ioctl(kvm_fd, KVM_KPOP, shot->at) ? errno : 0;
		if (!documented(err) && !__atomic_fetch_add(&undocumented, 1, __ATOMIC_RELAXED))
			printf("# call %" PRIu64 " of thread %" PRIu64 ": %s\n", n, (u64)arg,
			       strerror(err));
		__atomic_fetch_add(&total, 1, __ATOMIC_RELAXED);
	}
	free(shot);
	return NULL;
}

/* The number stays a VM's, each time of another one: the last user frees the old one. */
static void *killer(void *arg)
{
	u64 s = seed + 1000;
	int fd;

	for (; !over; deaths++) {
		fd = new_vm(0);
		if (fd < 0 || dup2(fd, mortal[pick(&s, NR_MORTAL)]) < 0)
			break;
		close(fd);
		if (deaths == 10)
			kill(other_pid, SIGKILL);
	}
	return NULL;
}

/* Never an op that plants. */
static void *scribbler(void *arg)
{
	struct kvm_kpop_cmd *cmd = (void *)shared.rw;
	u64 s = seed + 2000;

	while (!over) {
		switch (pick(&s, 5)) {
		case 0:
			WRITE_ONCE(cmd->size, pick_size(&s));
			break;
		case 1:
			WRITE_ONCE(cmd->op, pick(&s, 4));
			break;
		case 2:
			WRITE_ONCE(cmd->vm_fd, fds[pick(&s, NR_FDS)].fd);
			break;
		case 3:
			WRITE_ONCE(cmd->flags, pick(&s, 2));
			break;
		case 4:
			WRITE_ONCE(cmd->data, pick(&s, 2) ? (u64)cmd : 0);
			break;
		}
		sched_yield();
	}
	return NULL;
}

static void test_threads(struct tvm *t, u64 nr_deaths)
{
	pthread_t threads[FUZZERS + 2];
	struct kvm_kpop_info info;
	u64 rounds = t->sh->val[V_ROUNDS], i;
	struct state state;
	bool enough;

	shared = new_area(4 * KST_PAGE);
	for (i = 0; i < NR_MORTAL; i++)
		TEST_ASSERT((mortal[i] = new_vm(0)) >= 0, "VM: %s", strerror(errno));
	for (i = 0; i < FUZZERS; i++)
		pthread_create(&threads[i], NULL, fuzzer, (void *)i);
	pthread_create(&threads[FUZZERS], NULL, killer, NULL);
	pthread_create(&threads[FUZZERS + 1], NULL, scribbler, NULL);
	enough = kst_wait(deaths >= nr_deaths && total >= 10 * nr_deaths &&
			  t->sh->val[V_ROUNDS] >= rounds + nr_deaths / 10, 300000);
	over = true;
	for (i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	kst_check(enough, "%" PRIu64 " calls of %d threads, %" PRIu64 " VMs died, an L1 made %" PRIu64
		  " rounds", total, FUZZERS, deaths, t->sh->val[V_ROUNDS] - rounds);
	kst_check(!undocumented, "%" PRIu64 " calls with an errno that is not documented",
		  undocumented);
	kst_reap(other_pid, 1);
	for (i = 0; i < NR_VMS; i++) {
		TEST_ASSERT(!call(fds[i].fd, KVM_KPOP_OP_SET_ONLY, 0, NULL, NULL) &&
			    !call(fds[i].fd, KVM_KPOP_OP_SET_CAP, 0, NULL, NULL), "SET of VM %" PRIu64, i);
		look(i, &state);
		kst_check(!state.info.kpop_only && state.info.cap == DEFAULT_CAP,
			  "VM %llu takes what is set", state.info.vm_id);
	}
	for (i = 0; i < NR_MORTAL; i++)
		close(mortal[i]);
	kpop_info(t, &info);
	kst_check(info.state == KPOP_STATE_ATTACHED && !info.last_ejection.count,
		  "the policy of the L1 serves");
}

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	u64 *param = t->priv;

	if (args[0] != STAGE_LOADED)
		return;
	open_fds(t);
	test_model(param[0]);
	t->sh->phase[0] = 1;
}

int main(int argc, char **argv)
{
	struct tvm_opts o = { .guest = { l1_main }, .nr_l2 = 1, .sync = on_sync };
	struct kvm_kpop_info info;
	struct kvm_kpop_check check;
	u32 len = sizeof(check);
	struct policy p;
	struct tvm *t;
	u64 calls;

	kst_begin("kpop_ioctl_test", 400);
	seed = kst_param(argc, argv, "seed", 1);
	calls = kst_param(argc, argv, "calls", 10000);
	signal(SIGPIPE, SIG_IGN);
	kvm_fd = open(KVM_DEV_PATH, O_RDWR | O_CLOEXEC);
	TEST_ASSERT(kvm_fd >= 0, KVM_DEV_PATH);
	t = tvm_create(&o);
	t->priv = &calls;
	kpop_info(t, &info);
	have_checker = !kpop_ctl(t->vm->fd, KVM_KPOP_OP_CHECK, 0, &check, &len);
	policy_serve(&p, "kpop_base", t);
	tvm_start(t);
	kst_check(kst_wait(t->sh->phase[0], 300000), "the calls against the model came to an end");
	test_threads(t, kst_param(argc, argv, "deaths", 100));
	t->sh->stop = 1;
	tvm_join(t);
	policy_stop(&p, t);
	tvm_free(t);
	return kst_end();
}
