//! The scenarios.

use net_io::{Destination, Driver, DriverConfig};

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
        assert_eq!(asked, [kept(&client, payload)]);
        server.queue(&asked[0].payload, asked[0].peer);
        server.poll();
        assert_eq!(client.receive(1), [kept(&server, payload)]);
    }
    let counters = server.driver.counters();
    assert_eq!((counters.rx_datagrams, counters.tx_datagrams), (3, 3));
    assert_eq!((counters.rx_bytes, counters.tx_bytes), (1404, 1404));
}

/// What `from` is heard as on a socket that is no wildcard.
fn kept<D: Driver>(from: &End<D>, payload: &[u8]) -> Kept {
    Kept { peer: from.addr, local: None, payload: payload.to_vec() }
}

pub(crate) fn a_wildcard_answers_from_the_address_used<B: Bed>(bed: &mut B) {
    for (wildcard, addrs) in
        [("0.0.0.0:0", ["127.0.0.1", "127.0.0.2"].as_slice()), ("[::]:0", &["::1"])]
    {
        let mut server = bed.end(wildcard, &DriverConfig::default());
        let port = server.addr.port();
        for ip in addrs.iter().map(|ip| ip.parse().unwrap()) {
            let client = if wildcard.starts_with('[') { "[::1]:0" } else { "127.0.0.1:0" };
            let mut client = bed.end(client, &DriverConfig::default());
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
                    assert_eq!(answer.peer, (ip, port).into());
                    assert_eq!(answer.payload, b"here!");
                }
            }
        }
    }
}
