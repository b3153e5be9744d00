//! Connections of a simulated network: bytes that arrive whole and in order, after the link's delay, as far as there is room.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::fabric::{DriverId, HostId, Inner};
use crate::stream::{ConnectError, StreamAddr, StreamConfig, StreamId};
use crate::wake::Waker;

/// One end of a connection: the connection's number, twice, and which of its two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndId(usize);

impl EndId {
    const fn new(pipe: usize, side: usize) -> Self {
        Self(2 * pipe + side)
    }

    const fn pipe(self) -> usize {
        self.0 / 2
    }

    const fn peer(self) -> Self {
        Self(self.0 ^ 1)
    }
}

/// All connections, listeners, and what is under way between them.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pipes: Vec<Option<Pipe>>,
    free: Vec<usize>,
    listeners: HashMap<StreamAddr, Listener>,
    /// When which end has something arriving.
    arrivals: BTreeSet<(u64, EndId)>,
}

#[derive(Debug)]
struct Listener {
    backlog: VecDeque<EndId>,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Pipe {
    ends: [End; 2],
    /// Where it was connected to.
    to: StreamAddr,
}

#[derive(Debug)]
struct End {
    /// Decides the delay; a Unix socket has none.
    ip: Option<IpAddr>,
    owner: Option<(DriverId, StreamId)>,
    heard: Heard,
    said: Said,
    inbox: VecDeque<u8>,
    /// On its way to this end. Times never go back.
    coming: VecDeque<(u64, Segment)>,
    /// Bytes sent that the peer has not read, and how many there may be.
    unread: usize,
    window: usize,
}

/// What an end knows of its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// No answer yet.
    Nothing,
    /// Nobody listens.
    Refusal,
    /// It is there.
    Answer,
    /// It has sent everything.
    Fin,
    /// It has cut the connection off.
    Reset,
}

/// What an end's owner has said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Open,
    Fin,
    /// The owner has dropped it.
    Gone,
}

#[derive(Debug)]
enum Segment {
    Connect,
    Answer,
    Refusal,
    Bytes(Vec<u8>),
    /// So many bytes have been read.
    Room(usize),
    Fin,
    Reset,
}

impl End {
    fn new(ip: Option<IpAddr>, heard: Heard, window: usize) -> Self {
        Self {
            ip,
            owner: None,
            heard,
            said: Said::Open,
            inbox: VecDeque::new(),
            coming: VecDeque::new(),
            unread: 0,
            window,
        }
    }

    fn is_readable(&self) -> bool {
        !self.inbox.is_empty() || matches!(self.heard, Heard::Fin | Heard::Reset)
    }

    /// Whether a send would tell something, if only that it fails.
    fn is_writable(&self) -> bool {
        match self.heard {
            Heard::Nothing => false,
            Heard::Answer | Heard::Fin => self.unread < self.window,
            Heard::Refusal | Heard::Reset => true,
        }
    }
}

impl Pipes {
    fn end(&self, id: EndId) -> Option<&End> {
        self.pipes.get(id.pipe())?.as_ref().map(|pipe| &pipe.ends[id.0 % 2])
    }

    fn end_mut(&mut self, id: EndId) -> Option<&mut End> {
        self.pipes.get_mut(id.pipe())?.as_mut().map(|pipe| &mut pipe.ends[id.0 % 2])
    }

    fn insert(&mut self, pipe: Pipe) -> EndId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.pipes.push(None);
            self.pipes.len() - 1
        });
        self.pipes[place] = Some(pipe);
        EndId::new(place, 0)
    }

    /// When something arrives next.
    pub(super) fn next_arrival(&self) -> Option<u64> {
        self.arrivals.first().map(|&(at_us, _)| at_us)
    }

    pub(super) fn listen(&mut self, addr: &StreamAddr) -> bool {
        let listener = Listener { backlog: VecDeque::new(), waker: None };
        let free = !self.listeners.contains_key(addr);
        if free {
            self.listeners.insert(addr.clone(), listener);
        }
        free
    }

    pub(super) fn set_waker(&mut self, addr: &StreamAddr, waker: Waker) {
        if let Some(listener) = self.listeners.get_mut(addr) {
            listener.waker = Some(waker);
        }
    }

    pub(super) fn accept(&mut self, addr: &StreamAddr) -> Option<EndId> {
        self.listeners.get_mut(addr)?.backlog.pop_front()
    }

    /// Whoever an end belongs to is told what happens to it.
    pub(super) fn set_owner(&mut self, end: EndId, owner: (DriverId, StreamId)) {
        if let Some(end) = self.end_mut(end) {
            end.owner = Some(owner);
        }
    }

    pub(super) fn is_readable(&self, end: EndId) -> bool {
        self.end(end).is_some_and(End::is_readable)
    }

    pub(super) fn is_writable(&self, end: EndId) -> bool {
        self.end(end).is_some_and(End::is_writable)
    }

    pub(super) fn connect_result(&self, end: EndId) -> Result<(), ConnectError> {
        match self.end(end).map(|end| end.heard) {
            Some(Heard::Refusal) | None => Err(ConnectError::Refused),
            Some(Heard::Nothing | Heard::Answer | Heard::Fin | Heard::Reset) => Ok(()),
        }
    }

    /// The listener for a connection to `addr`: at that very address, or at its family's wildcard.
    fn listener(&mut self, addr: &StreamAddr) -> Option<&mut Listener> {
        if let StreamAddr::Tcp(tcp) = addr
            && !self.listeners.contains_key(addr)
        {
            let any: IpAddr = if tcp.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
            return self.listeners.get_mut(&SocketAddr::new(any, tcp.port()).into());
        }
        self.listeners.get_mut(addr)
    }
}

impl Inner {
    /// Starts a connection from a host, if that is known. The flag tells whether it is made already.
    pub(super) fn open(
        &mut self,
        host: Option<HostId>,
        bind: Option<IpAddr>,
        to: &StreamAddr,
        config: &StreamConfig,
    ) -> Result<(EndId, bool), ConnectError> {
        let window = |bytes| WINDOW + if bytes == 0 { WINDOW } else { bytes };
        let (from, to_ip, heard) = match to {
            StreamAddr::Unix(_) => (None, None, Heard::Answer),
            StreamAddr::Tcp(addr) => {
                let from = self.local_ip(host, bind, addr.ip())?;
                (Some(from), Some(addr.ip()), Heard::Nothing)
            }
        };
        if heard == Heard::Answer && self.pipes.listener(to).is_none() {
            return Err(ConnectError::Refused);
        }
        let ends = [
            End::new(from, heard, window(config.send_buffer)),
            End::new(to_ip, Heard::Answer, window(config.recv_buffer)),
        ];
        let end = self.pipes.insert(Pipe { ends, to: to.clone() });
        if heard != Heard::Answer {
            self.send_segment(end, Segment::Connect);
        } else if !self.enlist(end.peer()) {
            self.remove_pipe(end.pipe());
            return Err(ConnectError::Busy);
        }
        Ok((end, heard == Heard::Answer))
    }

    fn local_ip(
        &self,
        host: Option<HostId>,
        bind: Option<IpAddr>,
        to: IpAddr,
    ) -> Result<IpAddr, ConnectError> {
        let Some(host) = host else { return Ok(bind.unwrap_or(to)) };
        let own =
            |ip: &&IpAddr| ip.is_ipv4() == to.is_ipv4() && bind.is_none_or(|bind| bind == **ip);
        let missing = if bind.is_some() { ConnectError::Ports } else { ConnectError::Unreachable };
        self.hosts[host].ips.iter().find(own).copied().ok_or(missing)
    }

    /// Puts the accepting end of a connection into its listener's backlog; whether there was one with room.
    fn enlist(&mut self, end: EndId) -> bool {
        let Some(Some(pipe)) = self.pipes.pipes.get(end.pipe()) else { return false };
        let to = pipe.to.clone();
        let Some(listener) = self.pipes.listener(&to) else { return false };
        if listener.backlog.len() >= BACKLOG_MAX {
            return false;
        }
        listener.backlog.push_back(end);
        if let Some(waker) = &listener.waker {
            waker.wake();
        }
        true
    }

    /// Sends as much as the window has room for.
    pub(super) fn send_bytes(&mut self, id: EndId, bytes: &[u8]) -> Result<usize, i32> {
        let end = self.pipes.end_mut(id).ok_or(libc::EPIPE)?;
        match end.heard {
            Heard::Answer | Heard::Fin if end.said == Said::Open => {}
            Heard::Nothing => return Err(libc::EAGAIN),
            Heard::Reset => return Err(libc::ECONNRESET),
            Heard::Refusal | Heard::Answer | Heard::Fin => return Err(libc::EPIPE),
        }
        let len = bytes.len().min(end.window.saturating_sub(end.unread));
        if len == 0 {
            return Err(libc::EAGAIN);
        }
        end.unread += len;
        self.send_segment(id, Segment::Bytes(bytes[..len].to_vec()));
        Ok(len)
    }

    /// Reads what has arrived; 0 is the end.
    pub(super) fn read_bytes(&mut self, id: EndId, out: &mut [u8]) -> Result<usize, i32> {
        let end = self.pipes.end_mut(id).ok_or(libc::EBADF)?;
        if end.inbox.is_empty() {
            return match end.heard {
                Heard::Fin => Ok(0),
                Heard::Reset => Err(libc::ECONNRESET),
                Heard::Nothing | Heard::Refusal | Heard::Answer => Err(libc::EAGAIN),
            };
        }
        let len = end.inbox.len().min(out.len());
        for (to, byte) in out.iter_mut().zip(end.inbox.drain(..len)) {
            *to = byte;
        }
        self.send_segment(id, Segment::Room(len));
        Ok(len)
    }

    pub(super) fn finish_end(&mut self, id: EndId) {
        if let Some(end) = self.pipes.end_mut(id)
            && end.said == Said::Open
        {
            end.said = Said::Fin;
            self.send_segment(id, Segment::Fin);
        }
    }

    /// The owner is done with an end. What it has not read makes that a reset, as `reset` does.
    pub(super) fn drop_end(&mut self, id: EndId, reset: bool) {
        let Some(end) = self.pipes.end_mut(id) else { return };
        let said = std::mem::replace(&mut end.said, Said::Gone);
        end.owner = None;
        if reset || !end.inbox.is_empty() {
            self.send_segment(id, Segment::Reset);
        } else if said == Said::Open {
            self.send_segment(id, Segment::Fin);
        }
        if self.pipes.end(id.peer()).is_some_and(|peer| peer.said == Said::Gone) {
            self.remove_pipe(id.pipe());
        }
    }

    pub(super) fn drop_listener(&mut self, addr: &StreamAddr) {
        if let Some(listener) = self.pipes.listeners.remove(addr) {
            for end in listener.backlog {
                self.drop_end(end, true);
            }
        }
    }

    fn remove_pipe(&mut self, place: usize) {
        if let Some(pipe) = self.pipes.pipes[place].take() {
            for (side, end) in pipe.ends.iter().enumerate() {
                if let Some(&(at_us, _)) = end.coming.front() {
                    self.pipes.arrivals.remove(&(at_us, EndId::new(place, side)));
                }
            }
            self.pipes.free.push(place);
        }
    }

    /// Sends a segment to the peer of `from`.
    fn send_segment(&mut self, from: EndId, segment: Segment) {
        let to = from.peer();
        let ips = |end: EndId| self.pipes.end(end).and_then(|end| end.ip);
        let at_us = match (ips(from), ips(to)) {
            (Some(from), Some(to)) => match self.arrival(from, to) {
                Some(at_us) => at_us,
                // Lost for good, and with it all that would have followed.
                None => NEVER_US,
            },
            _ => self.now_us,
        };
        let Some(end) = self.pipes.end_mut(to) else { return };
        let last = end.coming.back().map_or(0, |&(at_us, _)| at_us);
        let at_us = at_us.max(last);
        if end.coming.is_empty() && at_us != NEVER_US {
            self.pipes.arrivals.insert((at_us, to));
        }
        if let Some(end) = self.pipes.end_mut(to) {
            end.coming.push_back((at_us, segment));
        }
    }

    /// When something sent now arrives. What the link loses is sent again after a time that doubles, as TCP does.
    fn arrival(&mut self, from: IpAddr, to: IpAddr) -> Option<u64> {
        let link = self.link(from, to);
        let config = self.links[link].link.config();
        let (delay_us, jitter_us, loss_ppm) = (config.delay_us, config.jitter_us, config.loss_ppm);
        let mut at_us = self.now_us;
        for attempt in 0..ATTEMPTS_MAX {
            let dark = self.links[link].link.config().blackouts.iter().any(|b| b.covers(at_us));
            if !dark && !self.rng.chance_ppm(loss_ppm) {
                return Some(at_us + delay_us + self.rng.below(jitter_us + 1));
            }
            at_us += RETRY_US << attempt;
        }
        None
    }

    /// Hands over what arrives at streams at `at_us`, the earliest time there is.
    pub(super) fn arrive_at_streams(&mut self, at_us: u64) {
        while let Some(&(due_us, id)) = self.pipes.arrivals.first() {
            if due_us > at_us {
                return;
            }
            self.pipes.arrivals.pop_first();
            let Some(end) = self.pipes.end_mut(id) else { continue };
            let segment = end.coming.pop_front().map(|(_, segment)| segment);
            let next =
                end.coming.front().map(|&(at_us, _)| at_us).filter(|&at_us| at_us != NEVER_US);
            self.pipes.arrivals.extend(next.map(|at_us| (at_us, id)));
            if let Some(segment) = segment {
                self.take_segment(id, segment);
            }
        }
    }

    fn take_segment(&mut self, id: EndId, segment: Segment) {
        if matches!(segment, Segment::Connect) {
            let ip = self.pipes.end(id).and_then(|end| end.ip);
            if !ip.is_some_and(|ip| self.host_of.contains_key(&ip)) {
                return; // no machine, no answer
            }
            let answer = if self.enlist(id) { Segment::Answer } else { Segment::Refusal };
            return self.send_segment(id, answer);
        }
        let Some(end) = self.pipes.end_mut(id) else { return };
        match segment {
            Segment::Connect => {}
            Segment::Answer => end.heard = Heard::Answer,
            Segment::Refusal => end.heard = Heard::Refusal,
            Segment::Bytes(_) if end.said == Said::Gone => {
                return self.send_segment(id, Segment::Reset);
            }
            Segment::Bytes(bytes) => end.inbox.extend(bytes),
            Segment::Room(len) => end.unread -= len,
            Segment::Fin => end.heard = Heard::Fin,
            Segment::Reset => end.heard = Heard::Reset,
        }
        if let Some((driver, stream)) = end.owner
            && let Some(driver) = self.driver_mut(driver)
        {
            driver.touched.push(stream);
        }
    }
}

/// What each kernel's buffer of a connection holds where nobody says otherwise.
const WINDOW: usize = 64 << 10;
/// Connections that wait to be accepted.
const BACKLOG_MAX: usize = 4096;
/// How long a lost segment is missed for at first, and how often it is sent in all.
const RETRY_US: u64 = 200_000;
const ATTEMPTS_MAX: u32 = 10;
/// When what was lost for good arrives.
const NEVER_US: u64 = u64::MAX;
