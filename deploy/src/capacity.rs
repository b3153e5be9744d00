//! Measures what CAPACITY.md's formula needs, on this machine, and writes it there.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use crossbeam::channel::after;

use crate::child::{Gateway, Process};
use crate::machine;
use crate::rules::home;

/// A measurement.
#[derive(Debug)]
pub struct Capacity {
    /// Where `kcp-gateway` and `kcp-loadgen` are.
    pub programs: PathBuf,
    /// Sessions at rest.
    pub sessions: u32,
    /// How long each load is measured.
    pub time: Duration,
}

/// Loads as a game makes them: sessions, messages per second of each, bytes of each.
const LOADS: [(u32, u32, u32); 3] = [(2000, 10, 64), (2000, 10, 500), (500, 60, 100)];
/// A fleet's size is worked out for machines like this.
const CORES: f64 = 16.0;
const GIBIBYTES: f64 = 64.0;
const BUSY: f64 = 0.6;
const FILLED: f64 = 0.75;
/// A player of the second load, at its busiest, has this much payload waiting.
const WAITING_BYTES: f64 = 4096.0;
const PLAYERS: [u64; 3] = [1_000_000, 10_000_000, 100_000_000];

/// What a gateway had used and done at some moment.
struct Moment {
    cpu_s: f64,
    rss_bytes: f64,
    datagrams: f64,
    sessions: f64,
}

/// What one load costs.
struct Cost {
    cpu_s_per_million: f64,
    datagrams_per_player_s: f64,
}

impl Capacity {
    /// Measures, and puts the tables in place of the former ones.
    ///
    /// # Errors
    /// A program that does not run, or sessions that do not come about.
    pub fn run(&self) -> anyhow::Result<()> {
        let session_bytes = self.at_rest()?;
        let mut text = String::new();
        writeln!(text, "{}\n", machine::line()?)?;
        writeln!(
            text,
            "A session at rest, of {} sessions: **m = {session_bytes:.0} bytes**.\n",
            self.sessions
        )?;
        writeln!(
            text,
            "| sessions | messages/s of each | bytes | datagrams/s of each (`d`) | CPU s per million datagrams (`c`) |"
        )?;
        writeln!(text, "|---|---|---|---|---|")?;
        let mut costs = Vec::new();
        for load in LOADS {
            let cost = self.under(load)?;
            let (sessions, rate, size) = load;
            let (d, c) = (cost.datagrams_per_player_s, cost.cpu_s_per_million);
            writeln!(text, "| {sessions} | {rate} | {size} | {d:.1} | {c:.2} |")?;
            costs.push(cost);
        }
        fleet(&mut text, session_bytes, &costs)?;
        let page = home().join("CAPACITY.md");
        let old = fs::read_to_string(&page)?;
        let (head, rest) = old.split_once(BEGIN).context("no place for figures")?;
        let (_, tail) = rest.split_once(END).context("no end of the figures")?;
        Ok(fs::write(page, format!("{head}{BEGIN}\n{text}{END}{tail}"))?)
    }

    fn at_rest(&self) -> anyhow::Result<f64> {
        let gateway = self.gateway()?;
        let before = Moment::of(&gateway)?;
        let _load =
            self.load(&gateway, &["--rate", "0", "--sessions", &self.sessions.to_string()])?;
        let now = self.settled(&gateway, self.sessions)?;
        Ok((now.rss_bytes - before.rss_bytes) / now.sessions)
    }

    fn under(&self, (sessions, rate, size): (u32, u32, u32)) -> anyhow::Result<Cost> {
        let gateway = self.gateway()?;
        let (count, rate, size) = (sessions.to_string(), rate.to_string(), size.to_string());
        let _load =
            self.load(&gateway, &["--sessions", &count, "--rate", &rate, "--size", &size])?;
        let before = self.settled(&gateway, sessions)?;
        let _ = after(self.time).recv();
        let now = Moment::of(&gateway)?;
        let datagrams = now.datagrams - before.datagrams;
        Ok(Cost {
            cpu_s_per_million: (now.cpu_s - before.cpu_s) / datagrams * 1e6,
            datagrams_per_player_s: datagrams / f64::from(sessions) / self.time.as_secs_f64(),
        })
    }

    /// Waits until all sessions live and what came with their start is over.
    fn settled(&self, gateway: &Gateway, sessions: u32) -> anyhow::Result<Moment> {
        for _ in 0..START_LOOKS {
            let _ = after(SETTLE).recv();
            let now = Moment::of(gateway)?;
            if now.sessions >= f64::from(sessions) {
                let _ = after(SETTLE).recv();
                return Moment::of(gateway);
            }
        }
        anyhow::bail!("{sessions} sessions did not come about")
    }

    fn gateway(&self) -> anyhow::Result<Gateway> {
        Gateway::start(&mut Command::new(self.programs.join("kcp-gateway")))
    }

    fn load(&self, gateway: &Gateway, args: &[&str]) -> anyhow::Result<Process> {
        let mut load = Command::new(self.programs.join("kcp-loadgen"));
        load.args(["run", "--duration", "1d", "--progress", "off", "--target"]);
        load.arg(gateway.listener.to_string()).args(args);
        Process::start(&mut load)
    }
}

impl Moment {
    fn of(gateway: &Gateway) -> anyhow::Result<Self> {
        let url = format!("http://{}/metrics", gateway.admin);
        let text = ureq::get(url).call()?.body_mut().read_to_string()?;
        let sum = |name: &str| -> f64 {
            let values = text.lines().filter_map(|line| {
                let rest = line.strip_prefix(name)?;
                rest.starts_with([' ', '{'])
                    .then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
            });
            values.sum()
        };
        let datagrams =
            ["kcp_gateway_datagrams_received_total", "kcp_gateway_datagrams_sent_total"];
        Ok(Self {
            cpu_s: gateway.process.cpu_s()?,
            rss_bytes: sum("process_resident_memory_bytes"),
            datagrams: datagrams.into_iter().map(sum).sum(),
            sessions: sum("kcp_gateway_sessions"),
        })
    }
}

/// Gateways for some fleets, by the formula.
fn fleet(text: &mut String, session_bytes: f64, costs: &[Cost]) -> anyhow::Result<()> {
    writeln!(
        text,
        "\nGateways of {CORES} cores and {GIBIBYTES} GiB for a fleet, by the formula: `u` = {BUSY}, `q` = {WAITING_BYTES} bytes, `s` = 1.\n"
    )?;
    write!(text, "| players |")?;
    for (_, rate, size) in LOADS {
        write!(text, " {rate}/s of {size} bytes |")?;
    }
    writeln!(text, "\n|---|---|---|---|")?;
    for players in PLAYERS {
        write!(text, "| {players} |")?;
        for cost in costs {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let n = players as f64;
            let by_cpu =
                n * cost.datagrams_per_player_s * cost.cpu_s_per_million / 1e6 / (CORES * BUSY);
            let by_memory =
                n * (session_bytes + WAITING_BYTES) / (GIBIBYTES * 1024.0_f64.powi(3) * FILLED);
            let decides = if by_cpu > by_memory { "CPU" } else { "memory" };
            write!(text, " {:.0} ({decides}) |", by_cpu.max(by_memory).ceil() + 1.0)?;
        }
        writeln!(text)?;
    }
    Ok(())
}

const BEGIN: &str = "<!-- figures: kcp-deploy capacity writes from here -->";
const END: &str = "<!-- to here -->";
const SETTLE: Duration = Duration::from_secs(2);
const START_LOOKS: u32 = 60;
