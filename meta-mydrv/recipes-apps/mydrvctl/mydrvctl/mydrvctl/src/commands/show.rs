// SPDX-License-Identifier: MIT

//! `list` and `info`.

use mydrv::{Info, Lock, OpenOptions};
use serde::Serialize;

use super::open;
use crate::{
    cli::Cli,
    failure::{Failure, Result},
    output,
};

/// What `list` prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct List {
    /// The devices, by index.
    devices: Vec<Listed>,
}

/// One device.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Listed {
    /// The N of /dev/mydrvN.
    index: u32,
    /// The device node.
    path: String,
    /// The label of the device tree; null where it has none.
    label: Option<String>,
    /// What the driver tells; null where the device does not open.
    info: Option<Buffer>,
    /// Why it does not.
    error: Option<String>,
}

/// What `info` prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Shown {
    /// The device node.
    path: String,
    #[serde(flatten)]
    buffer: Buffer,
}

/// What the driver tells of a buffer.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Buffer {
    /// The driver's ABI version.
    abi_version: u32,
    /// The buffer's bytes.
    size_bytes: u64,
    /// "coherent", "write-combine" or "cached"; "unknown-N" for the mode N of a newer driver.
    cache_mode: String,
    /// The names of the flags that are set.
    flags: Vec<&'static str>,
    /// What the device's DMA engine is given; null without CAP_SYS_RAWIO.
    dma_address: Option<u64>,
    /// The first byte in physical memory; null without CAP_SYS_RAWIO.
    physical_address: Option<u64>,
    /// The first byte of the reserved region; null without CAP_SYS_RAWIO or a region.
    region_base: Option<u64>,
    /// The region's bytes; null without a region.
    region_size_bytes: Option<u64>,
    /// The label of the device tree; null where it has none.
    label: Option<String>,
}

impl From<&Info> for Buffer {
    fn from(info: &Info) -> Self {
        Self {
            abi_version: info.abi_version,
            size_bytes: info.size_bytes,
            cache_mode: info.cache_mode.to_string(),
            flags: info.flags.names(),
            dma_address: info.addresses.map(|addresses| addresses.dma),
            physical_address: info.addresses.map(|addresses| addresses.physical),
            region_base: info.addresses.and_then(|addresses| addresses.region_base),
            region_size_bytes: info.region_size_bytes,
            label: Some(info.label.clone()).filter(|label| !label.is_empty()),
        }
    }
}

/// `mydrvctl list`: what sysfs shows, and what the driver says where the caller may ask it.
pub fn list(cli: &Cli) -> Result {
    let devices: Vec<_> = mydrv::discover_in(&cli.root)?
        .into_iter()
        .map(|device| {
            // Without a lock: looking on disturbs nobody, not even an exclusive user.
            let info = OpenOptions::new()
                .lock(Lock::None)
                .open(device.path.as_path())
                .and_then(|opened| opened.info());
            (device, info)
        })
        .collect();
    let told = if cli.json {
        let devices = devices
            .iter()
            .map(|(device, info)| Listed {
                index: device.index,
                path: device.path.display().to_string(),
                label: device.label.clone(),
                info: info.as_ref().map(Buffer::from).ok(),
                error: info.as_ref().err().map(ToString::to_string),
            })
            .collect();
        output::json(&List { devices })
    } else if !devices.is_empty() {
        let mut rows = vec![["DEVICE", "LABEL", "SIZE", "CACHE", "FLAGS"].map(str::to_owned)];
        rows.extend(devices.iter().map(|(device, info)| {
            let label = device.label.clone().unwrap_or_else(|| "-".into());
            let path = device.path.display().to_string();
            match info {
                Ok(info) => {
                    let flags = info.flags.names();
                    let flags = if flags.is_empty() { "-".into() } else { flags.join(",") };
                    [path, label, output::size(info.size_bytes), info.cache_mode.to_string(), flags]
                }
                Err(_) => [path, label, "?".into(), "?".into(), "?".into()],
            }
        }));
        output::table(&rows)
    } else {
        Ok(())
    };
    for error in devices.iter().filter_map(|(_, info)| info.as_ref().err()) {
        output::say(&format!("mydrvctl: {error}"));
    }
    let found = if devices.is_empty() {
        Err(Failure::NotFound(
            "no mydrv device; `mydrvctl validate` tells whether overlay or module is missing".into(),
        ))
    } else {
        Ok(())
    };
    Failure::first(found, told)
}

/// `mydrvctl info`.
pub fn info(cli: &Cli) -> Result {
    let device = open(cli, false, Lock::None)?;
    let info = device.info()?;
    if cli.json {
        return output::json(&Shown {
            path: device.path().display().to_string(),
            buffer: Buffer::from(&info),
        });
    }
    let hidden = || "hidden (needs CAP_SYS_RAWIO)".to_owned();
    let flags = info.flags.names();
    let mut rows = vec![
        ["device", &device.path().display().to_string()].map(str::to_owned),
        ["label", if info.label.is_empty() { "-" } else { &info.label }].map(str::to_owned),
        [
            "size".into(),
            format!("{} ({} bytes)", output::size(info.size_bytes), info.size_bytes),
        ],
        ["cache".into(), info.cache_mode.to_string()],
        ["flags".into(), if flags.is_empty() { "-".into() } else { flags.join(", ") }],
        [
            "DMA address".into(),
            info.addresses
                .map_or_else(hidden, |addresses| format!("{:#x}", addresses.dma)),
        ],
        [
            "physical".into(),
            info.addresses
                .map_or_else(hidden, |addresses| format!("{:#x}", addresses.physical)),
        ],
    ];
    if let Some(region_size) = info.region_size_bytes {
        let base = info.addresses.and_then(|addresses| addresses.region_base);
        let place = base.map_or_else(|| format!("address {}", hidden()), |base| format!("at {base:#x}"));
        rows.push(["region".into(), format!("{}, {place}", output::size(region_size))]);
    }
    rows.push(["ABI".into(), info.abi_version.to_string()]);
    output::table(&rows)
}
