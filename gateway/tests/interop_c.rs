//! The C library, unchanged, as client of the gateway over real UDP: straight, and through a bad network.
#![expect(clippy::expect_used, reason = "a step that cannot be taken fails the test")]

mod live;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use kcp_gateway::config::Farewell;
use kcp_gateway::shard::stats::{DropReason, Stat};
use kcp_gateway::{Config, Gateway};
use kcp_loadgen::impair::{Impair, Proxy};
use kcp_oracle::Reference;
use net_io::IoChoice;

/// How a client sets its library up. The gateway need not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    /// As games do: low latency, no congestion window.
    Game,
    /// Nothing set: 100 ms interval, congestion window, small windows.
    Defaults,
    /// Bytes instead of messages.
    Stream,
}

const PROFILES: [Profile; 3] = [Profile::Game, Profile::Defaults, Profile::Stream];

#[test]
fn c_clients_get_every_message_back() {
    for io in live::DRIVERS {
        let gateway = live::start(Config::default(), io);
        echo_all(gateway.listen_addrs()[0], CLIENTS, &LARGE, Duration::from_secs(60));
        sound(&gateway, CLIENTS, &[DropReason::Amplification]);
    }
}

#[test]
fn c_clients_get_every_message_back_through_a_bad_network() {
    for io in live::DRIVERS {
        let gateway = live::start(Config::default(), io);
        let proxy = bad_network(gateway.listen_addrs()[0], io);
        echo_all(proxy.listen_addr(), CLIENTS, &MEDIUM, Duration::from_secs(120));
        // A first datagram that others overtook comes from a client that had received nothing yet.
        sound(&gateway, CLIENTS, &[DropReason::Amplification, DropReason::StaleStart]);
        let totals = proxy.stop().expect("the proxy ran to the end");
        assert_eq!(totals.clients, u64::from(CLIENTS));
        for way in [totals.up, totals.down] {
            let spoilt = [way.lost, way.reordered, way.duplicated];
            assert!(spoilt.iter().all(|&count| count > 0), "the network was too good: {way:?}");
        }
    }
}

#[test]
fn c_clients_that_come_during_a_drain_are_told_where_to_go() {
    let mut config = Config::default();
    config.drain.farewell = Farewell(WORD.into());
    for io in live::DRIVERS {
        let gateway = live::start(config.clone(), io);
        gateway.drain().expect("it serves");
        let proxy = bad_network(gateway.listen_addrs()[0], io);
        thread::scope(|scope| {
            for index in 0..CLIENTS {
                let target = proxy.listen_addr();
                scope.spawn(move || {
                    Client::new(target, index).hear_farewell(Duration::from_secs(60))
                });
            }
        });
        let stats = gateway.stats();
        assert_eq!((stats.get(Stat::Births), stats.get(Stat::Sessions)), (0, 0));
        assert!(stats.get(Stat::Farewells) >= u64::from(CLIENTS));
        assert_eq!(stats.get(Stat::Farewells), stats.drops(DropReason::Draining));
    }
}

/// What a gateway that drains says.
const WORD: &[u8] = b"come to gateway 2";

/// One datagram in twenty is lost, as many are late and overtaken, some come twice; each way takes 10 to 15 ms.
fn bad_network(target: SocketAddr, io: IoChoice) -> Proxy {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut impair = Impair::new(SocketAddr::new(loopback, 0), target, loopback);
    impair.link.loss_ppm = 50_000;
    impair.link.delay_us = 10_000;
    impair.link.jitter_us = 5_000;
    impair.link.reorder_ppm = 50_000;
    impair.link.reorder_us = 20_000;
    impair.link.duplicate_ppm = 20_000;
    impair.seed = 248;
    impair.io = io;
    Proxy::start(&impair).expect("loopback takes a proxy")
}

/// As [`LARGE`], less of it: on this network a library with its own defaults moves some 20 kB a second.
const MEDIUM: [usize; 6] = [1, 24, 1376, 1377, 10_000, 40_000];
/// Four with each profile.
const CLIENTS: u32 = 12;
/// Sizes around every edge: one byte, a full segment and its neighbours, many fragments, the longest message there is.
const LARGE: [usize; 9] = [1, 24, 1375, 1376, 1377, 2752, 20_000, 100_000, 127 * 1376];

/// Runs `clients` clients side by side, a third of them with each profile; each sends messages of all `sizes`.
fn echo_all(target: SocketAddr, clients: u32, sizes: &[usize], patience: Duration) {
    thread::scope(|scope| {
        for index in 0..clients {
            scope.spawn(move || Client::new(target, index).echo(sizes, patience));
        }
    });
}

/// Nothing died, everybody got one session, and nothing that the clients sent was refused but for the reasons `allowed`. One
/// always is: a client slow to acknowledge its first echo makes the gateway hold back, which is no refusal.
fn sound(gateway: &Gateway, clients: u32, allowed: &[DropReason]) {
    assert!(gateway.failure().is_none(), "a shard died: {:?}", gateway.failure());
    let stats = gateway.stats();
    assert_eq!(stats.get(Stat::Births), u64::from(clients));
    for &reason in DropReason::ALL {
        if !allowed.contains(&reason) {
            assert_eq!(stats.drops(reason), 0, "{reason:?}");
        }
    }
}

/// One C library and its socket.
struct Client {
    name: String,
    profile: Profile,
    kcp: Reference,
    socket: UdpSocket,
    began: Instant,
}

impl Client {
    fn new(target: SocketAddr, index: u32) -> Self {
        let profile = PROFILES[index as usize % PROFILES.len()];
        let mut kcp = Reference::new(0xC0_0000 + index);
        if profile != Profile::Defaults {
            kcp.nodelay(1, 10, 2, 1);
            kcp.wndsize(256, 256);
        }
        kcp.set_stream(profile == Profile::Stream);
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has a port");
        socket.connect(target).expect("loopback has a route");
        let name = format!("client {index}, {profile:?}");
        Self { name, profile, kcp, socket, began: now() }
    }

    /// Sends a message of each size and awaits their echoes in order; panics when time is up or a byte is wrong.
    fn echo(mut self, sizes: &[usize], patience: Duration) {
        let messages: Vec<Vec<u8>> = sizes.iter().map(|&len| self.message(len)).collect();
        let all = messages.concat();
        let mut ends: Vec<usize> = Vec::new();
        let (mut queued, mut at) = (0, 0);
        let mut buffer = vec![0; all.len()];
        while at < all.len() {
            assert!(self.began.elapsed() < patience, "{}: {at} of {}", self.name, all.len());
            while queued < messages.len() && self.kcp.wait_snd() < SEGMENTS_QUEUED_MAX {
                let len = messages[queued].len();
                let sent = self.kcp.send(&messages[queued]);
                assert_eq!(usize::try_from(sent), Ok(len), "{}: send", self.name);
                ends.push(ends.last().unwrap_or(&0) + len);
                queued += 1;
            }
            self.exchange();
            while let Ok(len) = usize::try_from(self.kcp.recv(&mut buffer)) {
                assert!(buffer[..len] == all[at..at + len], "{}: wrong bytes at {at}", self.name);
                at += len;
                let whole = self.profile == Profile::Stream || ends.contains(&at);
                assert!(whole, "{}: a message ends at {at}, inside one of ours", self.name);
            }
        }
    }

    /// Says hello until it has been told once, and for half a second more, in which it must not be told again.
    fn hear_farewell(mut self, patience: Duration) {
        assert_eq!(self.kcp.send(b"hello"), 5, "{}", self.name);
        let mut buffer = [0; 64];
        let mut told = None;
        while told.is_none_or(|at: Duration| self.began.elapsed() < at + Duration::from_millis(500))
        {
            assert!(self.began.elapsed() < patience, "{}: nobody told it", self.name);
            self.exchange();
            while let Ok(len) = usize::try_from(self.kcp.recv(&mut buffer)) {
                assert_eq!(&buffer[..len], WORD, "{}", self.name);
                assert_eq!(told.replace(self.began.elapsed()), None, "{}: twice", self.name);
            }
        }
        assert_eq!(self.kcp.wait_snd(), 1, "{}: nobody has taken its message", self.name);
    }

    /// Updates the library, sends what it puts out, and feeds it what comes until its next update is due.
    fn exchange(&mut self) {
        let now = self.now();
        self.kcp.update(now);
        for datagram in self.kcp.output().iter() {
            // A full socket buffer is loss, and the protocol's to repair.
            let _ = self.socket.send(datagram);
        }
        self.kcp.output_mut().clear();
        let wait = self.kcp.check(now).wrapping_sub(now).max(1);
        self.socket
            .set_read_timeout(Some(Duration::from_millis(wait.into())))
            .expect("a timeout can be set");
        let mut datagram = [0; 2048];
        match self.socket.recv(&mut datagram) {
            Ok(len) => {
                let now = self.now();
                self.kcp.update(now);
                assert_eq!(self.kcp.input(&datagram[..len]), 0, "{}: input", self.name);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("{}: recv: {error}", self.name),
        }
    }

    /// Bytes that no other client and no other place in this one's stream has in this order.
    fn message(&self, len: usize) -> Vec<u8> {
        let mut state = self.kcp.state().conv ^ u32::try_from(len).unwrap_or(0).rotate_left(16);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        (0..len).map(|_| next()).collect()
    }

    fn now(&self) -> u32 {
        u32::try_from(self.began.elapsed().as_millis()).expect("a test is shorter than 49 days")
    }
}

#[expect(clippy::disallowed_methods, reason = "the C library runs by the real clock here")]
fn now() -> Instant {
    Instant::now()
}

/// Segments a client lets wait before it queues the next message.
const SEGMENTS_QUEUED_MAX: i32 = 64;
