// SPDX-License-Identifier: GPL-2.0
/*
 * A policy is not trusted to be right (contract 8): whatever kpop_chaos does
 * wrong ejects it, L1 hears ENOSYS and L2 has nothing left; the record says
 * what it was, and stays; another policy can take over.  While a hook spins on
 * one vCPU, the other one of that L2 goes on.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "kpop_test.h"

#define KVM_ID	14

/* As in bpf/kpop_chaos.bpf.c. */
enum chaos_knob {
	CHAOS_DENY, CHAOS_DELAY, CHAOS_NO_MAP, CHAOS_BAD_RANGE, CHAOS_NO_LOAD, CHAOS_RETRY,
	CHAOS_VALUE_HOOK, CHAOS_VALUE, CHAOS_SPIN_HOOK, CHAOS_SPIN, CHAOS_INIT, CHAOS_RIGHTS,
};

/* What L1 does to meet the fault. */
enum provoke { BY_MAP, BY_MAP_R, BY_LOAD, BY_FAULT };

static const struct chaos_case {
	const char *what;
	struct { u64 knob, value; } set[2];
	enum provoke by;
	u32 kind, kind2, hook;
	s64 value;
	bool check_value;
} cases[] = {
	{ "map says yes and maps nothing", { { CHAOS_NO_MAP, 1 } }, BY_MAP,
	  KPOP_EJECT_PROGRESS, KPOP_EJECT_PROGRESS, KPOP_HOOK_MAP, 0, true },
	{ "load says yes and loads nothing", { { CHAOS_NO_LOAD, 1 } }, BY_LOAD,
	  KPOP_EJECT_PROGRESS, KPOP_EJECT_PROGRESS, KPOP_HOOK_LOAD, 0, true },
	{ "map says later for ever", { { CHAOS_DELAY, 1 } }, BY_MAP,
	  KPOP_EJECT_PROGRESS, KPOP_EJECT_ERRORS, KPOP_HOOK_MAP },
	{ "fault says retry for ever", { { CHAOS_RETRY, 1 } }, BY_FAULT,
	  KPOP_EJECT_PROGRESS, KPOP_EJECT_PROGRESS, KPOP_HOOK_FAULT },
	{ "map returns 5",
	  { { CHAOS_VALUE, 5 }, { CHAOS_VALUE_HOOK, KPOP_HOOK_MAP + 1 } }, BY_MAP,
	  KPOP_EJECT_VALUE, KPOP_EJECT_VALUE, KPOP_HOOK_MAP, 5, true },
	{ "map returns an errno that it may not",
	  { { CHAOS_VALUE, (u32)-EIO }, { CHAOS_VALUE_HOOK, KPOP_HOOK_MAP + 1 } }, BY_MAP,
	  KPOP_EJECT_VALUE, KPOP_EJECT_VALUE, KPOP_HOOK_MAP, -EIO, true },
	{ "load returns 1",
	  { { CHAOS_VALUE, 1 }, { CHAOS_VALUE_HOOK, KPOP_HOOK_LOAD + 1 } }, BY_LOAD,
	  KPOP_EJECT_VALUE, KPOP_EJECT_VALUE, KPOP_HOOK_LOAD, 1, true },
	{ "fault returns 7",
	  { { CHAOS_VALUE, 7 }, { CHAOS_VALUE_HOOK, KPOP_HOOK_FAULT + 1 } }, BY_FAULT,
	  KPOP_EJECT_VALUE, KPOP_EJECT_VALUE, KPOP_HOOK_FAULT, 7, true },
	{ "map asks for a page too many", { { CHAOS_BAD_RANGE, 1 } }, BY_MAP,
	  KPOP_EJECT_VALUE, KPOP_EJECT_VALUE, KPOP_HOOK_MAP },
	{ "map grants W where L1 offers R", { { CHAOS_RIGHTS, KPOP_MAP_R | KPOP_MAP_W } }, BY_MAP_R,
	  KPOP_EJECT_VALUE, KPOP_EJECT_VALUE, KPOP_HOOK_MAP, -EINVAL, true },
	{ "map grants X where L1 offers R", { { CHAOS_RIGHTS, KPOP_MAP_R | KPOP_MAP_X } }, BY_MAP_R,
	  KPOP_EJECT_VALUE, KPOP_EJECT_VALUE, KPOP_HOOK_MAP, -EINVAL, true },
	{ "map grants what is no right", { { CHAOS_RIGHTS, KPOP_MAP_RWX | KPOP_MAP_DEVICE } }, BY_MAP,
	  KPOP_EJECT_VALUE, KPOP_EJECT_VALUE, KPOP_HOOK_MAP, -EINVAL, true },
	{ "map grants W without R", { { CHAOS_RIGHTS, KPOP_MAP_W } }, BY_MAP,
	  KPOP_EJECT_VALUE, KPOP_EJECT_VALUE, KPOP_HOOK_MAP, -EINVAL, true },
	{ "map spins",
	  { { CHAOS_SPIN, 100 }, { CHAOS_SPIN_HOOK, KPOP_HOOK_MAP + 1 } }, BY_MAP,
	  KPOP_EJECT_STALL, KPOP_EJECT_STALL, KPOP_HOOK_MAP },
	{ "fault spins",
	  { { CHAOS_SPIN, 100 }, { CHAOS_SPIN_HOOK, KPOP_HOOK_FAULT + 1 } }, BY_FAULT,
	  KPOP_EJECT_STALL, KPOP_EJECT_STALL, KPOP_HOOK_FAULT },
};

enum { STAGE_SERVE, STAGE_KNOBS, STAGE_EJECTED, STAGE_NARROW, STAGE_DENY, STAGE_SERVE_BASE };

/* Asked again as long as L0 says so: an ejection ends it. */
static long provoke(struct l2 *l2, enum provoke by, u64 token)
{
	long r = -EAGAIN;

	switch (by) {
	case BY_MAP:
		return kpop_map(token, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1);
	case BY_MAP_R:
		return kpop_map(token, KPOP_MAP_R, l2_gfn(0), pool_gfn(0), 1);
	case BY_LOAD:
		return kpop_load(token, l2->holder, KVM_ID, 0);
	case BY_FAULT:
		/* Delays are solved in L0: sooner or later L1 gets the fault. */
		if (l2_call(l2, l2_read, l2_gva(1), 0) != L2_EXIT_FAULT)
			return 0;
		spin_until((r = kpop_query(KPOP_QUERY_VERSION)) == -KVM_ENOSYS);
		return r;
	}
	return r;
}

static void one_case(struct l2 *l2, u64 i)
{
	u64 token = token_of(i);
	long r;

	GUEST_SYNC2(STAGE_SERVE, i);
	l2_on_kpop(l2, token, KVM_ID, 0);
	G_EXPECT(l2_call(l2, l2_read, (u64)&l2->asid, 0), L2_EXIT_CALL, "L2 runs");
	GUEST_SYNC2(STAGE_KNOBS, i);
	r = provoke(l2, cases[i].by, token);
	if (r == -EAGAIN)
		spin_until((r = kpop_query(KPOP_QUERY_VERSION)) != -EAGAIN);
	G_EXPECT(r, -KVM_ENOSYS, "what L1 hears in the end");
	G_EXPECT(kpop_query(KPOP_QUERY_VERSION), -KVM_ENOSYS, "QUERY after it");
	G_EXPECT(kpop_map_once(token, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1),
		 -KVM_ENOSYS, "MAP after it");
	G_EXPECT(l2_call(l2, l2_read, (u64)&l2->asid, 0), L2_EXIT_FAULT,
		 "L2 has nothing after it");
	GUEST_SYNC2(STAGE_EJECTED, i);
}

/* A decision is not a mistake: fewer rights, or none, and the policy stays. */
static void test_deny(struct l2 *l2)
{
	u64 token = token_of(100), i, bad = 0;

	GUEST_SYNC1(STAGE_SERVE);
	l2_on_kpop(l2, token, KVM_ID, 0);
	*pool_ptr(0) = 0xdec1;
	GUEST_SYNC1(STAGE_NARROW);
	G_EXPECT(KPOP_MAP_RIGHTS(kpop_map_once(token, KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1)),
		 KPOP_MAP_R, "rights of RWX that a policy grants");
	G_CHECK(l2_reads(l2, l2_gva(0), 0xdec1), "L2 reads");
	G_CHECK(l2_faults_at(l2, l2_write, l2_gva(0), 1, KPOP_MAP_W, true), "its write is L1's fault");
	GUEST_SYNC1(STAGE_DENY);
	for (i = 0; i < 200; i++)
		bad += kpop_map_once(token, KPOP_MAP_RWX, l2_gfn(i), pool_gfn(i), 1) != -EPERM;
	G_EXPECT(bad, 0, "of 200 MAPs that a policy denies, those that did not say EPERM");
	G_EXPECT(l2_call(l2, l2_read, (u64)&l2->asid, 0), L2_EXIT_CALL, "L2 runs on");
	G_EXPECT(kpop_query(KPOP_QUERY_VERSION), KPOP_ABI_VERSION, "QUERY");
	kpop_unload_root(token, KVM_ID, 0);
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];
	u64 i;

	l1_virt_on(l2);
	for (i = 0; i < ARRAY_SIZE(cases); i++)
		one_case(l2, i);
	test_deny(l2);
	GUEST_SYNC1(STAGE_SERVE_BASE);
	l2_on_kpop(l2, token_of(101), KVM_ID, 0);
	G_EXPECT(l2_call(l2, l2_read, (u64)&l2->asid, 0), L2_EXIT_CALL,
		 "kpop_base serves after all that");
	GUEST_DONE();
}

/* ---- host ---- */

static struct policy policy;

static void set_knob(u64 knob, u64 value)
{
	int r = policy_set_knob(&policy, "kpop_chaos_knobs", knob, &value, sizeof(value));

	TEST_ASSERT(!r, "knob %" PRIu64 ": %s", knob, strerror(-r));
}

static void check_ejected(struct tvm *t, u64 i)
{
	const struct chaos_case *c = &cases[i];
	struct kvm_kpop_info info;
	struct kvm_kpop_ejection *e = &info.last_ejection;

	kst_check(kpop_wait_state(t->vm->fd, KPOP_STATE_NONE), "%s: no policy serves", c->what);
	kpop_info(t, &info);
	kst_check(e->count == i + 1, "%s: ejected (%u so far)", c->what, e->count);
	kst_check(e->kind == c->kind || e->kind == c->kind2, "kind %u", e->kind);
	kst_check(e->hook == c->hook, "hook %u", e->hook);
	if (c->check_value)
		kst_check(e->value == c->value, "value %lld", e->value);
	kst_check(!strcmp(e->policy, "kpop_chaos") && e->text[0] && e->map_id && e->time_ns,
		  "the record: %s, map %u: %s", e->policy, e->map_id, e->text);
	kst_check(kpop_none_left(t, &info), "nothing is left mapped (%llu bytes)", info.bytes);
	/* The link of an ejected policy is there still, and harmless. */
	policy_free(&policy);
	kpop_info(t, &info);
	kst_check(e->count == i + 1 && e->text[0], "the record stays when the link is gone");
}

static void on_sync(struct tvm *t, int cpu, u64 *args)
{
	const struct chaos_case *c = &cases[args[1]];
	int k;

	switch (args[0]) {
	case STAGE_SERVE:
		policy_serve(&policy, "kpop_chaos", t);
		break;
	case STAGE_KNOBS:
		for (k = 0; k < ARRAY_SIZE(c->set); k++)
			if (c->set[k].value)
				set_knob(c->set[k].knob, c->set[k].value);
		break;
	case STAGE_EJECTED:
		check_ejected(t, args[1]);
		break;
	case STAGE_NARROW:
		set_knob(CHAOS_RIGHTS, KPOP_MAP_R);
		break;
	case STAGE_DENY:
		set_knob(CHAOS_DENY, 1);
		break;
	case STAGE_SERVE_BASE:
		policy_stop(&policy, t);
		policy_serve(&policy, "kpop_base", t);
		break;
	}
}

/* An init that fails ends the attach; the VM never had a policy. */
static void test_init(struct tvm *t)
{
	struct kvm_kpop_info info;
	int r;

	r = policy_load(&policy, "kpop_chaos", t->vm->fd);
	TEST_ASSERT(!r, "load: %d", r);
	set_knob(CHAOS_INIT, ENODEV);
	r = policy_attach(&policy);
	kst_check(!r || r == -ENODEV, "attach of a policy whose init fails: %d", r);
	kst_check(kst_wait((kpop_info(t, &info), info.last_ejection.kind == KPOP_EJECT_INIT),
			   20000), "its record: %s", info.last_ejection.text);
	kst_check(info.last_ejection.value == -ENODEV, "value %lld", info.last_ejection.value);
	kst_check(info.state == KPOP_STATE_NONE, "the VM has no policy");
	policy_free(&policy);
}

/* ---- one vCPU in a hook that spins, another one of the same L2 ---- */

enum { PH_COUNTS, PH_GO, PH_LEGACY, PH_ANSWER };
/* As in bpf/kpop_chaos.bpf.c. */
#define CHAOS_SPINS	1

static void l1_spins(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[0];
	long r;

	l1_virt_on(l2);
	l2_on_kpop(l2, token_of(0), KVM_ID, 0);
	GUEST_ASSERT(spin_until(sh->phase[PH_GO]));
	r = kpop_map_once(token_of(0), KPOP_MAP_RWX, l2_gfn(1), pool_gfn(1), 1);
	sh->phase[PH_ANSWER] = 1;
	G_CHECK(r == -EAGAIN || r == -KVM_ENOSYS, "the MAP in the hook: %ld", r);
	G_EXPECT(kpop_query(KPOP_QUERY_VERSION), -KVM_ENOSYS, "QUERY after it");
	GUEST_DONE();
}

static void l1_counts(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[1];
	u64 r, gfn;

	l1_virt_on(l2);
	l2_on_kpop(l2, token_of(1), KVM_ID, 0);
	kpop_map(token_of(1), KPOP_MAP_RWX, l2_gfn(0), pool_gfn(0), 1);
	sh->phase[PH_COUNTS] = 1;
	r = l2_call(l2, l2_count, l2_gva(0), (u64)&sh->stop);
	while (r == L2_EXIT_FAULT) {
		gfn = l2->exit.gpa / KST_PAGE;
		if (kpop_map_once(token_of(1), KPOP_MAP_RWX, gfn, gfn < SLOT0_PAGES ?
				  gfn : pool_gfn(gfn - l2_gfn(0)), 1) == -KVM_ENOSYS) {
			l2_set_root(l2, sh->legacy_root);
			sh->phase[PH_LEGACY] = 1;
		}
		r = l2_resume(l2);
	}
	G_EXPECT(r, L2_EXIT_CALL, "the other vCPU's L2 came to its end");
	G_CHECK(l2->ret && *pool_ptr(0) == l2->ret, "it counted to %lu, memory says %lu",
		l2->ret, *pool_ptr(0));
	GUEST_DONE();
}

static u64 chaos_count(u32 key)
{
	u64 val[256] = {}, sum = 0;
	int i, n = libbpf_num_possible_cpus();

	TEST_ASSERT(n > 0 && n <= ARRAY_SIZE(val), "%d CPUs", n);
	TEST_ASSERT(!bpf_map_lookup_elem(policy_map_fd(&policy, "chaos_counters"), &key, val),
		    "chaos_counters");
	for (i = 0; i < n; i++)
		sum += val[i];
	return sum;
}

static void test_beside(void)
{
	struct tvm_opts o = { .guest = { l1_spins, l1_counts }, .nr_l2 = 2 };
	struct tvm *t = tvm_create(&o);
	volatile u64 *p = tvm_pool(t, 0);
	struct kvm_kpop_info info;
	u64 seen;

	t->sh->legacy_root = table_legacy(t, 4);
	policy_serve(&policy, "kpop_chaos", t);
	tvm_start(t);
	kst_check(kst_wait(t->sh->phase[PH_COUNTS] && *p, 60000), "L2 counts on one vCPU");
	set_knob(CHAOS_SPIN, 60);
	set_knob(CHAOS_SPIN_HOOK, KPOP_HOOK_MAP + 1);
	t->sh->phase[PH_GO] = 1;
	kst_check(kst_wait(chaos_count(CHAOS_SPINS), 60000), "map() spins on the other one");
	seen = *p;
	kst_check(kst_wait(*p > seen + 100, 60000), "and the first one counts");
	kst_check(kst_wait((kpop_info(t, &info), info.last_ejection.count), 60000),
		  "map() is over its budget: %s", info.last_ejection.text);
	kst_check(info.last_ejection.kind == KPOP_EJECT_STALL, "kind %u", info.last_ejection.kind);
	kst_check(kst_wait(t->sh->phase[PH_LEGACY], 60000), "L1 moves L2 to its own table");
	seen = *p;
	kst_check(kst_wait(*p > seen + 100, 60000), "where it counts on");
	kst_check(!t->sh->phase[PH_ANSWER], "all that while map() still spins");
	t->sh->stop = 1;
	tvm_join(t);
	policy_stop(&policy, t);
	tvm_free(t);
}

int main(int argc, char **argv)
{
	struct tvm_opts o = { .guest = { l1_main }, .nr_l2 = 1, .sync = on_sync };
	struct kvm_kpop_info info;
	struct tvm *t;

	kst_begin("kpop_eject_test", 400);
	t = tvm_create(&o);
	kpop_info(t, &info);
	tvm_run(t);
	policy_stop(&policy, t);
	test_init(t);
	tvm_free(t);
	test_beside();
	return kst_end();
}
