// SPDX-License-Identifier: MIT
//! `dma-loop`.
use crate::{
    cli::{Cli, DmaLoop},
    failure::Result,
};
/// `mydrvctl dma-loop`.
pub fn dma_loop(_: &Cli, _: &DmaLoop) -> Result {
    Err(crate::failure::Failure::Broken("not built yet".into()))
}
