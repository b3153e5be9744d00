//! Whether the other end of a connection is there, and how far away: pings.

use net_io::Now;

/// One ping at a time, `interval_ms` after the last one was answered.
#[derive(Clone, Debug)]
pub(super) struct Keepalive {
    interval_ms: u32,
    timeout_ms: u32,
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

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// This ping is to be sent.
    Ping { number: u32 },
    /// The last one was not answered in time.
    Timeout,
}

impl Keepalive {
    pub(super) const fn new(now: Now, interval_ms: u32, timeout_ms: u32) -> Self {
        let state = State::Resting { until: now.add_ms(interval_ms) };
        Self { interval_ms, timeout_ms, state, number: 0, rtt_us: None }
    }

    /// The last round trip in microseconds.
    pub(super) const fn rtt_us(&self) -> Option<u64> {
        self.rtt_us
    }

    /// When to ask [`Keepalive::due`] next.
    pub(super) const fn deadline(&self) -> Now {
        match self.state {
            State::Resting { until } => until,
            State::Asked { at, .. } => at.add_ms(self.timeout_ms),
        }
    }

    /// What is due by `now`. A ping counts as sent with this call.
    pub(super) fn due(&mut self, now: Now) -> Option<Due> {
        if now < self.deadline() {
            return None;
        }
        match self.state {
            State::Asked { .. } => Some(Due::Timeout),
            State::Resting { .. } => {
                let number = self.number;
                self.number = number.wrapping_add(1);
                self.state = State::Asked { number, at: now };
                Some(Due::Ping { number })
            }
        }
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
        let mut keepalive = Keepalive::new(Now(0), 1000, 300);
        assert_eq!(keepalive.due(Now(999_999)), None);
        assert_eq!(keepalive.due(Now(1_000_000)), Some(Due::Ping { number: 0 }));
        assert_eq!(keepalive.due(Now(1_299_999)), None);
        assert!(!keepalive.on_pong(Now(1_100_000), 1), "another number");
        assert!(keepalive.on_pong(Now(1_100_000), 0));
        assert!(!keepalive.on_pong(Now(1_100_000), 0), "answered already");
        assert_eq!((keepalive.rtt_us(), keepalive.deadline()), (Some(100_000), Now(2_100_000)));
        assert_eq!(keepalive.due(Now(2_100_000)), Some(Due::Ping { number: 1 }));
    }

    #[test]
    fn silence_is_noticed_at_its_deadline() {
        let mut keepalive = Keepalive::new(Now(0), 1000, 300);
        assert_eq!(keepalive.due(Now(1_500_000)), Some(Due::Ping { number: 0 }));
        assert_eq!(keepalive.deadline(), Now(1_800_000));
        assert_eq!(keepalive.due(Now(1_800_000)), Some(Due::Timeout));
    }
}
