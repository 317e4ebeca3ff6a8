# An L2 whose memory is 1G pages of L1's hugetlbfs, on legacy paging and on KPOP: L1 maps one of them as it is (the other has
# holes below 1M), and L2's memory is right.
. /kpop/lib.sh
MIB=900

in_l1() { # SIDE CHECKSUM
	local out n
	MEM=2048 SMP=1 MACHINE=$PLAIN_MACHINE,memory-backend=huge \
		l2_start -object memory-backend-memfd,id=huge,size=2G,hugetlb=on,hugetlbsize=1G || fail "no L2"
	out=$(T=300 l2 "memtest $MIB 1") || fail "$1: $out"
	[ "${out##* }" = $2 ] || fail "$1: L2's memory: $out, not $2"
	n=$(kvm_stat $(vm_pid l2) pages_1g)
	echo "# $1: in L1 $n pages of 1G, $(kvm_stat $(vm_pid l2) pages_2m) of 2M, $(kvm_stat $(vm_pid l2) pages_4k) of 4K"
	[ $n -gt 0 ] || fail "$1: no page of 1G"
	want_side l2
	l2_stop || fail "L2 did not power off"
	echo "ok - $1: L2 in 1G pages, its memory is right"
}

[ "$1" = in_l1 ] && { SIDE=$(echo $2 | tr A-Z a-z); in_l1 $2 $3; exit 0; }
want=$(memtest $MIB 1)
want=${want##* }
# Linux uses the end of what is below 4G, and of memory, before it comes to look: two pages from 4G on are left.
MACHINE=$PLAIN_MACHINE,max-ram-below-4g=1G CMDLINE="hugepagesz=1G hugepages=2" MEM=3584 l1_start || fail "no L1"
n=$(l1 cat /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages)
[ "$n" = 2 ] || fail "L1 has $n pages of 1G, not 2"
side() { T=500 l1 "sh /kpop/cases/hugetlb_l1.sh in_l1 $1 $want"; }
on_both side
l1_stop || fail "L1 did not power off"
