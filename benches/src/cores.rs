//! The protocol alone: one message there and back between two peers in memory, in time and in instructions.
//!
//! Every implementation runs in a process of its own. Instructions are counted by callgrind around one that runs the loop
//! twice, with different lengths: the difference leaves out everything that is not the loop. They repeat exactly where time
//! does not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::micro::Effort;
use crate::outsider::build_crates;
use crate::pairs::{Core, Reference};
use crate::trips::fastest;

/// Whose protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Implementation {
    /// `kcp-core`.
    KcpCore,
    /// The C library.
    CIkcp,
    /// Crate `kcp`.
    Kcp,
    /// Crate `kcp2`.
    #[value(name = "kcp2")]
    Kcp2,
}

impl Implementation {
    const fn label(self) -> &'static str {
        match self {
            Self::KcpCore => "kcp-core",
            Self::CIkcp => "c-ikcp",
            Self::Kcp => "kcp",
            Self::Kcp2 => "kcp2",
        }
    }
}

/// Measures all and prints a table.
///
/// # Errors
/// A peer did not get its message back, or callgrind is there and fails.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub(crate) fn run(effort: Effort) -> Result<()> {
    let crates = build_crates();
    let ours = std::env::current_exe().context("cannot find this program")?;
    println!("One message there and back in memory, acknowledgements included\n");
    println!(
        "{:<10} {:>6} {:>10} {:>8} {:>14} {:>8}",
        "core", "bytes", "ns", "of C's", "instructions", "of C's"
    );
    for size in [64, 1024] {
        let measured = |implementation| measure(implementation, size, effort, &ours, &crates);
        let reference = measured(Implementation::CIkcp)?;
        for &implementation in Implementation::value_variants() {
            let name = implementation.label();
            let known = implementation == Implementation::CIkcp;
            let cost = match if known { Ok(reference) } else { measured(implementation) } {
                Ok(cost) => cost,
                Err(error) => {
                    println!("{name:<10} {size:>6} not measured: {error:#}");
                    continue;
                }
            };
            let ratio = cost.nanoseconds / reference.nanoseconds;
            let instructions = match (cost.instructions, reference.instructions) {
                (Some(own), Some(c)) => format!("{own:>14} {:>8.3}", own as f64 / c as f64),
                _ => "no valgrind here".to_owned(),
            };
            println!("{name:<10} {size:>6} {:>10.1} {ratio:>8.3} {instructions}", cost.nanoseconds);
        }
    }
    println!();
    Ok(())
}

/// What `trips` prints: the nanoseconds of one round trip.
#[expect(clippy::print_stdout, reason = "read by the process that started this one")]
pub(crate) fn print_trips(
    implementation: Implementation,
    size: usize,
    trips: u32,
    batches: u32,
) -> Result<()> {
    let nanoseconds = match implementation {
        Implementation::KcpCore => fastest(Core::new(), size, trips, batches),
        Implementation::CIkcp => fastest(Reference::new(), size, trips, batches),
        Implementation::Kcp | Implementation::Kcp2 => anyhow::bail!("not in this program"),
    };
    println!("{nanoseconds}");
    Ok(())
}

#[derive(Clone, Copy)]
struct Cost {
    nanoseconds: f64,
    /// `None` where valgrind is not installed.
    instructions: Option<u64>,
}

fn measure(
    implementation: Implementation,
    size: usize,
    effort: Effort,
    ours: &Path,
    crates: &Result<PathBuf, String>,
) -> Result<Cost> {
    let program = match (implementation, crates) {
        (Implementation::KcpCore | Implementation::CIkcp, _) => ours,
        (Implementation::Kcp | Implementation::Kcp2, Ok(program)) => program,
        (Implementation::Kcp | Implementation::Kcp2, Err(why)) => anyhow::bail!("{why}"),
    };
    let words = |trips: u32, batches: u32| {
        let label = implementation.label().to_owned();
        ["trips".into(), label, size.to_string(), trips.to_string(), batches.to_string()]
    };
    let output = Command::new(program).args(words(effort.repeats, effort.batches)).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let nanoseconds = String::from_utf8(output.stdout)?.trim().parse().context("no time")?;
    let counted = |trips| instructions(program, &words(trips, 1));
    let instructions = match (counted(effort.counted)?, counted(2 * effort.counted)?) {
        (Some(short), Some(long)) => Some(long.saturating_sub(short) / u64::from(effort.counted)),
        _ => None,
    };
    Ok(Cost { nanoseconds, instructions })
}

/// Instructions of a whole run; `None` where valgrind is not installed.
fn instructions(program: &Path, words: &[String]) -> Result<Option<u64>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(words)
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
