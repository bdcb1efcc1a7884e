// SPDX-License-Identifier: MIT

//! `dma-loop`: application, buffer and a device's DMA engine in one circle. The engine is that of QEMU's PCI device `edu`
//! (docs/specs/edu.rst in QEMU's source), driven from here through sysfs, for want of a kernel driver: so on a machine for tests only.
//!
//! Limitation: the buffer's `dma_address` is the buffer's own device's view. It is edu's too where neither is behind an IOMMU.

use std::{
    ffi::c_void,
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    ptr::{self, NonNull},
    sync::atomic::{Ordering, fence},
    thread,
    time::{Duration, Instant},
};

use mydrv::{Direction, Lock};
use rustix::mm::{MapFlags, ProtFlags};
use serde::Serialize;

use super::open;
use crate::{
    cli::{Cli, DmaLoop},
    failure::{Failure, Result},
    output::{self, Random},
    saved::Saved,
    stop::Stop,
};

const REMEDY: &str = "start QEMU with -device edu,dma_mask=0xffffffffff";

/// What `dma-loop` prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Loop {
    /// The device node.
    device: String,
    /// The PCI device whose engine it was.
    pci: String,
    /// Bytes per transfer.
    block: u64,
    /// How many transfers there were, both ways.
    transfers: u32,
    /// "pass" or "fail".
    verdict: &'static str,
    /// The rounds whose data came back different.
    mismatches: Vec<Mismatch>,
}

/// One of them.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Mismatch {
    /// Where in the buffer the data was sent from.
    source: u64,
    /// Where it came back to.
    destination: u64,
    /// How many bytes differ.
    different_bytes: usize,
}

/// `mydrvctl dma-loop`.
pub fn dma_loop(cli: &Cli, args: &DmaLoop) -> Result {
    if args.block == 0 || args.block > Edu::MEMORY_BYTES {
        return Err(Failure::Usage(format!(
            "--block {}: give 1 to {} bytes, the edu device's memory",
            args.block,
            Edu::MEMORY_BYTES
        )));
    }
    mydrv::sigbus::install()?;
    let stop = Stop::on_signals()?;
    let device = open(cli, true, Lock::Exclusive)?;
    if device.size_bytes() < 2 * args.block {
        return Err(Failure::Usage(format!(
            "--block {}: give at most half of the buffer",
            args.block
        )));
    }
    let Some(addresses) = device.info()?.addresses else {
        return Err(Failure::Permission(
            "the DMA address is hidden: run as root, or with CAP_SYS_RAWIO".into(),
        ));
    };
    let edu = Edu::open(&cli.root)?;
    let mut mapping = device.map_mut(..)?;
    let bar = output::progress(u64::from(args.rounds) * args.block, "DMA");
    let mut random = Random::new(args.seed);
    let mut mismatches = Vec::new();
    for round in 0..args.rounds {
        let (source, destination) = places(round, args.rounds, device.size_bytes(), args.block, &mut random);
        let (mut sent, mut found) = (vec![0; args.block as usize], vec![0; args.block as usize]);
        random.fill(&mut sent);
        let saved = Saved::new(
            &device,
            [source, destination].map(|offset| (offset as usize, args.block as usize)),
        )?;
        mapping.copy_from(source as usize, &sent)?;
        // What the destination holds must not be right by chance.
        let inverse: Vec<_> = sent.iter().map(|byte| !byte).collect();
        mapping.copy_from(destination as usize, &inverse)?;
        // The source for the device to read; the destination so that no dirty line of it is written back over what the device writes.
        for offset in [source, destination] {
            device.sync(offset..offset + args.block, Direction::ToDevice)?;
        }
        edu.transfer(addresses.dma + source, Edu::MEMORY, args.block, Edu::FROM_RAM)?;
        edu.transfer(Edu::MEMORY, addresses.dma + destination, args.block, Edu::TO_RAM)?;
        device.sync(destination..destination + args.block, Direction::FromDevice)?;
        mapping.copy_to(destination as usize, &mut found)?;
        drop(saved);
        // Between rounds: no transfer runs, and the contents are back.
        stop.check()?;
        let different = sent.iter().zip(&found).filter(|(sent, found)| sent != found).count();
        if different > 0 {
            mismatches.push((source, destination, different));
        }
        bar.inc(args.block);
    }
    bar.finish_and_clear();
    let verdict = if mismatches.is_empty() { "pass" } else { "fail" };
    let told = if cli.json {
        let mismatches: Vec<_> = mismatches
            .iter()
            .map(|&(source, destination, different_bytes)| Mismatch {
                source,
                destination,
                different_bytes,
            })
            .collect();
        output::json(&Loop {
            device: device.path().display().to_string(),
            pci: edu.name.clone(),
            block: args.block,
            transfers: 2 * args.rounds,
            verdict,
            mismatches,
        })
    } else if mismatches.is_empty() {
        output::table(&[[
            format!("DMA works: {} rounds of {} bytes", args.rounds, args.block),
            format!("{} -> {} -> {}", device.path().display(), edu.name, device.path().display()),
        ]])
    } else {
        Ok(())
    };
    let found = match mismatches.first() {
        Some((source, destination, different)) => Err(Failure::Different(format!(
            "{} of {} rounds failed; the first: {different} of {} bytes differ, sent from {source:#x} through edu to {destination:#x}; \
             {REMEDY}, since its default mask cuts addresses",
            mismatches.len(),
            args.rounds,
            args.block,
        ))),
        None => Ok(()),
    };
    Failure::verdict_first(found, told)
}

/// Where a round's data comes from and goes to: the first round from the buffer's start to its end, the last one back, the others
/// spread between and at odd offsets. They never overlap.
fn places(round: u32, rounds: u32, size: u64, block: u64, random: &mut Random) -> (u64, u64) {
    let last = size - block;
    let place = match round {
        0 => 0,
        _ if round + 1 == rounds => last,
        // Nothing overflows: sizes have far fewer than 64 bits, rounds 32.
        _ => (last / u64::from(rounds) * u64::from(round) + random.next_word() % block.min(64)).min(last),
    };
    let apart = |destination: &u64| destination.abs_diff(place) >= block;
    match [last - place, 0, last].into_iter().find(apart) {
        Some(destination) => (place, destination),
        // A buffer of less than three blocks has room at its ends only.
        None => (0, last),
    }
}

/// QEMU's edu device, enabled and mastering the bus for as long as this lives.
struct Edu {
    name: String,
    registers: NonNull<u8>,
    config: File,
    command: [u8; 2],
    enable: PathBuf,
}

impl Edu {
    const ID: (&'static str, &'static str) = ("0x1234", "0x11e8");
    const REGISTERS_BYTES: usize = 0x1000;
    const SOURCE: usize = 0x80;
    const DESTINATION: usize = 0x88;
    const COUNT: usize = 0x90;
    const COMMAND: usize = 0x98;
    const START: u64 = 1;
    const FROM_RAM: u64 = 0;
    const TO_RAM: u64 = 2;
    /// Where the device's own memory is, as its DMA engine counts.
    const MEMORY: u64 = 0x4_0000;
    const MEMORY_BYTES: u64 = 4096;
    /// The command register in PCI configuration space, and its bits for memory access and bus mastering (PCI Local Bus
    /// Specification 3.0, section 6.2.2).
    const PCI_COMMAND: u64 = 4;
    const PCI_ENABLE: u8 = 0x02 | 0x04;

    fn open(root: &Path) -> Result<Self> {
        let devices = root.join("sys/bus/pci/devices");
        let read = |path: PathBuf| {
            fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .unwrap_or_default()
        };
        let found = fs::read_dir(&devices)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| (&*read(path.join("vendor")), &*read(path.join("device"))) == Self::ID);
        let Some(dir) = found else {
            return Err(Failure::NotFound(format!(
                "no PCI device 1234:11e8 in {}; {REMEDY}",
                devices.display()
            )));
        };
        if dir.join("driver").exists() {
            return Err(Failure::Broken(format!(
                "{} has a driver; unbind it: dma-loop drives the device itself",
                dir.display()
            )));
        }
        let enable = dir.join("enable");
        fs::write(&enable, "1").map_err(Failure::io(&enable))?;
        let path = dir.join("config");
        let config = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(Failure::io(&path))?;
        let mut command = [0; 2];
        config
            .read_exact_at(&mut command, Self::PCI_COMMAND)
            .map_err(Failure::io(&path))?;
        config
            .write_all_at(&[command[0] | Self::PCI_ENABLE, command[1]], Self::PCI_COMMAND)
            .map_err(Failure::io(&path))?;
        let path = dir.join("resource0");
        let resource = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(Failure::io(&path))?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no existing one.
        let registers = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                Self::REGISTERS_BYTES,
                protection,
                MapFlags::SHARED,
                &resource,
                0,
            )
        }
        .map_err(|errno| Failure::io(&path)(errno.into()))?;
        let registers =
            NonNull::new(registers.cast()).ok_or_else(|| Failure::Broken(format!("{}: no mapping", path.display())))?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let edu = Self {
            name,
            registers,
            config,
            command,
            enable,
        };
        // SAFETY: register 0, identification, is 4 bytes and within the mapping.
        let id = unsafe { ptr::read_volatile(edu.registers.as_ptr().cast::<u32>()) };
        if id & 0xff != 0xed {
            return Err(Failure::Broken(format!(
                "{}: identification {id:#010x} is not edu's; {REMEDY}",
                edu.name
            )));
        }
        Ok(edu)
    }

    /// One transfer; addresses on edu's side count from [`MEMORY`](Self::MEMORY). `length` has been checked: QEMU does not.
    fn transfer(&self, from: u64, to: u64, length: u64, direction: u64) -> Result {
        debug_assert!(length <= Self::MEMORY_BYTES);
        // What was written to the buffer comes before the engine starts.
        fence(Ordering::SeqCst);
        self.set(Self::SOURCE, from);
        self.set(Self::DESTINATION, to);
        self.set(Self::COUNT, length);
        self.set(Self::COMMAND, Self::START | direction);
        // The engine takes a tenth of a second by design.
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.get(Self::COMMAND) & Self::START != 0 {
            if Instant::now() > deadline {
                return Err(Failure::Broken(format!(
                    "{}: a DMA transfer does not end; reset the machine",
                    self.name
                )));
            }
            thread::sleep(Duration::from_millis(5));
        }
        fence(Ordering::SeqCst);
        Ok(())
    }

    fn set(&self, register: usize, value: u64) {
        // SAFETY: callers name one of the DMA registers: 8 bytes, aligned, within the mapping.
        unsafe { ptr::write_volatile(self.registers.as_ptr().add(register).cast::<u64>(), value) }
    }

    fn get(&self, register: usize) -> u64 {
        // SAFETY: as for `set`.
        unsafe { ptr::read_volatile(self.registers.as_ptr().add(register).cast::<u64>()) }
    }
}

impl Drop for Edu {
    fn drop(&mut self) {
        // SAFETY: `open` mapped this very range, and nothing refers to it any more.
        let unmapped = unsafe { rustix::mm::munmap(self.registers.as_ptr().cast::<c_void>(), Self::REGISTERS_BYTES) };
        debug_assert!(unmapped.is_ok());
        // As it was found; nothing is lost if that fails.
        let _ = self.config.write_all_at(&self.command, Self::PCI_COMMAND);
        let _ = fs::write(&self.enable, "0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_reach_both_ends_and_never_overlap() {
        for (size, block, rounds) in [
            (8192, 4096, 16),
            (12288, 4096, 5),
            (64 << 20, 4096, 16),
            (64 << 20, 1, 2),
            (1 << 20, 100, 1),
        ] {
            let mut random = Random::new(1);
            let all: Vec<_> = (0..rounds)
                .map(|round| places(round, rounds, size, block, &mut random))
                .collect();
            assert_eq!(all[0], (0, size - block));
            assert!(rounds == 1 || all[all.len() - 1] == (size - block, 0));
            for (source, destination) in all {
                assert!(
                    source + block <= size && destination + block <= size,
                    "{source:#x} {destination:#x}"
                );
                assert!(
                    source.abs_diff(destination) >= block,
                    "{source:#x} {destination:#x} {size} {block}"
                );
            }
        }
    }
}
