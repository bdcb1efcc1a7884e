# SPDX-License-Identifier: MIT
SUMMARY = "The mydrv DMA buffer: driver, overlay, mydrvctl, the boot's check"
DESCRIPTION = "All of the component. The image feature \"mydrv\" installs it; an image may name the packages one by one instead."
SECTION = "base"
LICENSE = "MIT"

# Driver and overlay are the machine's own.
PACKAGE_ARCH = "${MACHINE_ARCH}"

inherit packagegroup features_check

REQUIRED_MACHINE_FEATURES = "mydrv"

# mydrv, which depends on its module: by the name kernel-module-mydrv bitbake would look to the kernel's recipe.
RDEPENDS:${PN} = "mydrv \
                  mydrv-overlay \
                  mydrvctl \
                  mydrvctl-validate"
