//! The multiplexer against HashiCorp's own library, unchanged, as a backend over TCP.
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
use kcp_gateway::upstream::yamux::Config;
use tokio::net::TcpStream;

/// Streams that the library takes before its application accepts them: its default.
const BACKLOG: u32 = 256;

fn run<S: AsyncFnOnce(&mut Gate)>(backlog: u32, config: Config, scenario: S) {
    let backend = Backend::start(backlog);
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
    let config = Config { window: 1 << 20, ..config() };
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
    run(BACKLOG, Config { ping_interval_ms: 50, ..config() }, scenarios::pings);
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
    run(1, Config { unacked_max: 100_000, ..config() }, scenarios::refusals);
}

#[test]
fn a_hundred_thousand_streams_on_one_connection() {
    run(BACKLOG, config(), scenarios::crowd);
}

/// The backend's process; it ends with its standard input.
struct Backend {
    child: Child,
    address: String,
}

impl Backend {
    fn start(backlog: u32) -> Self {
        let mut child = Command::new(&*PROGRAM)
            .arg(backlog.to_string())
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
