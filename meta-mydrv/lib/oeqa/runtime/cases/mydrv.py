#
# SPDX-License-Identifier: MIT
#
# For `bitbake -c testimage` on an image with the feature "mydrv": TEST_SUITES:append = " mydrv". On an image that is booted without the overlay,
# set MYDRV_TEST_OVERLAY = "0": then the boot's check must fail.

import json

from oeqa.core.decorator.data import skipIfNotFeature
from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

REPORT = "/run/mydrv/validate.json"
UNIT = "mydrv-validate.service"


class MydrvTest(OERuntimeTestCase):
    def check(self, command, status=0):
        """Runs a command, asserts its status, returns its output."""
        found, output = self.target.run(command)
        self.assertEqual(found, status, msg=f"{command}: status {found}, not {status}\n{output}")
        return output

    def of_unit(self, name):
        return self.check(f"systemctl show --property {name} --value {UNIT}").strip()

    def skip_unless_overlay(self, overlay):
        if (self.td.get("MYDRV_TEST_OVERLAY", "1") != "0") != overlay:
            self.skipTest(f"the image is booted with{'out' if overlay else ''} the overlay (MYDRV_TEST_OVERLAY)")

    @skipIfNotFeature("systemd", "the check at boot is a systemd unit")
    @OEHasPackage(["mydrvctl-validate"])
    def test_boot_was_good(self):
        self.skip_unless_overlay(True)
        self.assertEqual(self.of_unit("Result"), "success", msg=self.target.run(f"journalctl --no-pager -u {UNIT}")[1])
        self.check("systemctl is-active boot-complete.target mydrv-validate@mydrv0.service")
        report = json.loads(self.check(f"cat {REPORT}"))
        self.assertEqual((report["verdict"], report["failed"]), ("pass", 0), msg=str(report))

    @OETestDepends(["mydrv.MydrvTest.test_boot_was_good"])
    def test_module_is_loaded_by_its_device(self):
        self.check("test -d /sys/module/mydrv")
        self.assertIn("of:N*T*Cmydrv,dma-buffer", self.check("modinfo -F alias mydrv"))

    @OETestDepends(["mydrv.MydrvTest.test_boot_was_good"])
    def test_node_belongs_to_its_group(self):
        self.assertEqual(self.check("stat -c '%a %U %G' /dev/mydrv0").strip(), "660 root mydrv")

    @OETestDepends(["mydrv.MydrvTest.test_boot_was_good"])
    def test_validate_passes(self):
        report = json.loads(self.check("mydrvctl --json validate --quick --full 2>/dev/null"))
        self.assertEqual((report["verdict"], report["failed"]), ("pass", 0), msg=str(report))
        # What the driver has to refuse is part of it.
        refusals = [check for check in report["checks"] if check["id"].startswith("refuse-") and check["verdict"] == "pass"]
        self.assertGreater(len(refusals), 10, msg=str(report))

    @OETestDepends(["mydrv.MydrvTest.test_boot_was_good"])
    def test_wrong_size_is_found(self):
        self.check("mydrvctl validate --quick --expect buffer0=4K", status=1)

    @OETestDepends(["mydrv.MydrvTest.test_boot_was_good"])
    def test_data_goes_in_and_out(self):
        self.check("echo 0123456789abcde | mydrvctl write --offset 4K && mydrvctl read --offset 4K --length 16 | grep -qx 0123456789abcde")

    @OEHasPackage(["mydrvctl-tests"])
    @OETestDepends(["mydrv.MydrvTest.test_boot_was_good"])
    def test_driver_keeps_its_rules(self):
        self.check("/usr/libexec/mydrv/mydrv-tests mmap-rules")

    @skipIfNotFeature("systemd", "the check at boot is a systemd unit")
    @OEHasPackage(["mydrvctl-validate"])
    def test_boot_without_overlay_is_not_good(self):
        self.skip_unless_overlay(False)
        self.assertNotEqual(self.of_unit("Result"), "success")
        self.check("systemctl is-active boot-complete.target", status=3)
        report = json.loads(self.check(f"cat {REPORT}"))
        self.assertEqual(report["verdict"], "fail", msg=str(report))
