# SPDX-License-Identifier: MIT
"""Device trees that are wrong: each fails the boot's check with the right finding, and the boot is not taken for a good one. Each boots a
guest of its own, so these come last."""

import json
import re

import pytest

from guest import buffer, overlay, region

MIB = 1 << 20
GIB = 1 << 30
pytestmark = [pytest.mark.lg_feature("qemu"), pytest.mark.own_guest]

CMA = region("cma", 4 * MIB)
WITH_CMA = "memory-region = <&cma>;"


def one(properties, *regions, **kwargs):
    """An overlay with one buffer."""
    return [overlay(buffer("mydrv-wrong", properties, **kwargs), regions=regions)]


# Name: overlays, the failing check, what it finds, and the driver's line in the kernel's log, if any.
BROKEN = {
    "no overlay": ([], "device-tree", "overlay missing", None),
    "wrong compatible": (one(WITH_CMA, CMA, compatible="mydrv,dma-bufer"), "device-tree", "no such node", None),
    "disabled": (one(f'status = "disabled"; {WITH_CMA}', CMA), "device-tree", "disabled", None),
    "neither region nor size": (one(""), "driver", "probe failed", "size: missing; give a size"),
    "region not in memory": (
        one(WITH_CMA, region("cma", 8 * GIB)),
        "driver",
        "probe failed",
        "memory-region: the kernel did not reserve it at boot",
    ),
    "region disabled": (
        one(WITH_CMA, region("cma", 4 * MIB, 'reusable; status = "disabled";')),
        "region",
        "",
        "memory-region: the kernel did not reserve it at boot",
    ),
    "region too small": (
        one(f"size = <0 0x800000>; {WITH_CMA}", CMA),
        "driver",
        "probe failed",
        r"size = 0x800000: larger than its memory-region of 0x400000 bytes; enlarge the region or leave size out",
    ),
    "cached in a pool that is mapped uncached": (
        one(f'mydrv,cache-mode = "cached"; {WITH_CMA}', region("cma", 4 * MIB, "no-map;")),
        "driver",
        "probe failed",
        r'mydrv,cache-mode = "cached" contradicts memory-region: .*; make the region "reusable" or choose another mode',
    ),
    "wrong label": (one(f'label = "../etc"; {WITH_CMA}', CMA), "driver", "probe failed", r'label = .*\.\./etc.*: not usable; give 1 to 31'),
}


def assert_bad(guest, check, found):
    """The boot's verdict is bad everywhere it is told."""
    assert guest.status("systemctl is-active --quiet boot-complete.target") != 0
    guest.run("test ! -e /run/bench-marked-good")
    assert guest.run("systemctl show -P Result mydrv-validate.service") == "exit-code"
    report = json.loads(guest.run("cat /run/mydrv/validate.json"))
    assert report["verdict"] == "fail"
    failed = {record["id"]: record for record in report["checks"] if record["verdict"] == "fail"}
    assert check in failed, failed
    assert found in failed[check]["found"]
    assert failed[check]["remedy"] and failed[check]["expected"]
    # What people see first.
    assert check in guest.run("systemctl status --no-pager -n 50 mydrv-validate.service || true")
    assert check in guest.run("journalctl -b -o cat -u mydrv-validate.service")


def errors(guest):
    """The driver's own error lines: device, line."""
    others = "/dev/|assigned reserved memory node|probe with driver"
    lines = guest.kernel_log().splitlines()
    return [match.groups() for line in lines if (match := re.match(rf"mydrv (\S+): (?!{others})(.*)", line))]


@pytest.mark.parametrize("name", BROKEN)
def test_broken_tree_fails_the_boot(boot, name):
    sources, check, found, line = BROKEN[name]
    guest = boot(*sources, product=False)
    assert_bad(guest, check, found)
    if line:
        told = errors(guest)
        assert len(told) == 1 and re.search(line, told[0][1]), told


def test_one_bad_buffer_beside_a_good_one_fails_the_boot(boot):
    guest = boot(*one("size = <0 0>;"))
    assert_bad(guest, "driver", "probe failed")
    guest.run("test -e /dev/mydrv/by-label/buffer0")


def test_wrong_size_fails_the_boot(boot):
    """The packages that bitbake writes expect the product's size by themselves."""
    guest = boot(*one(f'label = "buffer0"; {WITH_CMA}', CMA), product=False, append="systemd.setenv=MYDRV_EXPECT=buffer0=64M")
    assert_bad(guest, "size", "4 MiB")


def test_missing_module_fails_the_boot(boot):
    guest = boot(append="module_blacklist=mydrv")
    assert_bad(guest, "driver", "not loaded")


# Each with one line that names property, value and remedy.
REFUSED = {
    "size-zero": ("size = <0 0>;", r"size = 0: .*; give at least 4096 bytes"),
    "size-unaligned": ("size = <0 0x1801>;", r"size = 0x1801: not a multiple of the page size; round it up to 0x2000"),
    "size-one-cell": ("size = <0x100000>;", r"size: not a 64-bit number; write two cells"),
    "size-text": ('size = "1M";', r"size: not a 64-bit number; write two cells"),
    "size-huge": ("size = <0xffffffff 0xfffff000>;", r"size = 0xfffffffffffff000: larger than"),
    "size-unaligned-huge": ("size = <0xffffffff 0xffffffff>;", r"size = 0xffffffffffffffff: not a multiple"),
    "size-beyond-pool": ("size = <0 0x20000000>;", r"size = 0x20000000: the default pool has no such piece free; give the device a memory-region"),
    "size-beyond-region": ("size = <0 0x401000>; memory-region = <&r0>;", r"size = 0x401000: larger than its memory-region of 0x400000"),
    "mode-unknown": ('mydrv,cache-mode = "fast"; memory-region = <&r0>;', r'mydrv,cache-mode = .*fast.*: unknown; use "coherent"'),
    "mode-empty": ('mydrv,cache-mode = ""; memory-region = <&r0>;', r"mydrv,cache-mode = .*: unknown; use"),
    "mode-number": ("mydrv,cache-mode = <1>; memory-region = <&r0>;", r"mydrv,cache-mode = .*: unknown; use"),
    "mode-case": ('mydrv,cache-mode = "Cached"; memory-region = <&r0>;', r"mydrv,cache-mode = .*Cached.*: unknown; use"),
    "label-empty": ('label = ""; memory-region = <&r1>;', r"label = .*: not usable; give 1 to 31"),
    "label-long": (f'label = "{"x" * 32}"; memory-region = <&r1>;', r"label = .*xxx.*: not usable; give 1 to 31"),
    "label-dots": ('label = ".."; memory-region = <&r1>;', r"label = .*\.\..*: not usable; give 1 to 31"),
    "label-slash": ('label = "a/b"; memory-region = <&r1>;', r"label = .*a/b.*: not usable; give 1 to 31"),
    "label-space": ('label = "a b"; memory-region = <&r1>;', r"label = .*a b.*: not usable; give 1 to 31"),
    "label-number": ("label = <7>; memory-region = <&r1>;", r"label = .*: not usable; give 1 to 31"),
    "cached-pool": ('mydrv,cache-mode = "cached"; memory-region = <&pool>;', r"cached.* contradicts memory-region"),
    "region-no-pool": ("memory-region = <&plain>;", r"memory-region: .*; .*shared-dma-pool"),
}


def test_every_wrong_property_is_refused_by_one_line(boot):
    """All in one tree: each device is refused by its own line, and the regions of the refused are free for a device that is right."""
    regions = [region("r0", 4 * MIB), region("r1", 4 * MIB), region("pool", 4 * MIB, "no-map;"), "plain: plain { size = <0 0x400000>; };"]
    nodes = [buffer(f"mydrv-{name}", properties) for name, (properties, _) in REFUSED.items()]
    # These take the whole of the regions that refused devices named.
    nodes += [buffer(f"mydrv-right-{i}", f"memory-region = <&r{i}>;") for i in (0, 1)]
    guest = boot(overlay(*nodes, regions=regions))
    told = errors(guest)
    for name, (_, line) in REFUSED.items():
        lines = [text for device, text in told if device == f"mydrv-{name}"]
        assert len(lines) == 1 and re.search(line, lines[0]), f"{name}: {lines}"
    log = guest.kernel_log()
    for i in (0, 1):
        assert re.search(rf"mydrv mydrv-right-{i}: /dev/mydrv\d+: 4096 KiB", log), log
    # Refused again, without leaving anything behind: were a region's memory kept, the device that is right could not be bound again.
    for name in ("mode-unknown", "label-empty"):
        assert guest.status(f"echo mydrv-{name} >/sys/bus/platform/drivers/mydrv/bind") != 0
    for i in (0, 1):
        guest.run(f"cd /sys/bus/platform/drivers/mydrv && echo mydrv-right-{i} >unbind && echo mydrv-right-{i} >bind")


@pytest.mark.parametrize(
    ("size", "line"),
    [
        # So much the page allocator has elsewhere, which would not do.
        (4 * MIB, "memory-region: the allocation of 0x400000 bytes came from elsewhere; is the region used by another device"),
        (64 * MIB, "size = 0x4000000: the memory-region of 0x4000000 bytes has no such piece free; give each device a region of its own"),
    ],
)
def test_region_too_small_for_its_users(boot, size, line):
    """The second of two devices of one region is refused, and gets its turn once the first is gone."""
    guest = boot(overlay(buffer("mydrv-a", WITH_CMA), buffer("mydrv-b", WITH_CMA), regions=[region("cma", size)]))
    told = errors(guest)
    assert len(told) == 1 and line in told[0][1], told
    second = told[0][0]
    first = {"mydrv-a": "mydrv-b", "mydrv-b": "mydrv-a"}[second]
    guest.run(f"cd /sys/bus/platform/drivers/mydrv && echo {first} >unbind && echo {second} >bind")
    assert guest.status(f"echo {first} >/sys/bus/platform/drivers/mydrv/bind") != 0
