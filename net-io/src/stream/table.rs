//! The streams of one driver: the life of each, what is to be asked of the kernel for them, and what to tell the caller.
//!
//! Does no I/O. A driver asks it what to do ([`Streams::arms`], [`Streams::watches`], [`Streams::offer`], [`Streams::graves`]),
//! does it, and tells how it went (the `on_` calls).

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;

use super::queue::{ChunkPool, Pieces};
use super::slot::{Reading, Sending, Slot, Writing};
use super::{
    Close, ConnectError, SLOT_BITS, StreamConfig, StreamCounters, StreamEnd, StreamId, WRITE_MAX,
};

/// One end of a connection, of the kernel or simulated. Dropping it closes it.
pub(crate) trait Duplex: Debug {
    /// Says that nothing more will be sent.
    fn finish(&self);

    /// Makes dropping it cut the connection off.
    fn reset_on_drop(&self);

    /// What became of the connection that was started.
    fn connect_result(&self) -> Result<(), ConnectError>;
}

/// What a driver has to tell about a stream. `B` is where it keeps the bytes of a read.
#[derive(Debug)]
pub(crate) struct Happened<B> {
    pub(crate) id: StreamId,
    pub(crate) what: What<B>,
}

#[derive(Debug)]
pub(crate) enum What<B> {
    Connected,
    Failed(ConnectError),
    Read(B),
    Writable,
    Fin,
    /// With the bytes that were queued and that the kernel has not taken.
    Closed(StreamEnd, usize),
}

/// A socket that is no stream any more, to be closed once nothing in the kernel uses it.
#[derive(Debug)]
pub(crate) struct Grave<S> {
    pub(crate) id: StreamId,
    pub(crate) socket: S,
    /// A read of it is armed.
    pub(crate) armed: bool,
    /// Somebody waits for it to be writable.
    pub(crate) watched: bool,
}

#[derive(Debug)]
pub(crate) struct Streams<S, B> {
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
    config: StreamConfig,
    pool: ChunkPool,
    events: VecDeque<Happened<B>>,
    /// Streams that ask for a read.
    pub(crate) arms: Vec<StreamId>,
    /// Streams to be told of when they can be written to.
    pub(crate) watches: Vec<StreamId>,
    /// Sockets to be closed.
    pub(crate) graves: Vec<Grave<S>>,
    /// Streams with something to send, each once; those that are being offered to the kernel apart from those that will be.
    dirty: Vec<StreamId>,
    offered: Vec<StreamId>,
    /// Streams that have nothing queued and want to, but for the pool.
    starving: VecDeque<StreamId>,
    counters: StreamCounters,
}

impl<S: Duplex, B> Streams<S, B> {
    /// # Errors
    /// `InvalidInput` with bounds that cannot be kept.
    pub(crate) fn new(config: &StreamConfig) -> io::Result<Self> {
        let refuse = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if config.streams_max > 1 << SLOT_BITS {
            return refuse(format!("{} streams: at most 2^{SLOT_BITS}", config.streams_max));
        }
        if config.write_max == 0 || config.write_max > WRITE_MAX {
            return refuse(format!(
                "{} bytes queued per stream: 1 to {WRITE_MAX}",
                config.write_max
            ));
        }
        if config.read_buffer_len == 0 {
            return refuse("stream reads of no bytes".to_owned());
        }
        Ok(Self {
            slots: Vec::new(),
            free: Vec::new(),
            config: config.clone(),
            pool: ChunkPool::new(config.write_pool),
            events: VecDeque::new(),
            arms: Vec::new(),
            watches: Vec::new(),
            graves: Vec::new(),
            dirty: Vec::new(),
            offered: Vec::new(),
            starving: VecDeque::new(),
            counters: StreamCounters::default(),
        })
    }

    pub(crate) fn counters(&self) -> StreamCounters {
        let (queued, recycled) = (self.pool.used_bytes() as u64, self.pool.recycled_bytes() as u64);
        StreamCounters { queued_bytes: queued, recycled_bytes: recycled, ..self.counters }
    }

    /// Gives back to the allocator what is kept for bytes to be queued beyond `keep` bytes.
    pub(crate) fn trim(&mut self, keep: usize) {
        self.pool.trim(keep);
    }

    pub(crate) fn counters_mut(&mut self) -> &mut StreamCounters {
        &mut self.counters
    }

    /// Takes in a connection that `open` makes or starts to make; the flag it gives tells which.
    ///
    /// # Errors
    /// What `open` met, or a bound; counted.
    pub(crate) fn connect(
        &mut self,
        open: impl FnOnce(&StreamConfig) -> Result<(S, bool), ConnectError>,
    ) -> Result<StreamId, ConnectError> {
        let room = if self.counters.open >= u64::from(self.config.streams_max) {
            Err(ConnectError::Streams)
        } else if self.counters.connecting >= u64::from(self.config.connecting_max) {
            Err(ConnectError::Connecting)
        } else {
            Ok(())
        };
        match room.and_then(|()| open(&self.config)) {
            Ok((socket, made)) => {
                let id = self.insert(socket);
                self.counters.connecting += 1;
                if made {
                    self.on_connected(id);
                } else {
                    self.watches.push(id);
                }
                Ok(id)
            }
            Err(error) => {
                self.counters.on_failed(error);
                Err(error)
            }
        }
    }

    /// Takes in a connection that `open` hands over.
    ///
    /// # Errors
    /// As [`Streams::connect`].
    pub(crate) fn adopt(
        &mut self,
        open: impl FnOnce() -> Result<S, ConnectError>,
    ) -> Result<StreamId, ConnectError> {
        let room = self.counters.open < u64::from(self.config.streams_max);
        let socket = if room { open() } else { Err(ConnectError::Streams) };
        match socket {
            Ok(socket) => {
                let id = self.insert(socket);
                self.slots[id.slot()].writing = Writing::Open;
                self.counters.connected += 1;
                Ok(id)
            }
            Err(error) => {
                self.counters.on_failed(error);
                Err(error)
            }
        }
    }

    fn insert(&mut self, socket: S) -> StreamId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::new());
            // The bound on streams keeps it within the bits.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let state = &mut self.slots[slot as usize];
        state.begin(socket);
        self.counters.open += 1;
        StreamId { slot, generation: state.generation }
    }

    /// The stream, unless it is over.
    fn live(&mut self, id: StreamId) -> Option<&mut Slot<S>> {
        let slot = self.slots.get_mut(id.slot())?;
        (slot.generation == id.generation && slot.writing != Writing::Over).then_some(slot)
    }

    /// The socket of a stream that is not over.
    pub(crate) fn socket(&self, id: StreamId) -> Option<&S> {
        let slot = self.slots.get(id.slot())?;
        if slot.generation == id.generation { slot.socket.as_ref() } else { None }
    }

    /// The caller asks for a read.
    pub(crate) fn read(&mut self, id: StreamId) {
        let Some(slot) = self.live(id) else { return };
        if slot.reading == Reading::Idle {
            slot.reading = Reading::Asked;
            if slot.writing != Writing::Connecting {
                self.arms.push(id);
            }
        }
    }

    /// The driver arms the read that a stream asked for: on this socket, if it is still wanted. With it comes whether the read
    /// will find something at once.
    pub(crate) fn arm(&mut self, id: StreamId) -> Option<(&S, bool)> {
        let slot = self.live(id)?;
        if slot.reading != Reading::Asked {
            return None;
        }
        slot.reading = Reading::Armed;
        Some((slot.socket.as_ref()?, slot.has_more))
    }

    /// Notes for [`arm`](Streams::arm) whether the last read left something.
    pub(crate) fn set_has_more(&mut self, id: StreamId, has_more: bool) {
        if let Some(slot) = self.live(id) {
            slot.has_more = has_more;
        }
    }

    /// Whether a read is armed.
    pub(crate) fn is_armed(&mut self, id: StreamId) -> bool {
        self.live(id).is_some_and(|slot| slot.reading == Reading::Armed)
    }

    /// The driver is to tell when a stream can be written to: on this socket, if somebody still waits for it.
    pub(crate) fn watch(&mut self, id: StreamId) -> Option<&S> {
        let slot = self.live(id)?;
        let waits = matches!(slot.writing, Writing::Connecting | Writing::Blocked);
        slot.socket.as_ref().filter(|_| waits)
    }

    /// The armed read has brought bytes. Gives them back when nobody wants them.
    pub(crate) fn on_read(&mut self, id: StreamId, bytes: B) -> Option<B> {
        match self.live(id) {
            Some(slot) => slot.reading = Reading::Arrived,
            None => return Some(bytes),
        }
        self.events.push_back(Happened { id, what: What::Read(bytes) });
        None
    }

    /// The armed read has to be armed again; whether it is still wanted.
    pub(crate) fn on_read_retry(&mut self, id: StreamId, armed: bool) -> bool {
        let Some(slot) = self.live(id) else { return false };
        slot.reading = if armed { Reading::Armed } else { Reading::Asked };
        true
    }

    /// The read found the end of what the peer sends.
    pub(crate) fn on_read_end(&mut self, id: StreamId) {
        let Some(slot) = self.live(id) else { return };
        slot.reading = Reading::Ended;
        match slot.writing {
            Writing::Finished => self.end(id, StreamEnd::Finished),
            Writing::Broken => self.end(id, StreamEnd::Reset),
            // The end comes when what is queued has been sent.
            _ if slot.closing => {}
            Writing::Connecting | Writing::Open | Writing::Blocked | Writing::Over => {
                self.events.push_back(Happened { id, what: What::Fin });
            }
        }
    }

    /// The read failed.
    pub(crate) fn on_read_error(&mut self, id: StreamId, errno: i32) {
        let Some(slot) = self.live(id) else { return };
        slot.reading = Reading::Ended;
        self.end(id, end_of(errno));
    }

    /// The caller writes; how much was taken.
    pub(crate) fn write(&mut self, id: StreamId, bytes: &[u8]) -> usize {
        let Some(slot) = self.slots.get_mut(id.slot()) else { return 0 };
        if slot.generation != id.generation || slot.closing {
            return 0;
        }
        match slot.writing {
            Writing::Connecting | Writing::Open | Writing::Blocked => {}
            Writing::Broken if slot.reading == Reading::Idle => {
                self.end(id, StreamEnd::Reset);
                return 0;
            }
            Writing::Broken | Writing::Finished | Writing::Over => return 0,
        }
        let limit = slot.out.limit(&self.pool, self.config.write_max as usize);
        let taken = slot.out.push(&mut self.pool, bytes, limit);
        if taken < bytes.len() {
            self.counters.tx_held += 1;
            slot.wants_room = true;
            // With nothing queued no send will tell that there is room.
            if slot.out.is_empty() && !slot.starving {
                slot.starving = true;
                self.starve(id);
            }
        }
        self.mark_dirty(id);
        taken
    }

    /// Bytes that a stream has queued.
    pub(crate) fn queued(&self, id: StreamId) -> usize {
        let slot = self.slots.get(id.slot()).filter(|slot| slot.generation == id.generation);
        slot.map_or(0, |slot| slot.out.len())
    }

    fn starve(&mut self, id: StreamId) {
        // Streams that came and went while the pool was dry are still listed.
        if self.starving.len() >= 2 * self.slots.len() {
            let slots = &self.slots;
            self.starving.retain(|id| slots[id.slot()].generation == id.generation);
        }
        self.starving.push_back(id);
    }

    fn mark_dirty(&mut self, id: StreamId) {
        let slot = &mut self.slots[id.slot()];
        if slot.writing == Writing::Open && slot.sending == Sending::Idle && !slot.out.is_empty() {
            slot.sending = Sending::Dirty;
            self.dirty.push(id);
        }
    }

    /// Begins a round of sends with everything there is to send.
    pub(crate) fn offer(&mut self) {
        for id in self.dirty.drain(..) {
            let slot = &mut self.slots[id.slot()];
            if slot.generation == id.generation && slot.sending == Sending::Dirty {
                slot.sending = Sending::Offered;
                self.offered.push(id);
            }
        }
    }

    /// What the streams of the round send.
    pub(crate) fn offers(&self) -> impl Iterator<Item = (StreamId, &S, Pieces<'_>)> {
        self.offered.iter().filter_map(|&id| self.send(id))
    }

    /// The stream at `index` of the round.
    pub(crate) fn offered(&self, index: usize) -> Option<StreamId> {
        self.offered.get(index).copied()
    }

    /// What a stream of the round sends.
    pub(crate) fn send(&self, id: StreamId) -> Option<(StreamId, &S, Pieces<'_>)> {
        let slot = &self.slots[id.slot()];
        Some((id, slot.socket.as_ref()?, slot.out.pieces(&self.pool)))
    }

    /// How a stream's send went: how many bytes the kernel took, or the errno.
    pub(crate) fn on_sent(&mut self, id: StreamId, result: Result<usize, i32>) {
        let Some(slot) = self.slots.get_mut(id.slot()) else { return };
        if slot.generation != id.generation || slot.sending != Sending::Offered {
            return;
        }
        slot.sending = Sending::Idle;
        self.counters.tx_sends += 1;
        let taken = match result {
            Ok(taken) => taken,
            Err(libc::EAGAIN | libc::EINTR) => 0,
            Err(errno) => return self.on_write_error(id, errno),
        };
        slot.out.consume(&mut self.pool, taken);
        self.counters.tx_bytes += taken as u64;
        if slot.out.is_empty() {
            if slot.closing {
                self.finish(id);
            }
        } else {
            self.counters.tx_blocked += 1;
            slot.writing = Writing::Blocked;
            self.watches.push(id);
        }
        self.offer_room(id);
    }

    /// Tells a stream whose write was cut short that half of its bytes have gone.
    fn offer_room(&mut self, id: StreamId) {
        let slot = &mut self.slots[id.slot()];
        let limit = slot.out.limit(&self.pool, self.config.write_max as usize);
        if slot.wants_room && slot.out.len() <= limit / 2 {
            slot.wants_room = false;
            self.events.push_back(Happened { id, what: What::Writable });
        }
    }

    /// All sends that were not reported have gone as they were. Ends the round.
    pub(crate) fn settle(&mut self) {
        while let Some(id) = self.offered.pop() {
            let len = self.slots[id.slot()].out.len();
            self.on_sent(id, Ok(len));
        }
        let mut free = self.pool.free_chunks();
        while free > 0
            && let Some(id) = self.starving.pop_front()
        {
            let Some(slot) = self.live(id).filter(|slot| slot.starving) else { continue };
            slot.starving = false;
            if std::mem::take(&mut slot.wants_room) {
                self.events.push_back(Happened { id, what: What::Writable });
                free -= 1;
            }
        }
    }

    fn on_write_error(&mut self, id: StreamId, errno: i32) {
        let end = end_of(errno);
        let slot = &mut self.slots[id.slot()];
        let reads = matches!(slot.reading, Reading::Asked | Reading::Armed | Reading::Arrived);
        if end == StreamEnd::Reset && reads {
            // What the peer said before it left may still be there.
            slot.writing = Writing::Broken;
        } else {
            self.end(id, end);
        }
    }

    /// The socket can be written to, or has failed.
    pub(crate) fn on_writable(&mut self, id: StreamId) {
        let Some(slot) = self.live(id) else { return };
        match slot.writing {
            Writing::Connecting => {
                match slot.socket.as_ref().map_or(Ok(()), Duplex::connect_result) {
                    Ok(()) => self.on_connected(id),
                    Err(error) => {
                        self.counters.on_failed(error);
                        self.retire(id, What::Failed(error));
                    }
                }
            }
            Writing::Blocked => {
                slot.writing = Writing::Open;
                self.mark_dirty(id);
            }
            Writing::Open | Writing::Finished | Writing::Broken | Writing::Over => {}
        }
    }

    fn on_connected(&mut self, id: StreamId) {
        self.counters.connecting -= 1;
        self.counters.connected += 1;
        let slot = &mut self.slots[id.slot()];
        slot.writing = Writing::Open;
        self.events.push_back(Happened { id, what: What::Connected });
        if slot.reading == Reading::Asked {
            self.arms.push(id);
        }
        if slot.closing && slot.out.is_empty() {
            self.finish(id);
        } else {
            self.mark_dirty(id);
        }
    }

    /// The caller ends a stream.
    pub(crate) fn close(&mut self, id: StreamId, how: Close) {
        if how == Close::Abort {
            return self.abort(id);
        }
        let Some(slot) = self.live(id) else { return };
        slot.closing = true;
        slot.wants_room = false;
        match slot.writing {
            Writing::Broken if slot.reading == Reading::Idle => self.end(id, StreamEnd::Reset),
            Writing::Open if slot.out.is_empty() => self.finish(id),
            Writing::Connecting
            | Writing::Open
            | Writing::Blocked
            | Writing::Finished
            | Writing::Broken
            | Writing::Over => {}
        }
    }

    /// Everything is sent: the FIN, and the end if the peer has finished too.
    fn finish(&mut self, id: StreamId) {
        let slot = &mut self.slots[id.slot()];
        if slot.reading == Reading::Ended {
            return self.end(id, StreamEnd::Finished);
        }
        slot.writing = Writing::Finished;
        if let Some(socket) = &slot.socket {
            socket.finish();
        }
    }

    fn abort(&mut self, id: StreamId) {
        if let Some(slot) = self.live(id) {
            if let Some(socket) = &slot.socket {
                socket.reset_on_drop();
            }
            self.counters.aborted += 1;
            self.bury(id);
        }
        // Also where an end waits to be told: nobody wants to hear of it.
        if self.slots.get(id.slot()).is_some_and(|slot| slot.generation == id.generation) {
            self.release(id);
        }
    }

    fn end(&mut self, id: StreamId, end: StreamEnd) {
        match end {
            StreamEnd::Finished => self.counters.ended_finished += 1,
            StreamEnd::Reset => self.counters.ended_reset += 1,
            StreamEnd::Lost(_) => self.counters.ended_lost += 1,
        }
        let unsent = self.queued(id);
        self.retire(id, What::Closed(end, unsent));
    }

    /// The stream is over. The caller will be told, and then its handle is no longer valid.
    fn retire(&mut self, id: StreamId, what: What<B>) {
        self.bury(id);
        self.events.push_back(Happened { id, what });
    }

    /// Takes the socket and the queued bytes from a stream.
    fn bury(&mut self, id: StreamId) {
        let slot = &mut self.slots[id.slot()];
        slot.out.clear(&mut self.pool);
        if slot.writing == Writing::Connecting {
            self.counters.connecting -= 1;
        }
        let watched = matches!(slot.writing, Writing::Connecting | Writing::Blocked);
        let armed = slot.reading == Reading::Armed;
        slot.writing = Writing::Over;
        slot.sending = Sending::Idle;
        if let Some(socket) = slot.socket.take() {
            self.graves.push(Grave { id, socket, armed, watched });
        }
    }

    /// Makes the handle invalid and the slot free.
    fn release(&mut self, id: StreamId) {
        let slot = &mut self.slots[id.slot()];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        self.counters.open -= 1;
    }

    /// Whether the next round may find room for a write that was cut short, so that nobody else has to end the wait before it.
    pub(crate) fn may_make_room(&self) -> bool {
        let fed = self.pool.free_chunks() > 0 && !self.starving.is_empty();
        fed || self.dirty.iter().any(|id| self.slots[id.slot()].wants_room)
    }

    /// Whether the next round has something to do.
    #[cfg(feature = "sim")]
    pub(crate) fn has_output(&self) -> bool {
        !self.dirty.is_empty() || !self.arms.is_empty()
    }

    /// Whether [`pop_event`](Streams::pop_event) has something.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next thing to tell the caller. Bytes of a stream that the caller has aborted come as an error, to be recycled.
    pub(crate) fn pop_event(&mut self) -> Option<Result<Happened<B>, B>> {
        loop {
            let happened = self.events.pop_front()?;
            let id = happened.id;
            let slot = &mut self.slots[id.slot()];
            if slot.generation != id.generation {
                if let What::Read(bytes) = happened.what {
                    return Some(Err(bytes));
                }
                continue;
            }
            match &happened.what {
                What::Read(_) if slot.reading == Reading::Arrived => slot.reading = Reading::Idle,
                What::Writable | What::Fin if slot.writing == Writing::Over => continue,
                What::Failed(_) | What::Closed(..) => self.release(id),
                What::Connected | What::Read(_) | What::Writable | What::Fin => {}
            }
            return Some(Ok(happened));
        }
    }
}

fn end_of(errno: i32) -> StreamEnd {
    match errno {
        libc::ECONNRESET | libc::EPIPE => StreamEnd::Reset,
        _ => StreamEnd::Lost(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::queue::CHUNK;

    /// A connection of which nobody asks anything.
    #[derive(Debug)]
    struct Stub;

    impl Duplex for Stub {
        fn finish(&self) {}

        fn reset_on_drop(&self) {}

        fn connect_result(&self) -> Result<(), ConnectError> {
            Ok(())
        }
    }

    type Table = Streams<Stub, ()>;

    /// A table whose only chunk the first stream has, while the others, in their order, wait for one.
    fn starving<const N: usize>() -> (Table, StreamId, [StreamId; N]) {
        let config = StreamConfig { write_pool: CHUNK, ..StreamConfig::default() };
        let mut table = Table::new(&config).unwrap();
        let fed = table.adopt(|| Ok(Stub)).unwrap();
        assert_eq!(table.write(fed, &[1; CHUNK]), CHUNK);
        let others = std::array::from_fn(|_| {
            let id = table.adopt(|| Ok(Stub)).unwrap();
            assert_eq!(table.write(id, b"some"), 0);
            id
        });
        (table, fed, others)
    }

    /// One round in which the kernel takes all that is offered.
    fn send_all(table: &mut Table) {
        table.offer();
        table.settle();
    }

    fn told_to_write(table: &mut Table) -> Vec<StreamId> {
        let writable = |happened: Result<Happened<()>, ()>| {
            happened.ok().filter(|it| matches!(it.what, What::Writable)).map(|it| it.id)
        };
        std::iter::from_fn(|| table.pop_event()).filter_map(writable).collect()
    }

    #[test]
    fn a_free_chunk_goes_to_one_that_still_waits_for_it() {
        let (mut table, _, [gone, reused, finished, waits, next]) = starving();
        table.close(gone, Close::Abort);
        table.close(reused, Close::Abort);
        // Another stream in the place of one that starved has not starved.
        assert_eq!(table.adopt(|| Ok(Stub)).unwrap().slot(), reused.slot());
        table.close(finished, Close::Finish);
        send_all(&mut table);
        assert_eq!(told_to_write(&mut table), [waits], "one chunk, one stream");
        assert_eq!(table.write(waits, b"some"), 4);
        send_all(&mut table);
        assert_eq!(told_to_write(&mut table), [next]);
        assert!(table.starving.is_empty());
    }

    #[test]
    fn nobody_is_told_while_there_is_no_chunk() {
        let (mut table, fed, [waits]) = starving();
        table.offer();
        table.on_sent(fed, Err(libc::EAGAIN));
        table.settle();
        assert_eq!(told_to_write(&mut table), []);
        table.on_writable(fed);
        send_all(&mut table);
        assert_eq!(told_to_write(&mut table), [waits]);
    }
}
