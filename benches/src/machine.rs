//! Where and of what figures are.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// The machine, the source and the command.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    kernel: String,
    cores: usize,
    commit: String,
    command: String,
}

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or_default();
        Self {
            cpu: model.trim_start_matches([' ', '\t', ':']).to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            commit: commit(),
            command: command(),
        }
    }

    /// For the head of a table: the machine and the source, then the command.
    pub(crate) fn lines(&self) -> [String; 2] {
        let Self { cpu, kernel, cores, commit, command } = self;
        [format!("{cpu}, {cores} cores, Linux {kernel}, commit {commit}"), command.clone()]
    }
}

/// This command, without the place where the program happens to be.
fn command() -> String {
    let words = std::env::args().skip(1);
    [env!("CARGO_PKG_NAME").to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// The commit that the program was built from, wherever it runs; `+` when the tree it came from has changes that are not in it.
fn commit() -> String {
    let built = kcp_loadgen::COMMIT;
    let status = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "status", "--porcelain"])
        .output();
    let changed = status.is_ok_and(|output| output.status.success() && !output.stdout.is_empty());
    match built.strip_suffix("-dirty") {
        Some(commit) => format!("{commit}+"),
        None if changed => format!("{built}+"),
        None => built.to_owned(),
    }
}
