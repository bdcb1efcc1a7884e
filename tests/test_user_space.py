# SPDX-License-Identifier: MIT
"""mydrvctl and the examples on the target. What the crates do by themselves is tested by `cargo test` (test_source.py)."""

import json
import shlex

import pytest

from conftest import KINDS


def mydrvctl(guest, *arguments, **kwargs):
    return guest.run(shlex.join(["mydrvctl", *map(str, arguments)]), **kwargs)


def test_list_names_every_buffer(guest):
    listed = json.loads(mydrvctl(guest, "--json", "list"))
    devices = listed["devices"] if isinstance(listed, dict) else listed
    assert len(devices) == len(guest.run("ls /dev | grep -E '^mydrv[0-9]+$'").splitlines())


def test_every_check_passes(guest, each_kind):
    # On the console's terminal there is a progress bar, too.
    report = json.loads(guest.run(f"mydrvctl --json --device {each_kind} validate 2>/dev/null || true", timeout=180))
    failed = [check for check in report["checks"] if check["verdict"] == "fail"]
    assert report["verdict"] == "pass" and not failed, failed


def test_data_survives_the_way_in_and_out(guest, device):
    at = ["--device", device]
    guest.run(f"head -c 300001 /dev/urandom >/tmp/in && mydrvctl --device {device} write --offset 4093 --input /tmp/in")
    mydrvctl(guest, *at, "read", "--offset", 4093, "--length", 300001, "--output", "/tmp/out")
    guest.run("cmp /tmp/in /tmp/out")
    mydrvctl(guest, *at, "fill", "--offset", 4096, "--length", 8, "--pattern", "c0ffee00")
    assert "c0 ff ee 00 c0 ff ee 00" in mydrvctl(guest, *at, "dump", "--offset", 4096, "--length", 8)


@pytest.mark.parametrize(
    ("status", "command"),
    [
        (0, "mydrvctl --help"),
        (2, "mydrvctl"),
        (2, "mydrvctl explode"),
        (2, "mydrvctl --device {device} read --offset 1G"),
        (2, "mydrvctl --device {device} fill --pattern zz"),
        (3, "mydrvctl --device /dev/mydrv99 info"),
        (3, "mydrvctl --device no-such-label info"),
        (4, "setpriv --reuid=65534 --regid=65534 --clear-groups mydrvctl --device {device} info"),
        (5, "mydrvctl --device {device} read >/dev/full"),
        (6, "flock {device} mydrvctl --device {device} fill"),
    ],
)
def test_exit_codes(guest, device, status, command):
    output, found = guest.execute(command.format(device=device))
    assert found == status, output
    if status:
        assert output, "a failure without a word"


@pytest.mark.lg_feature("qemu")
def test_a_read_only_buffer_takes_no_data(guest):
    assert guest.status("mydrvctl --device read-only fill") == 4


def test_failing_check_is_told_everywhere(guest, device):
    """In the exit status, in words, and in the report."""
    command = f"mydrvctl --device {device} validate --quick --expect-size 4K --report /tmp/report.json"
    output, status = guest.execute(command, timeout=120)
    assert status == 1
    assert any("size" in line and "expected" in line for line in output), output
    report = json.loads(guest.run("cat /tmp/report.json"))
    assert [check["id"] for check in report["checks"] if check["verdict"] == "fail"] == ["size"]


@pytest.mark.lg_feature("qemu")
@pytest.mark.parametrize("label", ["buffer0", *(kind for kind in KINDS if kind != "read-only")])
def test_dma_reaches_the_buffer(guest, label):
    mydrvctl(guest, "--device", label, "dma-loop", timeout=120)


@pytest.mark.parametrize("program", ["hello-rust", "hello-c"])
def test_example(guest, device, program):
    assert guest.run(f"/usr/libexec/mydrv/{program} {device}")
    assert guest.status(f"/usr/libexec/mydrv/{program} /dev/null") not in (0, 101, 134, 139)


def test_installed_for_people(guest):
    guest.run("test -s /usr/share/man/man1/mydrvctl.1 && test -s /usr/share/man/man1/mydrvctl-validate.1")
    guest.run("bash -n /usr/share/bash-completion/completions/mydrvctl")
    assert "validate" in guest.run("cat /usr/share/bash-completion/completions/mydrvctl | grep -o validate | head -n 1")
