//! A gateway of several shards and any number of client hosts on one simulated network, run turn by turn.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use kcp_core::{Conv, Cx, Kcp, KcpConfig, Millis, Store};
use kcp_gateway::control::command::{ShardCommand, ShardReport};
use kcp_gateway::shard::backend_stats::{BackendNumbers, BackendStat, SharedBackendStats};
use kcp_gateway::shard::stats::{DropReason, EndReason, Histogram, SharedStats, Stat};
use kcp_gateway::shard::{BackendSetup, Handoff, Policy, Setup, Shard, Upstream};
use kcp_gateway::upstream::backend::{BackendId, Backends};
use net_io::sim::{ClockStart, SimConfig, SimDriver, SimHost, SimNet, SimStream};
use net_io::steer::Steering;
use net_io::{Destination, Driver, DriverConfig, Now, SocketId, SocketOptions, StreamConfig};

use crate::mux_server::MuxServer;
use crate::server::Server;

pub(crate) const GATEWAY: &str = "10.0.0.1:4000";

pub(crate) struct World {
    pub(crate) net: SimNet,
    pub(crate) shards: Vec<Shard<SimDriver>>,
    pub(crate) stats: Vec<SharedStats>,
    pub(crate) commands: Vec<Sender<ShardCommand<SimStream>>>,
    pub(crate) clients: Vec<Client>,
    pub(crate) ghost: Ghost,
    pub(crate) policy: Policy,
    /// The gateway's own machine.
    pub(crate) host: SimHost,
    pub(crate) servers: Vec<Server>,
    pub(crate) mux_servers: Vec<MuxServer>,
    backend_stats: Vec<SharedBackendStats>,
    pub(crate) reports: Receiver<ShardReport>,
    eager: bool,
}

pub(crate) fn policy() -> Policy {
    Policy {
        listeners: vec![KcpConfig::game()],
        sessions_max: 10_000,
        idle_timeout_ms: 300_000,
        keepalive_ms: 0,
        tombstone_ms: 30_000,
        tombstones_max: 1000,
        session_bytes_max: 256 * 1024,
        farewell: Vec::new(),
    }
}

impl World {
    pub(crate) fn new(config: &SimConfig, shards: usize, policy: Policy) -> Self {
        Self::with(config, shards, policy, 16 << 20, None)
    }

    /// With `store_bytes_max` for the payload of each shard.
    pub(crate) fn with_store(
        config: &SimConfig,
        shards: usize,
        policy: Policy,
        store_bytes_max: usize,
    ) -> Self {
        Self::with(config, shards, policy, store_bytes_max, None)
    }

    /// With `backends` instead of the echo, and that much memory for what waits.
    pub(crate) fn with_backends(
        config: &SimConfig,
        shards: usize,
        policy: Policy,
        backends: (Arc<Backends>, usize),
    ) -> Self {
        Self::with(config, shards, policy, 16 << 20, Some(backends))
    }

    /// With all of these.
    pub(crate) fn with(
        config: &SimConfig,
        shards: usize,
        policy: Policy,
        store_bytes_max: usize,
        backends: Option<(Arc<Backends>, usize)>,
    ) -> Self {
        let net = SimNet::new(config);
        let addr: SocketAddr = GATEWAY.parse().unwrap();
        let host = net.host(&[addr.ip()]).unwrap();
        let steering = Steering::new(config.seed as u32, shards as u32);
        let sockets = host.bind_group(addr, shards, &SocketOptions::default()).unwrap();
        sockets[0].steer(steering);
        let streams = backends.as_ref().map(|_| StreamConfig::default());
        let driver = DriverConfig { streams, ..DriverConfig::default() };
        let drivers: Vec<_> = sockets.iter().map(|_| SimDriver::new(&net, &driver)).collect();
        let (report, reports) = bounded(1024);
        let wakers: Vec<_> = drivers.iter().map(Driver::waker).collect();
        let ghost = Ghost::new(&net);
        let mut world = Self {
            net,
            shards: Vec::new(),
            stats: Vec::new(),
            commands: Vec::new(),
            clients: Vec::new(),
            ghost,
            policy: policy.clone(),
            host,
            servers: Vec::new(),
            mux_servers: Vec::new(),
            backend_stats: Vec::new(),
            reports,
            eager: backends.is_some(),
        };
        let policy = Arc::new(policy);
        let ends = Handoff::mesh(shards, 64, 1500);
        for (index, ((driver, socket), mut handoff)) in
            (0..).zip(drivers.into_iter().zip(sockets).zip(ends))
        {
            handoff.set_wakers(wakers.clone());
            let (sender, commands) = unbounded();
            let stats = SharedStats::default();
            world.stats.push(stats.clone());
            world.commands.push(sender);
            let numbers = SharedBackendStats::default();
            world.backend_stats.push(numbers.clone());
            let upstream = backends.clone().map_or(Upstream::Echo, |(backends, pool_bytes_max)| {
                Upstream::Backends(BackendSetup {
                    backends,
                    pool_bytes_max,
                    listen_addrs: vec![addr],
                    reports: report.clone(),
                    stats: numbers,
                })
            });
            let shard = Shard::new(Setup {
                index,
                driver,
                sockets: vec![socket],
                steering: vec![Some(steering)],
                policy: Arc::clone(&policy),
                store_bytes_max,
                seed: config.seed,
                secret: [config.seed, 1],
                commands,
                stats,
                handoff,
                upstream,
            });
            world.shards.push(shard.unwrap());
        }
        world
    }

    /// A client host with `sessions` conversations of `messages` messages each.
    pub(crate) fn add_client(&mut self, sessions: u32, messages: u32, size: usize) {
        let number = self.clients.len() as u32;
        let ip = std::net::Ipv4Addr::from(0x0a01_0000 + number);
        let host = self.net.host(&[ip.into()]).unwrap();
        let mut driver = SimDriver::new(&self.net, &DriverConfig::default());
        let socket = host.bind(SocketAddr::from((ip, 5000)), &SocketOptions::default()).unwrap();
        let socket = driver.add_socket(socket).unwrap();
        let calls = (0..sessions).map(|n| Call::new(Conv(number * 1000 + n), messages, size));
        self.clients.push(Client {
            driver,
            socket,
            config: KcpConfig { strict: false, ..self.policy.listeners[0].clone() },
            store: Store::new(64 << 20),
            calls: calls.collect(),
            muted: false,
            reading: true,
            outstanding: OUTSTANDING,
            forgiving: false,
        });
    }

    /// Messages lost inside the gateway, for whatever reason.
    pub(crate) fn losses(&self) -> u64 {
        let of = |stat| (0..3).map(|id| self.backend(id, |b| b.get(stat))).sum::<u64>();
        self.drops(DropReason::SessionEnded)
            + self.stat(Stat::UndeliveredBytes)
            + of(BackendStat::MessagesLost)
            + of(BackendStat::BytesLost)
    }

    pub(crate) fn command(&self, command: impl Fn() -> ShardCommand<SimStream>) {
        for (sender, shard) in self.commands.iter().zip(&self.shards) {
            sender.send(command()).unwrap();
            shard.driver().waker().wake();
        }
    }

    /// Runs until `done` or `limit_ms` of virtual time have passed; tells which.
    pub(crate) fn run(&mut self, limit_ms: u64, mut done: impl FnMut(&Self) -> bool) -> bool {
        let limit = Now(self.net.now().0 + limit_ms * 1000);
        loop {
            for shard in self.shards.iter_mut().filter(|shard| shard.driver().is_due()) {
                shard.turn().unwrap();
                // A turn may end with nothing to send and a new deadline, which the next one tells the driver.
                let mut known = !self.eager;
                while !known {
                    known = !shard.driver().is_due();
                    shard.turn().unwrap();
                }
            }
            for client in self.clients.iter_mut().filter(|client| client.driver.is_due()) {
                client.turn();
            }
            for server in self.servers.iter_mut().filter(|server| server.is_due()) {
                server.turn();
            }
            for server in self.mux_servers.iter_mut().filter(|server| server.is_due()) {
                server.turn();
            }
            if self.ghost.driver.is_due() {
                self.ghost.receive();
            }
            if done(self) {
                return true;
            }
            if self.net.now() >= limit {
                return false;
            }
            self.net.advance_until(limit);
        }
    }

    /// For `ms` milliseconds somebody else has the shards' cores; everybody else goes on.
    pub(crate) fn starve(&mut self, ms: u64) {
        for _ in 0..ms {
            self.net.elapse(1_000);
            for client in self.clients.iter_mut().filter(|client| client.driver.is_due()) {
                client.turn();
            }
        }
    }

    pub(crate) fn all_answered(&self) -> bool {
        self.clients.iter().all(|client| client.calls.iter().all(Call::is_complete))
    }

    pub(crate) fn stat(&self, stat: Stat) -> u64 {
        self.stats.iter().map(|shared| shared.read().get(stat)).sum()
    }

    /// How many observations, their sum and the longest, over all shards.
    pub(crate) fn observed(&self, histogram: Histogram) -> (u64, u64, u64) {
        self.stats.iter().map(|shared| shared.read()).fold((0, 0, 0), |(count, sum, max), stats| {
            let one = stats.histogram(histogram);
            (count + one.counts.iter().sum::<u64>(), sum + one.sum, max.max(one.max))
        })
    }

    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.stats.iter().map(|shared| shared.read().drops(reason)).sum()
    }

    pub(crate) fn all_drops(&self) -> u64 {
        DropReason::ALL.iter().map(|&reason| self.drops(reason)).sum()
    }

    /// All shards' numbers of one backend.
    pub(crate) fn backend(&self, id: u16, number: impl Fn(&BackendNumbers) -> u64) -> u64 {
        self.backend_stats.iter().map(|shared| number(&shared.read(BackendId(id)))).sum()
    }

    pub(crate) fn ends(&self, reason: EndReason) -> u64 {
        self.stats.iter().map(|shared| shared.read().ends(reason)).sum()
    }
}

/// One conversation of a client: sends numbered messages, a few at a time, and expects each back, once and in order.
pub(crate) struct Call {
    pub(crate) kcp: Kcp,
    pub(crate) sent: u32,
    pub(crate) received: u32,
    messages: u32,
    size: usize,
    heard_at: Millis,
}

/// How long a forgiving client waits for an answer.
const GIVE_UP_MS: i32 = 300;

const OUTSTANDING: u32 = 4;

impl Call {
    fn new(conv: Conv, messages: u32, size: usize) -> Self {
        Self { kcp: Kcp::new(conv), sent: 0, received: 0, messages, size, heard_at: Millis(0) }
    }

    fn message(&self, n: u32) -> Vec<u8> {
        let salt = self.kcp.conv().0.wrapping_mul(0x9e37_79b9) ^ n;
        let len =
            if self.size > 8 { 1 + (salt as usize ^ self.size) % self.size } else { self.size };
        (0..len).map(|i| (salt >> (i % 4 * 8)) as u8 ^ i as u8).collect()
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.received == self.messages
    }

    fn on_message(&mut self, message: &[u8]) {
        assert!(self.received < self.sent, "an answer to what was never sent");
        assert_eq!(
            message,
            self.message(self.received),
            "answer {} is not its message",
            self.received
        );
        self.received += 1;
    }

    /// Any that was sent, in order.
    fn on_any_message(&mut self, message: &[u8]) {
        let n = (0..self.sent).rev().find(|&n| self.message(n) == message);
        self.received = self.received.max(n.unwrap() + 1);
    }
}

pub(crate) struct Client {
    pub(crate) driver: SimDriver,
    pub(crate) socket: SocketId,
    pub(crate) config: KcpConfig,
    pub(crate) store: Store,
    pub(crate) calls: Vec<Call>,
    /// Neither answers nor sends any more, as a client that lost power.
    pub(crate) muted: bool,
    /// Its application takes what the library has received.
    pub(crate) reading: bool,
    /// Messages under way at once.
    pub(crate) outstanding: u32,
    /// Goes on when messages are lost.
    pub(crate) forgiving: bool,
}

impl Client {
    /// The client's process ends and starts again, with the same port and convs.
    pub(crate) fn restart(&mut self) {
        for call in &mut self.calls {
            (call.kcp, call.sent, call.received) = (Kcp::new(call.kcp.conv()), 0, 0);
        }
        self.driver.waker().wake();
    }

    /// Each of its players has one message more to say.
    pub(crate) fn say_more(&mut self) {
        self.calls.iter_mut().for_each(|call| call.messages += 1);
        self.driver.waker().wake();
    }

    fn turn(&mut self) {
        let now = self.driver.now();
        let due = self.calls.iter().filter_map(|call| {
            let cx = Cx { config: &self.config, store: &mut Store::new(0) };
            call.kcp.poll_timeout(&cx, millis(now))
        });
        let due = due.map(|at| at.since(millis(now)).max(0) as u64).min();
        let due = if self.forgiving { due.max(Some(100)) } else { due };
        let deadline = due.map(|ms| Now((now.as_millis() + ms) * 1000)).filter(|_| !self.muted);
        let now = millis(self.driver.submit_and_wait(deadline).unwrap());
        let mut inbox = Vec::new();
        while let Some(datagram) = self.driver.recv() {
            inbox.push(datagram.payload.to_vec());
        }
        if self.muted {
            return;
        }
        for datagram in inbox {
            self.datagram(now, &datagram);
        }
        for index in 0..self.calls.len() {
            self.call(index, now);
        }
    }

    fn datagram(&mut self, now: Millis, datagram: &[u8]) {
        let conv = kcp_core::wire::conv(datagram).unwrap();
        let mut cx = Cx { config: &self.config, store: &mut self.store };
        if let Some(call) = self.calls.iter_mut().find(|call| call.kcp.conv() == conv) {
            call.kcp.handle_datagram(&mut cx, now, datagram, |_| false).unwrap();
        }
    }

    fn call(&mut self, index: usize, now: Millis) {
        let call = &mut self.calls[index];
        let mut cx = Cx { config: &self.config, store: &mut self.store };
        let mut buf = vec![0; 512 * 1024];
        if call.sent == 0 {
            call.heard_at = now; // it waits from here on
        }
        while self.reading
            && let Ok(len) = call.kcp.recv(&mut cx, &mut buf)
        {
            call.heard_at = now;
            if self.forgiving {
                call.on_any_message(&buf[..len]);
            } else {
                call.on_message(&buf[..len]);
            }
        }
        if self.forgiving && now.since(call.heard_at) > GIVE_UP_MS {
            call.received = call.sent;
        }
        while call.sent < call.messages && call.sent - call.received < self.outstanding {
            call.kcp.send(&mut cx, &call.message(call.sent)).unwrap();
            call.sent += 1;
        }
        call.kcp.flush(&mut cx, now);
        let to = Destination { socket: self.socket, peer: GATEWAY.parse().unwrap(), local: None };
        while let Some(len) = call.kcp.poll_transmit(&mut cx, now, self.driver.slot(1500)) {
            self.driver.queue(len, &to);
        }
    }
}

/// A host that sends what no library would.
pub(crate) struct Ghost {
    driver: SimDriver,
    socket: SocketId,
    pub(crate) received: Vec<Vec<u8>>,
}

impl Ghost {
    fn new(net: &SimNet) -> Self {
        let ip = "10.9.9.9".parse().unwrap();
        let host = net.host(&[ip]).unwrap();
        let mut driver = SimDriver::new(net, &DriverConfig::default());
        let socket = host.bind((ip, 666).into(), &SocketOptions::default()).unwrap();
        let socket = driver.add_socket(socket).unwrap();
        Self { driver, socket, received: Vec::new() }
    }

    pub(crate) fn send(&mut self, datagram: &[u8]) {
        self.driver.slot(datagram.len())[..datagram.len()].copy_from_slice(datagram);
        let peer = GATEWAY.parse().unwrap();
        self.driver.queue(datagram.len(), &Destination { socket: self.socket, peer, local: None });
        self.receive();
    }

    fn receive(&mut self) {
        self.driver.submit_and_wait(None).unwrap();
        while let Some(datagram) = self.driver.recv() {
            self.received.push(datagram.payload.to_vec());
        }
    }
}

pub(crate) fn millis(now: Now) -> Millis {
    Millis(now.as_millis() as u32)
}

pub(crate) fn starts() -> [ClockStart; 3] {
    [ClockStart::Zero, ClockStart::Random, ClockStart::BeforeWrap]
}
