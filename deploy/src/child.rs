//! Programs that a measurement or a drill runs: ended when dropped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use crossbeam::channel::{after, bounded};
use serde_json::Value;

/// A running program.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts it without input and output.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self::of(command)
    }

    fn of(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.spawn();
        let path = Path::new(command.get_program());
        // One of ours, by its path; others are looked up.
        let absent = path.components().count() > 1 && !path.exists();
        let hint = if absent { ": `cargo build --release` builds it" } else { "" };
        child.map(Self).with_context(|| format!("starting {}{hint}", path.display()))
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let kill = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status()?;
        ensure!(kill.success(), "kill -s {name}");
        Ok(())
    }
}

impl Process {
    /// Waits for its end; `None` when it goes on for longer than that.
    pub(crate) fn ends_within(&mut self, time: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let mut left = time;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            if left.is_zero() {
                return Ok(None);
            }
            let wait = left.min(LOOK);
            let _ = after(wait).recv();
            left -= wait;
        }
    }

    /// CPU time of its threads so far, in seconds, as the scheduler has it: `process_cpu_seconds_total` counts whole ones.
    pub(crate) fn cpu_s(&self) -> anyhow::Result<f64> {
        let mut ns = 0.0;
        for task in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
            ns += schedstat.split(' ').next().context("no time")?.parse::<f64>()?;
        }
        Ok(ns / 1e9)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) process: Process,
    /// Its UDP address.
    pub(crate) listener: SocketAddr,
    /// Its admin port.
    pub(crate) admin: SocketAddr,
}

impl Gateway {
    /// Starts `command` with ports of the kernel's choice, unless the environment says otherwise, and waits until it serves.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
        if command.get_envs().all(|(name, _)| name != "KCP_GATEWAY__ADMIN__LISTEN") {
            command.args(["--admin", "127.0.0.1:0"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::of(command)?;
        let log = BufReader::new(process.0.stderr.take().context("piped")?).lines();
        let (told, news) = bounded(1);
        thread::spawn(move || {
            let mut said = Vec::new();
            // Read on after that, so that it never waits for room.
            for line in log.map_while(Result::ok) {
                match serde_json::from_str::<Value>(&line) {
                    Ok(event) if event["message"] == "serving" => drop(told.try_send(Ok(event))),
                    Ok(_) | Err(_) if said.len() < LINES_KEPT => said.push(line),
                    Ok(_) | Err(_) => {}
                }
            }
            drop(told.try_send(Err(said.join("\n"))));
        });
        let serving = news.recv_timeout(START).context("it does not begin to serve")?;
        let serving = serving.map_err(|said| anyhow!("it ended: {said}"))?;
        let addr = |name: &str| {
            serving[name].as_str().and_then(|addr| addr.parse().ok()).context("no address")
        };
        Ok(Self { listener: addr("listeners")?, admin: addr("admin")?, process })
    }

    /// POSTs to its API.
    pub(crate) fn post(&self, path: &str) -> anyhow::Result<()> {
        ureq::post(format!("http://{}{path}", self.admin)).send_empty()?;
        Ok(())
    }

    /// Likewise, where an answer that says no is one, too.
    pub(crate) fn post_whatever(&self, path: &str) -> anyhow::Result<()> {
        let post = ureq::post(format!("http://{}{path}", self.admin));
        post.config().http_status_as_error(false).build().send_empty()?;
        Ok(())
    }

    /// GETs from it.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut answer = ureq::get(format!("http://{}{path}", self.admin)).call()?;
        Ok(answer.body_mut().read_to_string()?)
    }
}

/// A segment of KCP as a client sends it: `sn`, `una` and what it carries.
pub(crate) fn segment(conv: u32, sn: u32, una: u32, payload: &[u8]) -> Vec<u8> {
    const PUSH: u8 = 81;
    let mut segment = conv.to_le_bytes().to_vec();
    segment.extend([PUSH, 0]);
    segment.extend(128_u16.to_le_bytes());
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    for field in [1, sn, una, len] {
        segment.extend(field.to_le_bytes());
    }
    segment.extend(payload);
    segment
}

/// How often an end is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// Time for a gateway to begin to serve, on a host with much else to do.
const START: Duration = Duration::from_secs(30);
/// Of what a gateway says that does not start.
const LINES_KEPT: usize = 100;
