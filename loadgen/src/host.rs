//! What this machine is and allows: limits, versions, processor time.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

/// What a report says about the machine.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// `uname -sr`.
    pub kernel: String,
    /// As /proc/cpuinfo names it.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
}

impl Host {
    /// Asks the machine.
    #[must_use]
    pub fn detect() -> Self {
        let name = rustix::system::uname();
        let kernel =
            format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy());
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or_else(|| "unknown".to_owned(), |(_, model)| model.trim().to_owned());
        let cores = core_affinity::get_core_ids().map_or(0, |ids| ids.len());
        Self { kernel, cpu, cores }
    }
}

/// The process may not open as many files as the run needs.
#[derive(Debug, thiserror::Error)]
#[error(
    "{needed} open files are needed ({sockets} sockets and {} more), the hard limit is {hard}: raise it (`ulimit -Hn {needed}` as \
     root, LimitNOFILE= in a unit, nofile in /etc/security/limits.conf), or use fewer --sockets",
    .needed - .sockets
)]
pub struct FileLimitError {
    needed: u64,
    sockets: u64,
    hard: u64,
}

/// Raises the soft limit on open files when `sockets` sockets of `threads` threads need it.
///
/// # Errors
/// The hard limit is too low.
pub fn allow_sockets(sockets: u32, threads: u32) -> Result<(), FileLimitError> {
    let sockets = u64::from(sockets);
    let needed = sockets + FILES_PER_THREAD * u64::from(threads) + FILES_OF_PROCESS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|soft| soft >= needed) {
        return Ok(());
    }
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit { current: Some(needed.min(hard)), maximum: limit.maximum };
    if hard < needed || setrlimit(Resource::Nofile, raised).is_err() {
        return Err(FileLimitError { needed, sockets, hard });
    }
    Ok(())
}

/// Raises the soft limit on open files to the hard one; what it is now.
#[must_use]
pub fn allow_most_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where even that is refused, the old limit stands and is what is told.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Most memory this process ever had resident, in bytes; 0 where the kernel does not tell.
#[must_use]
pub fn resident_max() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(0, |kib| kib * 1024)
}

/// Processor time of the calling thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadTime {
    /// On a processor.
    pub running: Duration,
    /// Ready to run, waiting for a processor that something else used.
    pub waiting: Duration,
}

impl ThreadTime {
    /// Since the thread began.
    ///
    /// # Errors
    /// /proc/thread-self/schedstat cannot be read or parsed (a kernel without CONFIG_SCHED_INFO).
    pub fn read() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/thread-self/schedstat")?;
        let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(running)), Some(Ok(waiting))) => Ok(Self {
                running: Duration::from_nanos(running),
                waiting: Duration::from_nanos(waiting),
            }),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "schedstat has no two numbers")),
        }
    }

    /// Between `earlier` and this.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            running: self.running.saturating_sub(earlier.running),
            waiting: self.waiting.saturating_sub(earlier.waiting),
        }
    }
}

/// Processor time that the living threads of process `pid` have used, in user and kernel mode. What the kernel books at ticks
/// only may be a tick behind.
///
/// # Errors
/// There is no such process, or the kernel keeps no scheduler statistics.
pub fn process_time(pid: u32) -> io::Result<Duration> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between listing and reading.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "schedstat has no number");
        total += Duration::from_nanos(nanoseconds.ok_or_else(missing)?);
    }
    Ok(total)
}

/// Ring or epoll set, wake-up, and what start-up opens for a moment.
const FILES_PER_THREAD: u64 = 8;
/// Standard streams, the report, and a gateway in the same process.
const FILES_OF_PROCESS: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_a_name() {
        let host = Host::detect();
        assert!(host.kernel.starts_with("Linux "), "{}", host.kernel);
        assert!(host.cores > 0);
    }

    #[test]
    fn memory_is_told() {
        assert!((1 << 20..1 << 40).contains(&resident_max()));
    }

    #[test]
    fn processor_time_grows() {
        let before = ThreadTime::read().unwrap();
        let mut spent = ThreadTime::default();
        let mut value = 1;
        while spent.running < Duration::from_millis(5) {
            value = crate::seed::mix64(value);
            spent = ThreadTime::read().unwrap().since(before);
        }
        assert_ne!(value, 0);
    }

    #[test]
    fn another_process_is_charged_for_its_work() {
        // Ends by itself should this test fail first.
        let count = "i=0; while [ $i -lt 5000000 ]; do i=$((i + 1)); done";
        let mut busy = std::process::Command::new("sh").args(["-c", count]).spawn().unwrap();
        let mut spent = Duration::ZERO;
        while spent < Duration::from_millis(20) {
            let now = process_time(busy.id()).unwrap();
            assert!(now >= spent, "{now:?} after {spent:?}");
            spent = now;
        }
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(process_time(busy.id()).is_err());
    }

    #[test]
    fn a_limit_too_low_names_what_to_raise() {
        let error = FileLimitError { needed: 70_072, sockets: 70_000, hard: 20_000 }.to_string();
        for part in ["70072 open files", "70000 sockets and 72 more", "20000", "ulimit -Hn 70072"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
