// SPDX-License-Identifier: MIT

//! The order of the algorithms, over how much of the memory, and what came of it.

use std::time::Duration;

use crate::{
    PAGE_BYTES,
    algorithm::{
        Algorithm, Contents, Elements, Fault, Site, Stopped,
        background::{CHECKERBOARD, INVERSE, NONE, ONES, ZEROS},
    },
    lines,
    memory::Memory,
    plan,
};

/// What a test needs of the program around it.
pub trait Host {
    /// The time since whenever.
    fn now(&self) -> Duration;

    /// Waits so long; less if [`stop`](Self::stop) becomes true.
    fn pause(&self, time: Duration);

    /// Whether to end the test: asked again before each quarter MiB.
    fn stop(&self) -> bool;

    /// Another so many bytes are done, of [`Options::work`].
    fn progress(&self, bytes: usize);
}

/// How to test.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What the memory holds.
    pub contents: Contents,
    /// How long the retention test waits before it reads, for each of its two polarities; zero leaves it out.
    pub retention: Duration,
    /// How long the test may take, without the pauses of the retention test; it then covers as much as there is time for, as measured on the
    /// first MiB. Zero: the smallest sample. `None`: all of the memory, however long it takes.
    pub budget: Option<Duration>,
    /// Chooses the places of the smallest sample; each repetition uses the next one.
    pub seed: u64,
    /// How often to do it all, at least once.
    pub repeat: u32,
}

impl Options {
    /// How many bytes a whole test of so many pages goes through, for a progress bar.
    pub fn work(&self, pages: usize) -> u64 {
        let elements = 9 + if self.retention.is_zero() { 0 } else { 2 };
        (pages * PAGE_BYTES) as u64 * elements * u64::from(self.repeat)
    }
}

/// What a test did, and what it found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The algorithms that ran to their end, in their order.
    pub algorithms: Vec<Algorithm>,
    /// What they found wrong, no more than once for each algorithm.
    pub faults: Vec<Fault>,
    /// The pages of 4096 bytes that March C-, checkerboard and retention went through, in the last repetition; rising.
    pub pages: Vec<usize>,
    /// How many pages there are.
    pub total_pages: usize,
    /// How many repetitions ran to their end.
    pub repeats: u32,
    /// [`Host::stop`] ended it. The contents are back.
    pub stopped: bool,
}

impl Report {
    /// How much of the memory was covered, in percent; below 100 unless it was all of it.
    pub fn coverage_percent(&self) -> f64 {
        self.pages.len() as f64 * 100.0 / self.total_pages.max(1) as f64
    }

    /// What an algorithm found wrong.
    pub fn fault(&self, algorithm: Algorithm) -> Option<&Fault> {
        self.faults.iter().find(|fault| fault.algorithm == algorithm)
    }

    fn add(&mut self, faults: Vec<Fault>) {
        for fault in faults {
            match self.faults.iter_mut().find(|known| known.algorithm == fault.algorithm) {
                Some(known) => {
                    known.count += fault.count;
                    known.bits |= fault.bits;
                }
                None => self.faults.push(fault),
            }
        }
    }
}

/// What is measured to tell how much there is time for.
const MEASURED_PAGES: usize = (1 << 20) / PAGE_BYTES;

/// Tests the memory. Memory of less than a page has nothing to test.
pub fn run<M: Memory, H: Host>(memory: &M, host: &H, options: &Options) -> Report {
    let total_pages = memory.pages();
    let mut report = Report {
        algorithms: Vec::new(),
        faults: Vec::new(),
        pages: Vec::new(),
        total_pages,
        repeats: 0,
        stopped: false,
    };
    for repetition in 0..options.repeat.max(1) {
        if total_pages == 0 || once(memory, host, options, repetition, &mut report).is_err() {
            report.stopped = total_pages > 0;
            break;
        }
        report.repeats += 1;
    }
    report
}

fn once<M: Memory, H: Host>(
    memory: &M,
    host: &H,
    options: &Options,
    repetition: u32,
    report: &mut Report,
) -> Result<(), Stopped> {
    let seed = options.seed.wrapping_add(u64::from(repetition));
    report.algorithms.clear();
    report.pages.clear();
    if host.stop() {
        return Err(Stopped);
    }
    report.add(lines::address_lines(memory).into_iter().collect());
    report.algorithms.push(Algorithm::AddressLines);

    let budget = options.budget.map(|budget| budget / options.repeat.max(1));
    let mut pages = affordable(host, report.total_pages, budget, seed, |pages| {
        marches(memory, host, options.contents, Duration::ZERO, pages, report)
    })?;
    report.add(lines::data_lines(memory, host, &pages)?.into_iter().collect());
    report.algorithms.push(Algorithm::DataLines);
    let done = marches(memory, host, options.contents, options.retention, &pages, report);
    report.algorithms.extend(if done.is_err() {
        &[][..]
    } else {
        &[Algorithm::MarchC, Algorithm::Checkerboard]
    });
    if done.is_ok() && !options.retention.is_zero() {
        report.algorithms.push(Algorithm::Retention);
    }
    report.pages.append(&mut pages);
    done
}

/// The pages that there is time for, judged by what `work` takes on the first ones.
fn affordable<H: Host>(
    host: &H,
    total_pages: usize,
    budget: Option<Duration>,
    seed: u64,
    work: impl FnOnce(&[usize]) -> Result<(), Stopped>,
) -> Result<Vec<usize>, Stopped> {
    let all: Vec<_> = (0..total_pages).collect();
    match budget {
        Some(budget) if budget.is_zero() => Ok(plan::smallest_sample(total_pages, seed)),
        Some(budget) if total_pages > MEASURED_PAGES => {
            let began = host.now();
            work(&all[..MEASURED_PAGES])?;
            let took = (host.now() - began).max(Duration::from_nanos(1));
            let pages = MEASURED_PAGES as u128 * budget.saturating_sub(took).as_nanos() / took.as_nanos();
            Ok(plan::sample(total_pages, usize::try_from(pages).unwrap_or(usize::MAX), seed))
        }
        _ => Ok(all),
    }
}

/// Whether memory that nobody has written to holds zeros, read from memory rather than from a cache, without writing anything. Of `options` the
/// budget and the seed count.
pub fn zeros<M: Memory, H: Host>(memory: &M, host: &H, options: &Options) -> Zeros {
    let total_pages = memory.pages();
    let mut zeros = Zeros {
        not_zero: None,
        pages: Vec::new(),
        total_pages,
        stopped: false,
    };
    let mut look = |pages: &[usize]| {
        let mut elements = Elements::new(memory, host, pages, Contents::Zeros);
        let done = elements
            .flush()
            .and_then(|()| elements.element::<false, ZEROS, NONE>(Algorithm::MarchC));
        zeros.not_zero = zeros.not_zero.or(elements.faults.first().map(|fault| fault.first));
        done
    };
    let done =
        affordable(host, total_pages, options.budget, options.seed, &mut look).and_then(|pages| look(&pages).map(|()| pages));
    match done {
        Ok(pages) => zeros.pages = pages,
        Err(Stopped) => zeros.stopped = true,
    }
    zeros
}

/// What [`zeros`] found.
#[derive(Clone, Debug)]
pub struct Zeros {
    /// The first word that is not zero.
    pub not_zero: Option<Site>,
    /// The pages of 4096 bytes that were read, rising.
    pub pages: Vec<usize>,
    /// How many pages there are.
    pub total_pages: usize,
    /// [`Host::stop`] ended it.
    pub stopped: bool,
}

/// March C-, checkerboard and retention over these pages. Where one ends with reading a background and the next begins with writing another,
/// an element does both: on each cell the operations are those of the algorithms, in their order.
fn marches<M: Memory, H: Host>(
    memory: &M,
    host: &H,
    contents: Contents,
    retention: Duration,
    pages: &[usize],
    report: &mut Report,
) -> Result<(), Stopped> {
    let mut elements = Elements::new(memory, host, pages, contents);
    let done = sequence(&mut elements, contents, retention);
    report.add(elements.faults);
    done
}

fn sequence<M: Memory, H: Host>(test: &mut Elements<M, H>, contents: Contents, retention: Duration) -> Result<(), Stopped> {
    use Algorithm::{Checkerboard, MarchC, Retention};
    match contents {
        Contents::Zeros => test.element::<false, NONE, ZEROS>(MarchC)?,
        // Nothing is written: the contents are there.
        Contents::Keep => test.read_contents()?,
    }
    test.element::<false, ZEROS, ONES>(MarchC)?;
    test.element::<false, ONES, ZEROS>(MarchC)?;
    test.element::<true, ZEROS, ONES>(MarchC)?;
    test.element::<true, ONES, ZEROS>(MarchC)?;
    test.element::<false, ZEROS, CHECKERBOARD>(MarchC)?;
    test.element::<false, CHECKERBOARD, INVERSE>(Checkerboard)?;
    if retention.is_zero() {
        test.element::<false, INVERSE, ZEROS>(Checkerboard)?;
        return test.element::<false, ZEROS, NONE>(Checkerboard);
    }
    test.element::<false, INVERSE, CHECKERBOARD>(Checkerboard)?;
    test.host.pause(retention);
    test.element::<false, CHECKERBOARD, INVERSE>(Retention)?;
    test.host.pause(retention);
    test.element::<false, INVERSE, ZEROS>(Retention)?;
    test.element::<false, ZEROS, NONE>(Retention)
}
