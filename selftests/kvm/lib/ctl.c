// SPDX-License-Identifier: GPL-2.0
/* The controller's door: KVM_KPOP on /dev/kvm. */
#include "kpop_test.h"

int kpop_ctl(int vm_fd, u32 op, u64 arg, void *data, u32 *len)
{
	struct kvm_kpop_cmd cmd = {
		.size = sizeof(cmd),
		.op = op,
		.vm_fd = vm_fd,
		.arg = arg,
		.data = (u64)data,
		.data_len = len ? *len : 0,
	};
	int fd = open(KVM_DEV_PATH, O_RDWR | O_CLOEXEC);
	int r, e;

	TEST_ASSERT(fd >= 0, "cannot open " KVM_DEV_PATH);
	r = ioctl(fd, KVM_KPOP, &cmd);
	e = errno;
	close(fd);
	if (len)
		*len = cmd.data_len;
	errno = e;
	return r;
}

/* Of any VM of which this process has the descriptor. */
void kpop_info_fd(int vm_fd, struct kvm_kpop_info *info)
{
	u32 len = sizeof(*info);
	int r;

	memset(info, 0, sizeof(*info));
	r = kpop_ctl(vm_fd, KVM_KPOP_OP_INFO, 0, info, &len);
	if (r && (errno == ENOTTY || errno == EINVAL))
		kst_skip("this kernel's KVM has no KPOP (KVM_KPOP: %s)", strerror(errno));
	TEST_ASSERT(!r, KVM_IOCTL_ERROR(KVM_KPOP, r));
}

void kpop_info(struct tvm *t, struct kvm_kpop_info *info)
{
	kpop_info_fd(t->vm->fd, info);
}

/*
 * No KPOP state is left.  A vCPU keeps the dead space that it ran on last until
 * it enters an L2 again, and page tables go after a grace period.
 */
bool kpop_none_left_fd(int vm_fd, int nr_vcpus, struct kvm_kpop_info *info)
{
	u64 kept = 8192 * nr_vcpus;

	return kst_wait((kpop_info_fd(vm_fd, info), !info->nr_spaces && !info->nr_bindings &&
			 !info->pages && info->bytes <= kept), 10000);
}

bool kpop_none_left(struct tvm *t, struct kvm_kpop_info *info)
{
	return kpop_none_left_fd(t->vm->fd, t->o.nr_vcpus, info);
}

int kpop_spaces(struct tvm *t, struct kvm_kpop_space_info *to, int max)
{
	u32 len = max * sizeof(*to);
	int r = kpop_ctl(t->vm->fd, KVM_KPOP_OP_SPACES, 0, to, &len);

	TEST_ASSERT(!r, KVM_IOCTL_ERROR(KVM_KPOP, r));
	return len / sizeof(*to);
}

static u32 kpop_state_of(int vm_fd)
{
	struct kvm_kpop_info info = {};
	u32 len = sizeof(info);

	if (kpop_ctl(vm_fd, KVM_KPOP_OP_INFO, 0, &info, &len))
		return -1;
	return info.state;
}

bool kpop_wait_state(int vm_fd, u32 state)
{
	return kst_wait(kpop_state_of(vm_fd) == state, 30000);
}

void kpop_set_only(int vm_fd, u64 only)
{
	int r = kpop_ctl(vm_fd, KVM_KPOP_OP_SET_ONLY, only, NULL, NULL);

	TEST_ASSERT(!r, KVM_IOCTL_ERROR(KVM_KPOP, r));
}

void kpop_set_cap(struct tvm *t, u64 bytes)
{
	int r = kpop_ctl(t->vm->fd, KVM_KPOP_OP_SET_CAP, bytes, NULL, NULL);

	TEST_ASSERT(!r, KVM_IOCTL_ERROR(KVM_KPOP, r));
}

/* Each is one look of L0's checker, which says nothing if all is right.  Returns false where there is none. */
bool kpop_check_tables(struct tvm *t)
{
	struct kvm_kpop_check k = {};
	u32 len = sizeof(k);

	if (kpop_ctl(t->vm->fd, KVM_KPOP_OP_CHECK, 0, &k, &len)) {
		if (errno != EOPNOTSUPP)
			kst_check(false, "checker: %s", strerror(errno));
		return false;
	}
	if (k.wrong)
		kst_check(false, "checker: %llu wrong, first: kind %u, L2 gfn 0x%llx, L1 gfn 0x%llx, spte 0x%llx",
			  k.wrong, k.what, k.l2_gfn, k.l1_gfn, k.spte);
	return true;
}
