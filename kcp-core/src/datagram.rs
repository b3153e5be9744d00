//! The datagram being written: segments back to back, as many as fit.

use crate::units::{Conv, Millis, Sn};
use crate::wire::{Command, HEADER_LEN};

/// The room of a datagram, and what all segments of a flush say alike.
#[derive(Debug)]
pub(crate) struct Datagram<'a> {
    /// The room that is left.
    rest: &'a mut [u8],
    frame: Frame,
}

/// What all segments of a flush say alike, where a header has it: little-endian words of 8 bytes.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// `conv` and `wnd`.
    head: u64,
    una: u32,
}

/// Room claimed for one segment.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    header: &'a mut [u8; HEADER_LEN],
    body: &'a mut [u8],
    frame: Frame,
}

/// The datagram has no room for the next segment, which takes this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full(pub(crate) usize);

impl<'a> Datagram<'a> {
    #[inline]
    pub(crate) fn new(room: &'a mut [u8], conv: Conv, wnd: u16, una: Sn) -> Self {
        let head = u64::from(conv.0) | u64::from(wnd) << 48;
        Self { rest: room, frame: Frame { head, una: una.0 } }
    }

    /// Bytes of room left.
    #[inline]
    pub(crate) const fn left(&self) -> usize {
        self.rest.len()
    }

    /// Appends ACKs, as many as fit; how many that are. Most often it is one, which takes no loop.
    #[inline]
    pub(crate) fn acks(&mut self, acks: &[(Sn, Millis)]) -> usize {
        match acks {
            [] => 0,
            &[(sn, ts)] => usize::from(self.control(Command::Ack, sn, ts).is_ok()),
            acks => {
                let written = write_acks(self.rest, self.frame, acks);
                let rest = core::mem::take(&mut self.rest);
                self.rest = rest.get_mut(written * HEADER_LEN..).unwrap_or_default();
                written
            }
        }
    }

    /// Appends a segment without payload.
    #[inline]
    pub(crate) fn control(&mut self, cmd: Command, sn: Sn, ts: Millis) -> Result<(), Full> {
        let room = self.claim(0)?;
        room.frame.encode(room.header, cmd, 0, sn, ts, 0);
        Ok(())
    }

    /// Takes room for a segment with a payload of `len` bytes off the front.
    #[inline]
    pub(crate) fn claim(&mut self, len: usize) -> Result<Room<'a>, Full> {
        let needed = Full(HEADER_LEN + len);
        if self.rest.len() < needed.0 {
            return Err(needed);
        }
        let (segment, rest) = core::mem::take(&mut self.rest).split_at_mut(needed.0);
        self.rest = rest;
        let (header, body) = segment.split_first_chunk_mut().ok_or(needed)?;
        Ok(Room { header, body, frame: self.frame })
    }
}

impl Room<'_> {
    /// Writes a PUSH whose payload is as long as what was claimed.
    #[inline]
    pub(crate) fn push(self, frg: u8, sn: Sn, ts: Millis, payload: &[u8]) {
        self.frame.encode(self.header, Command::Push, frg, sn, ts, payload.len());
        self.body.copy_from_slice(payload);
    }
}

impl Frame {
    #[inline]
    fn encode(
        self,
        header: &mut [u8; HEADER_LEN],
        cmd: Command,
        frg: u8,
        sn: Sn,
        ts: Millis,
        len: usize,
    ) {
        let head = self.head | u64::from(cmd as u8) << 32 | u64::from(frg) << 40;
        let numbers = u64::from(ts.0) | u64::from(sn.0) << 32;
        let tail = u64::from(self.una) | (len as u64) << 32;
        header[0..8].copy_from_slice(&head.to_le_bytes());
        header[8..16].copy_from_slice(&numbers.to_le_bytes());
        header[16..24].copy_from_slice(&tail.to_le_bytes());
    }
}

#[inline(never)] // beside the straight line
fn write_acks(room: &mut [u8], frame: Frame, acks: &[(Sn, Millis)]) -> usize {
    let mut rest = room;
    for (index, &(sn, ts)) in acks.iter().enumerate() {
        let Some((header, behind)) = rest.split_first_chunk_mut() else { return index };
        frame.encode(header, Command::Ack, 0, sn, ts, 0);
        rest = behind;
    }
    acks.len()
}
