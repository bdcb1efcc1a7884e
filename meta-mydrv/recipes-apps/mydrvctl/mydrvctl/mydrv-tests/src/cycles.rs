// SPDX-License-Identifier: MIT

//! Unbind and bind under load: the device comes and goes while processes use it.

use std::{
    os::fd::AsRawFd,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    time::{Duration, Instant},
};

use libc::{ENODEV, ENOENT, ENXIO, MAP_SHARED, O_RDWR};

use crate::{
    device::*,
    sys::{self, Child, End, Errno, Shared},
};

const WORKERS: usize = 4;
/// How long anybody may take to come back, emulation and debug kernels included.
const PATIENCE: Duration = Duration::from_secs(60);

/// What workers and the test tell each other.
struct Board {
    /// How often the device was bound.
    generation: AtomicU32,
    /// Per worker: the last generation it touched.
    touched: [AtomicU32; WORKERS],
    /// A word that cannot come from the buffer.
    foreign: AtomicU64,
    stop: AtomicBool,
}

const FOREIGN: i32 = 10;
const WRONG_ERRNO: i32 = 11;

/// N times: every worker has a mapping and touches it, then the device is unbound under them, and bound again. Each worker gets SIGBUS,
/// sees ENODEV, and opens the new device. Half of them have a child that uses the inherited mapping. No one ever reads a word that was
/// not written into the buffer, as it would from memory that was given to others meanwhile.
pub fn bind_cycles(device: &Device, cycles: u32) -> Outcome {
    device.needs_writable()?;
    // SAFETY: Atomics are valid when zero.
    let board = allowed("share memory", unsafe { Shared::<Board>::zeroed() })?;
    board.generation.store(1, SeqCst);
    let workers: Vec<Child> = (0..WORKERS)
        .map(|i| allowed("fork", sys::fork(|_| worker(&device.path, &board, i))))
        .collect::<Outcome<_>>()?;
    let mut result: Outcome = (|| {
        for generation in 1..=cycles {
            let deadline = Instant::now() + PATIENCE;
            while !board.touched.iter().all(|touched| touched.load(SeqCst) == generation) {
                if Instant::now() > deadline {
                    let behind = board.touched.each_ref().map(|touched| touched.load(SeqCst));
                    return Err(format!(
                        "cycle {generation}: workers stuck: {behind:?}, foreign {:#x}",
                        board.foreign.load(SeqCst)
                    )
                    .into());
                }
                sys::pause();
            }
            device.unbind()?;
            let left = sys::open(&device.path, O_RDWR);
            if !matches!(left, Err(Errno(ENOENT))) {
                return Err(format!(
                    "cycle {generation}: open after unbind: expected {}, found {left:?}",
                    Errno(ENOENT)
                )
                .into());
            }
            board.generation.store(generation + 1, SeqCst);
            device.bind()?;
        }
        Ok(())
    })();
    board.stop.store(true, SeqCst);
    for (i, worker) in workers.into_iter().enumerate() {
        let end = allowed("wait", worker.wait())?;
        if result.is_ok() && end != End::Exit(0) {
            result = Err(format!("worker {i}: {end:?}, foreign word {:#x}", board.foreign.load(SeqCst)).into());
        }
    }
    result?;
    println!("# {cycles} cycles of unbind and bind under {WORKERS} workers");
    Ok(())
}

fn worker(path: &Path, board: &Board, number: usize) -> i32 {
    let mut random = Random(number as u64);
    while !board.stop.load(SeqCst) {
        let generation = board.generation.load(SeqCst);
        let opened = sys::open(path, O_RDWR).and_then(|fd| {
            let len = try_info(&fd)?.size_bytes as usize;
            Ok((sys::mmap(&fd, len, RW, MAP_SHARED, 0)?, fd))
        });
        let (mapping, fd) = match opened {
            Ok(opened) => opened,
            Err(Errno(ENOENT | ENODEV | ENXIO)) => {
                sys::pause();
                continue;
            }
            Err(_) => return WRONG_ERRNO,
        };
        sys::survive_sigbus(&mapping);
        let mut touch_until_revoked = |report: bool| {
            while !sys::revoked() && !board.stop.load(SeqCst) {
                let at = random.below(mapping.len / 8) * 8;
                let word = mapping.get(at);
                if !is_ours(word) {
                    board.foreign.store(word, SeqCst);
                    return FOREIGN;
                }
                mapping.set(at, TAG + number as u64);
                if report {
                    board.touched[number].store(generation, SeqCst);
                }
            }
            0
        };
        let child = if number % 2 == 1 {
            sys::fork(|_| touch_until_revoked(false)).ok()
        } else {
            None
        };
        let status = touch_until_revoked(true);
        if let Some(child) = child
            && child.wait() != Ok(End::Exit(0))
        {
            return FOREIGN;
        }
        if status != 0 {
            return status;
        }
        if sys::revoked() && try_info(&fd) != Err(Errno(ENODEV)) {
            return WRONG_ERRNO;
        }
    }
    0
}

/// Forks run while the device is unbound. No child, whenever it was forked, reaches the memory afterwards.
pub fn fork_revoke(device: &Device, rounds: u32) -> Outcome {
    const FORKERS: usize = 2;
    const CHILDREN: usize = 24;
    for round in 0..rounds {
        let (over, end_of_over) = allowed("pipe", sys::pipe())?;
        // SAFETY: An atomic is valid when zero.
        let unbound = allowed("share memory", unsafe { Shared::<AtomicBool>::zeroed() })?;
        let mut forkers = Vec::new();
        for _ in 0..FORKERS {
            let end_of_over = end_of_over.as_raw_fd();
            let forker = sys::fork(|line| {
                sys::close(end_of_over);
                let Ok(fd) = sys::open(&device.path, libc::O_RDONLY) else {
                    return 20;
                };
                let Ok(mapping) = sys::mmap(&fd, device.size(), R, MAP_SHARED, 0) else {
                    return 21;
                };
                let places: Vec<usize> = (0..mapping.len).step_by(1 << 20).collect();
                places.iter().for_each(|&at| mapping.touch(at));
                if round % 2 == 1 {
                    // What programs may ask for must not bring the race back.
                    let _ = mapping.on(libc::SYS_madvise, 0, mapping.len, libc::MADV_KEEPONFORK);
                }
                let leaks = || places.iter().any(|&at| mapping.readable(at));
                line.meet();
                let mut children = Vec::new();
                while children.len() < CHILDREN && !unbound.load(SeqCst) {
                    match sys::fork(|_| {
                        // Until the test closes the other end.
                        let _ = sys::read(&over, &mut [0]);
                        leaks().into()
                    }) {
                        Ok(child) => children.push(child),
                        Err(_) => break,
                    }
                }
                let _ = sys::read(&over, &mut [0]);
                let bad = children
                    .into_iter()
                    .filter_map(|child| child.wait().ok())
                    .filter(|&end| end != End::Exit(0))
                    .count();
                (bad != 0 || leaks()).into()
            });
            forkers.push(allowed("fork", forker)?);
        }
        for forker in &mut forkers {
            holds_quietly("a forker came up", forker.hear())?;
            forker.tell();
        }
        // Another moment of the forks in each round.
        std::thread::sleep(Duration::from_micros(u64::from(round % 16) * 500));
        device.unbind()?;
        unbound.store(true, SeqCst);
        drop(end_of_over);
        for forker in forkers {
            let end = allowed("wait", forker.wait())?;
            if end != End::Exit(0) {
                return Err(format!("round {round}: expected nobody to reach the memory after unbind, found {end:?}").into());
            }
        }
        device.bind()?;
    }
    println!("# {rounds} rounds of unbind under forks");
    Ok(())
}

fn holds_quietly(what: &str, holds: bool) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(format!("{what}: it did not").into())
    }
}
