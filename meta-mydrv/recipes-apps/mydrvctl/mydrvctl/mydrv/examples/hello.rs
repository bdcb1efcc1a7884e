// SPDX-License-Identifier: MIT

//! The shortest whole application: opens a buffer, maps it, writes a greeting, reads it back and puts back what was there.
//!
//!     cargo run --example hello [DEVICE]      a path, an index or a label; /dev/mydrv0 if not given

use std::{env, process::ExitCode};

use mydrv::{Device, Direction, Error};

const GREETING: &[u8] = b"hello from Rust";

fn main() -> ExitCode {
    match hello(&env::args().nth(1).unwrap_or_else(|| "0".into())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("hello: the buffer holds something else than was written");
            ExitCode::FAILURE
        }
        // The library's errors name the file, the cause and the remedy.
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}

fn hello(device: &str) -> Result<bool, Error> {
    let device = Device::open(device)?;
    let info = device.info()?;
    println!(
        "{}: {} bytes, {}, label {:?}",
        device.path().display(),
        info.size_bytes,
        info.cache_mode,
        info.label
    );

    // Unmapped when it goes out of scope.
    let mut buffer = device.map_mut(..)?;
    let range = ..GREETING.len() as u64;
    let mut before = [0; GREETING.len()];
    buffer.copy_to(0, &mut before)?;

    buffer.copy_from(0, GREETING)?;
    // Now a device may read it, or write there: either way no cache line may be left that memory does not have.
    device.sync(range, Direction::ToDevice)?;
    // (Here a device would work.) Now what it has written may be read, or parts of it written over.
    device.sync(range, Direction::FromDevice)?;
    let mut after = [0; GREETING.len()];
    buffer.copy_to(0, &mut after)?;
    println!("{}", String::from_utf8_lossy(&after));

    buffer.copy_from(0, &before)?;
    // Else what was put back may stay in the cache, and come out of it when a device has written there.
    device.sync(range, Direction::ToDevice)?;
    Ok(after == GREETING)
}
