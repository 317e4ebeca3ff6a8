// SPDX-License-Identifier: GPL-2.0
/*
 * Test module: write-track one page of a VM, as a driver of a mediated device
 * does.  Each open of /dev/kpop_track tracks one page; close ends it.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kvm_host.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <asm/kvm_page_track.h>

#include "kpop_track_mod.h"

/**
 * struct track - one open file
 * @kvm: the VM, or NULL; the notifier holds the reference; @mutex
 * @seen: @lock: it is written by vCPU threads
 */
struct track {
	struct kvm_page_track_notifier_node node;
	struct mutex mutex;
	struct kvm *kvm;
	gfn_t gfn;
	spinlock_t lock;
	struct kpop_track_seen seen;
};

static void track_write(gpa_t gpa, const u8 *new, int bytes,
			struct kvm_page_track_notifier_node *node)
{
	struct track *t = container_of(node, struct track, node);

	/* It is told of every emulated write of the VM. */
	if (gpa_to_gfn(gpa) != t->gfn)
		return;
	spin_lock(&t->lock);
	t->seen.writes++;
	t->seen.gpa = gpa;
	t->seen.bytes = bytes;
	memcpy(t->seen.data, new, min_t(size_t, bytes, sizeof(t->seen.data)));
	spin_unlock(&t->lock);
}

static int track_add(struct track *t, const struct kpop_track_page *page)
{
	struct file *file = fget(page->vm_fd);
	struct kvm *kvm;
	int r = -EINVAL, idx;

	if (!file)
		return -EBADF;
	if (file_is_kvm(file) && !t->kvm) {
		kvm = file->private_data;
		t->gfn = page->gfn;
		t->node.track_write = track_write;
		/* The first one walks the memslots. */
		idx = srcu_read_lock(&kvm->srcu);
		r = kvm_page_track_register_notifier(kvm, &t->node);
		srcu_read_unlock(&kvm->srcu, idx);
	}
	if (!r) {
		t->kvm = file->private_data;
		r = kvm_write_track_add_gfn(t->kvm, t->gfn);
		if (r) {
			kvm_page_track_unregister_notifier(t->kvm, &t->node);
			t->kvm = NULL;
		}
	}
	fput(file);
	return r;
}

static int track_remove(struct track *t)
{
	if (!t->kvm)
		return -EINVAL;
	/* -EINVAL: the memslot is gone, and its counts with it. */
	kvm_write_track_remove_gfn(t->kvm, t->gfn);
	kvm_page_track_unregister_notifier(t->kvm, &t->node);
	t->kvm = NULL;
	return 0;
}

static int track_open(struct inode *inode, struct file *file)
{
	struct track *t = kzalloc(sizeof(*t), GFP_KERNEL);

	if (!t)
		return -ENOMEM;
	mutex_init(&t->mutex);
	spin_lock_init(&t->lock);
	file->private_data = t;
	return 0;
}

static int track_release(struct inode *inode, struct file *file)
{
	struct track *t = file->private_data;

	track_remove(t);
	kfree(t);
	return 0;
}

static long track_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct track *t = file->private_data;
	struct kpop_track_page page;
	struct kpop_track_seen seen;
	long r = -ENOTTY;

	switch (cmd) {
	case KPOP_TRACK_ADD:
		if (copy_from_user(&page, (void __user *)arg, sizeof(page)))
			return -EFAULT;
		mutex_lock(&t->mutex);
		r = track_add(t, &page);
		mutex_unlock(&t->mutex);
		break;
	case KPOP_TRACK_REMOVE:
		mutex_lock(&t->mutex);
		r = track_remove(t);
		mutex_unlock(&t->mutex);
		break;
	case KPOP_TRACK_SEEN:
		spin_lock(&t->lock);
		seen = t->seen;
		spin_unlock(&t->lock);
		r = copy_to_user((void __user *)arg, &seen, sizeof(seen)) ? -EFAULT : 0;
		break;
	}
	return r;
}

static const struct file_operations track_fops = {
	.owner = THIS_MODULE,
	.open = track_open,
	.release = track_release,
	.unlocked_ioctl = track_ioctl,
};

static struct miscdevice track_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "kpop_track",
	.fops = &track_fops,
};
module_misc_device(track_dev);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("KPOP test: write-track a page of a VM");
