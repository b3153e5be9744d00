//! A gateway of several shards and any number of client hosts on one simulated network, run turn by turn.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::channel::{Sender, unbounded};
use kcp_core::{Conv, Cx, Kcp, KcpConfig, Millis, Store};
use kcp_gateway::control::command::ShardCommand;
use kcp_gateway::shard::stats::{DropReason, EndReason, Histogram, SharedStats, Stat};
use kcp_gateway::shard::{Handoff, Policy, Setup, Shard, Upstream};
use net_io::sim::{ClockStart, SimConfig, SimDriver, SimNet, SimStream};
use net_io::steer::Steering;
use net_io::{Destination, Driver, DriverConfig, Now, SocketId, SocketOptions};

pub(crate) const GATEWAY: &str = "10.0.0.1:4000";

pub(crate) struct World {
    pub(crate) net: SimNet,
    pub(crate) shards: Vec<Shard<SimDriver>>,
    pub(crate) stats: Vec<SharedStats>,
    pub(crate) commands: Vec<Sender<ShardCommand<SimStream>>>,
    pub(crate) clients: Vec<Client>,
    pub(crate) ghost: Ghost,
    pub(crate) policy: Policy,
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
    }
}

impl World {
    pub(crate) fn new(config: &SimConfig, shards: usize, policy: Policy) -> Self {
        Self::with_store(config, shards, policy, 16 << 20)
    }

    /// With `store_bytes_max` for the payload of each shard.
    pub(crate) fn with_store(
        config: &SimConfig,
        shards: usize,
        policy: Policy,
        store_bytes_max: usize,
    ) -> Self {
        let net = SimNet::new(config);
        let addr: SocketAddr = GATEWAY.parse().unwrap();
        let host = net.host(&[addr.ip()]).unwrap();
        let steering = Steering::new(config.seed as u32, shards as u32);
        let sockets = host.bind_group(addr, shards, &SocketOptions::default()).unwrap();
        sockets[0].steer(steering);
        let drivers: Vec<_> =
            sockets.iter().map(|_| SimDriver::new(&net, &DriverConfig::default())).collect();
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
                upstream: Upstream::Echo,
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
        });
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
            }
            for client in self.clients.iter_mut().filter(|client| client.driver.is_due()) {
                client.turn();
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
}

const OUTSTANDING: u32 = 4;

impl Call {
    fn new(conv: Conv, messages: u32, size: usize) -> Self {
        Self { kcp: Kcp::new(conv), sent: 0, received: 0, messages, size }
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
}

pub(crate) struct Client {
    pub(crate) driver: SimDriver,
    pub(crate) socket: SocketId,
    pub(crate) config: KcpConfig,
    pub(crate) store: Store,
    pub(crate) calls: Vec<Call>,
    /// Neither answers nor sends any more, as a client that lost power.
    pub(crate) muted: bool,
}

impl Client {
    /// The client's process ends and starts again, with the same port and convs.
    pub(crate) fn restart(&mut self) {
        for call in &mut self.calls {
            (call.kcp, call.sent, call.received) = (Kcp::new(call.kcp.conv()), 0, 0);
        }
        self.driver.waker().wake();
    }

    fn turn(&mut self) {
        let now = self.driver.now();
        let due = self.calls.iter().filter_map(|call| {
            let cx = Cx { config: &self.config, store: &mut Store::new(0) };
            call.kcp.poll_timeout(&cx, millis(now))
        });
        let due = due.map(|at| at.since(millis(now)).max(0) as u64).min();
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
        while let Ok(len) = call.kcp.recv(&mut cx, &mut buf) {
            call.on_message(&buf[..len]);
        }
        while call.sent < call.messages && call.sent - call.received < OUTSTANDING {
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
