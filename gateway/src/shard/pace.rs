//! Whether the next turn begins at once, how long busy turns take, and when a step of one must end.
//!
//! What a turn decides by is the clock as it was after the wait. So a turn's length is known from the next turn's, if the driver
//! did not wait between the two. A turn that did much is therefore followed by one that polls: an early system call in
//! hundreds of datagrams. A turn that did little is short, and is not timed.
//!
//! A turn's length is how long others had to wait for it, time included in which the core was somebody else's. Its processor time
//! is what it did itself; where the two differ, the core is shared. That clock is a system call and is read
//! only in turns that do much.

use net_io::{Driver, Now};

use super::budget::LOOK_EVERY;

/// How long a busy turn took, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Took {
    /// By the clock.
    pub(super) us: u64,
    /// Of the processor: the first pieces of work of the first of several busy turns not included. `None` when it was shorter than
    /// those.
    pub(super) cpu_us: Option<u64>,
}

/// What one turn leaves for the next.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// A budget ended before the work did.
    unfinished: bool,
    /// The beginning of the last turn, if it is being timed.
    busy_since: Option<Now>,
    /// Work done since the start, in datagrams, timers, and what happened to connections.
    done: u64,
    /// When this turn began.
    began: Now,
    /// The processor's clock then, once it was read.
    cpu_us: Option<u64>,
    /// Pieces of work until the clock is looked at.
    unwatched: usize,
    /// When the time of this step is over, once the clock was looked at.
    until: Option<Now>,
}

impl Pace {
    /// A turn of `driver` begins. Returns how long the one before took, if it was busy.
    pub(super) fn begin(&mut self, driver: &impl Driver) -> Option<Took> {
        self.began = driver.now();
        let Some(since) = self.busy_since.take() else {
            self.cpu_us = None;
            return None;
        };
        let now_us = driver.cpu_us();
        let before_us = self.cpu_us.replace(now_us);
        Some(Took {
            us: self.began.0.saturating_sub(since.0),
            cpu_us: before_us.map(|before_us| now_us.saturating_sub(before_us)),
        })
    }

    /// A step begins. Its time counts from its first look at the clock: a short step takes none.
    pub(super) const fn step(&mut self) {
        (self.unwatched, self.until) = (LOOK_EVERY, None);
    }

    /// The step has done another `pieces` of work; tells whether it must end, because it has taken `limit_us` microseconds.
    pub(super) fn is_over(&mut self, pieces: usize, limit_us: u64, driver: &impl Driver) -> bool {
        self.unwatched = self.unwatched.saturating_sub(pieces);
        if self.unwatched > 0 {
            return false;
        }
        self.unwatched = LOOK_EVERY;
        if self.cpu_us.is_none() {
            self.cpu_us = Some(driver.cpu_us());
        }
        let now = driver.clock();
        now >= *self.until.get_or_insert(Now(now.0 + limit_us.max(1)))
    }

    /// The turn is over; `done` counts all work since the start.
    pub(super) fn end(&mut self, done: u64, finished: bool) {
        let much = done.saturating_sub(self.done) >= MUCH;
        (self.unfinished, self.done) = (!finished, done);
        self.busy_since = (much || !finished).then_some(self.began);
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
    use net_io::DriverConfig;
    use net_io::sim::{Pace as Clock, SimConfig, SimDriver, SimNet};

    use super::*;

    /// A driver whose clock is moved by waiting, and by `look_us` with every look in between.
    fn driver(look_us: u64) -> SimDriver {
        let net = SimNet::new(&SimConfig { pace: Clock::Wait, ..SimConfig::default() });
        net.set_look_us(look_us);
        SimDriver::new(&net, &DriverConfig::default())
    }

    fn wait(driver: &mut SimDriver, us: u64) {
        let at = Now(driver.now().0 + us);
        assert_eq!(driver.submit_and_wait(Some(at)).unwrap(), at);
    }

    #[test]
    fn busy_turns_are_timed_and_hurry() {
        let (mut pace, mut driver) = (Pace::default(), driver(0));
        let mut done = 0;
        let mut turn = |pace: &mut Pace, us: u64, work: u64, finished: bool| {
            wait(&mut driver, us);
            let took = pace.begin(&driver);
            done += work;
            pace.end(done, finished);
            took.map(|took| (took.us, took.cpu_us))
        };
        assert_eq!(turn(&mut pace, 10, MUCH - 1, true), None);
        assert!(!pace.hurries());
        assert_eq!(turn(&mut pace, 990, MUCH, true), None, "it may have waited");
        assert!(pace.hurries());
        assert_eq!(turn(&mut pace, 700, MUCH, false), Some((700, None)), "nobody looked in time");
        assert!(pace.hurries());
        assert_eq!(turn(&mut pace, 800, 0, true), Some((800, Some(800))));
        assert!(!pace.hurries());
    }

    #[test]
    fn a_step_ends_with_its_time_whatever_the_others_took() {
        let (mut pace, mut driver) = (Pace::default(), driver(100));
        wait(&mut driver, 10);
        pace.begin(&driver);
        let mut step = |limit_us: u64| {
            pace.step();
            (1..10_000).find(|_| pace.is_over(1, limit_us, &driver))
        };
        assert_eq!(step(1_000), Some(11 * LOOK_EVERY));
        assert_eq!(step(1_000), Some(11 * LOOK_EVERY));
        assert_eq!(step(10), Some(2 * LOOK_EVERY), "it does a little first");
    }
}
