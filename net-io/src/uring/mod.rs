//! UringDriver: multishot receives into one ring of buffers, batched sends, streams beside them, one system call per turn.

mod op;
#[expect(unsafe_code, reason = "the ring and the memory it shares with the kernel")]
mod ring;
mod streams;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::Duration;

use self::op::Op;
use self::ring::{Buffer, Completion, Filled, Ring, RingSizes, Send, Wait};
use self::streams::UringStreams;
use crate::addr::{self, NAME_MAX, field};
use crate::clock::{self, monotonic};
use crate::cmsg;
use crate::driver::{
    Counters, Datagram, Destination, Driver, DriverConfig, DriverKind, Now, SocketId,
};
use crate::outbox::Outbox;
use crate::socket::UdpSocket;
use crate::stream::{
    Close, ConnectError, StreamAddr, StreamCounters, StreamEvent, StreamId, StreamSocket,
};
use crate::sys::{RECEIVED_MAX, SendTable, spread_len};
use crate::table::{SocketTable, count_error};
use crate::wake::{WakeEvent, Waker};

/// The io_uring driver. Belongs to the thread that built it.
///
/// Needs Linux 6.1, and gathers best from 6.12 on. `min_wait_us` counts from the start of the wait: a turn that blocks returns
/// at once with `want` datagrams, and with fewer only when that time is over.
#[derive(Debug)]
pub struct UringDriver {
    ring: Ring,
    inbox: Inbox,
    arming: Arming,
    sockets: SocketTable,
    outbox: Outbox,
    resends: SendTable,
    streams: Option<Box<UringStreams>>,
    wake: WakeEvent,
    counters: Counters,
    now: Now,
    gather: Gather,
    /// What ended the driver where nobody could be told.
    broken: Option<io::Error>,
}

/// Datagrams received and not yet handed out.
#[derive(Debug)]
struct Inbox {
    /// Never more than there are buffers, for each holds one.
    batch: VecDeque<Arrival>,
    /// How much of the first one's payload is through: of a train its datagrams that were handed out or dropped.
    through: usize,
    buffers: usize,
    /// The buffer of the datagram last handed out.
    lent: Option<Buffer>,
    /// Buffers given back that the kernel does not see yet.
    unpublished: u16,
    /// Looked at in this turn, whether handed out or dropped: the caller's turn must end even under a flood of empty datagrams.
    taken: u16,
    batch_max: u16,
    datagram_max: usize,
}

#[derive(Debug)]
struct Arrival {
    socket: SocketId,
    buffer: Buffer,
    len: u32,
}

/// Receives that ended and have to be armed again.
#[derive(Debug)]
struct Arming {
    sockets: Vec<SocketId>,
    /// Sockets whose receive failed: armed again only after a pause, or a lasting error would spin.
    failed: Vec<SocketId>,
    failed_retry: Now,
    wake: bool,
}

/// How a wait gathers datagrams.
#[derive(Clone, Copy, Debug)]
struct Gather {
    min_wait_us: u32,
    want: u16,
    /// The kernel does it in one call.
    native: bool,
}

impl UringDriver {
    /// Builds the driver on the thread that will use it.
    ///
    /// # Errors
    /// The kernel's; [`probe::explain`](crate::probe::explain) has the cause and the remedy. ENOMEM was tried again for a while: the
    /// kernel takes its time to give back the locked memory of rings just closed.
    pub fn new(config: &DriverConfig) -> io::Result<Self> {
        let submissions = u32::from(config.batch_max).next_power_of_two().clamp(64, 4096);
        let reads = config.streams.as_ref().map_or(0, |streams| streams.read_buffers);
        let completions = 2 * (u32::from(config.buffers) + u32::from(reads)) + submissions;
        Self::with_queues(config, submissions, completions)
    }

    /// Builds the driver with queues of these sizes; the kernel rounds them up.
    fn with_queues(config: &DriverConfig, submissions: u32, completions: u32) -> io::Result<Self> {
        let datagram_max = config.datagram_max.max(1);
        let reads = config.streams.as_ref().map_or(1, |streams| streams.read_buffers);
        for buffers in [config.buffers, reads] {
            if !buffers.is_power_of_two() || buffers > BUFFERS_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{buffers} buffers: not a power of two up to {BUFFERS_MAX}"),
                ));
            }
        }
        let sizes = RingSizes {
            submissions,
            completions,
            buffers: config.buffers,
            buffer_len: match config.gro {
                false => (OVERHEAD + u32::from(datagram_max)).next_multiple_of(8),
                true => TRAIN_BUFFER,
            },
            control_lens: [false, true].map(|wildcard| cmsg::receive_len(wildcard, config.gro)),
        };
        let streams = match &config.streams {
            Some(streams) => Some(Box::new(UringStreams::new(streams)?)),
            None => None,
        };
        let ring = patiently(|| {
            let mut ring = Ring::new(sizes)?;
            if let Some(streams) = &config.streams {
                ring.add_streams(streams.read_buffers, streams.read_buffer_len)?;
            }
            Ok(ring)
        })?;
        let wake = WakeEvent::new()?;
        Ok(Self {
            inbox: Inbox {
                batch: VecDeque::with_capacity(config.buffers.into()),
                through: 0,
                buffers: config.buffers.into(),
                lent: None,
                unpublished: 0,
                taken: 0,
                batch_max: config.batch_max.max(1),
                datagram_max: datagram_max.into(),
            },
            arming: Arming {
                sockets: Vec::new(),
                failed: Vec::new(),
                failed_retry: Now(u64::MAX),
                wake: true,
            },
            sockets: SocketTable::new(config.gso, config.gro),
            outbox: Outbox::new(config.send_arena, ring.submissions()),
            resends: SendTable::new(1)?,
            streams,
            wake,
            counters: Counters::default(),
            now: monotonic(),
            gather: Gather {
                min_wait_us: config.min_wait_us,
                want: config.want.max(1),
                native: ring.has_min_wait(),
            },
            broken: None,
            ring,
        })
    }

    /// Arms what has to be armed, now that buffers were given back.
    fn arm(&mut self) -> io::Result<()> {
        if self.arming.failed_retry <= self.now {
            self.arming.failed_retry = Now(u64::MAX);
            self.arming.sockets.append(&mut self.arming.failed);
        }
        if self.arming.wake {
            self.ring.watch(self.wake.as_fd(), Op::Wake)?;
            self.arming.wake = false;
        }
        // With every buffer still in the batch a receive would end as soon as armed.
        if self.inbox.batch.len() < self.inbox.buffers {
            for id in self.arming.sockets.drain(..) {
                let socket = self.sockets.socket(id);
                self.ring.receive(
                    socket.as_fd(),
                    socket.is_wildcard(),
                    Op::Receive { socket: id.0 },
                )?;
            }
        }
        Ok(())
    }

    /// Submits, waits as told, and sorts what came.
    fn turn(&mut self, wait: Wait) -> io::Result<()> {
        if let Some(streams) = &mut self.streams {
            streams.table.offer();
        }
        let generation = self.outbox.generation();
        let trains = self.outbox.trains();
        self.counters.tx_sends += trains.len() as u64;
        let sends = trains.iter().zip(0u16..).map(|(train, index)| Send {
            fd: self.sockets.socket(train.to.socket).as_fd(),
            message: self.sockets.message(&self.outbox, train),
            op: Op::Send { train: index, count: train.count, generation },
        });
        let stream_sends = self.streams.iter().flat_map(|streams| streams.sends());
        self.ring.turn(sends, stream_sends, wait)?;
        self.reap()?;
        self.outbox.clear();
        self.settle_streams()
    }

    /// Streams' sends that failed have told so: the others are done.
    fn settle_streams(&mut self) -> io::Result<()> {
        if self.streams.is_none() {
            return Ok(());
        }
        while self.ring.has_overflow() {
            self.ring.turn(std::iter::empty(), std::iter::empty(), Wait::Poll)?;
            self.reap()?;
        }
        if let Some(streams) = &mut self.streams {
            streams.settle();
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        while let Some(completion) = self.ring.next() {
            match completion.op {
                Op::Receive { socket } => self.on_receive(SocketId(socket), completion)?,
                Op::Send { train, count, generation } => {
                    if let Err(error) = completion.result {
                        self.on_send_error(error, train, count, generation);
                    }
                }
                Op::Wake => {
                    self.arming.wake = true;
                    self.counters.wakes += u64::from(self.wake.take());
                }
                Op::StreamRead(_) | Op::StreamReady(_) | Op::StreamSend(_) | Op::Cancel => {
                    self.on_stream(completion);
                }
            }
        }
        Ok(())
    }

    fn on_stream(&mut self, completion: Completion) {
        let Some(streams) = &mut self.streams else { return };
        match completion.op {
            Op::StreamRead(id) => streams.on_read(id, completion, &mut self.ring),
            Op::StreamReady(id) => streams.table.on_writable(id),
            Op::StreamSend(id) => {
                let result = completion.result.map(|len| len as usize);
                streams.table.on_sent(id, result);
            }
            // What was to end had ended.
            Op::Cancel | Op::Receive { .. } | Op::Send { .. } | Op::Wake => {}
        }
    }

    fn on_receive(&mut self, socket: SocketId, completion: Completion) -> io::Result<()> {
        if let Filled::Buffer(buffer) = completion.filled {
            match completion.result {
                Ok(len) => self.inbox.batch.push_back(Arrival { socket, buffer, len }),
                Err(_) => self.give_back(buffer),
            }
        }
        match completion.result {
            Ok(_) => {}
            Err(libc::ENOBUFS) => self.counters.rx_dry += 1,
            // The kernel does not know the operation: no receive will ever come.
            Err(error @ (libc::EINVAL | libc::EBADF | libc::ENOTSOCK | libc::EOPNOTSUPP)) => {
                return Err(io::Error::from_raw_os_error(error));
            }
            Err(_) => {
                self.counters.rx_errors += 1;
                if !completion.more {
                    self.counters.rx_rearmed += 1;
                    self.arming.failed.push(socket);
                    self.arming.failed_retry = Now(self.now.0 + FAILED_PAUSE_US);
                    return Ok(());
                }
            }
        }
        // Whatever ended it (an empty datagram does), it has to go on.
        if !completion.more {
            self.counters.rx_rearmed += 1;
            self.arming.sockets.push(socket);
        }
        Ok(())
    }

    fn on_send_error(&mut self, error: i32, train: u16, count: u8, generation: u16) {
        match self.outbox.train(train, generation) {
            Some(train) => self.sockets.on_send_error(
                error,
                train,
                &self.outbox,
                self.now,
                &mut self.resends,
                &mut self.counters,
            ),
            None => count_error(error, count, &mut self.counters),
        }
    }

    /// The datagram of an arrival that starts `through` bytes into its payload, and who sent it.
    #[inline]
    fn locate(&self, arrival: &Arrival, through: usize) -> (Extent, Result<SocketAddr, Unfit>) {
        let bytes = self.ring.bytes(&arrival.buffer, arrival.len as usize);
        let control_area = self.sockets.control_len(arrival.socket);
        let extent = Extent::new(bytes, control_area, self.sockets.has_trains(), through);
        let sender = extent.sender(bytes, self.inbox.datagram_max);
        (extent, sender)
    }

    fn give_back(&mut self, buffer: Buffer) {
        self.ring.give_back(buffer);
        self.inbox.unpublished += 1;
        if self.inbox.unpublished == PUBLISH_EVERY {
            self.publish();
        }
    }

    fn publish(&mut self) {
        self.ring.publish();
        self.inbox.unpublished = 0;
    }

    /// Sends what is queued now: the arena is full.
    fn flush(&mut self) {
        if let Err(error) = self.turn(Wait::Submit) {
            self.outbox.clear();
            self.broken = Some(error);
        }
    }

    /// The wait of one turn; two system calls where the kernel cannot gather by itself.
    fn wait(&mut self, deadline: Option<Now>) -> io::Result<()> {
        let told = self.streams.as_ref().is_some_and(|streams| {
            // What is sent now has no completion: a wait would not end for the room that it makes.
            streams.table.has_events() || streams.table.may_make_room()
        });
        if told || !self.inbox.batch.is_empty() {
            return self.turn(Wait::Poll);
        }
        let deadline = match (deadline, self.arming.failed_retry) {
            (deadline, Now(u64::MAX)) => deadline,
            (deadline, retry) => Some(deadline.map_or(retry, |deadline| deadline.min(retry))),
        };
        // A fresh reading: since the last one the caller has worked, and a deadline must be neither early nor late by that.
        let left_us = deadline.map(|at| at.0.saturating_sub(monotonic().0));
        if left_us == Some(0) {
            return self.turn(Wait::Poll);
        }
        let timeout = left_us.map(Duration::from_micros);
        let min_wait = u64::from(self.gather.min_wait_us).min(left_us.unwrap_or(u64::MAX));
        let want = self.gather.want;
        if min_wait == 0 || want == 1 {
            return self.turn(Wait::Until { want: 1, min_wait_us: 0, timeout });
        }
        if self.gather.native {
            let min_wait_us = u32::try_from(min_wait).unwrap_or(u32::MAX);
            // Without a timeout of its own the kernel takes the minimum for one, and an idle shard would never sleep.
            let timeout = timeout.or(Some(LONG));
            return self.turn(Wait::Until { want, min_wait_us, timeout });
        }
        let gather = Duration::from_micros(min_wait);
        self.turn(Wait::Until { want, min_wait_us: 0, timeout: Some(gather) })?;
        let left = timeout.map(|timeout| timeout - gather);
        let events = self.streams.as_ref().is_some_and(|streams| streams.table.has_events());
        let idle = self.inbox.batch.is_empty() && !self.arming.wake && !events;
        if idle && left != Some(Duration::ZERO) {
            self.turn(Wait::Until { want: 1, min_wait_us: 0, timeout: left })?;
        }
        Ok(())
    }
}

impl Driver for UringDriver {
    type Socket = UdpSocket;
    type Stream = StreamSocket;

    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<SocketId> {
        let id = self.sockets.add(socket)?;
        self.arming.sockets.push(id);
        self.arming.failed.reserve(self.sockets.len());
        Ok(id)
    }

    fn submit_and_wait(&mut self, deadline: Option<Now>) -> io::Result<Now> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        if let Some(buffer) = self.inbox.lent.take() {
            self.give_back(buffer);
        }
        self.publish();
        self.arm()?;
        if let Some(streams) = &mut self.streams {
            streams.prepare(&mut self.ring)?;
        }
        self.inbox.taken = 0;
        self.wait(deadline)?;
        self.now = monotonic();
        self.sockets.read_drops(self.now, &mut self.counters);
        Ok(self.now)
    }

    fn now(&self) -> Now {
        self.now
    }

    fn clock(&self) -> Now {
        monotonic()
    }

    fn cpu_us(&self) -> u64 {
        clock::processor_us()
    }

    #[inline] // so that no caller takes the datagram from memory just written
    fn recv(&mut self) -> Option<Datagram<'_>> {
        if let Some(buffer) = self.inbox.lent.take() {
            self.give_back(buffer);
        }
        let (socket, len, peer, extent) = loop {
            if self.inbox.taken == self.inbox.batch_max {
                return None;
            }
            let first = self.inbox.batch.front()?;
            self.inbox.taken += 1;
            let (socket, len) = (first.socket, first.len as usize);
            let (extent, sender) = self.locate(first, self.inbox.through);
            // The buffer of a train stays the first until its last datagram.
            let ended = if extent.payload.end == len {
                self.inbox.through = 0;
                self.inbox.batch.pop_front()
            } else {
                self.inbox.through += extent.payload.len();
                None
            };
            match sender {
                Ok(peer) => {
                    self.inbox.lent = ended.map(|arrival| arrival.buffer);
                    break (socket, len, peer, extent);
                }
                Err(Unfit::Empty) => self.counters.rx_empty += 1,
                Err(Unfit::Truncated) => self.counters.rx_truncated += 1,
                Err(Unfit::Malformed) => self.counters.rx_errors += 1,
            }
            if let Some(arrival) = ended {
                self.give_back(arrival.buffer);
            }
        };
        let buffer = match &self.inbox.lent {
            Some(buffer) => buffer,
            None => &self.inbox.batch.front()?.buffer,
        };
        let bytes = self.ring.bytes(buffer, len);
        let payload = &bytes[extent.payload];
        self.counters.rx_datagrams += 1;
        self.counters.rx_bytes += payload.len() as u64;
        Some(Datagram { socket, peer, local: cmsg::local(&bytes[extent.control]), payload })
    }

    fn has_backlog(&self) -> bool {
        !self.inbox.batch.is_empty() || !self.arming.sockets.is_empty() || self.ring.has_more_work()
    }

    fn backlog_max(&self) -> usize {
        self.sockets.waiting_max(self.inbox.batch.len())
    }

    fn ahead(&self, skip: usize) -> Option<(SocketAddr, &[u8])> {
        if self.sockets.has_trains() {
            return None;
        }
        let arrival = self.inbox.batch.get(skip)?;
        let (extent, sender) = self.locate(arrival, 0);
        let bytes = self.ring.bytes(&arrival.buffer, arrival.len as usize);
        Some((sender.ok()?, &bytes[extent.payload]))
    }

    fn slot(&mut self, len_max: usize) -> &mut [u8] {
        if !self.outbox.has_room(len_max) {
            self.flush();
        }
        self.outbox.slot(len_max)
    }

    fn queue(&mut self, len: usize, to: &Destination) {
        let segment_max = self.sockets.segment_max(to.socket, self.now);
        self.outbox.queue(len, to, segment_max);
        self.counters.tx_datagrams += 1;
        self.counters.tx_bytes += len as u64;
    }

    fn connect(&mut self, to: &StreamAddr, bind: Option<IpAddr>) -> Result<StreamId, ConnectError> {
        let streams = self.streams.as_mut().ok_or(ConnectError::Streams)?;
        streams.table.connect(|config| StreamSocket::connect(to, bind, config))
    }

    fn adopt(&mut self, stream: StreamSocket) -> Result<StreamId, ConnectError> {
        let streams = self.streams.as_mut().ok_or(ConnectError::Streams)?;
        streams.table.adopt(|| {
            stream.prepare()?;
            Ok(stream)
        })
    }

    fn stream_read(&mut self, id: StreamId) {
        if let Some(streams) = &mut self.streams {
            streams.table.read(id);
        }
    }

    fn stream_write(&mut self, id: StreamId, bytes: &[u8]) -> usize {
        self.streams.as_mut().map_or(0, |streams| streams.table.write(id, bytes))
    }

    fn stream_queued(&self, id: StreamId) -> usize {
        self.streams.as_ref().map_or(0, |streams| streams.table.queued(id))
    }

    fn stream_close(&mut self, id: StreamId, how: Close) {
        if let Some(streams) = &mut self.streams {
            streams.table.close(id, how);
        }
    }

    fn stream_event(&mut self) -> Option<StreamEvent<'_>> {
        self.streams.as_mut()?.next_event(&mut self.ring)
    }

    fn stream_counters(&self) -> StreamCounters {
        self.streams.as_ref().map(|streams| streams.table.counters()).unwrap_or_default()
    }

    fn stream_trim(&mut self, keep: usize) {
        if let Some(streams) = &mut self.streams {
            streams.table.trim(keep);
        }
    }

    fn waker(&self) -> Waker {
        self.wake.waker()
    }

    fn counters(&self) -> Counters {
        Counters { enters: self.counters.enters + self.ring.enters, ..self.counters }
    }

    fn kind(&self) -> DriverKind {
        DriverKind::Uring
    }
}

/// Where a datagram lies within its buffer: 16 bytes of header, the name's area, the control area, the payload.
struct Extent {
    control: Range<usize>,
    payload: Range<usize>,
}

/// Why a datagram is dropped.
enum Unfit {
    Empty,
    Truncated,
    Malformed,
}

impl Extent {
    /// The datagram that starts `through` bytes into the payload, after `control_area` bytes for control messages.
    #[inline]
    fn new(bytes: &[u8], control_area: usize, trains: bool, through: usize) -> Self {
        let control_len = field(bytes, 4).map_or(0, |len| u32::from_ne_bytes(len) as usize);
        let start = (PAYLOAD + control_area).min(bytes.len());
        let control = PAYLOAD.min(start)..(PAYLOAD + control_len).min(start);
        let (from, len) = (start + through, bytes.len() - start);
        let payload = match trains {
            false => from..bytes.len(),
            true => from..start + cmsg::end_of_datagram(&bytes[control.clone()], through, len),
        };
        Self { control, payload }
    }

    /// Who sent the datagram.
    #[inline]
    fn sender(&self, bytes: &[u8], datagram_max: usize) -> Result<SocketAddr, Unfit> {
        let word = |index: usize| field(bytes, 4 * index).map(u32::from_ne_bytes);
        let (Some(name_len), Some(flags)) = (word(0), word(3)) else {
            return Err(Unfit::Malformed);
        };
        if flags & libc::MSG_TRUNC.cast_unsigned() != 0 || self.payload.len() > datagram_max {
            return Err(Unfit::Truncated);
        }
        let name_end = HEADER + (name_len as usize).min(NAME_MAX);
        let name = bytes.get(HEADER..name_end).ok_or(Unfit::Malformed)?;
        if self.payload.is_empty() {
            return Err(Unfit::Empty);
        }
        addr::decode(name).ok_or(Unfit::Malformed)
    }
}

/// Builds a ring, with patience for memory that is about to be given back.
fn patiently(build: impl Fn() -> io::Result<Ring>) -> io::Result<Ring> {
    let mut tries = NOMEM_TRIES;
    loop {
        match build() {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && tries > 1 => {
                tries -= 1;
                clock::sleep(NOMEM_PAUSE);
            }
            result => return result,
        }
    }
}

/// `io_uring_recvmsg_out`: lengths of name, control and payload, and flags.
const HEADER: usize = 16;
/// Where the control area starts: without one, the payload.
const PAYLOAD: usize = HEADER + NAME_MAX;
/// Bytes of a buffer that are never payload.
const OVERHEAD: u32 = 84;
const _: () = assert!(OVERHEAD as usize == PAYLOAD + cmsg::receive_len(true, false));
/// Bytes of a buffer that holds any train.
const TRAIN_BUFFER: u32 = 65_728;
const _: () =
    assert!(TRAIN_BUFFER as usize == spread_len(PAYLOAD + cmsg::RECEIVE_MAX + RECEIVED_MAX));
/// The kernel's limit on a buffer ring.
const BUFFERS_MAX: u16 = 32_768;
/// Buffers given back before the kernel is shown them within a turn, so that it does not run dry during a long one.
const PUBLISH_EVERY: u16 = 32;
/// How long a socket rests whose receive failed, in microseconds.
const FAILED_PAUSE_US: u64 = 1000;
/// Stands for no timeout at all.
const LONG: Duration = Duration::from_secs(3600);
/// How often, and how far apart, a ring is tried that the kernel has no memory for.
const NOMEM_TRIES: usize = 5;
const NOMEM_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
