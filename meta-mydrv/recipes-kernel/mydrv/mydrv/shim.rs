// SPDX-License-Identifier: GPL-2.0-only

//! Rust declarations of `shim.h`.

use kernel::bindings;

extern "C" {
    /// `dev` is valid and being probed; the others point to writable memory.
    pub(crate) fn mydrv_region_claim(
        dev: *mut bindings::device,
        base: *mut u64,
        size: *mut u64,
        no_map: *mut bool,
    ) -> kernel::ffi::c_int;
    /// `dev` is valid, and nothing allocated from its region is left.
    pub(crate) fn mydrv_region_release(dev: *mut bindings::device);
    /// `dev` is valid.
    pub(crate) fn mydrv_dev_is_coherent(dev: *mut bindings::device) -> bool;
    /// `page` is a page of the linear mapping.
    pub(crate) fn mydrv_page_address(page: *mut bindings::page) -> *mut kernel::ffi::c_void;
    /// `page` is valid.
    pub(crate) fn mydrv_page_phys(page: *mut bindings::page) -> u64;
    /// The range lies within one allocation of `dma_alloc_pages()` for `dev`, which is bound.
    pub(crate) fn mydrv_sync_for_device(
        dev: *mut bindings::device,
        addr: bindings::dma_addr_t,
        len: usize,
    );
    /// As [`mydrv_sync_for_device`].
    pub(crate) fn mydrv_sync_for_cpu(
        dev: *mut bindings::device,
        addr: bindings::dma_addr_t,
        len: usize,
    );
    /// Always safe.
    pub(crate) fn mydrv_pgprot_uncached(
        prot: bindings::pgprot_t,
        write_combine: bool,
    ) -> bindings::pgprot_t;
    /// Always safe.
    pub(crate) fn mydrv_pgprot_dirty(prot: bindings::pgprot_t) -> bindings::pgprot_t;
    /// `vma` is locked.
    pub(crate) fn mydrv_vma_is_shared(vma: *const bindings::vm_area_struct) -> bool;
    /// `vma` is locked for writing.
    pub(crate) fn mydrv_vm_flags_set(
        vma: *mut bindings::vm_area_struct,
        flags: bindings::vm_flags_t,
    );
    /// Returns a reference to an inode, or an error pointer.
    pub(crate) fn mydrv_anchor_inode() -> *mut bindings::inode;
}
