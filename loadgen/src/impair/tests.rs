use std::net::UdpSocket as StdSocket;

use super::*;

const LOCALHOST: &str = "127.0.0.1:0";

/// A server that answers what it gets, until it gets "stop".
fn echo_server() -> (SocketAddr, JoinHandle<Vec<SocketAddr>>) {
    let socket = StdSocket::bind(LOCALHOST).unwrap();
    let addr = socket.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let mut peers = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            let (len, peer) = receive(&socket, &mut buffer).unwrap();
            if &buffer[..len] == b"stop" {
                return peers;
            }
            peers.push(peer);
            socket.send_to(&buffer[..len], peer).unwrap();
        }
    });
    (addr, thread)
}

fn client() -> StdSocket {
    let socket = StdSocket::bind(LOCALHOST).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// Starting a proxy probes a ring, whose end interrupts a timed wait of the same thread some time later.
fn receive(socket: &StdSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn proxy(target: SocketAddr, change: impl FnOnce(&mut Impair)) -> Proxy {
    let mut config = Impair::new(LOCALHOST.parse().unwrap(), target, target.ip());
    config.seed = 1;
    change(&mut config);
    Proxy::start(&config).unwrap()
}

fn exchange(client: &StdSocket, proxy: SocketAddr, message: &[u8]) -> Vec<u8> {
    let mut buffer = [0; 2048];
    client.send_to(message, proxy).unwrap();
    let (len, from) = receive(client, &mut buffer).unwrap();
    assert_eq!(from, proxy, "the answer comes from where the client sent to");
    buffer[..len].to_vec()
}

#[test]
fn each_client_has_an_address_of_its_own_on_either_driver() {
    for io in [IoChoice::Uring, IoChoice::Epoll] {
        let (target, server) = echo_server();
        let proxy = proxy(target, |config| config.io = io);
        let clients = [client(), client()];
        for round in 0..3_u8 {
            for (n, client) in (0..).zip(&clients) {
                assert_eq!(exchange(client, proxy.listen_addr(), &[n, round]), [n, round]);
            }
        }
        clients[0].send_to(b"stop", target).unwrap();
        let peers = server.join().unwrap();
        assert_eq!(peers.len(), 6);
        assert!(peers[0] != peers[1], "two clients, two addresses");
        assert!(peers.chunks(2).all(|pair| pair == &peers[..2]), "the same ones throughout");
        let totals = proxy.stop().unwrap();
        assert_eq!((totals.up.delivered, totals.down.delivered, totals.clients), (6, 6, 2));
    }
}

#[test]
fn delay_and_corruption_happen() {
    let (target, server) = echo_server();
    let proxy = proxy(target, |config| {
        config.link.delay_us = 15_000;
        config.link.corrupt_ppm = 1_000_000;
    });
    let client = client();
    let before = net_io::clock::monotonic();
    let echo = exchange(&client, proxy.listen_addr(), &[0; 100]);
    let waited_us = net_io::clock::monotonic().0 - before.0;
    assert!(waited_us >= 30_000, "{waited_us} us");
    let flipped: u32 = echo.iter().map(|byte| byte.count_ones()).sum();
    assert!(flipped == 2 || flipped == 0, "one bit each way: {flipped}");
    let totals = proxy.stop().unwrap();
    assert_eq!((totals.up.corrupted, totals.down.corrupted), (1, 1));
    client.send_to(b"stop", target).unwrap();
    server.join().unwrap();
}

#[test]
fn what_is_duplicated_arrives_twice_each_way() {
    let (target, server) = echo_server();
    let proxy = proxy(target, |config| config.link.duplicate_ppm = 1_000_000);
    let client = client();
    assert_eq!(exchange(&client, proxy.listen_addr(), b"twice"), b"twice");
    let mut buffer = [0; 64];
    for _ in 0..3 {
        receive(&client, &mut buffer).unwrap();
    }
    let totals = proxy.stop().unwrap();
    assert_eq!((totals.up.delivered, totals.down.delivered), (2, 4));
    client.send_to(b"stop", target).unwrap();
    server.join().unwrap();
}

#[test]
fn clients_beyond_the_bound_are_refused_until_one_is_forgotten() {
    let (target, server) = echo_server();
    let proxy = proxy(target, |config| {
        config.clients_max = 1;
        config.idle_timeout = Duration::from_millis(50);
    });
    let (first, second) = (client(), client());
    exchange(&first, proxy.listen_addr(), b"first");
    second.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let mut buffer = [0; 64];
    let mut tries = 0;
    // The first is silent from now on, so one of these gets through, and only after its time.
    loop {
        second.send_to(b"second", proxy.listen_addr()).unwrap();
        if receive(&second, &mut buffer).is_ok() {
            break;
        }
        tries += 1;
        assert!(tries < 2000, "never forgotten");
    }
    let totals = proxy.stop().unwrap();
    assert_eq!(totals.clients, 2);
    assert!(totals.refused > 0, "{totals:?}");
    first.send_to(b"stop", target).unwrap();
    let peers = server.join().unwrap();
    assert!(peers.iter().all(|peer| *peer == peers[0]), "the address is used again");
}

#[test]
fn a_taken_address_is_an_error_that_names_it() {
    let holder = StdSocket::bind(LOCALHOST).unwrap();
    let taken = holder.local_addr().unwrap();
    let error = Proxy::start(&Impair::new(taken, taken, taken.ip())).unwrap_err().to_string();
    assert!(error.contains(&taken.to_string()), "{error}");
}
