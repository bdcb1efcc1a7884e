// SPDX-License-Identifier: MIT

//! What the driver must not allow, each tried for real. A probe that is let through fails its check, and undoes what it got.

use std::{ffi::c_void, ops::ControlFlow, os::fd::AsFd, ptr};

use mydrv::{
    Device,
    abi::{MYDRV_IOC_SYNC, MYDRV_SYNC_FROM_DEVICE, MydrvSync},
};
use rustix::{
    fs::{Mode, OFlags, SeekFrom},
    io::Errno,
    ioctl,
    mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags},
};

use super::report::{Problem, Report, Spec, fail};

/// What a probe got: an error, or a word for what it was allowed.
type Answer = Result<&'static str, Errno>;

/// Which file a probe goes through.
#[derive(Clone, Copy)]
enum Through {
    /// One open for reading only.
    Reader,
    /// One open for writing; skipped on a read-only buffer.
    Writer,
    /// One open for writing, or for reading if the buffer is read-only.
    Either,
    /// One open for reading only, of a read-only buffer; skipped on others.
    ReadOnlyBuffer,
    /// One open for reading only, of a buffer that others may write; skipped on read-only ones.
    WritableBuffer,
}

pub struct Refusal {
    pub id: &'static str,
    pub title: &'static str,
    expected: &'static [Errno],
    through: Through,
    probe: fn(&Device) -> Answer,
}

/// The promises, in the order of the driver's ABI documentation.
pub const REFUSALS: &[Refusal] = &[
    Refusal {
        id: "refuse-map-private",
        title: "a private mapping is refused",
        expected: &[Errno::INVAL],
        through: Through::Reader,
        probe: |device| map(device, page(), ProtFlags::READ, MapFlags::PRIVATE, 0),
    },
    Refusal {
        id: "refuse-map-exec",
        title: "an executable mapping is refused",
        expected: &[Errno::PERM],
        through: Through::Reader,
        probe: |device| map(device, page(), ProtFlags::READ | ProtFlags::EXEC, MapFlags::SHARED, 0),
    },
    Refusal {
        id: "refuse-exec-later",
        title: "a mapping never becomes executable",
        expected: &[Errno::ACCESS],
        through: Through::Reader,
        probe: |device| protect(device, MprotectFlags::READ | MprotectFlags::EXEC),
    },
    Refusal {
        id: "refuse-map-write",
        title: "a read-only file gives no writable mapping",
        expected: &[Errno::ACCESS],
        through: Through::Reader,
        probe: |device| map(device, page(), ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, 0),
    },
    Refusal {
        id: "refuse-write-later",
        title: "a read-only file's mapping never becomes writable",
        expected: &[Errno::ACCESS],
        through: Through::Reader,
        probe: |device| protect(device, MprotectFlags::READ | MprotectFlags::WRITE),
    },
    Refusal {
        id: "refuse-open-write",
        title: "a read-only buffer does not open for writing",
        expected: &[Errno::ROFS],
        through: Through::ReadOnlyBuffer,
        probe: |device| rustix::fs::open(device.path(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(|_| "opened"),
    },
    Refusal {
        id: "refuse-map-beyond",
        title: "a mapping beyond the end is refused",
        expected: &[Errno::NXIO],
        through: Through::Reader,
        probe: |device| {
            map(
                device,
                2 * page(),
                ProtFlags::READ,
                MapFlags::SHARED,
                device.size_bytes() - page() as u64,
            )
        },
    },
    Refusal {
        id: "refuse-map-outside",
        title: "a mapping that starts at the end is refused",
        expected: &[Errno::NXIO],
        through: Through::Reader,
        probe: |device| map(device, page(), ProtFlags::READ, MapFlags::SHARED, device.size_bytes()),
    },
    Refusal {
        id: "refuse-map-unaligned",
        title: "a mapping within a page is refused",
        expected: &[Errno::INVAL],
        through: Through::Reader,
        probe: |device| map(device, page(), ProtFlags::READ, MapFlags::SHARED, 1),
    },
    Refusal {
        id: "refuse-map-overflow",
        title: "an offset that overflows is refused",
        expected: &[Errno::OVERFLOW, Errno::NXIO],
        through: Through::Reader,
        probe: |device| {
            map(
                device,
                2 * page(),
                ProtFlags::READ,
                MapFlags::SHARED,
                u64::MAX - page() as u64 + 1,
            )
        },
    },
    Refusal {
        id: "refuse-grow",
        title: "a mapping never grows",
        expected: &[Errno::FAULT],
        through: Through::Reader,
        probe: grow,
    },
    Refusal {
        id: "refuse-ioctl",
        title: "an unknown ioctl is refused",
        expected: &[Errno::NOTTY],
        through: Through::Reader,
        probe: |device| {
            // SAFETY: _IO(0xD8, 0xFF) takes no argument, and no ABI version uses the number.
            unsafe { ioctl::ioctl(device, ioctl::NoArg::<0xd8ff>::new()) }.map(|()| "accepted")
        },
    },
    Refusal {
        id: "refuse-sync-direction",
        title: "a sync of unknown direction is refused",
        expected: &[Errno::INVAL],
        through: Through::Either,
        probe: |device| {
            sync(
                device,
                MydrvSync {
                    direction: 4,
                    ..whole_page()
                },
            )
        },
    },
    Refusal {
        id: "refuse-sync-empty",
        title: "a sync of nothing is refused",
        expected: &[Errno::INVAL],
        through: Through::Either,
        probe: |device| {
            sync(
                device,
                MydrvSync {
                    length: 0,
                    ..whole_page()
                },
            )
        },
    },
    Refusal {
        id: "refuse-sync-reserved",
        title: "a sync with reserved bits is refused",
        expected: &[Errno::INVAL],
        through: Through::Either,
        probe: |device| {
            sync(
                device,
                MydrvSync {
                    reserved: 1,
                    ..whole_page()
                },
            )
        },
    },
    Refusal {
        id: "refuse-sync-beyond",
        title: "a sync beyond the end is refused",
        expected: &[Errno::RANGE],
        through: Through::Either,
        probe: |device| {
            sync(
                device,
                MydrvSync {
                    offset: device.size_bytes() - 1,
                    length: 2,
                    ..whole_page()
                },
            )
        },
    },
    Refusal {
        id: "refuse-sync-overflow",
        title: "a sync whose end overflows is refused",
        expected: &[Errno::RANGE],
        through: Through::Either,
        probe: |device| {
            sync(
                device,
                MydrvSync {
                    offset: 1,
                    length: u64::MAX,
                    ..whole_page()
                },
            )
        },
    },
    Refusal {
        id: "refuse-sync-reader",
        title: "a read-only file does not discard others' data",
        expected: &[Errno::BADF],
        through: Through::WritableBuffer,
        probe: |device| sync(device, whole_page()),
    },
    Refusal {
        id: "refuse-seek-beyond",
        title: "a seek beyond the end is refused",
        expected: &[Errno::INVAL],
        through: Through::Reader,
        probe: |device| rustix::fs::seek(device, SeekFrom::Start(device.size_bytes() + 1)).map(|_| "accepted"),
    },
    Refusal {
        id: "refuse-write-at-end",
        title: "a write at the end is refused",
        expected: &[Errno::NOSPC],
        through: Through::Writer,
        probe: |device| rustix::io::pwrite(device, &[0], device.size_bytes()).map(|_| "accepted"),
    },
];

/// Tries them all; `reader` and `writer` are the names of the checks that opened the files, and the files.
pub fn check(report: &mut Report, reader: (&'static str, Option<&Device>), writer: (&'static str, Option<&Device>)) {
    for refusal in REFUSALS {
        let expected = refusal
            .expected
            .iter()
            .map(|&errno| name(errno))
            .collect::<Vec<_>>()
            .join(" or ");
        report.check(
            Spec {
                id: refusal.id,
                expected,
                on: reader,
            },
            |reader| {
                let device = match choose(refusal.through, reader, writer)? {
                    ControlFlow::Continue(device) => device,
                    ControlFlow::Break(problem) => return Err(problem),
                };
                match (refusal.probe)(device) {
                    Err(errno) if refusal.expected.contains(&errno) => Ok((name(errno), ())),
                    Err(errno) => fail(
                        name(errno),
                        "update the module mydrv: applications may rely on the documented error",
                    ),
                    Ok(allowed) => fail(allowed, "update the module mydrv: it allows what it must refuse"),
                }
            },
        );
    }
    report.check(
        Spec {
            id: "read-at-end",
            expected: "0 bytes".into(),
            on: reader,
        },
        |reader| match rustix::io::pread(reader, &mut [0], reader.size_bytes()) {
            Ok(0) => Ok(("0 bytes".into(), ())),
            Ok(count) => fail(
                format!("{count} bytes"),
                "update the module mydrv: it reads beyond the buffer",
            ),
            Err(errno) => fail(name(errno), "update the module mydrv: a reader could not tell the end"),
        },
    );
}

/// The file that a probe goes through, or why there is none.
fn choose<'a>(
    through: Through,
    reader: &'a Device,
    (check, writer): (&str, Option<&'a Device>),
) -> Result<ControlFlow<Problem, &'a Device>, mydrv::Error> {
    let read_only = reader.info()?.flags.read_only();
    Ok(match (through, writer) {
        (Through::Reader, _) => ControlFlow::Continue(reader),
        (Through::WritableBuffer, _) if !read_only => ControlFlow::Continue(reader),
        (Through::ReadOnlyBuffer, _) if read_only => ControlFlow::Continue(reader),
        (Through::Either, None) if read_only => ControlFlow::Continue(reader),
        (Through::Either | Through::Writer, Some(writer)) => ControlFlow::Continue(writer),
        (Through::ReadOnlyBuffer, _) => ControlFlow::Break(Problem::NotApplicable("the buffer is not read-only".into())),
        (Through::Writer | Through::WritableBuffer, _) if read_only => {
            ControlFlow::Break(Problem::NotApplicable("the buffer is read-only".into()))
        }
        _ => ControlFlow::Break(Problem::Skip(format!("check {check} did not pass"))),
    })
}

fn page() -> usize {
    rustix::param::page_size()
}

fn whole_page() -> MydrvSync {
    MydrvSync {
        offset: 0,
        length: page() as u64,
        direction: MYDRV_SYNC_FROM_DEVICE,
        reserved: 0,
    }
}

/// A mapping that is let through is not touched, only removed: a private one would make the kernel stumble.
fn map(device: &Device, length: usize, protection: ProtFlags, flags: MapFlags, offset: u64) -> Answer {
    let base = map_new(device, length, protection, flags, offset)?;
    unmap(base, length);
    Ok("mapped")
}

fn map_new(device: &Device, length: usize, protection: ProtFlags, flags: MapFlags, offset: u64) -> Result<*mut c_void, Errno> {
    // SAFETY: a new mapping at an address of the kernel's choice disturbs no existing one.
    unsafe { rustix::mm::mmap(ptr::null_mut(), length, protection, flags, device.as_fd(), offset) }
}

fn unmap(base: *mut c_void, length: usize) {
    // SAFETY: callers give a range they have just mapped and that nothing refers to.
    let unmapped = unsafe { rustix::mm::munmap(base, length) };
    debug_assert!(unmapped.is_ok());
}

fn protect(device: &Device, protection: MprotectFlags) -> Answer {
    let base = map_new(device, page(), ProtFlags::READ, MapFlags::SHARED, 0)?;
    // SAFETY: the range was just mapped, and nothing refers to it.
    let answer = unsafe { rustix::mm::mprotect(base, page(), protection) };
    unmap(base, page());
    answer.map(|()| "allowed")
}

fn grow(device: &Device) -> Answer {
    let base = map_new(device, page(), ProtFlags::READ, MapFlags::SHARED, 0)?;
    // SAFETY: the range was just mapped, and nothing refers to it, so it may move.
    match unsafe { rustix::mm::mremap(base, page(), 2 * page(), MremapFlags::MAYMOVE) } {
        Ok(grown) => {
            unmap(grown, 2 * page());
            Ok("grew")
        }
        Err(errno) => {
            unmap(base, page());
            Err(errno)
        }
    }
}

fn sync(device: &Device, request: MydrvSync) -> Answer {
    // SAFETY: MYDRV_IOC_SYNC reads one MydrvSync; both come from the shared ABI. A sync that is let through loses nothing: the
    // processor has written nothing here since the last one.
    unsafe { ioctl::ioctl(device, ioctl::Setter::<MYDRV_IOC_SYNC, MydrvSync>::new(request)) }.map(|()| "accepted")
}

/// The errors that matter here by their names, others by their text.
fn name(errno: Errno) -> String {
    match errno {
        Errno::INVAL => "EINVAL".into(),
        Errno::PERM => "EPERM".into(),
        Errno::ACCESS => "EACCES".into(),
        Errno::ROFS => "EROFS".into(),
        Errno::NXIO => "ENXIO".into(),
        Errno::OVERFLOW => "EOVERFLOW".into(),
        Errno::FAULT => "EFAULT".into(),
        Errno::NOTTY => "ENOTTY".into(),
        Errno::RANGE => "ERANGE".into(),
        Errno::BADF => "EBADF".into(),
        Errno::NOSPC => "ENOSPC".into(),
        Errno::NODEV => "ENODEV".into(),
        other => std::io::Error::from(other).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_an_id_of_its_own_and_a_named_error() {
        let mut ids: Vec<_> = REFUSALS.iter().map(|refusal| refusal.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), REFUSALS.len());
        for errno in REFUSALS.iter().flat_map(|refusal| refusal.expected) {
            assert!(name(*errno).starts_with('E'), "{errno}");
        }
    }
}
