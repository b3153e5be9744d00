//! Everything a shard keeps by session slot: the table, the timers, the storage, and the lists of slots with work to do.

use std::collections::VecDeque;
use std::hint::black_box;

use kcp_core::{Cx, Millis, SendError, Store, Wheel};

use super::stats::{DropReason, EndReason, Stat, Stats};
use super::sweep::Sweep;
use super::table::{AHEAD, Removed, Table};
use super::tombstone::Tombstones;
use super::trim::Trim;
use super::{Policy, budget};
use crate::session::{Key, Peer, Session, SessionId, Tie};

/// A shard's sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    /// Who is there.
    pub(super) table: Table,
    /// One timer a session: its protocol's deadline or its idle timeout, whichever comes first.
    pub(super) wheel: Wheel,
    /// Payload in flight.
    pub(super) store: Store,
    trim: Trim,
    pub(super) sweep: Sweep,
    /// The slot from which timers are yet to be looked at again.
    rearm_from: Option<u32>,
    /// Where the gateway's own prober knocks from.
    pub(super) probers: Vec<Peer>,
    /// Its live sessions.
    probes: u32,
    /// Who was there.
    pub(super) tombstones: Tombstones,
    /// Sessions to flush this turn, each once.
    pub(super) dirty: VecDeque<SessionId>,
    /// Those at its front that are left from an earlier turn.
    pub(super) dirty_before: usize,
    /// Room to put the others in order.
    by_peer: Vec<(u64, SessionId)>,
    /// Sessions that wait for room that all share, at the upstream or in memory, each once.
    pub(super) blocked: VecDeque<SessionId>,
    /// Sessions that ended and whose backends have yet to hear of it.
    pub(super) parting: Vec<(SessionId, Tie, EndReason)>,
}

impl Sessions {
    /// No session yet.
    #[must_use]
    pub(super) fn new(policy: &Policy, store_bytes_max: usize, seed: u64, now: Millis) -> Self {
        Self {
            table: Table::new(policy.sessions_max, seed),
            wheel: Wheel::new(now),
            store: Store::new(store_bytes_max),
            trim: Trim::new(now),
            sweep: Sweep::new(now),
            rearm_from: None,
            probers: Vec::new(),
            probes: 0,
            tombstones: Tombstones::new(policy.tombstones_max, seed.rotate_left(32)),
            dirty: VecDeque::new(),
            dirty_before: 0,
            by_peer: Vec::with_capacity(budget::DIRTY),
            blocked: VecDeque::new(),
            parting: Vec::new(),
        }
    }

    /// Puts a new session in.
    pub(super) fn add(&mut self, mut session: Session, stats: &mut Stats) -> u32 {
        session.is_probe = self.probers.contains(&session.peer);
        self.probes += u32::from(session.is_probe);
        stats.add(if session.is_probe { Stat::Probes } else { Stat::Births }, 1);
        let index = self.table.insert(session);
        self.wheel.make_room(index);
        index
    }

    /// Brings what serving the sessions of these keys needs into the caches.
    pub(super) fn warm(&self, keys: &[Key]) {
        let slots = self.table.warm_keys(keys);
        let timers = slots.iter().filter(|&&slot| slot < self.table.slots());
        black_box(
            timers.filter_map(|&slot| self.wheel.deadline(slot)).fold(0, |sum, at| sum ^ at.0),
        );
    }

    /// Live sessions of players.
    #[must_use]
    pub(super) fn players(&self) -> u32 {
        self.table.len() - self.probes
    }

    /// The id of the session in a slot.
    #[must_use]
    pub(super) fn id(&self, index: u32) -> Option<SessionId> {
        Some(SessionId { index, generation: self.table.get(index)?.generation })
    }

    /// Notes that a session has something to flush.
    pub(super) fn mark_dirty(&mut self, index: u32) {
        if let Some(session) = self.table.get_mut(index)
            && !std::mem::replace(&mut session.dirty, true)
        {
            self.dirty.push_back(SessionId { index, generation: session.generation });
        }
    }

    /// Puts those that became dirty in this turn in an order in which the sessions of one address stand together: their datagrams
    /// leave as trains.
    pub(super) fn group_dirty(&mut self) {
        let fresh = self.dirty.len().saturating_sub(self.dirty_before);
        if fresh < GROUPED_FROM {
            return;
        }
        let Self { table, dirty, by_peer, .. } = self;
        by_peer.clear();
        let fresh = dirty.make_contiguous().split_at_mut(self.dirty_before).1;
        by_peer.extend(fresh.iter().map(|&id| {
            let session = table.get(id.index);
            (session.map_or(0, |session| session.peer.fold()), id)
        }));
        by_peer.sort_unstable_by_key(|&(peer, id)| (peer, id.index));
        for (place, &(_, id)) in fresh.iter_mut().zip(by_peer.iter()) {
            *place = id;
        }
    }

    /// Notes that a session waits for room that all share.
    pub(super) fn mark_blocked(&mut self, index: u32) {
        if let Some(session) = self.table.get_mut(index)
            && !std::mem::replace(&mut session.blocked, true)
        {
            self.blocked.push_back(SessionId { index, generation: session.generation });
        }
    }

    /// Queues a message of the upstream's towards a client; `false` when the store has no room and the message must wait. A
    /// message for a session that ended is dropped.
    pub(super) fn send(
        &mut self,
        id: SessionId,
        message: &[u8],
        now: Millis,
        policy: &Policy,
        stats: &mut Stats,
    ) -> bool {
        let Some(session) = self.table.by_id(id) else { return true };
        let config = &policy.listeners[usize::from(session.listener)];
        let mut cx = Cx { config, store: &mut self.store };
        match session.kcp.send(&mut cx, message) {
            Ok(_) => {
                stats.add(Stat::MessagesOut, 1);
                stats.add(Stat::MessageBytesOut, message.len() as u64);
                self.mark_dirty(id.index);
                true
            }
            Err(SendError::StoreFull) => false,
            Err(SendError::TooLong) => {
                stats.drop(DropReason::MessageTooLong);
                self.end(id.index, EndReason::MessageTooLong, now, policy, stats);
                true
            }
        }
    }

    /// Of the `bytes_max` that one session may have waiting for its client, what it may have now: its part, while memory is short.
    pub(super) fn part_of(&self, bytes_max: usize) -> usize {
        if !self.store.is_short() {
            return bytes_max;
        }
        bytes_max.min(self.store.part_bytes())
    }

    /// Ends a session: its storage goes back, its timer stops, its key is remembered. An id of it that
    /// still stands in a list finds nobody when the list is worked through.
    pub(super) fn end(
        &mut self,
        index: u32,
        reason: EndReason,
        now: Millis,
        policy: &Policy,
        stats: &mut Stats,
    ) {
        if let Some(session) = self.forget(index, reason, now, policy, stats) {
            let until = now.add(policy.tombstone_ms);
            self.tombstones.remember(&session.key(), until, policy.tombstones_max);
        }
    }

    /// Ends a session and leaves its key free for the next.
    pub(super) fn forget(
        &mut self,
        index: u32,
        reason: EndReason,
        now: Millis,
        policy: &Policy,
        stats: &mut Stats,
    ) -> Option<Session> {
        let Removed { mut session, released } = self.table.remove(index)?;
        if session.is_probe {
            self.probes -= 1;
        } else {
            stats.last_look(&session, now);
            stats.end(reason);
            stats.add(Stat::UndeliveredBytes, session.kcp.send_bytes() as u64);
        }
        if session.tie.is_bound() {
            let id = SessionId { index, generation: session.generation };
            self.parting.push((id, session.tie, reason));
        }
        if let Some(config) = policy.listeners.get(usize::from(session.listener)) {
            let mut cx = Cx { config, store: &mut self.store };
            while session.kcp.recv_with(&mut cx, |_| {}).is_ok() {
                stats.drop(DropReason::SessionEnded);
            }
        }
        session.kcp.reset(&mut self.store);
        self.wheel.cancel(index);
        if let Some(released) = released {
            self.wheel.release(released);
        }
        Some(session)
    }

    /// Arms a session's timer unless it already stands earlier. A timer that fires early finds nothing due and is armed
    /// anew: cheaper than moving it with every datagram.
    pub(super) fn arm(&mut self, index: u32, policy: &Policy, now: Millis) {
        let Some(session) = self.table.get(index) else { return };
        let Some(config) = policy.listeners.get(usize::from(session.listener)) else { return };
        let cx = Cx { config, store: &mut self.store };
        let mut due = together(session.last_rx.add(policy.idle_timeout_ms), policy.idle_timeout_ms);
        let held = session.held_until(now);
        if let Some(deadline) = held.or_else(|| session.kcp.poll_timeout(&cx, now)) {
            due = due.earliest(deadline);
        }
        if let Some(deadline) = presence_deadline(session, index, policy) {
            due = due.earliest(deadline);
        }
        if let Tie::Leaving { until, .. } = session.tie {
            due = due.earliest(until);
        }
        if self.wheel.deadline(index).is_none_or(|armed| due.since(armed) < 0) {
            self.wheel.arm(index, due);
        }
    }

    /// Another policy: timers may be due sooner than they stand.
    pub(super) const fn rearm_all(&mut self) {
        self.rearm_from = Some(0);
    }

    /// Looks at a part of the timers again, if that is due; tells whether it was the last part.
    fn rearm(&mut self, policy: &Policy, now: Millis) -> bool {
        let Some(from) = self.rearm_from else { return true };
        let slots = self.table.slots();
        let end = slots.min(from.saturating_add(budget::REARMED_SLOTS));
        for index in from..end {
            self.arm(index, policy, now);
        }
        self.rearm_from = (end < slots).then_some(end);
        self.rearm_from.is_none()
    }

    /// When a timer, a tombstone or memory is to be looked at next.
    #[must_use]
    pub(super) fn next_deadline(&self, now: Millis) -> Option<Millis> {
        let timer = self.wheel.next_deadline();
        let grave = self.tombstones.next_deadline();
        let trim = self.trim.next_deadline(now, &self.store);
        [timer, grave, trim].into_iter().flatten().reduce(Millis::earliest)
    }

    /// Gives a step of memory back that a past peak took.
    pub(super) fn trim(&mut self, now: Millis) {
        self.trim.run(now, &mut self.store);
    }

    /// Expires timers: a session idle for too long ends, another becomes dirty. `is_over` is told how many more were looked at, and
    /// tells whether to stop. Tells whether the budgets were enough. `now` is the time until which everything that arrived was
    /// taken in.
    pub(super) fn expire(
        &mut self,
        now: Millis,
        policy: &Policy,
        stats: &mut Stats,
        mut is_over: impl FnMut(usize) -> bool,
    ) -> bool {
        self.tombstones.expire(now, budget::TOMBSTONES);
        let rearmed = self.rearm(policy, now);
        let mut expired = 0;
        while expired < budget::TIMERS && self.dirty.len() < budget::DIRTY {
            let mut due = [0; AHEAD];
            let popped = due.iter_mut().map_while(|place| {
                *place = self.wheel.pop(now)?;
                Some(())
            });
            let count = popped.count();
            self.expire_these(&due[..count], now, policy, stats);
            if count < AHEAD {
                return rearmed;
            }
            expired += count;
            if is_over(count) {
                break;
            }
        }
        rearmed && self.wheel.next_deadline().is_none_or(|next| now.since(next) < 0)
    }

    /// Up to [`AHEAD`] of them, so that their cache misses overlap.
    fn expire_these(&mut self, due: &[u32], now: Millis, policy: &Policy, stats: &mut Stats) {
        stats.add(Stat::TimersExpired, due.len() as u64);
        self.table.warm_slots(due);
        let (mut ends, mut count) = ([(0, EndReason::Idle); AHEAD], 0);
        for &index in due {
            let Some(session) = self.table.get_mut(index) else { continue };
            match fate(session, index, now, policy) {
                Fate::Ends(reason) => {
                    ends[count] = (index, reason);
                    count += 1;
                    continue;
                }
                Fate::IsAsked => session.ask_at(now),
                Fate::GoesOn if session.kcp.is_idle() => {
                    self.arm(index, policy, now); // everything was acknowledged in time
                    continue;
                }
                Fate::GoesOn => {}
            }
            self.mark_dirty(index);
        }
        let ends = &ends[..count];
        if count > 1 {
            let mut slots = [0; AHEAD];
            slots.iter_mut().zip(ends).for_each(|(slot, (index, _))| *slot = *index);
            self.table.warm_ends(&slots[..count]);
        }
        for &(index, reason) in ends {
            self.end(index, reason, now, policy, stats);
        }
    }
}

/// What becomes of a session whose timer has expired.
enum Fate {
    /// It ends.
    Ends(EndReason),
    /// Its client is asked whether it is there.
    IsAsked,
    /// Its protocol wanted to be woken, or it was too early.
    GoesOn,
}

fn fate(session: &Session, index: u32, now: Millis, policy: &Policy) -> Fate {
    if let Tie::Leaving { until, end } = session.tie
        && now.since(until) >= 0
    {
        return Fate::Ends(end.into());
    }
    if now.since(session.last_rx.add(policy.idle_timeout_ms)) >= 0 {
        return Fate::Ends(EndReason::Idle);
    }
    match presence_deadline(session, index, policy) {
        Some(due) if now.since(due) < 0 => Fate::GoesOn,
        Some(_) if session.asked >= CHALLENGES_MAX => Fate::Ends(EndReason::Keepalive),
        Some(_) => Fate::IsAsked,
        None => Fate::GoesOn,
    }
}

/// When a client is to be asked whether it is there, or given up; `None` when keepalive is off.
///
/// Each slot adds a share of its own, up to a quarter of the interval: a million clients that came in the same second are not
/// asked in the same second.
fn presence_deadline(session: &Session, index: u32, policy: &Policy) -> Option<Millis> {
    if policy.keepalive_ms == 0 {
        return None;
    }
    if session.asked > 0 {
        let within = (policy.keepalive_ms / 6).max(ANSWER_WITHIN_MIN_MS);
        return Some(together(session.asked_at.add(within), policy.keepalive_ms));
    }
    let share = index.wrapping_mul(GOLDEN) >> 16;
    let spread = (u64::from(policy.keepalive_ms / 4) * u64::from(share)) >> 16;
    let spread = u32::try_from(spread).unwrap_or(0);
    Some(together(session.last_rx.add(policy.keepalive_ms).add(spread), policy.keepalive_ms))
}

/// The moment at which those are looked after together that are due within a thousandth of their whole time of each other: 16,000
/// wake-ups a second for as many questions, or ends, would cost more than these.
const fn together(at: Millis, whole_ms: u32) -> Millis {
    let mask = (whole_ms / TOGETHER).next_power_of_two() - 1;
    Millis(at.0.wrapping_add(mask) & !mask)
}

/// Challenges that may stay without an answer.
const CHALLENGES_MAX: u8 = 3;

/// Shortest time to wait for an answer, in milliseconds: a stock client answers at its next interval, 5 s at most.
const ANSWER_WITHIN_MIN_MS: u32 = 6_000;

/// The whole time over this, and up to twice as much: 64 ms of a minute.
const TOGETHER: u32 = 1024;

/// Sessions to flush that are worth putting in order.
const GROUPED_FROM: usize = 32;

/// 2^32 over the golden ratio: neighbouring slots get shares far apart.
const GOLDEN: u32 = 0x9e37_79b1;
