use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use super::*;
use crate::socket::SocketOptions;

fn bind() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(([127, 0, 0, 1], 0).into(), &SocketOptions::default()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// A plain socket that plays the peer.
fn peer() -> std::net::UdpSocket {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn in_ms(ms: u64) -> Option<Now> {
    Some(Now(monotonic().0 + ms * 1000))
}

fn turn(driver: &mut UringDriver, deadline: Option<Now>) -> Vec<Vec<u8>> {
    driver.submit_and_wait(deadline).unwrap();
    std::iter::from_fn(|| driver.recv().map(|datagram| datagram.payload.to_vec())).collect()
}

#[test]
fn a_full_completion_queue_ends_the_receive_and_loses_nothing() {
    const COUNT: u8 = 200;
    // A wait for many takes the whole backlog at once; one for the first would stop at 32.
    let config =
        DriverConfig { buffers: 256, min_wait_us: 100, want: 1000, ..DriverConfig::default() };
    // Far smaller than `new` would make it: there it is larger than everything that can complete.
    let mut driver = UringDriver::with_queues(&config, 64, 64).unwrap();
    let (socket, addr) = bind();
    driver.add_socket(socket).unwrap();
    turn(&mut driver, in_ms(0));
    let peer = peer();
    let waker = driver.waker();
    for round in 1..=3 {
        for number in 0..COUNT {
            peer.send_to(&[number], addr).unwrap();
        }
        let mut heard = Vec::new();
        while heard.len() < COUNT.into() {
            heard.extend(turn(&mut driver, in_ms(10_000)));
        }
        assert!(heard.iter().map(|payload| payload[0]).eq(0..COUNT));
        assert!(driver.counters().rx_rearmed >= round, "the queue never filled");
        // The waker's read is not among what was lost.
        waker.wake();
        while driver.counters().wakes < round {
            turn(&mut driver, in_ms(10_000));
        }
    }
    assert_eq!(driver.counters().rx_errors, 0);
}

/// The only lasting error an unprivileged test can give a receive: a connected socket whose peer is gone.
#[test]
fn a_failing_receive_is_armed_again_after_a_pause() {
    let (socket, addr) = bind();
    let gone = peer().local_addr().unwrap();
    socket2::SockRef::from(&socket).connect(&gone.into()).unwrap();
    let mut driver = UringDriver::new(&DriverConfig::default()).unwrap();
    let id = driver.add_socket(socket).unwrap();
    turn(&mut driver, in_ms(0));
    for round in 1..=3 {
        driver.slot(1)[0] = 1;
        driver.queue(1, &Destination { socket: id, peer: gone, local: None });
        while driver.counters().rx_errors < round {
            turn(&mut driver, in_ms(10_000));
        }
        // The wait for ever ends to arm it.
        assert_ne!(driver.arming.failed_retry, Now(u64::MAX));
        while !driver.arming.failed.is_empty() {
            turn(&mut driver, in_ms(10_000));
            driver.arm().unwrap();
        }
    }
    // Connected to somebody who is there, the same socket receives.
    let peer = peer();
    let fd = driver.sockets.socket(id).as_fd();
    socket2::SockRef::from(&fd).connect(&peer.local_addr().unwrap().into()).unwrap();
    turn(&mut driver, in_ms(0));
    peer.send_to(b"back", addr).unwrap();
    let mut heard = Vec::new();
    while heard.is_empty() {
        heard = turn(&mut driver, in_ms(10_000));
    }
    assert_eq!(heard, [b"back"]);
}

/// Linux 6.1 to 6.11 cannot gather by themselves.
#[test]
fn gathering_without_the_kernels_help() {
    let config = DriverConfig { min_wait_us: 20_000, want: 3, ..DriverConfig::default() };
    let mut driver = UringDriver::new(&config).unwrap();
    driver.gather.native = false;
    let (socket, addr) = bind();
    driver.add_socket(socket).unwrap();
    turn(&mut driver, in_ms(0));
    let peer = peer();

    // Fewer than wanted: after the minimum time. Nothing by then: after the first, or the deadline.
    peer.send_to(b"1", addr).unwrap();
    let before = monotonic();
    assert_eq!(turn(&mut driver, in_ms(10_000)).len(), 1);
    assert!(monotonic().0 >= before.0 + 20_000);
    let deadline = in_ms(50);
    assert!(turn(&mut driver, deadline).is_empty());
    assert!(Some(driver.now()) >= deadline);
    driver.waker().wake();
    turn(&mut driver, in_ms(10_000));
    assert_eq!(driver.counters().wakes, 1);
}

/// Where it does the waiting, the kernel takes the minimum for the timeout if there is none.
#[test]
fn gathering_without_a_deadline_sleeps_until_something_comes() {
    let config = DriverConfig { min_wait_us: 1, want: 3, ..DriverConfig::default() };
    let mut driver = UringDriver::new(&config).unwrap();
    let (socket, _) = bind();
    driver.add_socket(socket).unwrap();
    turn(&mut driver, in_ms(0));
    let waker = driver.waker();
    let before = monotonic();
    std::thread::spawn(move || {
        clock::sleep(Duration::from_millis(50));
        waker.wake();
    });
    turn(&mut driver, None);
    assert!(monotonic().0 >= before.0 + 50_000, "it returned by itself");
    assert_eq!(driver.counters().wakes, 1);
}

#[test]
fn gathering_ends_with_enough() {
    for native in [true, false] {
        let config = DriverConfig { min_wait_us: 60_000_000, want: 3, ..DriverConfig::default() };
        let mut driver = UringDriver::new(&config).unwrap();
        driver.gather.native &= native;
        let (socket, addr) = bind();
        driver.add_socket(socket).unwrap();
        turn(&mut driver, in_ms(0));
        let peer = peer();
        let before = monotonic();
        for _ in 0..3 {
            peer.send_to(b"x", addr).unwrap();
        }
        assert_eq!(turn(&mut driver, in_ms(50_000)).len(), 3);
        assert!(monotonic().0 < before.0 + 10_000_000);
    }
}

/// The kernel's references to a socket end with the driver, not some time later.
#[test]
fn a_dropped_driver_frees_its_ports() {
    let (socket, addr) = bind();
    let mut socket = Some(socket);
    for _ in 0..20 {
        let mut driver = UringDriver::new(&DriverConfig::default()).unwrap();
        let socket = socket
            .take()
            .unwrap_or_else(|| UdpSocket::bind(addr, &SocketOptions::default()).unwrap());
        driver.add_socket(socket).unwrap();
        turn(&mut driver, in_ms(0));
    }
}

#[test]
fn buffers_must_be_a_power_of_two() {
    for buffers in [0, 3, 1000, 32_769, u16::MAX] {
        let config = DriverConfig { buffers, ..DriverConfig::default() };
        let error = UringDriver::new(&config).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&buffers.to_string()), "{error}");
    }
}

#[test]
fn the_largest_ring_can_be_had() {
    let config = DriverConfig { buffers: 32_768, batch_max: u16::MAX, ..DriverConfig::default() };
    UringDriver::new(&config).unwrap();
}

fn with_streams() -> DriverConfig {
    DriverConfig { streams: Some(crate::StreamConfig::default()), ..DriverConfig::default() }
}

/// Connections to plain sockets that hold little.
fn narrow_pairs(driver: &mut UringDriver, count: usize) -> Vec<(StreamId, UnixStream)> {
    let mut pairs = Vec::new();
    for _ in 0..count {
        let (ours, theirs) = UnixStream::pair().unwrap();
        socket2::SockRef::from(&ours).set_send_buffer_size(4096).unwrap();
        theirs.set_nonblocking(true).unwrap();
        pairs.push((driver.adopt(ours.into()).unwrap(), theirs));
    }
    pairs
}

/// What of a stream's bytes the kernel did not take is told by a completion. One that did not fit the queue must not pass for
/// none: bytes would be lost.
#[test]
fn short_sends_are_seen_past_a_full_completion_queue() {
    const STREAMS: usize = 300;
    const LEN: usize = 50_000;
    let mut driver = UringDriver::with_queues(&with_streams(), 64, 64).unwrap();
    let mut pairs = narrow_pairs(&mut driver, STREAMS);
    let bytes = |stream: usize| (0..=255u8).cycle().skip(stream % 256).take(LEN);
    for (stream, (id, _)) in pairs.iter().enumerate() {
        let all: Vec<u8> = bytes(stream).collect();
        assert_eq!(driver.stream_write(*id, &all), LEN);
    }
    turn(&mut driver, in_ms(0));
    assert_eq!(driver.stream_counters().tx_blocked, STREAMS as u64);
    let mut heard = vec![Vec::new(); STREAMS];
    let limit = in_ms(30_000).unwrap();
    while heard.iter().any(|heard| heard.len() < LEN) {
        for ((_, peer), heard) in pairs.iter_mut().zip(&mut heard) {
            let mut piece = [0; LEN];
            if let Ok(len) = peer.read(&mut piece) {
                heard.extend_from_slice(&piece[..len]);
            }
        }
        turn(&mut driver, in_ms(1));
        assert!(driver.now() < limit, "bytes were lost");
    }
    for (stream, heard) in heard.into_iter().enumerate() {
        assert!(heard.into_iter().eq(bytes(stream)), "stream {stream}");
    }
    assert_eq!(driver.stream_counters().queued_bytes, 0);
}

/// A backend that dies takes thousands of reads with it at once.
#[test]
fn ends_are_told_past_a_full_completion_queue() {
    const STREAMS: usize = 500;
    let mut driver = UringDriver::with_queues(&with_streams(), 64, 64).unwrap();
    let pairs = narrow_pairs(&mut driver, STREAMS);
    for (id, _) in &pairs {
        driver.stream_read(*id);
    }
    turn(&mut driver, in_ms(0));
    drop(pairs);
    let mut fins = 0;
    while fins < STREAMS {
        turn(&mut driver, in_ms(10_000));
        while let Some(event) = driver.stream_event() {
            assert!(matches!(event, StreamEvent::Fin(_)), "{event:?}");
            fins += 1;
        }
    }
}

/// More pieces than one submission can point to, so that it is split in the middle of a turn.
#[test]
fn gathering_sends_are_split_over_submissions() {
    const STREAMS: usize = 40;
    const LEN: usize = 100_000;
    let mut driver = UringDriver::new(&with_streams()).unwrap();
    let mut peers = Vec::new();
    for stream in 0..STREAMS {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let id = driver.adopt(ours.into()).unwrap();
        assert_eq!(driver.stream_write(id, &vec![u8::try_from(stream).unwrap(); LEN]), LEN);
        peers.push(theirs);
    }
    turn(&mut driver, in_ms(0));
    assert_eq!(driver.stream_counters().tx_blocked, 0, "they fit the sockets");
    for (stream, mut peer) in peers.into_iter().enumerate() {
        let mut all = vec![0; LEN];
        peer.read_exact(&mut all).unwrap();
        assert!(all.iter().all(|byte| usize::from(*byte) == stream));
    }
}
