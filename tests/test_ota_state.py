# SPDX-License-Identifier: MIT
"""The script that keeps the slots' story, apart from any device: a folder stands in for the system, small scripts for the programs that it calls."""

import os
import subprocess

import pytest
from guest import TOP

pytestmark = pytest.mark.source
SCRIPT = TOP / "meta-mydrv/dynamic-layers/rauc/recipes-core/mydrv-ota/mydrv-ota/ota-state"


class System:
    def __init__(self, folder, slot="A", order="A B", a=3, b=3, mounted=True):
        self.folder = folder
        self.put("proc/cmdline", f"root=PARTLABEL=rootfs-{slot} rauc.slot={slot} panic=5\n")
        self.put("proc/self/mounts", "/dev/vda3 /data ext4 rw 0 0\n" if mounted else "")
        self.put("etc/os-release", "IMAGE_VERSION=1.0.0\n")
        case = f'case $2 in BOOT_ORDER) echo "{order}" ;; BOOT_A_LEFT) echo {a} ;; BOOT_B_LEFT) echo {b} ;; esac'
        self.program("fw_printenv", case)
        self.program("fw_setenv", f'echo "$*" >>{folder}/environment')
        self.program("journalctl", "true")
        self.program("systemctl", f'echo "$*" >>{folder}/systemctl; [ "$1" != is-enabled ] || echo enabled')

    def put(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def program(self, name, text):
        self.put(f"bin/{name}", f"#!/bin/sh\n{text}\n").chmod(0o755)

    def run(self, *arguments, **environment):
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        return subprocess.run(
            [SCRIPT, *arguments], env={"PATH": path, "MYDRV_OTA_ROOT": str(self.folder), **environment}, capture_output=True, text=True
        )

    def record(self, name):
        path = self.folder / "data/mydrv" / name
        return dict(line.split("=", 1) for line in path.read_text().splitlines()) if path.exists() else None

    def restarts(self):
        calls = self.folder / "systemctl"
        return calls.exists() and "--no-block reboot" in calls.read_text()


@pytest.mark.parametrize(
    ("last", "bootstatus", "reason"),
    [
        (None, "", "it never got as far as to mount the data partition; no watchdog tells whether it hung"),
        (None, "0", "it never got as far as to mount the data partition; no watchdog reset was seen: it panicked or restarted"),
        (None, "32", "it never got as far as to mount the data partition; the watchdog ended it: it hung"),
        ("outcome=started\nversion=1.2.0\n", "32", "it started and did not finish its check; the watchdog ended it: it hung"),
        ("outcome=failed\nversion=1.2.0\nreason=check 1: a = b\n", "0", "check 1: a = b"),
    ],
)
def test_fallback_is_recorded_with_its_reason(tmp_path, last, bootstatus, reason):
    system = System(tmp_path, order="B A", b=0)
    system.put("sys/class/watchdog/watchdog0/bootstatus", bootstatus)
    if last:
        system.put("data/mydrv/slot-B/last", last)
    done = system.run("begin")
    assert done.returncode == 0, done.stderr
    record = system.record("fallback")
    assert (record["from"], record["to"], record["reason"]) == ("B", "A", reason)
    assert system.record("slot-A/last")["outcome"] == "started"


@pytest.mark.parametrize("given", [{"order": "A B"}, {"order": "B A", "b": 2}, {"order": ""}])
def test_no_fallback_without_a_slot_that_was_given_up(tmp_path, given):
    system = System(tmp_path, **given)
    assert system.run("begin").returncode == 0
    assert system.record("fallback") is None


def test_restart_on_trial_only_with_something_to_return_to(tmp_path):
    for name, good, given, restarts in [
        ("trial", ["B"], {}, True),
        ("good", ["A", "B"], {}, False),
        ("alone", [], {}, False),
        ("used-up", ["B"], {"b": 0}, False),
        ("out-of-order", ["B"], {"order": "A"}, False),
        ("no-records-first", [], {"mounted": False}, True),
        ("no-records-second", [], {"mounted": False, "order": "B A"}, False),
    ]:
        system = System(tmp_path / name, **given)
        for slot in good:
            system.put(f"data/mydrv/slot-{slot}/good", "version=1.0.0\n")
        done = system.run("failed")
        assert done.returncode == 0, f"{name}: {done.stderr}"
        assert system.restarts() == restarts, name
        assert (system.record("slot-A/last") or {}).get("outcome") == ("failed" if given.get("mounted", True) else None), name


def in_use(system):
    system.put(
        "run/mydrv/validate.json",
        '{\n  "verdict": "in-use",\n  "checks": [\n    {\n      "verdict": "skip",\n      "reason": "the buffer is read-only"\n    },\n'
        '    {\n      "verdict": "in-use",\n'
        '      "found": null,\n      "reason": "/dev/mydrv0: in use by process 12 (app)",\n      "remedy": null\n    },\n    {\n'
        '      "verdict": "skip",\n      "reason": "check 6 (abi): in use"\n    }\n  ]\n}\n',
    )


@pytest.mark.parametrize("left", ["0", "2", "f"])
def test_buffer_in_use_neither_ends_the_trial_nor_passes_it(tmp_path, left):
    system = System(tmp_path, a=left)
    system.put("data/mydrv/slot-B/good", "version=1.0.0\n")
    in_use(system)
    assert system.run("check").returncode == 1
    # Twice in one boot: the boot loader has counted it once.
    for _ in range(2):
        done = system.run("failed")
        assert done.returncode == 0, done.stderr
    assert not system.restarts()
    assert (tmp_path / "environment").read_text() == f"BOOT_A_LEFT {int(left, 16) + 1:x}\n"
    last = system.record("slot-A/last")
    assert (last["outcome"], last["reason"]) == ("in-use", "not validated: /dev/mydrv0: in use by process 12 (app)")
    assert system.record("slot-A/good") is None
    # The next boot finds it broken after all.
    (tmp_path / "run/mydrv/validate.json").write_text('{\n  "verdict": "fail",\n')
    assert system.run("failed").returncode == 0
    assert system.restarts() and system.record("slot-A/last")["outcome"] == "failed"


def test_buffer_in_use_does_not_hide_what_else_failed(tmp_path):
    system = System(tmp_path)
    system.put("data/mydrv/slot-B/good", "version=1.0.0\n")
    in_use(system)
    required = "echo mydrv-validate.service app.service net.service"
    case = f'case "$*" in "show --property Requires "*) {required} ;; "is-failed --quiet "*) [ "$3" = {{}} ] ;; esac'
    # The validation itself is no other.
    for failed, outcome in ("mydrv-validate.service", "in-use"), ("app.service", "failed"):
        system.program("systemctl", f'echo "$*" >>{tmp_path}/systemctl; {case.format(failed)}')
        assert system.run("failed").returncode == 0
        last = system.record("slot-A/last")
        assert (last["outcome"], system.restarts()) == (outcome, outcome == "failed"), last
    assert last["reason"] == "failed units: app.service (not validated: /dev/mydrv0: in use by process 12 (app))"
    assert (tmp_path / "environment").read_text() == "BOOT_A_LEFT 4\n"


def test_attempt_that_cannot_be_given_back_is_told(tmp_path):
    system = System(tmp_path)
    in_use(system)
    system.program("fw_setenv", "exit 1")
    done = system.run("failed")
    assert done.returncode == 0 and "does not take the attempt back" in done.stderr
    system.program("fw_printenv", "exit 1")
    assert "tells no attempts" in system.run("failed").stderr


def test_refused_setting_is_the_reason(tmp_path):
    system = System(tmp_path)
    system.program("journalctl", "echo 'mydrvctl: MYDRV_MODE=rw: give octal digits; correct it'")
    assert system.run("failed").returncode == 0
    assert system.record("slot-A/last")["reason"] == "not validated: MYDRV_MODE=rw: give octal digits; correct it"


def test_report_is_not_for_everyone(tmp_path):
    system = System(tmp_path)
    system.put("run/mydrv/validate.json", '{\n  "verdict": "fail",\n')
    assert system.run("failed").returncode == 0
    assert (tmp_path / "data/mydrv/slot-A/validate.json").stat().st_mode & 0o777 == 0o640


def test_report_instead_of_restart(tmp_path):
    system = System(tmp_path)
    system.put("data/mydrv/slot-B/good", "version=1.0.0\n")
    system.put("etc/default/mydrv-ota", "MYDRV_OTA_ON_FAILURE=report\n")
    assert system.run("failed").returncode == 0
    assert not system.restarts()


def test_check_wants_an_enabled_unit_and_a_report_that_passed(tmp_path):
    system = System(tmp_path)
    assert system.run("check").returncode == 1
    for verdict, status in ("fail", 1), ("pass", 0):
        system.put("run/mydrv/validate.json", '{\n  "verdict": "%s",\n  "checks": [\n    {\n      "verdict": "pass"\n' % verdict)
        assert system.run("check").returncode == status
    system.program("systemctl", "echo disabled; exit 1")
    done = system.run("check")
    assert done.returncode == 1 and "is disabled" in done.stderr


def test_good_since_the_first_good_boot(tmp_path):
    system = System(tmp_path)
    for version in "1.0.0", "changed":
        system.put("etc/os-release", f"IMAGE_VERSION={version}\n")
        done = system.run("good")
        assert done.returncode == 0, done.stderr
        assert system.record("slot-A/last")["version"] == version
    assert system.record("slot-A/good")["version"] == "1.0.0"


def test_installing_ends_the_target_slots_story(tmp_path):
    system = System(tmp_path)
    handler = {"RAUC_TARGET_SLOTS": "2", "RAUC_SLOT_BOOTNAME_2": "B", "RAUC_BUNDLE_MOUNT_POINT": str(tmp_path / "bundle")}
    system.put("bundle/manifest.raucm", "")
    system.put("etc/default/mydrv-ota", "MYDRV_OTA_READ_AHEAD=always\n")
    (tmp_path / "ota-pre-install").symlink_to(SCRIPT)

    def install():
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        environment = {"PATH": path, "MYDRV_OTA_ROOT": str(tmp_path), **handler}
        return subprocess.run([tmp_path / "ota-pre-install"], env=environment, capture_output=True, text=True)

    system.put("data/mydrv/slot-B/good", "version=1.0.0\n")
    system.put("data/mydrv/fallback", "from=B\n")
    done = install()
    assert done.returncode == 1 and "still on trial" in done.stderr
    assert system.record("slot-B/good")
    system.put("data/mydrv/slot-A/good", "version=1.0.0\n")
    assert install().returncode == 0
    assert system.record("slot-B/good") is None and system.record("fallback") is None
    (tmp_path / "bundle/manifest.raucm").unlink()
    done = install()
    assert done.returncode == 1 and "damaged" in done.stderr
