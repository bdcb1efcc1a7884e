# SPDX-License-Identifier: MIT
# A thin face over bench/, which builds the layer's sources outside Yocto and boots them in QEMU. bench/boot --help has the rest.

KERNEL ?= release
cache := $(or $(MYDRV_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mydrv)

help:
	@echo 'make demo        build everything, boot it in QEMU, show the verdict of the boot and of mydrvctl'
	@echo 'make demo FROM=yocto  the same from the packages that bitbake writes of the layer'
	@echo 'make test        the suite: on the newest kernel, with every checker, updates; the last line counts (bench/test --help: more)'
	@echo 'make yocto       the layer under the real bitbake: checks, plans, executes, boots what it wrote (docs/integration.md)'
	@echo 'make shell       the same guest, interactive (KERNEL=debug: with KASAN, lockdep and others)'
	@echo 'make ota-demo    updates: a good one is kept, a broken one falls back by itself (docs/ota.md)'
	@echo 'make test-ota    updates alone, with 30 power cuts'
	@echo 'make bench       measure, and renew the table in docs/performance.md'
	@echo 'make clean       remove build/; the cache of kernels and root file systems stays'
	@echo 'make distclean   remove the cache, too: $(cache)'
	@echo
	@echo 'One command in the guest: bench/boot -- mydrvctl list'

demo:
	@FROM=$(FROM) bench/demo

test:
	@bench/test

yocto:
	@tests/yocto/run

shell:
	@bench/shell --kernel $(KERNEL)

ota-demo:
	@bench/ota-demo

test-ota:
	@bench/test ota

bench:
	@bench/performance

clean:
	rm -rf build

distclean: clean
	rm -rf $(cache)

.PHONY: help demo test yocto shell ota-demo test-ota bench clean distclean
