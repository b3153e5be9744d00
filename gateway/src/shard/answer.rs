//! Answers an operator's questions about sessions: a look at a bounded number of slots, one question a turn.

use std::collections::BinaryHeap;
use std::net::SocketAddr;

use kcp_core::Millis;

use super::locals::Locals;
use super::sessions::Sessions;
use super::stats::{EndReason, Stats};
use super::{Outlet, Policy, budget};
use crate::control::question::{
    Answer, Filter, GlobalId, Order, Page, Portrait, Question, Queues, Rank, RttPortrait, Scan,
    SessionCounters, Windows,
};
use crate::session::{Credit, Key, Session, SessionId};

/// What the answers are made of.
pub(super) struct Answerer<'a> {
    pub(super) now: Millis,
    pub(super) index: u32,
    pub(super) policy: &'a Policy,
    pub(super) sessions: &'a mut Sessions,
    pub(super) locals: &'a Locals,
    pub(super) outlet: &'a Outlet,
    pub(super) stats: &'a mut Stats,
}

impl Answerer<'_> {
    /// The answer to one question.
    pub(super) fn answer(&mut self, question: &Question) -> Answer {
        match question {
            Question::Scan(scan) => Answer::Page(self.scan(scan)),
            Question::Look(id) => Answer::Session(self.look(*id)),
            Question::Close(id) => Answer::Session(self.close(*id)),
            Question::Probers(probers) => {
                self.sessions.probers.clone_from(probers);
                Answer::Session(None)
            }
            Question::Forget(key) => Answer::Session(self.forget(key)),
        }
    }

    fn look(&mut self, id: SessionId) -> Option<Box<Portrait>> {
        self.sessions.table.by_id(id)?;
        self.sessions.table.get(id.index).map(|session| Box::new(self.portrait(id, session)))
    }

    fn close(&mut self, id: SessionId) -> Option<Box<Portrait>> {
        let last = self.look(id)?;
        let reason = EndReason::Operator;
        self.sessions.end(id.index, reason, self.now, self.policy, self.stats);
        Some(last)
    }

    fn forget(&mut self, key: &Key) -> Option<Box<Portrait>> {
        let id = self.sessions.table.find(key).and_then(|index| self.sessions.id(index))?;
        let last = self.look(id)?;
        self.sessions.forget(id.index, EndReason::Operator, self.now, self.policy, self.stats);
        Some(last)
    }

    fn backend(&self, session: &Session) -> Option<&str> {
        self.outlet.backend_of(session.tie)
    }

    fn scan(&self, scan: &Scan) -> Page {
        let slots = self.sessions.table.slots();
        let end = slots.min(scan.from.saturating_add(budget::SCANNED_SLOTS));
        let limit = scan.limit.clamp(1, Scan::LIMIT_MAX);
        // The worst of the best on top, where a better one pushes it out.
        let mut best = BinaryHeap::with_capacity(limit + 1);
        let mut slot = scan.from;
        while slot < end && !(scan.order == Order::Slot && best.len() == limit) {
            if let Some(session) = self.sessions.table.get(slot)
                && scan.filter.wants(session)
                && scan.filter.backend.as_deref().is_none_or(|b| self.backend(session) == Some(b))
            {
                let rank = Rank { value: scan.order.value(session), shard: self.index, slot };
                if scan.after.is_none_or(|after| rank > after)
                    && scan.before.is_none_or(|before| rank < before)
                {
                    best.push(rank);
                }
                if best.len() > limit {
                    best.pop();
                }
            }
            slot += 1;
        }
        let portrait = |rank: Rank| {
            let session = self.sessions.table.get(rank.slot)?;
            let id = SessionId { index: rank.slot, generation: session.generation };
            Some((rank, self.portrait(id, session)))
        };
        Page {
            sessions: best.into_sorted_vec().into_iter().filter_map(portrait).collect(),
            visited: slot.saturating_sub(scan.from),
            next: (slot < slots).then_some(slot),
        }
    }

    fn portrait(&self, id: SessionId, session: &Session) -> Portrait {
        let kcp = &session.kcp;
        let (lengths, resends) = (kcp.queue_lengths(), kcp.resends());
        let config = &self.policy.listeners[usize::from(session.listener)];
        Portrait {
            id: GlobalId { shard: self.index, session: id },
            address: SocketAddr::from(session.peer),
            conv: kcp.conv().0,
            listener: session.listener,
            local: self.locals.get(session.local),
            backend: self.backend(session).map(str::to_owned),
            age_ms: elapsed(session.born, self.now),
            silent_ms: elapsed(session.last_rx, self.now),
            challenges: session.asked,
            proven: session.credit == Credit::Proven,
            stalled_ms: session.vitals.stalled_for(self.now),
            rtt: RttPortrait { srtt_ms: kcp.srtt(), rttval_ms: kcp.rttval(), rto_ms: kcp.rto() },
            windows: Windows {
                send: config.snd_wnd,
                receive: config.rcv_wnd,
                remote: kcp.rmt_wnd(),
                congestion: kcp.cwnd(),
                slow_start_threshold: kcp.ssthresh(),
            },
            queues: Queues {
                unsent: lengths.snd_queue,
                in_flight: lengths.snd_buf,
                out_of_order: lengths.rcv_buf,
                unread: lengths.rcv_queue,
                acks: lengths.acks,
                bytes_to_client: kcp.send_bytes(),
                bytes_at_upstream: session.upstream_bytes,
            },
            counters: SessionCounters {
                segments_sent: kcp.snd_nxt().0,
                resent_by_timeout: resends.timeout,
                resent_fast: resends.fast,
                segments_received: kcp.rcv_nxt().0,
                segments_acknowledged: kcp.snd_una().0,
            },
        }
    }
}

impl Filter {
    fn wants(&self, session: &Session) -> bool {
        if session.is_probe || self.conv.is_some_and(|conv| conv != session.kcp.conv()) {
            return false;
        }
        if self.ip.is_none() && self.port.is_none() {
            return true;
        }
        let address = SocketAddr::from(session.peer);
        self.ip.is_none_or(|ip| ip == address.ip())
            && self.port.is_none_or(|port| port == address.port())
    }
}

impl Order {
    fn value(self, session: &Session) -> u64 {
        match self {
            Self::Slot => 0,
            Self::Rtt => session.kcp.srtt().into(),
            Self::Queued => session.kcp.send_bytes() as u64,
        }
    }
}

const fn elapsed(since: Millis, now: Millis) -> u32 {
    now.0.wrapping_sub(since.0)
}

#[cfg(test)]
mod tests;
