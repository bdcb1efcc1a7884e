# SPDX-License-Identifier: MIT
SUMMARY = "A small image with the mydrv DMA buffer"
DESCRIPTION = "What boots, the component, and nothing else: systemd, the driver with its buffer, mydrvctl and the check that the boot waits for."
SECTION = "images"
LICENSE = "MIT"

inherit core-image features_check

REQUIRED_MACHINE_FEATURES = "mydrv"

IMAGE_FEATURES += "mydrv"
IMAGE_INSTALL = "packagegroup-core-boot ${CORE_IMAGE_EXTRA_INSTALL}"
