// SPDX-License-Identifier: MIT

//! A test runs in a process of its own, so that whatever becomes of it, the next one finds the device bound.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicI32, Ordering::SeqCst},
};

use crate::{
    device::{Device, Outcome, allowed},
    sys::{self, End},
};

/// The group of the test's processes, for the handler.
static GROUP: AtomicI32 = AtomicI32::new(0);

/// A signal that asks this program to end is the test's.
extern "C" fn hand_on(signal: libc::c_int) {
    // SAFETY: kill(2) is async-signal-safe.
    unsafe { libc::kill(-GROUP.load(SeqCst), signal) };
}

/// Runs a test in a process group of its own, whose first process exits with what `test` answers; then ends what it left running, and binds the device
/// if it is not bound. Answers the exit code: 128 and the signal's number where a signal ended the test.
pub fn bound_afterwards(device: &Device, test: impl FnOnce() -> ExitCode) -> Outcome<ExitCode> {
    let parent = sys::own_pid();
    let child = allowed(
        "fork",
        sys::fork(|_| {
            sys::lead_group_until_parent_ends(parent);
            // As main() would: the code is all that there is to hand over.
            let code = test();
            [0, 1, 2, 77]
                .into_iter()
                .find(|&known| code == ExitCode::from(known))
                .map_or(1, i32::from)
        }),
    )?;
    GROUP.store(child.pid, SeqCst);
    sys::handle(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP], hand_on);
    let end = allowed("wait", sys::wait(child.pid))?;
    sys::end_group(child.pid);
    if !device.is_bound() && device.has_driver() {
        println!("# the device was left unbound: bound again");
        device.bind()?;
    }
    Ok(match end {
        End::Exit(code) => ExitCode::from(code as u8),
        End::Signal(signal) => {
            println!("not ok 1 # ended by signal {signal}");
            ExitCode::from(128 + signal as u8)
        }
    })
}
