// SPDX-License-Identifier: MIT

//! `mydrvctl validate` on an opened device: the crate's stand-in for the driver. For each check something on purpose wrong that makes it, and it alone,
//! fail; and what verdict, report and exit code say of all of them.

mod system;

use std::{
    collections::BTreeSet,
    fs,
    process::{Output, Stdio},
};

use mydrv::{
    abi,
    stand_in::{Call, Effect, Rule, StandIn},
};
use serde_json::Value;
use system::{System, check, code, command, json, mydrvctl, stderr};

const BYTES: u64 = 64 << 10;
const GROUP: u32 = 977;
/// linux/errno-base.h.
const EIO: i32 = 5;

/// A driver that does everything right, with the buffer that `System::node` describes.
fn right(label: &str, index: u32) -> StandIn {
    let mut stand_in = StandIn::new(BYTES).label(label);
    stand_in.node.number = Some((10, 120 + index));
    stand_in.node.gid = GROUP;
    // Where dev/mem, if there is one, has it.
    stand_in.physical_address = 0;
    stand_in.region_base = 0;
    stand_in
}

/// One buffer, "camera", for which everything is right.
fn good(name: &str) -> (System, StandIn) {
    let system = System::new(name);
    system.put("etc/group", format!("root:x:0:\nmydrv:x:{GROUP}:\n").as_bytes());
    add(&system, "mydrv-buffer", "camera", 0);
    (system, right("camera", 0))
}

/// Everything of a buffer but what the driver says.
fn add(system: &System, node: &str, label: &str, index: u32) {
    system
        .node(node, label, 7 + index, BYTES)
        .platform_device(node, "mydrv")
        .misc_device(node, index);
}

fn install(system: &System, stand_in: &StandIn, index: u32) {
    stand_in.install(&system.0.join("dev"), index).unwrap();
}

fn validate(system: &System, arguments: &[&str]) -> (Output, Value) {
    let output = mydrvctl(&system.0, &[&["--json", "validate", "--wait", "0"], arguments].concat());
    let report = json(&output);
    (output, report)
}

fn with(report: &Value, verdict: &str) -> BTreeSet<String> {
    let checks = report["checks"].as_array().unwrap().iter();
    checks
        .filter(|check| check["verdict"] == verdict)
        .map(|check| check["id"].as_str().unwrap().to_owned())
        .collect()
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|&id| id.to_owned()).collect()
}

/// The names of all checks, as the program itself lists them.
fn all_ids() -> BTreeSet<String> {
    let (system, _) = good("ids");
    let output = mydrvctl(&system.0, &["validate", "--require", "no-such-check"]);
    assert_eq!(code(&output), 2);
    let list = stderr(&output);
    let (_, list) = list.trim_end().rsplit_once("every boot can run), ").unwrap();
    list.split(", ").map(str::to_owned).collect()
}

/// How to make one check fail, and it alone but for `also`, which prove the same.
struct Control {
    id: &'static str,
    wrong: fn(&System, &mut StandIn),
    also: &'static [&'static str],
    arguments: &'static [&'static str],
}

const fn control(id: &'static str, wrong: fn(&System, &mut StandIn)) -> Control {
    Control {
        id,
        wrong,
        also: &[],
        arguments: &[],
    }
}

/// A rule of the driver that its check alone notices.
macro_rules! rule {
    ($id:literal, $rule:ident) => {
        control($id, |_, stand_in| stand_in.without.push(Rule::$rule))
    };
}

const REG: &str = "reserved-memory/cma/reg";
const ALLOC_RANGES: &str = "reserved-memory/cma/alloc-ranges";

/// Numbers of two cells each.
fn cells(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// A memory controller that counts an error after the device was opened for writing.
fn errors_while_in_use(system: &System) {
    let counter = |name: &str| format!("sys/devices/system/edac/mc/mc0/{name}");
    system.put(&counter("ce_count"), b"0\n");
    let count = system.0.join(counter("ue_count"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &count, rustix::fs::Mode::RWXU).unwrap();
    let node = system.0.join("dev/mydrv0");
    std::thread::spawn(move || {
        fs::write(&count, "0\n").unwrap();
        while !StandIn::calls(&node).is_ok_and(|calls| calls.iter().any(|call| call == "open")) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        fs::write(&count, "1\n").unwrap();
    });
}

fn second(system: &System, label: &str, base: u64) {
    add(system, "mydrv-second", label, 1);
    let mut stand_in = right(label, 1);
    (stand_in.physical_address, stand_in.region_base) = (base, base);
    install(system, &stand_in, 1);
}

const CONTROLS: &[Control] = &[
    control("device-tree", |system, _| {
        system.property("mydrv-buffer/compatible", b"mydrv,dma-buffer2\0");
    }),
    control("region", |system, _| {
        system.property("mydrv-buffer/memory-region", &9_u32.to_be_bytes());
    }),
    control("driver", |system, _| {
        system.platform_device("mydrv-buffer", "uio_pdrv_genirq");
    }),
    // No platform device; and one that is another node's.
    control("driver", |system, _| {
        fs::remove_file(system.0.join("sys/bus/platform/devices/mydrv-buffer")).unwrap();
    }),
    control("driver", |system, _| {
        system.link("sys/devices/platform/mydrv-buffer/of_node", "sys/firmware/devicetree/base");
    }),
    control("node", |_, stand_in| stand_in.node.number = None),
    control("node", |_, stand_in| stand_in.node.number = Some((10, 121))),
    control("node", |system, stand_in| {
        stand_in.node.number = Some((11, 120));
        system.put("sys/class/misc/mydrv0/dev", b"11:120\n");
    }),
    control("permissions", |_, stand_in| stand_in.node.mode = 0o666),
    control("permissions", |_, stand_in| stand_in.node.mode = 0o600),
    control("permissions", |_, stand_in| stand_in.node.uid = 1),
    control("permissions", |_, stand_in| stand_in.node.gid = 0),
    control("permissions", |system, _| {
        system.put("etc/group", b"root:x:0:\n");
    }),
    control("abi", |_, stand_in| stand_in.abi_version = 0),
    control("label", |_, stand_in| stand_in.label = "video".into()),
    control("label", |_, stand_in| stand_in.label = String::new()),
    control("properties", |_, stand_in| stand_in.cache_mode = abi::MYDRV_CACHE_CACHED),
    control("properties", |system, _| {
        system.property("mydrv-buffer/read-only", b"");
    }),
    control("properties", |system, _| {
        system.property("mydrv-buffer/mydrv,scrub", b"");
    }),
    control("properties", |system, _| {
        system.property("mydrv-buffer/mydrv,cache-mode", b"write-combine\0");
    }),
    control("size", |_, stand_in| stand_in.size_bytes = BYTES / 2),
    control("size", |_, stand_in| stand_in.size_bytes = 0),
    Control {
        also: &["physical-range"],
        ..control("size", |_, stand_in| stand_in.region_size_bytes = BYTES / 2)
    },
    Control {
        arguments: &["--expect", "camera=4K"],
        ..control("size", |_, _| ())
    },
    // No whole pages.
    control("size", |_, stand_in| stand_in.size_bytes = BYTES - 8),
    control("size", |system, _| {
        system.property("mydrv-buffer/size", &(BYTES / 2).to_be_bytes());
    }),
    Control {
        also: &["physical-range"],
        ..control("size", |_, stand_in| stand_in.flags &= !abi::MYDRV_FLAG_RESERVED)
    },
    control("physical-range", |_, stand_in| stand_in.physical_address = 4096),
    control("physical-range", |_, stand_in| stand_in.region_base = 4096),
    control("physical-range", |system, _| {
        system.property(REG, &cells(&[1 << 30, BYTES]));
    }),
    control("physical-range", |system, _| {
        system.property(ALLOC_RANGES, &cells(&[1 << 30, BYTES, 2 << 30, BYTES]));
    }),
    Control {
        arguments: &["--expect", "camera=64K"],
        ..control("physical-range", |system, stand_in| {
            // Half of the region's place is not its place.
            stand_in.region_base = 0;
            system.property(ALLOC_RANGES, &cells(&[0, BYTES / 2]));
        })
    },
    rule!("mapping-flags", DontDump),
    control("zeroing", |system, stand_in| {
        // Kept by the installation that follows: it makes the file no shorter.
        stand_in.faults.clear();
        install(system, stand_in, 0);
        let mut bytes = vec![0; BYTES as usize + 4096];
        bytes[BYTES as usize - 1] = 1;
        system.put("dev/mydrv0", &bytes);
    }),
    control("open-write", |_, stand_in| {
        *stand_in = stand_in.clone().fault(Call::OpenWrite, 0, Effect::Errno(EIO));
    }),
    // The second mapping of all is that check's.
    control("readable", |_, stand_in| {
        *stand_in = stand_in.clone().fault(Call::Map, 2, Effect::Errno(EIO));
    }),
    Control {
        arguments: &["--keep", "video"],
        ..control("keep", |_, _| ())
    },
    Control {
        also: &["march-c-minus", "checkerboard"],
        ..control("address-lines", |_, stand_in| stand_in.aliases.push((8192, 4096)))
    },
    // No walking address reaches these pages; the second process' sample does.
    Control {
        also: &["checkerboard", "two-processes"],
        ..control("march-c-minus", |_, stand_in| stand_in.aliases.push((0x5000, 0x3000)))
    },
    control("edac", |system, _| errors_while_in_use(system)),
    Control {
        arguments: &["--boot"],
        ..control("device-report", |system, _| {
            let checks = r#"[{"id": "region", "device": "/mydrv-buffer", "verdict": "fail"}]"#;
            system.put(
                "run/mydrv/mydrv0.json",
                format!(r#"{{"verdict": "pass", "checks": {checks}}}"#).as_bytes(),
            );
        })
    },
    Control {
        arguments: &["--full"],
        ..control("contiguity", |system, _| {
            system.put("dev/mem", &[0; BYTES as usize]);
        })
    },
    control("read-write", |_, stand_in| {
        *stand_in = stand_in.clone().fault(Call::Read, 0, Effect::Flip);
    }),
    control("two-mappings", |_, stand_in| {
        *stand_in = stand_in.clone().fault(Call::MapBeside, 0, Effect::Private);
    }),
    control("two-processes", |_, stand_in| {
        *stand_in = stand_in.clone().fault(Call::MapHandedDown, 0, Effect::Private);
    }),
    control("scrub", |system, stand_in| {
        system.property("mydrv-buffer/mydrv,scrub", b"");
        stand_in.flags |= abi::MYDRV_FLAG_SCRUB;
        stand_in.without.push(Rule::Scrub);
    }),
    Control {
        arguments: &["--expect", "camera", "--expect", "video"],
        ..control("expect", |_, _| ())
    },
    Control {
        arguments: &["--expect", "camera=64K"],
        ..control("unexpected", |system, _| second(system, "video", 1 << 30))
    },
    control("labels", |system, _| second(system, "camera", 1 << 30)),
    control("apart", |system, _| second(system, "video", BYTES - 4096)),
    rule!("refuse-map-private", MapPrivate),
    rule!("refuse-map-exec", MapExec),
    Control {
        also: &["mapping-flags"],
        ..rule!("refuse-exec-later", ExecLater)
    },
    control("refuse-open-write", |system, stand_in| {
        system.property("mydrv-buffer/read-only", b"");
        stand_in.flags |= abi::MYDRV_FLAG_READ_ONLY;
        stand_in.without.push(Rule::OpenWrite);
    }),
    rule!("refuse-map-beyond", MapBeyond),
    rule!("refuse-map-outside", MapOutside),
    Control {
        also: &["mapping-flags"],
        ..rule!("refuse-grow", Grow)
    },
    rule!("refuse-ioctl", UnknownIoctl),
    rule!("refuse-sync-direction", SyncDirection),
    rule!("refuse-sync-empty", SyncEmpty),
    rule!("refuse-sync-reserved", SyncReserved),
    rule!("refuse-sync-beyond", SyncBeyond),
    rule!("refuse-sync-overflow", SyncOverflow),
    rule!("refuse-sync-reader", SyncReader),
    rule!("refuse-seek-beyond", SeekBeyond),
    rule!("refuse-write-at-end", WriteAtEnd),
    rule!("read-at-end", ReadAtEnd),
];

/// Checks whose control is elsewhere, and where: a stand-in has no memory of its own to break.
const ELSEWHERE: &[(&str, &str)] = &[
    ("data-lines", "mydrv-memtest/tests/faults"),
    ("checkerboard", "mydrv-memtest/tests/faults"),
    ("retention", "mydrv-memtest/tests/faults"),
];

#[test]
fn every_check_passes_where_everything_is_right() {
    let (system, stand_in) = good("right");
    install(&system, &stand_in, 0);
    system.link("dev/mem", "dev/mydrv0");
    let (output, report) = validate(&system, &["--full", "--require", "boot", "--expect", "camera=64K"]);
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    assert_eq!(report["verdict"], "pass");
    let nothing = set(&["apart", "edac", "refuse-open-write", "retention", "scrub"]);
    assert_eq!(with(&report, "n/a"), nothing);
    assert_eq!(with(&report, "skip"), set(&[]));
    let ran: BTreeSet<_> = with(&report, "pass").union(&with(&report, "n/a")).cloned().collect();
    let other_modes = set(&["device-report", "keep"]);
    let expectations = set(&["expect", "unexpected"]);
    assert!(ran.is_superset(&expectations));
    assert_eq!(ran, all_ids().difference(&other_modes).cloned().collect());
    let contents = fs::read(system.0.join("dev/mydrv0")).unwrap();
    assert!(contents.iter().all(|&byte| byte == 0), "the contents did not survive");
}

/// What a device tree may say in other ways.
#[test]
fn what_is_right_in_another_way_passes_too() {
    type Way = fn(&System, &mut StandIn);
    let ways: &[Way] = &[
        |system, _| {
            system.property(REG, &cells(&[0, BYTES]));
        },
        // A region that the kernel has rounded up.
        |system, stand_in| {
            system.property(REG, &cells(&[0, BYTES]));
            stand_in.region_size_bytes = 2 * BYTES;
        },
        |system, _| {
            system.property(ALLOC_RANGES, &cells(&[1 << 30, BYTES, 0, BYTES]));
        },
        |system, stand_in| {
            system.property("mydrv-buffer/size", &(BYTES / 2).to_be_bytes());
            stand_in.size_bytes = BYTES / 2;
        },
        |system, stand_in| {
            system.property("mydrv-buffer/size", &(BYTES / 2).to_be_bytes());
            stand_in.size_bytes = BYTES / 2;
            stand_in.physical_address = BYTES / 2;
        },
        // The kernel's default pool.
        |system, stand_in| {
            fs::remove_file(system.0.join("sys/firmware/devicetree/base/mydrv-buffer/memory-region")).unwrap();
            system.property("mydrv-buffer/size", &BYTES.to_be_bytes());
            stand_in.flags &= !abi::MYDRV_FLAG_RESERVED;
        },
        |system, stand_in| {
            fs::remove_file(system.0.join("sys/firmware/devicetree/base/mydrv-buffer/label")).unwrap();
            stand_in.label = String::new();
        },
        |system, stand_in| {
            system
                .property("mydrv-buffer/read-only", b"")
                .property("mydrv-buffer/mydrv,cache-mode", b"cached\0");
            stand_in.flags |= abi::MYDRV_FLAG_READ_ONLY;
            stand_in.cache_mode = abi::MYDRV_CACHE_CACHED;
        },
        |system, stand_in| {
            system.property("mydrv-buffer/mydrv,scrub", b"");
            stand_in.flags |= abi::MYDRV_FLAG_SCRUB;
        },
        |system, _| {
            system
                .property("mydrv-buffer/status", b"okay\0")
                .property("reserved-memory/cma/status", b"ok\0");
        },
        // The driver is built in, or a module whose loading is over.
        |system, _| {
            system.put("sys/module/mydrv/initstate", b"live\n");
        },
    ];
    for (row, way) in ways.iter().enumerate() {
        let (system, mut stand_in) = good(&format!("way-{row}"));
        way(&system, &mut stand_in);
        install(&system, &stand_in, 0);
        let (output, report) = validate(&system, &["--full", "--require", "boot"]);
        assert_eq!(
            (with(&report, "fail"), code(&output)),
            (set(&[]), 0),
            "row {row}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn each_part_of_a_device_is_looked_for_by_any_of_its_names() {
    let (system, stand_in) = good("names");
    install(&system, &stand_in, 0);
    second(&system, "video", 1 << 30);
    let second_path = system.0.join("dev/mydrv1").display().to_string();
    for (device, node) in [
        ("camera", "/mydrv-buffer"),
        ("video", "/mydrv-second"),
        ("1", "/mydrv-second"),
        (&*second_path, "/mydrv-second"),
    ] {
        let (output, report) = validate(&system, &["--device", device]);
        assert_eq!(code(&output), 0, "{device}: {}", stderr(&output));
        assert_eq!(
            (&report["devices"], &report["buffers"][0]["node"]),
            (&1.into(), &node.into()),
            "{device}"
        );
    }
    let (_, report) = validate(&system, &[]);
    assert_eq!(report["devices"], 2);
    let places: Vec<_> = report["buffers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|buffer| buffer["physical_address"].as_u64())
        .collect();
    assert_eq!(places, [Some(0), Some(1 << 30)]);
    assert_eq!(report["buffers"][1]["size_bytes"], BYTES);
    // By the node until the device is known; and what is about all of them by none.
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(check(checks, "region")["device"], "/mydrv-buffer");
    assert_eq!(check(checks, "size")["device"], system.0.join("dev/mydrv0").to_str().unwrap());
    assert!(check(checks, "labels")["device"].is_null());
    assert!(with(&report, "pass").contains("apart"));
}

#[test]
fn every_check_has_something_that_makes_it_alone_fail() {
    for (row, control) in CONTROLS.iter().enumerate() {
        let (system, mut stand_in) = good(&format!("control-{row}"));
        (control.wrong)(&system, &mut stand_in);
        if system.0.join("dev/mydrv0").exists() {
            stand_in.describe(&system.0.join("dev/mydrv0")).unwrap();
        } else {
            install(&system, &stand_in, 0);
        }
        let depth: &[&str] = if control.arguments.is_empty() { &["--full"] } else { &[] };
        let (output, report) = validate(&system, &[depth, control.arguments].concat());
        let mut expected = set(control.also);
        expected.insert(control.id.into());
        assert_eq!(
            with(&report, "fail"),
            expected,
            "row {row}: {}\n{}",
            control.id,
            stderr(&output)
        );
        assert_eq!((code(&output), report["verdict"].as_str()), (1, Some("fail")), "row {row}");
        for check in report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|check| check["verdict"] == "fail")
        {
            assert!(
                check["found"].as_str().is_some_and(|text| !text.is_empty())
                    && check["remedy"].as_str().is_some_and(|text| !text.is_empty()),
                "{check}"
            );
        }
    }
}

#[test]
fn no_check_is_without_a_control() {
    let covered: BTreeSet<_> = CONTROLS
        .iter()
        .map(|control| control.id)
        .chain(ELSEWHERE.iter().map(|(id, _)| *id))
        .map(str::to_owned)
        .collect();
    assert_eq!(covered, all_ids());
}

/// What claims to prove the driver must not pass where there is none of its rules.
#[test]
fn nothing_that_proves_the_driver_passes_without_its_rules() {
    let expected: BTreeSet<_> = all_ids()
        .into_iter()
        .filter(|id| id.starts_with("refuse-") || ["read-at-end", "mapping-flags"].contains(&id.as_str()))
        .collect();
    let mut failed = BTreeSet::new();
    for read_only in [false, true] {
        let (system, mut stand_in) = good(&format!("lawless-{read_only}"));
        if read_only {
            system.property("mydrv-buffer/read-only", b"");
            stand_in.flags |= abi::MYDRV_FLAG_READ_ONLY;
        }
        stand_in.without = Rule::ALL.to_vec();
        install(&system, &stand_in, 0);
        let (_, report) = validate(&system, &["--full"]);
        failed.extend(with(&report, "fail"));
        let passed: BTreeSet<_> = with(&report, "pass").intersection(&expected).cloned().collect();
        assert_eq!(passed, set(&[]), "passes without the driver's rules");
    }
    assert_eq!(failed, expected);
}

#[test]
fn an_expectation_is_exhaustive() {
    for (expect, fails) in [
        (&["--expect", "camera=64K video"][..], &[][..]),
        (&["--expect", "camera", "--expect", "/mydrv-second=64K"], &[]),
        (&["--expect", "camera=64K"], &["unexpected"]),
        (&["--expect", "camera video audio"], &["expect"]),
        (&["--expect", "nolabel=1K"], &["expect", "unexpected"]),
        (&["--expect", "camera=1K video"], &["size"]),
        (&["--device", "camera", "--expect", "camera video audio=1M"], &[]),
        (&["--device", "camera", "--expect", "video"], &["unexpected"]),
    ] {
        let (system, stand_in) = good("exhaustive");
        install(&system, &stand_in, 0);
        second(&system, "video", 1 << 30);
        let (output, report) = validate(&system, expect);
        assert_eq!(with(&report, "fail"), set(fails), "{expect:?}: {}", stderr(&output));
        assert_eq!(code(&output), i32::from(!fails.is_empty()), "{expect:?}");
    }
}

#[test]
fn what_is_expected_comes_from_the_environment_too() {
    let (system, stand_in) = good("environment");
    install(&system, &stand_in, 0);
    for (name, value, expected) in [
        ("MYDRV_EXPECT", "camera=64K", 0),
        ("MYDRV_EXPECT", "camera=64K video=1M", 1),
        ("MYDRV_EXPECT", "camera=1K", 1),
        ("MYDRV_EXPECT", "", 0),
        ("MYDRV_EXPECT", "camera=64Q", 2),
        ("MYDRV_EXPECT", "camera camera=64K", 2),
        ("MYDRV_REQUIRE", "boot", 0),
        ("MYDRV_REQUIRE", "", 0),
        ("MYDRV_REQUIRE", "size, label", 0),
        ("MYDRV_REQUIRE", "sizes", 2),
        ("MYDRV_REQUIRE", "contiguity", 2),
    ] {
        let output = command(&system.0, &["validate", "--wait", "0"])
            .env(name, value)
            .output()
            .unwrap();
        assert_eq!(code(&output), expected, "{name}={value:?}: {}", stderr(&output));
    }
}

#[test]
fn a_skip_of_a_required_check_fails_with_its_reason() {
    let (system, mut stand_in) = good("required");
    stand_in.flags &= !abi::MYDRV_FLAG_ADDRESSES;
    install(&system, &stand_in, 0);
    let (output, report) = validate(&system, &[]);
    assert_eq!(code(&output), 0);
    assert!(with(&report, "skip").contains("physical-range"));
    let (output, report) = validate(&system, &["--require", "label,physical-range"]);
    assert_eq!(code(&output), 1);
    assert_eq!(with(&report, "fail"), set(&["physical-range"]));
    let found = check(report["checks"].as_array().unwrap(), "physical-range")["found"].clone();
    assert_eq!(found, "not checked: the driver shows addresses to CAP_SYS_RAWIO alone");
    // Nothing to scrub is no skip.
    assert_eq!(code(&validate(&system, &["--require", "scrub"]).0), 0);
    // What a failure kept from being checked is not a failure of its own.
    let (system, _) = good("required-cascade");
    system.platform_device("mydrv-buffer", "uio");
    let (_, report) = validate(&system, &["--require", "boot"]);
    assert_eq!(with(&report, "fail"), set(&["driver"]));
}

#[test]
fn a_device_in_use_is_an_outcome_of_its_own() {
    let (system, stand_in) = good("busy");
    install(&system, &stand_in, 0);
    let holder = fs::File::open(system.0.join("dev/mydrv0")).unwrap();
    holder.lock_shared().unwrap();
    let (output, report) = validate(&system, &["--require", "boot"]);
    assert_eq!(
        (code(&output), report["verdict"].as_str()),
        (6, Some("in-use")),
        "{}",
        stderr(&output)
    );
    assert_eq!(with(&report, "in-use"), set(&["abi"]));
    assert_eq!((with(&report, "fail"), &report["in_use"]), (set(&[]), &1.into()));
    // A failure beside it is one.
    let (output, report) = validate(&system, &["--expect", "video"]);
    assert_eq!((code(&output), report["verdict"].as_str()), (1, Some("fail")));
}

#[test]
fn a_device_that_goes_half_way_fails_with_a_report() {
    let (system, stand_in) = good("unbound");
    install(&system, &stand_in.fault(Call::Sync, 1, Effect::Unbind), 0);
    let (output, report) = validate(&system, &["--report", system.0.join("report.json").to_str().unwrap()]);
    assert_eq!(
        (code(&output), report["verdict"].as_str()),
        (1, Some("fail")),
        "{}",
        stderr(&output)
    );
    let written: Value = serde_json::from_slice(&fs::read(system.0.join("report.json")).unwrap()).unwrap();
    assert_eq!(written["verdict"], "fail");
}

#[test]
fn a_pass_that_cannot_be_told_is_an_error_of_the_output() {
    let (system, stand_in) = good("untold");
    install(&system, &stand_in, 0);
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    for arguments in [&["validate", "--wait", "0"][..], &["--json", "validate", "--wait", "0"]] {
        for stdout in [Stdio::from(full()), Stdio::from(closed())] {
            let output = command(&system.0, arguments)
                .stdout(stdout)
                .stderr(Stdio::piped())
                .output()
                .unwrap();
            assert_eq!(code(&output), 5, "{}", stderr(&output));
            assert!(stderr(&output).contains("standard output: "), "{}", stderr(&output));
        }
        let wrong = [arguments, &["--expect", "camera=1K"]].concat();
        for stdout in [Stdio::from(full()), Stdio::from(closed())] {
            let output = command(&system.0, &wrong)
                .stdout(stdout)
                .stderr(Stdio::piped())
                .output()
                .unwrap();
            assert_eq!(code(&output), 1, "{}", stderr(&output));
        }
        // No word is due on standard error.
        assert_eq!(code(&command(&system.0, arguments).stderr(full()).output().unwrap()), 0);
    }
    for report in ["/dev/full", "/nonexistent/report.json"] {
        let (output, told) = validate(&system, &["--report", report]);
        assert_eq!(
            (code(&output), told["verdict"].as_str()),
            (5, Some("pass")),
            "{}",
            stderr(&output)
        );
        assert!(stderr(&output).contains(report), "{}", stderr(&output));
    }
    fs::remove_dir(system.0.join("run/mydrv")).unwrap();
    let (output, told) = validate(&system, &["--boot"]);
    assert_eq!(
        (code(&output), told["verdict"].as_str()),
        (5, Some("pass")),
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("run/mydrv/validate.json"), "{}", stderr(&output));
}

/// What is not a verdict: a full disk is an error, a reader that has seen enough is none.
#[test]
fn every_command_tells_of_a_full_disk() {
    let (system, stand_in) = good("full");
    install(&system, &stand_in, 0);
    for arguments in [
        &["list"][..],
        &["info"],
        &["read"],
        &["dump"],
        &["bench", "--rounds", "1"],
        &["--json", "list"],
        &["--json", "info"],
        &["--json", "dump"],
        &["--json", "bench", "--rounds", "1"],
        &["--json", "fill", "--all"],
        &["--json", "read", "--output", "/dev/null"],
    ] {
        assert_eq!(code(&mydrvctl(&system.0, arguments)), 0, "{arguments:?}");
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = command(&system.0, arguments)
            .stdout(full)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(code(&output), 5, "{arguments:?}: {}", stderr(&output));
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(&system.0, arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!((code(&output), stderr(&output).as_str()), (0, ""), "{arguments:?}");
    }
    let output = mydrvctl(&system.0, &["read", "--output", "/dev/full"]);
    assert_eq!(code(&output), 5);
    assert!(stderr(&output).contains("/dev/full"), "{}", stderr(&output));
    // What the device answers comes before what becomes of the output.
    install(&system, &stand_in.fault(Call::Read, 2, Effect::Errno(EIO)), 0);
    assert_eq!(code(&mydrvctl(&system.0, &["read", "--offset", "0", "--length", "4K"])), 0);
}

/// A system whose buffer holds something, and a fault in the N-th call of a kind.
fn filled(name: &str, call: Call, number: u64, effect: Effect) -> (System, Vec<u8>) {
    let (system, stand_in) = good(name);
    install(&system, &stand_in.fault(call, number, effect), 0);
    let contents: Vec<u8> = (0..BYTES + 4096).map(|at| (at * 31 % 251) as u8).collect();
    system.put("dev/mydrv0", &contents).put("dev/mydrv0.written", b"");
    (system, contents)
}

/// Whichever call the signal comes in, until there is none left that it could come in.
#[test]
fn a_signal_ends_the_check_and_the_contents_survive() {
    for call in [Call::Map, Call::Read, Call::Write, Call::Sync, Call::Info, Call::OpenWrite] {
        let mut number = 1;
        loop {
            let (system, contents) = filled(&format!("signal-{call:?}-{number}"), call, number, Effect::Signal(15));
            let path = system.0.join("report.json");
            let output = mydrvctl(
                &system.0,
                &["validate", "--wait", "0", "--full", "--report", path.to_str().unwrap()],
            );
            assert_eq!(fs::read(system.0.join("dev/mydrv0")).unwrap(), contents, "{call:?} {number}");
            let report: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            match code(&output) {
                0 => break,
                143 => assert_eq!(report["verdict"], "interrupted", "{call:?} {number}"),
                code => panic!("{call:?} {number}: {code} {}", stderr(&output)),
            }
            number += 1;
        }
        assert!(number > 1, "{call:?} never came");
    }
}

/// Nor does it end by SIGBUS, whichever call the device goes in.
#[test]
fn a_device_that_goes_in_any_call_fails_with_a_report() {
    for call in [Call::Map, Call::Read, Call::Write, Call::Sync, Call::Info] {
        let mut number = 1;
        loop {
            let (system, _) = filled(&format!("gone-{call:?}-{number}"), call, number, Effect::Unbind);
            let path = system.0.join("report.json");
            let output = mydrvctl(
                &system.0,
                &["validate", "--wait", "0", "--full", "--report", path.to_str().unwrap()],
            );
            let report: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            match code(&output) {
                0 => break,
                1 => assert_eq!(report["verdict"], "fail", "{call:?} {number}"),
                code => panic!("{call:?} {number}: {code} {}", stderr(&output)),
            }
            number += 1;
        }
        assert!(number > 1, "{call:?} never came");
    }
}
