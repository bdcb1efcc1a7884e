// SPDX-License-Identifier: GPL-2.0-only

//! `/dev/mydrvN`: the misc device and what its open files answer.

use core::mem::size_of;

use kernel::{
    bindings,
    device::{
        Bound,
        Device, //
    },
    fs::{
        file::flags as open_flags,
        File,
        Kiocb, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    miscdevice::{
        MiscDevice,
        MiscDeviceRegistration, //
    },
    mm::virt::VmaNew,
    page::PAGE_SIZE,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    str::CString,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    transmute::{
        AsBytes,
        FromBytes, //
    },
    types::{
        ForeignOwnable,
        Opaque, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

use crate::{
    abi::*,
    buffer::Buffer,
    compat,
    memory::Direction,
    vma, //
};

// SAFETY: The structure has neither padding nor interior mutability (asserted in abi.rs).
unsafe impl AsBytes for MydrvInfo {}
// SAFETY: As above.
unsafe impl AsBytes for MydrvUsers {}
// SAFETY: Integers take any bytes.
unsafe impl FromBytes for MydrvSync {}

struct Operations(bindings::file_operations);

// SAFETY: Nobody writes them.
unsafe impl Sync for Operations {}

/// The operations of [`MiscDevice`], and those that it lacks.
static OPERATIONS: Operations = Operations(bindings::file_operations {
    // An open file keeps the module loaded.
    owner: compat::THIS_MODULE,
    llseek: Some(llseek),
    #[cfg(CONFIG_TRANSPARENT_HUGEPAGE)]
    get_unmapped_area: Some(bindings::thp_get_unmapped_area),
    ..compat::misc_operations::<OpenFile>()
});

/// The registered device node.
#[repr(C)]
#[pin_data(PinnedDrop)]
pub(crate) struct Node {
    /// First, so that `MiscDevice::open()` finds the rest from it.
    #[pin]
    misc: Opaque<bindings::miscdevice>,
    buffer: Arc<Buffer>,
    /// `misc.name` points here.
    name: CString,
    /// Given back last, when the name is free again.
    index: Index,
}

// SAFETY: A misc device may be deregistered on any thread; the rest is `Send`.
unsafe impl Send for Node {}

impl Node {
    /// Registers the next free `/dev/mydrvN`. From then on files may be opened.
    pub(crate) fn register(dev: &Device<Bound>, buffer: Arc<Buffer>) -> Result<Pin<KBox<Self>>> {
        let index = Index::take()?;
        let name = CString::try_from_fmt(fmt!("mydrv{}", index.0))?;
        let parent = core::ptr::from_ref::<Device<Bound>>(dev).cast_mut().cast();
        KBox::try_pin_init(
            try_pin_init!(Node {
                buffer,
                index,
                name,
                misc <- Opaque::try_ffi_init(|slot: *mut bindings::miscdevice| {
                    let misc = bindings::miscdevice {
                        minor: bindings::MISC_DYNAMIC_MINOR as kernel::ffi::c_int,
                        name: name.as_char_ptr(),
                        fops: &OPERATIONS.0,
                        parent,
                        // Root's alone until udev hands it to the group.
                        mode: 0o600,
                        ..Default::default()
                    };
                    // SAFETY: The slot may be written; it stays in place until `drop()` deregisters it, and so does the name.
                    unsafe {
                        slot.write(misc);
                        kernel::error::to_result(bindings::misc_register(slot))
                    }
                }),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// N of /dev/mydrvN.
    pub(crate) fn index(&self) -> u32 {
        self.index.0
    }
}

#[pinned_drop]
impl PinnedDrop for Node {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: A node exists only registered.
        unsafe { bindings::misc_deregister(self.misc.get()) };
    }
}

/// A number below 64 that no other device has.
struct Index(u32);

static INDICES_TAKEN: Atomic<u64> = Atomic::new(0);

impl Index {
    fn take() -> Result<Self> {
        let mut taken = INDICES_TAKEN.load(Relaxed);
        loop {
            let free = taken.trailing_ones();
            if free == u64::BITS {
                return Err(ENOSPC);
            }
            match INDICES_TAKEN.cmpxchg(taken, taken | 1 << free, Relaxed) {
                Ok(_) => return Ok(Index(free)),
                Err(now) => taken = now,
            }
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let mut taken = INDICES_TAKEN.load(Relaxed);
        while let Err(now) = INDICES_TAKEN.cmpxchg(taken, taken & !(1 << self.0), Relaxed) {
            taken = now;
        }
    }
}

/// An open file. Holds the buffer, but not its memory: that may be revoked at any time.
pub(crate) struct OpenFile {
    pub(crate) buffer: Arc<Buffer>,
    pub(crate) writable: bool,
}

impl OpenFile {
    fn new(file: &File, node: &Node) -> Result<Self> {
        let writable = file.flags() & open_flags::O_ACCMODE != open_flags::O_RDONLY;
        let buffer = &node.buffer;
        if writable && buffer.config.read_only {
            return Err(EROFS);
        }
        buffer.add_user(writable)?;
        Ok(OpenFile {
            buffer: buffer.clone(),
            writable,
        })
    }

    /// The private data of an open file of ours.
    ///
    /// # Safety
    ///
    /// `file` has `OPERATIONS`, and was opened and not yet released.
    pub(crate) unsafe fn from_file(file: &File) -> &Self {
        // SAFETY: `MiscDevice::open()` put the box there, and `release()` has not taken it.
        unsafe { KBox::borrow((*file.as_ptr()).private_data) }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.buffer.remove_user();
    }
}

#[vtable]
impl MiscDevice for OpenFile {
    type Ptr = KBox<Self>;

    /// `EROFS`: for writing, on a read-only buffer. `ENODEV`: the device is going.
    fn open(file: &File, misc: &MiscDeviceRegistration<Self>) -> Result<KBox<Self>> {
        // SAFETY: Every misc device with `OPERATIONS` is the first field of a `Node`, and
        // `misc_open()` keeps it registered meanwhile.
        let node = unsafe { &*misc.as_raw().cast::<Node>() };
        let open = KBox::new(Self::new(file, node)?, GFP_KERNEL)?;
        // Whatever node the file was opened by, its mappings are found by the buffer's own address
        // space object.
        // SAFETY: The file is being opened, so its `f_mapping` may still be set; the buffer outlives
        // the file.
        unsafe { (*file.as_ptr()).f_mapping = node.buffer.mapping() };
        Ok(open)
    }

    fn mmap(open: &Self, _file: &File, vma: &VmaNew) -> Result {
        vma::mmap(open, vma)
    }

    /// Returns 0 at the buffer's end. `ENODEV`: the device is gone.
    fn read_iter(mut kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        let buffer = &kiocb.file().buffer;
        transfer(&mut kiocb, buffer, iov.len(), |buffer, offset, chunk| {
            buffer.with(|memory| memory.read(offset, chunk))?;
            Ok(iov.copy_to_iter(chunk))
        })
    }

    /// `ENOSPC`: at the buffer's end. `ENODEV`: the device is gone.
    fn write_iter(mut kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterSource<'_>) -> Result<usize> {
        let buffer = &kiocb.file().buffer;
        let wanted = iov.len();
        let written = transfer(&mut kiocb, buffer, wanted, |buffer, offset, chunk| {
            let len = iov.copy_from_iter(chunk);
            buffer.with(|memory| memory.write(offset, &chunk[..len]))?;
            Ok(len)
        })?;
        if written == 0 && wanted != 0 {
            return Err(ENOSPC);
        }
        Ok(written)
    }

    /// See abi.rs for the calls and their errors.
    fn ioctl(open: &Self, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        match cmd {
            MYDRV_IOC_INFO => {
                // SAFETY: Always safe.
                let privileged = unsafe { bindings::capable(bindings::CAP_SYS_RAWIO as i32) };
                let info = open.buffer.info(privileged)?;
                let (_, mut writer) = user_slice::<MydrvInfo>(arg).reader_writer();
                writer.write(&info)?;
            }
            MYDRV_IOC_USERS => {
                let users = open.buffer.users()?;
                let (_, mut writer) = user_slice::<MydrvUsers>(arg).reader_writer();
                writer.write(&users)?;
            }
            MYDRV_IOC_SYNC => {
                let sync = user_slice::<MydrvSync>(arg).reader().read()?;
                open.sync(&sync)?;
            }
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }

    fn show_fdinfo(open: &Self, m: &SeqFile, _file: &File) {
        match open.buffer.info(false) {
            Ok(info) => {
                seq_print!(m, "mydrv-size-bytes:\t{}\n", info.size_bytes);
                seq_print!(
                    m,
                    "mydrv-cache-mode:\t{}\n",
                    open.buffer.config.cache_mode.name()
                );
                seq_print!(m, "mydrv-flags:\t{:#x}\n", info.flags);
            }
            Err(_) => seq_print!(m, "mydrv-gone:\t1\n"),
        }
    }
}

impl OpenFile {
    fn sync(&self, sync: &MydrvSync) -> Result {
        let direction = match sync.direction {
            MYDRV_SYNC_TO_DEVICE => Direction::ToDevice,
            MYDRV_SYNC_FROM_DEVICE => Direction::FromDevice,
            _ => return Err(EINVAL),
        };
        if sync.reserved != 0 || sync.length == 0 {
            return Err(EINVAL);
        }
        // Discarding cache lines may discard what others wrote to them.
        if direction == Direction::FromDevice && !self.writable && !self.buffer.config.read_only {
            return Err(EBADF);
        }
        let offset = usize::try_from(sync.offset).map_err(|_| ERANGE)?;
        let len = usize::try_from(sync.length).map_err(|_| ERANGE)?;
        self.buffer
            .with(|memory| memory.sync_range(offset, len, direction))
    }
}

fn user_slice<T>(arg: usize) -> UserSlice {
    UserSlice::new(UserPtr::from_addr(arg), size_of::<T>())
}

/// Moves up to `wanted` bytes at the file's position, page by page through memory of its own: user
/// memory is never touched under the buffer's lock. Returns how many were moved; an error only if
/// none were.
fn transfer(
    kiocb: &mut Kiocb<'_, KBox<OpenFile>>,
    buffer: &Buffer,
    wanted: usize,
    mut step: impl FnMut(&Buffer, usize, &mut [u8]) -> Result<usize>,
) -> Result<usize> {
    let size = buffer.with(|memory| Ok(memory.size()))?;
    let start = usize::try_from(kiocb.ki_pos()).map_err(|_| EINVAL)?;
    let wanted = wanted.min(size.saturating_sub(start));
    let mut bounce = KVec::from_elem(0u8, wanted.min(PAGE_SIZE), GFP_KERNEL)?;
    let mut moved = 0;
    while moved < wanted {
        let chunk = &mut bounce[..(wanted - moved).min(PAGE_SIZE)];
        let asked = chunk.len();
        match step(buffer, start + moved, chunk) {
            Ok(0) if moved == 0 => return Err(EFAULT),
            Ok(len) => {
                moved += len;
                if len < asked {
                    break;
                }
            }
            Err(err) if moved == 0 => return Err(err),
            Err(_) => break,
        }
    }
    *kiocb.ki_pos_mut() += moved as i64;
    Ok(moved)
}

/// `EINVAL`: before the start or beyond the end. `ENODEV`: the device is gone.
extern "C" fn llseek(
    file: *mut bindings::file,
    offset: bindings::loff_t,
    whence: kernel::ffi::c_int,
) -> bindings::loff_t {
    // SAFETY: The kernel calls this for open files with `OPERATIONS`.
    let open = unsafe { OpenFile::from_file(File::from_raw_file(file)) };
    match open.buffer.with(|memory| Ok(memory.size())) {
        // SAFETY: The file is valid.
        Ok(size) => unsafe { bindings::fixed_size_llseek(file, offset, whence, size as i64) },
        Err(err) => err.to_errno().into(),
    }
}
