// SPDX-License-Identifier: MIT

//! One open device: the calls on its file. What goes through memory is in `mapping.rs`.

use std::{
    fmt,
    ops::{Bound, RangeBounds},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use mydrv_abi::{
    MYDRV_ABI_VERSION, MYDRV_IOC_INFO, MYDRV_IOC_SYNC, MYDRV_IOC_USERS, MYDRV_SYNC_FROM_DEVICE, MYDRV_SYNC_TO_DEVICE, MydrvInfo,
    MydrvSync, MydrvUsers,
};
use rustix::{
    fs::{FlockOperation, OFlags},
    io::Errno,
    ioctl::{self, Opcode},
};

use crate::{
    discover::Selector,
    error::{Error, Result},
    info::{Info, Users},
    mapping::{Mapping, MappingMut},
};

/// How a program shares the device with others. The lock is advisory and the open file's: held until [`Device::lock`] changes it, or until the
/// [`Device`], its clones and its mappings are dropped.
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
        let fd = crate::node::open(&path, access)?;
        if self.lock != Lock::None {
            lock(&fd, self.lock, self.wait).map_err(|errno| Error::from_errno(&path, "flock", errno))?;
        }
        Device::from_fd(fd, path, self.write)
    }
}

/// flock(2) knows no time-out, so between never and for ever this asks again and again, seldom after a while.
fn lock(fd: &OwnedFd, lock: Lock, wait: Duration) -> rustix::io::Result<()> {
    let (blocking, at_once) = match lock {
        Lock::Shared => (FlockOperation::LockShared, FlockOperation::NonBlockingLockShared),
        Lock::Exclusive => (FlockOperation::LockExclusive, FlockOperation::NonBlockingLockExclusive),
        Lock::None => (FlockOperation::Unlock, FlockOperation::Unlock),
    };
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

/// An open device, locked as [`Lock`] says. A clone is the same open file; it is closed with the last clone and the last mapping.
#[derive(Clone)]
pub struct Device(Arc<Open>);

struct Open {
    fd: OwnedFd,
    path: PathBuf,
    writable: bool,
    size_bytes: u64,
    #[cfg(feature = "stand-in")]
    stand_in: Option<crate::stand_in::Driver>,
}

impl Open {
    fn info(&self) -> Result<Info> {
        match self.raw_info() {
            Ok(raw) => Ok(Info::from(&raw)),
            Err(Errno::NOTTY | Errno::INVAL | Errno::OPNOTSUPP) => Err(Error::NotMydrv { path: self.path.clone() }),
            Err(errno) => Err(Error::from_errno(&self.path, "ioctl MYDRV_IOC_INFO", errno)),
        }
    }

    fn raw_info(&self) -> std::result::Result<MydrvInfo, Errno> {
        #[cfg(feature = "stand-in")]
        if let Some(driver) = &self.stand_in {
            return driver.info();
        }
        // SAFETY: MYDRV_IOC_INFO writes one MydrvInfo, integers for which any bytes are valid; both come from the shared ABI.
        unsafe { ioctl::ioctl(&self.fd, ioctl::Getter::<{ MYDRV_IOC_INFO as Opcode }, MydrvInfo>::new()) }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("fd", &self.0.fd)
            .field("path", &self.0.path)
            .field("writable", &self.0.writable)
            .field("size_bytes", &self.0.size_bytes)
            .finish()
    }
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
        let mut open = Open {
            #[cfg(feature = "stand-in")]
            stand_in: crate::stand_in::Driver::behind(&fd, &path, writable),
            fd,
            path,
            writable,
            size_bytes: 0,
        };
        let info = open.info()?;
        if info.abi_version < MYDRV_ABI_VERSION {
            return Err(Error::Abi {
                path: open.path,
                found: info.abi_version,
                needed: MYDRV_ABI_VERSION,
            });
        }
        open.size_bytes = info.size_bytes;
        Ok(Self(Arc::new(open)))
    }

    /// Takes another lock, or with [`Lock::None`] gives up the one there is. Waits as [`OpenOptions::wait`] says: with [`Duration::ZERO`] not at all,
    /// with [`Duration::MAX`] until it is to be had. A shared and an exclusive lock are exchanged in two steps (flock(2)), between which another program
    /// may take it.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`]: not to be had in time. Then there is no lock.
    pub fn lock(&self, lock: Lock, wait: Duration) -> Result<()> {
        self::lock(&self.0.fd, lock, wait).map_err(|errno| self.error("flock", errno))
    }

    /// The device node.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Whether the device was opened for writing.
    pub fn writable(&self) -> bool {
        self.0.writable
    }

    /// The buffer's length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.0.size_bytes
    }

    /// Asks the driver about the buffer.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`]; [`Error::NotMydrv`] if the file is something else.
    pub fn info(&self) -> Result<Info> {
        self.0.info()
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

    fn raw_users(&self) -> std::result::Result<MydrvUsers, Errno> {
        #[cfg(feature = "stand-in")]
        if let Some(driver) = self.stand_in() {
            return driver.users();
        }
        // SAFETY: MYDRV_IOC_USERS writes one MydrvUsers, integers for which any bytes are valid; both come from the shared ABI.
        unsafe { ioctl::ioctl(&self.0.fd, ioctl::Getter::<{ MYDRV_IOC_USERS as Opcode }, MydrvUsers>::new()) }
    }

    fn raw_sync(&self, request: MydrvSync) -> std::result::Result<(), Errno> {
        #[cfg(feature = "stand-in")]
        if let Some(driver) = self.stand_in() {
            return driver.sync(&request);
        }
        // SAFETY: MYDRV_IOC_SYNC reads one MydrvSync; both come from the shared ABI.
        unsafe {
            ioctl::ioctl(
                &self.0.fd,
                ioctl::Setter::<{ MYDRV_IOC_SYNC as Opcode }, MydrvSync>::new(request),
            )
        }
    }

    pub(crate) fn pread(&self, bytes: &mut [u8], offset: u64) -> std::result::Result<usize, Errno> {
        #[cfg(feature = "stand-in")]
        if let Some(driver) = self.stand_in() {
            let (there, flip) = driver.reading(offset, bytes.len())?;
            let count = rustix::io::pread(&self.0.fd, &mut bytes[..there], offset)?;
            if flip && count > 0 {
                bytes[0] = !bytes[0];
            }
            return Ok(count);
        }
        rustix::io::pread(&self.0.fd, bytes, offset)
    }

    pub(crate) fn pwrite(&self, bytes: &[u8], offset: u64) -> std::result::Result<usize, Errno> {
        #[cfg(feature = "stand-in")]
        if let Some(driver) = self.stand_in() {
            driver.writing(offset, bytes.len())?;
        }
        rustix::io::pwrite(&self.0.fd, bytes, offset)
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
            Errno::BADF => Error::NotWritable {
                path: self.0.path.clone(),
            },
            errno => self.error("ioctl MYDRV_IOC_SYNC", errno),
        })
    }

    /// Maps a range of bytes for reading. It need not start at a page. The mapping keeps the device open.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], also if the range is empty; [`Error::Gone`].
    pub fn map(&self, range: impl RangeBounds<u64>) -> Result<Mapping> {
        let (offset, length) = self.range(range)?;
        Mapping::new(self, offset, length, false)
    }

    /// Maps a range of bytes for reading and writing. It need not start at a page. The mapping keeps the device open.
    ///
    /// # Errors
    ///
    /// As [`Device::map`], and [`Error::NotWritable`] if the device was not opened for writing.
    pub fn map_mut(&self, range: impl RangeBounds<u64>) -> Result<MappingMut> {
        let (offset, length) = self.range(range)?;
        if !self.0.writable {
            return Err(Error::NotWritable {
                path: self.0.path.clone(),
            });
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
        if !self.0.writable {
            return Err(Error::NotWritable {
                path: self.0.path.clone(),
            });
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
        Self(Arc::new(Open {
            fd,
            path: "/dev/mydrv0".into(),
            writable: true,
            size_bytes,
            #[cfg(feature = "stand-in")]
            stand_in: None,
        }))
    }

    /// The stand-in in the driver's place, if there is one.
    #[cfg(feature = "stand-in")]
    pub(crate) fn stand_in(&self) -> Option<&crate::stand_in::Driver> {
        self.0.stand_in.as_ref()
    }

    pub(crate) fn error(&self, call: &'static str, errno: Errno) -> Error {
        Error::from_errno(&self.0.path, call, errno)
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
            Bound::Unbounded => Some(self.0.size_bytes),
        };
        match (offset, end) {
            (Some(offset), Some(end)) if offset <= end && end <= self.0.size_bytes => Ok((offset, end - offset)),
            (offset, end) => {
                let offset = offset.unwrap_or(u64::MAX);
                let length = end.unwrap_or(u64::MAX).saturating_sub(offset);
                Err(Error::OutOfRange {
                    path: self.0.path.clone(),
                    offset,
                    length,
                    size: self.0.size_bytes,
                })
            }
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(size_bytes: u64) -> Device {
        let fd = std::fs::File::open("/dev/null").unwrap().into();
        Device(Arc::new(Open {
            fd,
            path: "/dev/mydrv0".into(),
            writable: false,
            size_bytes,
            #[cfg(feature = "stand-in")]
            stand_in: None,
        }))
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
    fn a_missing_node_is_not_found() {
        let error = OpenOptions::new().open(Path::new("/dev/mydrv-none")).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
    }

    /// One file, opened twice.
    fn twice(name: &str) -> [Device; 2] {
        let path = std::env::temp_dir().join(format!("mydrv-lock-{name}-{}", std::process::id()));
        let open = || Device::for_test(std::fs::File::create(&path).unwrap().into(), 0);
        let opened = [open(), open()];
        std::fs::remove_file(&path).unwrap();
        opened
    }

    #[test]
    fn locks_keep_out_what_they_say_until_they_are_given_up() {
        let [one, other] = twice("kinds");
        let now = Duration::ZERO;
        let is_busy = |result| matches!(result, Err(Error::Busy { .. }));
        one.lock(Lock::Shared, now).unwrap();
        other.lock(Lock::Shared, now).unwrap();
        assert!(is_busy(one.lock(Lock::Exclusive, now)));
        other.lock(Lock::None, now).unwrap();
        one.lock(Lock::Exclusive, now).unwrap();
        assert!(is_busy(other.lock(Lock::Shared, now)));
        // A clone is the same open file.
        let clone = one.clone();
        drop(one);
        assert!(is_busy(other.lock(Lock::Shared, now)));
        drop(clone);
        other.lock(Lock::Exclusive, now).unwrap();
    }

    /// What a wait makes of a lock that somebody holds for a while, or for good.
    #[test]
    fn a_wait_ends_when_the_user_leaves_or_when_its_time_is_over() {
        for (wait, leaves) in [
            (Duration::ZERO, false),
            (Duration::from_millis(30), false),
            (Duration::from_secs(600), true),
            (Duration::MAX, true),
        ] {
            let [holder, waiting] = twice(&format!("{wait:?}"));
            holder.lock(Lock::Shared, Duration::ZERO).unwrap();
            let began = Instant::now();
            let result = thread::scope(|scope| {
                let waiter = scope.spawn(|| waiting.lock(Lock::Exclusive, wait));
                thread::sleep(Duration::from_millis(40));
                if leaves {
                    assert!(!waiter.is_finished());
                    drop(holder);
                }
                waiter.join().unwrap()
            });
            match result {
                Ok(()) => assert!(leaves),
                Err(error) => assert!(
                    !leaves && matches!(error, Error::Busy { .. }) && began.elapsed() >= wait,
                    "{error}"
                ),
            }
        }
    }
}
