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


def test_unit_is_sandboxed(guest):
    last = guest.run("systemd-analyze security --no-pager mydrv-validate.service | grep 'Overall exposure'", timeout=120)
    assert float(last.split(":")[1].split()[0]) <= 2.0, last


def test_unit_is_well_formed(guest):
    assert guest.run("systemd-analyze verify --man=no mydrv-validate.service", timeout=120) == ""


def test_check_runs_again_by_hand(guest):
    guest.run("systemctl restart mydrv-validate.service", timeout=180)
    assert guest.run("systemctl show -P Result mydrv-validate.service") == "success"
