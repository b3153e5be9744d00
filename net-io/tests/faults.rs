//! Faults a process can only have as a whole: each runs as a child of its test, under the limits it is about.
//!
//! Needs util-linux and iproute2. A host that cannot do a part fails the test.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::{env, fs};

use net_io::clock::monotonic;
use net_io::{
    Close, ConnectError, Destination, Driver, DriverConfig, DriverKind, EpollDriver, IoChoice, Now,
    Probe, SocketOptions, StreamAddr, StreamConfig, StreamEvent, StreamId, StreamSocket, UdpSocket,
    UringDriver,
};

#[test]
fn a_ring_that_does_not_fit_the_memory_limit_says_so() {
    under(&memlock(64 << 10), "a_ring_that_does_not_fit_the_memory_limit_says_so", || {
        let config = DriverConfig::default();
        let error = UringDriver::new(&config).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
        let error = Probe::run(IoChoice::Uring, &config).unwrap_err();
        assert!(error.cause.contains("65536 bytes"), "{error}");
        assert!(error.remedy.contains("LimitMEMLOCK"), "{error}");
        let probe = Probe::run(IoChoice::Auto, &config).unwrap();
        assert_eq!(probe.kind, DriverKind::Epoll);
        assert_eq!(probe.reason, format!("epoll: {error}"));
    });
}

/// The kernel gives the memory of a closed ring back some time later; a restart must not fail on it.
#[test]
fn a_ring_can_follow_another_where_only_one_fits() {
    under(&memlock(256 << 10), "a_ring_can_follow_another_where_only_one_fits", || {
        let config = DriverConfig::default();
        let first = UringDriver::new(&config).unwrap();
        let error = UringDriver::new(&config).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM), "two fit: the limit tests nothing");
        drop(first);
        for _ in 0..10 {
            let mut driver = UringDriver::new(&config).unwrap();
            driver.submit_and_wait(Some(Now(0))).unwrap();
        }
    });
}

#[test]
fn a_full_send_buffer_is_loss_and_does_not_block() {
    under(&network(), "a_full_send_buffer_is_loss_and_does_not_block", || {
        full_send_buffer(UringDriver::new(&DriverConfig::default()).unwrap());
        full_send_buffer(EpollDriver::new(&DriverConfig::default()).unwrap());
    });
}

/// Datagrams for a neighbour that does not answer wait for it, in the send buffer.
fn full_send_buffer<D: Driver<Socket = UdpSocket>>(mut driver: D) {
    const COUNT: u64 = 100;
    let options = SocketOptions { send_buffer: 8 << 10, ..SocketOptions::default() };
    let bind = |addr: SocketAddr| UdpSocket::bind(addr, &options).unwrap();
    let full = driver.add_socket(bind((HOST, 0).into())).unwrap();
    let other = driver.add_socket(bind(([127, 0, 0, 1], 0).into())).unwrap();
    let peer = bind(([127, 0, 0, 1], 0).into());
    let to_peer = Destination { socket: other, peer: peer.local_addr().unwrap(), local: None };
    let before = monotonic();
    for number in 0..COUNT {
        // Two ports, so that no trains form.
        let nobody = (NOBODY, if number % 2 == 0 { 4000 } else { 4001 }).into();
        driver.slot(1000);
        driver.queue(1000, &Destination { socket: full, peer: nobody, local: None });
    }
    // What another socket sends after them goes out all the same.
    driver.slot(3);
    driver.queue(3, &to_peer);
    driver.submit_and_wait(Some(Now(0))).unwrap();
    assert!(monotonic().0 < before.0 + 1_000_000, "{:?} blocked", driver.kind());
    let counters = driver.counters();
    assert!(counters.tx_full > 0 && counters.tx_full < COUNT, "{counters:?}");
    assert_eq!(counters.tx_errors, 0);
    let mut payload = [0; 10];
    assert_eq!(std::net::UdpSocket::from(peer).recv(&mut payload).unwrap(), 3);
}

fn stream_config() -> DriverConfig {
    DriverConfig { streams: Some(StreamConfig::default()), ..DriverConfig::default() }
}

/// What the driver tells next of its streams.
fn next<D: Driver>(driver: &mut D) -> String {
    let limit = Now(driver.now().0 + 10_000_000);
    loop {
        if let Some(event) = driver.stream_event() {
            let StreamEvent::Failed(_, error) = event else { return format!("{event:?}") };
            return format!("failed: {error}");
        }
        assert!(driver.submit_and_wait(Some(limit)).unwrap() < limit, "nothing happened");
    }
}

#[test]
fn without_descriptors_a_connection_fails_and_the_others_live() {
    let few = words("prlimit --nofile=64:64");
    under(&few, "without_descriptors_a_connection_fails_and_the_others_live", || {
        no_descriptors(UringDriver::new(&stream_config()).unwrap());
        no_descriptors(EpollDriver::new(&stream_config()).unwrap());
    });
}

fn no_descriptors<D: Driver<Socket = UdpSocket, Stream = StreamSocket>>(mut driver: D) {
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = StreamAddr::Tcp(listener.local_addr().unwrap());
    let mut ids = Vec::new();
    let error = loop {
        match driver.connect(&to, None) {
            Ok(id) => ids.push(id),
            Err(error) => break error,
        }
    };
    assert_eq!(error, ConnectError::Files);
    assert!(error.to_string().contains("LimitNOFILE"), "{error}");
    assert_eq!(driver.stream_counters().failed_files, 1);
    for id in &ids {
        assert_eq!(next(&mut driver), format!("Connected({id:?})"));
        driver.stream_read(*id);
    }
    driver.submit_and_wait(Some(Now(0))).unwrap();
    // One that ends makes room for another, whatever it had under way.
    for id in &ids[..10] {
        driver.stream_close(*id, Close::Abort);
        driver.submit_and_wait(Some(Now(0))).unwrap();
        let new = driver.connect(&to, None).unwrap();
        assert_eq!(next(&mut driver), format!("Connected({new:?})"));
    }
    drop((driver, listener));
    assert!(open() <= before, "descriptors were left behind");
}

/// Ports are counted for each backend address, not for the host: more backends, more sessions.
#[test]
fn without_ports_another_backend_helps() {
    under(&network(), "without_ports_another_backend_helps", || {
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40009").unwrap();
        no_ports(UringDriver::new(&stream_config()).unwrap());
        no_ports(EpollDriver::new(&stream_config()).unwrap());
    });
}

fn no_ports<D: Driver<Socket = UdpSocket, Stream = StreamSocket>>(mut driver: D) {
    let listeners =
        [1, 2].map(|last| TcpListener::bind(SocketAddr::from((HOST, 4000 + last))).unwrap());
    let [one, two] = listeners.each_ref().map(|l| StreamAddr::Tcp(l.local_addr().unwrap()));
    for bind in [None, Some(HOST.into())] {
        let mut ids = Vec::new();
        for to in [&one, &two] {
            let made: Vec<StreamId> =
                (0..20).map_while(|_| driver.connect(to, bind).ok()).collect();
            assert_eq!(made.len(), 10, "towards {to}, from {bind:?}");
            assert_eq!(driver.connect(to, bind), Err(ConnectError::Ports));
            ids.extend(made);
        }
        for id in ids {
            assert!(next(&mut driver).starts_with("Connected"));
            driver.stream_close(id, Close::Abort);
            driver.submit_and_wait(Some(Now(0))).unwrap();
        }
    }
    assert_eq!(driver.stream_counters().failed_ports, 8);
}

#[test]
fn a_backend_that_cannot_be_reached_fails_or_is_aborted() {
    under(&network(), "a_backend_that_cannot_be_reached_fails_or_is_aborted", || {
        unreachable(UringDriver::new(&stream_config()).unwrap());
        unreachable(EpollDriver::new(&stream_config()).unwrap());
    });
}

fn unreachable<D: Driver<Socket = UdpSocket, Stream = StreamSocket>>(mut driver: D) {
    let no_route = StreamAddr::Tcp(([10, 99, 0, 1], 1).into());
    assert_eq!(driver.connect(&no_route, None), Err(ConnectError::Unreachable));
    // Nobody answers: a deadline is the caller's business.
    let silent = StreamAddr::Tcp((NOBODY, 1).into());
    let given_up = driver.connect(&silent, None).unwrap();
    let waiting = driver.connect(&silent, None).unwrap();
    driver.stream_write(given_up, b"hello");
    let deadline = Now(driver.now().0 + 50_000);
    while driver.submit_and_wait(Some(deadline)).unwrap() < deadline {}
    assert_eq!(driver.stream_event(), None);
    driver.stream_close(given_up, Close::Abort);
    assert_eq!(driver.stream_counters().connecting, 1);
    // The kernel asks the neighbourhood for three seconds.
    let _ = waiting;
    assert_eq!(next(&mut driver), "failed: no way there, or no answer");
    let counters = driver.stream_counters();
    assert_eq!((counters.failed_unreachable, counters.open, counters.connecting), (2, 0, 0));
}

const HOST: [u8; 4] = [10, 77, 0, 1];
const NOBODY: [u8; 4] = [10, 77, 0, 2];

/// A network of its own: loopback, and a link on which nobody answers.
fn network() -> Vec<String> {
    let mut command = words("unshare --net");
    if !has_capability(SYS_ADMIN) {
        command.push("--map-root-user".to_owned());
    }
    command.extend(words("sh -ec"));
    let set_up = [
        "ip link set lo up",
        "ip link add near type veth peer name far",
        "ip address add 10.77.0.1/24 dev near",
        "ip link set near up",
        "ip link set far up",
        "exec \"$0\" \"$@\"",
    ];
    command.push(set_up.join("\n"));
    command
}

/// No more than `bytes` of locked memory, whoever runs the test.
fn memlock(bytes: u32) -> Vec<String> {
    let mut command = Vec::new();
    if has_capability(IPC_LOCK) {
        command.extend(words("setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock"));
    }
    command.extend(words(&format!("prlimit --memlock={bytes}:{bytes}")));
    command
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// Runs `test` in a child process that `command` starts. `name` is the calling test's own, which the child runs again.
fn under(command: &[String], name: &str, test: impl FnOnce()) {
    const CHILD: &str = "NET_IO_FAULTS_CHILD";
    if env::var_os(CHILD).is_some() {
        return test();
    }
    let output = Command::new(&command[0])
        .args(&command[1..])
        .arg(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", command[0]));
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    assert!(text.contains("1 passed"), "{text}");
}

const IPC_LOCK: u32 = 14;
const SYS_ADMIN: u32 = 21;

fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() >> number & 1 == 1
}
