# SPDX-License-Identifier: MIT
"""The driver with one guard out at a time: what is said to notice it, notices. `bench/test guards` runs these."""

import json
import os
import re
import shlex
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from guards import GUARDS, SMALL

import guest as guests
from conftest import kinds_tree
from guest import TESTS, TOP, in_build, machine_tree
from test_variants import errors, wrong_tree

LAYER = TOP / "meta-mydrv"
MODULE = LAYER / "recipes-kernel/mydrv/mydrv"
ABI = LAYER / "recipes-apps/mydrvctl/mydrvctl/mydrv-abi/src/abi.rs"
# The driver as it is.
WHOLE = "whole"


def folder(name):
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def build(directory, guard):
    """Builds the driver without the guard; without any change where there is none."""
    copy = directory / folder(guard.name if guard else WHOLE)
    shutil.copytree(MODULE, copy)
    if guard:
        source = copy / guard.file
        text = source.read_text()
        assert text.count(guard.taken) == 1, (
            f"{guard.name}: stands {text.count(guard.taken)} times in {guard.file}, not once; correct guards.py:\n{guard.taken}"
        )
        source.write_text(text.replace(guard.taken, guard.left))
    product = Path(os.environ["LG_PRODUCT"])
    make = ["make", "-C", str(copy), f"KERNEL_SRC={product / 'linux'}", f"O={product / 'kernel'}", "ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"]
    # What only the guard used is unused now.
    in_build([*make, f"MYDRV_ABI={ABI}", "KRUSTFLAGS=-Awarnings"])
    return copy / "mydrv.ko"


@pytest.fixture(scope="session")
def drive():
    """A disk with a driver for each guard."""
    path = Path(os.environ["MYDRV_GUARDS"])
    modules = path.with_suffix(".d")
    shutil.rmtree(modules, ignore_errors=True)
    modules.mkdir(parents=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        built = list(pool.map(lambda guard: build(modules, guard), [None, *GUARDS]))
    with tarfile.open(path, "w") as tar:
        for module in built:
            tar.add(module, f"{module.parent.name}.ko")
    shutil.rmtree(modules)


class Bench:
    """A guest that has every driver and loads one at a time. One that a driver has damaged is replaced."""

    def __init__(self, config_file, tree, refused=None):
        self.config_file, self.tree, self.refused = config_file, tree, refused
        self.guest = None

    def load(self, name):
        if self.guest is None:
            self.guest = guests.boot(self.config_file, self.tree, "modprobe.blacklist=mydrv systemd.mask=mydrv-validate.service")
            self.guest.settle()
            # What udev would start for each device.
            self.guest.run("systemctl mask --runtime mydrv-validate@.service")
            self.guest.run("mkdir -p /run/guards && tar -xf /dev/disk/by-id/virtio-guards -C /run/guards")
        self.since = int(self.guest.run(f"stat -c %s {guests.KERNEL_LOG}")) + 1
        self.guest.run(f"insmod /run/guards/{name}.ko && udevadm settle", timeout=120)

    def unload(self):
        """Whatever the driver did to the guest."""
        if self.guest is None:
            return
        try:
            intact = not self.guest.kernel_warnings() and self.guest.status("rmmod mydrv", timeout=60) == 0
        except Exception:
            intact = False
        if not intact:
            self.off()

    def off(self):
        if self.guest:
            self.guest.off()
            self.guest = None

    def notices(self, what):
        """What a test or check says that fails; empty if it passes."""
        what, _, label = what.partition("@")
        buffer = f"/dev/mydrv/by-label/{label or SMALL}"
        kind, *rest = shlex.split(what)
        if kind == "refused":
            return self.not_refused(rest[0])
        if kind == "check":
            return self.failing_check(rest[0], buffer)
        if kind == "held":
            return self.module_goes_under_a_file(buffer)
        node = self.guest.run(f"readlink -f {buffer}")
        output, status = self.guest.execute(shlex.join([TESTS, "--device", node, kind, *rest]), timeout=300)
        if kind == "revoke" or kind == "fork-revoke":
            self.guest.run("udevadm settle")
        said = [line for line in output if line.startswith("FAILED")]
        return "" if status == 0 else (said or [f"status {status}"])[0]

    def not_refused(self, device):
        """What the driver does in place of its one line, by the log since it was loaded."""
        lines = [line for name, line in errors(self.guest, self.since, device) if name == device]
        return "" if len(lines) == 1 and re.search(self.refused[device], lines[0]) else f"{device}: {lines or 'bound'}"

    def failing_check(self, name, buffer):
        output, _ = self.guest.execute(f"mydrvctl --json --device {buffer} validate --full 2>/dev/null >/run/report.json; cat /run/report.json", timeout=300)
        record = next(check for check in json.loads("\n".join(output))["checks"] if check["id"] == name)
        assert record["verdict"] in ("pass", "fail"), record
        return f"{name}: {record['found']}" if record["verdict"] == "fail" else ""

    def module_goes_under_a_file(self, buffer):
        self.guest.run(f"{TESTS} --device {buffer} hold >/run/hold 2>&1 & echo $! >/run/hold.pid; sleep 1; grep -q holding /run/hold")
        _, status = self.guest.execute("rmmod mydrv")
        if status == 0:
            return "rmmod took the module from under an open file"
        self.guest.run("kill $(cat /run/hold.pid); tail --pid=$(cat /run/hold.pid) -f /dev/null")
        return ""


@pytest.fixture(scope="module")
def benches(request, drive, tmp_path_factory):
    """By whether it is about devices that are refused: a guest with one buffer of each kind, and one with every device that is wrong."""
    config_file = guests.environment(request).config_file
    wrong, lines = wrong_tree()
    benches = {
        False: Bench(config_file, kinds_tree(tmp_path_factory.mktemp("kinds"))),
        True: Bench(config_file, machine_tree(tmp_path_factory.mktemp("wrong"), wrong), lines),
    }
    yield benches
    for bench in benches.values():
        bench.off()


@pytest.fixture
def driver(benches):
    """A function that loads the driver without one guard, where what `noticed` names can be seen; returns the bench."""
    used = []

    def load(name, noticed):
        bench = benches[all(what.startswith("refused ") for what in noticed)]
        used.append(bench)
        bench.load(folder(name))
        return bench

    yield load
    for bench in used:
        bench.unload()


@pytest.mark.parametrize("refusals", [False, True], ids=["calls", "refusals"])
def test_nothing_fails_with_every_guard_in(driver, refusals):
    """Else the tests below would say nothing."""
    noticed = {what for guard in GUARDS for what in guard.noticed if what.startswith("refused ") == refusals}
    bench = driver(WHOLE, noticed)
    wrong = {what: said for what in sorted(noticed) if (said := bench.notices(what))}
    assert not wrong
    assert not bench.guest.kernel_warnings()


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_missing_guard_is_noticed(driver, guard):
    bench = driver(guard.name, guard.noticed)
    said = {what: bench.notices(what) for what in guard.noticed}
    for what, words in said.items():
        print(f"{guard.file}: {guard.name}: {what}: {words or 'PASSED'}")
    missed = [what for what, words in said.items() if not words]
    assert not missed, f"passed without the guard: {', '.join(missed)}"
