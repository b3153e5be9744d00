//! The whole vocabulary between the planes.

use std::sync::Arc;

use net_io::{ConnectError, StreamSocket};

use super::question::Ask;
use crate::shard::Policy;
use crate::shard::backend_stats::{ConnectFailure, LinkEnd};
use crate::upstream::backend::{BackendId, Backends};

/// What the control plane asks of a shard. Applied once per turn, before traffic, never in its middle.
///
/// `S` is what the shard's driver adopts: a socket, or its simulation.
#[derive(Debug)]
pub enum ShardCommand<S = StreamSocket> {
    /// Admit no new sessions; live ones run on.
    Drain,
    /// Admit new sessions again.
    Undrain,
    /// Use this policy from the next turn on.
    Reload(Arc<Policy>),
    /// Use these backends from the next turn on.
    Backends(Arc<Backends>),
    /// Use this connection for sessions of this `yamux` backend, which a list sent before has named.
    Adopt {
        /// The backend.
        backend: BackendId,
        /// The connection, made just now.
        stream: S,
    },
    /// Answer a question about sessions, one a turn.
    Sessions(Ask),
    /// Leave the loop after this turn.
    Stop,
}

/// What a shard tells the control plane. Never waits: when the queue is full the report is dropped and counted
/// (`Stat::ReportsLost`), so whoever counts by reports looks at the shard's published gauges now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardReport {
    /// The shard.
    pub shard: u32,
    /// The backend.
    pub backend: BackendId,
    /// What happened.
    pub what: Report,
}

/// What happened to a backend, as a shard saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// A session's connection was made. Told once after each failure and after each new list of backends, not for
    /// every connection.
    Connected,
    /// A session's connection could not be made.
    Failed(ConnectFailure),
    /// An adopted link is in use.
    LinkUp,
    /// An adopted link could not be put to use; it is closed.
    LinkRefused(ConnectError),
    /// A link takes no new sessions any more, and runs on with those it has: it wants to be replaced. The last report of this
    /// link.
    LinkRetired(LinkEnd),
    /// A link is over, and its sessions have lost it. The last report of this link.
    LinkLost(LinkEnd),
}
