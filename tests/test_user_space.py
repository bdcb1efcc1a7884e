# SPDX-License-Identifier: MIT
"""mydrvctl and the examples on the target. What the crates do by themselves is tested by `cargo test` (test_source.py)."""

import json
import shlex

import jsonschema
import pytest

from conftest import KINDS
from guest import strictly


def mydrvctl(guest, *arguments, **kwargs):
    return guest.run(shlex.join(["mydrvctl", *map(str, arguments)]), **kwargs)


def test_list_names_every_buffer(guest):
    listed = json.loads(mydrvctl(guest, "--json", "list"))
    devices = listed["devices"] if isinstance(listed, dict) else listed
    assert len(devices) == len(guest.run("ls /dev | grep -E '^mydrv[0-9]+$'").splitlines())


def validated(guest, command, status):
    """The checks of a validation that ends with this status, by id. On the console's terminal there is a progress bar, too."""
    output, found = guest.execute(f"{command} >/tmp/report.json 2>/tmp/said", timeout=180)
    report = json.loads(guest.run("cat /tmp/report.json"))
    failed = [check for check in report["checks"] if check["verdict"] == "fail"]
    assert found == status and report["verdict"] == ("fail" if status else "pass"), (output, failed)
    return {check["id"]: check for check in report["checks"]}


def failing(guest, command):
    """What the failing checks of a validation found."""
    return {name: check["found"] for name, check in validated(guest, command, 1).items() if check["verdict"] == "fail"}


def test_every_check_passes(guest, each_kind):
    validated(guest, f"mydrvctl --json --device {each_kind} validate --full", 0)


@pytest.mark.lg_feature("qemu")
def test_pages_are_where_the_driver_says(guest, device):
    """As /dev/mem shows them; the debug kernel keeps memory out of it."""
    check = validated(guest, f"mydrvctl --json --device {device} validate --quick --full", 0)["contiguity"]
    if guest.is_debug:
        assert "/dev/mem" in check["reason"]
    else:
        assert check["verdict"] == "pass", check


@pytest.mark.lg_feature("qemu")
def test_region_elsewhere_than_the_tree_says_is_found(guest):
    node = "/sys/firmware/devicetree/base/reserved-memory/cma_part/alloc-ranges"
    guest.run(r"printf '\0\0\0\0\100\0\0\0\0\0\0\0\0\100\0\0' >/tmp/ranges")
    command = f"unshare --mount sh -c 'mount --bind /tmp/ranges {node} && mydrvctl --json --device part validate --quick'"
    found = failing(guest, command)
    assert list(found) == ["physical-range"] and "region elsewhere than the device tree says" in found["physical-range"], found


@pytest.mark.lg_feature("qemu")
def test_another_program_that_writes_against_the_lock_is_no_bad_memory(guest):
    """It comes when the validation has both its files open, and writes all the time: one process, so that no pattern is in the memory without a
    write to it. It runs before, since to start it takes longer than a validation does."""
    buffer = "/dev/mydrv/by-label/noncoherent"
    program = f"""
        $SIG{{TERM}} = sub {{ exit }};
        do {{ ($validate) = map {{ m,(\\d+), }} grep {{ (readlink // "") =~ m,/mydrvctl$, }} glob "/proc/[0-9]*/exe" }} until $validate;
        do {{ }} until 2 <= grep {{ (readlink // "") =~ m,^/dev/mydrv[0-9], }} glob "/proc/$validate/fd/*";
        open my $file, "+<", "{buffer}" or die;
        while (1) {{ sysseek($file, 0, 0); syswrite($file, chr(rand(256)) x 64) or die }}
    """
    script = f"""
        perl -e {shlex.quote(program)} & writer=$!
        mydrvctl --json --device {buffer} validate --repeat 200 >/tmp/report.json 2>/tmp/said; status=$?
        kill $writer; wait $writer; (exit $status)
    """
    output, status = guest.execute(script, timeout=300)
    report = json.loads(guest.run("cat /tmp/report.json"))
    busy = [check["reason"] for check in report["checks"] if check["verdict"] == "in-use"]
    assert (status, report["verdict"], report["failed"]) == (6, "in-use", 0), (output, report)
    assert busy and all("in use by" in reason and "(perl)" in reason for reason in busy), busy


@pytest.mark.lg_feature("qemu")
@pytest.mark.parametrize(
    ("name", "command"),
    [("validate", "validate --quick --full"), ("validate", "validate --quick --expect no-such-label"), ("dma-loop", "dma-loop --rounds 1")],
)
def test_json_is_as_the_installed_schema_says(guest, device, name, command):
    """test_source.py has the other commands."""
    schema = json.loads(guest.run(f"cat /usr/share/mydrvctl/schema/{name}.json"))
    guest.execute(f"mydrvctl --json --device {device} {command} >/tmp/printed.json 2>/tmp/said", timeout=180)
    jsonschema.validate(json.loads(guest.run("cat /tmp/printed.json")), strictly(schema))


def test_the_report_tells_what_it_is_about(guest, device):
    guest.run(f"mydrvctl --json --device {device} validate --quick >/tmp/report.json")
    report = json.loads(guest.run("cat /tmp/report.json"))
    assert report["boot_id"] == guest.run("cat /proc/sys/kernel/random/boot_id").strip()
    assert report["kernel"] == guest.run("uname -r").strip()
    srcversion = guest.run("cat /sys/module/mydrv/srcversion 2>/dev/null || true").strip()
    assert report["module_srcversion"] == (srcversion or None)
    build_id = guest.run("od -An -v -tx1 -j16 /sys/module/mydrv/notes/.note.gnu.build-id | tr -d ' \\n'").strip()
    assert build_id and report["module_build_id"] == build_id
    machine = guest.run("systemd-id128 machine-id --app-specific=5cb097f116c24d0cb0dc6f234ba38f7e 2>/dev/null || true").strip()
    assert not machine or report["machine_id"] == machine
    assert len(report["device_tree_sha256"]) == 64


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
        (6, "flock {device} mydrvctl --device {device} fill --all"),
    ],
)
def test_exit_codes(guest, device, status, command):
    output, found = guest.execute(command.format(device=device))
    assert found == status, output
    if status:
        assert output, "a failure without a word"


@pytest.mark.lg_feature("qemu")
def test_a_read_only_buffer_takes_no_data(guest):
    assert guest.status("mydrvctl --device read-only fill --all") == 4


def test_failing_check_is_told_everywhere(guest, device):
    """In the exit status, in words, and in the report."""
    command = f"mydrvctl --device {device} validate --quick --expect buffer0=4K --report /tmp/report.json"
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
