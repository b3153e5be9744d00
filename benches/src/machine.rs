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

/// The checked-out commit; `+` when the tree has changes that are not in it.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".into() };
    let clean = git(&["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
    if clean { head } else { head + "+" }
}
