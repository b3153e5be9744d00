//! One direction between two ends.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::config::LinkConfig;
use crate::rng::Rng;

/// One direction of a bad network for packets of type `P`, whose bytes it reads by `AsMut<[u8]>`: a plain `Vec<u8>`, or
/// bytes with addresses beside them.
///
/// Every packet costs the same draws from the generator, whatever becomes of it. So a change of one setting leaves all
/// other decisions as they were, and the losses at 1 % are among the losses at 2 %.
#[derive(Debug)]
pub struct Link<P> {
    config: LinkConfig,
    rng: Rng,
    in_burst: bool,
    /// The latest time seen: a time that goes back counts as this.
    now_us: u64,
    /// When the rate limit lets the next packet start, in nanoseconds.
    idle_at_ns: u64,
    /// Arrival of the latest packet that was not held back.
    arrival_us: u64,
    held: BinaryHeap<Held<P>>,
    held_ever: u64,
    counters: Counters,
}

/// What a link did since it was made. It balances: `pushed` and `duplicated` together are `delivered`, what is held, and
/// the six reasons to drop, from `lost` to `held_full`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets pushed.
    pub pushed: u64,
    /// Packets popped, copies included.
    pub delivered: u64,
    /// Dropped each for itself.
    pub lost: u64,
    /// Dropped in a burst.
    pub lost_in_burst: u64,
    /// Dropped because the link was dark.
    pub blacked_out: u64,
    /// Dropped because longer than `payload_max`.
    pub too_long: u64,
    /// Dropped because the queue of the rate limit was full.
    pub queue_full: u64,
    /// Dropped because `held_max` packets were under way.
    pub held_full: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Held back for later ones to overtake.
    pub reordered: u64,
    /// Passed with a flipped bit.
    pub corrupted: u64,
}

impl<P: Clone + AsMut<[u8]>> Link<P> {
    /// An empty link.
    #[must_use]
    pub fn new(config: LinkConfig, seed: u64) -> Self {
        Self {
            config,
            rng: Rng::new(seed),
            in_burst: false,
            now_us: 0,
            idle_at_ns: 0,
            arrival_us: 0,
            held: BinaryHeap::new(),
            held_ever: 0,
            counters: Counters::default(),
        }
    }

    /// Puts `packet` on the link at `now_us`.
    pub fn push(&mut self, now_us: u64, mut packet: P) {
        self.now_us = self.now_us.max(now_us);
        self.counters.pushed += 1;
        let draws = Draws::new(&mut self.rng);
        let Some(left_us) = self.depart(&draws, packet.as_mut().len()) else { return };

        if draws.corrupt < self.config.corrupt_ppm && flip_bit(packet.as_mut(), draws.bit) {
            self.counters.corrupted += 1;
        }
        let travelled_us = left_us.saturating_add(self.config.delay_us);
        let copy = (draws.duplicate < self.config.duplicate_ppm).then(|| packet.clone());
        let arrival_us = self.arrive(travelled_us, draws.jitter, draws.reorder);
        self.hold(arrival_us, packet);
        if let Some(copy) = copy.filter(|_| self.held.len() < self.config.held_max) {
            let arrival_us = self.arrive(travelled_us, draws.copy_jitter, NEVER_PPM);
            self.hold(arrival_us, copy);
            self.counters.duplicated += 1;
        }
    }

    /// When [`Link::pop`] has a packet next; `None` when none is under way.
    #[must_use]
    pub fn next_time(&self) -> Option<u64> {
        self.held.peek().map(|held| held.arrival_us)
    }

    /// The next packet that has arrived by `now_us`. Call until `None`.
    pub fn pop(&mut self, now_us: u64) -> Option<P> {
        if self.next_time()? > now_us {
            return None;
        }
        self.counters.delivered += 1;
        self.held.pop().map(|held| held.packet)
    }

    /// Changes the settings for packets pushed from now on; those under way keep their times.
    pub fn set_config(&mut self, config: LinkConfig) {
        self.config = config;
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Packets under way.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Decides whether a packet of `len` bytes leaves the sender's side, and when its last bit does.
    fn depart(&mut self, draws: &Draws, len: usize) -> Option<u64> {
        let config = &self.config;
        if let Some(bursts) = config.bursts {
            let turn_ppm = if self.in_burst { bursts.leave_ppm } else { bursts.enter_ppm };
            self.in_burst ^= draws.burst_turn < turn_ppm;
        } else {
            self.in_burst = false;
        }
        let burst_loss_ppm = config.bursts.filter(|_| self.in_burst).map_or(0, |b| b.loss_ppm);
        let dropped = if config.blackouts.iter().any(|blackout| blackout.covers(self.now_us)) {
            &mut self.counters.blacked_out
        } else if len > config.payload_max {
            &mut self.counters.too_long
        } else if draws.loss < config.loss_ppm {
            &mut self.counters.lost
        } else if draws.burst_loss < burst_loss_ppm {
            &mut self.counters.lost_in_burst
        } else if self.held.len() >= config.held_max {
            &mut self.counters.held_full
        } else if let Some(left_us) = self.transmit(len) {
            return Some(left_us);
        } else {
            &mut self.counters.queue_full
        };
        *dropped += 1;
        None
    }

    /// Takes the packet's share of the rate. `None`: the queue is full.
    fn transmit(&mut self, len: usize) -> Option<u64> {
        let rate = u128::from(self.config.rate_bits_per_s);
        if rate == 0 {
            return Some(self.now_us);
        }
        let now_ns = self.now_us.saturating_mul(1_000);
        let bytes = len as u128 + u128::from(self.config.overhead_bytes);
        let waiting_ns = self.idle_at_ns.saturating_sub(now_ns);
        let waiting_bytes = u128::from(waiting_ns) * rate / NS_BITS_PER_BYTE_SECOND;
        if waiting_bytes + bytes > u128::from(self.config.queue_bytes_max) {
            return None;
        }
        let takes_ns = (bytes * NS_BITS_PER_BYTE_SECOND).div_ceil(rate);
        let takes_ns = u64::try_from(takes_ns).unwrap_or(u64::MAX);
        self.idle_at_ns = self.idle_at_ns.max(now_ns).saturating_add(takes_ns);
        Some(self.idle_at_ns.div_ceil(1_000))
    }

    /// When a packet arrives that would without jitter arrive at `travelled_us`.
    fn arrive(&mut self, travelled_us: u64, jitter: u64, reorder: u32) -> u64 {
        let jitter_us = scale(jitter, self.config.jitter_us.saturating_add(1));
        let arrival_us = travelled_us.saturating_add(jitter_us);
        if reorder < self.config.reorder_ppm {
            self.counters.reordered += 1;
            return arrival_us.saturating_add(self.config.reorder_us);
        }
        if !self.config.keep_order {
            return arrival_us;
        }
        self.arrival_us = self.arrival_us.max(arrival_us);
        self.arrival_us
    }

    fn hold(&mut self, arrival_us: u64, packet: P) {
        self.held.push(Held { arrival_us, order: self.held_ever, packet });
        self.held_ever += 1;
    }
}

/// All that chance decides about one packet.
struct Draws {
    burst_turn: u32,
    burst_loss: u32,
    loss: u32,
    reorder: u32,
    duplicate: u32,
    corrupt: u32,
    jitter: u64,
    copy_jitter: u64,
    bit: u64,
}

impl Draws {
    fn new(rng: &mut Rng) -> Self {
        let mut ppm = || u32::try_from(rng.below(u64::from(CERTAIN_PPM))).unwrap_or(0);
        Self {
            burst_turn: ppm(),
            burst_loss: ppm(),
            loss: ppm(),
            reorder: ppm(),
            duplicate: ppm(),
            corrupt: ppm(),
            jitter: rng.next_u64(),
            copy_jitter: rng.next_u64(),
            bit: rng.next_u64(),
        }
    }
}

/// A packet under way. The greatest is the next to arrive, for a heap has its greatest on top.
#[derive(Debug)]
struct Held<P> {
    arrival_us: u64,
    /// Packets that arrive together keep the order in which they were pushed.
    order: u64,
    packet: P,
}

impl<P> Ord for Held<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.arrival_us, other.order).cmp(&(self.arrival_us, self.order))
    }
}

impl<P> PartialOrd for Held<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> PartialEq for Held<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P> Eq for Held<P> {}

/// Flips the bit that `draw` names; false if there is none.
fn flip_bit(bytes: &mut [u8], draw: u64) -> bool {
    let bit = scale(draw, bytes.len() as u64 * 8);
    let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| bytes.get_mut(at)) else {
        return false;
    };
    *byte ^= 1 << (bit % 8);
    true
}

/// Maps 64 random bits to a number below `n`, or to 0.
fn scale(draw: u64, n: u64) -> u64 {
    ((u128::from(draw) * u128::from(n)) >> 64) as u64
}

const CERTAIN_PPM: u32 = 1_000_000;

/// A draw that no chance reaches.
const NEVER_PPM: u32 = u32::MAX;

/// A byte at one bit per second takes this many nanoseconds.
const NS_BITS_PER_BYTE_SECOND: u128 = 8 * 1_000_000_000;

#[cfg(test)]
mod tests;
