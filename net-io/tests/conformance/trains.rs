//! A driver that takes trains whole hands out what one that does not would.

use std::net::SocketAddr;

use net_io::{Driver, DriverConfig, SocketOptions};

use crate::bed::{Bed, End, Kept};

fn whole() -> DriverConfig {
    DriverConfig { gro: true, ..DriverConfig::default() }
}

pub(crate) fn a_train_arrives_as_its_datagrams<B: Bed>(bed: &mut B) {
    for (bind, from) in
        [("127.0.0.1:0", "127.0.0.1:0"), ("0.0.0.0:0", "127.0.0.1:0"), ("[::]:0", "[::1]:0")]
    {
        let mut server = bed.end(bind, &whole());
        let mut client = bed.end(from, &DriverConfig::default());
        let to = SocketAddr::new(client.addr.ip(), server.addr.port());
        let local = (bind != from).then(|| to.ip());
        for (size, last) in [(100, 40), (1, 1), (1400, 1399)] {
            let sizes = [vec![size; 10], vec![last]].concat();
            let expected = send(&mut client, &sizes, to, local);
            assert_eq!(server.receive(sizes.len()), expected);
        }
        let counters = client.driver.counters();
        assert_eq!((counters.tx_sends, counters.tx_trains_refused), (3, 0));
        let counters = server.driver.counters();
        assert_eq!((counters.rx_datagrams, counters.rx_bytes), (33, 1040 + 11 + 15_399));
        assert_eq!((counters.rx_truncated, counters.rx_empty, counters.rx_errors), (0, 0, 0));
    }
}

/// With one buffer whatever comes alone takes a system call at least.
pub(crate) fn a_train_takes_one_receive<B: Bed>(bed: &mut B) {
    let mut server = bed.end("127.0.0.1:0", &DriverConfig { buffers: 1, ..whole() });
    let mut client = bed.end("127.0.0.1:0", &DriverConfig::default());
    server.poll();
    let before = server.driver.counters().enters;
    let expected = send(&mut client, &[1000; 60], server.addr, None);
    assert_eq!(server.receive(60), expected);
    let enters = server.driver.counters().enters - before;
    assert!(enters < 10, "{enters} system calls for one train");
}

pub(crate) fn the_longest_datagram_and_train_arrive_whole<B: Bed>(bed: &mut B) {
    let longest = 65_507;
    let config = DriverConfig { datagram_max: 65_507, ..whole() };
    let mut server = bed.end("127.0.0.1:0", &config);
    let mut client = bed.end("127.0.0.1:0", &DriverConfig::default());
    for sizes in [vec![longest], vec![longest / 46; 46], vec![1023; 64], vec![longest]] {
        let expected = send(&mut client, &sizes, server.addr, None);
        assert_eq!(server.receive(sizes.len()), expected);
    }
    assert_eq!(server.driver.counters().rx_truncated, 0);
}

/// Two senders, turns that end in the middle of trains, and datagrams that are none of any.
pub(crate) fn trains_and_singles_keep_their_order<B: Bed>(bed: &mut B) {
    for (buffers, batch_max) in [(1024, 1024), (1024, 7), (2, 7), (4, 1)] {
        let mut server = bed.end("127.0.0.1:0", &DriverConfig { buffers, batch_max, ..whole() });
        let mut clients = [(); 2].map(|()| bed.end("127.0.0.1:0", &DriverConfig::default()));
        // Trains of 3, 1 and 20, one that a short datagram ends, singles that grow, and one more train.
        let sizes =
            [vec![50; 3], vec![60], vec![70; 20], vec![30, 30, 10, 11, 12, 13], vec![200; 9]]
                .concat();
        let mut expected = Vec::new();
        for _ in 0..3 {
            for client in &mut clients {
                expected.extend(send(client, &sizes, server.addr, None));
            }
        }
        let heard = server.receive(expected.len());
        assert_eq!(heard, expected, "{buffers} buffers, turns of {batch_max}");
        assert_eq!(server.poll(), []);
        assert!(!server.driver.has_backlog());
    }
}

/// Each for itself, as had they come alone.
pub(crate) fn datagrams_of_a_train_that_are_too_long_are_counted<B: Bed>(bed: &mut B) {
    let config = DriverConfig { datagram_max: 100, ..whole() };
    let mut server = bed.end("127.0.0.1:0", &config);
    let mut client = bed.end("127.0.0.1:0", &DriverConfig::default());
    let sent = send(&mut client, &[101, 101, 101, 60], server.addr, None);
    assert_eq!(client.driver.counters().tx_sends, 1);
    assert_eq!(server.receive(1), sent[3..]);
    assert_eq!(server.driver.counters().rx_truncated, 3);
}

/// A socket that had received before, and whose owner asks only now for trains.
pub(crate) fn a_socket_with_a_backlog_is_taken_over<B: Bed>(bed: &mut B) {
    let (socket, addr) = bed.bind("127.0.0.1:0".parse().unwrap(), &SocketOptions::default());
    let mut client = bed.end("127.0.0.1:0", &DriverConfig::default());
    let mut expected = send(&mut client, &[100; 5], addr, None);
    let mut driver = bed.driver(&whole());
    let id = driver.add_socket(socket).unwrap();
    let mut server = End { driver, id, addr };
    expected.extend(send(&mut client, &[100; 5], addr, None));
    assert_eq!(server.receive(10), expected);
}

/// Sends datagrams of these sizes in one turn, no two bytes alike that follow each other, and tells how they must be heard.
fn send<D: Driver>(
    from: &mut End<D>,
    sizes: &[usize],
    to: SocketAddr,
    local: Option<std::net::IpAddr>,
) -> Vec<Kept> {
    let mut expected = Vec::new();
    for (size, mark) in sizes.iter().zip((0u8..=u8::MAX).step_by(3)) {
        let payload: Vec<u8> =
            (0..=250u8).cycle().map(|at| mark.wrapping_add(at)).take(*size).collect();
        from.queue(&payload, to);
        expected.push(Kept { socket: from.id, peer: from.addr, local, payload });
    }
    from.poll();
    expected
}
