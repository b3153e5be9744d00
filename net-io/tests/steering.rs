//! The kernel's steering program and its Rust twin, held equal over real sockets.
//! Random multipliers and convs; `SEED=<number>` repeats a run.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up has failed")]
#![expect(clippy::print_stdout, reason = "a random test prints its seed")]

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;

use net_io::steer::Steering;
use net_io::{
    Destination, Driver, DriverConfig, EpollDriver, Now, SocketId, SocketOptions, UdpSocket,
    UringDriver,
};

#[test]
fn uring_over_ipv4() {
    every_conv_reaches_its_shard(uring, "127.0.0.1:0", "127.0.0.1:0");
}

#[test]
fn uring_over_ipv6() {
    every_conv_reaches_its_shard(uring, "[::1]:0", "[::1]:0");
}

#[test]
fn epoll_over_ipv4() {
    every_conv_reaches_its_shard(epoll, "127.0.0.1:0", "127.0.0.1:0");
}

#[test]
fn epoll_over_ipv6() {
    every_conv_reaches_its_shard(epoll, "[::1]:0", "[::1]:0");
}

#[test]
fn wildcards_over_both() {
    every_conv_reaches_its_shard(uring, "0.0.0.0:0", "127.0.0.1:0");
    every_conv_reaches_its_shard(uring, "[::]:0", "[::1]:0");
}

fn uring() -> UringDriver {
    UringDriver::new(&DriverConfig::default()).unwrap()
}

fn epoll() -> EpollDriver {
    EpollDriver::new(&DriverConfig::default()).unwrap()
}

/// One driver holds the group, so a datagram's socket is its shard. Trains are steered by their first conv: the sender sends none.
fn every_conv_reaches_its_shard<D: Driver<Socket = UdpSocket>>(
    driver: fn() -> D,
    bind: &str,
    from: &str,
) {
    const CONVS: u32 = 150;
    let seed = std::env::var("SEED")
        .map_or_else(|_| RandomState::new().build_hasher().finish(), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut random = seed | 1;
    let options = SocketOptions::default();
    for shards in 1..=8u32 {
        let steering = Steering::new(next(&mut random), shards);
        let group =
            UdpSocket::bind_group(bind.parse().unwrap(), shards as usize, &options).unwrap();
        steering.attach(&group[shards as usize - 1]).unwrap();
        let mut to: SocketAddr = from.parse().unwrap();
        to.set_port(group[0].local_addr().unwrap().port());
        let mut server = driver();
        for socket in group {
            server.add_socket(socket).unwrap();
        }
        // Several peers, so that address hashing cannot pass for steering.
        let config = DriverConfig { gso: false, ..DriverConfig::default() };
        let mut client = EpollDriver::new(&config).unwrap();
        let sockets: Vec<SocketId> = (0..4)
            .map(|_| {
                client
                    .add_socket(UdpSocket::bind(from.parse().unwrap(), &options).unwrap())
                    .unwrap()
            })
            .collect();

        let sequential = 0..CONVS / 3;
        let strided = (0..CONVS / 3).map(|conv| conv << 24 | conv << 16);
        let random: Vec<u32> = (0..CONVS / 3).map(|_| next(&mut random)).collect();
        let convs = sequential.chain(strided).chain(random);
        for (conv, socket) in convs.zip(sockets.iter().cycle()) {
            client.slot(24)[..4].copy_from_slice(&conv.to_le_bytes());
            client.queue(24, &Destination { socket: *socket, peer: to, local: None });
        }
        client.submit_and_wait(Some(Now(0))).unwrap();

        let limit = Now(server.now().0 + 10_000_000);
        let mut heard = 0;
        while heard < CONVS {
            assert!(
                server.submit_and_wait(Some(limit)).unwrap() < limit,
                "{heard} of {CONVS} came"
            );
            while let Some(datagram) = server.recv() {
                let conv = u32::from_le_bytes(*datagram.payload.first_chunk().unwrap());
                let shard = steering.shard(conv);
                assert_eq!(u32::from(datagram.socket.0), shard, "conv {conv:#x}, {steering:?}");
                heard += 1;
            }
        }
    }
}

/// Too short for a conv: the program gives up, which means the first socket.
#[test]
fn a_datagram_without_a_conv_goes_to_the_first_shard() {
    let group = UdpSocket::bind_group(([127, 0, 0, 1], 0).into(), 4, &SocketOptions::default());
    let group = group.unwrap();
    Steering::new(0x9E37_79B1, 4).attach(&group[0]).unwrap();
    let to = group[0].local_addr().unwrap();
    let mut server = uring();
    for socket in group {
        server.add_socket(socket).unwrap();
    }
    for _ in 0..8 {
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.send_to(b"abc", to).unwrap();
        server.submit_and_wait(None).unwrap();
        assert_eq!(server.recv().unwrap().socket, SocketId(0));
    }
}

/// xorshift64.
fn next(state: &mut u64) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 32) as u32
}
