//! What the conformance list does not ask of every driver: the clock, groups, links, and reproducibility.

use std::net::{IpAddr, SocketAddr};

use netem::LinkConfig;

use super::*;
use crate::socket::SocketOptions;
use crate::steer::Steering;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn harness() -> SimNet {
    SimNet::new(&SimConfig::default())
}

fn waiting() -> SimNet {
    SimNet::new(&SimConfig { pace: Pace::Wait, ..SimConfig::default() })
}

/// A host, and a driver with a socket on each of `binds`.
fn end(net: &SimNet, ips: &[&str], binds: &[&str]) -> (SimHost, SimDriver) {
    let ips: Vec<IpAddr> = ips.iter().map(|text| ip(text)).collect();
    let host = net.host(&ips).unwrap();
    let mut driver = SimDriver::new(net, &DriverConfig::default());
    for (place, bind) in binds.iter().enumerate() {
        let socket = host.bind(addr(bind), &SocketOptions::default()).unwrap();
        let id = driver.add_socket(socket).unwrap();
        assert_eq!(usize::from(id.0), place);
    }
    (host, driver)
}

fn pair(net: &SimNet) -> (SimDriver, SimDriver) {
    let (_, a) = end(net, &["10.0.0.1"], &["10.0.0.1:1000"]);
    let (_, b) = end(net, &["10.0.0.2"], &["10.0.0.2:2000"]);
    (a, b)
}

fn queue(driver: &mut SimDriver, to: &str, payload: &[u8]) {
    let to = Destination { socket: SocketId(0), peer: addr(to), local: None };
    queue_from(driver, &to, payload);
}

fn queue_from(driver: &mut SimDriver, to: &Destination, payload: &[u8]) {
    driver.slot(payload.len())[..payload.len()].copy_from_slice(payload);
    driver.queue(payload.len(), to);
}

fn turn(driver: &mut SimDriver, deadline: Option<Now>) -> Vec<Vec<u8>> {
    driver.submit_and_wait(deadline).unwrap();
    received(driver)
}

fn received(driver: &mut SimDriver) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| driver.recv().map(|datagram| datagram.payload.to_vec())).collect()
}

fn delay(us: u64) -> LinkConfig {
    LinkConfig { delay_us: us, ..LinkConfig::default() }
}

#[test]
fn the_harness_jumps_from_event_to_event() {
    let net = harness();
    let (mut a, mut b) = pair(&net);
    net.set_link(ip("10.0.0.1"), ip("10.0.0.2"), &delay(700));
    assert!(a.is_due() && b.is_due(), "the first turn is due at once");
    turn(&mut a, None);
    turn(&mut b, Some(Now(5_000)));
    assert!(!a.is_due() && !b.is_due());

    queue(&mut a, "10.0.0.2:2000", b"one");
    assert_eq!(net.advance(), Some(Now(0)), "the clock stands while output waits");
    turn(&mut a, None);
    assert_eq!(net.next_event(), Some(Now(700)));
    assert_eq!(net.advance_until(Now(400)), Now(400));
    assert_eq!(net.advance(), Some(Now(700)));
    assert!(b.is_due() && !a.is_due());
    assert_eq!(net.advance(), Some(Now(700)), "nor does it move over a datagram");
    assert_eq!(turn(&mut b, Some(Now(5_000))), [b"one"]);
    assert_eq!(b.now(), Now(700));
    assert_eq!(net.advance(), Some(Now(5_000)));
    assert_eq!(turn(&mut b, None), Vec::<Vec<u8>>::new());
    assert_eq!(net.advance(), None);
}

#[test]
fn a_wait_moves_the_clock_itself() {
    let net = waiting();
    let (mut a, mut b) = pair(&net);
    net.set_link(ip("10.0.0.1"), ip("10.0.0.2"), &delay(700));
    assert_eq!(a.submit_and_wait(Some(Now(100))).unwrap(), Now(100));
    assert_eq!(a.submit_and_wait(Some(Now(50))).unwrap(), Now(100), "a past deadline polls");
    queue(&mut a, "10.0.0.2:2000", b"one");
    turn(&mut a, Some(Now(0)));
    assert_eq!(turn(&mut b, Some(Now(10_000))), [b"one"]);
    assert_eq!(b.now(), Now(800));
    let error = b.submit_and_wait(None).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Deadlock);
}

#[test]
fn a_wake_from_another_thread_ends_the_next_wait() {
    let net = waiting();
    let (mut a, _b) = pair(&net);
    let waker = a.waker();
    std::thread::spawn(move || {
        waker.wake();
        waker.wake();
    })
    .join()
    .unwrap();
    assert_eq!(a.submit_and_wait(Some(Now(1_000))).unwrap(), Now(0));
    assert_eq!(a.submit_and_wait(Some(Now(1_000))).unwrap(), Now(1_000));
    assert_eq!(a.counters().wakes, 1);
}

#[test]
fn what_is_dropped_is_counted() {
    let net = waiting();
    let (mut a, mut b) = pair(&net);
    for len in [0, 1_500, 1_501, 10] {
        queue(&mut a, "10.0.0.2:2000", &vec![7; len]);
    }
    queue(&mut a, "10.0.0.2:9", b"nobody there");
    queue(&mut a, "10.9.9.9:9", b"nor there");
    queue(&mut a, "[::1]:9", b"wrong family");
    queue(&mut a, "10.0.0.2:0", b"no port");
    turn(&mut a, Some(Now(0)));
    let lens: Vec<usize> = turn(&mut b, Some(Now(0))).iter().map(Vec::len).collect();
    assert_eq!(lens, [1_500, 10]);
    let counters = b.counters();
    assert_eq!((counters.rx_empty, counters.rx_truncated, counters.rx_datagrams), (1, 1, 2));
    assert_eq!(counters.rx_bytes, 1_510);
    assert_eq!((a.counters().tx_datagrams, a.counters().tx_errors), (8, 2));
    assert_eq!(net.counters().unreachable, 2);
}

#[test]
fn full_buffers_lose_and_count() {
    let net = waiting();
    let small = SocketOptions { recv_buffer: 2_000, send_buffer: 4_000 };
    let (_, mut a) = end(&net, &["10.0.0.1"], &[]);
    let (_, mut b) = end(&net, &["10.0.0.2"], &[]);
    for (driver, ip) in [(&mut a, "10.0.0.3"), (&mut b, "10.0.0.4")] {
        let host = net.host(&[ip.parse().unwrap()]).unwrap();
        let socket = host.bind(addr(&format!("{ip}:1")), &small).unwrap();
        driver.add_socket(socket).unwrap();
    }
    // Each takes 100 + 768 bytes: five fit the sender's 4,000 (the last goes over), two the receiver's 2,000.
    for number in 0..7 {
        queue(&mut a, "10.0.0.4:1", &[number; 100]);
    }
    turn(&mut a, Some(Now(0)));
    assert_eq!((a.counters().tx_datagrams, a.counters().tx_full), (7, 2));
    assert_eq!(turn(&mut b, Some(Now(0))), [[0; 100], [1; 100]]);
    assert_eq!(b.counters().rx_overflow, 3);
    // Both have room again.
    queue(&mut a, "10.0.0.4:1", &[9; 100]);
    turn(&mut a, Some(Now(0)));
    assert_eq!(turn(&mut b, Some(Now(0))), [[9; 100]]);
}

#[test]
fn trains_show_in_the_counters_only() {
    for (gso, sends) in [(true, 2), (false, 5)] {
        let net = waiting();
        let (host, _) = end(&net, &["10.0.0.1"], &[]);
        let (_, mut b) = end(&net, &["10.0.0.2"], &["10.0.0.2:2000"]);
        let mut a = SimDriver::new(&net, &DriverConfig { gso, ..DriverConfig::default() });
        let socket = host.bind(addr("10.0.0.1:0"), &SocketOptions::default()).unwrap();
        a.add_socket(socket).unwrap();
        let payloads: Vec<Vec<u8>> = [30, 30, 30, 10, 20].map(|len| vec![len; len.into()]).into();
        for payload in &payloads {
            queue(&mut a, "10.0.0.2:2000", payload);
        }
        turn(&mut a, Some(Now(0)));
        assert_eq!((a.counters().tx_datagrams, a.counters().tx_sends), (5, sends));
        assert_eq!(turn(&mut b, Some(Now(0))), payloads);
    }
}

#[test]
fn a_turn_hands_out_its_batch_and_the_rest_next_time() {
    let net = waiting();
    let (mut a, _) = pair(&net);
    let host = net.host(&[ip("10.0.0.3")]).unwrap();
    let mut b = SimDriver::new(&net, &DriverConfig { batch_max: 3, ..DriverConfig::default() });
    b.add_socket(host.bind(addr("10.0.0.3:1"), &SocketOptions::default()).unwrap()).unwrap();
    for number in 0..5 {
        queue(&mut a, "10.0.0.3:1", &[number]);
    }
    turn(&mut a, Some(Now(0)));
    assert_eq!(turn(&mut b, Some(Now(1_000))), [[0], [1], [2]]);
    assert_eq!(turn(&mut b, Some(Now(1_000))), [[3], [4]]);
    assert_eq!(b.now(), Now(0), "what is left does not let a turn wait");
}

#[test]
fn a_full_arena_leaves_early() {
    let net = waiting();
    let (mut a, mut b) = pair(&net);
    for _ in 0..1_000 {
        queue(&mut a, "10.0.0.2:2000", &[1; 1_400]);
    }
    let early = net.link_counters(ip("10.0.0.1"), ip("10.0.0.2")).unwrap().pushed;
    assert!((700..1_000).contains(&early), "{early} left with the first arena");
    turn(&mut a, Some(Now(0)));
    assert_eq!(turn(&mut b, Some(Now(0))).len(), 1_000);
}

#[test]
fn wildcards_learn_and_choose_the_local_address() {
    let net = waiting();
    let (_, mut server) =
        end(&net, &["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"], &["0.0.0.0:4000", "[::]:4000"]);
    let (_, mut client) = end(&net, &["10.0.1.1", "fd00::9"], &["10.0.1.1:1", "[fd00::9]:1"]);
    for (socket, to) in [(0, "10.0.0.2:4000"), (1, "[fd00::2]:4000")] {
        let to = Destination { socket: SocketId(socket), peer: addr(to), local: None };
        queue_from(&mut client, &to, b"?");
    }
    turn(&mut client, Some(Now(0)));
    server.submit_and_wait(Some(Now(0))).unwrap();
    let mut replies = Vec::new();
    while let Some(Datagram { socket, peer, local, .. }) = server.recv() {
        replies.push(Destination { socket, peer, local });
    }
    assert_eq!(
        replies.iter().map(|to| to.local).collect::<Vec<_>>(),
        [Some(ip("10.0.0.2")), Some(ip("fd00::2"))]
    );
    for to in &replies {
        queue_from(&mut server, to, b"!");
        queue_from(&mut server, &Destination { local: Some(ip("10.7.7.7")), ..*to }, b"not ours");
        queue_from(&mut server, &Destination { local: None, ..*to }, b"default");
    }
    turn(&mut server, Some(Now(0)));
    assert_eq!(server.counters().tx_errors, 2);
    client.submit_and_wait(Some(Now(0))).unwrap();
    let mut from = Vec::new();
    while let Some(datagram) = client.recv() {
        assert_eq!(datagram.local, None, "a concrete address is known without");
        from.push(datagram.peer.to_string());
    }
    from.sort();
    assert_eq!(from, ["10.0.0.1:4000", "10.0.0.2:4000", "[fd00::1]:4000", "[fd00::2]:4000"]);
}

#[test]
fn binding_follows_the_kernels_rules() {
    let net = harness();
    let host = net.host(&[ip("10.0.0.1"), ip("fd00::1")]).unwrap();
    let bind = |text: &str| host.bind(addr(text), &SocketOptions::default());
    let kind = |text: &str| bind(text).unwrap_err().kind();
    assert_eq!(net.host(&[ip("10.0.0.1")]).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(kind("10.0.0.9:1"), io::ErrorKind::AddrNotAvailable);
    let concrete = bind("10.0.0.1:1").unwrap();
    assert_eq!(kind("10.0.0.1:1"), io::ErrorKind::AddrInUse);
    assert_eq!(kind("0.0.0.0:1"), io::ErrorKind::AddrInUse);
    let _six = bind("[::]:1").unwrap();
    assert_eq!(kind("[fd00::1]:1"), io::ErrorKind::AddrInUse);
    drop(concrete);
    let _any = bind("0.0.0.0:1").unwrap();
    assert_eq!(kind("10.0.0.1:1"), io::ErrorKind::AddrInUse);
    let (a, b) = (bind("10.0.0.1:0").unwrap(), bind("10.0.0.1:0").unwrap());
    assert_ne!(a.local_addr(), b.local_addr());
}

/// A group of four on one driver each, and a client.
fn group(config: &SimConfig) -> (SimNet, Vec<SimDriver>, SimDriver, Vec<SimSocket>) {
    let net = SimNet::new(config);
    let host = net.host(&[ip("10.0.0.1")]).unwrap();
    let sockets = host.bind_group(addr("10.0.0.1:4000"), 4, &SocketOptions::default()).unwrap();
    let drivers = (0..4).map(|_| SimDriver::new(&net, &DriverConfig::default())).collect();
    let (_, client) = end(&net, &["10.0.1.1"], &["10.0.1.1:1"]);
    (net, drivers, client, sockets)
}

#[test]
fn a_group_is_steered_by_conversation() {
    let (net, mut shards, mut client, sockets) = group(&SimConfig::default());
    let steering = Steering::new(0x9E37_79B1, 4);
    sockets[2].steer(steering);
    for (shard, socket) in shards.iter_mut().zip(sockets) {
        shard.add_socket(socket).unwrap();
    }
    for conv in 0_u32..64 {
        queue(&mut client, "10.0.0.1:4000", &conv.to_le_bytes());
    }
    queue(&mut client, "10.0.0.1:4000", b"abc");
    turn(&mut client, None);
    let mut total = 0;
    for (at, shard) in shards.iter_mut().enumerate() {
        for payload in turn(shard, None) {
            let owner =
                payload.first_chunk().map_or(0, |conv| steering.shard(u32::from_le_bytes(*conv)));
            assert_eq!(owner as usize, at, "a payload too short to have a conversation goes first");
            total += 1;
        }
    }
    assert_eq!((total, net.counters().strays), (65, 0));
}

#[test]
fn a_group_without_steering_goes_by_address_and_strays_on_demand() {
    let config = SimConfig { stray_ppm: 0, ..SimConfig::default() };
    let (net, mut shards, mut client, sockets) = group(&config);
    for (shard, socket) in shards.iter_mut().zip(sockets) {
        shard.add_socket(socket).unwrap();
    }
    let host = net.host(&[ip("10.0.2.1")]).unwrap();
    for _ in 0..200 {
        let socket = host.bind(addr("10.0.2.1:0"), &SocketOptions::default()).unwrap();
        let id = client.add_socket(socket).unwrap();
        let to = Destination { socket: id, peer: addr("10.0.0.1:4000"), local: None };
        queue_from(&mut client, &to, b"0000");
        queue_from(&mut client, &to, b"0000");
    }
    turn(&mut client, None);
    for shard in &mut shards {
        shard.submit_and_wait(None).unwrap();
        let mut peers = Vec::new();
        while let Some(datagram) = shard.recv() {
            peers.push(datagram.peer);
        }
        assert!((50..150).contains(&peers.len()), "{} of 400", peers.len());
        assert!(peers.chunks(2).all(|both| both[0] == both[1]), "an address keeps its socket");
    }

    let config = SimConfig { stray_ppm: 500_000, ..SimConfig::default() };
    let (net, mut shards, mut client, sockets) = group(&config);
    sockets[0].steer(Steering::new(1, 4));
    for (shard, socket) in shards.iter_mut().zip(sockets) {
        shard.add_socket(socket).unwrap();
    }
    for _ in 0..400 {
        queue(&mut client, "10.0.0.1:4000", b"0000");
    }
    turn(&mut client, None);
    turn(&mut client, None);
    let counts: Vec<usize> = shards.iter_mut().map(|shard| turn(shard, None).len()).collect();
    let strays = usize::try_from(net.counters().strays).unwrap();
    assert!((150..250).contains(&strays));
    assert_eq!(counts.iter().max(), Some(&(400 - strays)), "{counts:?}");
    assert!(counts.iter().all(|&count| count > 20), "{counts:?}");
}

#[test]
fn a_closed_member_gives_its_place_to_the_last() {
    let (net, mut shards, mut client, mut sockets) = group(&SimConfig::default());
    sockets[0].steer(Steering::new(1, 4));
    drop(sockets.remove(0));
    for (shard, socket) in shards.iter_mut().zip(sockets) {
        shard.add_socket(socket).unwrap();
    }
    // Too short for the steering: place 0, which is now the one bound last.
    queue(&mut client, "10.0.0.1:4000", b"x");
    turn(&mut client, None);
    assert_eq!(turn(&mut shards[2], None), [b"x"]);
    drop(shards);
    queue(&mut client, "10.0.0.1:4000", b"x");
    turn(&mut client, None);
    assert_eq!(net.counters().unreachable, 1, "a dropped driver closes its sockets");
}

#[test]
fn datagrams_wait_in_a_socket_that_no_driver_has_yet() {
    let net = waiting();
    let (mut a, mut b) = pair(&net);
    let host = net.host(&[ip("10.0.0.3")]).unwrap();
    let socket = host.bind(addr("10.0.0.3:1"), &SocketOptions::default()).unwrap();
    queue(&mut a, "10.0.0.3:1", b"early");
    turn(&mut a, Some(Now(0)));
    let id = b.add_socket(socket).unwrap();
    b.submit_and_wait(None).unwrap();
    let datagram = b.recv().unwrap();
    assert_eq!((datagram.socket, datagram.payload), (id, &b"early"[..]));
    let elsewhere = SimNet::new(&SimConfig::default());
    let foreign = elsewhere.host(&[ip("10.0.0.9")]).unwrap();
    let socket = foreign.bind(addr("10.0.0.9:1"), &SocketOptions::default()).unwrap();
    assert_eq!(b.add_socket(socket).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn sockets_of_a_driver_take_turns() {
    let net = waiting();
    let (_, mut server) = end(&net, &["10.0.0.1"], &["10.0.0.1:1", "10.0.0.1:2"]);
    let (_, mut client) = end(&net, &["10.0.0.2"], &["10.0.0.2:1"]);
    for to in ["10.0.0.1:1", "10.0.0.1:1", "10.0.0.1:1", "10.0.0.1:2"] {
        queue(&mut client, to, b".");
    }
    turn(&mut client, Some(Now(0)));
    server.submit_and_wait(None).unwrap();
    let mut order = Vec::new();
    while let Some(datagram) = server.recv() {
        order.push(datagram.socket.0);
    }
    assert_eq!(order, [0, 1, 0, 0]);
}

#[test]
fn clocks_start_where_they_are_told() {
    let start = |start, seed| {
        SimNet::new(&SimConfig { start, seed, ..SimConfig::default() }).now().as_millis()
    };
    assert_eq!(start(ClockStart::Zero, 1), 0);
    assert_eq!(start(ClockStart::At(Now(5_999)), 1), 5);
    assert_eq!(start(ClockStart::BeforeWrap, 1), (1 << 32) - 2_000);
    let random = start(ClockStart::Random, 1);
    assert!(random > 0 && random < 1 << 32);
    assert_eq!(start(ClockStart::Random, 1), random);
    assert_ne!(start(ClockStart::Random, 2), random);
}

#[test]
fn a_seed_is_a_run() {
    let run = |seed| {
        let link = LinkConfig {
            loss_ppm: 200_000,
            delay_us: 5_000,
            jitter_us: 5_000,
            keep_order: false,
            duplicate_ppm: 100_000,
            ..LinkConfig::default()
        };
        let net = SimNet::new(&SimConfig { seed, link, ..SimConfig::default() });
        let (mut a, mut b) = pair(&net);
        for number in 0..100 {
            queue(&mut a, "10.0.0.2:2000", &[number]);
        }
        turn(&mut a, None);
        let mut trace = Vec::new();
        turn(&mut b, None);
        while let Some(now) = net.advance() {
            trace.push((now, turn(&mut b, None)));
        }
        let link = net.link_counters(ip("10.0.0.1"), ip("10.0.0.2")).unwrap();
        assert_eq!(link.pushed, 100);
        assert!((5..40).contains(&link.lost) && link.duplicated > 0);
        trace
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
