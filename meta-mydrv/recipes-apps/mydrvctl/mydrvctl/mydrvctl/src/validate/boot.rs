// SPDX-License-Identifier: MIT

//! The boot's validation, in two parts: one process for each device, which udev starts when the device appears, and one that sums up. They
//! meet in /run/mydrv: the first holds `mydrvN.lock` while it is at work and leaves `mydrvN.json`, the second waits for that and takes its checks over.
//! Also how long either waits, and how it asks the service manager for the time.

use std::{
    cell::{Cell, OnceCell},
    env, fs, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use mydrv::{Candidate, Selector};
use rustix::{
    fs::{FlockOperation, OFlags, inotify},
    io::Errno,
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Context, checks,
    devicetree::{Node, Region},
    report::{Outcome, Verdict, fail},
};
use crate::failure::{Failure, Result};

/// The units' RuntimeDirectory.
pub const DIRECTORY: &str = "run/mydrv";
/// Where the boot's report goes.
pub const REPORT: &str = "run/mydrv/validate.json";

/// What a driver that zeroes memory, or a test of memory, may take for a GiB: emulated ones need 20 s, slow memory outside the caches less.
const PER_GIB: Duration = Duration::from_secs(60);

/// Which part of the boot's validation this process is.
pub enum Part {
    /// Not of the boot's: somebody asks.
    None,
    /// The one that sums up. An earlier one may have done so already, at that time.
    Sum(Option<SystemTime>),
    /// One device's, by its name: mydrvN.
    Device(String),
}

impl Part {
    /// By the command line: `--boot` with a device or without.
    pub fn new(boot: bool, wanted: Option<&Selector>, root: &Path) -> Result<Self> {
        Ok(match (boot, wanted) {
            (false, _) => Self::None,
            (true, None) => Self::Sum(fs::metadata(root.join(REPORT)).and_then(|report| report.modified()).ok()),
            (true, Some(selector)) => {
                let path = selector.resolve_in(root)?;
                // A link by label is as good as the node.
                let path = fs::canonicalize(&path).unwrap_or(path);
                Self::Device(path.file_name().unwrap_or_default().to_string_lossy().into_owned())
            }
        })
    }

    /// Whether it is one of the boot's.
    pub fn is_boot(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whether an earlier sum has counted this report, which is no pass: the one that is made now, by hand, is to look again.
    fn has_counted(&self, path: &Path, report: &Value) -> bool {
        let Self::Sum(Some(earlier)) = self else { return false };
        let made = fs::metadata(path).and_then(|file| file.modified());
        report["verdict"] != "pass" && made.is_ok_and(|made| made <= *earlier)
    }

    /// Where the report goes.
    pub fn report(&self, root: &Path) -> Option<PathBuf> {
        match self {
            Self::None => None,
            Self::Sum(_) => Some(root.join(REPORT)),
            Self::Device(name) => Some(root.join(DIRECTORY).join(format!("{name}.json"))),
        }
    }
}

/// Makes a file below the folder the folder's group's to read, and nobody else's: as the units' UMask= and Group= have it, also where root makes it by
/// hand.
pub fn for_the_group(file: &fs::File, folder: &Path) -> io::Result<()> {
    file.set_permissions(fs::Permissions::from_mode(0o640))?;
    let group = fs::metadata(folder)?.gid();
    if file.metadata()?.gid() != group {
        fchown(file, None, Some(group))?;
    }
    Ok(())
}

/// That a device is being validated; until it is dropped, or the process ends in any way.
pub struct Claim {
    _file: fs::File,
}

impl Claim {
    fn path(root: &Path, name: &str) -> PathBuf {
        root.join(DIRECTORY).join(format!("{name}.lock"))
    }

    /// Takes the device, once nobody else validates it.
    pub fn take(context: &Context, name: &str) -> Result<Self> {
        let path = Self::path(&context.root, name);
        // No link is followed: root may do this where another user can write.
        let open = |options: &mut fs::OpenOptions| {
            let nofollow = OFlags::NOFOLLOW.bits() as i32;
            options.read(true).custom_flags(nofollow).open(&path)
        };
        let file = open(fs::File::options().append(true).create(true))
            .or_else(|_| open(&mut fs::File::options()))
            .map_err(Failure::io(&path))?;
        // Root's, by hand, must not shut out the unit's user later; a user of neither could hold the lock for ever. Somebody else's is as it is.
        let _ = for_the_group(&file, &context.root.join(DIRECTORY));
        let taken = || match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK | Errno::INTR) => None,
            done => Some(done),
        };
        match context.wait_while(taken, || true) {
            Some(Ok(())) => Ok(Self { _file: file }),
            Some(Err(errno)) => Err(Failure::io(&path)(errno.into())),
            None => Err(context.stop.signal().map_or_else(
                || {
                    Failure::Broken(format!(
                        "{}: another validation of {name} does not end; see what it does: systemctl status mydrv-validate@{name}",
                        path.display()
                    ))
                },
                Failure::Interrupted,
            )),
        }
    }

    /// Whether somebody validates the device now.
    fn is_taken(root: &Path, name: &str) -> bool {
        fs::File::open(Self::path(root, name))
            .is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK))
    }
}

/// The report of the device's own validation, once that has ended. `None` where there is none, and nobody is at work on one.
pub fn collect(context: &Context, node: &Node, device: &Candidate) -> Option<Value> {
    let name = device.path.file_name()?.to_string_lossy().into_owned();
    let path = context.root.join(DIRECTORY).join(format!("{name}.json"));
    // udev has the service manager start it a moment after the device appears.
    let began = Instant::now();
    let grace = context.wait / 4;
    let taken = || Claim::is_taken(&context.root, &name);
    let found = || {
        // Before the report, which is there when the lock goes.
        let over = began.elapsed() >= grace && !taken();
        match report(&path, &node.name()).filter(|report| !context.part.has_counted(&path, report)) {
            Some(report) => Some(Some(report)),
            None => over.then_some(None),
        }
    };
    status(&format!("waiting for the validation of {name}"));
    context.wait_while(found, taken).flatten()
}

/// A device's report, if it is about this node of the device tree, and was not broken off.
fn report(path: &Path, node: &str) -> Option<Value> {
    let report: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let checks = report["checks"].as_array()?;
    (report["verdict"] != "interrupted" && checks.iter().any(|check| check["device"] == node)).then_some(report)
}

/// The checks of a device's report, which must be what its verdict says. Each must be one that this program has, or it could not be taken over.
pub fn verdict(report: &Value) -> Outcome<Vec<Value>> {
    let checks = report["checks"].as_array().cloned().unwrap_or_default();
    let is_known =
        |check: &Value| check["id"].as_str().and_then(checks::find).is_some() && Verdict::deserialize(&check["verdict"]).is_ok();
    let any = |verdict| checks.iter().any(|check| check["verdict"] == verdict);
    let verdict = report["verdict"].as_str().unwrap_or("none");
    let borne_out = match verdict {
        _ if !checks.iter().all(is_known) => false,
        "pass" => any("pass") && !any("fail") && !any("in-use") && !any("interrupted"),
        "fail" => any("fail"),
        "in-use" => any("in-use") && !any("fail"),
        _ => false,
    };
    if !borne_out {
        return fail(
            format!("verdict {verdict}, and {} checks that do not bear it out", checks.len()),
            "see what the device's own validation says: journalctl -b -u 'mydrv-validate@*'",
        );
    }
    Ok((format!("{verdict}, {} checks", checks.len()), checks))
}

/// The size in bytes of a buffer, by the device tree; 0 where only the driver knows it.
fn size(node: &Node) -> u64 {
    node.number("size").unwrap_or_else(|| match Region::of(node) {
        Ok(Region::Reserved { size, .. }) => size,
        _ => 0,
    })
}

/// How long work on these buffers may go on, beyond any wait.
pub fn patience(nodes: &[Node]) -> Duration {
    let bytes: u64 = nodes.iter().map(size).fold(0, u64::saturating_add);
    let gib = u32::try_from(bytes.div_ceil(1 << 30)).unwrap_or(u32::MAX);
    PER_GIB.saturating_mul(gib)
}

/// Wakes up a wait when something happens in /dev or /run/mydrv, and tells the service manager that it goes on.
pub struct Alarm {
    root: PathBuf,
    /// From the first wait on: the kernel takes some 50 ms to close such a file, which a validation that waits for nothing need not spend.
    events: OnceCell<Option<rustix::fd::OwnedFd>>,
    told: Cell<Instant>,
}

impl Alarm {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            events: OnceCell::new(),
            told: Cell::new(Instant::now()),
        }
    }

    fn watch(&self) -> Option<rustix::fd::OwnedFd> {
        let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
        for (directory, flags) in [
            (
                self.root.join(DIRECTORY),
                inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE,
            ),
            (
                self.root.join("dev"),
                inotify::WatchFlags::CREATE | inotify::WatchFlags::ATTRIB,
            ),
        ] {
            // Without it the wait asks by the clock alone.
            let _ = inotify::add_watch(&events, directory, flags);
        }
        Some(events)
    }

    /// Sleeps until something happens, but not longer than `most`.
    pub fn sleep(&self, most: Duration) {
        // Well before the time that was asked for is over.
        if self.told.get().elapsed() >= Duration::from_secs(10) {
            self.told.set(Instant::now());
            extend(Duration::from_secs(60));
        }
        // What has no event of its own: the driver's state, locks.
        let time = most.min(Duration::from_millis(100));
        let Some(events) = self.events.get() else {
            // What happened before there was a watch is seen by asking again.
            let _ = self.events.set(self.watch());
            return;
        };
        let Some(events) = events else {
            std::thread::sleep(time);
            return;
        };
        let timeout = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: time.subsec_nanos().into(),
        };
        let mut ready = [rustix::event::PollFd::new(events, rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut ready, Some(&timeout));
        // What it was is seen by asking again.
        let mut buffer = [0; 4096];
        while rustix::io::read(events, &mut buffer[..]).is_ok_and(|count| count > 0) {}
    }
}

/// Asks the service manager for so much time from now on (sd_notify(3)). Nothing where none listens.
pub fn extend(time: Duration) {
    notify(&format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()));
}

/// Tells the service manager; the text is shown by `systemctl status`.
pub fn status(text: &str) {
    notify(&format!("STATUS={text}"));
}

fn notify(message: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    let bytes = path.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    // A service manager that does not listen keeps nothing from being validated.
    if let (Ok(socket), Ok(address)) = (UnixDatagram::unbound(), address) {
        let _ = socket.send_to_addr(message.as_bytes(), &address);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::devicetree::tests::Tree, *};

    #[test]
    fn patience_follows_the_size_of_all_buffers() {
        let tree = Tree::new("patience");
        tree.cells("a/size", &[0, 0x400_0000]).cells("b/size", &[1, 0]);
        tree.put("c/label", b"c\0");
        let root = Node::root(&tree.0).unwrap();
        let node = |name| root.child(name).unwrap();
        assert_eq!(patience(&[]), Duration::ZERO);
        assert_eq!(patience(&[node("c")]), Duration::ZERO);
        assert_eq!(patience(&[node("a")]), PER_GIB);
        assert_eq!(patience(&[node("a"), node("b")]), PER_GIB * 5);
        tree.cells("a/size", &[u32::MAX, u32::MAX]);
        assert!(patience(&[node("a"), node("b")]) > Duration::from_secs(1 << 32));
    }

    #[test]
    fn a_report_of_another_node_is_none() {
        let tree = Tree::new("reports");
        let path = tree.0.join("mydrv0.json");
        assert_eq!(report(&path, "/a"), None);
        let write = |verdict: &str| {
            let checks = r#"[{"id": "region", "device": "/a"}, {"id": "abi", "device": "/dev/mydrv0"}]"#;
            fs::write(&path, format!(r#"{{"verdict": "{verdict}", "checks": {checks}}}"#)).unwrap();
        };
        write("fail");
        assert_eq!(report(&path, "/a").unwrap()["verdict"], "fail");
        assert_eq!(report(&path, "/b"), None);
        write("interrupted");
        assert_eq!(report(&path, "/a"), None);
        fs::write(&path, b"{").unwrap();
        assert_eq!(report(&path, "/a"), None);
    }

    #[test]
    fn a_verdict_must_be_borne_out_by_the_checks() {
        for (told, checks, good) in [
            ("pass", &["pass", "skip", "n/a"][..], true),
            ("pass", &["pass", "fail"], false),
            ("pass", &["pass", "in-use"], false),
            ("pass", &["pass", "interrupted"], false),
            ("fail", &["fail", "other"], false),
            ("pass", &["skip"], false),
            ("pass", &[], false),
            ("fail", &["pass", "fail", "in-use"], true),
            ("fail", &["pass"], false),
            ("in-use", &["pass", "in-use"], true),
            ("in-use", &["pass"], false),
            ("in-use", &["fail", "in-use"], false),
            ("interrupted", &["pass"], false),
            ("none", &["pass"], false),
        ] {
            let report = |id| {
                let check = |verdict| serde_json::json!({ "id": id, "verdict": verdict });
                let checks: Vec<_> = checks.iter().map(check).collect();
                serde_json::json!({ "verdict": told, "checks": checks })
            };
            assert_eq!(verdict(&report("size")).is_ok(), good, "{}", report("size"));
            assert!(verdict(&report("of another version")).is_err());
        }
        assert!(verdict(&Value::Null).is_err());
    }
}
