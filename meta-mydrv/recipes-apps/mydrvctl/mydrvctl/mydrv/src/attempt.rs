// SPDX-License-Identifier: MIT

//! Tries of what the driver must refuse, for programs that check it: `mydrvctl validate --full`. Whatever is let through is undone at once, and
//! no memory is touched. Each answers the kernel's own error, and `Ok` where it was let through.

use std::{ffi::c_void, fs, io, ptr};

use mydrv_abi::{MYDRV_IOC_SYNC, MydrvSync};
use rustix::{
    fs::{Mode, OFlags, SeekFrom},
    io::Errno,
    ioctl::{self, Opcode},
    mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags},
};

use crate::{device::Device, mapping::Mapping};

/// A mapping to ask for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Map {
    /// Where it starts, in bytes from the buffer's start.
    pub offset: u64,
    /// Its length in bytes.
    pub length: usize,
    /// `MAP_PRIVATE` instead of `MAP_SHARED`.
    pub private: bool,
    /// `PROT_WRITE` beside `PROT_READ`.
    pub write: bool,
    /// `PROT_EXEC` beside `PROT_READ`.
    pub exec: bool,
}

/// Maps.
///
/// # Errors
///
/// The kernel's.
pub fn map(device: &Device, request: &Map) -> io::Result<()> {
    let base = map_new(device, request)?;
    unmap(base, request.length);
    Ok(())
}

/// Makes a page's read-only mapping executable.
///
/// # Errors
///
/// The kernel's.
pub fn protect_exec(device: &Device) -> io::Result<()> {
    let length = rustix::param::page_size();
    let base = map_new(
        device,
        &Map {
            length,
            ..Map::default()
        },
    )?;
    // SAFETY: the range was just mapped, and nothing refers to it.
    let answer = unsafe { rustix::mm::mprotect(base, length, MprotectFlags::READ | MprotectFlags::EXEC) };
    unmap(base, length);
    #[cfg(feature = "stand-in")]
    if let Some(driver) = device.stand_in() {
        return Ok(driver.protect_exec()?);
    }
    Ok(answer?)
}

/// Makes a page's mapping two pages long.
///
/// # Errors
///
/// The kernel's.
pub fn grow(device: &Device) -> io::Result<()> {
    let length = rustix::param::page_size();
    let base = map_new(
        device,
        &Map {
            length,
            ..Map::default()
        },
    )?;
    // SAFETY: the range was just mapped, and nothing refers to it, so it may move.
    let grown = unsafe { rustix::mm::mremap(base, length, 2 * length, MremapFlags::MAYMOVE) };
    match grown {
        Ok(grown) => unmap(grown, 2 * length),
        Err(_) => unmap(base, length),
    }
    #[cfg(feature = "stand-in")]
    if let Some(driver) = device.stand_in() {
        return Ok(driver.grow()?);
    }
    Ok(grown.map(drop)?)
}

/// An ioctl that no version of the ABI has.
///
/// # Errors
///
/// The kernel's.
pub fn unknown_ioctl(device: &Device) -> io::Result<()> {
    #[cfg(feature = "stand-in")]
    if let Some(driver) = device.stand_in() {
        return Ok(driver.ioctl()?);
    }
    // SAFETY: _IO(0xD8, 0xFF) takes no argument, and no ABI version uses the number.
    Ok(unsafe { ioctl::ioctl(device, ioctl::NoArg::<0xd8ff>::new()) }?)
}

/// `MYDRV_IOC_SYNC` with just these numbers.
///
/// # Errors
///
/// The kernel's.
pub fn sync(device: &Device, offset: u64, length: u64, direction: u32, reserved: u32) -> io::Result<()> {
    let request = MydrvSync {
        offset,
        length,
        direction,
        reserved,
    };
    #[cfg(feature = "stand-in")]
    if let Some(driver) = device.stand_in() {
        return Ok(driver.sync(&request)?);
    }
    // SAFETY: MYDRV_IOC_SYNC reads one MydrvSync; both come from the shared ABI.
    Ok(unsafe { ioctl::ioctl(device, ioctl::Setter::<{ MYDRV_IOC_SYNC as Opcode }, MydrvSync>::new(request)) }?)
}

/// Opens the device's node for writing, without a lock.
///
/// # Errors
///
/// The kernel's.
pub fn open_for_writing(device: &Device) -> io::Result<()> {
    #[cfg(feature = "stand-in")]
    crate::stand_in::opening(device.path(), true)?;
    Ok(rustix::fs::open(device.path(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(drop)?)
}

/// Sets the file's position.
///
/// # Errors
///
/// The kernel's.
pub fn seek(device: &Device, offset: u64) -> io::Result<()> {
    #[cfg(feature = "stand-in")]
    if let Some(driver) = device.stand_in() {
        return Ok(driver.seek(offset)?);
    }
    Ok(rustix::fs::seek(device, SeekFrom::Start(offset)).map(drop)?)
}

/// Writes one byte, 0, by `pwrite`: for offsets at which there is nothing to lose.
///
/// # Errors
///
/// The kernel's.
pub fn write(device: &Device, offset: u64) -> io::Result<()> {
    device.pwrite(&[0], offset)?;
    Ok(())
}

/// Reads one byte by `pread`, and answers how many came.
///
/// # Errors
///
/// The kernel's.
pub fn read(device: &Device, offset: u64) -> io::Result<usize> {
    Ok(device.pread(&mut [0], offset)?)
}

/// The kernel's flags of a mapping, by their names in /proc/PID/smaps (Documentation/filesystems/proc.rst, "VmFlags"); `None` where it shows none.
///
/// # Errors
///
/// Those of reading /proc/self/smaps.
pub fn vm_flags(device: &Device, mapping: &Mapping) -> io::Result<Option<Vec<String>>> {
    let smaps = fs::read_to_string("/proc/self/smaps")?;
    let flags = flags_in(&smaps, &format!("{:08x}-", mapping.as_ptr() as usize));
    #[cfg(feature = "stand-in")]
    if let Some(driver) = device.stand_in() {
        return Ok(flags.map(|flags| driver.vm_flags(flags)));
    }
    let _ = device;
    Ok(flags)
}

/// The flags of the mapping whose line begins with `start`.
fn flags_in(smaps: &str, start: &str) -> Option<Vec<String>> {
    let mut lines = smaps.lines().skip_while(|line| !line.starts_with(start)).skip(1);
    // Another mapping's line follows at the latest: it has no colon in its first word.
    let flags = lines.find_map(|line| line.strip_prefix("VmFlags:"))?;
    Some(flags.split_whitespace().map(str::to_owned).collect())
}

fn map_new(device: &Device, request: &Map) -> Result<*mut c_void, Errno> {
    let mut protection = ProtFlags::READ;
    protection.set(ProtFlags::WRITE, request.write);
    protection.set(ProtFlags::EXEC, request.exec);
    let flags = if request.private {
        MapFlags::PRIVATE
    } else {
        MapFlags::SHARED
    };
    #[cfg(feature = "stand-in")]
    if let Some(driver) = device.stand_in() {
        driver.map(&crate::stand_in::Map {
            offset: request.offset,
            length: request.length,
            private: request.private,
            exec: request.exec,
        })?;
    }
    // SAFETY: a new mapping at an address of the kernel's choice disturbs no existing one.
    unsafe { rustix::mm::mmap(ptr::null_mut(), request.length, protection, flags, device, request.offset) }
}

fn unmap(base: *mut c_void, length: usize) {
    // SAFETY: callers give a range they have just mapped and that nothing refers to.
    let unmapped = unsafe { rustix::mm::munmap(base, length) };
    debug_assert!(unmapped.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vm_flags_are_those_of_the_mapping_asked_for() {
        let smaps = "ffff8000-ffff9000 r--s 00000000 00:05 1 /dev/other\nVmFlags: rd wr \n\
                     ffff9000-ffffa000 r--s 00000000 00:05 1 /dev/mydrv0\nSize: 4 kB\nVmFlags: rd sh mr ms pf io de dd \n";
        assert_eq!(
            flags_in(smaps, "ffff9000-").unwrap(),
            ["rd", "sh", "mr", "ms", "pf", "io", "de", "dd"]
        );
        assert_eq!(flags_in(smaps, "ffffa000-"), None);
    }
}
