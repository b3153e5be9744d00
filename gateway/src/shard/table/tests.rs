//! The table against a map, and what it gives back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use kcp_core::{Conv, Millis};

use super::*;
use crate::session::Peer;

const CHUNK_U32: u32 = 1 << CHUNK_BITS;

fn key(n: u32) -> Key {
    let [_, high, middle, low] = n.to_be_bytes();
    let addr = SocketAddr::from(([127, high, middle, low], 4000));
    Key { peer: Peer::from(addr), conv: Conv(n % 7) }
}

fn session(n: u32) -> Session {
    Session::new(key(n), 0, 0, Millis(0))
}

/// A table of `count` sessions and the slots they got.
fn filled(count: u32) -> (Table, Vec<u32>) {
    let mut table = Table::new(count, 1);
    let slots = (0..count).map(|n| table.insert(session(n))).collect();
    (table, slots)
}

fn chunks_held(table: &Table) -> usize {
    table.chunks.iter().filter(|chunk| chunk.slots.capacity() > 0).count()
}

#[test]
fn finds_what_was_put_in_and_nothing_else() {
    let mut table = Table::new(16_384, 1);
    let mut model = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let mut state = 1_u32;
    // In waves, so that chunks fill, empty and fill again.
    for wave in 0..6 {
        for _ in 0..50_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let n = state >> 18;
            match model.remove(&n) {
                Some(index) if wave % 2 == 1 || (state >> 4).is_multiple_of(4) => {
                    assert_eq!(table.find(&key(n)), Some(index));
                    assert_eq!(table.remove(index).unwrap().session.key(), key(n));
                    taken.remove(&index);
                }
                Some(index) => {
                    model.insert(n, index);
                }
                None if wave % 2 == 1 && !(state >> 4).is_multiple_of(64) => {}
                None => {
                    let index = table.insert(session(n));
                    assert!(taken.insert(index), "slot {index} twice");
                    model.insert(n, index);
                }
            }
            assert_eq!(table.len() as usize, model.len());
        }
        for n in 0..16_384 {
            assert_eq!(table.find(&key(n)), model.get(&n).copied());
        }
    }
    assert!(table.chunks.len() <= 4, "freed slots are used again");
}

#[test]
fn an_id_does_not_find_the_next_occupant() {
    let mut table = Table::new(16, 1);
    let index = table.insert(session(1));
    let id = SessionId { index, generation: table.get(index).unwrap().generation };
    assert!(table.by_id(id).is_some());
    table.remove(index);
    assert!(table.by_id(id).is_none());
    assert_eq!(table.insert(session(2)), index);
    assert!(table.by_id(id).is_none());
}

#[test]
fn an_id_does_not_find_a_later_occupant_of_a_chunk_that_was_given_back() {
    let (mut table, slots) = filled(2 * CHUNK_U32);
    let id = |table: &Table, index| {
        let generation = table.get(index).unwrap().generation;
        SessionId { index, generation }
    };
    let ids: Vec<SessionId> = slots.iter().map(|&index| id(&table, index)).collect();
    for &index in &slots {
        table.remove(index);
    }
    assert_eq!(chunks_held(&table), 1);
    for n in 0..2 * CHUNK_U32 {
        table.insert(session(n));
    }
    assert!(ids.iter().all(|&id| table.by_id(id).is_none()));
}

#[test]
fn what_a_peak_took_is_given_back() {
    let count = 5 * CHUNK_U32 + 1;
    let (mut table, slots) = filled(count);
    assert_eq!(chunks_held(&table), 6);
    let mut released = Vec::new();
    for &index in &slots[CHUNK..] {
        released.extend(table.remove(index).unwrap().released.map(chunk_of));
    }
    // The first to empty is kept, the others go.
    assert_eq!((chunks_held(&table), released), (2, vec![2, 3, 4, 5]));
    let index_bytes: usize = table.index.iter().map(|part| part.capacity() * 8 / 7 * 9).sum();
    assert!(index_bytes < CHUNK * ENTRY_BYTES * 4, "{index_bytes} bytes for {CHUNK} entries");
    for n in CHUNK_U32..count {
        table.insert(session(n));
    }
    assert_eq!((chunks_held(&table), table.len()), (6, count));
    for n in 0..count {
        let index = table.find(&key(n)).unwrap();
        assert_eq!(table.get(index).unwrap().key(), key(n));
    }
}

#[test]
fn sessions_that_come_and_go_at_a_chunks_edge_keep_its_memory() {
    let (mut table, _) = filled(CHUNK_U32);
    for n in 0..10 {
        let index = table.insert(session(CHUNK_U32 + n));
        assert_eq!(table.remove(index).unwrap().released, None);
    }
}

#[test]
fn after_a_peak_the_newcomers_fill_the_low_chunks() {
    let (mut table, slots) = filled(3 * CHUNK_U32);
    for &index in slots.iter().step_by(2) {
        table.remove(index);
    }
    for n in 0..CHUNK_U32 {
        let index = table.insert(session(3 * CHUNK_U32 + n));
        assert!(chunk_of(index) < 2, "slot {index}");
    }
}

#[test]
fn a_million_entries_are_never_moved_at_once() {
    const MANY: u32 = 1_000_000;
    let (mut table, slots) = filled(MANY);
    let largest = |table: &Table| table.index.iter().map(HashTable::capacity).max().unwrap();
    assert!(largest(&table) <= 4 * PART as usize, "{} moved at once", largest(&table));
    for index in slots {
        table.remove(index);
    }
    assert!(largest(&table) <= 16);
}

#[test]
fn looking_ahead_changes_nothing() {
    let (table, slots) = filled(100);
    let keys: Vec<Key> = (50..50 + u32::try_from(AHEAD).unwrap()).map(key).collect();
    assert_eq!(table.warm_keys(&keys).as_slice(), &slots[50..50 + AHEAD]);
    assert_eq!(table.warm_keys(&keys[..3])[..4], [slots[50], slots[51], slots[52], u32::MAX]);
    assert_eq!(table.warm_keys(&[key(1000)]), [u32::MAX; AHEAD]);
    table.warm_slots(&[0, 99, 100, u32::MAX]);
    table.warm_ends(&slots[..AHEAD]);
    table.warm_ends(&[100, u32::MAX]);
    for (n, slot) in (0..).zip(slots) {
        assert_eq!(table.find(&key(n)), Some(slot));
    }
}
