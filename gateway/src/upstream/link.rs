//! One session's own connection to its backend, without I/O: what to ask of the driver's stream, and what its events mean.
//!
//! # Calling contract
//! A [`Link`] is made when the shard asks its driver to connect. The stream's events go to the `on_*` methods, the session's
//! messages to [`Link::push`]; at [`Link::poll_timeout`] comes [`Link::handle_timeout`]. After each of them, do what
//! [`Link::poll_op`] says until `None`. After [`Op::Abort`], or the event that the stream has ended, the link holds nothing
//! and asks for nothing.
//!
//! `write` hands bytes to the stream and tells how many it took, which may be fewer than all or none; then it tells when to go
//! on. What it did not take of a message that it took the beginning of waits in the pool: the rest of one message at most.
//! The stream's own bound is the bound of what waits for a slow backend.
//!
//! At most one read is under way. It is asked for only while the session has room, so that the kernel's buffers, and with
//! them the backend, wait for a slow client.
//!
//! # Ends
//! The backend's FIN: what came before it is handed out, then [`End::Fin`]; then what the session had sent goes out and the
//! stream is finished. Its RST: [`End::Reset`], now. The session's end ([`Link::close`]): what it had sent goes out, then a
//! FIN; what the backend still says is read and dropped, because closing over it would send an RST, and that takes from the
//! backend what it has not read yet.

use net_io::Now;

use super::framing::{Codec, Decoder, Progress, Waiting};
use super::patience::half;
use super::pool::{Pool, Queue};
use super::{Cx, End, Event};

/// What all links to one backend have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Framing and message length.
    pub codec: Codec,
    /// How long connecting may take, in milliseconds.
    pub connect_ms: u32,
    /// A message whose rest does not come for this long while the session waits for it is the end, in milliseconds.
    pub stall_ms: u32,
    /// How long a link without a session may live on to send what waits and to see the backend's FIN, in milliseconds.
    pub linger_ms: u32,
}

impl LinkConfig {
    /// The defaults for sessions of `codec`: 3 s to connect, 10 s for a stall, 10 s to linger.
    #[must_use]
    pub const fn new(codec: Codec) -> Self {
        Self { codec, connect_ms: 3000, stall_ms: 10_000, linger_ms: 10_000 }
    }
}

/// One connection. 32 bytes; what waits is in the pool.
#[derive(Debug)]
pub struct Link {
    /// What the stream did not take of the message that it took last.
    outbound: Queue,
    inbound: Decoder,
    /// [`NEVER`] when nothing is due.
    deadline: Now,
    phase: Phase,
    marks: Marks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The stream is being connected, or carries messages both ways.
    Open,
    /// The backend's FIN has come; the session has not taken everything that came before it.
    Finished,
    /// There is no session any more: what waits goes out, then a FIN.
    Closing,
    /// The stream is to be cut off.
    Aborting,
    /// There is no stream any more.
    Gone,
}

/// What else is true of a link.
#[derive(Clone, Copy, Debug, Default)]
struct Marks(u8);

impl Marks {
    const CONNECTED: u8 = 1;
    /// A read is under way.
    const READING: u8 = 2;
    /// The backend's FIN has come.
    const REMOTE_FIN: u8 = 4;
    /// Our FIN has been asked for.
    const FINISHED: u8 = 8;
    /// A message was refused.
    const WANTS_ROOM: u8 = 16;
    /// Half of the time is over that the rest of a message may take.
    const STANDS_STILL: u8 = 32;

    const fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }

    const fn set(&mut self, mark: u8) {
        self.0 |= mark;
    }

    /// Clears a mark; tells whether it was set.
    const fn take(&mut self, mark: u8) -> bool {
        let had = self.has(mark);
        self.0 &= !mark;
        had
    }
}

/// What is to be asked of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// One read. Answered by [`Link::on_read`], [`Link::on_fin`] or [`Link::on_end`].
    Read,
    /// To send a FIN behind what it took. Answered by [`Link::on_end`] when the backend has finished as well.
    Finish,
    /// To end now, with an RST. Not answered.
    Abort,
}

/// A message was not taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// The stream takes nothing: try again when [`Link::on_writable`] says that there is room.
    Full,
    /// The pool is full, and there might be no room for what the stream does not take: end somebody, or this session.
    PoolFull,
    /// The message can never be sent on this link: empty, or too long.
    Unsendable,
    /// The backend's part in the session is over.
    Gone,
}

impl Link {
    /// A link whose stream is being connected from now on.
    #[must_use]
    pub const fn new(now: Now, config: &LinkConfig) -> Self {
        Self {
            outbound: Queue::new(),
            inbound: Decoder::new(),
            deadline: now.add_ms(config.connect_ms),
            phase: Phase::Open,
            marks: Marks(0),
        }
    }

    /// Sends what goes first, outside of the framing: the PROXY header. Once, before the first message.
    ///
    /// # Errors
    /// When the pool has no room for what the stream might not take.
    pub fn hello(
        &mut self,
        pool: &mut Pool,
        hello: &[u8],
        write: impl FnMut(&[u8]) -> usize,
    ) -> Result<(), PushError> {
        self.send(pool, [hello, &[]], write)
    }

    /// Takes a message for the backend, all of it or nothing.
    ///
    /// # Errors
    /// When it is not taken; see [`PushError`].
    pub fn push(
        &mut self,
        config: &LinkConfig,
        pool: &mut Pool,
        message: &[u8],
        write: impl FnMut(&[u8]) -> usize,
    ) -> Result<(), PushError> {
        if !self.is_attached() {
            return Err(PushError::Gone);
        }
        let prefix = config.codec.prefix(message.len()).map_err(|_| PushError::Unsendable)?;
        if !self.outbound.is_empty() {
            self.marks.set(Marks::WANTS_ROOM);
            return Err(PushError::Full);
        }
        self.send(pool, [prefix.as_slice(), message], write)
    }

    /// Gives the stream `parts`, and keeps what it does not take, unless it takes nothing.
    fn send(
        &mut self,
        pool: &mut Pool,
        parts: [&[u8]; 2],
        mut write: impl FnMut(&[u8]) -> usize,
    ) -> Result<(), PushError> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        if !self.outbound.fits(pool, total) {
            return Err(PushError::PoolFull);
        }
        let mut taken = 0;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let n = write(part).min(part.len());
            taken += n;
            if n < part.len() {
                break;
            }
        }
        if taken == 0 && total > 0 {
            self.marks.set(Marks::WANTS_ROOM);
            return Err(PushError::Full);
        }
        let mut skip = taken;
        for part in parts {
            let from = skip.min(part.len());
            skip -= from;
            let kept = self.outbound.push(pool, &part[from..]);
            debug_assert!(kept.is_ok(), "the pool was asked before");
        }
        Ok(())
    }

    /// The stream is connected.
    pub fn on_connected(&mut self) {
        self.marks.set(Marks::CONNECTED);
        if self.is_attached() {
            self.deadline = NEVER;
        }
    }

    /// A write that was cut short may go on. `true` when a session that was refused may push again.
    #[must_use]
    pub fn on_writable(&mut self, pool: &mut Pool, mut write: impl FnMut(&[u8]) -> usize) -> bool {
        while !self.outbound.is_empty() {
            let piece = self.outbound.front(pool);
            let len = piece.len();
            let n = write(piece).min(len);
            self.outbound.consume(pool, n);
            if n < len {
                return false;
            }
        }
        self.is_attached() && self.marks.take(Marks::WANTS_ROOM)
    }

    /// The read under way brought `bytes`.
    pub fn on_read<F: FnMut(Event<'_>) -> bool>(
        &mut self,
        cx: &mut Cx<'_, F>,
        config: &LinkConfig,
        bytes: &[u8],
    ) {
        self.marks.take(Marks::READING);
        if self.phase == Phase::Open {
            self.deadline = NEVER;
            self.feed(cx, config, bytes);
        }
    }

    /// The backend's FIN came.
    pub fn on_fin<F: FnMut(Event<'_>) -> bool>(&mut self, cx: &mut Cx<'_, F>, config: &LinkConfig) {
        self.marks.take(Marks::READING);
        self.marks.set(Marks::REMOTE_FIN);
        if self.phase == Phase::Open {
            self.phase = Phase::Finished;
            self.deadline = NEVER;
            self.feed(cx, config, &[]);
        }
    }

    /// The stream has ended: cut off by the backend or given up by the kernel, never connected, or finished by both sides. Its
    /// handle is no longer valid.
    pub fn on_end<F: FnMut(Event<'_>) -> bool>(&mut self, cx: &mut Cx<'_, F>) {
        let connected = self.marks.has(Marks::CONNECTED);
        self.end(cx, if connected { End::Reset } else { End::ConnectFailed });
        self.phase = Phase::Gone;
    }

    /// The session has room again: hands out what was kept for it.
    pub fn resume<F: FnMut(Event<'_>) -> bool>(&mut self, cx: &mut Cx<'_, F>, config: &LinkConfig) {
        if self.is_attached() {
            self.feed(cx, config, &[]);
        }
    }

    /// The session ended by itself. No event follows. A stream that is still being connected is given its time, because the
    /// session's last messages wait for it.
    pub fn close(&mut self, now: Now, config: &LinkConfig, pool: &mut Pool) {
        if self.is_attached() {
            self.detach(now, config, pool);
        }
    }

    /// The session is cut off: what waits is dropped, and the backend gets an RST. No event follows.
    pub fn abort(&mut self, pool: &mut Pool) {
        if !matches!(self.phase, Phase::Aborting | Phase::Gone) {
            self.cut_off(pool);
        }
    }

    /// Memory is short, and this link keeps more than others: it ends.
    pub fn shed<F: FnMut(Event<'_>) -> bool>(&mut self, cx: &mut Cx<'_, F>) {
        self.end(cx, End::Shed);
    }

    /// When to call [`Link::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Now> {
        (self.deadline != NEVER).then_some(self.deadline)
    }

    /// Does what is due by `cx.now`.
    pub fn handle_timeout<F: FnMut(Event<'_>) -> bool>(
        &mut self,
        cx: &mut Cx<'_, F>,
        config: &LinkConfig,
    ) {
        if cx.now < self.deadline {
            return;
        }
        match self.phase {
            Phase::Open if self.marks.has(Marks::STANDS_STILL) => self.end(cx, End::Stalled),
            Phase::Open if self.marks.has(Marks::CONNECTED) => {
                self.marks.set(Marks::STANDS_STILL);
                self.deadline = cx.now.add_ms(half(config.stall_ms));
            }
            Phase::Open => self.end(cx, End::ConnectTimeout),
            Phase::Closing => self.cut_off(cx.pool),
            Phase::Finished | Phase::Aborting | Phase::Gone => {}
        }
    }

    /// The next thing to be asked of the stream, until `None`. `has_room` says whether the session has room for a message.
    pub fn poll_op(&mut self, now: Now, config: &LinkConfig, has_room: bool) -> Option<Op> {
        match self.phase {
            Phase::Gone => return None,
            Phase::Aborting => {
                self.phase = Phase::Gone;
                return Some(Op::Abort);
            }
            Phase::Closing => {
                if self.outbound.is_empty() && !self.marks.has(Marks::FINISHED) {
                    self.marks.set(Marks::FINISHED);
                    return Some(Op::Finish);
                }
            }
            Phase::Open | Phase::Finished => {}
        }
        let wanted = self.phase == Phase::Closing || (self.phase == Phase::Open && has_room);
        if !wanted || self.marks.has(Marks::READING) || self.marks.has(Marks::REMOTE_FIN) {
            return None;
        }
        self.marks.set(Marks::READING);
        if self.phase == Phase::Open && self.inbound.kept() > 0 {
            // Half of it, twice: a pause of ours is not the backend's.
            self.marks.take(Marks::STANDS_STILL);
            self.deadline = now.add_ms(half(config.stall_ms));
        }
        Some(Op::Read)
    }

    /// The link has no stream any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// It has a session: no [`Event::End`] was handed out, and the session has not ended.
    #[must_use]
    pub const fn is_attached(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Finished)
    }

    /// Bytes that wait here for the backend; the stream has more.
    #[must_use]
    pub const fn outbound(&self) -> usize {
        self.outbound.len()
    }

    /// Bytes that wait for the session, or for the rest of a message.
    #[must_use]
    pub const fn inbound(&self) -> usize {
        self.inbound.kept()
    }

    fn feed<F: FnMut(Event<'_>) -> bool>(
        &mut self,
        cx: &mut Cx<'_, F>,
        config: &LinkConfig,
        bytes: &[u8],
    ) {
        let sink = &mut *cx.sink;
        let fed = self
            .inbound
            .feed(&config.codec, cx.pool, bytes, |message| sink(Event::Message(message)));
        let Progress { waiting, empty, .. } = match fed {
            Ok(progress) => progress,
            Err(error) => return self.end(cx, End::from(error)),
        };
        if empty > 0 {
            (cx.sink)(Event::Empty(empty));
        }
        if self.phase != Phase::Finished {
            return;
        }
        let end = match waiting {
            Waiting::Room => return,
            Waiting::Idle => End::Fin,
            Waiting::Rest => End::FinMidMessage,
        };
        self.detach(cx.now, config, cx.pool);
        (cx.sink)(Event::End(end));
    }

    /// Tells the session, if there still is one, and cuts the stream off.
    fn end<F: FnMut(Event<'_>) -> bool>(&mut self, cx: &mut Cx<'_, F>, end: End) {
        let attached = self.is_attached();
        self.abort(cx.pool);
        if attached {
            (cx.sink)(Event::End(end));
        }
    }

    fn detach(&mut self, now: Now, config: &LinkConfig, pool: &mut Pool) {
        self.inbound.clear(pool);
        self.phase = Phase::Closing;
        let linger = now.add_ms(config.linger_ms);
        // One that is still being connected keeps at least the time it was given for that.
        let connecting = !self.marks.has(Marks::CONNECTED);
        self.deadline = if connecting { self.deadline.max(linger) } else { linger };
    }

    fn cut_off(&mut self, pool: &mut Pool) {
        self.inbound.clear(pool);
        self.outbound.clear(pool);
        self.phase = Phase::Aborting;
        self.deadline = NEVER;
    }
}

/// Nothing is due.
const NEVER: Now = Now(u64::MAX);

const _: () = assert!(size_of::<Link>() <= 32);

#[cfg(test)]
mod tests;
