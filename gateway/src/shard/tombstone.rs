//! Keys of ended sessions, remembered for a while: a late retransmit must not give birth to a zombie.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;
use kcp_core::Millis;

use crate::session::Key;

/// The remembered keys, each as a 64-bit keyed hash: two keys share one with a chance of 2^-64 per pair.
///
/// Grows without a stall: the hashes are in many small tables by their middle bits, and their order in pieces.
#[derive(Debug)]
pub(super) struct Tombstones {
    hashes: Box<[HashTable<u64>]>,
    /// Oldest first, in pieces of [`PIECE`] that never move; only a single one may be empty.
    order: VecDeque<VecDeque<(u64, Millis)>>,
    len: usize,
    forgotten: u64,
    hasher: SeedableRandomState,
}

impl Tombstones {
    /// None yet; meant for up to `max` at once, `seed` keys the hash.
    #[must_use]
    pub(super) fn new(max: u32, seed: u64) -> Self {
        let parts = (max / PART).next_power_of_two();
        Self {
            hashes: (0..parts).map(|_| HashTable::new()).collect(),
            order: VecDeque::new(),
            len: 0,
            forgotten: 0,
            hasher: SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_fixed()),
        }
    }

    /// Remembers `key` until `until`; of more than `max`, the oldest is forgotten.
    pub(super) fn remember(&mut self, key: &Key, until: Millis, max: u32) {
        let hash = self.hash(key);
        if max == 0 || self.contains(hash) {
            return;
        }
        while self.len >= max as usize {
            self.forgotten += 1;
            self.forget_oldest();
        }
        let part = self.part(hash);
        self.hashes[part].insert_unique(hash, hash, |&h| h);
        self.len += 1;
        match self.order.back_mut() {
            Some(piece) if piece.len() < PIECE => piece.push_back((hash, until)),
            Some(_) | None => {
                let mut piece = VecDeque::with_capacity(PIECE);
                piece.push_back((hash, until));
                self.order.push_back(piece);
            }
        }
    }

    /// `key` is remembered.
    #[must_use]
    pub(super) fn holds(&self, key: &Key) -> bool {
        self.len > 0 && self.contains(self.hash(key))
    }

    /// Forgets up to `budget` keys whose time is over.
    pub(super) fn expire(&mut self, now: Millis, budget: usize) {
        for _ in 0..budget {
            if self.next_deadline().is_none_or(|until| now.since(until) < 0) {
                return;
            }
            self.forget_oldest();
        }
    }

    /// When the oldest key's time is over.
    #[must_use]
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.order.front()?.front().map(|&(_, until)| until)
    }

    /// Keys remembered.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Keys forgotten before their time since the start.
    #[must_use]
    pub(super) const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn forget_oldest(&mut self) {
        let Some(piece) = self.order.front_mut() else { return };
        let Some((hash, _)) = piece.pop_front() else { return };
        // The last piece stays: keys that come and go one by one must not pay for one each time.
        if piece.is_empty() && self.order.len() > 1 {
            self.order.pop_front();
        }
        self.len -= 1;
        let part = self.part(hash);
        let part = &mut self.hashes[part];
        if let Ok(entry) = part.find_entry(hash, |&h| h == hash) {
            entry.remove();
        }
        if part.len() * SHRINK_BELOW < part.capacity() {
            part.shrink_to(part.len() * 2, |&h| h);
        }
    }

    fn contains(&self, hash: u64) -> bool {
        self.hashes[self.part(hash)].find(hash, |&h| h == hash).is_some()
    }

    fn hash(&self, key: &Key) -> u64 {
        self.hasher.hash_one(key)
    }

    /// By the middle bits: hashbrown uses the lowest and the highest.
    fn part(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.hashes.len() - 1)
    }
}

/// Keys that a table is meant to hold when all are full.
const PART: u32 = 1024;
/// Keys in a piece of the order: 64 KiB.
const PIECE: usize = 4096;
/// A table shrinks when less than one in so many of its places is taken.
const SHRINK_BELOW: usize = 8;

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
        let mut graves = Tombstones::new(8, 1);
        graves.remember(&key(1), Millis(u32::MAX - 5), 8);
        graves.remember(&key(2), Millis(5), 8);
        graves.expire(Millis(u32::MAX - 6), 8);
        assert!(graves.holds(&key(1)));
        graves.expire(Millis(u32::MAX - 5), 8);
        assert!(!graves.holds(&key(1)) && graves.holds(&key(2)));
        graves.expire(Millis(5), 8);
        assert!(graves.len() == 0 && graves.next_deadline().is_none());
        assert_eq!(graves.forgotten(), 0, "their time was over");
    }

    #[test]
    fn never_holds_more_than_its_bound() {
        let mut graves = Tombstones::new(10, 1);
        for n in 0..100 {
            graves.remember(&key(n), Millis(1000), 10);
        }
        assert_eq!((graves.len(), graves.forgotten()), (10, 90));
        assert!(graves.holds(&key(99)) && !graves.holds(&key(89)));
    }

    #[test]
    fn a_million_are_never_moved_at_once() {
        const MANY: u32 = 1_000_000;
        let mut graves = Tombstones::new(MANY, 1);
        let many_keys = |n: u32| Key { conv: Conv(n), ..key(1) };
        for n in 0..MANY {
            graves.remember(&many_keys(n), Millis(n / 1000), MANY);
        }
        let largest = |graves: &Tombstones| graves.hashes.iter().map(HashTable::capacity).max();
        let moved = largest(&graves).unwrap().max(graves.order.len());
        assert!(moved <= 4 * PART as usize, "{moved} moved at once");
        assert!(graves.holds(&many_keys(0)) && graves.holds(&many_keys(MANY - 1)));
        // Memory goes with them.
        for _ in 0..MANY / 1000 {
            graves.expire(Millis(1000), 1000);
        }
        assert_eq!((graves.len(), graves.order.len()), (0, 1));
        assert!(largest(&graves).unwrap() <= 16);
        assert!(!graves.holds(&many_keys(0)) && graves.next_deadline().is_none());
    }
}
