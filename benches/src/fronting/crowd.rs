//! A crowd of sessions through several backends, of which one dies and comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::stage::{Backend, Exported, Front, FrontSettings, Kind};
use super::{Plan, pause};
use crate::cpu;
use crate::load::Load;

/// What became of a crowd.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Crowd {
    kind: &'static str,
    backends: usize,
    sessions: u32,
    established: u64,
    connect_p99_ms: f64,
    latency_p99_ms: f64,
    files: usize,
    resident_mb: f64,
    /// Before anything happened: messages sent and received by clients, all verified.
    calm_sent: u64,
    calm_received: u64,
    /// Sessions that the killed backend had.
    victims: u64,
    /// Until the gateway had ended the last of them, in milliseconds.
    noticed_ms: u64,
    /// From its restart until it got new sessions again, in milliseconds.
    back_ms: u64,
    /// Sessions of which a message was lost: as many as victims at most.
    lossy_sessions: u64,
    lost: u64,
    /// Of the other backends, all zero but for the sums, which are equal: sessions ended, messages and bytes lost.
    others_ended: u64,
    others_lost: u64,
    others_sent: u64,
    others_received: u64,
    /// New sessions that the restarted backend got.
    newcomers: u64,
}

impl Crowd {
    /// What must hold, each with whether it does.
    pub(super) fn verdicts(&self) -> Vec<(String, bool)> {
        let kind = self.kind;
        let of = |what: &str, ok: bool| (format!("{kind}: {what}"), ok);
        let all = self.established == u64::from(self.sessions);
        vec![
            of("every session came to its backend", all),
            of(
                "every message came back, once, in order, intact",
                self.calm_sent == self.calm_received,
            ),
            of("a killed backend ended its own sessions only", self.others_ended == 0),
            of(
                "only sessions of the killed backend lost messages",
                self.lossy_sessions <= self.victims && self.others_lost == 0,
            ),
            of("the others answered everything", self.others_sent == self.others_received),
            of("the restarted backend got new sessions", self.newcomers > 0),
        ]
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let Self { kind, backends, sessions, established, connect_p99_ms, latency_p99_ms, .. } =
            self;
        vec![
            format!(
                "{kind}: {established} of {sessions} sessions on {backends} backends; connect p99 {connect_p99_ms:.0} ms, latency \
                 p99 {latency_p99_ms:.1} ms; gateway {:.0} MB, {} files; {} messages sent, {} came back",
                self.resident_mb, self.files, self.calm_sent, self.calm_received
            ),
            format!(
                "{kind}: one backend killed: its {} sessions ended within {} ms; {} messages of {} sessions lost; of the others \
                 {} sessions ended, {} messages lost, {} sent, {} received",
                self.victims,
                self.noticed_ms,
                self.lost,
                self.lossy_sessions,
                self.others_ended,
                self.others_lost,
                self.others_sent,
                self.others_received
            ),
            format!(
                "{kind}: restarted, it was up again after {} ms and got {} new sessions",
                self.back_ms, self.newcomers
            ),
        ]
    }
}

/// Runs it: once in peace, once with a murder.
///
/// # Errors
/// Something could not be started, or is gone; verdicts are not errors.
pub(super) fn run(plan: &Plan, kind: Kind) -> Result<Crowd> {
    let mut backends = backends(plan, kind)?;
    let front = Front::start(&settings(plan, kind, &backends))?;
    eprintln!("{}: {} sessions in peace", kind.label(), plan.sessions);
    let load = Load::start(front.addr, &flags(plan, plan.sessions, plan.seconds))?;
    let calm = load.report_with_failures()?;
    let (files, resident_mb) = (front.files()?, front.resident()? as f64 / 1e6);
    drop(front);

    let front = Front::start(&settings(plan, kind, &backends))?;
    eprintln!("{}: {} sessions, and backend {VICTIM} is killed", kind.label(), plan.sessions);
    // The ramp is as in peace; the load goes on until after the restart.
    let mut load = Load::start(front.addr, &flags(plan, plan.sessions, plan.seconds + 10))?;
    let everybody = f64::from(plan.sessions);
    await_that(&front, &mut load, |now| now.sum("kcp_gateway_backend_sessions", "") >= everybody)?;
    pause(Duration::from_secs(2));
    let victim = format!("backend=\"game-{VICTIM}\"");
    let victims = front.look()?.sum("kcp_gateway_backend_sessions", &victim);
    let address = backends[VICTIM].addr;
    let began = cpu::now();
    drop(backends.remove(VICTIM)); // SIGKILL
    await_that(&front, &mut load, |now| now.sum("kcp_gateway_backend_sessions", &victim) < 0.5)?;
    let noticed = began.elapsed();
    pause(Duration::from_secs(3));
    let began = cpu::now();
    backends.insert(VICTIM, Backend::start(kind, address, false)?);
    await_that(&front, &mut load, |now| now.sum("kcp_gateway_backend_up", &victim) > 0.5)?;
    let back = began.elapsed();
    let assigned = |now: &Exported| now.sum("kcp_gateway_backend_sessions_assigned_total", &victim);
    let before = assigned(&front.look()?);
    let report = load.report_with_failures()?;
    let after = front.look()?;
    let newcomers = Load::start(front.addr, &flags(plan, 400, 2))?.report()?;
    ensure!(newcomers["established"] == 400, "newcomers were not served");
    let others = |metric: &str, part: &str| {
        count(after.sum(metric, part) - of_victim(&after, metric, part, &victim))
    };
    let number =
        |report: &Value, key: &str| report[key].as_u64().with_context(|| format!("no {key}"));
    Ok(Crowd {
        kind: kind.label(),
        backends: plan.backends,
        sessions: plan.sessions,
        established: number(&calm, "established")?,
        connect_p99_ms: calm["connect_us"]["p99"].as_f64().unwrap_or(f64::NAN) / 1e3,
        latency_p99_ms: calm["latency_us"]["p99"].as_f64().unwrap_or(f64::NAN) / 1e3,
        files,
        resident_mb,
        calm_sent: number(&calm, "sent")?,
        calm_received: number(&calm, "received")?,
        victims: count(victims),
        noticed_ms: millis(noticed),
        back_ms: millis(back),
        lossy_sessions: number(&report, "lossy_sessions")?,
        lost: number(&report, "lost")?,
        others_ended: others("kcp_gateway_backend_sessions_ended_total", ""),
        others_lost: others("kcp_gateway_backend_messages_lost_total", "")
            + others("kcp_gateway_backend_lost_bytes_total", ""),
        others_sent: others("kcp_gateway_backend_messages_sent_total", ""),
        others_received: others("kcp_gateway_backend_messages_received_total", ""),
        newcomers: count(assigned(&front.look()?) - before),
    })
}

fn of_victim(exported: &Exported, metric: &str, part: &str, victim: &str) -> f64 {
    if part.is_empty() { exported.sum(metric, victim) } else { 0.0 }
}

/// As many as wanted, each at an address of its own.
pub(super) fn backends(plan: &Plan, kind: Kind) -> Result<Vec<Backend>> {
    let addr = |n: usize| -> Result<SocketAddr> {
        Ok(SocketAddr::from((Ipv4Addr::new(127, 0, 1, u8::try_from(n + 1)?), 0)))
    };
    (0..plan.backends).map(|n| Backend::start(kind, addr(n)?, false)).collect()
}

pub(super) fn settings(plan: &Plan, kind: Kind, backends: &[Backend]) -> FrontSettings {
    let url = |backend: &Backend| format!("{}://{}", kind.label(), backend.addr);
    FrontSettings {
        backends: backends.iter().map(url).collect(),
        shards: plan.shards,
        io: plan.io,
        // Shards do not fill evenly.
        sessions_max: plan.sessions.saturating_add(plan.sessions / 4).saturating_add(10_000),
        store_bytes_max: 0,
    }
}

/// Everybody says 64 bytes every ten seconds.
fn flags(plan: &Plan, sessions: u32, seconds: u32) -> String {
    let ramp = sessions.div_ceil(plan.ramp).max(1);
    format!(
        "--sessions {sessions} --rate 0.1 --ramp {ramp}s --establish-timeout 30s --warmup 0s --drain {DRAIN_S}s --duration {seconds}s \
         --sources 127.0.0.2+16 --io {} --progress off",
        plan.io.label()
    )
}

/// Looks until something is so.
///
/// # Errors
/// The load has ended before, or the gateway is gone.
fn await_that(front: &Front, load: &mut Load, holds: impl Fn(&Exported) -> bool) -> Result<()> {
    while !holds(&front.look()?) {
        ensure!(load.ended()?.is_none(), "the load ended too early");
        pause(Duration::from_millis(50));
    }
    Ok(())
}

/// A counter as it was before it became a float.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters, whole and small"
)]
fn count(value: f64) -> u64 {
    value.max(0.0).round() as u64
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How long the load waits for what has not come back. Clients of the dead backend go on trying meanwhile, all of them, and
/// keep the others' waiting on a machine that has little to spare.
const DRAIN_S: u32 = 45;

/// The backend that dies.
const VICTIM: usize = 1;
