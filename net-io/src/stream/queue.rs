//! Bytes that wait for the kernel: chunks of one pool, strung to a queue per stream.

use crate::slabs::Slabs;

/// Bytes of one chunk: what a turn writes to one stream mostly fits one, and one is what a stuck stream holds at least.
pub(crate) const CHUNK: usize = 2048;

/// The chunks of all queues of a driver, under one bound.
#[derive(Debug)]
pub(crate) struct ChunkPool {
    /// Each with the number of the chunk after it in its queue.
    chunks: Slabs<u32, CHUNK>,
}

impl ChunkPool {
    /// A pool of at most `bytes_max` bytes, in whole chunks, and of at least one.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { chunks: Slabs::new((bytes_max / CHUNK).clamp(1, NONE as usize - 1), NONE) }
    }

    pub(crate) const fn free_chunks(&self) -> usize {
        self.chunks.max() - self.chunks.used()
    }

    pub(crate) const fn used_bytes(&self) -> usize {
        self.chunks.used() * CHUNK
    }

    /// Bytes that are kept for reuse.
    pub(crate) const fn recycled_bytes(&self) -> usize {
        self.chunks.recycled_bytes()
    }

    /// Gives back to the allocator what is kept beyond `keep` bytes.
    pub(crate) fn trim(&mut self, keep: usize) {
        self.chunks.trim(keep);
    }

    fn take(&mut self) -> Option<u32> {
        let chunk = self.chunks.take()?;
        *self.chunks.note_mut(chunk) = NONE;
        Some(chunk)
    }

    fn next(&self, chunk: u32) -> u32 {
        *self.chunks.note(chunk)
    }
}

/// Bytes in the order written. 16 bytes, and no chunk when empty.
///
/// A handle, not an owner: it is cleared before it is dropped. Every call takes the same pool.
#[derive(Debug)]
pub(crate) struct ByteQueue {
    head: u32,
    tail: u32,
    len: u32,
    /// Where the first byte stands in the first chunk.
    start: u32,
}

impl ByteQueue {
    pub(crate) const EMPTY: Self = Self { head: NONE, tail: NONE, len: 0, start: 0 };

    pub(crate) const fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How long the queue may be now, where none may be longer than `max`: an eighth of what the pool has to spare. The last
    /// quarter of the pool is for queues of one chunk: those that are stuck leave room for the others.
    pub(crate) fn limit(&self, pool: &ChunkPool, max: usize) -> usize {
        let spare = pool.free_chunks().saturating_sub(pool.chunks.max() / 4);
        let share = if spare > 0 { spare.div_ceil(8) * CHUNK } else { CHUNK - self.start as usize };
        share.min(max)
    }

    /// Appends bytes until the queue is `limit` long or the pool is dry, and tells how many.
    pub(crate) fn push(&mut self, pool: &mut ChunkPool, bytes: &[u8], limit: usize) -> usize {
        let wanted = bytes.len().min(limit.saturating_sub(self.len()));
        let mut rest = &bytes[..wanted];
        while !rest.is_empty() {
            let mut fill = (self.start as usize + self.len()) % CHUNK;
            if fill == 0 {
                let Some(chunk) = pool.take() else { break };
                if self.is_empty() {
                    self.head = chunk;
                } else {
                    *pool.chunks.note_mut(self.tail) = chunk;
                }
                self.tail = chunk;
                fill = 0;
            }
            let (now, later) = rest.split_at(rest.len().min(CHUNK - fill));
            pool.chunks.bytes_mut(self.tail)[fill..fill + now.len()].copy_from_slice(now);
            self.len += narrow(now.len());
            rest = later;
        }
        wanted - rest.len()
    }

    /// The bytes, in pieces that are never empty.
    pub(crate) fn pieces<'a>(&self, pool: &'a ChunkPool) -> Pieces<'a> {
        Pieces { pool, chunk: self.head, start: self.start as usize, left: self.len() }
    }

    /// Drops `n` bytes from the front, or all there are.
    pub(crate) fn consume(&mut self, pool: &mut ChunkPool, n: usize) {
        let mut left = n.min(self.len());
        while left > 0 {
            let start = self.start as usize;
            let taken = left.min(CHUNK - start);
            left -= taken;
            self.len -= narrow(taken);
            self.start += narrow(taken);
            if self.is_empty() || start + taken == CHUNK {
                let next = pool.next(self.head);
                pool.chunks.give_back(self.head);
                (self.head, self.start) = (next, 0);
            }
        }
        if self.is_empty() {
            *self = Self::EMPTY;
        }
    }

    pub(crate) fn clear(&mut self, pool: &mut ChunkPool) {
        self.consume(pool, self.len());
    }
}

/// A queue's bytes, piece by piece.
#[derive(Clone, Debug)]
pub(crate) struct Pieces<'a> {
    pool: &'a ChunkPool,
    chunk: u32,
    start: usize,
    left: usize,
}

impl Pieces<'_> {
    /// How many pieces there are.
    pub(crate) const fn count_left(&self) -> usize {
        if self.left == 0 { 0 } else { (self.start + self.left).div_ceil(CHUNK) }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        let len = self.left.min(CHUNK - self.start);
        let piece = &self.pool.chunks.bytes(self.chunk)[self.start..self.start + len];
        self.left -= len;
        self.start = 0;
        self.chunk = self.pool.next(self.chunk);
        Some(piece)
    }
}

/// At most a chunk.
#[expect(clippy::cast_possible_truncation, reason = "at most CHUNK")]
const fn narrow(n: usize) -> u32 {
    debug_assert!(n <= CHUNK);
    n as u32
}

/// No chunk.
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn stuck_queues_leave_chunks_for_others() {
        let mut pool = ChunkPool::new(128 * CHUNK);
        let fill = |queue: &mut ByteQueue, pool: &mut ChunkPool| {
            let limit = queue.limit(pool, 20 * CHUNK);
            queue.push(pool, &[1; 100 * CHUNK], limit)
        };
        let mut stuck: Vec<ByteQueue> = (0..40).map(|_| ByteQueue::EMPTY).collect();
        let first = fill(&mut stuck[0], &mut pool);
        assert_eq!(first, 12 * CHUNK);
        // A queue whose first chunk is partly sent must not take a second one for it.
        stuck[0].consume(&mut pool, 11 * CHUNK + 1);
        for _ in 0..10 {
            for queue in &mut stuck {
                fill(queue, &mut pool);
            }
        }
        assert!(pool.free_chunks() >= 10, "{}", pool.free_chunks());
        let mut other = ByteQueue::EMPTY;
        assert_eq!(fill(&mut other, &mut pool), CHUNK);
    }

    #[test]
    fn a_queue_takes_what_its_limit_and_the_pool_allow() {
        let mut pool = ChunkPool::new(3 * CHUNK + 1);
        let (mut a, mut b) = (ByteQueue::EMPTY, ByteQueue::EMPTY);
        assert_eq!(a.push(&mut pool, &[1; 5000], 3000), 3000);
        assert_eq!(a.push(&mut pool, &[1; 5000], 3000), 0);
        assert_eq!(b.push(&mut pool, &[2; 5000], usize::MAX), CHUNK);
        assert_eq!((pool.free_chunks(), pool.used_bytes()), (0, 3 * CHUNK));
        // What is left of the last chunk is taken even so.
        assert_eq!(a.push(&mut pool, &[1; 5000], usize::MAX), 2 * CHUNK - 3000);
        b.clear(&mut pool);
        assert_eq!(pool.free_chunks(), 1);
        assert_eq!(a.push(&mut pool, &[1; 5000], usize::MAX), CHUNK);
        a.clear(&mut pool);
        assert_eq!(pool.used_bytes(), 0);
    }

    /// Many queues on one small pool, against as many `VecDeque`s.
    #[test]
    fn queues_keep_their_bytes_apart_and_in_order() {
        let mut state = 88_172_645_463_325_252_u64;
        let mut dice = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).unwrap()
        };
        let mut pool = ChunkPool::new(100 * CHUNK);
        let mut queues: Vec<(ByteQueue, VecDeque<u8>)> =
            (0..8).map(|_| (ByteQueue::EMPTY, VecDeque::new())).collect();
        for step in 0..20_000 {
            let (queue, model) = &mut queues[dice(8)];
            let n = dice(3 * CHUNK);
            if dice(100) < 52 {
                let bytes: Vec<u8> = (0..=255).cycle().skip(step % 256).take(n).collect();
                let taken = queue.push(&mut pool, &bytes, 20 * CHUNK);
                model.extend(&bytes[..taken]);
                assert!(queue.len() <= 20 * CHUNK);
            } else {
                queue.consume(&mut pool, n);
                model.drain(..n.min(model.len()));
            }
            assert_eq!(queue.len(), model.len());
            assert!(queue.pieces(&pool).all(|piece| !piece.is_empty()));
            if step % 50 == 0 {
                assert!(queue.pieces(&pool).flatten().eq(model.iter()));
            }
        }
        for (queue, _) in &mut queues {
            queue.clear(&mut pool);
        }
        assert_eq!(pool.used_bytes(), 0, "every chunk came back");
    }
}
