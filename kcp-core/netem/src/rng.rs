//! Seeded pseudo-random numbers that are the same on every platform and in every release.

/// xoshiro256** of Blackman and Vigna, its state filled by SplitMix64. For simulation; nothing secret may depend on it.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator whose whole future is `seed`'s.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        let mut state = [0; 4];
        let mut weyl = seed;
        let mut word = 0;
        while word < state.len() {
            weyl = weyl.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = weyl;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            state[word] = z ^ (z >> 31);
            word += 1;
        }
        Self { state }
    }

    /// 64 random bits.
    pub const fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let out = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        out
    }

    /// 32 random bits.
    pub const fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// A number below `n`, or 0 if `n` is 0. Even to within `n` in 2^64.
    pub const fn below(&mut self, n: u64) -> u64 {
        ((self.next_u64() as u128 * n as u128) >> 64) as u64
    }

    /// True with a chance of `ppm` in a million.
    pub const fn chance_ppm(&mut self, ppm: u32) -> bool {
        self.below(1_000_000) < ppm as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_published_algorithms() {
        // SplitMix64 from 0 begins e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f, f88bb8a8724c81ec.
        let mut rng = Rng::new(0);
        assert_eq!(
            rng.state,
            [
                0xE220_A839_7B1D_CDAF,
                0x6E78_9E6A_A1B9_65F4,
                0x06C4_5D18_8009_454F,
                0xF88B_B8A8_724C_81EC
            ]
        );
        // xoshiro256** from the state 1, 2, 3, 4 begins 11520, 0, 1509978240, 1215971899390074240.
        rng.state = [1, 2, 3, 4];
        let out: Vec<u64> = (0..4).map(|_| rng.next_u64()).collect();
        assert_eq!(out, [11_520, 0, 1_509_978_240, 1_215_971_899_390_074_240]);
    }

    #[test]
    fn chances_and_bounds_hold() {
        let mut rng = Rng::new(7);
        assert!((0..1_000).all(|_| rng.below(3) < 3));
        assert_eq!(rng.below(0), 0);
        assert!((0..1_000).all(|_| rng.chance_ppm(1_000_000) && !rng.chance_ppm(0)));
        let hits = (0..100_000).filter(|_| rng.chance_ppm(250_000)).count();
        assert!((24_400..25_600).contains(&hits), "{hits} of 100,000 at one in four");
    }
}
