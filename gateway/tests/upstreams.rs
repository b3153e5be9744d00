//! Sessions through a gateway to backends over real sockets, on both drivers: echoed by the load generator's backend, verified by
//! the load generator's clients.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use kcp_gateway::config::{Auto, Listener, UpstreamUrl};
use kcp_gateway::shard::stats::{EndReason, Stat};
use kcp_gateway::{Config, Gateway};
use kcp_loadgen::scenario::Load;
use kcp_loadgen::serve::{Behaviour, Dialect, Framing, Kind, Listen, Serve, Server};
use kcp_loadgen::sources::Sources;
use kcp_loadgen::{Scenario, run};
use net_io::IoChoice;

fn serve(kind: Kind, listen: Listen) -> Server {
    let dialect = Dialect { framing: Framing::U32Be, proxy: true, message_max: 1 << 20 };
    let behaviour = Behaviour::Echo;
    let (threads, socket_buffer, seed) = (1, None, 7);
    let listen = vec![listen];
    let nats = String::new();
    Server::start(&Serve { kind, listen, nats, dialect, behaviour, threads, socket_buffer, seed })
        .unwrap()
}

fn gateway(io: IoChoice, url: &str) -> Gateway {
    let listeners = vec![Listener::new("127.0.0.1:0".parse().unwrap())];
    let mut config = Config { listeners, ..Config::default() };
    config.admin.listen = None;
    config.io.driver = io;
    config.shards.count = Auto::Exactly(2);
    config.shards.pin = false;
    config.upstream.url = UpstreamUrl::parse(url).unwrap();
    config.upstream.each.check_interval_ms = 20;
    let gateway = Gateway::start(config).unwrap();
    while gateway.status().not_ready.is_some() {
        std::thread::yield_now();
    }
    gateway
}

/// A load that must come back whole, through `gateway`.
fn load(gateway: &Gateway, io: IoChoice, size: usize) {
    let target = gateway.listen_addrs()[0];
    let mut scenario = Scenario::new(target, 100, Sources::single(target.ip()));
    scenario.engine.io = io;
    scenario.traffic.load = Load::Closed { outstanding: 2 };
    scenario.traffic.size = size;
    scenario.phases.warmup = Duration::from_millis(100);
    scenario.phases.duration = Duration::from_millis(400);
    let report = run(&scenario).unwrap();
    let seed = report.run.seed;
    assert_eq!(report.failures(), Vec::<String>::new(), "seed {seed}: {:?}", report.counts);
    assert_eq!(report.counts.received, report.counts.sent, "seed {seed}");
    assert!(report.counts.received > 1000, "{:?}", report.counts);
}

#[test]
fn every_message_comes_back_from_a_backend_on_both_drivers() {
    let any = || Listen::Inet("127.0.0.1:0".parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    for io in [IoChoice::Uring, IoChoice::Epoll] {
        let path = dir.path().join(format!("{io:?}"));
        for (kind, listen) in
            [(Kind::Tcp, any()), (Kind::Yamux, any()), (Kind::Yamux, Listen::Unix(path))]
        {
            let server = serve(kind, listen);
            let scheme = if kind == Kind::Tcp { "tcp" } else { "yamux" };
            let url = match &server.listening()[0] {
                Listen::Inet(addr) => format!("{scheme}://{addr}"),
                Listen::Unix(path) => format!("{scheme}+unix://{}", path.display()),
            };
            let gateway = gateway(io, &url);
            for size in [1, 64, 5000] {
                load(&gateway, io, size);
            }
            let totals = gateway.stop();
            assert_eq!(totals.get(Stat::MessagesIn), totals.get(Stat::MessagesOut), "{url}");
            let unnatural = EndReason::ALL.iter().filter(|r| r.label().starts_with("backend"));
            assert_eq!(unnatural.map(|&reason| totals.ends(reason)).sum::<u64>(), 0, "{url}");
            drop(server.stop());
        }
    }
}
