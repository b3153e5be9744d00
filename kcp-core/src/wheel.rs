//! A hierarchical timer wheel over slab indices: 1 ms ticks, O(1) arm, re-arm and cancel, the whole of the wrapping
//! clock as its span.
//!
//! # Shape
//! The 32 bits of a [`Millis`] are read as six digits: five of six bits and, at the top, one of two. Level `k` has a slot
//! for each value of digit `k`, so its slots are `64^k` ms wide. A timer is filed on the level of the highest digit in
//! which its deadline differs from the wheel's clock, in the slot that its deadline's digit names. When the clock enters
//! a slot of a higher level, the slot's timers are filed again, further down; a timer moves at most five times in its life.
//!
//! The clock's digits wrap as the clock does, and a deadline is at most 2^31 ms ahead, two of the four top slots. So
//! nothing is ever out of range and nothing needs clamping: the span is the 24.8 days that [`Millis::since`] can tell.
//!
//! # Bounded work
//! A slot is a ring of nodes, and a whole ring moves in O(1). [`Wheel::pop`] therefore advances over any distance by moving
//! at most one ring per occupied slot: rings that are over go to the `due` ring, the one that the clock entered to the
//! `refile` ring. Each call then files at most [`REFILE_MAX`] timers again and hands out one. A million timers in one
//! slot cost each call no more than a dozen.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::units::Millis;

/// Timers for the entries of a slab, one each.
///
/// # Contract
/// - A timer is returned by [`pop`](Wheel::pop) once, never before its deadline, and is disarmed by that.
/// - Wait until [`next_deadline`](Wheel::next_deadline) at most, then call `pop` until `None` or until a budget ends. Then
///   no timer is late by more than the caller's own delays and budgets.
/// - Show `pop` the time at least every 24 days. While a timer is armed, `next_deadline` sees to that.
/// - Timers that are due together come in no particular order.
///
/// Memory: [`TIMER_BYTES`](Wheel::TIMER_BYTES) per index in chunks of [`CHUNK`](Wheel::CHUNK) indices, and 3 KiB of slots.
#[derive(Debug)]
pub struct Wheel {
    clock: Millis,
    /// Bit `s` of word `k`: slot `s` of level `k` is not empty.
    occupied: [u64; LEVELS],
    /// The rings' heads: the slots level by level, then [`DUE`] and [`REFILE`].
    heads: Box<[Link; HEADS]>,
    /// Parallel to the caller's slab. Chunks, so that growth never copies a node; empty where there is no room.
    chunks: Vec<Box<[Node]>>,
}

impl Wheel {
    /// An empty wheel whose clock stands at `now`. It has no room yet: see [`Wheel::grow`].
    #[must_use]
    pub fn new(now: Millis) -> Self {
        let mut heads = Box::new([Link { prev: 0, next: 0 }; HEADS]);
        for (ring, head) in (FIRST_HEAD..).zip(heads.iter_mut()) {
            *head = Link { prev: ring, next: ring };
        }
        Self { clock: now, occupied: [0; LEVELS], heads, chunks: Vec::new() }
    }

    /// Makes room for all indices below `len` that lie above every index there ever was room for. Never moves a node, so its
    /// cost is that of the new chunks alone.
    ///
    /// # Panics
    /// If `len` exceeds [`Wheel::LEN_MAX`].
    pub fn grow(&mut self, len: usize) {
        assert!(len <= Self::LEN_MAX, "a wheel has room for {} timers", Self::LEN_MAX);
        for index in (self.chunks.len() * Self::CHUNK..len).step_by(Self::CHUNK) {
            self.make_room(u32::try_from(index).unwrap_or(u32::MAX));
        }
    }

    /// Makes room for `index` and its chunk, if there is none: the only call that allocates.
    ///
    /// # Panics
    /// If `index` is not below [`Wheel::LEN_MAX`].
    pub fn make_room(&mut self, index: u32) {
        assert!(index < FIRST_HEAD, "a wheel has room for {} timers", Self::LEN_MAX);
        let chunk = index as usize / Self::CHUNK;
        if chunk >= self.chunks.len() {
            self.chunks.resize_with(chunk + 1, Box::default);
        }
        if self.chunks[chunk].is_empty() {
            self.chunks[chunk] = vec![Node::DISARMED; Self::CHUNK].into_boxed_slice();
        }
    }

    /// Gives the memory of the chunk of `index` back. None of its timers may be armed; none has room afterwards.
    pub fn release(&mut self, index: u32) {
        if let Some(chunk) = self.chunks.get_mut(index as usize / Self::CHUNK) {
            debug_assert!(chunk.iter().all(|node| !node.is_armed()), "an armed timer is released");
            *chunk = Box::default();
        }
    }

    /// The largest argument of [`Wheel::grow`]: the few indices above it name the wheel's own rings.
    pub const LEN_MAX: usize = FIRST_HEAD as usize;

    /// Memory comes and goes for so many indices at once.
    pub const CHUNK: usize = 4096;

    /// What one timer takes, in bytes.
    pub const TIMER_BYTES: usize = size_of::<Node>();

    /// Arms or re-arms the timer of `index`. A deadline not after the wheel's clock expires at the next [`Wheel::pop`].
    ///
    /// # Panics
    /// If there is no room for `index`.
    pub fn arm(&mut self, index: u32, deadline: Millis) {
        let node = self.node_mut(index);
        if node.is_armed() {
            if node.deadline == deadline {
                return;
            }
            self.unlink(index);
        }
        self.node_mut(index).deadline = deadline;
        self.file(index, deadline);
    }

    /// Disarms the timer of `index`, if armed.
    ///
    /// # Panics
    /// If there is no room for `index`.
    pub fn cancel(&mut self, index: u32) {
        if self.node_mut(index).is_armed() {
            self.unlink(index);
        }
    }

    /// The deadline of `index`, if armed.
    ///
    /// # Panics
    /// If there is no room for `index`.
    #[must_use]
    pub fn deadline(&self, index: u32) -> Option<Millis> {
        let node = self.node(index);
        node.is_armed().then_some(node.deadline)
    }

    /// When to call [`Wheel::pop`] next; `None` when nothing is armed.
    ///
    /// Never later than the earliest deadline. Earlier when the earliest timer sits on a higher level: then it is the
    /// moment to file that slot again, at most five times before the timer itself is due. Not after the wheel's clock (wait
    /// not at all) while due timers are left, or timers to be filed again. O(levels).
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        if !self.is_empty(DUE) || !self.is_empty(REFILE) {
            return Some(self.clock);
        }
        // Every timer of a level is due before every timer of the next one.
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let slot = self.slots_ahead(level).trailing_zeros() + digit(self.clock, level) + 1;
        // At the top `slot` may exceed its digit: the bit shifted out is the clock's wrap.
        let above = self.clock.0 & !low_bits(level + 1);
        Some(Millis(above | slot << (DIGIT_BITS * width(level))))
    }

    /// Advances the clock to `now` and takes one expired timer out, disarming it.
    ///
    /// Call until `None`, or until the caller's budget ends; what is left stays expired. `None` means that this turn's work
    /// is done, and with more than [`REFILE_MAX`] timers to be filed again that some may be left for the next turn;
    /// `next_deadline` is then not after `now`. A `now` before the wheel's clock counts as the clock, unless nothing is
    /// armed. Bounded work, however many timers are due and however far the clock went.
    pub fn pop(&mut self, now: Millis) -> Option<u32> {
        if now.since(self.clock) > 0 {
            self.advance(now);
        } else if now != self.clock && self.next_deadline().is_none() {
            // An empty wheel may have been left alone for longer than the clock can tell.
            self.clock = now;
        }
        for _ in 0..REFILE_MAX {
            let Some(index) = self.first(REFILE) else { break };
            let deadline = self.node(index).deadline;
            self.unlink(index);
            self.file(index, deadline);
        }
        let index = self.first(DUE)?;
        self.unlink(index);
        Some(index)
    }

    /// Moves the clock and every slot it passes or enters, a whole ring at a time.
    fn advance(&mut self, now: Millis) {
        let level = level_of(self.clock, now);
        for below in 0..level {
            // Ended with the slot of `level` that the clock leaves.
            for slot in bits(self.occupied[below]) {
                self.splice(ring(below, slot), DUE);
            }
        }
        let old = digit(self.clock, level);
        let passed = digit(now, level).wrapping_sub(old) & digit_mask(level);
        for ahead in bits(self.slots_ahead(level)) {
            let distance = ahead + 1;
            if distance > passed {
                break;
            }
            let entered = distance == passed && level > 0;
            let slot = (old + distance) & digit_mask(level);
            self.splice(ring(level, slot), if entered { REFILE } else { DUE });
        }
        self.clock = now;
    }

    /// The occupied slots of `level` by their distance from the clock's own digit, minus one: bit 0 is the next slot. The
    /// clock's own slot is always empty, for its timers live further down.
    fn slots_ahead(&self, level: usize) -> u64 {
        let slots = self.occupied[level];
        let own = digit(self.clock, level);
        let beyond = slots >> own >> 1;
        if level < TOP {
            return beyond;
        }
        // Only the top level is a ring: below it a slot before the clock's would be in the past.
        let wrapped = slots << (digit_mask(TOP) - own);
        (beyond | wrapped) & ((1 << (TOP_SLOTS - 1)) - 1)
    }

    /// Puts a node that is in no ring where its deadline belongs, as seen from the clock.
    fn file(&mut self, index: u32, deadline: Millis) {
        if deadline.since(self.clock) <= 0 {
            return self.push(index, DUE);
        }
        let level = level_of(self.clock, deadline);
        let slot = digit(deadline, level);
        self.occupied[level] |= 1 << slot;
        self.push(index, ring(level, slot));
    }

    fn is_empty(&self, head: u32) -> bool {
        self.link(head).next == head
    }

    fn first(&self, head: u32) -> Option<u32> {
        let next = self.link(head).next;
        (next != head).then_some(next)
    }

    fn push(&mut self, index: u32, head: u32) {
        let last = self.link(head).prev;
        *self.link_mut(index) = Link { prev: last, next: head };
        self.link_mut(last).next = index;
        self.link_mut(head).prev = index;
    }

    /// Takes a node out of its ring. Which ring that is need not be known: the last one out is its head's neighbour twice.
    fn unlink(&mut self, index: u32) {
        let Link { prev, next } = *self.link(index);
        *self.link_mut(index) = Node::DISARMED.link;
        self.link_mut(prev).next = next;
        self.link_mut(next).prev = prev;
        if prev == next {
            self.mark_if_emptied(prev);
        }
    }

    /// Moves all of ring `from` to the end of ring `to`.
    fn splice(&mut self, from: u32, to: u32) {
        let Link { prev: last, next: first } = *self.link(from);
        let before = self.link(to).prev;
        self.link_mut(before).next = first;
        self.link_mut(first).prev = before;
        self.link_mut(last).next = to;
        self.link_mut(to).prev = last;
        *self.link_mut(from) = Link { prev: from, next: from };
        self.mark_if_emptied(from);
    }

    /// Clears the occupancy of `at` if it is the head of a slot and has no nodes.
    fn mark_if_emptied(&mut self, at: u32) {
        if (FIRST_HEAD..DUE).contains(&at) && self.is_empty(at) {
            let slot = at - FIRST_HEAD;
            self.occupied[(slot / SLOTS) as usize] &= !(1 << (slot % SLOTS));
        }
    }

    fn link(&self, at: u32) -> &Link {
        if at >= FIRST_HEAD { &self.heads[(at - FIRST_HEAD) as usize] } else { &self.node(at).link }
    }

    fn link_mut(&mut self, at: u32) -> &mut Link {
        if at >= FIRST_HEAD {
            &mut self.heads[(at - FIRST_HEAD) as usize]
        } else {
            &mut self.node_mut(at).link
        }
    }

    fn node(&self, index: u32) -> &Node {
        &self.chunks[index as usize / Self::CHUNK][index as usize % Self::CHUNK]
    }

    fn node_mut(&mut self, index: u32) -> &mut Node {
        &mut self.chunks[index as usize / Self::CHUNK][index as usize % Self::CHUNK]
    }
}

/// Neighbours in a ring: slab indices, or [`FIRST_HEAD`] and above for the ring's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    prev: u32,
    next: u32,
}

/// The timer of one index.
#[derive(Clone, Copy, Debug)]
struct Node {
    link: Link,
    deadline: Millis,
}

impl Node {
    const DISARMED: Self =
        Self { link: Link { prev: u32::MAX, next: u32::MAX }, deadline: Millis(0) };

    fn is_armed(&self) -> bool {
        self.link.next != u32::MAX
    }
}

/// The level on which `deadline` is filed when the clock stands at `clock`: that of the highest digit that differs.
fn level_of(clock: Millis, deadline: Millis) -> usize {
    let differs = (clock.0 ^ deadline.0) | 1;
    (differs.ilog2() / DIGIT_BITS) as usize
}

/// Digit `level` of `at`: below 64, at the top below 4.
fn digit(at: Millis, level: usize) -> u32 {
    at.0 >> (DIGIT_BITS * width(level)) & digit_mask(level)
}

/// The largest digit of `level`.
const fn digit_mask(level: usize) -> u32 {
    if level == TOP { TOP_SLOTS - 1 } else { SLOTS - 1 }
}

/// The bits of the digits below `level`.
fn low_bits(level: usize) -> u32 {
    1_u32.checked_shl(DIGIT_BITS * width(level)).map_or(u32::MAX, |bit| bit - 1)
}

#[expect(clippy::cast_possible_truncation, reason = "there are six levels")]
const fn width(level: usize) -> u32 {
    level as u32
}

/// The head of a slot's ring.
const fn ring(level: usize, slot: u32) -> u32 {
    FIRST_HEAD + width(level) * SLOTS + slot
}

/// The positions of the set bits, lowest first.
fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros());
        word &= word.wrapping_sub(1);
        bit
    })
}

/// Most timers that one [`Wheel::pop`] files again: about 2 us of cache misses, and few enough calls for a full slot that
/// their own cost does not show.
pub const REFILE_MAX: usize = 64;

const DIGIT_BITS: u32 = 6;
const SLOTS: u32 = 1 << DIGIT_BITS;
const LEVELS: usize = 6;
const TOP: usize = LEVELS - 1;
const TOP_SLOTS: u32 = 4;

/// Rings: all slots (the top level's unused ones too), due timers, timers to be filed again.
const HEADS: usize = LEVELS * SLOTS as usize + 2;
const FIRST_HEAD: u32 = u32::MAX - 512;
const DUE: u32 = ring(LEVELS, 0);
const REFILE: u32 = DUE + 1;

// The digits are the 32 bits of the clock, and no head is mistaken for the mark of a disarmed node.
const _: () = assert!(width(TOP) * DIGIT_BITS + TOP_SLOTS.ilog2() == u32::BITS);
const _: () = assert!(REFILE < u32::MAX && REFILE - FIRST_HEAD + 1 == width(HEADS));
const _: () = assert!(Wheel::TIMER_BYTES == 12);

#[cfg(test)]
mod tests;
