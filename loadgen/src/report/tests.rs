use super::*;

/// A sound run but for one lost message.
pub(crate) fn sample() -> Report {
    let latency_us = Quantiles {
        p50: 500,
        p90: 900,
        p99: 2000,
        p999: 3000,
        p9999: 4000,
        max: 1_500_000,
        mean: 600.0,
        samples: 999,
    };
    Report {
        sessions: 10,
        duration_s: 2.0,
        counts: Counts { established: 10, sent: 1000, received: 999, ..Counts::default() },
        lost: 1,
        messages_per_s: 499.5,
        megabytes_per_s: 0.03,
        latency_us,
        service_latency_us: Quantiles { p99: 1500, ..latency_us },
        connect_us: Quantiles::default(),
        send_lag_us: latency_us,
        around: None,
        kcp: KcpReport::default(),
        generator: Generator::default(),
        run: RunInfo {
            version: "0.0.0",
            commit: "unknown",
            command: "kcp-loadgen run".to_owned(),
            seed: 42,
            target: "127.0.0.1:4000".to_owned(),
            protocol: "kcp",
            upstream: Upstream::Echo,
            size: 64,
            sockets: 10,
            driver: "epoll",
            driver_reason: "asked for".to_owned(),
            host: Host { kernel: "Linux 0".to_owned(), cpu: "some".to_owned(), cores: 2 },
        },
        checks: Vec::new(),
        interrupted: false,
        target_cpu_s: None,
    }
}

fn sound() -> Report {
    let mut report = sample();
    report.lost = 0;
    report.counts.received = 1000;
    report
}

#[test]
fn the_json_keys_that_stay() {
    let mut json = Vec::new();
    sample().write_json(&mut json).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
    for key in [
        "sessions",
        "established",
        "duration_s",
        "sent",
        "received",
        "lost",
        "duplicated",
        "reordered",
        "corrupted",
        "missed_sends",
        "messages_per_s",
    ] {
        assert!(value[key].is_number(), "{key}");
    }
    for series in ["latency_us", "service_latency_us"] {
        for key in ["p50", "p90", "p99", "p999", "p9999", "max"] {
            assert!(value[series][key].is_u64(), "{series}.{key}");
        }
    }
    assert_eq!(value["run"]["seed"], 42);
    assert_eq!(value["lost"], 1);
}

#[test]
fn each_fault_fails_the_run_with_its_own_line() {
    type Break = fn(&mut Report);
    assert_eq!((sound().failures(), sound().exit_code()), (vec![], 0));
    let cases: [(&str, Break); 7] = [
        ("3 of 10 sessions", |r| r.counts.established = 7),
        ("1 of 1000 messages were lost", |r| r.lost = 1),
        ("messages came twice", |r| r.counts.duplicated = 1),
        ("messages came out of order", |r| r.counts.reordered = 1),
        ("messages came damaged", |r| r.counts.corrupted = 1),
        ("2 sessions died", |r| r.counts.dead_sessions = 2),
        ("interrupted", |r| r.interrupted = true),
    ];
    for (line, change) in cases {
        let mut report = sound();
        change(&mut report);
        let failures = report.failures();
        assert!(failures.len() == 1 && failures[0].contains(line), "{line}: {failures:?}");
        assert_eq!(report.exit_code(), 1);
    }
}

#[test]
fn a_failed_check_is_3_but_a_failed_run_is_1() {
    let failed = Verdict { check: "p99<1ms".to_owned(), measured: 2000.0, ok: false };
    let mut report = sound();
    report.checks = vec![Verdict { ok: true, ..failed.clone() }, failed];
    assert_eq!(report.exit_code(), 3);
    report.lost = 1;
    assert_eq!(report.exit_code(), 1);
}

#[test]
fn the_table_says_what_matters() {
    let mut report = sample();
    report.generator.reasons = vec!["worker 0 was busy 99 %".to_owned()];
    report.checks = vec![Verdict { check: "p99<1ms".to_owned(), measured: 2000.0, ok: false }];
    let mut out = Vec::new();
    report.write_table(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    for part in [
        "10 of 10 established",
        "999 received, 1 lost",
        "2.00 ms",
        "1.50 s",
        "500 us",
        "no samples",
        "SATURATED   the load generator, not the target: worker 0 was busy 99 %",
        "CHECK FAILS p99<1ms (measured 2000)",
        "FAILED      1 of 1000 messages were lost",
        "seed        42",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn what_cannot_be_verified_is_said() {
    let verdict = |upstream| {
        let mut report = sound();
        report.run.upstream = upstream;
        report.counts.heard = 17;
        let mut out = Vec::new();
        report.write_table(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert!(verdict(Upstream::Echo).contains("ok          every message came back once"));
    let stream = verdict(Upstream::Stream);
    assert!(stream.contains("every byte came back once") && stream.contains("not told apart"));
    let rooms = verdict(Upstream::Rooms);
    assert!(rooms.contains("17 of others") && rooms.contains("is not verified"), "{rooms}");
}
