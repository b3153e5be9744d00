//! A game server on the simulated network: framed messages over connections, with the manners a scenario asks for.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use net_io::sim::{SimDriver, SimListener, SimNet};
use net_io::{
    Close, Driver, DriverConfig, SocketOptions, StreamAddr, StreamConfig, StreamEnd, StreamEvent,
    StreamId,
};
use ppp::v2;

/// What a server does with its `n`th message on a connection, counted from 1.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// Sends every message back.
    Echo,
    /// Echoes, and closes in order with the answer to this one.
    FinAt(u32),
    /// Echoes, and cuts the connection off at this one instead of answering.
    ResetAt(u32),
    /// Echoes, and at this one announces a message longer than anybody allows.
    GarbageAt(u32),
    /// Echoes, and at this one sends half of the answer, and a FIN.
    HalfAndFinAt(u32),
    /// Echoes, and at this one sends half of the answer, and nothing more.
    HalfAt(u32),
    /// Answers each message with this many copies of it.
    Flood(u32),
}

pub(crate) struct Server {
    driver: SimDriver,
    listener: Option<SimListener>,
    pub(crate) manner: Manner,
    /// Takes nothing that is sent to it.
    pub(crate) deaf: bool,
    connections: BTreeMap<usize, Connection>,
    /// Clients as the PROXY headers named them, with their conversations.
    pub(crate) heard_of: Vec<(SocketAddr, SocketAddr, u32)>,
    pub(crate) accepted: u32,
    /// Messages that came whole.
    pub(crate) messages: u64,
    /// Connections that ended, by how.
    pub(crate) finished: u32,
    pub(crate) reset: u32,
}

struct Connection {
    id: StreamId,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    greeted: bool,
    messages: u32,
    fin: bool,
    silent: bool,
}

impl Server {
    pub(crate) fn new(net: &SimNet, addr: &str, manner: Manner) -> Self {
        let addr: SocketAddr = addr.parse().unwrap();
        let host = net.host(&[addr.ip()]).unwrap();
        let streams = StreamConfig { connecting_max: 1, ..StreamConfig::default() };
        let config = DriverConfig { streams: Some(streams), ..DriverConfig::default() };
        let mut driver = SimDriver::new(net, &config);
        let udp = host.bind(addr, &SocketOptions::default()).unwrap();
        driver.add_socket(udp).unwrap();
        let addr = StreamAddr::Tcp(addr);
        let listener = host.listen_stream(&addr).unwrap();
        listener.wake(driver.waker());
        Self {
            driver,
            listener: Some(listener),
            manner,
            deaf: false,
            connections: BTreeMap::new(),
            heard_of: Vec::new(),
            accepted: 0,
            messages: 0,
            finished: 0,
            reset: 0,
        }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.driver.is_due()
    }

    /// The process dies: nobody listens any more, and what is connected is reset.
    pub(crate) fn die(&mut self) {
        self.listener = None;
        for (_, connection) in std::mem::take(&mut self.connections) {
            self.driver.stream_close(connection.id, Close::Abort);
        }
        self.driver.waker().wake();
    }

    /// Closes all connections in order.
    pub(crate) fn close_all(&mut self) {
        for connection in self.connections.values() {
            self.driver.stream_close(connection.id, Close::Finish);
        }
        self.driver.waker().wake();
    }

    /// Begins to take what is sent to it again.
    pub(crate) fn listen_up(&mut self) {
        self.deaf = false;
        for connection in self.connections.values() {
            self.driver.stream_read(connection.id);
        }
        self.driver.waker().wake();
    }

    pub(crate) fn turn(&mut self) {
        self.driver.submit_and_wait(None).unwrap();
        while let Some(stream) = self.listener.as_ref().and_then(SimListener::accept) {
            let id = self.driver.adopt(stream).unwrap();
            self.accepted += 1;
            if !self.deaf {
                self.driver.stream_read(id);
            }
            let connection = Connection {
                id,
                inbox: Vec::new(),
                outbox: Vec::new(),
                greeted: false,
                messages: 0,
                fin: false,
                silent: false,
            };
            self.connections.insert(id.slot(), connection);
        }
        let mut touched = Vec::new();
        while let Some(event) = self.driver.stream_event() {
            let slot = event.id().slot();
            match event {
                StreamEvent::Data(_, bytes) => {
                    if let Some(connection) = self.connections.get_mut(&slot) {
                        connection.inbox.extend_from_slice(bytes);
                    }
                }
                StreamEvent::Fin(id) => {
                    if self.connections.contains_key(&slot) {
                        self.driver.stream_close(id, Close::Finish);
                    }
                }
                StreamEvent::Closed(_, end, _) => {
                    self.connections.remove(&slot);
                    *(if end == StreamEnd::Finished {
                        &mut self.finished
                    } else {
                        &mut self.reset
                    }) += 1;
                }
                StreamEvent::Connected(_) | StreamEvent::Failed(..) | StreamEvent::Writable(_) => {}
            }
            touched.push(slot);
        }
        for slot in touched {
            self.serve(slot);
        }
    }

    fn serve(&mut self, slot: usize) {
        let Some(mut connection) = self.connections.remove(&slot) else { return };
        let goes_on = self.answer(&mut connection);
        let taken = self.driver.stream_write(connection.id, &connection.outbox);
        connection.outbox.drain(..taken);
        if !goes_on {
            self.reset += 1;
            return self.driver.stream_close(connection.id, Close::Abort);
        }
        if connection.fin && connection.outbox.is_empty() {
            self.driver.stream_close(connection.id, Close::Finish);
        }
        // A server that writes blocks: it reads on when its answers are out.
        if !self.deaf && connection.outbox.is_empty() {
            self.driver.stream_read(connection.id);
        }
        self.connections.insert(slot, connection);
    }

    /// Answers what has come; `false` when the connection is to be cut off.
    fn answer(&mut self, connection: &mut Connection) -> bool {
        if !connection.greeted {
            let Ok(header) = v2::Header::try_from(connection.inbox.as_slice()) else { return true };
            let v2::Addresses::IPv4(addresses) = header.addresses else { panic!("not IPv4") };
            let conv: Vec<u32> = header
                .tlvs()
                .map(Result::unwrap)
                .map(|tlv| u32::from_be_bytes(tlv.value.as_ref().try_into().unwrap()))
                .collect();
            let from = (addresses.source_address, addresses.source_port).into();
            let to = (addresses.destination_address, addresses.destination_port).into();
            self.heard_of.push((from, to, conv[0]));
            let len = header.len();
            connection.inbox.drain(..len);
            connection.greeted = true;
        }
        while !connection.fin
            && !connection.silent
            && let Some(framed) = first_frame(&connection.inbox)
        {
            let frame: Vec<u8> = connection.inbox.drain(..framed).collect();
            self.messages += 1;
            connection.messages += 1;
            let n = connection.messages;
            let half = &frame[..frame.len().div_ceil(2)];
            match self.manner {
                Manner::ResetAt(at) if n == at => return false,
                Manner::GarbageAt(at) if n == at => {
                    connection.outbox.extend_from_slice(&[0xFF; 16]);
                }
                Manner::HalfAndFinAt(at) if n == at => {
                    connection.outbox.extend_from_slice(half);
                    connection.fin = true;
                }
                Manner::HalfAt(at) if n == at => {
                    connection.outbox.extend_from_slice(half);
                    connection.silent = true;
                }
                Manner::FinAt(at) if n == at => {
                    connection.outbox.extend_from_slice(&frame);
                    connection.fin = true;
                }
                Manner::Flood(copies) => {
                    (0..copies).for_each(|_| connection.outbox.extend_from_slice(&frame));
                }
                Manner::Echo
                | Manner::FinAt(_)
                | Manner::ResetAt(_)
                | Manner::GarbageAt(_)
                | Manner::HalfAndFinAt(_)
                | Manner::HalfAt(_) => connection.outbox.extend_from_slice(&frame),
            }
        }
        true
    }
}

/// The length of the first whole frame: four bytes of length, the highest first, and the message.
fn first_frame(bytes: &[u8]) -> Option<usize> {
    let (prefix, rest) = bytes.split_first_chunk::<4>()?;
    let len = u32::from_be_bytes(*prefix) as usize;
    (rest.len() >= len).then_some(4 + len)
}
