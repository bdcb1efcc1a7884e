// SPDX-License-Identifier: MIT

//! A stand-in for the driver, for tests on machines that have none (feature `stand-in`, never in a release build).
//!
//! A file takes the device node's place; mappings, `read`, `write` and locks are real ones of that file. A description beside it, `NODE.stand-in`, says
//! what the driver would: INFO's fields, which rules it keeps, what goes wrong and when. Whoever opens the file by this crate gets its ioctls and its
//! refusals from here, in any process. The description is read anew by each call, so a test may change it meanwhile.
//!
//! ```
//! use mydrv::{Device, Direction, stand_in::StandIn};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = std::env::temp_dir().join(format!("stand-in-{}", std::process::id()));
//! let node = StandIn::new(64 << 10).label("camera").install(&folder, 0)?;
//! let device = Device::open(node.as_path())?;
//! device.map_mut(..)?.write(0, 7_u32)?;
//! device.sync(..4, Direction::ToDevice)?;
//! assert_eq!(StandIn::calls(&node)?.last().unwrap(), "sync 0x0 0x4 to-device");
//! # drop(device);
//! # std::fs::remove_dir_all(folder)?;
//! # Ok(())
//! # }
//! ```

use std::{
    collections::BTreeMap,
    ffi::c_void,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Mutex,
};

use mydrv_abi::{
    MYDRV_ABI_VERSION, MYDRV_CACHE_COHERENT, MYDRV_FLAG_ADDRESSES, MYDRV_FLAG_DMA_COHERENT, MYDRV_FLAG_PRISTINE,
    MYDRV_FLAG_READ_ONLY, MYDRV_FLAG_RESERVED, MYDRV_FLAG_SCRUB, MYDRV_LABEL_BYTES, MYDRV_SYNC_FROM_DEVICE, MYDRV_SYNC_TO_DEVICE,
    MydrvInfo, MydrvSync, MydrvUsers,
};
use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags},
};
use serde::{Deserialize, Serialize};

#[cfg(not(debug_assertions))]
compile_error!("the feature `stand-in` is for tests: it must not get into a release build");

/// What the stand-in answers, and where it differs from a driver that does everything right.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandIn {
    /// `MydrvInfo::abi_version`.
    pub abi_version: u32,
    /// `MydrvInfo::size_bytes`. The file is a page longer, so that nothing but the rules keeps anyone from going beyond.
    pub size_bytes: u64,
    /// `MydrvInfo::cache_mode`.
    pub cache_mode: u32,
    /// `MydrvInfo::flags`. `MYDRV_FLAG_PRISTINE` is added as the driver would.
    pub flags: u32,
    /// `MydrvInfo::dma_address`.
    pub dma_address: u64,
    /// `MydrvInfo::physical_address`.
    pub physical_address: u64,
    /// `MydrvInfo::region_base`.
    pub region_base: u64,
    /// `MydrvInfo::region_size_bytes`.
    pub region_size_bytes: u64,
    /// `MydrvInfo::label`.
    pub label: String,
    /// How many files other programs have open, and how many they have ever opened for writing: added to what is counted here.
    pub elsewhere: (u32, u64),
    /// What stat(2) shows of the device node.
    pub node: Node,
    /// The rules that it does not keep.
    pub without: Vec<Rule>,
    /// Pages that are not memory of their own: the one at the first offset is the one at the second, through any mapping.
    pub aliases: Vec<(u64, u64)>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// The device node, as stat(2) shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Major and minor number; `None`: no character device.
    pub number: Option<(u32, u32)>,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What the driver promises to refuse or to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "docs/driver-abi.md")]
pub enum Rule {
    MapPrivate,
    MapExec,
    ExecLater,
    MapBeyond,
    MapOutside,
    Grow,
    DontDump,
    OpenWrite,
    UnknownIoctl,
    SyncDirection,
    SyncEmpty,
    SyncReserved,
    SyncBeyond,
    SyncOverflow,
    SyncReader,
    SeekBeyond,
    WriteAtEnd,
    ReadAtEnd,
    Scrub,
}

impl Rule {
    /// Every rule.
    pub const ALL: &[Self] = &[
        Self::MapPrivate,
        Self::MapExec,
        Self::ExecLater,
        Self::MapBeyond,
        Self::MapOutside,
        Self::Grow,
        Self::DontDump,
        Self::OpenWrite,
        Self::UnknownIoctl,
        Self::SyncDirection,
        Self::SyncEmpty,
        Self::SyncReserved,
        Self::SyncBeyond,
        Self::SyncOverflow,
        Self::SyncReader,
        Self::SeekBeyond,
        Self::WriteAtEnd,
        Self::ReadAtEnd,
        Self::Scrub,
    ];
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// In which call.
    pub call: Call,
    /// In the how manieth such call of a process, counted from 1; 0: in each.
    pub number: u64,
    /// What happens.
    pub effect: Effect,
}

/// The calls in which something may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Call {
    /// Opening for reading only.
    OpenRead,
    /// Opening for writing.
    OpenWrite,
    /// `MYDRV_IOC_INFO` and `MYDRV_IOC_USERS`.
    Info,
    /// `MYDRV_IOC_SYNC`.
    Sync,
    /// `mmap`.
    Map,
    /// `mmap` while this process has another mapping.
    MapBeside,
    /// `mmap` of a file that another process handed down.
    MapHandedDown,
    /// `pread`.
    Read,
    /// `pwrite`.
    Write,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// The call answers this error.
    Errno(i32),
    /// The mapping is of memory that nobody else sees once it is written.
    Private,
    /// The first byte comes out inverted.
    Flip,
    /// The device goes: calls answer `ENODEV`, mappings raise `SIGBUS`.
    Unbind,
    /// The process gets this signal first.
    Signal(i32),
}

impl StandIn {
    /// A driver that does everything right, with a coherent buffer of that many bytes, filled with zeros, which a reserved region at 1 GiB holds.
    pub fn new(size_bytes: u64) -> Self {
        Self {
            abi_version: MYDRV_ABI_VERSION,
            size_bytes,
            cache_mode: MYDRV_CACHE_COHERENT,
            flags: MYDRV_FLAG_RESERVED | MYDRV_FLAG_ADDRESSES | MYDRV_FLAG_DMA_COHERENT,
            dma_address: 1 << 30,
            physical_address: 1 << 30,
            region_base: 1 << 30,
            region_size_bytes: size_bytes,
            label: String::new(),
            elsewhere: (0, 0),
            node: Node {
                number: Some((10, 120)),
                mode: 0o660,
                uid: 0,
                gid: 0,
            },
            without: Vec::new(),
            aliases: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// The same with this label.
    pub fn label(mut self, label: &str) -> Self {
        self.label = label.into();
        self
    }

    /// The same with this fault.
    pub fn fault(mut self, call: Call, number: u64, effect: Effect) -> Self {
        self.faults.push(Fault { call, number, effect });
        self
    }

    /// Makes file and description in a folder, and answers the file's path: `FOLDER/mydrvINDEX`.
    ///
    /// # Errors
    ///
    /// Whatever the file system answers.
    pub fn install(&self, folder: &Path, index: u32) -> io::Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let node = folder.join(format!("mydrv{index}"));
        File::create(&node)?.set_len(self.size_bytes + rustix::param::page_size() as u64)?;
        for part in ["written", "calls"] {
            let _ = fs::remove_file(beside(&node, part));
        }
        self.describe(&node)?;
        Ok(node)
    }

    /// Replaces the description, for the next call.
    ///
    /// # Errors
    ///
    /// Whatever the file system answers.
    pub fn describe(&self, node: &Path) -> io::Result<()> {
        let partial = beside(node, "stand-in.new");
        fs::write(&partial, serde_json::to_vec_pretty(self)?)?;
        fs::rename(partial, beside(node, "stand-in"))
    }

    /// The calls so far, one a line, of all processes.
    ///
    /// # Errors
    ///
    /// Whatever the file system answers.
    pub fn calls(node: &Path) -> io::Result<Vec<String>> {
        let text = fs::read_to_string(beside(node, "calls"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn of(node: &Path) -> Option<Self> {
        let text = fs::read(beside(node, "stand-in")).ok()?;
        // A test's own mistake must not pass for a device that is none.
        Some(serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}.stand-in: {error}", node.display())))
    }

    fn keeps(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }
}

/// What stat(2) would show of the node, if there is a stand-in.
pub(crate) fn node(path: &Path) -> Option<Node> {
    StandIn::of(path).map(|stand_in| stand_in.node)
}

fn beside(node: &Path, suffix: &str) -> PathBuf {
    let mut path = node.as_os_str().to_owned();
    path.push(format!(".{suffix}"));
    path.into()
}

fn log(node: &Path, line: &str) {
    let file = OpenOptions::new().append(true).create(true).open(beside(node, "calls"));
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    assert!(written.is_ok(), "{}.calls: {written:?}", node.display());
}

/// What this process has done with stand-ins.
#[derive(Default)]
struct Process {
    calls: BTreeMap<(PathBuf, Call), u64>,
    /// Open devices; the last one's end scrubs.
    open: BTreeMap<PathBuf, u64>,
    mappings: u64,
}

static PROCESS: Mutex<Option<Process>> = Mutex::new(None);

fn process<T>(work: impl FnOnce(&mut Process) -> T) -> T {
    let mut process = PROCESS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    work(process.get_or_insert_default())
}

/// What a fault does to a call that it lets through.
#[derive(Default, PartialEq, Eq)]
struct Twist {
    private: bool,
    flip: bool,
}

/// Notes the call, and does what the description asks of it.
fn enter(node: &Path, stand_in: &StandIn, call: Call, line: &str) -> Result<Twist, Errno> {
    log(node, line);
    let number = process(|process| {
        let count = process.calls.entry((node.into(), call)).or_default();
        *count += 1;
        *count
    });
    let mut twist = Twist::default();
    for fault in &stand_in.faults {
        if fault.call != call || fault.number != 0 && fault.number != number {
            continue;
        }
        match fault.effect {
            Effect::Errno(errno) => return Err(Errno::from_raw_os_error(errno)),
            Effect::Private => twist.private = true,
            Effect::Flip => twist.flip = true,
            Effect::Unbind => {
                let gone = OpenOptions::new().write(true).open(node).and_then(|file| file.set_len(0));
                assert!(gone.is_ok(), "{gone:?}");
            }
            Effect::Signal(signal) => {
                let sent = rustix::process::Signal::from_named_raw(signal)
                    .map(|signal| rustix::process::kill_process(rustix::process::getpid(), signal));
                assert_eq!(sent, Some(Ok(())));
            }
        }
    }
    match fs::metadata(node) {
        Ok(metadata) if metadata.len() > 0 => Ok(twist),
        _ => Err(Errno::NODEV),
    }
}

/// Before a file is opened.
pub(crate) fn opening(node: &Path, write: bool) -> Result<(), Errno> {
    let Some(stand_in) = StandIn::of(node) else {
        return Ok(());
    };
    if !write {
        return enter(node, &stand_in, Call::OpenRead, "open read-only").map(drop);
    }
    enter(node, &stand_in, Call::OpenWrite, "opening")?;
    if stand_in.flags & MYDRV_FLAG_READ_ONLY != 0 && stand_in.keeps(Rule::OpenWrite) {
        return Err(Errno::ROFS);
    }
    log(node, "open");
    assert!(fs::write(beside(node, "written"), "").is_ok());
    Ok(())
}

/// A mapping that somebody asks for.
pub(crate) struct Map {
    pub(crate) offset: u64,
    pub(crate) length: usize,
    pub(crate) private: bool,
    pub(crate) exec: bool,
}

/// An open file's side of the driver.
#[derive(Debug)]
pub(crate) struct Driver {
    node: PathBuf,
    writable: bool,
    handed_down: bool,
}

impl Driver {
    /// The stand-in behind an open file, if there is one. `path` is how this process opened it; another process' files are handed down.
    pub(crate) fn behind(fd: impl AsFd, path: &Path, writable: bool) -> Option<Self> {
        use std::os::fd::AsRawFd;
        let node = fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).ok()?;
        StandIn::of(&node)?;
        let handed_down = fs::canonicalize(path).ok().as_ref() != Some(&node);
        if !handed_down {
            process(|process| *process.open.entry(node.clone()).or_default() += 1);
        }
        Some(Self {
            node,
            writable,
            handed_down,
        })
    }

    fn stand_in(&self) -> StandIn {
        StandIn::of(&self.node).unwrap_or_else(|| panic!("{}.stand-in is gone", self.node.display()))
    }

    pub(crate) fn info(&self) -> Result<MydrvInfo, Errno> {
        let stand_in = self.stand_in();
        enter(&self.node, &stand_in, Call::Info, "info")?;
        let pristine = if beside(&self.node, "written").exists() {
            0
        } else {
            MYDRV_FLAG_PRISTINE
        };
        let mut label = [0; MYDRV_LABEL_BYTES];
        label[..stand_in.label.len()].copy_from_slice(stand_in.label.as_bytes());
        let with = |flag, value| if stand_in.flags & flag == flag { value } else { 0 };
        Ok(MydrvInfo {
            abi_version: stand_in.abi_version,
            flags: stand_in.flags | pristine,
            size_bytes: stand_in.size_bytes,
            dma_address: with(MYDRV_FLAG_ADDRESSES, stand_in.dma_address),
            physical_address: with(MYDRV_FLAG_ADDRESSES, stand_in.physical_address),
            region_base: with(MYDRV_FLAG_ADDRESSES | MYDRV_FLAG_RESERVED, stand_in.region_base),
            region_size_bytes: with(MYDRV_FLAG_RESERVED, stand_in.region_size_bytes),
            cache_mode: stand_in.cache_mode,
            label,
            ..MydrvInfo::default()
        })
    }

    pub(crate) fn users(&self) -> Result<MydrvUsers, Errno> {
        let stand_in = self.stand_in();
        enter(&self.node, &stand_in, Call::Info, "users")?;
        let open = process(|process| process.open.get(&self.node).copied().unwrap_or_default());
        let calls = fs::read_to_string(beside(&self.node, "calls")).unwrap_or_default();
        Ok(MydrvUsers {
            opened_for_writing: calls.lines().filter(|line| *line == "open").count() as u64 + stand_in.elsewhere.1,
            open_files: open as u32 + stand_in.elsewhere.0,
            ..MydrvUsers::default()
        })
    }

    pub(crate) fn sync(&self, request: &MydrvSync) -> Result<(), Errno> {
        let stand_in = self.stand_in();
        let direction = match request.direction {
            MYDRV_SYNC_TO_DEVICE => "to-device",
            MYDRV_SYNC_FROM_DEVICE => "from-device",
            _ => "nowhere",
        };
        let line = format!("sync {:#x} {:#x} {direction}", request.offset, request.length);
        enter(&self.node, &stand_in, Call::Sync, &line)?;
        let end = request.offset.checked_add(request.length);
        let discards =
            request.direction == MYDRV_SYNC_FROM_DEVICE && !self.writable && stand_in.flags & MYDRV_FLAG_READ_ONLY == 0;
        for (rule, broken, errno) in [
            (Rule::SyncDirection, direction == "nowhere", Errno::INVAL),
            (Rule::SyncEmpty, request.length == 0, Errno::INVAL),
            (Rule::SyncReserved, request.reserved != 0, Errno::INVAL),
            (Rule::SyncOverflow, end.is_none(), Errno::RANGE),
            (
                Rule::SyncBeyond,
                end.is_some_and(|end| end > stand_in.size_bytes),
                Errno::RANGE,
            ),
            (Rule::SyncReader, discards, Errno::BADF),
        ] {
            if broken && stand_in.keeps(rule) {
                return Err(errno);
            }
        }
        Ok(())
    }

    /// Answers whether the mapping must be private instead.
    pub(crate) fn map(&self, request: &Map) -> Result<bool, Errno> {
        let stand_in = self.stand_in();
        let line = format!("map {:#x} {:#x}", request.offset, request.length);
        let mut twist = enter(&self.node, &stand_in, Call::Map, &line)?;
        for (call, now) in [
            (Call::MapBeside, process(|process| process.mappings) > 0),
            (Call::MapHandedDown, self.handed_down),
        ] {
            if now {
                twist.private |= enter(&self.node, &stand_in, call, &line)?.private;
            }
        }
        let end = request.offset.saturating_add(request.length as u64);
        for (rule, broken, errno) in [
            (Rule::MapPrivate, request.private, Errno::INVAL),
            (Rule::MapExec, request.exec, Errno::PERM),
            (Rule::MapOutside, request.offset >= stand_in.size_bytes, Errno::NXIO),
            (
                Rule::MapBeyond,
                request.offset < stand_in.size_bytes && end > stand_in.size_bytes,
                Errno::NXIO,
            ),
        ] {
            if broken && stand_in.keeps(rule) {
                return Err(errno);
            }
        }
        Ok(twist.private)
    }

    /// After a mapping of whole pages was made for a program to use.
    pub(crate) fn mapped(&self, base: *mut c_void, offset: u64, length: usize, write: bool) {
        process(|process| process.mappings += 1);
        let page = rustix::param::page_size() as u64;
        let protection = if write {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        let Ok(file) = OpenOptions::new().read(true).write(write).open(&self.node) else {
            return;
        };
        for (alias, of) in self.stand_in().aliases {
            if alias < offset || alias + page > offset + length as u64 {
                continue;
            }
            // SAFETY: replaces one page of the mapping that the caller has just made, to which nothing refers yet.
            let replaced = unsafe {
                let place = base.byte_add((alias - offset) as usize);
                rustix::mm::mmap(
                    place,
                    page as usize,
                    protection,
                    MapFlags::SHARED | MapFlags::FIXED,
                    &file,
                    of,
                )
            };
            assert!(replaced.is_ok(), "{replaced:?}");
        }
    }

    pub(crate) fn protect_exec(&self) -> Result<(), Errno> {
        self.refuse_unless_without(Rule::ExecLater, Errno::ACCESS)
    }

    pub(crate) fn grow(&self) -> Result<(), Errno> {
        self.refuse_unless_without(Rule::Grow, Errno::FAULT)
    }

    /// Any ioctl but the known ones.
    pub(crate) fn ioctl(&self) -> Result<(), Errno> {
        self.refuse_unless_without(Rule::UnknownIoctl, Errno::NOTTY)
    }

    fn refuse_unless_without(&self, rule: Rule, errno: Errno) -> Result<(), Errno> {
        if self.stand_in().keeps(rule) { Err(errno) } else { Ok(()) }
    }

    pub(crate) fn seek(&self, offset: u64) -> Result<(), Errno> {
        let stand_in = self.stand_in();
        if offset > stand_in.size_bytes && stand_in.keeps(Rule::SeekBeyond) {
            return Err(Errno::INVAL);
        }
        Ok(())
    }

    /// Before `pread`: how many of the bytes there are.
    pub(crate) fn reading(&self, offset: u64, length: usize) -> Result<(usize, bool), Errno> {
        let stand_in = self.stand_in();
        let twist = enter(&self.node, &stand_in, Call::Read, &format!("read {offset:#x} {length:#x}"))?;
        let there = if stand_in.keeps(Rule::ReadAtEnd) {
            stand_in.size_bytes.saturating_sub(offset).min(length as u64) as usize
        } else {
            length
        };
        Ok((there, twist.flip))
    }

    pub(crate) fn writing(&self, offset: u64, length: usize) -> Result<(), Errno> {
        let stand_in = self.stand_in();
        enter(&self.node, &stand_in, Call::Write, &format!("write {offset:#x} {length:#x}"))?;
        if offset >= stand_in.size_bytes && stand_in.keeps(Rule::WriteAtEnd) {
            return Err(Errno::NOSPC);
        }
        Ok(())
    }

    /// The flags that a mapping would have, where the file's has these.
    pub(crate) fn vm_flags(&self, mut flags: Vec<String>) -> Vec<String> {
        let stand_in = self.stand_in();
        for (rule, flag) in [(Rule::Grow, "de"), (Rule::DontDump, "dd")] {
            if stand_in.keeps(rule) {
                flags.push(flag.into());
            }
        }
        // The file system that the test's folder is on may be mounted noexec.
        flags.retain(|flag| flag != "me");
        if !stand_in.keeps(Rule::ExecLater) {
            flags.push("me".into());
        }
        flags
    }
}

/// A mapping went.
pub(crate) fn unmapped() {
    process(|process| process.mappings = process.mappings.saturating_sub(1));
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.handed_down {
            return;
        }
        let last = process(|process| {
            let open = process.open.entry(self.node.clone()).or_default();
            *open -= 1;
            *open == 0
        });
        let Some(stand_in) = StandIn::of(&self.node) else {
            return;
        };
        if last && stand_in.flags & MYDRV_FLAG_SCRUB != 0 && stand_in.keeps(Rule::Scrub) {
            let zeros = vec![0; stand_in.size_bytes as usize];
            let scrubbed = OpenOptions::new()
                .write(true)
                .open(&self.node)
                .and_then(|mut file| file.write_all(&zeros));
            assert!(scrubbed.is_ok(), "{scrubbed:?}");
            let _ = fs::remove_file(beside(&self.node, "written"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Direction, Error, attempt};

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("mydrv-stand-in-{}-{name}", std::process::id()))
    }

    #[test]
    fn everything_is_allowed_without_the_rules_and_nothing_with_them() {
        let folder = folder("rules");
        for keep in [true, false] {
            let mut stand_in = StandIn::new(8192);
            if !keep {
                stand_in.without = Rule::ALL.to_vec();
            }
            let node = stand_in.install(&folder, 0).unwrap();
            let device = Device::open(node.as_path()).unwrap();
            let request = |offset, private, exec| attempt::Map {
                offset,
                length: 4096,
                private,
                write: false,
                exec,
            };
            let tries = [
                attempt::map(&device, &request(0, true, false)),
                attempt::map(&device, &request(8192, false, false)),
                attempt::grow(&device),
                attempt::unknown_ioctl(&device),
                attempt::seek(&device, 8193),
                attempt::write(&device, 8192),
                attempt::sync(&device, 0, 0, 1, 0),
                attempt::sync(&device, 0, 8193, 1, 0),
            ];
            for (index, result) in tries.iter().enumerate() {
                assert_eq!(result.is_err(), keep, "{index}: {result:?}");
            }
            assert_eq!(attempt::read(&device, 8192).unwrap(), if keep { 0 } else { 1 });
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn faults_come_when_they_are_due() {
        let folder = folder("faults");
        let node = StandIn::new(8192)
            .fault(Call::Sync, 2, Effect::Errno(Errno::IO.raw_os_error()))
            .fault(Call::Sync, 4, Effect::Unbind)
            .install(&folder, 0)
            .unwrap();
        let device = Device::open(node.as_path()).unwrap();
        let results: Vec<_> = (0..4).map(|_| device.sync(.., Direction::ToDevice)).collect();
        assert!(
            matches!(
                &results[..],
                [Ok(()), Err(Error::System { .. }), Ok(()), Err(Error::Gone { .. })]
            ),
            "{results:?}"
        );
        assert!(matches!(device.info(), Err(Error::Gone { .. })));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn pristine_until_written_and_again_after_a_scrub() {
        let folder = folder("pristine");
        let mut stand_in = StandIn::new(4096);
        stand_in.flags |= MYDRV_FLAG_SCRUB;
        let node = stand_in.install(&folder, 0).unwrap();
        let pristine = || {
            Device::open_read_only(node.as_path())
                .unwrap()
                .info()
                .unwrap()
                .flags
                .pristine()
        };
        assert!(pristine());
        let device = Device::open(node.as_path()).unwrap();
        device.map_mut(..).unwrap().write(0, 1_u8).unwrap();
        assert!(!device.info().unwrap().flags.pristine());
        drop(device);
        assert!(pristine());
        let device = Device::open_read_only(node.as_path()).unwrap();
        assert_eq!(device.map(..).unwrap().read::<u8>(0).unwrap(), 0);
        drop(device);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn aliased_pages_are_one() {
        let folder = folder("alias");
        let mut stand_in = StandIn::new(16384);
        stand_in.aliases = vec![(8192, 4096)];
        let node = stand_in.install(&folder, 0).unwrap();
        let device = Device::open(node.as_path()).unwrap();
        let mut mapping = device.map_mut(..).unwrap();
        mapping.write(4096, 7_u8).unwrap();
        assert_eq!(mapping.read::<u8>(8192).unwrap(), 7);
        assert_eq!(mapping.read::<u8>(12288).unwrap(), 0);
        drop(mapping);
        drop(device);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn an_access_of_the_processor_begins_and_ends_with_a_hand_over() {
        let folder = std::env::temp_dir().join(format!("mydrv-access-{}", std::process::id()));
        let node = StandIn::new(16 << 10).install(&folder, 0).unwrap();
        let device = Device::open(node.as_path()).unwrap();
        let syncs = || {
            let calls = StandIn::calls(&node).unwrap();
            calls.into_iter().filter(|call| call.starts_with("sync")).collect::<Vec<_>>()
        };
        let mut mapping = device.map_mut(4096..12288).unwrap();
        mapping.cpu_access().unwrap().read::<u8>(0).unwrap();
        assert_eq!(syncs(), ["sync 0x1000 0x2000 from-device"]);
        mapping.cpu_access_mut().unwrap().write(0, 1_u32).unwrap();
        assert_eq!(
            syncs()[1..],
            ["sync 0x1000 0x2000 from-device", "sync 0x1000 0x2000 to-device"]
        );
        let mut access = mapping.cpu_access_mut().unwrap();
        access.write(0, 2_u32).unwrap();
        access.end().unwrap();
        assert_eq!(
            syncs()[3..],
            ["sync 0x1000 0x2000 from-device", "sync 0x1000 0x2000 to-device"]
        );
        // A reader of a buffer that others write may not discard their data.
        let reader = Device::open_read_only(node.as_path()).unwrap();
        assert!(matches!(
            reader.map(..).unwrap().cpu_access(),
            Err(crate::Error::NotWritable { .. })
        ));
        drop((mapping, device, reader));
        fs::remove_dir_all(folder).unwrap();
    }
}
