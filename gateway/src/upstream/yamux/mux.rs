//! One connection's state and what its owner asks of it.

use kcp_core::Millis;
use net_io::Now;

use super::super::patience::Patience;
use super::super::pool::Pool;
use super::super::{Cx, End, Event};
use super::frame::{Flags, HEADER, Header, Kind};
use super::keepalive::Keepalive;
use super::outbox::Outbox;
use super::receive::Reader;
use super::streams::{INITIAL_WINDOW, Marks, Stream, Streams, Timer};
use super::transmit::Owed;
use super::unacked::Unacked;
use super::{Config, ConfigError, Counters, LinkError, OpenError, PushError, StreamKey};

/// One connection to a backend. `S` is what its owner knows a session by.
#[derive(Debug)]
pub struct Mux<S> {
    pub(super) config: Config,
    pub(super) standing: Standing,
    pub(super) streams: Streams<S>,
    pub(super) reader: Reader,
    pub(super) outbox: Outbox,
    /// Answers that belong to no stream of ours and wait for room in the outbox.
    pub(super) owed: Owed,
    pub(super) keepalive: Keepalive,
    pub(super) unacked: Unacked,
    pub(super) counters: Counters,
    next_id: u32,
    /// Since when the kernel has taken nothing of what it was offered.
    pub(super) stuck_since: Option<Now>,
    /// Since when the backend has not moved: given nothing, and taken nothing of what it had to be waited for. Counts while
    /// there is something to wait for.
    pub(super) patience: Patience,
    /// Where [`Mux::tear_down`] goes on.
    torn_down: u32,
}

/// Whether the connection takes new streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Open,
    /// One side has gone away: what is open runs on.
    GoneAway,
    Failed(LinkError),
}

impl<S: Copy> Mux<S> {
    /// A connection that was made just now.
    ///
    /// # Errors
    /// When the numbers do not go together.
    pub fn new(config: Config, now: Now) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            standing: Standing::Open,
            streams: Streams::new(config.streams_max),
            reader: Reader::default(),
            outbox: Outbox::new(config.write_max as usize),
            owed: Owed::default(),
            keepalive: Keepalive::new(now, config.ping_interval_ms),
            unacked: Unacked::default(),
            counters: Counters::default(),
            next_id: 1,
            stuck_since: None,
            patience: Patience::new(now),
            torn_down: 0,
            config,
        })
    }

    /// Whether [`Mux::open`] would open a stream with a hello of `hello_len` bytes now.
    ///
    /// # Errors
    /// Why not.
    pub fn can_open(&self, hello_len: usize) -> Result<(), OpenError> {
        match self.standing {
            Standing::Open => {}
            Standing::GoneAway => return Err(OpenError::GoneAway),
            Standing::Failed(_) => return Err(OpenError::Dead),
        }
        if self.next_id > LAST_ID {
            return Err(OpenError::Exhausted);
        }
        if self.streams.len() >= self.config.streams_max as usize {
            return Err(OpenError::Streams);
        }
        if self.unacked.count() >= self.config.unacked_max {
            return Err(OpenError::Unacked);
        }
        if self.outbox.data_room() < 2 * HEADER + hello_len {
            return Err(OpenError::Full);
        }
        Ok(())
    }

    /// Opens a stream for `session` and sends `hello` as its first bytes, outside of the framing: the PROXY header, or nothing.
    ///
    /// # Errors
    /// When it cannot be opened now, or never; see [`OpenError`].
    pub fn open(&mut self, session: S, hello: &[u8]) -> Result<StreamKey, OpenError> {
        self.can_open(hello.len())?;
        let Some(len) = u32::try_from(hello.len()).ok().filter(|&len| len <= INITIAL_WINDOW) else {
            return Err(OpenError::Full);
        };
        let id = self.next_id;
        self.next_id += 2;
        let key = self.streams.insert(id, session, self.config.window);
        self.unacked.on_open();
        self.counters.opened += 1;
        let more = self.config.window - INITIAL_WINDOW;
        if more > 0 || len == 0 {
            self.send(Kind::WindowUpdate, Flags::SYN, id, more);
        }
        if len > 0 {
            self.send(Kind::Data, if more > 0 { Flags::NONE } else { Flags::SYN }, id, len);
            self.outbox.payload(hello);
        }
        if let Some(slot) = self.streams.slot(key) {
            self.streams.get_mut(slot).send_window -= len;
        }
        Ok(key)
    }

    /// Sends a message on a session's stream: all of it is taken, or nothing.
    ///
    /// # Errors
    /// When it is not taken; see [`PushError`].
    pub fn push(
        &mut self,
        pool: &mut Pool,
        key: StreamKey,
        message: &[u8],
    ) -> Result<(), PushError> {
        self.push_with(pool, key, message.len(), |out| {
            out.copy_from_slice(message);
            true
        })
    }

    /// Sends a message of `len` bytes that `fill` writes; nothing is taken when it answers `false`.
    ///
    /// # Errors
    /// When it is not taken; see [`PushError`]. `fill` has then not been called, or has answered `false`.
    pub fn push_with(
        &mut self,
        pool: &mut Pool,
        key: StreamKey,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> bool,
    ) -> Result<(), PushError> {
        let slot = self.slot_of_session(key).ok_or(PushError::Gone)?;
        if self.has_failed() {
            return Err(PushError::Gone);
        }
        let prefix = self.config.codec.prefix(len).map_err(|_| PushError::Unsendable)?;
        let prefix = prefix.as_slice();
        let stream = self.streams.get_mut(slot);
        if !stream.outbound.is_empty() || stream.send_window == 0 {
            stream.marks.set(Marks::WANTS_ROOM);
            return Err(PushError::Full);
        }
        let total = prefix.len() + len;
        let now = narrow(total.min(stream.send_window as usize));
        let later = total - now as usize;
        if self.outbox.data_room() < HEADER + now as usize {
            stream.marks.set(Marks::WANTS_ROOM);
            self.streams.mark_room(slot);
            return Err(PushError::Full);
        }
        if later > pool.bytes_free() {
            return Err(PushError::PoolFull);
        }
        let mark = self.outbox.mark();
        self.outbox.header(&Header {
            kind: Kind::Data,
            flags: Flags::NONE,
            stream: key.id(),
            length: now,
        });
        self.outbox.payload(prefix);
        if !fill(self.outbox.payload_mut(len)) {
            self.outbox.rewind(mark);
            return Err(PushError::NotFilled);
        }
        let stream = self.streams.get_mut(slot);
        stream.send_window -= now;
        if later > 0 {
            let split = mark + HEADER + now as usize;
            let kept = stream.outbound.push(pool, self.outbox.since(split));
            debug_assert!(kept.is_ok(), "the pool was asked before");
            self.outbox.rewind(split);
        } else {
            self.outbox.message_ends();
        }
        self.counters.frames_out += 1;
        self.counters.messages_out += 1;
        Ok(())
    }

    /// The session has room again: hands out what was kept for it, and opens its window by what it took.
    pub fn resume<F: FnMut(S, Event<'_>) -> bool>(&mut self, cx: &mut Cx<'_, F>, key: StreamKey) {
        if let Some(slot) = self.slot_of_session(key)
            && !self.has_failed()
        {
            self.feed(cx, slot, &[]);
            self.transmit(cx.pool);
        }
    }

    /// The session ended by itself: what it has sent goes out, then a FIN. What the backend still sends is dropped. No event
    /// follows. A key whose stream is over is ignored.
    pub fn close(&mut self, now: Now, pool: &mut Pool, key: StreamKey) {
        let Some(slot) = self.slot_of_session(key) else { return };
        if self.has_failed() {
            self.free(pool, slot);
        } else {
            self.detach(now, pool, slot);
            self.transmit(pool);
        }
    }

    /// The session is cut off: an RST, and nothing that waits is sent. No event follows. A key whose stream is over is
    /// ignored.
    pub fn abort(&mut self, pool: &mut Pool, key: StreamKey) {
        let Some(slot) = self.slot_of_session(key) else { return };
        if self.has_failed() {
            self.free(pool, slot);
        } else {
            self.cut_off(pool, slot);
            self.transmit(pool);
        }
    }

    /// A session that may push again. Ask until `None` after [`Mux::on_read`] and [`Mux::on_written`]; each call lets one
    /// session go on, in the order in which they were refused.
    pub fn poll_room(&mut self) -> Option<S> {
        while self.outbox.data_room() >= self.config.frame_max() {
            let slot = self.streams.pop_room()?;
            let stream = self.streams.get_mut(slot);
            if stream.is_attached() && stream.outbound.is_empty() && stream.send_window > 0 {
                stream.marks.clear(Marks::WANTS_ROOM);
                return Some(stream.session);
            }
        }
        None
    }

    /// Bytes for the kernel, which counts as offered them now. They stay until [`Mux::on_written`] says that it took them;
    /// more may be added behind them meanwhile.
    pub fn pending(&mut self, now: Now) -> &[u8] {
        if !self.outbox.pending().is_empty() && self.stuck_since.is_none() {
            self.begin_to_await(now);
            self.stuck_since = Some(now);
        }
        self.outbox.pending()
    }

    /// The kernel has taken `n` bytes from the front of [`Mux::pending`].
    pub fn on_written(&mut self, now: Now, n: usize, pool: &mut Pool) {
        self.counters.bytes_out += n as u64;
        self.outbox.on_written(n);
        // What the kernel takes at once says nothing of the backend; what it takes after it had no room, the backend made room for.
        if n > 0 && self.stuck_since.is_some_and(|since| since < now) {
            self.patience = Patience::new(now);
        }
        if self.outbox.pending().is_empty() {
            self.stuck_since = None;
        } else if n > 0 {
            self.stuck_since = Some(now);
        }
        if !self.has_failed() {
            self.transmit(pool);
        }
    }

    /// Of what was taken from [`Mux::pending`], all but the last `waiting` bytes have left for good: this decides which messages
    /// count as lost when the connection is. Never telling counts too many, up to a MiB's.
    pub fn on_sent(&mut self, waiting: usize) {
        self.outbox.on_sent(waiting);
    }

    /// The connection is closed: of what was taken from here, the last `unsent` bytes have not left. Counts what is lost.
    pub fn abandon(&mut self, unsent: usize) {
        self.outbox.on_sent(unsent);
        self.counters.messages_lost += self.outbox.abandon() as u64;
    }

    /// The kernel has nothing more to read: the backend closed its side of the connection.
    pub fn on_eof(&mut self) -> LinkError {
        let error =
            if self.reader.is_mid_frame() { LinkError::EofMidFrame } else { LinkError::Eof };
        self.fail(error)
    }

    /// Takes no new streams from now on and tells the backend so, once. What is open runs on as far as the backend
    /// lets it: some libraries end the connection when they read this, so send it when no stream is left, or none that
    /// matters.
    pub fn go_away(&mut self) {
        if self.standing == Standing::Open {
            self.standing = Standing::GoneAway;
            self.send(Kind::GoAway, Flags::NONE, 0, GO_AWAY_NORMAL);
        }
    }

    /// The connection is over for this reason, unless it is over already; tells for which.
    pub fn fail(&mut self, error: LinkError) -> LinkError {
        if let Standing::Failed(first) = self.standing {
            return first;
        }
        self.standing = Standing::Failed(error);
        if error.is_protocol() {
            self.send(Kind::GoAway, Flags::NONE, 0, GO_AWAY_PROTOCOL);
        }
        error
    }

    /// The connection is over, and the backend is to be told why: closing over what is pending would keep it from reading that.
    #[must_use]
    pub const fn has_last_words(&self) -> bool {
        matches!(self.standing, Standing::Failed(error) if error.is_protocol())
    }

    /// The connection is over.
    #[must_use]
    pub const fn has_failed(&self) -> bool {
        matches!(self.standing, Standing::Failed(_))
    }

    /// Looks at up to `budget` slots of a failed connection, tells their sessions that it is over and frees what they held; `false`
    /// while some are left. Takes what it looked at from the budget.
    pub fn tear_down<F: FnMut(S, Event<'_>) -> bool>(
        &mut self,
        cx: &mut Cx<'_, F>,
        budget: &mut usize,
    ) -> bool {
        debug_assert!(self.has_failed());
        while *budget > 0 && self.torn_down < self.streams.slots() {
            let slot = self.torn_down;
            self.torn_down += 1;
            *budget -= 1;
            let Some(stream) = self.streams.at(slot) else { continue };
            let (session, attached) = (stream.session, stream.is_attached());
            self.free(cx.pool, slot);
            if attached {
                (cx.sink)(session, Event::End(End::LinkLost));
            }
        }
        self.torn_down == self.streams.slots()
    }

    /// When to call [`Mux::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self, now: Now) -> Option<Now> {
        if self.has_failed() {
            return None;
        }
        let still = self.awaited().map(|(_, ms)| self.patience.deadline(ms));
        let ping = self.keepalive.deadline().filter(|_| self.outbox.room() >= HEADER);
        let timer = |timer| {
            let (_, at) = self.streams.first_timed(timer)?;
            let ahead_ms = u64::try_from(at.since(millis(now))).unwrap_or(0);
            Some(Now((now.as_millis() + ahead_ms) * 1000))
        };
        let all = [still, ping, timer(Timer::Stall), timer(Timer::Linger)];
        all.into_iter().flatten().min()
    }

    /// Does what is due by `cx.now`: at most 256 streams' timers in one call, the rest stay due.
    ///
    /// # Errors
    /// When the connection is over; see [`LinkError`].
    pub fn handle_timeout<F: FnMut(S, Event<'_>) -> bool>(
        &mut self,
        cx: &mut Cx<'_, F>,
    ) -> Result<(), LinkError> {
        if let Standing::Failed(error) = self.standing {
            return Err(error);
        }
        if let Some((error, ms)) = self.awaited()
            && self.patience.is_over(cx.now, ms)
        {
            return Err(self.fail(error));
        }
        if self.outbox.room() >= HEADER && self.keepalive.deadline().is_some_and(|at| at <= cx.now)
        {
            self.begin_to_await(cx.now);
            if let Some(number) = self.keepalive.due(cx.now) {
                self.unacked.on_ping(self.next_id);
                self.send(Kind::Ping, Flags::SYN, 0, number);
            }
        }
        self.expire_streams(cx);
        self.transmit(cx.pool);
        Ok(())
    }

    /// The key of the stream in a slot, if it is `session`'s and not over.
    #[must_use]
    pub fn key_at(&self, slot: u32, session: S) -> Option<StreamKey>
    where
        S: PartialEq,
    {
        let stream = self.streams.at(slot)?;
        (stream.session == session && stream.is_attached()).then(|| self.streams.key(slot))
    }

    /// Bytes kept for a stream's session.
    #[must_use]
    pub fn kept(&self, key: StreamKey) -> usize {
        let slot = self.slot_of_session(key);
        slot.map_or(0, |slot| self.streams.get(slot).inbound.kept())
    }

    /// Live streams, those that only wait for the backend's FIN included.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Streams opened and not accepted yet.
    #[must_use]
    pub const fn unacked(&self) -> u32 {
        self.unacked.count()
    }

    /// The last ping's round trip in microseconds.
    #[must_use]
    pub const fn rtt_us(&self) -> Option<u64> {
        self.keepalive.rtt_us()
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Slots ever used: those of [`StreamKey::slot`] are below it.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.streams.slots()
    }

    /// Bytes kept by the stream in a slot, for its session and for the backend; 0 where there is none.
    #[must_use]
    pub fn backlog(&self, slot: u32) -> usize {
        self.streams.at(slot).map_or(0, Stream::backlog)
    }

    /// Ends the stream in a slot, if there is one, for the memory that it keeps.
    pub fn shed<F: FnMut(S, Event<'_>) -> bool>(&mut self, cx: &mut Cx<'_, F>, slot: u32) {
        if self.streams.at(slot).is_some() {
            self.end_with_reset(cx, slot, End::Shed);
            self.transmit(cx.pool);
        }
    }

    /// What the backend is waited for, as the error that it is when it does not come, and how long it may stand still
    /// meanwhile, in milliseconds. One that moves is waited for: it may be slow, and an answer stand behind much else.
    fn awaited(&self) -> Option<(LinkError, u32)> {
        let Config { stall_ms, ping_timeout_ms, .. } = self.config;
        if self.reader.is_mid_frame() {
            Some((LinkError::StalledRead, stall_ms))
        } else if self.stuck_since.is_some() {
            Some((LinkError::StalledWrite, stall_ms))
        } else if self.keepalive.is_asking() {
            Some((LinkError::PingTimeout, ping_timeout_ms))
        } else {
            None
        }
    }

    /// The backend is about to be waited for: its time begins, unless it is waited for already.
    fn begin_to_await(&mut self, now: Now) {
        if self.awaited().is_none() {
            self.patience = Patience::new(now);
        }
    }

    fn slot_of_session(&self, key: StreamKey) -> Option<u32> {
        self.streams.slot(key).filter(|&slot| self.streams.get(slot).is_attached())
    }

    pub(super) const fn next_id(&self) -> u32 {
        self.next_id
    }

    /// The next stream is the last one.
    #[cfg(test)]
    pub(super) const fn skip_ids_to_last(&mut self) {
        self.next_id = LAST_ID;
    }

    pub(super) fn send(&mut self, kind: Kind, flags: Flags, stream: u32, length: u32) {
        self.outbox.header(&Header { kind, flags, stream, length });
        self.counters.frames_out += 1;
    }
}

/// The protocol clock's milliseconds, wrapping: streams keep their deadlines in four bytes.
#[expect(clippy::cast_possible_truncation, reason = "deadlines are compared around the wrap")]
pub(super) const fn millis(now: Now) -> Millis {
    Millis(now.as_millis() as u32)
}

/// A number of bytes that was held against a `u32` before.
fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The last id for a stream of ours that every library takes: Go's gives up here, too.
const LAST_ID: u32 = u32::MAX - 2;

const GO_AWAY_NORMAL: u32 = 0;
const GO_AWAY_PROTOCOL: u32 = 1;
