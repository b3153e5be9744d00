//! What `auto` means on this host: shards from cores, sessions and payload from memory.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use crate::config::{Auto, Config};
use crate::shard::Policy;

/// What this process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Cores it may run on, by number; empty where the system does not tell.
    pub(crate) cores: Vec<usize>,
    /// Threads that can run at once: the cores, or fewer where a quota says so.
    pub(crate) parallelism: usize,
    /// Bytes of memory: the machine's, or a control group's smaller limit.
    pub(crate) memory: u64,
}

impl Host {
    /// Looks at the process's affinity, quota and memory limits.
    #[must_use]
    pub(crate) fn look() -> Self {
        let ids = core_affinity::get_core_ids().unwrap_or_default();
        Self {
            cores: ids.into_iter().map(|core| core.id).collect(),
            parallelism: thread::available_parallelism().map_or(1, usize::from),
            memory: memory(Path::new("/")),
        }
    }
}

/// The numbers of a running gateway, every `auto` resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Shards.
    pub(crate) shards: u16,
    /// The core of each shard; `None` = wherever the scheduler likes.
    pub(crate) cores: Vec<Option<usize>>,
    /// A core that no shard has, for the control plane.
    pub(crate) spare_core: Option<usize>,
    /// Sessions the gateway may hold.
    pub(crate) sessions_max: u32,
    /// Sessions one shard may hold.
    pub(crate) sessions_per_shard: u32,
    /// Bytes of payload one shard may hold.
    pub(crate) store_bytes_per_shard: usize,
    /// Bytes of memory this was sized to.
    pub(crate) memory: u64,
}

impl Sizes {
    /// Resolves `config` on `host`.
    #[must_use]
    pub(crate) fn of(config: &Config, host: &Host) -> Self {
        let cores = host.cores.len().max(1).min(host.parallelism);
        let shards = match config.shards.count {
            Auto::Exactly(n) => n,
            Auto::Auto => u16::try_from(cores).unwrap_or(SHARDS_MAX).clamp(1, SHARDS_MAX),
        };
        let pin = config.shards.pin && !host.cores.is_empty();
        let core_of = |shard: u16| pin.then(|| host.cores[usize::from(shard) % host.cores.len()]);
        let spare = host.cores.get(usize::from(shards)).copied();
        let sessions_max = sessions_max(config, host.memory);
        let store_bytes = match config.shards.store_bytes_max {
            Auto::Exactly(n) => n,
            Auto::Auto => (host.memory / STORE_SHARE / u64::from(shards)).max(STORE_BYTES_MIN),
        };
        Self {
            shards,
            cores: (0..shards).map(core_of).collect(),
            spare_core: spare.filter(|_| pin),
            sessions_max,
            sessions_per_shard: sessions_max.div_ceil(u32::from(shards)),
            store_bytes_per_shard: usize::try_from(store_bytes).unwrap_or(usize::MAX),
            memory: host.memory,
        }
    }

    /// What each shard decides by, under `config`.
    #[must_use]
    pub(crate) fn policy(&self, config: &Config) -> Arc<Policy> {
        Arc::new(Policy {
            listeners: config.listeners.iter().map(|l| config.kcp_of(l).to_core()).collect(),
            sessions_max: self.sessions_per_shard,
            idle_timeout_ms: config.session.idle_timeout_s * 1000,
            keepalive_ms: config.session.keepalive_s * 1000,
            tombstone_ms: config.session.tombstone_s * 1000,
            tombstones_max: config.session.tombstones_max,
            session_bytes_max: config.session.queue_bytes_max as usize,
            farewell: config.drain.farewell.0.clone(),
        })
    }

    /// The same host under another configuration of the same shards.
    #[must_use]
    pub(crate) fn with_sessions_of(&self, config: &Config) -> Self {
        let sessions_max = sessions_max(config, self.memory);
        let sessions_per_shard = sessions_max.div_ceil(u32::from(self.shards));
        Self { sessions_max, sessions_per_shard, ..self.clone() }
    }
}

fn sessions_max(config: &Config, memory: u64) -> u32 {
    match config.session.max {
        Auto::Exactly(n) => n,
        Auto::Auto => {
            let fit = memory / SESSION_SHARE / SESSION_BYTES;
            u32::try_from(fit.clamp(SESSIONS_MIN, SESSIONS_MAX)).unwrap_or(u32::MAX)
        }
    }
}

/// The smallest of the machine's memory and the limits of this process's control groups. `root` is `/` but in tests.
fn memory(root: &Path) -> u64 {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let total = read("proc/meminfo").lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
        Some(kib.trim().parse::<u64>().ok()? * 1024)
    });
    let mut limits: Vec<u64> = total.into_iter().collect();
    limits.extend(read("sys/fs/cgroup/memory/memory.limit_in_bytes").trim().parse::<u64>().ok());
    let groups = read("proc/self/cgroup");
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    // A limit anywhere above binds too; inside a container the path ends at its own root.
    for group in Path::new(group).ancestors() {
        let limit = read(&format!("sys/fs/cgroup/{}/memory.max", group.display()));
        limits.extend(limit.trim().parse::<u64>().ok());
    }
    limits.into_iter().min().unwrap_or(MEMORY_UNKNOWN)
}

const SHARDS_MAX: u16 = 256;
/// Half of the memory for payload in flight, a quarter for sessions; the rest for sockets, rings, the control plane and
/// the system.
const STORE_SHARE: u64 = 2;
const SESSION_SHARE: u64 = 4;
/// A session at rest with its share of the table, the wheel and the allocator's rounding.
const SESSION_BYTES: u64 = 1024;
const SESSIONS_MIN: u64 = 1024;
const SESSIONS_MAX: u64 = 1 << 24;
const STORE_BYTES_MIN: u64 = 16 << 20;
/// Assumed where neither the machine nor a control group tells.
const MEMORY_UNKNOWN: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn host(cores: &[usize], parallelism: usize) -> Host {
        Host { cores: cores.to_vec(), parallelism, memory: 8 * GIB }
    }

    #[test]
    fn auto_follows_the_host() {
        let sizes = Sizes::of(&Config::default(), &host(&[2, 3, 5], 3));
        assert_eq!(sizes.shards, 3);
        assert_eq!(sizes.cores, [Some(2), Some(3), Some(5)]);
        assert_eq!(sizes.spare_core, None);
        assert_eq!(sizes.sessions_max, 2 << 20);
        assert_eq!(sizes.sessions_per_shard, (2 << 20) / 3 + 1);
        assert_eq!(sizes.store_bytes_per_shard as u64, 4 * GIB / 3);
    }

    #[test]
    fn a_quota_bounds_shards_and_leaves_a_core() {
        let sizes = Sizes::of(&Config::default(), &host(&[0, 1, 2, 3], 2));
        assert_eq!((sizes.shards, sizes.spare_core), (2, Some(2)));
    }

    #[test]
    fn what_is_given_is_used() {
        let mut config = Config::default();
        config.shards.count = Auto::Exactly(4);
        config.shards.store_bytes_max = Auto::Exactly(1 << 20);
        config.session.max = Auto::Exactly(10);
        let sizes = Sizes::of(&config, &host(&[0, 1], 2));
        assert_eq!(sizes.cores, [Some(0), Some(1), Some(0), Some(1)]);
        assert_eq!((sizes.sessions_max, sizes.sessions_per_shard), (10, 3));
        assert_eq!(sizes.store_bytes_per_shard, 1 << 20);
        config.session.max = Auto::Exactly(4);
        assert_eq!(sizes.with_sessions_of(&config).sessions_per_shard, 1);
        config.shards.pin = false;
        let unpinned = Sizes::of(&config, &host(&[0, 1, 2, 3, 4, 5], 6));
        assert_eq!((&unpinned.cores[..], unpinned.spare_core), (&[None; 4][..], None));
    }

    #[test]
    fn no_host_is_too_small_to_start_on() {
        let tiny = Host { cores: vec![], parallelism: 0, memory: 0 };
        let sizes = Sizes::of(&Config::default(), &tiny);
        assert_eq!((sizes.shards, &sizes.cores[..]), (1, &[None][..]));
        assert_eq!(u64::from(sizes.sessions_max), SESSIONS_MIN);
        assert_eq!(sizes.store_bytes_per_shard as u64, STORE_BYTES_MIN);
    }

    #[test]
    fn the_smallest_memory_limit_binds() {
        let root = std::env::temp_dir().join(format!("kcp-gateway-memory-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(memory(&root), MEMORY_UNKNOWN);
        write("proc/meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\n");
        assert_eq!(memory(&root), 16 << 20);
        write("proc/self/cgroup", "0::/a.slice/b.service\n");
        write("sys/fs/cgroup/a.slice/b.service/memory.max", "max\n");
        assert_eq!(memory(&root), 16 << 20);
        write("sys/fs/cgroup/a.slice/memory.max", "8388608\n");
        assert_eq!(memory(&root), 8 << 20);
        fs::remove_dir_all(&root).unwrap();
    }
}
