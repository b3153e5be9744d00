//! Gives memory back when a peak is over: slowly, and never what the last seconds needed.

use kcp_core::{Millis, Store};
use net_io::Driver;

use crate::upstream::pool::Pool;

/// Memory that is kept for reuse when it is used no more.
pub(super) trait Recycles {
    /// Bytes in use.
    fn bytes_used(&self) -> usize;

    /// Bytes kept for reuse.
    fn bytes_recycled(&self) -> usize;

    /// Gives back what is kept beyond `keep` bytes.
    fn trim(&mut self, keep: usize);
}

impl Recycles for Store {
    fn bytes_used(&self) -> usize {
        self.bytes_used()
    }

    fn bytes_recycled(&self) -> usize {
        self.bytes_recycled()
    }

    fn trim(&mut self, keep: usize) {
        self.trim(keep);
    }
}

/// What waits between backends and sessions.
impl Recycles for Pool {
    fn bytes_used(&self) -> usize {
        self.bytes_used()
    }

    fn bytes_recycled(&self) -> usize {
        self.bytes_recycled()
    }

    fn trim(&mut self, keep: usize) {
        self.trim(keep);
    }
}

/// What a driver's streams have queued for the kernel.
pub(super) struct Queued<'a, D>(pub(super) &'a mut D);

impl<D: Driver> Recycles for Queued<'_, D> {
    fn bytes_used(&self) -> usize {
        usize::try_from(self.0.stream_counters().queued_bytes).unwrap_or(usize::MAX)
    }

    fn bytes_recycled(&self) -> usize {
        usize::try_from(self.0.stream_counters().recycled_bytes).unwrap_or(usize::MAX)
    }

    fn trim(&mut self, keep: usize) {
        self.0.stream_trim(keep);
    }
}

/// How much of such memory was needed lately.
#[derive(Debug)]
pub(super) struct Trim {
    /// Most bytes in use at the end of a turn, in the window that runs and in the one before.
    peaks: [usize; 2],
    window_end: Millis,
    /// More is to go at once.
    more: bool,
}

impl Trim {
    /// Nothing was needed yet.
    pub(super) const fn new(now: Millis) -> Self {
        Self { peaks: [0; 2], window_end: now, more: false }
    }

    /// Gives back a step of what was not needed in the last two windows.
    pub(super) fn run(&mut self, now: Millis, memory: &mut impl Recycles) {
        let used = memory.bytes_used();
        let left = self.window_end.since(now);
        // After a very long silence the clock may have wrapped past the window's end.
        if left <= 0 || left > WINDOW_MS.cast_signed() {
            self.window_end = now.add(WINDOW_MS);
            self.peaks = [self.peaks[1], 0];
        }
        self.peaks[1] = self.peaks[1].max(used);
        let needed = self.peaks[0].max(self.peaks[1]);
        let keep = needed - used + KEEP_BYTES;
        let recycled = memory.bytes_recycled();
        if recycled > keep {
            memory.trim(keep.max(recycled.saturating_sub(STEP_BYTES)));
        }
        self.more = memory.bytes_recycled() > keep;
    }

    /// When more is to be given back although nothing happens; not after `now` when it can go at once.
    pub(super) fn next_deadline(&self, now: Millis, memory: &impl Recycles) -> Option<Millis> {
        let at = if self.more { now } else { self.window_end };
        (memory.bytes_recycled() > KEEP_BYTES).then_some(at)
    }
}

/// How long a peak is remembered: one to two windows.
const WINDOW_MS: u32 = 10_000;
/// Kept whatever was needed: more than a turn's datagrams take and give back before its end is looked at.
const KEEP_BYTES: usize = 4 << 20;
/// Given back in one turn: a thousand of the store's smallest buffers at most, some 50 us, or a slab of a pool.
const STEP_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use kcp_core::{Conv, Cx, Kcp, KcpConfig};

    use super::*;
    use crate::upstream::pool::Queue;

    /// A store that once held `bytes` and holds nothing now.
    fn after_a_peak(bytes: usize, trim: &mut Trim, now: Millis) -> Store {
        let mut store = Store::new(1 << 30);
        let config = KcpConfig::default();
        let mut sessions = Vec::new();
        for n in 0.. {
            let mut kcp = Kcp::new(Conv(n));
            for _ in 0..4 {
                kcp.send(&mut Cx { config: &config, store: &mut store }, &[1; 300]).unwrap();
            }
            sessions.push(kcp);
            if store.bytes_used() >= bytes {
                break;
            }
        }
        trim.run(now, &mut store);
        for mut kcp in sessions {
            kcp.reset(&mut store);
        }
        store
    }

    #[test]
    fn a_peak_is_given_back_in_steps_when_it_is_over() {
        for start in [Millis(0), Millis(u32::MAX - 15_000)] {
            let mut trim = Trim::new(start);
            let mut store = after_a_peak(64 << 20, &mut trim, start);
            let peak = store.bytes_recycled();
            let mut now = start;
            let mut steps = 0;
            while let Some(deadline) = trim.next_deadline(now, &store) {
                now = deadline;
                let before = store.bytes_recycled();
                trim.run(now, &mut store);
                let step = before - store.bytes_recycled();
                assert!(step <= STEP_BYTES + (64 << 10), "{step} bytes at once");
                let after_ms = now.since(start);
                assert!(step == 0 || after_ms >= 10_000, "{step} bytes after {after_ms} ms");
                assert!(after_ms <= 30_000, "{} of {peak} left", store.bytes_recycled());
                steps += u32::from(step > 0);
            }
            assert!(store.bytes_recycled() <= KEEP_BYTES && steps > 500, "{steps} steps");
        }
    }

    #[test]
    fn the_pool_of_what_waits_is_given_back_likewise() {
        let mut pool = Pool::new(64 << 20);
        let mut trim = Trim::new(Millis(0));
        let mut queues: Vec<_> = (0..4).map(|_| Queue::new()).collect();
        for queue in &mut queues {
            queue.push(&mut pool, &vec![1; 10 << 20]).unwrap();
        }
        trim.run(Millis(1), &mut pool);
        queues.iter_mut().for_each(|queue| queue.clear(&mut pool));
        assert_eq!((pool.bytes_used(), pool.bytes_recycled()), (0, 40 << 20));
        let mut now = Millis(1);
        while let Some(deadline) = trim.next_deadline(now, &pool) {
            now = deadline;
            trim.run(now, &mut pool);
            let kept = pool.bytes_recycled();
            assert!(kept == 40 << 20 || now.since(Millis(0)) >= 10_000, "{kept} at {now:?}");
        }
        assert_eq!((pool.bytes_recycled(), now.since(Millis(0)) <= 30_000), (KEEP_BYTES, true));
    }

    #[test]
    fn what_is_needed_again_and_again_is_kept() {
        let mut trim = Trim::new(Millis(0));
        for wave in 0..10 {
            let now = Millis(wave * 9_000);
            let mut store = after_a_peak(32 << 20, &mut trim, now);
            let before = store.bytes_recycled();
            trim.run(now.add(8_999), &mut store);
            assert_eq!(store.bytes_recycled(), before, "wave {wave}");
        }
    }
}
