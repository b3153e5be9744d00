//! What a completion is about: 64 bits of user data.

use crate::stream::StreamId;

/// An operation in flight. The top byte says which; the rest is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// A socket's multishot receive.
    Receive {
        /// The socket.
        socket: u16,
    },
    /// A send. Completes only when it fails.
    Send {
        /// Which train of the outbox.
        train: u16,
        /// How many datagrams it carries, so that a late failure is counted right.
        count: u8,
        /// Which filling of the outbox.
        generation: u16,
    },
    /// The read that a waker ends.
    Wake,
    /// A stream's one-shot receive.
    StreamRead(StreamId),
    /// Waits until a stream can be written to, or its connection is made.
    StreamReady(StreamId),
    /// A stream's send. Completes only when the kernel did not take all of it.
    StreamSend(StreamId),
    /// The end of another operation. Completes only when that was not there any more.
    Cancel,
}

/// Which buffers a receive chooses from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Group {
    Datagrams = 0,
    Streams = 1,
}

impl Op {
    pub(super) const fn encode(self) -> u64 {
        match self {
            Self::Receive { socket } => RECEIVE << KIND | socket as u64,
            Self::Send { train, count, generation } => {
                SEND << KIND | (count as u64) << 32 | (generation as u64) << 16 | train as u64
            }
            Self::Wake => WAKE << KIND,
            Self::StreamRead(id) => STREAM_READ << KIND | id.to_bits(),
            Self::StreamReady(id) => STREAM_READY << KIND | id.to_bits(),
            Self::StreamSend(id) => STREAM_SEND << KIND | id.to_bits(),
            Self::Cancel => CANCEL << KIND,
        }
    }

    /// `None` for user data that no operation has.
    pub(super) const fn decode(data: u64) -> Option<Self> {
        let [low, high, count, ..] = split(data);
        match data >> KIND {
            RECEIVE => Some(Self::Receive { socket: low }),
            SEND => Some(Self::Send { train: low, count: (count & 0xff) as u8, generation: high }),
            WAKE => Some(Self::Wake),
            STREAM_READ => Some(Self::StreamRead(StreamId::from_bits(data))),
            STREAM_READY => Some(Self::StreamReady(StreamId::from_bits(data))),
            STREAM_SEND => Some(Self::StreamSend(StreamId::from_bits(data))),
            CANCEL => Some(Self::Cancel),
            _ => None,
        }
    }
}

/// The four 16-bit fields, lowest first.
const fn split(data: u64) -> [u16; 4] {
    let b = data.to_le_bytes();
    [
        u16::from_le_bytes([b[0], b[1]]),
        u16::from_le_bytes([b[2], b[3]]),
        u16::from_le_bytes([b[4], b[5]]),
        u16::from_le_bytes([b[6], b[7]]),
    ]
}

const KIND: u32 = 56;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const WAKE: u64 = 3;
const STREAM_READ: u64 = 4;
const STREAM_READY: u64 = 5;
const STREAM_SEND: u64 = 6;
const CANCEL: u64 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    /// The highest slot and generation.
    const LAST: StreamId = StreamId::from_bits(u64::MAX);

    #[test]
    fn every_operation_survives_the_round_trip() {
        for op in [
            Op::Receive { socket: 0 },
            Op::Receive { socket: u16::MAX },
            Op::Send { train: u16::MAX, count: 1, generation: 0 },
            Op::Send { train: 3, count: 64, generation: u16::MAX },
            Op::Wake,
            Op::StreamRead(StreamId::from_bits(0)),
            Op::StreamRead(LAST),
            Op::StreamReady(LAST),
            Op::StreamSend(LAST),
            Op::Cancel,
        ] {
            assert_eq!(Op::decode(op.encode()), Some(op));
        }
        assert_eq!(Op::decode(0), None);
        assert_eq!(Op::decode(u64::MAX), None);
    }
}
