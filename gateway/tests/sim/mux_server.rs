//! A game server that speaks yamux on the simulated network: the accepting side, written from the specification.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use net_io::sim::{SimDriver, SimNet};
use net_io::{
    Close, Driver, DriverConfig, SocketOptions, StreamAddr, StreamConfig, StreamEvent, StreamId,
};
use ppp::v2;

pub(crate) struct MuxServer {
    driver: SimDriver,
    links: Vec<Link>,
    /// What it does at the `n`th message of a stream instead of echoing it.
    pub(crate) at: Option<(u32, Manner)>,
    /// Takes messages, and gives no window for them.
    pub(crate) deaf: bool,
    /// Reads nothing at all.
    pub(crate) stuck: bool,
    pub(crate) messages: u64,
    /// Streams opened, and those that the gateway has finished.
    pub(crate) opened: u64,
    pub(crate) finished: u64,
    /// Times that the gateway went away in order.
    pub(crate) farewells: u32,
    /// Codes other than 0 with which the gateway went away.
    pub(crate) faults: Vec<u32>,
}

/// How a server leaves the path of virtue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// Ends the stream in order, after this answer.
    Fin,
    /// Cuts the stream off.
    Reset,
    /// Sends bytes that are no frame, and ruins the whole link.
    Garbage,
    /// Sends more than the stream's window.
    Overrun,
    /// Says that it takes no new streams.
    GoAway,
    /// Opens a stream of its own and says five bytes on it, and three on one that nobody opened.
    Open,
}

struct Link {
    id: StreamId,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    streams: BTreeMap<u32, Stream>,
    /// No read is under way, because it is stuck.
    unread: bool,
}

#[derive(Default)]
struct Stream {
    inbox: Vec<u8>,
    /// Frames of messages that wait for window.
    outbox: Vec<u8>,
    window: u32,
    /// Bytes to give window for.
    owed: u32,
    greeted: bool,
    messages: u32,
    closing: bool,
}

const DATA: u8 = 0;
const WINDOW: u8 = 1;
const PING: u8 = 2;
const GO_AWAY: u8 = 3;
const SYN: u16 = 1;
const ACK: u16 = 2;
const FIN: u16 = 4;
const RST: u16 = 8;

fn frame(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    let mut bytes = vec![0, kind];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

impl MuxServer {
    pub(crate) fn new(net: &SimNet, addr: &str) -> Self {
        let addr: SocketAddr = addr.parse().unwrap();
        let host = net.host(&[addr.ip()]).unwrap();
        let streams = Some(StreamConfig::default());
        let mut driver = SimDriver::new(net, &DriverConfig { streams, ..DriverConfig::default() });
        driver.add_socket(host.bind(addr, &SocketOptions::default()).unwrap()).unwrap();
        Self {
            driver,
            links: Vec::new(),
            at: None,
            deaf: false,
            stuck: false,
            messages: 0,
            opened: 0,
            finished: 0,
            farewells: 0,
            faults: Vec::new(),
        }
    }

    /// Connects to where the harness takes connections for a shard: which side connected is nothing to yamux.
    pub(crate) fn connect(&mut self, to: &StreamAddr) {
        let id = self.driver.connect(to, None).unwrap();
        self.driver.stream_read(id);
        let (inbox, outbox, streams) = (Vec::new(), Vec::new(), BTreeMap::new());
        self.links.push(Link { id, inbox, outbox, streams, unread: false });
    }

    pub(crate) fn is_due(&self) -> bool {
        self.driver.is_due()
    }

    pub(crate) fn links(&self) -> usize {
        self.links.len()
    }

    /// The process dies.
    pub(crate) fn die(&mut self) {
        for link in self.links.drain(..) {
            self.driver.stream_close(link.id, Close::Abort);
        }
        self.driver.waker().wake();
    }

    /// Says something on each link: asks whether the gateway is there.
    pub(crate) fn ask(&mut self) {
        for link in &mut self.links {
            link.outbox.extend(frame(PING, SYN, 0, 7));
        }
        self.driver.waker().wake();
    }

    /// Reads again.
    pub(crate) fn go_on(&mut self) {
        self.stuck = false;
        for link in &mut self.links {
            if std::mem::take(&mut link.unread) {
                self.driver.stream_read(link.id);
            }
        }
        self.driver.waker().wake();
    }

    /// Gives window for everything it has taken.
    pub(crate) fn listen_up(&mut self) {
        self.deaf = false;
        for link in &mut self.links {
            for (id, stream) in &mut link.streams {
                stream.grant(*id, &mut link.outbox);
            }
        }
        self.driver.waker().wake();
    }

    pub(crate) fn turn(&mut self) {
        self.driver.submit_and_wait(None).unwrap();
        let mut gone = Vec::new();
        while let Some(event) = self.driver.stream_event() {
            let id = event.id();
            let was_read = matches!(event, StreamEvent::Data(..));
            match event {
                StreamEvent::Data(_, bytes) => {
                    if let Some(link) = self.links.iter_mut().find(|link| link.id == id) {
                        link.inbox.extend_from_slice(bytes);
                    }
                }
                StreamEvent::Fin(_) | StreamEvent::Closed(..) | StreamEvent::Failed(..) => {
                    gone.push(id);
                }
                StreamEvent::Connected(_) | StreamEvent::Writable(_) => {}
            }
            if !self.stuck {
                self.driver.stream_read(id);
            } else if let Some(link) = self.links.iter_mut().find(|link| link.id == id) {
                link.unread |= was_read;
            }
        }
        let mut links = std::mem::take(&mut self.links);
        for link in &mut links {
            self.serve(link);
            let taken = self.driver.stream_write(link.id, &link.outbox);
            link.outbox.drain(..taken);
        }
        links.retain(|link| !gone.contains(&link.id));
        self.links = links;
        for id in gone {
            self.driver.stream_close(id, Close::Abort);
        }
    }

    fn serve(&mut self, link: &mut Link) {
        while let Some((head, rest)) = link.inbox.split_first_chunk::<12>() {
            let (kind, flags) = (head[1], u16::from_be_bytes([head[2], head[3]]));
            let [id, length] =
                [4, 8].map(|at| u32::from_be_bytes(head[at..at + 4].try_into().unwrap()));
            let body = if kind == DATA { length as usize } else { 0 };
            if rest.len() < body {
                return;
            }
            let body: Vec<u8> = link.inbox.drain(..12 + body).skip(12).collect();
            match kind {
                PING if flags & SYN != 0 => link.outbox.extend(frame(PING, ACK, 0, length)),
                PING => {}
                GO_AWAY if length == 0 => self.farewells += 1,
                GO_AWAY => self.faults.push(length),
                _ => self.stream_frame(link, kind, flags, id, length, &body),
            }
        }
    }

    fn stream_frame(
        &mut self,
        link: &mut Link,
        kind: u8,
        flags: u16,
        id: u32,
        length: u32,
        body: &[u8],
    ) {
        if flags & SYN != 0 {
            self.opened += 1;
            let stream = Stream { window: 256 << 10, ..Stream::default() };
            assert!(link.streams.insert(id, stream).is_none(), "opened twice");
            link.outbox.extend(frame(WINDOW, ACK, id, 0));
        }
        let Some(stream) = link.streams.get_mut(&id) else { return };
        if kind == WINDOW {
            stream.window += length;
        } else {
            stream.inbox.extend_from_slice(body);
            stream.owed += length;
        }
        let manner = self.at;
        while let Some(n) = stream.answer() {
            self.messages += 1;
            let Some((_, manner)) = manner.filter(|(at, _)| *at == n) else { continue };
            match manner {
                Manner::Fin => stream.closing = true,
                Manner::Reset => {
                    link.outbox.extend(frame(WINDOW, RST, id, 0));
                    link.streams.remove(&id);
                    return;
                }
                Manner::Garbage => link.outbox.extend([0xEE; 64]),
                Manner::Overrun => {
                    link.outbox.extend(frame(DATA, 0, id, 1 << 20));
                    link.outbox.extend(vec![0; 1 << 20]);
                }
                Manner::Open => {
                    link.outbox.extend([&frame(DATA, SYN, 2, 5)[..], b"hello"].concat());
                    link.outbox.extend([&frame(DATA, 0, 4, 3)[..], b"me?"].concat());
                }
                Manner::GoAway => link.outbox.extend(frame(GO_AWAY, 0, 0, 0)),
            }
        }
        let n = stream.outbox.len().min(stream.window as usize);
        if n > 0 {
            stream.window -= n as u32;
            link.outbox.extend(frame(DATA, 0, id, n as u32));
            link.outbox.extend(stream.outbox.drain(..n));
        }
        if !self.deaf && stream.outbox.is_empty() {
            stream.grant(id, &mut link.outbox);
        }
        if flags & RST != 0 {
            link.streams.remove(&id);
        } else if flags & FIN != 0 || (stream.closing && stream.outbox.is_empty()) {
            self.finished += u64::from(flags & FIN != 0);
            link.outbox.extend(frame(WINDOW, FIN, id, 0));
            link.streams.remove(&id);
        }
    }
}

impl Stream {
    /// Moves the next whole message from inbox to outbox; its number.
    fn answer(&mut self) -> Option<u32> {
        if !self.greeted {
            let header = v2::Header::try_from(self.inbox.as_slice()).ok()?.len();
            self.inbox.drain(..header);
            self.greeted = true;
        }
        let (prefix, rest) = self.inbox.split_first_chunk::<4>()?;
        let len = u32::from_be_bytes(*prefix) as usize;
        if rest.len() < len || self.closing {
            return None;
        }
        self.outbox.extend(self.inbox.drain(..4 + len));
        self.messages += 1;
        Some(self.messages)
    }

    fn grant(&mut self, id: u32, out: &mut Vec<u8>) {
        if self.owed > 0 {
            out.extend(frame(WINDOW, 0, id, self.owed));
            self.owed = 0;
        }
    }
}
