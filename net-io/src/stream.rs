//! Byte streams beside the datagrams: connections to backends, over TCP or Unix sockets, on the thread's own driver.
//!
//! What a driver asks of a backend is bounded from the start: streams, connections being made, bytes that wait to be sent, and
//! reads, of which each delivers one buffer and then waits to be asked again.

mod queue;
mod slot;
mod socket;
mod table;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

pub(crate) use self::queue::Pieces;
pub use self::socket::StreamSocket;
#[cfg(feature = "sim")]
pub(crate) use self::table::Duplex;
pub(crate) use self::table::{Happened, Streams, What};

/// A stream of one driver. A handle that outlives its stream finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    slot: u32,
    generation: u32,
}

impl StreamId {
    /// A small number, below [`StreamConfig::streams_max`], that no other stream of the driver has at the same time: an index
    /// for tables kept beside the driver's own. Later streams have it again.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.slot as usize
    }

    /// The handle as a number of 56 bits.
    pub(crate) const fn to_bits(self) -> u64 {
        (self.slot as u64) << 32 | self.generation as u64
    }

    #[expect(clippy::cast_possible_truncation, reason = "each half of the number by itself")]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self { slot: (bits >> 32) as u32 & SLOT_MASK, generation: bits as u32 }
    }
}

/// Where a stream goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StreamAddr {
    /// Over TCP.
    Tcp(SocketAddr),
    /// To a Unix socket's path.
    Unix(PathBuf),
}

impl From<SocketAddr> for StreamAddr {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(addr)
    }
}

impl fmt::Display for StreamAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent<'a> {
    /// The connection is made. What was written before is on its way.
    Connected(StreamId),
    /// The connection could not be made. The handle is no longer valid.
    Failed(StreamId, ConnectError),
    /// Bytes the peer sent, borrowed until the driver is called again. Never empty. The read that was asked for is done.
    Data(StreamId, &'a [u8]),
    /// A write that was cut short may go on.
    Writable(StreamId),
    /// The peer has sent everything. The other direction lives on until [`Driver::stream_close`](crate::Driver::stream_close).
    Fin(StreamId),
    /// It is over, and so many bytes that were queued have not been taken by the kernel. The handle is no longer valid.
    Closed(StreamId, StreamEnd, usize),
}

impl StreamEvent<'_> {
    /// The stream it happened to.
    #[must_use]
    pub const fn id(&self) -> StreamId {
        match *self {
            Self::Connected(id)
            | Self::Failed(id, _)
            | Self::Data(id, _)
            | Self::Writable(id)
            | Self::Fin(id)
            | Self::Closed(id, ..) => id,
        }
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// Both sides sent everything and closed.
    Finished,
    /// The peer cut it off, or takes nothing more.
    Reset,
    /// The kernel gave it up, with this errno.
    Lost(i32),
}

/// How [`Driver::stream_close`](crate::Driver::stream_close) ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Sends what is queued, then FIN. The stream ends when the peer has finished as well, which shows only to a read:
    /// keep asking. How long to wait is the caller's business.
    Finish,
    /// Ends it now: what is queued is dropped, a TCP peer gets an RST, and the handle is no longer valid.
    Abort,
}

/// Why a connection could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// As many streams as [`StreamConfig::streams_max`] allows, or the driver was built without.
    #[error("as many streams as are allowed")]
    Streams,
    /// As many connections being made as [`StreamConfig::connecting_max`] allows.
    #[error("as many connections being made as are allowed")]
    Connecting,
    /// No file descriptor is left, in the process or on the host.
    #[error(
        "no file descriptor is left; raise LimitNOFILE (`ulimit -n`) or the sysctl fs.file-max"
    )]
    Files,
    /// No local port is left towards that address, or the address to bind to is not this host's.
    #[error(
        "no local port is left towards this address, or the address to bind to is not this host's; add backend or source addresses, or widen the sysctl net.ipv4.ip_local_port_range"
    )]
    Ports,
    /// Nobody listens there.
    #[error("nobody listens there")]
    Refused,
    /// There is no way there, or nobody answered in the kernel's time.
    #[error("no way there, or no answer")]
    Unreachable,
    /// The backlog of a Unix socket's listener is full.
    #[error("the listener's backlog is full")]
    Busy,
    /// Any other errno.
    #[error("os error {0}")]
    Other(i32),
}

impl ConnectError {
    pub(crate) const fn from_errno(errno: i32) -> Self {
        match errno {
            libc::EMFILE | libc::ENFILE => Self::Files,
            libc::EADDRNOTAVAIL | libc::EADDRINUSE => Self::Ports,
            libc::ECONNREFUSED | libc::ENOENT => Self::Refused,
            libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ETIMEDOUT => {
                Self::Unreachable
            }
            libc::EAGAIN => Self::Busy,
            _ => Self::Other(errno),
        }
    }
}

impl From<std::io::Error> for ConnectError {
    fn from(error: std::io::Error) -> Self {
        // What has no errno is an argument that the kernel was not even asked about: a path too long.
        Self::from_errno(error.raw_os_error().unwrap_or(libc::EINVAL))
    }
}

/// The bounds of a driver's streams. Every field is read once, at construction.
#[derive(Clone, Debug)]
pub struct StreamConfig {
    /// Streams at once, up to 2^24 (default 131,072). A stream takes 32 bytes here, one more with epoll, and what the kernel
    /// takes for a socket.
    pub streams_max: u32,
    /// Connections being made at once (default 1024).
    pub connecting_max: u32,
    /// Buffers that reads are delivered in, a power of two up to 32,768 (default 512), touched when first used. When all are
    /// filled, readable streams wait for their turn. epoll has one.
    pub read_buffers: u16,
    /// Bytes of one such buffer, and so of one read (default 8192).
    pub read_buffer_len: u32,
    /// Bytes that one stream may have queued here, at most 1 MiB (default 256 KiB).
    pub write_max: u32,
    /// Bytes that all streams together may have queued here, in chunks of 2 KiB (default 64 MiB); taken as needed and
    /// reused until [`Driver::stream_trim`](crate::Driver::stream_trim). One stream may queue an eighth of what is free, and only its first 2 KiB come from the last quarter: that
    /// quarter has to hold as many streams as may be stuck at once.
    pub write_pool: usize,
    /// SO_SNDBUF of the connections made here, in bytes; 0 leaves it to the kernel, which takes up to `net.ipv4.tcp_wmem` (4 MiB)
    /// for a connection whose peer does not read (default 0).
    pub send_buffer: usize,
    /// SO_RCVBUF likewise; 0 leaves it to the kernel (default 0).
    pub recv_buffer: usize,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            streams_max: 1 << 17,
            connecting_max: 1024,
            read_buffers: 512,
            read_buffer_len: 8192,
            write_max: 256 << 10,
            write_pool: 64 << 20,
            send_buffer: 0,
            recv_buffer: 0,
        }
    }
}

/// What a driver's streams did since it was built. Plain counters; the owner publishes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// Connections made, those adopted included.
    pub connected: u64,
    /// Connections refused here because of [`StreamConfig::streams_max`] or [`StreamConfig::connecting_max`].
    pub failed_limit: u64,
    /// Connections that failed for want of a file descriptor.
    pub failed_files: u64,
    /// Connections that failed for want of a local port.
    pub failed_ports: u64,
    /// Connections that nobody listened for.
    pub failed_refused: u64,
    /// Connections that found no way or no answer.
    pub failed_unreachable: u64,
    /// Connections that failed for another reason, a full backlog among them.
    pub failed_other: u64,
    /// Streams that both sides finished.
    pub ended_finished: u64,
    /// Streams that the peer cut off.
    pub ended_reset: u64,
    /// Streams that the kernel gave up.
    pub ended_lost: u64,
    /// Streams and connections being made that the caller aborted.
    pub aborted: u64,
    /// Reads that delivered bytes.
    pub rx_reads: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Reads that had to wait for a buffer.
    pub rx_dry: u64,
    /// Sends tried.
    pub tx_sends: u64,
    /// Bytes the kernel took.
    pub tx_bytes: u64,
    /// Sends of which the kernel took a part or nothing, because the peer does not keep up.
    pub tx_blocked: u64,
    /// Writes cut short, because the stream's bytes or all streams' were at their bound.
    pub tx_held: u64,
    /// Streams now, connecting ones included.
    pub open: u64,
    /// Connections being made now.
    pub connecting: u64,
    /// Bytes of chunks that hold queued bytes now.
    pub queued_bytes: u64,
    /// Bytes of memory kept for such chunks, with nothing queued in it: what [`Driver::stream_trim`](crate::Driver::stream_trim)
    /// can give back.
    pub recycled_bytes: u64,
}

impl StreamCounters {
    /// Counts a connection that could not be made.
    pub(crate) fn on_failed(&mut self, error: ConnectError) {
        *match error {
            ConnectError::Streams | ConnectError::Connecting => &mut self.failed_limit,
            ConnectError::Files => &mut self.failed_files,
            ConnectError::Ports => &mut self.failed_ports,
            ConnectError::Refused => &mut self.failed_refused,
            ConnectError::Unreachable => &mut self.failed_unreachable,
            ConnectError::Busy | ConnectError::Other(_) => &mut self.failed_other,
        } += 1;
    }
}

/// Handles carry this many bits of slot.
const SLOT_BITS: u32 = 24;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;
/// The most that [`StreamConfig::write_max`] may be: what one send can gather.
const WRITE_MAX: u32 = 1 << 20;
/// The most pieces that one stream's queue can be in.
pub(crate) const PIECES_MAX: usize = WRITE_MAX as usize / queue::CHUNK + 1;
