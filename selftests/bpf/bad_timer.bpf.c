// SPDX-License-Identifier: GPL-2.0
/*
 * To be refused at load: map() leaves its context for a timer, which calls a
 * kfunc with it when the call is long over.
 */
#include "vmlinux.h"
#include "kpop.bpf.h"

#define CLOCK_MONOTONIC	1

char LICENSE[] SEC("license") = "GPL";

struct late {
	struct bpf_timer timer;
	__u64 ctx;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct late);
} bad_timers SEC(".maps");

static int bad_timer_cb(void *map, __u32 *key, struct late *late)
{
	bpf_kpop_window((struct kpop_map_ctx *)late->ctx, 1);
	return 0;
}

SEC("struct_ops.s/load")
int BPF_PROG(bad_load, struct kpop_load_ctx *kctx)
{
	return bpf_kpop_load(kctx);
}

SEC("struct_ops.s/map")
int BPF_PROG(bad_map, struct kpop_map_ctx *kctx)
{
	__u32 key = 0;
	struct late *late = bpf_map_lookup_elem(&bad_timers, &key);

	if (late) {
		late->ctx = (__u64)kctx;
		bpf_timer_init(&late->timer, &bad_timers, CLOCK_MONOTONIC);
		bpf_timer_set_callback(&late->timer, bad_timer_cb);
		bpf_timer_start(&late->timer, 1000000, 0);
	}
	return kpop_map_all(kctx, KPOP_HOW_LAZY);
}

SEC(".struct_ops.link")
struct kpop_ops bad_timer = {
	.vm_fd	= -1,
	.load	= (void *)bad_load,
	.map	= (void *)bad_map,
	.name	= "bad_timer",
};
