//! What sessions cost, by the thousand and by the ten million: the gateway in one process, the load in another, both on the
//! same cores.

mod plot;
mod trace;

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::contender::Io;
use crate::load::Load;
use crate::machine::Machine;
use crate::watched::{Moment, Settings, Watched};
use trace::{Stretch, Trace};

/// How to measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct Plan {
    /// Numbers of sessions; above 2,000,000 none is asked whether it is there, and none ends.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000,10000000")]
    sizes: Vec<u32>,
    /// Messages a second of all sessions together, whatever their number.
    #[arg(long, default_value_t = 20_000)]
    rate: u32,
    /// Births a second; 0 = as fast as they can. Fewer cost more each: less comes at once.
    #[arg(long, default_value_t = 0)]
    births_per_s: u32,
    /// Seconds of messages, and of silence before them.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// The cores of the gateway, a shard on each; the load runs wherever it likes.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1])]
    cores: Vec<usize>,
    /// Driver of the gateway and of the load.
    #[arg(long, value_enum, default_value = "uring")]
    io: Io,
    /// Threads of the load.
    #[arg(long, default_value_t = 2)]
    threads: u16,
    /// GiB that the gateway and the load may have together; beyond, the run is ended.
    #[arg(long, default_value_t = 24)]
    memory_gib: u64,
    /// Write the result here as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the result here.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// A hundred sessions for a second: shows that it runs, measures nothing.
    #[arg(long)]
    smoke: bool,
}

/// What so many sessions cost. What was not measured is not a number.
#[derive(Clone, Copy, Debug, Serialize)]
struct Row {
    sessions: u32,
    /// Memory of the gateway's process with all of them idle.
    resident_bytes: u64,
    /// That, divided by them.
    bytes_per_session: f64,
    /// What the process has more than before the first of them came, divided by them.
    grown_bytes_per_session: f64,
    /// What it has a while after the last of them has ended.
    left_bytes: f64,
    births_per_s: f64,
    /// CPU time of the whole gateway, here and below. A birth is a first message, taken, acknowledged and echoed.
    cpu_us_per_birth: f64,
    /// A message, its echo and all acknowledgements.
    cpu_us_per_message: f64,
    /// A question whether the client is there, and its answer.
    cpu_us_per_probe: f64,
    deaths_per_s: f64,
    /// A session that ends because its client is silent.
    cpu_us_per_death: f64,
    /// Cores in use while nobody says anything and nobody asks.
    idle_cores: f64,
    /// The longest of the busy turns, time included in which the load had the core; and what the longest used of the processor.
    longest_turn_us: u64,
    longest_turn_cpu_us: u64,
    load_bytes_per_session: f64,
    /// Most that the gateway and the load had together.
    memory_max_bytes: u64,
}

/// The machine, the command, a row for each size.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    #[serde(flatten)]
    machine: &'a Machine,
    rate: u32,
    rows: &'a [Row],
}

/// Measures every size, prints a table, writes JSON and picture after each.
///
/// # Errors
/// A result could not be written; or, after all sizes, of one of them sessions or messages were lost, or memory did not
/// suffice.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub(crate) fn run(mut plan: Plan) -> Result<()> {
    if plan.smoke {
        (plan.sizes, plan.rate, plan.seconds) = (vec![100], 1000, 1);
    }
    ensure!(
        !plan.sizes.is_empty() && !plan.sizes.contains(&0) && plan.seconds > 0 && plan.rate > 0,
        "nothing to measure: --sizes, --seconds and --rate"
    );
    let machine = Machine::this();
    println!("{}\n\n{}", machine.lines().join("\n"), heading());
    let mut rows = Vec::new();
    for &sessions in &plan.sizes {
        let row = match measure(&plan, sessions) {
            Ok(row) => row,
            Err(error) => {
                eprintln!("{sessions} sessions: not measured: {error:#}");
                continue;
            }
        };
        println!("{}", line(&row));
        rows.push(row);
        if let Some(path) = &plan.json {
            let file =
                File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            let outcome = Outcome { machine: &machine, rate: plan.rate, rows: &rows };
            serde_json::to_writer_pretty(file, &outcome)?;
        }
        if let Some(path) = &plan.svg {
            plot::draw(&rows, &machine, path)
                .with_context(|| format!("cannot draw {}", path.display()))?;
        }
    }
    ensure!(rows.len() == plan.sizes.len(), "not every size could be measured");
    Ok(())
}

/// Birth, silence, messages and death in one run; questions in another, where nothing else is going on.
fn measure(plan: &Plan, sessions: u32) -> Result<Row> {
    let all = u64::from(sessions);
    let ends = sessions <= ENDING_MAX;
    // Nobody may end before the last has come and all have spoken.
    let idle_timeout_s = if ends { 2 * plan.seconds + 15 + sessions / 15_000 } else { 86_400 };
    let mut watched = Watched::start(&settings(plan, sessions, 0, idle_timeout_s))?;
    let mut trace = Trace::default();
    let before = trace.look(&mut watched)?.resident;
    let mut load = Load::start(watched.addr, &flags(plan, sessions, true))?;
    eprintln!("{sessions} sessions: birth, silence, messages");
    trace.watch(&mut watched, &mut load, plan.memory_gib << 30)?;
    let report = load.report()?;
    let born = |moment: &Moment| moment.sum(|c| c.births) == all;
    ensure!(trace.any(born), "the gateway has not seen all births");
    ensure!(trace.sum(|c| c.deaths) == 0, "sessions ended early: the load took too long");
    let silent = |moment: &Moment| born(moment) && moment.sum(|c| c.messages) == all;
    let idle = trace.stretch_where(|c| c.births, silent);
    let resident = trace.last_where(silent).context("nobody was idle")?.resident;
    let spoken = |moment: &Moment| moment.sum(|c| c.messages) > all;
    let messages = trace.stretch_where(|c| c.messages, spoken);
    let births = trace.stretch(|c| c.births);
    let (mut probed, mut left_bytes) = (Stretch::default(), f64::NAN);
    if ends {
        eprintln!("{sessions} sessions: death, after {idle_timeout_s} s of silence");
        let limit = Duration::from_secs(u64::from(idle_timeout_s) * 3);
        let dead = trace.watch_until(&mut watched, limit, |m| m.sum(|c| c.sessions) == 0)?;
        ensure!(dead, "{} sessions did not end", trace.sum(|c| c.sessions));
        let settles = if plan.smoke { Duration::ZERO } else { SETTLES };
        trace.watch_until(&mut watched, settles, |_| false)?;
        left_bytes = trace.look(&mut watched)?.resident as f64;
        probed = probes(plan, sessions).unwrap_or_else(|error| {
            eprintln!("{sessions} sessions: keepalive not measured: {error:#}");
            Stretch::default()
        });
    }
    let deaths = trace.stretch(|c| c.deaths);
    let load_bytes = report["generator"]["resident_max_bytes"].as_f64().unwrap_or(f64::NAN);
    Ok(Row {
        sessions,
        resident_bytes: resident,
        bytes_per_session: resident as f64 / all as f64,
        grown_bytes_per_session: resident.saturating_sub(before) as f64 / all as f64,
        left_bytes,
        births_per_s: births.per_s(),
        cpu_us_per_birth: births.cpu_us_each(),
        cpu_us_per_message: messages.cpu_us_each(),
        cpu_us_per_probe: probed.cpu_us_each(),
        deaths_per_s: deaths.per_s(),
        cpu_us_per_death: deaths.cpu_us_each(),
        idle_cores: idle.cores(),
        longest_turn_us: trace.most(|c| c.longest_turn_us),
        longest_turn_cpu_us: trace.most(|c| c.longest_turn_cpu_us),
        load_bytes_per_session: load_bytes / all as f64,
        memory_max_bytes: trace.memory_max(),
    })
}

/// Everybody is asked: ten thousand a second, or all within a second, up to the gateway's default of a minute.
fn probes(plan: &Plan, sessions: u32) -> Result<Stretch> {
    let keepalive_s = (sessions / 10_000).clamp(1, 60);
    let mut watched = Watched::start(&settings(plan, sessions, keepalive_s, 86_400))?;
    let mut trace = Trace::default();
    trace.look(&mut watched)?;
    let seconds = keepalive_s * 5 / 4 + plan.seconds;
    eprintln!("{sessions} sessions: keepalive of {keepalive_s} s, for {seconds} s");
    let asked = Plan { seconds, ..plan.clone() };
    let mut load = Load::start(watched.addr, &flags(&asked, sessions, false))?;
    trace.watch(&mut watched, &mut load, plan.memory_gib << 30)?;
    load.report()?;
    let all = u64::from(sessions);
    let asking = |m: &Moment| m.sum(|c| c.births) == all && m.sum(|c| c.probes) > 0;
    ensure!(trace.sum(|c| c.deaths) == 0, "a client that is there was given up");
    Ok(trace.stretch_where(|c| c.probes, asking))
}

fn settings(plan: &Plan, sessions: u32, keepalive_s: u32, idle_timeout_s: u32) -> Settings {
    Settings {
        cores: plan.cores.clone(),
        shards: u16::try_from(plan.cores.len()).unwrap_or(u16::MAX),
        io: plan.io,
        // Shards do not fill evenly.
        sessions_max: sessions.saturating_add(sessions / 4).saturating_add(10_000),
        keepalive_s,
        idle_timeout_s,
    }
}

/// A load that comes from 16 addresses, is silent, and then speaks, or goes on being silent.
fn flags(plan: &Plan, sessions: u32, speaks: bool) -> String {
    let Plan { seconds, threads, io, rate, births_per_s, .. } = plan;
    let ramp_ms = u64::from(sessions) * 1000 / u64::from(*births_per_s).max(1);
    let ramp_ms = if *births_per_s == 0 { 0 } else { ramp_ms };
    let rate = if speaks { f64::from(*rate) / f64::from(sessions) } else { 0.0 };
    let hold = if speaks { *seconds } else { 0 };
    format!(
        "--sessions {sessions} --rate {rate} --ramp {ramp_ms}ms --establish-timeout 30s --hold {hold}s --warmup 0s --drain 30s \
         --duration {seconds}s --sources 127.0.0.2+16 --threads {threads} --io {} --progress off",
        io.label()
    )
}

fn heading() -> String {
    let row = |cells: [&str; 16]| {
        let [sessions, a, b, c, z, d, e, f, g, h, i, j, k, l, m, n] = cells;
        format!(
            "{sessions:>10} {a:>9} {b:>9} {c:>9} {z:>6} | {d:>8} {e:>8} {f:>8} {g:>8} | {h:>9} {i:>9} | {j:>7} {k:>8} {l:>8} | {m:>8} \
             {n:>8}"
        )
    };
    [
        row([
            "sessions",
            "resident",
            "bytes per",
            "grown",
            "left,",
            "CPU us",
            "per",
            "per",
            "per",
            "births",
            "deaths",
            "idle",
            "longest",
            "its",
            "load,",
            "both",
        ]),
        row([
            "", "MB", "session", "by", "MB", "birth", "message", "probe", "death", "per s",
            "per s", "core %", "turn ms", "CPU ms", "B/sess.", "MB max",
        ]),
        row(["at most", "", "256", "", "", "5", "", "5", "1", "", "", "1", "", "5", "", ""]),
    ]
    .join("\n")
}

fn line(row: &Row) -> String {
    let figure = |value: f64, digits: usize| {
        if value.is_finite() { format!("{value:.digits$}") } else { "-".to_owned() }
    };
    format!(
        "{:>10} {:>9.1} {:>9.1} {:>9.1} {:>6} | {:>8} {:>8} {:>8} {:>8} | {:>9} {:>9} | {:>7.2} {:>8.2} {:>8.2} | {:>8} \
         {:>8.0}",
        row.sessions,
        row.resident_bytes as f64 / 1e6,
        row.bytes_per_session,
        row.grown_bytes_per_session,
        figure(row.left_bytes / 1e6, 0),
        figure(row.cpu_us_per_birth, 2),
        figure(row.cpu_us_per_message, 2),
        figure(row.cpu_us_per_probe, 2),
        figure(row.cpu_us_per_death, 2),
        figure(row.births_per_s, 0),
        figure(row.deaths_per_s, 0),
        row.idle_cores * 100.0,
        row.longest_turn_us as f64 / 1e3,
        row.longest_turn_cpu_us as f64 / 1e3,
        figure(row.load_bytes_per_session, 0),
        row.memory_max_bytes as f64 / 1e6,
    )
}

/// More sessions than this would take too long to be asked and to end.
const ENDING_MAX: u32 = 2_000_000;
/// From the last end to when memory is looked at: tombstones are kept for 30 s, and payload's memory goes back slowly.
const SETTLES: Duration = Duration::from_secs(45);
