//! The clock of the drivers that live in real time.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::driver::Now;
use crate::sys;

/// The epoch starts here rather than at zero, so that subtracting a few minutes from any reading stays in range.
const EPOCH_US: u64 = 3_600_000_000;

/// Reads the clock that the kernel drivers share. The epoch is one hour before the process's first reading.
///
/// A thread with a driver asks the driver instead: [`Driver::now`](crate::Driver::now) costs nothing and is the same for the
/// whole turn.
#[must_use]
pub fn monotonic() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    let now = Instant::now();
    let elapsed = now.saturating_duration_since(*START.get_or_init(|| now));
    // 64 bits of microseconds last for half a million years.
    Now(EPOCH_US.saturating_add(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)))
}

/// Processor time that the calling thread has used; zero where the kernel does not tell. A system call.
#[must_use]
pub fn processor_time() -> Duration {
    sys::thread_cpu()
}

/// [`processor_time`] in whole microseconds.
pub(crate) fn processor_us() -> u64 {
    u64::try_from(processor_time().as_micros()).unwrap_or(u64::MAX)
}

/// Sleeps without looking at anything: to gather datagrams in one batch, or to let the kernel settle at start.
pub(crate) fn sleep(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "the sleep is the operator's min_wait")]
    std::thread::sleep(time);
}
