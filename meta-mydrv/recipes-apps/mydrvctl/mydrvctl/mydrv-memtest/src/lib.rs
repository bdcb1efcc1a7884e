// SPDX-License-Identifier: MIT

//! Memory tests by their standard names, for RAM behind a cache, that leave the contents as they were.
//!
//! [`run`] tests a [`Memory`]: what is [`Mapped`], or whatever else implements the trait, such as memory with faults in a test. Each element
//! of an algorithm goes through all of the memory under test before the next one begins, and what it writes is written back to memory and
//! dropped from the caches, line by line, before anything is read again.
//!
//! | algorithm | what it does | finds |
//! |---|---|---|
//! | [March C-](Algorithm::MarchC) | ⇕(w0); ⇑(r0,w1); ⇑(r1,w0); ⇓(r0,w1); ⇓(r1,w0); ⇕(r0) over lines of 512 bits | stuck-at, transition, address decoder and coupling faults (inversion, idempotent, state) between lines |
//! | [Checkerboard](Algorithm::Checkerboard) | neighbouring bits, words and lines in opposition, both polarities | stuck-at; neighbouring bits of a line that influence each other |
//! | [Retention](Algorithm::Retention) | the checkerboard, with a pause between write and read; only when asked for | cells that lose what they hold |
//! | [Data lines](Algorithm::DataLines) | walking ones and walking zeros over 512 bits, at eight places from the first page to the last | data lines that are stuck, open or bridged |
//! | [Address lines](Algorithm::AddressLines) | walking ones and walking zeros over the offsets of 64-bit words, both polarities of the data | address lines that are stuck, open or bridged |
//!
//! March C-: van de Goor, "Testing Semiconductor Memories", 1991. Address and data lines: Barr, "Fast Accurate Memory Test Suite", 2000.
//!
//! # Contents
//!
//! No copy of the memory is made. Where it is known to hold zeros ([`Contents::Zeros`]) the patterns are written over them, every word that
//! is read is compared, and zeros are left. Otherwise ([`Contents::Keep`]) the patterns are *added* by XOR, which is known as transparent
//! testing (Nicolaidis 1992): the first element of March C- becomes a reading one that takes a signature of each page of 4096 bytes, and
//! each later read must, without the pattern, have the same. Both keep the coverage; the second tells a fault's page, not its word, and
//! misses errors that cancel out in a page's signature, for which at least three bits of one weight must be wrong at once. Data and address
//! lines are tested on lines that are put back one by one.
//!
//! Whatever is found, and when [`Host::stop`] ends the test half way too, the contents are put back, as far as the memory holds them. They
//! are lost only if the process is killed.

mod algorithm;
mod flush;
mod line;
mod lines;
mod memory;
mod plan;
mod run;

pub use algorithm::{Algorithm, Contents, Fault, Site};
pub use flush::Instruction;
pub use line::{LINE_BYTES, LINE_WORDS, Line};
pub use memory::{Lines, Mapped, MappedLines, Memory};
pub use plan::smallest_sample;
pub use run::{Host, Options, Report, Zeros, run, zeros};

/// A page's bytes, whatever the machine's own pages have: what a signature is taken of, and the unit of a sample.
pub const PAGE_BYTES: usize = 4096;
/// A page's lines.
pub const PAGE_LINES: usize = PAGE_BYTES / LINE_BYTES;
