# SPDX-License-Identifier: MIT
SUMMARY = "The root file system of an update, as the bench made it"
LICENSE = "MIT"

# BENCH_UPDATE: by tests/yocto/lib.sh.
PACKAGE_ARCH = "${MACHINE_ARCH}"
INHIBIT_DEFAULT_DEPS = "1"

inherit nopackages image-artifact-names

do_image_complete() {
    install -D -m 644 ${BENCH_UPDATE} ${DEPLOY_DIR_IMAGE}/${IMAGE_LINK_NAME}.ext4
}
do_image_complete[file-checksums] = "${BENCH_UPDATE}:True"
addtask image_complete before do_build
