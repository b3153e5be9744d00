//! Where messages go.
//!
//! Everything here but `nats` is without I/O: bytes and events in, bytes and events out, time told. A shard drives it with the streams of
//! its own driver, on its own thread, and the control plane with sockets of its own for checks.
//!
//! # From session to backend
//! 1. **Birth.** With its first whole message a session gets a backend from its [`route::Router`]. Over `tcp` the shard asks
//!    its driver to connect, makes a [`link::Link`] and gives it the [`proxy::Header`]; over `yamux` it opens a stream with that
//!    header on one of the few [`yamux::Mux`]es it has to that backend, whose connections the control plane made and the
//!    driver adopted. A multiplexer that cannot open now is asked again when its `can_open` says so; until then the session's
//!    messages wait in its receive window.
//! 2. **Messages.** `push` takes a message whole or refuses it. A refused one stays in the session's receive queue, so that its
//!    client's window closes, until [`link::Link::on_writable`] or [`yamux::Mux::poll_room`] says that there is room.
//! 3. **Answers.** Messages are handed to the shard's sink where they were read. One without room at its session is kept in the
//!    shard's [`pool::Pool`], and the backend is not read from (`tcp`) or its stream's window stays closed (`yamux`), until the
//!    shard sees the session's queue drain and calls `resume`.
//! 4. **Ends.** [`Event::End`] invalidates the session's handle; the shard delivers what the client still has to get, and ends
//!    it. A session that ends by itself is `close`d, and nothing more is heard of it.
//!
//! | of the driver's stream | to a `Link` | to a `Mux` |
//! |---|---|---|
//! | `Connected` | `on_connected` | it is adopted, and connected from the start |
//! | `Failed` | `on_end` | the control plane's affair |
//! | `Data` | `on_read` | `on_read`, then at once the next `stream_read` |
//! | `Writable` | `on_writable`, writing with `stream_write` | `stream_write(pending)`, its answer to `on_written` |
//! | `Fin` | `on_fin` | `on_eof`, then `tear_down` |
//! | `Closed` | `on_end` | `fail(Reset)`, then `tear_down` and `abandon` |
//! | `stream_read`, `stream_close` | as `poll_op` says | read always; close after `tear_down` |
//!
//! `nats` is neither: [`nats`] says what its sessions are, and its [`nats::bridge`] what lies between them and the connection.
//!
//! When the pool is nearly full, the sessions that hold most of it end: [`yamux::Mux::backlog`] and [`yamux::Mux::shed`],
//! [`link::Link::shed`].

pub mod backend;
pub mod backoff;
pub mod echo;
pub mod framing;
pub mod health;
pub mod link;
pub mod nats;
mod patience;
pub mod pool;
pub mod proxy;
pub mod route;
pub mod yamux;

#[cfg(test)]
mod dice;

use net_io::Now;

use crate::shard::stats::EndReason;
use framing::DecodeError;
use pool::Pool;

/// What a call that may hand out messages needs of its shard.
#[derive(Debug)]
pub struct Cx<'a, F> {
    /// The clock as this turn read it.
    pub now: Now,
    /// Where bytes wait.
    pub pool: &'a mut Pool,
    /// Who takes what happens to sessions. The answer counts for [`Event::Message`] alone: `false` when the session has no
    /// room, and then the message is kept and offered again when the session resumes.
    pub sink: &'a mut F,
}

/// What a backend does to one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A message, whole, never empty, at most as long as the backend's sessions allow.
    Message(&'a [u8]),
    /// So many frames of length zero, passed over.
    Empty(u32),
    /// The backend's part is over. The session's handle is no longer valid; nothing more comes.
    End(End),
}

/// Why a backend's part in a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The backend closed, and everything it sent has been handed out.
    Fin,
    /// The backend closed in the middle of a message, whose beginning is dropped.
    FinMidMessage,
    /// The backend cut it off.
    Reset,
    /// The backend refused it from the start.
    Refused,
    /// The connection to the backend could not be made.
    ConnectFailed,
    /// Making the connection took too long.
    ConnectTimeout,
    /// The backend began a message and did not go on.
    Stalled,
    /// The backend announced a message longer than its sessions allow.
    TooLong,
    /// There was no memory left for what the backend sent.
    PoolFull,
    /// Its client takes what the backend sends more slowly than others, and memory ran short.
    Shed,
    /// The connection it shared was lost.
    LinkLost,
}

impl From<End> for EndReason {
    fn from(end: End) -> Self {
        match end {
            End::Fin => Self::BackendFin,
            End::FinMidMessage => Self::BackendFinMidMessage,
            End::Reset => Self::BackendReset,
            End::Refused => Self::BackendRefused,
            End::ConnectFailed => Self::BackendConnectFailed,
            End::ConnectTimeout => Self::BackendConnectTimeout,
            End::Stalled => Self::BackendStalled,
            End::TooLong => Self::BackendTooLong,
            End::PoolFull => Self::PoolFull,
            End::Shed => Self::Shed,
            End::LinkLost => Self::BackendLinkLost,
        }
    }
}

impl From<DecodeError> for End {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooLong { .. } => Self::TooLong,
            DecodeError::PoolFull => Self::PoolFull,
        }
    }
}
