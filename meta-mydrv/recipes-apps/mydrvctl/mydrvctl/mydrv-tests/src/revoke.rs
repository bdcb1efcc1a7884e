// SPDX-License-Identifier: MIT

//! Unbind while files are open and mappings live, in every way that a mapping can come about.

use std::{fs, os::fd::AsRawFd};

use libc::{ENODEV, ENOENT, MAP_PRIVATE, MAP_SHARED, O_RDONLY, O_RDWR, PROT_NONE, SIGBUS};
use mydrv_abi::*;

use crate::{
    device::*,
    sys::{self, Child, End, Mapping},
};

/// Bytes between the places that are looked at: every 2 MiB block, and pages within it.
const STRIDE: usize = (1 << 20) - 4096;

/// The places of a mapping to look at, its last word among them.
fn places(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(STRIDE).chain([len - 8])
}

fn reachable(mapping: &Mapping) -> usize {
    places(mapping.len).filter(|&at| mapping.readable(at)).count()
}

/// A child that waits for the revocation, then uses the device's memory as `access` does, and should die of it.
fn victim(name: &'static str, access: impl FnOnce(&mut sys::Line)) -> Outcome<(&'static str, Child)> {
    let child = sys::fork(|line| {
        access(line);
        0
    });
    let mut child = allowed("fork", child)?;
    holds(format!("{name}: ready"), child.hear(), child.pid)?;
    Ok((name, child))
}

/// Maps all of `path` and touches it.
fn touched(path: &std::path::Path, flags: i32) -> Mapping {
    let prot = if flags == O_RDWR { RW } else { R };
    let mapping = sys::open(path, flags).and_then(|fd| {
        let len = try_info(&fd)?.size_bytes as usize;
        sys::mmap(&fd, len, prot, MAP_SHARED, 0)
    });
    let mapping = mapping.unwrap_or_else(|errno| panic!("{}: {errno}", path.display()));
    places(mapping.len).for_each(|at| mapping.touch(at));
    mapping
}

pub fn revoke(device: &Device) -> Outcome {
    let (page, size) = (sys::page(), device.size());
    let flags = if device.is_read_only() { O_RDONLY } else { O_RDWR };
    let prot = if flags == O_RDWR { RW } else { R };
    let fd = device.open(flags)?;
    let node = device.second_node()?;

    // In this process: each way to come to a mapping.
    let whole = map(&fd, size, prot, 0)?;
    let untouched = map(&fd, size, prot, 0)?;
    let inaccessible = map(&fd, page, PROT_NONE, 0)?;
    let last = map(&fd, page, prot, size - page)?;
    let split = map(&fd, size, prot, 0)?;
    let by_second_node = touched(&node.0, flags);
    let moved = {
        let to = allowed(
            "reserve",
            Mapping::anonymous(size, PROT_NONE, MAP_PRIVATE | libc::MAP_NORESERVE),
        )?;
        let from = std::mem::ManuallyDrop::new(touched(&device.path, flags));
        allowed("move a mapping", from.mremap(size, size, Some(&to)))?;
        to
    };
    for mapping in [&whole, &last, &split, &moved] {
        equal("reachable before", reachable(mapping), places(mapping.len).count())?;
    }
    if flags == O_RDWR {
        places(size).for_each(|at| whole.set(at, TAG));
    }
    if size >= 4 * page {
        allowed("split a mapping", split.on(libc::SYS_mprotect, page, page, R))?;
        allowed("split it further", split.on(libc::SYS_munmap, 2 * page, page, 0))?;
    }

    // In other processes: inherited, made by themselves, by the second node, inherited but touched only afterwards, and by a grandchild.
    let mut victims = vec![
        victim("a child with an inherited mapping", |line| {
            places(size).for_each(|at| whole.touch(at));
            line.meet();
            whole.touch(size / 2 / page * page);
        })?,
        victim("a child with an inherited mapping that it never touched", |line| {
            line.meet();
            whole.touch(0);
        })?,
        victim("a process with its own mapping", |line| {
            let mapping = touched(&device.path, flags);
            line.meet();
            mapping.touch(0);
        })?,
        victim("a process that reads by the second node", |line| {
            let mapping = touched(&node.0, O_RDONLY);
            line.meet();
            mapping.touch(mapping.len - page);
        })?,
        victim("a grandchild", |line| {
            let mapping = touched(&device.path, flags);
            let grandchild = sys::fork(|_| {
                mapping.touch(0);
                line.meet();
                mapping.touch(0);
                0
            });
            if grandchild.and_then(Child::wait) == Ok(End::Signal(SIGBUS)) {
                mapping.touch(page);
            }
        })?,
    ];
    if flags == O_RDWR {
        victims.push(victim("a process that writes", |line| {
            let mapping = touched(&device.path, flags);
            line.meet();
            mapping.set(0, TAG);
        })?);
    }

    device.unbind()?;

    for (name, mapping) in [
        ("a touched mapping", &whole),
        ("an untouched mapping", &untouched),
        ("the last page", &last),
        ("a split mapping", &split),
        ("a moved mapping", &moved),
        ("a mapping by the second node", &by_second_node),
    ] {
        equal(format!("{name}: places within reach"), reachable(mapping), 0)?;
    }
    allowed(
        "make an inaccessible mapping readable",
        inaccessible.on(libc::SYS_mprotect, 0, page, R),
    )?;
    equal("it shows nothing", inaccessible.readable(0), false)?;
    for (name, mut child) in victims {
        child.tell();
        equal(
            format!("{name} dies of SIGBUS"),
            allowed("wait", child.wait())?,
            End::Signal(SIGBUS),
        )?;
    }

    gone(&fd)?;
    refused("open the second node", sys::open(&node.0, O_RDONLY), ENODEV)?;
    refused("open the device", sys::open(&device.path, O_RDONLY), ENOENT)?;

    device.bind()?;

    gone(&fd)?;
    equal(
        "after binding again, an old mapping's places within reach",
        reachable(&whole),
        0,
    )?;
    drop(fd);
    drop((whole, untouched, inaccessible, last, split, moved, by_second_node));
    works(device)
}

/// Every call on a file whose device is gone answers ENODEV, and close works.
fn gone(fd: &impl AsRawFd) -> Outcome {
    let page = sys::page();
    refused("INFO on a file of a gone device", try_info(fd), ENODEV)?;
    refused("SYNC", try_sync(fd, MYDRV_SYNC_TO_DEVICE, 0, 1), ENODEV)?;
    refused("read", sys::read(fd, &mut [0; 8]), ENODEV)?;
    refused("pread", sys::pread(fd, &mut [0; 8], 0), ENODEV)?;
    refused(
        "lseek",
        sys::on_file(libc::SYS_lseek, fd, 0, libc::SEEK_SET as usize, 0),
        ENODEV,
    )?;
    refused("mmap", sys::mmap(fd, page, R, MAP_SHARED, 0), ENODEV)?;
    let writes = sys::pwrite(fd, &[0; 8], 0);
    if writes != Err(sys::Errno(libc::EBADF)) {
        refused("pwrite", writes, ENODEV)?;
        refused("write", sys::write(fd, &[0; 8]), ENODEV)?;
    }
    let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap_or_default();
    holds("fdinfo tells that it is gone", fdinfo.contains("mydrv-gone:\t1"), fdinfo)
}

/// A newly bound device is as new: zeroed, pristine, usable.
fn works(device: &Device) -> Outcome {
    let now = Device::find(&device.path)?;
    equal("the same size as before", now.info.size_bytes, device.info.size_bytes)?;
    holds(
        "the same label as before",
        now.info.label == device.info.label,
        String::from_utf8_lossy(&now.info.label).trim_end_matches('\0'),
    )?;
    let fd = now.open(O_RDONLY)?;
    let mapping = map(&fd, now.size(), R, 0)?;
    // Another program may have opened it in between, for the boot's check.
    if info(&fd)?.flags & MYDRV_FLAG_PRISTINE != 0 {
        holds(
            "it is zeroed",
            (0..now.size()).step_by(8).all(|at| mapping.get(at) == 0),
            now.size(),
        )?;
    }
    if !now.is_read_only() {
        let writer = now.open_rw()?;
        allowed("pwrite", sys::pwrite(&writer, &TAG.to_ne_bytes(), 0))?;
        equal("what is written is seen", mapping.get(0), TAG)?;
    }
    Ok(())
}

/// Opens and maps the device, says so, and stays until killed.
pub fn hold(device: &Device) -> Outcome {
    let fd = device.open(O_RDONLY)?;
    let mapping = map(&fd, device.size(), R, 0)?;
    holds("holding", mapping.readable(0), device.path.display())?;
    loop {
        std::thread::park();
    }
}
