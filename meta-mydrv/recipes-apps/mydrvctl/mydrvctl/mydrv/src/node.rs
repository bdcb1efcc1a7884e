// SPDX-License-Identifier: MIT

//! Device nodes: what stat(2) shows of one, for programs that check it, and opening one without opening anything else.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags, Stat},
    io::Errno,
};

use crate::{
    discover::Candidate,
    error::{Error, Result},
};

/// Opens a device node. Anything else is refused without being opened: to open a watchdog would arm it, to open a FIFO would wait.
pub(crate) fn open(path: &Path, access: OFlags) -> Result<OwnedFd> {
    let error = |errno| Error::from_errno(path, "open", errno);
    let flags = access | OFlags::CLOEXEC | OFlags::NOCTTY;
    // A place in the file system alone: nobody's open() runs.
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(error)?;
    if !is_node(path, &rustix::fs::fstat(&place).map_err(error)?) {
        return Err(Error::NotMydrv { path: path.to_owned() });
    }
    // What was looked at, whatever the name means by now; where /proc is not mounted, by the name.
    let looked_at = format!("/proc/self/fd/{}", place.as_raw_fd());
    match rustix::fs::open(looked_at, flags, Mode::empty()) {
        Err(Errno::NOENT) => rustix::fs::open(path, flags, Mode::empty()),
        opened => opened,
    }
    .map_err(error)
}

/// Whether it is a node that the kernel calls `mydrvN`. Where sysfs is not mounted, any character device may be one.
fn is_node(path: &Path, stat: &Stat) -> bool {
    #[cfg(feature = "stand-in")]
    if crate::stand_in::node(path).is_some() {
        return true;
    }
    let _ = path;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice {
        return false;
    }
    let devices = Path::new("/sys/dev/char");
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let is_named = |event: String| {
        let mut names = event.lines().filter_map(|line| line.strip_prefix("DEVNAME=mydrv"));
        names.any(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match fs::read_to_string(devices.join(format!("{major}:{minor}/uevent"))) {
        Ok(event) => is_named(event),
        Err(_) => !devices.exists(),
    }
}

/// A device node, as stat(2) shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Major and minor number; `None`: the file is no character device.
    pub number: Option<(u32, u32)>,
    /// The permission bits, at most 0o7777.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Candidate {
    /// Looks at the device node, without opening it and without following a link.
    ///
    /// # Errors
    ///
    /// lstat(2)'s: there is no node.
    pub fn node_status(&self) -> io::Result<NodeStatus> {
        let metadata = fs::symlink_metadata(&self.path)?;
        #[cfg(feature = "stand-in")]
        if let Some(node) = crate::stand_in::node(&self.path) {
            return Ok(NodeStatus {
                number: node.number,
                mode: node.mode,
                uid: node.uid,
                gid: node.gid,
            });
        }
        let number = metadata.rdev();
        Ok(NodeStatus {
            number: metadata
                .file_type()
                .is_char_device()
                .then(|| (rustix::fs::major(number), rustix::fs::minor(number))),
            mode: metadata.permissions().mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A FIFO that nobody writes to would hang whoever opens it.
    #[test]
    fn what_is_no_node_of_the_driver_is_refused_without_being_opened() {
        let folder = std::env::temp_dir().join(format!("mydrv-node-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let (fifo, file, link) = (folder.join("fifo"), folder.join("file"), folder.join("link"));
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&fifo, &link).unwrap();
        for path in [&*fifo, &file, &link, &folder, Path::new("/dev/null")] {
            let error = open(path, OFlags::RDONLY).unwrap_err();
            assert!(matches!(error, Error::NotMydrv { .. }), "{}: {error}", path.display());
        }
        assert!(matches!(
            open(&folder.join("none"), OFlags::RDONLY),
            Err(Error::NotFound { .. })
        ));
        fs::remove_dir_all(folder).unwrap();
    }
}
