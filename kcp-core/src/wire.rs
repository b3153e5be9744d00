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
        let view = View(bytes);
        Ok(Self {
            conv: view.conv(),
            cmd: view.cmd().ok_or(InputError::UnknownCommand)?,
            frg: view.frg(),
            wnd: view.wnd(),
            ts: view.ts(),
            sn: view.sn(),
            una: view.una(),
            len: view.len(),
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

/// A header as it lies in the datagram: a field is read when it is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a>(&'a [u8; HEADER_LEN]);

impl<'a> View<'a> {
    /// The header at the front of `bytes`, and what follows it.
    #[inline]
    pub(crate) const fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        match bytes.split_first_chunk() {
            Some((header, rest)) => Some((Self(header), rest)),
            None => None,
        }
    }

    /// The payload at the front of `rest`, and what follows it. `None` when it is not all there; a length of 2^31 and more
    /// never is, no datagram being that long.
    #[inline]
    pub(crate) fn payload(self, rest: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        rest.split_at_checked(self.len() as usize)
    }

    #[inline]
    pub(crate) fn conv(self) -> Conv {
        Conv(self.word::<0>())
    }

    #[inline]
    pub(crate) const fn cmd(self) -> Option<Command> {
        Command::from_code(self.0[4])
    }

    /// Whether this is a `cmd` of the conversation `conv`, and the end of its message.
    #[inline]
    pub(crate) fn is_simple(self, conv: Conv, cmd: Command) -> bool {
        self.conv() == conv && u16::from_le_bytes([self.0[4], self.0[5]]) == cmd as u16
    }

    /// Whether this is a `cmd`.
    #[inline]
    pub(crate) const fn is(self, cmd: Command) -> bool {
        self.0[4] == cmd as u8
    }

    #[inline]
    pub(crate) const fn frg(self) -> u8 {
        self.0[5]
    }

    #[inline]
    pub(crate) const fn wnd(self) -> u16 {
        u16::from_le_bytes([self.0[6], self.0[7]])
    }

    #[inline]
    pub(crate) fn ts(self) -> Millis {
        Millis(self.word::<8>())
    }

    #[inline]
    pub(crate) fn sn(self) -> Sn {
        Sn(self.word::<12>())
    }

    #[inline]
    pub(crate) fn una(self) -> Sn {
        Sn(self.word::<16>())
    }

    #[inline]
    pub(crate) fn len(self) -> u32 {
        self.word::<20>()
    }

    /// The little-endian word at the constant offset `AT`: no bounds check is left at run time.
    #[inline]
    fn word<const AT: usize>(self) -> u32 {
        const { assert!(AT + 4 <= HEADER_LEN) };
        u32::from_le_bytes([self.0[AT], self.0[AT + 1], self.0[AT + 2], self.0[AT + 3]])
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
}

impl<'a> Iterator for Segments<'a> {
    type Item = Result<(Header, &'a [u8]), InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (view, rest) = View::split(self.rest)?;
        self.rest = &[];
        // A bad length wins over a bad command.
        let Some((payload, rest)) = view.payload(rest) else {
            return Some(Err(InputError::BadLength));
        };
        let header = Header::decode(view.0);
        if header.is_ok() {
            self.rest = rest;
        }
        Some(header.map(|header| (header, payload)))
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
