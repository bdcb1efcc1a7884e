# SPDX-License-Identifier: MIT
"""Bundles that must be refused before anything is written: from a file, as from a USB stick."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from device import OTA, bundle

WORK = OTA / "refused"


def openssl(*arguments):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, cwd=WORK)
    assert done.returncode == 0, done.stderr


def certificate(name, authority, *options, purpose="codeSigning"):
    """A signer's certificate and key."""
    (WORK / "ext").write_text(f"basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=critical,{purpose}\n")
    openssl("req", "-new", "-newkey", "rsa:3072", "-noenc", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.cert.pem", "-CAkey", f"{authority}.key.pem", "-out", f"{name}.pem",
            "-extfile", "ext", *options)
    return WORK / f"{name}.pem", WORK / f"{name}.key"


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def make(keys):
    """The bundles, in a folder: name, and what RAUC must say."""
    folder = WORK / "media"
    folder.mkdir()
    good = (OTA / "1.1.0.raucb").read_bytes()
    signature = int.from_bytes(good[-8:], "big")
    payload = len(good) - 8 - signature
    used = int.from_bytes(good[40:48], "little")
    shutil.copy(keys / "ca.cert.pem", WORK / "ours.cert.pem")
    shutil.copy(keys / "ca.key.pem", WORK / "ours.key.pem")
    openssl("req", "-x509", "-newkey", "rsa:3072", "-noenc", "-keyout", "theirs.key.pem", "-out", "theirs.cert.pem", "-subj", "/CN=theirs")
    (folder / "unsigned").write_bytes(good[:payload])
    (folder / "truncated").write_bytes(good[: len(good) * 2 // 3])
    (folder / "flipped-in-payload").write_bytes(flipped(good, used // 2))
    (folder / "flipped-in-hash-tree").write_bytes(flipped(good, (used + payload) // 2))
    (folder / "flipped-in-signature").write_bytes(flipped(good, payload + signature // 2))
    small = WORK / "small.ext4"
    small.write_bytes(os.urandom(1 << 20))
    bundle("1.1.0", small, folder / "wrongly-signed", "mydrv-qemuarm64", *certificate("wrong", "theirs"))
    expired = certificate("expired", "ours", "-not_before", "20200101000000Z", "-not_after", "20210101000000Z")
    bundle("1.1.0", small, folder / "expired", "mydrv-qemuarm64", *expired)
    bundle("1.1.0", small, folder / "not-for-signing", "mydrv-qemuarm64", *certificate("server", "ours", purpose="serverAuth"))
    bundle("1.1.0", small, folder / "wrong-compatible", "another-product")
    bundle("0.9.0", small, folder / "older")
    return folder


REFUSED = {
    "unsigned": "Signature size is 0",
    "wrongly-signed": "signature verification failed",
    "expired": "certificate has expired",
    "not-for-signing": "unsuitable certificate purpose",
    "truncated": "Signature size .* exceeds bundle size",
    "flipped-in-payload": "Pre-install handler error",
    "flipped-in-hash-tree": "Pre-install handler error",
    "flipped-in-signature": "Signature data is no valid CMS",
    "wrong-compatible": "Compatible mismatch: Expected 'mydrv-qemuarm64' but bundle manifest has 'another-product'",
    "older": "Version mismatch: Expected at least '1.0.0'",
}


@pytest.fixture(scope="module")
def media(request):
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    folder = make(Path(os.environ["LG_KEYS"]))
    image = WORK / "media.img"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", folder, image, "1G"], check=True)
    shutil.rmtree(folder)
    yield image
    shutil.rmtree(WORK)


def test_refused_before_anything_is_written(new_device, media):
    device = new_device(media=media)
    device.on()
    assert device.good() == (("A", "1.0.0"), [])
    device.login()
    device.run("mkdir -p /run/media && mount -o ro /dev/disk/by-id/virtio-media /run/media")
    # Something to be kept.
    device.run("echo precious | dd of=/dev/disk/by-partlabel/rootfs-B conv=notrunc status=none; sync")
    # An installation writes from the start on.
    untouched = "head -c 32M /dev/disk/by-partlabel/rootfs-B | sha256sum; fw_printenv BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT; cat /data/rauc/central.raucs"
    before = device.run(untouched, timeout=300)
    wrong = []
    for name, message in REFUSED.items():
        output, status, _ = device.install(f"/run/media/{name}")
        said = " ".join(line for line in output.splitlines() if "LastError" in line)
        print(f"{name}: {said}")
        if status == 0 or not re.search(message, said):
            wrong.append(f"{name}: status {status}, expected {message!r}: {said}")
        after = device.run(untouched, timeout=300)
        if after != before:
            wrong.append(f"{name}: something was written")
            before = after
    assert not wrong, "\n".join(wrong)
