//! A backend that hardly moves, in front of it many clients that go on speaking: what the gateway keeps meanwhile.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::kept::{Kept, Sample};
use super::stage::{Backend, BackendSettings, Front, FrontSettings, Kind};
use super::{Plan, crowd, pause};
use crate::cpu;
use crate::load::Load;

/// What became of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Squeeze {
    pub(super) kind: &'static str,
    sessions: u32,
    #[serde(flatten)]
    pub(super) kept: Kept,
    /// Sessions that the gateway ended.
    ended: f64,
    sent: u64,
    received: u64,
    lost: u64,
}

impl Squeeze {
    /// What must hold.
    pub(super) fn verdicts(&self, smoke: bool) -> Vec<(String, bool)> {
        let whose = format!("{}: a backend that hardly moves", self.kind);
        let whole = self.lost == 0 && self.sent == self.received && self.ended == 0.0;
        let mut all = self.kept.verdicts(&whose, smoke);
        if !smoke {
            let full = self.kept.most_while_slow() >= FULL * STORE as f64;
            all.push((format!("{whose}: what may be kept is kept while it does"), full));
        }
        all.push((format!("{whose}: nothing is lost, nobody ends"), whole));
        all
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let Self { kind, sessions, kept, ended, sent, received, lost } = self;
        vec![format!(
            "{kind}: {sessions} clients of a backend that hardly moves: {}; {sent} messages sent, {received} came back, {lost} lost, \
             {ended} sessions ended",
            kept.line(),
        )]
    }
}

/// Runs it.
///
/// # Errors
/// Something could not be started, or is gone; verdicts are not errors.
pub(super) fn run(plan: &Plan, kind: Kind) -> Result<Squeeze> {
    let alike =
        BackendSettings { socket_buffer: Some(SOCKET_BUFFER), ..BackendSettings::new(kind) };
    let backends = crowd::backends(plan.backends, alike)?;
    let sessions = plan.squeezed;
    let settings = crowd::settings(plan, plan.shards, sessions, &backends);
    let store_bytes_max = STORE / u64::from(plan.shards);
    let front = Front::start(&FrontSettings { store_bytes_max, stall_ms: STALL_MS, ..settings })?;
    eprintln!("{}: {sessions} sessions, and backends that hardly move", kind.label());
    let flags = format!(
        "--sessions {sessions} --rate 4 --size {SIZE} --ramp {}s --warmup 0s --duration {}s --drain 90s --sources 127.0.0.2+16 \
         --io {} --progress off",
        sessions.div_ceil(plan.ramp).max(1),
        plan.seconds + 2,
        plan.io.label()
    );
    let mut load = Load::start(front.addr, &flags)?;
    while front.look()?.sum("kcp_gateway_backend_sessions", "") < f64::from(sessions) {
        pause(Duration::from_millis(50));
    }
    let mut kept = Kept::of(&front)?;
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
        kept.samples.push(Sample::of(&front, began.elapsed(), squeezed)?);
        freeze(&backends, false)?;
        if squeezed {
            pause(MOVING);
        }
    }
    let ended = front.look()?.sum("kcp_gateway_sessions_ended_total", "");
    let report = load.report_with_failures()?;
    let number = |key: &str| report[key].as_u64().unwrap_or(u64::MAX);
    Ok(Squeeze {
        kind: kind.label(),
        sessions,
        kept,
        ended,
        sent: number("sent"),
        received: number("received"),
        lost: number("lost"),
    })
}

fn freeze(backends: &[Backend], frozen: bool) -> Result<()> {
    backends.iter().try_for_each(|backend| backend.freeze(frozen))
}

/// Payload that all shards together may hold: little, so that it is reached.
const STORE: u64 = 64 << 20;
/// Bytes of a message. What the kernel keeps for backends is full after some seconds of such messages, and then the gateway's store.
const SIZE: u32 = 1200;
/// Buffers of backends' sockets, in bytes: little as well.
const SOCKET_BUFFER: u32 = 8 << 10;
/// From such a share of it on, windows are narrower than they could be.
const FULL: f64 = 0.5;
/// What the gateway is told of such backends: one that has a fiftieth of its time leaves some connection alone for more than ten
/// seconds.
const STALL_MS: u32 = 60_000;
/// A backend stands still for so long, and moves for so long, again and again.
const FROZEN: Duration = Duration::from_millis(490);
const MOVING: Duration = Duration::from_millis(10);
