//! One session's own TCP connection to its backend, without I/O: what to ask of the socket, and what its answers mean.
//!
//! # Calling contract
//! A [`Link`] is made when the shard asks its driver to connect. The driver's answers go to the `on_*` methods, the session's
//! messages to [`Link::push`]; at [`Link::poll_timeout`] comes [`Link::handle_timeout`]. After each of them, do what
//! [`Link::poll_op`] says until `None`. After [`Op::Close`] or [`Op::Reset`] the link holds nothing and asks for nothing.
//!
//! At most one write and one read are under way. A read is asked for only while the session has room, so that the kernel's
//! buffers, and with them the backend, wait for a slow client.
//!
//! # Ends
//! The backend's FIN: what came before it is handed out, then [`End::Fin`]; then what the session had sent goes out and the socket
//! is closed. Its RST: [`End::Reset`], now. The session's end ([`Link::close`]): what it had sent goes out, then a FIN; what
//! the backend still says is read and dropped, because closing over it would send an RST, and that takes from the backend what
//! it has not read yet.

use net_io::Now;

use super::framing::{Codec, Decoder, Waiting};
use super::pool::{Pool, Queue};
use super::{Cx, End, Event};

/// What all links to one backend have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Framing and message length.
    pub codec: Codec,
    /// Bytes that may wait for the backend; at least one message with its prefix, and the PROXY header beside it.
    pub write_max: u32,
    /// How long connecting may take, in milliseconds.
    pub connect_ms: u32,
    /// A message whose rest does not come for this long while the session waits for it is the end, in milliseconds.
    pub stall_ms: u32,
    /// How long a link without a session may live on to send what waits and to see the backend's FIN, in milliseconds.
    pub linger_ms: u32,
}

impl LinkConfig {
    /// The defaults for sessions of `codec`: four messages and at least 64 KiB may wait, 3 s to connect, 10 s for a stall, 10 s
    /// to linger.
    #[must_use]
    pub const fn new(codec: Codec) -> Self {
        let messages = codec.message_max.saturating_add(64).saturating_mul(4);
        let write_max = if messages > 1 << 16 { messages } else { 1 << 16 };
        Self { codec, write_max, connect_ms: 3000, stall_ms: 10_000, linger_ms: 10_000 }
    }
}

/// One connection. 32 bytes; what waits is in the pool.
#[derive(Debug)]
pub struct Link {
    outbound: Queue,
    inbound: Decoder,
    /// [`NEVER`] when nothing is due.
    deadline: Now,
    /// Bytes of the write under way.
    writing: u32,
    phase: Phase,
    marks: Marks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The socket is being connected, or carries messages both ways.
    Open,
    /// The backend's FIN has come; the session has not taken everything that came before it.
    Finished,
    /// There is no session any more: what waits goes out, then a FIN.
    Closing,
    /// The socket is to be closed.
    Over { reset: bool },
    /// It has been.
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
    const LOCAL_FIN: u8 = 8;
    /// A message was refused.
    const WANTS_ROOM: u8 = 16;

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

/// What is to be done with the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// Write from these bytes, which the driver copies or sends before it returns. Answered by [`Link::on_written`] with what
    /// the kernel took, at least one byte, once it did; or by [`Link::on_error`].
    Write(&'a [u8]),
    /// Read once. Answered by [`Link::on_read`], [`Link::on_eof`] or [`Link::on_error`].
    Read,
    /// Send a FIN behind what was written.
    Shutdown,
    /// Close the socket. Whatever is under way on it is not answered any more.
    Close,
    /// Close the socket with an RST. Likewise.
    Reset,
}

/// A message was not taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// As much waits as may wait: try again when [`Link::on_written`] says that there is room.
    Full,
    /// The pool is full: end somebody, or this session.
    PoolFull,
    /// The message can never be sent on this link: empty, or too long.
    Unsendable,
    /// The backend's part in the session is over.
    Gone,
}

impl Link {
    /// A link whose socket is being connected from now on. `hello` goes out first, outside of the framing: the PROXY header,
    /// or nothing.
    ///
    /// # Errors
    /// When the pool has no room for `hello`.
    pub fn new(
        now: Now,
        config: &LinkConfig,
        pool: &mut Pool,
        hello: &[u8],
    ) -> Result<Self, PushError> {
        let mut outbound = Queue::new();
        outbound.push(pool, hello).map_err(|_| PushError::PoolFull)?;
        Ok(Self {
            outbound,
            inbound: Decoder::new(),
            deadline: now.add_ms(config.connect_ms),
            writing: 0,
            phase: Phase::Open,
            marks: Marks::default(),
        })
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
    ) -> Result<(), PushError> {
        match self.phase {
            Phase::Open | Phase::Finished => {}
            Phase::Closing | Phase::Over { .. } | Phase::Gone => return Err(PushError::Gone),
        }
        let prefix = config.codec.prefix(message.len()).map_err(|_| PushError::Unsendable)?;
        let total = prefix.as_slice().len() + message.len();
        if self.outbound.len() + total > config.write_max as usize {
            self.marks.set(Marks::WANTS_ROOM);
            return Err(PushError::Full);
        }
        if !self.outbound.fits(pool, total) {
            return Err(PushError::PoolFull);
        }
        let pushed = self
            .outbound
            .push(pool, prefix.as_slice())
            .and_then(|()| self.outbound.push(pool, message));
        debug_assert!(pushed.is_ok(), "the pool was asked before");
        Ok(())
    }

    /// The socket is connected.
    pub fn on_connected(&mut self) {
        self.marks.set(Marks::CONNECTED);
        if self.phase == Phase::Open {
            self.deadline = NEVER;
        }
    }

    /// The kernel has taken `n` bytes of the write under way. `true` when a session that was refused may push again.
    #[must_use]
    pub fn on_written(&mut self, config: &LinkConfig, pool: &mut Pool, n: usize) -> bool {
        self.writing = 0;
        self.outbound.consume(pool, n);
        match self.phase {
            Phase::Open | Phase::Finished => {
                self.outbound.len() <= config.write_max as usize / 2
                    && self.marks.take(Marks::WANTS_ROOM)
            }
            Phase::Closing | Phase::Over { .. } | Phase::Gone => false,
        }
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

    /// The read under way met the backend's FIN.
    pub fn on_eof<F: FnMut(Event<'_>) -> bool>(&mut self, cx: &mut Cx<'_, F>, config: &LinkConfig) {
        self.marks.take(Marks::READING);
        self.marks.set(Marks::REMOTE_FIN);
        if self.phase == Phase::Open {
            self.phase = Phase::Finished;
            self.deadline = NEVER;
            self.feed(cx, config, &[]);
        }
    }

    /// The socket is broken: reset by the backend, or never connected.
    pub fn on_error<F: FnMut(Event<'_>) -> bool>(&mut self, cx: &mut Cx<'_, F>) {
        let connected = self.marks.has(Marks::CONNECTED);
        let end = if connected { End::Reset } else { End::ConnectFailed };
        self.end(cx, end, false);
    }

    /// The session has room again: hands out what was kept for it.
    pub fn resume<F: FnMut(Event<'_>) -> bool>(&mut self, cx: &mut Cx<'_, F>, config: &LinkConfig) {
        if matches!(self.phase, Phase::Open | Phase::Finished) {
            self.feed(cx, config, &[]);
        }
    }

    /// The session ended by itself. No event follows. A socket that is still being connected is given its time, because the
    /// session's last messages wait for it.
    pub fn close(&mut self, now: Now, config: &LinkConfig, pool: &mut Pool) {
        if matches!(self.phase, Phase::Open | Phase::Finished) {
            self.detach(now, config, pool);
        }
    }

    /// The session is cut off: what waits is dropped, and the backend gets an RST. No event follows.
    pub fn abort(&mut self, pool: &mut Pool) {
        if !matches!(self.phase, Phase::Over { .. } | Phase::Gone) {
            self.over(pool, true);
        }
    }

    /// When to call [`Link::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Now> {
        (self.deadline != NEVER).then_some(self.deadline)
    }

    /// Does what is due by `cx.now`.
    pub fn handle_timeout<F: FnMut(Event<'_>) -> bool>(&mut self, cx: &mut Cx<'_, F>) {
        if cx.now < self.deadline {
            return;
        }
        match self.phase {
            Phase::Open if self.marks.has(Marks::CONNECTED) => self.end(cx, End::Stalled, true),
            Phase::Open => self.end(cx, End::ConnectTimeout, false),
            Phase::Closing => self.over(cx.pool, true),
            Phase::Finished | Phase::Over { .. } | Phase::Gone => {}
        }
    }

    /// The next thing to be done with the socket, until `None`. `has_room` says whether the session has room for a message.
    pub fn poll_op<'p>(
        &mut self,
        now: Now,
        config: &LinkConfig,
        pool: &'p mut Pool,
        has_room: bool,
    ) -> Option<Op<'p>> {
        match self.phase {
            Phase::Gone => return None,
            Phase::Over { reset } => {
                self.phase = Phase::Gone;
                return Some(if reset { Op::Reset } else { Op::Close });
            }
            Phase::Open | Phase::Finished | Phase::Closing => {}
        }
        if !self.marks.has(Marks::CONNECTED) {
            return None;
        }
        if self.writing == 0 && !self.outbound.is_empty() {
            let len = self.outbound.len().min(WRITE_MAX);
            self.writing = u32::try_from(len).unwrap_or(u32::MAX);
            return pool.run(&self.outbound, 0, len).map(Op::Write);
        }
        if self.phase == Phase::Closing && self.outbound.is_empty() {
            if self.marks.has(Marks::REMOTE_FIN) {
                self.over(pool, false);
                return self.poll_op(now, config, pool, has_room);
            }
            if !self.marks.has(Marks::LOCAL_FIN) {
                self.marks.set(Marks::LOCAL_FIN);
                return Some(Op::Shutdown);
            }
        }
        let wanted = self.phase == Phase::Closing || (self.phase == Phase::Open && has_room);
        if wanted && !self.marks.has(Marks::READING) && !self.marks.has(Marks::REMOTE_FIN) {
            self.marks.set(Marks::READING);
            if self.phase == Phase::Open && self.inbound.kept() > 0 {
                self.deadline = now.add_ms(config.stall_ms);
            }
            return Some(Op::Read);
        }
        None
    }

    /// Bytes that wait for the backend.
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
        let waiting = match fed {
            Ok(progress) => progress.waiting,
            Err(error) => return self.end(cx, End::from(error), true),
        };
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

    /// Tells the session, if there still is one, and closes the socket.
    fn end<F: FnMut(Event<'_>) -> bool>(&mut self, cx: &mut Cx<'_, F>, end: End, reset: bool) {
        let attached = match self.phase {
            Phase::Open | Phase::Finished => true,
            Phase::Closing => false,
            Phase::Over { .. } | Phase::Gone => return,
        };
        self.over(cx.pool, reset);
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

    fn over(&mut self, pool: &mut Pool, reset: bool) {
        self.inbound.clear(pool);
        self.outbound.clear(pool);
        self.phase = Phase::Over { reset };
        self.deadline = NEVER;
    }
}

/// Nothing is due.
const NEVER: Now = Now(u64::MAX);

/// The most that one write is given, in bytes: enough to make its system call cheap, and little beside a driver's buffers.
const WRITE_MAX: usize = 64 * 1024;

const _: () = assert!(size_of::<Link>() <= 32);

#[cfg(test)]
mod tests;
