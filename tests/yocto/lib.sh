# SPDX-License-Identifier: MIT
# Shared by what runs bitbake: its root, the layers, and bitbake itself, as an ordinary user.
# shellcheck shell=bash
step_lib=${BASH_SOURCE[0]}
# shellcheck source=../../bench/ota/lib.sh
source "$(dirname "$step_lib")/../../bench/ota/lib.sh"
step_lib=$top/tests/yocto/lib.sh

yocto=$top/tests/yocto
work=$build/yocto # layers, build directories, what bitbake wrote
bitbake_root=$cache/bitbake-root-$(key "$top/bench/toolchain" "$yocto/packages" "$debian")
yocto_cache=$cache/yocto # downloads and shared state

# The toolchain root's tools and what bitbake asks for beside them; a root of its own, so that the bench does not wait for it.
bitbake_root() {
    cached "bitbake's root (Debian $debian)" "$bitbake_root" make_bitbake_root
}

make_bitbake_root() {
    make_root "$1" "$top/bench/toolchain/packages" "$yocto/packages"
    echo 'en_US.UTF-8 UTF-8' >"$1/etc/locale.gen"
    chroot "$1" locale-gen
}

# as_user COMMAND...: runs COMMAND in bitbake's root as an ordinary user.
as_user() {
    local toolchain=$bitbake_root mirror=${MYDRV_LAYER_MIRROR:-}
    export MYDRV_ENTER_BY=$yocto/as-user
    [[ $mirror != /* ]] || in_root_dirs=("${mirror%%\\*}")
    in_root "$@"
    unset MYDRV_ENTER_BY
}

# ---- kas, which has the layers and writes bitbake's configuration

# with_kas COMMAND...: as an ordinary user, with the environment of kas; the layers are in $work/layers.
with_kas() {
    as_user env HOME="$work/home" LANG=en_US.UTF-8 GIT_TERMINAL_PROMPT=0 KAS_WORK_DIR="$work/layers" KAS_BUILD_DIR="$work/build" \
        KAS_PREMIRRORS="${MYDRV_LAYER_MIRROR:+https://github\\.com/([^/]+)/([^/]+) $MYDRV_LAYER_MIRROR}" \
        DL_DIR="$yocto_cache/downloads" SSTATE_DIR="$yocto_cache/sstate" \
        PATH="$venv/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$@"
}

kas() {
    with_kas "$venv/bin/kas" --log-level warning "$@"
}

# layers: makes sure of the layers, at the commits that the kas files pin; where they cannot be had, ends with status 77 and says why.
layers() {
    mkdir -p "$work/home" "$work/layers" "$yocto_cache"
    step "layers" kas checkout "kas.yml:kas/raspberrypi4-64.yml:kas/ota.yml" && return
    grep -q 'Command .*git .* failed' "$logs/layers.log" || exit 1
    cat <<END

SKIPPED: the layers that kas.yml and kas/ name cannot be had, neither from their servers nor from a mirror; see the log above.
    MYDRV_LAYER_MIRROR names one, by a pattern in which \\1 stands for a repository's owner and \\2 for its name on github.com:
    MYDRV_LAYER_MIRROR='/srv/git/\\2.git', or 'https://git.example.com/mirrors/\\1/\\2'. Now it is: ${MYDRV_LAYER_MIRROR:-(not set)}
END
    exit 77
}

# yocto_setup: all that bitbake needs.
yocto_setup() {
    host_setup
    toolchain_root
    bitbake_root
    test_tools
    layers
}

# bitbake KAS_FILES ARGUMENT...: e.g. bitbake kas.yml:tests/yocto/offline.yml -p
bitbake() {
    local files=$1
    shift
    kas shell "$files" -c "bitbake ${*@Q}"
}

# ---- The packages of the layer, on the bench's kernel, and what boots of them

# bench_conf: what meta-bench has to know of the bench; kernel() was called before. bitbake has a copy of the kernel's build, since it writes there.
bench_conf() {
    local version
    version=$(in_root make -s --no-print-directory -C "$kernel_source" kernelversion)
    made "copy of the kernel" "$work/linux" "$kernel_build $(declare -f copy_kernel)" copy_kernel "$kernel_build"
    cat >"$work/bench.conf" <<END
BENCH_LINUX_VERSION = "$version"
BENCH_LINUX_SOURCE = "$kernel_source"
BENCH_LINUX_BUILD = "$work/linux"
END
}

# update_conf: what meta-bench has to know of updates; image and keys are the bench's, and U-Boot's source is Debian's.
update_conf() {
    build_ota
    made "copy of U-Boot" "$work/u-boot" "$uboot_source" cp -a "$uboot_source"
    cat >"$work/update.conf" <<END
BENCH_UBOOT_SOURCE = "$work/u-boot"
BENCH_UPDATE = "$ota/1.1.0.ext4"
MYDRV_OTA_VERSION = "1.1.0"
MYDRV_OTA_TRIES = "$ota_tries"
RAUC_KEY_FILE = "$ota_keys/signer.key.pem"
RAUC_CERT_FILE = "$ota_keys/signer.cert.pem"
RAUC_KEYRING_FILE = "$ota_keys/ca.cert.pem"
END
}

# With the file that kernel.bbclass would else write into the source, too.
copy_kernel() {
    cp -a "$1" "$2"
    touch "$2/.scmversion"
}

# build_by_bitbake: as build of bench/lib.sh, of packages that bitbake writes; sets $product.
build_by_bitbake() {
    local debs
    yocto_setup
    base
    kernel "$(default_series)" release
    bench_conf
    step "bitbake: packages" bitbake kas.yml:tests/yocto/bench.yml packagegroup-mydrv mydrv mydrv-overlay mydrvctl linux-bench
    # Not what is for developers.
    mapfile -t debs < <(find "$work/build/tmp/deploy/deb" -name '*.deb' | grep -vE -e '-(dbg|dev|src|staticdev)_|/kernel-vmlinux' | LC_ALL=C sort)
    product=$work/product
    made "root file system of packages" "$product" \
        "$(key "$base" "${debs[@]}" "$top/bench/rootfs" "$(modes "$top/bench/rootfs")" "$(declare -f make_product prepare_root finish_image)")" \
        make_product "$base" "${debs[@]}"
}

# make_product BASE PACKAGE... DIR: Image, machine.dtb and rootfs.img.
make_product() {
    local base=$1 debs=("${@:2:$#-2}") dir=${*: -1} root=${*: -1}.root
    rm -rf "$root"
    mkdir -p "$dir"
    cp -a "$base" "$root"
    mkdir "$root/debs"
    cp "${debs[@]}" "$root/debs"
    # Debian names the owner of useradd otherwise, and needs no package for completions. The base leaves out man pages of Debian's.
    chroot "$root" sh -c 'dpkg --path-include="/usr/share/man/*" --ignore-depends=shadow,bash-completion --install /debs/*.deb'
    rm -r "$root/debs"
    # The recipes' doing, not prepare_root's.
    grep -q '^mydrv:' "$root/etc/passwd" || die "the packages did not make the user mydrv"
    [ -L "$root/etc/systemd/system/boot-complete.target.requires/mydrv-validate.service" ] || die "the packages did not enable the check"
    cp "$root"/boot/Image-* "$dir/Image"
    make_machine_dtb "$default_memory" "$root/boot/devicetree/mydrv.dtbo" "$dir/machine.dtb"
    cp -dR --preserve=mode,links "$top/bench/rootfs/files/." "$root"
    prepare_root "$root"
    finish_image "$root" "$dir/rootfs.img"
}
