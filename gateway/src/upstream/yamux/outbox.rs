//! What one connection has to write: one buffer, one bound; and which messages have left for good.

use std::collections::VecDeque;

use super::frame::{HEADER, Header};

/// Frames that wait for the kernel, in order. All of a turn's frames leave with one write.
///
/// Memory in use: grows to at most a third more than the bound (what the kernel took is dropped when it is a quarter), and a
/// message beyond it while that message is put in. And eight bytes for each message in it or in the last MiB that was taken.
#[derive(Debug)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// Bytes at the front that the kernel has taken.
    written: usize,
    bytes_max: usize,
    /// Bytes ever taken from here.
    taken: u64,
    /// Where each message ends that may still be lost, counted as `taken` is.
    ends: VecDeque<u64>,
}

impl Outbox {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), written: 0, bytes_max, taken: 0, ends: VecDeque::new() }
    }

    /// What the kernel is to take next.
    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Bytes of frames that may be appended now.
    pub(super) fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.pending().len())
    }

    /// Bytes of data frames that may be appended now: a part of the bound is kept for frames that open windows and end
    /// streams, so that data cannot hold them up.
    pub(super) fn data_room(&self) -> usize {
        self.room().saturating_sub(CONTROL_RESERVE)
    }

    /// Appends a frame without payload.
    pub(super) fn header(&mut self, header: &Header) {
        self.bytes.extend_from_slice(&header.encode());
    }

    /// Appends payload of the frame appended last.
    pub(super) fn payload(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends `len` bytes of payload and lends them to be filled.
    pub(super) fn payload_mut(&mut self, len: usize) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        &mut self.bytes[start..]
    }

    /// Where the next append goes: see [`Outbox::rewind`] and [`Outbox::since`].
    pub(super) const fn mark(&self) -> usize {
        self.bytes.len()
    }

    /// Takes back everything appended after `mark`.
    pub(super) fn rewind(&mut self, mark: usize) {
        self.bytes.truncate(mark);
    }

    /// Everything appended after `mark`.
    pub(super) fn since(&self, mark: usize) -> &[u8] {
        &self.bytes[mark..]
    }

    /// A message ends with what was appended last.
    pub(super) fn message_ends(&mut self) {
        self.ends.push_back(self.taken + self.pending().len() as u64);
    }

    /// All but the last `waiting` of the bytes that were taken from here have left for good.
    pub(super) fn on_sent(&mut self, waiting: usize) {
        let gone = self.taken.saturating_sub(waiting as u64);
        while self.ends.front().is_some_and(|&end| end <= gone) {
            self.ends.pop_front();
        }
    }

    /// Messages that have not left, or not whole.
    #[cfg(test)]
    pub(super) fn messages(&self) -> usize {
        self.ends.len()
    }

    /// Nothing will leave any more; how many messages are lost with that.
    pub(super) fn abandon(&mut self) -> usize {
        (self.bytes, self.written) = (Vec::new(), 0);
        std::mem::take(&mut self.ends).len()
    }

    /// The kernel has taken `n` bytes more.
    pub(super) fn on_written(&mut self, n: usize) {
        self.taken += n.min(self.pending().len()) as u64;
        self.on_sent(WAITING_MAX);
        self.written = self.bytes.len().min(self.written + n);
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
        } else if self.written * 4 >= self.bytes.len() {
            // At most three times as much is moved as is dropped: each byte is moved three times on average, at most.
            self.bytes.copy_within(self.written.., 0);
            self.bytes.truncate(self.bytes.len() - self.written);
            self.written = 0;
        }
    }
}

/// The most that may wait between here and the kernel, in bytes: no driver queues more for one stream.
const WAITING_MAX: usize = 1 << 20;

/// Bytes of the bound that data frames leave free.
pub(super) const CONTROL_RESERVE: usize = 256 * HEADER;

#[cfg(test)]
mod tests {
    use super::super::super::dice::Dice;
    use super::super::frame::{Flags, Kind};
    use super::*;

    #[test]
    fn the_reserve_is_for_control_frames() {
        let mut outbox = Outbox::new(CONTROL_RESERVE + 100);
        assert_eq!((outbox.data_room(), outbox.room()), (100, CONTROL_RESERVE + 100));
        outbox.payload(&[0; 150]);
        assert_eq!((outbox.data_room(), outbox.room()), (0, CONTROL_RESERVE - 50));
    }

    #[test]
    fn what_is_taken_back_was_never_there() {
        let mut outbox = Outbox::new(10_000);
        outbox.payload(b"kept");
        let mark = outbox.mark();
        outbox.header(&Header { kind: Kind::Data, flags: Flags::NONE, stream: 1, length: 3 });
        outbox.payload_mut(3).copy_from_slice(b"new");
        assert_eq!(outbox.since(mark + HEADER), b"new");
        outbox.rewind(mark);
        assert_eq!(outbox.pending(), b"kept");
    }

    #[test]
    fn a_message_can_be_lost_until_its_last_byte_has_left() {
        let mut outbox = Outbox::new(10_000);
        for _ in 0..3 {
            outbox.payload(&[7; 10]);
            outbox.message_ends();
        }
        outbox.on_written(25);
        for (waiting, left) in [(25, 3), (16, 3), (15, 2), (6, 2), (5, 1), (0, 1)] {
            outbox.on_sent(waiting);
            assert_eq!(outbox.messages(), left, "{waiting} bytes wait");
        }
        outbox.payload(&[7; 10]);
        outbox.message_ends();
        assert_eq!((outbox.abandon(), outbox.messages(), outbox.pending().len()), (2, 0, 0));
        // Whoever never tells what has left does not make the list grow for ever.
        let mut outbox = Outbox::new(10_000);
        for _ in 0..3 * WAITING_MAX / 1000 {
            outbox.payload(&[7; 1000]);
            outbox.message_ends();
            outbox.on_written(1000);
        }
        assert!(outbox.messages() <= WAITING_MAX / 1000 + 1);
    }

    #[test]
    fn bytes_leave_in_order_whatever_the_kernel_takes() {
        for seed in 0..20 {
            let mut dice = Dice::new(seed);
            let mut outbox = Outbox::new(5000);
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            for _ in 0..500 {
                let n = dice.below(400).min(outbox.room());
                let bytes = dice.bytes(n);
                outbox.payload(&bytes);
                sent.extend(bytes);
                let taken = dice.below(outbox.pending().len() + 1);
                got.extend_from_slice(&outbox.pending()[..taken]);
                outbox.on_written(taken);
                assert!(outbox.bytes.len() <= 5000 * 4 / 3 + 1);
            }
            got.extend_from_slice(outbox.pending());
            assert!(got == sent);
        }
    }
}
