//! When the applications of slow clients take the messages that came.

use std::time::Duration;

use net_io::Now;

use crate::plan::Share;
use crate::scenario::{Load, Scenario};
use crate::schedule::Round;

/// Until the load ends, all sessions but the bystanders leave what comes in their protocol's receive queue, and take one message of
/// it at a time, by schedule or never: their receive windows close. Then each takes all there is, and what comes at once.
#[derive(Debug)]
pub(crate) struct Reading {
    round: Option<Round>,
    /// The first that is slow.
    first: u32,
    until: Now,
    /// After that: the next one to take all there is.
    next: u32,
    end: u32,
}

/// What a session's application takes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// One message, if there is one.
    One(u32),
    /// Everything.
    All(u32),
}

impl Reading {
    /// Of a load that lasts from `now` to `until`; `None` when nobody is slow.
    pub(crate) fn new(scenario: &Scenario, share: Share, now: Now, until: Now) -> Option<Self> {
        let first = share.of(scenario.clients.bystanders);
        let end = share.of(scenario.clients.sessions);
        let round =
            |period: Duration| Round::new(now, end - first, period, share.worker, share.workers);
        let round = match scenario.traffic.reads? {
            Load::Open { period } => Some(round(period)),
            Load::Idle | Load::Closed { .. } => None,
        };
        Some(Self { round, first, until, next: first, end })
    }

    /// The load ends now, if it has not ended.
    pub(crate) fn stop(&mut self, now: Now) {
        self.until = self.until.min(now);
    }

    /// What comes for session `local` waits to be taken.
    pub(crate) fn holds(&self, now: Now, local: u32) -> bool {
        now < self.until && local >= self.first
    }

    /// The next that is due by now.
    pub(crate) fn pop(&mut self, now: Now) -> Option<Take> {
        if now >= self.until {
            let local = self.next;
            self.next += 1;
            return (local < self.end).then_some(Take::All(local));
        }
        let round = self.round.as_mut()?;
        let slot = round.peek().filter(|slot| slot.at <= now)?;
        round.advance();
        Some(Take::One(self.first + slot.member))
    }

    /// When something is due next.
    pub(crate) fn next_deadline(&self, now: Now) -> Option<Now> {
        if now >= self.until {
            return (self.next < self.end).then_some(now);
        }
        let slot = self.round.as_ref().and_then(Round::peek);
        Some(slot.map_or(self.until, |slot| slot.at.min(self.until)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Sources;

    fn reading(reads: Option<Load>) -> Option<Reading> {
        let target: std::net::SocketAddr = "127.0.0.1:4000".parse().unwrap();
        let mut scenario = Scenario::new(target, 5, Sources::single(target.ip()));
        scenario.clients.bystanders = 3;
        scenario.traffic.reads = reads;
        let share = Share { worker: 0, workers: 1 };
        Reading::new(&scenario, share, Now(1_000), Now(9_000))
    }

    fn all(reading: &mut Reading, now: u64) -> Vec<Take> {
        std::iter::from_fn(|| reading.pop(Now(now))).collect()
    }

    #[test]
    fn who_takes_nothing_takes_everything_at_the_end() {
        assert!(reading(None).is_none());
        let mut idle = reading(Some(Load::Idle)).unwrap();
        let holds = |reading: &Reading, at| [2, 3, 4].map(|n| reading.holds(Now(at), n));
        assert_eq!(holds(&idle, 8_999), [false, true, true], "bystanders never wait");
        assert_eq!(holds(&idle, 9_000), [false; 3]);
        assert_eq!(
            (all(&mut idle, 8_999), idle.next_deadline(Now(8_999))),
            (vec![], Some(Now(9_000)))
        );
        assert_eq!(idle.next_deadline(Now(9_000)), Some(Now(9_000)));
        assert_eq!(all(&mut idle, 9_000), [Take::All(3), Take::All(4)]);
        assert_eq!(idle.next_deadline(Now(9_000)), None);
    }

    #[test]
    fn a_pace_is_kept_until_the_end() {
        let period = Duration::from_millis(4);
        let mut slow = reading(Some(Load::Open { period })).unwrap();
        assert_eq!(slow.next_deadline(Now(1_000)), Some(Now(1_000)));
        assert_eq!(all(&mut slow, 5_500), [Take::One(3), Take::One(4), Take::One(3)]);
        assert_eq!(slow.next_deadline(Now(5_500)), Some(Now(7_000)));
        slow.stop(Now(6_000));
        assert_eq!(all(&mut slow, 6_000), [Take::All(3), Take::All(4)]);
    }
}
