//! Messages there and back between two ends in memory: the loop that is timed and whose instructions are counted, the same
//! for every implementation.

use std::hint::black_box;
use std::time::Instant;

/// Two ends of one conversation.
pub(crate) trait Pair {
    /// Sends `message` from one end to the other and back, acknowledgements included; returns what came back.
    fn round_trip(&mut self, message: &[u8]) -> &[u8];
}

/// Makes `batches` times `trips` round trips of `size` bytes; returns the nanoseconds of one in the fastest batch, since
/// nothing makes code faster than it is.
pub(crate) fn fastest(mut pair: impl Pair, size: usize, trips: u32, batches: u32) -> f64 {
    let mut message: Vec<u8> = (0..=u8::MAX).cycle().take(size).collect();
    let mut fastest = f64::INFINITY;
    for _ in 0..batches {
        let began = now();
        for trip in 0..trips {
            message[0] = trip.to_le_bytes()[0];
            let echo = pair.round_trip(black_box(&message));
            assert_eq!(echo, message, "round trip {trip} came back different");
        }
        fastest = fastest.min(began.elapsed().as_secs_f64() * 1e9 / f64::from(trips));
    }
    fastest
}

#[expect(clippy::disallowed_methods, reason = "a bench is about real time")]
fn now() -> Instant {
    Instant::now()
}
