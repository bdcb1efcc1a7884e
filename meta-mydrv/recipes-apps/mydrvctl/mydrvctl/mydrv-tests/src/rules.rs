// SPDX-License-Identifier: MIT

//! What each call allows and refuses, and by which errno: mmap, ioctl, and the file operations.

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
    process,
};

use libc::{
    EACCES, EBADF, EFAULT, EINVAL, EIO, ENODEV, ENOSPC, ENOTTY, ENXIO, EOPNOTSUPP, EOVERFLOW, EPERM, ERANGE, EROFS, MAP_PRIVATE,
    MAP_SHARED, MAP_SHARED_VALIDATE, O_RDONLY, O_RDWR, O_WRONLY, PROT_EXEC, PROT_NONE, PROT_WRITE,
};
use mydrv_abi::*;

use crate::{
    device::*,
    sys::{self, Edge, End, Mapping},
};

/// An address where no program has anything: the kernel's.
const KERNEL_ADDRESS: usize = 0xffff_8000_0000_0000;

pub fn mmap(device: &Device) -> Outcome {
    let (page, size) = (sys::page(), device.size());
    // Through a node of our own: a /dev mounted noexec refuses execution by itself, and would hide a driver that does not.
    let node = device.second_node()?;
    let reader = allowed("open the second node", sys::open(&node.0, O_RDONLY))?;
    let shared = |len, prot, offset: usize| sys::mmap(&reader, len, prot, MAP_SHARED, offset as u64);

    allowed("map all", shared(size, R, 0))?;
    allowed("map the last page", shared(page, R, size - page))?;
    allowed("map without any access", shared(page, PROT_NONE, 0))?;
    refused("map nothing", shared(0, R, 0), EINVAL)?;
    refused("map from within a page", shared(page, R, 1), EINVAL)?;
    refused("map one page more than there is", shared(size + page, R, 0), ENXIO)?;
    refused("map all, from the second page on", shared(size, R, page), ENXIO)?;
    refused("map two pages from the last one on", shared(2 * page, R, size - page), ENXIO)?;
    refused("map from the end on", shared(page, R, size), ENXIO)?;
    refused("map from far beyond", shared(page, R, 1 << 46), ENXIO)?;
    refused(
        "map the last page that an offset can name",
        shared(page, R, usize::MAX - 2 * page + 1),
        ENXIO,
    )?;
    refused(
        "map beyond what an offset can name",
        shared(2 * page, R, usize::MAX - page + 1),
        EOVERFLOW,
    )?;

    refused("map privately", sys::mmap(&reader, page, R, MAP_PRIVATE, 0), EINVAL)?;
    refused(
        "map privately, without any access",
        sys::mmap(&reader, page, PROT_NONE, MAP_PRIVATE, 0),
        EINVAL,
    )?;
    refused(
        "map for persistent memory",
        sys::mmap(&reader, page, R, MAP_SHARED_VALIDATE | libc::MAP_SYNC, 0),
        EOPNOTSUPP,
    )?;

    refused("map executable", shared(page, R | PROT_EXEC, 0), EPERM)?;
    refused("map executable only", shared(page, PROT_EXEC, 0), EPERM)?;
    let mapping = allowed("map", shared(2 * page, R, 0))?;
    let protect = |mapping: &Mapping, prot| mapping.on(libc::SYS_mprotect, 0, page, prot);
    refused("make a mapping executable", protect(&mapping, R | PROT_EXEC), EACCES)?;
    let inaccessible = allowed("map", shared(page, PROT_NONE, 0))?;
    refused(
        "make an inaccessible mapping executable",
        protect(&inaccessible, PROT_EXEC),
        EACCES,
    )?;
    allowed("make an inaccessible mapping readable", protect(&inaccessible, R))?;
    let in_old_program = sys::fork(|_| {
        let tried = sys::read_implies_exec().and_then(|_| sys::mmap(&reader, page, R, MAP_SHARED, 0));
        matches!(tried, Err(sys::Errno(EPERM))).into()
    });
    let end = allowed("fork", in_old_program.and_then(sys::Child::wait))?;
    equal("map where readable implies executable, refused in a child", end, End::Exit(1))?;

    refused("map a read-only file writable", shared(page, RW, 0), EACCES)?;
    refused("make a read-only file's mapping writable", protect(&mapping, RW), EACCES)?;
    refused(
        "make a read-only file's mapping write-only",
        protect(&inaccessible, PROT_WRITE),
        EACCES,
    )?;
    if device.is_read_only() {
        for (name, flags) in [
            ("reading and writing", O_RDWR),
            ("writing", O_WRONLY),
            ("neither", O_RDWR | O_WRONLY),
        ] {
            refused(
                format!("open a read-only buffer for {name}"),
                sys::open(&device.path, flags),
                EROFS,
            )?;
        }
    } else {
        let writer = device.open_rw()?;
        let mapping = map(&writer, page, RW, 0)?;
        refused(
            "make a writable mapping executable",
            protect(&mapping, RW | PROT_EXEC),
            EACCES,
        )?;
        allowed("make a writable mapping read-only", protect(&mapping, R))?;
        allowed("make it writable again", protect(&mapping, RW))?;
        allowed("move a mapping to the last page", mapping.remap_file_pages(size / page - 1))?;
        // Last: the kernel has unmapped the old one when the driver refuses.
        refused("move a mapping beyond the end", mapping.remap_file_pages(size / page), ENXIO)?;
        let write_only = device.open(O_WRONLY)?;
        refused(
            "map a file that is open for writing only",
            sys::mmap(&write_only, page, PROT_WRITE, MAP_SHARED, 0),
            EACCES,
        )?;
    }

    let first = map(&reader, page, R, 0)?;
    refused("grow a mapping", first.mremap(page, 2 * page, None), EFAULT)?;
    refused("grow the duplicate of a mapping", first.mremap(0, 2 * page, None), EFAULT)?;
    let last = map(&reader, page, R, size - page)?;
    refused("grow a mapping beyond the end", last.mremap(page, 2 * page, None), EFAULT)?;
    allowed("shrink a mapping", mapping.mremap(2 * page, page, None))?;

    refused(
        "dump a mapping after all",
        first.on(libc::SYS_madvise, 0, page, libc::MADV_DODUMP),
        EINVAL,
    )?;
    refused(
        "drop a mapping's pages",
        first.on(libc::SYS_madvise, 0, page, libc::MADV_DONTNEED),
        EINVAL,
    )?;
    let (_reading, writing) = allowed("pipe", sys::pipe())?;
    refused(
        "lend a mapping's pages to a pipe",
        sys::vmsplice(&writing, first.address, page),
        EFAULT,
    )?;
    let memory = allowed("open /proc/self/mem", sys::open("/proc/self/mem".as_ref(), O_RDONLY))?;
    refused(
        "read a mapping by /proc/self/mem",
        sys::pread(&memory, &mut [0; 8], first.address as i64),
        EIO,
    )?;
    flags_of(&first)?;

    placement(device)
}

/// What the kernel keeps of a mapping of a read-only file.
fn flags_of(mapping: &Mapping) -> Outcome {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let start = format!("{:08x}-", mapping.address);
    let flags = smaps
        .lines()
        .skip_while(|line| !line.starts_with(&start))
        .find_map(|line| line.strip_prefix("VmFlags:"));
    let flags: Vec<&str> = flags.unwrap_or_default().split_whitespace().collect();
    for (flag, wanted, meaning) in [
        ("ms", true, "may be shared"),
        ("pf", true, "is of page frames"),
        ("de", true, "never grows"),
        ("dd", true, "is never dumped"),
        ("mr", true, "may be read"),
        ("mw", false, "may be written later"),
        ("me", false, "may be executed later"),
    ] {
        let verb = if wanted { "" } else { "not " };
        holds(
            format!("a read-only file's mapping: {verb}{meaning} ({flag})"),
            flags.contains(&flag) == wanted,
            &flags,
        )?;
    }
    Ok(())
}

/// Every page of a mapping is the one that its offset names, wherever and with whatever alignment it is mapped.
fn placement(device: &Device) -> Outcome {
    if device.is_read_only() {
        return Ok(());
    }
    let (page, size, block) = (sys::page(), device.size(), 2 << 20);
    let fd = device.open_rw()?;
    for offset in (0..size).step_by(page) {
        let word = TAG + (offset / page) as u64;
        allowed("pwrite", sys::pwrite(&fd, &word.to_ne_bytes(), offset as i64))?;
    }
    let arena = allowed(
        "reserve",
        Mapping::anonymous(size + 2 * block, PROT_NONE, MAP_PRIVATE | libc::MAP_NORESERVE),
    )?;
    let aligned = arena.address.next_multiple_of(block) - arena.address;
    let mut tried = 0;
    for (at, offset, len) in [
        (aligned, 0, size),
        (aligned + page, 0, size),
        (aligned + page, page, size - page),
        (aligned, page, size - page),
        (aligned + block - page, block - page, 2 * page),
        (aligned, block, block),
        (aligned, block - page, block),
        (aligned + 3 * page, 5 * page, block + page),
        (aligned, size - page, page),
    ] {
        if offset + len > size || len == 0 {
            continue;
        }
        for writable_first in [false, true] {
            allowed("map", arena.map_over(at, &fd, len, RW, offset as u64))?;
            for i in (0..len).step_by(page) {
                let expected = TAG + ((offset + i) / page) as u64;
                if writable_first {
                    arena.set(at + i, expected);
                }
                let found = arena.get(at + i);
                if found != expected {
                    return Err(
                        format!("{len:#x} bytes at {offset:#x}, byte {i:#x}: expected {expected:#x}, found {found:#x}").into(),
                    );
                }
            }
            tried += 1;
        }
    }
    holds(
        "mappings show the pages that their offsets name",
        tried >= 4,
        format!("{tried} mappings"),
    )?;

    // A part with another protection, and a hole: the rest stays what it was.
    let mapping = map(&fd, size, RW, 0)?;
    if size >= 2 * block {
        allowed("mprotect", mapping.on(libc::SYS_mprotect, block / 2, page, R))?;
        allowed("munmap", mapping.on(libc::SYS_munmap, block + block / 2, page, 0))?;
        for offset in (0..size).step_by(page).filter(|&offset| offset != block + block / 2) {
            equal_word(&mapping, offset, TAG + (offset / page) as u64)?;
        }
        println!("# a block keeps its data when a page of it is protected or unmapped");
    }
    Ok(())
}

/// USERS counts the files that are open, and those that ever were for writing; a mapping keeps its file open.
fn open_files(device: &Device, reader: &OwnedFd) -> Outcome {
    let before = users(reader)?;
    let second = device.open(O_RDONLY)?;
    let both = users(reader)?;
    equal("open files, one more", both.open_files, before.open_files + 1)?;
    equal(
        "files opened for writing, none of them",
        both.opened_for_writing,
        before.opened_for_writing,
    )?;
    let mapping = map(&second, sys::page(), R, 0)?;
    drop(second);
    equal(
        "open files, one of them by its mapping",
        users(reader)?.open_files,
        both.open_files,
    )?;
    drop(mapping);
    let after = users(reader)?;
    equal("open files, one less", after.open_files, before.open_files)?;
    if !device.is_read_only() {
        drop(device.open(O_RDWR)?);
        let after = users(reader)?;
        equal(
            "files opened for writing, one more",
            after.opened_for_writing,
            before.opened_for_writing + 1,
        )?;
        equal("open files, that one gone", after.open_files, before.open_files)?;
    }
    Ok(())
}

fn equal_word(mapping: &Mapping, offset: usize, expected: u64) -> Outcome {
    let found = mapping.get(offset);
    if found != expected {
        return Err(format!("word at {offset:#x}: expected {expected:#x}, found {found:#x}").into());
    }
    Ok(())
}

pub fn ioctl(device: &Device) -> Outcome {
    let (page, size) = (sys::page() as u64, device.info.size_bytes);
    let reader = device.open(O_RDONLY)?;

    let info = info(&reader)?;
    equal("ABI version", info.abi_version, MYDRV_ABI_VERSION)?;
    holds(
        "the size is in pages",
        info.size_bytes != 0 && info.size_bytes % page == 0,
        info.size_bytes,
    )?;
    open_files(device, &reader)?;
    holds("the label ends", info.label.contains(&0), info.label)?;
    holds(
        "root sees addresses",
        info.flags & MYDRV_FLAG_ADDRESSES != 0 && info.physical_address != 0,
        info.physical_address,
    )?;
    if info.flags & MYDRV_FLAG_RESERVED != 0 {
        let end = info.physical_address.checked_add(size);
        let inside = info.physical_address >= info.region_base && end <= info.region_base.checked_add(info.region_size_bytes);
        holds(
            "the buffer lies within its region",
            inside,
            (info.region_base, info.region_size_bytes, info.physical_address),
        )?;
    }
    let unprivileged = sys::fork(|_| {
        let Ok(()) = sys::become_nobody() else { return 2 };
        let Ok(info) = try_info(&reader) else { return 3 };
        let addresses = info.dma_address | info.physical_address | info.region_base;
        (addresses != 0 || info.flags & MYDRV_FLAG_ADDRESSES != 0).into()
    });
    let end = allowed("fork", unprivileged.and_then(sys::Child::wait))?;
    equal("without CAP_SYS_RAWIO no address is told", end, End::Exit(0))?;

    refused("INFO to address 0", sys::ioctl_at(&reader, MYDRV_IOC_INFO, 0), EFAULT)?;
    refused(
        "INFO to the kernel's memory",
        sys::ioctl_at(&reader, MYDRV_IOC_INFO, KERNEL_ADDRESS),
        EFAULT,
    )?;
    let edge = allowed("two pages", Edge::new())?;
    refused(
        "INFO across the end of memory",
        sys::ioctl_at(&reader, MYDRV_IOC_INFO, edge.before(8)),
        EFAULT,
    )?;
    refused("SYNC from address 0", sys::ioctl_at(&reader, MYDRV_IOC_SYNC, 0), EFAULT)?;
    refused(
        "SYNC from across the end of memory",
        sys::ioctl_at(&reader, MYDRV_IOC_SYNC, edge.before(8)),
        EFAULT,
    )?;

    let mut room = [0u64; 2048];
    let unknown = (2..=0xff).map(|number| 0xd800 | number).chain([
        MYDRV_IOC_INFO & 0xffff,
        MYDRV_IOC_INFO + (8 << 16),
        MYDRV_IOC_INFO - (8 << 16),
        MYDRV_IOC_INFO | 1 << 30,
        MYDRV_IOC_INFO ^ 3 << 30,
        MYDRV_IOC_SYNC | 2 << 30,
        MYDRV_IOC_SYNC + (8 << 16),
        MYDRV_IOC_INFO ^ 1 << 8,
        0xc010_d802,
    ]);
    let mut count = 0;
    for command in unknown {
        let answer = sys::ioctl(&reader, command, &mut room);
        if answer != Err(sys::Errno(ENOTTY)) {
            return Err(format!("ioctl {command:#x}: expected {}, found {answer:?}", sys::Errno(ENOTTY)).into());
        }
        count += 1;
    }
    holds("unknown ioctls answer ENOTTY", count > 254, count)?;
    holds("and write nothing", room.iter().all(|&word| word == 0), "zeros")?;

    let (to, from) = (MYDRV_SYNC_TO_DEVICE, MYDRV_SYNC_FROM_DEVICE);
    let writable = !device.is_read_only();
    let fd = if writable { device.open_rw()? } else { device.open(O_RDONLY)? };
    for (offset, length) in [(0, 1), (0, size), (size - 1, 1), (1, size - 1), (page - 1, 2)] {
        for direction in [to, from] {
            allowed(
                format!("SYNC {direction} of {length:#x} at {offset:#x}"),
                try_sync(&fd, direction, offset, length),
            )?;
        }
    }
    for (offset, length) in [
        (0, size + 1),
        (size, 1),
        (1, size),
        (size + 1, 1),
        (u64::MAX, 1),
        (1, u64::MAX),
        (u64::MAX, u64::MAX),
        (u64::MAX - page + 1, 2 * page),
        (1 << 63, 1 << 63),
        (size - 1, u64::MAX - size + 2),
    ] {
        refused(
            format!("SYNC of {length:#x} at {offset:#x}"),
            try_sync(&fd, to, offset, length),
            ERANGE,
        )?;
    }
    for direction in [0, to | from, 4, u32::MAX] {
        refused(
            format!("SYNC of direction {direction:#x}"),
            try_sync(&fd, direction, 0, page),
            EINVAL,
        )?;
    }
    for offset in [0, size - 1, size] {
        refused(
            format!("SYNC of nothing at {offset:#x}"),
            try_sync(&fd, to, offset, 0),
            EINVAL,
        )?;
    }
    let mut reserved = MydrvSync {
        offset: 0,
        length: page,
        direction: to,
        reserved: 1,
    };
    refused(
        "SYNC with a reserved bit",
        sys::ioctl(&fd, MYDRV_IOC_SYNC, &mut reserved),
        EINVAL,
    )?;
    if writable {
        allowed("SYNC to the device by a reader", try_sync(&reader, to, 0, page))?;
        refused("SYNC from the device by a reader", try_sync(&reader, from, 0, page), EBADF)?;
    }
    Ok(())
}

pub fn file(device: &Device) -> Outcome {
    let size = device.size() as i64;
    let reader = device.open(O_RDONLY)?;
    let lseek = |offset: i64, whence| sys::on_file(libc::SYS_lseek, &reader, offset as usize, whence as usize, 0);

    equal(
        "read before the end is short",
        allowed("pread", sys::pread(&reader, &mut [1; 64], size - 16))?,
        16,
    )?;
    equal(
        "read at the end gives nothing",
        allowed("pread", sys::pread(&reader, &mut [1; 64], size))?,
        0,
    )?;
    equal(
        "read far beyond gives nothing",
        allowed("pread", sys::pread(&reader, &mut [1; 64], i64::MAX - 64))?,
        0,
    )?;
    refused("read before the start", sys::pread(&reader, &mut [1; 64], -1), EINVAL)?;
    refused("write through a reader", sys::pwrite(&reader, &[0], 0), EBADF)?;
    refused(
        "read to the kernel's memory",
        sys::read_to(&reader, KERNEL_ADDRESS, 8),
        EFAULT,
    )?;
    let edge = allowed("two pages", Edge::new())?;
    // How much of it is the architecture's matter.
    let moved = allowed("read", sys::read_to(&reader, edge.before(8), 64))?;
    holds("read across the end of memory is short", (1..=8).contains(&moved), moved)?;
    equal("and moves as far", allowed("lseek", lseek(0, libc::SEEK_CUR))?, moved)?;

    equal("seek to the end", allowed("lseek", lseek(0, libc::SEEK_END))?, size as usize)?;
    equal("read there", allowed("read", sys::read(&reader, &mut [1; 8]))?, 0)?;
    equal("seek back", allowed("lseek", lseek(-8, libc::SEEK_CUR))?, size as usize - 8)?;
    equal("read there", allowed("read", sys::read(&reader, &mut [1; 16]))?, 8)?;
    for (what, offset, whence) in [
        ("before the start", -1, libc::SEEK_SET),
        ("beyond the end", size + 1, libc::SEEK_SET),
        ("beyond the end, from there", 1, libc::SEEK_END),
        ("as far as numbers go", i64::MAX, libc::SEEK_END),
        ("by unknown means", 0, 99),
    ] {
        refused(format!("seek {what}"), lseek(offset, whence), EINVAL)?;
    }
    for (what, number, errno) in [
        ("truncate", libc::SYS_ftruncate, EINVAL),
        ("allocate space for", libc::SYS_fallocate, EBADF),
        ("flush", libc::SYS_fsync, EINVAL),
    ] {
        refused(format!("{what} the device"), sys::on_file(number, &reader, 0, 0, 4096), errno)?;
    }
    refused(
        "open for direct I/O",
        sys::open(&device.path, O_RDONLY | libc::O_DIRECT),
        EINVAL,
    )?;

    let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{}", reader.as_raw_fd())).unwrap_or_default();
    let mode = ["coherent", "write-combine", "cached"][device.info.cache_mode as usize];
    for line in [format!("mydrv-size-bytes:\t{size}"), format!("mydrv-cache-mode:\t{mode}")] {
        holds(
            format!("fdinfo has {line:?}"),
            fdinfo.lines().any(|found| found == line),
            &fdinfo,
        )?;
    }
    holds("fdinfo has the flags", fdinfo.contains("\nmydrv-flags:\t0x"), &fdinfo)?;
    holds(
        "fdinfo has no address",
        !fdinfo.contains(&format!("{:x}", device.info.physical_address)),
        "none",
    )?;

    if device.is_read_only() {
        return Ok(());
    }
    let writer = device.open_rw()?;
    let page = sys::page();
    let tail = device.size().min(3 * page);
    let pattern: Vec<u8> = (0..tail - page + 7).map(|i| (i * 7 % 251) as u8).collect();
    let offset = size - pattern.len() as i64 - 3;
    equal(
        "write across pages",
        allowed("pwrite", sys::pwrite(&writer, &pattern, offset))?,
        pattern.len(),
    )?;
    let mut back = vec![0; pattern.len()];
    equal(
        "read across pages",
        allowed("pread", sys::pread(&writer, &mut back, offset))?,
        pattern.len(),
    )?;
    holds("what was written is read back", back == pattern, pattern.len())?;
    let mapping = map(&writer, tail, R, device.size() - tail)?;
    let first = (offset as usize).next_multiple_of(8);
    let word = mapping.get(first - (device.size() - tail));
    let at = first - offset as usize;
    equal("a mapping shows it too", word.to_ne_bytes().as_slice(), &pattern[at..at + 8])?;
    equal(
        "write before the end is short",
        allowed("pwrite", sys::pwrite(&writer, &[0; 64], size - 16))?,
        16,
    )?;
    refused("write at the end", sys::pwrite(&writer, &[0; 8], size), ENOSPC)?;
    refused("write far beyond", sys::pwrite(&writer, &[0; 8], i64::MAX - 64), ENOSPC)?;
    refused("write from address 0", sys::write_from(&writer, 0, 8), EFAULT)?;
    let moved = allowed("write", sys::write_from(&writer, edge.before(8), 64))?;
    holds(
        "write from across the end of memory is short",
        (1..=8).contains(&moved),
        moved,
    )?;
    equal("write nothing", allowed("pwrite", sys::pwrite(&writer, &[], size))?, 0)?;
    refused(
        "allocate space for the device",
        sys::on_file(libc::SYS_fallocate, &writer, 0, 0, 4096),
        ENODEV,
    )?;
    let write_only = device.open(O_WRONLY)?;
    refused("read through a writer", sys::pread(&write_only, &mut [0], 0), EBADF)?;

    // From the device's own mapping: a copy whose source page is not there yet faults while the driver runs.
    let source = map(&writer, page, R, 0)?;
    let target = device.open_rw()?;
    equal(
        "write the buffer into itself",
        allowed("write", sys::write_from(&target, source.address, page))?,
        page,
    )?;
    let target = map(&writer, page, RW, device.size() - page)?;
    equal(
        "read the buffer into itself",
        allowed("read", sys::read_to(&device.open_rw()?, target.address, page))?,
        page,
    )
}

/// A child with a mapping dies, and leaves a core dump that shows its own memory but not the buffer.
pub fn core_dump(device: &Device) -> Outcome {
    const PATTERN: &str = "/proc/sys/kernel/core_pattern";
    const OURS: u64 = 0x6f75_7273_6f75_7273;
    device.needs_writable()?;
    let name = |error: std::io::Error| format!("{PATTERN}: {error}");
    let before = fs::read_to_string(PATTERN).map_err(name)?;
    let core = format!("/var/tmp/mydrv-tests-core.{}", process::id());
    fs::write(PATTERN, &core).map_err(name)?;
    let pages = 4 * sys::page();
    let dumped = (|| {
        let fd = device.open_rw()?;
        let child = sys::fork(|_| {
            let Ok(own) = Mapping::anonymous(pages, RW, MAP_PRIVATE) else {
                return 2;
            };
            let Ok(buffer) = sys::mmap(&fd, pages.min(device.size()), RW, MAP_SHARED, 0) else {
                return 3;
            };
            (0..own.len).step_by(8).for_each(|at| own.set(at, OURS));
            (0..buffer.len).step_by(8).for_each(|at| buffer.set(at, TAG));
            let Ok(()) = sys::allow_core_dumps() else { return 4 };
            sys::abort()
        });
        let end = allowed("fork", child.and_then(sys::Child::wait))?;
        equal("the child dies", end, End::Signal(libc::SIGABRT))?;
        fs::read(&core).map_err(|error| Broken::Promise(format!("{core}: {error}")))
    })();
    fs::write(PATTERN, before).map_err(name)?;
    let _ = fs::remove_file(&core);
    let dump = dumped?;
    // Single ones may be in registers and on the stack.
    let count = |word: u64| dump.chunks_exact(8).filter(|found| *found == word.to_ne_bytes()).count();
    holds(
        "the core dump has the process's own memory",
        count(OURS) >= pages / 8,
        count(OURS),
    )?;
    holds("the core dump has nothing of the buffer", count(TAG) < 64, count(TAG))
}
