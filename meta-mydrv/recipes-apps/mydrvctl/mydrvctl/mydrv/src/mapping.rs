// SPDX-License-Identifier: MIT

//! The buffer in this process's memory. The crate's unsafe code is here, in `sigbus.rs`, and in the two ioctls of `device.rs`.

use std::{
    ffi::c_void,
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut, Range},
    ptr::{self, NonNull},
    slice,
    sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicUsize, Ordering::Relaxed},
};

#[cfg(target_has_atomic = "64")]
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags};

use crate::{
    device::{Device, Direction},
    error::{Error, Result},
    sigbus::Place,
};

mod sealed {
    pub trait Sealed: Sized {
        /// Reads by one relaxed load.
        ///
        /// # Safety
        ///
        /// `at` is aligned for [`Word::Atomic`](super::Word::Atomic) and mapped for reading.
        unsafe fn load(at: *const Self) -> Self;

        /// Writes by one relaxed store.
        ///
        /// # Safety
        ///
        /// `at` is aligned for [`Word::Atomic`](super::Word::Atomic) and mapped for writing.
        unsafe fn store(self, at: *mut Self);
    }
}

/// What is read and written by one access: `u8`, `u16`, `u32`, and, where the target has 64-bit atomics, `u64`. The compiler does not split it, so
/// no other program sees half of it.
pub trait Word: Copy + sealed::Sealed {
    /// The same in memory that others change, too.
    type Atomic: Send + Sync;
}

macro_rules! words {
    ($($(#[$condition:meta])? $word:ty, $atomic:ty;)*) => {
        $($(#[$condition])?
        impl sealed::Sealed for $word {
            unsafe fn load(at: *const Self) -> Self {
                // SAFETY: the caller vouches for alignment and mapping; that others change it is what atomics are for.
                unsafe { (*at.cast::<$atomic>()).load(Relaxed) }
            }

            unsafe fn store(self, at: *mut Self) {
                // SAFETY: as above.
                unsafe { (*at.cast::<$atomic>()).store(self, Relaxed) }
            }
        }

        $(#[$condition])?
        impl Word for $word {
            type Atomic = $atomic;
        })*
    };
}
words! {
    u8, AtomicU8;
    u16, AtomicU16;
    u32, AtomicU32;
    #[cfg(target_has_atomic = "64")]
    u64, AtomicU64;
}
// For bulk copies: as wide as any target's registers.
words! { usize, AtomicUsize; }

/// A part of the buffer, mapped for reading. Offsets count from the mapping's start.
///
/// It keeps its device open, and so its lock held: a mapping may outlive the [`Device`] that made it, live in a struct, move to another thread or be
/// shared between threads. Devices and other programs may change what it shows at any time; each access takes that into account.
pub struct Mapping {
    device: Device,
    data: NonNull<u8>,
    len: usize,
    /// Where it starts in the buffer, in bytes.
    offset: u64,
    /// How far into its first page `data` starts; what `munmap` must be given lies that far before it.
    lead: usize,
    place: &'static Place,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: by `&Mapping` memory is only read, and by atomic accesses; whatever writes to it within this process has it by `&mut`, or as atomics.
unsafe impl Sync for Mapping {}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("path", &self.device.path())
            .field("offset", &self.offset)
            .field("len", &self.len)
            .finish()
    }
}

impl Mapping {
    /// Maps `length` bytes at `offset`, which the caller has proved to lie within the buffer.
    pub(crate) fn new(device: &Device, offset: u64, length: u64, write: bool) -> Result<Self> {
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
        if let Some(driver) = device.stand_in() {
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
        if let Some(driver) = device.stand_in() {
            driver.mapped(base, offset - lead as u64, lead + len, write);
        }
        // SAFETY: `lead` bytes on is still inside the mapping just made, and mmap never answers null here.
        let data = unsafe { NonNull::new_unchecked(base.cast::<u8>().add(lead)) };
        Ok(Self {
            device: device.clone(),
            data,
            len,
            offset,
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

    /// The device that it is a mapping of.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The mapping's first byte, valid for [`len`](Self::len) bytes while this mapping lives. Whoever reads through it takes care of what others do to
    /// the buffer meanwhile: devices, other programs, and this one through `&mut` or [atomics](MappingMut::atomics).
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
                path: self.device.path().to_owned(),
            });
        }
        Ok(value)
    }

    /// Reads one word, by one access.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::Misaligned`]; [`Error::Gone`], with the [guard](crate::sigbus).
    pub fn read<T: Word>(&self, offset: usize) -> Result<T> {
        let word = self.word::<T>(offset)?;
        // SAFETY: `word` proved range and alignment.
        let value = unsafe { T::load(word) };
        self.unless_gone(value)
    }

    /// Copies `bytes.len()` bytes out of the buffer, each of them read once. What others write meanwhile comes in part.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`]; [`Error::Gone`], with the [guard](crate::sigbus): what `bytes` holds then is of no use.
    pub fn copy_to(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.check(offset, bytes.len())?;
        let from = self.data.as_ptr().wrapping_add(offset).cast_const();
        let (head, body, _) = split(from, bytes.len());
        let (bytes_head, rest) = bytes.split_at_mut(head);
        let (bytes_body, bytes_tail) = rest.split_at_mut(body);
        // SAFETY: `check` proved that the range lies within the mapping; `split` made the words' places multiples of their size.
        unsafe {
            for (i, byte) in bytes_head.iter_mut().enumerate() {
                *byte = sealed::Sealed::load(from.add(i));
            }
            let words = from.add(head).cast::<usize>();
            for (i, chunk) in bytes_body.chunks_exact_mut(WORD).enumerate() {
                chunk.copy_from_slice(&<usize as sealed::Sealed>::load(words.add(i)).to_ne_bytes());
            }
            let rest = from.add(head + body);
            for (i, byte) in bytes_tail.iter_mut().enumerate() {
                *byte = sealed::Sealed::load(rest.add(i));
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
    /// As long as the slice lives:
    ///
    /// - nobody writes those bytes: no device, no other process, and not this one through another mapping or a pointer (that it does not through this
    ///   mapping is seen to by the borrow);
    /// - the driver stays bound, or else touching the slice raises `SIGBUS`, or, with the [guard](crate::sigbus), finds zeros where there was something
    ///   else before.
    pub unsafe fn slice(&self, range: Range<usize>) -> Result<&[u8]> {
        self.check(range.start, range.end.saturating_sub(range.start))?;
        // SAFETY: `check` proved the range; the caller vouches for everyone else.
        Ok(unsafe { slice::from_raw_parts(self.data.as_ptr().add(range.start), range.len()) })
    }

    /// Lets the processor read a buffer that devices write to: hands it over from the device now. Needed on cached buffers, free on others.
    ///
    /// # Errors
    ///
    /// As [`Device::sync`]; above all [`Error::NotWritable`], where the device was opened for reading only and others may write the buffer.
    pub fn cpu_access(&self) -> Result<CpuAccess<'_>> {
        self.sync(Direction::FromDevice)?;
        Ok(CpuAccess { mapping: self })
    }

    /// Hands all of the mapping over.
    fn sync(&self, direction: Direction) -> Result<()> {
        self.device.sync(self.offset..self.offset + self.len as u64, direction)
    }

    fn check(&self, offset: usize, length: usize) -> Result<()> {
        if offset.checked_add(length).is_some_and(|end| end <= self.len) {
            return Ok(());
        }
        let (path, offset, length) = (self.device.path().to_owned(), offset as u64, length as u64);
        Err(Error::OutOfRange {
            path,
            offset,
            length,
            size: self.len as u64,
        })
    }

    fn word<T: Word>(&self, offset: usize) -> Result<*mut T> {
        self.check(offset, size_of::<T>())?;
        let word = self.data.as_ptr().wrapping_add(offset).cast::<T>();
        // Atomics may ask for more than the integer does.
        let alignment = align_of::<T::Atomic>();
        if !word.addr().is_multiple_of(alignment) {
            return Err(Error::Misaligned {
                path: self.device.path().to_owned(),
                offset: offset as u64,
                alignment,
            });
        }
        Ok(word)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.place.give_back();
        // SAFETY: this is the very range that `new` mapped, and every borrow of it ends with `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.data.as_ptr().sub(self.lead).cast::<c_void>(), self.lead + self.len) };
        debug_assert!(unmapped.is_ok());
        #[cfg(feature = "stand-in")]
        crate::stand_in::unmapped();
    }
}

/// A part of the buffer, mapped for reading and writing. Reads are [`Mapping`]'s.
///
/// Writing takes `&mut self`, so that a thread that has the mapping knows which other writers there are: devices and other programs only. Threads that
/// write at the same time do so by [atomics](Self::atomics).
///
/// ```compile_fail,E0596
/// fn shared(buffer: &mydrv::MappingMut) {
///     buffer.write(0, 1_u32); // `&mut` is needed
/// }
/// ```
///
/// ```compile_fail,E0502
/// fn atomics_and_words(buffer: &mut mydrv::MappingMut) {
///     let words = buffer.atomics::<u32>().unwrap();
///     let other = buffer.read::<u8>(0); // while the atomics live, they are the only way
///     words[0].load(std::sync::atomic::Ordering::Relaxed);
/// }
/// ```
///
/// ```compile_fail,E0499
/// fn two_widths(buffer: &mut mydrv::MappingMut) {
///     let words = buffer.atomics::<u32>().unwrap();
///     let bytes = buffer.atomics::<u8>().unwrap(); // one width at a time
///     words[0].store(bytes.len() as u32, std::sync::atomic::Ordering::Relaxed);
/// }
/// ```
///
/// ```compile_fail,E0502
/// fn written_under_a_slice(buffer: &mut mydrv::MappingMut) {
///     let slice = unsafe { buffer.slice(0..8) }.unwrap();
///     buffer.write(0, 1_u32).unwrap(); // the slice promises that nothing changes
///     println!("{}", slice[0]);
/// }
/// ```
///
/// ```compile_fail,E0505
/// fn atomics_outlive_the_mapping(mut buffer: mydrv::MappingMut) {
///     let words = buffer.atomics::<u32>().unwrap();
///     drop(buffer);
///     words[0].load(std::sync::atomic::Ordering::Relaxed);
/// }
/// ```
///
/// ```compile_fail,E0277
/// fn floats_are_no_words(buffer: &mydrv::MappingMut) {
///     buffer.read::<f32>(0);
/// }
/// ```
#[derive(Debug)]
pub struct MappingMut(pub(crate) Mapping);

impl Deref for MappingMut {
    type Target = Mapping;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl MappingMut {
    /// As [`Mapping::as_ptr`], for writing. Whoever writes through it sees to it that nothing else of this process accesses those bytes meanwhile but by
    /// atomic accesses of the same width.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.data.as_ptr()
    }

    /// Writes one word, by one access.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::Misaligned`]; [`Error::Gone`], with the [guard](crate::sigbus).
    pub fn write<T: Word>(&mut self, offset: usize, value: T) -> Result<()> {
        let word = self.word::<T>(offset)?;
        // SAFETY: `word` proved range and alignment, and this mapping is writable.
        unsafe { value.store(word) };
        self.unless_gone(())
    }

    /// Copies bytes into the buffer, each of them written once. What others read meanwhile is in part the old and in part the new.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`]; [`Error::Gone`], with the [guard](crate::sigbus).
    pub fn copy_from(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.check(offset, bytes.len())?;
        let to = self.data.as_ptr().wrapping_add(offset);
        let (head, body, _) = split(to, bytes.len());
        let (bytes_head, rest) = bytes.split_at(head);
        let (bytes_body, bytes_tail) = rest.split_at(body);
        // SAFETY: `check` proved that the range lies within the mapping; `split` made the words' places multiples of their size.
        unsafe {
            for (i, &byte) in bytes_head.iter().enumerate() {
                sealed::Sealed::store(byte, to.add(i));
            }
            let words = to.add(head).cast::<usize>();
            for (i, chunk) in bytes_body.chunks_exact(WORD).enumerate() {
                let mut word = [0; WORD];
                word.copy_from_slice(chunk);
                sealed::Sealed::store(usize::from_ne_bytes(word), words.add(i));
            }
            let rest = to.add(head + body);
            for (i, &byte) in bytes_tail.iter().enumerate() {
                sealed::Sealed::store(byte, rest.add(i));
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
    /// As long as the slice lives:
    ///
    /// - nobody else reads or writes those bytes: no device, no other process, and not this one through another mapping or a pointer;
    /// - the driver stays bound, or else touching the slice raises `SIGBUS`, or, with the [guard](crate::sigbus), finds zeros where there was something
    ///   else before.
    pub unsafe fn slice_mut(&mut self, range: Range<usize>) -> Result<&mut [u8]> {
        self.check(range.start, range.end.saturating_sub(range.start))?;
        // SAFETY: `check` proved the range, `&mut self` keeps this mapping's other borrows out, the caller vouches for the rest.
        Ok(unsafe { slice::from_raw_parts_mut(self.data.as_ptr().add(range.start), range.len()) })
    }

    /// The whole words of the mapping as atomics of one width, by which threads and processes share data without a race. While they live, this mapping
    /// has no other use. On buffers that are not cached, use loads and stores only: not every processor has read-modify-write for such memory.
    ///
    /// # Errors
    ///
    /// [`Error::Misaligned`] if the mapping's start is no multiple of the word's size.
    pub fn atomics<T: Word>(&mut self) -> Result<&[T::Atomic]> {
        let count = self.len / size_of::<T>();
        let first = if count == 0 {
            NonNull::dangling().as_ptr()
        } else {
            self.word::<T>(0)?.cast::<T::Atomic>()
        };
        // SAFETY: `word` proved the alignment, `count` words lie within the mapping, which is writable and outlives the borrow; the `&mut` keeps accesses
        // of other widths out, and atomics allow for writers outside of this process.
        Ok(unsafe { slice::from_raw_parts(first, count) })
    }

    /// The same for good, for threads that live as long as they like: behind an [`Arc`](std::sync::Arc), say.
    ///
    /// ```no_run
    /// # use std::sync::{Arc, atomic::Ordering};
    /// # fn main() -> Result<(), mydrv::Error> {
    /// let words = Arc::new(mydrv::Device::open("camera")?.map_mut(..)?.into_atomics::<u32>()?);
    /// let writer = Arc::clone(&words);
    /// std::thread::spawn(move || writer[0].store(1, Ordering::Release));
    /// while words[0].load(Ordering::Acquire) == 0 {}
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`atomics`](Self::atomics).
    pub fn into_atomics<T: Word>(mut self) -> Result<Atomics<T>> {
        let words = ptr::from_ref(self.atomics::<T>()?);
        Ok(Atomics {
            words,
            mapping: self,
            width: PhantomData,
        })
    }

    /// Lets the processor read and write a buffer that devices use: hands it over from the device now, and back when the guard goes out of scope, or,
    /// with the error if there is one, by [`CpuAccessMut::end`]. Needed on cached buffers, free on others.
    ///
    /// # Errors
    ///
    /// As [`Device::sync`].
    pub fn cpu_access_mut(&mut self) -> Result<CpuAccessMut<'_>> {
        self.sync(Direction::FromDevice)?;
        Ok(CpuAccessMut { mapping: self })
    }
}

/// A mapping whose words are atomics, see [`MappingMut::into_atomics`].
pub struct Atomics<T: Word> {
    /// Into the mapping, which stays where it is when this moves.
    words: *const [T::Atomic],
    mapping: MappingMut,
    width: PhantomData<T>,
}

// SAFETY: the words are atomics, which are Send and Sync; the mapping belongs to the process.
unsafe impl<T: Word> Send for Atomics<T> {}
// SAFETY: as above; by `&Atomics` the mapping itself is not to be had.
unsafe impl<T: Word> Sync for Atomics<T> {}

impl<T: Word> Atomics<T> {
    /// As [`Mapping::is_gone`].
    pub fn is_gone(&self) -> bool {
        self.mapping.is_gone()
    }

    /// The device that it is a mapping of.
    pub fn device(&self) -> &Device {
        self.mapping.device()
    }

    /// The mapping again.
    pub fn into_mapping(self) -> MappingMut {
        self.mapping
    }
}

impl<T: Word> Deref for Atomics<T> {
    type Target = [T::Atomic];

    fn deref(&self) -> &Self::Target {
        // SAFETY: `atomics` made it, and the mapping lives as long as this does.
        unsafe { &*self.words }
    }
}

impl<T: Word> fmt::Debug for Atomics<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Atomics").field("mapping", &self.mapping).finish()
    }
}

/// The time in which the processor reads, see [`Mapping::cpu_access`]. Nothing needs to be handed back: nothing was written.
#[derive(Debug)]
pub struct CpuAccess<'m> {
    mapping: &'m Mapping,
}

impl Deref for CpuAccess<'_> {
    type Target = Mapping;

    fn deref(&self) -> &Self::Target {
        self.mapping
    }
}

/// The time in which the processor reads and writes, see [`MappingMut::cpu_access_mut`].
#[derive(Debug)]
pub struct CpuAccessMut<'m> {
    mapping: &'m mut MappingMut,
}

impl CpuAccessMut<'_> {
    /// Hands the mapping back to the device.
    ///
    /// # Errors
    ///
    /// As [`Device::sync`].
    pub fn end(self) -> Result<()> {
        // What was written goes out once, not again when it is dropped.
        std::mem::ManuallyDrop::new(self).mapping.sync(Direction::ToDevice)
    }
}

impl Deref for CpuAccessMut<'_> {
    type Target = MappingMut;

    fn deref(&self) -> &Self::Target {
        self.mapping
    }
}

impl DerefMut for CpuAccessMut<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.mapping
    }
}

impl Drop for CpuAccessMut<'_> {
    fn drop(&mut self) {
        // It fails only where the device has gone, and with it the device that would read.
        let _ = self.mapping.sync(Direction::ToDevice);
    }
}

/// The bytes of one access of a bulk copy.
const WORD: usize = size_of::<usize>();

/// How many bytes come before the first multiple of a word's size, in whole words from there, and after those.
fn split(start: *const u8, len: usize) -> (usize, usize, usize) {
    let head = (start.addr().next_multiple_of(WORD) - start.addr()).min(len);
    let body = (len - head) / WORD * WORD;
    (head, body, len - head - body)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

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
        let mut mapping = device.map_mut(4090..).unwrap();
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
        let mut mapping = device.map_mut(..).unwrap();
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
        let mut mapping = device.map_mut(..21).unwrap();
        assert_eq!(mapping.atomics::<u8>().unwrap().len(), 21);
        assert_eq!(mapping.atomics::<u16>().unwrap().len(), 10);
        let words = mapping.atomics::<u32>().unwrap();
        assert_eq!(words.len(), 5);
        words[2].store(5, Relaxed);
        assert_eq!(mapping.read::<u32>(8).unwrap(), 5);
        assert!(matches!(
            device.map_mut(2..).unwrap().atomics::<u32>(),
            Err(Error::Misaligned { alignment: 4, .. })
        ));
        assert!(device.map_mut(1..4).unwrap().atomics::<u32>().unwrap().is_empty());
    }

    #[test]
    fn a_mapping_outlives_its_device_and_is_shared_between_threads() {
        struct Application {
            input: Mapping,
            output: Arc<Atomics<u32>>,
        }
        let device = device(4096);
        let application = Application {
            input: device.map(..).unwrap(),
            output: Arc::new(device.map_mut(..).unwrap().into_atomics().unwrap()),
        };
        drop(device);
        let moved = thread::spawn(move || {
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let output = Arc::clone(&application.output);
                    thread::spawn(move || output[writer].store(writer as u32 + 1, Relaxed))
                })
                .collect();
            for writer in writers {
                writer.join().unwrap();
            }
            application
        });
        let Application { input, output } = moved.join().unwrap();
        thread::scope(|scope| {
            for reader in 0..4 {
                let input = &input;
                scope.spawn(move || assert_eq!(input.read::<u32>(4 * reader).unwrap(), reader as u32 + 1));
            }
        });
        let mapping = Arc::try_unwrap(output).unwrap().into_mapping();
        assert_eq!(mapping.read::<u32>(12).unwrap(), 4);
        // The file is open as long as something of it is mapped.
        assert_eq!(mapping.device().path(), input.device().path());
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
        let bytes = [0_usize; 8];
        let start = bytes.as_ptr().cast::<u8>();
        for lead in 0..16 {
            for len in 0..40 {
                let (head, body, tail) = split(start.wrapping_add(lead), len);
                assert_eq!(head + body + tail, len);
                assert!(body % WORD == 0 && head < WORD && tail < WORD);
                assert!(body == 0 || (lead + head) % WORD == 0, "{lead} {len}");
            }
        }
    }
}
