//! How much one turn may do of each kind of work, and for how long. What is left over comes first in the next turn, which then does
//! not wait.
//!
//! The counts bound a turn where all is well: a datagram costs about a microsecond, its answer two to three with the system call
//! in which it leaves, an expired timer less than one. Where memory is slow, or somebody else had the core, the times do: each
//! step has its own, so that none lives at another's expense.

/// Datagrams taken from the driver.
pub(super) const DATAGRAMS: usize = 384;
/// Strays taken from other shards.
pub(super) const STRAYS: usize = 128;
/// Timers expired.
pub(super) const TIMERS: usize = 512;
/// Sessions that wait for their flush beyond which no timer expires.
pub(super) const DIRTY: usize = 1024;
/// Tombstones forgotten.
pub(super) const TOMBSTONES: usize = 512;
/// Datagrams queued for sending: twice what may be received.
pub(super) const TRANSMITS: usize = 768;
/// Slots looked at to answer a question about sessions: about 100 us.
pub(super) const SCANNED_SLOTS: u32 = 2048;
/// Slots whose timers are looked at again after a reload: less than 100 us.
pub(super) const REARMED_SLOTS: u32 = 2048;
/// Slots looked at for messages that nobody finishes while the store is full; segments there count as well.
pub(super) const SWEPT: usize = 2048;
/// Sessions whose messages are offered to the upstream again.
pub(super) const BLOCKED: usize = 256;
/// Things that happened to connections to backends.
pub(super) const STREAM_EVENTS: usize = 1024;
/// Sessions that wait for a backend and try again in one round, which may take several turns.
pub(super) const WAITING: usize = 1024;
/// Ended sessions whose backends hear of it.
pub(super) const PARTING: usize = 512;
/// Streams of lost links whose sessions are told, of all links together.
pub(super) const TORN_DOWN: usize = 1024;
/// Sessions that links have room for again.
pub(super) const ROOM: usize = 1024;

/// Streams and connections looked at when memory for what waits runs short.
pub(super) const HOLDERS: usize = 16_384;
/// So many of them it counts for to end one: 64 in a turn.
pub(super) const HOLDER_ENDED: usize = HOLDERS / 64;
/// Pieces of work that it counts for to make or to end a connection: 5 to 20 us of system calls.
pub(super) const CONNECTION: usize = 8;
/// Pieces of work between two looks at the clock. A step may always do twice as many.
pub(super) const LOOK_EVERY: usize = 32;
/// For how long datagrams are taken, in microseconds.
pub(super) const INGRESS_US: u64 = 1_200;
/// For how long what backends did is taken in.
pub(super) const RETURNS_US: u64 = 800;
/// For how long deadlines of connections expire and connections are made for sessions that wait.
pub(super) const CONNECTIONS_US: u64 = 400;
/// For how long backends hear of sessions that ended, and for how long sessions that links have room for again send.
pub(super) const PART_US: u64 = 300;
/// For how long timers expire.
pub(super) const EXPIRE_US: u64 = 600;
/// For how long sessions are flushed: what was queued has yet to leave, 2 ms at most.
pub(super) const EGRESS_US: u64 = 800;

/// A backlog of flushes shrinks as long as they are not many datagrams each.
const _: () = assert!(DIRTY >= TRANSMITS && TRANSMITS >= DATAGRAMS + STRAYS);
