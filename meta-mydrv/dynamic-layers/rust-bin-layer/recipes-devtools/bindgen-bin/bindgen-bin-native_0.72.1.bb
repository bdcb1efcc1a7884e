# SPDX-License-Identifier: MIT
SUMMARY = "Rust's binding generator, built by meta-rust-bin's compiler"
DESCRIPTION = "What the kernel's Rust needs beside rustc. OE-Core's bindgen-cli-native would build rustc and LLVM from source for it."
HOMEPAGE = "https://rust-lang.github.io/rust-bindgen/"
SECTION = "devel"
LICENSE = "BSD-3-Clause"
LIC_FILES_CHKSUM = "file://LICENSE;md5=0b9a98cb3dcdefcceb145324693fda9b"

SRC_URI = "crate://crates.io/bindgen-cli/${PV}"
SRC_URI[bindgen-cli-0.72.1.sha256sum] = "8a408c0fcb20bf7bd4ceaf4bf990e223e3543a04b84d2394f3edeee29a0e87e2"
require bindgen-bin-crates.inc

S = "${UNPACKDIR}/cargo_home/bitbake/bindgen-cli-${PV}"

inherit cargo_bin cargo-update-recipe-crates mydrv-cargo-offline
inherit_defer native

do_install:append() {
    create_wrapper ${D}${bindir}/bindgen LIBCLANG_PATH="${STAGING_LIBDIR_NATIVE}"
}
