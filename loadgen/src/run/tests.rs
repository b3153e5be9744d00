use super::*;
use crate::report::tests::sample;
use crate::sources::Sources;

fn scenario() -> Scenario {
    let target: std::net::SocketAddr = "127.0.0.1:4000".parse().unwrap();
    let mut scenario = Scenario::new(target, 10, Sources::single(target.ip()));
    scenario.traffic.load = Load::Open { period: Duration::from_millis(100) };
    scenario
}

fn sound() -> Report {
    let mut report = sample();
    report.send_lag_us = Quantiles { p99: 100, ..report.send_lag_us };
    report.generator.workers = vec![WorkerReport {
        worker: 0,
        core: None,
        sessions: 10,
        busy: Some(0.5),
        starved: Some(0.1),
        behind_max_us: 0,
        tx_datagrams: 1,
        tx_bytes: 1,
        rx_datagrams: 1,
        rx_bytes: 1,
        enters: 1,
        rx_overflow: 0,
        tx_full: 0,
        tx_errors: 0,
    }];
    report
}

#[test]
fn each_cause_of_saturation_is_named_with_what_to_change() {
    type Break = fn(&mut Report);
    let mut report = sound();
    judge_generator(&scenario(), usize::MAX, &mut report);
    assert!(!report.generator.saturated && report.generator.notes.is_empty());
    assert!((report.generator.client_core_busy - 0.5).abs() < 1e-9);
    let cases: [(&str, Break); 6] = [
        ("--threads", |r| r.generator.workers[0].busy = Some(0.86)),
        ("net.core.rmem_max", |r| r.generator.workers[0].rx_overflow = 3),
        ("net.core.wmem_max", |r| r.generator.workers[0].tx_full = 3),
        ("after their time", |r| r.send_lag_us.p99 = 1001),
        ("given up as too late", |r| r.counts.missed_sends = 1),
        ("--store-bytes", |r| r.counts.store_full = 1),
    ];
    for (part, change) in cases {
        let mut report = sound();
        change(&mut report);
        judge_generator(&scenario(), usize::MAX, &mut report);
        let reasons = &report.generator.reasons;
        assert!(report.generator.saturated, "{part}");
        assert!(reasons.len() == 1 && reasons[0].contains(part), "{part}: {reasons:?}");
    }
}

#[test]
fn what_the_target_or_the_host_did_is_a_note() {
    let mut report = sound();
    report.counts.throttled_sends = 5;
    report.counts.stray_datagrams = 1;
    judge_generator(&scenario(), 1000, &mut report);
    assert!(!report.generator.saturated);
    let notes = report.generator.notes.join("\n");
    for part in ["target fell behind: 5", "1000 bytes of receive buffer", "1 datagrams were for no"]
    {
        assert!(notes.contains(part), "{part} in {notes}");
    }
}

#[test]
fn the_gate_waits_for_all_or_for_want_of_progress_and_then_holds() {
    let mut scenario = scenario();
    scenario.phases.ramp = Duration::from_secs(1);
    scenario.phases.establish = Duration::from_secs(5);
    scenario.phases.hold = Duration::from_secs(2);
    let snapshot = |established| Snapshot {
        stage: Stage::Ramp,
        established,
        sent: 0,
        received: 0,
        faults: 0,
        late: 0,
        p99_us: 0,
    };
    let opens = |times: &[(u64, u64)]| {
        let mut gate = Gate::default();
        times
            .iter()
            .map(|(at, established)| {
                gate.opens(&scenario, Duration::from_secs(*at), &snapshot(*established))
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(opens(&[(0, 9), (1, 10), (2, 10), (3, 10)]), [false, false, false, true]);
    assert_eq!(opens(&[(5, 9), (9, 9), (10, 9), (12, 9)]), [false, false, false, true]);
    assert_eq!(opens(&[(5, 8), (10, 9), (15, 9), (17, 9)]), [false, false, false, true]);
    assert_eq!(opens(&[(4, 0), (5, 0)]), [false, true], "nobody there: no hold");
}
