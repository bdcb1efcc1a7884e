// SPDX-License-Identifier: GPL-2.0-only

//! mydrv: a physically contiguous DMA buffer, there from boot on, that hardware and applications
//! share through `/dev/mydrvN`.
//!
//! - `config.rs`: the device tree's properties
//! - `region.rs`: the reserved region, and all that can be wrong with it
//! - `registry.rs`: the buffers that there are, so that names are unique
//! - `memory.rs`: the DMA API, the buffer's memory
//! - `buffer.rs`: who may reach the memory when: users, revocation
//! - `file.rs`: the device node and its files
//! - `vma.rs`: `mmap()` and page faults
//! - `abi.rs`: the ioctls, shared with user space
//! - `compat.rs`: what differs between kernel versions
//! - `shim.rs`, `shim.c`: what Rust cannot call directly

use kernel::{
    device::{
        Bound,
        Device, //
    },
    driver,
    platform,
    prelude::*,
    sync::Arc, //
};

// Public in the crate that user space makes of it.
#[allow(unreachable_pub)]
mod abi;
mod buffer;
mod compat;
mod config;
mod file;
mod memory;
mod region;
mod registry;
// The kernel's structures have empty members where a configuration leaves something out.
#[allow(improper_ctypes)]
mod shim;
mod vma;

use buffer::Buffer;
use config::Config;
use file::Node;
use memory::Memory;
use region::Region;
use registry::Registered;

/// What a bound device owns. The node goes first, so that no file is opened from then on; then the
/// memory is taken from those that are open; then label and region are free for another device.
struct Mydrv {
    _node: Pin<KBox<Node>>,
    _memory: RevokeOnDrop,
    _registered: Registered,
}

impl Mydrv {
    fn bind(dev: &Device<Bound>) -> Result<Self> {
        let node = dev.fwnode().ok_or(ENODEV)?;
        memory::set_dma_mask(dev)?;
        let region = Region::claim(dev, node)?;
        let config = Config::read(dev, node, region.as_ref())?;
        let registered = Registered::new(dev, &config.label, region.as_ref())?;
        let memory = Memory::new(dev, &config, region)?;
        let buffer = Buffer::new(dev, config, memory)?;
        let revoke = RevokeOnDrop(buffer.clone());
        let node = Node::register(dev, buffer)?;
        dev_info!(
            dev,
            "/dev/mydrv{}: {} KiB, {}\n",
            node.index(),
            revoke.0.info(false)?.size_bytes / 1024,
            revoke.0.config.cache_mode.name()
        );
        Ok(Mydrv {
            _node: node,
            _memory: revoke,
            _registered: registered,
        })
    }
}

/// Revokes the buffer when the device is unbound, or when probing fails after all.
struct RevokeOnDrop(Arc<Buffer>);

impl Drop for RevokeOnDrop {
    fn drop(&mut self) {
        self.0.revoke();
    }
}

/// The module: what `module_platform_driver!` would make, and the registry.
#[pin_data]
struct MydrvModule {
    #[pin]
    driver: driver::Registration<platform::Adapter<Mydrv>>,
}

impl kernel::InPlaceModule for MydrvModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: Called once, before any device is probed.
        unsafe { registry::init() };
        try_pin_init!(Self {
            driver <- driver::Registration::new(<Self as kernel::ModuleMetadata>::NAME, module),
        })
    }
}

module! {
    type: MydrvModule,
    name: "mydrv",
    authors: ["The mydrv developers"],
    description: "Physically contiguous DMA buffers, shared with applications by mmap()",
    license: "GPL v2",
}
