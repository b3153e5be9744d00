//! What a simulated network is made of, and how a datagram finds its socket.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netem::{Link, Rng};

use super::net::{NetCounters, SimConfig};
use super::pipe::Pipes;
use crate::driver::{Destination, SocketId};
use crate::socket::SocketOptions;
use crate::steer::Steering;
use crate::stream::StreamId;
use crate::wake::Waker;

/// Why a datagram was not sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refused {
    /// The socket's send buffer is full.
    BufferFull,
    /// The kernel would call it an error.
    Error,
}

pub(super) type DriverId = usize;
pub(super) type HostId = usize;

/// A datagram under way.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

impl Default for Packet {
    fn default() -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self { from: nowhere, to: nowhere, bytes: Vec::new() }
    }
}

impl AsMut<[u8]> for Packet {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: SimConfig,
    pub(super) now_us: u64,
    /// See [`SimNet::set_look_us`](super::SimNet::set_look_us).
    pub(super) look_us: u64,
    pub(super) rng: Rng,
    pub(super) hosts: Vec<Host>,
    pub(super) host_of: HashMap<IpAddr, HostId>,
    pub(super) groups: HashMap<(HostId, SocketAddr), Group>,
    pub(super) sockets: Vec<Option<SocketState>>,
    pub(super) drivers: Vec<Option<DriverState>>,
    pub(super) links: Vec<LinkState>,
    pub(super) link_of: HashMap<(IpAddr, IpAddr), usize>,
    /// When which link has its next packet.
    pub(super) arrivals: BTreeSet<(u64, usize)>,
    pub(super) pipes: Pipes,
    /// Emptied payload buffers.
    pub(super) spare: Vec<Vec<u8>>,
    pub(super) counters: NetCounters,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) ips: Vec<IpAddr>,
    /// The next port to try for port 0.
    pub(super) ephemeral: u16,
}

#[derive(Debug)]
pub(super) struct Group {
    /// In the order bound.
    pub(super) members: Vec<usize>,
    pub(super) steering: Option<Steering>,
}

#[derive(Debug)]
pub(super) struct SocketState {
    pub(super) host: HostId,
    pub(super) addr: SocketAddr,
    pub(super) options: SocketOptions,
    pub(super) owner: Option<(DriverId, SocketId)>,
    pub(super) queue: VecDeque<Packet>,
    pub(super) recv_used: usize,
    pub(super) send_used: usize,
    /// Datagrams dropped before a driver took the socket.
    pub(super) overflow: u64,
}

#[derive(Debug)]
pub(super) struct DriverState {
    pub(super) waker: Waker,
    pub(super) deadline_us: Option<u64>,
    pub(super) has_output: bool,
    /// Sockets with datagrams, each once.
    pub(super) ready: VecDeque<usize>,
    pub(super) overflow: u64,
    /// Where its first socket is.
    pub(super) host: Option<HostId>,
    /// Streams to which something happened since its last turn.
    pub(super) touched: Vec<StreamId>,
    /// It has told nobody yet what happened to its streams.
    pub(super) has_events: bool,
}

impl DriverState {
    pub(super) fn is_due(&self, now_us: u64) -> bool {
        self.has_output
            || !self.ready.is_empty()
            || !self.touched.is_empty()
            || self.has_events
            || self.waker.is_pending()
            || self.deadline_us.is_some_and(|at_us| at_us <= now_us)
    }
}

#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) link: Link<Packet>,
    /// What `arrivals` says of it.
    pub(super) scheduled: Option<u64>,
}

impl Inner {
    pub(super) fn driver(&self, id: DriverId) -> Option<&DriverState> {
        self.drivers.get(id)?.as_ref()
    }

    pub(super) fn driver_mut(&mut self, id: DriverId) -> Option<&mut DriverState> {
        self.drivers.get_mut(id)?.as_mut()
    }

    pub(super) fn socket(&self, id: usize) -> Option<&SocketState> {
        self.sockets.get(id)?.as_ref()
    }

    pub(super) fn socket_mut(&mut self, id: usize) -> Option<&mut SocketState> {
        self.sockets.get_mut(id)?.as_mut()
    }

    pub(super) fn next_event(&self) -> Option<u64> {
        let mut drivers = self.drivers.iter().flatten();
        if drivers.clone().any(|state| state.is_due(self.now_us)) {
            return Some(self.now_us);
        }
        let arrival_us = self.next_arrival();
        let deadline_us = drivers.by_ref().filter_map(|state| state.deadline_us).min();
        arrival_us.into_iter().chain(deadline_us).min()
    }

    /// When something arrives next.
    pub(super) fn next_arrival(&self) -> Option<u64> {
        let datagram_us = self.arrivals.first().map(|&(at_us, _)| at_us);
        datagram_us.into_iter().chain(self.pipes.next_arrival()).min()
    }

    /// Moves the clock, never back, and hands over all that arrives on the way.
    pub(super) fn move_clock(&mut self, at_us: u64) {
        self.now_us = self.now_us.max(at_us);
        self.arrive_at_streams(self.now_us);
        while let Some(&(at_us, link)) = self.arrivals.first() {
            if at_us > self.now_us {
                break;
            }
            if let Some(packet) = self.links[link].link.pop(at_us) {
                self.arrive(packet);
            }
            self.schedule(link);
        }
    }

    /// Puts a datagram into the socket that gets it, if there is one with room.
    fn arrive(&mut self, packet: Packet) {
        let Some(id) = self.receiver(&packet) else {
            self.counters.unreachable += 1;
            return self.recycle(packet.bytes);
        };
        let Some(state) = self.sockets.get_mut(id).and_then(Option::as_mut) else { return };
        let owner = state
            .owner
            .and_then(|(driver, _)| self.drivers.get_mut(driver).and_then(Option::as_mut));
        let charged = charge(packet.bytes.len());
        if state.recv_used + charged > state.options.recv_buffer {
            match owner {
                Some(owner) => owner.overflow += 1,
                None => state.overflow += 1,
            }
            return self.recycle(packet.bytes);
        }
        state.recv_used += charged;
        if state.queue.is_empty() {
            owner.into_iter().for_each(|owner| owner.ready.push_back(id));
        }
        state.queue.push_back(packet);
    }

    /// The socket that gets a datagram: of its group the one that the steering, or a hash of the addresses, names.
    fn receiver(&mut self, packet: &Packet) -> Option<usize> {
        let host = *self.host_of.get(&packet.to.ip())?;
        let wildcard = SocketAddr::new(any_of(packet.to.ip()), packet.to.port());
        let group =
            self.groups.get(&(host, packet.to)).or_else(|| self.groups.get(&(host, wildcard)))?;
        let count = group.members.len();
        let by_hash = || address_hash(self.config.seed, packet.from, packet.to) % count as u64;
        let place = match (group.steering, packet.bytes.first_chunk::<4>()) {
            (Some(steering), Some(conv)) => {
                let shard = u64::from(steering.shard(u32::from_le_bytes(*conv)));
                if shard < count as u64 { shard } else { by_hash() }
            }
            // The program's load of the first word fails: it answers 0.
            (Some(_), None) => 0,
            (None, _) => by_hash(),
        };
        let mut place = usize::try_from(place).ok()?;
        if count > 1 && self.rng.chance_ppm(self.config.stray_ppm) {
            let further = 1 + usize::try_from(self.rng.below(count as u64 - 1)).ok()?;
            place = (place + further) % count;
            self.counters.strays += 1;
        }
        group.members.get(place).copied()
    }

    /// The address a datagram leaves from; `None` where the kernel would refuse.
    pub(super) fn source(&self, socket: usize, to: &Destination) -> Option<SocketAddr> {
        let &SocketState { host, addr, .. } = self.socket(socket)?;
        let ip = addr.ip();
        if ip.is_ipv4() != to.peer.is_ipv4() {
            return None;
        }
        if !ip.is_unspecified() {
            return Some(addr);
        }
        let ips = &self.hosts.get(host)?.ips;
        let ip = match to.local {
            Some(local) => ips.iter().find(|&&own| own == local && own.is_ipv4() == ip.is_ipv4()),
            None => ips.iter().find(|own| own.is_ipv4() == ip.is_ipv4()),
        };
        ip.map(|&ip| SocketAddr::new(ip, addr.port()))
    }

    /// The address to bind to: `addr`, with a free port where it has none.
    pub(super) fn free_address(
        &mut self,
        host: HostId,
        addr: SocketAddr,
    ) -> io::Result<SocketAddr> {
        let ip = addr.ip();
        if !ip.is_unspecified() && self.host_of.get(&ip) != Some(&host) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        if addr.port() != 0 {
            let free = self.is_free(host, addr);
            return free.then_some(addr).ok_or_else(|| io::ErrorKind::AddrInUse.into());
        }
        for _ in EPHEMERAL_MIN..=u16::MAX {
            let port = self.hosts[host].ephemeral;
            self.hosts[host].ephemeral = port.checked_add(1).unwrap_or(EPHEMERAL_MIN);
            let addr = SocketAddr::new(ip, port);
            if self.is_free(host, addr) {
                return Ok(addr);
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// Whether nothing is bound to `addr`, to its wildcard, or, if it is the wildcard, to any of the host's addresses.
    fn is_free(&self, host: HostId, addr: SocketAddr) -> bool {
        let taken = |ip| self.groups.contains_key(&(host, SocketAddr::new(ip, addr.port())));
        let any = any_of(addr.ip());
        let same_family = |ip: &&IpAddr| ip.is_ipv4() == any.is_ipv4();
        let own = if addr.ip() == any { self.hosts[host].ips.as_slice() } else { &[] };
        !taken(addr.ip()) && !taken(any) && !own.iter().filter(same_family).any(|&ip| taken(ip))
    }

    /// The link between two addresses; its randomness depends on them and the seed, not on when it is first used.
    pub(super) fn link(&mut self, from: IpAddr, to: IpAddr) -> usize {
        let (config, links) = (&self.config, &mut self.links);
        *self.link_of.entry((from, to)).or_insert_with(|| {
            let seed = address_hash(config.seed, (from, 0).into(), (to, 0).into());
            links.push(LinkState { link: Link::new(config.link.clone(), seed), scheduled: None });
            links.len() - 1
        })
    }

    /// Brings `arrivals` up to date with a link.
    pub(super) fn schedule(&mut self, link: usize) {
        let next = self.links[link].link.next_time();
        let scheduled = std::mem::replace(&mut self.links[link].scheduled, next);
        if scheduled != next {
            if let Some(at_us) = scheduled {
                self.arrivals.remove(&(at_us, link));
            }
            self.arrivals.extend(next.map(|at_us| (at_us, link)));
        }
    }

    pub(super) fn recycle(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}

/// The wildcard of an address's family.
fn any_of(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// FNV-1a over both addresses, then mixed.
fn address_hash(seed: u64, from: SocketAddr, to: SocketAddr) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325 ^ seed;
    for addr in [from, to] {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        for byte in ip.octets().into_iter().chain(addr.port().to_be_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
    Rng::new(hash).next_u64()
}

/// What a datagram takes of a socket's buffer: its bytes and about what the kernel adds.
pub(super) const fn charge(payload_len: usize) -> usize {
    payload_len + 768
}

/// Where ports for port 0 are taken from.
pub(super) const EPHEMERAL_MIN: u16 = 49_152;

/// Payload buffers kept for reuse.
const SPARE_MAX: usize = 4_096;
