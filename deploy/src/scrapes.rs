//! What a scrape costs a gateway with many sessions: its time, its size, and what those who play notice of it.
//!
//! Most sessions are silent, as after a login; some play, and their round trips are measured in rounds: one without a scrape, one with a
//! scrape every second, and so on. What the machine does otherwise falls on both alike.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use crossbeam::channel::after;
use serde_json::Value;

use crate::child::{Gateway, Process};
use crate::machine;

/// How it is measured.
#[derive(Debug)]
pub struct Scrapes {
    /// Where `kcp-gateway` and `kcp-loadgen` are.
    pub programs: PathBuf,
    /// Silent sessions.
    pub sessions: u32,
    /// Sessions that play.
    pub players: u32,
    /// Messages per second of each of them.
    pub rate: u32,
    /// How long a round takes.
    pub time: Duration,
    /// Rounds of each kind.
    pub rounds: u32,
}

/// What a scrape took.
#[derive(Clone, Copy, Debug)]
struct Scrape {
    time: Duration,
    bytes: usize,
}

/// What players noticed in a round, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Noticed {
    p50: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl Scrapes {
    /// Measures, and prints a table.
    ///
    /// # Errors
    /// A program that does not run, sessions that do not come about, or a message that is lost.
    pub fn run(&self) -> anyhow::Result<()> {
        let mut out = io::stdout();
        writeln!(out, "{}", machine::line()?)?;
        // Players of a round that is over stay until they are missed.
        let max = self.sessions + self.players * (2 * self.rounds + 1);
        let mut command = Command::new(self.programs.join("kcp-gateway"));
        command.env("KCP_GATEWAY__SESSION__MAX", max.to_string());
        let gateway = Gateway::start(&mut command)?;
        let empty = (0..EMPTY).map(|_| scrape(&gateway)).collect::<anyhow::Result<Vec<_>>>()?;
        writeln!(out, "a scrape without sessions: {}", took(empty))?;

        let _silent = self.silent(&gateway)?;
        let dir = tempfile::tempdir()?;
        writeln!(
            out,
            "{:8} {:>9} {:>9} {:>9} {:>9}",
            "scrapes", "p50 us", "p99 us", "p999 us", "max us"
        )?;
        let (mut scrapes, mut without, mut with) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            for scraped in [false, true] {
                let file = dir.path().join("round.json");
                let noticed = self.round(&gateway, &file, scraped.then_some(&mut scrapes))?;
                let name = if scraped { "1/s" } else { "none" };
                writeln!(out, "{name:8} {noticed}")?;
                if scraped { with.push(noticed) } else { without.push(noticed) }
            }
        }
        let sessions = self.sessions + self.players;
        writeln!(out, "a scrape at {sessions} sessions: {}", took(scrapes))?;
        writeln!(
            out,
            "median   {:8} {}\nmedian   {:8} {}",
            "none",
            median(&without),
            "1/s",
            median(&with)
        )?;
        Ok(())
    }

    fn silent(&self, gateway: &Gateway) -> anyhow::Result<Process> {
        let sessions = self.sessions.to_string();
        let args = ["--sessions", &sessions, "--rate", "0", "--duration", "1d"];
        let silent = Process::start(&mut self.load(gateway, &args))?;
        for _ in 0..START_LOOKS {
            let status: Value = serde_json::from_str(&gateway.get("/api/v1/status")?)?;
            if status["sessions"].as_u64() >= Some(self.sessions.into()) {
                let _ = after(SETTLE).recv();
                return Ok(silent);
            }
            let _ = after(SECOND).recv();
        }
        bail!("{sessions} sessions did not come about")
    }

    /// One round of the players, with a scrape every second where there is a place for what they took.
    fn round(
        &self,
        gateway: &Gateway,
        file: &Path,
        mut scrapes: Option<&mut Vec<Scrape>>,
    ) -> anyhow::Result<Noticed> {
        let (players, rate) = (self.players.to_string(), self.rate.to_string());
        let seconds = format!("{}s", self.time.as_secs());
        let args = ["--sessions", &players, "--rate", &rate, "--duration", &seconds];
        let mut load = self.load(gateway, &args);
        load.arg("--json").arg(file);
        let mut load = Process::start(&mut load)?;
        let status = loop {
            if let Some(scrapes) = &mut scrapes {
                scrapes.push(scrape(gateway)?);
            }
            if let Some(status) = load.ends_within(SECOND)? {
                break status;
            }
        };
        ensure!(status.success(), "the load lost something: {status}");
        let report: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
        let us = |name: &str| report["latency_us"][name].as_u64().context("no latency");
        Ok(Noticed { p50: us("p50")?, p99: us("p99")?, p999: us("p999")?, max: us("max")? })
    }

    fn load(&self, gateway: &Gateway, args: &[&str]) -> Command {
        let mut load = Command::new(self.programs.join("kcp-loadgen"));
        load.args(["run", "--progress", "off", "--ramp", RAMP]);
        load.args(["--target", &gateway.listener.to_string()]).args(args);
        load
    }
}

impl std::fmt::Display for Noticed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>9} {:>9} {:>9} {:>9}", self.p50, self.p99, self.p999, self.max)
    }
}

fn scrape(gateway: &Gateway) -> anyhow::Result<Scrape> {
    #[expect(clippy::disallowed_methods, reason = "what a scraper waits is measured")]
    let began = Instant::now();
    let bytes = gateway.get("/metrics")?.len();
    Ok(Scrape { time: began.elapsed(), bytes })
}

/// Of each column by itself.
fn median(rounds: &[Noticed]) -> Noticed {
    let of = |column: fn(&Noticed) -> u64| middle(rounds.iter().map(column).collect());
    Noticed { p50: of(|n| n.p50), p99: of(|n| n.p99), p999: of(|n| n.p999), max: of(|n| n.max) }
}

/// Time and size in words.
fn took(scrapes: Vec<Scrape>) -> String {
    let us = |scrape: &Scrape| u64::try_from(scrape.time.as_micros()).unwrap_or(u64::MAX);
    let (count, longest) = (scrapes.len(), scrapes.iter().map(us).max().unwrap_or(0));
    let bytes = scrapes.iter().map(|scrape| scrape.bytes).max().unwrap_or(0);
    let median = middle(scrapes.iter().map(us).collect());
    format!("{bytes} bytes, median {median} us, longest {longest} us of {count}")
}

fn middle<T: Ord + Copy + Default>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Scrapes before there are sessions.
const EMPTY: usize = 20;
/// Sessions that begin per second.
const RAMP: &str = "20000/s";
const SECOND: Duration = Duration::from_secs(1);
const SETTLE: Duration = Duration::from_secs(5);
/// A million sessions begin within a minute.
const START_LOOKS: u32 = 300;
