// SPDX-License-Identifier: MIT

//! Random calls on the device. An actor draws one call after the other from its seed; what the kernel answers is held against the rules
//! that the driver promises. The storm lets many actors loose at once while the device comes and goes; the fuzzer replays single ones.

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use libc::{EAGAIN, ENODEV, ENOMEM, ENOTTY, MAP_FIXED, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE};
use mydrv_abi::*;

use crate::{
    device::*,
    sys::{self, Child, Edge, End, Errno, Mapping, Shared},
};

const ADVICE: [i32; 22] = [
    libc::MADV_NORMAL,
    libc::MADV_RANDOM,
    libc::MADV_SEQUENTIAL,
    libc::MADV_WILLNEED,
    libc::MADV_DONTNEED,
    libc::MADV_FREE,
    libc::MADV_REMOVE,
    libc::MADV_DONTFORK,
    libc::MADV_DOFORK,
    libc::MADV_MERGEABLE,
    libc::MADV_UNMERGEABLE,
    libc::MADV_HUGEPAGE,
    libc::MADV_NOHUGEPAGE,
    libc::MADV_DONTDUMP,
    libc::MADV_DODUMP,
    libc::MADV_WIPEONFORK,
    libc::MADV_KEEPONFORK,
    libc::MADV_COLD,
    libc::MADV_PAGEOUT,
    libc::MADV_POPULATE_READ,
    libc::MADV_POPULATE_WRITE,
    25, // MADV_COLLAPSE
];

/// One sequence of calls.
struct Actor<'a> {
    random: Random,
    device: &'a Device,
    /// The only addresses where mappings are changed.
    arena: &'a Mapping,
    edge: Edge,
    /// Open files of the device, and how they were opened.
    files: Vec<(OwnedFd, i32)>,
    pipe: (OwnedFd, OwnedFd),
    /// Whether the device may go away meanwhile, so that any call may answer ENODEV.
    comes_and_goes: bool,
}

impl<'a> Actor<'a> {
    fn new(seed: u64, device: &'a Device, arena: &'a Mapping, comes_and_goes: bool) -> Result<Self, String> {
        let setup = |errno: Errno| format!("setup: {errno}");
        Ok(Actor {
            random: Random(seed),
            device,
            arena,
            edge: Edge::new().map_err(setup)?,
            files: Vec::new(),
            pipe: sys::pipe().map_err(setup)?,
            comes_and_goes,
        })
    }

    /// One random call; an error tells which promise it broke.
    fn step(&mut self) -> Result<(), String> {
        match self.random.below(40) {
            0 | 1 => self.open(),
            2 => self.close(),
            3..=9 => self.mmap(),
            10..=12 => self.munmap(),
            13..=15 => self.mremap(),
            16..=18 => self.on_arena(libc::SYS_mprotect, |random| random.below(16) as i32),
            19..=21 => self.on_arena(libc::SYS_madvise, |random| random.pick(&ADVICE)),
            22 => self.on_arena(libc::SYS_msync, |random| random.below(8) as i32),
            23 => self.on_arena(libc::SYS_mlock2, |random| random.below(2) as i32),
            24 => self.on_arena(libc::SYS_munlock, |_| 0),
            25..=28 => self.touch(),
            29..=31 => self.transfer(),
            32 | 33 => self.ioctl(),
            34 => self.seek(),
            35 | 36 => self.odd_call(),
            37 => self.splice(),
            38 => self.map_anywhere(),
            _ => self.fork(),
        }
    }

    /// An interesting number about the size of the buffer.
    fn number(&mut self) -> u64 {
        let size = self.device.info.size_bytes;
        let page = sys::page() as u64;
        let base = self.random.pick(&[
            0,
            1,
            page,
            size / 2,
            size - page,
            size,
            size + page,
            1 << 31,
            1 << 32,
            1 << 62,
            1 << 63,
            u64::MAX,
        ]);
        let step = self.random.pick(&[0, 0, 0, 1, 8, page, 2 << 20]);
        if self.random.one_in(2) {
            base.wrapping_add(step)
        } else {
            base.wrapping_sub(step)
        }
    }

    /// A part of the arena: mostly whole pages, small or large.
    fn range(&mut self) -> (usize, usize) {
        let (page, pages) = (sys::page(), self.arena.len / sys::page());
        let len = match self.random.below(4) {
            0 => 1,
            1 => 1 + self.random.below(16),
            2 => 512,
            _ => 1 + self.random.below(pages),
        };
        let len = len.min(pages);
        let mut at = self.random.below(pages - len + 1);
        if self.random.one_in(2) {
            at = at / 512 * 512;
        }
        (at * page, len * page)
    }

    /// An address for the kernel to read or write: in the arena, at the edge of memory, or nowhere.
    fn address(&mut self) -> usize {
        match self.random.below(8) {
            0 => 0,
            1 => 0xffff_8000_0000_0000,
            2 => self.edge.before(self.random.below(128)),
            _ => self.arena.address + self.random.below(self.arena.len),
        }
    }

    fn file(&mut self) -> Option<(&OwnedFd, i32)> {
        if self.files.is_empty() {
            return None;
        }
        let i = self.random.below(self.files.len());
        self.files.get(i).map(|(fd, flags)| (fd, *flags))
    }

    fn open(&mut self) -> Result<(), String> {
        let access = self
            .random
            .pick(&[libc::O_RDONLY, libc::O_RDWR, libc::O_RDWR, libc::O_WRONLY, 3]);
        let more = self.random.pick(&[
            0,
            0,
            0,
            libc::O_NONBLOCK,
            libc::O_APPEND,
            libc::O_TRUNC,
            libc::O_DIRECT,
            libc::O_PATH,
            libc::O_SYNC,
        ]);
        let opened = sys::open(&self.device.path, access | more | libc::O_CLOEXEC);
        if let Ok(fd) = opened {
            if access != libc::O_RDONLY && more != libc::O_PATH && self.device.is_read_only() {
                return Err(format!("a read-only buffer was opened with {:#x}", access | more));
            }
            if self.files.len() >= 8 {
                let i = self.random.below(8);
                self.files.swap_remove(i);
            }
            self.files.push((fd, access | more));
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        if !self.files.is_empty() {
            let i = self.random.below(self.files.len());
            self.files.swap_remove(i);
        }
        Ok(())
    }

    fn mmap(&mut self) -> Result<(), String> {
        let (at, len) = self.range();
        let page = sys::page();
        let size = self.device.size();
        let offset = match self.random.below(4) {
            0 => self.number() as usize,
            1 => self.random.below(size / page) * page,
            _ => self.random.below(size.div_ceil(2 << 20)) * (2 << 20),
        };
        let prot = self.random.pick(&[
            PROT_READ,
            PROT_READ | PROT_WRITE,
            PROT_READ | PROT_WRITE,
            PROT_WRITE,
            0,
            5,
            7,
            4,
        ]);
        let kind = self.random.pick(&[
            MAP_SHARED,
            MAP_SHARED,
            MAP_SHARED,
            MAP_SHARED,
            libc::MAP_PRIVATE,
            libc::MAP_SHARED_VALIDATE,
            0,
        ]);
        let more = self.random.pick(&[
            0,
            0,
            0,
            libc::MAP_POPULATE,
            libc::MAP_LOCKED,
            libc::MAP_NORESERVE,
            libc::MAP_GROWSDOWN,
            libc::MAP_HUGETLB,
        ]);
        // Half of the time as long as the buffer allows.
        let len = if offset < size && self.random.one_in(2) {
            len.min((size - offset).next_multiple_of(page))
        } else {
            len
        };
        let address = self.arena.address + at;
        let Some((fd, opened)) = self.file() else { return Ok(()) };
        let args = [
            address,
            len,
            prot as usize,
            (kind | more | MAP_FIXED) as usize,
            fd.as_raw_fd() as usize,
            offset,
        ];
        // SAFETY: The arena has nothing that is referred to.
        let answer = unsafe { sys::syscall(libc::SYS_mmap, args) };
        let access = opened & libc::O_ACCMODE;
        let lawful = kind & 3 != libc::MAP_PRIVATE
            && kind != 0
            && prot & PROT_EXEC == 0
            && (access == libc::O_RDWR || access == libc::O_RDONLY && prot & PROT_WRITE == 0)
            && opened & libc::O_PATH == 0
            && offset % page == 0
            && offset.checked_add(len).is_some_and(|end| end <= size);
        let told = || {
            format!(
                "mmap of {len:#x} bytes at {offset:#x}, prot {prot}, flags {:#x}, file {opened:#x}: {answer:?}",
                kind | more
            )
        };
        match answer {
            Ok(_) if !lawful => Err(told()),
            Err(Errno(ENOMEM | EAGAIN)) => Ok(()),
            Err(Errno(ENODEV)) if self.comes_and_goes => Ok(()),
            Err(_) if lawful && kind == MAP_SHARED && matches!(more, 0 | libc::MAP_POPULATE | libc::MAP_NORESERVE) => Err(told()),
            _ => Ok(()),
        }
    }

    /// Where the kernel likes.
    fn map_anywhere(&mut self) -> Result<(), String> {
        let len = self.range().1;
        let Some((fd, _)) = self.file() else { return Ok(()) };
        if let Ok(mapping) = sys::mmap(fd, len, R, MAP_SHARED, 0)
            && mapping.len > self.device.size()
        {
            return Err(format!("mmap of {len:#x} bytes: allowed"));
        }
        Ok(())
    }

    fn munmap(&mut self) -> Result<(), String> {
        let (at, len) = self.range();
        // Unmapped and reserved again in one step: another thread's memory must not come there.
        let _ = self.arena.reserve(at, len);
        Ok(())
    }

    fn mremap(&mut self) -> Result<(), String> {
        let (from, old_len) = self.range();
        let (to, new_len) = self.range();
        let old_len = self.random.pick(&[0, old_len, new_len]);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | self.random.pick(&[0, 0, libc::MREMAP_DONTUNMAP]);
        if from + old_len > self.arena.len {
            return Ok(());
        }
        let args = [
            self.arena.address + from,
            old_len,
            new_len,
            flags as usize,
            self.arena.address + to,
            0,
        ];
        // SAFETY: The arena has nothing that is referred to.
        let _ = unsafe { sys::syscall(libc::SYS_mremap, args) };
        Ok(())
    }

    fn on_arena(&mut self, number: libc::c_long, argument: impl FnOnce(&mut Random) -> i32) -> Result<(), String> {
        let (at, len) = self.range();
        let _ = self.arena.on(number, at, len, argument(&mut self.random));
        Ok(())
    }

    /// The kernel reads for us: as an access, but what cannot be accessed gives an error.
    fn touch(&mut self) -> Result<(), String> {
        for _ in 0..16 {
            sys::readable(self.arena.address + self.random.below(self.arena.len / 8) * 8);
        }
        Ok(())
    }

    /// read, write, with any address: the device's own mappings among them.
    fn transfer(&mut self) -> Result<(), String> {
        let (address, len, offset) = (self.address(), self.number() as usize % (1 << 17), self.number());
        let number = self
            .random
            .pick(&[libc::SYS_read, libc::SYS_write, libc::SYS_pread64, libc::SYS_pwrite64]);
        let writes_memory = matches!(number, libc::SYS_read | libc::SYS_pread64);
        // Beyond the arena's end there may be memory of this program.
        let end = self.arena.address + self.arena.len;
        let len = if (self.arena.address..end).contains(&address) {
            len.min(end - address)
        } else {
            len
        };
        let size = self.device.info.size_bytes;
        let Some((fd, opened)) = self.file() else { return Ok(()) };
        let args = [fd.as_raw_fd() as usize, address, len, offset as usize, 0, 0];
        // SAFETY: What is read goes to the arena, to the page before an inaccessible one, or nowhere.
        let answer = unsafe { sys::syscall(number, args) };
        let told = || format!("call {number} of {len:#x} bytes at {offset:#x}, file {opened:#x}: {answer:?}");
        let right = if writes_memory { libc::O_WRONLY } else { libc::O_RDONLY };
        match answer {
            Ok(moved) if moved > len || opened & libc::O_ACCMODE == right && moved > 0 => Err(told()),
            Ok(moved)
                if matches!(number, libc::SYS_pread64 | libc::SYS_pwrite64)
                    && moved > 0
                    && offset.saturating_add(moved as u64) > size =>
            {
                Err(told())
            }
            _ => Ok(()),
        }
    }

    fn ioctl(&mut self) -> Result<(), String> {
        let bits = self.random.word() as u32;
        let command = match self.random.below(6) {
            0 | 1 => MYDRV_IOC_SYNC,
            2 => MYDRV_IOC_INFO,
            3 => MYDRV_IOC_SYNC ^ 1 << (bits % 32),
            4 => MYDRV_IOC_INFO ^ 1 << (bits % 32),
            _ => bits & 0xffff_00ff | 0xd800,
        };
        let direction = self.random.below(4) as u32;
        let sync = MydrvSync {
            offset: self.number(),
            length: self.number(),
            direction,
            reserved: u32::from(self.random.one_in(8)),
        };
        let size = self.device.info.size_bytes;
        // Room for whatever size the command names.
        let mut room = [0u64; 2048];
        [room[0], room[1]] = [sync.offset, sync.length];
        room[2] = u64::from(sync.direction) | u64::from(sync.reserved) << 32;
        let Some((fd, opened)) = self.file() else { return Ok(()) };
        let answer = sys::ioctl(fd, command, &mut room);
        let told = || format!("ioctl {command:#x} with {sync:?}: {answer:?}");
        let within = sync.length > 0 && sync.offset.checked_add(sync.length).is_some_and(|end| end <= size);
        match command {
            _ if opened & libc::O_PATH != 0 => Ok(()),
            MYDRV_IOC_SYNC if answer.is_ok() && !(within && matches!(direction, 1 | 2) && sync.reserved == 0) => Err(told()),
            MYDRV_IOC_INFO if !self.comes_and_goes && answer.is_err() => Err(told()),
            MYDRV_IOC_SYNC | MYDRV_IOC_INFO => Ok(()),
            _ if command >> 8 & 0xff == 0xd8 && answer != Err(Errno(ENOTTY)) => Err(told()),
            _ => Ok(()),
        }
    }

    fn seek(&mut self) -> Result<(), String> {
        let (offset, whence) = (self.number() as usize, self.random.below(6));
        let size = self.device.size();
        let Some((fd, _)) = self.file() else { return Ok(()) };
        match sys::on_file(libc::SYS_lseek, fd, offset, whence, 0) {
            Ok(position) if position > size => Err(format!("lseek to {offset:#x}, whence {whence}: {position:#x}")),
            _ => Ok(()),
        }
    }

    /// Calls that mean little to a device, and must mean no harm.
    fn odd_call(&mut self) -> Result<(), String> {
        const CALLS: [libc::c_long; 9] = [
            libc::SYS_ftruncate,
            libc::SYS_fallocate,
            libc::SYS_fsync,
            libc::SYS_fdatasync,
            libc::SYS_fadvise64,
            libc::SYS_readahead,
            libc::SYS_sync_file_range,
            libc::SYS_flock,
            libc::SYS_fcntl,
        ];
        let number = self.random.pick(&CALLS);
        let (mut a, b, c) = (self.number() as usize, self.number() as usize, self.random.below(8));
        match number {
            // Never waiting; a second descriptor would be lost.
            libc::SYS_flock => {
                a = self.random.pick(&[libc::LOCK_SH, libc::LOCK_EX, libc::LOCK_UN]) as usize | libc::LOCK_NB as usize
            }
            libc::SYS_fcntl => {
                a = self.random.pick(&[
                    libc::F_GETFL,
                    libc::F_SETFL,
                    libc::F_GETFD,
                    libc::F_SETPIPE_SZ,
                    libc::F_SETLEASE,
                ]) as usize
            }
            _ => {}
        }
        // O_NONBLOCK and the like may come and go; O_ASYNC could bring signals.
        let b = if number == libc::SYS_fcntl {
            b & (libc::O_NONBLOCK | libc::O_APPEND) as usize
        } else {
            b
        };
        if let Some((fd, _)) = self.file() {
            let _ = sys::on_file(number, fd, a, b, c);
        }
        Ok(())
    }

    /// Pipes, and another process's view of this one's memory.
    fn splice(&mut self) -> Result<(), String> {
        let (address, len) = (
            self.arena.address + self.random.below(self.arena.len),
            1 + self.random.below(8192),
        );
        let len = len.min(self.arena.address + self.arena.len - address);
        let flags = libc::SPLICE_F_NONBLOCK as usize;
        let which = self.random.below(4);
        let (reading, writing) = (self.pipe.0.as_raw_fd() as usize, self.pipe.1.as_raw_fd() as usize);
        let Some((fd, _)) = self.file() else { return Ok(()) };
        let fd = fd.as_raw_fd() as usize;
        let vector = [address, len];
        let vector = vector.as_ptr() as usize;
        // SAFETY: Only the arena and the pipe are written; nothing waits.
        let _ = unsafe {
            match which {
                0 => sys::syscall(libc::SYS_splice, [fd, 0, writing, 0, len, flags]),
                1 => sys::syscall(libc::SYS_splice, [reading, 0, fd, 0, len, flags]),
                2 => sys::syscall(libc::SYS_vmsplice, [writing, vector, 1, flags, 0, 0]),
                _ => sys::syscall(
                    libc::SYS_process_vm_readv,
                    [std::process::id() as usize, vector, 1, vector, 1, 0],
                ),
            }
        };
        // A full pipe would be all that is tested from then on.
        if let Ok(pipe) = sys::pipe() {
            self.pipe = pipe;
        }
        Ok(())
    }

    /// A child accesses what it inherited, and may well die of it.
    fn fork(&mut self) -> Result<(), String> {
        let places: [usize; 8] = std::array::from_fn(|_| self.random.below(self.arena.len / 8) * 8);
        let write = self.random.one_in(2);
        let arena = self.arena;
        let child = sys::fork_bare(|| {
            for at in places {
                if write {
                    arena.set(at, TAG);
                } else {
                    arena.touch(at);
                }
            }
            0
        });
        match child.and_then(sys::wait) {
            Ok(End::Exit(0) | End::Signal(libc::SIGBUS | libc::SIGSEGV)) | Err(_) => Ok(()),
            Ok(end) => Err(format!("a child that accesses memory: {end:?}")),
        }
    }
}

/// Far from where the kernel puts mappings by itself: what is unmapped for a moment stays free.
fn arena(device: &Device) -> Outcome<Mapping> {
    allowed(
        "reserve",
        Mapping::reserved_at(0x10_0000_0000, device.size().next_multiple_of(2 << 20) + (4 << 20)),
    )
}

/// No mapping of the device may be executable or private.
fn look_at_maps(path: &Path) -> Result<(), String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let ours = |line: &&str| line.contains(&*path.to_string_lossy());
    match maps.lines().filter(ours).find(|line| {
        line.split(' ')
            .nth(1)
            .is_some_and(|perms| perms.contains('x') || !perms.contains('s'))
    }) {
        Some(line) => Err(format!("a mapping of the device: {line}")),
        None => Ok(()),
    }
}

/// Actors in several processes and threads, while the device comes and goes.
pub fn storm(device: &Device, seconds: u64, seed: u64) -> Outcome {
    const PROCESSES: u64 = 3;
    const THREADS: u64 = 2;
    // SAFETY: An atomic is valid when zero.
    let stop = allowed("share memory", unsafe { Shared::<AtomicBool>::zeroed() })?;
    println!("# seed {seed}");
    let mut children = Vec::new();
    for process in 0..PROCESSES {
        let child = sys::fork(|_| {
            let Ok(arena) = arena(device) else { return 2 };
            let act = |thread: u64| -> Result<u64, String> {
                let mut actor = Actor::new(seed + process * THREADS + thread, device, &arena, true)?;
                let mut steps = 0;
                while !stop.load(SeqCst) {
                    actor.step()?;
                    steps += 1;
                }
                Ok(steps)
            };
            let results = thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || act(thread))).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap_or(Err("panicked".into())))
                    .collect::<Vec<_>>()
            });
            for result in results {
                match result.and_then(|steps| look_at_maps(&device.path).map(|()| steps)) {
                    Ok(steps) => println!("# process {process}: {steps} calls"),
                    Err(what) => {
                        eprintln!("FAILED {what}");
                        return 1;
                    }
                }
            }
            0
        });
        children.push(allowed("fork", child)?);
    }
    let over = Instant::now() + Duration::from_secs(seconds);
    let (mut random, mut cycles) = (Random(seed), 0);
    let mut result = Ok(());
    while Instant::now() < over && result.is_ok() {
        thread::sleep(Duration::from_millis(random.below(400) as u64));
        result = device.unbind().and_then(|()| device.bind());
        cycles += 1;
    }
    stop.store(true, SeqCst);
    for child in children {
        let end = allowed("wait", child.wait())?;
        if result.is_ok() && end != End::Exit(0) {
            result = Err(format!("seed {seed}: a process of the storm: {end:?}").into());
        }
    }
    result?;
    println!("# {cycles} times unbound and bound in {seconds} s of storm");
    Device::find(&device.path).map(drop)
}

/// One actor after the other, each in a process of its own and of one seed.
pub fn fuzz(device: &Device, seed: u64, seconds: u64, rounds: u64) -> Outcome {
    const STEPS: u32 = 2000;
    /// How long a round may take on the slowest kernel.
    const HANGS_AFTER: u32 = 300;
    println!("# seed {seed}");
    let over = Instant::now() + Duration::from_secs(seconds);
    let mut done = 0;
    while done < rounds && (done == 0 || Instant::now() < over) {
        let seed = seed.wrapping_add(done);
        let child = sys::fork(|_| {
            sys::alarm(HANGS_AFTER);
            let Ok(arena) = arena(device) else { return 2 };
            let acted = Actor::new(seed, device, &arena, false).and_then(|mut actor| {
                for step in 0..STEPS {
                    actor.step().map_err(|what| format!("step {step}: {what}"))?;
                }
                look_at_maps(&device.path)
            });
            if let Err(what) = acted {
                eprintln!("FAILED seed {seed}, {what}");
                return 1;
            }
            0
        });
        match allowed("fork", child.and_then(Child::wait))? {
            End::Exit(0) => done += 1,
            end => return Err(format!("again by: mydrv-tests fuzz --seed {seed} --rounds 1 ({end:?})").into()),
        }
    }
    println!("# {done} rounds of {STEPS} random calls");
    Device::find(&device.path).map(drop)
}
