//! Messages in a byte stream, by other people's code: tokio's length-delimited codec.

use std::io;

use bytes::{BufMut, BytesMut};
use tokio_util::codec::{Decoder, LengthDelimitedCodec};

/// How messages are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Not at all.
    None,
    /// By a length of two bytes, the highest first.
    U16Be,
    /// By a length of two bytes, the lowest first.
    U16Le,
    /// By a length of four bytes, the highest first.
    U32Be,
    /// By a length of four bytes, the lowest first.
    U32Le,
}

impl Framing {
    /// Bytes of length before each message.
    #[must_use]
    pub const fn prefix_len(self) -> usize {
        match self {
            Self::None => 0,
            Self::U16Be | Self::U16Le => 2,
            Self::U32Be | Self::U32Le => 4,
        }
    }

    /// The longest message that the prefix can tell.
    #[must_use]
    pub const fn length_max(self) -> usize {
        match self {
            Self::None => usize::MAX,
            Self::U16Be | Self::U16Le => u16::MAX as usize,
            Self::U32Be | Self::U32Le => u32::MAX as usize,
        }
    }

    const fn is_big_endian(self) -> bool {
        matches!(self, Self::U16Be | Self::U32Be)
    }

    /// Appends the prefix of a message of `len` bytes, which is at most [`Framing::length_max`].
    pub(super) fn put_prefix(self, out: &mut BytesMut, len: usize) {
        match (self.prefix_len(), self.is_big_endian()) {
            (0, _) => {}
            (bytes, true) => out.put_uint(len as u64, bytes),
            (bytes, false) => out.put_uint_le(len as u64, bytes),
        }
    }
}

/// Finds the messages of one session.
#[derive(Debug)]
pub(super) enum Messages {
    /// Whatever was read is one.
    Raw,
    Framed(LengthDelimitedCodec),
    /// Nothing is answered any more.
    Deaf,
}

impl Messages {
    pub(super) fn new(framing: Framing, message_max: usize) -> Self {
        if framing == Framing::None {
            return Self::Raw;
        }
        let mut builder = LengthDelimitedCodec::builder();
        builder.length_field_length(framing.prefix_len());
        builder.max_frame_length(message_max.min(framing.length_max()));
        if !framing.is_big_endian() {
            builder.little_endian();
        }
        Self::Framed(builder.new_codec())
    }

    /// Takes the next whole message out of `inbox`; empty ones included.
    ///
    /// # Errors
    /// It is announced as longer than allowed.
    pub(super) fn next(&mut self, inbox: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        match self {
            Self::Raw => Ok((!inbox.is_empty()).then(|| inbox.split())),
            Self::Framed(codec) => codec.decode(inbox),
            Self::Deaf => {
                inbox.clear();
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMED: [Framing; 4] = [Framing::U16Be, Framing::U16Le, Framing::U32Be, Framing::U32Le];

    #[test]
    fn prefixes_byte_by_byte() {
        let prefix = |framing: Framing| {
            let mut out = BytesMut::new();
            framing.put_prefix(&mut out, 0x0102);
            out.to_vec()
        };
        assert_eq!(prefix(Framing::None), [0_u8; 0]);
        assert_eq!(
            FRAMED.map(prefix),
            [vec![1, 2], vec![2, 1], vec![0, 0, 1, 2], vec![2, 1, 0, 0]]
        );
    }

    #[test]
    fn messages_come_out_whole_whatever_the_pieces() {
        for framing in FRAMED {
            let mut stream = BytesMut::new();
            for message in [&b"one"[..], b"", b"three"] {
                framing.put_prefix(&mut stream, message.len());
                stream.extend_from_slice(message);
            }
            let (mut inbox, mut found) = (BytesMut::new(), Vec::new());
            let mut messages = Messages::new(framing, 5);
            for byte in stream {
                inbox.extend_from_slice(&[byte]);
                while let Some(message) = messages.next(&mut inbox).unwrap() {
                    found.push(message.to_vec());
                }
            }
            assert_eq!(found, [b"one".to_vec(), vec![], b"three".to_vec()]);
            framing.put_prefix(&mut inbox, 6);
            messages.next(&mut inbox).unwrap_err();
        }
    }
}
