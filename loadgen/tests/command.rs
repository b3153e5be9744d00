//! The binary as a user meets it: exit codes, files, lines, signals.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use kcp_gateway::config::{Auto, Listener};
use kcp_gateway::{Config, Gateway};

#[test]
fn a_sound_run_is_0_with_its_report_in_the_file() {
    let gateway = gateway();
    let json = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sound.json");
    let output = load(&gateway, &["--check", "p99<60s", "--json", json.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(value["established"], 10);
    assert_eq!(value["lost"], 0);
    assert_eq!(value["checks"][0]["ok"], true);
    let command = value["run"]["command"].as_str().unwrap();
    assert!(command.contains("--sessions 10"), "{command}");
    let table = text(&output.stdout);
    assert!(table.contains("10 of 10 established") && table.contains("check ok"), "{table}");
    let progress = text(&output.stderr);
    assert!(progress.contains(" sessions | ") && !progress.contains('\u{1b}'), "{progress}");
}

#[test]
fn a_check_that_is_not_met_is_3() {
    let output = load(&gateway(), &["--check", "sent<1", "--check", "lost=0"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let table = text(&output.stdout);
    assert!(
        table.contains("CHECK FAILS sent<1") && table.contains("check ok    lost=0"),
        "{table}"
    );
}

#[test]
fn bad_usage_is_2_and_names_the_flag() {
    for (arguments, part) in [
        (vec!["run"], "--target"),
        (vec!["run", "--target", "127.0.0.1:9", "--size", "0"], "--size 0"),
        (vec!["run", "--target", "127.0.0.1:9", "--check", "p98<1ms"], "p98"),
        (vec!["run", "--target", "127.0.0.1"], "--target 127.0.0.1"),
        (vec!["demo", "--sessions", "0"], "--sessions"),
        (vec!["impair", "--listen", "x", "--target", "127.0.0.1:9"], "--listen x"),
        (vec!["serve", "--behaviour", "crash"], "--after"),
        (vec!["storm"], "storm"),
    ] {
        let output = command(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(text(&output.stderr).contains(part), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn what_cannot_run_is_1_and_says_why() {
    let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = holder.local_addr().unwrap().to_string();
    let run = ["run", "--target", &silent, "--sessions", "1", "--establish-timeout", "100ms"];
    let output = command(&run).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("no session was established"), "{output:?}");
    let output = command(&[&run[..], &["--json", "/nowhere/x.json"]].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("--json /nowhere/x.json"), "{output:?}");
}

/// What Debian allows a process is enough for many sessions on few sockets, and where it is not, the limit is named.
#[test]
fn stock_limits_suffice_or_the_one_to_raise_is_named() {
    let gateway = gateway();
    let target = gateway.listen_addrs()[0].to_string();
    let under = |limits: [&str; 2]| {
        let mut command = Command::new("prlimit");
        command.args(limits).arg(env!("CARGO_BIN_EXE_kcp-loadgen"));
        command.args(["run", "--target", &target, "--sessions", "500", "--sockets", "64"]);
        command.args(["--rate", "1", "--duration", "100ms", "--warmup", "0s"]);
        command.output().unwrap()
    };
    let output = under(["--nofile=1024:1024", "--memlock=8388608:8388608"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("500 of 500 established, 64 sockets"), "{output:?}");
    let output = under(["--nofile=100:100", "--memlock=8388608:8388608"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("136 open files") && said.contains("ulimit -Hn 136"), "{said}");
}

#[test]
fn a_signal_ends_the_run_with_a_report() {
    let gateway = gateway();
    let mut child = spawn(&run_arguments(&gateway, &["--duration", "1h", "--progress", "lines"]));
    let lines = BufReader::new(child.stderr.take().unwrap());
    wait_for_line(lines, "load ");
    let output = interrupt(child);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let table = text(&output.stdout);
    assert!(table.contains("FAILED      interrupted") && table.contains("0 lost"), "{table}");
}

#[test]
fn impair_prints_where_it_listens_and_forwards_until_a_signal() {
    let gateway = gateway();
    let target = gateway.listen_addrs()[0].to_string();
    let flags = ["impair", "--listen", "127.0.0.1:0", "--target", &target, "--delay", "1ms"];
    let mut child = spawn(&flags);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    let listen = first.split([' ', ',']).nth(2).unwrap();
    let listen: SocketAddr = listen.parse().unwrap();
    let output = command(&[
        "run",
        "--target",
        &listen.to_string(),
        "--sessions",
        "3",
        "--duration",
        "100ms",
    ])
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = interrupt(child);
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(rest.contains("clients  3 seen"), "{rest}");
}

#[test]
fn serve_prints_where_it_listens_and_what_happened() {
    let json = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("serve.json");
    let flags = ["serve", "--listen", "127.0.0.1:0", "--proxy", "none", "--framing", "none"];
    let mut child = spawn(&[&flags[..], &["--json", json.to_str().unwrap()]].concat());
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    let addr = first.split([' ', ',']).nth(2).unwrap();
    let mut client = TcpStream::connect(addr).unwrap();
    client.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    let output = interrupt(child);
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(rest.contains("sessions    1 began, 1 open"), "{rest}");
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!((&value["bytes_in"], &value["bytes_out"]), (&5.into(), &5.into()));
}

fn gateway() -> Gateway {
    let listeners = vec![Listener::new("127.0.0.1:0".parse().unwrap())];
    let mut config = Config { listeners, ..Config::default() };
    config.admin.listen = None;
    config.shards.count = Auto::Exactly(1);
    config.shards.pin = false;
    Gateway::start(config).unwrap()
}

fn load(gateway: &Gateway, more: &[&str]) -> Output {
    let arguments = [&["--duration", "100ms", "--warmup", "0s"], more].concat();
    command(&run_arguments(gateway, &arguments)).output().unwrap()
}

fn run_arguments(gateway: &Gateway, more: &[&str]) -> Vec<String> {
    let target = gateway.listen_addrs()[0].to_string();
    ["run", "--target", &target, "--sessions", "10", "--rate", "20"]
        .into_iter()
        .chain(more.iter().copied())
        .map(str::to_owned)
        .collect()
}

fn command<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kcp-loadgen"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn spawn<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Child {
    command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Reads on a thread to the end, so that the child never blocks on a full pipe.
fn wait_for_line(lines: BufReader<ChildStderr>, part: &'static str) {
    let (found, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            if line.contains(part) {
                let _ = found.send(());
            }
        }
    });
    wait.recv().unwrap();
}

fn interrupt(child: Child) -> Output {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(sent.success());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
