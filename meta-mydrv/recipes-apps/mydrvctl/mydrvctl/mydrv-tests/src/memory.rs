// SPDX-License-Identifier: MIT

//! What mappings cost, and when the memory is zeroed.

use std::{os::fd::OwnedFd, path::Path};

use libc::{MAP_PRIVATE, MAP_SHARED, O_RDONLY, PROT_NONE};
use mydrv_abi::*;

use crate::{
    device::*,
    sys::{self, Mapping},
};

/// What one block entry of the page tables maps.
const BLOCK: usize = 2 << 20;

/// Each 2 MiB cost one fault, however they are accessed, and a second access none. By the kernel's own counters, not by time.
pub fn faults(device: &Device) -> Outcome {
    let (page, size) = (sys::page(), device.size());
    let writable = !device.is_read_only();
    let (fd, prot) = if writable {
        (device.open_rw()?, RW)
    } else {
        (device.open(O_RDONLY)?, R)
    };
    let arena = allowed(
        "reserve",
        Mapping::anonymous(size + 3 * BLOCK, PROT_NONE, MAP_PRIVATE | libc::MAP_NORESERVE),
    )?;
    let aligned = arena.address.next_multiple_of(BLOCK) - arena.address;
    // The kernel's own choice of address should suit blocks; these are ours: fitting, and off by one page.
    for (name, at, offset, len) in [
        ("all, aligned", aligned, 0, size),
        ("all, off by a page", aligned + page, 0, size),
        (
            "a part within 2 MiB",
            aligned + 8 * page,
            4 * page,
            (64 * page).min(size.saturating_sub(4 * page)),
        ),
        ("a page", aligned, 0, page),
    ] {
        for write_first in [false, true] {
            if write_first && !writable || len == 0 {
                continue;
            }
            allowed("map", arena.map_over(at, &fd, len, prot, offset as u64))?;
            let start = arena.address + at;
            let blocks = ((start + len).div_ceil(BLOCK) - start / BLOCK) as u64;
            let touch = |write: bool| {
                let before = sys::faults();
                for i in (0..len).step_by(page) {
                    if write {
                        arena.set(at + i, TAG);
                    } else {
                        arena.touch(at + i);
                    }
                }
                sys::faults() - before
            };
            let first = touch(write_first);
            let how = if write_first { "written" } else { "read" };
            holds(
                format!("{name}, {how}: at most a fault for each of {blocks} x 2 MiB"),
                (1..=blocks + 2).contains(&first),
                first,
            )?;
            let again = touch(false) + if writable { touch(true) } else { 0 };
            // One may be the program's own.
            holds(format!("{name}, {how}: no fault by the second touch"), again <= 1, again)?;
        }
    }
    child_faults(&arena, &fd, prot, aligned + page, size)?;
    drop(arena);

    if size < 8 * BLOCK || !device.info.physical_address.is_multiple_of(BLOCK as u64) {
        println!("# note: the buffer is smaller than 8 blocks, or not aligned to 2 MiB: no blocks to be seen");
        return Ok(());
    }
    let mapping = map(&fd, size, prot, 0)?;
    // Only with CONFIG_TRANSPARENT_HUGEPAGE is there a folder for its settings, and can the driver make block entries.
    let huge_pages = Path::new("/sys/kernel/mm/transparent_hugepage").exists();
    if huge_pages {
        holds(
            "the kernel places a large mapping for blocks",
            mapping.address % BLOCK == 0,
            mapping.address,
        )?;
    }
    let before = sys::page_table_kib();
    for i in (0..size).step_by(page) {
        mapping.touch(i);
    }
    let tables = sys::page_table_kib() - before;
    let small = (size / BLOCK * 4) as u64;
    if huge_pages {
        holds(
            format!("blocks take no page tables (pages would take {small} KiB)"),
            tables < small / 2,
            tables,
        )
    } else {
        holds(
            format!("a kernel without huge pages maps by pages: {small} KiB of tables"),
            tables >= small,
            tables,
        )
    }
}

/// Fork copies no page table entries: a copy is made without the driver's lock, and could outlive a revocation. So the child's touch fills them by
/// blocks, as its parent's did. Copies would not fault at all, or page by page where the processor does not mark them as accessed itself; hence a
/// mapping of pages, off by one.
fn child_faults(arena: &Mapping, fd: &OwnedFd, prot: i32, at: usize, size: usize) -> Outcome {
    // So much that an exit status can count the faults.
    let (page, size) = (sys::page(), size.min(64 * BLOCK));
    allowed("map", arena.map_over(at, fd, size, prot, 0))?;
    let touch_all = || (0..size).step_by(page).for_each(|i| arena.touch(at + i));
    touch_all();
    let child = sys::fork(|_| {
        // The first call may fault on what the child shares with its parent.
        sys::faults();
        let before = sys::faults();
        touch_all();
        (sys::faults() - before).min(255) as i32
    });
    let end = allowed("wait", allowed("fork", child)?.wait())?;
    let start = arena.address + at;
    let blocks = ((start + size).div_ceil(BLOCK) - start / BLOCK) as i32;
    holds(
        format!("a child's first touch: a fault for each of {blocks} x 2 MiB"),
        matches!(end, sys::End::Exit(faults) if (blocks..=blocks + 2).contains(&faults)),
        end,
    )
}

/// With `mydrv,scrub`, the last close zeroes; a mapping and a second file keep the data.
pub fn scrub(device: &Device) -> Outcome {
    let (page, size) = (sys::page(), device.size());
    if !device.has(MYDRV_FLAG_SCRUB) {
        return Err(Broken::Skip(
            "the device tree does not ask for scrubbing (mydrv,scrub)".into(),
        ));
    }
    let places = [0, size / 2 / page * page, size - 8];
    let zero = |fd: &OwnedFd| -> Outcome<bool> {
        let mapping = map(fd, size, R, 0)?;
        Ok((0..size).step_by(8).all(|at| mapping.get(at) == 0))
    };

    let fd = device.open_rw()?;
    let mapping = map(&fd, size, RW, 0)?;
    for at in places {
        mapping.set(at, TAG);
    }
    drop(fd);
    let second = device.open(O_RDONLY)?;
    equal("data stays as long as it is mapped", map(&second, page, R, 0)?.get(0), TAG)?;
    drop(mapping);
    equal(
        "data stays as long as another file is open",
        map(&second, page, R, 0)?.get(0),
        TAG,
    )?;
    equal("and is not called pristine", info(&second)?.flags & MYDRV_FLAG_PRISTINE, 0)?;
    drop(second);

    let reader = device.open(O_RDONLY)?;
    equal(
        "after the last close it is pristine",
        info(&reader)?.flags & MYDRV_FLAG_PRISTINE,
        MYDRV_FLAG_PRISTINE,
    )?;
    holds("after the last close all is zero", zero(&reader)?, size)?;
    let writer = device.open_rw()?;
    equal(
        "open for writing, it is not pristine",
        info(&reader)?.flags & MYDRV_FLAG_PRISTINE,
        0,
    )?;
    allowed("pwrite", sys::pwrite(&writer, &[1; 64], (size - 64) as i64))?;
    drop((reader, writer));

    // The last user is a child that dies with the file and a mapping.
    let fd = device.open_rw()?;
    let child = sys::fork(|line| {
        let Ok(mapping) = sys::mmap(&fd, size, RW, MAP_SHARED, 0) else {
            return 1;
        };
        mapping.set(0, TAG);
        line.meet();
        0
    });
    let mut child = allowed("fork", child)?;
    child.hear();
    drop(fd);
    child.tell();
    allowed("wait", child.wait())?;
    holds(
        "after the last user's death all is zero",
        zero(&device.open(O_RDONLY)?)?,
        size,
    )
}
