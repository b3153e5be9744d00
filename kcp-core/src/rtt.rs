//! Smoothed round-trip time and the retransmission timeout computed from it.

use crate::config::KcpConfig;
use crate::stats::Stats;

/// Cap of the timeout, in milliseconds. A segment's own, backed-off timeout has none.
pub(crate) const RTO_MAX: u32 = 60_000;

/// Integer estimator of the reference; every division truncates. Reference: `ikcp_update_ack`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rtt {
    srtt: u32,
    rttval: u32,
    rto: u32,
}

impl Rtt {
    pub(crate) const fn new() -> Self {
        Self { srtt: 0, rttval: 0, rto: RTO_DEF }
    }

    /// Takes what an ACK's echoed clock says. Every ACK is a sample, stale and repeated ones included, as in the reference.
    ///
    /// The echoed clock is the peer's to choose: strict input believes none that is late by more than [`RTO_MAX`] or ahead of
    /// ours, as no honest one is. Without, only the latter is no sample.
    #[inline]
    pub(crate) fn on_echo(&mut self, rtt: i32, config: &KcpConfig, stats: &mut Stats) {
        let sample = rtt.cast_unsigned();
        if sample <= RTO_MAX {
            self.on_sample(sample, config);
        } else if config.strict {
            stats.rtt_samples_dropped += 1;
        } else if rtt >= 0 {
            self.on_sample(sample, config);
        }
    }

    /// Takes one sample in milliseconds, less than 2^31.
    ///
    /// A smoothed value of 0 means "none yet", as in the reference: on a link of less than a millisecond every
    /// sample is a first one.
    #[inline]
    fn on_sample(&mut self, rtt: u32, config: &KcpConfig) {
        if self.srtt == 0 {
            self.srtt = rtt;
            self.rttval = rtt / 2;
        } else {
            // 64 bits: the reference's 32 overflow (undefined there) from samples of 2^28 ms on.
            let (srtt, rttval) = (u64::from(self.srtt), u64::from(self.rttval));
            self.rttval = narrow((3 * rttval + u64::from(rtt.abs_diff(self.srtt))) / 4);
            self.srtt = narrow((7 * srtt + u64::from(rtt)) / 8).max(1);
        }
        let variance = self.rttval.wrapping_mul(4).max(config.interval);
        let rto = self.srtt.wrapping_add(variance);
        self.rto = rto.max(config.min_rto()).min(RTO_MAX);
    }

    /// Smoothed round-trip time in milliseconds; 0 before the first sample.
    pub(crate) const fn srtt(&self) -> u32 {
        self.srtt
    }

    /// Smoothed deviation in milliseconds.
    pub(crate) const fn rttval(&self) -> u32 {
        self.rttval
    }

    /// Timeout of a first transmission in milliseconds.
    pub(crate) const fn rto(&self) -> u32 {
        self.rto
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a weighted mean of 32-bit values lies between them"
)]
const fn narrow(mean: u64) -> u32 {
    mean as u32
}

/// Timeout before the first sample, in milliseconds.
const RTO_DEF: u32 = 200;
