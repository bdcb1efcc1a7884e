// SPDX-License-Identifier: GPL-2.0-only

//! `mmap()` and the page faults that fill the mappings.
//!
//! A mapping starts empty. The first access to a part of it fills in the 2 MiB around, as one block
//! where physical and virtual alignment allow, else page by page; always under the buffer's lock,
//! so that nothing is filled in after a revocation. Filling in at `mmap()` time would race with
//! that: the VMA is not yet linked to the address space object by which `Buffer::revoke()` finds
//! it.
//!
//! Limitations: the mappings have no `struct page` (`VM_PFNMAP`), so direct I/O into them and
//! `get_user_pages()` fail with `EFAULT`, and `/proc/PID/mem` does not show them.

use kernel::{
    bindings,
    fs::File,
    mm::virt::{
        flags,
        VmaNew, //
    },
    page::{
        PAGE_MASK,
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
};

use crate::{
    compat,
    file::OpenFile,
    shim, //
};

/// What one entry of a page middle directory maps.
const BLOCK_SIZE: usize = PAGE_SIZE * (PAGE_SIZE / size_of::<u64>());

static OPERATIONS: bindings::vm_operations_struct = bindings::vm_operations_struct {
    open: Some(open),
    fault: Some(fault),
    #[cfg(CONFIG_TRANSPARENT_HUGEPAGE)]
    huge_fault: Some(huge_fault),
    ..compat::zeroed_operations()
};

/// Checks a mapping and sets it up.
///
/// `EINVAL`: private. `EPERM`: executable. `EACCES`: writable, through a file that is not. `ENXIO`:
/// beyond the buffer's end. `ENODEV`: the device is gone.
pub(crate) fn mmap(file: &OpenFile, vma: &VmaNew) -> Result {
    // A private mapping would copy pages that are none.
    // SAFETY: The VMA is being set up, so its flags do not change.
    if !unsafe { shim::mydrv_vma_is_shared(vma.as_ptr()) } {
        return Err(EINVAL);
    }
    vma.try_clear_mayexec().map_err(|_| EPERM)?;
    if !file.writable {
        vma.try_clear_maywrite().map_err(|_| EACCES)?;
    }

    // SAFETY: The VMA is being set up, so it is ours alone.
    let raw = unsafe { &mut *vma.as_ptr() };
    file.buffer.with(|memory| {
        let pages = (vma.end() - vma.start()) >> PAGE_SHIFT;
        let end = raw.vm_pgoff.checked_add(pages).ok_or(ENXIO)?;
        if end > memory.size() >> PAGE_SHIFT {
            return Err(ENXIO);
        }
        raw.vm_page_prot = memory.pgprot(raw.vm_page_prot);
        Ok(())
    })?;

    raw.vm_ops = &OPERATIONS;
    // PFNMAP: entries without a struct page. HUGEPAGE: blocks even where the system's policy is
    // `madvise`.
    // SAFETY: The VMA is being set up, hence locked; it is not private, so it may be PFNMAP.
    unsafe {
        shim::mydrv_vm_flags_set(
            vma.as_ptr(),
            flags::PFNMAP | flags::DONTEXPAND | flags::DONTDUMP | flags::HUGEPAGE,
        );
    }
    Ok(())
}

/// Called for the copy of a VMA, by fork among others.
///
/// Fork would copy the page table entries without our lock, so that a child's copy could outlive a
/// revocation that runs meanwhile. WIPEONFORK keeps it from that, and the child faults through us
/// instead. Set here, at every fork anew, since `madvise(MADV_KEEPONFORK)` could have cleared it
/// before.
extern "C" fn open(vma: *mut bindings::vm_area_struct) {
    // SAFETY: The VMA is valid, and the current task has an mm while it copies one.
    let in_fork = unsafe { (*vma).vm_mm != (*bindings::get_current()).mm };
    if in_fork {
        // SAFETY: Fork holds the new mm's lock for writing.
        unsafe { shim::mydrv_vm_flags_set(vma, flags::WIPEONFORK) };
    }
}

/// A fault, as seen by the handlers below.
struct Fault<'a> {
    raw: &'a bindings::vm_fault,
    vma: &'a bindings::vm_area_struct,
    file: &'a OpenFile,
}

impl<'a> Fault<'a> {
    /// # Safety
    ///
    /// `vmf` is a fault on a VMA with `OPERATIONS`, and is valid for `'a`.
    unsafe fn new(vmf: *mut bindings::vm_fault) -> Self {
        // SAFETY: By the caller's promise. A VMA keeps its file open, and an open file its private
        // data.
        unsafe {
            let raw = &*vmf;
            let vma = &*raw.__bindgen_anon_1.vma;
            let file = OpenFile::from_file(File::from_raw_file(vma.vm_file));
            Fault { raw, vma, file }
        }
    }

    fn writable(&self) -> bool {
        // SAFETY: The fault handler holds the VMA's lock, so the flags do not change.
        unsafe { self.vma.__bindgen_anon_2.vm_flags & flags::WRITE != 0 }
    }

    fn bounds(&self) -> (usize, usize) {
        // SAFETY: The fault handler holds the VMA's lock, so its bounds do not change.
        unsafe {
            let range = &self.vma.__bindgen_anon_1.__bindgen_anon_1;
            (range.vm_start, range.vm_end)
        }
    }

    /// The page frame that belongs to `addr`, in a buffer that starts at `first`. Never one beyond the
    /// buffer: `mmap()` checked the VMA's bounds, and it only ever shrinks (`VM_DONTEXPAND`).
    fn pfn(&self, first: usize, addr: usize) -> usize {
        first + self.vma.vm_pgoff + ((addr - self.bounds().0) >> PAGE_SHIFT)
    }

    /// Fills in the pages of the block-sized range around the fault, as far as the VMA goes.
    fn insert_pages(&self, first: usize) -> bindings::vm_fault_t {
        let address = self.raw.__bindgen_anon_1.address & PAGE_MASK;
        let block = address & !(BLOCK_SIZE - 1);
        let (start, end) = self.bounds();
        let mut prot = self.vma.vm_page_prot;
        if self.writable() {
            // SAFETY: Always safe.
            prot = unsafe { shim::mydrv_pgprot_dirty(prot) };
        }
        let vma = core::ptr::from_ref(self.vma).cast_mut();
        // Only the page asked for must succeed; the others are a head start.
        // SAFETY: The VMA is PFNMAP and not private, and the page frames are the buffer's, which
        // stays while its lock is held.
        let insert =
            |addr| unsafe { bindings::vmf_insert_pfn_prot(vma, addr, self.pfn(first, addr), prot) };
        let result = insert(address);
        if result == bindings::vm_fault_reason_VM_FAULT_NOPAGE {
            for addr in (start.max(block)..end.min(block + BLOCK_SIZE)).step_by(PAGE_SIZE) {
                if insert(addr) != bindings::vm_fault_reason_VM_FAULT_NOPAGE {
                    break;
                }
            }
        }
        result
    }

    /// Fills in one block; `VM_FAULT_FALLBACK` where virtual or physical alignment does not allow
    /// one.
    #[cfg(CONFIG_TRANSPARENT_HUGEPAGE)]
    fn insert_block(&self, first: usize) -> bindings::vm_fault_t {
        let block = self.raw.__bindgen_anon_1.address & !(BLOCK_SIZE - 1);
        let (start, end) = self.bounds();
        if block < start || block + BLOCK_SIZE > end {
            return bindings::vm_fault_reason_VM_FAULT_FALLBACK;
        }
        let pfn = self.pfn(first, block);
        if pfn % (BLOCK_SIZE / PAGE_SIZE) != 0 {
            return bindings::vm_fault_reason_VM_FAULT_FALLBACK;
        }
        let vmf = core::ptr::from_ref(self.raw).cast_mut();
        // Writable from the start, or the first write after a read would fault once more.
        // SAFETY: As for `insert_pages()`; the block lies within VMA and buffer, and is aligned.
        unsafe { bindings::vmf_insert_pfn_pmd(vmf, pfn, self.writable()) }
    }

    /// Runs `insert` with the buffer's first page frame number under the buffer's lock; SIGBUS once
    /// the device is gone.
    fn handle(
        &self,
        insert: impl FnOnce(&Self, usize) -> bindings::vm_fault_t,
    ) -> bindings::vm_fault_t {
        self.file
            .buffer
            .with(|memory| Ok(insert(self, memory.pfn())))
            .unwrap_or(bindings::vm_fault_reason_VM_FAULT_SIGBUS)
    }
}

extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: The kernel calls this for faults on VMAs with `OPERATIONS`.
    unsafe { Fault::new(vmf) }.handle(Fault::insert_pages)
}

#[cfg(CONFIG_TRANSPARENT_HUGEPAGE)]
extern "C" fn huge_fault(
    vmf: *mut bindings::vm_fault,
    order: kernel::ffi::c_uint,
) -> bindings::vm_fault_t {
    if PAGE_SIZE << order != BLOCK_SIZE {
        return bindings::vm_fault_reason_VM_FAULT_FALLBACK;
    }
    // SAFETY: As for `fault()`.
    unsafe { Fault::new(vmf) }.handle(Fault::insert_block)
}
