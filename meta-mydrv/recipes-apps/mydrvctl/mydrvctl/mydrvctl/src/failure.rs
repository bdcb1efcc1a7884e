// SPDX-License-Identifier: MIT

//! Why a command ended without success, and which exit code says so (listed in `cli::AFTER_HELP`).

use std::{io, path::Path, process::ExitCode};

use serde::Serialize;

use crate::output;

/// What a command returns.
pub type Result<T = ()> = std::result::Result<T, Failure>;

/// Why a command ended without success.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A check failed; it has already said so.
    #[error("a check failed")]
    Check,
    /// Another program has the device; the check has already said so.
    #[error("the device is in use")]
    InUse,
    /// A signal ended the check; it has already said so.
    #[error("interrupted by signal {0}")]
    Interrupted(i32),
    /// A comparison failed.
    #[error("{0}")]
    Different(String),
    /// The command line is wrong, or asks for the help or the version; clap has the words, and the code.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// The caller may not.
    #[error("{0}")]
    Permission(String),
    /// The library's own words.
    #[error(transparent)]
    Device(#[from] mydrv::Error),
    /// A file or a stream failed.
    #[error("{what}: {source}")]
    Io {
        /// The file or stream.
        what: String,
        /// Its error.
        source: io::Error,
    },
    /// Standard output failed.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
    /// Anything else that failed in the device.
    #[error("{0}")]
    Broken(String),
}

impl Failure {
    /// For `map_err` on a file's calls.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = path.display().to_string();
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission(format!("{what}: permission denied")),
            _ => Self::Io { what, source },
        }
    }

    fn code(&self) -> u8 {
        use mydrv::Error;
        match self {
            Self::Check | Self::Different(_) => 1,
            Self::Usage(_) | Self::Device(Error::OutOfRange { .. } | Error::Misaligned { .. } | Error::Ambiguous { .. }) => 2,
            Self::NotFound(_) | Self::Device(Error::NotFound { .. }) => 3,
            Self::Permission(_) | Self::Device(Error::Permission { .. } | Error::ReadOnly { .. } | Error::NotWritable { .. }) => {
                4
            }
            Self::InUse | Self::Device(Error::Busy { .. }) => 6,
            Self::CommandLine(answer) => answer.exit_code() as u8,
            // As a shell says of a program that a signal ended.
            Self::Interrupted(signal) => 128_u8.saturating_add(*signal as u8),
            Self::Device(_) | Self::Io { .. } | Self::Output(_) | Self::Broken(_) => 5,
        }
    }

    /// Of what was found and of what became of telling it, what the command returns: a failure first, whatever became of the output. Then the
    /// output's own is said at once.
    pub fn first(found: Result, told: Result) -> Result {
        match (found, told) {
            (Ok(()), told) => told,
            (found, Ok(())) => found,
            (found, Err(Self::Output(error))) if error.kind() == io::ErrorKind::BrokenPipe => found,
            (found, Err(told)) => {
                told.say();
                found
            }
        }
    }

    /// As [`first`](Self::first), for a command whose verdict is its output: a reader that has gone has not got it.
    pub fn verdict_first(found: Result, told: Result) -> Result {
        Self::first(
            found,
            told.map_err(|told| match told {
                Self::Output(source) => Self::Io {
                    what: "standard output".into(),
                    source,
                },
                told => told,
            }),
        )
    }

    fn say(&self) {
        output::say(&format!("mydrvctl: {self}"));
    }

    /// What kind of failure it is, for programs.
    fn kind(&self) -> &'static str {
        match self.code() {
            1 => "different",
            2 => "usage",
            3 => "not-found",
            4 => "permission",
            6 => "in-use",
            _ => "failed",
        }
    }

    /// Says it on standard error, with `json` as an object, and turns it into the exit code.
    pub fn report(&self, json: bool) -> ExitCode {
        match self {
            // The reader of a pipe has seen enough (`mydrvctl dump | head`).
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Self::CommandLine(answer) if !json || answer.exit_code() == 0 => {
                if let (0, Err(error)) = (answer.exit_code(), answer.print()) {
                    return Self::Output(error).report(json);
                }
            }
            Self::Check | Self::InUse | Self::Interrupted(_) => {}
            failure if json => {
                let told = Told {
                    error: failure.kind(),
                    message: failure.to_string().trim().into(),
                    exit_code: failure.code(),
                };
                output::say(&serde_json::to_string_pretty(&told).unwrap_or_default());
            }
            failure => failure.say(),
        }
        ExitCode::from(self.code())
    }
}

/// Why a command failed, with `--json`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Told {
    /// "different", "usage", "not-found", "permission", "failed" or "in-use", as the exit codes 1 to 6 have it.
    error: &'static str,
    /// The file, the cause and the remedy.
    message: String,
    /// The exit code.
    exit_code: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(kind: io::ErrorKind) -> Result {
        Err(Failure::Output(kind.into()))
    }

    #[test]
    fn what_was_found_comes_before_what_became_of_telling_it() {
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::StorageFull] {
            for first in [Failure::first, Failure::verdict_first] {
                assert!(matches!(first(Err(Failure::Check), output(kind)), Err(Failure::Check)));
                assert!(matches!(first(Err(Failure::Check), Ok(())), Err(Failure::Check)));
                assert!(matches!(first(Ok(()), Ok(())), Ok(())));
                assert_eq!(first(Ok(()), output(kind)).unwrap_err().code(), 5);
            }
        }
    }

    #[test]
    fn a_closed_pipe_is_quiet_but_for_a_verdict() {
        let success = format!("{:?}", ExitCode::SUCCESS);
        let code = |result: Result| format!("{:?}", result.unwrap_err().report(false));
        assert_eq!(code(Failure::first(Ok(()), output(io::ErrorKind::BrokenPipe))), success);
        assert_ne!(
            code(Failure::verdict_first(Ok(()), output(io::ErrorKind::BrokenPipe))),
            success
        );
        assert_ne!(code(Failure::first(Ok(()), output(io::ErrorKind::StorageFull))), success);
    }

    #[test]
    fn a_failure_as_an_object_is_of_the_kind_that_its_code_says() {
        for (failure, kind) in [
            (Failure::Usage("u".into()), "usage"),
            (Failure::NotFound("n".into()), "not-found"),
            (Failure::Permission("p".into()), "permission"),
            (Failure::Broken("b".into()), "failed"),
            (Failure::InUse, "in-use"),
        ] {
            assert_eq!(failure.kind(), kind);
        }
    }

    #[test]
    fn each_class_has_its_code() {
        let path = Path::new("/dev/mydrv0");
        let io = |kind: io::ErrorKind| Failure::io(path)(kind.into());
        for (failure, code) in [
            (Failure::Check, 1),
            (Failure::Different("d".into()), 1),
            (Failure::Usage("u".into()), 2),
            (Failure::NotFound("n".into()), 3),
            (io(io::ErrorKind::PermissionDenied), 4),
            (io(io::ErrorKind::StorageFull), 5),
            (Failure::Broken("b".into()), 5),
            (Failure::InUse, 6),
            (Failure::Device(mydrv::Error::Busy { path: path.into() }), 6),
            (Failure::Device(mydrv::Error::Gone { path: path.into() }), 5),
            (Failure::Interrupted(2), 130),
            (Failure::Interrupted(15), 143),
        ] {
            assert_eq!(failure.code(), code, "{failure}");
        }
    }
}
