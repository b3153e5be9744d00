//! Prometheus's own checker on what a live gateway exports.
//!
//! Needs `promtool`; without it it fails and says so.
#![expect(clippy::expect_used, reason = "a step that cannot be taken fails the test")]

mod live;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use kcp_gateway::Config;

#[test]
fn promtool_has_no_complaint() {
    for io in live::DRIVERS {
        let gateway = live::start(Config::default(), io);
        let metrics = scrape(gateway.admin_addr().expect("the admin server is on"));
        assert!(metrics.contains("kcp_gateway_"), "nothing of ours in\n{metrics}");
        let complaint = check(&metrics);
        assert!(complaint.is_empty(), "on {io:?}:\n{complaint}");
    }
}

/// The body of `GET /metrics`.
fn scrape(admin: SocketAddr) -> String {
    let mut connection = TcpStream::connect(admin).expect("the admin server listens");
    connection.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout can be set");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).expect("the admin server reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("the admin server answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(!head.to_lowercase().contains("transfer-encoding"), "not a plain body: {head}");
    body.to_owned()
}

/// What `promtool check metrics` says.
fn check(metrics: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("cannot run promtool: {error}; install prometheus (apt-get install)")
        });
    let mut stdin = promtool.stdin.take().expect("it was piped");
    stdin.write_all(metrics.as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("promtool ends");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success() || !text.is_empty(), "promtool failed without a word");
    text
}
