//! One fragment of a message in a recycled buffer, and the sizes such buffers come in.

use alloc::boxed::Box;

use crate::store::Store;

/// A segment's payload and its place in the message. Goes back to the [`Store`] it came from.
#[derive(Debug)]
pub(crate) struct Fragment {
    buffer: Box<[u8]>,
    len: u32,
    frg: u8,
    class: u8,
}

impl Fragment {
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.len as usize
    }

    /// Bytes of the store that it takes.
    pub(crate) const fn memory(&self) -> usize {
        self.buffer.len()
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

    /// Whether there is no buffer to be given back.
    #[inline]
    pub(crate) const fn is_vacant(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Makes this the end of its message.
    pub(crate) const fn end_message(&mut self) {
        self.frg = 0;
    }

    /// Appends `more`, in place where the buffer has room. `false`: the store is full and nothing changed.
    pub(crate) fn extend(&mut self, more: &[u8], store: &mut Store) -> bool {
        let end = self.len() + more.len();
        // A buffer of a payload's own size never has room, and no buffer has none.
        if let Some(room) = self.buffer.get_mut(self.len as usize..end) {
            room.copy_from_slice(more);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a payload's length fits the wire's 32 bits"
            )]
            let len = end as u32;
            self.len = len;
            return true;
        }
        let Some(mut larger) = store.fragment(end, self.frg) else { return false };
        larger.fill(0, self.as_slice());
        larger.fill(self.len(), more);
        store.give_back(core::mem::replace(self, larger));
        true
    }

    /// A payload of `len` bytes in `buffer`, which is of `class` and holds at least that. What the bytes are is left open.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "class_of gives less than 256, the wire's length has 32 bits"
    )]
    pub(super) const fn new(buffer: Box<[u8]>, class: usize, len: usize, frg: u8) -> Self {
        Self { buffer, len: len as u32, frg, class: class as u8 }
    }

    /// Writes `bytes` from the offset `at` on. The buffer holds them: it was asked for by their length.
    #[inline]
    pub(crate) fn fill(&mut self, at: usize, bytes: &[u8]) {
        self.buffer[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The buffer and its class.
    #[inline]
    pub(super) fn into_buffer(self) -> (Box<[u8]>, usize) {
        (self.buffer, self.class as usize)
    }
}

impl Default for Fragment {
    /// No payload, no buffer.
    fn default() -> Self {
        Self { buffer: Box::default(), len: 0, frg: 0, class: NO_CLASS }
    }
}

/// The class of buffers that hold `len` bytes; none of the [`CLASSES`] for 0 bytes and for more than the largest holds.
#[inline]
pub(super) const fn class_of(len: usize) -> usize {
    if len.wrapping_sub(1) < SMALLEST {
        return 0;
    }
    if len == 0 {
        return NO_CLASS as usize;
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

/// Not a class: without a buffer, or with one of its own size.
const NO_CLASS: u8 = u8::MAX;

const SMALLEST: usize = 64;
const SMALLEST_LOG: usize = SMALLEST.ilog2() as usize;
/// No UDP datagram carries more.
const LARGEST: usize = 65_536;

const _: () = assert!(class_bytes(0) == SMALLEST && class_bytes(CLASSES - 1) == LARGEST);

/// A reorder window is an array of these: the flag for a vacant slot must cost nothing.
const _: () = assert!(size_of::<Option<Fragment>>() == 24);
