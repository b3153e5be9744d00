//! The gateway's connection to NATS: one thread beside the control plane, which owns the client, and its life.
//!
//! What the subjects mean is in [`upstream::nats`](crate::upstream::nats); shards are reached by its bridge alone.

mod engine;
mod rooms;
mod window;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use net_io::Waker;
use tokio::sync::Notify;

use crate::upstream::nats::bridge::Bridge;
use crate::upstream::nats::stats::NatsStats;
use engine::Engine;

/// Where the messaging engine is, and who the gateway is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsConfig {
    /// Servers as `nats://HOST:PORT` or `tls://HOST:PORT`, at least one.
    pub servers: Vec<String>,
    /// The gateway's id, unique among the gateways of the fleet.
    pub gateway: String,
    /// Drawn at random at each start; see [`Subjects::new`](crate::upstream::nats::subject::Subjects::new).
    pub run: u32,
    /// A credentials file, as `nsc` writes it.
    pub credentials: Option<std::path::PathBuf>,
}

/// The running connection.
#[derive(Debug)]
pub struct NatsThread {
    thread: JoinHandle<()>,
    stop: Arc<Notify>,
    stats: Arc<NatsStats>,
}

impl NatsThread {
    /// Starts connecting, again and again until it works. `wakers` wake the shards of `bridge`, in shard order.
    ///
    /// # Errors
    /// The thread or its runtime cannot be started.
    pub fn start(config: NatsConfig, bridge: &Bridge, wakers: Vec<Waker>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = Arc::new(Notify::new());
        let engine = Engine::new(config, bridge, wakers, Arc::clone(&stop));
        let stats = Arc::clone(&bridge.stats);
        let thread = thread::Builder::new()
            .name("kcp-nats".into())
            .spawn(move || runtime.block_on(engine.run()))?;
        Ok(Self { thread, stop, stats })
    }

    /// What is counted.
    #[must_use]
    pub fn stats(&self) -> &Arc<NatsStats> {
        &self.stats
    }

    /// Publishes what shards left behind, for a short while, and ends. Shards must have ended.
    pub fn stop(self) {
        self.stop.notify_one();
        // A panic on that thread has been printed by it.
        let _ = self.thread.join();
    }
}

/// From one attempt to connect to the next: doubling, to this.
const RETRY_MAX: Duration = Duration::from_secs(5);
const RETRY_MIN: Duration = Duration::from_millis(50);

/// How long to wait before attempt `n`, counted from 1.
fn pause(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    (RETRY_MIN * (1 << doublings)).min(RETRY_MAX)
}
