# SPDX-License-Identifier: MIT
SUMMARY = "Stand-ins for native tools that the root has, or that need none"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

PROVIDES = "host-tools-native virtual/fakeroot-native pseudo-native rpm-native pkgconfig-native pkgconf-native ncurses-native rauc-native"

SRC_URI = "file://pseudo"

S = "${UNPACKDIR}"

inherit native

INHIBIT_DEFAULT_DEPS = "1"

do_install() {
    install -D -m 755 pseudo ${D}${bindir}/pseudo
    # Called by these paths.
    ln -s /usr/bin/rauc ${D}${bindir}/rauc
    install -d ${D}${libdir}/rpm
    ln -s /usr/lib/rpm/rpmdeps ${D}${libdir}/rpm/rpmdeps
}
