// SPDX-License-Identifier: GPL-2.0
/*
 * kexec - this machine goes on with another kernel, at once and without its firmware.
 *
 *   kexec KERNEL CMDLINE   no initrd; the machine has no other memory of the kernel before
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int fd;

	if (argc != 3) {
		fprintf(stderr, "usage: kexec KERNEL CMDLINE\n");
		return 2;
	}
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		perror(argv[1]);
		return 1;
	}
	/* The length counts the final 0. */
	if (syscall(SYS_kexec_file_load, fd, -1, strlen(argv[2]) + 1, argv[2], KEXEC_FILE_NO_INITRAMFS)) {
		perror("kexec_file_load");
		return 1;
	}
	sync();
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
	perror("reboot");
	return 1;
}
