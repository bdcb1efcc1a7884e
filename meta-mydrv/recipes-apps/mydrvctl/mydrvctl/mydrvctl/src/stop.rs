// SPDX-License-Identifier: MIT

//! Signals that ask the program to end, for commands that must put something back first.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{
    failure::{Failure, Result},
    output,
};

/// The first signal that came, if any. From [`Stop::on_signals`] on, signals no longer end the program: it asks here, often enough that a second
/// does not pass in between, puts the buffer's contents back and ends.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// Takes SIGTERM, SIGINT and SIGHUP; not one that the caller ignores, as nohup does.
    pub fn on_signals() -> Result<Self> {
        let stop = Self::default();
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            if !ignored(signal) {
                signal_hook::flag::register_usize(signal, Arc::clone(&stop.0), signal as usize).map_err(|source| {
                    Failure::Io {
                        what: format!("a handler for signal {signal}"),
                        source,
                    }
                })?;
            }
        }
        Ok(stop)
    }

    /// The signal that asks the program to end.
    pub fn signal(&self) -> Option<i32> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => i32::try_from(signal).ok(),
        }
    }

    /// As if the signal had come.
    #[cfg(test)]
    pub fn raise(&self, signal: i32) {
        self.0.store(signal as usize, Ordering::Relaxed);
    }

    /// An error if a signal asks the program to end, and a word to say so. For moments at which the buffer holds what it held before.
    pub fn check(&self) -> Result {
        match self.signal() {
            None => Ok(()),
            Some(signal) => {
                output::say(&format!(
                    "mydrvctl: interrupted by signal {signal}; the buffer holds what it held before"
                ));
                Err(Failure::Interrupted(signal))
            }
        }
    }

    /// Waits so long; less if a signal comes.
    pub fn sleep(&self, time: Duration) {
        // A signal does not end a sleep of the library's.
        const SLICE: Duration = Duration::from_millis(20);
        let end = Instant::now().checked_add(time);
        while self.signal().is_none() {
            let left = end.map_or(SLICE, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(SLICE));
        }
    }
}

/// Whether whoever started the program has it ignore the signal (/proc/PID/status, "SigIgn"). Where it cannot be told, it is not.
fn ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_told_at_once_and_ends_a_sleep() {
        let stop = Stop::default();
        assert!(stop.signal().is_none() && stop.check().is_ok());
        stop.sleep(Duration::from_millis(1));
        let other = stop.clone();
        other.0.store(SIGTERM as usize, Ordering::Relaxed);
        stop.sleep(Duration::MAX / 2);
        assert_eq!(stop.signal(), Some(SIGTERM));
        assert!(matches!(stop.check(), Err(Failure::Interrupted(SIGTERM))));
    }
}
