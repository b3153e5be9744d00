//! What happens when the memory for bytes that wait is nearly used up: those who hold most of it end.
//!
//! Who holds how much takes a look at every stream and every connection to find out. That is done for a part of them a turn, and
//! twice: first to learn whose end would be enough, then to end them. Until it is done nothing more is taken in from backends:
//! what is free has to last for those who end a message meanwhile.

use kcp_core::Millis;
use net_io::Driver;

use super::{Floor, Upstreams, budget};

/// How far that is.
#[derive(Debug)]
pub(super) struct Shedding {
    stage: Stage,
    /// When the next one may begin.
    at: Millis,
    /// Who is looked at next.
    holder: Holder,
    /// How many hold so many bytes, to the next lower power of two.
    classes: [u32; 32],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There was room, or nobody held anything.
    Rests,
    /// Those who hold something are counted.
    Counts,
    /// Those who hold so many bytes or more end, until there is room.
    Ends { bytes_min: usize },
}

/// Somebody who may hold something: a stream by its link and its slot, or, past the last link, a connection by its slot.
#[derive(Clone, Copy, Debug, Default)]
struct Holder {
    link: u16,
    slot: u32,
}

impl Shedding {
    pub(super) const fn new(now: Millis) -> Self {
        let holder = Holder { link: 0, slot: 0 };
        Self { stage: Stage::Rests, at: now, holder, classes: [0; 32] }
    }

    fn enter(&mut self, stage: Stage) {
        (self.stage, self.holder) = (stage, Holder::default());
    }

    const fn may_begin(&self, now: Millis) -> bool {
        let ahead = self.at.since(now);
        // After a long silence the clock may have wrapped past it.
        ahead <= 0 || ahead > AGAIN_MS.cast_signed()
    }

    fn count(&mut self, bytes: usize) {
        if let Some(class) = bytes.checked_ilog2()
            && let Some(count) = self.classes.get_mut(class as usize)
        {
            *count += 1;
        }
    }

    /// Ending everybody who holds so many bytes frees `excess`: the largest power of two of which that is so.
    fn bytes_min(&self, mut excess: usize) -> usize {
        for (class, count) in self.classes.into_iter().enumerate().rev() {
            let bytes_min = 1 << class;
            excess = excess.saturating_sub(count as usize * bytes_min);
            if excess == 0 {
                return bytes_min;
            }
        }
        1
    }
}

impl Upstreams {
    /// Nine tenths of the pool are used, or were, and nobody has ended for it yet.
    pub(super) fn must_shed(&self, now: Millis) -> bool {
        let short = self.pool.bytes_used() > self.pool.bytes_max() / 10 * 9;
        self.shedding.stage != Stage::Rests || (short && self.shedding.may_begin(now))
    }

    /// When nine tenths of the pool are used: ends the sessions that hold most of it, until eight tenths are. Fewer than one
    /// tenth being free also stops `tcp` reads, so without this some sessions could hold up all others for ever. Tells whether
    /// the budget was enough.
    pub(super) fn shed<D: Driver>(&mut self, driver: &mut D, floor: &mut Floor<'_>) -> bool {
        if !self.must_shed(floor.millis) {
            return true;
        }
        let mut left = budget::HOLDERS;
        let goal = self.pool.bytes_max() / 10 * 8;
        if self.shedding.stage == Stage::Rests {
            self.shedding.enter(Stage::Counts);
            self.shedding.classes = [0; 32];
        }
        if self.shedding.stage == Stage::Counts {
            while let Some((_, bytes)) = self.next_holder(&mut left) {
                self.shedding.count(bytes);
            }
            if left == 0 {
                return false;
            }
            let excess = self.pool.bytes_used().saturating_sub(goal);
            self.shedding.enter(Stage::Ends { bytes_min: self.shedding.bytes_min(excess) });
        }
        let Stage::Ends { bytes_min } = self.shedding.stage else { return false };
        while self.pool.bytes_used() > goal
            && let Some((holder, bytes)) = self.next_holder(&mut left)
        {
            if bytes >= bytes_min {
                self.end_holder(driver, floor, holder);
                left = left.saturating_sub(budget::HOLDER_ENDED);
            }
        }
        let done = self.pool.bytes_used() <= goal;
        if !done && left == 0 {
            return false;
        }
        // Where nobody was left to end, what is used has to go by itself.
        self.shedding.at = if done { floor.millis } else { floor.millis.add(AGAIN_MS) };
        self.shedding.enter(Stage::Rests);
        true
    }

    /// The next one who holds something, and how many bytes; takes those looked at from the budget. `None` at its end, and, with
    /// some left of it, after the last one.
    fn next_holder(&mut self, left: &mut usize) -> Option<(Holder, usize)> {
        while *left > 0 {
            let holder = self.shedding.holder;
            let link = self.links.holders(holder.link);
            if holder.slot >= link.unwrap_or_else(|| self.tcp.slots()) {
                link?;
                self.shedding.holder = Holder { link: holder.link + 1, slot: 0 };
                continue;
            }
            *left -= 1;
            self.shedding.holder.slot += 1;
            let bytes = match link {
                Some(_) => self.links.backlog(holder.link, holder.slot),
                None => self.tcp.backlog(holder.slot),
            };
            if bytes > 0 {
                return Some((holder, bytes));
            }
        }
        None
    }

    fn end_holder<D: Driver>(&mut self, driver: &mut D, floor: &mut Floor<'_>, holder: Holder) {
        let Holder { link, slot } = holder;
        self.pieces += 1;
        if self.links.holders(link).is_some() {
            self.links.shed(link, slot, &mut self.pool, &mut self.desk, floor);
        } else {
            self.tcp.shed(slot, &mut self.pool, &mut self.desk, floor);
            self.tend(driver, floor, slot);
        }
    }
}

/// From one that could not free enough to the next, in milliseconds.
const AGAIN_MS: u32 = 100;
