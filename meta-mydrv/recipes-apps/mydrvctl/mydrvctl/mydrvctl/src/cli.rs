// SPDX-License-Identifier: MIT

//! The command line's definition. build.rs includes this file too, to make the man pages and the shell completions from it, so it
//! depends on clap alone.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// What `--help` and the man page say after the options.
pub const AFTER_HELP: &str = "\
Exit codes:
  0  done; validate: no check failed, and there is at least one device
  1  validate: a check failed, or nothing was proved; dma-loop: the data came back different
  2  the command line is wrong, or a range leaves the buffer
  3  no such device; status: not booted from a slot
  4  permission denied, or the buffer is read-only
  5  the device or the input or output failed
  6  the device is in use; validate: that alone kept it from being told
  128 and more: a signal ended it, 143 being SIGTERM; the buffer holds what it held before

SIZE, OFFSET and LENGTH are bytes: decimal or 0x hexadecimal, with an optional K, M or G (powers of 1024).
DEVICE is a path (/dev/mydrv0), an index (0) or a label of the device tree (camera).";

/// What every command takes.
const GLOBAL: &str = "Global options";

/// Shows, fills, measures and validates the DMA buffers of the mydrv kernel driver.
#[derive(Debug, Parser)]
#[command(name = "mydrvctl", version, after_help = AFTER_HELP, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Print one JSON object instead of text; why the command failed is one, too, on standard error
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,

    /// Whether to colour what is printed: on a terminal that takes colours, unless NO_COLOR is set; always; never
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "WHEN", default_value = "auto", value_parser = ["auto", "always", "never"])]
    pub color: String,

    /// The device; not needed where there is only one
    #[arg(long, short, global = true, help_heading = GLOBAL, value_name = "DEVICE", env = "MYDRV_DEVICE")]
    pub device: Option<String>,

    /// Where to find sys, dev, proc and etc: for tests
    #[arg(long, global = true, hide = true, default_value = "/")]
    pub root: PathBuf,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the devices
    List,
    /// Show what the driver tells of a buffer; addresses need CAP_SYS_RAWIO
    Info,
    #[cfg(feature = "status")]
    /// Show the A/B slots of a system that RAUC updates: what runs, what was validated, why an update was given up
    Status,
    /// Prove that device tree, driver and buffer work, by numbered checks
    ///
    /// Each check says what it expected and what it found. A check whose precondition failed is skipped and names it. The buffer's
    /// contents survive, also where SIGTERM, SIGINT or SIGHUP ends the check half way; SIGKILL and a loss of power may lose them, since the
    /// test of the memory goes on in the buffer itself. Other programs must not use it meanwhile: it is locked, and --wait is also how long to wait
    /// for that.
    Validate(Validate),
    /// Copy bytes of the buffer to standard output, unless that is a terminal
    Read(Read),
    /// Copy standard input into the buffer
    ///
    /// With --length, exactly as many bytes are expected, and what comes after them is left to others. Without, the input must end where the buffer
    /// does, or before.
    Write(Write),
    /// Fill the buffer, or a part of it, with a pattern
    ///
    /// What to fill with must be said, so that no buffer is lost to a command that was not finished.
    Fill(Fill),
    /// Show bytes of the buffer as a hex dump
    Dump(Dump),
    /// Measure throughput: first and second touch, copies in and out. The buffer's contents survive
    Bench(Bench),
    #[cfg(feature = "dma-loop")]
    /// Prove that a device's DMA reaches the buffer, by the DMA engine of QEMU's PCI device `edu`
    ///
    /// Sends seeded data from one part of the buffer to the device and back into another part, and compares. Needs root (CAP_SYS_RAWIO
    /// and the PCI device's sysfs files) and QEMU started with `-device edu,dma_mask=0xffffffffff`. The buffer's contents survive.
    DmaLoop(DmaLoop),
    /// The second process of validate's coherence check, with the device as its standard input
    #[command(hide = true)]
    ValidatePeer(ValidatePeer),
}

/// A part of the buffer.
#[derive(Args, Clone, Copy, Debug)]
pub struct Span {
    /// The first byte
    #[arg(long, short, value_name = "OFFSET", default_value = "0", value_parser = parse_size)]
    pub offset: u64,

    /// How many bytes; to the buffer's end if not given
    #[arg(long, short, value_name = "LENGTH", value_parser = parse_size)]
    pub length: Option<u64>,
}

/// `mydrvctl validate`
#[derive(Args, Debug)]
pub struct Validate {
    /// Test a sample of pages, the first and the last among them, instead of every byte
    #[arg(long)]
    pub quick: bool,

    /// As the boot's check: write the report to /run/mydrv and say only what failed
    ///
    /// With --device it is the check of that device, whose report is /run/mydrv/mydrvN.json. Without, it sums up in /run/mydrv/validate.json what the
    /// checks of the devices found, and makes those itself that nobody has made.
    #[arg(long)]
    pub boot: bool,

    /// Write the JSON report to this file too
    #[arg(long, value_name = "PATH")]
    pub report: Option<PathBuf>,

    /// Try what the driver must refuse, and whatever else the boot's check leaves out, too
    #[arg(long)]
    pub full: bool,

    /// Write nothing to the buffer of this label, since another core or the boot loader has filled it; may be repeated
    #[arg(long, value_name = "LABEL", env = "MYDRV_KEEP", value_parser = parse_labels)]
    pub keep: Vec<Labels>,

    /// How long the test of the memory may take; beyond, it tests a sample and says so
    #[arg(long, value_name = "SECONDS", env = "MYDRV_TIME_BUDGET", value_parser = parse_seconds)]
    pub time_budget: Option<std::time::Duration>,

    /// Test too whether cells keep what they hold for so long: waits twice that time
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub retention: Option<std::time::Duration>,

    /// How often to test the memory
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,

    /// The seed of what is chosen at random: the places of a sample
    #[arg(long, value_name = "SEED", default_value = "1")]
    pub seed: u64,

    /// A buffer that must exist, and its size; may be repeated. If given, any other buffer is a failure
    ///
    /// A buffer without a label is named by its node, e.g. /mydrv-buffer=1M. The variable holds a list, separated by spaces.
    #[arg(long, value_name = "LABEL[=SIZE]", env = "MYDRV_EXPECT", value_parser = parse_expectations)]
    pub expect: Vec<Expectations>,

    /// Checks that must run: a skip among them is a failure
    #[arg(long, value_name = "ID,…", env = "MYDRV_REQUIRE", value_delimiter = ',')]
    pub require: Vec<String>,

    /// The group that the device nodes must belong to
    #[arg(long, value_name = "GROUP", default_value = "mydrv", env = "MYDRV_GROUP")]
    pub group: String,

    /// The mode that the device nodes must have, in octal digits
    #[arg(long, value_name = "MODE", default_value = "0660", env = "MYDRV_MODE", value_parser = parse_mode)]
    pub mode: u32,

    /// How long to wait for the driver, for the device node and for other users to leave; 5, with --boot 60
    ///
    /// For a driver that is at work on a large buffer it waits longer: a minute for each GiB.
    #[arg(long, value_name = "SECONDS", env = "MYDRV_WAIT")]
    pub wait: Option<u64>,
}

/// `mydrvctl read`
#[derive(Args, Debug)]
pub struct Read {
    /// Which part of the buffer
    #[command(flatten)]
    pub span: Span,

    /// Write the bytes to this file instead, needed with --json; `-` is standard output, also where that is a terminal
    #[arg(long, value_name = "PATH")]
    pub output: Option<PathBuf>,
}

/// `mydrvctl write`
#[derive(Args, Debug)]
pub struct Write {
    /// Which part of the buffer
    #[command(flatten)]
    pub span: Span,

    /// Read the bytes from this file instead
    #[arg(long, value_name = "PATH")]
    pub input: Option<PathBuf>,
}

/// `mydrvctl fill`
#[derive(Args, Debug)]
#[group(id = "what", required = true, multiple = false, args = ["pattern", "seed", "all"])]
pub struct Fill {
    /// Which part of the buffer
    #[command(flatten)]
    pub span: Span,

    /// The bytes to repeat, in hexadecimal, e.g. 00 or deadbeef
    #[arg(long, short, value_name = "HEX", value_parser = parse_hex)]
    pub pattern: Option<HexBytes>,

    /// Fill with pseudo-random bytes of this seed
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,

    /// Fill all of the buffer with zeros
    #[arg(long, conflicts_with_all = ["offset", "length"])]
    pub all: bool,
}

/// `mydrvctl dump`
#[derive(Args, Debug)]
pub struct Dump {
    /// The first byte
    #[arg(long, short, value_name = "OFFSET", default_value = "0", value_parser = parse_size)]
    pub offset: u64,

    /// How many bytes, or as many as there are
    #[arg(long, short, value_name = "LENGTH", default_value = "256", value_parser = parse_size)]
    pub length: u64,
}

/// `mydrvctl bench`
#[derive(Args, Debug)]
pub struct Bench {
    /// How often to measure; the best time counts
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
}

/// `mydrvctl dma-loop`
#[cfg(feature = "dma-loop")]
#[derive(Args, Debug)]
pub struct DmaLoop {
    /// Bytes per transfer, at most 4096: the edu device's own memory
    #[arg(long, value_name = "SIZE", default_value = "4096", value_parser = parse_size)]
    pub block: u64,

    /// How many places of the buffer to try, the first and the last among them
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,

    /// The seed of the data
    #[arg(long, value_name = "SEED", default_value = "1")]
    pub seed: u64,
}

/// `mydrvctl validate-peer`
#[derive(Args, Debug)]
pub struct ValidatePeer {
    /// The seed of the data to expect; the data to leave has the next one
    pub seed: u64,

    /// The first bytes of the pages to look at
    pub offsets: Vec<u64>,
}

/// Bytes, of which there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HexBytes(pub Vec<u8>);

/// Parses a number of bytes: decimal or 0x hexadecimal, with an optional K, M or G.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const FORM: &str = "give bytes as decimal or 0x hexadecimal, with an optional K, M or G";
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let body = hexadecimal.unwrap_or(text);
    let unit = body.strip_suffix("iB").unwrap_or(body);
    let (digits, shift) = match unit.char_indices().last() {
        Some((end, 'K' | 'k')) => (&unit[..end], 10),
        Some((end, 'M' | 'm')) => (&unit[..end], 20),
        Some((end, 'G' | 'g')) => (&unit[..end], 30),
        _ => (body, 0),
    };
    // from_str_radix would take a sign.
    if !digits.starts_with(|first: char| first.is_ascii_hexdigit()) {
        return Err(FORM.into());
    }
    let number =
        u64::from_str_radix(digits, if hexadecimal.is_some() { 16 } else { 10 }).map_err(|error| match error.kind() {
            std::num::IntErrorKind::PosOverflow => "too large: at most 2^64 - 1 bytes".to_owned(),
            _ => FORM.into(),
        })?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "too large: at most 2^64 - 1 bytes".into())
}

/// A buffer that must exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Its label, or its node (with a slash) where it has none.
    pub label: String,
    /// Its size in bytes; `None`: any.
    pub size: Option<u64>,
}

/// What one argument expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectations(pub Vec<Expectation>);

/// Parses `LABEL[=SIZE]`, any number of them, separated by white space.
pub fn parse_expectations(text: &str) -> Result<Expectations, String> {
    let one = |word: &str| {
        let (label, size) = match word.split_once('=') {
            Some((label, size)) => (label, Some(parse_size(size)?)),
            None => (word, None),
        };
        if label.is_empty() {
            return Err("give a label before the =".to_owned());
        }
        Ok(Expectation {
            label: label.into(),
            size,
        })
    };
    text.split_whitespace().map(one).collect::<Result<_, _>>().map(Expectations)
}

/// The labels in one argument, of which there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels(pub Vec<String>);

/// Parses labels, separated by white space. None at all is a variable of a script that is not set, rather than nothing to keep.
pub fn parse_labels(text: &str) -> Result<Labels, String> {
    let labels: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
    if labels.is_empty() {
        return Err("give a label".into());
    }
    Ok(Labels(labels))
}

/// Parses the permission bits of a file.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(mode),
        _ => Err("give octal digits, e.g. 0660".into()),
    }
}

/// Parses a number of seconds.
pub fn parse_seconds(text: &str) -> Result<std::time::Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds")?;
    std::time::Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Parses a byte pattern: pairs of hexadecimal digits.
pub fn parse_hex(text: &str) -> Result<HexBytes, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.is_empty() || !digits.len().is_multiple_of(2) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err("give pairs of hexadecimal digits, e.g. 00 or deadbeef".into());
    }
    let value = |digit: u8| (digit as char).to_digit(16).map_or(0, |value| value as u8);
    Ok(HexBytes(
        digits
            .as_bytes()
            .chunks_exact(2)
            .map(|pair| value(pair[0]) << 4 | value(pair[1]))
            .collect(),
    ))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("0x1000", 4096),
            ("64K", 64 << 10),
            ("64k", 64 << 10),
            ("64M", 64 << 20),
            ("1G", 1 << 30),
            ("2GiB", 2 << 30),
            ("0x10M", 16 << 20),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "K",
            "iB",
            "10iB",
            "0x",
            "-1",
            "+1",
            "1T",
            "1.5M",
            "M1",
            "1 M",
            "１",
            "18446744073709551616",
            "17179869184G",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert!(parse_size("17179869184G").unwrap_err().contains("too large"));
    }

    #[test]
    fn expectations() {
        let of = |label: &str, size| Expectation {
            label: label.into(),
            size,
        };
        assert_eq!(
            parse_expectations(" buffer0=0x4000000\tvideo /mydrv-buffer=1M\n").unwrap().0,
            [
                of("buffer0", Some(64 << 20)),
                of("video", None),
                of("/mydrv-buffer", Some(1 << 20))
            ]
        );
        assert_eq!(parse_expectations("").unwrap().0, []);
        for text in ["=64M", "buffer0=", "buffer0=1 =", "a=64X"] {
            assert!(parse_expectations(text).is_err(), "{text}");
        }
    }

    #[test]
    fn labels() {
        assert_eq!(
            parse_labels(" camera\tvideo  audio\n").unwrap().0,
            ["camera", "video", "audio"]
        );
        assert!(parse_labels("").is_err() && parse_labels(" ").is_err());
    }

    #[test]
    fn patterns() {
        assert_eq!(parse_hex("deadBEEF"), Ok(HexBytes(vec![0xde, 0xad, 0xbe, 0xef])));
        assert_eq!(parse_hex("0x00"), Ok(HexBytes(vec![0])));
        for text in ["", "0x", "f", "abc", "zz", "0x0", "é0"] {
            assert!(parse_hex(text).is_err(), "{text}");
        }
    }

    /// A word of a command line: one that it knows, a value of some kind, or any bytes at all.
    fn word() -> impl Strategy<Value = std::ffi::OsString> {
        let command = Cli::command();
        let known: Vec<_> = command
            .get_subcommands()
            .flat_map(|subcommand| {
                let options = subcommand.get_arguments().chain(command.get_arguments());
                let options = options.filter_map(|option| Some(format!("--{}", option.get_long()?)));
                options.chain([subcommand.get_name().to_owned()]).collect::<Vec<_>>()
            })
            .collect();
        let number = any::<u64>().prop_flat_map(|number| {
            proptest::sample::select(vec![
                number.to_string(),
                format!("{number:#x}K"),
                format!("-{number}"),
                format!("{number}e99"),
            ])
        });
        prop_oneof![
            4 => proptest::sample::select(known).prop_map(Into::into),
            2 => number.prop_map(Into::into),
            1 => any::<String>().prop_map(Into::into),
            1 => any::<Vec<u8>>().prop_map(std::os::unix::ffi::OsStringExt::from_vec),
        ]
    }

    // PROPTEST_CASES=1000000 cargo test no_ -- --nocapture: as long as one likes.
    proptest! {
        #[test]
        fn no_command_line_is_a_panic(words in proptest::collection::vec(word(), 0..9)) {
            let _ = Cli::try_parse_from(std::iter::once("mydrvctl".into()).chain(words));
        }

        #[test]
        fn no_value_is_a_panic(text in any::<String>()) {
            let _ = (parse_expectations(&text), parse_labels(&text), parse_mode(&text), parse_seconds(&text), parse_hex(&text));
            // A size has no more to say than its digits and a unit.
            if parse_size(&text).is_ok() {
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text:?}");
            }
        }

        #[test]
        fn a_size_is_what_it_says(bytes in any::<u64>(), shift in proptest::sample::select(vec![(10, 'K'), (20, 'M'), (30, 'G')])) {
            prop_assert_eq!(parse_size(&bytes.to_string()), Ok(bytes));
            prop_assert_eq!(parse_size(&format!("{bytes:#x}")), Ok(bytes));
            let (shift, unit) = shift;
            let said = parse_size(&format!("{bytes}{unit}"));
            prop_assert_eq!(said.ok(), bytes.checked_mul(1 << shift));
        }
    }
}
