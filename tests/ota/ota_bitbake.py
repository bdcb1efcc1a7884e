# SPDX-License-Identifier: MIT
"""The bundle that bitbake made (make yocto): a device installs it like the bench's own."""

import shutil

import pytest
from device import TOP

BUNDLE = TOP / "build/yocto/build-update/tmp/deploy/images/qemuarm64/mydrv-bundle-qemuarm64.raucb"


def test_bundle_of_bitbake(new_device, bundles, server):
    if not BUNDLE.exists():
        pytest.skip("no bundle that bitbake made: make yocto makes and installs it")
    shutil.copy(BUNDLE, bundles / "bitbake.raucb")
    device = new_device()
    device.on()
    assert device.good() == (("A", "1.0.0"), [])
    device.login()
    device.network()
    output, status, _ = device.install(server.url("bitbake.raucb"))
    assert status == 0, output
    device.reboot()
    assert device.good() == (("B", "1.1.0"), [])
