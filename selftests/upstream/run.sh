# run.sh NAME: one line of tests.list, in an L1. What the test says, then
#   RESULT pass|skip|fail|timeout SECONDS SKIPS FALLBACKS REASON
# with the number of lines that say that a part was skipped, and of VMs that left KPOP meanwhile.
. /kpop/lib.sh
here=/kpop/upstream
name=$1
set -- $(awk -v n="$name" '$1 == n { sub(/[ \t]#.*/, ""); print $4, $7, $8; for (i = 9; i <= NF; i++) print $i }' $here/tests.list)
[ $# -ge 3 ] || { echo "RESULT fail 0 0 0 no test $name in the list"; exit 1; }
limit=$(($1 * SLOW)) needs=$2 prog=$3
shift 3
huge=/proc/sys/vm/nr_hugepages
clock=/sys/devices/system/clocksource/clocksource0/current_clocksource
was=$(cat $clock)
out=$RUN/upstream.out

result() { echo "RESULT $*"; exit 0; }
fallbacks() { dmesg | grep -c 'moving VM .* to its own page tables'; }

# Their VMs have more memory than they touch.
echo 1 >/proc/sys/vm/overcommit_memory
for need in $(echo $needs | tr , ' '); do
	case $need in
	-) ;;
	clocksource=*) echo ${need#*=} >$clock ;;
	# Ignored also by what is started: they give their guests seconds, which are an emulator's minutes.
	slow) trap '' ALRM ;;
	huge:*)
		echo 3 >/proc/sys/vm/drop_caches
		echo 1 >/proc/sys/vm/compact_memory
		echo ${need#*:} >$huge
		got=$(cat $huge)
		[ $got = ${need#*:} ] || { echo 0 >$huge; result fail 0 0 0 "only $got of ${need#*:} huge pages"; }
		;;
	*) zcat /proc/config.gz | grep -q "^CONFIG_$need=[ym]" || result skip 0 1 0 "CONFIG_$need is not set" ;;
	esac
done

before=$(fallbacks)
run=$here/$prog
[ "$prog" = "${prog%.sh}" ] || run="sh $run"
t0=$(cut -d. -f1 /proc/uptime)
timeout -k 5 $limit $run "$@" </dev/null >$out 2>&1
status=$?
secs=$(($(cut -d. -f1 /proc/uptime) - t0))
echo 0 >$huge
echo $was >$clock
cat $out
case $status in
0) what=pass ;;
4) what=skip ;;
124 | 137 | 143) what=timeout ;;
*) what=fail ;;
esac
skips=$(grep -i skip $out | grep -vc 'skip:0 ')
# The first assertion that failed and what it says, or why it was not run.
reason=$(sed -n '/Test Assertion Failure/ { n; h; :more; n; /^  pid=/b more; /^ .*[0-9]:.*(null)/b more; /^sh: /b more; /^ *[0-9]*\t/b more
	H; x; s/\n/ /; p; q }' $out)
[ -n "$reason" ] || reason=$(grep -E 'not ok|Requirement not met|SKIP|skipping' $out | head -1)
[ $what = pass ] && reason= || reason="status $status: $(echo $reason)"
result $what $secs $skips $(($(fallbacks) - before)) "$reason"
