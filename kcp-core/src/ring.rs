//! Segments by number: a segment's slot is the low bits of its number, so it is found without a search and never moves.

use alloc::boxed::Box;

use crate::segment::Segment;
use crate::store::Store;
use crate::units::Sn;

/// A power of two of slots, or none yet. The owner knows which numbers are in use: never more of them than slots, and
/// without a gap, so no two share a slot.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    slots: Box<[Segment]>,
}

impl Ring {
    /// Numbers that may be in use at once.
    #[inline]
    pub(crate) const fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of the ring's own memory.
    #[inline]
    pub(crate) const fn heap_bytes(&self) -> usize {
        self.slots.len() * size_of::<Segment>()
    }

    /// The slot of `sn`; `None` only before the ring has any.
    #[inline]
    pub(crate) fn get(&self, sn: Sn) -> Option<&Segment> {
        self.slots.get(self.index(sn))
    }

    /// The slot of `sn`; `None` only before the ring has any.
    #[inline]
    pub(crate) fn get_mut(&mut self, sn: Sn) -> Option<&mut Segment> {
        let index = self.index(sn);
        self.slots.get_mut(index)
    }

    /// Doubles the ring, which is full of the numbers from `first` on. `false`: the store is full.
    #[cold]
    pub(crate) fn grow(&mut self, first: Sn, store: &mut Store) -> bool {
        let capacity = (self.capacity() * 2).max(SLOTS_FIRST);
        if !store.book((capacity - self.capacity()) * size_of::<Segment>()) {
            return false;
        }
        let larger = Self { slots: (0..capacity).map(|_| Segment::default()).collect() };
        let mut smaller = core::mem::replace(self, larger);
        let mut sn = first;
        for _ in 0..smaller.capacity() {
            if let (Some(to), Some(from)) = (self.get_mut(sn), smaller.get_mut(sn)) {
                core::mem::swap(to, from);
            }
            sn = sn.add(1);
        }
        true
    }

    #[inline]
    const fn index(&self, sn: Sn) -> usize {
        // Without slots this is no valid index.
        sn.0 as usize & self.slots.len().wrapping_sub(1)
    }
}

/// Slots a ring starts with.
const SLOTS_FIRST: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_keeps_its_number_as_the_ring_grows() {
        let mut store = Store::new(1 << 20);
        let mut ring = Ring::default();
        assert!(ring.get(Sn(0)).is_none());
        // The numbers wrap inside the ring.
        let first = Sn(u32::MAX - 5);
        for count in 0..64 {
            if count as usize == ring.capacity() {
                assert!(ring.grow(first, &mut store));
            }
            ring.get_mut(first.add(count)).unwrap().fastack = count;
            for i in 0..=count {
                assert_eq!(ring.get(first.add(i)).unwrap().fastack, i);
            }
        }
        assert_eq!((ring.capacity(), store.bytes_used()), (64, ring.heap_bytes()));
    }

    #[test]
    fn a_full_store_leaves_the_ring_as_it_was() {
        let mut store = Store::new(5 * size_of::<Segment>());
        let mut ring = Ring::default();
        assert!(ring.grow(Sn(0), &mut store));
        assert!(!ring.grow(Sn(0), &mut store));
        assert_eq!((ring.capacity(), store.bytes_used()), (4, ring.heap_bytes()));
    }
}
