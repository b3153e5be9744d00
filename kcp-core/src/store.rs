//! Where payload lives while it is in flight: recycled, bounded, shared by all sessions of a shard.

mod fragment;

use alloc::boxed::Box;
use alloc::vec::Vec;

pub(crate) use fragment::Fragment;
use fragment::{CLASSES, class_bytes, class_of};

use crate::block::Block;
use crate::stats::Stats;

/// The storage of one shard's sessions. An idle session holds nothing of it.
///
/// A session takes a block of queues when it has something to send, to acknowledge or to reassemble, and a buffer
/// for each payload it must keep; both come back here when it is done and are handed to whoever needs one next. So the
/// memory follows the data in flight and not the number of sessions, and nothing is allocated while the amount of data
/// in flight stays below what it once was.
///
/// Buffers come in sizes of 64, 96, 128, 192, 256 ... 65,536 bytes (two per power of two): at most a third of one is
/// unused beyond the first 64 bytes.
///
/// Reset a session ([`Kcp::reset`](crate::Kcp::reset)) before dropping it: what it held is otherwise freed but still
/// counted as used.
#[derive(Debug)]
pub struct Store {
    buffers: [Recycled; CLASSES],
    #[expect(
        clippy::vec_box,
        reason = "a block moves between here and its session without being copied"
    )]
    blocks: Vec<Box<Block>>,
    blocks_made: usize,
    /// Bytes in existence, in use or not.
    bytes_held: usize,
    /// Those of them that nobody uses.
    bytes_recycled: usize,
    bytes_max: usize,
    stats: Stats,
}

/// Buffers of one size that nobody holds.
#[derive(Debug, Default)]
struct Recycled {
    free: Vec<Box<[u8]>>,
    /// Buffers of this size in existence: `free` has room for all, so that giving one back never allocates.
    made: usize,
}

impl Store {
    /// A store that never holds more than `bytes_max` bytes of payload and bookkeeping, recycled memory included.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            buffers: Default::default(),
            blocks: Vec::new(),
            blocks_made: 0,
            bytes_held: 0,
            bytes_recycled: 0,
            bytes_max,
            stats: Stats::default(),
        }
    }

    /// Bytes held for sessions now.
    #[must_use]
    pub const fn bytes_used(&self) -> usize {
        self.bytes_held.saturating_sub(self.bytes_recycled)
    }

    /// Bytes kept for reuse, held for no session.
    #[must_use]
    pub const fn bytes_recycled(&self) -> usize {
        self.bytes_recycled
    }

    /// The bound given to [`Store::new`].
    #[must_use]
    pub const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// With so many bytes in use, what comes in its turn may still be received. The last eighth is for sending: what was received
    /// goes when something that answers it is sent, so a store full of it would stay full.
    #[must_use]
    pub const fn receipts_max(&self) -> usize {
        self.bytes_max - self.bytes_max / 8
    }

    /// With so many bytes in use, what comes early, with others due before it, may still be received. The eighth behind is for what
    /// comes in its turn: what came early goes when that has come, so a store full of it would stay full as well.
    #[must_use]
    pub const fn early_max(&self) -> usize {
        self.bytes_max - self.bytes_max / 4
    }

    /// More than half is in use: who has something waiting here is to have no more of it than a part.
    #[inline]
    #[must_use]
    pub const fn is_short(&self) -> bool {
        self.bytes_used() > self.bytes_max / 2
    }

    /// Less than three eighths are in use.
    pub(crate) const fn has_plenty(&self) -> bool {
        self.bytes_used() < self.bytes_max / 8 * 3
    }

    /// What is left up to five eighths of the store, in equal parts for all who hold something. What is behind is for those whose
    /// messages do not wait.
    pub(crate) fn left_bytes(&self) -> usize {
        (self.bytes_max / 8 * 5).saturating_sub(self.bytes_used()) / self.holders()
    }

    /// What one who holds something may have queued to be sent while the store is short: an equal part of three eighths of it,
    /// or of a sixteenth when that is as much as is left for it.
    #[must_use]
    pub fn part_bytes(&self) -> usize {
        let is_nearly_full = self.bytes_used() > self.receipts_max() - self.bytes_max / 16;
        let all = if is_nearly_full { self.bytes_max / 16 } else { self.bytes_max / 8 * 3 };
        all / self.holders()
    }

    /// Conversations that hold something, at least one.
    fn holders(&self) -> usize {
        self.blocks_made.saturating_sub(self.blocks.len()).max(1)
    }

    pub(crate) const fn refuses_receipts(&mut self, early: bool) -> bool {
        let bytes_max = if early { self.early_max() } else { self.receipts_max() };
        let refuses = self.bytes_used() > bytes_max;
        self.stats.store_full += refuses as u64;
        refuses
    }

    /// Counters of all sessions that used this store.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Gives recycled memory above `keep_bytes` back to the allocator, largest buffers first.
    ///
    /// Work is proportional to what is given back: a caller with a deadline lowers `keep_bytes` in steps from
    /// [`Store::bytes_recycled`].
    pub fn trim(&mut self, keep_bytes: usize) {
        for class in (0..CLASSES).rev() {
            while self.bytes_recycled > keep_bytes && self.drop_buffer(class) {}
        }
        while self.bytes_recycled > keep_bytes {
            let Some(block) = self.blocks.pop() else { break };
            self.blocks_made -= 1;
            self.bytes_recycled -= block.bytes();
            self.bytes_held -= block.bytes();
        }
        for class in &mut self.buffers {
            class.free.shrink_to(class.made);
        }
        self.blocks.shrink_to(self.blocks_made);
    }

    pub(crate) const fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    /// Copies `bytes` into a buffer. `None`: the store is full.
    pub(crate) fn keep(&mut self, bytes: &[u8], frg: u8) -> Option<Fragment> {
        let mut fragment = self.fragment(bytes.len(), frg)?;
        fragment.fill(0, bytes);
        Some(fragment)
    }

    /// A fragment of `len` bytes, to be filled. `None`: the store is full.
    pub(crate) fn fragment(&mut self, len: usize, frg: u8) -> Option<Fragment> {
        if let Some(recycled) = self.recycled(len, frg) {
            return Some(recycled);
        }
        let buffer = self.make_buffer(len)?;
        Some(Fragment::new(buffer, class_of(len), len, frg))
    }

    /// As [`Store::fragment`], if there is a buffer that was used before.
    #[inline]
    pub(crate) fn recycled(&mut self, len: usize, frg: u8) -> Option<Fragment> {
        let class = class_of(len);
        let buffer = self.buffers.get_mut(class)?.free.pop()?;
        self.bytes_recycled -= buffer.len();
        Some(Fragment::new(buffer, class, len, frg))
    }

    /// Takes a fragment's buffer back.
    #[inline]
    pub(crate) fn give_back(&mut self, fragment: Fragment) {
        let (buffer, class) = fragment.into_buffer();
        // There is always room: see `Recycled::made`. Asking keeps the allocator's calls off the straight line.
        if let Some(class) = self.buffers.get_mut(class)
            && class.free.len() < class.free.capacity()
        {
            self.bytes_recycled += buffer.len();
            class.free.push(buffer);
        } else {
            self.discard(buffer);
        }
    }

    /// Frees a buffer that belongs to no class.
    #[cold]
    #[expect(clippy::boxed_local, reason = "freed here, off the straight line")]
    fn discard(&mut self, buffer: Box<[u8]>) {
        self.bytes_held = self.bytes_held.saturating_sub(buffer.len());
    }

    /// The block in `slot`, put there first if there is none. `None`: the store is full.
    #[inline]
    pub(crate) fn block<'a>(&mut self, slot: &'a mut Option<Box<Block>>) -> Option<&'a mut Block> {
        if slot.is_none() {
            *slot = Some(self.take_block()?);
        }
        slot.as_deref_mut()
    }

    /// Takes an empty block back.
    #[inline]
    pub(crate) fn give_back_block(&mut self, mut block: Box<Block>) {
        let before = block.bytes();
        block.recycle();
        self.bytes_held -= before - block.bytes();
        self.bytes_recycled += block.bytes();
        self.blocks.push(block);
    }

    /// Counts `bytes` of new memory. `false`: the store is full.
    pub(crate) fn book(&mut self, bytes: usize) -> bool {
        if self.bytes_held + bytes > self.bytes_max {
            let excess = self.bytes_held + bytes - self.bytes_max;
            self.trim(self.bytes_recycled.saturating_sub(excess));
        }
        let fits = self.bytes_held + bytes <= self.bytes_max;
        if fits {
            self.bytes_held += bytes;
        } else {
            self.stats.store_full += 1;
        }
        fits
    }

    /// Corrects a booking when the allocator gave another size than asked for.
    pub(crate) const fn rebook(&mut self, booked: usize, actual: usize) {
        self.bytes_held = self.bytes_held - booked + actual;
    }

    #[inline]
    fn take_block(&mut self) -> Option<Box<Block>> {
        let Some(block) = self.blocks.pop() else { return self.make_block() };
        self.bytes_recycled -= block.bytes();
        Some(block)
    }

    #[cold]
    fn make_block(&mut self) -> Option<Box<Block>> {
        let block = Box::<Block>::default();
        if !self.book(block.bytes()) {
            return None;
        }
        self.blocks_made += 1;
        self.blocks.reserve(self.blocks_made);
        Some(block)
    }

    #[cold]
    fn make_buffer(&mut self, len: usize) -> Option<Box<[u8]>> {
        if len == 0 {
            return Some(Box::default());
        }
        let class = class_of(len);
        // Beyond the largest class a buffer has the payload's own size and is freed after use.
        let bytes = if class < CLASSES { class_bytes(class) } else { len };
        if !self.book(bytes) {
            return None;
        }
        if let Some(class) = self.buffers.get_mut(class) {
            class.made += 1;
            class.free.reserve(class.made);
        }
        Some(alloc::vec![0; bytes].into_boxed_slice())
    }

    fn drop_buffer(&mut self, class: usize) -> bool {
        let Some(class) = self.buffers.get_mut(class) else { return false };
        let Some(buffer) = class.free.pop() else { return false };
        class.made -= 1;
        self.bytes_recycled -= buffer.len();
        self.bytes_held -= buffer.len();
        true
    }
}

#[cfg(test)]
mod tests;
