# SPDX-License-Identifier: MIT
"""What can be told without a guest: crates, formatting, lints, warnings, the ABI's layout, device trees, the bench's scripts."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest

from guest import TOP, in_build, strictly

pytestmark = pytest.mark.source

LAYER = TOP / "meta-mydrv"
APPS = LAYER / "recipes-apps/mydrvctl/mydrvctl"
MODULE = LAYER / "recipes-kernel/mydrv/mydrv"
OVERLAY = LAYER / "recipes-kernel/mydrv-overlay/mydrv-overlay"


def build_dir():
    return Path(os.environ["LG_BUILD"])


def cargo(*arguments, **variables):
    env = {**os.environ, "CARGO_TARGET_DIR": str(build_dir() / "cargo"), "MYDRV_ASSETS_DIR": str(build_dir() / "cargo/assets-host"), **variables}
    return in_build(["cargo", *arguments], cwd=APPS, env=env)


# What the tests have in place of a driver.
STAND_IN = ("--features", "mydrvctl/stand-in")


def test_crates_are_formatted():
    cargo("fmt", "--all", "--check")


def test_crates_have_no_lints():
    cargo("clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings")
    cargo("clippy", "--locked", "--workspace", "--all-targets", *STAND_IN, "--", "-D", "warnings")
    cargo("clippy", "--locked", "--package", "mydrvctl", "--all-targets", "--no-default-features", "--", "-D", "warnings")


def test_crates_pass_their_own_tests():
    output = cargo("test", "--locked", "--workspace", *STAND_IN)
    assert sum(map(int, re.findall(r"test result: ok\. (\d+) passed", output))) > 20, output


def test_misuse_of_the_crate_is_refused_for_the_reason_given():
    """Each `compile_fail` of the documentation by its error's number, which the stable compiler does not look at unless told so."""
    documented = (APPS / "mydrv/src/mapping.rs").read_text().count("```compile_fail,E")
    target = str(build_dir() / "cargo-doc")
    output = cargo("test", "--locked", "--doc", "--package", "mydrv", CARGO_TARGET_DIR=target, RUSTC_BOOTSTRAP="1")
    assert documented > 5 and output.count("compile fail ... ok") == documented, output


def test_crate_works_by_the_c_library_too():
    """rustix's other backend, for targets that it makes no system calls on by itself."""
    target = str(build_dir() / "cargo-libc")
    output = cargo("test", "--locked", "--lib", "--package", "mydrv", "--features", "stand-in", CARGO_TARGET_DIR=target, RUSTFLAGS="--cfg=rustix_use_libc")
    assert sum(map(int, re.findall(r"test result: ok\. (\d+) passed", output))) > 20, output


def for_target(command, target, package):
    """Standard library included, of which the toolchain root has the source, but no build for these."""
    variables = {"RUSTC_BOOTSTRAP": "1", "CARGO_TARGET_DIR": str(build_dir() / "cargo-other")}
    cargo(command, "-Z", "build-std=std,panic_abort", "--locked", "--target", target, "--package", package, **variables)


def test_crate_builds_for_32_bits():
    for_target("check", "armv7-unknown-linux-gnueabihf", "mydrv")


def test_memory_test_builds_for_riscv64():
    """With code, since its assembler is what is of interest."""
    for_target("build", "riscv64gc-unknown-linux-gnu", "mydrv-memtest")


def test_crates_can_be_published_and_are_documented():
    output = cargo("publish", "--dry-run", "--locked", "--allow-dirty", "--package", "mydrv-abi", "--package", "mydrv")
    assert output.count("aborting upload due to dry run") == 2, output
    cargo("doc", "--locked", "--no-deps", "--package", "mydrv-abi", "--package", "mydrv", "--all-features", RUSTDOCFLAGS="-D warnings")


def test_the_stand_in_stays_out_of_the_product():
    """The program that is installed does not know it; the tests' own does, or else this would prove nothing."""
    cargo("build", "--locked", "--package", "mydrvctl", *STAND_IN)
    word = b".stand-in"
    assert word in (build_dir() / "cargo/debug/mydrvctl").read_bytes()
    assert word not in (build_dir() / "user-space/usr/bin/mydrvctl").read_bytes()
    with pytest.raises(AssertionError, match="must not get into a release build"):
        cargo("check", "--locked", "--release", "--package", "mydrv", "--features", "stand-in")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A system in a folder, with a buffer for which a file stands in, booted from a slot; and a function that runs mydrvctl on it."""
    cargo("build", "--locked", "--package", "mydrvctl", *STAND_IN)
    root = tmp_path_factory.mktemp("system")
    for path, text in {
        "sys/class/misc/mydrv0/dev": "10:120\n",
        "sys/devices/platform/mydrv-buffer/uevent": "",
        "sys/bus/platform/drivers/mydrv/uevent": "",
        "sys/firmware/devicetree/base/mydrv-buffer/compatible": "mydrv,dma-buffer\0",
        "proc/cmdline": "rauc.slot=A\n",
        "proc/sys/kernel/random/boot_id": "8d4f4b6e-0000-4000-8000-000000000000\n",
        "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
        "etc/group": "mydrv:x:7:\n",
        "data/mydrv/slot-A/last": "outcome=failed\nreason=check 1\n",
        "data/mydrv/fallback": "from=B\nto=A\n",
        "run/mydrv/validate.json": '{"verdict": "pass", "checks": []}',
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    device = root / "sys/devices/platform/mydrv-buffer"
    for link, target in {
        root / "sys/class/misc/mydrv0/device": device,
        root / "sys/bus/platform/devices/mydrv-buffer": device,
        device / "driver": root / "sys/bus/platform/drivers/mydrv",
        device / "of_node": root / "sys/firmware/devicetree/base/mydrv-buffer",
    }.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    (root / "dev").mkdir()
    (root / "dev/mydrv0").write_bytes(bytes(20480))
    zero = ("cache_mode", "region_base", "region_size_bytes")
    version = int(re.search(r"MYDRV_ABI_VERSION: u32 = (\d+);", (APPS / "mydrv-abi/src/abi.rs").read_text())[1])
    description = {"abi_version": version, "size_bytes": 16384, "flags": 1 << 5, "dma_address": 4096, "physical_address": 4096, "label": "", "elsewhere": [0, 0],
                   "node": {"number": [10, 120], "mode": 0o660, "uid": 0, "gid": 7}, "without": [], "aliases": [], "faults": [], **dict.fromkeys(zero, 0)}
    (root / "dev/mydrv0.stand-in").write_text(json.dumps(description))
    program = build_dir() / "cargo/debug/mydrvctl"

    def run(command):
        return subprocess.run([program, "--root", root, "--json", *command.split()], capture_output=True, text=True, check=False).stdout

    return run


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("bench", "bench --rounds 1"),
        ("dump", "dump --length 64"),
        ("info", "info"),
        ("list", "list"),
        ("status", "status"),
        ("transfer", "fill --length 64 --pattern 00"),
        ("transfer", "read --length 64 --output /dev/null"),
        ("transfer", "write --length 64 --input /dev/zero"),
        ("validate", "validate --wait 0 --full"),
        ("validate", "validate --wait 0 --expect no-such-label"),
    ],
)
def test_json_is_as_its_schema_says(stand_in, name, command):
    """Strictly: a field that is printed and not in the schema is an error here."""
    schema = json.loads((APPS / f"mydrvctl/schema/{name}.json").read_text())
    printed = json.loads(stand_in(command))
    jsonschema.validate(printed, strictly(schema))
    if name == "validate":
        assert printed["passed"] > 10 and printed["memory"], printed


def test_header_compiles_and_matches(tmp_path):
    """The C header has the layout and the numbers that the kernel module compiles in."""
    header = APPS / "mydrv-abi/include/mydrv.h"
    abi = (APPS / "mydrv-abi/src/abi.rs").read_text()
    constants = re.findall(r"^pub const (MYDRV_\w+): \w+ = ([^;]+);", abi, re.M)
    assert len(constants) > 15
    fields = {
        name: re.findall(r"^\s+pub (\w+):", body, re.M) for name, body in re.findall(r"^pub struct (\w+) \{(.*?)^\}", abi, re.M | re.S)
    }
    sizes = {"MydrvInfo": 88, "MydrvSync": 24, "MydrvUsers": 16}
    offsets = {"MydrvInfo": [0, 4, 8, 16, 24, 32, 40, 48, 52, 56], "MydrvSync": [0, 8, 16, 20], "MydrvUsers": [0, 8, 12]}
    numbers = {"MydrvInfo": ("_IOR", 0), "MydrvSync": ("_IOW", 1), "MydrvUsers": ("_IOR", 2)}
    # Alone, as UAPI headers are: it brings what it needs.
    lines = [f'#include "{header}"', "#include <stddef.h>"]
    for name, value in constants:
        lines.append(f'_Static_assert({name} == ({value.replace("_", "") if value[:2] == "0x" else value}), "{name}");')
    for name, members in fields.items():
        c_name = "struct mydrv_" + name[5:].lower()
        lines.append(f'_Static_assert(sizeof({c_name}) == {sizes[name]}, "size of {name}");')
        for member, offset in zip(members, offsets[name], strict=True):
            lines.append(f'_Static_assert(offsetof({c_name}, {member}) == {offset}, "{name}.{member}");')
        direction, number = numbers[name]
        lines.append(f'_Static_assert(MYDRV_IOC_{name[5:].upper()} == {direction}(0xD8, {number}, {c_name}), "number of {name}");')
    source = tmp_path / "abi.c"
    source.write_text("\n".join(lines) + "\n")
    for compiler in ("gcc", "aarch64-linux-gnu-gcc", "clang"):
        for standard in ("c11", "gnu17"):
            in_build([compiler, f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", str(source)])


TREES = json.loads(os.environ.get("MYDRV_TREES", "{}"))


@pytest.fixture(params=sorted(TREES))
def tree(request):
    """A kernel's source and build directories: of each series that is at hand."""
    return TREES[request.param]


def test_module_builds_without_warnings(tree, tmp_path):
    """Lints included, on every kernel series; in a copy, so that all of it is compiled."""
    if not tree["build"]:
        pytest.skip(tree["reason"])
    copy = tmp_path / "mydrv"
    shutil.copytree(MODULE, copy)
    abi = APPS / "mydrv-abi/src/abi.rs"
    make = ["make", "-C", str(copy), f"KERNEL_SRC={tree['source']}", f"O={tree['build']}", "ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"]
    output = in_build([*make, f"MYDRV_ABI={abi}", "CLIPPY=1", "W=1"])
    assert "warning" not in output.lower(), output
    assert (copy / "mydrv.ko").exists()


def test_module_is_formatted(tmp_path):
    """As the kernel wants it; but for abi.rs, which belongs to the crates."""
    copy = tmp_path / "mydrv"
    shutil.copytree(MODULE, copy)
    (copy / "abi.rs").write_text("// Not the kernel's.\n")
    rules = build_dir() / "linux/.rustfmt.toml"
    in_build(["rustfmt", "--check", "--edition", "2021", "--config-path", str(rules), *map(str, sorted(copy.glob("*.rs")))])


def test_module_refuses_a_kernel_that_is_too_old(tmp_path):
    copy = tmp_path / "mydrv"
    shutil.copytree(MODULE, copy)
    kernel = build_dir() / "kernel"
    make = ["make", "-C", str(copy), f"KERNEL_SRC={build_dir() / 'linux'}", f"O={kernel}", "ARCH=arm64", "VERSION=6", "PATCHLEVEL=12"]
    done = subprocess.run(make, capture_output=True, text=True)
    assert done.returncode != 0
    assert "kernel 6.12 is too old. The driver needs 6.18 or newer" in done.stderr


def test_scripts_have_no_lints():
    scripts = [
        path
        for folder in ("bench", ".ci", "meta-mydrv", "tests")
        for path in sorted((TOP / folder).rglob("*"))
        if path.is_file() and (path.name == "lib.sh" or path.read_bytes()[:40].startswith((b"#!/bin/bash", b"#!/bin/sh")))
    ]
    assert len(scripts) >= 20
    in_build(["shellcheck", *map(str, scripts)])


@pytest.mark.parametrize("arguments", [[], ["MYDRV_CMA_SIZE=0x180000000"], ["MYDRV_ADDRESS_CELLS=2", "MYDRV_SIZE_CELLS=1"]])
def test_overlay_builds_without_warnings(tmp_path, arguments):
    assert in_build(["make", "--silent", "-C", str(OVERLAY), f"O={tmp_path}", *arguments]) == ""
    assert (tmp_path / "mydrv.dtbo").exists()


DOCUMENTS = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md")), *sorted(LAYER.glob("*.md"))]
# Properties of the region, not of the buffer, in lines of text.
OF_THE_REGION = r"alloc-ranges|alignment|reg|compatible = \"shared-dma-pool\"|linux,cma-default"


def examples():
    """Every device tree of the documents, and what they write as `NAME = VALUE` of a property in a tree of its own: name, source."""
    for path in DOCUMENTS:
        text = path.read_text()
        for i, tree in enumerate(re.findall(r"^```dts\n(.*?)^```", text, re.M | re.S)):
            yield f"{path.stem}-{i}.{'dtso' if '/plugin/' in tree else 'dts'}", tree
        values = r"(?:<[^>`…]*>|\"[^\"`…]*\")"
        for i, line in enumerate(re.findall(rf"`([a-z][a-z,-]* = {values}(?:, {values})*);?`", text)):
            properties = {"compatible": '"mydrv,dma-buffer"', "memory-region": "<&LABEL>", "label": '"example"'}
            reserved = {"compatible": '"shared-dma-pool"', "size": "<0x0 0x4000000>"}
            of = reserved if re.match(OF_THE_REGION, line) else properties
            of.update([line.split(" = ")])
            write = lambda properties: " ".join(f"{name} = {value};" for name, value in properties.items())
            yield (
                f"{path.stem}-line-{i}.dts",
                f"""/ {{
    reserved-memory {{ #address-cells = <2>; #size-cells = <2>; ranges; LABEL: region {{ reusable; {write(reserved)} }}; }};
    buffer {{ {write(properties)} }};
}};
""",
            )


def test_device_trees_in_the_documents_are_right(tmp_path):
    """Each builds without a warning, and keeps to the binding."""
    trees = dict(examples())
    assert len([name for name in trees if "-line-" not in name]) >= 3 and len(trees) >= 8, trees.keys()
    for name, source in trees.items():
        (tmp_path / name).write_text(source)
    output = in_build([str(TOP / "tests/binding/check"), *(str(tmp_path / name) for name in trees)])
    assert output.count("ok  ") == len(trees), output


def test_binding_accepts_the_overlay_and_refuses_wrong_ones():
    output = in_build([str(TOP / "tests/binding/check")])
    refused = [line for line in output.splitlines() if line.startswith("ok") and line.endswith("is refused")]
    assert len(refused) >= 3, output
