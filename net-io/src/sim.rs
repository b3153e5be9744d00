//! SimDriver: the same trait over virtual time and a seeded network.
//!
//! A [`SimNet`] holds hosts with addresses, their bound sockets, a [`netem`] link for each pair of addresses that talk, and
//! the clock. Any number of drivers and sockets live on one network and one thread; the same seed and the same calls give
//! the same run. Who moves the clock is the network's [`Pace`]: the harness that runs several hosts in turn, or a
//! driver's own wait.
//!
//! ```
//! use net_io::sim::{Pace, SimConfig, SimDriver, SimNet};
//! use net_io::{Destination, Driver, DriverConfig, SocketOptions};
//!
//! let net = SimNet::new(&SimConfig { pace: Pace::Harness, ..SimConfig::default() });
//! let mut ends = Vec::new();
//! for ip in ["10.0.0.1", "10.0.0.2"] {
//!     let host = net.host(&[ip.parse()?])?;
//!     let mut driver = SimDriver::new(&net, &DriverConfig::default());
//!     let socket = host.bind(format!("{ip}:4000").parse()?, &SocketOptions::default())?;
//!     let id = driver.add_socket(socket)?;
//!     ends.push((driver, id));
//! }
//!
//! let (client, socket) = &mut ends[0];
//! client.slot(5).copy_from_slice(b"hello");
//! client.queue(5, &Destination { socket: *socket, peer: "10.0.0.2:4000".parse()?, local: None });
//!
//! // The run: whoever has something to do gets a turn; when nobody has, time moves on.
//! let mut heard = Vec::new();
//! loop {
//!     for (driver, _) in ends.iter_mut().filter(|(driver, _)| driver.is_due()) {
//!         driver.submit_and_wait(None)?;
//!         while let Some(datagram) = driver.recv() {
//!             heard.extend_from_slice(datagram.payload);
//!         }
//!     }
//!     if net.advance().is_none() {
//!         break;
//!     }
//! }
//! assert_eq!(heard, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod fabric;
mod net;
mod pipe;
mod streams;

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::driver::{
    Counters, Datagram, Destination, Driver, DriverConfig, DriverKind, Now, SocketId,
};
use crate::outbox::Outbox;
use crate::stream::{Close, ConnectError, StreamAddr, StreamCounters, StreamEvent, StreamId};
use crate::wake::Waker;

use fabric::{DriverId, Packet, Refused};
pub use net::{ClockStart, NetCounters, Pace, SimConfig, SimHost, SimNet, SimSocket};
use streams::SimStreams;
pub use streams::{SimListener, SimStream};

/// A driver on a simulated network.
///
/// It keeps the contract of the kernel's drivers: what it drops it counts, a turn hands out at most `batch_max` datagrams,
/// what was queued leaves with the next wait or when the arena is full. `buffers` bounds nothing that `batch_max` does not,
/// and gathering (`min_wait_us`, `want`) has no meaning where waiting costs nothing.
#[derive(Debug)]
pub struct SimDriver {
    net: SimNet,
    id: DriverId,
    config: DriverConfig,
    sockets: Vec<SimSocket>,
    outbox: Outbox,
    streams: Option<SimStreams>,
    now: Now,
    /// What looks at the clock have taken in this turn.
    looked_us: Cell<u64>,
    /// Datagrams that this turn may still look at.
    batch_left: u16,
    /// The datagram lent out.
    current: Packet,
    waker: Waker,
    counters: Counters,
}

impl SimDriver {
    /// A driver on `net`, without sockets. Its streams leave from the host of its first socket.
    ///
    /// # Panics
    /// With bounds on streams that cannot be kept.
    #[must_use]
    pub fn new(net: &SimNet, config: &DriverConfig) -> Self {
        let waker = Waker::simulated();
        Self {
            net: net.clone(),
            id: net.add_driver(waker.clone()),
            config: config.clone(),
            sockets: Vec::new(),
            outbox: Outbox::new(config.send_arena, TRAINS_MAX),
            streams: config.streams.as_ref().map(SimStreams::new),
            now: net.now(),
            looked_us: Cell::new(0),
            batch_left: 0,
            current: Packet::default(),
            waker,
            counters: Counters::default(),
        }
    }

    /// Whether a turn has something to do: a datagram, a wake-up, the deadline of its last wait, something to send, or
    /// its first turn.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.net.is_due(self.id)
    }

    /// Lets the network know whether streams have something left to tell the caller, or to do in a turn.
    fn look_at_streams(&self) {
        if let Some(streams) = &self.streams {
            self.net.set_has_events(self.id, streams.table.has_events());
            if streams.table.has_output() {
                self.net.has_output(self.id);
            }
        }
    }

    /// Puts everything queued on the network, as of the network's clock.
    fn submit(&mut self) {
        for train in self.outbox.trains() {
            self.counters.tx_sends += 1;
            let socket = &self.sockets[usize::from(train.to.socket.0)];
            let bytes = self.outbox.bytes(train);
            // An empty datagram is a train of its own, which `chunks` would make none of.
            let segment = train.segment().map_or(bytes.len().max(1), usize::from);
            let mut datagrams = bytes.chunks(segment);
            for payload in (0..train.count).map(|_| datagrams.next().unwrap_or_default()) {
                match self.net.send(socket, &train.to, payload) {
                    Ok(()) => {}
                    Err(Refused::BufferFull) => self.counters.tx_full += 1,
                    Err(Refused::Error) => self.counters.tx_errors += 1,
                }
            }
        }
        self.outbox.clear();
        for socket in &self.sockets {
            self.net.drain_send_buffer(socket);
        }
    }
}

impl Driver for SimDriver {
    type Socket = SimSocket;
    type Stream = SimStream;

    /// # Errors
    /// `InvalidInput` if the socket belongs to another network; `OutOfMemory` past 65,536 sockets.
    fn add_socket(&mut self, socket: SimSocket) -> io::Result<SocketId> {
        let id =
            SocketId(u16::try_from(self.sockets.len()).map_err(|_| io::ErrorKind::OutOfMemory)?);
        self.net.attach(&socket, self.id, id)?;
        self.sockets.push(socket);
        Ok(id)
    }

    /// With [`Pace::Harness`] it returns at once, with what has arrived by the network's clock, and leaves `deadline` for
    /// [`SimNet::advance`] to come back to. With [`Pace::Wait`] it moves the clock itself.
    ///
    /// # Errors
    /// `Deadlock` with [`Pace::Wait`] where a real driver would wait for ever: no deadline, and nothing under way to it.
    fn submit_and_wait(&mut self, deadline: Option<Now>) -> io::Result<Now> {
        self.counters.enters += 1;
        self.submit();
        if let Some(streams) = &mut self.streams {
            streams.flush();
        }
        self.look_at_streams();
        self.net.wait(self.id, deadline)?;
        if let Some(streams) = &mut self.streams {
            streams.collect(self.net.take_touched(self.id));
        }
        self.look_at_streams();
        self.now = self.net.now();
        self.looked_us.set(0);
        self.batch_left = self.config.batch_max;
        self.counters.wakes += u64::from(self.waker.take());
        Ok(self.now)
    }

    fn now(&self) -> Now {
        self.now
    }

    /// The network's clock stands still during a turn. This one goes on by [`SimNet::set_look_us`] with each look, until the
    /// turn is over.
    fn clock(&self) -> Now {
        self.looked_us.set(self.looked_us.get() + self.net.look_us());
        Now(self.now.0 + self.looked_us.get())
    }

    fn cpu_us(&self) -> u64 {
        self.now.0 + self.looked_us.get()
    }

    fn recv(&mut self) -> Option<Datagram<'_>> {
        while let Some(left) = self.batch_left.checked_sub(1) {
            let (socket, reveal_local) = self.net.receive(self.id, &mut self.current)?;
            // What is dropped counts too: a turn must end even under a flood of empty datagrams.
            self.batch_left = left;
            let payload_len = self.current.bytes.len();
            if payload_len == 0 {
                self.counters.rx_empty += 1;
                continue;
            }
            if payload_len > usize::from(self.config.datagram_max) {
                self.counters.rx_truncated += 1;
                continue;
            }
            self.counters.rx_datagrams += 1;
            self.counters.rx_bytes += payload_len as u64;
            return Some(Datagram {
                socket,
                peer: self.current.from,
                local: reveal_local.then(|| self.current.to.ip()),
                payload: &self.current.bytes,
            });
        }
        None
    }

    fn has_backlog(&self) -> bool {
        self.backlog_max() > 0
    }

    fn backlog_max(&self) -> usize {
        self.net.waiting(self.id)
    }

    fn ahead(&self, _skip: usize) -> Option<(SocketAddr, &[u8])> {
        None
    }

    fn slot(&mut self, len_max: usize) -> &mut [u8] {
        if !self.outbox.has_room(len_max) {
            self.submit();
        }
        self.outbox.slot(len_max)
    }

    fn queue(&mut self, len: usize, to: &Destination) {
        self.outbox.queue(len, to, if self.config.gso { u16::MAX } else { 0 });
        self.net.has_output(self.id);
        self.counters.tx_datagrams += 1;
        self.counters.tx_bytes += len as u64;
    }

    fn connect(&mut self, to: &StreamAddr, bind: Option<IpAddr>) -> Result<StreamId, ConnectError> {
        let streams = self.streams.as_mut().ok_or(ConnectError::Streams)?;
        let id = streams.connect(&self.net, self.id, to, bind)?;
        self.look_at_streams();
        Ok(id)
    }

    /// # Errors
    /// Also if the stream belongs to another network.
    fn adopt(&mut self, stream: SimStream) -> Result<StreamId, ConnectError> {
        let streams = self.streams.as_mut().ok_or(ConnectError::Streams)?;
        streams.adopt(&self.net, self.id, stream)
    }

    fn stream_read(&mut self, id: StreamId) {
        if let Some(streams) = &mut self.streams {
            streams.table.read(id);
            self.look_at_streams();
        }
    }

    fn stream_write(&mut self, id: StreamId, bytes: &[u8]) -> usize {
        let Some(streams) = &mut self.streams else { return 0 };
        let taken = streams.table.write(id, bytes);
        self.look_at_streams();
        taken
    }

    fn stream_queued(&self, id: StreamId) -> usize {
        self.streams.as_ref().map_or(0, |streams| streams.table.queued(id))
    }

    fn stream_close(&mut self, id: StreamId, how: Close) {
        if let Some(streams) = &mut self.streams {
            streams.close(id, how);
            self.look_at_streams();
        }
    }

    fn stream_event(&mut self) -> Option<StreamEvent<'_>> {
        // Told before the event is taken: whoever asks until there is none leaves it as it is.
        self.look_at_streams();
        self.streams.as_mut()?.next_event()
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
        self.waker.clone()
    }

    fn counters(&self) -> Counters {
        Counters { rx_overflow: self.net.overflow(self.id), ..self.counters }
    }

    fn kind(&self) -> DriverKind {
        DriverKind::Sim
    }
}

impl Drop for SimDriver {
    fn drop(&mut self) {
        self.net.remove_driver(self.id);
    }
}

/// Trains that a turn may queue before it submits early.
const TRAINS_MAX: usize = 1024;

#[cfg(test)]
mod tests;
