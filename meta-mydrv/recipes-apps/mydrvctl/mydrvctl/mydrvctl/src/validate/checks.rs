// SPDX-License-Identifier: MIT

//! The list of all checks: their names and when they run. A check that is not listed here does not run.

/// When a check runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Always, at boot too: device tree, region, mapping, memory. Where it applies at all, every boot can tell; `--require boot` stands for these.
    Boot,
    /// With `--full` alone: constant code, which one boot proves for all of them, and what the boot's unit may not do.
    Full,
}

/// One check, apart from what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// The check's stable name.
    pub id: &'static str,
    /// What is checked.
    pub title: &'static str,
    /// When it runs.
    pub depth: Depth,
}

/// Each check by a name for this program, so that it cannot be misspelt.
macro_rules! checks {
    ($($depth:ident $name:ident = $id:literal: $title:literal;)*) => {
        $(#[doc = $title] pub const $name: Check = Check { id: $id, title: $title, depth: Depth::$depth };)*
        const CHECKS: &[Check] = &[$($name),*];
    };
}

// In the order in which they run.
checks! {
    Boot DEVICE_TREE = "device-tree": "the device tree describes a buffer";
    Boot KEEP = "keep": "what is to be kept exists";
    Boot REGION = "region": "memory-region names reserved memory";
    Boot DRIVER = "driver": "the driver is loaded and bound";
    Boot NODE = "node": "the device node belongs to the buffer";
    Boot DEVICE_REPORT = "device-report": "the device's own validation came to a verdict";
    Boot PERMISSIONS = "permissions": "the group mydrv may use the device, others may not";
    Boot ABI = "abi": "the device opens and speaks this ABI";
    Boot LABEL = "label": "the driver tells the label of the device tree";
    Boot PROPERTIES = "properties": "the driver follows the node's properties";
    Boot SIZE = "size": "the buffer has its size";
    Boot PHYSICAL_RANGE = "physical-range": "the buffer lies inside its region";
    Boot MAPPING_FLAGS = "mapping-flags": "the flags that the driver gives a mapping";
    Boot READABLE = "readable": "every page can be read";
    Boot ZEROING = "zeroing": "a buffer that nobody has written holds zeros";
    Boot OPEN_WRITE = "open-write": "the device opens for writing, unless it is read-only";
    Full CONTIGUITY = "contiguity": "the pages follow one another in physical memory";
    Boot ADDRESS_LINES = "address-lines": "each address reaches a cell of its own";
    Boot DATA_LINES = "data-lines": "each data line carries what it is given";
    Boot MARCH_C_MINUS = "march-c-minus": "no cell is stuck or changes with another";
    Boot CHECKERBOARD = "checkerboard": "neighbouring bits do not change one another";
    Boot RETENTION = "retention": "cells keep what they hold";
    Boot EDAC = "edac": "the memory controller saw no error";
    Boot READ_WRITE = "read-write": "read and write see what a mapping sees";
    Boot TWO_MAPPINGS = "two-mappings": "two mappings see the same memory";
    Boot TWO_PROCESSES = "two-processes": "two processes see the same memory";
    Full REFUSE_MAP_PRIVATE = "refuse-map-private": "a private mapping is refused";
    Full REFUSE_MAP_EXEC = "refuse-map-exec": "an executable mapping is refused";
    Full REFUSE_EXEC_LATER = "refuse-exec-later": "a mapping never becomes executable";
    Full REFUSE_OPEN_WRITE = "refuse-open-write": "a read-only buffer does not open for writing";
    Full REFUSE_MAP_BEYOND = "refuse-map-beyond": "a mapping beyond the end is refused";
    Full REFUSE_MAP_OUTSIDE = "refuse-map-outside": "a mapping that starts at the end is refused";
    Full REFUSE_GROW = "refuse-grow": "a mapping never grows";
    Full REFUSE_IOCTL = "refuse-ioctl": "an unknown ioctl is refused";
    Full REFUSE_SYNC_DIRECTION = "refuse-sync-direction": "a sync of unknown direction is refused";
    Full REFUSE_SYNC_EMPTY = "refuse-sync-empty": "a sync of nothing is refused";
    Full REFUSE_SYNC_RESERVED = "refuse-sync-reserved": "a sync with reserved bits is refused";
    Full REFUSE_SYNC_BEYOND = "refuse-sync-beyond": "a sync beyond the end is refused";
    Full REFUSE_SYNC_OVERFLOW = "refuse-sync-overflow": "a sync whose end overflows is refused";
    Full REFUSE_SYNC_READER = "refuse-sync-reader": "a read-only file does not discard others' data";
    Full REFUSE_SEEK_BEYOND = "refuse-seek-beyond": "a seek beyond the end is refused";
    Full REFUSE_WRITE_AT_END = "refuse-write-at-end": "a write at the end is refused";
    Full READ_AT_END = "read-at-end": "a read at the end finds nothing";
    Boot SCRUB = "scrub": "the last close zeroes a buffer that asks for it";
    Boot EXPECT = "expect": "an expected buffer is there";
    Boot UNEXPECTED = "unexpected": "the buffer is one of those expected";
    Boot LABELS = "labels": "no two buffers have the same label";
    Boot APART = "apart": "no two buffers have memory in common";
}

/// All checks.
pub fn all() -> impl Iterator<Item = Check> {
    CHECKS.iter().copied()
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
