# SPDX-License-Identifier: MIT
# Shared by the bench's commands: where things are, steps with logs, the cache, the toolchain root.
# shellcheck shell=bash
set -euo pipefail
umask 022

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$top/build
logs=$build/log
cache=${MYDRV_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mydrv}
layer=$top/meta-mydrv
module_dir=$layer/recipes-kernel/mydrv/mydrv
overlay_dir=$layer/recipes-kernel/mydrv-overlay/mydrv-overlay
apps_dir=$layer/recipes-apps/mydrvctl/mydrvctl

debian=trixie
rust_target=aarch64-unknown-linux-gnu
kernel_make=(ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-)

mkdir -p "$logs" "$cache"

# die MESSAGE: ends with the cause and its remedy.
die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

# step TITLE COMMAND...: runs COMMAND with its output in a log of its own; shows how long it takes, and on failure the log's end.
step() {
    local title=$1 began=$SECONDS status=0 log ticker=''
    shift
    log=$logs/$(tr -cs '[:alnum:].\n' - <<<"$title" | sed 's/-$//').log
    printf '  %-46s ' "$title"
    if [ -t 1 ]; then
        while sleep 1 && kill -0 $$ 2>/dev/null; do
            printf '\r  %-46s %4d s ' "$title" $((SECONDS - began))
        done &
        ticker=$!
    fi
    # In a shell of its own: errexit would be off in this one wherever a caller tests the status. In the foreground: ^C ends it.
    bash -c 'source "$0"; "$@"' "${step_lib:-$top/bench/lib.sh}" "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ -n "$ticker" ]; then
        kill "$ticker"
        wait "$ticker" || true
        printf '\r  %-46s ' "$title"
    fi
    if [ "$status" -eq 0 ]; then
        printf '%4d s\n' $((SECONDS - began))
        return 0
    fi
    printf 'FAILED after %d s (status %d)\n\n' $((SECONDS - began)) "$status"
    tail -n 30 "$log" | sed 's/^/    | /'
    printf '\n    the whole log: %s\n' "$log"
    return "$status"
}

# key WORD|FILE...: one short hash over words and over the contents (and names) of files and folders.
key() {
    local item
    for item in "$@"; do
        if [ -d "$item" ]; then
            (cd "$item" && find . -type f -not -path '*/target/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
        elif [ -f "$item" ]; then
            sha256sum <"$item"
        else
            printf '%s\n' "$item"
        fi
    done | sha256sum | cut -c1-16
}

# cached TITLE DIR FUNCTION...: fills DIR once by `FUNCTION... DIR`. Two callers wait for each other; an unfinished DIR is
# made anew, since only a finished one has its stamp.
cached() {
    local title=$1 dir=$2 status=0
    shift 2
    [ -e "$dir.done" ] && return 0
    exec {dir_lock}>"$dir.lock"
    flock --nonblock "$dir_lock" || { echo "  $title: waiting for another one who makes it"; flock "$dir_lock"; }
    if [ ! -e "$dir.done" ]; then
        rm -rf "$dir"
        step "$title" "$@" "$dir" && touch "$dir.done" || status=$?
    fi
    exec {dir_lock}>&-
    return "$status"
}

# debian_mirror: the host's own mirror serves the toolchain root and the guest too; MYDRV_DEBIAN_MIRROR names another.
debian_mirror() {
    local mirror=${MYDRV_DEBIAN_MIRROR:-}
    [ -n "$mirror" ] || mirror=$(host_mirror)
    if [ -z "$mirror" ]; then
        apt-get update >&2 # a fresh host has no lists
        mirror=$(host_mirror)
    fi
    [ -n "$mirror" ] || die "no Debian mirror in this host's apt sources: set MYDRV_DEBIAN_MIRROR=URL"
    printf '%s' "$mirror"
}

host_mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Label: Debian' | sort -u | head -n 1
}

# package_list FILE: the packages that FILE names, with commas between.
package_list() {
    sed -e 's/#.*//' "$1" | grep -v '^[[:space:]]*$' | paste -sd,
}

# ---- The host: it lends root, mmdebstrap and binfmt_misc, nothing else.

host_setup() {
    [ -z "${MYDRV_IN_ROOT:-}" ] || return 0
    [ "$(id -u)" -eq 0 ] || die "needs root, to make and enter the toolchain root: run it by sudo"
    local missing=() package
    for package in mmdebstrap qemu-user-static binfmt-support util-linux; do
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] || step "host packages: ${missing[*]}" install_host_packages "${missing[@]}"
    enable_binfmt
}

install_host_packages() {
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

# Foreign maintainer scripts run while the guest's root file system is made.
enable_binfmt() {
    mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc ||
        die "cannot mount binfmt_misc: load the kernel module binfmt_misc, or run on a host that has it"
    [ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || update-binfmts --enable qemu-aarch64
    grep -qx enabled /proc/sys/fs/binfmt_misc/qemu-aarch64 ||
        die "binfmt_misc does not run arm64 programs: update-binfmts --enable qemu-aarch64"
}

# ---- The toolchain root: every tool of the bench, in a Debian of its own.

toolchain=$cache/toolchain-$(key "$top/bench/toolchain" "$debian")

toolchain_root() {
    cached "toolchain root (Debian $debian)" "$toolchain" make_toolchain_root
}

make_toolchain_root() {
    make_root "$1" "$top/bench/toolchain/packages"
}

# make_root DIR PACKAGE_LIST...
make_root() {
    local mirror packages=() list
    mirror=$(debian_mirror)
    for list in "${@:2}"; do
        packages+=(--include="$(package_list "$list")")
    done
    # The package lists stay: they tell which kernel sources there are.
    mmdebstrap --variant=apt --architectures=amd64,arm64 --skip=cleanup/apt/lists "${packages[@]}" \
        --setup-hook="install -D -m 644 '$top/bench/toolchain/preferences' \"\$1/etc/apt/preferences.d/backports\"" \
        "$debian" "$1" "deb $mirror $debian main" "deb $mirror $debian-backports main"
}

# in_root COMMAND...: runs COMMAND inside the toolchain root, in the same working directory, with the tree, the cache and kernel
# trees that the environment names in their places.
in_root() {
    local root_command
    root_command
    "${root_command[@]}" "$@"
}

# root_command: sets $root_command to what has to stand before a command to run it in the toolchain root, in the same process.
root_command() {
    local dirs=("$top" "$cache" "${in_root_dirs[@]}") tree
    # Already there, as the tests are.
    if [ -n "${MYDRV_IN_ROOT:-}" ]; then
        root_command=(env)
        return
    fi
    for tree in "${!MYDRV_LINUX_@}"; do
        [ ! -d "${!tree}" ] || dirs+=("$(realpath "${!tree}")")
    done
    root_command=(env MYDRV_CARGO_HOME="$cache/cargo" unshare --mount --propagation private --
        "$top/bench/enter" "$toolchain" "${dirs[@]}" --)
}

# The compilers that a kernel build depends on, with their versions: part of its key.
compilers() {
    in_root dpkg-query -W gcc-aarch64-linux-gnu clang lld rustc rust-src bindgen
}

# ---- Kernels

# The newest series that the driver was tried on. A newer one is tried all the same, with a word of warning.
newest_tried=7.3

# The newest series that Debian's backports offer as source, e.g. 7.3; the bench's default.
newest_series() {
    in_root apt-cache show linux-source | sed -n 's/^Depends:.*linux-source-\([0-9.]*\).*/\1/p' | sort -V | tail -n 1
}

# offered_series: all that can be had, oldest first.
offered_series() {
    in_root apt-cache pkgnames linux-source- | sed 's/^linux-source-//' | sort -V | xargs
}

# unpack_debian_source SERIES DIR
unpack_debian_source() {
    mkdir -p "$2.deb"
    in_root sh -ec 'cd "$1"
        fetch() { apt-get -o APT::Sandbox::User=root download "linux-source-$2"; }
        fetch "$@" || { apt-get update; fetch "$@"; } # the mirror may have moved on since the root was made
        dpkg-deb -x ./*.deb .' - "$2.deb" "$1"
    mkdir -p "$2"
    in_root tar -xf "$2.deb/usr/src/linux-source-$1.tar.xz" -C "$2" --strip-components=1
    rm -rf "$2.deb"
}

# What the update policy needs of the kernel. One kernel serves the plain guest, updates and all machines: each more costs ten minutes.
updates_config=$layer/dynamic-layers/rauc/recipes-kernel/linux/files

# kernel SERIES VARIANT: makes sure of a built kernel and points kernel_source and kernel_build at it. SERIES is one that Debian's
# backports have, or one whose source tree MYDRV_LINUX_<SERIES> names (6.18: MYDRV_LINUX_6_18); VARIANT is release, one of variants(), or bare: no
# more than what the driver asks for, to build the module for; it boots nowhere.
kernel() {
    local series=$1 variant=$2 tree fragments version
    tree=MYDRV_LINUX_${series//./_}
    fragments=("$layer/recipes-kernel/linux/files/mydrv.cfg")
    [ "$variant" = bare ] || fragments+=("$updates_config"/mydrv-ota{,-qemu}.cfg "$top"/bench/kernel/{guest,boards}.config)
    [ ! -f "$top/bench/kernel/$series.config" ] || fragments+=("$top/bench/kernel/$series.config")
    if [ "$variant" != release ] && [ "$variant" != bare ]; then
        [ -f "$top/bench/kernel/variants/$variant.config" ] || die "no kernel variant $variant: there are release $(variants)"
        fragments+=("$top/bench/kernel/variants/$variant.config")
    fi
    if [ -n "${!tree:-}" ]; then
        [ -f "${!tree}/Kconfig" ] || die "$tree=${!tree} is no kernel source tree"
        kernel_source=$(realpath "${!tree}")
        version="$(sed -n '2,5p' "$kernel_source/Makefile") in $kernel_source"
    else
        version=$(in_root apt-cache policy "linux-source-$series" | sed -n 's/^  Candidate: //p')
        [ -n "$version" ] || die "Debian has no source of kernel $series, but of $(offered_series): choose by MYDRV_SERIES, or set $tree to a source tree"
        kernel_source=$cache/linux-$version
        cached "kernel $series source" "$kernel_source" unpack_debian_source "$series"
    fi
    kernel_build=$cache/kernel-$series-$variant-$(key "$version" "$(compilers)" "${fragments[@]}" "$(declare -f make_kernel)")
    cached "kernel $series, $variant" "$kernel_build" make_kernel "$kernel_source" "$variant" "${fragments[@]}"
}

# variants: what differs from the release kernel by a fragment of its own.
variants() {
    basename --suffix .config "$top"/bench/kernel/variants/* | xargs
}

# KASAN and Rust go together only under clang.
kernel_compiler() {
    [ "$1" != debug ] || printf 'LLVM=1'
}

make_kernel() {
    local source=$1 variant=$2 fragments=("${@:3:$#-3}") dir=${*: -1} make
    mkdir -p "$dir"
    # shellcheck disable=SC2046,SC2207 # one word or none
    make=(in_root make -C "$source" O="$dir" "${kernel_make[@]}" $(kernel_compiler "$variant") -j"$(nproc)")
    "${make[@]}" tinyconfig
    in_root sh -c 'cd "$1" && shift && ./source/scripts/kconfig/merge_config.sh -m -O . .config "$@"' - "$dir" "${fragments[@]}"
    "${make[@]}" olddefconfig
    check_config "$dir/.config" "${fragments[@]}"
    "${make[@]}" Image modules
}

# check_config CONFIG FRAGMENT...: an option that Kconfig dropped is an error, not a surprise later. A later fragment overrides.
check_config() {
    local config=$1 line status=0
    shift
    while read -r line; do
        case $line in
            CONFIG_*=n) ! grep -q "^${line%=n}=" "$config" || { echo "still on: ${line%=n}"; status=1; } ;;
            CONFIG_*) grep -qx "$line" "$config" || { echo "lost: $line"; status=1; } ;;
        esac
    done < <(cat "$@" | tac | awk -F= '!seen[$1]++')
    return "$status"
}

# ---- The guest's base: Debian for arm64, without anything of ours.

base() {
    base=$cache/base-$(key "$top/bench/rootfs/packages" "$debian" "$(declare -f make_base)")
    cached "Debian $debian for arm64" "$base" make_base
}

make_base() {
    local mirror
    mirror=$(debian_mirror)
    # The host's mmdebstrap, so that it need not wait for the toolchain root. That arm64 programs run is known (enable_binfmt).
    mmdebstrap --variant=minbase --architectures=arm64 --skip=check/qemu --include="$(package_list "$top/bench/rootfs/packages")" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' "$debian" "$1" "deb $mirror $debian main"
}

# ---- The machine

# The emulated machine, for every boot by bench/boot and by the tests. PCI device `edu` is a DMA engine for tests; its mask has to reach
# past 32 bits, since RAM starts at 1 GiB.
machine=virt
machine_cpu=cortex-a72
default_memory=1024
machine_extra=(-smp 2 -nodefaults -no-reboot -device virtio-rng-pci -device edu,dma_mask=0xffffffffffff)

# qemu_machine MEMORY_MIB: sets $qemu to the emulator's command line as far as every boot shares it.
qemu_machine() {
    qemu=(qemu-system-aarch64 -M "$machine" -cpu "$machine_cpu" -m "$1" -display none "${machine_extra[@]}")
}

# make_machine_dtb MEMORY_MIB [OVERLAY]... DTB: the tree that QEMU makes for this machine, with the overlays (.dtbo) applied.
make_machine_dtb() {
    local overlays=("${@:2:$#-2}") dtb=${*: -1} qemu
    qemu_machine "$1"
    in_root "${qemu[@]}" -machine "dumpdtb=$dtb"
    [ ${#overlays[@]} -eq 0 ] || in_root fdtoverlay -i "$dtb" -o "$dtb" "${overlays[@]}"
}

# ---- What is built from the layer

# key_of TARGET: the file that tells of which key TARGET was made.
key_of() {
    printf '%s' "${1%/*}/.${1##*/}.key"
}

# made TITLE TARGET KEY FUNCTION...: makes TARGET under build/ by `FUNCTION... TARGET`, unless it was made of the same KEY. Two callers wait
# for each other.
made() {
    local title=$1 target=$2 key=$3 stamp status=0
    stamp=$(key_of "$target")
    shift 3
    exec {target_lock}>"${stamp%.key}.lock"
    flock "$target_lock"
    if [ ! -e "$target" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$key" ]; then
        rm -rf "$target" "$stamp"
        step "$title" "$@" "$target" && printf '%s\n' "$key" >"$stamp" || status=$?
    fi
    exec {target_lock}>&-
    return "$status"
}

# modes DIR: the modes and link targets below DIR, which key() does not see.
modes() {
    find "$1" -printf '%P %M %l\n' | LC_ALL=C sort
}

# beside FUNCTION: runs FUNCTION in the background; its progress is shown by join. Network and processor keep each other company.
beside() {
    set -m # a process group of its own, to end all of it
    "$@" >"$logs/beside-$1" 2>&1 </dev/null &
    set +m
    beside_jobs+=("$!:$1")
}

# join: waits for all that runs beside.
join() {
    local job status=0
    for job in "${beside_jobs[@]}"; do
        wait "${job%%:*}" || status=$?
        cat "$logs/beside-${job#*:}"
    done
    beside_jobs=()
    return "$status"
}

# end_beside: ends all that runs beside.
end_beside() {
    local job
    for job in "${beside_jobs[@]}"; do
        kill -- "-${job%%:*}" 2>/dev/null || true
    done
}

user_space() {
    made "user space" "$build/user-space" "$(key "$apps_dir" "${toolchain##*/}" "$(declare -f make_user_space)")" make_user_space
}

make_user_space() {
    local make=(in_root env CARGO_BUILD_TARGET="$rust_target" CARGO_TARGET_DIR="$build/cargo"
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc CC=aarch64-linux-gnu-gcc
        make -C "$apps_dir")
    "${make[@]}" all examples tests
    "${make[@]}" install DESTDIR="$1"
    "${make[@]}" install-examples DESTDIR="$1"
    "${make[@]}" install-tests DESTDIR="$1"
}

make_overlay() {
    in_root make -C "$overlay_dir" O="$1"
}

# module_make DIR SOURCE BUILD VARIANT ARGUMENT...: make of the module in DIR against a kernel, as Yocto's module.bbclass calls it.
module_make() {
    local dir=$1 source=$2 kernel=$3 variant=$4
    shift 4
    # shellcheck disable=SC2046 # one word or none
    in_root make -C "$dir" KERNEL_SRC="$source" O="$kernel" "${kernel_make[@]}" $(kernel_compiler "$variant") \
        MYDRV_ABI="$apps_dir/mydrv-abi/src/abi.rs" -j"$(nproc)" "$@"
}

# make_module SOURCE BUILD VARIANT DIR: builds a copy, so that the tree stays clean and variants stay apart.
make_module() {
    cp -a "$module_dir" "$4"
    module_make "$4" "$1" "$2" "$3"
}

# make_image BASE USER_SPACE MODULE SOURCE BUILD VARIANT IMAGE: the guest's disk, an ext4 file system without partitions.
make_image() {
    local image=$7 root=$7.root
    populate "${@:1:6}" "$root"
    finish_image "$root" "$image"
}

# populate BASE USER_SPACE MODULE SOURCE BUILD VARIANT ROOT: the guest's root file system, as a folder.
populate() {
    local base=$1 user_space=$2 module=$3 source=$4 kernel=$5 variant=$6 root=$7
    rm -rf "$root"
    cp -a "$base" "$root"
    # shellcheck disable=SC2046 # one word or none
    in_root make -C "$source" O="$kernel" "${kernel_make[@]}" $(kernel_compiler "$variant") INSTALL_MOD_PATH="$root" modules_install
    module_make "$module" "$source" "$kernel" "$variant" INSTALL_MOD_PATH="$root" modules_install
    in_root make -C "$module" install-conf DESTDIR="$root"
    cp -dR --preserve=mode,links "$user_space/." "$top/bench/rootfs/files/." "$root"
    [ "$variant" != debug ] || cp -dR --preserve=mode,links "$top/bench/rootfs/files-debug/." "$root"
    chroot "$root" systemctl enable mydrv-validate.service
    prepare_root "$root"
}

# prepare_root ROOT: as an image recipe does at build time: accounts, an identity of its own.
prepare_root() {
    local root=$1
    echo mydrv >"$root/etc/hostname"
    rm -f "$root/etc/resolv.conf"
    echo 6d796472760000000000000000000001 >"$root/etc/machine-id"
    chroot "$root" systemd-sysusers
    # What this kernel and this machine have no use for; each costs a second of emulation.
    chroot "$root" systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer getty@tty1.service \
        modprobe@configfs.service modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service systemd-pstore.service
    touch "$root/etc/.updated" "$root/var/.updated" # or each boot does systemd's work after an update
}

# finish_image ROOT IMAGE: with the bench's own units; ROOT is used up.
finish_image() {
    chroot "$1" systemctl enable bench-mark-good.service bench-job.service
    in_root mke2fs -q -t ext4 -L mydrv -d "$1" "$2" 1G
    rm -rf "$1"
}

# default_series: the kernel series that the bench takes unless told otherwise.
default_series() {
    if [ -n "${MYDRV_SERIES:-}" ]; then
        printf '%s' "$MYDRV_SERIES"
    else
        newest_series
    fi
}

# kernel_and_module SERIES VARIANT: makes sure of both and sets $product to the folder that has what is made of them, first the module.
kernel_and_module() {
    product=$build/$1-$2
    mkdir -p "$product"
    kernel "$1" "$2"
    made "module for $1, $2" "$product/module" \
        "$(key "$module_dir" "$apps_dir/mydrv-abi/src/abi.rs" "$kernel_build" "$(declare -f make_module module_make)")" \
        make_module "$kernel_source" "$kernel_build" "$2"
}

# build [SERIES] [VARIANT]: everything up to the bootable image, in build/SERIES-VARIANT/; sets $product to that.
build() {
    local series=${1:-} variant=${2:-release} default
    host_setup
    beside_jobs=()
    trap 'end_beside; exit 130' INT TERM
    beside base
    toolchain_root
    beside user_space
    default=$(default_series)
    series=${series:-$default}
    if [ "$(printf '%s\n' "$newest_tried" "$series" | sort -V | tail -n 1)" != "$newest_tried" ]; then
        echo "  note: kernel $series is newer than mydrv was tried on ($newest_tried); if it does not build or boot, set MYDRV_SERIES"
        echo "        to one of: $(offered_series)"
    fi

    kernel_and_module "$series" "$variant"
    made overlay "$build/overlay" "$(key "$overlay_dir" "${toolchain##*/}" "$(declare -f make_overlay)")" make_overlay
    made "device tree" "$build/machine.dtb" \
        "$(key "$build/overlay" "${toolchain##*/}" "$default_memory" "$(declare -p machine machine_cpu machine_extra)" \
            "$(declare -f make_machine_dtb qemu_machine)")" \
        make_machine_dtb "$default_memory" "$build/overlay/mydrv.dtbo"
    join
    trap - INT TERM
    base # it was made beside, in another process; here for its name
    made "root file system for $series, $variant" "$product/rootfs.img" \
        "$(key "$base" "$(cat "$(key_of "$product/module")")" "$build/user-space" "$(modes "$build/user-space")" \
            "$top/bench/rootfs" "$(modes "$top/bench/rootfs")" "$(declare -f make_image populate prepare_root finish_image)")" \
        make_image "$base" "$build/user-space" "$product/module" "$kernel_source" "$kernel_build" "$variant"

    ln -sfn "$kernel_source" "$product/linux"
    ln -sfn "$kernel_build" "$product/kernel"
    ln -sfn kernel/arch/arm64/boot/Image "$product/Image"
    [ "$series-$variant" != "$default-release" ] || publish
}

# built [SERIES] [VARIANT]: sets $product to what build made earlier, or to the folder that MYDRV_PRODUCT names: Image, machine.dtb, rootfs.img.
built() {
    local series=${1:-}
    product=${MYDRV_PRODUCT:-}
    [ -z "$product" ] || return 0
    [ -n "$series" ] || series=$(readlink "$build/rootfs.img" | sed 's/-release.*//') || true
    product=$build/$series-${2:-release}
    [ -e "$product/rootfs.img" ] || die "nothing built for kernel ${series:-(any)}, ${2:-release}: run this without --no-build first"
}

# publish: the default build's artefacts, under the names that build/ promises.
publish() {
    local name
    for name in linux kernel Image rootfs.img; do
        ln -sfn "${product##*/}/$name" "$build/$name"
    done
    ln -sfn "${product##*/}/module/mydrv.ko" "$build/mydrv.ko"
    ln -sfn overlay/mydrv.dtbo "$build/mydrv.dtbo"
    ln -sfn user-space/usr/bin/mydrvctl "$build/mydrvctl"
}

# ---- The tests' own tools

# test_tools: makes sure of what the tests run on.
test_tools() {
    cached "test tools" "$venv" make_venv
}

make_venv() {
    in_root python3 -m venv "$1"
    in_root "$1/bin/pip" install --disable-pip-version-check --no-deps -r "$top/tests/requirements.txt"
}
venv=$cache/venv-$(key "$top/tests/requirements.txt" "${toolchain##*/}" "$(declare -f make_venv)")
