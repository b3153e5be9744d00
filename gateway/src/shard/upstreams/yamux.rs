//! `yamux`: the links that many sessions share, each driven by its [`Mux`].

use kcp_core::Millis;
use net_io::{Close, Driver, Now, StreamId};

use super::super::backend_stats::{BackendStat, LinkEnd};
use super::desk::Desk;
use super::tcp::Begin;
use super::{Floor, budget};
use crate::control::command::Report;
use crate::session::{SessionId, Tie};
use crate::upstream::backend::{BACKENDS_MAX, BackendId, Backends, Kind};
use crate::upstream::link::PushError;
use crate::upstream::pool::Pool;
use crate::upstream::proxy::HEADER_MAX;
use crate::upstream::yamux::{self, Config, Counters, LinkError, Mux, OpenError};
use crate::upstream::{Cx, Event};

/// All links of a shard. A few for each backend.
#[derive(Debug)]
pub(super) struct Links {
    /// A session knows its link by the place here.
    links: Vec<Option<Link>>,
    /// What each backend's links are set up with, as last heard.
    configs: [Option<Config>; BACKENDS_MAX],
    /// Some link has bytes for the kernel.
    dirty: bool,
    /// The one whose sessions are first to go on.
    first: u16,
}

#[derive(Debug)]
struct Link {
    stream: StreamId,
    backend: BackendId,
    mux: Mux<SessionId>,
    standing: Standing,
    /// Its backend is one of those that there are now.
    listed: bool,
    /// The connection has ended, with so many bytes queued that the kernel had not taken.
    closed: Option<usize>,
    /// What the books have of what it counts.
    booked: Counters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Open,
    /// It takes no new sessions, and ends with its last one.
    Retired,
    /// It is over. Its sessions are being told.
    Lost,
    /// It has no sessions any more. What it has left to say goes out, a FIN behind it, and what comes is dropped until the
    /// backend has finished too: closing over that would send an RST, which takes the last words from it.
    Leaving {
        until: Now,
    },
}

impl Links {
    /// No link.
    pub(super) const fn new() -> Self {
        Self { links: Vec::new(), configs: [None; BACKENDS_MAX], dirty: false, first: 0 }
    }

    /// Tells links whether their backends are listed. One whose backend is not ends when it has no sessions: nobody else would
    /// close it, and as long as it is open its backend takes one of the places that there are.
    pub(super) fn tell_listed(&mut self, backends: &Backends) {
        for link in self.links.iter_mut().flatten() {
            link.listed = backends.list.iter().any(|backend| backend.id == link.backend);
        }
    }

    /// Whose a link is.
    pub(super) fn backend(&self, link: u16) -> Option<BackendId> {
        Some(self.links.get(usize::from(link))?.as_ref()?.backend)
    }

    /// Takes over what is said of backends.
    pub(super) fn learn(&mut self, backends: &Backends) {
        for backend in &backends.list {
            if let Kind::Yamux(config) = backend.kind
                && let Some(known) = self.configs.get_mut(backend.id.index())
            {
                *known = Some(config);
            }
        }
    }

    /// Takes in a connection that the control plane made.
    pub(super) fn adopt<D: Driver>(
        &mut self,
        driver: &mut D,
        now: Now,
        backend: BackendId,
        stream: D::Stream,
        desk: &mut Desk,
    ) {
        let known = self.configs.get(backend.index()).copied().flatten();
        let Some(Ok(mux)) = known.map(|config| Mux::new(config, now)) else {
            desk.stats.link_end(backend, LinkEnd::Unusable);
            return desk.reports.send(backend, Report::LinkLost(LinkEnd::Unusable));
        };
        match driver.adopt(stream) {
            Ok(stream) => {
                driver.stream_read(stream);
                let (standing, booked) = (Standing::Open, Counters::default());
                let listed = true;
                let link = Link { stream, backend, mux, standing, listed, closed: None, booked };
                match self.links.iter_mut().find(|place| place.is_none()) {
                    Some(place) => *place = Some(link),
                    None => self.links.push(Some(link)),
                }
                desk.stats.add(backend, BackendStat::Links, 1);
                desk.reports.send(backend, Report::LinkUp);
            }
            Err(why) => {
                desk.stats.link_end(backend, LinkEnd::Unusable);
                desk.reports.send(backend, Report::LinkRefused(why));
            }
        }
    }

    /// Whether a backend has a link that takes new sessions, now or soon.
    pub(super) fn has_open(&self, backend: BackendId) -> bool {
        self.of(backend).any(|(_, link)| {
            matches!(
                link.mux.can_open(HEADER_MAX),
                Ok(()) | Err(OpenError::Unacked | OpenError::Full | OpenError::Streams)
            )
        })
    }

    /// Opens a stream for a session on the link that has the fewest.
    pub(super) fn begin(
        &mut self,
        session: SessionId,
        backend: BackendId,
        hello: &[u8],
    ) -> Result<Tie, Begin> {
        let best = self
            .of(backend)
            .filter(|(_, link)| link.mux.can_open(hello.len()).is_ok())
            .min_by_key(|(_, link)| link.mux.streams());
        let Some((number, _)) = best else { return Err(Begin::Later) };
        let Some(Some(link)) = self.links.get_mut(number) else { return Err(Begin::Later) };
        let key = link.mux.open(session, hello).map_err(|_| Begin::Later)?;
        self.dirty = true;
        let number = u16::try_from(number).map_err(|_| Begin::Later)?;
        Ok(Tie::Yamux { link: number, slot: key.slot() })
    }

    /// Offers a message of `len` bytes that `fill` writes; and says which backend that is. `None` when the stream is not that
    /// session's.
    pub(super) fn push_with(
        &mut self,
        pool: &mut Pool,
        (number, slot): (u16, u32),
        session: SessionId,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> bool,
    ) -> Option<(BackendId, Result<(), PushError>)> {
        let link = self.at(number)?;
        let key = link.mux.key_at(slot, session)?;
        let pushed = link.mux.push_with(pool, key, len, fill).map_err(|error| match error {
            yamux::PushError::Full => PushError::Full,
            yamux::PushError::PoolFull => PushError::PoolFull,
            yamux::PushError::Unsendable => PushError::Unsendable,
            yamux::PushError::NotFilled | yamux::PushError::Gone => PushError::Gone,
        });
        let backend = link.backend;
        self.dirty = true;
        Some((backend, pushed))
    }

    /// The link whose connection a stream is.
    pub(super) fn number(&self, stream: StreamId) -> Option<u16> {
        let is_it = |link: &Option<Link>| link.as_ref().is_some_and(|link| link.stream == stream);
        u16::try_from(self.links.iter().position(is_it)?).ok()
    }

    pub(super) fn on_read(
        &mut self,
        number: u16,
        bytes: &[u8],
        pool: &mut Pool,
        desk: &mut Desk,
        floor: &mut Floor<'_>,
    ) {
        if self.at(number).is_none_or(|link| link.mux.has_failed()) {
            return;
        }
        let outcome = self.with(number, pool, desk, floor, |mux, cx| mux.on_read(cx, bytes));
        self.after(number, outcome, desk);
        self.dirty = true;
    }

    /// The backend has closed its side of the connection.
    pub(super) fn on_fin(&mut self, number: u16, desk: &mut Desk) {
        let Some(link) = self.at(number) else { return };
        let error = link.mux.on_eof();
        self.after(number, Some(Err(error)), desk);
    }

    /// The connection has ended, and `unsent` bytes that were queued with it.
    pub(super) fn on_closed(&mut self, number: u16, unsent: usize, desk: &mut Desk) {
        let Some(link) = self.at(number) else { return };
        link.closed = Some(unsent);
        let error = link.mux.fail(LinkError::Reset);
        self.after(number, Some(Err(error)), desk);
    }

    /// Does what is due on links, until `is_over` says so after one of them. Tells whether that was all.
    pub(super) fn on_timeouts(
        &mut self,
        pool: &mut Pool,
        desk: &mut Desk,
        floor: &mut Floor<'_>,
        mut is_over: impl FnMut() -> bool,
    ) -> bool {
        for number in self.numbers() {
            let now = floor.now;
            let due = self.at(number).and_then(|link| link.mux.poll_timeout(now));
            if due.is_some_and(|at| at <= now) {
                let outcome =
                    self.with(number, pool, desk, floor, |mux, cx| mux.handle_timeout(cx));
                self.after(number, outcome, desk);
                self.dirty = true;
                if is_over() {
                    return false;
                }
            }
        }
        true
    }

    /// When a link has something due.
    pub(super) fn next_deadline(&self, now: Now) -> Option<Now> {
        self.links
            .iter()
            .flatten()
            .filter_map(|link| match link.standing {
                Standing::Lost => Some(now),
                Standing::Leaving { until } => {
                    Some(if link.closed.is_some() { now } else { until })
                }
                Standing::Open | Standing::Retired => link.mux.poll_timeout(now),
            })
            .min()
    }

    /// The session has room again.
    pub(super) fn resume(
        &mut self,
        (number, slot): (u16, u32),
        session: SessionId,
        pool: &mut Pool,
        desk: &mut Desk,
        floor: &mut Floor<'_>,
    ) {
        self.with(number, pool, desk, floor, |mux, cx| {
            if let Some(key) = mux.key_at(slot, session) {
                mux.resume(cx, key);
            }
        });
        self.dirty = true;
    }

    /// The session has ended: tells its backend, and how many bytes of the backend's are lost with that. `None` when the
    /// stream is not that session's any more.
    pub(super) fn close(
        &mut self,
        (number, slot): (u16, u32),
        session: SessionId,
        now: Now,
        pool: &mut Pool,
    ) -> Option<(BackendId, usize)> {
        let link = self.at(number)?;
        let key = link.mux.key_at(slot, session)?;
        let lost = link.mux.kept(key);
        link.mux.close(now, pool, key);
        let backend = link.backend;
        self.dirty = true;
        Some((backend, lost))
    }

    /// A session that may push again.
    pub(super) fn poll_room(&mut self, number: u16) -> Option<SessionId> {
        self.at(number)?.mux.poll_room()
    }

    /// The links there are.
    pub(super) fn numbers(&self) -> std::ops::Range<u16> {
        0..u16::try_from(self.links.len()).unwrap_or(u16::MAX)
    }

    /// The same, from where the last turn's time was over.
    pub(super) fn numbers_in_turn(&self) -> impl Iterator<Item = u16> + use<> {
        let all = self.numbers();
        let first = self.first.min(all.end);
        (first..all.end).chain(0..first)
    }

    /// The next turn is to begin with the link after this one.
    pub(super) const fn begin_after(&mut self, link: u16) {
        self.first = link.wrapping_add(1);
    }

    /// Some link may have bytes for the kernel, or room for sessions.
    pub(super) const fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    /// Whether so.
    pub(super) fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// Gives the kernel what a link has for it, as far as it takes it.
    pub(super) fn write<D: Driver>(
        &mut self,
        driver: &mut D,
        number: u16,
        now: Now,
        pool: &mut Pool,
    ) {
        let Some(link) = self.at(number) else { return };
        link.mux.on_sent(driver.stream_queued(link.stream));
        loop {
            let pending = link.mux.pending(now);
            if pending.is_empty() {
                break;
            }
            let offered = pending.len();
            let taken = driver.stream_write(link.stream, pending);
            link.mux.on_written(now, taken, pool);
            if taken < offered {
                return;
            }
        }
        if matches!(link.standing, Standing::Leaving { .. }) {
            driver.stream_close(link.stream, Close::Finish);
        }
    }

    /// Goes on with links that are over: tells their sessions, a bounded number in a turn, and lets go of those that have none
    /// left. Tells whether the budget was enough.
    pub(super) fn bury<D: Driver>(
        &mut self,
        driver: &mut D,
        pool: &mut Pool,
        desk: &mut Desk,
        floor: &mut Floor<'_>,
    ) -> bool {
        let (mut left, mut finished) = (budget::TORN_DOWN, true);
        for number in self.numbers() {
            let Some(link) = self.at(number) else { continue };
            match link.standing {
                Standing::Open if link.listed || link.mux.streams() > 0 => continue,
                Standing::Open => {
                    link.standing = Standing::Retired;
                    desk.stats.link_end(link.backend, LinkEnd::Unlisted);
                    desk.reports.send(link.backend, Report::LinkRetired(LinkEnd::Unlisted));
                    self.leave(driver, number, pool, desk, floor);
                }
                Standing::Retired if link.mux.streams() > 0 => continue,
                Standing::Retired => self.leave(driver, number, pool, desk, floor),
                Standing::Lost => {
                    let done = self
                        .with(number, pool, desk, floor, |mux, cx| mux.tear_down(cx, &mut left));
                    if done == Some(false) {
                        finished = false;
                        continue;
                    }
                    self.leave(driver, number, pool, desk, floor);
                }
                Standing::Leaving { .. } => {}
            }
            self.forget_if_gone(driver, number, floor.now, desk);
        }
        finished
    }

    /// The last session of a link is gone.
    fn leave<D: Driver>(
        &mut self,
        driver: &mut D,
        number: u16,
        pool: &mut Pool,
        desk: &mut Desk,
        floor: &Floor<'_>,
    ) {
        let Some(link) = self.at(number) else { return };
        let speaks = link.standing == Standing::Retired || link.mux.has_last_words();
        if link.standing == Standing::Retired {
            link.mux.go_away();
        }
        // One that retired in order has nothing to complain of.
        link.mux.fail(LinkError::GoAway { code: 0 });
        let backend = link.backend;
        let time_ms = if speaks { LEAVE_MS } else { 0 };
        link.standing = Standing::Leaving { until: floor.now.add_ms(time_ms) };
        desk.stats.lower(backend, BackendStat::Links);
        desk.stats.set(backend, BackendStat::Streams, self.streams(backend));
        if speaks {
            self.write(driver, number, floor.now, pool);
        }
    }

    /// Lets go of a link whose connection has ended, or had its time to.
    fn forget_if_gone<D: Driver>(
        &mut self,
        driver: &mut D,
        number: u16,
        now: Now,
        desk: &mut Desk,
    ) {
        let Some(Link { stream, standing: Standing::Leaving { until }, closed, .. }) =
            self.at(number)
        else {
            return;
        };
        let (stream, closed) = (*stream, *closed);
        if closed.is_none() && *until > now {
            return;
        }
        let unsent = closed.unwrap_or_else(|| driver.stream_queued(stream));
        driver.stream_close(stream, Close::Abort);
        let Some(mut link) = self.links[usize::from(number)].take() else { return };
        link.mux.abandon(unsent);
        link.book(desk);
    }

    /// Slots of streams that a link has ever used; `None` past the last link.
    pub(super) fn holders(&self, link: u16) -> Option<u32> {
        let link = self.links.get(usize::from(link))?;
        Some(link.as_ref().map_or(0, |link| link.mux.slots()))
    }

    /// Bytes that a link's stream keeps, either way.
    pub(super) fn backlog(&self, link: u16, slot: u32) -> usize {
        let link = self.links.get(usize::from(link)).and_then(Option::as_ref);
        link.map_or(0, |link| link.mux.backlog(slot))
    }

    /// Ends a link's stream, for what it keeps.
    pub(super) fn shed(
        &mut self,
        link: u16,
        slot: u32,
        pool: &mut Pool,
        desk: &mut Desk,
        floor: &mut Floor<'_>,
    ) {
        self.with(link, pool, desk, floor, |mux, cx| mux.shed(cx, slot));
        self.dirty = true;
    }

    /// Shows what links count.
    pub(super) fn publish(&mut self, desk: &mut Desk) {
        self.links.iter_mut().flatten().for_each(|link| link.book(desk));
        let mut streams = [None; BACKENDS_MAX];
        for link in self.links.iter().flatten() {
            *streams[link.backend.index()].get_or_insert(0) += link.mux.streams() as u64;
        }
        for (id, count) in (0..).map(BackendId).zip(streams) {
            if let Some(count) = count {
                desk.stats.set(id, BackendStat::Streams, count);
            }
        }
    }

    fn streams(&self, backend: BackendId) -> u64 {
        self.of(backend).map(|(_, link)| link.mux.streams() as u64).sum()
    }

    fn of(&self, backend: BackendId) -> impl Iterator<Item = (usize, &Link)> {
        let numbered = self.links.iter().enumerate();
        numbered
            .filter_map(|(number, link)| Some((number, link.as_ref()?)))
            .filter(move |(_, link)| link.backend == backend)
    }

    fn at(&mut self, number: u16) -> Option<&mut Link> {
        self.links.get_mut(usize::from(number))?.as_mut()
    }

    fn with<R>(
        &mut self,
        number: u16,
        pool: &mut Pool,
        desk: &mut Desk,
        floor: &mut Floor<'_>,
        act: impl FnOnce(
            &mut Mux<SessionId>,
            &mut Cx<'_, &mut dyn FnMut(SessionId, Event<'_>) -> bool>,
        ) -> R,
    ) -> Option<R> {
        let link = self.at(number)?;
        let (backend, now) = (link.backend, floor.now);
        let until = floor.millis.add(desk.backends.wait_ms);
        let mut hear = |session, event: Event<'_>| desk.hear(floor, session, backend, until, event);
        let mut sink: &mut dyn FnMut(SessionId, Event<'_>) -> bool = &mut hear;
        Some(act(&mut link.mux, &mut Cx { now, pool, sink: &mut sink }))
    }

    /// Looks at how a link stands after something happened on it.
    fn after(&mut self, number: u16, outcome: Option<Result<(), LinkError>>, desk: &mut Desk) {
        let Some(link) = self.at(number) else { return };
        let was = link.standing;
        if matches!(was, Standing::Leaving { .. }) {
            return;
        }
        let end = match outcome {
            Some(Err(error)) => {
                link.standing = Standing::Lost;
                error.into()
            }
            Some(Ok(())) | None => match link.mux.can_open(0) {
                Err(OpenError::GoneAway) => LinkEnd::GoAway,
                Err(OpenError::Exhausted) => LinkEnd::Exhausted,
                Ok(()) | Err(_) => return,
            },
        };
        if link.standing == Standing::Open {
            link.standing = Standing::Retired;
        }
        if was == Standing::Open {
            let backend = link.backend;
            desk.stats.link_end(backend, end);
            let report = match link.standing {
                Standing::Lost => Report::LinkLost(end),
                Standing::Open | Standing::Retired | Standing::Leaving { .. } => {
                    Report::LinkRetired(end)
                }
            };
            desk.reports.send(backend, report);
        }
        self.dirty = true;
    }
}

impl Link {
    /// Brings the books up to date with what it counts.
    fn book(&mut self, desk: &mut Desk) {
        let now = *self.mux.counters();
        let before = std::mem::replace(&mut self.booked, now);
        for (stat, n) in [
            (BackendStat::MessagesLost, now.messages_lost - before.messages_lost),
            (BackendStat::StreamsRefused, now.refused - before.refused),
            (BackendStat::LateBytes, now.late_bytes - before.late_bytes),
        ] {
            if n > 0 {
                desk.stats.add(self.backend, stat, n);
            }
        }
    }
}

/// How long a link without sessions may take to say its last words, in milliseconds.
const LEAVE_MS: u32 = 2000;

/// The protocol's clock for a driver's instant.
pub(super) fn millis(at: Now) -> Millis {
    super::super::millis(at)
}
