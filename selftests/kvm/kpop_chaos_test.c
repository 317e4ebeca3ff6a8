// SPDX-License-Identifier: GPL-2.0
/*
 * An L1 for whoever attaches policies from outside (cases/chaos.sh): as long as a
 * policy serves, it maps, unmaps, loads, and has its L2 fault; when it hears
 * ENOSYS, L2 goes on on a legacy table.  Each turn is said on stdout.
 *
 *   turns=N   how often that is to happen
 */
#include "kpop_test.h"

#define KVM_ID	22
/* Pages in turn: errors count in a row, delays by the page. */
#define PAGES	128

enum { P_TURNS };

/* Every hook once a round; ends when no policy serves. */
static void provoke(struct l2 *l2, u64 token)
{
	u64 i;

	for (i = 0; ; i++) {
		if (kpop_map_once(token, KPOP_MAP_RWX, l2_gfn(i % PAGES),
				  pool_gfn(i % PAGES), 1) == -KVM_ENOSYS)
			return;
		if (i % PAGES)
			continue;
		kpop_unmap(KVM_ID, l2_gfn(0), PAGES);
		/* A fault that L0 delays for ever is L1's once the policy is gone. */
		l2_call(l2, l2_read, l2_gva(PAGES + 1), 0);
		kpop_load(token, l2->holder, KVM_ID, 0);
	}
}

static void one_turn(struct l2 *l2, struct l1_shared *sh, u64 turn)
{
	u64 token = token_of(turn);

	while (kpop_query(KPOP_QUERY_VERSION) != KPOP_ABI_VERSION)
		asm volatile("pause");
	l2_on_kpop(l2, token, KVM_ID, 0);
	G_CHECK(l2_reads(l2, (u64)&l2->asid, l2->asid), "turn %lu: L2 runs on KPOP", turn);
	provoke(l2, token);
	l2_set_root(l2, sh->legacy_root);
	G_CHECK(l2_reads(l2, (u64)&l2->asid, l2->asid), "turn %lu: L2 runs on L1's own table",
		turn);
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	u64 turn;

	l1_virt_on(sh->l2[0]);
	for (turn = 0; turn < sh->param[P_TURNS]; turn++)
		one_turn(sh->l2[0], sh, turn);
	GUEST_DONE();
}

int main(int argc, char **argv)
{
	struct tvm_opts o = { .guest = { l1_main }, .nr_l2 = 1 };
	struct kvm_kpop_info info;
	struct tvm *t;

	kst_begin("kpop_chaos_test", 600);
	t = tvm_create(&o);
	kpop_info(t, &info);
	t->sh->param[P_TURNS] = kst_param(argc, argv, "turns", 1);
	t->sh->legacy_root = table_legacy(t, 4);
	tvm_run(t);
	tvm_free(t);
	return kst_end();
}
