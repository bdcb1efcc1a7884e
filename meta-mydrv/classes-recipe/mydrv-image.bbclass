# SPDX-License-Identifier: MIT
# Images: the feature "mydrv", and the boot files that bring the overlay to the kernel. Inherited by every image through IMAGE_CLASSES; an image
# without the feature stays as it is.

FEATURE_PACKAGES_mydrv = "packagegroup-mydrv"

# runqemu: QEMU's own tree with the overlay applied (mydrv-overlay).
QB_DTB:qemuarm64 = "${@bb.utils.contains('IMAGE_FEATURES', 'mydrv', 'devicetree/${MACHINE}-${MYDRV_OVERLAY}.dtb', '', d)}"

# The firmware of the Raspberry Pi applies what config.txt names.
IMAGE_BOOT_FILES:append:rpi = "${@bb.utils.contains('IMAGE_FEATURES', 'mydrv', ' devicetree/${MYDRV_OVERLAY}.dtbo;overlays/${MYDRV_OVERLAY}.dtbo', '', d)}"

do_image_wic[depends] += "${@bb.utils.contains('IMAGE_FEATURES', 'mydrv', 'mydrv-overlay:do_deploy', '', d)}"
do_image_complete[depends] += "${@bb.utils.contains('IMAGE_FEATURES', 'mydrv', 'mydrv-overlay:do_deploy', '', d)}"
