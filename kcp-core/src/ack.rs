//! Acknowledgements owed to the peer, in arrival order.

use alloc::vec::Vec;

use crate::store::Store;
use crate::units::{Millis, Sn};

/// What is to be acknowledged: the number and the echoed clock of each PUSH that arrived, duplicates included.
#[derive(Debug, Default)]
pub(crate) struct AckList {
    list: Vec<(Sn, Millis)>,
    /// Entries before this were written by the flush in progress.
    written: usize,
}

impl AckList {
    /// Acknowledgements not yet written.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.list.len() - self.written
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Makes sure that one [`AckList::push`] needs no memory. `false`: the store is full.
    #[inline]
    pub(crate) fn reserve_one(&mut self, store: &mut Store) -> bool {
        self.list.len() < self.list.capacity() || self.grow(store)
    }

    #[inline]
    pub(crate) fn push(&mut self, sn: Sn, ts: Millis) {
        self.list.push((sn, ts));
    }

    /// The next one to write.
    #[inline]
    pub(crate) fn next(&self) -> Option<(Sn, Millis)> {
        self.list.get(self.written).copied()
    }

    /// The one that [`AckList::next`] gave was written.
    #[inline]
    pub(crate) fn advance(&mut self) {
        self.written += 1;
        if self.written >= self.list.len() {
            self.clear();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.written = 0;
    }

    /// Bytes of the list's own memory.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.list.capacity() * size_of::<(Sn, Millis)>()
    }

    #[cold]
    fn grow(&mut self, store: &mut Store) -> bool {
        let more = self.list.capacity().max(ACKS_FIRST);
        if !store.book(more * size_of::<(Sn, Millis)>()) {
            return false;
        }
        let before = self.heap_bytes();
        self.list.reserve_exact(more);
        store.rebook(more * size_of::<(Sn, Millis)>(), self.heap_bytes() - before);
        true
    }
}

/// Entries a list starts with.
const ACKS_FIRST: usize = 8;
