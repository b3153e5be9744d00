//! Which backend gets a new session. Pure: the same backends, the same state and the same conversation give the same answer.

use kcp_core::Conv;

use super::backoff::mix;

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Policy {
    /// In turn, each as often as its weight says, evenly mixed.
    #[default]
    RoundRobin,
    /// Where the fewest sessions are for the weight.
    LeastSessions,
    /// By the conversation: the same one goes to the same backend through every gateway that knows the same backends, and
    /// when a backend comes or goes, only the sessions that it gains or loses move. A client that picks its conversation
    /// picks its backend.
    Rendezvous,
}

/// One backend as the choice sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// It may get new sessions: up, not draining, not ejected.
    pub usable: bool,
    /// Its share, relative to the others'; 0 gets nothing.
    pub weight: u16,
    /// Sessions it has now, as far as the chooser knows.
    pub sessions: u32,
    /// What it is known by to the rendezvous: a hash of its name, the same at every gateway (see [`key`]).
    pub key: u64,
}

impl Candidate {
    const fn is_eligible(&self) -> bool {
        self.usable && self.weight > 0
    }
}

/// A backend's rendezvous key: FNV-1a of its name, the same on every machine and in every release.
#[must_use]
pub fn key(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// Chooses a backend for each new session, in time proportional to their number.
#[derive(Clone, Debug)]
pub struct Router {
    policy: Policy,
    /// Round robin: what each backend has saved up, in the same order as the backends.
    savings: Vec<Savings>,
    /// Where the search for the best begins, so that equals are not always decided for the first.
    offset: usize,
}

/// What a backend has saved up towards its next turn. All of them sum to zero.
#[derive(Clone, Copy, Debug, Default)]
struct Savings {
    credit: i64,
    eligible: bool,
}

impl Router {
    /// A router. `seed` says at which backend it begins: with one for each shard, the first sessions of all shards do not
    /// land on one backend.
    #[must_use]
    pub const fn new(policy: Policy, seed: usize) -> Self {
        Self { policy, savings: Vec::new(), offset: seed }
    }

    /// The index of the backend for the next session; `None` when none is eligible. Allocates only when `backends` is longer
    /// than ever before.
    pub fn choose(&mut self, backends: &[Candidate], conv: Conv) -> Option<usize> {
        match self.policy {
            Policy::RoundRobin => self.round_robin(backends),
            Policy::LeastSessions => self.least_sessions(backends),
            Policy::Rendezvous => rendezvous(backends, conv),
        }
    }

    /// Forgets what was saved up: the list of backends is another one.
    pub fn reset(&mut self) {
        self.savings.clear();
    }

    /// Each eligible backend saves its weight, the richest is chosen and pays the sum: over as many choices as that sum,
    /// each is chosen as often as its weight says, and never twice in a row while another is due.
    fn round_robin(&mut self, backends: &[Candidate]) -> Option<usize> {
        let same = self.savings.len() == backends.len()
            && self.savings.iter().zip(backends).all(|(s, b)| s.eligible == b.is_eligible());
        if !same {
            // From nothing, because who comes back must not have a claim to a burst, nor the others one against it.
            let fresh = |b: &Candidate| Savings { credit: 0, eligible: b.is_eligible() };
            self.savings.clear();
            self.savings.extend(backends.iter().map(fresh));
            self.offset = self.offset.wrapping_add(1);
        }
        let mut total = 0;
        for (savings, backend) in self.savings.iter_mut().zip(backends) {
            if savings.eligible {
                savings.credit += i64::from(backend.weight);
                total += i64::from(backend.weight);
            }
        }
        let savings = &self.savings;
        let richer = |i: usize, j: usize| savings[i].credit > savings[j].credit;
        let chosen = best(backends, self.offset, richer)?;
        self.savings[chosen].credit -= total;
        Some(chosen)
    }

    fn least_sessions(&mut self, backends: &[Candidate]) -> Option<usize> {
        let load =
            |i: usize, j: usize| u64::from(backends[i].sessions) * u64::from(backends[j].weight);
        let chosen = best(backends, self.offset, |i, j| load(i, j) < load(j, i))?;
        self.offset = self.offset.wrapping_add(1);
        Some(chosen)
    }
}

/// The eligible backend that no other is better than; among equals, the first from `offset` on.
fn best(
    backends: &[Candidate],
    offset: usize,
    better: impl Fn(usize, usize) -> bool,
) -> Option<usize> {
    let n = backends.len();
    let mut best = None;
    for i in (0..n).map(|i| (offset % n + i) % n) {
        if backends[i].is_eligible() && best.is_none_or(|j| better(i, j)) {
            best = Some(i);
        }
    }
    best
}

/// Weighted rendezvous: each backend draws a number that depends on it and on the conversation alone, with a distribution
/// by its weight; the smallest wins. `-ln(u) / weight` for a uniform `u` is that draw; any base does, so it is base 2.
fn rendezvous(backends: &[Candidate], conv: Conv) -> Option<usize> {
    let draw = |b: &Candidate| minus_log2(mix(mix(u64::from(conv.0)) ^ b.key));
    let mut best: Option<(usize, u64)> = None;
    for (i, backend) in backends.iter().enumerate().filter(|(_, b)| b.is_eligible()) {
        let draw = draw(backend);
        let wins = best.is_none_or(|(j, least)| {
            u128::from(draw) * u128::from(backends[j].weight)
                < u128::from(least) * u128::from(backend.weight)
        });
        if wins {
            best = Some((i, draw));
        }
    }
    best.map(|(i, _)| i)
}

/// `-log2(x / 2^64)` with 32 binary places, 0 counting as 1. In integers, so that no two machines differ in a last bit.
fn minus_log2(x: u64) -> u64 {
    let x = x.max(1);
    let whole = u64::from(x.leading_zeros());
    // In [1, 2) with 63 binary places; each squaring tells one more place of the logarithm.
    let mut m = x << whole;
    let mut places = 0;
    for _ in 0..32 {
        let square = (u128::from(m) * u128::from(m)) >> 63;
        places <<= 1;
        if square >> 64 != 0 {
            places |= 1;
            m = u64::try_from(square >> 1).unwrap_or(u64::MAX);
        } else {
            m = u64::try_from(square).unwrap_or(u64::MAX);
        }
    }
    // log2(x) = 63 - whole + places / 2^32
    ((whole + 1) << 32) - places
}

#[cfg(test)]
mod tests;
