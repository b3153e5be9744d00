//! The parts alone: the protocol beside other implementations of it, the timer wheel, the session table, the drivers.

use anyhow::Result;
use clap::ValueEnum;

use crate::cores;
use crate::loopback;
use crate::structures;

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Batches timed; the fastest counts.
    pub(crate) batches: u32,
    /// Round trips, lookups or datagrams in each.
    pub(crate) repeats: u32,
    /// Round trips counted under callgrind.
    pub(crate) counted: u32,
    /// The largest number of sessions and timers.
    pub(crate) sessions_max: u32,
}

impl Effort {
    pub(crate) const FULL: Self =
        Self { batches: 25, repeats: 200_000, counted: 20_000, sessions_max: 10_000_000 };
    /// Shows that it runs, measures nothing.
    pub(crate) const SMOKE: Self = Self { batches: 1, repeats: 1, counted: 1, sessions_max: 1000 };
}

/// Measures all and prints tables.
///
/// # Errors
/// A peer did not get its message back, a driver is refused, or callgrind is there and fails.
pub(crate) fn run(effort: Effort, part: Option<Part>) -> Result<()> {
    let wanted = |one: Part| part.is_none_or(|part| part == one);
    if wanted(Part::Protocol) {
        cores::run(effort)?;
    }
    if wanted(Part::Structures) {
        structures::run(effort);
    }
    if wanted(Part::Drivers) {
        loopback::run(effort)?;
    }
    Ok(())
}

/// One of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// A message from one peer to the other and back.
    Protocol,
    /// Timer wheel and session table.
    Structures,
    /// A datagram over loopback.
    Drivers,
}
