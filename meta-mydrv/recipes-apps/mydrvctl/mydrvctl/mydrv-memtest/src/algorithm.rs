// SPDX-License-Identifier: MIT

//! The march elements: one read, one write, each line in turn, over all of the memory under test. `run` has their order.

use crate::{
    PAGE_BYTES, PAGE_LINES,
    line::{LINE_BYTES, LINE_WORDS, Line, Sums},
    memory::{Lines, Memory},
    run::Host,
};

/// A memory test, by its standard name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// March C-.
    MarchC,
    /// Checkerboard and its inverse.
    Checkerboard,
    /// Checkerboard and its inverse, with a pause before each read.
    Retention,
    /// Walking ones and zeros over the bits of a line.
    DataLines,
    /// Walking ones and zeros over the offsets of words.
    AddressLines,
}

/// What the memory holds before the test, and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Zeros, for certain.
    Zeros,
    /// Anything.
    Keep,
}

/// Where a fault showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// In the 64-bit word at this offset in bytes.
    Word {
        /// The offset in bytes.
        offset: u64,
        /// What it should hold.
        wanted: u64,
        /// What was read.
        found: u64,
    },
    /// In the page of 4096 bytes at this offset.
    Page {
        /// The offset in bytes.
        offset: u64,
    },
}

/// What an algorithm found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The algorithm that wrote what was then not there.
    pub algorithm: Algorithm,
    /// The first place.
    pub first: Site,
    /// How many reads of a line, or of a page, were wrong.
    pub count: u64,
    /// Which bits of a 64-bit word were ever wrong, where words were compared.
    pub bits: u64,
}

/// Background patterns, by number, since a constant parameter of a function can be no more. Alternating ones change from bit to bit, from word
/// to word and from line to line.
pub(crate) mod background {
    /// No bit set.
    pub const ZEROS: u8 = 0;
    /// Every bit set.
    pub const ONES: u8 = 1;
    /// 0x55… first.
    pub const CHECKERBOARD: u8 = 2;
    /// 0xaa… first.
    pub const INVERSE: u8 = 3;
    /// Nothing is read, or nothing is written.
    pub const NONE: u8 = 4;
}
use background::{CHECKERBOARD, INVERSE, NONE, ONES, ZEROS};

/// A line of a background: its words alternate.
#[inline(always)]
fn pattern(background: u8, odd_line: bool) -> Line {
    const FIVES: u64 = 0x5555_5555_5555_5555;
    match background {
        ONES => Line::splat(!0),
        CHECKERBOARD | INVERSE => {
            let first = if (background == INVERSE) ^ odd_line { !FIVES } else { FIVES };
            Line::from_words(std::array::from_fn(|i| if i % 2 == 0 { first } else { !first }))
        }
        _ => Line::splat(0),
    }
}

/// Every fourth line of a page, in the order of the element; from each on, [`quad`] has the next four.
#[inline(always)]
fn quads<const DOWN: bool>() -> impl Iterator<Item = usize> {
    (0..PAGE_LINES)
        .step_by(4)
        .map(|step| if DOWN { PAGE_LINES - 4 - step } else { step })
}

/// Four lines in the order of the element. Constants, so that each costs an addition to one pointer.
#[inline(always)]
fn quad<const DOWN: bool>() -> [usize; 4] {
    if DOWN { [3, 2, 1, 0] } else { [0, 1, 2, 3] }
}

/// How many pages go between two questions whether to stop, and between two barriers.
const CHUNK_PAGES: usize = 64;

/// The signature of a page: sums and weighted sums as of an upward run.
type Signature = [[u64; 2]; 2];

/// A downward run weighs the lines the other way round; together both weigh each line as many times as there are lines, and once.
fn turned([sum, weighted]: Signature) -> Signature {
    let turned = |lane: usize| ((PAGE_LINES as u64 + 1) * sum[lane]).wrapping_sub(weighted[lane]);
    [sum, [turned(0), turned(1)]]
}

/// The memory under test while its elements run.
pub(crate) struct Elements<'a, M, H> {
    pub memory: &'a M,
    pub host: &'a H,
    /// The pages under test, rising.
    pub pages: &'a [usize],
    /// One for each page where the contents are kept; none where they are zeros.
    signatures: Vec<Signature>,
    keep: bool,
    pub faults: Vec<Fault>,
}

/// The test was told to stop; the contents are back.
pub(crate) struct Stopped;

impl<'a, M: Memory, H: Host> Elements<'a, M, H> {
    pub fn new(memory: &'a M, host: &'a H, pages: &'a [usize], contents: Contents) -> Self {
        Self {
            memory,
            host,
            pages,
            signatures: Vec::new(),
            keep: contents == Contents::Keep,
            faults: Vec::new(),
        }
    }

    /// Takes the signatures of contents that are to be kept. What caches hold of them goes to memory.
    pub fn read_contents(&mut self) -> Result<(), Stopped> {
        debug_assert!(self.keep);
        let pages = self.pages;
        self.signatures = Vec::with_capacity(pages.len());
        for chunk in pages.chunks(CHUNK_PAGES) {
            if self.host.stop() {
                return Err(Stopped);
            }
            for &page in chunk {
                let page = self.memory.page(page);
                let mut sums = Sums::new();
                for first in quads::<false>() {
                    let four = page.from(first);
                    for line in quad::<false>() {
                        sums.add(four.read(line));
                        four.flush(line);
                    }
                }
                self.signatures.push(sums.finish());
            }
            self.settle(chunk);
            self.host.progress(chunk.len() * PAGE_BYTES);
        }
        Ok(())
    }

    /// Drops what caches hold of the memory, after writing it back.
    pub fn flush(&self) -> Result<(), Stopped> {
        for chunk in self.pages.chunks(CHUNK_PAGES) {
            if self.host.stop() {
                return Err(Stopped);
            }
            for &page in chunk {
                let page = self.memory.page(page);
                (0..PAGE_LINES).for_each(|line| page.flush(line));
            }
            self.settle(chunk);
        }
        Ok(())
    }

    /// One element: upward, or downward; reads the background OLD, then writes NEW, line by line. Either may be NONE. A wrong read is
    /// `blamed` on the algorithm that wrote OLD. When it is told to stop, it puts the contents back.
    pub fn element<const DOWN: bool, const OLD: u8, const NEW: u8>(&mut self, blamed: Algorithm) -> Result<(), Stopped> {
        let count = self.pages.len();
        for from in (0..count).step_by(CHUNK_PAGES) {
            if self.host.stop() {
                // An element that only reads has the others' contents before it.
                if OLD != ZEROS || NEW != NONE {
                    self.put_back(DOWN, from, OLD, NEW);
                }
                return Err(Stopped);
            }
            let to = (from + CHUNK_PAGES).min(count);
            for step in from..to {
                let index = if DOWN { count - 1 - step } else { step };
                let page = self.pages[index];
                if self.keep {
                    let found = self.kept::<DOWN, OLD, NEW>(page);
                    let wanted = self.signatures[index];
                    if found != if DOWN { turned(wanted) } else { wanted } {
                        self.blame(
                            blamed,
                            Site::Page {
                                offset: (page * PAGE_BYTES) as u64,
                            },
                            0,
                        );
                    }
                } else {
                    self.known::<DOWN, OLD, NEW>(page, blamed);
                }
            }
            let chunk = if DOWN { count - to..count - from } else { from..to };
            self.settle(&self.pages[chunk]);
            self.host.progress((to - from) * PAGE_BYTES);
        }
        Ok(())
    }

    /// One page, whose contents are zeros but for the background. Four lines are compared at once, after each was read, written and flushed.
    #[inline(always)]
    fn known<const DOWN: bool, const OLD: u8, const NEW: u8>(&mut self, number: usize, blamed: Algorithm) {
        let page = self.memory.page(number);
        for first in quads::<DOWN>() {
            let four = page.from(first);
            let differences = quad::<DOWN>().map(|line| {
                let difference = if OLD == NONE {
                    Line::splat(0)
                } else {
                    four.read(line).xor(pattern(OLD, line % 2 == 1))
                };
                if NEW != NONE {
                    four.write(line, pattern(NEW, line % 2 == 1));
                    four.flush(line);
                }
                difference
            });
            if OLD != NONE && Line::any(differences) {
                for (line, difference) in quad::<DOWN>().into_iter().zip(differences) {
                    self.compare(
                        number * PAGE_LINES + first + line,
                        pattern(OLD, line % 2 == 1),
                        difference,
                        blamed,
                    );
                }
            }
        }
    }

    /// One page, whose contents are anything, with the background added. Returns the signature in the order of the run.
    #[inline(always)]
    fn kept<const DOWN: bool, const OLD: u8, const NEW: u8>(&self, number: usize) -> Signature {
        let page = self.memory.page(number);
        let mut sums = Sums::new();
        for first in quads::<DOWN>() {
            let four = page.from(first);
            for line in quad::<DOWN>() {
                let contents = four.read(line).xor(pattern(OLD, line % 2 == 1));
                sums.add(contents);
                if NEW != NONE {
                    four.write(line, contents.xor(pattern(NEW, line % 2 == 1)));
                    four.flush(line);
                }
            }
        }
        sums.finish()
    }

    /// Puts the contents back in the middle of an element that has done the first `done` pages of its order.
    fn put_back(&self, down: bool, done: usize, old: u8, new: u8) {
        let count = self.pages.len();
        for step in 0..count {
            let number = self.pages[if down { count - 1 - step } else { step }];
            let page = self.memory.page(number);
            let added = if step < done && new != NONE { new } else { old };
            for line in 0..PAGE_LINES {
                let contents = if self.keep {
                    page.read(line).xor(pattern(added, line % 2 == 1))
                } else {
                    Line::splat(0)
                };
                page.write(line, contents);
                page.flush(line);
            }
            self.settle(&[number]);
        }
    }

    /// Waits until these pages are in memory.
    fn settle(&self, pages: &[usize]) {
        for run in pages.chunk_by(|a, b| a + 1 == *b) {
            self.memory.settle(run[0]..run[0] + run.len());
        }
    }

    /// Tells of a line that differs, if it does.
    #[cold]
    pub fn compare(&mut self, line: usize, wanted: Line, difference: Line, blamed: Algorithm) {
        let differing = difference.words();
        if let Some(word) = differing.iter().position(|&word| word != 0) {
            let bits = differing.iter().fold(0, |all, word| all | word);
            let wanted = wanted.words()[word];
            let offset = (line * LINE_BYTES + word * 8) as u64;
            let found = wanted ^ differing[word];
            self.blame(blamed, Site::Word { offset, wanted, found }, bits);
        }
    }

    /// Counts a fault; the first of each algorithm stands for all of it.
    pub fn blame(&mut self, algorithm: Algorithm, first: Site, bits: u64) {
        match self.faults.iter_mut().find(|fault| fault.algorithm == algorithm) {
            Some(fault) => {
                fault.count += 1;
                fault.bits |= bits;
            }
            None => self.faults.push(Fault {
                algorithm,
                first,
                count: 1,
                bits,
            }),
        }
    }
}

const _: () = assert!(LINE_WORDS.is_multiple_of(2) && PAGE_LINES.is_multiple_of(4));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkerboard_alternates_from_bit_to_bit_from_word_to_word_and_from_line_to_line() {
        for odd in [false, true] {
            let words = pattern(CHECKERBOARD, odd).words();
            assert!(words.iter().all(|word| word ^ word << 1 | 1 == u64::MAX));
            assert!(words.windows(2).all(|pair| pair[0] == !pair[1]));
            assert_eq!(words.map(|word| !word), pattern(CHECKERBOARD, !odd).words());
            assert_eq!(words.map(|word| !word), pattern(INVERSE, odd).words());
        }
    }
}
