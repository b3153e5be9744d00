//! The protocol alone: one message there and back between two peers in memory, in time and in instructions.
//!
//! Instructions are counted by callgrind in a child process that runs the loop twice, with different lengths: the
//! difference leaves out everything that is not the loop. They repeat exactly where time does not.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::cpu;
use crate::peers::{Core, Pair, Reference};

/// Whose protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Implementation {
    /// `kcp-core`.
    KcpCore,
    /// The C library.
    CIkcp,
}

impl Implementation {
    const fn label(self) -> &'static str {
        match self {
            Self::KcpCore => "kcp-core",
            Self::CIkcp => "c-ikcp",
        }
    }
}

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Batches timed; the fastest counts, since nothing makes code faster than it is.
    batches: u32,
    /// Round trips in each.
    trips: u32,
    /// Round trips counted under callgrind.
    counted: u32,
}

impl Effort {
    pub(crate) const FULL: Self = Self { batches: 25, trips: 200_000, counted: 20_000 };
    pub(crate) const SMOKE: Self = Self { batches: 1, trips: 1, counted: 1 };
}

/// Measures all and prints a table.
///
/// # Errors
/// A peer did not get its message back, or callgrind is there and fails.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub(crate) fn run(effort: Effort) -> Result<()> {
    println!(
        "{:<10} {:>6} {:>14} {:>22}",
        "core", "bytes", "ns/round trip", "instructions/round trip"
    );
    for size in [64, 1024] {
        for implementation in [Implementation::KcpCore, Implementation::CIkcp] {
            let nanoseconds = nanoseconds(implementation, size, effort);
            let instructions = match instructions(implementation, size, effort)? {
                Some(count) => count.to_string(),
                None => "no valgrind here".to_owned(),
            };
            println!(
                "{:<10} {size:>6} {nanoseconds:>14.1} {instructions:>22}",
                implementation.label()
            );
        }
    }
    Ok(())
}

fn nanoseconds(implementation: Implementation, size: usize, effort: Effort) -> f64 {
    let batch = |_| {
        let began = cpu::now();
        trips(implementation, size, effort.trips);
        began.elapsed().as_secs_f64() * 1e9 / f64::from(effort.trips)
    };
    (0..effort.batches).map(batch).fold(f64::INFINITY, f64::min)
}

/// The loop itself: what the child of [`instructions`] runs.
pub(crate) fn trips(implementation: Implementation, size: usize, count: u32) {
    match implementation {
        Implementation::KcpCore => there_and_back(Core::new(), size, count),
        Implementation::CIkcp => there_and_back(Reference::new(), size, count),
    }
}

fn there_and_back(mut pair: impl Pair, size: usize, count: u32) {
    let mut message: Vec<u8> = (0..=u8::MAX).cycle().take(size).collect();
    for trip in 0..count {
        message[0] = trip.to_le_bytes()[0];
        let echo = pair.round_trip(std::hint::black_box(&message));
        assert_eq!(echo, message, "round trip {trip} came back different");
    }
}

/// Instructions of one round trip; `None` where valgrind is not installed.
fn instructions(
    implementation: Implementation,
    size: usize,
    effort: Effort,
) -> Result<Option<u64>> {
    let Some(short) = counted(implementation, size, effort.counted)? else { return Ok(None) };
    let long = counted(implementation, size, 2 * effort.counted)?.unwrap_or(short);
    Ok(Some((long - short) / u64::from(effort.counted)))
}

fn counted(implementation: Implementation, size: usize, trips: u32) -> Result<Option<u64>> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["trips", implementation.label(), &size.to_string(), &trips.to_string()])
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context("cannot run valgrind")?,
    };
    let text = String::from_utf8_lossy(&output.stderr);
    let total = text.lines().find_map(|line| line.split("Collected :").nth(1));
    let total = total.with_context(|| format!("callgrind counted nothing:\n{text}"))?;
    Ok(Some(total.trim().parse().context("callgrind's count is no number")?))
}
