# SPDX-License-Identifier: MIT
"""The layer's cases for `bitbake -c testimage`, by OE-Core's own loader, on the guest in place of testimage's."""

import logging
import os
import sys
from pathlib import Path

import pytest

from guest import TOP

pytestmark = pytest.mark.own_guest

CASES = TOP / "meta-mydrv/lib/oeqa/runtime/cases"
LAYERS = Path(os.environ.get("LG_BUILD", "/nonexistent")).parent / "layers"


class Target:
    """What a case knows of its target."""

    def __init__(self, guest):
        self.guest = guest

    def run(self, command, timeout=300, **_):
        output, status = self.guest.execute(command, timeout=timeout)
        return status, "\n".join(output)


def cases(suite):
    """The names of a suite's cases."""
    for item in suite:
        yield from [item.id().split(".")[-1]] if hasattr(item, "id") else cases(item)


@pytest.fixture
def outcome(monkeypatch):
    """A function that runs the cases on a guest: which of them passed, were skipped, or failed by what."""
    if not (LAYERS / "openembedded-core").is_dir():
        pytest.skip("no OE-Core beside what was built: bench/test yocto has it")
    for path in ("openembedded-core/meta/lib", "bitbake/lib"):
        monkeypatch.syspath_prepend(str(LAYERS / path))
    from oeqa.runtime.context import OERuntimeTestContext

    def outcome(guest, **variables):
        data = {"DISTRO_FEATURES": "systemd", "MACHINE_FEATURES": "mydrv", "IMAGE_FEATURES": "mydrv", "MLPREFIX": "", "MACHINE": "qemuarm64", **variables}
        data |= {"WORKDIR": "/tmp", "IMAGE_PKGTYPE": "deb"}
        packages = {"mydrvctl", "mydrvctl-validate", "mydrvctl-tests"}
        context = OERuntimeTestContext(data, logging.getLogger("oeqa"), Target(guest), packages, "/nonexistent")
        context.loadTests([str(CASES)], modules=["mydrv"])
        names = set(cases(context.suites))
        results = context.runTests()
        failed = {case.id(): text for case, text in [*results.failures, *results.errors]}
        skipped = {case.id().split(".")[-1] for case, _ in results.skipped}
        return names - skipped - {name.split(".")[-1] for name in failed}, skipped, failed

    yield outcome
    # The cases' own module is of the classes that it was loaded with.
    for name in [name for name in sys.modules if name.split(".")[0] in ("oeqa", "mydrv")]:
        del sys.modules[name]


def test_cases_pass_on_a_good_boot(boot, outcome):
    passed, skipped, failed = outcome(boot())
    assert not failed
    assert skipped == {"test_boot_without_overlay_is_not_good"}
    assert len(passed) == 7, passed


def test_cases_see_that_a_boot_without_overlay_is_not_good(boot, outcome):
    passed, _, failed = outcome(boot(product=False), MYDRV_TEST_OVERLAY="0")
    assert not failed
    assert passed == {"test_boot_without_overlay_is_not_good"}


def test_cases_fail_on_the_wrong_boot(boot, outcome):
    """They can fail: the same boot without the overlay, said to have it."""
    _, _, failed = outcome(boot(product=False))
    [reason] = [text for name, text in failed.items() if name.endswith("test_boot_was_good")]
    assert "!= 'success'" in reason, reason


def test_ptest_package_passes(boot):
    """The crates' own tests, as ptest-runner would run them."""
    guest = boot()
    ptest = "/usr/lib/mydrvctl/ptest/run-ptest"
    if guest.status(f"test -x {ptest}"):
        pytest.skip("no mydrvctl-ptest in the image: bench/test yocto has it")
    output, status = guest.execute(ptest, timeout=300)
    verdicts = [line.split(":")[0] for line in output if line.startswith(("PASS:", "FAIL:", "SKIP:"))]
    assert status == 0 and "FAIL" not in verdicts, "\n".join(output)
    assert verdicts.count("PASS") > 40, "\n".join(output)
