//! What the load generator must notice: a network that damages raw datagrams, and its own limits.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{SocketAddr, UdpSocket};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kcp_loadgen::impair::{Impair, Proxy};
use kcp_loadgen::report::Report;
use kcp_loadgen::scenario::{Load, Protocol};
use kcp_loadgen::sources::Sources;
use kcp_loadgen::{Scenario, run};
use netem::LinkConfig;

#[test]
fn a_good_network_is_sound() {
    let report = raw_through(LinkConfig::default());
    assert_eq!(report.failures(), Vec::<String>::new());
    assert!(report.counts.received > 100, "{:?}", report.counts);
    assert_eq!(report.exit_code(), 0);
}

#[test]
fn loss_is_noticed() {
    let report = raw_through(LinkConfig { loss_ppm: 50_000, ..LinkConfig::default() });
    assert!(report.lost > 0 && report.exit_code() == 1, "{:?}", report.counts);
    assert_eq!(report.lost, report.counts.sent - report.counts.received);
    assert_eq!((report.counts.duplicated, report.counts.corrupted), (0, 0));
}

#[test]
fn duplication_is_noticed() {
    let report = raw_through(LinkConfig { duplicate_ppm: 100_000, ..LinkConfig::default() });
    assert!(report.counts.duplicated > 0 && report.exit_code() == 1, "{:?}", report.counts);
    assert_eq!((report.lost, report.counts.corrupted), (0, 0));
}

#[test]
fn reordering_is_noticed() {
    let report = raw_through(LinkConfig {
        reorder_ppm: 100_000,
        reorder_us: 30_000,
        ..LinkConfig::default()
    });
    assert!(report.counts.reordered > 0 && report.exit_code() == 1, "{:?}", report.counts);
    assert_eq!((report.lost, report.counts.duplicated, report.counts.corrupted), (0, 0, 0));
}

#[test]
fn corruption_is_noticed() {
    let report = raw_through(LinkConfig { corrupt_ppm: 100_000, ..LinkConfig::default() });
    // A bit of the conv makes the datagram nobody's: then it is lost.
    let damaged = report.counts.corrupted + report.counts.stray_datagrams;
    assert!(report.counts.corrupted > 0 && report.exit_code() == 1, "{:?}", report.counts);
    assert_eq!(report.counts.sent - report.counts.received, damaged);
    assert_eq!((report.counts.duplicated, report.counts.reordered), (0, 0));
}

#[test]
fn a_rate_beyond_the_generator_is_its_own_fault_and_every_slot_is_accounted_for() {
    let (target, server) = raw_echo_server();
    let mut scenario = raw_scenario(target);
    (scenario.clients.sessions, scenario.clients.sockets) = (10, 10);
    scenario.traffic.load = Load::Open { period: Duration::from_nanos(500) };
    scenario.phases.drain = Duration::from_millis(300);
    let report = run(&scenario).unwrap();
    stop(target, server);
    assert!(report.generator.saturated, "{:?}", report.counts);
    let reasons = report.generator.reasons.join("\n");
    assert!(reasons.contains("given up as too late"), "{reasons}");
    // Two million a second and session for 0.4 s, of which the first 0.1 s is warm-up. Ten hellos come on top.
    let slots = report.counts.sent - 10 + report.counts.missed_sends;
    assert!((7_999_900..=8_000_000).contains(&slots), "{slots} slots, {:?}", report.counts);
}

/// An open loop of raw datagrams through a bad network that begins once the sessions are established.
fn raw_through(link: LinkConfig) -> Report {
    let (target, server) = raw_echo_server();
    let any_port = SocketAddr::new(target.ip(), 0);
    let mut impair = Impair::new(any_port, target, target.ip());
    impair.seed = 5;
    impair.link = link;
    let proxy = Proxy::start(&impair).unwrap();
    let mut scenario = raw_scenario(proxy.listen_addr());
    scenario.phases.establish = Duration::from_millis(300);
    let report = run(&scenario).unwrap();
    proxy.stop().unwrap();
    stop(target, server);
    report
}

fn raw_scenario(target: SocketAddr) -> Scenario {
    let mut scenario = Scenario::new(target, 20, Sources::single(target.ip()));
    scenario.protocol = Protocol::Raw { datagram: 112 };
    scenario.traffic.load = Load::Open { period: Duration::from_millis(10) };
    scenario.phases.warmup = Duration::from_millis(100);
    scenario.phases.duration = Duration::from_millis(300);
    scenario.phases.drain = Duration::from_millis(300);
    scenario.seed = 5;
    scenario
}

fn raw_echo_server() -> (SocketAddr, JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let mut buffer = [0; 2048];
        loop {
            let (len, peer) = socket.recv_from(&mut buffer).unwrap();
            if &buffer[..len] == STOP {
                return;
            }
            // A full send buffer is loss, as on any network.
            let _ = socket.send_to(&buffer[..len], peer);
        }
    });
    (addr, thread)
}

fn stop(target: SocketAddr, server: JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // It may be lost in a full receive buffer.
    while !server.is_finished() {
        socket.send_to(STOP, target).unwrap();
        thread::yield_now();
    }
    server.join().unwrap();
}

const STOP: &[u8] = b"stop";
