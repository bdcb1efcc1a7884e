// SPDX-License-Identifier: MIT

//! The opt-in guard against `SIGBUS`: a fault in one of this crate's mappings whose device has gone becomes [`Error::Gone`](crate::Error::Gone)
//! instead of the program's end. The handler puts zero pages of the process's own where the mapping was and marks it; the call that touched it
//! looks at the mark afterwards. Every other `SIGBUS` goes to whoever had it before.
//!
//! Each mapping has a place in a list that grows and never shrinks, so that the handler can walk it without a lock. A place is taken and given
//! back under a mutex; a sequence number tells the handler when it reads one that is just changing, which cannot be the one that faulted.

use std::{
    cell::UnsafeCell,
    io, mem, ptr,
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, compiler_fence, fence},
    },
};

use rustix::mm::{MapFlags, ProtFlags};

/// A mapping as the handler sees it.
#[derive(Debug)]
pub(crate) struct Place {
    /// Odd while the place changes hands.
    sequence: AtomicUsize,
    /// The mapping's first byte; 0 while the place is free.
    start: AtomicUsize,
    len: AtomicUsize,
    writable: AtomicBool,
    gone: AtomicBool,
    /// The next one; set before the place is published.
    next: *const Place,
}

// SAFETY: everything but `next` is atomic, and `next` never changes once others see the place.
unsafe impl Sync for Place {}
// SAFETY: as above; places are never freed.
unsafe impl Send for Place {}

static FIRST: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());
/// The places that no mapping has.
static FREE: Mutex<Vec<&'static Place>> = Mutex::new(Vec::new());

impl Place {
    /// A place for the mapping of `len` bytes from `start` on, both whole pages. Before anything touches it.
    pub(crate) fn take(start: usize, len: usize, writable: bool) -> &'static Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let place = free.pop().unwrap_or_else(|| {
            let place: &'static Self = Box::leak(Box::new(Self {
                sequence: AtomicUsize::new(0),
                start: AtomicUsize::new(0),
                len: AtomicUsize::new(0),
                writable: AtomicBool::new(false),
                gone: AtomicBool::new(false),
                next: FIRST.load(Ordering::Relaxed),
            }));
            FIRST.store(ptr::from_ref(place).cast_mut(), Ordering::Release);
            place
        });
        place.gone.store(false, Ordering::Relaxed);
        place.writable.store(writable, Ordering::Relaxed);
        place.set(start, len);
        place
    }

    /// The mapping ends. Before it is unmapped: the address may be another's at once.
    pub(crate) fn give_back(&'static self) {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        self.set(0, 0);
        free.push(self);
    }

    /// Whether the handler has replaced the mapping.
    pub(crate) fn is_gone(&self) -> bool {
        // The access before this may be what ran the handler, on this very thread.
        compiler_fence(Ordering::SeqCst);
        self.gone.load(Ordering::Acquire)
    }

    /// Under the mutex.
    fn set(&self, start: usize, len: usize) {
        self.sequence.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.sequence.fetch_add(1, Ordering::Release);
    }

    /// Start and length, unless the place is just changing.
    fn range(&self) -> Option<(usize, usize)> {
        let before = self.sequence.load(Ordering::Acquire);
        let range = (self.start.load(Ordering::Relaxed), self.len.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        (before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before && range.0 != 0).then_some(range)
    }
}

/// What `SIGBUS` did before the guard; written once, before the guard's handler can run.
struct Before(UnsafeCell<mem::MaybeUninit<libc::sigaction>>);

// SAFETY: written only by `install()` under its `Once`, before the handler that reads it is in place.
unsafe impl Sync for Before {}

static BEFORE: Before = Before(UnsafeCell::new(mem::MaybeUninit::uninit()));
static INSTALL: Once = Once::new();
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Installs the guard for the whole process and for good. From then on a call of this crate that touches a mapping whose device has gone answers
/// [`Error::Gone`](crate::Error::Gone); whoever goes through pointers or slices reads zeros, and asks [`Mapping::is_gone`](crate::Mapping::is_gone). It
/// covers the mappings that exist already, of all threads. Installing it again does nothing.
///
/// A `SIGBUS` that no mapping of this crate raised, or that tells of a memory error or a misaligned access, goes to the handler that was there before, or
/// ends the program as if this one were not there. A handler that is installed later must hand on what is not its own in the same way, or the
/// guard is gone.
///
/// # Errors
///
/// What `sigaction(2)` answers; it does not fail on Linux.
pub fn install() -> io::Result<()> {
    INSTALL.call_once(|| {
        // SAFETY: zeros are a valid sigaction; the pointers are to this function's own and to a cell that nobody reads before the second call
        // has succeeded. The handler is async-signal-safe: it reads atomics, and makes one mmap or sigaction.
        let done = unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            if libc::sigaction(libc::SIGBUS, ptr::null(), (*BEFORE.0.get()).as_mut_ptr()) != 0 {
                return;
            }
            action.sa_sigaction = handler as *const () as usize;
            // On the alternate stack, where there is one: an earlier handler may be there for a stack that has overflown.
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            action.sa_mask = (*BEFORE.0.get()).assume_init_ref().sa_mask;
            libc::sigaction(libc::SIGBUS, &action, ptr::null_mut())
        };
        INSTALLED.store(done == 0, Ordering::Release);
    });
    if INSTALLED.load(Ordering::Acquire) {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Async-signal-safe.
extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands over a valid siginfo, and a SIGBUS of its own tells the address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // BUS_ADRERR is what a fault beyond the object answers. A memory error (BUS_MCEERR_*) in a mapping of ours is no device that has gone.
    if code == libc::BUS_ADRERR && replace(address) {
        return;
    }
    // SAFETY: `install()` filled it in before this handler was in place.
    let before = unsafe { (*BEFORE.0.get()).assume_init_ref() };
    // By somebody, or by the kernel of a memory error that nobody has touched yet. Nothing faults again on return.
    let sent = code <= 0 || code == libc::BUS_MCEERR_AO;
    match before.sa_sigaction {
        // Sent, and ignored. The kernel does not ignore a fault.
        libc::SIG_IGN if sent => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: zeros are a valid sigaction: the default. A fault happens again on return; a signal that was sent waits until then.
            unsafe {
                let default: libc::sigaction = mem::zeroed();
                libc::sigaction(signal, &default, ptr::null_mut());
                if sent {
                    libc::raise(signal);
                }
            }
        }
        function if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: a handler that was installed with SA_SIGINFO has this signature (sigaction(2)).
            let function: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { mem::transmute(function) };
            function(signal, info, context);
        }
        function => {
            // SAFETY: a handler that was installed without SA_SIGINFO has this signature.
            let function: extern "C" fn(libc::c_int) = unsafe { mem::transmute(function) };
            function(signal);
        }
    }
}

/// Replaces the mapping that has the address by zero pages; false if none has.
fn replace(address: usize) -> bool {
    let mut at = FIRST.load(Ordering::Acquire).cast_const();
    // SAFETY: places are published whole and never freed.
    while let Some(place) = unsafe { at.as_ref() } {
        at = place.next;
        let Some((start, len)) = place.range().filter(|(start, len)| (*start..start + len).contains(&address)) else {
            continue;
        };
        let protection = if place.writable.load(Ordering::Relaxed) {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // Before the pages: whoever sees them sees this.
        place.gone.store(true, Ordering::Release);
        // Not one page alone: the next one would fault as well. Nothing is reserved for pages that nobody writes.
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: the range is a mapping of this crate, which its owner, the thread that faulted or one that lent it out, keeps mapped meanwhile.
        return unsafe { rustix::mm::mmap_anonymous(start as *mut _, len, protection, flags) }.is_ok();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        os::{fd::OwnedFd, unix::process::ExitStatusExt},
        process::{Command, Output},
        thread,
    };

    use super::*;
    use crate::{Device, Error, Mapping};

    const PAGES: usize = 16;

    /// A file in memory stands in for the buffer: made shorter, it answers as a device that has gone.
    fn device() -> (Device, OwnedFd) {
        let fd = rustix::fs::memfd_create("mydrv", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let size = (PAGES * rustix::param::page_size()) as u64;
        rustix::fs::ftruncate(&fd, size).unwrap();
        let handle = fd.try_clone().unwrap();
        (Device::for_test(fd, size), handle)
    }

    fn gone<T>(result: crate::Result<T>) -> bool {
        matches!(result, Err(Error::Gone { .. }))
    }

    #[test]
    fn every_access_answers_gone_and_goes_on_doing_so() {
        install().unwrap();
        let (device, file) = device();
        let mut mapping = device.map_mut(..).unwrap();
        mapping.write(8, 5_u64).unwrap();
        let reader = device.map(4096..).unwrap();
        assert!(!mapping.is_gone());
        rustix::fs::ftruncate(&file, 0).unwrap();
        assert!(gone(mapping.write(8, 6_u64)));
        assert!(mapping.is_gone());
        assert!(gone(mapping.read::<u64>(8)) && gone(mapping.read::<u8>(PAGES * 4096 - 1)));
        assert!(gone(mapping.copy_from(1, &[7; 100])) && gone(mapping.copy_to(1, &mut [0; 100])));
        // The other one has not been touched yet.
        assert!(!reader.is_gone());
        assert!(gone(reader.copy_to(0, &mut [0; 3])) && reader.is_gone());
        drop((mapping, reader));
        // A new mapping of a device that is there takes the place of the old one without its mark.
        let (device, _file) = self::device();
        let mut mapping = device.map_mut(..).unwrap();
        assert!(!mapping.is_gone());
        mapping.write(0, 1_u64).unwrap();
    }

    #[test]
    fn a_device_that_goes_in_the_middle_is_seen_by_every_thread() {
        install().unwrap();
        let (device, file) = device();
        let (kept, _file) = self::device();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    let mut mapping = device.map_mut(..).unwrap();
                    let kept = &kept;
                    scope.spawn(move || {
                        let mut beside = kept.map_mut(..).unwrap();
                        let (mut rounds, mut bytes) = (0_u64, vec![0; mapping.len()]);
                        loop {
                            // What lives is left alone.
                            beside.write(0, rounds).unwrap();
                            beside.copy_to(0, &mut bytes).unwrap();
                            if gone(mapping.copy_to(0, &mut bytes)) {
                                assert!(mapping.is_gone() && gone(mapping.copy_from(0, &bytes)));
                                return rounds;
                            }
                            rounds += 1;
                        }
                    })
                })
                .collect();
            thread::sleep(std::time::Duration::from_millis(20));
            rustix::fs::ftruncate(&file, 0).unwrap();
            for worker in workers {
                worker.join().unwrap();
            }
        });
        assert_eq!(kept.map(..).unwrap().read::<u8>(4095).unwrap(), 0);
    }

    #[test]
    fn threads_that_share_one_mapping_as_atomics_live_on() {
        install().unwrap();
        let (device, file) = device();
        let mut mapping = device.map_mut(..).unwrap();
        let words = mapping.atomics::<u32>().unwrap();
        rustix::fs::ftruncate(&file, 0).unwrap();
        thread::scope(|scope| {
            for worker in 0..4 {
                scope.spawn(move || {
                    for word in words.iter().skip(worker) {
                        word.store(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(mapping.is_gone());
    }

    /// Runs the test of this name in a process of its own, which may die.
    fn child(name: &str) -> Output {
        Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "--test-threads=1",
                &format!("sigbus::tests::{name}"),
            ])
            .env("MYDRV_TEST_CHILD", name)
            .output()
            .unwrap()
    }

    fn is_child(name: &str) -> bool {
        env::var("MYDRV_TEST_CHILD").is_ok_and(|child| child == name)
    }

    /// A mapping that is not the crate's, faulting.
    fn foreign_fault() {
        let (device, file) = device();
        // SAFETY: a new mapping of the test's own, which is there for the volatile read, whatever that raises.
        unsafe {
            let at = rustix::mm::mmap(ptr::null_mut(), 4096, ProtFlags::READ, MapFlags::SHARED, &device, 0).unwrap();
            rustix::fs::ftruncate(&file, 0).unwrap();
            at.cast::<u8>().read_volatile();
        }
    }

    #[test]
    fn without_the_guard_the_program_ends() {
        let name = "without_the_guard_the_program_ends";
        if is_child(name) {
            let (device, file) = device();
            let mapping = device.map(..).unwrap();
            rustix::fs::ftruncate(&file, 0).unwrap();
            let _ = mapping.read::<u8>(0);
            return;
        }
        assert_eq!(child(name).status.signal(), Some(libc::SIGBUS));
    }

    #[test]
    fn a_foreign_fault_ends_the_program_as_ever() {
        let name = "a_foreign_fault_ends_the_program_as_ever";
        if is_child(name) {
            install().unwrap();
            let (device, _file) = device();
            let _mapping = device.map(..).unwrap();
            foreign_fault();
            return;
        }
        assert_eq!(child(name).status.signal(), Some(libc::SIGBUS));
    }

    #[test]
    fn a_signal_that_was_sent_ends_the_program_or_is_ignored_as_before() {
        let name = "a_signal_that_was_sent_ends_the_program_or_is_ignored_as_before";
        if is_child(name) {
            let ignored = env::var_os("MYDRV_TEST_IGNORED").is_some();
            // SAFETY: no handler of anybody's runs: the default or nothing.
            unsafe { libc::signal(libc::SIGBUS, if ignored { libc::SIG_IGN } else { libc::SIG_DFL }) };
            install().unwrap();
            // SAFETY: raise has no precondition.
            unsafe { libc::raise(libc::SIGBUS) };
            println!("lives");
            return;
        }
        assert_eq!(child(name).status.signal(), Some(libc::SIGBUS));
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", &format!("sigbus::tests::{name}")])
            .env("MYDRV_TEST_CHILD", name)
            .env("MYDRV_TEST_IGNORED", "1")
            .output()
            .unwrap();
        assert!(
            output.status.success() && String::from_utf8_lossy(&output.stdout).contains("lives"),
            "{output:?}"
        );
    }

    extern "C" fn earlier(_signal: libc::c_int, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
        // SAFETY: write and _exit are async-signal-safe, and the buffer is a constant.
        unsafe {
            libc::write(1, b"the earlier handler".as_ptr().cast(), 19);
            libc::_exit(42);
        }
    }

    extern "C" fn earlier_plain(_signal: libc::c_int) {
        earlier(0, ptr::null_mut(), ptr::null_mut());
    }

    #[test]
    fn an_earlier_handler_gets_what_is_not_the_guards() {
        let name = "an_earlier_handler_gets_what_is_not_the_guards";
        if is_child(name) {
            // SAFETY: zeros are a valid sigaction, and both handlers have the signature that their flags say.
            unsafe {
                let mut action: libc::sigaction = mem::zeroed();
                if env::var_os("MYDRV_TEST_PLAIN").is_some() {
                    action.sa_sigaction = earlier_plain as *const () as usize;
                } else {
                    action.sa_sigaction = earlier as *const () as usize;
                    action.sa_flags = libc::SA_SIGINFO;
                }
                libc::sigaction(libc::SIGBUS, &action, ptr::null_mut());
            }
            install().unwrap();
            install().unwrap();
            let (device, file) = device();
            let mapping: Mapping = device.map(..).unwrap();
            rustix::fs::ftruncate(&file, 0).unwrap();
            assert!(gone(mapping.read::<u8>(0)), "the guard's own");
            foreign_fault();
            return;
        }
        for plain in [false, true] {
            let mut command = Command::new(env::current_exe().unwrap());
            command
                .args(["--exact", "--nocapture", &format!("sigbus::tests::{name}")])
                .env("MYDRV_TEST_CHILD", name);
            if plain {
                command.env("MYDRV_TEST_PLAIN", "1");
            }
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(42), "{output:?}");
            assert!(
                String::from_utf8_lossy(&output.stdout).contains("the earlier handler"),
                "{output:?}"
            );
        }
    }
}
