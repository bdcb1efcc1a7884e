// SPDX-License-Identifier: MIT

//! The guest's side of bench/performance: measures what mappings cost, the driver's and its peers', and prints a line of JSON for
//! each operation, size and kind of memory.
//!
//! The unit is nanoseconds of the guest's clock; under QEMU's `-icount shift=0` they are instructions. Each of the [`ROUNDS`] rounds
//! maps anew; buffers are allocated before. Then what `mydrvctl validate` costs, process and all.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    path::Path,
    process::{Command, Stdio},
    ptr,
    time::Instant,
};

use rustix::{
    ioctl::{Opcode, Updater, ioctl, opcode},
    mm::{Advice, MapFlags, ProtFlags},
    param::page_size,
};

const SIZES_MIB: [usize; 4] = [1, 4, 16, 64];
const OPERATIONS: [&str; 5] = ["map and touch", "touch again", "unmap", "copy in", "copy out"];
const CMA_HEAP: &str = "/dev/dma_heap/default_cma_region";
/// Odd, for a median that was measured.
const ROUNDS: usize = 5;

fn main() -> io::Result<()> {
    println!(r#"{{"kernel": {:?}, "rounds": {ROUNDS}}}"#, rustix::system::uname().release());
    for mib in SIZES_MIB {
        let len = mib << 20;
        let memories = [
            ("mydrv", Memory::File(open("/dev/mydrv0")?.into())),
            ("CMA dma-heap", Memory::File(dma_buf(CMA_HEAP, len)?)),
            ("anonymous", Memory::Anonymous),
            ("anonymous, huge pages", Memory::AnonymousHuge),
        ];
        for (name, memory) in memories {
            round(&memory, len)?; // brings what the rounds run into memory
            let rounds = (0..ROUNDS).map(|_| round(&memory, len)).collect::<io::Result<Vec<_>>>()?;
            for (index, operation) in OPERATIONS.iter().enumerate() {
                let counts: Vec<_> = rounds.iter().map(|round| round[index]).collect();
                println!(r#"{{"operation": "{operation}", "mib": {mib}, "memory": "{name}", "instructions": {counts:?}}}"#);
            }
        }
    }
    for (contents, zeroed) in [("zeros", true), ("kept", false)] {
        let rounds = (0..ROUNDS).map(|_| validate(zeroed)).collect::<io::Result<Vec<_>>>()?;
        println!(r#"{{"validate": "{contents}", "instructions": {rounds:?}}}"#);
    }
    Ok(())
}

/// Measures `mydrvctl validate` of the whole buffer, on one that the driver has just zeroed, or on one that was written to since.
fn validate(zeroed: bool) -> io::Result<u128> {
    if zeroed {
        for file in ["unbind", "bind"] {
            std::fs::write(format!("/sys/bus/platform/drivers/mydrv/{file}"), "mydrv-buffer")?;
            // Or else the check waits for udev.
            successful(Command::new("udevadm").arg("settle"))?;
        }
    }
    let (done, instructions) = measure(|| successful(Command::new("mydrvctl").args(["--device", "/dev/mydrv0", "validate"])));
    done.map(|()| instructions)
}

fn successful(command: &mut Command) -> io::Result<()> {
    let status = command.stdout(Stdio::null()).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("{command:?}: {status}")));
    }
    Ok(())
}

/// Measures each of [`OPERATIONS`] once.
fn round(memory: &Memory, len: usize) -> io::Result<[u128; OPERATIONS.len()]> {
    let mut private = Mapping::new(&Memory::Anonymous, len)?;
    private.touch();

    let (mapping, map_and_touch) = measure(|| {
        let mut mapping = Mapping::new(memory, len)?;
        mapping.touch();
        io::Result::Ok(mapping)
    });
    let mut mapping = mapping?;
    let ((), touch_again) = measure(|| mapping.touch());
    let ((), copy_in) = measure(|| mapping.copy_from(&private));
    let ((), copy_out) = measure(|| private.copy_from(&mapping));
    let ((), unmap) = measure(|| drop(mapping));
    Ok([map_and_touch, touch_again, unmap, copy_in, copy_out])
}

/// What `operation` returns, and the nanoseconds that it took.
fn measure<T>(operation: impl FnOnce() -> T) -> (T, u128) {
    let start = Instant::now();
    let result = operation();
    (result, start.elapsed().as_nanos())
}

/// What a mapping is made of.
enum Memory {
    /// The start of a file: the driver's, or a dma-buf.
    File(OwnedFd),
    Anonymous,
    /// Anonymous, with `MADV_HUGEPAGE`.
    AnonymousHuge,
}

fn open(path: impl AsRef<Path>) -> io::Result<File> {
    let path = path.as_ref();
    let open = OpenOptions::new().read(true).write(true).open(path);
    open.map_err(|err| io::Error::new(err.kind(), format!("{}: {err}", path.display())))
}

/// `struct dma_heap_allocation_data` of linux/dma-heap.h.
#[repr(C)]
struct DmaHeapAllocation {
    len: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}

const DMA_HEAP_IOCTL_ALLOC: Opcode = opcode::read_write::<DmaHeapAllocation>(b'H', 0);

/// A dma-buf of `len` bytes from the heap.
fn dma_buf(heap: &str, len: usize) -> io::Result<OwnedFd> {
    let heap = open(heap)?;
    let fd_flags = rustix::fs::OFlags::RDWR.bits();
    let mut allocation = DmaHeapAllocation {
        len: len as u64,
        fd: 0,
        fd_flags,
        heap_flags: 0,
    };
    // SAFETY: the ioctl reads and writes the structure that its number tells.
    unsafe { ioctl(&heap, Updater::<DMA_HEAP_IOCTL_ALLOC, _>::new(&mut allocation)) }?;
    // SAFETY: the ioctl succeeded, so it opened this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(allocation.fd as RawFd) })
}

/// Memory mapped for reading and writing, for this process alone to use.
struct Mapping {
    start: *mut u8,
    len: usize,
}

impl Mapping {
    fn new(memory: &Memory, len: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses an address where nothing is mapped.
        let start = unsafe {
            match memory {
                Memory::File(file) => rustix::mm::mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, file, 0),
                _ => rustix::mm::mmap_anonymous(ptr::null_mut(), len, protection, MapFlags::PRIVATE),
            }
        }?;
        let mapping = Self {
            start: start.cast(),
            len,
        };
        if let Memory::AnonymousHuge = memory {
            // SAFETY: the advice changes how the mapping is made up, not what is in it.
            unsafe { rustix::mm::madvise(start, len, Advice::LinuxHugepage) }?;
        }
        Ok(mapping)
    }

    /// Writes to every page.
    fn touch(&mut self) {
        for offset in (0..self.len).step_by(page_size()) {
            // SAFETY: the offset lies within the mapping.
            unsafe { self.start.add(offset).write_volatile(1) };
        }
    }

    fn copy_from(&mut self, source: &Mapping) {
        assert_eq!(self.len, source.len);
        // SAFETY: both mappings have that many bytes and are distinct, and nothing else writes to them.
        unsafe { ptr::copy_nonoverlapping(source.start, self.start, self.len) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing points into it any more.
        unsafe { rustix::mm::munmap(self.start.cast(), self.len) }.expect("a mapping can be unmapped");
    }
}
