//! One fragment of a message in a recycled buffer, and the sizes such buffers come in.

use alloc::boxed::Box;

use crate::store::Store;

/// A segment's payload and its place in the message. Goes back to the [`Store`] it came from.
#[derive(Debug, Default)]
pub(crate) struct Fragment {
    buffer: Box<[u8]>,
    len: u32,
    frg: u8,
}

impl Fragment {
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.buffer[..self.len as usize]
    }

    /// Fragments of the message that follow this one.
    #[inline]
    pub(crate) const fn frg(&self) -> u8 {
        self.frg
    }

    /// Makes this the end of its message.
    pub(crate) const fn end_message(&mut self) {
        self.frg = 0;
    }

    /// Appends `more`, in place where the buffer has room. `false`: the store is full and nothing changed.
    pub(crate) fn extend(&mut self, more: &[u8], store: &mut Store) -> bool {
        let end = self.len() + more.len();
        if let Some(room) = self.buffer.get_mut(self.len as usize..end) {
            room.copy_from_slice(more);
            self.len = length(end);
            return true;
        }
        let Some(larger) = store.keep_joined(self.as_slice(), more, self.frg) else { return false };
        store.give_back(core::mem::replace(self, larger));
        true
    }

    /// Without payload.
    pub(super) fn empty(frg: u8) -> Self {
        Self { buffer: Box::default(), len: 0, frg }
    }

    /// A payload of `head` and `tail` in `buffer`, which holds at least both.
    #[inline]
    pub(super) fn fill(mut buffer: Box<[u8]>, head: &[u8], tail: &[u8], frg: u8) -> Self {
        let len = head.len() + tail.len();
        if !head.is_empty() {
            buffer[..head.len()].copy_from_slice(head);
        }
        buffer[head.len()..len].copy_from_slice(tail);
        Self { buffer, len: length(len), frg }
    }

    #[inline]
    pub(super) fn into_buffer(self) -> Box<[u8]> {
        self.buffer
    }
}

/// The class of buffers that hold `len` bytes (not 0); [`CLASSES`] and more when no class does.
#[inline]
pub(super) const fn class_of(len: usize) -> usize {
    if len <= SMALLEST {
        return 0;
    }
    let last = len - 1;
    let log = last.ilog2() as usize;
    let upper_half = (last >> (log - 1)) & 1;
    (log - SMALLEST_LOG) * 2 + upper_half + 1
}

/// Bytes of a buffer of `class`.
pub(super) const fn class_bytes(class: usize) -> usize {
    let whole = SMALLEST << (class / 2);
    if class.is_multiple_of(2) { whole } else { whole / 2 * 3 }
}

/// Sizes of recycled buffers: two per power of two.
pub(super) const CLASSES: usize = class_of(LARGEST) + 1;

const SMALLEST: usize = 64;
const SMALLEST_LOG: usize = SMALLEST.ilog2() as usize;
/// No UDP datagram carries more.
const LARGEST: usize = 65_536;

const _: () = assert!(class_bytes(0) == SMALLEST && class_bytes(CLASSES - 1) == LARGEST);

/// Payloads come from datagrams or are cut at the mss: their length always fits the wire's 32 bits.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a payload is cut at the mss or came out of a datagram"
)]
const fn length(len: usize) -> u32 {
    len as u32
}

/// A reorder window is an array of these: the flag for a vacant slot must cost nothing.
const _: () = assert!(size_of::<Option<Fragment>>() == 24);
