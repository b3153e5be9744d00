//! One shard: one thread, one driver, its own sessions, timers and counters. Nothing here is shared but counters out and
//! commands in.

mod admission;
mod answer;
pub mod backend_stats;
mod budget;
mod challenge;
mod egress;
mod farewell;
mod handoff;
mod hearing;
mod ingress;
mod locals;
mod mailbox;
mod pace;
mod sessions;
pub mod stats;
mod sweep;
pub mod table;
mod tombstone;
mod trim;
mod upstreams;

use std::io;
use std::net::SocketAddr;

use crossbeam::channel::{Receiver, Sender};
use kcp_core::{KcpConfig, Millis};
use net_io::steer::Steering;
use net_io::{Driver, Now};

use crate::control::command::{ShardCommand, ShardReport};
use crate::session::Tie;
use crate::upstream::echo::Echo;
use answer::Answerer;
use backend_stats::SharedBackendStats;
use challenge::Challenger;
use egress::Egress;
use farewell::Farewells;
pub use handoff::Handoff;
use hearing::Hearing;
use ingress::Ingress;
use locals::Locals;
use mailbox::Mailbox;
pub use mailbox::{SharedBackends, SharedPolicy};
use pace::Pace;
use sessions::Sessions;
use stats::{Histogram, SharedStats, Stat, Stats};
use upstreams::nats::Nats;
pub use upstreams::nats::NatsSetup;
use upstreams::{Floor, Upstreams};

/// What a shard's decisions depend on and what a reload may change. Shared by all shards, replaced as a whole.
#[derive(Clone, Debug)]
pub struct Policy {
    /// KCP settings per listener, in listener order.
    pub listeners: Vec<KcpConfig>,
    /// Sessions this shard may hold.
    pub sessions_max: u32,
    /// A session whose client has not shown for this long that it is there ends, in milliseconds.
    pub idle_timeout_ms: u32,
    /// A client that was silent for this long is asked whether it is there, in milliseconds; 0 never asks.
    pub keepalive_ms: u32,
    /// How long the key of an ended session is remembered, in milliseconds.
    pub tombstone_ms: u32,
    /// Remembered keys at most; beyond it the oldest is forgotten.
    pub tombstones_max: u32,
    /// Bytes one session may have queued towards its client before its receive window closes.
    pub session_bytes_max: usize,
    /// What those are told who come during a drain; empty says nothing.
    pub farewell: Vec<u8>,
}

/// Where a shard's messages go.
#[derive(Debug)]
pub enum Upstream {
    /// Back to their senders.
    Echo,
    /// To backends.
    Backends(BackendSetup),
    /// To a messaging engine.
    Nats(NatsSetup),
}

/// What a shard with backends is built with and keeps for life. Its driver needs streams.
#[derive(Debug)]
pub struct BackendSetup {
    /// The first backends.
    pub backends: SharedBackends,
    /// Bytes that may wait in this shard between backends and their sessions.
    pub pool_bytes_max: usize,
    /// The listeners' addresses as bound, in listener order: what PROXY headers name where a datagram does not tell.
    pub listen_addrs: Vec<SocketAddr>,
    /// The way back to the control plane.
    pub reports: Sender<ShardReport>,
    /// Where the counters of backends are published.
    pub stats: SharedBackendStats,
}

/// What a shard is built with and keeps for life.
#[derive(Debug)]
pub struct Setup<D: Driver> {
    /// This shard's number, from 0.
    pub index: u32,
    /// The driver, built on the shard's own thread.
    pub driver: D,
    /// The sockets, in listener order: this shard's member of each listener's group.
    pub sockets: Vec<D::Socket>,
    /// Who owns a conversation; `None` per listener where the kernel's own address hash decides.
    pub steering: Vec<Option<Steering>>,
    /// The first policy.
    pub policy: SharedPolicy,
    /// Bytes the store may hold.
    pub store_bytes_max: usize,
    /// Random; keys the session table's hash.
    pub seed: u64,
    /// Random; what the path challenges are made of. Whoever knows it can answer them without receiving them.
    pub secret: [u64; 2],
    /// Commands from the control plane; the sender wakes the driver after sending.
    pub commands: Receiver<ShardCommand<D::Stream>>,
    /// Where the counters are published.
    pub stats: SharedStats,
    /// This shard's end of the handoff between shards.
    pub handoff: Handoff,
    /// Where messages go.
    pub upstream: Upstream,
}

/// One shard.
#[derive(Debug)]
pub struct Shard<D: Driver> {
    index: u32,
    driver: D,
    mailbox: Mailbox<D::Stream>,
    handoff: Handoff,
    steering: Vec<Option<Steering>>,
    sessions: Sessions,
    locals: Locals,
    challenger: Challenger,
    farewells: Farewells,
    outlet: Outlet,
    stats: Stats,
    shared: SharedStats,
    pace: Pace,
    hearing: Hearing,
}

impl<D: Driver> Shard<D> {
    /// Takes over the sockets and starts receiving with the first turn.
    ///
    /// # Errors
    /// The driver's, adding a socket.
    pub fn new(setup: Setup<D>) -> io::Result<Self> {
        let mut driver = setup.driver;
        for socket in setup.sockets {
            driver.add_socket(socket)?;
        }
        let now = millis(driver.now());
        let sessions = Sessions::new(&setup.policy, setup.store_bytes_max, setup.seed, now);
        let outlet = match setup.upstream {
            Upstream::Echo => Outlet::Echo(Echo::new(ECHO_BYTES)),
            Upstream::Backends(backends) => {
                Outlet::Backends(Box::new(Upstreams::new(backends, setup.index, now)))
            }
            Upstream::Nats(setup) => Outlet::Nats(Nats::new(setup)),
        };
        let mut stats = Stats::default();
        stats.set(Stat::StoreBytesMax, setup.store_bytes_max as u64);
        setup.stats.publish(&mut stats); // a bound that reads 0 until the first turn would look reached
        Ok(Self {
            index: setup.index,
            driver,
            mailbox: Mailbox::new(setup.commands, setup.policy),
            handoff: setup.handoff,
            steering: setup.steering,
            sessions,
            locals: Locals::default(),
            challenger: Challenger::new(setup.secret),
            farewells: Farewells::default(),
            outlet,
            stats,
            shared: setup.stats,
            pace: Pace::default(),
            hearing: Hearing::new(now),
        })
    }

    /// The driver, for whoever runs turns by hand.
    #[must_use]
    pub const fn driver(&self) -> &D {
        &self.driver
    }

    /// Turns until [`ShardCommand::Stop`].
    ///
    /// # Errors
    /// The driver is unusable.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.mailbox.stopping {
            self.turn()?;
        }
        Ok(())
    }

    /// The whole data path, one line per step.
    ///
    /// # Errors
    /// The driver is unusable.
    pub fn turn(&mut self) -> io::Result<()> {
        self.driver.submit_and_wait(self.deadline())?; // last turn's sends go, this turn's batch comes
        let now = self.begin();
        self.apply(now); // drain, reload, backends, stop: before traffic, never in its middle
        self.answer(now); // what an operator asks about sessions
        let mut finished = self.ingress(now); // datagram -> owner -> session -> kcp.handle_datagram -> message -> upstream
        finished &= self.returns(now); // upstream -> kcp.send
        finished &= self.expire(now); // timer -> session ends | is asked whether it is there | is dirty
        finished &= self.shed(now); // store full -> who keeps most of it for longest, and makes no use of it, ends
        finished &= self.egress(now); // dirty session -> kcp.poll_transmit -> driver slot
        finished &= self.part(now); // ended session -> its backend hears of it; links -> driver
        self.trim(now); // memory of a past peak goes back
        self.publish(finished);
        Ok(())
    }

    /// When the next turn must begin even if nothing arrives.
    fn deadline(&self) -> Option<Now> {
        if self.pace.hurries() || self.mailbox.is_waiting() || self.handoff.is_waiting() {
            return Some(Now(0));
        }
        let now = self.driver.now();
        let upstream = self.outlet.next_deadline(now, &self.sessions);
        let lag_ms = self.hearing.lag_ms(millis(now));
        let timers = self.sessions.next_deadline(millis(now)).map(|at| at.add(lag_ms));
        let all = [timers, upstream, self.hearing.next_deadline()];
        let due = all.into_iter().flatten().reduce(Millis::earliest)?;
        let wait_ms = u64::try_from(due.since(millis(now))).unwrap_or(0);
        Some(Now((now.as_millis() + wait_ms) * 1000))
    }

    fn answer(&mut self, now: Millis) {
        let Some(ask) = self.mailbox.asked.take() else { return };
        let mut answerer = Answerer {
            now,
            index: self.index,
            policy: &self.mailbox.policy,
            sessions: &mut self.sessions,
            locals: &self.locals,
            outlet: &self.outlet,
            stats: &mut self.stats,
        };
        // Whoever asked may have gone.
        let _ = ask.reply.try_send(answerer.answer(&ask.question));
    }

    fn apply(&mut self, now: Millis) {
        if self.mailbox.apply() {
            self.sessions.rearm_all();
        }
        if let Outlet::Backends(upstreams) = &mut self.outlet {
            upstreams.apply(&mut self.driver, &mut self.mailbox, now);
        }
    }

    fn ingress(&mut self, now: Millis) -> bool {
        let mut ingress = Ingress {
            now,
            clock: self.driver.now(),
            shedding: self.hearing.sheds(now),
            index: self.index,
            steering: &self.steering,
            mailbox: &self.mailbox,
            sessions: &mut self.sessions,
            locals: &mut self.locals,
            challenger: &self.challenger,
            outlet: &mut self.outlet,
            handoff: &mut self.handoff,
            farewells: &mut self.farewells,
            stats: &mut self.stats,
            pace: &mut self.pace,
            hearing: &mut self.hearing,
        };
        ingress.run(&mut self.driver)
    }

    fn returns(&mut self, now: Millis) -> bool {
        let (outlet, driver, pace, mut floor) = self.outlet(now);
        match outlet {
            Outlet::Echo(echo) => floor.echo(echo),
            Outlet::Backends(upstreams) => upstreams.returns(driver, &mut floor, pace),
            Outlet::Nats(nats) => nats.returns(&mut floor),
        }
    }

    fn part(&mut self, now: Millis) -> bool {
        let (outlet, driver, pace, mut floor) = self.outlet(now);
        match outlet {
            Outlet::Echo(_) => true,
            Outlet::Backends(upstreams) => upstreams.part(driver, &mut floor, pace),
            Outlet::Nats(nats) => nats.part(&mut floor),
        }
    }

    /// Where messages go, with all that it works on.
    fn outlet(&mut self, now: Millis) -> (&mut Outlet, &mut D, &mut Pace, Floor<'_>) {
        let floor = Floor {
            now: self.driver.now(),
            millis: now,
            policy: &self.mailbox.policy,
            sessions: &mut self.sessions,
            locals: &self.locals,
            stats: &mut self.stats,
        };
        (&mut self.outlet, &mut self.driver, &mut self.pace, floor)
    }

    /// Timers run on the clock of what was heard.
    fn expire(&mut self, now: Millis) -> bool {
        let (pace, driver) = (&mut self.pace, &self.driver);
        pace.step();
        let is_over = |pieces| pace.is_over(pieces, budget::EXPIRE_US, driver);
        let heard = self.hearing.heard(now);
        self.sessions.expire(heard, &self.mailbox.policy, &mut self.stats, is_over)
    }

    fn shed(&mut self, now: Millis) -> bool {
        self.sessions.sweep(now, &self.mailbox.policy, &mut self.stats)
    }

    fn egress(&mut self, now: Millis) -> bool {
        self.farewells.say(&mut self.driver, now, &self.mailbox.policy, &mut self.stats);
        let mut egress = Egress {
            now,
            heard: self.hearing.heard(now),
            mailbox: &self.mailbox,
            sessions: &mut self.sessions,
            locals: &self.locals,
            challenger: &self.challenger,
            stats: &mut self.stats,
            pace: &mut self.pace,
        };
        egress.run(&mut self.driver)
    }

    fn trim(&mut self, now: Millis) {
        self.sessions.trim(now);
        if let Outlet::Backends(upstreams) = &mut self.outlet {
            upstreams.trim(&mut self.driver, now);
        }
    }

    /// The turn's clock; if the turn before was busy, that is how long it took.
    fn begin(&mut self) -> Millis {
        let now = millis(self.driver.now());
        if let Some(took) = self.pace.begin(&self.driver) {
            self.stats.observe(Histogram::BusyTurn, took.us);
            self.hearing.turn_took(took.us, now);
            if let Some(us) = took.cpu_us {
                self.stats.observe(Histogram::BusyTurnCpu, us);
            }
        }
        now
    }

    fn publish(&mut self, finished: bool) {
        let (stats, now) = (&mut self.stats, millis(self.driver.now()));
        stats.add(Stat::Turns, 1);
        stats.add(Stat::TurnsOverBudget, u64::from(!finished));
        stats.set(Stat::Shedding, self.hearing.sheds(now).into());
        stats.set(Stat::BehindMs, self.hearing.behind_ms(now).into());
        stats.set(Stat::Sessions, u64::from(self.sessions.players()));
        stats.set(Stat::Tombstones, self.sessions.tombstones.len() as u64);
        stats.set(Stat::TombstonesForgotten, self.sessions.tombstones.forgotten());
        stats.store(&self.sessions.store);
        stats.driver(&self.driver.counters());
        let work = [Stat::RxDatagrams, Stat::TxDatagrams, Stat::TimersExpired];
        let mut done = work.map(|stat| stats.get(stat)).iter().sum();
        if let Outlet::Backends(upstreams) = &mut self.outlet {
            stats.streams(&self.driver.stream_counters());
            upstreams.publish(stats);
            done += upstreams.pieces();
        }
        self.pace.end(done, finished);
        self.shared.publish(stats);
    }
}

/// Where messages go, at work.
#[derive(Debug)]
enum Outlet {
    Echo(Echo),
    Backends(Box<Upstreams>),
    Nats(Nats),
}

impl Outlet {
    /// The embedded upstream, where there are no backends.
    const fn echo(&mut self) -> Option<&mut Echo> {
        match self {
            Self::Echo(echo) => Some(echo),
            Self::Backends(_) | Self::Nats(_) => None,
        }
    }

    /// What the backend of a session is called; `None` while it has none.
    fn backend_of(&self, tie: Tie) -> Option<&str> {
        match self {
            Self::Echo(_) => Some("echo"),
            Self::Backends(upstreams) => upstreams.backend_of(tie),
            Self::Nats(_) => (tie == Tie::Nats).then_some("nats"),
        }
    }

    fn next_deadline(&self, now: Now, sessions: &Sessions) -> Option<Millis> {
        match self {
            Self::Echo(_) => None,
            Self::Backends(upstreams) => upstreams.next_deadline(now, sessions),
            Self::Nats(nats) => nats.next_deadline(millis(now), sessions),
        }
    }
}

/// The protocol's clock: the low 32 bits of the driver's milliseconds, wrapping every 49.7 days.
#[expect(clippy::cast_possible_truncation, reason = "the protocol's clock wraps by design")]
fn millis(now: Now) -> Millis {
    Millis(now.as_millis() as u32)
}

/// Bytes of messages the embedded echo may hold at once, per shard: a full batch of full datagrams and one message of the
/// largest size beside it.
const ECHO_BYTES: usize = 2 << 20;
