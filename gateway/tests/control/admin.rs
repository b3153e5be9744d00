//! The admin port of a gateway, on both drivers.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use kcp_gateway::config::{Auto, Config, Listener, Source};
use kcp_gateway::shard::stats::{DropReason, EndReason};
use kcp_gateway::{Gateway, Lifecycle};
use net_io::IoChoice;
use serde_json::json;

use crate::client::Client;
use crate::http::{connect, get, post, sample, send, total};

const DRIVERS: [(IoChoice, &str); 2] = [(IoChoice::Uring, "uring"), (IoChoice::Epoll, "epoll")];

pub(crate) fn config(driver: IoChoice) -> Config {
    let listeners = vec![Listener::new("127.0.0.1:0".parse().unwrap())];
    let mut config = Config { listeners, ..Config::default() };
    config.admin.listen = Some("127.0.0.1:0".parse().unwrap());
    config.io.driver = driver;
    config.shards.count = Auto::Exactly(2);
    config.shards.pin = false;
    config
}

fn start(driver: IoChoice) -> (Gateway, SocketAddr) {
    let gateway = Gateway::start(config(driver)).unwrap();
    let admin = gateway.admin_addr().unwrap();
    (gateway, admin)
}

/// Asks until `condition` holds of the exposition. Ends with the test's own time limit if it never does.
pub(crate) fn metrics_until(admin: SocketAddr, condition: impl Fn(&str) -> bool) -> String {
    loop {
        let text = get(admin, "/metrics").body;
        if condition(&text) {
            return text;
        }
    }
}

#[test]
fn status_and_metrics_tell_what_happened() {
    for (driver, name) in DRIVERS {
        let (gateway, admin) = start(driver);
        for conv in 1..=10 {
            Client::new(gateway.listen_addrs()[0], conv).establish();
        }
        let status = get(admin, "/api/v1/status");
        assert_eq!(status.status, 200);
        let status = status.json();
        assert_eq!(status["driver"], name);
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!((&status["shards"], &status["sessions"]), (&json!(2), &json!(10)));
        assert_eq!((&status["state"], &status["ready"]), (&json!("serve"), &json!(true)));
        assert!(status["driver_reason"].as_str().unwrap().contains("epoll") == (name == "epoll"));
        assert!(status["uptime_s"].is_u64());

        let response = get(admin, "/metrics");
        assert!(response.head.contains("content-type: text/plain; version=0.0.4"), "{response:?}");
        let text = response.body;
        assert_eq!(total(&text, "kcp_gateway_sessions"), 10.0);
        assert_eq!(total(&text, "kcp_gateway_sessions_started_total"), 10.0);
        assert_eq!(total(&text, "kcp_gateway_messages_received_total"), 10.0);
        assert_eq!(total(&text, "kcp_gateway_message_received_bytes_total"), 50.0);
        assert_eq!(sample(&text, "kcp_gateway_state{state=\"serve\"}"), 1.0);
        assert_eq!(sample(&text, "kcp_gateway_ready"), 1.0);
        assert_eq!(total(&text, "kcp_gateway_driver_info"), 1.0);
        assert!(text.contains(&format!("kcp_gateway_driver_info{{driver=\"{name}\"")), "{text}");
        assert!(total(&text, "process_resident_memory_bytes") > 1e6);

        let shards = get(admin, "/api/v1/shards").json();
        let births = |i: usize| shards[i]["stats"]["births"].as_u64().unwrap();
        assert_eq!(births(0) + births(1), 10);
        assert_eq!(gateway.status().sessions, 10);
    }
}

/// Every line is a comment or a sample; every sample follows its family's HELP and TYPE; no series comes twice.
#[test]
fn the_exposition_is_well_formed() {
    let (_gateway, admin) = start(IoChoice::Auto);
    let text = get(admin, "/metrics").body;
    let mut series = std::collections::BTreeSet::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(!words.is_empty());
            family = name.into();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let plain = name.split('{').next().unwrap();
            let of_histogram = ["_bucket", "_sum", "_count"].map(|part| format!("{family}{part}"));
            assert!(plain == family || of_histogram.iter().any(|name| name == plain), "{line}");
            value.parse::<f64>().unwrap();
            assert!(series.insert(name), "{name} twice");
        }
    }
    assert!(series.len() > 100, "{} series", series.len());
}

#[test]
fn drain_refuses_new_sessions_until_undrain() {
    for (driver, _) in DRIVERS {
        let (gateway, admin) = start(driver);
        let listener = gateway.listen_addrs()[0];
        Client::new(listener, 1).establish();
        assert_eq!((get(admin, "/readyz").status, get(admin, "/healthz").status), (200, 200));

        assert_eq!(post(admin, "/api/v1/drain").json()["state"], "drain");
        let unready = get(admin, "/readyz");
        assert_eq!(unready.status, 503);
        assert_eq!(unready.json()["error"], "draining: new sessions are refused");
        assert_eq!(get(admin, "/healthz").status, 200);
        let refused = Client::new(listener, 2);
        refused.knock();
        metrics_until(admin, |text| {
            let drained =
                |shard| format!("kcp_gateway_drops_total{{shard=\"{shard}\",reason=\"draining\"}}");
            sample(text, &drained(0)) + sample(text, &drained(1)) == 1.0
        });
        assert_eq!(gateway.stats().drops(DropReason::Draining), 1);
        assert_eq!(gateway.status().sessions, 1);

        assert_eq!(post(admin, "/api/v1/undrain").json()["state"], "serve");
        assert_eq!(get(admin, "/readyz").status, 200);
        refused.establish();
    }
}

#[test]
fn what_is_not_there_is_a_json_error() {
    let (_gateway, admin) = start(IoChoice::Auto);
    for (response, status) in [
        (get(admin, "/nothing"), 404),
        (get(admin, "/api/v1/drain"), 405),
        (post(admin, "/metrics"), 405),
        (post(admin, "/api/v1/reload"), 409),
    ] {
        assert_eq!(response.status, status, "{response:?}");
        assert!(response.json()["error"].is_string(), "{response:?}");
    }
}

#[test]
fn pages_of_other_sites_change_nothing() {
    let (gateway, admin) = start(IoChoice::Auto);
    let ask = |origin: &str| {
        let request = format!(
            "POST /api/v1/drain HTTP/1.1\r\nhost: {admin}\r\norigin: {origin}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        send(admin, &request).status
    };
    for origin in ["http://evil.example", "null", "https://127.0.0.1"] {
        assert_eq!(ask(origin), 403, "{origin}");
    }
    assert_eq!(gateway.status().state, Lifecycle::Serve.label());
    assert_eq!(ask(&format!("http://{admin}")), 200);
    assert_eq!(gateway.status().state, Lifecycle::Drain.label());
}

#[test]
fn requests_are_bounded() {
    let (_gateway, admin) = start(IoChoice::Auto);
    let long = "x".repeat(32 << 10);
    let request = format!("GET /metrics HTTP/1.1\r\nhost: a\r\nx-long: {long}\r\n\r\n");
    assert_eq!(send(admin, &request).status, 431);
    assert_eq!(send(admin, "no http at all\r\n\r\n").status, 400);
    assert_eq!(get(admin, "/healthz").status, 200);
}

#[test]
fn connections_beyond_the_bound_wait_their_turn() {
    let mut config = config(IoChoice::Auto);
    config.admin.connections_max = 1;
    let gateway = Gateway::start(config).unwrap();
    let admin = gateway.admin_addr().unwrap();
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {admin}\r\n\r\n");
    let mut first = connect(admin);
    let mut second = connect(admin);
    let mut byte = [0];
    first.write_all(request.as_bytes()).unwrap();
    first.read_exact(&mut byte).unwrap();
    second.write_all(request.as_bytes()).unwrap();
    second.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(second.read_exact(&mut byte).is_err(), "served although the only place is taken");
    drop(first);
    second.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    second.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"H");
}

/// A file that is removed with the test.
pub(crate) struct File(PathBuf);

impl File {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let file = Self(dir.join(format!("{name}-{}.toml", std::process::id())));
        file.write(text);
        file
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }

    pub(crate) fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn reload_applies_all_or_nothing() {
    let text = |rest: &str| {
        format!(
            "[[listener]]\naddr = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[shards]\ncount = 1\n{rest}"
        )
    };
    let file = File::new("reload", &text(""));
    let source = Source { file: Some(file.0.clone()), ..Source::default() };
    let gateway = Gateway::start_with(source.load().unwrap(), source).unwrap();
    let (admin, listener) = (gateway.admin_addr().unwrap(), gateway.listen_addrs()[0]);
    let outcomes = || {
        let text = get(admin, "/metrics").body;
        let count = |outcome: &str| {
            sample(&text, &format!("kcp_gateway_config_reloads_total{{outcome=\"{outcome}\"}}"))
        };
        let ok = sample(&text, "kcp_gateway_config_last_reload_successful");
        (count("applied"), count("refused"), count("broken"), ok)
    };
    let sessions_max = || get(admin, "/api/v1/config").json()["config"]["session"]["max"].clone();
    Client::new(listener, 1).establish();

    file.write(&text("[session]\nmax = 1\n"));
    let changed = post(admin, "/api/v1/reload").json()["changed"].clone();
    assert_eq!(changed, json!([{ "key": "session.max", "from": "auto", "to": 1 }]));
    assert_eq!(outcomes(), (1.0, 0.0, 0.0, 1.0));
    assert_eq!(gateway.status().sessions_max, 1);
    // The shard has it: the one place is taken.
    Client::new(listener, 2).knock();
    let full = "kcp_gateway_drops_total{shard=\"0\",reason=\"session_cap\"}";
    metrics_until(admin, |text| sample(text, full) == 1.0);

    file.write(&text("[session]\nmax = none\n"));
    let broken = post(admin, "/api/v1/reload");
    assert_eq!(broken.status, 422);
    let error = broken.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains(".toml:8:7: "), "{error}");
    assert_eq!(get(admin, "/api/v1/status").json()["reloads"]["last_error"], error);
    assert_eq!((outcomes(), sessions_max()), ((1.0, 0.0, 1.0, 0.0), json!(1)));

    file.write(&text("[session]\nmax = 2\n[io]\nbuffers = 512\n"));
    let refused = post(admin, "/api/v1/reload");
    assert_eq!(refused.status, 409);
    assert_eq!(refused.json()["error"], "needs a restart: io.buffers (1024 -> 512)");
    assert_eq!((outcomes(), sessions_max()), ((1.0, 1.0, 1.0, 0.0), json!(1)));

    file.write(&text("[session]\nmax = 2\n"));
    assert_eq!(post(admin, "/api/v1/reload").status, 200);
    assert_eq!((outcomes(), sessions_max()), ((2.0, 1.0, 1.0, 1.0), json!(2)));
    Client::new(listener, 3).establish();
}

#[test]
fn sessions_are_listed_described_and_closed() {
    for (driver, _) in DRIVERS {
        let (gateway, admin) = start(driver);
        let clients: Vec<Client> =
            (1..=20).map(|conv| Client::new(gateway.listen_addrs()[0], conv)).collect();
        clients.iter().for_each(Client::establish);

        let mut convs = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = get(admin, &format!("/api/v1/sessions?limit=7{cursor}")).json();
            let sessions = page["sessions"].as_array().unwrap();
            convs.extend(sessions.iter().map(|s| s["conv"].as_u64().unwrap()));
            match page["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        convs.sort_unstable();
        assert_eq!(convs, (1..=20).collect::<Vec<u64>>(), "each once, over all pages and shards");

        let all = get(admin, "/api/v1/sessions?sort=rtt&limit=20").json();
        let slowest: Vec<u64> = all["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["rtt"]["srtt_ms"].as_u64().unwrap())
            .collect();
        assert!(slowest.len() == 20 && slowest.is_sorted_by(|a, b| a >= b), "{slowest:?}");

        let address = clients[4].address();
        let found = get(admin, &format!("/api/v1/sessions?address={address}&backend=echo")).json();
        assert_eq!(found["sessions"].as_array().unwrap().len(), 1);
        let session = &found["sessions"][0];
        assert_eq!((&session["conv"], &session["address"]), (&json!(5), &json!(address)));
        assert_eq!(
            get(admin, "/api/v1/sessions?conv=0x5").json()["sessions"][0]["id"],
            session["id"]
        );
        let nobody = get(admin, "/api/v1/sessions?backend=nobody").json();
        assert_eq!(nobody["sessions"], json!([]));

        let path = format!("/api/v1/sessions/{}", session["id"].as_str().unwrap());
        let inside = get(admin, &path).json();
        assert_eq!(inside["counters"]["segments_received"], 1);
        assert_eq!(inside["windows"]["receive"], 256);
        assert_eq!(post(admin, &format!("{path}/close")).json()["conv"], 5);
        assert_eq!(
            (get(admin, &path).status, post(admin, &format!("{path}/close")).status),
            (404, 404)
        );
        assert_eq!(gateway.stats().ends(EndReason::Operator), 1);
        assert_eq!(gateway.status().sessions, 19);

        for path in
            ["/api/v1/sessions?sort=age", "/api/v1/sessions?colour=red", "/api/v1/sessions/x"]
        {
            let refused = get(admin, path);
            assert_eq!(refused.status, 400, "{refused:?}");
            assert!(refused.json()["error"].is_string(), "{refused:?}");
        }
        assert_eq!(get(admin, "/api/v1/sessions/99-0-0").status, 404);
    }
}
