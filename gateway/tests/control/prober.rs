//! The gateway as its own client: what its operator sees of it, and that nothing else shows it.

use std::net::SocketAddr;

use kcp_gateway::Gateway;
use kcp_gateway::config::{Auto, Config, Steer};
use kcp_gateway::shard::stats::{EndReason, Stat};
use net_io::IoChoice;
use serde_json::{Value, json};

use crate::admin::{config, metrics_until};
use crate::client::Client;
use crate::http::{get, post, sample, total};

const ROUNDS: &str = "kcp_gateway_probes_total";

fn start(driver: IoChoice, change: impl FnOnce(&mut Config)) -> (Gateway, SocketAddr, SocketAddr) {
    let mut config = config(driver);
    config.probe.interval_s = 1;
    change(&mut config);
    let gateway = Gateway::start(config).unwrap();
    let (listener, admin) = (gateway.listen_addrs()[0], gateway.admin_addr().unwrap());
    (gateway, listener, admin)
}

fn rounds(listener: SocketAddr, outcome: &str) -> String {
    format!("{ROUNDS}{{listener=\"{listener}\",outcome=\"{outcome}\"}}")
}

fn after(admin: SocketAddr, listener: SocketAddr, outcome: &str, count: f64) -> String {
    metrics_until(admin, |text| {
        text.contains(ROUNDS) && sample(text, &rounds(listener, outcome)) >= count
    })
}

#[test]
fn a_probe_succeeds_and_no_player_metric_shows_it() {
    let changes: [fn(&mut Config); 4] = [
        |_| {},
        |config| config.listeners[0].addr = "0.0.0.0:0".parse().unwrap(),
        |config| config.kcp.steer = Steer::Address,
        |config| config.kcp.stream = true,
    ];
    for driver in [IoChoice::Uring, IoChoice::Epoll] {
        for change in changes {
            let (gateway, listener, admin) = start(driver, change);
            let text = after(admin, listener, "succeeded", 2.0);
            assert_eq!(sample(&text, &rounds(listener, "failed")), 0.0);
            let of_listener =
                |name: &str| sample(&text, &format!("{name}{{listener=\"{listener}\"}}"));
            assert_eq!(of_listener("kcp_gateway_probe_success"), 1.0);
            let seconds = of_listener("kcp_gateway_probe_duration_seconds");
            assert!(seconds > 0.0 && seconds < 2.0, "{seconds}");
            assert!(of_listener("kcp_gateway_probe_last_success_timestamp_seconds") > 1e9);
            assert!(total(&text, "kcp_gateway_probe_sessions_total") >= 2.0);

            let stats = gateway.stats();
            for stat in [Stat::Births, Stat::Sessions, Stat::MessagesIn, Stat::Tombstones] {
                assert_eq!(stats.get(stat), 0, "{stat:?}");
            }
            assert_eq!(stats.ends(EndReason::Operator), 0);
            assert_eq!(get(admin, "/api/v1/sessions").json()["sessions"], json!([]));
            let ready = get(admin, "/readyz");
            assert!(ready.status == 200 && ready.body.contains("answered in"), "{ready:?}");
            let status = get(admin, "/api/v1/status").json();
            assert_eq!(
                (&status["probes"][0]["error"], &status["sessions"]),
                (&Value::Null, &json!(0))
            );
        }
    }
}

#[test]
fn a_full_gateway_fails_its_probe_until_there_is_room() {
    let (gateway, listener, admin) = start(IoChoice::Auto, |config| {
        config.session.max = Auto::Exactly(2);
        config.probe.timeout_ms = 200;
    });
    // Until both shards are full.
    let mut conv = 0;
    while gateway.stats().get(Stat::Sessions) < 2 {
        Client::new(listener, conv).knock();
        conv += 1;
    }
    let text = after(admin, listener, "failed", 1.0);
    let success = format!("kcp_gateway_probe_success{{listener=\"{listener}\"}}");
    assert_eq!(sample(&text, &success), 0.0);
    let ready = get(admin, "/readyz");
    assert!(ready.status == 200 && ready.body.contains("no answer of shard"), "{ready:?}");

    let full = get(admin, "/api/v1/sessions").json();
    for session in full["sessions"].as_array().unwrap() {
        post(admin, &format!("/api/v1/sessions/{}/close", session["id"].as_str().unwrap()));
    }
    metrics_until(admin, |text| sample(text, &success) == 1.0);
}

#[test]
fn a_gateway_that_drains_or_is_told_so_does_not_probe() {
    let (gateway, listener, admin) = start(IoChoice::Auto, |_| {});
    after(admin, listener, "succeeded", 1.0);
    gateway.drain().unwrap();
    assert!(!get(admin, "/metrics").body.contains(ROUNDS), "it rests, and says nothing of it");
    gateway.undrain().unwrap();
    after(admin, listener, "succeeded", 2.0);

    let (gateway, _, admin) = start(IoChoice::Auto, |config| config.probe.interval_s = 0);
    Client::new(gateway.listen_addrs()[0], 1).establish();
    assert!(!get(admin, "/metrics").body.contains(ROUNDS));
    assert_eq!(gateway.stats().get(Stat::Probes), 0);
    assert_eq!(get(admin, "/readyz").body, "ready\n");
}
