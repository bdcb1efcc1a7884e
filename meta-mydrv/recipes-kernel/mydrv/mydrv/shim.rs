// SPDX-License-Identifier: GPL-2.0-only

//! Rust declarations of `shim.h`.

use kernel::{
    bindings,
    device::Device,
    prelude::*,
    str::{
        BStr,
        CStr, //
    }, //
};

/// The C view of a device; `Device` is a transparent wrapper of `struct device`.
pub(crate) fn raw(dev: &Device) -> *mut bindings::device {
    core::ptr::from_ref(dev).cast_mut().cast()
}

/// The device's name, as the kernel log and sysfs have it.
pub(crate) fn name(dev: &Device) -> &BStr {
    // SAFETY: The device is valid, and its name a string that lives as long.
    let name = unsafe { CStr::from_char_ptr(mydrv_dev_name(raw(dev))) };
    BStr::from_bytes(name.to_bytes())
}

extern "C" {
    /// `node` is a node of the device tree, or null.
    pub(crate) fn mydrv_is_reserved_memory(node: *mut bindings::fwnode_handle) -> bool;
    /// `node` is a node of the device tree; the others point to writable memory.
    pub(crate) fn mydrv_region_range(
        node: *mut bindings::fwnode_handle,
        base: *mut u64,
        size: *mut u64,
    ) -> bool;
    /// `dev` is valid and being probed.
    pub(crate) fn mydrv_region_claim(dev: *mut bindings::device) -> kernel::ffi::c_int;
    /// `dev` is valid, and nothing allocated from its region is left.
    pub(crate) fn mydrv_region_release(dev: *mut bindings::device);
    /// The range is one of a CMA region; the others point to writable memory.
    pub(crate) fn mydrv_region_usage(base: u64, size: u64, lent: *mut u64, taken: *mut u64);
    /// Always safe.
    pub(crate) fn mydrv_page_block() -> u64;
    /// Always safe.
    pub(crate) fn mydrv_is_system_ram(base: u64, size: u64) -> bool;
    /// `dev` is valid and being probed.
    pub(crate) fn mydrv_dma_address(dev: *mut bindings::device, phys: u64) -> u64;
    /// `dev` is valid. The string lives as long as the device.
    pub(crate) fn mydrv_dev_name(dev: *mut bindings::device) -> *const kernel::ffi::c_char;
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
    /// `dev` is valid.
    pub(crate) fn mydrv_tell_lent(dev: *mut bindings::device);
    /// Returns a reference to an inode, or an error pointer.
    pub(crate) fn mydrv_anchor_inode() -> *mut bindings::inode;
}
