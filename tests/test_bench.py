# SPDX-License-Identifier: MIT
"""bench/boot itself: what it exits with. The tests of everything else rely on the same list of kernel warnings."""

import os
import subprocess
from pathlib import Path

import pytest

from guest import TOP

pytestmark = [pytest.mark.lg_feature("qemu"), pytest.mark.own_guest]


def bench_boot(tmp_path, *arguments):
    command = [TOP / "bench/boot", "--no-build", "--series", os.environ["MYDRV_SERIES"], "--console", tmp_path / "console", *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=400)


@pytest.mark.parametrize(
    ("status", "command", "options"),
    [
        (0, "echo out; echo err >&2", []),
        (7, "exit 7", []),
        (120, "echo '<4>WARNING: CPU: 0 PID: 1 at test.c:1 test' >/dev/kmsg", []),
        (0, "echo '<4>BUG: KASAN: use-after-free in test' >/dev/kmsg", ["--allow-warnings"]),
        (124, "sleep 600", ["--timeout", "3"]),
        (125, "echo c >/proc/sysrq-trigger; sleep 60", []),
    ],
)
def test_exit_status(shared, tmp_path, status, command, options):
    if shared.guest:
        shared.guest.off()
        shared.guest = None
    done = bench_boot(tmp_path, *options, "--", command)
    assert done.returncode == status, done.stderr
    if status == 0 and not options:
        assert done.stdout == "out\n" and done.stderr == "err\n"


def test_artefacts_exist():
    build = Path(os.environ["LG_BUILD"])
    for name in ("linux", "kernel", "Image", "rootfs.img", "mydrv.ko", "mydrv.dtbo", "mydrvctl", "machine.dtb"):
        assert (build / name).exists(), name
