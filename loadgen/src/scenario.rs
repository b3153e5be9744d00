//! What a run does: plain data, checked once, shared by all workers.

use std::net::SocketAddr;
use std::time::Duration;

use kcp_core::{FlushPolicy, KcpConfig};
use net_io::{DriverConfig, IoChoice, SocketOptions};

use crate::check::Check;
use crate::convs::ConvChoice;
use crate::payload;
use crate::sources::Sources;

/// A whole run. [`Scenario::new`] gives the defaults; every field may be changed before [`run`](crate::run).
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Where the sessions go.
    pub target: SocketAddr,
    /// Who they are.
    pub clients: Clients,
    /// What they say.
    pub traffic: Traffic,
    /// When.
    pub phases: Phases,
    /// What upsets them in the middle of the measured time (default nothing).
    pub storm: Option<Storm>,
    /// What they speak.
    pub protocol: Protocol,
    /// How this process does it.
    pub engine: Engine,
    /// Everything random in the run is a function of this.
    pub seed: u64,
    /// What must hold at the end.
    pub checks: Vec<Check>,
}

/// The sessions and where they come from.
#[derive(Clone, Debug)]
pub struct Clients {
    /// How many (default 100).
    pub sessions: u32,
    /// UDP sockets they share, session `n` on socket `n mod sockets` of its worker (default: one per session, 64 at most).
    pub sockets: u32,
    /// Addresses the sockets are bound to in turn (default: the one this host would use towards the target).
    pub sources: Sources,
    /// How conversation ids are chosen (default random).
    pub convs: ConvChoice,
    /// Sessions whose latency is reported on its own as well: before a storm, in it, after it (default none).
    pub bystanders: u32,
    /// Sessions that may be started and not yet established, so that a target which falls behind, or a busy machine, is not
    /// buried under the retransmissions of those that wait (default 10,000). A start that waits for this is late, and
    /// its lateness is in `connect_us`.
    pub opening_max: u32,
}

/// The messages.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// When a session sends (default closed loop, one outstanding).
    pub load: Load,
    /// When a bystander sends (default as all others).
    pub bystanders: Option<Load>,
    /// Bytes of each message (default 64).
    pub size: usize,
    /// What the target's upstream does with them (default echo).
    pub upstream: Upstream,
    /// An answer is the message this many times over, in one message (default 1).
    pub times: u32,
    /// How often the application of a session that is no bystander takes a message, until the load ends; then it takes all. Until
    /// then its receive window closes as others come (default: all are taken as they come).
    pub reads: Option<Load>,
    /// How long after its time a message's echo is still worth something; what comes later does not count as in time (default
    /// for ever).
    pub deadline: Option<Duration>,
    /// Open loop: segments a session may have queued or in flight before further messages are not sent but counted as
    /// throttled (default 1024). Bounds this process's memory when the target is too slow.
    pub backlog_max: usize,
}

impl Traffic {
    /// Whether anybody sends by schedule.
    pub(crate) fn is_open(&self) -> bool {
        let is_open = |load: &Load| matches!(load, Load::Open { .. });
        is_open(&self.load) || self.bystanders.as_ref().is_some_and(is_open)
    }
}

/// What the target's upstream does with messages, and so what can be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Upstream {
    /// Each comes back as it is.
    Echo,
    /// Their bytes come back in order, but cut anywhere: framing `none`.
    Stream,
    /// Each comes back as it is, and so do others' of the same run.
    Rooms,
}

/// Clients that vanish at once, and others that come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storm {
    /// Sessions that vanish without a word, none of them a bystander.
    pub vanish: u32,
    /// New sessions, with conversation ids of their own.
    pub arrive: u32,
    /// They arrive within this time, evenly.
    pub within: Duration,
    /// When, from the beginning of the measured time.
    pub after: Duration,
}

/// When a session sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// Never, after the first message.
    Idle,
    /// When an echo comes, keeping this many on the way.
    Closed {
        /// Messages on the way per session.
        outstanding: u32,
    },
    /// By schedule, whatever comes back.
    Open {
        /// Time between two messages of a session.
        period: Duration,
    },
}

/// The stages of a run, in order.
#[derive(Clone, Debug)]
pub struct Phases {
    /// All sessions start within this time, evenly (default: 10,000 a second).
    pub ramp: Duration,
    /// The ramp ends when all are established, or when for this long none was (default 10 s).
    pub establish: Duration,
    /// Silence between the ramp and the load (default none).
    pub hold: Duration,
    /// Load that is not measured (default 1 s).
    pub warmup: Duration,
    /// Load that is measured (default 10 s).
    pub duration: Duration,
    /// How long to wait at the end for echoes still on the way (default 10 s).
    pub drain: Duration,
}

/// What is on the wire.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// KCP with these settings.
    Kcp(KcpConfig),
    /// Plain datagrams of this many bytes, echoed as they are: the limit that KCP is compared with. No retransmission, so a
    /// datagram lost on the way fails the run.
    Raw {
        /// Bytes of each datagram, 28 and more.
        datagram: usize,
    },
}

/// This process's side.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Worker threads, each with its own driver and share of the sessions (default 1).
    pub threads: u32,
    /// Cores that worker `n` is pinned to in turn; empty = not pinned (default).
    pub pin: Vec<usize>,
    /// The driver (default auto).
    pub io: IoChoice,
    /// Its settings. It sends no trains: a train is steered by its first datagram, and only a load generator mixes sessions in one.
    /// It takes those of the target whole: cutting them is the receiver's work, and over loopback the kernel would do it in the
    /// target's time.
    pub driver: DriverConfig,
    /// Buffers of each socket.
    pub socket: SocketOptions,
    /// Bytes all sessions together may hold queued or in flight (default 2 GiB).
    pub store_bytes: usize,
    /// The target's process, when it runs on this host: what it uses of the processor in the measured time is in the report
    /// (default none).
    pub target_pid: Option<u32>,
}

impl Scenario {
    /// `sessions` sessions to `target` from `sources`, all else by default.
    #[must_use]
    pub fn new(target: SocketAddr, sessions: u32, sources: Sources) -> Self {
        Self {
            target,
            clients: Clients {
                sessions,
                sockets: sessions.clamp(1, SOCKETS_DEFAULT_MAX),
                sources,
                convs: ConvChoice::Random,
                bystanders: 0,
                opening_max: OPENING_DEFAULT,
            },
            traffic: Traffic {
                load: Load::Closed { outstanding: 1 },
                bystanders: None,
                size: 64,
                upstream: Upstream::Echo,
                times: 1,
                reads: None,
                deadline: None,
                backlog_max: BACKLOG_DEFAULT,
            },
            phases: Phases {
                ramp: Duration::from_secs(1) * sessions / RAMP_DEFAULT_PER_S,
                establish: Duration::from_secs(10),
                hold: Duration::ZERO,
                warmup: Duration::from_secs(1),
                duration: Duration::from_secs(10),
                drain: Duration::from_secs(10),
            },
            storm: None,
            protocol: Protocol::Kcp(profile_game()),
            engine: Engine {
                threads: 1,
                pin: Vec::new(),
                io: IoChoice::Auto,
                driver: DriverConfig { gso: false, gro: true, ..DriverConfig::default() },
                socket: SocketOptions::default(),
                store_bytes: 2 << 30,
                target_pid: None,
            },
            seed: crate::seed::fresh(),
            checks: Vec::new(),
        }
    }

    /// Checks every field against its limits and against the others. [`run`](crate::run) does this first.
    ///
    /// # Errors
    /// The first rule broken, with the value, the limit and the fix.
    pub fn validate(&self) -> Result<(), ScenarioError> {
        let reject = |what, value: String, rule: String| Err(ScenarioError { what, value, rule });
        let Clients { sessions, sockets, .. } = self.clients;
        let threads = self.engine.threads;
        if sessions == 0 {
            return reject("--sessions", "0".into(), "at least 1".into());
        }
        if threads == 0 || threads > sockets {
            let rule = format!("1 to the number of sockets ({sockets}); every worker needs one");
            return reject("--threads", threads.to_string(), rule);
        }
        let sockets_max = threads.saturating_mul(SOCKETS_PER_DRIVER_MAX);
        if sockets > sockets_max || sockets > sessions {
            let rule = format!(
                "at most one per session ({sessions}) and {SOCKETS_PER_DRIVER_MAX} per thread ({sockets_max})"
            );
            return reject("--sockets", sockets.to_string(), rule);
        }
        if self.clients.sources.addrs().iter().any(|addr| addr.is_ipv4() != self.target.is_ipv4()) {
            let rule = format!("addresses of the family of the target {}", self.target);
            return reject("--sources", self.clients.sources.of_socket(0).to_string(), rule);
        }
        if let Some(core) = self.engine.pin.iter().find(|core| !core_exists(**core)) {
            let rule = "cores this process may use, as `nproc` and `taskset -p $$` show".into();
            return reject("--pin", core.to_string(), rule);
        }
        self.validate_load()?;
        self.validate_storm()?;
        self.validate_protocol()
    }

    fn validate_load(&self) -> Result<(), ScenarioError> {
        let reject = |what, value: String, rule: String| Err(ScenarioError { what, value, rule });
        if matches!(self.traffic.load, Load::Closed { outstanding: 0 }) {
            return reject(
                "--outstanding",
                "0".into(),
                "at least 1 (idle sessions: --rate 0)".into(),
            );
        }
        let Traffic { upstream, size, .. } = self.traffic;
        if upstream == Upstream::Rooms && !payload::Codec::has_header(size) {
            let rule = format!(
                "with --size {} and more: a smaller message does not say whose it is",
                payload::HEADER_LEN
            );
            return reject("--upstream", "rooms".into(), rule);
        }
        if upstream != Upstream::Echo && matches!(self.protocol, Protocol::Raw { .. }) {
            return reject("--upstream", "stream or rooms".into(), "without --raw".into());
        }
        if matches!(self.traffic.load, Load::Open { period } if period.is_zero()) {
            return reject("--rate", "above 10^9".into(), "at most 10^9 per session".into());
        }
        let Traffic { times, reads, .. } = self.traffic;
        let plain = upstream == Upstream::Echo && matches!(self.protocol, Protocol::Kcp(_));
        if times == 0 || (times > 1 && !plain) {
            let rule = "1 and more; above 1 with --upstream echo and without --raw".into();
            return reject("--times", times.to_string(), rule);
        }
        if reads.is_some() && !matches!(self.protocol, Protocol::Kcp(_)) {
            return reject("--read-rate", "with --raw".into(), "a protocol with a window".into());
        }
        Ok(())
    }

    fn validate_storm(&self) -> Result<(), ScenarioError> {
        let reject = |what, value: String, rule: String| Err(ScenarioError { what, value, rule });
        let Clients { sessions, bystanders, .. } = self.clients;
        if bystanders > sessions {
            let rule = format!("at most --sessions {sessions}");
            return reject("--bystanders", bystanders.to_string(), rule);
        }
        let Some(storm) = &self.storm else { return Ok(()) };
        let others = sessions - bystanders;
        if storm.vanish > others {
            let rule = format!("at most the {others} sessions that are no bystanders");
            return reject("--storm", storm.vanish.to_string(), rule);
        }
        if sessions.checked_add(storm.arrive).is_none() {
            let rule = format!("{} at most beside --sessions {sessions}", u32::MAX - sessions);
            return reject("--storm", storm.arrive.to_string(), rule);
        }
        if storm.after + storm.within > self.phases.duration {
            let value = humantime::format_duration(storm.after).to_string();
            let rule = format!(
                "so that the storm ends within --duration {}",
                humantime::format_duration(self.phases.duration)
            );
            return reject("--storm-after", value, rule);
        }
        Ok(())
    }

    fn validate_protocol(&self) -> Result<(), ScenarioError> {
        let reject = |what, value: String, rule: String| Err(ScenarioError { what, value, rule });
        let size = self.traffic.size;
        let datagram_max = usize::from(self.engine.driver.datagram_max);
        match &self.protocol {
            Protocol::Raw { datagram } if !(RAW_MIN..=datagram_max).contains(datagram) => {
                reject("--raw", datagram.to_string(), format!("{RAW_MIN} to {datagram_max} bytes"))
            }
            Protocol::Raw { .. } => Ok(()),
            Protocol::Kcp(config) => {
                if !(50..=datagram_max as u64).contains(&u64::from(config.mtu)) {
                    return reject(
                        "--mtu",
                        config.mtu.to_string(),
                        format!("50 to {datagram_max}"),
                    );
                }
                if !(10..=5000).contains(&config.interval) {
                    let rule = "10 to 5000 milliseconds".into();
                    return reject("--interval", config.interval.to_string(), rule);
                }
                if config.snd_wnd == 0 || !(128..=65_535).contains(&config.rcv_wnd) {
                    let value = format!("{},{}", config.snd_wnd, config.rcv_wnd);
                    let rule =
                        "a send window of 1 and more, a receive window of 128 to 65,535 segments";
                    return reject("--window", value, rule.into());
                }
                // As in the reference: at most 127 fragments, and the receiver's whole window must hold them.
                let fragments = 127.min(config.rcv_wnd as usize - 1);
                let size_max = fragments * (config.mtu as usize - HEADER);
                let times = self.traffic.times as usize;
                if size == 0 || size.saturating_mul(times) > size_max {
                    let rule = format!(
                        "1 to {} bytes (127 fragments of the mtu {} less {HEADER}, in {times} parts)",
                        size_max / times,
                        config.mtu
                    );
                    return reject("--size", size.to_string(), rule);
                }
                Ok(())
            }
        }
    }
}

/// Latency first: nodelay 1, every 10 ms, fast resend after 2, no congestion window, windows of 256, mtu 1400, and a
/// touched session answers at the end of the turn. The gateway's default.
#[must_use]
pub fn profile_game() -> KcpConfig {
    KcpConfig {
        nodelay: 1,
        interval: 10,
        fastresend: 2,
        nocwnd: true,
        snd_wnd: 256,
        rcv_wnd: 256,
        flush: FlushPolicy::Turn,
        strict: true,
        ..KcpConfig::default()
    }
}

/// The C library's own defaults: every 100 ms, congestion window, windows of 32 and 128.
#[must_use]
pub fn profile_reference() -> KcpConfig {
    KcpConfig { strict: true, ..KcpConfig::default() }
}

/// A rule of the scenario was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value}: allowed is {rule}")]
pub struct ScenarioError {
    /// The flag that sets it.
    pub what: &'static str,
    /// What it was.
    pub value: String,
    /// What it may be.
    pub rule: String,
}

fn core_exists(core: usize) -> bool {
    core_affinity::get_core_ids().is_some_and(|ids| ids.iter().any(|id| id.id == core))
}

const SOCKETS_DEFAULT_MAX: u32 = 64;
/// A driver numbers its sockets with 16 bits.
const SOCKETS_PER_DRIVER_MAX: u32 = 65_535;
const RAMP_DEFAULT_PER_S: u32 = 10_000;
const OPENING_DEFAULT: u32 = 10_000;
const BACKLOG_DEFAULT: usize = 1024;
const HEADER: usize = kcp_core::wire::HEADER_LEN;
/// A conv, so that a raw datagram is steered and found as a KCP one is, and a message header.
const RAW_MIN: usize = 4 + payload::HEADER_LEN;

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Scenario {
        let target: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        Scenario::new(target, 1000, Sources::single(target.ip()))
    }

    #[test]
    fn the_defaults_are_legal() {
        assert_eq!(base().validate(), Ok(()));
        assert_eq!(base().phases.ramp, Duration::from_millis(100));
    }

    #[test]
    fn each_rule_names_its_flag_and_value() {
        type Break = fn(&mut Scenario);
        let storm = |vanish, arrive, after| {
            let (within, after) = (Duration::from_secs(2), Duration::from_secs(after));
            Some(Storm { vanish, arrive, within, after })
        };
        let mut scenario = base();
        scenario.clients.bystanders = 10;
        scenario.storm = storm(990, u32::MAX - 1000, 8);
        assert_eq!(scenario.validate(), Ok(()));
        for (expected, wrong) in [
            ("--storm 991", storm(991, 0, 5)),
            ("--storm 4294966296", storm(1, u32::MAX - 999, 5)),
            ("--storm-after 9s", storm(1, 1, 9)),
        ] {
            scenario.storm = wrong;
            let error = scenario.validate().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{expected}: {error}");
        }
        let cases: [(&str, Break); 18] = [
            ("--bystanders 1001", |s| s.clients.bystanders = 1001),
            ("--sessions 0", |s| s.clients.sessions = 0),
            ("--threads 65", |s| s.engine.threads = 65),
            ("--threads 0", |s| s.engine.threads = 0),
            ("--sockets 1001", |s| s.clients.sockets = 1001),
            ("--sources ::1", |s| s.clients.sources = "::1".parse().unwrap()),
            ("--pin 70000", |s| s.engine.pin = vec![70_000]),
            ("--outstanding 0", |s| s.traffic.load = Load::Closed { outstanding: 0 }),
            ("--rate", |s| s.traffic.load = Load::Open { period: Duration::ZERO }),
            ("--upstream rooms", |s| {
                (s.traffic.upstream, s.traffic.size) = (Upstream::Rooms, 23);
            }),
            ("--upstream stream or rooms", |s| {
                s.traffic.upstream = Upstream::Stream;
                s.protocol = Protocol::Raw { datagram: 64 };
            }),
            ("--times 0", |s| s.traffic.times = 0),
            ("--times 2", |s| (s.traffic.upstream, s.traffic.times) = (Upstream::Stream, 2)),
            ("--size 64", |s| s.traffic.times = 3000),
            ("--raw 27", |s| s.protocol = Protocol::Raw { datagram: 27 }),
            ("--size 0", |s| s.traffic.size = 0),
            ("--size 174753", |s| s.traffic.size = 127 * 1376 + 1),
            ("--mtu 9000", |s| {
                s.protocol = Protocol::Kcp(KcpConfig { mtu: 9000, ..profile_game() });
            }),
        ];
        for (expected, change) in cases {
            let mut scenario = base();
            change(&mut scenario);
            let error = scenario.validate().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{expected}: {error}");
            assert!(error.contains("allowed is"), "{error}");
        }
    }
}
