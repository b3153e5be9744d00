//! `[upstream]`: which backends there are, how their sessions are carried, and how it is known that they live.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde_json::Value as Json;

use super::url::{BackendUrl, NatsUrl, UpstreamUrl};
use super::value::Value;
use crate::upstream::backend::{BACKENDS_MAX, OnLoss, OnOverflow};
use crate::upstream::framing::Framing;
use crate::upstream::health::{CheckConfig, HealthConfig};
use crate::upstream::nats::subject::is_id;
use crate::upstream::route::Policy;

/// Where messages go.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// `url`: the backend, when there is one; several are `[[upstream.backend]]` blocks instead. `echo` returns every message
    /// to its sender; `tcp://HOST:PORT` is a connection per session; `yamux://HOST:PORT` and `yamux+unix:///PATH` are a stream
    /// per session over a few connections per shard. HOST is an IPv4 address, an IPv6 address in brackets or a name; all of
    /// a name's A and AAAA records count. `tcp+srv://NAME` and `yamux+srv://NAME` take hosts, ports and weights from SRV
    /// records. `HOST:PORT,HOST:PORT` is several at once. Each address is watched and chosen for itself. `nats://HOST:PORT`
    /// and `nats+tls://HOST:PORT` are subjects of a session's own at a NATS server or cluster. Default `echo`.
    /// Reloadable, but not between `echo`, backends and NATS, and not from one NATS to another.
    pub url: UpstreamUrl,
    /// `[[upstream.backend]]`: the backends, where there are several. Default: none. Range: 0 to 64; 64 addresses of all
    /// backends together count, those that only finish their last sessions included. Reloadable: one that
    /// is gone, or has another url or way to carry sessions, gets no new sessions and keeps those it has until they end.
    pub backends: Vec<Backend>,
    /// The keys that a backend may have for itself, for all that do not.
    pub each: BackendSettings,
    /// `policy`: who gets a new session. `round-robin`: in turn, by weight. `least-sessions`: the one with the fewest for its
    /// weight, as its shard counts them. `rendezvous`: by the conversation, at every gateway alike; a client that picks its
    /// conversation picks its backend. Default `round-robin`. Reloadable.
    pub policy: Policy,
    /// `on_loss`: what becomes of a session whose backend died, stood still in the middle of a message, or announced one that is too
    /// long. `end`: it ends, and its client starts over. `reroute`: it gets another backend and goes on with the next
    /// message; what was on its way to the lost one is lost, and the new one hears of the session for the first time.
    /// Default `end`. Reloadable.
    pub on_loss: OnLoss,
    /// `overflow`: what happens to a session whose client takes less than its backend sends. `pause`: the backend waits.
    /// `disconnect`: it ends, counted. Whatever this says, the sessions that hold most of `pool_bytes_max` end when nine
    /// tenths of it wait. At NATS nobody can be made to wait: there `pause` drops the message, counted. Default `pause`. Reloadable,
    /// but with NATS.
    pub overflow: OnOverflow,
    /// `wait_ms`: how long a session may wait for a usable backend, or for a connection to be begun, before it ends, in
    /// milliseconds; its messages wait unread. Default 5000. Range 0 to 600000. Reloadable.
    pub wait_ms: u32,
    /// `deliver_ms`: how long a session that its backend has ended may live on until its client has received everything, in
    /// milliseconds. Default 10000. Range 0 to 600000. Reloadable, but with NATS.
    pub deliver_ms: u32,
    /// `pool_bytes_max`: bytes that may wait between backends and sessions in one shard. Default 67108864. Range 1048576 to
    /// 68719476736. Costs what waits, up to this, for each shard. Restart.
    pub pool_bytes_max: u64,
    /// `connecting_max`: connections to `tcp` backends that one shard may be making at once; further sessions wait, with
    /// their messages unread. Default 1024. Range 1 to 65536 connections. Restart.
    pub connecting_max: u32,
    /// `tcp_buffer_bytes`: SO_RCVBUF and SO_SNDBUF of a session's own connection to a `tcp` backend, in bytes; 0 leaves them to the
    /// kernel. Default 16384. Range 0 to 16777216. Costs up to twice that each way in the kernel for a session whose client or
    /// backend stands still. Left to the kernel, some ten thousand such connections use up what `net.ipv4.tcp_mem` allows all
    /// sockets of the host, and connections then stand still for up to two minutes after everybody has gone on. Restart.
    pub tcp_buffer_bytes: u32,
    /// `resolver`: who answers for names: `system`, as `/etc/resolv.conf` and `/etc/hosts` say, or the addresses of DNS
    /// servers, like `10.0.0.2:53,10.0.0.3:53`. Default `system`. Reloadable.
    pub resolver: Resolver,
    /// `resolve_interval_ms`: from one answer to the next question for a name, in milliseconds. Addresses that are gone get no
    /// new sessions; an answer that does not come, or is empty, leaves those that are known. Default 10000. Range 100 to
    /// 86400000. Reloadable.
    pub resolve_interval_ms: u32,
    /// `discovery_file`: a TOML file with more `[[backend]]` blocks, the keys of `[[upstream.backend]]` in each, that is looked
    /// at again and again; or `off`. While it is wrong or missing, the last good one counts. Default `off`. Reloadable.
    pub discovery_file: Option<PathBuf>,
    /// `discovery_interval_ms`: how often that file is looked at, in milliseconds. Default 2000. Range 50 to 3600000.
    /// Reloadable.
    pub discovery_interval_ms: u32,
    /// `nats_gateway`: what this gateway is called in the subjects of its sessions at NATS: 1 to 64 letters, digits, `_` and `-`,
    /// but not `all`, and no two gateways of a fleet alike. `auto` is the host's name, other characters as `-`. Default `auto`.
    /// Restart.
    pub nats_gateway: GatewayId,
    /// `nats_credentials`: a credentials file for NATS, as `nsc` writes it, or `off`. Default `off`. Restart.
    pub nats_credentials: Option<PathBuf>,
}

/// A gateway's id in the fleet; `None` is the host's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayId(pub Option<String>);

impl GatewayId {
    /// The id.
    #[must_use]
    pub fn resolve(&self) -> String {
        let host = || {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
            let name: String = name.chars().map(plain).take(64).collect();
            if is_gateway_id(&name) { name } else { "gateway".to_owned() }
        };
        self.0.clone().unwrap_or_else(host)
    }
}

/// Whether a gateway may be called so.
pub(super) fn is_gateway_id(id: &str) -> bool {
    is_id(id) && id != "all"
}

/// One of several backends.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// `name`: what it is called in the log, the metrics and the API, and what it is known by to `rendezvous`. Default: none,
    /// must be given. Range: 1 to 64 letters, digits, `.`, `_` and `-`, each name once. Reloadable: another name is another
    /// backend.
    pub name: String,
    /// `url`: where it is, as `upstream.url`, but not `echo`. Default: none, must be given. Reloadable.
    pub url: BackendUrl,
    /// `weight`: its share of new sessions, relative to the others'; 0 gets none. Each of its addresses has this weight;
    /// SRV records multiply it with theirs. Default 1. Range 0 to 1000 (a share). Reloadable.
    pub weight: u16,
    /// Every key of [`BackendSettings`], for this backend alone. Default: the values of `[upstream]`. Reloadable.
    pub settings: Option<BackendSettings>,
}

/// How a backend's sessions are carried and how it is watched. These are keys of `[upstream]` and of each
/// `[[upstream.backend]]`. A change of the first eight makes a new backend of it, see [`Upstream::backends`].
#[derive(Clone, Debug, PartialEq)]
pub struct BackendSettings {
    /// `framing`: how a message is told from the next: `u16be`, `u16le`, `u32be` and `u32le` are two or four bytes of length
    /// before each, highest or lowest first; `none` sends bytes as they are, and cuts what comes back into segments.
    /// Default `u32be`. Reloadable.
    pub framing: Framing,
    /// `proxy`: true = a session begins with a PROXY protocol header, version 2, with the client's address, the listener's and
    /// the conversation. Default true. Reloadable.
    pub proxy: bool,
    /// `links`: connections of each shard to each address of a `yamux` backend. Default 2. Range 1 to 16 connections. Costs a
    /// descriptor and up to 1 MiB of frames each. Reloadable.
    pub links: u16,
    /// `connect_ms`: how long a connection may take to be made, in milliseconds. Default 3000. Range 10 to 60000. Reloadable.
    pub connect_ms: u32,
    /// `stall_ms`: how long a backend may stand still, in milliseconds: a message that it began and does not go on with ends the
    /// session; a `yamux` connection ends when it is inside a frame, or takes nothing, or owes the answer to a ping, and neither
    /// gives nor takes a byte meanwhile. Of a pause of the gateway's own at most half counts. Default 10000. Range 100 to
    /// 600000. Reloadable.
    pub stall_ms: u32,
    /// `linger_ms`: how long a backend may take to read what an ended session had sent, in milliseconds. Default 10000. Range
    /// 0 to 600000. Reloadable.
    pub linger_ms: u32,
    /// `sources`: addresses of this host to connect to a `tcp` backend from, with commas between, or `any`. More sessions than an address has
    /// ports (`net.ipv4.ip_local_port_range`, for each address of the backend) need several. Default `any`. Range: up to
    /// 64. Reloadable.
    pub sources: Sources,
    /// `unacked_max`: sessions that a `yamux` backend may owe an answer to their beginning, on one connection; further ones
    /// wait. HashiCorp's library takes 256. Default 256. Range 1 to 1048576 sessions. Reloadable.
    pub unacked_max: u32,
    /// `check`: `connect` = a `tcp` backend is connected to now and then, and gets sessions while that works; a `yamux` backend
    /// is up while a connection to it lives, and needs none. `off` = a `tcp` backend is believed until sessions fail.
    /// Default `connect`. Reloadable.
    pub check: Check,
    /// `check_interval_ms`: from one check to the next, in milliseconds; of a backend that is down, or of a yamux connection
    /// that was lost, the first step of a doubling pause. Default 2000. Range 10 to 3600000. Reloadable.
    pub check_interval_ms: u32,
    /// `check_interval_max_ms`: the longest of those pauses, in milliseconds. Default 30000. Range 10 to 3600000. Reloadable.
    pub check_interval_max_ms: u32,
    /// `check_timeout_ms`: a check without an answer for this long has failed, in milliseconds. Default 1000. Range 10 to
    /// 60000. Reloadable.
    pub check_timeout_ms: u32,
    /// `check_rise`: good checks in a row that bring a backend up. Default 1. Range 1 to 100 checks. Reloadable.
    pub check_rise: u32,
    /// `check_fall`: bad checks in a row that take it down. Default 3. Range 1 to 100 checks. Reloadable.
    pub check_fall: u32,
    /// `eject_after`: connections in a row that could not be made before a backend gets no new ones for a while; 0 = never.
    /// Default 5. Range 0 to 1000 connections. Reloadable.
    pub eject_after: u32,
    /// `eject_base_ms`: how long that while is at most for the first time, in milliseconds; then twice as long each time.
    /// Default 1000. Range 10 to 3600000. Reloadable.
    pub eject_base_ms: u32,
    /// `eject_max_ms`: how long it can become, in milliseconds. Default 60000. Range 10 to 3600000. Reloadable.
    pub eject_max_ms: u32,
}

/// How a backend is watched beside its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// By connecting to it.
    Connect,
    /// Not at all.
    Off,
}

/// Addresses of this host; none leaves the choice to the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(pub Vec<IpAddr>);

/// Who answers for names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// What the host is configured with.
    System,
    /// These DNS servers.
    At(Vec<SocketAddr>),
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            url: UpstreamUrl::Echo,
            backends: Vec::new(),
            each: BackendSettings::default(),
            policy: Policy::RoundRobin,
            on_loss: OnLoss::End,
            overflow: OnOverflow::Pause,
            wait_ms: 5000,
            deliver_ms: 10_000,
            pool_bytes_max: 64 << 20,
            connecting_max: 1024,
            tcp_buffer_bytes: 16 << 10,
            resolver: Resolver::System,
            resolve_interval_ms: 10_000,
            discovery_file: None,
            discovery_interval_ms: 2000,
            nats_gateway: GatewayId(None),
            nats_credentials: None,
        }
    }
}

impl Default for BackendSettings {
    fn default() -> Self {
        Self {
            framing: Framing::U32Be,
            proxy: true,
            links: 2,
            connect_ms: 3000,
            stall_ms: 10_000,
            linger_ms: 10_000,
            sources: Sources::default(),
            unacked_max: 256,
            check: Check::Connect,
            check_interval_ms: 2000,
            check_interval_max_ms: 30_000,
            check_timeout_ms: 1000,
            check_rise: 1,
            check_fall: 3,
            eject_after: 5,
            eject_base_ms: 1000,
            eject_max_ms: 60_000,
        }
    }
}

impl Upstream {
    /// Whether messages go to backends. Which it is cannot change while the gateway runs.
    #[must_use]
    pub const fn has_backends(&self) -> bool {
        matches!(self.url, UpstreamUrl::Backend(_))
            || !self.backends.is_empty()
            || self.discovery_file.is_some()
    }

    /// The NATS that messages go to, if they do.
    #[must_use]
    pub const fn nats(&self) -> Option<&NatsUrl> {
        match &self.url {
            UpstreamUrl::Nats(url) => Some(url),
            UpstreamUrl::Echo | UpstreamUrl::Backend(_) => None,
        }
    }

    /// The configured backends, the one of `url` under the name `upstream`.
    #[must_use]
    pub fn named(&self) -> Vec<Backend> {
        let single = match &self.url {
            UpstreamUrl::Echo | UpstreamUrl::Nats(_) => None,
            UpstreamUrl::Backend(url) => {
                Some(Backend { name: SINGLE.into(), url: url.clone(), weight: 1, settings: None })
            }
        };
        single.into_iter().chain(self.backends.iter().cloned()).collect()
    }

    /// The settings of `backend`.
    #[must_use]
    pub fn settings_of<'a>(&'a self, backend: &'a Backend) -> &'a BackendSettings {
        backend.settings.as_ref().unwrap_or(&self.each)
    }

    /// What is done with sessions, by key, in the words of the configuration.
    pub(crate) fn policies(&self) -> [(&'static str, Json); 3] {
        [
            ("policy", self.policy.show()),
            ("on_loss", self.on_loss.show()),
            ("overflow", self.overflow.show()),
        ]
    }

    /// Where messages go, in a few words.
    #[must_use]
    pub fn label(&self) -> String {
        let named = self.backends.iter().map(|b| format!("{} {}", b.name, b.url));
        let is_echo = self.url == UpstreamUrl::Echo && self.has_backends();
        let single = (!is_echo).then(|| self.url.to_string());
        let file = self.discovery_file.as_ref().map(|path| format!("those of {}", path.display()));
        single.into_iter().chain(named).chain(file).collect::<Vec<_>>().join(", ")
    }
}

impl BackendSettings {
    /// What a backend's health is judged by. Active checks are for `tcp`: a yamux connection has pings of its own.
    #[must_use]
    pub fn to_health(&self, checks: bool) -> HealthConfig {
        let check = CheckConfig {
            interval_ms: self.check_interval_ms,
            interval_max_ms: self.check_interval_max_ms,
            timeout_ms: self.check_timeout_ms,
            rise: self.check_rise,
            fall: self.check_fall,
        };
        HealthConfig {
            check: (checks && self.check == Check::Connect).then_some(check),
            eject_after: self.eject_after,
            eject_base_ms: self.eject_base_ms,
            eject_max_ms: self.eject_max_ms,
        }
    }
}

/// Backends that a configuration may name.
pub(super) const NAMED_MAX: usize = BACKENDS_MAX;
/// The name of the only backend.
pub const SINGLE: &str = "upstream";
