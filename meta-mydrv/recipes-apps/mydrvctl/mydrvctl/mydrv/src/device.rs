// SPDX-License-Identifier: MIT

//! One open device: the calls on its file. What goes through memory is in `mapping.rs`.

use std::{
    ops::{Bound, RangeBounds},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use mydrv_abi::{
    MYDRV_ABI_VERSION, MYDRV_IOC_INFO, MYDRV_IOC_SYNC, MYDRV_IOC_USERS, MYDRV_SYNC_FROM_DEVICE, MYDRV_SYNC_TO_DEVICE, MydrvInfo,
    MydrvSync, MydrvUsers,
};
use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
    ioctl,
};

use crate::{
    discover::Selector,
    error::{Error, Result},
    info::{Info, Users},
    mapping::{Mapping, MappingMut},
};

/// How a program shares the device with others. The lock is advisory, held until the [`Device`] is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lock {
    /// Beside other users, but not beside an exclusive one.
    #[default]
    Shared,
    /// Alone.
    Exclusive,
    /// Without a lock: for a program that already holds one through another [`Device`].
    None,
}

/// For whom [`Device::sync`] makes data visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What the processor wrote goes to memory; before the device reads or writes there.
    ToDevice,
    /// What the caches hold is dropped; after the device wrote, before the processor reads or writes there.
    FromDevice,
}

/// How to open a device.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    write: bool,
    lock: Lock,
    wait: Duration,
}

impl OpenOptions {
    /// For reading only, beside other users.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to open for writing too.
    pub fn write(mut self, write: bool) -> Self {
        self.write = write;
        self
    }

    /// How to share the device.
    pub fn lock(mut self, lock: Lock) -> Self {
        self.lock = lock;
        self
    }

    /// How long to wait for other users to leave, where the lock keeps this one out: at most so long; not at all unless this is called; with
    /// [`Duration::MAX`] until they leave. A signal does not end the wait.
    ///
    /// A program that starts with the system waits for the boot's check in this way, or better by systemd: `After=mydrv-ready.target`.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Opens the device: a path, an index or a label.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Ambiguous`], [`Error::Permission`]; [`Error::ReadOnly`] if writing is asked of a read-only buffer;
    /// [`Error::Busy`] if the lock is not to be had in [time](Self::wait); [`Error::Gone`] if the device went meanwhile; [`Error::NotMydrv`] if the
    /// file is something else; [`Error::Abi`] if the driver is too old.
    pub fn open(&self, device: impl Into<Selector>) -> Result<Device> {
        let path = device.into().resolve_in(Path::new("/"))?;
        let access = if self.write { OFlags::RDWR } else { OFlags::RDONLY };
        #[cfg(feature = "stand-in")]
        crate::stand_in::opening(&path, self.write).map_err(|errno| Error::from_errno(&path, "open", errno))?;
        let fd = rustix::fs::open(&path, access | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
            .map_err(|errno| Error::from_errno(&path, "open", errno))?;
        match self.lock {
            Lock::Shared => lock(
                &fd,
                FlockOperation::LockShared,
                FlockOperation::NonBlockingLockShared,
                self.wait,
            ),
            Lock::Exclusive => lock(
                &fd,
                FlockOperation::LockExclusive,
                FlockOperation::NonBlockingLockExclusive,
                self.wait,
            ),
            Lock::None => Ok(()),
        }
        .map_err(|errno| Error::from_errno(&path, "flock", errno))?;
        Device::from_fd(fd, path, self.write)
    }
}

/// flock(2) knows no time-out, so between never and for ever this asks again and again, seldom after a while.
fn lock(fd: &OwnedFd, blocking: FlockOperation, at_once: FlockOperation, wait: Duration) -> rustix::io::Result<()> {
    let deadline = Instant::now().checked_add(wait);
    let mut pause = Duration::from_millis(1);
    loop {
        match (
            rustix::fs::flock(fd, if deadline.is_none() { blocking } else { at_once }),
            deadline,
        ) {
            (Err(Errno::INTR), _) => {}
            (Err(Errno::WOULDBLOCK), Some(deadline)) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(Errno::WOULDBLOCK);
                }
                thread::sleep(pause.min(left));
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            (done, _) => return done,
        }
    }
}

/// An open device. It stays locked, as [`Lock`] says, until it is dropped.
#[derive(Debug)]
pub struct Device {
    fd: OwnedFd,
    path: PathBuf,
    writable: bool,
    size_bytes: u64,
    #[cfg(feature = "stand-in")]
    pub(crate) stand_in: Option<crate::stand_in::Driver>,
}

impl Device {
    /// Opens a device for reading and writing, beside other users.
    ///
    /// # Errors
    ///
    /// As [`OpenOptions::open`].
    pub fn open(device: impl Into<Selector>) -> Result<Self> {
        OpenOptions::new().write(true).open(device)
    }

    /// Opens a device for reading only, beside other users.
    ///
    /// # Errors
    ///
    /// As [`OpenOptions::open`].
    pub fn open_read_only(device: impl Into<Selector>) -> Result<Self> {
        OpenOptions::new().open(device)
    }

    /// Takes over an open file, e.g. one that a parent process handed down. `path` is for messages; `writable` tells how it was
    /// opened. No lock is taken: a handed-down file carries its opener's.
    ///
    /// # Errors
    ///
    /// [`Error::NotMydrv`], [`Error::Abi`], [`Error::Gone`].
    pub fn from_fd(fd: OwnedFd, path: PathBuf, writable: bool) -> Result<Self> {
        let mut device = Self {
            #[cfg(feature = "stand-in")]
            stand_in: crate::stand_in::Driver::behind(&fd, &path, writable),
            fd,
            path,
            writable,
            size_bytes: 0,
        };
        let info = device.info()?;
        if info.abi_version < MYDRV_ABI_VERSION {
            return Err(Error::Abi {
                path: device.path,
                found: info.abi_version,
                needed: MYDRV_ABI_VERSION,
            });
        }
        device.size_bytes = info.size_bytes;
        Ok(device)
    }

    /// The device node.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the device was opened for writing.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// The buffer's length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Asks the driver about the buffer.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`]; [`Error::NotMydrv`] if the file is something else.
    pub fn info(&self) -> Result<Info> {
        match self.raw_info() {
            Ok(raw) => Ok(Info::from(&raw)),
            Err(Errno::NOTTY | Errno::INVAL | Errno::OPNOTSUPP) => Err(Error::NotMydrv { path: self.path.clone() }),
            Err(errno) => Err(self.error("ioctl MYDRV_IOC_INFO", errno)),
        }
    }

    /// Asks the driver who uses the buffer.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`].
    pub fn users(&self) -> Result<Users> {
        let raw = self.raw_users().map_err(|errno| self.error("ioctl MYDRV_IOC_USERS", errno))?;
        Ok(Users {
            open_files: raw.open_files,
            opened_for_writing: raw.opened_for_writing,
        })
    }

    fn raw_info(&self) -> std::result::Result<MydrvInfo, Errno> {
        #[cfg(feature = "stand-in")]
        if let Some(driver) = &self.stand_in {
            return driver.info();
        }
        // SAFETY: MYDRV_IOC_INFO writes one MydrvInfo, integers for which any bytes are valid; both come from the shared ABI.
        unsafe { ioctl::ioctl(&self.fd, ioctl::Getter::<MYDRV_IOC_INFO, MydrvInfo>::new()) }
    }

    fn raw_users(&self) -> std::result::Result<MydrvUsers, Errno> {
        #[cfg(feature = "stand-in")]
        if let Some(driver) = &self.stand_in {
            return driver.users();
        }
        // SAFETY: MYDRV_IOC_USERS writes one MydrvUsers, integers for which any bytes are valid; both come from the shared ABI.
        unsafe { ioctl::ioctl(&self.fd, ioctl::Getter::<MYDRV_IOC_USERS, MydrvUsers>::new()) }
    }

    fn raw_sync(&self, request: MydrvSync) -> std::result::Result<(), Errno> {
        #[cfg(feature = "stand-in")]
        if let Some(driver) = &self.stand_in {
            return driver.sync(&request);
        }
        // SAFETY: MYDRV_IOC_SYNC reads one MydrvSync; both come from the shared ABI.
        unsafe { ioctl::ioctl(&self.fd, ioctl::Setter::<MYDRV_IOC_SYNC, MydrvSync>::new(request)) }
    }

    pub(crate) fn pread(&self, bytes: &mut [u8], offset: u64) -> std::result::Result<usize, Errno> {
        #[cfg(feature = "stand-in")]
        if let Some(driver) = &self.stand_in {
            let (there, flip) = driver.reading(offset, bytes.len())?;
            let count = rustix::io::pread(&self.fd, &mut bytes[..there], offset)?;
            if flip && count > 0 {
                bytes[0] = !bytes[0];
            }
            return Ok(count);
        }
        rustix::io::pread(&self.fd, bytes, offset)
    }

    pub(crate) fn pwrite(&self, bytes: &[u8], offset: u64) -> std::result::Result<usize, Errno> {
        #[cfg(feature = "stand-in")]
        if let Some(driver) = &self.stand_in {
            driver.writing(offset, bytes.len())?;
        }
        rustix::io::pwrite(&self.fd, bytes, offset)
    }

    /// Hands a range of bytes from the processor to the device or back. Needed on cached buffers, free on others.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`]; [`Error::NotWritable`] for [`Direction::FromDevice`] on a device not opened for writing, whose buffer
    /// others may write; [`Error::Gone`]. An empty range is no error and does nothing.
    pub fn sync(&self, range: impl RangeBounds<u64>, direction: Direction) -> Result<()> {
        let (offset, length) = self.range(range)?;
        if length == 0 {
            return Ok(());
        }
        let direction = match direction {
            Direction::ToDevice => MYDRV_SYNC_TO_DEVICE,
            Direction::FromDevice => MYDRV_SYNC_FROM_DEVICE,
        };
        let request = MydrvSync {
            offset,
            length,
            direction,
            reserved: 0,
        };
        self.raw_sync(request).map_err(|errno| match errno {
            Errno::BADF => Error::NotWritable { path: self.path.clone() },
            errno => self.error("ioctl MYDRV_IOC_SYNC", errno),
        })
    }

    /// Maps a range of bytes for reading. It need not start at a page.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], also if the range is empty; [`Error::Gone`].
    pub fn map(&self, range: impl RangeBounds<u64>) -> Result<Mapping<'_>> {
        let (offset, length) = self.range(range)?;
        Mapping::new(self, offset, length, false)
    }

    /// Maps a range of bytes for reading and writing. It need not start at a page.
    ///
    /// # Errors
    ///
    /// As [`Device::map`], and [`Error::NotWritable`] if the device was not opened for writing.
    pub fn map_mut(&self, range: impl RangeBounds<u64>) -> Result<MappingMut<'_>> {
        let (offset, length) = self.range(range)?;
        if !self.writable {
            return Err(Error::NotWritable { path: self.path.clone() });
        }
        Mapping::new(self, offset, length, true).map(MappingMut)
    }

    /// Reads bytes by `pread`, which answers an error rather than raising `SIGBUS` when the device goes away.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::Gone`].
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.range(offset..offset.saturating_add(bytes.len() as u64))?;
        let mut done = 0;
        while done < bytes.len() {
            match self.pread(&mut bytes[done..], offset + done as u64) {
                Ok(0) => return Err(self.error("pread", Errno::IO)),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.error("pread", errno)),
            }
        }
        Ok(())
    }

    /// Writes bytes by `pwrite`, which answers an error rather than raising `SIGBUS` when the device goes away.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::Gone`], [`Error::NotWritable`].
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.range(offset..offset.saturating_add(bytes.len() as u64))?;
        if !self.writable {
            return Err(Error::NotWritable { path: self.path.clone() });
        }
        let mut done = 0;
        while done < bytes.len() {
            match self.pwrite(&bytes[done..], offset + done as u64) {
                Ok(0) => return Err(self.error("pwrite", Errno::IO)),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.error("pwrite", errno)),
            }
        }
        Ok(())
    }

    /// Any file as a device that is open for writing.
    #[cfg(test)]
    pub(crate) fn for_test(fd: OwnedFd, size_bytes: u64) -> Self {
        Self {
            fd,
            path: "/dev/mydrv0".into(),
            writable: true,
            size_bytes,
            #[cfg(feature = "stand-in")]
            stand_in: None,
        }
    }

    pub(crate) fn error(&self, call: &'static str, errno: Errno) -> Error {
        Error::from_errno(&self.path, call, errno)
    }

    /// The range as offset and length, proved to lie within the buffer.
    fn range(&self, range: impl RangeBounds<u64>) -> Result<(u64, u64)> {
        let offset = match range.start_bound() {
            Bound::Included(&start) => Some(start),
            Bound::Excluded(&start) => start.checked_add(1),
            Bound::Unbounded => Some(0),
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end.checked_add(1),
            Bound::Excluded(&end) => Some(end),
            Bound::Unbounded => Some(self.size_bytes),
        };
        match (offset, end) {
            (Some(offset), Some(end)) if offset <= end && end <= self.size_bytes => Ok((offset, end - offset)),
            (offset, end) => {
                let offset = offset.unwrap_or(u64::MAX);
                let length = end.unwrap_or(u64::MAX).saturating_sub(offset);
                Err(Error::OutOfRange {
                    path: self.path.clone(),
                    offset,
                    length,
                    size: self.size_bytes,
                })
            }
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(size_bytes: u64) -> Device {
        let fd = std::fs::File::open("/dev/null").unwrap().into();
        Device {
            fd,
            path: "/dev/mydrv0".into(),
            writable: false,
            size_bytes,
            #[cfg(feature = "stand-in")]
            stand_in: None,
        }
    }

    #[test]
    fn ranges_stay_within_the_buffer() {
        let device = device(0x2000);
        assert_eq!(device.range(..).unwrap(), (0, 0x2000));
        assert_eq!(device.range(0x1000..).unwrap(), (0x1000, 0x1000));
        assert_eq!(device.range(1..=2).unwrap(), (1, 2));
        assert_eq!(device.range(0x2000..0x2000).unwrap(), (0x2000, 0));
        for bad in [0..0x2001, 0x2001..0x2001, 0..u64::MAX] {
            assert!(matches!(device.range(bad), Err(Error::OutOfRange { .. })));
        }
        assert!(matches!(device.range(..=u64::MAX), Err(Error::OutOfRange { .. })));
    }

    #[test]
    fn reads_and_writes_beyond_the_end_are_refused_before_the_call() {
        let device = device(16);
        assert!(matches!(device.read_at(8, &mut [0; 9]), Err(Error::OutOfRange { .. })));
        assert!(matches!(device.read_at(u64::MAX, &mut [0; 2]), Err(Error::OutOfRange { .. })));
        assert!(matches!(device.write_at(16, &[0]), Err(Error::OutOfRange { .. })));
        assert!(matches!(device.write_at(0, &[0]), Err(Error::NotWritable { .. })));
    }

    #[test]
    fn another_file_is_no_mydrv_device() {
        let error = OpenOptions::new().open(Path::new("/dev/null")).unwrap_err();
        assert!(matches!(error, Error::NotMydrv { .. }), "{error}");
    }

    #[test]
    fn a_missing_node_is_not_found_and_an_exclusive_lock_is_busy() {
        let error = OpenOptions::new().open(Path::new("/dev/mydrv-none")).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");

        let path = std::env::temp_dir().join(format!("mydrv-lock-{}", std::process::id()));
        let holder = std::fs::File::create(&path).unwrap();
        rustix::fs::flock(&holder, FlockOperation::LockExclusive).unwrap();
        let error = OpenOptions::new().open(path.as_path()).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(error, Error::Busy { .. }), "{error}");
    }

    /// What `wait` makes of a lock that somebody holds for a while, or for good.
    #[test]
    fn a_wait_ends_when_the_user_leaves_or_when_its_time_is_over() {
        let open = |path: &Path, wait| OpenOptions::new().lock(Lock::Exclusive).wait(wait).open(path);
        for (wait, leaves) in [
            (Duration::ZERO, false),
            (Duration::from_millis(30), false),
            (Duration::from_secs(600), true),
            (Duration::MAX, true),
        ] {
            let path = std::env::temp_dir().join(format!("mydrv-wait-{}-{wait:?}", std::process::id()));
            let holder = std::fs::File::create(&path).unwrap();
            rustix::fs::flock(&holder, FlockOperation::LockShared).unwrap();
            let began = Instant::now();
            let error = thread::scope(|scope| {
                let waiter = scope.spawn(|| open(&path, wait).unwrap_err());
                thread::sleep(Duration::from_millis(40));
                if leaves {
                    assert!(!waiter.is_finished());
                    drop(holder);
                }
                waiter.join().unwrap()
            });
            std::fs::remove_file(&path).unwrap();
            if leaves {
                // It got the lock, and then it turned out that the file is no device.
                assert!(matches!(error, Error::NotMydrv { .. }), "{error}");
            } else {
                assert!(matches!(error, Error::Busy { .. }) && began.elapsed() >= wait, "{error}");
            }
        }
    }
}
