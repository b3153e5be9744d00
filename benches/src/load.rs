//! The load generator in a process of its own, so that its memory goes when it goes: `kcp-loadgen run` in this program.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kcp_loadgen::cli::RunArgs;
use kcp_loadgen::host::process_time;
use kcp_loadgen::run_with;
use serde_json::Value;

use crate::cpu;
use crate::server::end_with_parent;

/// A running load. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Load {
    child: Child,
    json: PathBuf,
}

impl Load {
    /// Starts `kcp-loadgen run --target <target> <flags>`.
    ///
    /// # Errors
    /// The process could not be started.
    pub(crate) fn start(target: SocketAddr, flags: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let program = std::env::current_exe().context("cannot find this program")?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let json = format!("kcp-benches-load-{}-{count}.json", std::process::id());
        let json = std::env::temp_dir().join(json);
        let child = Command::new(program)
            .args(["load", "--target", &target.to_string()])
            .args(flags.split_whitespace())
            .arg("--json")
            .arg(&json)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start the load")?;
        Ok(Self { child, json })
    }

    /// Its exit, if it has ended.
    ///
    /// # Errors
    /// It cannot be asked.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// CPU time it has used.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        process_time(self.child.id()).context("the load has ended")
    }

    /// Memory it has, in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn resident(&self) -> Result<u64> {
        cpu::resident(self.child.id())
    }

    /// Its report, once it has ended, whatever it says was lost.
    ///
    /// # Errors
    /// There is none; its own message went to standard error.
    pub(crate) fn report_with_failures(mut self) -> Result<Value> {
        let status = self.child.wait()?;
        let Ok(text) = std::fs::read_to_string(&self.json) else {
            bail!("the load left no report: {status}");
        };
        serde_json::from_str(&text).context("the load's report")
    }

    /// Its report, once it has ended.
    ///
    /// # Errors
    /// There is none, its own message went to standard error; or it says that sessions or messages were lost.
    pub(crate) fn report(mut self) -> Result<Value> {
        let status = self.child.wait()?;
        let Ok(text) = std::fs::read_to_string(&self.json) else {
            bail!("the load left no report: {status}");
        };
        ensure!(status.success(), "the load failed: {status}");
        serde_json::from_str(&text).context("the load's report")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Both may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.json);
    }
}

/// The other side of [`Load::start`].
///
/// # Errors
/// The load could not run, or sessions or messages were lost.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    end_with_parent()?;
    let never = AtomicBool::new(false);
    let report = run_with(&args.scenario()?, args.output.progress.mode(), &never)?;
    let path = args.output.json.as_ref().context("--json is needed")?;
    let mut file = File::create(path).with_context(|| format!("cannot write {path:?}"))?;
    report.write_json(&mut file)?;
    for reason in &report.generator.reasons {
        // In one piece: another load may write beside this one.
        let line = format!("the load was at its own limit: {reason}\n");
        std::io::stderr().write_all(line.as_bytes())?;
    }
    let failures = report.failures();
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}
