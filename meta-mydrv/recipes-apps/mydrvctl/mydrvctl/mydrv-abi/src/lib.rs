// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! The user-space ABI of the mydrv driver, as a crate of its own. The definitions are in `abi.rs`, which the kernel module compiles
//! too; `include/mydrv.h` says the same in C.

#![no_std]

mod abi;

pub use abi::*;
