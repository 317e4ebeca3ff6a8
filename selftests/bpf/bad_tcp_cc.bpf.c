// SPDX-License-Identifier: GPL-2.0
/*
 * To be refused at load: a program of another struct_ops type, TCP congestion
 * control, calls a kfunc of KPOP.
 */
#include "vmlinux.h"
#include "kpop.bpf.h"

char LICENSE[] SEC("license") = "GPL";

SEC("struct_ops/ssthresh")
__u32 BPF_PROG(bad_ssthresh, struct sock *sk)
{
	return bpf_kpop_window((void *)sk, 1);
}

SEC("struct_ops/undo_cwnd")
__u32 BPF_PROG(bad_undo_cwnd, struct sock *sk)
{
	return 2;
}

SEC("struct_ops/cong_avoid")
void BPF_PROG(bad_cong_avoid, struct sock *sk, __u32 ack, __u32 acked)
{
}

SEC(".struct_ops.link")
struct tcp_congestion_ops bad_tcp_cc = {
	.ssthresh	= (void *)bad_ssthresh,
	.undo_cwnd	= (void *)bad_undo_cwnd,
	.cong_avoid	= (void *)bad_cong_avoid,
	.name		= "bad_tcp_cc",
};
