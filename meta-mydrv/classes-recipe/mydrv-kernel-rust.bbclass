# SPDX-License-Identifier: MIT
# The compiler of the kernel's Rust, for all that compiles some of it: kernel, make-mod-scripts, module. One toolchain for all three, and never a
# second one in the same sysroot: both install rustc.

MYDRV_KERNEL_RUST = "${@d.getVar('MYDRV_KERNEL_RUST_PREBUILT' if d.getVar('MYDRV_RUST') == 'prebuilt' else 'MYDRV_KERNEL_RUST_OE_CORE')}"
MYDRV_KERNEL_RUST_PREBUILT = "rust-bin-cross-${TARGET_ARCH} rust-src-bin-native bindgen-bin-native libclang-bin-native"
MYDRV_KERNEL_RUST_OE_CORE = "rust-native bindgen-cli-native clang-native"
