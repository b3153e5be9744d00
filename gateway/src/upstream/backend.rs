//! The backends as the control plane publishes them and as shards use them.

use std::net::IpAddr;
use std::sync::Arc;

use net_io::StreamAddr;

use super::framing::Codec;
use super::link::LinkConfig;
use super::{route, yamux};

/// Backends at once, those that only finish their last sessions included: the length of every table by [`BackendId`].
pub const BACKENDS_MAX: usize = 64;

/// A backend's place in every shard's tables, below [`BACKENDS_MAX`].
///
/// It belongs to one backend of one kind and one framing for as long as any shard counts a session or a link under it; only
/// then may the control plane give it to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u16);

impl BackendId {
    /// The place as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How sessions reach a backend, with what all of them have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection for each session, made by its shard.
    Tcp(LinkConfig),
    /// A stream for each session, on the few connections that the control plane makes and shards adopt.
    Yamux(yamux::Config),
    /// Messages by way of the control plane's connection to NATS.
    Nats,
}

impl Kind {
    /// The name in the configuration and in the metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Yamux(_) => "yamux",
            Self::Nats => "nats",
        }
    }

    /// Framing and message length on byte streams.
    #[must_use]
    pub const fn codec(&self) -> Option<&Codec> {
        match self {
            Self::Tcp(config) => Some(&config.codec),
            Self::Yamux(config) => Some(&config.codec),
            Self::Nats => None,
        }
    }
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its place.
    pub id: BackendId,
    /// Its name in the configuration, in the API and in the metrics.
    pub name: Arc<str>,
    /// How sessions reach it.
    pub kind: Kind,
    /// `tcp`: where it listens; sessions are spread over them. More sessions than one address has ports for need several.
    /// None is as good as not usable.
    pub addresses: Vec<StreamAddr>,
    /// `tcp`: addresses of this host to connect from, in turn; empty leaves it to the kernel.
    pub sources: Vec<IpAddr>,
    /// Its share of new sessions, relative to the others'; 0 gets none.
    pub weight: u16,
    /// What it is known by to the rendezvous; see [`route::key`].
    pub key: u64,
    /// Its health allows new sessions.
    pub usable: bool,
    /// The operator allows it none.
    pub draining: bool,
    /// Each session begins with a PROXY header.
    pub proxy: bool,
}

impl Backend {
    /// It may get new sessions.
    #[must_use]
    pub const fn takes_sessions(&self) -> bool {
        self.usable && !self.draining && self.weight > 0
    }
}

/// What becomes of sessions whose backend is lost or cannot be gone on with, as opposed to one that ends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum OnLoss {
    /// They end.
    #[default]
    End,
    /// They get another backend with their next message. What was under way is lost, in both directions.
    Reroute,
}

/// What becomes of a session whose client takes less than its backend sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum OnOverflow {
    /// Its backend waits: nothing more is read from it for this session until the client has caught up.
    #[default]
    Pause,
    /// It ends.
    Disconnect,
}

/// All backends, shared by all shards and replaced as a whole.
///
/// A backend that is missing from a later list is as one that drains: it gets no new sessions, and those that it has go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backends {
    /// How a new session's backend is chosen.
    pub policy: route::Policy,
    /// What becomes of sessions whose backend is lost.
    pub on_loss: OnLoss,
    /// What becomes of sessions whose client is too slow.
    pub on_overflow: OnOverflow,
    /// How long a session may wait for a usable backend or for a connection to be begun before it ends, in milliseconds.
    pub wait_ms: u32,
    /// How long a session that its backend has ended may live on until its client has received everything, in milliseconds.
    pub linger_ms: u32,
    /// The backends, at most [`BACKENDS_MAX`], each id once.
    pub list: Vec<Backend>,
}
