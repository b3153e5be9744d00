//! What an operator may ask a shard about its sessions, and what it answers. Plain data: the shard looks, the control
//! plane reads.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use kcp_core::Conv;
use serde::{Serialize, Serializer};
use tokio::sync::mpsc;

use crate::session::{Key, Peer, SessionId};

/// A question and where its answer goes. A shard takes one a turn.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What is asked.
    pub question: Question,
    /// Takes one answer; nobody need be listening any more.
    pub reply: mpsc::Sender<Answer>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Question {
    /// A part of the list of sessions.
    Scan(Scan),
    /// One session's inside.
    Look(SessionId),
    /// End one session now: what is queued for its client is dropped.
    Close(SessionId),
    /// Know the gateway's own prober by these addresses from now on. Answered with no session.
    Probers(Vec<Peer>),
    /// Forget the prober's session of this key, without a trace.
    Forget(Key),
}

/// The answer, of the question's kind.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Question::Scan`].
    Page(Page),
    /// To [`Question::Look`] and to those that end a session, where it was the session's last state; `None` when there is no such
    /// session, or no longer.
    Session(Option<Box<Portrait>>),
}

/// Looks at a bounded number of slots, from one on.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The slot to begin with.
    pub from: u32,
    /// Portraits wanted at most, of [`Scan::LIMIT_MAX`].
    pub limit: usize,
    /// Which sessions count.
    pub filter: Filter,
    /// Which of them are wanted, if not all in the order of their slots.
    pub order: Order,
    /// Only what comes after this one in the list; ordered lists only.
    pub after: Option<Rank>,
    /// Only what comes before this one in the list; ordered lists only.
    pub before: Option<Rank>,
}

impl Scan {
    /// Sessions that one scan describes at most.
    pub const LIMIT_MAX: usize = 256;
}

/// Which sessions are wanted; an absent condition holds for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this client address.
    pub ip: Option<IpAddr>,
    /// Of this client port.
    pub port: Option<u16>,
    /// Of this conversation.
    pub conv: Option<Conv>,
    /// With this backend; `echo` is the embedded one.
    pub backend: Option<String>,
}

/// How a list is ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By shard and slot: each session that lives throughout comes once, whatever comes and goes meanwhile.
    #[default]
    Slot,
    /// The slowest round trip first.
    Rtt,
    /// The most bytes queued towards the client first.
    Queued,
}

/// A session's place in an ordered list: the highest value first, then by shard and slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// What the list is ordered by; 0 in a list by slots.
    pub value: u64,
    /// The shard.
    pub shard: u32,
    /// The slot.
    pub slot: u32,
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rank {
    /// Less = nearer to the top of the list.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let value = other.value.cmp(&self.value);
        value.then(self.shard.cmp(&other.shard)).then(self.slot.cmp(&other.slot))
    }
}

/// What one scan found.
#[derive(Clone, Debug)]
pub struct Page {
    /// What was found, in the list's order.
    pub sessions: Vec<(Rank, Portrait)>,
    /// Slots that were looked at.
    pub visited: u32,
    /// Where the next scan goes on; `None` when that was the shard's last slot.
    pub next: Option<u32>,
}

/// A session's name outside of its shard: shard, slot, and which of the slot's occupants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalId {
    /// The shard.
    pub shard: u32,
    /// The session there.
    pub session: SessionId,
}

impl fmt::Display for GlobalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.shard, self.session.index, self.session.generation)
    }
}

impl Serialize for GlobalId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is not three numbers with hyphens between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no session is named so; an id looks like 0-17-42: shard, slot, occupant")]
pub struct NotAnId;

impl FromStr for GlobalId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let mut numbers = text.split('-').map(|part| part.parse().map_err(|_| NotAnId));
        let mut number = || numbers.next().unwrap_or(Err(NotAnId));
        let (shard, index, generation) = (number()?, number()?, number()?);
        let session = SessionId { index, generation };
        if numbers.next().is_none() { Ok(Self { shard, session }) } else { Err(NotAnId) }
    }
}

/// One session as it stood when its shard was asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Portrait {
    /// Its name for further questions.
    pub id: GlobalId,
    /// The client.
    pub address: SocketAddr,
    /// The conversation.
    pub conv: u32,
    /// The listener it came in by, from 0.
    pub listener: u16,
    /// The gateway's address that the client uses, where the listener is a wildcard.
    pub local: Option<IpAddr>,
    /// Its backend; null while it has none.
    pub backend: Option<String>,
    /// Milliseconds since it was born; wraps every 49.7 days.
    pub age_ms: u32,
    /// Milliseconds since its client last showed that it is there.
    pub silent_ms: u32,
    /// Challenges sent since then.
    pub challenges: u8,
    /// The client has shown that it receives at its address.
    pub proven: bool,
    /// For how long its client has announced no room; null while it has room.
    pub stalled_ms: Option<u32>,
    /// Round trips.
    pub rtt: RttPortrait,
    /// Windows, in segments.
    pub windows: Windows,
    /// What waits.
    pub queues: Queues,
    /// What was.
    pub counters: SessionCounters,
}

/// Round trips of a session, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RttPortrait {
    /// Smoothed; 0 before the first sample.
    pub srtt_ms: u32,
    /// Its smoothed deviation.
    pub rttval_ms: u32,
    /// The timeout of a first transmission.
    pub rto_ms: u32,
}

/// Windows of a session, in segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Windows {
    /// Ours for sending.
    pub send: u32,
    /// Ours for receiving.
    pub receive: u32,
    /// What the client announced last.
    pub remote: u32,
    /// The congestion window; not looked at when the listener has `nc`.
    pub congestion: u32,
    /// Where slow start ends.
    pub slow_start_threshold: u32,
}

/// What waits in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Queues {
    /// Segments waiting for the window.
    pub unsent: usize,
    /// Segments in flight.
    pub in_flight: usize,
    /// Segments received ahead of a gap.
    pub out_of_order: usize,
    /// Segments received in order and not yet taken by the upstream.
    pub unread: usize,
    /// Acknowledgements owed.
    pub acks: usize,
    /// Payload bytes towards the client, in flight and waiting.
    pub bytes_to_client: usize,
    /// Bytes of its messages that the upstream holds.
    pub bytes_at_upstream: usize,
}

/// What a session has done since it was born. Each wraps at 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SessionCounters {
    /// Segments sent for the first time.
    pub segments_sent: u32,
    /// Segments sent again because their timeout passed.
    pub resent_by_timeout: u32,
    /// Segments sent again because later ones were acknowledged.
    pub resent_fast: u32,
    /// Segments received in order.
    pub segments_received: u32,
    /// Segments the client has acknowledged without a gap.
    pub segments_acknowledged: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_text_again_and_nothing_else_is_one() {
        let session = SessionId { index: 17, generation: u32::MAX };
        let id = GlobalId { shard: 3, session };
        assert_eq!(id.to_string(), "3-17-4294967295");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "1", "1-2", "1-2-3-4", "1-2-x", "-1-2-3", "1-2-4294967296", "1--2"] {
            assert_eq!(text.parse::<GlobalId>(), Err(NotAnId), "{text:?}");
        }
    }

    #[test]
    fn the_highest_value_comes_first() {
        let rank = |value, shard, slot| Rank { value, shard, slot };
        let list = [rank(9, 1, 5), rank(9, 2, 0), rank(3, 0, 0), rank(0, 0, 7), rank(0, 1, 0)];
        assert!(list.is_sorted());
    }
}
