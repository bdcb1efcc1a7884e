# SPDX-License-Identifier: MIT
SUMMARY = "Update policy: a slot is good only if the mydrv check passed"
DESCRIPTION = "Units and their script: records what became of each slot, restarts a slot on trial that fails its check, and arms the watchdog."
HOMEPAGE = "https://mydrv.example"
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

FILESEXTRAPATHS:prepend := "${THISDIR}:"
SRC_URI = "file://mydrv-ota"

S = "${UNPACKDIR}/mydrv-ota"

inherit features_check mydrv-local-source systemd

REQUIRED_DISTRO_FEATURES = "rauc systemd"

SYSTEMD_SERVICE:${PN} = "data.mount mydrv-ota-begin.service"

do_compile[noexec] = "1"

do_install() {
    oe_runmake install DESTDIR=${D} PREFIX=${prefix} SYSCONFDIR=${sysconfdir} UNITDIR=${systemd_system_unitdir}
}

FILES:${PN} += "${systemd_system_unitdir} ${nonarch_libdir}/systemd/system.conf.d"
CONFFILES:${PN} = "${sysconfdir}/default/mydrv-ota"

RDEPENDS:${PN} = "libubootenv-bin mydrvctl-validate rauc rauc-mark-good"
