# SPDX-License-Identifier: MIT
SUMMARY = "Device-tree overlay of the mydrv DMA buffer"
DESCRIPTION = "Reserves the buffer's memory and describes its device. The boot loader applies it, since memory is reserved before anything else runs."
HOMEPAGE = "https://mydrv.example"
SECTION = "bsp"
LICENSE = "GPL-2.0-only | BSD-2-Clause"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/GPL-2.0-only;md5=801f80980d171dd6425610833a22dbe6 \
                    file://${COMMON_LICENSE_DIR}/BSD-2-Clause;md5=cb641bc04cda31daea161b1bc15da69f"

DEPENDS:append:qemuarm64 = " qemu-system-native"

FILESEXTRAPATHS:prepend := "${THISDIR}:"
SRC_URI = "file://mydrv-overlay"

inherit devicetree features_check mydrv-local-source

S = "${UNPACKDIR}/mydrv-overlay"

REQUIRED_MACHINE_FEATURES = "mydrv"
COMPATIBLE_MACHINE = ".*"

# The overlay includes nothing of the kernel's, so it need not wait for it.
KERNEL_INCLUDE = ""

EXTRA_OEMAKE = "O=${B} CPP='${BUILD_CPP}' OVERLAYS='${MYDRV_OVERLAY}' MYDRV_CMA_SIZE=${MYDRV_CMA_SIZE} \
                MYDRV_ADDRESS_CELLS=${MYDRV_ADDRESS_CELLS} MYDRV_SIZE_CELLS=${MYDRV_SIZE_CELLS}"

# The class would compile without the Makefile's checks, and other bytes than the bench.
do_compile() {
    oe_runmake -C ${S}
}

# runqemu has no boot loader that would apply the overlay, and QEMU makes its tree itself: so take it from there. Without its random seeds.
do_compile:append:qemuarm64() {
    ${QB_SYSTEM_NAME} ${QB_MACHINE},dtb-randomness=off,dumpdtb=${MACHINE}.dtb ${QB_CPU} ${QB_SMP} -display none
    fdtoverlay -i ${MACHINE}.dtb -o ${MACHINE}-${MYDRV_OVERLAY}.dtb ${MYDRV_OVERLAY}.dtbo
    rm ${MACHINE}.dtb
}

do_install() {
    oe_runmake -C ${S} install DESTDIR=${D}
}

# The boot's check expects what the overlay reserves.
do_install:append() {
    if [ -n "${MYDRV_EXPECT}" ]; then
        for unit in mydrv-validate.service mydrv-validate@.service; do
            install -d ${D}${systemd_system_unitdir}/$unit.d
            printf '[Service]\nEnvironment="MYDRV_EXPECT=%s"\n' "${MYDRV_EXPECT}" >${D}${systemd_system_unitdir}/$unit.d/expect.conf
        done
    fi
}

FILES:${PN} += "${systemd_system_unitdir}/mydrv-validate.service.d ${systemd_system_unitdir}/mydrv-validate@.service.d"
