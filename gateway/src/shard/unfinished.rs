//! What happens when messages that nobody finishes fill the store: those who keep most of it for longest end.
//!
//! Fragments are kept until their message is whole. So a crowd that sends all of large messages but the last fragment could have a shard's
//! memory for nothing, and nobody else could finish theirs. Who keeps how much, and since when, takes a look at every session to
//! find out. That is done only when the store is full, for a part of the slots a turn, and twice: first to learn whose end
//! would be enough, then to end them.

use kcp_core::{Millis, Unfinished};

use super::sessions::Sessions;
use super::stats::{EndReason, Stats};
use super::{Policy, budget};

/// How far that is.
#[derive(Debug)]
pub(super) struct Sweep {
    stage: Stage,
    /// When it began, or when the next one may begin.
    at: Millis,
    /// The slot to look at next.
    from: u32,
    /// Bytes kept by sessions, by class.
    classes: [usize; CLASSES],
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The store was not full, or nobody was to blame.
    Rests,
    /// Sessions are counted.
    Counts,
    /// Those of this class and above end.
    Ends(usize),
}

impl Sweep {
    pub(super) const fn new(now: Millis) -> Self {
        Self { stage: Stage::Rests, at: now, from: 0, classes: [0; CLASSES] }
    }

    const fn begin(&mut self, now: Millis) {
        *self = Self { stage: Stage::Counts, ..Self::new(now) };
    }

    const fn rest(&mut self, until: Millis) {
        (self.stage, self.at) = (Stage::Rests, until);
    }

    const fn may_begin(&self, now: Millis) -> bool {
        let ahead = self.at.since(now);
        // After a long silence the clock may have wrapped past it.
        ahead <= 0 || ahead > AGAIN_MS.cast_signed()
    }

    /// Bytes kept, times for how long, to the next lower power of two; `None` for what is not old enough to be blamed.
    fn class_of(&self, kept: Unfinished) -> Option<usize> {
        let age_ms = u64::try_from(self.at.since(kept.since)).ok().filter(|ms| *ms >= HELD_MS)?;
        let product = (kept.bytes as u64).saturating_mul(age_ms);
        Some(product.checked_ilog2()? as usize)
    }

    /// The highest class that is enough, with those above it, to free `excess` bytes; `None` when all together are not: then
    /// something else fills the store.
    fn class_min(&self, excess: usize) -> Option<usize> {
        let mut left = excess;
        (0..CLASSES).rev().find(|class| {
            left = left.saturating_sub(self.classes[*class]);
            left == 0
        })
    }
}

impl Sessions {
    /// When the store is full: looks at a part of the sessions, and ends those who keep most unfinished for longest, until there is
    /// room for everything again. Tells whether the budget was enough.
    pub(super) fn shed_unfinished(
        &mut self,
        now: Millis,
        policy: &Policy,
        stats: &mut Stats,
    ) -> bool {
        let mut left = budget::SWEPT;
        match self.sweep.stage {
            Stage::Rests if self.store.overfull() == 0 || !self.sweep.may_begin(now) => {
                return true;
            }
            Stage::Rests => {
                self.sweep.begin(now);
                return false;
            }
            Stage::Counts => {
                while let Some((_, class, kept)) = self.next_unfinished(now, &mut left) {
                    self.sweep.classes[class] += kept.bytes;
                }
            }
            Stage::Ends(class_min) => {
                while let Some((slot, class, _)) = self.next_unfinished(now, &mut left) {
                    if class >= class_min {
                        self.end(slot, EndReason::Unfinished, now, policy, stats);
                    }
                    if self.store.excess() == 0 {
                        self.sweep.rest(now);
                        return true;
                    }
                }
            }
        }
        if left > 0 {
            self.next_stage(now);
        }
        matches!(self.sweep.stage, Stage::Rests)
    }

    /// The next session that may be blamed, and its class; `None` when there is none, or with nothing `left` of the budget.
    fn next_unfinished(
        &mut self,
        now: Millis,
        left: &mut usize,
    ) -> Option<(u32, usize, Unfinished)> {
        while *left > 0 && self.sweep.from < self.table.slots() {
            *left -= 1;
            let slot = self.sweep.from;
            self.sweep.from += 1;
            let Some(session) = self.table.get_mut(slot) else { continue };
            let Some(kept) = session.kcp.unfinished(now) else { continue };
            *left = left.saturating_sub(kept.segments / SEGMENTS_PER_SLOT);
            if let Some(class) = self.sweep.class_of(kept) {
                return Some((slot, class, kept));
            }
        }
        None
    }

    /// All slots were looked at.
    fn next_stage(&mut self, now: Millis) {
        let again = now.add(AGAIN_MS);
        self.sweep.from = 0;
        match (self.sweep.stage, self.sweep.class_min(self.store.overfull())) {
            (Stage::Rests, _) => {}
            (Stage::Counts, Some(class)) => self.sweep.stage = Stage::Ends(class),
            (Stage::Counts, None) | (Stage::Ends(_), _) => self.sweep.rest(again),
        }
    }
}

/// Powers of two that bytes times milliseconds can come to.
const CLASSES: usize = 64;

/// What was begun later than this is not blamed, in milliseconds: some round trips of a client that is well. Not more, or whoever fills
/// the store in less time than that is never blamed, and those are who wait for room.
const HELD_MS: u64 = 250;

/// From a sweep that ended nobody to the next, in milliseconds.
const AGAIN_MS: u32 = 250;

/// Segments of which to learn the length costs as much as to look at a slot.
const SEGMENTS_PER_SLOT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Just below the wrap of the clock.
    const START: Millis = Millis(u32::MAX - 500);

    #[test]
    fn who_keeps_more_for_longer_comes_first_and_the_young_are_not_blamed() {
        let sweep = Sweep::new(START.add(4_000));
        let class = |bytes, after_ms| {
            sweep.class_of(Unfinished { since: START.add(after_ms), segments: 1, bytes })
        };
        assert_eq!(class(100_000, 3_751), None);
        assert_eq!((class(0, 0), class(100_000, 5_000)), (None, None));
        assert!(class(100_000, 0) > class(100_000, 3_000));
        assert!(class(100_000, 3_000) > class(10_000, 3_000));
        assert!(class(usize::MAX, 0) < Some(CLASSES));
    }

    #[test]
    fn as_few_end_as_are_enough_and_nobody_when_all_are_not() {
        let mut sweep = Sweep::new(START);
        (sweep.classes[10], sweep.classes[20], sweep.classes[30]) = (500, 400, 300);
        assert_eq!(sweep.class_min(300), Some(30));
        assert_eq!(sweep.class_min(301), Some(20));
        assert_eq!((sweep.class_min(1_200), sweep.class_min(1_201)), (Some(10), None));
    }

    #[test]
    fn a_sweep_in_vain_rests() {
        let mut sweep = Sweep::new(START);
        assert!(sweep.may_begin(START));
        sweep.rest(START.add(AGAIN_MS));
        assert!(!sweep.may_begin(START.add(AGAIN_MS - 1)) && sweep.may_begin(START.add(AGAIN_MS)));
        assert!(sweep.may_begin(START.add(0x9000_0000)), "after 28 days");
    }
}
