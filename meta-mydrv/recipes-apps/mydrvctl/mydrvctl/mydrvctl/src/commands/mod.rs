// SPDX-License-Identifier: MIT

//! Every command but validate.

mod bench;
#[cfg(feature = "dma-loop")]
mod dma_loop;
mod show;
#[cfg(feature = "status")]
mod status;
mod transfer;

use std::path::Path;

use mydrv::{Device, Lock, OpenOptions, Selector};

pub use bench::bench;
#[cfg(feature = "dma-loop")]
pub use dma_loop::dma_loop;
pub use show::{info, list};
#[cfg(feature = "status")]
pub use status::status;
pub use transfer::{dump, fill, read, write};

use crate::{
    cli::{Cli, Span},
    failure::{Failure, Result},
};

/// One transfer's bytes: enough to make the calls' cost vanish, little enough for a small machine.
const CHUNK: usize = 1 << 20;

/// Opens the device that the command line names, or the only one there is.
fn open(cli: &Cli, write: bool, lock: Lock) -> Result<Device> {
    let path = match &cli.device {
        Some(device) => Selector::from(device.as_str()).resolve_in(&cli.root)?,
        None => match mydrv::discover_in(&cli.root)?.as_slice() {
            [] => {
                return Err(mydrv::Error::NotFound {
                    device: "/dev/mydrv*".into(),
                }
                .into());
            }
            [only] => only.path.clone(),
            several => {
                let names: Vec<_> = several.iter().map(|device| device.path.display().to_string()).collect();
                return Err(Failure::Usage(format!(
                    "several devices: choose one by --device: {}",
                    names.join(", ")
                )));
            }
        },
    };
    Ok(OpenOptions::new().write(write).lock(lock).open(Path::new(&path))?)
}

impl Span {
    /// The range in a buffer, proved to lie within it.
    fn within(&self, device: &Device) -> Result<std::ops::Range<u64>> {
        let size = device.size_bytes();
        let length = self.length.unwrap_or(size.saturating_sub(self.offset));
        match self.offset.checked_add(length) {
            Some(end) if end <= size => Ok(self.offset..end),
            _ => Err(mydrv::Error::OutOfRange {
                path: device.path().into(),
                offset: self.offset,
                length,
                size,
            }
            .into()),
        }
    }
}

#[cfg(all(test, feature = "dma-loop", feature = "status"))]
pub mod documents {
    //! What the commands print with `--json`.
    pub use super::{
        bench::Measurements,
        dma_loop::Loop,
        show::{List, Shown},
        status::Status,
        transfer::{Dumped, Transfer},
    };
}
