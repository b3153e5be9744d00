//! Memory over time: of the process, and of that what is kept for those who are slow.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::stage::Front;

/// The gateway at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Sample {
    /// Since it began, in seconds.
    pub(super) at_s: f64,
    /// Memory of the process, in bytes.
    pub(super) resident: u64,
    /// Of that, payload and what waits between sessions and backends.
    pub(super) kept: f64,
    /// Of that, beside what is kept: what waits for the kernel to take it towards backends.
    pub(super) queued: f64,
    /// Those who are slow are slow now.
    pub(super) slow: bool,
}

impl Sample {
    /// The gateway now.
    ///
    /// # Errors
    /// It is gone.
    pub(super) fn of(front: &Front, at: Duration, slow: bool) -> Result<Self> {
        let now = front.look()?;
        let bytes = |metric: &str| now.sum(metric, "");
        Ok(Self {
            at_s: at.as_secs_f64(),
            resident: front.resident()?,
            kept: bytes("kcp_gateway_store_bytes") + bytes("kcp_gateway_upstream_pool_bytes"),
            queued: bytes("kcp_gateway_upstream_queued_bytes"),
            slow,
        })
    }
}

/// The samples of a run, and what they are held against.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Kept {
    /// Memory with all sessions there and nobody waiting.
    resident_before: u64,
    /// What the settings allow to be kept, in bytes: the store and the pool of every shard.
    pub(super) kept_max: f64,
    pub(super) samples: Vec<Sample>,
}

impl Kept {
    /// Of a gateway of which nobody is slow yet.
    ///
    /// # Errors
    /// It is gone.
    pub(super) fn of(front: &Front) -> Result<Self> {
        let limits = front.look()?;
        let kept_max = limits.sum("kcp_gateway_store_limit_bytes", "")
            + limits.sum("kcp_gateway_upstream_pool_limit_bytes", "");
        Ok(Self { resident_before: front.resident()?, kept_max, samples: Vec::new() })
    }

    fn most_kept(&self) -> f64 {
        self.samples.iter().map(|sample| sample.kept).fold(0.0, f64::max)
    }

    fn most_queued(&self) -> f64 {
        self.samples.iter().map(|sample| sample.queued).fold(0.0, f64::max)
    }

    /// The most that was kept while those who are slow were slow.
    pub(super) fn most_while_slow(&self) -> f64 {
        let slow = self.samples.iter().filter(|sample| sample.slow);
        slow.map(|sample| sample.kept).fold(0.0, f64::max)
    }

    fn grown(&self) -> u64 {
        let most = self.samples.iter().map(|sample| sample.resident).max().unwrap_or(0);
        most.saturating_sub(self.resident_before)
    }

    /// From when nearly the most is kept for those who are slow: most memory in the second half of that time, divided by the most
    /// in the first.
    fn slope(&self) -> f64 {
        let slow: Vec<_> = self.samples.iter().filter(|sample| sample.slow).collect();
        let nearly = self.most_while_slow() * 0.9;
        let full = slow.iter().position(|sample| sample.kept >= nearly).unwrap_or(0);
        let most = |part: &[&Sample]| part.iter().map(|sample| sample.resident).max().unwrap_or(0);
        let (first, second) = slow[full..].split_at((slow.len() - full) / 2);
        most(second) as f64 / most(first).max(1) as f64
    }

    /// What must hold of `whose` memory; in a run that only shows that it runs, a few megabytes are not looked at for long.
    pub(super) fn verdicts(&self, whose: &str, smoke: bool) -> Vec<(String, bool)> {
        let under = self.most_kept() <= self.kept_max;
        // The allocator's own, and what the kernel's answers need, come on top of what is counted.
        let process = (self.grown() as f64) < self.kept_max * 1.25 + 64e6;
        let mut all = vec![
            (format!("{whose}: what is kept stays under its bound"), under),
            (format!("{whose}: and so does the process"), process),
        ];
        if !smoke {
            let flat = self.slope() <= 1.05;
            all.push((format!("{whose}: memory is flat once the windows are closed"), flat));
        }
        all
    }

    pub(super) fn line(&self) -> String {
        format!(
            "kept {:.0} MB at most of {:.0} MB allowed, {:.0} MB at most on their way to backends, process {:.0} MB + {:.0} MB, second \
             half of that {:.3} of the first",
            self.most_kept() / 1e6,
            self.kept_max / 1e6,
            self.most_queued() / 1e6,
            self.resident_before as f64 / 1e6,
            self.grown() as f64 / 1e6,
            self.slope(),
        )
    }
}
