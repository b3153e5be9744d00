//! Streams as the other side of the connection sees them: plain sockets of the standard library.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use net_io::{
    Close, ConnectError, Driver, DriverConfig, EpollDriver, Now, StreamAddr, StreamConfig,
    StreamEnd, StreamEvent, StreamId, StreamSocket, UdpSocket, UringDriver,
};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

trait Kernel: Driver<Socket = UdpSocket, Stream = StreamSocket> {}
impl<D: Driver<Socket = UdpSocket, Stream = StreamSocket>> Kernel for D {}

/// A test per scenario and driver.
macro_rules! tests {
    ($($scenario:ident)*) => {
        mod uring {
            $(#[test]
            fn $scenario() {
                super::$scenario(super::UringDriver::new(&super::config()).unwrap());
            })*
        }
        mod epoll {
            $(#[test]
            fn $scenario() {
                super::$scenario(super::EpollDriver::new(&super::config()).unwrap());
            })*
        }
    };
}

tests! {
    an_abort_is_an_rst
    an_abort_while_a_read_is_armed_is_an_rst
    an_rst_ends_the_stream
    what_never_left_is_told_at_the_end
    a_finish_is_a_fin_behind_everything_written
    nothing_is_delayed_by_nagle
    sockets_made_elsewhere_are_adopted
    a_connection_leaves_from_the_address_asked_for
    a_full_backlog_is_busy
    an_impossible_path_is_an_error
    a_connection_reset_before_it_is_used_is_told
}

fn config() -> DriverConfig {
    DriverConfig { streams: Some(StreamConfig::default()), ..DriverConfig::default() }
}

/// A connection that the driver made, with its other end.
fn connected(driver: &mut impl Kernel) -> (StreamId, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let id = driver.connect(&listener.local_addr().unwrap().into(), None).unwrap();
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(next(driver), Seen::Connected);
    (id, peer)
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Connected,
    Failed(ConnectError),
    Data(Vec<u8>),
    Writable,
    Fin,
    Closed(StreamEnd),
}

/// The next thing that happens to the driver's only stream.
fn next(driver: &mut impl Kernel) -> Seen {
    let limit = Now(driver.now().0 + 10_000_000);
    loop {
        if let Some(event) = driver.stream_event() {
            return match event {
                StreamEvent::Connected(_) => Seen::Connected,
                StreamEvent::Failed(_, error) => Seen::Failed(error),
                StreamEvent::Data(_, bytes) => Seen::Data(bytes.to_vec()),
                StreamEvent::Writable(_) => Seen::Writable,
                StreamEvent::Fin(_) => Seen::Fin,
                StreamEvent::Closed(_, end, _) => Seen::Closed(end),
            };
        }
        assert!(driver.submit_and_wait(Some(limit)).unwrap() < limit, "nothing happened");
    }
}

fn poll(driver: &mut impl Kernel) {
    driver.submit_and_wait(Some(Now(0))).unwrap();
}

fn assert_reset(peer: &mut TcpStream) {
    let error = peer.read(&mut [0; 100]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn an_abort_is_an_rst(mut driver: impl Kernel) {
    let (id, mut peer) = connected(&mut driver);
    driver.stream_write(id, b"never sent");
    driver.stream_close(id, Close::Abort);
    poll(&mut driver);
    assert_reset(&mut peer);
}

/// The kernel must not keep the connection for the sake of a read that nobody waits for any more.
fn an_abort_while_a_read_is_armed_is_an_rst(mut driver: impl Kernel) {
    let (id, mut peer) = connected(&mut driver);
    driver.stream_read(id);
    driver.stream_write(id, b"x");
    poll(&mut driver);
    peer.read_exact(&mut [0]).unwrap();
    driver.stream_close(id, Close::Abort);
    poll(&mut driver);
    assert_reset(&mut peer);
    poll(&mut driver);
    assert_eq!(driver.stream_event(), None);
}

fn an_rst_ends_the_stream(mut driver: impl Kernel) {
    for read_first in [true, false] {
        let (id, mut peer) = connected(&mut driver);
        if read_first {
            driver.stream_read(id);
            poll(&mut driver);
        }
        peer.write_all(b"last words").unwrap();
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        driver.stream_read(id);
        // An RST takes what was not read yet: here the words may be heard or not.
        let mut seen = next(&mut driver);
        if seen == Seen::Data(b"last words".into()) {
            driver.stream_read(id);
            seen = next(&mut driver);
        }
        assert_eq!(seen, Seen::Closed(StreamEnd::Reset));
    }
    assert_eq!(driver.stream_counters().ended_reset, 2);
}

/// A peer that takes nothing, and is gone: what the kernel had no room for is known to be lost.
fn what_never_left_is_told_at_the_end(mut driver: impl Kernel) {
    let (id, peer) = connected(&mut driver);
    while driver.stream_queued(id) == 0 {
        driver.stream_write(id, &[7; 100_000]);
        poll(&mut driver);
    }
    let queued = driver.stream_queued(id);
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    driver.stream_read(id);
    let unsent = loop {
        match driver.stream_event() {
            Some(StreamEvent::Closed(_, end, unsent)) => {
                assert_eq!(end, StreamEnd::Reset);
                break unsent;
            }
            Some(_) => {}
            None => drop(driver.submit_and_wait(None).unwrap()),
        }
    };
    assert!((1..=queued).contains(&unsent), "{unsent} of {queued}");
    assert_eq!(driver.stream_queued(id), 0, "there is no such stream any more");
}

fn a_finish_is_a_fin_behind_everything_written(mut driver: impl Kernel) {
    const LEN: usize = 200_000;
    let (id, mut peer) = connected(&mut driver);
    assert_eq!(driver.stream_write(id, &[7; LEN]), LEN);
    driver.stream_close(id, Close::Finish);
    driver.stream_read(id);
    poll(&mut driver);
    let mut heard = Vec::new();
    let mut piece = [0; 10_000];
    loop {
        let len = peer.read(&mut piece).unwrap();
        if len == 0 {
            break;
        }
        heard.extend_from_slice(&piece[..len]);
        poll(&mut driver);
    }
    assert!(heard == [7; LEN]);
    peer.write_all(b"thanks").unwrap();
    assert_eq!(next(&mut driver), Seen::Data(b"thanks".into()));
    drop(peer);
    driver.stream_read(id);
    assert_eq!(next(&mut driver), Seen::Closed(StreamEnd::Finished));
}

/// Small writes of one turn after the other arrive without waiting for acknowledgements.
fn nothing_is_delayed_by_nagle(mut driver: impl Kernel) {
    let (id, mut peer) = connected(&mut driver);
    peer.set_nonblocking(true).unwrap();
    for number in 0..20 {
        driver.stream_write(id, &[number]);
        poll(&mut driver);
        let mut byte = [0];
        assert_eq!(peer.read(&mut byte).unwrap(), 1, "{number} was held back");
        assert_eq!(byte, [number]);
    }
}

fn sockets_made_elsewhere_are_adopted(mut driver: impl Kernel) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut tcp_peer, _) = listener.accept().unwrap();
    let (unix, mut unix_peer) = UnixStream::pair().unwrap();
    let at_tcp = driver.adopt(tcp.into()).unwrap();
    let at_unix = driver.adopt(unix.into()).unwrap();
    // Blocking sockets as they are, with something to read before anybody asks.
    tcp_peer.write_all(b"over tcp").unwrap();
    unix_peer.write_all(b"over unix").unwrap();
    poll(&mut driver);
    assert_eq!(driver.stream_event(), None);
    for (id, words) in [(at_tcp, &b"over tcp"[..]), (at_unix, b"over unix")] {
        driver.stream_read(id);
        assert_eq!(next(&mut driver), Seen::Data(words.into()));
        driver.stream_write(id, words);
        poll(&mut driver);
    }
    let mut echo = [0; 9];
    tcp_peer.read_exact(&mut echo[..8]).unwrap();
    assert_eq!(&echo[..8], b"over tcp");
    unix_peer.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"over unix");
    // A Unix peer that closes is a FIN.
    drop(unix_peer);
    driver.stream_read(at_unix);
    assert_eq!(next(&mut driver), Seen::Fin);
    driver.stream_close(at_unix, Close::Finish);
    assert_eq!(next(&mut driver), Seen::Closed(StreamEnd::Finished));
    // Of an abort, a Unix peer sees only the end.
    let (unix, mut unix_peer) = UnixStream::pair().unwrap();
    let at_unix = driver.adopt(unix.into()).unwrap();
    driver.stream_read(at_unix);
    poll(&mut driver);
    driver.stream_close(at_unix, Close::Abort);
    poll(&mut driver);
    assert_eq!(unix_peer.read(&mut [0; 10]).unwrap(), 0);
}

fn a_connection_leaves_from_the_address_asked_for(mut driver: impl Kernel) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = StreamAddr::Tcp(listener.local_addr().unwrap());
    let from = Ipv4Addr::new(127, 0, 0, 9);
    driver.connect(&to, Some(from.into())).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip(), from);
    // TEST-NET-1 is nobody's.
    let nobodys = Ipv4Addr::new(192, 0, 2, 1).into();
    assert_eq!(driver.connect(&to, Some(nobodys)), Err(ConnectError::Ports));
    assert_eq!(driver.stream_counters().failed_ports, 1);
}

fn temporary(name: &str) -> PathBuf {
    let driver = std::thread::current().name().unwrap_or_default().replace("::", "-");
    std::env::temp_dir().join(format!("net-io-{}-{driver}-{name}", std::process::id()))
}

fn a_full_backlog_is_busy(mut driver: impl Kernel) {
    let path = temporary("backlog");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(1).unwrap();
    let to = StreamAddr::Unix(path.clone());
    let made = (0..10).take_while(|_| driver.connect(&to, None).is_ok()).count();
    assert_eq!(made, 2);
    assert_eq!(driver.connect(&to, None), Err(ConnectError::Busy));
    assert_eq!(driver.stream_counters().failed_other, 2);
    listener.accept().unwrap();
    assert!(driver.connect(&to, None).is_ok());
    std::fs::remove_file(path).unwrap();
}

fn an_impossible_path_is_an_error(mut driver: impl Kernel) {
    let to = StreamAddr::Unix("x".repeat(200).into());
    assert_eq!(driver.connect(&to, None), Err(ConnectError::Other(libc::EINVAL)));
    let text = driver.connect(&to, None).unwrap_err().to_string();
    assert!(text.contains("22"), "{text}");
}

/// A proxy that accepts and cuts off, before anything was asked of the stream.
fn a_connection_reset_before_it_is_used_is_told(mut driver: impl Kernel) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let id = driver.connect(&listener.local_addr().unwrap().into(), None).unwrap();
    driver.stream_write(id, b"hello");
    let (peer, _) = listener.accept().unwrap();
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    // Whether the connection is seen before it is gone is chance; that it is gone is not.
    let seen = next(&mut driver);
    let end = if seen == Seen::Connected { next(&mut driver) } else { seen };
    let reset =
        [Seen::Closed(StreamEnd::Reset), Seen::Failed(ConnectError::Other(libc::ECONNRESET))];
    assert!(reset.contains(&end), "{end:?}");
    assert_eq!(driver.stream_counters().open, 0);
}
