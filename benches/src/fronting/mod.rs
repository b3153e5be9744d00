//! The gateway in front of backends: a crowd of sessions, the death of a backend, what a message costs, what is kept while a
//! backend hardly moves or clients read nothing. One command that starts everything it needs and says what held.

mod apart;
mod cost;
mod crowd;
mod fronts;
mod haproxy;
mod kept;
mod pacer;
mod plot;
mod slow;
mod squeeze;
pub(crate) mod stage;

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::contender::Io;
use crate::machine::Machine;
use cost::Costs;
use crowd::Crowd;
use slow::Slow;
use squeeze::Squeeze;
use stage::Kind;

/// What is measured, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct Plan {
    /// How sessions reach backends; repeatable [default: both]
    #[arg(long, value_enum)]
    kind: Vec<Kind>,
    /// What to run; repeatable [default: all]
    #[arg(long, value_enum)]
    part: Vec<Part>,
    /// Sessions of the crowd
    #[arg(long, default_value_t = 100_000)]
    pub(crate) sessions: u32,
    /// Backends, each at an address of its own; at least two
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(2..=32))]
    backends_count: u8,
    /// Sessions that begin in a second
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) ramp: u32,
    /// Seconds of load
    #[arg(long, default_value_t = 20)]
    pub(crate) seconds: u32,
    /// Shards of the gateway
    #[arg(long, default_value_t = 2)]
    pub(crate) shards: u16,
    /// Driver of the gateway and of the load
    #[arg(long, value_enum, default_value = "uring")]
    pub(crate) io: Io,
    /// Clients of the backend that hardly moves, and clients that read nothing
    #[arg(long, default_value_t = 10_000)]
    pub(crate) squeezed: u32,
    /// Seconds in which clients read nothing: their windows must close, and others be measured beside them
    #[arg(long, default_value_t = 75)]
    pub(crate) slow_seconds: u32,
    /// Rounds of the costs; up to three times as many while too little was measured with both cores near
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: u32,
    /// Seconds of a measurement of costs
    #[arg(long, default_value_t = 6)]
    pub(crate) cost_seconds: u32,
    /// Sessions of the costs
    #[arg(long, default_value_t = 1000)]
    pub(crate) pacers: u32,
    /// Messages a second of all of them together
    #[arg(long, default_value_t = 20_000)]
    pub(crate) pace: u64,
    /// Where the gateway and HAProxy run while costs are measured
    #[arg(long, default_value_t = 0)]
    pub(crate) server_core: usize,
    /// Where clients and backends run then
    #[arg(long, default_value_t = 1)]
    pub(crate) client_core: usize,
    /// Everything once and small: does it run?
    #[arg(long)]
    pub(crate) smoke: bool,
    /// Write the results as one JSON object
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw what was kept over time
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[arg(skip)]
    pub(crate) backends: usize,
}

/// A part of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A crowd of sessions; one backend is killed and comes back
    Crowd,
    /// CPU time per message
    Cost,
    /// A backend that hardly moves
    Squeeze,
    /// Clients that read nothing
    Slow,
}

/// The machine, the command, and what came of each part.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    #[serde(flatten)]
    machine: Machine,
    crowds: Vec<Crowd>,
    costs: Option<Costs>,
    squeezes: Vec<Squeeze>,
    slows: Vec<Slow>,
    verdicts: Vec<(String, bool)>,
}

/// Runs every part, prints what came of it and what held.
///
/// # Errors
/// A part could not be run, a result could not be written, or something did not hold.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub(crate) fn run(mut plan: Plan) -> Result<()> {
    plan.backends = plan.backends_count.into();
    if plan.smoke {
        (plan.sessions, plan.squeezed, plan.pacers, plan.pace) = (400, 200, 50, 1000);
        (plan.seconds, plan.rounds, plan.cost_seconds, plan.slow_seconds) = (4, 1, 1, 15);
    }
    let all = [Kind::Tcp, Kind::Yamux];
    let kinds = if plan.kind.is_empty() { all.to_vec() } else { plan.kind.clone() };
    let has = |part: Part| plan.part.is_empty() || plan.part.contains(&part);
    let mut outcome = Outcome { machine: Machine::this(), ..Outcome::default() };
    println!("{}\n", outcome.machine.lines().join("\n"));
    for &kind in &kinds {
        if has(Part::Crowd) {
            let crowd = crowd::run(&plan, kind)?;
            outcome.tell(&crowd.lines(), crowd.verdicts());
            outcome.crowds.push(crowd);
        }
        if has(Part::Squeeze) {
            let squeeze = squeeze::run(&plan, kind)?;
            outcome.tell(&squeeze.lines(), squeeze.verdicts(plan.smoke));
            outcome.squeezes.push(squeeze);
        }
        if has(Part::Slow) {
            let slow = slow::run(&plan, kind)?;
            outcome.tell(&slow.lines(), slow.verdicts(plan.smoke));
            outcome.slows.push(slow);
        }
    }
    if has(Part::Cost) {
        let costs = cost::run(&plan)?;
        // A second of each shows that it runs, and no more.
        outcome.tell(&costs.lines(), if plan.smoke { Vec::new() } else { costs.verdicts() });
        outcome.costs = Some(costs);
    }
    outcome.write(&plan)?;
    println!();
    for (what, held) in &outcome.verdicts {
        println!("{} {what}", if *held { "ok    " } else { "FAILED" });
    }
    ensure!(outcome.verdicts.iter().all(|(_, held)| *held), "not everything held");
    Ok(())
}

impl Outcome {
    #[expect(clippy::print_stdout, reason = "the table is what the command is for")]
    fn tell(&mut self, lines: &[String], verdicts: Vec<(String, bool)>) {
        lines.iter().for_each(|line| println!("{line}"));
        self.verdicts.extend(verdicts);
    }

    fn write(&self, plan: &Plan) -> Result<()> {
        if let Some(path) = &plan.json {
            let file =
                File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            serde_json::to_writer_pretty(file, self)?;
        }
        let squeezes = self.squeezes.iter().map(|one| (SQUEEZED, one.kind, &one.kept));
        let slows = self.slows.iter().map(|one| (SLOW, one.kind, &one.kept));
        let panels: Vec<_> = squeezes.chain(slows).collect();
        if let Some(path) = plan.svg.as_ref().filter(|_| !panels.is_empty()) {
            plot::draw(&panels, &self.machine, path)
                .with_context(|| format!("cannot draw {}", path.display()))?;
        }
        Ok(())
    }
}

/// What is drawn of each.
const SQUEEZED: &str = "a backend that hardly moves";
const SLOW: &str = "clients that read nothing";

/// Lets time pass: what is watched goes on by itself.
#[expect(clippy::disallowed_methods, reason = "a bench is about real time")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
