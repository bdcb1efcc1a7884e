// SPDX-License-Identifier: MIT

//! What can go wrong, said as: file, cause, remedy.

use std::{borrow::Cow, fmt, io, path::PathBuf};

use rustix::io::Errno;

/// The result of this crate's calls.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure an [`Error`] is, for programs that choose by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such device.
    NotFound,
    /// More than one device has this label.
    Ambiguous,
    /// The caller may not open the device.
    Permission,
    /// Another program holds the device in a way that keeps this one out.
    Busy,
    /// The buffer is read-only for everyone.
    ReadOnly,
    /// This file was opened for reading only.
    NotWritable,
    /// The driver was unbound or its module removed while the device was open.
    Gone,
    /// The range leaves the buffer or the mapping.
    OutOfRange,
    /// A word access at an offset that is no multiple of the word's size.
    Misaligned,
    /// The file is no mydrv device.
    NotMydrv,
    /// The driver is older than this crate.
    Abi,
    /// Any other failure of a system call.
    System,
}

/// Why a call failed. The text names the file, the cause and the remedy in one line; [`cause`](Self::cause) and [`remedy`](Self::remedy) are its
/// two halves.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is no such device.
    NotFound {
        /// The path, index or label that was asked for.
        device: String,
    },

    /// More than one device has this label.
    Ambiguous {
        /// The label that was asked for.
        device: String,
        /// The devices that have it.
        paths: Vec<PathBuf>,
    },

    /// The caller may not open the device.
    Permission {
        /// The device node.
        path: PathBuf,
    },

    /// Another program holds the device, shared or exclusively, in a way that keeps this one out.
    Busy {
        /// The device node.
        path: PathBuf,
    },

    /// The buffer is read-only for everyone.
    ReadOnly {
        /// The device node.
        path: PathBuf,
    },

    /// This [`Device`](crate::Device) was opened for reading only.
    NotWritable {
        /// The device node.
        path: PathBuf,
    },

    /// The driver was unbound or its module removed while the device was open.
    Gone {
        /// The device node.
        path: PathBuf,
    },

    /// The range leaves the buffer or the mapping.
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
    Misaligned {
        /// The device node.
        path: PathBuf,
        /// The offset asked for.
        offset: u64,
        /// What it must be a multiple of, in bytes.
        alignment: usize,
    },

    /// The file is no node of the driver, or answers none of its ioctls.
    NotMydrv {
        /// The file.
        path: PathBuf,
    },

    /// The driver is older than this crate.
    Abi {
        /// The device node.
        path: PathBuf,
        /// The driver's ABI version.
        found: u32,
        /// The least version that does.
        needed: u32,
    },

    /// Any other failure of a system call.
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
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Ambiguous { .. } => ErrorKind::Ambiguous,
            Self::Permission { .. } => ErrorKind::Permission,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::ReadOnly { .. } => ErrorKind::ReadOnly,
            Self::NotWritable { .. } => ErrorKind::NotWritable,
            Self::Gone { .. } => ErrorKind::Gone,
            Self::OutOfRange { .. } => ErrorKind::OutOfRange,
            Self::Misaligned { .. } => ErrorKind::Misaligned,
            Self::NotMydrv { .. } => ErrorKind::NotMydrv,
            Self::Abi { .. } => ErrorKind::Abi,
            Self::System { .. } => ErrorKind::System,
        }
    }

    /// The file and what is the matter with it.
    pub fn cause(&self) -> String {
        match self {
            Self::NotFound { device } => format!("{device}: no such device"),
            Self::Ambiguous { device, paths } => {
                let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
                format!("{device}: the label of several devices: {}", paths.join(", "))
            }
            Self::Permission { path } => format!("{}: permission denied", path.display()),
            Self::Busy { path } => format!("{}: in use by another program", path.display()),
            Self::ReadOnly { path } => {
                format!(
                    "{}: the buffer is read-only (`read-only` in its device tree node)",
                    path.display()
                )
            }
            Self::NotWritable { path } => format!("{}: opened for reading only", path.display()),
            Self::Gone { path } => format!("{}: the device is gone, its driver was unbound", path.display()),
            Self::OutOfRange {
                path, offset, length, ..
            } => format!(
                "{}: offset {offset:#x} plus length {length:#x} is beyond the end",
                path.display()
            ),
            Self::Misaligned { path, offset, .. } => format!("{}: offset {offset:#x} is not aligned", path.display()),
            Self::NotMydrv { path } => format!("{}: not a mydrv device", path.display()),
            Self::Abi { path, found, needed } => {
                format!(
                    "{}: the driver speaks ABI {found}, this program needs {needed}",
                    path.display()
                )
            }
            Self::System { path, call, source } => format!("{}: {call} failed: {source}", path.display()),
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> Cow<'static, str> {
        match self {
            Self::NotFound { .. } => {
                "`mydrvctl list` shows what there is, `mydrvctl validate` tells whether overlay or module is missing".into()
            }
            Self::Ambiguous { .. } => "choose one by its path, and give each buffer a label of its own in the device tree".into(),
            Self::Permission { .. } => "become a member of the group mydrv (usermod -aG mydrv USER, then log in again)".into(),
            Self::Busy { path } => format!("find it with `fuser -v {}`, stop it or wait for it", path.display()).into(),
            Self::ReadOnly { .. } => "open it for reading only".into(),
            Self::NotWritable { .. } => "open it for writing".into(),
            Self::Gone { .. } => "open it again once it is back".into(),
            Self::OutOfRange { size, .. } => format!("stay within {size:#x} bytes").into(),
            Self::Misaligned { alignment, .. } => format!("use a multiple of {alignment}").into(),
            Self::NotMydrv { .. } => "choose one that `mydrvctl list` shows".into(),
            Self::Abi { .. } => "update the module mydrv".into(),
            Self::System { .. } => "the kernel's log may say more (journalctl -k -g mydrv)".into(),
        }
    }

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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause(), self.remedy())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<Error> for io::Error {
    /// The error as the inner one of an [`io::Error`] of the nearest kind.
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::NotFound { .. } => io::ErrorKind::NotFound,
            Error::Permission { .. } | Error::NotWritable { .. } => io::ErrorKind::PermissionDenied,
            Error::Busy { .. } => io::ErrorKind::ResourceBusy,
            Error::ReadOnly { .. } => io::ErrorKind::ReadOnlyFilesystem,
            Error::Gone { .. } => io::ErrorKind::NotConnected,
            Error::Ambiguous { .. } | Error::OutOfRange { .. } | Error::Misaligned { .. } => io::ErrorKind::InvalidInput,
            Error::NotMydrv { .. } | Error::Abi { .. } => io::ErrorKind::Unsupported,
            Error::System { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_cause_and_remedy_and_stays_itself_in_an_io_error() {
        let gone = || Error::Gone {
            path: "/dev/mydrv0".into(),
        };
        assert_eq!(
            gone().to_string(),
            "/dev/mydrv0: the device is gone, its driver was unbound; open it again once it is back"
        );
        let error = io::Error::from(gone());
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        let inner = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
        assert_eq!(inner.kind(), ErrorKind::Gone);
        // One that is no kind of its own keeps what the kernel said.
        let system = Error::from_errno(std::path::Path::new("/x"), "pread", Errno::IO);
        assert_eq!(system.kind(), ErrorKind::System);
        assert!(std::error::Error::source(&system).is_some());
        assert_eq!(io::Error::from(system).kind(), io::Error::from(Errno::IO).kind());
    }
}
