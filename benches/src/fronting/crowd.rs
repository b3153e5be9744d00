//! A crowd of sessions through several backends, of which one dies and comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::fronts::{Division, Fronts, tcp_sockets};
use super::stage::{Backend, BackendSettings, Exported, FrontSettings, Kind};
use super::{Plan, pause};
use crate::cpu;
use crate::load::Load;

/// What became of a crowd.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Crowd {
    kind: &'static str,
    gateways: u32,
    backends: usize,
    /// Why there are several gateways.
    why: Option<String>,
    sessions: u32,
    established: u64,
    /// Live sessions of all gateways together at one moment, and TCP sockets of this host at that moment.
    at_once: u64,
    tcp_sockets: u64,
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
        let sessions = u64::from(self.sessions);
        let all = self.established == sessions && self.at_once >= sessions;
        vec![
            of("every session came to its backend, all at once", all),
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
        let why = self.why.iter().map(|why| format!("{kind}: {why}"));
        let rest = [
            format!(
                "{kind}: {established} of {sessions} sessions on {backends} backends, {} at once, with {} TCP sockets on this host; \
                 connect p99 {connect_p99_ms:.0} ms, latency p99 {latency_p99_ms:.1} ms; gateways {:.0} MB, {} files at most; {} \
                 messages sent, {} came back",
                self.at_once,
                self.tcp_sockets,
                self.resident_mb,
                self.files,
                self.calm_sent,
                self.calm_received
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
        ];
        why.chain(rest).collect()
    }
}

/// Runs it: once in peace, once with a murder.
///
/// # Errors
/// Something could not be started, or is gone; verdicts are not errors.
pub(super) fn run(plan: &Plan, kind: Kind) -> Result<Crowd> {
    let division = Division::new(plan, kind)?;
    let mut backends = backends(division.backends, BackendSettings::new(kind))?;
    let settings = settings(plan, division.shards(plan), division.each, &backends);
    let everybody =
        |now: &Exported| now.sum("kcp_gateway_backend_sessions", "") >= f64::from(plan.sessions);
    let why = division.line().map(|line| format!(" ({line})")).unwrap_or_default();

    let mut fronts = Fronts::start(&division, &settings, 2)?;
    eprintln!("{}: {} sessions in peace{why}", kind.label(), plan.sessions);
    fronts.load(plan.sessions, plan.ramp, &flags(plan, plan.seconds))?;
    fronts.await_that(everybody)?;
    let (at_once, sockets) = (fronts.look()?.sum("kcp_gateway_sessions", ""), tcp_sockets()?);
    let (files, resident) = fronts.size()?;
    let calm = fronts.reports()?;
    drop(fronts);

    // Their own sources: the kernel would look long for ports beside those of the connections that were just closed.
    let mut fronts = Fronts::start(&division, &settings, 3)?;
    eprintln!("{}: {} sessions, and backend {VICTIM} is killed", kind.label(), plan.sessions);
    // The ramp is as in peace; the load goes on until after the restart.
    fronts.load(plan.sessions, plan.ramp, &flags(plan, plan.seconds + 20))?;
    fronts.await_that(everybody)?;
    pause(Duration::from_secs(2));
    let victim = format!("backend=\"game-{VICTIM}\"");
    let victims = fronts.look()?.sum("kcp_gateway_backend_sessions", &victim);
    let address = backends[VICTIM].addr;
    let began = cpu::now();
    drop(backends.remove(VICTIM)); // SIGKILL
    fronts.await_that(|now| now.sum("kcp_gateway_backend_sessions", &victim) < 0.5)?;
    let noticed = began.elapsed();
    pause(Duration::from_secs(3));
    let began = cpu::now();
    backends.insert(
        VICTIM,
        Backend::start(&BackendSettings { listen: address, ..BackendSettings::new(kind) })?,
    );
    let gateways = fronts.count();
    fronts.await_that(|now| now.sum("kcp_gateway_backend_up", &victim) > gateways - 0.5)?;
    let back = began.elapsed();
    let assigned = |now: &Exported| now.sum("kcp_gateway_backend_sessions_assigned_total", &victim);
    let before = assigned(&fronts.look()?);
    let report = fronts.reports()?;
    let after = fronts.look()?;
    let newcomers = newcomers(plan, &fronts)?;
    ensure!(newcomers["established"] == NEWCOMERS, "newcomers were not served");
    let others = |metric: &str| count(after.sum(metric, "") - after.sum(metric, &victim));
    Ok(Crowd {
        kind: kind.label(),
        gateways: division.gateways,
        backends: division.backends,
        why: division.line(),
        sessions: plan.sessions,
        established: calm.sum("established")?,
        at_once: count(at_once),
        tcp_sockets: sockets,
        connect_p99_ms: calm.p99_ms("connect_us"),
        latency_p99_ms: calm.p99_ms("latency_us"),
        files,
        resident_mb: resident as f64 / 1e6,
        calm_sent: calm.sum("sent")?,
        calm_received: calm.sum("received")?,
        victims: count(victims),
        noticed_ms: millis(noticed),
        back_ms: millis(back),
        lossy_sessions: report.sum("lossy_sessions")?,
        lost: report.sum("lost")?,
        others_ended: others("kcp_gateway_backend_sessions_ended_total"),
        others_lost: others("kcp_gateway_backend_messages_lost_total")
            + others("kcp_gateway_backend_lost_bytes_total"),
        others_sent: others("kcp_gateway_backend_messages_sent_total"),
        others_received: others("kcp_gateway_backend_messages_received_total"),
        newcomers: count(assigned(&fronts.look()?) - before),
    })
}

/// A few sessions more, after all that, at one of the gateways.
fn newcomers(plan: &Plan, fronts: &Fronts) -> Result<Value> {
    let flags = format!("--sessions {NEWCOMERS} --ramp 1s {}", flags(plan, 2));
    Load::start(fronts.first()?.addr, &flags)?.report()
}

/// As many as wanted that are alike but for their addresses: each has one of its own.
pub(super) fn backends(count: usize, alike: BackendSettings) -> Result<Vec<Backend>> {
    let start = |n: usize| {
        let listen = SocketAddr::from((Ipv4Addr::new(127, 0, 1, u8::try_from(n + 1)?), 0));
        Backend::start(&BackendSettings { listen, ..alike })
    };
    (0..count).map(start).collect()
}

/// Of a gateway of `shards` for `sessions` and some more.
pub(super) fn settings(
    plan: &Plan,
    shards: u16,
    sessions: u32,
    backends: &[Backend],
) -> FrontSettings {
    FrontSettings {
        backends: backends.iter().map(Backend::url).collect(),
        shards,
        io: plan.io,
        // Shards do not fill evenly.
        sessions_max: sessions.saturating_add(sessions / 4).saturating_add(10_000),
        store_bytes_max: 0,
        pool_bytes_max: 0,
        queue_bytes_max: 0,
        stall_ms: 0,
        source: None,
    }
}

/// Everybody says 64 bytes every ten seconds.
fn flags(plan: &Plan, seconds: u32) -> String {
    format!(
        "--rate 0.1 --establish-timeout 30s --warmup 0s --drain {DRAIN_S}s --duration {seconds}s --sources 127.0.0.2+16 --io {} \
         --progress off",
        plan.io.label()
    )
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

/// Those who come at the end.
const NEWCOMERS: u32 = 400;

/// The backend that dies.
const VICTIM: usize = 1;
