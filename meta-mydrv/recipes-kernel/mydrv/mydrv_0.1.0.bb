# SPDX-License-Identifier: MIT
SUMMARY = "Kernel driver of the mydrv DMA buffers"
DESCRIPTION = "A Rust driver that claims a reserved memory region and hands it to applications by mmap(). systemd loads it early, before much of a region is lent out; elsewhere udev does by the device node's modalias."
HOMEPAGE = "https://mydrv.example"
SECTION = "kernel"
LICENSE = "GPL-2.0-only"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/GPL-2.0-only;md5=801f80980d171dd6425610833a22dbe6"

# module-rust's is OE-Core's own.
DEPENDS:remove = "${@'rust-native' if d.getVar('MYDRV_RUST') == 'prebuilt' else ''}"
DEPENDS += "${@'rust-bin-cross-${TARGET_ARCH}' if d.getVar('MYDRV_RUST') == 'prebuilt' else ''}"

FILESEXTRAPATHS:prepend := "${THISDIR}:${THISDIR}/../../recipes-apps/mydrvctl/mydrvctl/mydrv-abi/src:"
SRC_URI = "file://mydrv \
           file://abi.rs"

S = "${UNPACKDIR}/mydrv"

inherit module-rust features_check mydrv-local-source

REQUIRED_MACHINE_FEATURES = "mydrv"

# The ABI is the user-space workspace's.
EXTRA_OEMAKE += "MYDRV_ABI=${UNPACKDIR}/abi.rs"

do_install:append() {
    oe_runmake -C ${S} install-conf DESTDIR=${D} PREFIX=${prefix}
}

FILES:${PN} += "${nonarch_libdir}/modules-load.d ${nonarch_libdir}/modprobe.d"
