//! What the control plane's threads share: the way to every shard, the configuration in force, the state of life.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{Sender, TrySendError};
use net_io::steer::Steering;
use net_io::{DriverKind, Now, Probe, Waker, clock};
use serde::Serialize;

use super::backends::{Directory, Numbers};
use super::command::ShardCommand;
use super::prober::{ProbeResult, Probes};
use super::reload::{Reloadable, Reloads};
use crate::config::{Config, Steer};
use crate::shard::backend_stats::SharedBackendStats;
use crate::shard::stats::{DropReason, EndReason, SharedStats, Stat, Stats};
use crate::sizing::Sizes;
use crate::supervisor::life::{Life, Lifecycle};
use crate::upstream::backend::BackendId;
use crate::upstream::nats::stats::NatsStats;

/// The control plane's view of a running gateway.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) life: Arc<Life>,
    pub(crate) probe: Probe,
    pub(crate) listeners: Vec<BoundListener>,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) reloadable: Option<Reloadable>,
    pub(crate) started: Started,
    pub(crate) probes: Probes,
    shards: Vec<ShardLink>,
    backends: Option<Arc<Directory>>,
    nats: Option<Arc<NatsStats>>,
    current: Mutex<Current>,
}

/// The way to one shard.
#[derive(Debug)]
pub(crate) struct ShardLink {
    pub(crate) core: Option<usize>,
    pub(crate) commands: Sender<ShardCommand>,
    pub(crate) waker: Waker,
    pub(crate) stats: SharedStats,
    pub(crate) backend_stats: SharedBackendStats,
}

/// A listener as it came to be.
#[derive(Clone, Debug, Serialize)]
pub struct BoundListener {
    /// The bound address.
    pub addr: SocketAddr,
    /// Which conversation goes to which shard, where the kernel steers by it.
    #[serde(skip)]
    pub steering: Option<Steering>,
    /// How datagrams find their shard: `conv` or `address`.
    pub steer: &'static str,
    /// SO_RCVBUF of each of its sockets, in bytes, as granted.
    pub recv_buffer_bytes: usize,
    /// SO_SNDBUF of each of its sockets, in bytes, as granted.
    pub send_buffer_bytes: usize,
}

/// When the process began to serve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    at: Instant,
    /// Seconds since 1970.
    pub(crate) unix_s: f64,
}

impl Started {
    #[expect(clippy::disallowed_methods, reason = "the start is wall-clock time; no shard sees it")]
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), unix_s: unix_now_s() }
    }

    pub(crate) fn uptime(self) -> Duration {
        self.at.elapsed()
    }
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "for reports; no shard sees it")]
pub(crate) fn unix_now_s() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// What a reload replaces as a whole.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) config: Arc<Config>,
    pub(crate) sizes: Arc<Sizes>,
    pub(crate) reloads: Reloads,
    pub(crate) drain: Option<Draining>,
}

/// A drain under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draining {
    began: Now,
    sessions: u64,
    ends: Option<Now>,
}

/// How far a drain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DrainProgress {
    /// Seconds since it began.
    pub for_s: u64,
    /// Seconds until what is left is ended; null while nobody has asked the gateway to stop.
    pub ends_in_s: Option<u64>,
    /// Live sessions when it began.
    pub sessions_before: u64,
    /// Live sessions now.
    pub sessions_left: u64,
}

/// A command that a shard did not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The gateway is in a state that the command does not fit.
    #[error("the gateway is in state {}", .0.label())]
    State(Lifecycle),
    /// The shard has not taken any of the last commands; it hangs or is overloaded.
    #[error("shard {0} has not taken its last {COMMANDS_MAX} commands")]
    Stuck(usize),
    /// The shard is dead.
    #[error("shard {0} is dead")]
    Dead(usize),
}

impl Plane {
    #[expect(clippy::too_many_arguments, reason = "called once, each of its own type")]
    pub(crate) fn new(
        life: Arc<Life>,
        probe: Probe,
        listeners: Vec<BoundListener>,
        admin: Option<SocketAddr>,
        reloadable: Option<Reloadable>,
        shards: Vec<ShardLink>,
        backends: Option<Arc<Directory>>,
        nats: Option<Arc<NatsStats>>,
        config: Config,
        sizes: Sizes,
    ) -> Self {
        let current = Current {
            config: Arc::new(config),
            sizes: Arc::new(sizes),
            reloads: Reloads::default(),
            drain: None,
        };
        let (started, current) = (Started::now(), Mutex::new(current));
        let probes = Probes::default();
        Self {
            life,
            probe,
            listeners,
            admin,
            reloadable,
            started,
            probes,
            shards,
            backends,
            nats,
            current,
        }
    }

    pub(crate) fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn shards(&self) -> &[ShardLink] {
        &self.shards
    }

    /// The backends; `None` where messages are echoed.
    pub(crate) fn backends(&self) -> Option<&Directory> {
        self.backends.as_deref()
    }

    /// The connection to NATS, if there is to be one.
    pub(crate) fn nats(&self) -> Option<&NatsStats> {
        self.nats.as_deref()
    }

    /// What every shard counted for a backend.
    pub(crate) fn numbers(&self, backend: BackendId) -> Numbers {
        Numbers::new(self.shards.iter().map(|shard| shard.backend_stats.read(backend)))
    }

    /// Why the gateway should get no new clients, or `None` when it should.
    pub(crate) fn not_ready(&self) -> Option<String> {
        self.life
            .not_ready()
            .or_else(|| self.backends()?.not_ready())
            .or_else(|| self.nats()?.trouble())
    }

    /// Refuses new sessions; live ones go on.
    pub(crate) fn drain(&self) -> Result<(), CommandError> {
        let from = [Lifecycle::Serve, Lifecycle::Drain];
        let was = self.life.advance(&from, Lifecycle::Drain).map_err(CommandError::State)?;
        if was != Lifecycle::Drain {
            let sessions = self.totals().get(Stat::Sessions);
            let began = clock::monotonic();
            self.current().drain = Some(Draining { began, sessions, ends: None });
            tracing::info!(sessions, "draining");
        }
        self.command(|| ShardCommand::Drain)
    }

    /// Admits new sessions again.
    pub(crate) fn undrain(&self) -> Result<(), CommandError> {
        let from = [Lifecycle::Serve, Lifecycle::Drain];
        let was = self.life.advance(&from, Lifecycle::Serve).map_err(CommandError::State)?;
        if was != Lifecycle::Serve {
            self.current().drain = None;
            tracing::info!("serving again");
        }
        self.command(|| ShardCommand::Undrain)
    }

    /// The drain under way ends what is left in `within` from now.
    pub(crate) fn drain_ends(&self, within: Duration) {
        let within_us = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        if let Some(drain) = &mut self.current().drain {
            drain.ends = Some(Now(clock::monotonic().0.saturating_add(within_us)));
        }
    }

    /// How far the drain under way has come.
    pub(crate) fn drain_progress(&self) -> Option<DrainProgress> {
        let Draining { began, sessions, ends } = self.current().drain?;
        let now = clock::monotonic();
        let seconds = |from: Now, to: Now| to.0.saturating_sub(from.0) / 1_000_000;
        Some(DrainProgress {
            for_s: seconds(began, now),
            ends_in_s: ends.map(|ends| seconds(now, ends)),
            sessions_before: sessions,
            sessions_left: self.totals().get(Stat::Sessions),
        })
    }

    /// Whether every shard has taken its commands and holds no session. After [`Plane::drain`] this stays true.
    pub(crate) fn is_drained(&self) -> bool {
        // In this order: a shard publishes a birth before it takes the command that forbids the next one.
        self.shards.iter().all(|shard| shard.commands.is_empty())
            && self.totals().get(Stat::Sessions) == 0
    }

    /// Sends a command to every shard and wakes it. All shards are tried; the first refusal is returned.
    pub(crate) fn command(&self, command: impl Fn() -> ShardCommand) -> Result<(), CommandError> {
        let mut outcome = Ok(());
        for index in 0..self.shards.len() {
            outcome = outcome.and(self.command_one(index, command()));
        }
        outcome
    }

    /// Sends a command to one shard and wakes it.
    pub(crate) fn command_one(
        &self,
        index: usize,
        command: ShardCommand,
    ) -> Result<(), CommandError> {
        let shard = &self.shards[index];
        let sent = shard.commands.try_send(command).map_err(|e| match e {
            TrySendError::Full(_) => CommandError::Stuck(index),
            TrySendError::Disconnected(_) => CommandError::Dead(index),
        });
        shard.waker.wake();
        sent
    }

    /// Tells every shard to leave its loop, waiting for room in its queue.
    pub(crate) fn stop(&self) {
        for shard in &self.shards {
            shard.waker.wake();
            // An error means that the shard has ended already.
            let _ = shard.commands.send(ShardCommand::Stop);
            shard.waker.wake();
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals { shards: self.shards.iter().map(|shard| shard.stats.read()).collect() }
    }

    pub(crate) fn config_file(&self) -> Option<String> {
        let file = self.reloadable.as_ref()?.source.file.as_ref()?;
        Some(file.display().to_string())
    }

    pub(crate) fn status(&self) -> Status {
        let (sizes, reloads, config) = {
            let current = self.current();
            (Arc::clone(&current.sizes), current.reloads.clone(), Arc::clone(&current.config))
        };
        let not_ready = self.not_ready();
        let totals = self.totals();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            driver: driver_label(self.probe.kind),
            driver_reason: self.probe.reason.clone(),
            shards: self.shards.len(),
            sessions: totals.get(Stat::Sessions),
            state: self.life.lifecycle().label(),
            uptime_s: self.started.uptime().as_secs(),
            ready: not_ready.is_none(),
            not_ready,
            sessions_max: sizes.sessions_max,
            store_bytes: totals.get(Stat::StoreBytes),
            store_bytes_max: sizes.store_bytes_per_shard as u64 * self.shards.len() as u64,
            listeners: self.listeners.clone(),
            admin: self.admin,
            cores: self.shards.iter().map(|shard| shard.core).collect(),
            memory_bytes: sizes.memory,
            upstream: config.upstream.label(),
            config_file: self.config_file(),
            reloads,
            drain: self.drain_progress(),
            probes: self.probes.read(),
        }
    }

    /// Whether the gateway's own prober is at work.
    pub(crate) fn is_probed(&self) -> bool {
        self.life.lifecycle() == Lifecycle::Serve && self.current().config.probe.interval_s > 0
    }
}

/// The gateway at a glance, as `/api/v1/status` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The program's version.
    pub version: &'static str,
    /// `uring` or `epoll`.
    pub driver: &'static str,
    /// Why this driver.
    pub driver_reason: String,
    /// Shards.
    pub shards: usize,
    /// The core of each shard, null where it runs on any.
    pub cores: Vec<Option<usize>>,
    /// Live sessions.
    pub sessions: u64,
    /// `start`, `serve`, `drain` or `stop`.
    pub state: &'static str,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Whether new clients should be sent here.
    pub ready: bool,
    /// Why not.
    pub not_ready: Option<String>,
    /// Sessions the gateway may hold.
    pub sessions_max: u32,
    /// Payload bytes in flight.
    pub store_bytes: u64,
    /// Their bound.
    pub store_bytes_max: u64,
    /// The memory that `auto` limits were sized to, in bytes.
    pub memory_bytes: u64,
    /// The listeners as bound.
    pub listeners: Vec<BoundListener>,
    /// The admin address as bound.
    pub admin: Option<SocketAddr>,
    /// Where messages go.
    pub upstream: String,
    /// The configuration file, if any.
    pub config_file: Option<String>,
    /// What reloads came to.
    pub reloads: Reloads,
    /// How far the drain under way has come; null without one.
    pub drain: Option<DrainProgress>,
    /// What the gateway's own prober found, by listener.
    pub probes: Vec<ProbeResult>,
}

/// Every shard's numbers at one time.
#[derive(Clone, Debug)]
pub struct Totals {
    /// In shard order.
    pub shards: Vec<Stats>,
}

impl Totals {
    /// A counter or gauge, summed over the shards.
    #[must_use]
    pub fn get(&self, stat: Stat) -> u64 {
        self.shards.iter().map(|shard| shard.get(stat)).sum()
    }

    /// Drops for one reason, summed over the shards.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.shards.iter().map(|shard| shard.drops(reason)).sum()
    }

    /// Sessions ended for one reason, summed over the shards.
    #[must_use]
    pub fn ends(&self, reason: EndReason) -> u64 {
        self.shards.iter().map(|shard| shard.ends(reason)).sum()
    }
}

/// The driver's name in the API and the metrics.
pub(crate) const fn driver_label(kind: DriverKind) -> &'static str {
    match kind {
        DriverKind::Uring => "uring",
        DriverKind::Epoll => "epoll",
        DriverKind::Sim => "sim",
    }
}

/// The steering's name in the API.
pub(crate) const fn steer_label(steer: Steer) -> &'static str {
    match steer {
        Steer::Conv => "conv",
        Steer::Address => "address",
    }
}

/// Commands that may wait for a shard.
pub(crate) const COMMANDS_MAX: usize = 64;
