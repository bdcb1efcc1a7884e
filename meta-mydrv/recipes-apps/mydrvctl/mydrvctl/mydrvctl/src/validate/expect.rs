// SPDX-License-Identifier: MIT

//! What a product expects beside what the device tree says: a list of buffers, and a list of checks. And the checks that look at several
//! buffers at once.

use std::{ops::Range, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    checks::{self, Check, Depth},
    devicetree::Node,
    report::{Outcome, fail, not_applicable, skip},
};
use crate::{
    cli::{Expectation, Validate},
    failure::{Failure, Result},
    output,
};

/// In place of the list of all checks that every boot can run.
const BOOT: &str = "boot";

/// The buffers that the command line expects.
pub fn buffers(args: &Validate) -> Result<Vec<Expectation>> {
    let expected: Vec<Expectation> = args.expect.iter().flat_map(|argument| argument.0.clone()).collect();
    for (index, one) in expected.iter().enumerate() {
        if expected[..index].iter().any(|other| other.label == one.label) {
            return Err(Failure::Usage(format!(
                "--expect: {} stands there twice; name each buffer once (MYDRV_EXPECT holds such a list, too)",
                one.label
            )));
        }
    }
    Ok(expected)
}

/// The checks that the command line requires, `boot` standing for those that every boot can run.
pub fn required(args: &Validate) -> Result<Vec<Check>> {
    let mut required = Vec::new();
    for id in args.require.iter().map(|id| id.trim()).filter(|id| !id.is_empty()) {
        if id == BOOT {
            required.extend(checks::all().filter(|check| check.depth == Depth::Boot));
            continue;
        }
        match checks::find(id) {
            Some(check) if check.depth == Depth::Full && !args.full => {
                return Err(Failure::Usage(format!(
                    "--require: {id} runs with --full alone; add that, or take {id} out"
                )));
            }
            Some(check) => required.push(check),
            None => {
                let ids: Vec<_> = checks::all().map(|check| check.id).collect();
                return Err(Failure::Usage(format!(
                    "--require: there is no check {id:?} (MYDRV_REQUIRE holds such a list, too); there are {BOOT} (what every boot can run), {}",
                    ids.join(", ")
                )));
            }
        }
    }
    Ok(required)
}

/// Whether an expectation means this buffer.
pub fn means(expected: &Expectation, node: &Node) -> bool {
    node.string("label").as_ref() == Some(&expected.label) || node.name() == expected.label
}

/// One expectation, in words.
pub fn words(expected: &Expectation) -> String {
    match expected.size {
        Some(size) => format!("a buffer {}, {}", expected.label, output::size(size)),
        None => format!("a buffer {}", expected.label),
    }
}

/// That an expected buffer is there. Its size is the `size` check's.
pub fn present(expected: &Expectation, nodes: &[Node]) -> Outcome {
    match nodes.iter().find(|node| means(expected, node)) {
        Some(node) => Ok((node.name(), ())),
        None => {
            let names: Vec<_> = nodes.iter().map(name).collect();
            fail(
                format!("missing: the device tree describes {}", names.join(", ")),
                "boot the overlay that belongs to this system, or correct MYDRV_EXPECT in /etc/default/mydrv",
            )
        }
    }
}

/// That a buffer is one of the expected ones.
pub fn unexpected(expected: &[Expectation], node: &Node) -> Outcome {
    if expected.iter().any(|expected| means(expected, node)) {
        return Ok((name(node), ()));
    }
    fail(
        format!("unexpected: {}", name(node)),
        "boot the overlay that belongs to this system, or add the buffer to MYDRV_EXPECT in /etc/default/mydrv",
    )
}

fn name(node: &Node) -> String {
    match node.string("label") {
        Some(label) => format!("{label} ({})", node.name()),
        None => node.name(),
    }
}

/// That no two buffers have the same label.
pub fn labels(nodes: &[Node]) -> Outcome {
    let labelled: Vec<_> = nodes
        .iter()
        .filter_map(|node| Some((node.string("label")?, node.name())))
        .collect();
    for (index, (label, name)) in labelled.iter().enumerate() {
        if let Some((_, other)) = labelled[..index].iter().find(|(other, _)| other == label) {
            return fail(
                format!("label {label:?} of both {other} and {name}"),
                "give each buffer a label of its own in the overlay",
            );
        }
    }
    Ok((format!("{} labels", labelled.len()), ()))
}

/// Where a buffer is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Place {
    /// The buffer's device, or its node where it has none.
    pub device: String,
    /// Its node in the device tree.
    pub node: String,
    /// Its first byte in physical memory; null where that could not be told.
    pub physical_address: Option<u64>,
    /// Its bytes; null likewise.
    pub size_bytes: Option<u64>,
}

impl Place {
    fn range(&self) -> Option<Range<u64>> {
        let start = self.physical_address?;
        Some(start..start.saturating_add(self.size_bytes?))
    }
}

/// What the report of another process tells of the device's place.
pub fn place_in(report: &Value, device: &Path) -> Option<Place> {
    let places = Vec::<Place>::deserialize(&report["buffers"]).ok()?;
    places.into_iter().find(|place| Path::new(&place.device) == device)
}

/// That no two buffers have memory in common.
pub fn apart(places: &[Place]) -> Outcome {
    if places.len() < 2 {
        return not_applicable("there is one buffer alone");
    }
    let known: Vec<_> = places
        .iter()
        .filter_map(|place| Some((place.device.as_str(), place.range()?)))
        .collect();
    for (index, (device, range)) in known.iter().enumerate() {
        let common = |(_, other): &&(&str, Range<u64>)| range.start < other.end && other.start < range.end;
        if let Some((other_device, other)) = known[..index].iter().find(common) {
            return fail(
                format!(
                    "{other_device} at {:#x}..{:#x} and {device} at {:#x}..{:#x} have memory in common",
                    other.start, other.end, range.start, range.end
                ),
                "give each buffer a region of its own in the overlay, none overlapping another",
            );
        }
    }
    if let Some(unknown) = places.iter().find(|place| place.range().is_none()) {
        return skip(format!("where {} is could not be told", unknown.device));
    }
    Ok((format!("{} buffers apart", places.len()), ()))
}

#[cfg(test)]
mod tests {
    use super::{super::devicetree::tests::Tree, super::report::Problem, *};

    fn expect(label: &str) -> Expectation {
        Expectation {
            label: label.into(),
            size: None,
        }
    }

    fn failure<T>(outcome: Outcome<T>) -> String {
        match outcome {
            Err(Problem::Fail(found, _)) => found,
            _ => panic!("no failure"),
        }
    }

    fn tree(name: &str) -> (Tree, Vec<Node>) {
        let tree = Tree::new(name);
        for (node, label) in [("a", "camera\0"), ("b", "camera\0"), ("c", "video\0"), ("d", "")] {
            tree.put(&format!("{node}/compatible"), b"mydrv,dma-buffer\0");
            if !label.is_empty() {
                tree.put(&format!("{node}/label"), label.as_bytes());
            }
        }
        let nodes = Node::root(&tree.0).unwrap().find(&|node| node.is_buffer());
        (tree, nodes)
    }

    #[test]
    fn a_buffer_is_named_by_label_or_node() {
        let (_tree, nodes) = tree("expect-names");
        assert_eq!(present(&expect("video"), &nodes).ok().unwrap().0, "/c");
        assert_eq!(present(&expect("/d"), &nodes).ok().unwrap().0, "/d");
        for missing in ["d", "/e", "/", "vide", "camera "] {
            let found = failure(present(&expect(missing), &nodes));
            assert_eq!(
                found,
                "missing: the device tree describes camera (/a), camera (/b), video (/c), /d"
            );
        }
        let list = [expect("video"), expect("/a")];
        let unexpected: Vec<_> = nodes.iter().map(|node| unexpected(&list, node).is_err()).collect();
        assert_eq!(unexpected, [false, true, false, true]);
    }

    #[test]
    fn an_expectation_in_words() {
        let expected = Expectation {
            size: Some(64 << 20),
            ..expect("camera")
        };
        assert_eq!(words(&expected), "a buffer camera, 64 MiB");
        assert_eq!(words(&expect("/d")), "a buffer /d");
    }

    #[test]
    fn labels_are_unique_and_a_missing_one_is_none() {
        let (_tree, nodes) = tree("expect-labels");
        assert_eq!(failure(labels(&nodes)), "label \"camera\" of both /a and /b");
        assert_eq!(labels(&nodes[1..]).ok().unwrap().0, "2 labels");
        assert!(labels(&[nodes[3].clone(), nodes[3].clone()]).is_ok());
    }

    #[test]
    fn buffers_that_touch_do_not_overlap() {
        let place = |name: &str, range: Option<Range<u64>>| Place {
            device: name.into(),
            node: format!("/{name}"),
            physical_address: range.as_ref().map(|range| range.start),
            size_bytes: range.map(|range| range.end - range.start),
        };
        let of = |second| apart(&[place("a", Some(0x1000..0x3000)), place("b", second)]);
        assert!(of(Some(0x3000..0x4000)).is_ok());
        assert!(of(Some(0..0x1000)).is_ok());
        for overlapping in [0x2fff..0x4000, 0..0x1001, 0x1800..0x2000, 0..0x10000, 0x1000..0x3000] {
            assert!(failure(of(Some(overlapping))).starts_with("a at 0x1000..0x3000 and b at "));
        }
        assert!(matches!(of(None), Err(Problem::Skip(_))));
        assert!(matches!(apart(&[place("a", None)]), Err(Problem::NotApplicable(_))));
        // An overlap is one even where another buffer's place is unknown.
        let three = [place("a", Some(0..2)), place("b", None), place("c", Some(1..3))];
        assert!(matches!(apart(&three), Err(Problem::Fail(..))));
    }

    #[test]
    fn another_processs_report_tells_where_a_device_is() {
        let report = serde_json::json!({ "buffers": [
            { "device": "/dev/mydrv0", "node": "/a", "physical_address": 4096, "size_bytes": 8192 },
            { "device": "/dev/mydrv1", "node": "/b", "physical_address": null, "size_bytes": 4096 },
        ] });
        let place = |report, device| place_in(report, Path::new(device));
        assert_eq!(place(&report, "/dev/mydrv0").unwrap().range(), Some(4096..12288));
        let second = place(&report, "/dev/mydrv1").unwrap();
        assert_eq!((second.range(), second.size_bytes), (None, Some(4096)));
        assert!(place(&report, "/dev/mydrv2").is_none() && place(&Value::Null, "/dev/mydrv0").is_none());
    }
}
