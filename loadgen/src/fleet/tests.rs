//! The production fleet on simulated drivers: virtual time, seeded links, a small echo server at the other end.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use kcp_core::{Conv, Kcp};
use net_io::sim::{ClockStart, SimConfig, SimDriver, SimNet};
use net_io::{DriverConfig, SocketOptions};
use netem::{Blackout, LinkConfig};

use super::*;
use crate::meter::Quantiles;
use crate::scenario::{Load, Storm, profile_game, profile_reference};
use crate::sources::Sources;

#[test]
fn a_schedule_is_kept_to_the_microsecond() {
    let mut sim = Sim::new(
        1,
        ClockStart::Zero,
        LinkConfig { delay_us: 2_000, ..LinkConfig::default() },
        |s| {
            s.traffic.load = Load::Open { period: Duration::from_millis(100) };
        },
    );
    let meter = sim.run();
    assert_sound(&meter, "seed 1");
    let (latency, lag) = (Quantiles::of(&meter.latency), Quantiles::of(&meter.lag));
    // 20 sessions, ten a second each, five seconds; virtual time passes only on the links.
    assert_eq!((latency.samples, meter.counts.measured_sent), (1000, 1000));
    assert_eq!((latency.p50 / 10, latency.max / 10, lag.max), (400, 400, 0));
    assert_eq!(meter.connect.len(), 20);
    assert_eq!(Quantiles::of(&meter.connect).max / 10, 400);
}

#[test]
fn a_stall_of_the_target_is_in_the_open_loops_figures_and_hidden_in_the_closed_ones() {
    // Nothing passes in the third of six seconds.
    let blackouts = vec![Blackout { from_us: 2_500_000, for_us: 1_000_000, every_us: 0 }];
    let link = LinkConfig { delay_us: 1_000, blackouts, ..LinkConfig::default() };
    let p90 = |load| {
        let mut sim = Sim::new(1, ClockStart::Zero, link.clone(), |s| s.traffic.load = load);
        let meter = sim.run();
        assert_sound(&meter, "seed 1");
        Quantiles::of(&meter.latency).p90
    };
    let open = p90(Load::Open { period: Duration::from_millis(10) });
    let closed = p90(Load::Closed { outstanding: 1 });
    assert!(open > 400_000, "a fifth of the messages fell into the stall: {open} us");
    assert!(closed < 10_000, "20 messages did: {closed} us");
}

#[test]
fn bad_networks_lose_nothing_whatever_the_clock_and_the_size() {
    let link = LinkConfig {
        loss_ppm: 50_000,
        delay_us: 10_000,
        jitter_us: 5_000,
        keep_order: false,
        reorder_ppm: 20_000,
        reorder_us: 15_000,
        duplicate_ppm: 20_000,
        ..LinkConfig::default()
    };
    let base = crate::seed::fresh();
    for (n, size) in (0..).zip([1, 7, 23, 24, 64, 1376, 5000]) {
        for start in [ClockStart::Random, ClockStart::BeforeWrap] {
            for config in [profile_game(), profile_reference()] {
                let seed = base.wrapping_add(n);
                let mut sim = Sim::new(seed, start, link.clone(), |s| {
                    s.traffic.load = Load::Open { period: Duration::from_millis(200) };
                    s.traffic.size = size;
                    s.protocol = Protocol::Kcp(config.clone());
                });
                let meter = sim.run();
                let case =
                    format!("seed {seed}, {start:?}, {size} bytes, interval {}", config.interval);
                assert_sound(&meter, &case);
                assert!(Quantiles::of(&meter.latency).p50 >= 20_000, "{case}");
            }
        }
    }
}

#[test]
fn a_closed_loop_keeps_its_number_on_the_way() {
    for outstanding in [1, 8] {
        let link = LinkConfig { delay_us: 5_000, ..LinkConfig::default() };
        let mut sim = Sim::new(3, ClockStart::Zero, link, |s| {
            s.traffic.load = Load::Closed { outstanding };
        });
        let meter = sim.run();
        assert_sound(&meter, "seed 3");
        // 20 sessions for 5 s, each message 10 ms on the way.
        let expected = u64::from(outstanding) * 20 * 500;
        let received = meter.counts.measured_received;
        assert!(received > expected * 99 / 100 && received <= expected, "{received} of {expected}");
    }
}

#[test]
fn starts_wait_for_answers_and_their_wait_counts() {
    let link = LinkConfig { delay_us: 10_000, ..LinkConfig::default() };
    let mut sim = Sim::new(8, ClockStart::Zero, link, |s| {
        s.phases.ramp = Duration::ZERO;
        s.clients.opening_max = 4;
    });
    let meter = sim.run();
    assert_sound(&meter, "seed 8");
    // Five waves of four, 20 ms each; all were due at the start.
    let connect = Quantiles::of(&meter.connect);
    assert_eq!((connect.p50 / 1000, connect.max / 1000), (60, 100));
}

#[test]
fn a_storm_takes_some_and_brings_others_and_the_bystanders_are_told_apart() {
    let link = LinkConfig { delay_us: 50_000, ..LinkConfig::default() };
    for raw in [false, true] {
        let mut sim = Sim::new(9, ClockStart::BeforeWrap, link.clone(), |s| {
            s.traffic.load = Load::Open { period: Duration::from_millis(200) };
            s.clients.bystanders = 4;
            s.traffic.bystanders = Some(Load::Open { period: Duration::from_millis(100) });
            let (within, after) = (Duration::from_secs(1), Duration::from_secs(2));
            s.storm = Some(Storm { vanish: 6, arrive: 9, within, after });
            if raw {
                s.protocol = Protocol::Raw { datagram: 112 };
            }
        });
        let meter = sim.run();
        let counts = meter.counts;
        assert_eq!((counts.established, counts.vanished, counts.newcomers), (20, 6, 9), "{raw}");
        assert!((1..=6).contains(&counts.abandoned), "{counts:?}");
        assert_eq!((counts.missing(), counts.sent), (0, counts.received + counts.abandoned));
        assert_eq!((counts.stray_datagrams, counts.refused_datagrams), (0, 0), "{raw}");
        let around = meter.around.unwrap();
        // Four bystanders, ten a second each: two seconds before, one in it, two after.
        let samples = [&around.quiet, &around.stormy, &around.after].map(|h| h.len());
        assert_eq!(samples, [80, 40, 80]);
        assert_eq!((around.connect.len(), around.connect.max() / 1000), (9, 100));
        assert_eq!(sim.fleet.opening, 0);
    }
}

#[test]
fn raw_datagrams_are_scheduled_and_checked_alike() {
    let link = LinkConfig { delay_us: 1_000, ..LinkConfig::default() };
    let mut sim = Sim::new(4, ClockStart::Zero, link, |s| {
        s.traffic.load = Load::Open { period: Duration::from_millis(50) };
        s.protocol = Protocol::Raw { datagram: 112 };
    });
    let meter = sim.run();
    assert_sound(&meter, "seed 4");
    assert_eq!(meter.latency.len(), 2000);
    assert_eq!(Quantiles::of(&meter.latency).max / 10, 200);
}

#[test]
fn clients_that_read_nothing_close_their_windows_and_read_it_all_in_the_end() {
    let link = LinkConfig { delay_us: 1_000, ..LinkConfig::default() };
    // Each message that is read calls for another one: one a second of each, for five seconds.
    let pace = Load::Open { period: Duration::from_secs(1) };
    for (reads, taken) in [(Load::Idle, 0..=0), (pace, 18 * 4..=18 * 5)] {
        let mut sim = Sim::new(8, ClockStart::Zero, link.clone(), |s| {
            s.clients.bystanders = 2;
            s.traffic.load = Load::Closed { outstanding: 200 };
            s.traffic.bystanders = Some(Load::Open { period: Duration::from_millis(100) });
            s.traffic.reads = Some(reads);
            s.phases.warmup = Duration::ZERO;
            s.protocol = Protocol::Kcp(KcpConfig { rcv_wnd: 128, ..profile_game() });
        });
        let meter = sim.run();
        assert_sound(&meter, "seed 8");
        let refilled = meter.counts.sent - (20 + 18 * 200 + 2 * 50);
        assert!(taken.contains(&refilled), "{refilled}");
        let late = meter.latency.len() - meter.latency.count_between(0, 100_000);
        assert!(late >= 18 * 199, "{late} of {}", meter.latency.len());
        let quiet = Quantiles::of(&meter.around.unwrap().quiet);
        assert_eq!((quiet.samples, quiet.max / 100), (100, 20), "bystanders read at once");
    }
}

#[test]
fn an_answer_is_its_message_so_many_times_over_or_nothing() {
    assert_eq!(once(b"one", 1), b"one");
    assert_eq!(once(b"oneoneone", 3), b"one");
    for (answer, times) in [(&b"oneonetwo"[..], 3), (b"oneoneo", 3), (b"", 3), (b"ab", 3)] {
        assert_eq!(once(answer, times), b"", "{answer:?}");
    }
}

#[test]
fn a_target_that_falls_silent_is_throttled_then_dead_and_memory_stays_bounded() {
    let blackouts = vec![Blackout { from_us: 1_000_000, for_us: u64::MAX / 2, every_us: 0 }];
    let link = LinkConfig { delay_us: 1_000, blackouts, ..LinkConfig::default() };
    let mut sim = Sim::new(5, ClockStart::Zero, link, |s| {
        s.traffic.load = Load::Open { period: Duration::from_millis(10) };
        s.traffic.backlog_max = 50;
        s.phases.duration = Duration::from_secs(30);
        s.protocol = Protocol::Kcp(KcpConfig { dead_link: 8, ..profile_game() });
    });
    let meter = sim.run();
    assert_eq!(meter.counts.dead_sessions, 20);
    assert!(meter.counts.throttled_sends > 0, "{:?}", meter.counts);
    assert!(meter.counts.missing() <= 20 * 50, "{:?}", meter.counts);
    assert_eq!(meter.counts.missed_sends, 0, "that is the target's doing, not ours");
}

#[test]
fn the_stores_bound_is_ours_and_is_counted() {
    let link = LinkConfig { delay_us: 100_000, ..LinkConfig::default() };
    let mut sim = Sim::new(6, ClockStart::Zero, link, |s| {
        s.traffic.load = Load::Closed { outstanding: 100 };
        s.traffic.size = 1000;
        s.engine.store_bytes = 500_000;
    });
    let meter = sim.run();
    assert!(meter.counts.store_full > 0, "{:?}", meter.counts);
    assert_sound(&meter, "seed 6");
}

#[test]
fn datagrams_for_nobody_are_strays() {
    let mut sim = Sim::new(7, ClockStart::Zero, LinkConfig::default(), |_| {});
    let before = sim.fleet.meter.counts;
    for datagram in [&b""[..], b"abc", &[0; 24]] {
        sim.fleet.on_datagram(Now(0), SocketId(0), datagram);
    }
    assert_eq!(sim.fleet.meter.counts.stray_datagrams, before.stray_datagrams + 3);
}

#[test]
fn shares_cover_everything_once() {
    for workers in [1, 2, 3, 7] {
        for total in [0, 1, 6, 7, 8, 100] {
            let shares = (0..workers).map(|worker| Share { worker, workers });
            let numbers: std::collections::BTreeSet<u32> = shares
                .flat_map(|share| (0..share.of(total)).map(move |local| (share, local)))
                .map(|(share, local)| {
                    assert_eq!(share.local(share.number(local)), Some(local));
                    share.number(local)
                })
                .collect();
            assert!(numbers.iter().copied().eq(0..total), "{workers} workers, {total} things");
        }
    }
}

fn assert_sound(meter: &Meter, case: &str) {
    let counts = &meter.counts;
    assert_eq!(counts.established, 20, "{case}: {counts:?}");
    assert_eq!(counts.received, counts.sent, "{case}: {counts:?}");
    assert_eq!(counts.duplicated + counts.reordered + counts.corrupted, 0, "{case}: {counts:?}");
    assert_eq!(counts.missed_sends + counts.throttled_sends, 0, "{case}: {counts:?}");
}

/// 20 sessions on 4 sockets of one host, an echo server on another, and the network between them.
struct Sim {
    net: SimNet,
    client: SimDriver,
    fleet: Fleet,
    server: EchoServer,
}

impl Sim {
    /// Ramp, half a second of warm-up, five seconds, unless `change` says otherwise. The load begins with all established.
    fn new(
        seed: u64,
        start: ClockStart,
        link: LinkConfig,
        change: impl FnOnce(&mut Scenario),
    ) -> Self {
        let net = SimNet::new(&SimConfig { seed, start, link, ..SimConfig::default() });
        let (client_ip, server_ip): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let target = SocketAddr::new(server_ip, 4000);
        let mut scenario = Scenario::new(target, 20, Sources::single(client_ip));
        scenario.seed = seed;
        scenario.clients.sockets = 4;
        scenario.phases.warmup = Duration::from_millis(500);
        scenario.phases.duration = Duration::from_secs(5);
        scenario.phases.drain = Duration::from_secs(60);
        change(&mut scenario);
        let bind = |ip: IpAddr, port| (net.host(&[ip]).unwrap(), SocketAddr::new(ip, port));
        let (host, addr) = bind(client_ip, 0);
        let mut client = SimDriver::new(&net, &DriverConfig::default());
        for _ in 0..scenario.clients.sockets {
            client.add_socket(host.bind(addr, &SocketOptions::default()).unwrap()).unwrap();
        }
        let (host, addr) = bind(server_ip, 4000);
        let mut driver = SimDriver::new(&net, &DriverConfig::default());
        driver.add_socket(host.bind(addr, &SocketOptions::default()).unwrap()).unwrap();
        let config = match &scenario.protocol {
            Protocol::Kcp(config) => Some(config.clone()),
            Protocol::Raw { .. } => None,
        };
        let server = EchoServer::new(driver, config);
        let share = Share { worker: 0, workers: 1 };
        let fleet = Fleet::new(Arc::new(Plan::new(scenario)), share, net.now());
        Self { net, client, fleet, server }
    }

    /// To the end, or for at most two simulated minutes.
    fn run(&mut self) -> Meter {
        let end = Now(self.net.now().0 + 120_000_000);
        while self.net.now() < end {
            if self.client.is_due() {
                let deadline = self.fleet.next_deadline(self.client.now());
                let now = self.client.submit_and_wait(deadline).unwrap();
                self.fleet.serve(now, &mut self.client);
                if self.fleet.load.is_none() && self.fleet.meter.counts.established == 20 {
                    self.fleet.begin_load(now);
                }
                // What was queued leaves now, and the wait knows what is due next.
                let deadline = self.fleet.next_deadline(now);
                self.client.submit_and_wait(deadline).unwrap();
                if self.fleet.stage(now) == Stage::Done {
                    return self.fleet.meter.clone();
                }
            }
            self.server.turn();
            assert!(self.net.advance().is_some(), "the simulation stands still");
        }
        panic!("not done: {:?} {:?}", self.fleet.stage(self.net.now()), self.fleet.meter.counts);
    }
}

/// Echoes what it gets, KCP or raw; a session is born of its first datagram.
struct EchoServer {
    driver: SimDriver,
    config: Option<KcpConfig>,
    store: Store,
    sessions: BTreeMap<u32, (Kcp, SocketAddr)>,
}

impl EchoServer {
    fn new(driver: SimDriver, config: Option<KcpConfig>) -> Self {
        Self { driver, config, store: Store::new(1 << 30), sessions: BTreeMap::new() }
    }

    fn turn(&mut self) {
        if !self.driver.is_due() {
            return;
        }
        let now = self.driver.submit_and_wait(None).unwrap();
        let mut arrived = Vec::new();
        while let Some(datagram) = self.driver.recv() {
            arrived.push((datagram.peer, datagram.payload.to_vec()));
        }
        for (peer, bytes) in arrived {
            match &self.config {
                None => self.send(&bytes, peer),
                Some(config) => {
                    let Conv(conv) = wire::conv(&bytes).unwrap();
                    let (kcp, _) =
                        self.sessions.entry(conv).or_insert((Kcp::new(Conv(conv)), peer));
                    let mut cx = Cx { config, store: &mut self.store };
                    kcp.handle_datagram(&mut cx, millis(now), &bytes, |_| false).unwrap();
                    let mut message = vec![0; 200_000];
                    while let Ok(len) = kcp.recv(&mut cx, &mut message) {
                        kcp.send(&mut cx, &message[..len]).unwrap();
                    }
                }
            }
        }
        let next = self.flush(now);
        self.driver.submit_and_wait(next).unwrap();
    }

    /// Every session speaks when it may; returns when one must again.
    fn flush(&mut self, now: Now) -> Option<Now> {
        let config = self.config.as_ref()?;
        let mut next = None::<Now>;
        let mut out = Vec::new();
        for (kcp, peer) in self.sessions.values_mut() {
            let mut cx = Cx { config, store: &mut self.store };
            kcp.handle_timeout(&mut cx, millis(now));
            let mut buffer = [0; 1500];
            while let Some(len) = kcp.poll_transmit(&mut cx, millis(now), &mut buffer) {
                out.push((*peer, buffer[..len].to_vec()));
            }
            let due = kcp.poll_timeout(&cx, millis(now)).map(|due| at_millis(now, due));
            next = [next, due].into_iter().flatten().min();
        }
        for (peer, bytes) in out {
            self.send(&bytes, peer);
        }
        next
    }

    fn send(&mut self, bytes: &[u8], peer: SocketAddr) {
        self.driver.slot(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.driver.queue(bytes.len(), &Destination { socket: SocketId(0), peer, local: None });
    }
}
