//! What happens at the edges: nothing is lost that need not be, and what is lost is counted.

use net_io::{Driver, DriverConfig, SocketOptions};

use crate::bed::{Bed, End};

pub(crate) fn an_empty_datagram_is_dropped_and_counted<B: Bed>(bed: &mut B) {
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        let mut server = bed.end(addr, &DriverConfig::default());
        let mut client = bed.end(addr, &DriverConfig::default());
        for round in 1..=3 {
            for payload in [b"".as_slice(), b"a", b"", b"", b"b"] {
                client.queue(payload, server.addr);
            }
            client.poll();
            let heard = server.receive(2);
            assert_eq!(
                (heard[0].payload.as_slice(), heard[1].payload.as_slice()),
                (&b"a"[..], &b"b"[..])
            );
            let counters = server.driver.counters();
            assert_eq!((counters.rx_empty, counters.rx_errors), (3 * round, 0));
        }
    }
}

pub(crate) fn the_largest_datagram_passes_and_the_next_larger_is_dropped<B: Bed>(bed: &mut B) {
    const MAX: u16 = 1201;
    let max = usize::from(MAX);
    let config = DriverConfig { datagram_max: MAX, ..DriverConfig::default() };
    // A wildcard's buffers hold control messages too.
    for (bind, to) in
        [("127.0.0.1:0", "127.0.0.1:0"), ("0.0.0.0:0", "127.0.0.1:0"), ("[::]:0", "[::1]:0")]
    {
        let mut server = bed.end(bind, &config);
        let mut client = bed.end(to, &DriverConfig::default());
        let mut peer = client.addr;
        peer.set_port(server.addr.port());
        for (index, len) in
            [max, max + 1, max + 39, max + 40, max + 41, 9000, max, 1].into_iter().enumerate()
        {
            client.queue(&vec![u8::try_from(index).unwrap(); len], peer);
        }
        client.poll();
        let heard: Vec<_> =
            server.receive(3).iter().map(|kept| (kept.payload.len(), kept.payload[0])).collect();
        assert_eq!(heard, [(max, 0), (max, 6), (1, 7)]);
        assert_eq!(server.driver.counters().rx_truncated, 5);
    }
}

pub(crate) fn a_full_arena_is_sent_early<B: Bed>(bed: &mut B) {
    let config = DriverConfig { send_arena: 0, ..DriverConfig::default() };
    // Two receivers, so that no trains form.
    sent_early(bed, &config, 200, 1400);
}

pub(crate) fn a_full_list_of_trains_is_sent_early<B: Bed>(bed: &mut B) {
    let config = DriverConfig { batch_max: 16, ..DriverConfig::default() };
    sent_early(bed, &config, 4000, 1);
}

/// Queues `count` datagrams of `len` bytes in one turn of the client, while the servers keep up.
fn sent_early<B: Bed>(bed: &mut B, config: &DriverConfig, count: usize, len: usize) {
    let mut client = bed.end("127.0.0.1:0", config);
    let mut servers = [(); 2].map(|()| bed.end("127.0.0.1:0", &DriverConfig::default()));
    let mut heard = 0;
    for number in 0..count {
        client.queue(&vec![1; len], servers[number % 2].addr);
        if number % 20 == 19 {
            heard += servers.iter_mut().map(|server| server.poll().len()).sum::<usize>();
        }
    }
    assert!(heard > 0, "everything waited for the end of the turn");
    assert!(heard < count);
    client.poll();
    while heard < count {
        let before = heard;
        heard += servers.iter_mut().map(|server| server.poll().len()).sum::<usize>();
        assert!(heard > before, "{heard} of {count} came");
    }
    let counters = client.driver.counters();
    assert_eq!(counters.tx_datagrams, count as u64);
    assert_eq!((counters.tx_full, counters.tx_errors), (0, 0));
}

pub(crate) fn more_datagrams_than_buffers_lose_nothing<B: Bed>(bed: &mut B) {
    const COUNT: u8 = 100;
    for batch_max in [1024, 3] {
        let config = DriverConfig { buffers: 8, batch_max, ..DriverConfig::default() };
        let mut server = bed.end("127.0.0.1:0", &config);
        // Each by itself: a train would be one to who takes it whole.
        let singly = DriverConfig { gso: false, ..DriverConfig::default() };
        let mut client = bed.end("127.0.0.1:0", &singly);
        for number in 0..COUNT {
            client.queue(&[number], server.addr);
        }
        client.poll();
        let heard: Vec<_> =
            server.receive(COUNT.into()).iter().map(|kept| kept.payload[0]).collect();
        assert_eq!(heard, (0..COUNT).collect::<Vec<_>>());
        let counters = server.driver.counters();
        assert_eq!((counters.rx_errors, counters.rx_overflow), (0, 0));
        B::saw_dry_buffers(&counters);
    }
}

pub(crate) fn the_sockets_overflow_is_counted<B: Bed>(bed: &mut B) {
    const COUNT: u64 = 200;
    let options = SocketOptions { recv_buffer: 4096, ..SocketOptions::default() };
    let (socket, addr) = bed.bind("127.0.0.1:0".parse().unwrap(), &options);
    let mut driver = bed.driver(&DriverConfig::default());
    let id = driver.add_socket(socket).unwrap();
    let mut server = End { driver, id, addr };
    // Each by itself: a train would be one to who takes it whole.
    let singly = DriverConfig { gso: false, ..DriverConfig::default() };
    let mut client = bed.end("127.0.0.1:0", &singly);
    for _ in 0..COUNT {
        client.queue(&[0; 500], addr);
    }
    client.poll();
    let mut heard = 0;
    while heard + server.driver.counters().rx_overflow < COUNT {
        heard += server.turn_for(50_000).len() as u64;
    }
    assert!(heard > 0 && heard < COUNT, "{heard} of {COUNT} came");
    assert_eq!(heard + server.driver.counters().rx_overflow, COUNT);
}

/// What is dropped counts against the turn's budget as well.
pub(crate) fn a_flood_of_empty_datagrams_does_not_hold_the_turn<B: Bed>(bed: &mut B) {
    let config = DriverConfig { batch_max: 10, ..DriverConfig::default() };
    let mut server = bed.end("127.0.0.1:0", &config);
    let mut client = bed.end("127.0.0.1:0", &DriverConfig::default());
    for _ in 0..50 {
        client.queue(b"", server.addr);
    }
    client.queue(b"at last", server.addr);
    client.poll();
    let mut turns = 0;
    while server.turn_at_once().is_empty() {
        turns += 1;
        assert!(server.driver.counters().rx_empty <= 10 * turns);
    }
    assert!(turns >= 5);
    assert_eq!(server.driver.counters().rx_empty, 50);
}
