# SPDX-License-Identifier: MIT
"""Good updates: what is kept and what changes; updates in a row; installing under load; the policy for slots that were good."""

import hashlib
import os
import shutil
import subprocess

import updates
from device import OTA, TOP, bundle, changed


def digest(content):
    return hashlib.sha256(content).hexdigest()


def start(device):
    device.on()
    assert device.good() == (("A", "1.0.0"), [])
    device.login()
    device.network()


def test_update(new_device, bundles, server):
    """1.0.0 to 1.1.0: the other slot, good; the data partition untouched; then back to A by the next update."""
    shutil.copy(OTA / "1.1.0.raucb", bundles)
    device = new_device()
    start(device)
    device.run("head -c 1M /dev/urandom >/data/application; sync")
    before = device.run("sha256sum /data/application")
    output, status, seconds = device.install(server.url("1.1.0.raucb"))
    assert status == 0, output
    print(f"installed in {seconds:.0f} s; bundle {(bundles / '1.1.0.raucb').stat().st_size} bytes")
    assert device.environment()["BOOT_ORDER"] == "B A"
    status = device.status()
    assert (status["slot"], status["version"], status["slots"][1]["state"]) == ("A", "1.0.0", "trial")
    device.reboot()
    assert device.good() == (("B", "1.1.0"), [])
    device.login()
    assert device.run("sha256sum /data/application") == before
    status = device.status()
    assert (status["slot"], status["state"], status["version"], status["fallback"]) == ("B", "good", "1.1.0", None)
    assert status["validation"]["verdict"] == "pass"
    assert status["slots"][1]["bootable"] is True
    assert device.environment()["BOOT_ORDER"] == "B A"

    # Once good, a failing check is reported, and nothing restarts: there is nothing better to return to.
    device.run("echo MYDRV_EXPECT=buffer0=32M >>/etc/default/mydrv; sync")
    device.reboot()
    assert device.settled() == ("B", "1.1.0", "failed")
    device.login()
    idle = "for i in $(seq 60); do systemctl list-jobs | grep -q 'No jobs' && break; sleep 1; done"
    device.run(idle)
    assert device.execute("systemctl is-active boot-complete.target")[1] != 0
    # As another updater may ask (docs/ota.md).
    device.run(f"! systemctl start boot-complete.target && {idle}")
    status = device.status()
    assert (status["slot"], status["state"], status["validation"]["verdict"]) == ("B", "good", "fail")
    assert "size" in status["slots"][1]["last_boot"]["reason"]
    device.run("sed -i '$d' /etc/default/mydrv; sync")
    device.reboot()
    assert device.good() == (("B", "1.1.0"), [])


def test_two_updates_in_a_row(device, bundles, server):
    """Without a restart between them: the second one counts."""
    shutil.copy(OTA / "1.1.0.raucb", bundles)
    image = changed(updates.GOOD, bundles / "1.1.1.ext4", "cd /", f"write {__file__} second-update")
    bundle("1.1.1", image, bundles / "1.1.1.raucb")
    for version in "1.1.0", "1.1.1":
        output, status, _ = device.install(server.url(f"{version}.raucb"))
        assert status == 0, output
    device.reboot()
    assert device.good()[0] == ("B", "1.1.0")
    device.login()
    assert device.execute("test -e /second-update")[1] == 0
    # Back to where the other tests begin: by hand, as docs/ota.md has it.
    device.run("rauc status mark-active other")
    device.reboot()
    assert device.good()[0] == ("A", "1.0.0")
    device.login()
    device.network()
    image.unlink()


def test_application_that_has_the_buffer_first(device, bundles, server):
    """The boot is neither good nor bad: no restart, and the attempt that it cost is given back. Once the buffer is free, the slot is good."""
    image = updates.application_first(bundles)
    bundle(updates.VERSION, image, bundles / "application.raucb")
    image.unlink()
    output, status, _ = device.install(server.url("application.raucb"))
    assert status == 0, output
    device.reboot()
    assert device.settled() == ("B", updates.VERSION, "in-use")
    device.login()
    assert device.environment()["BOOT_B_LEFT"] == os.environ["LG_TRIES"]
    status = device.status()
    assert (status["slot"], status["state"], status["validation"]["verdict"]) == ("B", "trial", "in-use")
    last = status["slots"][1]["last_boot"]
    assert last["outcome"] == "in-use" and "/dev/mydrv0: in use by" in last["reason"], last
    # As docs/ota.md has it.
    device.run("systemctl stop application.service; systemctl restart mydrv-validate.service && systemctl start rauc-mark-good.service")
    assert device.status()["state"] == "good"
    device.run("rauc status mark-active other")
    device.reboot()
    assert device.good()[0] == ("A", "1.0.0")
    device.login()
    device.network()


def test_installing_while_mapped(device, bundles, server):
    """Applications keep their mappings and their data until the restart: one that has the buffer mapped all the time and works in it, with a device
    that does DMA."""
    shutil.copy(OTA / "1.1.0.raucb", bundles)
    # Each round takes 0.2 s, so that it outlasts the installation. It ends with an error where mapping and device differ.
    device.run("(mydrvctl dma-loop --rounds 200 >/run/dma-loop 2>&1; echo $? >/run/dma-loop.status) &")
    held = "grep -c /dev/mydrv0 /proc/$(pidof mydrvctl)/maps; stat --format %Y /proc/$(pidof mydrvctl)"
    before = device.run(held)
    output, status, seconds = device.install(server.url("1.1.0.raucb"))
    assert status == 0, output
    assert device.run(held) == before
    device.run("until [ -e /run/dma-loop.status ]; do sleep 1; done", timeout=300)
    print(f"installed in {seconds:.0f} s beside: {device.run('cat /run/dma-loop')}")
    assert device.run("cat /run/dma-loop.status") == "0"
    device.run("rm /run/dma-loop*; rauc status mark-bad other")


def test_same_inputs_same_payload(bundles):
    """The image and the bundle's payload, made again; only signature and verity's salt differ."""
    image, again = bundles / "again.ext4", bundles / "again.raucb"
    made = subprocess.run([TOP / "bench/ota/image", "1.1.0", image], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert digest(image.read_bytes()) == digest(updates.GOOD.read_bytes())
    bundle("1.1.0", image, again)
    first, second = (OTA / "1.1.0.raucb").read_bytes(), again.read_bytes()
    # squashfs: bytes_used, at 40, says where the payload ends.
    used = int.from_bytes(first[40:48], "little")
    assert digest(first[:used]) == digest(second[:used])
    print(f"payload {used} bytes of {len(first)}, image {updates.GOOD.stat().st_size}")
    image.unlink()
    again.unlink()


def test_adaptive_update_transfers_little(device, bundles, server):
    """A small change of what runs: a small part of the bundle is read."""
    current = changed(OTA / "1.0.0.ext4", bundles / "small.ext4", "cd /usr/share", f"write {__file__} small-change")
    path = bundle("1.0.1", current, bundles / "small.raucb")
    size = path.stat().st_size
    server.sent = 0
    output, status, seconds = device.install(server.url("small.raucb"))
    assert status == 0, output
    print(f"read {server.sent} of {size} bytes ({100 * server.sent / size:.0f} %) in {seconds:.0f} s")
    assert server.sent < size / 4
    device.run("rauc status mark-bad other")
    current.unlink()
