//! Clients that read nothing, of a backend that answers much more than it is told: what the gateway keeps meanwhile, and
//! whether others on the same connections notice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::kept::{Kept, Sample};
use super::stage::{BackendSettings, Front, FrontSettings, Kind};
use super::{Plan, crowd, pause};
use crate::cpu;
use crate::load::Load;

/// What became of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Slow {
    pub(super) kind: &'static str,
    sessions: u32,
    #[serde(flatten)]
    pub(super) kept: Kept,
    /// Until nothing moved any more, in seconds.
    closed_after_s: f64,
    /// Answers that the gateway had taken by then, and those that clients asked for.
    taken: f64,
    asked: u64,
    /// How often a backend was made to wait for a client.
    waits: f64,
    /// Sessions that the gateway ended.
    ended: f64,
    /// Other clients of the same backends, alone and while all windows of the slow ones were closed.
    bystanders: u32,
    alone_p99_ms: f64,
    beside_p99_ms: f64,
    /// The slow clients' messages, once they read again.
    sent: u64,
    received: u64,
    lost: u64,
}

impl Slow {
    /// What must hold; in a run that only shows that it runs, latency is nobody's.
    pub(super) fn verdicts(&self, smoke: bool) -> Vec<(String, bool)> {
        let whose = format!("{}: clients that read nothing", self.kind);
        let mut all = self.kept.verdicts(&whose, smoke);
        let waits = self.waits >= f64::from(self.sessions) && self.taken < self.asked as f64;
        all.push((format!("{whose}: the backends wait for each of them"), waits));
        if !smoke {
            let calm = self.beside_p99_ms <= 2.0 * self.alone_p99_ms + NOISE_MS;
            all.push((format!("{whose}: others on the same connections do not notice"), calm));
        }
        let whole = self.lost == 0 && self.sent == self.received && self.ended == 0.0;
        all.push((format!("{whose}: nothing is lost once they read again, nobody ends"), whole));
        all
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let Self { kind, sessions, kept, closed_after_s, taken, asked, waits, ended, .. } = self;
        let Self { bystanders, alone_p99_ms, beside_p99_ms, sent, received, lost, .. } = self;
        vec![
            format!(
                "{kind}: {sessions} clients that read nothing: {}; nothing moved after {closed_after_s:.0} s, {taken} of {asked} answers \
                 taken by then, {waits} waits for clients",
                kept.line(),
            ),
            format!(
                "{kind}: {bystanders} others on the same connections: latency p99 {alone_p99_ms:.1} ms alone, {beside_p99_ms:.1} ms \
                 while the windows were closed"
            ),
            format!(
                "{kind}: they read again: {sent} messages sent, {received} came back, {lost} lost, {ended} sessions ended"
            ),
        ]
    }
}

/// Runs it.
///
/// # Errors
/// Something could not be started, or is gone, or the windows do not close; verdicts are not errors.
pub(super) fn run(plan: &Plan, kind: Kind) -> Result<Slow> {
    let alike = BackendSettings { times: TIMES, ..BackendSettings::new(kind) };
    let backends = crowd::backends(plan.backends, alike)?;
    let (sessions, asked) = (plan.squeezed, messages(kind));
    let shards = u64::from(plan.shards);
    let front = Front::start(&FrontSettings {
        store_bytes_max: of_sessions(sessions, STORED) / shards,
        pool_bytes_max: of_sessions(sessions, waiting(kind)) / shards,
        queue_bytes_max: QUEUE,
        ..crowd::settings(plan, plan.shards, sessions, &backends)
    })?;
    eprintln!("{}: {sessions} clients that read nothing", kind.label());
    let alone_p99_ms = bystanders(plan, &front)?;
    let flags = format!(
        "--sessions {sessions} --outstanding {asked} --read-rate 0 {ANSWERED} --window 256,128 --ramp {}s --warmup 0s --duration {}s \
         --drain 180s --store-bytes {LOAD_STORE} --sources 127.0.0.2+16 --io {} --progress off",
        sessions.div_ceil(plan.ramp).max(1),
        plan.slow_seconds,
        plan.io.label()
    );
    let mut load = Load::start(front.addr, &flags)?;
    let all = f64::from(sessions);
    while front.look()?.sum("kcp_gateway_sessions", "") < all {
        ensure!(load.ended()?.is_none(), "the load ended too early");
        pause(Duration::from_millis(50));
    }
    let mut kept = Kept::of(&front)?;
    let before = taken(&front)?;
    let began = cpu::now();
    let end = Duration::from_secs(u64::from(plan.slow_seconds));
    let (mut last, mut still) = ((before, 0.0), 0);
    // Nothing is taken for a while, after something was: not into sessions, and not off the connections either.
    while still < STILL || last.0 - before < all {
        let at = began.elapsed();
        ensure!(at < end, "the windows do not close within --slow-seconds {}", plan.slow_seconds);
        pause(TICK);
        kept.samples.push(Sample::of(&front, at, false)?);
        let now = (taken(&front)?, front.look()?.sum("kcp_gateway_upstream_pool_bytes", ""));
        still = if now == last { still + 1 } else { 0 };
        last = now;
    }
    let closed_after_s = began.elapsed().as_secs_f64();
    let waits = front.look()?.sum("kcp_gateway_backend_waits_total", "for=\"client\"");
    let beside = std::thread::scope(|scope| -> Result<f64> {
        let beside = scope.spawn(|| bystanders(plan, &front));
        while !beside.is_finished() {
            pause(TICK);
            kept.samples.push(Sample::of(&front, began.elapsed(), true)?);
        }
        beside.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
    });
    let beside_p99_ms = beside?;
    ensure!(began.elapsed() < end, "--slow-seconds {} are too few", plan.slow_seconds);
    while load.ended()?.is_none() {
        pause(TICK);
        kept.samples.push(Sample::of(&front, began.elapsed(), false)?);
    }
    let of = |reason: &str| {
        Ok::<_, anyhow::Error>(front.look()?.sum("kcp_gateway_sessions_ended_total", reason))
    };
    let ended = of("")? - of("\"keepalive\"")? - of("\"idle\"")?; // the bystanders are gone, and that is noticed
    let report = load.report_with_failures()?;
    let number = |key: &str| report[key].as_u64().with_context(|| format!("no {key}"));
    Ok(Slow {
        kind: kind.label(),
        sessions,
        kept,
        closed_after_s,
        taken: last.0 - before,
        asked: u64::from(sessions) * u64::from(asked),
        waits,
        ended,
        bystanders: BYSTANDERS,
        alone_p99_ms,
        beside_p99_ms,
        sent: number("sent")?,
        received: number("received")?,
        lost: number("lost")?,
    })
}

/// Messages of backends that the gateway has taken.
fn taken(front: &Front) -> Result<f64> {
    Ok(front.look()?.sum("kcp_gateway_backend_messages_received_total", ""))
}

/// Other clients come, talk and listen; their 99th percentile in milliseconds.
fn bystanders(plan: &Plan, front: &Front) -> Result<f64> {
    let seconds = if plan.smoke { 1 } else { BYSTANDERS_S };
    let flags = format!(
        "--sessions {BYSTANDERS} --rate 5 {ANSWERED} --ramp 1s --warmup 1s --duration {seconds}s --sources 127.0.0.100+4 --io {} \
         --progress off",
        plan.io.label()
    );
    let report = Load::start(front.addr, &flags)?.report()?;
    let missed = report["missed_sends"].as_u64().context("no count of missed sends")?;
    ensure!(
        plan.smoke || missed == 0,
        "others had the machine for so long that {missed} messages could not be sent in time"
    );
    Ok(report["latency_us"]["p99"].as_f64().context("no latency")? / 1e3)
}

/// `bytes` of every session and an eighth more, because shards do not fill evenly, and 16 MiB for the others.
const fn of_sessions(sessions: u32, bytes: u64) -> u64 {
    let all = sessions as u64 * bytes;
    all + all / 8 + (16 << 20)
}

/// What waits for one client between its backend and its session: the stream's window, or one read and the rest of a message. A
/// tenth more, for at nine tenths the gateway ends those that hold most.
const fn waiting(kind: Kind) -> u64 {
    match kind {
        Kind::Yamux => (256 + 8) * 1024 * 10 / 9,
        Kind::Tcp => 18 * 1024 * 10 / 9,
    }
}

/// Messages of each client: their answers are more than it, the gateway and the connection take together, and little more
/// with `tcp`, where the rest waits in the kernel's memory.
const fn messages(kind: Kind) -> u32 {
    match kind {
        Kind::Yamux => 100,
        Kind::Tcp => 60,
    }
}

/// An answer is so many times its message: four full segments.
const TIMES: u32 = 86;
const ANSWERED: &str = "--size 64 --times 86";
/// Bytes that may wait for one client in its session, and what the store takes for that.
const QUEUE: u32 = 32 << 10;
const STORED: u64 = 56 << 10;
/// The load keeps what its applications do not read.
const LOAD_STORE: u64 = 5 << 30;
const BYSTANDERS: u32 = 200;
const BYSTANDERS_S: u32 = 8;
/// From one look at the gateway to the next; so many without any change mean that nothing moves.
const TICK: Duration = Duration::from_millis(250);
const STILL: u32 = 12;
/// Difference between two short measurements of one thing.
const NOISE_MS: f64 = 10.0;
