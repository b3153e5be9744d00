//! Equal blocks of memory under one bound, in slabs that go back to the allocator once nothing in them is used.

/// Blocks of `LEN` bytes, each with a note of its owner's beside it.
///
/// Memory: at most the bound given to [`Slabs::new`], taken 64 blocks at a time as they are first needed, and reused until
/// [`Slabs::trim`]. Blocks are taken from slabs that are in use as long as those have any: so that others come to hold nothing.
#[derive(Debug)]
pub struct Slabs<T, const LEN: usize> {
    slabs: Vec<Slab<T>>,
    /// Slabs with blocks in use and free ones; blocks are taken from the last.
    open: Vec<u32>,
    /// Slabs with none in use.
    idle: Vec<u32>,
    /// Slabs without memory.
    absent: Vec<u32>,
    used: usize,
    max: usize,
    blank: T,
}

#[derive(Debug)]
struct Slab<T> {
    bytes: Box<[u8]>,
    notes: Box<[T]>,
    /// A bit for each block that is free.
    free: u64,
    /// Its place among the open ones, while it is.
    place: u32,
}

impl<T: Copy, const LEN: usize> Slabs<T, LEN> {
    /// At most `max` blocks, whose notes say `blank` at first.
    ///
    /// # Panics
    /// If that is 2^32 blocks or more: they are numbered in 32 bits, and [`u32::MAX`] is no block.
    #[must_use]
    pub fn new(max: usize, blank: T) -> Self {
        assert!(max < u32::MAX as usize, "blocks are numbered in 32 bits");
        let (slabs, open, idle, absent) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { slabs, open, idle, absent, used: 0, max, blank }
    }

    /// Blocks in use.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }

    /// The bound, in blocks.
    #[must_use]
    pub const fn max(&self) -> usize {
        self.max
    }

    /// Bytes of slabs of which nothing is used.
    #[must_use]
    pub const fn recycled_bytes(&self) -> usize {
        self.idle.len() * SLAB * LEN
    }

    /// A block that is free; what stands in it and in its note is left from before. `None` at the bound.
    pub fn take(&mut self) -> Option<u32> {
        let number = match self.open.last() {
            Some(&number) => number,
            None => self.open_another()?,
        };
        let slab = &mut self.slabs[number as usize];
        let place = slab.free.trailing_zeros();
        slab.free &= slab.free - 1;
        if slab.free == 0 {
            self.open.pop();
        }
        self.used += 1;
        Some(number * u64::BITS + place)
    }

    /// Takes back a block that was taken, once.
    pub fn give_back(&mut self, block: u32) {
        let number = block / u64::BITS;
        let all = self.all(number);
        let slab = &mut self.slabs[number as usize];
        let was_full = slab.free == 0;
        debug_assert!(slab.free & 1 << (block % u64::BITS) == 0, "a block given back twice");
        slab.free |= 1 << (block % u64::BITS);
        let is_idle = slab.free == all;
        self.used -= 1;
        if is_idle {
            if !was_full {
                self.close(number);
            }
            self.idle.push(number);
        } else if was_full {
            self.open(number);
        }
    }

    /// Gives slabs of which nothing is used back to the allocator, until at most `keep` bytes of such are left.
    pub fn trim(&mut self, keep: usize) {
        while self.recycled_bytes() > keep
            && let Some(number) = self.idle.pop()
        {
            let slab = &mut self.slabs[number as usize];
            (slab.bytes, slab.notes) = (Box::default(), Box::default());
            self.absent.push(number);
        }
    }

    /// What stands in a block.
    #[must_use]
    pub fn bytes(&self, block: u32) -> &[u8] {
        let (slab, place) = place(block);
        &self.slabs[slab].bytes[place * LEN..][..LEN]
    }

    /// The same, to be written.
    pub fn bytes_mut(&mut self, block: u32) -> &mut [u8] {
        let (slab, place) = place(block);
        &mut self.slabs[slab].bytes[place * LEN..][..LEN]
    }

    /// A block's note.
    #[must_use]
    pub fn note(&self, block: u32) -> &T {
        let (slab, place) = place(block);
        &self.slabs[slab].notes[place]
    }

    /// The same, to be written.
    pub fn note_mut(&mut self, block: u32) -> &mut T {
        let (slab, place) = place(block);
        &mut self.slabs[slab].notes[place]
    }

    /// All free bits of a slab: the last one may be shorter than others.
    fn all(&self, number: u32) -> u64 {
        let blocks = (self.max - number as usize * SLAB).min(SLAB);
        u64::MAX >> (SLAB - blocks)
    }

    fn open_another(&mut self) -> Option<u32> {
        let number = match self.idle.pop() {
            Some(number) => number,
            None => self.grow()?,
        };
        self.open(number);
        Some(number)
    }

    #[cold]
    fn grow(&mut self) -> Option<u32> {
        let number = match self.absent.pop() {
            Some(number) => number,
            None if self.slabs.len() * SLAB < self.max => {
                let number = u32::try_from(self.slabs.len()).ok()?;
                let (bytes, notes) = (Box::default(), Box::default());
                self.slabs.push(Slab { bytes, notes, free: self.all(number), place: 0 });
                for list in [&mut self.open, &mut self.idle, &mut self.absent] {
                    list.reserve(self.slabs.len() - list.len()); // so that none of them grows anywhere else
                }
                number
            }
            None => return None,
        };
        let slab = &mut self.slabs[number as usize];
        slab.bytes = vec![0; SLAB * LEN].into_boxed_slice();
        slab.notes = vec![self.blank; SLAB].into_boxed_slice();
        Some(number)
    }

    /// Enters a slab among the open ones.
    fn open(&mut self, number: u32) {
        // As many as slabs, which are numbered in 32 bits.
        self.slabs[number as usize].place = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
        self.open.push(number);
    }

    /// Takes a slab out of the open ones.
    fn close(&mut self, number: u32) {
        let place = self.slabs[number as usize].place;
        self.open.swap_remove(place as usize);
        if let Some(&moved) = self.open.get(place as usize) {
            self.slabs[moved as usize].place = place;
        }
    }
}

const fn place(block: u32) -> (usize, usize) {
    (block as usize / SLAB, block as usize % SLAB)
}

/// Blocks of a slab: a bit of a word for each.
const SLAB: usize = u64::BITS as usize;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LEN: usize = 16;
    const SLAB_BYTES: usize = SLAB * LEN;

    #[test]
    fn what_holds_nothing_is_given_back_and_taken_again() {
        let mut slabs = Slabs::<u32, LEN>::new(10 * SLAB, 0);
        let blocks: Vec<u32> = std::iter::from_fn(|| slabs.take()).collect();
        assert_eq!((blocks.len(), slabs.recycled_bytes()), (10 * SLAB, 0));
        // One block of each third slab stays in use.
        for &block in blocks.iter().filter(|&block| !block.is_multiple_of(3 * u64::BITS)) {
            slabs.give_back(block);
        }
        assert_eq!((slabs.used(), slabs.recycled_bytes()), (4, 6 * SLAB_BYTES));
        let held = |slabs: &Slabs<u32, LEN>| {
            slabs.slabs.iter().map(|slab| slab.bytes.len()).sum::<usize>()
        };
        slabs.trim(2 * SLAB_BYTES + 1);
        assert_eq!((slabs.recycled_bytes(), held(&slabs)), (2 * SLAB_BYTES, 6 * SLAB_BYTES));
        slabs.trim(0);
        assert_eq!((slabs.recycled_bytes(), held(&slabs)), (0, 4 * SLAB_BYTES));
        let again: Vec<u32> = std::iter::from_fn(|| slabs.take()).collect();
        assert_eq!((again.len(), held(&slabs)), (10 * SLAB - 4, 10 * SLAB_BYTES));
    }

    #[test]
    fn blocks_are_taken_where_others_are_in_use() {
        let mut slabs = Slabs::<u32, LEN>::new(100 * SLAB, 0);
        let blocks: Vec<u32> = (0..100 * SLAB).filter_map(|_| slabs.take()).collect();
        // All but a few are over; those that come and go from then on fit beside the few.
        let (few, rest): (Vec<u32>, Vec<u32>) = blocks.iter().partition(|&&block| block % 640 == 7);
        rest.into_iter().for_each(|block| slabs.give_back(block));
        assert_eq!((few.len(), slabs.recycled_bytes()), (10, 90 * SLAB_BYTES));
        for _ in 0..1000 {
            let some: Vec<u32> = (0..9 * SLAB).filter_map(|_| slabs.take()).collect();
            assert_eq!((some.len(), slabs.recycled_bytes()), (9 * SLAB, 90 * SLAB_BYTES));
            some.into_iter().for_each(|block| slabs.give_back(block));
        }
    }

    /// Against a set of the blocks in use, with a last slab that is shorter than the others.
    #[test]
    fn no_block_is_anybody_elses() {
        for seed in 1..20_u64 {
            let mut state = seed;
            let mut dice = move |below: usize| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                usize::try_from(state % below as u64).unwrap_or(0)
            };
            let mut slabs = Slabs::<u64, LEN>::new(5 * SLAB + 1, 0);
            let (mut used, mut wave) = (BTreeSet::new(), 50);
            for step in 0..20_000_u64 {
                if step % 1000 == 0 {
                    wave = 20 + dice(60);
                    slabs.trim(dice(3 * SLAB_BYTES));
                }
                if dice(100) < wave {
                    let block = slabs.take();
                    assert_eq!(block.is_none(), used.len() == slabs.max(), "seed {seed}");
                    if let Some(block) = block {
                        assert!(used.insert(block), "seed {seed}: {block} twice");
                        *slabs.note_mut(block) = u64::from(block);
                        slabs.bytes_mut(block).fill(u8::try_from(block % 251).unwrap());
                    }
                } else if let Some(&block) = used.iter().nth(dice(used.len().max(1))) {
                    let byte = u8::try_from(block % 251).unwrap();
                    assert_eq!(*slabs.note(block), u64::from(block), "seed {seed}");
                    assert!(slabs.bytes(block).iter().all(|&b| b == byte), "seed {seed}");
                    used.remove(&block);
                    slabs.give_back(block);
                }
                assert_eq!(slabs.used(), used.len(), "seed {seed}");
            }
        }
    }
}
