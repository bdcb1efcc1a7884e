// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! The ioctls of `/dev/mydrvN`: the one definition that the kernel module, the `mydrv` crate and, by a test, the C header share.
//!
//! Plain constants and `#[repr(C)]` structures of fixed-size integers only, without padding, so that 32-bit and 64-bit programs see
//! the same bytes. A structure never changes once released: a later ABI version adds ioctls, and an older driver answers `ENOTTY`
//! to those.

/// The version of this interface; [`MydrvInfo::abi_version`] tells the driver's.
pub const MYDRV_ABI_VERSION: u32 = 2;

/// The bytes of [`MydrvInfo::label`], its terminating NUL included.
pub const MYDRV_LABEL_BYTES: usize = 32;

/// `_IOR(0xD8, 0x00, struct mydrv_info)`: describes the buffer. Never fails but with `ENODEV` (the device is gone) or `EFAULT`.
pub const MYDRV_IOC_INFO: u32 = 0x8058_d800;

/// `_IOW(0xD8, 0x01, struct mydrv_sync)`: hands a range of a cached buffer from the processor to the device or back. There are four
/// moments to hand over:
///
/// 1. the processor wrote, the device will read: [`MYDRV_SYNC_TO_DEVICE`], or the device reads what memory held before;
/// 2. the processor wrote, the device will *write*: [`MYDRV_SYNC_TO_DEVICE`] too, or a cache line that the processor left dirty is
///    written back over the device's data some time later;
/// 3. the device wrote, the processor will read: [`MYDRV_SYNC_FROM_DEVICE`], or the processor reads what its cache held before, or fetched
///    ahead of its own accord meanwhile;
/// 4. the device wrote, the processor will write a part of a cache line: [`MYDRV_SYNC_FROM_DEVICE`] too, or the rest of the line is
///    written back as the cache held it.
///
/// After the device only read nothing is needed. Whole cache lines change hands: what device and processor use at the same time must not
/// share one.
///
/// `EINVAL`: an unknown direction, an empty range, or reserved bits set. `ERANGE`: the range leaves the buffer, or its end overflows.
/// `EBADF`: [`MYDRV_SYNC_FROM_DEVICE`] through a file not open for writing, on a buffer that others may write: discarding cache lines
/// may discard their data. `ENODEV`: the device is gone. Coherent and write-combining buffers need no sync: the call does nothing
/// there but check its argument.
pub const MYDRV_IOC_SYNC: u32 = 0x4018_d801;

/// `_IOR(0xD8, 0x02, struct mydrv_users)`, since ABI version 2: counts the files that are open, and those that were. Never fails but with `ENODEV` (the
/// device is gone) or `EFAULT`.
pub const MYDRV_IOC_USERS: u32 = 0x8010_d802;

/// [`MydrvInfo::flags`]: the buffer is read-only for every user (`read-only` in the device tree).
pub const MYDRV_FLAG_READ_ONLY: u32 = 1 << 0;
/// [`MydrvInfo::flags`]: the buffer is zeroed whenever its last user closes it (`mydrv,scrub`).
pub const MYDRV_FLAG_SCRUB: u32 = 1 << 1;
/// [`MydrvInfo::flags`]: the memory comes from a reserved region (`memory-region`), not from the default pool.
pub const MYDRV_FLAG_RESERVED: u32 = 1 << 2;
/// [`MydrvInfo::flags`]: the reserved region is outside the kernel's own mapping (`no-map`), so never lent to anyone else.
pub const MYDRV_FLAG_NO_MAP: u32 = 1 << 3;
/// [`MydrvInfo::flags`]: the device snoops the processor's caches (`dma-coherent`), so a cached buffer needs no sync either.
pub const MYDRV_FLAG_DMA_COHERENT: u32 = 1 << 4;
/// [`MydrvInfo::flags`]: the addresses in [`MydrvInfo`] are filled in: the caller has `CAP_SYS_RAWIO`.
pub const MYDRV_FLAG_ADDRESSES: u32 = 1 << 5;
/// [`MydrvInfo::flags`]: no file has been open for writing since the driver last zeroed the buffer.
pub const MYDRV_FLAG_PRISTINE: u32 = 1 << 6;

/// [`MydrvInfo::cache_mode`]: processor and device always see the same data (`"coherent"`).
pub const MYDRV_CACHE_COHERENT: u32 = 0;
/// [`MydrvInfo::cache_mode`]: as coherent, with writes gathered before they leave the processor (`"write-combine"`).
pub const MYDRV_CACHE_WRITE_COMBINE: u32 = 1;
/// [`MydrvInfo::cache_mode`]: the processor's caches are used; [`MYDRV_IOC_SYNC`] keeps both sides in step (`"cached"`).
pub const MYDRV_CACHE_CACHED: u32 = 2;

/// [`MydrvSync::direction`]: what the processor wrote goes to memory. Call it before the device reads *or writes* the range.
pub const MYDRV_SYNC_TO_DEVICE: u32 = 1;
/// [`MydrvSync::direction`]: what the caches hold is dropped, so that the processor sees what the device wrote. Call it after the device
/// wrote, before the processor reads or writes the range.
pub const MYDRV_SYNC_FROM_DEVICE: u32 = 2;

/// What [`MYDRV_IOC_INFO`] answers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MydrvInfo {
    /// The driver's [`MYDRV_ABI_VERSION`].
    pub abi_version: u32,
    /// `MYDRV_FLAG_*`.
    pub flags: u32,
    /// The buffer's length in bytes, a multiple of the page size.
    pub size_bytes: u64,
    /// Where the device finds the buffer: what its DMA engine is given. 0 without [`MYDRV_FLAG_ADDRESSES`].
    pub dma_address: u64,
    /// Where the buffer is in physical memory; differs from `dma_address` behind an IOMMU or a bus offset. 0 without
    /// [`MYDRV_FLAG_ADDRESSES`].
    pub physical_address: u64,
    /// Where the reserved region starts in physical memory. 0 without [`MYDRV_FLAG_ADDRESSES`] or [`MYDRV_FLAG_RESERVED`].
    pub region_base: u64,
    /// The reserved region's length in bytes; 0 without [`MYDRV_FLAG_RESERVED`].
    pub region_size_bytes: u64,
    /// `MYDRV_CACHE_*`.
    pub cache_mode: u32,
    /// 0.
    pub reserved: u32,
    /// The `label` of the device tree, NUL-terminated; empty where it has none.
    pub label: [u8; MYDRV_LABEL_BYTES],
}

/// What [`MYDRV_IOC_USERS`] answers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MydrvUsers {
    /// How many files have been opened for writing since the device was bound: another number later says that somebody who may have
    /// changed the buffer came meanwhile, even if they have left again.
    pub opened_for_writing: u64,
    /// How many files are open now, the caller's own among them. A mapping keeps its file open.
    pub open_files: u32,
    /// 0.
    pub reserved: u32,
}

/// What [`MYDRV_IOC_SYNC`] takes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MydrvSync {
    /// The first byte of the range, counted from the buffer's start.
    pub offset: u64,
    /// The range's length in bytes, at least 1.
    pub length: u64,
    /// [`MYDRV_SYNC_TO_DEVICE`] or [`MYDRV_SYNC_FROM_DEVICE`].
    pub direction: u32,
    /// 0; anything else is refused, so that a later version can give it a meaning.
    pub reserved: u32,
}

/// The ioctl number that the kernel's `_IOC()` macro makes of these (include/uapi/asm-generic/ioctl.h).
const fn ioc(direction: u32, number: u32, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | 0xd8 << 8 | number
}

// As literals above, for whoever reads them in a trace; proved here.
const _: () = assert!(MYDRV_IOC_INFO == ioc(2, 0x00, size_of::<MydrvInfo>()));
const _: () = assert!(MYDRV_IOC_SYNC == ioc(1, 0x01, size_of::<MydrvSync>()));
const _: () = assert!(MYDRV_IOC_USERS == ioc(2, 0x02, size_of::<MydrvUsers>()));

// No padding: the fields fill the structures.
const _: () = assert!(size_of::<MydrvInfo>() == 2 * 4 + 5 * 8 + 2 * 4 + MYDRV_LABEL_BYTES);
const _: () = assert!(size_of::<MydrvSync>() == 2 * 8 + 2 * 4);
const _: () = assert!(size_of::<MydrvUsers>() == 8 + 2 * 4);
