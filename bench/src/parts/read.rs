//! Part `read`.

use clap::Args;

use super::{Bench, PartError};
use crate::report::Report;

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct ReadArguments {}

/// Runs the part.
///
/// # Errors
/// None.
pub fn run(bench: &Bench, _arguments: &ReadArguments) -> Result<Report, PartError> {
    Ok(bench.report("read", "", vec![]))
}
