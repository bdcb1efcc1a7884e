// SPDX-License-Identifier: MIT

//! `mydrvctl`: one command line, one command, one exit code. What each command does is in `commands` and `validate`.

// They panic where the stream fails: `output` has what does not.
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod cli;
mod commands;
mod failure;
mod output;
mod saved;
#[cfg(all(test, feature = "dma-loop", feature = "status"))]
mod schema;
mod settings;
mod stop;
mod validate;

use std::process::ExitCode;

use crate::{
    cli::{Cli, Command},
    failure::Result,
};

fn main() -> ExitCode {
    match settings::parse().and_then(|cli| run(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        // The command line itself may be what is wrong.
        Err(failure) => failure.report(std::env::args_os().any(|argument| argument == "--json")),
    }
}

fn run(cli: &Cli) -> Result {
    output::colour(&cli.color);
    match &cli.command {
        Command::List => commands::list(cli),
        Command::Info => commands::info(cli),
        #[cfg(feature = "status")]
        Command::Status => commands::status(cli),
        Command::Validate(args) => validate::run(cli, args),
        Command::ValidatePeer(args) => validate::peer(args),
        Command::Read(args) => commands::read(cli, args),
        Command::Write(args) => commands::write(cli, args),
        Command::Fill(args) => commands::fill(cli, args),
        Command::Dump(args) => commands::dump(cli, args),
        Command::Bench(args) => commands::bench(cli, args),
        #[cfg(feature = "dma-loop")]
        Command::DmaLoop(args) => commands::dma_loop(cli, args),
    }
}
