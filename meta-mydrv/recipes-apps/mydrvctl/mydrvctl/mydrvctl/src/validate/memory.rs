// SPDX-License-Identifier: MIT

//! The checks of the memory itself: where it is and what it holds. All but `scrub` leave the contents as they were.

use std::{
    borrow::Cow,
    fs::{self, File},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use mydrv::{CacheMode, Device, Direction, Error, Info, Lock, Mapping, OpenOptions};
use mydrv_memtest::{
    Algorithm, Contents, Fault, Host, Instruction, LINE_BYTES, Mapped, MappedLines, Memory, Options, PAGE_BYTES, Report, Site,
};
use serde::{Deserialize, Serialize};

use super::{
    Context,
    checks::{self, Check},
    report::{Outcome, Problem, fail, in_use, interrupted, not_applicable, skip},
    users,
};
use crate::{output, stop::Stop};

const BAD_MEMORY: &str = "do not use this memory: check the board's RAM and that nothing else owns the region";

/// Each page against the physical address that it should have, as /dev/mem shows it: pagemap shows no frames of PFN mappings. Only where both
/// ways to the memory go through the same caches.
pub fn contiguity(context: &Context, writer: &Device) -> Outcome {
    let info = writer.info()?;
    let Some(addresses) = info.addresses else {
        return skip("the driver shows addresses to CAP_SYS_RAWIO alone");
    };
    if info.cache_mode != CacheMode::Cached && !info.flags.dma_coherent() || info.flags.no_map() {
        return skip(
            "the buffer is mapped uncached, and /dev/mem would read it through the cache; dma-loop tests what a device sees",
        );
    }
    let memory = match File::open(context.root.join("dev/mem")) {
        Ok(memory) => memory,
        Err(error) => return skip(format!("/dev/mem: {error}; dma-loop tests what a device sees")),
    };
    let mut mapping = writer.map_mut(..)?;
    let page = rustix::param::page_size();
    for offset in (0..mapping.len()).step_by(page) {
        if context.stop.signal().is_some() {
            return context.stopped();
        }
        let saved = mapping.read::<u64>(offset)?;
        let wanted = key(offset as u64);
        let mut found = [0; 8];
        mapping.write(offset, wanted)?;
        let read = memory.read_exact_at(&mut found, addresses.physical + offset as u64);
        mapping.write(offset, saved)?;
        writer.sync(offset as u64..offset as u64 + 8, Direction::ToDevice)?;
        if let Err(error) = read {
            return skip(format!("/dev/mem: {error}; dma-loop tests what a device sees"));
        }
        if u64::from_ne_bytes(found) != wanted {
            return fail(
                format!(
                    "the page at offset {offset:#x} is not at {:#x}",
                    addresses.physical + offset as u64
                ),
                "update the module mydrv: a device would write into memory that is not the buffer's",
            );
        }
    }
    Ok((
        format!("{} pages from {:#x} on", mapping.len() / page, addresses.physical),
        (),
    ))
}

/// A buffer whose cache the processor has no instruction for.
struct Buffer<'d> {
    mapped: Mapped<'d, false>,
    device: &'d Device,
    /// Whether the driver flushes, for want of a processor's instruction.
    by_driver: bool,
}

impl Memory for Buffer<'_> {
    type Lines<'m>
        = MappedLines<'m, false>
    where
        Self: 'm;

    fn pages(&self) -> usize {
        self.mapped.pages()
    }

    #[inline(always)]
    fn page(&self, page: usize) -> MappedLines<'_, false> {
        self.mapped.page(page)
    }

    fn read_word(&self, word: usize) -> u64 {
        self.mapped.read_word(word)
    }

    fn write_word(&self, word: usize, value: u64) {
        self.mapped.write_word(word, value);
    }

    fn settle(&self, pages: Range<usize>) {
        self.mapped.settle(pages.clone());
        if self.by_driver {
            let range = (pages.start * PAGE_BYTES) as u64..(pages.end * PAGE_BYTES) as u64;
            // It fails where the device has gone, which the mapping tells afterwards, and for a reader, who has written nothing.
            let _ = self.device.sync(range.clone(), Direction::ToDevice);
            let _ = self.device.sync(range, Direction::FromDevice);
        }
    }
}

/// How what was written gets out of the caches before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The mapping has no caches.
    Uncached,
    /// The processor's instruction.
    Instruction(Instruction),
    /// `MYDRV_IOC_SYNC`.
    Driver,
    /// There is no way.
    ThroughCache,
}

impl Way {
    fn of(info: &Info, instruction: Option<Instruction>) -> Self {
        let cached = info.cache_mode == CacheMode::Cached;
        match instruction {
            // As the driver maps it: see docs/driver-abi.md, "mmap".
            _ if !cached && !info.flags.dma_coherent() => Self::Uncached,
            Some(instruction) => Self::Instruction(instruction),
            None if cached && !info.flags.dma_coherent() => Self::Driver,
            None => Self::ThroughCache,
        }
    }

    fn instruction(self) -> Option<Instruction> {
        match self {
            Self::Instruction(instruction) => Some(instruction),
            _ => None,
        }
    }

    /// The way in the report: `uncached`, the instruction's name, `driver` or `through the cache`.
    fn name(self) -> &'static str {
        match self {
            Self::Uncached => "uncached",
            Self::Instruction(instruction) => instruction.name(),
            Self::Driver => "driver",
            Self::ThroughCache => "through the cache",
        }
    }

    /// The same for people.
    fn words(self) -> String {
        match self {
            Self::Uncached => "mapped uncached".into(),
            Self::Instruction(instruction) => format!("flushed by {}", instruction.name()),
            Self::Driver => "flushed by the driver".into(),
            Self::ThroughCache => "through the cache".into(),
        }
    }
}

/// The program around a test: its signals, its clock, its progress bar, and whether the device is still there.
struct Surroundings<'a> {
    stop: &'a Stop,
    mapping: &'a Mapping,
    began: Instant,
    bar: ProgressBar,
}

impl<'a> Surroundings<'a> {
    fn new(context: &'a Context, mapping: &'a Mapping, work: u64, what: &'static str) -> Self {
        Self {
            stop: &context.stop,
            mapping,
            began: Instant::now(),
            bar: output::progress(work, what),
        }
    }
}

impl Host for Surroundings<'_> {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn pause(&self, time: Duration) {
        self.stop.sleep(time);
    }

    fn stop(&self) -> bool {
        self.stop.signal().is_some() || self.mapping.is_gone()
    }

    fn progress(&self, bytes: usize) {
        self.bar.inc(bytes as u64);
    }
}

impl Context {
    fn options(&self, contents: Contents) -> Options {
        Options {
            contents,
            retention: self.retention,
            budget: if self.quick { Some(Duration::ZERO) } else { self.time_budget },
            seed: self.seed,
            repeat: self.repeat,
        }
    }

    /// The signal that ended a test.
    fn stopped<T>(&self) -> Outcome<T> {
        interrupted(self.stop.signal().unwrap_or_default())
    }
}

/// How much of the buffer was covered, in words.
fn coverage(pages: usize, total_pages: usize, seed: u64) -> String {
    let all = output::size((total_pages * PAGE_BYTES) as u64);
    if pages == total_pages {
        return format!("100 % of {all}");
    }
    let part = output::size((pages * PAGE_BYTES) as u64);
    // Rounded down, so that a part is never called all.
    let percent = (pages * 1000 / total_pages) as f64 / 10.0;
    format!("{percent} % of {all}: a sample of {part}, seed {seed}")
}

/// Whether all of the buffer that a check covers is 0, read from memory.
fn zeros(context: &Context, reader: &Device, remedy: &str) -> Outcome {
    let way = match Way::of(&reader.info()?, Instruction::detect()) {
        // A reader may not have the driver discard cache lines.
        Way::Driver => Way::ThroughCache,
        way => way,
    };
    let mapping = reader.map(..)?;
    let (start, len) = (mapping.as_ptr().cast_mut(), mapping.len());
    let surroundings = Surroundings::new(context, &mapping, reader.size_bytes(), "zeros");
    let options = context.options(Contents::Zeros);
    // SAFETY: the mapping outlives the memory, starts a page, and nothing refers into it; `zeros` writes nothing.
    let found = unsafe {
        match way.instruction() {
            Some(flush) => mydrv_memtest::zeros(&Mapped::flushed_by(flush, start, len), &surroundings, &options),
            None => mydrv_memtest::zeros(&Mapped::unflushed(start, len), &surroundings, &options),
        }
    };
    surroundings.bar.finish_and_clear();
    if mapping.is_gone() {
        return Err(gone(reader));
    }
    match found.not_zero {
        Some(Site::Word { offset, found, .. }) => fail(format!("{found:#018x} at offset {offset:#x}"), remedy),
        Some(Site::Page { offset }) => fail(format!("not 0 in the page at offset {offset:#x}"), remedy),
        None if found.stopped => context.stopped(),
        None => Ok((
            format!(
                "zeros, {}, {}",
                coverage(found.pages.len(), found.total_pages, context.seed),
                way.words()
            ),
            (),
        )),
    }
}

fn gone(device: &Device) -> Problem {
    Error::Gone {
        path: device.path().to_owned(),
    }
    .into()
}

/// That the driver zeroed the buffer before anyone could have written to it.
pub fn zeroing(context: &Context, reader: &Device) -> Outcome {
    if !reader.info()?.flags.pristine() {
        return not_applicable("a program has had the device open for writing since the driver zeroed the buffer");
    }
    zeros(
        context,
        reader,
        "update the module mydrv: what the memory held before must not be shown; also check that no device writes here already",
    )
}

/// The checks of one test of the memory: the check, the algorithm, and what is expected.
pub const ALGORITHMS: &[(Check, Algorithm, &str)] = &[
    (
        checks::ADDRESS_LINES,
        Algorithm::AddressLines,
        "each walking address reaches a word of its own",
    ),
    (
        checks::DATA_LINES,
        Algorithm::DataLines,
        "walking ones and zeros read back as written",
    ),
    (
        checks::MARCH_C_MINUS,
        Algorithm::MarchC,
        "each line reads back as written, whatever is written to others",
    ),
    (
        checks::CHECKERBOARD,
        Algorithm::Checkerboard,
        "neighbouring bits keep opposite values",
    ),
    (
        checks::RETENTION,
        Algorithm::Retention,
        "each bit keeps either value during the pause",
    ),
];

/// What is told of one test of the memory beside the verdicts of its algorithms.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MemoryTest {
    /// The device.
    pub device: String,
    /// The algorithms that ran to their end, by the names of their checks.
    pub algorithms: Vec<Cow<'static, str>>,
    /// The buffer's bytes.
    pub bytes: u64,
    /// How many of them March C-, checkerboard and retention went through.
    pub tested_bytes: u64,
    /// The same in percent.
    pub coverage_percent: f64,
    /// The width of the words of March C-, in bits.
    pub word_bits: usize,
    /// What chose the sample, where it is one.
    pub seed: u64,
    /// How many repetitions ran to their end.
    pub repeats: u32,
    /// The pause of the retention test in seconds; 0: it did not run.
    pub retention_s: f64,
    /// How what was written got out of the caches: `uncached`, `dc civac`, `clflush`, `cbo.flush`, `driver` or `through the cache`.
    pub flush: Cow<'static, str>,
    /// How many cache lines the processor's instruction flushed.
    pub flushed_lines: u64,
    /// Whether the contents were known to be zeros; otherwise patterns were added to them.
    pub zeros: bool,
    /// Whether a signal ended it.
    pub interrupted: bool,
}

/// One test of the memory, which several checks tell of. The first one runs it.
#[derive(Default)]
pub struct Test {
    done: Option<(Report, MemoryTest, Way, bool)>,
}

impl Test {
    /// What the test is told of in the report, once it ran.
    pub fn summary(&self) -> Option<&MemoryTest> {
        self.done.as_ref().map(|(_, summary, ..)| summary)
    }

    /// What one algorithm found. `zeros`: whether the buffer is known to hold nothing else.
    pub fn check(&mut self, context: &Context, writer: &Device, zeros: bool, algorithm: Algorithm) -> Outcome {
        if algorithm == Algorithm::Retention && context.retention.is_zero() {
            return not_applicable("only with --retention");
        }
        if self.done.is_none() {
            self.done = Some(run(context, writer, zeros)?);
        }
        let Some((report, _, way, is_gone)) = &self.done else {
            return skip("the test did not run");
        };
        if *is_gone {
            return Err(gone(writer));
        }
        if let Some(fault) = report.fault(algorithm) {
            return fail(tell(fault), BAD_MEMORY);
        }
        if report.stopped {
            return context.stopped();
        }
        if !report.algorithms.contains(&algorithm) {
            return skip("the test did not run to its end");
        }
        let extent = match algorithm {
            Algorithm::AddressLines => format!(
                "walking ones and zeros over the offsets of {}",
                output::size(writer.size_bytes())
            ),
            Algorithm::DataLines => format!("walking ones and zeros over {} bits at eight places", LINE_BYTES * 8),
            _ => format!(
                "{}, words of {} bits",
                coverage(report.pages.len(), report.total_pages, context.seed),
                LINE_BYTES * 8
            ),
        };
        let times = if report.repeats == 1 {
            String::new()
        } else {
            format!(", {} times", report.repeats)
        };
        Ok((format!("{extent}{times}, {}", way.words()), ()))
    }
}

/// A fault in words.
fn tell(fault: &Fault) -> String {
    let times = if fault.count == 1 {
        String::new()
    } else {
        format!("; {} wrong reads in all", fault.count)
    };
    match fault.first {
        Site::Word { offset, wanted, found } => {
            format!(
                "{found:#018x} for {wanted:#018x} at offset {offset:#x}{times}, of bits {:#x}",
                fault.bits
            )
        }
        Site::Page { offset } => format!("other contents in the page at offset {offset:#x}{times}"),
    }
}

/// Runs all algorithms. The buffer then holds what it held, for a device to see too.
fn run(context: &Context, writer: &Device, zeros: bool) -> std::result::Result<(Report, MemoryTest, Way, bool), Error> {
    let info = writer.info()?;
    let way = Way::of(&info, Instruction::detect());
    let contents = if zeros { Contents::Zeros } else { Contents::Keep };
    let mut mapping = writer.map_mut(..)?;
    let (start, len) = (mapping.as_mut_ptr(), mapping.len());
    let options = context.options(contents);
    let surroundings = Surroundings::new(context, &mapping, options.work(len / PAGE_BYTES), "memory");
    // SAFETY: the mapping outlives the memory, is writable, starts a page, and nothing refers into it.
    let (report, flushed_lines) = unsafe {
        match way.instruction() {
            Some(flush) => {
                let memory = Mapped::flushed_by(flush, start, len);
                (mydrv_memtest::run(&memory, &surroundings, &options), memory.flushed())
            }
            None => {
                let memory = Buffer {
                    mapped: Mapped::unflushed(start, len),
                    device: writer,
                    by_driver: way == Way::Driver,
                };
                (mydrv_memtest::run(&memory, &surroundings, &options), 0)
            }
        }
    };
    surroundings.bar.finish_and_clear();
    let is_gone = mapping.is_gone();
    if !is_gone {
        writer.sync(.., Direction::ToDevice)?;
    }
    let name = |algorithm: &Algorithm| {
        ALGORITHMS
            .iter()
            .find(|(_, known, _)| known == algorithm)
            .map(|(check, ..)| check.id)
    };
    let summary = MemoryTest {
        device: writer.path().display().to_string(),
        algorithms: report.algorithms.iter().filter_map(name).map(Cow::Borrowed).collect(),
        bytes: info.size_bytes,
        tested_bytes: (report.pages.len() * PAGE_BYTES) as u64,
        coverage_percent: report.coverage_percent(),
        word_bits: LINE_BYTES * 8,
        seed: context.seed,
        repeats: report.repeats,
        retention_s: context.retention.as_secs_f64(),
        flush: way.name().into(),
        flushed_lines,
        zeros,
        interrupted: report.stopped,
    };
    Ok((report, summary, way, is_gone))
}

/// The errors that the memory controllers have counted, corrected and not (Documentation/driver-api/edac.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Edac {
    /// Corrected errors.
    pub corrected: u64,
    /// Errors that could not be corrected.
    pub uncorrected: u64,
}

impl Edac {
    /// The counters now, of all controllers together; `None` where there is none.
    pub fn read(root: &Path) -> Option<Self> {
        let controllers = fs::read_dir(root.join("sys/devices/system/edac/mc")).ok()?;
        let counts = controllers.flatten().filter_map(|controller| {
            let count = |name: &str| fs::read_to_string(controller.path().join(name)).ok()?.trim().parse().ok();
            Some(Self {
                corrected: count("ce_count")?,
                uncorrected: count("ue_count")?,
            })
        });
        counts.reduce(|one, two| Self {
            corrected: one.corrected + two.corrected,
            uncorrected: one.uncorrected + two.uncorrected,
        })
    }
}

/// That no memory error was counted since `before`: one that could not be corrected is a failure, others are told.
pub fn edac(context: &Context, before: Option<Edac>) -> Outcome<Edac> {
    let Some((before, after)) = before.zip(Edac::read(&context.root)) else {
        return not_applicable("no memory controller counts errors (sys/devices/system/edac/mc)");
    };
    let corrected = after.corrected.saturating_sub(before.corrected);
    let uncorrected = after.uncorrected.saturating_sub(before.uncorrected);
    let told = format!(
        "{uncorrected} uncorrected and {corrected} corrected during the check; {} and {} since boot",
        after.uncorrected, after.corrected
    );
    if uncorrected > 0 {
        return fail(told, BAD_MEMORY);
    }
    Ok((told, after))
}

/// That every page can be read; nothing is written.
pub fn readable(context: &Context, reader: &Device) -> Outcome {
    let mapping = reader.map(..)?;
    let page = rustix::param::page_size();
    for offset in (0..mapping.len()).step_by(page) {
        if context.stop.signal().is_some() {
            return context.stopped();
        }
        mapping.read::<u64>(offset)?;
    }
    Ok((format!("{} pages", mapping.len() / page), ()))
}

/// That the driver zeroes the buffer when its last user has closed it. `dirtied`: whether a check has had it open for writing.
pub fn scrub(context: &Context, info: &Info, path: &Path, dirtied: bool) -> Outcome {
    if !info.flags.scrub() {
        return not_applicable("the node has no mydrv,scrub");
    }
    if !dirtied {
        return not_applicable("the buffer was not open for writing");
    }
    let reader = OpenOptions::new().lock(Lock::Exclusive).open(path)?;
    if !reader.info()?.flags.pristine() {
        // Then it was no last close.
        if reader.users()?.open_files > 1 {
            return in_use(format!("{}: in use by {}", path.display(), users::named(&context.root, path)));
        }
        return fail(
            "the buffer was not zeroed",
            format!("stop what else has the device open (fuser -v {})", path.display()),
        );
    }
    zeros(
        context,
        &reader,
        "update the module mydrv: the next user sees the last one's data",
    )
}

/// What no neighbouring page has.
fn key(offset: u64) -> u64 {
    offset ^ !offset << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_never_called_all() {
        assert_eq!(coverage(16384, 16384, 1), "100 % of 64 MiB");
        assert_eq!(coverage(16383, 16384, 1), "99.9 % of 64 MiB: a sample of 65532 KiB, seed 1");
        assert_eq!(coverage(32, 16384, 3), "0.1 % of 64 MiB: a sample of 128 KiB, seed 3");
    }

    #[test]
    fn counters_of_memory_controllers_are_summed_up() {
        let root = std::env::temp_dir().join(format!("mydrvctl-edac-{}", std::process::id()));
        assert_eq!(Edac::read(&root), None);
        for (controller, corrected, uncorrected) in [("mc0", "3\n", "0\n"), ("mc1", "4\n", "2\n")] {
            let dir = root.join("sys/devices/system/edac/mc").join(controller);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("ce_count"), corrected).unwrap();
            fs::write(dir.join("ue_count"), uncorrected).unwrap();
        }
        // As the kernel's own folder has them.
        fs::create_dir(root.join("sys/devices/system/edac/mc/power")).unwrap();
        let found = Edac::read(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(
            found,
            Some(Edac {
                corrected: 7,
                uncorrected: 2
            })
        );
    }
}
