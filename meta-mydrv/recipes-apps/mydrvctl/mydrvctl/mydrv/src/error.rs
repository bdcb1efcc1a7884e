// SPDX-License-Identifier: MIT

//! What can go wrong, said as: file, cause, remedy.

use std::{io, path::PathBuf};

use rustix::io::Errno;

/// The result of this crate's calls.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed. The text names the file, the cause and the remedy in one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such device.
    #[error(
        "{device}: no such device; `mydrvctl list` shows what there is, `mydrvctl validate` tells whether overlay or module is missing"
    )]
    NotFound {
        /// The path, index or label that was asked for.
        device: String,
    },

    /// More than one device has this label.
    #[error(
        "{device}: the label of several devices: {}; choose one by its path, and give each buffer a label of its own in the device tree",
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    Ambiguous {
        /// The label that was asked for.
        device: String,
        /// The devices that have it.
        paths: Vec<PathBuf>,
    },

    /// The caller may not open the device.
    #[error("{path}: permission denied; become a member of the group mydrv (usermod -aG mydrv USER, then log in again)", path = path.display())]
    Permission {
        /// The device node.
        path: PathBuf,
    },

    /// Another program holds the device, shared or exclusively, in a way that keeps this one out.
    #[error("{path}: in use by another program; find it with `fuser -v {path}`, stop it or wait for it", path = path.display())]
    Busy {
        /// The device node.
        path: PathBuf,
    },

    /// The buffer is read-only for everyone.
    #[error("{path}: the buffer is read-only (`read-only` in its device tree node); open it for reading only", path = path.display())]
    ReadOnly {
        /// The device node.
        path: PathBuf,
    },

    /// This [`Device`](crate::Device) was opened for reading only.
    #[error("{path}: opened for reading only; open it for writing", path = path.display())]
    NotWritable {
        /// The device node.
        path: PathBuf,
    },

    /// The driver was unbound or its module removed while the device was open.
    #[error("{path}: the device is gone, its driver was unbound; open it again once it is back", path = path.display())]
    Gone {
        /// The device node.
        path: PathBuf,
    },

    /// The range leaves the buffer or the mapping.
    #[error("{path}: offset {offset:#x} plus length {length:#x} is beyond the end; stay within {size:#x} bytes", path = path.display())]
    OutOfRange {
        /// The device node.
        path: PathBuf,
        /// The first byte asked for.
        offset: u64,
        /// How many bytes were asked for.
        length: u64,
        /// How many bytes there are.
        size: u64,
    },

    /// A word access at an offset that is no multiple of the word's size.
    #[error("{path}: offset {offset:#x} is not aligned; use a multiple of {alignment}", path = path.display())]
    Misaligned {
        /// The device node.
        path: PathBuf,
        /// The offset asked for.
        offset: u64,
        /// What it must be a multiple of, in bytes.
        alignment: usize,
    },

    /// The file answers no mydrv ioctl.
    #[error("{path}: not a mydrv device; choose one that `mydrvctl list` shows", path = path.display())]
    NotMydrv {
        /// The file.
        path: PathBuf,
    },

    /// The driver is older than this crate.
    #[error("{path}: the driver speaks ABI {found}, this program needs {needed}; update the module mydrv", path = path.display())]
    Abi {
        /// The device node.
        path: PathBuf,
        /// The driver's ABI version.
        found: u32,
        /// The least version that does.
        needed: u32,
    },

    /// Any other failure of a system call.
    #[error("{path}: {call} failed: {source}; the kernel's log may say more (journalctl -k -g mydrv)", path = path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// The system call.
        call: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl Error {
    /// The kernel's answer to `call` on `path`, in the words of this crate.
    pub(crate) fn from_errno(path: &std::path::Path, call: &'static str, errno: Errno) -> Self {
        let path = path.to_owned();
        match errno {
            Errno::NODEV | Errno::NXIO if call == "open" => Self::NotFound {
                device: path.display().to_string(),
            },
            Errno::NOENT if call == "open" => Self::NotFound {
                device: path.display().to_string(),
            },
            Errno::ACCESS | Errno::PERM if call == "open" => Self::Permission { path },
            Errno::ROFS => Self::ReadOnly { path },
            Errno::WOULDBLOCK if call == "flock" => Self::Busy { path },
            Errno::NODEV => Self::Gone { path },
            errno => Self::System {
                path,
                call,
                source: errno.into(),
            },
        }
    }
}
