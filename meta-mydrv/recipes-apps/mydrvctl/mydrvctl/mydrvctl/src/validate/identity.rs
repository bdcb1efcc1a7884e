// SPDX-License-Identifier: MIT

//! The checks of what the driver says of a buffer, against the device tree and against what the kernel shows. They write nothing.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use mydrv::{Candidate, Device, Error, Lock, OpenOptions, attempt};

use super::{
    Context, boot,
    devicetree::{Node, Region},
    report::{Outcome, Problem, fail, in_use, skip},
    users,
};
use crate::output;

/// Opens the device for reading, alone. Other users get until the deadline to leave, those without a lock too.
pub fn open(context: &Context, candidate: &Candidate) -> Outcome<Device> {
    let path = &candidate.path;
    let mut told = String::new();
    let mut asked: Option<Instant> = None;
    let opened = context.wait_for(|| {
        let opened = OpenOptions::new()
            .lock(Lock::Exclusive)
            .open(path.as_path())
            .and_then(|device| Ok((device.users()?, device.info()?.abi_version, device)));
        match opened {
            Err(Error::Busy { .. }) => {}
            Ok((users, ..)) if users.open_files > 1 => {}
            opened => return Some(opened),
        }
        // Looking through all processes takes its time.
        if asked.is_some_and(|asked| asked.elapsed() < Duration::from_secs(1)) {
            return None;
        }
        let users = users::named(&context.root, path);
        asked = Some(Instant::now());
        if users != told {
            boot::status(&format!("waiting for {users} to leave {}", path.display()));
            if context.part.is_boot() {
                output::say(&format!("mydrv-validate: waiting for {users} to leave {}", path.display()));
            }
            told = users;
        }
        None
    });
    match opened {
        Some(opened) => opened
            .map(|(_, abi, device)| (format!("ABI {abi}"), device))
            .map_err(Problem::from),
        None => in_use(format!("{}: in use by {told}", path.display())),
    }
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
    let found = properties(&info.cache_mode.to_string(), info.flags.read_only(), info.flags.scrub());
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
        Some(size) => format!("{of_tree}, {size} bytes (--expect)"),
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
        return other_size(found);
    }
    Ok((told, found))
}

/// That the buffer has another size than the product expects.
pub fn other_size<T>(found: u64) -> Outcome<T> {
    fail(
        format!("wrong size: {found} bytes ({})", output::size(found)),
        "set the overlay's size (MYDRV_CMA_SIZE) or MYDRV_EXPECT in /etc/default/mydrv",
    )
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

/// Where the buffer is, against what the driver says of its region, and that against the device tree. Yields its physical addresses.
pub fn physical_range(reader: &Device, region: &Region) -> Outcome<Range<u64>> {
    let info = reader.info()?;
    let Some(addresses) = info.addresses else {
        return skip("the driver shows addresses to CAP_SYS_RAWIO alone");
    };
    let start = addresses.physical;
    let range = start..start.saturating_add(info.size_bytes);
    let told = format!("{start:#x}..{:#x}", range.end);
    let Region::Reserved { base, choices, size, .. } = region else {
        return Ok((told, range));
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
        range,
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

/// The flags of a mapping that the driver sets. Those that the kernel's core sets for any file are left out.
pub fn mapping_flags(reader: &Device) -> Outcome {
    let page = rustix::param::page_size() as u64;
    let mapping = reader.map(..page)?;
    let flags = match attempt::vm_flags(reader, &mapping) {
        Ok(Some(flags)) => flags,
        Ok(None) => return skip("/proc/self/smaps shows no flags of the mapping"),
        Err(error) => return skip(format!("/proc/self/smaps: {error}")),
    };
    let wrong: Vec<_> = [("de", true), ("dd", true), ("me", false)]
        .into_iter()
        .filter(|&(flag, wanted)| flags.iter().any(|found| found == flag) != wanted)
        .map(|(flag, wanted)| {
            if wanted {
                format!("without {flag}")
            } else {
                format!("with {flag}")
            }
        })
        .collect();
    if !wrong.is_empty() {
        return fail(
            format!("{}: {}", flags.join(" "), wrong.join(", ")),
            "update the module mydrv: its mmap must set VM_DONTEXPAND and VM_DONTDUMP and clear VM_MAYEXEC",
        );
    }
    Ok((flags.join(" "), ()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_overflow_are_outside() {
        assert!(inside((0x1000, 0x1000), (0x1000, 0x1000)));
        assert!(!inside((0x1000, 0x1001), (0x1000, 0x1000)));
        assert!(!inside((0xfff, 1), (0x1000, 0x1000)));
        assert!(!inside((u64::MAX, 2), (0, u64::MAX)));
    }
}
