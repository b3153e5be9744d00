//! What a driver keeps of one stream: 32 bytes, and no more whatever it does, but for the chunks of what it has queued.

use super::queue::ByteQueue;

#[derive(Debug)]
pub(super) struct Slot<S> {
    pub(super) generation: u32,
    pub(super) socket: Option<S>,
    pub(super) out: ByteQueue,
    pub(super) reading: Reading,
    /// The last read left something.
    pub(super) has_more: bool,
    pub(super) writing: Writing,
    /// The caller has finished.
    pub(super) closing: bool,
    pub(super) sending: Sending,
    /// A write was cut short.
    pub(super) wants_room: bool,
    /// In `starving`.
    pub(super) starving: bool,
}

impl<S> Slot<S> {
    /// A slot that no stream has had yet.
    pub(super) const fn new() -> Self {
        Self {
            generation: 0,
            socket: None,
            out: ByteQueue::EMPTY,
            reading: Reading::Idle,
            has_more: false,
            writing: Writing::Over,
            closing: false,
            sending: Sending::Idle,
            wants_room: false,
            starving: false,
        }
    }

    /// Makes it a new stream's, whose connection is being made.
    pub(super) fn begin(&mut self, socket: S) {
        *self = Self {
            generation: self.generation,
            socket: Some(socket),
            writing: Writing::Connecting,
            ..Self::new()
        };
    }
}

/// How far a stream's read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Nobody has asked for one.
    Idle,
    /// Asked for, and not yet armed.
    Asked,
    /// The kernel has it.
    Armed,
    /// It brought bytes that the caller has not seen yet.
    Arrived,
    /// There are no more bytes to come.
    Ended,
}

/// Where a stream's queued bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// There are none, or they cannot be sent now.
    Idle,
    /// In `dirty`.
    Dirty,
    /// In `offered`: all of them have been sent if nothing else is reported until the round ends.
    Offered,
}

/// What a stream's sending direction is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// The connection is being made.
    Connecting,
    /// It sends what it has.
    Open,
    /// It waits for the kernel to have room.
    Blocked,
    /// The FIN has been sent.
    Finished,
    /// The peer takes nothing more, and a read that is under way will tell the end after what the peer said last.
    Broken,
    /// The stream is over; the caller may not know yet.
    Over,
}

const _: () = assert!(size_of::<Slot<super::StreamSocket>>() == 32);
