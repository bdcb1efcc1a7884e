# SPDX-License-Identifier: MIT
"""Updates that must not be kept: images of the good one with one thing broken, as the function's name says."""

import re
import struct
import subprocess

import guest
from device import OTA, changed

GOOD = OTA / "1.1.0.ext4"
OVERLAY = "/boot/devicetree/mydrv.dtbo"
MIB = 1 << 20
# What the broken ones call themselves.
VERSION = "1.2.0"


def read(path):
    """A file of the good image."""
    return subprocess.run(["debugfs", "-R", f"cat {path}", GOOD], capture_output=True, check=True).stdout


def module():
    """Where the driver's module is."""
    root = OTA / "root"
    return "/" + str(next((root / "usr/lib/modules").rglob("mydrv.ko")).relative_to(root))


def image(folder, name, *commands):
    """The good image after some of debugfs's commands, with the broken ones' version."""
    release = folder / f"{name}.release"
    release.write_bytes(re.sub(rb"IMAGE_VERSION=.*", f"IMAGE_VERSION={VERSION}".encode(), read("/usr/lib/os-release")))
    path = changed(GOOD, folder / f"{name}.ext4", *commands, "cd /usr/lib", "rm os-release", f"write {release} os-release")
    release.unlink()
    return path


def replaced(folder, name, target, content, mode=0o100644):
    source = folder / f"{name}.new"
    source.write_bytes(content)
    parent, _, base = target.rpartition("/")
    commands = [f"rm {target}", f"cd {parent}", f"write {source} {base}", f"sif {base} mode 0{mode:o}"]
    return image(folder, name, *commands)


def overlay(folder, name, source):
    done = subprocess.run(["dtc", "-q", "-@", "-I", "dts", "-O", "dtb"], input=source.encode(), capture_output=True, check=True)
    return replaced(folder, name, OVERLAY, done.stdout)


def overlay_missing(folder):
    return image(folder, "no-overlay", f"rm {OVERLAY}")


def overlay_without_region(folder):
    return overlay(folder, "no-region", guest.overlay(guest.buffer("mydrv-buffer", 'label = "buffer0";')))


def overlay_of_wrong_size(folder):
    node = guest.buffer("mydrv-buffer", 'memory-region = <&mydrv_cma>; label = "buffer0";')
    return overlay(folder, "wrong-size", guest.overlay(node, regions=[guest.region("mydrv_cma", 32 * MIB)]))


def module_of_another_kernel(folder):
    content = read(module())
    at = content.index(b"vermagic=") + len(b"vermagic=")
    other = content[:at] + b"0" + content[at + 1 :]
    return replaced(folder, "vermagic", module(), other)


def module_missing(folder):
    return image(folder, "no-module", f"rm {module()}")


def cli_that_fails(folder):
    return replaced(folder, "cli", "/usr/bin/mydrvctl", b"#!/bin/sh\nexit 1\n", 0o100755)


def kernel_that_panics(folder):
    """By a unit, as early as there are units; a device needs no more than that from an update to be lost."""
    unit = folder / "panic.service"
    unit.write_text(
        "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n"
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo c >/proc/sysrq-trigger'\n"
    )
    units = "/usr/lib/systemd/system"
    commands = [f"cd {units}", f"write {unit} panic.service", "cd sysinit.target.wants", "symlink panic.service ../panic.service"]
    return image(folder, "panic", *commands)


def kernel_that_hangs(folder):
    """An arm64 kernel image (Documentation/arch/arm64/booting.rst) that branches to itself."""
    image = struct.pack("<IIQQQQQQ4sI", 0x14000000, 0, 0, 64 * 1024, 0xA, 0, 0, 0, b"ARM\x64", 0)
    return replaced(folder, "hang", "/boot/Image", image.ljust(64 * 1024, b"\0"))


def root_that_does_not_mount(folder):
    """A superblock with a feature that no kernel knows: U-Boot reads the files all the same."""
    path = image(folder, "no-mount")
    with path.open("r+b") as file:
        file.seek(1024 + 0x60)
        features = struct.unpack("<I", file.read(4))[0]
        file.seek(1024 + 0x60)
        file.write(struct.pack("<I", features | 1 << 30))
    return path


def check_disabled(folder):
    return image(folder, "disabled", "rm /etc/systemd/system/boot-complete.target.requires/mydrv-validate.service")


def data_that_does_not_mount(folder):
    unit = "/usr/lib/systemd/system/data.mount"
    return replaced(folder, "no-data", unit, read(unit).replace(b"Type=ext4", b"Type=vfat"))


def application_first(folder):
    """Not broken: a program has the buffer before it can be checked, and keeps it."""
    units = "/usr/lib/systemd/system"
    unit, order = folder / "application.service", folder / "order.conf"
    unit.write_text(
        "[Unit]\nBindsTo=dev-mydrv0.device\nAfter=dev-mydrv0.device\n"
        "[Service]\nType=forking\nExecStart=/bin/sh -c 'exec 9</dev/mydrv0; sleep infinity &'\n"
    )
    order.write_text("[Unit]\nWants=application.service\nAfter=application.service\n[Service]\nEnvironment=MYDRV_WAIT=5\n")
    commands = [f"cd {units}", f"write {unit} application.service", "cd mydrv-validate@.service.d", f"write {order} order.conf"]
    return image(folder, "application", *commands)


# Each with what the record must say.
BROKEN = {
    overlay_missing: r"check \d+ device-tree: .*overlay missing",
    overlay_without_region: r"check \d+ driver",
    overlay_of_wrong_size: r"check \d+ \S+ .*32 MiB",
    module_of_another_kernel: r"check \d+ driver",
    module_missing: r"check \d+ driver",
    cli_that_fails: r"Result=exit-code ExecMainStatus=1",
    kernel_that_panics: r"it panicked or restarted",
    kernel_that_hangs: r"the watchdog ended it",
    root_that_does_not_mount: r"never got as far .* it panicked or restarted",
    data_that_does_not_mount: r"never got as far as to mount the data partition",
    check_disabled: r"mydrv-validate\.service is disabled",
}
