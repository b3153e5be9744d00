//! The reorder window and the receive queue: duplicate drop, ordering, message reassembly.
//!
//! Both are one deque. Its first `ready` fragments are in order and unread (the reference's `rcv_queue`); behind them
//! slot `i` belongs to the number `rcv_nxt + i` and may be vacant (`rcv_buf`). So inserting never searches, and a
//! fragment whose turn has come moves nowhere.

use alloc::collections::VecDeque;

use crate::store::{Fragment, Store};
use crate::units::{Millis, Sn};

/// Everything received and not yet read.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    slots: VecDeque<Option<Fragment>>,
    /// Fragments in order, unread (`nrcv_que`).
    ready: u32,
    /// Fragments out of order (`nrcv_buf`).
    waiting: u32,
    /// When somebody first saw something kept after the last message was read.
    seen: Option<Millis>,
}

/// What became of a PUSH inside the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    Taken,
    Duplicate,
    StoreFull,
}

impl Receiver {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.ready == 0 && self.waiting == 0
    }

    /// Fragments kept.
    pub(crate) const fn segments(&self) -> usize {
        self.ready as usize + self.waiting as usize
    }

    /// Fragments in order, unread (`nrcv_que`).
    pub(crate) const fn ready(&self) -> u32 {
        self.ready
    }

    /// Fragments out of order (`nrcv_buf`).
    pub(crate) const fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Fragments that the next message lacks, 0 when it can be read; `None` when nothing of it has come.
    pub(crate) fn lacking(&self) -> Option<u32> {
        let head = self.queue().next()?;
        Some((u32::from(head.frg()) + 1).saturating_sub(self.ready))
    }

    /// Bytes of the deque's own memory.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Option<Fragment>>()
    }

    /// Payload bytes waiting to be read.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.slots.iter().flatten().map(|fragment| fragment.len()).sum()
    }

    /// Memory of all fragments, and of those in order.
    pub(crate) fn memory(&self) -> (usize, usize) {
        let all = self.slots.iter().flatten().map(Fragment::memory).sum();
        (all, self.queue().map(Fragment::memory).sum())
    }

    /// Notes that something is kept at `now`, unless that is known.
    #[inline]
    pub(crate) fn see(&mut self, now: Millis) {
        if self.seen.is_none() && !self.is_empty() {
            self.seen = Some(now);
        }
    }

    /// Since when fragments are kept of which no message can be read, as far as was seen; `None` when there are none, or one
    /// can be.
    pub(crate) fn unfinished_since(&mut self, now: Millis) -> Option<Millis> {
        self.see(now);
        self.seen.filter(|_| !self.is_empty() && self.peek_size().is_none())
    }

    /// Gives everything back.
    pub(crate) fn clear(&mut self, store: &mut Store) {
        self.seen = None;
        for fragment in self.slots.drain(..).flatten() {
            store.give_back(fragment);
        }
        self.ready = 0;
        self.waiting = 0;
    }

    /// Nothing is unread and the fragment numbered `rcv_nxt` has not come: one that comes now may bypass the queue.
    #[inline]
    pub(crate) fn expects_next(&self) -> bool {
        self.ready == 0 && (self.waiting == 0 || self.slots.front().is_none_or(Option::is_none))
    }

    /// The expected fragment was delivered past the queue. Reference: as if `ikcp_recv` had followed at once.
    #[inline]
    pub(crate) fn on_bypassed(&mut self, rcv_nxt: &mut Sn, rcv_wnd: u32) {
        *rcv_nxt = rcv_nxt.add(1);
        if self.waiting > 0 {
            self.close_gap(rcv_nxt, rcv_wnd);
        }
    }

    /// The vacancy at the front is filled: what waited behind it may follow.
    #[cold]
    fn close_gap(&mut self, rcv_nxt: &mut Sn, rcv_wnd: u32) {
        self.slots.pop_front();
        self.seen = None;
        self.promote(rcv_nxt, rcv_wnd);
    }

    /// Keeps a fragment `ahead` numbers after `rcv_nxt`. First copy wins. Reference: `ikcp_parse_data`.
    pub(crate) fn insert(
        &mut self,
        rcv_nxt: &mut Sn,
        ahead: u32,
        frg: u8,
        bytes: &[u8],
        rcv_wnd: u32,
        store: &mut Store,
    ) -> Inserted {
        let index = self.ready as usize + ahead as usize;
        if self.slots.get(index).is_some_and(Option::is_some) {
            // Also a duplicate lets in what a window enlarged since allows, as in the reference.
            self.promote(rcv_nxt, rcv_wnd);
            return Inserted::Duplicate;
        }
        if store.refuses_receipts(ahead > 0)
            || (index >= self.slots.capacity() && !self.grow(index + 1, store))
        {
            return Inserted::StoreFull;
        }
        let Some(fragment) = store.keep(bytes, frg) else { return Inserted::StoreFull };
        while self.slots.len() <= index {
            self.slots.push_back(None);
        }
        self.slots[index] = Some(fragment);
        self.waiting += 1;
        self.promote(rcv_nxt, rcv_wnd);
        Inserted::Taken
    }

    /// Makes fragments readable whose turn has come. Reference: the loop shared by `ikcp_recv` and `ikcp_parse_data`.
    #[inline]
    pub(crate) fn promote(&mut self, rcv_nxt: &mut Sn, rcv_wnd: u32) {
        while self.waiting > 0
            && self.ready < rcv_wnd
            && self.slots.get(self.ready as usize).is_some_and(Option::is_some)
        {
            self.ready += 1;
            self.waiting -= 1;
            *rcv_nxt = rcv_nxt.add(1);
        }
    }

    /// Size of the next whole message. Only the head's fragment count is believed. Reference: `ikcp_peeksize`.
    pub(crate) fn peek_size(&self) -> Option<usize> {
        let head = self.queue().next()?;
        if head.frg() == 0 {
            return Some(head.len());
        }
        if self.ready <= u32::from(head.frg()) {
            return None;
        }
        Some(self.message().map(<[u8]>::len).sum())
    }

    /// The fragments of the next message, in order. Meaningful after [`Receiver::peek_size`] found it whole.
    pub(crate) fn message(&self) -> impl Iterator<Item = &[u8]> {
        let mut ended = false;
        self.queue().map_while(move |fragment| {
            if ended {
                return None;
            }
            ended = fragment.frg() == 0;
            Some(fragment.as_slice())
        })
    }

    /// Removes the next message.
    pub(crate) fn consume(&mut self, store: &mut Store) {
        self.seen = None;
        while self.ready > 0 {
            let Some(fragment) = self.slots.pop_front().flatten() else { return };
            self.ready -= 1;
            let last = fragment.frg() == 0;
            store.give_back(fragment);
            if last {
                return;
            }
        }
    }

    fn queue(&self) -> impl Iterator<Item = &Fragment> {
        self.slots.iter().take(self.ready as usize).map_while(Option::as_ref)
    }

    #[cold]
    fn grow(&mut self, wanted: usize, store: &mut Store) -> bool {
        let capacity = wanted.next_power_of_two().max(SLOTS_FIRST);
        let booked = capacity * size_of::<Option<Fragment>>() - self.heap_bytes();
        if !store.book(booked) {
            return false;
        }
        let before = self.heap_bytes();
        self.slots.reserve_exact(capacity - self.slots.len());
        store.rebook(booked, self.heap_bytes() - before);
        true
    }
}

/// Slots a deque starts with.
const SLOTS_FIRST: usize = 4;
