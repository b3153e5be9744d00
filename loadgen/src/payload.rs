//! What a message says about itself, so that loss, duplication, reordering and corruption cannot hide.
//!
//! Messages of 24 bytes and more carry a header, little-endian, and then noise:
//!
//! | offset | size | field |
//! | ---: | ---: | --- |
//! | 0 | 4 | CRC-32 of all that follows, started with the run's seed, so that another run's message fails it |
//! | 4 | 4 | session number |
//! | 8 | 4 | sequence number within the session, from 0 |
//! | 12 | 8 | intended send time, microseconds of the run's clock |
//! | 20 | 4 | how much later it really left, microseconds, saturating |
//!
//! A smaller message has no room for that. Its bytes are a keystream of (seed, session, sequence), compared with what an
//! ordered stream must bring next; its times stay on our side (see `ledger.rs`). What can then be told: a wrong byte is
//! `corrupted` whatever its cause, a surplus message is `duplicated`, a missing one is `lost`; one message of one byte
//! passes by accident once in 256 times, the sequence as a whole does not.

use net_io::Now;

use crate::seed::{low32, mix64};

/// The smallest message with a header.
pub const HEADER_LEN: usize = 24;

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The session's number in the whole run.
    pub session: u32,
    /// The message's number in its session, wrapping.
    pub sequence: u32,
    /// When it should have left.
    pub intended: Now,
    /// How many microseconds later it left.
    pub lag_us: u32,
}

/// The message is not what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// Writes and checks the messages of one run.
#[derive(Clone, Debug)]
pub struct Codec {
    seed: u64,
    noise: Vec<u8>,
}

impl Codec {
    /// A codec for messages of at most `len_max` bytes.
    #[must_use]
    pub fn new(seed: u64, len_max: usize) -> Self {
        let words = (NOISE_SHIFT_MAX + len_max).div_ceil(8) as u64;
        let noise = (0..words).flat_map(|n| mix64(seed ^ mix64(n)).to_le_bytes()).collect();
        Self { seed, noise }
    }

    /// A message of `len` bytes has a header.
    #[must_use]
    pub const fn has_header(len: usize) -> bool {
        len >= HEADER_LEN
    }

    /// Fills `message` with what `stamp` says.
    pub fn write(&self, message: &mut [u8], stamp: &Stamp) {
        let Some((header, rest)) = message.split_first_chunk_mut::<HEADER_LEN>() else {
            return self.write_small(message, stamp.session, stamp.sequence);
        };
        header[4..8].copy_from_slice(&stamp.session.to_le_bytes());
        header[8..12].copy_from_slice(&stamp.sequence.to_le_bytes());
        header[12..20].copy_from_slice(&stamp.intended.0.to_le_bytes());
        header[20..24].copy_from_slice(&stamp.lag_us.to_le_bytes());
        let shift = (stamp.session ^ stamp.sequence.rotate_left(7)) as usize % NOISE_SHIFT_MAX;
        let noise = self.noise.get(shift..).unwrap_or(&[]);
        for (byte, value) in rest.iter_mut().zip(noise) {
            *byte = *value;
        }
        let sum = self.sum(&message[4..]);
        message[..4].copy_from_slice(&sum.to_le_bytes());
    }

    /// What a message with a header says.
    ///
    /// # Errors
    /// It is too short or its checksum is wrong.
    pub fn read(&self, message: &[u8]) -> Result<Stamp, Damaged> {
        let (header, _) = message.split_first_chunk::<HEADER_LEN>().ok_or(Damaged)?;
        let [s0, s1, s2, s3, fields @ ..] = *header;
        if u32::from_le_bytes([s0, s1, s2, s3]) != self.sum(&message[4..]) {
            return Err(Damaged);
        }
        let [a0, a1, a2, a3, b0, b1, b2, b3, t @ ..] = fields;
        let [t0, t1, t2, t3, t4, t5, t6, t7, l0, l1, l2, l3] = t;
        Ok(Stamp {
            session: u32::from_le_bytes([a0, a1, a2, a3]),
            sequence: u32::from_le_bytes([b0, b1, b2, b3]),
            intended: Now(u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7])),
            lag_us: u32::from_le_bytes([l0, l1, l2, l3]),
        })
    }

    /// Compares a message without a header with the one that must come.
    ///
    /// # Errors
    /// A byte or the length differs.
    pub fn check_small(
        &self,
        message: &[u8],
        len: usize,
        session: u32,
        sequence: u32,
    ) -> Result<(), Damaged> {
        let mut expected = [0; HEADER_LEN];
        let expected = expected.get_mut(..len).ok_or(Damaged)?;
        self.write_small(expected, session, sequence);
        if message == expected { Ok(()) } else { Err(Damaged) }
    }

    fn write_small(&self, message: &mut [u8], session: u32, sequence: u32) {
        let key = mix64(self.seed ^ (u64::from(session) << 32 | u64::from(sequence)));
        for (chunk, n) in message.chunks_mut(8).zip(0_u64..) {
            let word = mix64(key ^ n).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    fn sum(&self, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(low32(self.seed ^ (self.seed >> 32)));
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// Messages start at one of this many places in the noise, so that neighbours differ throughout.
const NOISE_SHIFT_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp =
        Stamp { session: 7, sequence: u32::MAX, intended: Now(1 << 40), lag_us: 12 };

    #[test]
    fn what_is_written_is_read() {
        let codec = Codec::new(1, 1000);
        for len in [HEADER_LEN, 25, 64, 1000] {
            let mut message = vec![0; len];
            codec.write(&mut message, &STAMP);
            assert_eq!(codec.read(&message), Ok(STAMP));
        }
    }

    #[test]
    fn every_bit_is_guarded() {
        let codec = Codec::new(2, 64);
        let mut message = [0; 64];
        codec.write(&mut message, &STAMP);
        for bit in 0..message.len() * 8 {
            message[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(codec.read(&message), Err(Damaged), "bit {bit}");
            message[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(codec.read(&message[..63]), Err(Damaged));
        assert_eq!(codec.read(&[]), Err(Damaged));
        assert_eq!(Codec::new(3, 64).read(&message), Err(Damaged), "another run's message");
    }

    #[test]
    fn small_messages_differ_by_session_and_sequence() {
        let codec = Codec::new(4, 23);
        for len in 1..HEADER_LEN {
            let mut message = vec![0; len];
            codec.write(&mut message, &STAMP);
            assert_eq!(codec.check_small(&message, len, 7, u32::MAX), Ok(()));
            assert_eq!(codec.check_small(&message[1..], len, 7, u32::MAX), Err(Damaged));
            message[len - 1] ^= 1;
            assert_eq!(codec.check_small(&message, len, 7, u32::MAX), Err(Damaged));
        }
        let mut one = [[0_u8; 1]; 256];
        for (n, byte) in (0..).zip(one.iter_mut()) {
            codec.write(byte, &Stamp { sequence: n, ..STAMP });
        }
        let passes = (0..255)
            .zip(&one[1..])
            .filter(|(n, next)| codec.check_small(&next[..], 1, 7, *n).is_ok())
            .count();
        assert!(passes < 10, "{passes} of 255 one-byte messages pass for their neighbour");
    }
}
