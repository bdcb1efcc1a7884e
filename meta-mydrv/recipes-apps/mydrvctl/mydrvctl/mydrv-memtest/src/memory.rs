// SPDX-License-Identifier: MIT

//! The memory under test: what the algorithms ask of it, and memory that is mapped into this process.

use std::{cell::Cell, marker::PhantomData, ops::Range, ptr};

use crate::{
    PAGE_BYTES, PAGE_LINES,
    flush::Instruction,
    line::{LINE_BYTES, Line},
};

/// Memory under test. Each access happens as it is written, in this order: none is merged, split by whole words, repeated or left out.
pub trait Memory {
    /// The lines of one page, for the inner loops: see [`page`](Self::page).
    type Lines<'m>: Lines
    where
        Self: 'm;

    /// How many pages of 4096 bytes there are.
    fn pages(&self) -> usize;

    /// A page, counted from the start.
    fn page(&self, page: usize) -> Self::Lines<'_>;

    /// Reads a 64-bit word; `word` counts those from the start.
    fn read_word(&self, word: usize) -> u64;

    /// Writes a 64-bit word.
    fn write_word(&self, word: usize, value: u64);

    /// Ends flushing: returns when what was written to these pages, each line of which was given to [`Lines::flush`], is in memory.
    fn settle(&self, pages: Range<usize>);
}

/// The lines of one page of memory under test, or those from one of them on.
pub trait Lines: Copy {
    /// Those from the line `first` on, of the 64 of a page, which is then line 0.
    fn from(self, first: usize) -> Self;

    /// Reads a line.
    fn read(self, line: usize) -> Line;

    /// Writes a line.
    fn write(self, line: usize, value: Line);

    /// Begins to write a line back to memory and to drop it from every cache, so that the next read comes from memory.
    fn flush(self, line: usize);
}

/// Memory that is mapped into this process. `FLUSH`: whether the processor's instruction flushes it, which is part of the type, so that the inner
/// loops need not ask.
#[derive(Debug)]
pub struct Mapped<'a, const FLUSH: bool> {
    start: *mut u8,
    pages: usize,
    instruction: Option<Instruction>,
    flushed: Cell<u64>,
    life: PhantomData<&'a ()>,
}

impl Mapped<'_, true> {
    /// `len` bytes at `start`, of which a remainder that is no whole page of 4096 bytes is left out.
    ///
    /// # Safety
    ///
    /// The bytes are mapped as long as the lifetime: for reading, and for writing unless nothing but [`zeros`](crate::zeros) is called. `start` is
    /// a multiple of 64, and no reference points there. And whoever is given the value asks [`Lines`] for the 64 lines of a page alone, which is not
    /// checked there, as [`run`](crate::run) and [`zeros`](crate::zeros) do.
    pub unsafe fn flushed_by(instruction: Instruction, start: *mut u8, len: usize) -> Self {
        Self::new(start, len, Some(instruction))
    }
}

impl Mapped<'_, false> {
    /// The same of memory that is not cached, or whose cache there is no instruction for.
    ///
    /// # Safety
    ///
    /// As for [`flushed_by`](Mapped::flushed_by).
    pub unsafe fn unflushed(start: *mut u8, len: usize) -> Self {
        Self::new(start, len, None)
    }
}

impl<const FLUSH: bool> Mapped<'_, FLUSH> {
    fn new(start: *mut u8, len: usize, instruction: Option<Instruction>) -> Self {
        debug_assert!(start.addr().is_multiple_of(LINE_BYTES));
        Self {
            start,
            pages: len / PAGE_BYTES,
            instruction,
            flushed: Cell::new(0),
            life: PhantomData,
        }
    }

    /// How many lines have been flushed by the processor's instruction.
    pub fn flushed(&self) -> u64 {
        self.flushed.get()
    }

    fn word(&self, word: usize) -> *mut u64 {
        assert!(word < self.pages * PAGE_BYTES / 8);
        self.start.wrapping_add(word * 8).cast()
    }
}

/// Lines of a page of [`Mapped`] memory.
#[derive(Clone, Copy, Debug)]
pub struct MappedLines<'a, const FLUSH: bool> {
    start: *mut u8,
    life: PhantomData<&'a ()>,
}

impl<const FLUSH: bool> MappedLines<'_, FLUSH> {
    #[inline(always)]
    fn line(self, line: usize) -> *mut u8 {
        debug_assert!(line < PAGE_LINES);
        self.start.wrapping_add(line * LINE_BYTES)
    }
}

impl<const FLUSH: bool> Lines for MappedLines<'_, FLUSH> {
    #[inline(always)]
    fn from(self, first: usize) -> Self {
        Self {
            start: self.line(first),
            ..self
        }
    }

    #[inline(always)]
    fn read(self, line: usize) -> Line {
        // SAFETY: the line lies within the mapping, by the contract of `Mapped`, the range that `page` proved, and the algorithms' lines.
        unsafe { load(self.line(line)) }
    }

    #[inline(always)]
    fn write(self, line: usize, value: Line) {
        // SAFETY: as above.
        unsafe { store(self.line(line), value) };
    }

    #[inline(always)]
    fn flush(self, line: usize) {
        if FLUSH {
            // SAFETY: as above, and there is the instruction; flushing changes nothing that the process sees.
            unsafe { Instruction::line(self.line(line)) };
        }
    }
}

impl<const FLUSH: bool> Memory for Mapped<'_, FLUSH> {
    type Lines<'m>
        = MappedLines<'m, FLUSH>
    where
        Self: 'm;

    fn pages(&self) -> usize {
        self.pages
    }

    #[inline(always)]
    fn page(&self, page: usize) -> MappedLines<'_, FLUSH> {
        assert!(page < self.pages);
        MappedLines {
            start: self.start.wrapping_add(page * PAGE_BYTES),
            life: PhantomData,
        }
    }

    fn read_word(&self, word: usize) -> u64 {
        // SAFETY: `word` proved the range.
        unsafe { ptr::read_volatile(self.word(word)) }
    }

    fn write_word(&self, word: usize, value: u64) {
        // SAFETY: `word` proved the range.
        unsafe { ptr::write_volatile(self.word(word), value) }
    }

    fn settle(&self, pages: Range<usize>) {
        if let Some(flush) = self.instruction {
            assert!(pages.end <= self.pages);
            // SAFETY: as for `Lines::flush`.
            unsafe { flush.rest(self.start.wrapping_add(pages.start * PAGE_BYTES), pages.len() * PAGE_BYTES) };
            self.flushed.set(self.flushed.get() + (pages.len() * PAGE_LINES) as u64);
        }
        crate::flush::barrier();
    }
}

/// Two instructions of 32 bytes each.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn load(from: *const u8) -> Line {
    let (a, b, c, d);
    // SAFETY: the caller vouches for 64 readable bytes.
    unsafe {
        std::arch::asm!(
            "ldp {a:q}, {b:q}, [{from}]",
            "ldp {c:q}, {d:q}, [{from}, #32]",
            from = in(reg) from,
            a = out(vreg) a, b = out(vreg) b, c = out(vreg) c, d = out(vreg) d,
            options(nostack, preserves_flags, readonly),
        );
    }
    Line([a, b, c, d])
}

/// Two instructions of 32 bytes each.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn store(to: *mut u8, line: Line) {
    let [a, b, c, d] = line.0;
    // SAFETY: the caller vouches for 64 writable bytes.
    unsafe {
        std::arch::asm!(
            "stp {a:q}, {b:q}, [{to}]",
            "stp {c:q}, {d:q}, [{to}, #32]",
            to = in(reg) to,
            a = in(vreg) a, b = in(vreg) b, c = in(vreg) c, d = in(vreg) d,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(not(target_arch = "aarch64"))]
#[inline(always)]
unsafe fn load(from: *const u8) -> Line {
    // SAFETY: the caller vouches for 64 readable bytes, aligned.
    Line(std::array::from_fn(|i| unsafe {
        ptr::read_volatile(from.cast::<u64>().add(i))
    }))
}

#[cfg(not(target_arch = "aarch64"))]
#[inline(always)]
unsafe fn store(to: *mut u8, line: Line) {
    for (i, word) in line.0.into_iter().enumerate() {
        // SAFETY: the caller vouches for 64 writable bytes, aligned.
        unsafe { ptr::write_volatile(to.cast::<u64>().add(i), word) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Contents, Host, Options, run, zeros};
    use std::time::{Duration, Instant};

    struct Real(Instant);

    impl Host for Real {
        fn now(&self) -> Duration {
            self.0.elapsed()
        }
        fn pause(&self, _: Duration) {}
        fn stop(&self) -> bool {
            false
        }
        fn progress(&self, _: usize) {}
    }

    #[repr(C, align(4096))]
    struct Page([u64; PAGE_BYTES / 8]);

    fn is_tested_and_kept<'a, const FLUSH: bool>(of: impl Fn(*mut u8, usize) -> Mapped<'a, FLUSH>) {
        const PAGES: usize = 67;
        let word = |contents, page: usize, word: usize| match contents {
            Contents::Zeros => 0,
            Contents::Keep => (page * 512 + word) as u64 ^ 0x9e37_79b9_7f4a_7c15_u64.rotate_left(word as u32),
        };
        for contents in [Contents::Zeros, Contents::Keep] {
            let page = |page| Page(std::array::from_fn(|at| word(contents, page, at)));
            let mut pages: Vec<_> = (0..PAGES).map(page).collect();
            let memory = of(pages.as_mut_ptr().cast(), PAGES * PAGE_BYTES + 5);
            assert_eq!(memory.pages(), PAGES);
            let options = Options {
                contents,
                retention: Duration::ZERO,
                budget: None,
                seed: 1,
                repeat: 1,
            };
            let host = Real(Instant::now());
            let report = run(&memory, &host, &options);
            assert!(report.faults.is_empty() && report.pages.len() == PAGES, "{report:?}");
            // At least each of the writing elements' lines.
            assert_eq!(
                memory.flushed() > (8 * PAGES * PAGE_LINES) as u64,
                FLUSH,
                "{}",
                memory.flushed()
            );
            assert_eq!(
                zeros(&memory, &host, &options).not_zero.is_none(),
                contents == Contents::Zeros
            );
            let kept = |(page, held): (usize, &Page)| (0..512).all(|at| held.0[at] == word(contents, page, at));
            assert!(pages.iter().enumerate().all(kept));
        }
    }

    /// The processor's own instructions, on memory of this process.
    #[test]
    fn mapped_memory_is_tested_flushed_and_kept() {
        // SAFETY: the pages are the test's, mapped and aligned, and not looked at until the test has ended.
        is_tested_and_kept(|start, len| unsafe { Mapped::unflushed(start, len) });
        if let Some(flush) = Instruction::detect() {
            // SAFETY: as above.
            is_tested_and_kept(|start, len| unsafe { Mapped::flushed_by(flush, start, len) });
        }
    }

    #[test]
    fn this_processor_flushes() {
        let known = cfg!(any(target_arch = "aarch64", target_arch = "x86_64"));
        assert!(!known || Instruction::detect().is_some_and(|flush| !flush.name().is_empty()));
    }
}
