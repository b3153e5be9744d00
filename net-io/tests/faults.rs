//! Faults a process can only have as a whole: each runs as a child of its test, under the limits it is about.
//!
//! Needs util-linux and iproute2. A host that cannot do a part fails the test.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

use std::net::SocketAddr;
use std::process::Command;
use std::{env, fs};

use net_io::clock::monotonic;
use net_io::{
    Destination, Driver, DriverConfig, DriverKind, EpollDriver, IoChoice, Now, Probe,
    SocketOptions, UdpSocket, UringDriver,
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
