//! What all workers share, and which part of it is whose.

use crate::convs::Convs;
use crate::payload::Codec;
use crate::scenario::Scenario;

/// A scenario with what all workers derive from it once.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) scenario: Scenario,
    pub(crate) codec: Codec,
    pub(crate) convs: Convs,
}

impl Plan {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let codec = Codec::new(scenario.seed, scenario.traffic.size.max(RAW_MESSAGE_MAX));
        let convs = Convs::new(scenario.clients.convs, scenario.seed);
        Self { scenario, codec, convs }
    }
}

/// Which part of the run is one worker's: every `workers`-th session and socket, from number `worker` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) worker: u32,
    pub(crate) workers: u32,
}

impl Share {
    /// How many of `total` things numbered from 0 are this worker's.
    pub(crate) const fn of(self, total: u32) -> u32 {
        total.saturating_sub(self.worker).div_ceil(self.workers)
    }

    /// The number, in the whole run, of this worker's thing `local`.
    pub(crate) const fn number(self, local: u32) -> u32 {
        local * self.workers + self.worker
    }

    /// This worker's index of the thing `number`, if it is one of its.
    pub(crate) const fn local(self, number: u32) -> Option<u32> {
        if number % self.workers == self.worker { Some(number / self.workers) } else { None }
    }
}

const RAW_MESSAGE_MAX: usize = 65_535;
