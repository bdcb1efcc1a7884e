# SPDX-License-Identifier: MIT
SUMMARY = "libclang, as its project's Python wheel has it"
DESCRIPTION = "What bindgen reads the kernel's headers with. OE-Core's clang-native would build LLVM from source for it."
HOMEPAGE = "https://clang.llvm.org"
SECTION = "devel"
LICENSE = "Apache-2.0-with-LLVM-exception"
LIC_FILES_CHKSUM = "file://libclang-${PV}.dist-info/LICENSE.TXT;md5=ff42885ed2ab98f1ecb8c1fc41205343"

# The class makes addresses of source archives only; a wheel is at the same place. It is a zip archive, which the unpacker tells by its name.
WHEEL = "1d/fc/716c1e62e512ef1c160e7984a73a5fc7df45166f2ff3f254e71c58076f7c/libclang-${PV}-py2.py3-none-manylinux2010_x86_64.whl"
WHEEL:aarch64 = "3c/3d/f0ac1150280d8d20d059608cf2d5ff61b7c3b7f7bcf9c0f425ab92df769a/libclang-${PV}-py2.py3-none-manylinux2014_aarch64.whl"
PYPI_PACKAGE = "libclang"
PYPI_SRC_URI = "${@pypi_src_uri(d).partition('/source/')[0]}/${WHEEL};downloadfilename=libclang-${PV}-${BUILD_ARCH}.zip;name=${BUILD_ARCH};subdir=${BP}"
SRC_URI[x86_64.sha256sum] = "c533091d8a3bbf7460a00cb6c1a71da93bffe148f172c7d03b1c31fbf8aa2a0b"
SRC_URI[aarch64.sha256sum] = "54dda940a4a0491a9d1532bf071ea3ef26e6dbaf03b5000ed94dd7174e8f9592"

inherit pypi
inherit_defer native

S = "${UNPACKDIR}/${BP}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 644 -t ${D}${libdir} ${S}/libclang-${PV}.data/platlib/clang/native/libclang.so
}

COMPATIBLE_HOST = "(x86_64|aarch64).*-linux"
# Stripped by its makers.
INHIBIT_SYSROOT_STRIP = "1"
