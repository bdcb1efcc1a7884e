// SPDX-License-Identifier: MIT

//! What the buffer holds afterwards: `validate`, `bench` and their ends half way, on the crate's stand-in for the driver.

mod system;

use std::{
    fs,
    io::Read,
    os::unix::fs::FileExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use mydrv::{
    abi::{MYDRV_CACHE_CACHED, MYDRV_FLAG_ADDRESSES, MYDRV_FLAG_RESERVED},
    stand_in::StandIn,
};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use system::{System, check, code, command, json, mydrvctl, stderr};

/// Long enough to be met half way, and no multiple of what goes between two questions for a signal.
const BYTES: u64 = (2 << 20) + 4096 * 3;

/// A system with one buffer, "camera", that holds what no pattern does. Others come after it.
struct Filled {
    system: System,
    node: PathBuf,
    held: Vec<u8>,
}

impl Filled {
    fn new(name: &str, adjust: impl FnOnce(&mut StandIn)) -> Self {
        let system = System::new(name);
        system
            .put("etc/group", b"mydrv:x:0:\n")
            .node("mydrv-buffer", "camera", 7, BYTES)
            .platform_device("mydrv-buffer", "mydrv")
            .misc_device("mydrv-buffer", 0);
        let mut stand_in = StandIn::new(BYTES).label("camera");
        adjust(&mut stand_in);
        let node = stand_in.install(&system.0.join("dev"), 0).unwrap();
        let mut state = 1_u64;
        let held: Vec<u8> = (0..BYTES)
            .map(|_| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        // Beyond the end there is a page more, by which the stand-in tells the buffer's end from the file's.
        let mut file = held.clone();
        file.resize(fs::metadata(&node).unwrap().len() as usize, 0);
        fs::write(&node, file).unwrap();
        // As if a program had filled it.
        fs::write(format!("{}.written", node.display()), "").unwrap();
        Self { system, node, held }
    }

    fn is_as_before(&self) -> bool {
        fs::read(&self.node).unwrap()[..BYTES as usize] == self.held
    }

    fn calls(&self) -> Vec<String> {
        StandIn::calls(&self.node).unwrap_or_default()
    }

    fn validate(&self, arguments: &[&str]) -> (Output, Value) {
        let output = mydrvctl(&self.system.0, &[&["--json", "validate", "--wait", "0"], arguments].concat());
        let report = json(&output);
        (output, report)
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let program = command(&self.system.0, arguments);
        // Whatever the test's own caller has it ignore, which the program would respect.
        let mut command = Command::new("env");
        command
            .arg("--default-signal=HUP,INT,TERM")
            .arg(program.get_program())
            .args(program.get_args());
        program.get_envs().for_each(|(name, _)| {
            command.env_remove(name);
        });
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Waits until the program has all of the buffer under test: when a line is changed that only March C- and checkerboard reach.
    fn until_changed(&self) {
        const LINE: usize = 0x10_3140;
        let file = fs::File::open(&self.node).unwrap();
        let mut now = [0; 64];
        loop {
            file.read_exact_at(&mut now, LINE as u64).unwrap();
            if now != self.held[LINE..LINE + 64] {
                return;
            }
            thread::sleep(Duration::from_micros(100));
        }
    }
}

fn send(child: &Child, signal: Signal) {
    rustix::process::kill_process(Pid::from_child(child), signal).unwrap();
}

/// The bytes of a buffer are no text.
#[test]
fn reading_to_a_terminal_is_refused_unless_it_is_asked_for() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let filled = Filled::new("terminal", |_| {});
    let read = |arguments: &[&str]| {
        let pty = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&pty).unwrap();
        unlockpt(&pty).unwrap();
        let name = ptsname(&pty, Vec::new()).unwrap();
        let terminal = fs::File::options().write(true).open(name.to_str().unwrap()).unwrap();
        let arguments = [&["--device", "camera", "read", "--length", "4"], arguments].concat();
        let child = command(&filled.system.0, &arguments)
            .stdout(terminal)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.wait_with_output().unwrap();
        drop(pty);
        output
    };
    let output = read(&[]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("--output -"), "{}", stderr(&output));
    assert_eq!(code(&read(&["--output", "-"])), 0);
}

#[test]
fn a_locked_device_is_6() {
    let filled = Filled::new("locked", |_| {});
    let holder = fs::File::open(&filled.node).unwrap();
    holder.lock().unwrap();
    let output = mydrvctl(&filled.system.0, &["dump", "--device", "camera"]);
    assert_eq!(code(&output), 6, "{}", stderr(&output));
    assert!(stderr(&output).contains("in use"), "{}", stderr(&output));
}

#[test]
fn a_signal_in_the_middle_of_a_test_ends_it_with_the_contents_back() {
    for (at, signal) in [Signal::TERM, Signal::INT, Signal::HUP, Signal::TERM].into_iter().enumerate() {
        let filled = Filled::new(&format!("stopped-{at}"), |_| {});
        let report = filled.system.0.join("report.json");
        fs::write(&report, "{\"verdict\": \"pass\"}").unwrap();
        let path = report.display().to_string();
        let arguments = ["--json", "validate", "--wait", "0", "--repeat", "1000000", "--report", &path];
        let child = filled.start(&arguments);
        filled.until_changed();
        // An old report would be taken for this one's if nothing came any more.
        assert!(!report.exists());
        thread::sleep(Duration::from_millis(7 * at as u64));
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 128 + signal.as_raw(), "{}", stderr(&output));
        assert!(filled.is_as_before(), "{signal:?}");
        let told = json(&output);
        assert_eq!(
            (&told["verdict"], &told["memory"][0]["interrupted"]),
            (&"interrupted".into(), &true.into())
        );
        let saved: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
        assert_eq!(saved["verdict"], "interrupted");
    }
}

#[test]
fn a_signal_that_the_caller_ignores_stays_ignored() {
    let filled = Filled::new("nohup", |_| {});
    let mut command = Command::new("nohup");
    command.arg(system::program()).arg("--root").arg(&filled.system.0);
    command
        .args(["--json", "validate", "--wait", "0", "--repeat", "4"])
        .stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    filled.until_changed();
    send(&child, Signal::HUP);
    let output = child.wait_with_output().unwrap();
    assert_eq!(json(&output)["memory"][0]["repeats"], 4);
    assert!(filled.is_as_before());
}

#[test]
fn bench_ends_by_a_signal_with_the_contents_as_they_were() {
    let filled = Filled::new("bench", |stand_in| {
        (stand_in.cache_mode, stand_in.flags) = (MYDRV_CACHE_CACHED, MYDRV_FLAG_RESERVED);
    });
    let node = filled.node.display().to_string();
    let mut child = filled.start(&["--device", &node, "bench", "--rounds", "1000000"]);
    while !filled.calls().iter().any(|call| call.starts_with("write")) {
        thread::sleep(Duration::from_millis(1));
    }
    send(&child, Signal::TERM);
    let status = child.wait().unwrap();
    let mut words = String::new();
    child.stderr.unwrap().read_to_string(&mut words).unwrap();
    assert_eq!(status.code(), Some(128 + Signal::TERM.as_raw()), "{words}");
    assert!(words.contains("holds what it held before"), "{words}");
    assert!(filled.is_as_before());
    // Nothing that the processor wrote is left for a device to stumble over.
    let calls = filled.calls();
    assert_eq!(calls.last().unwrap(), &format!("sync 0x0 {BYTES:#x} to-device"));
}

#[test]
fn a_device_that_goes_in_the_middle_of_a_test_is_not_bad_memory() {
    let filled = Filled::new("gone", |_| {});
    let child = filled.start(&["--json", "validate", "--wait", "0", "--repeat", "1000000"]);
    filled.until_changed();
    fs::File::options()
        .write(true)
        .open(&filled.node)
        .unwrap()
        .set_len(0)
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let report = json(&output);
    let march = check(report["checks"].as_array().unwrap(), "march-c-minus");
    assert_eq!(march["verdict"], "fail");
    assert!(march["found"].as_str().unwrap().contains("the device is gone"), "{march}");
}

#[test]
fn what_is_kept_is_never_opened_for_writing() {
    let filled = Filled::new("keep", |_| {});
    for arguments in [&["--keep", "camera"][..], &["--keep", "camera", "--full", "--quick"]] {
        let (output, report) = filled.validate(arguments);
        assert_eq!(code(&output), 0, "{report}");
        let checks = report["checks"].as_array().unwrap();
        for id in ["open-write", "march-c-minus", "checkerboard", "two-processes", "read-write"] {
            let check = check(checks, id);
            assert_eq!(
                (&check["verdict"], &check["reason"]),
                (&"n/a".into(), &"--keep: nothing is written to this buffer".into())
            );
        }
        for id in ["keep", "readable", "size", "mapping-flags", "physical-range"] {
            assert_eq!(check(checks, id)["verdict"], "pass", "{id}");
        }
        assert_eq!(report["memory"].as_array().unwrap().len(), 0);
        assert!(
            filled.is_as_before() && !filled.calls().iter().any(|call| call == "open"),
            "{:?}",
            filled.calls()
        );
    }
    let output = mydrvctl(&filled.system.0, &["validate", "--keep", ""]);
    assert!(code(&output) == 2 && filled.is_as_before(), "{output:?}");
    // A slip of the pen must not cost the contents that it was to save.
    let (output, report) = filled.validate(&["--keep", "camrea"]);
    assert_eq!(code(&output), 1);
    let check = check(report["checks"].as_array().unwrap(), "keep");
    assert!(
        check["found"].as_str().unwrap().contains("no buffer camrea, but camera"),
        "{check}"
    );
    assert!(
        filled.is_as_before() && !filled.calls().iter().any(|call| call == "open"),
        "{:?}",
        filled.calls()
    );
}

#[test]
fn the_report_says_how_much_was_tested_and_how() {
    let filled = Filled::new("told", |_| {});
    let (output, report) = filled.validate(&["--repeat", "2", "--retention", "0.01", "--seed", "5"]);
    assert_eq!(code(&output), 0, "{report}");
    let memory = &report["memory"][0];
    let algorithms = ["address-lines", "data-lines", "march-c-minus", "checkerboard", "retention"];
    assert_eq!(memory["algorithms"].as_array().unwrap(), &algorithms.map(Value::from));
    assert_eq!((&memory["bytes"], &memory["tested_bytes"]), (&BYTES.into(), &BYTES.into()));
    assert_eq!((&memory["coverage_percent"], &memory["repeats"]), (&100.0.into(), &2.into()));
    assert_eq!(
        (&memory["word_bits"], &memory["seed"], &memory["zeros"]),
        (&512.into(), &5.into(), &false.into())
    );
    let flushes = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
    let lines = BYTES / 64;
    // Each element of each repetition that writes, in whole.
    assert_eq!(
        flushes,
        memory["flushed_lines"].as_u64().unwrap() >= 2 * 9 * lines,
        "{memory}"
    );
    assert!(filled.is_as_before());

    for arguments in [&["--quick"][..], &["--time-budget", "0"]] {
        let (output, report) = filled.validate(arguments);
        assert_eq!(code(&output), 0, "{report}");
        let percent = report["memory"][0]["coverage_percent"].as_f64().unwrap();
        assert!(percent > 0.0 && percent < 7.0, "{percent}");
        let march = check(report["checks"].as_array().unwrap(), "march-c-minus");
        assert!(march["found"].as_str().unwrap().contains("a sample of"), "{march}");
        assert!(filled.is_as_before());
    }
}

#[test]
fn pages_that_are_one_and_the_same_fail_and_the_others_survive() {
    let filled = Filled::new("alias", |stand_in| stand_in.aliases.push((1 << 20, 2 << 20)));
    let (output, report) = filled.validate(&[]);
    assert_eq!(code(&output), 1);
    let march = check(report["checks"].as_array().unwrap(), "march-c-minus");
    assert_eq!(march["verdict"], "fail", "{march}");
    let now = fs::read(&filled.node).unwrap();
    let page = 4096;
    let aliased = [1 << 20, 2 << 20];
    for at in (0..BYTES as usize).step_by(page).filter(|at| !aliased.contains(at)) {
        assert!(now[at..at + page] == filled.held[at..at + page], "{at:#x}");
    }
}

#[test]
fn what_is_put_back_is_handed_to_the_device() {
    let filled = Filled::new("cached", |stand_in| {
        (stand_in.cache_mode, stand_in.flags) = (MYDRV_CACHE_CACHED, MYDRV_FLAG_RESERVED | MYDRV_FLAG_ADDRESSES);
    });
    filled.system.property("mydrv-buffer/mydrv,cache-mode", b"cached\0");
    let (output, report) = filled.validate(&[]);
    assert_eq!(code(&output), 0, "{report}");
    assert!(filled.is_as_before());
    let calls = filled.calls();
    let whole = format!("sync 0x0 {BYTES:#x} to-device");
    // After the test of the memory; and the pages that the checks of who sees it put back, after that.
    let after = calls.iter().position(|call| *call == whole).unwrap();
    for page in [
        "sync 0x0 0x1000 to-device".to_owned(),
        format!("sync {:#x} 0x1000 to-device", BYTES - 4096),
    ] {
        assert!(calls[after..].contains(&page), "{page}: {calls:?}");
    }
}
