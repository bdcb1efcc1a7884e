// SPDX-License-Identifier: MIT

//! Access to the DMA buffers of the mydrv kernel driver: `/dev/mydrvN`, each one physically contiguous buffer.
//!
//! ```no_run
//! use mydrv::{Device, Direction};
//!
//! # fn main() -> Result<(), mydrv::Error> {
//! let device = Device::open("camera")?; // a label, an index ("0") or a path ("/dev/mydrv0")
//! let buffer = device.map_mut(..)?;
//! buffer.write(0x100, 0xcafe_u32)?;
//! device.sync(0x100..0x104, Direction::ToDevice)?; // free on coherent buffers, needed on cached ones
//! # Ok(())
//! # }
//! ```
//!
//! What the buffer holds may change at any time: the device writes to it, and so may other processes. Hence [`Mapping`] reads and
//! writes by volatile access, and plain slices are `unsafe`: their caller vouches that nobody else touches those bytes meanwhile.
//!
//! When the driver is unbound or its module removed, calls answer [`Error::Gone`], and touching a mapping raises `SIGBUS`, which ends the program. After
//! [`sigbus::install`] it does not: the calls that touch a mapping answer [`Error::Gone`] too.

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
pub use error::{Error, Result};
pub use info::{Addresses, CacheMode, Flags, Info, Users};
pub use mapping::{Mapping, MappingMut, Word};
pub use node::NodeStatus;

/// The raw ABI, for what this crate does not wrap.
pub use mydrv_abi as abi;
