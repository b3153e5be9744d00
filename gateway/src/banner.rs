//! What an operator reads first: what runs, with which limits, and what to type next.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::control::plane::Status;

/// The start-up block, for people.
#[must_use]
pub fn block(status: &Status) -> String {
    let mut text = format!("kcp-gateway {}\n", status.version);
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<9} {value}");
    };
    line("driver", status.driver_reason.clone());
    for listener in &status.listeners {
        let small = if listener.recv_buffer_bytes < 1 << 20 { ", small" } else { "" };
        let buffer = bytes(listener.recv_buffer_bytes as u64);
        let addr = listener.addr;
        line("listen", format!("{addr} by {}, receive buffer {buffer}{small}", listener.steer));
    }
    line("upstream", status.upstream.clone());
    line("shards", format!("{}, {}", status.shards, cores(&status.cores)));
    let payload = bytes(status.store_bytes_max);
    let memory = bytes(status.memory_bytes);
    let sessions = status.sessions_max;
    line(
        "limits",
        format!("{sessions} sessions, {payload} of payload in flight; {memory} of memory"),
    );
    match status.admin {
        Some(addr) => line("admin", format!("http://{addr}/metrics, /readyz, /api/v1/status")),
        None => line("admin", "off".into()),
    }
    if let Some(listener) = status.listeners.first() {
        let target = reachable(listener.addr);
        line(
            "try",
            format!(
                "kcp-loadgen run --target {target} --sessions 1000 --rate 10 --size 64 --duration 10s"
            ),
        );
    }
    line("stop", "Ctrl-C drains, twice stops now".into());
    text
}

/// The start-up block as one event, for collectors.
pub fn log(status: &Status) {
    let listeners: Vec<String> = status.listeners.iter().map(|l| l.addr.to_string()).collect();
    tracing::info!(
        version = status.version,
        driver = status.driver,
        driver_reason = %status.driver_reason,
        listeners = %listeners.join(" "),
        admin = %status.admin.map_or("off".into(), |addr| addr.to_string()),
        upstream = %status.upstream,
        shards = status.shards,
        cores = %cores(&status.cores),
        sessions_max = status.sessions_max,
        store_bytes_max = status.store_bytes_max,
        memory_bytes = status.memory_bytes,
        "serving"
    );
}

fn cores(cores: &[Option<usize>]) -> String {
    let numbers: Vec<String> = cores.iter().flatten().map(ToString::to_string).collect();
    if numbers.is_empty() { "not pinned".into() } else { format!("on cores {}", numbers.join(" ")) }
}

/// An address of this host that reaches a listener from this host.
pub(crate) fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, addr.port())
}

/// Bytes in the largest unit that keeps one digit before the point.
#[expect(clippy::cast_precision_loss, reason = "shown to one decimal")]
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (n.max(1).ilog2() / 10).min(4);
    let name = UNITS[unit as usize];
    if unit == 0 {
        return format!("{n} {name}");
    }
    format!("{:.1} {name}", n as f64 / f64::from(unit * 10).exp2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_their_unit() {
        let shown = [0, 1023, 1024, 1536, (1 << 30) - 1, 1 << 40].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1024.0 MiB", "1.0 TiB"]);
    }

    #[test]
    fn a_wildcard_is_reached_over_loopback() {
        let reach = |addr: &str| reachable(addr.parse().unwrap()).to_string();
        assert_eq!(reach("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(reach("[::]:1"), "[::1]:1");
        assert_eq!(reach("10.0.0.1:1"), "10.0.0.1:1");
    }
}
