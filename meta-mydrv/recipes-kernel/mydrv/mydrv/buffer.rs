// SPDX-License-Identifier: GPL-2.0-only

//! A buffer and who may reach it: the life of the memory between probe and unbind.
//!
//! Lock order: `mmap_lock` (held by the kernel around faults and `mmap()`), then [`Buffer::state`],
//! then the page table locks. User memory is never touched under `state`, since a fault there may
//! need `state` itself.

use kernel::{
    bindings,
    device::Device,
    error::from_err_ptr,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    },
};

use crate::{
    abi::*,
    config::Config,
    memory::Memory,
    shim, //
};

/// One device's buffer. Shared by the bound device, which revokes it when it goes, and by every
/// open file.
#[pin_data]
pub(crate) struct Buffer {
    pub(crate) dev: ARef<Device>,
    pub(crate) config: Config,
    anchor: Anchor,
    #[pin]
    state: Mutex<State>,
}

struct State {
    /// `None` once the device is gone. Page table entries are made, and the memory is read and
    /// written, only while it is seen here under the lock.
    memory: Option<Memory>,
    /// Open files; a mapping keeps its file open.
    users: u32,
    /// Files opened for writing since the device was bound.
    opened_for_writing: u64,
    /// No file has been open for writing since the memory was last zeroed.
    pristine: bool,
}

impl Buffer {
    pub(crate) fn new(dev: &Device, config: Config, memory: Memory) -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Buffer {
                dev: dev.into(),
                config,
                anchor: Anchor::new()?,
                state <- new_mutex!(State { memory: Some(memory), users: 0, opened_for_writing: 0, pristine: true }),
            }),
            GFP_KERNEL,
        )
    }

    /// Runs `access` while the memory cannot go away; `ENODEV` once it is gone.
    pub(crate) fn with<R>(&self, access: impl FnOnce(&Memory) -> Result<R>) -> Result<R> {
        access(self.state.lock().memory.as_ref().ok_or(ENODEV)?)
    }

    /// What the INFO ioctl answers.
    pub(crate) fn info(&self, with_addresses: bool) -> Result<MydrvInfo> {
        let state = self.state.lock();
        let memory = state.memory.as_ref().ok_or(ENODEV)?;
        let config = &self.config;
        let mut info = MydrvInfo {
            abi_version: MYDRV_ABI_VERSION,
            cache_mode: config.cache_mode.abi(),
            label: config.label,
            ..MydrvInfo::default()
        };
        for (set, flag) in [
            (config.read_only, MYDRV_FLAG_READ_ONLY),
            (config.scrub, MYDRV_FLAG_SCRUB),
            (state.pristine, MYDRV_FLAG_PRISTINE),
        ] {
            if set {
                info.flags |= flag;
            }
        }
        memory.describe(&mut info, with_addresses);
        Ok(info)
    }

    /// What the USERS ioctl answers.
    pub(crate) fn users(&self) -> Result<MydrvUsers> {
        let state = self.state.lock();
        if state.memory.is_none() {
            return Err(ENODEV);
        }
        Ok(MydrvUsers {
            opened_for_writing: state.opened_for_writing,
            open_files: state.users,
            ..MydrvUsers::default()
        })
    }

    /// Counts a file that is being opened; `ENODEV` once the device is gone.
    pub(crate) fn add_user(&self, writable: bool) -> Result {
        let mut state = self.state.lock();
        if state.memory.is_none() {
            return Err(ENODEV);
        }
        state.users += 1;
        if writable {
            state.opened_for_writing += 1;
            state.pristine = false;
        }
        Ok(())
    }

    /// Counts a file that was closed. Under the lock, so that the next owner waits for the
    /// scrubbing.
    pub(crate) fn remove_user(&self) {
        let mut state = self.state.lock();
        state.users -= 1;
        if state.users == 0 && self.config.scrub {
            if let Some(memory) = &state.memory {
                memory.zero();
                state.pristine = true;
            }
        }
    }

    /// Takes the memory from every user and frees it. From here on every access through a mapping
    /// gets SIGBUS, every call `ENODEV`.
    pub(crate) fn revoke(&self) {
        // After this no entry is added to any page table. The lock is dropped before unmapping: a
        // fault holds it while it waits for page table locks.
        let memory = self.state.lock().memory.take();
        // SAFETY: The anchor keeps its inode, and with it the mapping, alive.
        unsafe { bindings::unmap_mapping_range(self.anchor.mapping(), 0, 0, 1) };
        // Now nothing reaches it: no mapping by the above, no call since `state` shows none.
        drop(memory);
    }

    /// The one address space object that all mappings of the buffer are linked to, so that
    /// `revoke()` finds every one of them. A device node's own would not do: a second node of
    /// the same number has another.
    pub(crate) fn mapping(&self) -> *mut bindings::address_space {
        self.anchor.mapping()
    }
}

/// Owns a reference to an inode that exists only for its `i_mapping`.
struct Anchor(*mut bindings::inode);

// SAFETY: Inodes are reference-counted across threads.
unsafe impl Send for Anchor {}
// SAFETY: The only access through a shared reference reads the constant `i_mapping`.
unsafe impl Sync for Anchor {}

impl Anchor {
    fn new() -> Result<Self> {
        // SAFETY: Always safe; the reference it returns is ours.
        from_err_ptr(unsafe { shim::mydrv_anchor_inode() }).map(Anchor)
    }

    fn mapping(&self) -> *mut bindings::address_space {
        // SAFETY: The inode is alive by our reference, and its `i_mapping` never changes.
        unsafe { (*self.0).i_mapping }
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        // SAFETY: The reference is ours, and no file refers to the mapping any more: each holds the
        // buffer.
        unsafe { bindings::iput(self.0) };
    }
}
