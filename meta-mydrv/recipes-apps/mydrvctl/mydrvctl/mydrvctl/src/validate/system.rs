// SPDX-License-Identifier: MIT

//! The checks before the device is opened: what device tree, driver model and /dev say.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use mydrv::{Candidate, Selector};

use super::{
    Context,
    devicetree::{Node, Region},
    report::{Outcome, Problem, fail},
};
use crate::output;

/// The buffers that the device tree describes.
pub fn nodes(context: &Context) -> Outcome<Vec<Node>> {
    let base = context.root.join("sys/firmware/devicetree/base");
    let root = match Node::root(&base) {
        Ok(root) => root,
        Err(error) => {
            return fail(
                format!("no device tree ({}: {error})", base.display()),
                "boot with a device tree: the driver needs one",
            );
        }
    };
    let (enabled, disabled): (Vec<_>, Vec<_>) = root.find(&Node::is_buffer).into_iter().partition(Node::enabled);
    let names = |nodes: &[Node]| nodes.iter().map(Node::name).collect::<Vec<_>>().join(", ");
    if !enabled.is_empty() {
        return Ok((names(&enabled), enabled));
    }
    if !disabled.is_empty() {
        return fail(
            format!("only disabled nodes: {}", names(&disabled)),
            "set status = \"okay\" in the node",
        );
    }
    fail(
        "no such node: overlay missing",
        "have the boot loader apply mydrv.dtbo to the base device tree, and check its log",
    )
}

/// That each label to keep belongs to a buffer: a mistyped one would leave the buffer it was meant for to be written to.
pub fn kept(keep: &[String], nodes: &[Node]) -> Outcome {
    let known: Vec<_> = nodes.iter().map(super::name).collect();
    let unknown: Vec<_> = keep.iter().filter(|label| !known.contains(label)).cloned().collect();
    if !unknown.is_empty() {
        return fail(
            format!("no buffer {}, but {}", unknown.join(", "), known.join(", ")),
            "correct --keep (MYDRV_KEEP in /etc/default/mydrv); until then nothing is written to any buffer",
        );
    }
    Ok((keep.join(", "), ()))
}

/// Whether the user means this buffer.
pub fn is(context: &Context, wanted: &Selector, node: &Node) -> bool {
    match wanted {
        Selector::Label(label) => node.string("label").as_ref() == Some(label),
        selector => selector
            .resolve_in(&context.root)
            .ok()
            .and_then(|path| fs::canonicalize(path).ok())
            .is_some_and(|path| {
                mydrv::discover_in(&context.root)
                    .unwrap_or_default()
                    .iter()
                    .any(|device| device.path == path && device.of_node.as_deref() == Some(node.dir()))
            }),
    }
}

/// The reserved memory.
pub fn region(node: &Node) -> Outcome<Region> {
    match Region::of(node) {
        Ok(Region::Default) => Ok(("no memory-region: the kernel's default pool".into(), Region::Default)),
        Ok(Region::Reserved {
            name,
            base,
            choices,
            size,
        }) => {
            let place = base.map(|base| format!(" at {base:#x}")).unwrap_or_default();
            Ok((
                format!("{name}, {}{place}", output::size(size)),
                Region::Reserved {
                    name,
                    base,
                    choices,
                    size,
                },
            ))
        }
        Err(found) => fail(found, "correct memory-region and its node in the overlay"),
    }
}

/// A loaded driver that is not at work on a device has probed it. One that it did not bind it refused, or put off for another driver's sake, or
/// somebody is binding it again by hand: so long it may take.
const DEFERRAL: Duration = Duration::from_secs(5);

/// The platform device of the node, with the driver bound.
pub fn driver(context: &Context, node: &Node) -> Outcome<PathBuf> {
    let bus = context.root.join("sys/bus/platform");
    let device = || {
        let devices = fs::read_dir(bus.join("devices")).into_iter().flatten().flatten();
        devices
            .map(|entry| entry.path())
            .find(|path| fs::canonicalize(path.join("of_node")).is_ok_and(|of| of == node.dir()))
    };
    let bound = |device: &PathBuf| {
        Some(
            fs::read_link(device.join("driver"))
                .ok()?
                .file_name()?
                .to_string_lossy()
                .into_owned(),
        )
    };
    // A module that is just loading probes one device after the other. While it is at work on a device, that one shows the driver already, but the
    // driver registers no misc device before it is done: zeroing, and getting lent pages back, takes its time.
    let state = || fs::read_to_string(context.root.join("sys/module/mydrv/initstate"));
    let loading = || state().is_ok_and(|state| state.trim() == "coming");
    let probing = || {
        device()
            .and_then(|device| bound(&device))
            .is_some_and(|driver| driver == "mydrv")
    };
    let probed = || match state() {
        Ok(state) => state.trim() == "live",
        // Built in.
        Err(_) => bus.join("drivers/mydrv").exists(),
    };
    let registered = || {
        let devices = mydrv::discover_in(&context.root).unwrap_or_default();
        devices.iter().any(|device| device.of_node.as_deref() == Some(node.dir()))
    };
    let mut answer = || {
        if let Some(device) = device()
            && let Some(driver) = bound(&device)
        {
            return (driver != "mydrv" || registered()).then_some(Some((driver, device)));
        }
        if !probed() {
            context.driver_idle_since.set(None);
            return None;
        }
        // Nothing comes any more: end the wait, for this device as for the next.
        let since = context.driver_idle_since.get().unwrap_or_else(Instant::now);
        context.driver_idle_since.set(Some(since));
        (since.elapsed() >= DEFERRAL).then_some(None)
    };
    super::boot::status(&format!("waiting for the driver of {}", node.name()));
    match context.wait_while(&mut answer, || loading() || probing()).flatten() {
        Some((driver, device)) if driver == "mydrv" => Ok((
            format!("{} bound", device.file_name().unwrap_or_default().to_string_lossy()),
            device,
        )),
        Some((driver, _)) => fail(
            format!("wrong device: driver {driver} bound instead"),
            format!(
                "put the compatible \"{}\" first, or unbind {driver}",
                super::devicetree::COMPATIBLE
            ),
        ),
        None if !bus.join("drivers/mydrv").exists() => fail(
            "driver mydrv not loaded",
            "modprobe mydrv; if it is not found, install the module of this very kernel (uname -r) and run depmod",
        ),
        None if device().is_none() => fail(
            "the kernel made no platform device for the node",
            "put the node directly below / or below a simple-bus",
        ),
        None if probing() => fail(
            "driver mydrv is still at work on the device",
            "see at what: journalctl -k -g mydrv; if it only needs longer, raise MYDRV_WAIT in /etc/default/mydrv, or --wait",
        ),
        None => fail(
            "driver mydrv loaded, but its probe failed or is deferred",
            "see why: journalctl -k -g mydrv",
        ),
    }
}

/// The device node.
pub fn node(context: &Context, node: &Node) -> Outcome<Candidate> {
    let find = || {
        mydrv::discover_in(&context.root)
            .ok()?
            .into_iter()
            .find(|device| device.of_node.as_deref() == Some(node.dir()))
    };
    let present = || {
        let device = find()?;
        device.node_status().ok().map(|status| (device, status))
    };
    let Some((device, status)) = context.wait_for(present) else {
        return match find() {
            Some(device) => fail(
                format!("no {}", device.path.display()),
                "mount devtmpfs on /dev (CONFIG_DEVTMPFS_MOUNT), and look for what removed the node",
            ),
            None => fail(
                "no misc device belongs to the node",
                "see why the driver registered none: journalctl -k -g mydrv",
            ),
        };
    };
    let path = device.path.display().to_string();
    let number = fs::read_to_string(device.sysfs.join("dev")).unwrap_or_default();
    // 10: include/uapi/linux/major.h, MISC_MAJOR.
    let right = |(major, minor)| major == 10 && format!("{major}:{minor}") == number.trim();
    if !status.number.is_some_and(right) {
        return fail(
            format!("wrong device: {path} is no character device {}", number.trim()),
            format!(
                "remove {path} and let devtmpfs make it (udevadm trigger -c add {})",
                device.sysfs.display()
            ),
        );
    }
    Ok((format!("{path}, character device {}", number.trim()), device))
}

/// Mode, owner and group of the device node. udev sets them a moment after the node appears.
pub fn permissions(context: &Context, device: &Candidate) -> Outcome {
    let groups = fs::read_to_string(context.root.join("etc/group")).unwrap_or_default();
    let name = &context.group;
    let group = groups.lines().find_map(|line| match *line.split(':').collect::<Vec<_>>() {
        [group, _, id, ..] if group == name => id.parse::<u32>().ok(),
        _ => None,
    });
    let Some(group) = group else {
        return fail(
            format!("no group {name} in /etc/group"),
            "systemd-sysusers mydrv.conf, then udevadm trigger -c change -s misc; another group is named by MYDRV_GROUP",
        );
    };
    let look = || {
        let status = device.node_status().ok()?;
        Some((status.mode, status.uid, status.gid))
    };
    let wanted = (context.mode, 0, group);
    if context.wait_for(|| look().filter(|found| *found == wanted)).is_some() {
        return Ok((format!("mode {:04o}, owner root, group {name} ({group})", context.mode), ()));
    }
    let (mode, owner, found) = look().ok_or_else(|| Problem::Skip("the device node is gone".into()))?;
    fail(
        format!("mode {mode:04o}, owner {owner}, group {found}"),
        "install 60-mydrv.rules and run udevadm control -R; udevadm trigger -c change -s misc; what a rule of the product's own sets, MYDRV_MODE and \
         MYDRV_GROUP must say too",
    )
}
