# SPDX-License-Identifier: MIT
SUMMARY = "The bench's kernel, packaged by bitbake"
DESCRIPTION = "Debian's kernel source and a copy of the bench's finished build, so that it need not be compiled again; configured anew with the layer's \
fragment over the bench's own."
LICENSE = "GPL-2.0-only"
LIC_FILES_CHKSUM = "file://COPYING;md5=6bc538ed5bd9a7fc9398086aedcd7e46"

inherit kernel kernel-yocto-rust externalsrc
require recipes-kernel/linux/linux-mydrv.inc

# BENCH_*: by tests/yocto/lib.sh.
PV = "${LINUX_VERSION}"
LINUX_VERSION = "${BENCH_LINUX_VERSION}"
EXTERNALSRC = "${BENCH_LINUX_SOURCE}"
EXTERNALSRC_BUILD = "${BENCH_LINUX_BUILD}"
EXTERNALSRC_SYMLINKS = ""

# The bench's own flags, or everything would be out of date.
EXTRA_OEMAKE = "ARCH=${ARCH} CROSS_COMPILE=${TARGET_PREFIX}"
KRUSTFLAGS = ""

do_configure:prepend() {
    cd ${B}
    ${S}/scripts/kconfig/merge_config.sh -m -O . .config ${UNPACKDIR}/mydrv.cfg
    oe_runmake -C ${S} O=${B} rustavailable
}

# The class would empty B.
do_unpack[cleandirs] = "${UNPACKDIR}"
