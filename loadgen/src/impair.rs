//! `kcp-loadgen impair`: a bad network between any UDP clients and a server.
//!
//! ```text
//!  client --> listen socket --> [link up]   --> the client's own upstream socket --> target
//!  client <-- listen socket <-- [link down] <-- the client's own upstream socket <-- target
//! ```
//!
//! The target sees one address per client, as behind a NAT, and as there an address that was silent for the idle timeout is
//! given to the next client. All clients share the two links, so a rate limit is theirs together.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};
use kcp_core::{Millis, Wheel};
use net_io::probe::ProbeError;
use net_io::socket::BindError;
use net_io::{
    Destination, Driver, DriverConfig, DriverKind, EpollDriver, IoChoice, Now, Probe, SocketId,
    SocketOptions, UdpSocket, UringDriver, Waker,
};
use netem::{Link, LinkConfig};

use crate::host::{FileLimitError, allow_sockets};
use crate::seed::mix64;
use crate::timeline::{at_millis, millis};

/// A bad network. Both directions have the same settings and seeds of their own.
#[derive(Clone, Debug)]
pub struct Impair {
    /// Where clients send; port 0 picks one.
    pub listen: SocketAddr,
    /// Where their datagrams go.
    pub target: SocketAddr,
    /// The address towards the target, of the target's family.
    pub source: IpAddr,
    /// What happens on the way.
    pub link: LinkConfig,
    /// Everything random is a function of this and of the order of the datagrams.
    pub seed: u64,
    /// Clients at once; datagrams of further ones are dropped and counted (default 1,024). Each has a socket.
    pub clients_max: u16,
    /// A client silent for this long is forgotten (default 60 s).
    pub idle_timeout: Duration,
    /// The driver.
    pub io: IoChoice,
}

impl Impair {
    /// A perfect network on a free port of `listen`'s address.
    #[must_use]
    pub fn new(listen: SocketAddr, target: SocketAddr, source: IpAddr) -> Self {
        Self {
            listen,
            target,
            source,
            link: LinkConfig::default(),
            seed: crate::seed::fresh(),
            clients_max: 1024,
            idle_timeout: Duration::from_secs(60),
            io: IoChoice::Auto,
        }
    }
}

/// What passed through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Towards the target.
    pub up: netem::Counters,
    /// Towards the clients.
    pub down: netem::Counters,
    /// Clients seen; one that came back after its idle timeout counts again.
    pub clients: u64,
    /// Datagrams dropped because `clients_max` clients were there already, or because their socket could not be had.
    pub refused: u64,
    /// Datagrams that came to an upstream socket from elsewhere than the target, or for a client that is forgotten.
    pub strangers: u64,
}

/// Why the proxy could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ImpairError {
    /// The address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Too few files may be opened.
    #[error(transparent)]
    Files(#[from] FileLimitError),
    /// The driver asked for cannot be had.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The driver or a socket failed.
    #[error("the {kind:?} driver failed: {source}")]
    Driver {
        /// Which one.
        kind: DriverKind,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The thread could not be started.
    #[error("cannot start the proxy's thread: {0}")]
    Spawn(#[source] io::Error),
    /// The thread ended without a word: a defect of this program.
    #[error("the proxy's thread panicked; this is a defect of the load generator")]
    Panicked,
}

/// A running proxy. Dropping it leaves it running until the process ends.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    waker: Waker,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Totals, ImpairError>>,
}

impl Proxy {
    /// Binds and starts; it forwards when this returns.
    ///
    /// # Errors
    /// Nothing is left running.
    pub fn start(config: &Impair) -> Result<Self, ImpairError> {
        allow_sockets(u32::from(config.clients_max) + 1, 1)?;
        let driver_config = DriverConfig {
            datagram_max: DATAGRAM_MAX,
            // A train is steered and lost as one; a network passes datagrams.
            gso: false,
            ..DriverConfig::default()
        };
        let probe = Probe::run(config.io, &driver_config)?;
        let (sender, receiver) = bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let part = Part {
            config: config.clone(),
            kind: probe.kind,
            stop: Arc::clone(&stop),
            ready: sender,
        };
        let thread = thread::Builder::new()
            .name("impair".to_owned())
            .spawn(move || forward(part, &driver_config))
            .map_err(ImpairError::Spawn)?;
        match receiver.recv() {
            Ok((addr, waker)) => Ok(Self { addr, waker, stop, thread }),
            // It hung up: its result says why.
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error),
                Ok(Ok(_)) | Err(_) => Err(ImpairError::Panicked),
            },
        }
    }

    /// Where clients send, as bound.
    #[must_use]
    pub fn listen_addr(&self) -> SocketAddr {
        self.addr
    }

    /// It has ended by itself, which it does only when its driver fails: [`Proxy::stop`] says how.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops forwarding; what is under way is dropped.
    ///
    /// # Errors
    /// It had failed before.
    pub fn stop(self) -> Result<Totals, ImpairError> {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        self.thread.join().unwrap_or(Err(ImpairError::Panicked))
    }
}

/// What the thread is started with.
struct Part {
    config: Impair,
    kind: DriverKind,
    stop: Arc<AtomicBool>,
    ready: Sender<(SocketAddr, Waker)>,
}

fn forward(part: Part, driver_config: &DriverConfig) -> Result<Totals, ImpairError> {
    let kind = part.kind;
    let failed = |source| ImpairError::Driver { kind, source };
    match kind {
        DriverKind::Uring => serve(part, UringDriver::new(driver_config).map_err(failed)?),
        // The probe never chooses the simulator; epoll runs everywhere.
        DriverKind::Epoll | DriverKind::Sim => {
            serve(part, EpollDriver::new(driver_config).map_err(failed)?)
        }
    }
}

fn serve<D: Driver<Socket = UdpSocket>>(part: Part, mut driver: D) -> Result<Totals, ImpairError> {
    let Part { config, kind, stop, ready } = part;
    let failed = |source| ImpairError::Driver { kind, source };
    let socket = UdpSocket::bind(config.listen, &SocketOptions::default())?;
    let addr = socket.local_addr().map_err(failed)?;
    driver.add_socket(socket).map_err(failed)?;
    let mut relay = Relay::new(config, driver.now());
    // Nobody listens when the starter has panicked; then nobody will stop us either, and the process is ending.
    let _ = ready.send((addr, driver.waker()));
    while !stop.load(Ordering::Relaxed) {
        let now = driver.submit_and_wait(relay.next_deadline(driver.now())).map_err(failed)?;
        while let Some(datagram) = driver.recv() {
            // A packet on a link outlives the driver's buffer: the copy is what a network is made of.
            let arrived = Arrived {
                socket: datagram.socket,
                peer: datagram.peer,
                local: datagram.local,
                bytes: datagram.payload.to_vec(),
            };
            relay.take(now, arrived, &mut driver);
        }
        relay.release(now, &mut driver);
        relay.expire(now);
    }
    Ok(relay.totals())
}

/// A datagram off its socket.
struct Arrived {
    socket: SocketId,
    peer: SocketAddr,
    local: Option<IpAddr>,
    bytes: Vec<u8>,
}

/// A datagram on a link.
#[derive(Clone, Debug)]
struct Packet {
    to: Destination,
    bytes: Vec<u8>,
}

impl AsMut<[u8]> for Packet {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// Who is who, and the two links.
struct Relay {
    config: Impair,
    up: Link<Packet>,
    down: Link<Packet>,
    by_addr: HashMap<SocketAddr, u16>,
    /// Slot `n` has upstream socket `n + 1` of the driver; a free slot keeps its socket for the next client.
    slots: Vec<Option<Client>>,
    free: Vec<u16>,
    idle: Wheel,
    clients: u64,
    refused: u64,
    strangers: u64,
}

struct Client {
    addr: SocketAddr,
    /// The address of ours that it sends to.
    local: Option<IpAddr>,
}

impl Relay {
    fn new(config: Impair, now: Now) -> Self {
        Self {
            up: Link::new(config.link.clone(), config.seed),
            down: Link::new(config.link.clone(), mix64(config.seed)),
            by_addr: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            idle: Wheel::new(millis(now)),
            clients: 0,
            refused: 0,
            strangers: 0,
            config,
        }
    }

    fn next_deadline(&self, now: Now) -> Option<Now> {
        let idle = self.idle.next_deadline().map(|due| at_millis(now, due));
        [self.up.next_time().map(Now), self.down.next_time().map(Now), idle]
            .into_iter()
            .flatten()
            .min()
    }

    fn take<D: Driver<Socket = UdpSocket>>(&mut self, now: Now, arrived: Arrived, driver: &mut D) {
        let Arrived { socket, peer, local, bytes } = arrived;
        if socket == LISTEN {
            let Some(slot) = self.slot_of(peer, local, driver) else {
                self.refused += 1;
                return;
            };
            self.touch(now, slot);
            let to =
                Destination { socket: SocketId(slot + 1), peer: self.config.target, local: None };
            self.up.push(now.0, Packet { to, bytes });
            return;
        }
        let slot = socket.0 - 1;
        let client = self.slots.get(usize::from(slot)).and_then(Option::as_ref);
        match client.filter(|_| peer == self.config.target) {
            Some(Client { addr, local }) => {
                let to = Destination { socket: LISTEN, peer: *addr, local: *local };
                self.touch(now, slot);
                self.down.push(now.0, Packet { to, bytes });
            }
            None => self.strangers += 1,
        }
    }

    /// The slot of the client at `addr`, new if need be.
    fn slot_of<D: Driver<Socket = UdpSocket>>(
        &mut self,
        addr: SocketAddr,
        local: Option<IpAddr>,
        driver: &mut D,
    ) -> Option<u16> {
        if let Some(slot) = self.by_addr.get(&addr) {
            return Some(*slot);
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.open_slot(driver)?,
        };
        *self.slots.get_mut(usize::from(slot))? = Some(Client { addr, local });
        self.by_addr.insert(addr, slot);
        self.clients += 1;
        Some(slot)
    }

    fn open_slot<D: Driver<Socket = UdpSocket>>(&mut self, driver: &mut D) -> Option<u16> {
        let slot = u16::try_from(self.slots.len()).ok().filter(|n| *n < self.config.clients_max)?;
        let source = SocketAddr::new(self.config.source, 0);
        let socket = UdpSocket::bind(source, &SocketOptions::default()).ok()?;
        driver.add_socket(socket).ok()?;
        self.slots.push(None);
        self.idle.grow(self.slots.len());
        Some(slot)
    }

    fn touch(&mut self, now: Now, slot: u16) {
        let timeout = u32::try_from(self.config.idle_timeout.as_millis()).unwrap_or(IDLE_MS_MAX);
        self.idle.arm(u32::from(slot), millis(now).add(timeout.min(IDLE_MS_MAX)));
    }

    fn release<D: Driver>(&mut self, now: Now, driver: &mut D) {
        for link in [&mut self.up, &mut self.down] {
            while let Some(Packet { to, bytes }) = link.pop(now.0) {
                driver.slot(bytes.len())[..bytes.len()].copy_from_slice(&bytes);
                driver.queue(bytes.len(), &to);
            }
        }
    }

    fn expire(&mut self, now: Now) {
        let now: Millis = millis(now);
        while let Some(index) = self.idle.pop(now) {
            let Ok(slot) = u16::try_from(index) else { continue };
            if let Some(client) = self.slots.get_mut(usize::from(slot)).and_then(Option::take) {
                self.by_addr.remove(&client.addr);
                self.free.push(slot);
            }
        }
    }

    fn totals(&self) -> Totals {
        let Self { clients, refused, strangers, .. } = *self;
        Totals { up: self.up.counters(), down: self.down.counters(), clients, refused, strangers }
    }
}

impl Totals {
    /// Writes the totals for people.
    ///
    /// # Errors
    /// Writing failed.
    pub fn write_table(&self, out: &mut impl io::Write) -> io::Result<()> {
        for (name, link) in [("up", &self.up), ("down", &self.down)] {
            let dropped = link.lost + link.lost_in_burst + link.blacked_out + link.too_long;
            writeln!(
                out,
                "{name:<8} {} datagrams in, {} out, {dropped} lost, {} beyond the rate's queue, {} duplicated, {} held back, \
                 {} corrupted",
                link.pushed,
                link.delivered,
                link.queue_full + link.held_full,
                link.duplicated,
                link.reordered,
                link.corrupted
            )?;
        }
        writeln!(
            out,
            "clients  {} seen, {} datagrams refused, {} from strangers",
            self.clients, self.refused, self.strangers
        )
    }
}

const LISTEN: SocketId = SocketId(0);
/// Anything that fits in a UDP datagram on a usual path, and jumbo frames.
const DATAGRAM_MAX: u16 = 9_216;
/// A day: well within the wheel's span.
const IDLE_MS_MAX: u32 = 86_400_000;

#[cfg(test)]
mod tests;
