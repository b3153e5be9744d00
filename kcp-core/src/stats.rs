//! Plain counters, accumulated per store and so per shard: an idle session carries none of them.

/// What happened to all sessions that used one [`Store`](crate::Store). Monotonic; wraps after 2^64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segments transmitted for the first time.
    pub segments_sent: u64,
    /// Segments transmitted again because their timeout passed.
    pub resends_timeout: u64,
    /// Segments transmitted again because later ones were acknowledged.
    pub resends_fast: u64,
    /// Window probes (WASK) written.
    pub probes_sent: u64,
    /// PUSH segments taken, whether delivered at once or queued.
    pub pushes_accepted: u64,
    /// PUSH segments received before; acknowledged again, payload dropped.
    pub pushes_duplicate: u64,
    /// PUSH segments dropped without acknowledgement: at or past the receive window.
    pub pushes_beyond_window: u64,
    /// PUSH segments dropped without acknowledgement: the store was full. The peer sends them again.
    pub pushes_without_storage: u64,
    /// Windows announced as closed although slots were free: messages waited to be read, and the store was short.
    pub windows_withheld: u64,
    /// Acknowledgements not queued because `2 * rcv_wnd` were waiting already (strict input).
    pub acks_dropped: u64,
    /// Round-trip samples above 60,000 ms, not believed (strict input).
    pub rtt_samples_dropped: u64,
    /// Requests for memory that the store's bound refused.
    pub store_full: u64,
}
