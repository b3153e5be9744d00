//! What a turn has queued to send: one arena of bytes, and the trains they form.

use crate::driver::Destination;

/// Largest slot: no UDP payload is longer.
pub(crate) const SLOT_MAX: usize = 65_535;
/// Segments one send may carry. Newer kernels take 128; the older ones' limit holds everywhere.
pub(crate) const SEGMENTS_MAX: u8 = 64;
/// Bytes one send may carry: an IPv4 datagram's payload.
const TRAIN_BYTES_MAX: usize = 65_507;

/// Consecutive datagrams for one destination: equal in size, but for the last, which may be shorter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Train {
    pub(crate) to: Destination,
    start: usize,
    len: usize,
    /// Size of every datagram but the last.
    segment: u16,
    /// How many datagrams.
    pub(crate) count: u8,
    /// A datagram shorter than the others was added: it is the last.
    closed: bool,
}

impl Train {
    /// The segment size the kernel must cut this train into; `None` for a single datagram.
    pub(crate) fn segment(&self) -> Option<u16> {
        (self.count > 1).then_some(self.segment)
    }

    fn admits(&self, len: usize, to: &Destination) -> bool {
        !self.closed
            && self.count < SEGMENTS_MAX
            && len != 0
            && len <= usize::from(self.segment)
            && self.len + len <= TRAIN_BYTES_MAX
            && self.to == *to
    }
}

/// The arena and its trains. All memory is taken at construction.
#[derive(Debug)]
pub(crate) struct Outbox {
    arena: Box<[u8]>,
    used: usize,
    /// Length of the slot handed out last.
    slot: usize,
    trains: Vec<Train>,
    trains_max: usize,
    /// Counts the times the outbox was emptied, so that a late failure is not blamed on a later train.
    generation: u16,
}

impl Outbox {
    /// An outbox of `arena` bytes (at least one slot) and `trains_max` trains.
    pub(crate) fn new(arena: usize, trains_max: usize) -> Self {
        Self {
            arena: vec![0; arena.max(SLOT_MAX)].into_boxed_slice(),
            used: 0,
            slot: 0,
            trains: Vec::with_capacity(trains_max),
            trains_max,
            generation: 0,
        }
    }

    /// Whether a slot of `len_max` bytes and one more train fit.
    ///
    /// # Panics
    /// When `len_max` is longer than any UDP payload.
    pub(crate) fn has_room(&self, len_max: usize) -> bool {
        assert!(len_max <= SLOT_MAX, "a slot of {len_max} bytes is longer than any datagram");
        self.arena.len() - self.used >= len_max && self.trains.len() < self.trains_max
    }

    /// The next `len_max` bytes. The caller has checked that there is room.
    pub(crate) fn slot(&mut self, len_max: usize) -> &mut [u8] {
        self.slot = len_max;
        &mut self.arena[self.used..self.used + len_max]
    }

    /// Queues the first `len` bytes of the slot. It joins the last train when `segment_max` allows its size.
    ///
    /// # Panics
    /// When `len` is longer than the slot.
    pub(crate) fn queue(&mut self, len: usize, to: &Destination, segment_max: u16) {
        assert!(len <= self.slot, "{len} bytes queued from a slot of {}", self.slot);
        self.slot = 0;
        let start = self.used;
        self.used += len;
        match self.trains.last_mut() {
            Some(train) if train.segment <= segment_max && train.admits(len, to) => {
                train.len += len;
                train.count += 1;
                train.closed = len < usize::from(train.segment);
            }
            Some(_) | None => {
                let segment = u16::try_from(len).unwrap_or(u16::MAX);
                self.trains.push(Train {
                    to: *to,
                    start,
                    len,
                    segment,
                    count: 1,
                    closed: len == 0,
                });
            }
        }
    }

    pub(crate) fn trains(&self) -> &[Train] {
        &self.trains
    }

    /// The bytes of a train, datagram after datagram.
    pub(crate) fn bytes(&self, train: &Train) -> &[u8] {
        &self.arena[train.start..train.start + train.len]
    }

    /// The train a failure names, while it is still here.
    pub(crate) fn train(&self, index: u16, generation: u16) -> Option<&Train> {
        if generation == self.generation { self.trains.get(usize::from(index)) } else { None }
    }

    pub(crate) fn generation(&self) -> u16 {
        self.generation
    }

    /// Forgets everything queued. The kernel is done with the bytes.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.slot = 0;
        self.trains.clear();
        self.generation = self.generation.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::SocketId;

    fn to(port: u16) -> Destination {
        Destination { socket: SocketId(0), peer: ([127, 0, 0, 1], port).into(), local: None }
    }

    fn queue(outbox: &mut Outbox, len: usize, to: &Destination) {
        assert!(outbox.has_room(len));
        outbox.slot(len).fill(u8::try_from(len % 251).unwrap());
        outbox.queue(len, to, u16::MAX);
    }

    fn shape(outbox: &Outbox) -> Vec<(u8, Option<u16>, usize)> {
        outbox.trains().iter().map(|t| (t.count, t.segment(), outbox.bytes(t).len())).collect()
    }

    #[test]
    fn equal_sizes_form_a_train_and_a_shorter_one_ends_it() {
        let mut outbox = Outbox::new(0, 100);
        for len in [100, 100, 100, 40, 40, 100] {
            queue(&mut outbox, len, &to(1));
        }
        assert_eq!(shape(&outbox), [(4, Some(100), 340), (1, None, 40), (1, None, 100)]);
    }

    #[test]
    fn another_destination_starts_another_train() {
        let mut outbox = Outbox::new(0, 100);
        for port in [1, 1, 2, 1] {
            queue(&mut outbox, 10, &to(port));
        }
        let local = Destination { local: Some([127, 0, 0, 2].into()), ..to(1) };
        queue(&mut outbox, 10, &local);
        assert_eq!(
            shape(&outbox),
            [(2, Some(10), 20), (1, None, 10), (1, None, 10), (1, None, 10)]
        );
    }

    #[test]
    fn a_train_ends_at_64_datagrams_and_at_the_largest_payload() {
        let mut outbox = Outbox::new(1 << 20, 100);
        for _ in 0..65 {
            queue(&mut outbox, 8, &to(1));
        }
        for _ in 0..47 {
            queue(&mut outbox, 1400, &to(2));
        }
        assert_eq!(
            shape(&outbox),
            [(64, Some(8), 512), (1, None, 8), (46, Some(1400), 64_400), (1, None, 1400)]
        );
    }

    #[test]
    fn an_empty_datagram_travels_alone() {
        let mut outbox = Outbox::new(0, 100);
        for len in [0, 0, 5, 0, 5] {
            queue(&mut outbox, len, &to(1));
        }
        assert_eq!(outbox.trains().len(), 5);
        assert!(outbox.trains().iter().all(|t| t.count == 1));
    }

    #[test]
    fn segments_above_the_limit_travel_alone() {
        let mut outbox = Outbox::new(0, 100);
        for (len, segment_max) in
            [(1400, 1399), (1400, 1399), (1399, 1399), (1399, 1399), (8, 0), (8, 0)]
        {
            assert!(outbox.has_room(len));
            outbox.slot(len);
            outbox.queue(len, &to(1), segment_max);
        }
        assert_eq!(
            shape(&outbox),
            [(1, None, 1400), (1, None, 1400), (2, Some(1399), 2798), (1, None, 8), (1, None, 8)]
        );
    }

    #[test]
    fn room_ends_with_the_bytes_or_with_the_trains() {
        let mut outbox = Outbox::new(0, 3);
        queue(&mut outbox, SLOT_MAX - 10, &to(1));
        assert!(outbox.has_room(10) && !outbox.has_room(11));
        queue(&mut outbox, 1, &to(2));
        queue(&mut outbox, 1, &to(3));
        assert!(!outbox.has_room(0));
        let generation = outbox.generation();
        assert!(outbox.train(2, generation).is_some() && outbox.train(3, generation).is_none());
        outbox.clear();
        assert!(outbox.has_room(SLOT_MAX));
        queue(&mut outbox, 1, &to(1));
        assert!(outbox.train(0, generation).is_none());
    }
}
