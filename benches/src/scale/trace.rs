//! The gateway over time, and what each stretch of it cost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cpu;
use crate::load::Load;
use crate::watched::{Counted, Moment, Watched};

/// The gateway from before its load to after it.
#[derive(Debug, Default)]
pub(super) struct Trace {
    moments: Vec<Moment>,
    memory_max: u64,
}

/// Something that was counted in a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Stretch {
    count: u64,
    wall_s: f64,
    /// Of the shards.
    cpu_s: f64,
    /// Of the process: watching it included.
    process_cpu_s: f64,
}

impl Stretch {
    fn between(one: &Moment, other: &Moment, count: impl Fn(&Counted) -> u64) -> Self {
        let shards = |moment: &Moment| moment.shards.iter().map(|(_, cpu)| *cpu).sum::<Duration>();
        Self {
            count: other.sum(&count).saturating_sub(one.sum(&count)),
            wall_s: other.at.saturating_sub(one.at).as_secs_f64(),
            cpu_s: shards(other).saturating_sub(shards(one)).as_secs_f64(),
            process_cpu_s: other.cpu.saturating_sub(one.cpu).as_secs_f64(),
        }
    }

    /// CPU time of each, in microseconds.
    pub(super) fn cpu_us_each(&self) -> f64 {
        if self.count == 0 { f64::NAN } else { self.cpu_s * 1e6 / self.count as f64 }
    }

    /// How many came in a second.
    pub(super) fn per_s(&self) -> f64 {
        if self.count == 0 { f64::NAN } else { self.count as f64 / self.wall_s }
    }

    /// Cores that the process kept busy.
    pub(super) fn cores(&self) -> f64 {
        self.process_cpu_s / self.wall_s
    }
}

impl Trace {
    /// Watches the gateway until `load` ends.
    ///
    /// # Errors
    /// The gateway is gone, or both together have more memory than `memory_max` bytes.
    pub(super) fn watch(
        &mut self,
        watched: &mut Watched,
        load: &mut Load,
        memory_max: u64,
    ) -> Result<()> {
        while load.ended()?.is_none() {
            let gateway = self.look(watched)?.resident;
            // It may end while it is asked.
            let both = gateway + load.resident().unwrap_or(0);
            self.memory_max = self.memory_max.max(both);
            ensure!(both <= memory_max, "gateway and load have {both} bytes: --memory-gib");
        }
        Ok(())
    }

    /// Watches until `done`, or for `limit`; tells which.
    ///
    /// # Errors
    /// The gateway is gone.
    pub(super) fn watch_until(
        &mut self,
        watched: &mut Watched,
        limit: Duration,
        done: impl Fn(&Moment) -> bool,
    ) -> Result<bool> {
        let began = cpu::now();
        while began.elapsed() < limit {
            if done(self.look(watched)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One moment, and a pause before it.
    ///
    /// # Errors
    /// The gateway is gone.
    #[expect(clippy::disallowed_methods, reason = "what is watched goes on by itself")]
    pub(super) fn look(&mut self, watched: &mut Watched) -> Result<&Moment> {
        std::thread::sleep(EVERY);
        self.moments.push(watched.look()?);
        self.moments.last().context("it was just put there")
    }

    /// Of all shards, as counted last.
    pub(super) fn sum(&self, count: impl Fn(&Counted) -> u64) -> u64 {
        self.moments.last().map_or(0, |moment| moment.sum(count))
    }

    /// Whether there was such a moment.
    pub(super) fn any(&self, holds: impl Fn(&Moment) -> bool) -> bool {
        self.moments.iter().any(holds)
    }

    /// The last such moment.
    pub(super) fn last_where(&self, holds: impl Fn(&Moment) -> bool) -> Option<&Moment> {
        self.moments.iter().rfind(|moment| holds(moment))
    }

    /// From the last moment before `count` moved to the first with its final value.
    pub(super) fn stretch(&self, count: impl Fn(&Counted) -> u64) -> Stretch {
        let (Some(first), Some(last)) = (self.moments.first(), self.moments.last()) else {
            return Stretch::default();
        };
        let (least, most) = (first.sum(&count), last.sum(&count));
        let begin = self.last_where(|moment| moment.sum(&count) == least).unwrap_or(first);
        let end = self.moments.iter().find(|moment| moment.sum(&count) == most).unwrap_or(last);
        Stretch::between(begin, end, count)
    }

    /// From the first moment of which `holds` is true to the last, with none between of which it is not.
    pub(super) fn stretch_where(
        &self,
        count: impl Fn(&Counted) -> u64,
        holds: impl Fn(&Moment) -> bool,
    ) -> Stretch {
        let from = self.moments.iter().skip_while(|moment| !holds(moment));
        let run: Vec<_> = from.take_while(|moment| holds(moment)).collect();
        match run[..] {
            [first, .., last] => Stretch::between(first, last, count),
            _ => Stretch::default(),
        }
    }

    /// Of all shards the most, as counted last.
    pub(super) fn most(&self, count: impl Fn(&Counted) -> u64) -> u64 {
        let shards = self.moments.last().map_or(&[][..], |moment| &moment.shards);
        shards.iter().map(|(counted, _)| count(counted)).max().unwrap_or(0)
    }

    /// Most memory that the gateway and the load had together, in bytes.
    pub(super) const fn memory_max(&self) -> u64 {
        self.memory_max
    }
}

/// How often the gateway is looked at.
const EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    /// Births, messages and CPU milliseconds at each tenth of a second, of two shards that do the same.
    fn trace(rows: &[(u64, u64, u64)]) -> Trace {
        let moment = |(n, &(births, messages, cpu_ms)): (u64, &(u64, u64, u64))| {
            let counted = Counted { births, messages, ..Counted::default() };
            Moment {
                at: Duration::from_millis(n * 100),
                shards: vec![(counted, Duration::from_millis(cpu_ms)); 2],
                cpu: Duration::from_millis(cpu_ms * 3),
                resident: 1000 - n,
            }
        };
        Trace { moments: (0..).zip(rows).map(moment).collect(), memory_max: 0 }
    }

    #[test]
    fn each_stretch_has_its_cost() {
        let trace = trace(&[
            (0, 0, 5),
            (0, 0, 6),
            (10, 10, 16),
            (20, 20, 26),
            (20, 20, 27),
            (20, 20, 28),
            (20, 50, 58),
            (20, 50, 59),
        ]);
        let births = trace.stretch(|c| c.births);
        assert_eq!((births.count, births.cpu_s), (40, 0.040));
        assert_eq!((births.cpu_us_each(), births.per_s().round()), (1000.0, 200.0));
        let born = |moment: &Moment| moment.sum(|c| c.births) == 40;
        let messages = trace.stretch_where(|c| c.messages, born);
        assert_eq!((messages.count, messages.cpu_s.to_bits()), (60, 0.066_f64.to_bits()));
        let silent = |moment: &Moment| born(moment) && moment.sum(|c| c.messages) == 40;
        let idle = trace.stretch_where(|c| c.messages, silent);
        assert_eq!((idle.count, (idle.cores() * 1000.0).round()), (0, 30.0));
        assert_eq!(trace.last_where(silent).map(|m| m.resident), Some(995));
        assert_eq!((trace.sum(|c| c.messages), trace.any(born)), (100, true));
    }

    #[test]
    fn nothing_costs_nothing() {
        assert_eq!(Trace::default().stretch(|c| c.births), Stretch::default());
        let still = trace(&[(3, 0, 0), (3, 0, 1)]);
        assert_eq!(still.stretch(|c| c.births).count, 0);
        assert!(still.stretch(|c| c.births).cpu_us_each().is_nan());
        assert_eq!(still.stretch_where(|c| c.births, |_| false), Stretch::default());
    }
}
