// SPDX-License-Identifier: GPL-2.0
/*
 * To be refused at load: map() calls the kfunc of load().  That the argument
 * has another type does not matter: who may call is looked at first.
 */
#include "vmlinux.h"
#include "kpop.bpf.h"

char LICENSE[] SEC("license") = "GPL";

SEC("struct_ops.s/load")
int BPF_PROG(bad_load, struct kpop_load_ctx *kctx)
{
	return bpf_kpop_load(kctx);
}

SEC("struct_ops.s/map")
int BPF_PROG(bad_map, struct kpop_map_ctx *kctx)
{
	return bpf_kpop_load((void *)kctx);
}

SEC(".struct_ops.link")
struct kpop_ops bad_wrong_hook = {
	.vm_fd	= -1,
	.load	= (void *)bad_load,
	.map	= (void *)bad_map,
	.name	= "bad_wrong_hook",
};
