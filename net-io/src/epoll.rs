//! EpollDriver: the same turn with epoll, recvmmsg and sendmmsg, for hosts that refuse io_uring.

mod streams;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use self::streams::EpollStreams;
use crate::addr;
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
use crate::sys::{Epoll, RECEIVED_MAX, ReceiveTable, SendTable, spread_len};
use crate::table::SocketTable;
use crate::wake::{WakeEvent, Waker};

/// The epoll driver.
///
/// Where `min_wait_us` is set, a turn that found nothing to do sleeps that long before it looks; unlike io_uring's wait, that
/// sleep ends early neither by `want` datagrams nor by a wake.
#[derive(Debug)]
pub struct EpollDriver {
    epoll: Epoll,
    events: Vec<libc::epoll_event>,
    inbox: Inbox,
    sockets: SocketTable,
    outbox: Outbox,
    sends: SendTable,
    streams: Option<Box<EpollStreams>>,
    wake: WakeEvent,
    counters: Counters,
    now: Now,
    min_wait_us: u32,
}

/// Datagrams received and not yet handed out, and sockets known to have more.
#[derive(Debug)]
struct Inbox {
    table: ReceiveTable,
    /// The socket whose datagrams the table holds, and which of them are still to be handed out.
    from: SocketId,
    next: usize,
    filled: usize,
    /// How much of the next one's payload is through: of a train its datagrams that were handed out or dropped.
    through: usize,
    /// Sockets to receive from, in turn; each at most once.
    ready: VecDeque<SocketId>,
    is_ready: Vec<bool>,
    /// Looked at in this turn, whether handed out or dropped: the caller's turn must end even under a flood of empty datagrams.
    taken: u16,
    batch_max: u16,
    datagram_max: usize,
}

impl EpollDriver {
    /// Builds the driver on the thread that will use it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(config: &DriverConfig) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let wake = WakeEvent::new()?;
        epoll.add(wake.as_fd(), WAKE)?;
        let streams = match &config.streams {
            Some(streams) => Some(Box::new(EpollStreams::new(streams)?)),
            None => None,
        };
        let receives = usize::from(config.buffers).clamp(1, RECEIVES_MAX);
        let datagram_max = usize::from(config.datagram_max.max(1));
        let payload_max = if config.gro { spread_len(RECEIVED_MAX) } else { datagram_max };
        Ok(Self {
            epoll,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX],
            inbox: Inbox {
                table: ReceiveTable::new(receives, payload_max)?,
                from: SocketId(0),
                next: 0,
                filled: 0,
                through: 0,
                ready: VecDeque::new(),
                is_ready: Vec::new(),
                taken: 0,
                batch_max: config.batch_max.max(1),
                datagram_max,
            },
            sockets: SocketTable::new(config.gso, config.gro),
            outbox: Outbox::new(config.send_arena, TRAINS_MAX),
            sends: SendTable::new(SENDS_MAX)?,
            streams,
            wake,
            counters: Counters::default(),
            now: monotonic(),
            min_wait_us: config.min_wait_us,
        })
    }

    /// Sends everything queued. The arena is free afterwards.
    fn flush(&mut self) {
        let mut rest = self.outbox.trains();
        while let Some(first) = rest.first() {
            let id = first.to.socket;
            let most = rest.iter().take(self.sends.len());
            let same = most.take_while(|train| train.to.socket == id).count();
            let (mut run, next) = rest.split_at(same);
            rest = next;
            self.counters.tx_sends += run.len() as u64;
            while !run.is_empty() {
                self.counters.enters += 1;
                let messages = run.iter().map(|train| self.sockets.message(&self.outbox, train));
                let sent = self.sends.send(self.sockets.socket(id).as_fd(), messages);
                // The call stops at a message that fails, and only tells why when that one comes first.
                let (sent, failed) = match sent {
                    Ok(sent) => (sent.max(1), None),
                    Err(error) => (1, Some(error.raw_os_error().unwrap_or(0))),
                };
                if let Some(error) = failed {
                    self.sockets.on_send_error(
                        error,
                        &run[0],
                        &self.outbox,
                        self.now,
                        &mut self.sends,
                        &mut self.counters,
                    );
                }
                run = &run[sent.min(run.len())..];
            }
        }
        self.outbox.clear();
    }

    /// How long the next wait may take; `None` = for ever.
    fn timeout(&self, deadline: Option<Now>) -> Option<Duration> {
        let events = self.streams.as_ref().is_some_and(|streams| streams.table.has_events());
        if events || self.inbox.has_more() {
            return Some(Duration::ZERO);
        }
        // A fresh reading: since the last one the caller has worked, and a deadline must be neither early nor late by that.
        deadline.map(|at| Duration::from_micros(at.0.saturating_sub(monotonic().0)))
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let mut timeout = timeout;
        if self.min_wait_us > 0 && timeout != Some(Duration::ZERO) {
            let gather = Duration::from_micros(self.min_wait_us.into());
            let gather = timeout.map_or(gather, |timeout| timeout.min(gather));
            clock::sleep(gather);
            // Counting what was asked for, not what it took: late by the timer's slack, never early.
            timeout = timeout.map(|timeout| timeout - gather);
        }
        self.counters.enters += 1;
        self.epoll.wait(&mut self.events, timeout)
    }
}

impl Inbox {
    /// Whether this turn left datagrams behind.
    fn has_more(&self) -> bool {
        self.next < self.filled || !self.ready.is_empty()
    }

    fn mark_ready(&mut self, id: SocketId) {
        if let Some(flag) = self.is_ready.get_mut(usize::from(id.0))
            && !*flag
        {
            *flag = true;
            self.ready.push_back(id);
        }
    }

    /// Receives from the next ready socket; whether there was one. A socket that filled the table goes to the end of the queue.
    fn refill(&mut self, sockets: &SocketTable, counters: &mut Counters) -> bool {
        let Some(id) = self.ready.pop_front() else { return false };
        self.is_ready[usize::from(id.0)] = false;
        let socket = sockets.socket(id);
        (self.from, self.next, self.filled) = (id, 0, 0);
        counters.enters += 1;
        match self.table.receive(socket.as_fd(), usize::MAX, sockets.control_len(id)) {
            Ok(filled) => {
                self.filled = filled;
                if filled == self.table.len() {
                    self.mark_ready(id);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => counters.rx_errors += 1,
        }
        true
    }
}

impl Driver for EpollDriver {
    type Socket = UdpSocket;
    type Stream = StreamSocket;

    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<SocketId> {
        let id = self.sockets.next_id()?;
        self.epoll.add(socket.as_fd(), u64::from(id.0))?;
        // Should this fail, the socket is closed, which takes it out of the set.
        let id = self.sockets.add(socket)?;
        self.inbox.is_ready.push(false);
        self.inbox.ready.reserve(self.sockets.len());
        Ok(id)
    }

    fn submit_and_wait(&mut self, deadline: Option<Now>) -> io::Result<Now> {
        self.flush();
        if let Some(streams) = &mut self.streams {
            streams.flush(&mut self.counters);
        }
        let timeout = self.timeout(deadline);
        let count = self.wait(timeout)?;
        self.now = monotonic();
        self.inbox.taken = 0;
        for index in 0..count {
            let event = self.events[index];
            match u16::try_from(event.u64) {
                Ok(id) => self.inbox.mark_ready(SocketId(id)),
                Err(_) if EpollStreams::owns(event.u64) => {
                    if let Some(streams) = &mut self.streams {
                        streams.on_edge(&event);
                    }
                }
                Err(_) => {
                    self.wake.drain()?;
                    self.counters.wakes += u64::from(self.wake.take());
                }
            }
        }
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

    fn recv(&mut self) -> Option<Datagram<'_>> {
        let inbox = &mut self.inbox;
        let (index, peer, payload) = loop {
            if inbox.taken == inbox.batch_max {
                return None;
            }
            if inbox.next == inbox.filled {
                if !inbox.refill(&self.sockets, &mut self.counters) {
                    return None;
                }
                continue;
            }
            let index = inbox.next;
            inbox.taken += 1;
            let received = inbox.table.get(index);
            let payload = received.datagram(inbox.through, self.sockets.has_trains());
            (inbox.next, inbox.through) = if payload.end == received.payload.len() {
                (index + 1, 0)
            } else {
                (index, payload.end)
            };
            if received.truncated || payload.len() > inbox.datagram_max {
                self.counters.rx_truncated += 1;
            } else if payload.is_empty() {
                self.counters.rx_empty += 1;
            } else if let Some(peer) = addr::decode(received.name) {
                break (index, peer, payload);
            } else {
                self.counters.rx_errors += 1;
            }
        };
        let received = inbox.table.get(index);
        self.counters.rx_datagrams += 1;
        self.counters.rx_bytes += payload.len() as u64;
        Some(Datagram {
            socket: inbox.from,
            peer,
            local: cmsg::local(received.control),
            payload: &received.payload[payload],
        })
    }

    fn has_backlog(&self) -> bool {
        self.inbox.has_more()
    }

    fn backlog_max(&self) -> usize {
        self.sockets.waiting_max(self.inbox.filled - self.inbox.next)
    }

    fn ahead(&self, skip: usize) -> Option<(SocketAddr, &[u8])> {
        let index = self.inbox.next + skip;
        if index >= self.inbox.filled || self.sockets.has_trains() {
            return None;
        }
        let datagram = self.inbox.table.get(index);
        Some((addr::decode(datagram.name)?, datagram.payload))
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
        let id = streams.table.connect(|config| StreamSocket::connect(to, bind, config))?;
        streams.register(id, &self.epoll)
    }

    fn adopt(&mut self, stream: StreamSocket) -> Result<StreamId, ConnectError> {
        let streams = self.streams.as_mut().ok_or(ConnectError::Streams)?;
        let id = streams.table.adopt(|| {
            stream.prepare()?;
            Ok(stream)
        })?;
        streams.register(id, &self.epoll)
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
        self.streams.as_mut()?.next_event(&mut self.counters)
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
        self.counters
    }

    fn kind(&self) -> DriverKind {
        DriverKind::Epoll
    }
}

/// The waker's token: no socket id.
const WAKE: u64 = u64::MAX;
/// Datagrams one recvmmsg takes: past this a longer batch saves nothing, and a busy socket keeps the others waiting.
const RECEIVES_MAX: usize = 64;
/// Messages one sendmmsg takes.
const SENDS_MAX: usize = 64;
/// Trains the outbox holds before it is flushed.
const TRAINS_MAX: usize = 1024;
/// Sockets one epoll_wait reports; the others come next turn.
const EVENTS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::SocketOptions;

    /// A busy socket's backlog comes in one turn, not one table at a time.
    #[test]
    fn a_turn_takes_more_than_one_call_can() {
        const COUNT: usize = 2 * RECEIVES_MAX + 9;
        let mut driver = EpollDriver::new(&DriverConfig::default()).unwrap();
        let socket =
            UdpSocket::bind(([127, 0, 0, 1], 0).into(), &SocketOptions::default()).unwrap();
        let addr = socket.local_addr().unwrap();
        driver.add_socket(socket).unwrap();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..COUNT {
            peer.send_to(b"x", addr).unwrap();
        }
        driver.submit_and_wait(Some(Now(0))).unwrap();
        assert_eq!(std::iter::from_fn(|| driver.recv().map(drop)).count(), COUNT);
    }
}
