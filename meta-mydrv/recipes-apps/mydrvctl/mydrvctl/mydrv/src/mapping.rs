// SPDX-License-Identifier: MIT

//! The buffer in this process's memory. The crate's unsafe code is here, in `sigbus.rs`, and in the two ioctls of `device.rs`.

use std::{
    ffi::c_void,
    marker::PhantomData,
    ops::{Deref, Range},
    ptr::{self, NonNull},
    slice,
    sync::atomic::AtomicU64,
};

use rustix::mm::{MapFlags, ProtFlags};

use crate::{
    device::Device,
    error::{Error, Result},
    sigbus::Place,
};

mod sealed {
    pub trait Sealed {}
}

/// What is read and written by one access that the compiler neither splits, merges nor drops.
pub trait Word: Copy + sealed::Sealed {}

macro_rules! words {
    ($($word:ty),*) => {
        $(impl sealed::Sealed for $word {}
        impl Word for $word {})*
    };
}
words!(u8, u16, u32, u64);

/// A part of the buffer, mapped for reading, for no longer than its device is open. Offsets count from the mapping's start.
///
/// It may move to another thread, but is not shared between threads: each makes a mapping of its own.
#[derive(Debug)]
pub struct Mapping<'d> {
    device: PhantomData<&'d Device>,
    path: &'d std::path::Path,
    data: NonNull<u8>,
    len: usize,
    /// How far into its first page `data` starts; what `munmap` must be given lies that far before it.
    lead: usize,
    place: &'static Place,
}

// SAFETY: a mapping belongs to the process, not to a thread; nothing in here is tied to the one that made it.
unsafe impl Send for Mapping<'_> {}

impl<'d> Mapping<'d> {
    /// Maps `length` bytes at `offset`, which the caller has proved to lie within the buffer.
    pub(crate) fn new(device: &'d Device, offset: u64, length: u64, write: bool) -> Result<Self> {
        let lead = (offset % rustix::param::page_size() as u64) as usize;
        // A 32-bit process may not be able to address a buffer's every byte.
        let len = match usize::try_from(length) {
            Ok(len) if len > 0 && len.checked_add(lead).is_some() => len,
            _ => {
                let path = device.path().to_owned();
                return Err(Error::OutOfRange {
                    path,
                    offset,
                    length,
                    size: device.size_bytes(),
                });
            }
        };
        let protection = if write {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        #[allow(unused_mut, reason = "a stand-in may ask for another kind of mapping")]
        let mut flags = MapFlags::SHARED;
        #[cfg(feature = "stand-in")]
        if let Some(driver) = &device.stand_in {
            let request = crate::stand_in::Map {
                offset: offset - lead as u64,
                length: lead + len,
                private: false,
                exec: false,
            };
            if driver.map(&request).map_err(|errno| device.error("mmap", errno))? {
                flags = MapFlags::PRIVATE;
            }
        }
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no existing one.
        let base = unsafe { rustix::mm::mmap(ptr::null_mut(), lead + len, protection, flags, device, offset - lead as u64) }
            .map_err(|errno| device.error("mmap", errno))?;
        #[cfg(feature = "stand-in")]
        if let Some(driver) = &device.stand_in {
            driver.mapped(base, offset - lead as u64, lead + len, write);
        }
        // SAFETY: `lead` bytes on is still inside the mapping just made, and mmap never answers null here.
        let data = unsafe { NonNull::new_unchecked(base.cast::<u8>().add(lead)) };
        Ok(Self {
            device: PhantomData,
            path: device.path(),
            data,
            len,
            lead,
            place: Place::take(
                base as usize,
                (lead + len).next_multiple_of(rustix::param::page_size()),
                write,
            ),
        })
    }

    /// The mapping's length in bytes, at least 1.
    #[allow(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The mapping's first byte, valid for [`len`](Self::len) bytes while this mapping lives. Whoever uses it takes care of what
    /// others do to the buffer.
    pub fn as_ptr(&self) -> *const u8 {
        self.data.as_ptr()
    }

    /// Whether the device has gone and the mapping has been touched since. Only where [`sigbus::install`](crate::sigbus::install) was called: without
    /// it, touching the mapping ends the program. From then on the mapping shows zeros, or what this process wrote there since.
    pub fn is_gone(&self) -> bool {
        self.place.is_gone()
    }

    /// `value`, unless the access that yielded it found the device gone.
    fn unless_gone<T>(&self, value: T) -> Result<T> {
        if self.is_gone() {
            return Err(Error::Gone {
                path: self.path.to_owned(),
            });
        }
        Ok(value)
    }

    /// Reads one word.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::Misaligned`]; [`Error::Gone`], with the [guard](crate::sigbus).
    pub fn read<T: Word>(&self, offset: usize) -> Result<T> {
        let word = self.word(offset)?;
        // SAFETY: `word` proved range and alignment; a Word is valid whatever its bytes are.
        let value = unsafe { ptr::read_volatile(word) };
        self.unless_gone(value)
    }

    /// Copies `bytes.len()` bytes out of the buffer.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`]; [`Error::Gone`], with the [guard](crate::sigbus): what `bytes` holds then is of no use.
    pub fn copy_to(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.check(offset, bytes.len())?;
        // SAFETY: `check` proved that the range lies within the mapping.
        let mut from = unsafe { self.data.as_ptr().cast_const().add(offset) };
        let (head, body, tail) = split(from, bytes.len());
        let (bytes_head, rest) = bytes.split_at_mut(head);
        let (bytes_body, bytes_tail) = rest.split_at_mut(body);
        debug_assert_eq!(bytes_tail.len(), tail);
        // SAFETY: `from` walks the range proved above, once; words are read where `split` made it a multiple of 8.
        unsafe {
            for byte in bytes_head {
                *byte = ptr::read_volatile(from);
                from = from.add(1);
            }
            for chunk in bytes_body.chunks_exact_mut(8) {
                chunk.copy_from_slice(&ptr::read_volatile(from.cast::<u64>()).to_ne_bytes());
                from = from.add(8);
            }
            for byte in bytes_tail {
                *byte = ptr::read_volatile(from);
                from = from.add(1);
            }
        }
        self.unless_gone(())
    }

    /// A range of bytes as a slice.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`].
    ///
    /// # Safety
    ///
    /// While the slice lives, nobody writes those bytes: neither the device, nor another process, nor this one through another
    /// mapping. And the driver stays bound, or else touching the slice raises `SIGBUS`, or, with the [guard](crate::sigbus), finds zeros.
    pub unsafe fn slice(&self, range: Range<usize>) -> Result<&[u8]> {
        self.check(range.start, range.end.saturating_sub(range.start))?;
        // SAFETY: `check` proved the range; the caller vouches for everyone else.
        Ok(unsafe { slice::from_raw_parts(self.data.as_ptr().add(range.start), range.len()) })
    }

    fn check(&self, offset: usize, length: usize) -> Result<()> {
        if offset.checked_add(length).is_some_and(|end| end <= self.len) {
            return Ok(());
        }
        let (path, offset, length) = (self.path.to_owned(), offset as u64, length as u64);
        Err(Error::OutOfRange {
            path,
            offset,
            length,
            size: self.len as u64,
        })
    }

    fn word<T: Word>(&self, offset: usize) -> Result<*mut T> {
        self.check(offset, size_of::<T>())?;
        // SAFETY: `check` proved that the word lies within the mapping.
        let word = unsafe { self.data.as_ptr().add(offset) }.cast::<T>();
        if !word.is_aligned() {
            return Err(Error::Misaligned {
                path: self.path.to_owned(),
                offset: offset as u64,
                alignment: align_of::<T>(),
            });
        }
        Ok(word)
    }
}

impl Drop for Mapping<'_> {
    fn drop(&mut self) {
        self.place.give_back();
        // SAFETY: this is the very range that `new` mapped, and every borrow of it ends with `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.data.as_ptr().sub(self.lead).cast::<c_void>(), self.lead + self.len) };
        debug_assert!(unmapped.is_ok());
        #[cfg(feature = "stand-in")]
        crate::stand_in::unmapped();
    }
}

/// A part of the buffer, mapped for reading and writing. Writing takes `&self`: the memory is shared in any case.
#[derive(Debug)]
pub struct MappingMut<'d>(pub(crate) Mapping<'d>);

impl<'d> Deref for MappingMut<'d> {
    type Target = Mapping<'d>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl MappingMut<'_> {
    /// As [`Mapping::as_ptr`], for writing.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.data.as_ptr()
    }

    /// Writes one word.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::Misaligned`]; [`Error::Gone`], with the [guard](crate::sigbus).
    pub fn write<T: Word>(&self, offset: usize, value: T) -> Result<()> {
        let word = self.word(offset)?;
        // SAFETY: `word` proved range and alignment, and this mapping is writable.
        unsafe { ptr::write_volatile(word, value) };
        self.unless_gone(())
    }

    /// Copies bytes into the buffer.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`]; [`Error::Gone`], with the [guard](crate::sigbus).
    pub fn copy_from(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.check(offset, bytes.len())?;
        // SAFETY: `check` proved that the range lies within the mapping.
        let mut to = unsafe { self.data.as_ptr().add(offset) };
        let (head, body, _) = split(to, bytes.len());
        let (bytes_head, rest) = bytes.split_at(head);
        let (bytes_body, bytes_tail) = rest.split_at(body);
        // SAFETY: `to` walks the range proved above, once; words are written where `split` made it a multiple of 8.
        unsafe {
            for &byte in bytes_head {
                ptr::write_volatile(to, byte);
                to = to.add(1);
            }
            for chunk in bytes_body.chunks_exact(8) {
                let mut word = [0; 8];
                word.copy_from_slice(chunk);
                ptr::write_volatile(to.cast::<u64>(), u64::from_ne_bytes(word));
                to = to.add(8);
            }
            for &byte in bytes_tail {
                ptr::write_volatile(to, byte);
                to = to.add(1);
            }
        }
        self.unless_gone(())
    }

    /// A range of bytes as a slice to write to.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`].
    ///
    /// # Safety
    ///
    /// As [`Mapping::slice`], and nobody else reads those bytes either.
    pub unsafe fn slice_mut(&mut self, range: Range<usize>) -> Result<&mut [u8]> {
        self.check(range.start, range.end.saturating_sub(range.start))?;
        // SAFETY: `check` proved the range, `&mut self` keeps this mapping's other borrows out, the caller vouches for the rest.
        Ok(unsafe { slice::from_raw_parts_mut(self.data.as_ptr().add(range.start), range.len()) })
    }

    /// The whole 64-bit words of the mapping as atomics, by which processes may share data without a race. On buffers that are not
    /// cached, use loads and stores only: not every processor has read-modify-write for such memory.
    ///
    /// # Errors
    ///
    /// [`Error::Misaligned`] if the mapping's start is no multiple of 8.
    pub fn atomics(&self) -> Result<&[AtomicU64]> {
        let first = if self.len < 8 {
            NonNull::dangling().as_ptr()
        } else {
            self.word::<u64>(0)?.cast::<AtomicU64>()
        };
        // SAFETY: `word` proved the alignment, `len / 8` words lie within the mapping, which is writable and outlives the borrow;
        // atomics allow for any other writer.
        Ok(unsafe { slice::from_raw_parts(first, self.len / 8) })
    }
}

/// How many bytes come before the first multiple of 8, in whole words from there, and after those.
fn split(start: *const u8, len: usize) -> (usize, usize, usize) {
    let head = start.align_offset(8).min(len);
    let body = (len - head) & !7;
    (head, body, len - head - body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in memory stands in for the buffer: what is tested here is this side of mmap.
    fn device(size_bytes: u64) -> Device {
        let fd = rustix::fs::memfd_create("mydrv", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, size_bytes).unwrap();
        Device::for_test(fd, size_bytes)
    }

    #[test]
    fn bytes_survive_copies_at_any_offset_and_length() {
        let device = device(8192);
        let mapping = device.map_mut(4090..).unwrap();
        assert_eq!(mapping.len(), 8192 - 4090);
        let bytes: Vec<u8> = (1..=40).collect();
        for offset in 0..16 {
            for length in 0..bytes.len() {
                mapping.copy_from(0, &[0; 64]).unwrap();
                mapping.copy_from(offset, &bytes[..length]).unwrap();
                let mut found = [0; 64];
                mapping.copy_to(0, &mut found).unwrap();
                assert_eq!(&found[offset..offset + length], &bytes[..length]);
                assert!(found[..offset].iter().chain(&found[offset + length..]).all(|&byte| byte == 0));
            }
        }
        // The same memory by read, at the buffer's offset.
        mapping.copy_from(7, b"seven").unwrap();
        let mut found = [0; 5];
        device.read_at(4097, &mut found).unwrap();
        assert_eq!(&found, b"seven");
    }

    #[test]
    fn words_are_checked_for_range_and_alignment() {
        let device = device(4096);
        let mapping = device.map_mut(..).unwrap();
        mapping.write(4088, 0x0123_4567_89ab_cdef_u64).unwrap();
        assert_eq!(mapping.read::<u64>(4088).unwrap(), 0x0123_4567_89ab_cdef);
        assert!(matches!(mapping.read::<u64>(4089), Err(Error::OutOfRange { .. })));
        assert!(matches!(mapping.read::<u32>(2), Err(Error::Misaligned { alignment: 4, .. })));
        assert!(matches!(mapping.write(usize::MAX, 0_u8), Err(Error::OutOfRange { .. })));
        assert!(matches!(mapping.copy_to(1, &mut [0; 4096]), Err(Error::OutOfRange { .. })));
        assert!(matches!(
            mapping.copy_from(usize::MAX, &[0; 2]),
            Err(Error::OutOfRange { .. })
        ));
    }

    #[test]
    fn atomics_are_the_whole_words() {
        let device = device(4096);
        let mapping = device.map_mut(..20).unwrap();
        let words = mapping.atomics().unwrap();
        assert_eq!(words.len(), 2);
        words[1].store(5, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(mapping.read::<u64>(8).unwrap(), 5);
        assert!(matches!(
            device.map_mut(4..).unwrap().atomics(),
            Err(Error::Misaligned { .. })
        ));
        assert!(device.map_mut(1..4).unwrap().atomics().unwrap().is_empty());
    }

    #[test]
    fn nothing_and_too_much_do_not_map() {
        let device = device(4096);
        assert!(matches!(device.map(0..0), Err(Error::OutOfRange { .. })));
        assert!(matches!(device.map(..4097), Err(Error::OutOfRange { .. })));
        let mapping = device.map(..).unwrap();
        let reversed = Range { start: 8, end: 4 };
        // SAFETY: the file is this test's own.
        assert!(unsafe { mapping.slice(reversed) }.unwrap().is_empty());
    }

    #[test]
    fn split_covers_every_byte_once_and_aligns_the_words() {
        let bytes = [0_u64; 8];
        let start = bytes.as_ptr().cast::<u8>();
        for lead in 0..16 {
            for len in 0..40 {
                let (head, body, tail) = split(start.wrapping_add(lead), len);
                assert_eq!(head + body + tail, len);
                assert!(body % 8 == 0 && head < 8 && tail < 8);
                assert!(body == 0 || (lead + head) % 8 == 0, "{lead} {len}");
            }
        }
    }
}
