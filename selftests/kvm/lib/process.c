// SPDX-License-Identifier: GPL-2.0
/* Other processes: a VMM that dies, another user, descriptors that go from one to the other. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kpop_test.h"

#ifndef __NR_pidfd_open
#define __NR_pidfd_open		434
#endif
#ifndef __NR_pidfd_getfd
#define __NR_pidfd_getfd	438
#endif

/* Memory that a test and its children share, zeroed. */
void *kst_shared(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	TEST_ASSERT(p != MAP_FAILED, "mmap: %s", strerror(errno));
	return p;
}

/* 0 in the child, which does not outlive its parent and counts its own failures. */
pid_t kst_fork(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	TEST_ASSERT(pid >= 0, "fork: %s", strerror(errno));
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		kst_failed = 0;
	}
	return pid;
}

/* Does not return. */
void kst_exit(void)
{
	fflush(stdout);
	_exit(kst_failed ? 1 : 0);
}

/* Its wait status; one that does not end is killed. */
int kst_reap(pid_t pid, u64 ms)
{
	int status = 0;

	if (!kst_wait(waitpid(pid, &status, WNOHANG) == pid, ms)) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	return status;
}

/* As a controller does that may ptrace the VMM; or minus an errno. */
int kst_take_fd(pid_t pid, int fd)
{
	int pidfd = syscall(__NR_pidfd_open, pid, 0);
	int r, e;

	if (pidfd < 0)
		return -errno;
	r = syscall(__NR_pidfd_getfd, pidfd, fd, 0);
	e = errno;
	close(pidfd);
	return r < 0 ? -e : r;
}

/* SCM_RIGHTS over a socket of a socketpair(). */
void kst_send_fd(int sock, int fd)
{
	union {
		struct cmsghdr hdr;
		char buf[CMSG_SPACE(sizeof(int))];
	} u = {};
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = u.buf, .msg_controllen = sizeof(u.buf),
	};

	u.hdr = (struct cmsghdr) {
		.cmsg_len = CMSG_LEN(sizeof(int)),
		.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
	};
	memcpy(CMSG_DATA(&u.hdr), &fd, sizeof(fd));
	TEST_ASSERT(sendmsg(sock, &msg, 0) == 1, "sendmsg: %s", strerror(errno));
}

int kst_recv_fd(int sock)
{
	char ctl[CMSG_SPACE(sizeof(int))], byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = ctl, .msg_controllen = sizeof(ctl),
	};
	struct cmsghdr *hdr;
	int fd;

	TEST_ASSERT(recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) == 1, "recvmsg: %s", strerror(errno));
	hdr = CMSG_FIRSTHDR(&msg);
	TEST_ASSERT(hdr && hdr->cmsg_type == SCM_RIGHTS, "no descriptor came");
	memcpy(&fd, CMSG_DATA(hdr), sizeof(fd));
	return fd;
}
