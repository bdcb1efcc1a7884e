# SPDX-License-Identifier: MIT
"""What bitbake made (make yocto): a device with that U-Boot installs that bundle like the bench's own."""

import shutil

import pytest
from device import TOP

IMAGES = TOP / "build/yocto/build-update/tmp/deploy/images/qemuarm64"
BUNDLE = IMAGES / "mydrv-bundle-qemuarm64.raucb"


def test_update_by_bitbake(new_device, bundles, server):
    if not BUNDLE.exists():
        pytest.skip("no bundle that bitbake made: make yocto makes and installs it")
    shutil.copy(BUNDLE, bundles / "bitbake.raucb")
    device = new_device(boot_loader=IMAGES / "u-boot.bin")
    device.on()
    assert device.good() == (("A", "1.0.0"), [])
    device.login()
    device.network()
    output, status, _ = device.install(server.url("bitbake.raucb"))
    assert status == 0, output
    device.reboot()
    assert device.good() == (("B", "1.1.0"), [])
