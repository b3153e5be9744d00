//! The 24-byte segment header: decode, encode, walk a datagram. Total functions: any bytes give a value or an error.
//!
//! A datagram is one or more segments back to back, without padding. All integers are little-endian:
//!
//! | offset | size | field |
//! | ---: | ---: | --- |
//! | 0 | 4 | conv |
//! | 4 | 1 | cmd |
//! | 5 | 1 | frg |
//! | 6 | 2 | wnd |
//! | 8 | 4 | ts |
//! | 12 | 4 | sn |
//! | 16 | 4 | una |
//! | 20 | 4 | len |
//! | 24 | len | payload |

use crate::error::InputError;
use crate::units::{Conv, Millis, Sn};

/// Bytes of a segment's header.
pub const HEADER_LEN: usize = 24;

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    /// 81: data.
    Push = 81,
    /// 82: one sn received.
    Ack = 82,
    /// 83: tell me your window.
    Wask = 83,
    /// 84: this is my window.
    Wins = 84,
}

impl Command {
    /// The command of this code, if it is one of the four.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            81 => Some(Self::Push),
            82 => Some(Self::Ack),
            83 => Some(Self::Wask),
            84 => Some(Self::Wins),
            _ => None,
        }
    }
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Conversation id.
    pub conv: Conv,
    /// What the segment is for.
    pub cmd: Command,
    /// Fragments of the message that follow this one.
    pub frg: u8,
    /// Free slots in the sender's receive queue.
    pub wnd: u16,
    /// PUSH: the sender's clock. ACK: the clock of the acknowledged PUSH, echoed.
    pub ts: Millis,
    /// PUSH: this segment's number. ACK: the number acknowledged.
    pub sn: Sn,
    /// Everything before this was received by the sender.
    pub una: Sn,
    /// Payload bytes that follow.
    pub len: u32,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// [`InputError::UnknownCommand`]. `len` is not checked: only the datagram knows what follows.
    #[inline]
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, InputError> {
        let Some(cmd) = Command::from_code(bytes[4]) else {
            return Err(InputError::UnknownCommand);
        };
        Ok(Self {
            conv: Conv(word::<0>(bytes)),
            cmd,
            frg: bytes[5],
            wnd: u16::from_le_bytes([bytes[6], bytes[7]]),
            ts: Millis(word::<8>(bytes)),
            sn: Sn(word::<12>(bytes)),
            una: Sn(word::<16>(bytes)),
            len: word::<20>(bytes),
        })
    }

    /// Writes the header into `out`.
    #[inline]
    pub fn encode(&self, out: &mut [u8; HEADER_LEN]) {
        let [wnd_lo, wnd_hi] = self.wnd.to_le_bytes();
        out[0..4].copy_from_slice(&self.conv.0.to_le_bytes());
        out[4..8].copy_from_slice(&[self.cmd as u8, self.frg, wnd_lo, wnd_hi]);
        out[8..12].copy_from_slice(&self.ts.0.to_le_bytes());
        out[12..16].copy_from_slice(&self.sn.0.to_le_bytes());
        out[16..20].copy_from_slice(&self.una.0.to_le_bytes());
        out[20..24].copy_from_slice(&self.len.to_le_bytes());
    }
}

/// The segments of a datagram, in order.
///
/// Conversation ids are reported, not compared: a caller that knows its own looks at [`Header::conv`].
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    rest: &'a [u8],
}

impl<'a> Segments<'a> {
    /// Walks `datagram`. Fewer than 24 trailing bytes are ignored, as the reference does; an error ends the walk.
    #[must_use]
    pub const fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }

    /// The conversation id of the segment that [`Iterator::next`] will decode, if there is one.
    ///
    /// The reference compares it before it looks at anything else, so that a stranger's segment counts as
    /// [`InputError::WrongConv`] even when its length or command is bad too.
    #[inline]
    #[must_use]
    pub fn next_conv(&self) -> Option<Conv> {
        let (header, _) = self.rest.split_first_chunk::<HEADER_LEN>()?;
        Some(Conv(word::<0>(header)))
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Result<(Header, &'a [u8]), InputError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (bytes, rest) = self.rest.split_first_chunk::<HEADER_LEN>()?;
        // A length of 2^31 and more is bad even where a datagram could hold it; a bad length wins over a bad command.
        let announced = word::<20>(bytes);
        let payload =
            usize::try_from(announced.cast_signed()).ok().and_then(|n| rest.split_at_checked(n));
        let Some((payload, rest)) = payload else {
            self.rest = &[];
            return Some(Err(InputError::BadLength));
        };
        match Header::decode(bytes) {
            Ok(header) => {
                self.rest = rest;
                Some(Ok((header, payload)))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// The conversation id of a datagram, when it is long enough to have one. Reference: `ikcp_getconv`.
#[must_use]
pub fn conv(datagram: &[u8]) -> Option<Conv> {
    let word = datagram.first_chunk::<4>()?;
    Some(Conv(u32::from_le_bytes(*word)))
}

/// The first segment's header when this datagram may open a conversation: a whole PUSH, the first number of it inside
/// the first receive window of `rcv_wnd` segments, from a sender that has received nothing yet (`una` 0).
///
/// What follows the first segment is not looked at: the fresh conversation's own
/// [`Kcp::check_datagram`](crate::Kcp::check_datagram) does that.
#[must_use]
pub fn opening(datagram: &[u8], rcv_wnd: u32) -> Option<Header> {
    let (header, _) = Segments::new(datagram).next()?.ok()?;
    let first = header.cmd == Command::Push
        && header.sn.0 < rcv_wnd
        && header.una == Sn(0)
        && u32::from(header.frg) < rcv_wnd;
    first.then_some(header)
}

/// The little-endian word at the constant offset `AT`: no bounds check is left at run time.
#[inline]
fn word<const AT: usize>(bytes: &[u8; HEADER_LEN]) -> u32 {
    const { assert!(AT + 4 <= HEADER_LEN) };
    u32::from_le_bytes([bytes[AT], bytes[AT + 1], bytes[AT + 2], bytes[AT + 3]])
}
