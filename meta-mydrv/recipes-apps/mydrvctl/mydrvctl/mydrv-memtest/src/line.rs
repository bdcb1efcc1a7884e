// SPDX-License-Identifier: MIT

//! The word that the tests work on: 64 bytes, a cache line of most machines, in vector registers where there are some.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::{
    uint64x2_t, vaddq_u64, vdupq_n_u64, veorq_u64, vgetq_lane_u64, vld1q_u64, vmaxvq_u32, vorrq_u64, vpadalq_u32,
    vreinterpretq_u32_u64, vst1q_u64,
};

/// A line's bytes.
pub const LINE_BYTES: usize = 64;
/// A line's 64-bit words.
pub const LINE_WORDS: usize = LINE_BYTES / 8;

/// One line's contents.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug)]
pub struct Line(pub(crate) [uint64x2_t; 4]);

/// One line's contents.
#[cfg(not(target_arch = "aarch64"))]
#[derive(Clone, Copy, Debug)]
pub struct Line(pub(crate) [u64; LINE_WORDS]);

// SAFETY of the intrinsics in this file: every aarch64 processor that runs Linux has Advanced SIMD (the target's base line).
#[cfg(target_arch = "aarch64")]
impl Line {
    /// A line of these words, in the order of their addresses.
    #[inline(always)]
    pub fn from_words(words: [u64; LINE_WORDS]) -> Self {
        // SAFETY: each pointer is good for the two words that are loaded through it.
        Self(std::array::from_fn(|i| unsafe {
            vld1q_u64(words[2 * i..2 * i + 2].as_ptr())
        }))
    }

    /// The words, in the order of their addresses.
    pub fn words(self) -> [u64; LINE_WORDS] {
        let mut words = [0; LINE_WORDS];
        for (pair, half) in words.chunks_exact_mut(2).zip(self.0) {
            // SAFETY: the chunk has the two words that are stored.
            unsafe { vst1q_u64(pair.as_mut_ptr(), half) };
        }
        words
    }

    /// A line of one word again and again; its bits are those of a 64-bit pattern.
    #[inline(always)]
    pub fn splat(word: u64) -> Self {
        // SAFETY: see above.
        Self([unsafe { vdupq_n_u64(word) }; 4])
    }

    /// The difference, bit by bit.
    #[inline(always)]
    pub fn xor(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(std::array::from_fn(|i| unsafe { veorq_u64(self.0[i], other.0[i]) }))
    }

    /// Whether any bit is set in any of the lines.
    #[inline(always)]
    pub(crate) fn any(lines: [Self; 4]) -> bool {
        // SAFETY: see above.
        unsafe {
            let or = |[a, b, c, d]: [uint64x2_t; 4]| vorrq_u64(vorrq_u64(a, b), vorrq_u64(c, d));
            vmaxvq_u32(vreinterpretq_u32_u64(or(lines.map(|line| or(line.0))))) != 0
        }
    }
}

#[cfg(not(target_arch = "aarch64"))]
impl Line {
    /// A line of these words, in the order of their addresses.
    #[inline(always)]
    pub fn from_words(words: [u64; LINE_WORDS]) -> Self {
        Self(words)
    }

    /// The words, in the order of their addresses.
    pub fn words(self) -> [u64; LINE_WORDS] {
        self.0
    }

    /// A line of one word again and again; its bits are those of a 64-bit pattern.
    #[inline(always)]
    pub fn splat(word: u64) -> Self {
        Self([word; LINE_WORDS])
    }

    /// The difference, bit by bit.
    #[inline(always)]
    pub fn xor(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] ^ other.0[i]))
    }

    /// Whether any bit is set in any of the lines.
    #[inline(always)]
    pub(crate) fn any(lines: [Self; 4]) -> bool {
        lines.iter().flat_map(|line| line.0).fold(0, |all, word| all | word) != 0
    }
}

/// Two sums over the lines of a page, as they are added: of their 32-bit words, and of that sum after each line, which weighs each line by
/// its place. Both are exact: 64 lines of 16 words do not overflow 64 bits. So every error of one sign shows, however often it comes; errors
/// that cancel out in both sums take at least three bits of one weight in one page.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    #[cfg(target_arch = "aarch64")]
    lanes: [uint64x2_t; 2],
    #[cfg(not(target_arch = "aarch64"))]
    lanes: [[u64; 2]; 2],
}

#[cfg(target_arch = "aarch64")]
impl Sums {
    #[inline(always)]
    pub fn new() -> Self {
        // SAFETY: see above.
        Self {
            lanes: [unsafe { vdupq_n_u64(0) }; 2],
        }
    }

    #[inline(always)]
    pub fn add(&mut self, line: Line) {
        let [sum, weighted] = &mut self.lanes;
        // SAFETY: see above.
        unsafe {
            for half in line.0 {
                *sum = vpadalq_u32(*sum, vreinterpretq_u32_u64(half));
            }
            *weighted = vaddq_u64(*weighted, *sum);
        }
    }

    /// The sums and the weighted ones, each over the even and over the odd 64-bit words.
    #[inline(always)]
    pub fn finish(self) -> [[u64; 2]; 2] {
        // SAFETY: see above.
        self.lanes
            .map(|lanes| unsafe { [vgetq_lane_u64(lanes, 0), vgetq_lane_u64(lanes, 1)] })
    }
}

#[cfg(not(target_arch = "aarch64"))]
impl Sums {
    #[inline(always)]
    pub fn new() -> Self {
        Self { lanes: [[0; 2]; 2] }
    }

    #[inline(always)]
    pub fn add(&mut self, line: Line) {
        let [sum, weighted] = &mut self.lanes;
        for (index, word) in line.0.iter().enumerate() {
            sum[index % 2] += (word & 0xffff_ffff) + (word >> 32);
        }
        for (weighted, sum) in weighted.iter_mut().zip(sum) {
            *weighted += *sum;
        }
    }

    /// The sums and the weighted ones, each over the even and over the odd 64-bit words.
    #[inline(always)]
    pub fn finish(self) -> [[u64; 2]; 2] {
        self.lanes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [u64; LINE_WORDS] = [1, 2, 4, 8, 1 << 63, u64::MAX, 0, 0x0123_4567_89ab_cdef];

    #[test]
    fn lines_keep_their_words_in_order() {
        assert_eq!(Line::from_words(WORDS).words(), WORDS);
        assert_eq!(Line::splat(7).words(), [7; LINE_WORDS]);
        assert_eq!(
            Line::from_words(WORDS).xor(Line::splat(5)).words(),
            WORDS.map(|word| word ^ 5)
        );
    }

    #[test]
    fn any_sees_each_bit_of_each_line() {
        let zero = Line::splat(0);
        assert!(!Line::any([zero; 4]));
        for bit in 0..512 {
            let mut words = [0; LINE_WORDS];
            words[bit / 64] = 1 << (bit % 64);
            let line = Line::from_words(words);
            for place in 0..4 {
                let mut lines = [zero; 4];
                lines[place] = line;
                assert!(Line::any(lines), "{bit} {place}");
            }
        }
    }

    #[test]
    fn sums_are_the_sums_of_their_definition() {
        let lines = [WORDS, [u64::MAX; LINE_WORDS], WORDS.map(|word| word.rotate_left(9))];
        let mut sums = Sums::new();
        let mut expected = [[0_u64; 2]; 2];
        for line in lines {
            sums.add(Line::from_words(line));
            for (index, word) in line.iter().enumerate() {
                expected[0][index % 2] += (word >> 32) + (word & 0xffff_ffff);
            }
            let [sum, weighted] = &mut expected;
            weighted.iter_mut().zip(sum).for_each(|(weighted, sum)| *weighted += *sum);
        }
        assert_eq!(sums.finish(), expected);
    }
}
