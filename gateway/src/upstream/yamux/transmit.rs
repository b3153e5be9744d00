//! What streams owe their backend, in order and within the write buffer's bound.

use super::super::pool::Pool;
use super::LinkError;
use super::frame::{Flags, HEADER, Header, Kind};
use super::mux::Mux;
use super::streams::{Marks, Phase};

/// Answers that belong to no stream of ours and wait for room: pongs, and refusals of streams that the backend opens.
#[derive(Debug, Default)]
pub(super) struct Owed {
    frames: [Option<Header>; OWED_MAX],
    len: usize,
}

impl Owed {
    const fn is_full(&self) -> bool {
        self.len == OWED_MAX
    }

    /// Adds an answer; `false` when as many as allowed are owed already.
    fn push(&mut self, header: Header) -> bool {
        let Some(place) = self.frames.get_mut(self.len) else { return false };
        *place = Some(header);
        self.len += 1;
        true
    }
}

impl<S: Copy> Mux<S> {
    /// Owes the backend an answer that belongs to no stream of ours.
    pub(super) fn answer(&mut self, header: Header) -> Result<(), LinkError> {
        if self.owed.is_full() {
            self.settle_owed();
        }
        if self.owed.push(header) { Ok(()) } else { Err(LinkError::ControlFlood) }
    }

    /// Writes answers that belong to no stream, as far as there is room.
    fn settle_owed(&mut self) {
        if self.owed.len == 0 {
            return;
        }
        let fit = self.owed.len.min(self.outbox.room() / HEADER);
        for place in 0..fit {
            if let Some(header) = self.owed.frames[place].take() {
                self.outbox.header(&header);
                self.counters.frames_out += 1;
            }
        }
        self.owed.frames.rotate_left(fit);
        self.owed.len -= fit;
    }

    /// Writes what streams owe, oldest first, as far as there is room. The rest waits for [`Mux::on_written`].
    pub(super) fn transmit(&mut self, pool: &mut Pool) {
        self.settle_owed();
        while let Some(slot) = self.streams.first_ready() {
            match self.serve(pool, slot) {
                Served::NoRoom => return,
                Served::Done => self.streams.pop_ready(),
                Served::More => {
                    self.streams.pop_ready();
                    self.streams.mark_ready(slot);
                }
            }
        }
    }

    /// Writes what one stream owes: its reset, or window, then data up to a bound, then its FIN.
    fn serve(&mut self, pool: &mut Pool, slot: u32) -> Served {
        let stream = self.streams.get(slot);
        let id = stream.id;
        if stream.phase == Phase::Aborting {
            if self.outbox.room() < HEADER {
                return Served::NoRoom;
            }
            self.send(Kind::WindowUpdate, Flags::RST, id, 0);
            self.free(pool, slot);
            return Served::Done;
        }
        if stream.marks.has(Marks::GRANT) {
            if self.outbox.room() < HEADER {
                return Served::NoRoom;
            }
            self.grant(slot);
        }
        match self.serve_data(pool, slot) {
            Served::Done => {}
            unfinished @ (Served::NoRoom | Served::More) => return unfinished,
        }
        let stream = self.streams.get(slot);
        if !stream.outbound.is_empty() {
            return Served::Done; // its window is closed; an update brings it back here
        }
        if stream.phase == Phase::Closing {
            if self.outbox.room() < HEADER {
                return Served::NoRoom;
            }
            self.send(Kind::WindowUpdate, Flags::FIN, id, 0);
            if self.streams.get(slot).marks.has(Marks::REMOTE_FIN) {
                self.free(pool, slot);
            } else {
                self.streams.get_mut(slot).phase = Phase::Closed;
            }
        } else if stream.marks.has(Marks::WANTS_ROOM) && stream.send_window > 0 {
            self.streams.mark_room(slot);
        }
        Served::Done
    }

    /// Gives the backend the window that the session has made.
    fn grant(&mut self, slot: u32) {
        let window = self.owed_window(slot);
        let stream = self.streams.get_mut(slot);
        stream.marks.clear(Marks::GRANT);
        if stream.phase == Phase::Open && window > 0 {
            stream.recv_window += window;
            let id = stream.id;
            self.send(Kind::WindowUpdate, Flags::NONE, id, window);
        }
    }

    /// Writes one frame of what a stream kept because its window was closed.
    fn serve_data(&mut self, pool: &mut Pool, slot: u32) -> Served {
        let stream = self.streams.get_mut(slot);
        let wanted = stream.outbound.len().min(stream.send_window as usize).min(PIECE_MAX);
        if wanted == 0 {
            return Served::Done;
        }
        let sendable = wanted.min(self.outbox.data_room().saturating_sub(HEADER));
        if sendable == 0 {
            return Served::NoRoom;
        }
        let Ok(length) = u32::try_from(sendable) else { return Served::Done };
        self.outbox.header(&Header {
            kind: Kind::Data,
            flags: Flags::NONE,
            stream: stream.id,
            length,
        });
        stream.outbound.peek(pool, self.outbox.payload_mut(sendable));
        stream.outbound.consume(pool, sendable);
        stream.send_window -= length;
        self.counters.frames_out += 1;
        if stream.outbound.is_empty() {
            self.outbox.message_ends();
            Served::Done
        } else if stream.send_window == 0 {
            Served::Done
        } else {
            Served::More
        }
    }
}

/// How far serving a stream came.
enum Served {
    /// Nothing is left that could be written now.
    Done,
    /// More of it can be written, after the others.
    More,
    /// The write buffer is full.
    NoRoom,
}

/// The most that one stream writes before the next one's turn, in bytes of payload.
const PIECE_MAX: usize = 16 * 1024;

/// Answers owed at once. A backend that asks faster than it reads is cut off: it would fill the buffer with its own pings.
const OWED_MAX: usize = 16;
