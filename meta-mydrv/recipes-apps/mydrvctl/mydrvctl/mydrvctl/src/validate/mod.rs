// SPDX-License-Identifier: MIT

//! `mydrvctl validate`: the order of the checks, and what each one builds on. What they do is in `system` (device tree, driver,
//! node), `identity` (what the driver says of the buffer), `memory` (what it holds), `sharing` (who sees it) and `refusals` (what the driver
//! must not allow).

mod checks;
mod devicetree;
mod identity;
mod memory;
mod refusals;
mod report;
mod sharing;
mod system;

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use mydrv::{Lock, OpenOptions, Selector};

pub use sharing::peer;

use self::{
    devicetree::Node,
    report::{Report, Spec, Voice, not_applicable},
};
use crate::{
    cli::{Cli, Expectation, Validate},
    failure::Result,
    output,
};

/// Where a boot's report goes; the unit's RuntimeDirectory.
pub const BOOT_REPORT: &str = "run/mydrv/validate.json";

/// What the checks are told.
struct Context {
    root: PathBuf,
    deadline: Instant,
    quick: bool,
    /// Whether the checks that the boot leaves out run too.
    full: bool,
    /// The labels of the buffers to which nothing is written.
    #[allow(dead_code, reason = "for the checks that write")]
    keep: Vec<String>,
    /// How long the test of the memory may take.
    #[allow(dead_code, reason = "for the checks of the memory")]
    time_budget: Option<Duration>,
    /// The buffers that must exist; empty: whichever the device tree describes.
    expect: Vec<Expectation>,
    /// The checks that must run.
    require: Vec<String>,
}

impl Context {
    /// The size in bytes that the command line asks of this buffer, if any.
    fn expected_size(&self, node: &Node) -> Option<u64> {
        let name = node.string("label").unwrap_or_else(|| node.name());
        self.expect.iter().find(|expected| expected.label == name)?.size
    }

    /// Asks until there is an answer or the time is over, at least once.
    fn wait_for<T>(&self, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            match ask() {
                None if Instant::now() < self.deadline => thread::sleep(Duration::from_millis(50)),
                answer => return answer,
            }
        }
    }
}

/// The command.
pub fn run(cli: &Cli, args: &Validate) -> Result {
    let context = Context {
        root: cli.root.clone(),
        deadline: Instant::now() + Duration::from_secs(args.wait),
        quick: args.quick,
        full: args.full,
        keep: args.keep.clone(),
        time_budget: args.time_budget,
        expect: args.expect.iter().flat_map(|argument| argument.0.clone()).collect(),
        require: args.require.clone(),
    };
    let mode = match (args.boot, args.quick, args.full) {
        (true, false, false) => "boot",
        (true, true, false) => "boot-quick",
        (false, true, false) => "quick",
        (false, false, false) => "default",
        (true, _, true) => "boot-full",
        (false, _, true) => "full",
    };
    let voice = match (cli.json, args.boot) {
        (true, _) => Voice::Json,
        (false, true) => Voice::Failures,
        (false, false) => Voice::All,
    };
    let mut report = Report::new(mode, voice, &context.require);
    let start = ("start", Some(&()));
    let nodes = report.check(
        Spec {
            id: "device-tree",
            expected: format!("an enabled node with compatible = \"{}\"", devicetree::COMPATIBLE),
            on: start,
        },
        |()| system::nodes(&context),
    );
    let wanted = cli.device.as_deref().map(Selector::from);
    let nodes = nodes.unwrap_or_default();
    let described = !nodes.is_empty();
    let mut validated = false;
    for node in nodes {
        if wanted.as_ref().is_none_or(|wanted| system::is(&context, wanted, &node)) {
            validated = true;
            report.begin_device(node.name());
            check_device(&mut report, &context, &node);
        }
    }
    let boot = args.boot.then(|| context.root.join(BOOT_REPORT));
    let paths: Vec<&Path> = boot.iter().chain(&args.report).map(PathBuf::as_path).collect();
    let result = report.finish(&paths);
    match wanted {
        Some(wanted) if described && !validated => Err(mydrv::Error::NotFound {
            device: wanted.to_string(),
        }
        .into()),
        _ => result,
    }
}

/// Every check of one buffer.
fn check_device(report: &mut Report, context: &Context, node: &Node) {
    let found = ("device-tree", Some(node));
    let region = report.check(
        Spec {
            id: "region",
            expected: "an enabled shared-dma-pool in /reserved-memory, or no memory-region".into(),
            on: found,
        },
        system::region,
    );
    let platform = report.check(
        Spec {
            id: "driver",
            expected: "driver mydrv bound to the node's platform device".into(),
            on: found,
        },
        |node| system::driver(context, node),
    );
    let candidate = report.check(
        Spec {
            id: "node",
            expected: "a misc character device /dev/mydrvN of this device tree node".into(),
            on: ("driver", platform.as_ref()),
        },
        |_| system::node(context, node),
    );
    if let Some(candidate) = &candidate {
        report.name_device(candidate.path.display().to_string());
    }
    let on_node = ("node", candidate.as_ref());
    report.check(
        Spec {
            id: "permissions",
            expected: "mode 0660, owner root, group mydrv".into(),
            on: on_node,
        },
        |candidate| system::permissions(context, candidate),
    );
    // Opened for reading alone at first: opening for writing would end the pristine state. This file also holds the lock.
    let reader = report.check(
        Spec {
            id: "abi",
            expected: format!("nobody else using it, ABI {}", mydrv::abi::MYDRV_ABI_VERSION),
            on: on_node,
        },
        |candidate| identity::open(context, candidate),
    );
    let on_reader = ("abi", reader.as_ref());
    report.check(
        Spec {
            id: "label",
            expected: node
                .string("label")
                .map_or("no label".into(), |label| format!("label {label:?}")),
            on: on_reader,
        },
        |reader| identity::label(reader, node),
    );
    report.check(
        Spec {
            id: "properties",
            expected: identity::expected_properties(node),
            on: on_reader,
        },
        |reader| identity::configuration(reader, node),
    );
    let sized = reader.as_ref().zip(region.as_ref());
    let blame_size = if region.is_none() { "region" } else { "abi" };
    let size = report.check(
        Spec {
            id: "size",
            expected: identity::expected_size(context, node, region.as_ref()),
            on: (blame_size, sized.as_ref()),
        },
        |(reader, region)| identity::size(context, reader, node, region),
    );
    report.check(
        Spec {
            id: "physical-range",
            expected: identity::expected_range(region.as_ref()),
            on: (blame_size, sized.as_ref()),
        },
        |(reader, region)| identity::physical_range(reader, region),
    );
    report.check(
        Spec {
            id: "mapping-flags",
            expected: "without the right to execute later (me), to grow (de), or to be dumped (dd)".into(),
            on: on_reader,
        },
        identity::mapping_flags,
    );
    let size = ("size", size.as_ref());
    report.check(
        Spec {
            id: "zeroing",
            expected: "every byte 0".into(),
            on: (size.0, size.1.and(reader.as_ref())),
        },
        |reader| memory::zeroing(context, reader),
    );
    let writer = report.check(
        Spec {
            id: "open-write",
            expected: "a file open for reading and writing".into(),
            on: (size.0, size.1.and(reader.as_ref())),
        },
        |reader| {
            if reader.info()?.flags.read_only() {
                return not_applicable("the buffer is read-only");
            }
            let writer = OpenOptions::new().write(true).lock(Lock::None).open(reader.path())?;
            Ok(("open".into(), writer))
        },
    );
    if context.full {
        report.check(
            Spec {
                id: "contiguity",
                expected: "each page at the buffer's physical address plus its offset".into(),
                on: ("open-write", writer.as_ref()),
            },
            |writer| memory::contiguity(context, writer),
        );
    }
    for pattern in memory::PATTERNS {
        report.check(
            Spec {
                id: pattern.id,
                expected: "every word reads back as written".into(),
                on: ("open-write", writer.as_ref()),
            },
            |writer| memory::pattern(context, writer, pattern),
        );
    }
    report.check(
        Spec {
            id: "pattern-address",
            expected: "every word, its offset added by XOR, reads back as such after all others changed".into(),
            on: ("open-write", writer.as_ref()),
        },
        |writer| memory::addresses(context, writer),
    );
    report.check(
        Spec {
            id: "read-write",
            expected: "the same bytes both ways, at odd offsets too".into(),
            on: ("open-write", writer.as_ref()),
        },
        sharing::read_write,
    );
    report.check(
        Spec {
            id: "two-mappings",
            expected: "what one writes, the other reads at once".into(),
            on: ("open-write", writer.as_ref()),
        },
        sharing::two_mappings,
    );
    report.check(
        Spec {
            id: "two-processes",
            expected: "what one writes, the other reads".into(),
            on: ("open-write", writer.as_ref()),
        },
        sharing::two_processes,
    );
    if context.full {
        refusals::check(report, ("abi", reader.as_ref()), ("open-write", writer.as_ref()));
    }

    // Last, since it closes every file: only then may the driver scrub.
    let info = reader.as_ref().and_then(|reader| reader.info().ok());
    let closed = info.map(|info| {
        (
            info,
            reader.as_ref().map(|reader| reader.path().to_owned()).unwrap_or_default(),
        )
    });
    let dirtied = writer.is_some();
    drop((writer, reader));
    report.check(
        Spec {
            id: "scrub",
            expected: "every byte 0 on the next open".into(),
            on: ("abi", closed.as_ref()),
        },
        |(info, path)| memory::scrub(context, info, path, dirtied),
    );
}

/// How much memory one step of a check handles.
const CHUNK: usize = 1 << 20;

/// The pages that stand for the whole buffer: the first and the last, both sides of some 2 MiB borders (where a mapping may change from
/// one block to the next), and some in between.
fn sample(size: u64) -> Vec<u64> {
    let page = rustix::param::page_size() as u64;
    let last = size.saturating_sub(page);
    let block = 2 << 20;
    let mut offsets = vec![0, last, block - page, block, size / 2 / block * block];
    let mut random = output::Random::new(size);
    offsets.extend((0..27).map(|_| random.next_word() % size.max(1) / page * page));
    offsets.retain(|&offset| offset <= last);
    offsets.sort_unstable();
    offsets.dedup();
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_has_both_ends_and_stays_inside() {
        let page = rustix::param::page_size() as u64;
        for size in [page, 3 * page, 2 << 20, 64 << 20] {
            let offsets = sample(size);
            assert_eq!((offsets[0], offsets[offsets.len() - 1]), (0, size - page), "{size}");
            assert!(offsets.iter().all(|offset| offset % page == 0 && offset + page <= size));
            assert!(offsets.is_sorted_by(|a, b| a < b));
        }
        assert!(sample(64 << 20).contains(&(2 << 20)));
    }
}
