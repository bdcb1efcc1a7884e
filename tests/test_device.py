# SPDX-License-Identifier: MIT
"""What the driver promises of every kind of buffer, by raw system calls: mydrv-tests does the work."""

import pytest


@pytest.mark.parametrize("rules", ["mmap-rules", "ioctl-rules", "file-rules"])
def test_rules(guest, each_kind, rules):
    guest.test(rules, device=each_kind)


def test_core_dumps_leave_the_buffer_out(guest, device):
    guest.test("core-dump", device=device)


def test_faults(guest, each_kind):
    guest.test("faults", device=each_kind, timeout=240)


@pytest.mark.lg_feature("qemu")
def test_scrub(guest):
    guest.test("scrub", device="/dev/mydrv/by-label/scrub")


@pytest.mark.lg_feature("qemu")
def test_nothing_is_scrubbed_unasked(guest):
    buffer = "/dev/mydrv/by-label/noncoherent"
    guest.run(f"printf kept | dd of={buffer} conv=notrunc status=none")
    assert guest.run(f"head -c 4 {buffer}") == "kept"


@pytest.mark.lg_feature("qemu")
def test_cache_mode_and_flags_are_those_of_the_tree(guest):
    for label, mode in [("write-combine", "write-combine"), ("cached", "cached"), ("noncoherent", "coherent"), ("no-map", "coherent")]:
        info = guest.run(f"exec 3</dev/mydrv/by-label/{label}; cat /proc/self/fdinfo/3")
        assert f"mydrv-cache-mode:\t{mode}" in info.expandtabs(1).replace(": ", ":\t"), info
    for label, size in [("part", 0x3000), ("default-pool", 0x100000), ("no-map", 4 << 20), ("buffer0", 64 << 20)]:
        assert int(guest.run(f"exec 3</dev/mydrv/by-label/{label}; sed -n 's/mydrv-size-bytes:[[:space:]]*//p' /proc/self/fdinfo/3")) == size
