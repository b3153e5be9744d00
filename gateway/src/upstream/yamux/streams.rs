//! The streams of one connection: found by id, and standing in the lists of those with something to do.

use hashbrown::HashTable;
use kcp_core::Millis;

use super::super::framing::Decoder;
use super::super::pool::Queue;

/// One stream. 60 bytes with a session of eight, whatever it does; what it must keep is in the pool.
#[derive(Debug)]
pub(super) struct Stream<S> {
    /// Its id on the wire; 0 in a slot that nobody has.
    pub(super) id: u32,
    /// Bytes that the backend takes more.
    pub(super) send_window: u32,
    /// Bytes that the backend may send more.
    pub(super) recv_window: u32,
    /// Whose it is.
    pub(super) session: S,
    /// From the backend: what its session has no room for, or no end of.
    pub(super) inbound: Decoder,
    /// To the backend: the rest of a message that its window had no room for.
    pub(super) outbound: Queue,
    pub(super) phase: Phase,
    pub(super) marks: Marks,
    timed: Option<Timer>,
    deadline: Millis,
    timer_prev: u32,
    timer_next: u32,
    ready_next: u32,
    room_next: u32,
}

impl<S> Stream<S> {
    /// It has a session.
    pub(super) const fn is_attached(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Finished)
    }

    /// Bytes that it keeps, either way.
    pub(super) const fn backlog(&self) -> usize {
        self.inbound.kept() + self.outbound.len()
    }
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Messages both ways.
    Open,
    /// The backend sends nothing more; its session has not taken all of it yet.
    Finished,
    /// Its session is gone: the rest of its messages goes out, then a FIN. What comes is dropped.
    Closing,
    /// The FIN is out, the backend's has not come. What comes is dropped.
    Closed,
    /// Its session is gone, and an RST is to go out.
    Aborting,
}

/// What else is true of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks(u8);

impl Marks {
    /// The backend has accepted it.
    pub(super) const ACKED: Self = Self(1);
    /// The backend's FIN has come.
    pub(super) const REMOTE_FIN: Self = Self(2);
    /// The backend is to be given window.
    pub(super) const GRANT: Self = Self(4);
    /// A message was refused: its session wants to hear of room.
    pub(super) const WANTS_ROOM: Self = Self(8);
    /// Half of the time is over that the rest of its message may take.
    pub(super) const STANDS_STILL: Self = Self(64);
    const IN_READY: Self = Self(16);
    const IN_ROOM: Self = Self(32);

    pub(super) const fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }

    pub(super) const fn set(&mut self, mark: Self) {
        self.0 |= mark.0;
    }

    pub(super) const fn clear(&mut self, mark: Self) {
        self.0 &= !mark.0;
    }
}

/// A stream of one connection: its slot, and the id of that slot's occupant. A key kept past its stream's end finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamKey {
    slot: u32,
    id: u32,
}

impl StreamKey {
    /// The slot: a small number that no other stream of its connection has at the same time.
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.slot
    }

    pub(super) const fn id(self) -> u32 {
        self.id
    }
}

/// What a stream waits for. Each kind has one length, so a list in order of arming is in order of deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The rest of a message.
    Stall,
    /// The backend's FIN.
    Linger,
}

/// All streams of a connection.
///
/// Memory: the index for `streams_max` streams from the start, about 5 bytes each; slots in chunks of 1,024 as they are first
/// needed, recycled from then on.
#[derive(Debug)]
pub(super) struct Streams<S> {
    /// Chunks, so that growth never copies a stream.
    chunks: Vec<Vec<Stream<S>>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    ready: Fifo,
    room: Fifo,
    timers: [Ring; 2],
}

impl<S: Copy> Streams<S> {
    pub(super) fn new(streams_max: u32) -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            index: HashTable::with_capacity(streams_max as usize),
            ready: Fifo::EMPTY,
            room: Fifo::EMPTY,
            timers: [Ring::EMPTY; 2],
        }
    }

    /// Live streams, those without a session included.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Slots ever used: an upper bound for [`Streams::at`].
    pub(super) fn slots(&self) -> u32 {
        let last = self.chunks.last().map_or(0, Vec::len);
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        u32::try_from(full + last).unwrap_or(u32::MAX)
    }

    /// Puts a new stream in. `id` is not 0 and not in use.
    pub(super) fn insert(&mut self, id: u32, session: S, window: u32) -> StreamKey {
        let stream = Stream {
            id,
            send_window: INITIAL_WINDOW,
            recv_window: window,
            session,
            inbound: Decoder::new(),
            outbound: Queue::new(),
            phase: Phase::Open,
            marks: Marks::default(),
            timed: None,
            deadline: Millis(0),
            timer_prev: NONE,
            timer_next: NONE,
            ready_next: NONE,
            room_next: NONE,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                *self.get_mut(slot) = stream;
                slot
            }
            None => self.push_slot(stream),
        };
        let chunks = &self.chunks;
        self.index.insert_unique(hash(id), slot, |&slot| hash(chunk_of(chunks, slot).id));
        StreamKey { slot, id }
    }

    /// The slot of the stream `id`.
    pub(super) fn find(&self, id: u32) -> Option<u32> {
        self.index.find(hash(id), |&slot| self.get(slot).id == id).copied()
    }

    /// The slot of `key`, if its stream still lives.
    pub(super) fn slot(&self, key: StreamKey) -> Option<u32> {
        self.at(key.slot).filter(|stream| stream.id == key.id).map(|_| key.slot)
    }

    /// The live stream in a slot, if there is one.
    pub(super) fn at(&self, slot: u32) -> Option<&Stream<S>> {
        let chunk = self.chunks.get(slot as usize / CHUNK)?;
        chunk.get(slot as usize % CHUNK).filter(|stream| stream.id != 0)
    }

    pub(super) fn key(&self, slot: u32) -> StreamKey {
        StreamKey { slot, id: self.get(slot).id }
    }

    pub(super) fn get(&self, slot: u32) -> &Stream<S> {
        chunk_of(&self.chunks, slot)
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Stream<S> {
        &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    /// Takes a stream out. The caller has emptied its queues. Its slot is free at once, or, while it stands in a list that
    /// can only be left from the front, when it gets there.
    pub(super) fn remove(&mut self, slot: u32) {
        self.disarm(slot);
        let id = self.get(slot).id;
        if let Ok(entry) = self.index.find_entry(hash(id), |&other| other == slot) {
            entry.remove();
        }
        let stream = self.get_mut(slot);
        debug_assert!(stream.inbound.kept() == 0 && stream.outbound.is_empty());
        stream.id = 0;
        self.free_if_unlisted(slot);
    }

    /// Puts a stream at the end of those with something to write, unless it stands there.
    pub(super) fn mark_ready(&mut self, slot: u32) {
        if !self.get(slot).marks.has(Marks::IN_READY) {
            self.get_mut(slot).marks.set(Marks::IN_READY);
            match self.ready.push(slot) {
                NONE => {}
                last => self.get_mut(last).ready_next = slot,
            }
        }
    }

    /// The first of those with something to write.
    pub(super) fn first_ready(&mut self) -> Option<u32> {
        while self.ready.head != NONE && self.get(self.ready.head).id == 0 {
            self.pop_ready();
        }
        (self.ready.head != NONE).then_some(self.ready.head)
    }

    /// Takes the first of those with something to write out of the list.
    pub(super) fn pop_ready(&mut self) {
        let slot = self.ready.head;
        if slot != NONE {
            let stream = self.get_mut(slot);
            stream.marks.clear(Marks::IN_READY);
            let next = std::mem::replace(&mut stream.ready_next, NONE);
            self.ready.pop(next);
            self.free_if_unlisted(slot);
        }
    }

    /// Puts a stream at the end of those that have room again, unless it stands there.
    pub(super) fn mark_room(&mut self, slot: u32) {
        if !self.get(slot).marks.has(Marks::IN_ROOM) {
            self.get_mut(slot).marks.set(Marks::IN_ROOM);
            match self.room.push(slot) {
                NONE => {}
                last => self.get_mut(last).room_next = slot,
            }
        }
    }

    /// Takes out the first of those that have room again.
    pub(super) fn pop_room(&mut self) -> Option<u32> {
        loop {
            let slot = self.room.head;
            if slot == NONE {
                return None;
            }
            let stream = self.get_mut(slot);
            stream.marks.clear(Marks::IN_ROOM);
            let next = std::mem::replace(&mut stream.room_next, NONE);
            let live = stream.id != 0;
            self.room.pop(next);
            if live {
                return Some(slot);
            }
            self.free_if_unlisted(slot);
        }
    }

    /// Arms the timer of a stream, instead of the one it had.
    pub(super) fn arm(&mut self, slot: u32, timer: Timer, deadline: Millis) {
        self.disarm(slot);
        let tail = self.timers[timer as usize].tail;
        let stream = self.get_mut(slot);
        stream.timed = Some(timer);
        stream.deadline = deadline;
        stream.timer_prev = tail;
        match tail {
            NONE => self.timers[timer as usize].head = slot,
            tail => self.get_mut(tail).timer_next = slot,
        }
        self.timers[timer as usize].tail = slot;
    }

    /// Disarms the timer of a stream, if armed.
    pub(super) fn disarm(&mut self, slot: u32) {
        let stream = self.get_mut(slot);
        let Some(timer) = stream.timed.take() else { return };
        let prev = std::mem::replace(&mut stream.timer_prev, NONE);
        let next = std::mem::replace(&mut stream.timer_next, NONE);
        match prev {
            NONE => self.timers[timer as usize].head = next,
            prev => self.get_mut(prev).timer_next = next,
        }
        match next {
            NONE => self.timers[timer as usize].tail = prev,
            next => self.get_mut(next).timer_prev = prev,
        }
    }

    /// What a stream waits for.
    pub(super) fn timed(&self, slot: u32) -> Option<Timer> {
        self.get(slot).timed
    }

    /// The stream whose timer of this kind is due first, and when.
    pub(super) fn first_timed(&self, timer: Timer) -> Option<(u32, Millis)> {
        let slot = self.timers[timer as usize].head;
        (slot != NONE).then(|| (slot, self.get(slot).deadline))
    }

    fn push_slot(&mut self, stream: Stream<S>) -> u32 {
        let slot = self.slots();
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(stream),
            Some(_) | None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(stream);
                self.chunks.push(chunk);
            }
        }
        slot
    }

    fn free_if_unlisted(&mut self, slot: u32) {
        let stream = self.get(slot);
        let listed = stream.marks.has(Marks::IN_READY) || stream.marks.has(Marks::IN_ROOM);
        if stream.id == 0 && !listed {
            self.free.push(slot);
        }
    }
}

fn chunk_of<S>(chunks: &[Vec<Stream<S>>], slot: u32) -> &Stream<S> {
    &chunks[slot as usize / CHUNK][slot as usize % CHUNK]
}

/// Ids are ours and go up by two, so no peer can aim at a bucket; the multiplication spreads them over the high bits that
/// the table tells its entries apart by.
fn hash(id: u32) -> u64 {
    u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32)
}

/// A list through the slots that is entered at the tail and left from the head.
#[derive(Clone, Copy, Debug)]
struct Fifo {
    head: u32,
    tail: u32,
}

impl Fifo {
    const EMPTY: Self = Self { head: NONE, tail: NONE };

    /// Enters `slot`; the slot before it, whose link is to name it.
    const fn push(&mut self, slot: u32) -> u32 {
        let last = self.tail;
        self.tail = slot;
        if last == NONE {
            self.head = slot;
        }
        last
    }

    /// Leaves from the head, whose link named `next`.
    const fn pop(&mut self, next: u32) {
        self.head = next;
        if next == NONE {
            self.tail = NONE;
        }
    }
}

/// A list through the slots that can be left anywhere.
#[derive(Clone, Copy, Debug)]
struct Ring {
    head: u32,
    tail: u32,
}

impl Ring {
    const EMPTY: Self = Self { head: NONE, tail: NONE };
}

/// The window that both ends of a new stream assume, in bytes.
pub(super) const INITIAL_WINDOW: u32 = 256 * 1024;

/// No slot.
const NONE: u32 = u32::MAX;

/// Slots per chunk.
const CHUNK: usize = 1024;

const _: () = assert!(size_of::<Stream<[u32; 2]>>() <= 64);

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use super::super::super::dice::Dice;
    use super::*;

    /// Streams come and go while they stand in lists: each list keeps its order, and slots are reused but never twice.
    #[test]
    fn lists_survive_streams_that_leave_in_their_middle() {
        for seed in 0..30 {
            let mut dice = Dice::new(seed);
            let mut streams = Streams::new(64);
            let mut keys: BTreeMap<u32, StreamKey> = BTreeMap::new();
            let (mut ready, mut room) = (VecDeque::new(), VecDeque::new());
            let mut timed = [VecDeque::new(), VecDeque::new()];
            let mut next_id = 1;
            for step in 0..3000 {
                let pick =
                    (!keys.is_empty()).then(|| *keys.values().nth(dice.below(keys.len())).unwrap());
                match (dice.below(10), pick) {
                    (0 | 1, _) if keys.len() < 64 => {
                        keys.insert(next_id, streams.insert(next_id, step, 9));
                        next_id += 2;
                    }
                    (2, Some(key)) => {
                        streams.remove(streams.slot(key).unwrap());
                        keys.remove(&key.id);
                        assert_eq!((streams.slot(key), streams.find(key.id)), (None, None));
                        ready.retain(|&id| id != key.id);
                        room.retain(|&id| id != key.id);
                        timed.iter_mut().for_each(|t| t.retain(|&id| id != key.id));
                    }
                    (3, Some(key)) if !ready.contains(&key.id) => {
                        streams.mark_ready(key.slot);
                        streams.mark_ready(key.slot);
                        ready.push_back(key.id);
                    }
                    (4, Some(key)) if !room.contains(&key.id) => {
                        streams.mark_room(key.slot);
                        room.push_back(key.id);
                    }
                    (5 | 6, Some(key)) => {
                        let timer = if dice.one_in(2) { Timer::Stall } else { Timer::Linger };
                        streams.arm(key.slot, timer, Millis(key.id));
                        timed.iter_mut().for_each(|t| t.retain(|&id| id != key.id));
                        timed[timer as usize].push_back(key.id);
                    }
                    (7, Some(key)) => {
                        streams.disarm(key.slot);
                        timed.iter_mut().for_each(|t| t.retain(|&id| id != key.id));
                    }
                    (8, _) => {
                        let first = streams.first_ready().map(|slot| streams.get(slot).id);
                        streams.pop_ready();
                        assert_eq!(first, ready.pop_front());
                    }
                    (9, _) => {
                        let first = streams.pop_room().map(|slot| streams.get(slot).id);
                        assert_eq!(first, room.pop_front());
                    }
                    _ => {}
                }
                for timer in [Timer::Stall, Timer::Linger] {
                    let first = streams.first_timed(timer).map(|(_, at)| at.0);
                    assert_eq!(first, timed[timer as usize].front().copied());
                }
                assert_eq!(streams.len(), keys.len());
            }
            for (id, key) in &keys {
                assert_eq!(
                    (streams.find(*id), streams.slot(*key)),
                    (Some(key.slot), Some(key.slot))
                );
            }
            assert!(
                streams.slots() <= 64 + 64,
                "slots that wait in a list are bounded by the list"
            );
        }
    }
}
