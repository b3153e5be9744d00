//! `nats`: sessions whose messages go by way of the gateway's connection to a messaging engine.
//!
//! Here is neither connection nor choice: everything goes into one pair of queues, and what does not fit waits in its
//! session's receive window.

use std::net::SocketAddr;

use bytes::Bytes;
use kcp_core::Millis;

use super::super::budget;
use super::super::sessions::Sessions;
use super::super::stats::{EndReason, Stat};
use super::{BLOCKED_MS, Floor};
use crate::session::{SessionId, Tie};
use crate::upstream::End;
use crate::upstream::backend::OnOverflow;
use crate::upstream::nats::bridge::{Down, Opening, ShardEnd};
use crate::upstream::nats::stats::Loss;

/// What a shard whose messages go to NATS is built with and keeps for life.
#[derive(Debug)]
pub struct NatsSetup {
    /// Its queues.
    pub end: ShardEnd,
    /// The listeners' addresses as bound, in listener order.
    pub listen_addrs: Vec<SocketAddr>,
    /// What becomes of a message for which a session has no room: it is dropped, or the session ends.
    pub on_overflow: OnOverflow,
    /// How long a session that a backend has ended may live on until its client has received everything, in milliseconds.
    pub linger_ms: u32,
}

/// Everything between a shard's sessions and its queues.
#[derive(Debug)]
pub(in crate::shard) struct Nats {
    setup: NatsSetup,
    /// The members of a room who have yet to be told, and what.
    telling: Option<(Vec<SessionId>, Bytes)>,
}

impl Nats {
    pub(in crate::shard) const fn new(setup: NatsSetup) -> Self {
        Self { setup, telling: None }
    }

    /// A datagram has touched a session: its messages go on.
    pub(in crate::shard) fn touched(&mut self, floor: &mut Floor<'_>, index: u32) {
        let Some(id) = floor.sessions.id(index) else { return };
        let Some(session) = floor.session(id) else { return };
        if let Tie::Leaving { end, .. } = session.tie
            && session.kcp.wait_snd() == 0
        {
            return floor.end(id, end.into());
        }
        self.forward(floor, id);
    }

    /// What backends said since the last turn, and the sessions that waited. Tells whether the budgets were enough.
    pub(in crate::shard) fn returns(&mut self, floor: &mut Floor<'_>) -> bool {
        let in_time = self.retry_blocked(floor);
        for _ in 0..budget::STREAM_EVENTS {
            if let Some((members, message)) = &mut self.telling {
                let (member, message) = (members.pop(), message.clone());
                match member {
                    Some(id) => self.message(floor, id, &message),
                    None => self.telling = None,
                }
                continue;
            }
            match self.setup.end.pop() {
                Some(Down::Message(id, message)) => self.message(floor, id, &message),
                Some(Down::Room(members, message)) => self.telling = Some((members, message)),
                Some(Down::Close(id)) => self.close(floor, id),
                None => return in_time,
            }
        }
        false
    }

    /// Looks again at sessions that waited for room, as long as there is some.
    fn retry_blocked(&mut self, floor: &mut Floor<'_>) -> bool {
        for _ in 0..budget::BLOCKED {
            let Some(id) = floor.sessions.blocked.pop_front() else { return true };
            let Some(session) = floor.session(id) else { continue };
            session.blocked = false;
            if !self.forward(floor, id) {
                return true; // the next one would be refused as well
            }
        }
        false
    }

    /// Tells of the sessions that ended, and lets the other end know that there is news. An end is never lost: one for which
    /// there is no room waits here.
    pub(in crate::shard) fn part(&mut self, floor: &mut Floor<'_>) -> bool {
        let parting = &mut floor.sessions.parting;
        while let Some((id, _, reason)) = parting.last() {
            if !self.setup.end.close(*id, *reason) {
                break;
            }
            parting.pop();
        }
        self.setup.end.ring();
        true
    }

    /// When something here is due even if nothing happens.
    pub(in crate::shard) fn next_deadline(
        &self,
        now: Millis,
        sessions: &Sessions,
    ) -> Option<Millis> {
        if self.setup.end.has_down() || self.telling.is_some() {
            return Some(now); // the wake for what is left over has been taken
        }
        let waits = !sessions.blocked.is_empty() || !sessions.parting.is_empty();
        waits.then(|| now.add(BLOCKED_MS))
    }

    /// Hands a session's queued messages on, as far as there is room; before the first one goes who it is. `false` when the
    /// session waits for room.
    fn forward(&mut self, floor: &mut Floor<'_>, id: SessionId) -> bool {
        let mut taken = false;
        let fits = loop {
            let Some(len) = floor.next_message(id) else { break true };
            let opening = self.opening(floor, id);
            let Some((session, mut cx)) = floor.conversation(id) else { return true };
            let end = &mut self.setup.end;
            if session.tie != Tie::Nats {
                if !opening.is_some_and(|opening| end.open(id, opening)) {
                    break false;
                }
                session.tie = Tie::Nats;
            }
            let kcp = &mut session.kcp;
            let fill = |out: &mut [u8]| {
                // As long as it said, so it fits.
                let _ = kcp.recv(&mut cx, out);
            };
            if !end.message(id, len, fill) {
                break false;
            }
            floor.stats.add(Stat::MessagesIn, 1);
            floor.stats.add(Stat::MessageBytesIn, len as u64);
            taken = true;
        };
        if taken {
            floor.sessions.mark_dirty(id.index); // its window may have opened
        }
        if !fits {
            floor.sessions.mark_blocked(id.index);
        }
        fits
    }

    /// Who a session is, as long as nobody has been told.
    fn opening(&self, floor: &mut Floor<'_>, id: SessionId) -> Option<Opening> {
        let session = floor.session(id)?;
        if session.tie == Tie::Nats {
            return None;
        }
        let (key, local, listener) = (session.key(), session.local, session.listener);
        let mut to = *self.setup.listen_addrs.get(usize::from(listener))?;
        if let Some(ip) = floor.locals.get(local) {
            to.set_ip(ip);
        }
        Some(Opening { client: key.peer.into(), listener: to, conv: key.conv })
    }

    fn message(&mut self, floor: &mut Floor<'_>, id: SessionId, message: &[u8]) {
        let lose = |reason| self.setup.end.lose(reason);
        let policy = floor.policy;
        let Some(session) = floor.session(id).filter(|session| session.tie == Tie::Nats) else {
            return lose(Loss::NoSession);
        };
        if message.len() > policy.listeners[usize::from(session.listener)].message_max() {
            return lose(Loss::TooLong);
        }
        // One that is longer than all there may be is taken when nothing else waits.
        if message.len() > session.room(policy.session_bytes_max) && session.kcp.send_bytes() > 0 {
            lose(Loss::SlowClient);
            if self.setup.on_overflow == OnOverflow::Disconnect {
                floor.end(id, EndReason::SlowClient);
            }
            return;
        }
        let Floor { millis, policy, sessions, stats, .. } = floor;
        if !sessions.send(id, message, *millis, policy, stats) {
            lose(Loss::StoreFull);
        }
    }

    /// A backend asks for a session's end: its client is given time to receive everything.
    fn close(&mut self, floor: &mut Floor<'_>, id: SessionId) {
        let until = floor.millis.add(self.setup.linger_ms);
        let Some(session) = floor.session(id).filter(|session| session.tie == Tie::Nats) else {
            return; // it has ended meanwhile, or is about to
        };
        let end = End::Fin;
        if session.kcp.wait_snd() == 0 {
            return floor.end(id, end.into());
        }
        session.tie = Tie::Leaving { until, end };
        floor.sessions.mark_dirty(id.index); // its timer moves
    }
}
