// SPDX-License-Identifier: MIT

//! `MYDRV_IOC_INFO`, typed.

use std::fmt;

use mydrv_abi::{
    MYDRV_CACHE_CACHED, MYDRV_CACHE_COHERENT, MYDRV_CACHE_WRITE_COMBINE, MYDRV_FLAG_ADDRESSES, MYDRV_FLAG_DMA_COHERENT,
    MYDRV_FLAG_NO_MAP, MYDRV_FLAG_PRISTINE, MYDRV_FLAG_READ_ONLY, MYDRV_FLAG_RESERVED, MYDRV_FLAG_SCRUB, MydrvInfo,
};

/// What the driver tells of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// The driver's ABI version.
    pub abi_version: u32,
    /// The buffer's length in bytes, a multiple of the page size.
    pub size_bytes: u64,
    /// How the processor reaches the buffer.
    pub cache_mode: CacheMode,
    /// The buffer's properties.
    pub flags: Flags,
    /// Where the buffer is; `None` unless the caller has `CAP_SYS_RAWIO`.
    pub addresses: Option<Addresses>,
    /// The reserved region's length in bytes; `None` where the buffer comes from the default pool.
    pub region_size_bytes: Option<u64>,
    /// The `label` of the device tree; empty where it has none.
    pub label: String,
}

/// Who uses a buffer, as the driver counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Users {
    /// How many files are open now, the asking one among them. A mapping keeps its file open.
    pub open_files: u32,
    /// How many files have been opened for writing since the device was bound.
    pub opened_for_writing: u64,
}

/// Where a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Addresses {
    /// What the device's DMA engine is given.
    pub dma: u64,
    /// The buffer's first byte in physical memory.
    pub physical: u64,
    /// The reserved region's first byte in physical memory; `None` where the buffer comes from the default pool.
    pub region_base: Option<u64>,
}

/// How the processor reaches the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheMode {
    /// Processor and device always see the same data.
    Coherent,
    /// As coherent, with writes gathered before they leave the processor.
    WriteCombine,
    /// Cached; [`Device::sync`](crate::Device::sync) keeps both sides in step.
    Cached,
    /// A mode of a newer driver.
    Unknown(u32),
}

impl fmt::Display for CacheMode {
    /// The mode's name, as the device tree spells it; `unknown-N` for the mode N of a newer driver.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coherent => f.write_str("coherent"),
            Self::WriteCombine => f.write_str("write-combine"),
            Self::Cached => f.write_str("cached"),
            Self::Unknown(mode) => write!(f, "unknown-{mode}"),
        }
    }
}

/// A buffer's properties: `MYDRV_FLAG_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// The bits as the driver gave them.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The buffer is read-only for every user.
    pub fn read_only(self) -> bool {
        self.0 & MYDRV_FLAG_READ_ONLY != 0
    }

    /// The buffer is zeroed whenever its last user closes it.
    pub fn scrub(self) -> bool {
        self.0 & MYDRV_FLAG_SCRUB != 0
    }

    /// The memory comes from a reserved region.
    pub fn reserved(self) -> bool {
        self.0 & MYDRV_FLAG_RESERVED != 0
    }

    /// The reserved region is outside the kernel's own mapping.
    pub fn no_map(self) -> bool {
        self.0 & MYDRV_FLAG_NO_MAP != 0
    }

    /// The device snoops the processor's caches.
    pub fn dma_coherent(self) -> bool {
        self.0 & MYDRV_FLAG_DMA_COHERENT != 0
    }

    /// No file has been open for writing since the driver last zeroed the buffer.
    pub fn pristine(self) -> bool {
        self.0 & MYDRV_FLAG_PRISTINE != 0
    }

    /// The names of the flags that are set, in the ABI's order.
    pub fn names(self) -> Vec<&'static str> {
        [
            (MYDRV_FLAG_READ_ONLY, "read-only"),
            (MYDRV_FLAG_SCRUB, "scrub"),
            (MYDRV_FLAG_RESERVED, "reserved"),
            (MYDRV_FLAG_NO_MAP, "no-map"),
            (MYDRV_FLAG_DMA_COHERENT, "dma-coherent"),
            (MYDRV_FLAG_ADDRESSES, "addresses"),
            (MYDRV_FLAG_PRISTINE, "pristine"),
        ]
        .into_iter()
        .filter_map(|(bit, name)| (self.0 & bit != 0).then_some(name))
        .collect()
    }
}

impl From<&MydrvInfo> for Info {
    fn from(raw: &MydrvInfo) -> Self {
        let flags = Flags(raw.flags);
        let label = raw.label.split(|&byte| byte == 0).next().unwrap_or_default();
        Self {
            abi_version: raw.abi_version,
            size_bytes: raw.size_bytes,
            cache_mode: match raw.cache_mode {
                MYDRV_CACHE_COHERENT => CacheMode::Coherent,
                MYDRV_CACHE_WRITE_COMBINE => CacheMode::WriteCombine,
                MYDRV_CACHE_CACHED => CacheMode::Cached,
                other => CacheMode::Unknown(other),
            },
            flags,
            addresses: (raw.flags & MYDRV_FLAG_ADDRESSES != 0).then(|| Addresses {
                dma: raw.dma_address,
                physical: raw.physical_address,
                region_base: flags.reserved().then_some(raw.region_base),
            }),
            region_size_bytes: flags.reserved().then_some(raw.region_size_bytes),
            label: String::from_utf8_lossy(label).into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_show_only_with_their_flag() {
        let raw = MydrvInfo {
            physical_address: 0x5000_0000,
            region_base: 0x4000_0000,
            ..Default::default()
        };
        assert_eq!(Info::from(&raw).addresses, None);

        let raw = MydrvInfo {
            flags: MYDRV_FLAG_ADDRESSES,
            ..raw
        };
        assert_eq!(
            Info::from(&raw).addresses,
            Some(Addresses {
                dma: 0,
                physical: 0x5000_0000,
                region_base: None
            })
        );

        let raw = MydrvInfo {
            flags: MYDRV_FLAG_ADDRESSES | MYDRV_FLAG_RESERVED,
            ..raw
        };
        assert_eq!(Info::from(&raw).addresses.unwrap().region_base, Some(0x4000_0000));
    }

    #[test]
    fn label_ends_at_its_nul_or_at_the_field() {
        let mut raw = MydrvInfo::default();
        raw.label[..7].copy_from_slice(b"cam\0rub");
        assert_eq!(Info::from(&raw).label, "cam");
        raw.label = [b'x'; mydrv_abi::MYDRV_LABEL_BYTES];
        assert_eq!(Info::from(&raw).label.len(), mydrv_abi::MYDRV_LABEL_BYTES);
    }
}
