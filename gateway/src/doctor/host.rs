//! What the kernel does around the gateway: memory of sockets, queues in front of them, tables that every client takes a place in,
//! cores and pages. None of it keeps a gateway from starting; each can cost players under load.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use net_io::IoChoice;

use super::{Finding, Verdict};
use crate::banner::bytes;
use crate::config::{Carrier, Config};
use crate::sizing::Sizes;

/// What the host says of itself; `None` where it does not say.
#[derive(Debug, Default)]
pub(super) struct Around {
    release: Option<String>,
    page_bytes: Option<u64>,
    /// Pages that all UDP sockets together may hold before the kernel drops what comes.
    udp_mem: Option<[u64; 3]>,
    /// Pages from the second of which on TCP sockets get no more, and segments are dropped.
    tcp_mem: Option<[u64; 3]>,
    /// Bytes of a TCP socket's buffers where its owner leaves them to the kernel: the least, the first, the most.
    tcp_rmem: Option<[u64; 3]>,
    tcp_wmem: Option<[u64; 3]>,
    backlog: Option<u64>,
    /// Datagrams dropped in front of the sockets since the host started.
    backlog_drops: Option<u64>,
    conntrack: Option<Conntrack>,
    isolated: BTreeSet<usize>,
    huge_pages: Option<String>,
}

/// The kernel's table of connections, which exists where a firewall or address translation wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Conntrack {
    entries: u64,
    max: u64,
}

impl Around {
    /// Looks. `root` is `/` but in tests.
    pub(super) fn read(root: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        let number = |path: &str| text(path)?.trim().parse().ok();
        let ipv4 = |name: &str| three(&text(&format!("proc/sys/net/ipv4/{name}"))?);
        let conntrack = |name: &str| number(&format!("proc/sys/net/netfilter/nf_conntrack_{name}"));
        Self {
            release: text("proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
            page_bytes: text("proc/self/smaps").as_deref().and_then(page_bytes),
            udp_mem: ipv4("udp_mem"),
            tcp_mem: ipv4("tcp_mem"),
            tcp_rmem: ipv4("tcp_rmem"),
            tcp_wmem: ipv4("tcp_wmem"),
            backlog: number("proc/sys/net/core/netdev_max_backlog"),
            backlog_drops: text("proc/net/softnet_stat").map(|text| softnet_drops(&text)),
            conntrack: conntrack("count")
                .zip(conntrack("max"))
                .map(|(entries, max)| Conntrack { entries, max }),
            isolated: cpus(&text("sys/devices/system/cpu/isolated").unwrap_or_default()),
            huge_pages: text("sys/kernel/mm/transparent_hugepage/enabled")
                .as_deref()
                .and_then(chosen),
        }
    }

    /// Holds it against what `config` wants.
    pub(super) fn findings(&self, config: &Config, sizes: &Sizes) -> Vec<Finding> {
        let mut findings = vec![
            self.kernel(config),
            self.udp_memory(config, sizes),
            self.backlog(),
            self.tracking(config, sizes),
            self.isolation(sizes),
            self.pages(),
        ];
        let has_tcp = config.upstream.named().iter().any(|b| b.url.carrier == Carrier::Tcp);
        findings.extend(has_tcp.then(|| self.tcp_memory(config, sizes)));
        findings
    }

    /// Whether one wait can both gather datagrams and end in time: without, a ring gathers by sleeping.
    fn kernel(&self, config: &Config) -> Finding {
        let version = self.release.as_deref().and_then(version);
        let needed = config.io.driver != IoChoice::Epoll && config.io.min_wait_us > 0;
        let is_old = version.is_some_and(|version| version < MIN_WAIT_SINCE);
        let (major, minor) = MIN_WAIT_SINCE;
        finding(
            "kernel",
            needed && is_old,
            self.release.clone().unwrap_or_else(not_told),
            format!("{major}.{minor} or later, to gather datagrams within one wait of the ring"),
            || format!("boot a kernel from {major}.{minor} on, or set io.min_wait_us = 0"),
        )
    }

    /// All sockets full at once, as in a burst that all shards are late for.
    fn udp_memory(&self, config: &Config, sizes: &Sizes) -> Finding {
        let sockets = u64::from(sizes.shards) * config.listeners.len() as u64;
        // The kernel books twice what a socket asked for.
        let needed = sockets * u64::from(config.io.recv_buffer_bytes) * 2;
        let page = self.page_bytes.unwrap_or(PAGE_BYTES);
        let limit = self.udp_mem.map(|[.., max]| max.saturating_mul(page));
        let pages = needed.div_ceil(page);
        finding(
            "udp_mem",
            limit.is_some_and(|limit| limit < needed),
            limit.map_or_else(not_told, |limit| format!("{} for all sockets", bytes(limit))),
            format!("{}, the receive buffers of {sockets} sockets", bytes(needed)),
            || format!("sysctl -w net.ipv4.udp_mem=\"{} {pages} {}\"", pages / 2, pages * 3 / 2),
        )
    }

    /// Sessions over `tcp` that stand still, their buffers full both ways.
    fn tcp_memory(&self, config: &Config, sizes: &Sizes) -> Finding {
        let sessions = u64::from(sizes.sessions_max).div_ceil(ONE_STILL_OF);
        let needed = self.tcp_buffers(config).map(|each| each.saturating_mul(sessions));
        let page = self.page_bytes.unwrap_or(PAGE_BYTES);
        let limit = self.tcp_mem.map(|[_, pressure, _]| pressure.saturating_mul(page));
        let by_kernel = config.upstream.tcp_buffer_bytes == 0;
        let whose = if by_kernel { ", as long as the kernel may make them" } else { "" };
        finding(
            "tcp_mem",
            limit.zip(needed).is_some_and(|(limit, needed)| limit < needed),
            limit.map_or_else(not_told, |limit| format!("{} for all sockets", bytes(limit))),
            format!(
                "{}, the buffers of {sessions} sessions that stand still{whose}",
                needed.map_or_else(not_told, bytes)
            ),
            || {
                if by_kernel {
                    return "set upstream.tcp_buffer_bytes, or lower the third values of net.ipv4.tcp_rmem and net.ipv4.tcp_wmem, \
                            or session.max"
                        .into();
                }
                let pages = needed.unwrap_or(0).div_ceil(page);
                format!(
                    "sysctl -w net.ipv4.tcp_mem=\"{} {pages} {}\", or lower upstream.tcp_buffer_bytes or session.max",
                    pages / 4 * 3,
                    pages / 2 * 3
                )
            },
        )
    }

    /// The most that the buffers of one session over `tcp` are booked with, both ways.
    ///
    /// Those left to the kernel are reckoned as long as it may make them, not as it makes them first. It takes as little for that
    /// as a peer over loopback that does not read, or a stream that was read for a while before it was not (6.18: 4 MiB and
    /// 32 MiB in one buffer, where the first values were 16 KiB and 128 KiB).
    fn tcp_buffers(&self, config: &Config) -> Option<u64> {
        match u64::from(config.upstream.tcp_buffer_bytes) {
            0 => {
                let ([.., receive], [.., send]) = self.tcp_rmem.zip(self.tcp_wmem)?;
                Some(receive.saturating_add(send))
            }
            // Booked twice, as above.
            bytes => Some(bytes * 2 * 2),
        }
    }

    fn backlog(&self) -> Finding {
        let drops =
            self.backlog_drops.map_or_else(String::new, |n| format!("; {n} dropped so far"));
        finding(
            "backlog",
            self.backlog.is_some_and(|backlog| backlog < BACKLOG),
            self.backlog
                .map_or_else(not_told, |backlog| format!("{backlog} packets a core{drops}")),
            format!("{BACKLOG}, for bursts between card and sockets"),
            || format!("sysctl -w net.core.netdev_max_backlog={BACKLOG}"),
        )
    }

    /// A full table drops every new client before the gateway sees it.
    fn tracking(&self, config: &Config, sizes: &Sizes) -> Finding {
        let sessions = u64::from(sizes.sessions_max);
        let is_used = |table: &Conntrack| table.entries > 0;
        let table = self.conntrack.filter(is_used);
        let port = config.listeners.first().map_or(0, |listener| listener.addr.port());
        finding(
            "conntrack",
            table.is_some_and(|table| table.max < sessions),
            match (self.conntrack, table) {
                (None, _) => "not loaded".into(),
                (Some(_), None) => "loaded, and follows nothing".into(),
                (Some(_), Some(t)) => format!("{} of {} places taken", t.entries, t.max),
            },
            format!("none, or a place for each of {sessions} sessions"),
            || {
                format!(
                    "exempt the port: nft add rule ip raw prerouting udp dport {port} notrack (and output, sport); \
                     or sysctl -w net.netfilter.nf_conntrack_max={}",
                    sessions + sessions / 4
                )
            },
        )
    }

    /// Only where there are cores to spare: elsewhere there is nobody to keep out.
    fn isolation(&self, sizes: &Sizes) -> Finding {
        let shards: BTreeSet<usize> = sizes.cores.iter().flatten().copied().collect();
        let can_be = sizes.spare_core.is_some() && !shards.is_empty();
        let shared: Vec<String> =
            shards.difference(&self.isolated).map(ToString::to_string).collect();
        let list = shards.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        finding(
            "isolation",
            can_be && !shared.is_empty(),
            match (shards.is_empty(), shared.is_empty()) {
                (true, _) => "not pinned".into(),
                (false, true) => "the shards' cores are isolated".into(),
                (false, false) => format!("others may run on cores {}", shared.join(",")),
            },
            if can_be {
                "cores of their own for the shards"
            } else {
                "nothing: there is no core to spare"
            }
            .into(),
            || format!("boot with isolcpus={list} nohz_full={list}, or keep others off by cpusets"),
        )
    }

    fn pages(&self) -> Finding {
        finding(
            "hugepages",
            self.huge_pages.as_deref() == Some("always"),
            self.huge_pages.clone().unwrap_or_else(not_told),
            "madvise or never: pages put together behind its back stall a shard and hold on to memory"
                .into(),
            || "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled".into(),
        )
    }
}

fn finding(
    name: &'static str,
    is_poor: bool,
    found: String,
    wanted: String,
    fix: impl FnOnce() -> String,
) -> Finding {
    let verdict = if is_poor { Verdict::Poor } else { Verdict::Good };
    Finding { name, verdict, found, wanted, fix: is_poor.then(fix) }
}

fn not_told() -> String {
    "not told".into()
}

/// Major and minor of a release like `6.12.3-1-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// From the first mapping of `/proc/self/smaps`.
fn page_bytes(smaps: &str) -> Option<u64> {
    let kib = smaps.lines().find_map(|line| line.strip_prefix("KernelPageSize:"))?;
    Some(kib.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn three(text: &str) -> Option<[u64; 3]> {
    let numbers: Option<Vec<u64>> = text.split_whitespace().map(|n| n.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// The second column, in hexadecimal, of every core's line.
fn softnet_drops(text: &str) -> u64 {
    let column = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    text.lines().filter_map(column).sum()
}

/// A list like `0,2-4`.
fn cpus(text: &str) -> BTreeSet<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// The word in brackets of `always [madvise] never`.
fn chosen(text: &str) -> Option<String> {
    let word = text.split_whitespace().find_map(|w| w.strip_prefix('[')?.strip_suffix(']'))?;
    Some(word.to_owned())
}

/// A ring's wait that both gathers and ends in time.
const MIN_WAIT_SINCE: (u32, u32) = (6, 12);
/// One session of so many over `tcp` may stand still before the host's memory for sockets is looked at.
const ONE_STILL_OF: u64 = 10;
/// What the packaged sysctl file sets.
const BACKLOG: u64 = 16_384;
/// Where the kernel does not tell.
const PAGE_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Auto, UpstreamUrl};
    use crate::sizing::Host;

    const POOR: [(&str, &str); 12] = [
        ("proc/sys/kernel/osrelease", "6.1.0-13-amd64\n"),
        (
            "proc/self/smaps",
            "5600-5700 r--p 0 0:1 1 /bin/x\nSize: 4 kB\nKernelPageSize:        4 kB\n",
        ),
        ("proc/sys/net/ipv4/udp_mem", "100\t200\t300\n"),
        ("proc/sys/net/ipv4/tcp_mem", "100\t200\t300\n"),
        ("proc/sys/net/core/netdev_max_backlog", "1000\n"),
        ("proc/net/softnet_stat", "0000 00000003 0\n0000 0000000d 0\n"),
        ("proc/sys/net/netfilter/nf_conntrack_count", "12\n"),
        ("proc/sys/net/netfilter/nf_conntrack_max", "4096\n"),
        ("sys/devices/system/cpu/isolated", "\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
        ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
        ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
    ];

    fn examined(files: &[(&str, &str)], cores: usize) -> Vec<Finding> {
        examined_for(files, cores, Config::default())
    }

    fn examined_for(files: &[(&str, &str)], cores: usize, mut config: Config) -> Vec<Finding> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        config.shards.count = Auto::Exactly(2);
        config.session.max = Auto::Exactly(100_000);
        config.upstream.url = UpstreamUrl::parse("tcp://10.0.0.1:7000").unwrap();
        let cores: Vec<usize> = (0..cores).collect();
        let host = Host { parallelism: cores.len(), cores, memory: 1 << 30 };
        Around::read(root.path()).findings(&config, &Sizes::of(&config, &host))
    }

    #[test]
    fn a_poor_host_is_told_what_to_change() {
        let findings = examined(&POOR, 4);
        for (name, found, fix) in [
            ("kernel", "6.1.0-13-amd64", "io.min_wait_us = 0"),
            // Two shards, two listeners, 4 MiB each, booked twice.
            ("udp_mem", "1.2 MiB for all", "net.ipv4.udp_mem=\"4096 8192 12288\""),
            // A tenth of 100,000 sessions, 16 KiB each way, booked twice.
            ("tcp_mem", "800.0 KiB for all", "net.ipv4.tcp_mem=\"120000 160000 240000\""),
            ("backlog", "1000 packets a core; 16 dropped so far", "netdev_max_backlog=16384"),
            ("conntrack", "12 of 4096", "nf_conntrack_max=125000"),
            ("isolation", "cores 0,1", "isolcpus=0,1"),
            ("hugepages", "always", "echo madvise"),
        ] {
            let finding = findings.iter().find(|finding| finding.name == name).unwrap();
            assert_eq!(finding.verdict, Verdict::Poor, "{finding:?}");
            assert!(finding.found.contains(found), "{finding:?}");
            assert!(finding.fix.as_ref().unwrap().contains(fix), "{finding:?}");
        }
    }

    #[test]
    fn a_good_host_and_a_silent_one_need_nothing() {
        let mut good = POOR;
        good[0].1 = "6.12.0\n";
        good[2].1 = "100 200 300000\n";
        good[3].1 = "100 200000 300000\n";
        good[4].1 = "16384\n";
        good[6].1 = "0\n";
        good[8].1 = "0-1\n";
        good[9].1 = "always [madvise] never\n";
        for findings in [examined(&good, 4), examined(&[], 2)] {
            assert_eq!(findings.len(), 7);
            for finding in findings {
                assert!(finding.verdict == Verdict::Good && finding.fix.is_none(), "{finding:?}");
            }
        }
    }

    #[test]
    fn tcp_buffers_left_to_the_kernel_are_as_long_as_it_may_make_them() {
        let found = |tcp_mem: &str, files: usize| {
            let mut files = POOR[..files].to_vec();
            files[3].1 = tcp_mem;
            let mut config = Config::default();
            config.upstream.tcp_buffer_bytes = 0;
            let findings = examined_for(&files, 4, config);
            findings.into_iter().find(|finding| finding.name == "tcp_mem").unwrap()
        };
        // A tenth of 100,000 sessions, 6 MiB one way and 4 MiB the other, in pages of 4 KiB.
        let enough = found("0 25600000 0\n", POOR.len());
        assert_eq!((enough.verdict, enough.fix), (Verdict::Good, None));
        let short = found("0 25599999 0\n", POOR.len());
        assert_eq!(short.verdict, Verdict::Poor);
        assert!(short.wanted.starts_with("97.7 GiB, the buffers of 10000 sessions"), "{short:?}");
        assert!(short.wanted.ends_with("as long as the kernel may make them"), "{short:?}");
        assert!(short.fix.unwrap().contains("set upstream.tcp_buffer_bytes"));
        // A host that does not tell how long it may make those towards backends.
        let untold = found("0 0 0\n", POOR.len() - 1);
        assert_eq!((untold.verdict, untold.fix), (Verdict::Good, None));
        assert!(untold.wanted.starts_with("not told"), "{}", untold.wanted);
    }

    #[test]
    fn lists_and_numbers_are_read() {
        assert_eq!(cpus("0,2-4\n"), BTreeSet::from([0, 2, 3, 4]));
        assert_eq!(cpus("\n"), BTreeSet::new());
        assert_eq!((version("6.18.5"), version("7"), version("x.1")), (Some((6, 18)), None, None));
        assert_eq!((three("1 2 3"), three("1 2"), three("1 2 x")), (Some([1, 2, 3]), None, None));
        assert_eq!((chosen("a [b] c").as_deref(), chosen("a b")), (Some("b"), None));
        assert_eq!(page_bytes("KernelPageSize:       64 kB\n"), Some(65_536));
    }
}
