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
    return shell("bitbake mydrv-bundle mydrv-ota rauc-conf u-boot", UPDATE).without_complaint()


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


def test_boot_loader_has_the_script_and_its_options():
    """The layer's append, executed on the source that the bench compiles, too."""
    images = BUNDLE.parent
    program = (images / "u-boot.bin").read_bytes()
    for word in (b"BOOT_ORDER=A B", b"BOOT_A_LEFT", b"rauc.slot="):
        assert word in program, word
    config = set((BUILD / "tmp/u-boot/.config").read_text().splitlines())
    recipe = TOP / "meta-mydrv/dynamic-layers/rauc/recipes-bsp/u-boot/u-boot"
    lines = [line for path in recipe.glob("*.cfg") for line in path.read_text().splitlines() if "CONFIG_" in line and "=n" not in line]
    assert len(lines) > 8
    assert not [line for line in lines if line not in config]
    flash = (images / "u-boot-env.img").read_bytes()
    assert len(flash) == 64 << 20 and not flash.strip(b"\xff")


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
