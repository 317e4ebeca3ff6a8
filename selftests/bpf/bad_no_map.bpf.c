// SPDX-License-Identifier: GPL-2.0
/* To be refused at attach: a policy without map(), which is required. */
#include "vmlinux.h"
#include "kpop.bpf.h"

char LICENSE[] SEC("license") = "GPL";

SEC("struct_ops.s/load")
int BPF_PROG(bad_load, struct kpop_load_ctx *kctx)
{
	return bpf_kpop_load(kctx);
}

SEC(".struct_ops.link")
struct kpop_ops bad_no_map = {
	.vm_fd	= -1,
	.load	= (void *)bad_load,
	.name	= "bad_no_map",
};
