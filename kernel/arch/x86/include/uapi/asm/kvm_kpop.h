/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
#ifndef _UAPI_ASM_X86_KVM_KPOP_H
#define _UAPI_ASM_X86_KVM_KPOP_H

#include <linux/types.h>

/*
 * KPOP (KVM Paravirt Only Paging): the ABI between an L1 hypervisor and L0,
 * and the ioctl by which a host tool sees and sets KPOP's per-VM state.
 *
 * The five hypercalls (numbers in uapi/linux/kvm_para.h) are valid from L1,
 * CPL0, 64-bit mode, outside guest mode and outside SMM.  Unknown bits and
 * unused arguments must be zero.  A value >= 0 is success, a negative one is
 * a KVM error:
 *
 *   -KVM_ENOSYS  no policy is attached or L0 has no KPOP: use own page tables
 *   -ENOLINK     no policy is attached, and the VM is kpop-only: L0 runs no L2
 *                on L1's own page tables, so keep what L2 has and ask again;
 *                QUERY is answered meanwhile
 *   -EPERM       wrong mode (CPL, 64-bit, SMM), or the policy denies this map:
 *                the access is an error that L1 gives its VMM, no fallback
 *   -ENOENT      the root token (or holder) is not known: LOAD once more
 *   -EINVAL      unknown bits, misaligned or overflowing ranges
 *   -EFAULT      an L1 gfn is outside every user memslot of L1 (MAP: and the
 *                flag DEVICE is not given)
 *   -EBUSY       the token is bound to another kvm_id or as_id, or is not zero
 *   -EAGAIN      try again (a host page moved, a policy is being replaced)
 *   -E2BIG       the VM's cap on KPOP memory or on address spaces is reached
 *   -ENOMEM      L0 could not allocate memory
 *
 * "L2 gfn" is a frame number in L2's, "L1 gfn" in L1's guest physical space.
 */
#define KPOP_ABI_VERSION	1

/*
 * KVM_HC_KPOP_QUERY(op, 0, 0, 0)
 *
 * VERSION   returns KPOP_ABI_VERSION
 * FEATURES  returns a mask of KPOP_FEATURE_*
 * GFN_LIMIT returns the number of L2 gfns: each L2 gfn must be below it
 * MAX_RUNS  returns the most runs a batched MAP takes
 * RESET     drops every address space and binding of this L1, returns 0
 */
#define KPOP_QUERY_VERSION	0
#define KPOP_QUERY_FEATURES	1
#define KPOP_QUERY_GFN_LIMIT	2
#define KPOP_QUERY_MAX_RUNS	3
#define KPOP_QUERY_RESET	4

#define KPOP_FEATURE_BATCH	(1ULL << 0)	/* MAP takes an array of runs */
#define KPOP_FEATURE_LAZY	(1ULL << 1)	/* MAP may be lazy */
#define KPOP_FEATURE_HUGE	(1ULL << 2)	/* 2M and 1G leafs */
#define KPOP_FEATURE_TRACK	(1ULL << 3)	/* TRACK: accesses and writes in bulk */
#define KPOP_FEATURE_DEVICE	(1ULL << 4)	/* MAP of what is no memory of L1 */
#define KPOP_FEATURE_ONLY	(1ULL << 5)	/* this VM is kpop-only now */
#define KPOP_FEATURE_BUFFER	(1ULL << 6)	/* LOG_BUFFER, LOG_TAKE, MAP_LOGGED */

/*
 * KVM_HC_KPOP_MMU_LOAD_UNLOAD(op | as_id << 8, holder, token, kvm_id)
 *
 * LOAD          create or find the address space of @token and bind @holder
 *               (GPA of vmcb12 / vmcs12, page aligned) to it.  @token is the
 *               GPA of a page of zeroes that L1 owns and puts in nCR3 / EPTP.
 *               @kvm_id is L1's number of its L2 VM, 1 to 2^32 - 1.  A holder
 *               may be bound to several tokens at a time.
 * UNLOAD_HOLDER drop the binding of @holder to @token, with @token 0 all of
 *               its bindings.  No mapping is freed as long as the root lives.
 * UNLOAD_ROOT   drop the address space of @token and every binding to it;
 *               @holder must be 0.  On return L2 cannot use its mappings.
 *
 * as_id is 0, or 1 for an L2's SMM.  Returns 0; any answer to an UNLOAD, also
 * an error, means "not mapped".
 */
#define KPOP_OP_LOAD		0
#define KPOP_OP_UNLOAD_HOLDER	1
#define KPOP_OP_UNLOAD_ROOT	2
#define KPOP_AS_ID_SHIFT	8
#define KPOP_NR_AS_IDS		2

/*
 * KVM_HC_KPOP_MMU_MAP(token | flags, l2_gfn, l1_gfn, npages)
 * KVM_HC_KPOP_MMU_MAP(token | KPOP_MAP_BATCH, gpa of runs, nr, first)
 *
 * Offer [l1_gfn, l1_gfn + npages) to L2 at [l2_gfn, l2_gfn + npages), with
 * rights R (mandatory), W and X.  Over an existing mapping it replaces it, in
 * every address space of that L2 VM with the token's as_id.  LAZY: remember,
 * install when L2 touches it; else L0 installs what it can without waiting.
 * WRITTEN, only with W: L2 waits to write.  If the page is logged (TRACK) the
 * log has it from now on, and L2 need not fault once more.  LOGGED, only with W:
 * -ENODATA unless all of the run is in one log with a buffer (TRACK), so that L1
 * learns of a log that L0 has lost before L2 can write.  DEVICE: the L1 gfns
 * need not be memory; where they are not, L0 emulates L2's access as it would
 * L1's own at that address.
 *
 * A batch is an array of struct kpop_map_run inside one L1 page; @first is
 * the index to start at.
 *
 * Returns KPOP_MAP_DONE() pages (batch: runs) finished counted from the start
 * (resume behind them), KPOP_MAP_RIGHTS() the rights granted to the last, and
 * KPOP_MAP_WINDOW() a hint how many pages L1 may offer next time (0: none).
 */
#define KPOP_MAP_R		(1ULL << 0)
#define KPOP_MAP_W		(1ULL << 1)
#define KPOP_MAP_X		(1ULL << 2)
#define KPOP_MAP_RWX		(KPOP_MAP_R | KPOP_MAP_W | KPOP_MAP_X)
#define KPOP_MAP_LAZY		(1ULL << 3)
#define KPOP_MAP_BATCH		(1ULL << 4)	/* not inside a run */
#define KPOP_MAP_WRITTEN	(1ULL << 5)
#define KPOP_MAP_DEVICE		(1ULL << 6)
#define KPOP_MAP_LOGGED		(1ULL << 7)
#define KPOP_MAP_FLAGS		(KPOP_MAP_RWX | KPOP_MAP_LAZY | KPOP_MAP_BATCH | \
				 KPOP_MAP_WRITTEN | KPOP_MAP_DEVICE | KPOP_MAP_LOGGED)

#define KPOP_MAP_DONE(r)	((__u32)(r))
#define KPOP_MAP_RIGHTS(r)	((__u32)((r) >> 32) & 7)
#define KPOP_MAP_WINDOW(r)	((__u32)((r) >> 40) & 0xffff)
#define KPOP_MAP_RET(done, rights, window) \
	((__u64)(__u32)(done) | ((__u64)(rights) << 32) | ((__u64)(window) << 40))

/* The most pages of one run. */
#define KPOP_MAP_MAX_PAGES	(1ULL << 20)
/* The most runs of a batch. */
#define KPOP_MAP_MAX_RUNS	128

struct kpop_map_run {
	__u64 l2_gfn;
	__u64 l1_gfn;
	__u32 npages;
	__u32 flags;
};

/*
 * KVM_HC_KPOP_MMU_UNMAP(flags | as_id << 8, kvm_id, l2_gfn, npages)
 *
 * Take [l2_gfn, l2_gfn + npages) away in every address space of L2 VM @kvm_id
 * with @as_id, or with ALL_AS (as_id 0) in all of them.  ZAP says that L1 zaps
 * rather than unmaps; only a policy sees the difference.  An unknown kvm_id
 * is not an error.  Returns how many pages are finished, counted from l2_gfn;
 * if fewer than npages, resume behind them.  When it returns, no vCPU of that
 * L2 can use the old translation of the pages finished.
 */
#define KPOP_UNMAP_ALL_AS	(1ULL << 0)
#define KPOP_UNMAP_ZAP		(1ULL << 1)
#define KPOP_UNMAP_FLAGS	(KPOP_UNMAP_ALL_AS | KPOP_UNMAP_ZAP)

/*
 * KVM_HC_KPOP_MMU_TRACK(op | as_id << 8, kvm_id | npages << 32, l2_gfn, to)
 *
 * What L2 VM @kvm_id with @as_id does in [l2_gfn, l2_gfn + npages).
 *
 * AGE       which pages it accessed since the last AGE
 * TEST_AGE  the same, without beginning a new interval
 * LOG_START log its writes; @to is 0 or KPOP_LOG_BUFFERED.  From its return on no write goes
 *           unnoticed: L0 notes them, in 4K, and L1 sees no exit.  The log is
 *           L2's memory of that range: UNMAP, remap, UNLOAD and LOAD leave it.
 *           -EBUSY: overlaps another log; the same range again is no error
 * LOG_STOP  end a log; @to is 0, the range as it was started
 * LOG_READ  which pages were written since the last LOG_READ; @l2_gfn is a
 *           multiple of 64 pages from the start of the log, @npages a multiple
 *           of 64 or up to its end.  -ENOENT: L0 has no such log, or no longer:
 *           take each page offered with W for written
 * LOG_BUFFER @npages entries, at most KPOP_LOG_MAX_ENTRIES, of the page @to are
 *           the L2 VM's buffer; @l2_gfn and as_id are 0.  A log that is started
 *           with KPOP_LOG_BUFFERED is not read: L0 puts an entry there for each
 *           page before L2 can write to it, and a write for which there is no
 *           room is a fault in L1.  L1 does not write to the page; it has the
 *           entries even when L0 has lost the log.  -EBUSY: the VM has one.
 *           @npages and @to 0: it has none any more, and no log that used it
 * LOG_TAKE  move the entries to the page @to, returns how many; @l2_gfn, @npages
 *           and as_id are 0.  A page taken gets a new entry with the next write.
 *           -ENOENT: there is no buffer; -EAGAIN: another vCPU takes them
 *
 * @to is the L1 GPA of a bitmap within one L1 page, 8-byte aligned, bit n of
 * the first byte for page n; at most KPOP_TRACK_MAX_PAGES.  Returns the number
 * of bits set, or 0.
 */
#define KPOP_TRACK_AGE		0
#define KPOP_TRACK_TEST_AGE	1
#define KPOP_TRACK_LOG_START	2
#define KPOP_TRACK_LOG_STOP	3
#define KPOP_TRACK_LOG_READ	4

#define KPOP_TRACK_LOG_BUFFER	5
#define KPOP_TRACK_LOG_TAKE	6

#define KPOP_TRACK_MAX_PAGES	32768

#define KPOP_LOG_BUFFERED	(1ULL << 0)

/* An entry: an L2 gfn and its as_id; 0 is none. */
#define KPOP_LOG_MAX_ENTRIES	480
#define KPOP_LOG_ENTRY		(1ULL << 63)
#define KPOP_LOG_AS_ID_SHIFT	62
#define KPOP_LOG_GFN_MASK	((1ULL << 52) - 1)

/*
 * KVM_KPOP on /dev/kvm: what a host tool may ask of a VM by the VM's file
 * descriptor (the VM's own ioctls answer -EIO to another process).
 *
 * @size is sizeof(struct kvm_kpop_cmd) as the caller knows it: bytes beyond
 * what the kernel knows must be zero (-E2BIG).  @data points to @data_len
 * bytes of the answer; a shorter buffer gets a prefix, @data_len is set to
 * the full length.
 */
#define KVM_KPOP_OP_INFO	0	/* struct kvm_kpop_info */
#define KVM_KPOP_OP_SPACES	1	/* array of struct kvm_kpop_space_info */
#define KVM_KPOP_OP_SET_CAP	2	/* arg: bytes, 0 is the default */
#define KVM_KPOP_OP_SET_ONLY	3	/* arg: 0 or 1, kpop-only */
/*
 * Only on a kernel with CONFIG_KVM_PROVE_MMU, for tests; else -EOPNOTSUPP.  CHECK
 * looks pages up in the VMM's memory: -EIO to another process.  PLANT takes
 * CAP_SYS_RAWIO (-EPERM).
 */
#define KVM_KPOP_OP_CHECK	4	/* struct kvm_kpop_check */
#define KVM_KPOP_OP_PLANT	5	/* arg: KPOP_PLANT_*: break a table, or mend it */

struct kvm_kpop_cmd {
	__u32 size;
	__u32 op;
	__s32 vm_fd;
	__u32 flags;
	__u64 arg;
	__u64 data;
	__u32 data_len;
	__u32 reserved;
};

#define KVM_KPOP _IOWR(0xAE, 0xe8, struct kvm_kpop_cmd)

#define KPOP_NAME_LEN		16
#define KPOP_REASON_LEN		96

/* Hook numbers, in statistics and in the record of an ejection. */
enum kpop_hook {
	KPOP_HOOK_INIT,
	KPOP_HOOK_EXIT,
	KPOP_HOOK_LOAD,
	KPOP_HOOK_UNLOAD,
	KPOP_HOOK_MAP,
	KPOP_HOOK_UNMAP,
	KPOP_HOOK_ZAP,
	KPOP_HOOK_FAULT,
	KPOP_NR_HOOKS,
};

/* Why a policy was ejected. */
enum kpop_eject_kind {
	KPOP_EJECT_NONE,
	KPOP_EJECT_VALUE,	/* a hook returned a value out of range */
	KPOP_EJECT_ERRORS,	/* too many errors */
	KPOP_EJECT_STALL,	/* over the budget of CPU time */
	KPOP_EJECT_PROGRESS,	/* said yes, did nothing */
	KPOP_EJECT_INIT,	/* init failed */
	KPOP_NR_EJECT_KINDS,
};

struct kvm_kpop_ejection {
	__u32 kind;
	__u32 hook;
	__s64 value;
	__u64 time_ns;			/* CLOCK_REALTIME */
	__u32 map_id;
	__u32 count;			/* ejections of this VM so far */
	char policy[KPOP_NAME_LEN];
	char text[KPOP_REASON_LEN];
};

struct kvm_kpop_hook_stat {
	__u64 calls;
	__u64 errors;
	__u64 time_ns;
	__u64 max_ns;
};

struct kvm_kpop_info {
	__u64 vm_id;			/* never reused while the host is up */
	__u32 state;			/* enum kpop_state */
	__u32 kpop_only;
	__u32 map_id;			/* of the attached policy, or 0 */
	__u32 link_id;
	__u32 nr_spaces;
	__u32 nr_bindings;
	char policy[KPOP_NAME_LEN];
	__u64 cap;			/* bytes */
	__u64 bytes;			/* bytes in use */
	__u64 pages;			/* 4K pages mapped or known, all spaces */
	__u64 attaches;
	__u64 swaps;
	__u64 detaches;
	__u64 faults_direct;		/* L2 faults solved in L0 */
	__u64 faults_reflected;		/* L2 faults given to L1 */
	struct kvm_kpop_ejection last_ejection;
	struct kvm_kpop_hook_stat hooks[KPOP_NR_HOOKS];
};

enum kpop_state {
	KPOP_STATE_NONE,		/* no policy */
	KPOP_STATE_ATTACHED,
	KPOP_STATE_DETACHING,		/* mappings are being taken down */
};

struct kvm_kpop_space_info {
	__u64 token;
	__u32 kvm_id;
	__u32 as_id;
	__u64 pages;
	__u64 runs;
	__u64 bytes;
	__u32 bindings;
	__u32 reserved;
};

/* What KVM_KPOP_OP_CHECK found wrong, and the first of it. */
enum kpop_wrong {
	KPOP_WRONG_NONE,
	KPOP_WRONG_TRANS,		/* a leaf without a translation */
	KPOP_WRONG_RIGHTS,		/* with more rights than it */
	KPOP_WRONG_SLOT,		/* where L1 has no memory */
	KPOP_WRONG_PFN,			/* to another host page than L1's memslot */
	KPOP_WRONG_WRITE,		/* writable where L1 may not write */
	KPOP_WRONG_LOG,			/* writable unknown to L1's log */
	KPOP_WRONG_RUN,			/* translations overlap */
	KPOP_WRONG_RMAP,		/* forward and reverse map differ */
	KPOP_WRONG_SUM,			/* counters of a space */
};

struct kvm_kpop_check {
	__u64 wrong;
	__u32 what;			/* enum kpop_wrong */
	__u32 reserved;
	__u64 l2_gfn;
	__u64 l1_gfn;
	__u64 spte;
	__u64 leafs;			/* looked at */
	__u64 runs;
};

#define KPOP_PLANT_LEAF		0
#define KPOP_PLANT_RMAP		1

#endif /* _UAPI_ASM_X86_KVM_KPOP_H */
