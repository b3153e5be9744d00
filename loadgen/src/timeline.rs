//! The load from its beginning to its end, as one worker sees it.

use std::time::Duration;

use kcp_core::Millis;
use net_io::Now;

use crate::meter::Window;
use crate::plan::Share;
use crate::scenario::{Load, Scenario};
use crate::schedule::{Round, Slot};
use crate::seed::low32;

/// Where a worker is in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Sessions start and are silent once established, until all workers are told to go on.
    Ramp,
    /// Load, not measured yet.
    Warmup,
    /// Load, measured.
    Measure,
    /// No more messages; echoes are still awaited.
    Drain,
    /// Nothing more will happen.
    Done,
}

/// The load and its end.
#[derive(Debug)]
pub(crate) struct Timeline {
    window: Window,
    give_up: Now,
    /// Sessions below this are bystanders.
    bystanders: u32,
    /// The bystanders' and everybody else's.
    paces: [Pace; 2],
}

#[derive(Debug)]
enum Pace {
    Idle,
    /// Sessions below `primed` of those below `end` have got their first messages; after that each echo calls for the next.
    Closed {
        outstanding: u32,
        primed: u32,
        end: u32,
    },
    /// Member `n` of the round is session `first + n`.
    Open {
        round: Round,
        first: u32,
        late_max_us: u64,
    },
}

/// Something to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The first messages of this session's closed loop.
    Prime(u32),
    /// One message by the schedule.
    Slot(Slot),
}

impl Timeline {
    /// A load that begins now.
    pub(crate) fn new(scenario: &Scenario, share: Share, now: Now) -> Self {
        let Scenario { phases, traffic, clients, .. } = scenario;
        let bystanders = share.of(clients.bystanders);
        let pace = |load, first: u32, end: u32| match load {
            Load::Idle => Pace::Idle,
            Load::Closed { outstanding } => Pace::Closed { outstanding, primed: first, end },
            Load::Open { period } => Pace::Open {
                round: Round::new(now, end - first, period, share.worker, share.workers),
                first,
                late_max_us: micros(period).clamp(LATE_MIN_US, LATE_MAX_US),
            },
        };
        let paces = [
            pace(traffic.bystanders.unwrap_or(traffic.load), 0, bystanders),
            pace(traffic.load, bystanders, share.of(clients.sessions)),
        ];
        let start = Now(now.0 + micros(phases.warmup));
        let end = Now(start.0 + micros(phases.duration));
        let give_up = Now(end.0 + micros(phases.drain));
        Self { window: Window { start, end }, give_up, bystanders, paces }
    }

    /// No load any more, whatever `window` was; echoes are awaited no longer than `within`.
    pub(crate) fn stopped(window: Window, now: Now, within: Duration) -> Self {
        let end = now.min(window.end);
        let window = Window { start: window.start.min(end), end };
        let give_up = Now(now.0 + micros(within));
        Self { window, give_up, bystanders: 0, paces: [Pace::Idle, Pace::Idle] }
    }

    /// What is measured.
    pub(crate) const fn window(&self) -> Window {
        self.window
    }

    /// Where the run stands; `waiting` = echoes have not come yet.
    pub(crate) fn stage(&self, now: Now, waiting: bool) -> Stage {
        // A slot just before the end may be sent just after it.
        let unsent = self.paces.iter().any(|pace| pace.next_slot(self.window).is_some());
        let unfinished = waiting || unsent;
        if now < self.window.start {
            Stage::Warmup
        } else if now < self.window.end {
            Stage::Measure
        } else if unfinished && now < self.give_up {
            Stage::Drain
        } else {
            Stage::Done
        }
    }

    /// When the next stage begins or a message is due: of a dense schedule, when the next few are.
    pub(crate) fn next_deadline(&self, now: Now) -> Option<Now> {
        let Self { window, give_up, paces, .. } = self;
        let stage_end = [window.start, window.end, *give_up].into_iter().find(|end| now < *end);
        let sending = paces.iter().filter_map(|pace| match pace {
            Pace::Open { .. } => {
                pace.next_slot(*window).map(|slot| slot.at.max(Now(now.0 + GRAIN_US)))
            }
            Pace::Closed { primed, end, .. } => (primed < end && now < window.end).then_some(now),
            Pace::Idle => None,
        });
        stage_end.into_iter().chain(sending).min()
    }

    /// What is due by now, taken off the schedule. Slots that are too late for that are given up and added to `missed`.
    pub(crate) fn pop(&mut self, now: Now, missed: &mut u64) -> Option<Due> {
        let window = self.window;
        self.paces.iter_mut().find_map(|pace| pace.pop(now, window, missed))
    }

    /// Closed loop: how many messages session `local` shall have on the way; 0 before its first and after the end.
    pub(crate) fn outstanding(&self, now: Now, local: u32) -> u32 {
        match self.paces[usize::from(local >= self.bystanders)] {
            Pace::Closed { outstanding, primed, .. } if local < primed && now < self.window.end => {
                outstanding
            }
            Pace::Closed { .. } | Pace::Open { .. } | Pace::Idle => 0,
        }
    }
}

impl Pace {
    /// The schedule's next message, if it is due before the end.
    fn next_slot(&self, window: Window) -> Option<Slot> {
        match self {
            Self::Open { round, .. } => round.peek().filter(|slot| slot.at < window.end),
            Self::Closed { .. } | Self::Idle => None,
        }
    }

    /// As [`Timeline::pop`].
    fn pop(&mut self, now: Now, window: Window, missed: &mut u64) -> Option<Due> {
        match self {
            Self::Idle => None,
            Self::Closed { primed, end, .. } => {
                let local = *primed;
                if local >= *end || now >= window.end {
                    return None;
                }
                *primed += 1;
                Some(Due::Prime(local))
            }
            Self::Open { round, first, late_max_us } => {
                let too_late = now.0.saturating_sub(*late_max_us).min(window.end.0);
                *missed += round.skip_before(Now(too_late));
                let Slot { member, at } = round.peek()?;
                if at > now || at >= window.end {
                    return None;
                }
                round.advance();
                Some(Due::Slot(Slot { member: *first + member, at }))
            }
        }
    }
}

/// The protocol's clock: the driver's, in milliseconds, wrapping.
pub(crate) fn millis(now: Now) -> Millis {
    Millis(low32(now.as_millis()))
}

/// The driver's time of a protocol deadline that lies within 24 days of `now`.
pub(crate) fn at_millis(now: Now, deadline: Millis) -> Now {
    let ahead = deadline.since(millis(now));
    Now(now.as_millis().saturating_add_signed(i64::from(ahead)) * 1000)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4)
}

/// Slots closer than this to each other, in microseconds, may leave together: a wait and a system call for each would cost this
/// process half of its core. What a message waits for that counts in its latency.
const GRAIN_US: u64 = 50;
/// A slot is given up when the session's next one is due, but not before 100 ms and not after 1 s.
const LATE_MIN_US: u64 = 100_000;
const LATE_MAX_US: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Sources;

    const SHARE: Share = Share { worker: 0, workers: 1 };

    fn timeline(load: Load) -> Timeline {
        let target: std::net::SocketAddr = "127.0.0.1:4000".parse().unwrap();
        let mut scenario = Scenario::new(target, 2, Sources::single(target.ip()));
        scenario.traffic.load = load;
        scenario.phases.warmup = Duration::from_millis(1);
        scenario.phases.duration = Duration::from_millis(2);
        scenario.phases.drain = Duration::from_millis(4);
        Timeline::new(&scenario, SHARE, Now(10_000))
    }

    #[test]
    fn stages_follow_each_other() {
        let idle = timeline(Load::Idle);
        let stages =
            [10_999, 11_000, 12_999, 13_000, 16_999, 17_000].map(|at| idle.stage(Now(at), true));
        use Stage::{Done, Drain, Measure, Warmup};
        assert_eq!(stages, [Warmup, Measure, Measure, Drain, Drain, Done]);
        assert_eq!(idle.stage(Now(13_000), false), Done);
        let ends = [10_000, 11_000, 13_000].map(|at| idle.next_deadline(Now(at)).unwrap().0);
        assert_eq!(ends, [11_000, 13_000, 17_000]);
        assert_eq!(idle.next_deadline(Now(17_000)), None);
    }

    #[test]
    fn the_last_slots_are_sent_after_the_end_if_they_must() {
        let mut open = timeline(Load::Open { period: Duration::from_millis(1) });
        let mut missed = 0;
        let mut due = Vec::new();
        while let Some(next) = open.pop(Now(13_100), &mut missed) {
            assert_eq!(open.stage(Now(13_100), false) == Stage::Drain, due.len() < 5);
            due.push(next);
        }
        let slot = |member, at| Due::Slot(Slot { member, at: Now(at) });
        assert_eq!(due[..2], [slot(0, 10_000), slot(1, 10_500)]);
        assert_eq!((due.len(), due[5], missed), (6, slot(1, 12_500), 0));
    }

    #[test]
    fn slots_that_are_too_late_are_given_up() {
        let mut open = timeline(Load::Open { period: Duration::from_millis(1) });
        let mut missed = 0;
        assert_eq!(
            open.pop(Now(10_000 + LATE_MIN_US + 1_200), &mut missed),
            Some(Due::Slot(Slot { member: 1, at: Now(11_500) }))
        );
        assert_eq!(missed, 3);
        assert_eq!(open.pop(Now(1_000_000), &mut missed), None);
        assert_eq!(missed, 5);
    }

    #[test]
    fn a_closed_loop_is_primed_once_and_ends_in_time() {
        let mut closed = timeline(Load::Closed { outstanding: 7 });
        let mut missed = 0;
        assert_eq!(closed.outstanding(Now(10_000), 0), 0);
        assert_eq!(closed.next_deadline(Now(10_000)), Some(Now(10_000)));
        assert_eq!(closed.pop(Now(10_000), &mut missed), Some(Due::Prime(0)));
        assert_eq!(closed.pop(Now(10_000), &mut missed), Some(Due::Prime(1)));
        assert_eq!(closed.pop(Now(10_000), &mut missed), None);
        assert_eq!(
            (closed.outstanding(Now(12_999), 1), closed.outstanding(Now(13_000), 1)),
            (7, 0)
        );
        assert_eq!(closed.next_deadline(Now(10_000)), Some(Now(11_000)));
    }

    #[test]
    fn bystanders_have_a_schedule_of_their_own() {
        let target: std::net::SocketAddr = "127.0.0.1:4000".parse().unwrap();
        let mut scenario = Scenario::new(target, 10, Sources::single(target.ip()));
        scenario.clients.bystanders = 3;
        scenario.traffic.load = Load::Closed { outstanding: 4 };
        scenario.traffic.bystanders = Some(Load::Open { period: Duration::from_millis(3) });
        let mut load = Timeline::new(&scenario, SHARE, Now(0));
        let mut due = Vec::new();
        while let Some(next) = load.pop(Now(1_999), &mut 0) {
            due.push(next);
        }
        let slot = |member, at| Due::Slot(Slot { member, at: Now(at) });
        assert_eq!(due[..2], [slot(0, 0), slot(1, 1_000)]);
        assert!(due[2..].iter().copied().eq((3..10).map(Due::Prime)), "{due:?}");
        assert_eq!(load.next_deadline(Now(1_200)), Some(Now(2_000)));
        assert_eq!(load.next_deadline(Now(1_999)), Some(Now(1_999 + GRAIN_US)), "with what comes");
        assert_eq!((load.outstanding(Now(5), 2), load.outstanding(Now(5), 3)), (0, 4));
    }

    #[test]
    fn stopping_shortens_the_window() {
        let window = timeline(Load::Idle).window();
        let stopped = |at| Timeline::stopped(window, Now(at), Duration::from_millis(1)).window();
        assert_eq!((stopped(10_500).start.0, stopped(10_500).end.0), (10_500, 10_500));
        assert_eq!((stopped(12_000).start.0, stopped(12_000).end.0), (11_000, 12_000));
        assert_eq!(stopped(20_000), window);
    }

    #[test]
    fn the_two_clocks_agree_across_the_wrap() {
        for now in
            [Now(0), Now(5_000_999), Now((1 << 32) * 1000 - 1500), Now(u64::from(u32::MAX) * 5000)]
        {
            for ahead in [0, 1, 999, 86_400_000] {
                let due = at_millis(now, millis(now).add(ahead));
                assert_eq!(due, Now((now.as_millis() + u64::from(ahead)) * 1000));
            }
        }
        let late = at_millis(Now(9_000_000), Millis(8_000));
        assert_eq!(late, Now(8_000_000));
    }
}
