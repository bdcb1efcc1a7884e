// SPDX-License-Identifier: MIT

//! `read`, `write`, `fill` and `dump`: through `pread` and `pwrite`, which answer an error where a mapping would raise `SIGBUS`.

use std::{
    fs::File,
    io::{self, IsTerminal, Read as _, Write as _},
    path::Path,
    time::Instant,
};

use mydrv::{Device, Lock};
use serde::Serialize;
use serde_json::json;

use super::{CHUNK, open};
use crate::{
    cli::{Cli, Dump, Fill, HexBytes, Read, Span, Write},
    failure::{Failure, Result},
    output,
};

/// `mydrvctl read`.
pub fn read(cli: &Cli, args: &Read) -> Result {
    let file = args.output.as_deref().filter(|path| *path != Path::new("-"));
    if cli.json && file.is_none() {
        return Err(Failure::Usage(
            "--json and the bytes cannot both go to standard output: add --output PATH".into(),
        ));
    }
    if args.output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "the bytes would go to the terminal: redirect standard output, or add --output PATH, or --output - if that is wanted; \
             `mydrvctl dump` shows them"
                .into(),
        ));
    }
    let device = open(cli, false, Lock::Shared)?;
    let range = args.span.within(&device)?;
    let mut sink: Box<dyn io::Write> = match file {
        Some(path) => Box::new(File::create(path).map_err(Failure::io(path))?),
        None => Box::new(io::stdout().lock()),
    };
    let bar = output::progress(range.end - range.start, "reading");
    let began = Instant::now();
    let mut chunk = vec![0; CHUNK];
    let mut at = range.start;
    while at < range.end {
        let part = &mut chunk[..(range.end - at).min(CHUNK as u64) as usize];
        device.read_at(at, part)?;
        sink.write_all(part).map_err(|error| match file {
            Some(path) => Failure::io(path)(error),
            None => Failure::Output(error),
        })?;
        at += part.len() as u64;
        bar.set_position(at - range.start);
    }
    sink.flush()?;
    bar.finish_and_clear();
    if cli.json {
        summary(&device, range.start, range.end - range.start, began)
    } else {
        Ok(())
    }
}

/// `mydrvctl write`.
pub fn write(cli: &Cli, args: &Write) -> Result {
    let device = open(cli, true, Lock::Shared)?;
    let range = args.span.within(&device)?;
    let (name, mut source): (_, Box<dyn io::Read>) = match &args.input {
        Some(path) => (
            path.display().to_string(),
            Box::new(File::open(path).map_err(Failure::io(path))?),
        ),
        None => ("standard input".into(), Box::new(io::stdin().lock())),
    };
    let bar = output::progress(range.end - range.start, "writing");
    let began = Instant::now();
    let mut chunk = vec![0; CHUNK];
    let mut at = range.start;
    loop {
        let room = range.end - at;
        // With --length the rest of the input is left to others. Without it, one byte more than fits tells an input that ends here
        // from one that goes on.
        let wanted = if args.span.length.is_some() {
            room
        } else {
            room.saturating_add(1)
        };
        let count = match source.read(&mut chunk[..wanted.min(CHUNK as u64) as usize]) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(Failure::Io { what: name, source }),
        };
        let fits = (count as u64).min(room) as usize;
        device.write_at(at, &chunk[..fits])?;
        at += fits as u64;
        bar.set_position(at - range.start);
        if fits < count {
            return Err(Failure::Usage(format!(
                "{name} goes on after the end of {}: {} bytes were written; shorten the input or give --length",
                device.path().display(),
                at - range.start,
            )));
        }
    }
    bar.finish_and_clear();
    let written = at - range.start;
    match args.span.length {
        Some(length) if written < length => Err(Failure::Broken(format!(
            "{name} ended after {written} of {length} bytes: those are written; give the whole input or a smaller --length"
        ))),
        _ if cli.json => summary(&device, range.start, written, began),
        _ => Ok(()),
    }
}

/// `mydrvctl fill`.
pub fn fill(cli: &Cli, args: &Fill) -> Result {
    let device = open(cli, true, Lock::Exclusive)?;
    let range = args.span.within(&device)?;
    let bar = output::progress(range.end - range.start, "filling");
    let began = Instant::now();
    let zeros = HexBytes(vec![0]);
    let pattern = &args.pattern.as_ref().unwrap_or(&zeros).0;
    // A whole number of patterns, so that each chunk continues where the last one ended.
    let mut chunk: Vec<u8> = pattern
        .iter()
        .copied()
        .cycle()
        .take(pattern.len() * (CHUNK / pattern.len()).max(1))
        .collect();
    let mut random = args.seed.map(output::Random::new);
    let mut at = range.start;
    while at < range.end {
        if let Some(random) = &mut random {
            random.fill(&mut chunk);
        }
        let part = &chunk[..(range.end - at).min(chunk.len() as u64) as usize];
        device.write_at(at, part)?;
        at += part.len() as u64;
        bar.set_position(at - range.start);
    }
    bar.finish_and_clear();
    if cli.json {
        summary(&device, range.start, range.end - range.start, began)
    } else {
        Ok(())
    }
}

/// `mydrvctl dump`.
pub fn dump(cli: &Cli, args: &Dump) -> Result {
    let device = open(cli, false, Lock::Shared)?;
    // As many as there are, but an offset beyond the end is a mistake.
    let length = args.length.min(device.size_bytes().saturating_sub(args.offset));
    let range = Span {
        offset: args.offset,
        length: Some(length),
    }
    .within(&device)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if cli.json {
        write!(
            out,
            "{{\"device\": {}, \"offset\": {}, \"length\": {length}, \"data\": \"",
            json!(device.path()),
            range.start
        )?;
    }
    let mut chunk = vec![0; CHUNK];
    let mut lines = HexDump::default();
    let mut at = range.start;
    while at < range.end {
        let part = &mut chunk[..(range.end - at).min(CHUNK as u64) as usize];
        device.read_at(at, part)?;
        if cli.json {
            for byte in &*part {
                write!(out, "{byte:02x}")?;
            }
        } else {
            for (line, bytes) in part.chunks(16).enumerate() {
                lines.line(&mut out, at + 16 * line as u64, bytes)?;
            }
        }
        at += part.len() as u64;
    }
    if cli.json {
        writeln!(out, "\"}}")?;
    } else {
        writeln!(out, "{:08x}", range.end)?;
    }
    Ok(out.flush()?)
}

/// The lines of `hexdump -C`: a line that repeats the one before is shown once, as `*`.
#[derive(Default)]
struct HexDump {
    last: Vec<u8>,
    starred: bool,
}

impl HexDump {
    fn line(&mut self, out: &mut impl io::Write, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() == 16 && bytes == self.last {
            return if std::mem::replace(&mut self.starred, true) {
                Ok(())
            } else {
                writeln!(out, "*")
            };
        }
        self.starred = false;
        self.last = bytes.to_vec();
        let mut hex = String::new();
        for (index, byte) in bytes.iter().enumerate() {
            hex += if index == 8 { "  " } else { " " };
            hex += &format!("{byte:02x}");
        }
        let text: String = bytes
            .iter()
            .map(|&byte| if (b' '..=b'~').contains(&byte) { byte as char } else { '.' })
            .collect();
        writeln!(out, "{offset:08x} {hex:49}  |{text}|")
    }
}

/// What `read`, `write` and `fill` print.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Transfer {
    /// The device node.
    device: String,
    /// The first byte.
    offset: u64,
    /// How many bytes.
    length: u64,
    /// How long it took.
    seconds: f64,
    /// The bytes by that time.
    mib_per_second: f64,
}

/// What `dump` prints; written piece by piece, so that no buffer is too large for it.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[allow(dead_code, reason = "its schema is what it is for")]
pub struct Dumped {
    /// The device node.
    device: String,
    /// The first byte.
    offset: u64,
    /// How many bytes.
    length: u64,
    /// The bytes, in hexadecimal.
    data: String,
}

fn summary(device: &Device, offset: u64, length: u64, began: Instant) -> Result {
    let time = began.elapsed();
    output::json(&Transfer {
        device: device.path().display().to_string(),
        offset,
        length,
        seconds: time.as_secs_f64(),
        mib_per_second: output::mib_per_second(length, time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_dump_looks_like_hexdump() {
        let mut out = Vec::new();
        let mut lines = HexDump::default();
        for (offset, bytes) in [
            (0, &b"0123456789abcde\n"[..]),
            (16, &[0; 16]),
            (32, &[0; 16]),
            (48, &[0; 16]),
            (64, b"end"),
        ] {
            lines.line(&mut out, offset, bytes).unwrap();
        }
        let expected = "\
00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 0a  |0123456789abcde.|
00000010  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
*
00000040  65 6e 64                                          |end|
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
