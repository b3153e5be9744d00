//! Where messages go.

pub mod backoff;
pub mod echo;
pub mod framing;
pub mod health;
pub mod link;
pub mod pool;
pub mod proxy;
pub mod route;
pub mod yamux;

#[cfg(test)]
mod dice;

use net_io::Now;

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

impl From<DecodeError> for End {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooLong { .. } => Self::TooLong,
            DecodeError::PoolFull => Self::PoolFull,
        }
    }
}
