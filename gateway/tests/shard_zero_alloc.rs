//! The production shard in front of real backends, on both drivers: at a constant number of sessions, messages that go to a
//! backend and come back cost the shard's thread no allocation, over `tcp` and over `yamux`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use kcp_core::KcpConfig;
use kcp_gateway::control::command::{ShardCommand, ShardReport};
use kcp_gateway::shard::stats::{SharedStats, Stat};
use kcp_gateway::shard::{BackendSetup, Handoff, Policy, Setup, Shard, Upstream};
use kcp_gateway::upstream::backend::{Backend, BackendId, Backends, Kind};
use kcp_gateway::upstream::framing::{Codec, Framing};
use kcp_gateway::upstream::link::LinkConfig;
use kcp_gateway::upstream::{route, yamux};
use kcp_loadgen::scenario::Load;
use kcp_loadgen::serve::{self, Behaviour, Dialect, Listen, Serve, Server};
use kcp_loadgen::sources::Sources;
use kcp_loadgen::{ProgressMode, Report, Scenario, run_with};
use net_io::{
    Driver, DriverConfig, EpollDriver, IoChoice, SocketOptions, StreamConfig, StreamSocket,
    UdpSocket, UringDriver,
};

const SESSIONS: u32 = 100;
const CODEC: Codec = Codec { framing: Framing::U32Be, message_max: 100_000, cut: 1376 };

#[test]
fn messages_through_tcp_backends_allocate_nothing() {
    let (uring, epoll) = drivers();
    check(uring, serve::Kind::Tcp);
    check(epoll, serve::Kind::Tcp);
}

#[test]
fn messages_through_yamux_backends_allocate_nothing() {
    let (uring, epoll) = drivers();
    check(uring, serve::Kind::Yamux);
    check(epoll, serve::Kind::Yamux);
}

fn drivers() -> (UringDriver, EpollDriver) {
    let streams = Some(StreamConfig::default());
    let config = DriverConfig { streams, ..DriverConfig::default() };
    (UringDriver::new(&config).unwrap(), EpollDriver::new(&config).unwrap())
}

/// Turns a shard on this thread, whose allocations are counted; backend and clients have threads of their own.
fn check<D: Driver<Socket = UdpSocket, Stream = StreamSocket>>(driver: D, kind: serve::Kind) {
    let what = format!("{kind:?} on {:?}", driver.kind());
    let server = backend(kind);
    let (mut shard, stats, commands, target) = shard(driver, kind, &server);
    if kind == serve::Kind::Yamux {
        let link = TcpStream::connect(address(&server)).unwrap();
        let stream = StreamSocket::from(link);
        commands.send(ShardCommand::Adopt { backend: BackendId(0), stream }).unwrap();
        shard.driver().waker().wake();
    }
    let (load, stop) = load(target);
    let messages = |stats: &SharedStats| stats.read().get(Stat::MessagesIn);
    let per_session = u64::from(SESSIONS);
    // Every session has spoken, buffers have grown to what they need, and pools to a peak that comes again.
    while messages(&stats) < 600 * per_session {
        shard.turn().unwrap();
    }
    let (from, sessions) = (messages(&stats), stats.read().get(Stat::Sessions));
    let measured = allocation_counter::measure(|| {
        while messages(&stats) < from + 200 * per_session {
            shard.turn().unwrap();
        }
    });
    assert_eq!((sessions, stats.read().get(Stat::Sessions)), (per_session, per_session));
    assert_eq!(measured.count_total, 0, "{what}: {measured:?}");
    stop.store(true, Ordering::Relaxed);
    let report = loop {
        shard.turn().unwrap();
        if let Ok(report) = load.try_recv() {
            break report;
        }
    };
    assert_eq!(report.counts.received, report.counts.sent, "{what}: seed {}", report.run.seed);
    drop(server.stop());
}

/// Clients that speak, one message under way for each, until they are stopped.
fn load(target: SocketAddr) -> (Receiver<Box<Report>>, Arc<AtomicBool>) {
    let mut scenario = Scenario::new(target, SESSIONS, Sources::single(target.ip()));
    scenario.engine.io = IoChoice::Epoll;
    scenario.traffic.load = Load::Closed { outstanding: 1 };
    scenario.phases.warmup = Duration::ZERO;
    scenario.phases.duration = Duration::from_secs(600);
    let (done, report) = bounded(1);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    thread::spawn(move || {
        let report = run_with(&scenario, ProgressMode::Off, &stopped).unwrap();
        done.send(Box::new(report)).unwrap();
    });
    (report, stop)
}

fn backend(kind: serve::Kind) -> Server {
    let dialect = Dialect { framing: serve::Framing::U32Be, proxy: true, message_max: 1 << 20 };
    let listen = vec![Listen::Inet("127.0.0.1:0".parse().unwrap())];
    let (behaviour, threads, socket_buffer, seed) = (Behaviour::Echo, 1, None, 7);
    let nats = String::new();
    Server::start(&Serve { kind, listen, nats, dialect, behaviour, threads, socket_buffer, seed })
        .unwrap()
}

fn address(server: &Server) -> SocketAddr {
    match &server.listening()[0] {
        Listen::Inet(addr) => *addr,
        Listen::Unix(path) => panic!("it listens on {path:?}"),
    }
}

type Parts<D> = (Shard<D>, SharedStats, Sender<ShardCommand>, SocketAddr);

fn shard<D: Driver<Socket = UdpSocket, Stream = StreamSocket>>(
    driver: D,
    kind: serve::Kind,
    server: &Server,
) -> Parts<D> {
    let any = "127.0.0.1:0".parse().unwrap();
    let sockets = UdpSocket::bind_group(any, 1, &SocketOptions::default()).unwrap();
    let addr = sockets[0].local_addr().unwrap();
    let (sender, commands) = unbounded();
    // Nobody listens to them: a report that finds no room is counted, and that is all.
    let (reports, _) = bounded::<ShardReport>(1);
    let stats = SharedStats::default();
    let mut handoff = Handoff::mesh(1, 64, 1500);
    handoff[0].set_wakers(vec![driver.waker()]);
    let backends = Arc::new(Backends {
        wait_ms: 5000,
        list: vec![listed(kind, server)],
        ..Backends::default()
    });
    let setup = Setup {
        index: 0,
        driver,
        sockets,
        steering: vec![None],
        policy: Arc::new(policy()),
        store_bytes_max: 64 << 20,
        seed: 7,
        secret: [7, 1],
        commands,
        stats: stats.clone(),
        handoff: handoff.remove(0),
        upstream: Upstream::Backends(BackendSetup {
            backends,
            pool_bytes_max: 8 << 20,
            listen_addrs: vec![addr],
            reports,
            stats: Default::default(),
        }),
    };
    (Shard::new(setup).unwrap(), stats, sender, addr)
}

fn listed(kind: serve::Kind, server: &Server) -> Backend {
    let (kind, addresses) = match kind {
        serve::Kind::Tcp => (Kind::Tcp(LinkConfig::new(CODEC)), vec![address(server).into()]),
        serve::Kind::Yamux => (Kind::Yamux(yamux::Config::new(CODEC)), Vec::new()),
        serve::Kind::Nats => panic!("NATS is no backend of a list"),
    };
    Backend {
        id: BackendId(0),
        name: "game".into(),
        kind,
        addresses,
        sources: Vec::new(),
        weight: 1,
        key: route::key("game"),
        usable: true,
        draining: false,
        proxy: true,
    }
}

fn policy() -> Policy {
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
