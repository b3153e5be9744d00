//! A whole run: probe, threads, orders, progress, and the report put together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, unbounded};
use net_io::clock::monotonic;
use net_io::probe::ProbeError;
use net_io::{DriverKind, Now, Probe, Waker};

use crate::host::{FileLimitError, Host, allow_sockets, resident_max};
use crate::live::{Gauge, Order, Orders, Snapshot};
use crate::meter::{Around, Meter, Quantiles};
use crate::plan::{Plan, Share};
use crate::progress::{Progress, ProgressMode};
use crate::report::{
    AroundReport, Generator, KcpReport, Report, RunInfo, WorkerReport, human, share,
};
use crate::scenario::{Load, Protocol, Scenario, ScenarioError};
use crate::timeline::Stage;
use crate::worker::{Assignment, Event, Outcome, WorkerError, work};

/// Why a run did not come to a report.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The scenario breaks a rule.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// Too few files may be opened.
    #[error(transparent)]
    Files(#[from] FileLimitError),
    /// The driver asked for cannot be had.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A thread could not be started.
    #[error("cannot start a worker thread: {0}")]
    Spawn(#[source] std::io::Error),
    /// A worker gave up.
    #[error("worker {worker}: {error}")]
    Worker {
        /// Its number.
        worker: u32,
        /// Why.
        error: WorkerError,
    },
    /// A worker ended without a word: a defect of this program.
    #[error("a worker thread panicked; this is a defect of the load generator")]
    Panicked,
    /// Nobody answered.
    #[error(
        "no session was established within {} of the start: is a KCP server listening at {target}, and does it see the same conv \
         and mtu?",
        humantime::format_duration(*.waited)
    )]
    NobodyThere {
        /// Where.
        target: std::net::SocketAddr,
        /// How long.
        waited: Duration,
    },
}

/// Runs a scenario to its end, silently.
///
/// # Errors
/// What kept it from measuring. A run that measured and found faults is a report: see [`Report::failures`].
pub fn run(scenario: &Scenario) -> Result<Report, RunError> {
    run_with(scenario, ProgressMode::Off, &AtomicBool::new(false))
}

/// Runs a scenario; `stop` ends it early, with a report of what was measured until then.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    scenario: &Scenario,
    progress: ProgressMode,
    stop: &AtomicBool,
) -> Result<Report, RunError> {
    scenario.validate()?;
    allow_sockets(scenario.clients.sockets, scenario.engine.threads)?;
    let probe = Probe::run(scenario.engine.io, &scenario.engine.driver)?;
    let crew = Crew::hire(scenario, probe.kind)?;
    let mut controller = Controller::new(scenario, progress, stop, crew);
    let result = controller.command();
    // Whatever happened, no thread is left behind.
    controller.crew.tell(Order::Stop);
    let joined = controller.crew.threads.drain(..).map(JoinHandle::join).all(|end| end.is_ok());
    controller.progress.finish();
    let outcomes = result?;
    if !joined {
        return Err(RunError::Panicked);
    }
    Ok(assemble(scenario, &probe, &outcomes, &controller))
}

/// The worker threads and the lines to them.
struct Crew {
    threads: Vec<JoinHandle<()>>,
    orders: Arc<Orders>,
    gauges: Arc<[Gauge]>,
    events: Receiver<Event>,
    wakers: Vec<Waker>,
    receive_buffer: usize,
}

impl Crew {
    fn hire(scenario: &Scenario, kind: DriverKind) -> Result<Self, RunError> {
        let plan = Arc::new(Plan::new(scenario.clone()));
        let workers = scenario.engine.threads;
        let orders = Arc::new(Orders::default());
        let gauges: Arc<[Gauge]> = (0..workers).map(|_| Gauge::default()).collect();
        let (sender, events) = unbounded();
        let mut threads = Vec::new();
        for worker in 0..workers {
            let assignment = Assignment {
                plan: Arc::clone(&plan),
                share: Share { worker, workers },
                kind,
                orders: Arc::clone(&orders),
                gauges: Arc::clone(&gauges),
                events: sender.clone(),
            };
            let thread = thread::Builder::new()
                .name(format!("load-{worker}"))
                .spawn(move || work(&assignment))
                .map_err(RunError::Spawn)?;
            threads.push(thread);
        }
        Ok(Self { threads, orders, gauges, events, wakers: Vec::new(), receive_buffer: usize::MAX })
    }

    fn tell(&self, order: Order) {
        self.orders.give(order);
        for waker in &self.wakers {
            waker.wake();
        }
    }
}

struct Controller<'a> {
    scenario: &'a Scenario,
    stop: &'a AtomicBool,
    progress: Progress,
    crew: Crew,
    started: Now,
    interrupted: bool,
}

impl<'a> Controller<'a> {
    fn new(scenario: &'a Scenario, mode: ProgressMode, stop: &'a AtomicBool, crew: Crew) -> Self {
        let phases = &scenario.phases;
        let planned = phases.ramp + phases.hold + phases.warmup + phases.duration;
        let progress = Progress::new(mode, scenario.clients.sessions, planned);
        Self { scenario, stop, progress, crew, started: monotonic(), interrupted: false }
    }

    /// Leads the workers through the run and collects what they bring home.
    fn command(&mut self) -> Result<Vec<Outcome>, RunError> {
        let workers = self.crew.threads.len();
        let mut outcomes = Vec::new();
        let mut gate = Gate::default();
        while outcomes.len() < workers {
            match self.crew.events.recv_timeout(TICK) {
                Ok(Event::Ready { waker, receive_buffer }) => {
                    self.crew.wakers.push(waker);
                    self.crew.receive_buffer = self.crew.receive_buffer.min(receive_buffer);
                    if self.crew.wakers.len() == workers {
                        self.started = monotonic();
                        self.crew.tell(Order::Ramp);
                    }
                }
                Ok(Event::Done(outcome)) => outcomes.push(*outcome),
                Ok(Event::Failed { worker, error }) => {
                    return Err(RunError::Worker { worker, error });
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(RunError::Panicked),
            }
            if self.crew.wakers.len() == workers {
                self.watch(&mut gate)?;
            }
        }
        outcomes.sort_by_key(|outcome| outcome.worker);
        Ok(outcomes)
    }

    fn watch(&mut self, gate: &mut Gate) -> Result<(), RunError> {
        let elapsed = Duration::from_micros(monotonic().0.saturating_sub(self.started.0));
        let snapshot = Snapshot::of(&self.crew.gauges);
        self.progress.show(elapsed, &snapshot);
        if self.stop.load(Ordering::Relaxed) && !self.interrupted {
            self.interrupted = true;
            self.crew.tell(Order::Stop);
        }
        if snapshot.stage == Stage::Ramp && gate.opens(self.scenario, elapsed, &snapshot) {
            let phases = &self.scenario.phases;
            if snapshot.established == 0 {
                let waited = phases.establish;
                return Err(RunError::NobodyThere { target: self.scenario.target, waited });
            }
            self.crew.tell(Order::Load);
        }
        Ok(())
    }
}

/// Decides when the ramp is over.
#[derive(Default)]
struct Gate {
    established: u64,
    /// When the last session was established.
    progress_at: Duration,
    complete_at: Option<Duration>,
}

impl Gate {
    fn opens(&mut self, scenario: &Scenario, elapsed: Duration, snapshot: &Snapshot) -> bool {
        if snapshot.established > self.established {
            self.established = snapshot.established;
            self.progress_at = elapsed;
        }
        let phases = &scenario.phases;
        let all = self.established == u64::from(scenario.clients.sessions);
        // A slow ramp may have long pauses of its own, but not before its first session.
        let due = if self.established == 0 { Duration::ZERO } else { phases.ramp };
        if all || elapsed >= due.max(self.progress_at) + phases.establish {
            let complete_at = *self.complete_at.get_or_insert(elapsed);
            return self.established == 0 || elapsed >= complete_at + phases.hold;
        }
        false
    }
}

fn assemble(
    scenario: &Scenario,
    probe: &Probe,
    outcomes: &[Outcome],
    controller: &Controller<'_>,
) -> Report {
    let (mut meter, mut kcp) = (Meter::new(), KcpReport::default());
    for outcome in outcomes {
        meter.merge(&outcome.meter);
        kcp.add(&outcome.stats);
    }
    let measured = outcomes.iter().map(|outcome| outcome.measured).max().unwrap_or_default();
    let seconds = measured.as_secs_f64();
    let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    let messages_per_s = per_second(meter.counts.measured_received);
    let mut report = Report {
        sessions: u64::from(scenario.clients.sessions),
        duration_s: seconds,
        counts: meter.counts,
        lost: meter.counts.missing().saturating_sub(meter.counts.corrupted),
        messages_per_s,
        megabytes_per_s: messages_per_s * scenario.traffic.size as f64 / 1e6,
        latency_us: Quantiles::of(&meter.latency),
        service_latency_us: Quantiles::of(&meter.service),
        connect_us: Quantiles::of(&meter.connect),
        send_lag_us: Quantiles::of(&meter.lag),
        around: meter.around.as_deref().map(|around| around_report(scenario, around)),
        kcp,
        generator: Generator {
            workers: outcomes.iter().map(worker_report).collect(),
            resident_max_bytes: resident_max(),
            ..Generator::default()
        },
        target_cpu_s: outcomes.iter().find_map(|o| o.target_cpu).map(|cpu| cpu.as_secs_f64()),
        run: run_info(scenario, probe),
        checks: Vec::new(),
        interrupted: controller.interrupted,
    };
    judge_generator(scenario, controller.crew.receive_buffer, &mut report);
    report.checks = scenario.checks.iter().map(|check| check.verdict(&report)).collect();
    report
}

fn around_report(scenario: &Scenario, around: &Around) -> AroundReport {
    let storm = scenario.storm.as_ref();
    AroundReport {
        bystanders: scenario.clients.bystanders.into(),
        vanish: storm.map_or(0, |storm| storm.vanish.into()),
        arrive: storm.map_or(0, |storm| storm.arrive.into()),
        quiet_us: Quantiles::of(&around.quiet),
        storm_us: Quantiles::of(&around.stormy),
        after_us: Quantiles::of(&around.after),
        newcomers_connect_us: Quantiles::of(&around.connect),
    }
}

fn worker_report(outcome: &Outcome) -> WorkerReport {
    let io = &outcome.io;
    WorkerReport {
        worker: outcome.worker,
        core: outcome.core,
        sessions: outcome.sessions,
        busy: outcome.cpu.map(|cpu| share(cpu.running, outcome.measured)),
        starved: outcome.cpu.map(|cpu| share(cpu.waiting, outcome.measured)),
        behind_max_us: outcome.meter.behind_us_max,
        tx_datagrams: io.tx_datagrams,
        tx_bytes: io.tx_bytes,
        rx_datagrams: io.rx_datagrams,
        rx_bytes: io.rx_bytes,
        enters: io.enters,
        rx_overflow: io.rx_overflow,
        tx_full: io.tx_full,
        tx_errors: io.tx_errors,
    }
}

fn run_info(scenario: &Scenario, probe: &Probe) -> RunInfo {
    RunInfo {
        version: env!("CARGO_PKG_VERSION"),
        commit: crate::COMMIT,
        command: std::env::args().collect::<Vec<_>>().join(" "),
        seed: scenario.seed,
        target: scenario.target.to_string(),
        upstream: scenario.traffic.upstream,
        protocol: match scenario.protocol {
            Protocol::Kcp(_) => "kcp",
            Protocol::Raw { .. } => "raw",
        },
        size: scenario.traffic.size,
        sockets: scenario.clients.sockets,
        driver: match probe.kind {
            DriverKind::Uring => "uring",
            DriverKind::Epoll => "epoll",
            DriverKind::Sim => "sim",
        },
        driver_reason: probe.reason.clone(),
        host: Host::detect(),
    }
}

/// Finds what the load generator itself fell short of, so that it is never read as the target's doing.
fn judge_generator(scenario: &Scenario, receive_buffer: usize, report: &mut Report) {
    let mut reasons = Vec::new();
    let mut notes = Vec::new();
    for worker in &report.generator.workers {
        let (busy, starved) = (worker.busy.unwrap_or(0.0), worker.starved.unwrap_or(0.0));
        if busy + starved >= BUSY_LIMIT {
            reasons.push(format!(
                "worker {} was {:.0} % busy and {:.0} % waiting for a core; use more --threads, or cores that nothing else uses",
                worker.worker,
                busy * 100.0,
                starved * 100.0
            ));
        }
        if worker.rx_overflow > 0 {
            reasons.push(format!(
                "worker {}'s sockets overflowed: {} datagrams or trains of them dropped; use more --sockets, a larger --socket-buffer, or raise \
                 net.core.rmem_max",
                worker.worker, worker.rx_overflow
            ));
        }
        if worker.tx_full > 0 {
            reasons.push(format!(
                "worker {}'s send buffers were full for {} datagrams; use more --sockets or raise net.core.wmem_max",
                worker.worker, worker.tx_full
            ));
        }
        if worker.behind_max_us > BEHIND_LIMIT_US {
            notes.push(format!(
                "worker {} was up to {} behind what had arrived; its timeouts waited meanwhile, where a stock client's would have sent again",
                worker.worker,
                human(worker.behind_max_us)
            ));
        }
        if worker.tx_errors > 0 {
            notes.push(format!("worker {}: {} sends failed", worker.worker, worker.tx_errors));
        }
    }
    let counts = &report.counts;
    let open = matches!(scenario.traffic.load, Load::Open { .. });
    if open && report.send_lag_us.p99 > LAG_LIMIT_US {
        reasons.push(format!(
            "1 % of the messages left {} or more after their time",
            human(report.send_lag_us.p99)
        ));
    }
    if counts.missed_sends > 0 {
        reasons.push(format!(
            "{} slots of the schedule were given up as too late",
            counts.missed_sends
        ));
    }
    if counts.store_full > 0 {
        reasons.push(format!(
            "{} messages were not sent because {} bytes were queued or in flight; raise --store-bytes",
            counts.store_full, scenario.engine.store_bytes
        ));
    }
    if counts.throttled_sends > 0 {
        notes.push(format!(
            "the target fell behind: {} messages were not sent because their sessions had {} segments unacknowledged; the latency \
             figures are lower bounds",
            counts.throttled_sends, scenario.traffic.backlog_max
        ));
    }
    if receive_buffer < scenario.engine.socket.recv_buffer {
        notes.push(format!(
            "the kernel granted {receive_buffer} bytes of receive buffer instead of {}; raise net.core.rmem_max",
            scenario.engine.socket.recv_buffer
        ));
    }
    if counts.stray_datagrams + counts.refused_datagrams > 0 {
        notes.push(format!(
            "{} datagrams were for no session of ours and {} were refused by the protocol",
            counts.stray_datagrams, counts.refused_datagrams
        ));
    }
    let busiest = report.generator.workers.iter().filter_map(|worker| worker.busy);
    report.generator.client_core_busy = busiest.fold(0.0, f64::max);
    report.generator.saturated = !reasons.is_empty();
    report.generator.reasons = reasons;
    report.generator.notes = notes;
}

/// How often the workers are looked at.
const TICK: Duration = Duration::from_millis(50);
/// From here on a worker counts as saturated.
const BUSY_LIMIT: f64 = 0.95;
/// From here on it is told that a worker was behind: the smallest timeout of profile `game`, after which a stock client
/// would have sent again.
const BEHIND_LIMIT_US: u64 = 30_000;
/// An open-loop schedule that is later than this for 1 % of its messages is not held.
const LAG_LIMIT_US: u64 = 1000;

#[cfg(test)]
mod tests;
