//! Seeded choices for tests.

use netem::Rng;

/// A seeded generator that speaks in sizes and bytes.
pub(super) struct Dice(Rng);

impl Dice {
    /// Prints the seed, so that a failure can be run again.
    pub(super) fn new(seed: u64) -> Self {
        println!("seed {seed}");
        Self(Rng::new(seed))
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.0.below(n as u64)).unwrap()
    }

    /// One time in `n`.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// `n` random bytes.
    pub(super) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.0.next_u64().to_le_bytes()[0]).collect()
    }
}
