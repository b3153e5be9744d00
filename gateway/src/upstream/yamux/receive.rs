//! Bytes from the backend: frames, and what they mean for their streams.

use net_io::Now;

use super::super::framing::{Progress, Waiting};
use super::super::patience::{Patience, half};
use super::super::pool::Pool;
use super::super::{Cx, End, Event};
use super::frame::{Flags, Header, HeaderError, HeaderReader, Kind};
use super::mux::{Mux, Standing, millis};
use super::streams::{Marks, Phase, Timer};
use super::{LinkError, StreamKey};

/// Where reading stands.
#[derive(Debug, Default)]
pub(super) struct Reader {
    header: HeaderReader,
    body: Option<Body>,
}

/// A data frame's payload that has not all come.
#[derive(Clone, Copy, Debug)]
struct Body {
    /// Whose it is; `None` when nobody wants it.
    stream: Option<StreamKey>,
    left: u32,
    /// The stream is finished with it.
    fin: bool,
}

impl Reader {
    pub(super) const fn is_mid_frame(&self) -> bool {
        self.body.is_some() || self.header.is_partial()
    }
}

impl From<HeaderError> for LinkError {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Version => Self::Version,
            HeaderError::Kind => Self::Kind,
        }
    }
}

impl LinkError {
    /// The backend broke the protocol, and is told so.
    pub(super) const fn is_protocol(self) -> bool {
        match self {
            Self::Version
            | Self::Kind
            | Self::StreamZero
            | Self::UnknownStream
            | Self::Syn
            | Self::WindowExceeded
            | Self::WindowOverflow
            | Self::DataAfterFin
            | Self::ControlFlood => true,
            Self::Eof
            | Self::EofMidFrame
            | Self::Reset
            | Self::GoAway { .. }
            | Self::PingTimeout
            | Self::StalledRead
            | Self::StalledWrite => false,
        }
    }
}

impl<S: Copy> Mux<S> {
    /// Takes everything that was read from the connection and hands out the messages in it. Payload is used where it stands;
    /// only a message in pieces, or one without room at its session, is copied.
    ///
    /// # Errors
    /// When the connection is over; see [`LinkError`]. What was handed out before is valid.
    pub fn on_read<F: FnMut(S, Event<'_>) -> bool>(
        &mut self,
        cx: &mut Cx<'_, F>,
        bytes: &[u8],
    ) -> Result<(), LinkError> {
        if let Standing::Failed(error) = self.standing {
            return Err(error);
        }
        self.patience = Patience::new(cx.now);
        self.counters.bytes_in += bytes.len() as u64;
        match self.frames(cx, bytes) {
            Ok(()) => {
                self.transmit(cx.pool);
                Ok(())
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    fn frames<F: FnMut(S, Event<'_>) -> bool>(
        &mut self,
        cx: &mut Cx<'_, F>,
        bytes: &[u8],
    ) -> Result<(), LinkError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Some(body) = self.reader.body {
                rest = self.body(cx, body, rest);
                continue;
            }
            let (header, after) = self.reader.header.read(rest)?;
            rest = after;
            if let Some(header) = header {
                self.counters.frames_in += 1;
                match header.kind {
                    Kind::Data | Kind::WindowUpdate => self.stream_frame(cx, header)?,
                    Kind::Ping => self.ping(cx.now, header)?,
                    Kind::GoAway => self.gone_away(header)?,
                }
            }
        }
        Ok(())
    }

    /// Takes payload from the front of `input`; what is left of `input`.
    fn body<'i, F: FnMut(S, Event<'_>) -> bool>(
        &mut self,
        cx: &mut Cx<'_, F>,
        body: Body,
        input: &'i [u8],
    ) -> &'i [u8] {
        let (piece, rest) = input.split_at(input.len().min(body.left as usize));
        let left = body.left - u32::try_from(piece.len()).unwrap_or(body.left);
        self.reader.body = (left > 0).then_some(Body { left, ..body });
        let Some(slot) = body.stream.and_then(|key| self.streams.slot(key)) else {
            self.counters.late_bytes += piece.len() as u64;
            return rest;
        };
        self.streams.get_mut(slot).recv_window -= body.left - left;
        match self.streams.get(slot).phase {
            Phase::Open => self.feed(cx, slot, piece),
            Phase::Finished | Phase::Closing | Phase::Closed | Phase::Aborting => {
                self.counters.late_bytes += piece.len() as u64;
            }
        }
        if left == 0
            && body.fin
            && let Some(slot) = body.stream.and_then(|key| self.streams.slot(key))
        {
            self.finished(cx, slot);
        }
        rest
    }

    fn stream_frame<F: FnMut(S, Event<'_>) -> bool>(
        &mut self,
        cx: &mut Cx<'_, F>,
        header: Header,
    ) -> Result<(), LinkError> {
        let Some(slot) = self.streams.find(header.stream) else { return self.foreign(header) };
        if header.flags.has(Flags::SYN) {
            return Err(LinkError::Syn);
        }
        if header.flags.has(Flags::ACK) {
            self.acknowledged(slot);
        }
        if header.kind == Kind::Data {
            return self.data(cx, slot, header);
        }
        if header.flags.has(Flags::RST) {
            self.reset_by_peer(cx, slot);
            return Ok(());
        }
        let stream = self.streams.get_mut(slot);
        let window = stream.send_window.checked_add(header.length);
        stream.send_window = window.ok_or(LinkError::WindowOverflow)?;
        if stream.send_window > 0 {
            if !stream.outbound.is_empty() {
                self.streams.mark_ready(slot);
            } else if stream.marks.has(Marks::WANTS_ROOM) {
                self.streams.mark_room(slot);
            }
        }
        if header.flags.has(Flags::FIN) {
            self.finished(cx, slot);
        }
        Ok(())
    }

    fn data<F: FnMut(S, Event<'_>) -> bool>(
        &mut self,
        cx: &mut Cx<'_, F>,
        slot: u32,
        header: Header,
    ) -> Result<(), LinkError> {
        let stream = self.streams.get(slot);
        if header.length > stream.recv_window {
            return Err(LinkError::WindowExceeded);
        }
        if header.length > 0 && stream.marks.has(Marks::REMOTE_FIN) {
            return Err(LinkError::DataAfterFin);
        }
        let key = self.streams.key(slot);
        let reset = header.flags.has(Flags::RST);
        if reset {
            self.reset_by_peer(cx, slot);
        }
        let fin = header.flags.has(Flags::FIN) && !reset;
        if header.length > 0 {
            let stream = (!reset).then_some(key);
            self.reader.body = Some(Body { stream, left: header.length, fin });
        } else if fin {
            self.finished(cx, slot);
        }
        Ok(())
    }

    /// A frame for a stream that does not live: what was on its way to one that did, or a stream that the backend wants to open,
    /// which is refused, or nonsense.
    fn foreign(&mut self, header: Header) -> Result<(), LinkError> {
        let ours = header.stream % 2 == 1;
        if header.stream == 0 {
            return Err(LinkError::StreamZero);
        }
        if ours && header.stream >= self.next_id() {
            return Err(LinkError::UnknownStream);
        }
        if header.flags.has(Flags::SYN) {
            if ours {
                return Err(LinkError::Syn);
            }
            let (kind, flags, length) = (Kind::WindowUpdate, Flags::RST, 0);
            self.answer(Header { kind, flags, length, ..header })?;
            self.counters.refused += 1;
        }
        if header.kind == Kind::Data && header.length > 0 {
            if header.length > self.config.window {
                return Err(LinkError::WindowExceeded);
            }
            self.reader.body = Some(Body { stream: None, left: header.length, fin: false });
        }
        Ok(())
    }

    fn ping(&mut self, now: Now, header: Header) -> Result<(), LinkError> {
        if header.flags.has(Flags::SYN) {
            self.answer(Header { flags: Flags::ACK, stream: 0, ..header })?;
        } else if self.keepalive.on_pong(now, header.length) {
            self.unacked.on_pong();
        } else {
            self.counters.stray_pongs += 1;
        }
        Ok(())
    }

    fn gone_away(&mut self, header: Header) -> Result<(), LinkError> {
        if header.length != 0 {
            return Err(LinkError::GoAway { code: header.length });
        }
        self.standing = Standing::GoneAway;
        Ok(())
    }

    fn acknowledged(&mut self, slot: u32) {
        let stream = self.streams.get_mut(slot);
        if !stream.marks.has(Marks::ACKED) {
            stream.marks.set(Marks::ACKED);
            self.unacked.on_settled(stream.id);
        }
    }

    /// The backend's FIN. A second one says nothing new.
    fn finished<F: FnMut(S, Event<'_>) -> bool>(&mut self, cx: &mut Cx<'_, F>, slot: u32) {
        let stream = self.streams.get_mut(slot);
        stream.marks.set(Marks::REMOTE_FIN);
        match stream.phase {
            Phase::Open => {
                stream.phase = Phase::Finished;
                self.feed(cx, slot, &[]);
            }
            Phase::Closed => self.free(cx.pool, slot),
            Phase::Finished | Phase::Closing | Phase::Aborting => {}
        }
    }

    fn reset_by_peer<F: FnMut(S, Event<'_>) -> bool>(&mut self, cx: &mut Cx<'_, F>, slot: u32) {
        let stream = self.streams.get(slot);
        let (session, attached) = (stream.session, stream.is_attached());
        let accepted = stream.marks.has(Marks::ACKED);
        self.free(cx.pool, slot);
        if attached {
            let end = if accepted { End::Reset } else { End::Refused };
            (cx.sink)(session, Event::End(end));
        }
    }

    /// Hands a session what it has room for of what was kept and of `piece`, and draws the consequences: its window, its
    /// timer, its end.
    pub(super) fn feed<F: FnMut(S, Event<'_>) -> bool>(
        &mut self,
        cx: &mut Cx<'_, F>,
        slot: u32,
        piece: &[u8],
    ) {
        let stream = self.streams.get_mut(slot);
        let session = stream.session;
        let sink = &mut *cx.sink;
        let fed = stream.inbound.feed(&self.config.codec, cx.pool, piece, |message| {
            sink(session, Event::Message(message))
        });
        match fed {
            Err(error) => self.end_with_reset(cx, slot, End::from(error)),
            Ok(progress) => self.after_feed(cx, slot, progress),
        }
    }

    fn after_feed<F: FnMut(S, Event<'_>) -> bool>(
        &mut self,
        cx: &mut Cx<'_, F>,
        slot: u32,
        progress: Progress,
    ) {
        self.counters.messages_in += u64::from(progress.messages);
        let stream = self.streams.get(slot);
        if progress.empty > 0 {
            (cx.sink)(stream.session, Event::Empty(progress.empty));
        }
        if stream.phase == Phase::Finished {
            match progress.waiting {
                Waiting::Room => {}
                Waiting::Idle => self.end_in_order(cx, slot, End::Fin),
                Waiting::Rest => self.end_in_order(cx, slot, End::FinMidMessage),
            }
            return;
        }
        if self.owed_window(slot) >= self.config.grant_min() {
            self.streams.get_mut(slot).marks.set(Marks::GRANT);
            self.streams.mark_ready(slot);
        }
        if progress.waiting == Waiting::Rest {
            self.streams.get_mut(slot).marks.clear(Marks::STANDS_STILL);
            self.await_rest(cx.now, slot);
        } else if self.streams.timed(slot).is_some() {
            self.streams.disarm(slot);
        }
    }

    /// The rest of a message is due within half of the time that the backend has for it; see [`Patience`].
    fn await_rest(&mut self, now: Now, slot: u32) {
        let at = millis(now).add(half(self.config.stall_ms));
        self.streams.arm(slot, Timer::Stall, at);
    }

    /// Bytes that a stream's session has taken and its backend has not been given back.
    pub(super) fn owed_window(&self, slot: u32) -> u32 {
        let stream = self.streams.get(slot);
        let kept = u32::try_from(stream.inbound.kept()).unwrap_or(u32::MAX);
        self.config.window.saturating_sub(stream.recv_window).saturating_sub(kept)
    }

    /// The backend has ended it: tells the session, and closes our side as if the session had.
    fn end_in_order<F: FnMut(S, Event<'_>) -> bool>(
        &mut self,
        cx: &mut Cx<'_, F>,
        slot: u32,
        end: End,
    ) {
        let session = self.streams.get(slot).session;
        self.detach(cx.now, cx.pool, slot);
        (cx.sink)(session, Event::End(end));
    }

    /// We end it: tells the session and cuts the stream off.
    pub(super) fn end_with_reset<F: FnMut(S, Event<'_>) -> bool>(
        &mut self,
        cx: &mut Cx<'_, F>,
        slot: u32,
        end: End,
    ) {
        let stream = self.streams.get(slot);
        let (session, attached) = (stream.session, stream.is_attached());
        self.cut_off(cx.pool, slot);
        if attached {
            (cx.sink)(session, Event::End(end));
        }
    }

    /// Ends streams whose timers are due, up to a bound per call.
    pub(super) fn expire_streams<F: FnMut(S, Event<'_>) -> bool>(&mut self, cx: &mut Cx<'_, F>) {
        for timer in [Timer::Stall, Timer::Linger] {
            for _ in 0..EXPIRED_MAX {
                match self.streams.first_timed(timer) {
                    Some((slot, at)) if millis(cx.now).since(at) >= 0 => {
                        if timer == Timer::Linger || self.rest_is_overdue(cx.now, slot) {
                            self.end_with_reset(cx, slot, End::Stalled);
                        }
                    }
                    Some(_) | None => break,
                }
            }
        }
    }

    /// Whether the rest of a message has not come for as long as it may take: the first half of that is over, or the second. A
    /// backend that does not keep up with reading may have yet to read of the window that the rest needs: what the
    /// connection as a whole is waited for decides then.
    fn rest_is_overdue(&mut self, now: Now, slot: u32) -> bool {
        let marks = &mut self.streams.get_mut(slot).marks;
        if marks.has(Marks::STANDS_STILL) && self.stuck_since.is_none() {
            return true;
        }
        marks.set(Marks::STANDS_STILL);
        self.await_rest(now, slot);
        false
    }

    /// Takes the session off a stream: what it sent goes out, then a FIN.
    pub(super) fn detach(&mut self, now: Now, pool: &mut Pool, slot: u32) {
        let stream = self.streams.get_mut(slot);
        stream.inbound.clear(pool);
        stream.phase = Phase::Closing;
        self.streams.arm(slot, Timer::Linger, millis(now).add(self.config.linger_ms));
        self.streams.mark_ready(slot);
    }

    /// Takes the session off a stream and cuts it off.
    pub(super) fn cut_off(&mut self, pool: &mut Pool, slot: u32) {
        self.streams.disarm(slot);
        self.drop_backlog(pool, slot);
        let stream = self.streams.get_mut(slot);
        stream.phase = Phase::Aborting;
        self.streams.mark_ready(slot);
    }

    /// Forgets a stream.
    pub(super) fn free(&mut self, pool: &mut Pool, slot: u32) {
        self.drop_backlog(pool, slot);
        let stream = self.streams.get(slot);
        if !stream.marks.has(Marks::ACKED) {
            self.unacked.on_settled(stream.id);
        }
        self.streams.remove(slot);
    }

    fn drop_backlog(&mut self, pool: &mut Pool, slot: u32) {
        let stream = self.streams.get_mut(slot);
        stream.inbound.clear(pool);
        if !stream.outbound.is_empty() {
            stream.outbound.clear(pool);
            self.counters.messages_lost += 1;
        }
    }
}

/// Streams of each kind of timer that one call ends.
const EXPIRED_MAX: usize = 256;
