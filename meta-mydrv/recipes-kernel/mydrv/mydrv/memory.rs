// SPDX-License-Identifier: GPL-2.0-only

//! The memory itself: the reserved region it comes from, its allocation by the DMA API, and access
//! to it from the kernel.
//!
//! Ownership: [`Memory`] owns its [`Region`]; dropping it frees the memory first, then releases the
//! region, both while the device is still bound, as the DMA API demands. Who may reach the memory
//! at which time is `buffer.rs`'s concern.

use core::{
    ops::Range,
    ptr::NonNull, //
};

use kernel::{
    bindings,
    device::{
        Bound,
        Device, //
    },
    error::{
        to_result,
        Error, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::aref::ARef,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use crate::{
    abi::*,
    compat::DMA_BIDIRECTIONAL,
    config::{
        CacheMode,
        Config, //
    },
    shim, //
};

/// The C view of a device; `Device` is a transparent wrapper of `struct device`.
fn raw(dev: &Device) -> *mut bindings::device {
    core::ptr::from_ref(dev).cast_mut().cast()
}

/// A reserved-memory region that serves the device's allocations while this lives.
pub(crate) struct Region {
    dev: ARef<Device>,
    base: u64,
    size: u64,
    no_map: bool,
    is_cma: bool,
}

impl Region {
    /// Claims the `memory-region` of the device's node; `None` where it has none.
    pub(crate) fn claim(dev: &Device<Bound>) -> Result<Option<Self>> {
        let (mut base, mut size, mut no_map) = (0, 0, false);
        // SAFETY: The device is being probed, and the other pointers are to locals.
        let ret = unsafe { shim::mydrv_region_claim(raw(dev), &mut base, &mut size, &mut no_map) };
        match to_result(ret) {
            Ok(()) => {
                // SAFETY: The device is being probed, and only this driver gives it a CMA area.
                let is_cma = unsafe { !(*raw(dev)).cma_area.is_null() };
                Ok(Some(Region {
                    dev: ARef::from(&**dev),
                    base,
                    size,
                    no_map,
                    is_cma,
                }))
            }
            Err(ENOENT) => Ok(None),
            Err(ENXIO) => {
                dev_err!(dev, "memory-region: the kernel did not reserve it at boot; see its \"Reserved memory\" lines, check that the region fits into memory and that the overlay was applied by the boot loader\n");
                Err(ENXIO)
            }
            Err(err) => {
                dev_err!(dev, "memory-region: refused ({err:?}); the region needs compatible = \"shared-dma-pool\" and \"reusable\" or \"no-map\"\n");
                Err(err)
            }
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether the page allocator may lend the region out meanwhile (`reusable`); otherwise it is a
    /// pool of its own.
    pub(crate) fn is_cma(&self) -> bool {
        self.is_cma
    }

    fn contains(&self, start: u64, len: u64) -> bool {
        start >= self.base && len <= self.size && start - self.base <= self.size - len
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `Memory` frees what it allocated before it drops its region; where probing fails,
        // nothing was allocated.
        unsafe { shim::mydrv_region_release(raw(&self.dev)) };
    }
}

/// Physically contiguous memory, mapped for the device and for the kernel.
///
/// # Invariants
///
/// `cpu` points to `size` bytes that stay valid until drop; they are at the physical addresses from
/// `phys` on, which the device reaches from `dma` on. The device stays bound as long as this lives.
pub(crate) struct Memory {
    dev: ARef<Device>,
    cpu: NonNull<u8>,
    dma: bindings::dma_addr_t,
    phys: u64,
    size: usize,
    kind: Kind,
    /// Whether the device snoops the processor's caches.
    dma_coherent: bool,
    region: Option<Region>,
}

/// Which function of the DMA API made it, and so frees it.
enum Kind {
    /// `dma_alloc_attrs()` with these attributes.
    Attrs(kernel::ffi::c_ulong),
    /// `dma_alloc_pages()`: cached, with explicit synchronisation.
    Pages(NonNull<bindings::page>),
}

// SAFETY: The memory and the device's reference may be used and freed on any thread.
unsafe impl Send for Memory {}

impl Memory {
    /// Allocates and zeroes the memory that `config` describes. Each refusal is one line in the kernel
    /// log.
    pub(crate) fn new(
        dev: &Device<Bound>,
        config: &Config,
        region: Option<Region>,
    ) -> Result<Self> {
        // The buffer stands for whatever hardware the product has, so the bus alone limits its
        // address.
        // SAFETY: The device is bound and nothing is allocated for it yet.
        to_result(unsafe { bindings::dma_set_mask_and_coherent(raw(dev), u64::MAX) })?;

        let allocate = || match config.cache_mode {
            CacheMode::Cached => Self::alloc_pages(dev, config.size),
            CacheMode::Coherent => Self::alloc_attrs(dev, config.size, 0),
            CacheMode::WriteCombine => {
                Self::alloc_attrs(dev, config.size, bindings::DMA_ATTR_WRITE_COMBINE)
            }
        };
        // Memory from elsewhere is freed by the closure, before the next attempt and the region.
        let mut memory = persistently(|| {
            allocate().and_then(|memory| match &region {
                Some(region) if !region.contains(memory.phys, memory.size as u64) => {
                    Err(Shortage::Elsewhere)
                }
                _ => Ok(memory),
            })
        })
        .map_err(|shortage| shortage.tell(dev, config.size, region.as_ref()))?;
        memory.region = region;
        memory.zero();
        Ok(memory)
    }

    fn alloc_attrs(dev: &Device<Bound>, size: usize, mode: u32) -> Result<Self, Shortage> {
        // Behind an IOMMU the DMA API may otherwise gather scattered pages.
        let attrs = mode | bindings::DMA_ATTR_FORCE_CONTIGUOUS | bindings::DMA_ATTR_NO_WARN;
        let attrs = attrs as kernel::ffi::c_ulong;
        let mut dma = 0;
        // SAFETY: The device is bound.
        let cpu = unsafe {
            bindings::dma_alloc_attrs(raw(dev), size, &mut dma, bindings::GFP_KERNEL, attrs)
        };
        let cpu = NonNull::new(cpu.cast()).ok_or(Shortage::NoPiece)?;
        let mut memory = Self::allocated(dev, cpu, dma, size, Kind::Attrs(attrs));
        memory.phys = memory.contiguous_phys(attrs).map_err(Shortage::Scattered)?;
        Ok(memory)
    }

    fn alloc_pages(dev: &Device<Bound>, size: usize) -> Result<Self, Shortage> {
        let mut dma = 0;
        // SAFETY: The device is bound.
        let page = unsafe {
            bindings::dma_alloc_pages(
                raw(dev),
                size,
                &mut dma,
                DMA_BIDIRECTIONAL,
                bindings::GFP_KERNEL | bindings::__GFP_NOWARN,
            )
        };
        let page = NonNull::new(page).ok_or(Shortage::NoPiece)?;
        // SAFETY: Pages of dma_alloc_pages() are in the linear mapping, since no GFP_HIGHMEM was
        // asked for.
        let (cpu, phys) = unsafe {
            (
                NonNull::new_unchecked(shim::mydrv_page_address(page.as_ptr()).cast()),
                shim::mydrv_page_phys(page.as_ptr()),
            )
        };
        let mut memory = Self::allocated(dev, cpu, dma, size, Kind::Pages(page));
        memory.phys = phys;
        Ok(memory)
    }

    /// What was just allocated; its physical address and its region are still to be told.
    fn allocated(
        dev: &Device<Bound>,
        cpu: NonNull<u8>,
        dma: bindings::dma_addr_t,
        size: usize,
        kind: Kind,
    ) -> Self {
        Memory {
            dev: ARef::from(&**dev),
            cpu,
            dma,
            phys: 0,
            size,
            kind,
            // SAFETY: The device is valid.
            dma_coherent: unsafe { shim::mydrv_dev_is_coherent(raw(dev)) },
            region: None,
        }
    }

    /// The physical address of memory from `dma_alloc_attrs()`: of the one piece that it must be
    /// in.
    fn contiguous_phys(&self, attrs: kernel::ffi::c_ulong) -> Result<u64> {
        let mut table = bindings::sg_table::default();
        // SAFETY: The arguments are those of the allocation, and the table is a local.
        to_result(unsafe {
            bindings::dma_get_sgtable_attrs(
                raw(&self.dev),
                &mut table,
                self.cpu.as_ptr().cast(),
                self.dma,
                self.size,
                attrs,
            )
        })?;
        let phys = if table.orig_nents == 1 {
            // SAFETY: The table has one entry, which dma_get_sgtable_attrs() filled in.
            let (page, offset) = unsafe {
                let entry = &*table.sgl;
                ((entry.page_link & !3) as *mut bindings::page, entry.offset)
            };
            // SAFETY: An entry's page is valid as long as the memory behind it.
            Ok(unsafe { shim::mydrv_page_phys(page) } + u64::from(offset))
        } else {
            Err(EIO)
        };
        // SAFETY: The table was filled in above and is not used after.
        unsafe { bindings::sg_free_table(&mut table) };
        phys
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The first page frame number.
    pub(crate) fn pfn(&self) -> usize {
        (self.phys / PAGE_SIZE as u64) as usize
    }

    /// The protection of a user mapping: its memory type must be that of the kernel's own mapping.
    pub(crate) fn pgprot(&self, prot: bindings::pgprot_t) -> bindings::pgprot_t {
        let Kind::Attrs(attrs) = self.kind else {
            return prot;
        };
        // A pool is mapped write-combining by the kernel even where the device snoops.
        let pool = self.region.as_ref().is_some_and(|region| !region.is_cma());
        if self.dma_coherent && !pool {
            return prot;
        }
        let write_combine = pool || attrs as u32 & bindings::DMA_ATTR_WRITE_COMBINE != 0;
        // SAFETY: Always safe.
        unsafe { shim::mydrv_pgprot_uncached(prot, write_combine) }
    }

    /// Fills in what [`MydrvInfo`] tells of the memory; its addresses only for those who may see
    /// them.
    pub(crate) fn describe(&self, info: &mut MydrvInfo, with_addresses: bool) {
        info.size_bytes = self.size as u64;
        if self.dma_coherent {
            info.flags |= MYDRV_FLAG_DMA_COHERENT;
        }
        if let Some(region) = &self.region {
            info.flags |= MYDRV_FLAG_RESERVED;
            info.region_size_bytes = region.size;
            if region.no_map {
                info.flags |= MYDRV_FLAG_NO_MAP;
            }
        }
        if with_addresses {
            info.flags |= MYDRV_FLAG_ADDRESSES;
            info.dma_address = self.dma;
            info.physical_address = self.phys;
            info.region_base = self.region.as_ref().map_or(0, |region| region.base);
        }
    }

    /// Checks that `offset..offset + len` lies within the buffer.
    fn range(&self, offset: usize, len: usize) -> Result<Range<usize>> {
        let end = offset.checked_add(len).ok_or(ERANGE)?;
        if end > self.size {
            return Err(ERANGE);
        }
        Ok(offset..end)
    }

    /// Copies out of the buffer; `ERANGE` where the range leaves it.
    pub(crate) fn read(&self, offset: usize, to: &mut [u8]) -> Result {
        let range = self.range(offset, to.len())?;
        // SAFETY: The range was checked, and `to` is kernel memory elsewhere. Users and hardware
        // may write the buffer meanwhile; the bytes are copied, never interpreted, so any
        // mixture of old and new is as good as another.
        unsafe {
            let from = self.cpu.as_ptr().add(range.start);
            bindings::memcpy(to.as_mut_ptr().cast(), from.cast(), to.len());
        }
        Ok(())
    }

    /// Copies into the buffer; `ERANGE` where the range leaves it.
    pub(crate) fn write(&self, offset: usize, from: &[u8]) -> Result {
        let range = self.range(offset, from.len())?;
        // SAFETY: As in `read()`.
        unsafe {
            let to = self.cpu.as_ptr().add(range.start);
            bindings::memcpy(to.cast(), from.as_ptr().cast(), from.len());
        }
        Ok(())
    }

    /// Zeroes the buffer, for the device too.
    pub(crate) fn zero(&self) {
        // SAFETY: By the type's invariants.
        unsafe { bindings::memset(self.cpu.as_ptr().cast(), 0, self.size) };
        self.sync(0..self.size, Direction::ToDevice);
    }

    /// Hands a range to the device or back; `ERANGE` where it leaves the buffer.
    pub(crate) fn sync_range(&self, offset: usize, len: usize, direction: Direction) -> Result {
        let range = self.range(offset, len)?;
        self.sync(range, direction);
        Ok(())
    }

    fn sync(&self, range: Range<usize>, direction: Direction) {
        // Without caches in between there is nothing to do.
        let Kind::Pages(_) = self.kind else {
            return;
        };
        let (dev, addr) = (raw(&self.dev), self.dma + range.start as u64);
        // SAFETY: The range lies within the allocation, and the device is bound.
        unsafe {
            match direction {
                Direction::ToDevice => shim::mydrv_sync_for_device(dev, addr, range.len()),
                Direction::FromDevice => shim::mydrv_sync_for_cpu(dev, addr, range.len()),
            }
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let (dev, cpu) = (raw(&self.dev), self.cpu.as_ptr().cast());
        // SAFETY: The arguments are those of the allocation, and whoever drops this made sure that
        // nothing reaches the memory any more.
        unsafe {
            match self.kind {
                Kind::Attrs(attrs) => {
                    bindings::dma_free_attrs(dev, self.size, cpu, self.dma, attrs)
                }
                Kind::Pages(page) => bindings::dma_free_pages(
                    dev,
                    self.size,
                    page.as_ptr(),
                    self.dma,
                    DMA_BIDIRECTIONAL,
                ),
            }
        }
    }
}

/// Which way data goes in a synchronisation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToDevice,
    FromDevice,
}

/// Why there is no memory.
enum Shortage {
    NoPiece,
    Elsewhere,
    Scattered(Error),
}

impl Shortage {
    /// The one line of a refusal, and its error.
    fn tell(self, dev: &Device, size: usize, region: Option<&Region>) -> Error {
        match (self, region) {
            (Shortage::Elsewhere, _) => dev_err!(dev, "memory-region: the allocation of {size:#x} bytes came from elsewhere; is the region used by another device?\n"),
            (Shortage::Scattered(err), _) => {
                dev_err!(dev, "size = {size:#x}: the memory is not contiguous ({err:?}); give the device a memory-region\n");
                return err;
            }
            (Shortage::NoPiece, Some(region)) if region.is_cma() => dev_err!(dev, "size = {size:#x}: the memory-region of {:#x} bytes has no such piece free; give each device a region of its own, or a larger one\n", region.size),
            (Shortage::NoPiece, Some(region)) => dev_err!(dev, "size = {size:#x}: the memory-region of {:#x} bytes has no such piece free; a pool that is not \"reusable\" gives out powers of two\n", region.size),
            (Shortage::NoPiece, None) => dev_err!(dev, "size = {size:#x}: the default pool has no such piece free; give the device a memory-region, or the kernel a larger cma= area\n"),
        }
        ENOMEM
    }
}

/// Calls `allocate` until it succeeds, about a second long. The kernel lends a CMA region out, and takes it
/// back by moving the pages away: one that is just being read from or written to disk cannot move,
/// but soon can.
fn persistently<T>(mut allocate: impl FnMut() -> Result<T, Shortage>) -> Result<T, Shortage> {
    for _ in 0..20 {
        if let Ok(memory) = allocate() {
            return Ok(memory);
        }
        fsleep(Delta::from_millis(50));
    }
    allocate()
}
