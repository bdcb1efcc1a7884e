# SPDX-License-Identifier: MIT
"""Power cuts at random moments of an installation and of the first boot of the new slot, and what becomes of a lost environment."""

import contextlib
import random
import shutil
import time

import pexpect
import pytest
from device import OTA, Device

# How far after the usual end of an installation or a boot the power may still go.
MARGIN = 1.2


@pytest.fixture(scope="module")
def timing():
    return {}


def pytest_generate_tests(metafunc):
    if "cut" in metafunc.fixturenames:
        first = metafunc.config.getoption("seed")
        metafunc.parametrize("cut", range(first, first + metafunc.config.getoption("cuts")), ids=lambda seed: f"seed-{seed}")


@pytest.fixture(scope="module")
def survivor(bundles):
    """The device that all cuts hit, one after the other: what one leaves behind, the next one meets."""
    shutil.copy(OTA / "1.1.0.raucb", bundles)
    folder = OTA / "devices/survivor"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    device = Device(folder, OTA.parent / "log/ota-power.log")
    yield device
    device.off()
    shutil.rmtree(folder)


def up(device):
    """Switched on, it comes to a version that validates, by itself."""
    device.on()
    slot, failed = device.good()
    assert not failed, f"slots that were not good: {failed}"
    device.login()
    device.network()
    return slot


def test_power_cut(survivor, server, timing, cut):
    """The power goes at a random moment: while installing (even seeds), or in the first boot of the new slot (odd ones). That a new installation works
    is what the next cut begins with, and the last test."""
    choose = random.Random(cut)
    if not survivor.qemu.status:
        up(survivor)
    if cut % 2:
        install(survivor, server, timing)
        survivor.reboot()
        moment = choose.uniform(0, timing.get("boot", 30) * MARGIN)
        what = "first boot"
    else:
        survivor.qemu.sendline(f"rauc install {server.url('1.1.0.raucb')}")
        survivor.target.deactivate(survivor.shell)
        moment = choose.uniform(0, timing.get("install", 20) * MARGIN)
        what = "installation"
    # Reading keeps the emulator's serial line from filling up.
    ends = time.monotonic() + moment
    while time.monotonic() < ends:
        with contextlib.suppress(pexpect.TIMEOUT):
            survivor.expect("no such line will come", timeout=max(0.01, ends - time.monotonic()))
    survivor.off()
    before = time.monotonic()
    slot, version = up(survivor)
    timing["boot"] = time.monotonic() - before
    print(f"seed {cut}: cut {moment:.1f} s into the {what}; came up in slot {slot}, {version}, after {timing['boot']:.0f} s")


def install(device, server, timing):
    output, status, timing["install"] = device.install(server.url("1.1.0.raucb"))
    assert status == 0, output


def test_update_after_power_cuts(survivor, server, timing):
    if not survivor.qemu.status:
        up(survivor)
    slot = survivor.status()["slot"]
    install(survivor, server, timing)
    survivor.reboot()
    assert survivor.good() == (("B" if slot == "A" else "A", "1.1.0"), [])


@pytest.mark.parametrize("damage", ["erased", "half-written", "garbage"])
def test_lost_environment(new_device, bundles, server, damage):
    """U-Boot starts with its own, clean one and boots a good slot, even if the one that it would try first is not."""
    shutil.copy(OTA / "1.1.0.raucb", bundles)
    device = new_device()
    up(device)
    output, status, _ = device.install(server.url("1.1.0.raucb"))
    assert status == 0, output
    device.reboot()
    assert device.good() == (("B", "1.1.0"), [])
    device.login()
    # Slot A, U-Boot's first choice, is what an interrupted installation leaves behind.
    device.run("head -c 32M /dev/urandom | dd of=/dev/disk/by-partlabel/rootfs-A conv=notrunc bs=1M status=none; sync", timeout=300)
    device.off()
    sector = 256 << 10
    content = bytearray(device.flash.read_bytes())
    if damage == "erased":
        content[:sector] = b"\xff" * sector
    elif damage == "half-written":
        content[1000:sector] = b"\xff" * (sector - 1000)
    else:
        content[:sector] = random.Random(1).randbytes(sector)
    device.flash.write_bytes(content)
    assert up(device) == ("B", "1.1.0")
    assert device.environment()["BOOT_ORDER"] == "A B"
