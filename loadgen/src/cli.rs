//! The command line: what each flag means, and how the flags become a checked [`Scenario`].

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kcp_core::{FlushPolicy, KcpConfig};
use net_io::IoChoice;
use netem::LinkConfig;

use crate::check::Check;
use crate::convs::ConvChoice;
use crate::demo::Demo;
use crate::impair::Impair;
use crate::progress::ProgressMode;
use crate::scenario::{Load, Protocol, Scenario, profile_game, profile_reference};
use crate::sources::Sources;

/// Real KCP sessions against a KCP server, with honest latency figures.
///
/// Exit codes: 0 sound, 1 failed (messages lost, duplicated, out of order or damaged, sessions not established, or the run
/// could not be made), 2 bad usage, 3 sound but a --check is not met.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Loads a KCP server that echoes messages, and says how fast it was
    Run(Box<RunArgs>),
    /// A gateway and a load in one process: nothing to set up
    Demo(DemoArgs),
    /// A bad network: forwards the datagrams of any UDP clients to a server, and loses, delays, reorders some
    Impair(ImpairArgs),
}

/// `kcp-loadgen impair`. Everything applies to both directions, each with its own dice.
#[derive(Debug, Args)]
pub struct ImpairArgs {
    /// Where clients send, HOST:PORT; port 0 takes a free one and prints it
    #[arg(long, value_name = "ADDR")]
    pub listen: String,
    /// The server, HOST:PORT
    #[arg(long, value_name = "ADDR")]
    pub target: String,
    /// Datagrams lost
    #[arg(long, value_name = "P%", default_value = "0%")]
    pub loss: Chance,
    /// Time on the way
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration)]
    pub delay: Duration,
    /// At most so much longer on the way, evenly distributed; the order is kept
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration)]
    pub jitter: Duration,
    /// Datagrams held back so that later ones overtake them
    #[arg(long, value_name = "P%", default_value = "0%")]
    pub reorder: Chance,
    /// How long those are held back
    #[arg(long, default_value = "10ms", value_parser = humantime::parse_duration)]
    pub reorder_by: Duration,
    /// Datagrams that arrive twice
    #[arg(long, value_name = "P%", default_value = "0%")]
    pub duplicate: Chance,
    /// Datagrams that arrive with one bit flipped
    #[arg(long, value_name = "P%", default_value = "0%")]
    pub corrupt: Chance,
    /// Bits per second of all clients together: 512kbit, 10mbit, 1gbit [default: no limit]
    #[arg(long)]
    pub rate: Option<BitRate>,
    /// Makes the dice repeatable [default: random, printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Clients at once; each has a socket of its own towards the server
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..=65_534))]
    pub clients: u16,
    /// A client silent for this long is forgotten
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub idle_timeout: Duration,
    /// End after this time [default: at SIGINT or SIGTERM]
    #[arg(long, value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// How datagrams are moved
    #[arg(long, default_value = "auto")]
    pub io: IoArg,
}

/// A percentage, in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chance(pub u32);

/// Bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitRate(pub u64);

/// `kcp-loadgen demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Sessions
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub sessions: u32,
    /// Messages per second per session
    #[arg(long, value_name = "R", default_value = "2", value_parser = parse_rate)]
    pub rate: Rate,
    /// How long to measure
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// How datagrams are moved, by the gateway and by the load
    #[arg(long, default_value = "auto")]
    pub io: IoArg,
    /// The gateway's shards [default: one per core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub shards: Option<u16>,
    /// Makes the run repeatable [default: random, printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Where the results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `kcp-loadgen run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The server, HOST:PORT
    #[arg(long, value_name = "ADDR")]
    pub target: String,
    /// What the sessions are and do.
    #[command(flatten)]
    pub load: LoadArgs,
    /// How this process does it.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// The protocol's settings.
    #[command(flatten)]
    pub kcp: KcpArgs,
    /// Where the results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What the sessions are and do.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub struct LoadArgs {
    /// Sessions
    #[arg(long, default_value_t = 100)]
    pub sessions: u32,
    /// Open loop: messages per second per session, sent on schedule whatever comes back; 0 = idle after the first message
    #[arg(long, value_name = "R", conflicts_with = "outstanding", value_parser = parse_rate)]
    pub rate: Option<Rate>,
    /// Closed loop: messages kept on the way per session [default: 1, when --rate is not given]
    #[arg(long, value_name = "K")]
    pub outstanding: Option<u32>,
    /// Bytes per message, 1 and more; from 24 bytes on each message carries session, sequence, time and checksum
    #[arg(long, default_value_t = 64)]
    pub size: usize,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Load before the measurement
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub warmup: Duration,
    /// Start of the sessions: all within a time (10s), or so many per second (20000/s)
    #[arg(long, default_value = "10000/s")]
    pub ramp: RampArg,
    /// Silence between the ramp and the load
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub hold: Duration,
    /// How long to wait after the ramp until every session is established
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub establish_timeout: Duration,
    /// How long to wait at the end for echoes still on the way
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub drain: Duration,
    /// UDP sockets that the sessions share [default: one per session, 64 at most]
    #[arg(long)]
    pub sockets: Option<u32>,
    /// Source addresses, in turn: ADDR, FIRST-LAST, FIRST+COUNT, ADDR/PREFIX, joined by commas [default: the host's choice]
    #[arg(long, value_name = "ADDRS")]
    pub sources: Option<Sources>,
    /// Session n gets conversation id N + n
    #[arg(long, value_name = "N", conflicts_with = "conv_random")]
    pub conv_base: Option<u32>,
    /// Distinct conversation ids without pattern (the default)
    #[arg(long)]
    pub conv_random: bool,
    /// Makes the run repeatable [default: random, printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Plain datagrams instead of KCP, of the size KCP's would have (the message and two 24-byte headers) or of BYTES
    #[arg(long, value_name = "BYTES", num_args = 0..=1, require_equals = true)]
    pub raw: Option<Option<usize>>,
}

/// How this process does it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine")]
pub struct EngineArgs {
    /// Worker threads
    #[arg(long, default_value_t = 1)]
    pub threads: u32,
    /// Cores to pin the workers to, in turn, e.g. 1 or 2,4-7
    #[arg(long, value_name = "CORES")]
    pub pin: Option<Cores>,
    /// How datagrams are moved
    #[arg(long, default_value = "auto")]
    pub io: IoArg,
    /// Receive and send buffer of each socket, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    pub socket_buffer: usize,
    /// Most bytes that all sessions together may hold queued or in flight
    #[arg(long, value_name = "BYTES", default_value_t = 2 << 30)]
    pub store_bytes: usize,
    /// Microseconds to gather datagrams after the first of a turn; fewer system calls, later answers
    #[arg(long, value_name = "US", default_value_t = 0)]
    pub min_wait_us: u32,
}

/// The protocol's settings.
#[derive(Debug, Args)]
#[command(next_help_heading = "KCP")]
pub struct KcpArgs {
    /// Where the settings below start from: game (nodelay 1, 10 ms, resend 2, nc, windows 256) or reference (the C library's)
    #[arg(long, default_value = "game")]
    pub profile: ProfileArg,
    /// 0 = normal, 1 or 2 = faster retransmission
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=2))]
    pub nodelay: Option<u32>,
    /// Flush interval in milliseconds
    #[arg(long, value_name = "MS")]
    pub interval: Option<u32>,
    /// Resend after so many later acknowledgements, 0 = never
    #[arg(long, value_name = "N")]
    pub resend: Option<u32>,
    /// 1 = no congestion window, 0 = with
    #[arg(long, value_name = "0|1", value_parser = clap::value_parser!(u8).range(0..=1))]
    pub nc: Option<u8>,
    /// Send and receive window in segments
    #[arg(long, value_name = "SND,RCV")]
    pub window: Option<Windows>,
    /// Largest datagram in bytes
    #[arg(long)]
    pub mtu: Option<u32>,
    /// When output leaves: at the end of the turn that made it, or every interval as in the C library
    #[arg(long)]
    pub flush: Option<FlushArg>,
}

/// Where the results go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Results")]
pub struct OutputArgs {
    /// Write the results as one JSON object
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// What must hold, else exit 3; repeatable: 'p99<50ms' 'service.max<=1s' 'loss<0.1%' 'messages_per_s>1000'
    #[arg(long, value_name = "EXPR")]
    pub check: Vec<Check>,
    /// Progress on standard error
    #[arg(long, default_value = "auto")]
    pub progress: ProgressArg,
}

/// `--io`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum IoArg {
    /// io_uring if the host allows it, else epoll
    Auto,
    /// io_uring or fail
    Uring,
    /// epoll
    Epoll,
}

/// `--profile`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ProfileArg {
    /// Latency first
    Game,
    /// The C library's defaults
    Reference,
}

/// `--flush`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FlushArg {
    /// At the end of the turn
    Turn,
    /// Every interval
    Interval,
}

/// `--progress`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ProgressArg {
    /// A bar on a terminal, else lines
    Auto,
    /// One line a second
    Lines,
    /// Nothing
    Off,
}

/// `--rate`: the time between two messages of a session, or none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(pub Load);

/// `--ramp`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RampArg {
    /// All within this time.
    Within(Duration),
    /// So many per second.
    PerSecond(f64),
}

/// `--pin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores(pub Vec<usize>);

/// `--window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Send window in segments.
    pub snd: u32,
    /// Receive window in segments.
    pub rcv: u32,
}

/// A flag's value that cannot be understood: the value is quoted by clap, this says what to write.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(&'static str);

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
            (Some(Rate(load)), _) => load,
            (None, outstanding) => Load::Closed { outstanding: outstanding.unwrap_or(1) },
        };
        scenario.traffic.size = self.size;
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
        scenario.clients.convs = self.conv_base.map_or(ConvChoice::Random, ConvChoice::Base);
        if let Some(seed) = self.seed {
            scenario.seed = seed;
        }
    }
}

impl EngineArgs {
    fn apply(&self, scenario: &mut Scenario) {
        let engine = &mut scenario.engine;
        engine.threads = self.threads;
        engine.pin = self.pin.clone().map_or_else(Vec::new, |Cores(cores)| cores);
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

impl RampArg {
    fn within(self, sessions: u32) -> Duration {
        match self {
            Self::Within(time) => time,
            Self::PerSecond(rate) => Duration::from_secs_f64((f64::from(sessions) / rate).min(1e9)),
        }
    }
}

impl FromStr for RampArg {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = ValueError("write a time (10s) or a rate per second (20000/s)");
        match text.strip_suffix("/s") {
            Some(rate) => match rate.trim().parse::<f64>() {
                Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Self::PerSecond(rate)),
                _ => Err(error),
            },
            None => humantime::parse_duration(text).map(Self::Within).map_err(|_| error),
        }
    }
}

impl FromStr for Cores {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError("write core numbers and ranges, e.g. 1 or 2,4-7");
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|n| *n < CORES_MAX);
        let mut cores = Vec::new();
        for piece in text.split(',') {
            let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
            let (first, last) = (number(first).ok_or_else(error)?, number(last).ok_or_else(error)?);
            if last < first {
                return Err(error());
            }
            cores.extend(first..=last);
        }
        Ok(Self(cores))
    }
}

impl FromStr for Windows {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError("write the send and the receive window, e.g. 256,256");
        let (snd, rcv) = text.split_once(',').ok_or_else(error)?;
        let number = |text: &str| text.trim().parse().map_err(|_| error());
        Ok(Self { snd: number(snd)?, rcv: number(rcv)? })
    }
}

impl FromStr for Chance {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let percent =
            text.trim().strip_suffix('%').and_then(|text| text.trim().parse::<f64>().ok());
        match percent {
            Some(percent) if (0.0..=100.0).contains(&percent) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "0 to 1,000,000"
                )]
                let ppm = (percent * 10_000.0).round() as u32;
                Ok(Self(ppm))
            }
            _ => Err(ValueError("write a percentage, e.g. 5% or 0.1%")),
        }
    }
}

impl FromStr for BitRate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let units = [("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000_u64)];
        units
            .into_iter()
            .find_map(|(unit, scale)| Some((text.trim().strip_suffix(unit)?, scale)))
            .and_then(|(number, scale)| number.trim().parse::<u64>().ok()?.checked_mul(scale))
            .filter(|rate| *rate > 0)
            .map(Self)
            .ok_or(ValueError("write a whole number and kbit, mbit or gbit, e.g. 10mbit"))
    }
}

fn parse_rate(text: &str) -> Result<Rate, ValueError> {
    let error = ValueError("write messages per second per session, e.g. 0.1 or 10; 0 = idle");
    match text.parse::<f64>() {
        Ok(0.0) => Ok(Rate(Load::Idle)),
        Ok(rate) if (RATE_MIN..=1e9).contains(&rate) => {
            Ok(Rate(Load::Open { period: Duration::from_secs_f64(1.0 / rate) }))
        }
        _ => Err(error),
    }
}

/// The first address of `target`.
fn resolve(flag: &'static str, target: &str) -> Result<SocketAddr, UsageError> {
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
/// Once in eleven days; the schedule's own limit is once a week.
const RATE_MIN: f64 = 1.0 / (7.0 * 86_400.0);
const CORES_MAX: usize = 65_536;

#[cfg(test)]
mod tests;
