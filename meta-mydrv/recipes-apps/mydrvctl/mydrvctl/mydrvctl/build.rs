// SPDX-License-Identifier: MIT

//! Makes the man pages and the shell completions: from the very definitions that the program uses, on the machine that builds, so that cross
//! builds do it too. They go to $MYDRV_ASSETS_DIR, where the Makefile looks for them.

use std::{env, error::Error, fs, path::Path};

use clap::CommandFactory;
use clap_complete::Shell;

#[path = "src/cli.rs"]
#[allow(dead_code, reason = "the program uses the rest")]
mod cli;

const SECTIONS: &str = "man/sections.roff";

fn main() -> Result<(), Box<dyn Error>> {
    for input in ["build.rs", "src/cli.rs", SECTIONS] {
        println!("cargo::rerun-if-changed={input}");
    }
    println!("cargo::rerun-if-env-changed=MYDRV_ASSETS_DIR");
    let dir = env::var("MYDRV_ASSETS_DIR").or_else(|_| env::var("OUT_DIR"))?;
    let dir = Path::new(&dir);
    fs::create_dir_all(dir)?;
    man_pages(dir)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut shown(), "mydrvctl", dir)?;
    }
    Ok(())
}

/// The command line without what is hidden: completions know no hidden subcommands.
fn shown() -> clap::Command {
    let command = cli::Cli::command();
    let hidden = |command: &&clap::Command| !command.is_hide_set();
    let subcommands: Vec<_> = command.get_subcommands().filter(hidden).cloned().collect();
    let mut bare = clap::Command::new("mydrvctl")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .args(command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned())
        .subcommands(subcommands);
    if let Some(about) = command.get_about() {
        bare = bare.about(about.clone());
    }
    bare
}

/// mydrvctl(1), with sections of its own, and one page for each subcommand.
fn man_pages(dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut command = shown();
    command.build();
    let sections = fs::read_to_string(SECTIONS)?;
    let exit_status = section(&sections, "EXIT STATUS").ok_or("no section EXIT STATUS")?;
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).manual("mydrv").render(&mut page)?;
    page.extend(sections.as_bytes());
    page.extend(environment(&command).as_bytes());
    fs::write(dir.join("mydrvctl.1"), page)?;
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        let name = format!("mydrvctl-{}", subcommand.get_name());
        let mut page = Vec::new();
        clap_mangen::Man::new(subcommand.clone()).manual("mydrv").render(&mut page)?;
        page.extend(exit_status.as_bytes());
        page.extend(environment(subcommand).as_bytes());
        page.extend(b".SH \"SEE ALSO\"\n\\fBmydrvctl\\fR(1), which has the JSON output\n");
        fs::write(dir.join(format!("{name}.1")), page)?;
    }
    Ok(())
}

/// One section of a page, with its heading.
fn section<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let from = page.find(&format!(".SH \"{name}\"\n"))?;
    let to = page[from + 1..]
        .find("\n.SH ")
        .map_or(page.len(), |length| from + 1 + length + 1);
    Some(&page[from..to])
}

/// The section on the variables that stand for the command's options.
fn environment(command: &clap::Command) -> String {
    let variables: Vec<_> = command
        .get_arguments()
        .filter_map(|argument| {
            let (name, option) = (argument.get_env()?.to_str()?, argument.get_long()?);
            Some(format!(".TP\n.B {name}\nAs \\fB\\-\\-{}\\fR.\n", option.replace('-', "\\-")))
        })
        .collect();
    let colour =
        ".TP\n.BR NO_COLOR \", \" CLICOLOR \", \" CLICOLOR_FORCE \", \" TERM\nWhether \\fB\\-\\-color auto\\fR colours.\n";
    format!(".SH ENVIRONMENT\n{}{colour}", variables.concat())
}
