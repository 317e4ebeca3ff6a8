# fuzz.sh ARGS...: the fuzzer, and on a kernel that counts lines those counters.
/kpop/kvm/kpop_fuzz_test "$@"
status=$?
from=/sys/kernel/debug/gcov
if [ -d $from ]; then
	to=/run/gcov
	mkdir -p $to
	# Files of debugfs have no size that tar could go by.
	find $from -name 'kpop_*.gcda' | while read -r f; do cat $f >$to/${f##*/}; done
	tar -cf $KPOP_OUT/gcov.tar -C $to .
fi
exit $status
