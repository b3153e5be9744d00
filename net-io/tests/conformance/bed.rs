//! What a scenario needs of a driver's world.

use std::net::{IpAddr, SocketAddr};

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use net_io::sim::{Pace, SimConfig, SimDriver, SimHost, SimListener, SimNet, SimSocket, SimStream};
use net_io::{
    Counters, Datagram, Destination, Driver, DriverConfig, EpollDriver, Now, SocketId,
    SocketOptions, StreamAddr, StreamSocket, UdpSocket, UringDriver,
};

use crate::wire::StreamBed;

/// Makes drivers of one kind, and sockets for them that reach each other.
pub(crate) trait Bed {
    type Driver: Driver;

    fn driver(&mut self, config: &DriverConfig) -> Self::Driver;

    /// A socket bound to `addr`, and where it was bound. Any address is on one host; port 0 picks a free one.
    fn bind(
        &mut self,
        addr: SocketAddr,
        options: &SocketOptions,
    ) -> (<Self::Driver as Driver>::Socket, SocketAddr);

    /// Asserts what `counters` must show when there were fewer buffers than datagrams.
    fn saw_dry_buffers(counters: &Counters) {
        let _ = counters;
    }

    /// A driver with one socket.
    fn end(&mut self, addr: &str, config: &DriverConfig) -> End<Self::Driver> {
        let (socket, addr) = self.bind(addr.parse().unwrap(), &SocketOptions::default());
        let mut driver = self.driver(config);
        let id = driver.add_socket(socket).unwrap();
        End { driver, id, addr }
    }
}

#[derive(Default)]
pub(crate) struct UringBed;

impl Bed for UringBed {
    type Driver = UringDriver;

    fn driver(&mut self, config: &DriverConfig) -> UringDriver {
        UringDriver::new(config).unwrap()
    }

    fn saw_dry_buffers(counters: &Counters) {
        assert!(counters.rx_dry >= 1, "the buffer ring never ran dry: {counters:?}");
        assert!(counters.rx_rearmed >= counters.rx_dry);
        // Buffers that do not come back make it run dry more and more often.
        assert!(counters.rx_dry <= counters.rx_datagrams / 2, "buffers were lost: {counters:?}");
    }

    fn bind(&mut self, addr: SocketAddr, options: &SocketOptions) -> (UdpSocket, SocketAddr) {
        bind(addr, options)
    }
}

#[derive(Default)]
pub(crate) struct EpollBed;

impl Bed for EpollBed {
    type Driver = EpollDriver;

    fn driver(&mut self, config: &DriverConfig) -> EpollDriver {
        EpollDriver::new(config).unwrap()
    }

    fn bind(&mut self, addr: SocketAddr, options: &SocketOptions) -> (UdpSocket, SocketAddr) {
        bind(addr, options)
    }
}

/// Drivers of a kind that take trains whole.
#[derive(Default)]
pub(crate) struct Whole<B>(B);

pub(crate) type UringWholeBed = Whole<UringBed>;
pub(crate) type EpollWholeBed = Whole<EpollBed>;

impl<B: Bed> Bed for Whole<B> {
    type Driver = B::Driver;

    fn driver(&mut self, config: &DriverConfig) -> B::Driver {
        self.0.driver(&DriverConfig { gro: true, ..config.clone() })
    }

    fn saw_dry_buffers(counters: &Counters) {
        B::saw_dry_buffers(counters);
    }

    fn bind(
        &mut self,
        addr: SocketAddr,
        options: &SocketOptions,
    ) -> (<B::Driver as Driver>::Socket, SocketAddr) {
        self.0.bind(addr, options)
    }
}

impl StreamBed for UringBed {
    type Listener = Listener;

    fn listen(&mut self, addr: &StreamAddr) -> (Listener, StreamAddr) {
        Listener::bind(addr)
    }

    fn accept(&mut self, listener: &Listener) -> Option<StreamSocket> {
        listener.accept()
    }
}

impl StreamBed for EpollBed {
    type Listener = Listener;

    fn listen(&mut self, addr: &StreamAddr) -> (Listener, StreamAddr) {
        Listener::bind(addr)
    }

    fn accept(&mut self, listener: &Listener) -> Option<StreamSocket> {
        listener.accept()
    }
}

/// A listener of the kernel's.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    fn bind(addr: &StreamAddr) -> (Self, StreamAddr) {
        match addr {
            StreamAddr::Tcp(addr) => {
                let listener = TcpListener::bind(addr).unwrap();
                listener.set_nonblocking(true).unwrap();
                let addr = listener.local_addr().unwrap();
                (Self::Tcp(listener), addr.into())
            }
            StreamAddr::Unix(name) => {
                static NEXT: AtomicU32 = AtomicU32::new(0);
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                let file = format!("net-io-{}-{number}-{}", std::process::id(), name.display());
                let path = std::env::temp_dir().join(file);
                let listener = UnixListener::bind(&path).unwrap();
                listener.set_nonblocking(true).unwrap();
                (Self::Unix(listener, path.clone()), StreamAddr::Unix(path))
            }
        }
    }

    fn accept(&self) -> Option<StreamSocket> {
        let accepted = match self {
            Self::Tcp(listener) => listener.accept().map(|(stream, _)| stream.into()),
            Self::Unix(listener, _) => listener.accept().map(|(stream, _)| stream.into()),
        };
        match accepted {
            Ok(stream) => Some(stream),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// One simulated host with the loopback addresses, whose clock a wait moves.
pub(crate) struct SimBed {
    net: SimNet,
    host: SimHost,
}

impl Default for SimBed {
    fn default() -> Self {
        let net = SimNet::new(&SimConfig { pace: Pace::Wait, ..SimConfig::default() });
        let ips = ["127.0.0.1", "127.0.0.2", "::1"].map(|ip| ip.parse().unwrap());
        let host = net.host(&ips).unwrap();
        Self { net, host }
    }
}

impl Bed for SimBed {
    type Driver = SimDriver;

    fn driver(&mut self, config: &DriverConfig) -> SimDriver {
        SimDriver::new(&self.net, config)
    }

    fn bind(&mut self, addr: SocketAddr, options: &SocketOptions) -> (SimSocket, SocketAddr) {
        let socket = self.host.bind(addr, options).unwrap();
        let addr = socket.local_addr();
        (socket, addr)
    }
}

impl StreamBed for SimBed {
    type Listener = SimListener;

    fn listen(&mut self, addr: &StreamAddr) -> (SimListener, StreamAddr) {
        let listener = self.host.listen_stream(addr).unwrap();
        let addr = listener.addr().clone();
        (listener, addr)
    }

    fn accept(&mut self, listener: &SimListener) -> Option<SimStream> {
        listener.accept()
    }
}

fn bind(addr: SocketAddr, options: &SocketOptions) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(addr, options).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// A driver with one socket of its own.
pub(crate) struct End<D> {
    pub(crate) driver: D,
    pub(crate) id: SocketId,
    pub(crate) addr: SocketAddr,
}

/// A received datagram, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) socket: SocketId,
    pub(crate) peer: SocketAddr,
    pub(crate) local: Option<IpAddr>,
    pub(crate) payload: Vec<u8>,
}

impl From<Datagram<'_>> for Kept {
    fn from(datagram: Datagram<'_>) -> Self {
        Self {
            socket: datagram.socket,
            peer: datagram.peer,
            local: datagram.local,
            payload: datagram.payload.to_vec(),
        }
    }
}

impl<D: Driver> End<D> {
    /// Queues `payload` for `peer`.
    pub(crate) fn queue(&mut self, payload: &[u8], peer: SocketAddr) {
        let to = Destination { socket: self.id, peer, local: None };
        self.driver.slot(payload.len()).copy_from_slice(payload);
        self.driver.queue(payload.len(), &to);
    }

    /// One turn that waits for nothing.
    pub(crate) fn poll(&mut self) -> Vec<Kept> {
        self.turn(Some(Now(0)))
    }

    /// One turn of at most `us` microseconds.
    pub(crate) fn turn_for(&mut self, us: u64) -> Vec<Kept> {
        let deadline = Now(self.driver.now().0 + us);
        self.turn(Some(deadline))
    }

    /// One turn that may wait long and must not have to.
    pub(crate) fn turn_at_once(&mut self) -> Vec<Kept> {
        let limit = Now(self.driver.now().0 + PATIENCE_US);
        let all = self.turn(Some(limit));
        assert!(self.driver.now() < limit, "it waited");
        all
    }

    /// One turn, with everything it hands out.
    pub(crate) fn turn(&mut self, deadline: Option<Now>) -> Vec<Kept> {
        self.driver.submit_and_wait(deadline).unwrap();
        let mut all = Vec::new();
        while let Some(datagram) = self.driver.recv() {
            all.push(datagram.into());
        }
        all
    }

    /// Turns until `count` datagrams came.
    ///
    /// # Panics
    /// When they do not come in time.
    pub(crate) fn receive(&mut self, count: usize) -> Vec<Kept> {
        let limit = Now(self.driver.now().0 + PATIENCE_US);
        let mut all = Vec::new();
        while all.len() < count {
            assert!(self.driver.now() < limit, "{} of {count} datagrams came", all.len());
            all.extend(self.turn(Some(limit)));
        }
        all
    }
}

/// How long a scenario waits for what must happen.
pub(crate) const PATIENCE_US: u64 = 10_000_000;
