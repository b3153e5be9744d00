//! Dirty sessions: flush each once, into the driver's send slots.

use std::net::SocketAddr;

use kcp_core::wire::HEADER_LEN;
use kcp_core::{Cx, FlushPolicy, Kcp, Millis};
use net_io::{Destination, Driver, SocketId};

use super::budget;
use super::challenge::Challenger;
use super::locals::Locals;
use super::mailbox::Mailbox;
use super::pace::Pace;
use super::sessions::Sessions;
use super::stats::{DropReason, EndReason, Stat, Stats};
use crate::session::SessionId;

/// What egress works on beside the driver.
pub(super) struct Egress<'a, S> {
    pub(super) now: Millis,
    /// All that arrived until then was taken in: what timed out later is not sent again yet.
    pub(super) heard: Millis,
    pub(super) mailbox: &'a Mailbox<S>,
    pub(super) sessions: &'a mut Sessions,
    pub(super) locals: &'a Locals,
    pub(super) challenger: &'a Challenger,
    pub(super) stats: &'a mut Stats,
    pub(super) pace: &'a mut Pace,
}

impl<S> Egress<'_, S> {
    /// Flushes dirty sessions until none is left or the budget ends; tells which.
    pub(super) fn run(&mut self, driver: &mut impl Driver) -> bool {
        self.sessions.group_dirty();
        self.pace.step();
        let mut budget = budget::TRANSMITS;
        let finished = self.flush_all(driver, &mut budget);
        self.sessions.dirty_before = self.sessions.dirty.len();
        finished
    }

    fn flush_all(&mut self, driver: &mut impl Driver, budget: &mut usize) -> bool {
        while let Some(&id) = self.sessions.dirty.front() {
            if *budget == 0 {
                return false;
            }
            if self.session(id, driver, budget) {
                self.sessions.dirty.pop_front();
                self.settle(id);
            }
            if self.pace.is_over(1, budget::EGRESS_US, driver) {
                return self.sessions.dirty.is_empty();
            }
        }
        true
    }

    /// Flushes one session; `false` when the budget ended before its flush did.
    fn session(&mut self, id: SessionId, driver: &mut impl Driver, budget: &mut usize) -> bool {
        let Sessions { table, store, .. } = &mut *self.sessions;
        let Some(session) = table.by_id(id) else { return true };
        let config = &self.mailbox.policy.listeners[usize::from(session.listener)];
        let to = Destination {
            socket: SocketId(session.listener),
            peer: SocketAddr::from(session.peer),
            local: self.locals.get(session.local),
        };
        let mut cx = Cx { config, store };
        if session.held_until(self.now).is_none() {
            begin_flush(&mut session.kcp, &mut cx, self.now, self.heard);
            loop {
                let slot = driver.slot(config.mtu as usize);
                let kcp = &mut session.kcp;
                let Some(len) = kcp.poll_transmit_heard(&mut cx, self.now, self.heard, slot) else {
                    break;
                };
                if session.credit.spend_on_data(len) {
                    driver.queue(len, &to);
                } else {
                    self.stats.drop(DropReason::Amplification); // lost, for the protocol: it sends again
                    if session.asked == 0 {
                        session.ask_at(self.now);
                    }
                }
                *budget = budget.saturating_sub(1);
                if *budget == 0 {
                    return false;
                }
            }
        }
        if std::mem::take(&mut session.ask)
            && session.credit.spend(HEADER_LEN)
            && let Some(slot) = driver.slot(HEADER_LEN).first_chunk_mut()
        {
            self.challenger.question(session, config.rcv_wnd, slot);
            driver.queue(HEADER_LEN, &to);
            self.stats.add(Stat::ChallengesSent, 1);
        }
        true
    }

    /// After a session's flush: it is clean, and either dead or its timer is armed.
    fn settle(&mut self, id: SessionId) {
        let Some(session) = self.sessions.table.by_id(id) else { return };
        session.dirty = false;
        if session.vitals.wants_look(&session.kcp, self.now) {
            let look = session.vitals.look(&session.kcp, self.now);
            self.stats.look(&look);
        }
        let policy = &self.mailbox.policy;
        if session.kcp.is_dead() {
            self.sessions.end(id.index, EndReason::DeadLink, self.now, policy, self.stats);
        } else {
            self.sessions.arm(id.index, policy, self.now);
        }
    }
}

/// While the shard is behind, its timers wait. If that is for longer than the interval, what was touched is flushed whatever the
/// interval says: acknowledgements must not wait with them.
fn begin_flush(kcp: &mut Kcp, cx: &mut Cx<'_>, now: Millis, heard: Millis) {
    if cx.config.flush == FlushPolicy::Interval {
        kcp.handle_timeout(cx, now);
        if now.since(heard).cast_unsigned() < cx.config.interval {
            return;
        }
    }
    kcp.flush(cx, now);
}
