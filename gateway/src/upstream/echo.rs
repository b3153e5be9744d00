//! The embedded upstream: every message comes back.

use std::collections::VecDeque;

use crate::session::SessionId;

/// Messages on their way round: in from sessions, out to the same sessions, in order.
///
/// Bounded by construction: at most `bytes_max` bytes and one frame for each 32 bytes of it, both taken once.
#[derive(Debug)]
pub struct Echo {
    bytes: Vec<u8>,
    frames: VecDeque<(SessionId, usize)>,
    taken: usize,
    bytes_max: usize,
    frames_max: usize,
}

impl Echo {
    /// An echo that holds at most `bytes_max` bytes of messages.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let frames_max = bytes_max / 32;
        Self {
            bytes: Vec::with_capacity(bytes_max),
            frames: VecDeque::with_capacity(frames_max),
            taken: 0,
            bytes_max,
            frames_max,
        }
    }

    /// Room for a message of `len` bytes.
    #[must_use]
    pub fn has_room(&self, len: usize) -> bool {
        self.bytes.len() + len <= self.bytes_max && self.frames.len() < self.frames_max
    }

    /// Takes a message; the caller has asked [`Echo::has_room`].
    pub fn push(&mut self, id: SessionId, message: &[u8]) {
        debug_assert!(self.has_room(message.len()));
        self.bytes.extend_from_slice(message);
        self.frames.push_back((id, message.len()));
    }

    /// Takes a message of `len` bytes that `fill` writes; nothing is taken when it writes none.
    pub fn push_with(
        &mut self,
        id: SessionId,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        debug_assert!(self.has_room(len));
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        match fill(&mut self.bytes[start..]) {
            Some(written) => {
                self.bytes.truncate(start + written);
                self.frames.push_back((id, written));
            }
            None => self.bytes.truncate(start),
        }
    }

    /// The oldest message, without taking it.
    #[must_use]
    pub fn front(&self) -> Option<(SessionId, &[u8])> {
        let &(id, len) = self.frames.front()?;
        Some((id, &self.bytes[self.taken..self.taken + len]))
    }

    /// Takes the oldest message out.
    pub fn pop(&mut self) {
        if let Some((_, len)) = self.frames.pop_front() {
            self.taken += len;
        }
        if self.frames.is_empty() {
            self.bytes.clear();
            self.taken = 0;
        }
    }

    /// No message is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> SessionId {
        SessionId { index, generation: 0 }
    }

    #[test]
    fn messages_come_back_in_order() {
        let mut echo = Echo::new(1024);
        echo.push(id(1), b"one");
        echo.push_with(id(2), 3, |out| {
            out.copy_from_slice(b"two");
            Some(3)
        });
        echo.push_with(id(3), 3, |_| None);
        assert_eq!(echo.front(), Some((id(1), &b"one"[..])));
        echo.pop();
        assert_eq!(echo.front(), Some((id(2), &b"two"[..])));
        echo.pop();
        assert!(echo.is_empty() && echo.front().is_none());
    }

    #[test]
    fn the_bound_holds_for_bytes_and_for_frames() {
        let mut echo = Echo::new(64);
        assert!(echo.has_room(64) && !echo.has_room(65));
        echo.push(id(1), b"a");
        echo.push(id(1), b"b");
        assert!(!echo.has_room(1), "two frames are all that 64 bytes allow");
        echo.pop();
        echo.pop();
        assert!(echo.has_room(64));
    }
}
