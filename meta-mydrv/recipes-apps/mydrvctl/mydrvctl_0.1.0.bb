# SPDX-License-Identifier: MIT
SUMMARY = "Shows, fills, measures and validates the mydrv DMA buffers"
SUMMARY:${PN}-validate = "Check of the mydrv DMA buffers at boot"
SUMMARY:${PN}-tests = "Tests of the mydrv kernel driver, for the target"
SUMMARY:${PN}-examples = "Example programs for the mydrv DMA buffers"
DESCRIPTION = "The command line of the mydrv kernel driver, the check that the boot waits for, the C header, and tests for the target."
HOMEPAGE = "https://mydrv.example"
SECTION = "utils"
# Of the crates that are linked in, too: each offers it.
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

FILESEXTRAPATHS:prepend := "${THISDIR}:"
SRC_URI = "file://mydrvctl \
           file://run-ptest"
require ${BPN}-crates.inc

S = "${UNPACKDIR}/mydrvctl"

# nooelint: oelint.file.requirenotfound
require mydrvctl-${MYDRV_RUST}.inc
inherit bash-completion cargo-update-recipe-crates features_check mydrv-local-source ptest systemd useradd

REQUIRED_DISTRO_FEATURES = "systemd"

# Commands that not every product has a use for: `dma-loop` is for QEMU's device edu, `status` for systems that RAUC updates.
PACKAGECONFIG ??= "dma-loop status"
PACKAGECONFIG[dma-loop] = ""
PACKAGECONFIG[status] = ""
MYDRVCTL_CARGO_FLAGS = "--package mydrvctl --no-default-features --features '${@','.join('mydrvctl/' + name for name in d.getVar('PACKAGECONFIG').split())}'"

export MYDRV_ASSETS_DIR = "${MYDRV_CARGO_OUTPUT}/assets"
# package.bbclass splits off the debug information itself.
export CARGO_PROFILE_RELEASE_STRIP = "none"

EXTRA_OEMAKE = "CARGO_FLAGS=--offline CARGO_BUILD_TARGET=${MYDRV_CARGO_TARGET} CARGO_TARGET_DIR=${MYDRV_CARGO_OUTPUT} \
                LDFLAGS='${LDFLAGS}' PREFIX=${prefix} SYSCONFDIR=${sysconfdir} UNITDIR=${systemd_system_unitdir} \
                UDEVRULESDIR=${nonarch_base_libdir}/udev/rules.d SYSUSERSDIR=${nonarch_libdir}/sysusers.d TESTDIR=${PTEST_PATH}"

SYSTEMD_PACKAGES = "${PN}-validate"
SYSTEMD_SERVICE:${PN}-validate = "mydrv-validate.service"

# As mydrv.sysusers has it, for read-only roots too; the image's build compares the two.
USERADD_PACKAGES = "${PN}-validate"
USERADD_PARAM:${PN}-validate = "--system --no-create-home --home-dir / --shell /sbin/nologin --comment 'mydrv DMA buffers' --user-group mydrv"

# After the class has built mydrvctl, in the environment that it set up.
do_compile:append() {
    oe_runmake -C ${S} tests examples
    if [ "${PTEST_ENABLED}" = 1 ]; then
        oe_runmake -C ${S} unit-tests
    fi
}

do_install() {
    oe_runmake -C ${S} install install-tests install-examples DESTDIR=${D}
}

do_install_ptest() {
    oe_runmake -C ${S} install-unit-tests DESTDIR=${D}
}

PACKAGES =+ "${PN}-validate ${PN}-tests ${PN}-examples ${PN}-fish-completion ${PN}-zsh-completion"

FILES:${PN}-validate += "${systemd_system_unitdir} ${nonarch_base_libdir}/udev/rules.d ${nonarch_libdir}/sysusers.d ${sysconfdir}/default/mydrv"
FILES:${PN}-tests += "${libexecdir}/mydrv/mydrv-tests"
FILES:${PN}-examples += "${libexecdir}/mydrv/hello-*"
FILES:${PN}-fish-completion += "${datadir}/fish"
FILES:${PN}-zsh-completion += "${datadir}/zsh"
CONFFILES:${PN}-validate = "${sysconfdir}/default/mydrv"

RDEPENDS:${PN}-validate = "${PN}"
