# SPDX-License-Identifier: MIT
# The bench's part for updates: U-Boot, a kernel and a root file system that can update themselves, the disk, bundles.
# shellcheck shell=bash
step_lib=${BASH_SOURCE[0]}
# shellcheck source=../lib.sh
source "$(dirname "$step_lib")/../lib.sh"
step_lib=$top/bench/ota/lib.sh

ota_dir=$top/bench/ota
ota_layer=$layer/dynamic-layers/rauc
uboot_dir=$ota_layer/recipes-bsp/u-boot/u-boot

# ---- The tools' root: what makes disks and bundles. RAUC is of the version that the guest has.

ota_tools=$cache/ota-tools-$(key "$ota_dir/tools" "$ota_dir/preferences" "$debian")

# newer_rauc: the apt source of RAUC. The testing release's lists expire within days, which a mirror that lags a little does not survive.
newer_rauc() {
    printf 'deb [check-valid-until=no] %s forky main' "$(debian_mirror)"
}

make_ota_tools() {
    local mirror
    mirror=$(debian_mirror)
    mmdebstrap --variant=apt --skip=cleanup/apt/lists --include="$(package_list "$ota_dir/tools")" \
        --setup-hook="install -D -m 644 '$ota_dir/preferences' \"\$1/etc/apt/preferences.d/ota\"" \
        "$debian" "$1" "deb $mirror $debian main" "deb-src $mirror $debian main" "$(newer_rauc)"
}

# in_tools COMMAND...: runs COMMAND in the tools' root, in the same working directory; from within the toolchain root, too.
in_tools() {
    # There the mounts are private already, and unshare cannot say so in a chroot.
    local propagation=private
    [ -z "${MYDRV_IN_ROOT:-}" ] || propagation=unchanged
    env MYDRV_CARGO_HOME="$cache/cargo" unshare --mount --propagation "$propagation" -- "$top/bench/enter" "$ota_tools" "$top" "$cache" -- "$@"
}

# ---- U-Boot, from Debian's source package.

uboot_config=("$uboot_dir/ab-boot.cfg" "$uboot_dir/ab-boot-qemu.cfg")

uboot() {
    cached "OTA tools' root (Debian $debian)" "$ota_tools" make_ota_tools
    local version
    version=$(in_tools apt-cache showsrc --only-source u-boot | sed -n 's/^Version: //p' | sort -V | tail -n 1)
    uboot_source=$cache/u-boot-$version
    cached "U-Boot source" "$uboot_source" unpack_uboot
    uboot=$cache/u-boot-build-$(key "$version" "${toolchain##*/}" "$uboot_dir" "$ota_tries" "$(declare -f make_uboot)")
    cached "U-Boot" "$uboot" make_uboot "$uboot_source"
}

# unpack_uboot DIR: the upstream part of the source package; Debian's patches are for other boards.
unpack_uboot() {
    mkdir -p "$1.deb" "$1"
    in_tools sh -ec 'cd "$1"
        fetch() { apt-get -o APT::Sandbox::User=root source --only-source --tar-only u-boot; }
        fetch || { apt-get update; fetch; } # the mirror may have moved on since the root was made
        rm -f ./*.asc
        tar -xf ./*.orig.tar.* -C "$2" --strip-components=1' - "$1.deb" "$1"
    rm -rf "$1.deb"
}

# make_uboot SOURCE DIR: as the layer's recipe does. The product's environment takes the place of the board's, which it includes.
make_uboot() {
    local make=(in_root make -C "$2" CROSS_COMPILE=aarch64-linux-gnu- KCPPFLAGS="-include $uboot_dir/ab-boot.h -DAB_TRIES=$ota_tries" -j"$(nproc)")
    cp -a "$1" "$2"
    cp "$uboot_dir/ab-boot.env" "$2/include/env/"
    cp "$uboot_dir/ab-boot-qemu.env" "$2/board/emulation/qemu-arm/"
    "${make[@]}" qemu_arm64_defconfig
    in_root sh -c 'cd "$1" && shift && ./scripts/kconfig/merge_config.sh -m .config "$@"' - "$2" "${uboot_config[@]}"
    "${make[@]}" olddefconfig
    check_config "$2/.config" "${uboot_config[@]}"
    "${make[@]}" u-boot.bin
}

# ---- The guest: the bench's Debian with RAUC, and the system as the layer's recipes install it.

ota_base() {
    ota_base=$cache/ota-base-$(key "$top/bench/rootfs/packages" "$ota_dir/packages" "$ota_dir/preferences" "$debian" "$(declare -f make_ota_base)")
    cached "Debian $debian for arm64, with RAUC" "$ota_base" make_ota_base
}

make_ota_base() {
    local mirror
    mirror=$(debian_mirror)
    mmdebstrap --variant=minbase --architectures=arm64 --skip=check/qemu --include="$(package_list "$top/bench/rootfs/packages")" \
        --include="$(package_list "$ota_dir/packages")" \
        --setup-hook="install -D -m 644 '$ota_dir/preferences' \"\$1/etc/apt/preferences.d/ota\"" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' "$debian" "$1" "deb $mirror $debian main" "$(newer_rauc)"
}

# make_ota_root BASE USER_SPACE MODULE OVERLAY SOURCE BUILD KEYRING ROOT: all of the system but its version.
make_ota_root() {
    local base=$1 user_space=$2 module=$3 overlay=$4 source=$5 kernel=$6 keyring=$7 root=$8
    populate "$base" "$user_space" "$module" "$source" "$kernel" release "$root"
    in_root make -C "$overlay_dir" install O="$overlay" DESTDIR="$root"
    in_root make -C "$ota_layer/recipes-core/mydrv-ota/mydrv-ota" install DESTDIR="$root"
    cp -dR --preserve=mode,links "$ota_dir/files/." "$root"
    install -m 644 "$kernel/arch/arm64/boot/Image" "$root/boot/Image"
    ota_base_tree "$root/boot/qemu-virt.dtb"
    install -m 644 "$uboot_dir/fw_env.config" "$root/etc/fw_env.config"
    install -D -m 644 "$keyring" "$root/usr/lib/rauc/ca.cert.pem"
    # The wait is for a device that never comes, in tests of broken updates.
    printf 'MYDRV_EXPECT=buffer0=64M\nMYDRV_WAIT=15\n' >>"$root/etc/default/mydrv"
    mkdir -p "$root/data"
    chroot "$root" systemctl enable data.mount mydrv-ota-begin.service rauc-mark-good.service bench-settled.service
}

# ota_base_tree DTB: what QEMU would give; without its padding.
ota_base_tree() {
    local qemu
    ota_machine
    in_root "${qemu[@]}" -machine "dumpdtb=$1"
    in_root dtc -q -I dtb -O dtb -o "$1" "$1"
}

# What the emulated device has beside the bench's machine: a watchdog, where the boot script looks for it, and a network. It restarts. Its hardware is
# that of the tree in the slots, which for ACPI would be another.
ota_extra=("${machine_extra[@]/-no-reboot/}" -machine acpi=off -device i6300esb,addr=1e.0 -action watchdog=reset
    -netdev user,id=net -device virtio-net-pci,netdev=net)

# ota_machine: sets $qemu to the emulator's command line.
ota_machine() {
    # shellcheck disable=SC2206 # what was taken out must not stay as an empty word
    qemu=(qemu-system-aarch64 -M "$machine" -cpu "$machine_cpu" -m "$default_memory" -display none ${ota_extra[*]})
}

ota_compatible=mydrv-qemuarm64
ota_tries=2
ota_image_mib=256

# make_ota_image VERSION ROOT IMAGE: the root file system of that version. The same inputs give the same bytes.
make_ota_image() {
    local version=$1 root=$3.root image=$3 epoch=1767225600
    rm -rf "$root"
    cp -a --reflink=auto "$2" "$root"
    sed -i '/^IMAGE_/d' "$root/usr/lib/os-release"
    printf 'IMAGE_ID=%s\nIMAGE_VERSION=%s\n' mydrv "$version" >>"$root/usr/lib/os-release"
    sed -e "s/@COMPATIBLE@/$ota_compatible/; s/@TRIES@/$ota_tries/; s/@MIN_VERSION@/$version/; s/@KEYRING@/ca.cert.pem/" \
        "$ota_layer/recipes-core/rauc/files/system.conf" >"$root/usr/lib/rauc/system.conf"
    find "$root" -newermt "@$epoch" -exec touch --no-dereference --date "@$epoch" {} +
    in_root env SOURCE_DATE_EPOCH="$epoch" mke2fs -q -t ext4 -U 6d796472-7600-4000-8000-000000000001 -d "$root" \
        -E hash_seed=6d796472-7600-4000-8000-000000000002 "$image" "$ota_image_mib"M
    rm -rf "$root"
}

# ---- Bundles and the disk

# make_ota_bundle VERSION IMAGE BUNDLE [COMPATIBLE] [CERTIFICATE KEY]: as the layer's recipe does, but for the compression, which is the fastest one.
make_ota_bundle() {
    local version=$1 image=$2 bundle=$3 compatible=${4:-$ota_compatible} work=$3.work
    local certificate=${5:-$ota_keys/signer.cert.pem} key=${6:-$ota_keys/signer.key.pem}
    rm -rf "$work" "$bundle"
    mkdir -p "$work"
    ln "$image" "$work/rootfs.ext4"
    cat >"$work/manifest.raucm" <<END
[update]
compatible=$compatible
version=$version
description=mydrv
build=bench

[bundle]
format=verity

[image.rootfs]
adaptive=block-hash-index
filename=rootfs.ext4
END
    in_tools env SOURCE_DATE_EPOCH=1767225600 rauc bundle --cert="$certificate" --key="$key" \
        --mksquashfs-args='-Xcompression-level 1' "$work" "$bundle"
    rm -rf "$work"
}

# The layer's partitions, as lines NAME SIZE.
ota_partitions() {
    sed -n 's/^part .*--part-name \([^ ]*\) .*--fixed-size \([0-9]*\)M.*/\1 \2/p' "$layer/files/wic/mydrv-ab.wks"
}

# make_ota_disk IMAGE DISK: the factory's: the image in slot A, nothing in slot B, an empty data partition.
make_ota_disk() {
    local image=$1 disk=$2 name mib start=1 table='label: gpt' data
    while read -r name mib; do
        table+=$'\n'"start=${start}MiB, size=${mib}MiB, name=$name"
        case $name in
            rootfs-A) in_root dd if="$image" of="$disk" bs=1M seek="$start" conv=sparse,notrunc status=none ;;
            data) data="$start $mib" ;;
        esac
        start=$((start + mib))
    done < <(ota_partitions)
    truncate -s $((start + 1))M "$disk"
    in_tools sfdisk -q "$disk" <<<"$table"
    in_root mke2fs -q -t ext4 -L data -E "offset=$((${data% *} << 20))" "$disk" "${data#* }M"
}

make_ota_keys() {
    in_root "$layer/scripts/mydrv-dev-keys" "$1"
}

# build_ota: all of it; sets $ota to where disk, bundles and the inputs of further ones are.
build_ota() {
    local version source=$layer/dynamic-layers/rauc series product
    host_setup
    beside_jobs=()
    trap 'end_beside; exit 130' INT TERM
    beside ota_base
    toolchain_root
    beside user_space
    uboot
    series=$(default_series)
    ota_keys=$cache/ota-keys
    cached "development keys" "$ota_keys" make_ota_keys
    ota=$build/ota
    mkdir -p "$ota"
    kernel_and_module "$series" release
    made overlay "$build/overlay" "$(key "$overlay_dir" "${toolchain##*/}" "$(declare -f make_overlay)")" make_overlay
    join
    trap - INT TERM
    ota_base # it was made beside, in another process; here for its name
    made "system" "$ota/root" \
        "$(key "$ota_base" "$(cat "$(key_of "$product/module")")" "$build/user-space" "$(modes "$build/user-space")" "$build/overlay" "$top/bench/rootfs" \
            "$(modes "$top/bench/rootfs")" "$ota_dir/files" "$source" "$(modes "$source")" "$ota_keys" "${ota_extra[*]}" \
            "$(declare -f make_ota_root populate prepare_root ota_base_tree ota_machine)")" \
        make_ota_root "$ota_base" "$build/user-space" "$product/module" "$build/overlay" "$kernel_source" "$kernel_build" "$ota_keys/ca.cert.pem"
    for version in 1.0.0 1.1.0; do
        made "image $version" "$ota/$version.ext4" \
            "$(key "$(cat "$(key_of "$ota/root")")" "$ota_compatible" "$ota_tries" "$ota_image_mib" "$(declare -f make_ota_image)")" \
            make_ota_image "$version" "$ota/root"
    done
    made "disk" "$ota/disk.img" "$(key "$(cat "$(key_of "$ota/1.0.0.ext4")")" "$layer/files/wic" "$(declare -f make_ota_disk)")" \
        make_ota_disk "$ota/1.0.0.ext4"
    made "bundle 1.1.0" "$ota/1.1.0.raucb" "$(key "$(cat "$(key_of "$ota/1.1.0.ext4")")" "$(declare -f make_ota_bundle)")" \
        ota_bundle_of 1.1.0 "$ota/1.1.0.ext4"
    ln -sfn "$uboot/u-boot.bin" "$ota/u-boot.bin"
}

ota_bundle_of() {
    ota_keys=$cache/ota-keys make_ota_bundle "$@"
}
