//! Where randomness comes from: one 64-bit seed per run, printed in every report.

use std::hash::{BuildHasher, RandomState};

/// A seed nobody chose, from the entropy that the standard library keys its hash tables with.
#[must_use]
pub fn fresh() -> u64 {
    RandomState::new().hash_one(0_u64)
}

/// One step of SplitMix64: a bijection of 64 bits in which every input bit reaches every output bit.
#[must_use]
pub const fn mix64(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The low 32 bits.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "taking the low half is the purpose")]
pub const fn low32(value: u64) -> u32 {
    value as u32
}
