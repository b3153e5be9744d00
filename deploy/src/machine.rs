//! Where a figure was measured.

use std::fs;
use std::process::Command;

use anyhow::ensure;

use crate::rules::home;

/// Processor, kernel and commit, in one sentence.
///
/// # Errors
/// The host does not say, or this is no checkout.
pub(crate) fn line() -> anyhow::Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model =
        cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("\t: unknown");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let commit = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .current_dir(home())
        .output()?;
    ensure!(commit.status.success(), "git rev-parse");
    Ok(format!(
        "Measured with gateway and load on one machine: {}, {cores} cores, Linux {}, commit {}.",
        model.trim_start_matches(['\t', ' ', ':']),
        kernel.trim(),
        String::from_utf8_lossy(&commit.stdout).trim(),
    ))
}
