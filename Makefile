# KPOP. "make help" says what there is.
SHELL := /bin/bash
RIG := selftests/rig
BUILD := kernel/build/stages.sh
# FLAVOUR=plain|debug|kcsan restricts tests to one kernel; without it make test runs the first two.
FLAVOUR ?=
FLAVOURS = $(or $(FLAVOUR),plain debug)

help:
	@sed -n 's/^#: //p' Makefile

#: make build      kernels, BPF policies, kpopctl, tests, root images; cached in $KPOP_CACHE (~/.cache/kpop)
build:
	@$(BUILD) $(FLAVOURS)

#: make run        L0 -> L1 -> L2 on KPOP under a BPF policy, swapped and detached live; report in build/run/report.json
run:
	@$(BUILD) plain
	@$(RIG)/demo.sh

#: make test       all CI tests on the plain and the debug kernel; T=name[,name] for some, FLAVOUR=plain|debug, VENDOR=amd|intel
test:
	@$(BUILD) $(FLAVOURS)
	@$(RIG)/run-tests.sh ci $(FLAVOURS)

#: make test-full  the long tests as well; FLAVOUR=kcsan: those on a kernel that looks for data races
test-full:
	@$(BUILD) $(FLAVOURS)
	@$(RIG)/run-tests.sh full $(FLAVOURS)

#: make bench      first touch of memory, counted in instructions: no KVM, one level, legacy, KPOP; build/bench/report.json
bench:
	@$(BUILD) plain
	@$(RIG)/bench.sh

#: make fuzz       hostile L1s against the debug kernel; TIME=seconds (60), SEED=n (1)
fuzz:
	@$(BUILD) debug
	@VENDOR=amd $(RIG)/run-tests.sh fuzz debug

#: make shell      a shell in L0 on this terminal, with an L1 running; leave with "exit"
shell:
	@$(BUILD) $(or $(FLAVOUR),plain)
	@$(RIG)/shell.sh $(or $(FLAVOUR),plain)

#: make bpf        the BPF objects alone, in build/bpf
bpf:
	@kernel/build/bpf.sh

#: make kernel-tree  prepare the patched kernel source and print where it is
kernel-tree:
	@kernel/build/packages.sh
	@kernel/build/prepare.sh
	@. kernel/build/common.sh; linux_dir

#: make clean      remove build/; the cache stays (rm -r ~/.cache/kpop removes that)
clean:
	rm -rf build

.PHONY: help build run test test-full bench fuzz shell bpf kernel-tree clean
