//! A backend that hardly moves, in front of it many clients that go on speaking: what the gateway keeps meanwhile.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::stage::{Backend, Front, FrontSettings, Kind};
use super::{Plan, crowd, pause};
use crate::cpu;
use crate::load::Load;

/// The gateway at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Sample {
    /// Since the squeeze began, in seconds.
    pub(super) at_s: f64,
    /// Memory of the process, in bytes.
    pub(super) resident: u64,
    /// Of that, payload and what waits between sessions and backends.
    pub(super) kept: f64,
    pub(super) squeezed: bool,
}

/// What became of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Squeeze {
    pub(super) kind: &'static str,
    sessions: u32,
    /// Memory with all sessions there and nobody waiting.
    resident_before: u64,
    /// What the settings allow to be kept, in bytes: the store and the pool of every shard.
    pub(super) kept_max: f64,
    sent: u64,
    received: u64,
    lost: u64,
    pub(super) samples: Vec<Sample>,
}

impl Squeeze {
    fn most_kept(&self) -> f64 {
        self.samples.iter().map(|sample| sample.kept).fold(0.0, f64::max)
    }

    fn grown(&self) -> u64 {
        let most = self.samples.iter().map(|sample| sample.resident).max().unwrap_or(0);
        most.saturating_sub(self.resident_before)
    }

    /// Most memory in the last third of the squeeze, divided by the most in the third before.
    fn slope(&self) -> f64 {
        let squeezed: Vec<_> = self.samples.iter().filter(|sample| sample.squeezed).collect();
        let most = |part: &[&Sample]| part.iter().map(|sample| sample.resident).max().unwrap_or(0);
        let third = squeezed.len() / 3;
        most(&squeezed[2 * third..]) as f64 / most(&squeezed[third..2 * third]).max(1) as f64
    }

    pub(super) fn verdicts(&self) -> Vec<(String, bool)> {
        let kind = self.kind;
        vec![
            (
                format!("{kind}: a backend that hardly moves: what is kept stays under its bound"),
                self.most_kept() <= self.kept_max,
            ),
            // The allocator's own, and what the kernel's answers need, come on top of what is counted.
            (
                format!("{kind}: and so does the process"),
                (self.grown() as f64) < self.kept_max * 1.25 + 64e6,
            ),
            (format!("{kind}: memory is flat once the windows are closed"), self.slope() <= 1.05),
            (
                format!("{kind}: nothing is lost after it recovers"),
                self.lost == 0 && self.sent == self.received,
            ),
        ]
    }

    pub(super) fn lines(&self) -> Vec<String> {
        vec![format!(
            "{}: {} clients of a backend that hardly moves: kept {:.0} MB at most of {:.0} MB allowed, process {:.0} MB + {:.0} MB, \
             last third of the squeeze {:.3} of the one before; {} messages sent, {} came back, {} lost",
            self.kind,
            self.sessions,
            self.most_kept() / 1e6,
            self.kept_max / 1e6,
            self.resident_before as f64 / 1e6,
            self.grown() as f64 / 1e6,
            self.slope(),
            self.sent,
            self.received,
            self.lost
        )]
    }
}

/// Runs it.
///
/// # Errors
/// Something could not be started, or is gone; verdicts are not errors.
pub(super) fn run(plan: &Plan, kind: Kind) -> Result<Squeeze> {
    let backends = crowd::backends(plan, kind)?;
    let sessions = plan.squeezed;
    let settings = crowd::settings(plan, kind, &backends);
    let store_bytes_max = STORE / u64::from(plan.shards);
    let front = Front::start(&FrontSettings { store_bytes_max, ..settings })?;
    eprintln!("{}: {sessions} sessions, and backends that hardly move", kind.label());
    let flags = format!(
        "--sessions {sessions} --rate 4 --size 400 --ramp {}s --warmup 0s --duration {}s --drain 60s --sources 127.0.0.2+16 \
         --io {} --progress off",
        sessions.div_ceil(plan.ramp).max(1),
        plan.seconds + 2,
        plan.io.label()
    );
    let mut load = Load::start(front.addr, &flags)?;
    while front.look()?.sum("kcp_gateway_backend_sessions", "") < f64::from(sessions) {
        pause(Duration::from_millis(50));
    }
    let resident_before = front.resident()?;
    let limits = front.look()?;
    let kept_max = limits.sum("kcp_gateway_store_limit_bytes", "")
        + limits.sum("kcp_gateway_upstream_pool_limit_bytes", "");
    let mut samples = Vec::new();
    let began = cpu::now();
    let end = Duration::from_secs(u64::from(plan.seconds));
    // Squeezed until the load ends; then it has its time to get everything back.
    while load.ended()?.is_none() {
        let squeezed = began.elapsed() < end;
        if squeezed {
            freeze(&backends, true)?;
            pause(FROZEN);
        } else {
            pause(FROZEN / 2);
        }
        let (Ok(now), Ok(resident)) = (front.look(), front.resident()) else { break };
        let kept =
            now.sum("kcp_gateway_store_bytes", "") + now.sum("kcp_gateway_upstream_pool_bytes", "");
        samples.push(Sample { at_s: began.elapsed().as_secs_f64(), resident, kept, squeezed });
        freeze(&backends, false)?;
        if squeezed {
            pause(MOVING);
        }
    }
    let report = load.report_with_failures()?;
    let number = |key: &str| report[key].as_u64().unwrap_or(u64::MAX);
    Ok(Squeeze {
        kind: kind.label(),
        sessions,
        resident_before,
        kept_max,
        sent: number("sent"),
        received: number("received"),
        lost: number("lost"),
        samples,
    })
}

fn freeze(backends: &[Backend], frozen: bool) -> Result<()> {
    backends.iter().try_for_each(|backend| backend.freeze(frozen))
}

/// Payload that all shards together may hold: little, so that it is reached.
const STORE: u64 = 64 << 20;
/// A backend stands still for so long, and moves for so long, again and again.
const FROZEN: Duration = Duration::from_millis(490);
const MOVING: Duration = Duration::from_millis(10);
