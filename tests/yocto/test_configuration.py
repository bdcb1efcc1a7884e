# SPDX-License-Identifier: MIT
"""Bad input: each gets a message that names cause and remedy, before anything is built; or it works."""

import pytest

WRONG = {
    "kernel without Rust": ('KERNEL_FEATURES:remove = "rust"', "", ['KERNEL_FEATURES lacks "rust"', 'KERNEL_FEATURES:append = " rust"']),
    "no systemd": ('DISTRO_FEATURES:remove = "systemd"', "", ['DISTRO_FEATURES lacks "systemd"', "INIT_MANAGER"]),
    "machine without overlay": ("", 'MACHINE = "qemux86-64"', ['no device-tree overlay for MACHINE "qemux86-64"', "MYDRV_OVERLAY:qemux86-64"]),
    "buffer larger than memory": ('MYDRV_CMA_SIZE = "0xc200000"\nQB_MEM = "-m 256"', "", ["more than three quarters of the 256 MiB", "QB_MEM"]),
    "size with a suffix": ('MYDRV_CMA_SIZE = "64M"', "", ['MYDRV_CMA_SIZE = "64M" is not a size', "0x4000000"]),
    "size that is no multiple": ('MYDRV_CMA_SIZE = "0x100000"', "", ["a multiple of 2 MiB"]),
    "overlay of unknown buffers": ('MYDRV_OVERLAY = "acme"', "", ["MYDRV_EXPECT is empty", "MYDRV_EXPECT:qemuarm64"]),
    "expectation that is none": ('MYDRV_EXPECT = "buffer0=64Q"', "", ['MYDRV_EXPECT: "buffer0=64Q" is neither']),
    "negative size": ('MYDRV_CMA_SIZE = "-0x200000"', "", ["is not a size"]),
    "unknown compiler": ('MYDRV_RUST = "gcc"', "", ['MYDRV_RUST = "gcc" is neither']),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_configuration_is_explained(bench, name):
    after, before, messages = WRONG[name]
    bench("-p", after, before).refused('MACHINE_FEATURES has "mydrv", but:', *messages)


def test_all_that_is_wrong_is_told_at_once(bench):
    bench("-p", 'KERNEL_FEATURES:remove = "rust"\nMYDRV_CMA_SIZE = "1"').refused('KERNEL_FEATURES lacks "rust"', 'MYDRV_CMA_SIZE = "1"')


def test_older_kernel_is_refused_before_it_is_compiled(bench):
    bench("-c configure -f linux-bench", 'BENCH_LINUX_VERSION = "6.12.9"').refused("mydrv needs Linux 6.18 or newer", "linux-bench is 6.12.9", "PREFERRED_VERSION")


@pytest.mark.parametrize("recipe", ["mydrv", "mydrv-overlay", "packagegroup-mydrv"])
def test_without_the_feature_recipes_say_what_they_miss(bench, recipe):
    bench(f"-n {recipe}", 'MACHINE_FEATURES:remove = "mydrv"').refused("mydrv", "MACHINE_FEATURES")
