# SPDX-License-Identifier: MIT
"""Updates by bitbake: a bundle as the bench's, of the recipes that install what the bench's devices run. tests/ota installs it."""

import configparser
import filecmp
import subprocess

import pytest

from conftest import TOP, UPDATE, WORK, shell

BUILD = WORK / "build-update"
OTA = TOP / "build/ota"
BUNDLE = BUILD / "tmp/deploy/images/qemuarm64/mydrv-bundle-qemuarm64.raucb"


@pytest.fixture(scope="module", autouse=True)
def built():
    return shell("bitbake mydrv-bundle mydrv-ota rauc-conf", UPDATE).without_complaint()


def manifest(bundle):
    text = subprocess.run(["unsquashfs", "-cat", bundle, "manifest.raucm"], check=True, capture_output=True, text=True).stdout
    parser = configparser.ConfigParser()
    parser.read_string(text)
    return {section: dict(parser[section]) for section in parser.sections()}


def test_manifest_is_the_benchs():
    """The same sections and keys; the same values, digest of the image included, but for what names the builder."""
    ours, theirs = manifest(BUNDLE), manifest(OTA / "1.1.0.raucb")
    assert {name: section.keys() for name, section in ours.items()} == {name: section.keys() for name, section in theirs.items()}
    for free in ("description", "build"):
        del ours["update"][free], theirs["update"][free]
    assert ours == theirs
    assert ours["bundle"]["format"] == "verity" and ours["image.rootfs"]["adaptive"].startswith("block-hash-index")


@pytest.mark.parametrize("recipe", ["mydrv-ota", "rauc-conf"])
def test_packages_hold_what_the_benchs_devices_run(recipe, tmp_path):
    """Every file of the package, and where a link leads, is in the root file system that tests/ota updates."""
    deb = next((BUILD / "tmp/deploy/deb").glob(f"*/{recipe}_*.deb"))
    subprocess.run(["dpkg-deb", "--extract", deb, tmp_path], check=True)
    # What enables units is systemd.bbclass's, or Debian's systemctl.
    found = [path for path in tmp_path.rglob("*") if (not path.is_dir() or path.is_symlink()) and path.suffix != ".preset"]
    root, names = OTA / "root", [path.relative_to(tmp_path) for path in found]
    assert names
    image = tmp_path / "system.conf"
    for name in names:
        mine, other = tmp_path / name, root / name
        if name.name == "system.conf":
            # Not in the root, since it has the version.
            image.write_bytes(subprocess.run(["debugfs", "-R", f"cat /{name}", OTA / "1.1.0.ext4"], check=True, capture_output=True).stdout)
            other = image
        if mine.is_symlink():
            assert other.readlink() == mine.readlink(), name
        else:
            assert filecmp.cmp(mine, other, shallow=False), name
            assert mine.stat().st_mode & 0o777 == other.stat().st_mode & 0o777 or other is image, name


WRONG = {
    "no key": ('RAUC_KEY_FILE = ""', "mydrv-bundle", ["RAUC_KEY_FILE is not set", "mydrv-dev-keys"]),
    "a key that is not there": ('RAUC_CERT_FILE = "/nonexistent.pem"', "mydrv-bundle", ['RAUC_CERT_FILE = "/nonexistent.pem": no such file']),
    "no keyring": ('RAUC_KEYRING_FILE = "ca.cert.pem"', "rauc-conf", ["RAUC_KEYRING_FILE is not set"]),
    "development key in a release": ('MYDRV_OTA_RELEASE = "1"', "mydrv-bundle", ['MYDRV_OTA_RELEASE = "1"', "is a development certificate"]),
    "development authority in a release": ('MYDRV_OTA_RELEASE = "1"', "rauc-conf", ["RAUC_KEYRING_FILE", "is a development certificate"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_keys_stop_the_build(name, tmp_path):
    line, recipe, messages = WRONG[name]
    (tmp_path / "wrong.conf").write_text(line + "\n")
    shell(f"bitbake -R {tmp_path}/wrong.conf -c fetch {recipe}", UPDATE, "build-wrong-keys").refused("No update can be made or trusted", *messages)
