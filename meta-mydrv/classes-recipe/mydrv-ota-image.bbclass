# SPDX-License-Identifier: MIT
# Images that update themselves: what a slot holds, and the disk with both. Inherited by every image through IMAGE_CLASSES; an image without the
# feature "mydrv" stays as it is.
inherit mydrv-ota

FEATURE_PACKAGES_mydrv:append = " mydrv-ota kernel-image"

MYDRV_OTA_IMAGE = "${@bb.utils.contains('IMAGE_FEATURES', 'mydrv', '1', '', d)}"
IMAGE_FSTYPES:append = "${@' ext4 wic' if d.getVar('MYDRV_OTA_IMAGE') else ''}"
WKS_FILE = "${@'mydrv-ab.wks' if d.getVar('MYDRV_OTA_IMAGE') else ''}"
do_image_wic[depends] += "${@'virtual/bootloader:do_deploy' if d.getVar('MYDRV_OTA_IMAGE') else ''}"

mydrv_ota_version[doc] = "Writes the system's version, and makes the data partition's mount point."
mydrv_ota_version() {
    printf 'IMAGE_ID=%s\nIMAGE_VERSION=%s\n' "${IMAGE_BASENAME}" "${MYDRV_OTA_VERSION}" >>${IMAGE_ROOTFS}${nonarch_libdir}/os-release
    install -d ${IMAGE_ROOTFS}/data
}
ROOTFS_POSTPROCESS_COMMAND:append = "${@' mydrv_ota_version' if d.getVar('MYDRV_OTA_IMAGE') else ''}"
