//! Replays traces of the C library's release 2.1.1, which the differential test's oracle (1.7.1) cannot show.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Write as _;

use kcp_core::{Conv, Cx, Kcp, KcpConfig, Millis, Reference, Store};

#[test]
fn window_probe_of_2_1_1() {
    let trace = include_str!("vectors/probe-2.1.1.txt");
    assert_eq!(replay(trace, Reference::V2_1_1), trace);
    assert_ne!(replay(trace, Reference::V1_7_1), trace, "the trace must tell the releases apart");
}

#[test]
fn window_after_a_timeout_of_2_1_1() {
    let trace = include_str!("vectors/loss-2.1.1.txt");
    assert_eq!(replay(trace, Reference::V2_1_1), trace);
    assert_ne!(replay(trace, Reference::V1_7_1), trace, "the trace must tell the releases apart");
}

/// Makes the calls of `trace` and writes the trace that comes of them.
fn replay(trace: &str, reference: Reference) -> String {
    let mut config = KcpConfig { reference, ..KcpConfig::default() };
    let mut store = Store::new(1 << 20);
    let mut kcp = Kcp::new(Conv(0x1122_3344));
    let mut now = 0;
    let mut out = String::new();
    for line in trace.lines().filter(|line| !line.starts_with(['>', '='])) {
        writeln!(out, "{line}").unwrap();
        if line.starts_with('#') {
            continue;
        }
        let mut words = line.split(' ');
        let call = words.next().unwrap();
        let argument = words.clone().next().unwrap();
        let numbers: Vec<u32> = words.flat_map(str::parse).collect();
        match (call, &*numbers) {
            ("nodelay", &[nodelay, interval, fastresend, nc]) => {
                config = KcpConfig { nodelay, interval, fastresend, nocwnd: nc != 0, ..config };
            }
            ("wndsize", &[snd_wnd, rcv_wnd]) => config = KcpConfig { snd_wnd, rcv_wnd, ..config },
            ("send", &[len]) => {
                let mut cx = Cx { config: &config, store: &mut store };
                kcp.send(&mut cx, &vec![b'a'; len as usize]).unwrap();
            }
            ("update", &[until, step]) => {
                while now < until {
                    now += step;
                    let mut cx = Cx { config: &config, store: &mut store };
                    update(&mut kcp, &mut cx, Millis(now), &mut out);
                }
            }
            ("input", _) => {
                let mut cx = Cx { config: &config, store: &mut store };
                kcp.handle_datagram(&mut cx, Millis(now), &unhex(argument), |_| false).unwrap();
            }
            _ => panic!("unknown call: {line}"),
        }
        let (at, wait, _) = kcp.probe();
        let (una, nxt) = (kcp.snd_una().0, kcp.snd_nxt().0);
        let (cwnd, ssthresh, incr, rto) = (kcp.cwnd(), kcp.ssthresh(), kcp.incr(), kcp.rto());
        writeln!(
            out,
            "= una {una} nxt {nxt} cwnd {cwnd} ssthresh {ssthresh} incr {incr} wait {wait} at {} rto {rto}",
            at.0
        )
        .unwrap();
    }
    out
}

fn update(kcp: &mut Kcp, cx: &mut Cx<'_>, now: Millis, out: &mut String) {
    let mut buf = [0; 1400];
    kcp.handle_timeout(cx, now);
    while let Some(len) = kcp.poll_transmit(cx, now, &mut buf) {
        write!(out, "> {} ", now.0).unwrap();
        buf[..len].iter().for_each(|byte| write!(out, "{byte:02x}").unwrap());
        writeln!(out).unwrap();
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}
