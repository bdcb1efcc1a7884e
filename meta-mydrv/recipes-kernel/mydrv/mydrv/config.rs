// SPDX-License-Identifier: GPL-2.0-only

//! What the device tree asks for, checked. The properties are described in
//! `bindings/mydrv,dma-buffer.yaml`.

use kernel::{
    c_str,
    device::{
        property::FwNode,
        Device, //
    },
    page::PAGE_SIZE,
    prelude::*,
    str::CString, //
};

use crate::{
    abi::*,
    region::Region, //
};

/// How processor and device see each other's writes (`mydrv,cache-mode`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheMode {
    Coherent,
    WriteCombine,
    Cached,
}

impl CacheMode {
    pub(crate) fn abi(self) -> u32 {
        match self {
            CacheMode::Coherent => MYDRV_CACHE_COHERENT,
            CacheMode::WriteCombine => MYDRV_CACHE_WRITE_COMBINE,
            CacheMode::Cached => MYDRV_CACHE_CACHED,
        }
    }

    /// The property's value.
    pub(crate) fn name(self) -> &'static str {
        match self {
            CacheMode::Coherent => "coherent",
            CacheMode::WriteCombine => "write-combine",
            CacheMode::Cached => "cached",
        }
    }

    fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Coherent, Self::WriteCombine, Self::Cached]
            .into_iter()
            .find(|mode| mode.name().as_bytes() == name)
    }
}

/// A buffer's properties.
pub(crate) struct Config {
    /// Bytes; a multiple of the page size, at least one page.
    pub(crate) size: usize,
    pub(crate) cache_mode: CacheMode,
    pub(crate) read_only: bool,
    pub(crate) scrub: bool,
    /// NUL-terminated; empty without the property.
    pub(crate) label: [u8; MYDRV_LABEL_BYTES],
}

impl Config {
    /// Reads and checks the properties of `node`. Each refusal is one line in the kernel log that
    /// names property, value and remedy.
    pub(crate) fn read(dev: &Device, node: &FwNode, region: Option<&Region>) -> Result<Self> {
        let config = Config {
            size: read_size(dev, node, region)?,
            cache_mode: read_cache_mode(dev, node)?,
            read_only: node.property_read_bool(c_str!("read-only")),
            scrub: node.property_read_bool(c_str!("mydrv,scrub")),
            label: read_label(dev, node)?,
        };
        if config.cache_mode == CacheMode::Cached && region.is_some_and(|r| !r.is_cma()) {
            dev_err!(
                dev,
                "mydrv,cache-mode = \"cached\" contradicts memory-region: a pool that is not \"reusable\" is mapped uncached; make the region \"reusable\" or choose another mode\n"
            );
            return Err(EINVAL);
        }
        Ok(config)
    }
}

fn read_size(dev: &Device, node: &FwNode, region: Option<&Region>) -> Result<usize> {
    let name = c_str!("size");
    let size = match (node.property_present(name), region) {
        (true, _) => node.property_read::<u64>(name).optional().ok_or_else(|| {
            dev_err!(
                dev,
                "size: not a 64-bit number; write two cells, e.g. size = <0x0 0x4000000>\n"
            );
            EINVAL
        })?,
        (false, Some(region)) => region.range().size,
        (false, None) => {
            dev_err!(
                dev,
                "size: missing; give a size, or a memory-region to take it from\n"
            );
            return Err(EINVAL);
        }
    };
    if size == 0 {
        dev_err!(dev, "size = 0: the buffer would be empty; give at least {PAGE_SIZE} bytes, or leave size out to use the whole memory-region\n");
        return Err(EINVAL);
    }
    if size % PAGE_SIZE as u64 != 0 {
        dev_err!(
            dev,
            "size = {size:#x}: not a multiple of the page size; round it up to {:#x}\n",
            size.saturating_add(PAGE_SIZE as u64) & !(PAGE_SIZE as u64 - 1)
        );
        return Err(EINVAL);
    }
    if let Some(region) = region {
        if size > region.range().size {
            dev_err!(dev, "size = {size:#x}: larger than its memory-region of {:#x} bytes; enlarge the region or leave size out\n", region.range().size);
            return Err(EINVAL);
        }
    }
    // The page allocator's orders, and with them the DMA API, end far below.
    if size > isize::MAX as u64 {
        dev_err!(
            dev,
            "size = {size:#x}: larger than the address space; give the buffer's size in bytes\n"
        );
        return Err(EINVAL);
    }
    Ok(size as usize)
}

fn read_cache_mode(dev: &Device, node: &FwNode) -> Result<CacheMode> {
    let name = c_str!("mydrv,cache-mode");
    if !node.property_present(name) {
        return Ok(CacheMode::Coherent);
    }
    let value = node.property_read::<CString>(name).optional();
    value
        .as_ref()
        .and_then(|value| CacheMode::from_name(value.to_bytes()))
        .ok_or_else(|| {
            let value = value.as_deref().unwrap_or(c_str!("(no string)"));
            dev_err!(dev, "mydrv,cache-mode = {value:?}: unknown; use \"coherent\", \"write-combine\" or \"cached\"\n");
            EINVAL
        })
}

fn read_label(dev: &Device, node: &FwNode) -> Result<[u8; MYDRV_LABEL_BYTES]> {
    let name = c_str!("label");
    let mut label = [0; MYDRV_LABEL_BYTES];
    if !node.property_present(name) {
        return Ok(label);
    }
    let value = node.property_read::<CString>(name).optional();
    let bytes = value.as_ref().map_or(&[][..], |value| value.to_bytes());
    // It becomes a file name (/dev/mydrv/by-label/), so what could leave that folder or need
    // quoting is refused.
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    // A number would be taken for a buffer's index, and '-' for an option.
    let first = bytes.first().is_some_and(u8::is_ascii_alphabetic);
    if !first || bytes.len() >= label.len() || !bytes.iter().all(allowed) {
        let value = value.as_deref().unwrap_or(c_str!("(no string)"));
        dev_err!(
            dev,
            "label = {value:?}: not usable; give a letter and up to {} more letters, digits, '.', '_' or '-'\n",
            MYDRV_LABEL_BYTES - 2
        );
        return Err(EINVAL);
    }
    label[..bytes.len()].copy_from_slice(bytes);
    Ok(label)
}
