//! What backends do to sessions: their messages, their waiting, their ends.

use kcp_core::Millis;

use super::super::backend_stats::BackendStat;
use super::super::stats::EndReason;
use super::Floor;
use super::desk::Desk;
use crate::session::{SessionId, Tie};
use crate::upstream::backend::{BackendId, OnLoss, OnOverflow};
use crate::upstream::{End, Event};

impl Desk {
    /// Takes what happens to a session. The answer counts for messages: `false` when its session has no room.
    pub(super) fn hear(
        &mut self,
        floor: &mut Floor<'_>,
        id: SessionId,
        backend: BackendId,
        until: Millis,
        event: Event<'_>,
    ) -> bool {
        match event {
            Event::Message(message) => self.message(floor, id, backend, message),
            Event::Empty(frames) => {
                self.stats.add(backend, BackendStat::EmptyIn, u64::from(frames));
                true
            }
            Event::End(end) => {
                self.left(backend, end.into());
                self.ended(floor, id, backend, until, end);
                true
            }
        }
    }

    fn message(
        &mut self,
        floor: &mut Floor<'_>,
        id: SessionId,
        backend: BackendId,
        message: &[u8],
    ) -> bool {
        let bytes_max = floor.policy.session_bytes_max;
        let part = floor.sessions.part_of(bytes_max);
        let Some(session) = floor.session(id) else {
            self.stats.add(backend, BackendStat::BytesLost, message.len() as u64);
            return true;
        };
        // One that is longer than all there may be waits until nothing else does.
        if message.len() > session.room(part) && session.kcp.send_bytes() > 0 {
            let is_full = message.len() > session.room(bytes_max);
            let shortage = if is_full { Shortage::Client } else { Shortage::Part };
            self.hold(floor, id, backend, shortage);
            return false;
        }
        let Floor { millis, policy, sessions, stats, .. } = floor;
        if !sessions.send(id, message, *millis, policy, stats) {
            self.hold(floor, id, backend, Shortage::Memory);
            return false;
        }
        self.resuming = None;
        self.stats.add(backend, BackendStat::MessagesIn, 1);
        self.stats.add(backend, BackendStat::MessageBytesIn, message.len() as u64);
        true
    }

    /// There is no room for what a session's backend says: the backend waits, or the session ends.
    pub(super) fn hold(
        &mut self,
        floor: &mut Floor<'_>,
        id: SessionId,
        backend: BackendId,
        shortage: Shortage,
    ) {
        let Some(session) = floor.session(id) else { return };
        if !std::mem::replace(&mut session.backend_waits, true) {
            self.waits_for_client(backend, id);
        }
        match shortage {
            Shortage::Memory => floor.sessions.mark_blocked(id.index),
            Shortage::Client if self.backends.on_overflow == OnOverflow::Disconnect => {
                floor.end(id, EndReason::SlowClient);
            }
            // Its own acknowledgements make room.
            Shortage::Client | Shortage::Part => {}
        }
    }

    /// A backend's part in a session is over.
    fn ended(
        &mut self,
        floor: &mut Floor<'_>,
        id: SessionId,
        backend: BackendId,
        until: Millis,
        end: End,
    ) {
        let linger_until = floor.millis.add(self.backends.linger_ms);
        let Some(session) = floor.session(id) else { return };
        let tie = session.tie;
        session.waits_for_backend = false;
        session.backend_waits = false;
        if matches!(end, End::Fin | End::FinMidMessage) && session.kcp.wait_snd() > 0 {
            session.tie = Tie::Leaving { until: linger_until, end };
            floor.sessions.mark_dirty(id.index); // its timer moves
            return;
        }
        session.tie = Tie::Free;
        if is_loss(end, tie) {
            if self.backends.on_loss == OnLoss::Reroute {
                self.stats.add(backend, BackendStat::SessionsRerouted, 1);
            }
            self.lost(floor, id, end.into(), until);
        } else {
            floor.end(id, end.into());
        }
    }

    /// A session has lost its backend, or did not get the one that was chosen: it ends, or looks for another with its next
    /// message.
    pub(super) fn lost(
        &mut self,
        floor: &mut Floor<'_>,
        id: SessionId,
        reason: EndReason,
        until: Millis,
    ) {
        match self.backends.on_loss {
            OnLoss::End => floor.end(id, reason),
            OnLoss::Reroute => {
                if floor.session(id).is_some_and(|session| session.kcp.peek_size().is_some()) {
                    self.wait(floor, id, until);
                }
            }
        }
    }

    /// A session has to wait for a backend.
    pub(super) fn wait(&mut self, floor: &mut Floor<'_>, id: SessionId, until: Millis) {
        let Some(session) = floor.session(id) else { return };
        session.tie = Tie::Waiting;
        self.waiting.push(id, floor.millis, until);
    }
}

/// What a backend waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    /// The session's client is slower than the backend.
    Client,
    /// The memory that all sessions share is short, and this one has its part of it.
    Part,
    /// What all sessions share is used up.
    Memory,
}

impl Floor<'_> {
    /// A session takes messages of its backend.
    pub(super) fn may_hear(&mut self, id: SessionId) -> bool {
        self.session(id).is_some_and(|session| !session.backend_waits)
    }

    /// As much waits for a session's client as may.
    pub(super) fn is_full(&mut self, id: SessionId) -> bool {
        let bytes_max = self.policy.session_bytes_max;
        self.session(id).is_some_and(|session| session.room(bytes_max) == 0)
    }
}

/// The backend is gone or cannot be gone on with, as opposed to one that ends its part. On a link of many sessions it says which of them it cuts off; a
/// connection of the session's own that is cut off cannot be told from a backend that died: it should close in order.
const fn is_loss(end: End, tie: Tie) -> bool {
    match end {
        End::Reset => !matches!(tie, Tie::Yamux { .. }),
        End::ConnectFailed | End::ConnectTimeout | End::Stalled | End::TooLong | End::LinkLost => {
            true
        }
        End::Fin | End::FinMidMessage | End::Refused | End::PoolFull | End::Shed => false,
    }
}
