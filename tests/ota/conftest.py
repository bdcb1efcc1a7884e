# SPDX-License-Identifier: MIT
"""Fixtures: a folder for bundles with its server, and devices: one that tests share while it is well, and new ones."""

import shutil

import pytest
from device import OTA, Device, Server

pytest_plugins = ["tally"]
# What matters most comes first, for when the time is bounded.
ORDER = ["ota_updates", "ota_bitbake", "ota_refused", "ota_broken", "ota_power"]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: ORDER.index(item.module.__name__))


def pytest_addoption(parser):
    parser.addoption("--cuts", type=int, default=30, help="how often the power goes (default: 30)")
    parser.addoption("--seed", type=int, default=1, help="the first cut's seed; each has the next one (default: 1)")


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    # On the disk of the build, where disks and images are: /tmp may be memory.
    folder = OTA / "bundles"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def server(bundles):
    server = Server(bundles)
    yield server
    server.close()


@pytest.fixture
def new_device(request):
    """A function that makes a device, switched off."""
    devices = []

    def new(**kwargs):
        name = f"{request.node.name.replace('/', '-')}-{len(devices)}"
        folder = OTA / "devices" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        devices.append(Device(folder, OTA.parent / f"log/ota-{name}.log", **kwargs))
        return devices[-1]

    yield new
    for device in devices:
        device.off()
        shutil.rmtree(device.folder)


class Shared:
    """A device that runs 1.0.0 in slot A, good, between tests."""

    def __init__(self):
        self.device = None

    def get(self):
        if self.device is None:
            folder = OTA / "devices/shared"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self.device = Device(folder, OTA.parent / "log/ota-shared.log")
            self.device.on()
            assert self.device.good() == (("A", "1.0.0"), [])
            self.device.login()
            self.device.network()
        return self.device

    def drop(self):
        if self.device:
            self.device.off()
            shutil.rmtree(self.device.folder)
            self.device = None


@pytest.fixture(scope="session")
def shared():
    shared = Shared()
    yield shared
    shared.drop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    setattr(item, f"report_{report.when}", report)
    return report


@pytest.fixture
def device(request, shared):
    """The shared device; after a failure the next test gets a new one."""
    yield shared.get()
    if not getattr(request.node, "report_call", None) or request.node.report_call.failed:
        shared.drop()
