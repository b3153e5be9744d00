//! The control block: public API and control flow only.

use alloc::boxed::Box;

use crate::block::Block;
use crate::config::{FlushPolicy, KcpConfig};
use crate::congestion::Congestion;
use crate::error::{InputError, RecvError, SendError};
use crate::flush::{Clock, Stage};
use crate::grant::Grant;
use crate::probe::Probe;
use crate::rtt::Rtt;
use crate::segment::{InFlight, Tally};
use crate::send::SendSpace;
use crate::stats::Stats;
use crate::store::Store;
use crate::units::{Conv, Millis, Sn};
use crate::wire::HEADER_LEN;

/// What every call needs beside the session itself: its listener's settings and its shard's storage.
#[derive(Debug)]
pub struct Cx<'a> {
    /// The listener's settings.
    pub config: &'a KcpConfig,
    /// The shard's storage.
    pub store: &'a mut Store,
}

/// One end of a conversation.
///
/// The struct holds what an idle conversation needs; everything else is in a block taken from the [`Store`] while
/// there is something to send, to acknowledge or to reassemble. Always use a conversation with the same store, and
/// [`Kcp::reset`] it before dropping it.
#[derive(Debug)]
pub struct Kcp {
    pub(crate) conv: Conv,
    pub(crate) space: SendSpace,
    pub(crate) rcv_nxt: Sn,
    pub(crate) rtt: Rtt,
    pub(crate) congestion: Congestion,
    pub(crate) probe: Probe,
    pub(crate) resends: Resends,
    /// When the next flush of policy `Interval` is due; for `Turn`, one interval after the last flush.
    pub(crate) ts_flush: Millis,
    pub(crate) rmt_wnd: u16,
    pub(crate) stage: Stage,
    pub(crate) updated: bool,
    pub(crate) dead: bool,
    pub(crate) grant: Grant,
    pub(crate) block: Option<Box<Block>>,
}

/// A million idle sessions pay for every byte of this.
const _: () = assert!(size_of::<Kcp>() <= 88);

/// Segments of this conversation transmitted again. Wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resends {
    /// Because their timeout passed (the reference's `xmit`).
    pub timeout: u32,
    /// Because later ones were acknowledged.
    pub fast: u32,
}

/// Segments in each of the reference's queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLengths {
    /// Waiting for the window (`nsnd_que`).
    pub snd_queue: usize,
    /// In flight (`nsnd_buf`).
    pub snd_buf: usize,
    /// Received out of order (`nrcv_buf`).
    pub rcv_buf: usize,
    /// Received in order, unread (`nrcv_que`).
    pub rcv_queue: usize,
    /// Acknowledgements owed (`ackcount`).
    pub acks: usize,
}

/// What a conversation keeps of the store, and since when for a peer that may be the cause. Times are as far as was seen: at the
/// latest of when it was first asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Since when no message can be read of what was received, because the next segment is missing; `None` when one can be, or
    /// nothing is kept. Reading a message begins anew.
    pub unfinished: Option<Millis>,
    /// Since when the peer has not acknowledged all that was queued for it then; `None` when nothing is.
    pub unacknowledged: Option<Millis>,
    /// Segments.
    pub segments: usize,
    /// Bytes of the store for the queues themselves.
    pub queues: usize,
    /// Bytes for what is queued and in flight.
    pub sent: usize,
    /// Bytes for what was received in its turn.
    pub in_turn: usize,
    /// Bytes for what came early. A peer may have sent what is due before it, to a store without room.
    pub early: usize,
}

impl Kcp {
    /// A fresh conversation. Reference: `ikcp_create`.
    #[must_use]
    pub const fn new(conv: Conv) -> Self {
        Self::resume(conv, Sn(0), Sn(0))
    }

    /// A conversation whose numbering goes on where another left off: `snd_nxt` is the first number to be sent, `rcv_nxt` the
    /// first expected. Nothing is in flight.
    #[must_use]
    pub const fn resume(conv: Conv, snd_nxt: Sn, rcv_nxt: Sn) -> Self {
        Self {
            conv,
            space: SendSpace { una: snd_nxt, nxt: snd_nxt },
            rcv_nxt,
            rtt: Rtt::new(),
            congestion: Congestion::new(),
            probe: Probe::new(),
            resends: Resends { timeout: 0, fast: 0 },
            ts_flush: Millis(0),
            rmt_wnd: RMT_WND_DEF,
            stage: Stage::Idle,
            updated: false,
            dead: false,
            grant: Grant::Window,
            block: None,
        }
    }

    /// Takes one datagram from the peer. Reference: `ikcp_input`.
    ///
    /// `deliver` is offered each in-order single-fragment message (of a stream: each in-order piece) straight out of the
    /// datagram while nothing is queued ahead of it; `true` means taken, as if [`Kcp::recv`] had returned it at once.
    /// Refused messages and all others are queued for [`Kcp::recv`].
    ///
    /// `now` serves the round-trip samples; the reference uses the time of its last update instead.
    ///
    /// # Errors
    /// The rule the datagram broke. With `strict` nothing was changed; otherwise earlier segments stay applied, as in
    /// the reference.
    pub fn handle_datagram(
        &mut self,
        cx: &mut Cx<'_>,
        now: Millis,
        datagram: &[u8],
        deliver: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), InputError> {
        let result = self.apply_datagram(cx, now, datagram, deliver);
        self.release_if_empty(cx);
        result
    }

    /// Tells that time has passed: starts a flush when one is due (policy `Interval`) or in any case (policy `Turn`).
    /// Reference: `ikcp_update`.
    ///
    /// A clock that jumped by 10 s or more, either way, restarts the interval.
    pub fn handle_timeout(&mut self, cx: &mut Cx<'_>, now: Millis) {
        if cx.config.flush == FlushPolicy::Turn {
            return self.flush(cx, now);
        }
        if !self.updated {
            self.updated = true;
            self.ts_flush = now;
        }
        let mut late = now.since(self.ts_flush);
        if !(-RESYNC_MS..RESYNC_MS).contains(&late) {
            self.ts_flush = now;
            late = 0;
        }
        if late < 0 {
            return;
        }
        self.ts_flush = self.ts_flush.add(cx.config.interval);
        if now.since(self.ts_flush) >= 0 {
            self.ts_flush = now.add(cx.config.interval);
        }
        self.stage = Stage::Asked;
    }

    /// Asks for a flush now, whatever the interval clock says. Reference: `ikcp_flush`; with policy `Interval` it likewise does
    /// nothing before the first [`Kcp::handle_timeout`].
    ///
    /// Whether probes leave and older segments are looked at is decided when [`Kcp::poll_transmit`] is called first; acks and
    /// messages may come in between. A flush that was not drained is taken up again, together with what came since.
    pub fn flush(&mut self, cx: &mut Cx<'_>, now: Millis) {
        match cx.config.flush {
            FlushPolicy::Interval => {
                if !self.updated {
                    return;
                }
            }
            FlushPolicy::Turn => self.ts_flush = now.add(cx.config.interval),
        }
        self.stage = Stage::Asked;
    }

    /// Queues a message (message mode) or bytes (stream mode). Returns the bytes queued: all of a message; of a stream
    /// possibly fewer, when the rest is too long for one call or the store is full. Reference: `ikcp_send`.
    ///
    /// There is no back-pressure here: bound [`Kcp::wait_snd`]. An empty message is a message (the peer receives it as
    /// such); no bytes of a stream are nothing.
    ///
    /// # Errors
    /// Nothing was queued.
    #[inline(always)] // the straight line only; the rest is apart
    pub fn send(&mut self, cx: &mut Cx<'_>, message: &[u8]) -> Result<usize, SendError> {
        if message.len() <= cx.config.mss() as usize
            && !cx.config.stream
            && let Some(block) = self.block.as_deref_mut()
            && block.send.append_recycled(self.space, message, 0, cx.store)
        {
            return Ok(message.len());
        }
        self.send_rare(cx, message)
    }

    /// Sends what takes several fragments, or memory that was not used before.
    #[inline(never)] // beside the straight line
    fn send_rare(&mut self, cx: &mut Cx<'_>, message: &[u8]) -> Result<usize, SendError> {
        let Some(block) = cx.store.block(&mut self.block) else { return Err(SendError::StoreFull) };
        let result = block.send.push(self.space, message, cx.config, cx.store);
        self.release_if_empty(cx);
        result
    }

    /// Writes the next datagram of a started flush into `buf` and returns its length; `None` when the flush is complete.
    ///
    /// `buf` holds at least [`Kcp::transmit_len`] bytes: the mtu, unless a larger mtu was set when data was queued that has
    /// not left yet. With a smaller one the flush ends before the first segment that does not fit; that and all later
    /// ones stay queued for the next flush.
    #[inline]
    pub fn poll_transmit(&mut self, cx: &mut Cx<'_>, now: Millis, buf: &mut [u8]) -> Option<usize> {
        self.poll_transmit_heard(cx, now, now, buf)
    }

    /// As [`Kcp::poll_transmit`], for a caller that is behind: it has passed on all that arrived until `heard`, which is not after
    /// `now`, and perhaps not all that arrived since. A timeout that passed after `heard` causes no resend yet, for the
    /// acknowledgement may be among what is still to come.
    ///
    /// [`Kcp::poll_timeout`] tells of such a timeout as due: look at it again when `heard` has moved on.
    #[inline]
    pub fn poll_transmit_heard(
        &mut self,
        cx: &mut Cx<'_>,
        now: Millis,
        heard: Millis,
        buf: &mut [u8],
    ) -> Option<usize> {
        if self.stage == Stage::Idle {
            return None;
        }
        let len = self.fill(cx, Clock { now, heard }, buf, cx.config.mtu as usize);
        (len > 0).then_some(len)
    }

    /// Bytes that [`Kcp::poll_transmit`] needs to make progress. Looks at every queued segment: meant for after the mtu
    /// was lowered.
    #[must_use]
    pub fn transmit_len(&self, config: &KcpConfig) -> usize {
        let longest = self.block.as_deref().map_or(0, |block| block.send.longest(self.space));
        (config.mtu as usize).max(HEADER_LEN + longest)
    }

    /// Copies the next whole message into `buf`. Reference: `ikcp_recv`.
    ///
    /// # Errors
    /// Nothing was consumed.
    pub fn recv(&mut self, cx: &mut Cx<'_>, buf: &mut [u8]) -> Result<usize, RecvError> {
        let len = self.copy_message(buf)?;
        self.consume(cx);
        Ok(len)
    }

    /// Hands the next whole message to `fragment`, one fragment after the other, without copying it together. Returns
    /// the message's length. Reference: `ikcp_recv`.
    ///
    /// # Errors
    /// Nothing was consumed, `fragment` was not called.
    pub fn recv_with(
        &mut self,
        cx: &mut Cx<'_>,
        fragment: impl FnMut(&[u8]),
    ) -> Result<usize, RecvError> {
        let len = self.message_len()?;
        if let Some(block) = self.block.as_deref() {
            block.recv.message().for_each(fragment);
        }
        self.consume(cx);
        Ok(len)
    }

    /// Copies the next whole message into `buf` and leaves it queued. Reference: `ikcp_recv` with a negative length, which also
    /// makes readable what a window enlarged since allows.
    ///
    /// # Errors
    /// As [`Kcp::recv`].
    pub fn peek(&mut self, cx: &Cx<'_>, buf: &mut [u8]) -> Result<usize, RecvError> {
        let len = self.copy_message(buf)?;
        if let Some(block) = self.block.as_deref_mut() {
            block.recv.promote(&mut self.rcv_nxt, cx.config.rcv_wnd);
        }
        Ok(len)
    }

    /// Size in bytes of the next whole message. Reference: `ikcp_peeksize`.
    #[must_use]
    pub fn peek_size(&self) -> Option<usize> {
        self.block.as_deref()?.recv.peek_size()
    }

    /// Returns all storage; the conversation is as new afterwards.
    pub fn reset(&mut self, store: &mut Store) {
        if let Some(mut block) = self.block.take() {
            block.send.clear(&mut self.space, store);
            block.recv.clear(store);
            block.acks.clear();
            store.give_back_block(block);
        }
        *self = Self::new(self.conv);
    }

    /// The conversation id.
    #[must_use]
    pub const fn conv(&self) -> Conv {
        self.conv
    }

    /// Segments queued or in flight. Reference: `ikcp_waitsnd`.
    #[must_use]
    pub fn wait_snd(&self) -> usize {
        let block = self.block.as_deref();
        block.map_or(0, |block| block.send.len(self.space))
    }

    /// A segment was sent `dead_link` times without an answer. Reference: `state == -1`; sending goes on there and here.
    #[must_use]
    pub const fn is_dead(&self) -> bool {
        self.dead
    }

    /// Nothing queued, in flight, to acknowledge or to probe: the session holds no storage and has no deadline.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.block.is_none() && !self.probe.pending()
    }

    /// The oldest number not acknowledged by the peer.
    #[must_use]
    pub const fn snd_una(&self) -> Sn {
        self.space.una
    }

    /// Reads a little of all that the next datagram will need beside this struct itself, where there is data in flight. Whoever
    /// serves many conversations and looks at several in advance has their cache misses overlap. The result means nothing.
    #[must_use]
    pub fn look_ahead(&self) -> u32 {
        self.block.as_ref().map_or(0, |block| block.look_ahead(self.space))
    }

    /// The number that the next admitted segment gets.
    #[must_use]
    pub const fn snd_nxt(&self) -> Sn {
        self.space.nxt
    }

    /// The number expected next from the peer.
    #[must_use]
    pub const fn rcv_nxt(&self) -> Sn {
        self.rcv_nxt
    }

    /// Free slots in the peer's receive queue, as told last.
    #[must_use]
    pub const fn rmt_wnd(&self) -> u32 {
        self.rmt_wnd as u32
    }

    /// Smoothed round-trip time in milliseconds; 0 before the first sample.
    #[must_use]
    pub const fn srtt(&self) -> u32 {
        self.rtt.srtt()
    }

    /// Smoothed deviation of the round-trip time in milliseconds.
    #[must_use]
    pub const fn rttval(&self) -> u32 {
        self.rtt.rttval()
    }

    /// Retransmission timeout in milliseconds, 60,000 at most.
    #[must_use]
    pub const fn rto(&self) -> u32 {
        self.rtt.rto()
    }

    /// Congestion window in segments.
    #[must_use]
    pub const fn cwnd(&self) -> u32 {
        self.congestion.cwnd()
    }

    /// Slow-start threshold in segments.
    #[must_use]
    pub const fn ssthresh(&self) -> u32 {
        self.congestion.ssthresh()
    }

    /// Congestion window in bytes, the fraction that has not become a segment included.
    #[must_use]
    pub const fn incr(&self) -> u32 {
        self.congestion.incr()
    }

    /// The interval clock (`ts_flush`).
    #[must_use]
    pub const fn ts_flush(&self) -> Millis {
        self.ts_flush
    }

    /// The window probe's timer, its wait in milliseconds and the pending commands (`ts_probe`, `probe_wait`, `probe`).
    #[must_use]
    pub const fn probe(&self) -> (Millis, u32, u8) {
        self.probe.raw()
    }

    /// Segments transmitted again.
    #[must_use]
    pub const fn resends(&self) -> Resends {
        self.resends
    }

    /// Segments in each queue.
    #[must_use]
    pub fn queue_lengths(&self) -> QueueLengths {
        let Some(block) = self.block.as_deref() else { return QueueLengths::default() };
        QueueLengths {
            snd_queue: block.send.queued(),
            snd_buf: block.send.unacked(self.space),
            rcv_buf: block.recv.waiting() as usize,
            rcv_queue: block.recv.ready() as usize,
            acks: block.acks.len(),
        }
    }

    /// Payload bytes queued to be sent and in flight: what a caller with a budget bounds before [`Kcp::send`].
    #[inline]
    #[must_use]
    pub fn send_bytes(&self) -> usize {
        self.block.as_deref().map_or(0, |block| block.send.payload_bytes())
    }

    /// Payload bytes queued to be sent, in flight, and received but unread. Walks the receive queue.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        let block = self.block.as_deref();
        block.map_or(0, |block| block.send.payload_bytes() + block.recv.payload_bytes())
    }

    /// What is kept of the store; `None` while nothing is. Walks all queues.
    pub fn kept(&mut self, now: Millis) -> Option<Kept> {
        let block = self.block.as_deref_mut()?;
        let (received, in_turn) = block.recv.memory();
        Some(Kept {
            unfinished: block.recv.unfinished_since(now),
            unacknowledged: block.send.unacknowledged_since(self.space, now),
            segments: block.recv.segments() + block.send.len(self.space),
            queues: block.bytes(),
            sent: block.send.memory(self.space),
            in_turn,
            early: received - in_turn,
        })
    }

    /// The segments in flight, oldest first.
    pub fn in_flight(&self) -> impl Iterator<Item = InFlight> {
        self.block.as_deref().into_iter().flat_map(|block| block.send.in_flight(self.space))
    }

    /// Gives the block back once nothing is left in it.
    #[inline]
    pub(crate) fn release_if_empty(&mut self, cx: &mut Cx<'_>) {
        if self.stage == Stage::Idle
            && self.block.as_deref().is_some_and(|block| block.is_empty(self.space))
            && let Some(block) = self.block.take()
        {
            cx.store.give_back_block(block);
        }
    }

    /// Segments waiting for the window.
    #[inline]
    pub(crate) fn queued_segments(&self) -> usize {
        self.block.as_deref().map_or(0, |block| block.send.queued())
    }

    fn message_len(&self) -> Result<usize, RecvError> {
        let recv = self.block.as_deref().map(|block| &block.recv).filter(|recv| recv.ready() > 0);
        recv.ok_or(RecvError::Empty)?.peek_size().ok_or(RecvError::Incomplete)
    }

    fn copy_message(&self, buf: &mut [u8]) -> Result<usize, RecvError> {
        let needed = self.message_len()?;
        let Some(mut rest) = buf.get_mut(..needed) else {
            return Err(RecvError::BufferTooSmall { needed });
        };
        if let Some(block) = self.block.as_deref() {
            for fragment in block.recv.message() {
                let Some((room, behind)) = rest.split_at_mut_checked(fragment.len()) else { break };
                room.copy_from_slice(fragment);
                rest = behind;
            }
        }
        Ok(needed)
    }

    /// Removes the next message and tells the peer when that reopened a closed window.
    fn consume(&mut self, cx: &mut Cx<'_>) {
        let Some(block) = self.block.as_deref_mut() else { return };
        let rcv_wnd = cx.config.rcv_wnd;
        let was_closed = block.recv.ready() >= rcv_wnd;
        block.recv.consume(cx.store);
        block.recv.promote(&mut self.rcv_nxt, rcv_wnd);
        let is_open = block.recv.ready() < rcv_wnd;
        if (was_closed && is_open) || self.grant.reopens(&block.recv, cx.config, cx.store) {
            self.probe.tell();
        }
        self.release_if_empty(cx);
    }
}

impl Resends {
    #[cold]
    pub(crate) fn add(&mut self, tally: &Tally, stats: &mut Stats) {
        self.timeout = self.timeout.wrapping_add(tally.timeout);
        self.fast = self.fast.wrapping_add(tally.fast);
        stats.resends_timeout += u64::from(tally.timeout);
        stats.resends_fast += u64::from(tally.fast);
    }
}

/// The peer's window before it told one.
const RMT_WND_DEF: u16 = 128;

/// A clock this far off the interval clock, in milliseconds, has jumped.
pub(crate) const RESYNC_MS: i32 = 10_000;
