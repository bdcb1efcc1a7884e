// SPDX-License-Identifier: MIT

//! Running checks and telling of them: to people, to the journal, and as the JSON report.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    boot,
    checks::{self, Check},
    expect::Place,
    memory::MemoryTest,
    provenance::Provenance,
};
use crate::{
    failure::{Failure, Result},
    output,
    stop::Stop,
};

/// See [`Report::schema`].
const SCHEMA: u32 = 1;

/// How a check ended, and all of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// What was found is what was expected.
    Pass,
    /// It is not.
    Fail,
    /// It could not be told; the reason says why.
    Skip,
    /// The buffer's own properties, or what the command line asks for, leave nothing to check; the reason says which.
    #[serde(rename = "n/a")]
    NotApplicable,
    /// Another program has the buffer; the reason says so. Says nothing for or against the buffer.
    InUse,
    /// A signal ended the check; the reason names it. Says nothing for or against the buffer.
    Interrupted,
}

/// One check's line in the report.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Record {
    /// 1, 2, …
    pub number: usize,
    /// The check's stable name.
    pub id: &'static str,
    /// The buffer: its node in the device tree, then its device once known. Null for checks of the whole system.
    pub device: Option<String>,
    /// What is checked.
    pub title: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What should be.
    pub expected: String,
    /// What is; null where the check neither passed nor failed.
    pub found: Option<String>,
    /// Why the check neither passed nor failed.
    pub reason: Option<String>,
    /// What to do about a failure.
    pub remedy: Option<String>,
    /// How long it took.
    pub duration_ms: f64,
    /// Whether another check's outcome, which counts already, kept this one from running.
    #[serde(skip)]
    excused: bool,
}

/// Why a check did not pass.
pub enum Problem {
    /// What was found, and what to do about it.
    Fail(String, String),
    /// Why it cannot be told.
    Skip(String),
    /// Why there is nothing to check.
    NotApplicable(String),
    /// Who has the buffer, as far as that is known.
    InUse(String),
    /// The signal that asks the program to end. No check runs after it.
    Interrupted(i32),
}

/// What a check returns: what was found, and what later checks build on.
pub type Outcome<T = ()> = std::result::Result<(String, T), Problem>;

/// A failure.
pub fn fail<T>(found: impl Into<String>, remedy: impl Into<String>) -> Outcome<T> {
    Err(Problem::Fail(found.into(), remedy.into()))
}

/// A skip: it should be checked, but cannot be.
pub fn skip<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Problem::Skip(reason.into()))
}

/// Nothing to check: the buffer's own properties, or what the command line asks for, leave nothing.
pub fn not_applicable<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Problem::NotApplicable(reason.into()))
}

/// Another program has the buffer.
pub fn in_use<T>(found: impl Into<String>) -> Outcome<T> {
    Err(Problem::InUse(found.into()))
}

/// A signal asks the program to end.
pub fn interrupted<T>(signal: i32) -> Outcome<T> {
    Err(Problem::Interrupted(signal))
}

impl From<mydrv::Error> for Problem {
    /// The library's errors name their remedy themselves.
    fn from(error: mydrv::Error) -> Self {
        match error.kind() {
            mydrv::ErrorKind::Busy => Self::InUse(error.to_string()),
            _ => Self::Fail(error.cause(), error.remedy().into()),
        }
    }
}

/// Why a failure may be somebody else's doing, if it may. Takes how many files this process has open.
pub type Doubt = Box<dyn Fn(u32) -> Option<String>>;

/// What a check yielded, if it passed, and which check that was: so that one that builds on it blames no other.
#[derive(Clone, Copy)]
pub struct Yielded<T> {
    /// None where it is given, without a check.
    by: Option<Check>,
    value: Option<T>,
}

impl<T> Yielded<T> {
    /// Something to build on that needs no check.
    pub fn given(value: T) -> Self {
        Self {
            by: None,
            value: Some(value),
        }
    }

    /// What was yielded.
    pub fn value(self) -> Option<T> {
        self.value
    }

    /// The same by reference.
    pub fn as_ref(&self) -> Yielded<&T> {
        Yielded {
            by: self.by,
            value: self.value.as_ref(),
        }
    }

    /// Something else that is there if this is.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Yielded<U> {
        self.and_then(|value| Some(f(value)))
    }

    /// Something else that may be there if this is.
    pub fn and_then<U>(self, f: impl FnOnce(T) -> Option<U>) -> Yielded<U> {
        Yielded {
            by: self.by,
            value: self.value.and_then(f),
        }
    }

    /// What two checks yielded; where both have failed, this one is to blame.
    pub fn and<U>(self, other: Yielded<U>) -> Yielded<(T, U)> {
        match self.value {
            Some(value) => other.map(|other| (value, other)),
            None => Yielded {
                by: self.by,
                value: None,
            },
        }
    }

    /// What the other one yielded, if this one passed, too.
    pub fn then<U>(self, other: Yielded<U>) -> Yielded<U> {
        self.and(other).map(|(_, other)| other)
    }
}

/// Who listens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// A person: every check, as it ends.
    All,
    /// The boot's log: failures and a summary.
    Failures,
    /// A program: the report on standard output, at the end.
    Json,
}

/// The checks so far: the report.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Report {
    /// The version of this layout: additions keep it, anything else raises it.
    schema: u32,
    /// This program's version.
    version: &'static str,
    /// Which checks ran: "boot", "boot-quick", "boot-full", "default", "quick" or "full".
    mode: &'static str,
    #[serde(flatten)]
    provenance: Provenance,
    /// When it began, in seconds since 1970.
    started_unix_s: u64,
    /// Of all checks: "pass", "fail", "in-use" or "interrupted".
    verdict: Verdict,
    /// How many buffers were checked.
    devices: usize,
    /// How many checks passed.
    passed: usize,
    /// How many checks failed.
    failed: usize,
    /// How many checks could not be told.
    skipped: usize,
    /// For how many checks there was nothing to check.
    not_applicable: usize,
    /// How many checks another program kept from being told.
    in_use: usize,
    /// How long it took.
    duration_ms: f64,
    /// The checks, in their order.
    checks: Vec<Record>,
    /// Where the buffers are.
    buffers: Vec<Place>,
    /// The tests of the memory, one of each buffer that was written to.
    memory: Vec<MemoryTest>,
    #[serde(skip)]
    stop: Stop,
    #[serde(skip)]
    required: Vec<Check>,
    #[serde(skip)]
    interrupted: Option<i32>,
    #[serde(skip)]
    voice: Voice,
    #[serde(skip)]
    began: Instant,
    #[serde(skip)]
    device: Option<String>,
    #[serde(skip)]
    doubt: Option<(Doubt, u32)>,
    /// The first thing that went wrong with standard output.
    #[serde(skip)]
    unsaid: Option<io::Error>,
}

impl Report {
    /// An empty report. A skip of a `required` check is a failure.
    pub fn new(root: &Path, mode: &'static str, voice: Voice, required: &[Check], stop: Stop) -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            mode,
            provenance: Provenance::new(root),
            started_unix_s: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            verdict: Verdict::Fail,
            devices: 0,
            passed: 0,
            failed: 0,
            skipped: 0,
            not_applicable: 0,
            in_use: 0,
            duration_ms: 0.0,
            checks: Vec::new(),
            buffers: Vec::new(),
            memory: Vec::new(),
            stop,
            required: required.to_vec(),
            interrupted: None,
            voice,
            began: Instant::now(),
            device: None,
            doubt: None,
            unsaid: None,
        }
    }

    /// Says a line on standard output. What becomes of it keeps no check from running; it counts at the end.
    fn say(&mut self, line: &str) {
        if let Err(error) = writeln!(io::stdout(), "{line}") {
            self.unsaid.get_or_insert(error);
        }
    }

    /// What follows is about this device.
    pub fn begin_device(&mut self, node: String) {
        if self.voice == Voice::All {
            self.say(&node);
        }
        self.device = Some(node);
        self.devices += 1;
    }

    /// Where the present device's buffer is, as far as that is known.
    pub fn place(&mut self, node: String, physical_address: Option<u64>, size_bytes: Option<u64>) -> Place {
        let place = Place {
            device: self.device.clone().unwrap_or_default(),
            node,
            physical_address,
            size_bytes,
        };
        self.buffers.push(place.clone());
        place
    }

    /// What follows is about the whole system.
    pub fn end_devices(&mut self) {
        if self.voice == Voice::All && self.device.is_some() {
            self.say("all buffers");
        }
        self.device = None;
    }

    /// The present device is better known by this name.
    pub fn name_device(&mut self, name: String) {
        self.device = Some(name);
    }

    /// From now on a failure for which there is a doubt means that the device is in use. With how many files of the device this process has open.
    pub fn doubt(&mut self, doubt: Option<Doubt>, files: u32) {
        self.doubt = doubt.map(|doubt| (doubt, files));
    }

    /// One more of them.
    pub fn opened_another(&mut self) {
        if let Some((_, files)) = &mut self.doubt {
            *files += 1;
        }
    }

    /// Runs one check, unless the one `on` which it builds did not pass, and returns what it yields.
    pub fn check<D, T>(
        &mut self,
        check: Check,
        expected: impl Into<String>,
        on: Yielded<D>,
        body: impl FnOnce(D) -> Outcome<T>,
    ) -> Yielded<T> {
        let began = Instant::now();
        let (outcome, excused) = match (self.interrupted, on.value) {
            (Some(signal), _) => (Err(Problem::Skip(by_signal(signal))), true),
            (None, Some(base)) => {
                // Whatever a check makes of a signal half way, and of what the signal did to its children.
                let outcome = match self.stop.signal() {
                    Some(signal) => Err(Problem::Interrupted(signal)),
                    None => body(base),
                };
                match (outcome, self.stop.signal()) {
                    (Err(_), Some(signal)) => (Err(Problem::Interrupted(signal)), false),
                    (outcome, _) => (outcome, false),
                }
            }
            (None, None) => {
                let (problem, excused) = self.blame(on.by);
                (Err(problem), excused)
            }
        };
        let outcome = match outcome {
            Err(Problem::Skip(reason)) if !excused && self.required.contains(&check) => {
                let (found, remedy) = not_checked(check, &reason);
                fail(found, remedy)
            }
            outcome => outcome,
        };
        let outcome = match (outcome, &self.doubt) {
            (Err(Problem::Fail(found, remedy)), Some((doubt, files))) => Err(match doubt(*files) {
                Some(reason) => Problem::InUse(format!("{found}, but {reason}")),
                None => Problem::Fail(found, remedy),
            }),
            (outcome, _) => outcome,
        };
        let (verdict, found, reason, remedy, value) = match outcome {
            Ok((found, value)) => (Verdict::Pass, Some(found), None, None, Some(value)),
            Err(Problem::Fail(found, remedy)) => (Verdict::Fail, Some(found), None, Some(remedy), None),
            Err(Problem::Skip(reason)) => (Verdict::Skip, None, Some(reason), None, None),
            Err(Problem::NotApplicable(reason)) => (Verdict::NotApplicable, None, Some(reason), None, None),
            Err(Problem::InUse(reason)) => (Verdict::InUse, None, Some(reason), None, None),
            Err(Problem::Interrupted(signal)) => {
                self.interrupted = Some(signal);
                (Verdict::Interrupted, None, Some(by_signal(signal)), None, None)
            }
        };
        self.add(Record {
            number: self.checks.len() + 1,
            id: check.id,
            device: self.device.clone(),
            title: check.title,
            verdict,
            expected: expected.into(),
            found,
            reason,
            remedy,
            duration_ms: began.elapsed().as_secs_f64() * 1e3,
            excused,
        });
        Yielded { by: Some(check), value }
    }

    /// Takes a check of the present device over from the report of another process. Of those that this one makes itself only what did not
    /// pass. `passed`: whether that report is a pass, in which no other outcome excuses a skip; that process may have been told to require less.
    pub fn take_over(&mut self, check: &Value, passed: bool) {
        let text = |key: &str| check[key].as_str().map(str::to_owned);
        let known = check["id"].as_str().and_then(checks::find);
        let verdict = Verdict::deserialize(&check["verdict"]).ok();
        let (Some(known), Some(verdict)) = (known, verdict) else {
            return;
        };
        let of_system = check["device"].is_null();
        let own = of_system || [checks::REGION, checks::DRIVER, checks::NODE, checks::UNEXPECTED].contains(&known);
        if own && !matches!(verdict, Verdict::Fail | Verdict::InUse) {
            return;
        }
        let (mut verdict, mut found, mut reason, mut remedy) = (verdict, text("found"), text("reason"), text("remedy"));
        if verdict == Verdict::Skip && passed && self.required.contains(&known) {
            let failure = not_checked(known, &reason.take().unwrap_or_default());
            (verdict, found, remedy) = (Verdict::Fail, Some(failure.0), Some(failure.1));
        }
        self.add(Record {
            number: self.checks.len() + 1,
            id: known.id,
            device: self.device.clone().filter(|_| !of_system),
            title: known.title,
            verdict,
            expected: text("expected").unwrap_or_default(),
            found,
            reason,
            remedy,
            duration_ms: check["duration_ms"].as_f64().unwrap_or_default(),
            excused: false,
        });
    }

    /// Takes over what another process' report tells of its tests of the memory.
    pub fn take_over_memory(&mut self, tests: &Value) {
        self.memory.extend(Vec::<MemoryTest>::deserialize(tests).unwrap_or_default());
    }

    fn add(&mut self, record: Record) {
        match record.verdict {
            Verdict::Pass => self.passed += 1,
            Verdict::Fail => self.failed += 1,
            Verdict::Skip => self.skipped += 1,
            Verdict::NotApplicable => self.not_applicable += 1,
            Verdict::InUse => self.in_use += 1,
            Verdict::Interrupted => {}
        }
        self.tell(&record);
        self.checks.push(record);
    }

    /// Why what builds on this check cannot run: names the outcome at the bottom of it. And whether that one counts already.
    fn blame(&self, check: Option<Check>) -> (Problem, bool) {
        let id = check.map_or("", |check| check.id);
        let Some(base) = self.checks.iter().rev().find(|record| record.id == id) else {
            return (Problem::Skip(format!("{id} was not checked")), false);
        };
        let number = base.number;
        let reason = base.reason.clone().unwrap_or_default();
        match base.verdict {
            Verdict::NotApplicable => (Problem::NotApplicable(reason), false),
            // It names the check at the bottom itself.
            Verdict::Skip if reason.starts_with("check ") => (Problem::Skip(reason), base.excused),
            Verdict::Skip => (
                Problem::Skip(format!("check {number} ({id}) was skipped: {reason}")),
                base.excused,
            ),
            Verdict::InUse => (Problem::Skip(format!("check {number} ({id}): {reason}")), true),
            Verdict::Pass | Verdict::Fail | Verdict::Interrupted => {
                (Problem::Skip(format!("check {number} ({id}) failed")), true)
            }
        }
    }

    /// What is told of a test of the memory beside its verdicts.
    pub fn tell_memory(&mut self, test: Option<&MemoryTest>) {
        self.memory.extend(test.cloned());
    }

    fn tell(&mut self, record: &Record) {
        let device = record
            .device
            .as_deref()
            .map(|device| format!(" {device}"))
            .unwrap_or_default();
        if self.voice == Voice::All {
            let (word, colour) = match record.verdict {
                Verdict::Pass => ("pass", "32"),
                Verdict::Fail => ("FAIL", "1;31"),
                Verdict::Skip => ("skip", "33"),
                Verdict::NotApplicable => ("n/a ", "33"),
                Verdict::InUse => ("busy", "1;33"),
                Verdict::Interrupted => ("stop", "1;33"),
            };
            let word = if output::coloured() {
                format!("\x1b[{colour}m{word}\x1b[0m")
            } else {
                word.into()
            };
            let told = record.found.as_deref().or(record.reason.as_deref()).unwrap_or_default();
            let line = format!("{:>3}  {word}  {:<24} {}: {told}", record.number, record.id, record.title);
            self.say(&line);
        }
        let (
            Record {
                number, id, expected, ..
            },
            reason,
        ) = (record, record.reason.as_deref().unwrap_or_default());
        match record.verdict {
            Verdict::Fail => {
                let found = record.found.as_deref().unwrap_or_default();
                let remedy = record.remedy.as_deref().unwrap_or_default();
                self.warn(
                    Level::Error,
                    &format!("FAIL {number} {id}{device}: expected {expected}, found {found}; remedy: {remedy}"),
                );
            }
            Verdict::InUse => self.warn(Level::Warning, &format!("in use, {number} {id}{device}: {reason}")),
            Verdict::Interrupted => self.warn(Level::Warning, &format!("{reason}, {number} {id}{device}")),
            Verdict::Pass | Verdict::Skip | Verdict::NotApplicable => {}
        }
    }

    /// Says on standard error what is no pass; where that fails, on standard output, unless it stands there already or would spoil the JSON.
    fn warn(&mut self, level: Level, text: &str) {
        let line = format!("mydrv-validate: {text}");
        if !output::say(&format!("{}{line}", level.prefix())) && self.voice == Voice::Failures {
            self.say(&line);
        }
    }

    /// Sums up, writes the report where it is wanted, and turns it into the command's result: the verdict, and only if that is a pass, what
    /// became of the output.
    pub fn finish(mut self, paths: &[PathBuf]) -> Result {
        self.duration_ms = self.began.elapsed().as_secs_f64() * 1e3;
        // What is known to be wrong stays wrong, whatever kept the rest from being checked.
        self.verdict = match (self.failed, self.interrupted, self.in_use) {
            (0, Some(_), _) => Verdict::Interrupted,
            (0, None, 1..) => Verdict::InUse,
            (0, None, 0) if self.passed > 0 && self.devices > 0 => Verdict::Pass,
            _ => Verdict::Fail,
        };
        if (self.verdict, self.failed) == (Verdict::Fail, 0) {
            self.warn(
                Level::Error,
                "FAIL: nothing was proved: no buffer was checked, or no check passed",
            );
        }
        let found = match (self.verdict, self.interrupted) {
            (Verdict::Pass, _) => Ok(()),
            (Verdict::InUse, _) => Err(Failure::InUse),
            (Verdict::Interrupted, Some(signal)) => Err(Failure::Interrupted(signal)),
            _ => Err(Failure::Check),
        };
        let mut told: Vec<Result> = paths
            .iter()
            .map(|path| self.save(path).map_err(|error| Failure::io(path)(error)))
            .collect();
        if self.voice == Voice::Json {
            told.push(output::json(&self));
        } else {
            let verdict = match self.verdict {
                Verdict::Pass => "passed",
                Verdict::InUse => "put off, the device is in use",
                Verdict::Interrupted => "interrupted",
                _ => "FAILED",
            };
            let line = format!(
                "validation {verdict}: {} checks passed, {} failed, {} skipped, {} n/a; devices: {}; {:.1} s",
                self.passed,
                self.failed,
                self.skipped,
                self.not_applicable,
                self.devices,
                self.duration_ms / 1e3,
            );
            self.say(&line);
            told.extend(self.unsaid.take().map(|error| Err(error.into())));
        }
        told.into_iter().fold(found, Failure::verdict_first)
    }

    /// Writes the report so that a reader sees the old one or the new one, never a part.
    fn save(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        // A pipe or a terminal has no old contents, and must not be replaced by a file.
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return fs::write(path, text);
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".new");
        let write = || {
            // One that a killed run left; and no link is followed, since root may write where another user can.
            let _ = fs::remove_file(&partial);
            let mut file = File::create_new(&partial)?;
            if let Some(folder) = path.parent().filter(|folder| folder.ends_with(boot::DIRECTORY)) {
                // It tells addresses.
                boot::for_the_group(&file, folder)?;
            }
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&partial, path)
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(&partial);
        })
    }
}

/// Removes the reports of an earlier run, so that none is taken for this one's if this one is killed. What is no file, such as a pipe, stays.
pub fn discard(paths: &[PathBuf]) {
    for path in paths {
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file()) {
            // Where it cannot be removed it cannot be written either, which is told then.
            let _ = fs::remove_file(path);
        }
    }
}

/// The failure that a skip of a required check is: what was found, and what to do about it.
fn not_checked(check: Check, reason: &str) -> (String, String) {
    (
        format!("not checked: {reason}"),
        format!(
            "make the check possible, or take {} out of --require (MYDRV_REQUIRE)",
            check.id
        ),
    )
}

fn by_signal(signal: i32) -> String {
    format!("interrupted by signal {signal}")
}

/// How bad it is, for the journal.
#[derive(Clone, Copy)]
enum Level {
    Error,
    Warning,
}

impl Level {
    /// sd-daemon(3)'s prefix, where standard error goes to the journal. The variable alone does not tell: it is inherited by programs whose standard
    /// error goes elsewhere (systemd.exec(5), "$JOURNAL_STREAM").
    fn prefix(self) -> &'static str {
        let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        let journal = rustix::fs::fstat(io::stderr()).is_ok_and(|stat| format!("{}:{}", stat.st_dev, stat.st_ino) == stream);
        match self {
            _ if !journal => "",
            Self::Error => "<3>",
            Self::Warning => "<4>",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: &'static str) -> Check {
        let depth = checks::Depth::Boot;
        Check { id, title: "a", depth }
    }

    /// Nothing to build on, since this check did not yield it.
    fn nothing(id: &'static str) -> Yielded<()> {
        let by = Some(check(id));
        Yielded { by, value: None }
    }

    #[test]
    fn a_check_is_skipped_with_the_name_of_the_one_that_failed() {
        let mut report = Report::new(Path::new("/nonexistent"), "full", Voice::Failures, &[], Stop::default());
        let first = report.check(check("first"), "a", Yielded::given(()), |()| fail::<u8>("b", "do c"));
        let second = report.check(check("second"), "a", first, |_| Ok(("never".into(), 1_u8)));
        assert_eq!(second.value(), None);
        let third = report.check(check("third"), "a", second, |_| Ok(("never".into(), ())));
        assert_eq!(third.value(), None);
        assert_eq!(report.checks[1].reason.as_deref(), Some("check 1 (first) failed"));
        assert_eq!(report.checks[2].reason.as_deref(), Some("check 1 (first) failed"));
        assert_eq!((report.passed, report.failed, report.skipped), (0, 1, 2));
    }

    #[test]
    fn a_failure_that_may_be_somebody_elses_doing_is_none() {
        let mut report = Report::new(Path::new("/nonexistent"), "full", Voice::Failures, &[], Stop::default());
        report.begin_device("/buffer".into());
        let failing = |report: &mut Report| report.check(check("memory"), "a", Yielded::given(()), |()| fail::<()>("b", "do c"));
        // Two files are this process's own.
        report.doubt(Some(Box::new(|files| (files != 2).then(|| "in use by others".into()))), 1);
        failing(&mut report);
        assert_eq!(report.checks[0].verdict, Verdict::InUse);
        assert_eq!(report.checks[0].reason.as_deref(), Some("b, but in use by others"));
        report.opened_another();
        failing(&mut report);
        assert_eq!(report.checks[1].verdict, Verdict::Fail);
        report.doubt(None, 0);
        failing(&mut report);
        assert_eq!((report.in_use, report.failed), (1, 2));
    }

    fn report(required: &[&'static str]) -> Report {
        let required: Vec<_> = required.iter().map(|&id| check(id)).collect();
        Report::new(Path::new("/nonexistent"), "full", Voice::Failures, &required, Stop::default())
    }

    fn run(report: &mut Report, id: &'static str, outcome: Outcome) -> Option<()> {
        report.check(check(id), "a", Yielded::given(()), |()| outcome).value()
    }

    fn pass() -> Outcome {
        Ok(("b".into(), ()))
    }

    /// The exit code and the verdict of a report with a device and these checks.
    fn verdict(outcomes: Vec<Outcome>) -> (Verdict, std::result::Result<(), String>) {
        let path = std::env::temp_dir().join(format!(
            "mydrvctl-verdict-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let mut report = report(&[]);
        report.begin_device("/buffer".into());
        for outcome in outcomes {
            run(&mut report, "node", outcome);
        }
        let result = report
            .finish(std::slice::from_ref(&path))
            .map_err(|failure| format!("{failure:?}"));
        let written: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        fs::remove_file(path).unwrap();
        (Verdict::deserialize(&written["verdict"]).unwrap(), result)
    }

    #[test]
    fn a_failure_comes_before_an_interruption_and_that_before_a_device_in_use() {
        let failed = || Err("Check".to_owned());
        for (outcomes, expected, result) in [
            (vec![pass()], Verdict::Pass, Ok(())),
            (vec![pass(), skip("c"), not_applicable("c")], Verdict::Pass, Ok(())),
            (vec![pass(), fail("b", "c")], Verdict::Fail, failed()),
            (vec![pass(), in_use("c")], Verdict::InUse, Err("InUse".into())),
            (
                vec![pass(), interrupted(15)],
                Verdict::Interrupted,
                Err("Interrupted(15)".into()),
            ),
            (
                vec![in_use("c"), interrupted(2)],
                Verdict::Interrupted,
                Err("Interrupted(2)".into()),
            ),
            (vec![fail("b", "c"), in_use("c")], Verdict::Fail, failed()),
            (vec![fail("b", "c"), in_use("c"), interrupted(15)], Verdict::Fail, failed()),
            // Nothing was proved.
            (vec![], Verdict::Fail, failed()),
            (vec![skip("c"), not_applicable("c")], Verdict::Fail, failed()),
        ] {
            assert_eq!(verdict(outcomes), (expected, result));
        }
    }

    #[test]
    fn passing_needs_a_device() {
        let mut report = report(&[]);
        run(&mut report, "device-tree", pass());
        assert!(matches!(report.finish(&[]), Err(Failure::Check)));
    }

    #[test]
    fn no_check_runs_after_an_interruption() {
        let mut report = report(&["node"]);
        run(&mut report, "region", interrupted(15));
        let ran = report.check(check("node"), "a", Yielded::given(()), |()| -> Outcome { panic!("it ran") });
        assert_eq!(ran.value(), None);
        assert_eq!(report.checks[1].verdict, Verdict::Skip);
        assert_eq!(report.checks[1].reason.as_deref(), Some("interrupted by signal 15"));
        assert_eq!((report.failed, report.skipped), (0, 1));
    }

    #[test]
    fn a_signal_ends_the_check_that_it_comes_in_whatever_that_makes_of_it() {
        let stop = Stop::default();
        let mut report = Report::new(Path::new("/nonexistent"), "full", Voice::Failures, &[], stop.clone());
        // A pass is one all the same; the next check is not begun.
        report.check(check("node"), "a", Yielded::given(()), |()| {
            stop.raise(15);
            pass()
        });
        report.check(check("abi"), "a", Yielded::given(()), |()| -> Outcome { panic!("it ran") });
        let verdicts: Vec<_> = report.checks.iter().map(|record| record.verdict).collect();
        assert_eq!(verdicts, [Verdict::Pass, Verdict::Interrupted]);
        let stop = Stop::default();
        let mut report = Report::new(Path::new("/nonexistent"), "full", Voice::Failures, &[], stop.clone());
        report.check(check("node"), "a", Yielded::given(()), |()| {
            stop.raise(2);
            fail::<()>("b", "c")
        });
        assert_eq!(report.checks[0].verdict, Verdict::Interrupted);
    }

    #[test]
    fn a_skip_of_a_required_check_fails_unless_another_outcome_is_to_blame() {
        let mut report = report(&["b", "d", "f", "h"]);
        let on = |report: &mut Report, id, base: &'static str| {
            report.check(check(id), "a", nothing(base), |()| -> Outcome { panic!("it ran") });
            let record = report.checks.last().unwrap();
            (record.verdict, record.reason.clone().or(record.found.clone()).unwrap())
        };
        run(&mut report, "a", skip("r"));
        assert_eq!(
            on(&mut report, "b", "a"),
            (Verdict::Fail, "not checked: check 1 (a) was skipped: r".into())
        );
        assert_eq!(
            report.checks[1].remedy.as_deref().unwrap().split(',').next(),
            Some("make the check possible")
        );
        run(&mut report, "c", in_use("r"));
        assert_eq!(on(&mut report, "d", "c"), (Verdict::Skip, "check 3 (c): r".into()));
        run(&mut report, "e", fail("r", "s"));
        assert_eq!(on(&mut report, "f", "e"), (Verdict::Skip, "check 5 (e) failed".into()));
        run(&mut report, "g", not_applicable("r"));
        assert_eq!(on(&mut report, "h", "g"), (Verdict::NotApplicable, "r".into()));
        // Not required; and of one that was not tried at all.
        assert_eq!(
            on(&mut report, "i", "a"),
            (Verdict::Skip, "check 1 (a) was skipped: r".into())
        );
        assert_eq!(
            on(&mut report, "j", "i"),
            (Verdict::Skip, "check 1 (a) was skipped: r".into())
        );
        assert_eq!(
            on(&mut report, "h", "never"),
            (Verdict::Fail, "not checked: never was not checked".into())
        );
        assert_eq!(
            (report.failed, report.skipped, report.not_applicable, report.in_use),
            (3, 5, 1 + 1, 1)
        );
    }

    #[test]
    fn a_report_is_whole_or_the_old_one_and_a_pipe_stays_a_pipe() {
        let dir = std::env::temp_dir().join(format!("mydrvctl-save-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        let path = dir.join("report.json");
        fs::write(&path, "old").unwrap();
        report(&[]).save(&path).unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with("}\n"));
        // A folder in the partial file's place: the old report stays, and so does the folder.
        fs::create_dir(dir.join("report.json.new")).unwrap();
        assert!(report(&[]).save(&path).is_err());
        assert!(fs::read_to_string(&path).unwrap().ends_with("}\n"));
        // Nothing partial is left.
        let other = dir.join("folder");
        fs::create_dir_all(other.join("full")).unwrap();
        assert!(report(&[]).save(&other).is_err());
        assert!(!dir.join("folder.new").exists());
        report(&[]).save(Path::new("/dev/null")).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file() && !Path::new("/dev/null.new").exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn library_errors_become_finding_and_remedy() {
        let path = || "/dev/mydrv0".into();
        let Problem::Fail(found, remedy) = Problem::from(mydrv::Error::Gone { path: path() }) else {
            panic!()
        };
        assert_eq!(found, "/dev/mydrv0: the device is gone, its driver was unbound");
        assert!(remedy.starts_with("open it again"), "{remedy}");
        assert!(matches!(
            Problem::from(mydrv::Error::Busy { path: path() }),
            Problem::InUse(_)
        ));
    }
}
