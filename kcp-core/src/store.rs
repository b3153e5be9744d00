//! Where payload lives while it is in flight: recycled, bounded, shared by all sessions of a shard.

/// The storage of one shard's sessions. An idle session holds nothing of it.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// A store that never holds more than `bytes_max` bytes of payload and bookkeeping.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let _ = bytes_max;
        todo!()
    }

    /// Bytes held for sessions now.
    #[must_use]
    pub fn bytes_used(&self) -> usize {
        todo!()
    }

    /// Gives recycled memory above `keep_bytes` back to the allocator.
    pub fn trim(&mut self, keep_bytes: usize) {
        let _ = keep_bytes;
        todo!()
    }
}
