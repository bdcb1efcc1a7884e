# SPDX-License-Identifier: MIT
"""Updates that are installed and turn out to be broken: each ends in the previous version, running and good, with the reason recorded."""

import os
import re

import pytest
import updates
from device import bundle


@pytest.mark.parametrize("broken", updates.BROKEN, ids=lambda broken: broken.__name__)
def test_broken_update_is_given_up(device, bundles, server, broken):
    image = broken(bundles)
    bundle(updates.VERSION, image, bundles / "broken.raucb")
    image.unlink()
    output, status, _ = device.install(server.url("broken.raucb"))
    assert status == 0, output
    device.reboot()
    assert device.good() == (("A", "1.0.0"), ["B"] * int(os.environ["LG_TRIES"]))
    device.login()
    device.network()
    status = device.status()
    assert (status["slot"], status["state"], status["version"]) == ("A", "good", "1.0.0")
    assert status["validation"]["verdict"] == "pass"
    assert status["slots"][1]["bootable"] is False
    fallback = status["fallback"]
    print(f"recorded: {fallback['reason']}")
    assert (fallback["from"], fallback["to"]) == ("B", "A")
    assert re.search(updates.BROKEN[broken], fallback["reason"])
    assert device.environment()["BOOT_B_LEFT"] == "0"
