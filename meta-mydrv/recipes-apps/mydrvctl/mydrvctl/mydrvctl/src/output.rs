// SPDX-License-Identifier: MIT

//! What commands share in talking to people and programs.

use std::{
    io::{self, Write},
    time::Duration,
};

use anstream::{AutoStream, ColorChoice};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::Result;

/// Says one line on standard error. Where that cannot be written, the exit code must do. Answers whether it was said.
pub fn say(line: &str) -> bool {
    writeln!(io::stderr(), "{line}").is_ok()
}

/// Prints one JSON object.
pub fn json(value: &impl Serialize) -> Result {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Prints rows in aligned columns: the last one is ragged, the others are as wide as their widest cell.
pub fn table<const N: usize>(rows: &[[String; N]]) -> Result {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = io::stdout().lock();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(out.flush()?)
}

/// A number of bytes for people: exact in the largest binary unit that divides it.
pub fn size(bytes: u64) -> String {
    match bytes {
        0 => "0".into(),
        _ if bytes.is_multiple_of(1 << 30) => format!("{} GiB", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

/// Bytes per second in MiB/s; 0 where the clock saw no time pass.
pub fn mib_per_second(bytes: u64, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        bytes as f64 / f64::from(1 << 20) / time.as_secs_f64()
    }
}

/// Takes over what `--color` says.
pub fn colour(when: &str) {
    match when {
        "always" => ColorChoice::Always,
        "never" => ColorChoice::Never,
        _ => ColorChoice::Auto,
    }
    .write_global();
}

/// Whether standard output is to be coloured: as `--color` says, else by NO_COLOR, CLICOLOR, CLICOLOR_FORCE and TERM, and if it is a terminal.
pub fn coloured() -> bool {
    AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

/// A progress bar over bytes on standard error, which shows only on a terminal.
pub fn progress(bytes: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:20} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style).with_message(what)
}

/// Pseudo-random bytes: the same ones for the same seed on every machine (xorshift64*, Vigna 2016).
pub struct Random(u64);

impl Random {
    /// Any seed will do.
    pub fn new(seed: u64) -> Self {
        // The state must not be 0, and neighbouring seeds should not begin alike: one step of splitmix64.
        let mixed = (seed.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Self((mixed ^ mixed >> 27).max(1))
    }

    /// The next 64 bits.
    pub fn next_word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Fills a slice, little-endian.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_word().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact() {
        assert_eq!(size(0), "0");
        assert_eq!(size(64 << 20), "64 MiB");
        assert_eq!(size(3 << 30), "3 GiB");
        assert_eq!(size((64 << 20) + 4096), "65540 KiB");
        assert_eq!(size(4097), "4097 bytes");
    }

    #[test]
    fn random_bytes_repeat_by_seed_only() {
        let bytes = |seed| {
            let mut bytes = [0; 20];
            Random::new(seed).fill(&mut bytes);
            bytes
        };
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
        assert_ne!(bytes(0), [0; 20]);
    }

    #[test]
    fn throughput_without_time_is_not_infinite() {
        assert_eq!(mib_per_second(1 << 20, Duration::ZERO), 0.0);
        assert_eq!(mib_per_second(1 << 20, Duration::from_millis(500)), 2.0);
    }
}
