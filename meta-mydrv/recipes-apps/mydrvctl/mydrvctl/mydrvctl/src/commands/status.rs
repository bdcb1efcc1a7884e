// SPDX-License-Identifier: MIT

//! `status`: how the A/B slots are, where RAUC updates the system. The story of each slot is what meta-mydrv's `ota-state` wrote to the
//! data partition, versions and the boot loader's view come from RAUC.

use std::{collections::BTreeMap, fs, io, path::Path, process::Command};

use serde::Serialize;
use serde_json::Value;

use crate::{
    cli::Cli,
    failure::{Failure, Result},
    output,
    validate::BOOT_REPORT,
};

/// Where `ota-state` keeps its records.
const RECORDS: &str = "data/mydrv";

/// What became of the last boot of a slot.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Boot {
    /// "started", "good", "in-use" or "failed".
    outcome: String,
    version: Option<String>,
    kernel: Option<String>,
    time: Option<String>,
    reason: Option<String>,
}

/// One slot.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Slot {
    name: String,
    booted: bool,
    /// "good" since a boot of this installation was, else "trial"; "empty" where nothing was installed or booted.
    state: &'static str,
    /// Whether the boot loader would still try it; null where RAUC does not answer.
    bootable: Option<bool>,
    version: Option<String>,
    installed: Option<String>,
    good_since: Option<String>,
    last_boot: Option<Boot>,
}

/// The boot loader gave a slot up.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Fallback {
    from: String,
    to: String,
    version: Option<String>,
    time: Option<String>,
    reason: String,
}

/// What the command prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    slot: String,
    state: &'static str,
    version: Option<String>,
    /// The verdict of this boot's validation, null where there was none.
    validation: Option<Value>,
    fallback: Option<Fallback>,
    slots: Vec<Slot>,
}

/// `mydrvctl status`.
pub fn status(cli: &Cli) -> Result {
    let root = &cli.root;
    let booted = booted_slot(root).ok_or_else(|| {
        Failure::NotFound(
            "not booted from a slot: no rauc.slot= on the kernel command line; `status` is about systems that RAUC updates"
                .into(),
        )
    })?;
    let records = root.join(RECORDS);
    let rauc = rauc_status();
    if let Err(error) = &rauc {
        output::say(&format!("mydrvctl: {error}"));
    }
    let rauc = rauc.ok().map(|value| rauc_slots(&value)).unwrap_or_default();
    let mut names: Vec<_> = rauc.keys().cloned().chain([booted.clone()]).collect();
    names.sort();
    names.dedup();
    let slots: Vec<_> = names
        .iter()
        .map(|name| slot(&records, name, &booted, rauc.get(name)))
        .collect();
    let own = slots.iter().find(|slot| slot.booted);
    let status = Status {
        state: own.map_or("trial", |slot| slot.state),
        version: version(root),
        validation: validation(root),
        fallback: fallback(&records),
        slot: booted,
        slots,
    };
    if cli.json {
        return output::json(&status);
    }
    output::table(&rows(&status))
}

/// The slot that the boot loader chose.
fn booted_slot(root: &Path) -> Option<String> {
    let line = fs::read_to_string(root.join("proc/cmdline")).ok()?;
    let name = line
        .split_whitespace()
        .rev()
        .find_map(|word| word.strip_prefix("rauc.slot="))?;
    Some(name.to_owned())
}

/// The running system's version.
fn version(root: &Path) -> Option<String> {
    let release = fs::read_to_string(root.join("etc/os-release")).ok()?;
    let value = release.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="))?;
    Some(value.trim_matches('"').to_owned())
}

/// The boot's report, without its checks.
fn validation(root: &Path) -> Option<Value> {
    let path = root.join(BOOT_REPORT);
    let text = fs::read(&path)
        .inspect_err(|error| {
            if error.kind() == io::ErrorKind::PermissionDenied {
                output::say(&format!(
                    "mydrvctl: {}: {error}; the report is for root and the group mydrv",
                    path.display()
                ));
            }
        })
        .ok()?;
    let mut report: Value = serde_json::from_slice(&text).ok()?;
    let failures: Vec<_> = report["checks"]
        .as_array()?
        .iter()
        .filter(|check| check["verdict"] == "fail")
        .map(|check| check["id"].clone())
        .collect();
    let object = report.as_object_mut()?;
    object.remove("checks");
    object.insert("failures".into(), failures.into());
    Some(report)
}

/// A record of `ota-state`: lines of KEY=VALUE.
fn record(path: &Path) -> Option<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).ok()?;
    Some(
        text.lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    )
}

fn fallback(records: &Path) -> Option<Fallback> {
    let mut record = record(&records.join("fallback"))?;
    Some(Fallback {
        from: record.remove("from")?,
        to: record.remove("to")?,
        version: record.remove("version"),
        time: record.remove("time"),
        reason: record.remove("reason").unwrap_or_else(|| "unknown".into()),
    })
}

/// What RAUC says of a slot.
struct RaucSlot {
    bootable: Option<bool>,
    version: Option<String>,
    installed: Option<String>,
}

fn rauc_status() -> Result<Value> {
    let unknown = |why: String| Failure::Broken(format!("rauc status: {why}; versions and the boot loader's view are unknown"));
    let output = Command::new("rauc")
        .args(["status", "--detailed", "--output-format=json"])
        .output()
        .map_err(|error| unknown(error.to_string()))?;
    if !output.status.success() {
        return Err(unknown(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| unknown(error.to_string()))
}

/// RAUC's slots by the boot loader's names.
fn rauc_slots(status: &Value) -> BTreeMap<String, RaucSlot> {
    let slots = status["slots"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    slots
        .iter()
        .filter_map(|slot| slot.as_object()?.values().next())
        .filter_map(|slot| {
            let details = &slot["slot_status"];
            let known = RaucSlot {
                bootable: slot["boot_status"].as_str().map(|status| status == "good"),
                version: text(&details["bundle"]["version"]),
                installed: text(&details["installed"]["timestamp"]),
            };
            Some((text(&slot["bootname"])?, known))
        })
        .collect()
}

fn slot(records: &Path, name: &str, booted: &str, rauc: Option<&RaucSlot>) -> Slot {
    let folder = records.join(format!("slot-{name}"));
    let good = record(&folder.join("good"));
    let last_boot = record(&folder.join("last")).map(|mut last| Boot {
        outcome: last.remove("outcome").unwrap_or_else(|| "unknown".into()),
        version: last.remove("version"),
        kernel: last.remove("kernel"),
        time: last.remove("time"),
        reason: last.remove("reason"),
    });
    let installed = rauc.and_then(|rauc| rauc.installed.clone());
    Slot {
        name: name.into(),
        booted: name == booted,
        state: match (&good, &last_boot, &installed) {
            (Some(_), ..) => "good",
            (None, None, None) => "empty",
            _ => "trial",
        },
        bootable: rauc.and_then(|rauc| rauc.bootable),
        version: rauc
            .and_then(|rauc| rauc.version.clone())
            .or_else(|| last_boot.as_ref().and_then(|last| last.version.clone())),
        installed,
        good_since: good.and_then(|mut good| good.remove("time")),
        last_boot,
    }
}

fn rows(status: &Status) -> Vec<[String; 2]> {
    let unknown = || "unknown".to_owned();
    let mut rows = vec![
        [
            "system".into(),
            format!(
                "version {}, slot {}, {}",
                status.version.clone().unwrap_or_else(unknown),
                status.slot,
                if status.state == "good" { "good" } else { "on trial" }
            ),
        ],
        [
            "validation".into(),
            status.validation.as_ref().map_or_else(|| "none in this boot".into(), verdict),
        ],
    ];
    for slot in &status.slots {
        let mut words = vec![slot.state.to_owned()];
        if slot.booted {
            words.push("booted".into());
        }
        if slot.bootable == Some(false) {
            words.push("given up by the boot loader".into());
        }
        words.extend(slot.version.iter().map(|version| format!("version {version}")));
        words.extend(slot.installed.iter().map(|time| format!("installed {time}")));
        words.extend(slot.good_since.iter().map(|time| format!("good since {time}")));
        if let Some(last) = slot.last_boot.as_ref().filter(|last| last.outcome != "good") {
            let reason = last.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            words.push(format!("last boot {}{reason}", last.outcome));
        }
        rows.push([format!("slot {}", slot.name), words.join(", ")]);
    }
    if let Some(fallback) = &status.fallback {
        let version = fallback
            .version
            .as_ref()
            .map(|version| format!(", version {version}"))
            .unwrap_or_default();
        let time = fallback.time.as_ref().map(|time| format!(", {time}")).unwrap_or_default();
        rows.push([
            "fallback".into(),
            format!(
                "from slot {}{version} to slot {}{time}: {}",
                fallback.from, fallback.to, fallback.reason
            ),
        ]);
    }
    rows
}

fn verdict(report: &Value) -> String {
    let number = |key: &str| report[key].as_u64().unwrap_or_default();
    let counts = format!(
        "{} checks passed, {} failed, {} skipped",
        number("passed"),
        number("failed"),
        number("skipped")
    );
    if report["verdict"] == "pass" {
        format!("passed: {counts}")
    } else if report["verdict"] == "in-use" {
        format!("put off, a device is in use: {counts}")
    } else if report["verdict"] == "interrupted" {
        format!("interrupted: {counts}")
    } else {
        let failures: Vec<_> = report["failures"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        format!("FAILED: {counts}; failed: {}", failures.join(", "))
    }
}
