// SPDX-License-Identifier: GPL-2.0
/*
 * vagent - run commands in a VM over virtio ports, and forward consoles.
 *
 *   vagent serve PORT...           in the guest, as PID 1: run what arrives
 *   vagent run [-t SEC] BASE CMD   on the level above: BASE.0, BASE.1, ... are the unix sockets of a VM's ports;
 *                                  the first one that is free is used. The exit status is the command's, 124 after a
 *                                  timeout, 125 when the VM is gone.
 *   vagent log SOCKET OUT          accept consoles on SOCKET; copy whole lines to OUT, as they come
 *   vagent say SOCKET TEXT         a line of one's own into that
 *   vagent ask SOCKET TEXT         a command for QEMU's monitor on SOCKET; prints the answer
 *
 * One command at a time goes over a port. A request is "\1RUN id len\n" and the command; the answer is "\1BEGIN id\n",
 * then "O len\n" with output, then "X status\n". Both sides skip to their marker first, so that what a killed peer left
 * in a buffer does no harm. When the client goes away the command is killed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_CMD (256 * 1024)
#define MAX_PORTS 16
#define MAX_LOGS 64

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static int fail(const char *what)
{
	fprintf(stderr, "vagent: %s: %s\n", what, strerror(errno));
	return 125;
}

/*
 * A guest may hear of a connection after its first data, and late of the end of the one before: the control queue is
 * handled apart. So only a hang-up that lasts means that the client is gone.
 */
#define HUP_MS 1500

/* Write all of it; false when the other side is gone. */
static bool put(int fd, const void *buf, size_t len)
{
	const char *p = buf;
	long long hup = 0;

	while (len) {
		struct pollfd pfd = { .fd = fd, .events = POLLOUT };
		ssize_t n = write(fd, p, len);

		if (n > 0) {
			p += n;
			len -= n;
			hup = 0;
			continue;
		}
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return false;
		if (poll(&pfd, 1, -1) < 0 && errno != EINTR)
			return false;
		if (pfd.revents & (POLLHUP | POLLERR)) {
			if (!hup)
				hup = now_ms();
			if (now_ms() - hup > HUP_MS)
				return false;
			usleep(5000);
		}
	}
	return true;
}

/* One byte, waiting until @deadline (0: for ever); -1 at the end, -2 on timeout. */
static int get(int fd, long long deadline)
{
	static unsigned char buf[65536];
	static size_t have, pos;

	while (pos == have) {
		struct pollfd pfd = { .fd = fd, .events = POLLIN };
		int wait = -1;
		ssize_t n;

		if (deadline) {
			long long left = deadline - now_ms();

			if (left <= 0)
				return -2;
			wait = left > 1000000 ? 1000000 : left;
		}
		if (poll(&pfd, 1, wait) <= 0)
			continue;
		n = read(fd, buf, sizeof(buf));
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			return -1;
		pos = 0;
		have = n;
	}
	return buf[pos++];
}

static int get_line(int fd, char *line, size_t size, long long deadline)
{
	size_t n = 0;
	int c;

	while ((c = get(fd, deadline)) != '\n') {
		if (c < 0)
			return c;
		if (n + 1 < size)
			line[n++] = c;
	}
	line[n] = 0;
	return 0;
}

/* ---- the guest's side ---- */

static void kill_command(pid_t pid)
{
	int status;

	kill(-pid, SIGKILL);
	kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
}

static pid_t start_command(char *cmd, int *out)
{
	int p[2];
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_RDONLY);

		sigset_t none;

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		signal(SIGPIPE, SIG_DFL);
		setsid();
		dup2(null, 0);
		dup2(p[1], 1);
		dup2(p[1], 2);
		execl("/bin/sh", "sh", "-c", cmd, NULL);
		_exit(127);
	}
	close(p[1]);
	*out = p[0];
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	return pid;
}

/* Forward what the command wrote so far. False: the client went away. */
static bool forward(int port, int out, bool *eof)
{
	char buf[16384], head[32];
	ssize_t n;

	while ((n = read(out, buf, sizeof(buf))) > 0) {
		int h = snprintf(head, sizeof(head), "O %zd\n", n);

		if (!put(port, head, h) || !put(port, buf, n))
			return false;
	}
	*eof = n == 0;
	return true;
}

static void run_command(int port, const char *id, char *cmd)
{
	char head[128];
	int out = -1, status = 0, n;
	long long hup = 0;
	bool eof = false;
	pid_t pid = start_command(cmd, &out);

	n = snprintf(head, sizeof(head), "\1BEGIN %s\n", id);
	if (!put(port, head, n)) {
		kill_command(pid);
		goto out;
	}
	for (;;) {
		struct pollfd pfd[2] = {
			{ .fd = eof ? -1 : out, .events = POLLIN },
			{ .fd = port, .events = POLLIN },
		};
		pid_t done;

		/* The short wait is for a child that ends while others hold its pipe. */
		poll(pfd, 2, eof ? 20 : 100);
		if (!(pfd[1].revents & (POLLHUP | POLLERR))) {
			hup = 0;
			/* Input during a command means that the next client is there already. */
			if (pfd[1].revents & POLLIN) {
				kill_command(pid);
				break;
			}
		} else {
			if (!hup)
				hup = now_ms();
			if (now_ms() - hup > HUP_MS) {
				kill_command(pid);
				break;
			}
			usleep(5000);
		}
		done = waitpid(pid, &status, WNOHANG);
		if (!forward(port, out, &eof)) {
			if (done != pid)
				kill_command(pid);
			break;
		}
		if (done == pid) {
			int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);

			n = snprintf(head, sizeof(head), "X %d\n", code);
			put(port, head, n);
			break;
		}
	}
out:
	close(out);
}

static void serve_port(const char *path)
{
	static char cmd[MAX_CMD + 1];
	char line[128], id[64];
	struct timespec retry = { .tv_sec = 5 };
	unsigned long len, i;
	sigset_t sigio;
	int port, c;

	/* With nobody connected poll() returns at once; the driver's SIGIO tells of a connection. */
	sigemptyset(&sigio);
	sigaddset(&sigio, SIGIO);
	sigprocmask(SIG_BLOCK, &sigio, NULL);
	for (;;) {
		struct pollfd pfd;

		port = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (port < 0)
			_exit(fail(path));
		fcntl(port, F_SETOWN, getpid());
		fcntl(port, F_SETFL, O_NONBLOCK | O_ASYNC);
		for (;;) {
			pfd = (struct pollfd){ .fd = port, .events = POLLIN };
			poll(&pfd, 1, -1);
			while ((c = get(port, 0)) != 1 && c >= 0)
				;
			if (c < 0) {
				sigtimedwait(&sigio, NULL, &retry);
				continue;
			}
			if (get_line(port, line, sizeof(line), 0) < 0)
				continue;
			if (sscanf(line, "RUN %63s %lu", id, &len) != 2 || len > MAX_CMD)
				continue;
			for (i = 0; i < len; i++) {
				c = get(port, 0);
				if (c < 0)
					break;
				cmd[i] = c;
			}
			if (i < len)
				continue;
			cmd[len] = 0;
			run_command(port, id, cmd);
		}
	}
}

static pid_t spawn_server(const char *path)
{
	pid_t pid = fork();

	if (pid == 0)
		serve_port(path);
	return pid;
}

static void serve(int n, char **paths)
{
	pid_t pids[MAX_PORTS];
	int i;

	signal(SIGPIPE, SIG_IGN);
	if (n > MAX_PORTS)
		n = MAX_PORTS;
	for (i = 0; i < n; i++)
		pids[i] = spawn_server(paths[i]);
	for (;;) {
		pid_t pid = waitpid(-1, NULL, 0);

		if (pid < 0)
			sleep(1);
		for (i = 0; i < n; i++) {
			if (pid == pids[i]) {
				usleep(200000);
				pids[i] = spawn_server(paths[i]);
			}
		}
	}
}

/* ---- the client's side ---- */

static int connect_unix(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(sa.sun_path)) {
		close(fd);
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(sa.sun_path, path);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The lock on BASE.n.lock says who talks on BASE.n; it goes with the process. */
static int take_port(const char *base, long long deadline)
{
	char path[256];
	int i, fd, lock;

	for (;;) {
		for (i = 0; i < MAX_PORTS; i++) {
			snprintf(path, sizeof(path), "%s.%d", base, i);
			if (access(path, F_OK) < 0)
				break;
			snprintf(path, sizeof(path), "%s.%d.lock", base, i);
			lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
			if (lock < 0)
				return -1;
			if (flock(lock, LOCK_EX | LOCK_NB) < 0) {
				close(lock);
				continue;
			}
			snprintf(path, sizeof(path), "%s.%d", base, i);
			fd = connect_unix(path);
			if (fd >= 0)
				return fd;
			close(lock);
			if (errno == ECONNREFUSED || errno == ENOENT)
				return -1;
		}
		if (i == 0)
			return -1;
		if (deadline && now_ms() > deadline) {
			errno = ETIMEDOUT;
			return -1;
		}
		usleep(50000);
	}
}

static int ended(int code)
{
	fprintf(stderr, code == -2 ? "vagent: timed out\n" : "vagent: the VM is gone\n");
	return code == -2 ? 124 : 125;
}

static int run(int argc, char **argv)
{
	char head[128], line[128], id[64], *cmd, buf[16384];
	long long deadline = 0;
	int fd, n, c, status;
	unsigned long len, i;

	if (argc > 2 && !strcmp(argv[0], "-t")) {
		if (atol(argv[1]) > 0)
			deadline = now_ms() + atol(argv[1]) * 1000LL;
		argc -= 2;
		argv += 2;
	}
	if (argc != 2)
		return 2;
	cmd = argv[1];
	signal(SIGPIPE, SIG_IGN);
	fd = take_port(argv[0], deadline);
	if (fd < 0)
		return errno == ETIMEDOUT ? ended(-2) : fail(argv[0]);

	snprintf(id, sizeof(id), "%d.%lld", getpid(), now_ms());
	n = snprintf(head, sizeof(head), "\1RUN %s %zu\n", id, strlen(cmd));
	if (!put(fd, head, n) || !put(fd, cmd, strlen(cmd)))
		return ended(-1);
	snprintf(head, sizeof(head), "BEGIN %s", id);
	do {
		while ((c = get(fd, deadline)) != 1)
			if (c < 0)
				return ended(c);
		c = get_line(fd, line, sizeof(line), deadline);
		if (c < 0)
			return ended(c);
	} while (strcmp(line, head));

	for (;;) {
		c = get_line(fd, line, sizeof(line), deadline);
		if (c < 0)
			return ended(c);
		if (sscanf(line, "X %d", &status) == 1)
			return status;
		if (sscanf(line, "O %lu", &len) != 1 || len > sizeof(buf))
			return ended(-1);
		for (i = 0; i < len; i++) {
			c = get(fd, deadline);
			if (c < 0)
				return ended(c);
			buf[i] = c;
		}
		put(1, buf, len);
	}
}

/* ---- consoles ---- */

static int log_consoles(const char *path, const char *out)
{
	static struct { int fd; size_t n; char line[4096]; } in[MAX_LOGS];
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct pollfd pfd[MAX_LOGS + 1];
	int lfd, ofd, i, n = 0;

	if (strlen(path) >= sizeof(sa.sun_path))
		return 2;
	signal(SIGPIPE, SIG_IGN);
	ofd = open(out, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (ofd < 0)
		return fail(out);
	lfd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strcpy(sa.sun_path, path);
	unlink(path);
	if (bind(lfd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(lfd, 16) < 0)
		return fail(path);
	for (;;) {
		for (i = 0; i < n; i++)
			pfd[i] = (struct pollfd){ .fd = in[i].fd, .events = POLLIN };
		pfd[n] = (struct pollfd){ .fd = n < MAX_LOGS ? lfd : -1, .events = POLLIN };
		if (poll(pfd, n + 1, -1) < 0)
			continue;
		if (pfd[n].revents & POLLIN) {
			int fd = accept4(lfd, NULL, NULL, SOCK_CLOEXEC);

			if (fd >= 0) {
				in[n].fd = fd;
				in[n++].n = 0;
			}
			continue;
		}
		for (i = n - 1; i >= 0; i--) {
			char buf[4096];
			ssize_t k, j;

			if (!pfd[i].revents)
				continue;
			k = read(in[i].fd, buf, sizeof(buf));
			for (j = 0; j < k; j++) {
				if (buf[j] != '\r')
					in[i].line[in[i].n++] = buf[j];
				if (buf[j] == '\n' || in[i].n == sizeof(in[i].line) - 1) {
					put(ofd, in[i].line, in[i].n);
					in[i].n = 0;
				}
			}
			if (k <= 0) {
				/* The last words of a VM that died have no newline. */
				in[i].line[in[i].n++] = '\n';
				if (in[i].n > 1)
					put(ofd, in[i].line, in[i].n);
				close(in[i].fd);
				in[i] = in[--n];
			}
		}
	}
}

static int say(const char *path, const char *text)
{
	int fd = connect_unix(path);

	if (fd < 0)
		return fail(path);
	return put(fd, text, strlen(text)) && put(fd, "\n", 1) ? 0 : 125;
}

/* Copy to stdout, if @show, what comes up to the monitor's prompt; the first line is the echo of what was typed. */
static int until_prompt(int fd, bool show, long long deadline)
{
	static const char prompt[] = "(qemu) ";
	bool first = true;
	size_t seen = 0;
	int c;

	while (prompt[seen]) {
		c = get(fd, deadline);
		if (c < 0)
			return ended(c);
		if (c == prompt[seen]) {
			seen++;
			continue;
		}
		if (show && !first)
			printf("%.*s", (int)seen, prompt);
		seen = c == prompt[0];
		if (show && !first && !seen && c != '\r')
			putchar(c);
		first = first && c != '\n';
	}
	return 0;
}

static int ask(const char *path, const char *text)
{
	long long deadline = now_ms() + 120000;
	int fd = connect_unix(path), r;

	if (fd < 0)
		return fail(path);
	signal(SIGPIPE, SIG_IGN);
	r = until_prompt(fd, false, deadline);
	if (!r && (!put(fd, text, strlen(text)) || !put(fd, "\n", 1)))
		r = ended(-1);
	return r ? r : until_prompt(fd, true, deadline);
}

int main(int argc, char **argv)
{
	if (argc >= 3 && !strcmp(argv[1], "serve"))
		serve(argc - 2, argv + 2);
	if (argc >= 4 && !strcmp(argv[1], "run"))
		return run(argc - 2, argv + 2);
	if (argc == 4 && !strcmp(argv[1], "log"))
		return log_consoles(argv[2], argv[3]);
	if (argc == 4 && !strcmp(argv[1], "say"))
		return say(argv[2], argv[3]);
	if (argc == 4 && !strcmp(argv[1], "ask"))
		return ask(argv[2], argv[3]);
	fprintf(stderr, "usage: vagent serve PORT... | run [-t SEC] BASE CMD | log SOCKET OUT | say|ask SOCKET TEXT\n");
	return 2;
}
