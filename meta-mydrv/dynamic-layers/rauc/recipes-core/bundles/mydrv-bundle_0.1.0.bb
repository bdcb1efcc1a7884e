# SPDX-License-Identifier: MIT
SUMMARY = "Update of the mydrv image"
DESCRIPTION = "A signed RAUC bundle: kernel, module, overlay and root file system in one image, with an index for adaptive downloads."
HOMEPAGE = "https://mydrv.example"
SECTION = "base"
LICENSE = "MIT"

SRC_URI = ""

inherit bundle features_check mydrv-ota

REQUIRED_MACHINE_FEATURES = "mydrv-ota"

RAUC_BUNDLE_COMPATIBLE = "${MYDRV_OTA_COMPATIBLE}"
RAUC_BUNDLE_VERSION = "${MYDRV_OTA_VERSION}"
# No time stamp: the same inputs give the same payload.
RAUC_BUNDLE_BUILD = "${MYDRV_OTA_VERSION}"
RAUC_BUNDLE_FORMAT = "verity"
RAUC_BUNDLE_SLOTS = "rootfs"
RAUC_SLOT_rootfs ?= "mydrv-image"
RAUC_SLOT_rootfs[fstype] = "ext4"
RAUC_SLOT_rootfs[adaptive] = "block-hash-index"
RAUC_SLOT_rootfs[rename] = "rootfs.ext4"

mydrv_ota_keys[doc] = "Stops a build that has no key, or a release that has a development key."
python mydrv_ota_keys() {
    mydrv_ota_require_keys(d, 'RAUC_KEY_FILE RAUC_CERT_FILE RAUC_KEYRING_FILE')
}
# First of all, and when it counts.
do_fetch[prefuncs] += "mydrv_ota_keys"
do_bundle[prefuncs] += "mydrv_ota_keys"
mydrv_ota_keys[vardeps] += "RAUC_KEY_FILE RAUC_CERT_FILE RAUC_KEYRING_FILE MYDRV_OTA_RELEASE"
