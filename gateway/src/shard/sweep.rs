//! What happens when the store is full of what clients make no use of: those who keep most of it for longest end.
//!
//! Two things stay in the store for as long as a client likes. Fragments are kept until their message is whole: a crowd that sends all of
//! large messages but the last fragment would have a shard's memory for nothing. And what was sent is kept until it is acknowledged: so
//! would a crowd that announces no room, or acknowledges too little to be given up. Who keeps how much, and since when, takes a look at
//! every session to find out. That is done only when the store is full, for a part of the slots a turn, and twice: first to learn
//! whose end would be enough, then to end them. A client that takes what is there for it is well, however much that is: its queue is
//! slow when what was in it at one look is not gone a second later. Those whose queue is slow end first, if that is enough: to
//! acknowledge needs no room here, and to finish a message does.
//!
//! A store may be full of other things. Most of it may go by itself, for a backend reads it or a client acknowledges it; who waits
//! for a slow backend, with a message that the full store did not let him finish, stays. And what came early, ahead of a segment that is
//! missing, is nobody's fault: that one may have been refused. So somebody ends only where those who may be blamed fill more than half
//! of what is in use, or where next to nothing can go by itself. Early segments are let into three quarters
//! of the store alone, so even then there are those who fill the rest, and if to end them makes no room for everything, it makes room for
//! what comes in its turn.
//!
//! What remains: a crowd that keeps segments ahead of gaps which it never closes has those three quarters for as long as it likes. Others
//! are served in the last quarter: what the network reorders, or what follows a segment that was lost, has to be sent
//! again, and a client in the middle of a large message may be taken for one of the crowd. So it may, without any crowd, where the store
//! is smaller than what its clients have begun.

use kcp_core::{Kept, Millis};

use super::sessions::Sessions;
use super::stats::{EndReason, Stats};
use super::{Policy, budget};
use crate::session::Tie;

/// How far that is.
#[derive(Debug)]
pub(super) struct Sweep {
    stage: Stage,
    /// When it began, or when the next one may begin.
    at: Millis,
    /// The slot to look at next.
    from: u32,
    /// Bytes that cannot go by themselves, those of nobody's fault included.
    stuck: usize,
    /// Bytes kept by sessions that may be blamed, by class: of those who do not take what is there for them, and of the others.
    slow: [usize; CLASSES],
    unfinished: [usize; CLASSES],
}

/// What a session keeps that does not go by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hoard {
    since: Millis,
    /// Bytes that its client may be blamed for.
    bytes: usize,
    /// Bytes that nobody may.
    early_bytes: usize,
    /// What its session ends with, if it does.
    reason: EndReason,
}

impl Hoard {
    /// Its client does not take what is there for it.
    fn is_slow(&self) -> bool {
        self.reason == EndReason::Shed
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The store was not full, or nobody was to blame.
    Rests,
    /// Sessions are counted.
    Counts,
    /// Those of this class and above end, or of them the slow ones alone, until so many bytes more have gone with them.
    Ends { class_min: usize, slow_alone: bool, excess: usize },
}

impl Sweep {
    pub(super) const fn new(now: Millis) -> Self {
        let none = [0; CLASSES];
        Self { stage: Stage::Rests, at: now, from: 0, stuck: 0, slow: none, unfinished: none }
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

    fn count(&mut self, hoard: Hoard) {
        self.stuck += hoard.bytes + hoard.early_bytes;
        if let Some(class) = self.class_of(hoard) {
            let classes = if hoard.is_slow() { &mut self.slow } else { &mut self.unfinished };
            classes[class] += hoard.bytes;
        }
    }

    /// What of all that a session keeps does not go by itself; `None` where all of it may.
    fn hoard_of(&self, kept: &Kept, has_backend: bool) -> Option<Hoard> {
        let slow = kept.unacknowledged.filter(|since| self.at.since(*since) >= SLOW_MS);
        let begun = kept.unfinished.filter(|_| kept.in_turn > 0);
        let Some(since) = [slow, begun].into_iter().flatten().reduce(Millis::earliest) else {
            let (since, early_bytes) = (kept.unfinished?, kept.queues + kept.early);
            return Some(Hoard { since, bytes: 0, early_bytes, reason: EndReason::Unfinished });
        };
        // Without a backend, what a client has said waits for room among what it does not take.
        let received = if begun.is_some() || !has_backend { kept.in_turn } else { 0 };
        let (sent, reason) = match slow {
            Some(_) => (kept.sent, EndReason::Shed),
            None => (0, EndReason::Unfinished),
        };
        let bytes = kept.queues + sent + received;
        Some(Hoard { since, bytes, early_bytes: kept.early, reason })
    }

    /// For how long something is kept since then; `None` while that is nothing to be blamed for.
    fn age_ms(&self, since: Millis) -> Option<u64> {
        u64::try_from(self.at.since(since)).ok().filter(|ms| *ms >= HELD_MS)
    }

    /// Bytes kept, times for how long, to the next lower power of two; `None` for what is not old enough to be blamed, or early.
    fn class_of(&self, hoard: Hoard) -> Option<usize> {
        let product = (hoard.bytes as u64).saturating_mul(self.age_ms(hoard.since)?);
        Some(product.checked_ilog2()? as usize)
    }

    /// Who ends, of a store with `used` bytes in use, now that all are counted: nobody, unless those who may be blamed fill more than
    /// half of it, or next to nothing else would make room by going. What comes early is received up to `early_max` bytes in use,
    /// what comes in its turn up to `receipts_max`. The slow alone, if that is enough: an acknowledgement needs no room, the rest of a
    /// message may have found none.
    fn verdict(&self, used: usize, early_max: usize, receipts_max: usize) -> Option<Stage> {
        let blamed: usize = self.slow.iter().chain(&self.unfinished).sum();
        let stuck_max = receipts_max - (receipts_max - early_max) / 4;
        if used <= receipts_max || (blamed <= used / 2 && self.stuck <= stuck_max) {
            return None;
        }
        let in_turn = usize::midpoint(early_max, receipts_max);
        [early_max, in_turn].into_iter().find_map(|goal| {
            let excess = used - goal;
            [true, false].into_iter().find_map(|slow_alone| {
                let class_min = self.class_min(slow_alone, excess)?;
                Some(Stage::Ends { class_min, slow_alone, excess })
            })
        })
    }

    /// The highest class that is enough, with those above it, to free `excess` bytes; `None` when all together are not.
    fn class_min(&self, slow_alone: bool, excess: usize) -> Option<usize> {
        let mut left = excess;
        (0..CLASSES).rev().find(|&class| {
            let unfinished = if slow_alone { 0 } else { self.unfinished[class] };
            left = left.saturating_sub(self.slow[class] + unfinished);
            left == 0
        })
    }
}

impl Sessions {
    /// When the store is full: looks at a part of the sessions, and ends those who keep most for longest, until there is room
    /// again. Tells whether the budget was enough.
    pub(super) fn sweep(&mut self, now: Millis, policy: &Policy, stats: &mut Stats) -> bool {
        let mut left = budget::SWEPT;
        match self.sweep.stage {
            Stage::Rests => {
                let full = self.store.bytes_used() > self.store.receipts_max();
                if !full || !self.sweep.may_begin(now) {
                    return true;
                }
                self.sweep.begin(now);
                return false;
            }
            Stage::Counts => {
                while let Some((_, hoard)) = self.next_hoard(now, &mut left) {
                    self.sweep.count(hoard);
                }
            }
            Stage::Ends { class_min, slow_alone, mut excess } => {
                while let Some((slot, hoard)) = self.next_hoard(now, &mut left) {
                    let is_spared = slow_alone && !hoard.is_slow();
                    let class = self.sweep.class_of(hoard).filter(|_| !is_spared);
                    if class.is_none_or(|class| class < class_min) {
                        continue;
                    }
                    self.end(slot, hoard.reason, now, policy, stats);
                    excess = excess.saturating_sub(hoard.bytes + hoard.early_bytes);
                    if excess == 0 {
                        self.sweep.rest(now);
                        return true;
                    }
                }
                self.sweep.stage = Stage::Ends { class_min, slow_alone, excess };
            }
        }
        if left > 0 {
            self.next_stage(now);
        }
        matches!(self.sweep.stage, Stage::Rests)
    }

    /// The next session that keeps something which does not go by itself; `None` when there is none, or with nothing `left` of the
    /// budget.
    fn next_hoard(&mut self, now: Millis, left: &mut usize) -> Option<(u32, Hoard)> {
        while *left > 0 && self.sweep.from < self.table.slots() {
            *left -= 1;
            let slot = self.sweep.from;
            self.sweep.from += 1;
            let Some(session) = self.table.get_mut(slot) else { continue };
            let Some(kept) = session.kcp.kept(now) else { continue };
            *left = left.saturating_sub(kept.segments / SEGMENTS_PER_SLOT);
            if let Some(hoard) = self.sweep.hoard_of(&kept, session.tie != Tie::Free) {
                return Some((slot, hoard));
            }
        }
        None
    }

    /// All slots were looked at.
    fn next_stage(&mut self, now: Millis) {
        let again = now.add(AGAIN_MS);
        self.sweep.from = 0;
        match self.sweep.stage {
            Stage::Rests => {}
            Stage::Counts => {
                let store = &self.store;
                let (early_max, receipts_max) = (store.early_max(), store.receipts_max());
                match self.sweep.verdict(store.bytes_used(), early_max, receipts_max) {
                    Some(ends) => self.sweep.stage = ends,
                    None => self.sweep.rest(again),
                }
            }
            Stage::Ends { .. } => self.sweep.rest(again),
        }
    }
}

/// Powers of two that bytes times milliseconds can come to.
const CLASSES: usize = 64;

/// What is younger than this is not blamed, in milliseconds: some round trips of a client that is well. Not more, or whoever fills
/// the store in less time than that is never blamed, and those are who wait for room.
const HELD_MS: u64 = 250;

/// What is not acknowledged for so many milliseconds may be blamed as well: some round trips of a client that is far away, or busy.
const SLOW_MS: i32 = 1_000;

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
            let since = START.add(after_ms);
            sweep.class_of(Hoard { since, bytes, early_bytes: 9, reason: EndReason::Unfinished })
        };
        assert_eq!(class(100_000, 3_751), None);
        assert_eq!((class(0, 0), class(100_000, 5_000)), (None, None));
        assert!(class(100_000, 0) > class(100_000, 3_000));
        assert!(class(100_000, 3_000) > class(10_000, 3_000));
        assert!(class(usize::MAX, 0) < Some(CLASSES));
    }

    #[test]
    fn what_a_client_does_not_take_is_its_fault_and_what_its_backend_does_not_take_is_not() {
        let sweep = Sweep::new(START.add(4_000));
        let none = Kept {
            unfinished: None,
            unacknowledged: None,
            segments: 9,
            queues: 1,
            sent: 20,
            in_turn: 300,
            early: 4_000,
        };
        let (young, old) = (Some(START.add(3_001)), Some(START.add(3_000)));
        let hoard = |kept: Kept, has_backend| {
            let hoard = sweep.hoard_of(&kept, has_backend);
            hoard.map(|hoard| (hoard.bytes, hoard.early_bytes, hoard.reason))
        };
        let (shed, unfinished) = (EndReason::Shed, EndReason::Unfinished);
        assert_eq!(hoard(none, false), None);
        assert_eq!(hoard(Kept { unacknowledged: young, ..none }, false), None);
        let slow = Kept { unacknowledged: old, ..none };
        assert_eq!(hoard(slow, false), Some((321, 4_000, shed)), "its messages wait for that");
        assert_eq!(hoard(slow, true), Some((21, 4_000, shed)));
        let begun = Kept { unfinished: young, ..none };
        assert_eq!(hoard(begun, true), Some((301, 4_000, unfinished)));
        assert_eq!(hoard(Kept { in_turn: 0, ..begun }, true), Some((0, 4_001, unfinished)));
        let both = Kept { unfinished: young, ..slow };
        assert_eq!(hoard(both, true), Some((321, 4_000, shed)));
        assert_eq!(sweep.hoard_of(&both, true).map(|hoard| hoard.since), old);
    }

    #[test]
    fn as_few_end_as_are_enough_and_nobody_when_all_are_not() {
        let mut sweep = Sweep::new(START);
        (sweep.slow[10], sweep.slow[20], sweep.unfinished[30]) = (500, 400, 300);
        let class_min = |slow_alone, excess| sweep.class_min(slow_alone, excess);
        assert_eq!((class_min(false, 300), class_min(false, 301)), (Some(30), Some(20)));
        assert_eq!((class_min(false, 1_200), class_min(false, 1_201)), (Some(10), None));
        assert_eq!((class_min(true, 400), class_min(true, 401)), (Some(20), Some(10)));
        assert_eq!((class_min(true, 900), class_min(true, 901)), (Some(10), None));
    }

    #[test]
    fn nobody_ends_where_something_else_can_make_room() {
        let ends = |class_min, excess| Some(Stage::Ends { class_min, slow_alone: false, excess });
        let reason = EndReason::Unfinished;
        let kept = |bytes, early_bytes| Hoard { since: START, bytes, early_bytes, reason };
        let mut sweep = Sweep::new(START.add(1_000));
        let class = |bytes| Sweep::new(START.add(1_000)).class_of(kept(bytes, 0)).unwrap();
        let verdict = |sweep: &Sweep| sweep.verdict(880, 752, 880 - 1);
        sweep.count(kept(60, 780));
        assert_eq!(verdict(&sweep), None, "a backend will have read the other 40");
        sweep.count(kept(0, 10));
        assert_eq!(verdict(&sweep), None, "all but 30 is stuck, but 60 less is no room");
        sweep.count(kept(10, 0));
        assert_eq!(verdict(&sweep), ends(class(10), 880 - 815), "for what comes in its turn");
        (0..2).for_each(|_| sweep.count(kept(40, 0)));
        assert_eq!(verdict(&sweep), ends(class(40), 880 - 752), "for everything");
        assert_eq!(sweep.verdict(879, 752, 879), None, "not full any more");
        // Whoever fills more than half is to blame, whatever else there is.
        let mut sweep = Sweep::new(START.add(1_000));
        (0..11).for_each(|_| sweep.count(kept(40, 0)));
        assert_eq!(verdict(&sweep), None);
        sweep.count(kept(1, 0));
        assert_eq!(verdict(&sweep), ends(class(40), 128));
        // Those who do not take what is there for them go first, if that is enough.
        let slow = |bytes| Hoard { reason: EndReason::Shed, ..kept(bytes, 0) };
        (0..12).for_each(|_| sweep.count(slow(10)));
        assert_eq!(verdict(&sweep), ends(class(40), 128));
        sweep.count(slow(8));
        let slow_alone = Stage::Ends { class_min: class(8), slow_alone: true, excess: 128 };
        assert_eq!(verdict(&sweep), Some(slow_alone));
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
