//! The twelve bytes before everything on a yamux connection.
//!
//! Specification: <https://github.com/hashicorp/yamux/blob/master/spec.md>, "Framing". All numbers are big-endian.

/// Bytes of a header.
pub(super) const HEADER: usize = 12;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `length` bytes of a stream follow.
    Data,
    /// The receiver of a stream takes `length` bytes more.
    WindowUpdate,
    /// A question or an answer; `length` is its number.
    Ping,
    /// No new streams, for the reason in `length`.
    GoAway,
}

/// What else a frame says of its stream, or of its ping. Unknown bits are kept and mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Flags(pub(super) u16);

impl Flags {
    pub(super) const NONE: Self = Self(0);
    /// The stream begins here; of a ping, it is a question.
    pub(super) const SYN: Self = Self(1);
    /// The stream is accepted; of a ping, it is an answer.
    pub(super) const ACK: Self = Self(2);
    /// The sender sends nothing more on the stream.
    pub(super) const FIN: Self = Self(4);
    /// The stream is over, both ways, now.
    pub(super) const RST: Self = Self(8);

    pub(super) const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }
}

/// A frame's header. Every value of it can be written; a version other than 0 and an unknown kind cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) flags: Flags,
    /// The stream; 0 for the connection itself.
    pub(super) stream: u32,
    /// Bytes of payload, of window, or a number: see [`Kind`].
    pub(super) length: u32,
}

/// Bytes that are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Version,
    Kind,
}

impl Header {
    pub(super) const fn encode(&self) -> [u8; HEADER] {
        let kind = match self.kind {
            Kind::Data => 0,
            Kind::WindowUpdate => 1,
            Kind::Ping => 2,
            Kind::GoAway => 3,
        };
        let [f0, f1] = self.flags.0.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        [0, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3]
    }

    pub(super) const fn decode(bytes: [u8; HEADER]) -> Result<Self, HeaderError> {
        let [version, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = bytes;
        if version != 0 {
            return Err(HeaderError::Version);
        }
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::WindowUpdate,
            2 => Kind::Ping,
            3 => Kind::GoAway,
            _ => return Err(HeaderError::Kind),
        };
        Ok(Self {
            kind,
            flags: Flags(u16::from_be_bytes([f0, f1])),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        })
    }
}

/// Headers from a stream of bytes in any pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeaderReader {
    bytes: [u8; HEADER],
    have: usize,
}

impl HeaderReader {
    /// Some of a header has come, and some has not.
    pub(super) const fn is_partial(&self) -> bool {
        self.have > 0
    }

    /// Takes a header's bytes from the front of `input`; the header when it is whole, and what is left of `input`.
    pub(super) fn read<'a>(
        &mut self,
        input: &'a [u8],
    ) -> Result<(Option<Header>, &'a [u8]), HeaderError> {
        if self.have == 0
            && let Some((whole, rest)) = input.split_first_chunk()
        {
            return Ok((Some(Header::decode(*whole)?), rest));
        }
        let (now, rest) = input.split_at(input.len().min(HEADER - self.have));
        self.bytes[self.have..self.have + now.len()].copy_from_slice(now);
        self.have += now.len();
        if self.have < HEADER {
            return Ok((None, rest));
        }
        self.have = 0;
        Ok((Some(Header::decode(self.bytes)?), rest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_byte_by_byte() {
        let header = Header {
            kind: Kind::WindowUpdate,
            flags: Flags(Flags::SYN.0 | Flags::RST.0),
            stream: 0x0102_0304,
            length: 0x0A0B_0C0D,
        };
        assert_eq!(header.encode(), [0, 1, 0, 9, 1, 2, 3, 4, 0x0A, 0x0B, 0x0C, 0x0D]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_an_error(bytes: [u8; HEADER]) {
            match Header::decode(bytes) {
                Ok(header) => prop_assert_eq!(header.encode(), bytes),
                Err(HeaderError::Version) => prop_assert_ne!(bytes[0], 0),
                Err(HeaderError::Kind) => prop_assert!(bytes[0] == 0 && bytes[1] > 3),
            }
        }

        #[test]
        fn headers_are_found_in_any_pieces(
            headers in prop::collection::vec((0u8..4, any::<u16>(), any::<u32>(), any::<u32>()), 1..20),
            piece in 1usize..30,
        ) {
            let wire: Vec<u8> = headers
                .iter()
                .flat_map(|(kind, flags, stream, length)| {
                    let mut bytes = [0; HEADER];
                    bytes[1] = *kind;
                    bytes[2..4].copy_from_slice(&flags.to_be_bytes());
                    bytes[4..8].copy_from_slice(&stream.to_be_bytes());
                    bytes[8..].copy_from_slice(&length.to_be_bytes());
                    bytes
                })
                .collect();
            let mut reader = HeaderReader::default();
            let mut found = Vec::new();
            for mut rest in wire.chunks(piece) {
                while !rest.is_empty() {
                    let (header, after) = reader.read(rest).unwrap();
                    found.extend(header.map(|h| h.encode()));
                    rest = after;
                }
            }
            prop_assert!(!reader.is_partial());
            prop_assert_eq!(found.concat(), wire);
        }
    }
}
