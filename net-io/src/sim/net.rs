//! The network between simulated drivers: hosts, bound sockets, links, the clock.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use netem::{LinkConfig, Rng};

use super::fabric::{
    DriverId, DriverState, EPHEMERAL_MIN, Group, Host, HostId, Inner, Packet, Refused, SocketState,
    charge,
};
use super::pipe::{EndId, Pipes};
use crate::driver::{Destination, Now, SocketId};
use crate::socket::SocketOptions;
use crate::steer::Steering;
use crate::stream::{ConnectError, StreamAddr, StreamConfig, StreamId};
use crate::wake::Waker;

/// How a network is made.
#[derive(Clone, Debug, Default)]
pub struct SimConfig {
    /// Decides everything that chance decides (default 0).
    pub seed: u64,
    /// Where the clock starts (default zero).
    pub start: ClockStart,
    /// Who moves the clock (default the harness).
    pub pace: Pace,
    /// Links without settings of their own (default perfect).
    pub link: LinkConfig,
    /// Chance, in parts per million, of a datagram to reach another socket of its group than the one it is steered to, as
    /// happens to all but the first datagram of a UDP_SEGMENT train (default 0).
    pub stray_ppm: u32,
}

/// Where a simulated clock starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockStart {
    /// At 0.
    #[default]
    Zero,
    /// At a given time.
    At(Now),
    /// Anywhere below the wrap of 32-bit milliseconds; the seed decides.
    Random,
    /// Two seconds before 32-bit milliseconds wrap.
    BeforeWrap,
}

/// Who moves a simulated clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// The harness, by [`SimNet::advance`]; a driver's wait returns at once.
    #[default]
    Harness,
    /// Whichever driver waits, as far as its wait lasts: one thread's driver calls then behave as with a real driver.
    Wait,
}

/// What happened on a network beside its links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// Datagrams to an address where nothing is bound.
    pub unreachable: u64,
    /// Datagrams that reached another socket of their group than the steering says.
    pub strays: u64,
}

/// A simulated network and its clock. Clones are the same network.
#[derive(Clone, Debug)]
pub struct SimNet {
    inner: Rc<RefCell<Inner>>,
}

/// A machine on the network: addresses to bind to.
#[derive(Clone, Debug)]
pub struct SimHost {
    pub(super) net: SimNet,
    pub(super) host: HostId,
}

/// A bound socket. Dropping it, or the driver that took it, closes it.
#[derive(Debug)]
pub struct SimSocket {
    net: SimNet,
    id: usize,
    addr: SocketAddr,
}

impl SimNet {
    /// A network without hosts.
    #[must_use]
    pub fn new(config: &SimConfig) -> Self {
        let mut rng = Rng::new(config.seed);
        let now_us = match config.start {
            ClockStart::Zero => 0,
            ClockStart::At(Now(us)) => us,
            ClockStart::Random => rng.below(WRAP_US),
            ClockStart::BeforeWrap => WRAP_US - 2_000_000,
        };
        let inner = Inner {
            config: config.clone(),
            now_us,
            look_us: 0,
            rng,
            hosts: Vec::new(),
            host_of: HashMap::new(),
            groups: HashMap::new(),
            sockets: Vec::new(),
            drivers: Vec::new(),
            links: Vec::new(),
            link_of: HashMap::new(),
            arrivals: BTreeSet::new(),
            pipes: Pipes::default(),
            spare: Vec::new(),
            counters: NetCounters::default(),
        };
        Self { inner: Rc::new(RefCell::new(inner)) }
    }

    /// The clock.
    #[must_use]
    pub fn now(&self) -> Now {
        Now(self.inner.borrow().now_us)
    }

    /// Lets each look at a driver's clock in the middle of a turn take `us` microseconds, as if work had been done since the last:
    /// 0 from the start.
    pub fn set_look_us(&self, us: u64) {
        self.inner.borrow_mut().look_us = us;
    }

    pub(super) fn look_us(&self) -> u64 {
        self.inner.borrow().look_us
    }

    /// Adds a machine that has `ips`.
    ///
    /// # Errors
    /// `AddrInUse` if another machine has one of them; none was added.
    pub fn host(&self, ips: &[IpAddr]) -> io::Result<SimHost> {
        let mut inner = self.inner.borrow_mut();
        if ips.iter().any(|ip| inner.host_of.contains_key(ip)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let host = inner.hosts.len();
        inner.host_of.extend(ips.iter().map(|&ip| (ip, host)));
        inner.hosts.push(Host { ips: ips.to_vec(), ephemeral: EPHEMERAL_MIN });
        Ok(SimHost { net: self.clone(), host })
    }

    /// Sets the link from one address to another, also while it is in use.
    pub fn set_link(&self, from: IpAddr, to: IpAddr, config: &LinkConfig) {
        let mut inner = self.inner.borrow_mut();
        let at = inner.link(from, to);
        inner.links[at].link.set_config(config.clone());
    }

    /// What the link from one address to another did; `None` if nothing went that way yet.
    #[must_use]
    pub fn link_counters(&self, from: IpAddr, to: IpAddr) -> Option<netem::Counters> {
        let inner = self.inner.borrow();
        inner.link_of.get(&(from, to)).map(|&at| inner.links[at].link.counters())
    }

    /// What happened beside the links.
    #[must_use]
    pub fn counters(&self) -> NetCounters {
        self.inner.borrow().counters
    }

    /// When something happens next: now, if a driver is due; else the next arrival or the next deadline of a driver's wait.
    #[must_use]
    pub fn next_event(&self) -> Option<Now> {
        self.inner.borrow().next_event().map(Now)
    }

    /// Moves the clock to the next event and delivers what arrives then. `None` when nothing will ever happen: all drivers
    /// wait without deadline and nothing is under way.
    ///
    /// While a driver is due the clock stands still, so a harness that turns all due drivers before it advances misses
    /// nothing.
    #[expect(clippy::must_use_candidate, reason = "called for moving the clock")]
    pub fn advance(&self) -> Option<Now> {
        let mut inner = self.inner.borrow_mut();
        let at_us = inner.next_event()?;
        inner.move_clock(at_us);
        Some(Now(at_us))
    }

    /// As [`SimNet::advance`], but not beyond `limit`, where the clock then stands. Returns the clock.
    #[expect(clippy::must_use_candidate, reason = "called for moving the clock")]
    pub fn advance_until(&self, limit: Now) -> Now {
        let mut inner = self.inner.borrow_mut();
        let at_us = inner.next_event().map_or(limit.0, |at_us| at_us.min(limit.0));
        inner.move_clock(at_us);
        Now(inner.now_us)
    }

    /// Moves the clock by `us` microseconds and delivers what arrives, whoever is due: nobody who is has a processor meanwhile.
    pub fn elapse(&self, us: u64) {
        let mut inner = self.inner.borrow_mut();
        let at_us = inner.now_us + us;
        inner.move_clock(at_us);
    }

    pub(super) fn add_driver(&self, waker: Waker) -> DriverId {
        let mut inner = self.inner.borrow_mut();
        let deadline_us = Some(inner.now_us);
        inner.drivers.push(Some(DriverState {
            waker,
            deadline_us,
            has_output: false,
            ready: VecDeque::new(),
            overflow: 0,
            host: None,
            touched: Vec::new(),
            has_events: false,
        }));
        inner.drivers.len() - 1
    }

    pub(super) fn remove_driver(&self, driver: DriverId) {
        self.inner.borrow_mut().drivers[driver] = None;
    }

    pub(super) fn with<T>(&self, call: impl FnOnce(&mut Inner) -> T) -> T {
        call(&mut self.inner.borrow_mut())
    }

    /// Whether this is the same network.
    pub(super) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.inner, &other.inner)
    }

    /// Listens for streams at an address of a host; which, where the address leaves it open.
    pub(super) fn listen(&self, host: HostId, addr: &StreamAddr) -> io::Result<StreamAddr> {
        let mut inner = self.inner.borrow_mut();
        let StreamAddr::Tcp(tcp) = *addr else {
            let free = inner.pipes.listen(addr);
            return if free { Ok(addr.clone()) } else { Err(io::ErrorKind::AddrInUse.into()) };
        };
        let ip = tcp.ip();
        if !ip.is_unspecified() && inner.host_of.get(&ip) != Some(&host) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let ports =
            if tcp.port() == 0 { EPHEMERAL_MIN..=u16::MAX } else { tcp.port()..=tcp.port() };
        ports
            .map(|port| StreamAddr::Tcp(SocketAddr::new(ip, port)))
            .find(|addr| inner.pipes.listen(addr))
            .ok_or_else(|| io::ErrorKind::AddrInUse.into())
    }

    /// Starts a connection from the host that a driver's sockets are on; one without sockets is on every host.
    pub(super) fn open(
        &self,
        driver: DriverId,
        bind: Option<IpAddr>,
        to: &StreamAddr,
        config: &StreamConfig,
    ) -> Result<(EndId, bool), ConnectError> {
        let mut inner = self.inner.borrow_mut();
        let host = inner.driver(driver).and_then(|state| state.host);
        inner.open(host, bind, to, config)
    }

    /// The streams to which something happened since a driver last asked.
    pub(super) fn take_touched(&self, driver: DriverId) -> Vec<StreamId> {
        let mut inner = self.inner.borrow_mut();
        inner.driver_mut(driver).map(|state| std::mem::take(&mut state.touched)).unwrap_or_default()
    }

    /// Whether a driver has something to tell its owner that the owner may not have asked for yet.
    pub(super) fn set_has_events(&self, driver: DriverId, has_events: bool) {
        if let Some(state) = self.inner.borrow_mut().driver_mut(driver) {
            state.has_events = has_events;
        }
    }

    pub(super) fn is_due(&self, driver: DriverId) -> bool {
        let inner = self.inner.borrow();
        inner.driver(driver).is_some_and(|state| state.is_due(inner.now_us))
    }

    pub(super) fn has_output(&self, driver: DriverId) {
        if let Some(state) = self.inner.borrow_mut().driver_mut(driver) {
            state.has_output = true;
        }
    }

    /// Datagrams that wait in a driver's sockets.
    pub(super) fn waiting(&self, driver: DriverId) -> usize {
        let inner = self.inner.borrow();
        let ready = inner.driver(driver).into_iter().flat_map(|state| &state.ready);
        ready.filter_map(|&socket| inner.socket(socket)).map(|state| state.queue.len()).sum()
    }

    /// Datagrams that found a driver's receive buffers full.
    pub(super) fn overflow(&self, driver: DriverId) -> u64 {
        self.inner.borrow().driver(driver).map_or(0, |state| state.overflow)
    }

    pub(super) fn attach(
        &self,
        socket: &SimSocket,
        driver: DriverId,
        id: SocketId,
    ) -> io::Result<()> {
        if !Rc::ptr_eq(&self.inner, &socket.net.inner) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the socket belongs to another simulated network",
            ));
        }
        let mut inner = self.inner.borrow_mut();
        let Some(state) = inner.socket_mut(socket.id) else { return Ok(()) };
        state.owner = Some((driver, id));
        let host = state.host;
        let overflow = state.overflow;
        let has_datagrams = !state.queue.is_empty();
        if let Some(owner) = inner.driver_mut(driver) {
            owner.overflow += overflow;
            owner.host.get_or_insert(host);
            if has_datagrams {
                owner.ready.push_back(socket.id);
            }
        }
        Ok(())
    }

    /// Ends a driver's wait: at once with [`Pace::Harness`], else by moving the clock.
    pub(super) fn wait(&self, driver: DriverId, deadline: Option<Now>) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        let now_us = inner.now_us;
        inner.move_clock(now_us);
        let deadline_us = deadline.map(|at| at.0);
        if let Some(state) = inner.driver_mut(driver) {
            state.deadline_us = deadline_us;
            state.has_output = false;
        }
        if inner.config.pace == Pace::Harness {
            return Ok(());
        }
        while !inner.driver(driver).is_some_and(|state| state.is_due(inner.now_us)) {
            let arrival_us = inner.next_arrival();
            let Some(at_us) = arrival_us.into_iter().chain(deadline_us).min() else {
                return Err(io::Error::new(
                    io::ErrorKind::Deadlock,
                    "a simulated wait without deadline, with nothing under way and nobody to wake it",
                ));
            };
            inner.move_clock(at_us);
        }
        Ok(())
    }

    pub(super) fn send(
        &self,
        socket: &SimSocket,
        to: &Destination,
        payload: &[u8],
    ) -> Result<(), Refused> {
        let mut inner = self.inner.borrow_mut();
        let from = inner.source(socket.id, to).ok_or(Refused::Error)?;
        if payload.len() > PAYLOAD_MAX || to.peer.port() == 0 {
            return Err(Refused::Error);
        }
        let state = inner.socket_mut(socket.id).ok_or(Refused::Error)?;
        if state.send_used >= state.options.send_buffer {
            return Err(Refused::BufferFull);
        }
        state.send_used += charge(payload.len());
        if !inner.host_of.contains_key(&to.peer.ip()) {
            inner.counters.unreachable += 1;
            return Ok(());
        }
        let mut bytes = inner.spare.pop().unwrap_or_default();
        bytes.extend_from_slice(payload);
        let at = inner.link(from.ip(), to.peer.ip());
        let now_us = inner.now_us;
        inner.links[at].link.push(now_us, Packet { from, to: to.peer, bytes });
        inner.schedule(at);
        Ok(())
    }

    /// The host has put on the wire what a turn has sent.
    pub(super) fn drain_send_buffer(&self, socket: &SimSocket) {
        if let Some(state) = self.inner.borrow_mut().socket_mut(socket.id) {
            state.send_used = 0;
        }
    }

    /// Takes the next datagram of a driver into `packet`. Returns its socket, and whether that is a wildcard.
    pub(super) fn receive(
        &self,
        driver: DriverId,
        packet: &mut Packet,
    ) -> Option<(SocketId, bool)> {
        let mut inner = self.inner.borrow_mut();
        loop {
            let socket = inner.driver_mut(driver)?.ready.pop_front()?;
            let Some(state) = inner.socket_mut(socket) else { continue };
            let (Some(next), Some((_, id))) = (state.queue.pop_front(), state.owner) else {
                continue;
            };
            state.recv_used -= charge(next.bytes.len());
            let wildcard = state.addr.ip().is_unspecified();
            if !state.queue.is_empty() {
                // To the back: sockets take turns.
                inner.driver_mut(driver)?.ready.push_back(socket);
            }
            let Packet { bytes, .. } = std::mem::replace(packet, next);
            inner.recycle(bytes);
            return Some((id, wildcard));
        }
    }
}

impl SimHost {
    /// Binds a socket to an address of this machine or to a wildcard (`[::]` takes IPv6 only). Port 0 picks one.
    ///
    /// # Errors
    /// `AddrNotAvailable`, `AddrInUse`.
    pub fn bind(&self, addr: SocketAddr, options: &SocketOptions) -> io::Result<SimSocket> {
        let mut group = self.bind_group(addr, 1, options)?;
        group.pop().ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// Binds `count` sockets to one address as a SO_REUSEPORT group; see [`SimSocket::steer`].
    ///
    /// # Errors
    /// As [`SimHost::bind`]; nothing was bound.
    pub fn bind_group(
        &self,
        addr: SocketAddr,
        count: usize,
        options: &SocketOptions,
    ) -> io::Result<Vec<SimSocket>> {
        let mut inner = self.net.inner.borrow_mut();
        let addr = inner.free_address(self.host, addr)?;
        let first = inner.sockets.len();
        let members: Vec<usize> = (first..first + count).collect();
        inner.sockets.extend(members.iter().map(|_| {
            Some(SocketState {
                host: self.host,
                addr,
                options: options.clone(),
                owner: None,
                queue: VecDeque::new(),
                recv_used: 0,
                send_used: 0,
                overflow: 0,
            })
        }));
        let sockets = members.iter().map(|&id| SimSocket { net: self.net.clone(), id, addr });
        let sockets = sockets.collect();
        inner.groups.insert((self.host, addr), Group { members, steering: None });
        Ok(sockets)
    }
}

impl SimSocket {
    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Lets the conversation decide which socket of this one's group gets a datagram, as the kernel's program does. Without,
    /// a hash of the two addresses decides.
    pub fn steer(&self, steering: Steering) {
        let mut inner = self.net.inner.borrow_mut();
        let Some(key) = inner.socket(self.id).map(|state| (state.host, state.addr)) else { return };
        if let Some(group) = inner.groups.get_mut(&key) {
            group.steering = Some(steering);
        }
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        let mut inner = self.net.inner.borrow_mut();
        let Some(state) = inner.sockets[self.id].take() else { return };
        let key = (state.host, state.addr);
        if let Some(group) = inner.groups.get_mut(&key) {
            // As in the kernel the last member takes the place of the one that leaves.
            if let Some(at) = group.members.iter().position(|&member| member == self.id) {
                group.members.swap_remove(at);
            }
            if group.members.is_empty() {
                inner.groups.remove(&key);
            }
        }
    }
}

/// When a clock of 32-bit milliseconds wraps, in microseconds.
const WRAP_US: u64 = 1_000 << 32;

/// The longest UDP payload over IPv4.
const PAYLOAD_MAX: usize = 65_507;
