//! yamux, the side that opens streams: many sessions over one connection to a backend, one stream each.
//!
//! Specification: <https://github.com/hashicorp/yamux/blob/master/spec.md>. Without I/O and without a clock: bytes that came
//! from the connection go in ([`Mux::on_read`]), bytes for it come out ([`Mux::pending`]), and time is told.
//!
//! # Calling contract
//! One connection, one [`Mux`], one thread. In each turn, in any order: what was read goes to `on_read` at once and always
//! (the connection never stops reading: back-pressure is each stream's window); what sessions say goes to
//! [`push`](Mux::push) and [`close`](Mux::close); at [`poll_timeout`](Mux::poll_timeout) comes
//! [`handle_timeout`](Mux::handle_timeout). At the end of the turn, [`pending`](Mux::pending) is given to the kernel, and
//! what it took is told to [`on_written`](Mux::on_written). Sessions that [`poll_room`](Mux::poll_room) names may push again.
//!
//! Once a call has answered a [`LinkError`], or the owner has called [`fail`](Mux::fail), the connection is over: write
//! what is pending if that goes without waiting (after a protocol error it tells the backend why: close in order then), close
//! the socket, call [`tear_down`](Mux::tear_down) until all sessions have been told, and [`abandon`](Mux::abandon).
//!
//! # Bounds
//! Towards the backend: [`Config::write_max`] bytes in the write buffer, and for each stream the rest of one message, in the
//! pool. From the backend: [`Config::window`] bytes for each stream, in the pool, which bounds their sum. For each stream 64
//! bytes and its place in the index.

mod frame;
mod keepalive;
mod mux;
mod outbox;
mod receive;
mod streams;
mod transmit;
mod unacked;

#[cfg(test)]
mod tests;

use super::framing::Codec;
use frame::HEADER;
pub use mux::Mux;
use outbox::CONTROL_RESERVE;
use streams::INITIAL_WINDOW;
pub use streams::StreamKey;

/// What a connection is set up with. Every field is read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Framing and message length of its sessions.
    pub codec: Codec,
    /// Streams at once, those that linger included.
    pub streams_max: u32,
    /// Streams opened and not yet accepted by the backend (default 256, what Go's library takes). Some libraries accept a
    /// stream only with the first byte that their application answers; a backend that only listens wants a larger number.
    pub unacked_max: u32,
    /// Bytes that the backend may send on one stream before its session takes them; at least 256 KiB, which is the
    /// protocol's own, and a third more than the longest message.
    pub window: u32,
    /// Bytes of frames that may wait for the kernel; at least one message's frame and 3 KiB.
    pub write_max: u32,
    /// Pause between two pings in milliseconds.
    pub ping_interval_ms: u32,
    /// A ping without an answer is the end when the backend does not move for this long, in milliseconds.
    pub ping_timeout_ms: u32,
    /// A frame that does not go on, or a write, is the end when the backend does not move for this long, in milliseconds; a message
    /// that does not go on, of its stream.
    pub stall_ms: u32,
    /// How long a stream whose session ended waits for the backend to end it too before it is cut off, in milliseconds.
    pub linger_ms: u32,
}

impl Config {
    /// The defaults for sessions of `codec`: up to 131,072 streams, the protocol's window where messages allow it, a
    /// write buffer of 1 MiB, a ping every 30 s with 10 s for its answer, 10 s for a stall, 30 s to linger.
    #[must_use]
    pub const fn new(codec: Codec) -> Self {
        let message = codec.message_max.saturating_add(4);
        let window = message.saturating_add(message / 2);
        Self {
            codec,
            streams_max: 1 << 17,
            unacked_max: 256,
            window: if window > INITIAL_WINDOW { window } else { INITIAL_WINDOW },
            write_max: 1 << 20,
            ping_interval_ms: 30_000,
            ping_timeout_ms: 10_000,
            stall_ms: 10_000,
            linger_ms: 30_000,
        }
    }

    /// Bytes of window that are worth a frame of their own: less waits for more. With a whole message beside it they must
    /// fit the window, or a backend could wait for window in the middle of a message that we wait for.
    const fn grant_min(&self) -> u32 {
        self.window / 4
    }

    /// Bytes of write buffer that any message fits, in one frame.
    const fn frame_max(&self) -> usize {
        HEADER + self.codec.framing.prefix_len() + self.codec.message_max as usize
    }

    const fn check(&self) -> Result<(), ConfigError> {
        let message = self.codec.framing.prefix_len() + self.codec.message_max as usize;
        if self.window < INITIAL_WINDOW || self.window > WINDOW_MAX {
            return Err(ConfigError::Window);
        }
        if message > (self.window - self.grant_min()) as usize {
            return Err(ConfigError::MessageBeyondWindow);
        }
        if self.frame_max() + CONTROL_RESERVE > self.write_max as usize {
            return Err(ConfigError::MessageBeyondWriteBuffer);
        }
        if self.streams_max == 0 || self.unacked_max == 0 {
            return Err(ConfigError::NoStreams);
        }
        Ok(())
    }
}

/// Numbers that no connection can work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The window is less than the protocol's, or more than 1 GiB.
    #[error("a yamux window is 256 KiB to 1 GiB")]
    Window,
    /// The longest message and a quarter of the window do not fit the window.
    #[error("the longest message takes more than three quarters of the yamux window")]
    MessageBeyondWindow,
    /// The longest message's frame does not fit the write buffer.
    #[error("the longest message does not fit the write buffer")]
    MessageBeyondWriteBuffer,
    /// No stream could ever be opened.
    #[error("a yamux connection needs at least one stream")]
    NoStreams,
}

/// Why a connection is over. Every session on it has lost its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The backend closed the connection between two frames.
    Eof,
    /// The backend closed the connection inside a frame.
    EofMidFrame,
    /// The connection was reset, or reading or writing failed.
    Reset,
    /// A frame of another version than 0.
    Version,
    /// A frame of no known kind.
    Kind,
    /// A stream's frame names the connection itself.
    StreamZero,
    /// A frame for a stream that was never opened.
    UnknownStream,
    /// A stream of ours, opened by the backend.
    Syn,
    /// More data than the stream's window.
    WindowExceeded,
    /// More window than can be counted.
    WindowOverflow,
    /// Data on a stream that the backend had finished.
    DataAfterFin,
    /// More pings and streams that ask for an answer than the backend reads answers.
    ControlFlood,
    /// The backend went away, in order or over an error of ours, with this code.
    GoAway {
        /// 1: protocol error, 2: internal error; others have no meaning.
        code: u32,
    },
    /// A ping was not answered, and the backend did not move.
    PingTimeout,
    /// A frame began and did not go on, and the backend did not move.
    StalledRead,
    /// The backend takes nothing and gives nothing.
    StalledWrite,
}

/// A stream cannot be opened. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Too many streams wait to be accepted: try again when [`Mux::can_open`] says so.
    Unacked,
    /// The write buffer is full: likewise.
    Full,
    /// As many streams as allowed: likewise.
    Streams,
    /// The backend takes no new streams on this connection.
    GoneAway,
    /// This connection has used all its stream numbers: its owner should have made another.
    Exhausted,
    /// The connection is over.
    Dead,
}

/// A message was not taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// The stream's window or the write buffer is full: try again when [`Mux::poll_room`] names the session.
    Full,
    /// The message does not fit the window, and the pool has no room for the rest of it: end somebody, or this session.
    PoolFull,
    /// The message can never be sent on this stream: empty, or too long.
    Unsendable,
    /// The caller had nothing to fill in.
    NotFilled,
    /// The stream is over.
    Gone,
}

/// What a connection did since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Streams opened.
    pub opened: u64,
    /// Frames read.
    pub frames_in: u64,
    /// Frames written.
    pub frames_out: u64,
    /// Bytes read, headers included.
    pub bytes_in: u64,
    /// Bytes taken by the kernel, headers included.
    pub bytes_out: u64,
    /// Messages handed out.
    pub messages_in: u64,
    /// Messages taken.
    pub messages_out: u64,
    /// Messages taken that will never reach the kernel whole: counted when their stream is over, or in [`Mux::abandon`].
    pub messages_lost: u64,
    /// Bytes dropped because their stream's session had ended, because the stream was refused, or because the backend never
    /// opened it: those of its own numbers are all alike here.
    pub late_bytes: u64,
    /// Streams that the backend tried to open, refused.
    pub refused: u64,
    /// Pongs without a ping.
    pub stray_pongs: u64,
}

/// The largest window that cannot overflow a counter together with what is on its way.
const WINDOW_MAX: u32 = 1 << 30;
