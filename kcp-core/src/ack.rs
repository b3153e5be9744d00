//! Acknowledgements owed to the peer, in arrival order.

use alloc::vec::Vec;

use crate::config::KcpConfig;
use crate::store::Store;
use crate::units::{Millis, Sn};

/// What is to be acknowledged: the number and the echoed clock of each PUSH that arrived, duplicates included.
#[derive(Debug, Default)]
pub(crate) struct AckList {
    list: Vec<(Sn, Millis)>,
}

impl AckList {
    /// Acknowledgements not yet written.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.list.len()
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Notes what is owed. `false`: the store is full, and data must not be taken that cannot be acknowledged.
    ///
    /// Strict: not more than twice the receive window, which is twice what an honest peer has in flight; what is not
    /// acknowledged by number the next `una` covers.
    #[inline]
    pub(crate) fn owe(
        &mut self,
        sn: Sn,
        ts: Millis,
        config: &KcpConfig,
        store: &mut Store,
    ) -> bool {
        let len = self.list.len();
        if len < self.list.capacity() && len < 2 * config.rcv_wnd as usize {
            self.list.push((sn, ts));
            return true;
        }
        self.owe_rare(sn, ts, config, store)
    }

    #[cold]
    fn owe_rare(&mut self, sn: Sn, ts: Millis, config: &KcpConfig, store: &mut Store) -> bool {
        if config.strict && self.len() >= 2 * config.rcv_wnd as usize {
            store.stats_mut().acks_dropped += 1;
            return true;
        }
        let room = self.list.len() < self.list.capacity() || self.grow(store);
        if room {
            self.list.push((sn, ts));
        }
        room
    }

    /// Takes back what was noted beyond the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.list.truncate(len);
    }

    /// What is owed, oldest first.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[(Sn, Millis)] {
        &self.list
    }

    /// The first `count` are paid; whether all are.
    #[inline]
    pub(crate) fn pay(&mut self, count: usize) -> bool {
        let all = count == self.list.len();
        if all {
            self.list.clear();
        } else {
            self.pay_some(count);
        }
        all
    }

    #[cold]
    fn pay_some(&mut self, count: usize) {
        self.list.drain(..count);
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    /// Bytes of the list's own memory.
    pub(crate) const fn heap_bytes(&self) -> usize {
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
