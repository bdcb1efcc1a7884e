// SPDX-License-Identifier: MIT

//! Data lines and address lines: a few places, each put back before the next.

use crate::{
    PAGE_LINES,
    algorithm::{Algorithm, Fault, Site, Stopped},
    line::{LINE_BYTES, LINE_WORDS, Line},
    memory::{Lines, Memory},
    run::Host,
};

/// A fault's first place, and how many there are.
#[derive(Default)]
struct Found {
    first: Option<Site>,
    count: u64,
    bits: u64,
}

impl Found {
    fn compare(&mut self, word: usize, wanted: u64, found: u64) {
        if wanted != found {
            let offset = (word * 8) as u64;
            self.first = self.first.or(Some(Site::Word { offset, wanted, found }));
            self.count += 1;
            self.bits |= wanted ^ found;
        }
    }

    fn fault(self, algorithm: Algorithm) -> Option<Fault> {
        let (count, bits) = (self.count, self.bits);
        self.first.map(|first| Fault {
            algorithm,
            first,
            count,
            bits,
        })
    }
}

/// Walking ones in one line and walking zeros in its neighbour, then the other way round: for each bit, the data lines must carry the one
/// pattern and right after it its complement, so that none that is open still holds the value from before. At eight places from the first page
/// to the last: lines are common to many cells, and those are March C-'s to look at.
pub(crate) fn data_lines<M: Memory, H: Host>(memory: &M, host: &H, pages: &[usize]) -> Result<Option<Fault>, Stopped> {
    let mut found = Found::default();
    const PLACES: usize = 8;
    let last = pages.len() - 1;
    let mut places: Vec<_> = (0..PLACES).map(|place| pages[last * place / (PLACES - 1)]).collect();
    places.dedup();
    for number in places {
        if host.stop() {
            return Err(Stopped);
        }
        let lines = [0, 1];
        let page = memory.page(number);
        let put = |values: [Line; 2]| {
            for (line, value) in lines.into_iter().zip(values) {
                page.write(line, value);
                page.flush(line);
            }
            memory.settle(number..number + 1);
        };
        let saved = lines.map(|line| page.read(line));
        for bit in 0..LINE_BYTES * 8 {
            let mut words = [0; LINE_WORDS];
            words[bit / 64] = 1 << (bit % 64);
            let one = Line::from_words(words);
            let zero = Line::from_words(words.map(|word| !word));
            for written in [[one, zero], [zero, one]] {
                put(written);
                let differences = [0, 1].map(|i| page.read(lines[i]).xor(written[i]));
                if Line::any([differences[0], differences[1], differences[0], differences[1]]) {
                    for ((line, wanted), difference) in lines.into_iter().zip(written).zip(differences) {
                        let words = wanted.words().into_iter().zip(difference.words()).enumerate();
                        for (index, (wanted, difference)) in words {
                            found.compare((number * PAGE_LINES + line) * LINE_WORDS + index, wanted, wanted ^ difference);
                        }
                    }
                }
            }
        }
        put(saved);
    }
    Ok(found.fault(Algorithm::DataLines))
}

/// One place at each power of two from a base: the base and no other must change when it is written, and each place must change alone. From the
/// first word by walking ones, from the last that walking zeros can reach by those; each with either polarity of the data.
pub(crate) fn address_lines<M: Memory>(memory: &M) -> Option<Fault> {
    let words = memory.pages() * PAGE_LINES * LINE_WORDS;
    let mut found = Found::default();
    // So many address lines have both values among the words; a word more than a power of two has one place more.
    let bits = usize::BITS - words.leading_zeros() - 1;
    let zeros = (1 << bits) - 1;
    for base in [0, zeros] {
        let mut places: Vec<_> = (0..usize::BITS)
            .map(|bit| base ^ 1_usize.checked_shl(bit).unwrap_or(0))
            .collect();
        places.retain(|&place| place < words);
        places.insert(0, base);
        let saved: Vec<_> = places.iter().map(|&place| memory.read_word(place)).collect();
        for background in [0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa_u64] {
            for &place in &places {
                write(memory, place, background);
            }
            for &changed in &places {
                write(memory, changed, !background);
                for &place in &places {
                    let wanted = if place == changed { !background } else { background };
                    found.compare(place, wanted, memory.read_word(place));
                }
                // All of them: what a line that is stuck spoilt, too.
                for &place in &places {
                    write(memory, place, background);
                }
            }
        }
        for (&place, saved) in places.iter().zip(saved) {
            write(memory, place, saved);
        }
    }
    found.fault(Algorithm::AddressLines)
}

fn write<M: Memory>(memory: &M, word: usize, value: u64) {
    let line = word / LINE_WORDS;
    let page = line / PAGE_LINES;
    memory.write_word(word, value);
    memory.page(page).flush(line % PAGE_LINES);
    memory.settle(page..page + 1);
}
