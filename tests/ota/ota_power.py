# SPDX-License-Identifier: MIT
"""What becomes of a lost environment, and of power cuts at random moments of an installation and of the first boot of the new slot."""

import contextlib
import os
import random
import shutil
import time

import pexpect
import pytest
from device import OTA, Device

# How far after the usual end of an installation or a boot the power may still go.
MARGIN = 1.2


def up(device):
    """Switched on, it comes to a version that validates, by itself: its slot and version, and the slots that were tried before."""
    device.on()
    came = device.good()
    device.login()
    device.network()
    return came


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
    assert up(device) == (("B", "1.1.0"), ["A"] * int(os.environ["LG_TRIES"]))
    assert device.environment()["BOOT_ORDER"] == "A B"


def pytest_generate_tests(metafunc):
    if "cut" in metafunc.fixturenames:
        first = metafunc.config.getoption("seed")
        metafunc.parametrize("cut", range(first, first + metafunc.config.getoption("cuts")), ids=lambda seed: f"seed-{seed}")


class Survivor:
    """The device that all cuts hit, one after the other: what one leaves behind, the next one meets. Between them it runs, with an update installed."""

    def __init__(self, folder, url):
        self.folder, self.url = folder, url
        self.device, self.well = None, False

    def ready(self):
        """The device; after a failure a new one."""
        if not self.well:
            self.drop()
            self.folder.mkdir(parents=True)
            self.device = Device(self.folder, OTA.parent / "log/ota-power.log")
            self.recover()
        self.well = False
        return self.device

    def recover(self):
        """It comes up by itself, and takes an update."""
        began = time.monotonic()
        (self.slot, self.version), self.tried = up(self.device)
        self.boot_seconds = time.monotonic() - began
        output, status, self.install_seconds = self.device.install(self.url)
        assert status == 0, output
        self.well = True

    def drop(self):
        if self.device:
            self.device.off()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def survivor(bundles, server):
    shutil.copy(OTA / "1.1.0.raucb", bundles)
    survivor = Survivor(OTA / "devices/survivor", server.url("1.1.0.raucb"))
    yield survivor
    survivor.drop()


def test_power_cut(survivor, cut):
    """While installing (even seeds), or in the first boot of the new slot (odd ones)."""
    device, choose = survivor.ready(), random.Random(cut)
    if cut % 2:
        what, usual = "first boot", survivor.boot_seconds
        device.reboot()
        device.expect("U-Boot 20", 120)
    else:
        what, usual = "installation", survivor.install_seconds
        # What is there already would not be written again: something else is.
        other = "B" if survivor.slot == "A" else "A"
        device.run(f"rauc status mark-bad other; head -c 64M /dev/zero >/dev/disk/by-partlabel/rootfs-{other}; sync")
        device.qemu.sendline(f"rauc install {survivor.url}")
        device.target.deactivate(device.shell)
    moment = choose.uniform(0, usual * MARGIN)
    # Reading keeps the emulator's serial line from filling up.
    ends = time.monotonic() + moment
    while time.monotonic() < ends:
        with contextlib.suppress(pexpect.TIMEOUT):
            device.expect("no such line will come", timeout=max(0.01, ends - time.monotonic()))
    device.off()
    survivor.recover()
    print(f"seed {cut}: cut {moment:.1f} s into the {what}; slot {survivor.slot}, {survivor.version}, good after {survivor.boot_seconds:.0f} s,"
          f" tried before: {survivor.tried or 'none'}; installed anew in {survivor.install_seconds:.0f} s")


def test_update_after_power_cuts(survivor):
    device = survivor.ready()
    device.reboot()
    assert device.good() == (("B" if survivor.slot == "A" else "A", "1.1.0"), [])
