//! What goes in comes out.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use net_io::{Destination, Driver, DriverConfig, SocketOptions};

use crate::bed::{Bed, End, Kept};

pub(crate) fn echo_over_ipv4<B: Bed>(bed: &mut B) {
    echo(bed, "127.0.0.1:0");
}

pub(crate) fn echo_over_ipv6<B: Bed>(bed: &mut B) {
    echo(bed, "[::1]:0");
}

fn echo<B: Bed>(bed: &mut B, addr: &str) {
    let mut server = bed.end(addr, &DriverConfig::default());
    let mut client = bed.end(addr, &DriverConfig::default());
    for payload in [b"one".as_slice(), &[7; 1400], b"x"] {
        client.queue(payload, server.addr);
        client.poll();
        let asked = server.receive(1);
        assert_eq!(asked, [heard_from(&client, payload)]);
        server.queue(&asked[0].payload, asked[0].peer);
        server.poll();
        assert_eq!(client.receive(1), [heard_from(&server, payload)]);
    }
    let counters = server.driver.counters();
    assert_eq!((counters.rx_datagrams, counters.tx_datagrams), (3, 3));
    assert_eq!((counters.rx_bytes, counters.tx_bytes), (1404, 1404));
    assert_eq!((counters.rx_errors, counters.tx_errors, counters.tx_full), (0, 0, 0));
}

/// What `from` is heard as on a socket that is no wildcard.
fn heard_from<D: Driver>(from: &End<D>, payload: &[u8]) -> Kept {
    Kept { socket: from.id, peer: from.addr, local: None, payload: payload.to_vec() }
}

pub(crate) fn a_wildcard_answers_from_the_address_used<B: Bed>(bed: &mut B) {
    for (wildcard, from, addrs) in [
        ("0.0.0.0:0", "127.0.0.1:0", ["127.0.0.1", "127.0.0.2"].as_slice()),
        ("[::]:0", "[::1]:0", &["::1"]),
    ] {
        let mut server = bed.end(wildcard, &DriverConfig::default());
        let port = server.addr.port();
        for ip in addrs.iter().map(|ip| ip.parse().unwrap()) {
            let mut client = bed.end(from, &DriverConfig::default());
            client.queue(b"where?", (ip, port).into());
            client.poll();
            let asked = server.receive(1);
            assert_eq!((asked[0].peer, asked[0].local), (client.addr, Some(ip)));
            // One alone, then a train.
            for datagrams in [1, 3] {
                for _ in 0..datagrams {
                    let to = Destination { socket: server.id, peer: client.addr, local: Some(ip) };
                    server.driver.slot(5).copy_from_slice(b"here!");
                    server.driver.queue(5, &to);
                }
                server.poll();
                for answer in client.receive(datagrams) {
                    assert_eq!(answer.peer, SocketAddr::from((ip, port)));
                    assert_eq!(answer.payload, b"here!");
                }
            }
        }
    }
}

/// Sixty sockets of one driver, each a peer of the server.
pub(crate) fn many_peers_are_told_apart<B: Bed>(bed: &mut B) {
    const PEERS: u8 = 60;
    let mut server = bed.end("127.0.0.1:0", &DriverConfig::default());
    let mut clients = bed.driver(&DriverConfig::default());
    let mut addrs = Vec::new();
    for index in 0..PEERS {
        let (socket, addr) = bed.bind("127.0.0.1:0".parse().unwrap(), &SocketOptions::default());
        let socket = clients.add_socket(socket).unwrap();
        addrs.push(addr);
        clients.slot(1).copy_from_slice(&[index]);
        clients.queue(1, &Destination { socket, peer: server.addr, local: None });
    }
    let mut clients = End { driver: clients, id: server.id, addr: server.addr };
    clients.poll();

    for asked in server.receive(PEERS.into()) {
        assert_eq!(asked.peer, addrs[usize::from(asked.payload[0])]);
        server.queue(&[asked.payload[0] + 100], asked.peer);
    }
    server.poll();
    let answers = clients.receive(PEERS.into());
    let by_socket: BTreeMap<_, _> = answers.iter().map(|a| (a.socket, a.payload[0])).collect();
    assert_eq!(by_socket.len(), PEERS.into());
    for (socket, answer) in by_socket {
        assert_eq!(u16::from(answer), socket.0 + 100);
    }
}

/// Two peers in turn, so that no trains form, and more than one batch.
pub(crate) fn each_peers_datagrams_come_in_order<B: Bed>(bed: &mut B) {
    const EACH: u32 = 100;
    let config = DriverConfig { batch_max: 16, ..DriverConfig::default() };
    let mut server = bed.end("127.0.0.1:0", &config);
    let mut one = bed.end("127.0.0.1:0", &DriverConfig::default());
    let mut two = bed.end("127.0.0.1:0", &DriverConfig::default());
    for number in 0..EACH {
        for client in [&mut one, &mut two] {
            client.queue(&number.to_le_bytes(), server.addr);
            client.poll();
        }
    }
    let mut next = BTreeMap::from([(one.addr, 0), (two.addr, 0)]);
    for heard in server.receive(2 * EACH as usize) {
        let expected = next.get_mut(&heard.peer).unwrap();
        assert_eq!(heard.payload, u32::to_le_bytes(*expected));
        *expected += 1;
    }
}

/// More sockets than a small driver can arm in one submission.
pub(crate) fn one_driver_serves_many_sockets<B: Bed>(bed: &mut B) {
    const SOCKETS: u16 = 300;
    let config = DriverConfig { batch_max: 8, buffers: 16, ..DriverConfig::default() };
    let mut driver = bed.driver(&config);
    let options = SocketOptions { recv_buffer: 8192, send_buffer: 8192 };
    let mut addrs = Vec::new();
    for index in 0..SOCKETS {
        let (socket, addr) = bed.bind("127.0.0.1:0".parse().unwrap(), &options);
        assert_eq!(driver.add_socket(socket).unwrap().0, index);
        addrs.push(addr);
    }
    let mut client = bed.end("127.0.0.1:0", &DriverConfig::default());
    for round in 0..3u8 {
        for addr in &addrs {
            client.queue(&[round], *addr);
        }
        client.poll();
        let mut server = End { driver, id: client.id, addr: client.addr };
        let mut heard: Vec<_> = server
            .receive(SOCKETS.into())
            .iter()
            .map(|kept| (kept.socket.0, kept.payload[0]))
            .collect();
        heard.sort_unstable();
        assert_eq!(heard, (0..SOCKETS).map(|index| (index, round)).collect::<Vec<_>>());
        driver = server.driver;
    }
}

pub(crate) fn equal_datagrams_leave_as_one_train<B: Bed>(bed: &mut B) {
    let mut server = bed.end("127.0.0.1:0", &DriverConfig::default());
    let mut client = bed.end("127.0.0.1:0", &DriverConfig::default());
    // Ten alike, a shorter one that ends their train, and one that would have to start the next.
    let sizes = [vec![100; 10], vec![40, 100]].concat();
    send(&mut client, &sizes, server.addr);
    assert_eq!(lengths(&server.receive(sizes.len())), sizes);
    let counters = client.driver.counters();
    assert_eq!((counters.tx_datagrams, counters.tx_bytes), (12, 1140));
    assert_eq!((counters.tx_sends, counters.tx_trains_refused), (2, 0));

    // As long as a train can get, twice, and over both limits: 64 datagrams, 65,507 bytes.
    for size in [8, 1400] {
        let sizes = vec![size; 130];
        for chunk in sizes.chunks(65) {
            send(&mut client, chunk, server.addr);
            assert_eq!(lengths(&server.receive(chunk.len())), chunk);
        }
    }
    assert_eq!(client.driver.counters().tx_sends, 2 + 2 * 2 + 2 * 2);
    assert_eq!(server.driver.counters().rx_truncated, 0);
}

pub(crate) fn trains_can_be_switched_off<B: Bed>(bed: &mut B) {
    let mut server = bed.end("127.0.0.1:0", &DriverConfig::default());
    let config = DriverConfig { gso: false, ..DriverConfig::default() };
    let mut client = bed.end("127.0.0.1:0", &config);
    send(&mut client, &[100; 10], server.addr);
    assert_eq!(lengths(&server.receive(10)), [100; 10]);
    assert_eq!(client.driver.counters().tx_sends, 10);
}

/// Queues datagrams of these sizes, each byte telling which it is, and sends them.
fn send<D: Driver>(from: &mut End<D>, sizes: &[usize], to: SocketAddr) {
    for (size, mark) in sizes.iter().zip(0u8..) {
        from.queue(&vec![mark; *size], to);
    }
    from.poll();
}

/// The sizes of datagrams that must all be in order and whole.
fn lengths(heard: &[Kept]) -> Vec<usize> {
    for (kept, mark) in heard.iter().zip(0u8..) {
        assert!(
            kept.payload.iter().all(|byte| *byte == mark),
            "datagram {mark}: {:?}",
            kept.payload
        );
    }
    heard.iter().map(|kept| kept.payload.len()).collect()
}

/// The port-unreachable messages that come back neither end a receive nor fail a later send.
pub(crate) fn a_peer_that_is_gone_is_silence<B: Bed>(bed: &mut B) {
    let mut client = bed.end("127.0.0.1:0", &DriverConfig::default());
    let mut server = bed.end("127.0.0.1:0", &DriverConfig::default());
    let (_, gone) = bed.bind("127.0.0.1:0".parse().unwrap(), &SocketOptions::default());
    for _ in 0..10 {
        client.queue(b"anybody?", gone);
        assert_eq!(client.poll(), []);
        client.queue(b"hello", server.addr);
        client.poll();
        server.queue(b"hello yourself", client.addr);
        assert_eq!(server.receive(1).len(), 1);
        server.poll();
        assert_eq!(client.receive(1).len(), 1);
    }
    let counters = client.driver.counters();
    assert_eq!((counters.tx_errors, counters.tx_full), (0, 0));
    assert_eq!((counters.rx_errors, counters.rx_rearmed), (0, 0));
}
