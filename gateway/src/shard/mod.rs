//! One shard: one thread, one driver, its own sessions, timers and counters. Nothing here is shared but counters out and
//! commands in.

pub mod stats;

use std::io;
use std::sync::Arc;

use crossbeam::channel::Receiver;
use kcp_core::KcpConfig;
use net_io::steer::Steering;
use net_io::{Driver, Waker};

use crate::control::command::ShardCommand;
use stats::SharedStats;

/// What a shard's decisions depend on and what a reload may change. Shared by all shards, replaced as a whole.
#[derive(Clone, Debug)]
pub struct Policy {
    /// KCP settings per listener, in listener order.
    pub listeners: Vec<KcpConfig>,
    /// Sessions this shard may hold.
    pub sessions_max: u32,
    /// A session with no valid traffic for this long ends, in milliseconds.
    pub idle_timeout_ms: u32,
    /// How long the key of an ended session is remembered, in milliseconds.
    pub tombstone_ms: u32,
    /// Remembered keys at most; beyond it the oldest is forgotten.
    pub tombstones_max: u32,
    /// Bytes one session may have queued towards its client before its receive window closes.
    pub session_bytes_max: u32,
}

/// What a shard is built with and keeps for life.
#[derive(Debug)]
pub struct Setup<D: Driver> {
    /// This shard's number, from 0.
    pub index: u32,
    /// The driver, built on the shard's own thread.
    pub driver: D,
    /// The sockets, in listener order: this shard's member of each listener's group.
    pub sockets: Vec<D::Socket>,
    /// Who owns a conversation; `None` per listener where the kernel's own address hash decides.
    pub steering: Vec<Option<Steering>>,
    /// The first policy.
    pub policy: Arc<Policy>,
    /// Bytes the store may hold.
    pub store_bytes_max: usize,
    /// Random; keys the session table's hash.
    pub seed: u64,
    /// Commands from the control plane; the sender wakes the driver after sending.
    pub commands: Receiver<ShardCommand>,
    /// Where the counters are published.
    pub stats: SharedStats,
    /// This shard's end of the handoff between shards.
    pub handoff: Handoff,
}

/// One shard's end of the queues that carry strays to their owners.
#[derive(Debug)]
pub struct Handoff {}

impl Handoff {
    /// One end per shard, each with room for `capacity` strays of up to `datagram_max` bytes.
    #[must_use]
    pub fn mesh(shards: usize, capacity: usize, datagram_max: usize) -> Vec<Self> {
        let _ = (shards, capacity, datagram_max);
        todo!()
    }

    /// Tells how to wake the other shards, in shard order, once their drivers exist.
    pub fn set_wakers(&mut self, wakers: Vec<Waker>) {
        let _ = wakers;
        todo!()
    }
}

/// One shard.
#[derive(Debug)]
pub struct Shard<D: Driver> {
    setup: Setup<D>,
}

impl<D: Driver> Shard<D> {
    /// Takes over the sockets and starts receiving with the first turn.
    ///
    /// # Errors
    /// The driver's, adding a socket.
    pub fn new(setup: Setup<D>) -> io::Result<Self> {
        Ok(Self { setup })
    }

    /// Turns until [`ShardCommand::Stop`].
    ///
    /// # Errors
    /// The driver is unusable.
    pub fn run(&mut self) -> io::Result<()> {
        let _ = &self.setup;
        todo!()
    }
}
