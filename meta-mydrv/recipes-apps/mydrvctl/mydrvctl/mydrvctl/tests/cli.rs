// SPDX-License-Identifier: MIT

//! The command line from outside: exit codes, messages and the report, on a machine without the device. A folder stands in for the
//! system where a check reads files.

mod system;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use system::{System, check, code, command, failed, json, mydrvctl, program, stderr};

#[test]
fn no_device_is_3() {
    let system = System::new("none");
    for arguments in [
        &["list"][..],
        &["info"],
        &["read"],
        &["write"],
        &["fill", "--all"],
        &["dump"],
        &["bench"],
        &["dma-loop"],
        &["info", "--device", "7"],
        &["info", "--device", "camera"],
        &["info", "--device", "/nonexistent/mydrv0"],
    ] {
        let output = mydrvctl(&system.0, arguments);
        assert_eq!(code(&output), 3, "{arguments:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains("mydrvctl validate"),
            "no remedy: {}",
            stderr(&output)
        );
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    }
}

#[test]
fn list_is_json_even_without_a_device() {
    let system = System::new("list");
    assert_eq!(
        json(&mydrvctl(&system.0, &["list", "--json"])),
        serde_json::json!({ "devices": [] })
    );
}

#[test]
fn list_shows_a_device_that_does_not_open() {
    let system = System::new("closed").with_overlay().with_driver("mydrv").with_misc_device();
    let output = mydrvctl(&system.0, &["list", "--json"]);
    assert_eq!(code(&output), 0);
    let device = &json(&output)["devices"][0];
    assert_eq!(
        (device["index"].as_u64(), device["label"].as_str()),
        (Some(0), Some("camera"))
    );
    assert!(device["info"].is_null());
    assert!(device["error"].as_str().unwrap().contains("no such device"), "{device}");
}

#[test]
fn several_devices_need_a_choice() {
    let system = System::new("several");
    system
        .put("sys/class/misc/mydrv0/dev", b"10:1\n")
        .put("sys/class/misc/mydrv1/dev", b"10:2\n");
    let output = mydrvctl(&system.0, &["info"]);
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("dev/mydrv0") && stderr(&output).contains("dev/mydrv1"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_wrong_command_line_is_2() {
    let system = System::new("usage");
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["read", "--offset", "1T"],
        &["read", "--offset", "-1"],
        &["read", "--length", "99999999999G"],
        &["fill", "--pattern", "abc"],
        &["fill", "--pattern", "00", "--seed", "1"],
        &["fill"],
        &["fill", "--offset", "4K"],
        &["fill", "--all", "--offset", "4K"],
        &["list", "--color", "pink"],
        &["bench", "--rounds", "0"],
        &["dma-loop", "--block", "4097"],
        &["dma-loop", "--block", "0"],
        &["read", "--json"],
    ] {
        let output = mydrvctl(&system.0, arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn with_json_a_failure_is_an_object_too() {
    let system = System::new("objects");
    for (arguments, error, code) in [
        (&["info"][..], "not-found", 3),
        (&["dump", "--length", "zebra"], "usage", 2),
        (&["read"], "usage", 2),
    ] {
        let output = mydrvctl(&system.0, &[&["--json"], arguments].concat());
        let told: Value = serde_json::from_slice(&output.stderr).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        assert_eq!(
            (told["error"].as_str(), told["exit_code"].as_i64()),
            (Some(error), Some(code)),
            "{told}"
        );
        assert!(!told["message"].as_str().unwrap().is_empty() && output.stdout.is_empty());
    }
}

#[test]
fn names_that_are_not_utf_8_are_no_panic() {
    use std::os::unix::ffi::OsStrExt;
    let root = std::ffi::OsStr::from_bytes(b"/nonexistent/\xff");
    for arguments in [&["list"][..], &["info"], &["status"], &["validate", "--wait", "0"], &["dump"]] {
        let output = std::process::Command::new(program())
            .arg("--json")
            .arg("--root")
            .arg(root)
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            (1..=5).contains(&code(&output)) && !stderr(&output).contains("panicked"),
            "{output:?}"
        );
    }
}

#[test]
fn a_file_that_is_no_device_is_refused() {
    let system = System::new("file");
    system.put("file", b"data");
    let output = mydrvctl(&system.0, &["info", "--device", system.0.join("file").to_str().unwrap()]);
    assert_eq!(code(&output), 5);
    assert!(stderr(&output).contains("not a mydrv device"), "{}", stderr(&output));
}

#[test]
fn help_documents_every_exit_code() {
    let output = mydrvctl(Path::new("/"), &["--help"]);
    assert_eq!(code(&output), 0);
    let help = String::from_utf8(output.stdout).unwrap();
    for code in 0..=6 {
        assert!(
            help.lines().any(|line| line.starts_with(&format!("  {code}  "))),
            "{code}: {help}"
        );
    }
    assert!(!help.contains("validate-peer"));
}

/// A stream that cannot be written to.
fn unwritable(name: &str) -> Stdio {
    match name {
        "closed pipe" => {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            writer.into()
        }
        "full disk" => fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into(),
        _ => unreachable!("{name}"),
    }
}

const UNWRITABLE: [&str; 2] = ["closed pipe", "full disk"];

#[test]
fn a_failure_stays_one_whatever_becomes_of_the_output() {
    let system = System::new("output");
    for (arguments, expected) in [
        (&["list"][..], 3),
        (&["--json", "list"], 3),
        (&["info"], 3),
        (&["validate", "--wait", "0"], 1),
        (&["--json", "validate", "--wait", "0"], 1),
        (&["validate", "--boot", "--wait", "0"], 1),
        (&["frobnicate"], 2),
    ] {
        for kind in UNWRITABLE {
            let output = command(&system.0, arguments)
                .stdout(unwritable(kind))
                .stderr(Stdio::piped())
                .output()
                .unwrap();
            assert_eq!(code(&output), expected, "{arguments:?} into a {kind}: {}", stderr(&output));
            assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
            // Told, but where a reader has seen enough; and of what never came to its output there is nothing to tell.
            let told = match expected {
                1 => true,
                3 if arguments.contains(&"--json") => kind == "full disk",
                _ => false,
            };
            assert_eq!(
                stderr(&output).contains("standard output: "),
                told,
                "{arguments:?} into a {kind}: {}",
                stderr(&output)
            );
            let output = command(&system.0, arguments).stderr(unwritable(kind)).output().unwrap();
            assert_eq!(code(&output), expected, "{arguments:?} with stderr on a {kind}");
            let output = command(&system.0, arguments)
                .stdout(unwritable(kind))
                .stderr(unwritable(kind))
                .output()
                .unwrap();
            assert_eq!(code(&output), expected, "{arguments:?} with both on a {kind}");
        }
    }
}

#[test]
fn where_standard_error_is_full_the_boots_failure_is_on_standard_output() {
    let system = System::new("fullerror");
    let output = command(&system.0, &["validate", "--boot", "--wait", "0"])
        .stderr(unwritable("full disk"))
        .output()
        .unwrap();
    assert_eq!(code(&output), 1);
    assert!(String::from_utf8(output.stdout).unwrap().contains("FAIL 1 device-tree"));
}

#[test]
fn help_that_cannot_be_printed_is_an_error() {
    for (kind, expected) in UNWRITABLE.into_iter().zip([0, 5]) {
        let output = command(Path::new("/"), &["--help"])
            .stdout(unwritable(kind))
            .output()
            .unwrap();
        assert_eq!(code(&output), expected, "{kind}: {}", stderr(&output));
    }
}

#[test]
fn validate_without_device_tree() {
    let system = System::new("notree");
    fs::remove_dir(system.0.join("sys/firmware/devicetree/base")).unwrap();
    let (output, checks) = system.validate();
    assert_eq!(code(&output), 1);
    failed(&checks, "device-tree", "no device tree");
    assert!(
        checks[1..]
            .iter()
            .all(|check| check["reason"] == "check 1 (device-tree) failed")
    );
}

#[test]
fn validate_without_overlay() {
    let (output, checks) = System::new("nooverlay").validate();
    assert_eq!(code(&output), 1);
    failed(&checks, "device-tree", "overlay missing");
    assert_eq!(
        stderr(&output).trim(),
        "mydrv-validate: FAIL 1 device-tree: expected an enabled node with compatible = \"mydrv,dma-buffer\", \
         found no such node: overlay missing; remedy: have the boot loader apply mydrv.dtbo to the base device tree, and check its log",
    );
}

#[test]
fn validate_with_a_disabled_node() {
    let system = System::new("disabled").with_overlay();
    system.put("sys/firmware/devicetree/base/mydrv-buffer/status", b"disabled\0");
    let (_, checks) = system.validate();
    failed(&checks, "device-tree", "only disabled nodes: /mydrv-buffer");
}

#[test]
fn validate_without_driver() {
    let (output, checks) = System::new("nodriver").with_overlay().validate();
    assert_eq!(code(&output), 1);
    failed(&checks, "driver", "not loaded");
    assert_eq!(check(&checks, "region")["found"], "/reserved-memory/cma, 4 MiB");
    assert_eq!(check(&checks, "node")["reason"], "check 3 (driver) failed");
    assert_eq!(check(&checks, "zeroing")["verdict"], "skip");
    assert!(
        stderr(&output).contains("FAIL 3 driver /mydrv-buffer: expected"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn validate_with_another_driver() {
    let (_, checks) = System::new("other").with_overlay().with_driver("uio_pdrv_genirq").validate();
    failed(&checks, "driver", "driver uio_pdrv_genirq bound instead");
}

#[test]
fn validate_without_misc_device() {
    let (_, checks) = System::new("nomisc").with_overlay().with_driver("mydrv").validate();
    failed(&checks, "driver", "still at work");
}

#[test]
fn validate_without_device_node() {
    let (_, checks) = System::new("nonode")
        .with_overlay()
        .with_driver("mydrv")
        .with_misc_device()
        .validate();
    failed(&checks, "node", "/dev/mydrv0");
}

#[test]
fn validate_with_a_file_in_the_device_nodes_place() {
    let system = System::new("wrongnode")
        .with_overlay()
        .with_driver("mydrv")
        .with_misc_device();
    system.put("dev/mydrv0", b"");
    let (_, checks) = system.validate();
    failed(&checks, "node", "wrong device: ");
    assert!(
        check(&checks, "node")["found"]
            .as_str()
            .unwrap()
            .ends_with("is no character device 10:120")
    );
}

#[test]
fn validate_of_a_device_that_is_not_described_is_3() {
    let system = System::new("choice").with_overlay();
    let output = mydrvctl(&system.0, &["validate", "--wait", "0", "--device", "display"]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(stderr(&output).contains("label \"display\""), "{}", stderr(&output));
    let output = mydrvctl(&system.0, &["validate", "--wait", "0", "--device", "camera"]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
}

#[test]
fn validate_with_a_broken_region() {
    let system = System::new("region").with_overlay();
    system.put(
        "sys/firmware/devicetree/base/mydrv-buffer/memory-region",
        &9_u32.to_be_bytes(),
    );
    let (_, checks) = system.validate();
    assert_eq!(check(&checks, "region")["verdict"], "fail");
    assert_eq!(
        check(&checks, "region")["found"],
        "memory-region's phandle 0x9 is no node of /reserved-memory"
    );
}

#[test]
fn the_boot_writes_its_report_and_says_only_what_failed() {
    let system = System::new("boot").with_overlay();
    let output = mydrvctl(&system.0, &["validate", "--boot", "--wait", "0"]);
    assert_eq!(code(&output), 1);
    assert_eq!(String::from_utf8(output.stdout.clone()).unwrap().lines().count(), 1);
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&fs::read(system.0.join("run/mydrv/validate.json")).unwrap()).unwrap();
    assert_eq!(
        (report["schema"].as_u64(), report["mode"].as_str(), report["verdict"].as_str()),
        (Some(1), Some("boot"), Some("fail"))
    );
    assert_eq!(report["devices"], 1);
    let checks = report["checks"].as_array().unwrap();
    let count = |verdict: &str| checks.iter().filter(|check| check["verdict"] == verdict).count() as u64;
    for (sum, verdict) in [
        ("passed", "pass"),
        ("failed", "fail"),
        ("skipped", "skip"),
        ("not_applicable", "n/a"),
    ] {
        assert_eq!(report[sum].as_u64(), Some(count(verdict)), "{sum}");
    }
    for (index, check) in checks.iter().enumerate() {
        assert_eq!(check["number"].as_u64(), Some(index as u64 + 1));
        let filled = |key: &str| check[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(filled("id") && filled("title") && filled("expected"), "{check}");
        match check["verdict"].as_str().unwrap() {
            "pass" => assert!(
                filled("found") && check["reason"].is_null() && check["remedy"].is_null(),
                "{check}"
            ),
            "fail" => assert!(filled("found") && check["reason"].is_null() && filled("remedy"), "{check}"),
            "skip" | "n/a" => assert!(
                check["found"].is_null() && filled("reason") && check["remedy"].is_null(),
                "{check}"
            ),
            other => panic!("{other}"),
        }
    }
    assert_eq!(
        fs::read_dir(system.0.join("run/mydrv")).unwrap().count(),
        1,
        "the partial file is gone"
    );
}

#[test]
fn a_refused_device_is_not_waited_for() {
    let system = System::new("refused").with_overlay().with_driver("mydrv");
    fs::remove_file(system.0.join("sys/devices/platform/mydrv-buffer/driver")).unwrap();
    system.put("sys/module/mydrv/initstate", b"live\n");
    // Longer than any run of the tests.
    let output = mydrvctl(&system.0, &["--json", "validate", "--wait", "86400"]);
    failed(
        json(&output)["checks"].as_array().unwrap(),
        "driver",
        "probe failed or is deferred",
    );
}

#[test]
fn a_report_that_cannot_be_written_is_told_and_nothing_else_is_lost() {
    let system = System::new("noreport");
    fs::remove_dir(system.0.join("run/mydrv")).unwrap();
    let arguments = [
        "--json",
        "validate",
        "--boot",
        "--wait",
        "0",
        "--report",
        "/nonexistent/report.json",
    ];
    let output = mydrvctl(&system.0, &arguments);
    assert_eq!(code(&output), 1);
    for path in ["/nonexistent/report.json", "run/mydrv/validate.json"] {
        assert!(stderr(&output).contains(path), "{}", stderr(&output));
    }
    assert_eq!(json(&output)["verdict"], "fail");
    let output = mydrvctl(&system.0, &["validate", "--wait", "0", "--report", "/dev/full"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("/dev/full"), "{}", stderr(&output));
    assert!(String::from_utf8(output.stdout).unwrap().contains("validation FAILED"));
    assert!(!Path::new("/dev/full.new").exists());
}

#[test]
fn the_journal_gets_its_priority_and_others_do_not() {
    let system = System::new("journal");
    let path = system.0.join("stderr");
    let said = |stream: &dyn Fn(&fs::Metadata) -> String| {
        let file = fs::File::create(&path).unwrap();
        command(&system.0, &["validate", "--wait", "0"])
            .env("JOURNAL_STREAM", stream(&file.metadata().unwrap()))
            .stderr(file)
            .output()
            .unwrap();
        fs::read_to_string(&path).unwrap()
    };
    let journal = said(&|file| format!("{}:{}", file.dev(), file.ino()));
    assert!(journal.starts_with("<3>mydrv-validate: FAIL 1 device-tree"), "{journal}");
    let inherited = said(&|file| format!("{}:{}", file.dev(), file.ino() + 1));
    assert!(inherited.starts_with("mydrv-validate: FAIL 1 device-tree"), "{inherited}");
}

/// A system that booted slot B, with a `rauc` that says this; it gets the environment that finds that program.
fn with_slots(name: &str, rauc: &str) -> System {
    let system = System::new(name);
    system
        .put("proc/cmdline", b"root=PARTLABEL=rootfs-B rauc.slot=B panic=5\n")
        .put("etc/os-release", b"IMAGE_ID=mydrv\nIMAGE_VERSION=1.1.0\n")
        .put("bin/rauc", format!("#!/bin/sh\n{rauc}\n").as_bytes());
    fs::set_permissions(system.0.join("bin/rauc"), fs::Permissions::from_mode(0o755)).unwrap();
    system
}

fn status(system: &System, arguments: &[&str]) -> Output {
    let path = format!("{}:{}", system.0.join("bin").display(), std::env::var("PATH").unwrap());
    Command::new(program())
        .arg("--root")
        .arg(&system.0)
        .args(arguments)
        .arg("status")
        .env("PATH", path)
        .output()
        .unwrap()
}

const RAUC: &str = r#"echo '{"compatible":"mydrv","booted":"B","boot_primary":"rootfs.1","slots":[
{"rootfs.1":{"class":"rootfs","bootname":"B","state":"booted","boot_status":"good","slot_status":{"bundle":{"version":"1.1.0"},"installed":{"timestamp":"2026-01-02T03:04:05Z"}}}},
{"rootfs.0":{"class":"rootfs","bootname":"A","state":"inactive","boot_status":"bad","slot_status":{}}}]}'"#;

#[test]
fn status_outside_of_slots_is_3() {
    let system = System::new("noslot");
    system.put("proc/cmdline", b"root=/dev/vda rw\n");
    let output = mydrvctl(&system.0, &["status"]);
    assert_eq!(code(&output), 3);
    assert!(stderr(&output).contains("rauc.slot="), "{}", stderr(&output));
}

#[test]
fn status_tells_the_story_of_each_slot() {
    let system = with_slots("slots", RAUC);
    system
        .put("data/mydrv/slot-B/good", b"version=1.1.0\ntime=2026-01-02T04:00:00Z\n")
        .put(
            "data/mydrv/slot-B/last",
            b"outcome=good\nversion=1.1.0\nkernel=7.3\ntime=2026-01-02T04:00:00Z\nreason=\n",
        )
        .put(
            "data/mydrv/slot-A/last",
            b"outcome=failed\nversion=1.2.0\nreason=check 1 device-tree: a = b\n",
        )
        .put(
            "data/mydrv/fallback",
            b"from=A\nto=B\nversion=1.2.0\ntime=2026-01-02T05:00:00Z\nreason=check 1 device-tree: a = b\n",
        )
        .put(
            "run/mydrv/validate.json",
            br#"{"schema":1,"verdict":"pass","passed":40,"failed":0,"skipped":3,"checks":[]}"#,
        );
    let output = status(&system, &["--json"]);
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    let value = json(&output);
    assert_eq!(
        (&value["slot"], &value["state"], &value["version"]),
        (&"B".into(), &"good".into(), &"1.1.0".into())
    );
    assert_eq!(value["validation"]["verdict"], "pass");
    assert_eq!(value["fallback"]["reason"], "check 1 device-tree: a = b");
    let slots = value["slots"].as_array().unwrap();
    assert_eq!(
        (&slots[0]["name"], &slots[0]["state"], &slots[0]["bootable"]),
        (&"A".into(), &"trial".into(), &false.into())
    );
    assert_eq!(
        (&slots[0]["version"], &slots[0]["last_boot"]["outcome"]),
        (&"1.2.0".into(), &"failed".into())
    );
    assert_eq!(
        (&slots[1]["booted"], &slots[1]["installed"]),
        (&true.into(), &"2026-01-02T03:04:05Z".into())
    );

    let text = String::from_utf8(status(&system, &[]).stdout).unwrap();
    for line in [
        "system      version 1.1.0, slot B, good",
        "validation  passed: 40 checks passed, 0 failed, 3 skipped",
        "slot A      trial, given up by the boot loader, version 1.2.0, last boot failed: check 1 device-tree: a = b",
        "fallback    from slot A, version 1.2.0 to slot B, 2026-01-02T05:00:00Z: check 1 device-tree: a = b",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn status_of_a_boot_on_trial() {
    let system = with_slots("trial", RAUC);
    system.put("data/mydrv/slot-B/last", b"outcome=started\nversion=1.1.0\n");
    let value = json(&status(&system, &["--json"]));
    assert_eq!(
        (&value["state"], &value["validation"], &value["fallback"]),
        (&"trial".into(), &Value::Null, &Value::Null)
    );
    assert_eq!(value["slots"][0]["state"], "empty");
    system
        .put(
            "data/mydrv/slot-B/last",
            b"outcome=in-use\nversion=1.1.0\nreason=not validated: a buffer is in use\n",
        )
        .put(
            "run/mydrv/validate.json",
            br#"{"verdict":"in-use","passed":5,"failed":0,"skipped":9,"checks":[{"id":"abi","verdict":"in-use"}]}"#,
        );
    let text = String::from_utf8(status(&system, &[]).stdout).unwrap();
    for line in [
        "validation  put off, a device is in use: 5 checks passed, 0 failed, 9 skipped",
        "slot B      trial, booted, version 1.1.0, installed 2026-01-02T03:04:05Z, last boot in-use: not validated: a buffer is in use",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn status_survives_a_rauc_that_does_not() {
    for (name, rauc) in [("broken", "echo no bus >&2; exit 1"), ("garbage", "echo not JSON")] {
        let system = with_slots(name, rauc);
        system.put("data/mydrv/slot-B/good", b"version=1.1.0\n");
        let output = status(&system, &["--json"]);
        assert_eq!(code(&output), 0);
        assert!(stderr(&output).contains("rauc status: "), "{}", stderr(&output));
        let value = json(&output);
        assert_eq!(
            (&value["state"], &value["slots"][0]["bootable"]),
            (&"good".into(), &Value::Null)
        );
    }
}
