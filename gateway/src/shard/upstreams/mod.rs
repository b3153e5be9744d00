//! The backends as one shard has them: which session has which, and everything on the way between the two.
//!
//! A session is tied to its backend by a [`Tie`] of eight bytes; what a backend's part in a session takes beyond that is kept
//! here, so that a session without costs nothing for it. [`Desk`] decides and counts, [`Tcp`] has the connections, and this
//! file is what the shard's turn calls:
//!
//! | of the turn | here |
//! |---|---|
//! | mailbox | [`Upstreams::apply`]: another list of backends |
//! | ingress, after each datagram | [`Upstreams::touched`]: its messages to the backend, its room to the backend's |
//! | returns | [`Upstreams::returns`]: what happened to the streams, what is due, who waits |
//! | before the end | [`Upstreams::part`]: backends hear of sessions that ended |

mod desk;
mod hearing;
pub(super) mod nats;
mod parting;
mod shedding;
mod tcp;
mod waiting;
mod yamux;

use std::net::SocketAddr;

use kcp_core::{Cx as KcpCx, Millis};
use net_io::{Driver, Now, StreamEvent};

use super::backend_stats::{BackendStat, SharedBackendStats};
use super::locals::Locals;
use super::mailbox::{Mailbox, SharedBackends};
use super::pace::Pace;
use super::sessions::Sessions;
use super::stats::{DropReason, EndReason, Stat, Stats};
use super::trim::{Queued, Trim};
use super::{BackendSetup, Policy, budget};
use crate::session::{Session, SessionId, Tie};
use crate::upstream::backend::{Backend, BackendId, Kind};
use crate::upstream::echo::Echo;
use crate::upstream::link::PushError;
use crate::upstream::pool::Pool;
use crate::upstream::proxy::Header;
use desk::Desk;
use hearing::Shortage;
use shedding::Shedding;
use tcp::{Begin, Guest, Tcp};
use yamux::Links;

/// The rest of the shard, as upstreams work on it.
pub(super) struct Floor<'a> {
    /// The turn's clock.
    pub(super) now: Now,
    /// The same as the protocol counts it.
    pub(super) millis: Millis,
    pub(super) policy: &'a Policy,
    pub(super) sessions: &'a mut Sessions,
    pub(super) locals: &'a Locals,
    pub(super) stats: &'a mut Stats,
}

impl Floor<'_> {
    fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.table.by_id(id)
    }

    /// A session, and what its conversation works with.
    fn conversation(&mut self, id: SessionId) -> Option<(&mut Session, KcpCx<'_>)> {
        let Sessions { table, store, .. } = &mut *self.sessions;
        let session = table.by_id(id)?;
        let config = &self.policy.listeners[usize::from(session.listener)];
        Some((session, KcpCx { config, store }))
    }

    /// How long the message is that a session's backend gets next; `None` when there is none, or when it has to wait. What no
    /// backend wants to see is dropped here: empty messages, those to a backend that has ended its part, and
    /// with its session the one that is longer than any may be.
    fn next_message(&mut self, id: SessionId) -> Option<usize> {
        loop {
            let (session, mut cx) = self.conversation(id)?;
            if session.waits_for_backend {
                return None;
            }
            let len = session.kcp.peek_size()?;
            let unwanted = match session.tie {
                _ if len == 0 => DropReason::EmptyMessage,
                Tie::Leaving { .. } => DropReason::SessionEnded,
                Tie::Free | Tie::Waiting | Tie::Tcp(_) | Tie::Yamux { .. } | Tie::Nats => {
                    if len <= cx.config.message_max() {
                        return Some(len);
                    }
                    self.stats.drop(DropReason::MessageTooLong);
                    self.end(id, EndReason::MessageTooLong);
                    return None;
                }
            };
            let _ = session.kcp.recv_with(&mut cx, |_| {});
            self.stats.drop(unwanted);
            self.sessions.mark_dirty(id.index); // its window may have opened
        }
    }

    /// Gives back to sessions what they said. Always tells that the budget was enough.
    pub(super) fn echo(&mut self, echo: &mut Echo) -> bool {
        while let Some((id, message)) = echo.front() {
            if !self.sessions.send(id, message, self.millis, self.policy, self.stats) {
                break; // the store is full: acknowledgements make room, and a turn
            }
            if let Some(session) = self.session(id) {
                session.upstream_bytes -= message.len();
            }
            echo.pop();
        }
        true
    }

    /// Ends a session. A backend that it still has hears of it in [`Upstreams::part`].
    fn end(&mut self, id: SessionId, reason: EndReason) {
        if self.session(id).is_some() {
            self.sessions.end(id.index, reason, self.millis, self.policy, self.stats);
        }
    }
}

/// Everything between a shard's sessions and their backends.
#[derive(Debug)]
pub(super) struct Upstreams {
    desk: Desk,
    /// What waits, in either direction.
    pool: Pool,
    shedding: Shedding,
    tcp: Tcp,
    links: Links,
    listen_addrs: Vec<SocketAddr>,
    shared: SharedBackendStats,
    /// What goes back of the pool, of the driver's memory for streams, and when to look again.
    trims: [Trim; 2],
    trim_at: Option<Millis>,
    /// Where a message is put together.
    scratch: Vec<u8>,
    /// Sessions that ended and whose backends have yet to hear of it.
    parting: Vec<(SessionId, Tie, EndReason)>,
    /// Pieces of work done since the start.
    pieces: u64,
}

impl Upstreams {
    /// No session has a backend yet.
    pub(super) fn new(setup: BackendSetup, shard: u32, now: Millis) -> Self {
        let BackendSetup { backends, pool_bytes_max, listen_addrs, reports, stats } = setup;
        let mut tcp = Tcp::new(now);
        let mut links = Links::new();
        tcp.learn(&backends);
        links.learn(&backends);
        Self {
            desk: Desk::new(backends, shard, reports, now),
            pool: Pool::new(pool_bytes_max),
            shedding: Shedding::new(now),
            tcp,
            links,
            listen_addrs,
            shared: stats,
            trims: [Trim::new(now), Trim::new(now)],
            trim_at: None,
            scratch: Vec::new(),
            parting: Vec::new(),
            pieces: 0,
        }
    }

    /// The name of the backend that a session has; `None` while it has none, or one that is listed no longer.
    pub(super) fn backend_of(&self, tie: Tie) -> Option<&str> {
        let id = match tie {
            Tie::Tcp(slot) => self.tcp.guest(slot)?.backend,
            Tie::Yamux { link, .. } => self.links.backend(link)?,
            Tie::Free | Tie::Waiting | Tie::Nats | Tie::Leaving { .. } => return None,
        };
        let backend = self.desk.backends.list.iter().find(|backend| backend.id == id)?;
        Some(&backend.name)
    }

    /// Takes over what the control plane sent.
    pub(super) fn apply<D: Driver>(
        &mut self,
        driver: &mut D,
        mailbox: &mut Mailbox<D::Stream>,
        now: Millis,
    ) {
        if let Some(backends) = mailbox.backends.take() {
            self.tcp.learn(&backends);
            self.links.learn(&backends);
            self.desk.replace(backends, now);
        }
        for (backend, stream) in mailbox.adopted.drain(..) {
            let clock = driver.now();
            self.links.adopt(driver, clock, backend, stream, &mut self.desk);
            self.desk.waiting.hurry(now);
        }
        self.links.tell_listed(&self.desk.backends);
    }

    /// A datagram has touched a session: its messages go on, and if acknowledgements have made room, so does its backend.
    pub(super) fn touched<D: Driver>(&mut self, driver: &mut D, floor: &mut Floor<'_>, index: u32) {
        let Some(id) = floor.sessions.id(index) else { return };
        let bytes_max = floor.sessions.part_of(floor.policy.session_bytes_max);
        let Some(session) = floor.session(id) else { return };
        if let Tie::Leaving { end, .. } = session.tie
            && session.kcp.wait_snd() == 0
        {
            return floor.end(id, end.into());
        }
        if session.backend_waits && session.has_room_again(bytes_max) {
            self.resume(driver, floor, id);
        }
        self.forward(driver, floor, id);
    }

    /// Looks again at sessions that waited for memory which all sessions share.
    fn retry_blocked<D: Driver>(&mut self, driver: &mut D, floor: &mut Floor<'_>, pace: &mut Pace) {
        for _ in 0..floor.sessions.blocked.len().min(budget::BLOCKED) {
            let Some(id) = floor.sessions.blocked.pop_front() else { return };
            let Some(session) = floor.session(id) else { continue };
            session.blocked = false;
            self.pieces += 1;
            self.resume(driver, floor, id);
            self.forward(driver, floor, id);
            if pace.is_over(1, budget::RETURNS_US, driver) {
                return;
            }
        }
    }

    /// Everything that backends did since the last turn, and what time has brought. Tells whether the budgets were enough.
    pub(super) fn returns<D: Driver>(
        &mut self,
        driver: &mut D,
        floor: &mut Floor<'_>,
        pace: &mut Pace,
    ) -> bool {
        pace.step();
        self.retry_blocked(driver, floor, pace);
        let mut in_time = self.events(driver, floor, pace);
        in_time &= self.shed(driver, floor);
        pace.step();
        in_time &= self.expire(driver, floor, pace);
        let is_over = || pace.is_over(budget::LOOK_EVERY, budget::CONNECTIONS_US, driver);
        in_time &= self.links.on_timeouts(&mut self.pool, &mut self.desk, floor, is_over);
        in_time & self.admit_waiting(driver, floor, pace)
    }

    /// When something here is due even if nothing happens.
    pub(super) fn next_deadline(&self, clock: Now, sessions: &Sessions) -> Option<Millis> {
        let now = yamux::millis(clock);
        let link = self.links.next_deadline(clock).map(|at| yamux::millis(at).add(1));
        let blocked = (!sessions.blocked.is_empty()).then(|| now.add(BLOCKED_MS));
        let parting = !sessions.parting.is_empty() || !self.parting.is_empty();
        let parting = parting.then_some(now);
        let waiting = self.desk.waiting.next_deadline();
        let all = [self.tcp.next_deadline(), link, waiting, blocked, parting, self.trim_at];
        all.into_iter().flatten().reduce(Millis::earliest)
    }

    /// Gives a step of memory back that a past peak took.
    pub(super) fn trim<D: Driver>(&mut self, driver: &mut D, now: Millis) {
        let [of_pool, of_driver] = &mut self.trims;
        let (pool, mut queued) = (&mut self.pool, Queued(driver));
        of_pool.run(now, pool);
        of_driver.run(now, &mut queued);
        let due = [of_pool.next_deadline(now, pool), of_driver.next_deadline(now, &queued)];
        self.trim_at = due.into_iter().flatten().reduce(Millis::earliest);
    }

    /// Pieces of work done since the start, as [`Pace`] counts them.
    pub(super) const fn pieces(&self) -> u64 {
        self.pieces
    }

    /// Makes the counters visible.
    pub(super) fn publish(&mut self, stats: &mut Stats) {
        self.links.publish(&mut self.desk);
        stats.set(Stat::PoolBytes, self.pool.bytes_used() as u64);
        stats.set(Stat::PoolBytesMax, self.pool.bytes_max() as u64);
        stats.set(Stat::SessionsWaiting, self.desk.waiting.len() as u64);
        stats.set(Stat::ReportsLost, self.desk.reports.lost());
        self.shared.publish(&mut self.desk.stats);
    }

    /// Hands a session's queued messages to its backend, as far as the backend goes along; the first one finds it a backend.
    fn forward<D: Driver>(&mut self, driver: &mut D, floor: &mut Floor<'_>, id: SessionId) {
        let mut taken = false;
        while let Some(step) = self.forward_one(driver, floor, id) {
            match step {
                Step::Taken => taken = true,
                Step::Tied => {}
                Step::Ended(reason) => return floor.end(id, reason),
            }
        }
        if taken {
            floor.sessions.mark_dirty(id.index); // its window may have opened
        }
    }

    /// One step for the next message; `None` when there is none, or when it has to wait.
    fn forward_one<D: Driver>(
        &mut self,
        driver: &mut D,
        floor: &mut Floor<'_>,
        id: SessionId,
    ) -> Option<Step> {
        let len = floor.next_message(id)?;
        let (session, mut cx) = floor.conversation(id)?;
        match session.tie {
            Tie::Waiting | Tie::Nats | Tie::Leaving { .. } => None,
            Tie::Free => self.tie(driver, floor, id),
            Tie::Tcp(slot) => {
                if self.scratch.len() < len {
                    self.scratch.resize(len, 0);
                }
                let message = &mut self.scratch[..len];
                session.kcp.peek(&cx, message).ok()?;
                let (backend, pushed) = self.tcp.push(driver, &mut self.pool, slot, id, message)?;
                if pushed.is_ok() {
                    let _ = session.kcp.recv_with(&mut cx, |_| {});
                }
                self.pushed(floor, id, backend, len, pushed)
            }
            Tie::Yamux { link, slot } => {
                let fill = |out: &mut [u8]| session.kcp.recv(&mut cx, out).is_ok();
                let (pool, stream) = (&mut self.pool, (link, slot));
                let (backend, pushed) = self.links.push_with(pool, stream, id, len, fill)?;
                self.pushed(floor, id, backend, len, pushed)
            }
        }
    }

    /// What became of a message that was offered to a backend.
    fn pushed(
        &mut self,
        floor: &mut Floor<'_>,
        id: SessionId,
        backend: BackendId,
        len: usize,
        outcome: Result<(), PushError>,
    ) -> Option<Step> {
        match outcome {
            Ok(()) => {
                floor.stats.add(Stat::MessagesIn, 1);
                floor.stats.add(Stat::MessageBytesIn, len as u64);
                self.desk.stats.add(backend, BackendStat::MessagesOut, 1);
                self.desk.stats.add(backend, BackendStat::MessageBytesOut, len as u64);
                Some(Step::Taken)
            }
            Err(PushError::Full) => {
                self.desk.stats.add(backend, BackendStat::WaitedForBackend, 1);
                floor.session(id)?.waits_for_backend = true;
                None
            }
            Err(PushError::PoolFull) => {
                floor.sessions.mark_blocked(id.index);
                None
            }
            Err(PushError::Unsendable) => {
                floor.stats.drop(DropReason::MessageTooLong);
                Some(Step::Ended(EndReason::MessageTooLong))
            }
            Err(PushError::Gone) => None,
        }
    }

    /// Finds a backend for a session that has none.
    fn tie<D: Driver>(
        &mut self,
        driver: &mut D,
        floor: &mut Floor<'_>,
        id: SessionId,
    ) -> Option<Step> {
        let key = floor.session(id)?.key();
        let until = self.desk.until(floor.millis, id);
        let chosen = self.desk.choose(key.conv, &self.links);
        let backends = SharedBackends::clone(&self.desk.backends);
        let Some(backend) = chosen.and_then(|place| backends.list.get(place)) else {
            self.desk.wait(floor, id, until);
            return None;
        };
        match self.begin(driver, floor, id, backend, until) {
            Ok(tie) => {
                self.desk.took(backend.id);
                floor.session(id)?.tie = tie;
                Some(Step::Tied)
            }
            Err(Begin::Later) => {
                self.desk.put_off(backend.id, id);
                self.desk.wait(floor, id, until);
                None
            }
            Err(Begin::Failed(why)) => {
                self.desk.failed(backend.id, why);
                self.desk.lost(floor, id, EndReason::BackendConnectFailed, until);
                None
            }
        }
    }

    fn begin<D: Driver>(
        &mut self,
        driver: &mut D,
        floor: &mut Floor<'_>,
        id: SessionId,
        backend: &Backend,
        until: Millis,
    ) -> Result<Tie, Begin> {
        let header = backend.proxy.then(|| self.header(floor, id)).flatten();
        let hello = header.as_ref().map_or(&[][..], Header::as_slice);
        match &backend.kind {
            Kind::Tcp(_) => {
                let turn = self.desk.turn(backend.id);
                let guest = Guest { session: id, backend: backend.id, until };
                let dial = |driver: &mut D| tcp::dial(driver, backend, turn);
                self.pieces += budget::CONNECTION as u64;
                let slot = self.tcp.begin(driver, floor.now, guest, dial)?;
                self.tcp.hello(driver, &mut self.pool, slot, hello)?;
                self.desk.stats.add(backend.id, BackendStat::Connecting, 1);
                self.tend(driver, floor, slot);
                Ok(Tie::Tcp(slot))
            }
            Kind::Yamux(_) => self.links.begin(id, backend.id, hello),
            Kind::Nats => Err(Begin::Later),
        }
    }

    /// The PROXY header of a session: its client, and where its client sends to.
    fn header(&self, floor: &mut Floor<'_>, id: SessionId) -> Option<Header> {
        let session = floor.session(id)?;
        let (key, local, listener) = (session.key(), session.local, session.listener);
        let mut to = *self.listen_addrs.get(usize::from(listener))?;
        if let Some(ip) = floor.locals.get(local) {
            to.set_ip(ip);
        }
        Some(Header::new(key.peer.into(), to, key.conv))
    }

    /// What happened to streams, as long as there is memory for it. Tells whether the budgets were enough.
    fn events<D: Driver>(
        &mut self,
        driver: &mut D,
        floor: &mut Floor<'_>,
        pace: &mut Pace,
    ) -> bool {
        for _ in 0..budget::STREAM_EVENTS {
            if self.must_shed(floor.millis) || !self.event(driver, floor) {
                return true;
            }
            self.pieces += 1;
            if pace.is_over(1, budget::RETURNS_US, driver) {
                break;
            }
        }
        false
    }

    /// One thing that happened to a stream; `false` when nothing did.
    fn event<D: Driver>(&mut self, driver: &mut D, floor: &mut Floor<'_>) -> bool {
        let Some(event) = driver.stream_event() else { return false };
        let id = event.id();
        let Some(slot) = self.tcp.slot(id) else {
            if let Some(link) = self.links.number(id) {
                let (pool, desk) = (&mut self.pool, &mut self.desk);
                match event {
                    StreamEvent::Data(_, bytes) => {
                        self.links.on_read(link, bytes, pool, desk, floor);
                        driver.stream_read(id);
                    }
                    StreamEvent::Fin(_) => self.links.on_fin(link, desk),
                    StreamEvent::Closed(_, _, unsent) => self.links.on_closed(link, unsent, desk),
                    StreamEvent::Failed(..) => self.links.on_closed(link, 0, desk),
                    StreamEvent::Writable(_) | StreamEvent::Connected(_) => self.links.mark_dirty(),
                }
            }
            return true;
        };
        let (tcp, pool, desk) = (&mut self.tcp, &mut self.pool, &mut self.desk);
        let mut room = None;
        match event {
            StreamEvent::Data(_, bytes) => tcp.on_read(slot, bytes, pool, desk, floor),
            StreamEvent::Connected(_) => room = tcp.on_connected(slot, desk),
            StreamEvent::Failed(_, error) => tcp.on_failed(slot, error, pool, desk, floor),
            StreamEvent::Writable(_) => room = tcp.on_writable(driver, slot, pool),
            StreamEvent::Fin(_) => tcp.on_fin(slot, pool, desk, floor),
            StreamEvent::Closed(_, _, unsent) => tcp.on_closed(slot, unsent, pool, desk, floor),
        }
        if let Some(session) = room {
            self.has_room(driver, floor, session);
        }
        self.tend(driver, floor, slot);
        true
    }

    /// A session's backend takes messages again.
    fn has_room<D: Driver>(&mut self, driver: &mut D, floor: &mut Floor<'_>, id: SessionId) {
        if let Some(session) = floor.session(id) {
            session.waits_for_backend = false;
            self.forward(driver, floor, id);
        }
    }

    /// A session has room again: what its backend has said goes on.
    fn resume<D: Driver>(&mut self, driver: &mut D, floor: &mut Floor<'_>, id: SessionId) {
        let Some(session) = floor.session(id) else { return };
        self.desk.resuming = std::mem::take(&mut session.backend_waits).then_some(id);
        match session.tie {
            Tie::Tcp(slot) => {
                self.tcp.resume(slot, &mut self.pool, &mut self.desk, floor);
                self.tend(driver, floor, slot);
            }
            Tie::Yamux { link, slot } => {
                self.links.resume((link, slot), id, &mut self.pool, &mut self.desk, floor);
            }
            Tie::Free | Tie::Waiting | Tie::Nats | Tie::Leaving { .. } => {}
        }
        self.desk.resuming = None;
    }

    /// Asks the driver for what a connection wants next.
    fn tend<D: Driver>(&mut self, driver: &mut D, floor: &mut Floor<'_>, slot: u32) {
        let short = self.pool.bytes_free() < self.pool.bytes_max() / 10;
        let mut has_room = true;
        if let Some(Guest { session, backend, .. }) = self.tcp.guest(slot) {
            if short {
                self.desk.hold(floor, session, backend, Shortage::Memory);
            } else if floor.is_full(session) {
                self.desk.hold(floor, session, backend, Shortage::Client);
            }
            has_room = floor.may_hear(session);
        }
        self.tcp.tend(driver, slot, floor.now, has_room, &mut self.desk);
    }

    /// Deadlines of connections. Tells whether the budgets were enough.
    fn expire<D: Driver>(
        &mut self,
        driver: &mut D,
        floor: &mut Floor<'_>,
        pace: &mut Pace,
    ) -> bool {
        for _ in 0..budget::TIMERS {
            let Some(slot) = self.tcp.due(floor.millis) else { return true };
            self.pieces += 1;
            self.tcp.on_timeout(slot, &mut self.pool, &mut self.desk, floor);
            self.tend(driver, floor, slot);
            if pace.is_over(budget::CONNECTION, budget::CONNECTIONS_US, driver) {
                break;
            }
        }
        false
    }

    /// Sessions that wait for a backend try again. Tells whether all have that may in this round.
    fn admit_waiting<D: Driver>(
        &mut self,
        driver: &mut D,
        floor: &mut Floor<'_>,
        pace: &mut Pace,
    ) -> bool {
        while let Some(waiting) = self.desk.waiting.pop(floor.millis, budget::WAITING) {
            self.pieces += 1;
            if let Some(session) = floor.session(waiting.session) {
                session.tie = Tie::Free;
                if floor.millis.since(waiting.until) >= 0 {
                    floor.end(waiting.session, EndReason::NoBackend);
                } else {
                    self.desk.trying = Some(waiting);
                    self.forward(driver, floor, waiting.session);
                    self.desk.trying = None;
                }
            }
            if pace.is_over(budget::CONNECTION, budget::CONNECTIONS_US, driver) {
                break;
            }
        }
        self.desk.waiting.is_round_over()
    }
}

/// What became of one step of a session's next message.
enum Step {
    /// It is done with.
    Taken,
    /// The session has a backend now; the message is to be offered to it.
    Tied,
    /// The session has to end.
    Ended(EndReason),
}

/// How long sessions that wait for memory wait before they are looked at again, in milliseconds.
const BLOCKED_MS: u32 = 5;
