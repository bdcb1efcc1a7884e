// SPDX-License-Identifier: MIT

//! What the driver must not allow, each tried for real. A probe that is let through fails its check, and undoes what it got.

use std::{io, ops::ControlFlow};

use mydrv::{
    Device,
    abi::MYDRV_SYNC_FROM_DEVICE,
    attempt::{self, Map},
};
use rustix::{fs::StatVfsMountFlags, io::Errno};

use super::{
    checks::{self, Check},
    report::{Problem, Report, Yielded, fail},
};

/// What a probe got: an error, or that it was allowed.
type Answer = io::Result<()>;

/// Which file a probe goes through.
#[derive(Clone, Copy)]
enum Through {
    /// One open for reading only.
    Reader,
    /// The same; nothing to check where the kernel's core keeps everything there from being executed.
    ExecMount,
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
    pub check: Check,
    expected: Errno,
    through: Through,
    probe: fn(&Device) -> Answer,
}

/// The promises, in the order of the driver's ABI documentation. What the kernel's core refuses by itself, whatever the driver does, is not
/// among them: writable mappings of a file open for reading, offsets within a page, offsets that overflow.
pub const REFUSALS: &[Refusal] = &[
    Refusal {
        check: checks::REFUSE_MAP_PRIVATE,
        expected: Errno::INVAL,
        through: Through::Reader,
        probe: |device| map(device, Map { private: true, ..page() }),
    },
    Refusal {
        check: checks::REFUSE_MAP_EXEC,
        expected: Errno::PERM,
        through: Through::ExecMount,
        probe: |device| map(device, Map { exec: true, ..page() }),
    },
    Refusal {
        check: checks::REFUSE_EXEC_LATER,
        expected: Errno::ACCESS,
        through: Through::ExecMount,
        probe: attempt::protect_exec,
    },
    Refusal {
        check: checks::REFUSE_OPEN_WRITE,
        expected: Errno::ROFS,
        through: Through::ReadOnlyBuffer,
        probe: attempt::open_for_writing,
    },
    Refusal {
        check: checks::REFUSE_MAP_BEYOND,
        expected: Errno::NXIO,
        through: Through::Reader,
        probe: |device| {
            let Map { length, .. } = page();
            let offset = device.size_bytes() - length as u64;
            map(
                device,
                Map {
                    offset,
                    length: 2 * length,
                    ..page()
                },
            )
        },
    },
    Refusal {
        check: checks::REFUSE_MAP_OUTSIDE,
        expected: Errno::NXIO,
        through: Through::Reader,
        probe: |device| {
            map(
                device,
                Map {
                    offset: device.size_bytes(),
                    ..page()
                },
            )
        },
    },
    Refusal {
        check: checks::REFUSE_GROW,
        expected: Errno::FAULT,
        through: Through::Reader,
        probe: attempt::grow,
    },
    Refusal {
        check: checks::REFUSE_IOCTL,
        expected: Errno::NOTTY,
        through: Through::Reader,
        probe: attempt::unknown_ioctl,
    },
    Refusal {
        check: checks::REFUSE_SYNC_DIRECTION,
        expected: Errno::INVAL,
        through: Through::Either,
        probe: |device| attempt::sync(device, 0, PAGE, 4, 0),
    },
    Refusal {
        check: checks::REFUSE_SYNC_EMPTY,
        expected: Errno::INVAL,
        through: Through::Either,
        probe: |device| attempt::sync(device, 0, 0, MYDRV_SYNC_FROM_DEVICE, 0),
    },
    Refusal {
        check: checks::REFUSE_SYNC_RESERVED,
        expected: Errno::INVAL,
        through: Through::Either,
        probe: |device| attempt::sync(device, 0, PAGE, MYDRV_SYNC_FROM_DEVICE, 1),
    },
    Refusal {
        check: checks::REFUSE_SYNC_BEYOND,
        expected: Errno::RANGE,
        through: Through::Either,
        probe: |device| attempt::sync(device, device.size_bytes() - 1, 2, MYDRV_SYNC_FROM_DEVICE, 0),
    },
    Refusal {
        check: checks::REFUSE_SYNC_OVERFLOW,
        expected: Errno::RANGE,
        through: Through::Either,
        probe: |device| attempt::sync(device, 1, u64::MAX, MYDRV_SYNC_FROM_DEVICE, 0),
    },
    Refusal {
        check: checks::REFUSE_SYNC_READER,
        expected: Errno::BADF,
        through: Through::WritableBuffer,
        probe: |device| attempt::sync(device, 0, PAGE, MYDRV_SYNC_FROM_DEVICE, 0),
    },
    Refusal {
        check: checks::REFUSE_SEEK_BEYOND,
        expected: Errno::INVAL,
        through: Through::Reader,
        probe: |device| attempt::seek(device, device.size_bytes() + 1),
    },
    Refusal {
        check: checks::REFUSE_WRITE_AT_END,
        expected: Errno::NOSPC,
        through: Through::Writer,
        probe: |device| attempt::write(device, device.size_bytes()),
    },
];

/// Tries them all, through the files that checks opened.
pub fn check(report: &mut Report, reader: Yielded<&Device>, writer: Yielded<&Device>) {
    for refusal in REFUSALS {
        report.check(refusal.check, name(refusal.expected), reader, |reader| {
            let device = match choose(refusal.through, reader, writer)? {
                ControlFlow::Continue(device) => device,
                ControlFlow::Break(problem) => return Err(problem),
            };
            match (refusal.probe)(device).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)) {
                Err(errno) if errno == refusal.expected => Ok((name(errno), ())),
                Err(errno) => fail(
                    name(errno),
                    "update the module mydrv: applications may rely on the documented error",
                ),
                Ok(()) => fail("it was allowed", "update the module mydrv: it allows what it must refuse"),
            }
        });
    }
    report.check(checks::READ_AT_END, "0 bytes", reader, |reader| {
        match attempt::read(reader, reader.size_bytes()) {
            Ok(0) => Ok(("0 bytes".into(), ())),
            Ok(count) => fail(
                format!("{count} bytes"),
                "update the module mydrv: it reads beyond the buffer",
            ),
            Err(error) => fail(error.to_string(), "update the module mydrv: a reader could not tell the end"),
        }
    });
}

/// The file that a probe goes through, or why there is none.
fn choose<'a>(
    through: Through,
    reader: &'a Device,
    writer: Yielded<&'a Device>,
) -> Result<ControlFlow<Problem, &'a Device>, mydrv::Error> {
    let read_only = reader.info()?.flags.read_only();
    let nothing = |reason: &str| ControlFlow::Break(Problem::NotApplicable(reason.into()));
    Ok(match (through, writer.value()) {
        (Through::ExecMount, _) if noexec(reader) => {
            nothing("the device node's file system is mounted noexec: the kernel's core refuses alone")
        }
        (Through::Reader | Through::ExecMount, _) => ControlFlow::Continue(reader),
        (Through::WritableBuffer, _) if !read_only => ControlFlow::Continue(reader),
        (Through::ReadOnlyBuffer, _) if read_only => ControlFlow::Continue(reader),
        (Through::Either, None) if read_only => ControlFlow::Continue(reader),
        (Through::Either | Through::Writer, Some(writer)) => ControlFlow::Continue(writer),
        (Through::ReadOnlyBuffer, _) => nothing("the buffer is not read-only"),
        (Through::Writer | Through::WritableBuffer, _) if read_only => nothing("the buffer is read-only"),
        _ => ControlFlow::Break(Problem::Skip(format!("check {} did not pass", checks::OPEN_WRITE.id))),
    })
}

/// Whether the file system of the device node is mounted noexec: then nothing of it is ever executable, whatever the driver does.
pub fn noexec(device: &Device) -> bool {
    rustix::fs::fstatvfs(device).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

/// A length in bytes that any buffer has.
const PAGE: u64 = 4096;

/// A mapping of the buffer's first page.
fn page() -> Map {
    Map {
        length: rustix::param::page_size(),
        ..Map::default()
    }
}

fn map(device: &Device, request: Map) -> Answer {
    attempt::map(device, &request)
}

/// The errors that matter here by their names, others by their text.
fn name(errno: Errno) -> String {
    match errno {
        Errno::INVAL => "EINVAL".into(),
        Errno::PERM => "EPERM".into(),
        Errno::ACCESS => "EACCES".into(),
        Errno::ROFS => "EROFS".into(),
        Errno::NXIO => "ENXIO".into(),
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
        let mut ids: Vec<_> = REFUSALS.iter().map(|refusal| refusal.check.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), REFUSALS.len());
        for refusal in REFUSALS {
            assert!(name(refusal.expected).starts_with('E'), "{}", refusal.check.id);
        }
    }
}
