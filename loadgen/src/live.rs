//! What the workers show while they run, and what they are told. Atomics, written by one thread each.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;

use crate::meter::Counts;
use crate::timeline::Stage;

/// What the controller tells all workers. Only ever goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Sockets are open; wait for the others.
    Wait,
    /// Start the sessions.
    Ramp,
    /// Start the load.
    Load,
    /// Send no more, wait briefly for echoes, end.
    Stop,
}

/// One order for all workers.
#[derive(Debug, Default)]
pub(crate) struct Orders(AtomicU8);

impl Orders {
    pub(crate) fn give(&self, order: Order) {
        self.0.fetch_max(order as u8, Relaxed);
    }

    pub(crate) fn current(&self) -> Order {
        match self.0.load(Relaxed) {
            0 => Order::Wait,
            1 => Order::Ramp,
            2 => Order::Load,
            _ => Order::Stop,
        }
    }
}

/// One worker's figures as of its last turn.
#[derive(Debug, Default)]
pub(crate) struct Gauge(CachePadded<Cells>);

#[derive(Debug, Default)]
struct Cells {
    stage: AtomicU8,
    established: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    faults: AtomicU64,
    late: AtomicU64,
    p99_us: AtomicU64,
}

/// What a run looks like at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    pub(crate) stage: Stage,
    pub(crate) established: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Duplicated, reordered, corrupted.
    pub(crate) faults: u64,
    /// Slots of the schedule missed or throttled.
    pub(crate) late: u64,
    /// The worst worker's p99 so far; 0 before the first second of measured time has passed.
    pub(crate) p99_us: u64,
}

impl Gauge {
    pub(crate) fn show(&self, stage: Stage, counts: &Counts) {
        let cells = &*self.0;
        cells.stage.store(stage as u8, Relaxed);
        cells.established.store(counts.established, Relaxed);
        cells.sent.store(counts.sent, Relaxed);
        cells.received.store(counts.received, Relaxed);
        cells.faults.store(counts.duplicated + counts.reordered + counts.corrupted, Relaxed);
        cells.late.store(counts.missed_sends + counts.throttled_sends, Relaxed);
    }

    pub(crate) fn show_p99(&self, p99_us: u64) {
        self.0.p99_us.store(p99_us, Relaxed);
    }
}

impl Snapshot {
    /// The sum of all workers; the stage is that of the one that is furthest behind.
    pub(crate) fn of(gauges: &[Gauge]) -> Self {
        let mut sum = Self {
            stage: Stage::Done,
            established: 0,
            sent: 0,
            received: 0,
            faults: 0,
            late: 0,
            p99_us: 0,
        };
        for Gauge(cells) in gauges {
            sum.stage = sum.stage.min(stage_of(cells.stage.load(Relaxed)));
            sum.established += cells.established.load(Relaxed);
            sum.sent += cells.sent.load(Relaxed);
            sum.received += cells.received.load(Relaxed);
            sum.faults += cells.faults.load(Relaxed);
            sum.late += cells.late.load(Relaxed);
            sum.p99_us = sum.p99_us.max(cells.p99_us.load(Relaxed));
        }
        sum
    }
}

fn stage_of(code: u8) -> Stage {
    [Stage::Ramp, Stage::Warmup, Stage::Measure, Stage::Drain]
        .into_iter()
        .find(|stage| *stage as u8 == code)
        .unwrap_or(Stage::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_only_go_on() {
        let orders = Orders::default();
        assert_eq!(orders.current(), Order::Wait);
        for (given, current) in
            [(Order::Ramp, Order::Ramp), (Order::Stop, Order::Stop), (Order::Load, Order::Stop)]
        {
            orders.give(given);
            assert_eq!(orders.current(), current);
        }
    }

    #[test]
    fn a_snapshot_sums_and_shows_the_hindmost() {
        let gauges = [Gauge::default(), Gauge::default()];
        let counts = Counts { established: 2, sent: 5, received: 4, ..Counts::default() };
        gauges[0].show(Stage::Done, &counts);
        gauges[1].show(Stage::Measure, &counts);
        gauges[1].show_p99(70);
        let sum = Snapshot::of(&gauges);
        assert_eq!((sum.stage, sum.established, sum.sent, sum.p99_us), (Stage::Measure, 4, 10, 70));
    }
}
