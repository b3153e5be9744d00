//! Overload by taking capacity away: a busy loop of equal weight shares the gateway's core, and twice as much is asked of the
//! gateway as it can do then.
//!
//! First the peak: what is answered in time at most, under that same competition, by a closed loop and by schedules of
//! rising rates. Then the schedule of twice the peak. Each measurement has processes of its own.

pub(crate) mod contest;

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use kcp_loadgen::scenario::Load;
use kcp_loadgen::sources::Sources;
use kcp_loadgen::{Report, Scenario};
use serde::Serialize;

use crate::contender::Io;
use crate::machine::Machine;
use contest::{Contest, Counted};

/// How to overload.
#[derive(Clone, Debug, Args)]
pub(crate) struct Plan {
    /// The gateway's driver.
    #[arg(long, value_enum, default_value = "uring")]
    io: Io,
    /// Measured seconds of the overload.
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Measured seconds of each step on the way to the peak.
    #[arg(long, default_value_t = 5.0)]
    step_seconds: f64,
    /// Clients, each from an address of its own.
    #[arg(long, default_value_t = 1000)]
    sessions: u16,
    /// Bytes of a message.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// The clients' deadline in milliseconds: what is answered later is worth nothing.
    #[arg(long, default_value_t = 1000)]
    deadline_ms: u32,
    /// Messages that a client has queued or on the way at most; it drops what comes then, as games drop what is stale.
    #[arg(long, default_value_t = 32)]
    backlog: usize,
    /// Where the gateway and the busy loop run.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Where the clients run.
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// The gateway has its core to itself: overload by load alone.
    #[arg(long)]
    alone: bool,
    /// Write the result here as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A short run with few sessions: shows that it runs, measures nothing.
    #[arg(long)]
    smoke: bool,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
struct Step {
    /// Messages a second asked for; `null` for the closed loop.
    offered_per_s: Option<f64>,
    /// Of those, handed to the protocol: the rest found its client's backlog full, or the clients' core was late.
    sent_per_s: f64,
    /// Answered within the deadline.
    goodput_per_s: f64,
    p50_us: u64,
    p99_us: u64,
    /// Sessions that ended, on either side, or never came to be.
    sessions_lost: u64,
    /// Data segments that the receiver had already, of all that were sent: client to gateway.
    needless_up: f64,
    /// Gateway to client.
    needless_down: f64,
    /// Both ways together.
    needless: f64,
    /// Data segments sent again for whatever reason, of all that were sent, both ways.
    resent: f64,
    /// Datagrams that found a full socket, the gateway's and the clients'.
    overflow: [u64; 2],
    /// New sessions turned away.
    shed: u64,
    /// How busy the clients' core was; close to 1 the figures are the clients' too.
    client_busy: f64,
    /// What the load generator says it fell short of.
    client_limits: Vec<String>,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
struct Outcome {
    machine: Machine,
    peak_per_s: f64,
    goodput_ratio: f64,
    overload: Step,
    steps: Vec<Step>,
}

/// Measures, prints and writes.
///
/// # Errors
/// A process did not start, or a run did not come to a report.
pub(crate) fn run(mut plan: Plan) -> Result<()> {
    if plan.smoke {
        (plan.seconds, plan.step_seconds, plan.sessions) = (0.2, 0.2, 10);
    }
    ensure!(
        plan.seconds > 0.0 && plan.step_seconds > 0.0 && plan.sessions > 0,
        "nothing to measure: --seconds, --step-seconds and --sessions"
    );
    ensure!(plan.server_core != plan.client_core, "gateway and clients need a core each");
    let machine = Machine::this();
    print_head(&machine, &plan);
    let steps = climb(&plan)?;
    let peak_per_s = steps.iter().map(|step| step.goodput_per_s).fold(0.0, f64::max);
    let overload = measure(&plan, Some(2.0 * peak_per_s), plan.seconds)?;
    print_step("overload", &overload);
    let goodput_ratio = overload.goodput_per_s / peak_per_s;
    let outcome = Outcome { machine, peak_per_s, goodput_ratio, overload, steps };
    print_verdict(&outcome);
    if let Some(path) = &plan.json {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        serde_json::to_writer_pretty(file, &outcome)?;
    }
    Ok(())
}

/// Rising rates, until twice in a row they bring nothing.
fn climb(plan: &Plan) -> Result<Vec<Step>> {
    let closed = measure(plan, None, plan.step_seconds)?;
    print_step("closed loop", &closed);
    let mut rate = FIRST_STEP * closed.goodput_per_s;
    ensure!(rate > 0.0, "nothing was answered in time");
    let mut best = closed.goodput_per_s;
    let mut steps = vec![closed];
    let mut in_vain = 0;
    while in_vain < 2 && steps.len() < STEPS_MAX {
        let step = measure(plan, Some(rate), plan.step_seconds)?;
        print_step("schedule", &step);
        in_vain = if step.goodput_per_s > best { 0 } else { in_vain + 1 };
        // Below the closed loop's rate a schedule cannot be better.
        in_vain = if rate <= best { 0 } else { in_vain };
        best = best.max(step.goodput_per_s);
        rate *= STEP;
        steps.push(step);
    }
    Ok(steps)
}

/// Fresh processes, one run: by a schedule of `rate` messages a second, or a closed loop.
fn measure(plan: &Plan, rate: Option<f64>, seconds: f64) -> Result<Step> {
    let contest = Contest::start(plan.io, plan.server_core, plan.alone)?;
    let first = IpAddr::V4(Ipv4Addr::new(127, 1, 0, 1));
    let sources = Sources::range(first, plan.sessions);
    let mut scenario = Scenario::new(contest.addr, plan.sessions.into(), sources);
    scenario.clients.sockets = plan.sessions.into();
    scenario.traffic.size = plan.size;
    scenario.traffic.deadline = Some(Duration::from_millis(plan.deadline_ms.into()));
    scenario.traffic.backlog_max = plan.backlog;
    scenario.traffic.load = match rate {
        Some(rate) => {
            Load::Open { period: Duration::from_secs_f64(f64::from(plan.sessions) / rate) }
        }
        None => Load::Closed { outstanding: 1 },
    };
    scenario.phases.duration = Duration::from_secs_f64(seconds);
    scenario.engine.pin = vec![plan.client_core];
    let report = kcp_loadgen::run(&scenario)?;
    Ok(Step::new(rate, &report, contest.counted()?))
}

impl Step {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
    fn new(rate: Option<f64>, report: &Report, gateway: Counted) -> Self {
        let (counts, kcp) = (&report.counts, &report.kcp);
        let resent_up = (kcp.resends_timeout + kcp.resends_fast) as f64;
        let sent_up = kcp.segments_sent as f64 + resent_up;
        let overflow = report.generator.workers.iter().map(|worker| worker.rx_overflow).sum();
        let absent = report.sessions.saturating_sub(counts.established);
        let down = kcp.duplicate_segments as f64;
        Self {
            offered_per_s: rate,
            sent_per_s: counts.measured_sent as f64 / report.duration_s,
            goodput_per_s: counts.measured_in_time as f64 / report.duration_s,
            p50_us: report.latency_us.p50,
            p99_us: report.latency_us.p99,
            sessions_lost: absent + counts.dead_sessions + gateway.ended as u64,
            needless_up: gateway.duplicates / sent_up,
            needless_down: down / gateway.sent,
            needless: (gateway.duplicates + down) / (sent_up + gateway.sent),
            resent: (resent_up + gateway.resent) / (sent_up + gateway.sent),
            overflow: [gateway.overflow as u64, overflow],
            shed: gateway.shed as u64,
            client_busy: report.generator.client_core_busy,
            client_limits: report.generator.reasons.clone(),
        }
    }
}

#[expect(clippy::print_stdout, reason = "the result is what the command is for")]
fn print_head(machine: &Machine, plan: &Plan) {
    machine.lines().iter().for_each(|line| println!("{line}"));
    let Plan { sessions, size, deadline_ms, backlog, .. } = plan;
    let beside = if plan.alone { "alone on" } else { "beside a busy loop of equal weight on" };
    println!(
        "gateway ({}) {beside} core {}; {sessions} clients on core {}: {size} bytes, deadline {deadline_ms} ms, {backlog} on the way each\n",
        plan.io.label(),
        plan.server_core,
        plan.client_core
    );
    println!(
        "{:<12} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>6} {:>15} {:>7}",
        "",
        "offered/s",
        "sent/s",
        "in time/s",
        "p50 ms",
        "p99 ms",
        "needless",
        "resent",
        "lost",
        "overflow",
        "client"
    );
}

#[expect(clippy::print_stdout, reason = "as above")]
fn print_step(name: &str, step: &Step) {
    let offered = step.offered_per_s.map_or("-".into(), |rate| format!("{rate:.0}"));
    println!(
        "{name:<12} {offered:>9} {:>9.0} {:>9.0} {:>9.1} {:>9.1} {:>8.2}% {:>7.2}% {:>6} {:>7}/{:<7} {:>6.0}%",
        step.sent_per_s,
        step.goodput_per_s,
        step.p50_us as f64 / 1000.0,
        step.p99_us as f64 / 1000.0,
        step.needless * 100.0,
        step.resent * 100.0,
        step.sessions_lost,
        step.overflow[0],
        step.overflow[1],
        step.client_busy * 100.0
    );
}

#[expect(clippy::print_stdout, reason = "as above")]
fn print_verdict(outcome: &Outcome) {
    let Outcome { overload, peak_per_s, goodput_ratio, .. } = outcome;
    let held = |met: bool| if met { "met" } else { "MISSED" };
    println!(
        "\ngoodput {:.3} of the peak of {peak_per_s:.0}/s (at least 0.9: {})",
        goodput_ratio,
        held(*goodput_ratio >= 0.9)
    );
    println!(
        "sessions lost: {} (none: {})",
        overload.sessions_lost,
        held(overload.sessions_lost == 0)
    );
    println!(
        "needless resends, segments that their receiver had already of all sent: {:.2} % (client to gateway {:.2} %, gateway to client \
         {:.2} %; under 2 %: {})",
        overload.needless * 100.0,
        overload.needless_up * 100.0,
        overload.needless_down * 100.0,
        held(overload.needless < 0.02)
    );
    println!(
        "p99 {:.1} ms, new sessions turned away: {}",
        overload.p99_us as f64 / 1000.0,
        overload.shed
    );
    for limit in &overload.client_limits {
        println!("the clients fell short: {limit}");
    }
}

/// The first schedule, of the closed loop's rate.
const FIRST_STEP: f64 = 0.8;
/// From one step to the next.
const STEP: f64 = 1.15;
/// Peaks are found long before.
const STEPS_MAX: usize = 16;
