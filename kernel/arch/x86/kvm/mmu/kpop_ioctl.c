// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP: the controller's door, one ioctl on /dev/kvm.
 *
 * KVM answers the ioctls of another process's VM with -EIO, so kpopctl hands
 * the VM's file descriptor in.  Having it is the right to ask and to set:
 * whoever has it got it from the VMM, or could ptrace the VMM.
 */
#include <linux/file.h>
#include <linux/uaccess.h>

#include "kpop.h"

/* The answer is @full bytes; user space gets what fits, and @full. */
static int kpop_answer(struct kvm_kpop_cmd *cmd, const void *from, size_t full)
{
	size_t len = min_t(size_t, cmd->data_len, full);

	cmd->data_len = full;
	if (len && copy_to_user(u64_to_user_ptr(cmd->data), from, len))
		return -EFAULT;
	return 0;
}

static int kpop_op_info(struct kpop_vm *kv, struct kvm_kpop_cmd *cmd)
{
	struct kvm_kpop_info *info;
	int r;

	info = kzalloc(sizeof(*info), GFP_KERNEL_ACCOUNT);
	if (!info)
		return -ENOMEM;

	kpop_fill_info(kv, info);
	kpop_policy_fill_info(kv, info);
	r = kpop_answer(cmd, info, sizeof(*info));
	kfree(info);
	return r;
}

static int kpop_op_spaces(struct kpop_vm *kv, struct kvm_kpop_cmd *cmd)
{
	struct kvm_kpop_space_info *list;
	u32 nr, room;
	int r;

	room = min_t(u32, cmd->data_len / sizeof(*list), KPOP_MAX_SPACES);
	list = kvcalloc(max(room, 1u), sizeof(*list), GFP_KERNEL_ACCOUNT);
	if (!list)
		return -ENOMEM;

	/* Whole entries only; what is beyond @room is counted, not told. */
	nr = kpop_fill_spaces(kv, list, room);
	cmd->data_len = min(nr, room) * sizeof(*list);
	r = kpop_answer(cmd, list, cmd->data_len);
	cmd->data_len = nr * sizeof(*list);
	kvfree(list);
	return r;
}

#ifdef CONFIG_KVM_PROVE_MMU
static int kpop_op_check(struct kpop_vm *kv, struct kvm_kpop_cmd *cmd)
{
	struct kvm_kpop_check c = {};

	if (cmd->op == KVM_KPOP_OP_PLANT)
		return !capable(CAP_SYS_RAWIO) ? -EPERM :
		       cmd->arg > KPOP_PLANT_RMAP ? -EINVAL : kpop_plant(kv, cmd->arg);
	if (cmd->arg)
		return -EINVAL;
	/* Host pages are looked up in the VMM's address space. */
	if (current->mm != kv->kvm->mm)
		return -EIO;
	kpop_check(kv, &c);
	return kpop_answer(cmd, &c, sizeof(c));
}
#else
static int kpop_op_check(struct kpop_vm *kv, struct kvm_kpop_cmd *cmd)
{
	return -EOPNOTSUPP;
}
#endif

static int kpop_run_op(struct kpop_vm *kv, struct kvm_kpop_cmd *cmd)
{
	switch (cmd->op) {
	case KVM_KPOP_OP_INFO:
		return cmd->arg ? -EINVAL : kpop_op_info(kv, cmd);
	case KVM_KPOP_OP_SPACES:
		return cmd->arg ? -EINVAL : kpop_op_spaces(kv, cmd);
	case KVM_KPOP_OP_SET_CAP:
		/* Below what is in use: no more is taken, L0 takes back. */
		WRITE_ONCE(kv->cap, cmd->arg ?: KPOP_DEFAULT_CAP);
		return 0;
	case KVM_KPOP_OP_SET_ONLY:
		if (cmd->arg > 1)
			return -EINVAL;
		return kpop_set_only(kv, cmd->arg);
	case KVM_KPOP_OP_CHECK:
	case KVM_KPOP_OP_PLANT:
		return kpop_op_check(kv, cmd);
	default:
		return -EINVAL;
	}
}

/*
 * The file keeps the VM for as long as this takes.  A VM without KPOP (module
 * parameter, VM type) has nothing to tell.
 */
static int kpop_run_cmd(struct kvm_kpop_cmd *cmd)
{
	struct file *file;
	struct kpop_vm *kv;
	struct kvm *kvm;
	int r = -EINVAL;

	file = cmd->vm_fd < 0 ? NULL : fget(cmd->vm_fd);
	if (!file)
		return -EBADF;

	if (file_is_kvm(file)) {
		kvm = file->private_data;
		kv = kpop_vm(kvm);
		r = kv ? kpop_run_op(kv, cmd) : -EOPNOTSUPP;
	}
	fput(file);
	return r;
}

/**
 * kpop_dev_ioctl - KVM_KPOP on /dev/kvm
 * @arg: user pointer to a struct kvm_kpop_cmd
 *
 * Of a larger struct than ours the rest must be zero, in a smaller one what
 * is missing is zero; so either side may be the newer one.
 *
 * Return: 0, -E2BIG (a newer caller asks for what we do not know), -EINVAL,
 * -EBADF, -EOPNOTSUPP (no KPOP for this VM), -EFAULT, -ENOMEM.
 */
long kpop_dev_ioctl(unsigned long arg)
{
	struct kvm_kpop_cmd __user *ucmd = (void __user *)arg;
	struct kvm_kpop_cmd cmd;
	u32 size;
	int r;

	if (get_user(size, &ucmd->size))
		return -EFAULT;
	if (size < offsetofend(struct kvm_kpop_cmd, data_len) ||
	    size > PAGE_SIZE)
		return -EINVAL;

	r = copy_struct_from_user(&cmd, sizeof(cmd), ucmd, size);
	if (r)
		return r;
	if (cmd.size != size || cmd.flags || cmd.reserved)
		return -EINVAL;

	/* Where no answer can go nothing is done either. */
	if (put_user(cmd.data_len, &ucmd->data_len))
		return -EFAULT;

	r = kpop_run_cmd(&cmd);
	if (!r && put_user(cmd.data_len, &ucmd->data_len))
		r = -EFAULT;
	return r;
}
