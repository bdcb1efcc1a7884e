// SPDX-License-Identifier: GPL-2.0-only

//! The buffers that there are, or are being made: no two have one label, and who is refused memory
//! learns who has it.

use kernel::{
    device::Device,
    prelude::*,
    str::BStr,
    sync::{
        aref::ARef,
        global_lock, //
    },
};

use crate::{
    abi::MYDRV_LABEL_BYTES,
    region::{
        Range,
        Region, //
    },
    shim, //
};

struct Entry {
    dev: ARef<Device>,
    label: [u8; MYDRV_LABEL_BYTES],
    region: Option<Range>,
}

global_lock! {
    // SAFETY: `init()` runs before any device is probed.
    unsafe(uninit) static ENTRIES: Mutex<KVec<Entry>> = KVec::new();
}

/// Makes the registry usable.
///
/// # Safety
///
/// Called once, before everything else here.
pub(crate) unsafe fn init() {
    // SAFETY: By this function's requirements.
    unsafe { ENTRIES.init() };
}

/// A device's entry, for as long as this lives.
pub(crate) struct Registered {
    dev: ARef<Device>,
}

impl Registered {
    /// Enters a device; refuses a label that another has, by a line in the kernel log. `label` is
    /// padded by NUL, and empty for none.
    pub(crate) fn new(
        dev: &Device,
        label: &[u8; MYDRV_LABEL_BYTES],
        region: Option<&Region>,
    ) -> Result<Self> {
        let mut entries = ENTRIES.lock();
        let same = entries
            .iter()
            .find(|entry| label[0] != 0 && entry.label == *label);
        if let Some(other) = same {
            let label = label.split(|byte| *byte == 0).next().unwrap_or_default();
            let label = BStr::from_bytes(label);
            dev_err!(dev, "label = \"{label}\": device {} has it already; give each buffer a label of its own\n", shim::name(&other.dev));
            return Err(EEXIST);
        }
        let entry = Entry {
            dev: dev.into(),
            label: *label,
            region: region.map(Region::range),
        };
        entries.push(entry, GFP_KERNEL)?;
        Ok(Registered { dev: dev.into() })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        ENTRIES.lock().retain(|entry| !same(&entry.dev, &self.dev));
    }
}

/// Another device than `dev` whose buffer lies in this region, or is about to.
pub(crate) fn other_user(dev: &Device, region: &Region) -> Option<ARef<Device>> {
    let entries = ENTRIES.lock();
    let mut others = entries.iter().filter(|entry| !same(&entry.dev, dev));
    let other = others.find(|entry| entry.region == Some(region.range()));
    other.map(|entry| entry.dev.clone())
}

fn same(a: &Device, b: &Device) -> bool {
    core::ptr::eq(a, b)
}
