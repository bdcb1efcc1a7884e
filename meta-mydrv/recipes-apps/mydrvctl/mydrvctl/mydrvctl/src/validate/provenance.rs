// SPDX-License-Identifier: MIT

//! What a report is about: which boot of which machine, with which kernel, driver and device tree. So that reports of many machines can be told
//! apart and compared.

use std::{fs, path::Path};

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::devicetree::Node;

/// Of this program, for `machine_id`.
const APPLICATION_ID: [u8; 16] = 0x5cb0_97f1_16c2_4d0c_b0dc_6f23_4ba3_8f7e_u128.to_be_bytes();

/// What a report is about. What cannot be told is null.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Provenance {
    /// The ABI version of this program; the driver's is in the check `abi`.
    pub abi_version: u32,
    /// The kernel's release, as uname(2) has it.
    pub kernel: String,
    /// The boot, a UUID (/proc/sys/kernel/random/boot_id).
    pub boot_id: Option<String>,
    /// The machine, for this program alone: `systemd-id128 machine-id --app-specific=5cb097f116c24d0cb0dc6f234ba38f7e` prints the same there. The machine ID
    /// itself is not for networks (machine-id(5)).
    pub machine_id: Option<String>,
    /// The driver's srcversion: a hash of its sources. Null where it is built in, or the kernel lacks CONFIG_MODULE_SRCVERSION_ALL.
    pub module_srcversion: Option<String>,
    /// The driver's build ID, in hexadecimal: another one for each build. Null where it is built in.
    pub module_build_id: Option<String>,
    /// SHA-256 of the buffers' nodes and their regions' in the running device tree, in hexadecimal: two machines with the same value have the
    /// same buffers.
    pub device_tree_sha256: Option<String>,
}

impl Provenance {
    /// Of the running system, under `root`.
    pub fn new(root: &Path) -> Self {
        let line = |path: &str| Some(fs::read_to_string(root.join(path)).ok()?.trim().to_owned()).filter(|line| !line.is_empty());
        Self {
            abi_version: mydrv::abi::MYDRV_ABI_VERSION,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            boot_id: line("proc/sys/kernel/random/boot_id"),
            machine_id: line("etc/machine-id").and_then(|id| machine_id(&id)),
            module_srcversion: line("sys/module/mydrv/srcversion"),
            module_build_id: fs::read(root.join("sys/module/mydrv/notes/.note.gnu.build-id"))
                .ok()
                .and_then(|note| build_id(&note)),
            device_tree_sha256: device_tree(&root.join("sys/firmware/devicetree/base")),
        }
    }
}

/// sd_id128_get_machine_app_specific(3).
fn machine_id(id: &str) -> Option<String> {
    let id = (id.len() == 32).then(|| u128::from_str_radix(id, 16)).and_then(Result::ok)?;
    let mut mac = <Hmac<Sha256>>::new_from_slice(&id.to_be_bytes()).ok()?;
    mac.update(&APPLICATION_ID);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&mac.finalize().into_bytes()[..16]);
    // A UUID of version 4, variant DCE.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Some(hexadecimal(&bytes))
}

/// An ELF note in the machine's byte order: the lengths of name and descriptor, the type, "GNU", the build ID (elf(5)).
fn build_id(note: &[u8]) -> Option<String> {
    let (head, rest) = note.split_first_chunk::<16>()?;
    let length = u32::from_ne_bytes(*head[4..].first_chunk()?) as usize;
    let id = rest.get(..length).filter(|id| !id.is_empty() && head.ends_with(b"GNU\0"))?;
    Some(hexadecimal(id))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Each node's path, then each of its properties by name, every part preceded by its length.
fn device_tree(base: &Path) -> Option<String> {
    let root = Node::root(base).ok()?;
    let mut nodes = root.find(&Node::is_buffer);
    let regions: Vec<_> = nodes.iter().filter_map(Node::region).collect();
    nodes.extend(regions);
    nodes.sort_by_key(Node::name);
    nodes.dedup();
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    for node in &nodes {
        add(node.name().as_bytes());
        for (name, value) in node.properties() {
            add(name.as_bytes());
            add(&value);
        }
    }
    (!nodes.is_empty()).then(|| hexadecimal(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::{super::devicetree::tests::Tree, *};

    #[test]
    fn machine_ids_are_systemds() {
        // What `systemd-id128 machine-id --app-specific=5cb097f116c24d0cb0dc6f234ba38f7e` prints where /etc/machine-id holds this.
        assert_eq!(
            machine_id("0123456789abcdef0123456789abcdef").unwrap(),
            "0117a0c7bdde48f5b8995c43b6f63b68"
        );
        for bad in [
            "",
            "uninitialized",
            "0123456789abcdef0123456789abcde",
            "0123456789abcdef0123456789abcdeg",
        ] {
            assert_eq!(machine_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_build_id_is_a_notes_descriptor() {
        let note = |length: u32, name: &[u8], id: &[u8]| {
            [&4_u32.to_ne_bytes(), &length.to_ne_bytes(), &3_u32.to_ne_bytes(), name, id].concat()
        };
        assert_eq!(build_id(&note(3, b"GNU\0", &[0xab, 1, 2])).as_deref(), Some("ab0102"));
        assert_eq!(build_id(&note(2, b"GNU\0", &[0xab, 1, 2, 0])).as_deref(), Some("ab01"));
        for bad in [
            note(4, b"GNU\0", &[1, 2, 3]),
            note(0, b"GNU\0", &[]),
            note(1, b"XXX\0", &[1]),
            vec![],
        ] {
            assert_eq!(build_id(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_hash_is_of_the_buffers_and_their_regions() {
        let tree = Tree::new("provenance");
        assert_eq!(device_tree(&tree.0), None);
        assert_eq!(device_tree(&tree.0.join("none")), None);
        tree.put("a/compatible", b"mydrv,dma-buffer\0")
            .cells("a/memory-region", &[7])
            .cells("reserved-memory/cma/phandle", &[7])
            .cells("reserved-memory/other/phandle", &[8])
            .put("b/label", b"b\0");
        let before = device_tree(&tree.0).unwrap();
        assert_eq!(before.len(), 64);
        tree.put("b/label", b"c\0").cells("reserved-memory/other/size", &[0, 4096]);
        assert_eq!(device_tree(&tree.0).unwrap(), before);
        let mut seen = vec![before];
        for change in [
            ("a/label", &b"a\0"[..]),
            ("a/labe", b"la\0"),
            ("reserved-memory/cma/size", b"\0\0\0\0\0\0\x10\0"),
            ("b/compatible", b"mydrv,dma-buffer\0"),
        ] {
            tree.put(change.0, change.1);
            let now = device_tree(&tree.0).unwrap();
            assert!(!seen.contains(&now), "{}", change.0);
            seen.push(now);
        }
    }

    #[test]
    fn what_cannot_be_told_is_none() {
        let tree = Tree::new("provenance-none");
        tree.put("etc/machine-id", b"uninitialized\n")
            .put("sys/module/mydrv/srcversion", b"\n");
        let found = Provenance::new(&tree.0);
        assert_eq!(
            (
                found.boot_id,
                found.machine_id,
                found.module_srcversion,
                found.device_tree_sha256
            ),
            (None, None, None, None)
        );
        tree.put("proc/sys/kernel/random/boot_id", b"0e1c\n")
            .put("sys/module/mydrv/srcversion", b"ABC\n");
        let found = Provenance::new(&tree.0);
        assert_eq!(
            (found.boot_id.as_deref(), found.module_srcversion.as_deref()),
            (Some("0e1c"), Some("ABC"))
        );
    }
}
