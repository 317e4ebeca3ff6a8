// SPDX-License-Identifier: GPL-2.0
/*
 * KPOP policies: struct_ops plumbing.
 *
 * What the verifier and the struct_ops core ask about struct kpop_ops is
 * answered here.  reg(), update() and unreg() run under a mutex that all
 * struct_ops of the host share: all they do is find the VM and hand over to
 * kpop_target.c, which queues the work.
 */
#include <linux/bpf.h>
#include <linux/bpf_verifier.h>
#include <linux/btf.h>
#include <linux/ctype.h>
#include <linux/file.h>
#include <linux/hashtable.h>
#include <linux/module.h>

#include "kpop_policy.h"

/* A link that was attached to a VM once; goes with unreg(). */
struct kpop_link {
	struct hlist_node node;
	struct bpf_link *link;
	struct kpop_target *target;		/* a reference */
};

static DEFINE_HASHTABLE(kpop_links, 6);		/* by bpf_link */
static DEFINE_SPINLOCK(kpop_links_lock);

static struct kpop_link *kpop_find_link(struct bpf_link *link)
{
	struct kpop_link *l;

	lockdep_assert_held(&kpop_links_lock);

	hash_for_each_possible(kpop_links, l, node, (unsigned long)link)
		if (l->link == link)
			return l;
	return NULL;
}

/* A link stays in the registry until unreg(), which update() excludes. */
static struct kpop_target *kpop_link_target(struct bpf_link *link)
{
	struct kpop_link *l;

	spin_lock(&kpop_links_lock);
	l = kpop_find_link(link);
	spin_unlock(&kpop_links_lock);
	return l ? l->target : NULL;
}

static int kpop_attach_link(struct kpop_vm *kv, struct kpop_ops *ops,
			    struct bpf_link *link)
{
	struct kpop_link *l;
	int r;

	l = kzalloc(sizeof(*l), GFP_KERNEL_ACCOUNT);
	if (!l)
		return -ENOMEM;
	l->link = link;
	l->target = kv->target;

	r = kpop_target_attach(l->target, ops, link);
	if (r) {
		kfree(l);
		return r;
	}

	kpop_target_get(l->target);
	spin_lock(&kpop_links_lock);
	hash_add(kpop_links, &l->node, (unsigned long)link);
	spin_unlock(&kpop_links_lock);
	return 0;
}

/* vm_fd is looked up here, in the caller's table, and never again. */
static int kpop_ops_reg(void *kdata, struct bpf_link *link)
{
	struct kpop_ops *ops = kdata;
	struct kpop_vm *kv;
	struct file *file;
	struct kvm *kvm;
	int r;

	if (!link)
		return -EOPNOTSUPP;

	file = ops->vm_fd < 0 ? NULL : fget(ops->vm_fd);
	if (!file)
		return -EBADF;

	r = -EINVAL;
	if (!file_is_kvm(file))
		goto out;

	r = -EOPNOTSUPP;
	kvm = file->private_data;
	kv = kpop_vm(kvm);
	if (kv)
		r = kpop_attach_link(kv, ops, link);
out:
	fput(file);
	return r;
}

static int kpop_ops_update(void *kdata, void *old_kdata, struct bpf_link *link)
{
	struct kpop_target *t = kpop_link_target(link);

	return t ? kpop_target_swap(t, kdata, link) : -ENOLINK;
}

static void kpop_ops_unreg(void *kdata, struct bpf_link *link)
{
	struct kpop_link *l;

	spin_lock(&kpop_links_lock);
	l = kpop_find_link(link);
	if (l)
		hash_del(&l->node);
	spin_unlock(&kpop_links_lock);
	if (!l)
		return;

	kpop_target_detach(l->target, link);
	kpop_target_put(l->target);
	kfree(l);
}

static int kpop_ops_init(struct btf *btf)
{
	return kpop_kfunc_set_btf(btf);
}

/* 1 to 15 characters that need no quoting anywhere, then zeroes only. */
static int kpop_copy_name(char *to, const char *from)
{
	size_t len = strnlen(from, KPOP_NAME_LEN), i;

	if (!len || len == KPOP_NAME_LEN)
		return -EINVAL;
	for (i = 0; i < len; i++)
		if (!isascii(from[i]) ||
		    (!isalnum(from[i]) && !strchr("_.-", from[i])))
			return -EINVAL;
	if (memchr_inv(from + len, 0, KPOP_NAME_LEN - len))
		return -EINVAL;

	memcpy(to, from, KPOP_NAME_LEN);
	return 0;
}

static int kpop_ops_init_member(const struct btf_type *t,
				const struct btf_member *member,
				void *kdata, const void *udata)
{
	const struct kpop_ops *uops = udata;
	struct kpop_ops *ops = kdata;

	switch (__btf_member_bit_offset(t, member) / 8) {
	case offsetof(struct kpop_ops, vm_fd):
		ops->vm_fd = uops->vm_fd;
		return 1;
	case offsetof(struct kpop_ops, name):
		return kpop_copy_name(ops->name, uops->name) ?: 1;
	}
	return 0;
}

/* Runs when the map is filled: a program's trampoline is in place by then. */
static int kpop_ops_validate(void *kdata)
{
	struct kpop_ops *ops = kdata;

	return ops->load && ops->map ? 0 : -EINVAL;
}

/*
 * All hooks are called where they may sleep.  A hook added to the struct is
 * not, until it is named here.
 */
static int kpop_ops_check_member(const struct btf_type *t,
				 const struct btf_member *member,
				 const struct bpf_prog *prog)
{
	switch (__btf_member_bit_offset(t, member) / 8) {
	case offsetof(struct kpop_ops, load):
	case offsetof(struct kpop_ops, unload):
	case offsetof(struct kpop_ops, map):
	case offsetof(struct kpop_ops, unmap):
	case offsetof(struct kpop_ops, zap):
	case offsetof(struct kpop_ops, fault):
	case offsetof(struct kpop_ops, init):
	case offsetof(struct kpop_ops, exit):
		return 0;
	}
	return prog->sleepable ? -EINVAL : 0;
}

/*
 * No tail calls: what a kfunc may rely on is checked for the program that is
 * in the hook, and the hook's program is the one that runs.
 */
static const struct bpf_func_proto *
kpop_get_func_proto(enum bpf_func_id func_id, const struct bpf_prog *prog)
{
	if (func_id == BPF_FUNC_tail_call)
		return NULL;
	return bpf_base_func_proto(func_id, prog);
}

static bool kpop_is_valid_access(int off, int size, enum bpf_access_type type,
				 const struct bpf_prog *prog,
				 struct bpf_insn_access_aux *info)
{
	return bpf_tracing_btf_ctx_access(off, size, type, prog, info);
}

static int kpop_btf_struct_access(struct bpf_verifier_log *log,
				  const struct bpf_reg_state *reg,
				  int off, int size)
{
	bpf_log(log, "kpop: a policy writes to its own maps only\n");
	return -EACCES;
}

static const struct bpf_verifier_ops kpop_verifier_ops = {
	.get_func_proto		= kpop_get_func_proto,
	.is_valid_access	= kpop_is_valid_access,
	.btf_struct_access	= kpop_btf_struct_access,
};

static int kpop_ops__load(struct kpop_load_ctx *ctx)
{
	return 0;
}

static void kpop_ops__unload(struct kpop_unload_ctx *ctx)
{
}

static int kpop_ops__map(struct kpop_map_ctx *ctx)
{
	return 0;
}

static void kpop_ops__unmap(struct kpop_unmap_ctx *ctx)
{
}

static void kpop_ops__zap(struct kpop_unmap_ctx *ctx)
{
}

static int kpop_ops__fault(struct kpop_fault_ctx *ctx)
{
	return KPOP_FAULT_REFLECT;
}

static int kpop_ops__init(struct kpop_init_ctx *ctx)
{
	return 0;
}

static void kpop_ops__exit(struct kpop_init_ctx *ctx)
{
}

static struct kpop_ops kpop_cfi_stubs = {
	.load	= kpop_ops__load,
	.unload	= kpop_ops__unload,
	.map	= kpop_ops__map,
	.unmap	= kpop_ops__unmap,
	.zap	= kpop_ops__zap,
	.fault	= kpop_ops__fault,
	.init	= kpop_ops__init,
	.exit	= kpop_ops__exit,
};

static struct bpf_struct_ops kpop_struct_ops = {
	.verifier_ops	= &kpop_verifier_ops,
	.init		= kpop_ops_init,
	.check_member	= kpop_ops_check_member,
	.init_member	= kpop_ops_init_member,
	.validate	= kpop_ops_validate,
	.reg		= kpop_ops_reg,
	.unreg		= kpop_ops_unreg,
	.update		= kpop_ops_update,
	.cfi_stubs	= &kpop_cfi_stubs,
	.name		= "kpop_ops",
	.owner		= THIS_MODULE,
};

/**
 * kpop_policy_module_init - make kpop_ops and its kfuncs known to BPF
 *
 * Neither can be unregistered: they go with the module's BTF, also when the
 * module's init fails later.  No program can be loaded before it is live.
 *
 * Context: module init, after everything that a hook call needs.
 * Return: 0 or a negative errno.
 */
int kpop_policy_module_init(void)
{
	int r;

	/* What a policy's source finds in vmlinux.h beside the struct. */
	BTF_TYPE_EMIT_ENUM(KPOP_FAULT_REFLECT);
	BTF_TYPE_EMIT_ENUM(KPOP_HOW_LAZY);
	BTF_TYPE_EMIT_ENUM(KPOP_NR_HOOKS);

	r = kpop_target_module_init();
	if (r)
		return r;

	r = kpop_kfunc_init();
	if (!r)
		r = register_bpf_struct_ops(&kpop_struct_ops, kpop_ops);
	if (r)
		kpop_target_module_exit();
	return r;
}

/**
 * kpop_policy_module_exit - wait for what detached policies left
 *
 * Context: module exit.
 */
void kpop_policy_module_exit(void)
{
	kpop_target_module_exit();
}
