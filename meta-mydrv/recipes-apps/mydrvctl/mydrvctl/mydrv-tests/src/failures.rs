// SPDX-License-Identifier: MIT

//! Binding while memory allocations fail, one after the other.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::device::*;

const DRIVER_BIND: &str = "/sys/bus/platform/drivers/mydrv/bind";
const FAIL_NTH: &str = "/proc/thread-self/fail-nth";
/// More allocations than binding can ever need.
const LIMIT: u32 = 2000;

/// For n = 1, 2, …: binds while the n-th allocation fails. Either that is survived, or binding fails and leaves nothing behind; when
/// binding ends before its n-th allocation, each one had its turn.
pub fn fail_nth(device: &Device) -> Outcome {
    if !Path::new(FAIL_NTH).exists() {
        return Err(Broken::Skip(
            "the kernel cannot fail allocations on demand (CONFIG_FAULT_INJECTION)".into(),
        ));
    }
    let setting = |kind: &str, name: &str, value: &str| {
        let path = PathBuf::from(format!("/sys/kernel/debug/{kind}/{name}"));
        fs::write(&path, value).map_err(|error| Broken::Promise(format!("{}: {error}", path.display())))
    };
    for kind in ["failslab", "fail_page_alloc"] {
        setting(kind, "ignore-gfp-wait", "N")?;
        // Each failure would else be told in the log, with a call trace.
        setting(kind, "verbose", "0")?;
    }
    setting("fail_page_alloc", "min-order", "0")?;
    setting("fail_page_alloc", "ignore-gfp-highmem", "N")?;

    device.unbind()?;
    let open = |path: &Path| {
        File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| Broken::Promise(format!("{}: {error}", path.display())))
    };
    // Open beforehand, so that nothing but binding allocates while it is armed.
    let armed = open(FAIL_NTH.as_ref())?;
    let mut bind = File::options()
        .write(true)
        .open(DRIVER_BIND)
        .map_err(|error| format!("{DRIVER_BIND}: {error}"))?;
    let (mut refused, mut survived) = (0, 0);
    for nth in 1..=LIMIT {
        let text = nth.to_string();
        let error = |error| Broken::Promise(format!("{FAIL_NTH}: {error}"));
        armed.write_at(text.as_bytes(), 0).map_err(error)?;
        let bound = bind.write(device.platform.as_bytes());
        let mut left = [0; 16];
        let len = armed.read_at(&mut left, 0).map_err(error)?;
        armed.write_at(b"0", 0).map_err(error)?;
        // What is left of the count: 0 when the failure was delivered.
        let delivered = left[..len].trim_ascii() == b"0";
        match bound.map(drop) {
            Ok(()) if !delivered => {
                holds("allocations failed in turn", refused > 5, (refused, survived))?;
                let again = Device::find(&device.path)?;
                return equal("the device works after all", again.info.size_bytes, device.info.size_bytes);
            }
            Ok(()) => {
                survived += 1;
                device.unbind()?;
            }
            Err(_) if !delivered => return Err(format!("bind with allocation {nth} failing: refused, though none failed").into()),
            Err(_) => {
                refused += 1;
                if device.is_bound() || device.path.exists() {
                    return Err(
                        format!("bind with allocation {nth} failing: refused, yet something is left of the device").into(),
                    );
                }
            }
        }
    }
    Err(format!("binding made {LIMIT} allocations and more").into())
}
