//! The multiplexer against HashiCorp's own library, unchanged, as a backend over TCP; and a whole gateway in front of it.
//!
//! Needs Go and Debian's package of the library; without them it fails and says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may fail, and says what it measured"
)]

#[path = "yamux/mod.rs"]
mod driver;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use driver::{Gate, Socket, config, scenarios};
use kcp_gateway::config::{Auto, Listener, UpstreamUrl};
use kcp_gateway::shard::stats::Stat;
use kcp_gateway::upstream::yamux;
use kcp_gateway::{Config, Gateway};
use kcp_loadgen::Scenario;
use kcp_loadgen::scenario::Load;
use kcp_loadgen::sources::Sources;
use net_io::IoChoice;
use tokio::net::TcpStream;

/// Streams that the library takes before its application accepts them: its default.
const BACKLOG: u32 = 256;

fn run<S: AsyncFnOnce(&mut Gate)>(backlog: u32, config: yamux::Config, scenario: S) {
    let backend = Backend::start(backlog, &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = TcpStream::connect(&backend.address).await.unwrap();
        let mut gate = Gate::new(Socket::Tcp(socket), config);
        let limit = Duration::from_secs(120);
        tokio::time::timeout(limit, scenario(&mut gate)).await.expect("it takes too long");
    });
}

#[test]
fn many_sessions_hear_what_they_said() {
    run(BACKLOG, config(), scenarios::echo);
}

#[test]
fn bulk_goes_up_within_the_window() {
    run(BACKLOG, config(), scenarios::upload);
    run(BACKLOG, config(), scenarios::upload_to_a_slow_backend);
}

#[test]
fn bulk_comes_down_within_the_window() {
    run(BACKLOG, config(), scenarios::download_to_a_slow_session);
}

#[test]
fn a_larger_window_is_used() {
    let config = yamux::Config { window: 1 << 20, ..config() };
    run(BACKLOG, config, async |gate: &mut Gate| scenarios::window_of(gate, 1 << 20).await);
}

#[test]
fn a_session_that_ends_is_an_end_to_the_backend() {
    run(BACKLOG, config(), scenarios::ends_by_sessions);
}

#[test]
fn the_connections_end_is_every_sessions() {
    run(BACKLOG, config(), scenarios::end_of_the_connection);
}

#[test]
fn pings_are_answered() {
    run(BACKLOG, yamux::Config { ping_interval_ms: 50, ..config() }, scenarios::pings);
}

#[test]
fn a_backend_that_only_listens_gets_all_its_streams() {
    run(BACKLOG, config(), scenarios::listeners);
}

#[test]
fn a_backend_that_goes_away_keeps_its_streams() {
    run(BACKLOG, config(), scenarios::going_away);
}

#[test]
fn refused_streams_are_told() {
    run(1, yamux::Config { unacked_max: 100_000, ..config() }, scenarios::refusals);
}

#[test]
fn a_hundred_thousand_streams_on_one_connection() {
    run(BACKLOG, config(), scenarios::crowd);
}

/// Real sessions: each begins with its PROXY header, which the backend insists on, and gets back all it says.
fn sessions_through_a_gateway(io: IoChoice, sessions: u32, load: Load) {
    let backend = Backend::start(BACKLOG, &["echo"]);
    let listeners = vec![Listener::new("127.0.0.1:0".parse().unwrap())];
    let mut config = Config { listeners, ..Config::default() };
    config.upstream.url = UpstreamUrl::parse(&format!("yamux://{}", backend.address)).unwrap();
    config.upstream.each.links = 1;
    config.upstream.each.check_interval_ms = 20;
    config.shards.count = Auto::Exactly(1);
    config.shards.pin = false;
    config.io.driver = io;
    config.admin.listen = None;
    let gateway = Gateway::start(config).unwrap();
    while gateway.status().not_ready.is_some() {
        std::thread::yield_now();
    }
    let sources = Sources::range("127.0.0.2".parse().unwrap(), 16);
    let mut scenario = Scenario::new(gateway.listen_addrs()[0], sessions, sources);
    scenario.engine.io = io;
    scenario.traffic.load = load;
    scenario.phases.ramp = Duration::from_secs(1) * sessions / 5000;
    scenario.phases.establish = Duration::from_secs(60);
    scenario.phases.warmup = Duration::ZERO;
    scenario.phases.duration = Duration::from_secs(5);
    scenario.phases.drain = Duration::from_secs(60);
    let report = kcp_loadgen::run(&scenario).unwrap();
    let (seed, counts) = (report.run.seed, report.counts);
    assert_eq!(report.failures(), Vec::<String>::new(), "seed {seed}: {counts:?}");
    let live = gateway.stats().shards.iter().map(|shard| shard.get(Stat::Sessions)).sum::<u64>();
    assert_eq!((live, counts.received), (u64::from(sessions), counts.sent), "seed {seed}");
    println!("{io:?}: {sessions} sessions, {} messages", counts.received);
    drop(gateway.stop());
}

#[test]
fn sessions_of_a_gateway_hear_what_they_said() {
    for io in [IoChoice::Uring, IoChoice::Epoll] {
        sessions_through_a_gateway(io, 500, Load::Closed { outstanding: 2 });
    }
}

#[test]
fn a_hundred_thousand_sessions_of_a_gateway_on_one_connection() {
    let load = Load::Open { period: Duration::from_secs(4) };
    sessions_through_a_gateway(IoChoice::Uring, 100_000, load);
}

/// The backend's process; it ends with its standard input.
struct Backend {
    child: Child,
    address: String,
}

impl Backend {
    fn start(backlog: u32, words: &[&str]) -> Self {
        let mut child = Command::new(&*PROGRAM)
            .arg(backlog.to_string())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it was just built");
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim().to_owned() }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait();
        if !std::thread::panicking() {
            assert!(status.unwrap().success(), "the backend found something wrong");
        }
    }
}

/// Compiled once, against the sources that Debian's package puts under `GOPATH`.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/interop/go-yamux");
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("go-yamux");
    let output = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(source)
        .envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode"), ("GOFLAGS", "")])
        .env("GOCACHE", program.with_extension("cache")) // go's own place needs a home directory
        .output()
        .unwrap_or_else(|error| panic!("cannot run go: {error}; {INSTALL}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the backend does not build; {INSTALL}\n{complaint}");
    program
});

const INSTALL: &str = "install golang-go and golang-github-hashicorp-yamux-dev (apt-get install)";
