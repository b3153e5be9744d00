//! The load generator through a gateway to its own backend: what comes back is what was sent, whatever is between the two.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use kcp_gateway::config::{Auto, Check, Listener, UpstreamUrl};
use kcp_gateway::upstream::framing::Framing as Gateways;
use kcp_gateway::{Config, Gateway};
use kcp_loadgen::report::Report;
use kcp_loadgen::scenario::{Load, Upstream};
use kcp_loadgen::serve::{
    Behaviour, Dialect, Framing, Kind, Listen, Rooms, Serve, Server, Side, Slow,
};
use kcp_loadgen::sources::Sources;
use kcp_loadgen::{Scenario, run};

const FRAMINGS: [(Gateways, Framing); 4] = [
    (Gateways::U16Be, Framing::U16Be),
    (Gateways::U16Le, Framing::U16Le),
    (Gateways::U32Be, Framing::U32Be),
    (Gateways::U32Le, Framing::U32Le),
];

#[test]
fn every_framing_brings_every_message_back() {
    for (ours, theirs) in FRAMINGS {
        let (backend, gateway) = pair(Behaviour::Echo, ours, theirs);
        for size in [1, 64, 20_000] {
            let mut scenario = scenario(&gateway, 50);
            scenario.traffic.size = size;
            sound(&run(&scenario).unwrap());
        }
        let totals = backend.totals();
        assert_eq!((totals.proxy_headers, totals.proxy_errors), (150, 0));
        assert_eq!(totals.messages_in, totals.messages_out);
    }
}

#[test]
fn without_framing_the_byte_stream_is_verified() {
    let (_backend, gateway) = pair(Behaviour::Echo, Gateways::None, Framing::None);
    for size in [10, 1000, 5_000] {
        let mut scenario = scenario(&gateway, 50);
        scenario.traffic.size = size;
        scenario.traffic.upstream = Upstream::Stream;
        sound(&run(&scenario).unwrap());
    }
}

#[test]
fn rooms_are_heard_and_ones_own_messages_verified() {
    let rooms = Behaviour::Rooms(Rooms { size: 4, queue: 256 });
    let (backend, gateway) = pair(rooms, Gateways::U16Be, Framing::U16Be);
    let mut scenario = scenario(&gateway, 40);
    scenario.traffic.upstream = Upstream::Rooms;
    let report = run(&scenario).unwrap();
    sound(&report);
    assert!(report.counts.heard > report.counts.received, "{:?}", report.counts);
    assert_eq!(backend.totals().dropped, 0);
}

#[test]
fn a_slow_backend_loses_nothing() {
    let slow = Behaviour::Slow(Slow { side: Side::Reads, bytes_per_s: 20_000 });
    let (_backend, gateway) = pair(slow, Gateways::U32Be, Framing::U32Be);
    let mut scenario = scenario(&gateway, 20);
    scenario.traffic.size = 1000;
    sound(&run(&scenario).unwrap());
}

#[test]
fn slow_clients_of_a_backend_that_says_much_lose_nothing() {
    let (backend, gateway) = pair(Behaviour::Swell(86), Gateways::U32Be, Framing::U32Be);
    let mut scenario = scenario(&gateway, 20);
    scenario.traffic.times = 86;
    scenario.traffic.load = Load::Closed { outstanding: 150 };
    scenario.traffic.reads = Some(Load::Idle);
    let report = run(&scenario).unwrap();
    sound(&report);
    let totals = backend.totals();
    assert_eq!((totals.messages_in, totals.messages_out), (20 * 150, 20 * 150));
    assert_eq!(totals.bytes_out, 86 * totals.bytes_in);
    // Where nobody answers so, it is seen.
    let (_backend, gateway) = pair(Behaviour::Echo, Gateways::U32Be, Framing::U32Be);
    scenario.target = gateway.listen_addrs()[0];
    scenario.phases.drain = Duration::from_millis(300);
    assert!(run(&scenario).unwrap().counts.corrupted > 0);
}

fn pair(behaviour: Behaviour, ours: Gateways, theirs: Framing) -> (Server, Gateway) {
    let backend = Server::start(&Serve {
        kind: Kind::Tcp,
        listen: vec![Listen::Inet("127.0.0.1:0".parse().unwrap())],
        nats: String::new(),
        dialect: Dialect { framing: theirs, proxy: true, message_max: 1 << 20 },
        behaviour,
        threads: 1,
        socket_buffer: None,
        seed: 1,
    })
    .unwrap();
    let listeners = vec![Listener::new("127.0.0.1:0".parse().unwrap())];
    let mut config = Config { listeners, ..Config::default() };
    config.admin.listen = None;
    config.shards.count = Auto::Exactly(2);
    config.shards.pin = false;
    config.upstream.url = UpstreamUrl::parse(&format!("tcp://{}", backend.listening()[0])).unwrap();
    config.upstream.each.framing = ours;
    config.upstream.each.check = Check::Off; // a check is a connection without a header, and counted as such
    (backend, Gateway::start(config).unwrap())
}

fn scenario(gateway: &Gateway, sessions: u32) -> Scenario {
    let target = gateway.listen_addrs()[0];
    let mut scenario = Scenario::new(target, sessions, Sources::single(target.ip()));
    scenario.phases.warmup = Duration::ZERO;
    scenario.phases.duration = Duration::from_millis(300);
    scenario
}

fn sound(report: &Report) {
    assert_eq!(report.failures(), Vec::<String>::new(), "seed {}", report.run.seed);
    assert!(report.counts.received >= 2 * report.sessions, "{:?}", report.counts);
}
