// SPDX-License-Identifier: MIT

//! The list of all checks: their names and when they run. A check that is not listed here does not run.

use super::refusals;

/// When a check runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Always, at boot too: device tree, region, mapping, memory. Where it applies at all, every boot can tell; `--require boot` stands for these.
    Boot,
    /// With `--full` alone: constant code, which one boot proves for all of them, and what the boot's unit may not do.
    Full,
}

/// One check, apart from what it does.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// The check's stable name.
    pub id: &'static str,
    /// What is checked.
    pub title: &'static str,
    /// When it runs.
    pub depth: Depth,
}

const fn boot(id: &'static str, title: &'static str) -> Check {
    Check {
        id,
        title,
        depth: Depth::Boot,
    }
}

const fn full(id: &'static str, title: &'static str) -> Check {
    Check {
        id,
        title,
        depth: Depth::Full,
    }
}

/// In the order in which they run, without the refusals, which have a table of their own.
const CHECKS: &[Check] = &[
    boot("device-tree", "the device tree describes a buffer"),
    boot("keep", "what is to be kept exists"),
    boot("region", "memory-region names reserved memory"),
    boot("driver", "the driver is loaded and bound"),
    boot("node", "the device node belongs to the buffer"),
    boot("device-report", "the device's own validation came to a verdict"),
    boot("permissions", "the group mydrv may use the device, others may not"),
    boot("abi", "the device opens and speaks this ABI"),
    boot("label", "the driver tells the label of the device tree"),
    boot("properties", "the driver follows the node's properties"),
    boot("size", "the buffer has its size"),
    boot("physical-range", "the buffer lies inside its region"),
    boot("mapping-flags", "the flags that the driver gives a mapping"),
    boot("readable", "every page can be read"),
    boot("zeroing", "a buffer that nobody has written holds zeros"),
    boot("open-write", "the device opens for writing, unless it is read-only"),
    full("contiguity", "the pages follow one another in physical memory"),
    boot("address-lines", "each address reaches a cell of its own"),
    boot("data-lines", "each data line carries what it is given"),
    boot("march-c-minus", "no cell is stuck or changes with another"),
    boot("checkerboard", "neighbouring bits do not change one another"),
    boot("retention", "cells keep what they hold"),
    boot("edac", "the memory controller saw no error"),
    boot("read-write", "read and write see what a mapping sees"),
    boot("two-mappings", "two mappings see the same memory"),
    boot("two-processes", "two processes see the same memory"),
    full("read-at-end", "a read at the end finds nothing"),
    boot("scrub", "the last close zeroes a buffer that asks for it"),
    boot("expect", "an expected buffer is there"),
    boot("unexpected", "the buffer is one of those expected"),
    boot("labels", "no two buffers have the same label"),
    boot("apart", "no two buffers have memory in common"),
];

/// All checks.
pub fn all() -> impl Iterator<Item = Check> {
    CHECKS
        .iter()
        .copied()
        .chain(refusals::REFUSALS.iter().map(|refusal| full(refusal.id, refusal.title)))
}

/// The check of that name.
pub fn find(id: &str) -> Option<Check> {
    all().find(|check| check.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_an_id_of_its_own() {
        let mut ids: Vec<_> = all().map(|check| check.id).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}
