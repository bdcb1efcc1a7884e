// SPDX-License-Identifier: MIT

//! What stat(2) shows of a device node, for programs that check it.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
};

use crate::discover::Candidate;

/// A device node, as stat(2) shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
