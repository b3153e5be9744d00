//! Whether the other end of a connection is there, and how far away: pings.

use net_io::Now;

/// One ping at a time, `interval_ms` after the last one was answered. How long an answer may take is its owner's to say.
#[derive(Clone, Debug)]
pub(super) struct Keepalive {
    interval_ms: u32,
    state: State,
    /// The next ping's number, wrapping.
    number: u32,
    rtt_us: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Resting { until: Now },
    Asked { number: u32, at: Now },
}

impl Keepalive {
    pub(super) const fn new(now: Now, interval_ms: u32) -> Self {
        let state = State::Resting { until: now.add_ms(interval_ms) };
        Self { interval_ms, state, number: 0, rtt_us: None }
    }

    /// The last round trip in microseconds.
    pub(super) const fn rtt_us(&self) -> Option<u64> {
        self.rtt_us
    }

    /// A ping waits for its answer.
    pub(super) const fn is_asking(&self) -> bool {
        matches!(self.state, State::Asked { .. })
    }

    /// When the next ping is due, unless one waits for its answer.
    pub(super) const fn deadline(&self) -> Option<Now> {
        match self.state {
            State::Resting { until } => Some(until),
            State::Asked { .. } => None,
        }
    }

    /// The number of the ping that is due by `now`; it counts as sent with this call.
    pub(super) fn due(&mut self, now: Now) -> Option<u32> {
        self.deadline().filter(|&at| at <= now)?;
        let number = self.number;
        self.number = number.wrapping_add(1);
        self.state = State::Asked { number, at: now };
        Some(number)
    }

    /// An answer came. `false` when it answers no question of ours.
    pub(super) fn on_pong(&mut self, now: Now, answered: u32) -> bool {
        match self.state {
            State::Asked { number, at } if number == answered => {
                self.rtt_us = Some(now.0.saturating_sub(at.0));
                self.state = State::Resting { until: now.add_ms(self.interval_ms) };
                true
            }
            State::Asked { .. } | State::Resting { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ping_at_a_time_and_its_round_trip() {
        let mut keepalive = Keepalive::new(Now(0), 1000);
        assert_eq!(keepalive.due(Now(999_999)), None);
        assert_eq!(keepalive.due(Now(1_000_000)), Some(0));
        assert!(keepalive.is_asking());
        assert_eq!((keepalive.deadline(), keepalive.due(Now(9_000_000))), (None, None));
        assert!(!keepalive.on_pong(Now(1_100_000), 1), "another number");
        assert!(keepalive.on_pong(Now(1_100_000), 0));
        assert!(!keepalive.on_pong(Now(1_100_000), 0), "answered already");
        let next = Some(Now(2_100_000));
        assert_eq!((keepalive.rtt_us(), keepalive.deadline()), (Some(100_000), next));
        assert_eq!(keepalive.due(Now(2_100_000)), Some(1));
    }
}
