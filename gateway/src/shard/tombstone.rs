//! Keys of ended sessions, remembered for a while: a late retransmit must not give birth to a zombie.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;
use kcp_core::Millis;

use crate::session::Key;

/// The remembered keys, each as a 64-bit keyed hash: two keys share one with a chance of 2^-64 per pair.
#[derive(Debug)]
pub(super) struct Tombstones {
    hashes: HashTable<u64>,
    order: VecDeque<(u64, Millis)>,
    hasher: SeedableRandomState,
}

impl Tombstones {
    /// None yet; `seed` keys the hash.
    #[must_use]
    pub(super) fn new(seed: u64) -> Self {
        Self {
            hashes: HashTable::new(),
            order: VecDeque::new(),
            hasher: SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_fixed()),
        }
    }

    /// Remembers `key` until `until`; of more than `max`, the oldest is forgotten.
    pub(super) fn remember(&mut self, key: &Key, until: Millis, max: u32) {
        let hash = self.hash(key);
        if max == 0 || self.contains(hash) {
            return;
        }
        while self.order.len() >= max as usize {
            self.forget_oldest();
        }
        self.hashes.insert_unique(hash, hash, |&h| h);
        self.order.push_back((hash, until));
    }

    /// `key` is remembered.
    #[must_use]
    pub(super) fn holds(&self, key: &Key) -> bool {
        !self.order.is_empty() && self.contains(self.hash(key))
    }

    /// Forgets up to `budget` keys whose time is over.
    pub(super) fn expire(&mut self, now: Millis, budget: usize) {
        for _ in 0..budget {
            match self.order.front() {
                Some(&(_, until)) if now.since(until) >= 0 => self.forget_oldest(),
                _ => return,
            }
        }
    }

    /// When the oldest key's time is over.
    #[must_use]
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.order.front().map(|&(_, until)| until)
    }

    /// Keys remembered.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    fn forget_oldest(&mut self) {
        if let Some((hash, _)) = self.order.pop_front()
            && let Ok(entry) = self.hashes.find_entry(hash, |&h| h == hash)
        {
            entry.remove();
        }
    }

    fn contains(&self, hash: u64) -> bool {
        self.hashes.find(hash, |&h| h == hash).is_some()
    }

    fn hash(&self, key: &Key) -> u64 {
        self.hasher.hash_one(key)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use kcp_core::Conv;

    use super::*;
    use crate::session::Peer;

    fn key(n: u16) -> Key {
        Key { peer: Peer::from(SocketAddr::from(([127, 0, 0, 1], n))), conv: Conv(7) }
    }

    #[test]
    fn forgets_when_the_time_is_over_and_not_before() {
        let mut graves = Tombstones::new(1);
        graves.remember(&key(1), Millis(u32::MAX - 5), 8);
        graves.remember(&key(2), Millis(5), 8);
        graves.expire(Millis(u32::MAX - 6), 8);
        assert!(graves.holds(&key(1)));
        graves.expire(Millis(u32::MAX - 5), 8);
        assert!(!graves.holds(&key(1)) && graves.holds(&key(2)));
        graves.expire(Millis(5), 8);
        assert!(graves.len() == 0 && graves.next_deadline().is_none());
    }

    #[test]
    fn never_holds_more_than_its_bound() {
        let mut graves = Tombstones::new(1);
        for n in 0..100 {
            graves.remember(&key(n), Millis(1000), 10);
        }
        assert_eq!(graves.len(), 10);
        assert!(graves.holds(&key(99)) && !graves.holds(&key(89)));
    }
}
