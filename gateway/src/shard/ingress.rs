//! One datagram: find its owner, find or admit its session, feed the protocol, hand messages to the upstream.

use std::net::{IpAddr, SocketAddr};

use kcp_core::{Conv, Cx, Millis, wire};
use net_io::steer::Steering;
use net_io::{Driver, Now, SocketId};

use super::admission::Admission;
use super::challenge::Challenger;
use super::farewell::Farewells;
use super::handoff::Handoff;
use super::hearing::Hearing;
use super::locals::Locals;
use super::mailbox::Mailbox;
use super::pace::Pace;
use super::sessions::Sessions;
use super::stats::{DropReason, EndReason, Histogram, Stat, Stats};
use super::table::AHEAD;
use super::upstreams::Floor;
use super::{Outlet, budget};
use crate::session::{Credit, Key, Peer, Session};

/// Where a datagram came from: its listener, its sender, and the address of ours that was used.
pub(super) type Origin = (SocketId, SocketAddr, Option<IpAddr>);

/// What one batch works on beside the driver.
pub(super) struct Ingress<'a, S> {
    pub(super) now: Millis,
    /// The same as the driver counts it.
    pub(super) clock: Now,
    /// New sessions are turned away.
    pub(super) shedding: bool,
    pub(super) index: u32,
    pub(super) steering: &'a [Option<Steering>],
    pub(super) mailbox: &'a Mailbox<S>,
    pub(super) sessions: &'a mut Sessions,
    pub(super) locals: &'a mut Locals,
    pub(super) challenger: &'a Challenger,
    pub(super) outlet: &'a mut Outlet,
    pub(super) handoff: &'a mut Handoff,
    pub(super) farewells: &'a mut Farewells,
    pub(super) stats: &'a mut Stats,
    pub(super) pace: &'a mut Pace,
    pub(super) hearing: &'a mut Hearing,
}

impl<S> Ingress<'_, S> {
    /// Takes strays and this shard's own datagrams until none is left or a budget ends; tells which, and how far that gets the
    /// shard with what has arrived.
    pub(super) fn run(&mut self, driver: &mut impl Driver) -> bool {
        self.retry_blocked();
        let strays_finished = self.strays(driver);
        let (taken, finished) = self.datagrams(driver);
        self.handoff.wake_owners();
        if strays_finished && finished && !driver.has_backlog() {
            self.hearing.all(self.now);
        } else {
            // Only a turn that has taken all strays in gets further with the rest.
            let taken = if strays_finished { taken } else { 0 };
            self.hearing.not_all(self.now, taken, || driver.backlog_max());
        }
        strays_finished && finished
    }

    /// Takes what other shards handed over.
    fn strays(&mut self, driver: &mut impl Driver) -> bool {
        for _ in 0..budget::STRAYS {
            let Some(stray) = self.handoff.pop() else { return true };
            self.stats.add(Stat::HandoffIn, 1);
            let outcome = self.accept((stray.socket, stray.peer, stray.local), &stray.payload);
            self.handoff.recycle(stray);
            self.forward(driver, outcome);
        }
        false
    }

    /// Takes the driver's; tells also how many.
    fn datagrams(&mut self, driver: &mut impl Driver) -> (usize, bool) {
        self.pace.step();
        let (mut taken, mut over) = (0, false);
        while taken < budget::DATAGRAMS && !over {
            if taken % AHEAD == 0 {
                self.warm(driver);
            }
            let Some(datagram) = driver.recv() else { return (taken, true) };
            let from = (datagram.socket, datagram.peer, datagram.local);
            let outcome = self.own_or_hand_over(from, datagram.payload);
            self.forward(driver, outcome);
            taken += 1;
            over = self.pace.is_over(1, budget::INGRESS_US, driver);
        }
        (taken, false)
    }

    /// What became of a datagram: it is dropped, or its session's messages go on.
    fn forward(&mut self, driver: &mut impl Driver, outcome: Result<Option<u32>, DropReason>) {
        let session = match outcome {
            Ok(Some(session)) => session,
            Ok(None) => return,
            Err(reason) => return self.stats.drop(reason),
        };
        let mut floor = Floor {
            now: self.clock,
            millis: self.now,
            policy: &self.mailbox.policy,
            sessions: &mut *self.sessions,
            locals: &*self.locals,
            stats: &mut *self.stats,
        };
        match &mut *self.outlet {
            Outlet::Echo(_) => {}
            Outlet::Backends(upstreams) => upstreams.touched(driver, &mut floor, session),
            Outlet::Nats(nats) => nats.touched(&mut floor, session),
        }
    }

    /// Has what the next datagrams need brought into the caches, where there are more sessions than caches hold.
    fn warm(&self, driver: &impl Driver) {
        if self.sessions.table.len() < WARM_FROM {
            return;
        }
        let mut keys = [Key { peer: Peer::NOBODY, conv: Conv(0) }; AHEAD];
        let ahead = (0..AHEAD).map_while(|skip| {
            let (peer, payload) = driver.ahead(skip)?;
            Some(Key { peer: Peer::from(peer), conv: wire::conv(payload).unwrap_or(Conv(0)) })
        });
        let count = keys.iter_mut().zip(ahead).map(|(place, key)| *place = key).count();
        if count > 1 {
            self.sessions.warm(&keys[..count]);
        }
    }

    /// Offers messages to the echo again that it had no room for in an earlier turn.
    fn retry_blocked(&mut self) {
        if self.outlet.echo().is_none() {
            return; // upstreams look after their own
        }
        for _ in 0..self.sessions.blocked.len().min(budget::BLOCKED) {
            let Some(id) = self.sessions.blocked.pop_front() else { return };
            let Some(session) = self.sessions.table.by_id(id) else { continue };
            session.blocked = false;
            self.echo_messages(id.index);
            self.sessions.mark_dirty(id.index); // its window may have opened
        }
    }

    fn own_or_hand_over(
        &mut self,
        from: Origin,
        payload: &[u8],
    ) -> Result<Option<u32>, DropReason> {
        let conv = wire::conv(payload).ok_or(DropReason::Short)?;
        if let Some(Some(steering)) = self.steering.get(usize::from(from.0.0)) {
            let owner = steering.shard(conv.0);
            if owner != self.index {
                if !self.handoff.push(owner, from, payload) {
                    return Err(DropReason::HandoffFull);
                }
                self.stats.add(Stat::HandoffOut, 1);
                return Ok(None);
            }
        }
        self.accept(from, payload)
    }

    fn accept(
        &mut self,
        (socket, peer, local): Origin,
        payload: &[u8],
    ) -> Result<Option<u32>, DropReason> {
        let conv = wire::conv(payload).ok_or(DropReason::Short)?;
        let key = Key { peer: Peer::from(peer), conv };
        if let Some(index) = self.sessions.table.find(&key) {
            return self.established(index, local, payload);
        }
        if self.sessions.tombstones.holds(&key) {
            return Err(DropReason::Tombstone);
        }
        let config = &self.mailbox.policy.listeners[usize::from(socket.0)];
        let admission = Admission {
            draining: self.mailbox.draining,
            shedding: self.shedding,
            sessions: self.sessions.table.len(),
            sessions_max: self.mailbox.policy.sessions_max,
        };
        admission.decide(conv, payload, config).inspect_err(|&reason| {
            if reason == DropReason::Draining {
                let policy = &self.mailbox.policy;
                self.farewells.owe((socket, peer, local), conv, payload, policy);
            }
        })?;
        let session = Session::new(key, socket.0, self.locals.index(local), self.now);
        let index = self.sessions.add(session, self.stats);
        self.established(index, local, payload)
    }

    fn established(
        &mut self,
        index: u32,
        local: Option<IpAddr>,
        payload: &[u8],
    ) -> Result<Option<u32>, DropReason> {
        let Some(id) = self.sessions.id(index) else { return Ok(None) };
        let Sessions { table, store, .. } = &mut *self.sessions;
        let Some(session) = table.get_mut(index) else { return Ok(None) };
        if session.may_have_restarted(payload) {
            return self.suspect(index, payload);
        }
        let policy = &self.mailbox.policy;
        let config = &policy.listeners[usize::from(session.listener)];
        let mut room = session.room(policy.session_bytes_max);
        let (mut echo, stats) = (self.outlet.echo(), &mut *self.stats);
        let upstream_bytes = &mut session.upstream_bytes;
        let mut cx = Cx { config, store };
        session.kcp.handle_datagram(&mut cx, self.now, payload, |message| {
            if message.is_empty() {
                stats.drop(DropReason::EmptyMessage);
                return true;
            }
            // What backends get is read from the queue, when the datagram is done with.
            let Some(echo) = &mut echo else { return false };
            if message.len() > room || !echo.has_room(message.len()) {
                return false;
            }
            room -= message.len();
            *upstream_bytes += message.len();
            stats.add(Stat::MessagesIn, 1);
            stats.add(Stat::MessageBytesIn, message.len() as u64);
            echo.push(id, message);
            true
        })?;
        if session.asked > 0 {
            if let Some(answer) = self.challenger.answer(session, payload, self.now) {
                self.stats.observe(Histogram::ChallengeRtt, u64::from(answer.rtt_ms) * 1000);
                session.credit = Credit::Proven;
            }
            session.answered();
        }
        session.last_rx = self.now;
        session.credit.earn(payload.len());
        if session.credit != Credit::Proven && session.kcp.snd_una().0 != 0 {
            session.credit = Credit::Proven;
        }
        if local.is_some() && self.locals.get(session.local) != local {
            session.local = self.locals.index(local);
        }
        self.echo_messages(index);
        self.sessions.mark_dirty(index);
        Ok(Some(index))
    }

    /// A datagram of a client that has received nothing, where the session's client acknowledged data: late, or the client
    /// restarted. It is not processed, for an acknowledgement would make a fresh client believe that its message was
    /// taken. The challenge decides: an answer that has received nothing ends the session, and the client's next
    /// attempt begins a new one.
    fn suspect(&mut self, index: u32, payload: &[u8]) -> Result<Option<u32>, DropReason> {
        let Some(session) = self.sessions.table.get_mut(index) else { return Ok(None) };
        let open = session.asked > 0;
        if open && let Some(answer) = self.challenger.answer(session, payload, self.now) {
            self.stats.observe(Histogram::ChallengeRtt, u64::from(answer.rtt_ms) * 1000);
            let policy = &self.mailbox.policy;
            self.sessions.forget(index, EndReason::Restart, self.now, policy, self.stats);
            return Ok(None);
        }
        if !open || self.now.since(session.asked_at) >= SUSPECT_AGAIN_MS {
            session.ask_at(self.now);
            session.suspect = true;
            self.sessions.mark_dirty(index);
        }
        Err(DropReason::StaleStart)
    }

    /// Hands a session's queued messages to the echo, as far as both have room.
    fn echo_messages(&mut self, index: u32) {
        let Some(echo) = self.outlet.echo() else { return };
        let policy = &self.mailbox.policy;
        loop {
            let Some(id) = self.sessions.id(index) else { return };
            let Sessions { table, store, .. } = &mut *self.sessions;
            let Some(session) = table.get_mut(index) else { return };
            let Some(len) = session.kcp.peek_size() else { return };
            let config = &policy.listeners[usize::from(session.listener)];
            if len > config.message_max().min(policy.session_bytes_max) {
                self.stats.drop(DropReason::MessageTooLong);
                let reason = EndReason::MessageTooLong;
                self.sessions.end(index, reason, self.now, policy, self.stats);
                return;
            }
            if len > session.room(policy.session_bytes_max) {
                return; // its own acknowledgements make room, and bring us here again
            }
            if !echo.has_room(len) {
                self.sessions.mark_blocked(index);
                return;
            }
            let mut cx = Cx { config, store };
            if len == 0 {
                let _ = session.kcp.recv(&mut cx, &mut []);
                self.stats.drop(DropReason::EmptyMessage);
                continue;
            }
            echo.push_with(id, len, |out| session.kcp.recv(&mut cx, out).ok());
            session.upstream_bytes += len;
            self.stats.add(Stat::MessagesIn, 1);
            self.stats.add(Stat::MessageBytesIn, len as u64);
        }
    }
}

/// Sessions that a shard must have before it is worthwhile to look for several at once: as many as the second cache of a core
/// holds.
const WARM_FROM: u32 = 4096;

/// How often a session that may have restarted is asked, in milliseconds: longer than a stock client needs to answer.
const SUSPECT_AGAIN_MS: i32 = 2_000;
