// SPDX-License-Identifier: MIT

//! The checks of the memory itself: where it is and what it holds. All but `scrub` leave the contents as they were.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use mydrv::{CacheMode, Device, Direction, Error, Info, Lock, OpenOptions};

use super::{
    CHUNK, Context,
    report::{Outcome, fail, skip},
    sample,
};
use crate::output;

const BAD_MEMORY: &str = "do not use this memory: check the board's RAM and that nothing else owns the region";

/// Each page against the physical address that it should have, as /dev/mem shows it: pagemap shows no frames of PFN mappings. Only where both
/// ways to the memory go through the same caches.
pub fn contiguity(context: &Context, writer: &Device) -> Outcome {
    let info = writer.info()?;
    let Some(addresses) = info.addresses else {
        return skip("the driver shows addresses to CAP_SYS_RAWIO alone");
    };
    if info.cache_mode != CacheMode::Cached && !info.flags.dma_coherent() || info.flags.no_map() {
        return skip(
            "the buffer is mapped uncached, and /dev/mem would read it through the cache; dma-loop tests what a device sees",
        );
    }
    let memory = match File::open(context.root.join("dev/mem")) {
        Ok(memory) => memory,
        Err(error) => return skip(format!("/dev/mem: {error}; dma-loop tests what a device sees")),
    };
    let mapping = writer.map_mut(..)?;
    let page = rustix::param::page_size();
    for offset in (0..mapping.len()).step_by(page) {
        let saved = mapping.read::<u64>(offset)?;
        let wanted = key(offset as u64);
        let mut found = [0; 8];
        mapping.write(offset, wanted)?;
        let read = memory.read_exact_at(&mut found, addresses.physical + offset as u64);
        mapping.write(offset, saved)?;
        if let Err(error) = read {
            return skip(format!("/dev/mem: {error}; dma-loop tests what a device sees"));
        }
        if u64::from_ne_bytes(found) != wanted {
            return fail(
                format!(
                    "the page at offset {offset:#x} is not at {:#x}",
                    addresses.physical + offset as u64
                ),
                "update the module mydrv: a device would write into memory that is not the buffer's",
            );
        }
    }
    Ok((
        format!("{} pages from {:#x} on", mapping.len() / page, addresses.physical),
        (),
    ))
}

/// The parts of the buffer that a check goes through, as offset and length in bytes.
fn parts(context: &Context, size: u64) -> Vec<(u64, usize)> {
    if context.quick {
        return sample(size)
            .into_iter()
            .map(|offset| (offset, rustix::param::page_size()))
            .collect();
    }
    (0..size)
        .step_by(CHUNK)
        .map(|offset| (offset, (size - offset).min(CHUNK as u64) as usize))
        .collect()
}

fn coverage(context: &Context, size: u64) -> String {
    if context.quick {
        format!("a sample of {} pages", sample(size).len())
    } else {
        format!("all {}", output::size(size))
    }
}

/// The first byte that is not 0.
fn first_not_zero(context: &Context, device: &Device, what: &'static str) -> std::result::Result<Option<(u64, u8)>, Error> {
    let bar = output::progress(device.size_bytes(), what);
    let mapping = device.map(..)?;
    let mut bytes = vec![0; CHUNK];
    for (offset, length) in parts(context, device.size_bytes()) {
        let bytes = &mut bytes[..length];
        mapping.copy_to(offset as usize, bytes)?;
        if let Some(index) = bytes.iter().position(|&byte| byte != 0) {
            return Ok(Some((offset + index as u64, bytes[index])));
        }
        bar.set_position(offset + length as u64);
    }
    bar.finish_and_clear();
    Ok(None)
}

/// That the driver zeroed the buffer before anyone could have written to it.
pub fn zeroing(context: &Context, reader: &Device) -> Outcome {
    if !reader.info()?.flags.pristine() {
        return skip("a program has had the device open for writing since the driver zeroed the buffer");
    }
    match first_not_zero(context, reader, "zeroing")? {
        None => Ok((format!("zeros, {}", coverage(context, reader.size_bytes())), ())),
        Some((offset, byte)) => fail(
            format!("{byte:#04x} at offset {offset:#x}"),
            "update the module mydrv: what the memory held before must not be shown; also check that no device writes here already",
        ),
    }
}

/// A pattern that does not depend on what other cells hold.
pub struct Pattern {
    pub id: &'static str,
    word: fn(usize) -> u64,
}

/// Each data line alone, then neighbouring lines and neighbouring cells in opposition, both ways.
pub const PATTERNS: &[Pattern] = &[
    Pattern {
        id: "pattern-walking-ones",
        word: |index| 1 << (index % 64),
    },
    Pattern {
        id: "pattern-55aa",
        word: |index| alternate(index),
    },
    Pattern {
        id: "pattern-aa55",
        word: |index| !alternate(index),
    },
];

fn alternate(index: usize) -> u64 {
    if index.is_multiple_of(2) {
        0x5555_5555_5555_5555
    } else {
        0xaaaa_aaaa_aaaa_aaaa
    }
}

/// Makes sure that what is read next comes from memory, not from a cache. Costs nothing where the buffer is not cached.
fn settle(device: &Device, offset: u64, length: usize) -> std::result::Result<(), Error> {
    let range = offset..offset + length as u64;
    device.sync(range.clone(), Direction::ToDevice)?;
    device.sync(range, Direction::FromDevice)
}

/// Writes a pattern, reads it back and puts back what was there, part by part.
pub fn pattern(context: &Context, writer: &Device, pattern: &Pattern) -> Outcome {
    let size = writer.size_bytes();
    let bar = output::progress(size, pattern.id);
    let mapping = writer.map_mut(..)?;
    let wanted: Vec<u8> = (0..CHUNK / 8).flat_map(|index| (pattern.word)(index).to_ne_bytes()).collect();
    let (mut saved, mut found) = (vec![0; CHUNK], vec![0; CHUNK]);
    for (offset, length) in parts(context, size) {
        let (wanted, saved, found) = (&wanted[..length], &mut saved[..length], &mut found[..length]);
        mapping.copy_to(offset as usize, saved)?;
        mapping.copy_from(offset as usize, wanted)?;
        settle(writer, offset, length)?;
        mapping.copy_to(offset as usize, found)?;
        mapping.copy_from(offset as usize, saved)?;
        if let Some(index) = (0..length)
            .step_by(8)
            .find(|&index| wanted[index..index + 8] != found[index..index + 8])
        {
            return fail(
                format!(
                    "{:#018x} for {:#018x} at offset {:#x}",
                    word(found, index),
                    word(wanted, index),
                    offset + index as u64
                ),
                BAD_MEMORY,
            );
        }
        bar.set_position(offset + length as u64);
    }
    bar.finish_and_clear();
    Ok((coverage(context, size), ()))
}

fn word(bytes: &[u8], index: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[index..index + 8]);
    u64::from_ne_bytes(word)
}

/// What is added to a cell by XOR: its offset in one half, the offset's complement in the other.
fn key(offset: u64) -> u64 {
    offset ^ !offset << 32
}

/// XORs each word with its own offset, in place, so that no copy of a buffer of any size is needed. When all are changed, it takes the
/// offsets out again: each page must then hash as before. Two offsets that reach one cell would have spoilt each other.
pub fn addresses(context: &Context, writer: &Device) -> Outcome {
    let size = writer.size_bytes();
    let page = rustix::param::page_size();
    let bar = output::progress(2 * size, "pattern-address");
    let mapping = writer.map_mut(..)?;
    let parts = parts(context, size);
    let mut bytes = vec![0; CHUNK];
    let mut hashes = Vec::new();
    for &(offset, length) in &parts {
        let bytes = &mut bytes[..length];
        mapping.copy_to(offset as usize, bytes)?;
        hashes.extend(bytes.chunks(page).map(hash));
        add_keys(bytes, offset);
        mapping.copy_from(offset as usize, bytes)?;
        settle(writer, offset, length)?;
        bar.inc(length as u64);
    }
    let mut hashes = hashes.into_iter();
    let mut bad = None;
    for &(offset, length) in &parts {
        let bytes = &mut bytes[..length];
        mapping.copy_to(offset as usize, bytes)?;
        add_keys(bytes, offset);
        // Whatever is wrong, the other pages get their contents back.
        mapping.copy_from(offset as usize, bytes)?;
        let mut pages = bytes.chunks(page).zip(hashes.by_ref().take(length.div_ceil(page)));
        let spoilt = (0..).zip(pages.by_ref()).find(|(_, (page, before))| hash(page) != *before);
        pages.for_each(drop);
        bad = bad.or(spoilt.map(|(index, _): (u64, _)| offset + index * page as u64));
        bar.inc(length as u64);
    }
    bar.finish_and_clear();
    match bad {
        None => Ok((coverage(context, size), ())),
        Some(offset) => fail(format!("other contents in the page at offset {offset:#x}"), BAD_MEMORY),
    }
}

fn add_keys(bytes: &mut [u8], offset: u64) {
    for (cell, at) in bytes.as_chunks_mut::<8>().0.iter_mut().zip((offset..).step_by(8)) {
        *cell = (u64::from_ne_bytes(*cell) ^ key(at)).to_ne_bytes();
    }
}

/// FNV-1a over words: tells changed pages, not attackers.
fn hash(bytes: &[u8]) -> u64 {
    bytes.as_chunks::<8>().0.iter().fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        (hash ^ u64::from_ne_bytes(*word))
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(29)
    })
}

/// That the driver zeroes the buffer when its last user has closed it. `dirtied`: whether a check has had it open for writing.
pub fn scrub(context: &Context, info: &Info, path: &Path, dirtied: bool) -> Outcome {
    if !info.flags.scrub() {
        return skip("the node has no mydrv,scrub");
    }
    if !dirtied {
        return skip("the buffer was not open for writing");
    }
    let reader = OpenOptions::new().lock(Lock::Exclusive).open(path)?;
    if !reader.info()?.flags.pristine() {
        return fail(
            "the buffer was not zeroed",
            format!("stop what else has the device open (fuser -v {})", path.display()),
        );
    }
    match first_not_zero(context, &reader, "scrub")? {
        None => Ok((format!("zeros, {}", coverage(context, reader.size_bytes())), ())),
        Some((offset, byte)) => fail(
            format!("{byte:#04x} at offset {offset:#x}"),
            "update the module mydrv: the next user sees the last one's data",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_cancel() {
        let mut bytes = vec![7; 64];
        let before = hash(&bytes);
        add_keys(&mut bytes, 0x1000);
        assert_eq!(word(&bytes, 8), 0x0707_0707_0707_0707 ^ key(0x1008));
        assert_ne!(hash(&bytes), before);
        // What an alias would do: the keys of another place on the same cells.
        let mut aliased = bytes.clone();
        add_keys(&mut aliased, 0x2000);
        add_keys(&mut aliased, 0x1000);
        assert_ne!(hash(&aliased), before);
        add_keys(&mut bytes, 0x1000);
        assert_eq!(hash(&bytes), before);
    }

    #[test]
    fn walking_ones_drive_every_data_line_and_the_others_are_opposites() {
        let lines = (0..64).fold(0, |lines, index| lines | (PATTERNS[0].word)(index));
        assert_eq!(lines, u64::MAX);
        for index in 0..2 {
            assert_eq!((PATTERNS[1].word)(index), !(PATTERNS[2].word)(index));
        }
    }
}
