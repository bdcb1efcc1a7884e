// SPDX-License-Identifier: MIT

//! System calls as the kernel sees them: no wrapper stands between a test's arguments and the driver. All unsafe code but the actors'
//! (`actor.rs`) is here.

use std::{
    ffi::CString,
    fmt, fs, io,
    io::{Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    ptr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use libc::{c_int, c_long};

/// What a system call answers.
pub type Call<T = usize> = Result<T, Errno>;

/// An error of a system call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The system's page size in bytes.
pub fn page() -> usize {
    // SAFETY: Always safe.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// A raw system call.
///
/// # Safety
///
/// The kernel may read and write whatever `args` point to, and change mappings that they name.
pub unsafe fn syscall(number: c_long, args: [usize; 6]) -> Call {
    // SAFETY: By the caller's promise.
    let ret = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if ret < 0 { Err(errno()) } else { Ok(ret as usize) }
}

fn errno() -> Errno {
    Errno(io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

// ---- Files

/// open(2).
pub fn open(path: &Path, flags: c_int) -> Call<OwnedFd> {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Errno(libc::EINVAL))?;
    // SAFETY: The path is a string; the new file is nobody else's.
    unsafe {
        let fd = syscall(
            libc::SYS_openat,
            [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags as usize, 0, 0, 0],
        )?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// close(2), for a file that a forked child inherited.
pub fn close(fd: RawFd) {
    // SAFETY: In the child nothing else refers to the number.
    unsafe { libc::close(fd) };
}

/// A second device node of the same number.
pub fn mknod(path: &Path, device: u64) -> Call<()> {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Errno(libc::EINVAL))?;
    // SAFETY: The path is a string.
    if unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o600, device) } == 0 {
        Ok(())
    } else {
        Err(errno())
    }
}

/// ioctl(2) with a pointer to `arg`, or whatever address.
pub fn ioctl<T>(fd: &impl AsRawFd, command: u32, arg: &mut T) -> Call {
    // SAFETY: The driver reads and writes at most a structure of the size that is part of the command; the tests pass one.
    unsafe {
        syscall(
            libc::SYS_ioctl,
            [
                fd.as_raw_fd() as usize,
                command as usize,
                ptr::from_mut(arg) as usize,
                0,
                0,
                0,
            ],
        )
    }
}

/// ioctl(2) with an address that must not be accessible.
pub fn ioctl_at(fd: &impl AsRawFd, command: u32, address: usize) -> Call {
    // SAFETY: The callers pass addresses where nothing of this program is.
    unsafe { syscall(libc::SYS_ioctl, [fd.as_raw_fd() as usize, command as usize, address, 0, 0, 0]) }
}

/// pread(2).
pub fn pread(fd: &impl AsRawFd, to: &mut [u8], offset: i64) -> Call {
    // SAFETY: The kernel writes within the slice.
    unsafe {
        syscall(
            libc::SYS_pread64,
            [
                fd.as_raw_fd() as usize,
                to.as_mut_ptr() as usize,
                to.len(),
                offset as usize,
                0,
                0,
            ],
        )
    }
}

/// pwrite(2).
pub fn pwrite(fd: &impl AsRawFd, from: &[u8], offset: i64) -> Call {
    // SAFETY: The kernel reads within the slice.
    unsafe {
        syscall(
            libc::SYS_pwrite64,
            [
                fd.as_raw_fd() as usize,
                from.as_ptr() as usize,
                from.len(),
                offset as usize,
                0,
                0,
            ],
        )
    }
}

/// read(2).
pub fn read(fd: &impl AsRawFd, to: &mut [u8]) -> Call {
    // SAFETY: The kernel writes within the slice.
    unsafe {
        syscall(
            libc::SYS_read,
            [fd.as_raw_fd() as usize, to.as_mut_ptr() as usize, to.len(), 0, 0, 0],
        )
    }
}

/// write(2).
pub fn write(fd: &impl AsRawFd, from: &[u8]) -> Call {
    // SAFETY: The kernel reads within the slice.
    unsafe {
        syscall(
            libc::SYS_write,
            [fd.as_raw_fd() as usize, from.as_ptr() as usize, from.len(), 0, 0, 0],
        )
    }
}

/// write(2) from whatever address: how the kernel's own access to a mapping is tried.
pub fn write_from(fd: &impl AsRawFd, address: usize, len: usize) -> Call {
    // SAFETY: The kernel only reads.
    unsafe { syscall(libc::SYS_write, [fd.as_raw_fd() as usize, address, len, 0, 0, 0]) }
}

/// read(2) to an address of a mapping, or where nothing of this program is.
pub fn read_to(fd: &impl AsRawFd, address: usize, len: usize) -> Call {
    // SAFETY: Mappings of the device hold nothing of this program.
    unsafe { syscall(libc::SYS_read, [fd.as_raw_fd() as usize, address, len, 0, 0, 0]) }
}

/// A call that takes a file and numbers only.
pub fn on_file(number: c_long, fd: &impl AsRawFd, a: usize, b: usize, c: usize) -> Call {
    // SAFETY: The calls this is used for (lseek, ftruncate, fallocate, fsync, …) have no pointers.
    unsafe { syscall(number, [fd.as_raw_fd() as usize, a, b, c, 0, 0]) }
}

/// A pipe: its reading and its writing end.
pub fn pipe() -> Call<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: The array has room for two; the new files are nobody else's.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err(errno());
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// vmsplice(2): asks the kernel for the pages behind an address, not for a copy.
pub fn vmsplice(pipe: &impl AsRawFd, address: usize, len: usize) -> Call {
    let vector = libc::iovec {
        iov_base: address as *mut _,
        iov_len: len,
    };
    // SAFETY: The vector is a local; the kernel only reads.
    unsafe {
        syscall(
            libc::SYS_vmsplice,
            [pipe.as_raw_fd() as usize, ptr::from_ref(&vector) as usize, 1, 0, 0, 0],
        )
    }
}

// ---- Memory

/// A mapping, unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    pub address: usize,
    pub len: usize,
}

/// mmap(2) where the kernel likes.
pub fn mmap(fd: &impl AsRawFd, len: usize, prot: c_int, flags: c_int, offset: u64) -> Call<Mapping> {
    // SAFETY: Without MAP_FIXED no other mapping changes.
    let address = unsafe {
        syscall(
            libc::SYS_mmap,
            [
                0,
                len,
                prot as usize,
                flags as usize,
                fd.as_raw_fd() as usize,
                offset as usize,
            ],
        )?
    };
    Ok(Mapping { address, len })
}

impl Mapping {
    /// Anonymous memory: with MAP_SHARED, children share it.
    pub fn anonymous(len: usize, prot: c_int, flags: c_int) -> Call<Self> {
        mmap(&-1, len, prot, flags | libc::MAP_ANONYMOUS, 0)
    }

    /// Inaccessible addresses at and after `address`, which are free.
    pub fn reserved_at(address: usize, len: usize) -> Call<Self> {
        reserve(address, len, libc::MAP_FIXED_NOREPLACE)?;
        Ok(Mapping { address, len })
    }

    /// Makes a part of this mapping inaccessible addresses again.
    pub fn reserve(&self, at: usize, len: usize) -> Call<()> {
        assert!(at + len <= self.len);
        reserve(self.address + at, len, libc::MAP_FIXED)
    }

    /// Replaces a part of this mapping by one of a file.
    pub fn map_over(&self, at: usize, fd: &impl AsRawFd, len: usize, prot: c_int, offset: u64) -> Call<()> {
        assert!(at + len <= self.len);
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        let args = [
            self.address + at,
            len,
            prot as usize,
            flags as usize,
            fd.as_raw_fd() as usize,
            offset as usize,
        ];
        // SAFETY: The range is this mapping's, to which there are no references.
        unsafe { syscall(libc::SYS_mmap, args) }.map(drop)
    }

    /// A system call on a part of this mapping: mprotect, madvise, munmap, msync, mlock, …
    pub fn on(&self, number: c_long, at: usize, len: usize, argument: c_int) -> Call {
        // SAFETY: The range is this mapping's, to which there are no references.
        unsafe { syscall(number, [self.address + at, len, argument as usize, 0, 0, 0]) }
    }

    /// remap_file_pages(2): the page at the start, from `page_offset` of the file.
    pub fn remap_file_pages(&self, page_offset: usize) -> Call {
        // SAFETY: The range is this mapping's, to which there are no references.
        unsafe { syscall(libc::SYS_remap_file_pages, [self.address, page(), 0, page_offset, 0, 0]) }
    }

    /// mremap(2) with MAYMOVE, and FIXED where a destination is given. Both mappings stay in place on failure.
    pub fn mremap(&self, old_len: usize, new_len: usize, to: Option<&Mapping>) -> Call {
        let flags = libc::MREMAP_MAYMOVE | if to.is_some() { libc::MREMAP_FIXED } else { 0 };
        let to = to.map_or(0, |to| to.address);
        // SAFETY: Both ranges are ours, without references to them.
        unsafe { syscall(libc::SYS_mremap, [self.address, old_len, new_len, flags as usize, to, 0]) }
    }

    /// Reads the word at `at`; may raise SIGBUS.
    pub fn get(&self, at: usize) -> u64 {
        assert!(at + 8 <= self.len && at.is_multiple_of(8));
        // SAFETY: Within the mapping, and aligned; others may change it meanwhile, hence volatile.
        unsafe { ptr::read_volatile((self.address + at) as *const u64) }
    }

    /// Reads the word at `at` for the access's sake.
    pub fn touch(&self, at: usize) {
        std::hint::black_box(self.get(at));
    }

    /// Writes the word at `at`; may raise SIGBUS or SIGSEGV.
    pub fn set(&self, at: usize, value: u64) {
        assert!(at + 8 <= self.len && at.is_multiple_of(8));
        // SAFETY: As in `get()`.
        unsafe { ptr::write_volatile((self.address + at) as *mut u64, value) }
    }

    /// Whether the kernel can read the word at `at` for us: as an access, but without the signal.
    pub fn readable(&self, at: usize) -> bool {
        assert!(at + 8 <= self.len);
        readable(self.address + at)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: Nothing refers to it.
        unsafe { libc::munmap(self.address as *mut _, self.len) };
    }
}

fn reserve(address: usize, len: usize, how: c_int) -> Call<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | how;
    // SAFETY: The callers own the range, or have the kernel refuse one that is in use.
    unsafe {
        syscall(
            libc::SYS_mmap,
            [address, len, libc::PROT_NONE as usize, flags as usize, usize::MAX, 0],
        )
    }
    .map(drop)
}

/// Two pages of which the second cannot be accessed.
pub struct Edge(Mapping);

impl Edge {
    pub fn new() -> Call<Self> {
        let pages = Mapping::anonymous(2 * page(), libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE)?;
        pages.on(libc::SYS_mprotect, page(), page(), libc::PROT_NONE)?;
        Ok(Edge(pages))
    }

    /// The address so many bytes before the second.
    pub fn before(&self, bytes: usize) -> usize {
        self.0.address + page() - bytes
    }
}

/// Whether the kernel can read eight bytes at the address for us.
pub fn readable(address: usize) -> bool {
    // rt_sigprocmask copies the new mask before it looks at `how`, and refuses this one.
    // SAFETY: So the mask does not change, and the address is only read.
    let ret = unsafe { syscall(libc::SYS_rt_sigprocmask, [usize::MAX, address, 0, 8, 0, 0]) };
    ret == Err(Errno(libc::EINVAL))
}

/// Memory that forked children share, all zero at first.
pub struct Shared<T: 'static>(Mapping, std::marker::PhantomData<T>);

impl<T: Sync> Shared<T> {
    /// # Safety
    ///
    /// `T` is valid when all of its bytes are zero.
    pub unsafe fn zeroed() -> Call<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        Ok(Shared(
            Mapping::anonymous(size_of::<T>(), prot, libc::MAP_SHARED)?,
            std::marker::PhantomData,
        ))
    }
}

impl<T> std::ops::Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: A page holds the value for as long as the mapping, zero is valid by `zeroed()`'s contract, and `T: Sync`.
        unsafe { &*(self.0.address as *const T) }
    }
}

// ---- Processes

/// A child, and a line to talk to it.
pub struct Child {
    pub pid: libc::pid_t,
    line: UnixStream,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    Signal(i32),
}

/// The other end of the line.
pub struct Line(UnixStream);

/// Runs `body` in a child, which exits with its value. Before any thread is made.
pub fn fork(body: impl FnOnce(&mut Line) -> i32) -> Call<Child> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| Errno(error.raw_os_error().unwrap_or(0)))?;
    // SAFETY: The child runs `body` and leaves without running what the parent set up.
    match unsafe { libc::fork() } {
        -1 => Err(errno()),
        0 => {
            drop(ours);
            let status = catch_unwind(AssertUnwindSafe(|| body(&mut Line(theirs)))).unwrap_or(101);
            // SAFETY: Always safe.
            unsafe { libc::_exit(status) }
        }
        pid => Ok(Child { pid, line: ours }),
    }
}

/// This process.
pub fn own_pid() -> libc::pid_t {
    // SAFETY: Always safe.
    unsafe { libc::getpid() }
}

/// In a child: the first process of a group of its own, which is killed when `parent` ends.
pub fn lead_group_until_parent_ends(parent: libc::pid_t) {
    // SAFETY: Neither touches memory.
    unsafe {
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // It may have ended before.
        if libc::getppid() != parent {
            libc::_exit(1);
        }
    }
}

/// Kills what is left of a group.
pub fn end_group(group: libc::pid_t) {
    // SAFETY: As above.
    unsafe { libc::kill(-group, libc::SIGKILL) };
}

/// Has these signals handled by `handler`, which does nothing but what is async-signal-safe.
pub fn handle(signals: &[i32], handler: extern "C" fn(libc::c_int)) {
    for &signal in signals {
        // SAFETY: The handler is good for any signal, by contract.
        unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
    }
}

/// As [`fork`], in a process of several threads: `body` must not take locks, which others may have held.
pub fn fork_bare(body: impl FnOnce() -> i32) -> Call<libc::pid_t> {
    // SAFETY: The child runs `body` only, which by contract waits for no other thread.
    match unsafe { libc::fork() } {
        -1 => Err(errno()),
        // SAFETY: Always safe.
        0 => unsafe { libc::_exit(body()) },
        pid => Ok(pid),
    }
}

/// Waits for a child's end.
pub fn wait(pid: libc::pid_t) -> Call<End> {
    let mut status = 0;
    loop {
        // SAFETY: The status is a local.
        if unsafe { libc::waitpid(pid, &mut status, 0) } == pid {
            break;
        }
        if errno() != Errno(libc::EINTR) {
            return Err(errno());
        }
    }
    Ok(if libc::WIFSIGNALED(status) {
        End::Signal(libc::WTERMSIG(status))
    } else {
        End::Exit(libc::WEXITSTATUS(status))
    })
}

impl Child {
    /// Waits for the child's word; false when it died instead.
    pub fn hear(&mut self) -> bool {
        self.line.read_exact(&mut [0]).is_ok()
    }

    /// Gives the child its word.
    pub fn tell(&mut self) {
        // A child that is gone tells by its status.
        let _ = self.line.write_all(&[0]);
    }

    /// Waits for the child's end.
    pub fn wait(self) -> Call<End> {
        wait(self.pid)
    }
}

impl Line {
    /// Tells the parent, and waits for its word. A parent that is gone ends the child.
    pub fn meet(&mut self) {
        if self.0.write_all(&[0]).and_then(|()| self.0.read_exact(&mut [0])).is_err() {
            // SAFETY: Always safe.
            unsafe { libc::_exit(102) }
        }
    }
}

/// Takes all privileges away from this process.
pub fn become_nobody() -> Call<()> {
    // SAFETY: Always safe.
    if unsafe { libc::setgroups(0, ptr::null()) | libc::setgid(65534) | libc::setuid(65534) } == 0 {
        Ok(())
    } else {
        Err(errno())
    }
}

/// personality(2): what old programs ask for, that every readable mapping is executable too.
pub fn read_implies_exec() -> Call {
    // SAFETY: Only later mappings change.
    unsafe { syscall(libc::SYS_personality, [libc::READ_IMPLIES_EXEC as usize, 0, 0, 0, 0, 0]) }
}

/// Sends SIGALRM to this process after so many seconds, which ends it: no child hangs for good.
pub fn alarm(seconds: u32) {
    // SAFETY: Always safe.
    unsafe { libc::alarm(seconds) };
}

/// Lets others run.
pub fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(1));
}

/// Page faults of this process so far that read nothing from disk.
pub fn faults() -> u64 {
    // SAFETY: All zero is a valid structure, and the call fills it in.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage.ru_minflt as u64
    }
}

/// KiB of last-level page tables of this process.
pub fn page_table_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPTE:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Lets this process leave core dumps.
pub fn allow_core_dumps() -> Call<()> {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: The limit is a local.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &limit) } == 0 {
        Ok(())
    } else {
        Err(errno())
    }
}

/// Ends this process with SIGABRT.
pub fn abort() -> ! {
    // SAFETY: Always safe.
    unsafe { libc::abort() }
}

// ---- SIGBUS without dying

static GUARDED: AtomicUsize = AtomicUsize::new(0);
static GUARDED_LEN: AtomicUsize = AtomicUsize::new(0);
static REVOKED: AtomicBool = AtomicBool::new(false);

/// From here on a SIGBUS within `mapping` puts anonymous memory in its place and makes [`revoked`] true; any other kills.
pub fn survive_sigbus(mapping: &Mapping) {
    GUARDED_LEN.store(mapping.len, SeqCst);
    GUARDED.store(mapping.address, SeqCst);
    REVOKED.store(false, SeqCst);
    // SAFETY: The handler only makes system calls and uses atomics.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &action, ptr::null_mut());
    }
}

/// Whether a SIGBUS was survived since [`survive_sigbus`].
pub fn revoked() -> bool {
    REVOKED.load(SeqCst)
}

extern "C" fn on_sigbus(_: c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let (start, len) = (GUARDED.load(SeqCst), GUARDED_LEN.load(SeqCst));
    // SAFETY: The kernel passes a valid structure; what is replaced is the guarded mapping, to which there are no references.
    unsafe {
        let address = (*info).si_addr() as usize;
        let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        if !(start..start + len).contains(&address) || libc::mmap(start as *mut _, len, prot, flags, -1, 0) == libc::MAP_FAILED {
            libc::_exit(103);
        }
    }
    REVOKED.store(true, SeqCst);
}
