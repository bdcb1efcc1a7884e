// SPDX-License-Identifier: GPL-2.0-only

//! The reserved region that a buffer lies in: what the device tree says of it, what the kernel made
//! of that, and the tie between region and device.
//!
//! The kernel reserves memory long before a driver runs, and tells its log alone what it leaves out.
//! So everything that can be wrong with a region's node is looked for here, and told in one line
//! that names region, property and remedy.

use core::ptr::NonNull;

use kernel::{
    bindings,
    c_str,
    device::{
        property::FwNode,
        Bound,
        Device, //
    },
    error::{
        from_err_ptr,
        to_result, //
    },
    page::PAGE_SIZE,
    prelude::*,
    str::{
        CStr,
        CString, //
    },
    sync::aref::ARef, //
};

use crate::shim::{
    self,
    raw, //
};

/// Refuses the device: one line in the kernel log, and `EINVAL`.
macro_rules! refuse {
    ($dev:expr, $($line:tt)*) => {{
        dev_err!($dev, $($line)*);
        return Err(EINVAL);
    }};
}

/// A reserved-memory region that serves the device's allocations while this lives.
pub(crate) struct Region {
    dev: ARef<Device>,
    range: Range,
    no_map: bool,
}

/// Physical addresses: `size` bytes from `base` on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) base: u64,
    pub(crate) size: u64,
}

impl Range {
    fn end(self) -> u64 {
        self.base.saturating_add(self.size)
    }

    fn overlaps(self, other: Range) -> bool {
        self.base < other.end() && other.base < self.end()
    }

    pub(crate) fn contains(self, other: Range) -> bool {
        self.base <= other.base && other.end() <= self.end()
    }
}

/// Of a region's bytes: those lent to programs and files, and those that drivers have.
pub(crate) struct Usage {
    pub(crate) lent: u64,
    pub(crate) taken: u64,
}

impl Region {
    /// Claims the `memory-region` of the device's node; `None` where it has none.
    pub(crate) fn claim(dev: &Device<Bound>, node: &FwNode) -> Result<Option<Self>> {
        if !node.property_present(c_str!("memory-region")) {
            return Ok(None);
        }
        let region = find(dev, node)?;
        check_kind(dev, node, &region)?;
        let Some(range) = range_of(&region) else {
            return Err(tell_why_not_reserved(dev, &region));
        };
        check_range(dev, &region, range)?;

        // SAFETY: The device is being probed, and only this driver claims memory for it.
        to_result(unsafe { shim::mydrv_region_claim(raw(dev)) }).inspect_err(|err| {
            dev_err!(dev, "memory-region {}: the kernel cannot map its {:#x} bytes ({err:?}); make it smaller, or free memory first\n", region.display_name(), range.size);
        })?;
        Ok(Some(Region {
            dev: ARef::from(&**dev),
            range,
            no_map: region.property_present(c_str!("no-map")),
        }))
    }

    pub(crate) fn range(&self) -> Range {
        self.range
    }

    /// Whether the page allocator may lend the region out meanwhile (`reusable`); otherwise it is a
    /// pool of its own (`no-map`).
    pub(crate) fn is_cma(&self) -> bool {
        !self.no_map
    }

    /// Who has the pages of a CMA region at this moment.
    pub(crate) fn usage(&self) -> Usage {
        let (mut lent, mut taken) = (0, 0);
        // SAFETY: It is the range of a CMA region, and the pointers are to locals.
        unsafe {
            shim::mydrv_region_usage(self.range.base, self.range.size, &mut lent, &mut taken)
        };
        Usage { lent, taken }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `Memory` frees what it allocated before it drops its region; where probing fails,
        // nothing was allocated.
        unsafe { shim::mydrv_region_release(raw(&self.dev)) };
    }
}

/// The C view of a node; `FwNode` is a transparent wrapper of `struct fwnode_handle`.
fn raw_node(node: &FwNode) -> *mut bindings::fwnode_handle {
    core::ptr::from_ref(node).cast_mut().cast()
}

/// A node that a function of the kernel returned a reference to; `None` for a null pointer.
///
/// # Safety
///
/// `node` is null, or a node with a reference that is given up to the result.
unsafe fn owned(node: *mut bindings::fwnode_handle) -> Option<ARef<FwNode>> {
    // SAFETY: By this function's requirements.
    NonNull::new(node.cast()).map(|node| unsafe { ARef::from_raw(node) })
}

fn parent(node: &FwNode) -> Option<ARef<FwNode>> {
    // SAFETY: The node is valid, and the reference that is returned is ours.
    unsafe { owned(bindings::fwnode_get_parent(raw_node(node))) }
}

/// The number of a property's cells (32 bits each), 0 for what is not made of cells; `None` without
/// the property.
fn cells(node: &FwNode, name: &CStr) -> Option<usize> {
    node.property_present(name)
        .then(|| node.property_count_elem::<u32>(name).unwrap_or(0))
}

/// The number in `count` cells of a property of `len`, from cell `at` on.
fn number(node: &FwNode, name: &CStr, len: usize, at: usize, count: usize) -> Option<u64> {
    let cells = node
        .property_read_array_vec::<u32>(name, len)
        .ok()?
        .optional()?;
    let cells = cells.get(at..at + count)?;
    Some(
        cells
            .iter()
            .fold(0, |high, &low| high << 32 | u64::from(low)),
    )
}

/// Where the kernel reserved the memory of a node below `/reserved-memory`, if it did.
fn range_of(region: &FwNode) -> Option<Range> {
    let (mut base, mut size) = (0, 0);
    // SAFETY: The node is valid, and the other pointers are to locals.
    unsafe { shim::mydrv_region_range(raw_node(region), &mut base, &mut size) }
        .then_some(Range { base, size })
}

/// The one node that `memory-region` names.
fn find(dev: &Device<Bound>, node: &FwNode) -> Result<ARef<FwNode>> {
    let name = c_str!("memory-region");
    if let Some(count @ 2..) = cells(node, name) {
        refuse!(dev, "memory-region: {count} regions; a buffer is one piece: name one region, and give each buffer a node\n");
    }
    // SAFETY: The node is valid, the name a string, and the reference that is returned is ours.
    let found = from_err_ptr(unsafe {
        bindings::fwnode_find_reference(raw_node(node), name.as_char_ptr(), 0)
    });
    // SAFETY: As above.
    let Some(region) = found.ok().and_then(|found| unsafe { owned(found) }) else {
        refuse!(dev, "memory-region: names no node; write memory-region = <&LABEL>, with the label of a node in /reserved-memory\n");
    };
    let above = parent(&region);
    let above = above.as_deref().map_or(core::ptr::null_mut(), raw_node);
    // SAFETY: The node is valid, or null.
    if !unsafe { shim::mydrv_is_reserved_memory(above) } {
        refuse!(dev, "memory-region {}: the node is not in /reserved-memory, so the kernel reserves nothing for it; move it there\n", region.display_name());
    }
    Ok(region)
}

/// Checks what the region is for, and that the device's own properties go with it.
fn check_kind(dev: &Device<Bound>, node: &FwNode, region: &FwNode) -> Result {
    let name = region.display_name();
    // SAFETY: The node is valid.
    if !unsafe { bindings::fwnode_device_is_available(raw_node(region)) } {
        refuse!(dev, "memory-region {name}: its status is not \"okay\", so the kernel reserves nothing for it; set it so, or leave status out\n");
    }
    let compatible = c_str!("compatible");
    if region
        .property_match_string(compatible, c_str!("shared-dma-pool"))
        .is_err()
    {
        let found = region.property_read::<CString>(compatible).optional();
        let found = found.as_deref().unwrap_or(c_str!("(none)"));
        refuse!(dev, "memory-region {name}: compatible = {found:?}; write compatible = \"shared-dma-pool\"\n");
    }
    let reusable = region.property_present(c_str!("reusable"));
    let no_map = region.property_present(c_str!("no-map"));
    match (reusable, no_map) {
        (true, true) => refuse!(dev, "memory-region {name}: both \"reusable\" and \"no-map\", so the kernel serves nobody from it; keep one of them\n"),
        (false, false) => refuse!(dev, "memory-region {name}: neither \"reusable\" nor \"no-map\"; add \"reusable\" for memory that is lent out until asked for, or \"no-map\" for memory that nobody else touches\n"),
        _ => (),
    }
    for default in [c_str!("linux,cma-default"), c_str!("linux,dma-default")] {
        if region.property_present(default) {
            refuse!(dev, "memory-region {name}: {default:?} makes it serve every driver that asks for DMA memory; remove that property, or this memory-region and give a size\n");
        }
    }
    if no_map && node.property_present(c_str!("iommus")) {
        refuse!(dev, "iommus contradicts memory-region {name}: a \"no-map\" region is used by its physical address, past the IOMMU; make it \"reusable\", or leave iommus out\n");
    }
    check_format(dev, region)
}

/// `#address-cells` and `#size-cells` of the tree's root, which the kernel reads regions by.
fn root_cells(reserved: &FwNode) -> (usize, usize) {
    let root = parent(reserved);
    let count = |name| {
        let value = root
            .as_deref()
            .and_then(|root| root.property_read::<u32>(name).optional());
        // As the kernel does where there is no property.
        value.unwrap_or(1) as usize
    };
    (
        count(c_str!("#address-cells")),
        count(c_str!("#size-cells")),
    )
}

/// Checks the form of the properties that place the region. What the kernel cannot read it ignores,
/// in part silently.
fn check_format(dev: &Device<Bound>, region: &FwNode) -> Result {
    let name = region.display_name();
    let Some(reserved) = parent(region) else {
        return Err(ENODEV);
    };
    let (address, size) = root_cells(&reserved);
    let own = |name| {
        reserved
            .property_read::<u32>(name)
            .optional()
            .map(|cells| cells as usize)
    };
    if own(c_str!("#address-cells")) != Some(address)
        || own(c_str!("#size-cells")) != Some(size)
        || !reserved.property_present(c_str!("ranges"))
    {
        refuse!(dev, "memory-region {name}: /reserved-memory needs #address-cells = <{address}> and #size-cells = <{size}>, as the tree's root has, and ranges; without them the kernel ignores it all\n");
    }
    let counts = [
        c_str!("reg"),
        c_str!("size"),
        c_str!("alignment"),
        c_str!("alloc-ranges"),
    ]
    .map(|name| cells(region, name));
    let [reg, length, alignment, ranges] = counts;
    let range = address + size;
    match (reg, length) {
        (None, None) => refuse!(dev, "memory-region {name}: neither size nor reg; give its length as size, or its place and length as reg\n"),
        (Some(cells), _) if cells != range => refuse!(dev, "memory-region {name}: reg has {cells} cells; write one range, {address} cells of address and {size} of length\n"),
        (None, Some(cells)) if cells != size => refuse!(dev, "memory-region {name}: size has {cells} cells; write {size}, the root's #size-cells\n"),
        _ => (),
    }
    let zero = match reg {
        Some(cells) => number(region, c_str!("reg"), cells, address, size) == Some(0),
        None => number(region, c_str!("size"), size, 0, size) == Some(0),
    };
    if zero {
        refuse!(
            dev,
            "memory-region {name}: its length is 0; give the bytes that the buffer needs\n"
        );
    }
    if let Some(cells) = alignment {
        // Of an alignment the kernel takes as many cells as of an address.
        let value = number(region, c_str!("alignment"), cells, 0, cells);
        if cells != address {
            refuse!(dev, "memory-region {name}: alignment has {cells} cells; write {address}, the root's #address-cells\n");
        }
        if let Some(value) = value.filter(|value| !value.is_power_of_two()) {
            refuse!(dev, "memory-region {name}: alignment = {value:#x}: not a power of two; write one, e.g. 0x200000\n");
        }
    }
    if let Some(cells) = ranges {
        if cells == 0 || cells % range != 0 {
            refuse!(dev, "memory-region {name}: alloc-ranges has {cells} cells, and the kernel ignores it; write {address} cells of address and {size} of length for each range\n");
        }
    }
    Ok(())
}

fn is_reusable(region: &FwNode) -> bool {
    region.property_present(c_str!("reusable"))
}

/// How many CMA regions the kernel made before it came to this one: it goes through those without a place
/// first.
fn areas_before(reserved: &FwNode, region: &FwNode) -> usize {
    let placed = |node: &FwNode| node.property_present(c_str!("reg"));
    let made = |node: &FwNode| is_reusable(node) && range_of(node).is_some();
    let earlier = reserved
        .children()
        .take_while(|node| raw_node(node) != raw_node(region));
    let earlier = earlier.filter(|node| made(node) && placed(node) == placed(region));
    let floating = reserved
        .children()
        .filter(|node| placed(region) && made(node) && !placed(node));
    earlier.count() + floating.count()
}

/// The cause why the kernel reserved nothing for a region whose node is well-formed, as one line in
/// the log.
fn tell_why_not_reserved(dev: &Device<Bound>, region: &FwNode) -> Error {
    let name = region.display_name();
    let Some(reserved) = parent(region) else {
        return ENODEV;
    };
    let (address, size) = root_cells(&reserved);
    let reg = cells(region, c_str!("reg"));
    let (base, len) = match reg {
        Some(cells) => (
            number(region, c_str!("reg"), cells, 0, address),
            number(region, c_str!("reg"), cells, address, size),
        ),
        None => (None, number(region, c_str!("size"), size, 0, size)),
    };
    let len = len.unwrap_or(0);
    // SAFETY: Always safe.
    let block = unsafe { shim::mydrv_page_block() };
    let areas = bindings::CONFIG_CMA_AREAS as usize;
    let base = base.unwrap_or(0);
    if is_reusable(region) && len % block != 0 {
        dev_err!(dev, "memory-region {name}: a \"reusable\" region consists of whole page blocks of {block:#x} bytes; round its size of {len:#x} up to {:#x}\n", len.saturating_add(block - 1) / block * block);
    } else if is_reusable(region) && base % block != 0 {
        dev_err!(dev, "memory-region {name}: a \"reusable\" region begins at a page block of {block:#x} bytes; round its reg of {base:#x} to one\n");
    } else if is_reusable(region) && areas_before(&reserved, region) >= areas {
        dev_err!(dev, "memory-region {name}: the kernel keeps only {areas} \"reusable\" regions, and this is one more; build it with a larger CONFIG_CMA_AREAS, or make regions \"no-map\"\n");
    } else if reg.is_some() {
        dev_err!(dev, "memory-region {name}: the kernel did not reserve {len:#x} bytes at {:#x}; is there memory, and free of other regions? See \"Reserved memory\" and \"reserved mem\" at the start of its log\n", base);
    } else {
        dev_err!(dev, "memory-region {name}: the kernel did not reserve it at boot: no {len:#x} bytes were free in memory, or in its alloc-ranges; make it smaller, or have the overlay applied before the kernel starts\n");
    }
    ENXIO
}

/// Checks what the kernel reserved: that it is whole pages, nobody else's, and in reach of the device.
fn check_range(dev: &Device<Bound>, region: &FwNode, range: Range) -> Result {
    let name = region.display_name();
    let page = PAGE_SIZE as u64;
    if range.base % page != 0 || range.size % page != 0 {
        refuse!(dev, "memory-region {name}: {:#x} bytes at {:#x} are not whole pages of {page:#x} bytes; round size, and reg or alignment\n", range.size, range.base);
    }
    // The kernel reserves one range twice without refusing it.
    let reserved = parent(region);
    for other in reserved.iter().flat_map(|reserved| reserved.children()) {
        let Some(taken) = range_of(&other).filter(|_| raw_node(&other) != raw_node(region)) else {
            continue;
        };
        if range.overlaps(taken) {
            refuse!(dev, "memory-region {name}: {:#x} to {:#x} overlaps region {} at {:#x} to {:#x}, and both users would write into the same memory; give each a place of its own\n", range.base, range.end(), other.display_name(), taken.base, taken.end());
        }
    }
    // SAFETY: Always safe.
    let is_ram = unsafe { shim::mydrv_is_system_ram(range.base, range.size) };
    if is_ram && region.property_present(c_str!("no-map")) {
        refuse!(dev, "memory-region {name}: the kernel uses memory between {:#x} and {:#x} itself, so \"no-map\" came to nothing; give reg another place, or size instead\n", range.base, range.end());
    }
    check_reach(dev, region, range)
}

/// Checks that the device's bus carries the region's addresses; an IOMMU translates any.
fn check_reach(dev: &Device<Bound>, region: &FwNode, range: Range) -> Result {
    // SAFETY: The device is being probed, so its DMA settings do not change.
    let (limit, iommu) = unsafe {
        let dev = &*raw(dev);
        let bus = if dev.bus_dma_limit == 0 {
            u64::MAX
        } else {
            dev.bus_dma_limit
        };
        (bus.min(dev.coherent_dma_mask), !dev.iommu_group.is_null())
    };
    if iommu {
        return Ok(());
    }
    let address = |phys| {
        // SAFETY: The device is being probed.
        unsafe { shim::mydrv_dma_address(raw(dev), phys) }
    };
    let (first, last) = (address(range.base), address(range.end() - 1));
    if first == u64::MAX || last == u64::MAX || last > limit {
        refuse!(dev, "memory-region {}: {:#x} to {:#x} is beyond what the bus above the device reaches (dma-ranges); confine the region by alloc-ranges, or correct dma-ranges\n", region.display_name(), range.base, range.end());
    }
    Ok(())
}
