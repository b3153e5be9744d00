//! Whether the next turn begins at once, and how long busy turns take.
//!
//! The clock is read once a turn, after the wait. So a turn's length is known from the next reading, if the driver did not
//! wait between the two. A turn that did much is therefore followed by one that polls: an early system call in hundreds of
//! datagrams. A turn that did little is short, and is not timed.

use net_io::Now;

/// What one turn leaves for the next.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// A budget ended before the work did.
    unfinished: bool,
    /// The beginning of the last turn, if it is being timed.
    busy_since: Option<Now>,
    /// Work done since the start, in datagrams and timers.
    done: u64,
}

impl Pace {
    /// A turn begins at `now`. Returns the length of the one before, in microseconds, if it was busy.
    pub(super) fn begin(&mut self, now: Now) -> Option<u64> {
        let since = self.busy_since.take()?;
        Some(now.0.saturating_sub(since.0))
    }

    /// The turn that began at `began` is over; `done` counts all work since the start.
    pub(super) fn end(&mut self, began: Now, done: u64, finished: bool) {
        let much = done.saturating_sub(self.done) >= MUCH;
        (self.unfinished, self.done) = (!finished, done);
        self.busy_since = (much || !finished).then_some(began);
    }

    /// The next turn must not wait.
    pub(super) const fn hurries(&self) -> bool {
        self.unfinished || self.busy_since.is_some()
    }
}

/// Datagrams and timers that make a turn worth timing: half a millisecond's work or less.
const MUCH: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_turns_are_timed_and_hurry() {
        let mut pace = Pace::default();
        assert_eq!(pace.begin(Now(10)), None);
        pace.end(Now(10), MUCH - 1, true);
        assert!(!pace.hurries());
        assert_eq!(pace.begin(Now(1_000)), None, "it may have waited");
        pace.end(Now(1_000), 2 * MUCH, true);
        assert!(pace.hurries());
        assert_eq!(pace.begin(Now(1_700)), Some(700));
        pace.end(Now(1_700), 2 * MUCH, false);
        assert!(pace.hurries());
        assert_eq!(pace.begin(Now(1_701)), Some(1));
        pace.end(Now(1_701), 2 * MUCH, true);
        assert!(!pace.hurries());
    }
}
