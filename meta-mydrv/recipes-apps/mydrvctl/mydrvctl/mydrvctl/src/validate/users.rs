// SPDX-License-Identifier: MIT

//! Who else has a device open, as far as this process may see: by their locks, and by their files.

use std::{
    collections::BTreeSet,
    fs,
    os::{linux::fs::MetadataExt as _, unix::fs::MetadataExt as _},
    path::Path,
    rc::Rc,
};

use mydrv::Device;

use super::report::Doubt;

/// The other processes that use the file, for people: `process 12 (app)`. Empty where none is seen, which proves nothing.
pub fn of(root: &Path, path: &Path) -> Vec<String> {
    let mut processes = lockers(root, path).unwrap_or_default();
    processes.extend(openers(root, path));
    processes.remove(&std::process::id());
    processes
        .into_iter()
        .map(
            |process| match fs::read_to_string(root.join(format!("proc/{process}/comm"))) {
                Ok(name) => format!("process {process} ({})", name.trim()),
                Err(_) => format!("process {process}"),
            },
        )
        .collect()
}

/// Those, or that they cannot be seen.
pub fn named(root: &Path, path: &Path) -> String {
    match &*of(root, path) {
        [] => format!(
            "a process that this one may not see (find it as root: fuser -v {})",
            path.display()
        ),
        users => users.join(", "),
    }
}

/// What to ask when a check of the memory fails: whether somebody else may have changed it meanwhile, and who. By what the driver counts; a program
/// needs no lock to be counted, and may have left again. `reader` is this process's only file until then, and it will open one for writing.
pub fn doubt(root: &Path, reader: &Rc<Device>) -> Option<Doubt> {
    let before = reader.users().ok()?;
    let path = reader.path().to_owned();
    // Not kept open by this: the last close is what a later check waits for.
    let reader = Rc::downgrade(reader);
    let root = root.to_owned();
    Some(Box::new(move |own| {
        let now = reader.upgrade()?.users().ok()?;
        let written = u64::from(own.saturating_sub(1));
        if now.open_files > own {
            return Some(format!("in use by {} as well", named(&root, &path)));
        }
        (now.opened_for_writing > before.opened_for_writing + written)
            .then(|| "another process had it open for writing meanwhile".into())
    }))
}

/// By /proc/locks, whose lines are `1: FLOCK  ADVISORY  WRITE 706 00:05:341 0 EOF` (proc_locks(5)).
fn lockers(root: &Path, path: &Path) -> Option<BTreeSet<u32>> {
    let file = fs::metadata(path).ok()?;
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let wanted = format!("{major:02x}:{minor:02x}:{}", file.st_ino());
    let locks = fs::read_to_string(root.join("proc/locks")).ok()?;
    Some(
        locks
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace().filter(|&word| word != "->").skip(4);
                let process = words.next()?.parse().ok()?;
                (words.next()? == wanted && process != 0).then_some(process)
            })
            .collect(),
    )
}

/// By /proc/PID/fd, which root sees of all processes, others of their own.
fn openers(root: &Path, path: &Path) -> BTreeSet<u32> {
    let wanted = fs::metadata(path).map_or(0, |file| file.rdev());
    if wanted == 0 {
        // No device: other files below /dev are none either, e.g. those in /dev/shm.
        return BTreeSet::new();
    }
    fs::read_dir(root.join("proc"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let process = entry.file_name().to_str()?.parse().ok()?;
            let files = fs::read_dir(entry.path().join("fd")).ok()?;
            let has = |file: fs::DirEntry| {
                // The link's own text first: following every link would disturb what is behind it.
                fs::read_link(file.path()).is_ok_and(|target| target.starts_with("/dev"))
                    && fs::metadata(file.path()).is_ok_and(|file| file.rdev() == wanted)
            };
            files.flatten().any(has).then_some(process)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_tells_its_process() {
        let path = std::env::temp_dir().join(format!("mydrvctl-users-{}", std::process::id()));
        let file = fs::File::create(&path).unwrap();
        assert_eq!(lockers(Path::new("/"), &path), Some(BTreeSet::new()));
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockShared).unwrap();
        let found = lockers(Path::new("/"), &path).unwrap();
        // Of one's own nothing is said.
        assert!(of(Path::new("/"), &path).is_empty());
        let hidden = named(Path::new("/"), &path);
        fs::remove_file(&path).unwrap();
        assert_eq!(found, [std::process::id()].into());
        assert!(hidden.contains("fuser -v"), "{hidden}");
    }

    #[test]
    fn an_open_file_tells_its_process() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdin(fs::File::open("/dev/full").unwrap())
            .spawn()
            .unwrap();
        let users = of(Path::new("/"), Path::new("/dev/full"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            users
                .iter()
                .any(|user| user.starts_with(&format!("process {} (", child.id()))),
            "{users:?}"
        );
    }
}
