// SPDX-License-Identifier: GPL-2.0
/*
 * Bad input: every argument of every hypercall, and every place from which one
 * may not come, gets its documented error and changes nothing.
 */
#include "kpop_test.h"

#define TOKEN		token_of(0)
#define DIRTY_TOKEN	token_of(1)
#define OTHER_TOKEN	token_of(2)
#define KVM_ID		5
#define APIC_BASE	0xfee00000ULL
#define NOWHERE		0x7f0000000ULL		/* no memslot there */
#define END_GFN		pool_gfn(1024)		/* behind the pool */

#define HC_QUERY	KVM_HC_KPOP_QUERY
#define HC_LOAD		KVM_HC_KPOP_MMU_LOAD_UNLOAD
#define HC_MAP		KVM_HC_KPOP_MMU_MAP
#define HC_UNMAP	KVM_HC_KPOP_MMU_UNMAP

enum { STAGE_NO_POLICY, STAGE_ATTACH, STAGE_BEFORE, STAGE_AFTER, STAGE_MODES };

#define REFUSED(err, what, nr, a0, a1, a2, a3) \
	G_EXPECT(kvm_hypercall(nr, a0, a1, a2, a3), -(err), what)

/* Where the ABI leaves open which of two errors comes first. */
#define REFUSED2(err1, err2, what, nr, a0, a1, a2, a3)			\
do {									\
	long __r = kvm_hypercall(nr, a0, a1, a2, a3);			\
									\
	G_CHECK(__r == -(err1) || __r == -(err2), "%s: %ld", what, __r);\
} while (0)

static u64 load_op(u64 op, u64 as_id)
{
	return op | as_id << KPOP_AS_ID_SHIFT;
}

static void test_no_policy(struct l2 *l2)
{
	u64 op;

	for (op = 0; op <= KPOP_QUERY_RESET; op++)
		REFUSED(KVM_ENOSYS, "QUERY without a policy", HC_QUERY, op, 0, 0, 0);
	REFUSED(KVM_ENOSYS, "LOAD without a policy", HC_LOAD, 0, l2->holder, TOKEN, KVM_ID);
	REFUSED(KVM_ENOSYS, "MAP without a policy", HC_MAP, TOKEN | KPOP_MAP_RWX,
		l2_gfn(0), pool_gfn(0), 1);
	REFUSED(KVM_ENOSYS, "UNMAP without a policy", HC_UNMAP, 0, KVM_ID, l2_gfn(0), 1);
}

static void test_query(void)
{
	G_EXPECT(kpop_query(KPOP_QUERY_VERSION), KPOP_ABI_VERSION, "version");
	G_CHECK(!(kpop_query(KPOP_QUERY_FEATURES) & ~127ULL), "features: known bits only");
	G_CHECK(kpop_query(KPOP_QUERY_GFN_LIMIT) >= 1ULL << 20, "L2 gfn limit is 4 GiB or more");
	G_EXPECT(kpop_query(KPOP_QUERY_MAX_RUNS), KPOP_MAP_MAX_RUNS, "runs of a batch");
	REFUSED(EINVAL, "QUERY: unknown op", HC_QUERY, 5, 0, 0, 0);
	REFUSED(EINVAL, "QUERY: unknown bit", HC_QUERY, 1ULL << 63, 0, 0, 0);
	REFUSED(EINVAL, "QUERY: argument 2", HC_QUERY, 0, 1, 0, 0);
	REFUSED(EINVAL, "QUERY: argument 3", HC_QUERY, 0, 0, 1, 0);
	REFUSED(EINVAL, "QUERY: argument 4", HC_QUERY, 0, 0, 0, 1);
}

static void test_load(struct l2 *l2)
{
	u64 h = l2->holder;

	REFUSED(EINVAL, "LOAD: unknown op", HC_LOAD, 3, h, TOKEN, KVM_ID);
	REFUSED(EINVAL, "LOAD: as_id 2", HC_LOAD, load_op(KPOP_OP_LOAD, 2), h, TOKEN, KVM_ID);
	REFUSED(EINVAL, "LOAD: bit above as_id", HC_LOAD, 1ULL << 16, h, TOKEN, KVM_ID);
	REFUSED(EINVAL, "LOAD: bit 63", HC_LOAD, 1ULL << 63, h, TOKEN, KVM_ID);
	REFUSED(EINVAL, "LOAD: holder misaligned", HC_LOAD, 0, h + 8, TOKEN, KVM_ID);
	REFUSED(EINVAL, "LOAD: token misaligned", HC_LOAD, 0, h, TOKEN + 8, KVM_ID);
	REFUSED(EINVAL, "LOAD: kvm_id 0", HC_LOAD, 0, h, TOKEN, 0);
	REFUSED(EINVAL, "LOAD: kvm_id 2^32", HC_LOAD, 0, h, TOKEN, 1ULL << 32);
	REFUSED(EFAULT, "LOAD: token outside every memslot", HC_LOAD, 0, h, NOWHERE, KVM_ID);
	REFUSED2(EFAULT, EINVAL, "LOAD: token above the physical width", HC_LOAD, 0, h,
		 1ULL << 52, KVM_ID);
	REFUSED(EFAULT, "LOAD: token in the APIC page", HC_LOAD, 0, h, APIC_BASE, KVM_ID);
	REFUSED(EBUSY, "LOAD: token page not zero", HC_LOAD, 0, h, DIRTY_TOKEN, KVM_ID);
	REFUSED(ENOENT, "MAP before LOAD", HC_MAP, TOKEN | KPOP_MAP_RWX, l2_gfn(0),
		pool_gfn(0), 1);
	REFUSED(ENOENT, "UNLOAD of an unknown root", HC_LOAD, KPOP_OP_UNLOAD_ROOT, 0,
		TOKEN, KVM_ID);
	REFUSED(ENOENT, "UNLOAD of an unknown holder", HC_LOAD, KPOP_OP_UNLOAD_HOLDER, h,
		TOKEN, KVM_ID);
}

static void test_map(void)
{
	u64 limit = kpop_query(KPOP_QUERY_GFN_LIMIT), t = TOKEN | KPOP_MAP_RWX;
	u64 g = l2_gfn(0), p = pool_gfn(0), bit;

	for (bit = 8; bit < 12; bit++)
		REFUSED(EINVAL, "MAP: unknown flag", HC_MAP, t | 1ULL << bit, g, p, 1);
	REFUSED(EINVAL, "MAP: no rights", HC_MAP, TOKEN, g, p, 1);
	REFUSED(EINVAL, "MAP: W without R", HC_MAP, TOKEN | KPOP_MAP_W, g, p, 1);
	REFUSED(EINVAL, "MAP: npages 0", HC_MAP, t, g, p, 0);
	REFUSED(EINVAL, "MAP: too many pages", HC_MAP, t, g, p, KPOP_MAP_MAX_PAGES + 1);
	REFUSED(EINVAL, "MAP: npages 2^32", HC_MAP, t, g, p, 1ULL << 32);
	REFUSED(EINVAL, "MAP: npages -1", HC_MAP, t, g, p, -1ULL);
	REFUSED(EINVAL, "MAP: L2 gfn at the limit", HC_MAP, t, limit, p, 1);
	REFUSED(EINVAL, "MAP: L2 range over the limit", HC_MAP, t, limit - 1, p, 2);
	REFUSED(EINVAL, "MAP: L2 range wraps", HC_MAP, t, -1ULL, p, 2);
	REFUSED2(EINVAL, EFAULT, "MAP: L1 range wraps", HC_MAP, t, g, -1ULL, 2);
	REFUSED2(EINVAL, EFAULT, "MAP: L1 gfn -1", HC_MAP, t, g, -1ULL, 1);
	REFUSED(EFAULT, "MAP: L1 gfn outside every memslot", HC_MAP, t, g,
		NOWHERE / KST_PAGE, 1);
	REFUSED(EFAULT, "MAP: L1 range leaves its memslot", HC_MAP, t, g, END_GFN - 1, 2);
	REFUSED(EFAULT, "MAP: the APIC page", HC_MAP, t, g, APIC_BASE / KST_PAGE, 1);
	REFUSED(ENOENT, "MAP: unknown token", HC_MAP, OTHER_TOKEN | KPOP_MAP_RWX, g, p, 1);
	REFUSED(ENOENT, "MAP: token in no memslot", HC_MAP, NOWHERE | KPOP_MAP_RWX, g, p, 1);
}

static void test_batch(void)
{
	struct kpop_map_run *runs = (void *)pool_ptr(0), good = {
		.l2_gfn = l2_gfn(8), .l1_gfn = pool_gfn(8), .npages = 1,
		.flags = KPOP_MAP_RWX,
	};
	u64 t = TOKEN | KPOP_MAP_BATCH, at = (u64)runs;

	runs[0] = runs[1] = good;
	REFUSED(EINVAL, "batch: no runs", HC_MAP, t, at, 0, 0);
	REFUSED(EINVAL, "batch: too many runs", HC_MAP, t, at, KPOP_MAP_MAX_RUNS + 1, 0);
	REFUSED(EINVAL, "batch: 2^32 runs", HC_MAP, t, at, 1ULL << 32, 0);
	REFUSED(EINVAL, "batch: first behind the last", HC_MAP, t, at, 2, 2);
	REFUSED(EINVAL, "batch: first 2^32", HC_MAP, t, at, 2, 1ULL << 32);
	REFUSED(EINVAL, "batch: array misaligned", HC_MAP, t, at + 4, 2, 0);
	REFUSED(EINVAL, "batch: array leaves its page", HC_MAP, t,
		at + KST_PAGE - sizeof(good), 2, 0);
	REFUSED(EFAULT, "batch: array in no memslot", HC_MAP, t, NOWHERE, 1, 0);
	runs[0].flags = KPOP_MAP_RWX | KPOP_MAP_BATCH;
	REFUSED(EINVAL, "batch: a run with BATCH", HC_MAP, t, at, 1, 0);
	runs[0].flags = KPOP_MAP_RWX | 1U << 31;
	REFUSED(EINVAL, "batch: a run with an unknown flag", HC_MAP, t, at, 1, 0);
	runs[0].flags = KPOP_MAP_W;
	REFUSED(EINVAL, "batch: a run without R", HC_MAP, t, at, 1, 0);
	runs[0] = good;
	runs[0].npages = 0;
	REFUSED(EINVAL, "batch: a run of no pages", HC_MAP, t, at, 1, 0);
	runs[0].npages = -1;
	REFUSED(EINVAL, "batch: a run of 2^32 - 1 pages", HC_MAP, t, at, 1, 0);
	runs[0] = good;
	runs[0].l1_gfn = NOWHERE / KST_PAGE;
	REFUSED(EFAULT, "batch: a run in no memslot", HC_MAP, t, at, 1, 0);
}

static void test_unmap(void)
{
	u64 limit = kpop_query(KPOP_QUERY_GFN_LIMIT), g = l2_gfn(0), bit;

	for (bit = 2; bit < 8; bit++)
		REFUSED(EINVAL, "UNMAP: unknown flag", HC_UNMAP, 1ULL << bit, KVM_ID, g, 1);
	REFUSED(EINVAL, "UNMAP: as_id 2", HC_UNMAP, 2 << KPOP_AS_ID_SHIFT, KVM_ID, g, 1);
	REFUSED(EINVAL, "UNMAP: bit 63", HC_UNMAP, 1ULL << 63, KVM_ID, g, 1);
	REFUSED(EINVAL, "UNMAP: ALL_AS with an as_id", HC_UNMAP,
		KPOP_UNMAP_ALL_AS | 1 << KPOP_AS_ID_SHIFT, KVM_ID, g, 1);
	REFUSED(EINVAL, "UNMAP: kvm_id 0", HC_UNMAP, 0, 0, g, 1);
	REFUSED(EINVAL, "UNMAP: kvm_id 2^32", HC_UNMAP, 0, 1ULL << 32, g, 1);
	REFUSED(EINVAL, "UNMAP: npages 0", HC_UNMAP, 0, KVM_ID, g, 0);
	REFUSED(EINVAL, "UNMAP: range wraps", HC_UNMAP, 0, KVM_ID, -1ULL, 2);
	REFUSED(EINVAL, "UNMAP: range over the limit", HC_UNMAP, 0, KVM_ID, limit, 1);
	G_EXPECT(kpop_unmap(KVM_ID + 1, g, 3), 3, "UNMAP of an unknown kvm_id is no error");
}

/* The answer, or the exception, goes to @to; then a fault leads back to L1. */
static u64 l2_raw_hypercall(u64 to, u64 way_out)
{
	u64 ret = HC_UNMAP, err;
	u8 vector;

	asm volatile(KVM_ASM_SAFE("vmmcall")
		     : "+a"(ret), [vector] "=&q"(vector), [error_code] "=&r"(err)
		     : "b"(0), "c"((u64)KVM_ID), "d"(l2_gfn(0)), "S"(1ULL)
		     : "r9", "r10", "r11", "memory");
	*(u64 *)to = vector ?: ret;
	return *(volatile u64 *)way_out;
}

static void test_from_l2(struct l2 *l2, struct l1_shared *sh)
{
	G_EXPECT(l2_call(l2, l2_read, (u64)&l2->a, 0), L2_EXIT_CALL, "L2 runs");
	if (host_cpu_is_intel) {
		GUEST_PRINTF("skip - hypercall from L2: a VMCALL always exits to L1\n");
		return;
	}
	l2->no_call_exit = 1;
	*pool_ptr(0) = 0x77;
	kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1);
	l2_call(l2, l2_raw_hypercall, (u64)&sh->val[0], l2_gva(1));
	l2->no_call_exit = 0;
	G_CHECK(sh->val[0] == UD_VECTOR || (long)sh->val[0] == -EPERM,
		"a hypercall from L2 is refused: %ld", sh->val[0]);
	G_EXPECT(l2->exit.reason, L2_EXIT_FAULT, "and L2 went on");
	G_CHECK(l2_reads(l2, l2_gva(0), 0x77), "and it unmapped nothing");
	kpop_unmap(KVM_ID, l2_gfn(0), 1);
}

static void test_twice(struct l2 *l2)
{
	u64 h = l2->holder;

	G_EXPECT(kpop_load(TOKEN, h, KVM_ID, 0), 0, "LOAD of the same again");
	REFUSED(EBUSY, "LOAD: token of another kvm_id", HC_LOAD, 0, h, TOKEN, KVM_ID + 1);
	REFUSED(EBUSY, "LOAD: token of another as_id", HC_LOAD, load_op(0, 1), h, TOKEN,
		KVM_ID);
	REFUSED(EINVAL, "UNLOAD_ROOT with a holder", HC_LOAD, KPOP_OP_UNLOAD_ROOT, h,
		TOKEN, KVM_ID);
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];
	u64 h = l2->holder;

	*(volatile u64 *)(DIRTY_TOKEN + 4088) = 1;
	l1_virt_on(l2);
	GUEST_SYNC1(STAGE_NO_POLICY);
	test_no_policy(l2);
	GUEST_SYNC1(STAGE_ATTACH);
	test_query();
	GUEST_SYNC1(STAGE_BEFORE);
	test_load(l2);
	GUEST_SYNC1(STAGE_AFTER);

	l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	GUEST_SYNC1(STAGE_BEFORE);
	test_map();
	test_batch();
	test_unmap();
	test_twice(l2);
	GUEST_SYNC1(STAGE_MODES);
	GUEST_SYNC1(STAGE_AFTER);
	test_from_l2(l2, sh);

	G_EXPECT(kpop_unload_holder(TOKEN, h, KVM_ID, 0), 0, "UNLOAD of the holder");
	G_EXPECT(kpop_unload_holder(TOKEN, h, KVM_ID, 0), -ENOENT, "the same twice");
	G_EXPECT(kpop_unload_root(TOKEN, KVM_ID, 0), 0, "UNLOAD of the root");
	G_EXPECT(kpop_unload_root(TOKEN, KVM_ID, 0), -ENOENT, "the same twice");
	G_EXPECT(kpop_load(TOKEN, h, KVM_ID, 0), 0, "LOAD once more");
	G_EXPECT(kpop_unload_root(TOKEN, KVM_ID + 1, 1), 0, "UNLOAD of the root as another VM's");
	G_EXPECT(kpop_unload_root(TOKEN, KVM_ID, 0), -ENOENT, "it is gone");
	G_EXPECT(kpop_query(KPOP_QUERY_RESET), 0, "RESET");
	GUEST_DONE();
}

static struct policy policy;
static struct kvm_kpop_info before;

static void check_unchanged(struct tvm *t)
{
	struct kvm_kpop_info now;

	kpop_info(t, &now);
	kst_check(now.nr_spaces == before.nr_spaces, "spaces unchanged: %u", now.nr_spaces);
	kst_check(now.nr_bindings == before.nr_bindings, "bindings unchanged: %u",
		  now.nr_bindings);
	kst_check(now.pages == before.pages, "pages unchanged: %llu", now.pages);
	kst_check(now.bytes == before.bytes, "bytes unchanged: %llu", now.bytes);
	kst_check(now.last_ejection.count == 0, "and no ejection");
}

/* The second vCPU makes valid hypercalls from where none may come. */
static void check_modes(struct tvm *t)
{
	static const struct {
		enum raw_mode mode;
		const char *name;
	} modes[] = {
		{ RAW_CPL3, "CPL 3" },
		{ RAW_COMPAT, "32-bit code in long mode" },
		{ RAW_PROT32, "32-bit mode" },
		{ RAW_SMM, "SMM" },
	};
	u64 holder = POOL_GPA, i;
	long r;

	raw_init(t, 1);
	r = raw_hypercall(t, 1, RAW_LONG, HC_QUERY, KPOP_QUERY_VERSION, 0, 0, 0);
	kst_check(r == KPOP_ABI_VERSION, "QUERY by the second vCPU: %ld", r);
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		if (modes[i].mode == RAW_SMM &&
		    (!kvm_has_cap(KVM_CAP_X86_SMM) ||
		     vm_check_cap(t->vm, KVM_CAP_MULTI_ADDRESS_SPACE) < 2)) {
			printf("skip - SMM: this KVM has none\n");
			continue;
		}
		r = raw_hypercall(t, 1, modes[i].mode, HC_QUERY, 0, 0, 0, 0);
		kst_check(r == -EPERM, "QUERY from %s: %ld", modes[i].name, r);
		r = raw_hypercall(t, 1, modes[i].mode, HC_LOAD, 0, holder, OTHER_TOKEN, KVM_ID);
		kst_check(r == -EPERM, "LOAD from %s: %ld", modes[i].name, r);
		r = raw_hypercall(t, 1, modes[i].mode, HC_MAP, TOKEN | KPOP_MAP_RWX,
				  l2_gfn(0), pool_gfn(0), 1);
		kst_check(r == -EPERM, "MAP from %s: %ld", modes[i].name, r);
		r = raw_hypercall(t, 1, modes[i].mode, HC_UNMAP, 0, KVM_ID, 0, SLOT0_PAGES);
		kst_check(r == -EPERM, "UNMAP from %s: %ld", modes[i].name, r);
	}
}

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	switch (args[0]) {
	case STAGE_ATTACH:
		policy_serve(&policy, "kpop_base", t);
		break;
	case STAGE_BEFORE:
		kpop_info(t, &before);
		break;
	case STAGE_AFTER:
		check_unchanged(t);
		break;
	case STAGE_MODES:
		check_modes(t);
		break;
	}
}

int main(int argc, char **argv)
{
	struct tvm_opts o = {
		.guest = { l1_main },
		.nr_vcpus = 2,
		.nr_l2 = 1,
		.sync = on_sync,
	};
	struct tvm *t;

	kst_begin("kpop_abi_test", 180);
	t = tvm_create(&o);
	kpop_info(t, &before);
	kst_check(before.state == KPOP_STATE_NONE && !before.nr_spaces && !before.bytes,
		  "a new VM has no KPOP state");
	tvm_run(t);
	kst_check(kpop_none_left(t, &before), "nothing is left at the end (%llu bytes)",
		  before.bytes);
	policy_stop(&policy, t);
	tvm_free(t);
	return kst_end();
}
