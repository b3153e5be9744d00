//! From flags to what they describe.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use kcp_core::{FlushPolicy, KcpConfig};
use net_io::IoChoice;
use netem::LinkConfig;

use super::values::{StormArg, Windows};
use super::{
    DemoArgs, EngineArgs, FlushArg, ImpairArgs, IoArg, KcpArgs, LoadArgs, ProfileArg, ProgressArg,
    RunArgs, UpstreamArg,
};
use crate::convs::ConvChoice;
use crate::demo::Demo;
use crate::impair::Impair;
use crate::progress::ProgressMode;
use crate::scenario::{Load, Protocol, Scenario, Storm, Upstream, profile_game, profile_reference};
use crate::sources::Sources;

/// Why the flags make no scenario.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// A name has no address.
    #[error("{flag} {target}: {reason}; write HOST:PORT, e.g. 127.0.0.1:4000 or [::1]:4000")]
    Target {
        /// `--target` or `--listen`.
        flag: &'static str,
        /// As given.
        target: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No route.
    #[error(
        "--target {target}: this host has no source address towards it ({source}); name one with --sources"
    )]
    Route {
        /// The address.
        target: SocketAddr,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A flag does not fit another one.
    #[error("{flag}: {rule}")]
    Unfit {
        /// The flag.
        flag: &'static str,
        /// What to write.
        rule: String,
    },
    /// A value is out of its limits.
    #[error(transparent)]
    Scenario(#[from] crate::scenario::ScenarioError),
}

impl RunArgs {
    /// The scenario that the flags describe, checked.
    ///
    /// # Errors
    /// The flag, its value, the limit and the fix.
    pub fn scenario(&self) -> Result<Scenario, UsageError> {
        let target = resolve("--target", &self.target)?;
        let sources = match &self.load.sources {
            Some(sources) => sources.clone(),
            None => Sources::single(own_address(target)?),
        };
        let mut scenario = Scenario::new(target, self.load.sessions, sources);
        self.load.apply(&mut scenario);
        self.engine.apply(&mut scenario);
        if let Some(datagram) = self.load.raw {
            let datagram = datagram.unwrap_or(self.load.size + RAW_OVERHEAD);
            scenario.protocol = Protocol::Raw { datagram };
        } else {
            scenario.protocol = Protocol::Kcp(self.kcp.config());
        }
        scenario.checks.clone_from(&self.output.check);
        scenario.validate()?;
        Ok(scenario)
    }
}

impl DemoArgs {
    /// The demo that the flags describe.
    #[must_use]
    pub fn demo(&self) -> Demo {
        Demo {
            sessions: self.sessions,
            load: self.rate.0,
            duration: self.duration,
            io: self.io.choice(),
            shards: self.shards,
            seed: self.seed.unwrap_or_else(crate::seed::fresh),
            checks: self.output.check.clone(),
        }
    }
}

impl ImpairArgs {
    /// The bad network that the flags describe.
    ///
    /// # Errors
    /// An address that is none.
    pub fn impair(&self) -> Result<Impair, UsageError> {
        let listen = resolve("--listen", &self.listen)?;
        let target = resolve("--target", &self.target)?;
        let mut impair = Impair::new(listen, target, own_address(target)?);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        impair.link = LinkConfig {
            loss_ppm: self.loss.0,
            delay_us: micros(self.delay),
            jitter_us: micros(self.jitter),
            reorder_ppm: self.reorder.0,
            reorder_us: micros(self.reorder_by),
            duplicate_ppm: self.duplicate.0,
            corrupt_ppm: self.corrupt.0,
            rate_bits_per_s: self.rate.map_or(0, |rate| rate.0),
            ..LinkConfig::default()
        };
        impair.seed = self.seed.unwrap_or(impair.seed);
        impair.clients_max = self.clients;
        impair.idle_timeout = self.idle_timeout;
        impair.io = self.io.choice();
        Ok(impair)
    }
}

impl LoadArgs {
    fn apply(&self, scenario: &mut Scenario) {
        scenario.traffic.load = match (self.rate, self.outstanding) {
            (Some(super::Rate(load)), _) => load,
            (None, outstanding) => Load::Closed { outstanding: outstanding.unwrap_or(1) },
        };
        scenario.traffic.size = self.size;
        scenario.traffic.upstream = match self.upstream {
            UpstreamArg::Echo => Upstream::Echo,
            UpstreamArg::Stream => Upstream::Stream,
            UpstreamArg::Rooms => Upstream::Rooms,
        };
        scenario.traffic.times = self.times;
        scenario.traffic.reads = self.read_rate.map(|super::Rate(load)| load);
        let phases = &mut scenario.phases;
        phases.ramp = self.ramp.within(self.sessions);
        phases.establish = self.establish_timeout;
        phases.hold = self.hold;
        phases.warmup = self.warmup;
        phases.duration = self.duration;
        phases.drain = self.drain;
        if let Some(sockets) = self.sockets {
            scenario.clients.sockets = sockets;
        }
        scenario.clients.opening_max = self.opening_max;
        scenario.clients.bystanders = self.bystanders;
        scenario.traffic.bystanders = self.bystander_rate.map(|super::Rate(load)| load);
        scenario.storm = self.storm();
        scenario.clients.convs = self.conv_base.map_or(ConvChoice::Random, ConvChoice::Base);
        if let Some(seed) = self.seed {
            scenario.seed = seed;
        }
    }
}

impl LoadArgs {
    fn storm(&self) -> Option<Storm> {
        let (vanish, arrive, within) = match self.storm {
            Some(StormArg { clients, within }) => (clients, clients, within),
            None if self.avalanche => {
                (self.sessions.saturating_sub(self.bystanders), 0, Duration::ZERO)
            }
            None => return None,
        };
        let after = self.storm_after.unwrap_or(self.duration / 2);
        Some(Storm { vanish, arrive, within, after })
    }
}

impl EngineArgs {
    fn apply(&self, scenario: &mut Scenario) {
        let engine = &mut scenario.engine;
        engine.threads = self.threads;
        engine.pin = self.pin.clone().map_or_else(Vec::new, |cores| cores.0);
        engine.io = self.io.choice();
        engine.driver.min_wait_us = self.min_wait_us;
        engine.socket.recv_buffer = self.socket_buffer;
        engine.socket.send_buffer = self.socket_buffer;
        engine.store_bytes = self.store_bytes;
    }
}

impl KcpArgs {
    fn config(&self) -> KcpConfig {
        let mut config = match self.profile {
            ProfileArg::Game => profile_game(),
            ProfileArg::Reference => profile_reference(),
        };
        config.nodelay = self.nodelay.unwrap_or(config.nodelay);
        config.interval = self.interval.unwrap_or(config.interval);
        config.fastresend = self.resend.unwrap_or(config.fastresend);
        config.nocwnd = self.nc.map_or(config.nocwnd, |nc| nc == 1);
        config.mtu = self.mtu.unwrap_or(config.mtu);
        if let Some(Windows { snd, rcv }) = self.window {
            (config.snd_wnd, config.rcv_wnd) = (snd, rcv);
        }
        config.flush = match self.flush {
            None => config.flush,
            Some(FlushArg::Turn) => FlushPolicy::Turn,
            Some(FlushArg::Interval) => FlushPolicy::Interval,
        };
        config
    }
}

impl IoArg {
    const fn choice(self) -> IoChoice {
        match self {
            Self::Auto => IoChoice::Auto,
            Self::Uring => IoChoice::Uring,
            Self::Epoll => IoChoice::Epoll,
        }
    }
}

impl ProgressArg {
    /// The mode of that name.
    #[must_use]
    pub const fn mode(self) -> ProgressMode {
        match self {
            Self::Auto => ProgressMode::Auto,
            Self::Lines => ProgressMode::Lines,
            Self::Off => ProgressMode::Off,
        }
    }
}

/// The first address of `target`.
pub(super) fn resolve(flag: &'static str, target: &str) -> Result<SocketAddr, UsageError> {
    let error = |reason: String| UsageError::Target { flag, target: target.to_owned(), reason };
    let mut addrs = target.to_socket_addrs().map_err(|source| error(source.to_string()))?;
    addrs.next().ok_or_else(|| error("no address".to_owned()))
}

/// The address from which this host would send to `target`: asks the routing table, sends nothing.
fn own_address(target: SocketAddr) -> Result<IpAddr, UsageError> {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    UdpSocket::bind(any)
        .and_then(|socket| {
            socket.connect(target)?;
            socket.local_addr()
        })
        .map(|addr| addr.ip())
        .map_err(|source| UsageError::Route { target, source })
}

/// A datagram that carries a message and the acknowledgement of another has two headers.
const RAW_OVERHEAD: usize = 2 * kcp_core::wire::HEADER_LEN;
