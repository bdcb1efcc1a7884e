// SPDX-License-Identifier: MIT

//! Which pages stand for all of the memory where there is no time for all of it.

use std::collections::BTreeSet;

use crate::PAGE_BYTES;

/// The pages of 2 MiB: what one page table entry may map, so that at its borders a mapping may change.
const BLOCK_PAGES: usize = (2 << 20) / PAGE_BYTES;

/// The smallest sample, rising: the first page and the last, both sides of a border of 2 MiB at the start and in the middle, and 26 pages that
/// the seed chooses.
pub fn smallest_sample(total_pages: usize, seed: u64) -> Vec<usize> {
    smallest(total_pages, seed).into_iter().collect()
}

fn smallest(total_pages: usize, seed: u64) -> BTreeSet<usize> {
    let middle = total_pages / 2 / BLOCK_PAGES * BLOCK_PAGES;
    let mut state = seed;
    let mut random = || {
        // splitmix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % total_pages.max(1) as u64) as usize
    };
    let chosen: [usize; 26] = std::array::from_fn(|_| random());
    [
        0,
        total_pages.wrapping_sub(1),
        BLOCK_PAGES - 1,
        BLOCK_PAGES,
        middle.wrapping_sub(1),
        middle,
    ]
    .into_iter()
    .chain(chosen)
    .filter(|&page| page < total_pages)
    .collect()
}

/// A sample of about so many pages, rising: all of the memory if there are as many. Otherwise the smallest sample; then, as far as they fit, both
/// sides of every border of 2 MiB, and as many whole blocks of 2 MiB, evenly spread, the first and the last among them.
pub(crate) fn sample(total_pages: usize, affordable: usize, seed: u64) -> Vec<usize> {
    if affordable >= total_pages {
        return (0..total_pages).collect();
    }
    let mut pages = smallest(total_pages, seed);
    let borders = total_pages.saturating_sub(1) / BLOCK_PAGES;
    if pages.len() + 2 * borders <= affordable {
        pages.extend((1..=borders).flat_map(|border| [border * BLOCK_PAGES - 1, border * BLOCK_PAGES]));
    }
    let blocks = total_pages.div_ceil(BLOCK_PAGES);
    let fitting = affordable.saturating_sub(pages.len()) / BLOCK_PAGES;
    for index in 0..fitting.min(blocks) {
        // A single one is the first; from two on, the last is among them.
        let block = if fitting > 1 {
            index * (blocks - 1) / (fitting - 1)
        } else {
            0
        };
        pages.extend((block * BLOCK_PAGES..(block + 1) * BLOCK_PAGES).filter(|&page| page < total_pages));
    }
    pages.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_sample_has_both_ends_and_stays_inside() {
        for total in [1, 2, 3, 511, 512, 513, 1024, 16384, 1 << 18] {
            for seed in 0..20 {
                let pages = smallest_sample(total, seed);
                assert_eq!((pages[0], pages[pages.len() - 1]), (0, total - 1), "{total}");
                assert!(pages.is_sorted_by(|a, b| a < b) && pages.len() <= 32);
            }
        }
        let pages = smallest_sample(16384, 1);
        assert!([511, 512, 8191, 8192].iter().all(|page| pages.contains(page)));
        assert_ne!(pages, smallest_sample(16384, 2));
        assert!(smallest_sample(0, 1).is_empty());
    }

    #[test]
    fn a_sample_is_as_large_as_may_be_and_has_what_it_promises() {
        for total in [600, 1024, 16384, 16385, 1 << 18] {
            for affordable in [0, 100, 700, 2000, 8000, 16383] {
                let pages = sample(total, affordable, 7);
                assert!(pages.is_sorted_by(|a, b| a < b) && pages[pages.len() - 1] == total - 1 && pages[0] == 0);
                assert!(
                    pages.len() <= affordable.max(32).max(total.min(affordable)),
                    "{total} {affordable}"
                );
                // What is left over is less than a block, as far as blocks do not meet pages that are chosen already.
                let all = affordable >= total;
                assert!(
                    all || pages.len() + 2 * BLOCK_PAGES > affordable.min(total),
                    "{total} {affordable} {}",
                    pages.len()
                );
            }
        }
        assert_eq!(sample(700, 700, 1), (0..700).collect::<Vec<_>>());
        let pages = sample(16384, 3000, 1);
        assert!((1..32).all(|border| pages.contains(&(border * 512)) && pages.contains(&(border * 512 - 1))));
        assert!(
            (0..512)
                .chain(16384 - 512..16384)
                .all(|page| pages.binary_search(&page).is_ok())
        );
    }
}
