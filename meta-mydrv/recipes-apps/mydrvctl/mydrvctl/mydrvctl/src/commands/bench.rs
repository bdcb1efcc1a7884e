// SPDX-License-Identifier: MIT

//! `bench`: wall-clock times, which vary with the machine's load; the best of some rounds is what the hardware can do.

use std::time::{Duration, Instant};

use mydrv::{Direction, Lock};
use serde::Serialize;

use super::{CHUNK, open};
use crate::{
    cli::{Bench, Cli},
    failure::Result,
    output,
    stop::Stop,
};

/// What is measured, in the order of a round.
const NAMES: [&str; 8] = [
    "map",
    "first touch",
    "second touch",
    "copy out",
    "copy in",
    "read",
    "write",
    "unmap",
];

/// What `bench` prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Measurements {
    /// The device node.
    device: String,
    /// The buffer's bytes.
    bytes: u64,
    /// How often it was measured.
    rounds: u32,
    /// What was measured.
    results: Vec<Measured>,
}

/// One of them.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Measured {
    /// What.
    name: &'static str,
    /// How long the best round took.
    seconds: f64,
    /// The buffer's bytes by that time.
    mib_per_second: f64,
}

/// `mydrvctl bench`.
pub fn bench(cli: &Cli, args: &Bench) -> Result {
    mydrv::sigbus::install()?;
    let stop = Stop::on_signals()?;
    let device = open(cli, true, Lock::Exclusive)?;
    let size = device.size_bytes();
    let page = rustix::param::page_size();
    let bar = output::progress(size * u64::from(args.rounds), "measuring");
    let mut best = [Duration::MAX; NAMES.len()];
    let mut bytes = vec![0; CHUNK];
    for _ in 0..args.rounds {
        let mut times = [Duration::ZERO; NAMES.len()];
        let [map, first, second, out, into, read, write, unmap] = &mut times;
        let mut mapping = timed(map, || device.map_mut(..))?;
        for touch in [first, second] {
            timed(touch, || {
                (0..mapping.len())
                    .step_by(page)
                    .try_for_each(|offset| mapping.read::<u8>(offset).map(drop))
            })?;
        }
        for offset in (0..size).step_by(CHUNK) {
            let bytes = &mut bytes[..(size - offset).min(CHUNK as u64) as usize];
            // What is written is what was just read: the contents survive.
            timed(out, || mapping.copy_to(offset as usize, bytes))?;
            timed(into, || mapping.copy_from(offset as usize, bytes))?;
            timed(read, || device.read_at(offset, bytes))?;
            timed(write, || device.write_at(offset, bytes))?;
            if stop.signal().is_some() {
                device.sync(.., Direction::ToDevice)?;
                stop.check()?;
            }
            bar.inc(bytes.len() as u64);
        }
        timed(unmap, || drop(mapping));
        for (best, time) in best.iter_mut().zip(times) {
            *best = time.min(*best);
        }
    }
    bar.finish_and_clear();
    // What was written is what was there, but in a cached buffer it is in lines that a device must not have written over it later.
    device.sync(.., Direction::ToDevice)?;
    let results = NAMES.iter().zip(best);
    if cli.json {
        let results: Vec<_> = results
            .map(|(&name, time)| Measured {
                name,
                seconds: time.as_secs_f64(),
                mib_per_second: output::mib_per_second(size, time),
            })
            .collect();
        return output::json(&Measurements {
            device: device.path().display().to_string(),
            bytes: size,
            rounds: args.rounds,
            results,
        });
    }
    let mut rows = vec![[output::size(size), "MICROSECONDS".into(), "MIB/S".into()]];
    rows.extend(results.map(|(name, time)| {
        let rate = format!("{:>9.1}", output::mib_per_second(size, time));
        [(*name).to_owned(), format!("{:>12.1}", time.as_secs_f64() * 1e6), rate]
    }));
    output::table(&rows)
}

/// Adds the time that `work` takes to `total`.
fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    *total += began.elapsed();
    result
}
