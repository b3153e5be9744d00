//! `tcp`: the connections of sessions, each driven by its [`Link`].

use kcp_core::{Millis, Wheel};
use net_io::{Close, ConnectError, Driver, Now, StreamId};

use super::super::backend_stats::{BackendStat, ConnectFailure};
use super::Floor;
use super::desk::Desk;
use crate::session::SessionId;
use crate::upstream::backend::{BACKENDS_MAX, Backend, BackendId, Backends, Kind};
use crate::upstream::framing::{Codec, Framing};
use crate::upstream::link::{Link, LinkConfig, Op, PushError};
use crate::upstream::pool::Pool;
use crate::upstream::{Cx, Event};

/// All connections of a shard, found by their stream's slot.
#[derive(Debug)]
pub(super) struct Tcp {
    /// Chunks, so that growth never copies a connection.
    chunks: Vec<Vec<Option<Connection>>>,
    wheel: Wheel,
    /// What each backend's connections have in common, as last heard: a backend that is no longer listed keeps it.
    configs: Box<[LinkConfig]>,
}

/// Whose a connection is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guest {
    pub(super) session: SessionId,
    pub(super) backend: BackendId,
    /// Until when the session may look for another backend, should this connection fail.
    pub(super) until: Millis,
}

#[derive(Debug)]
struct Connection {
    stream: StreamId,
    guest: Guest,
    link: Link,
    standing: Standing,
    /// The rest of a message was dropped.
    rest_lost: bool,
    /// Messages taken since nothing was queued at the driver: those that may be queued there still.
    queued: u32,
}

/// What a connection is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Connecting,
    Connected,
    /// Its session has ended, or was ended.
    Closing,
    Gone,
}

/// A connection was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// A bound of ours: later.
    Later,
    /// It cannot be made.
    Failed(ConnectFailure),
}

impl From<ConnectError> for Begin {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Streams | ConnectError::Connecting => Self::Later,
            ConnectError::Files
            | ConnectError::Ports
            | ConnectError::Refused
            | ConnectError::Unreachable
            | ConnectError::Busy
            | ConnectError::Other(_) => Self::Failed(error.into()),
        }
    }
}

impl Tcp {
    /// No connection.
    pub(super) fn new(now: Millis) -> Self {
        let nothing = Codec { framing: Framing::None, message_max: 0, cut: 1 };
        let configs = vec![LinkConfig::new(nothing); BACKENDS_MAX].into();
        Self { chunks: Vec::new(), wheel: Wheel::new(now), configs }
    }

    /// Takes over what is said of backends.
    pub(super) fn learn(&mut self, backends: &Backends) {
        for backend in &backends.list {
            if let Kind::Tcp(config) = &backend.kind
                && let Some(known) = self.configs.get_mut(backend.id.index())
            {
                *known = *config;
            }
        }
    }

    /// Takes in the connection that `dial` begins; tells its slot.
    pub(super) fn begin<D: Driver>(
        &mut self,
        driver: &mut D,
        now: Now,
        guest: Guest,
        dial: impl FnOnce(&mut D) -> Result<StreamId, ConnectError>,
    ) -> Result<u32, Begin> {
        let stream = dial(driver)?;
        let slot = u32::try_from(stream.slot()).unwrap_or(u32::MAX);
        self.make_room(slot);
        let link = Link::new(now, &self.configs[guest.backend.index()]);
        let (chunk, place) = place(slot);
        self.chunks[chunk][place] = Some(Connection {
            stream,
            guest,
            link,
            standing: Standing::Connecting,
            rest_lost: false,
            queued: 0,
        });
        Ok(slot)
    }

    /// Sends what goes first. The connection is gone when there is no memory for it.
    pub(super) fn hello<D: Driver>(
        &mut self,
        driver: &mut D,
        pool: &mut Pool,
        slot: u32,
        hello: &[u8],
    ) -> Result<(), Begin> {
        let Some(connection) = self.at(slot) else { return Err(Begin::Later) };
        let stream = connection.stream;
        let said = connection.link.hello(pool, hello, |bytes| driver.stream_write(stream, bytes));
        if said.is_err() {
            driver.stream_close(stream, Close::Abort);
            self.forget(slot);
            return Err(Begin::Later);
        }
        Ok(())
    }

    /// Offers a message of a session's; and says which backend that is. `None` when the connection is not that session's, or
    /// not made yet: until then messages wait in their session, where they are not lost if it fails.
    pub(super) fn push<D: Driver>(
        &mut self,
        driver: &mut D,
        pool: &mut Pool,
        slot: u32,
        session: SessionId,
        message: &[u8],
    ) -> Option<(BackendId, Result<(), PushError>)> {
        let (connection, config) = self.at_with_config(slot)?;
        let Connection { stream, guest, link, standing, queued, .. } = connection;
        if guest.session != session || *standing == Standing::Connecting {
            return None;
        }
        if driver.stream_queued(*stream) == 0 {
            *queued = 0;
        }
        let write = |bytes: &[u8]| driver.stream_write(*stream, bytes);
        let pushed = link.push(config, pool, message, write);
        *queued += u32::from(pushed.is_ok());
        Some((guest.backend, pushed))
    }

    /// The slot of a stream that is a connection here.
    pub(super) fn slot(&self, stream: StreamId) -> Option<u32> {
        let slot = u32::try_from(stream.slot()).ok()?;
        let (chunk, place) = place(slot);
        let connection = self.chunks.get(chunk)?.get(place)?.as_ref()?;
        (connection.stream == stream).then_some(slot)
    }

    /// The session of a connection that still has one.
    pub(super) fn guest(&self, slot: u32) -> Option<Guest> {
        let (chunk, place) = place(slot);
        let connection = self.chunks.get(chunk)?.get(place)?.as_ref()?;
        connection.link.is_attached().then_some(connection.guest)
    }

    pub(super) fn on_read(
        &mut self,
        slot: u32,
        bytes: &[u8],
        pool: &mut Pool,
        desk: &mut Desk,
        floor: &mut Floor<'_>,
    ) {
        self.with(slot, pool, desk, floor, |link, cx, config| link.on_read(cx, config, bytes));
    }

    pub(super) fn on_fin(
        &mut self,
        slot: u32,
        pool: &mut Pool,
        desk: &mut Desk,
        floor: &mut Floor<'_>,
    ) {
        self.with(slot, pool, desk, floor, |link, cx, config| link.on_fin(cx, config));
    }

    /// The connection has ended, and `unsent` bytes that were queued with it.
    pub(super) fn on_closed(
        &mut self,
        slot: u32,
        unsent: usize,
        pool: &mut Pool,
        desk: &mut Desk,
        floor: &mut Floor<'_>,
    ) {
        self.with(slot, pool, desk, floor, |link, cx, _| link.on_end(cx));
        if let Some(connection) = self.at(slot) {
            connection.count_lost(unsent, desk);
        }
    }

    pub(super) fn on_failed(
        &mut self,
        slot: u32,
        error: ConnectError,
        pool: &mut Pool,
        desk: &mut Desk,
        floor: &mut Floor<'_>,
    ) {
        if let Some(connection) = self.at(slot) {
            desk.failed(connection.guest.backend, error.into());
        }
        self.on_closed(slot, 0, pool, desk, floor);
    }

    /// The session that may push now.
    pub(super) fn on_connected(&mut self, slot: u32, desk: &mut Desk) -> Option<SessionId> {
        let connection = self.at(slot)?;
        connection.link.on_connected();
        desk.connected(connection.guest.backend);
        if connection.standing == Standing::Connecting {
            connection.stand(Standing::Connected, desk);
        }
        Some(connection.guest.session)
    }

    /// Goes on writing; the session that may push again.
    pub(super) fn on_writable<D: Driver>(
        &mut self,
        driver: &mut D,
        slot: u32,
        pool: &mut Pool,
    ) -> Option<SessionId> {
        let Connection { stream, guest, link, .. } = self.at(slot)?;
        let room = link.on_writable(pool, |bytes| driver.stream_write(*stream, bytes));
        room.then_some(guest.session)
    }

    /// The session has room again.
    pub(super) fn resume(
        &mut self,
        slot: u32,
        pool: &mut Pool,
        desk: &mut Desk,
        floor: &mut Floor<'_>,
    ) {
        self.with(slot, pool, desk, floor, |link, cx, config| link.resume(cx, config));
    }

    /// The session has ended: tells its backend, and how many bytes of the backend's are lost with that. `None` when the
    /// connection is not that session's any more.
    pub(super) fn close(
        &mut self,
        slot: u32,
        session: SessionId,
        now: Now,
        pool: &mut Pool,
    ) -> Option<(BackendId, usize)> {
        let (connection, config) = self.at_with_config(slot)?;
        let Connection { guest, link, .. } = connection;
        if guest.session != session || !link.is_attached() {
            return None;
        }
        let lost = link.inbound();
        link.close(now, config, pool);
        Some((guest.backend, lost))
    }

    /// The slots there are.
    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.chunks.len() * CHUNK).unwrap_or(u32::MAX)
    }

    /// Bytes that the connection in a slot keeps, either way.
    pub(super) fn backlog(&self, slot: u32) -> usize {
        let (chunk, place) = place(slot);
        let connection = self.chunks.get(chunk).and_then(|chunk| chunk.get(place)?.as_ref());
        connection.map_or(0, |c| c.link.inbound() + c.link.outbound())
    }

    /// Ends the connection in a slot, for what it keeps.
    pub(super) fn shed(
        &mut self,
        slot: u32,
        pool: &mut Pool,
        desk: &mut Desk,
        floor: &mut Floor<'_>,
    ) {
        self.with(slot, pool, desk, floor, |link, cx, _| link.shed(cx));
    }

    /// A connection of which something is due.
    pub(super) fn due(&mut self, now: Millis) -> Option<u32> {
        self.wheel.pop(now)
    }

    /// When the next one is due.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.wheel.next_deadline()
    }

    pub(super) fn on_timeout(
        &mut self,
        slot: u32,
        pool: &mut Pool,
        desk: &mut Desk,
        floor: &mut Floor<'_>,
    ) {
        let Some(connection) = self.at(slot) else { return };
        let overdue = connection.link.poll_timeout().is_some_and(|at| at <= floor.now);
        let connecting = connection.standing == Standing::Connecting;
        if overdue && connecting && connection.link.is_attached() {
            desk.failed(connection.guest.backend, ConnectFailure::Timeout);
        }
        self.with(slot, pool, desk, floor, |link, cx, config| link.handle_timeout(cx, config));
    }

    /// Asks the driver for what a connection wants next, and forgets one that is gone.
    pub(super) fn tend<D: Driver>(
        &mut self,
        driver: &mut D,
        slot: u32,
        now: Now,
        has_room: bool,
        desk: &mut Desk,
    ) {
        let Some((connection, config)) = self.at_with_config(slot) else { return };
        while let Some(op) = connection.link.poll_op(now, config, has_room) {
            match op {
                Op::Read => driver.stream_read(connection.stream),
                Op::Finish => driver.stream_close(connection.stream, Close::Finish),
                Op::Abort => {
                    let unsent = driver.stream_queued(connection.stream);
                    driver.stream_close(connection.stream, Close::Abort);
                    connection.count_lost(unsent, desk);
                }
            }
        }
        if connection.link.is_gone() {
            connection.stand(Standing::Gone, desk);
            self.forget(slot);
            return;
        }
        if !connection.link.is_attached() {
            connection.stand(Standing::Closing, desk);
        }
        let Some(at) = connection.link.poll_timeout() else { return };
        let due = super::super::millis(at).add(1); // not before it
        if self.wheel.deadline(slot).is_none_or(|armed| due.since(armed) < 0) {
            self.wheel.arm(slot, due);
        }
    }

    fn with(
        &mut self,
        slot: u32,
        pool: &mut Pool,
        desk: &mut Desk,
        floor: &mut Floor<'_>,
        act: impl FnOnce(&mut Link, &mut Cx<'_, &mut dyn FnMut(Event<'_>) -> bool>, &LinkConfig),
    ) {
        let Some((connection, config)) = self.at_with_config(slot) else { return };
        let Guest { session, backend, until } = connection.guest;
        let (now, millis) = (floor.now, floor.millis);
        let is_new = connection.standing == Standing::Connecting;
        let until = if is_new { until } else { millis.add(desk.backends.wait_ms) };
        let unsent = connection.link.outbound() > 0;
        let mut hear = |event: Event<'_>| desk.hear(floor, session, backend, until, event);
        let mut sink: &mut dyn FnMut(Event<'_>) -> bool = &mut hear;
        act(&mut connection.link, &mut Cx { now, pool, sink: &mut sink }, config);
        connection.rest_lost |= unsent && connection.link.outbound() == 0;
    }

    fn at(&mut self, slot: u32) -> Option<&mut Connection> {
        let (chunk, place) = place(slot);
        self.chunks.get_mut(chunk)?.get_mut(place)?.as_mut()
    }

    fn at_with_config(&mut self, slot: u32) -> Option<(&mut Connection, &LinkConfig)> {
        let (chunk, place) = place(slot);
        let connection = self.chunks.get_mut(chunk)?.get_mut(place)?.as_mut()?;
        let config = self.configs.get(connection.guest.backend.index())?;
        Some((connection, config))
    }

    fn make_room(&mut self, slot: u32) {
        self.wheel.make_room(slot);
        let (chunk, _) = place(slot);
        while self.chunks.len() <= chunk {
            let mut slots = Vec::with_capacity(CHUNK);
            slots.resize_with(CHUNK, || None);
            self.chunks.push(slots);
        }
    }

    fn forget(&mut self, slot: u32) {
        self.wheel.cancel(slot);
        let (chunk, place) = place(slot);
        self.chunks[chunk][place] = None;
    }
}

impl Connection {
    /// Counts the messages that end with it, when it had `unsent` bytes queued at the driver. Which of those queued since the
    /// queue was last empty have left is not known: each may be lost.
    fn count_lost(&mut self, unsent: usize, desk: &mut Desk) {
        let rest = u32::from(self.rest_lost);
        let lost = if unsent > 0 { self.queued.max(rest) } else { rest };
        desk.stats.add(self.guest.backend, BackendStat::MessagesLost, u64::from(lost));
        (self.rest_lost, self.queued) = (false, 0);
    }

    fn stand(&mut self, standing: Standing, desk: &mut Desk) {
        let before = std::mem::replace(&mut self.standing, standing);
        if before == standing {
            return;
        }
        let gauge = |standing| match standing {
            Standing::Connecting => Some(BackendStat::Connecting),
            Standing::Closing => Some(BackendStat::Closing),
            Standing::Connected | Standing::Gone => None,
        };
        if let Some(gauge) = gauge(before) {
            desk.stats.lower(self.guest.backend, gauge);
        }
        if let Some(gauge) = gauge(standing) {
            desk.stats.add(self.guest.backend, gauge, 1);
        }
    }
}

/// Begins a connection to the next of a backend's addresses, from the next of its sources. Where no port is left, others are
/// tried.
pub(super) fn dial<D: Driver>(
    driver: &mut D,
    backend: &Backend,
    turn: u32,
) -> Result<StreamId, ConnectError> {
    let (addresses, sources) = (&backend.addresses, &backend.sources);
    let tries = (addresses.len() * sources.len().max(1)).min(DIALS_MAX);
    let mut outcome = Err(ConnectError::Unreachable);
    for turn in (0..tries).map(|n| (turn as usize).wrapping_add(n)) {
        let Some(to) = addresses.get(turn % addresses.len()) else { break };
        let from = (turn / addresses.len()).checked_rem(sources.len());
        outcome = driver.connect(to, from.and_then(|n| sources.get(n)).copied());
        if outcome != Err(ConnectError::Ports) {
            break;
        }
    }
    outcome
}

const fn place(slot: u32) -> (usize, usize) {
    (slot as usize / CHUNK, slot as usize % CHUNK)
}

/// Connections per chunk.
const CHUNK: usize = 1024;

/// Ways from sources to addresses that are tried for one session.
const DIALS_MAX: usize = 8;

const _: () = assert!(size_of::<Option<Connection>>() <= 64);
