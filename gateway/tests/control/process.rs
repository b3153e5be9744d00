//! The program as its operator sees it: signals, exit codes, messages.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::client::Client;
use crate::http::{get, sample, total};

/// Longer than anything here takes, shorter than a patient person waits.
const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kcp-gateway"));
    command.env_clear();
    command
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A running gateway whose log is read line by line.
struct Running {
    child: Mortal,
    log: BufReader<ChildStderr>,
    listener: SocketAddr,
    admin: SocketAddr,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let ports = ["--admin", "127.0.0.1:0", "--log-format", "json", "--shards", "1"];
        let mut child = Mortal(command.args(ports).stderr(Stdio::piped()).spawn().unwrap());
        let mut log = BufReader::new(child.0.stderr.take().unwrap());
        let serving = next(&mut log, "serving");
        let addr = |name: &str| serving[name].as_str().unwrap().parse().unwrap();
        Self { listener: addr("listeners"), admin: addr("admin"), child, log }
    }

    fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.child.0.id());
        assert!(Command::new("/bin/sh").args(["-c", &script]).status().unwrap().success());
    }

    /// The next event with this message.
    fn event(&mut self, message: &str) -> Value {
        next(&mut self.log, message)
    }

    /// Waits for the end, which must come by itself; also returns what was logged until then.
    fn end(self) -> (ExitStatus, String) {
        let Self { mut child, mut log, .. } = self;
        let (say, ended) = mpsc::channel();
        let id = child.0.id();
        thread::spawn(move || {
            let mut rest = String::new();
            log.read_to_string(&mut rest).unwrap();
            let _ = say.send((child.0.wait().unwrap(), rest));
        });
        ended.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            let _ = Command::new("/bin/sh").args(["-c", &format!("kill -KILL {id}")]).status();
            panic!("the gateway did not end");
        })
    }
}

/// A child that does not outlive its test.
struct Mortal(Child);

impl Drop for Mortal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn next(log: &mut BufReader<ChildStderr>, message: &str) -> Value {
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "the log ended before {message:?}");
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        if event["message"] == message {
            return event;
        }
    }
}

fn loopback() -> Command {
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0"]);
    command
}

#[test]
fn sessions_leave_the_operator_his_files() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = backend.local_addr().unwrap();
    let _keeper = thread::spawn(move || backend.incoming().collect::<Vec<_>>());
    let script = "ulimit -n 160; exec \"$0\" \"$@\"";
    let upstream = format!("tcp://{addr}");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_kcp-gateway")]);
    shell.args(["--listen", "127.0.0.1:0", "--upstream", &upstream]);
    let gateway = Running::start(&mut shell);
    let sum = |name: &str| total(&get(gateway.admin, "/metrics").body, name);
    while sum("kcp_gateway_backend_up") < 1.0 {}
    let clients: Vec<_> = (1..=160).map(|conv| Client::new(gateway.listener, conv)).collect();
    clients.iter().for_each(Client::knock);
    while sum("kcp_gateway_backend_sessions") < 80.0 || sum("kcp_gateway_sessions_waiting") < 80.0 {
    }
    let checks = sum("kcp_gateway_backend_checks_total");
    while sum("kcp_gateway_backend_checks_total") < checks + 2.0 {}
    assert_eq!(sum("kcp_gateway_backend_sessions"), 80.0, "half of the files");
    assert_eq!(sum("kcp_gateway_backend_up"), 1.0, "its checks get through");
}

#[test]
fn term_without_sessions_ends_at_once() {
    for signal in ["TERM", "INT"] {
        let gateway = Running::start(&mut loopback());
        gateway.signal(signal);
        let (status, log) = gateway.end();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("the last session has ended") && log.contains("stopped"), "{log}");
    }
}

#[test]
fn term_gives_live_sessions_their_time() {
    let mut gateway = Running::start(loopback().env("KCP_GATEWAY__DRAIN__TIMEOUT_S", "3"));
    Client::new(gateway.listener, 1).establish();
    gateway.signal("TERM");
    gateway.event("draining");
    assert_eq!(get(gateway.admin, "/readyz").status, 503);
    let drain = loop {
        let drain = get(gateway.admin, "/api/v1/status").json()["drain"].clone();
        // Told a moment after the drain began.
        if !drain["ends_in_s"].is_null() {
            break drain;
        }
    };
    assert_eq!((&drain["sessions_before"], &drain["sessions_left"]), (&1.into(), &1.into()));
    assert!(drain["ends_in_s"].as_u64().unwrap() <= 3, "{drain}");
    let (status, log) = gateway.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("drain.timeout_s is up") && log.contains("\"sessions_ended\":1"), "{log}");
}

#[test]
fn a_second_term_stops_now() {
    let mut gateway = Running::start(loopback().env("KCP_GATEWAY__DRAIN__TIMEOUT_S", "86400"));
    Client::new(gateway.listener, 1).establish();
    gateway.signal("TERM");
    gateway.event("draining");
    assert_eq!(get(gateway.admin, "/readyz").status, 503);
    gateway.signal("TERM");
    let (status, log) = gateway.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("asked again: ending what is left"), "{log}");
}

#[test]
fn health_asks_the_gateway_that_runs() {
    let gateway = Running::start(&mut loopback());
    let ask = || run(program().args(["health", "--admin", &gateway.admin.to_string()]));
    assert_eq!(ask().status.code(), Some(0));
    gateway.signal("STOP");
    let silent = ask();
    gateway.signal("CONT");
    assert_eq!(silent.status.code(), Some(1), "{}", text(&silent.stderr));
    let nobody = run(program().args(["health", "--admin", "off"]));
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("admin.listen is off"), "{}", text(&nobody.stderr));
}

#[test]
fn hup_reloads_a_good_file_and_survives_a_broken_one() {
    let path =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("hup-{}.toml", std::process::id()));
    let write = |text: &str| {
        std::fs::write(&path, format!("[[listener]]\naddr = \"127.0.0.1:0\"\n{text}")).unwrap();
    };
    write("");
    let mut gateway = Running::start(program().arg("--config").arg(&path));
    write("[session]\nidle_timeout_s = 7\n");
    gateway.signal("HUP");
    let reloaded = gateway.event("reloaded");
    assert_eq!(reloaded["changed"], "session.idle_timeout_s (300 -> 7)");
    write("[session\n");
    gateway.signal("HUP");
    let kept = gateway.event("reload changed nothing; the old configuration stays");
    assert!(kept["error"].as_str().unwrap().contains(".toml:3:"), "{kept}");
    let metrics = get(gateway.admin, "/metrics").body;
    assert_eq!(sample(&metrics, "kcp_gateway_config_last_reload_successful"), 0.0);
    let config = get(gateway.admin, "/api/v1/config").json();
    assert_eq!(config["config"]["session"]["idle_timeout_s"], 7);
    Client::new(gateway.listener, 1).establish();
    gateway.signal("TERM");
    gateway.signal("TERM");
    assert_eq!(gateway.end().0.code(), Some(0));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_watched_file_is_taken_when_it_changes() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("watch-{}.toml", std::process::id()));
    let write = |text: &str| {
        let whole = format!("[reload]\nwatch_s = 1\n[[listener]]\naddr = \"127.0.0.1:0\"\n{text}");
        std::fs::write(&path, whole).unwrap();
    };
    write("");
    let mut gateway = Running::start(program().arg("--config").arg(&path));
    write("[session]\nidle_timeout_s = 7\n");
    let reloaded = gateway.event("reloaded");
    assert_eq!(reloaded["changed"], "session.idle_timeout_s (300 -> 7)");
    assert_eq!(reloaded["generation"], 1);
    write("[session]\nidle_timeout_s = soon\n");
    let kept = gateway.event("reload changed nothing; the old configuration stays");
    assert!(kept["error"].as_str().unwrap().contains(".toml:6:18: "), "{kept}");
    let reloads = get(gateway.admin, "/api/v1/status").json()["reloads"].clone();
    assert_eq!((&reloads["generation"], &reloads["broken"]), (&1.into(), &1.into()));
    let metrics = get(gateway.admin, "/metrics").body;
    assert_eq!(sample(&metrics, "kcp_gateway_config_generation"), 1.0);
    assert_eq!(sample(&metrics, "kcp_gateway_config_last_reload_successful"), 0.0);
    gateway.signal("TERM");
    assert_eq!(gateway.end().0.code(), Some(0));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn the_start_up_block_says_what_runs() {
    let mut child = loopback()
        .args(["--admin", "127.0.0.1:0", "--io", "epoll"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let block: Vec<String> = lines.by_ref().take_while(|line| !line.contains("stop  ")).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let block = block.join("\n");
    for part in [
        "kcp-gateway ",
        "driver    epoll: as configured",
        "listen    127.0.0.1:",
        "http://127.0.0.1:",
        "sessions",
        "kcp-loadgen run --target 127.0.0.1:",
    ] {
        assert!(block.contains(part), "{part:?} in {block}");
    }
}

#[test]
fn a_start_that_fails_exits_1_with_one_line() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let output = run(program().args(["--listen", &taken, "--admin", "off"]));
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.contains(&taken) && message.contains("ss -ulpn"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

/// As a supervisor does it that restarts what has died.
#[test]
fn a_successor_of_a_killed_gateway_has_its_port() {
    let mut gateway = Running::start(&mut loopback());
    let addr = gateway.listener;
    for round in 0..5 {
        Client::new(addr, round + 1).establish();
        gateway.signal("KILL");
        drop(gateway);
        gateway = Running::start(program().args(["--listen", &addr.to_string()]));
    }
    gateway.signal("TERM");
    assert_eq!(gateway.end().0.code(), Some(0));
}

/// From almost no descriptors upwards: each start serves or ends with the limit's name, none hangs or half starts.
#[test]
fn too_few_descriptors_are_named() {
    let mut refused = 0;
    for limit in 6..40 {
        let binary = env!("CARGO_BIN_EXE_kcp-gateway");
        let script = format!(
            "ulimit -n {limit}; exec {binary} --listen 127.0.0.1:0 --admin 127.0.0.1:0 --shards 1 --io epoll"
        );
        let mut child = Command::new("/bin/sh")
            .args(["-c", &script])
            .env_clear()
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let lines: Vec<String> = log.by_ref().take_while(|line| !line.contains("stop  ")).collect();
        // What is still running reached the end of its start-up block.
        if let Some(status) = child.try_wait().unwrap().or_else(|| {
            let started = lines.iter().any(|line| line.contains("http://"));
            if started { None } else { child.wait().ok() }
        }) {
            refused += 1;
            assert_eq!(status.code(), Some(1), "{limit}: {lines:?}");
            let last = lines.last().unwrap();
            assert!(last.contains("LimitNOFILE"), "{limit}: {lines:?}");
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(refused > 0, "started with {limit} descriptors; the limit did not hold");
        return;
    }
    panic!("40 descriptors were not enough");
}

#[test]
fn bad_configuration_exits_2_with_its_place() {
    let path =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("bad-{}.toml", std::process::id()));
    std::fs::write(&path, "[kcp]\nmtu = 7\n").unwrap();
    let place = format!("{}:2:7: `kcp.mtu` is 7; write 50 to 65000 bytes\n", path.display());
    for command in [&["check"][..], &["run"], &[]] {
        let output = run(program().args(command).arg("--config").arg(&path));
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(text(&output.stderr), place);
    }
    std::fs::write(&path, "[kcp]\nmtu = 700\n").unwrap();
    let output = run(program().args(["check", "--config"]).arg(&path));
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "the configuration is good\n")
    );
    let output = run(program().env("KCP_GATEWAY__KCP__MTU", "x").arg("check"));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("KCP_GATEWAY__KCP__MTU: "));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(run(program().arg("--bogus")).status.code(), Some(2));
}

#[test]
fn doctor_speaks_both_ways() {
    let table = run(program().arg("doctor"));
    let json = run(program().args(["doctor", "--json"]));
    let value: Value = serde_json::from_slice(&json.stdout).unwrap();
    let code = if value["fit"] == true { Some(0) } else { Some(1) };
    assert_eq!((table.status.code(), json.status.code()), (code, code));
    for finding in value["findings"].as_array().unwrap() {
        assert!(text(&table.stdout).contains(finding["name"].as_str().unwrap()));
    }
    // 256 shards need more descriptors than this leaves.
    let script =
        format!("ulimit -n 100; exec {} doctor --shards 256", env!("CARGO_BIN_EXE_kcp-gateway"));
    let poor = run(Command::new("/bin/sh").args(["-c", &script]));
    assert_eq!(poor.status.code(), Some(1));
    assert!(text(&poor.stdout).contains("LimitNOFILE="), "{}", text(&poor.stdout));
}
