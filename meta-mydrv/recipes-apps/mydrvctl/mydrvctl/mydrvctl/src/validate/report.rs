// SPDX-License-Identifier: MIT

//! Running checks and telling of them: to people, to the journal, and as the JSON report.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::{
    failure::{Failure, Result},
    output,
};

/// The version of the report's layout: additions keep it, anything else raises it.
const SCHEMA: u32 = 1;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// What was found is what was expected.
    Pass,
    /// It is not.
    Fail,
    /// It could not be told; the reason says why.
    Skip,
}

/// One check's line in the report.
#[derive(Debug, Serialize)]
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
    /// What is; null where the check was skipped.
    pub found: Option<String>,
    /// Why the check was skipped.
    pub reason: Option<String>,
    /// What to do about a failure.
    pub remedy: Option<String>,
    /// How long it took.
    pub duration_ms: f64,
}

/// Why a check did not pass.
pub enum Problem {
    /// What was found, and what to do about it.
    Fail(String, String),
    /// Why it cannot be told.
    Skip(String),
}

/// What a check returns: what was found, and what later checks build on.
pub type Outcome<T = ()> = std::result::Result<(String, T), Problem>;

/// A failure.
pub fn fail<T>(found: impl Into<String>, remedy: impl Into<String>) -> Outcome<T> {
    Err(Problem::Fail(found.into(), remedy.into()))
}

/// A skip.
pub fn skip<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Problem::Skip(reason.into()))
}

impl From<mydrv::Error> for Problem {
    /// The library's errors name their remedy themselves.
    fn from(error: mydrv::Error) -> Self {
        let text = error.to_string();
        match text.rsplit_once("; ") {
            Some((found, remedy)) => Self::Fail(found.into(), remedy.into()),
            None => Self::Fail(text, "see the kernel's log: journalctl -k -g mydrv".into()),
        }
    }
}

/// What a check is, apart from what it does.
pub struct Spec<'a, D> {
    /// The check's stable name.
    pub id: &'static str,
    /// What is checked.
    pub title: &'static str,
    /// What should be.
    pub expected: String,
    /// The check that this one builds on, and what that one yielded.
    pub on: (&'static str, Option<&'a D>),
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

/// The checks so far.
#[derive(Serialize)]
pub struct Report {
    schema: u32,
    version: &'static str,
    mode: &'static str,
    kernel: String,
    started_unix_s: u64,
    verdict: Verdict,
    devices: usize,
    passed: usize,
    failed: usize,
    skipped: usize,
    duration_ms: f64,
    checks: Vec<Record>,
    #[serde(skip)]
    voice: Voice,
    #[serde(skip)]
    began: Instant,
    #[serde(skip)]
    device: Option<String>,
}

impl Report {
    /// An empty report.
    pub fn new(mode: &'static str, voice: Voice) -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            mode,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            started_unix_s: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            verdict: Verdict::Fail,
            devices: 0,
            passed: 0,
            failed: 0,
            skipped: 0,
            duration_ms: 0.0,
            checks: Vec::new(),
            voice,
            began: Instant::now(),
            device: None,
        }
    }

    /// What follows is about this device.
    pub fn begin_device(&mut self, node: String) {
        if self.voice == Voice::All {
            let _ = writeln!(io::stdout(), "{node}");
        }
        self.device = Some(node);
        self.devices += 1;
    }

    /// The present device is better known by this name.
    pub fn name_device(&mut self, name: String) {
        self.device = Some(name);
    }

    /// Runs one check, unless the one it builds on did not pass, and returns what it yields.
    pub fn check<D, T>(&mut self, spec: Spec<'_, D>, body: impl FnOnce(&D) -> Outcome<T>) -> Option<T> {
        let began = Instant::now();
        let outcome = match spec.on {
            (_, Some(base)) => body(base),
            (id, None) => Err(Problem::Skip(self.blame(id))),
        };
        let (verdict, found, reason, remedy, value) = match outcome {
            Ok((found, value)) => (Verdict::Pass, Some(found), None, None, Some(value)),
            Err(Problem::Fail(found, remedy)) => (Verdict::Fail, Some(found), None, Some(remedy), None),
            Err(Problem::Skip(reason)) => (Verdict::Skip, None, Some(reason), None, None),
        };
        match verdict {
            Verdict::Pass => self.passed += 1,
            Verdict::Fail => self.failed += 1,
            Verdict::Skip => self.skipped += 1,
        }
        let record = Record {
            number: self.checks.len() + 1,
            id: spec.id,
            device: self.device.clone(),
            title: spec.title,
            verdict,
            expected: spec.expected,
            found,
            reason,
            remedy,
            duration_ms: began.elapsed().as_secs_f64() * 1e3,
        };
        self.tell(&record);
        self.checks.push(record);
        value
    }

    /// Why a check that builds on `id` cannot run: names the failure at the bottom of it.
    fn blame(&self, id: &str) -> String {
        match self.checks.iter().rev().find(|record| record.id == id) {
            Some(Record {
                number,
                verdict: Verdict::Fail,
                ..
            }) => format!("check {number} ({id}) failed"),
            Some(Record {
                reason: Some(reason), ..
            }) if reason.starts_with("check ") => reason.clone(),
            Some(Record {
                number,
                reason: Some(reason),
                ..
            }) => format!("check {number} ({id}) was skipped: {reason}"),
            _ => format!("{id} was not checked"),
        }
    }

    fn tell(&self, record: &Record) {
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
            };
            let word = if output::coloured() {
                format!("\x1b[{colour}m{word}\x1b[0m")
            } else {
                word.into()
            };
            let told = record.found.as_deref().or(record.reason.as_deref()).unwrap_or_default();
            let line = format!("{:>3}  {word}  {:<24} {}: {told}", record.number, record.id, record.title);
            // A closed pipe shall not keep the checks from running: the exit code still tells.
            let _ = writeln!(io::stdout(), "{line}");
        }
        if record.verdict == Verdict::Fail {
            eprintln!(
                "{}mydrv-validate: FAIL {} {}{device}: expected {}, found {}; remedy: {}",
                priority(),
                record.number,
                record.id,
                record.expected,
                record.found.as_deref().unwrap_or_default(),
                record.remedy.as_deref().unwrap_or_default(),
            );
        }
    }

    /// Sums up, writes the report where it is wanted, and turns it into the command's result.
    pub fn finish(mut self, paths: &[&Path]) -> Result {
        self.duration_ms = self.began.elapsed().as_secs_f64() * 1e3;
        self.verdict = if self.failed == 0 && self.devices > 0 {
            Verdict::Pass
        } else {
            Verdict::Fail
        };
        for path in paths {
            self.save(path).map_err(Failure::io(path))?;
        }
        if self.voice == Voice::Json {
            output::json(&self)?;
        } else {
            let verdict = if self.verdict == Verdict::Pass { "passed" } else { "FAILED" };
            let line = format!(
                "validation {verdict}: {} checks passed, {} failed, {} skipped; devices: {}; {:.1} s",
                self.passed,
                self.failed,
                self.skipped,
                self.devices,
                self.duration_ms / 1e3,
            );
            let _ = writeln!(io::stdout(), "{line}");
        }
        if self.verdict == Verdict::Pass {
            Ok(())
        } else {
            Err(Failure::Check)
        }
    }

    /// Writes the report so that a reader sees the old one or the new one, never a part.
    fn save(&self, path: &Path) -> io::Result<()> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".new");
        let mut file = File::create(&partial)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&partial, path)
    }
}

/// sd-daemon(3)'s prefix for errors, where standard error goes to the journal. The variable alone does not tell: it is inherited by
/// programs whose standard error goes elsewhere (systemd.exec(5), "$JOURNAL_STREAM").
fn priority() -> &'static str {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let journal = rustix::fs::fstat(io::stderr()).is_ok_and(|stat| format!("{}:{}", stat.st_dev, stat.st_ino) == stream);
    if journal { "<3>" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec<'a, D>(id: &'static str, on: (&'static str, Option<&'a D>)) -> Spec<'a, D> {
        Spec {
            id,
            title: "title",
            expected: "a".into(),
            on,
        }
    }

    #[test]
    fn a_check_is_skipped_with_the_name_of_the_one_that_failed() {
        let mut report = Report::new("full", Voice::Failures);
        let first = report.check(spec("first", ("start", Some(&()))), |()| fail::<u8>("b", "do c"));
        let second = report.check(spec("second", ("first", first.as_ref())), |_| Ok(("never".into(), 1_u8)));
        assert_eq!(second, None);
        let third: Option<()> = report.check(spec("third", ("second", second.as_ref())), |_| Ok(("never".into(), ())));
        assert_eq!(third, None);
        assert_eq!(report.checks[1].reason.as_deref(), Some("check 1 (first) failed"));
        assert_eq!(report.checks[2].reason.as_deref(), Some("check 1 (first) failed"));
        assert_eq!((report.passed, report.failed, report.skipped), (0, 1, 2));
    }

    #[test]
    fn passing_needs_a_device() {
        let report = Report::new("full", Voice::Failures);
        assert!(report.finish(&[]).is_err());
        let mut report = Report::new("full", Voice::Failures);
        report.begin_device("/buffer".into());
        assert!(report.finish(&[]).is_ok());
    }

    #[test]
    fn library_errors_become_finding_and_remedy() {
        let Problem::Fail(found, remedy) = Problem::from(mydrv::Error::Busy {
            path: "/dev/mydrv0".into(),
        }) else {
            panic!()
        };
        assert_eq!(found, "/dev/mydrv0: in use by another program");
        assert!(remedy.starts_with("find it with `fuser"), "{remedy}");
    }
}
