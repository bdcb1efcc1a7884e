// SPDX-License-Identifier: MIT

//! What the tests of the command line share: the program, and a folder that stands in for a system.

#![allow(dead_code, reason = "each test uses a part")]

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// The program: as installed where $MYDRVCTL says so, else the one that Cargo built beside this test. Never by a path that is compiled in, since
/// the tests also run on another machine than the one that built them.
pub fn program() -> PathBuf {
    env::var_os("MYDRVCTL").map_or_else(|| env::current_exe().unwrap().with_file_name("../mydrvctl"), PathBuf::from)
}

/// The program on that system, without any setting of the environment.
pub fn command(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("MYDRV_") {
            command.env_remove(name);
        }
    }
    command
        .arg("--root")
        .arg(root)
        .args(arguments)
        .env_remove("JOURNAL_STREAM")
        .stdin(Stdio::null());
    command
}

pub fn mydrvctl(root: &Path, arguments: &[&str]) -> Output {
    command(root, arguments).output().unwrap()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// A system in a folder, gone when dropped.
pub struct System(pub PathBuf);

const BASE: &str = "sys/firmware/devicetree/base";

impl System {
    pub fn new(name: &str) -> Self {
        let dir = env::temp_dir().join(format!("mydrvctl-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join(BASE)).unwrap();
        fs::create_dir_all(dir.join("run/mydrv")).unwrap();
        Self(dir)
    }

    pub fn put(&self, path: &str, bytes: &[u8]) -> &Self {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self
    }

    pub fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(self.0.join(target), path).unwrap();
        self
    }

    /// A property of a node of the device tree.
    pub fn property(&self, name: &str, bytes: &[u8]) -> &Self {
        self.put(&format!("{BASE}/{name}"), bytes)
    }

    /// A buffer's node, with a region of its own of that many bytes.
    pub fn node(&self, name: &str, label: &str, phandle: u32, bytes: u64) -> &Self {
        self.property(&format!("{name}/compatible"), b"mydrv,dma-buffer\0")
            .property(&format!("{name}/label"), format!("{label}\0").as_bytes())
            .property(&format!("{name}/memory-region"), &phandle.to_be_bytes())
            .property("reserved-memory/#address-cells", &2_u32.to_be_bytes())
            .property("reserved-memory/#size-cells", &2_u32.to_be_bytes());
        let region = if phandle == 7 {
            "cma".to_owned()
        } else {
            format!("cma-{phandle}")
        };
        self.property(&format!("reserved-memory/{region}/compatible"), b"shared-dma-pool\0")
            .property(&format!("reserved-memory/{region}/phandle"), &phandle.to_be_bytes())
            .property(&format!("reserved-memory/{region}/size"), &bytes.to_be_bytes())
    }

    /// The platform device of a node, with this driver.
    pub fn platform_device(&self, name: &str, driver: &str) -> &Self {
        let device = format!("sys/devices/platform/{name}");
        self.link(&format!("{device}/of_node"), &format!("{BASE}/{name}"))
            .link(&format!("sys/bus/platform/devices/{name}"), &device)
            .put(&format!("sys/bus/platform/drivers/{driver}/uevent"), b"")
            .link(&format!("{device}/driver"), &format!("sys/bus/platform/drivers/{driver}"))
    }

    /// The misc device that the driver registers for it.
    pub fn misc_device(&self, name: &str, index: u32) -> &Self {
        self.put(
            &format!("sys/class/misc/mydrv{index}/dev"),
            format!("10:{}\n", 120 + index).as_bytes(),
        )
        .link(
            &format!("sys/class/misc/mydrv{index}/device"),
            &format!("sys/devices/platform/{name}"),
        )
    }

    /// A device tree with one buffer in a region of 4 MiB.
    pub fn with_overlay(self) -> Self {
        self.node("mydrv-buffer", "camera", 7, 0x40_0000);
        self
    }

    /// The platform device of that buffer, with this driver.
    pub fn with_driver(self, driver: &str) -> Self {
        self.platform_device("mydrv-buffer", driver);
        self
    }

    pub fn with_misc_device(self) -> Self {
        self.misc_device("mydrv-buffer", 0);
        self
    }

    pub fn validate(&self) -> (Output, Vec<Value>) {
        let output = mydrvctl(&self.0, &["--json", "validate", "--wait", "0"]);
        let checks = json(&output)["checks"].as_array().unwrap().clone();
        (output, checks)
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn check<'a>(checks: &'a [Value], id: &str) -> &'a Value {
    checks
        .iter()
        .find(|check| check["id"] == id)
        .unwrap_or_else(|| panic!("no {id} in {checks:?}"))
}

/// Checks the failure of one check, and that nothing that builds on it was tried.
pub fn failed(checks: &[Value], id: &str, found: &str) {
    let check = check(checks, id);
    assert_eq!(check["verdict"], "fail", "{check}");
    assert!(check["found"].as_str().unwrap().contains(found), "{check}");
    assert!(!check["remedy"].as_str().unwrap().is_empty(), "{check}");
    assert_eq!(
        checks.iter().filter(|check| check["verdict"] == "fail").count(),
        1,
        "{checks:?}"
    );
}
