# SPDX-License-Identifier: MIT
"""make ota-demo: the story of a good update and of a broken one, told as it happens. Exit status 0 only if it ends as it should."""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import updates
from device import OTA, Device, Server, bundle

BEGAN = time.monotonic()


def tell(text, detail=""):
    print(f"  {time.monotonic() - BEGAN:5.0f} s  {text}", flush=True)
    for line in detail.splitlines():
        print(f"             {line}", flush=True)


def show(device, command):
    tell(f"# {command}", device.run(command))


def expect(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: expected {wanted}, found {found}")
    tell(what)


def boots(device):
    """Tells of each boot until one is good, and returns that one's slot and version."""
    for slot, *told in device.boots():
        if len(told) == 1:
            tell(f"U-Boot chooses slot {slot}; attempts left: {told[0]}")
    tell(f"slot {slot}, {told[0]}: good")
    return slot, told[0]


def story(folder):
    device, server = Device(folder, OTA.parent / "log/ota-console.log"), Server(folder)
    try:
        shutil.copy(OTA / "1.1.0.raucb", folder)
        tell("making the broken update 1.2.0: its overlay forgot the memory region")
        bundle(updates.VERSION, updates.overlay_without_region(folder), folder / "1.2.0.raucb")

        tell("power on; U-Boot finds no environment and starts with its own")
        device.on()
        expect(boots(device), ("A", "1.0.0"), "the factory's version is validated and marked as good")
        device.login()
        device.network()
        device.run("echo kept >/data/application; sync")

        output, status, seconds = device.install(server.url("1.1.0.raucb"))
        expect(status, 0, f"1.1.0 installed over the running system, by HTTP, in {seconds:.0f} s")
        show(device, "fw_printenv BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT")
        device.reboot()
        expect(boots(device), ("B", "1.1.0"), "the update is validated and marked as good")
        device.login()
        show(device, "mydrvctl status")
        expect(device.run("cat /data/application"), "kept", "the data partition is as it was")

        device.network()
        output, status, seconds = device.install(server.url("1.2.0.raucb"))
        expect(status, 0, f"the broken 1.2.0 installed in {seconds:.0f} s: nothing can tell by its looks")
        device.reboot()
        expect(boots(device), ("B", "1.1.0"), "returned by itself to what worked")
        device.login()
        show(device, "mydrvctl status")
        expect(device.run("systemctl is-active boot-complete.target mydrv-validate.service"), "active\nactive", "check and boot-complete.target: active")
        expect(device.run("cat /data/application"), "kept", "the data partition is as it was")
    finally:
        device.off()
        server.close()


def main():
    # QEMU's remarks on its watchdog belong to the log.
    os.dup2(os.open(OTA.parent / "log/ota-qemu.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    with tempfile.TemporaryDirectory(dir=OTA, prefix="demo-") as folder:
        try:
            story(Path(folder))
        except Exception as error:
            print(f"\nota-demo: FAILED: {type(error).__name__}: {error}\n    the console: build/log/ota-console.log")
            sys.exit(1)
    print(f"\nota-demo: passed in {time.monotonic() - BEGAN:.0f} s: a good update was kept, a broken one was given up and left its reason")


main()
