//! A storm as one worker makes it: who vanishes, who comes, and when. Pure arithmetic, like the schedule.

use std::ops::Range;
use std::time::Duration;

use net_io::Now;

use crate::meter::Window;
use crate::plan::Share;
use crate::scenario::{Clients, Storm};
use crate::schedule::{Ramp, Slot};

/// One worker's part. Sessions are named by the worker's own numbers: first the bystanders, then those that vanish, the
/// newcomers after all others.
#[derive(Debug)]
pub(crate) struct Part {
    /// Those that have not vanished yet.
    vanishing: Range<u32>,
    newcomers: Range<u32>,
    after: Duration,
    within: Duration,
    /// `None` until the load begins.
    begins: Option<Now>,
    arrivals: Ramp,
}

impl Part {
    pub(crate) fn new(storm: &Storm, clients: &Clients, share: Share) -> Self {
        let of = |total: u32| share.of(total);
        let first = clients.bystanders;
        Self {
            vanishing: of(first)..of(first + storm.vanish),
            newcomers: of(clients.sessions)..of(clients.sessions + storm.arrive),
            after: storm.after,
            within: storm.within,
            begins: None,
            arrivals: Ramp::new(Now(0), 0, Duration::ZERO),
        }
    }

    /// The load is measured in `measured`: when the storm rages, which is until its last newcomer was due; one without
    /// newcomers, to the end.
    pub(crate) fn set(&mut self, measured: Window) -> Window {
        let start = Now(measured.start.0.saturating_add(micros(self.after))).min(measured.end);
        let count = self.newcomers.end - self.newcomers.start;
        self.begins = Some(start);
        self.arrivals = Ramp::new(start, count, self.within);
        let end = match self.within {
            Duration::ZERO => measured.end,
            within => Now(start.0.saturating_add(micros(within))).min(measured.end),
        };
        Window { start, end }
    }

    /// Nobody vanishes or comes any more.
    pub(crate) fn stop(&mut self) {
        self.vanishing.end = self.vanishing.start;
        self.arrivals.stop();
    }

    /// The next session to vanish, if it is time.
    pub(crate) fn vanish(&mut self, now: Now) -> Option<u32> {
        self.begins.filter(|begins| *begins <= now)?;
        self.vanishing.next()
    }

    /// When the next session vanishes.
    pub(crate) fn next_deadline(&self) -> Option<Now> {
        self.begins.filter(|_| !self.vanishing.is_empty())
    }

    /// The next newcomer and when it is due.
    pub(crate) fn next_arrival(&self) -> Option<Slot> {
        let Slot { member, at } = self.arrivals.peek()?;
        Some(Slot { member: self.newcomers.start + member, at })
    }

    /// Goes on to the newcomer after the next.
    pub(crate) fn advance(&mut self) {
        self.arrivals.advance();
    }

    /// When the newcomer `local` was due; `None` when it is none.
    pub(crate) fn due(&self, local: u32) -> Option<Now> {
        let newcomer = self.newcomers.contains(&local);
        newcomer.then(|| self.arrivals.due(local - self.newcomers.start))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::scenario::Scenario;
    use crate::sources::Sources;

    const MEASURED: Window = Window { start: Now(1_000), end: Now(9_000) };

    fn parts(workers: u32, storm: &Storm) -> Vec<(Share, Part)> {
        let target: std::net::SocketAddr = "127.0.0.1:4000".parse().unwrap();
        let mut scenario = Scenario::new(target, 100, Sources::single(target.ip()));
        scenario.clients.bystanders = 7;
        let shares = (0..workers).map(|worker| Share { worker, workers });
        shares.map(|share| (share, Part::new(storm, &scenario.clients, share))).collect()
    }

    fn storm() -> Storm {
        let (after, within) = (Duration::from_millis(2), Duration::from_millis(1));
        Storm { vanish: 50, arrive: 30, within, after }
    }

    #[test]
    fn the_workers_parts_are_the_whole() {
        for workers in [1, 2, 3, 7] {
            let (mut gone, mut came) = (BTreeSet::new(), BTreeSet::new());
            for (share, mut part) in parts(workers, &storm()) {
                part.set(MEASURED);
                while let Some(local) = part.vanish(Now(3_000)) {
                    assert!(gone.insert(share.number(local)) && part.due(local).is_none());
                }
                while let Some(slot) = part.next_arrival() {
                    assert_eq!(part.due(slot.member), Some(slot.at));
                    assert!((3_000..4_000).contains(&slot.at.0), "{slot:?}");
                    assert!(came.insert(share.number(slot.member)));
                    part.advance();
                }
            }
            assert!(gone.into_iter().eq(7..57) && came.into_iter().eq(100..130), "{workers}");
        }
    }

    #[test]
    fn it_begins_in_the_measured_time_and_not_before() {
        let (_, mut part) = parts(1, &storm()).remove(0);
        assert_eq!((part.vanish(Now(u64::MAX)), part.next_arrival()), (None, None));
        assert_eq!(part.set(MEASURED), Window { start: Now(3_000), end: Now(4_000) });
        assert_eq!((part.vanish(Now(2_999)), part.next_deadline()), (None, Some(Now(3_000))));
        assert_eq!(part.vanish(Now(3_000)), Some(7));
        part.stop();
        assert_eq!((part.vanish(Now(3_000)), part.next_arrival()), (None, None));
        assert_eq!(part.next_deadline(), None);
    }

    #[test]
    fn without_newcomers_it_lasts_to_the_end() {
        let avalanche = Storm { vanish: 93, arrive: 0, within: Duration::ZERO, ..storm() };
        let (_, mut part) = parts(1, &avalanche).remove(0);
        assert_eq!(part.set(MEASURED), Window { start: Now(3_000), end: Now(9_000) });
        assert_eq!(std::iter::from_fn(|| part.vanish(Now(3_000))).count(), 93);
    }
}
