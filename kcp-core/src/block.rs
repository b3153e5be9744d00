//! What a session holds only while it has something to send, to acknowledge or to reassemble.

use crate::ack::AckList;
use crate::flush::Cursor;
use crate::recv::Receiver;
use crate::send::{SendSpace, Sender};

/// A session's queues. Lives in the [`Store`](crate::Store) between uses, keeping the queues' memory.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) send: Sender,
    pub(crate) recv: Receiver,
    pub(crate) acks: AckList,
    pub(crate) cursor: Cursor,
}

impl Block {
    /// Nothing queued, in flight, waiting or owed.
    #[inline]
    pub(crate) fn is_empty(&self, space: SendSpace) -> bool {
        self.acks.is_empty() && self.send.is_empty(space) && self.recv.is_empty()
    }

    /// Reads a little of each cache line that a datagram's acknowledgements and its data will need.
    #[inline]
    pub(crate) fn look_ahead(&self, space: SendSpace) -> u32 {
        let oldest = self.send.look_ahead(space);
        oldest ^ self.recv.ready() ^ u32::from(self.acks.is_empty())
    }

    /// Bytes of the block and its queues, without payload.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.send.heap_bytes() + self.recv.heap_bytes() + self.acks.heap_bytes()
    }

    /// Prepares an empty block for its next session. Queues that grew out of the ordinary are freed, so that one
    /// session with a huge window does not fatten all that come after it.
    #[inline]
    pub(crate) fn recycle(&mut self) {
        if self.bytes() > KEEP_BYTES {
            *self = Self::default();
        } else {
            self.cursor = Cursor::default();
            self.send.forget();
        }
    }
}

/// Queues for a few hundred segments each way: windows of 256 recycle without touching the allocator.
const KEEP_BYTES: usize = 48 * 1024;
