//! The configuration. The fields are the manual: what each is for, its unit, default, range, what a reload does with it
//! and what it costs in memory.
//!
//! Layers, later ones win: defaults, the TOML file, the environment (`KCP_GATEWAY__SECTION__KEY`, for a listener
//! `KCP_GATEWAY__LISTENER__0__KEY`, for a backend `KCP_GATEWAY__UPSTREAM__BACKEND__0__KEY`), flags. A key's name is its path: `session.idle_timeout_s` is `idle_timeout_s` in
//! `[session]` and `KCP_GATEWAY__SESSION__IDLE_TIMEOUT_S` in the environment.

mod check;
mod error;
mod keys;
mod layers;
mod render;
mod upstream;
mod url;
mod value;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kcp_core::{FlushPolicy, KcpConfig, Reference};
use net_io::{DriverConfig, IoChoice, SocketOptions};

pub use check::{Source, load_backends};
pub use error::{ConfigError, ConfigErrors, Place, Problem};
pub use keys::Reload;
pub use layers::Flag;
pub(crate) use render::Setting;
pub use upstream::{
    Backend, BackendSettings, Check, GatewayId, Resolver, SINGLE, Sources, Upstream,
};
pub use url::{BackendUrl, Carrier, NatsUrl, Target, UpstreamUrl};

/// Everything an operator can set.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[[listener]]`: where clients connect. Default: `0.0.0.0:4000` and `[::]:4000`, the second only on a host with
    /// IPv6. Range: 1 to 64. A change of addresses needs a restart.
    pub listeners: Vec<Listener>,
    /// `[kcp]`: the protocol settings of every listener that has none of its own.
    pub kcp: Kcp,
    /// `[session]`: limits of a client's session.
    pub session: Session,
    /// `[shards]`: threads, cores and memory.
    pub shards: Shards,
    /// `[io]`: the kernel boundary.
    pub io: Io,
    /// `[upstream]`: where messages go.
    pub upstream: Upstream,
    /// `[admin]`: the operator's HTTP port.
    pub admin: Admin,
    /// `[reload]`: what brings a changed configuration into force.
    pub reload: Reloading,
    /// `[probe]`: the gateway as its own client.
    pub probe: Probe,
    /// `[drain]`: leaving in good order.
    pub drain: Drain,
    /// `[log]`: what is written to standard error.
    pub log: Log,
}

/// One address that clients connect to.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// `addr`: the UDP address. A wildcard answers from the address the client used. Default: none, must be given.
    /// Range: any IPv4 or IPv6 address with a port; port 0 lets the kernel choose. Restart.
    pub addr: SocketAddr,
    /// Every key of `[kcp]`, for this listener alone. Default: the values of `[kcp]`; a `profile` here starts over from
    /// that profile. Reloadable, but for `steer`.
    pub kcp: Option<Kcp>,
    /// Whether a host that does not know this address family starts without this listener, with a warning. Set for
    /// the built-in `[::]:4000` only (default for any other: false); not a key of the file.
    pub optional: bool,
}

impl Listener {
    /// A listener with the settings of `[kcp]` whose absence stops the start.
    #[must_use]
    pub const fn new(addr: SocketAddr) -> Self {
        Self { addr, kcp: None, optional: false }
    }
}

/// What a listener and its clients must agree on, and how it shapes what it sends. The names are the C library's.
#[derive(Clone, Debug, PartialEq)]
pub struct Kcp {
    /// `profile`: the set of values that the other keys start from. `game`: nodelay 1, interval 10 ms, resend 2, nc 1,
    /// windows 256, flush `turn`. `reference`: nodelay 0, interval 100 ms, resend 0, nc 0, windows 32 and 128, flush
    /// `interval`, as the C library starts. Default `game`. Reloadable.
    pub profile: Profile,
    /// `mtu`: largest datagram sent, in bytes of UDP payload. Default 1400. Range 50 to 65000 and at most
    /// `io.datagram_max`. Reloadable.
    pub mtu: u32,
    /// `nodelay`: 0: retransmit after at least 100 ms, doubling; 1: at least 30 ms, growing by half of itself; 2: by
    /// half of the base. Default 1. Range 0 to 2. Reloadable.
    pub nodelay: u32,
    /// `interval_ms`: the protocol's clock, in milliseconds. Default 10. Range 10 to 5000. Reloadable.
    pub interval_ms: u32,
    /// `resend`: resend a segment after this many later acknowledgements; 0 = never. Default 2. Range 0 to 1000.
    /// Reloadable.
    pub resend: u32,
    /// `resend_max`: transmissions of one segment that `resend` may cause; 0 = no limit. Default 5. Range 0 to 1000.
    /// Reloadable.
    pub resend_max: u32,
    /// `nc`: true = ignore the congestion window. Default true. Reloadable.
    pub nc: bool,
    /// `snd_wnd`: segments in flight towards a client. Default 256. Range 1 to 65535. Costs up to `mtu` bytes each
    /// while in flight, of `shards.store_bytes_max`. Reloadable.
    pub snd_wnd: u32,
    /// `rcv_wnd`: segments accepted ahead of delivery. Default 256. Range 128 to 65535. Costs up to `mtu` bytes each
    /// while they wait, of `shards.store_bytes_max`. Reloadable.
    pub rcv_wnd: u32,
    /// `stream`: true = a byte stream, false = messages. Default false. Reloadable.
    pub stream: bool,
    /// `dead_link`: transmissions of one segment after which the session ends. Default 20. Range 2 to 1000. Reloadable.
    pub dead_link: u32,
    /// `flush`: when output leaves. `turn`: at once, once per turn of the shard. `interval`: every `interval_ms`, as
    /// the C library does. Default `turn`. Reloadable.
    pub flush: FlushPolicy,
    /// `release`: which release of the C library decides where releases differ, `2.1.1` or `1.7.1`. Default `2.1.1`.
    /// Reloadable.
    pub release: Reference,
    /// `steer`: how datagrams find their shard. `conv`: by conversation, in the kernel. `address`: by the client's
    /// address, for games that give everybody the same conversation number. Default `conv`. Restart.
    pub steer: Steer,
}

/// A named set of [`Kcp`] values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Low latency first.
    Game,
    /// The C library's own defaults.
    Reference,
}

/// How datagrams find their shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// By a hash of the conversation number, computed in the kernel.
    Conv,
    /// By the kernel's hash of the addresses.
    Address,
}

/// A limit that may be left to the size of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auto<N> {
    /// Sized to this host at start; printed there.
    Auto,
    /// This many.
    Exactly(N),
}

/// Limits of sessions.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// `max`: live sessions of the gateway, shared out evenly among the shards; beyond it a new client's first datagram
    /// is dropped and counted. Default `auto`: a quarter of the memory at 1 KiB a session. Range 1 to 16777216.
    /// Reloadable.
    pub max: Auto<u32>,
    /// `idle_timeout_s`: a session whose client gave no sign for this long ends, in seconds, or up to a
    /// 512th of it later, together with others. Default 300. Range 1 to 86400. Reloadable.
    pub idle_timeout_s: u32,
    /// `keepalive_s`: a client that was silent for this long is asked whether it is there, in seconds; its library answers by
    /// itself. Three questions without an answer end the session; an answer counts against `idle_timeout_s` as traffic does.
    /// 0 never asks. Default 60. Range 0 to 86400. Reloadable.
    pub keepalive_s: u32,
    /// `tombstone_s`: how long the key of an ended session swallows late retransmits, in seconds. Default 30. Range 0
    /// to 600. Reloadable.
    pub tombstone_s: u32,
    /// `tombstones_max`: ended keys a shard remembers; beyond it the oldest is forgotten. Default 65536. Range 0 to
    /// 1048576. Costs 64 bytes each. Reloadable.
    pub tombstones_max: u32,
    /// `queue_bytes_max`: bytes one session may have waiting for its client before its receive window closes, in bytes.
    /// Default 262144. Range 4096 to 67108864. Reloadable.
    pub queue_bytes_max: u32,
}

/// Threads, cores and memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Shards {
    /// `count`: shards, one thread each. Default `auto`: one per core this process may use. Range 1 to 256. Restart.
    pub count: Auto<u16>,
    /// `pin`: true = each shard stays on a core of its own. Default true. Restart.
    pub pin: bool,
    /// `store_bytes_max`: payload in flight that one shard may hold, in bytes. Default `auto`: half of the memory,
    /// shared out evenly. Range 1048576 to 1099511627776. Restart.
    pub store_bytes_max: Auto<u64>,
    /// `handoff`: datagrams that may wait for a shard because the kernel gave them to another. Default 1024. Range 16
    /// to 65536. Costs `io.datagram_max` bytes each. Restart.
    pub handoff: u32,
}

/// The kernel boundary.
#[derive(Clone, Debug, PartialEq)]
pub struct Io {
    /// `driver`: `uring`, `epoll`, or `auto`: io_uring where the host allows it, else epoll, and the log, the metrics
    /// and the status say why. Default `auto`. Restart.
    pub driver: IoChoice,
    /// `buffers`: receive buffers of a shard. Default 1024. Range 16 to 32768, a power of two. Costs
    /// `datagram_max` + 128 bytes each. Restart.
    pub buffers: u16,
    /// `datagram_max`: largest datagram accepted, in bytes; larger ones are dropped and counted. Default 1500. Range
    /// 576 to 65000. Restart.
    pub datagram_max: u16,
    /// `batch_max`: datagrams a shard takes in one turn. Default 1024. Range 1 to 32768. Restart.
    pub batch_max: u16,
    /// `send_arena_bytes`: bytes a shard may queue in one turn before it submits early. Default 1048576. Range 65536 to
    /// 67108864. Restart.
    pub send_arena_bytes: u32,
    /// `min_wait_us`: how long to gather datagrams, in microseconds; 0 = answer each at once. A datagram waits that long at
    /// most; in return one wake-up serves many. At 20,000 to 100,000 messages a second 200 take about half of the CPU off and
    /// improve the p99, because the core has room left (benches/README.md has the commands). Default 200. Range 0 to
    /// 10000. Restart.
    pub min_wait_us: u32,
    /// `want`: how many datagrams end that gathering. Default 32. Range 1 to 4096. Restart.
    pub want: u16,
    /// `gso`: true = trains of equal datagrams to one client leave as one send where the kernel can. Default true.
    /// Restart.
    pub gso: bool,
    /// `recv_buffer_bytes`: SO_RCVBUF asked for per socket, in bytes; the kernel grants up to `net.core.rmem_max`.
    /// Default 4194304. Range 65536 to 1073741824. Restart.
    pub recv_buffer_bytes: u32,
    /// `send_buffer_bytes`: SO_SNDBUF asked for per socket, in bytes; the kernel grants up to `net.core.wmem_max`.
    /// Default 4194304. Range 65536 to 1073741824. Restart.
    pub send_buffer_bytes: u32,
}

/// The operator's HTTP port.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// `listen`: the TCP address of metrics, health and control, or `off`. Nobody is asked who they are: whoever reaches it
    /// can drain the gateway, so give it a loopback or management address. Default `127.0.0.1:9600`. Range: any address
    /// with a port, or `off`. Restart.
    pub listen: Option<SocketAddr>,
    /// `connections_max`: HTTP connections served at once; further ones wait in the backlog. Default 64. Range 1 to
    /// 4096. Costs up to 64 KiB each. Restart.
    pub connections_max: u16,
}

/// What brings a changed configuration into force, beside SIGHUP and the admin API.
#[derive(Clone, Debug, PartialEq)]
pub struct Reloading {
    /// `watch_s`: how often the configuration file is looked at for a change, in seconds; 0 = never. A file that has changed is
    /// taken at the second look that finds it so, when nobody writes to it any more. For mounted files, which nobody can send a
    /// signal about. Default 0. Range 0 to 3600. Reloadable.
    pub watch_s: u32,
}

/// The gateway as its own client. It needs the admin port, whose thread it shares.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// `interval_s`: how often a session is begun with every shard through every listener, in seconds; 0 = never. Players' metrics
    /// do not count them, no message of them reaches a backend, and `session.max` holds for them. Default 10. Range 0 to 3600.
    /// Reloadable.
    pub interval_s: u32,
    /// `timeout_ms`: how long all shards together may take to answer, in milliseconds. Default 2000. Range 100 to 60000.
    /// Reloadable.
    pub timeout_ms: u32,
    /// `address`: which of this host's addresses a wildcard listener is probed at; other listeners are probed at their own, and
    /// those of the other IP version over loopback. Default `loopback`. Range: an IP address or `loopback`. Reloadable.
    pub address: Option<IpAddr>,
}

/// Leaving in good order.
#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    /// `timeout_s`: how long live sessions may go on after SIGTERM before they are ended, in seconds. Default 30. Range
    /// 0 to 86400. Reloadable.
    pub timeout_s: u32,
    /// `farewell`: the message that answers whoever comes during a drain, whose application gets it as any other; empty says
    /// nothing. Text, or bytes as `hex:00ff`. It is sent to an address that has not shown that it is there, so it leaves only
    /// where 24 bytes and its own are at most three times the client's datagram: up to 51 bytes always are. Default empty. Range
    /// 0 to 512 bytes, and with those 24 at most the smallest `mtu`. Reloadable.
    pub farewell: Farewell,
}

/// A message from the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Farewell(pub Vec<u8>);

/// What is written to standard error.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// `level`: the least severe event written: `error`, `warn`, `info`, `debug` or `trace`. Default `info`. Restart.
    pub level: LogLevel,
    /// `format`: `text` for people, `json` for collectors, one object a line. Default `text`. Restart.
    pub format: LogFormat,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What ended the process or a shard.
    Error,
    /// What works, but not as asked.
    Warn,
    /// Start, stop, drain, reload.
    Info,
    /// Every decision of the control plane.
    Debug,
    /// As debug, with the libraries' own events.
    Trace,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT);
        Self {
            listeners: vec![
                Listener::new(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT)),
                Listener { optional: true, ..Listener::new(v6) },
            ],
            kcp: Kcp::of(Profile::Game),
            session: Session {
                max: Auto::Auto,
                idle_timeout_s: 300,
                keepalive_s: 60,
                tombstone_s: 30,
                tombstones_max: 65_536,
                queue_bytes_max: 256 << 10,
            },
            shards: Shards {
                count: Auto::Auto,
                pin: true,
                store_bytes_max: Auto::Auto,
                handoff: 1024,
            },
            io: Io {
                driver: IoChoice::Auto,
                buffers: 1024,
                datagram_max: 1500,
                batch_max: 1024,
                send_arena_bytes: 1 << 20,
                min_wait_us: 200,
                want: 32,
                gso: true,
                recv_buffer_bytes: 4 << 20,
                send_buffer_bytes: 4 << 20,
            },
            upstream: Upstream::default(),
            admin: Admin {
                listen: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ADMIN_PORT)),
                connections_max: 64,
            },
            reload: Reloading { watch_s: 0 },
            probe: Probe { interval_s: 10, timeout_ms: 2_000, address: None },
            drain: Drain { timeout_s: 30, farewell: Farewell::default() },
            log: Log { level: LogLevel::Info, format: LogFormat::Text },
        }
    }
}

impl Kcp {
    /// The values of a profile.
    #[must_use]
    pub fn of(profile: Profile) -> Self {
        let reference = KcpConfig::default();
        let base = Self {
            profile,
            mtu: reference.mtu,
            nodelay: reference.nodelay,
            interval_ms: reference.interval,
            resend: reference.fastresend,
            resend_max: reference.fastlimit,
            nc: reference.nocwnd,
            snd_wnd: reference.snd_wnd,
            rcv_wnd: reference.rcv_wnd,
            stream: reference.stream,
            dead_link: reference.dead_link,
            flush: reference.flush,
            release: reference.reference,
            steer: Steer::Conv,
        };
        match profile {
            Profile::Reference => base,
            Profile::Game => Self {
                nodelay: 1,
                interval_ms: 10,
                resend: 2,
                nc: true,
                snd_wnd: 256,
                rcv_wnd: 256,
                flush: FlushPolicy::Turn,
                ..base
            },
        }
    }

    /// As the protocol core takes it; input is always strict.
    #[must_use]
    pub fn to_core(&self) -> KcpConfig {
        KcpConfig {
            mtu: self.mtu,
            nodelay: self.nodelay,
            interval: self.interval_ms,
            fastresend: self.resend,
            fastlimit: self.resend_max,
            nocwnd: self.nc,
            snd_wnd: self.snd_wnd,
            rcv_wnd: self.rcv_wnd,
            stream: self.stream,
            dead_link: self.dead_link,
            reference: self.release,
            flush: self.flush,
            strict: true,
        }
    }
}

impl Config {
    /// The settings of listener `index`.
    #[must_use]
    pub fn kcp_of<'a>(&'a self, listener: &'a Listener) -> &'a Kcp {
        listener.kcp.as_ref().unwrap_or(&self.kcp)
    }
}

impl Io {
    /// As the drivers take it.
    #[must_use]
    pub const fn to_driver(&self) -> DriverConfig {
        DriverConfig {
            buffers: self.buffers,
            datagram_max: self.datagram_max,
            batch_max: self.batch_max,
            send_arena: self.send_arena_bytes as usize,
            min_wait_us: self.min_wait_us,
            want: self.want,
            gso: self.gso,
            gro: false,
            streams: None,
        }
    }

    /// As the sockets take it.
    #[must_use]
    pub const fn to_socket(&self) -> SocketOptions {
        SocketOptions {
            recv_buffer: self.recv_buffer_bytes as usize,
            send_buffer: self.send_buffer_bytes as usize,
        }
    }
}

const PORT: u16 = 4000;
const ADMIN_PORT: u16 = 9600;
