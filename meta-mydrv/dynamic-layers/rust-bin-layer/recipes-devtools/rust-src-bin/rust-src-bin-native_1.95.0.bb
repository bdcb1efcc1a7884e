# SPDX-License-Identifier: MIT
SUMMARY = "Rust's library sources, for meta-rust-bin's compiler of the same version"
DESCRIPTION = "The kernel compiles its own core from them, by the very compiler whose version they are of."
HOMEPAGE = "https://www.rust-lang.org"
SECTION = "devel"
LICENSE = "Apache-2.0 | MIT"
LIC_FILES_CHKSUM = "file://COPYRIGHT;md5=11a3899825f4376896e438c8c753f8dc"

SRC_URI = "https://static.rust-lang.org/dist/2026-04-16/rust-src-${PV}.tar.xz"
SRC_URI[sha256sum] = "67b09138c8db96afc4bbfc69ea771ac9a091fd777698acb43f6dfd9fb7dea363"

S = "${UNPACKDIR}/rust-src-${PV}"

inherit_defer native

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${libdir}/rustlib
    cp -R --no-preserve=ownership rust-src/lib/rustlib/src ${D}${libdir}/rustlib
}

INHIBIT_SYSROOT_STRIP = "1"
