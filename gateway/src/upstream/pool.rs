//! Bytes that wait between a backend and its sessions, for all links of a shard, under one bound.

use net_io::slabs::Slabs;

/// Bytes of one block: small, because 100,000 streams may hold a partial message each.
pub const BLOCK: usize = 1024;

/// The pool has no free block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolFull;

/// The blocks that [`Queue`]s are made of.
///
/// Memory: at most the bound given to [`Pool::new`] and 12 bytes of links per block, taken in slabs of 64 blocks as they
/// are first needed and recycled until [`Pool::trim`]; and one buffer as long as the longest run that [`Pool::run`] was asked for.
#[derive(Debug)]
pub struct Pool {
    blocks: Slabs<Link, BLOCK>,
    /// Where a run that spans blocks is put together.
    run: Vec<u8>,
}

/// What is known of one block. `tail` and `start` count for the head block of a queue only, which keeps a [`Queue`] at
/// eight bytes.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// The next block of the same queue.
    next: u32,
    /// The queue's last block.
    tail: u32,
    /// Where the queue's first byte stands in this block.
    start: u32,
}

impl Pool {
    /// A pool of at most `bytes_max` bytes, rounded down to whole blocks.
    ///
    /// # Panics
    /// If that is 2^32 blocks or more.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { blocks: Slabs::new(bytes_max / BLOCK, Link::NONE), run: Vec::new() }
    }

    /// Bytes of the blocks that queues hold: what the bound is about. At least the bytes queued.
    #[must_use]
    pub const fn bytes_used(&self) -> usize {
        self.blocks.used() * BLOCK
    }

    /// Bytes that an empty queue could take now.
    #[must_use]
    pub const fn bytes_free(&self) -> usize {
        (self.blocks.max() - self.blocks.used()) * BLOCK
    }

    /// The bound, in whole blocks.
    #[must_use]
    pub const fn bytes_max(&self) -> usize {
        self.blocks.max() * BLOCK
    }

    /// Bytes that are kept for reuse and that nothing stands in.
    #[must_use]
    pub const fn bytes_recycled(&self) -> usize {
        self.blocks.recycled_bytes()
    }

    /// Gives back to the allocator what is kept for reuse beyond `keep` bytes, in pieces of 64 blocks.
    pub fn trim(&mut self, keep: usize) {
        self.blocks.trim(keep);
    }

    /// `len` bytes of `queue` from its byte `skip` on, in one piece: borrowed where they stand when they stand in one block,
    /// else copied together. `None` when the queue is shorter.
    pub fn run(&mut self, queue: &Queue, skip: usize, len: usize) -> Option<&[u8]> {
        if skip.checked_add(len)? > queue.len() {
            return None;
        }
        if len == 0 {
            return Some(&[]);
        }
        let (block, offset) = self.find(queue.head, skip);
        if offset + len <= BLOCK {
            return self.block(block).get(offset..offset + len);
        }
        let mut run = std::mem::take(&mut self.run);
        run.clear();
        self.gather(block, offset, len, |piece| run.extend_from_slice(piece));
        self.run = run;
        Some(&self.run)
    }

    /// The block and the offset in it of a queue's byte `skip`.
    fn find(&self, head: u32, skip: usize) -> (u32, usize) {
        let mut block = head;
        let mut offset = self.link(head).start as usize + skip;
        while offset >= BLOCK {
            block = self.link(block).next;
            offset -= BLOCK;
        }
        (block, offset)
    }

    /// Shows `len` bytes from `offset` of `block` on, piece by piece.
    fn gather(&self, block: u32, offset: usize, len: usize, mut show: impl FnMut(&[u8])) {
        let (mut block, mut offset, mut left) = (block, offset, len);
        while left > 0 {
            let n = left.min(BLOCK - offset);
            show(&self.block(block)[offset..offset + n]);
            left -= n;
            offset = 0;
            block = self.link(block).next;
        }
    }

    fn link(&self, block: u32) -> &Link {
        self.blocks.note(block)
    }

    fn link_mut(&mut self, block: u32) -> &mut Link {
        self.blocks.note_mut(block)
    }

    fn block(&self, block: u32) -> &[u8] {
        self.blocks.bytes(block)
    }

    fn block_mut(&mut self, block: u32) -> &mut [u8] {
        self.blocks.bytes_mut(block)
    }
}

impl Link {
    const NONE: Self = Self { next: NONE, tail: NONE, start: 0 };
}

/// Bytes in the order they came, in blocks of one [`Pool`]. Eight bytes when empty, and then it holds no block.
///
/// A handle, not an owner: clear it before dropping it, or its blocks stay used. Every call takes the same pool.
#[derive(Debug)]
pub struct Queue {
    head: u32,
    len: u32,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self { head: NONE, len: 0 }
    }

    /// Bytes in the queue.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// There are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `n` bytes could be appended now.
    #[must_use]
    pub fn fits(&self, pool: &Pool, n: usize) -> bool {
        let start = self.start(pool);
        let held = (start + self.len()).div_ceil(BLOCK);
        let Some(grown) = self.len().checked_add(n).filter(|&len| u32::try_from(len).is_ok())
        else {
            return false;
        };
        (start + grown).div_ceil(BLOCK) - held <= pool.blocks.max() - pool.blocks.used()
    }

    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// When the pool has not enough blocks, or the queue would hold 4 GiB. Nothing is appended then.
    pub fn push(&mut self, pool: &mut Pool, bytes: &[u8]) -> Result<(), PoolFull> {
        if bytes.is_empty() {
            return Ok(());
        }
        if !self.fits(pool, bytes.len()) {
            return Err(PoolFull);
        }
        let start = self.start(pool);
        let held = (start + self.len()).div_ceil(BLOCK);
        let mut rest = bytes;
        if held > 0 {
            let fill = (start + self.len()) - (held - 1) * BLOCK;
            let (now, later) = rest.split_at(rest.len().min(BLOCK - fill));
            let tail = pool.link(self.head).tail;
            pool.block_mut(tail)[fill..fill + now.len()].copy_from_slice(now);
            rest = later;
        }
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BLOCK));
            let block = pool.blocks.take().ok_or(PoolFull)?;
            pool.block_mut(block)[..now.len()].copy_from_slice(now);
            if self.head == NONE {
                self.head = block;
                pool.link_mut(block).start = 0;
            } else {
                let tail = pool.link(self.head).tail;
                pool.link_mut(tail).next = block;
            }
            pool.link_mut(self.head).tail = block;
            rest = later;
        }
        self.len = u32::try_from(self.len() + bytes.len()).map_err(|_| PoolFull)?;
        Ok(())
    }

    /// The longest piece at the front that stands in one block; empty when the queue is.
    #[must_use]
    pub fn front<'a>(&self, pool: &'a Pool) -> &'a [u8] {
        if self.is_empty() {
            return &[];
        }
        let start = pool.link(self.head).start as usize;
        &pool.block(self.head)[start..BLOCK.min(start + self.len())]
    }

    /// Copies bytes from the front, as many as `out` takes or the queue has, and tells how many.
    pub fn peek(&self, pool: &Pool, out: &mut [u8]) -> usize {
        let len = out.len().min(self.len());
        if len > 0 {
            let mut at = 0;
            pool.gather(self.head, pool.link(self.head).start as usize, len, |piece| {
                out[at..at + piece.len()].copy_from_slice(piece);
                at += piece.len();
            });
        }
        len
    }

    /// Drops `n` bytes from the front, or all there are.
    pub fn consume(&mut self, pool: &mut Pool, n: usize) {
        let mut left = n.min(self.len());
        while left > 0 {
            let Link { next, tail, start } = *pool.link(self.head);
            let in_block = (BLOCK - start as usize).min(self.len());
            let taken = left.min(in_block);
            left -= taken;
            self.len -= narrow(taken);
            if taken < in_block {
                pool.link_mut(self.head).start = start + narrow(taken);
                return;
            }
            pool.blocks.give_back(self.head);
            self.head = if self.is_empty() { NONE } else { next };
            if self.head != NONE {
                pool.link_mut(self.head).tail = tail;
                pool.link_mut(self.head).start = 0;
            }
        }
    }

    /// Where the first byte stands in the head block.
    fn start(&self, pool: &Pool) -> usize {
        if self.is_empty() { 0 } else { pool.link(self.head).start as usize }
    }

    /// Drops everything.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.consume(pool, self.len());
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}

/// A number of bytes in one block.
#[expect(clippy::cast_possible_truncation, reason = "at most BLOCK")]
const fn narrow(n: usize) -> u32 {
    debug_assert!(n <= BLOCK);
    n as u32
}

/// No block.
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::super::dice::Dice;
    use super::*;

    #[test]
    fn a_run_is_borrowed_or_put_together() {
        let mut pool = Pool::new(4 * BLOCK);
        let mut queue = Queue::new();
        let bytes: Vec<u8> = (0..=255).cycle().take(3 * BLOCK).collect();
        queue.push(&mut pool, &bytes).unwrap();
        assert_eq!(queue.front(&pool), &bytes[..BLOCK]);
        for (skip, len) in [(0, 10), (BLOCK - 1, 1), (BLOCK - 1, 2), (BLOCK, BLOCK), (7, 2 * BLOCK)]
        {
            assert_eq!(pool.run(&queue, skip, len), Some(&bytes[skip..skip + len]));
        }
        assert_eq!(pool.run(&queue, 1, 3 * BLOCK), None);
        assert_eq!(pool.run(&queue, usize::MAX, 2), None);
        queue.clear(&mut pool);
        assert_eq!(pool.bytes_used(), 0);
    }

    #[test]
    fn what_does_not_fit_is_not_taken_in_part() {
        let mut pool = Pool::new(2 * BLOCK + 1);
        assert_eq!(pool.bytes_max(), 2 * BLOCK);
        let (mut a, mut b) = (Queue::new(), Queue::new());
        a.push(&mut pool, &[1; BLOCK + 1]).unwrap();
        assert_eq!(b.push(&mut pool, &[2]), Err(PoolFull));
        assert_eq!(a.push(&mut pool, &[1; BLOCK]), Err(PoolFull));
        assert_eq!((a.len(), b.len()), (BLOCK + 1, 0));
        a.push(&mut pool, &[1; BLOCK - 1]).unwrap();
        a.consume(&mut pool, BLOCK);
        b.push(&mut pool, &[2; BLOCK]).unwrap();
        assert_eq!(pool.bytes_used(), pool.bytes_max());
    }

    /// Many queues on one small pool, against as many `VecDeque`s.
    #[test]
    fn queues_keep_their_bytes_apart_and_in_order() {
        for seed in 0..20 {
            let mut dice = Dice::new(seed);
            let mut pool = Pool::new(150 * BLOCK);
            let mut queues: Vec<(Queue, VecDeque<u8>)> =
                (0..8).map(|_| Default::default()).collect();
            for _ in 0..2000 {
                let (queue, model) = &mut queues[dice.below(8)];
                let n = dice.below(3 * BLOCK);
                if dice.below(100) < 52 {
                    let bytes = dice.bytes(n);
                    if queue.push(&mut pool, &bytes).is_ok() {
                        model.extend(&bytes);
                    }
                } else {
                    queue.consume(&mut pool, n);
                    model.drain(..n.min(model.len()));
                }
                let mut out = vec![0; n];
                let seen = queue.peek(&pool, &mut out);
                assert!(out[..seen].iter().eq(model.iter().take(n)));
                assert_eq!(queue.len(), model.len());
                let held: usize = queues.iter().map(|(q, _)| q.len().div_ceil(BLOCK)).sum();
                assert!((held..=held + 8).contains(&pool.blocks.used()));
            }
            for (queue, _) in &mut queues {
                queue.clear(&mut pool);
            }
            assert_eq!(pool.bytes_used(), 0, "every block came back");
        }
    }
}
