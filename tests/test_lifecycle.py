# SPDX-License-Identifier: MIT
"""The device goes and comes back while it is used; allocations fail; the module is taken out; random calls."""

import pytest

from guest import TESTS

pytestmark = pytest.mark.usefixtures("quiet")

SMALL = "/dev/mydrv/by-label/noncoherent"


@pytest.fixture
def small(guest, device):
    """A small buffer, which takes less time to zero at each bind; the product's where there is only that."""
    return SMALL if guest.status(f"test -e {SMALL}") == 0 else device


@pytest.fixture
def node(guest):
    """Of a path by label the node: the link is udev's, which follows a moment after the device."""
    return lambda path: guest.run(f"udevadm settle; readlink -f {path}")


def test_revoke(guest, each_kind, node):
    guest.test("revoke", device=node(each_kind), timeout=180)


# What runs for long enough, its exit code, and a word of what it says; each touches a mapping most of the time.
MAPPED = {
    "validate": ("mydrvctl --device {} validate --repeat 100000", 1, "the device is gone"),
    "bench": ("mydrvctl --device {} bench --rounds 1000000", 5, "the device is gone"),
    "dma-loop": ("mydrvctl --device {} dma-loop --rounds 1000000", 5, "the device is gone"),
}


@pytest.mark.lg_feature("qemu")
@pytest.mark.parametrize("name", MAPPED)
def test_unbind_ends_a_command_with_a_word(guest, small, node, name):
    command, expected, word = MAPPED[name]
    path = node(small)
    platform = guest.run(f"basename $(realpath /sys/class/misc/$(basename {path})/device)")
    script = f"""
        {command.format(path)} >/tmp/said 2>&1 & pid=$!
        until grep -q '^[0-9a-f-]* rw-s .* {path}$' /proc/$pid/maps || ! kill -0 $pid; do sleep 0.01; done; sleep 1
        echo {platform} >/sys/bus/platform/drivers/mydrv/unbind
        wait $pid; status=$?
        echo {platform} >/sys/bus/platform/drivers/mydrv/bind
        tail -n 30 /tmp/said; (exit $status)
    """
    output, status = guest.execute(script, timeout=180)
    assert status == expected and word in "".join(output), (status, output)


def test_bind_cycles_under_load(guest, small, node):
    guest.test("bind-cycles", guest.scaled(1000, debug=60), device=node(small), timeout=900)


def test_device_is_bound_again_whatever_becomes_of_a_test(guest, small, node):
    """It is ended again and again until that happens to come while the device is unbound."""
    path = node(small)
    script = f"""
        for i in $(seq 40); do
            {TESTS} --device {path} bind-cycles 100000 >/tmp/said 2>&1 & pid=$!
            sleep 1.$i; kill $pid; wait $pid; status=$?
            [ $status = 143 ] && [ -e {path} ] || {{ cat /tmp/said; echo "status $status"; exit 1; }}
            ! grep -q 'bound again' /tmp/said || exit 0
        done
        exit 2
    """
    guest.run(f"( {script} )", timeout=300)


def test_bind_cycles_of_the_whole_region(guest, device, node):
    """Each bind needs all of the region back."""
    guest.test("bind-cycles", guest.scaled(20, debug=3), device=node(device), timeout=300)


def test_binds_while_the_region_is_lent(guest, small, node):
    """The kernel keeps files in a region that is free; pages that are just being written cannot leave at once."""
    name = guest.run(f"basename $(realpath /sys/class/misc/$(basename {node(small)})/device)")
    script = f"""
        (while :; do dd if=/dev/zero of=/var/tmp/lent bs=1M count=200 conv=fsync; cat /usr/bin/*; done >/dev/null 2>&1 & echo $! >/run/lender)
        cd /sys/bus/platform/drivers/mydrv
        for i in $(seq {guest.scaled(150, debug=20)}); do echo {name} >unbind; sleep 0.05; echo {name} >bind || break; done
        kill $(cat /run/lender); rm -f /var/tmp/lent; test -e {name}
    """
    guest.run(script, timeout=300)


def test_forks_while_revoked(guest, small, node):
    guest.test("fork-revoke", guest.scaled(200, debug=20), device=node(small), timeout=400)


def test_allocations_fail_in_turn(guest, small, node):
    guest.test("fail-nth", device=node(small), timeout=300)


def test_open_file_keeps_the_module(guest, device, node):
    path = node(device)
    guest.run(f"{TESTS} --device {path} hold >/run/hold 2>&1 & echo $! >/run/hold.pid; sleep 1; grep -q holding /run/hold")
    output, status = guest.execute("rmmod mydrv")
    assert status != 0 and "in use" in "".join(output), output
    guest.run("kill $(cat /run/hold.pid)")
    guest.run("for i in $(seq 50); do rmmod mydrv 2>/dev/null && break; sleep 0.1; done; test ! -d /sys/module/mydrv")
    assert guest.run("ls /dev | grep -E '^mydrv[0-9]+$' || true") == ""
    guest.run(f"modprobe mydrv async_probe=n && udevadm settle && test -e {device}")


def test_module_comes_and_goes(guest, device):
    cycles = guest.scaled(30, debug=8)
    guest.run(f"for i in $(seq {cycles}); do rmmod mydrv && modprobe mydrv || exit 1; done", timeout=300)
    # Loading does not wait for the buffers.
    guest.run(f"for i in $(seq 100); do test -e {device} && break; sleep 0.1; done; udevadm settle")
    guest.run(f"mydrvctl --device {device} validate --quick", timeout=120)


def test_fuzz(guest, each_kind, node):
    """The seed is printed with a failure; docs/testing.md says how to use it."""
    guest.test("fuzz", "--seconds", guest.scaled(10, debug=20), device=node(each_kind), timeout=400)


def test_storm(guest, small, node):
    guest.test("storm", "--seconds", guest.scaled(40, debug=60), device=node(small), timeout=400)


def test_everything_works_after_all_that(guest, each_kind):
    guest.run(f"udevadm settle; mydrvctl --device {each_kind} validate", timeout=180)


def test_nothing_leaked(guest):
    """Last: what the tests before left behind."""
    if not guest.is_debug:
        pytest.skip("the kernel looks for no leaks (CONFIG_DEBUG_KMEMLEAK)")
    # Twice: the first scan finds what may be a leak, the second what still is. The kernel's own boot leaves some.
    guest.run("rmmod mydrv")
    scan = "echo scan >/sys/kernel/debug/kmemleak"
    guest.run(f"{scan}; sleep 6; {scan}", timeout=200)
    leaks = guest.run("cat /sys/kernel/debug/kmemleak")
    guest.run("modprobe mydrv")
    assert not [leak for leak in leaks.split("unreferenced object") if "mydrv" in leak], leaks
