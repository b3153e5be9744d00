//! Acknowledgements owed to the peer, in arrival order.

use alloc::vec::Vec;

use crate::config::KcpConfig;
use crate::stats::Stats;
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

    /// Notes what is owed. Strict: not more than twice the receive window, which is twice what an honest peer has in
    /// flight; what is not acknowledged by number the next `una` covers.
    #[inline]
    pub(crate) fn push(&mut self, sn: Sn, ts: Millis, config: &KcpConfig, stats: &mut Stats) {
        if config.strict && self.len() >= 2 * config.rcv_wnd as usize {
            stats.acks_dropped += 1;
        } else {
            self.list.push((sn, ts));
        }
    }

    /// Hands what is owed to `write`, oldest first, until it fails.
    #[inline]
    pub(crate) fn drain<E>(
        &mut self,
        mut write: impl FnMut(Sn, Millis) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(&(sn, ts)) = self.list.get(self.written) {
            write(sn, ts)?;
            self.written += 1;
        }
        self.clear();
        Ok(())
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
