//! The backend simulator over real sockets: every framing, every behaviour, and what it counts.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and measures real time"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kcp_core::Conv;
use kcp_gateway::upstream::proxy::Header;
use kcp_loadgen::serve::{
    Behaviour, Crash, Cut, Dialect, Ending, Framing, Garbage, Kind, Listen, Misdeed, Rooms, Serve,
    Server, Side, Slow, Totals,
};

const FRAMINGS: [Framing; 5] =
    [Framing::None, Framing::U16Be, Framing::U16Le, Framing::U32Be, Framing::U32Le];

#[test]
fn echo_in_every_framing() {
    for framing in FRAMINGS {
        let server = start(serve(Behaviour::Echo, framing));
        let mut client = Client::connect(&server, framing);
        for message in [&b"x"[..], &[7; 40_000]] {
            client.say(message);
            assert_eq!(client.hear(message.len()), message);
        }
        client.finish();
        let totals = server.stop();
        assert_eq!((totals.sessions, totals.proxy_headers, totals.ended), (1, 1, 1));
        assert_eq!((totals.bytes_in, totals.bytes_out), (40_001, 40_001), "{framing:?}");
        if framing != Framing::None {
            assert_eq!((totals.messages_in, totals.messages_out), (2, 2));
        }
    }
}

#[test]
fn a_session_without_its_header_is_cut_off_and_told_apart() {
    let server = start(serve(Behaviour::Echo, Framing::U32Be));
    let mut client = Client::without_header(&server, Framing::U32Be);
    client.say(b"hello");
    client.expect_reset();
    let totals = until(&server, |totals| totals.sessions_open == 0);
    assert_eq!((totals.proxy_errors, totals.messages_in), (1, 0));
    assert!(totals.first_proxy_error.unwrap().contains("not with [00, 00, 00, 05"));
}

#[test]
fn a_connection_that_says_nothing_is_a_check_and_no_bad_header() {
    let server = start(serve(Behaviour::Echo, Framing::U32Be));
    let client = Client::without_header(&server, Framing::U32Be);
    client.finish();
    let totals = until(&server, |totals| totals.ended == 1);
    assert_eq!((totals.sessions, totals.checks, totals.proxy_errors), (1, 1, 0));
}

#[test]
fn a_header_is_not_asked_for_when_none_was_agreed_on() {
    let mut config = serve(Behaviour::Echo, Framing::U16Le);
    config.dialect.proxy = false;
    let server = start(config);
    let mut client = Client::without_header(&server, Framing::U16Le);
    client.say(b"hello");
    assert_eq!(client.hear(5), b"hello");
}

#[test]
fn too_long_a_message_ends_its_session() {
    let server = start(serve(Behaviour::Echo, Framing::U32Be));
    let mut client = Client::connect(&server, Framing::U32Be);
    client.raw(&100_001_u32.to_be_bytes());
    client.expect_reset();
    let totals = until(&server, |totals| totals.sessions_open == 0);
    assert_eq!(totals.too_long, 1);
}

#[test]
fn empty_messages_and_cut_ones_are_counted() {
    let server = start(serve(Behaviour::Echo, Framing::U16Be));
    let mut client = Client::connect(&server, Framing::U16Be);
    client.raw(&[0, 0, 0, 9, b'b', b'e', b'g']);
    client.finish();
    let totals = until(&server, |totals| totals.sessions_open == 0);
    assert_eq!((totals.empty_in, totals.ended, totals.ended_mid_message), (1, 1, 1));
}

#[test]
fn a_room_hears_its_members() {
    let rooms = Behaviour::Rooms(Rooms { size: 2, queue: 16 });
    let server = start(serve(rooms, Framing::U16Be));
    let mut clients: Vec<Client> = (0..3)
        .map(|n| {
            let client = Client::connect(&server, Framing::U16Be);
            // Rooms fill by arrival, and this is the next arrival.
            until(&server, |totals| totals.proxy_headers == n + 1);
            client
        })
        .collect();
    for (name, client) in [b"a", b"b", b"c"].into_iter().zip(&mut clients) {
        client.say(name);
    }
    let [a, b, c] = &mut clients[..] else { panic!("three") };
    for client in [a, b] {
        let mut heard = [client.hear(1), client.hear(1)];
        heard.sort();
        assert_eq!(heard, [b"a", b"b"]);
    }
    assert_eq!(c.hear(1), b"c");
    let totals = server.totals();
    assert_eq!((totals.messages_in, totals.messages_out, totals.dropped), (3, 5, 0));
}

#[test]
fn a_slow_backend_is_no_faster_than_asked() {
    for side in [Side::Reads, Side::Writes] {
        let slow = Behaviour::Slow(Slow { side, bytes_per_s: 10_000 });
        let server = start(serve(slow, Framing::None));
        let mut client = Client::connect(&server, Framing::None);
        let began = Instant::now();
        client.say(&[1; 3_000]);
        assert_eq!(client.hear(3_000), [1; 3_000]);
        // The wait for the last tenth of a second's worth comes after it.
        assert!(began.elapsed() >= Duration::from_millis(200), "{side:?} {:?}", began.elapsed());
    }
}

#[test]
fn a_crash_comes_with_the_message_asked_for_and_in_the_way_asked_for() {
    for ending in [Ending::Fin, Ending::Reset] {
        let server = start(serve(crash(Some(3), 0, ending), Framing::U32Le));
        let mut client = Client::connect(&server, Framing::U32Le);
        for message in [b"1", b"2"] {
            client.say(message);
            assert_eq!(client.hear(1), message);
        }
        client.say(b"3");
        match ending {
            Ending::Fin => client.expect_fin(),
            Ending::Reset => client.expect_reset(),
        }
        assert_eq!(until(&server, |totals| totals.sessions_open == 0).crashes, 1);
    }
}

#[test]
fn a_crash_comes_after_the_time_asked_for() {
    let crash = Crash {
        after_messages: None,
        after_time: Some(Duration::from_millis(50)),
        chance_ppm: 0,
        cut: Cut::Session,
        ending: Ending::Fin,
    };
    let server = start(serve(Behaviour::Crash(crash), Framing::U32Le));
    let began = Instant::now();
    Client::connect(&server, Framing::U32Le).expect_fin();
    assert!(began.elapsed() >= Duration::from_millis(50));
}

#[test]
fn chance_repeats_with_its_seed() {
    let run = || {
        let server = start(serve(crash(None, 100_000, Ending::Fin), Framing::U16Be));
        let mut client = Client::connect(&server, Framing::U16Be);
        let answered = (0_u32..).find(|_| {
            client.say(b"again");
            client.try_hear(5).is_none()
        });
        answered.unwrap()
    };
    assert_eq!(run(), run());
}

#[test]
fn garbage_is_what_was_asked_for() {
    let garbage = |misdeed| {
        let behaviour = Behaviour::Garbage(Garbage { misdeed, after: 2 });
        let server = start(serve(behaviour, Framing::U16Be));
        let mut client = Client::connect(&server, Framing::U16Be);
        client.say(b"good");
        assert_eq!(client.hear(4), b"good");
        client.say(b"bad");
        (server, client)
    };
    let (server, mut client) = garbage(Misdeed::Oversize);
    assert_eq!(client.read(5), [0xFF, 0xFF, b'b', b'a', b'd']);
    assert_eq!(server.totals().misdeeds, 1);
    let (server, mut client) = garbage(Misdeed::Stall);
    assert_eq!(client.read(5), [0, 4, b'b', b'a', b'd']);
    client.say(b"more");
    client.finish_writing();
    client.expect_fin();
    assert_eq!(until(&server, |totals| totals.sessions_open == 0).messages_out, 1);
    let (_server, mut client) = garbage(Misdeed::Noise);
    let noise = client.read(64);
    assert_ne!(noise[..32], noise[32..]);
}

#[test]
fn thousands_of_sessions_at_several_addresses() {
    let mut config = serve(Behaviour::Echo, Framing::U32Be);
    config.listen = vec![Listen::Inet("127.0.0.1:0".parse().unwrap()); 4];
    let server = start(config);
    let addrs: Vec<SocketAddr> = server.listening().iter().map(inet).collect();
    let mut clients: Vec<Client> =
        (0..400).map(|n| Client::at(addrs[n % 4], Framing::U32Be).greet()).collect();
    for client in &mut clients {
        client.say(b"all at once");
    }
    for client in &mut clients {
        assert_eq!(client.hear(11), b"all at once");
    }
    let totals = server.totals();
    assert_eq!((totals.sessions_open, totals.sessions_peak, totals.connections), (400, 400, 400));
    drop(clients);
    assert_eq!(until(&server, |totals| totals.connections_open == 0).sessions_open, 0);
}

#[test]
fn what_cannot_be_listened_on_is_named() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = serve(Behaviour::Echo, Framing::U32Be);
    config.listen = vec![Listen::Inet(holder.local_addr().unwrap())];
    let error = Server::start(&config).unwrap_err().to_string();
    assert!(error.contains("another process"), "{error}");
    config.listen = vec![Listen::Inet("192.0.2.1:0".parse().unwrap())];
    let error = Server::start(&config).unwrap_err().to_string();
    assert!(error.contains("192.0.2.1:0") && error.contains("no such address"), "{error}");
}

#[test]
fn a_unix_sockets_file_goes_with_its_server() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("serve.sock");
    let _ = std::fs::remove_file(&path);
    let mut config = serve(Behaviour::Echo, Framing::U32Be);
    config.listen = vec![Listen::Unix(path.clone())];
    let server = start(config.clone());
    let error = Server::start(&config).unwrap_err().to_string();
    assert!(error.contains("remove it"), "{error}");
    assert!(path.exists(), "a server that did not start removes nobody's file");
    drop(server.stop());
    assert!(!path.exists());
}

fn serve(behaviour: Behaviour, framing: Framing) -> Serve {
    Serve {
        kind: Kind::Tcp,
        listen: vec![Listen::Inet("127.0.0.1:0".parse().unwrap())],
        nats: String::new(),
        dialect: Dialect { framing, proxy: true, message_max: 100_000 },
        behaviour,
        threads: 2,
        socket_buffer: None,
        seed: 5,
    }
}

fn crash(after_messages: Option<u32>, chance_ppm: u32, ending: Ending) -> Behaviour {
    let cut = Cut::Session;
    Behaviour::Crash(Crash { after_messages, after_time: None, chance_ppm, cut, ending })
}

fn start(config: Serve) -> Server {
    Server::start(&config).unwrap()
}

fn inet(listen: &Listen) -> SocketAddr {
    let Listen::Inet(addr) = listen else { panic!("{listen} is no address") };
    *addr
}

/// Waits until the server has counted what must come.
fn until(server: &Server, done: impl Fn(&Totals) -> bool) -> Totals {
    let began = Instant::now();
    loop {
        let totals = server.totals();
        if done(&totals) {
            return totals;
        }
        assert!(began.elapsed() < PATIENCE, "{totals:?}");
        std::thread::yield_now();
    }
}

/// A session's end of a connection, without a gateway between.
struct Client {
    socket: TcpStream,
    framing: Framing,
}

impl Client {
    fn at(addr: SocketAddr, framing: Framing) -> Self {
        let socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, framing }
    }

    fn without_header(server: &Server, framing: Framing) -> Self {
        Self::at(inet(&server.listening()[0]), framing)
    }

    fn connect(server: &Server, framing: Framing) -> Self {
        Self::without_header(server, framing).greet()
    }

    fn greet(mut self) -> Self {
        let (client, listener) =
            ("192.0.2.7:50000".parse().unwrap(), "198.51.100.1:4000".parse().unwrap());
        self.raw(Header::new(client, listener, Conv(7)).as_slice());
        self
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// One that was cut off may find out here.
    fn say(&mut self, message: &[u8]) {
        let len = message.len();
        let short = || u16::try_from(len).unwrap();
        let long = || u32::try_from(len).unwrap();
        let prefix = match self.framing {
            Framing::None => vec![],
            Framing::U16Be => short().to_be_bytes().to_vec(),
            Framing::U16Le => short().to_le_bytes().to_vec(),
            Framing::U32Be => long().to_be_bytes().to_vec(),
            Framing::U32Le => long().to_le_bytes().to_vec(),
        };
        let _ = self.socket.write_all(&[&prefix, message].concat());
    }

    fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.socket.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn hear(&mut self, len: usize) -> Vec<u8> {
        self.try_hear(len).unwrap()
    }

    fn try_hear(&mut self, len: usize) -> Option<Vec<u8>> {
        let mut prefix = vec![0; self.framing.prefix_len()];
        self.socket.read_exact(&mut prefix).ok()?;
        let announced = match self.framing {
            Framing::None => len,
            Framing::U16Be => u16::from_be_bytes([prefix[0], prefix[1]]).into(),
            Framing::U16Le => u16::from_le_bytes([prefix[0], prefix[1]]).into(),
            Framing::U32Be => u32::from_be_bytes(prefix.try_into().unwrap()) as usize,
            Framing::U32Le => u32::from_le_bytes(prefix.try_into().unwrap()) as usize,
        };
        assert_eq!(announced, len);
        Some(self.read(len))
    }

    fn finish_writing(&mut self) {
        self.socket.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Ends in order, and waits until the server has.
    fn finish(mut self) {
        self.finish_writing();
        self.expect_fin();
    }

    fn expect_fin(&mut self) {
        assert_eq!(self.socket.read(&mut [0]).unwrap(), 0);
    }

    fn expect_reset(&mut self) {
        let error = self.socket.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
