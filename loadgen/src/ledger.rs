//! Send times of messages too small to carry them: one first-in-first-out list per session in one shared pool.

use net_io::Now;

/// A session's list: the newest and the oldest entry in the pool, or `NONE`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    newest: u32,
    oldest: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { newest: NONE, oldest: NONE }
    }
}

/// When a message should have left and how much later it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Times {
    /// When it should have left.
    pub(crate) intended: Now,
    /// How many microseconds later it left.
    pub(crate) lag_us: u32,
}

/// The pool: grows to the most messages ever in flight at once, 24 bytes each.
#[derive(Debug)]
pub(crate) struct Ledger {
    entries: Vec<Entry>,
    free: u32,
}

#[derive(Debug)]
struct Entry {
    times: Times,
    /// The entry after this one, in its list or in the list of free ones.
    next: u32,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { entries: Vec::new(), free: NONE }
    }
}

impl Ledger {
    /// Appends to `list`. With 2^32 − 1 entries in flight the times are dropped.
    pub(crate) fn push(&mut self, list: &mut List, times: Times) {
        let index = self.free;
        let index = if let Some(entry) = self.entries.get_mut(index as usize) {
            self.free = entry.next;
            *entry = Entry { times, next: NONE };
            index
        } else {
            let Some(index) = u32::try_from(self.entries.len()).ok().filter(|&n| n != NONE) else {
                return;
            };
            self.entries.push(Entry { times, next: NONE });
            index
        };
        match self.entries.get_mut(list.newest as usize) {
            Some(newest) => newest.next = index,
            None => list.oldest = index,
        }
        list.newest = index;
    }

    /// Takes the oldest of `list`.
    pub(crate) fn pop(&mut self, list: &mut List) -> Option<Times> {
        let index = list.oldest;
        let entry = self.entries.get_mut(index as usize)?;
        list.oldest = entry.next;
        if list.oldest == NONE {
            list.newest = NONE;
        }
        entry.next = self.free;
        self.free = index;
        Some(entry.times)
    }
}

const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_share_the_pool_and_keep_their_order() {
        let times = |n| Times { intended: Now(n), lag_us: 0 };
        let mut ledger = Ledger::default();
        let mut lists = [List::default(); 3];
        let mut expected = [const { std::collections::VecDeque::new() }; 3];
        let seed = crate::seed::fresh();
        for step in 0..10_000_u64 {
            let random = crate::seed::mix64(seed ^ step);
            let which = (random % 3) as usize;
            if random >> 63 == 0 && expected[which].len() < 50 {
                ledger.push(&mut lists[which], times(step));
                expected[which].push_back(times(step));
            } else {
                let want = expected[which].pop_front();
                assert_eq!(ledger.pop(&mut lists[which]), want, "seed {seed} step {step}");
            }
        }
        assert!(ledger.entries.len() <= 150, "{} entries", ledger.entries.len());
    }
}
