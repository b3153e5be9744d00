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
        let sessions_max = match config.session.max {
            Auto::Exactly(n) => n,
            Auto::Auto => sessions_in(host.memory / SESSION_SHARE),
        };
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
            tombstone_ms: config.session.tombstone_s * 1000,
            tombstones_max: config.session.tombstones_max,
            session_bytes_max: config.session.queue_bytes_max as usize,
        })
    }

    /// The same host under another configuration of the same shards.
    #[must_use]
    pub(crate) fn with_sessions_of(&self, config: &Config) -> Self {
        let sessions_max = match config.session.max {
            Auto::Exactly(n) => n,
            Auto::Auto => sessions_in(self.memory / SESSION_SHARE),
        };
        let sessions_per_shard = sessions_max.div_ceil(u32::from(self.shards));
        Self { sessions_max, sessions_per_shard, ..self.clone() }
    }
}

fn sessions_in(bytes: u64) -> u32 {
    let sessions = (bytes / SESSION_BYTES).clamp(SESSIONS_MIN, SESSIONS_MAX);
    u32::try_from(sessions).unwrap_or(u32::MAX)
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
