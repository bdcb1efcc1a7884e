# SPDX-License-Identifier: MIT
"""What bitbake wrote when it executed the recipes (build_by_bitbake of lib.sh): packages, kernel configuration, the same bytes twice."""

import filecmp
import json
import re
import shutil
import subprocess

import pytest

from conftest import BENCH, TOP, WORK, shell

LAYER = TOP / "meta-mydrv"
DEBS = WORK / "build/tmp/deploy/deb"
VERSION = "0.1.0-r0_arm64.deb"

# Package: what of it is looked for.
CONTENTS = {
    "mydrv_": [],
    "kernel-module-mydrv-": [r"\./usr/lib/modules/[^/]+/updates/mydrv\.ko"],
    "mydrv-overlay_": [
        r"\./boot/devicetree/mydrv\.dtbo",
        r"\./usr/lib/systemd/system/mydrv-validate\.service\.d/expect\.conf",
        r"\./usr/lib/systemd/system/mydrv-validate@\.service\.d/expect\.conf",
    ],
    "mydrvctl_": [r"\./usr/bin/mydrvctl"],
    "mydrvctl-validate_": [
        r"\./usr/lib/systemd/system/mydrv-validate\.service",
        r"\./usr/lib/systemd/system/mydrv-validate@\.service",
        r"\./usr/lib/systemd/system/mydrv-validate@\.service\.d/10-common\.conf",
        r"\./usr/lib/systemd/system/mydrv-ready\.target",
        r"\./usr/lib/udev/rules\.d/60-mydrv\.rules",
        r"\./usr/lib/sysusers\.d/mydrv\.conf",
        r"\./etc/default/mydrv",
    ],
    "mydrvctl-dev_": [r"\./usr/include/mydrv\.h"],
    "mydrvctl-doc_": [r"\./usr/share/man/man1/mydrvctl\.1", r"\./usr/share/man/man1/mydrvctl-validate\.1"],
    "mydrvctl-bash-completion_": [r"\./usr/share/bash-completion/completions/mydrvctl"],
    "mydrvctl-ptest_": [r"\./usr/lib/mydrvctl/ptest/run-ptest", r"\./usr/lib/mydrvctl/ptest/cli"],
    "mydrvctl-tests_": [r"\./usr/libexec/mydrv/mydrv-tests"],
    "mydrvctl-examples_": [r"\./usr/libexec/mydrv/hello-c", r"\./usr/libexec/mydrv/hello-rust"],
}


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def package(prefix, debs=DEBS):
    found = [path for path in debs.glob("*/*.deb") if path.name.startswith(prefix) and not re.search("-(dbg|dev|src)_", path.name.removeprefix(prefix))]
    assert len(found) == 1, f"{prefix}: {found}"
    return found[0]


@pytest.mark.parametrize("prefix", CONTENTS)
def test_package_has_its_files(prefix):
    listing = run("dpkg-deb", "--contents", str(package(prefix)))
    paths = [line.split()[5] for line in listing.splitlines()]
    for pattern in CONTENTS[prefix]:
        assert any(re.fullmatch(pattern, path) for path in paths), f"{pattern} is not in:\n{listing}"
    assert all(line.split()[1] == "root/root" for line in listing.splitlines())


def test_package_group_names_the_component():
    depends = run("dpkg-deb", "--field", str(package("packagegroup-mydrv_")), "Depends").strip().split(", ")
    assert depends == ["mydrv", "mydrv-overlay", "mydrvctl", "mydrvctl-validate"]


def test_module_depends_on_its_kernel():
    assert re.fullmatch(r"kernel-[0-9.]+", run("dpkg-deb", "--field", str(package("kernel-module-mydrv-")), "Depends").strip())


def test_kernel_has_every_option_of_the_fragment():
    config = set((WORK / "linux/.config").read_text().splitlines())
    lines = [line for line in (LAYER / "recipes-kernel/linux/files/mydrv.cfg").read_text().splitlines() if line.startswith("CONFIG_")]
    assert len(lines) > 8
    assert not [line for line in lines if line not in config]


def test_rust_of_the_kernel_came_from_the_layers_own_bindgen():
    config = (WORK / "linux/.config").read_text()
    assert 'CONFIG_BINDGEN_VERSION_TEXT="bindgen 0.72.1"' in config


@pytest.mark.parametrize(
    "recipe, license", [("mydrv", "GPL-2.0-only"), ("mydrvctl", "MIT"), ("mydrv-overlay", "GPL-2.0-only | BSD-2-Clause")]
)
def test_licence_is_recorded(recipe, license):
    info = next((WORK / "build/tmp/deploy/licenses").rglob(f"{recipe}/recipeinfo")).read_text()
    assert f"LICENSE: {license}\n" in info, info


def spdx(name):
    """The elements of one document of the SBOM (SPDX 3)."""
    return json.loads(next((WORK / "build/tmp/deploy/spdx").rglob(f"{name}.spdx.json")).read_text())["@graph"]


def test_sbom_has_the_packages():
    for name in ("kernel-module-mydrv-*", "mydrv-overlay", "mydrvctl", "mydrvctl-validate"):
        packages = [element for element in spdx(f"packages/package-{name}") if element["type"] == "software_Package"]
        assert len(packages) == 1 and packages[0]["software_packageVersion"], packages


def test_sbom_has_every_crate_and_its_origin():
    crates = {
        element["name"]: element["software_downloadLocation"] for element in spdx("builds/build-mydrvctl")
        if element["type"] == "software_Package" and element["name"].endswith(".crate")
    }
    locked = re.findall(r'^name = "(.*)"\nversion = "(.*)"\nsource = ', (LAYER / "recipes-apps/mydrvctl/mydrvctl/Cargo.lock").read_text(), re.M)
    assert len(locked) > 20
    assert set(crates) == {f"{name}-{version}.crate" for name, version in locked}
    assert all(location.startswith("https://") for location in crates.values())


def test_image_for_runqemu_has_the_overlay_in_its_tree():
    tree = run("dtc", "-q", "-I", "dtb", "-O", "dts", str(WORK / "build/tmp/deploy/images/qemuarm64/devicetree/qemuarm64-mydrv.dtb"))
    assert 'compatible = "mydrv,dma-buffer";' in tree and "size = <0x00 0x4000000>;" in tree and "seed" not in tree


def test_size_is_one_variable(bench):
    """It reaches the overlay and what the boot's check expects."""
    bench("mydrv-overlay", 'MYDRV_CMA_SIZE = "0x8000000"', build="build-size").good()
    deb = package("mydrv-overlay_", WORK / "build-size/tmp/deploy/deb")
    for unit in "mydrv-validate.service", "mydrv-validate@.service":
        assert "buffer0=0x8000000" in run("sh", "-c", f"dpkg-deb --fsys-tarfile {deb} | tar -xO ./usr/lib/systemd/system/{unit}.d/expect.conf")
    tree = run("sh", "-c", f"dpkg-deb --fsys-tarfile {deb} | tar -xO ./boot/devicetree/mydrv.dtbo | dtc -q -I dtb -O dts")
    assert "size = <0x00 0x8000000>;" in tree


def test_raspberry_pi_overlay_is_executed():
    shell("bitbake mydrv-overlay", f"{BENCH}:kas/raspberrypi4-64.yml", "build-raspberrypi4-64").good()
    dtbo = WORK / "build-raspberrypi4-64/tmp/deploy/images/raspberrypi4-64/devicetree/mydrv.dtbo"
    assert "size = <0x4000000>;" in run("dtc", "-q", "-I", "dtb", "-O", "dts", str(dtbo)), "the Pi's root has one size cell"


def test_same_bytes_in_another_directory():
    """Driver, overlay and user space, built again from unpacking on, in other directories, of files that are newer, as another clone's."""
    again = WORK / "build-again"
    for path in LAYER.glob("recipes-*/*/mydrv*/**/*"):
        path.touch()
    shutil.rmtree(again / "tmp", ignore_errors=True)
    shell("bitbake -C unpack mydrv mydrv-overlay mydrvctl", BENCH, "build-again").good()
    for prefix in CONTENTS:
        first, second = package(prefix), package(prefix, again / "tmp/deploy/deb")
        assert filecmp.cmp(first, second, shallow=False), f"{first} and {second} differ"
