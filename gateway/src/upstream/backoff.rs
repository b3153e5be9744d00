//! How long to wait before trying again: exponential, bounded, and never in step with others.

/// Delays that double from `base_ms` to `max_ms`, each drawn from the upper half of its step.
///
/// The draw keeps shards and gateways that lost one backend at one moment from coming back at one moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    base_ms: u32,
    max_ms: u32,
    /// Delays drawn since the last [`Backoff::reset`], not counted beyond what reaches `max_ms`.
    attempt: u32,
    /// State of the generator, SplitMix64.
    random: u64,
}

impl Backoff {
    /// Delays between half of `base_ms` and `max_ms` milliseconds. The same `seed` draws the same delays. A bound below the
    /// base counts as the base, and a base of 0 as 1.
    #[must_use]
    pub fn new(base_ms: u32, max_ms: u32, seed: u64) -> Self {
        let base_ms = base_ms.max(1);
        Self { base_ms, max_ms: max_ms.max(base_ms), attempt: 0, random: seed }
    }

    /// The next delay in milliseconds, between half of the step and the step, at least 1.
    pub fn next_ms(&mut self) -> u32 {
        let wide = u64::from(self.base_ms) << self.attempt.min(DOUBLINGS_MAX);
        let step = u32::try_from(wide).map_or(self.max_ms, |step| step.min(self.max_ms));
        if step < self.max_ms {
            self.attempt += 1;
        }
        let spread = u64::from(step / 2) + 1;
        step - u32::try_from(self.draw() % spread).unwrap_or(0)
    }

    /// Starts over from `base_ms`: what was tried has worked.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }

    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.random)
    }
}

/// Spreads every bit of `word` over all of them: SplitMix64's finaliser, the same on every machine and in every release.
#[must_use]
pub const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// Doublings of a 32-bit number that still fit 64 bits.
const DOUBLINGS_MAX: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        let mut backoff = Backoff::new(1, 1, 0);
        let first: Vec<u64> = (0..3).map(|_| backoff.draw()).collect();
        assert_eq!(first, [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F]);
    }

    #[test]
    fn delays_double_up_to_the_bound_and_start_over() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(100, 2000, seed);
            for round in 0..2 {
                for step in [100, 200, 400, 800, 1600, 2000, 2000, 2000] {
                    let delay = backoff.next_ms();
                    assert!(
                        delay >= step / 2 && delay <= step,
                        "{delay} of {step}, {seed}/{round}"
                    );
                }
                backoff.reset();
            }
        }
    }

    #[test]
    fn one_seed_draws_one_row_of_delays_and_two_seeds_two() {
        let row = |seed| {
            let mut backoff = Backoff::new(1000, 60_000, seed);
            (0..10).map(|_| backoff.next_ms()).collect::<Vec<_>>()
        };
        assert_eq!(row(7), row(7));
        assert_ne!(row(7), row(8));
    }

    #[test]
    fn extremes_stay_in_range() {
        let mut backoff = Backoff::new(u32::MAX, u32::MAX, 1);
        assert!((0..100).all(|_| backoff.next_ms() >= u32::MAX / 2));
        let mut backoff = Backoff::new(0, 0, 1);
        assert!((0..100).all(|_| backoff.next_ms() == 1));
        let mut backoff = Backoff::new(1, u32::MAX, 1);
        assert!((0..1000).map(|_| backoff.next_ms()).last().unwrap() >= u32::MAX / 2);
    }
}
