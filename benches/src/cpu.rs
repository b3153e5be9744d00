//! CPU time as the kernel accounts it by the tick: of a core, and of a process with the threads that have ended; and a
//! process's memory.

use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The clock of all measurements in this package.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a bench is about real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// CPU time used by a process since it began, by threads that have ended too; to the tick of 10 ms.
///
/// # Errors
/// The process is gone.
pub(crate) fn of_process_ever(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = process_ticks(&stat).with_context(|| format!("cannot parse {path}"))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// utime + stime, the 14th and 15th field; the second is a name that may hold anything, in parentheses.
fn process_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Time since the first call.
pub(crate) fn uptime() -> Duration {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    FIRST.get_or_init(now).elapsed()
}

/// Time a core has not been idle since boot, whoever used it.
///
/// # Errors
/// There is no such core.
pub(crate) fn of_core(core: usize) -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let busy = busy_ticks(&stat, core).with_context(|| format!("no core {core} in /proc/stat"))?;
    Ok(Duration::from_millis(busy * 1000 / TICKS_PER_SECOND))
}

/// What some cores did until now, and how much of it was ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    ours: Duration,
    /// By anybody.
    busy: Duration,
    /// That there was.
    had: Duration,
}

impl Spent {
    /// Reads what `cores` did; `ours` is what the measured processes used until now.
    ///
    /// # Errors
    /// There is no such core.
    pub(crate) fn read(cores: &[usize], ours: Duration) -> Result<Self> {
        let busy = cores.iter().map(|&core| of_core(core)).sum::<Result<_>>()?;
        Ok(Self { ours, busy, had: uptime() * u32::try_from(cores.len())? })
    }

    /// Between two readings.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            ours: self.ours.saturating_sub(before.ours),
            busy: self.busy.saturating_sub(before.busy),
            had: self.had.saturating_sub(before.had),
        }
    }

    /// The share of the cores that went to others.
    pub(crate) fn foreign(&self) -> f64 {
        self.busy.saturating_sub(self.ours).as_secs_f64() / self.had.as_secs_f64()
    }
}

/// A sample in which others had more of the cores than this is disturbed.
pub(crate) const FOREIGN_MAX: f64 = 0.1;

/// Memory a process has resident, in bytes.
///
/// # Errors
/// It is gone.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    resident_kib(&status).map(|kib| kib * 1024).with_context(|| format!("no VmRSS in {path}"))
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// user + nice + system + irq + softirq + steal of a core.
fn busy_ticks(stat: &str, core: usize) -> Option<u64> {
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|f| f.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = fields[..] else {
        return None;
    };
    Some(user + nice + system + irq + softirq + steal)
}

/// What the kernel reports in, whatever it ticks with.
const TICKS_PER_SECOND: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_charged_whatever_its_name() {
        let stat = "7 (a) b 9 (c) R 1 2 3 4 5 6 7 8 9 10 50 25 0 0 20 0";
        assert_eq!(process_ticks(stat), Some(75));
        assert_eq!(process_ticks("7 (a"), None);
        assert!(of_process_ever(std::process::id()).is_ok());
    }

    #[test]
    fn what_is_not_ours_is_foreign() {
        let at = |ours, busy, had| Spent {
            ours: Duration::from_millis(ours),
            busy: Duration::from_millis(busy),
            had: Duration::from_millis(had),
        };
        assert_eq!(at(1500, 1900, 3000).since(&at(500, 700, 1000)).foreign(), 0.1);
        // Ticks may miss what nanoseconds show.
        assert_eq!(at(500, 490, 1000).foreign(), 0.0);
    }

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        assert_eq!(resident_kib("VmHWM:\t 9 kB\nVmRSS:\t   1234 kB\n"), Some(1234));
        assert_eq!(resident_kib("Name:\tx\n"), None);
        assert!(resident(std::process::id()).unwrap() > 100_000);
    }

    #[test]
    fn idle_and_waiting_do_not_count_as_busy() {
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 4 1000 2000 8 16 32 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy_ticks(stat, 0), Some(63));
        assert_eq!(busy_ticks(stat, 2), None);
    }
}
