// SPDX-License-Identifier: MIT
//! `bench`.
use crate::{
    cli::{Bench, Cli},
    failure::Result,
};
/// `mydrvctl bench`.
pub fn bench(_: &Cli, _: &Bench) -> Result {
    Err(crate::failure::Failure::Broken("not built yet".into()))
}
