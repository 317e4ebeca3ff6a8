// SPDX-License-Identifier: GPL-2.0
/* To be refused at load: a hook changes the offer that it was called with. */
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
	kctx->rights = KPOP_MAP_R | KPOP_MAP_W | KPOP_MAP_X;
	return kpop_map_all(kctx, KPOP_HOW_LAZY);
}

SEC(".struct_ops.link")
struct kpop_ops bad_write_ctx = {
	.vm_fd	= -1,
	.load	= (void *)bad_load,
	.map	= (void *)bad_map,
	.name	= "bad_write_ctx",
};
