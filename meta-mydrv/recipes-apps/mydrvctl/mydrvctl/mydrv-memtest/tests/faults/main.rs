// SPDX-License-Identifier: MIT

//! What each algorithm must find, and what it leaves behind: run on memory with faults on purpose.

mod faulty;

use std::time::Duration;

use faulty::{Bench, Bit, Defect, Faulty};
use mydrv_memtest::{
    Algorithm::{self, AddressLines, Checkerboard, DataLines, MarchC, Retention},
    Contents, LINE_WORDS, Options, PAGE_BYTES, Report, Site, run, zeros,
};

const PAGE_WORDS: usize = PAGE_BYTES / 8;
const OPTIONS: Options = Options {
    contents: Contents::Zeros,
    retention: Duration::ZERO,
    budget: None,
    seed: 1,
    repeat: 1,
};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.word() >> 16) as usize % end
    }

    fn chance(&mut self) -> bool {
        self.below(2) == 1
    }

    fn bit(&mut self, words: usize) -> Bit {
        (self.below(words), self.below(64) as u32)
    }

    /// Two cells of different lines.
    fn bits(&mut self, words: usize) -> [Bit; 2] {
        loop {
            let bits = [self.bit(words), self.bit(words)];
            if bits[0].0 / LINE_WORDS != bits[1].0 / LINE_WORDS {
                return bits;
            }
        }
    }

    fn contents(&mut self, contents: Contents, words: usize) -> Vec<u64> {
        (0..words)
            .map(|_| if contents == Contents::Zeros { 0 } else { self.word() })
            .collect()
    }
}

fn test(memory: &Faulty, options: &Options) -> Report {
    run(memory, &Bench::new(memory), options)
}

/// Whether each of these algorithms finds defects of this kind, in every place that is tried.
fn must_find(algorithms: &[Algorithm], kind: &str, options: Options, defect: impl Fn(&mut Random, usize) -> Defect) {
    for contents in [Contents::Zeros, Contents::Keep] {
        for seed in 1..=20 {
            let mut random = Random(seed);
            let words = PAGE_WORDS << random.below(3);
            let held = random.contents(contents, words);
            let defect = defect(&mut random, words);
            let report = test(&Faulty::new(held, &[defect]), &Options { contents, ..options });
            for &algorithm in algorithms {
                assert!(
                    report.fault(algorithm).is_some(),
                    "{algorithm:?} misses {kind} {defect:?} among {words} words, {contents:?}: {:?}",
                    report.faults
                );
            }
        }
    }
}

#[test]
fn stuck_cells_are_found() {
    must_find(&[MarchC, Checkerboard], "stuck-at", OPTIONS, |random, words| {
        Defect::StuckAt(random.bit(words), random.chance())
    });
}

#[test]
fn cells_that_do_not_change_are_found() {
    must_find(&[MarchC], "transition", OPTIONS, |random, words| {
        Defect::Transition(random.bit(words), random.chance())
    });
}

#[test]
fn coupled_cells_are_found() {
    must_find(&[MarchC], "inversion coupling", OPTIONS, |random, words| {
        let [aggressor, victim] = random.bits(words);
        Defect::CouplingInversion(aggressor, random.chance(), victim)
    });
    must_find(&[MarchC], "idempotent coupling", OPTIONS, |random, words| {
        let [aggressor, victim] = random.bits(words);
        Defect::CouplingIdempotent(aggressor, random.chance(), victim, random.chance())
    });
    must_find(&[MarchC], "state coupling", OPTIONS, |random, words| {
        let [aggressor, victim] = random.bits(words);
        Defect::CouplingState(aggressor, random.chance(), victim, random.chance())
    });
}

/// Over contents that are kept, two bits that are alike are opposites under the checkerboard, and the other way round: then the solid patterns of
/// March C- are the ones that show it.
#[test]
fn neighbouring_bits_of_a_line_that_influence_each_other_are_found() {
    for contents in [Contents::Zeros, Contents::Keep] {
        for seed in 1..=40 {
            let mut random = Random(seed);
            let held = random.contents(contents, PAGE_WORDS);
            let (word, bit) = random.bit(PAGE_WORDS);
            let neighbour = if bit == 0 { 1 } else { bit - 1 };
            let state = random.chance();
            let defect = Defect::CouplingState((word, bit), state, (word, neighbour), state);
            let report = test(&Faulty::new(held, &[defect]), &Options { contents, ..OPTIONS });
            let by = |algorithm| report.fault(algorithm).is_some();
            assert!(
                by(Checkerboard) || by(MarchC) && contents == Contents::Keep,
                "{defect:?}, {contents:?}: {report:?}"
            );
        }
    }
}

#[test]
fn wrong_decoders_are_found() {
    must_find(&[MarchC], "no cell", OPTIONS, |random, words| {
        Defect::AddressNoCell(random.below(words), [0, !0, 0x0123_4567_89ab_cdef][random.below(3)])
    });
    must_find(&[MarchC], "one cell of two addresses", OPTIONS, |random, words| {
        let [(one, _), (two, _)] = random.bits(words);
        Defect::AddressOther(one, two)
    });
    must_find(&[MarchC], "two cells of one address", OPTIONS, |random, words| {
        let [(one, _), (two, _)] = random.bits(words);
        Defect::AddressBoth(one, two)
    });
}

#[test]
fn address_lines_are_found() {
    let line = |random: &mut Random, words: usize| random.below(words.ilog2() as usize) as u32;
    must_find(&[AddressLines], "stuck address line", OPTIONS, |random, words| {
        Defect::AddressLineStuck(line(random, words), random.chance())
    });
    must_find(&[AddressLines], "bridged address lines", OPTIONS, |random, words| {
        loop {
            let (a, b) = (line(random, words), line(random, words));
            if a != b {
                return Defect::AddressLinesBridged(a, b);
            }
        }
    });
    // Within a line of 64 bytes the lines' words are all alike to March C-.
    must_find(&[MarchC], "stuck address line", OPTIONS, |random, words| {
        Defect::AddressLineStuck(3 + random.below(words.ilog2() as usize - 3) as u32, random.chance())
    });
}

#[test]
fn data_lines_are_found() {
    must_find(&[DataLines, MarchC, Checkerboard], "stuck data line", OPTIONS, |random, _| {
        Defect::DataLineStuck(random.below(64) as u32, random.chance())
    });
    must_find(&[DataLines], "bridged data lines", OPTIONS, |random, _| {
        loop {
            let (a, b) = (random.below(64) as u32, random.below(64) as u32);
            if a != b {
                return Defect::DataLinesBridged(a, b, random.chance());
            }
        }
    });
}

#[test]
fn cells_that_forget_are_found_after_a_pause_alone() {
    let decay = |random: &mut Random, words| Defect::Retention(random.bit(words), random.chance(), Duration::from_secs(3600));
    let patient = Options {
        retention: Duration::from_secs(7200),
        ..OPTIONS
    };
    must_find(&[Retention], "retention", patient, decay);
    for contents in [Contents::Zeros, Contents::Keep] {
        let mut random = Random(5);
        let held = random.contents(contents, PAGE_WORDS);
        let defect = decay(&mut random, PAGE_WORDS);
        let memory = Faulty::new(held.clone(), &[defect]);
        let report = test(&memory, &Options { contents, ..OPTIONS });
        assert!(report.faults.is_empty() && !report.algorithms.contains(&Retention));
        assert_eq!(memory.contents(), held);
    }
}

/// Such a machine works, for everyone who goes through the same lines.
#[test]
fn exchanged_addresses_are_no_fault_that_this_could_see() {
    let mut random = Random(3);
    for contents in [Contents::Zeros, Contents::Keep] {
        let held = random.contents(contents, PAGE_WORDS);
        let report = test(
            &Faulty::new(held, &[Defect::AddressSwapped(3, 400)]),
            &Options { contents, ..OPTIONS },
        );
        assert!(report.faults.is_empty(), "{report:?}");
    }
}

/// The negative control of the flush: a cache that nobody flushes hides every fault behind it.
#[test]
fn without_flushes_a_cache_hides_the_faults() {
    for contents in [Contents::Zeros, Contents::Keep] {
        let mut random = Random(11);
        let words = 2 * PAGE_WORDS;
        for defect in [
            Defect::StuckAt(random.bit(words), true),
            Defect::Transition(random.bit(words), true),
            Defect::AddressOther(8, 700),
            Defect::CouplingInversion((100, 3), true, (900, 4)),
        ] {
            // What is read into the cache at first is as the memory holds it; zeros must be zeros then, for the cache to be silent.
            let held = random.contents(contents, words);
            let held = if let Defect::StuckAt((word, bit), _) = defect {
                held.iter()
                    .enumerate()
                    .map(|(at, &value)| if at == word { value & !(1 << bit) } else { value })
                    .collect()
            } else {
                held
            };
            let options = Options { contents, ..OPTIONS };
            let flushed = test(&Faulty::new(held.clone(), &[defect]).behind_a_cache(true), &options);
            assert!(flushed.fault(MarchC).is_some(), "{defect:?}, {contents:?}");
            let unflushed = Faulty::new(held, &[defect]).behind_a_cache(false);
            // Alias and stuck cell show when the cache is filled; only contents that are written over at once escape that.
            let report = test(&unflushed, &options);
            let silent = !matches!(defect, Defect::StuckAt(..)) || contents == Contents::Keep;
            assert!(!silent || report.faults.is_empty(), "{defect:?}, {contents:?}: {report:?}");
        }
    }
}

#[test]
fn every_line_that_is_written_is_flushed() {
    for contents in [Contents::Zeros, Contents::Keep] {
        let memory = Faulty::new(Random(1).contents(contents, 3 * PAGE_WORDS), &[]).behind_a_cache(true);
        assert!(test(&memory, &Options { contents, ..OPTIONS }).faults.is_empty());
        assert!(memory.flushed.get() >= memory.writes.get() && memory.writes.get() > 7 * 3 * 64);
        assert_eq!(memory.dirty(), 0);
    }
}

#[test]
fn good_memory_of_any_size_has_no_fault_and_keeps_its_contents() {
    for contents in [Contents::Zeros, Contents::Keep] {
        for pages in [0, 1, 2, 3, 5, 16, 63, 64, 65, 130] {
            let mut random = Random(pages as u64 + 1);
            let held = random.contents(contents, pages * PAGE_WORDS);
            let memory = Faulty::new(held.clone(), &[]).behind_a_cache(pages % 2 == 0);
            let memory = if pages % 2 == 0 {
                memory
            } else {
                Faulty::new(held.clone(), &[])
            };
            let options = Options {
                contents,
                retention: Duration::from_secs(1),
                repeat: 2,
                ..OPTIONS
            };
            let bench = Bench::new(&memory);
            let report = run(&memory, &bench, &options);
            assert!(report.faults.is_empty() && !report.stopped, "{pages} pages: {report:?}");
            let repeats = if pages == 0 { 0 } else { 2 };
            assert_eq!(
                (report.repeats, report.total_pages, report.pages.len()),
                (repeats, pages, pages)
            );
            assert_eq!(memory.contents(), held, "{pages} pages, {contents:?}");
            assert_eq!(
                bench.progress.get() as u64,
                options.work(pages),
                "{pages} pages, {contents:?}"
            );
            let all = [AddressLines, DataLines, MarchC, Checkerboard, Retention];
            assert!(pages == 0 || report.algorithms == all, "{report:?}");
        }
    }
}

#[test]
fn whenever_it_is_stopped_the_contents_are_back() {
    for contents in [Contents::Zeros, Contents::Keep] {
        let held = Random(9).contents(contents, 70 * PAGE_WORDS);
        let options = Options {
            contents,
            retention: Duration::from_secs(1),
            ..OPTIONS
        };
        let mut stop_after = 0;
        loop {
            let memory = Faulty::new(held.clone(), &[]).behind_a_cache(true);
            let bench = Bench {
                stop_after,
                ..Bench::new(&memory)
            };
            let report = run(&memory, &bench, &options);
            assert!(
                memory.contents() == held && memory.dirty() == 0,
                "stopped after {stop_after}, {contents:?}"
            );
            assert!(report.faults.is_empty());
            if !report.stopped {
                assert_eq!(report.repeats, 1);
                break;
            }
            assert_eq!(report.repeats, 0);
            // Told once is enough: no more than one question is asked after that.
            assert_eq!(bench.questions.get(), stop_after + 1);
            stop_after += 1;
        }
        assert!(stop_after > 15, "{stop_after}");
    }
}

#[test]
fn the_budget_is_kept_by_a_smaller_coverage() {
    const PAGES: usize = 2048;
    for contents in [Contents::Zeros, Contents::Keep] {
        let with = |budget| {
            let held = Random(2).contents(contents, PAGES * PAGE_WORDS);
            let memory = Faulty::new(held.clone(), &[]);
            let report = test(
                &memory,
                &Options {
                    contents,
                    budget,
                    ..OPTIONS
                },
            );
            assert!(memory.contents() == held && report.faults.is_empty());
            (report, memory.clock.get())
        };
        let (all, whole) = with(None);
        assert_eq!((all.coverage_percent(), all.pages.len()), (100.0, PAGES));
        let (same, _) = with(Some(2 * whole));
        assert_eq!(same.pages.len(), PAGES);
        let (half, took) = with(Some(whole / 2));
        assert!(
            took <= whole * 6 / 10 && (20.0..50.0).contains(&half.coverage_percent()),
            "{} {took:?}",
            half.coverage_percent()
        );
        let (least, _) = with(Some(Duration::ZERO));
        assert!(least.pages.len() <= 32 && least.pages.contains(&0) && least.pages.contains(&(PAGES - 1)));
        assert!(least.coverage_percent() < 2.0);
    }
}

#[test]
fn a_fault_is_told_with_its_place() {
    let memory = Faulty::new(vec![0; 4 * PAGE_WORDS], &[Defect::StuckAt((PAGE_WORDS + 73, 5), true)]);
    let report = test(&memory, &OPTIONS);
    let fault = report.fault(MarchC).unwrap();
    let offset = ((PAGE_WORDS + 73) * 8) as u64;
    assert_eq!(
        fault.first,
        Site::Word {
            offset,
            wanted: 0,
            found: 1 << 5
        }
    );
    // Each of the three reads of zeros sees it.
    assert_eq!((fault.count, fault.bits), (3, 1 << 5));
    assert!(report.fault(AddressLines).is_none() && report.fault(DataLines).is_none());

    let held = Random(4).contents(Contents::Keep, 4 * PAGE_WORDS);
    let memory = Faulty::new(held, &[Defect::StuckAt((PAGE_WORDS + 73, 5), true)]);
    let report = test(
        &memory,
        &Options {
            contents: Contents::Keep,
            ..OPTIONS
        },
    );
    assert_eq!(
        report.fault(MarchC).unwrap().first,
        Site::Page {
            offset: PAGE_BYTES as u64
        }
    );
}

#[test]
fn zeros_are_told_from_memory_without_a_write() {
    let options = Options {
        budget: Some(Duration::from_secs(3600)),
        ..OPTIONS
    };
    let mut held = vec![0; 300 * PAGE_WORDS];
    let look = |held: Vec<u64>, options: &Options| {
        let memory = Faulty::new(held, &[]).behind_a_cache(true);
        let found = zeros(&memory, &Bench::new(&memory), options);
        assert_eq!((memory.writes.get(), found.total_pages, found.stopped), (0, 300, false));
        found
    };
    let found = look(held.clone(), &options);
    assert!(found.not_zero.is_none() && found.pages.len() == 300);
    let sampled = look(
        held.clone(),
        &Options {
            budget: Some(Duration::ZERO),
            ..OPTIONS
        },
    );
    assert!(sampled.pages.len() <= 32);
    *held.last_mut().unwrap() = 7;
    for budget in [None, Some(Duration::ZERO), options.budget] {
        let offset = (300 * PAGE_BYTES - 8) as u64;
        let found = look(held.clone(), &Options { budget, ..OPTIONS });
        assert_eq!(
            found.not_zero,
            Some(Site::Word {
                offset,
                wanted: 0,
                found: 7
            })
        );
    }

    let memory = Faulty::new(held, &[]);
    let bench = Bench {
        stop_after: 0,
        ..Bench::new(&memory)
    };
    assert!(zeros(&memory, &bench, &OPTIONS).stopped && memory.writes.get() == 0);
}
