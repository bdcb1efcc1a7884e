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

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

# step TITLE COMMAND...: runs COMMAND with its output in a log of its own; shows how long it takes, and on failure the log's end.
step() {
    local title=$1 began=$SECONDS status=0 log
    shift
    log=$logs/$(tr -cs '[:alnum:].\n' - <<<"$title").log
    printf '  %-46s ' "$title"
    # In a shell of its own: errexit would be off in this one wherever a caller tests the status.
    bash -c 'source "$0"; "$@"' "$top/bench/lib.sh" "$@" >"$log" 2>&1 </dev/null &
    local pid=$!
    if [ -t 1 ]; then
        while kill -0 "$pid" 2>/dev/null; do
            printf '\r  %-46s %4d s ' "$title" $((SECONDS - began))
            sleep 1
        done
        printf '\r  %-46s ' "$title"
    fi
    wait "$pid" || status=$?
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
    exec {lock}>"$dir.lock"
    flock "$lock"
    if [ ! -e "$dir.done" ]; then
        rm -rf "$dir"
        step "$title" "$@" "$dir" && touch "$dir.done" || status=$?
    fi
    exec {lock}>&-
    return "$status"
}

# The host's own Debian mirror serves the toolchain root and the guest too; MYDRV_DEBIAN_MIRROR names another.
debian_mirror() {
    local mirror=${MYDRV_DEBIAN_MIRROR:-}
    [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Label: Debian' | sort -u | head -n 1)
    [ -n "$mirror" ] || die "no Debian mirror in this host's apt lists: run apt-get update, or set MYDRV_DEBIAN_MIRROR=URL"
    printf '%s' "$mirror"
}

package_list() {
    sed -e 's/#.*//' "$1" | grep -v '^[[:space:]]*$' | paste -sd,
}

# ---- The host: it lends root, mmdebstrap and binfmt_misc, nothing else.

host_setup() {
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
    local mirror
    mirror=$(debian_mirror)
    # The package lists stay: they tell which kernel sources there are.
    mmdebstrap --variant=apt --architectures=amd64,arm64 --skip=cleanup/apt/lists \
        --include="$(package_list "$top/bench/toolchain/packages")" \
        --setup-hook="install -D -m 644 '$top/bench/toolchain/preferences' \"\$1/etc/apt/preferences.d/backports\"" \
        "$debian" "$1" "deb $mirror $debian main" "deb $mirror $debian-backports main"
}

# in_root COMMAND...: runs COMMAND inside the toolchain root, in the same working directory and with the tree, the cache and
# the host's name resolution in their places.
in_root() {
    TOOLCHAIN=$toolchain TREE=$top CACHE=$cache unshare --mount --propagation private -- "$top/bench/toolchain/enter" "$@"
}

# ---- Kernels

# The newest series that Debian's backports offer as source, e.g. 7.3; the bench's default.
newest_series() {
    in_root apt-cache show linux-source | sed -n 's/^Depends:.*linux-source-\([0-9.]*\).*/\1/p' | sort -V | tail -n 1
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

# kernel SERIES VARIANT: makes sure of a built kernel and points kernel_source and kernel_build at it. SERIES is one that Debian's
# backports have, or one whose source tree MYDRV_LINUX_<SERIES> names (6.18: MYDRV_LINUX_6_18); VARIANT is release or debug.
kernel() {
    local series=$1 variant=$2 tree fragments version
    tree=MYDRV_LINUX_${series//./_}
    fragments=("$layer/recipes-kernel/linux/files/mydrv.cfg" "$top/bench/kernel/guest.config")
    [ ! -f "$top/bench/kernel/$series.config" ] || fragments+=("$top/bench/kernel/$series.config")
    [ "$variant" != debug ] || fragments+=("$top/bench/kernel/debug.config")
    if [ -n "${!tree:-}" ]; then
        [ -f "${!tree}/Kconfig" ] || die "$tree=${!tree} is no kernel source tree"
        kernel_source=$(realpath "${!tree}")
        version=$kernel_source
    else
        version=$(in_root apt-cache policy "linux-source-$series" | sed -n 's/^  Candidate: //p')
        [ -n "$version" ] || die "Debian's backports have no kernel $series: set $tree to a source tree"
        kernel_source=$cache/linux-$version
        cached "kernel $series source" "$kernel_source" unpack_debian_source "$series"
    fi
    kernel_build=$cache/kernel-$series-$variant-$(key "$version" "${toolchain##*/}" "${fragments[@]}" "$(declare -f make_kernel)")
    cached "kernel $series, $variant" "$kernel_build" make_kernel "$kernel_source" "$variant" "${fragments[@]}"
}

# KASAN and Rust go together only under clang.
kernel_compiler() {
    [ "$1" != debug ] || printf 'LLVM=1'
}

make_kernel() {
    local source=$1 variant=$2 fragments=("${@:3:$#-3}") dir=${*: -1} make
    mkdir -p "$dir"
    # shellcheck disable=SC2046 # one word or none
    make=(in_root make -C "$source" O="$dir" "${kernel_make[@]}" $(kernel_compiler "$variant") -j"$(nproc)")
    "${make[@]}" tinyconfig
    in_root sh -c 'cd "$1" && shift && ./source/scripts/kconfig/merge_config.sh -m -O . .config "$@"' - "$dir" "${fragments[@]}"
    "${make[@]}" olddefconfig
    check_config "$dir/.config" "${fragments[@]}"
    "${make[@]}" Image modules
}

# An option that Kconfig dropped is an error, not a surprise later.
check_config() {
    local config=$1 line status=0
    shift
    while read -r line; do
        case $line in
            CONFIG_*=n) ! grep -q "^${line%=n}=" "$config" || { echo "still on: ${line%=n}"; status=1; } ;;
            CONFIG_*) grep -qx "$line" "$config" || { echo "lost: $line"; status=1; } ;;
        esac
    done < <(cat "$@")
    return "$status"
}
