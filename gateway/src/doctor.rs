//! What this host allows, held against what a configuration wants. Looks, never changes anything.

mod host;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use net_io::steer::Steering;
use net_io::{DriverKind, IoChoice, Probe, SocketOptions, StreamConfig, UdpSocket};
use serde::Serialize;

use crate::banner::bytes;
use crate::config::{Carrier, Config, Steer};
use crate::sizing::{Host, Sizes};

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub name: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What this host has.
    pub found: String,
    /// What the configuration wants.
    pub wanted: String,
    /// The command or setting that mends it.
    pub fix: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As wanted.
    Good,
    /// The gateway runs, but slower or losing more than it could.
    Poor,
    /// The gateway does not start.
    Missing,
}

impl Verdict {
    const fn label(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Poor => "poor",
            Self::Missing => "MISSING",
        }
    }
}

/// Looks at everything that `config` depends on.
#[must_use]
pub fn examine(config: &Config) -> Vec<Finding> {
    let sizes = Sizes::of(config, &Host::look());
    let proc = Proc::read(Path::new("/proc"));
    let mut findings = vec![driver(config, &proc)];
    findings.push(memlock(&sizes, config, &proc));
    findings.push(files(&sizes, config, &proc));
    findings.push(buffer("rmem_max", config.io.recv_buffer_bytes, proc.rmem_max, &proc));
    findings.push(buffer("wmem_max", config.io.send_buffer_bytes, proc.wmem_max, &proc));
    findings.push(steering(config));
    findings.push(ipv6(config, &proc));
    findings.push(cores(&sizes));
    findings.push(memory(&sizes, config));
    findings.extend(host::Around::read(Path::new("/")).findings(config, &sizes));
    findings.extend(connections(&sizes, config, &proc));
    findings
}

/// Whether nothing essential is missing.
#[must_use]
pub fn is_fit(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.verdict != Verdict::Missing)
}

/// The findings for a program.
#[must_use]
pub fn json(findings: &[Finding]) -> String {
    let object = serde_json::json!({ "fit": is_fit(findings), "findings": findings });
    format!("{object:#}\n")
}

/// The findings for a person: one line each, and below it how to mend what is not good.
#[must_use]
pub fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { name, verdict, found, wanted, fix } in findings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<8} {name:<10} {found} (wanted: {wanted})", verdict.label());
        if let Some(fix) = fix {
            let _ = writeln!(text, "{:<19} -> {fix}", "");
        }
    }
    text
}

/// What the kernel says of itself and of this process; `None` where it does not say.
#[derive(Debug, Default)]
struct Proc {
    io_uring_disabled: Option<u64>,
    memlock: Option<Limit>,
    files: Option<Limit>,
    rmem_max: Option<u64>,
    wmem_max: Option<u64>,
    /// Local ports that the kernel chooses from.
    ports: Option<u64>,
    capabilities: u64,
    has_ipv6: bool,
}

/// A resource limit; `None` = unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    soft: Option<u64>,
    hard: Option<u64>,
}

impl Proc {
    fn read(proc: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(proc.join(path)).unwrap_or_default();
        let number = |path: &str| text(path).trim().parse().ok();
        let limits = text("self/limits");
        let effective = text("self/status")
            .lines()
            .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
        Self {
            io_uring_disabled: number("sys/kernel/io_uring_disabled"),
            memlock: limit(&limits, "Max locked memory"),
            files: limit(&limits, "Max open files"),
            rmem_max: number("sys/net/core/rmem_max"),
            wmem_max: number("sys/net/core/wmem_max"),
            ports: ports(&text("sys/net/ipv4/ip_local_port_range")),
            capabilities: effective.unwrap_or_default(),
            has_ipv6: !text("net/if_inet6").is_empty(),
        }
    }

    const fn can(&self, capability: u32) -> bool {
        self.capabilities >> capability & 1 == 1
    }
}

/// A line of `/proc/self/limits`: name, soft, hard, unit.
fn limit(limits: &str, name: &str) -> Option<Limit> {
    let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let mut columns = rest.split_whitespace();
    let mut value = || match columns.next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    };
    Some(Limit { soft: value()?, hard: value()? })
}

/// How many ports a range has: its first and its last.
fn ports(range: &str) -> Option<u64> {
    let mut ends = range.split_whitespace().map(|end| end.parse::<u64>().ok());
    let (first, last) = (ends.next()??, ends.next()??);
    (last + 1).checked_sub(first)
}

fn driver(config: &Config, proc: &Proc) -> Finding {
    let sysctl = proc.io_uring_disabled.map_or("absent".into(), |n| n.to_string());
    let wanted = match config.io.driver {
        IoChoice::Auto => "io_uring, or epoll where it is refused",
        IoChoice::Uring => "io_uring",
        IoChoice::Epoll => "epoll",
    };
    let mut finding = Finding {
        name: "driver",
        verdict: Verdict::Good,
        found: String::new(),
        wanted: wanted.into(),
        fix: None,
    };
    match Probe::run(config.io.driver, &config.io.to_driver()) {
        Ok(probe) => {
            finding.found = format!("{}; kernel.io_uring_disabled is {sysctl}", probe.reason);
            if config.io.driver == IoChoice::Auto && probe.kind != DriverKind::Uring {
                finding.verdict = Verdict::Poor;
                finding.fix =
                    Some("the reason says what to allow; or choose it: --io epoll".into());
            }
        }
        Err(error) => {
            finding.verdict = Verdict::Missing;
            finding.found = format!("{}; kernel.io_uring_disabled is {sysctl}", error.cause);
            finding.fix = Some(error.remedy);
        }
    }
    finding
}

/// Rings are charged to the user's locked memory, unless the process may lock what it likes.
fn memlock(sizes: &Sizes, config: &Config, proc: &Proc) -> Finding {
    let rings = u64::from(sizes.shards) + 1;
    let needed = rings * u64::from(config.io.buffers) * RING_BYTES_PER_BUFFER;
    let soft = proc.memlock.map(|limit| limit.soft);
    let exempt = proc.can(CAP_IPC_LOCK);
    let is_enough = exempt
        || config.io.driver == IoChoice::Epoll
        || soft.flatten().is_none_or(|soft| soft >= needed);
    let found = match soft {
        _ if exempt => "no limit for this process (CAP_IPC_LOCK)".into(),
        Some(None) => "unlimited".into(),
        Some(Some(n)) => bytes(n),
        None => "not told".into(),
    };
    let fix = format!("ulimit -l {}, or LimitMEMLOCK={needed} in the unit", needed / 1024);
    Finding {
        name: "memlock",
        verdict: if is_enough { Verdict::Good } else { Verdict::Poor },
        found,
        wanted: format!("{} for {rings} rings", bytes(needed)),
        fix: (!is_enough).then_some(fix),
    }
}

/// Descriptors that the gateway opens whatever its sessions do.
pub(crate) fn files_beside_sessions(sizes: &Sizes, config: &Config) -> u64 {
    let shards = u64::from(sizes.shards);
    let admin = u64::from(config.admin.connections_max);
    shards * (config.listeners.len() as u64 + FILES_PER_SHARD) + admin + FILES_BASE
}

fn files(sizes: &Sizes, config: &Config, proc: &Proc) -> Finding {
    let needed = files_beside_sessions(sizes, config);
    let soft = proc.files.map(|limit| limit.soft);
    let is_enough = soft.flatten().is_none_or(|soft| soft >= needed);
    Finding {
        name: "nofile",
        verdict: if is_enough { Verdict::Good } else { Verdict::Missing },
        found: match soft {
            Some(None) => "unlimited".into(),
            Some(Some(n)) => n.to_string(),
            None => "not told".into(),
        },
        wanted: needed.to_string(),
        fix: (!is_enough)
            .then(|| format!("ulimit -n {needed}, or LimitNOFILE={needed} in the unit")),
    }
}

fn buffer(name: &'static str, wanted: u32, max: Option<u64>, proc: &Proc) -> Finding {
    let wanted = u64::from(wanted);
    let exempt = proc.can(CAP_NET_ADMIN);
    let is_enough = exempt || max.is_none_or(|max| max >= wanted);
    let found = max.map_or("not told".into(), bytes);
    Finding {
        name,
        verdict: if is_enough { Verdict::Good } else { Verdict::Poor },
        found: if exempt { format!("{found}, which CAP_NET_ADMIN may exceed") } else { found },
        wanted: bytes(wanted),
        fix: (!is_enough).then(|| format!("sysctl -w net.core.{name}={wanted}")),
    }
}

/// Tries the steering program on a group of its own.
fn steering(config: &Config) -> Finding {
    let wanted = config.listeners.iter().any(|l| config.kcp_of(l).steer == Steer::Conv);
    let options = SocketOptions { recv_buffer: 1 << 16, send_buffer: 1 << 16 };
    let loopback = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let tried = UdpSocket::bind_group(loopback, 2, &options).map_err(|e| e.source);
    let tried =
        tried.and_then(|group| group.first().map_or(Ok(()), |s| Steering::new(1, 2).attach(s)));
    let verdict = match &tried {
        Err(_) if wanted => Verdict::Missing,
        Err(_) | Ok(()) => Verdict::Good,
    };
    Finding {
        name: "steering",
        verdict,
        found: match &tried {
            Ok(()) => "SO_ATTACH_REUSEPORT_CBPF works".into(),
            Err(error) => format!("refused: {error}"),
        },
        wanted: if wanted { "by conversation" } else { "by address" }.into(),
        fix: (verdict == Verdict::Missing)
            .then(|| "set kcp.steer = \"address\", or run on a kernel from 4.5 on".into()),
    }
}

fn ipv6(config: &Config, proc: &Proc) -> Finding {
    let mut v6 = config.listeners.iter().filter(|listener| listener.addr.is_ipv6());
    let is_needed = v6.any(|listener| !listener.optional);
    let is_wanted = config.listeners.iter().any(|listener| listener.addr.is_ipv6());
    let verdict = match (proc.has_ipv6, is_needed, is_wanted) {
        (true, ..) | (_, _, false) => Verdict::Good,
        (false, true, _) => Verdict::Missing,
        (false, false, true) => Verdict::Poor,
    };
    Finding {
        name: "ipv6",
        verdict,
        found: if proc.has_ipv6 { "present" } else { "absent" }.into(),
        wanted: if is_wanted { "a listener uses it" } else { "not used" }.into(),
        fix: (verdict != Verdict::Good)
            .then(|| "sysctl -w net.ipv6.conf.all.disable_ipv6=0, or --listen 0.0.0.0:4000".into()),
    }
}

fn cores(sizes: &Sizes) -> Finding {
    let distinct: std::collections::BTreeSet<_> = sizes.cores.iter().flatten().collect();
    let shards = usize::from(sizes.shards);
    let is_enough = distinct.is_empty() || distinct.len() == shards;
    Finding {
        name: "cores",
        verdict: if is_enough { Verdict::Good } else { Verdict::Poor },
        found: if distinct.is_empty() {
            "not pinned".into()
        } else {
            format!("{} for shards", distinct.len())
        },
        wanted: format!("one for each of {shards} shards"),
        fix: (!is_enough).then(|| format!("--shards {}, or allow more cores", distinct.len())),
    }
}

/// Sessions, payload in flight, and what may wait on the way to backends and from them.
fn memory(sizes: &Sizes, config: &Config) -> Finding {
    let waiting = match config.upstream.has_backends() {
        true => {
            config.upstream.pool_bytes_max.saturating_add(StreamConfig::default().write_pool as u64)
        }
        false => 0,
    };
    let of_shard = (sizes.store_bytes_per_shard as u64).saturating_add(waiting);
    let of_shards = of_shard.saturating_mul(sizes.shards.into());
    let needed = of_shards.saturating_add(u64::from(sizes.sessions_max) * 1024);
    let is_enough = needed <= sizes.memory;
    Finding {
        name: "memory",
        verdict: if is_enough { Verdict::Good } else { Verdict::Poor },
        found: bytes(sizes.memory),
        wanted: format!("{} at every limit", bytes(needed)),
        fix: (!is_enough).then(|| match waiting {
            0 => "lower session.max or shards.store_bytes_max".into(),
            _ => "lower session.max, shards.store_bytes_max or upstream.pool_bytes_max".into(),
        }),
    }
}

/// Whether as many sessions as allowed could each have a connection to a `tcp` backend: a descriptor each, and a port each
/// for every pair of addresses. Nothing to say where there is no such backend.
fn connections(sizes: &Sizes, config: &Config, proc: &Proc) -> Vec<Finding> {
    let named = config.upstream.named();
    let tcp: Vec<_> = named.iter().filter(|b| b.url.carrier == Carrier::Tcp).collect();
    if tcp.is_empty() {
        return Vec::new();
    }
    let sessions = u64::from(sizes.sessions_max);
    let wanted = sessions + sessions / 4 + FILES_BASE;
    // The gateway takes what it may: the hard limit is the limit.
    let hard = proc.files.map(|limit| limit.hard);
    let files_enough = hard.flatten().is_none_or(|hard| hard >= wanted);
    let files = Finding {
        name: "tcp files",
        verdict: if files_enough { Verdict::Good } else { Verdict::Poor },
        found: match hard {
            Some(None) => "unlimited".into(),
            Some(Some(n)) => n.to_string(),
            None => "not told".into(),
        },
        wanted: format!("{wanted}, for {sessions} sessions and their ends"),
        fix: (!files_enough)
            .then(|| format!("LimitNOFILE={wanted} in the unit, or lower session.max")),
    };
    // A name stands for at least one address.
    let pairs = tcp.iter().map(|backend| {
        let sources = config.upstream.settings_of(backend).sources.0.len().max(1);
        (backend.url.targets.len() * sources) as u64
    });
    let pairs: u64 = pairs.sum();
    let room = proc.ports.map(|ports| ports * pairs);
    let ports_enough = room.is_none_or(|room| room >= sessions);
    let ports = Finding {
        name: "tcp ports",
        verdict: if ports_enough { Verdict::Good } else { Verdict::Poor },
        found: match (proc.ports, room) {
            (Some(ports), Some(room)) => {
                format!("{room}: {ports} for each of {pairs} pairs of addresses")
            }
            (Some(_) | None, _) => "not told".into(),
        },
        wanted: format!("{sessions}, one for each session"),
        fix: (!ports_enough).then(|| {
            "sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\", more addresses of the backend, \
             upstream.sources, or a lower session.max"
                .into()
        }),
    };
    vec![files, ports]
}

/// A ring of 1024 buffers takes about 200 KiB of locked memory, on Linux 6.18.
const RING_BYTES_PER_BUFFER: u64 = 200;
/// Ring or epoll set, eventfd, and room.
const FILES_PER_SHARD: u64 = 4;
const FILES_BASE: u64 = 64;
/// Numbers from capabilities(7).
const CAP_NET_ADMIN: u32 = 12;
const CAP_IPC_LOCK: u32 = 14;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Auto, Sources, UpstreamUrl};

    #[test]
    fn limits_are_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max locked memory         8388608              unlimited            bytes     \n\
                    Max open files            1024                 524288               files     \n";
        let memlock = Limit { soft: Some(8_388_608), hard: None };
        assert_eq!(limit(text, "Max locked memory"), Some(memlock));
        assert_eq!(limit(text, "Max open files").unwrap().hard, Some(524_288));
        assert_eq!(limit(text, "Max nothing"), None);
        assert_eq!(limit("Max open files what\n", "Max open files"), None);
    }

    #[test]
    fn a_poor_host_gets_its_remedies() {
        let config = Config::default();
        let host = Host { cores: vec![0, 1], parallelism: 2, memory: 1 << 30 };
        let sizes = Sizes::of(&config, &host);
        let low = Some(Limit { soft: Some(10), hard: Some(10) });
        let proc = Proc { memlock: low, files: low, rmem_max: Some(212_992), ..Proc::default() };
        let memlock = memlock(&sizes, &config, &proc);
        assert_eq!(memlock.verdict, Verdict::Poor);
        assert!(memlock.fix.unwrap().contains("LimitMEMLOCK="));
        let files = files(&sizes, &config, &proc);
        assert_eq!(files.verdict, Verdict::Missing);
        assert!(!is_fit(&[files]));
        let rmem = buffer("rmem_max", 4 << 20, proc.rmem_max, &proc);
        assert_eq!(rmem.fix.as_deref(), Some("sysctl -w net.core.rmem_max=4194304"));
        let ipv6 = ipv6(&config, &proc);
        assert_eq!(ipv6.verdict, Verdict::Poor);
    }

    #[test]
    fn what_waits_for_backends_takes_memory_too() {
        let mut config = Config::default();
        let host = Host { cores: vec![0, 1, 2], parallelism: 3, memory: 1 << 30 };
        let verdict = |config: &Config| {
            let finding = memory(&Sizes::of(config, &host), config);
            (finding.verdict, finding.wanted, finding.fix.is_some())
        };
        let wanted = |text: &str| format!("{text} at every limit");
        assert_eq!(verdict(&config), (Verdict::Good, wanted("768.0 MiB"), false));
        config.upstream.url = UpstreamUrl::parse("yamux://10.0.0.1:7000").unwrap();
        assert_eq!(verdict(&config), (Verdict::Poor, wanted("1.1 GiB"), true));
        config.upstream.pool_bytes_max = 1 << 20;
        assert_eq!(verdict(&config), (Verdict::Good, wanted("963.0 MiB"), false));
    }

    #[test]
    fn a_connection_per_session_needs_descriptors_and_ports() {
        let mut config = Config::default();
        config.session.max = Auto::Exactly(100_000);
        let sizes = Sizes::of(&config, &Host { cores: vec![0], parallelism: 1, memory: 1 << 30 });
        let files = Some(Limit { soft: Some(1024), hard: Some(524_288) });
        let range = ports("32768\t60999\n");
        assert_eq!((range, ports("7"), ports("9 7")), (Some(28_232), None, None));
        let proc = Proc { files, ports: range, ..Proc::default() };
        assert_eq!(connections(&sizes, &config, &proc), []);
        config.upstream.url = UpstreamUrl::parse("yamux://10.0.0.1:7000").unwrap();
        assert_eq!(connections(&sizes, &config, &proc), []);

        config.upstream.url = UpstreamUrl::parse("tcp://10.0.0.1:7000").unwrap();
        let verdicts = |config: &Config, proc: &Proc| -> Vec<Verdict> {
            connections(&sizes, config, proc).iter().map(|finding| finding.verdict).collect()
        };
        assert_eq!(verdicts(&config, &proc), [Verdict::Good, Verdict::Poor]);
        config.upstream.url = UpstreamUrl::parse("tcp://10.0.0.1:7000,10.0.0.2:7000").unwrap();
        config.upstream.each.sources = Sources(vec![[10, 0, 0, 8].into(), [10, 0, 0, 9].into()]);
        assert_eq!(verdicts(&config, &proc), [Verdict::Good, Verdict::Good]);
        let few = Proc { files: Some(Limit { soft: Some(1024), hard: Some(4096) }), ..proc };
        assert_eq!(verdicts(&config, &few), [Verdict::Poor, Verdict::Good]);
    }

    #[test]
    fn this_host_is_examined_whole() {
        let findings = examine(&Config::default());
        let text = table(&findings);
        for finding in &findings {
            assert!(text.contains(finding.name));
            assert_eq!(finding.fix.is_some(), finding.verdict != Verdict::Good, "{finding:?}");
        }
        let json: serde_json::Value = serde_json::from_str(&json(&findings)).unwrap();
        assert_eq!(json["findings"].as_array().unwrap().len(), findings.len());
    }
}
