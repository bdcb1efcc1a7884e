# SPDX-License-Identifier: MIT
"""Fixtures: the shared guest, its buffers, and guests of a test's own. After each test the kernel's log is looked at."""

from base64 import b64encode

import pytest

import guest as guests
from guest import buffer, overlay, region

# What runs apart: `make yocto` in bitbake's root, the sessions `ota` and `guards` on machines of their own.
collect_ignore = ["guards", "ota", "yocto"]

pytest_plugins = ["tally"]

MIB = 1 << 20

# A system credential that shortens the boot's check's wait for udev, which a device that never comes takes in full.
DROP_IN = b"""[Service]
ExecStart=
ExecStart=/usr/bin/mydrvctl validate --boot --wait 10
"""
HURRY = f"systemd.set_credential_binary=systemd.unit-dropin.mydrv-validate.service:{b64encode(DROP_IN).decode()}"

# The packages that bitbake writes expect the product's buffer and no other. After the drop-in that says so, by its name.
ALL_EXPECTED = " ".join(
    f"systemd.set_credential_binary=systemd.unit-dropin.{unit}~z:{b64encode(b'[Service]\nEnvironment=MYDRV_EXPECT=\n').decode()}"
    for unit in ("mydrv-validate.service", "mydrv-validate@.service")
)

# One buffer of each kind beside the product's own: label, properties, and the region that it owns.
KINDS = {
    "write-combine": ('mydrv,cache-mode = "write-combine"; dma-noncoherent;', region("cma_wc", 4 * MIB)),
    "cached": ('mydrv,cache-mode = "cached"; dma-noncoherent;', region("cma_cached", 4 * MIB)),
    "noncoherent": ("dma-noncoherent;", region("cma_noncoherent", 4 * MIB)),
    "read-only": ("read-only;", region("cma_ro", 4 * MIB)),
    "scrub": ("mydrv,scrub;", region("cma_scrub", 4 * MIB)),
    "no-map": ("", region("pool", 4 * MIB, "no-map;")),
    # All of the machine's memory will do for it: what this says is for a test to change.
    "part": ("size = <0 0x3000>;", region("cma_part", 4 * MIB, "reusable; alloc-ranges = <0 0x40000000 0 0x40000000>;")),
    "default-pool": ("size = <0 0x100000>;", None),
}
PRODUCT = "buffer0"


def pytest_addoption(parser):
    parser.addoption("--boots", type=int, default=0, help="how often test_large_region_binds_at_each_boot boots each size")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    # What boots guests of its own comes last, when the shared one is no longer needed.
    items.sort(key=lambda item: item.get_closest_marker("own_guest") is not None)


class Shared:
    """The guest that most tests share, while it is up."""

    def __init__(self):
        self.guest = None
        self.failure = None


@pytest.fixture(scope="session")
def shared():
    shared = Shared()
    yield shared
    if shared.guest:
        shared.guest.off()


def kinds_tree(path):
    nodes, regions = [], []
    for label, (properties, reserved) in KINDS.items():
        if reserved:
            regions.append(reserved)
            properties += f" memory-region = <&{reserved.split(':')[0]}>;"
        nodes.append(buffer(f"mydrv-{label}", f'{properties} label = "{label}";'))
    return guests.machine_tree(path, overlay(*nodes, regions=regions))


@pytest.fixture
def guest(request, shared, tmp_path_factory):
    """The shared guest: on QEMU with one buffer of each kind, a board with its own."""
    env = guests.environment(request)
    if shared.failure:
        pytest.fail(f"the guest did not come up: {shared.failure}")
    if shared.guest is None:
        tree = kinds_tree(tmp_path_factory.mktemp("kinds")) if "qemu" in env.get_features() else None
        try:
            shared.guest = guests.boot(env.config_file, tree, ALL_EXPECTED if tree else "")
            shared.guest.settle()
        except Exception as error:
            shared.failure = repr(error)
            raise
    yield shared.guest
    warnings = shared.guest.kernel_warnings()
    assert not warnings, f"the kernel warned:\n{warnings}"


@pytest.fixture
def boot(request, shared, tmp_path):
    """A function that boots a guest of the test's own: its arguments are machine_tree()'s, and `append`."""
    if shared.guest:
        shared.guest.off()
        shared.guest, shared.failure = None, None
    env = guests.environment(request)
    booted = []

    def boot(*sources, append="", **kwargs):
        booted.append(guests.boot(env.config_file, guests.machine_tree(tmp_path, *sources, **kwargs), f"{append} {HURRY}"))
        booted[-1].settle()
        return booted[-1]

    yield boot
    for guest in booted:
        warnings = guest.kernel_warnings()
        guest.off()
        assert not warnings, f"the kernel warned:\n{warnings}"


@pytest.fixture
def device(guest, request):
    """The product's buffer."""
    if "qemu" in guests.environment(request).get_features():
        return f"/dev/mydrv/by-label/{PRODUCT}"
    return "/dev/mydrv0"


@pytest.fixture
def quiet(guest):
    """Keeps udev from having a device validated whenever a test binds it."""
    guest.run("systemctl mask --runtime mydrv-validate@.service; systemctl stop 'mydrv-validate@*'")
    yield
    guest.run("systemctl unmask --runtime mydrv-validate@.service; udevadm settle")


@pytest.fixture(params=[PRODUCT, *KINDS])
def each_kind(request, guest):
    """Every kind of buffer in turn."""
    path = f"/dev/mydrv/by-label/{request.param}"
    if guest.status(f"test -e {path}"):
        pytest.skip(f"no buffer labelled {request.param} in this device tree")
    return path
