//! How much one turn may do of each kind of work. What is left over comes first in the next turn, which then does not wait.
//!
//! The sum bounds a turn at a few milliseconds: a datagram costs about a microsecond with its answer, an expired timer less.

/// Datagrams taken from the driver.
pub(super) const DATAGRAMS: usize = 1024;
/// Strays taken from other shards.
pub(super) const STRAYS: usize = 256;
/// Timers expired.
pub(super) const TIMERS: usize = 1024;
/// Tombstones forgotten.
pub(super) const TOMBSTONES: usize = 256;
/// Datagrams queued for sending.
pub(super) const TRANSMITS: usize = 2048;
/// Slots looked at to answer a question about sessions: about 100 us.
pub(super) const SCANNED_SLOTS: u32 = 2048;
/// Slots whose timers are looked at again after a reload: less than 100 us.
pub(super) const REARMED_SLOTS: u32 = 2048;
/// Sessions whose messages are offered to the upstream again.
pub(super) const BLOCKED: usize = 256;
/// Things that happened to connections to backends.
pub(super) const STREAM_EVENTS: usize = 1024;
/// Sessions that wait for a backend and try again.
pub(super) const WAITING: usize = 1024;
/// Streams of a lost link whose sessions are told.
pub(super) const TORN_DOWN: usize = 1024;
/// Sessions that a link has room for again.
pub(super) const ROOM: usize = 4096;
