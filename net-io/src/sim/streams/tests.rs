//! What the conformance list does not ask of every driver: times, links, whose turn is due, and reproducibility.

use netem::{Blackout, LinkConfig};

use super::super::{Pace, SimConfig, SimDriver};
use super::*;
use crate::driver::{Driver, DriverConfig, Now};
use crate::socket::SocketOptions;
use crate::stream::StreamEnd;

const CLIENT: &str = "10.0.0.1";
const SERVER: &str = "10.0.0.2";

/// A network with two hosts, a driver on each, and a listener on the second.
struct World {
    net: SimNet,
    client: SimDriver,
    server: SimDriver,
    listener: SimListener,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Connected,
    Failed(ConnectError),
    Data(Vec<u8>),
    Writable,
    Fin,
    Closed(StreamEnd),
}

impl World {
    /// Each way takes 700 us, and what `link` says beside that.
    fn new(pace: Pace, link: LinkConfig) -> Self {
        let link = LinkConfig { delay_us: 700, ..link };
        let net = SimNet::new(&SimConfig { pace, link, ..SimConfig::default() });
        let config =
            DriverConfig { streams: Some(StreamConfig::default()), ..DriverConfig::default() };
        let driver = |ip: &str| {
            let host = net.host(&[ip.parse().unwrap()]).unwrap();
            let mut driver = SimDriver::new(&net, &config);
            let addr = format!("{ip}:1").parse().unwrap();
            driver.add_socket(host.bind(addr, &SocketOptions::default()).unwrap()).unwrap();
            (driver, host)
        };
        let (client, _) = driver(CLIENT);
        let (server, host) = driver(SERVER);
        let listener = host.listen_stream(&addr()).unwrap();
        Self { net, client, server, listener }
    }

    /// A stream with a read asked for on both sides.
    fn pair(&mut self) -> (StreamId, StreamId) {
        let at_client = self.client.connect(&addr(), None).unwrap();
        self.client.stream_read(at_client);
        let now = self.net.now();
        while self.net.now() < now.after(1400) {
            turn(&mut self.client, Some(now.after(1400)));
        }
        assert_eq!(events(&mut self.client), [Seen::Connected]);
        let at_server = self.server.adopt(self.listener.accept().unwrap()).unwrap();
        self.server.stream_read(at_server);
        turn(&mut self.server, Some(Now(0)));
        (at_client, at_server)
    }
}

impl Now {
    fn after(self, us: u64) -> Self {
        Self(self.0 + us)
    }
}

fn addr() -> StreamAddr {
    StreamAddr::Tcp(format!("{SERVER}:9").parse().unwrap())
}

fn turn(driver: &mut SimDriver, deadline: Option<Now>) {
    driver.submit_and_wait(deadline).unwrap();
}

/// What a driver's streams tell; a read is asked for after each.
fn events(driver: &mut SimDriver) -> Vec<Seen> {
    let mut all = Vec::new();
    while let Some(event) = driver.stream_event() {
        let id = event.id();
        all.push(match event {
            StreamEvent::Connected(_) => Seen::Connected,
            StreamEvent::Failed(_, error) => Seen::Failed(error),
            StreamEvent::Data(_, bytes) => Seen::Data(bytes.to_vec()),
            StreamEvent::Writable(_) => Seen::Writable,
            StreamEvent::Fin(_) => Seen::Fin,
            StreamEvent::Closed(_, end, _) => Seen::Closed(end),
        });
        driver.stream_read(id);
    }
    all
}

/// Turns a driver until it tells something; when, and what.
fn next(net: &SimNet, driver: &mut SimDriver) -> (Now, Vec<Seen>) {
    loop {
        turn(driver, None);
        let all = events(driver);
        if !all.is_empty() {
            return (net.now(), all);
        }
    }
}

#[test]
fn everything_takes_the_links_time() {
    let mut world = World::new(Pace::Wait, LinkConfig::default());
    let World { net, client, server, listener } = &mut world;
    let id = client.connect(&addr(), None).unwrap();
    client.stream_read(id);
    client.stream_write(id, b"hello");
    assert_eq!(next(net, client), (Now(1400), vec![Seen::Connected]));
    let at_server = server.adopt(listener.accept().unwrap()).unwrap();
    server.stream_read(at_server);
    // What was written before leaves with the first turn after.
    turn(client, Some(Now(1400)));
    assert_eq!(next(net, server), (Now(2100), vec![Seen::Data(b"hello".into())]));
    server.stream_write(at_server, b"hi");
    server.stream_close(at_server, Close::Finish);
    turn(server, Some(Now(0)));
    assert_eq!(next(net, client), (Now(2800), vec![Seen::Data(b"hi".into())]));
    assert_eq!(next(net, client), (Now(2800), vec![Seen::Fin]));
    client.stream_close(id, Close::Finish);
    assert_eq!(events(client), [Seen::Closed(StreamEnd::Finished)]);
    assert_eq!(next(net, server), (Now(3500), vec![Seen::Closed(StreamEnd::Finished)]));

    let nobody = StreamAddr::Tcp(format!("{SERVER}:10").parse().unwrap());
    client.connect(&nobody, None).unwrap();
    turn(client, Some(net.now()));
    assert_eq!(next(net, client), (Now(4900), vec![Seen::Failed(ConnectError::Refused)]));
}

#[test]
fn a_host_that_does_not_answer_is_silence() {
    let mut world = World::new(Pace::Wait, LinkConfig::default());
    let World { net, client, .. } = &mut world;
    let gone = StreamAddr::Tcp("10.9.9.9:9".parse().unwrap());
    let id = client.connect(&gone, None).unwrap();
    let deadline = Now(10_000_000);
    turn(client, Some(deadline));
    assert_eq!((net.now(), events(client)), (deadline, vec![]));
    client.stream_close(id, Close::Abort);
    assert_eq!(client.stream_counters().open, 0);
    // Not this host's address.
    let elsewhere = client.connect(&addr(), Some("10.0.0.7".parse().unwrap()));
    assert_eq!(elsewhere, Err(ConnectError::Ports));
    assert!(client.connect(&addr(), Some(CLIENT.parse().unwrap())).is_ok());
}

#[test]
fn a_full_window_opens_when_the_peer_has_read() {
    let mut world = World::new(Pace::Wait, LinkConfig::default());
    let (at_client, _) = world.pair();
    let World { net, client, server, .. } = &mut world;
    let total = 3 * 128 * 1024;
    let mut sent = client.stream_write(at_client, &vec![1; total]);
    let mut heard = 0;
    let start = net.now();
    while heard < total {
        turn(client, Some(Now(0)));
        for seen in events(client) {
            assert_eq!(seen, Seen::Writable);
            sent += client.stream_write(at_client, &vec![1; total - sent]);
        }
        turn(server, Some(net.now().after(100)));
        for seen in events(server) {
            if let Seen::Data(bytes) = seen {
                heard += bytes.len();
            }
        }
        assert!(net.now() < start.after(1_000_000), "{heard} of {total}");
    }
    // 128 KiB a round trip, and three of them.
    assert!(net.now() >= start.after(2 * 1400 + 700), "{:?}", net.now());
    assert!(client.stream_counters().tx_blocked >= 2);
}

#[test]
fn losses_and_blackouts_are_delays() {
    let dark = Blackout { from_us: 10_000, for_us: 250_000, every_us: 0 };
    let link = LinkConfig { blackouts: vec![dark], ..LinkConfig::default() };
    let mut world = World::new(Pace::Wait, link);
    let (at_client, _) = world.pair();
    let World { net, client, server, .. } = &mut world;
    turn(client, Some(Now(10_500)));
    client.stream_write(at_client, b"late");
    turn(client, Some(Now(0)));
    // Sent again after 200 ms and after 400 ms more.
    assert_eq!(next(net, server), (Now(10_500 + 600_000 + 700), vec![Seen::Data(b"late".into())]));

    let all = LinkConfig { loss_ppm: 1_000_000, delay_us: 700, ..LinkConfig::default() };
    net.set_link(CLIENT.parse().unwrap(), SERVER.parse().unwrap(), &all);
    client.stream_write(at_client, b"lost");
    turn(client, Some(Now(0)));
    turn(server, Some(net.now().after(1_000_000_000)));
    assert_eq!(events(server), []);
}

/// A harness turns whoever is due: nothing may be left that only a turn would find.
#[test]
fn a_driver_is_due_while_its_streams_have_something() {
    let mut world = World::new(Pace::Harness, LinkConfig::default());
    let World { net, client, server, listener } = &mut world;
    listener.wake(server.waker());
    let at_client = client.connect(&addr(), None).unwrap();
    client.stream_read(at_client);
    let total = 500_000;
    let mut sent = client.stream_write(at_client, &vec![7; total]);
    let (mut heard, mut echoed, mut at_server, mut ended) = (0, 0, None, Vec::new());
    loop {
        while client.is_due() {
            turn(client, None);
            for seen in events(client) {
                match seen {
                    Seen::Connected => {}
                    Seen::Writable => {
                        sent += client.stream_write(at_client, &vec![7; total - sent]);
                    }
                    Seen::Data(bytes) => echoed += bytes.len(),
                    Seen::Fin | Seen::Failed(_) => panic!("{seen:?}"),
                    Seen::Closed(end) => ended.push(end),
                }
            }
            if echoed == total {
                client.stream_close(at_client, Close::Finish);
            }
        }
        while server.is_due() {
            turn(server, None);
            if let Some(stream) = listener.accept() {
                let id = server.adopt(stream).unwrap();
                server.stream_read(id);
                at_server = Some(id);
            }
            for seen in events(server) {
                match seen {
                    Seen::Data(bytes) => heard += bytes.len(),
                    Seen::Writable => {}
                    Seen::Fin => server.stream_close(at_server.unwrap(), Close::Finish),
                    Seen::Connected | Seen::Failed(_) => panic!("{seen:?}"),
                    Seen::Closed(end) => ended.push(end),
                }
            }
            if let Some(id) = at_server
                && heard > 0
            {
                heard -= server.stream_write(id, &vec![7; heard]);
            }
        }
        if net.advance().is_none() {
            break;
        }
    }
    assert_eq!((sent, echoed, heard), (total, total, 0));
    assert_eq!(ended, [StreamEnd::Finished; 2]);
}

#[test]
fn a_listener_that_goes_takes_its_backlog_with_it() {
    let mut world = World::new(Pace::Wait, LinkConfig::default());
    let id = world.client.connect(&addr(), None).unwrap();
    world.client.stream_read(id);
    assert_eq!(next(&world.net, &mut world.client).1, [Seen::Connected]);
    drop(world.listener);
    assert_eq!(next(&world.net, &mut world.client).1, [Seen::Closed(StreamEnd::Reset)]);
    world.client.connect(&addr(), None).unwrap();
    assert_eq!(next(&world.net, &mut world.client).1, [Seen::Failed(ConnectError::Refused)]);
}

#[test]
fn listening_follows_the_kernels_rules() {
    let net = SimNet::new(&SimConfig::default());
    let host = net.host(&[SERVER.parse().unwrap()]).unwrap();
    let tcp = |text: &str| StreamAddr::Tcp(text.parse().unwrap());
    let kind = |addr: &StreamAddr| host.listen_stream(addr).unwrap_err().kind();
    let taken = host.listen_stream(&addr()).unwrap();
    assert_eq!(kind(&addr()), io::ErrorKind::AddrInUse);
    assert_eq!(kind(&tcp("10.0.0.9:1")), io::ErrorKind::AddrNotAvailable);
    let (one, two) = (tcp("10.0.0.2:0"), StreamAddr::Unix("path".into()));
    let (a, b) = (host.listen_stream(&one).unwrap(), host.listen_stream(&one).unwrap());
    assert_ne!(a.addr(), b.addr());
    let _unix = host.listen_stream(&two).unwrap();
    assert_eq!(kind(&two), io::ErrorKind::AddrInUse);
    drop(taken);
    let _again = host.listen_stream(&addr()).unwrap();
    let any = host.listen_stream(&tcp("0.0.0.0:77")).unwrap();
    let config = DriverConfig { streams: Some(StreamConfig::default()), ..DriverConfig::default() };
    let mut driver = SimDriver::new(&net, &config);
    driver.connect(&tcp("10.0.0.2:77"), None).unwrap();
    net.advance();
    assert!(any.accept().is_some());
    let elsewhere = SimNet::new(&SimConfig::default());
    let mut foreign = SimDriver::new(&elsewhere, &config);
    driver.connect(&tcp("10.0.0.2:77"), None).unwrap();
    net.advance();
    let stream = any.accept().unwrap();
    assert_eq!(foreign.adopt(stream), Err(ConnectError::Other(libc::EINVAL)));
}

#[test]
fn a_seed_is_a_run() {
    let run = |seed| {
        let link = LinkConfig { jitter_us: 3_000, loss_ppm: 100_000, ..LinkConfig::default() };
        let mut world = World::new(Pace::Wait, LinkConfig::default());
        world.net.with(|inner| inner.rng = netem::Rng::new(seed));
        let (at_client, _) = world.pair();
        let (from, to) = (CLIENT.parse().unwrap(), SERVER.parse().unwrap());
        world.net.set_link(from, to, &link);
        let mut trace = Vec::new();
        for round in 0..20 {
            world.client.stream_write(at_client, &[round; 10]);
            turn(&mut world.client, Some(Now(0)));
            trace.push(next(&world.net, &mut world.server));
        }
        trace
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
