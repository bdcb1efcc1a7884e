# SPDX-License-Identifier: MIT
"""The boot's verdict, and what the boot set up."""

import json

import pytest

from conftest import KINDS


def test_boot_is_good(guest):
    assert guest.run("systemctl is-active mydrv-validate.service boot-complete.target").split() == ["active", "active"]
    report = json.loads(guest.run("cat /run/mydrv/validate.json"))
    assert (report["verdict"], report["failed"]) == ("pass", 0), report
    assert report["passed"] > 30


@pytest.mark.lg_feature("qemu")
def test_every_buffer_was_checked_and_the_boot_marked_good(guest):
    report = json.loads(guest.run("cat /run/mydrv/validate.json"))
    assert report["devices"] == 1 + len(KINDS)
    guest.run("test -e /run/bench-marked-good")


def test_no_unit_failed(guest):
    assert guest.run("systemctl --failed --no-legend --plain") == ""


def test_driver_names_each_buffer_once(guest):
    # By the journal: a driver that was bound again since says so again in the kernel's log.
    lines = guest.run("journalctl -k -o cat -g '/dev/mydrv[0-9]+: [0-9]+ KiB, '").splitlines()
    nodes = guest.run("ls /dev | grep -E '^mydrv[0-9]+$'").splitlines()
    assert nodes
    for node in nodes:
        assert any(f"/dev/{node}: " in line for line in lines), f"{node}: {lines}"


def test_node_belongs_to_the_group_alone(guest, device):
    assert guest.run(f"stat -Lc '%a %U %G %F' {device}") == "660 root mydrv character special file"
    guest.run(f"setpriv --reuid=mydrv --regid=mydrv --clear-groups head -c 1 {device} | wc -c | grep -qx 1")
    output, status = guest.execute(f"setpriv --reuid=65534 --regid=65534 --clear-groups head -c 1 {device}")
    assert status != 0 and "Permission denied" in "".join(output)


def test_module_is_loaded_by_its_alias(guest):
    aliases = guest.run("modinfo -F alias mydrv")
    assert "of:N*T*Cmydrv,dma-buffer" in aliases
    assert guest.run("modinfo -F license mydrv") in ("GPL v2", "GPL")
    guest.run("test -d /sys/module/mydrv")


UNITS = ["mydrv-validate.service", "mydrv-validate@mydrv0.service"]


@pytest.mark.parametrize("unit", UNITS)
def test_unit_is_sandboxed(guest, unit):
    last = guest.run(f"systemd-analyze security --no-pager {unit} | grep 'Overall exposure'", timeout=120)
    assert float(last.split(":")[1].split()[0]) <= 2.0, last


@pytest.mark.parametrize("unit", [*UNITS, "mydrv-ready.target"])
def test_unit_is_well_formed(guest, unit):
    assert guest.run(f"systemd-analyze verify --man=no {unit}", timeout=120) == ""


def test_reports_tell_addresses_to_the_group_alone(guest):
    assert set(guest.run("stat -c '%a %U %G' /run/mydrv/*.json").splitlines()) == {"640 mydrv mydrv"}


def invocation(guest, name):
    return guest.run(f"systemctl show -P InvocationID mydrv-validate@{name}.service")


def settled(guest, name, state="active"):
    """Waits until the validation of a device has come to this state."""
    question = f"[ $(systemctl show -P ActiveState mydrv-validate@{name}.service) = {state} ]"
    guest.run(f"until {question}; do sleep 0.2; done", timeout=90)


def test_rebound_device_is_validated_again(guest, device):
    name = guest.run(f"basename $(readlink -f {device})")
    platform = guest.run(f"basename $(readlink -f /sys/class/misc/{name}/device)")
    report = f"/run/mydrv/{name}.json"
    settled(guest, name)
    first = invocation(guest, name), guest.run(f"stat -c %i {report}")
    guest.run("udevadm trigger -c change -s misc; udevadm settle")
    assert invocation(guest, name) == first[0], "an event that is no new device started it again"
    guest.run(f"echo {platform} >/sys/bus/platform/drivers/mydrv/unbind")
    settled(guest, name, "inactive")
    guest.run(f"test ! -e {report}")
    guest.run(f"echo {platform} >/sys/bus/platform/drivers/mydrv/bind", timeout=120)
    settled(guest, name)
    assert invocation(guest, name) != first[0]
    assert json.loads(guest.run(f"cat {report}"))["verdict"] == "pass"


def test_check_runs_again_by_hand(guest):
    before = invocation(guest, "mydrv0")
    guest.run("systemctl restart mydrv-validate.service", timeout=180)
    assert guest.run("systemctl show -P Result mydrv-validate.service") == "success"
    assert invocation(guest, "mydrv0") != before, "the devices were not validated again"


def test_device_in_use_is_neither_good_nor_bad(guest, device):
    """An application was first, with a lock, then one that takes none; afterwards all is well again."""
    name = guest.run(f"basename $(readlink -f {device})")
    unit = f"mydrv-validate@{name}.service"
    drop_in = f"/run/systemd/system/{unit}.d"
    # By its name after slow.conf of the debug kernel's guest.
    guest.run(f"mkdir -p {drop_in}; printf '[Service]\\nEnvironment=MYDRV_WAIT=2\\n' >{drop_in}/z-hurry.conf; systemctl daemon-reload")
    try:
        for user in f"flock -s {device} sleep 600", f"sleep 600 <{device}":
            guest.run(f"({user}) >/dev/null 2>&1 & sleep 1")
            try:
                guest.execute(f"systemctl restart {unit}", timeout=120)
                assert guest.run(f"systemctl show -P ExecMainStatus {unit}") == "6"
                # What the unit of the boot's verdict runs.
                assert guest.status("mydrvctl validate --boot >/dev/null", timeout=120) == 6
                report = json.loads(guest.run("cat /run/mydrv/validate.json"))
                assert (report["verdict"], report["failed"]) == ("in-use", 0), report
                busy = [check["reason"] for check in report["checks"] if check["verdict"] == "in-use"]
                assert len(busy) == 1 and f"/dev/{name}: in use by" in busy[0], busy
            finally:
                guest.run("pkill -x sleep; true")
    finally:
        guest.run(f"rm -r {drop_in}; systemctl daemon-reload")
    guest.run(f"systemctl restart {unit}", timeout=120)
    guest.run("mydrvctl validate --boot", timeout=120)
    assert json.loads(guest.run("cat /run/mydrv/validate.json"))["verdict"] == "pass"


def test_applications_start_after_the_validation(guest):
    unit = "[Unit]\\nRequires=mydrv-ready.target\\nAfter=mydrv-ready.target\\n[Service]\\nType=oneshot\\nExecStart=/bin/true\\n"
    guest.run(f"printf '{unit}' >/run/systemd/system/application.service; systemctl daemon-reload")
    guest.run("systemctl start application.service", timeout=180)
    order = guest.run("systemctl show -P After mydrv-ready.target; systemctl show -P Before mydrv-validate.service")
    assert "mydrv-validate.service" in order and "mydrv-ready.target" in order and "boot-complete.target" in order, order
