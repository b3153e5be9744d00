//! How long the other side may stand still, in time that was seen to pass.

use net_io::Now;

/// A wait for the other side to move.
///
/// It is over when both halves of its time have passed, and each is looked at for itself: of a pause of our own (a process that
/// was stopped, a machine that was moved, a core that somebody else had) only one half counts, and what the other side
/// did meanwhile is heard before the other half is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// When the half under way began.
    since: Now,
    second_half: bool,
}

impl Patience {
    pub(super) const fn new(now: Now) -> Self {
        Self { since: now, second_half: false }
    }

    /// When to ask [`Patience::is_over`] next, of a wait of `whole_ms`.
    pub(super) const fn deadline(&self, whole_ms: u32) -> Now {
        self.since.add_ms(half(whole_ms))
    }

    /// Whether the other side has stood still for `whole_ms`. Each half ends with a call.
    pub(super) fn is_over(&mut self, now: Now, whole_ms: u32) -> bool {
        if now < self.deadline(whole_ms) {
            return false;
        }
        self.since = now;
        std::mem::replace(&mut self.second_half, true)
    }
}

/// Half of a wait in milliseconds.
pub(super) const fn half(whole_ms: u32) -> u32 {
    whole_ms.div_ceil(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_are_seen() {
        let mut patience = Patience::new(Now(0));
        assert_eq!(patience.deadline(1001), Now(501_000));
        assert!(!patience.is_over(Now(500_999), 1001));
        assert!(!patience.is_over(Now(501_000), 1001));
        assert_eq!(patience.deadline(1001), Now(1_002_000));
        assert!(!patience.is_over(Now(1_001_999), 1001));
        assert!(patience.is_over(Now(1_002_000), 1001));
    }

    #[test]
    fn a_pause_of_ours_is_half_of_it_at_most() {
        let mut patience = Patience::new(Now(0));
        let woken = Now(3_600_000_000);
        assert!(!patience.is_over(woken, 10_000), "an hour in which nobody looked");
        assert_eq!(patience.deadline(10_000), woken.add_ms(5_000));
    }
}
