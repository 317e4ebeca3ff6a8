// SPDX-License-Identifier: GPL-2.0
/*
 * L0 migrates an L1 whose L2s write and verify memory all the time (4.3, 4.6): the VMM copies what the dirty log says, as
 * bitmap, with manual clearing, or as rings, until L1 stands still.  The copy is L1's memory, to the byte.  L1 and its
 * nested state go on in a new VM, with KPOP there or without, and in the same VM when the VMM turns it back to a snapshot:
 * what L1 loaded is void, L1 is told so, and L2 never notices.
 *
 *   legacy=1   no policy, L2s on a legacy table: what the test itself is worth
 */
#include "kpop_test.h"

#define TOKEN		token_of(0)
#define KVM_ID		21
#define SMALL		512		/* pages of an L2 that are offered in runs of RUN ... */
#define RUN		16
#define PAGES		1024		/* ... and the rest in 2M */
#define RING_BYTES	(4096 * sizeof(struct kvm_dirty_gfn))
#define NR_SLOTS	3

enum { P_LEGACY };
/* Two of each, by vCPU. */
enum { V_ROUNDS, V_BAD = 2, V_LOADS = 4, V_FALLBACKS = 6, V_PAGE = 8 };

/* ---- L2 ---- */

/* Some pages are written once, some in every other round. */
static u64 last_written(u64 round, u64 i)
{
	if (i % 8 == 7)
		return round ? 1 : 0;
	if ((i ^ round) & 1)
		return round;
	return round ? round - 1 : 0;
}

static u64 content(u64 round, u64 i, u64 word)
{
	return round ? (round << 32 | i << 16 | word) * 0x9e3779b97f4a7c15ULL : 0;
}

static u64 l2_work(u64 arg, u64 cpu)
{
	struct l1_shared *sh = (void *)arg;
	u64 round, i;

	for (round = 1; !sh->stop; round++) {
		for (i = 0; i < PAGES; i++) {
			volatile u64 *p = (void *)l2_gva(cpu * PAGES + i);
			u64 was = last_written(round - 1, i);

			if (p[0] != content(was, i, 0) || p[511] != content(was, i, 511)) {
				sh->val[V_BAD + cpu]++;
				sh->val[V_PAGE + cpu] = i;
			}
			if (last_written(round, i) == round) {
				p[0] = content(round, i, 0);
				p[511] = content(round, i, 511);
			}
		}
		sh->val[V_ROUNDS + cpu] = round;
	}
	return round;
}

/* ---- L1 ---- */

static long offer(u64 gfn)
{
	u64 i = gfn - l2_gfn(0), n = i % PAGES < SMALL ? RUN : 512;

	if (gfn < l2_gfn(0))
		return kpop_map_self(TOKEN);
	i -= i % n;
	return kpop_map(TOKEN, KPOP_MAP_RWX, l2_gfn(i), pool_gfn(i), n);
}

/* As L1's KVM does: what L0 does not know is loaded once more, a refusal means L1's own table. */
static void answer(struct l2 *l2, struct l1_shared *sh, u64 cpu, bool again)
{
	long r = offer(l2->exit.gpa / KST_PAGE);

	/* Another vCPU may have loaded the token: is this one bound to it? */
	if (r == -ENOENT || again) {
		r = kpop_load(TOKEN, l2->holder, KVM_ID, 0);
		sh->val[V_LOADS + cpu]++;
	}
	if (r == -KVM_ENOSYS) {
		l2_set_root(l2, sh->legacy_root);
		sh->val[V_FALLBACKS + cpu]++;
	} else {
		__GUEST_ASSERT(r >= 0, "offer of L2 gpa 0x%lx: %ld", l2->exit.gpa, r);
	}
}

static void l1_main(u64 cpu, struct l1_shared *sh)
{
	struct l2 *l2 = sh->l2[cpu];
	u64 r, last = 0;

	l1_virt_on(l2);
	if (sh->param[P_LEGACY])
		l2_setup(l2, sh->legacy_root);
	else
		l2_on_kpop(l2, TOKEN, KVM_ID, 0);
	r = l2_call(l2, l2_work, (u64)sh, cpu);
	while (r == L2_EXIT_FAULT) {
		answer(l2, sh, cpu, l2->exit.gpa == last);
		last = l2->exit.gpa;
		r = l2_resume(l2);
	}
	__GUEST_ASSERT(r == L2_EXIT_CALL, "L2 left with %lu (0x%lx, 0x%lx)", r, l2->exit.raw,
		       l2->exit.gpa);
	G_CHECK(!sh->val[V_BAD + cpu], "vCPU %lu: L2 wrote and verified %lu rounds, %lu wrong (page %lu)",
		cpu, l2->ret, sh->val[V_BAD + cpu], sh->val[V_PAGE + cpu]);
	GUEST_DONE();
}

/* ---- the VMM ---- */

enum log_mode { LOG_BITMAP, LOG_MANUAL, LOG_RING };
static const char *const log_names[] = { "bitmap", "manual clear", "rings" };

struct mem_copy {
	struct userspace_mem_region *region;
	u8 *from, *to;
	u64 pages;
	unsigned long *bits;
};

struct mig {
	struct tvm *t;
	enum log_mode mode;
	struct mem_copy mem[NR_SLOTS];
	struct kvm_x86_state *state[MAX_CPUS];
	u32 ring_next[MAX_CPUS];
	u64 copied;
	struct policy policy;
	bool attached;
};

static int nr_cpus(struct tvm *t)
{
	return t->o.nr_vcpus;
}

static u64 sum(struct tvm *t, int what)
{
	return t->sh->val[what] + t->sh->val[what + 1];
}

/* Every L2 has begun and finished a round since now. */
static bool goes_on(struct tvm *t)
{
	u64 want[MAX_CPUS];
	bool ok = true;
	int i;

	for (i = 0; i < nr_cpus(t); i++)
		want[i] = t->sh->val[V_ROUNDS + i] + 2;
	for (i = 0; i < nr_cpus(t); i++)
		ok &= kst_wait(t->sh->val[V_ROUNDS + i] >= want[i], 60000);
	return ok && !sum(t, V_BAD);
}

static void mem_init(struct mig *m)
{
	static const u32 slots[NR_SLOTS] = { 0, POOL_SLOT, PRIV_SLOT };
	int i;

	for (i = 0; i < NR_SLOTS; i++) {
		struct mem_copy *c = &m->mem[i];

		c->region = memslot2region(m->t->vm, slots[i]);
		c->from = c->region->host_mem;
		c->pages = c->region->region.memory_size / KST_PAGE;
		c->to = malloc(c->pages * KST_PAGE);
		c->bits = calloc(c->pages / 64 + 1, sizeof(long));
		TEST_ASSERT(c->to && c->bits, "out of memory");
	}
}

static void mem_free(struct mig *m)
{
	int i;

	for (i = 0; i < NR_SLOTS; i++) {
		free(m->mem[i].to);
		free(m->mem[i].bits);
	}
}

static void log_slots(struct mig *m, u32 flags)
{
	int i;

	for (i = 0; i < NR_SLOTS; i++)
		vm_mem_region_set_flags(m->t->vm, m->mem[i].region->region.slot, flags);
}

static void log_on(struct mig *m)
{
	int i;

	if (m->mode == LOG_MANUAL)
		vm_enable_cap(m->t->vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
			      KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET);
	log_slots(m, KVM_MEM_LOG_DIRTY_PAGES);
	for (i = 0; i < NR_SLOTS; i++)
		memcpy(m->mem[i].to, m->mem[i].from, m->mem[i].pages * KST_PAGE);
	m->copied = 0;
	memset(m->ring_next, 0, sizeof(m->ring_next));
}

static void harvest_ring(struct mig *m, int cpu)
{
	struct kvm_dirty_gfn *ring = vcpu_map_dirty_ring(m->t->vcpus[cpu]), *e;
	int i;

	for (;;) {
		e = &ring[m->ring_next[cpu] % (RING_BYTES / sizeof(*e))];
		if (__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY)
			break;
		for (i = 0; i < NR_SLOTS; i++)
			if (m->mem[i].region->region.slot == e->slot)
				__set_bit(e->offset, m->mem[i].bits);
		__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
		m->ring_next[cpu]++;
	}
}

static void read_log(struct mig *m)
{
	int i;

	if (m->mode == LOG_RING) {
		for (i = 0; i < nr_cpus(m->t); i++)
			harvest_ring(m, i);
		kvm_vm_reset_dirty_ring(m->t->vm);
		return;
	}
	for (i = 0; i < NR_SLOTS; i++) {
		struct mem_copy *c = &m->mem[i];

		kvm_vm_get_dirty_log(m->t->vm, c->region->region.slot, c->bits);
		if (m->mode == LOG_MANUAL)
			kvm_vm_clear_dirty_log(m->t->vm, c->region->region.slot, c->bits, 0,
					       c->pages);
	}
}

/* What was written since the last time, read after it is protected again. */
static void sync_copy(struct mig *m)
{
	u64 i, page;

	read_log(m);
	for (i = 0; i < NR_SLOTS; i++) {
		struct mem_copy *c = &m->mem[i];

		for (page = 0; page < c->pages; page++) {
			if (!(c->bits[page / 64] >> (page % 64) & 1))
				continue;
			memcpy(c->to + page * KST_PAGE, c->from + page * KST_PAGE, KST_PAGE);
			m->copied++;
		}
		memset(c->bits, 0, (c->pages / 64 + 1) * sizeof(long));
	}
}

static u64 differences(struct mig *m)
{
	u64 i, page, n = 0;

	for (i = 0; i < NR_SLOTS; i++) {
		struct mem_copy *c = &m->mem[i];

		for (page = 0; page < c->pages; page++) {
			if (!memcmp(c->to + page * KST_PAGE, c->from + page * KST_PAGE, KST_PAGE))
				continue;
			if (!n++)
				printf("# slot %u, page %" PRIu64 " differs\n",
				       c->region->region.slot, page);
		}
	}
	return n;
}

/* Nested state is L1's and L2's: how many vCPUs stopped in L2. */
static int save_vcpus(struct mig *m)
{
	int i, in_l2 = 0;

	for (i = 0; i < nr_cpus(m->t); i++) {
		m->state[i] = vcpu_save_state(m->t->vcpus[i]);
		in_l2 += !!(m->state[i]->nested.flags & KVM_STATE_NESTED_GUEST_MODE);
	}
	return in_l2;
}

/*
 * What VMX can do is the same in each VM of this host; KVM takes that of no VM in
 * VMX operation, and on Bochs of none.
 */
static void drop_vmx_msrs(struct kvm_x86_state *state)
{
	struct kvm_msr_entry *e = state->msrs.entries;
	u32 i, n = 0;

	for (i = 0; i < state->msrs.nmsrs; i++)
		if (e[i].index < MSR_IA32_VMX_BASIC || e[i].index > MSR_IA32_VMX_VMFUNC)
			e[n++] = e[i];
	state->msrs.nmsrs = n;
}

static void load_vcpus(struct mig *m)
{
	int i;

	for (i = 0; i < nr_cpus(m->t); i++) {
		drop_vmx_msrs(m->state[i]);
		vcpu_load_state(m->t->vcpus[i], m->state[i]);
		kvm_x86_state_cleanup(m->state[i]);
	}
}

/* The copy is the new VM's memory, and the old VM is gone. */
static void new_vm(struct mig *m, bool kpop)
{
	struct tvm *t = m->t;
	int i;

	log_slots(m, 0);
	kvm_vm_release(t->vm);
	if (m->attached)
		policy_free(&m->policy);
	for (i = 0; i < NR_SLOTS; i++) {
		memset(m->mem[i].from, 0xaa, m->mem[i].pages * KST_PAGE);
		memcpy(m->mem[i].from, m->mem[i].to, m->mem[i].pages * KST_PAGE);
	}
	kvm_vm_restart(t->vm);
	for (i = 0; i < nr_cpus(t); i++)
		t->vcpus[i] = vm_vcpu_recreate(t->vm, i);
	m->attached = kpop;
	if (kpop)
		policy_serve(&m->policy, "kpop_base", t);
}

static void check_arrival(struct mig *m, bool kpop, u64 loads, u64 fallbacks)
{
	struct tvm *t = m->t;
	u64 more_loads, more_fallbacks;
	struct kvm_kpop_info info;

	kst_check(goes_on(t), "L2 goes on, %" PRIu64 " wrong", sum(t, V_BAD));
	kpop_info(t, &info);
	more_loads = sum(t, V_LOADS) - loads;
	more_fallbacks = sum(t, V_FALLBACKS) - fallbacks;
	if (kpop)
		kst_check(info.nr_spaces == 1 && info.nr_bindings == nr_cpus(t) &&
			  more_loads && !more_fallbacks,
			  "on KPOP: %u space, %u bindings, %" PRIu64 " LOADs", info.nr_spaces,
			  info.nr_bindings, more_loads);
	else
		kst_check(!info.nr_spaces && sum(t, V_FALLBACKS) ==
			  (t->sh->param[P_LEGACY] ? 0 : nr_cpus(t)),
			  "on L1's own table: %u spaces, %" PRIu64 " fallbacks", info.nr_spaces,
			  sum(t, V_FALLBACKS));
	kpop_check_tables(t);
}

/* @kpop: a policy is attached to the new VM; @on_kpop: L2 is on KPOP there. */
static void migrate(struct mig *m, enum log_mode mode, bool kpop, bool on_kpop)
{
	struct tvm *t = m->t;
	u64 loads, fallbacks, missing;
	int i, in_l2;

	printf("# live, %s, to a VM with%s\n", log_names[mode], kpop ? " a policy" : "out one");
	m->mode = mode;
	log_on(m);
	for (i = 0; i < 4; i++) {
		kst_check(goes_on(t), "L2 goes on while L0 logs");
		sync_copy(m);
	}
	kpop_check_tables(t);
	tvm_pause(t);
	in_l2 = save_vcpus(m);
	sync_copy(m);
	missing = differences(m);
	kst_check(!missing && m->copied, "the copy is L1's memory: %" PRIu64 " pages copied, %" PRIu64
		  " missing; %d of %d vCPUs in L2", m->copied, missing, in_l2, nr_cpus(t));
	new_vm(m, kpop);
	loads = sum(t, V_LOADS);
	fallbacks = sum(t, V_FALLBACKS);
	load_vcpus(m);
	tvm_resume(t);
	check_arrival(m, on_kpop, loads, fallbacks);
}

/* A snapshot that is loaded where it was taken: newer memory and KPOP state are void. */
static void back_in_time(struct mig *m)
{
	struct tvm *t = m->t;
	struct kvm_kpop_info info;
	u64 loads, fallbacks, rounds;
	int i;

	printf("# back to a snapshot, in the same VM\n");
	tvm_pause(t);
	save_vcpus(m);
	for (i = 0; i < NR_SLOTS; i++)
		memcpy(m->mem[i].to, m->mem[i].from, m->mem[i].pages * KST_PAGE);
	tvm_resume(t);
	kst_check(goes_on(t), "L2 goes on behind the snapshot");
	tvm_pause(t);
	rounds = sum(t, V_ROUNDS);
	for (i = 0; i < NR_SLOTS; i++)
		memcpy(m->mem[i].from, m->mem[i].to, m->mem[i].pages * KST_PAGE);
	loads = sum(t, V_LOADS);
	fallbacks = sum(t, V_FALLBACKS);
	load_vcpus(m);
	kpop_info(t, &info);
	kst_check(!info.nr_spaces && !info.nr_bindings, "what L1 had loaded is void");
	kst_check(sum(t, V_ROUNDS) < rounds, "back from round %" PRIu64 " to %" PRIu64, rounds,
		  sum(t, V_ROUNDS));
	tvm_resume(t);
	check_arrival(m, true, loads, fallbacks);
}

static void begin(struct mig *m, bool kpop, u64 ring_bytes)
{
	int cpus = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 2 : 1;
	struct tvm_opts o = {
		.guest = { l1_main, cpus > 1 ? l1_main : NULL },
		.nr_l2 = cpus,
		.pool_pages = MAX_CPUS * PAGES,
		.pool_src = VM_MEM_SRC_ANONYMOUS_THP,
		.ring_bytes = ring_bytes,
	};
	struct kvm_kpop_info info;

	memset(m, 0, sizeof(*m));
	m->t = tvm_create(&o);
	kpop_info(m->t, &info);
	m->t->sh->legacy_root = table_legacy(m->t, cpus * PAGES);
	m->t->sh->param[P_LEGACY] = !kpop;
	mem_init(m);
	m->attached = kpop;
	if (kpop)
		policy_serve(&m->policy, "kpop_base", m->t);
	tvm_start(m->t);
	kst_check(goes_on(m->t), "L2 works, on %s", kpop ? "KPOP" : "L1's own table");
}

static void end(struct mig *m)
{
	m->t->sh->stop = 1;
	tvm_join(m->t);
	if (m->attached)
		policy_stop(&m->policy, m->t);
	mem_free(m);
	tvm_free(m->t);
}

int main(int argc, char **argv)
{
	bool kpop = !kst_param(argc, argv, "legacy", 0);
	struct mig m;

	kst_begin("kpop_migrate_test", 300);

	begin(&m, kpop, RING_BYTES);
	migrate(&m, LOG_RING, kpop, kpop);
	migrate(&m, LOG_MANUAL, kpop, kpop);
	if (kpop)
		back_in_time(&m);
	migrate(&m, LOG_BITMAP, false, false);
	/* L2 is where it is: KPOP is for the VMs that L1 creates from here on. */
	migrate(&m, LOG_BITMAP, true, false);
	end(&m);
	return kst_end();
}
