//! The `nats` upstream through Debian's nats-server: real sessions, a real backend, and the server killed in mid-traffic.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test fails by panicking, waits no longer than a while, and says what was lost"
)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kcp_gateway::config::{Auto, GatewayId, Listener, UpstreamUrl};
use kcp_gateway::shard::stats::{EndReason, Stat};
use kcp_gateway::upstream::nats::stats::{Loss, NatsStat};
use kcp_gateway::{Config, Gateway};
use kcp_loadgen::report::Report;
use kcp_loadgen::scenario::{Load, Upstream};
use kcp_loadgen::serve::{
    Behaviour, Crash, Cut, Dialect, Ending, Framing, Kind, Rooms, Serve, Server, Totals,
};
use kcp_loadgen::sources::Sources;
use kcp_loadgen::{Scenario, run};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

#[test]
fn every_message_comes_back() {
    let nats = Nats::start(None);
    let backend = backend(&nats, Behaviour::Echo);
    let gateway = gateway(&nats);
    for size in [64, 20_000] {
        let mut scenario = scenario(&gateway, 200);
        scenario.traffic.size = size;
        sound(&run(&scenario).unwrap());
    }
    let totals = backend.totals();
    assert_eq!((totals.sessions, totals.proxy_headers, totals.proxy_errors), (400, 400, 0));
    assert_eq!((lost(&gateway), until_known(&gateway, NatsStat::Connected, 1)), (0, 1));
    assert_eq!(gateway.nats().unwrap().get(NatsStat::Published), totals.messages_in);
}

#[test]
fn rooms_are_told_in_one_message() {
    let nats = Nats::start(None);
    let backend = backend(&nats, Behaviour::Rooms(Rooms { size: 5, queue: 1 }));
    let gateway = gateway(&nats);
    let mut scenario = scenario(&gateway, 50);
    scenario.traffic.upstream = Upstream::Rooms;
    let report = run(&scenario).unwrap();
    sound(&report);
    assert!(report.counts.heard > report.counts.received, "{:?}", report.counts);
    let stats = gateway.nats().unwrap();
    assert_eq!((stats.get(NatsStat::Rooms), stats.get(NatsStat::Members)), (10, 50));
    assert!(stats.get(NatsStat::Delivered) > 3 * backend.totals().messages_out);
}

#[test]
fn a_backend_ends_sessions() {
    let nats = Nats::start(None);
    let crash = Crash {
        after_messages: Some(3),
        after_time: None,
        chance_ppm: 0,
        cut: Cut::Session,
        ending: Ending::Fin,
    };
    let backend = backend(&nats, Behaviour::Crash(crash));
    let gateway = gateway(&nats);
    let mut scenario = scenario(&gateway, 20);
    scenario.phases.drain = Duration::from_millis(200);
    let report = run(&scenario).unwrap();
    assert_eq!((report.counts.established, report.counts.received), (20, 40));
    assert_eq!(gateway.stats().ends(EndReason::BackendFin), 20);
    let totals = until(|| Some(backend.totals()).filter(|totals| totals.ended == 20));
    assert_eq!((totals.crashes, totals.sessions_open), (20, 0), "each end was announced");
}

#[test]
fn a_server_that_dies_in_mid_traffic_loses_what_is_counted_and_nothing_else() {
    let nats = Nats::start(None);
    let port = nats.port;
    let backend = backend(&nats, Behaviour::Echo);
    let gateway = gateway(&nats);
    let report = under_load(&gateway, || {
        drop(nats);
        let stats = gateway.nats().unwrap();
        until(|| (stats.get(NatsStat::Connected) == 0).then_some(()));
        let before = stats.get(NatsStat::Published);
        let nats = Nats::start(Some(port));
        until_known(&gateway, NatsStat::Connected, 1);
        until_known(&gateway, NatsStat::Published, before + 5_000);
        nats
    });
    accounted(&report, &gateway, &backend);
}

#[test]
fn a_connection_cut_in_mid_traffic_loses_what_is_counted_and_nothing_else() {
    let nats = Nats::start(None);
    let backend = backend(&nats, Behaviour::Echo);
    let wire = Wire::to(nats.port);
    let gateway = gateway_at(wire.port);
    until_known(&gateway, NatsStat::Connected, 1);
    let report = under_load(&gateway, || {
        wire.cut.notify_one();
        until_known(&gateway, NatsStat::Connects, 2);
    });
    accounted(&report, &gateway, &backend);
    let stats = gateway.nats().unwrap();
    assert_eq!(stats.losses(Loss::NoBackend), 0, "the backend was there all the time");
}

/// What a load saw to which something happened in its middle.
fn under_load<T>(gateway: &Gateway, happens: impl FnOnce() -> T) -> Report {
    let mut scenario = scenario(gateway, 200);
    scenario.traffic.load = Load::Open { period: Duration::from_millis(20) };
    scenario.phases.duration = Duration::from_secs(5);
    scenario.phases.drain = Duration::from_secs(3);
    thread::scope(|scope| {
        let load = scope.spawn(|| run(&scenario).unwrap());
        until_known(gateway, NatsStat::Published, 5_000);
        let _until_the_end = happens();
        load.join().unwrap()
    })
}

/// The connection was lost once, no session with it, and of messages no more than the gateway says.
fn accounted(report: &Report, gateway: &Gateway, backend: &Server) {
    let counts = &report.counts;
    assert_eq!((counts.established, counts.dead_sessions), (200, 0));
    assert_eq!((counts.duplicated, counts.reordered, counts.corrupted), (0, 0, 0));
    assert_eq!(gateway.stats().get(Stat::Sessions), 200, "sessions outlive the connection");
    let (stats, Totals { messages_in, messages_out, .. }) =
        (gateway.nats().unwrap(), backend.totals());
    let (there, back) = (
        stats.get(NatsStat::Published) - messages_in,
        messages_out - stats.get(NatsStat::Delivered),
    );
    // After its server the backend subscribes again a little later than the gateway publishes again.
    let (unconfirmed, no_backend) =
        (stats.losses(Loss::Unconfirmed), stats.losses(Loss::NoBackend));
    println!(
        "{} sent, {} lost: {there} on the way to the backend (counted: {unconfirmed} + {no_backend}), {back} on the way back",
        counts.sent, report.lost,
    );
    assert!(there <= unconfirmed + no_backend, "{there} lost, but not counted");
    assert_eq!(report.lost, there + back, "every message is accounted for");
    assert_eq!(stats.get(NatsStat::Connects), 2);
}

#[test]
fn what_comes_at_once_is_bounded_in_bytes_and_all_accounted_for() {
    const COUNT: u64 = 400;
    let nats = Nats::start(None);
    let gateway = gateway(&nats);
    let subject = format!("kcp.{}.@nobody.out", GatewayId::default().resolve());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(format!("127.0.0.1:{}", nats.port)).await.unwrap();
        let message = bytes::Bytes::from(vec![7; LONGEST]);
        for _ in 0..COUNT {
            client.publish(subject.clone(), message.clone()).await.unwrap();
        }
        client.flush().await.unwrap();
    });
    let stats = gateway.nats().unwrap();
    until(|| {
        let told = stats.losses(Loss::NoMember) + stats.losses(Loss::Overrun);
        (told == COUNT).then_some(())
    });
    let most = stats.get(NatsStat::ReceivedPeakBytes);
    println!("at most {most} bytes at once");
    assert!(most >= LONGEST as u64 && most <= READS * LONGEST as u64, "{most} bytes at once");
}

/// The server's default `max_payload`.
const LONGEST: usize = 1 << 20;

/// How often tokio lets a task read before it is another's turn.
const READS: u64 = 128;

#[test]
fn without_a_server_the_gateway_starts_and_waits() {
    let nats = Nats::start(None);
    let port = nats.port;
    drop(nats);
    let gateway = gateway_at(port);
    assert_eq!(gateway.nats().unwrap().get(NatsStat::Connected), 0);
    assert_eq!(gateway.nats().unwrap().get(NatsStat::Connects), 0);
    let nats = Nats::start(Some(port));
    until_known(&gateway, NatsStat::Connected, 1);
    let _backend = backend(&nats, Behaviour::Echo);
    sound(&run(&scenario(&gateway, 20)).unwrap());
}

#[test]
fn a_server_that_forbids_the_subjects_is_named_and_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nats.conf");
    let rules = "authorization { default_permissions { publish: \"kcp.>\", subscribe: \"other.>\" }
        users = [{ user: nobody, password: none }] }
        no_auth_user: nobody";
    std::fs::write(&path, rules).unwrap();
    let nats = Nats::start_with(None, &["-c", path.to_str().unwrap()]);
    let gateway = gateway_at(nats.port);
    let stats = gateway.nats().unwrap();
    until(|| stats.trouble().filter(|why| why.contains("does not come back")));
    assert_eq!((stats.get(NatsStat::Connected), stats.get(NatsStat::Connects)), (0, 0));
}

/// A nats-server of our own; dropping it kills it.
struct Nats {
    child: Child,
    port: u16,
}

impl Nats {
    /// At `port`, or at a free one.
    fn start(port: Option<u16>) -> Self {
        Self::start_with(port, &[])
    }

    fn start_with(port: Option<u16>, more: &[&str]) -> Self {
        let asked = port.map_or("-1".to_owned(), |port| port.to_string());
        let mut child = Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &asked])
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .expect("nats-server runs: apt-get install nats-server");
        let mut port = None;
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        for line in lines.by_ref().map_while(Result::ok) {
            let addr = line.split_once("client connections on ").map(|(_, addr)| addr.trim());
            port = addr.and_then(|addr| addr.parse::<SocketAddr>().ok()).or(port);
            if line.contains("Server is ready") {
                break;
            }
        }
        // Read on, so that it never blocks on a full pipe.
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, port: port.expect("the server says where it listens").port() }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Between a gateway and its server, to be cut while both live on.
struct Wire {
    cut: Arc<Notify>,
    port: u16,
    _runtime: Runtime,
}

impl Wire {
    fn to(server: u16) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (cut, port) = (Arc::new(Notify::new()), listener.local_addr().unwrap().port());
        runtime.spawn(relay(listener, server, Arc::clone(&cut)));
        Self { cut, port, _runtime: runtime }
    }
}

/// One connection at a time; what it holds when it is cut is lost.
async fn relay(listener: TcpListener, server: u16, cut: Arc<Notify>) {
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            () = cut.notified() => {}
        }
    }
}

fn backend(nats: &Nats, behaviour: Behaviour) -> Server {
    let config = Serve {
        kind: Kind::Nats,
        listen: Vec::new(),
        nats: format!("nats://127.0.0.1:{}", nats.port),
        dialect: Dialect { framing: Framing::None, proxy: false, message_max: 1 << 20 },
        behaviour,
        threads: 1,
        socket_buffer: None,
        seed: 1,
    };
    Server::start(&config).unwrap()
}

/// Connected, so that the first message need not wait.
fn gateway(nats: &Nats) -> Gateway {
    let gateway = gateway_at(nats.port);
    until_known(&gateway, NatsStat::Connected, 1);
    gateway
}

fn gateway_at(port: u16) -> Gateway {
    let listeners = vec![Listener::new("127.0.0.1:0".parse().unwrap())];
    let mut config = Config { listeners, ..Config::default() };
    config.admin.listen = None;
    config.shards.count = Auto::Exactly(2);
    config.shards.pin = false;
    config.upstream.url = UpstreamUrl::parse(&format!("nats://127.0.0.1:{port}")).unwrap();
    Gateway::start(config).unwrap()
}

fn scenario(gateway: &Gateway, sessions: u32) -> Scenario {
    let target = gateway.listen_addrs()[0];
    let mut scenario = Scenario::new(target, sessions, Sources::single(target.ip()));
    scenario.phases.warmup = Duration::ZERO;
    scenario.phases.duration = Duration::from_millis(500);
    scenario
}

fn sound(report: &Report) {
    assert_eq!(report.failures(), Vec::<String>::new(), "seed {}", report.run.seed);
    assert!(report.counts.received >= report.sessions);
}

fn lost(gateway: &Gateway) -> u64 {
    gateway.nats().unwrap().lost()
}

/// Waits until a number is at least `least`.
fn until_known(gateway: &Gateway, stat: NatsStat, least: u64) -> u64 {
    until(|| Some(gateway.nats().unwrap().get(stat)).filter(|value| *value >= least))
}

fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it does not come");
        thread::yield_now();
    }
}
