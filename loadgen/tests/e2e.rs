//! The load generator against a real gateway, over real sockets, on both drivers.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use kcp_gateway::config::{Auto, Listener};
use kcp_gateway::{Config, Gateway};
use kcp_loadgen::impair::{Impair, Proxy};
use kcp_loadgen::report::Report;
use kcp_loadgen::scenario::{Load, Protocol, profile_reference};
use kcp_loadgen::{Scenario, run};
use net_io::IoChoice;

#[test]
fn open_loop_on_both_drivers() {
    for io in [IoChoice::Uring, IoChoice::Epoll] {
        let gateway = gateway(io);
        let mut scenario = scenario(&gateway, 200);
        scenario.engine.io = io;
        scenario.engine.threads = 2;
        scenario.traffic.load = Load::Open { period: Duration::from_millis(50) };
        let report = run(&scenario).unwrap();
        assert_sound(&report);
        // 200 sessions, 20 a second each, half a second measured; one slot may fall on either side of an end.
        let measured = report.counts.measured_sent + report.counts.missed_sends;
        assert!((1998..=2002).contains(&measured), "{measured}");
        assert_eq!(report.latency_us.samples, report.counts.measured_sent);
        assert_eq!(report.connect_us.samples, 200);
        assert!(report.latency_us.max >= report.service_latency_us.max);
    }
}

#[test]
fn closed_loop_of_every_size() {
    let gateway = gateway(IoChoice::Auto);
    for size in [1, 2, 23, 24, 64, 1376, 1377, 20_000, 127 * 1376] {
        let mut scenario = scenario(&gateway, 10);
        scenario.traffic.load = Load::Closed { outstanding: 3 };
        scenario.traffic.size = size;
        scenario.phases.duration = Duration::from_millis(100);
        let report = run(&scenario).unwrap();
        assert_sound(&report);
        // One message to establish each, then at least the three that are kept on the way.
        assert!(report.counts.received >= 10 + 30, "size {size}: {:?}", report.counts);
        assert_eq!(report.counts.missed_sends, 0, "a closed loop has no schedule");
    }
}

#[test]
fn idle_sessions_are_established_by_their_first_message_alone() {
    let gateway = gateway(IoChoice::Auto);
    let mut scenario = scenario(&gateway, 500);
    scenario.traffic.load = Load::Idle;
    let report = run(&scenario).unwrap();
    assert_sound(&report);
    assert_eq!((report.counts.sent, report.counts.received), (500, 500));
    assert_eq!(gateway.status().sessions, 500);
    assert_eq!(report.latency_us.samples, 0);
}

#[test]
fn the_reference_profile_at_its_own_pace() {
    let gateway = gateway(IoChoice::Auto);
    let mut scenario = scenario(&gateway, 20);
    scenario.protocol = Protocol::Kcp(profile_reference());
    scenario.traffic.load = Load::Closed { outstanding: 1 };
    let report = run(&scenario).unwrap();
    assert_sound(&report);
    assert!(report.counts.received >= 20 + 20, "{:?}", report.counts);
}

#[test]
fn a_bad_network_slows_but_loses_nothing() {
    let gateway = gateway(IoChoice::Auto);
    let target = gateway.listen_addrs()[0];
    let any_port = SocketAddr::new(target.ip(), 0);
    let mut impair = Impair::new(any_port, target, target.ip());
    impair.seed = 11;
    impair.link.loss_ppm = 50_000;
    impair.link.delay_us = 5_000;
    impair.link.reorder_ppm = 20_000;
    impair.link.reorder_us = 3_000;
    impair.link.duplicate_ppm = 10_000;
    let proxy = Proxy::start(&impair).unwrap();
    let mut scenario = scenario(&gateway, 50);
    scenario.target = proxy.listen_addr();
    scenario.traffic.load = Load::Open { period: Duration::from_millis(20) };
    let report = run(&scenario).unwrap();
    let totals = proxy.stop().unwrap();
    assert_sound(&report);
    assert!(report.latency_us.p50 >= 10_000, "two ways of 5 ms: {:?}", report.latency_us);
    assert!(totals.up.lost > 0 && totals.down.lost > 0, "{totals:?}");
    assert!(totals.up.duplicated > 0 && totals.down.reordered > 0, "{totals:?}");
}

#[test]
fn ipv6() {
    let addr: SocketAddr = "[::1]:0".parse().unwrap();
    let gateway = gateway_on(addr, IoChoice::Auto);
    let report = run(&scenario(&gateway, 10)).unwrap();
    assert_sound(&report);
}

#[test]
fn nobody_there_is_said_at_once() {
    let holder = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = holder.local_addr().unwrap();
    let mut scenario = Scenario::new(silent, 3, source(silent));
    scenario.phases.establish = Duration::from_millis(200);
    let error = run(&scenario).unwrap_err().to_string();
    assert!(error.contains(&silent.to_string()) && error.contains("no session"), "{error}");
}

#[test]
fn a_source_address_of_another_host_is_named() {
    let target: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let scenario = Scenario::new(target, 1, "192.0.2.1".parse().unwrap());
    let error = run(&scenario).unwrap_err().to_string();
    assert!(error.contains("192.0.2.1"), "{error}");
}

fn gateway(io: IoChoice) -> Gateway {
    gateway_on("127.0.0.1:0".parse().unwrap(), io)
}

fn gateway_on(addr: SocketAddr, io: IoChoice) -> Gateway {
    let listeners = vec![Listener::new(addr)];
    let mut config = Config { listeners, ..Config::default() };
    config.admin.listen = None;
    config.io.driver = io;
    config.shards.count = Auto::Exactly(2);
    config.shards.pin = false;
    Gateway::start(config).expect("the gateway starts")
}

fn source(target: SocketAddr) -> kcp_loadgen::sources::Sources {
    kcp_loadgen::sources::Sources::single(target.ip())
}

/// Half a second, after a tenth of warming up.
fn scenario(gateway: &Gateway, sessions: u32) -> Scenario {
    let target = gateway.listen_addrs()[0];
    let mut scenario = Scenario::new(target, sessions, source(target));
    scenario.phases.warmup = Duration::from_millis(100);
    scenario.phases.duration = Duration::from_millis(500);
    scenario
}

fn assert_sound(report: &Report) {
    let seed = report.run.seed;
    assert_eq!(report.failures(), Vec::<String>::new(), "seed {seed}: {:?}", report.counts);
    assert_eq!(report.counts.received, report.counts.sent, "seed {seed}");
}
