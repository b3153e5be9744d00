//! What a shard counts per backend, published like its [`Stats`](super::stats::Stats).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use net_io::ConnectError;

use super::stats::closed_enum;
use crate::upstream::End;
use crate::upstream::backend::{BACKENDS_MAX, BackendId};
use crate::upstream::yamux::LinkError;

closed_enum! {
    /// A backend's counters and gauges without a reason.
    BackendStat {
        /// Gauge: sessions that have it.
        Sessions => "sessions",
        /// Gauge: `tcp`: connections being made.
        Connecting => "connecting",
        /// Gauge: `tcp`: connections whose session has ended and that wait for the backend to end them too.
        Closing => "closing",
        /// Gauge: `yamux`: links in use.
        Links => "links",
        /// Gauge: `yamux`: streams, those whose session has ended included.
        Streams => "streams",
        /// Sessions that were given it.
        SessionsAssigned => "sessions_assigned",
        /// Connections made.
        Connects => "connects",
        /// Sessions that lost it and look for another.
        SessionsRerouted => "sessions_rerouted",
        /// Messages handed to it.
        MessagesOut => "messages_out",
        /// Their bytes.
        MessageBytesOut => "message_bytes_out",
        /// Messages it sent.
        MessagesIn => "messages_in",
        /// Their bytes.
        MessageBytesIn => "message_bytes_in",
        /// Zero-length frames it sent, ignored.
        EmptyIn => "empty_in",
        /// `yamux`: streams that it tried to open, refused.
        StreamsRefused => "streams_refused",
        /// `yamux`: bytes it sent on streams whose session had ended, that were refused, or that nobody had opened; dropped.
        LateBytes => "late_bytes",
        /// Times a message had to wait for it, and with it the window of the message's client.
        WaitedForBackend => "waited_for_backend",
        /// Times it had to wait for a client.
        WaitedForClient => "waited_for_client",
        /// Messages for it that had not left the gateway, or may not have, when the connection that carried them ended.
        MessagesLost => "messages_lost",
        /// Bytes of its messages that were lost because they waited for their client when the session ended.
        BytesLost => "bytes_lost",
    }
}

closed_enum! {
    /// Why a session's connection could not be made.
    ConnectFailure {
        /// As many connections as are allowed: it had to wait for its turn. Once for each.
        Limit => "limit",
        /// No file descriptor left.
        Files => "files",
        /// No local port left towards the address.
        Ports => "ports",
        /// Nobody listens there.
        Refused => "refused",
        /// No way there, or no answer in the kernel's time.
        Unreachable => "unreachable",
        /// No answer in the backend's time.
        Timeout => "timeout",
        /// Anything else, a full backlog among it.
        Other => "other",
    }
}

impl From<ConnectError> for ConnectFailure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Streams | ConnectError::Connecting => Self::Limit,
            ConnectError::Files => Self::Files,
            ConnectError::Ports => Self::Ports,
            ConnectError::Refused => Self::Refused,
            ConnectError::Unreachable => Self::Unreachable,
            ConnectError::Busy | ConnectError::Other(_) => Self::Other,
        }
    }
}

closed_enum! {
    /// How a backend's part in a session ended. Every session that was given a backend leaves it by one of these.
    Parting {
        /// The session ended by itself, and told the backend.
        Client => "client",
        /// The backend closed.
        Fin => "fin",
        /// The backend closed in the middle of a message, whose beginning was dropped.
        FinMidMessage => "fin_mid_message",
        /// The backend cut it off.
        Reset => "reset",
        /// The backend refused it from the start.
        Refused => "refused",
        /// The connection could not be made.
        ConnectFailed => "connect_failed",
        /// Making the connection took too long.
        ConnectTimeout => "connect_timeout",
        /// The backend began a message and did not go on.
        Stalled => "stalled",
        /// The backend announced a message longer than allowed.
        TooLong => "too_long",
        /// No memory was left for what it sent.
        PoolFull => "pool_full",
        /// The client took it more slowly than others when memory ran short.
        Shed => "shed",
        /// The link it shared was lost.
        LinkLost => "link_lost",
    }
}

impl From<End> for Parting {
    fn from(end: End) -> Self {
        match end {
            End::Fin => Self::Fin,
            End::FinMidMessage => Self::FinMidMessage,
            End::Reset => Self::Reset,
            End::Refused => Self::Refused,
            End::ConnectFailed => Self::ConnectFailed,
            End::ConnectTimeout => Self::ConnectTimeout,
            End::Stalled => Self::Stalled,
            End::TooLong => Self::TooLong,
            End::PoolFull => Self::PoolFull,
            End::Shed => Self::Shed,
            End::LinkLost => Self::LinkLost,
        }
    }
}

closed_enum! {
    /// Why a link for many sessions is over, or takes no more of them.
    LinkEnd {
        /// The backend closed it between two frames.
        Eof => "eof",
        /// The backend closed it inside a frame.
        EofMidFrame => "eof_mid_frame",
        /// It was reset.
        Reset => "reset",
        /// A frame of another version than 0.
        Version => "version",
        /// A frame of no known kind.
        Kind => "kind",
        /// A stream's frame that names the connection itself.
        StreamZero => "stream_zero",
        /// A frame for a stream that was never opened.
        UnknownStream => "unknown_stream",
        /// A stream of ours, opened by the backend.
        Syn => "syn",
        /// More data than a stream's window.
        WindowExceeded => "window_exceeded",
        /// More window than can be counted.
        WindowOverflow => "window_overflow",
        /// Data on a stream that the backend had finished.
        DataAfterFin => "data_after_fin",
        /// More questions than the backend reads answers.
        ControlFlood => "control_flood",
        /// The backend went away.
        GoAway => "go_away",
        /// A ping was not answered in time.
        PingTimeout => "ping_timeout",
        /// A frame began and did not go on.
        StalledRead => "stalled_read",
        /// The backend took nothing.
        StalledWrite => "stalled_write",
        /// All its stream numbers are used.
        Exhausted => "exhausted",
        /// Its backend is not listed any more.
        Unlisted => "unlisted",
        /// The driver could not take it, or its numbers do not go together.
        Unusable => "unusable",
    }
}

impl From<LinkError> for LinkEnd {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Eof => Self::Eof,
            LinkError::EofMidFrame => Self::EofMidFrame,
            LinkError::Reset => Self::Reset,
            LinkError::Version => Self::Version,
            LinkError::Kind => Self::Kind,
            LinkError::StreamZero => Self::StreamZero,
            LinkError::UnknownStream => Self::UnknownStream,
            LinkError::Syn => Self::Syn,
            LinkError::WindowExceeded => Self::WindowExceeded,
            LinkError::WindowOverflow => Self::WindowOverflow,
            LinkError::DataAfterFin => Self::DataAfterFin,
            LinkError::ControlFlood => Self::ControlFlood,
            LinkError::GoAway { .. } => Self::GoAway,
            LinkError::PingTimeout => Self::PingTimeout,
            LinkError::StalledRead => Self::StalledRead,
            LinkError::StalledWrite => Self::StalledWrite,
        }
    }
}

const FAILURES: usize = BackendStat::COUNT;
const PARTINGS: usize = FAILURES + ConnectFailure::COUNT;
const LINKS: usize = PARTINGS + Parting::COUNT;
const LEN: usize = LINKS + LinkEnd::COUNT;

/// One backend's numbers in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendNumbers([u64; LEN]);

impl Default for BackendNumbers {
    fn default() -> Self {
        Self([0; LEN])
    }
}

impl BackendNumbers {
    /// A counter or gauge.
    #[must_use]
    pub const fn get(&self, stat: BackendStat) -> u64 {
        self.0[stat as usize]
    }

    /// Connections that could not be made for one reason.
    #[must_use]
    pub const fn failures(&self, reason: ConnectFailure) -> u64 {
        self.0[FAILURES + reason as usize]
    }

    /// Sessions that left it in one way.
    #[must_use]
    pub const fn partings(&self, how: Parting) -> u64 {
        self.0[PARTINGS + how as usize]
    }

    /// Links that ended for one reason.
    #[must_use]
    pub const fn links(&self, reason: LinkEnd) -> u64 {
        self.0[LINKS + reason as usize]
    }
}

/// A shard's own copy, and which backends it has counted for since it was last published.
#[derive(Debug)]
pub struct BackendStats {
    numbers: Box<[BackendNumbers]>,
    touched: u64,
}

const _: () = assert!(BACKENDS_MAX <= u64::BITS as usize, "a bit for each backend");

impl Default for BackendStats {
    fn default() -> Self {
        Self { numbers: vec![BackendNumbers::default(); BACKENDS_MAX].into(), touched: 0 }
    }
}

impl BackendStats {
    /// A backend's numbers.
    #[must_use]
    pub fn of(&self, backend: BackendId) -> &BackendNumbers {
        &self.numbers[backend.index()]
    }

    /// Adds to a counter or gauge.
    pub fn add(&mut self, backend: BackendId, stat: BackendStat, n: u64) {
        self.at(backend, stat as usize, n.cast_signed());
    }

    /// Takes one from a gauge.
    pub fn lower(&mut self, backend: BackendId, gauge: BackendStat) {
        self.at(backend, gauge as usize, -1);
    }

    /// Sets a gauge.
    pub fn set(&mut self, backend: BackendId, gauge: BackendStat, value: u64) {
        let now = self.of(backend).get(gauge);
        if now != value {
            self.at(backend, gauge as usize, value.wrapping_sub(now).cast_signed());
        }
    }

    /// Counts a connection that could not be made.
    pub fn failure(&mut self, backend: BackendId, reason: ConnectFailure) {
        self.at(backend, FAILURES + reason as usize, 1);
    }

    /// Counts a session that leaves.
    pub fn parting(&mut self, backend: BackendId, how: Parting) {
        self.at(backend, PARTINGS + how as usize, 1);
    }

    /// Counts a link that ended.
    pub fn link_end(&mut self, backend: BackendId, reason: LinkEnd) {
        self.at(backend, LINKS + reason as usize, 1);
    }

    fn at(&mut self, backend: BackendId, place: usize, n: i64) {
        let value = &mut self.numbers[backend.index()].0[place];
        debug_assert!(n >= 0 || *value >= n.unsigned_abs(), "a gauge below zero");
        *value = value.wrapping_add_signed(n);
        self.touched |= 1 << backend.index();
    }
}

/// The published copy of one shard's numbers of all backends.
#[derive(Clone, Debug)]
pub struct SharedBackendStats(Arc<[CachePadded<[AtomicU64; LEN]>]>);

impl Default for SharedBackendStats {
    fn default() -> Self {
        let zeros = || CachePadded::new([const { AtomicU64::new(0) }; LEN]);
        Self((0..BACKENDS_MAX).map(|_| zeros()).collect())
    }
}

impl SharedBackendStats {
    /// Makes what changed visible. Only the owning shard calls this.
    pub fn publish(&self, stats: &mut BackendStats) {
        while stats.touched != 0 {
            let backend = stats.touched.trailing_zeros() as usize;
            stats.touched &= stats.touched - 1;
            for (shared, value) in self.0[backend].iter().zip(stats.numbers[backend].0) {
                shared.store(value, Ordering::Relaxed);
            }
        }
    }

    /// A backend's numbers as last published.
    #[must_use]
    pub fn read(&self, backend: BackendId) -> BackendNumbers {
        let mut numbers = BackendNumbers::default();
        for (value, shared) in numbers.0.iter_mut().zip(self.0[backend.index()].iter()) {
            *value = shared.load(Ordering::Relaxed);
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_published_and_all_of_that() {
        let (mut stats, shared) = (BackendStats::default(), SharedBackendStats::default());
        let (a, b) = (BackendId(0), BackendId(63));
        stats.add(a, BackendStat::Sessions, 2);
        stats.lower(a, BackendStat::Sessions);
        stats.set(b, BackendStat::Links, 3);
        stats.failure(b, ConnectFailure::Other);
        stats.parting(b, Parting::LinkLost);
        stats.link_end(b, LinkEnd::Unusable);
        assert_eq!(shared.read(b), BackendNumbers::default());
        shared.publish(&mut stats);
        assert_eq!(
            (stats.touched, shared.read(a), shared.read(b)),
            (0, *stats.of(a), *stats.of(b))
        );
        let b = shared.read(b);
        assert_eq!((shared.read(a).get(BackendStat::Sessions), b.get(BackendStat::Links)), (1, 3));
        let reasons = (
            b.failures(ConnectFailure::Other),
            b.partings(Parting::LinkLost),
            b.links(LinkEnd::Unusable),
        );
        assert_eq!(reasons, (1, 1, 1));
    }
}
