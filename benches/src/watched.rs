//! A gateway in a process of its own that is watched from outside: what each shard counted, what it used of the processor,
//! how much memory the process has.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use kcp_gateway::Gateway;
use kcp_gateway::config::Auto;
use kcp_gateway::shard::stats::{EndReason, Histogram, Stat, Stats};
use kcp_loadgen::host::process_time;
use serde::{Deserialize, Serialize};

use crate::contender::Io;
use crate::cpu;
use crate::server::{settle, with_room};

/// How the gateway is set up; all else is its default.
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// Its cores; each shard stays on one, in turn.
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) cores: Vec<usize>,
    /// Shards.
    #[arg(long)]
    pub(crate) shards: u16,
    /// Driver.
    #[arg(long, value_enum)]
    pub(crate) io: Io,
    /// Sessions it may hold.
    #[arg(long)]
    pub(crate) sessions_max: u32,
    /// Seconds of silence after which a client is asked; 0 = never.
    #[arg(long)]
    pub(crate) keepalive_s: u32,
    /// Seconds of silence after which a session ends.
    #[arg(long)]
    pub(crate) idle_timeout_s: u32,
}

impl Settings {
    fn words(&self) -> Vec<String> {
        let Self { cores, shards, io, sessions_max, keepalive_s, idle_timeout_s } = self;
        let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
        vec![
            format!("--cores={}", cores.join(",")),
            format!("--shards={shards}"),
            format!("--io={}", io.label()),
            format!("--sessions-max={sessions_max}"),
            format!("--keepalive-s={keepalive_s}"),
            format!("--idle-timeout-s={idle_timeout_s}"),
        ]
    }
}

/// What a shard counted until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) sessions: u64,
    pub(crate) births: u64,
    pub(crate) messages: u64,
    /// Clients asked whether they are there.
    pub(crate) probes: u64,
    /// Ended for want of a sign of life, by whichever timer.
    pub(crate) deaths: u64,
    pub(crate) longest_turn_us: u64,
    /// The most that a turn used of the processor.
    pub(crate) longest_turn_cpu_us: u64,
}

impl Counted {
    fn of(stats: &Stats) -> Self {
        let silent = [EndReason::Idle, EndReason::Keepalive, EndReason::DeadLink];
        Self {
            sessions: stats.get(Stat::Sessions),
            births: stats.get(Stat::Births),
            messages: stats.get(Stat::MessagesIn),
            probes: stats.get(Stat::ChallengesSent),
            deaths: silent.map(|reason| stats.ends(reason)).iter().sum(),
            longest_turn_us: stats.histogram(Histogram::BusyTurn).max,
            longest_turn_cpu_us: stats.histogram(Histogram::BusyTurnCpu).max,
        }
    }
}

/// The gateway at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moment {
    /// Since this program first looked at the clock.
    pub(crate) at: Duration,
    /// Each shard: what it counted, and the CPU time of its thread.
    pub(crate) shards: Vec<(Counted, Duration)>,
    /// CPU time of all threads.
    pub(crate) cpu: Duration,
    /// Memory of the process, in bytes.
    pub(crate) resident: u64,
}

impl Moment {
    /// Of all shards together.
    pub(crate) fn sum(&self, count: impl Fn(&Counted) -> u64) -> u64 {
        self.shards.iter().map(|(counted, _)| count(counted)).sum()
    }
}

/// The gateway's process. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Watched {
    child: Child,
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
}

impl Watched {
    /// Starts a gateway and waits until it listens.
    ///
    /// # Errors
    /// It did not come to listen; its own message went to standard error.
    pub(crate) fn start(settings: &Settings) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .arg("watched")
            .args(settings.words())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the gateway's process")?;
        let (Some(asks), Some(out)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the gateway's process has no pipes");
        };
        let mut answers = BufReader::new(out).lines();
        let line = answers.next().context("the gateway did not start")??;
        let addr = line.parse().with_context(|| format!("`{line}` is no address"))?;
        Ok(Self { child, asks, answers, addr })
    }

    /// How it is now.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn look(&mut self) -> Result<Moment> {
        writeln!(self.asks).context("the gateway is gone")?;
        let line = self.answers.next().context("the gateway is gone")??;
        let counted: Vec<Counted> = serde_json::from_str(&line)?;
        let pid = self.child.id();
        let times = shard_times(pid, counted.len())?;
        Ok(Moment {
            at: cpu::uptime(),
            shards: counted.into_iter().zip(times).collect(),
            cpu: process_time(pid).context("the gateway is gone")?,
            resident: cpu::resident(pid)?,
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time of the threads of the gateway's shards, in their order.
fn shard_times(pid: u32, shards: usize) -> Result<Vec<Duration>> {
    let mut times = vec![Duration::ZERO; shards];
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the gateway is gone")? {
        let task = task?.path();
        let read = |file: &str| fs::read_to_string(task.join(file)).context("a thread is gone");
        let name = read("comm")?;
        let Some(index) = name.trim().strip_prefix(SHARD_THREAD) else { continue };
        let nanoseconds = read("schedstat")?.split(' ').next().and_then(|ns| ns.parse().ok());
        let place = times.get_mut(index.parse::<usize>()?).context("a shard too many")?;
        *place = Duration::from_nanos(nanoseconds.context("no scheduler statistics")?);
    }
    if times.contains(&Duration::ZERO) {
        bail!("the gateway has no threads named {SHARD_THREAD}0 to {SHARD_THREAD}{}", shards - 1);
    }
    Ok(times)
}

/// The other side of [`Watched::start`]: serves until standard input closes, and answers each line with what was counted.
///
/// # Errors
/// The gateway could not start, a shard died, or the other side is gone.
pub(crate) fn serve(settings: &Settings) -> Result<()> {
    settle(&settings.cores)?;
    let mut config = with_room(settings.io, settings.shards)?;
    config.session.max = Auto::Exactly(settings.sessions_max);
    config.session.keepalive_s = settings.keepalive_s;
    config.session.idle_timeout_s = settings.idle_timeout_s;
    let gateway = Gateway::start(config)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", gateway.listen_addrs().first().context("the gateway has no listener")?)?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        line?;
        if let Some(failure) = gateway.failure() {
            return Err(failure.into());
        }
        let counted: Vec<Counted> = gateway.stats().shards.iter().map(Counted::of).collect();
        serde_json::to_writer(&mut out, &counted)?;
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}

/// What the gateway calls the threads of its shards, before their number.
const SHARD_THREAD: &str = "kcp-shard-";
