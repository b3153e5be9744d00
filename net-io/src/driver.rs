//! The only trait of the data path: what one turn of a thread asks of the kernel.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::stream::{
    Close, ConnectError, StreamAddr, StreamConfig, StreamCounters, StreamEvent, StreamId,
};
use crate::wake::Waker;

/// Microseconds since an epoch all drivers of the process share. Read once per turn; never goes back, never wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Now(pub u64);

impl Now {
    /// Whole milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1000
    }

    /// The instant `ms` milliseconds later.
    #[must_use]
    pub const fn add_ms(self, ms: u32) -> Self {
        Self(self.0.saturating_add(ms as u64 * 1000))
    }
}

/// A socket of one driver, numbered from 0 in the order added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u16);

/// Which implementation moves the datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// io_uring.
    Uring,
    /// epoll with recvmmsg and sendmmsg.
    Epoll,
    /// Virtual time and a seeded network.
    Sim,
}

/// One received datagram, borrowed from the driver until its next call.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// The socket it arrived on.
    pub socket: SocketId,
    /// Who sent it.
    pub peer: SocketAddr,
    /// The address it was sent to; known on wildcard sockets only.
    pub local: Option<IpAddr>,
    /// The payload. Never truncated: a datagram that did not fit was dropped and counted.
    pub payload: &'a [u8],
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The socket to send from.
    pub socket: SocketId,
    /// The receiver.
    pub peer: SocketAddr,
    /// The source address to use; wildcard sockets only.
    pub local: Option<IpAddr>,
}

/// What a driver is built with. Every field is read once, at construction.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// Receive buffers, a power of two up to 32,768 (default 1024). Each takes `datagram_max` and 84 bytes, touched when first
    /// used; epoll uses 64 of them. With `gro` each takes 65,728 bytes, whose pages are touched as far as trains have filled them.
    pub buffers: u16,
    /// Largest datagram accepted, in bytes; larger ones are dropped and counted (default 1500). Of a train each counts by itself.
    pub datagram_max: u16,
    /// Datagrams that one turn may hand out before it must submit again (default 1024). Those dropped for their size count too.
    pub batch_max: u16,
    /// Bytes of send arena: what one turn may queue before it submits early (default 1 MiB).
    pub send_arena: usize,
    /// How long a wait goes on gathering while fewer than `want` datagrams are there, in microseconds from its start; 0 = it ends
    /// with the first (default 0). Fewer, fuller turns: 200 halve the CPU time at 20,000 datagrams a second. Never goes past the
    /// deadline; may hold back a wake.
    pub min_wait_us: u32,
    /// How many datagrams end that gathering early (default 32). epoll cannot tell and takes the whole time.
    pub want: u16,
    /// Send trains of equal-sized datagrams to one peer as one UDP_SEGMENT send (default true): at 8 datagrams a train a
    /// third of the CPU time. Off where the receiving host steers by content, as a gateway does by conv: over loopback and
    /// virtual links a train arrives whole and is steered by its first datagram.
    pub gso: bool,
    /// Take trains of one sender as they arrive, with one receive (default false); [`Driver::recv`] hands their datagrams out one by
    /// one. What a receiver does not take whole the kernel cuts and queues piece by piece: over loopback and virtual links in the
    /// time of whoever sent the train. Datagrams that come singly gain nothing by it, and it costs the memory of `buffers`. Not
    /// for sockets that are steered by content: a train is steered by its first datagram. A kernel without UDP_GRO (before 5.0)
    /// goes on cutting all trains.
    pub gro: bool,
    /// The bounds of streams; `None` for a driver without, which pays nothing for them (default `None`).
    pub streams: Option<StreamConfig>,
}

impl Default for DriverConfig {
    fn default() -> Self {
        Self {
            buffers: 1024,
            datagram_max: 1500,
            batch_max: 1024,
            send_arena: 1 << 20,
            min_wait_us: 0,
            want: 32,
            gso: true,
            gro: false,
            streams: None,
        }
    }
}

/// What a driver did since it was built. Plain counters; the owner publishes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams handed out by [`Driver::recv`].
    pub rx_datagrams: u64,
    /// Their payload bytes.
    pub rx_bytes: u64,
    /// Datagrams dropped because they were longer than `datagram_max`.
    pub rx_truncated: u64,
    /// Empty datagrams dropped (any peer can send one; on io_uring each ends a multishot receive).
    pub rx_empty: u64,
    /// Receive operations that ended in an error.
    pub rx_errors: u64,
    /// Times the receive buffers ran dry (datagrams then wait in the socket).
    pub rx_dry: u64,
    /// Times a receive had to be armed again.
    pub rx_rearmed: u64,
    /// Datagrams dropped by the kernel because a socket's receive buffer was full. Read from the kernel every
    /// 100 ms, in turns; zero where the kernel does not tell (SO_MEMINFO). With `gro` it counts a train as one.
    pub rx_overflow: u64,
    /// Datagrams queued to be sent, those that then failed included.
    pub tx_datagrams: u64,
    /// Their payload bytes.
    pub tx_bytes: u64,
    /// Send operations; fewer than `tx_datagrams` when trains form.
    pub tx_sends: u64,
    /// Trains the kernel or the route refused, sent again as single datagrams.
    pub tx_trains_refused: u64,
    /// Datagrams lost because the socket's send buffer was full (EAGAIN, ENOBUFS).
    pub tx_full: u64,
    /// Datagrams lost to any other send error.
    pub tx_errors: u64,
    /// System calls that submitted, waited, sent or received. On io_uring that is all of them: one a turn. Making and ending
    /// a stream takes a few more, not counted here.
    pub enters: u64,
    /// Turns ended by [`Waker::wake`].
    pub wakes: u64,
}

/// One thread's I/O: datagrams, and streams beside them.
///
/// A turn is: [`submit_and_wait`](Driver::submit_and_wait), then [`recv`](Driver::recv) and
/// [`stream_event`](Driver::stream_event) until `None` or the caller's budget ends, then any number of
/// [`slot`](Driver::slot) + [`queue`](Driver::queue) pairs, stream reads and writes. What was queued leaves with the
/// next `submit_and_wait`. What was not received stays for the next turn, which then does not block.
///
/// A stream is known by its [`StreamId`] from [`connect`](Driver::connect) or [`adopt`](Driver::adopt) until
/// [`StreamEvent::Failed`] or [`StreamEvent::Closed`] is handed out, or the caller aborts it; with a handle that is not valid
/// every call does nothing. What a peer does shows only to a read that is asked for, or to a write.
pub trait Driver {
    /// What [`add_socket`](Driver::add_socket) takes: a bound UDP socket, real or simulated.
    type Socket: std::fmt::Debug;

    /// What [`adopt`](Driver::adopt) takes: a connected stream socket, real or simulated.
    type Stream: std::fmt::Debug;

    /// Starts receiving on `socket`.
    ///
    /// # Errors
    /// The kernel's; the driver is unchanged.
    fn add_socket(&mut self, socket: Self::Socket) -> io::Result<SocketId>;

    /// Sends what is queued, waits for a datagram, a stream, a wake-up or `deadline`, and reads the clock: one system call where
    /// the kernel allows. `None` waits for ever. A deadline in the past polls. The clock is never before the deadline when it was
    /// the deadline that ended the wait, but a wait may also end for nothing (a signal, a failed send).
    ///
    /// # Errors
    /// Only what ends the driver (the ring or the epoll set is unusable). A failed send or receive is a counter.
    fn submit_and_wait(&mut self, deadline: Option<Now>) -> io::Result<Now>;

    /// The clock as the last turn read it.
    fn now(&self) -> Now;

    /// The clock now, for whoever must know in the middle of a turn how long it has taken: tens of nanoseconds.
    fn clock(&self) -> Now;

    /// Processor time that the calling thread has used, in microseconds: a system call.
    fn cpu_us(&self) -> u64;

    /// The next datagram of this turn's batch.
    fn recv(&mut self) -> Option<Datagram<'_>>;

    /// Whether datagrams may be waiting that had arrived when this turn read the clock. `false` is certain: all of them were
    /// handed out. To be asked when the caller has stopped receiving.
    fn has_backlog(&self) -> bool;

    /// How many datagrams are waiting now, at most. What arrives later comes out after them: of one socket surely, of several
    /// about so, for they take turns. A system call per socket: not for every turn.
    fn backlog_max(&self) -> usize;

    /// Sender and payload of the datagram that [`recv`](Driver::recv) comes to after `skip` others, where it is already here:
    /// a hint at what will be needed. It may be one that is then dropped, or belong to the next turn. With `gro` there are no hints.
    fn ahead(&self, skip: usize) -> Option<(SocketAddr, &[u8])>;

    /// Room for one datagram of up to `len_max` bytes. When the arena is full, what is queued is submitted first.
    ///
    /// # Panics
    /// When `len_max` is over 65,535: no datagram is longer.
    fn slot(&mut self, len_max: usize) -> &mut [u8];

    /// Queues the first `len` bytes of the slot last returned. Consecutive datagrams of equal size (the last may be
    /// shorter) to one destination leave as one train where the socket can.
    ///
    /// # Panics
    /// When `len` is more than the slot, or the socket is not this driver's.
    fn queue(&mut self, len: usize, to: &Destination);

    /// Starts a connection, from the address `bind` where there is one, and tells what became of it with
    /// [`StreamEvent::Connected`] or [`StreamEvent::Failed`]. No deadline: abort what takes too long. It may be written to and
    /// a read be asked for at once.
    ///
    /// # Errors
    /// A bound, or what the kernel knows at once. There is no stream then.
    fn connect(&mut self, to: &StreamAddr, bind: Option<IpAddr>) -> Result<StreamId, ConnectError>;

    /// Takes over a connection that somebody else has made.
    ///
    /// # Errors
    /// A bound, or the kernel's. The connection is closed then.
    fn adopt(&mut self, stream: Self::Stream) -> Result<StreamId, ConnectError>;

    /// Asks for one read, which ends with [`StreamEvent::Data`], [`StreamEvent::Fin`] or [`StreamEvent::Closed`]. While none is
    /// asked for, nothing is taken from the kernel and the peer has to wait. Asking again before that changes nothing.
    fn stream_read(&mut self, id: StreamId);

    /// Queues bytes, as many as the stream's bound and the driver's allow, and tells how many: what is written in a turn leaves
    /// as one send. When it was fewer than all, [`StreamEvent::Writable`] tells when to go on.
    fn stream_write(&mut self, id: StreamId, bytes: &[u8]) -> usize;

    /// Bytes that a stream has queued and that the kernel has not taken: what [`Close::Abort`] would drop now.
    fn stream_queued(&self, id: StreamId) -> usize;

    /// Ends a stream from this side; see [`Close`].
    fn stream_close(&mut self, id: StreamId, how: Close);

    /// What happened to the streams, in order for each.
    fn stream_event(&mut self) -> Option<StreamEvent<'_>>;

    /// What happened to streams so far.
    fn stream_counters(&self) -> StreamCounters;

    /// Gives back to the allocator what is kept for bytes to be queued and holds none, but for `keep` bytes: see
    /// [`StreamCounters::recycled_bytes`]. What is given back has to be allocated when it is needed again.
    fn stream_trim(&mut self, keep: usize);

    /// A handle with which any thread ends this driver's wait.
    fn waker(&self) -> Waker;

    /// What happened so far.
    fn counters(&self) -> Counters;

    /// Which implementation this is.
    fn kind(&self) -> DriverKind;
}
