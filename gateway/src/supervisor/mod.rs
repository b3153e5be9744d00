//! Starts the shards in the one order that works, holds their threads, ends them.
//!
//! The order: bind every group whole, attach steering after the last bind (a group's indices are its bind order), build
//! each driver on its own pinned thread (a ring belongs to its thread), tell every shard how to wake the others, and only
//! then receive.

pub(crate) mod life;
mod threads;
mod upstream;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, after, bounded, never, select, tick};
use net_io::socket::BindError;
use net_io::steer::Steering;
use net_io::{DriverConfig, Probe, SocketOptions, UdpSocket, heap};

use crate::config::{Config, Listener, Source, Steer};
use crate::control::command::ShardCommand;
use crate::control::nats::NatsThread;
use crate::control::plane::{
    BoundListener, COMMANDS_MAX, CommandError, Plane, ShardLink, Status, Totals, steer_label,
};
use crate::control::reload::{Change, ReloadError, Reloadable};
use crate::control::thread::{ControlThread, Duties};
use crate::error::{ShardFailure, StartError};
use crate::shard::backend_stats::SharedBackendStats;
use crate::shard::stats::SharedStats;
use crate::shard::{Handoff, Upstream};
use crate::sizing::{Host, Sizes};
use crate::upstream::nats::stats::NatsStats;
use life::{Life, Lifecycle};
use threads::Part;
use upstream::Wiring;

/// A running gateway. Dropping it stops it.
#[derive(Debug)]
pub struct Gateway {
    plane: Arc<Plane>,
    shards: Vec<JoinHandle<()>>,
    control: Option<ControlThread>,
    nats: Option<NatsThread>,
    listen_addrs: Vec<SocketAddr>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// The last session ended by itself.
    Empty,
    /// Time was up.
    TimedOut,
    /// Somebody had no patience.
    Interrupted,
    /// A shard died meanwhile.
    Failed,
}

impl Gateway {
    /// Starts a gateway; it serves when this returns. It cannot be reloaded, having nothing to read again.
    ///
    /// # Errors
    /// As [`StartError`]; nothing is left running.
    pub fn start(config: Config) -> Result<Self, StartError> {
        config.check()?;
        start(config, None)
    }

    /// Starts a gateway that can be reloaded from `source`, which `config` was loaded from.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn start_with(config: Config, source: Source) -> Result<Self, StartError> {
        config.check()?;
        start(config, Some(source))
    }

    /// What its threads share.
    pub(crate) fn plane(&self) -> Arc<Plane> {
        Arc::clone(&self.plane)
    }

    /// The UDP addresses as bound, in the order of the configuration.
    #[must_use]
    pub fn listen_addrs(&self) -> &[SocketAddr] {
        &self.listen_addrs
    }

    /// The admin server's address as bound.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.plane.admin
    }

    /// The driver in use and why.
    #[must_use]
    pub fn driver(&self) -> &Probe {
        &self.plane.probe
    }

    /// The gateway at a glance.
    #[must_use]
    pub fn status(&self) -> Status {
        self.plane.status()
    }

    /// Every shard's numbers.
    #[must_use]
    pub fn stats(&self) -> Totals {
        self.plane.totals()
    }

    /// The connection to NATS, if the configuration asks for one.
    #[must_use]
    pub fn nats(&self) -> Option<&NatsStats> {
        self.plane.nats()
    }

    /// The first shard that died, if any did.
    #[must_use]
    pub fn failure(&self) -> Option<ShardFailure> {
        self.plane.life.failure()
    }

    /// Delivers the failure of a shard to one waiter, once.
    #[must_use]
    pub fn failures(&self) -> &Receiver<ShardFailure> {
        self.plane.life.failures()
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.plane.current().config)
    }

    /// Refuses new sessions; live ones go on.
    ///
    /// # Errors
    /// The gateway stops already, or a shard does not take the command; the others have it.
    pub fn drain(&self) -> Result<(), CommandError> {
        self.plane.drain()
    }

    /// Admits new sessions again.
    ///
    /// # Errors
    /// As [`Gateway::drain`].
    pub fn undrain(&self) -> Result<(), CommandError> {
        self.plane.undrain()
    }

    /// Reads the configuration's sources again and applies what changed, all or nothing. Returns what changed.
    ///
    /// # Errors
    /// As [`ReloadError`]; the configuration in force stays.
    pub fn reload(&self) -> Result<Vec<Change>, ReloadError> {
        self.plane.reload()
    }

    /// Ends all sessions and threads now. Returns the final numbers.
    #[must_use = "the final numbers; drop the gateway if they do not matter"]
    pub fn stop(mut self) -> Totals {
        self.shut_down();
        self.plane.totals()
    }

    /// Refuses new sessions, waits until the live ones have ended or `deadline` has passed, then stops.
    #[must_use = "whether sessions were cut off, and the final numbers"]
    pub fn drain_and_stop(self, deadline: Duration) -> (Drained, Totals) {
        let drained = self.drain_within(deadline, &never::<()>());
        (drained, self.stop())
    }

    /// Drains until empty, `deadline` or a message on `interrupt`.
    pub(crate) fn drain_within<T>(&self, deadline: Duration, interrupt: &Receiver<T>) -> Drained {
        if let Err(error) = self.drain() {
            // A dead or stuck shard cannot drain, the others do.
            tracing::warn!(%error, "drain");
        }
        self.plane.drain_ends(deadline);
        let (deadline, check, report) = (after(deadline), tick(DRAIN_CHECK), tick(DRAIN_REPORT));
        loop {
            if self.failure().is_some() {
                return Drained::Failed;
            }
            if self.plane.is_drained() {
                return Drained::Empty;
            }
            select! {
                recv(interrupt) -> _ => return Drained::Interrupted,
                recv(self.failures()) -> _ => {}
                recv(deadline) -> _ => return Drained::TimedOut,
                recv(check) -> _ => {}
                recv(report) -> _ => self.report_drain(),
            }
        }
    }

    fn report_drain(&self) {
        if let Some(drain) = self.plane.drain_progress() {
            let (left, before) = (drain.sessions_left, drain.sessions_before);
            tracing::info!(sessions_left = left, before, ends_in_s = drain.ends_in_s, "draining");
        }
    }

    fn shut_down(&mut self) {
        let from = [Lifecycle::Start, Lifecycle::Serve, Lifecycle::Drain];
        if self.plane.life.advance(&from, Lifecycle::Stop).is_err() {
            return;
        }
        self.plane.stop();
        for shard in self.shards.drain(..) {
            // A panic was caught and recorded on the thread itself.
            let _ = shard.join();
        }
        // After the shards, which may have had something to say.
        if let Some(nats) = self.nats.take() {
            nats.stop();
        }
        // Last, so that the end of a long stop can be watched.
        if let Some(control) = self.control.take() {
            control.stop();
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn start(config: Config, source: Option<Source>) -> Result<Gateway, StartError> {
    heap::return_large_pieces(); // or the sessions of a past peak would stay in it
    let sizes = Sizes::of(&config, &Host::look());
    let probe = probe(&config)?;
    let (config, absent, groups) = bind_all(config, usize::from(sizes.shards))?;
    let mut listeners = describe(&config, &groups);
    let listen_addrs: Vec<_> = listeners.iter().map(|listener| listener.addr).collect();
    let steering = steer_all(&config, &groups, &sizes)?;
    for (listener, steering) in listeners.iter_mut().zip(&steering) {
        listener.steering = *steering;
    }
    let door = config.admin.listen.map(bind_admin).transpose()?;
    let admin_addr = door.as_ref().and_then(|door| door.local_addr().ok());
    let (connections_max, spare_core) = (config.admin.connections_max, sizes.spare_core);

    let life = Arc::new(Life::new());
    let wired = Wiring::new(&config, &sizes, listen_addrs.clone(), random()?);
    let (wiring, service) = wired.unzip();
    let bridge = upstream::Bridging::new(&config, &sizes, &listen_addrs)?;
    let outward = Outward { wiring: wiring.as_ref(), bridge: bridge.as_ref() };
    let (parts, links) = parts(&config, &sizes, &probe, groups, &steering, outward)?;
    // From here on the shards alone hold the way back.
    drop(wiring);
    let built = threads::build(parts, &life)?;
    let links = links.into_iter().zip(built.wakers.clone());
    let links = links.map(|(LinkHalf { core, commands, stats, backend_stats }, waker)| ShardLink {
        core,
        commands,
        waker,
        stats,
        backend_stats,
    });
    let plane = Arc::new(Plane::new(
        Arc::clone(&life),
        probe,
        listeners,
        admin_addr,
        source.map(|source| Reloadable { source, absent }),
        links.collect(),
        service.as_ref().map(|service| Arc::clone(&service.directory)),
        bridge.as_ref().map(upstream::Bridging::stats),
        config,
        sizes,
    ));
    // Before anything is received, so that whoever asks meanwhile hears that the gateway starts.
    let duties = Duties { door: door.map(|door| (door, connections_max)), service };
    let control = match ControlThread::start(Arc::clone(&plane), duties, spare_core) {
        Ok(control) => control,
        Err(error) => {
            built.abandon();
            return Err(error);
        }
    };
    let nats = match bridge.map(|bridge| bridge.start(built.wakers.clone())).transpose() {
        Ok(nats) => nats,
        Err(error) => {
            built.abandon();
            if let Some(control) = control {
                control.stop();
            }
            return Err(error);
        }
    };
    let (shards, outcome) = built.serve();
    let gateway = Gateway { plane, shards, control, nats, listen_addrs };
    outcome?;
    // Fails only if a shard died in between, which the state of life shows.
    let _ = life.advance(&[Lifecycle::Start], Lifecycle::Serve);
    Ok(gateway)
}

/// Picks the driver on a thread of its own: a ring's teardown interrupts later system calls of the thread that had it
/// (seen on Linux 6.18: EINTR from a receive with a timeout), and the caller's thread is not ours to disturb.
fn probe(config: &Config) -> Result<Probe, StartError> {
    let driver = config.io.to_driver();
    let run = || Probe::run(config.io.driver, &driver);
    let name = "kcp-probe".to_owned();
    let failed = |source| StartError::Thread { thread: "kcp-probe".into(), source };
    let outcome = thread::scope(|scope| {
        let probing = thread::Builder::new().name(name).spawn_scoped(scope, run)?;
        probing.join().map_err(|_| io::Error::other("it panicked"))
    });
    Ok(outcome.map_err(failed)??)
}

/// Binds a group per listener, one socket per shard. An optional listener that this host cannot have is left out of the
/// configuration and named apart.
fn bind_all(mut config: Config, shards: usize) -> Result<Bound, StartError> {
    let options = config.io.to_socket();
    let (mut groups, mut kept, mut absent) = (Vec::new(), Vec::new(), Vec::new());
    for listener in std::mem::take(&mut config.listeners) {
        match bind(listener.addr, shards, &options) {
            Ok(group) => {
                groups.push(group);
                kept.push(listener);
            }
            Err(error) if listener.optional && is_unknown_family(&error.source) => {
                tracing::warn!(addr = %listener.addr, error = %error.source, "this host has no IPv6; serving without");
                absent.push(listener.addr);
            }
            Err(error) => return Err(error.into()),
        }
    }
    if kept.is_empty() {
        return Err(StartError::NoListener);
    }
    config.listeners = kept;
    Ok((config, absent, groups))
}

/// A gateway that was killed keeps its ports until the kernel has taken its rings apart, some moments after the process has gone:
/// its successor gives it those.
#[expect(clippy::disallowed_methods, reason = "nothing tells when a port is free")]
fn bind(
    addr: SocketAddr,
    shards: usize,
    options: &SocketOptions,
) -> Result<Vec<UdpSocket>, BindError> {
    let mut tries = BIND_TRIES;
    loop {
        tries -= 1;
        match UdpSocket::bind_group(addr, shards, options) {
            Err(error) if error.source.kind() == io::ErrorKind::AddrInUse && tries > 0 => {
                thread::sleep(BIND_AGAIN);
            }
            bound => return bound,
        }
    }
}

fn is_unknown_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn describe(config: &Config, groups: &[Vec<UdpSocket>]) -> Vec<BoundListener> {
    let describe = |(listener, group): (&Listener, &Vec<UdpSocket>)| {
        let socket = group.first();
        let addr = socket.and_then(|s| s.local_addr().ok()).unwrap_or(listener.addr);
        let sizes = socket.and_then(|s| s.buffer_sizes().ok()).unwrap_or_default();
        let (recv_buffer_bytes, send_buffer_bytes) = sizes;
        let steer = steer_label(config.kcp_of(listener).steer);
        if recv_buffer_bytes < config.io.recv_buffer_bytes as usize {
            tracing::warn!(
                %addr, granted = recv_buffer_bytes, wanted = config.io.recv_buffer_bytes,
                "small receive buffer; bursts will be lost: sysctl -w net.core.rmem_max={}",
                config.io.recv_buffer_bytes
            );
        }
        BoundListener { addr, steering: None, steer, recv_buffer_bytes, send_buffer_bytes }
    };
    config.listeners.iter().zip(groups).map(describe).collect()
}

/// One steering function for all listeners that steer by conversation, attached to each group.
fn steer_all(
    config: &Config,
    groups: &[Vec<UdpSocket>],
    sizes: &Sizes,
) -> Result<Vec<Option<Steering>>, StartError> {
    // Random, so that a peer that chooses its conversation number cannot aim at one shard.
    let multiplier = getrandom::u32().map_err(StartError::Random)?;
    let steering = Steering::new(multiplier, u32::from(sizes.shards));
    let mut all = Vec::new();
    for (listener, group) in config.listeners.iter().zip(groups) {
        all.push(match config.kcp_of(listener).steer {
            Steer::Address => None,
            Steer::Conv => {
                if let Some(socket) = group.first() {
                    steering
                        .attach(socket)
                        .map_err(|source| StartError::Steer { addr: listener.addr, source })?;
                }
                Some(steering)
            }
        });
    }
    Ok(all)
}

fn bind_admin(addr: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|source| StartError::Admin { addr, source })
}

type Bound = (Config, Vec<SocketAddr>, Vec<Vec<UdpSocket>>);

/// The control plane's end of a shard that does not run yet.
struct LinkHalf {
    core: Option<usize>,
    commands: Sender<ShardCommand>,
    stats: SharedStats,
    backend_stats: SharedBackendStats,
}

/// Where messages go, before the shards have their parts of it.
#[derive(Clone, Copy)]
struct Outward<'a> {
    wiring: Option<&'a Wiring>,
    bridge: Option<&'a upstream::Bridging>,
}

impl Outward<'_> {
    fn for_shard(self, index: usize, stats: SharedBackendStats) -> Upstream {
        match (self.wiring, self.bridge) {
            (Some(wiring), _) => wiring.for_shard(stats),
            (None, Some(bridge)) => bridge.for_shard(index),
            (None, None) => Upstream::Echo,
        }
    }
}

/// What each shard starts with, and the control plane's end of it.
fn parts(
    config: &Config,
    sizes: &Sizes,
    probe: &Probe,
    groups: Vec<Vec<UdpSocket>>,
    steering: &[Option<Steering>],
    outward: Outward<'_>,
) -> Result<(Vec<Part>, Vec<LinkHalf>), StartError> {
    let shards = usize::from(sizes.shards);
    let policy = sizes.policy(config);
    let handoff = config.shards.handoff as usize;
    let mesh = Handoff::mesh(shards, handoff, usize::from(config.io.datagram_max));
    let mut groups: Vec<_> = groups.into_iter().map(Vec::into_iter).collect();
    let mut parts = Vec::new();
    let mut links = Vec::new();
    for (index, handoff) in mesh.into_iter().enumerate() {
        let (sender, commands) = bounded(COMMANDS_MAX);
        let (stats, backend_stats) = (SharedStats::default(), SharedBackendStats::default());
        let core = sizes.cores[index];
        links.push(LinkHalf {
            core,
            commands: sender,
            stats: stats.clone(),
            backend_stats: backend_stats.clone(),
        });
        parts.push(Part {
            index,
            core,
            kind: probe.kind,
            driver: DriverConfig {
                streams: outward.wiring.map(Wiring::streams),
                ..config.io.to_driver()
            },
            sockets: groups.iter_mut().filter_map(Iterator::next).collect(),
            steering: steering.to_vec(),
            policy: Arc::clone(&policy),
            store_bytes_max: sizes.store_bytes_per_shard,
            seed: random()?,
            secret: [random()?, random()?],
            commands,
            stats,
            handoff,
            upstream: outward.for_shard(index, backend_stats),
        });
    }
    Ok((parts, links))
}

fn random() -> Result<u64, StartError> {
    getrandom::u64().map_err(StartError::Random)
}

/// How often a port that is taken is tried, and how long after the last time: two seconds in all.
const BIND_TRIES: usize = 40;
const BIND_AGAIN: Duration = Duration::from_millis(50);
/// How often a drain looks whether the last session has ended.
const DRAIN_CHECK: Duration = Duration::from_millis(50);
/// How often the log tells how far it is.
const DRAIN_REPORT: Duration = Duration::from_secs(10);
/// Linux's number for "address family not supported", on every architecture.
const EAFNOSUPPORT: i32 = 97;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Auto;
    use crate::control::signals::Signals;
    use crate::metrics::Metrics;
    use net_io::IoChoice;

    fn gateway() -> Gateway {
        let listeners = vec![Listener::new("127.0.0.1:0".parse().unwrap())];
        let mut config = Config { listeners, ..Config::default() };
        config.admin.listen = None;
        config.shards.count = Auto::Exactly(2);
        config.shards.pin = false;
        config.io.driver = IoChoice::Epoll;
        Gateway::start(config).unwrap()
    }

    #[test]
    fn a_dead_shard_is_seen_everywhere_and_ends_the_process() {
        let gateway = gateway();
        assert_eq!(gateway.plane.life.not_ready(), None);
        let failure = ShardFailure { shard: 1, cause: "panic: gone".into() };
        gateway.plane.life.fail(failure.clone());
        assert_eq!(gateway.status().not_ready.as_deref(), Some("shard 1 ended: panic: gone"));
        let metrics = Metrics::new(Arc::clone(&gateway.plane)).unwrap().render().unwrap();
        for line in [
            "kcp_gateway_shard_up{shard=\"0\"} 1\n",
            "kcp_gateway_shard_up{shard=\"1\"} 0\n",
            "kcp_gateway_ready 0\n",
        ] {
            assert!(metrics.contains(line), "{line}{metrics}");
        }
        assert_eq!(
            gateway.drain_within(Duration::from_secs(3600), &never::<()>()),
            Drained::Failed
        );
        // The news was taken by nobody who waits for it: it still ends the service.
        gateway.plane.life.fail(failure.clone());
        assert_eq!(Signals::catch().unwrap().serve(gateway, None), Err(failure));
    }

    #[test]
    fn a_shard_that_takes_no_commands_is_named() {
        let gateway = gateway();
        let stopped = gateway.plane.life.advance(&[Lifecycle::Serve], Lifecycle::Stop);
        assert_eq!(stopped, Ok(Lifecycle::Serve));
        assert_eq!(gateway.drain(), Err(CommandError::State(Lifecycle::Stop)));
        gateway.plane.stop();
        let refused = loop {
            // Until the threads are gone, the queue takes what nobody will read.
            match gateway.plane.command(|| ShardCommand::Undrain) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, CommandError::Dead(_) | CommandError::Stuck(_)), "{refused}");
    }
}
