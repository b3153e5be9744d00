//! Conversation ids: distinct by construction, and found again without a table.
//!
//! A million sessions would need tens of megabytes to map a conv back to its session. A keyed bijection of 32 bits
//! needs none: session `n` gets `forward(n)`, and a datagram's conv leads back through `inverse`.

use kcp_core::Conv;

use crate::seed::{low32, mix64};

/// How the sessions' conversation ids are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvChoice {
    /// Distinct and without pattern; a function of the run's seed.
    Random,
    /// Session `n` gets `base + n`, wrapping.
    Base(u32),
}

/// The mapping between session numbers and conversation ids. Both directions are O(1).
#[derive(Clone, Copy, Debug)]
pub struct Convs {
    choice: ConvChoice,
    keys: [u32; ROUNDS],
}

impl Convs {
    /// The mapping of a run.
    #[must_use]
    pub fn new(choice: ConvChoice, seed: u64) -> Self {
        let mut keys = [0; ROUNDS];
        for (key, salt) in keys.iter_mut().zip(1_u64..) {
            *key = low32(mix64(seed ^ (salt << 56)));
        }
        Self { choice, keys }
    }

    /// The conversation id of session `number`.
    #[must_use]
    pub fn conv(&self, number: u32) -> Conv {
        match self.choice {
            ConvChoice::Base(base) => Conv(base.wrapping_add(number)),
            ConvChoice::Random => {
                let mut word = number;
                for key in self.keys {
                    // Feistel: the halves change places, one of them changed by a function of the other.
                    word = (word << 16) | ((word >> 16) ^ half(word & 0xFFFF, key));
                }
                Conv(word)
            }
        }
    }

    /// The session number of `conv`. Every conv has one; the caller compares it with the number of sessions.
    #[must_use]
    pub fn number(&self, conv: Conv) -> u32 {
        match self.choice {
            ConvChoice::Base(base) => conv.0.wrapping_sub(base),
            ConvChoice::Random => {
                let mut word = conv.0;
                for key in self.keys.iter().rev() {
                    let right = word >> 16;
                    word = (((word & 0xFFFF) ^ half(right, *key)) << 16) | right;
                }
                word
            }
        }
    }
}

/// A keyed function of 16 bits to 16 bits. It need not be a bijection: the network around it is one.
fn half(value: u32, key: u32) -> u32 {
    let product = (value ^ key).wrapping_mul(0x9E37_79B1);
    (product ^ (product >> 15)).wrapping_mul(0x85EB_CA6B) >> 16
}

const ROUNDS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back() {
        let seed = crate::seed::fresh();
        for choice in [ConvChoice::Random, ConvChoice::Base(u32::MAX - 5)] {
            let convs = Convs::new(choice, seed);
            for number in (0..2000).chain((0..32).map(|bit| 1_u32 << bit)).chain([u32::MAX]) {
                assert_eq!(convs.number(convs.conv(number)), number, "seed {seed} {choice:?}");
            }
        }
    }

    #[test]
    fn random_convs_have_no_pattern() {
        let convs = Convs::new(ConvChoice::Random, 7);
        let steps: std::collections::BTreeSet<u32> =
            (0..1000).map(|n| convs.conv(n + 1).0.wrapping_sub(convs.conv(n).0)).collect();
        assert!(steps.len() > 990, "{} distinct steps", steps.len());
    }
}
