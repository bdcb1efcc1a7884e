// SPDX-License-Identifier: MIT

//! The device under test, and what is expected of it.

use std::{
    fmt::{Debug, Display},
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use mydrv_abi::*;

use crate::sys::{self, Call, Errno, Mapping};

/// Why a test did not pass.
pub enum Broken {
    /// A promise is: which, what was expected, what was found.
    Promise(String),
    /// It does not apply to this device: why.
    Skip(String),
}

/// A test's result.
pub type Outcome<T = ()> = Result<T, Broken>;

impl From<String> for Broken {
    fn from(what: String) -> Self {
        Self::Promise(what)
    }
}

/// `call` must fail with `errno`.
pub fn refused<T: Debug>(what: impl Display, call: Call<T>, errno: i32) -> Outcome {
    match call {
        Err(Errno(found)) if found == errno => {
            println!("# {what}: {}", Errno(errno));
            Ok(())
        }
        found => Err(format!("{what}: expected {}, found {found:?}", Errno(errno)).into()),
    }
}

/// `call` must succeed.
pub fn allowed<T>(what: impl Display, call: Call<T>) -> Outcome<T> {
    call.map_err(|errno| format!("{what}: expected success, found {errno}").into())
}

/// `found` must be `expected`.
pub fn equal<T: Debug + PartialEq>(what: impl Display, found: T, expected: T) -> Outcome {
    if found != expected {
        return Err(format!("{what}: expected {expected:?}, found {found:?}").into());
    }
    println!("# {what}: {found:?}");
    Ok(())
}

/// `holds` must be.
pub fn holds(what: impl Display, holds: bool, found: impl Debug) -> Outcome {
    if !holds {
        return Err(format!("{what}: found {found:?}").into());
    }
    println!("# {what}: {found:?}");
    Ok(())
}

/// A read-write mapping's protection.
pub const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
/// A read-only mapping's protection.
pub const R: i32 = libc::PROT_READ;

/// The device under test.
pub struct Device {
    pub path: PathBuf,
    pub info: MydrvInfo,
    /// Its number, for further nodes.
    pub number: u64,
    /// The name of its platform device.
    pub platform: String,
}

impl Device {
    pub fn find(path: &Path) -> Outcome<Self> {
        let fd = allowed(format!("open {}", path.display()), sys::open(path, libc::O_RDONLY))?;
        let text = |error: io::Error| format!("{}: {error}", path.display());
        let number = fs::metadata(path).map_err(text)?.rdev();
        let misc = format!("/sys/dev/char/{}:{}/device", libc::major(number), libc::minor(number));
        let platform = fs::canonicalize(misc).map_err(text)?;
        let platform = platform.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Device {
            path: path.into(),
            info: info(&fd)?,
            number,
            platform,
        })
    }

    /// The buffer's length in bytes.
    pub fn size(&self) -> usize {
        self.info.size_bytes as usize
    }

    pub fn has(&self, flag: u32) -> bool {
        self.info.flags & flag != 0
    }

    /// Whether the buffer is read-only.
    pub fn is_read_only(&self) -> bool {
        self.has(MYDRV_FLAG_READ_ONLY)
    }

    /// Skips a test that is all about writing.
    pub fn needs_writable(&self) -> Outcome {
        if self.is_read_only() {
            return Err(Broken::Skip("the buffer is read-only".into()));
        }
        Ok(())
    }

    pub fn open(&self, flags: i32) -> Outcome<OwnedFd> {
        allowed(format!("open {}", self.path.display()), sys::open(&self.path, flags))
    }

    pub fn open_rw(&self) -> Outcome<OwnedFd> {
        self.open(libc::O_RDWR)
    }

    pub fn bind(&self) -> Outcome {
        self.driver("bind")
    }

    pub fn unbind(&self) -> Outcome {
        self.driver("unbind")
    }

    fn driver(&self, verb: &str) -> Outcome {
        let done = fs::write(format!("/sys/bus/platform/drivers/mydrv/{verb}"), &self.platform);
        done.map_err(|error| format!("{verb} {}: expected success, found {error}", self.platform).into())
    }

    /// Whether there is a driver to bind it to: a test may remove the module.
    pub fn has_driver(&self) -> bool {
        Path::new("/sys/bus/platform/drivers/mydrv/bind").exists()
    }

    pub fn is_bound(&self) -> bool {
        Path::new("/sys/bus/platform/drivers/mydrv").join(&self.platform).exists()
    }

    /// A second node of the device's number, in a file system that does not itself refuse execution. Removed on drop.
    pub fn second_node(&self) -> Outcome<Node> {
        let path = PathBuf::from(format!("/var/tmp/mydrv-tests.{}", std::process::id()));
        let _ = fs::remove_file(&path);
        allowed("mknod", sys::mknod(&path, self.number))?;
        Ok(Node(path))
    }
}

/// A device node of our own.
pub struct Node(pub PathBuf);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The INFO ioctl.
pub fn info(fd: &impl AsRawFd) -> Outcome<MydrvInfo> {
    allowed("INFO", try_info(fd))
}

pub fn try_info(fd: &impl AsRawFd) -> Call<MydrvInfo> {
    let mut info = MydrvInfo::default();
    sys::ioctl(fd, MYDRV_IOC_INFO, &mut info).map(|_| info)
}

pub fn users(fd: &impl AsRawFd) -> Outcome<MydrvUsers> {
    let mut users = MydrvUsers::default();
    allowed("USERS", sys::ioctl(fd, MYDRV_IOC_USERS, &mut users)).map(|_| users)
}

pub fn try_sync(fd: &impl AsRawFd, direction: u32, offset: u64, length: u64) -> Call {
    sys::ioctl(
        fd,
        MYDRV_IOC_SYNC,
        &mut MydrvSync {
            offset,
            length,
            direction,
            reserved: 0,
        },
    )
}

/// A shared mapping of `len` bytes from `offset`.
pub fn map(fd: &impl AsRawFd, len: usize, prot: i32, offset: usize) -> Outcome<Mapping> {
    allowed(
        format!("mmap {len:#x} bytes at {offset:#x}"),
        sys::mmap(fd, len, prot, libc::MAP_SHARED, offset as u64),
    )
}

/// Pseudo-random numbers (splitmix64): one seed, one sequence.
pub struct Random(pub u64);

impl Random {
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.word() % bound as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What the tests write into the buffer: nothing else but zeros may ever be read from it.
pub const TAG: u64 = 0x6d79_6472_7600_0000;

/// Whether a word can come from the buffer.
pub fn is_ours(word: u64) -> bool {
    word == 0 || word & !0xff_ffff == TAG
}
