//! Gives the store's memory back when a peak is over: slowly, and never what the last seconds needed.

use kcp_core::{Millis, Store};

/// How much of its memory the store needed lately.
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
    pub(super) fn run(&mut self, now: Millis, store: &mut Store) {
        let used = store.bytes_used();
        let left = self.window_end.since(now);
        // After a very long silence the clock may have wrapped past the window's end.
        if left <= 0 || left > WINDOW_MS.cast_signed() {
            self.window_end = now.add(WINDOW_MS);
            self.peaks = [self.peaks[1], 0];
        }
        self.peaks[1] = self.peaks[1].max(used);
        let needed = self.peaks[0].max(self.peaks[1]);
        let keep = needed - used + KEEP_BYTES;
        let recycled = store.bytes_recycled();
        if recycled > keep {
            store.trim(keep.max(recycled.saturating_sub(STEP_BYTES)));
        }
        self.more = store.bytes_recycled() > keep;
    }

    /// When more is to be given back although nothing happens; not after `now` when it can go at once.
    pub(super) fn next_deadline(&self, now: Millis, store: &Store) -> Option<Millis> {
        let at = if self.more { now } else { self.window_end };
        (store.bytes_recycled() > KEEP_BYTES).then_some(at)
    }
}

/// How long a peak is remembered: one to two windows.
const WINDOW_MS: u32 = 10_000;
/// Kept whatever was needed: more than a turn's datagrams take and give back before its end is looked at.
const KEEP_BYTES: usize = 4 << 20;
/// Given back in one turn: a thousand buffers of the smallest size at most, some 50 us.
const STEP_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use kcp_core::{Conv, Cx, Kcp, KcpConfig};

    use super::*;

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
