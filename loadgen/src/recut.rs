//! Messages out of a byte stream that was cut elsewhere: all of a run have one length, so the stream itself need not tell.

/// What has come of each session's next message.
#[derive(Debug)]
pub(crate) struct Recut {
    sessions: Vec<Part>,
    first: usize,
    size: usize,
}

#[derive(Debug, Default)]
struct Part {
    /// The first message is whole, and those of the other length follow.
    past_first: bool,
    bytes: Vec<u8>,
}

impl Recut {
    /// For sessions whose first message has `first` bytes and all others `size`; both at least 1.
    pub(crate) const fn new(first: usize, size: usize) -> Self {
        Self { sessions: Vec::new(), first, size }
    }

    /// Takes the next `piece` of session `local`'s stream, and hands out each message that is whole with it.
    pub(crate) fn feed(&mut self, local: u32, mut piece: &[u8], mut whole: impl FnMut(&[u8])) {
        let local = local as usize;
        if local >= self.sessions.len() {
            self.sessions.resize_with(local + 1, Part::default);
        }
        let Some(part) = self.sessions.get_mut(local) else { return };
        loop {
            let len = if part.past_first { self.size } else { self.first };
            let missing = len - part.bytes.len();
            let Some((rest, later)) = piece.split_at_checked(missing) else {
                part.bytes.extend_from_slice(piece);
                return;
            };
            if part.bytes.is_empty() {
                whole(rest);
            } else {
                part.bytes.extend_from_slice(rest);
                whole(&part.bytes);
                part.bytes.clear();
            }
            part.past_first = true;
            piece = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_it_is_cut_the_messages_are_the_same() {
        let stream: Vec<u8> = (0..23).collect();
        for cut in 1..=stream.len() {
            let mut recut = Recut::new(3, 5);
            let mut found = Vec::new();
            for piece in stream.chunks(cut) {
                recut.feed(7, piece, |message| found.push(message.to_vec()));
            }
            let expected =
                [&stream[..3], &stream[3..8], &stream[8..13], &stream[13..18], &stream[18..]];
            assert_eq!(found, expected, "pieces of {cut}");
        }
    }

    #[test]
    fn sessions_have_streams_of_their_own() {
        let mut recut = Recut::new(2, 2);
        let mut found = Vec::new();
        for (local, piece) in [(1, b"a"), (0, b"x"), (1, b"b"), (0, b"y")] {
            recut.feed(local, piece, |message| found.push(message.to_vec()));
        }
        assert_eq!(found, [b"ab", b"xy"]);
    }
}
