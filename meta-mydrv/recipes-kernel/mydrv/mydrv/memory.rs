// SPDX-License-Identifier: GPL-2.0-only

//! The memory itself: its allocation by the DMA API, and access to it from the kernel.
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
    current,
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
    str::BStr,
    sync::aref::ARef,
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

use crate::{
    abi::*,
    compat::DMA_BIDIRECTIONAL,
    config::{
        CacheMode,
        Config, //
    },
    region::{
        self,
        Region, //
    },
    registry,
    shim::{
        self,
        raw, //
    }, //
};

/// Lets the device reach all that its bus carries: the buffer stands for whatever hardware the product
/// has. To be called before a region is claimed, which is checked against that.
pub(crate) fn set_dma_mask(dev: &Device<Bound>) -> Result {
    // SAFETY: The device is being probed and nothing is allocated for it yet.
    to_result(unsafe { bindings::dma_set_mask_and_coherent(raw(dev), u64::MAX) }).inspect_err(
        |err| dev_err!(dev, "iommus: the IOMMU or the bus above allows the device no DMA ({err:?}); correct iommus, or the bus' dma-ranges\n"),
    )
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
        let allocate = || match config.cache_mode {
            CacheMode::Cached => Self::alloc_pages(dev, config.size),
            CacheMode::Coherent => Self::alloc_attrs(dev, config.size, 0),
            CacheMode::WriteCombine => {
                Self::alloc_attrs(dev, config.size, bindings::DMA_ATTR_WRITE_COMBINE)
            }
        };
        // Memory from elsewhere is freed by the closure, before the next attempt and the region.
        let attempt = || {
            allocate().and_then(|memory| match &region {
                Some(region) if !region.range().contains(memory.range()) => Err(Shortage::NoPiece),
                _ => Ok(memory),
            })
        };
        let mut memory = persistently(dev, config.size as u64, region.as_ref(), attempt)
            .map_err(|shortage| shortage.tell(dev, config.size as u64, region.as_ref()))?;
        memory.region = region;
        // Every way of the DMA API zeroes what it hands out, by the processor. A cached buffer's zeroes
        // may still be in its caches alone.
        memory.sync(0..memory.size, Direction::ToDevice);
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

    fn range(&self) -> region::Range {
        region::Range {
            base: self.phys,
            size: self.size as u64,
        }
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
            info.region_size_bytes = region.range().size;
            if !region.is_cma() {
                info.flags |= MYDRV_FLAG_NO_MAP;
            }
        }
        if with_addresses {
            info.flags |= MYDRV_FLAG_ADDRESSES;
            info.dma_address = self.dma;
            info.physical_address = self.phys;
            info.region_base = self.region.as_ref().map_or(0, |region| region.range().base);
        }
    }

    /// Checks that `offset..offset + len` lies within the buffer.
    fn within(&self, offset: usize, len: usize) -> Result<Range<usize>> {
        let end = offset.checked_add(len).ok_or(ERANGE)?;
        if end > self.size {
            return Err(ERANGE);
        }
        Ok(offset..end)
    }

    /// Copies out of the buffer; `ERANGE` where the range leaves it.
    pub(crate) fn read(&self, offset: usize, to: &mut [u8]) -> Result {
        let range = self.within(offset, to.len())?;
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
        let range = self.within(offset, from.len())?;
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
        let range = self.within(offset, len)?;
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
    /// The DMA API has no such piece, or took one from outside the region.
    NoPiece,
    Scattered(Error),
}

impl Shortage {
    /// The one line of a refusal, and its error.
    fn tell(self, dev: &Device, size: u64, region: Option<&Region>) -> Error {
        if let Shortage::Scattered(err) = self {
            dev_err!(dev, "size = {size:#x}: the memory is not contiguous ({err:?}); give the device a memory-region\n");
            return err;
        }
        let Some(region) = region else {
            dev_err!(dev, "size = {size:#x}: the default pool has no such piece free that the device reaches; give the device a memory-region, or the kernel a larger cma= area\n");
            return ENOMEM;
        };
        let whole = region.range().size;
        let other = registry::other_user(dev, region);
        let other = other.as_ref().map(|dev| shim::name(dev));
        let other = other.unwrap_or(BStr::from_bytes(b"another driver, or a dma-heap"));
        if !region.is_cma() {
            // A pool gives out naturally aligned powers of two.
            match size.next_power_of_two() {
                piece if piece > whole => dev_err!(dev, "size = {size:#x}: a \"no-map\" region gives out powers of two, and the memory-region of {whole:#x} bytes holds no {piece:#x}; make the region that large, or size a smaller power of two\n"),
                _ => dev_err!(dev, "size = {size:#x}: the memory-region of {whole:#x} bytes has no such piece free, since {other} uses it, too; give each device a region of its own\n"),
            }
            return ENOMEM;
        }
        let usage = region.usage();
        if whole.saturating_sub(usage.taken) < size {
            dev_err!(dev, "size = {size:#x}: {:#x} of the memory-region's {whole:#x} bytes are taken by {other}; give each device a region of its own, or a larger one\n", usage.taken);
        } else {
            dev_err!(dev, "memory-region: {:#x} of its {whole:#x} bytes are lent pages, some of which cannot be moved out now; load mydrv before other programs start (modules-load.d, the initramfs), or make the region \"no-map\" instead of \"reusable\"\n", usage.lent);
        }
        ENOMEM
    }
}

/// So long is waited for memory that another device, or a page that is just being freed, has.
const A_MOMENT: Delta = Delta::from_secs(1);

/// So long is waited for lent pages: twice what the kernel's writeback leaves a dirty page alone, by
/// default 30 s.
const A_MINUTE: Delta = Delta::from_secs(60);

/// Calls `attempt` until it succeeds, or it is hopeless. The kernel lends a CMA region out, and takes it
/// back by moving the pages away: those that a file system is working on cannot move, but will once
/// they are on the disk.
fn persistently<T>(
    dev: &Device,
    size: u64,
    region: Option<&Region>,
    mut attempt: impl FnMut() -> Result<T, Shortage>,
) -> Result<T, Shortage> {
    let began = Instant::<Monotonic>::now();
    let mut pause = Delta::from_millis(20);
    let mut told = false;
    loop {
        let shortage = match attempt() {
            Ok(memory) => return Ok(memory),
            Err(shortage) => shortage,
        };
        let patience = match region {
            // What a pool has, only its other users change.
            Some(region) if !region.is_cma() => Delta::from_millis(0),
            Some(region) if region.usage().taken + size <= region.range().size => A_MINUTE,
            _ => A_MOMENT,
        };
        if began.elapsed() >= patience || current!().signal_pending() {
            return Err(shortage);
        }
        if began.elapsed() >= A_MOMENT {
            if !told {
                told = true;
                dev_info!(dev, "memory-region: some lent pages cannot be moved out of it yet; trying for a minute\n");
            }
            // Each time: who listens may just have started.
            // SAFETY: The device is valid.
            unsafe { shim::mydrv_tell_lent(raw(dev)) };
        }
        fsleep(pause);
        pause = Delta::from_millis((pause.as_millis() * 3 / 2).min(2000));
    }
}
