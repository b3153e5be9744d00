//! When things are due: pure arithmetic on the run's clock, so that a schedule of millions costs a few words.
//!
//! All sessions have the same rate, so an evenly spaced schedule is a fixed round: slot `k` belongs to session
//! `k mod n`, and its intended time is a multiplication. No heap of timers, and no rounding to the wheel's millisecond.

use std::time::Duration;

use net_io::Now;

/// An endless round over `members`, each member's turns one period apart, the members spread evenly over the period.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    start: Now,
    members: u32,
    period_ns: u64,
    /// Rounded down: the last gap of a cycle is longer by less than `members` nanoseconds, and nothing drifts.
    step_ns: u64,
    cycle_ns: u64,
    member: u32,
}

/// A turn of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Whose turn it is.
    pub(crate) member: u32,
    /// The time it is due, in microseconds, rounded down.
    pub(crate) at: Now,
}

impl Round {
    /// The first slot is at `start`, or at most `period / members` after it: `phase` (0 to `phases` − 1) places the rounds of
    /// several workers evenly between each other.
    #[must_use]
    pub(crate) fn new(start: Now, members: u32, period: Duration, phase: u32, phases: u32) -> Self {
        let period_ns =
            u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).clamp(1, PERIOD_NS_MAX);
        let step_ns = period_ns / u64::from(members.max(1));
        let shift_ns = step_ns / u64::from(phases.max(1)) * u64::from(phase);
        Self { start, members, period_ns, step_ns, cycle_ns: shift_ns, member: 0 }
    }

    /// The next slot; `None` when there are no members.
    #[must_use]
    pub(crate) fn peek(&self) -> Option<Slot> {
        let at = Now(self.start.0 + self.next_ns() / 1000);
        (self.members > 0).then_some(Slot { member: self.member, at })
    }

    /// Goes on to the slot after the next.
    pub(crate) fn advance(&mut self) {
        self.member += 1;
        if self.member >= self.members {
            self.member = 0;
            self.cycle_ns += self.period_ns;
        }
    }

    /// Goes past all slots before `at`; returns how many those were.
    pub(crate) fn skip_before(&mut self, at: Now) -> u64 {
        let elapsed_ns = at.0.saturating_sub(self.start.0).saturating_mul(1000);
        let past_ns = elapsed_ns.saturating_sub(self.cycle_ns);
        let members = u64::from(self.members);
        let cycles = past_ns / self.period_ns;
        let rest_ns = past_ns % self.period_ns;
        let within = match self.step_ns {
            // More members than nanoseconds: the slots of a cycle fall together.
            0 => members * u64::from(rest_ns > 0),
            step_ns => rest_ns.div_ceil(step_ns).min(members),
        };
        let skipped = (cycles * members + within).saturating_sub(u64::from(self.member));
        if skipped == 0 {
            return 0;
        }
        let position = u64::from(self.member) + skipped;
        self.cycle_ns += position / members * self.period_ns;
        self.member = u32::try_from(position % members).unwrap_or(0);
        skipped
    }

    /// The next slot's time since the start.
    fn next_ns(&self) -> u64 {
        self.cycle_ns + u64::from(self.member) * self.step_ns
    }
}

/// A start at a constant rate: member `n` is due at `start + n * step`.
#[derive(Clone, Debug)]
pub(crate) struct Ramp {
    start: Now,
    step_ns: u64,
    next: u32,
    members: u32,
}

impl Ramp {
    /// `members` starts within `within`; all at once when it is zero.
    #[must_use]
    pub(crate) fn new(start: Now, members: u32, within: Duration) -> Self {
        let total_ns = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX).min(PERIOD_NS_MAX);
        Self { start, step_ns: total_ns / u64::from(members.max(1)), next: 0, members }
    }

    /// The next start, or `None` when all have started.
    #[must_use]
    pub(crate) fn peek(&self) -> Option<Slot> {
        (self.next < self.members).then(|| Slot { member: self.next, at: self.due(self.next) })
    }

    /// Nobody starts any more.
    pub(crate) fn stop(&mut self) {
        self.members = self.next;
    }

    /// When `member` was or will be due.
    #[must_use]
    pub(crate) fn due(&self, member: u32) -> Now {
        Now(self.start.0 + u64::from(member) * self.step_ns / 1000)
    }

    /// Goes on to the start after the next.
    pub(crate) fn advance(&mut self) {
        self.next += 1;
    }
}

/// One week. Longer periods are cut to it, which keeps the sums of this file below 2^64 for a run of centuries.
const PERIOD_NS_MAX: u64 = 7 * 86_400 * 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_even_and_never_drifts() {
        let mut round = Round::new(Now(1_000_000), 3, Duration::from_millis(10), 0, 1);
        let slots: Vec<Slot> = std::iter::from_fn(|| {
            let slot = round.peek();
            round.advance();
            slot
        })
        .take(3_000_001)
        .collect();
        assert_eq!(slots[0], Slot { member: 0, at: Now(1_000_000) });
        assert_eq!(slots[1], Slot { member: 1, at: Now(1_003_333) });
        assert_eq!(slots[2], Slot { member: 2, at: Now(1_006_666) });
        assert_eq!(slots[3_000_000], Slot { member: 0, at: Now(1_000_000 + 10_000_000_000) });
        assert!(slots.windows(2).all(|pair| pair[0].at <= pair[1].at));
    }

    #[test]
    fn skipping_is_advancing() {
        let period = Duration::from_nanos(10_007);
        for members in [1, 3, 7, 20_000] {
            for to in [0, 4, 5, 6, 10, 11, 15, 100, 12_345] {
                for ahead in [0, 2, 8] {
                    let mut walked = Round::new(Now(5), members, period, 1, 3);
                    (0..ahead).for_each(|_| walked.advance());
                    let mut skipped = walked.clone();
                    let mut count = 0;
                    while walked.next_ns() < (to * 1000_u64).saturating_sub(5000) {
                        walked.advance();
                        count += 1;
                    }
                    assert_eq!(skipped.skip_before(Now(to)), count, "{members} {to} {ahead}");
                    assert_eq!(skipped.peek(), walked.peek(), "{members} {to} {ahead}");
                }
            }
        }
        assert_eq!(Round::new(Now(0), 0, period, 0, 1).skip_before(Now(100)), 0);
    }

    #[test]
    fn workers_interleave() {
        let first =
            |phase| Round::new(Now(0), 10, Duration::from_millis(10), phase, 4).peek().unwrap().at;
        assert_eq!(
            [first(0), first(1), first(2), first(3)],
            [Now(0), Now(250), Now(500), Now(750)]
        );
    }

    #[test]
    fn ten_million_members_once_a_week() {
        let mut round = Round::new(Now(0), 10_000_000, Duration::from_secs(1 << 40), 0, 1);
        for _ in 0..9_999_999 {
            round.advance();
        }
        let last = round.peek().unwrap();
        assert_eq!(last.member, 9_999_999);
        assert!(last.at < Now(PERIOD_NS_MAX / 1000));
        round.advance();
        assert_eq!(round.peek().unwrap(), Slot { member: 0, at: Now(PERIOD_NS_MAX / 1000) });
    }

    #[test]
    fn nobody_has_no_slot() {
        assert_eq!(Round::new(Now(5), 0, Duration::ZERO, 0, 0).peek(), None);
        assert_eq!(Ramp::new(Now(5), 0, Duration::ZERO).peek(), None);
    }

    #[test]
    fn a_ramp_ends_in_time() {
        let mut ramp = Ramp::new(Now(10), 1000, Duration::from_secs(1));
        let mut last = Now(0);
        while let Some(slot) = ramp.peek() {
            last = slot.at;
            ramp.advance();
        }
        assert_eq!(last, Now(10 + 999_000));
        let all_at_once = Ramp::new(Now(10), 7, Duration::ZERO);
        assert_eq!(all_at_once.peek().unwrap().at, Now(10));
    }
}
