//! What shards with backends are given, and the control plane's end of it.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::channel::{Sender, bounded};
use net_io::{StreamConfig, Waker, clock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::control::backends::Directory;
use crate::control::backends::registry::Registry;
use crate::control::backends::service::{REPORTS_MAX, Service};
use crate::control::command::ShardReport;
use crate::control::nats::{NatsConfig, NatsThread};
use crate::doctor::files_beside_sessions;
use crate::error::StartError;
use crate::shard::backend_stats::SharedBackendStats;
use crate::shard::{BackendSetup, NatsSetup, Upstream};
use crate::sizing::Sizes;
use crate::upstream::backend::{Backends, OnOverflow};
use crate::upstream::nats::bridge::{Bridge, Limits};
use crate::upstream::nats::stats::NatsStats;

/// Both ends of the backends before they are apart.
pub(super) struct Wiring {
    backends: Arc<Backends>,
    pool_bytes_max: usize,
    listen_addrs: Vec<SocketAddr>,
    reports: Sender<ShardReport>,
    streams: StreamConfig,
}

impl Wiring {
    /// What `config` wants; `None` where messages are echoed.
    pub(super) fn new(
        config: &Config,
        sizes: &Sizes,
        listen_addrs: Vec<SocketAddr>,
        seed: u64,
    ) -> Option<(Self, Service)> {
        if !config.upstream.has_backends() {
            return None;
        }
        let files = raise_file_limit();
        let registry = Registry::new(clock::monotonic(), config, sizes.shards.into(), seed);
        let backends = Arc::new(registry.list());
        let (sender, reports) = bounded(REPORTS_MAX);
        let directory = Arc::new(Directory::new(registry));
        let published = Arc::clone(&backends);
        let wiring = Self {
            backends,
            pool_bytes_max: usize::try_from(config.upstream.pool_bytes_max).unwrap_or(usize::MAX),
            listen_addrs,
            reports: sender,
            streams: streams(config, sizes, files),
        };
        Some((wiring, Service { directory, reports, published }))
    }

    /// One shard's part, which publishes to `stats`.
    pub(super) fn for_shard(&self, stats: SharedBackendStats) -> Upstream {
        Upstream::Backends(BackendSetup {
            backends: Arc::clone(&self.backends),
            pool_bytes_max: self.pool_bytes_max,
            listen_addrs: self.listen_addrs.clone(),
            reports: self.reports.clone(),
            stats,
        })
    }

    /// What a shard's driver needs for its connections.
    pub(super) fn streams(&self) -> StreamConfig {
        self.streams.clone()
    }
}

/// The way to NATS before its ends are apart.
pub(super) struct Bridging {
    bridge: Bridge,
    config: NatsConfig,
    listen_addrs: Vec<SocketAddr>,
    on_overflow: OnOverflow,
    linger_ms: u32,
}

impl Bridging {
    /// What `config` wants; `None` where messages do not go to NATS.
    ///
    /// # Errors
    /// There are no random numbers.
    pub(super) fn new(
        config: &Config,
        sizes: &Sizes,
        listen_addrs: &[SocketAddr],
    ) -> Result<Option<Self>, StartError> {
        let Some(url) = config.upstream.nats() else { return Ok(None) };
        let limits = Limits { messages: QUEUE_MESSAGES, bytes: QUEUE_BYTES };
        Ok(Some(Self {
            bridge: Bridge::new(sizes.shards.into(), limits),
            config: NatsConfig {
                servers: url.servers(),
                gateway: config.upstream.nats_gateway.resolve(),
                run: getrandom::u32().map_err(StartError::Random)?,
                credentials: config.upstream.nats_credentials.clone(),
            },
            listen_addrs: listen_addrs.to_vec(),
            on_overflow: config.upstream.overflow,
            linger_ms: config.upstream.deliver_ms,
        }))
    }

    /// One shard's part.
    pub(super) fn for_shard(&self, index: usize) -> Upstream {
        Upstream::Nats(NatsSetup {
            end: self.bridge.shard_end(index),
            listen_addrs: self.listen_addrs.clone(),
            on_overflow: self.on_overflow,
            linger_ms: self.linger_ms,
        })
    }

    /// What is counted.
    pub(super) fn stats(&self) -> Arc<NatsStats> {
        Arc::clone(&self.bridge.stats)
    }

    /// Starts connecting.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub(super) fn start(self, wakers: Vec<Waker>) -> Result<NatsThread, StartError> {
        let failed = |source| StartError::Thread { thread: "kcp-nats".into(), source };
        NatsThread::start(self.config, &self.bridge, wakers).map_err(failed)
    }
}

/// A connection for each session a shard may hold, a quarter more for those whose session has ended and that the backend has
/// not finished, and the links; of the `files` that may be open no more than leave the control plane what it needs: operator,
/// checks and reloads have to get through when the sessions have taken all they may.
fn streams(config: &Config, sizes: &Sizes, files: Option<u64>) -> StreamConfig {
    let sessions = sizes.sessions_per_shard;
    let streams = sessions.saturating_add(sessions / 4).saturating_add(LINKS_MAX);
    let left = files.map_or(u64::MAX, |files| {
        let reserved = files_beside_sessions(sizes, config) + ASKED_MAX;
        (files - reserved.min(files / 2)) / u64::from(sizes.shards)
    });
    if let Some(files) = files.filter(|_| u64::from(streams) > left) {
        tracing::info!(files, per_shard = left, "open files bound the connections to backends");
    }
    let streams = streams.min(u32::try_from(left).unwrap_or(u32::MAX));
    StreamConfig {
        streams_max: streams.min(STREAMS_MAX),
        connecting_max: config.upstream.connecting_max,
        send_buffer: config.upstream.tcp_buffer_bytes as usize,
        recv_buffer: config.upstream.tcp_buffer_bytes as usize,
        ..StreamConfig::default()
    }
}

/// Takes what the host allows this process, and tells how much that is, if it is bounded: a session over `tcp` is a
/// descriptor, and the usual 1,024 are few. Doctor and metrics name what is left.
fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    let raised = Rlimit { current: limit.maximum, ..limit };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => {
            tracing::info!(from = limit.current, to = limit.maximum, "limit of open files raised");
            limit.maximum
        }
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            limit.current
        }
    }
}

/// Links and names asked for at once.
const ASKED_MAX: u64 = 64;
/// 64 addresses with 16 links each.
const LINKS_MAX: u32 = 1024;
/// What handles have room for.
const STREAMS_MAX: u32 = 1 << 24;
/// Messages that may wait between a shard and the connection to NATS, each way.
const QUEUE_MESSAGES: usize = 8192;
/// Their bytes.
const QUEUE_BYTES: usize = 16 << 20;
