// SPDX-License-Identifier: MIT

//! The checks of the memory itself: where it is, what it holds, and who sees it. All but `scrub` leave the contents as they were.

use std::{
    fs::{self, File},
    os::{fd::AsFd, unix::fs::FileExt},
    path::Path,
    process::{Command, Stdio},
};

use mydrv::{CacheMode, Candidate, Device, Direction, Error, Info, Lock, MappingMut, OpenOptions};

use super::{
    CHUNK, Context,
    devicetree::{Node, Region},
    report::{Outcome, Problem, fail, skip},
    sample,
};
use crate::{
    cli::ValidatePeer,
    failure::{Failure, Result},
    output::{self, Random},
};

const BAD_MEMORY: &str = "do not use this memory: check the board's RAM and that nothing else owns the region";

/// Opens the device for reading, alone. Other users get until the deadline to leave.
pub fn open(context: &Context, candidate: &Candidate) -> Outcome<Device> {
    let opened = context.wait_for(|| {
        let opened = OpenOptions::new().lock(Lock::Exclusive).open(candidate.path.as_path());
        if matches!(opened, Err(Error::Busy { .. })) {
            None
        } else {
            Some(opened)
        }
    });
    let device = opened.unwrap_or_else(|| {
        Err(Error::Busy {
            path: candidate.path.clone(),
        })
    })?;
    Ok((format!("ABI {}", device.info()?.abi_version), device))
}

/// The label.
pub fn label(reader: &Device, node: &Node) -> Outcome {
    let found = reader.info()?.label;
    let expected = node.string("label").unwrap_or_default();
    if found != expected {
        return fail(
            format!("wrong device: label {found:?}"),
            "look which driver registered the node: mydrvctl list",
        );
    }
    Ok((
        if found.is_empty() {
            "no label".into()
        } else {
            format!("label {found:?}")
        },
        (),
    ))
}

/// What the device tree asks of the buffer, in words; `INFO` is put in the same words.
pub fn expected_properties(node: &Node) -> String {
    let cache_mode = node.string("mydrv,cache-mode").unwrap_or_else(|| "coherent".into());
    properties(&cache_mode, node.has("read-only"), node.has("mydrv,scrub"))
}

fn properties(cache_mode: &str, read_only: bool, scrub: bool) -> String {
    let access = if read_only { "read-only" } else { "read and write" };
    format!("{cache_mode}, {access}, {}", if scrub { "scrubbed" } else { "not scrubbed" })
}

/// Cache mode and flags.
pub fn configuration(reader: &Device, node: &Node) -> Outcome {
    let info = reader.info()?;
    let found = properties(info.cache_mode.as_str(), info.flags.read_only(), info.flags.scrub());
    if found != expected_properties(node) {
        return fail(
            found,
            "reboot, or bind the driver anew: it read another device tree than the one shown now",
        );
    }
    Ok((found, ()))
}

/// What the size check expects, in words.
pub fn expected_size(context: &Context, node: &Node, region: Option<&Region>) -> String {
    let of_tree = match (node.number("size"), region) {
        (Some(size), _) => format!("{size} bytes (the node's size)"),
        (None, Some(Region::Reserved { size, .. })) => format!("{size} bytes (the whole region)"),
        _ => "whole pages".into(),
    };
    match context.expected_size(node) {
        Some(size) => format!("{of_tree}, {size} bytes (--expect-size)"),
        None => of_tree,
    }
}

/// The size: by the node, by the region, by the command line.
pub fn size(context: &Context, reader: &Device, node: &Node, region: &Region) -> Outcome<u64> {
    let info = reader.info()?;
    let found = info.size_bytes;
    let told = format!("{found} bytes ({})", output::size(found));
    let page = rustix::param::page_size() as u64;
    if found == 0 || !found.is_multiple_of(page) {
        return fail(told, "update the module mydrv: a buffer is whole pages");
    }
    if let Region::Reserved { size, .. } = region {
        // The kernel may round a region up to its alignment, never down.
        if info.region_size_bytes.is_none_or(|region| region < *size || found > region) {
            let region = info
                .region_size_bytes
                .map_or("no reserved region".into(), |size| format!("a region of {size} bytes"));
            return fail(
                format!("{told} in {region}"),
                "see what the kernel reserved: dmesg | grep -i reserved",
            );
        }
    }
    let of_tree = node.number("size").or(match region {
        Region::Reserved { size, .. } => Some(*size),
        Region::Default => None,
    });
    if of_tree.is_some_and(|size| size != found) {
        return fail(
            format!("wrong size: {told}"),
            "boot the overlay that belongs to this system, then see journalctl -k -g mydrv",
        );
    }
    if context.expected_size(node).is_some_and(|size| size != found) {
        return fail(
            format!("wrong size: {told}"),
            "set the overlay's size (MYDRV_CMA_SIZE) or MYDRV_EXPECT_SIZE in /etc/default/mydrv",
        );
    }
    Ok((told, found))
}

/// What the physical-range check expects, in words.
pub fn expected_range(region: Option<&Region>) -> String {
    match region {
        Some(Region::Reserved {
            name,
            base: Some(base),
            size,
            ..
        }) => {
            format!("within {base:#x}..{:#x} ({name})", base.saturating_add(*size))
        }
        Some(Region::Reserved { name, choices, .. }) if !choices.is_empty() => {
            let choices: Vec<_> = choices
                .iter()
                .map(|(base, size)| format!("{base:#x}..{:#x}", base.saturating_add(*size)))
                .collect();
            format!("within the kernel's region, and that within {} ({name})", choices.join(", "))
        }
        Some(Region::Reserved { name, .. }) => format!("within the region that the kernel chose ({name})"),
        _ => "a physical address".into(),
    }
}

/// Where the buffer is, against what the driver says of its region, and that against the device tree.
pub fn physical_range(reader: &Device, region: &Region) -> Outcome {
    let info = reader.info()?;
    let Some(addresses) = info.addresses else {
        return skip("the driver shows addresses to CAP_SYS_RAWIO alone");
    };
    let start = addresses.physical;
    let told = format!("{start:#x}..{:#x}", start.saturating_add(info.size_bytes));
    let Region::Reserved { base, choices, size, .. } = region else {
        return Ok((told, ()));
    };
    let (Some(region_base), Some(region_size)) = (addresses.region_base, info.region_size_bytes) else {
        return fail(
            format!("{told}, outside any reserved region"),
            "see why the driver did not take the region: journalctl -k -g mydrv",
        );
    };
    if !inside((start, info.size_bytes), (region_base, region_size)) {
        return fail(
            format!(
                "{told}, outside the region {region_base:#x}..{:#x}",
                region_base.saturating_add(region_size)
            ),
            "update the module mydrv: the buffer is not in the memory that was reserved for it",
        );
    }
    let as_told = match base {
        Some(base) => region_base == *base && region_size >= *size,
        None => choices.is_empty() || choices.iter().any(|choice| inside((region_base, region_size), *choice)),
    };
    if !as_told {
        return fail(
            format!(
                "region elsewhere than the device tree says: {region_base:#x}..{:#x}",
                region_base.saturating_add(region_size)
            ),
            "boot the overlay that belongs to this system; see dmesg | grep -i reserved",
        );
    }
    Ok((
        format!(
            "{told} in the region {region_base:#x}..{:#x}",
            region_base.saturating_add(region_size)
        ),
        (),
    ))
}

/// Whether one range of address and length lies within another.
fn inside((start, length): (u64, u64), (base, size): (u64, u64)) -> bool {
    start >= base
        && start
            .checked_add(length)
            .zip(base.checked_add(size))
            .is_some_and(|(end, limit)| end <= limit)
}

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

/// The kernel's own flags of a mapping through a read-only file: that no right can be added later, whatever is asked.
pub fn mapping_flags(reader: &Device) -> Outcome {
    let page = rustix::param::page_size() as u64;
    let mapping = reader.map(..page)?;
    let smaps = match fs::read_to_string("/proc/self/smaps") {
        Ok(smaps) => smaps,
        Err(error) => return skip(format!("/proc/self/smaps: {error}")),
    };
    let start = format!("{:08x}-", mapping.as_ptr() as usize);
    let Some(flags) = vm_flags(&smaps, &start) else {
        return skip("/proc/self/smaps shows no flags of the mapping");
    };
    // Documentation/filesystems/proc.rst, "VmFlags".
    let missing: Vec<_> = ["rd", "ms", "de", "dd"]
        .into_iter()
        .filter(|flag| !flags.contains(flag))
        .collect();
    let excess: Vec<_> = ["wr", "mw", "ex", "me"]
        .into_iter()
        .filter(|flag| flags.contains(flag))
        .collect();
    if !missing.is_empty() || !excess.is_empty() {
        return fail(
            format!("{}: {} missing, {} too many", flags.join(" "), missing.len(), excess.len()),
            "update the module mydrv: its mmap must set VM_DONTEXPAND and VM_DONTDUMP and clear VM_MAYEXEC and VM_MAYWRITE",
        );
    }
    Ok((flags.join(" "), ()))
}

/// The flags of the mapping whose line begins with `start`.
fn vm_flags<'a>(smaps: &'a str, start: &str) -> Option<Vec<&'a str>> {
    let mut lines = smaps.lines().skip_while(|line| !line.starts_with(start)).skip(1);
    // Another mapping's line follows at the latest: it has no colon in its first word.
    let flags = lines.find_map(|line| line.strip_prefix("VmFlags:"))?;
    Some(flags.split_whitespace().collect())
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
    pub title: &'static str,
    word: fn(usize) -> u64,
}

/// Each data line alone, then neighbouring lines and neighbouring cells in opposition, both ways.
pub const PATTERNS: &[Pattern] = &[
    Pattern {
        id: "pattern-walking-ones",
        title: "each data bit alone",
        word: |index| 1 << (index % 64),
    },
    Pattern {
        id: "pattern-55aa",
        title: "neighbouring bits in opposition",
        word: |index| alternate(index),
    },
    Pattern {
        id: "pattern-aa55",
        title: "neighbouring bits in opposition, inverted",
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

/// Some bytes of the buffer, put back when this goes out of scope.
struct Saved<'m, 'd> {
    mapping: &'m MappingMut<'d>,
    parts: Vec<(usize, Vec<u8>)>,
}

impl<'m, 'd> Saved<'m, 'd> {
    fn new(mapping: &'m MappingMut<'d>, parts: impl IntoIterator<Item = (usize, usize)>) -> std::result::Result<Self, Error> {
        let save = |(offset, length)| {
            let mut bytes = vec![0; length];
            mapping.copy_to(offset, &mut bytes)?;
            Ok((offset, bytes))
        };
        Ok(Self {
            mapping,
            parts: parts.into_iter().map(save).collect::<std::result::Result<_, Error>>()?,
        })
    }
}

impl Drop for Saved<'_, '_> {
    fn drop(&mut self) {
        for (offset, bytes) in &self.parts {
            // The ranges were proved when they were saved.
            let _ = self.mapping.copy_from(*offset, bytes);
        }
    }
}

/// Compares `read` and `write` with a mapping, at odd offsets, across a page and at the end.
pub fn read_write(writer: &Device) -> Outcome {
    let size = writer.size_bytes() as usize;
    let mapping = writer.map_mut(..)?;
    let page = rustix::param::page_size();
    let places = [
        (0, page.min(size)),
        (3, 61),
        (page - 5, 10.min(size - page + 5)),
        (size - 13, 13),
    ];
    let _saved = Saved::new(&mapping, places)?;
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
pub fn two_mappings(writer: &Device) -> Outcome {
    let (one, two) = (writer.map_mut(..)?, writer.map_mut(..)?);
    let offsets: Vec<_> = sample(writer.size_bytes())
        .into_iter()
        .map(|offset| offset as usize)
        .collect();
    let _saved = Saved::new(&one, offsets.iter().map(|&offset| (offset, 8)))?;
    let mut random = Random::new(2);
    for &offset in &offsets {
        for (from, to) in [(&one, &two), (&two, &one)] {
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
pub fn two_processes(writer: &Device) -> Outcome {
    const SEED: u64 = 0x006d_7964_7276;
    let mapping = writer.map_mut(..)?;
    let offsets = sample(writer.size_bytes());
    let page = rustix::param::page_size();
    let _saved = Saved::new(&mapping, offsets.iter().map(|&offset| (offset as usize, page)))?;
    for &offset in &offsets {
        mapping.copy_from(offset as usize, &page_of(SEED, offset))?;
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
        let mut found = vec![0; page];
        mapping.copy_to(offset as usize, &mut found)?;
        if found != page_of(SEED + 1, offset) {
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
    let mut bytes = vec![0; rustix::param::page_size()];
    Random::new(seed.rotate_left(40) ^ offset).fill(&mut bytes);
    bytes
}

/// `mydrvctl validate-peer`: the second process, with the device as its standard input.
pub fn peer(args: &ValidatePeer) -> Result {
    let file = std::io::stdin().as_fd().try_clone_to_owned()?;
    let device = Device::from_fd(file, "standard input".into(), true)?;
    let mapping = device.map_mut(..)?;
    let mut found = vec![0; rustix::param::page_size()];
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

    #[test]
    fn ranges_that_overflow_are_outside() {
        assert!(inside((0x1000, 0x1000), (0x1000, 0x1000)));
        assert!(!inside((0x1000, 0x1001), (0x1000, 0x1000)));
        assert!(!inside((0xfff, 1), (0x1000, 0x1000)));
        assert!(!inside((u64::MAX, 2), (0, u64::MAX)));
    }

    #[test]
    fn vm_flags_are_those_of_the_mapping_asked_for() {
        let smaps = "ffff8000-ffff9000 r--s 00000000 00:05 1 /dev/other\nVmFlags: rd wr \n\
                     ffff9000-ffffa000 r--s 00000000 00:05 1 /dev/mydrv0\nSize: 4 kB\nVmFlags: rd sh mr ms pf io de dd \n";
        assert_eq!(
            vm_flags(smaps, "ffff9000-").unwrap(),
            ["rd", "sh", "mr", "ms", "pf", "io", "de", "dd"]
        );
        assert_eq!(vm_flags(smaps, "ffffa000-"), None);
    }
}
