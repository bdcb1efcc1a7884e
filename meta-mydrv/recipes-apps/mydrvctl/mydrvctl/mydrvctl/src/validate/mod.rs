// SPDX-License-Identifier: MIT

//! `mydrvctl validate`: the order of the checks, and what each one builds on. What they do is in `system` (device tree, driver,
//! node), `identity` (what the driver says of the buffer), `memory` (what it holds), `sharing` (who sees it) and `refusals` (what the driver
//! must not allow).

mod boot;
mod checks;
mod devicetree;
mod expect;
mod identity;
mod memory;
mod provenance;
mod refusals;
mod report;
mod sharing;
mod system;
mod users;

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

use mydrv::{Lock, OpenOptions, Selector};
use mydrv_memtest::PAGE_BYTES;

pub use boot::REPORT as BOOT_REPORT;
#[cfg(test)]
pub use report::Report as Document;
pub use sharing::peer;

use self::{
    boot::{Alarm, Claim, Part},
    devicetree::Node,
    report::{Report, Spec, Voice, fail, not_applicable},
};
use crate::{
    cli::{Cli, Expectation, Validate},
    failure::{Failure, Result},
    output,
    stop::Stop,
};

/// What the checks are told.
struct Context {
    root: PathBuf,
    /// Which part of the boot's validation this is.
    part: Part,
    /// Group and mode of the device nodes.
    group: String,
    mode: u32,
    /// How long to wait for what may never come.
    wait: Duration,
    /// When that is over.
    deadline: Instant,
    /// What work on the buffers may take, by their size.
    patience: Duration,
    alarm: Alarm,
    /// Since when the driver has been there without being at work on a device that it has not bound.
    driver_idle_since: Cell<Option<Instant>>,
    quick: bool,
    /// Whether the checks that the boot leaves out run too.
    full: bool,
    /// The labels of the buffers to which nothing is written.
    keep: Vec<String>,
    /// Whether to write to none at all, since a label to keep belongs to no buffer.
    keep_all: bool,
    /// How long the test of the memory may take.
    time_budget: Option<Duration>,
    /// How long the retention test waits before it reads; zero leaves it out.
    retention: Duration,
    /// How often to test the memory.
    repeat: u32,
    /// Chooses the places of a sample.
    seed: u64,
    /// Tells of the signal that ends the checks.
    stop: Stop,
    /// The buffers that must exist; empty: whichever the device tree describes.
    expect: Vec<Expectation>,
    /// The checks that must run.
    require: Vec<String>,
}

impl Context {
    /// The size in bytes that the command line asks of this buffer, if any.
    fn expected_size(&self, node: &Node) -> Option<u64> {
        self.expect.iter().find(|expected| expect::means(expected, node))?.size
    }

    /// Whether nothing may be written to this buffer.
    fn keeps(&self, node: &Node) -> bool {
        self.keep_all || self.keep.contains(&name(node))
    }

    /// Asks until there is an answer or the time is over, at least once.
    fn wait_for<T>(&self, ask: impl FnMut() -> Option<T>) -> Option<T> {
        self.wait_while(ask, || false)
    }

    /// As [`wait_for`](Self::wait_for), but longer where something is at work that will bring the answer; unless no wait is wanted at all.
    fn wait_while<T>(&self, mut ask: impl FnMut() -> Option<T>, at_work: impl Fn() -> bool) -> Option<T> {
        // The driver takes its time, then the test of the memory, and that one may itself wait for a user to leave.
        let limit = self.deadline + self.wait + 2 * self.patience;
        loop {
            let now = Instant::now();
            // Before asking: the answer is there when the work ends.
            let at_work = now >= self.deadline && now < limit && !self.wait.is_zero() && at_work();
            match ask() {
                None if self.stop.signal().is_some() => return None,
                None if now < self.deadline => self.alarm.sleep(self.deadline - now),
                None if at_work => self.alarm.sleep(Duration::MAX),
                answer => return answer,
            }
        }
    }
}

/// How the command line names a buffer: by its label, or by its node where it has none.
fn name(node: &Node) -> String {
    node.string("label").unwrap_or_else(|| node.name())
}

/// The command.
pub fn run(cli: &Cli, args: &Validate) -> Result {
    // A device that goes during a check ends that check, not the program.
    mydrv::sigbus::install()?;
    let wanted = cli.device.as_deref().map(Selector::from);
    // udev loads the driver among everything else that it finds at boot. A year stands for ever; more would overflow the clock.
    let wait = Duration::from_secs(args.wait.unwrap_or(if args.boot { 60 } else { 5 }).min(365 * 86400));
    let mut context = Context {
        root: cli.root.clone(),
        part: Part::new(args.boot, wanted.as_ref(), &cli.root)?,
        group: args.group.clone(),
        mode: args.mode,
        wait,
        deadline: Instant::now() + wait,
        patience: Duration::ZERO,
        alarm: Alarm::new(&cli.root),
        driver_idle_since: Cell::new(None),
        quick: args.quick,
        full: args.full,
        keep: args.keep.iter().flat_map(|labels| labels.0.clone()).collect(),
        keep_all: false,
        time_budget: args.time_budget,
        retention: args.retention.unwrap_or_default(),
        repeat: args.repeat,
        seed: args.seed,
        stop: Stop::on_signals()?,
        expect: expect::buffers(args)?,
        require: expect::required(args)?,
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
    let mut report = Report::new(&context.root, mode, voice, &context.require, context.stop.clone());
    let boot = context.part.report(&context.root);
    let paths: Vec<&Path> = boot.iter().chain(&args.report).map(PathBuf::as_path).collect();
    report::discard(&paths);
    let start = ("start", Some(&()));
    let nodes = report.check(
        Spec {
            id: "device-tree",
            expected: format!("an enabled node with compatible = \"{}\"", devicetree::COMPATIBLE),
            on: start,
        },
        |()| system::nodes(&context),
    );
    let nodes = nodes.unwrap_or_default();
    context.patience = boot::patience(&nodes);
    // Twice: the driver's work on all of them, and the test of the memory.
    boot::extend(wait + 2 * context.patience + Duration::from_secs(60));
    let _claim = match &context.part {
        // Without it the device's own lock keeps others out; the sum may look for itself meanwhile.
        Part::Device(name) => Claim::take(&context, name)
            .inspect_err(|error| {
                output::say(&format!("mydrvctl: warning: {error}"));
            })
            .ok(),
        _ => None,
    };
    let described = !nodes.is_empty();
    if !context.keep.is_empty() {
        let kept = report.check(
            Spec {
                id: "keep",
                expected: format!("a buffer of each label to keep: {}", context.keep.join(", ")),
                on: ("device-tree", described.then_some(&nodes)),
            },
            |nodes| system::kept(&context.keep, nodes),
        );
        // Whichever buffer it was meant for.
        context.keep_all = kept.is_none();
    }
    let chosen: Vec<_> = nodes
        .iter()
        .filter(|node| wanted.as_ref().is_none_or(|wanted| system::is(&context, wanted, node)))
        .cloned()
        .collect();
    let mut places = Vec::new();
    for node in &chosen {
        report.begin_device(node.name());
        let (address, size) = check_device(&mut report, &context, node);
        if !context.expect.is_empty() {
            report.check(
                Spec {
                    id: "unexpected",
                    expected: "one of the buffers of --expect (MYDRV_EXPECT)".into(),
                    on: ("device-tree", Some(node)),
                },
                |node| expect::unexpected(&context.expect, node),
            );
        }
        places.push(report.place(node.name(), address, size));
    }
    report.end_devices();
    let validated = !chosen.is_empty();
    // With --device, what is expected of the others is left to others.
    for expected in &context.expect {
        if wanted.is_none() || chosen.iter().any(|node| expect::means(expected, node)) {
            report.check(
                Spec {
                    id: "expect",
                    expected: expect::words(expected),
                    on: ("device-tree", described.then_some(&nodes)),
                },
                |nodes| expect::present(expected, nodes),
            );
        }
    }
    report.check(
        Spec {
            id: "labels",
            expected: "a label of its own for each buffer that has one".into(),
            on: ("device-tree", described.then_some(&nodes)),
        },
        |nodes| expect::labels(nodes),
    );
    report.check(
        Spec {
            id: "apart",
            expected: "physical addresses of its own for each buffer".into(),
            on: ("device-tree", described.then_some(&places)),
        },
        |places| expect::apart(places),
    );
    let result = report.finish(&paths);
    boot::status(match &result {
        Ok(()) => "validated",
        Err(Failure::InUse) => "not validated: in use",
        Err(_) => "not valid",
    });
    match wanted {
        Some(wanted) if described && !validated => Err(mydrv::Error::NotFound {
            device: wanted.to_string(),
        }
        .into()),
        _ => result,
    }
}

/// Every check of one buffer. Answers its physical address and its bytes, where they can be told.
fn check_device(report: &mut Report, context: &Context, node: &Node) -> (Option<u64>, Option<u64>) {
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
        if matches!(context.part, Part::Sum(_))
            && let Some(found) = boot::collect(context, node, candidate)
        {
            let checks = report.check(
                Spec {
                    id: "device-report",
                    expected: "pass, fail or in-use, and checks that say so".into(),
                    on: ("node", Some(&found)),
                },
                boot::verdict,
            );
            let passed = found["verdict"] == "pass";
            for check in checks.iter().flatten() {
                report.take_over(check, passed);
            }
            report.take_over_memory(&found["memory"]);
            let place = expect::place_in(&found, &candidate.path);
            let (address, size) = place.map_or((None, None), |place| (place.physical_address, place.size_bytes));
            // The device's own validation may have been told of another size, or of none. One that did not pass need not know it.
            if let Some(expected) = context.expected_size(node)
                && size.map_or(passed, |size| size != expected)
            {
                report.check(
                    Spec {
                        id: "size",
                        expected: format!("{expected} bytes (MYDRV_EXPECT)"),
                        on: ("device-report", Some(&size)),
                    },
                    |size| match size {
                        Some(size) => identity::other_size::<()>(*size),
                        None => fail(
                            "no size in the report of the device's own validation",
                            "validate anew: systemctl restart mydrv-validate.service",
                        ),
                    },
                );
            }
            return (address, size);
        }
    }
    let on_node = ("node", candidate.as_ref());
    report.check(
        Spec {
            id: "permissions",
            expected: format!("mode {:04o}, owner root, group {}", context.mode, context.group),
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
    // Shared with whoever asks who else has it open, for as long as it is.
    let reader = reader.map(Rc::new);
    let on_reader = ("abi", reader.as_deref());
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
    let sized = reader.as_deref().zip(region.as_ref());
    let blame_size = if region.is_none() { "region" } else { "abi" };
    let size = report.check(
        Spec {
            id: "size",
            expected: identity::expected_size(context, node, region.as_ref()),
            on: (blame_size, sized.as_ref()),
        },
        |(reader, region)| identity::size(context, reader, node, region),
    );
    let range = report.check(
        Spec {
            id: "physical-range",
            expected: identity::expected_range(region.as_ref()),
            on: (blame_size, sized.as_ref()),
        },
        |(reader, region)| identity::physical_range(reader, region),
    );
    let bytes = size.or(range.as_ref().map(|range| range.end - range.start));
    let size = ("size", size.as_ref());
    report.check(
        Spec {
            id: "mapping-flags",
            expected: "without the right to execute later (me), to grow (de), or to be dumped (dd)".into(),
            on: (size.0, size.1.and(reader.as_deref())),
        },
        identity::mapping_flags,
    );
    let edac = memory::Edac::read(&context.root);
    // From here on it is about what the memory holds, which a program that takes no lock may change meanwhile.
    report.doubt(reader.as_ref().and_then(|reader| users::doubt(&context.root, reader)), 1);
    report.check(
        Spec {
            id: "readable",
            expected: "every page readable".into(),
            on: (size.0, size.1.and(reader.as_ref())),
        },
        |reader| memory::readable(context, reader),
    );
    let zeros = report.check(
        Spec {
            id: "zeroing",
            expected: "every byte 0".into(),
            on: (size.0, size.1.and(reader.as_deref())),
        },
        |reader| memory::zeroing(context, reader),
    );
    let writer = report.check(
        Spec {
            id: "open-write",
            expected: "a file open for reading and writing".into(),
            on: (size.0, size.1.and(reader.as_deref())),
        },
        |reader| {
            if reader.info()?.flags.read_only() {
                return not_applicable("the buffer is read-only");
            }
            if context.keeps(node) {
                return not_applicable("--keep: nothing is written to this buffer");
            }
            let writer = OpenOptions::new().write(true).lock(Lock::None).open(reader.path())?;
            Ok(("open".into(), writer))
        },
    );
    if writer.is_some() {
        report.opened_another();
    }
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
    let mut test = memory::Test::default();
    for &(id, algorithm, expected) in memory::ALGORITHMS {
        report.check(
            Spec {
                id,
                expected: expected.into(),
                on: ("open-write", writer.as_ref()),
            },
            |writer| test.check(context, writer, zeros.is_some(), algorithm),
        );
    }
    report.tell_memory(test.summary());
    report.check(
        Spec {
            id: "edac",
            expected: "no memory error that could not be corrected".into(),
            on: (size.0, size.1.and(reader.as_ref())),
        },
        |_| memory::edac(context, edac),
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
        |writer| sharing::two_mappings(context, writer),
    );
    report.check(
        Spec {
            id: "two-processes",
            expected: "what one writes, the other reads".into(),
            on: ("open-write", writer.as_ref()),
        },
        |writer| sharing::two_processes(context, writer),
    );
    report.doubt(None, 0);
    if context.full {
        refusals::check(
            report,
            (size.0, size.1.and(reader.as_deref())),
            ("open-write", writer.as_ref()),
        );
    }

    // Last, since it closes every file: only then may the driver scrub.
    let info = reader.as_deref().and_then(|reader| reader.info().ok());
    let closed = info.map(|info| {
        (
            info,
            reader.as_deref().map(|reader| reader.path().to_owned()).unwrap_or_default(),
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
    (range.map(|range| range.start), bytes)
}

/// The first bytes of the pages of 4096 bytes that stand for the whole buffer; see [`mydrv_memtest::smallest_sample`].
fn sample(context: &Context, size: u64) -> Vec<usize> {
    let pages = mydrv_memtest::smallest_sample(size as usize / PAGE_BYTES, context.seed);
    pages.into_iter().map(|page| page * PAGE_BYTES).collect()
}
