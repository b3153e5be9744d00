//! The 24-byte segment header: decode, encode, walk a datagram. Total functions: any bytes give a value or an error.

use crate::error::InputError;
use crate::units::{Conv, Millis, Sn};

/// Bytes of a segment's header.
pub const HEADER_LEN: usize = 24;

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// 81: data.
    Push,
    /// 82: one sn received.
    Ack,
    /// 83: tell me your window.
    Wask,
    /// 84: this is my window.
    Wins,
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

/// The segments of a datagram, in order.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    _rest: &'a [u8],
}

impl<'a> Segments<'a> {
    /// Walks `datagram`. Fewer than 24 trailing bytes are ignored, as the reference does; an error ends the walk.
    #[must_use]
    pub fn new(datagram: &'a [u8]) -> Self {
        Self { _rest: datagram }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Result<(Header, &'a [u8]), InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}

/// The conversation id of a datagram, when it is long enough to have one. Reference: `ikcp_getconv`.
#[must_use]
pub fn conv(datagram: &[u8]) -> Option<Conv> {
    let word = datagram.first_chunk::<4>()?;
    Some(Conv(u32::from_le_bytes(*word)))
}

impl Header {
    /// Writes the header into `out`.
    pub fn encode(&self, out: &mut [u8; HEADER_LEN]) {
        let _ = out;
        todo!()
    }
}
