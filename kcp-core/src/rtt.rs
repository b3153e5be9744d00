//! Smoothed round-trip time and the retransmission timeout computed from it.

use crate::config::KcpConfig;

/// Cap of the timeout, in milliseconds. A segment's own, backed-off timeout has none.
pub(crate) const RTO_MAX: u32 = 60_000;

/// Integer estimator of the reference; every division truncates. Reference: `ikcp_update_ack`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rtt {
    srtt: i32,
    rttval: i32,
    rto: u32,
}

impl Rtt {
    pub(crate) const fn new() -> Self {
        Self { srtt: 0, rttval: 0, rto: RTO_DEF }
    }

    /// Takes one sample in milliseconds, not negative.
    ///
    /// A smoothed value of 0 means "none yet", as in the reference: on a link of less than a millisecond every
    /// sample is a first one.
    #[inline]
    pub(crate) fn on_sample(&mut self, rtt: i32, config: &KcpConfig) {
        if self.srtt == 0 {
            self.srtt = rtt;
            self.rttval = rtt / 2;
        } else {
            // 64 bits: the reference's 32 overflow (undefined there) from samples of 2^28 ms on.
            let (srtt, rttval, rtt) =
                (i64::from(self.srtt), i64::from(self.rttval), i64::from(rtt));
            let delta = (rtt - srtt).abs();
            self.rttval = narrow((3 * rttval + delta) / 4);
            self.srtt = narrow((7 * srtt + rtt) / 8).max(1);
        }
        let variance = self.rttval.cast_unsigned().wrapping_mul(4).max(config.interval);
        let rto = self.srtt.cast_unsigned().wrapping_add(variance);
        self.rto = rto.max(config.min_rto()).min(RTO_MAX);
    }

    /// Smoothed round-trip time in milliseconds; 0 before the first sample.
    pub(crate) const fn srtt(&self) -> u32 {
        self.srtt.cast_unsigned()
    }

    /// Smoothed deviation in milliseconds.
    pub(crate) const fn rttval(&self) -> u32 {
        self.rttval.cast_unsigned()
    }

    /// Timeout of a first transmission in milliseconds.
    pub(crate) const fn rto(&self) -> u32 {
        self.rto
    }
}

/// A weighted mean of 32-bit values fits 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "a mean of i32 values lies between them")]
const fn narrow(mean: i64) -> i32 {
    mean as i32
}

/// Timeout before the first sample, in milliseconds.
const RTO_DEF: u32 = 200;
