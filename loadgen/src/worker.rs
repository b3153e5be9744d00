//! One thread of load: a driver, a fleet, and the turn that joins them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;
use kcp_core::Stats;
use net_io::driver::Counters;
use net_io::socket::BindError;
use net_io::{Driver, DriverKind, EpollDriver, Now, SocketOptions, UdpSocket, UringDriver, Waker};

use crate::fleet::Fleet;
use crate::host::{ThreadTime, process_time};
use crate::live::{Gauge, Order, Orders};
use crate::meter::{Meter, Quantiles};
use crate::plan::{Plan, Share};
use crate::timeline::Stage;

/// What a worker tells the controller.
#[derive(Debug)]
pub(crate) enum Event {
    /// Its sockets are open.
    Ready { waker: Waker, receive_buffer: usize },
    /// Its part of the run is over.
    Done(Box<Outcome>),
    /// It cannot go on.
    Failed { worker: u32, error: WorkerError },
}

/// Why a worker could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A socket could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The driver could not be built.
    #[error("cannot build the {kind:?} driver: {source}")]
    Driver {
        /// Which one.
        kind: DriverKind,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A socket's properties could not be read, or it could not be added to the driver.
    #[error("cannot use socket {index} ({addr}): {source}")]
    Socket {
        /// Its number in the run.
        index: u32,
        /// What it is bound to.
        addr: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The driver broke down.
    #[error("the driver failed: {0}")]
    Turn(#[source] io::Error),
    /// The thread could not be pinned.
    #[error("cannot pin the thread to core {0}; is it in this process's cpuset (`taskset -p $$`)?")]
    Pin(usize),
}

/// What a worker brings home.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) worker: u32,
    pub(crate) core: Option<usize>,
    pub(crate) sessions: u32,
    pub(crate) meter: Meter,
    pub(crate) stats: Stats,
    /// Over the whole run.
    pub(crate) io: Counters,
    /// Over the measured time; `None` where the kernel does not tell.
    pub(crate) cpu: Option<ThreadTime>,
    /// What the target's process used over the measured time; `None` where nobody asked, and from all workers but the first.
    pub(crate) target_cpu: Option<Duration>,
    pub(crate) measured: Duration,
}

/// What a worker is started with.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) plan: Arc<Plan>,
    pub(crate) share: Share,
    pub(crate) kind: DriverKind,
    pub(crate) orders: Arc<Orders>,
    pub(crate) gauges: Arc<[Gauge]>,
    pub(crate) events: Sender<Event>,
}

/// The whole life of a worker's thread.
pub(crate) fn work(assignment: &Assignment) {
    let event = match start(assignment) {
        Ok(outcome) => Event::Done(Box::new(outcome)),
        Err(error) => Event::Failed { worker: assignment.share.worker, error },
    };
    // The controller has gone when another worker failed first; then nobody needs to know.
    let _ = assignment.events.send(event);
}

fn start(assignment: &Assignment) -> Result<Outcome, WorkerError> {
    let engine = &assignment.plan.scenario.engine;
    let position = (assignment.share.worker as usize).checked_rem(engine.pin.len());
    let core = position.and_then(|position| engine.pin.get(position).copied());
    if let Some(core) = core
        && !core_affinity::set_for_current(core_affinity::CoreId { id: core })
    {
        return Err(WorkerError::Pin(core));
    }
    let kind = assignment.kind;
    let failed = |source| WorkerError::Driver { kind, source };
    match kind {
        DriverKind::Uring => {
            run(assignment, core, UringDriver::new(&engine.driver).map_err(failed)?)
        }
        // The probe never chooses the simulator; epoll runs everywhere.
        DriverKind::Epoll | DriverKind::Sim => {
            run(assignment, core, EpollDriver::new(&engine.driver).map_err(failed)?)
        }
    }
}

fn run<D: Driver<Socket = UdpSocket>>(
    assignment: &Assignment,
    core: Option<usize>,
    mut driver: D,
) -> Result<Outcome, WorkerError> {
    let Assignment { plan, share, orders, gauges, events, .. } = assignment;
    let receive_buffer = open_sockets(plan, *share, &mut driver)?;
    let _ = events.send(Event::Ready { waker: driver.waker(), receive_buffer });
    let mut now = driver.submit_and_wait(Some(driver.now())).map_err(WorkerError::Turn)?;
    while orders.current() == Order::Wait {
        now = driver.submit_and_wait(None).map_err(WorkerError::Turn)?;
    }
    let mut worker = Worker {
        fleet: Fleet::new(Arc::clone(plan), *share, now),
        driver,
        orders,
        gauge: gauges.get(share.worker as usize),
        order: Order::Ramp,
        stage: Stage::Ramp,
        cpu: CpuSpan::of(plan.scenario.engine.target_pid.filter(|_| share.worker == 0)),
        next_p99: Now(0),
        rounds: if plan.scenario.traffic.is_open() { ROUNDS_MAX } else { 0 },
    };
    while worker.turn().map_err(WorkerError::Turn)? != Stage::Done {}
    // The acknowledgements of the last echoes leave.
    worker.fleet.transmit_all(now, &mut worker.driver);
    worker.driver.submit_and_wait(Some(now)).map_err(WorkerError::Turn)?;
    let window = worker.fleet.meter.window;
    worker.fleet.count_lossy();
    Ok(Outcome {
        worker: share.worker,
        core,
        sessions: share.of(plan.scenario.clients.sessions),
        io: worker.driver.counters(),
        cpu: worker.cpu.spent(),
        target_cpu: worker.cpu.target_spent(),
        measured: Duration::from_micros(window.end.0.saturating_sub(window.start.0)),
        stats: worker.fleet.stats(),
        meter: worker.fleet.meter,
    })
}

/// Binds and adds this worker's sockets; returns the smallest receive buffer that the kernel granted.
fn open_sockets<D: Driver<Socket = UdpSocket>>(
    plan: &Plan,
    share: Share,
    driver: &mut D,
) -> Result<usize, WorkerError> {
    let clients = &plan.scenario.clients;
    let options: &SocketOptions = &plan.scenario.engine.socket;
    let mut smallest = usize::MAX;
    for index in (0..share.of(clients.sockets)).map(|local| share.number(local)) {
        let addr = SocketAddr::new(clients.sources.of_socket(index as usize), 0);
        let mut socket = UdpSocket::bind(addr, options)?;
        let failed = |source| WorkerError::Socket { index, addr, source };
        // One target for all: three quarters of this process's time are sends, and these are the cheaper ones.
        socket.connect(plan.scenario.target).map_err(failed)?;
        smallest = smallest.min(socket.buffer_sizes().map_err(failed)?.0);
        driver.add_socket(socket).map_err(failed)?;
    }
    Ok(smallest)
}

struct Worker<'a, D> {
    driver: D,
    fleet: Fleet,
    orders: &'a Orders,
    gauge: Option<&'a Gauge>,
    order: Order,
    stage: Stage,
    cpu: CpuSpan,
    next_p99: Now,
    /// Times that a turn looks for more of what has arrived. A closed loop needs none: how long its echoes wait is its own doing.
    rounds: usize,
}

impl<D: Driver> Worker<'_, D> {
    /// As a gateway's shard: one system call, then all that came, all that is due, all that must leave.
    fn turn(&mut self) -> io::Result<Stage> {
        let deadline = self.fleet.next_deadline(self.driver.now());
        let mut now = self.driver.submit_and_wait(deadline)?;
        self.obey(now);
        // A ring brings twenty at a time from many sockets. Those behind them must not wait for this turn's sends.
        for _ in 0..self.rounds {
            self.fleet.receive(now, &mut self.driver);
            if !self.driver.has_backlog() {
                break;
            }
            now = self.driver.submit_and_wait(Some(now))?;
        }
        self.fleet.serve(now, &mut self.driver);
        self.show(now);
        Ok(self.stage)
    }

    fn obey(&mut self, now: Now) {
        let order = self.orders.current();
        if order == self.order {
            return;
        }
        self.order = order;
        match order {
            Order::Wait | Order::Ramp => {}
            Order::Load => self.fleet.begin_load(now),
            Order::Stop => self.fleet.stop(now, STOP_WITHIN),
        }
    }

    fn show(&mut self, now: Now) {
        let stage = self.fleet.stage(now);
        if stage != self.stage {
            self.cpu.on_stage(stage);
            self.stage = stage;
        }
        let Some(gauge) = self.gauge else { return };
        gauge.show(stage, &self.fleet.meter.counts);
        if stage == Stage::Measure && now >= self.next_p99 {
            self.next_p99 = Now(now.0 + P99_EVERY_US);
            gauge.show_p99(Quantiles::of(&self.fleet.meter.latency).p99);
        }
    }
}

/// Processor time at the ends of the measured time.
struct CpuSpan {
    target_pid: Option<u32>,
    start: Option<Reading>,
    end: Option<Reading>,
}

struct Reading {
    own: Option<ThreadTime>,
    target: Option<Duration>,
}

impl CpuSpan {
    const fn of(target_pid: Option<u32>) -> Self {
        Self { target_pid, start: None, end: None }
    }

    fn on_stage(&mut self, stage: Stage) {
        match stage {
            Stage::Measure => self.start = Some(self.read()),
            Stage::Drain | Stage::Done if self.end.is_none() => self.end = Some(self.read()),
            Stage::Ramp | Stage::Warmup | Stage::Drain | Stage::Done => {}
        }
    }

    fn read(&self) -> Reading {
        let target = self.target_pid.and_then(|pid| process_time(pid).ok());
        Reading { own: ThreadTime::read().ok(), target }
    }

    fn spent(&self) -> Option<ThreadTime> {
        Some(self.end.as_ref()?.own?.since(self.start.as_ref()?.own?))
    }

    /// A target that ended a thread may have less at the end.
    fn target_spent(&self) -> Option<Duration> {
        self.end.as_ref()?.target?.checked_sub(self.start.as_ref()?.target?)
    }
}

/// Some 400 datagrams, or half a millisecond.
const ROUNDS_MAX: usize = 16;
/// How long an interrupted run waits for echoes.
const STOP_WITHIN: Duration = Duration::from_millis(500);
const P99_EVERY_US: u64 = 1_000_000;
