// SPDX-License-Identifier: MIT

//! The checks of who sees the memory: mappings, `read` and `write`, another process. They leave the contents as they were.

use std::{
    os::fd::AsFd,
    process::{Command, Stdio},
};

use mydrv::Device;
use mydrv_memtest::PAGE_BYTES;

use super::{
    Context,
    report::{Outcome, Problem, fail},
    sample,
};
use crate::{
    cli::ValidatePeer,
    failure::{Failure, Result},
    output::Random,
    saved::Saved,
};

/// Compares `read` and `write` with a mapping, at odd offsets, across a page and at the end.
pub fn read_write(writer: &Device) -> Outcome {
    let size = writer.size_bytes() as usize;
    let mut mapping = writer.map_mut(..)?;
    let page = rustix::param::page_size();
    let places = [
        (0, page.min(size)),
        (3, 61),
        (page - 5, 10.min(size - page + 5)),
        (size - 13, 13),
    ];
    let _saved = Saved::new(writer, places)?;
    let mut random = Random::new(writer.size_bytes());
    for (offset, length) in places {
        let (mut sent, mut found) = (vec![0; length], vec![0; length]);
        random.fill(&mut sent);
        mapping.copy_from(offset, &sent)?;
        writer.read_at(offset as u64, &mut found)?;
        if found != sent {
            return fail(
                format!("read differs from the mapping in {length} bytes at {offset:#x}"),
                "update the module mydrv",
            );
        }
        random.fill(&mut sent);
        writer.write_at(offset as u64, &sent)?;
        mapping.copy_to(offset, &mut found)?;
        if found != sent {
            return fail(
                format!("the mapping differs from write in {length} bytes at {offset:#x}"),
                "update the module mydrv",
            );
        }
    }
    Ok(("the same bytes both ways".into(), ()))
}

const INCOHERENT: &str = "update the module mydrv: mappings must reach the same memory with the same cache attributes";

/// Writes through one mapping, reads through another, and the other way round.
pub fn two_mappings(context: &Context, writer: &Device) -> Outcome {
    let (mut one, mut two) = (writer.map_mut(..)?, writer.map_mut(..)?);
    let offsets = sample(context, writer.size_bytes());
    let _saved = Saved::new(writer, offsets.iter().map(|&offset| (offset, 8)))?;
    let mut random = Random::new(2);
    for &offset in &offsets {
        for turned in [false, true] {
            let (from, to) = if turned { (&mut two, &one) } else { (&mut one, &two) };
            let sent = random.next_word();
            from.write(offset, sent)?;
            let found = to.read::<u64>(offset)?;
            if found != sent {
                return fail(format!("{found:#018x} for {sent:#018x} at offset {offset:#x}"), INCOHERENT);
            }
        }
    }
    Ok((format!("{} places, both ways", offsets.len()), ()))
}

/// Leaves data for a child process, which compares it and leaves other data in its place.
pub fn two_processes(context: &Context, writer: &Device) -> Outcome {
    const SEED: u64 = 0x006d_7964_7276;
    let mut mapping = writer.map_mut(..)?;
    let offsets = sample(context, writer.size_bytes());
    let _saved = Saved::new(writer, offsets.iter().map(|&offset| (offset, PAGE_BYTES)))?;
    for &offset in &offsets {
        mapping.copy_from(offset, &page_of(SEED, offset as u64))?;
    }
    let system = |call: &str| {
        let call = call.to_owned();
        move |error| Problem::Skip(format!("no second process: {call}: {error}"))
    };
    // The child gets this very open file, which needs no permission of its own and shares the lock.
    let file = writer.as_fd().try_clone_to_owned().map_err(system("dup"))?;
    let child = Command::new("/proc/self/exe")
        .arg("validate-peer")
        .arg(SEED.to_string())
        .args(offsets.iter().map(ToString::to_string))
        .stdin(Stdio::from(file))
        .output()
        .map_err(system("fork"))?;
    if !child.status.success() {
        let words = String::from_utf8_lossy(&child.stderr);
        return fail(
            format!("the second process: {}", words.trim().trim_start_matches("mydrvctl: ")),
            INCOHERENT,
        );
    }
    for &offset in &offsets {
        let mut found = vec![0; PAGE_BYTES];
        mapping.copy_to(offset, &mut found)?;
        if found != page_of(SEED + 1, offset as u64) {
            return fail(
                format!("not what the second process wrote, in the page at {offset:#x}"),
                INCOHERENT,
            );
        }
    }
    Ok((format!("{} pages, both ways", offsets.len()), ()))
}

/// A page's worth of data that no other page and no other seed has.
fn page_of(seed: u64, offset: u64) -> Vec<u8> {
    let mut bytes = vec![0; PAGE_BYTES];
    Random::new(seed.rotate_left(40) ^ offset).fill(&mut bytes);
    bytes
}

/// `mydrvctl validate-peer`: the second process, with the device as its standard input.
pub fn peer(args: &ValidatePeer) -> Result {
    let file = std::io::stdin().as_fd().try_clone_to_owned()?;
    let device = Device::from_fd(file, "standard input".into(), true)?;
    let mut mapping = device.map_mut(..)?;
    let mut found = vec![0; PAGE_BYTES];
    for &offset in &args.offsets {
        mapping.copy_to(offset as usize, &mut found)?;
        if found != page_of(args.seed, offset) {
            return Err(Failure::Different(format!(
                "not what the first process wrote, in the page at {offset:#x}"
            )));
        }
        mapping.copy_from(offset as usize, &page_of(args.seed + 1, offset))?;
    }
    Ok(())
}
