//! The send queue and the in-flight buffer: fragmenting, removal by una and ack, fast-ack counts, what is due.
//!
//! Both are one deque. Its first `space.numbered()` segments have numbers, `snd_una` onwards without a gap (the
//! reference's `snd_buf`); the rest wait for the window (`snd_queue`). So admitting a segment moves nothing, and a
//! number is found by subtraction. A segment acknowledged out of turn gives its payload back at once and stays as a hole
//! until everything before it is acknowledged.

use alloc::collections::VecDeque;

use crate::config::KcpConfig;
use crate::error::SendError;
use crate::flush::{Datagram, Full};
use crate::segment::{InFlight, Rules, Segment, Tally};
use crate::stats::Stats;
use crate::store::Store;
use crate::units::{Millis, Sn};

/// The numbers in use by our side: `una` is the oldest unacknowledged, `nxt` the next to be given out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendSpace {
    pub(crate) una: Sn,
    pub(crate) nxt: Sn,
}

impl SendSpace {
    /// Numbers given out and not below `una`, holes included.
    #[inline]
    pub(crate) const fn numbered(self) -> u32 {
        self.nxt.0.wrapping_sub(self.una.0)
    }
}

/// Everything this side sent or wants to send.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    segments: VecDeque<Segment>,
    /// Numbered segments acknowledged out of turn.
    holes: u32,
    /// Numbered segments at the end of the in-flight part that were never transmitted.
    fresh: u32,
    /// Payload bytes queued or in flight.
    payload_bytes: usize,
    due: DueBound,
}

/// What a flush may conclude without looking at the in-flight segments.
#[derive(Clone, Copy, Debug, Default)]
struct DueBound {
    /// No transmitted segment's timeout passes before this; `None` without such segments.
    earliest: Option<Millis>,
    /// A timeout has backed off so far that it may not be compared with the others: always look.
    far: bool,
    /// No segment has a higher fast-ack count than this.
    fastack: u32,
}

impl Sender {
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Segments queued or in flight and not acknowledged.
    pub(crate) fn len(&self) -> usize {
        self.segments.len() - self.holes as usize
    }

    /// Segments in flight and not acknowledged (`nsnd_buf`).
    pub(crate) const fn unacked(&self, space: SendSpace) -> usize {
        (space.numbered() - self.holes) as usize
    }

    /// Segments without a number (`nsnd_que`).
    #[inline]
    pub(crate) fn queued(&self, space: SendSpace) -> usize {
        self.segments.len() - space.numbered() as usize
    }

    /// Numbered segments wait to be transmitted for the first time.
    #[inline]
    pub(crate) const fn has_fresh(&self) -> bool {
        self.fresh > 0
    }

    /// Bytes of the deque's own memory.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.segments.capacity() * size_of::<Segment>()
    }

    /// Payload bytes queued or in flight.
    pub(crate) const fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Clears what an emptied sender remembers of its session.
    #[inline]
    pub(crate) fn forget(&mut self) {
        self.holes = 0;
        self.fresh = 0;
        self.payload_bytes = 0;
        self.due = DueBound::default();
    }

    /// Gives everything back.
    pub(crate) fn clear(&mut self, store: &mut Store) {
        for segment in self.segments.drain(..) {
            store.give_back(segment.fragment);
        }
        self.forget();
    }

    /// Queues a message, or stream bytes, cut at the mss. Reference: `ikcp_send`.
    #[inline]
    pub(crate) fn push(
        &mut self,
        space: SendSpace,
        bytes: &[u8],
        config: &KcpConfig,
        store: &mut Store,
    ) -> Result<usize, SendError> {
        let mss = config.mss() as usize;
        if bytes.len() <= mss && !config.stream {
            let queued = self.append(bytes, 0, store);
            return if queued { Ok(bytes.len()) } else { Err(SendError::StoreFull) };
        }
        self.push_fragments(space, bytes, config, store)
    }

    #[inline(never)] // beside the straight line of a single fragment
    fn push_fragments(
        &mut self,
        space: SendSpace,
        bytes: &[u8],
        config: &KcpConfig,
        store: &mut Store,
    ) -> Result<usize, SendError> {
        let mss = config.mss() as usize;
        let mut taken = 0;
        if config.stream {
            taken = self.extend_tail(space, bytes, mss, store)?;
            if taken == bytes.len() {
                return Ok(taken);
            }
        }
        let rest = &bytes[taken..];
        let count = rest.len().div_ceil(mss).max(1);
        if count >= FRAGMENTS_MAX {
            return if taken > 0 { Ok(taken) } else { Err(SendError::TooLong) };
        }
        let before = self.segments.len();
        for left in (0..count).rev() {
            let from = (count - 1 - left) * mss;
            let piece = &rest[from..rest.len().min(from + mss)];
            // At most 126 fragments follow the first.
            let frg = if config.stream { 0 } else { u8::try_from(left).unwrap_or(u8::MAX) };
            if !self.append(piece, frg, store) {
                return self.undo(before, taken, config.stream, store);
            }
            taken += piece.len();
        }
        Ok(taken)
    }

    /// Numbers as many queued segments as fit `window`, so that a flush sends them.
    #[inline]
    pub(crate) fn admit(&mut self, space: &mut SendSpace, window: u32) {
        let numbered = space.numbered();
        let room = window.wrapping_sub(numbered);
        // Signed, as `_itimediff(snd_nxt, snd_una + cwnd) < 0` is: a window that shrank admits nothing.
        if room.cast_signed() <= 0 {
            return;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the minimum of two is at most the 32-bit one"
        )]
        let count = self.queued(*space).min(room as usize) as u32;
        space.nxt = space.nxt.add(count);
        self.fresh += count;
    }

    /// Removes everything before `una`. Reference: `ikcp_parse_una`, `ikcp_shrink_buf`.
    #[inline]
    pub(crate) fn on_una(&mut self, space: &mut SendSpace, una: Sn, store: &mut Store) {
        let ahead = una.since(space.una);
        if ahead > 0 {
            self.remove_front(space, ahead.cast_unsigned(), store);
        }
    }

    /// Removes the segment `sn`, if it is in flight. Reference: `ikcp_parse_ack`, `ikcp_shrink_buf`.
    #[inline]
    pub(crate) fn on_ack(&mut self, space: &mut SendSpace, sn: Sn, store: &mut Store) {
        // Most often `una` has removed it already.
        if let Some(index) = index_of(*space, sn) {
            self.remove(space, index, store);
        }
    }

    /// Counts an acknowledgement of a later segment, sent at `ts` or after, against everything before `sn`. No work in
    /// the ordinary case that `sn` is not ahead of a hole. Reference: `ikcp_parse_fastack`.
    #[inline]
    pub(crate) fn on_fastack(&mut self, space: SendSpace, sn: Sn, ts: Millis) {
        let Some(index) = index_of(space, sn) else { return };
        for segment in self.segments.range_mut(..index) {
            if !segment.acked && ts.since(segment.ts) >= 0 {
                segment.fastack = segment.fastack.saturating_add(1);
                self.due.fastack = self.due.fastack.max(segment.fastack);
            }
        }
    }

    /// Whether a flush at `now` must look at segments that were transmitted before.
    #[inline]
    pub(crate) fn must_scan(&self, now: Millis, resent: u32) -> bool {
        let timed_out = self.due.earliest.is_some_and(|earliest| now.since(earliest) >= 0);
        timed_out || self.due.fastack >= resent || self.due.far
    }

    /// Forgets the bounds; a scan that visits every in-flight segment builds them anew.
    pub(crate) fn begin_scan(&mut self) {
        self.due = DueBound::default();
    }

    /// The in-flight segments, oldest first, with their numbers; holes left out.
    pub(crate) fn in_flight(&self, space: SendSpace) -> impl Iterator<Item = InFlight> {
        let numbered = self.segments.iter().take(space.numbered() as usize);
        let unacked = (0..).zip(numbered).filter(|(_, segment)| !segment.acked);
        unacked.map(move |(offset, segment)| segment.in_flight(space.una.add(offset)))
    }

    /// Writes what was never transmitted, to be repeated after the timeout `(rto, wait)`.
    ///
    /// Inlined so that the datagram's position stays in registers (measured: 5 % of a round trip's instructions).
    ///
    /// # Errors
    /// `out` is full; the next segment is as it was.
    #[inline(always)]
    pub(crate) fn transmit_fresh(
        &mut self,
        space: SendSpace,
        now: Millis,
        timeout: (u32, u32),
        stats: &mut Stats,
        out: &mut Datagram<'_>,
    ) -> Result<(), Full> {
        let before = self.fresh;
        let mut filled = Ok(());
        while self.fresh > 0 {
            let sn = Sn(space.nxt.0.wrapping_sub(self.fresh));
            let index = (space.numbered() - self.fresh) as usize;
            let Some(segment) = self.segments.get_mut(index) else { break };
            // A forged ack may have come before the segment left.
            if !segment.acked {
                filled = segment.emit_first(sn, now, timeout, out);
                if filled.is_err() {
                    break;
                }
            }
            self.fresh -= 1;
        }
        if before > self.fresh {
            stats.segments_sent += u64::from(before - self.fresh);
            self.due.include_time(now.add(timeout.1));
        }
        filled
    }

    /// Writes again what is due, from `cursor` on and before the first segment never transmitted; moves `cursor` behind
    /// what was looked at and builds the bounds anew.
    ///
    /// # Errors
    /// `out` is full; the segment at `cursor` is as it was.
    pub(crate) fn retransmit(
        &mut self,
        space: SendSpace,
        cursor: &mut Sn,
        now: Millis,
        rules: &Rules,
        tally: &mut Tally,
        out: &mut Datagram<'_>,
    ) -> Result<(), Full> {
        // Input between two calls may have moved the window past the cursor.
        let mut sn = if cursor.since(space.una) < 0 { space.una } else { *cursor };
        let end = (space.numbered() - self.fresh) as usize;
        let start = (sn.0.wrapping_sub(space.una.0) as usize).min(end);
        let mut filled = Ok(());
        for segment in self.segments.range_mut(start..end) {
            if !segment.acked {
                filled = segment.emit_again(sn, now, rules, tally, out);
                if filled.is_err() {
                    break;
                }
                self.due.include(segment, now);
            }
            sn = sn.add(1);
        }
        *cursor = sn;
        filled
    }

    /// A time before which no in-flight segment times out; `None` with nothing transmitted and unacknowledged.
    ///
    /// It may be early (the segment it came from may be acknowledged by now); the flush at that time corrects it.
    pub(crate) fn earliest_resend(&self, now: Millis, interval: u32) -> Option<Millis> {
        if self.due.far { Some(now.add(interval)) } else { self.due.earliest }
    }

    /// Largest payload of a numbered or queued segment.
    pub(crate) fn longest(&self) -> usize {
        self.segments.iter().map(|segment| segment.fragment.len()).max().unwrap_or(0)
    }

    /// Removes the first `count` numbered segments, and the holes that come to the front by that.
    #[inline(always)] // once per datagram that acknowledges
    fn remove_front(&mut self, space: &mut SendSpace, count: u32, store: &mut Store) {
        let mut removed = count.min(space.numbered());
        for _ in 0..removed {
            self.pop_front(store);
        }
        while self.holes > 0 && self.segments.front().is_some_and(|segment| segment.acked) {
            self.segments.pop_front();
            self.holes -= 1;
            removed += 1;
        }
        space.una = space.una.add(removed);
        let numbered = space.numbered();
        if numbered == 0 {
            self.due = DueBound::default();
        }
        // A forged una may remove what was numbered but not yet written.
        self.fresh = self.fresh.min(numbered);
    }

    /// Removes the first segment. Kept apart from the loop: most often there is just one.
    #[inline(never)]
    fn pop_front(&mut self, store: &mut Store) {
        let Some(segment) = self.segments.pop_front() else { return };
        self.payload_bytes -= segment.fragment.len();
        self.holes -= u32::from(segment.acked);
        store.give_back(segment.fragment);
    }

    /// Removes the numbered segment at `index`. Away from the front it leaves a hole: the payload is given back at once, its
    /// place in the order stays.
    #[inline(never)] // beside the straight line
    fn remove(&mut self, space: &mut SendSpace, index: usize, store: &mut Store) {
        if index == 0 {
            return self.remove_front(space, 1, store);
        }
        if let Some(segment) = self.segments.get_mut(index)
            && !segment.acked
        {
            segment.acked = true;
            self.holes += 1;
            let fragment = core::mem::take(&mut segment.fragment);
            self.payload_bytes -= fragment.len();
            store.give_back(fragment);
        }
    }

    /// Stream mode: fills the last queued segment up. Even no bytes make it the end of its message, as in the reference.
    fn extend_tail(
        &mut self,
        space: SendSpace,
        bytes: &[u8],
        mss: usize,
        store: &mut Store,
    ) -> Result<usize, SendError> {
        if self.queued(space) == 0 {
            return Ok(0);
        }
        let Some(tail) = self.segments.back_mut().filter(|tail| tail.fragment.len() < mss) else {
            return Ok(0);
        };
        let count = bytes.len().min(mss - tail.fragment.len());
        if !tail.fragment.extend(&bytes[..count], store) {
            return Err(SendError::StoreFull);
        }
        tail.fragment.end_message();
        self.payload_bytes += count;
        Ok(count)
    }

    #[inline(always)] // two callers, one of them the straight line
    fn append(&mut self, piece: &[u8], frg: u8, store: &mut Store) -> bool {
        if self.segments.len() == self.segments.capacity() && !self.grow(store) {
            return false;
        }
        let Some(fragment) = store.keep(piece, frg) else { return false };
        self.segments.push_back(Segment::new(fragment));
        self.payload_bytes += piece.len();
        true
    }

    /// A message is queued whole or not at all; of a stream, what was taken stays.
    #[cold]
    fn undo(
        &mut self,
        before: usize,
        taken: usize,
        stream: bool,
        store: &mut Store,
    ) -> Result<usize, SendError> {
        if stream && taken > 0 {
            return Ok(taken);
        }
        for segment in self.segments.drain(before..) {
            self.payload_bytes -= segment.fragment.len();
            store.give_back(segment.fragment);
        }
        Err(SendError::StoreFull)
    }

    #[cold]
    fn grow(&mut self, store: &mut Store) -> bool {
        let more = self.segments.capacity().max(SEGMENTS_FIRST);
        let booked = more * size_of::<Segment>();
        if !store.book(booked) {
            return false;
        }
        let before = self.heap_bytes();
        self.segments.reserve_exact(more);
        store.rebook(booked, self.heap_bytes() - before);
        true
    }
}

impl DueBound {
    #[inline]
    fn include_time(&mut self, resendts: Millis) {
        if self.earliest.is_none_or(|at| resendts.since(at) < 0) {
            self.earliest = Some(resendts);
        }
    }

    fn include(&mut self, segment: &Segment, now: Millis) {
        self.include_time(segment.resendts);
        self.far |= segment.resendts.0.wrapping_sub(now.0) > FAR_MS;
        self.fastack = self.fastack.max(segment.fastack);
    }
}

/// The place of `sn` in the deque, if it is numbered.
#[inline]
const fn index_of(space: SendSpace, sn: Sn) -> Option<usize> {
    let offset = sn.0.wrapping_sub(space.una.0);
    if offset < space.numbered() { Some(offset as usize) } else { None }
}

/// A message of this many fragments is refused: one less always fits the smallest receive window of a stock peer.
pub(crate) const FRAGMENTS_MAX: usize = 128;

/// Segments a deque starts with.
const SEGMENTS_FIRST: usize = 4;

/// A timeout further ahead than this (12 days) may compare wrongly with one far behind it.
const FAR_MS: u32 = 1 << 30;
