// SPDX-License-Identifier: MIT

//! Memory with faults on purpose, and a cache in front of it on request. Faults are the functional ones of van de Goor's "Testing
//! Semiconductor Memories"; a cell is one bit, an address is that of a 64-bit word.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    ops::Range,
    time::Duration,
};

use mydrv_memtest::{Host, LINE_WORDS, Line, Lines, Memory, PAGE_LINES};

/// One bit: its 64-bit word, and which of that.
pub type Bit = (usize, u32);

#[derive(Clone, Copy, Debug)]
pub enum Defect {
    /// A cell always holds this value.
    StuckAt(Bit, bool),
    /// A cell does not change to this value.
    Transition(Bit, bool),
    /// When the first cell changes to the value, the second one is inverted.
    CouplingInversion(Bit, bool, Bit),
    /// When the first cell changes to the value, the second one takes the other value.
    CouplingIdempotent(Bit, bool, Bit, bool),
    /// While the first cell holds the value, the second one holds the other value.
    CouplingState(Bit, bool, Bit, bool),
    /// The address reaches no cell: what is read is always this.
    AddressNoCell(usize, u64),
    /// The first address reaches the second one's cells instead of its own.
    AddressOther(usize, usize),
    /// The first address reaches the second one's cells beside its own; reading gives what both hold.
    AddressBoth(usize, usize),
    /// The two addresses have each other's cells: a permutation, which only another way to the memory could tell.
    AddressSwapped(usize, usize),
    /// A line of the address bus, counted from that of the 64-bit words.
    AddressLineStuck(u32, bool),
    /// Two lines of the address bus carry what both have.
    AddressLinesBridged(u32, u32),
    /// A line of a 64-bit data bus.
    DataLineStuck(u32, bool),
    /// Two lines of a 64-bit data bus carry what both have, or what either has.
    DataLinesBridged(u32, u32, bool),
    /// A cell falls to the value so long after it was written.
    Retention(Bit, bool, Duration),
}

/// A line in the cache, and whether memory does not have it yet.
type Cached = ([u64; LINE_WORDS], bool);

struct Ram {
    words: Vec<u64>,
    written: Vec<Duration>,
}

pub struct Faulty {
    ram: RefCell<Ram>,
    defects: Vec<Defect>,
    /// Lines that a cache holds, where there is one: the words, and whether they are to be written back.
    cache: Option<RefCell<HashMap<usize, Cached>>>,
    /// Whether a flush reaches the cache.
    pub flushes: bool,
    pub flushed: Cell<u64>,
    pub writes: Cell<u64>,
    /// A microsecond for each word that goes to memory or comes from it.
    pub clock: Cell<Duration>,
}

fn bit(word: u64, bit: u32) -> bool {
    word >> bit & 1 == 1
}

fn with_bit(word: u64, bit: u32, value: bool) -> u64 {
    word & !(1 << bit) | u64::from(value) << bit
}

impl Faulty {
    /// Pages of these contents; the defects show from the first access on.
    pub fn new(contents: Vec<u64>, defects: &[Defect]) -> Self {
        assert!(contents.len().is_multiple_of(LINE_WORDS * PAGE_LINES));
        Self {
            ram: RefCell::new(Ram {
                written: vec![Duration::ZERO; contents.len()],
                words: contents,
            }),
            defects: defects.to_vec(),
            cache: None,
            flushes: true,
            flushed: Cell::new(0),
            writes: Cell::new(0),
            clock: Cell::new(Duration::ZERO),
        }
    }

    /// With a write-back cache in front that never runs full: what is not flushed stays in there.
    pub fn behind_a_cache(mut self, flushes: bool) -> Self {
        self.cache = Some(RefCell::default());
        self.flushes = flushes;
        self
    }

    /// What the memory itself holds, whatever is in the cache.
    pub fn contents(&self) -> Vec<u64> {
        self.ram.borrow().words.clone()
    }

    /// How many lines of the cache memory does not have.
    pub fn dirty(&self) -> usize {
        self.cache
            .as_ref()
            .map_or(0, |cache| cache.borrow().values().filter(|(_, dirty)| *dirty).count())
    }

    /// The cells that an address reaches: none, one or two.
    fn decode(&self, address: usize) -> impl Iterator<Item = usize> + use<> {
        let mut cells = [Some(address), None];
        for defect in &self.defects {
            let one = |cell| [Some(cell), None];
            match *defect {
                Defect::AddressNoCell(at, _) if at == address => cells = [None, None],
                Defect::AddressOther(at, other) if at == address => cells = one(other),
                Defect::AddressBoth(at, other) if at == address => cells[1] = Some(other),
                Defect::AddressSwapped(a, b) if a == address => cells = one(b),
                Defect::AddressSwapped(a, b) if b == address => cells = one(a),
                Defect::AddressLineStuck(line, high) => cells = one(with_bit(address as u64, line, high) as usize),
                Defect::AddressLinesBridged(a, b) => {
                    let both = bit(address as u64, a) && bit(address as u64, b);
                    cells = one(with_bit(with_bit(address as u64, a, both), b, both) as usize);
                }
                _ => {}
            }
        }
        cells.into_iter().flatten()
    }

    /// What the data bus makes of a word.
    fn bus(&self, mut word: u64) -> u64 {
        for defect in &self.defects {
            match *defect {
                Defect::DataLineStuck(line, high) => word = with_bit(word, line, high),
                Defect::DataLinesBridged(a, b, and) => {
                    let (one, two) = (bit(word, a), bit(word, b));
                    let value = if and { one && two } else { one || two };
                    word = with_bit(with_bit(word, a, value), b, value);
                }
                _ => {}
            }
        }
        word
    }

    fn tick(&self) -> Duration {
        self.clock.set(self.clock.get() + Duration::from_micros(1));
        self.clock.get()
    }

    /// What holds at every moment: stuck cells, coupled states, cells that lost what they held.
    fn hold(&self, ram: &mut Ram) {
        for defect in &self.defects {
            match *defect {
                Defect::StuckAt((word, at), value) => ram.words[word] = with_bit(ram.words[word], at, value),
                Defect::CouplingState((word, at), state, victim, value) if bit(ram.words[word], at) == state => {
                    ram.words[victim.0] = with_bit(ram.words[victim.0], victim.1, value);
                }
                Defect::Retention((word, at), value, after) if self.clock.get() >= ram.written[word] + after => {
                    ram.words[word] = with_bit(ram.words[word], at, value);
                }
                _ => {}
            }
        }
    }

    fn write_memory(&self, address: usize, value: u64) {
        let now = self.tick();
        let value = self.bus(value);
        let ram = &mut *self.ram.borrow_mut();
        self.hold(ram);
        for cell in self.decode(address) {
            let before = ram.words[cell];
            let mut after = value;
            for defect in &self.defects {
                if let Defect::Transition((word, at), to) = *defect
                    && word == cell
                    && bit(before, at) != to
                {
                    after = with_bit(after, at, !to);
                }
            }
            ram.words[cell] = after;
            ram.written[cell] = now;
            let changed = |(word, at): Bit, to: bool| word == cell && bit(before, at) != to && bit(after, at) == to;
            for defect in &self.defects {
                match *defect {
                    Defect::CouplingInversion(aggressor, to, victim) if changed(aggressor, to) => {
                        ram.words[victim.0] ^= 1 << victim.1
                    }
                    Defect::CouplingIdempotent(aggressor, to, victim, value) if changed(aggressor, to) => {
                        ram.words[victim.0] = with_bit(ram.words[victim.0], victim.1, value);
                    }
                    _ => {}
                }
            }
        }
        self.hold(ram);
    }

    fn read_memory(&self, address: usize) -> u64 {
        self.tick();
        let ram = &mut *self.ram.borrow_mut();
        self.hold(ram);
        let cells = self.decode(address);
        let nothing = self.defects.iter().find_map(|defect| match *defect {
            Defect::AddressNoCell(at, floating) if at == address => Some(floating),
            _ => None,
        });
        self.bus(nothing.unwrap_or_else(|| cells.fold(!0, |all, cell| all & ram.words[cell])))
    }

    fn flush(&self, line: usize) {
        self.flushed.set(self.flushed.get() + 1);
        let Some(cache) = self.cache.as_ref().filter(|_| self.flushes) else {
            return;
        };
        let held = cache.borrow_mut().remove(&line);
        if let Some((words, true)) = held {
            for (i, word) in words.into_iter().enumerate() {
                self.write_memory(line * LINE_WORDS + i, word);
            }
        }
    }

    fn cached<T>(&self, line: usize, access: impl FnOnce(&mut [u64; LINE_WORDS], &mut bool) -> T) -> Option<T> {
        let mut cache = self.cache.as_ref()?.borrow_mut();
        let (words, dirty) = cache
            .entry(line)
            .or_insert_with(|| (std::array::from_fn(|i| self.read_memory(line * LINE_WORDS + i)), false));
        Some(access(words, dirty))
    }
}

/// Lines of a page of it.
#[derive(Clone, Copy)]
pub struct FaultyLines<'a> {
    memory: &'a Faulty,
    first_line: usize,
}

impl Lines for FaultyLines<'_> {
    fn from(self, first: usize) -> Self {
        assert!(first < PAGE_LINES);
        Self {
            first_line: self.first_line + first,
            ..self
        }
    }

    fn read(self, line: usize) -> Line {
        assert!(line < PAGE_LINES);
        let first = (self.first_line + line) * LINE_WORDS;
        Line::from_words(std::array::from_fn(|i| self.memory.read_word(first + i)))
    }

    fn write(self, line: usize, value: Line) {
        assert!(line < PAGE_LINES);
        self.memory.writes.set(self.memory.writes.get() + 1);
        for (i, word) in value.words().into_iter().enumerate() {
            self.memory.write_word((self.first_line + line) * LINE_WORDS + i, word);
        }
    }

    fn flush(self, line: usize) {
        assert!(line < PAGE_LINES);
        self.memory.flush(self.first_line + line);
    }
}

impl Memory for Faulty {
    type Lines<'m> = FaultyLines<'m>;

    fn pages(&self) -> usize {
        self.ram.borrow().words.len() / LINE_WORDS / PAGE_LINES
    }

    fn page(&self, page: usize) -> FaultyLines<'_> {
        assert!(page < self.pages());
        FaultyLines {
            memory: self,
            first_line: page * PAGE_LINES,
        }
    }

    fn read_word(&self, word: usize) -> u64 {
        self.cached(word / LINE_WORDS, |words, _| words[word % LINE_WORDS])
            .unwrap_or_else(|| self.read_memory(word))
    }

    fn write_word(&self, word: usize, value: u64) {
        let cached = self.cached(word / LINE_WORDS, |words, dirty| {
            words[word % LINE_WORDS] = value;
            *dirty = true;
        });
        if cached.is_none() {
            self.write_memory(word, value);
        }
    }

    fn settle(&self, _: Range<usize>) {}
}

/// The program around the test: its clock is the memory's, and it stops the test when it has been asked so often.
pub struct Bench<'a> {
    pub memory: &'a Faulty,
    pub questions: Cell<u64>,
    pub stop_after: u64,
    pub progress: Cell<usize>,
}

impl<'a> Bench<'a> {
    pub fn new(memory: &'a Faulty) -> Self {
        Self {
            memory,
            questions: Cell::new(0),
            stop_after: u64::MAX,
            progress: Cell::new(0),
        }
    }
}

impl Host for Bench<'_> {
    fn now(&self) -> Duration {
        self.memory.clock.get()
    }

    fn pause(&self, time: Duration) {
        self.memory.clock.set(self.memory.clock.get() + time);
    }

    fn stop(&self) -> bool {
        self.questions.set(self.questions.get() + 1);
        self.questions.get() > self.stop_after
    }

    fn progress(&self, bytes: usize) {
        self.progress.set(self.progress.get() + bytes);
    }
}
