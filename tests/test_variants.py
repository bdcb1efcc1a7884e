# SPDX-License-Identifier: MIT
"""Device trees that are wrong: each fails the boot's check with the right finding, and the boot is not taken for a good one. Each boots a
guest of its own, so these come last."""

import json
import re
import shlex

import pytest

from guest import KERNEL_LOG, TOP, buffer, overlay, region

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
    "region disabled": (
        one(WITH_CMA, region("cma", 4 * MIB, 'reusable; status = "disabled";')),
        "region",
        "",
        'memory-region cma: its status is not "okay"',
    ),
    "cells of another tree": (
        [overlay(buffer("mydrv-wrong", WITH_CMA), regions=[CMA]).replace("#size-cells = <2>", "#size-cells = <1>")],
        "driver",
        "probe failed",
        r"memory-region cma: /reserved-memory needs #address-cells = <2> and #size-cells = <2>, as the tree's root has, and ranges",
    ),
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


def errors(guest, since=1, device=""):
    """The driver's own error lines, of one device or of all: device, line. `since`: from that byte of the kernel's log on."""
    others = "/dev/|assigned reserved memory node|probe with driver"
    # Picked in the guest: the console is slow.
    output, _ = guest.execute(f"tail -c +{since} {KERNEL_LOG} | sed 's/^[^;]*;//' | grep '^mydrv {device}.*: '")
    return [match.groups() for line in output if (match := re.match(rf"mydrv (\S+): (?!{others})(.*)", line))]


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


def places(name, *properties):
    """A node that reserves memory by other properties than region()'s."""
    return f'{name}: {name} {{ compatible = "shared-dma-pool"; {" ".join(properties)} }};'


def refused_label(text):
    return (f'label = "{text}"; memory-region = <&r0>;', None, rf'label = "{re.escape(text)}": not usable; give a letter and up to 30 more letters, digits, .* or .-.')


# For each wrong property of the device or of its region: the device's properties, its region if it is to have one, and the one line that
# names property, value and remedy.
SIZE = "size = <0 0x400000>;"
REFUSED = {
    "size-zero": ("size = <0 0>;", None, r"size = 0: .*; give at least 4096 bytes"),
    "size-unaligned": ("size = <0 0x1801>;", None, r"size = 0x1801: not a multiple of the page size; round it up to 0x2000"),
    "size-one-cell": ("size = <0x100000>;", None, r"size: not a 64-bit number; write two cells"),
    "size-text": ('size = "1M";', None, r"size: not a 64-bit number; write two cells"),
    "size-huge": ("size = <0xffffffff 0xfffff000>;", None, r"size = 0xfffffffffffff000: larger than the address space"),
    "size-unaligned-huge": ("size = <0xffffffff 0xffffffff>;", None, r"size = 0xffffffffffffffff: not a multiple"),
    "size-beyond-pool": ("size = <0 0x20000000>;", None, r"size = 0x20000000: the default pool has no such piece free that the device reaches; give"),
    "size-beyond-region": ("size = <0 0x401000>;", region("r0", 4 * MIB), r"size = 0x401000: larger than its memory-region of 0x400000"),
    "mode-unknown": ('mydrv,cache-mode = "fast"; memory-region = <&r0>;', None, r'mydrv,cache-mode = .*fast.*: unknown; use "coherent"'),
    "mode-empty": ('mydrv,cache-mode = ""; memory-region = <&r0>;', None, r"mydrv,cache-mode = .*: unknown; use"),
    "mode-number": ("mydrv,cache-mode = <1>; memory-region = <&r0>;", None, r"mydrv,cache-mode = .*: unknown; use"),
    "mode-case": ('mydrv,cache-mode = "Cached"; memory-region = <&r0>;', None, r"mydrv,cache-mode = .*Cached.*: unknown; use"),
    "label-empty": ('label = ""; memory-region = <&r0>;', None, r'label = "": not usable; give a letter'),
    "label-long": (f'label = "{"x" * 32}"; memory-region = <&r0>;', None, r"label = .*xxx.*: not usable; give a letter"),
    "label-node": ("label = <7>; memory-region = <&r0>;", None, r"label = .*: not usable; give a letter"),
    "label-umlaut": ('label = "zähler"; memory-region = <&r0>;', None, r"label = .*hler.*: not usable; give a letter"),
    **{f"label-bad-{i}": refused_label(text) for i, text in enumerate(("..", "a/b", "a b", "../etc", "0", "17", "-d", ".hidden", "_x"))},
    "cached-pool": ('mydrv,cache-mode = "cached";', region("p0", 4 * MIB, "no-map;"), r"cached.* contradicts memory-region: .*; make the region \"reusable\""),
    # What memory-region names.
    "region-phandle": ("memory-region = <0x7777>;", None, r"memory-region: names no node; write memory-region = <&LABEL>"),
    "region-empty": ("memory-region;", None, r"memory-region: names no node; write memory-region = <&LABEL>"),
    "region-two": ("memory-region = <&r0>, <&p0>;", None, r"memory-region: 2 regions; a buffer is one piece: name one region"),
    "region-elsewhere": ("memory-region = <&elsewhere>;", None, r"memory-region elsewhere: the node is not in /reserved-memory, so .*; move it there"),
    # Its node.
    "kind-none": ("", f"a0: a0 {{ reusable; {SIZE} }};", r'memory-region a0: compatible = "\(none\)"; write compatible = "shared-dma-pool"'),
    "kind-typo": ("", f'a1: a1 {{ compatible = "shared-dma-pol"; no-map; {SIZE} }};', r'memory-region a1: compatible = "shared-dma-pol"; write'),
    "kind-bounce": ("", f'a2: a2 {{ compatible = "restricted-dma-pool"; {SIZE} }};', r'memory-region a2: compatible = "restricted-dma-pool"; write'),
    "kind-both": ("", places("a3", SIZE, "reusable; no-map;"), r'memory-region a3: both "reusable" and "no-map".*; keep one of them'),
    "kind-neither": ("", places("a4", SIZE), r'memory-region a4: neither "reusable" nor "no-map"; add "reusable" for .*, or "no-map" for'),
    "kind-disabled": ("", places("a5", SIZE, 'no-map; status = "disabled";'), r'memory-region a5: its status is not "okay".*; set it so, or leave status out'),
    "default-cma": ("", places("a6", SIZE, "reusable; linux,cma-default;"), r'memory-region a6: "linux,cma-default" makes it serve every driver .*; remove'),
    "default-pool": ("", places("a7", SIZE, "no-map; linux,dma-default;"), r'memory-region a7: "linux,dma-default" makes it serve every driver .*; remove'),
    "iommu": ("iommus = <&elsewhere>;", places("a8", SIZE, "no-map;"), r'iommus contradicts memory-region a8: a "no-map" region .*; make it "reusable"'),
    # Its length.
    "length-none": ("", places("b0", "reusable;"), r"memory-region b0: neither size nor reg; give its length as size, or"),
    "length-one-cell": ("", places("b1", "size = <0x400000>; reusable;"), r"memory-region b1: size has 1 cells; write 2, the root's #size-cells"),
    "length-text": ("", places("b2", 'size = "4M!"; no-map;'), r"memory-region b2: size has 1 cells; write 2"),
    "length-zero": ("", places("b3", "size = <0 0>; reusable;"), r"memory-region b3: its length is 0; give the bytes"),
    "length-block": ("", places("b4", "size = <0 0x300000>; reusable;"), r"b4: a .* region .* page blocks of 0x200000 bytes; .* 0x300000 up to 0x400000"),
    "length-small": ("", places("b5", "size = <0 0x800>; reusable;"), r"b5: a .* region .* page blocks of 0x200000 bytes; .* 0x800 up to 0x200000"),
    # Outside memory: in it, the kernel itself may use the rest of such a page, and dies early.
    "length-pages": ("", places("b6", "no-map; reg = <0 0x10000000 0 0x800>;"), r"memory-region b6: 0x800 bytes at 0x10000000 are not whole pages of 0x1000 bytes; round"),
    "length-power": ("", region("b7", 6 * MIB, "no-map;"), r'size = 0x600000: a "no-map" region gives out powers of two, and .* holds no 0x800000; make'),
    "length-8g": ("", region("b8", 8 * GIB), r"memory-region b8: the kernel did not reserve it at boot: no 0x200000000 bytes were free .*; make it smaller"),
    # Its place.
    "place-alignment": ("", places("c0", SIZE, "reusable; alignment = <0x200000>;"), r"memory-region c0: alignment has 1 cells; write 2, the root's #address-cells"),
    "place-power": ("", places("c1", SIZE, "no-map; alignment = <0 0x300000>;"), r"memory-region c1: alignment = 0x300000: not a power of two; write one"),
    "place-ranges": ("", places("c2", SIZE, "no-map; alloc-ranges = <0x40000000 0x10000000>;"), r"c2: alloc-ranges has 2 cells, and .*; write 2 cells of address and 2"),
    "place-no-memory": ("", places("c3", SIZE, "reusable; alloc-ranges = <0 0x10000000 0 0x1000000>;"), r"c3: the kernel did not reserve it .* alloc-ranges; make it smaller"),
    "place-reg-cells": ("", "c4: c4@70000000 { compatible = \"shared-dma-pool\"; no-map; reg = <0x70000000 0x100000>; };", r"c4@70000000: reg has 2 cells; write one range, 2 cells of"),
    "place-reg-two": ("", places("c5", "no-map; reg = <0 0x70000000 0 0x100000 0 0x70200000 0 0x100000>;"), r"memory-region c5: reg has 8 cells; write one range"),
    "place-reg-zero": ("", places("c6", "no-map; reg = <0 0x70000000 0 0>;"), r"memory-region c6: its length is 0; give"),
    "place-reg-block": ("", places("c7", "reusable; reg = <0 0x70500000 0 0x200000>;"), r"memory-region c7: a .* region begins at a page block of 0x200000 bytes; round its reg of 0x70500000 to one"),
    "place-reg-page": ("", places("c8", "no-map; reg = <0 0x10001800 0 0x1000>;"), r"memory-region c8: 0x1000 bytes at 0x10001800 are not whole pages"),
    "place-kernel": ("", places("c9", "no-map; reg = <0 0x40400000 0 0x100000>;"), r"c9: the kernel uses memory between 0x40400000 and 0x40500000 itself, so .*; give reg another"),
    "overlap-low": ("", places("d0", "no-map; reg = <0 0x71000000 0 0x200000>;"), r"d0: 0x71000000 to 0x71200000 overlaps region d1 at 0x71100000 to 0x71300000, and .*; give each"),
    "overlap-high": ("", places("d1", "no-map; reg = <0 0x71100000 0 0x200000>;"), r"d1: 0x71100000 to 0x71300000 overlaps region d0 at 0x71000000 to 0x71200000, and"),
    # Of firmware, which has no driver that would notice.
    "overlap-inner": ("", places("d2", "no-map; reg = <0 0x72000000 0 0x400000>;"), r"d2: 0x72000000 to 0x72400000 overlaps region firmware at 0x72100000 to 0x72101000"),
}
# On a bus that reaches only a part of memory, by the dma-ranges of FAR.
UNREACHED = {
    "far-cma": (places("e0", SIZE, "reusable; alloc-ranges = <0 0x60000000 0 0x10000000>;"), r"e0: 0x6\w{7} to 0x6\w{7} is beyond what the bus .* \(dma-ranges\); confine the"),
    "far-pool": (places("e1", SIZE, "no-map; alloc-ranges = <0 0x60000000 0 0x10000000>;"), r"memory-region e1: .* is beyond what the bus above the device reaches"),
}
# Two devices that want the same: the second is refused, and told who the first is.
PAIRS = {
    # So much the page allocator has elsewhere, which would not do.
    "small": ("memory-region = <&f0>;", region("f0", 4 * MIB), r"size = 0x400000: 0x400000 of the memory-region's 0x400000 bytes are taken by {other}; give each device"),
    "large": ("memory-region = <&f1>;", region("f1", 64 * MIB), r"size = 0x4000000: 0x4000000 of the memory-region's 0x4000000 bytes are taken by {other}; give"),
    "pool": ("memory-region = <&f2>;", region("f2", 4 * MIB, "no-map;"), r"size = 0x400000: the memory-region of 0x400000 bytes has no such piece free, since {other} uses it"),
    "label": ('label = "twice"; size = <0 0x1000>;', None, r'label = "twice": device {other} has it already; give each buffer a label of its own'),
}


def own_region(source, properties):
    return f"memory-region = <&{source.split(':')[0]}>; {properties}" if source else properties


def cma_areas():
    return int(re.search(r"^CONFIG_CMA_AREAS=(\d+)", (TOP / "meta-mydrv/recipes-kernel/linux/files/mydrv.cfg").read_text(), re.M)[1])


def wrong_tree():
    """An overlay with every device that is to be refused, and beside them some that are right; for each of the former, its line."""
    sources = [source for _, source, _ in [*REFUSED.values(), *PAIRS.values()] if source] + [source for source, _ in UNREACHED.values()]
    # What the kernel makes a CMA region of, by the last of its log; as many more as it keeps, and one more, with reg: those come last.
    made = [source for source in sources if "reusable" in source and "no-map" not in source and not re.search(r"\b(a0|a2|b[0-58]|c[037]):", source)]
    filler = [region(f"fill{i}", 2 * MIB) for i in range(cma_areas() - len(made) - 1)]
    sources += [*filler, places("more", "reusable; reg = <0 0x73000000 0 0x200000>;"), "firmware { no-map; reg = <0 0x72100000 0 0x1000>; };"]
    nodes = [buffer(f"mydrv-{name}", own_region(source, properties)) for name, (properties, source, _) in REFUSED.items()]
    nodes += [buffer("mydrv-more", "memory-region = <&more>;"), f"elsewhere: elsewhere {{ {SIZE} #iommu-cells = <0>; }};"]
    far = [buffer(f"mydrv-{name}", own_region(source, "")) for name, (source, _) in UNREACHED.items()]
    nodes.append(
        'bus { compatible = "simple-bus"; #address-cells = <2>; #size-cells = <2>; ranges; dma-ranges = <0 0 0 0x40000000 0 0x20000000>; '
        f'{" ".join(far)} }};'
    )
    nodes += [buffer(f"mydrv-{name}-{i}", properties) for name, (properties, _, _) in PAIRS.items() for i in (0, 1)]
    # These take the whole of the regions that refused devices named.
    nodes += [buffer(f"mydrv-right-{name}", f"memory-region = <&{name}>;") for name in ("r0", "p0")]
    expected = {f"mydrv-{name}": line for name, (_, _, line) in REFUSED.items()}
    expected |= {f"bus:mydrv-{name}": line for name, (_, line) in UNREACHED.items()}
    expected["mydrv-more"] = rf"memory-region more: the kernel keeps only {cma_areas()} .* regions, and this is one more; .* larger CONFIG_CMA_AREAS"
    return overlay(*nodes, regions=sources), expected


def test_every_wrong_property_is_refused_by_one_line(boot):
    """All in one tree: each device is refused by its own line, and the regions of the refused are free for a device that is right."""
    tree, expected = wrong_tree()
    guest = boot(tree)
    told = {}
    for device, text in errors(guest):
        told.setdefault(device, []).append(text)
    for name, (_, _, line) in PAIRS.items():
        pair = [f"mydrv-{name}-{i}" for i in (0, 1)]
        second = next((device for device in pair if device in told), None)
        assert second, f"neither of two was refused: {name}"
        pair.remove(second)
        expected[second] = line.format(other=pair[0])
        # It gets its turn once the first is gone, which then is the one too many.
        guest.run(f"cd /sys/bus/platform/drivers/mydrv && echo {pair[0]} >unbind && echo {second} >bind")
        assert guest.status(f"echo {pair[0]} >/sys/bus/platform/drivers/mydrv/bind") != 0
    wrong = [f"{device}: {told.get(device)}" for device, line in expected.items() if len(told.get(device, [])) != 1 or not re.search(line, told[device][0])]
    assert not wrong, "\n".join(wrong)
    assert set(told) == set(expected)
    log = guest.kernel_log()
    for name in ("r0", "p0"):
        assert re.search(rf"mydrv mydrv-right-{name}: /dev/mydrv\d+: 4096 KiB", log), log
    # Refused again, without leaving anything behind: were a region's memory kept, the device that is right could not be bound again.
    for name in ("mode-unknown", "label-empty", "overlap-low"):
        assert guest.status(f"echo mydrv-{name} >/sys/bus/platform/drivers/mydrv/bind") != 0
    for name in ("r0", "p0"):
        guest.run(f"cd /sys/bus/platform/drivers/mydrv && echo mydrv-right-{name} >unbind && echo mydrv-right-{name} >bind")


PINS = """pipe my $r, my $w; my $pages = "x" x 65536; my $iovec = pack("PQ", $pages, 65536);
syscall(75, fileno $w, $iovec, 1, 0) > 0 or die "vmsplice: $!"; $| = 1; print "pinned\\n"; sleep 600"""


def pytest_generate_tests(metafunc):
    if "run" in metafunc.fixturenames:
        none = pytest.param(0, marks=pytest.mark.skip(reason="many boots, by hand: bench/test release -k large_region_binds --boots 20"))
        metafunc.parametrize("run", range(metafunc.config.getoption("boots")) or [none])


@pytest.mark.parametrize("size", [512, 768])
def test_large_region_binds_at_each_boot(boot, size, run):
    """Half and three quarters of the memory, however the boot went."""
    guest = boot(*one(WITH_CMA, region("cma", size * MIB)), product=False)
    told = re.findall(r"mydrv mydrv-wrong: (.*)", guest.kernel_log())
    assert re.match(rf"/dev/mydrv0: {size * 1024} KiB", told[-1]), told


def test_region_of_three_quarters_of_the_memory(boot):
    """It binds at boot, before much is lent. Later, pages that a program holds keep it from binding, as long as the program does."""
    guest = boot(*one(WITH_CMA, region("cma", 768 * MIB)), product=False)
    device = "mydrv-wrong"
    assert re.search(rf"mydrv {device}: /dev/mydrv0: 786432 KiB", guest.kernel_log())
    assert guest.run("systemctl show -P Result systemd-modules-load.service") == "success"
    guest.run(f"echo {device} >/sys/bus/platform/drivers/mydrv/unbind")
    # vmsplice() of memory that the kernel then takes from the region first, since most of what is free is there.
    guest.run(f"perl -e {shlex.quote(PINS)} >/run/pinned 2>&1 & echo $! >/run/pinner; for i in $(seq 50); do grep -q pinned /run/pinned && break; sleep 0.1; done")
    guest.run("grep -q pinned /run/pinned")
    seen = len(errors(guest))
    # A signal ends the waiting for such pages.
    # Meanwhile sysfs shows that the device is being probed.
    probing = f"test -e /sys/bus/platform/devices/{device}/driver && ! ls -d /sys/class/misc/mydrv*"
    guest.run(f"(sleep 2; {probing} && touch /run/probing) >/dev/null 2>&1 &")
    assert guest.status(f"timeout 5 sh -c 'echo {device} >/sys/bus/platform/drivers/mydrv/bind'") != 0
    guest.run(f"test -e /run/probing; test ! -e /sys/bus/platform/devices/{device}/driver")
    told = [text for _, text in errors(guest)[seen:]]
    assert re.search(r"some lent pages cannot be moved out of it yet; trying for a minute", told[0]), told
    assert re.search(r"memory-region: 0x\w+ of its 0x30000000 bytes are lent pages, .*; load mydrv before .* or make the region .no-map.", told[1]), told
    assert len(told) == 2
    guest.run(f"kill $(cat /run/pinner); echo {device} >/sys/bus/platform/drivers/mydrv/bind", timeout=120)
    # What is dirty, or held by the file system's journal, is written back and dropped for it by 60-mydrv.rules.
    lend = "for i in $(seq 600); do echo $i >/var/tmp/$r-$i; done; find / -xdev -type f -size -200k | head -2500 | xargs cat"
    bind = f"cd /sys/bus/platform/drivers/mydrv; echo {device} >unbind; ({lend}) >/dev/null 2>&1; echo {device} >bind"
    guest.run(f"for r in 1 2 3; do {bind} || exit 1; done", timeout=240)
