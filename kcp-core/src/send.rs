//! The send queue and the in-flight buffer: fragmenting, removal by una and ack, fast-ack counts, what is due.
//!
//! Both are one ring. The segments `snd_una .. snd_nxt` are in flight (the reference's `snd_buf`), as many as are queued
//! behind them wait for the window (`snd_queue`); a segment is numbered when it is transmitted first, and lies already where
//! that number belongs. So numbering moves nothing, and a number is found at once. A segment acknowledged out of turn
//! gives its payload back at once and stays as a hole until everything before it is acknowledged.

use crate::config::KcpConfig;
use crate::datagram::{Datagram, Full};
use crate::error::SendError;
use crate::ring::Ring;
use crate::segment::{InFlight, Rules, Segment, Tally};
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

    /// Whether `sn` is one of them.
    #[inline]
    pub(crate) const fn contains(self, sn: Sn) -> bool {
        sn.0.wrapping_sub(self.una.0) < self.numbered()
    }
}

/// Everything this side sent or wants to send.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    ring: Ring,
    /// Segments behind `snd_nxt`, without a number (`nsnd_que`).
    queued: u32,
    /// Numbered segments acknowledged out of turn.
    holes: u32,
    /// Payload bytes queued or in flight.
    payload_bytes: usize,
    due: DueBound,
    /// When somebody first saw something here, and the number behind all that was here then; begun anew when that much was acknowledged.
    seen: Option<(Millis, Sn)>,
}

/// What a flush may conclude without looking at the in-flight segments. Means nothing while none is in flight.
#[derive(Clone, Copy, Debug, Default)]
struct DueBound {
    /// No segment's timeout passes before this.
    earliest: Millis,
    /// A timeout has backed off so far that it may not be compared with the others: always look.
    far: bool,
    /// No segment has a higher fast-ack count than this.
    fastack: u32,
}

impl Sender {
    /// Nothing queued or in flight.
    #[inline]
    pub(crate) const fn is_empty(&self, space: SendSpace) -> bool {
        self.queued == 0 && space.numbered() == 0
    }

    /// Reads a little of the oldest segment in flight.
    #[inline]
    pub(crate) fn look_ahead(&self, space: SendSpace) -> u32 {
        self.ring.get(space.una).map_or(0, |segment| segment.resendts.0)
    }

    /// Segments queued or in flight and not acknowledged.
    pub(crate) const fn len(&self, space: SendSpace) -> usize {
        self.unacked(space) + self.queued()
    }

    /// Segments in flight and not acknowledged (`nsnd_buf`).
    pub(crate) const fn unacked(&self, space: SendSpace) -> usize {
        (space.numbered() - self.holes) as usize
    }

    /// Segments without a number (`nsnd_que`).
    pub(crate) const fn queued(&self) -> usize {
        self.queued as usize
    }

    /// Bytes of the ring's own memory.
    pub(crate) const fn heap_bytes(&self) -> usize {
        self.ring.heap_bytes()
    }

    /// Payload bytes queued or in flight.
    pub(crate) const fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Memory of all segments.
    pub(crate) fn memory(&self, space: SendSpace) -> usize {
        let numbers = (0..space.numbered() + self.queued).map(|n| space.una.add(n));
        numbers.filter_map(|sn| self.ring.get(sn)).map(|segment| segment.fragment.memory()).sum()
    }

    /// Notes what is here at `now`, unless something is left of what was here when that was noted last.
    pub(crate) fn see(&mut self, space: SendSpace, now: Millis) {
        if self.seen.is_none_or(|(_, end)| space.una.since(end) >= 0) {
            self.seen = (!self.is_empty(space)).then(|| (now, space.nxt.add(self.queued)));
        }
    }

    /// Since when a peer has not acknowledged all that was here then, as far as was seen; `None` when nothing is here.
    pub(crate) fn unacknowledged_since(&mut self, space: SendSpace, now: Millis) -> Option<Millis> {
        self.see(space, now);
        self.seen.map(|(since, _)| since)
    }

    /// What was seen was another conversation's.
    pub(crate) const fn forget(&mut self) {
        self.seen = None;
    }

    /// Gives everything back.
    pub(crate) fn clear(&mut self, space: &mut SendSpace, store: &mut Store) {
        self.unqueue(*space, 0, store);
        self.remove_front(space, space.nxt, store);
    }

    /// Queues a message, or stream bytes, cut at the mss. Reference: `ikcp_send`.
    pub(crate) fn push(
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
        let before = self.queued;
        for left in (0..count).rev() {
            let from = (count - 1 - left) * mss;
            let piece = &rest[from..rest.len().min(from + mss)];
            // At most 126 fragments follow the first.
            let frg = if config.stream { 0 } else { u8::try_from(left).unwrap_or(u8::MAX) };
            if self.append(space, piece, frg, store) {
                taken += piece.len();
            } else if config.stream && taken > 0 {
                return Ok(taken);
            } else {
                // A message is queued whole or not at all.
                self.unqueue(space, before, store);
                return Err(SendError::StoreFull);
            }
        }
        Ok(taken)
    }

    /// Removes everything before `una`. Reference: `ikcp_parse_una`, `ikcp_shrink_buf`.
    #[inline]
    pub(crate) fn on_una(&mut self, space: &mut SendSpace, una: Sn, store: &mut Store) {
        if una.since(space.una) > 0 {
            self.remove_front(space, una, store);
        }
    }

    /// Removes everything before `una`, and the segment `sn` if it is in flight. Reference: also `ikcp_parse_ack`.
    #[inline]
    pub(crate) fn on_una_and_ack(
        &mut self,
        space: &mut SendSpace,
        una: Sn,
        sn: Sn,
        store: &mut Store,
    ) {
        if una.since(space.una) <= 0 {
            if space.contains(sn) {
                self.remove(space, sn, store);
            }
        } else if sn.since(una) < 0 {
            self.remove_front(space, una, store);
        } else {
            self.remove_front_and(space, una, sn, store);
        }
    }

    #[inline(never)] // beside the straight line: most often `una` is past `sn`
    fn remove_front_and(&mut self, space: &mut SendSpace, una: Sn, sn: Sn, store: &mut Store) {
        self.remove_front(space, una, store);
        if space.contains(sn) {
            self.remove(space, sn, store);
        }
    }

    /// Counts an acknowledgement of a later segment, sent at `ts` or after, against everything before `sn`. No work in
    /// the ordinary case that `sn` is not ahead of a hole. Reference: `ikcp_parse_fastack`.
    #[inline]
    pub(crate) fn on_fastack(&mut self, space: SendSpace, sn: Sn, ts: Millis) {
        if space.contains(sn) {
            self.count_fastack(space, sn, ts);
        }
    }

    #[inline(never)] // beside the straight line
    fn count_fastack(&mut self, space: SendSpace, sn: Sn, ts: Millis) {
        let mut earlier = space.una;
        while earlier != sn {
            if let Some(segment) = self.ring.get_mut(earlier)
                && !segment.acked
                && ts.since(segment.ts) >= 0
            {
                segment.fastack = segment.fastack.saturating_add(1);
                self.due.fastack = self.due.fastack.max(segment.fastack);
            }
            earlier = earlier.add(1);
        }
    }

    /// Whether a flush that judges timeouts by `heard` must look at segments that were transmitted before.
    #[inline]
    pub(crate) const fn must_scan(
        &self,
        space: SendSpace,
        heard: Millis,
        config: &KcpConfig,
    ) -> bool {
        let due = &self.due;
        let timed_out = heard.since(due.earliest) >= 0;
        space.numbered() > 0 && (timed_out || due.fastack >= config.resent() || due.far)
    }

    /// Forgets the bounds; a scan that judges by `heard` and visits every in-flight segment builds them anew.
    pub(crate) const fn begin_scan(&mut self, heard: Millis) {
        self.due = DueBound { earliest: heard.add(FAR_MS), far: false, fastack: 0 };
    }

    /// The in-flight segments, oldest first, with their numbers; holes left out.
    pub(crate) fn in_flight(&self, space: SendSpace) -> impl Iterator<Item = InFlight> {
        let numbers = (0..space.numbered()).map(move |offset| space.una.add(offset));
        let segments = numbers.filter_map(|sn| Some((sn, self.ring.get(sn)?)));
        let unacked = segments.filter(|(_, segment)| !segment.acked);
        unacked.map(|(sn, segment)| segment.in_flight(sn))
    }

    /// Numbers and writes as many queued segments as fit `window`, to be repeated after the timeout `(rto, wait)`.
    ///
    /// The reference numbers all of them at the beginning of the flush; the difference shows only in the middle of one.
    /// Most often it is one segment, which takes no loop.
    ///
    /// # Errors
    /// `out` is full; the next segment is as it was.
    #[inline(always)] // so that the datagram's position stays in registers
    pub(crate) fn transmit_queued(
        &mut self,
        space: &mut SendSpace,
        window: u32,
        now: Millis,
        timeout: (u32, u32),
        out: &mut Datagram<'_>,
    ) -> Result<(), Full> {
        // Signed, as `_itimediff(snd_nxt, snd_una + cwnd) < 0` is: a window that shrank admits nothing.
        let room = window.wrapping_sub(space.numbered()).cast_signed();
        if room <= 0 || self.queued == 0 {
            return Ok(());
        }
        let resendts = now.add(timeout.1);
        if space.numbered() == 0 {
            self.due = DueBound { earliest: resendts, far: false, fastack: 0 };
        } else {
            self.due.include_time(resendts);
        }
        self.transmit_first(space, now, timeout, out)?;
        if self.queued > 0 && room > 1 {
            self.transmit_more(space, window, now, timeout, out)
        } else {
            Ok(())
        }
    }

    #[inline(never)] // beside the straight line
    fn transmit_more(
        &mut self,
        space: &mut SendSpace,
        window: u32,
        now: Millis,
        timeout: (u32, u32),
        out: &mut Datagram<'_>,
    ) -> Result<(), Full> {
        while self.queued > 0 && window.wrapping_sub(space.numbered()).cast_signed() > 0 {
            self.transmit_first(space, now, timeout, out)?;
        }
        Ok(())
    }

    /// Numbers and writes the first queued segment.
    #[inline(always)] // at two places, one of them the straight line
    fn transmit_first(
        &mut self,
        space: &mut SendSpace,
        now: Millis,
        timeout: (u32, u32),
        out: &mut Datagram<'_>,
    ) -> Result<(), Full> {
        let sn = space.nxt;
        let Some(segment) = self.ring.get_mut(sn) else { return Ok(()) };
        let room = out.claim(segment.fragment.len())?;
        space.nxt = sn.add(1);
        self.queued -= 1;
        segment.emit_first(sn, now, timeout, room);
        Ok(())
    }

    /// Writes again what is due, from `cursor` on; moves `cursor` behind what was looked at and builds the bounds anew.
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
        let mut filled = Ok(());
        while sn != space.nxt {
            if let Some(segment) = self.ring.get_mut(sn)
                && !segment.acked
            {
                filled = segment.emit_again(sn, now, rules, tally, out);
                if filled.is_err() {
                    break;
                }
                self.due.include(segment, rules.heard);
            }
            sn = sn.add(1);
        }
        *cursor = sn;
        filled
    }

    /// A time before which no in-flight segment times out; `None` with nothing in flight.
    ///
    /// It may be early (the segment it came from may be acknowledged by now); the flush at that time corrects it.
    pub(crate) fn earliest_resend(
        &self,
        space: SendSpace,
        now: Millis,
        interval: u32,
    ) -> Option<Millis> {
        let earliest = if self.due.far { now.add(interval) } else { self.due.earliest };
        (space.numbered() > 0).then_some(earliest)
    }

    /// Largest payload of a numbered or queued segment.
    pub(crate) fn longest(&self, space: SendSpace) -> usize {
        let numbers = (0..space.numbered() + self.queued).map(|offset| space.una.add(offset));
        let segments = numbers.filter_map(|sn| self.ring.get(sn));
        segments.map(|segment| segment.fragment.len()).max().unwrap_or(0)
    }

    /// Removes the numbered segments before `una`, and the holes that come to the front by that. Most often it is one, which
    /// takes no loop.
    #[inline(never)] // a leaf: few registers to save
    fn remove_front(&mut self, space: &mut SendSpace, una: Sn, store: &mut Store) {
        if una == space.una.add(1) && self.holes == 0 && space.numbered() > 0 {
            self.remove_first(space, store);
        } else {
            self.remove_several(space, una, store);
        }
    }

    #[inline(never)] // beside the straight line
    fn remove_several(&mut self, space: &mut SendSpace, una: Sn, store: &mut Store) {
        // Only without strict input does a peer acknowledge what was never sent.
        let end = if una.since(space.nxt) > 0 { space.nxt } else { una };
        while space.una != end {
            self.remove_first(space, store);
        }
        while self.holes > 0 && self.ring.get(space.una).is_some_and(|segment| segment.acked) {
            self.remove_first(space, store);
        }
    }

    #[inline]
    fn remove_first(&mut self, space: &mut SendSpace, store: &mut Store) {
        let sn = space.una;
        space.una = sn.add(1);
        if let Some(segment) = self.ring.get_mut(sn)
            && segment.acked
        {
            segment.acked = false;
            self.holes -= 1;
        } else {
            self.vacate(sn, store);
        }
    }

    /// Removes the numbered segment `sn`. Away from the front it leaves a hole: the payload is given back at once, its
    /// place in the order stays.
    #[inline(never)] // beside the straight line
    fn remove(&mut self, space: &mut SendSpace, sn: Sn, store: &mut Store) {
        if sn == space.una {
            return self.remove_front(space, sn.add(1), store);
        }
        if let Some(segment) = self.ring.get_mut(sn)
            && !segment.acked
        {
            segment.acked = true;
            self.holes += 1;
            self.vacate(sn, store);
        }
    }

    /// Gives the payload of the segment in `sn`'s slot back.
    #[inline]
    fn vacate(&mut self, sn: Sn, store: &mut Store) {
        let Some(segment) = self.ring.get_mut(sn) else { return };
        self.payload_bytes -= segment.fragment.len();
        store.give_back(core::mem::take(&mut segment.fragment));
    }

    /// Stream mode: fills the last queued segment up. Even no bytes make it the end of its message, as in the reference.
    fn extend_tail(
        &mut self,
        space: SendSpace,
        bytes: &[u8],
        mss: usize,
        store: &mut Store,
    ) -> Result<usize, SendError> {
        if self.queued == 0 {
            return Ok(0);
        }
        let tail = self.ring.get_mut(space.nxt.add(self.queued - 1));
        let Some(tail) = tail.filter(|tail| tail.fragment.len() < mss) else { return Ok(0) };
        let count = bytes.len().min(mss - tail.fragment.len());
        if !tail.fragment.extend(&bytes[..count], store) {
            return Err(SendError::StoreFull);
        }
        tail.fragment.end_message();
        self.payload_bytes += count;
        Ok(count)
    }

    /// Queues one segment, if that takes no memory but what was used before. `false`: nothing happened.
    #[inline]
    pub(crate) fn append_recycled(
        &mut self,
        space: SendSpace,
        piece: &[u8],
        frg: u8,
        store: &mut Store,
    ) -> bool {
        if ((space.numbered() + self.queued) as usize) < self.ring.capacity()
            && let Some(slot) = self.ring.get_mut(space.nxt.add(self.queued))
            && let Some(fragment) = store.recycled(piece.len(), frg)
        {
            self.queued += 1;
            self.payload_bytes += piece.len();
            slot.occupy(fragment);
            slot.fragment.fill(0, piece);
            return true;
        }
        false
    }

    /// Queues one segment. `false`: the store is full.
    fn append(&mut self, space: SendSpace, piece: &[u8], frg: u8, store: &mut Store) -> bool {
        self.append_recycled(space, piece, frg, store) || self.append_anew(space, piece, frg, store)
    }

    /// As [`Sender::append`], making what is missing.
    #[cold]
    fn append_anew(&mut self, space: SendSpace, piece: &[u8], frg: u8, store: &mut Store) -> bool {
        let full = (space.numbered() + self.queued) as usize == self.ring.capacity();
        if full && !self.ring.grow(space.una, store) {
            return false;
        }
        let Some(slot) = self.ring.get_mut(space.nxt.add(self.queued)) else { return false };
        let Some(fragment) = store.keep(piece, frg) else { return false };
        self.queued += 1;
        self.payload_bytes += piece.len();
        slot.occupy(fragment);
        true
    }

    /// Gives back what is queued behind the first `keep` segments without a number.
    #[cold]
    fn unqueue(&mut self, space: SendSpace, keep: u32, store: &mut Store) {
        while self.queued > keep {
            self.queued -= 1;
            self.vacate(space.nxt.add(self.queued), store);
        }
    }
}

impl DueBound {
    #[inline]
    fn include_time(&mut self, resendts: Millis) {
        self.earliest = self.earliest.earliest(resendts);
    }

    fn include(&mut self, segment: &Segment, heard: Millis) {
        self.include_time(segment.resendts);
        self.far |= segment.resendts.0.wrapping_sub(heard.0) > FAR_MS;
        self.fastack = self.fastack.max(segment.fastack);
    }
}

/// A message of this many fragments is refused: one less always fits the smallest receive window of a stock peer.
pub(crate) const FRAGMENTS_MAX: usize = 128;

/// A timeout further ahead than this (12 days) may compare wrongly with one far behind it.
const FAR_MS: u32 = 1 << 30;
