//! A hierarchical timer wheel over slab indices: 1 ms, O(1) arm, re-arm and cancel, a week of span.

use crate::units::Millis;

/// Timers for the entries of a slab, one each.
#[derive(Debug)]
pub struct Wheel {}

#[expect(unused_variables, reason = "signatures agreed ahead of the implementation")]
impl Wheel {
    /// An empty wheel whose clock stands at `now`.
    #[must_use]
    pub fn new(now: Millis) -> Self {
        todo!()
    }

    /// Makes room for indices below `len`: the only call that allocates.
    pub fn grow(&mut self, len: usize) {
        todo!()
    }

    /// Arms or re-arms the timer of `index`. A deadline not after the wheel's clock expires at the next [`Wheel::pop`].
    pub fn arm(&mut self, index: u32, deadline: Millis) {
        todo!()
    }

    /// Disarms the timer of `index`, if armed.
    pub fn cancel(&mut self, index: u32) {
        todo!()
    }

    /// The deadline of `index`, if armed.
    #[must_use]
    pub fn deadline(&self, index: u32) -> Option<Millis> {
        todo!()
    }

    /// When to call [`Wheel::pop`] next: never later than the earliest deadline, and at most a few times earlier.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        todo!()
    }

    /// Advances the clock to `now` and takes one expired timer out. Call until `None`, or until the caller's budget ends;
    /// what is left stays expired.
    pub fn pop(&mut self, now: Millis) -> Option<u32> {
        todo!()
    }
}
