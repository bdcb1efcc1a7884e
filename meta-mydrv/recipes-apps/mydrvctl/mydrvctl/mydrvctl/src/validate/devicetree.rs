// SPDX-License-Identifier: MIT

//! The running system's device tree, as the kernel shows it in /sys/firmware/devicetree/base: a folder for each node, a file for each
//! property, numbers big-endian (Devicetree Specification 0.4, section 2.2).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What the driver binds to.
pub const COMPATIBLE: &str = "mydrv,dma-buffer";

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    dir: PathBuf,
    base: PathBuf,
}

impl Node {
    /// The root node. The folder's links are followed, since sysfs links to nodes are compared with it.
    pub fn root(base: &Path) -> io::Result<Self> {
        let dir = fs::canonicalize(base)?;
        Ok(Self { base: dir.clone(), dir })
    }

    /// The node's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The node's name in the tree, e.g. `/reserved-memory/mydrv-cma`.
    pub fn name(&self) -> String {
        format!("/{}", self.dir.strip_prefix(&self.base).unwrap_or(&self.dir).display())
    }

    /// The node's children, by name.
    pub fn children(&self) -> Vec<Self> {
        let mut children: Vec<_> = fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| Self {
                dir: entry.path(),
                base: self.base.clone(),
            })
            .collect();
        children.sort_by(|a, b| a.dir.cmp(&b.dir));
        children
    }

    /// A child.
    pub fn child(&self, name: &str) -> Option<Self> {
        let dir = self.dir.join(name);
        dir.is_dir().then(|| Self {
            dir,
            base: self.base.clone(),
        })
    }

    /// This node and all below it for which `wanted` holds.
    pub fn find(&self, wanted: &impl Fn(&Self) -> bool) -> Vec<Self> {
        let mut found: Vec<_> = wanted(self).then(|| self.clone()).into_iter().collect();
        for child in self.children() {
            found.extend(child.find(wanted));
        }
        found
    }

    fn bytes(&self, property: &str) -> Option<Vec<u8>> {
        fs::read(self.dir.join(property)).ok()
    }

    /// The properties and their values, by name.
    pub fn properties(&self) -> Vec<(String, Vec<u8>)> {
        let mut properties: Vec<_> = fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
            .filter_map(|entry| Some((entry.file_name().into_string().ok()?, fs::read(entry.path()).ok()?)))
            .collect();
        properties.sort();
        properties
    }

    /// The node of /reserved-memory that `memory-region` names.
    pub fn region(&self) -> Option<Self> {
        let wanted = *self.cells("memory-region")?.first()?;
        self.reserved_memory()?
            .children()
            .into_iter()
            .find(|node| node.cells("phandle").is_some_and(|cells| cells == [wanted]))
    }

    fn reserved_memory(&self) -> Option<Self> {
        let root = Self {
            dir: self.base.clone(),
            base: self.base.clone(),
        };
        root.child("reserved-memory")
    }

    /// Whether the node has the property, whatever its value.
    pub fn has(&self, property: &str) -> bool {
        self.dir.join(property).is_file()
    }

    /// A string, or the first of a list of strings.
    pub fn string(&self, property: &str) -> Option<String> {
        self.strings(property).into_iter().next()
    }

    /// A list of strings.
    pub fn strings(&self, property: &str) -> Vec<String> {
        let bytes = self.bytes(property).unwrap_or_default();
        let text = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
        if bytes.is_empty() {
            return Vec::new();
        }
        text.split(|&byte| byte == 0)
            .map(|part| String::from_utf8_lossy(part).into_owned())
            .collect()
    }

    /// 32-bit cells; `None` where the property is missing or no whole number of them.
    pub fn cells(&self, property: &str) -> Option<Vec<u32>> {
        let bytes = self.bytes(property)?;
        let (cells, rest) = bytes.as_chunks::<4>();
        rest.is_empty()
            .then(|| cells.iter().map(|&cell| u32::from_be_bytes(cell)).collect())
    }

    /// A number of one or two cells.
    pub fn number(&self, property: &str) -> Option<u64> {
        number(&self.cells(property)?)
    }

    /// The pairs of address and length in `reg` or `alloc-ranges`, by the cell counts of `parent`.
    pub fn ranges(&self, property: &str, parent: &Self) -> Option<Vec<(u64, u64)>> {
        let cells = self.cells(property)?;
        // The specification's defaults.
        let address = parent.number("#address-cells").unwrap_or(2);
        let size = parent.number("#size-cells").unwrap_or(1);
        // What number() takes.
        let counts = 1..=2;
        if !counts.contains(&address) || !counts.contains(&size) {
            return None;
        }
        let (address, size) = (address as usize, size as usize);
        if cells.is_empty() || !cells.len().is_multiple_of(address + size) {
            return None;
        }
        cells
            .chunks(address + size)
            .map(|pair| Some((number(&pair[..address])?, number(&pair[address..])?)))
            .collect()
    }

    /// Whether the node is in use: `status` is missing, `okay` or `ok`.
    pub fn enabled(&self) -> bool {
        self.string("status").is_none_or(|status| status == "okay" || status == "ok")
    }

    /// Whether the node is a mydrv buffer.
    pub fn is_buffer(&self) -> bool {
        self.strings("compatible").iter().any(|compatible| compatible == COMPATIBLE)
    }
}

/// A number of one or two cells; more would not fit any machine here.
fn number(cells: &[u32]) -> Option<u64> {
    match *cells {
        [low] => Some(low.into()),
        [high, low] => Some(u64::from(high) << 32 | u64::from(low)),
        _ => None,
    }
}

/// Where a buffer's memory comes from, by its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Region {
    /// No `memory-region`: the kernel's default pool.
    Default,
    /// A node of /reserved-memory.
    Reserved {
        /// The node's name in the tree.
        name: String,
        /// The first byte in physical memory, where the tree says so (`reg`).
        base: Option<u64>,
        /// The places the kernel may choose from, where the tree says so (`alloc-ranges`), as address and length in bytes.
        choices: Vec<(u64, u64)>,
        /// The length in bytes.
        size: u64,
    },
}

impl Region {
    /// Follows a buffer's `memory-region`. The error is what was found instead.
    pub fn of(buffer: &Node) -> Result<Self, String> {
        let Some(phandle) = buffer.cells("memory-region") else {
            return Ok(Self::Default);
        };
        let Some(&phandle) = phandle.first() else {
            return Err("memory-region is empty".into());
        };
        let parent = buffer.reserved_memory().ok_or("there is no /reserved-memory")?;
        let region = buffer
            .region()
            .ok_or_else(|| format!("memory-region's phandle {phandle:#x} is no node of /reserved-memory"))?;
        let name = region.name();
        if !region.enabled() {
            return Err(format!("{name} is disabled"));
        }
        let compatible = region.strings("compatible");
        if !compatible.iter().any(|compatible| compatible == "shared-dma-pool") {
            return Err(format!("{name} has compatible {:?}", compatible.join(", ")));
        }
        let reg = region.ranges("reg", &parent).and_then(|ranges| ranges.first().copied());
        let size = match reg {
            Some((_, size)) => size,
            None => region
                .number("size")
                .ok_or_else(|| format!("{name} has neither reg nor size"))?,
        };
        if size == 0 {
            return Err(format!("{name} is empty"));
        }
        let choices = region.ranges("alloc-ranges", &parent).unwrap_or_default();
        Ok(Self::Reserved {
            name,
            base: reg.map(|(base, _)| base),
            choices,
            size,
        })
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A device tree in a folder of its own, gone when dropped.
    pub struct Tree(pub PathBuf);

    impl Tree {
        pub fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("mydrv-tree-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            Self(fs::canonicalize(dir).unwrap())
        }

        pub fn put(&self, property: &str, value: &[u8]) -> &Self {
            let path = self.0.join(property);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
            self
        }

        pub fn cells(&self, property: &str, cells: &[u32]) -> &Self {
            self.put(
                property,
                &cells.iter().flat_map(|cell| cell.to_be_bytes()).collect::<Vec<_>>(),
            )
        }

        fn buffer(&self) -> Node {
            Node::root(&self.0).unwrap().child("buffer").unwrap()
        }

        /// A buffer whose region has compatible and phandle, but no place or size yet.
        fn with_region(name: &str) -> Self {
            let tree = Self::new(name);
            tree.put("buffer/compatible", b"vendor,board-buffer\0mydrv,dma-buffer\0")
                .cells("buffer/memory-region", &[7])
                .cells("reserved-memory/#address-cells", &[2])
                .cells("reserved-memory/#size-cells", &[2])
                .put("reserved-memory/cma/compatible", b"shared-dma-pool\0")
                .cells("reserved-memory/cma/phandle", &[7]);
            tree
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn finds_enabled_buffers_at_any_depth() {
        let tree = Tree::with_region("find");
        tree.put("soc/bus/buffer@1/compatible", b"mydrv,dma-buffer\0")
            .put("soc/bus/buffer@1/status", b"disabled\0");
        let found = Node::root(&tree.0).unwrap().find(&|node| node.is_buffer());
        let names: Vec<_> = found.iter().map(|node| (node.name(), node.enabled())).collect();
        assert_eq!(names, [("/buffer".into(), true), ("/soc/bus/buffer@1".into(), false)]);
    }

    #[test]
    fn compatible_must_match_whole() {
        let tree = Tree::new("whole");
        tree.put("a/compatible", b"mydrv,dma-buffer2\0")
            .put("b/compatible", b"")
            .put("c/name", b"c\0");
        assert!(Node::root(&tree.0).unwrap().find(&|node| node.is_buffer()).is_empty());
    }

    #[test]
    fn region_with_reg() {
        let tree = Tree::with_region("reg");
        tree.cells("reserved-memory/cma/reg", &[1, 0x8000_0000, 0, 0x40_0000]);
        let expected = Region::Reserved {
            name: "/reserved-memory/cma".into(),
            base: Some(0x1_8000_0000),
            choices: vec![],
            size: 0x40_0000,
        };
        assert_eq!(Region::of(&tree.buffer()), Ok(expected));
    }

    #[test]
    fn region_with_size_and_choices() {
        let tree = Tree::with_region("size");
        tree.cells("reserved-memory/cma/size", &[0, 0x400_0000])
            .cells("reserved-memory/cma/alloc-ranges", &[0, 0x4000_0000, 0, 0x2000_0000]);
        let Ok(Region::Reserved {
            base: None,
            choices,
            size: 0x400_0000,
            ..
        }) = Region::of(&tree.buffer())
        else {
            panic!("{:?}", Region::of(&tree.buffer()));
        };
        assert_eq!(choices, [(0x4000_0000, 0x2000_0000)]);
    }

    #[test]
    fn no_region_is_the_default_pool() {
        let tree = Tree::new("default");
        tree.put("buffer/compatible", b"mydrv,dma-buffer\0");
        assert_eq!(Region::of(&tree.buffer()), Ok(Region::Default));
    }

    #[test]
    fn each_broken_region_is_told_apart() {
        let tree = Tree::with_region("broken");
        assert_eq!(
            Region::of(&tree.buffer()).unwrap_err(),
            "/reserved-memory/cma has neither reg nor size"
        );
        tree.cells("reserved-memory/cma/size", &[0, 0]);
        assert_eq!(Region::of(&tree.buffer()).unwrap_err(), "/reserved-memory/cma is empty");
        tree.put("reserved-memory/cma/compatible", b"restricted-dma-pool\0");
        assert_eq!(
            Region::of(&tree.buffer()).unwrap_err(),
            "/reserved-memory/cma has compatible \"restricted-dma-pool\""
        );
        tree.put("reserved-memory/cma/status", b"disabled\0");
        assert_eq!(Region::of(&tree.buffer()).unwrap_err(), "/reserved-memory/cma is disabled");
        tree.cells("buffer/memory-region", &[8]);
        assert_eq!(
            Region::of(&tree.buffer()).unwrap_err(),
            "memory-region's phandle 0x8 is no node of /reserved-memory"
        );
    }

    /// Any property of any value: the tree comes from a boot loader.
    fn cell() -> impl Strategy<Value = u32> {
        prop_oneof![0..4_u32, Just(u32::MAX), any::<u32>()]
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            3 => proptest::collection::vec(cell(), 0..7).prop_map(|cells| cells.iter().flat_map(|cell| cell.to_be_bytes()).collect()),
            1 => any::<Vec<u8>>(),
            1 => Just(b"shared-dma-pool\0".to_vec()),
        ]
    }

    proptest! {
        // PROPTEST_CASES=100000 cargo test no_tree -- --nocapture
        #[test]
        fn no_tree_is_a_panic(
            values in proptest::collection::vec((proptest::sample::select(vec![
                "buffer/memory-region", "buffer/size", "buffer/label", "buffer/status", "buffer/compatible", "buffer/dma-coherent",
                "reserved-memory/#address-cells", "reserved-memory/#size-cells", "reserved-memory/pool/phandle", "reserved-memory/pool/reg",
                "reserved-memory/pool/size", "reserved-memory/pool/alloc-ranges", "reserved-memory/pool/status",
            ]), value()), 0..14),
        ) {
            let tree = Tree::new("any");
            tree.put("reserved-memory/pool/compatible", b"shared-dma-pool\0")
                .cells("reserved-memory/pool/phandle", &[1])
                .cells("buffer/memory-region", &[1]);
            for (property, value) in &values {
                tree.put(property, value);
            }
            let buffer = tree.buffer();
            let _ = (Region::of(&buffer), buffer.number("size"), buffer.string("label"), buffer.enabled(), buffer.is_buffer());
        }
    }
}
