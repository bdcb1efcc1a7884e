# SPDX-License-Identifier: MIT
"""The driver's guards: what each one is in the source, and what must notice that it is missing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Guard:
    """One guard of the driver. `taken` stands in `file` once, and `left` is what the driver is built with in its place."""

    name: str
    file: str
    taken: str
    # Each must fail: `TEST` or `TEST ARGUMENT@LABEL` of mydrv-tests, `check ID@LABEL` of `mydrvctl validate --full`, `refused DEVICE` of wrong_tree() in
    # test_variants.py, or `held`: that an open file keeps the module. LABEL is the buffer's; without it, SMALL's.
    noticed: tuple
    left: str = ""


# A buffer that takes little time to zero, and whose mappings bypass the processor's caches.
SMALL = "noncoherent"

GUARDS = [
    Guard(
        "mmap() stays within the buffer",
        "vma.rs",
        "        if end > memory.size() >> PAGE_SHIFT {\n            return Err(ENXIO);\n        }\n",
        ("mmap-rules", "check refuse-map-beyond", "check refuse-map-outside"),
    ),
    Guard("no executable mapping", "vma.rs", "    vma.try_clear_mayexec().map_err(|_| EPERM)?;\n", ("mmap-rules", "check mapping-flags")),
    Guard(
        "no private mapping",
        "vma.rs",
        "    if !unsafe { shim::mydrv_vma_is_shared(vma.as_ptr()) } {\n        return Err(EINVAL);\n    }\n",
        ("mmap-rules", "check refuse-map-private"),
    ),
    Guard(
        "a mapping neither grows nor gets into core dumps",
        "vma.rs",
        "flags::PFNMAP | flags::DONTEXPAND | flags::DONTDUMP | flags::HUGEPAGE",
        # The flag PFNMAP alone keeps the kernel from both, today; these do not lean on that.
        ("mmap-rules", "check mapping-flags"),
        "flags::PFNMAP | flags::HUGEPAGE",
    ),
    Guard("fork copies no page table entries", "vma.rs", "    if in_fork {\n", ("faults",), "    if in_fork && false {\n"),
    Guard(
        "a read-only buffer does not open for writing",
        "file.rs",
        "        if writable && buffer.config.read_only {\n            return Err(EROFS);\n        }\n",
        ("mmap-rules@read-only", "check refuse-open-write@read-only"),
    ),
    Guard(
        "mappings through any node are found",
        "file.rs",
        "        unsafe { (*file.as_ptr()).f_mapping = node.buffer.mapping() };\n",
        ("revoke",),
    ),
    Guard("an open file keeps the module", "file.rs", "    owner: compat::THIS_MODULE,\n", ("held",), "    owner: core::ptr::null_mut(),\n"),
    Guard(
        "addresses for CAP_SYS_RAWIO alone",
        "file.rs",
        "                let info = open.buffer.info(privileged)?;\n",
        ("ioctl-rules",),
        "                let info = open.buffer.info(privileged || true)?;\n",
    ),
    Guard(
        "no sync of nothing or of reserved bits",
        "file.rs",
        "        if sync.reserved != 0 || sync.length == 0 {\n            return Err(EINVAL);\n        }\n",
        ("ioctl-rules", "check refuse-sync-empty", "check refuse-sync-reserved"),
    ),
    Guard(
        "a reader discards nobody's data",
        "file.rs",
        "        if direction == Direction::FromDevice && !self.writable && !self.buffer.config.read_only {\n            return Err(EBADF);\n        }\n",
        ("ioctl-rules", "check refuse-sync-reader"),
    ),
    Guard("seeking stays within the buffer", "file.rs", "    llseek: Some(llseek),\n", ("file-rules", "check refuse-seek-beyond")),
    Guard(
        "a write at the end is an error",
        "file.rs",
        "        if written == 0 && wanted != 0 {\n            return Err(ENOSPC);\n        }\n",
        ("file-rules", "check refuse-write-at-end"),
    ),
    Guard(
        "a revocation takes the mappings",
        "buffer.rs",
        "        unsafe { bindings::unmap_mapping_range(self.anchor.mapping(), 0, 0, 1) };\n",
        ("revoke",),
    ),
    Guard(
        "the last close scrubs",
        "buffer.rs",
        "                memory.zero();\n                state.pristine = true;\n",
        ("scrub@scrub", "check scrub@scrub"),
        "                let _ = memory;\n                state.pristine = true;\n",
    ),
    Guard(
        "a sync stays within the buffer",
        "memory.rs",
        "        if end > self.size {\n            return Err(ERANGE);\n        }\n",
        ("ioctl-rules", "check refuse-sync-beyond"),
    ),
    Guard(
        "a buffer has a length",
        "config.rs",
        "    if size == 0 {\n",
        ("refused mydrv-size-zero",),
        "    if false {\n",
    ),
    Guard(
        "a buffer is whole pages",
        "config.rs",
        "    if size % PAGE_SIZE as u64 != 0 {\n",
        ("refused mydrv-size-unaligned",),
        "    if false {\n",
    ),
    Guard(
        "a buffer fits into its region",
        "config.rs",
        "        if size > region.range().size {\n",
        ("refused mydrv-size-beyond-region",),
        "        if false {\n",
    ),
    Guard(
        "a buffer fits into the address space",
        "config.rs",
        "    if size > isize::MAX as u64 {\n",
        ("refused mydrv-size-huge",),
        "    if false {\n",
    ),
    Guard(
        "a label begins with a letter",
        "config.rs",
        "    if !first || ",
        ("refused mydrv-label-bad-4", "refused mydrv-label-bad-6"),
        "    if ",
    ),
    Guard(
        "a label has its length",
        "config.rs",
        " || bytes.len() >= label.len()",
        ("refused mydrv-label-long",),
        " || bytes.len() > 2 * label.len()",
    ),
    Guard(
        "a label is a file's name",
        "config.rs",
        " || !bytes.iter().all(allowed)",
        ("refused mydrv-label-bad-1", "refused mydrv-label-umlaut"),
        "",
    ),
    Guard(
        "a pool is not cached",
        "config.rs",
        "        if config.cache_mode == CacheMode::Cached && region.is_some_and(|r| !r.is_cma()) {\n",
        ("refused mydrv-cached-pool",),
        "        if false {\n",
    ),
    Guard(
        "a region's node is enabled",
        "region.rs",
        "    if !unsafe { bindings::fwnode_device_is_available(raw_node(region)) } {\n",
        ("refused mydrv-kind-disabled",),
        "    if false {\n",
    ),
    Guard(
        "a region is not everybody's",
        "region.rs",
        "        if region.property_present(default) {\n",
        ("refused mydrv-default-cma", "refused mydrv-default-pool"),
        "        if false {\n",
    ),
    Guard(
        "a pool goes past the IOMMU",
        "region.rs",
        '    if no_map && node.property_present(c_str!("iommus")) {\n',
        ("refused mydrv-iommu",),
        "    if false {\n",
    ),
    Guard(
        "a region has a length",
        "region.rs",
        "    if zero {\n",
        ("refused mydrv-length-zero",),
        "    if false {\n",
    ),
    Guard(
        "an alignment has the address's cells",
        "region.rs",
        "        if cells != address {\n",
        ("refused mydrv-place-alignment",),
        "        if false {\n",
    ),
    Guard(
        "ranges to choose from have their cells",
        "region.rs",
        "        if cells == 0 || cells % range != 0 {\n",
        ("refused mydrv-place-ranges",),
        "        if false {\n",
    ),
    Guard(
        "a region is whole pages",
        "region.rs",
        "    if range.base % page != 0 || range.size % page != 0 {\n",
        ("refused mydrv-length-pages", "refused mydrv-place-reg-page"),
        "    if false {\n",
    ),
    Guard(
        "regions do not overlap",
        "region.rs",
        "        if range.overlaps(taken) {\n",
        ("refused mydrv-overlap-low", "refused mydrv-overlap-high", "refused mydrv-overlap-inner"),
        "        if false {\n",
    ),
    Guard(
        "a region is in /reserved-memory",
        "region.rs",
        "    if !unsafe { shim::mydrv_is_reserved_memory(above) } {\n",
        ("refused mydrv-region-elsewhere",),
        "    if false {\n",
    ),
    Guard(
        "the bus reaches a region",
        "region.rs",
        "    check_reach(dev, region, range)\n",
        ("refused bus:mydrv-far-cma", "refused bus:mydrv-far-pool"),
        "    Ok(())\n",
    ),
]
