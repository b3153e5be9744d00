//! Rules, dashboards and the runbook agree with each other and with what a running gateway exports.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;

use kcp_deploy::dashboards;
use kcp_deploy::exposition::Exposition;
use kcp_deploy::rules::{self, home};
use kcp_gateway::config::UpstreamUrl;
use kcp_gateway::{Config, Gateway};

/// What gateways with backends export, and what Prometheus makes of it.
fn exposition() -> Exposition {
    // Never accepts; that the kernel does is enough.
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = backend.local_addr().unwrap();
    let texts = ["tcp", "nats"].map(|kind| metrics(&format!("{kind}://{addr}")));
    let mut exposition = Exposition::parse(&texts.concat());
    exposition.add(["up".into(), "ALERTS".into()]);
    exposition.add(rules::all().unwrap().into_iter().filter_map(|rule| rule.record));
    exposition
}

/// What a gateway with this upstream exports.
fn metrics(upstream: &str) -> String {
    let mut config = Config::default();
    config.listeners.truncate(1);
    config.listeners[0].addr = "127.0.0.1:0".parse().unwrap();
    config.admin.listen = Some("127.0.0.1:0".parse().unwrap());
    config.upstream.url = UpstreamUrl::parse(upstream).unwrap();
    let gateway = Gateway::start(config).unwrap();
    let url = format!("http://{}/metrics", gateway.admin_addr().expect("configured"));
    loop {
        let text = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
        // Its own prober has something to tell after the first round.
        if text.contains("kcp_gateway_probe_success{") {
            return text;
        }
    }
}

#[test]
fn every_rule_graph_and_page_can_be_answered() {
    let exposition = exposition();
    let rules = rules::all().unwrap().into_iter();
    let of_rules = rules.map(|rule| (rule.record.or(rule.alert).unwrap(), rule.expr));
    let graphs = dashboards::ALL.iter().flat_map(|dashboard| dashboard.queries());
    let of_graphs = graphs.map(|query| (query.place, query.expr.to_owned()));
    let runbook = fs::read_to_string(home().join("RUNBOOK.md")).unwrap();
    let blocks = runbook.split("```promql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let of_pages = blocks.map(|expr| ("RUNBOOK.md".to_owned(), expr.to_owned()));
    let mut asked = 0;
    for (place, expr) in of_rules.chain(of_graphs).chain(of_pages) {
        let missing = exposition.missing_from(&expr);
        assert!(missing.is_empty(), "{place} asks for what no gateway exports: {missing:?}");
        asked += 1;
    }
    assert!(asked > 110, "only {asked} queries found");
}

#[test]
fn every_alert_is_tested_and_has_its_page() {
    let alerts: BTreeSet<_> = rules::all().unwrap().into_iter().filter_map(|r| r.alert).collect();
    let runbook = fs::read_to_string(home().join("RUNBOOK.md")).unwrap();
    let pages = runbook.lines().filter_map(|line| line.strip_prefix("## KcpGateway"));
    let pages: BTreeSet<_> = pages.map(|name| format!("KcpGateway{name}")).collect();
    assert_eq!(alerts, pages, "alerts (left) and pages of RUNBOOK.md (right)");
    let tests = fs::read_to_string(home().join("prometheus/tests.yml")).unwrap();
    for alert in alerts {
        let silent = format!("alertname: {alert}, exp_alerts: []");
        let firing = format!("alertname: {alert}\n        exp_alerts:\n          - exp_labels:");
        assert!(tests.contains(&silent), "no test in which {alert} keeps silent");
        assert!(tests.contains(&firing), "no test in which {alert} fires");
    }
}

#[test]
fn committed_dashboards_are_the_generated_ones() {
    for dashboard in dashboards::ALL {
        let path = home().join("grafana").join(format!("{}.json", dashboard.name));
        let committed = fs::read_to_string(&path).unwrap_or_default();
        let stale = "run `cargo run -p kcp-deploy -- dashboards`";
        assert!(committed == dashboard.to_text(), "{}: {stale}", path.display());
    }
}
