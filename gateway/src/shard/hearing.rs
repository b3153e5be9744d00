//! How far the shard is behind what arrives, and whether that is overload.

use kcp_core::{Heard, Millis};

/// What a shard knows of its own lateness.
#[derive(Debug)]
pub(super) struct Hearing {
    heard: Heard,
    /// Whether it is late, and since when it is or is not.
    late: bool,
    since: Millis,
    /// No new sessions before this.
    shed_until: Option<Millis>,
    /// The longest of the last busy turns.
    slow: Option<Slow>,
}

/// A turn's datagrams leave when it is over: those of a long one later than the protocol believes, by so much at most.
#[derive(Debug)]
struct Slow {
    ms: u32,
    until: Millis,
}

impl Hearing {
    /// Nothing has arrived before `now`.
    pub(super) const fn new(now: Millis) -> Self {
        Self { heard: Heard::new(now), late: false, since: now, shed_until: None, slow: None }
    }

    /// What timers are judged by at `now`: everything that arrived until then was taken in, and everything that the protocol sent
    /// by its clock until then has left as long ago as it believes. Never goes back.
    pub(super) fn heard(&self, now: Millis) -> Millis {
        self.heard.at().earliest(Millis(now.0.wrapping_sub(self.slow_ms(now))))
    }

    /// How much later than they say timers are due, in milliseconds. Who waits for one that is due by the clock but not by what was
    /// heard waits as long as this: not at all would be to turn for nothing until more is heard.
    pub(super) fn lag_ms(&self, now: Millis) -> u32 {
        now.since(self.heard(now)).max(0).cast_unsigned()
    }

    /// The length of the longest of the last busy turns.
    fn slow_ms(&self, now: Millis) -> u32 {
        self.slow.as_ref().filter(|slow| now.since(slow.until) < 0).map_or(0, |slow| slow.ms)
    }

    /// The turn before this one, which begins at `now`, took `us` microseconds, sending included.
    pub(super) fn turn_took(&mut self, us: u64, now: Millis) {
        let ms = u32::try_from(us / 1000).map_or(SLOW_FOR_MS, |ms| ms.min(SLOW_FOR_MS));
        if ms >= self.slow_ms(now) {
            self.slow = Some(Slow { ms, until: now.add(SLOW_FOR_MS) });
        }
    }

    /// Milliseconds since everything that had arrived was taken in.
    pub(super) const fn behind_ms(&self, now: Millis) -> u32 {
        self.heard.behind_ms(now)
    }

    /// The turn that began at `now` has taken in all that had arrived.
    pub(super) fn all(&mut self, now: Millis) {
        self.heard.all(now);
        self.judge(now);
    }

    /// It has taken in `taken` datagrams, and there are more; `waiting` tells how many at most.
    pub(super) fn not_all(&mut self, now: Millis, taken: usize, waiting: impl FnOnce() -> usize) {
        self.heard.not_all(now, taken, waiting);
        self.judge(now);
    }

    fn judge(&mut self, now: Millis) {
        let late = self.behind_ms(now) >= LATE_MS;
        if late != self.late {
            (self.late, self.since) = (late, now);
        }
        if late && now.since(self.since) >= SHED_AFTER_MS {
            self.shed_until = Some(now.add(SHED_FOR_MS));
        } else if self.shed_until.is_some_and(|until| now.since(until) >= 0) {
            self.shed_until = None;
        }
    }

    /// Whether new sessions are turned away at `now`, for the sake of those that are there.
    pub(super) fn sheds(&self, now: Millis) -> bool {
        self.shed_until.is_some_and(|until| now.since(until) < 0)
    }

    /// When that ends, if it is so.
    pub(super) const fn next_deadline(&self) -> Option<Millis> {
        self.shed_until
    }
}

/// From here on a shard is late, in milliseconds. A core that is fully used is not: its queue never runs empty, but what is in it
/// is served within a few turns, and a few time slices of somebody else.
const LATE_MS: u32 = 40;

/// Late for this long without a break is overload, in milliseconds. One long pause is not: what it left is taken in sooner.
const SHED_AFTER_MS: i32 = 100;

/// How long new sessions are turned away after the shard was last overloaded, in milliseconds.
const SHED_FOR_MS: u32 = 500;

/// How long a turn's length is remembered, in milliseconds: longer than the timeouts of what it sent, but for the slowest paths.
const SLOW_FOR_MS: u32 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    /// Just below the wrap of the clock.
    fn at(ms: u32) -> Millis {
        Millis((u32::MAX - 300).wrapping_add(ms))
    }

    #[test]
    fn one_long_pause_is_no_overload_and_lasting_lateness_is() {
        let mut hearing = Hearing::new(at(0));
        for ms in 200..250 {
            hearing.not_all(at(ms), 1000, || usize::MAX);
        }
        hearing.all(at(250));
        assert!(!hearing.sheds(at(250)));
        for ms in 251..400 {
            hearing.not_all(at(ms), 1000, || usize::MAX);
        }
        assert!(hearing.sheds(at(400)), "late since 290");
        hearing.all(at(401));
        assert!(hearing.sheds(at(401)), "until it has been well for a while");
        assert_eq!(hearing.next_deadline(), Some(at(899)));
        assert!(!hearing.sheds(at(899)));
        hearing.all(at(900));
        assert_eq!(hearing.next_deadline(), None);
    }

    #[test]
    fn a_shard_whose_queue_never_runs_empty_sheds_nothing_so_long_as_it_is_short() {
        let mut hearing = Hearing::new(at(0));
        for ms in 0..3_000 {
            hearing.not_all(at(ms), 300, || 3_000);
            assert!(!hearing.sheds(at(ms)));
            assert!(hearing.behind_ms(at(ms)) <= 25);
        }
    }

    #[test]
    fn what_a_long_turn_sent_left_at_its_end_and_times_out_from_there() {
        let mut hearing = Hearing::new(at(0));
        hearing.all(at(290));
        hearing.turn_took(60_900, at(351));
        hearing.all(at(351));
        assert_eq!(hearing.heard(at(351)), at(291), "not before the turn that began at 290");
        hearing.turn_took(2_000, at(353));
        hearing.all(at(353));
        assert_eq!((hearing.heard(at(353)), hearing.lag_ms(at(353))), (at(293), 60));
        hearing.turn_took(2_000, at(852));
        hearing.all(at(852));
        assert_eq!((hearing.heard(at(852)), hearing.lag_ms(at(852))), (at(850), 2));
        hearing.not_all(at(870), 1, || usize::MAX);
        assert_eq!(hearing.lag_ms(at(870)), 18, "as long as what waits has to be taken in first");
    }
}
