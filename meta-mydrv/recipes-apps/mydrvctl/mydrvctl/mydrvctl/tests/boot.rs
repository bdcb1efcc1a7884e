// SPDX-License-Identifier: MIT

//! The boot's validation from outside: one process for each device, and one that sums up. A folder stands in for the system, files for the devices.
#![cfg(feature = "stand-in")]

use std::{
    env, fs,
    os::unix::fs::{MetadataExt, chown, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use mydrv::stand_in::{Call, Effect, StandIn};
use rustix::fs::FlockOperation;
use serde_json::Value;

const SIZE: u64 = 256 << 10;

/// A system in a folder, gone when dropped: a buffer for each label.
struct System(PathBuf);

impl System {
    fn new(name: &str, labels: &[&str]) -> Self {
        let root = env::temp_dir().join(format!("mydrvctl-boot-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("run/mydrv")).unwrap();
        let system = Self(fs::canonicalize(root).unwrap());
        symlink("/proc", system.0.join("proc")).unwrap();
        system.put("etc/group", b"root:x:0:\nmydrv:x:4711:\n");
        system.put("sys/firmware/devicetree/base/model", b"folder\0");
        for (index, label) in labels.iter().enumerate() {
            let node = format!("sys/firmware/devicetree/base/{label}");
            system.put(&format!("{node}/compatible"), b"mydrv,dma-buffer\0");
            system.put(&format!("{node}/label"), format!("{label}\0").as_bytes());
            system.put(&format!("{node}/size"), &SIZE.to_be_bytes());
            let device = format!("sys/devices/platform/{label}");
            system.link(&format!("{device}/of_node"), &node);
            system.link(&format!("sys/bus/platform/devices/{label}"), &device);
            system.put("sys/bus/platform/drivers/mydrv/uevent", b"");
            system.link(&format!("{device}/driver"), "sys/bus/platform/drivers/mydrv");
            system.put(
                &format!("sys/class/misc/mydrv{index}/dev"),
                format!("10:{}\n", 120 + index).as_bytes(),
            );
            system.link(&format!("sys/class/misc/mydrv{index}/device"), &device);
            system
                .device(index as u32, label)
                .install(&system.0.join("dev"), index as u32)
                .unwrap();
        }
        system
    }

    fn device(&self, index: u32, label: &str) -> StandIn {
        let mut device = StandIn::new(SIZE).label(label);
        device.flags &= !mydrv::abi::MYDRV_FLAG_RESERVED;
        (device.region_base, device.region_size_bytes) = (0, 0);
        // Apart from each other.
        device.physical_address += u64::from(index) * SIZE;
        device.dma_address = device.physical_address;
        device.node.gid = 4711;
        device.node.number = Some((10, 120 + index));
        device
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(self.0.join(target), path).unwrap();
    }

    fn node(&self, index: u32) -> PathBuf {
        self.0.join(format!("dev/mydrv{index}"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // By a path that is not compiled in: the tests also run elsewhere than where they were built.
        let program =
            env::var_os("MYDRVCTL").map_or_else(|| env::current_exe().unwrap().with_file_name("../mydrvctl"), PathBuf::from);
        let mut command = Command::new(program);
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MYDRV_")) {
            command.env_remove(name);
        }
        command
            .arg("--root")
            .arg(&self.0)
            .args(arguments)
            .env_remove("JOURNAL_STREAM")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        command
    }

    /// The validation of one device, as its unit has it.
    fn validate(&self, index: u32, wait: &str) -> Output {
        let device = self.node(index).display().to_string();
        self.command(&["--device", &device, "validate", "--boot", "--wait", wait])
            .output()
            .unwrap()
    }

    /// The one that sums up.
    fn sum(&self, wait: &str) -> Output {
        self.command(&["validate", "--boot", "--wait", wait]).output().unwrap()
    }

    fn start_sum(&self, wait: &str) -> Child {
        let mut command = self.command(&["validate", "--boot", "--wait", wait]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn report(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.0.join("run/mydrv").join(name)).unwrap()).unwrap()
    }

    fn exists(&self, name: &str) -> bool {
        self.0.join("run/mydrv").join(name).exists()
    }

    fn opens(&self, index: u32) -> usize {
        StandIn::calls(&self.node(index))
            .unwrap()
            .iter()
            .filter(|call| *call == "open")
            .count()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

fn checks<'a>(report: &'a Value, verdict: &'a str) -> impl Iterator<Item = &'a Value> {
    report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(move |check| check["verdict"] == verdict)
}

fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(5));
    }
}

fn lock(path: &Path) -> fs::File {
    let file = fs::File::options().read(true).append(true).create(true).open(path).unwrap();
    rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
    file
}

#[test]
fn the_sum_is_what_the_devices_own_validations_found() {
    let system = System::new("sum", &["camera", "video"]);
    // Of the group mydrv, where the test may say so.
    let _ = chown(system.0.join("run/mydrv"), None, Some(4711));
    for index in [0, 1] {
        let device = system.node(index).display().to_string();
        let mut command = system.command(&["--device", &device, "validate", "--boot"]);
        let output = command.env("MYDRV_EXPECT", "camera video=256K").output().unwrap();
        assert_eq!(code(&output), 0, "{output:?}");
    }
    let opens = system.opens(0);
    let output = system
        .command(&["validate", "--boot"])
        .env("MYDRV_EXPECT", "camera video=256K")
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(system.opens(0), opens, "the memory was tested again");
    let (one, sum) = (system.report("mydrv1.json"), system.report("validate.json"));
    for name in ["mydrv1.json", "validate.json"] {
        let report = fs::metadata(system.0.join("run/mydrv").join(name)).unwrap();
        let folder = fs::metadata(system.0.join("run/mydrv")).unwrap();
        assert_eq!((report.mode() & 0o777, report.gid()), (0o640, folder.gid()), "{name}");
    }
    assert_eq!(
        (&sum["verdict"], &sum["devices"], &sum["failed"]),
        (&"pass".into(), &2.into(), &0.into()),
        "{sum}"
    );
    assert_eq!((&one["verdict"], &one["devices"]), (&"pass".into(), &1.into()), "{one}");
    assert_eq!(sum["memory"].as_array().unwrap().len(), 2, "{sum}");
    assert_eq!(sum["memory"][1], one["memory"][0]);
    // Each check once, numbered from 1 on.
    let all = sum["checks"].as_array().unwrap();
    let mut names: Vec<_> = all
        .iter()
        .map(|check| ["device", "id", "expected"].map(|key| check[key].to_string()))
        .collect();
    assert!((1..).zip(all).all(|(number, check)| check["number"] == number));
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all.len(), "{sum}");
    for check in one["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["device"] == *system.node(1).to_str().unwrap())
    {
        let same = |other: &&Value| other["id"] == check["id"] && other["device"] == check["device"];
        let taken = all.iter().find(same).unwrap_or_else(|| panic!("{check}"));
        assert_eq!((&taken["verdict"], &taken["found"]), (&check["verdict"], &check["found"]));
    }
}

#[test]
fn the_sum_looks_at_what_it_expects_itself() {
    let system = System::new("expects", &["camera"]);
    assert_eq!(code(&system.validate(0, "0")), 0);
    for (expected, id) in [("camera=1M", "size"), ("camera video", "expect"), ("video", "unexpected")] {
        let output = system
            .command(&["validate", "--boot"])
            .env("MYDRV_EXPECT", expected)
            .output()
            .unwrap();
        assert_eq!(code(&output), 1, "{expected}: {output:?}");
        let sum = system.report("validate.json");
        assert!(checks(&sum, "fail").any(|check| check["id"] == id), "{expected}: {sum}");
    }
}

#[test]
fn the_sum_requires_what_it_is_told_to_itself() {
    let system = System::new("requires", &["camera"]);
    assert_eq!(code(&system.validate(0, "0")), 0);
    let passed = system.report("mydrv0.json");
    let sum = |report: &Value, requires: &str, expects: &str| {
        system.put("run/mydrv/mydrv0.json", report.to_string().as_bytes());
        let mut command = system.command(&["validate", "--boot", "--wait", "0"]);
        let output = command
            .env("MYDRV_REQUIRE", requires)
            .env("MYDRV_EXPECT", expects)
            .output()
            .unwrap();
        let sum = system.report("validate.json");
        let failed: Vec<_> = checks(&sum, "fail").map(|check| check["id"].to_string()).collect();
        assert_eq!(code(&output), i32::from(!failed.is_empty()), "{output:?}");
        failed.join(" ")
    };
    assert_eq!(sum(&passed, "boot", "camera=256K"), "");
    // As a validation that was told to require less leaves it.
    let mut skipped = passed.clone();
    let all = skipped["checks"].as_array_mut().unwrap();
    let check = all.iter_mut().find(|check| check["id"] == "physical-range").unwrap();
    check["verdict"] = "skip".into();
    check["reason"] = "a".into();
    skipped["buffers"][0]["physical_address"] = Value::Null;
    assert_eq!(sum(&skipped, "size", "camera=256K"), "");
    assert_eq!(sum(&skipped, "boot", "camera=256K"), "\"physical-range\"");
    assert_eq!(sum(&skipped, "size", "camera=1M"), "\"size\"");
    // Nothing tells the size.
    skipped["buffers"] = Value::Array(Vec::new());
    assert_eq!(sum(&skipped, "size", "camera"), "");
    assert_eq!(sum(&skipped, "size", "camera=256K"), "\"size\"");
    // A check that this program does not have.
    let mut other = passed;
    other["checks"][3]["id"] = "of-another-version".into();
    assert_eq!(sum(&other, "size", "camera"), "\"device-report\"");
}

#[test]
fn nothing_is_written_through_a_link_beside_the_reports() {
    let system = System::new("links", &["camera"]);
    system.put("kept", b"kept");
    for name in ["mydrv0.lock", "mydrv0.json.new"] {
        system.link(&format!("run/mydrv/{name}"), "kept");
    }
    let output = system.validate(0, "0");
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("mydrv0.lock"), "{output:?}");
    assert_eq!(fs::read(system.0.join("kept")).unwrap(), b"kept");
    assert!(system.exists("mydrv0.json"));
}

#[test]
fn a_failure_of_a_device_is_one_of_the_boot() {
    let system = System::new("failure", &["camera", "video"]);
    let mut wrong = system.device(1, "video");
    wrong.size_bytes = SIZE - 4096;
    wrong.describe(&system.node(1)).unwrap();
    assert_eq!(code(&system.validate(0, "0")), 0);
    assert_eq!(code(&system.validate(1, "0")), 1);
    let output = system.sum("0");
    assert_eq!(code(&output), 1);
    let sum = system.report("validate.json");
    assert_eq!(sum["verdict"], "fail");
    let failed: Vec<_> = checks(&sum, "fail").collect();
    assert_eq!(failed.len(), 1, "{sum}");
    assert_eq!(
        (&failed[0]["id"], &failed[0]["device"]),
        (&"size".into(), &system.node(1).to_str().unwrap().into())
    );
    // The journal of the boot's verdict says it, too: there it is looked for.
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("mydrv-validate: FAIL "),
        "{output:?}"
    );
}

#[test]
fn the_sum_validates_what_nobody_else_does() {
    let system = System::new("alone", &["camera", "video"]);
    assert_eq!(code(&system.validate(0, "0")), 0);
    let output = system.sum("0");
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(system.opens(1) > 0 && !system.exists("mydrv1.json"));
    // A report of another buffer that had the number before, or of a check that was broken off, is none.
    let opens = system.opens(0);
    let text = fs::read_to_string(system.0.join("run/mydrv/mydrv0.json")).unwrap();
    for (from, to) in [
        ("\"/camera\"", "\"/other\""),
        (
            "\"verdict\": \"pass\",\n  \"devices\"",
            "\"verdict\": \"interrupted\",\n  \"devices\"",
        ),
    ] {
        let changed = text.replacen(from, to, usize::MAX);
        if changed == text {
            continue;
        }
        fs::write(system.0.join("run/mydrv/mydrv0.json"), changed).unwrap();
        assert_eq!(code(&system.sum("0")), 0);
    }
    assert!(system.opens(0) > opens);
}

#[test]
fn the_sum_waits_for_a_validation_that_is_at_work() {
    let system = System::new("waits", &["camera"]);
    let report = "run/mydrv/mydrv0.json";
    assert_eq!(code(&system.validate(0, "0")), 0);
    let text = fs::read(system.0.join(report)).unwrap();
    fs::remove_file(system.0.join(report)).unwrap();
    let opens = system.opens(0);
    // Somebody is at work on the device: longer than the grace for one to begin.
    let claim = lock(&system.0.join("run/mydrv/mydrv0.lock"));
    let mut sum = system.start_sum("1");
    thread::sleep(Duration::from_millis(1500));
    assert!(sum.try_wait().unwrap().is_none());
    system.put(report, &text);
    drop(claim);
    assert!(sum.wait().unwrap().success());
    assert_eq!(system.opens(0), opens);
}

#[test]
fn an_old_report_ends_when_a_validation_begins() {
    let system = System::new("old", &["camera"]);
    assert_eq!((code(&system.validate(0, "0")), code(&system.sum("0"))), (0, 0));
    let _claim = lock(&system.0.join("run/mydrv/mydrv0.lock"));
    let device = system.node(0).display().to_string();
    let mut validate = system
        .command(&["--device", &device, "validate", "--boot", "--wait", "60"])
        .spawn()
        .unwrap();
    until(|| !system.exists("mydrv0.json"));
    let mut sum = system.start_sum("60");
    until(|| !system.exists("validate.json"));
    for child in [&mut validate, &mut sum] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_device_in_use_is_no_failure_and_no_success() {
    let system = System::new("in-use", &["camera", "video"]);
    let user = lock(&system.node(0));
    let output = system.validate(0, "1");
    assert_eq!(code(&output), 6, "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        told.contains(&format!("waiting for process {} (", std::process::id())),
        "{told}"
    );
    assert_eq!(code(&system.validate(1, "0")), 0);
    let output = system.sum("0");
    assert_eq!(code(&output), 6, "{output:?}");
    let sum = system.report("validate.json");
    assert_eq!(
        (&sum["verdict"], &sum["in_use"], &sum["failed"]),
        (&"in-use".into(), &1.into(), &0.into()),
        "{sum}"
    );
    let reason = checks(&sum, "in-use").next().unwrap()["reason"].as_str().unwrap();
    assert!(reason.contains("in use by process"), "{reason}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("FAIL"), "{output:?}");
    // Asked again once they have left, it looks for itself: the unit of the device has ended.
    drop(user);
    assert_eq!(
        (code(&system.sum("0")), &system.report("validate.json")["verdict"]),
        (0, &"pass".into())
    );
    let user = lock(&system.node(0));
    assert_eq!(code(&system.validate(0, "0")), 6);
    // What is wrong elsewhere stays wrong.
    let mut wrong = system.device(1, "video");
    wrong.label = "other".into();
    wrong.describe(&system.node(1)).unwrap();
    assert_eq!(code(&system.validate(1, "0")), 1);
    assert_eq!(
        (code(&system.sum("0")), &system.report("validate.json")["verdict"]),
        (1, &"fail".into())
    );
    drop(user);
}

#[test]
fn a_user_who_leaves_is_waited_for() {
    let system = System::new("leaves", &["camera"]);
    let user = lock(&system.node(0));
    let device = system.node(0).display().to_string();
    let mut validate = system
        .command(&["--device", &device, "validate", "--boot", "--wait", "60"])
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(validate.try_wait().unwrap().is_none());
    drop(user);
    assert!(validate.wait().unwrap().success());
}

#[test]
fn a_user_without_a_lock_is_seen_by_the_drivers_count() {
    let system = System::new("no-lock", &["camera"]);
    let mut device = system.device(0, "camera");
    device.elsewhere.0 = 1;
    device.describe(&system.node(0)).unwrap();
    assert_eq!(code(&system.validate(0, "0")), 6);
    assert_eq!(system.opens(0), 0, "nothing was written beside them");
    device.elsewhere.0 = 0;
    device.describe(&system.node(0)).unwrap();
    assert_eq!(code(&system.validate(0, "0")), 0);
}

#[test]
fn a_device_that_goes_ends_with_a_report_that_says_so() {
    for call in [Call::Map, Call::MapBeside, Call::Sync] {
        let system = System::new("goes", &["camera"]);
        let device = system.device(0, "camera").fault(call, 1, Effect::Unbind);
        device.describe(&system.node(0)).unwrap();
        let output = system.validate(0, "0");
        assert_eq!(code(&output), 1, "{call:?}: {output:?}");
        let report = system.report("mydrv0.json");
        let gone = |check: &Value| check["found"].as_str().unwrap_or_default().contains("the device is gone");
        assert!(checks(&report, "fail").any(gone), "{call:?}: {report}");
    }
}

#[test]
fn the_service_manager_is_asked_for_time_by_size() {
    let system = System::new("time", &["camera"]);
    let socket = system.0.join("notify");
    let listener = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    let mut command = system.command(&["validate", "--boot", "--wait", "7"]);
    assert!(command.env("NOTIFY_SOCKET", &socket).output().unwrap().status.success());
    let mut message = [0; 256];
    let count = listener.recv(&mut message).unwrap();
    // The wait, a minute for one GiB begun, twice, and a minute.
    assert_eq!(
        std::str::from_utf8(&message[..count]).unwrap(),
        "EXTEND_TIMEOUT_USEC=187000000"
    );
}

#[test]
fn without_a_place_for_reports_the_check_is_made_all_the_same() {
    let system = System::new("no-run", &["camera"]);
    fs::remove_dir_all(system.0.join("run/mydrv")).unwrap();
    let output = system.validate(0, "0");
    // The report that cannot be written is what fails.
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && told.contains("mydrv0.lock") && told.contains("mydrv0.json"),
        "{output:?}"
    );
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("validation passed"),
        "{output:?}"
    );
    assert!(system.opens(0) > 0);
}

#[test]
fn an_earlier_pass_does_not_outlive_a_run_that_could_not_begin() {
    let system = System::new("stale", &["camera"]);
    let report = system.0.join("run/mydrv/validate.json");
    for (name, value) in [
        ("MYDRV_EXPECT", "camera=lots"),
        ("MYDRV_EXPECT", "camera camera"),
        ("MYDRV_REQUIRE", "no-such-check"),
        ("MYDRV_MODE", "rw"),
    ] {
        fs::write(&report, r#"{"verdict": "pass"}"#).unwrap();
        let output = system.command(&["validate", "--boot"]).env(name, value).output().unwrap();
        assert_eq!(code(&output), 2, "{name}={value}: {output:?}");
        assert!(!report.exists(), "{name}={value}");
    }
}

/// Anybody could hold up the validation by a lock on a file that they can open.
#[test]
fn the_lock_of_a_validation_is_out_of_others_reach() {
    use std::os::unix::fs::PermissionsExt;
    let system = System::new("reach", &["camera"]);
    assert_eq!(code(&system.validate(0, "0")), 0);
    for file in ["mydrv0.lock", "mydrv0.json"] {
        let mode = fs::metadata(system.0.join("run/mydrv").join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640, "{file}");
    }
}

#[test]
fn settings_from_outside() {
    let system = System::new("settings", &["camera"]);
    let with = |name: &str, value: &str| system.command(&["validate"]).env(name, value).output().unwrap();
    let told = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    // Malformed: told, and the boot's own wait is taken, which the device needs none of.
    assert_eq!(code(&system.validate(0, "0")), 0);
    let output = system
        .command(&["validate", "--boot"])
        .env("MYDRV_WAIT", "60s")
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(told(&output).starts_with("mydrvctl: warning: MYDRV_WAIT=60s: "), "{output:?}");
    let output = with("MYDRV_TIME_BUDGET", "soon");
    assert!(
        code(&output) == 0 && told(&output).contains("MYDRV_TIME_BUDGET=soon: "),
        "{output:?}"
    );
    let output = with("MYDRV_WIAT", "60");
    assert!(
        code(&output) == 0 && told(&output).contains("did you mean MYDRV_WAIT?"),
        "{output:?}"
    );
    // What would weaken the check is refused.
    for (name, value) in [
        ("MYDRV_EXPECT", "camera=lots"),
        ("MYDRV_MODE", "rw"),
        ("MYDRV_DEVICE", "video"),
    ] {
        let output = with(name, value);

        assert!(
            !output.status.success() && !told(&output).is_empty(),
            "{name}={value}: {output:?}"
        );
    }
    let output = with("MYDRV_KEEP", "camera video");
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(told(&output).contains("video"), "{output:?}");
    // Good ones count.
    for (name, value, expected) in [
        ("MYDRV_GROUP", "mydrv", 0),
        ("MYDRV_GROUP", "root", 1),
        ("MYDRV_GROUP", "nobody-has-it", 1),
        ("MYDRV_MODE", "660", 0),
        ("MYDRV_MODE", "0600", 1),
        ("MYDRV_EXPECT", "camera=256K", 0),
        ("MYDRV_EXPECT", "camera=1M", 1),
        ("MYDRV_KEEP", "camera", 0),
        ("MYDRV_KEEP", " camera  ", 0),
    ] {
        let output = system
            .command(&["validate", "--wait", "0"])
            .env(name, value)
            .output()
            .unwrap();
        assert_eq!(code(&output), expected, "{name}={value}: {output:?}");
    }
    for name in [
        "MYDRV_DEVICE",
        "MYDRV_EXPECT",
        "MYDRV_REQUIRE",
        "MYDRV_KEEP",
        "MYDRV_GROUP",
        "MYDRV_MODE",
        "MYDRV_WAIT",
        "MYDRV_TIME_BUDGET",
    ] {
        let output = with(name, "");
        assert!(code(&output) == 0 && told(&output).is_empty(), "{name}: {output:?}");
    }
    // The command line prevails, and says so by not asking.
    let output = system
        .command(&["validate", "--group", "mydrv"])
        .env("MYDRV_GROUP", "root")
        .output()
        .unwrap();
    assert_eq!(code(&output), 0);
    // Nothing of this is other commands'.
    let output = system
        .command(&["list"])
        .env("MYDRV_MODE", "rw")
        .env("MYDRV_WIAT", "1")
        .output()
        .unwrap();
    assert!(code(&output) == 0 && output.stderr.is_empty(), "{output:?}");
}

/// What the sum does about a driver that has not registered the second device yet: it is still waiting long after the wait, and passes once it has.
fn waits_for_the_driver(system: &System, still: &[&str], done: impl FnOnce()) {
    let misc = system.0.join("sys/class/misc/mydrv1");
    let aside = system.0.join("mydrv1");
    fs::rename(&misc, &aside).unwrap();
    let mut sum = system.start_sum("1");
    thread::sleep(Duration::from_millis(1500));
    assert!(sum.try_wait().unwrap().is_none(), "{still:?}");
    fs::rename(&aside, &misc).unwrap();
    done();
    let output = sum.wait_with_output().unwrap();
    assert!(output.status.success(), "{still:?}: {output:?}");
}

#[test]
fn a_driver_that_is_at_work_on_a_device_is_waited_for() {
    let system = System::new("probing", &["camera", "video"]);
    system.put("sys/module/mydrv/initstate", b"live\n");
    waits_for_the_driver(&system, &["bound, not registered"], || {});
}

#[test]
fn a_driver_that_is_loading_is_waited_for() {
    let system = System::new("loading", &["camera", "video"]);
    system.put("sys/module/mydrv/initstate", b"coming\n");
    let link = system.0.join("sys/devices/platform/video/driver");
    let target = fs::read_link(&link).unwrap();
    fs::remove_file(&link).unwrap();
    waits_for_the_driver(&system, &["not bound, loading"], || {
        symlink(target, &link).unwrap();
        system.put("sys/module/mydrv/initstate", b"live\n");
    });
}

#[test]
fn a_driver_that_refused_devices_ends_the_wait_for_all_of_them() {
    let system = System::new("refused", &["camera", "video", "audio"]);
    system.put("sys/module/mydrv/initstate", b"live\n");
    for (index, label) in ["camera", "video", "audio"].iter().enumerate() {
        fs::remove_file(system.0.join(format!("sys/devices/platform/{label}/driver"))).unwrap();
        fs::remove_dir_all(system.0.join(format!("sys/class/misc/mydrv{index}"))).unwrap();
    }
    let mut sum = system.start_sum("86400");
    until(|| sum.try_wait().unwrap().is_some());
    let report = system.report("validate.json");
    let failed: Vec<_> = checks(&report, "fail").filter(|check| check["id"] == "driver").collect();
    assert_eq!(failed.len(), 3, "{report}");
    assert!(
        failed
            .iter()
            .all(|check| check["found"].as_str().unwrap().contains("probe failed")),
        "{report}"
    );
}
