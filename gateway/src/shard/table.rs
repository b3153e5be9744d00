//! The shard's sessions: a slab that never moves them, and an index by key.
//!
//! Both grow without a stall. The slab grows by a chunk at a time. The index is split into many small hash tables by the top
//! bits of the hash, so that each rehash moves about a thousand entries, never a million.

use std::hash::BuildHasher;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;

use crate::session::{Key, Session, SessionId};

/// Sessions by slot and by key.
#[derive(Debug)]
pub(super) struct Table {
    chunks: Vec<Vec<Slot>>,
    free: Option<u32>,
    live: u32,
    index: Box<[HashTable<u32>]>,
    hasher: SeedableRandomState,
}

#[derive(Debug)]
enum Slot {
    Free { next: Option<u32>, generation: u32 },
    Live(Session),
}

const CHUNK_BITS: u32 = 10;
const CHUNK: usize = 1 << CHUNK_BITS;
/// Entries that one part of the index is meant to hold when the table is full.
const PART: u32 = 1024;

impl Table {
    /// An empty table meant for up to `sessions_max` sessions; `seed` keys the hash against crafted collisions.
    #[must_use]
    pub(super) fn new(sessions_max: u32, seed: u64) -> Self {
        let parts = (sessions_max / PART).next_power_of_two() as usize;
        Self {
            chunks: Vec::new(),
            free: None,
            live: 0,
            index: (0..parts).map(|_| HashTable::new()).collect(),
            hasher: SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_fixed()),
        }
    }

    /// Live sessions.
    #[must_use]
    pub(super) fn len(&self) -> u32 {
        self.live
    }

    /// Slots ever used: every live session's index is below.
    #[must_use]
    pub(super) fn slots(&self) -> usize {
        match self.chunks.split_last() {
            Some((last, full)) => full.len() * CHUNK + last.len(),
            None => 0,
        }
    }

    /// The slot of the session with this key.
    #[must_use]
    pub(super) fn find(&self, key: &Key) -> Option<u32> {
        let hash = self.hash(key);
        self.index[self.part(hash)]
            .find(hash, |&index| self.get(index).is_some_and(|s| s.key() == *key))
            .copied()
    }

    /// The session in a slot.
    #[must_use]
    pub(super) fn get(&self, index: u32) -> Option<&Session> {
        match self.slot(index)? {
            Slot::Live(session) => Some(session),
            Slot::Free { .. } => None,
        }
    }

    /// The session in a slot.
    #[must_use]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Session> {
        match self.chunks.get_mut(chunk_of(index))?.get_mut(place_of(index))? {
            Slot::Live(session) => Some(session),
            Slot::Free { .. } => None,
        }
    }

    /// The session that `id` was given out for, if it still lives.
    #[must_use]
    pub(super) fn by_id(&mut self, id: SessionId) -> Option<&mut Session> {
        self.get_mut(id.index).filter(|session| session.generation == id.generation)
    }

    /// Puts a session in; its key must not be there yet.
    pub(super) fn insert(&mut self, session: Session) -> u32 {
        debug_assert!(self.find(&session.key()).is_none(), "one session per key");
        let hash = self.hash(&session.key());
        let index = self.place(session);
        let part = self.part(hash);
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        self.index[part].insert_unique(hash, index, |&other| {
            match &chunks[chunk_of(other)][place_of(other)] {
                Slot::Live(session) => hash_of(hasher, &session.key()),
                Slot::Free { .. } => 0,
            }
        });
        self.live += 1;
        index
    }

    /// Takes a session out; its slot goes to the next one born.
    pub(super) fn remove(&mut self, index: u32) -> Option<Session> {
        let key = self.get(index)?.key();
        let hash = self.hash(&key);
        let part = self.part(hash);
        if let Ok(entry) = self.index[part].find_entry(hash, |&other| other == index) {
            entry.remove();
        }
        let slot = &mut self.chunks[chunk_of(index)][place_of(index)];
        let generation = match slot {
            Slot::Live(session) => session.generation.wrapping_add(1),
            Slot::Free { .. } => return None,
        };
        let free = Slot::Free { next: self.free.replace(index), generation };
        self.live -= 1;
        match std::mem::replace(slot, free) {
            Slot::Live(session) => Some(session),
            Slot::Free { .. } => None,
        }
    }

    fn place(&mut self, mut session: Session) -> u32 {
        if let Some(index) = self.free
            && let slot = &mut self.chunks[chunk_of(index)][place_of(index)]
            && let Slot::Free { next, generation } = *slot
        {
            self.free = next;
            session.generation = generation;
            *slot = Slot::Live(session);
            return index;
        }
        let index = self.slots();
        if index.is_multiple_of(CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        if let Some(last) = self.chunks.last_mut() {
            last.push(Slot::Live(session));
        }
        // The session cap is a u32, so the slots are fewer.
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        self.chunks.get(chunk_of(index))?.get(place_of(index))
    }

    fn hash(&self, key: &Key) -> u64 {
        hash_of(&self.hasher, key)
    }

    /// The part is chosen by the middle bits: hashbrown uses the lowest and the highest.
    fn part(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.index.len() - 1)
    }
}

fn hash_of(hasher: &SeedableRandomState, key: &Key) -> u64 {
    hasher.hash_one(key)
}

const fn chunk_of(index: u32) -> usize {
    (index >> CHUNK_BITS) as usize
}

const fn place_of(index: u32) -> usize {
    index as usize & (CHUNK - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use kcp_core::{Conv, Millis};

    use super::*;
    use crate::session::Peer;

    fn key(n: u32) -> Key {
        let [_, _, high, low] = n.to_be_bytes();
        let addr = SocketAddr::from(([127, 0, high, low], 4000));
        Key { peer: Peer::from(addr), conv: Conv(n % 7) }
    }

    #[test]
    fn finds_what_was_put_in_and_nothing_else() {
        let mut table = Table::new(4096, 1);
        let mut model = BTreeMap::new();
        let mut state = 1_u32;
        for _ in 0..50_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let n = (state >> 8) % 4096;
            if let Some(index) = model.remove(&n) {
                assert_eq!(table.find(&key(n)), Some(index));
                assert_eq!(table.remove(index).unwrap().key(), key(n));
            } else {
                let index = table.insert(Session::new(key(n), 0, 0, Millis(0)));
                assert!(model.values().all(|&taken| taken != index));
                model.insert(n, index);
            }
            assert_eq!(table.len() as usize, model.len());
        }
        for n in 0..4096 {
            assert_eq!(table.find(&key(n)), model.get(&n).copied());
        }
        assert!(table.slots() <= 4096, "freed slots are used again");
    }

    #[test]
    fn an_id_does_not_find_the_next_occupant() {
        let mut table = Table::new(16, 1);
        let index = table.insert(Session::new(key(1), 0, 0, Millis(0)));
        let id = SessionId { index, generation: table.get(index).unwrap().generation };
        assert!(table.by_id(id).is_some());
        table.remove(index);
        assert!(table.by_id(id).is_none());
        assert_eq!(table.insert(Session::new(key(2), 0, 0, Millis(0))), index);
        assert!(table.by_id(id).is_none());
    }
}
