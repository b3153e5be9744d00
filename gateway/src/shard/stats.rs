//! What a shard counts: plain numbers on its own thread, published once per turn for any thread to read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use kcp_core::{Millis, Store};
use net_io::{Counters, StreamCounters};

use crate::session::{Look, Session, resent_ppm};

macro_rules! closed_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every variant, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name used in metrics and in the API.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

pub(crate) use closed_enum;

closed_enum! {
    /// Why a datagram or a message went no further. A datagram that ends early ends in exactly one of these.
    DropReason {
        /// Shorter than one segment header.
        Short => "short",
        /// A segment of it names another conversation than the first.
        WrongConv => "wrong_conv",
        /// A segment announces more payload than the datagram holds.
        BadLength => "bad_length",
        /// A segment's command is unknown.
        UnknownCommand => "unknown_command",
        /// Its `una` acknowledges what was never sent.
        UnaBeyondSent => "una_beyond_sent",
        /// An ACK names what was never sent.
        AckBeyondSent => "ack_beyond_sent",
        /// A fragment number that no receive window could complete.
        FragmentBeyondWindow => "fragment_beyond_window",
        /// A payload where none belongs.
        PayloadOnControl => "payload_on_control",
        /// From an unknown key, and not a whole valid first segment.
        NotABirth => "not_a_birth",
        /// From a sender that has received nothing, where the session's client acknowledged data: late, or a restart that the
        /// challenge has not confirmed yet.
        StaleStart => "stale_start",
        /// Its key ended recently.
        Tombstone => "tombstone",
        /// The session cap is reached.
        SessionCap => "session_cap",
        /// The gateway drains.
        Draining => "draining",
        /// The shard is overloaded, and this would be a new session.
        Overload => "overload",
        /// Another shard's, and that shard's handoff queue is full.
        HandoffFull => "handoff_full",
        /// An empty message.
        EmptyMessage => "empty_message",
        /// A message longer than the session's budget.
        MessageTooLong => "message_too_long",
        /// A message that had not been handed to a backend when its session ended.
        SessionEnded => "session_ended",
        /// An answer that would exceed what an unproven address may be sent.
        Amplification => "amplification",
    }
}

closed_enum! {
    /// Why a session ended.
    EndReason {
        /// A segment was sent too often without an answer.
        DeadLink => "dead_link",
        /// No sign of the client for the idle timeout.
        Idle => "idle",
        /// Three challenges without an answer.
        Keepalive => "keepalive",
        /// The client restarted; its next attempt begins a new session.
        Restart => "restart",
        /// A message that can never be delivered.
        MessageTooLong => "message_too_long",
        /// The operator closed it.
        Operator => "operator",
        /// Its backend closed, and the client was given time to receive everything.
        BackendFin => "backend_fin",
        /// Its backend closed in the middle of a message.
        BackendFinMidMessage => "backend_fin_mid_message",
        /// Its backend cut it off, or died.
        BackendReset => "backend_reset",
        /// Its backend refused it.
        BackendRefused => "backend_refused",
        /// The connection to its backend could not be made.
        BackendConnectFailed => "backend_connect_failed",
        /// Making the connection to its backend took too long.
        BackendConnectTimeout => "backend_connect_timeout",
        /// Its backend began a message and did not go on.
        BackendStalled => "backend_stalled",
        /// Its backend announced a message longer than allowed.
        BackendTooLong => "backend_too_long",
        /// The link to its backend was lost.
        BackendLinkLost => "backend_link_lost",
        /// No backend took it in time.
        NoBackend => "no_backend",
        /// Its client takes less than its backend sends, and the configuration says that such sessions end.
        SlowClient => "slow_client",
        /// No memory was left for what its backend sent.
        PoolFull => "pool_full",
        /// Its client took what its backend sent more slowly than others when memory ran short.
        Shed => "shed",
        /// It kept more of the store than others, for longer, with a message that it did not finish, when the store was full.
        Unfinished => "unfinished",
        /// The gateway stopped.
        Stop => "stop",
    }
}

closed_enum! {
    /// A shard's other counters and gauges.
    Stat {
        /// Gauge: live sessions of players.
        Sessions => "sessions",
        /// Gauge: remembered keys of ended sessions.
        Tombstones => "tombstones",
        /// Keys forgotten before their time, because more sessions ended than may be remembered.
        TombstonesForgotten => "tombstones_forgotten",
        /// Gauge: bytes held in the shard's store.
        StoreBytes => "store_bytes",
        /// Gauge: the store's bound in bytes.
        StoreBytesMax => "store_bytes_max",
        /// Sessions born.
        Births => "births",
        /// Sessions of the gateway's own prober.
        Probes => "probes",
        /// Messages received whole from clients.
        MessagesIn => "messages_in",
        /// Their bytes.
        MessageBytesIn => "message_bytes_in",
        /// Messages queued towards clients.
        MessagesOut => "messages_out",
        /// Their bytes.
        MessageBytesOut => "message_bytes_out",
        /// Strays handed to their owner.
        HandoffOut => "handoff_out",
        /// Strays received from other shards.
        HandoffIn => "handoff_in",
        /// Turns of the loop.
        Turns => "turns",
        /// Turns that ended with work left over by a budget.
        TurnsOverBudget => "turns_over_budget",
        /// Gauge: 1 while new sessions are turned away because of overload.
        Shedding => "shedding",
        /// Gauge: milliseconds since everything that had arrived was taken in.
        BehindMs => "behind_ms",
        /// Timers that expired.
        TimersExpired => "timers_expired",
        /// Gauge: bytes the store keeps for reuse.
        StoreBytesRecycled => "store_bytes_recycled",
        /// Silent clients asked whether they are there.
        ChallengesSent => "challenges_sent",
        /// Clients told, during a drain, where to go instead.
        Farewells => "farewells",
        /// Gauge: clients that announce no room.
        ClientsStalled => "clients_stalled",
        /// Segments sent for the first time.
        SegmentsSent => "segments_sent",
        /// Segments sent again because their RTO passed.
        RtoResends => "rto_resends",
        /// Segments sent again because later ones were acknowledged.
        FastResends => "fast_resends",
        /// Window probes sent.
        WindowProbes => "window_probes",
        /// PUSH segments taken.
        PushesAccepted => "pushes_accepted",
        /// PUSH segments received before; acknowledged again.
        PushesDuplicate => "pushes_duplicate",
        /// PUSH segments at or past the receive window; the client sends them again.
        PushesBeyondWindow => "pushes_beyond_window",
        /// PUSH segments that the full store had no place for; the client sends them again.
        PushesWithoutStorage => "pushes_without_storage",
        /// Windows announced as closed although slots were free: the store is short, and messages wait to be read.
        WindowsWithheld => "windows_withheld",
        /// Acknowledgements not queued because a session owed too many already.
        AcksDropped => "acks_dropped",
        /// Round-trip samples too long to be believed.
        RttSamplesDropped => "rtt_samples_dropped",
        /// Requests for memory that the store's bound refused.
        StoreFull => "store_full",
        /// Datagrams received.
        RxDatagrams => "rx_datagrams",
        /// Their payload bytes.
        RxBytes => "rx_bytes",
        /// Datagrams longer than the limit, dropped.
        RxTruncated => "rx_truncated",
        /// Empty datagrams, dropped.
        RxEmpty => "rx_empty",
        /// Receive operations that failed.
        RxErrors => "rx_errors",
        /// Times the receive buffers ran dry.
        RxDry => "rx_dry",
        /// Receives armed again.
        RxRearmed => "rx_rearmed",
        /// Datagrams the kernel dropped because a receive buffer was full.
        RxOverflow => "rx_overflow",
        /// Datagrams sent.
        TxDatagrams => "tx_datagrams",
        /// Their payload bytes.
        TxBytes => "tx_bytes",
        /// Send operations.
        TxSends => "tx_sends",
        /// Datagrams lost to a full send buffer.
        TxFull => "tx_full",
        /// Datagrams lost to another send error.
        TxErrors => "tx_errors",
        /// System calls of the driver.
        Enters => "enters",
        /// Wake-ups by other threads.
        Wakes => "wakes",
        /// Bytes queued or in flight towards clients when their sessions ended.
        UndeliveredBytes => "undelivered_bytes",
        /// Gauge: sessions that wait for a backend.
        SessionsWaiting => "sessions_waiting",
        /// Gauge: bytes that wait between sessions and backends.
        PoolBytes => "pool_bytes",
        /// Gauge: their bound.
        PoolBytesMax => "pool_bytes_max",
        /// Gauge: connections to backends, those being made included.
        Streams => "streams",
        /// Gauge: bytes that wait for the kernel to take them towards backends.
        StreamBytesQueued => "stream_bytes_queued",
        /// Reads from backends.
        StreamReads => "stream_reads",
        /// Reads from backends that had to wait for a buffer.
        StreamReadsDry => "stream_reads_dry",
        /// Sends to backends.
        StreamSends => "stream_sends",
        /// Sends to backends that did not take everything.
        StreamSendsBlocked => "stream_sends_blocked",
        /// Writes to backends cut short by a bound of ours.
        StreamWritesHeld => "stream_writes_held",
        /// Reports that the control plane's full queue did not take.
        ReportsLost => "reports_lost",
    }
}

closed_enum! {
    /// Distributions: of times in microseconds, of parts in millionths.
    Histogram {
        /// From a challenge to its answer.
        ChallengeRtt => "challenge_rtt",
        /// The smoothed round trip of each client that was busy, once in each period of eight seconds.
        ClientRtt => "client_rtt",
        /// Of what such a client was sent in its period, the part that was sent again.
        ClientResent => "client_resent",
        /// Of what an ended session was sent in its life, the part that was sent again.
        SessionResent => "session_resent",
        /// For how long a client announced no room.
        Stalled => "stalled",
        /// A turn that did much, its system call included: see `Shard`. Turns that did little are not timed.
        BusyTurn => "busy_turn",
        /// What such a turn used of the processor itself.
        BusyTurnCpu => "busy_turn_cpu",
    }
}

impl Histogram {
    /// Upper bounds of the buckets, in microseconds or millionths; one more bucket takes what lies above.
    #[must_use]
    pub const fn bounds(self) -> &'static [u32; BOUNDS] {
        match self {
            Self::ChallengeRtt | Self::ClientRtt | Self::BusyTurn | Self::BusyTurnCpu => &TIMES_US,
            Self::ClientResent | Self::SessionResent => &PARTS_PPM,
            Self::Stalled => &LONG_TIMES_US,
        }
    }

    /// A bucket for each bound and one above.
    const BUCKETS: usize = BOUNDS + 1;
    /// The buckets, the sum and the longest.
    const VALUES: usize = Self::BUCKETS + 2;

    const fn place(self) -> usize {
        SCALARS + self as usize * Self::VALUES
    }
}

/// Bounds of a histogram.
const BOUNDS: usize = 13;

const TIMES_US: [u32; BOUNDS] = [
    1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000,
];
const LONG_TIMES_US: [u32; BOUNDS] = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];
/// The first bucket takes those of whom nothing was sent again.
const PARTS_PPM: [u32; BOUNDS] = [
    0, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 150_000, 200_000, 300_000, 500_000,
    1_000_000,
];

/// What was observed of one [`Histogram`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed<'a> {
    /// The buckets' upper bounds.
    pub bounds: &'static [u32],
    /// Observations per bucket, the last above all bounds.
    pub counts: &'a [u64],
    /// Their sum, in microseconds or millionths.
    pub sum: u64,
    /// The longest.
    pub max: u64,
}

const SCALARS: usize = Stat::COUNT + DropReason::COUNT + EndReason::COUNT;
const LEN: usize = SCALARS + Histogram::COUNT * Histogram::VALUES;

/// One shard's numbers. The shard's own copy is plain memory; [`SharedStats`] carries the published one.
#[derive(Clone, Debug)]
pub struct Stats {
    values: [u64; LEN],
    /// Which distributions changed since they were published, a bit each.
    observed: u32,
}

impl Default for Stats {
    fn default() -> Self {
        Self { values: [0; LEN], observed: 0 }
    }
}

impl Stats {
    /// Adds to a counter.
    pub fn add(&mut self, stat: Stat, n: u64) {
        self.values[stat as usize] += n;
    }

    /// Sets a gauge, or a counter that is kept elsewhere.
    pub fn set(&mut self, stat: Stat, value: u64) {
        self.values[stat as usize] = value;
    }

    /// Counts one drop.
    pub fn drop(&mut self, reason: DropReason) {
        self.values[Stat::COUNT + reason as usize] += 1;
    }

    /// Adds one observation, in microseconds or millionths, to a distribution.
    pub fn observe(&mut self, histogram: Histogram, value: u64) {
        self.observed |= 1 << histogram as u8;
        let bucket = histogram.bounds().partition_point(|&bound| u64::from(bound) < value);
        let place = histogram.place();
        self.values[place + bucket] += 1;
        self.values[place + Histogram::BUCKETS] += value;
        let max = &mut self.values[place + Histogram::BUCKETS + 1];
        *max = value.max(*max);
    }

    /// What was observed so far.
    #[must_use]
    pub fn histogram(&self, histogram: Histogram) -> Observed<'_> {
        let place = histogram.place();
        let sum = place + Histogram::BUCKETS;
        Observed {
            bounds: histogram.bounds(),
            counts: &self.values[place..sum],
            sum: self.values[sum],
            max: self.values[sum + 1],
        }
    }

    /// Takes over what a look at a live session found.
    pub(super) fn look(&mut self, look: &Look) {
        if let Some(ms) = look.srtt_ms {
            self.observe(Histogram::ClientRtt, u64::from(ms) * 1000);
        }
        if let Some(ppm) = look.resent_ppm {
            self.observe(Histogram::ClientResent, ppm.into());
        }
        if let Some(ms) = look.stalled_ms {
            self.observe(Histogram::Stalled, u64::from(ms) * 1000);
            self.values[Stat::ClientsStalled as usize] -= 1;
        }
        self.add(Stat::ClientsStalled, look.stalls.into());
    }

    /// Takes over what a session leaves behind.
    pub(super) fn last_look(&mut self, session: &Session, now: Millis) {
        if let Some(ppm) = resent_ppm(&session.kcp) {
            self.observe(Histogram::SessionResent, ppm.into());
        }
        let stalled_ms = session.vitals.stalled_for(now);
        self.look(&Look { stalled_ms, ..Look::default() });
    }

    /// Counts one session's end.
    pub fn end(&mut self, reason: EndReason) {
        self.values[Stat::COUNT + DropReason::COUNT + reason as usize] += 1;
    }

    /// Takes over what the driver counted.
    pub fn driver(&mut self, c: &Counters) {
        for (stat, value) in [
            (Stat::RxDatagrams, c.rx_datagrams),
            (Stat::RxBytes, c.rx_bytes),
            (Stat::RxTruncated, c.rx_truncated),
            (Stat::RxEmpty, c.rx_empty),
            (Stat::RxErrors, c.rx_errors),
            (Stat::RxDry, c.rx_dry),
            (Stat::RxRearmed, c.rx_rearmed),
            (Stat::RxOverflow, c.rx_overflow),
            (Stat::TxDatagrams, c.tx_datagrams),
            (Stat::TxBytes, c.tx_bytes),
            (Stat::TxSends, c.tx_sends),
            (Stat::TxFull, c.tx_full),
            (Stat::TxErrors, c.tx_errors),
            (Stat::Enters, c.enters),
            (Stat::Wakes, c.wakes),
        ] {
            self.set(stat, value);
        }
    }

    /// Takes over what the driver's streams counted.
    pub fn streams(&mut self, c: &StreamCounters) {
        for (stat, value) in [
            (Stat::Streams, c.open),
            (Stat::StreamBytesQueued, c.queued_bytes),
            (Stat::StreamReads, c.rx_reads),
            (Stat::StreamReadsDry, c.rx_dry),
            (Stat::StreamSends, c.tx_sends),
            (Stat::StreamSendsBlocked, c.tx_blocked),
            (Stat::StreamWritesHeld, c.tx_held),
        ] {
            self.set(stat, value);
        }
    }

    /// Takes over what the store holds and counted.
    pub fn store(&mut self, store: &Store) {
        let c = store.stats();
        for (stat, value) in [
            (Stat::StoreBytes, store.bytes_used() as u64),
            (Stat::StoreBytesRecycled, store.bytes_recycled() as u64),
            (Stat::SegmentsSent, c.segments_sent),
            (Stat::RtoResends, c.resends_timeout),
            (Stat::FastResends, c.resends_fast),
            (Stat::WindowProbes, c.probes_sent),
            (Stat::PushesAccepted, c.pushes_accepted),
            (Stat::PushesDuplicate, c.pushes_duplicate),
            (Stat::PushesBeyondWindow, c.pushes_beyond_window),
            (Stat::PushesWithoutStorage, c.pushes_without_storage),
            (Stat::WindowsWithheld, c.windows_withheld),
            (Stat::AcksDropped, c.acks_dropped),
            (Stat::RttSamplesDropped, c.rtt_samples_dropped),
            (Stat::StoreFull, c.store_full),
        ] {
            self.set(stat, value);
        }
    }

    /// A counter or gauge.
    #[must_use]
    pub fn get(&self, stat: Stat) -> u64 {
        self.values[stat as usize]
    }

    /// Drops for one reason.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.values[Stat::COUNT + reason as usize]
    }

    /// Sessions ended for one reason.
    #[must_use]
    pub fn ends(&self, reason: EndReason) -> u64 {
        self.values[Stat::COUNT + DropReason::COUNT + reason as usize]
    }
}

/// The published copy of one shard's [`Stats`], on cache lines of its own.
#[derive(Clone, Debug)]
pub struct SharedStats(Arc<CachePadded<[AtomicU64; LEN]>>);

impl Default for SharedStats {
    fn default() -> Self {
        Self(Arc::new(CachePadded::new([const { AtomicU64::new(0) }; LEN])))
    }
}

impl SharedStats {
    /// Makes `stats` visible. Only the owning shard calls this.
    pub fn publish(&self, stats: &mut Stats) {
        let publish = |range: std::ops::Range<usize>| {
            for (shared, value) in self.0[range.clone()].iter().zip(&stats.values[range]) {
                shared.store(*value, Ordering::Relaxed);
            }
        };
        publish(0..SCALARS);
        // Most turns observe nothing, and the distributions are the larger part.
        if stats.observed != 0 {
            for histogram in Histogram::ALL {
                if stats.observed >> *histogram as u8 & 1 == 1 {
                    publish(histogram.place()..histogram.place() + Histogram::VALUES);
                }
            }
            stats.observed = 0;
        }
    }

    /// The numbers as last published: each exact, all from about the same turn.
    #[must_use]
    pub fn read(&self) -> Stats {
        let mut stats = Stats::default();
        for (value, shared) in stats.values.iter_mut().zip(self.0.iter()) {
            *value = shared.load(Ordering::Relaxed);
        }
        stats
    }
}
