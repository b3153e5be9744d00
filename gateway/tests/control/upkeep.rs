//! What an operator does to a gateway under load costs no player anything: twenty reloads, a drain, an end.

use std::thread;
use std::time::Duration;

use kcp_gateway::config::Source;
use kcp_gateway::shard::stats::{DropReason, EndReason, Stat};
use kcp_gateway::{Drained, Gateway};
use kcp_loadgen::scenario::Load;
use kcp_loadgen::sources::Sources;
use kcp_loadgen::{Scenario, run};

use crate::admin::File;
use crate::client::Client;
use crate::http::{get, post};

const SESSIONS: u32 = 300;
const RELOADS: u64 = 20;

/// Every second one changes what all sessions live by.
fn text(driver: &str, n: u64) -> String {
    let (interval, resend, window, idle) =
        if n.is_multiple_of(2) { (10, 2, 256, 3) } else { (20, 3, 300, 4) };
    format!(
        "[[listener]]\naddr = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [io]\ndriver = \"{driver}\"\n[shards]\ncount = 2\npin = false\n\
         [kcp]\ninterval_ms = {interval}\nresend = {resend}\nrcv_wnd = {window}\nsnd_wnd = {window}\n\
         [session]\nidle_timeout_s = {idle}\nmax = {}\n",
        10_000 + n
    )
}

#[test]
fn twenty_reloads_and_a_drain_under_load_lose_nothing() {
    for driver in ["uring", "epoll"] {
        let file = File::new(&format!("upkeep-{driver}"), &text(driver, 0));
        let source = Source { file: Some(file.path().into()), ..Source::default() };
        let gateway = Gateway::start_with(source.load().unwrap(), source).unwrap();
        let (admin, listener) = (gateway.admin_addr().unwrap(), gateway.listen_addrs()[0]);

        let mut scenario = Scenario::new(listener, SESSIONS, Sources::single(listener.ip()));
        scenario.traffic.load = Load::Open { period: Duration::from_millis(50) };
        scenario.phases.warmup = Duration::from_millis(100);
        scenario.phases.duration = Duration::from_secs(6);
        let load = thread::spawn(move || run(&scenario).unwrap());
        while gateway.status().sessions < SESSIONS.into() {
            assert!(!load.is_finished(), "the load ended before it began");
        }
        for n in 1..=RELOADS {
            // Each under traffic: as many messages as sessions pass between two.
            let before = gateway.stats().get(Stat::MessagesOut);
            while gateway.stats().get(Stat::MessagesOut) < before + u64::from(SESSIONS) {
                assert!(!load.is_finished(), "only {n} reloads in time");
            }
            file.write(&text(driver, n));
            let reloaded = post(admin, "/api/v1/reload");
            assert_eq!(reloaded.status, 200, "{reloaded:?}");
            assert!(reloaded.json()["changed"].as_array().unwrap().len() >= 6, "{reloaded:?}");
        }
        assert_eq!(gateway.status().reloads.generation, RELOADS);

        gateway.drain().unwrap();
        assert_eq!(get(admin, "/readyz").status, 503);
        Client::new(listener, u32::MAX).knock();
        while gateway.stats().drops(DropReason::Draining) == 0 {
            assert!(!load.is_finished(), "nobody refused the one who came late");
        }
        let progress = gateway.status().drain.unwrap();
        assert_eq!((progress.sessions_before, progress.ends_in_s), (SESSIONS.into(), None));
        assert!(!load.is_finished(), "the drain began too late to matter");

        let report = load.join().unwrap();
        assert_eq!(report.failures(), Vec::<String>::new(), "{:?}", report.counts);
        assert_eq!(report.counts.received, report.counts.sent, "{:?}", report.counts);
        // The players have left without a word: their sessions end as idle, and with the last of them the drain.
        let (drained, totals) = gateway.drain_and_stop(Duration::from_secs(60));
        assert_eq!(drained, Drained::Empty);
        assert_eq!(totals.get(Stat::Births), u64::from(SESSIONS));
        assert_eq!(totals.ends(EndReason::Idle), u64::from(SESSIONS), "nobody was cut off");
    }
}
