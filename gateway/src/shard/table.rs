//! The shard's sessions: a slab that never moves them, and an index by key.
//!
//! Both grow without a stall. The slab grows by a chunk at a time. The index is split into many small hash tables by the
//! upper half of the hash, so that each rehash moves about a thousand entries, never a million, and reads no session.
//!
//! Both shrink as well. A new session takes a place in the lowest chunk that has one, so that after a peak the high chunks
//! empty themselves as their sessions end, and a chunk without sessions is given back, all but one: a shard whose
//! sessions come and go around a chunk's edge must not pay for a chunk each time.

use std::hash::BuildHasher;
use std::hint::black_box;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;
use kcp_core::Wheel;

use crate::session::{Key, Session, SessionId};

/// Sessions by slot and by key.
#[derive(Debug)]
pub struct Table {
    chunks: Vec<Chunk>,
    /// A bit for each chunk that has a free slot, those given back included.
    room: Vec<u64>,
    /// The chunk that is kept although nobody is in it.
    spare: Option<usize>,
    live: u32,
    /// Given to the next session, so that no two ever share an id; wraps.
    generation: u32,
    index: Box<[HashTable<Entry>]>,
    hasher: SeedableRandomState,
}

/// Where the session of a key is. It carries as much of the key's hash as its part of the index needs, so that nothing but the
/// index is read when a part grows, and a session only when it is the one, or has the same 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    mark: u32,
    slot: u32,
}

impl Entry {
    /// The hash it is filed by: hashbrown uses the lowest bits and the highest.
    fn hash(&self) -> u64 {
        spread(self.mark)
    }
}

/// A part of the slab. Its memory is touched as its slots are first used.
#[derive(Debug, Default)]
struct Chunk {
    slots: Vec<Slot>,
    free: Option<u16>,
    live: u16,
}

#[derive(Debug)]
enum Slot {
    Free { next: Option<u16> },
    Live(Session),
}

/// A session that was taken out.
#[derive(Debug)]
pub(super) struct Removed {
    /// It.
    pub(super) session: Session,
    /// One of the slots that were given back with it, [`CHUNK`] of them.
    pub(super) released: Option<u32>,
}

/// Slots come and go together with their timers.
pub(super) const CHUNK: usize = Wheel::CHUNK;
const CHUNK_BITS: u32 = CHUNK.ilog2();
/// Entries that one part of the index is meant to hold when the table is full.
const PART: u32 = 1024;
/// What an entry of the index takes at most, in bytes: it and its control byte, in a table that has just doubled and is
/// 7/16 full.
const ENTRY_BYTES: usize = (size_of::<Entry>() + 1) * 16 / 7 + 1;

const _: () = assert!(CHUNK.is_power_of_two() && CHUNK <= u16::MAX as usize);

/// A million idle sessions pay for every byte of this: the session itself (its protocol's state, its client's address, and
/// where it stands), its timer, and its entry in the index. Payload and queues exist only while data is in flight.
const _: () = {
    const KCP: usize = size_of::<kcp_core::Kcp>();
    const PEER: usize = size_of::<crate::session::Peer>();
    assert!(KCP <= 88 && PEER == 24);
    assert!(size_of::<Session>() <= KCP + PEER + 64);
    assert!(size_of::<Slot>() == size_of::<Session>(), "a free slot costs nothing beside");
    assert!(size_of::<Slot>() + Wheel::TIMER_BYTES + ENTRY_BYTES <= 224);
};

impl Table {
    /// An empty table meant for up to `sessions_max` sessions; `seed` keys the hash against crafted collisions.
    #[must_use]
    pub fn new(sessions_max: u32, seed: u64) -> Self {
        let parts = (sessions_max / PART).next_power_of_two() as usize;
        Self {
            chunks: Vec::new(),
            room: Vec::new(),
            spare: None,
            live: 0,
            generation: 0,
            index: (0..parts).map(|_| HashTable::new()).collect(),
            hasher: SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_fixed()),
        }
    }

    /// Live sessions.
    #[must_use]
    pub(super) fn len(&self) -> u32 {
        self.live
    }

    /// Slots there are, free ones and those given back included: every live session's slot is below.
    #[must_use]
    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.chunks.len() * CHUNK).unwrap_or(u32::MAX)
    }

    /// The slot of the session with this key.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<u32> {
        self.find_hashed(key, self.hash(key))
    }

    fn find_hashed(&self, key: &Key, hash: u64) -> Option<u32> {
        let mark = mark(hash);
        let is_it = |entry: &Entry| {
            entry.mark == mark && self.get(entry.slot).is_some_and(|s| s.key() == *key)
        };
        Some(self.index[self.part(hash)].find(spread(mark), is_it)?.slot)
    }

    /// Brings what finding and serving these keys needs into the caches. One lookup waits for one cache miss after the other; of
    /// many at once the misses overlap, the better the fewer of them depend on each other: so first the entries of all, then
    /// the sessions of all. Returns their slots; an entry with the mark of the key is its session's but for one in four billion.
    pub fn warm_keys(&self, keys: &[Key]) -> [u32; AHEAD] {
        let mut hashes = [0; AHEAD];
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = self.hash(key);
        }
        let mut slots = [u32::MAX; AHEAD];
        for (slot, hash) in slots.iter_mut().zip(hashes).take(keys.len()) {
            let mark = mark(hash);
            let entry = self.index[self.part(hash)].find(spread(mark), |entry| entry.mark == mark);
            *slot = entry.map_or(u32::MAX, |entry| entry.slot);
        }
        self.warm_slots(&slots);
        slots
    }

    /// Likewise what serving the sessions in these slots needs.
    pub(super) fn warm_slots(&self, slots: &[u32]) {
        let sessions = || slots.iter().filter_map(|&slot| self.get(slot));
        black_box(sessions().map(Session::look_ahead).fold(0, u32::wrapping_add));
        black_box(sessions().map(|session| session.kcp.look_ahead()).fold(0, u32::wrapping_add));
    }

    /// Likewise what taking them out needs.
    pub(super) fn warm_ends(&self, slots: &[u32]) {
        let mut hashes = [0; AHEAD];
        for (hash, &slot) in hashes.iter_mut().zip(slots) {
            *hash = self.get(slot).map_or(0, |session| self.hash(&session.key()));
        }
        let found = hashes.iter().zip(slots).filter(|&(&hash, &slot)| {
            let entry = Entry { mark: mark(hash), slot };
            self.index[self.part(hash)].find(entry.hash(), |other| *other == entry).is_some()
        });
        black_box(found.count());
    }

    /// The session in a slot.
    #[must_use]
    pub(super) fn get(&self, index: u32) -> Option<&Session> {
        match self.chunks.get(chunk_of(index))?.slots.get(place_of(index))? {
            Slot::Live(session) => Some(session),
            Slot::Free { .. } => None,
        }
    }

    /// The session in a slot.
    #[must_use]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Session> {
        match self.chunks.get_mut(chunk_of(index))?.slots.get_mut(place_of(index))? {
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
    pub fn insert(&mut self, mut session: Session) -> u32 {
        debug_assert!(self.find(&session.key()).is_none(), "one session per key");
        let hash = self.hash(&session.key());
        session.generation = self.generation;
        self.generation = self.generation.wrapping_add(1);
        let index = self.place(session);
        let part = self.part(hash);
        let entry = Entry { mark: mark(hash), slot: index };
        self.index[part].insert_unique(entry.hash(), entry, Entry::hash);
        self.live += 1;
        index
    }

    /// Takes a session out. Its slot goes to one born later, unless it is given back.
    pub(super) fn remove(&mut self, index: u32) -> Option<Removed> {
        let key = self.get(index)?.key();
        let hash = self.hash(&key);
        let part = self.part(hash);
        let entry = Entry { mark: mark(hash), slot: index };
        if let Ok(found) = self.index[part].find_entry(entry.hash(), |other| *other == entry) {
            found.remove();
        }
        let (number, place) = (chunk_of(index), place_of(index));
        let chunk = self.chunks.get_mut(number)?;
        let free = Slot::Free { next: chunk.free.replace(u16::try_from(place).ok()?) };
        let Slot::Live(session) = std::mem::replace(&mut chunk.slots[place], free) else {
            return None;
        };
        chunk.live -= 1;
        let is_empty = chunk.live == 0;
        self.room[number / 64] |= 1 << (number % 64);
        self.live -= 1;
        self.shrink_part(part);
        let released = is_empty && self.release(number);
        Some(Removed { session, released: released.then_some(index) })
    }

    /// Gives an empty chunk back, or keeps it as the spare one; tells which.
    fn release(&mut self, number: usize) -> bool {
        match self.spare.filter(|&spare| self.chunks[spare].live == 0) {
            Some(spare) if spare != number => {
                self.chunks[number] = Chunk::default();
                true
            }
            Some(_) | None => {
                self.spare = Some(number);
                false
            }
        }
    }

    /// Makes a part of the index smaller that was much larger once; moves what is left of it, a hundred entries or so.
    fn shrink_part(&mut self, part: usize) {
        let part = &mut self.index[part];
        if part.len() * SHRINK_BELOW < part.capacity() {
            part.shrink_to(part.len() * 2, Entry::hash);
        }
    }

    fn place(&mut self, session: Session) -> u32 {
        let number = self.chunk_with_room();
        let chunk = &mut self.chunks[number];
        let place = match chunk.free {
            Some(place) => {
                let slot = &mut chunk.slots[usize::from(place)];
                if let Slot::Free { next } = *slot {
                    chunk.free = next;
                }
                *slot = Slot::Live(session);
                usize::from(place)
            }
            None => {
                if chunk.slots.capacity() == 0 {
                    chunk.slots.reserve_exact(CHUNK);
                }
                chunk.slots.push(Slot::Live(session));
                chunk.slots.len() - 1
            }
        };
        chunk.live += 1;
        if usize::from(chunk.live) == CHUNK {
            self.room[number / 64] &= !(1 << (number % 64));
        }
        // The session cap is a u32 far below this.
        u32::try_from(number * CHUNK + place).unwrap_or(u32::MAX)
    }

    /// The lowest chunk with a free slot: a look at 64 words for a shard of 16 million sessions.
    fn chunk_with_room(&mut self) -> usize {
        let word = self.room.iter().position(|&word| word != 0);
        if let Some(word) = word {
            return word * 64 + self.room[word].trailing_zeros() as usize;
        }
        let number = self.chunks.len();
        self.chunks.push(Chunk::default());
        self.room.resize(number / 64 + 1, 0);
        self.room[number / 64] |= 1 << (number % 64);
        number
    }

    fn hash(&self, key: &Key) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The part is chosen by the half of the hash that is not in its entries.
    fn part(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.index.len() - 1)
    }
}

/// The half of a key's hash that an entry carries.
#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
const fn mark(hash: u64) -> u32 {
    hash as u32
}

const fn spread(mark: u32) -> u64 {
    (mark as u64) << 32 | mark as u64
}

const fn chunk_of(index: u32) -> usize {
    (index >> CHUNK_BITS) as usize
}

const fn place_of(index: u32) -> usize {
    index as usize & (CHUNK - 1)
}

/// Keys or slots whose cache misses overlap: what a core can have under way, and no more than its first cache keeps.
pub const AHEAD: usize = 16;

/// A part of the index shrinks when less than one in so many of its places is taken.
const SHRINK_BELOW: usize = 8;

#[cfg(test)]
mod tests;
