//! What is counted of the connection to NATS, by its own thread and, where a message is lost, by shards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::shard::stats::closed_enum;

closed_enum! {
    /// Counters and gauges without a reason.
    NatsStat {
        /// Gauge: 1 while there is a connection.
        Connected => "connected",
        /// Connections made.
        Connects => "connects",
        /// Messages of clients published.
        Published => "published",
        /// Their bytes.
        PublishedBytes => "published_bytes",
        /// Messages for clients that were handed to their shards; one for a room counts for each member.
        Delivered => "delivered",
        /// Their bytes.
        DeliveredBytes => "delivered_bytes",
        /// Gauge: most bytes received before they were looked at, since the connection was made.
        ReceivedPeakBytes => "received_peak_bytes",
        /// Gauge: rooms with members.
        Rooms => "rooms",
        /// Gauge: memberships of sessions in rooms.
        Members => "members",
    }
}

closed_enum! {
    /// Why a message was lost.
    Loss {
        /// Sent, and the connection broke before the server had confirmed that it had come so far: it may have arrived.
        Unconfirmed => "unconfirmed",
        /// Published, and nobody subscribes to it.
        NoBackend => "no_backend",
        /// The server takes no message of this length.
        TooLongForServer => "too_long_for_server",
        /// Received faster than this process took it.
        Overrun => "overrun",
        /// For a session that is not or no longer there.
        NoSession => "no_session",
        /// For a room that nobody here is in, by its gateway's name.
        NoMember => "no_member",
        /// Its subject, its header or the room it names is not one of those in the table.
        BadRequest => "bad_request",
        /// A room more than a session, or than all sessions together, may be in.
        RoomLimit => "room_limit",
        /// Too many messages wait for the session's shard.
        ShardFull => "shard_full",
        /// Too much waits for the session's client.
        SlowClient => "slow_client",
        /// The shard has no memory left for messages on their way to clients.
        StoreFull => "store_full",
        /// Empty: KCP has no such message.
        Empty => "empty",
        /// Longer than the session's listener allows.
        TooLong => "too_long",
    }
}

/// The numbers. Losses are rare and counted where they happen; all else is counted by one thread.
#[derive(Debug)]
pub struct NatsStats {
    stats: [AtomicU64; NatsStat::COUNT],
    losses: [AtomicU64; Loss::COUNT],
    /// Why there is no connection.
    trouble: Mutex<String>,
}

impl Default for NatsStats {
    fn default() -> Self {
        Self {
            stats: [const { AtomicU64::new(0) }; NatsStat::COUNT],
            losses: [const { AtomicU64::new(0) }; Loss::COUNT],
            trouble: Mutex::new("not connected yet".to_owned()),
        }
    }
}

impl NatsStats {
    /// A counter or gauge.
    #[must_use]
    pub fn get(&self, stat: NatsStat) -> u64 {
        self.stats[stat as usize].load(Ordering::Relaxed)
    }

    /// Messages lost for one reason.
    #[must_use]
    pub fn losses(&self, reason: Loss) -> u64 {
        self.losses[reason as usize].load(Ordering::Relaxed)
    }

    /// Messages lost for any reason.
    #[must_use]
    pub fn lost(&self) -> u64 {
        Loss::ALL.iter().map(|reason| self.losses(*reason)).sum()
    }

    /// Why there is no connection; `None` while there is one.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        (self.get(NatsStat::Connected) == 0).then(|| format!("nats: {trouble}"))
    }

    pub(crate) fn on_trouble(&self, why: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Adds to a counter.
    pub(crate) fn add(&self, stat: NatsStat, n: u64) {
        self.stats[stat as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub(crate) fn set(&self, stat: NatsStat, value: u64) {
        self.stats[stat as usize].store(value, Ordering::Relaxed);
    }

    /// Counts lost messages.
    pub(crate) fn lose(&self, reason: Loss, n: u64) {
        self.losses[reason as usize].fetch_add(n, Ordering::Relaxed);
    }
}
