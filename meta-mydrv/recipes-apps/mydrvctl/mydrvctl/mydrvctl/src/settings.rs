// SPDX-License-Identifier: MIT

//! The settings: environment variables that stand for options, in /etc/default/mydrv for the boot's validation. What becomes of one that is empty,
//! malformed or unknown is decided here, and listed in docs/integration.md.

use std::{ffi::OsString, fmt};

use clap::{CommandFactory, FromArgMatches, builder::Resettable};

use crate::{
    cli::{self, Cli, Command},
    failure::{Failure, Result},
    output, validate,
};

/// What becomes of a value that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Malformed {
    /// The default, with a warning: whatever it is, nothing that is broken passes for good, and nothing good for broken.
    Default,
    /// The command ends: to go on without it would prove less than the product asks for, or destroy what it wants kept.
    Refused,
}

/// A variable.
struct Setting {
    name: &'static str,
    /// The option's name in the command line's definition; `validate`'s, unless it is for every command.
    option: &'static str,
    malformed: Malformed,
    /// Why a value is none.
    parse: fn(&str) -> std::result::Result<(), String>,
}

const SETTINGS: &[Setting] = &[
    Setting {
        name: "MYDRV_DEVICE",
        option: "device",
        malformed: Malformed::Refused,
        // Any text names some device; one that is not there is told when it is looked for.
        parse: |_| Ok(()),
    },
    Setting {
        name: "MYDRV_EXPECT",
        option: "expect",
        malformed: Malformed::Refused,
        parse: |text| cli::parse_expectations(text).map(drop),
    },
    Setting {
        name: "MYDRV_REQUIRE",
        option: "require",
        malformed: Malformed::Refused,
        // Which checks there are `validate` knows.
        parse: |_| Ok(()),
    },
    Setting {
        name: "MYDRV_KEEP",
        option: "keep",
        malformed: Malformed::Refused,
        parse: |text| cli::parse_labels(text).map(drop),
    },
    Setting {
        name: "MYDRV_GROUP",
        option: "group",
        malformed: Malformed::Refused,
        parse: |_| Ok(()),
    },
    Setting {
        name: "MYDRV_MODE",
        option: "mode",
        malformed: Malformed::Refused,
        parse: |text| cli::parse_mode(text).map(drop),
    },
    Setting {
        name: "MYDRV_WAIT",
        option: "wait",
        malformed: Malformed::Default,
        parse: |text| {
            text.parse::<u64>()
                .map(drop)
                .map_err(|_| "give whole seconds, without a unit".into())
        },
    },
    Setting {
        name: "MYDRV_TIME_BUDGET",
        option: "time_budget",
        malformed: Malformed::Default,
        parse: |text| cli::parse_seconds(text).map(drop),
    },
];

/// Names of the kind that are other programs' or the unit's own.
fn elsewhere(name: &str) -> bool {
    matches!(name, "MYDRV_VALIDATE_ARGS" | "MYDRV_ASSETS_DIR") || name.starts_with("MYDRV_OTA_")
}

/// What the environment says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// The options that take nothing from the environment.
    left_out: Vec<&'static str>,
    warnings: Vec<String>,
    refused: Option<String>,
}

fn look(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Found {
    let mut found = Found::default();
    let mut variables: Vec<_> = environment.into_iter().collect();
    variables.sort();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with("MYDRV_")) else {
            continue;
        };
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            if !elsewhere(name) {
                let like = nearest(name)
                    .map(|like| format!(" (did you mean {like}?)"))
                    .unwrap_or_default();
                found
                    .warnings
                    .push(format!("{name}: there is no such setting{like}; it changes nothing"));
            }
            continue;
        };
        let problem = match value.to_str() {
            // As if it were not there: so a file can take back what the unit sets.
            Some(text) if text.trim().is_empty() => None,
            Some(text) => match (setting.parse)(text) {
                Ok(()) => continue,
                Err(problem) => Some(problem),
            },
            None => Some("not UTF-8".into()),
        };
        found.left_out.push(setting.option);
        let told = |outcome: &dyn fmt::Display| {
            let problem = problem.as_deref().unwrap_or_default();
            format!("{name}={}: {problem}{outcome}", value.display())
        };
        match (&problem, setting.malformed) {
            (None, _) => {}
            (Some(_), Malformed::Default) => found.warnings.push(told(&"; the default is taken")),
            (Some(_), Malformed::Refused) => {
                found
                    .refused
                    .get_or_insert(told(&"; correct it, in /etc/default/mydrv or the unit, or unset it"));
            }
        }
    }
    found
}

/// The setting that a name is most likely meant for: the one with the fewest edits, if there are few.
fn nearest(name: &str) -> Option<&'static str> {
    let distance = |other: &str| {
        let mut row: Vec<usize> = (0..=other.len()).collect();
        for (i, a) in name.bytes().enumerate() {
            let mut diagonal = std::mem::replace(&mut row[0], i + 1);
            for (j, b) in other.bytes().enumerate() {
                let cost = diagonal + usize::from(a != b);
                diagonal = row[j + 1];
                row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
            }
        }
        row[other.len()]
    };
    let closest = SETTINGS.iter().map(|setting| (distance(setting.name), setting.name)).min()?;
    (closest.0 <= 3).then_some(closest.1)
}

/// The command line, with the environment's settings where it does not say otherwise.
///
/// # Errors
///
/// A setting that must not be left out is malformed; [`Failure::CommandLine`].
pub fn parse() -> Result<Cli> {
    let found = look(std::env::vars_os());
    let mut command = Cli::command();
    for option in found.left_out {
        let without = |argument: clap::Arg| argument.env(Resettable::Reset);
        command = if command.get_arguments().any(|argument| argument.get_id() == option) {
            command.mut_arg(option, without)
        } else {
            command.mut_subcommand("validate", |validate| validate.mut_arg(option, without))
        };
    }
    let cli = Cli::from_arg_matches(&command.try_get_matches()?)?;
    // The others have no settings but the device.
    if let Command::Validate(args) = &cli.command {
        for warning in found.warnings {
            output::say(&format!("mydrvctl: warning: {warning}"));
        }
        if let Some(refused) = found.refused {
            validate::forget(&cli, args);
            return Err(Failure::Usage(refused));
        }
    }
    Ok(cli)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Found {
        look([(name.into(), value.into()), ("PATH".into(), "/bin".into())])
    }

    #[test]
    fn each_setting_is_an_option_that_the_environment_reaches() {
        let command = Cli::command();
        let validate = command.find_subcommand("validate").unwrap();
        let mut named: Vec<_> = command
            .get_arguments()
            .chain(validate.get_arguments())
            .filter_map(|argument| Some((argument.get_env()?.to_str()?, argument.get_id().as_str())))
            .collect();
        let mut listed: Vec<_> = SETTINGS.iter().map(|setting| (setting.name, setting.option)).collect();
        named.sort_unstable();
        listed.sort_unstable();
        assert_eq!(named, listed);
    }

    #[test]
    fn an_empty_setting_is_none() {
        for setting in SETTINGS {
            for empty in ["", " "] {
                let expected = Found {
                    left_out: vec![setting.option],
                    ..Found::default()
                };
                assert_eq!(with(setting.name, empty), expected);
            }
        }
    }

    #[test]
    fn a_malformed_setting_is_told_and_left_out_or_refused() {
        for (name, value, refused) in [
            ("MYDRV_WAIT", "60s", false),
            ("MYDRV_WAIT", "-1", false),
            ("MYDRV_WAIT", "1.5", false),
            ("MYDRV_TIME_BUDGET", "ten", false),
            ("MYDRV_TIME_BUDGET", "-1", false),
            ("MYDRV_EXPECT", "buffer0=64Q", true),
            ("MYDRV_EXPECT", "=64M", true),
            ("MYDRV_MODE", "66O", true),
            ("MYDRV_MODE", "10000", true),
            ("MYDRV_MODE", "rw-rw----", true),
        ] {
            let found = with(name, value);
            assert_eq!(
                (found.refused.is_some(), found.warnings.len()),
                (refused, usize::from(!refused)),
                "{found:?}"
            );
            let told = found.refused.as_ref().unwrap_or_else(|| &found.warnings[0]);
            assert!(
                told.starts_with(&format!("{name}={value}: ")) && told.contains("; "),
                "{told}"
            );
            assert_eq!(found.left_out.len(), 1);
        }
        use std::os::unix::ffi::OsStringExt;
        for setting in SETTINGS {
            let found = look([(setting.name.into(), OsString::from_vec(vec![0xff]))]);
            assert_eq!(
                found.refused.is_some(),
                setting.malformed == Malformed::Refused,
                "{}",
                setting.name
            );
        }
    }

    #[test]
    fn a_good_setting_is_left_to_the_command_line() {
        for (name, value) in [
            ("MYDRV_WAIT", "60"),
            ("MYDRV_WAIT", "0"),
            ("MYDRV_TIME_BUDGET", "0.5"),
            ("MYDRV_EXPECT", "buffer0=64M video"),
            ("MYDRV_REQUIRE", "size,zeroing"),
            ("MYDRV_KEEP", "camera video"),
            ("MYDRV_GROUP", "video"),
            ("MYDRV_MODE", "0600"),
            ("MYDRV_DEVICE", "camera"),
            // Of others.
            ("MYDRV_VALIDATE_ARGS", "--quick"),
            ("MYDRV_OTA_ON_FAILURE", "report"),
            ("PATH", "/bin"),
        ] {
            assert_eq!(with(name, value), Found::default(), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_told() {
        let found = with("MYDRV_WIAT", "60");
        assert_eq!(
            found.warnings,
            ["MYDRV_WIAT: there is no such setting (did you mean MYDRV_WAIT?); it changes nothing"]
        );
        assert!(found.left_out.is_empty() && found.refused.is_none());
        assert_eq!(with("MYDRV_EXPECT_SIZE", "1").warnings.len(), 1);
        let far = with("MYDRV_SOMETHING_ELSE", "1");
        assert_eq!(
            far.warnings,
            ["MYDRV_SOMETHING_ELSE: there is no such setting; it changes nothing"]
        );
    }
}
