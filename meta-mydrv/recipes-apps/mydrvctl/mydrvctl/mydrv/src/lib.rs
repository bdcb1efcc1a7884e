// SPDX-License-Identifier: MIT

//! Access to the DMA buffers of the mydrv kernel driver: `/dev/mydrvN`, each one physically contiguous buffer.
//!
//! ```no_run
//! use mydrv::{Device, Direction};
//!
//! # fn main() -> Result<(), mydrv::Error> {
//! let device = Device::open("camera")?; // a label, an index ("0") or a path ("/dev/mydrv0")
//! let mut buffer = device.map_mut(..)?; // keeps the device open: it may live in a struct, or move to a thread
//! buffer.write(0x100, 0xcafe_u32)?;
//! device.sync(0x100..0x104, Direction::ToDevice)?; // free on coherent buffers, needed on cached ones
//! # Ok(())
//! # }
//! ```
//!
//! What the buffer holds may change at any time: the device writes to it, and so may other processes. Hence every access is an atomic one, of the
//! word asked for, and plain slices are `unsafe`: their caller vouches that nobody else touches those bytes meanwhile. Within the process, types keep
//! accesses apart that must not meet: writing takes `&mut`, threads that write at the same time have [`Atomics`] of one width.
//!
//! When the driver is unbound or its module removed, calls answer [`Error::Gone`], and touching a mapping raises `SIGBUS`, which ends the program. After
//! [`sigbus::install`] it does not: the calls that touch a mapping answer [`Error::Gone`] too.

#![warn(rustdoc::all)]

/// The README's example is one that compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod attempt;
mod device;
mod discover;
mod error;
mod info;
mod mapping;
mod node;
pub mod sigbus;
#[cfg(feature = "stand-in")]
pub mod stand_in;

pub use device::{Device, Direction, Lock, OpenOptions};
pub use discover::{Candidate, Selector, discover, discover_in};
pub use error::{Error, ErrorKind, Result};
pub use info::{Addresses, CacheMode, Flags, Info, Users};
pub use mapping::{Atomics, CpuAccess, CpuAccessMut, Mapping, MappingMut, Word};
pub use node::NodeStatus;

/// The raw ABI, for what this crate does not wrap.
pub use mydrv_abi as abi;
