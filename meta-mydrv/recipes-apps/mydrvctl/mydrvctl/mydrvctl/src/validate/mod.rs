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
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use mydrv::{Candidate, Lock, OpenOptions, Selector};
use mydrv_memtest::PAGE_BYTES;
use serde_json::Value;

#[cfg(feature = "status")]
pub use boot::REPORT as BOOT_REPORT;
#[cfg(all(test, feature = "dma-loop", feature = "status"))]
pub use report::Report as Document;
pub use sharing::peer;

use self::{
    boot::{Alarm, Claim, Part},
    devicetree::Node,
    report::{Report, Voice, Yielded, fail, not_applicable},
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
    require: Vec<checks::Check>,
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

/// Where the report goes.
fn reports(cli: &Cli, args: &Validate, part: &Part) -> Vec<PathBuf> {
    part.report(&cli.root).into_iter().chain(args.report.clone()).collect()
}

/// Which part of the boot's validation the command line asks for.
fn part(cli: &Cli, args: &Validate) -> Result<Part> {
    Part::new(args.boot, cli.device.as_deref().map(Selector::from).as_ref(), &cli.root)
}

/// Removes the reports of an earlier run, so that none is taken for that of this one, which cannot begin.
pub fn forget(cli: &Cli, args: &Validate) {
    if let Ok(part) = part(cli, args) {
        report::discard(&reports(cli, args, &part));
    }
}

/// The command.
pub fn run(cli: &Cli, args: &Validate) -> Result {
    // A device that goes during a check ends that check, not the program.
    mydrv::sigbus::install()?;
    let wanted = cli.device.as_deref().map(Selector::from);
    let part = part(cli, args)?;
    let paths = reports(cli, args, &part);
    report::discard(&paths);
    // udev loads the driver among everything else that it finds at boot. A year stands for ever; more would overflow the clock.
    let wait = Duration::from_secs(args.wait.unwrap_or(if args.boot { 60 } else { 5 }).min(365 * 86400));
    let mut context = Context {
        root: cli.root.clone(),
        part,
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
    let tree = report.check(
        checks::DEVICE_TREE,
        format!("an enabled node with compatible = \"{}\"", devicetree::COMPATIBLE),
        Yielded::given(()),
        |()| system::nodes(&context),
    );
    let nodes = tree.as_ref().value().cloned().unwrap_or_default();
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
    if !context.keep.is_empty() {
        let kept = report.check(
            checks::KEEP,
            format!("a buffer of each label to keep: {}", context.keep.join(", ")),
            tree.as_ref(),
            |nodes| system::kept(&context.keep, nodes),
        );
        // Whichever buffer it was meant for.
        context.keep_all = kept.value().is_none();
    }
    let chosen: Vec<_> = nodes
        .iter()
        .filter(|node| wanted.as_ref().is_none_or(|wanted| system::is(&context, wanted, node)))
        .cloned()
        .collect();
    let mut places = Vec::new();
    for node in &chosen {
        report.begin_device(node.name());
        let described = tree.as_ref().map(|_| node);
        let (address, size) = check_device(&mut report, &context, node, described);
        if !context.expect.is_empty() {
            report.check(
                checks::UNEXPECTED,
                "one of the buffers of --expect (MYDRV_EXPECT)",
                described,
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
            report.check(checks::EXPECT, expect::words(expected), tree.as_ref(), |nodes| {
                expect::present(expected, nodes)
            });
        }
    }
    report.check(
        checks::LABELS,
        "a label of its own for each buffer that has one",
        tree.as_ref(),
        |nodes| expect::labels(nodes),
    );
    report.check(
        checks::APART,
        "physical addresses of its own for each buffer",
        tree.as_ref(),
        |_| expect::apart(&places),
    );
    let result = report.finish(&paths);
    boot::status(match &result {
        Ok(()) => "validated",
        Err(Failure::InUse) => "not validated: in use",
        Err(_) => "not valid",
    });
    match wanted {
        Some(wanted) if !nodes.is_empty() && !validated => Err(mydrv::Error::NotFound {
            device: wanted.to_string(),
        }
        .into()),
        _ => result,
    }
}

/// Every check of one buffer, which the device tree describes. Answers its physical address and its bytes, where they can be told.
fn check_device(report: &mut Report, context: &Context, node: &Node, described: Yielded<&Node>) -> (Option<u64>, Option<u64>) {
    let region = report.check(
        checks::REGION,
        "an enabled shared-dma-pool in /reserved-memory, or no memory-region",
        described,
        system::region,
    );
    let platform = report.check(
        checks::DRIVER,
        "driver mydrv bound to the node's platform device",
        described,
        |node| system::driver(context, node),
    );
    let candidate = report.check(
        checks::NODE,
        "a misc character device /dev/mydrvN of this device tree node",
        platform,
        |_| system::node(context, node),
    );
    if let Some(found) = candidate.as_ref().value() {
        report.name_device(found.path.display().to_string());
        if matches!(context.part, Part::Sum(_))
            && let Some(told) = boot::collect(context, node, found)
        {
            return check_report(report, context, node, candidate.as_ref(), &told);
        }
    }
    report.check(
        checks::PERMISSIONS,
        format!("mode {:04o}, owner root, group {}", context.mode, context.group),
        candidate.as_ref(),
        |candidate| system::permissions(context, candidate),
    );
    // Opened for reading alone at first: opening for writing would end the pristine state. This file also holds the lock. Shared with whoever asks
    // who else has it open, for as long as it is.
    let shared = report
        .check(
            checks::ABI,
            format!("nobody else using it, ABI {}", mydrv::abi::MYDRV_ABI_VERSION),
            candidate.as_ref(),
            |candidate| identity::open(context, candidate),
        )
        .map(Rc::new);
    let reader = shared.as_ref().map(Rc::as_ref);
    report.check(
        checks::LABEL,
        node.string("label")
            .map_or("no label".into(), |label| format!("label {label:?}")),
        reader,
        |reader| identity::label(reader, node),
    );
    report.check(checks::PROPERTIES, identity::expected_properties(node), reader, |reader| {
        identity::configuration(reader, node)
    });
    let in_region = region.as_ref().and(reader);
    let size = report.check(
        checks::SIZE,
        identity::expected_size(context, node, region.as_ref().value()),
        in_region,
        |(region, reader)| identity::size(context, reader, node, region),
    );
    let range = report.check(
        checks::PHYSICAL_RANGE,
        identity::expected_range(region.as_ref().value()),
        in_region,
        |(region, reader)| identity::physical_range(reader, region),
    );
    let range = range.value();
    let bytes = size
        .as_ref()
        .value()
        .copied()
        .or(range.as_ref().map(|range| range.end - range.start));
    let sized = size.then(reader);
    report.check(
        checks::MAPPING_FLAGS,
        "without the right to execute later (me), to grow (de), or to be dumped (dd)",
        sized,
        identity::mapping_flags,
    );
    let edac = memory::Edac::read(&context.root);
    // From here on it is about what the memory holds, which a program that takes no lock may change meanwhile.
    let doubt = shared.as_ref().value().and_then(|reader| users::doubt(&context.root, reader));
    report.doubt(doubt, 1);
    report.check(checks::READABLE, "every page readable", sized, |reader| {
        memory::readable(context, reader)
    });
    let zeros = report.check(checks::ZEROING, "every byte 0", sized, |reader| {
        memory::zeroing(context, reader)
    });
    let zeros = zeros.value().is_some();
    let writer = report.check(checks::OPEN_WRITE, "a file open for reading and writing", sized, |reader| {
        if reader.info()?.flags.read_only() {
            return not_applicable("the buffer is read-only");
        }
        if context.keeps(node) {
            return not_applicable("--keep: nothing is written to this buffer");
        }
        let writer = OpenOptions::new().write(true).lock(Lock::None).open(reader.path())?;
        Ok(("open".into(), writer))
    });
    let dirtied = writer.as_ref().value().is_some();
    if dirtied {
        report.opened_another();
    }
    if context.full {
        report.check(
            checks::CONTIGUITY,
            "each page at the buffer's physical address plus its offset",
            writer.as_ref(),
            |writer| memory::contiguity(context, writer),
        );
    }
    let mut test = memory::Test::default();
    for &(check, algorithm, expected) in memory::ALGORITHMS {
        report.check(check, expected, writer.as_ref(), |writer| {
            test.check(context, writer, zeros, algorithm)
        });
    }
    report.tell_memory(test.summary());
    report.check(checks::EDAC, "no memory error that could not be corrected", sized, |_| {
        memory::edac(context, edac)
    });
    report.check(
        checks::READ_WRITE,
        "the same bytes both ways, at odd offsets too",
        writer.as_ref(),
        sharing::read_write,
    );
    report.check(
        checks::TWO_MAPPINGS,
        "what one writes, the other reads at once",
        writer.as_ref(),
        |writer| sharing::two_mappings(context, writer),
    );
    report.check(
        checks::TWO_PROCESSES,
        "what one writes, the other reads",
        writer.as_ref(),
        |writer| sharing::two_processes(context, writer),
    );
    report.doubt(None, 0);
    if context.full {
        refusals::check(report, sized, writer.as_ref());
    }

    // Last, since it closes every file: only then may the driver scrub.
    let closed = reader.and_then(|reader| Some((reader.info().ok()?, reader.path().to_owned())));
    drop((writer, shared));
    report.check(checks::SCRUB, "every byte 0 on the next open", closed, |(info, path)| {
        memory::scrub(context, &info, &path, dirtied)
    });
    (range.map(|range| range.start), bytes)
}

/// The checks of one buffer as the device's own validation `told` of them. Answers as [`check_device`] does.
fn check_report(
    report: &mut Report,
    context: &Context,
    node: &Node,
    candidate: Yielded<&Candidate>,
    told: &Value,
) -> (Option<u64>, Option<u64>) {
    let found = report.check(
        checks::DEVICE_REPORT,
        "pass, fail or in-use, and checks that say so",
        candidate,
        |_| boot::verdict(told),
    );
    let passed = told["verdict"] == "pass";
    for check in found.as_ref().value().into_iter().flatten() {
        report.take_over(check, passed);
    }
    report.take_over_memory(&told["memory"]);
    let place = candidate
        .value()
        .and_then(|candidate| expect::place_in(told, &candidate.path));
    let (address, size) = place.map_or((None, None), |place| (place.physical_address, place.size_bytes));
    // The device's own validation may have been told of another size, or of none. One that did not pass need not know it.
    if let Some(expected) = context.expected_size(node)
        && size.map_or(passed, |size| size != expected)
    {
        report.check(
            checks::SIZE,
            format!("{expected} bytes (MYDRV_EXPECT)"),
            candidate,
            |_| match size {
                Some(size) => identity::other_size::<()>(size),
                None => fail(
                    "no size in the report of the device's own validation",
                    "validate anew: systemctl restart mydrv-validate.service",
                ),
            },
        );
    }
    (address, size)
}

/// The first bytes of the pages of 4096 bytes that stand for the whole buffer; see [`mydrv_memtest::smallest_sample`].
fn sample(context: &Context, size: u64) -> Vec<usize> {
    let pages = mydrv_memtest::smallest_sample(size as usize / PAGE_BYTES, context.seed);
    pages.into_iter().map(|page| page * PAGE_BYTES).collect()
}
