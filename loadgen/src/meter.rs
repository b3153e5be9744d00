//! What one worker counts and times. Plain numbers, merged when the run is over.

use hdrhistogram::Histogram;
use net_io::Now;
use serde::Serialize;

/// Everything counted. The field names are the keys of the JSON report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Sessions whose first PUSH was acknowledged.
    pub established: u64,
    /// Messages handed to the protocol, the first of each session and those of the warm-up included.
    pub sent: u64,
    /// Of those, echoed intact, each counted once.
    pub received: u64,
    /// With rooms: others' messages that came, intact.
    pub heard: u64,
    /// Echoes that came again.
    pub duplicated: u64,
    /// Echoes that came after a later one.
    pub reordered: u64,
    /// Echoes that are not what was sent.
    pub corrupted: u64,
    /// Slots of the schedule given up because this process was too late for them.
    pub missed_sends: u64,
    /// Slots of the schedule not sent because the target had let the session's backlog grow to its bound.
    pub throttled_sends: u64,
    /// Messages not sent because this process's own bound on bytes in flight was reached.
    pub store_full: u64,
    /// Sessions that a storm made vanish.
    pub vanished: u64,
    /// Messages that were on the way to or from them then; nobody waits for their echoes.
    pub abandoned: u64,
    /// Sessions of those that a storm brought whose first PUSH was acknowledged.
    pub newcomers: u64,
    /// Sessions of which a message did not come back, those that a storm made vanish apart; counted at the end.
    pub lossy_sessions: u64,
    /// Sessions given up by the protocol: one segment sent `dead_link` times without an answer.
    pub dead_sessions: u64,
    /// Datagrams received for no session of ours, or by another socket than the session's.
    pub stray_datagrams: u64,
    /// Datagrams that the protocol refused.
    pub refused_datagrams: u64,
    /// Messages sent within the measured time.
    pub measured_sent: u64,
    /// Echoes that came within the measured time.
    pub measured_received: u64,
    /// Of those, within the deadline.
    pub measured_in_time: u64,
}

impl Counts {
    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        self.established += other.established;
        self.sent += other.sent;
        self.received += other.received;
        self.lossy_sessions += other.lossy_sessions;
        self.heard += other.heard;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.missed_sends += other.missed_sends;
        self.throttled_sends += other.throttled_sends;
        self.store_full += other.store_full;
        self.vanished += other.vanished;
        self.abandoned += other.abandoned;
        self.newcomers += other.newcomers;
        self.dead_sessions += other.dead_sessions;
        self.stray_datagrams += other.stray_datagrams;
        self.refused_datagrams += other.refused_datagrams;
        self.measured_sent += other.measured_sent;
        self.measured_received += other.measured_received;
        self.measured_in_time += other.measured_in_time;
    }

    /// Messages sent whose echo has not come and is still awaited.
    #[must_use]
    pub const fn missing(&self) -> u64 {
        self.sent.saturating_sub(self.received + self.abandoned)
    }
}

/// The measured time: from the first instant to the last, the last excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first instant.
    pub start: Now,
    /// The first instant after it.
    pub end: Now,
}

impl Window {
    /// Nothing is measured before the load begins.
    pub const NEVER: Self = Self { start: Now(u64::MAX), end: Now(u64::MAX) };

    /// `at` is within.
    #[must_use]
    pub fn contains(&self, at: Now) -> bool {
        self.start <= at && at < self.end
    }
}

/// One worker's counts and histograms.
#[derive(Clone, Debug)]
pub struct Meter {
    /// What happened.
    pub counts: Counts,
    /// What is measured.
    pub window: Window,
    /// From the intended send time to the echo, microseconds.
    pub latency: Histogram<u64>,
    /// From the real send time to the echo, microseconds.
    pub service: Histogram<u64>,
    /// From the intended to the real send time, microseconds: the generator's own lateness.
    pub lag: Histogram<u64>,
    /// From a session's due start to the acknowledgement of its first PUSH, microseconds.
    pub connect: Histogram<u64>,
    /// An echo later than this after its message's time is not in time, microseconds.
    pub deadline_us: u64,
    /// Longest that something had arrived and was not taken in, microseconds.
    pub behind_us_max: u64,
    /// What is told apart around a storm; `None` when there are neither bystanders nor newcomers.
    pub around: Option<Box<Around>>,
}

/// The bystanders' latencies before, in and after a storm, and the newcomers' times to connect.
#[derive(Clone, Debug)]
pub struct Around {
    /// When the storm rages.
    pub storm: Window,
    /// Of messages due before it.
    pub quiet: Histogram<u64>,
    /// Of messages due in it.
    pub stormy: Histogram<u64>,
    /// Of messages due after it.
    pub after: Histogram<u64>,
    /// From a newcomer's due start to the acknowledgement of its first PUSH.
    pub connect: Histogram<u64>,
}

impl Around {
    /// All zero, and no storm.
    #[must_use]
    pub fn new() -> Self {
        Self {
            storm: Window::NEVER,
            quiet: histogram(),
            stormy: histogram(),
            after: histogram(),
            connect: histogram(),
        }
    }

    fn of(&mut self, intended: Now) -> &mut Histogram<u64> {
        if intended < self.storm.start {
            &mut self.quiet
        } else if intended < self.storm.end {
            &mut self.stormy
        } else {
            &mut self.after
        }
    }
}

impl Default for Around {
    fn default() -> Self {
        Self::new()
    }
}

impl Meter {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            counts: Counts::default(),
            window: Window::NEVER,
            latency: histogram(),
            service: histogram(),
            lag: histogram(),
            connect: histogram(),
            deadline_us: u64::MAX,
            behind_us_max: 0,
            around: None,
        }
    }

    /// Adds another worker's.
    pub fn merge(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        add(&mut self.latency, &other.latency);
        add(&mut self.service, &other.service);
        add(&mut self.lag, &other.lag);
        add(&mut self.connect, &other.connect);
        self.behind_us_max = self.behind_us_max.max(other.behind_us_max);
        if let Some(theirs) = &other.around {
            let mine = self.around.get_or_insert_default();
            add(&mut mine.quiet, &theirs.quiet);
            add(&mut mine.stormy, &theirs.stormy);
            add(&mut mine.after, &theirs.after);
            add(&mut mine.connect, &theirs.connect);
        }
    }

    /// This process is `behind_us` behind what arrives.
    pub fn on_behind(&mut self, now: Now, behind_us: u64) {
        if self.window.contains(now) {
            self.behind_us_max = self.behind_us_max.max(behind_us);
        }
    }

    /// A message left: it should have at `intended`.
    pub fn on_sent(&mut self, now: Now, intended: Now) {
        self.counts.sent += 1;
        if self.window.contains(intended) {
            self.counts.measured_sent += 1;
            self.lag.saturating_record(now.0.saturating_sub(intended.0));
        }
    }

    /// An echo came for the first time: of a message that should have left at `intended` and did `lag_us` later.
    pub fn on_echo(&mut self, now: Now, intended: Now, lag_us: u32) {
        self.counts.received += 1;
        let latency = now.0.saturating_sub(intended.0);
        if self.window.contains(now) {
            self.counts.measured_received += 1;
            self.counts.measured_in_time += u64::from(latency <= self.deadline_us);
        }
        if self.window.contains(intended) {
            self.latency.saturating_record(latency);
            self.service.saturating_record(latency.saturating_sub(u64::from(lag_us)));
        }
    }

    /// The echo was a bystander's.
    pub fn on_bystanders_echo(&mut self, now: Now, intended: Now) {
        if let Some(around) = &mut self.around
            && self.window.contains(intended)
        {
            around.of(intended).saturating_record(now.0.saturating_sub(intended.0));
        }
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

/// The figures of one histogram, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half are not above.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// 99.99 %.
    pub p9999: u64,
    /// The largest.
    pub max: u64,
    /// The mean.
    pub mean: f64,
    /// How many were recorded; all else is 0 when none was.
    pub samples: u64,
}

impl Quantiles {
    /// The figures of `histogram`.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max(),
            mean: histogram.mean(),
            samples: histogram.len(),
        }
    }
}

/// Adds `theirs` to `mine`. All have the same bounds, so nothing can be out of range.
fn add(mine: &mut Histogram<u64>, theirs: &Histogram<u64>) {
    let added = mine.add(theirs);
    debug_assert!(added.is_ok());
}

/// One microsecond to one hour in three digits.
fn histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "the bounds are constants")]
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("legal bounds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_window_is_measured_but_all_is_counted() {
        let mut meter = Meter::new();
        meter.on_sent(Now(50), Now(50));
        meter.window = Window { start: Now(100), end: Now(200) };
        for intended in [99, 100, 199, 200] {
            meter.on_sent(Now(intended + 5), Now(intended));
            meter.on_echo(Now(intended + 1000), Now(intended), 5);
        }
        assert_eq!((meter.counts.sent, meter.counts.received, meter.counts.missing()), (5, 4, 1));
        assert_eq!((meter.counts.measured_sent, meter.counts.measured_received), (2, 0));
        let latency = Quantiles::of(&meter.latency);
        assert_eq!((latency.samples, latency.p50, latency.max), (2, 1000, 1000));
        assert_eq!(Quantiles::of(&meter.service).max, 995);
        assert_eq!(Quantiles::of(&meter.lag).p50, 5);
        meter.deadline_us = 100;
        for (now, intended) in [(150, 50), (151, 50), (200, 150)] {
            meter.on_echo(Now(now), Now(intended), 0);
        }
        assert_eq!((meter.counts.measured_received, meter.counts.measured_in_time), (2, 1));
    }

    #[test]
    fn a_bystanders_echo_counts_where_its_message_was_due() {
        let mut meter = Meter::new();
        meter.window = Window { start: Now(100), end: Now(500) };
        meter.on_bystanders_echo(Now(400), Now(100));
        let storm = Window { start: Now(200), end: Now(300) };
        meter.around = Some(Box::new(Around { storm, ..Around::new() }));
        for intended in [99, 100, 199, 200, 299, 300, 499, 500] {
            meter.on_bystanders_echo(Now(400 + intended), Now(intended));
        }
        let mut merged = Meter::new();
        merged.merge(&meter);
        merged.merge(&meter);
        let around = merged.around.unwrap();
        assert_eq!((around.quiet.len(), around.stormy.len(), around.after.len()), (4, 4, 4));
        assert_eq!(around.quiet.max(), 400);
    }

    #[test]
    fn merging_adds_everything() {
        let mut one = Meter::new();
        one.window = Window { start: Now(0), end: Now(10) };
        one.on_sent(Now(1), Now(1));
        one.on_echo(Now(5), Now(1), 0);
        let mut two = one.clone();
        two.merge(&one);
        assert_eq!(two.counts.sent, 2 * one.counts.sent);
        assert_eq!(two.latency.len(), 2);
        assert_eq!(Quantiles::of(&Meter::new().latency), Quantiles::default());
    }
}
