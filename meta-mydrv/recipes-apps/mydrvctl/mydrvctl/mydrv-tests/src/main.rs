// SPDX-License-Identifier: MIT

//! Tests of the mydrv kernel driver that run on the target. Each subcommand proves one group of promises by itself, without the library
//! that applications use, and ends at the first one that is broken. `tests/` calls them; docs/testing.md says what each proves.

mod actor;
mod cycles;
mod device;
mod failures;
mod guardian;
mod memory;
mod revoke;
mod rules;
mod sys;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use device::{Broken, Device, Outcome};

/// A test that does not apply to the device, as Automake has it.
const SKIPPED: u8 = 77;

/// Tests of the mydrv kernel driver; run as root.
///
/// Standard output is KTAP (Documentation/dev-tools/ktap.rst), with what was found as diagnostics. The device is bound again whatever happens to a test,
/// unless this program itself is killed by SIGKILL.
///
/// Exit codes: 0, every promise held; 1, one was broken: which, and what was found, is on standard error; 2, the command line is wrong;
/// 77, the test does not apply to this device.
#[derive(Parser)]
#[command(name = "mydrv-tests")]
struct Cli {
    /// The device under test
    #[arg(long, global = true, default_value = "/dev/mydrv0")]
    device: PathBuf,

    #[command(subcommand)]
    test: Test,
}

#[derive(Subcommand)]
enum Test {
    /// What may be mapped, and what mappings show
    MmapRules,
    /// What the ioctls answer
    IoctlRules,
    /// What open, read, write, seek and the like answer
    FileRules,
    /// Core dumps leave the buffer out
    CoreDump,
    /// How many page faults mappings cost
    Faults,
    /// The last close zeroes (mydrv,scrub)
    Scrub,
    /// Unbind takes the memory from every user, and bind gives a working device again
    Revoke,
    /// Unbind and bind again and again under processes that use the device
    BindCycles {
        /// How often
        cycles: u32,
    },
    /// Forks that run while the mappings are revoked
    ForkRevoke {
        /// How often
        rounds: u32,
    },
    /// Threads and processes map, unmap, fork, mremap, mprotect, madvise, while the device comes and goes
    Storm {
        /// For how long
        #[arg(long, default_value = "30")]
        seconds: u64,
        /// The first seed; each thread has one of its own
        #[arg(long, default_value = "1")]
        seed: u64,
    },
    /// Random system calls on the device: one seed, one sequence of calls
    Fuzz {
        /// The first round's seed; the next round's is one more
        #[arg(long, default_value = "1")]
        seed: u64,
        /// For how long new rounds are started
        #[arg(long, default_value = "30")]
        seconds: u64,
        /// At most so many rounds
        #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
        rounds: u64,
    },
    /// Bind while each memory allocation in turn fails (needs CONFIG_FAULT_INJECTION)
    FailNth,
    /// Stay with the device open and mapped until killed, for tests from outside
    Hold,
}

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let name = matches.subcommand_name().unwrap_or_default();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    println!("KTAP version 1\n1..1");
    match Device::find(&cli.device) {
        // It ends by a signal alone, and changes nothing.
        Ok(device) if matches!(cli.test, Test::Hold) => told(name, revoke::hold(&device)),
        Ok(device) => match guardian::bound_afterwards(&device, || told(name, run(&device, cli.test))) {
            Ok(code) => code,
            Err(broken) => told(name, Err(broken)),
        },
        Err(broken) => told(name, Err(broken)),
    }
}

fn run(device: &Device, test: Test) -> Outcome {
    match test {
        Test::MmapRules => rules::mmap(device),
        Test::IoctlRules => rules::ioctl(device),
        Test::FileRules => rules::file(device),
        Test::CoreDump => rules::core_dump(device),
        Test::Faults => memory::faults(device),
        Test::Scrub => memory::scrub(device),
        Test::Revoke => revoke::revoke(device),
        Test::BindCycles { cycles } => cycles::bind_cycles(device, cycles),
        Test::ForkRevoke { rounds } => cycles::fork_revoke(device, rounds),
        Test::Storm { seconds, seed } => actor::storm(device, seconds, seed),
        Test::Fuzz { seed, seconds, rounds } => actor::fuzz(device, seed, seconds, rounds),
        Test::FailNth => failures::fail_nth(device),
        Test::Hold => revoke::hold(device),
    }
}

/// Says how the test ended, and turns it into the exit code.
fn told(name: &str, outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => {
            println!("ok 1 {name}");
            ExitCode::SUCCESS
        }
        Err(Broken::Skip(why)) => {
            println!("ok 1 {name} # SKIP {why}");
            ExitCode::from(SKIPPED)
        }
        Err(Broken::Promise(what)) => {
            println!("not ok 1 {name}");
            eprintln!("FAILED {what}");
            ExitCode::FAILURE
        }
    }
}
